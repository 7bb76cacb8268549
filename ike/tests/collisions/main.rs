//! What two hosts do at the same time, case by case: as the table of `docs/collisions.md` has it,
//! which is to IKEv1 what RFC 7296 2.25 is to IKEv2.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod main_modes;
#[path = "../support/mod.rs"]
mod support;

use ike::{Command, Discarded};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use support::{Host, LATENCY, Packet, Side, World, a, b};

/// Which message of which exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Message {
    Main(usize),
    Quick(usize),
    Informational,
}
use Message::{Informational, Main, Quick};

/// What becomes of a message.
enum Fate {
    Arrives,
    Lost,
    /// Kept until the test lets it go.
    Held,
    Late(Duration),
}
use Fate::{Arrives, Held, Late, Lost};

type Kept = Rc<RefCell<Vec<Packet>>>;

/// Has `rule` decide what becomes of each message: of the host that sends it, its place, and how
/// many times it was sent before.
fn wire(w: &mut World, mut rule: impl FnMut(usize, Message, usize) -> Fate + 'static) -> Kept {
    let (kept, mut seen) = (Kept::default(), Vec::<(Vec<u8>, Vec<u8>)>::new());
    let into = Rc::clone(&kept);
    w.wire = Box::new(move |p| {
        let m = p.message();
        let host = usize::from(p.from.ip().to_string() == b().me);
        // Main mode has no message ID; its messages are told apart by the initiator's cookie.
        let exchange = [&m[..8], &m[18..19], &m[20..24]].concat();
        let before = seen.iter().filter(|(_, payload)| payload[..] == *m).count();
        if before == 0 || !seen.iter().any(|(of, _)| *of == exchange) {
            seen.push((exchange.clone(), m.to_vec()));
        } else {
            seen.push((Vec::new(), m.to_vec()));
        }
        let of_exchange = || seen.iter().filter(|(of, _)| *of == exchange);
        let place = 1 + of_exchange().position(|(_, payload)| payload[..] == *m).unwrap();
        let message = match m[18] {
            2 => Main(place),
            32 => Quick(place),
            _ => Informational,
        };
        match rule(host, message, before) {
            Arrives => vec![(LATENCY, p.clone())],
            Late(delay) => vec![(delay, p.clone())],
            Lost => vec![],
            Held => {
                into.borrow_mut().push(p.clone());
                vec![]
            }
        }
    });
    kept
}

/// Lets what was held arrive, now and in the order it was sent.
fn release(w: &mut World, kept: &Kept) {
    let kept: Vec<_> = kept.borrow_mut().drain(..).collect();
    assert!(!kept.is_empty(), "nothing was held");
    kept.iter().for_each(|p| w.deliver(p));
}

fn sides() -> (Side, Side) {
    let with = |side: Side| Side { ike: "aes128-sha1-x25519".into(), ..side };
    (with(a()), with(b()))
}

/// Two hosts with a pair that A began, or only with the ISAKMP SA for one.
fn world(seed: u64, with_pair: bool) -> World {
    world_of(&sides(), seed, with_pair)
}

fn world_of((a, b): &(Side, Side), seed: u64, with_pair: bool) -> World {
    let mut w = World::of(&[(a.config(), a.me), (b.config(), b.me)], seed);
    w.initiate(0);
    w.seconds(1);
    w.assert_one_pair();
    if !with_pair {
        let pair = w.a().current().unwrap().inbound.pair;
        w.command(0, Command::Expired { pair });
        w.seconds(5);
        assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
    }
    w.hosts.iter_mut().for_each(|h| h.removed.clear());
    w
}

fn pair_of(w: &World, host: usize) -> u64 {
    w.hosts[host].current().unwrap().inbound.pair
}

fn rekey(w: &mut World, host: usize) {
    let pair = pair_of(w, host);
    w.command(host, Command::Rekey { pair });
}

fn expire(w: &mut World, host: usize) {
    let pair = pair_of(w, host);
    w.command(host, Command::Expired { pair });
}

fn rekey_isakmp(w: &mut World, host: usize) {
    let peer = w.hosts[1 - host].address;
    w.command(host, Command::RekeyPeer { peer });
}

fn delete_peer(w: &mut World, host: usize) {
    let peer = w.hosts[1 - host].address;
    w.command(host, Command::DeletePeer { peer });
}

/// Time passes, and all the while each side can decrypt what the other encrypts.
fn without_a_gap(w: &mut World, seconds: u64) {
    for _ in 0..seconds * 50 {
        w.run(Duration::from_millis(20));
        w.assert_mirror();
    }
}

