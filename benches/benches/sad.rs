//! Look-ups of SAs, beside what people would use in the SAD's stead. One
//! iteration is one look-up in a batch of 32, and one read from the SA that it finds; the parameter is
//! the number of SAs.
//!
//! - `sad`: inbound SAs by SPI, every one as often as the others.
//! - `sad_churn`: the same, while another thread installs and removes SAs as fast as it can.
//! - `sad_two_readers`: two threads share the iterations: where they do not hinder each other, half the time of `sad`.
//! - `sad_outbound`: the current SA of a tunnel; the parameter is the number of tunnels.
//!
//! Compare functions within one run: the machine's speed drifts between runs.

use arc_swap::ArcSwapOption;
use benches::flows::Seeded;
use benches::tables::BATCH;
use core::hash::{BuildHasherDefault, Hasher};
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use crypto::Entropy;
use policy::sad::{Outbound, Sad};
use std::cell::LazyCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Barrier, PoisonError, RwLock};
use std::time::{Duration, Instant};

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// As large as an SA is about, without its cipher.
#[repr(align(128))]
struct Sa {
    spi: u32,
    _hot: [u64; 16],
}

impl Sa {
    fn new(spi: u32) -> Arc<Self> {
        Arc::new(Self { spi, _hot: [0; 16] })
    }
}

/// Mixes an SPI: as cheap as can be, and good enough for SPIs drawn at random.
#[derive(Default)]
struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u32(u32::from(*b)));
    }

    fn write_u32(&mut self, n: u32) {
        let mixed = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Hash = BuildHasherDefault<SpiHasher>;

/// Looks up a batch and adds up what it reads from the SAs.
type Look<'a> = Box<dyn FnMut(&[u32]) -> u64 + 'a>;

trait Table: Sync {
    fn reader(&self) -> Look<'_>;
    fn insert(&self, spi: u32);
    fn remove(&self, spi: u32);
}

struct Caponier {
    sad: Sad<Sa>,
    batch: bool,
}

impl Table for Caponier {
    fn reader(&self) -> Look<'_> {
        let mut reader = self.sad.reader();
        let batch = self.batch;
        Box::new(move |spis| {
            let pinned = self.sad.pin(&mut reader);
            if !batch {
                return spis.iter().filter_map(|spi| pinned.find(*spi)).map(|sa| u64::from(sa.spi)).sum();
            }
            let mut found = [None; BATCH];
            pinned.find_batch(spis, &mut found[..spis.len()]);
            found.iter().flatten().map(|sa| u64::from(sa.spi)).sum()
        })
    }

    fn insert(&self, spi: u32) {
        self.sad.insert(spi, Sa::new(spi)).expect("it is not there");
    }

    fn remove(&self, spi: u32) {
        drop(self.sad.remove(spi));
    }
}

impl Table for papaya::HashMap<u32, Arc<Sa>, Hash> {
    fn reader(&self) -> Look<'_> {
        Box::new(|spis| {
            let map = self.pin();
            spis.iter().filter_map(|spi| map.get(spi)).map(|sa| u64::from(sa.spi)).sum()
        })
    }

    fn insert(&self, spi: u32) {
        self.pin().insert(spi, Sa::new(spi));
    }

    fn remove(&self, spi: u32) {
        self.pin().remove(&spi);
    }
}

impl Table for dashmap::DashMap<u32, Arc<Sa>, Hash> {
    fn reader(&self) -> Look<'_> {
        Box::new(|spis| spis.iter().filter_map(|spi| self.get(spi)).map(|sa| u64::from(sa.spi)).sum())
    }

    fn insert(&self, spi: u32) {
        self.insert(spi, Sa::new(spi));
    }

    fn remove(&self, spi: u32) {
        self.remove(&spi);
    }
}

impl Table for scc::HashMap<u32, Arc<Sa>, Hash> {
    fn reader(&self) -> Look<'_> {
        Box::new(|spis| spis.iter().filter_map(|spi| self.read_sync(spi, |_, sa| u64::from(sa.spi))).sum())
    }

    fn insert(&self, spi: u32) {
        let _ = self.insert_sync(spi, Sa::new(spi));
    }

    fn remove(&self, spi: u32) {
        self.remove_sync(&spi);
    }
}

