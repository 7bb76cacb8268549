//! Loss, duplicates, floods, strangers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::wire::numbers::{ExchangeType, NotifyKind, PayloadKind, ProtocolId};
use ike::wire::{Body, Cookie, Flags, Header, Message, Notification, Payload};
use ike::{Command, Discarded, IsakmpState};
use std::time::Duration;
use support::{LATENCY, Packet, World, a, b};

#[test]
fn any_one_message_may_be_lost() {
    for lost in 0..9 {
        let mut w = World::new(&a(), &b());
        let mut n = 0;
        w.wire = Box::new(move |p| {
            n += 1;
            if n == lost + 1 { vec![] } else { vec![(LATENCY, p.clone())] }
        });
        w.initiate(0);
        w.seconds(3);
        w.assert_one_pair();
        assert_eq!(w.a().engine.isakmp_sas().len(), 1, "message {lost}");
    }
}

#[test]
fn each_message_may_be_lost_four_times() {
    for lost in 0..9 {
        let mut w = World::new(&a(), &b());
        let (mut n, mut victim) = (0, None);
        let mut times = 0;
        w.wire = Box::new(move |p| {
            n += 1;
            if n == lost + 1 {
                victim = Some(p.payload.clone());
            }
            if victim.as_ref() == Some(&p.payload) && times < 4 {
                times += 1;
                return vec![];
            }
            vec![(LATENCY, p.clone())]
        });
        w.initiate(0);
        w.seconds(40);
        w.assert_one_pair();
        assert!(w.hosts.iter().all(|h| h.errors().is_empty()), "message {lost}");
    }
}

#[test]
fn duplicates_are_answered_but_not_processed() {
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|p| (1..4).map(|i| (LATENCY * i, p.clone())).collect());
    w.initiate(0);
    w.seconds(5);
    w.assert_one_pair();
    for h in &w.hosts {
        assert_eq!(h.engine.isakmp_sas().len(), 1);
        assert!(h.errors().is_empty());
        assert!(h.engine.discarded()[&Discarded::Duplicate] > 0);
    }
    // Old messages, replayed much later, do nothing.
    let all: Vec<_> = w.sent.iter().map(|(_, p)| p.clone()).collect();
    w.wire = support::lossless();
    w.seconds(200);
    for packet in &all {
        w.deliver(packet);
    }
    w.seconds(40);
    w.assert_one_pair();
}

#[test]
fn an_initiator_that_vanished_at_the_end_is_found_out() {
    let mut w = World::new(&a(), &b());
    // Message 6 never arrives: A fails, B has an SA that A has not.
    w.wire = Box::new(|p| {
        let main_mode_6 = p.from.ip().to_string() == "10.77.0.2" && p.message()[19] & 1 == 1;
        if main_mode_6 { vec![] } else { vec![(LATENCY, p.clone())] }
    });
    w.initiate(0);
    w.seconds(32);
    assert_eq!(w.a().errors().len(), 1);
    assert_eq!(w.b().engine.isakmp_sas()[0].state, IsakmpState::Mature);
    w.seconds(120);
    w.assert_nothing_left();
}

#[test]
fn an_initiator_that_is_there_is_asked_once() {
    let mut w = World::new(&a(), &b());
    w.initiate(0);
    w.seconds(1);
    // A new ISAKMP SA under which nothing happens.
    let peer = w.b().address;
    w.command(0, Command::RekeyPeer { peer });
    w.seconds(30);
    let before = w.sent.len();
    w.seconds(200);
    assert_eq!(w.sent.len() - before, 2, "R-U-THERE and its acknowledgement");
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
}

fn from(host: &str, port: u16, payload: Vec<u8>) -> Packet {
    Packet { from: format!("{host}:{port}").parse().unwrap(), to: "10.77.0.2:500".parse().unwrap(), payload }
}

#[test]
fn refusals_are_reported_once_and_answered_alike() {
    let mut w = World::new(&support::Side { ike: "aes256-sha512-ecp384".into(), ..a() }, &b());
    w.initiate(0);
    w.seconds(32);
    let answers: Vec<_> = w.sent.iter().filter(|(_, p)| p.exchange().0 == 5).map(|(_, p)| p.payload.clone()).collect();
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|x| *x == answers[0]));
    assert_eq!(w.b().errors().len(), 1);
}

#[test]
fn unauthenticated_notifications_change_nothing() {
    let mut w = World::new(&a(), &b());
    w.initiate(0);
    w.seconds(1);
    let cookies = w.a().engine.isakmp_sas()[0].clone();
    let kinds = [
        NotifyKind::NO_PROPOSAL_CHOSEN,
        NotifyKind::INVALID_SPI,
        NotifyKind::INVALID_COOKIE,
        NotifyKind::INITIAL_CONTACT,
        NotifyKind::AUTHENTICATION_FAILED,
    ];
    for kind in kinds {
        let spi = w.a().current().unwrap().inbound.spi.to_be_bytes().to_vec();
        let notification = Notification { doi: 1, protocol: ProtocolId::ESP, spi: spi.clone(), kind, data: spi };
        let delete = ike::wire::Delete {
            doi: 1,
            protocol: ProtocolId::ISAKMP,
            spi_len: 16,
            spis: vec![[cookies.initiator_cookie, cookies.responder_cookie].concat()],
        };
        let header = Header {
            initiator: Cookie(cookies.initiator_cookie),
            responder: Cookie(cookies.responder_cookie),
            first: PayloadKind::NOTIFICATION,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags::default(),
            message_id: 77,
        };
        let body = Body::Clear(vec![Payload::Notification(notification), Payload::Delete(delete)]);
        w.deliver(&from("10.77.0.1", 500, Message { header, body }.encode()));
    }
    w.run(Duration::from_secs(5));
    w.assert_one_pair();
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
}

#[test]
fn exchanges_that_are_not_supported_are_named_once() {
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|_| vec![]);
    w.initiate(0);
    let mut aggressive = w.sent[0].1.payload.clone();
    aggressive[18] = 4;
    for _ in 0..3 {
        w.deliver(&from("10.77.0.1", 500, aggressive.clone()));
    }
    let errors = w.b().errors();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("the peer asks for aggressive mode, which auth record `peer` (line 21) does not allow"),
        "{}",
        errors[0]
    );
    assert!(w.b().engine.isakmp_sas().is_empty());
}

#[test]
fn strangers_get_nothing() {
    let mut w = World::new(&a(), &b());
    w.wire = Box::new(|_| vec![]);
    w.initiate(0);
    let first = w.sent[0].1.payload.clone();
    let before = w.sent.len();
    w.deliver(&from("10.9.9.9", 500, first.clone()));
    w.deliver(&from("10.77.0.1", 500, vec![]));
    w.deliver(&from("10.77.0.1", 500, first[..27].to_vec()));
    w.deliver(&from("10.77.0.1", 500, vec![0xff; 60]));
    assert_eq!(w.sent.len(), before);
    assert!(w.b().engine.isakmp_sas().is_empty());
    assert_eq!(w.b().engine.discarded()[&Discarded::Malformed], 3);
}
