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
use crate::selector::{PortSelector, Selector};
use crate::spd::{names_a_type, names_link_control};
use std::collections::{BTreeSet, HashMap};

/// Earlier selectors, or policies, that are looked at together.
const MOST_TOGETHER: usize = 64;
/// Policies that one message names.
const MOST_NAMED: usize = 3;

/// One selector of a host policy, or one entry of the bypass list.
struct Item<'c> {
    /// Place of the policy, and its selector.
    host: Option<(usize, &'c Selector)>,
    /// The first item that covers all of it, before.
    covered_by: Option<usize>,
    /// What has some of it, before.
    met_by: Vec<usize>,
    /// The first policy, by its place, that covers it and does the same, after.
    repeated_by: Option<usize>,
    /// The first policy that meets it and does something else, after.
    contradicted_by: Option<usize>,
}

/// What is asked of an item for each that it meets, and there may be millions: so it is short.
#[derive(Clone, Copy)]
struct Gist {
    host: Option<u32>,
    /// The same for two policies that do the same.
    action: u32,
    passes: bool,
    protects: bool,
    names_type: bool,
    names_link_control: bool,
}

impl Gist {
    /// Only a policy that names the type decides about IPv6 link control: one
    /// that does not takes nothing of that from one that does.
    fn speaks_for(&self, other: &Self) -> bool {
        self.names_type || self.host.is_none() || !other.names_link_control
    }
}

/// All selectors, the bypass list first, and what they meet.
struct Comparison<'c> {
    config: &'c Config,
    items: Vec<Item<'c>>,
    cubes: Vec<Cube>,
    /// By policy: those that pass part of what it protects, in a way that looks unmeant.
    hollowed: Vec<BTreeSet<usize>>,
}

