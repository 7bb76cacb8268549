//! From the ordered policies to the guard's rules.
//!
//! What a policy protects may travel in the clear on the TUN interface alone:
//! there the packet path takes it up, or has just put it down. Anywhere else a
//! packet that a policy protects is dropped, exactly like one that a policy
//! discards. Policies are tried in their order and the first that covers a
//! packet decides, as in the packet path. A policy for one interface of the packet
//! path is a rule like the others: there is only the TUN interface, behind which
//! the guard stands for all of them.

use super::GuardOptions;
use super::ruleset::{Base, Chain, DropName, Hook, Match, Rule, RuleSet, Side, Verdict};
use policy::config::{Config, DefaultAction, HostAction};
use policy::five_tuple::Direction;
use policy::selector::{AddressRange, PortSelector, Selector};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMPV6: u8 = 58;

/// Protocols whose header starts with what selectors look at: ports, or type and code.
const WITH_PORTS: [u8; 7] = [ICMP, 6, UDP, 33, ICMPV6, 132, 136];

pub(super) const INBOUND: &str = "inbound";
pub(super) const OUTBOUND: &str = "outbound";
const FORWARDED: &str = "forwarded";
const TAKEN: &str = "taken_by_gateway";
/// Before [`HOOKS`].
const BEFORE_ALL: i32 = -310;
const READABLE_IN: &str = "readable_inbound";
pub(super) const READABLE_OUT: &str = "readable_outbound";

/// Before and after destination NAT, before and after source NAT: a packet is
/// judged by the addresses it has on the wire and by those it has inside, so
/// that a translation on this host cannot hide what a policy protects.
const HOOKS: [(&str, Hook, i32, &str); 4] = [
    ("from_wire", Hook::Prerouting, -300, INBOUND),
    ("from_wire_translated", Hook::Prerouting, -90, INBOUND),
    ("to_wire_untranslated", Hook::Postrouting, 90, OUTBOUND),
    ("to_wire", Hook::Postrouting, 300, OUTBOUND),
];

pub(super) fn rules(config: &Config, options: &GuardOptions) -> RuleSet {
    let mut inbound = own_traffic_in(config, options);
    let mut outbound = own_traffic_out(options);
    for (list, direction) in [(&mut inbound, Direction::Inbound), (&mut outbound, Direction::Outbound)] {
        list.extend(bypassed(config, direction));
        list.extend(link_control(config, direction));
    }
    let mut chains = Vec::new();
    if looks_above_addresses(config) {
        for (name, list) in [(READABLE_IN, &mut inbound), (READABLE_OUT, &mut outbound)] {
            chains.push(readable(name));
            list.push(rule([], Verdict::Jump(name)));
        }
    }
    if discards_and_protects(config) {
        chains.push(forwarded(config));
    }
    inbound.extend(policies(config, Direction::Inbound));
    outbound.extend(policies(config, Direction::Outbound));
    chains.extend(taken(options));
    chains.push(Chain { name: INBOUND, base: None, rules: inbound });
    chains.push(Chain { name: OUTBOUND, base: None, rules: outbound });
    chains.extend(HOOKS.map(|(name, hook, priority, list)| Chain {
        name,
        base: Some(Base { hook, priority }),
        rules: vec![rule([], Verdict::Jump(list))],
    }));
    RuleSet { chains }
}

/// What IPsec itself receives: IKE, ESP, AH, and the routers' word on path MTU.
fn own_traffic_in(config: &Config, options: &GuardOptions) -> Vec<Rule> {
    let mut out =
        vec![accept([Match::InInterface("lo".to_owned())]), accept([Match::InInterface(options.interface.clone())])];
    // Only towards our own end points: UDP 500 to a protected host behind us is nothing special.
    for end in config.tunnels.iter().map(|t| t.tsource).collect::<BTreeSet<_>>() {
        let to_us = Match::Address(Side::Destination, AddressRange::single(end));
        for port in BTreeSet::from([options.ike_port, options.natt_port]) {
            out.push(accept([to_us.clone(), Match::Protocol(UDP), Match::Port(Side::Destination, (port, port))]));
        }
        // Harmless alone: the datagram is complete only with a first fragment, which shows its port.
        out.push(accept([to_us.clone(), Match::Protocol(UDP), Match::LaterFragment { ipv4: end.is_ipv4() }]));
        out.push(accept([to_us.clone(), Match::Protocol(ESP)]));
        out.push(accept([to_us.clone(), Match::Protocol(AH)]));
        if end.is_ipv6() {
            // As harmless: it is the first fragment that says what the packet is.
            out.push(accept([to_us.clone(), Match::LaterFragment { ipv4: false }, Match::FragmentOf(AH)]));
        }
        // Without these the tunnel is a path-MTU black hole (RFC 4301 8.2.1); the kernel
        // believes only those which quote a packet that one of its sockets has sent.
        out.push(match end {
            IpAddr::V4(_) => accept([to_us, Match::Protocol(ICMP), Match::IcmpType((3, 3)), Match::IcmpCode((4, 4))]),
            IpAddr::V6(_) => accept([to_us, Match::Protocol(ICMPV6), Match::IcmpType((2, 2))]),
        });
    }
    out
}

