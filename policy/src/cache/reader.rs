//! Looking up, and inserting what was missing: what a worker does with the cache.

use super::family::{Ask, BATCH, Family};
use super::growing::{Growing, View};
use super::key::{EPOCH, EpochTag, Words, WordsV4, WordsV6};
use super::share::Share;
use super::table::LANES;
use super::verdicts::Verdicts;
use super::{CacheEntry, CacheKey, HashKey, Inserted, STAMP_BITS, SpdCache, stamp, verdict};
use crate::limits::{LimitEvent, Quota};
use crate::sync::lock;
use crate::time::Timestamp;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

/// One thread's access to the cache: it keeps what the thread needs at hand, and its packet counts.
///
/// Packets are counted by up to 16 readers at a time; what further ones look up is not counted.
#[derive(Debug)]
pub struct Reader {
    cache: Arc<SpdCache>,
    hash_key: HashKey,
    lane: Option<usize>,
    v4: Family<2, 3>,
    v6: Family<5, 1>,
    /// A copy of the cache's.
    verdicts: Verdicts,
    clock: Clock,
}

impl SpdCache {
    /// A reader for one thread.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.0.pop().or_else(|| {
            lanes.1 += 1;
            (lanes.1 <= LANES).then(|| lanes.1 - 1)
        });
        drop(lanes);
        Reader {
            lane,
            v4: Family::new(&self.v4, lane),
            v6: Family::new(&self.v6, lane),
            verdicts: Verdicts::default(),
            clock: Clock::default(),
            hash_key: self.hash_key.clone(),
            cache: Arc::clone(self),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.cache.lanes).0.extend(self.lane);
    }
}

impl Reader {
    /// The decision on a conversation, if it is cached and of this epoch; notes the time of use.
    #[inline]
    #[must_use]
    pub fn look_up(&mut self, key: &CacheKey, epoch: u32, now: Timestamp) -> Option<CacheEntry> {
        self.look_up_one(key, epoch, now, true)
    }

    /// As [`Self::look_up`], for a packet that was looked up under this epoch
    /// before and had to wait: it is not counted again.
    #[must_use]
    pub fn look_up_again(&mut self, key: &CacheKey, epoch: u32, now: Timestamp) -> Option<CacheEntry> {
        self.look_up_one(key, epoch, now, false)
    }

    #[inline(always)]
    fn look_up_one(&mut self, key: &CacheKey, epoch: u32, now: Timestamp, counts: bool) -> Option<CacheEntry> {
        let ipv6 = key.is_ipv6();
        let stale = if ipv6 { self.v6.is_stale(&self.cache.v6) } else { self.v4.is_stale(&self.cache.v4) };
        let stamp = self.refresh(stale, epoch, now)?;
        let ask = Ask { secret: &self.hash_key, epoch: EpochTag::of_epoch(epoch), stamp, counts };
        let value = if ipv6 { self.v6.look_up(&ask, key) } else { self.v4.look_up(&ask, key) };
        match self.verdicts.entries().get(verdict(value)) {
            Some(entry) => *entry,
            None => self.entry_of_another(value),
        }
    }

    /// Looks up all `keys`, the answers in the same places of `found`.
    ///
    /// # Panics
    /// If `found` is not as long as `keys`.
    pub fn look_up_batch(&mut self, keys: &[CacheKey], epoch: u32, now: Timestamp, found: &mut [Option<CacheEntry>]) {
        assert_eq!(keys.len(), found.len(), "one place for each answer");
        let stale = self.v4.is_stale(&self.cache.v4) || self.v6.is_stale(&self.cache.v6);
        let Some(stamp) = self.refresh(stale, epoch, now) else {
            found.fill(None);
            return;
        };
        for (keys, answers) in keys.chunks(BATCH).zip(found.chunks_mut(BATCH)) {
            self.look_up_chunk(keys, epoch, stamp, answers);
        }
    }

