//! Random policies and packets: the classifier against the plain definition of
//! the search, the cache against the classifier, explanations against verdicts,
//! and no reading under which a protected packet passes.
#![allow(clippy::unwrap_used, reason = "a strategy that is wrong fails the test")]

mod common;

use common::{Rules, hash_key};
use policy::cache::{CacheEntry, CacheKey, Inserted, SpdCache};
use policy::classifier::{Coverage, coverage};
use policy::config::{Config, DefaultAction, HostAction, HostPolicy, StartMode, TunnelPolicy};
use policy::counters::DropReason;
use policy::explain::{Action, DecidedBy, Outcome};
use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use policy::limits::Limits;
use policy::selector::{AddressRange, PortSelector, Selector};
use policy::session::Session;
use policy::spd::{COOKIE_DEFAULT, Decision, SharedSpd, Spd, Verdict};
use policy::time::Timestamp;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// How many configurations are tried, each with about so many packets: as many as make `CAPONIER_CASES`
/// pairs of both, which may be millions; without it, few enough for every day.
fn cases(usual: u32, packets: u32) -> u32 {
    let number = |n: std::ffi::OsString| n.to_str().and_then(|n| n.parse::<u32>().ok()).expect("a number");
    std::env::var_os("CAPONIER_CASES").map_or(usual, |n| number(n).div_ceil(packets))
}

// Few values, so that rules and packets meet often.
const ADDRESSES: u32 = 6;
const PORTS: u16 = 4;
const TYPES: [u8; 5] = [8, 128, 130, 135, 143];

fn address(v6: bool, n: u32) -> IpAddr {
    if v6 { Ipv6Addr::from_bits(u128::from(n)).into() } else { Ipv4Addr::from_bits(n).into() }
}

fn addresses(v6: bool) -> impl Strategy<Value = AddressRange> {
    (0..ADDRESSES, 0..ADDRESSES)
        .prop_map(move |(a, b)| AddressRange::new(address(v6, a.min(b)), address(v6, a.max(b))).unwrap())
}

