//! The SPD cache under everything at once, for as long as `CAPONIER_STRESS_SECONDS` says (2 unless told).
//!
//! Readers and writers of both families, single and in batches, while the tables grow, policies are
//! replaced, entries age out, somebody walks, and the limits go up and down. A decision is a function
//! of its key and its epoch, so whatever a look-up returns shows whether it was ever stored for that key.
//! What must hold: no look-up returns anything else; there is never one entry more than the hard limit,
//! or than there were when it was lowered; at the end the count is what a walk finds.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test, not what it tests, has a clock and an environment"
)]

mod common;

use common::{flow, flow_v6, hash_key};
use policy::cache::{CacheEntry, CacheKey, Inserted, SpdCache};
use policy::five_tuple::Direction;
use policy::limits::{LimitEvent, Limits, SOFT_STEP};
use policy::spd::Decision;
use policy::time::Timestamp;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Above the first growth of either table (12 288 and 4 096 entries), and below the number of keys.
const HIGH: u64 = 40_000;
const LOW: u64 = 15_000;
const SOFT: u64 = 10_000;
const KEYS: u32 = 60_000;
const WRITERS: usize = 3;
const READERS: usize = 2;
/// Threads start anew with the keys so often that tables which have grown are also seen nearly empty.
const EPOCH_OPERATIONS: u64 = 100_000;

fn duration() -> Duration {
    let named = std::env::var("CAPONIER_STRESS_SECONDS").ok();
    Duration::from_secs(named.map_or(2, |s| s.parse().expect("CAPONIER_STRESS_SECONDS is a number of seconds")))
}

/// The one decision of a key in an epoch.
fn decision(key: &CacheKey, epoch: u32) -> CacheEntry {
    let mut hasher = DefaultHasher::new();
    (key, epoch).hash(&mut hasher);
    let number = (hasher.finish() % 1009) as u32;
    CacheEntry { decision: Decision::Protect { tunnel: number }, cookie: epoch, reason: None }
}

fn key(n: u32) -> CacheKey {
    // Neighbours differ in family and direction alone.
    let key = if n.is_multiple_of(3) { flow_v6(n / 4) } else { flow(n / 4) };
    CacheKey::new(key.tuple(), if n.is_multiple_of(2) { Direction::Outbound } else { Direction::Inbound })
}

/// Seeded, so that each run tries the same (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(end)) >> 32) as u32
    }
}

struct Stress {
    cache: std::sync::Arc<SpdCache>,
    done: AtomicBool,
    epoch: AtomicU32,
    /// In milliseconds: so that entries of a run of seconds age.
    start: Instant,
    operations: AtomicU64,
    hits: AtomicU64,
    refused: AtomicU64,
    /// Steps of each writer: two more, and it has seen whatever was before.
    steps: [AtomicU64; WRITERS],
    told: Mutex<Vec<LimitEvent>>,
}

