//! Negotiations that fail: one line on each side that says with whom, in which
//! exchange, whose fault, both sides' values, and what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::{Command, TunnelState};
use std::time::Duration;
use support::{Side, World, a, b};

/// A initiates; everything has an end within 31 seconds (and a little travel).
fn fail(a: &Side, b: &Side) -> World {
    let mut w = World::new(a, b);
    w.initiate(0);
    w.run(Duration::from_millis(31_500));
    w
}

fn only<'a>(lines: &[&'a str]) -> &'a str {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0]
}

/// The one error of each side, with its HP-UX number; nothing is left of a main mode.
#[track_caller]
fn assert_phase1(w: &World, (number_a, text_a): (u32, &str), (number_b, text_b): (u32, &str)) {
    assert_eq!(only(&w.a().errors()), text_a);
    assert_eq!(only(&w.b().errors()), text_b);
    assert_numbers(w, number_a, number_b);
    assert_eq!(w.a().failed, [("net".to_string(), text_a.to_string())]);
    w.assert_nothing_left();
}

/// The same for a quick mode, after which the ISAKMP SA is kept.
#[track_caller]
fn assert_phase2(w: &World, (number_a, text_a): (u32, &str), (number_b, text_b): (u32, &str)) {
    assert_eq!(only(&w.a().errors()), text_a);
    assert_eq!(only(&w.b().errors()), text_b);
    assert_numbers(w, number_a, number_b);
    for h in &w.hosts {
        assert!(h.pairs.is_empty() && h.engine.pairs().is_empty());
        assert_eq!(h.engine.isakmp_sas().len(), 1, "the ISAKMP SA stays");
        assert!(h.audit.iter().any(|e| e.text.starts_with("MM negotiation complete with the peer")));
    }
    assert_eq!(w.a().engine.tunnels()[0].last_error.as_ref().unwrap().1, text_a);
    assert_eq!(w.b().engine.tunnels()[0].last_error.is_some(), number_b != 443);
}

fn assert_numbers(w: &World, a: u32, b: u32) {
    let number = |h: &support::Host| h.audit.iter().find(|e| e.level == policy::audit::Level::Error).unwrap().number;
    assert_eq!((number(w.a()), number(w.b())), (a, b));
}

fn ike_mismatch(b_accepts: &str, differs: &str) {
    let w = fail(&a(), &Side { ike: b_accepts.into(), ..b() });
    assert_phase1(
        &w,
        (
            413,
            "MM negotiation timeout, src 10.77.0.1, dst 10.77.0.2: main mode with 10.77.0.2/500 as initiator, a \
             mismatch: the peer answered NO-PROPOSAL-CHOSEN, unauthenticated; we offered aes128-sha1-modp2048 (no \
             answer to message 1, sent 6 times: retransmission count exceeded the limit); align `proposals` of ike \
             policy `peer` (line 16) with the peer's",
        ),
        (
            123,
            &format!(
                "local 10.77.0.2/500 - remote 10.77.0.1/500:no proposal chosen: main mode with 10.77.0.1/500 as \
                 responder, a mismatch: we accept {b_accepts}; peer offered aes128-sha1-modp2048: {differs}; align \
                 `proposals` of ike policy `peer` (line 16) with the peer's"
            ),
        ),
    );
}

#[test]
fn encryption_of_main_mode() {
    ike_mismatch("aes256-sha1-modp2048", "encryption differs (rejected encryption: ours:peer = aes256:aes128)");
}

#[test]
fn hash_of_main_mode() {
    ike_mismatch("aes128-sha256-modp2048", "hash differs (rejected hash: ours:peer = sha256:sha1)");
}

#[test]
fn group_of_main_mode() {
    ike_mismatch("aes128-sha1-ecp256", "group differs (rejected group: ours:peer = ecp256:modp2048)");
}

#[test]
fn several_fields_of_main_mode() {
    ike_mismatch(
        "aes256-sha256-modp2048",
        "encryption and hash differ (rejected encryption: ours:peer = aes256:aes128, hash: ours:peer = sha256:sha1)",
    );
}