/// The end of every case: after all grace and time-outs exactly one pair and one ISAKMP SA, the same
/// on both sides, and nothing failed. That pair can be replaced, from either side.
fn ends_with_one_pair(w: &mut World) {
    w.seconds(120);
    agree(w);
    for host in 0..2 {
        w.wire = support::lossless();
        rekey(w, host);
        without_a_gap(w, 1);
        w.seconds(60);
        agree(w);
    }
}

fn agree(w: &World) {
    w.assert_one_pair();
    let cookies: Vec<_> = w
        .hosts
        .iter()
        .map(|h| h.engine.isakmp_sas().iter().map(|sa| sa.initiator_cookie).collect::<Vec<_>>())
        .collect();
    assert_eq!((cookies[0].len(), &cookies[0]), (1, &cookies[1]), "{}", w.story());
    for h in &w.hosts {
        assert_eq!(h.engine.pairs().len(), 1);
        assert!(h.errors().is_empty() && h.failed.is_empty(), "{:?} {:?}", h.errors(), h.failed);
    }
}

/// Nothing is left and nothing comes back by itself; the next packet, at either side, brings one pair.
fn ends_with_nothing_and_begins_anew(mut w: World, begins: usize) {
    w.wire = support::lossless();
    w.seconds(120);
    assert!(w.hosts.iter().all(|h| h.pairs.is_empty()), "{}", w.story());
    w.hosts.iter_mut().for_each(|h| h.failed.clear());
    w.initiate(begins);
    ends_with_one_pair(&mut w);
}

/// How many pairs were removed on each side.
fn removed(w: &World) -> (usize, usize) {
    (w.a().removed.len(), w.b().removed.len())
}

const SEEDS: std::ops::Range<u64> = 0..12;

// Quick modes

#[test]
fn quick_modes_at_once_from_nothing() {
    for seed in SEEDS {
        let mut w = world(seed, false);
        w.initiate(0);
        w.initiate(1);
        w.seconds(60);
        assert_eq!(removed(&w), (0, 0), "seed {seed}: one of the two exchanges made no pair");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn rekeys_at_once() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        rekey(&mut w, 0);
        rekey(&mut w, 1);
        without_a_gap(&mut w, 60);
        assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn rekeys_at_once_and_a_first_message_is_lost() {
    for seed in SEEDS {
        for loser in 0..2 {
            let mut w = world(seed, true);
            wire(
                &mut w,
                move |host, message, before| {
                    if (host, message, before) == (loser, Quick(1), 0) { Lost } else { Arrives }
                },
            );
            rekey(&mut w, 0);
            rekey(&mut w, 1);
            without_a_gap(&mut w, 60);
            assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
            ends_with_one_pair(&mut w);
        }
    }
}

#[test]
fn rekeys_at_once_and_a_first_message_is_late() {
    let mut unused = 0;
    for seed in SEEDS {
        let mut w = world(seed, true);
        let kept = wire(&mut w, |host, message, _| if (host, message) == (0, Quick(1)) { Held } else { Arrives });
        rekey(&mut w, 0);
        rekey(&mut w, 1);
        without_a_gap(&mut w, 1);
        w.wire = support::lossless();
        release(&mut w, &kept);
        without_a_gap(&mut w, 60);
        // If ours gave way, the peer has answered it without knowing, and forgets the pair when told: it was never
        // put to use.
        let (at_a, at_b) = removed(&w);
        assert_eq!(at_a, 1, "seed {seed}");
        assert!(at_b <= 2, "seed {seed}");
        unused += at_b - 1;
        ends_with_one_pair(&mut w);
    }
    assert!(unused > 0, "no seed shows the case");
}

#[test]
fn rekeys_at_once_and_a_first_message_is_repeated() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        w.sent.clear();
        rekey(&mut w, 0);
        rekey(&mut w, 1);
        let first: Vec<_> = w.sent.iter().map(|(_, p)| p.clone()).collect();
        assert_eq!(first.len(), 2);
        w.seconds(1);
        // Neither the one that went on nor the one that gave way begins anything any more.
        first.iter().for_each(|p| w.deliver(p));
        without_a_gap(&mut w, 60);
        assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn rekeys_at_once_under_two_isakmp_sas() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        // B, the responder of the new ISAKMP SA, has it; A, which waits for message 6, has not.
        let kept = wire(&mut w, |_, message, _| if message == Main(6) { Held } else { Arrives });
        rekey_isakmp(&mut w, 0);
        w.run(Duration::from_millis(200));
        let cookies = |w: &World, host: usize| w.hosts[host].engine.isakmp_sas().len();
        assert_eq!((cookies(&w, 0), cookies(&w, 1)), (2, 2));
        rekey(&mut w, 0);
        rekey(&mut w, 1);
        without_a_gap(&mut w, 1);
        w.wire = support::lossless();
        release(&mut w, &kept);
        without_a_gap(&mut w, 90);
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn a_rekey_while_the_peers_is_under_way() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        let kept = wire(&mut w, |_, message, _| if message == Quick(2) { Held } else { Arrives });
        rekey(&mut w, 0);
        w.run(Duration::from_millis(100));
        // B has answered: its own wish is what A has begun.
        rekey(&mut w, 1);
        w.run(Duration::from_millis(100));
        w.wire = support::lossless();
        release(&mut w, &kept);
        without_a_gap(&mut w, 60);
        assert_eq!(removed(&w), (1, 1), "seed {seed}: one rekey, not two");
        ends_with_one_pair(&mut w);
    }
}

