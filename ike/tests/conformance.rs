//! Single rules of the RFCs, of peers that do not keep to them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::wire::numbers::{NotifyKind, PayloadKind};
use ike::wire::{Attribute, Body, Message, Payload};
use support::{Packet, World, a, b};

/// Message 1 of the first host, which hears no answer.
fn first_message(w: &mut World) -> Vec<u8> {
    w.wire = Box::new(|_| vec![]);
    w.initiate(0);
    w.sent[0].1.payload.clone()
}

/// What the second host answers to a datagram of the first.
fn answer(w: &mut World, payload: Vec<u8>) -> Option<Message> {
    let before = w.sent.len();
    let (from, to) = ("10.77.0.1:500".parse().unwrap(), "10.77.0.2:500".parse().unwrap());
    w.deliver(&Packet { from, to, payload });
    let answers = &w.sent[before..];
    assert!(answers.len() < 2);
    answers.first().map(|(_, p)| Message::decode(&p.payload).unwrap())
}

fn notified(answer: Option<Message>) -> Option<NotifyKind> {
    match answer?.body {
        Body::Clear(payloads) => match payloads.as_slice() {
            [Payload::Notification(n)] => Some(n.kind),
            _ => None,
        },
        Body::Encrypted(_) => None,
    }
}

#[test]
fn another_version_domain_or_situation_is_refused_by_name_once() {
    const VERSION: usize = 17;
    const DOI: usize = 28 + 4 + 3;
    const SITUATION: usize = DOI + 4;
    let cases = [
        (VERSION, 0x20, NotifyKind::INVALID_MAJOR_VERSION, "version 0x20 is not 1.0"),
        (VERSION, 0x11, NotifyKind::INVALID_MINOR_VERSION, "version 0x11 is not 1.0"),
        (DOI, 2, NotifyKind::DOI_NOT_SUPPORTED, "domain of interpretation 2 is not IPsec"),
        (SITUATION, 2, NotifyKind::SITUATION_NOT_SUPPORTED, "situation 0x2 is not SIT_IDENTITY_ONLY"),
        (SITUATION, 5, NotifyKind::SITUATION_NOT_SUPPORTED, "situation 0x5 is not SIT_IDENTITY_ONLY"),
    ];
    for (at, value, kind, words) in cases {
        let mut w = World::new(&a(), &b());
        let mut message = first_message(&mut w);
        message[at] = value;
        assert_eq!(notified(answer(&mut w, message.clone())), Some(kind), "{words}");
        // Repeated it is not worth another answer; of a stranger, or within a negotiation, it never is.
        assert!(answer(&mut w, message.clone()).is_none());
        message[8] = 1;
        assert!(answer(&mut w, message.clone()).is_none());
        let errors = w.b().errors();
        assert!(errors.len() == 1 && errors[0].contains(words), "{errors:?}");
        assert!(w.b().engine.isakmp_sas().is_empty());
        message[8] = 0;
        message[0] ^= 1;
        let from = "10.9.9.9:500".parse().unwrap();
        let before = w.sent.len();
        w.deliver(&Packet { from, to: "10.77.0.2:500".parse().unwrap(), payload: message });
        assert_eq!((w.sent.len(), w.b().errors().len()), (before, 1));
    }
}

/// What cannot be read still says in its header which exchange it is of.
#[test]
fn what_cannot_be_read_is_told_of_by_its_exchange() {
    const VERSION: usize = 17;
    const EXCHANGE: usize = 18;
    for (version, exchange, words) in [
        (0x11, 2, "Main Mode processing failed: main mode with"),
        (0x11, 4, "Aggressive Mode processing failed: aggressive mode with"),
        (0x11, 77, "IKE processing failed: IKEv1, exchange type 77, with"),
        (0x20, 34, "IKE processing failed: IKEv2, IKE_SA_INIT, with"),
        (0x30, 34, "IKE processing failed: IKEv3, exchange type 34, with"),
    ] {
        let mut w = World::new(&a(), &b());
        let mut message = first_message(&mut w);
        (message[VERSION], message[EXCHANGE]) = (version, exchange);
        assert!(answer(&mut w, message).is_some());
        let errors = w.b().errors();
        assert!(errors.len() == 1 && errors[0].contains(words), "{errors:?}");
    }
}

#[test]
fn an_attribute_may_come_twice_but_not_with_two_values() {
    const GROUP: u16 = 4;
    for (second, accepted) in [(14, true), (2, false)] {
        let mut w = World::new(&a(), &b());
        let mut message = Message::decode(&first_message(&mut w)).unwrap();
        let Body::Clear(payloads) = &mut message.body else { panic!() };
        let Payload::SecurityAssociation(sa) = &mut payloads[0] else { panic!() };
        sa.proposals[0].transforms[0].attributes.push(Attribute::basic(GROUP, second));
        let reply = answer(&mut w, message.encode()).unwrap();
        if accepted {
            assert_eq!(reply.header.first, PayloadKind::SECURITY_ASSOCIATION);
            assert!(w.b().errors().is_empty());
        } else {
            assert_eq!(notified(Some(reply)), Some(NotifyKind::NO_PROPOSAL_CHOSEN));
            let errors = w.b().errors();
            assert!(errors.len() == 1 && errors[0].contains("two of class 4"), "{errors:?}");
        }
    }
}

