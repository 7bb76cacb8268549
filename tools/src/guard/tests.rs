//! The rules against their plain meaning: what a policy protects or discards is
//! dropped, whatever the packet looks like, and nothing else is.

use super::*;
use policy::config::{DefaultAction, HostAction, HostPolicy, StartMode, TunnelPolicy};
use policy::five_tuple::{Attachment, FiveTuple, Ports};
use policy::selector::{AddressRange, PortSelector, Selector};
use policy::spd::{Decision, Spd};
use policy::transform::EspTransform;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

fn options() -> GuardOptions {
    GuardOptions {
        interface: "caponier0".to_owned(),
        mark: 0x0ca9,
        ike_port: 500,
        natt_port: 4500,
        gateway: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(text: &str) -> AddressRange {
    match text.split_once('/') {
        Some((a, len)) => AddressRange::prefix(ip(a), len.parse().unwrap()).unwrap(),
        None => match text.split_once('-') {
            Some((a, b)) => AddressRange::new(ip(a), ip(b)).unwrap(),
            None => AddressRange::single(ip(text)),
        },
    }
}

fn tunnel(local: &str, remote: &str) -> Arc<TunnelPolicy> {
    Arc::new(TunnelPolicy {
        name: "t".into(),
        tsource: ip("192.0.2.1"),
        tdestination: ip("192.0.2.2"),
        mode: policy::sa::Mode::Tunnel,
        selector: Selector::between(range(local), range(remote)),
        transforms: Vec::<EspTransform>::new(),
        packets: 0,
        start: StartMode::Traffic,
        manual: None,
        remote_access: policy::config::RemoteAccess::None,
        line: 1,
    })
}

fn config(hosts: Vec<(Vec<Selector>, HostAction)>, bypass: Vec<AddressRange>, default_action: DefaultAction) -> Config {
    let mut config = Config { bypass, ..Config::without_hosts(default_action) };
    for (selectors, action) in hosts {
        config.add_host(selectors, action);
    }
    config
}

/// What the kernel sees of a packet.
#[derive(Clone, Debug)]
struct Packet {
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    /// `None`: hidden behind extension headers of a later fragment.
    protocol: Option<u8>,
    /// The first four octets of the upper header, unless a later fragment or cut short.
    upper: Option<[u8; 4]>,
    later_fragment: bool,
    /// What the fragment header of IPv6 names.
    fragment_of: Option<u8>,
    interface: &'static str,
    mark: u32,
    hop_limit: u8,
    /// Whether the receiver is this host.
    to_us: bool,
}

/// The kernel's walk through a chain, as far as the rules here need one.
fn walk(rules: &RuleSet, name: &str, packet: &Packet) -> Option<Verdict> {
    let chain = rules.chains.iter().find(|c| c.name == name).expect("chains jump to chains that exist");
    for rule in &chain.rules {
        if !rule.matches.iter().all(|m| holds(m, packet)) {
            continue;
        }
        match rule.verdict {
            Verdict::Jump(to) => {
                if let Some(end) = walk(rules, to, packet) {
                    return Some(end);
                }
            }
            Verdict::Return => return None,
            end => return Some(end),
        }
    }
    None
}

fn holds(m: &Match, p: &Packet) -> bool {
    let ipv4 = p.source.is_ipv4();
    let span = |at: usize, (low, high): (u8, u8)| p.upper.is_some_and(|u| (low..=high).contains(&u[at]));
    match m {
        Match::Ipv4(v4) => *v4 == ipv4,
        Match::InInterface(name) => p.direction == Direction::Inbound && name == p.interface,
        Match::OutInterface(name) => p.direction == Direction::Outbound && name == p.interface,
        Match::Mark(mark) => p.mark == *mark,
        Match::Protocol(n) => p.protocol == Some(*n),
        Match::NotProtocol(n) => p.protocol.is_some_and(|q| q != *n),
        Match::Address(Side::Source, range) => range.contains(p.source),
        Match::Address(Side::Destination, range) => range.contains(p.destination),
        Match::Port(side, (low, high)) => p.upper.is_some_and(|u| {
            let port = if *side == Side::Source { [u[0], u[1]] } else { [u[2], u[3]] };
            (*low..=*high).contains(&u16::from_be_bytes(port))
        }),
        Match::IcmpType(r) => span(0, *r),
        Match::IcmpCode(r) => span(1, *r),
        Match::HopLimit(n) => !ipv4 && p.hop_limit == *n,
        Match::LaterFragment { ipv4: v4 } => *v4 == ipv4 && p.later_fragment,
        Match::FragmentOf(next) => !ipv4 && p.fragment_of == Some(*next),
        Match::UpperHeader => p.upper.is_some(),
        Match::LocalDestination => p.to_us,
    }
}

fn dropped(rules: &RuleSet, packet: &Packet) -> bool {
    let chain = if packet.direction == Direction::Inbound { "from_wire" } else { "to_wire" };
    walk(rules, chain, packet) == Some(Verdict::Drop)
}

/// What the packet path does with the same packet; `None` where the guard may be stricter.
fn forbidden(config: &Config, p: &Packet) -> Option<bool> {
    let selective =
        config.hosts.iter().flat_map(|h| &h.selectors).any(|s| s.protocol.is_some() || s.ports != PortSelector::Any);
    let with_ports = p.protocol.is_none_or(|n| [1, 6, 17, 33, 58, 132, 136].contains(&n));
    let local = if p.direction == Direction::Outbound { p.source } else { p.destination };
    let bypassed = config.bypass.iter().any(|b| b.contains(local));
    if with_ports && p.upper.is_none() && !(p.later_fragment && p.protocol.is_some()) && (selective || bypassed) {
        return Some(!bypassed);
    }
    let Some(protocol) = p.protocol else { return address_only(config, p) };
    let ports = match p.upper {
        Some([kind, code, ..]) if [1, 58].contains(&protocol) => Ports::Icmp { kind, code },
        Some([a, b, c, d]) if with_ports => {
            Ports::Pair { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]) }
        }
        None if with_ports => Ports::Opaque,
        _ => Ports::None,
    };
    let tuple = FiveTuple { source: p.source, destination: p.destination, protocol, ports, interface: Attachment::TUN };
    let verdict = Spd::compile(config, 1).decide(&tuple, p.direction);
    let by_tunnel =
        config.hosts.iter().any(|h| h.cookie == verdict.cookie && matches!(h.action, HostAction::Tunnel(_)));
    match verdict.decision {
        Decision::Bypass | Decision::Pass => Some(false),
        Decision::Protect { .. } | Decision::ProtectExclusive { .. } => Some(true),
        Decision::Discard if p.direction == Direction::Outbound || by_tunnel => Some(true),
        // What comes in to leave through a tunnel is judged when it leaves.
        Decision::Discard if p.to_us || !protected_outwards(config, &tuple) => Some(true),
        Decision::Discard if ports == Ports::Opaque => None,
        Decision::Discard => Some(false),
    }
}

