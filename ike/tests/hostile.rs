//! Peers that are none: floods, forged addresses, replays, worthless values, answers that would be
//! longer than the question.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use ike::wire::numbers::{ExchangeType, NotifyKind, PayloadKind, ProtocolId};
use ike::wire::{Body, Cookie, Flags, Header, Message, Notification, Payload};
use ike::{Command, Discarded, IsakmpState};
use std::time::Duration;
use support::{LATENCY, Packet, Side, World, a, b};

/// B, which serves a whole network.
fn open_b() -> Side {
    Side { ike_extra: "priority = 2\n".to_string(), ..b() }
}

/// The first message that A would send.
fn first_message() -> Vec<u8> {
    let mut w = World::new(&a(), &open_b());
    w.wire = Box::new(|_| vec![]);
    w.initiate(0);
    w.sent[0].1.payload.clone()
}

fn from(host: &str, port: u16, payload: Vec<u8>) -> Packet {
    Packet { from: format!("{host}:{port}").parse().unwrap(), to: "10.77.0.2:500".parse().unwrap(), payload }
}

fn discarded(w: &World, reason: Discarded) -> u64 {
    w.b().engine.discarded().get(&reason).copied().unwrap_or_default()
}

/// 100 000 first messages under A's own address; `change` makes each different from the others.
fn flood(mut change: impl FnMut(u32, &mut Vec<u8>)) -> World {
    let first = first_message();
    let mut w = World::new(&a(), &open_b());
    // A has negotiated once, and ended it.
    w.initiate(0);
    w.seconds(1);
    w.assert_one_pair();
    let peer = w.b().address;
    w.command(0, Command::DeletePeer { peer });
    w.seconds(1);
    w.assert_nothing_left();
    // So far away that a flood of different offers comes between messages 1 and 3.
    w.wire = Box::new(|p| vec![(LATENCY * 10, p.clone())]);
    for n in 0..100_000u32 {
        let mut forged = first.clone();
        forged[..4].copy_from_slice(&n.to_be_bytes());
        forged[4] = 0xfe;
        change(n, &mut forged);
        w.deliver(&from("10.77.0.1", 1024 + (n % 60_000) as u16, forged));
        if n == 30_000 {
            w.initiate(0);
        }
        if n % 100 == 0 {
            // 100 000 a second.
            w.run(Duration::from_millis(1));
            w.sent.clear();
        }
    }
    w
}

fn served(mut w: World) {
    w.run(Duration::from_millis(600));
    w.assert_one_pair();
    let recorded = w.b().audit.len();
    assert!(recorded < 400, "{recorded} lines for one flood");
    assert_eq!(w.b().engine.isakmp_sas().len(), 1, "nothing is kept of the others");
    w.seconds(40);
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
    assert_eq!(discarded(&w, Discarded::HalfOpenLimit), 0);
    // And the flood has not used up anything: a new peer is served as before.
    w.hosts[0] = support::Host::new(a().config(), a().me, 77, w.now);
    w.initiate(0);
    w.seconds(3);
    w.assert_one_pair();
}

#[test]
fn a_flood_of_first_messages_keeps_nobody_out() {
    served(flood(|_, _| {}));
}

#[test]
fn a_flood_of_different_offers_keeps_nobody_out_who_was_here_before() {
    // The last octets of message 1 are a vendor ID: any will do.
    served(flood(|n, message| {
        let end = message.len();
        message[end - 4..].copy_from_slice(&n.to_be_bytes());
    }));
}

