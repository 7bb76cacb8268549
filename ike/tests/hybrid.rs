//! Hybrid authentication (draft-ietf-ipsec-isakmp-hybrid-auth-05) between two engines: the gateway signs, and the
//! client has but a user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::Secret;
use ike::TunnelState;
use policy::audit::Level;
use policy::trust::{Distrust, Refusal};
use support::{Side, Signer, World, a, b};

const TRANSACTION: u8 = 6;
const QUICK_MODE: u8 = 32;

fn client(more: &str) -> Side {
    let auth_extra = format!(
        "method = \"HYBRID\"\nca = \"/ca.pem\"\ncrl_policy = \"relaxed\"\nxauth = \"client\"\nuser = \"alice\"\n\
         password_file = \"/dev/null\"\n{more}"
    );
    Side { auth_extra, ..a() }
}

fn gateway(more: &str) -> Side {
    let auth_extra = format!(
        "method = \"HYBRID\"\ncertificate = \"/c.pem\"\nxauth = \"server\"\nusers = \"/dev/null\"\ntries = 2\n{more}"
    );
    Side { auth_extra, ..b() }
}

/// A is the client alice, B the gateway that knows her.
fn world_of(client: &Side, gateway: &Side) -> World {
    let mut w = World::new(client, gateway);
    w.hosts[0].password = Some(Secret::copy_of(b"wonderland"));
    w.hosts[1].users = Some(vec![("alice", "wonderland")]);
    for (host, name) in [(0, "a"), (1, "b")] {
        w.hosts[host].signer = Some(Signer::rsa(name));
    }
    w
}

fn world(more: &str) -> World {
    world_of(&client(more), &gateway(more))
}

fn exchanges(w: &World) -> Vec<u8> {
    w.sent.iter().map(|(_, p)| p.exchange().0).collect()
}

fn says(w: &World, host: usize, level: Level, words: &[&str]) {
    let lines = w.hosts[host].lines(level);
    assert!(lines.iter().any(|l| words.iter().all(|word| l.contains(word))), "{words:?}\n{}", w.story());
}

/// In main and in aggressive mode, whoever begins.
#[test]
fn the_gateway_signs_and_the_clients_user_is_asked() {
    for (more, phase_1, messages) in [("", 2, 6), ("exchange = \"AM\"", 4, 3)] {
        for initiator in [0, 1] {
            let mut w = world(more);
            w.initiate(initiator);
            w.seconds(2);
            w.assert_one_pair();
            assert_eq!((w.a().asked.clone(), w.b().asked.clone()), (vec!["judge", "password"], vec!["sign", "user"]));
            // HybridInitRSA or HybridRespRSA: whose user is asked.
            let number = 64221 + initiator as u16;
            let attribute = [&[0x80, 3][..], &number.to_be_bytes()].concat();
            assert!(w.sent[0].1.payload.windows(4).any(|octets| octets == attribute), "{}", w.story());
            let order = exchanges(&w);
            assert_eq!(order.iter().filter(|x| **x == phase_1).count(), messages);
            let after: Vec<_> = order.into_iter().filter(|x| *x != phase_1).collect();
            assert_eq!(after, [TRANSACTION, TRANSACTION, TRANSACTION, TRANSACTION, QUICK_MODE, QUICK_MODE, QUICK_MODE]);
            let (at_a, at_b) = (&w.a().engine.isakmp_sas()[0], &w.b().engine.isakmp_sas()[0]);
            for sa in [at_a, at_b] {
                assert_eq!(sa.method.unwrap().to_string(), "HYBRID");
                assert!(sa.admitted);
            }
            assert_eq!(at_a.peer_certificate.as_ref().unwrap().subject, "certificate of b");
            assert!(at_b.peer_certificate.is_none());
            assert_eq!(at_b.user.as_deref(), Some("alice"));
            says(
                &w,
                1,
                Level::Informative,
                &["negotiation complete", "HYBRID: not proved before its user is believed"],
            );
            says(&w, 1, Level::Informative, &["user `alice` at the peer 10.77.0.1 is believed"]);
            assert!(w.a().errors().is_empty() && w.b().errors().is_empty());
        }
    }
}

