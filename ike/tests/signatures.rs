//! Main mode with signatures (RFC 2409 5.1, RFC 4754) between two engines, whose
//! questions about keys and certificates the test answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::report::IsakmpState;
use policy::audit::Level;
use policy::config::{AuthMethod, Config};
use policy::trust::{CertificateName, Distrust, Refusal};
use std::sync::Arc;
use std::time::Duration;
use support::{LATENCY, Side, Signer, World, a, b};

/// Types of payloads (RFC 2408 3.1).
const CERTIFICATE: u8 = 6;
const CERTIFICATE_REQUEST: u8 = 7;
const AUTHORITY: &[u8] = b"an encoded name";

/// A side with certificates; `method` as the configuration writes it.
fn with_certificates(side: Side, method: &str) -> Side {
    let files = "certificate = \"/c.pem\"\nca = \"/ca.pem\"\ncrl_policy = \"relaxed\"\n";
    Side { auth_extra: format!("{files}method = {method}\n{}", side.auth_extra), ..side }
}

/// What the daemon adds once it has read the files.
fn loaded(side: &Side) -> Arc<Config> {
    let mut config = (*side.config()).clone();
    for auth in &mut config.auths {
        Arc::make_mut(auth).authorities = vec![AUTHORITY.to_vec()];
    }
    Arc::new(config)
}

fn world(a: &Side, b: &Side, signer: fn(&str) -> Signer) -> World {
    let mut world = World::of(&[(loaded(a), a.me), (loaded(b), b.me)], 1);
    for (host, name) in [(0, "a"), (1, "b")] {
        world.hosts[host].signer = Some(signer(name));
    }
    world
}

/// Both sides with one method.
fn alike(method: &str, signer: fn(&str) -> Signer) -> World {
    world(&with_certificates(a(), method), &with_certificates(b(), method), signer)
}

/// Types of the payloads of a message in the clear.
fn payloads(message: &[u8]) -> Vec<u8> {
    let (mut kind, mut at, mut out) = (message[16], 28, Vec::new());
    while kind != 0 {
        out.push(kind);
        kind = message[at];
        at += usize::from(u16::from_be_bytes([message[at + 2], message[at + 3]]));
    }
    out
}

#[test]
fn signatures_authenticate_both_sides() {
    for (method, signer, negotiated) in [
        ("ECDSA256", Signer::p256 as fn(&str) -> Signer, "aes128-sha1-modp2048"),
        // The signature has a hash of its own, whatever was negotiated.
        ("ECDSA384", Signer::p384, "aes256-sha256-ecp256"),
        ("ECDSA384", Signer::p384, "aes128-sha512-x25519"),
    ] {
        let [mut left, mut right] = [a(), b()].map(|side| with_certificates(side, &format!("\"{method}\"")));
        left.ike = negotiated.into();
        right.ike = negotiated.into();
        let mut w = world(&left, &right, signer);
        w.initiate(0);
        w.seconds(2);
        w.assert_one_pair();
        // A responder judges before it says who it is.
        assert_eq!((&w.a().asked[..], &w.b().asked[..]), (&["sign", "judge"][..], &["judge", "sign"][..]));
        for (host, peer) in [(0, "b"), (1, "a")] {
            let sa = &w.hosts[host].engine.isakmp_sas()[0];
            assert_eq!(sa.state, IsakmpState::Mature);
            assert!(matches!(sa.method, Some(AuthMethod::Signature(row)) if row.hpux == method));
            let certificate = sa.peer_certificate.as_ref().unwrap();
            assert_eq!(certificate.subject, format!("certificate of {peer}"));
            let done = w.hosts[host].lines(Level::Informative);
            assert!(done.iter().any(|l| l.contains("negotiation complete") && l.contains("serial 0x01")), "{done:?}");
            let remarks = w.hosts[host].lines(Level::Warning);
            assert!(remarks.iter().any(|l| l.contains("no CRL") && l.contains("is accepted")), "{remarks:?}");
            assert!(w.hosts[host].errors().is_empty());
        }
        // RFC 2409 5.1: certificates only under the keys, so nobody else sees who talks.
        let main_mode: Vec<_> = w.sent.iter().map(|(_, p)| p.message().to_vec()).filter(|m| m[18] == 2).collect();
        assert_eq!(main_mode.len(), 6);
        for message in &main_mode[..4] {
            assert!(!payloads(message).contains(&CERTIFICATE));
        }
        for message in &main_mode[2..4] {
            assert!(payloads(message).contains(&CERTIFICATE_REQUEST));
            assert!(message.windows(AUTHORITY.len()).any(|w| w == AUTHORITY), "for the authority that we believe");
        }
        assert!(main_mode[4..].iter().all(|m| m[19] & 1 == 1), "the last two are encrypted");
    }
}

