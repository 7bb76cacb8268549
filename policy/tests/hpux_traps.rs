//! HP-UX scenarios H1, H2 and H10 from the configuration to the verdict: what
//! surprises people, and must go on doing what the manual says.

mod common;

use common::{tcp, tuple};
use policy::config::Config;
use policy::counters::DropReason;
use policy::explain::{Action, DecidedBy, Explanation};
use policy::five_tuple::{Direction, FiveTuple, Ports};
use policy::spd::{Decision, Spd};

const TUNNEL: &str = r#"
    [[tunnel]]
    name = "t"
    tsource = "10.77.0.1"
    tdestination = "10.77.0.2"
    source = "10.1.0.0/16"
    destination = "10.2.0.0/16"
    action = "aes128-sha1-modp2048/3600"

    [[ike]]
    name = "peer"
    remote = "10.77.0.2"
    proposals = ["aes128-sha1-modp2048"]

    [[auth]]
    name = "peer"
    remote = "10.77.0.2"
    preshared = "a-key-of-some-length-for-a-test"
"#;

fn spd(text: &str) -> Spd {
    let text = format!("{text}\n{TUNNEL}");
    match Config::parse(&text, "test.toml") {
        Ok(checked) => Spd::compile(&checked.config, 1),
        Err(diagnostics) => panic!("{diagnostics:?}"),
    }
}

fn web() -> FiveTuple {
    tcp("10.1.0.1", "10.2.0.1", 80)
}

fn explain(spd: &Spd) -> Explanation {
    spd.explain(&web(), Direction::Outbound)
}

#[test]
fn an_omitted_action_drops_and_no_match_passes() {
    let spd = spd(r#"
        [[host]]
        name = "forgotten"
        source = "10.1.0.0/16"
        destination = "10.2.0.0/16"
    "#);
    let v = spd.decide(&web(), Direction::Outbound);
    assert_eq!((v.decision, v.reason), (Decision::Discard, Some(DropReason::PolicyDiscard)));
    let elsewhere = spd.decide(&tcp("10.1.0.1", "10.3.0.1", 80), Direction::Outbound);
    assert_eq!((elsewhere.decision, elsewhere.cookie), (Decision::Pass, 1));
}

#[test]
fn priority_not_the_order_of_the_file_decides() {
    let with = |pass: u32, protect: u32| {
        spd(&format!(
            r#"
            [[host]]
            name = "pass"
            source = "10.0.0.0/8"
            destination = "10.0.0.0/8"
            action = "PASS"
            priority = {pass}

            [[host]]
            name = "protect"
            source = "10.1.0.0/16"
            destination = "10.2.0.0/16"
            tunnel = "t"
            priority = {protect}
            "#
        ))
    };
    // H10: the unwanted policy is searched first; the explanation names the one it hides.
    let wrong = explain(&with(10, 20));
    assert_eq!((wrong.action, wrong.decided_by), (Action::Pass, DecidedBy::Host { name: "pass".into() }));
    assert_eq!(wrong.overridden, ["protect"]);
    let right = explain(&with(20, 10));
    assert_eq!((right.action, right.decided_by), (Action::Secure, DecidedBy::Host { name: "protect".into() }));
    let tunnel = right.tunnel.unwrap();
    assert_eq!(tunnel.transforms, ["ESP_AES128_HMAC_SHA1/3600/0 (aes128-sha1-modp2048)"]);
    assert_eq!(tunnel.ike_policy.unwrap().proposals, ["aes128-sha1-modp2048"]);
    assert!(tunnel.auth_record.unwrap().preshared);
}

/// H1: protected on paper, clear on the wire. The cookie leads to the reason.
#[test]
fn a_mistyped_address_leaves_it_to_the_default_policy() {
    let e = explain(&spd(r#"
        [[host]]
        name = "protect"
        source = "10.1.0.0/16"
        destination = "10.3.0.0/16"
        tunnel = "t"
    "#));
    assert_eq!((e.action, e.decided_by, e.cookie), (Action::Pass, DecidedBy::Default, 1));
    let shown = format!("{:?}", e.tried[0].outcome);
    assert!(shown.contains("destination (remote address)"), "{shown}");
}

#[test]
fn the_bypass_list_hollows_a_policy_out() {
    let text = |bypass: &str| {
        format!(
            r#"
            {bypass}
            [[host]]
            name = "protect"
            source = "10.1.0.0/16"
            destination = "10.2.0.0/16"
            tunnel = "t"
            "#
        )
    };
    assert_eq!(explain(&spd(&text(""))).action, Action::Secure);
    let e = explain(&spd(&text("[[bypass]]\naddress = \"10.1.0.1\"")));
    assert_eq!((e.action, e.decided_by), (Action::Pass, DecidedBy::Bypass { range: "10.1.0.1".into() }));
    assert_eq!(e.overridden, ["protect"]);
}

/// H2: what should be clear is protected, and the peer does not know how.
#[test]
fn a_pass_for_one_port_before_the_tunnel() {
    let spd = spd(r#"
        [[host]]
        name = "ssh"
        source = "10.1.0.0/16"
        destination = "10.2.0.0/16/22"
        protocol = "TCP"
        action = "PASS"

        [[host]]
        name = "protect"
        source = "10.1.0.0/16"
        destination = "10.2.0.0/16"
        tunnel = "t"
    "#);
    assert_eq!(spd.decide(&tcp("10.1.0.1", "10.2.0.1", 22), Direction::Outbound).decision, Decision::Pass);
    let protect = Decision::Protect { tunnel: 0 };
    assert_eq!(spd.decide(&web(), Direction::Outbound).decision, protect);
    let fragment = tuple("10.1.0.1", "10.2.0.1", 6, Ports::Opaque);
    assert_eq!(spd.decide(&fragment, Direction::Outbound).decision, protect);
}

#[test]
fn a_default_policy_of_discard_closes_the_host() {
    let spd = spd("[default]\naction = \"DISCARD\"");
    let v = spd.decide(&web(), Direction::Inbound);
    assert_eq!((v.decision, v.cookie), (Decision::Discard, 1));
}