#[test]
fn the_closest_proposals_are_compared() {
    let w = fail(
        &Side { ike: "aes256-sha256-ecp256,aes128-sha1-modp2048".into(), ..a() },
        &Side { ike: "aes256-sha512-modp3072,aes128-sha256-modp2048".into(), ..b() },
    );
    let line = only(&w.b().errors());
    assert!(line.contains(
        "we accept aes256-sha512-modp3072, aes128-sha256-modp2048; peer offered aes256-sha256-ecp256, \
         aes128-sha1-modp2048: hash differs (rejected hash: ours:peer = sha256:sha1)"
    ));
}

/// Rewrites an attribute of A's proposal on the wire: a peer that offers what A cannot.
fn forge(w: &mut World, from: [u8; 4], to: [u8; 4]) {
    w.wire = Box::new(move |p| {
        let mut p = p.clone();
        if p.from.ip().to_string() == "10.77.0.1" {
            while let Some(at) = p.payload.windows(4).position(|w| w == from) {
                p.payload[at..at + 4].copy_from_slice(&to);
            }
        }
        vec![(support::LATENCY, p)]
    });
}

#[test]
fn authentication_method() {
    let mut w = World::new(&a(), &b());
    forge(&mut w, [0x80, 3, 0, 1], [0x80, 3, 0, 3]);
    w.initiate(0);
    w.seconds(32);
    let line = only(&w.b().errors());
    assert!(
        line.contains(
            "we accept aes128-sha1-modp2048; peer offered aes128-sha1-modp2048 with RSASIG signatures: authentication \
             method differs (rejected authentication method: ours:peer = pre-shared key:RSASIG signatures)"
        ),
        "{line}"
    );
    w.assert_nothing_left();
}

#[test]
fn absurd_lifetime_of_main_mode() {
    let mut w = World::new(&a(), &b());
    forge(&mut w, [0x80, 12, 0x70, 0x80], [0x80, 12, 0, 0]);
    w.initiate(0);
    w.seconds(32);
    let line = only(&w.b().errors());
    assert!(
        line.contains(
            "peer offered aes128-sha1-modp2048 for 0 s: lifetime differs (rejected lifetime: ours:peer = 28800 s:0 s)"
        ),
        "{line}"
    );
    w.assert_nothing_left();
}

#[test]
fn wrong_pre_shared_key() {
    let w = fail(&a(), &Side { psk: "another-key-altogether".into(), ..b() });
    assert_phase1(
        &w,
        (
            413,
            "MM negotiation timeout, src 10.77.0.1, dst 10.77.0.2: main mode with 10.77.0.2/500 as initiator, a \
             mismatch: the peer answered AUTHENTICATION-FAILED, unauthenticated: most likely the pre-shared key \
             differs (no answer to message 5, sent 6 times: retransmission count exceeded the limit); compare the \
             pre-shared key of auth record `peer` (line 21) with the peer's",
        ),
        (
            31,
            "Main Mode processing failed: main mode with 10.77.0.1/500 as responder, a mismatch: the pre-shared key \
             differs: message 5, which depends on it, does not decrypt; compare the pre-shared key of auth record \
             `peer` (line 21) with the peer's, hexadecimal or ASCII, quotes",
        ),
    );
}

#[test]
fn no_pre_shared_key() {
    let mut w = World::new(&a(), &b());
    w.hosts[0].secret = None;
    w.initiate(0);
    w.seconds(1);
    assert_eq!(
        only(&w.a().errors()),
        "Main Mode processing failed: main mode with 10.77.0.2/500 as initiator, our fault: auth record `peer` (line \
         21) has no pre-shared key; give it one with `preshared`"
    );
    w.assert_nothing_left();
}

#[test]
fn the_key_source_does_not_answer() {
    for silent in 0..2 {
        let mut w = World::new(&a(), &b());
        w.hosts[silent].answers = false;
        w.initiate(0);
        w.seconds(32);
        let line = only(&w.hosts[silent].errors());
        assert!(line.contains("our fault: the pre-shared key of auth record `peer` (line 21) did not come"), "{line}");
        w.assert_nothing_left();
    }
}

#[test]
fn a_late_key_is_in_time() {
    for slow in 0..2 {
        let mut w = World::new(&a(), &b());
        w.hosts[slow].answers = false;
        w.initiate(0);
        w.seconds(9);
        let token = w.hosts[slow].pending_tokens[0];
        let secret = w.hosts[slow].secret.clone();
        w.command(slow, Command::Secret { token, secret });
        w.seconds(5);
        w.assert_one_pair();
    }
}

