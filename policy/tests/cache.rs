//! The SPD cache: hits, epochs, ageing, limits, also with several threads.

mod common;

use common::{flow, flow_v6, hash_key, tuple};
use policy::cache::{CacheEntry, CacheKey, CacheRecord, Inserted, Reader, SpdCache};
use policy::counters::DropReason;
use policy::five_tuple::{Direction, Ports};
use policy::limits::LimitEvent::{HardLimit, SoftLimit};
use policy::limits::{LimitEvent, Limits};
use policy::spd::Decision;
use policy::time::Timestamp;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PASS: CacheEntry = CacheEntry { decision: Decision::Pass, cookie: 1, reason: None };
const PROTECT: CacheEntry = CacheEntry { decision: Decision::Protect { tunnel: 7 }, cookie: 5, reason: None };
const DROP: CacheEntry =
    CacheEntry { decision: Decision::Discard, cookie: 2, reason: Some(DropReason::OutsideTunnelSelector) };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn cache(soft: u64, hard: u64) -> (Arc<SpdCache>, Reader) {
    let cache = SpdCache::new(Limits { soft, hard }, hash_key());
    let reader = cache.reader();
    (cache, reader)
}

/// Inserts where no event is expected.
fn put(r: &mut Reader, key: &CacheKey, entry: CacheEntry, epoch: u32, now: Timestamp) -> Inserted {
    r.insert(key, entry, epoch, now, &mut |e| panic!("{e:?}"))
}

fn records(cache: &SpdCache) -> Vec<CacheRecord> {
    let mut out = Vec::new();
    cache.for_each(at(1_000), |r| out.push(r));
    out.sort_by_key(|r| r.key);
    out
}

#[test]
fn a_hit_returns_what_was_inserted_and_nothing_else_hits() {
    let (c, mut r) = cache(1000, 1000);
    let key = flow(1);
    assert_eq!(r.look_up(&key, 1, at(0)), None);
    assert_eq!(put(&mut r, &key, DROP, 1, at(0)), Inserted::Inserted);
    assert_eq!(r.look_up(&key, 1, at(0)), Some(DROP));
    // Each field of the key counts.
    let t = key.tuple();
    let others = [
        CacheKey::new(t, Direction::Inbound),
        CacheKey::new(
            policy::five_tuple::FiveTuple { source: t.destination, destination: t.source, ..t },
            key.direction(),
        ),
        CacheKey::new(policy::five_tuple::FiveTuple { protocol: 6, ..t }, key.direction()),
        CacheKey::new(policy::five_tuple::FiveTuple { ports: Ports::Opaque, ..t }, key.direction()),
        CacheKey::new(policy::five_tuple::FiveTuple { ports: Ports::None, ..t }, key.direction()),
        CacheKey::new(
            policy::five_tuple::FiveTuple { ports: Ports::Pair { source: 80, destination: 1 }, ..t },
            key.direction(),
        ),
    ];
    for other in &others {
        assert_eq!(r.look_up(other, 1, at(0)), None, "{other:?}");
        assert_eq!(put(&mut r, other, PASS, 1, at(0)), Inserted::Inserted);
    }
    assert_eq!(r.look_up(&key, 1, at(0)), Some(DROP));
    assert_eq!(c.len(), 7);
}

#[test]
fn the_report_shows_keys_as_they_were() {
    let (c, mut r) = cache(1000, 1000);
    let mut keys = Vec::new();
    for (s, d) in [("10.1.2.3", "255.255.255.255"), ("fd00::1:2", "ffff:1:2:3:4:5:6:7"), ("0.0.0.0", "0.0.0.1")] {
        for ports in [
            Ports::None,
            Ports::Opaque,
            Ports::Pair { source: 1, destination: 65_535 },
            Ports::Icmp { kind: 3, code: 255 },
        ] {
            for direction in [Direction::Outbound, Direction::Inbound] {
                keys.push(CacheKey::new(tuple(s, d, 255, ports), direction));
            }
        }
    }
    for key in &keys {
        assert_eq!(put(&mut r, key, PROTECT, 3, at(9)), Inserted::Inserted);
    }
    keys.sort();
    let records = records(&c);
    assert!(records.iter().map(|r| r.key).eq(keys));
    assert!(records.iter().all(|r| r.entry == Some(PROTECT) && r.epoch == 3 && r.last_use == at(9) && r.packets == 1));
}