/// Whether the first policy that covers it on its way out has a tunnel.
fn protected_outwards(config: &Config, tuple: &FiveTuple) -> bool {
    let covers = |h: &&Arc<HostPolicy>| h.selectors.iter().any(|s| s.matches(tuple, Direction::Outbound));
    config.hosts.iter().find(covers).is_some_and(|h| matches!(h.action, HostAction::Tunnel(_)))
}

/// Where no policy looks above addresses, any protocol gives the answer.
fn address_only(config: &Config, p: &Packet) -> Option<bool> {
    forbidden(config, &Packet { protocol: Some(47), ..p.clone() })
}

fn packet(direction: Direction, source: &str, destination: &str) -> Packet {
    Packet {
        direction,
        source: ip(source),
        destination: ip(destination),
        protocol: Some(6),
        upper: Some([0x9c, 0x40, 0, 80]),
        later_fragment: false,
        fragment_of: None,
        interface: "eth0",
        mark: 0,
        hop_limit: 64,
        to_us: true,
    }
}

fn two_sites() -> Config {
    let (a, b) = ("10.78.1.0/24", "10.78.2.0/24");
    let selector = Selector::between(range(a), range(b));
    config(vec![(vec![selector], HostAction::Tunnel(tunnel(a, b)))], Vec::new(), DefaultAction::Pass)
}