#[test]
fn nothing_begins_before_an_address_is_shown_to_be_real() {
    let mut w = World::new(&a(), &b());
    // B's answers go nowhere: A's address is forged.
    w.wire = Box::new(|p| {
        if p.from.port() == 500 && p.from.ip().to_string() == "10.77.0.2" { vec![] } else { vec![(LATENCY, p.clone())] }
    });
    w.initiate(0);
    w.seconds(10);
    assert!(w.b().engine.isakmp_sas().is_empty());
    assert!(w.sent.iter().any(|(_, p)| p.from.ip() == w.b().address), "it is answered all the same");
    // Somebody guesses the cookie.
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|p| {
        let mut p = p.clone();
        if p.from.ip().to_string() == "10.77.0.1" && p.payload[8..16] != [0; 8] {
            p.payload[15] ^= 1;
        }
        vec![(LATENCY, p)]
    });
    w.initiate(0);
    w.seconds(10);
    assert!(w.b().engine.isakmp_sas().is_empty());
    assert!(discarded(&w, Discarded::UnknownSa) >= 4);
}

#[test]
fn a_cookie_grows_old() {
    let mut w = World::new(&a(), &b());
    // Message 3 is held up for longer and longer.
    for (seconds, well) in [(60, true), (130, false), (1000, false)] {
        let mut w2 = World::new(&a(), &b());
        std::mem::swap(&mut w, &mut w2);
        let mut held = None;
        w.wire = Box::new(|p| {
            if p.message()[8..16] != [0; 8] && p.from.ip().to_string() == "10.77.0.1" {
                vec![]
            } else {
                vec![(LATENCY, p.clone())]
            }
        });
        w.initiate(0);
        w.seconds(1);
        for (_, p) in &w.sent {
            if p.from == "10.77.0.1:500".parse().unwrap() && p.payload[8..16] != [0; 8] {
                held.get_or_insert(p.clone());
            }
        }
        w.seconds(seconds - 1);
        w.deliver(&held.unwrap());
        assert_eq!(w.b().engine.isakmp_sas().len(), usize::from(well), "after {seconds} s");
    }
}

#[test]
fn a_repeated_first_message_is_answered_alike_and_keeps_nothing() {
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|p| if p.from.ip().to_string() == "10.77.0.2" { vec![] } else { vec![(LATENCY, p.clone())] });
    w.initiate(0);
    w.seconds(3);
    let answers: Vec<_> =
        w.sent.iter().filter(|(_, p)| p.from.ip() == w.b().address).map(|(_, p)| &p.payload).collect();
    assert!(answers.len() >= 2);
    assert!(answers.iter().all(|x| *x == answers[0]), "the cookie is the same within its time");
}

/// Public values that are none, for each group.
fn worthless(group: &str, len: usize) -> Vec<Vec<u8>> {
    let small = |n: u8| {
        let mut octets = vec![0; len];
        octets[len - 1] = n;
        octets
    };
    let mut values = vec![vec![0; len], vec![0; len - 1], vec![1; len + 1], vec![1]];
    match group {
        "x25519" => {
            let mut one = vec![0; len];
            one[0] = 1;
            values.push(one);
        }
        group if group.starts_with("ecp") => values.extend([small(1), vec![0xff; len], vec![0x55; len]]),
        _ => values.extend([small(1), vec![0xff; len]]),
    }
    values
}

/// Replaces the public value in messages in the clear that `concerns` says.
fn with_public(p: &Packet, value: &[u8]) -> Option<Packet> {
    let mut message = Message::decode(p.message()).ok()?;
    let Body::Clear(payloads) = &mut message.body else { return None };
    let key = payloads.iter_mut().find_map(|p| if let Payload::KeyExchange(v) = p { Some(v) } else { None })?;
    *key = value.to_vec();
    Some(Packet { payload: message.encode(), ..p.clone() })
}

