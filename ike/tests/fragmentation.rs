//! Messages in pieces (IKE fragmentation): sent where the peer takes them, put together from whom we know, and
//! nothing that anybody else sends costs much.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::wire::numbers::{ExchangeType, PayloadKind};
use ike::wire::{Body, Cookie, Flags, Fragment, Header, Message, Payload};
use ike::{Discarded, FragmentCounts};
use policy::audit::Level;
use policy::config::Config;
use std::sync::Arc;
use std::time::Duration;
use support::{LATENCY, Packet, Side, Signer, World, a, b};

const FRAGMENT: u8 = 132;

/// A side whose certificate is so long that message 5 or 6 is.
fn side(side: Side, more_auth: &str, ike_extra: &str) -> (Arc<Config>, &'static str) {
    let files = "certificate = \"/c.pem\"\nca = \"/ca.pem\"\ncrl_policy = \"relaxed\"\nmethod = \"ECDSA256\"\n";
    let ike_extra = format!("{ike_extra}\n{}", side.ike_extra);
    let side = Side { auth_extra: format!("{files}{more_auth}"), ike_extra, ..side };
    (side.config(), side.me)
}

fn worlds(more_auth: &str, ike_extra: [&str; 2]) -> World {
    let mut w = World::of(&[side(a(), more_auth, ike_extra[0]), side(b(), more_auth, ike_extra[1])], 1);
    for (host, name) in [(0, "a"), (1, "b")] {
        let mut signer = Signer::p256(name);
        signer.certificate = [format!("certificate of {name}").into_bytes(), vec![b'.'; 4000]].concat();
        w.hosts[host].signer = Some(signer);
    }
    w
}

fn is_fragment(packet: &Packet) -> bool {
    packet.message()[16] == FRAGMENT
}

/// Nothing gets through that is longer than an IP packet of so many octets.
fn narrow(w: &mut World, most: usize) {
    w.wire = Box::new(move |p| {
        let fits = p.payload.len() + 28 <= most;
        if fits { vec![(LATENCY, p.clone())] } else { vec![] }
    });
}

fn counts(w: &World) -> [FragmentCounts; 2] {
    [0, 1].map(|host| w.hosts[host].engine.fragment_counts())
}

fn discarded(w: &World, reason: Discarded) -> u64 {
    w.b().engine.discarded().get(&reason).copied().unwrap_or_default()
}

#[test]
fn long_messages_pass_where_long_packets_do_not() {
    for (exchange, ike) in
        [("", ""), ("exchange = \"AM\"\n", ""), ("", "nat_traversal = \"force\""), ("", "fragment_size = 600")]
    {
        let mut w = worlds(exchange, [ike, ike]);
        narrow(&mut w, if ike.contains("600") { 600 } else { 1280 });
        w.initiate(0);
        w.seconds(2);
        w.assert_one_pair();
        assert!(w.a().errors().is_empty() && w.b().errors().is_empty(), "{}", w.story());
        let (sent, each) =
            (w.sent.iter().filter(|(_, p)| is_fragment(p)).count(), FragmentCounts { sent: 1, reassembled: 1 });
        assert_eq!(counts(&w), [each; 2], "message 5 and message 6, or 3 and 2");
        assert!(sent >= 8, "{sent}");
        for host in &w.hosts {
            assert!(host.engine.isakmp_sas()[0].fragmentation);
            let lines = host.lines(Level::Informative);
            let done = lines.iter().find(|l| l.contains("negotiation complete with the peer")).unwrap();
            assert!(done.contains(", IKE fragmentation; the peer announces "), "{done}");
            assert!(done.contains("NAT-T (RFC 3947), DPD, FRAGMENTATION"), "{done}");
        }
        // As short as they may be, and no shorter than need be: all but the last of a message are full.
        let most = if ike.contains("600") { 600 } else { 1280 };
        assert!(w.sent.iter().filter(|(_, p)| is_fragment(p)).any(|(_, p)| p.payload.len() + 28 == most));
    }
}

#[test]
fn without_it_on_either_side_they_do_not() {
    for off in [["fragmentation = \"off\"", ""], ["", "fragmentation = \"off\""]] {
        let mut w = worlds("", off);
        narrow(&mut w, 1280);
        w.initiate(0);
        w.seconds(35);
        w.assert_nothing_left();
        assert!(w.sent.iter().all(|(_, p)| !is_fragment(p)));
        assert!(w.a().errors()[0].contains("the message may come in fragments"), "{:?}", w.a().errors());
        // On a wide link nothing is missing.
        let mut w = worlds("", off);
        w.initiate(0);
        w.seconds(2);
        w.assert_one_pair();
        assert!(w.sent.iter().all(|(_, p)| !is_fragment(p)));
        assert!(w.hosts.iter().all(|h| !h.engine.isakmp_sas()[0].fragmentation));
    }
}

/// Pieces that are lost come again with the repetition, which has the same pieces; those that came twice are one.
#[test]
fn lost_and_repeated_pieces() {
    let mut w = worlds("", ["", ""]);
    let mut n = 0;
    w.wire = Box::new(move |p| {
        if !is_fragment(p) {
            return vec![(LATENCY, p.clone())];
        }
        n += 1;
        match n % 3 {
            0 => vec![],
            1 => vec![(LATENCY * 5, p.clone()), (LATENCY, p.clone())],
            _ => vec![(LATENCY * 3, p.clone())],
        }
    });
    w.initiate(0);
    w.seconds(20);
    w.assert_one_pair();
    let pieces = w.sent.iter().filter(|(_, p)| is_fragment(p) && p.from.ip() == w.a().address);
    let pieces: Vec<_> = pieces.map(|(_, p)| p.payload.clone()).collect();
    let distinct: std::collections::BTreeSet<_> = pieces.iter().collect();
    assert!(pieces.len() >= 2 * distinct.len() && distinct.len() == 4, "{} {}", pieces.len(), distinct.len());
    assert!(discarded(&w, Discarded::FragmentDuplicate) > 0);
}