#[test]
fn identity_that_the_responder_does_not_expect() {
    let w = fail(&a(), &Side { auth_extra: "rtype = \"FQDN\"\nrid = \"a.example\"".into(), ..b() });
    assert_phase1(
        &w,
        (
            31,
            "Main Mode processing failed: main mode with 10.77.0.2/500 as initiator, a mismatch: the peer answered \
             INVALID-ID-INFORMATION under the agreed keys: it does not accept our identity 10.77.0.1; compare `lid` \
             of auth record `peer` (line 21) with what the peer expects",
        ),
        (
            31,
            "Main Mode processing failed: main mode with 10.77.0.1/500 as responder, a mismatch: identity: we expect \
             a.example; the peer is 10.77.0.1; set `rid` of auth record `peer` (line 21), or the peer's own identity",
        ),
    );
}

#[test]
fn identity_that_the_initiator_does_not_expect() {
    let w = fail(&Side { auth_extra: "rtype = \"FQDN\"\nrid = \"b.example\"".into(), ..a() }, &b());
    assert_eq!(
        only(&w.a().errors()),
        "Main Mode processing failed: main mode with 10.77.0.2/500 as initiator, a mismatch: identity: we expect \
         b.example; the peer is 10.77.0.2; set `rid` of auth record `peer` (line 21), or the peer's own identity"
    );
    assert_eq!(
        only(&w.b().errors()),
        "Main Mode processing failed: main mode with 10.77.0.1/500 as responder, a mismatch: the peer answered \
         INVALID-ID-INFORMATION under the agreed keys: it does not accept our identity 10.77.0.2; compare `lid` of \
         auth record `peer` (line 21) with what the peer expects"
    );
    w.assert_nothing_left();
}

#[test]
fn silent_peer() {
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|_| Vec::new());
    w.initiate(0);
    w.run(Duration::from_millis(30_900));
    assert!(w.a().errors().is_empty(), "not before 31 seconds");
    w.run(Duration::from_millis(200));
    assert_eq!(
        only(&w.a().errors()),
        "MM negotiation timeout, src 10.77.0.1, dst 10.77.0.2: main mode with 10.77.0.2/500 as initiator, the peer's \
         fault: no answer to message 1, sent 6 times: retransmission count exceeded the limit; we offered \
         aes128-sha1-modp2048; see that the peer runs and UDP port 500 gets through, and compare `proposals` of ike \
         policy `peer` (line 16) with the peer's, which may refuse in silence"
    );
    assert_eq!(w.sent.len(), 6);
    assert_eq!(w.a().engine.next_timeout(), None, "nothing is left to do");
    w.assert_nothing_left();
}

#[test]
fn silence_after_message_1_is_no_error_of_the_responder_for_long() {
    let mut w = World::new(&a(), &b());
    w.wire =
        Box::new(|p| if p.from.ip().to_string() == "10.77.0.1" { vec![(support::LATENCY, p.clone())] } else { vec![] });
    w.initiate(0);
    w.seconds(33);
    let line = only(&w.b().errors());
    assert!(line.contains("message 3 did not come after our message 2"), "{line}");
    w.assert_nothing_left();
}

#[test]
fn encryption_of_quick_mode() {
    let w = fail(&a(), &Side { esp: "aes256-sha1".into(), ..b() });
    assert_phase2(
        &w,
        (
            123,
            "local 10.77.0.1/500 - remote 10.77.0.2/500:no proposal chosen: Quick Mode processing failed: quick mode \
             with 10.77.0.2/500 as initiator, a mismatch: tunnel net: the peer answered NO-PROPOSAL-CHOSEN; we \
             offered aes128-sha1 for 10.78.1.0/24 <=> 10.78.2.0/24; align `action` of tunnel `net` (line 3) with the \
             peer's transforms, and its selectors",
        ),
        (
            123,
            "local 10.77.0.2/500 - remote 10.77.0.1/500:no proposal chosen: Quick Mode processing failed: quick mode \
             with 10.77.0.1/500 as responder, a mismatch: tunnel net: we accept aes256-sha1; peer offered \
             aes128-sha1: encryption differs (rejected encryption: ours:peer = aes256:aes128); align `action` of \
             tunnel `net` (line 3) with the peer's transforms",
        ),
    );
}

