//! What is legal but probably not meant: policies that are never reached,
//! tunnels that cover too little, holes.

use super::cube::{Cube, for_each_meeting};
use super::model::{
    AuthRecord, Config, DefaultAction, HostAction, HostPolicy, IkePolicy, Phase1Exchange, TunnelPolicy,
};
use super::order;
use super::report::Report;
use super::source::Span;
use crate::selector::AddressRange;
use std::collections::{BTreeMap, BTreeSet};

/// The smallest MTU that IPv6 works over (RFC 8200 5).
const IPV6_MINIMUM_MTU: u16 = 1280;

/// Where objects stand, by the line that the model keeps.
pub(super) struct Places {
    /// The tunnel a host policy names, or its header.
    pub(super) hosts: BTreeMap<usize, Span>,
    /// Headers of tunnels.
    pub(super) tunnels: BTreeMap<usize, Span>,
    /// `remote` of IKE policies.
    pub(super) ikes: BTreeMap<usize, Span>,
    /// `remote` of authentication records.
    pub(super) auths: BTreeMap<usize, Span>,
    /// Addresses of the bypass list, in its order.
    pub(super) bypass: Vec<Span>,
}

/// Warns about a configuration without errors.
pub(super) fn advise(config: &Config, places: &Places, report: &mut Report<'_>) {
    nothing_configured(config, report);
    tunnels_nobody_names(config, places, report);
    tunnels_that_cover_too_little(config, places, report);
    overlapping_tunnels(config, places, report);
    order::advise(config, places, report);
    ikes_never_reached(config, places, report);
    auths_never_used(config, places, report);
    keys_for_everybody(config, places, report);
    hollow_tunnels(config, places, report);
    mtu_too_small(config, places, report);
}

pub(super) fn at(places: &BTreeMap<usize, Span>, line: usize) -> Span {
    places.get(&line).copied().unwrap_or(Span { start: 0, end: 0 })
}

pub(super) fn host_label(h: &HostPolicy) -> String {
    format!("host `{}`", h.name)
}

fn tunnel_label(t: &TunnelPolicy) -> String {
    format!("tunnel `{}`", t.name)
}

fn ike_label(p: &IkePolicy) -> String {
    format!("ike `{}`", p.name)
}

fn auth_label(a: &AuthRecord) -> String {
    format!("auth `{}`", a.name)
}

fn nothing_configured(config: &Config, report: &mut Report<'_>) {
    if config.hosts.is_empty() && config.default_action == DefaultAction::Pass {
        report
            .warning(Span { start: 0, end: 0 }, "", "no [[host]] policy: everything goes in the clear")
            .suggest("add [[host]] policies, or [default] action = \"DISCARD\"");
    }
}

/// Host policies and the tunnel each names.
fn tunnelled(config: &Config) -> impl Iterator<Item = (&HostPolicy, &TunnelPolicy)> {
    config.hosts.iter().filter_map(|h| match &h.action {
        HostAction::Tunnel(t) => Some((&**h, &**t)),
        HostAction::Pass | HostAction::Discard => None,
    })
}

fn tunnels_nobody_names(config: &Config, places: &Places, report: &mut Report<'_>) {
    let named: BTreeSet<&str> = tunnelled(config).map(|(_, tunnel)| &*tunnel.name).collect();
    for tunnel in &config.tunnels {
        if !named.contains(&*tunnel.name) {
            report
                .warning(
                    at(&places.tunnels, tunnel.line),
                    &tunnel_label(tunnel),
                    "no [[host]] policy names it, so nothing goes through it",
                )
                .suggest(format!("add tunnel = \"{}\" to a [[host]] policy", tunnel.name));
        }
    }
}

fn tunnels_that_cover_too_little(config: &Config, places: &Places, report: &mut Report<'_>) {
    for (host, tunnel) in tunnelled(config) {
        let Some(outside) = host.selectors.iter().find(|s| !tunnel.selector.covers(s)) else { continue };
        report
            .warning(
                at(&places.hosts, host.line),
                &host_label(host),
                format!(
                    "covers {outside}, but tunnel `{}` (line {}) carries only {}: the rest is dropped",
                    tunnel.name, tunnel.line, tunnel.selector
                ),
            )
            .suggest("give the policy the tunnel's source and destination, or less");
    }
}