// Deletes

#[test]
fn both_delete_the_same_pair() {
    for begins in 0..2 {
        let mut w = world(1, true);
        expire(&mut w, 0);
        expire(&mut w, 1);
        w.seconds(10);
        assert_eq!(removed(&w), (1, 1));
        assert_eq!(w.a().engine.isakmp_sas().len(), 1, "nothing else went");
        ends_with_nothing_and_begins_anew(w, begins);
    }
}

#[test]
fn both_delete_everything() {
    for begins in 0..2 {
        let mut w = world(1, true);
        delete_peer(&mut w, 0);
        delete_peer(&mut w, 1);
        w.seconds(10);
        w.assert_nothing_left();
        ends_with_nothing_and_begins_anew(w, begins);
    }
}

#[test]
fn rekey_crosses_the_delete_of_the_old_pair() {
    for seed in SEEDS {
        for deletes in 0..2 {
            let mut w = world(seed, true);
            rekey(&mut w, 1 - deletes);
            expire(&mut w, deletes);
            w.seconds(1);
            w.assert_one_pair();
            assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
            ends_with_one_pair(&mut w);
        }
    }
}

#[test]
fn both_rekey_and_delete_the_old_pair() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        for host in 0..2 {
            let pair = pair_of(&w, host);
            w.command(host, Command::Rekey { pair });
            w.command(host, Command::Expired { pair });
        }
        w.seconds(1);
        w.assert_one_pair();
        assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn one_deletes_the_old_pair_and_the_other_the_new_one() {
    let mut w = world(1, true);
    let old = pair_of(&w, 0);
    rekey(&mut w, 0);
    w.seconds(1);
    expire(&mut w, 1);
    w.command(0, Command::Expired { pair: old });
    w.seconds(10);
    assert_eq!(removed(&w), (2, 2));
    ends_with_nothing_and_begins_anew(w, 0);
}

