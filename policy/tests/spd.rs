//! What the SPD decides: order, defaults, traps, fragments, reloads.

mod common;

use common::{Rules, between, icmp_types, ip, range, remote_port, tcp, tunnel, tuple};
use policy::config::{HostAction, StartMode, TunnelPolicy};
use policy::counters::DropReason;
use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use policy::spd::{COOKIE_DEFAULT, COOKIE_NONE, Decision, SharedSpd, Spd, Verdict};
use policy::transform::EspTransform;
use std::sync::Arc;

use Direction::{Inbound, Outbound};

const PASS_BY_DEFAULT: Verdict = Verdict { decision: Decision::Pass, cookie: COOKIE_DEFAULT, reason: None };

fn verdict(decision: Decision, cookie: u32) -> Verdict {
    Verdict { decision, cookie, reason: None }
}

fn dropped(reason: DropReason, cookie: u32) -> Verdict {
    Verdict { decision: Decision::Discard, cookie, reason: Some(reason) }
}

fn spd(rules: Rules) -> Spd {
    Spd::compile(&rules.config(), 1)
}

#[test]
fn no_match_passes_by_the_default_policy_and_its_cookie_is_1() {
    let spd = spd(Rules::new().discard("elsewhere", between("10.9.0.0/16", "10.9.0.0/16")));
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound), PASS_BY_DEFAULT);
    assert_eq!(spd.decide(&tcp("10.2.0.1", "10.1.0.1", 80), Inbound), PASS_BY_DEFAULT);
    assert_eq!(spd.decide(&tcp("fd00::1", "fd00::2", 80), Outbound), PASS_BY_DEFAULT);
}

#[test]
fn the_default_policy_may_be_changed_to_discard() {
    let spd = spd(Rules::new().discard_by_default());
    let expected = dropped(DropReason::PolicyDiscard, COOKIE_DEFAULT);
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound), expected);
    // Not even a fragment passes.
    assert_eq!(spd.decide(&tuple("10.1.0.1", "10.2.0.1", 6, Ports::Opaque), Inbound), expected);
}

/// HP-UX scenarios H1, H2, H10: the wrong policy decides because it comes first.
#[test]
fn the_first_match_decides_even_if_a_later_policy_is_more_specific() {
    let t = tunnel("t", "10.77.0.2", between("10.1.0.0/16", "10.2.0.0/16"));
    let packet = tcp("10.1.0.1", "10.2.0.1", 80);
    let wrong = Rules::new().pass("all", between("10.0.0.0/8", "10.0.0.0/8")).protect(
        "web",
        between("10.1.0.0/16", "10.2.0.0/16"),
        &t,
    );
    assert_eq!(spd(wrong).decide(&packet, Outbound), verdict(Decision::Pass, 2));
    let right = Rules::new()
        .protect("web", between("10.1.0.0/16", "10.2.0.0/16"), &t)
        .pass("all", between("10.0.0.0/8", "10.0.0.0/8"));
    assert_eq!(spd(right).decide(&packet, Outbound), verdict(Decision::Protect { tunnel: 0 }, 2));
}

/// A host policy's source is this side: inbound packets are compared with roles swapped.
#[test]
fn roles_are_swapped_inbound() {
    let t = tunnel("t", "10.77.0.2", between("10.1.0.0/16", "10.2.0.0/16"));
    let web = remote_port(between("10.1.0.0/16", "10.2.0.0/16"), 6, (80, 80));
    let spd = spd(Rules::new().protect("web", web, &t));
    let protect = verdict(Decision::Protect { tunnel: 0 }, 2);
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound), protect);
    let answer = tuple("10.2.0.1", "10.1.0.1", 6, Ports::Pair { source: 80, destination: 40_000 });
    assert_eq!(spd.decide(&answer, Inbound), protect);
    assert_eq!(spd.decide(&answer, Outbound), PASS_BY_DEFAULT);
    assert_eq!(spd.decide(&tcp("10.2.0.1", "10.1.0.1", 80), Inbound), PASS_BY_DEFAULT);
}

#[test]
fn every_selector_of_a_policy_counts() {
    let selectors = vec![between("10.1.0.0/16", "10.2.0.0/16"), between("fd01::/64", "fd02::/64")];
    let spd = spd(Rules::new().host("both", selectors, HostAction::Discard));
    let expected = dropped(DropReason::PolicyDiscard, 2);
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound), expected);
    assert_eq!(spd.decide(&tcp("fd01::1", "fd02::1", 80), Outbound), expected);
    assert_eq!(spd.decide(&tcp("fd01::1", "fd03::1", 80), Outbound), PASS_BY_DEFAULT);
}

