//! Aggressive mode (RFC 2409 5.1, 5.4) between two engines: what it agrees on, what it survives,
//! and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use crypto::table::{GROUPS, Status};
use ike::wire::numbers::NotifyKind;
use ike::wire::{Body, Message, Payload};
use ike::{Command, Discarded, Role};
use policy::audit::Level;
use policy::config::{Config, Phase1Exchange};
use std::sync::Arc;
use std::time::Duration;
use support::{LATENCY, Packet, Side, Signer, World, a, b};

const AM: &str = "exchange = \"AM\"\naggressive_psk = \"accept\"\n";

fn aggressive(side: Side) -> Side {
    Side { auth_extra: format!("{AM}{}", side.auth_extra), ..side }
}

fn world() -> World {
    World::new(&aggressive(a()), &aggressive(b()))
}

#[track_caller]
fn agree(mut w: World) -> World {
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    assert!(w.a().errors().is_empty() && w.b().errors().is_empty(), "{}", w.story());
    w
}

fn exchanges(w: &World) -> Vec<u8> {
    w.sent.iter().map(|(_, p)| p.exchange().0).collect()
}

fn discarded(w: &World, reason: Discarded) -> u64 {
    w.b().engine.discarded().get(&reason).copied().unwrap_or_default()
}

#[test]
fn three_messages_with_a_preshared_key() {
    let w = agree(world());
    assert_eq!(exchanges(&w), [4, 4, 4, 32, 32, 32]);
    let encrypted: Vec<_> = w.sent.iter().map(|(_, p)| p.message()[19] & 1).collect();
    assert_eq!(encrypted, [0, 0, 1, 1, 1, 1], "the third may be encrypted, and is");
    for (host, role) in w.hosts.iter().zip([Role::Initiator, Role::Responder]) {
        let sa = &host.engine.isakmp_sas()[0];
        assert_eq!((sa.role, sa.exchange), (role, Phase1Exchange::Aggressive));
        assert_eq!(sa.suite.unwrap().to_string(), "aes128-sha1-modp2048");
        let done = host.lines(Level::Informative);
        assert!(done.iter().any(|l| l.starts_with("AM negotiation complete with the peer")), "{done:?}");
    }
    assert_eq!(w.b().engine.isakmp_sas()[0].peer_identity.as_ref().unwrap().to_string(), "10.77.0.1");
}

#[test]
fn every_group() {
    for group in GROUPS.iter().filter(|g| g.status != Status::Forbidden) {
        let side = |side: Side| Side { ike: format!("aes256-sha256-{group}"), ..aggressive(side) };
        agree(World::new(&side(a()), &side(b())));
    }
}

#[test]
fn three_messages_with_signatures() {
    let side = |side: Side| {
        let files = "certificate = \"/c.pem\"\nca = \"/ca.pem\"\ncrl_policy = \"relaxed\"\nmethod = \"ECDSA256\"\n";
        let side = Side { auth_extra: format!("{files}exchange = \"AM\"\n"), ..side };
        let mut config: Config = (*side.config()).clone();
        Arc::make_mut(&mut config.auths[0]).authorities = vec![b"an encoded name".to_vec()];
        (Arc::new(config), side.me)
    };
    let signed = |refused: bool| {
        let mut w = World::of(&[side(a()), side(b())], 1);
        for (host, name) in [(0, "a"), (1, "b")] {
            w.hosts[host].signer = Some(Signer::p256(name));
        }
        if refused {
            w.hosts[1].signer.as_mut().unwrap().public = Signer::p384("a").public;
        }
        w.initiate(0);
        w.seconds(2);
        w
    };
    let w = signed(false);
    w.assert_one_pair();
    assert_eq!(exchanges(&w), [4, 4, 4, 32, 32, 32]);
    // The responder signs for whoever asks, before it has judged anybody.
    assert_eq!((&w.a().asked[..], &w.b().asked[..]), (&["judge", "sign"][..], &["sign", "judge"][..]));
    for (host, peer) in [(0, "b"), (1, "a")] {
        let sa = &w.hosts[host].engine.isakmp_sas()[0];
        assert_eq!(sa.peer_certificate.as_ref().unwrap().subject, format!("certificate of {peer}"));
        assert!(w.hosts[host].errors().is_empty());
    }
    let w = signed(true);
    let errors = w.b().errors();
    assert!(errors.iter().any(|e| e.starts_with("Aggressive Mode processing failed: ")), "{errors:?}");
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty() && w.b().engine.isakmp_sas().is_empty());
    assert!(w.a().engine.isakmp_sas().is_empty(), "A was told: {}", w.story());
}

