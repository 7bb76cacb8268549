//! Raw ESP (IP protocol 50) with a scapy end point, negotiated with strongSwan.

use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture, Kind};
use tests::cases::{CASES, Case};
use tests::endpoint;
use tests::lab::Lab;
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

const NEEDS: [Need; 4] = [Need::StrongSwan, Need::Capture, Need::Scapy, Need::Cc];

fn case(name: &str) -> Case {
    *CASES.iter().find(|c| c.name == name).expect("a row of that name")
}

fn exchange(case: Case) {
    let Some(lab) = Lab::open(&format!("raw-{}", case.name), 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, case), &Esp::Shim(endpoint::shim(&lab)));
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, case)));
    let wire = Capture::start(a, "outer");

    let echo = endpoint::echo(b);
    traffic::ping_all(a, b, 3);
    let pairs = caponier.pairs("to_b");
    assert_eq!(pairs, swan.pairs().into_iter().map(|(i, o)| (o, i)).collect::<Vec<_>>());
    for sa in caponier.report("sad") {
        assert!(sa["udp_encapsulation"].is_null(), "no NAT, no UDP: {sa}");
        assert_eq!(sa["esn"].as_bool(), Some(case.esp.ends_with("-esn")), "{sa}");
    }
    drop(echo);
    // The end point counts sequence numbers from 1: its pings go through another pair.
    swan.rekey_child();
    endpoint::ping(b, a);

    let frames = wire.stop();
    if case.esp.contains("gmac") {
        // It only authenticates: what is inside is there to read, but not as a packet of its own.
        assert!(!capture::census(&frames).contains_key(&Kind::Clear), "{:?}", capture::census(&frames));
    } else {
        capture::assert_protected(&frames, a, b, b"endpoint");
    }
    let census = capture::census(&frames);
    assert!(census.get(&Kind::Esp) >= Some(&12), "{census:?}");
    assert_eq!(census.get(&Kind::NatTraversal), None, "{census:?}");
}

#[test]
fn aes_cbc_sha1() {
    exchange(case("aes128-modp2048"));
}

#[test]
fn aes_cbc_sha256() {
    exchange(case("aes256-modp2048"));
}

#[test]
fn aes_gcm() {
    exchange(case("gcm128"));
}

#[test]
fn triple_des() {
    exchange(case("3des-modp1024"));
}

#[test]
fn extended_sequence_numbers() {
    exchange(Case { name: "esn-cbc", ike: "aes128-sha256-modp2048", esp: "aes128-sha256-esn" });
    exchange(Case { name: "esn-gcm", ike: "aes128-sha256-modp2048", esp: "aes256gcm16-esn" });
}

#[test]
fn aes_ccm() {
    exchange(Case { name: "ccm16", ike: "aes128-sha256-modp2048", esp: "aes128ccm16" });
    exchange(Case { name: "ccm8", ike: "aes128-sha256-modp2048", esp: "aes256ccm8-ecp256" });
}

#[test]
fn aes_gmac() {
    exchange(Case { name: "gmac", ike: "aes128-sha256-modp2048", esp: "aes256gmac" });
}
