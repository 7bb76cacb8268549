//! What the order of host policies does to them: some are never reached, some
//! make no difference, and some leave others hollow.
//!
//! - *Never reached*: earlier policies, or the bypass list, cover all of it; one
//!   of them, or some together (where that takes few steps to see).
//! - *No difference*: a later policy covers all of it and does the same, and none
//!   between that does something else meets it. Not told of a policy for ports or
//!   ICMP types: naming a service is worth a policy of its own in reports.
//! - *Hollow*: an earlier policy passes part of what it protects. That is how one
//!   writes exceptions, so it is only told where it does not look like one. An
//!   exception lies within the addresses of what it is an exception to, or is for
//!   ports, or for a protocol other than TCP and UDP.

use super::advice::{Places, at, host_label};
use super::cube::{Cube, cover_together, for_each_meeting};
use super::model::{Config, HostAction, HostPolicy};
use super::report::Report;
use crate::selector::{AddressRange, PortSelector, Selector};
use crate::spd::{names_a_type, names_link_control};
use std::collections::BTreeSet;

/// Earlier selectors that are looked at together.
const MOST_TOGETHER: usize = 64;
/// Policies that one message names.
const MOST_NAMED: usize = 3;

/// One selector of a host policy, or one entry of the bypass list.
struct Item<'c> {
    origin: Origin<'c>,
    cube: Cube,
    /// The first that covers all of it, before.
    covered_by: Option<usize>,
    /// What has some of it, before.
    met_by: Vec<usize>,
    /// The first policy, by its place, that covers it and does the same, after.
    repeated_by: Option<usize>,
    /// The first policy that meets it and does something else, after.
    contradicted_by: Option<usize>,
}

