//! Hosts on a bad wire: loss, duplication, reordering. However it goes, every
//! exchange ends, and afterwards both sides hold the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use ike::Command;
use std::time::Duration;
use support::{Packet, Side, World, a, b};

/// Loses `loss` percent, and sends a damaged copy ahead of `damage` percent.
fn bad_wire(seed: u64, loss: u64, damage: u64) -> support::Wire {
    let mut random = SeededEntropy::new(seed ^ 0x5eed);
    Box::new(move |p: &Packet| {
        let mut copies = Vec::new();
        if random.next_u64() % 100 < damage {
            let mut damaged = p.clone();
            for _ in 0..=random.next_u64() % 3 {
                let at = (random.next_u64() % p.payload.len() as u64) as usize;
                damaged.payload[at] ^= 1 << (random.next_u64() % 8);
            }
            damaged.payload.truncate(p.payload.len() - (random.next_u64() % 8 / 7) as usize);
            if !damaged.payload.is_empty() {
                copies.push((Duration::from_micros(random.next_u64() % 900), damaged));
            }
        }
        let sound = copies.len();
        for _ in 0..2 {
            let (r, delay) = (random.next_u64() % 100, random.next_u64() % 400);
            if copies.len() == sound && r >= loss || copies.len() > sound && r < 15 {
                copies.push((Duration::from_millis(1 + delay), p.clone()));
            }
        }
        copies
    })
}

fn run(seed: u64, damage: u64) {
    let mut random = SeededEntropy::new(seed);
    let mut draw = move |n: u64| random.next_u64() % n;
    let start = |n| ["start = \"boot\"", "start = \"traffic\""][n as usize].to_string();
    let nat = |n| if n == 0 { "nat_traversal = \"force\"".to_string() } else { String::new() };
    let change = |s: Side, start: String, nat: String| Side {
        startup: "allow_short_lifetimes = true".into(),
        ike: "aes128-sha1-x25519".into(),
        esp: "ESP_AES128_HMAC_SHA1/120/0".into(),
        ike_extra: format!("life = 300\n{nat}"),
        tunnel_extra: start,
        ..s
    };
    let (a, b) = (change(a(), start(draw(2)), nat(draw(4))), change(b(), start(draw(2)), nat(draw(4))));
    let mut w = World::of(&[(a.config(), a.me), (b.config(), b.me)], seed);
    let loss = draw(40);
    w.wire = bad_wire(seed, loss, damage);
    for step in 0..10 {
        w.run(Duration::from_millis(draw(30_000)));
        let host = draw(2) as usize;
        let peer = w.hosts[1 - host].address;
        let pair = w.hosts[host].current().map_or(0, |p| p.inbound.pair);
        match draw(8) {
            0 | 1 => w.initiate(host),
            2 | 3 => w.command(host, Command::Rekey { pair }),
            4 => w.command(host, Command::RekeyPeer { peer }),
            5 => w.command(host, Command::DeletePeer { peer }),
            6 => {
                let config = if host == 0 { a.config() } else { b.config() };
                w.hosts[host] =
                    support::Host::new(config, [a.me, b.me][host], seed * 1000 + 100 + step * 2 + host as u64, w.now);
            }
            _ => w.command(host, Command::Expired { pair }),
        }
    }
    // The wire gets better; traffic wants the tunnel.
    w.wire = support::lossless();
    w.seconds(70);
    for host in 0..2 {
        w.initiate(host);
    }
    // Long enough for stale pairs of before to end.
    w.seconds(130);
    for host in 0..2 {
        w.initiate(host);
    }
    w.seconds(45);
    let mut settled = false;
    for _ in 0..20 {
        w.seconds(2);
        settled |= w.hosts.iter().all(|h| h.pairs.len() == 1 && h.engine.isakmp_sas().len() == 1);
        if settled {
            break;
        }
    }
    assert!(settled, "seed {seed}\n{}", w.story());
    assert!(w.hosts.iter().all(|h| h.engine.next_timeout().is_some()));
    w.assert_one_pair();
}

#[test]
fn they_agree_in_the_end() {
    (0..200).for_each(|seed| run(seed, 0));
}

#[test]
fn damaged_messages_do_no_lasting_harm() {
    (1000..1300).for_each(|seed| run(seed, 50));
}