#[test]
fn packets_are_counted_and_the_last_use_noted() {
    let (c, mut r) = cache(1000, 1000);
    put(&mut r, &flow(1), PASS, 1, at(10));
    for n in 0..9 {
        let _ = r.look_up(&flow(1), 1, at(11 + n));
    }
    // Time never goes back, whoever is late.
    let _ = r.look_up(&flow(1), 1, at(12));
    r.count();
    assert_eq!(records(&c)[0].packets, 11);
    assert_eq!(records(&c)[0].last_use, at(19));
    // A miss by epoch is not a use.
    assert_eq!(r.look_up(&flow(1), 2, at(50)), None);
    assert_eq!((records(&c)[0].packets, records(&c)[0].last_use), (11, at(19)));
}

#[test]
fn a_packet_looked_up_again_is_not_counted_again() {
    let (c, mut r) = cache(1000, 1000);
    put(&mut r, &flow(1), PROTECT, 3, at(9));
    assert_eq!(r.look_up_again(&flow(1), 3, at(19)), Some(PROTECT));
    assert_eq!((records(&c)[0].packets, records(&c)[0].last_use), (1, at(19)));
    assert_eq!(r.look_up_again(&flow(1), 4, at(20)), None);
    assert_eq!(r.look_up_again(&flow(2), 3, at(20)), None);
}

#[test]
fn another_epoch_misses_and_is_replaced_in_place() {
    let (c, mut r) = cache(10, 2);
    put(&mut r, &flow(1), PASS, 1, at(0));
    put(&mut r, &flow(2), PASS, 1, at(0));
    assert_eq!(r.look_up(&flow(1), 2, at(1)), None);
    // At the hard limit: what replaces takes no place.
    assert_eq!(put(&mut r, &flow(1), DROP, 2, at(1)), Inserted::Inserted);
    assert_eq!(r.look_up(&flow(1), 2, at(1)), Some(DROP));
    assert_eq!(c.len(), 2);
    // A worker that still has the old policies changes nothing.
    assert_eq!(put(&mut r, &flow(1), PASS, 1, at(1)), Inserted::AlreadyThere);
    assert_eq!(r.look_up(&flow(1), 1, at(1)), None);
    assert_eq!(r.look_up(&flow(1), 2, at(1)), Some(DROP));
    assert_eq!(put(&mut r, &flow(1), PASS, 2, at(1)), Inserted::AlreadyThere);
    // Epochs wrap.
    assert_eq!(put(&mut r, &flow(3), PASS, 0xffff_ffff, at(1)), Inserted::AlreadyThere);
    let (_, mut r) = cache(10, 2);
    for (epoch, entry) in [(0xffff_fffe, PASS), (0xffff_ffff, PROTECT), (0, DROP)] {
        assert_eq!(put(&mut r, &flow(1), entry, epoch, at(1)), Inserted::Inserted);
        assert_eq!(r.look_up(&flow(1), epoch, at(1)), Some(entry));
    }
    assert_eq!(r.look_up(&flow(1), 0xffff_ffff, at(1)), None);
}

#[test]
fn stale_entries_are_cleared_on_request() {
    let (c, mut r) = cache(100, 100);
    for n in 0..10 {
        put(&mut r, &flow(n), PASS, 1, at(0));
    }
    for n in 0..4 {
        put(&mut r, &flow(n), PROTECT, 2, at(0));
    }
    assert_eq!(c.len(), 10);
    assert_eq!(c.clear_stale(2), 6);
    assert_eq!(c.clear_stale(2), 0);
    assert_eq!(c.len(), 4);
    assert!(records(&c).iter().all(|r| r.epoch == 2));
}

#[test]
fn idle_entries_age_out_and_used_ones_stay() {
    let (c, mut r) = cache(100, 100);
    for n in 0..10 {
        put(&mut r, &flow(n), PASS, 1, at(100));
    }
    let idle = Duration::from_secs(300);
    assert_eq!(c.age(at(400), idle), 0, "idle for 300 s, not longer");
    for n in 0..3 {
        assert_eq!(r.look_up(&flow(n), 1, at(350)), Some(PASS));
    }
    assert_eq!(c.age(at(401), idle), 7);
    assert_eq!(c.len(), 3);
    assert_eq!(records(&c).len(), 3);
    assert!((0..10).all(|n| r.look_up(&flow(n), 1, at(401)).is_some() == (n < 3)));
    assert_eq!(c.age(at(10_000), Duration::MAX), 0);
    // An idle time of another order has longer or shorter ticks: all count as used just then.
    assert_eq!(c.age(at(10_000), Duration::ZERO), 0);
    assert_eq!(c.age(at(10_001), Duration::ZERO), 3);
    assert!(c.is_empty());
}