/// Each interface has an SPD of its own (RFC 4301 4.4.1).
#[test]
fn a_policy_for_one_interface_says_nothing_about_the_others() {
    let all = || between("10.0.0.0/8", "10.0.0.0/8");
    let second = Attachment::new(1);
    let ssh = remote_port(all(), 6, (22, 22));
    let rules = Rules::new().discard("ssh", ssh).on(second).pass("mine", all()).on(Attachment::new(0));
    let spd = spd(rules.discard("rest", all()));
    for (port, interface, expected) in [
        (22, 0, verdict(Decision::Pass, 3)),
        (22, 1, dropped(DropReason::PolicyDiscard, 2)),
        (22, 7, dropped(DropReason::PolicyDiscard, 4)),
        (80, 0, verdict(Decision::Pass, 3)),
        (80, 1, dropped(DropReason::PolicyDiscard, 4)),
    ] {
        let packet = FiveTuple { interface: Attachment::new(interface).unwrap(), ..tcp("10.1.0.1", "10.2.0.1", port) };
        assert_eq!(spd.decide(&packet, Outbound), expected, "port {port}, interface {interface}");
        let fragment = FiveTuple { ports: Ports::Opaque, ..packet };
        assert_eq!(spd.looks_at_ports(&fragment, Outbound), interface == 1);
    }
    assert_eq!(Attachment::new(Attachment::MOST), None);
}

/// RFC 4301 4.4.2.2, PFP 1: the SA's selectors come from the packet, or there is none.
#[test]
fn an_exclusive_policy_needs_to_see_what_the_sa_is_to_be_for() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let t = tunnel("t", "10.77.0.2", nets());
    let spd = spd(Rules::new().protect("each", nets(), &t).exclusive());
    let exclusive = verdict(Decision::ProtectExclusive { tunnel: 0 }, 2);
    let packet = |protocol, ports| tuple("10.1.0.1", "10.2.0.1", protocol, ports);
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound), exclusive);
    assert_eq!(spd.decide(&packet(1, Ports::Icmp { kind: 8, code: 0 }), Outbound), exclusive);
    assert_eq!(spd.decide(&packet(1, Ports::Opaque), Outbound), exclusive);
    assert_eq!(spd.decide(&packet(47, Ports::None), Outbound), exclusive);
    let hidden = dropped(DropReason::FragmentPortsHidden, 2);
    assert_eq!(spd.decide(&packet(17, Ports::Opaque), Outbound), hidden);
    let unnamable = dropped(DropReason::SessionUnnamable, 2);
    assert_eq!(spd.decide(&packet(17, Ports::Pair { source: 0, destination: 80 }), Outbound), unnamable);
    assert_eq!(spd.decide(&packet(0, Ports::None), Outbound), unnamable);
    // Fragments of what has ports wait for the first; those of ICMP need not.
    assert!(spd.looks_at_ports(&packet(17, Ports::Opaque), Outbound));
    assert!(!spd.looks_at_ports(&packet(1, Ports::Opaque), Outbound));
}

/// HP-UX scenario H1: the address is on the bypass list.
#[test]
fn the_bypass_list_comes_before_every_policy_and_means_the_local_address() {
    let rules = Rules::new().bypass("10.1.0.1").discard("all", between("0.0.0.0/0", "0.0.0.0/0")).discard_by_default();
    let spd = spd(rules);
    let bypass = verdict(Decision::Bypass, COOKIE_NONE);
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound), bypass);
    assert_eq!(spd.decide(&tcp("10.2.0.1", "10.1.0.1", 80), Inbound), bypass);
    assert_eq!(spd.decide(&tuple("10.1.0.1", "10.2.0.1", 6, Ports::Opaque), Outbound), bypass);
    // As the remote address it is nothing special.
    assert_eq!(spd.decide(&tcp("10.2.0.1", "10.1.0.1", 80), Outbound), dropped(DropReason::PolicyDiscard, 2));
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 80), Inbound), dropped(DropReason::PolicyDiscard, 2));
}

