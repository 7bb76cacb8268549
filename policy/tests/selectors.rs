//! Selectors against the plainest definition of what they mean.
#![allow(clippy::unwrap_used, reason = "a strategy that is wrong fails the test")]

use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use policy::selector::{AddressRange, PortSelector, Selector};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n).into()
}

fn range_v4() -> impl Strategy<Value = AddressRange> {
    (any::<u32>(), any::<u32>()).prop_map(|(a, b)| AddressRange::new(v4(a.min(b)), v4(a.max(b))).unwrap())
}

/// Few enough values that rules and packets meet often.
fn small_range() -> impl Strategy<Value = AddressRange> {
    (0u32..8, 0u32..8).prop_map(|(a, b)| AddressRange::new(v4(a.min(b)), v4(a.max(b))).unwrap())
}

fn small_span() -> impl Strategy<Value = (u16, u16)> {
    (0u16..6, 0u16..6).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn selector() -> impl Strategy<Value = Selector> {
    let ports = prop_oneof![
        (Just(None), Just(PortSelector::Any)),
        (Just(Some(6)), Just(PortSelector::Any)),
        (
            Just(Some(17)),
            (small_span(), small_span()).prop_map(|(local, remote)| PortSelector::Ports { local, remote })
        ),
        (
            Just(Some(1)),
            (0u8..4, 0u8..4).prop_map(|(a, b)| PortSelector::Icmp { kind: (a.min(b), a.max(b)), code: (0, 255) })
        ),
    ];
    (small_range(), small_range(), ports).prop_map(|(local, remote, (protocol, ports))| Selector {
        local,
        remote,
        protocol,
        ports,
    })
}

fn tuple() -> impl Strategy<Value = FiveTuple> {
    let rest = prop_oneof![
        (Just(6u8), (0u16..6, 0u16..6).prop_map(|(source, destination)| Ports::Pair { source, destination })),
        (Just(17u8), (0u16..6, 0u16..6).prop_map(|(source, destination)| Ports::Pair { source, destination })),
        (Just(17u8), Just(Ports::Opaque)),
        (Just(1u8), (0u8..4, 0u8..2).prop_map(|(kind, code)| Ports::Icmp { kind, code })),
        (Just(47u8), Just(Ports::None)),
    ];
    (0u32..8, 0u32..8, rest).prop_map(|(s, d, (protocol, ports))| FiveTuple {
        source: v4(s),
        destination: v4(d),
        protocol,
        ports,
        interface: Attachment::TUN,
    })
}

proptest! {
    #[test]
    fn prefixes_tile_the_range_exactly(range in range_v4()) {
        let prefixes = range.to_prefixes();
        let mut next = Some(range.first());
        for (network, len) in &prefixes {
            let p = AddressRange::prefix(*network, *len).unwrap();
            prop_assert_eq!(Some(p.first()), next, "no gap and no overlap");
            prop_assert_eq!(p.prefix_len(), Some(*len));
            let IpAddr::V4(last) = p.last() else { unreachable!() };
            next = last.to_bits().checked_add(1).map(v4);
        }
        prop_assert_eq!(AddressRange::prefix(prefixes[prefixes.len() - 1].0, prefixes[prefixes.len() - 1].1).unwrap().last(), range.last());
        prop_assert!(prefixes.len() <= 62);
    }

    #[test]
    fn a_selector_that_covers_another_matches_whatever_that_matches(a in selector(), b in selector(), t in tuple()) {
        for direction in [Direction::Outbound, Direction::Inbound] {
            if a.covers(&b) && b.matches(&t, direction) {
                prop_assert!(a.matches(&t, direction));
            }
            prop_assert_eq!(a.matches(&t, direction), a.first_difference(&t, direction).is_none());
        }
        prop_assert!(a.covers(&a));
    }

    #[test]
    fn inbound_is_outbound_with_the_roles_swapped(s in selector(), t in tuple()) {
        let swapped = FiveTuple {
            source: t.destination,
            destination: t.source,
            protocol: t.protocol,
            ports: match t.ports {
                Ports::Pair { source, destination } => Ports::Pair { source: destination, destination: source },
                other => other,
            },
            interface: t.interface,
        };
        prop_assert_eq!(s.matches(&t, Direction::Outbound), s.matches(&swapped, Direction::Inbound));
    }

    #[test]
    fn intersection_is_what_both_contain(a in small_range(), b in small_range(), n in 0u32..8) {
        let both = a.contains(v4(n)) && b.contains(v4(n));
        prop_assert_eq!(a.intersection(&b).is_some_and(|i| i.contains(v4(n))), both);
    }
}

#[test]
fn a_fragment_without_ports_is_not_covered_by_a_selector_that_looks_at_them() {
    let any = AddressRange::ANY_V4;
    let (source, destination, ports) = (v4(1), v4(2), Ports::Opaque);
    let fragment = FiveTuple { source, destination, protocol: 17, ports, interface: Attachment::TUN };
    let ports = PortSelector::Ports { local: (0, u16::MAX), remote: (53, 53) };
    let narrow = Selector { local: any, remote: any, protocol: Some(17), ports };
    let wide = Selector { ports: PortSelector::Any, ..narrow.clone() };
    assert!(!narrow.matches(&fragment, Direction::Outbound));
    assert!(wide.matches(&fragment, Direction::Outbound));
}

#[test]
fn ranges_refuse_what_is_none() {
    let six: IpAddr = Ipv6Addr::LOCALHOST.into();
    assert_eq!(AddressRange::new(v4(2), v4(1)), None);
    assert_eq!(AddressRange::new(v4(1), six), None);
    assert_eq!(AddressRange::prefix(v4(1), 33), None);
    assert_eq!(AddressRange::prefix(six, 129), None);
    assert!(!AddressRange::ANY_V4.contains(six));
    assert_eq!(AddressRange::ANY_V6.prefix_len(), Some(0));
    assert_eq!(AddressRange::ANY_V6.to_prefixes(), [(Ipv6Addr::UNSPECIFIED.into(), 0)]);
}

#[test]
fn ranges_print_as_people_write_them() {
    let show = |a: &str, b: &str| AddressRange::new(a.parse().unwrap(), b.parse().unwrap()).unwrap().to_string();
    assert_eq!(show("10.1.1.1", "10.1.1.1"), "10.1.1.1");
    assert_eq!(show("10.1.0.0", "10.1.255.255"), "10.1.0.0/16");
    assert_eq!(show("10.1.1.1", "10.1.1.3"), "10.1.1.1-10.1.1.3");
    assert_eq!(show("fd00::", "fd00::ffff"), "fd00::/112");
}