#[test]
fn the_new_pair_is_deleted_at_once() {
    for deletes in 0..2 {
        let mut w = world(1, true);
        let old = pair_of(&w, deletes);
        rekey(&mut w, 0);
        w.seconds(1);
        expire(&mut w, deletes);
        w.seconds(1);
        // The old pair takes over, and is then replaced once more.
        assert_eq!(pair_of(&w, deletes), old);
        without_a_gap(&mut w, 30);
        assert_ne!(pair_of(&w, deletes), old);
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn the_delete_of_a_pair_overtakes_message_3() {
    let mut w = world(1, true);
    expire(&mut w, 0);
    w.seconds(5);
    let kept = wire(&mut w, |_, message, _| if message == Quick(3) { Held } else { Arrives });
    w.initiate(0);
    w.run(Duration::from_millis(200));
    expire(&mut w, 0);
    w.run(Duration::from_millis(100));
    assert!(w.b().pairs.is_empty(), "it is gone before it was confirmed");
    release(&mut w, &kept);
    w.seconds(1);
    assert!(w.b().pairs.is_empty(), "and is not made again");
    ends_with_nothing_and_begins_anew(w, 1);
}

#[test]
fn the_delete_of_a_pair_overtakes_message_2() {
    let mut w = world(1, true);
    let kept = wire(&mut w, |_, message, _| if message == Quick(2) { Held } else { Arrives });
    rekey(&mut w, 0);
    w.run(Duration::from_millis(100));
    // B forgets the pair that A does not know of yet.
    let larval = w.b().engine.pairs().iter().map(|p| p.pair).max().unwrap();
    w.command(1, Command::Expired { pair: larval });
    w.run(Duration::from_millis(100));
    w.wire = support::lossless();
    release(&mut w, &kept);
    w.seconds(1);
    w.assert_mirror();
    ends_with_one_pair(&mut w);
}

#[test]
fn a_delete_of_everything_crosses_the_peers_first_message() {
    for seed in SEEDS {
        let mut w = world(seed, false);
        w.initiate(1);
        delete_peer(&mut w, 0);
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn a_repeated_delete_takes_no_newer_pair() {
    let mut w = world(1, true);
    expire(&mut w, 0);
    w.run(Duration::from_millis(100));
    w.initiate(1);
    w.seconds(1);
    w.assert_one_pair();
    let spi = w.a().current().unwrap().inbound.spi;
    // It is sent once more after one second and after four.
    w.seconds(10);
    w.assert_one_pair();
    assert_eq!(w.a().current().unwrap().inbound.spi, spi);
    ends_with_one_pair(&mut w);
}

#[test]
fn every_delete_of_a_replaced_pair_is_lost() {
    let mut w = world(1, true);
    wire(&mut w, |_, message, _| if message == Informational { Lost } else { Arrives });
    rekey(&mut w, 0);
    without_a_gap(&mut w, 60);
    w.assert_one_pair();
    ends_with_one_pair(&mut w);
}

// Losses and repetitions

#[test]
fn message_2_is_lost() {
    let mut w = world(1, true);
    wire(&mut w, |_, message, before| if (message, before) == (Quick(2), 0) { Lost } else { Arrives });
    rekey(&mut w, 0);
    without_a_gap(&mut w, 60);
    assert_eq!(removed(&w), (1, 1));
    ends_with_one_pair(&mut w);
}

#[test]
fn message_3_is_lost() {
    for times in [1, 4] {
        let mut w = world(1, true);
        let mut sent = 0;
        wire(&mut w, move |_, message, _| {
            sent += usize::from(message == Quick(3));
            if message == Quick(3) && sent <= times { Lost } else { Arrives }
        });
        rekey(&mut w, 0);
        w.seconds(60);
        w.assert_one_pair();
        assert_eq!(removed(&w), (1, 1));
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn message_3_never_comes() {
    let mut w = world(1, true);
    wire(&mut w, |_, message, _| if message == Quick(3) { Lost } else { Arrives });
    rekey(&mut w, 0);
    w.seconds(40);
    // B gives the pair up and tells so; A had put it to use, and the old one is gone.
    assert!(w.b().errors()[0].contains("message 3 did not come"), "{:?}", w.b().errors());
    w.hosts.iter_mut().for_each(|h| h.audit.clear());
    ends_with_nothing_and_begins_anew(w, 0);
}

#[test]
fn the_last_message_of_main_mode_is_lost() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        wire(&mut w, |_, message, before| if (message, before) == (Main(6), 0) { Lost } else { Arrives });
        rekey_isakmp(&mut w, 0);
        // B holds the new ISAKMP SA, A does not yet; a quick mode of B begins under it.
        w.run(Duration::from_millis(200));
        rekey(&mut w, 1);
        without_a_gap(&mut w, 60);
        assert_eq!(removed(&w), (1, 1));
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn everything_is_repeated_after_the_delete() {
    let mut w = world(1, false);
    w.sent.clear();
    w.initiate(0);
    w.seconds(1);
    expire(&mut w, 0);
    w.seconds(5);
    let all: Vec<_> = w.sent.iter().map(|(_, p)| p.clone()).collect();
    assert!(all.len() >= 4);
    for packet in all.iter().chain(all.iter().rev()) {
        w.deliver(packet);
        w.run(Duration::from_millis(50));
        assert!(w.hosts.iter().all(|h| h.pairs.is_empty()), "made again by a repetition");
    }
    ends_with_nothing_and_begins_anew(w, 0);
}

#[test]
fn a_first_message_is_repeated_after_the_next_rekey() {
    let mut w = world(1, true);
    w.sent.clear();
    rekey(&mut w, 0);
    w.seconds(10);
    let first = w.sent.iter().find(|(_, p)| p.exchange().0 == 32).unwrap().1.clone();
    rekey(&mut w, 0);
    w.seconds(10);
    w.deliver(&first);
    without_a_gap(&mut w, 60);
    assert_eq!(removed(&w), (2, 2));
    ends_with_one_pair(&mut w);
}

// Ends

#[test]
fn hard_expiry_crosses_a_rekey() {
    let short = |side: Side| Side {
        startup: "allow_short_lifetimes = true".into(),
        esp: "ESP_AES128_HMAC_SHA1/60/0".into(),
        ..side
    };
    let (a, b) = sides();
    let mut w = world_of(&(short(a), short(b)), 1, true);
    let end = w.a().engine.pairs()[0].expires.unwrap();
    // No rekey gets through until the end of the old pair, which both sides see at about the same time.
    wire(&mut w, |_, message, _| if matches!(message, Quick(_)) { Lost } else { Arrives });
    w.run(end.since(w.now).checked_sub(Duration::from_millis(500)).unwrap());
    w.wire = support::lossless();
    w.seconds(3);
    w.hosts.iter_mut().for_each(|h| h.audit.clear());
    w.initiate(0);
    w.initiate(1);
    w.seconds(20);
    w.assert_one_pair();
    assert!(w.hosts.iter().all(|h| h.failed.is_empty()));
}

#[test]
fn a_shutdown_crosses_a_rekey() {
    let mut w = world(1, true);
    rekey(&mut w, 0);
    w.command(1, Command::Shutdown);
    w.seconds(1);
    assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
    // A wants its pair still; nobody answers, and it is told so once.
    w.seconds(120);
    w.assert_nothing_left();
    assert_eq!((w.a().failed.len(), w.a().errors().len()), (1, 1), "{}", w.story());
    let (_, b) = sides();
    w.hosts[1] = Host::new(b.config(), b.me, 77, w.now);
    w.hosts[0].audit.clear();
    ends_with_nothing_and_begins_anew(w, 1);
}

#[test]
fn a_restart_crosses_a_rekey() {
    for seed in SEEDS {
        for begins in 0..2 {
            let mut w = world(seed, true);
            rekey(&mut w, 0);
            let (_, b) = sides();
            w.hosts[1] = Host::new(b.config(), b.me, 1000 + seed, w.now);
            w.initiate(begins);
            w.initiate(1);
            w.seconds(1);
            w.assert_mirror();
            ends_with_one_pair(&mut w);
        }
    }
}

#[test]
fn both_restart_at_once() {
    for (seed, delay) in SEEDS.flat_map(|seed| [(seed, LATENCY), (seed, Duration::ZERO)]) {
        let mut w = world(seed, true);
        w.wire = Box::new(move |p| vec![(delay, p.clone())]);
        let (a, b) = sides();
        w.hosts[0] = Host::new(a.config(), a.me, 1000 + seed, w.now);
        w.hosts[1] = Host::new(b.config(), b.me, 2000 + seed, w.now);
        w.initiate(0);
        w.initiate(1);
        w.seconds(1);
        w.assert_mirror();
        assert_eq!(removed(&w), (0, 0), "seed {seed}: neither's INITIAL-CONTACT takes what was made with it");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn a_reload_without_the_tunnel_crosses_its_rekey() {
    for reloads in 0..2 {
        let mut w = world(1, true);
        let (a, b) = sides();
        let other = |side: Side| Side { source: "10.79.9.0/24", ..side };
        let without = if reloads == 0 { other(a) } else { other(b) };
        rekey(&mut w, 1 - reloads);
        w.command(reloads, Command::Reload { config: without.config() });
        w.seconds(120);
        assert!(w.hosts.iter().all(|h| h.pairs.is_empty()), "{}", w.story());
        let rekeys = &w.hosts[1 - reloads];
        assert_eq!(rekeys.failed.len(), 1, "told once: {:?}", rekeys.failed);
    }
}

#[test]
fn everything_at_once() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        for host in [0, 1, 1, 0] {
            rekey_isakmp(&mut w, host);
            rekey(&mut w, host);
        }
        let mut n = 0;
        wire(&mut w, move |_, _, _| {
            n += 1;
            Late(Duration::from_millis((seed * 7 + n * 131) % 900 + 1))
        });
        w.seconds(10);
        w.wire = support::lossless();
        ends_with_one_pair(&mut w);
    }
}

/// The table of the documentation has every case of this file, and no other.
#[test]
fn the_table_is_complete() {
    let table = include_str!("../../../docs/collisions.md");
    let source = [include_str!("main.rs"), include_str!("main_modes.rs")].concat();
    let mut named: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.rsplit('`').nth(1))
        .filter(|name| name.contains('_'))
        .collect();
    let mut cases: Vec<_> = source
        .split("#[test]\nfn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| *name != "the_table_is_complete")
        .collect();
    named.sort_unstable();
    cases.sort_unstable();
    assert_eq!(named, cases);
    assert!(cases.len() >= 30);
}