#[test]
fn what_the_tunnel_does_not_carry_is_dropped_not_passed() {
    let t = tunnel("t", "10.77.0.2", between("10.1.0.0/24", "10.2.0.0/24"));
    let spd = spd(Rules::new().protect("wide", between("10.1.0.0/16", "10.2.0.0/16"), &t));
    let inside = tcp("10.1.0.1", "10.2.0.1", 80);
    let outside = tcp("10.1.9.1", "10.2.0.1", 80);
    assert_eq!(spd.decide(&inside, Outbound), verdict(Decision::Protect { tunnel: 0 }, 2));
    assert_eq!(spd.decide(&outside, Outbound), dropped(DropReason::OutsideTunnelSelector, 2));
    let inbound = tcp("10.2.0.1", "10.1.9.1", 80);
    assert_eq!(spd.decide(&inbound, Inbound), dropped(DropReason::OutsideTunnelSelector, 2));
}

fn fragment() -> FiveTuple {
    tuple("10.1.0.1", "10.2.0.1", 6, Ports::Opaque)
}

#[test]
fn a_fragment_that_could_be_protected_never_passes() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let (t, u) = (tunnel("t", "10.77.0.2", nets()), tunnel("u", "10.77.0.3", nets()));
    let web = || remote_port(nets(), 6, (80, 80));
    let hidden = dropped(DropReason::FragmentPortsHidden, 2);

    // Earlier protect or discard with ports, then pass.
    assert_eq!(spd(Rules::new().protect("web", web(), &t)).decide(&fragment(), Outbound), hidden);
    assert_eq!(spd(Rules::new().discard("web", web())).decide(&fragment(), Outbound), hidden);
    assert_eq!(spd(Rules::new().discard("web", web()).pass("rest", nets())).decide(&fragment(), Outbound), hidden);
    // Inbound alike.
    let inbound = tuple("10.2.0.1", "10.1.0.1", 6, Ports::Opaque);
    assert_eq!(spd(Rules::new().protect("web", web(), &t)).decide(&inbound, Inbound), hidden);
    // Nor may it get into another's tunnel.
    let two = spd(Rules::new().protect("web", web(), &t).protect("rest", nets(), &u));
    assert_eq!(two.decide(&fragment(), Outbound), hidden);
    let discarded = spd(Rules::new().discard("web", web()).protect("rest", nets(), &u));
    assert_eq!(discarded.decide(&fragment(), Outbound), hidden);
    // ICMP types are hidden in the same way.
    let echo = spd(Rules::new().discard("echo", icmp_types(nets(), 1, (8, 8))));
    assert_eq!(echo.decide(&FiveTuple { protocol: 1, ..fragment() }, Outbound), hidden);
}

#[test]
fn a_fragment_goes_where_no_port_could_change_the_answer() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let t = tunnel("t", "10.77.0.2", nets());
    let web = || remote_port(nets(), 6, (80, 80));
    let protect = |cookie| verdict(Decision::Protect { tunnel: 0 }, cookie);

    assert_eq!(spd(Rules::new().protect("all", nets(), &t)).decide(&fragment(), Outbound), protect(2));
    // The same tunnel either way.
    let same = spd(Rules::new().protect("web", web(), &t).protect("rest", nets(), &t));
    assert_eq!(same.decide(&fragment(), Outbound), protect(3));
    // An earlier pass is no reason to drop: protection is stricter.
    let ssh = spd(Rules::new().pass("ssh", web()).protect("rest", nets(), &t));
    assert_eq!(ssh.decide(&fragment(), Outbound), protect(3));
    // Later policies and other protocols, addresses, do not matter.
    let later = spd(Rules::new().pass("all", nets()).discard("web", web()));
    assert_eq!(later.decide(&fragment(), Outbound), verdict(Decision::Pass, 2));
    let udp = spd(Rules::new().discard("dns", remote_port(nets(), 17, (53, 53))));
    assert_eq!(udp.decide(&fragment(), Outbound), PASS_BY_DEFAULT);
    let elsewhere = spd(Rules::new().discard("web", remote_port(between("10.3.0.0/16", "10.2.0.0/16"), 6, (80, 80))));
    assert_eq!(elsewhere.decide(&fragment(), Outbound), PASS_BY_DEFAULT);
}