#[test]
fn a_batch_answers_as_single_look_ups_do() {
    let (_, mut r) = cache(1000, 1000);
    for n in (0..64).step_by(3) {
        put(&mut r, &flow(n), if n % 2 == 0 { PASS } else { PROTECT }, 1 + n % 2, at(0));
    }
    let keys: Vec<_> = (0..64).map(flow).collect();
    for epoch in 1..=3 {
        let mut found = vec![Some(DROP); keys.len()];
        r.look_up_batch(&keys, epoch, at(1), &mut found);
        let single: Vec<_> = keys.iter().map(|k| r.look_up(k, epoch, at(1))).collect();
        assert_eq!(found, single);
    }
    r.look_up_batch(&[], 1, at(1), &mut []);
}

/// Longer than what is looked up at once, both families in turns, and decisions that only another reader has made.
#[test]
fn a_batch_of_both_families_answers_each_key_in_its_place_and_counts_it_once() {
    let (c, mut r) = cache(1000, 1000);
    let mut other = c.reader();
    let mut keys: Vec<CacheKey> = (0..50).flat_map(|n| [flow(n), flow_v6(n), flow_v6(1000 + n)]).collect();
    keys.extend((50..100).map(flow_v6));
    let entry = |n: usize| CacheEntry { decision: Decision::Protect { tunnel: n as u32 % 7 }, cookie: 1, reason: None };
    for family in [|key: &CacheKey| key.tuple().source.is_ipv4(), |key: &CacheKey| key.tuple().source.is_ipv6()] {
        for (n, key) in keys.iter().enumerate().filter(|(n, key)| n % 5 != 0 && family(key)) {
            put(&mut other, key, entry(n), 1, at(0));
        }
        let mut found = vec![Some(DROP); keys.len()];
        r.look_up_batch(&keys, 1, at(5), &mut found);
        r.count();
        let expected: Vec<_> = (0..keys.len()).map(|n| other.look_up_again(&keys[n], 1, at(5))).collect();
        assert_eq!(found, expected);
    }
    for record in records(&c) {
        let n = keys.iter().position(|key| *key == record.key).unwrap();
        assert_eq!(record.entry, Some(entry(n)));
        // The one that made it, and one or two batches.
        let packets = if record.key.tuple().source.is_ipv4() { 3 } else { 2 };
        assert_eq!((record.packets, record.last_use), (packets, at(5)), "{:?}", record.key);
    }
}

/// A batch under the policies before, while others have newer ones: decisions have numbers anew under these, and an
/// old entry must not be read as one of them.
#[test]
fn a_batch_that_is_late_has_the_decisions_of_its_own_policies_or_none() {
    let (c, mut r) = cache(1000, 1000);
    let mut other = c.reader();
    let keys: Vec<_> = (0..100).map(flow).collect();
    for key in &keys[1..] {
        put(&mut r, key, PROTECT, 1, at(0));
    }
    // A decision of the same policies that `r` has not met, and then one of newer policies.
    put(&mut other, &keys[0], DROP, 1, at(0));
    put(&mut other, &flow(1000), PASS, 2, at(0));
    let mut found = vec![None; keys.len()];
    r.look_up_batch(&keys, 1, at(0), &mut found);
    assert!(found[0].is_none() || found[0] == Some(DROP));
    for answer in &found[1..] {
        assert!(answer.is_none() || *answer == Some(PROTECT), "{answer:?}");
    }
    assert_eq!(r.look_up(&keys[1], 2, at(0)), None);
}

/// HP-UX scenario H12: alerts at the soft limit and each further 1000, traffic unaffected.
#[test]
fn the_soft_limit_alerts_and_refuses_nothing() {
    let (_, mut r) = cache(2500, 100_000);
    let mut events = Vec::new();
    for n in 0..5_000 {
        assert_eq!(r.insert(&flow(n), PASS, 1, at(0), &mut |e| events.push((n + 1, e))), Inserted::Inserted);
        // The same again counts nothing.
        assert_eq!(put(&mut r, &flow(n), PASS, 1, at(0)), Inserted::AlreadyThere);
    }
    let soft = |entries| SoftLimit { entries };
    assert_eq!(events, [(2500, soft(2500)), (3500, soft(3500)), (4500, soft(4500))]);
    assert!((0..5_000).all(|n| r.look_up(&flow(n), 1, at(0)) == Some(PASS)));
}