#[test]
fn what_a_gateway_forwards_the_kernel_does_not() {
    let config = config(Vec::new(), Vec::new(), DefaultAction::Pass);
    assert!(!Guard::plan(&config, &options()).to_string().contains("taken_by_gateway"), "there is no gateway");
    let gateway = vec!["eth1".to_owned(), "eth0".to_owned()];
    let text = Guard::plan(&config, &GuardOptions { gateway, ..options() }).to_string();
    let from = text.find("chain taken_by_gateway").expect("the chain");
    let chain = text[from..].split("\t}\n").next().expect("its end");
    let expected = |name: &str| {
        let to = ["fib daddr type local", "ip daddr 224.0.0.0/4", "ip daddr 255.255.255.255"];
        let v6 = ["ip6 daddr ff00::/8", "ip6 daddr fe80::/10"];
        let accepted = to.iter().chain(&v6).map(|to| format!("\t\tiifname \"{name}\" {to} accept\n"));
        accepted.collect::<String>() + &format!("\t\tiifname \"{name}\" drop\n")
    };
    let head = "chain taken_by_gateway {\n\t\ttype filter hook prerouting priority -310; policy accept;\n";
    assert_eq!(chain, format!("{head}{}{}", expected("eth1"), expected("eth0")));
}

#[test]
fn a_protected_selector_passes_on_the_tun_interface_alone() {
    let rules = Guard::plan(&two_sites(), &options());
    let out = packet(Direction::Outbound, "10.78.1.1", "10.78.2.1");
    let back = packet(Direction::Inbound, "10.78.2.1", "10.78.1.1");
    for p in [&out, &back] {
        assert!(dropped(&rules, p), "{p:?}");
        assert!(!dropped(&rules, &Packet { interface: "caponier0", ..p.clone() }), "{p:?}");
        assert!(!dropped(&rules, &Packet { interface: "lo", ..p.clone() }), "{p:?}");
    }
    assert!(!dropped(&rules, &Packet { mark: 0x0ca9, ..out }), "what the packet path itself sends");
    assert!(dropped(&rules, &Packet { mark: 0x0ca9, ..back }), "a mark opens nothing on the way in");
    assert!(!dropped(&rules, &packet(Direction::Outbound, "10.78.1.1", "10.78.3.1")));
    assert!(!dropped(&rules, &packet(Direction::Inbound, "10.78.1.1", "10.78.2.1")), "forwarded from the inside");
}

#[test]
fn ipsec_itself_is_received_at_our_end_points_only() {
    let everything = Selector::between(AddressRange::ANY_V4, AddressRange::ANY_V4);
    let all = tunnel("0.0.0.0/0", "0.0.0.0/0");
    let config = config(vec![(vec![everything], HostAction::Tunnel(all))], Vec::new(), DefaultAction::Discard);
    let rules = Guard::plan(&config, &options());
    let ike = Packet {
        protocol: Some(17),
        upper: Some([1, 244, 1, 244]),
        ..packet(Direction::Inbound, "198.51.100.7", "192.0.2.1")
    };
    let natt = Packet { upper: Some([0x80, 1, 0x11, 0x94]), ..ike.clone() };
    let esp = Packet { protocol: Some(50), upper: None, ..ike.clone() };
    let esp_fragment = Packet { later_fragment: true, ..esp.clone() };
    let udp_fragment = Packet { upper: None, later_fragment: true, ..ike.clone() };
    let too_big = Packet { protocol: Some(1), upper: Some([3, 4, 0, 0]), ..ike.clone() };
    for p in [&ike, &natt, &esp, &esp_fragment, &udp_fragment, &too_big] {
        assert!(!dropped(&rules, p), "{p:?}");
        assert!(dropped(&rules, &Packet { destination: ip("10.78.1.5"), ..p.clone() }), "{p:?}");
    }
    assert!(dropped(&rules, &Packet { upper: Some([1, 244, 0, 53]), ..ike.clone() }), "another port");
    assert!(dropped(&rules, &Packet { upper: Some([3, 1, 0, 0]), ..too_big }), "another ICMP error");
    assert!(dropped(&rules, &Packet { direction: Direction::Outbound, ..ike }), "nobody's IKE but ours leaves");
}