#[test]
fn worthless_public_values_are_refused_in_every_group_and_end_nothing() {
    for (group, len) in [
        ("modp1024", 128),
        ("modp1536", 192),
        ("modp2048", 256),
        ("modp3072", 384),
        ("modp4096", 512),
        ("ecp256", 64),
        ("ecp384", 96),
        ("ecp521", 132),
        ("x25519", 32),
    ] {
        let ike = format!("aes128-sha1-{group}");
        let (sa, sb) = (Side { ike: ike.clone(), ..a() }, Side { ike, ..b() });
        let mut w = World::new(&sa, &sb);
        let values = worthless(group, len);
        let count = values.len() as u64;
        // Each message with a public value is preceded by worthless ones.
        w.wire = Box::new(move |p| {
            let forged = values.iter().filter_map(|value| with_public(p, value));
            let mut copies: Vec<_> = forged.map(|p| (LATENCY / 2, p)).collect();
            copies.push((LATENCY, p.clone()));
            copies
        });
        w.initiate(0);
        w.seconds(2);
        w.assert_one_pair();
        for h in &w.hosts {
            assert!(h.engine.discarded()[&Discarded::Unexpected] >= count, "{group}: {:?}", h.engine.discarded());
            assert!(h.errors().is_empty(), "{group}: {:?}", h.errors());
        }
    }
}

#[test]
fn half_open_negotiations_are_bounded_and_go_away() {
    let mut w = World::new(&a(), &b());
    // An initiator with a real address that never sends message 5: A, with 300 cookies.
    w.wire = Box::new(|_| vec![]);
    w.initiate(0);
    let first = w.sent[0].1.payload.clone();
    let mut begun = Vec::new();
    for n in 0..300u16 {
        let mut message = first.clone();
        message[..2].copy_from_slice(&n.to_be_bytes());
        let before = w.sent.len();
        w.deliver(&from("10.77.0.1", 500, message));
        let reply = &w.sent[before].1.payload;
        let mut third = Message {
            header: Header {
                initiator: Cookie(reply[..8].try_into().unwrap()),
                responder: Cookie(reply[8..16].try_into().unwrap()),
                first: PayloadKind::KEY_EXCHANGE,
                exchange: ExchangeType::MAIN_MODE,
                flags: Flags::default(),
                message_id: 0,
            },
            body: Body::Clear(vec![Payload::KeyExchange(vec![2; 256]), Payload::Nonce(vec![1; 16])]),
        };
        third.header.message_id = 0;
        begun.push(third.encode());
    }
    assert!(w.b().engine.isakmp_sas().is_empty());
    for third in &begun {
        w.deliver(&from("10.77.0.1", 500, third.clone()));
    }
    assert_eq!(w.b().engine.isakmp_sas().len(), 128);
    assert!(w.b().engine.isakmp_sas().iter().all(|sa| sa.state == IsakmpState::KeSent));
    assert_eq!(discarded(&w, Discarded::HalfOpenLimit), 172);
    // Who has had time enough gives way.
    w.seconds(5);
    w.deliver(&from("10.77.0.1", 500, begun[200].clone()));
    assert_eq!(w.b().engine.isakmp_sas().len(), 128);
    assert_eq!(discarded(&w, Discarded::HalfOpenLimit), 173);
    assert!(w.b().audit.iter().any(|e| e.text.contains("too many half-open negotiations")));
    w.seconds(32);
    assert!(w.b().engine.isakmp_sas().is_empty());
    assert!(w.b().engine.next_timeout().is_none());
}

/// Every message of a negotiation, a rekey and a deletion.
fn recorded() -> (World, Vec<Packet>) {
    let mut w = World::new(&a(), &b());
    w.initiate(0);
    w.seconds(1);
    w.command(0, Command::Rekey { pair: w.a().current().unwrap().inbound.pair });
    w.seconds(10);
    w.assert_one_pair();
    let all = w.sent.iter().map(|(_, p)| p.clone()).collect();
    (w, all)
}

/// What can be seen of a host: its SAs, whatever their times.
fn state(w: &World) -> Vec<String> {
    let of = |h: &support::Host| {
        let sas = h.engine.isakmp_sas();
        let isakmp: Vec<_> =
            sas.iter().map(|sa| (sa.initiator_cookie, sa.responder_cookie, sa.state, sa.quick_modes)).collect();
        let pairs: Vec<_> = h.engine.pairs().iter().map(|p| (p.inbound_spi, p.outbound_spi, p.state)).collect();
        format!("{isakmp:?} {pairs:?}")
    };
    w.hosts.iter().map(of).collect()
}