/// HP-UX scenario H13: at the hard limit new conversations are refused, cached ones go on.
#[test]
fn the_hard_limit_refuses_until_it_is_raised_or_entries_age_out() {
    let (c, mut r) = cache(10_000, 1000);
    let mut events = Vec::new();
    let mut insert = |r: &mut Reader, n, now| r.insert(&flow(n), PASS, 1, now, &mut |e| events.push(e));
    assert!((0..1000).all(|n| insert(&mut r, n, at(0)) == Inserted::Inserted));
    assert!((1000..1500).all(|n| insert(&mut r, n, at(0)) == Inserted::HardLimit));
    assert!((0..1000).all(|n| insert(&mut r, n, at(0)) == Inserted::AlreadyThere));
    assert!((1000..1500).all(|n| r.look_up(&flow(n), 1, at(0)).is_none()));
    assert!((0..500).all(|n| r.look_up(&flow(n), 1, at(60)) == Some(PASS)));
    assert_eq!(c.len(), 1000);

    c.change_limits(Limits { soft: 10_000, hard: 1100 }, &mut |e| panic!("{e:?}"));
    assert_eq!((1000..1500).filter(|n| insert(&mut r, *n, at(60)) == Inserted::Inserted).count(), 100);

    assert_eq!(c.age(at(61), Duration::from_secs(30)), 500);
    assert_eq!((2000..4000).filter(|n| insert(&mut r, *n, at(61)) == Inserted::Inserted).count(), 500);
    assert_eq!(c.len(), 1100);
    // One alert for each time it was crossed.
    assert_eq!(events, [1000, 1100, 1100].map(|entries| HardLimit { entries }));
}

#[test]
fn four_threads_never_pass_the_hard_limit_and_stop_exactly_there() {
    const HARD: u64 = 20_000;
    let (c, _) = cache(18_000, HARD);
    let (done, events) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let inserted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Relaxed) {
                assert!(c.len() <= HARD);
                let mut walked = 0u64;
                c.for_each(at(0), |_| walked += 1);
                assert!(walked <= HARD, "{walked}");
            }
        });
        let writers: Vec<_> = (0..4u32)
            .map(|thread| {
                let (mut r, events, inserted) = (c.reader(), &events, &inserted);
                scope.spawn(move || {
                    let mut mine: Vec<LimitEvent> = Vec::new();
                    // Half of the conversations are the thread's own, half are everybody's.
                    for n in 0..20_000 {
                        let n = if n % 2 == 0 { n } else { n + (thread + 1) * 100_000 };
                        if r.insert(&flow(n), PASS, 1, at(0), &mut |e| mine.push(e)) == Inserted::Inserted {
                            inserted.fetch_add(1, Relaxed);
                        }
                    }
                    events.lock().unwrap().append(&mut mine);
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Relaxed);
        watcher.join().unwrap();
    });
    assert_eq!(c.len(), HARD);
    assert_eq!(records(&c).len() as u64, HARD);
    assert_eq!(inserted.into_inner(), HARD);
    let mut events = events.into_inner().unwrap();
    events.sort_by_key(|e| match e {
        SoftLimit { entries } | HardLimit { entries } | LimitEvent::ShareLimit { entries, .. } => *entries,
    });
    // 20 000 is both a soft threshold and the hard limit.
    assert_eq!(events[..2], [18_000, 19_000].map(|entries| SoftLimit { entries }));
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(events.contains(&SoftLimit { entries: HARD }) && events.contains(&HardLimit { entries: HARD }));
}

