//! Thousands of seeded runs of engines on virtual time: see [`simulation`].
//!
//! `CAPONIER_SEED=N` runs one seed; `CAPONIER_SEEDS=N` that many, from 0; `CAPONIER_SEEDS=A..B` those from A to before B.
#![allow(clippy::print_stderr)] // how far a long run is

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a run of all tests tries: about a minute's worth on two cores.
const SEEDS: u64 = 10_000;
/// So many failures are enough to look into.
const ENOUGH: usize = 5;

fn number(text: &str, what: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{what}: `{text}` is not a number"))
}

/// The seeds that the environment asks for.
fn seeds() -> Range<u64> {
    if let Ok(seed) = std::env::var("CAPONIER_SEED") {
        let seed = number(&seed, "CAPONIER_SEED");
        return seed..seed + 1;
    }
    let Ok(seeds) = std::env::var("CAPONIER_SEEDS") else { return 0..SEEDS };
    match seeds.split_once("..") {
        Some((first, end)) => number(first, "CAPONIER_SEEDS")..number(end, "CAPONIER_SEEDS"),
        None => 0..number(&seeds, "CAPONIER_SEEDS"),
    }
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
    let seeds = seeds();
    let (next, failed) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let failures = failed.lock().expect("no panic while it is held").len();
            if seed >= seeds.end || failures >= ENOUGH {
                return;
            }
            if catch_unwind(|| simulation::run(seed)).is_err() {
                failed.lock().expect("no panic while it is held").push(seed);
            }
            if seed > seeds.start && seed.is_multiple_of(SEEDS) {
                eprintln!("{} seeds tried, {failures} failed", seed - seeds.start);
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