#[test]
fn a_replayed_negotiation_does_nothing_in_any_order() {
    for seed in 0..20 {
        let (mut w, mut all) = recorded();
        let mut random = SeededEntropy::new(seed);
        let (before, installed) = (state(&w), w.hosts.iter().map(|h| h.pairs.len()).collect::<Vec<_>>());
        // At once, and when cookies are too old to be checked at all; from where they came, and from elsewhere.
        for pause in [0, 90] {
            w.seconds(pause);
            for i in (1..all.len()).rev() {
                all.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
            }
            let sent = w.sent.len();
            for packet in &all {
                let mut packet = packet.clone();
                if random.next_u64().is_multiple_of(2) {
                    packet.from.set_port(4242);
                }
                w.deliver(&packet);
            }
            assert_eq!(state(&w), before, "seed {seed}");
            let answers = w.sent.len() - sent;
            assert!(answers <= all.len(), "{answers} answers to {} messages", all.len());
            // The same thousand times: the answers come to an end.
            let sent = w.sent.len();
            let later: Vec<_> = all.iter().filter(|p| p.message()[8..16] != [0; 8]).cloned().collect();
            for _ in 0..1000 {
                later.iter().for_each(|p| w.deliver(p));
                w.run(Duration::from_millis(20));
            }
            assert!(w.sent.len() - sent < 24 * later.len() + 20, "{} answers", w.sent.len() - sent);
            assert_eq!(state(&w), before, "seed {seed}");
        }
        assert_eq!(installed, w.hosts.iter().map(|h| h.pairs.len()).collect::<Vec<_>>());
        assert!(
            w.hosts.iter().all(|h| h.errors().iter().all(|e| e.contains("message 3 did not come"))),
            "{:?}",
            w.b().errors()
        );
    }
}

#[test]
fn a_negotiation_that_is_over_does_not_begin_again_when_replayed() {
    let (mut w, all) = recorded();
    let peer = w.b().address;
    w.command(0, Command::DeletePeer { peer });
    w.seconds(10);
    w.assert_nothing_left();
    for pause in [0, 20, 60, 600] {
        w.seconds(pause);
        for packet in &all {
            w.deliver(packet);
        }
        w.assert_nothing_left();
    }
}

/// Changes a message at random: bits, lengths, types, cut or made longer.
fn damaged(random: &mut SeededEntropy, message: &[u8]) -> Vec<u8> {
    let mut draw = |n: usize| (random.next_u64() % n as u64) as usize;
    let mut out = message.to_vec();
    for _ in 0..1 + draw(3) {
        match draw(6) {
            0 => out.truncate(draw(out.len() + 1)),
            1 => out.extend(vec![draw(256) as u8; draw(64)]),
            2 if out.len() > 20 => out[18] = [1, 2, 3, 4, 5, 6, 32, 33, 34, 243][draw(10)],
            3 if out.len() > 30 => {
                let at = 28 + draw(out.len() - 28);
                out[at] = [0, 1, 2, 4, 13, 0x7f, 0x80, 0xff][draw(8)];
            }
            4 if out.len() > 16 => out[8..16].fill(if draw(2) == 0 { 0 } else { 7 }),
            _ if !out.is_empty() => {
                let at = draw(out.len());
                out[at] ^= 1 << draw(8);
            }
            _ => {}
        }
    }
    // Mostly with the length that the datagram has.
    if out.len() >= 28 && draw(4) != 0 {
        let length = (out.len() as u32).to_be_bytes();
        out[24..28].copy_from_slice(&length);
    }
    out
}

