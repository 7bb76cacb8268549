//! Explanations: what `ipsec_policy` shows.

mod common;

use common::{Rules, between, icmp_types, remote_port, tcp, tunnel, tuple};
use policy::explain::{Action, DecidedBy, Outcome};
use policy::five_tuple::{Direction, Ports};
use policy::spd::Spd;

use Direction::{Inbound, Outbound};

fn differs(field: &str) -> Outcome {
    Outcome::Differs { field: field.to_owned() }
}

fn spd(rules: Rules) -> Spd {
    Spd::compile(&rules.config(), 1)
}

#[test]
fn each_policy_tried_shows_the_first_field_that_differs() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let t = tunnel("t", "10.77.0.2", nets());
    let rules = Rules::new()
        .pass("source", between("10.9.0.0/16", "10.9.0.0/16"))
        .pass("destination", between("10.1.0.0/16", "10.9.0.0/16"))
        .pass("protocol", remote_port(nets(), 17, (80, 80)))
        .pass("port", remote_port(nets(), 6, (443, 443)))
        .protect("web", nets(), &t)
        .discard("also", nets())
        .pass("not", between("10.3.0.0/16", "10.2.0.0/16"))
        .peer("10.77.0.2", Some(b"0123456789abcdef"));
    let e = spd(rules).explain(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound);
    let outcomes: Vec<_> = e.tried.iter().map(|s| (s.name.as_str(), s.outcome.clone())).collect();
    assert_eq!(
        outcomes,
        [
            ("source", differs("source (local address)")),
            ("destination", differs("destination (remote address)")),
            ("protocol", differs("protocol")),
            ("port", differs("port")),
            ("web", Outcome::Match),
        ]
    );
    assert_eq!(e.decided_by, DecidedBy::Host { name: "web".into() });
    assert_eq!((e.action, e.cookie, e.drop_reason.as_deref()), (Action::Secure, 6, None));
    assert_eq!(e.overridden, ["also"]);
    let step = &e.tried[4];
    assert_eq!((step.priority, step.cookie, step.line), (50, 6, 35));
    assert_eq!(step.selectors, ["10.1.0.0/16 <=> 10.2.0.0/16"]);
    let t = e.tunnel.unwrap();
    assert_eq!((t.name.as_str(), t.outcome), ("t", Outcome::Match));
    assert_eq!(t.ike_policy.unwrap().name, "ike-10.77.0.2");
    let auth = t.auth_record.unwrap();
    assert_eq!((auth.local_id.as_str(), auth.remote_id.as_str()), ("10.77.0.1", "10.77.0.2"));
    assert_eq!(
        e.summary,
        [
            "host policy `web` decides",
            "it is protected in tunnel `t` to 10.77.0.2",
            "negotiated with IKE policy `ike-10.77.0.2` and authentication record `auth-10.77.0.2`",
            "covering it too, but not asked: `also`",
        ]
    );
}

#[test]
fn the_default_policy_and_the_bypass_list() {
    let rules = || Rules::new().discard("d", between("10.1.0.0/16", "10.2.0.0/16"));
    let e = spd(rules()).explain(&tcp("10.5.0.1", "10.2.0.1", 80), Outbound);
    assert_eq!((e.decided_by, e.action, e.cookie), (DecidedBy::Default, Action::Pass, 1));
    assert_eq!(e.tried.len(), 1);

    let e = spd(rules().bypass("10.1.0.0/24")).explain(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound);
    assert_eq!(e.decided_by, DecidedBy::Bypass { range: "10.1.0.0/24".into() });
    assert_eq!((e.action, e.cookie, e.tried.len()), (Action::Pass, 0, 0));
    assert_eq!(e.overridden, ["d"], "what the hole lets through is named");
}

#[test]
fn inbound_says_what_becomes_of_clear_text() {
    let nets = between("10.1.0.0/16", "10.2.0.0/16");
    let t = tunnel("t", "10.77.0.2", nets.clone());
    let e = spd(Rules::new().protect("web", nets, &t)).explain(&tcp("10.2.0.1", "10.1.0.1", 80), Inbound);
    assert_eq!((e.action, e.direction.as_str()), (Action::Secure, "inbound"));
    assert!(e.summary[1].contains("in the clear it is dropped (clear_text_protected)"), "{:?}", e.summary);
    assert!(e.summary[2].contains("no IKE policy is for 10.77.0.2"), "{:?}", e.summary);
}

#[test]
fn a_missing_key_is_said() {
    let nets = between("10.1.0.0/16", "10.2.0.0/16");
    let t = tunnel("t", "10.77.0.2", nets.clone());
    let rules = Rules::new().protect("web", nets, &t).peer("10.77.0.2", None);
    let e = spd(rules).explain(&tcp("10.1.0.1", "10.2.0.1", 80), Outbound);
    assert!(e.summary[2].contains("`auth-10.77.0.2` has no key"), "{:?}", e.summary);
}