#[test]
fn the_first_common_method_is_used() {
    let both = |side| with_certificates(side, "[\"ECDSA256\", \"PSK\"]");
    let keyed = |side| with_certificates(side, "[\"PSK\", \"ECDSA256\"]");
    let method = |a: &Side, b: &Side| {
        let mut w = world(a, b, Signer::p256);
        w.initiate(0);
        w.seconds(2);
        w.assert_one_pair();
        w.b().engine.isakmp_sas()[0].method.unwrap().to_string()
    };
    assert_eq!(method(&both(a()), &both(b())), "ECDSA256");
    assert_eq!(method(&keyed(a()), &both(b())), "PSK", "the initiator's order decides");
    assert_eq!(method(&both(a()), &b()), "PSK", "a peer without certificates");
    assert_eq!(method(&a(), &both(b())), "PSK");
    let narrowed = Side { ike_extra: "auth = \"PSK\"".into(), ..both(a()) };
    assert_eq!(method(&narrowed, &both(b())), "PSK", "the ike policy narrows it");
}

/// Two peers send the same message 1, and the same policy chooses, but by different records.
#[test]
fn the_record_of_a_peer_counts_not_that_of_another() {
    let offers = |me: &'static str, source: &'static str| {
        let side = with_certificates(a(), "[\"ECDSA256\", \"PSK\"]");
        Side { me, source, ..side }
    };
    let (first, second) = (offers("10.77.0.1", "10.78.1.0/24"), offers("10.77.0.3", "10.78.3.0/24"));
    let to_second = Side { peer: "10.77.0.3", destination: "10.78.3.0/24", ..with_certificates(b(), "\"ECDSA256\"") };
    let more =
        to_second.text().replace("\"net\"", "\"second\"").replace("\"h\"", "\"h2\"").replace("\"peer\"", "\"peer2\"");
    // One policy for both.
    let (before, rest) = more.split_once("[[ike]]").unwrap();
    let more = format!("{}[[auth]]{}", before.replace("[startup]", ""), rest.split_once("[[auth]]").unwrap().1);
    let text =
        b().text().replacen("remote = \"10.77.0.1\"\nproposals", "remote = \"10.77.0.0/24\"\nproposals", 1) + &more;
    let mut both = (*support::config(&text)).clone();
    for auth in &mut both.auths {
        Arc::make_mut(auth).authorities = vec![AUTHORITY.to_vec()];
    }
    let hosts = [(loaded(&first), first.me), (Arc::new(both), "10.77.0.2"), (loaded(&second), second.me)];
    let mut w = World::of(&hosts, 1);
    for (host, name) in [(0, "a"), (1, "b"), (2, "c")] {
        w.hosts[host].signer = Some(Signer::p256(name));
    }
    w.initiate(0);
    w.seconds(2);
    w.initiate(2);
    w.seconds(2);
    let method = |host: usize| w.hosts[host].engine.isakmp_sas()[0].method.map(|m| m.to_string());
    assert_eq!((method(0).as_deref(), method(2).as_deref()), (Some("PSK"), Some("ECDSA256")), "{}", w.story());
    assert_eq!(w.b().engine.pairs().len(), 2);
}

#[test]
fn no_common_method_is_named() {
    let mut w = world(&with_certificates(a(), "\"ECDSA256\""), &b(), Signer::p256);
    w.initiate(0);
    w.seconds(40);
    w.assert_nothing_left();
    let error = w.b().errors()[0];
    assert!(error.contains("ECDSA256 signatures") && error.contains("pre-shared key"), "{error}");
    assert!(error.contains("authentication method differs"), "{error}");
}

fn refusal(distrust: Distrust) -> Refusal {
    Refusal {
        distrust,
        certificate: Some(Box::new(CertificateName {
            subject: "CN=gateway".into(),
            serial: "0badcafe".into(),
            issuer: "CN=authority".into(),
        })),
        detail: "the very reason".into(),
        remedy: "the very remedy".into(),
    }
}

/// Each refusal is one line by name on the side that refuses, with the certificate and the
/// reason, and one on the other, which was told.
#[test]
fn refusals_have_names_on_both_sides() {
    for distrust in Distrust::ALL {
        for refusing in [0, 1] {
            let mut w = alike("\"ECDSA256\"", Signer::p256);
            w.hosts[refusing].signer.as_mut().unwrap().refusal = Some(refusal(distrust));
            w.initiate(0);
            w.seconds(3);
            let ours = w.hosts[refusing].errors();
            assert_eq!(ours.len(), 1, "{distrust}: {ours:?}");
            assert!(ours[0].starts_with(&format!("Main Mode processing failed: {distrust}: ")), "{}", ours[0]);
            for words in ["CN=gateway", "serial 0x0badcafe", "CN=authority", "the very reason", "the very remedy"] {
                assert!(ours[0].contains(words), "{distrust}: {}", ours[0]);
            }
            let theirs = w.hosts[1 - refusing].errors();
            assert_eq!(theirs.len(), 1, "{distrust}: {theirs:?}");
            let told = theirs[0].contains(&distrust.to_string()) && theirs[0].contains("under the agreed keys");
            assert!(told, "{}", theirs[0]);
            // What a peer is told does not hold what only we know.
            let secret = matches!(distrust, Distrust::WrongIdentity | Distrust::NotJudged | Distrust::UnknownAuthority);
            assert_eq!(theirs[0].contains("the very reason"), !secret, "{}", theirs[0]);
            assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
            w.seconds(60);
            w.assert_nothing_left();
        }
    }
}