#[test]
fn a_fragment_does_not_fit_a_tunnel_that_looks_at_ports() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let t = tunnel("t", "10.77.0.2", remote_port(nets(), 6, (80, 80)));
    let spd = spd(Rules::new().protect("all", nets(), &t));
    assert_eq!(spd.decide(&fragment(), Outbound), dropped(DropReason::FragmentPortsHidden, 2));
    let other = tuple("10.1.0.1", "10.2.0.1", 17, Ports::Opaque);
    assert_eq!(spd.decide(&other, Outbound), dropped(DropReason::OutsideTunnelSelector, 2));
}

#[test]
fn where_ports_do_not_matter_fragments_need_not_wait() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let (t, web) = (tunnel("t", "10.77.0.2", nets()), || remote_port(nets(), 6, (80, 80)));
    let asks = |rules: Rules, tuple: &FiveTuple, direction| spd(rules).looks_at_ports(tuple, direction);
    let (out, back) = (tcp("10.1.0.1", "10.2.0.1", 443), tcp("10.2.0.1", "10.1.0.1", 443));
    for (tuple, direction) in [(out, Outbound), (back, Inbound), (fragment(), Outbound)] {
        assert!(asks(Rules::new().protect("web", web(), &t), &tuple, direction), "{tuple}");
        assert!(asks(Rules::new().pass("web", web()).protect("all", nets(), &t), &tuple, direction));
        assert!(!asks(Rules::new().protect("all", nets(), &t), &tuple, direction));
        assert!(!asks(Rules::new().protect("all", nets(), &t).pass("web", web()), &tuple, direction));
        assert!(!asks(Rules::new().bypass("10.1.0.1").protect("web", web(), &t), &tuple, direction));
    }
    let udp = FiveTuple { protocol: 17, ..out };
    assert!(!asks(Rules::new().protect("web", web(), &t), &udp, Outbound));
    let narrow = tunnel("n", "10.77.0.2", web());
    assert!(asks(Rules::new().protect("all", nets(), &narrow), &out, Outbound));
    assert!(!asks(Rules::new().protect("all", nets(), &narrow), &udp, Outbound), "not carried at all");
    assert!(!asks(Rules::new(), &out, Outbound));
}

#[test]
fn a_packet_cut_off_before_its_ports_is_treated_like_a_fragment() {
    let web = remote_port(between("10.1.0.0/16", "10.2.0.0/16"), 6, (80, 80));
    let spd = spd(Rules::new().discard("web", web));
    let cut = tuple("10.1.0.1", "10.2.0.1", 6, Ports::None);
    assert_eq!(spd.decide(&cut, Outbound), dropped(DropReason::FragmentPortsHidden, 2));
    let gre = tuple("10.1.0.1", "10.2.0.1", 47, Ports::None);
    assert_eq!(spd.decide(&gre, Outbound), PASS_BY_DEFAULT);
}

fn icmpv6(kind: u8) -> FiveTuple {
    tuple("fd01::1", "fd02::1", 58, Ports::Icmp { kind, code: 0 })
}

#[test]
fn neighbour_and_listener_discovery_pass_unless_a_policy_names_the_type() {
    let nets = || between("fd01::/64", "fd02::/64");
    let t = tunnel("t", "fd77::2", nets());
    let all = spd(Rules::new().protect("all", nets(), &t).discard_by_default());
    for kind in 0..=255 {
        let expected = match kind {
            130..=137 | 143 => verdict(Decision::Pass, COOKIE_NONE),
            _ => verdict(Decision::Protect { tunnel: 0 }, 2),
        };
        assert_eq!(all.decide(&icmpv6(kind), Outbound), expected, "type {kind}");
    }
    // All types at once is not naming one.
    let icmp_all = spd(Rules::new().discard("icmp", icmp_types(nets(), 58, (0, 255))));
    assert_eq!(icmp_all.decide(&icmpv6(135), Outbound), verdict(Decision::Pass, COOKIE_NONE));
    assert_eq!(icmp_all.decide(&icmpv6(128), Outbound), dropped(DropReason::PolicyDiscard, 2));
    let named = spd(Rules::new().pass("all", nets()).discard("redirect", icmp_types(nets(), 58, (137, 137))));
    assert_eq!(named.decide(&icmpv6(137), Outbound), dropped(DropReason::PolicyDiscard, 3));
    assert_eq!(named.decide(&icmpv6(135), Outbound), verdict(Decision::Pass, COOKIE_NONE));
    // The same numbers mean other things in ICMP for IPv4, and in other protocols.
    let v4 = tuple("10.1.0.1", "10.2.0.1", 58, Ports::Icmp { kind: 135, code: 0 });
    let spd4 = spd(Rules::new().discard_by_default());
    assert_eq!(spd4.decide(&v4, Outbound).decision, Decision::Discard);
    assert_eq!(spd4.decide(&FiveTuple { protocol: 6, ..icmpv6(135) }, Outbound).decision, Decision::Discard);
    assert_eq!(spd4.decide(&FiveTuple { ports: Ports::Opaque, ..icmpv6(135) }, Outbound).decision, Decision::Discard);
}