/// What IPsec itself sends, and what it has decrypted for hosts behind us.
fn own_traffic_out(options: &GuardOptions) -> Vec<Rule> {
    vec![
        accept([Match::OutInterface("lo".to_owned())]),
        accept([Match::OutInterface(options.interface.clone())]),
        accept([Match::InInterface(options.interface.clone())]),
        accept([Match::Mark(options.mark)]),
    ]
}

/// Local addresses to which policies do not apply.
fn bypassed(config: &Config, direction: Direction) -> impl Iterator<Item = Rule> {
    let (local, _) = sides(direction);
    config.bypass.iter().map(move |range| accept([Match::Address(local, *range)]))
}

/// Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 3810),
/// without which IPv6 has no next hop, pass unless a policy names their type,
/// as in [`policy::spd`]. Their hop limits keep them on the link.
fn link_control(config: &Config, direction: Direction) -> Vec<Rule> {
    const KINDS: [((u8, u8), u8); 3] = [((130, 132), 1), ((133, 137), 255), ((143, 143), 1)];
    let mut out = Vec::new();
    for (selector, drop) in selectors(config) {
        let PortSelector::Icmp { kind, code } = &selector.ports else { continue };
        if *kind == (0, u8::MAX) || selector.local.is_ipv4() || selector.protocol != Some(ICMPV6) {
            continue;
        }
        for ((low, high), _) in KINDS {
            let kind = (low.max(kind.0), high.min(kind.1));
            if kind.0 <= kind.1 {
                let ports = PortSelector::Icmp { kind, code: *code };
                out.push(decided(selected(&Selector { ports, ..selector.clone() }, direction), drop.as_ref()));
            }
        }
    }
    out.extend(KINDS.map(|(kinds, hop_limit)| {
        accept([Match::Ipv4(false), Match::Protocol(ICMPV6), Match::IcmpType(kinds), Match::HopLimit(hop_limit)])
    }));
    out
}

