//! The SPD cache: decisions by exact five-tuple and direction.
//!
//! A [`Reader`] looks up without a lock and without writing to memory that
//! other threads use, but for a note of the time of use, once for each entry
//! and [tick](SpdCache::age). An entry carries the epoch of the policies that
//! made it; under any other epoch it is a miss, and is replaced in place.
//! Entries are counted exactly under [`Limits`]; idle ones age out. The tables
//! grow as entries come, without a pause: see `growing.rs`.
//!
//! Using it, for a batch of packets: [`load`](crate::spd::SharedSpd::load) a
//! snapshot, [`look_up_batch`](Reader::look_up_batch) with its epoch, and for
//! each miss [`decide`](crate::spd::Spd::decide) and
//! [`insert`](Reader::insert) with the same one. A packet whose decision
//! could not be inserted for the hard limit is dropped, whatever the decision.
//! [`count`](Reader::count) counts the packets of the batch for the report.

mod bucket;
mod family;
mod growing;
mod key;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod pages;
mod reader;
mod share;
mod table;
mod verdicts;

pub use key::{CacheKey, HashKey};
pub use reader::Reader;

use crate::counters::DropReason;
use crate::limits::{LimitEvent, Limits, Quota};
use crate::spd::{Decision, Verdict};
use crate::sync::{Apart, Mutex, lock};
use crate::time::Timestamp;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use growing::Growing;
use key::EpochTag;
use std::sync::Arc;
use verdicts::Verdicts;

/// A cached decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheEntry {
    /// What to do.
    pub decision: Decision,
    /// The policy that decided, as in [`Verdict`].
    pub cookie: u32,
    /// Why it is dropped, with [`Decision::Discard`].
    pub reason: Option<DropReason>,
}

impl From<Verdict> for CacheEntry {
    fn from(v: Verdict) -> Self {
        Self { decision: v.decision, cookie: v.cookie, reason: v.reason }
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The entry is there: a new one, or one that replaced a stale one.
    Inserted,
    /// Somebody was faster: there is an entry of this epoch, which counts the
    /// packet, or there are newer policies already. The decision holds for its packet all the same.
    AlreadyThere,
    /// There is no room. The packet is to be dropped as [`DropReason::SpdHardLimit`].
    HardLimit,
    /// Its policy has as many entries as it may have. The packet is to be dropped as [`DropReason::CacheShareLimit`].
    ShareLimit,
}

/// One entry, as the report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// Which conversation.
    pub key: CacheKey,
    /// What is done with it; `None` for an entry of older policies, which decides nothing any more.
    pub entry: Option<CacheEntry>,
    /// Of which policies.
    pub epoch: u32,
    /// When it was last looked up or made, rounded down to a tick (see [`SpdCache::age`]).
    pub last_use: Timestamp,
    /// Packets it decided, the one that made it included.
    pub packets: u64,
}

/// The part of the cache that one policy may take, and takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareUse {
    /// The policy.
    pub cookie: u32,
    /// Of the hard limit, in percent.
    pub percent: u8,
    /// Entries it may have.
    pub limit: u64,
    /// Entries it has.
    pub entries: u64,
}

/// The cache. Share it in an [`Arc`]; whoever looks up has a [`Reader`] of its own.
#[derive(Debug)]
pub struct SpdCache {
    // Three entries of IPv4 share a line, one of IPv6 has its own.
    v4: Growing<2, 3>,
    v6: Growing<5, 1>,
    hash_key: HashKey,
    quota: Quota,
    verdicts: Mutex<Verdicts>,
    /// Lanes of readers that are gone, and how many there have been.
    lanes: Mutex<(Vec<usize>, usize)>,
    /// Length of a tick, in seconds.
    tick: Apart<AtomicU64>,
}

// An entry's value: the number of its verdict, then the tick of its last use.
const STAMP_BITS: u32 = 12;
const STAMP: u32 = (1 << STAMP_BITS) - 1;
/// Ticks in an idle time at most: so many can pass twice before stamps wrap.
const TICKS: u64 = 1 << (STAMP_BITS - 2);

