//! What is legal but probably not meant: policies that are never reached,
//! tunnels that cover too little, holes.

use super::model::{AuthRecord, Config, DefaultAction, HostAction, HostPolicy, IkePolicy, TunnelPolicy};
use super::report::Report;
use super::source::Span;
use crate::selector::{PortSelector, Selector};
use std::collections::BTreeMap;

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
    hosts_never_reached(config, places, report);
    ikes_never_reached(config, places, report);
    auths_never_used(config, places, report);
    keys_for_everybody(config, places, report);
    hollow_tunnels(config, places, report);
    mtu_too_small(config, places, report);
}

fn at(places: &BTreeMap<usize, Span>, line: usize) -> Span {
    places.get(&line).copied().unwrap_or(Span { start: 0, end: 0 })
}

fn host_label(h: &HostPolicy) -> String {
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
    for tunnel in &config.tunnels {
        if !tunnelled(config).any(|(_, named)| named.name == tunnel.name) {
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
    for (n, tunnel) in config.tunnels.iter().enumerate() {
        for earlier in config.tunnels.iter().take(n) {
            let (a, b) = (&tunnel.selector, &earlier.selector);
            let nested = a != b && (a.covers(b) || b.covers(a));
            if !nested && overlap(a, b) {
                report
                    .warning(
                        at(&places.tunnels, tunnel.line),
                        &tunnel_label(tunnel),
                        format!(
                            "{a} overlaps {b} of tunnel `{}` (line {}): the [[host]] policy with the lower `priority` decides",
                            earlier.name, earlier.line
                        ),
                    )
                    .suggest("separate the addresses of the two");
            }
        }
    }
}

/// Whether a packet can be in both.
fn overlap(a: &Selector, b: &Selector) -> bool {
    fn meet<T: PartialOrd>(a: &(T, T), b: &(T, T)) -> bool {
        a.0 <= b.1 && b.0 <= a.1
    }
    let ports = match (&a.ports, &b.ports) {
        (PortSelector::Ports { local, remote }, PortSelector::Ports { local: l, remote: r }) => {
            meet(local, l) && meet(remote, r)
        }
        (PortSelector::Icmp { kind, code }, PortSelector::Icmp { kind: k, code: c }) => meet(kind, k) && meet(code, c),
        _ => true,
    };
    a.local.intersection(&b.local).is_some()
        && a.remote.intersection(&b.remote).is_some()
        && a.protocol.zip(b.protocol).is_none_or(|(p, q)| p == q)
        && ports
}

/// A policy each of whose selectors lies within one of an earlier policy. That
/// several earlier ones cover a selector only together is not found.
fn hosts_never_reached(config: &Config, places: &Places, report: &mut Report<'_>) {
    for (n, host) in config.hosts.iter().enumerate() {
        let earlier = config.hosts.get(..n).unwrap_or(&[]);
        let mut shadows: Vec<String> = Vec::new();
        for selector in &host.selectors {
            let Some(shadow) = earlier.iter().find(|e| e.selectors.iter().any(|s| s.covers(selector))) else {
                shadows.clear();
                break;
            };
            let name = format!("{} (priority {}, line {})", host_label(shadow), shadow.priority, shadow.line);
            if !shadows.contains(&name) {
                shadows.push(name);
            }
        }
        if !shadows.is_empty() {
            report
                .warning(
                    at(&places.hosts, host.line),
                    &host_label(host),
                    format!(
                        "is never reached: all it covers is taken before by {}; its own priority is {}",
                        shadows.join(" and "),
                        host.priority
                    ),
                )
                .suggest("give it a lower priority, or remove it");
        }
    }
}

fn ikes_never_reached(config: &Config, places: &Places, report: &mut Report<'_>) {
    for (n, policy) in config.ikes.iter().enumerate() {
        let Some(shadow) = config.ikes.iter().take(n).find(|e| e.remote.covers(&policy.remote)) else { continue };
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
    for (n, record) in config.auths.iter().enumerate() {
        let Some(first) = config.auths.iter().take(n).find(|e| e.remote == record.remote) else { continue };
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
