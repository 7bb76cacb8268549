//! The lab, proven without Caponier: two strongSwans through it.

use tests::capture::{self, Capture, Kind};
use tests::cases::PLAIN;
use tests::endpoint;
use tests::lab::Lab;
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};

#[test]
fn two_strongswans() {
    let Some(lab) = Lab::open("two_strongswans", 2, &[Need::StrongSwan, Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let wire = Capture::start_headers(a, "outer");
    let responder = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let initiator = StrongSwan::start(a, &Connection::new(a, b, PLAIN), &Esp::UserSpace);
    initiator.initiate();
    traffic::ping_all(a, b, 3);
    let (spi_in, spi_out) = initiator.pairs()[0];
    assert_eq!(responder.pairs(), [(spi_out, spi_in)], "SPIs mirror");
    assert_eq!(responder.isakmp_sas(), 1);

    let transfer = Transfer::start(a, a.inner(), b, b.inner(), 5_000_000);
    transfer.advance(1_000_000);
    initiator.rekey_child();
    transfer.advance(1_000_000);
    let (got_a, got_b) = transfer.finish();
    assert!(got_a >= 5_000_000 && got_b >= 5_000_000);
    assert_ne!(initiator.pairs().last(), Some(&(spi_in, spi_out)), "another pair after the rekey");

    responder.terminate_ike();
    assert!(initiator.pairs().is_empty(), "{}", initiator.sas());
    let frames = wire.stop();
    capture::assert_protected(&frames, a, b, b"");
    let census = capture::census(&frames);
    assert!(census.get(&Kind::Ike) >= Some(&4), "{census:?}");
    assert!(census.get(&Kind::NatTraversal) >= Some(&1000), "{census:?}");
}

/// The check that everything else relies on: a capture of clear-text fails it.
#[test]
fn clear_text_on_the_wire_is_found() {
    let Some(lab) = Lab::open("clear_text", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    for (host, peer) in [(a, b), (b, a)] {
        host.run(10, "ip", &["route", "add", &peer.network(), "via", &peer.outer().to_string()]).ok("a route");
    }
    let wire = Capture::start(a, "outer");
    traffic::ping_all(a, b, 1);
    let frames = wire.stop();
    let verdict = std::panic::catch_unwind(|| capture::assert_protected(&frames, a, b, b""));
    assert!(verdict.is_err(), "clear-text passed for protected: {:?}", capture::census(&frames));
}

/// Raw ESP: both data paths are scapy, both negotiators are charon.
#[test]
fn two_scapy_end_points() {
    let needs = [Need::StrongSwan, Need::Capture, Need::Scapy, Need::Cc];
    let Some(lab) = Lab::open("two_scapy_end_points", 2, &needs) else { return };
    let (a, b) = (lab.a(), lab.b());
    let wire = Capture::start(a, "outer");
    let esp = Esp::Shim(endpoint::shim(&lab));
    let responder = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &esp);
    let initiator = StrongSwan::start(a, &Connection::new(a, b, PLAIN), &esp);
    initiator.initiate();
    assert_eq!(responder.pairs().len(), 1);
    let _echo = endpoint::echo(b);
    endpoint::ping(a, b);
    let frames = wire.stop();
    capture::assert_protected(&frames, a, b, b"endpoint");
    assert_eq!(capture::census(&frames).get(&Kind::Esp), Some(&6));
}
