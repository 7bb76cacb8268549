//! The compiled classifier against the linear search: random rules that overlap,
//! and packets that lie on their borders. `CAPONIER_CASES` is how many packets
//! are tried (default 200000), `CAPONIER_SEED` where the random numbers begin.
#![allow(clippy::unwrap_used, reason = "a generator that is wrong fails the test")]

mod common;

use common::{Seeded, between, range};
use crypto::Entropy;
use policy::classifier::{Classifier, Coverage, HiddenPorts, coverage};
use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use policy::selector::{AddressRange, PortSelector, Selector};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn number(variable: &str) -> Option<u64> {
    std::env::var_os(variable).map(|n| n.to_str().and_then(|n| n.parse().ok()).expect("a number"))
}

/// Random numbers, and rules and packets of them.
struct Random(Seeded);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn bits(&mut self) -> u128 {
        u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64())
    }

    /// Few networks, so that rules meet and nest.
    fn address(&mut self, v6: bool) -> IpAddr {
        let low = self.bits() & self.pick(&[0, 0x3, 0xff, 0xffff, u128::MAX]);
        if v6 {
            let network = self.pick(&[0xfd00 << 112, 0xfd00_0001 << 96, 0xfd00_0001_0002_0003 << 64, 0]);
            Ipv6Addr::from_bits(network | low & self.pick(&[0xffff_ffff, u128::MAX >> 64])).into()
        } else {
            let network = self.pick(&[0x0a00_0000, 0x0a01_0000, 0x0a01_0200, 0x7fff_ff00, 0]);
            Ipv4Addr::from_bits(network | low as u32 & self.pick(&[0xff, 0xffff, u32::MAX])).into()
        }
    }

    fn addresses(&mut self, v6: bool, ranges: bool) -> AddressRange {
        let most = if v6 { 128 } else { 32 };
        if ranges && self.one_in(2) {
            let (a, b) = (self.address(v6), self.address(v6));
            return AddressRange::new(a.min(b), a.max(b)).unwrap();
        }
        let len = match self.below(4) {
            0 => most,
            1 => self.pick(&[0, 8, 16, 24, most - 1, most - 8]),
            2 => most - self.below(12) as u8,
            _ => self.below(u64::from(most) + 1) as u8,
        };
        AddressRange::prefix(self.address(v6), len).unwrap()
    }

    fn span(&mut self, most: u64) -> (u16, u16) {
        let port = |r: &mut Self| r.pick(&[0, 1, 22, 80, 443, 1023, 1024, 8080, 65534, 65535]).min(most) as u16;
        match self.below(4) {
            0 => (0, most as u16),
            1 => {
                let n = port(self);
                (n, n)
            }
            _ => {
                let (a, b) = (port(self), port(self));
                // Sometimes the wrong way round: covers nothing.
                if self.one_in(20) { (a.max(b), a.min(b)) } else { (a.min(b), a.max(b)) }
            }
        }
    }

    fn selector(&mut self, ranges: bool) -> Selector {
        let v6 = self.one_in(3);
        let octets = |(a, b): (u16, u16)| (a as u8, b as u8);
        let (protocol, ports) = match self.below(8) {
            0 | 1 => (None, PortSelector::Any),
            2 => (Some(self.pick(&[6, 17, 1, 58, 47, 255, 0])), PortSelector::Any),
            3 => {
                let (kind, code) = (octets(self.span(255)), octets(self.span(255)));
                (Some(self.pick(&[1, 58])), PortSelector::Icmp { kind, code })
            }
            // Nothing that a configuration can say, but a selector can.
            4 if self.one_in(4) => (None, PortSelector::Ports { local: self.span(65535), remote: self.span(65535) }),
            _ => {
                let (local, remote) = (self.span(65535), self.span(65535));
                (Some(self.pick(&[6, 17])), PortSelector::Ports { local, remote })
            }
        };
        Selector { local: self.addresses(v6, ranges), remote: self.addresses(v6, ranges), protocol, ports }
    }

    /// An address at, in or beside a range.
    fn near(&mut self, range: &AddressRange) -> IpAddr {
        let step = |address: IpAddr, by: i8| -> IpAddr {
            match address {
                IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits().wrapping_add_signed(by.into())).into(),
                IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits().wrapping_add_signed(by.into())).into(),
            }
        };
        match self.below(6) {
            0 | 1 => range.first(),
            2 => range.last(),
            3 => step(range.first(), -1),
            4 => step(range.last(), 1),
            _ => step(range.first(), 1).min(range.last()),
        }
    }

    fn near_port(&mut self, (low, high): (u16, u16)) -> u16 {
        match self.below(5) {
            0 | 1 => low,
            2 => high,
            3 => low.wrapping_sub(1),
            _ => high.wrapping_add(1),
        }
    }

    /// A packet on the border of a rule.
    fn packet(&mut self, rule: &Selector) -> (FiveTuple, Direction) {
        let direction = self.pick(&[Direction::Outbound, Direction::Inbound]);
        let protocol = match rule.protocol {
            Some(p) if !self.one_in(8) => p,
            _ => self.pick(&[6, 17, 1, 58, 47]),
        };
        let ports = match &rule.ports {
            _ if self.one_in(6) => self.pick(&[Ports::Opaque, Ports::None]),
            PortSelector::Ports { local, remote } => {
                let (local, remote) = (self.near_port(*local), self.near_port(*remote));
                match direction {
                    Direction::Outbound => Ports::Pair { source: local, destination: remote },
                    Direction::Inbound => Ports::Pair { source: remote, destination: local },
                }
            }
            PortSelector::Icmp { kind, code } => {
                let wide = |(a, b): (u8, u8)| (u16::from(a), u16::from(b));
                Ports::Icmp { kind: self.near_port(wide(*kind)) as u8, code: self.near_port(wide(*code)) as u8 }
            }
            PortSelector::Any => {
                let pair = Ports::Pair { source: self.below(65536) as u16, destination: self.pick(&[22, 80, 1024]) };
                self.pick(&[pair, pair, Ports::Icmp { kind: 8, code: 0 }])
            }
        };
        let (local, remote) = (self.near(&rule.local), self.near(&rule.remote));
        let (source, destination) = match direction {
            Direction::Outbound => (local, remote),
            Direction::Inbound => (remote, local),
        };
        (FiveTuple { source, destination, protocol, ports, interface: Attachment::TUN }, direction)
    }
}