#[test]
fn either_mode_is_answered_where_aggressive_is_allowed() {
    let w = agree(World::new(&a(), &aggressive(b())));
    assert_eq!(exchanges(&w)[..6], [2; 6]);
    assert_eq!(w.b().engine.isakmp_sas()[0].exchange, Phase1Exchange::Main);
}

#[test]
fn where_it_is_not_allowed_it_is_refused_by_name() {
    let mut w = World::new(&aggressive(a()), &b());
    w.initiate(0);
    w.seconds(40);
    w.assert_nothing_left();
    let errors = w.b().errors();
    let said = "Aggressive Mode processing failed: aggressive mode with 10.77.0.1/500 as responder, a mismatch: the peer \
                asks for aggressive mode, which auth record `peer` (line 21) does not allow; configure main mode on the \
                peer, or `exchange` here";
    assert_eq!(errors, [said]);
    let errors = w.a().errors();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("AM negotiation timeout"), "{errors:?}");
    assert!(errors[0].contains("INVALID-EXCHANGE-TYPE"), "{errors:?}");
}

#[test]
fn a_wrong_key_is_noticed_at_once() {
    let mut w = World::new(&aggressive(a()), &aggressive(Side { psk: "another-key-than-that-of-a".into(), ..b() }));
    w.initiate(0);
    w.seconds(1);
    let errors = w.a().errors();
    let said = "Aggressive Mode processing failed: aggressive mode with 10.77.0.2/500 as initiator, a mismatch: the \
                peer's hash is wrong: it does not hold our pre-shared key, or saw other messages than we; compare the \
                pre-shared key of auth record `peer` (line 21) with the peer's";
    assert_eq!(errors, [said]);
    assert_eq!(w.sent.len(), 3, "A says so in the clear: {}", w.story());
    w.seconds(40);
    w.assert_nothing_left();
    let errors = w.b().errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("the peer answered AUTHENTICATION-FAILED, unauthenticated"), "{errors:?}");
}

#[test]
fn a_wrong_identity_is_refused_on_either_side() {
    let named = |side: Side, lid: &str, rid: &str| {
        let ids = format!("ltype = \"FQDN\"\nlid = \"{lid}\"\nrtype = \"FQDN\"\nrid = \"{rid}\"");
        aggressive(Side { auth_extra: ids, ..side })
    };
    // B does not expect who A says it is: no message 2, no hash of the key.
    let mut w = World::new(&named(a(), "mallory.lab", "b.lab"), &named(b(), "b.lab", "a.lab"));
    w.initiate(0);
    w.seconds(40);
    w.assert_nothing_left();
    let errors = w.b().errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let said = "no auth record for aggressive mode with 10.77.0.1 expects \"mallory.lab\"";
    assert!(errors[0].contains(said), "{errors:?}");
    assert!(w.sent.iter().all(|(_, p)| p.from.ip() != w.b().address || p.exchange().0 == 5));
    // A does not expect who B says it is.
    let mut w = World::new(&named(a(), "a.lab", "b.lab"), &named(b(), "other.lab", "a.lab"));
    w.initiate(0);
    w.seconds(40);
    w.assert_nothing_left();
    assert!(w.a().errors()[0].contains("identity: we expect b.lab; the peer is other.lab"), "{:?}", w.a().errors());
    let errors = w.b().errors();
    assert!(errors[0].contains("INVALID-ID-INFORMATION under the agreed keys"), "{errors:?}");
}