#[test]
fn no_answer_to_a_stranger_is_longer_than_his_message() {
    let (_, all) = recorded();
    let seeds: Vec<Vec<u8>> = all.iter().map(|p| p.message().to_vec()).collect();
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|_| vec![]);
    let mut random = SeededEntropy::new(9);
    let (mut answered, mut refused) = (0, 0);
    for n in 0..60_000u32 {
        let pick = (random.next_u64() % seeds.len() as u64) as usize;
        let mut message = damaged(&mut random, &seeds[pick]);
        if message.len() > 8 && n % 2 == 0 {
            message[..4].copy_from_slice(&n.to_be_bytes());
        }
        let len = message.len();
        w.deliver(&from("10.77.0.1", 500, message));
        let sent: usize = w.sent.iter().map(|(_, p)| p.payload.len()).sum();
        assert!(w.sent.len() <= 1 && sent <= len, "{sent} octets for {len}: {:02x?}", w.sent[0].1.payload);
        answered += w.sent.len();
        refused += usize::from(w.sent.iter().any(|(_, p)| p.exchange().0 == 5));
        w.sent.clear();
        if n % 50 == 0 {
            w.run(Duration::from_millis(500));
            w.sent.clear();
        }
    }
    assert!(answered > 800 && refused > 50, "{answered} {refused}: the inputs are too bad to show anything");
    assert!(w.b().engine.isakmp_sas().is_empty());
}

#[test]
fn a_short_message_of_an_unknown_exchange_is_not_worth_an_answer() {
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|_| vec![]);
    let header = Header {
        initiator: Cookie([1; 8]),
        responder: Cookie::ZERO,
        first: PayloadKind::NONE,
        exchange: ExchangeType(4),
        flags: Flags::default(),
        message_id: 0,
    };
    w.deliver(&from("10.77.0.1", 500, header.with_body(&[])));
    assert_eq!((w.sent.len(), discarded(&w, Discarded::TooShortToAnswer)), (0, 1));
    let vendor = Body::Clear(vec![Payload::VendorId(vec![0; 24])]);
    let header = Header { initiator: Cookie([2; 8]), ..header };
    w.deliver(&from("10.77.0.1", 500, Message { header, body: vendor }.encode()));
    assert_eq!(w.sent.len(), 1);
}

#[test]
fn an_exchange_that_gave_way_answers_nobody_but_the_peer() {
    let mut w = World::new(&a(), &b());
    w.initiate(0);
    w.seconds(1);
    let before = w.sent.len();
    for host in 0..2 {
        let pair = w.hosts[host].current().unwrap().inbound.pair;
        w.command(host, Command::Rekey { pair });
    }
    w.run(LATENCY * 6);
    let firsts: Vec<_> = w.sent[before..before + 2].iter().map(|(_, p)| p.clone()).collect();
    assert_ne!(firsts[0].exchange().1, firsts[1].exchange().1, "both began");
    w.seconds(20);
    let before = w.sent.len();
    let mut random = SeededEntropy::new(3);
    for first in &firsts {
        // As if it were message 2, to who sent message 1.
        for _ in 0..50 {
            let mut forged = Packet { from: first.to, to: first.from, payload: first.payload[..28].to_vec() };
            let mut ciphertext = vec![0; 160];
            random.fill(&mut ciphertext);
            forged.payload.extend(ciphertext);
            forged.payload[24..28].copy_from_slice(&188u32.to_be_bytes());
            w.deliver(&forged);
        }
    }
    assert_eq!(w.sent.len(), before, "whoever sent that is not the peer");
    w.seconds(100);
    w.assert_one_pair();
}

#[test]
fn what_is_not_authenticated_has_a_peer_asked_and_no_more() {
    let mut w = World::new(&a(), &b());
    w.initiate(0);
    w.seconds(20);
    let before = w.sent.len();
    let spi = w.b().current().unwrap().outbound.spi.to_be_bytes().to_vec();
    for n in 0..1000u32 {
        let kind = if n % 2 == 0 { NotifyKind::INVALID_SPI } else { NotifyKind::INVALID_COOKIE };
        let header = Header {
            initiator: Cookie([n as u8 | 1; 8]),
            responder: Cookie([2; 8]),
            first: PayloadKind::NOTIFICATION,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags::default(),
            message_id: n,
        };
        let notification =
            Notification { doi: 1, protocol: ProtocolId::ESP, spi: spi.clone(), kind, data: spi.clone() };
        let body = Body::Clear(vec![Payload::Notification(notification)]);
        // From the peer's address, and from one that we have nothing with.
        let host = if n % 3 == 0 { "10.9.9.9" } else { "10.77.0.1" };
        w.deliver(&from(host, 500, Message { header, body }.encode()));
        w.run(Duration::from_millis(50));
    }
    // 50 seconds: asked at most every ten, and answered.
    let sent = w.sent.len() - before;
    assert!((2..=12).contains(&sent), "{sent} messages");
    w.assert_one_pair();
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
}

