//! Thousands of seeded runs of engines on virtual time: see [`tests::simulation`].
//!
//! `CAPONIER_SEED=N` runs one seed; `CAPONIER_SEEDS=N` that many, from 0.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tests::simulation;

/// What a run of all tests tries: less than a minute's worth.
const SEEDS: u64 = 2000;
/// So many failures are enough to look into.
const ENOUGH: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

/// A failure can be replayed: nothing but the seed decides.
#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..20 {
        assert_eq!(simulation::run(seed), simulation::run(seed), "seed {seed}");
    }
}

#[test]
fn every_seed_ends_well() {
    if let Some(seed) = number("CAPONIER_SEED") {
        simulation::run(seed);
        return;
    }
    let seeds = number("CAPONIER_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let failures = failed.lock().expect("no panic while it is held").len();
            if seed >= seeds || failures >= ENOUGH {
                return;
            }
            if catch_unwind(|| simulation::run(seed)).is_err() {
                failed.lock().expect("no panic while it is held").push(seed);
            }
        }
    };
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("no panic while it was held");
    assert!(failed.is_empty(), "failed: {failed:?}; run one again with CAPONIER_SEED=N");
}