#[test]
fn a_signature_of_another_key_is_refused() {
    for forger in [0, 1] {
        let mut w = alike("\"ECDSA256\"", Signer::p256);
        // It signs with a key of its own, under the other's name.
        let key = w.hosts[forger].signer.as_mut().unwrap();
        let last = key.private.len() - 13;
        key.private[last] ^= 1;
        w.initiate(0);
        w.seconds(60);
        let errors = w.hosts[1 - forger].errors();
        assert!(errors[0].contains("bad signature"), "{errors:?}");
        w.assert_nothing_left();
    }
}

/// The hash covers the whole negotiation: what somebody between the two changed comes out.
#[test]
fn a_message_changed_on_the_way_is_noticed() {
    let mut w = alike("\"ECDSA256\"", Signer::p256);
    w.wire = Box::new(|packet| {
        let mut packet = packet.clone();
        let message = packet.payload.clone();
        // The lifetime in the transform of message 1, which the responder takes as it is.
        if message[18] == 2 && message[8..16] == [0; 8] {
            let lifetime = 28_800_u16.to_be_bytes();
            let at = message.windows(2).position(|w| w == lifetime).unwrap();
            packet.payload[at] ^= 1;
        }
        vec![(LATENCY, packet)]
    });
    w.initiate(0);
    w.seconds(60);
    assert!(w.b().errors().iter().any(|e| e.contains("bad signature")), "{}", w.story());
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    w.assert_nothing_left();
}

#[test]
fn without_a_signature_of_ours_there_is_no_negotiation() {
    for broken in [0, 1] {
        let mut w = alike("\"ECDSA256\"", Signer::p256);
        w.hosts[broken].signer.as_mut().unwrap().broken = Some("the key is on holiday".into());
        w.initiate(0);
        w.seconds(60);
        let errors = w.hosts[broken].errors();
        assert!(errors[0].contains("our fault") && errors[0].contains("the key is on holiday"), "{errors:?}");
        assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
        w.assert_nothing_left();
    }
}

/// Whoever answers may take its time, or never come: the negotiation ends by its own.
#[test]
fn answers_that_never_come() {
    for silent in [0, 1] {
        let mut w = alike("\"ECDSA256\"", Signer::p256);
        w.hosts[silent].signer.as_mut().unwrap().answers = false;
        w.initiate(0);
        w.seconds(90);
        let errors = w.hosts[silent].errors();
        assert!(errors.iter().any(|e| e.contains("did not come in time")), "{silent}: {errors:?}");
        w.assert_nothing_left();
    }
}

/// A late answer belongs to nothing any more.
#[test]
fn answers_out_of_turn_change_nothing() {
    let mut w = alike("\"ECDSA256\"", Signer::p256);
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    for token in 0..10 {
        for host in [0, 1] {
            w.command(host, ike::Command::Signed { token, signed: Err("no".into()) });
            w.command(host, ike::Command::Signed { token, signed: Ok((Vec::new(), vec![1])) });
            w.command(host, ike::Command::Judged { token, verdict: Err(refusal(Distrust::Revoked)) });
        }
    }
    w.seconds(5);
    w.assert_one_pair();
    assert!(w.a().errors().is_empty() && w.b().errors().is_empty());
}

/// Lost and repeated messages end in the same: one pair, one question of each kind.
#[test]
fn loss_and_repetition() {
    for lost in 0..6 {
        let mut w = alike("\"ECDSA256\"", Signer::p256);
        let mut nth = 0;
        w.wire = Box::new(move |packet| {
            nth += 1;
            let twice = vec![(LATENCY, packet.clone()), (LATENCY * 3, packet.clone())];
            if nth == lost + 1 { Vec::new() } else { twice }
        });
        w.initiate(0);
        w.run(Duration::from_secs(20));
        w.assert_one_pair();
        assert_eq!((w.a().asked.len(), w.b().asked.len()), (2, 2), "message {lost} lost: {}", w.story());
    }
}

#[test]
fn the_identity_must_be_the_expected_one() {
    let left = with_certificates(a(), "\"ECDSA256\"");
    let left = Side { auth_extra: format!("{}ltype = \"FQDN\"\nlid = \"a.lab\"\n", left.auth_extra), ..left };
    let right = with_certificates(b(), "\"ECDSA256\"");
    let expects = |rid: &str| {
        let extra = format!("{}rtype = \"FQDN\"\nrid = \"{rid}\"\n", right.auth_extra);
        let mut w = world(&left, &Side { auth_extra: extra, ..right.clone() }, Signer::p256);
        w.initiate(0);
        w.seconds(3);
        w
    };
    expects("a.lab").assert_one_pair();
    expects(".lab").assert_one_pair();
    let w = expects("c.lab");
    assert!(w.a().pairs.is_empty() && w.b().errors()[0].contains("wrong identity"), "{}", w.story());
    assert!(w.b().errors()[0].contains("we expect c.lab; the peer is a.lab"));
    assert!(!w.a().errors()[0].contains("c.lab"), "what we expect is not told: {:?}", w.a().errors());
}
