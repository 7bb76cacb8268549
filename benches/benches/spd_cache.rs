//! Look-ups in the SPD cache: exact five-tuple and direction, IPv4.
//!
//! One iteration is one look-up. Keys come in an order without pattern, each
//! equally often, so that large tables miss the processor's caches as they do
//! in use. The parameter is the number of entries. Compare functions within
//! one run: the machine's speed drifts between runs.

use core::hash::BuildHasher;
use core::hint::black_box;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use crypto::Entropy;
use policy::cache::{CacheEntry, CacheKey, HashKey, SpdCache};
use policy::five_tuple::{Direction, FiveTuple, Ports};
use policy::limits::Limits;
use policy::spd::Decision;
use policy::time::Timestamp;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::RwLock;
use std::time::{Duration, Instant};

const ENTRIES: [u64; 3] = [1_000, 100_000, 1_000_000];
/// Packets of one batch of the packet path.
const BATCH: usize = 32;
const EPOCH: u32 = 1;
const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const ENTRY: CacheEntry = CacheEntry { decision: Decision::Protect { tunnel: 3 }, cookie: 2, reason: None };

/// The same keys and the same order in each run (SplitMix64).
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let chunk_len = chunk.len();
            chunk.copy_from_slice(&mix(self.0).to_le_bytes()[..chunk_len]);
        }
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Conversation `n`: a different one for each number below 2^48, half of them TCP.
fn key(n: u64) -> CacheKey {
    let (a, b) = (mix(n), mix(!n));
    let pair = Ports::Pair { source: b as u16, destination: (b >> 16) as u16 };
    let tuple = FiveTuple {
        source: Ipv4Addr::from_bits(a as u32).into(),
        destination: Ipv4Addr::from_bits((a >> 32) as u32).into(),
        protocol: if b >> 63 == 0 { 6 } else { 17 },
        ports: pair,
    };
    CacheKey::new(tuple, Direction::Outbound)
}

/// What people write without a special table, and without a packet counter.
type Plain = RwLock<HashMap<CacheKey, CacheEntry, WithKeys>>;

/// SipHash under keys, as `std` uses it, but the same in each run.
#[derive(Clone)]
struct WithKeys;

impl BuildHasher for WithKeys {
    type Hasher = std::hash::DefaultHasher;

    fn build_hasher(&self) -> Self::Hasher {
        std::hash::DefaultHasher::new()
    }
}

/// Keys to look up: `first..first + entries`, in an order without pattern.
fn probes(first: u64, entries: u64) -> Vec<CacheKey> {
    let mut probes: Vec<_> = (first..first + entries).map(key).collect();
    let mut random = Seeded(7);
    for at in (1..probes.len()).rev() {
        probes.swap(at, (random.next_u64() % (at as u64 + 1)) as usize);
    }
    probes
}

/// Runs `look_up` on chunks of up to `chunk` keys until `iterations` keys are done, and takes the time.
fn timed(probes: &[CacheKey], chunk: usize, iterations: u64, mut look_up: impl FnMut(&[CacheKey])) -> Duration {
    let mut left = iterations;
    let start = Instant::now();
    while left > 0 {
        for keys in probes.chunks(chunk) {
            let keys = &keys[..keys.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            look_up(keys);
            left -= keys.len() as u64;
            if left == 0 {
                break;
            }
        }
    }
    start.elapsed()
}

/// `first`: where the keys that are looked up begin; the table holds those from 0.
fn look_ups(group: &mut BenchmarkGroup<'_, WallTime>, first: impl Fn(u64) -> u64) {
    for entries in ENTRIES {
        let limits = Limits { soft: u64::MAX, hard: u64::MAX };
        let cache = SpdCache::new(limits, HashKey::draw(&mut Seeded(1)));
        let plain = Plain::new(HashMap::with_hasher(WithKeys));
        for n in 0..entries {
            let _ = cache.insert(&key(n), ENTRY, EPOCH, NOW, &mut |_| ());
            if let Ok(mut plain) = plain.write() {
                plain.insert(key(n), ENTRY);
            }
        }
        let probes = probes(first(entries), entries);

        group.bench_function(BenchmarkId::new("caponier", entries), |b| {
            b.iter_custom(|n| {
                timed(&probes, BATCH, n, |keys| {
                    for key in keys {
                        black_box(cache.look_up(key, EPOCH, NOW));
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("caponier_batch", entries), |b| {
            let mut found = [None; BATCH];
            b.iter_custom(|n| {
                timed(&probes, BATCH, n, |keys| {
                    cache.look_up_batch(keys, EPOCH, NOW, &mut found[..keys.len()]);
                    black_box(&found);
                })
            });
        });
        group.bench_function(BenchmarkId::new("rwlock_hashmap", entries), |b| {
            b.iter_custom(|n| {
                timed(&probes, BATCH, n, |keys| {
                    for key in keys {
                        black_box(plain.read().map_or(None, |plain| plain.get(key).copied()));
                    }
                })
            });
        });
    }
}

fn spd_cache(c: &mut Criterion) {
    let mut group = c.benchmark_group("spd_cache_hit");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    look_ups(&mut group, |_| 0);
    group.finish();

    let mut group = c.benchmark_group("spd_cache_miss");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    look_ups(&mut group, |entries| entries);
    group.finish();
}

criterion_group!(benches, spd_cache);
criterion_main!(benches);