/// Tunnels that overlap in part: which one takes a packet depends on the order
/// of host policies alone. One inside the other is common and clear, and a
/// wrong order of their host policies is found as one that is never reached.
fn overlapping_tunnels(config: &Config, places: &Places, report: &mut Report<'_>) {
    let cubes: Vec<Cube> = config.tunnels.iter().map(|t| Cube::new(&t.selector)).collect();
    // By tunnel: the first that it overlaps, and how many.
    let mut overlapped: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for_each_meeting(&cubes, |earlier, later| {
        let (a, b) = (&cubes[earlier], &cubes[later]);
        if a == b || !(a.covers(b) || b.covers(a)) {
            let (first, count) = overlapped.entry(later).or_insert((earlier, 0));
            (*first, *count) = ((*first).min(earlier), *count + 1);
        }
    });
    for (later, (earlier, count)) in overlapped {
        let (tunnel, earlier) = (&config.tunnels[later], &config.tunnels[earlier]);
        let more = if count > 1 { format!(" and {} more before it", count - 1) } else { String::new() };
        let message = format!(
            "{} overlaps {} of tunnel `{}` (line {}){more}: the [[host]] policy with the lower `priority` decides",
            tunnel.selector, earlier.selector, earlier.name, earlier.line
        );
        report
            .warning(at(&places.tunnels, tunnel.line), &tunnel_label(tunnel), message)
            .suggest("separate the addresses of the two");
    }
}

fn ikes_never_reached(config: &Config, places: &Places, report: &mut Report<'_>) {
    let cubes: Vec<Cube> = config.ikes.iter().map(|p| Cube::of(&p.remote)).collect();
    let mut shadows: BTreeMap<usize, usize> = BTreeMap::new();
    for_each_meeting(&cubes, |earlier, later| {
        if cubes[earlier].covers(&cubes[later]) {
            let first = shadows.entry(later).or_insert(earlier);
            *first = earlier.min(*first);
        }
    });
    for (later, earlier) in shadows {
        let (policy, shadow) = (&config.ikes[later], &config.ikes[earlier]);
        report
            .warning(
                at(&places.ikes, policy.line),
                &ike_label(policy),
                format!(
                    "is never reached: {} (priority {}, line {}) takes all peers in {} before; its own priority is {}",
                    ike_label(shadow),
                    shadow.priority,
                    shadow.line,
                    policy.remote,
                    policy.priority
                ),
            )
            .suggest("give it a lower priority, or remove it");
    }
}

fn auths_never_used(config: &Config, places: &Places, report: &mut Report<'_>) {
    let mut seen: BTreeMap<AddressRange, Vec<&AuthRecord>> = BTreeMap::new();
    for record in &config.auths {
        let earlier = seen.entry(record.remote).or_default();
        earlier.push(record);
        // In aggressive mode the peer says first who it is, and records for one address may differ in that.
        let aggressive = |a: &AuthRecord| a.exchange == Phase1Exchange::Aggressive;
        let shadows = |a: &&AuthRecord| !aggressive(record) || aggressive(a) && a.remote_id == record.remote_id;
        let Some(first) = earlier.iter().take(earlier.len() - 1).copied().find(shadows) else { continue };
        report
            .warning(
                at(&places.auths, record.line),
                &auth_label(record),
                format!(
                    "is never used: {} (line {}) comes first for the same peers {}",
                    auth_label(first),
                    first.line,
                    record.remote
                ),
            )
            .suggest("remove one of the two");
    }
}

/// Whoever has such a key can be any peer to any other.
fn keys_for_everybody(config: &Config, places: &Places, report: &mut Report<'_>) {
    for record in config.auths.iter().filter(|a| a.remote.is_any() && a.preshared.is_some()) {
        report
            .warning(
                at(&places.auths, record.line),
                &auth_label(record),
                format!("one key for every peer ({}): each of them can pass for any other", record.remote),
            )
            .suggest("write a record for each peer, with a key of its own");
    }
}

/// The bypass list comes before every policy, so what it names leaves tunnels in the clear.
fn hollow_tunnels(config: &Config, places: &Places, report: &mut Report<'_>) {
    for (range, span) in config.bypass.iter().zip(&places.bypass) {
        let hole = tunnelled(config).find_map(|(host, tunnel)| {
            let hole = host.selectors.iter().find_map(|s| s.local.intersection(range))?;
            Some((hole, host, tunnel))
        });
        if let Some((hole, host, tunnel)) = hole {
            report
                .warning(
                    *span,
                    &format!("bypass {range}"),
                    format!(
                        "traffic of {hole} goes in the clear, although {} (line {}) puts it in tunnel `{}`",
                        host_label(host),
                        host.line,
                        tunnel.name
                    ),
                )
                .suggest("take the address out of the one or the other");
        }
    }
}

fn mtu_too_small(config: &Config, places: &Places, report: &mut Report<'_>) {
    let Some(mtu) = config.startup.mtu.filter(|m| *m < IPV6_MINIMUM_MTU) else { return };
    if let Some(tunnel) = config.tunnels.iter().find(|t| !t.selector.local.is_ipv4()) {
        report
            .warning(
                at(&places.tunnels, tunnel.line),
                &tunnel_label(tunnel),
                format!("carries IPv6, which needs an MTU of {IPV6_MINIMUM_MTU}, but `mtu` is {mtu}"),
            )
            .suggest(format!("set `mtu` to {IPV6_MINIMUM_MTU} or more, or leave it out"));
    }
}