/// Two hosts prove the same identity (the same certificate, or key and name): that one of them has lost its SAs is said of
/// that one alone.
#[test]
fn initial_contact_takes_nothing_of_another_address_with_the_same_identity() {
    let named = |side: Side| Side { auth_extra: "ltype = \"FQDN\"\nlid = \"twin.example\"".into(), ..side };
    let serves = |side: Side| Side { auth_extra: "rtype = \"FQDN\"\nrid = \"twin.example\"".into(), ..side };
    let one = named(a());
    let twin = named(Side { me: "10.77.0.3", source: "10.78.3.0/24", ..a() });
    let second = serves(Side { peer: twin.me, destination: twin.source, ..b() }).text();
    let second = second.replacen("[startup]\n", "", 1).replace("\"net\"", "\"net2\"");
    let second = second.replace("\"h\"", "\"h2\"").replace("name = \"peer\"", "name = \"peer2\"");
    let server = support::config(&(serves(b()).text() + &second));
    let mut w = World::of(&[(one.config(), one.me), (server, b().me), (twin.config(), twin.me)], 1);
    for host in [0, 2] {
        w.initiate(host);
        w.seconds(1);
    }
    let held = |w: &World| w.b().pairs.keys().copied().collect::<Vec<_>>();
    let before = held(&w);
    assert_eq!((before.len(), w.b().engine.isakmp_sas().len()), (2, 2), "{}", w.story());
    // The twin restarts, and says so: its own SAs go.
    w.hosts[2] = support::Host::new(twin.config(), twin.me, 99, w.now);
    w.initiate(2);
    w.seconds(1);
    assert_eq!(w.b().removed, [(before[1], "the peer has restarted (INITIAL-CONTACT)".to_owned())]);
    assert_eq!((held(&w)[0], held(&w).len(), w.b().engine.isakmp_sas().len()), (before[0], 2, 2));
    assert!(w.a().removed.is_empty());
}

/// Everything that was said when a host made itself known, twice, comes once more, in any order: nothing goes.
#[test]
fn initial_contact_that_is_recorded_takes_nothing_later() {
    for seed in 0..20 {
        let mut w = World::of(&[(a().config(), a().me), (b().config(), b().me)], seed);
        w.initiate(0);
        w.seconds(1);
        w.hosts[0] = support::Host::new(a().config(), a().me, 99 + seed, w.now);
        w.initiate(0);
        w.seconds(10);
        w.assert_one_pair();
        let removed = w.b().removed.len();
        assert_eq!(removed, 1, "A has restarted");
        let mut recorded: Vec<_> = w.sent.iter().map(|(_, p)| p.clone()).collect();
        let mut random = SeededEntropy::new(seed);
        for _ in 0..3 {
            for at in (1..recorded.len()).rev() {
                recorded.swap(at, (random.next_u64() % (at as u64 + 1)) as usize);
            }
            recorded.iter().for_each(|p| w.deliver(p));
            w.seconds(5);
        }
        assert_eq!((w.a().removed.len(), w.b().removed.len()), (0, removed), "{}", w.story());
        assert!(
            w.hosts.iter().all(|h| h.engine.isakmp_sas().iter().filter(|sa| sa.established.is_some()).count() == 1)
        );
        w.assert_one_pair();
    }
}