/// Two peers behind one address, each with a key of its own: the identity of message 1 says which.
#[test]
fn the_identity_selects_the_record() {
    let kinds = [("FQDN", "one.lab", "two.lab"), ("USER-FQDN", "me@one.lab", "me@two.lab"), ("KEY-ID", "0x01", "0x02")];
    for (kind, one, two) in kinds {
        let keys = ["the-key-of-the-first-of-two-peers", "the-key-of-the-second-of-two-peers"];
        let server = Side { psk: keys[0].into(), auth_extra: format!("rtype = \"{kind}\"\nrid = \"{one}\""), ..b() };
        let more = format!(
            "[[auth]]\nname = \"second\"\nremote = \"10.77.0.1\"\npreshared = \"{}\"\n{AM}rtype = \"{kind}\"\nrid = \
             \"{two}\"\n",
            keys[1]
        );
        let server = support::config(&(aggressive(server).text() + &more));
        for (id, key, record) in [(one, keys[0], "peer"), (two, keys[1], "second")] {
            let client = Side { psk: key.into(), auth_extra: format!("ltype = \"{kind}\"\nlid = \"{id}\""), ..a() };
            let w = agree(World::of(&[(aggressive(client).config(), a().me), (Arc::clone(&server), b().me)], 3));
            assert_eq!(w.b().engine.isakmp_sas()[0].auth_record, record);
        }
        // The other's identity is of no use without the other's key.
        let thief = Side { psk: keys[0].into(), auth_extra: format!("ltype = \"{kind}\"\nlid = \"{two}\""), ..a() };
        let mut w = World::of(&[(aggressive(thief).config(), a().me), (Arc::clone(&server), b().me)], 3);
        w.initiate(0);
        w.seconds(40);
        w.assert_nothing_left();
        assert!(w.a().errors()[0].contains("hash is wrong"), "{:?}", w.a().errors());
    }
}

/// Message 1 as A would send it, changed.
fn message_1(change: impl FnOnce(&mut Vec<Payload>)) -> Vec<u8> {
    let mut w = world();
    w.wire = Box::new(|_| vec![]);
    w.initiate(0);
    let mut message = Message::decode(&w.sent[0].1.payload).unwrap();
    let Body::Clear(payloads) = &mut message.body else { panic!("in the clear") };
    change(payloads);
    message.encode()
}

fn from_a(port: u16, payload: Vec<u8>) -> Packet {
    Packet { from: format!("10.77.0.1:{port}").parse().unwrap(), to: "10.77.0.2:500".parse().unwrap(), payload }
}

/// What B says in the clear to a message 1, and what it records.
fn told(message: Vec<u8>) -> (World, Option<NotifyKind>) {
    let mut w = world();
    w.wire = Box::new(|_| vec![]);
    w.deliver(&from_a(500, message));
    let kind = w.sent.first().and_then(|(_, p)| match Message::decode(&p.payload).unwrap().body {
        Body::Clear(payloads) => payloads.iter().find_map(|p| match p {
            Payload::Notification(n) => Some(n.kind),
            _ => None,
        }),
        Body::Encrypted(_) => None,
    });
    (w, kind)
}

#[test]
fn offers_of_more_than_one_group_are_refused_by_name() {
    let message = message_1(|payloads| {
        let Some(Payload::SecurityAssociation(sa)) = payloads.first_mut() else { panic!("SA is the first") };
        let mut other = sa.proposals[0].transforms[0].clone();
        other.number = 2;
        let group = other.attributes.iter_mut().find(|a| a.kind == 4).unwrap();
        *group = ike::wire::Attribute::basic(4, 19);
        sa.proposals[0].transforms.push(other);
    });
    let (w, kind) = told(message);
    assert_eq!(kind, Some(NotifyKind::NO_PROPOSAL_CHOSEN));
    assert!(w.b().errors()[0].contains("the peer offers the groups modp2048 and ecp256"), "{:?}", w.b().errors());
    assert!(w.b().engine.isakmp_sas().is_empty());
}

#[test]
fn worthless_public_values_are_refused() {
    for public in [vec![0; 256], [vec![0; 255], vec![1]].concat(), vec![0x77; 32], vec![0xff; 256]] {
        let message = message_1(|payloads| {
            let ke = payloads.iter_mut().find(|p| matches!(p, Payload::KeyExchange(_))).unwrap();
            *ke = Payload::KeyExchange(public.clone());
        });
        let (w, kind) = told(message);
        assert_eq!(kind, Some(NotifyKind::INVALID_KEY_INFORMATION));
        assert!(w.b().engine.isakmp_sas().is_empty() && w.b().errors().len() == 1);
    }
    // What does not carry what it must is not answered at all.
    for without in [4, 5, 10] {
        let (w, _) = told(message_1(|payloads| payloads.retain(|p| p.kind().0 != without)));
        assert!(w.sent.is_empty() && w.b().errors().is_empty());
        assert_eq!(discarded(&w, Discarded::Unexpected), 1);
    }
}