/// The time of use as an entry has it: ticks, modulo 2^12.
fn stamp(now: Timestamp, tick: u64) -> u32 {
    (now.as_micros() / 1_000_000 / tick) as u32 & STAMP
}

/// Ticks from stamp `then` to stamp `now`. What seems to lie in the future is now: somebody's clock is behind.
fn ticks_between(then: u32, now: u32) -> u32 {
    let between = now.wrapping_sub(then) & STAMP;
    if between > STAMP - STAMP / 4 { 0 } else { between }
}

impl SpdCache {
    /// An empty cache. `hash_key` is drawn at random at each start, so that
    /// nobody outside can choose five-tuples that collide.
    ///
    /// # Panics
    /// If the system has no memory for the first tables, some 5 MB.
    #[must_use]
    pub fn new(limits: Limits, hash_key: HashKey) -> Arc<Self> {
        let no_memory = "memory for the first tables of the SPD cache";
        Arc::new(Self {
            v4: Growing::new().expect(no_memory),
            v6: Growing::new().expect(no_memory),
            hash_key,
            quota: Quota::new(limits),
            verdicts: Mutex::new(Verdicts::default()),
            lanes: Mutex::new((Vec::new(), 0)),
            tick: Apart(AtomicU64::new(1)),
        })
    }

    /// Removes entries not used for longer than `idle`; returns how many. To
    /// be called every few seconds.
    ///
    /// The time of use is kept in ticks of a second, longer ones when `idle`
    /// is more than 1024 seconds. An entry goes at the latest a tick after its time.
    pub fn age(&self, now: Timestamp, idle: Duration) -> u64 {
        let tick = idle.as_secs().div_ceil(TICKS).clamp(1, u64::from(u32::MAX));
        let before = self.tick.swap(tick, Relaxed);
        let stamp = stamp(now, tick);
        let idle = idle.as_secs() / tick;
        if before == tick {
            return self.sweep(|_, value| u64::from(ticks_between(value & STAMP, stamp)) > idle);
        }
        // Stamps in the old ticks say little in the new ones: all entries count as used just now, once.
        self.restamp(stamp);
        0
    }

    fn restamp(&self, now: u32) {
        let anew = |value: u32| value & !STAMP | now;
        self.v4.for_each_group(&self.hash_key, |g| {
            g.for_each(&self.hash_key, |_, slot, _, value| g.table.exchange_value(slot, value, anew(value)));
        });
        self.v6.for_each_group(&self.hash_key, |g| {
            g.for_each(&self.hash_key, |_, slot, _, value| g.table.exchange_value(slot, value, anew(value)));
        });
    }

    /// Removes entries of epochs before `epoch`; returns how many. They would
    /// only miss, but they count under the limits.
    pub fn clear_stale(&self, epoch: u32) -> u64 {
        let epoch = EpochTag::of_epoch(epoch);
        self.sweep(|tag, _| tag.is_before(epoch))
    }

    fn sweep(&self, remove: impl Fn(EpochTag, u32) -> bool) -> u64 {
        let mut verdicts = lock(&self.verdicts).clone();
        let removed =
            self.sweep_table(&self.v4, &mut verdicts, &remove) + self.sweep_table(&self.v6, &mut verdicts, &remove);
        self.quota.rearm();
        self.rearm_shares();
        removed
    }

    fn sweep_table<const W: usize, const S: usize>(
        &self,
        table: &Growing<W, S>,
        verdicts: &mut Verdicts,
        remove: &impl Fn(EpochTag, u32) -> bool,
    ) -> u64 {
        let mut removed = 0;
        table.for_each_group(&self.hash_key, |group| {
            group.for_each(&self.hash_key, |hash, slot, key, value| {
                let epoch = EpochTag::of_word(key[W - 1]);
                if remove(epoch, value) {
                    group.take(hash, slot);
                    self.removed(verdicts, epoch, value);
                    removed += 1;
                }
            });
        });
        table.tidy();
        removed
    }