    /// Up to [`BATCH`] keys.
    #[inline]
    fn look_up_chunk(&mut self, keys: &[CacheKey], epoch: u32, stamp: u32, answers: &mut [Option<CacheEntry>]) {
        let ask = Ask { secret: &self.hash_key, epoch: EpochTag::of_epoch(epoch), stamp, counts: true };
        let mut values = [0; BATCH];
        // Most batches are of one family, that of the first.
        let all = (keys.len(), |n| n);
        let same = match keys.first() {
            Some(key) if key.is_ipv6() => self.v6.look_up_batch(&ask, all, keys, &mut values),
            _ => self.v4.look_up_batch(&ask, all, keys, &mut values),
        };
        if same.is_ok() {
            return self.answer(&values[..keys.len()], |n| n, answers);
        }
        // IPv4 from the front, IPv6 from the back.
        let (mut order, mut front, mut back) = ([0u8; BATCH], 0, BATCH);
        for (n, key) in keys.iter().enumerate() {
            if key.is_ipv6() {
                back -= 1;
                order[back] = n as u8;
            } else {
                order[front] = n as u8;
                front += 1;
            }
        }
        let (v4, v6) = (|n| usize::from(order[n]), |n| usize::from(order[back + n]));
        let sorted = self.v4.look_up_batch(&ask, (front, v4), keys, &mut values);
        debug_assert!(sorted.is_ok(), "all of them are IPv4");
        let mut values_v6 = [0; BATCH];
        let sorted = self.v6.look_up_batch(&ask, (BATCH - back, v6), keys, &mut values_v6);
        debug_assert!(sorted.is_ok(), "all of them are IPv6");
        self.answer(&values[..front], v4, answers);
        self.answer(&values_v6[..BATCH - back], v6, answers);
    }

    /// The decisions of entries' values, number `n` into `answers[order(n)]`.
    #[inline(always)]
    fn answer(&mut self, values: &[u32], order: impl Fn(usize) -> usize, answers: &mut [Option<CacheEntry>]) {
        let known = self.verdicts.entries();
        let mut unknown = false;
        for (n, value) in values.iter().enumerate() {
            match known.get(verdict(*value)) {
                Some(entry) => answers[order(n)] = *entry,
                None => unknown = true,
            }
        }
        if unknown {
            for (n, value) in values.iter().enumerate() {
                answers[order(n)] = self.entry_of_another(*value);
            }
        }
    }

    /// The decision of an entry's value that another reader may have made; none of 0.
    #[cold]
    fn entry_of_another(&mut self, value: u32) -> Option<CacheEntry> {
        let shared = lock(&self.cache.verdicts);
        // Under another epoch the numbers are of other decisions, and what else we have found is of ours.
        if shared.epoch() != self.verdicts.epoch() {
            return None;
        }
        self.verdicts.follow(&shared);
        self.verdicts.entries().get(verdict(value)).copied().flatten()
    }

    /// Counts a packet for each entry found since the last count; to insert or
    /// remove does so too. To be called after each batch: what is not counted by
    /// the next look-up may be lost when the table grows.
    pub fn count(&mut self) {
        self.v4.count();
        self.v6.count();
    }

    /// Adds a decision made under `epoch`, and tells `sink` if that, or its
    /// refusal, is to be alerted. There is never one entry more than the hard limit.
    pub fn insert(
        &mut self,
        key: &CacheKey,
        entry: CacheEntry,
        epoch: u32,
        now: Timestamp,
        sink: &mut impl FnMut(LimitEvent),
    ) -> Inserted {
        self.insert_within(None, key, entry, epoch, now, sink)
    }

    /// As [`Self::insert`], where the entries of the policy that decided may take
    /// no more than `share` percent of the hard limit. All entries of a policy in
    /// an epoch come with the same share. There is never one more than that allows.
    pub fn insert_within(
        &mut self,
        share: Option<u8>,
        key: &CacheKey,
        entry: CacheEntry,
        epoch: u32,
        now: Timestamp,
        sink: &mut impl FnMut(LimitEvent),
    ) -> Inserted {
        // Their places are those of the tables as we know them, and to insert may make us know larger ones.
        self.count();
        let Some(number) = self.number(epoch, entry, share) else { return Inserted::AlreadyThere };
        let value = (number as u32) << STAMP_BITS | self.clock.stamp(now, self.cache.tick.load(Relaxed));
        let epoch = EpochTag::of_epoch(epoch);
        let cache = &*self.cache;
        let shared = (&cache.hash_key, &cache.quota, self.verdicts.share(number).map(|share| &**share));
        if key.is_ipv6() {
            insert(&cache.v6, &mut self.v6.view, shared, &WordsV6::of(key, epoch), value, sink)
        } else {
            insert(&cache.v4, &mut self.v4.view, shared, &WordsV4::of(key, epoch), value, sink)
        }
    }

    /// Removes the entry of a conversation, of whatever epoch; whether there was one.
    pub fn remove(&mut self, key: &CacheKey) -> bool {
        self.count();
        let cache = Arc::clone(&self.cache);
        let epoch = EpochTag::of_epoch(0);
        let removed = if key.is_ipv6() {
            remove(&cache.v6, &mut self.v6.view, &cache.hash_key, &WordsV6::of(key, epoch))
        } else {
            remove(&cache.v4, &mut self.v4.view, &cache.hash_key, &WordsV4::of(key, epoch))
        };
        if let Some((epoch, value)) = removed {
            cache.removed(&mut self.verdicts, epoch, value);
        }
        removed.is_some()
    }