/// AH over IPv6 hides its protocol in later fragments: these pass to us by what their fragment header says, and
/// nothing else does.
#[test]
fn later_fragments_of_ah_over_ipv6_are_received() {
    let between = Selector::between(range("2001:db8::1"), range("2001:db8::2"));
    let tunnel = TunnelPolicy {
        tsource: ip("2001:db8::1"),
        tdestination: ip("2001:db8::2"),
        ..(*tunnel("2001:db8::1", "2001:db8::2")).clone()
    };
    let policies = vec![(vec![between], HostAction::Tunnel(Arc::new(tunnel)))];
    let rules = Guard::plan(&config(policies, Vec::new(), DefaultAction::Pass), &options());
    let back = packet(Direction::Inbound, "2001:db8::2", "2001:db8::1");
    let later = Packet { protocol: None, upper: None, later_fragment: true, fragment_of: Some(51), ..back };
    assert!(!dropped(&rules, &later));
    assert!(dropped(&rules, &Packet { fragment_of: Some(60), ..later.clone() }), "another extension header");
    assert!(dropped(&rules, &Packet { protocol: Some(6), fragment_of: Some(6), ..later.clone() }), "TCP");
    assert!(dropped(&rules, &Packet { later_fragment: false, protocol: Some(6), ..later.clone() }), "a first one");
    assert!(dropped(
        &rules,
        &Packet { direction: Direction::Outbound, source: later.destination, destination: later.source, ..later }
    ));
}

#[test]
fn a_discarding_policy_is_not_fooled_by_a_tunnel_for_everything() {
    let everything = Selector::between(AddressRange::ANY_V4, AddressRange::ANY_V4);
    let ports = PortSelector::Ports { local: (22, 22), remote: (0, 65535) };
    let ssh = Selector { protocol: Some(6), ports, ..everything.clone() };
    let all = HostAction::Tunnel(tunnel("0.0.0.0/0", "0.0.0.0/0"));
    let hosts = vec![(vec![ssh], HostAction::Discard), (vec![everything], all)];
    let rules = Guard::plan(&config(hosts, Vec::new(), DefaultAction::Discard), &options());
    let login = Packet { upper: Some([0x9c, 0x40, 0, 22]), ..packet(Direction::Inbound, "198.51.100.7", "10.78.1.5") };
    assert!(dropped(&rules, &login), "seen the other way round it would go into the tunnel");
}

#[test]
fn neighbours_are_found_whatever_the_policies_say() {
    let everything = Selector::between(AddressRange::ANY_V6, AddressRange::ANY_V6);
    let config = config(vec![(vec![everything], HostAction::Discard)], Vec::new(), DefaultAction::Discard);
    let rules = Guard::plan(&config, &options());
    for direction in [Direction::Inbound, Direction::Outbound] {
        let solicitation = Packet {
            protocol: Some(58),
            upper: Some([135, 0, 0, 0]),
            hop_limit: 255,
            ..packet(direction, "fe80::1", "ff02::1:ff00:2")
        };
        assert!(!dropped(&rules, &solicitation));
        assert!(dropped(&rules, &Packet { hop_limit: 254, ..solicitation.clone() }), "it came through a router");
        assert!(!dropped(&rules, &Packet { upper: Some([143, 0, 0, 0]), hop_limit: 1, ..solicitation.clone() }));
        assert!(dropped(&rules, &Packet { upper: Some([128, 0, 0, 0]), ..solicitation }), "an echo request");
    }
}