impl Table for RwLock<HashMap<u32, Arc<Sa>, Hash>> {
    fn reader(&self) -> Look<'_> {
        Box::new(|spis| {
            let map = self.read().unwrap_or_else(PoisonError::into_inner);
            spis.iter().filter_map(|spi| map.get(spi)).map(|sa| u64::from(sa.spi)).sum()
        })
    }

    fn insert(&self, spi: u32) {
        self.write().unwrap_or_else(PoisonError::into_inner).insert(spi, Sa::new(spi));
    }

    fn remove(&self, spi: u32) {
        self.write().unwrap_or_else(PoisonError::into_inner).remove(&spi);
    }
}

type Maker = fn(usize) -> Box<dyn Table>;

const TABLES: [(&str, Maker); 6] = [
    ("caponier", |_| Box::new(Caponier { sad: Sad::new(), batch: false })),
    ("caponier_batch", |_| Box::new(Caponier { sad: Sad::new(), batch: true })),
    ("papaya", |n| Box::new(papaya::HashMap::<u32, Arc<Sa>, Hash>::with_capacity_and_hasher(n, Hash::default()))),
    ("dashmap", |n| Box::new(dashmap::DashMap::<u32, Arc<Sa>, Hash>::with_capacity_and_hasher(n, Hash::default()))),
    ("scc", |n| Box::new(scc::HashMap::<u32, Arc<Sa>, Hash>::with_capacity_and_hasher(n, Hash::default()))),
    ("rwlock_hashmap", |n| {
        Box::new(RwLock::new(HashMap::<u32, Arc<Sa>, Hash>::with_capacity_and_hasher(n, Hash::default())))
    }),
];

/// SPIs as they are drawn by default: any of 300 to 2500000, once each, in no order.
fn spis(count: usize) -> Vec<u32> {
    let mut random = Seeded(7);
    let mut drawn = BTreeSet::new();
    let mut spis = Vec::with_capacity(count);
    while spis.len() < count {
        let spi = 300 + (random.next_u64() % 2_499_701) as u32;
        if drawn.insert(spi) {
            spis.push(spi);
        }
    }
    spis
}

/// What is looked up, in turn: any of `choices`.
fn probes<T: Copy>(choices: &[T]) -> Vec<T> {
    let mut random = Seeded(8);
    (0..1 << 18).map(|_| choices[(random.next_u64() % choices.len() as u64) as usize]).collect()
}

/// The time of `iterations` look-ups, in batches, beginning somewhere in `probes`. Every one must be a hit.
fn timed<T: Copy + Into<u64>>(
    mut look: impl FnMut(&[T]) -> u64,
    probes: &[T],
    start: usize,
    iterations: u64,
) -> Duration {
    let batches = || probes[start..].chunks(BATCH).chain(probes.chunks(BATCH).cycle());
    let last = (iterations % BATCH as u64) as usize;
    let whole = (iterations / BATCH as u64) as usize;
    let mut sum = 0u64;
    let begin = Instant::now();
    for keys in batches().take(whole) {
        sum = sum.wrapping_add(black_box(look(keys)));
    }
    sum = sum.wrapping_add(look(&probes[..last]));
    let time = begin.elapsed();
    let expected = batches().take(whole).flatten().chain(&probes[..last]);
    assert_eq!(
        sum,
        expected.fold(0u64, |sum, key| sum.wrapping_add((*key).into())),
        "an SA is missing, or is another's"
    );
    time
}

fn group(c: &mut Criterion, name: &str, measure: impl Fn(&dyn Table, &[u32], u64) -> Duration) {
    let mut group = c.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for size in SIZES {
        let spis = spis(size);
        let probes = LazyCell::new(|| probes(&spis));
        for (function, make) in TABLES {
            let table = LazyCell::new(|| {
                let table = make(size);
                spis.iter().for_each(|spi| table.insert(*spi));
                table
            });
            group.bench_function(BenchmarkId::new(function, size), |b| {
                let (table, probes) = (&**table, &**probes);
                b.iter_custom(|n| measure(table, probes, n));
            });
        }
    }
    group.finish();
}