/// Whichever message is lost, and however often it is repeated, there is one SA on both sides.
#[test]
fn lost_and_repeated_messages() {
    for lost in 0..6 {
        let mut w = world();
        let mut n = 0;
        w.wire = Box::new(move |p| {
            n += 1;
            if n - 1 == lost { vec![] } else { vec![(LATENCY, p.clone()), (LATENCY * 3, p.clone())] }
        });
        w.initiate(0);
        w.seconds(8);
        w.assert_one_pair();
        assert_eq!((w.a().engine.isakmp_sas().len(), w.b().engine.isakmp_sas().len()), (1, 1));
        assert!(w.a().errors().is_empty() && w.b().errors().is_empty(), "message {lost}: {}", w.story());
    }
}

/// A third of everything is lost, duplicated or late: agreement, or a clean end.
#[test]
fn bad_networks() {
    let mut agreed = 0;
    for seed in 0..60 {
        let mut w = World::of(&[(aggressive(a()).config(), a().me), (aggressive(b()).config(), b().me)], seed + 1);
        let mut random = SeededEntropy::new(seed);
        w.wire = Box::new(move |p| {
            let mut draw = || random.next_u64() % 100;
            let copies = match draw() {
                0..30 => 0,
                30..45 => 2,
                _ => 1,
            };
            (0..copies).map(|_| (LATENCY * (1 + draw() as u32 / 4), p.clone())).collect()
        });
        w.initiate(0);
        w.seconds(100);
        w.wire = support::lossless();
        if w.a().current().is_none() {
            w.initiate(0);
        }
        w.seconds(40);
        if w.a().current().is_some() && w.b().current().is_some() {
            w.assert_mirror();
            agreed += 1;
        }
    }
    assert!(agreed >= 58, "{agreed} of 60");
}

#[test]
fn a_nat_is_found_and_the_ports_change_with_message_3() {
    for forced in [[true, false], [false, true]] {
        let force = |on| if on { "nat_traversal = \"force\"".into() } else { String::new() };
        let side = |side: Side, on| aggressive(Side { ike_extra: force(on), ..side });
        let w = agree(World::new(&side(a(), forced[0]), &side(b(), forced[1])));
        // Who forces it on B's side is seen by A in message 2; on A's own side, A knows.
        let ports: Vec<_> = w.sent.iter().map(|(_, p)| p.to.port()).collect();
        assert_eq!(ports, [500, 500, 4500, 4500, 4500, 4500], "{forced:?}");
        assert!(w.hosts.iter().all(|h| h.current().unwrap().outbound.encapsulation.is_some()));
    }
    // A true one, before A.
    let server = Side { peer: "10.99.0.9", auth_extra: "rtype = \"IPV4\"\nrid = \"10.77.0.1\"".into(), ..b() };
    let mut w = World::new(&aggressive(a()), &aggressive(server));
    w.wire = Box::new(|p| {
        let mut p = p.clone();
        if p.from.ip().to_string() == "10.77.0.1" {
            p.from = format!("10.99.0.9:{}", 20_000 + p.from.port() % 1000).parse().unwrap();
        } else {
            p.to = format!("10.77.0.1:{}", p.from.port()).parse().unwrap();
        }
        vec![(LATENCY, p)]
    });
    w.initiate(0);
    w.seconds(2);
    assert!(w.b().errors().is_empty() && w.a().errors().is_empty(), "{}", w.story());
    let (ours, theirs) = (&w.a().engine.isakmp_sas()[0], &w.b().engine.isakmp_sas()[0]);
    assert!(ours.nat.local && !ours.nat.remote && theirs.nat.remote && !theirs.nat.local, "{}", w.story());
    assert_eq!(theirs.remote, "10.99.0.9:20500".parse().unwrap());
    let encapsulation = w.b().current().unwrap().outbound.encapsulation.unwrap();
    assert_eq!((encapsulation.local_port, encapsulation.remote_port), (4500, 20_500));
    let w = agree(World::new(
        &aggressive(Side { ike_extra: "nat_traversal = \"off\"".into(), ..a() }),
        &aggressive(Side { ike_extra: "nat_traversal = \"force\"".into(), ..b() }),
    ));
    assert!(w.sent.iter().all(|(_, p)| p.to.port() == 500));
}