    /// Gives back what an entry took that is gone. `verdicts` is a copy of the cache's.
    fn removed(&self, verdicts: &mut Verdicts, epoch: EpochTag, value: u32) {
        self.quota.release(1);
        // A share begins anew with each epoch: what was made in an earlier one does not count.
        if epoch.is_before(EpochTag::of_epoch(verdicts.epoch())) {
            return;
        }
        if epoch != EpochTag::of_epoch(verdicts.epoch()) || verdicts.entries().get(verdict(value)).is_none() {
            verdicts.follow(&lock(&self.verdicts));
        }
        if epoch == EpochTag::of_epoch(verdicts.epoch())
            && let Some(share) = verdicts.share(verdict(value))
        {
            share.release();
        }
    }

    fn rearm_shares(&self) {
        let hard = self.quota.limits().hard;
        lock(&self.verdicts).shares().for_each(|share| share.rearm(hard));
    }

    /// What the policies of an epoch have of the cache whose part of it is limited,
    /// and that have had an entry, in no order.
    #[must_use]
    pub fn shares(&self, epoch: u32) -> Vec<ShareUse> {
        let (verdicts, hard) = (lock(&self.verdicts), self.quota.limits().hard);
        let of_epoch = verdicts.shares().filter(|_| verdicts.epoch() == epoch);
        of_epoch
            .map(|share| ShareUse {
                cookie: share.cookie,
                percent: share.percent,
                limit: share.limit(hard),
                entries: share.taken(),
            })
            .collect()
    }

    /// Calls `visit` for each entry once, in no order, stale ones included.
    /// Readers and writers go on meanwhile: what comes or goes may or may not be seen.
    pub fn for_each(&self, now: Timestamp, mut visit: impl FnMut(CacheRecord)) {
        let verdicts = lock(&self.verdicts).clone();
        let tick = self.tick.load(Relaxed);
        let record = |key, tag: EpochTag, value: u32, packets| {
            let epoch = tag.near(verdicts.epoch());
            let idle = ticks_between(value & STAMP, stamp(now, tick));
            let last_use = now.as_micros() / 1_000_000 / tick * tick;
            let last_use = last_use.saturating_sub(u64::from(idle) * tick);
            CacheRecord {
                key,
                entry: if epoch == verdicts.epoch() {
                    verdicts.entries().get(verdict(value)).copied().flatten()
                } else {
                    None
                },
                epoch,
                last_use: Timestamp::from_micros(last_use * 1_000_000),
                packets,
            }
        };
        self.v4.for_each(&self.hash_key, |key, value, packets| {
            visit(record(CacheKey::from_words_v4(key), EpochTag::of_word(key[1]), value, packets));
        });
        self.v6.for_each(&self.hash_key, |key, value, packets| {
            visit(record(CacheKey::from_words_v6(key), EpochTag::of_word(key[4]), value, packets));
        });
    }

    /// Number of entries, stale ones included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.quota.taken()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory that the tables take; the system gives them as they are used.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.v4.octets() + self.v6.octets()
    }

    /// Octets of memory that the tables take with so many entries of IPv4 alone, and of IPv6 alone; half as much
    /// more until the entries have moved over after the last growth.
    #[must_use]
    pub fn memory_with(&self, entries: u64) -> (u64, u64) {
        let lanes = lock(&self.lanes).1.min(table::LANES);
        let [one_v4, one_v6] = [Growing::<2, 3>::octets_with(1, lanes), Growing::<5, 1>::octets_with(1, lanes)];
        (Growing::<2, 3>::octets_with(entries, lanes) + one_v6, Growing::<5, 1>::octets_with(entries, lanes) + one_v4)
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.quota.limits()
    }

    /// Changes the limits while packets flow.
    pub fn change_limits(&self, limits: Limits, sink: &mut impl FnMut(LimitEvent)) {
        self.quota.change(limits, sink);
        self.rearm_shares();
    }
}

/// The number of the verdict in an entry's value, see [`Verdicts`]; 0 where there is none.
#[inline(always)]
fn verdict(value: u32) -> usize {
    (value >> STAMP_BITS) as usize
}