/// The definition of [`HiddenPorts`].
fn hidden_linear(rules: &[Selector], tuple: &FiveTuple, direction: Direction) -> Option<u32> {
    let could = |s: &Selector| coverage(s, tuple, direction) == Coverage::PortsHidden;
    rules.iter().position(could).map(|at| at as u32)
}

fn compare(rules: &[Selector], random: &mut Random, packets: u64) -> u64 {
    let compiled = Classifier::compile(rules.iter().map(|s| [s]));
    let hidden = HiddenPorts::compile((0..).zip(rules.iter().map(|s| [s])));
    let mut covered = 0;
    for _ in 0..packets {
        let rule = &rules[random.below(rules.len() as u64) as usize];
        let (tuple, direction) = random.packet(rule);
        let expected = compiled.first_match_linear(&tuple, direction);
        assert_eq!(compiled.first_match(&tuple, direction), expected, "{tuple} {direction:?}");
        covered += u64::from(expected.is_some());
        if matches!(tuple.ports, Ports::Opaque | Ports::None) {
            let expected = hidden_linear(rules, &tuple, direction);
            assert_eq!(hidden.first_match(&tuple, direction), expected, "{tuple} {direction:?}");
        }
    }
    covered
}

#[test]
fn the_compiled_search_finds_what_the_linear_one_does() {
    let cases = number("CAPONIER_CASES").unwrap_or(200_000);
    let seed = number("CAPONIER_SEED").unwrap_or(1);
    let mut random = Random(Seeded(seed.wrapping_mul(2) + 1));
    let (mut tried, mut covered) = (0, 0);
    while tried < cases {
        let rules = match random.below(20) {
            0 => 1 + random.below(3),
            1 => 300 + random.below(400),
            2..6 => 60 + random.below(120),
            _ => 5 + random.below(45),
        };
        let ranges = random.one_in(3);
        let rules: Vec<Selector> = (0..rules).map(|_| random.selector(ranges)).collect();
        let packets = 4 * rules.len().min(150) as u64;
        covered += compare(&rules, &mut random, packets);
        tried += packets;
    }
    // Else the comparison says little.
    assert!(covered * 10 > tried * 4 && covered * 10 < tried * 9, "{covered} of {tried} covered");
}