#[derive(Clone, Copy)]
enum Origin<'c> {
    Bypass(&'c AddressRange),
    /// Place of the policy, and its selector.
    Host(usize, &'c Selector),
}

/// Warns about host policies whose order is probably not meant.
pub(super) fn advise(config: &Config, places: &Places, report: &mut Report<'_>) {
    let (items, hollowed) = compare(config);
    let of_hosts = items.partition_point(|i| matches!(i.origin, Origin::Bypass(_)));
    let of_host = |item: &Item<'_>, n| matches!(item.origin, Origin::Host(place, _) if place == n);
    let mut items_left = of_hosts;
    for (n, host) in config.hosts.iter().enumerate() {
        let own = items[items_left..].iter().take_while(|i| of_host(i, n)).count();
        let own = &items[items_left..items_left + own];
        items_left += own.len();
        let here = at(&places.hosts, host.line);
        if let Some(by) = never_reached(own, &items) {
            let clear = matches!(host.action, HostAction::Tunnel(_))
                && by.iter().any(|place| match items[*place].origin {
                    Origin::Bypass(_) => true,
                    Origin::Host(place, _) => matches!(config.hosts[place].action, HostAction::Pass),
                });
            let goes = if clear { ", so it goes in the clear" } else { "" };
            let message = format!(
                "is never reached: all it covers is taken before by {}{goes}; its own priority is {}",
                names(by.iter().map(|place| name(config, &items[*place]))),
                host.priority
            );
            report.warning(here, &host_label(host), message).suggest("give it a lower priority, or remove it");
            continue;
        }
        if let Some(by) = makes_no_difference(own) {
            let by = names(by.iter().map(|place| host_name(&config.hosts[*place])));
            report
                .warning(
                    here,
                    &host_label(host),
                    format!("makes no difference: without it, {by} would do the same with all it covers"),
                )
                .suggest("remove it, or change what it does");
        }
        if let (HostAction::Tunnel(tunnel), by) = (&host.action, &hollowed[n])
            && !by.is_empty()
        {
            let by = names(by.iter().map(|place| host_name(&config.hosts[*place])));
            report
                .warning(
                    here,
                    &host_label(host),
                    format!("part of what it puts in tunnel `{}` goes in the clear before, by {by}", tunnel.name),
                )
                .suggest(
                    "give that a higher priority; or, if it is an exception, addresses within those of this policy",
                );
        }
    }
}

/// Every selector with what it meets, and for each policy those that pass part of it in a way that looks unmeant.
fn compare(config: &Config) -> (Vec<Item<'_>>, Vec<BTreeSet<usize>>) {
    let bypass = config.bypass.iter().map(|range| (Origin::Bypass(range), Cube::of(range)));
    let hosts = config.hosts.iter().enumerate().flat_map(|(n, host)| {
        host.selectors.iter().map(move |selector| (Origin::Host(n, selector), Cube::new(selector)))
    });
    let item = |(origin, cube)| Item {
        origin,
        cube,
        covered_by: None,
        met_by: Vec::new(),
        repeated_by: None,
        contradicted_by: None,
    };
    let mut items: Vec<Item<'_>> = bypass.chain(hosts).map(item).collect();
    let mut hollowed = vec![BTreeSet::new(); config.hosts.len()];
    let cubes: Vec<Cube> = items.iter().map(|i| i.cube).collect();
    for_each_meeting(&cubes, |before, after| {
        let Origin::Host(later, later_selector) = items[after].origin else { return };
        let takes = match items[before].origin {
            Origin::Bypass(_) => true,
            Origin::Host(earlier, _) if earlier == later => return,
            Origin::Host(_, selector) => speaks_for(selector, later_selector),
        };
        let item = &mut items[after];
        if takes && cubes[before].covers(&cubes[after]) {
            item.covered_by = Some(item.covered_by.map_or(before, |b| b.min(before)));
        } else if takes && item.met_by.len() <= MOST_TOGETHER {
            item.met_by.push(before);
        }
        let Origin::Host(earlier, selector) = items[before].origin else { return };
        let item = &mut items[before];
        let first = |of: Option<usize>| Some(of.map_or(later, |place| place.min(later)));
        if !same(&config.hosts[earlier], &config.hosts[later]) {
            item.contradicted_by = first(item.contradicted_by);
        } else if cubes[after].covers(&cubes[before]) && speaks_for(later_selector, selector) {
            item.repeated_by = first(item.repeated_by);
        }
        if matches!(config.hosts[earlier].action, HostAction::Pass) && !is_exception(selector, later_selector) {
            hollowed[later].insert(earlier);
        }
    });
    (items, hollowed)
}

/// Only a policy that names the type decides about IPv6 link control: one that
/// does not takes nothing of that from one that does.
fn speaks_for(one: &Selector, other: &Selector) -> bool {
    names_a_type(one) || !names_link_control(other)
}

fn same(one: &HostPolicy, other: &HostPolicy) -> bool {
    match (&one.action, &other.action) {
        (HostAction::Pass, HostAction::Pass) | (HostAction::Discard, HostAction::Discard) => true,
        (HostAction::Tunnel(a), HostAction::Tunnel(b)) => a.name == b.name,
        _ => false,
    }
}

/// Whether what is passed looks like an exception to what follows.
fn is_exception(passed: &Selector, protected: &Selector) -> bool {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let service = passed.ports != PortSelector::Any || passed.protocol.is_some_and(|p| p != TCP && p != UDP);
    let (outer, inner) = ([protected.local, protected.remote], [passed.local, passed.remote]);
    let within = outer.iter().zip(&inner).all(|(outer, inner)| outer.covers(inner));
    service || within && outer != inner
}

/// The items that take all of a policy; `None` if something is left to it.
fn never_reached(own: &[Item<'_>], items: &[Item<'_>]) -> Option<BTreeSet<usize>> {
    let mut by = BTreeSet::new();
    for item in own {
        if let Some(place) = item.covered_by {
            by.insert(place);
            continue;
        }
        if item.met_by.len() < 2 || item.met_by.len() > MOST_TOGETHER {
            return None;
        }
        let mut met = item.met_by.clone();
        met.sort_unstable();
        by.extend(cover_together(&item.cube, met.into_iter().map(|place| (place, items[place].cube)))?);
    }
    (!own.is_empty()).then_some(by)
}

/// The later policies that do the same for all of a policy; `None` if it makes a difference.
fn makes_no_difference(own: &[Item<'_>]) -> Option<BTreeSet<usize>> {
    let by = own.iter().map(|item| {
        let plain = matches!(item.origin, Origin::Host(_, selector) if selector.ports == PortSelector::Any);
        let repeated = item.repeated_by.filter(|_| plain);
        repeated.filter(|repeats| item.contradicted_by.is_none_or(|contradicts| *repeats < contradicts))
    });
    let by = by.collect::<Option<BTreeSet<_>>>()?;
    (!by.is_empty()).then_some(by)
}

fn name(config: &Config, item: &Item<'_>) -> String {
    match item.origin {
        Origin::Bypass(range) => format!("bypass {range}"),
        Origin::Host(place, _) => host_name(&config.hosts[place]),
    }
}

fn host_name(host: &HostPolicy) -> String {
    format!("{} (priority {}, line {})", host_label(host), host.priority, host.line)
}

/// `a and b`, each once; the first few where there are many.
fn names(all: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = all.collect();
    // A policy has all its selectors in a row.
    names.dedup();
    match names.len().saturating_sub(MOST_NAMED) {
        0 => names.join(" and "),
        more => format!("{} and {more} more", names[..MOST_NAMED].join(", ")),
    }
}