/// Inserting, replacing, ageing, looking up and walking at once leave the count exact.
#[test]
fn no_place_is_lost_under_churn() {
    const HARD: u64 = 500;
    let (c, mut r) = cache(u64::MAX, HARD);
    std::thread::scope(|scope| {
        for thread in 0..3u32 {
            let mut r = c.reader();
            scope.spawn(move || {
                let mut seed = thread + 1;
                for step in 0..60_000u32 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let (key, epoch, now) = (flow((seed >> 8) % 700), 1 + step / 20_000, at(u64::from(step / 100)));
                    if r.look_up(&key, epoch, now).is_none() {
                        let _ = r.insert(&key, PASS, epoch, now, &mut |_| ());
                    }
                }
            });
        }
        scope.spawn(|| {
            for step in 0..2_000u32 {
                if step % 2 == 0 {
                    c.age(at(u64::from(step) / 4), Duration::from_secs(2));
                } else {
                    c.clear_stale(1 + step / 700);
                }
                let walked = records(&c);
                assert!(walked.len() as u64 <= HARD);
                let distinct: BTreeSet<_> = walked.iter().map(|r| r.key).collect();
                assert_eq!(distinct.len(), walked.len());
            }
        });
    });
    assert_eq!(c.len(), records(&c).len() as u64);
    c.age(at(1_000), Duration::ZERO);
    assert_eq!((c.len(), records(&c).len()), (0, 0));
    // All places are free again.
    assert!((0..HARD as u32).all(|n| r.insert(&flow(n), PASS, 9, at(1), &mut |_| ()) == Inserted::Inserted));
    assert_eq!(r.insert(&flow(600), PASS, 9, at(1), &mut |_| ()), Inserted::HardLimit);
}

/// The tables begin small and grow under their readers: nothing is lost, nothing counted twice.
#[test]
fn entries_stay_while_the_tables_grow() {
    const ENTRIES: u32 = 150_000;
    for family in [flow, flow_v6] {
        let (c, mut r) = cache(u64::MAX, u64::MAX);
        let mut other = c.reader();
        for n in 0..ENTRIES {
            assert_eq!(put(&mut r, &family(n), PASS, 1, at(0)), Inserted::Inserted);
            assert_eq!(other.look_up(&family(n / 2), 1, at(0)), Some(PASS), "{n}");
            other.count();
        }
        for n in 0..ENTRIES {
            assert_eq!(r.look_up(&family(n), 1, at(0)), Some(PASS), "{n}");
            r.count();
        }
        assert!((ENTRIES..2 * ENTRIES).all(|n| r.look_up(&family(n), 1, at(0)).is_none()));
        let records = records(&c);
        assert_eq!((records.len(), c.len()), (ENTRIES as usize, u64::from(ENTRIES)));
        let keys: BTreeSet<_> = records.iter().map(|r| r.key).collect();
        assert_eq!(keys, (0..ENTRIES).map(family).collect());
        // One for the insertion, one for the look-up above, and two by the other reader where n was n / 2.
        let packets: u64 = records.iter().map(|r| r.packets).sum();
        assert_eq!(packets, 3 * u64::from(ENTRIES));
        assert!((0..ENTRIES).all(|n| r.remove(&family(n)) && !r.remove(&family(n))));
        assert!(c.is_empty() && c.memory() > 0);
    }
}

/// What the report says of memory at a limit is what the tables take then.
#[test]
fn the_memory_of_a_number_of_entries_is_known_before() {
    for (family, n) in [(flow as fn(u32) -> CacheKey, 60_000), (flow_v6, 60_000), (flow, 49_152), (flow, 49_153)] {
        let (c, mut r) = cache(u64::MAX, u64::MAX);
        let (v4, v6) = c.memory_with(u64::from(n));
        assert!((0..n).all(|n| put(&mut r, &family(n), PASS, 1, at(0)) == Inserted::Inserted));
        // A growth that is under way ends with a sweep, and then the reader takes notice of the new table.
        c.clear_stale(1);
        let _ = r.look_up(&family(0), 1, at(0));
        let expected = if family(0).tuple().source.is_ipv4() { v4 } else { v6 };
        assert_eq!(c.memory(), expected, "{n} entries such as {:?}", family(0));
    }
    let (c, _) = cache(u64::MAX, u64::MAX);
    let most = c.memory_with(u64::MAX);
    assert!(c.memory_with(0) <= c.memory_with(1_000_000) && c.memory_with(1_000_000) < most);
}

/// What was looked up before the table grew is counted where it was found.
#[test]
fn packets_go_to_their_own_entries_while_the_table_grows() {
    const ENTRIES: u32 = 60_000;
    let (c, mut r) = cache(u64::MAX, u64::MAX);
    put(&mut r, &flow(0), PASS, 1, at(0));
    for n in 1..ENTRIES {
        assert_eq!(r.look_up(&flow(0), 1, at(0)), Some(PASS));
        put(&mut r, &flow(n), PASS, 1, at(0));
    }
    for record in records(&c) {
        let expected = if record.key == flow(0) { u64::from(ENTRIES) } else { 1 };
        assert_eq!(record.packets, expected, "{:?}", record.key);
    }
}