/// Sets that nothing tells apart, or that nest in every way: linear memory, and right.
#[test]
fn rules_that_no_table_can_hold_cost_no_more_than_a_list() {
    const RULES: u32 = 20_000;
    let v4 = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
    let ports = |selector: Selector, remote| Selector {
        protocol: Some(6),
        ports: PortSelector::Ports { local: (0, u16::MAX), remote },
        ..selector
    };
    let wildcards = (0..RULES).map(|_| between("0.0.0.0/0", "0.0.0.0/0")).collect();
    // Each range contains the middle of the address space, so no leading bit is common to it.
    let onions = (0..RULES).map(|n| {
        let range = AddressRange::new(v4(0x7fff_ffff - n * 1000), v4(0x8000_0000 + n * 1000)).unwrap();
        Selector::between(range, range)
    });
    let nested = (0..RULES).map(|n| {
        let prefix = |len: u32| AddressRange::prefix(v4(0x0a0b_0c0d), len as u8).unwrap();
        Selector::between(prefix(n % 33), prefix(n / 33 % 33))
    });
    let nested_v6 = (0..RULES).map(|n| {
        let prefix =
            |len: u32| AddressRange::prefix("fd12:3456:789a:bcde:f012::1".parse().unwrap(), len as u8).unwrap();
        Selector::between(prefix(n % 129), prefix(n / 129 % 129))
    });
    let port_onions = (0..RULES).map(|n| {
        let (n, ip) = (n as u16, between("10.0.0.0/8", "10.0.0.0/8"));
        ports(ip, (32_767 - n, 32_768 + n))
    });
    let one_address = (0..RULES).map(|n| ports(between("10.1.1.1", "10.2.2.2"), (n as u16, n as u16 + 1)));
    // And one that is harmless, of the larger family.
    let sites = (0..RULES).map(|n| {
        let site = |side: u128| Ipv6Addr::from_bits(0xfd00 << 112 | side << 96 | u128::from(n) << 64);
        let network = |side| AddressRange::prefix(site(side).into(), 64).unwrap();
        Selector::between(network(1), network(2))
    });
    let sets: [(&str, Vec<Selector>); 7] = [
        ("sites", sites.collect()),
        ("wildcards", wildcards),
        ("onions", onions.collect()),
        ("nested", nested.collect()),
        ("nested IPv6", nested_v6.collect()),
        ("port onions", port_onions.collect()),
        ("one address", one_address.collect()),
    ];
    let mut random = Random(Seeded(7));
    for (name, rules) in sets {
        let size = Classifier::compile(rules.iter().map(|s| [s])).size() / rules.len();
        assert!(size <= 200, "{name}: {size} octets a rule");
        compare(&rules, &mut random, 40);
    }
}

#[test]
fn a_tuple_of_two_families_is_covered_by_nothing_of_one() {
    let rules = [between("0.0.0.0/0", "0.0.0.0/0"), between("::/0", "::/0")];
    let compiled = Classifier::compile(rules.iter().map(|s| [s]));
    let tuple = common::tuple("10.1.1.1", "fd00::1", 6, Ports::Opaque);
    assert_eq!(compiled.first_match(&tuple, Direction::Outbound), None);
    // But by a selector of just these two, which no configuration makes.
    let mixed = Selector::between(range("10.1.1.1"), range("fd00::1"));
    let compiled = Classifier::compile([[&rules[0]], [&rules[1]], [&mixed]]);
    assert_eq!(compiled.first_match(&tuple, Direction::Outbound), Some(2));
}