#[test]
fn other_fields_of_quick_mode() {
    for (accepts, said) in [
        ("aes128-sha256", "authentication differs (rejected authentication: ours:peer = sha256:sha1)"),
        ("aes128-sha1-modp2048", "PFS group differs (rejected PFS group: ours:peer = modp2048:none)"),
        ("aes128gcm16", "encryption and authentication differ"),
    ] {
        let w = fail(&a(), &Side { esp: accepts.into(), ..b() });
        let line = only(&w.b().errors());
        assert!(line.contains(&format!("we accept {accepts}; peer offered aes128-sha1: {said}")), "{line}");
        assert!(w.b().engine.pairs().is_empty());
    }
}

#[test]
fn selectors_of_quick_mode() {
    let w = fail(&a(), &Side { destination: "10.78.1.0/25", ..b() });
    assert_phase2(
        &w,
        (
            0,
            "Quick Mode processing failed: quick mode with 10.77.0.2/500 as initiator, a mismatch: the peer answered \
             INVALID-ID-INFORMATION: it has no such selectors; our tunnel net: 10.78.1.0/24 <=> 10.78.2.0/24; make \
             source and destination of tunnel `net` (line 3) the mirror image of the peer's",
        ),
        (
            443,
            "can't find matching selector: Quick Mode processing failed: quick mode with 10.77.0.1/500 as responder, \
             a mismatch: our tunnel net: 10.78.2.0/24 <=> 10.78.1.0/25; peer asked for 10.78.2.0/24 <=> 10.78.1.0/24: \
             remote range wider; make source and destination of tunnel `net` (line 3) the mirror image of the peer's",
        ),
    );
}

#[test]
fn no_ike_policy_for_the_peer() {
    let mut w = World::new(&a(), &b());
    let text = b().text().replace("10.77.0.1", "10.77.0.9");
    w.hosts[1] = support::Host::new(support::config(&text), "10.77.0.2", 7, w.now);
    w.initiate(0);
    w.seconds(32);
    assert_eq!(
        only(&w.b().errors()),
        "Main Mode processing failed: main mode with 10.77.0.1/500 as responder, our fault: no ike policy covers \
         10.77.0.1; add one with that `remote`, or stop the peer"
    );
    w.assert_nothing_left();
}

#[test]
fn tunnels_that_cannot_be_initiated_fail_at_once() {
    let mut w = World::new(&Side { tunnel_extra: "start = \"respond\"".into(), ..a() }, &b());
    w.initiate(0);
    w.command(0, Command::Initiate { tunnel: "nowhere".into() });
    let failed: Vec<_> = w.a().failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(failed, ["net", "nowhere"]);
    assert!(w.sent.is_empty());
    assert_eq!(w.a().engine.tunnels()[0].state, TunnelState::Down);
}

#[test]
fn boot_tunnels_try_again_ever_more_slowly() {
    let mut w = World::new(&Side { tunnel_extra: "start = \"boot\"".into(), ..a() }, &b());
    w.wire = Box::new(|_| Vec::new());
    w.seconds(600);
    let attempts = w.a().failed.len();
    assert!((5..=10).contains(&attempts), "{attempts}");
    w.wire = support::lossless();
    w.seconds(400);
    w.assert_one_pair();
}

#[test]
fn without_a_free_spi_there_is_no_new_pair_but_the_old_one_works_on() {
    let short = |side: Side, spis: &str| Side {
        startup: format!("allow_short_lifetimes = true\n{spis}"),
        esp: "aes128-sha1/20".into(),
        ..side
    };
    let mut w = World::new(&short(a(), "spi_min = 300\nspi_max = 300"), &short(b(), ""));
    w.initiate(0);
    w.seconds(5);
    assert_eq!(w.a().current().unwrap().inbound.spi, 300);
    w.seconds(14);
    let errors = w.a().errors();
    assert!(!errors.is_empty(), "it is time for the successor");
    for error in errors {
        assert!(error.contains("all SPIs from `spi_min` 300 to `spi_max` 300 are in use; widen that range"), "{error}");
    }
    assert_eq!(w.a().current().unwrap().inbound.spi, 300);
    // With the pair its SPI goes, and is free again.
    w.seconds(10);
    w.initiate(0);
    w.seconds(5);
    assert_eq!(w.a().current().unwrap().inbound.spi, 300);
}
