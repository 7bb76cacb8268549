//! Look-ups in the SPD cache by exact five-tuple and direction, beside what
//! people would use in its stead. One iteration is one look-up, the parameter
//! is the number of entries.
//!
//! - `spd_cache_hit`: every entry as often as the others, in no order, so that
//!   large tables miss the processor's caches.
//! - `spd_cache_zipf`: the one of rank `k` in proportion to `1/k`.
//! - `spd_cache_miss`: conversations that are not there.
//! - `spd_cache_churn`: hits, while another thread adds and removes entries as fast as it can.
//! - `spd_cache_two_readers`: hits of two threads, which share the iterations:
//!   where they do not hinder each other, half the time of `spd_cache_hit`.
//!
//! Compare functions within one run: the machine's speed drifts between runs.
//! `SPD_CACHE_ENTRIES=1000,1000000` chooses the sizes.

use benches::flows::{Family, Popularity, flow, probes};
use benches::tables::{BATCH, TABLES, Table};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use policy::cache::CacheKey;
use std::cell::LazyCell;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const ENTRIES: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

fn sizes() -> Vec<u64> {
    match std::env::var("SPD_CACHE_ENTRIES") {
        Ok(given) => given.split(',').map(|n| n.trim().parse().expect("SPD_CACHE_ENTRIES: numbers")).collect(),
        Err(_) => ENTRIES.to_vec(),
    }
}

fn filled(make: fn(u64) -> Box<dyn Table>, family: Family, entries: u64) -> Box<dyn Table> {
    let table = make(entries);
    let mut writer = table.writer();
    for n in 0..entries {
        writer.insert(&flow(family, n));
    }
    writer.publish();
    drop(writer);
    table
}

/// Looks up `iterations` keys in batches, beginning somewhere in `probes`; the time it took, and how many were there.
fn timed(table: &dyn Table, probes: &[CacheKey], start: usize, iterations: u64) -> (Duration, u64) {
    let mut look = table.reader();
    let mut left = iterations as usize;
    let mut batches = probes[start..].chunks(BATCH).chain(probes.chunks(BATCH).cycle());
    let mut found = 0;
    let begin = Instant::now();
    while let Some(keys) = batches.next().filter(|_| left > 0) {
        let keys = &keys[..keys.len().min(left)];
        found += look(keys) as u64;
        left -= keys.len();
    }
    (begin.elapsed(), found)
}

fn group(
    c: &mut Criterion,
    name: &str,
    popularity: Popularity,
    measure: impl Fn(&dyn Table, Family, &[CacheKey], u64, u64) -> Duration,
) {
    for (family, suffix) in [(Family::V4, ""), (Family::V6, "_ipv6")] {
        let mut group = c.benchmark_group(format!("{name}{suffix}"));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
        for entries in sizes() {
            let probes = LazyCell::new(|| probes(family, entries, popularity));
            for (function, make) in TABLES {
                // Made only if it is measured, and before that begins.
                let table = LazyCell::new(|| filled(make, family, entries));
                group.bench_function(BenchmarkId::new(function, entries), |b| {
                    let (table, probes) = (&**table, &*probes);
                    b.iter_custom(|n| measure(table, family, probes, entries, n));
                });
            }
        }
        group.finish();
    }
}

fn all_found(table: &dyn Table, _: Family, probes: &[CacheKey], _: u64, n: u64) -> Duration {
    let (time, found) = timed(table, probes, 0, n);
    assert_eq!(found, n, "an entry is missing");
    time
}

fn hit(c: &mut Criterion) {
    group(c, "spd_cache_hit", Popularity::Uniform, all_found);
}

fn zipf(c: &mut Criterion) {
    group(c, "spd_cache_zipf", Popularity::Zipf, all_found);
}

fn miss(c: &mut Criterion) {
    group(c, "spd_cache_miss", Popularity::Absent, |table, _, probes, _, n| {
        let (time, found) = timed(table, probes, 0, n);
        assert_eq!(found, 0, "an entry that nobody made");
        time
    });
}

fn churn(c: &mut Criterion) {
    group(c, "spd_cache_churn", Popularity::Uniform, |table, family, probes, entries, n| {
        let (started, done) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| churn_until(table, family, entries, &started, &done));
            started.wait();
            let (time, found) = timed(table, probes, 0, n);
            done.store(true, Relaxed);
            // A look-up that meets a writer may miss; nearly all do not.
            assert!(found + n / 100 + BATCH as u64 >= n, "{found} of {n} found");
            time
        })
    });
}

/// Adds and removes entries that nobody looks up; some thousand are there at a time.
fn churn_until(table: &dyn Table, family: Family, entries: u64, started: &Barrier, done: &AtomicBool) {
    const FIRST: u64 = 1 << 40;
    let present = 8192.min(entries / 8);
    let mut writer = table.writer();
    started.wait();
    let mut next = FIRST;
    while !done.load(Relaxed) {
        writer.insert(&flow(family, next));
        if next - FIRST >= present {
            writer.remove(&flow(family, next - present));
        }
        next += 1;
        if next.is_multiple_of(1000) {
            writer.publish();
        }
    }
    for n in next.saturating_sub(present).max(FIRST)..next {
        writer.remove(&flow(family, n));
    }
    writer.publish();
}

fn two_readers(c: &mut Criterion) {
    group(c, "spd_cache_two_readers", Popularity::Uniform, |table, _, probes, _, n| {
        let started = Barrier::new(2);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                started.wait();
                timed(table, probes, probes.len() / 2, n / 2).0
            });
            started.wait();
            let (time, _) = timed(table, probes, 0, n - n / 2);
            time.max(other.join().unwrap_or_default())
        })
    });
}

criterion_group!(benches, hit, miss, zipf, churn, two_readers);
criterion_main!(benches);