fn span() -> impl Strategy<Value = (u16, u16)> {
    (0..PORTS, 0..PORTS).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn selector() -> impl Strategy<Value = Selector> {
    any::<bool>().prop_flat_map(|v6| {
        let icmp = if v6 { 58 } else { 1 };
        let ports = prop_oneof![
            3 => Just((None, PortSelector::Any)),
            2 => prop_oneof![Just(6), Just(17), Just(icmp), Just(47)].prop_map(|p| (Some(p), PortSelector::Any)),
            3 => (prop_oneof![Just(6u8), Just(17)], span(), span())
                .prop_map(|(p, local, remote)| (Some(p), PortSelector::Ports { local, remote })),
            1 => (0..TYPES.len(), 0..TYPES.len()).prop_map(move |(a, b)| {
                (Some(icmp), PortSelector::Icmp { kind: (TYPES[a.min(b)], TYPES[a.max(b)]), code: (0, 255) })
            }),
            1 => Just((Some(icmp), PortSelector::Icmp { kind: (0, 255), code: (0, 255) })),
        ];
        (addresses(v6), addresses(v6), ports).prop_map(|(local, remote, (protocol, ports))| Selector {
            local,
            remote,
            protocol,
            ports,
        })
    })
}

/// Those that policies name.
fn interface() -> impl Strategy<Value = Attachment> {
    prop_oneof![Just(0), Just(1), Just(63)].prop_map(|place| Attachment::new(place).unwrap())
}

fn tunnels() -> impl Strategy<Value = Vec<Arc<TunnelPolicy>>> {
    let wide = any::<bool>().prop_map(|v6| {
        let all = AddressRange::new(address(v6, 0), address(v6, ADDRESSES)).unwrap();
        Selector::between(all, all)
    });
    prop::collection::vec(prop_oneof![2 => wide, 1 => selector()], 3).prop_map(|selectors| {
        let tunnel = |(n, selector): (usize, Selector)| {
            Arc::new(TunnelPolicy {
                name: format!("t{n}").into(),
                tsource: address(false, 1),
                tdestination: address(false, 2),
                mode: policy::sa::Mode::Tunnel,
                selector,
                transforms: Vec::new(),
                packets: 0,
                start: StartMode::Traffic,
                manual: None,
                remote_access: policy::config::RemoteAccess::None,
                line: 1,
            })
        };
        selectors.into_iter().enumerate().map(tunnel).collect()
    })
}

fn config() -> impl Strategy<Value = Config> {
    let interface = prop::option::weighted(0.3, interface());
    let host = (prop::collection::vec(selector(), 1..3), 0..10usize, interface);
    (prop::collection::vec(host, 0..9), tunnels(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(hosts, tunnels, discard, bypass)| {
            let mut rules = Rules::new();
            for (n, (selectors, action_number, interface)) in hosts.into_iter().enumerate() {
                let action = match action_number {
                    0 | 1 => HostAction::Pass,
                    2 | 3 => HostAction::Discard,
                    tunnel => HostAction::Tunnel(Arc::clone(&tunnels[(tunnel - 4) % 3])),
                };
                let exclusive = action_number >= 7;
                rules = rules.host(&format!("h{n}"), selectors, action).on(interface);
                if exclusive {
                    rules = rules.exclusive();
                }
            }
            if discard {
                rules = rules.discard_by_default();
            }
            if bypass {
                rules = rules.bypass("0.0.0.3").bypass("::3");
            }
            rules.config()
        },
    )
}

fn packet() -> impl Strategy<Value = (FiveTuple, Direction)> {
    let ports = prop_oneof![
        4 => (prop_oneof![Just(6u8), Just(17)], 0..PORTS, 0..PORTS)
            .prop_map(|(p, source, destination)| (p, Ports::Pair { source, destination })),
        3 => prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(47)].prop_map(|p| (p, Ports::Opaque)),
        1 => prop_oneof![Just(6u8), Just(47)].prop_map(|p| (p, Ports::None)),
        2 => (0..TYPES.len(), 0..2u8).prop_map(|(t, code)| (58, Ports::Icmp { kind: TYPES[t], code })),
        1 => Just((1, Ports::Icmp { kind: 8, code: 0 })),
    ];
    let direction = prop_oneof![Just(Direction::Outbound), Just(Direction::Inbound)];
    let interface = prop_oneof![6 => interface(), 1 => Just(Attachment::new(2).unwrap())];
    (any::<bool>(), 0..ADDRESSES, 0..ADDRESSES, ports, direction, interface).prop_map(
        |(v6, s, d, (protocol, ports), direction, interface)| {
            let (source, destination) = (address(v6, s), address(v6, d));
            (FiveTuple { source, destination, protocol, ports, interface }, direction)
        },
    )
}

/// The search as one would do it on paper.
fn on_paper(spd: &Spd, tuple: &FiveTuple, direction: Direction) -> Verdict {
    let verdict = |decision, cookie, reason| Verdict { decision, cookie, reason };
    let config = spd.config();
    if config.bypass.iter().any(|r| r.contains(tuple.local(direction))) {
        return verdict(Decision::Bypass, 0, None);
    }
    let link_control = tuple.source.is_ipv6()
        && tuple.protocol == 58
        && matches!(tuple.ports, Ports::Icmp { kind, .. } if (130..=137).contains(&kind) || kind == 143);
    let names = |s: &Selector| matches!(s.ports, PortSelector::Icmp { kind, .. } if kind != (0, 255));
    for (at, host) in config.hosts.iter().enumerate() {
        let covers = |s: &Selector| s.matches(tuple, direction) && (!link_control || names(s));
        if host.interface.is_some_and(|i| i != tuple.interface) || !host.selectors.iter().any(covers) {
            continue;
        }
        let verdict = match &host.action {
            HostAction::Pass => verdict(Decision::Pass, host.cookie, None),
            HostAction::Discard => verdict(Decision::Discard, host.cookie, Some(DropReason::PolicyDiscard)),
            HostAction::Tunnel(t) if t.selector.matches(tuple, direction) => {
                let tunnel = spd.tunnel_index(&t.name).unwrap();
                match not_populated(tuple).filter(|_| host.exclusive) {
                    Some(reason) => verdict(Decision::Discard, host.cookie, Some(reason)),
                    None => verdict(protect(host, tunnel), host.cookie, None),
                }
            }
            HostAction::Tunnel(t) => {
                let could = t.selector.ports != PortSelector::Any
                    && matches!(tuple.ports, Ports::None | Ports::Opaque)
                    && Selector { ports: PortSelector::Any, ..t.selector.clone() }.matches(tuple, direction);
                let reason = if could { DropReason::FragmentPortsHidden } else { DropReason::OutsideTunnelSelector };
                verdict(Decision::Discard, host.cookie, Some(reason))
            }
        };
        return unless_undone(spd, verdict, &config.hosts[..at], tuple, direction);
    }
    let verdict = match (link_control, config.default_action) {
        (true, _) => return verdict(Decision::Pass, 0, None),
        (false, DefaultAction::Pass) => verdict(Decision::Pass, COOKIE_DEFAULT, None),
        (false, DefaultAction::Discard) => verdict(Decision::Discard, COOKIE_DEFAULT, Some(DropReason::PolicyDiscard)),
    };
    unless_undone(spd, verdict, &config.hosts, tuple, direction)
}

fn protect(host: &HostPolicy, tunnel: u32) -> Decision {
    if host.exclusive { Decision::ProtectExclusive { tunnel } } else { Decision::Protect { tunnel } }
}

/// Why a packet cannot say what an SA of its own is to be for (RFC 4301 4.4.2.2, PFP 1).
fn not_populated(tuple: &FiveTuple) -> Option<DropReason> {
    match (tuple.protocol, tuple.ports) {
        (6 | 17, Ports::Opaque | Ports::None) => Some(DropReason::FragmentPortsHidden),
        (6 | 17, Ports::Pair { source: 0, .. } | Ports::Pair { destination: 0, .. }) => {
            Some(DropReason::SessionUnnamable)
        }
        _ => None,
    }
}

/// A fragment is dropped if a policy before the one that decides could cover it and is stricter, or leads elsewhere.
fn unless_undone(
    spd: &Spd,
    verdict: Verdict,
    before: &[Arc<HostPolicy>],
    tuple: &FiveTuple,
    direction: Direction,
) -> Verdict {
    if !matches!(tuple.ports, Ports::None | Ports::Opaque) || verdict.decision == Decision::Discard {
        return verdict;
    }
    let could = |s: &Selector| {
        s.ports != PortSelector::Any && Selector { ports: PortSelector::Any, ..s.clone() }.matches(tuple, direction)
    };
    let undone = before.iter().find(|host| {
        let says = match &host.action {
            HostAction::Pass => return false,
            HostAction::Discard => Decision::Discard,
            HostAction::Tunnel(t) => protect(host, spd.tunnel_index(&t.name).unwrap()),
        };
        let elsewhere = host.interface.is_some_and(|i| i != tuple.interface);
        says != verdict.decision && !elsewhere && host.selectors.iter().any(could)
    });
    match undone {
        Some(host) => {
            Verdict { decision: Decision::Discard, cookie: host.cookie, reason: Some(DropReason::FragmentPortsHidden) }
        }
        None => verdict,
    }
}

/// Whether what becomes of a packet whose ports are hidden depends on them.
fn looks_on_paper(spd: &Spd, hidden: &FiveTuple, direction: Direction) -> bool {
    let config = spd.config();
    if config.bypass.iter().any(|range| range.contains(hidden.local(direction))) {
        return false;
    }
    for host in config.hosts.iter().filter(|host| host.is_for(hidden.interface)) {
        let of = |wanted| host.selectors.iter().any(|s| coverage(s, hidden, direction) == wanted);
        if of(Coverage::Covers) {
            let HostAction::Tunnel(tunnel) = &host.action else { return false };
            return match coverage(&tunnel.selector, hidden, direction) {
                Coverage::PortsHidden => true,
                Coverage::Covers => host.exclusive && matches!(hidden.protocol, 6 | 17),
                Coverage::Differs => false,
            };
        }
        if of(Coverage::PortsHidden) {
            return true;
        }
    }
    false
}

/// Everything that a packet with hidden ports may be.
fn readings(tuple: &FiveTuple) -> Vec<FiveTuple> {
    let with = |ports| FiveTuple { ports, ..*tuple };
    match tuple.protocol {
        6 | 17 => (0..PORTS)
            .flat_map(|source| (0..PORTS).map(move |destination| Ports::Pair { source, destination }))
            .map(with)
            .collect(),
        // Link control is never fragmented (RFC 6980), so a fragment is not read as that.
        1 | 58 => [1, 8, 128, 129].iter().map(|kind| with(Ports::Icmp { kind: *kind, code: 0 })).collect(),
        _ => vec![with(Ports::None)],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2_000, 30), ..ProptestConfig::default() })]

    #[test]
    fn the_first_match_is_found(config in config(), packets in prop::collection::vec(packet(), 30)) {
        let spd = Spd::compile(&config, 1);
        for (tuple, direction) in packets {
            prop_assert_eq!(spd.decide(&tuple, direction), on_paper(&spd, &tuple, direction));
        }
    }

    /// Fail closed: whatever the hidden ports are, a fragment is never treated
    /// more loosely than its packet, nor sent into another tunnel.
    #[test]
    fn hidden_ports_never_loosen_a_decision(config in config(), packets in prop::collection::vec(packet(), 30)) {
        let spd = Spd::compile(&config, 1);
        for (tuple, direction) in packets {
            let hidden = FiveTuple { ports: Ports::Opaque, ..tuple };
            let verdict = spd.decide(&hidden, direction);
            prop_assert_eq!(verdict.reason.is_some(), verdict.decision == Decision::Discard);
            for reading in readings(&hidden) {
                let seen = spd.decide(&reading, direction).decision;
                match verdict.decision {
                    Decision::Bypass => prop_assert_eq!(seen, Decision::Bypass),
                    Decision::Pass => prop_assert_eq!(seen, Decision::Pass, "{}", reading),
                    protect @ (Decision::Protect { .. } | Decision::ProtectExclusive { .. }) => {
                        prop_assert!(seen == protect || seen == Decision::Pass, "{} {:?}", reading, seen);
                    }
                    Decision::Discard => {}
                }
            }
            // And nothing is dropped for hidden ports that no policy asks for.
            if verdict.reason == Some(DropReason::FragmentPortsHidden) {
                let asks = |s: &Selector| s.ports != PortSelector::Any && s.protocol == Some(hidden.protocol);
                let tunnels = config.tunnels.iter().map(|t| &t.selector);
                let exclusive = config.hosts.iter().any(|h| h.exclusive);
                prop_assert!(exclusive || config.hosts.iter().flat_map(|h| &h.selectors).chain(tunnels).any(asks));
            }
        }
    }

    /// What the packet path asks of each fragment: the same as by trying one policy after the other, and where
    /// the answer is no, what becomes of a packet is the same whatever its ports.
    #[test]
    fn fragments_wait_where_ports_count(config in config(), packets in prop::collection::vec(packet(), 30)) {
        let spd = Spd::compile(&config, 1);
        for (tuple, direction) in packets {
            let hidden = FiveTuple { ports: Ports::Opaque, ..tuple };
            let looks = spd.looks_at_ports(&tuple, direction);
            prop_assert_eq!(looks, looks_on_paper(&spd, &hidden, direction));
            if !looks {
                let decided = spd.decide(&hidden, direction).decision;
                for reading in readings(&hidden) {
                    prop_assert_eq!(spd.decide(&reading, direction).decision, decided, "{}", reading);
                }
            }
        }
    }

    /// Populate from packet: the session of a packet that is to have SAs of its own is the
    /// same in both directions, covers it, and leads a responder to the policy that decided.
    #[test]
    fn a_session_leads_to_the_policy_that_decided(config in config(), packets in prop::collection::vec(packet(), 30)) {
        let spd = Spd::compile(&config, 1);
        for (tuple, direction) in packets {
            let Decision::ProtectExclusive { tunnel } = spd.decide(&tuple, direction).decision else { continue };
            let session = Session::of(&tuple, direction).expect("decided so");
            let selector = session.selector();
            prop_assert!(selector.matches(&tuple, direction));
            // That of a configuration has no ICMP types.
            let through = &spd.tunnel(tunnel).unwrap().selector;
            if matches!(through.ports, PortSelector::Icmp { .. }) {
                continue;
            }
            prop_assert!(through.covers(&selector), "{}", session);
            prop_assert_eq!(Session::of_selector(&selector), Some(session));
            if matches!(tuple.ports, Ports::Pair { .. }) && tuple.interface == Attachment::TUN {
                let (host, t) = session.policy(&config).expect("the one that decided");
                prop_assert!(host.exclusive && host.matches(&tuple, direction));
                prop_assert_eq!(spd.tunnel_index(&t.name), Some(tunnel));
            }
        }
    }

    #[test]
    fn explanations_agree_with_verdicts(config in config(), packets in prop::collection::vec(packet(), 10)) {
        let spd = Spd::compile(&config, 1);
        for (tuple, direction) in packets {
            let (e, v) = (spd.explain(&tuple, direction), spd.decide(&tuple, direction));
            prop_assert_eq!(e.cookie, v.cookie);
            prop_assert_eq!(e.drop_reason.as_deref(), v.reason.map(DropReason::name));
            let action = match v.decision {
                Decision::Bypass | Decision::Pass => Action::Pass,
                Decision::Discard => Action::Discard,
                Decision::Protect { tunnel } | Decision::ProtectExclusive { tunnel } => {
                    let exclusive = matches!(v.decision, Decision::ProtectExclusive { .. });
                    prop_assert_eq!(e.exclusive, exclusive);
                    prop_assert_eq!(&e.tunnel.as_ref().unwrap().name, &*spd.tunnel(tunnel).unwrap().name);
                    Action::Secure
                }
            };
            prop_assert_eq!(e.action, action);
            prop_assert_eq!(v.decision == Decision::Bypass, matches!(e.decided_by, DecidedBy::Bypass { .. }));
            match &e.decided_by {
                DecidedBy::Host { name } => {
                    let step = e.tried.iter().find(|s| &s.name == name).unwrap();
                    prop_assert_eq!(step.cookie, v.cookie);
                    let hidden = v.reason == Some(DropReason::FragmentPortsHidden);
                    prop_assert!(step.outcome == Outcome::Match || hidden && step.outcome == Outcome::PortsHidden);
                }
                DecidedBy::Default => prop_assert_eq!(v.cookie, COOKIE_DEFAULT),
                DecidedBy::Bypass { .. } | DecidedBy::LinkControl => prop_assert_eq!(v.cookie, 0),
            }
            // Before the match nothing matched.
            let before = e.tried.split_last().map_or(&[][..], |(_, before)| before);
            prop_assert!(before.iter().all(|s| s.outcome != Outcome::Match));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Packets(Vec<(FiveTuple, Direction)>),
    Replace(Box<Config>),
    Age(u64),
    ClearStale,
    Limits(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(packet(), 1..40).prop_map(Step::Packets),
        2 => config().prop_map(|c| Step::Replace(Box::new(c))),
        1 => (0..5u64).prop_map(Step::Age),
        1 => Just(Step::ClearStale),
        1 => (0..120u64).prop_map(Step::Limits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400, 200), ..ProptestConfig::default() })]

    /// With the cache in front the answers are those of the policies in force,
    /// through policy changes, ageing and limits; or a drop at the hard limit.
    #[test]
    fn cache_and_classifier_answer_as_the_classifier_alone(
        first in config(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let shared = SharedSpd::new(&first);
        let cache = SpdCache::new(Limits { soft: 10, hard: 100 }, hash_key());
        let mut reader = cache.reader();
        let mut hard = 100;
        for (second, step) in steps.into_iter().enumerate() {
            let now = Timestamp::from_micros(second as u64 * 1_000_000);
            match step {
                Step::Packets(packets) => {
                    let spd = shared.load();
                    let keys: Vec<_> = packets.iter().map(|(t, d)| CacheKey::new(*t, *d)).collect();
                    let mut found = vec![None; keys.len()];
                    reader.look_up_batch(&keys, spd.epoch(), now, &mut found);
                    for (key, found) in keys.iter().zip(found) {
                        let alone = CacheEntry::from(spd.decide(&key.tuple(), key.direction()));
                        if let Some(found) = found {
                            prop_assert_eq!(found, alone);
                            prop_assert_eq!(found, CacheEntry::from(on_paper(&spd, &key.tuple(), key.direction())));
                            continue;
                        }
                        let before = cache.len();
                        match reader.insert(key, alone, spd.epoch(), now, &mut |_| ()) {
                            Inserted::Inserted => prop_assert!(cache.len() - before <= 1),
                            // Twice in this batch.
                            Inserted::AlreadyThere => prop_assert_eq!(before, cache.len()),
                            Inserted::ShareLimit => prop_assert!(false, "no policy has a share"),
                            Inserted::HardLimit => {
                                prop_assert!(before >= hard && cache.len() == before);
                                continue;
                            }
                        }
                        prop_assert_eq!(reader.look_up(key, spd.epoch(), now), Some(alone));
                    }
                }
                Step::Replace(config) => {
                    shared.replace(&config);
                }
                Step::Age(idle) => {
                    cache.age(now, Duration::from_secs(idle));
                }
                Step::ClearStale => {
                    cache.clear_stale(shared.load().epoch());
                    let mut stale = 0;
                    cache.for_each(now, |r| stale += u32::from(r.epoch != shared.load().epoch()));
                    prop_assert_eq!(stale, 0);
                }
                Step::Limits(limit) => {
                    hard = limit;
                    cache.change_limits(Limits { soft: 10, hard }, &mut |_| ());
                }
            }
            let mut walked = 0;
            cache.for_each(now, |_| walked += 1);
            prop_assert_eq!(walked, cache.len());
        }
    }
}
