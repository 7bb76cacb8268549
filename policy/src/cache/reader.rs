//! Looking up, and inserting what was missing: what a worker does with the cache.

use super::growing::{Growing, Place, View};
use super::key::{EPOCH, EpochTag};
use super::share::Share;
use super::table::{Found, LANES, Slot};
use super::verdicts::Verdicts;
use super::{CacheEntry, CacheKey, HashKey, Inserted, STAMP, STAMP_BITS, SpdCache, stamp, ticks_between, verdict};
use crate::limits::{LimitEvent, Quota};
use crate::sync::lock;
use crate::time::Timestamp;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

/// Look-ups between two of which the lines of the first are on their way.
const BATCH: usize = 32;
/// Uses that are remembered for [`Reader::count`].
const MOST_UNCOUNTED: usize = 1024;

/// One thread's access to the cache: it keeps what the thread needs at hand, and its packet counts.
///
/// Packets are counted by up to 16 readers at a time; what further ones look up is not counted.
#[derive(Debug)]
pub struct Reader {
    cache: Arc<SpdCache>,
    hash_key: HashKey,
    lane: Option<usize>,
    v4: View<2, 3>,
    v6: View<5, 1>,
    /// A copy of the cache's.
    verdicts: Verdicts,
    clock: Clock,
    /// Entries found since the last count.
    uncounted: Vec<Use>,
}

