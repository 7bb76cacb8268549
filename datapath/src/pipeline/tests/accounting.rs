//! What must hold for any packets, policies and orders of events.

use super::*;
use crate::headers::Headers;
use policy::five_tuple::{Direction, FiveTuple};
use policy::spd::is_link_control;
use proptest::collection::vec;
use proptest::prelude::*;

/// Few addresses and ports, so that policies and packets meet often.
fn address() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![(0u8..3).prop_map(|n| [10, 1, 0, n]), (0u8..3).prop_map(|n| [10, 2, 0, n])]
}

/// Well-formed packets, fragments among them, and some that are not.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let made = (address(), address(), 0u16..3, 0u16..3, 0usize..2, prop_oneof![Just(40usize), Just(1600)]).prop_map(
        |(source, destination, sport, dport, kind, len)| {
            let builder = etherparse::PacketBuilder::ipv4(source, destination, 64);
            let mut packet = Vec::new();
            let payload = vec![0; len];
            match kind {
                0 => builder.udp(sport, dport).write(&mut packet, &payload).unwrap(),
                _ => builder.tcp(sport, dport, 1, 1).write(&mut packet, &payload).unwrap(),
            }
            packet
        },
    );
    let flags = prop_oneof![4 => Just(0x4000u16), 2 => Just(0), 1 => Just(0x2000), 1 => Just(0x0003)];
    let whole = (made, flags).prop_map(|(mut packet, flags)| {
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        crate::headers::seal_ipv4_header(&mut packet[..20]);
        packet
    });
    prop_oneof![8 => whole, 1 => vec(any::<u8>(), 0..60)]
}

/// A host policy's selector and action; tunnels are `a` and `b`.
fn policies() -> impl Strategy<Value = Vec<(Selector, u8)>> {
    let range = prop_oneof![
        2 => Just(AddressRange::ANY_V4),
        2 => address().prop_map(|a| AddressRange::prefix(IpAddr::from(a), 16).unwrap()),
        3 => address().prop_map(|a| AddressRange::single(IpAddr::from(a))),
    ];
    let upper = prop_oneof![
        3 => Just((None, PortSelector::Any)),
        1 => Just((Some(17), PortSelector::Any)),
        2 => (0u16..3).prop_map(|p| (Some(6), PortSelector::Ports { local: (0, u16::MAX), remote: (p, p) })),
    ];
    let selector = (range.clone(), range, upper).prop_map(|(local, remote, (protocol, ports))| Selector {
        local,
        remote,
        protocol,
        ports,
    });
    vec((selector, 0u8..4), 0..6)
}

/// Tunnels that may carry everything of IPv4.
fn wide_agreement(name: &str, seed: u64) -> Agreement {
    Agreement { tunnel: name.into(), seed, ..gcm() }
}

fn config_of(policies: &[(Selector, u8)], default_action: DefaultAction) -> Config {
    let mut config = empty_config();
    config.default_action = default_action;
    config.startup.hold_queue = 3;
    let everything = Selector::between(AddressRange::ANY_V4, AddressRange::ANY_V4);
    let tunnels = ["a", "b"].map(|name| {
        let policy = tunnel_policy(&wide_agreement(name, 1), true);
        Arc::new(TunnelPolicy { selector: everything.clone(), ..TunnelPolicy::clone(&policy) })
    });
    config.tunnels = tunnels.to_vec();
    for (selector, action) in policies {
        let action = match action {
            0 => HostAction::Pass,
            1 => HostAction::Discard,
            n => HostAction::Tunnel(Arc::clone(&tunnels[usize::from(*n) - 2])),
        };
        config.add_host(vec![selector.clone()], action);
    }
    config
}

/// Whether a packet may leave unprotected: read from the configuration, one
/// policy after the other, without anything of the engine.
fn may_go_clear(config: &Config, tuple: &FiveTuple) -> bool {
    for host in &config.hosts {
        let passes = matches!(host.action, HostAction::Pass);
        for selector in &host.selectors {
            if selector.matches(tuple, Direction::Outbound) {
                return passes;
            }
            // It could have, were the ports to be seen.
            let unseen = Selector { ports: PortSelector::Any, ..selector.clone() };
            if tuple.ports == Ports::Opaque && unseen.matches(tuple, Direction::Outbound) && !passes {
                return false;
            }
        }
    }
    config.default_action == DefaultAction::Pass
}

/// What can happen to a host.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<Vec<u8>>),
    Establish(u8),
    Remove(u8),
    Fail(u32),
    Release(u32),
    Replace(Vec<(Selector, u8)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => vec(any_packet(), 1..12).prop_map(Step::Send),
        2 => (0u8..2).prop_map(Step::Establish),
        1 => (0u8..2).prop_map(Step::Remove),
        1 => (0u32..2).prop_map(Step::Fail),
        1 => (0u32..2).prop_map(Step::Release),
        1 => policies().prop_map(Step::Replace),
    ];
    vec(step, 1..25)
}