#[test]
fn the_text_is_what_nft_would_show() {
    let web = Selector {
        protocol: Some(6),
        ports: PortSelector::Ports { local: (0, 65535), remote: (80, 81) },
        ..Selector::between(range("10.78.1.1-10.78.1.3"), range("10.78.2.0/24"))
    };
    let v6 = Selector::between(range("fd00:1::/64"), range("fd00:2::7"));
    let config = config(
        vec![
            (vec![web], HostAction::Tunnel(tunnel("10.78.1.0/24", "10.78.2.0/24"))),
            (vec![v6], HostAction::Discard),
            (vec![Selector::between(AddressRange::ANY_V4, range("10.9.9.9"))], HostAction::Pass),
        ],
        vec![range("10.1.1.1")],
        DefaultAction::Discard,
    );
    let text = Guard::plan(&config, &options()).to_string();
    let expected = "\tchain outbound {
\t\toifname \"lo\" accept
\t\toifname \"caponier0\" accept
\t\tiifname \"caponier0\" accept
\t\tmeta mark 0x00000ca9 accept
\t\tip saddr 10.1.1.1 accept
\t\tmeta nfproto ipv6 meta l4proto 58 @th,0,8 130-132 ip6 hoplimit 1 accept
\t\tmeta nfproto ipv6 meta l4proto 58 @th,0,8 133-137 ip6 hoplimit 255 accept
\t\tmeta nfproto ipv6 meta l4proto 58 @th,0,8 143 ip6 hoplimit 1 accept
\t\tjump readable_outbound
\t\tip saddr 10.78.1.1-10.78.1.3 ip daddr 10.78.2.0/24 meta l4proto 6 th dport 80-81 counter drop comment \"protect h1\"
\t\tip saddr 10.78.1.1-10.78.1.3 ip daddr 10.78.2.0/24 meta l4proto 6 ip frag-off & 0x1fff != 0 counter drop comment \"protect h1\"
\t\tip6 saddr fd00:1::/64 ip6 daddr fd00:2::7 counter drop comment \"discard h2\"
\t\tip daddr 10.9.9.9 accept
\t\tcounter drop comment \"default\"
\t}
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn names_of_counters_survive_the_kernel() {
    for name in [
        DropName::Protect("a-b_c".to_owned()),
        DropName::Discard("x".repeat(63)),
        DropName::Default,
        DropName::Malformed,
    ] {
        let message = encode::contents(&RuleSet {
            chains: vec![Chain {
                name: plan::OUTBOUND,
                base: None,
                rules: vec![Rule { matches: Vec::new(), counter: Some(name.clone()), verdict: Verdict::Drop }],
            }],
        });
        let Some(NfTablesMessage::NewRule(rule)) = message.last() else { panic!("a rule was encoded") };
        let data = rule.attributes.iter().find_map(|a| match a {
            RuleAttribute::UserData(data) => encode::comment_of(data),
            _ => None,
        });
        assert_eq!(data.and_then(DropName::parse), Some(name));
    }
    for damaged in [&[0][..], &[0, 9, 1], &[1, 0, 0, 200], &[]] {
        assert_eq!(encode::comment_of(damaged), None);
    }
}

// Few addresses and ports, so that random policies and packets meet.
fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
    (0..16u8).prop_map(move |n| {
        if v4 { IpAddr::from([10, 0, 0, n]) } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)]) }
    })
}