fn hit(c: &mut Criterion) {
    group(c, "sad", |table, probes, n| timed(table.reader(), probes, 0, n));
}

fn churn(c: &mut Criterion) {
    /// Above all that are looked up.
    const FIRST: u32 = 3_000_000;
    const PRESENT: u32 = 64;
    group(c, "sad_churn", |table, probes, n| {
        let (started, done) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                started.wait();
                let mut next = FIRST;
                while !done.load(Relaxed) {
                    table.insert(next);
                    if next - FIRST >= PRESENT {
                        table.remove(next - PRESENT);
                    }
                    next += 1;
                }
                (next.saturating_sub(PRESENT).max(FIRST)..next).for_each(|spi| table.remove(spi));
            });
            started.wait();
            let time = timed(table.reader(), probes, 0, n);
            done.store(true, Relaxed);
            time
        })
    });
}

fn two_readers(c: &mut Criterion) {
    group(c, "sad_two_readers", |table, probes, n| {
        let started = Barrier::new(2);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                started.wait();
                timed(table.reader(), probes, probes.len() / 2, n / 2)
            });
            started.wait();
            let time = timed(table.reader(), probes, 0, n - n / 2);
            time.max(other.join().unwrap_or_default())
        })
    });
}

/// The current SAs of tunnels: ours, in places that `arc_swap` guards, and under locks. `_kept`: with a
/// reference counted, as who keeps the SA needs it.
fn outbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("sad_outbound");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for size in SIZES {
        let tunnels: Vec<u32> = (0..size as u32).collect();
        let probes = probes(&tunnels);
        let ours = LazyCell::new(|| {
            let table = Outbound::new();
            tunnels.iter().for_each(|tunnel| table.install(*tunnel, 1, Sa::new(*tunnel)));
            table
        });
        group.bench_function(BenchmarkId::new("caponier", size), |b| {
            let mut reader = ours.reader();
            let mut look = |tunnels: &[u32]| {
                let pinned = ours.pin(&mut reader);
                tunnels.iter().filter_map(|tunnel| pinned.current(*tunnel)).map(|sa| u64::from(sa.spi)).sum()
            };
            b.iter_custom(|n| timed(&mut look, &probes, 0, n));
        });
        group.bench_function(BenchmarkId::new("caponier_kept", size), |b| {
            let mut reader = ours.reader();
            let mut look = |tunnels: &[u32]| {
                let pinned = ours.pin(&mut reader);
                tunnels.iter().filter_map(|tunnel| pinned.current_kept(*tunnel)).map(|sa| u64::from(sa.spi)).sum()
            };
            b.iter_custom(|n| timed(&mut look, &probes, 0, n));
        });
        let places: Vec<ArcSwapOption<Sa>> =
            tunnels.iter().map(|tunnel| ArcSwapOption::from(Some(Sa::new(*tunnel)))).collect();
        group.bench_function(BenchmarkId::new("arc_swap", size), |b| {
            let of = |tunnel: &u32| places[*tunnel as usize].load().as_ref().map(|sa| u64::from(sa.spi));
            let look = |tunnels: &[u32]| tunnels.iter().filter_map(of).sum();
            b.iter_custom(|n| timed(look, &probes, 0, n));
        });
        let locks: Vec<RwLock<Arc<Sa>>> = tunnels.iter().map(|tunnel| RwLock::new(Sa::new(*tunnel))).collect();
        group.bench_function(BenchmarkId::new("rwlock", size), |b| {
            let of =
                |tunnel: &u32| u64::from(locks[*tunnel as usize].read().unwrap_or_else(PoisonError::into_inner).spi);
            let look = |tunnels: &[u32]| tunnels.iter().map(of).sum();
            b.iter_custom(|n| timed(look, &probes, 0, n));
        });
    }
    group.finish();
}

criterion_group!(benches, hit, churn, two_readers, outbound);
criterion_main!(benches);