    /// Notices what changed since last time, the tables too if they are `stale`; returns the stamp of `now`, or
    /// `None` if there can be no entries of `epoch`.
    #[inline(always)]
    fn refresh(&mut self, stale: bool, epoch: u32, now: Timestamp) -> Option<u32> {
        if stale {
            self.refresh_views();
        }
        if self.verdicts.epoch() != epoch && !self.follow_to(epoch) {
            return None;
        }
        Some(self.clock.stamp(now, self.cache.tick.load(Relaxed)))
    }

    /// Whether the verdicts in force are of this epoch.
    #[cold]
    #[inline(never)]
    fn follow_to(&mut self, epoch: u32) -> bool {
        self.verdicts.follow(&lock(&self.cache.verdicts));
        self.verdicts.epoch() == epoch
    }

    #[cold]
    #[inline(never)]
    fn refresh_views(&mut self) {
        self.v4.refresh(&self.cache.v4);
        self.v6.refresh(&self.cache.v6);
    }

    /// The number of a decision; see [`Verdicts::number`].
    fn number(&mut self, epoch: u32, entry: CacheEntry, share: Option<u8>) -> Option<usize> {
        if let Some(known) = self.verdicts.known(epoch, &entry) {
            return Some(known);
        }
        let mut shared = lock(&self.cache.verdicts);
        let number = shared.number(epoch, entry, share);
        self.verdicts.follow(&shared);
        number
    }
}

/// The stamp of the present tick, which is divided for only once.
#[derive(Debug, Default)]
struct Clock {
    tick: u64,
    /// In microseconds.
    from: u64,
    length: u64,
    stamp: u32,
}

impl Clock {
    #[inline(always)]
    fn stamp(&mut self, now: Timestamp, tick: u64) -> u32 {
        let micros = now.as_micros();
        if self.tick != tick || micros.wrapping_sub(self.from) >= self.length {
            self.renew(now, tick);
        }
        self.stamp
    }

    #[cold]
    #[inline(never)]
    fn renew(&mut self, now: Timestamp, tick: u64) {
        let length = tick * 1_000_000;
        let from = now.as_micros() / length * length;
        *self = Self { tick, from, length, stamp: stamp(now, tick) };
    }
}

fn insert<const W: usize, const S: usize>(
    table: &Growing<W, S>,
    view: &mut View<W, S>,
    (secret, quota, share): (&HashKey, &Quota, Option<&Share>),
    key: &[u64; W],
    value: u32,
    sink: &mut impl FnMut(LimitEvent),
) -> Inserted {
    let hash = secret.hash(key);
    loop {
        let group = table.group(hash, secret, view);
        if let Some((there, slot, _)) = group.table.find_ignoring(hash, key, EPOCH) {
            let (there, ours) = (EpochTag::of_word(there), EpochTag::of_word(key[W - 1]));
            if !there.is_before(ours) {
                if there == ours {
                    group.table.count_one(slot);
                }
                return Inserted::AlreadyThere;
            }
            // Only what is there is replaced: this needs no place, but may be the first of its policy's.
            if share.is_some_and(|share| !share.reserve(quota.limits().hard, sink)) {
                return Inserted::ShareLimit;
            }
            group.table.replace(slot, key, value, 1);
            return Inserted::Inserted;
        }
        if share.is_some_and(|share| !share.reserve(quota.limits().hard, sink)) {
            return Inserted::ShareLimit;
        }
        let Some(place) = quota.reserve() else {
            release(share);
            quota.refused(sink);
            return Inserted::HardLimit;
        };
        let put = group.put(hash, key, value);
        let (crowded, number) = (group.is_crowded(), group.table.number);
        drop(group);
        if put {
            quota.used(&place, sink);
            if crowded {
                // Without the memory to grow it goes on as it is, a little slower.
                let _ = table.grow(number);
            }
            return Inserted::Inserted;
        }
        quota.release(1);
        release(share);
        if table.grow(number).is_err() {
            quota.refused(sink);
            return Inserted::HardLimit;
        }
    }
}

fn release(share: Option<&Share>) {
    if let Some(share) = share {
        share.release();
    }
}

/// Takes an entry out; says its epoch and its value.
fn remove<const W: usize, const S: usize>(
    table: &Growing<W, S>,
    view: &mut View<W, S>,
    secret: &HashKey,
    key: &[u64; W],
) -> Option<(EpochTag, u32)> {
    let hash = secret.hash(key);
    let group = table.group(hash, secret, view);
    let (epoch, slot, value) = group.table.find_ignoring(hash, key, EPOCH)?;
    group.take(hash, slot);
    Some((EpochTag::of_word(epoch), value))
}