/// A hundred thousand first messages under A's address in ten seconds: what is computed, kept, answered and
/// recorded stays small, and main mode is not concerned.
#[test]
fn a_flood_costs_little_and_does_not_touch_main_mode() {
    let first = message_1(|_| ());
    let mut w = world();
    w.wire = Box::new(|p| if p.exchange().0 == 4 { vec![] } else { vec![(LATENCY, p.clone())] });
    for n in 0..100_000u32 {
        let mut forged = first.clone();
        forged[..4].copy_from_slice(&n.to_be_bytes());
        forged[4] = 0xfe;
        w.deliver(&from_a(1024 + (n % 60_000) as u16, forged));
        if n % 1000 == 0 {
            w.run(Duration::from_millis(100));
        }
    }
    let answered = w.sent.len();
    assert!((8..=20).contains(&answered), "eight, and one a second: {answered}");
    assert_eq!(w.b().engine.isakmp_sas().len(), answered);
    assert!(discarded(&w, Discarded::AggressiveLimit) > 99_000);
    assert!(w.b().audit.len() < 60, "{}", w.b().audit.len());
    // A itself has been configured for main mode meanwhile.
    w.command(0, Command::Reload { config: a().config() });
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    w.seconds(40);
    assert_eq!(w.b().engine.isakmp_sas().len(), 1, "the others were given up");
    assert!(w.sent.iter().filter(|(_, p)| p.exchange().0 == 4).count() <= 20);
}

/// Who repeats message 1 for ever is answered a few times.
#[test]
fn message_2_is_not_repeated_for_ever() {
    let first = message_1(|_| ());
    let mut w = world();
    w.wire = Box::new(|_| vec![]);
    for _ in 0..1000 {
        w.deliver(&from_a(500, first.clone()));
        w.run(Duration::from_millis(30));
    }
    assert_eq!(w.sent.len(), 7, "once, and six times more");
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
}

#[test]
fn a_recorded_exchange_played_again_does_nothing() {
    let mut w = agree(world());
    let recorded: Vec<_> = w.sent.iter().map(|(_, p)| p.clone()).filter(|p| p.to.ip() == w.b().address).collect();
    let before = (w.sent.len(), w.b().audit.len());
    w.seconds(30);
    for packet in &recorded {
        w.deliver(packet);
    }
    w.seconds(1);
    w.assert_one_pair();
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
    assert!(w.sent.len() <= before.0 + 1, "{}", w.story());
    // To a B that has forgotten everything, message 1 is a new one, and message 3 does not fit.
    let mut w2 = World::of(&[(aggressive(a()).config(), a().me), (aggressive(b()).config(), b().me)], 99);
    w2.wire = Box::new(|_| vec![]);
    for packet in &recorded {
        w2.deliver(packet);
    }
    w2.seconds(1);
    assert!(w2.b().pairs.is_empty() && w2.b().engine.isakmp_sas()[0].established.is_none());
}

#[test]
fn rekeying_goes_on_in_aggressive_mode() {
    let mut w = agree(world());
    w.command(0, Command::RekeyPeer { peer: w.b().address });
    w.seconds(60);
    w.assert_one_pair();
    assert_eq!((w.a().engine.isakmp_sas().len(), w.b().engine.isakmp_sas().len()), (1, 1), "{}", w.story());
    // Nothing follows the second message 3 that would show that it has arrived.
    let all: Vec<_> = w.sent.iter().filter(|(_, p)| p.exchange().0 == 4).map(|(_, p)| p.payload.clone()).collect();
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
    assert!((7..=11).contains(&all.len()), "{}", all.len());
    // And when both begin at once.
    let mut w = world();
    w.initiate(0);
    w.initiate(1);
    w.seconds(60);
    w.assert_one_pair();
    assert_eq!((w.a().engine.isakmp_sas().len(), w.b().engine.isakmp_sas().len()), (1, 1), "{}", w.story());
}