#[test]
fn drops_say_why() {
    let nets = || between("10.1.0.0/16", "10.2.0.0/16");
    let narrow = tunnel("t", "10.77.0.2", between("10.1.0.0/24", "10.2.0.0/16"));
    let e = spd(Rules::new().protect("wide", nets(), &narrow)).explain(&tcp("10.1.9.1", "10.2.0.1", 80), Outbound);
    assert_eq!((e.action, e.drop_reason.as_deref()), (Action::Discard, Some("outside_tunnel_selector")));
    assert_eq!(e.tunnel.unwrap().outcome, differs("source (local address)"));
    assert!(e.summary[1].contains("10.1.0.0/24 <=> 10.2.0.0/16"), "{:?}", e.summary);

    let rules = Rules::new().discard("web", remote_port(nets(), 6, (80, 80))).pass("rest", nets());
    let fragment = tuple("10.1.0.1", "10.2.0.1", 6, Ports::Opaque);
    let e = spd(rules).explain(&fragment, Outbound);
    assert_eq!(e.drop_reason.as_deref(), Some("fragment_ports_hidden"));
    assert_eq!(e.decided_by, DecidedBy::Host { name: "web".into() });
    assert_eq!(e.tried[0].outcome, Outcome::PortsHidden);
    assert_eq!(e.tried[1].outcome, Outcome::Match);
}

#[test]
fn link_control_is_explained() {
    let nets = || between("fd01::/64", "fd02::/64");
    let packet = tuple("fd01::1", "fd02::1", 58, Ports::Icmp { kind: 135, code: 0 });
    let e = spd(Rules::new().discard("all", nets()).discard_by_default()).explain(&packet, Outbound);
    assert_eq!((e.decided_by, e.action, e.cookie), (DecidedBy::LinkControl, Action::Pass, 0));
    assert_eq!(e.tried[0].outcome, Outcome::TypeNotNamed);

    let named = Rules::new()
        .discard("all", nets())
        .discard("echo", icmp_types(nets(), 58, (128, 128)))
        .discard("ns", icmp_types(nets(), 58, (135, 135)));
    let e = spd(named).explain(&packet, Outbound);
    assert_eq!(e.decided_by, DecidedBy::Host { name: "ns".into() });
    let outcomes: Vec<_> = e.tried.into_iter().map(|s| s.outcome).collect();
    assert_eq!(outcomes, [Outcome::TypeNotNamed, differs("ICMP type or code"), Outcome::Match]);
}

/// HP-UX: a bypass entry for one of our addresses makes policies that protect it ineffective, and ipsec_policy says so.
#[test]
fn a_bypass_that_makes_a_protecting_policy_ineffective_is_warned_of() {
    for (ours, theirs, one, other) in
        [("10.1.0.0/16", "10.2.0.0/16", "10.1.0.7", "10.2.0.1"), ("fd01::/64", "fd02::/64", "fd01::7", "fd02::1")]
    {
        let t = tunnel("t", "10.77.0.2", between(ours, theirs));
        let elsewhere = if one.contains(':') { "fd09::1" } else { "10.9.0.1" };
        let spd = spd(Rules::new()
            .bypass(one)
            .bypass("192.0.2.1")
            .protect("site", between(ours, theirs), &t)
            .pass("rest", between(ours, elsewhere)));
        // Its own packet, either way: local is the source of what leaves, the destination of what comes.
        for (packet, direction) in [(tcp(one, other, 80), Outbound), (tcp(other, one, 80), Inbound)] {
            let e = spd.explain(&packet, direction);
            assert_eq!((e.decided_by.clone(), e.action), (DecidedBy::Bypass { range: one.into() }, Action::Pass));
            let [warning] = &e.warnings[..] else { panic!("{:?}", e.warnings) };
            for words in ["bypass ", one, "ineffective for this packet", "`site` (line 7)", "tunnel `t`"] {
                assert!(warning.contains(words), "{words} is not in {warning}");
            }
        }
        // Another packet of the same policy is protected, and the hole is told of.
        let neighbour = one.replace('7', "8");
        let e = spd.explain(&tcp(&neighbour, other, 80), Outbound);
        assert_eq!(e.action, Action::Secure);
        let hole = format!(
            "bypass {one}: traffic of {one} goes in the clear, although host policy `site` (line 7) puts it in tunnel `t`"
        );
        assert_eq!(e.warnings, [hole]);
        // The remote address may be on the list, it is not ours; and what no tunnel would take is nobody's loss.
        assert_eq!(spd.explain(&tcp(other, one, 80), Outbound).warnings, [""; 0]);
        assert_eq!(spd.explain(&tcp(one, elsewhere, 80), Outbound).warnings, [""; 0]);
    }
}