/// What arrives for others at the interfaces of a gateway: the packet path has it, so the kernel does not forward it.
/// It goes before everything else, so that nothing here counts twice. What stays on the link is the kernel's as ever.
fn taken(options: &GuardOptions) -> Option<Chain> {
    if options.gateway.is_empty() {
        return None;
    }
    let mut rules = Vec::new();
    let link: [(IpAddr, u8); 4] = [
        (Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        (Ipv4Addr::BROADCAST.into(), 32),
        (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
    ];
    for name in &options.gateway {
        let of = || Match::InInterface(name.clone());
        rules.push(accept([of(), Match::LocalDestination]));
        let ranges = link.iter().filter_map(|(address, prefix)| AddressRange::prefix(*address, *prefix));
        rules.extend(ranges.map(|range| accept([of(), Match::Address(Side::Destination, range)])));
        rules.push(rule([of()], Verdict::Drop));
    }
    Some(Chain { name: TAKEN, base: Some(Base { hook: Hook::Prerouting, priority: BEFORE_ALL }), rules })
}

/// What hosts behind us send into a tunnel: it comes in like any other packet,
/// but is on its way out, where it can only take the TUN interface.
fn forwarded(config: &Config) -> Chain {
    let mut rules = vec![rule([Match::LocalDestination], Verdict::Return)];
    rules.extend(selectors(config).map(|(selector, drop)| {
        let outwards = selected(selector, Direction::Outbound);
        rule(outwards, if matches!(drop, Some(DropName::Protect(_))) { Verdict::Accept } else { Verdict::Return })
    }));
    Chain { name: FORWARDED, base: None, rules }
}

/// The ordered policies, seen from one direction.
fn policies(config: &Config, direction: Direction) -> Vec<Rule> {
    let may_be_forwarded = direction == Direction::Inbound && discards_and_protects(config);
    let mut out = Vec::new();
    for (selector, drop) in selectors(config) {
        decide(selected(selector, direction), drop.as_ref(), may_be_forwarded, &mut out);
        if drop.is_some() && selector.ports != PortSelector::Any {
            // RFC 4301 7.3: a fragment without ports that may belong to it goes the same way, and
            // nowhere else: where it would go, its first fragment might not.
            let mut matches = addressed(selector, direction);
            matches.push(Match::LaterFragment { ipv4: selector.local.is_ipv4() });
            out.push(decided(matches, drop.as_ref()));
        }
    }
    if config.default_action == DefaultAction::Discard {
        decide(Vec::new(), Some(&DropName::Default), may_be_forwarded, &mut out);
    }
    out
}

/// What a policy says, but for what is discarded here and protected further on.
fn decide(matches: Vec<Match>, drop: Option<&DropName>, may_be_forwarded: bool, out: &mut Vec<Rule>) {
    if may_be_forwarded && matches!(drop, Some(DropName::Discard(_) | DropName::Default)) {
        out.push(rule(matches.clone(), Verdict::Jump(FORWARDED)));
    }
    out.push(decided(matches, drop));
}

fn discards_and_protects(config: &Config) -> bool {
    let any = |wanted: fn(&HostAction) -> bool| config.hosts.iter().any(|h| wanted(&h.action));
    let discards = config.default_action == DefaultAction::Discard || any(|a| matches!(a, HostAction::Discard));
    discards && any(|a| matches!(a, HostAction::Tunnel(_)))
}

/// The selectors of all host policies in order, with the name under which what
/// they cover is dropped; `None` passes.
fn selectors(config: &Config) -> impl Iterator<Item = (&Selector, Option<DropName>)> {
    config.hosts.iter().flat_map(|host| {
        let drop = match &host.action {
            HostAction::Pass => None,
            HostAction::Discard => Some(DropName::Discard(host.name.clone())),
            HostAction::Tunnel(_) => Some(DropName::Protect(host.name.clone())),
        };
        host.selectors.iter().map(move |s| (s, drop.clone()))
    })
}

/// Addresses and protocol of a selector.
fn addressed(selector: &Selector, direction: Direction) -> Vec<Match> {
    let (local, remote) = sides(direction);
    let mut out = Vec::with_capacity(6);
    if selector.local.is_any() && selector.remote.is_any() {
        out.push(Match::Ipv4(selector.local.is_ipv4()));
    }
    for (side, range) in [(local, selector.local), (remote, selector.remote)] {
        if !range.is_any() {
            out.push(Match::Address(side, range));
        }
    }
    out.extend(selector.protocol.map(Match::Protocol));
    out
}

/// All of a selector.
fn selected(selector: &Selector, direction: Direction) -> Vec<Match> {
    const ALL_PORTS: (u16, u16) = (0, u16::MAX);
    const ALL_CODES: (u8, u8) = (0, u8::MAX);
    let (local, remote) = sides(direction);
    let mut out = addressed(selector, direction);
    match &selector.ports {
        PortSelector::Any => {}
        PortSelector::Ports { local: l, remote: r } if (*l, *r) == (ALL_PORTS, ALL_PORTS) => {
            // It asks for ports, whichever: a fragment that has none is not covered.
            out.push(Match::UpperHeader);
        }
        PortSelector::Ports { local: l, remote: r } => {
            for (side, ports) in [(local, *l), (remote, *r)] {
                if ports != ALL_PORTS {
                    out.push(Match::Port(side, ports));
                }
            }
        }
        PortSelector::Icmp { kind, code } => {
            out.push(Match::IcmpType(*kind));
            if *code != ALL_CODES {
                out.push(Match::IcmpCode(*code));
            }
        }
    }
    out
}

/// Comes back if policies can be told apart by what the packet shows; drops it otherwise.
fn readable(name: &'static str) -> Chain {
    let mut rules = vec![
        rule(WITH_PORTS.map(Match::NotProtocol), Verdict::Return),
        rule([Match::UpperHeader], Verdict::Return),
        rule([Match::LaterFragment { ipv4: true }], Verdict::Return),
        // "Not 255" is any protocol that is known: it is not when a fragment hides extension headers.
        rule([Match::LaterFragment { ipv4: false }, Match::NotProtocol(255)], Verdict::Return),
    ];
    rules.push(decided([], Some(&DropName::Malformed)));
    Chain { name, base: None, rules }
}

fn looks_above_addresses(config: &Config) -> bool {
    config.hosts.iter().flat_map(|h| &h.selectors).any(|s| s.protocol.is_some() || s.ports != PortSelector::Any)
}

/// Where the local and the remote address of a packet are.
fn sides(direction: Direction) -> (Side, Side) {
    match direction {
        Direction::Outbound => (Side::Source, Side::Destination),
        Direction::Inbound => (Side::Destination, Side::Source),
    }
}

fn rule(matches: impl IntoIterator<Item = Match>, verdict: Verdict) -> Rule {
    Rule { matches: matches.into_iter().collect(), counter: None, verdict }
}

fn accept(matches: impl IntoIterator<Item = Match>) -> Rule {
    rule(matches, Verdict::Accept)
}

/// Dropped under a name, or accepted without one.
fn decided(matches: impl IntoIterator<Item = Match>, drop: Option<&DropName>) -> Rule {
    match drop {
        Some(name) => Rule { counter: Some(name.clone()), ..rule(matches, Verdict::Drop) },
        None => accept(matches),
    }
}