#[test]
fn a_packet_that_waits_is_counted_once_by_the_cache() {
    let counts = |a: &Host| {
        let mut counts = Vec::new();
        a.shared.cache.for_each(now(), |r| counts.push(r.packets));
        counts
    };
    let mut a = Host::of(&gcm(), true, false);
    a.send(&some_packets(true, 3));
    assert_eq!((a.outbound.held(), counts(&a)), (3, vec![3]));
    // Told to try, without an SA: they wait on.
    a.outbound.release(0, now(), &mut a.out);
    assert_eq!((a.outbound.held(), counts(&a)), (3, vec![3]));
    // New policies count anew.
    a.shared.replace_policies(&tunnel_config(&gcm(), true), |_| {});
    a.outbound.policies_replaced(now(), &mut a.out);
    assert_eq!((a.outbound.held(), counts(&a)), (3, vec![3]));
    a.establish(&gcm(), true);
    a.send(&some_packets(true, 2));
    assert_eq!((a.on_the_wire().len(), counts(&a)), (5, vec![5]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Fail closed, and every packet in exactly one counter.
    #[test]
    fn nothing_leaks_and_nothing_is_lost_count_of(
        policies in policies(),
        pass: bool,
        steps in steps(),
        losses in vec(any::<bool>(), 64),
    ) {
        let default_action = if pass { DefaultAction::Pass } else { DefaultAction::Discard };
        let mut config = config_of(&policies, default_action);
        let mut a = Host::new(&config);
        let (mut fed, mut next_pair, mut lost) = (0, 10, losses.into_iter().cycle());
        let mut installed = [Vec::new(), Vec::new()];
        for step in steps {
            match step {
                Step::Send(packets) => {
                    fed += packets.len() as u64;
                    a.send(&packets);
                }
                Step::Establish(which) => {
                    next_pair += 1;
                    let name = ["a", "b"][usize::from(which)];
                    let (mut inbound, mut outbound) = wide_agreement(name, next_pair).specs(true);
                    for spec in [&mut inbound, &mut outbound] {
                        spec.selector = config.tunnels[0].selector.clone();
                    }
                    a.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
                    a.shared.activate_outbound(next_pair).unwrap();
                    installed[usize::from(which)].push(next_pair);
                }
                Step::Remove(which) => {
                    if let Some(pair) = installed[usize::from(which)].pop() {
                        a.shared.remove_pair(pair).unwrap();
                    }
                }
                Step::Fail(tunnel) => a.outbound.fail(tunnel),
                Step::Release(tunnel) => a.outbound.release(tunnel, now(), &mut a.out),
                Step::Replace(policies) => {
                    config = config_of(&policies, default_action);
                    a.shared.replace_policies(&config, |_| {});
                    a.outbound.policies_replaced(now(), &mut a.out);
                }
            }
            for clear in a.out.clear.drain(..) {
                let tuple = Headers::parse(clear.octets()).unwrap().tuple;
                prop_assert!(may_go_clear(&config, &tuple), "{} left in the clear", tuple);
                prop_assert!(!is_link_control(&tuple));
                if lost.next().unwrap() { a.outbound.clear_sent(clear) } else { a.outbound.clear_failed(clear) }
            }
            a.out.take_sealed(|sealed, _| {
                if lost.next().unwrap() { a.outbound.sent(sealed) } else { a.outbound.send_failed(sealed) }
            });
            for reply in a.out.replies.drain(..) {
                a.outbound.recycle(reply);
            }
            prop_assert!(a.outbound.held() <= 6);
            prop_assert_eq!(a.outbound.held() as u64, a.shared.held(0) + a.shared.held(1));
        }
        a.outbound.shut_down();
        let totals = a.totals();
        let counted = totals.counter(Counter::Sent) + totals.counter(Counter::BypassedOut) + totals.all_drops();
        let joined = totals.counter(Counter::FragmentsJoined);
        prop_assert_eq!(counted + joined, fed + totals.counter(Counter::FragmentsAdded));
        prop_assert_eq!(totals.counter(Counter::ClearTextLeaks), 0);
        prop_assert_eq!(a.outbound.held(), 0);
    }

    /// Whatever arrives ends in one counter, and only what the peer protected is delivered.
    #[test]
    fn every_arrival_is_counted(
        order in vec((0usize..12, any::<prop::sample::Index>(), prop_oneof![2 => Just(0u8), 1 => 1u8..=255], any::<bool>()), 1..60),
        garbage in vec(vec(any::<u8>(), 0..80), 0..20),
        udp: bool,
    ) {
        let agreement = Agreement { encapsulation: udp.then_some(NAT), ..gcm() };
        let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
        let packets = some_packets(true, 12);
        a.send(&packets);
        let wire = a.on_the_wire();
        let mut arrivals: Vec<Arrival> = order.iter().map(|(n, at, change, right)| {
            let mut arrival = copy(&wire[*n]);
            let at = at.index(arrival.packet.len());
            arrival.packet.as_mut_slice()[at] ^= change;
            arrival.encapsulated ^= !right && *change == 0;
            arrival
        }).collect();
        arrivals.extend(garbage.iter().map(|g| Arrival { packet: packet(g), ..copy(&wire[0]) }));
        let fed = arrivals.len() as u64;
        let delivered = b.receive(arrivals);
        prop_assert!(delivered.iter().all(|p| packets.contains(p)));
        let ike = b.events().iter().filter(|e| matches!(e, Event::Ike(_))).count() as u64;
        let totals = b.totals();
        let counted = totals.counter(Counter::Received) + totals.counter(Counter::Keepalives) + totals.all_drops();
        prop_assert_eq!(counted + ike, fed);
    }
}