/// Warns about host policies whose order is probably not meant.
pub(super) fn advise(config: &Config, places: &Places, report: &mut Report<'_>) {
    let compared = Comparison::new(config);
    let mut start = config.bypass.len();
    for (n, host) in config.hosts.iter().enumerate() {
        let own = start..start + host.selectors.len();
        start = own.end;
        let own = &compared.items[own];
        let here = at(&places.hosts, host.line);
        if let Some(by) = compared.never_reached(own) {
            let clear = matches!(host.action, HostAction::Tunnel(_)) && by.iter().any(|place| compared.passes(*place));
            let goes = if clear { ", so it goes in the clear" } else { "" };
            let message = format!(
                "is never reached: all it covers is taken before by {}{goes}; its own priority is {}",
                names(by.iter().map(|place| compared.name(*place))),
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
        if let (HostAction::Tunnel(tunnel), by) = (&host.action, &compared.hollowed[n])
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

impl<'c> Comparison<'c> {
    fn new(config: &'c Config) -> Self {
        let selectors = config.hosts.iter().enumerate().flat_map(|(n, h)| h.selectors.iter().map(move |s| (n, s)));
        let all = || config.bypass.iter().map(|_| None).chain(selectors.clone().map(Some));
        let item = |host| Item { host, covered_by: None, met_by: Vec::new(), repeated_by: None, contradicted_by: None };
        let cubes = config.bypass.iter().map(Cube::of).chain(selectors.clone().map(|(n, s)| cube(config, n, s)));
        let mut compared = Self {
            config,
            items: all().map(item).collect(),
            cubes: cubes.collect(),
            hollowed: vec![BTreeSet::new(); config.hosts.len()],
        };
        let gists = gists(config, all());
        for_each_meeting(&compared.cubes, |before, after| {
            let (earlier, later) = (&gists[before], &gists[after]);
            if earlier.host == later.host {
                return;
            }
            let (cube, later_cube) = (&compared.cubes[before], &compared.cubes[after]);
            let item = &mut compared.items[after];
            // What is covered already needs no more than the first.
            if item.covered_by.is_none_or(|first| before < first) && earlier.speaks_for(later) {
                if cube.covers(later_cube) {
                    item.covered_by = Some(before);
                } else if item.met_by.len() <= MOST_TOGETHER {
                    item.met_by.push(before);
                }
            }
            let (Some(_), Some(later_host)) = (earlier.host, later.host) else { return };
            let later_host = later_host as usize;
            let (item, later_item) = (&compared.items[before], &compared.items[after]);
            if earlier.passes
                && later.protects
                && let (Some((place, passed)), Some((_, protected))) = (item.host, later_item.host)
                && !is_exception(passed, protected)
            {
                let hollowed = &mut compared.hollowed[later_host];
                hollowed.insert(place);
                if hollowed.len() > MOST_TOGETHER {
                    hollowed.pop_last();
                }
            }
            let item = &mut compared.items[before];
            if earlier.action != later.action {
                lower(&mut item.contradicted_by, later_host);
            } else if later_cube.covers(cube) && later.speaks_for(earlier) {
                lower(&mut item.repeated_by, later_host);
            }
        });
        compared
    }

    /// The items that take all of a policy; `None` if something is left to it.
    fn never_reached(&self, own: &[Item<'_>]) -> Option<BTreeSet<usize>> {
        let mut by = BTreeSet::new();
        for item in own {
            if let Some(place) = item.covered_by {
                by.insert(place);
                continue;
            }
            if item.met_by.len() < 2 || item.met_by.len() > MOST_TOGETHER {
                return None;
            }
            let (place, selector) = item.host?;
            let mut met = item.met_by.clone();
            met.sort_unstable();
            by.extend(cover_together(
                &cube(self.config, place, selector),
                met.into_iter().map(|n| (n, self.cubes[n])),
            )?);
        }
        (!own.is_empty()).then_some(by)
    }

    fn passes(&self, place: usize) -> bool {
        self.items[place].host.is_none_or(|(host, _)| matches!(self.config.hosts[host].action, HostAction::Pass))
    }

    fn name(&self, place: usize) -> String {
        match self.items[place].host {
            Some((host, _)) => host_name(&self.config.hosts[host]),
            None => format!("bypass {}", self.config.bypass[place]),
        }
    }
}

fn gists<'c>(config: &Config, all: impl Iterator<Item = Option<(usize, &'c Selector)>>) -> Vec<Gist> {
    let mut tunnels = HashMap::new();
    let actions: Vec<u32> = config
        .hosts
        .iter()
        .map(|host| match &host.action {
            HostAction::Pass => 0,
            HostAction::Discard => 1,
            HostAction::Tunnel(t) => {
                let next = 2 + tunnels.len() as u32;
                *tunnels.entry((&*t.name, host.exclusive)).or_insert(next)
            }
        })
        .collect();
    let gist = |host: Option<(usize, &Selector)>| {
        let action = host.map_or(0, |(place, _)| actions[place]);
        Gist {
            host: host.map(|(place, _)| place as u32),
            action,
            passes: action == 0,
            protects: action > 1,
            names_type: host.is_some_and(|(_, s)| names_a_type(s)),
            names_link_control: host.is_some_and(|(_, s)| names_link_control(s)),
        }
    };
    all.map(gist).collect()
}

/// What a selector of a host policy covers. Where there is one interface, that is all there are.
fn cube(config: &Config, place: usize, selector: &Selector) -> Cube {
    let several = config.startup.attachments().nth(1).is_some();
    Cube::new(selector).on(config.hosts[place].interface.filter(|_| several))
}

fn lower(first: &mut Option<usize>, place: usize) {
    *first = Some(first.map_or(place, |f| f.min(place)));
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

/// The later policies that do the same for all of a policy; `None` if it makes a difference.
fn makes_no_difference(own: &[Item<'_>]) -> Option<BTreeSet<usize>> {
    let by = own.iter().map(|item| {
        let plain = item.host.is_some_and(|(_, selector)| selector.ports == PortSelector::Any);
        let repeated = item.repeated_by.filter(|_| plain);
        repeated.filter(|repeats| item.contradicted_by.is_none_or(|contradicts| *repeats < contradicts))
    });
    let by = by.collect::<Option<BTreeSet<_>>>()?;
    (!by.is_empty()).then_some(by)
}

fn host_name(host: &HostPolicy) -> String {
    format!("{} (priority {}, line {})", host_label(host), host.priority, host.line)
}

/// `a and b`, each once; the first few where there are many.
fn names(all: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = all.collect();
    // A policy has all its selectors in a row.
    names.dedup();
    match names.get(..MOST_NAMED) {
        Some(few) if names.len() > MOST_NAMED => format!("{} and others", few.join(", ")),
        _ => names.join(" and "),
    }
}