#[test]
fn tunnels_keep_their_index_over_reloads_and_no_index_is_used_twice() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let named = |names: &[&str]| {
        let all = names.iter().map(|n| tunnel(n, "10.77.0.2", nets()));
        all.fold(Rules::new(), |rules, t| rules.protect(&t.name, nets(), &t)).config()
    };
    let shared = SharedSpd::new(&named(&["a", "b", "c"]));
    let old = shared.load_full();
    assert_eq!(old.epoch(), 1);
    assert_eq!([old.tunnel_index("a"), old.tunnel_index("b"), old.tunnel_index("c")], [Some(0), Some(1), Some(2)]);

    let new = shared.replace(&named(&["d", "c", "a"]));
    assert_eq!(new.epoch(), 2);
    assert_eq!([new.tunnel_index("a"), new.tunnel_index("c")], [Some(0), Some(2)]);
    assert_eq!(new.tunnel_index("d"), Some(3), "not 1, which a worker may still take for b");
    assert_eq!(new.tunnel_index("b"), None);
    assert!(new.tunnel(1).is_none());
    assert!(new.tunnels().map(|(i, t)| (i, t.name.to_string())).eq([
        (0, "a".to_owned()),
        (2, "c".to_owned()),
        (3, "d".to_owned())
    ]));
    // Readers that hold the old snapshot still have it; who loads gets the new one.
    assert_eq!(old.tunnel(1).map(|t| &*t.name), Some("b"));
    assert_eq!(shared.load().epoch(), 2);

    let back = shared.replace(&named(&["b", "e"]));
    assert_eq!([back.tunnel_index("b"), back.tunnel_index("e")], [Some(4), Some(5)]);
    assert_eq!(back.decide(&tcp("10.1.0.1", "10.2.0.1", 1), Outbound).decision, Decision::Protect { tunnel: 4 });
}

#[test]
fn a_tunnel_that_is_another_under_its_old_name_has_another_index() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let config = |t: TunnelPolicy| Rules::new().protect("h", nets(), &Arc::new(t)).config();
    let first = TunnelPolicy::clone(&tunnel("t", "10.77.0.2", nets()));
    let index = |changed: TunnelPolicy| {
        let shared = SharedSpd::new(&config(first.clone()));
        shared.replace(&config(changed)).tunnel_index("t")
    };
    let changes: [fn(&mut TunnelPolicy); 4] = [
        |t| t.tdestination = ip("10.77.0.3"),
        |t| t.tsource = ip("10.77.0.9"),
        |t| t.selector = between("10.1.0.0/16", "10.2.0.0/17"),
        |t| t.transforms.push(EspTransform::parse("aes128-sha1").unwrap()),
    ];
    for change in changes {
        let mut changed = first.clone();
        change(&mut changed);
        assert_eq!(index(changed.clone()), Some(1), "{changed:?}");
    }
    // When it starts, and where it stands in the file, is nothing to its SAs.
    assert_eq!(index(TunnelPolicy { start: StartMode::Boot, line: 99, ..first.clone() }), Some(0));
}

#[test]
fn replacing_from_several_threads_loses_no_epoch() {
    let shared = SharedSpd::new(&Rules::new().config());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    shared.replace(&Rules::new().config());
                }
            });
        }
    });
    assert_eq!(shared.load().epoch(), 201);
}

#[test]
fn a_snapshot_keeps_the_configuration_it_was_made_from() {
    let config = Rules::new().bypass("10.1.0.0/16").discard("d", between("10.1.0.0/16", "10.2.0.0/16")).config();
    let spd = Spd::compile(&config, 9);
    assert!(Arc::ptr_eq(&spd.config().hosts[0], &config.hosts[0]));
    assert_eq!(spd.bypass().ranges(), [range("10.1.0.0/16")]);
}