fn addresses(v4: bool) -> impl Strategy<Value = AddressRange> {
    prop_oneof![
        Just(if v4 { AddressRange::ANY_V4 } else { AddressRange::ANY_V6 }),
        (address(v4), address(v4)).prop_map(|(a, b)| AddressRange::new(a.min(b), a.max(b)).unwrap()),
    ]
}

fn port_span() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![Just((0, u16::MAX)), (0..8u16, 0..8u16).prop_map(|(a, b)| (a.min(b), a.max(b)))]
}

fn selector() -> impl Strategy<Value = Selector> {
    let ports = prop_oneof![
        Just((None, PortSelector::Any)),
        Just((Some(17), PortSelector::Any)),
        Just((Some(47), PortSelector::Any)),
        (port_span(), port_span()).prop_map(|(local, remote)| (Some(6), PortSelector::Ports { local, remote })),
        (0..4u8, 0..4u8).prop_map(|(k, c)| (Some(1), PortSelector::Icmp { kind: (k, k + 1), code: (0, c) })),
        (128..145u8, 0..9u8).prop_map(|(k, n)| (Some(58), PortSelector::Icmp { kind: (k, k + n), code: (0, 255) })),
    ];
    any::<bool>().prop_flat_map(addresses_of).prop_flat_map(move |(local, remote)| {
        ports.clone().prop_map(move |(protocol, ports)| Selector { local, remote, protocol, ports })
    })
}

fn addresses_of(v4: bool) -> impl Strategy<Value = (AddressRange, AddressRange)> {
    (addresses(v4), addresses(v4))
}

fn any_config() -> impl Strategy<Value = Config> {
    let action = prop_oneof![
        Just(HostAction::Pass),
        Just(HostAction::Discard),
        Just(HostAction::Tunnel(tunnel("10.0.0.0/8", "10.0.0.0/8"))),
    ];
    let hosts = prop::collection::vec((prop::collection::vec(selector(), 1..3), action), 0..6);
    let bypass = prop::collection::vec(any::<bool>().prop_flat_map(address).prop_map(AddressRange::single), 0..2);
    let default = prop_oneof![Just(DefaultAction::Pass), Just(DefaultAction::Discard)];
    (hosts, bypass, default).prop_map(|(hosts, bypass, default)| config(hosts, bypass, default))
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let ends = any::<bool>().prop_flat_map(|v4| (address(v4), address(v4)));
    let protocol =
        prop_oneof![Just(Some(6)), Just(Some(17)), Just(Some(1)), Just(Some(58)), Just(Some(47)), Just(None)];
    let first = prop_oneof![0..2u8, 128..145u8];
    let upper = prop::option::weighted(0.7, [first.boxed(), (0..8u8).boxed(), (0..2u8).boxed(), (0..8u8).boxed()]);
    (ends, any::<bool>(), protocol, upper, any::<bool>(), any::<bool>()).prop_map(
        |((source, destination), out, protocol, upper, fragment, to_us)| Packet {
            to_us,
            direction: if out { Direction::Outbound } else { Direction::Inbound },
            source,
            destination,
            // IPv4 always shows it; where it is not known, neither is what follows.
            protocol: protocol.or(source.is_ipv4().then_some(6)),
            upper: upper.filter(|_| !fragment && (protocol.is_some() || source.is_ipv4())),
            later_fragment: fragment,
            fragment_of: None,
            interface: "eth0",
            mark: 0,
            // As such messages have it: others are no link control.
            hop_limit: match upper {
                Some([133..=137, ..]) => 255,
                Some([130..=132 | 143, ..]) => 1,
                _ => 64,
            },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_guard_drops_exactly_what_the_packet_path_would_not_pass(
        config in any_config(),
        packets in prop::collection::vec(any_packet(), 20),
    ) {
        let rules = Guard::plan(&config, &options());
        for p in &packets {
            if let Some(expected) = forbidden(&config, p) {
                prop_assert_eq!(dropped(&rules, p), expected, "{:?}\n{}", p, rules);
            }
        }
    }
}