/// An entry that decided a packet.
#[derive(Clone, Copy, Debug)]
struct Use {
    slot: Slot,
    place: Place,
    ipv6: bool,
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
            v4: View::new(&self.v4, lane),
            v6: View::new(&self.v6, lane),
            verdicts: Verdicts::default(),
            clock: Clock::default(),
            uncounted: Vec::new(),
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
        let stamp = self.refresh(epoch, now)?;
        let epoch = EpochTag::of_epoch(epoch);
        let (found, place) = if key.is_ipv6() {
            let words = key.words_v6(epoch);
            self.v6.find(self.hash_key.hash(&words), &words)
        } else {
            let words = key.words_v4(epoch);
            self.v4.find(self.hash_key.hash(&words), &words)
        };
        if found.value != 0 {
            self.used(key.is_ipv6(), (found, place), stamp, counts);
        }
        self.entry(found.value)
    }

    /// Looks up all `keys`, the answers in the same places of `found`.
    ///
    /// # Panics
    /// If `found` is not as long as `keys`.
    pub fn look_up_batch(&mut self, keys: &[CacheKey], epoch: u32, now: Timestamp, found: &mut [Option<CacheEntry>]) {
        assert_eq!(keys.len(), found.len(), "one place for each answer");
        let Some(stamp) = self.refresh(epoch, now) else {
            found.fill(None);
            return;
        };
        let epoch = EpochTag::of_epoch(epoch);
        for (keys, answers) in keys.chunks(BATCH).zip(found.chunks_mut(BATCH)) {
            self.look_up_chunk(keys, epoch, stamp, answers);
        }
    }

    /// Up to [`BATCH`] keys.
    #[inline]
    fn look_up_chunk(&mut self, keys: &[CacheKey], epoch: EpochTag, stamp: u32, answers: &mut [Option<CacheEntry>]) {
        let mut hashes = [0; BATCH];
        for (key, hash) in keys.iter().zip(&mut hashes) {
            if key.is_ipv6() {
                *hash = self.hash_key.hash(&key.words_v6(epoch));
                self.v6.prefetch(*hash);
            } else {
                *hash = self.hash_key.hash(&key.words_v4(epoch));
                self.v4.prefetch(*hash);
            }
        }
        // What is not at home waits until the next line is there too.
        let (mut further, mut waiting) = ([0u8; BATCH], 0);
        let mut seen = [Found::NOTHING; BATCH];
        for (n, ((key, hash), seen)) in keys.iter().zip(&hashes).zip(&mut seen).enumerate() {
            *seen = if key.is_ipv6() {
                self.v6.find_at_home(*hash, &key.words_v6(epoch))
            } else {
                self.v4.find_at_home(*hash, &key.words_v4(epoch))
            };
            if seen.value == 0 && seen.may_be_further {
                further[waiting] = n as u8;
                waiting += 1;
                if key.is_ipv6() {
                    self.v6.prefetch_further(*hash);
                } else {
                    self.v4.prefetch_further(*hash);
                }
            }
        }
        let mut places = [Place::New; BATCH];
        for n in &further[..waiting] {
            let n = usize::from(*n);
            let (key, hash) = (&keys[n], hashes[n]);
            (seen[n], places[n]) = if key.is_ipv6() {
                self.v6.find_further(hash, &key.words_v6(epoch))
            } else {
                self.v4.find_further(hash, &key.words_v4(epoch))
            };
        }
        for (n, (key, answer)) in keys.iter().zip(answers).enumerate() {
            let value = seen[n].value;
            *answer = self.entry(value);
            if value != 0 {
                self.used(key.is_ipv6(), (seen[n], places[n]), stamp, true);
            }
        }
    }

    /// Counts a packet for each entry found since the last count; to insert or
    /// remove does so too. To be called after each batch: what is not counted by
    /// the next look-up may be lost when the table grows.
    pub fn count(&mut self) {
        for used in self.uncounted.drain(..) {
            if used.ipv6 {
                self.v6.count((used.slot, used.place), 1);
            } else {
                self.v4.count((used.slot, used.place), 1);
            }
        }
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
            insert(&cache.v6, &mut self.v6, shared, &key.words_v6(epoch), value, sink)
        } else {
            insert(&cache.v4, &mut self.v4, shared, &key.words_v4(epoch), value, sink)
        }
    }

    /// Removes the entry of a conversation, of whatever epoch; whether there was one.
    pub fn remove(&mut self, key: &CacheKey) -> bool {
        self.count();
        let cache = Arc::clone(&self.cache);
        let epoch = EpochTag::of_epoch(0);
        let removed = if key.is_ipv6() {
            remove(&cache.v6, &mut self.v6, &cache.hash_key, &key.words_v6(epoch))
        } else {
            remove(&cache.v4, &mut self.v4, &cache.hash_key, &key.words_v4(epoch))
        };
        if let Some((epoch, value)) = removed {
            cache.removed(&mut self.verdicts, epoch, value);
        }
        removed.is_some()
    }

    /// Notices what changed since last time; returns the stamp of `now`, or
    /// `None` if there can be no entries of `epoch`.
    #[inline(always)]
    fn refresh(&mut self, epoch: u32, now: Timestamp) -> Option<u32> {
        if self.v4.is_stale(&self.cache.v4) || self.v6.is_stale(&self.cache.v6) {
            self.refresh_views();
        }
        if self.verdicts.epoch() != epoch {
            self.verdicts.follow(&lock(&self.cache.verdicts));
            if self.verdicts.epoch() != epoch {
                return None;
            }
        }
        Some(self.clock.stamp(now, self.cache.tick.load(Relaxed)))
    }

    #[cold]
    fn refresh_views(&mut self) {
        // Their places are those of the tables there were.
        self.uncounted.clear();
        self.v4.refresh(&self.cache.v4);
        self.v6.refresh(&self.cache.v6);
    }

    /// The decision of an entry's value; none of 0.
    #[inline(always)]
    fn entry(&mut self, value: u32) -> Option<CacheEntry> {
        match self.verdicts.entry(verdict(value)) {
            Some(entry) => entry,
            None => self.entry_of_another(value),
        }
    }

    /// The same where another reader made the verdict.
    #[cold]
    fn entry_of_another(&mut self, value: u32) -> Option<CacheEntry> {
        let epoch = self.verdicts.epoch();
        self.verdicts.follow(&lock(&self.cache.verdicts));
        if self.verdicts.epoch() == epoch { self.verdicts.entry(verdict(value)).flatten() } else { None }
    }

    /// Notes that an entry was used.
    #[inline(always)]
    fn used(&mut self, ipv6: bool, (found, place): (Found, Place), stamp: u32, counts: bool) {
        // A write to memory that others read: only when it changes something.
        if found.value & STAMP != stamp {
            self.note_time(ipv6, (found, place), stamp);
        }
        if counts && self.uncounted.len() < MOST_UNCOUNTED {
            if ipv6 {
                self.v6.prefetch_count(found.slot);
            } else {
                self.v4.prefetch_count(found.slot);
            }
            self.uncounted.push(Use { slot: found.slot, place, ipv6 });
        }
    }

    #[cold]
    fn note_time(&self, ipv6: bool, found: (Found, Place), stamp: u32) {
        let value = found.0.value;
        // A clock may be behind another's.
        if ticks_between(value & STAMP, stamp) > 0 {
            let value = value & !STAMP | stamp;
            if ipv6 { self.v6.exchange_value(found, value) } else { self.v4.exchange_value(found, value) }
        }
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
    until: u64,
    stamp: u32,
}

impl Clock {
    #[inline(always)]
    fn stamp(&mut self, now: Timestamp, tick: u64) -> u32 {
        let micros = now.as_micros();
        if self.tick != tick || micros < self.from || micros >= self.until {
            let length = tick * 1_000_000;
            let from = micros / length * length;
            *self = Self { tick, from, until: from + length, stamp: stamp(now, tick) };
        }
        self.stamp
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