impl Stress {
    /// A hundred times as fast as the real one.
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.start.elapsed().as_micros() as u64 * 100)
    }

    fn check(&self, key: &CacheKey, epoch: u32, found: Option<CacheEntry>) {
        if let Some(found) = found {
            assert_eq!(found, decision(key, epoch), "a decision that was never stored for {key:?} in epoch {epoch}");
            self.hits.fetch_add(1, Relaxed);
        }
    }

    fn write(&self, writer: usize) {
        let (mut reader, mut random) = (self.cache.reader(), Random(writer as u64 + 1));
        while !self.done.load(Relaxed) {
            self.steps[writer].fetch_add(1, SeqCst);
            let (key, epoch, now) = (key(random.below(KEYS)), self.epoch.load(Relaxed), self.now());
            let found = reader.look_up(&key, epoch, now);
            self.check(&key, epoch, found);
            match random.below(16) {
                0 => {
                    reader.remove(&key);
                }
                _ if found.is_none() => {
                    let mut told = Vec::new();
                    let outcome = reader.insert(&key, decision(&key, epoch), epoch, now, &mut |e| told.push(e));
                    self.refused.fetch_add(u64::from(outcome == Inserted::HardLimit), Relaxed);
                    if !told.is_empty() {
                        self.told.lock().expect("nobody panics with it").append(&mut told);
                    }
                    // Newer policies may be in force by now, but these decisions are still right.
                    let found = reader.look_up(&key, epoch, now);
                    self.check(&key, epoch, found);
                }
                _ => {}
            }
            if self.operations.fetch_add(1, Relaxed).is_multiple_of(EPOCH_OPERATIONS) {
                self.epoch.fetch_add(1, Relaxed);
            }
        }
    }

    fn read(&self, number: usize) {
        let (mut reader, mut random) = (self.cache.reader(), Random(number as u64 + 1000));
        let (mut keys, mut found) = (Vec::new(), Vec::new());
        while !self.done.load(Relaxed) {
            let (epoch, now) = (self.epoch.load(Relaxed), self.now());
            keys.clear();
            keys.extend((0..random.below(100)).map(|_| key(random.below(KEYS))));
            found.clear();
            found.resize(keys.len(), None);
            reader.look_up_batch(&keys, epoch, now, &mut found);
            keys.iter().zip(&found).for_each(|(key, found)| self.check(key, epoch, *found));
            reader.count();
        }
    }

    /// Policies that are gone, idle entries, and a report, as the daemon has them.
    fn keep_house(&self) {
        while !self.done.load(Relaxed) {
            self.cache.age(self.now(), Duration::from_secs(20));
            self.cache.clear_stale(self.epoch.load(Relaxed));
            let mut walked = 0;
            self.cache.for_each(self.now(), |record| {
                walked += 1;
                if let Some(entry) = record.entry {
                    assert_eq!(entry, decision(&record.key, record.epoch), "{record:?}");
                }
            });
            // Not all that it saw need have been there at once, but each group was.
            assert!(walked <= HIGH + HIGH / 2, "{walked}");
        }
    }

    /// The limits go up and down, and the count is watched under each.
    fn change_limits(&self) {
        let limits = |hard| Limits { soft: SOFT, hard };
        let mut most = HIGH;
        for round in 0u64.. {
            let hard = if round.is_multiple_of(2) { HIGH } else { LOW };
            self.cache.change_limits(limits(hard), &mut |e| panic!("the soft limit is the same: {e:?}"));
            most = if hard == HIGH { HIGH } else { self.lowered(hard, most) };
            let until = Instant::now() + Duration::from_millis(50);
            while Instant::now() < until {
                if self.done.load(Relaxed) {
                    return;
                }
                let entries = self.cache.len();
                assert!(entries <= most, "{entries} entries, {most} at most, under a hard limit of {hard}");
                // Those above a lowered limit only become fewer.
                most = if hard == HIGH { HIGH } else { entries.max(hard) };
            }
        }
    }

    /// The entries there may still be after the hard limit was lowered: writers that had read the one before are waited for.
    fn lowered(&self, hard: u64, before: u64) -> u64 {
        let steps: Vec<_> = self.steps.iter().map(|s| s.load(SeqCst)).collect();
        while self.steps.iter().zip(&steps).any(|(now, then)| now.load(SeqCst) < then + 2) && !self.done.load(Relaxed) {
            assert!(self.cache.len() <= before);
            std::thread::yield_now();
        }
        self.cache.len().max(hard)
    }
}

#[test]
fn what_is_found_was_stored_and_the_limits_hold() {
    let stress = Stress {
        cache: SpdCache::new(Limits { soft: SOFT, hard: HIGH }, hash_key()),
        done: AtomicBool::new(false),
        epoch: AtomicU32::new(1),
        start: Instant::now(),
        operations: AtomicU64::new(1),
        hits: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        steps: [const { AtomicU64::new(0) }; WRITERS],
        told: Mutex::new(Vec::new()),
    };
    let ends = Instant::now() + duration();
    std::thread::scope(|scope| {
        let stress = &stress;
        let mut threads = Vec::new();
        threads.extend((0..WRITERS).map(|n| scope.spawn(move || stress.write(n))));
        threads.extend((0..READERS).map(|n| scope.spawn(move || stress.read(n))));
        threads.push(scope.spawn(|| stress.keep_house()));
        threads.push(scope.spawn(|| stress.change_limits()));
        let latest = ends + Duration::from_secs(120);
        // One that fails ends the others. A machine with much else to do takes longer to be of use.
        let enough = || Instant::now() >= ends && (stress.epoch.load(Relaxed) > 3 || Instant::now() >= latest);
        while !enough() && !threads.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(10));
        }
        stress.done.store(true, Relaxed);
    });

    let walk = || {
        let mut keys = std::collections::BTreeSet::new();
        let mut walked = 0u64;
        stress.cache.for_each(stress.now(), |record| {
            walked += 1;
            keys.insert(record.key);
        });
        assert_eq!(keys.len() as u64, walked, "an entry is seen twice");
        walked
    };
    assert_eq!(stress.cache.len(), walk());
    let last = stress.epoch.load(Relaxed);
    stress.cache.clear_stale(last);
    assert_eq!(stress.cache.len(), walk());

    // It was what it was meant to be.
    let (hits, refused) = (stress.hits.load(Relaxed), stress.refused.load(Relaxed));
    eprintln!("{} steps, {hits} hits, {refused} refused, {last} epochs", stress.operations.load(Relaxed));
    assert!(hits > 1000 && refused > 0 && last > 2, "{hits} hits, {refused} refused, {last} epochs");
    for event in stress.told.into_inner().unwrap() {
        match event {
            LimitEvent::SoftLimit { entries } => {
                assert!(entries >= SOFT && (entries - SOFT).is_multiple_of(SOFT_STEP) && entries <= HIGH, "{entries}");
            }
            LimitEvent::HardLimit { entries } => assert!([LOW, HIGH].contains(&entries), "{entries}"),
            LimitEvent::ShareLimit { .. } => panic!("{event:?}"),
        }
    }
}