/// A piece under these cookies.
fn piece(cookies: ([u8; 8], [u8; 8]), id: u16, number: u8, last: bool, data: Vec<u8>) -> Vec<u8> {
    let header = Header {
        initiator: Cookie(cookies.0),
        responder: Cookie(cookies.1),
        first: PayloadKind::FRAGMENT,
        exchange: ExchangeType::MAIN_MODE,
        flags: Flags::default(),
        message_id: 0,
    };
    Message { header, body: Body::Clear(vec![Payload::Fragment(Fragment { id, number, last, data })]) }.encode()
}

fn from(host: &str, payload: Vec<u8>) -> Packet {
    Packet { from: format!("{host}:500").parse().unwrap(), to: "10.77.0.2:500".parse().unwrap(), payload }
}

#[test]
fn strangers_have_nothing_put_together() {
    let mut w = worlds("", ["", ""]);
    w.wire = Box::new(|_| vec![]);
    for n in 0..10_000u32 {
        let mut cookie = [7; 8];
        cookie[..4].copy_from_slice(&n.to_be_bytes());
        // Any cookie of ours, or none yet.
        let ours = if n % 2 == 0 { [9; 8] } else { [0; 8] };
        w.deliver(&from("10.77.0.1", piece((cookie, ours), 1, 1, false, vec![0; 1000])));
    }
    assert_eq!(discarded(&w, Discarded::FragmentLimit), 10_000);
    assert!(w.sent.is_empty() && w.b().audit.is_empty());
    assert!(w.b().engine.next_timeout().is_none(), "there is nothing to wait for");
}

/// Message 3 may come in pieces: who sends them brings back our cookie, so is where he says. What he leaves
/// incomplete is forgotten.
#[test]
fn a_message_3_in_pieces_is_taken_from_who_has_our_cookie() {
    let mut w = worlds("", ["", ""]);
    w.wire = Box::new(|p| {
        let message = p.message();
        let third = message[18] == 2 && message[16] == 4 && p.from.ip().to_string() == "10.77.0.1";
        if !third {
            return vec![(LATENCY, p.clone())];
        }
        let cookies = (message[..8].try_into().unwrap(), message[8..16].try_into().unwrap());
        let half = message.len() / 2;
        let first = piece(cookies, 5, 1, false, message[..half].to_vec());
        let second = piece(cookies, 5, 2, true, message[half..].to_vec());
        [second, first].map(|payload| (LATENCY, Packet { payload, ..p.clone() })).to_vec()
    });
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    assert_eq!(w.b().engine.fragment_counts().reassembled, 2);
    // Another negotiation, of which only one piece of message 3 ever comes.
    let mut w = worlds("", ["", ""]);
    w.wire = Box::new(|p| if p.message()[16] == 4 { vec![] } else { vec![(LATENCY, p.clone())] });
    w.initiate(0);
    w.run(Duration::from_millis(100));
    let message = w.sent.iter().find(|(_, p)| p.message()[16] == 4).unwrap().1.payload.clone();
    let cookies = (message[..8].try_into().unwrap(), message[8..16].try_into().unwrap());
    w.deliver(&from("10.77.0.1", piece(cookies, 1, 1, false, message[..100].to_vec())));
    assert_eq!(discarded(&w, Discarded::FragmentLimit), 0);
    assert!(w.b().engine.isakmp_sas().is_empty(), "a piece begins nothing");
    w.seconds(31);
    assert_eq!(discarded(&w, Discarded::FragmentIncomplete), 1);
}

/// What somebody on the way, who has seen the cookies, can do: nothing that he could not with whole messages.
#[test]
fn forged_pieces() {
    let mut w = worlds("", ["", ""]);
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    let sa = &w.a().engine.isakmp_sas()[0];
    let cookies = (sa.initiator_cookie, sa.responder_cookie);
    let before = w.sent.len();
    let whole = w.sent.iter().find(|(_, p)| p.exchange().0 == 32).unwrap().1.payload.clone();
    let nested = piece(cookies, 3, 1, true, b"x".to_vec());
    let mut foreign = whole.clone();
    foreign[0] ^= 1;
    for (nth, forged) in [
        // No place, no content, more than one payload, unknown flags.
        piece(cookies, 1, 0, false, vec![1; 50]),
        piece(cookies, 1, 1, false, vec![]),
        {
            let mut flags = piece(cookies, 1, 1, false, vec![1; 50]);
            flags[35] = 0x02;
            flags
        },
        // One piece that makes no message, another piece, a message of other cookies, of another exchange.
        piece(cookies, 1, 1, true, vec![1; 50]),
        piece(cookies, 2, 1, true, nested),
        piece(cookies, 3, 1, true, foreign),
        piece(cookies, 4, 1, true, whole.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        w.deliver(&from("10.77.0.1", forged));
        assert_eq!(discarded(&w, Discarded::FragmentInconsistent), nth as u64 + 1, "{nth}");
    }
    assert_eq!((w.sent.len(), counts(&w)[1].reassembled), (before, 1));
    // Much of it is not kept.
    for number in 1..=255 {
        for id in 0..4 {
            w.deliver(&from("10.77.0.1", piece(cookies, id, number, false, vec![1; 1400])));
        }
    }
    w.seconds(31);
    w.assert_one_pair();
    assert!(w.hosts.iter().all(|h| h.errors().is_empty()));
}