#[test]
fn a_wrong_password_opens_nothing() {
    for more in ["", "exchange = \"AM\""] {
        let mut w = world(more);
        w.hosts[0].password = Some(Secret::copy_of(b"looking-glass"));
        w.initiate(0);
        w.seconds(5);
        w.assert_nothing_left();
        assert!(!exchanges(&w).contains(&QUICK_MODE));
        says(&w, 1, Level::Warning, &["user `alice` at the peer 10.77.0.1 is refused, try 1 of 2"]);
        assert_eq!(w.a().engine.tunnels()[0].state, TunnelState::Down);
    }
}

/// What is other than usual in a world.
type Change = fn(&mut World);

/// The client gives its password to nobody whose certificate, signature or name is not right.
#[test]
fn a_gateway_that_is_not_believed_gets_no_password() {
    for more in ["", "exchange = \"AM\""] {
        let unknown = |w: &mut World| {
            w.hosts[0].signer.as_mut().unwrap().refusal = Some(Refusal {
                distrust: Distrust::UnknownAuthority,
                certificate: None,
                detail: "its issuer is none of ours".into(),
                remedy: "see to it".into(),
            });
        };
        // Another key than that of its certificate.
        let forged = |w: &mut World| w.hosts[0].signer.as_mut().unwrap().public = Signer::other_rsa_public();
        let cases: [(Change, &str); 2] = [(unknown, "its issuer is none of ours"), (forged, "it does not verify")];
        for (change, words) in cases {
            let mut w = world(more);
            change(&mut w);
            w.initiate(0);
            w.seconds(3);
            w.assert_nothing_left();
            assert_eq!(w.a().asked, ["judge"], "{}", w.story());
            assert!(!exchanges(&w).contains(&TRANSACTION) || w.a().asked.len() == 1);
            says(&w, 0, Level::Error, &[words]);
        }
        let named = "rtype = \"FQDN\"\nrid = \"gateway.example\"\n";
        let mut w = world_of(&client(&format!("{named}{more}")), &gateway(more));
        w.initiate(0);
        w.seconds(3);
        w.assert_nothing_left();
        assert_eq!(w.a().asked, ["judge"]);
        says(&w, 0, Level::Error, &["we expect", "gateway.example"]);
    }
}

/// Peers that mean something else by it: a group's key, signatures of both, no user at all.
#[test]
fn other_methods_are_a_mismatch_by_name() {
    let xauth = "xauth = \"client\"\nuser = \"alice\"\npassword_file = \"/dev/null\"\n";
    let files = "certificate = \"/c.pem\"\nca = \"/ca.pem\"\ncrl_policy = \"relaxed\"\n";
    let others = [
        (String::new(), "pre-shared key"),
        (xauth.to_owned(), "pre-shared key and XAUTH of the initiator"),
        (format!("method = \"RSASIG\"\n{files}{xauth}"), "RSA signatures and XAUTH of the initiator"),
    ];
    for (auth_extra, words) in others {
        let mut w = world_of(&Side { auth_extra, ..a() }, &gateway(""));
        w.initiate(0);
        w.seconds(3);
        assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
        let hybrid = "RSA signature of the responder and XAUTH of the initiator (hybrid)";
        says(&w, 1, Level::Error, &["authentication method", words, hybrid]);
    }
    // Both are clients.
    let mut w = world_of(&client(""), &Side { auth_extra: client("").auth_extra, ..b() });
    w.initiate(0);
    w.seconds(3);
    assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
    says(&w, 1, Level::Error, &["XAUTH of the initiator (hybrid)", "XAUTH of the responder (hybrid)"]);
}

fn w_client() -> std::net::IpAddr {
    a().me.parse().unwrap()
}

/// A hash that is wrong, as of who saw other messages: message 5 with one bit changed does not decrypt to one.
#[test]
fn what_was_changed_on_the_way_is_passed_over() {
    let mut w = world("");
    w.wire = Box::new(|p| {
        let mut copies = support::lossless()(p);
        if p.exchange().0 == 2 && p.message()[19] & 1 == 1 && p.from.ip() == w_client() {
            let mut forged = p.clone();
            // In the second block of the cipher: the hash, which comes after the identity.
            forged.payload[28 + 16 + 3] ^= 1;
            copies.insert(0, (support::LATENCY / 2, forged));
        }
        copies
    });
    w.initiate(0);
    w.seconds(5);
    w.assert_one_pair();
    assert_eq!(w.b().asked, ["sign", "user"]);
}