#[test]
fn sa_is_the_first_payload_of_messages_1_and_2() {
    let move_sa_back = |message: &[u8]| {
        let mut message = Message::decode(message).unwrap();
        let Body::Clear(payloads) = &mut message.body else { panic!() };
        payloads.rotate_left(1);
        message.encode()
    };
    let mut w = World::new(&a(), &b());
    let first = first_message(&mut w);
    assert!(answer(&mut w, move_sa_back(&first)).is_none());
    assert!(answer(&mut w, first).is_some());
    // Such a message 2 is passed over, and the next one counts.
    let second = |p: &Packet| p.from.ip().to_string() == "10.77.0.2" && p.payload[16] == 1;
    first_copy_is_passed_over(second, move |message| move_sa_back(&message));
}

/// Changes the first of the messages of main mode that `meant` is true for; nothing comes of it, and
/// when it is repeated as it was the negotiation goes on.
fn first_copy_is_passed_over(meant: fn(&Packet) -> bool, change: impl Fn(Vec<u8>) -> Vec<u8> + 'static) {
    let mut w = World::new(&a(), &b());
    let mut seen = false;
    w.wire = Box::new(move |packet| {
        let first = !seen && packet.exchange() == (2, 0) && meant(packet);
        seen |= first;
        let payload = if first { change(packet.payload.clone()) } else { packet.payload.clone() };
        vec![(support::LATENCY, Packet { payload, ..packet.clone() })]
    });
    w.initiate(0);
    w.run(std::time::Duration::from_millis(500));
    assert!(w.a().pairs.is_empty(), "{}", w.story());
    w.seconds(3);
    w.assert_one_pair();
}

#[test]
fn a_nonce_has_8_to_256_octets() {
    for octets in [0, 7, 257] {
        for host in ["10.77.0.1", "10.77.0.2"] {
            let of_host: fn(&Packet) -> bool = match host {
                "10.77.0.1" => |p| p.from.ip().to_string() == "10.77.0.1" && p.payload[16] == 4,
                _ => |p| p.from.ip().to_string() == "10.77.0.2" && p.payload[16] == 4,
            };
            first_copy_is_passed_over(of_host, move |message| {
                let mut message = Message::decode(&message).unwrap();
                let Body::Clear(payloads) = &mut message.body else { panic!() };
                let nonce = payloads.iter_mut().find(|p| matches!(p, Payload::Nonce(_))).unwrap();
                *nonce = Payload::Nonce(vec![1; octets]);
                message.encode()
            });
        }
    }
}

#[test]
fn reserved_bits_and_fields_are_looked_at() {
    const FLAGS: usize = 19;
    const LENGTH: usize = 27;
    const SA: usize = 28;
    const PROPOSAL: usize = SA + 12;
    const TRANSFORM: usize = PROPOSAL + 8;
    let mut w = World::new(&a(), &b());
    let first = first_message(&mut w);
    let malformed = |w: &World| w.b().engine.discarded().get(&ike::Discarded::Malformed).copied().unwrap_or(0);
    let places = [(FLAGS, 0x08), (FLAGS, 0x80), (SA + 1, 1), (PROPOSAL + 1, 1), (TRANSFORM + 1, 1), (TRANSFORM + 6, 1)];
    for (nth, (at, bits)) in (1..).zip(places) {
        let mut changed = first.clone();
        changed[at] |= bits;
        assert!(answer(&mut w, changed).is_none(), "{at}");
        assert_eq!(malformed(&w), nth, "{at}");
    }
    for change in [1u8, 255] {
        let mut changed = first.clone();
        changed[LENGTH] = changed[LENGTH].wrapping_add(change);
        assert!(answer(&mut w, changed).is_none());
    }
    assert_eq!(malformed(&w), places.len() as u64 + 2);
    assert!(answer(&mut w, first).is_some(), "as it was it is answered");
}

#[test]
fn an_attribute_that_is_not_known_costs_its_transform() {
    // Group type, PRF and field size of RFC 2409, and a class that nobody has assigned.
    for class in [5, 13, 15, 99] {
        let both = support::Side { ike: "aes128-sha1-modp2048,aes256-sha256-modp2048".into(), ..a() };
        let mut w = World::new(&both, &support::Side { ike: both.ike.clone(), ..b() });
        let mut message = Message::decode(&first_message(&mut w)).unwrap();
        let offer = |message: &mut Message, nth: usize| {
            let Body::Clear(payloads) = &mut message.body else { panic!() };
            let Payload::SecurityAssociation(sa) = &mut payloads[0] else { panic!() };
            sa.proposals[0].transforms[nth].attributes.push(Attribute::basic(class, 1));
        };
        offer(&mut message, 0);
        let reply = answer(&mut w, message.encode()).unwrap();
        let Body::Clear(payloads) = &reply.body else { panic!() };
        let Payload::SecurityAssociation(chosen) = &payloads[0] else { panic!() };
        assert_eq!(chosen.proposals[0].transforms[0].number, 2, "class {class}");
        offer(&mut message, 1);
        assert_eq!(notified(answer(&mut w, message.encode())), Some(NotifyKind::NO_PROPOSAL_CHOSEN), "class {class}");
        let errors = w.b().errors();
        assert!(errors.len() == 1 && errors[0].contains(&format!("none such:{class}")), "{errors:?}");
    }
}
