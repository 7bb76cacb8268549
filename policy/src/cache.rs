//! The SPD cache: decisions by exact five-tuple and direction.
//!
//! Readers take no lock. An entry carries the epoch of the policies that made
//! it; under any other epoch it is a miss, and is replaced in place. Entries
//! are counted exactly under [`Limits`]; idle ones age out.
//!
//! Using it, for a batch of packets: [`load`](crate::spd::SharedSpd::load) a
//! snapshot, [`look_up_batch`](SpdCache::look_up_batch) with its epoch, and for
//! each miss [`decide`](crate::spd::Spd::decide) and
//! [`insert`](SpdCache::insert) with the same one. A packet whose decision
//! could not be inserted for the hard limit is dropped, whatever the decision.

mod key;

pub use key::{CacheKey, HashKey};

use crate::counters::DropReason;
use crate::limits::{LimitEvent, Limits, Quota};
use crate::spd::{Decision, Verdict};
use crate::time::Timestamp;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use key::{PreHashed, StoredKey};
use papaya::{Compute, HashMap, Operation};

/// A cached decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// packet, or of a newer one.
    AlreadyThere,
    /// There is no room. The packet is to be dropped as [`DropReason::SpdHardLimit`].
    HardLimit,
}

/// One entry, as the report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// Which conversation.
    pub key: CacheKey,
    /// What is done with it.
    pub entry: CacheEntry,
    /// Of which policies.
    pub epoch: u32,
    /// When it was last looked up or made, rounded down to a second.
    pub last_use: Timestamp,
    /// Packets it decided, the one that made it included.
    pub packets: u64,
}

#[derive(Debug)]
struct Stored {
    entry: CacheEntry,
    epoch: u32,
    /// In seconds: coarse, so that a busy entry is not written all the time.
    last_use: AtomicU32,
    packets: AtomicU64,
}

impl Stored {
    fn new(entry: CacheEntry, epoch: u32, now: u32) -> Self {
        Self { entry, epoch, last_use: AtomicU32::new(now), packets: AtomicU64::new(1) }
    }

    /// Answers a look-up for a packet not seen before.
    #[inline]
    fn hit(&self, epoch: u32, now: u32) -> Option<CacheEntry> {
        let entry = self.hit_again(epoch, now)?;
        self.packets.fetch_add(1, Relaxed);
        Some(entry)
    }

    /// Answers a look-up for a packet that is counted already.
    #[inline]
    fn hit_again(&self, epoch: u32, now: u32) -> Option<CacheEntry> {
        if self.epoch != epoch {
            return None;
        }
        if self.last_use.load(Relaxed) < now {
            self.last_use.store(now, Relaxed);
        }
        Some(self.entry)
    }
}

/// The cache. Share it by reference; every method takes `&self`.
#[derive(Debug)]
pub struct SpdCache {
    entries: HashMap<StoredKey, Stored, PreHashed>,
    hash_key: HashKey,
    quota: Quota,
}

impl SpdCache {
    /// An empty cache. `hash_key` is drawn at random at each start, so that
    /// nobody outside can choose five-tuples that collide.
    #[must_use]
    pub fn new(limits: Limits, hash_key: HashKey) -> Self {
        Self { entries: HashMap::with_hasher(PreHashed), hash_key, quota: Quota::new(limits) }
    }

    /// The decision on a conversation, if it is cached and of this epoch;
    /// counts the packet and notes the time of use.
    #[inline]
    #[must_use]
    pub fn look_up(&self, key: &CacheKey, epoch: u32, now: Timestamp) -> Option<CacheEntry> {
        let stored = StoredKey::new(key, &self.hash_key);
        self.entries.pin().get(&stored)?.hit(epoch, seconds(now))
    }

    /// As [`Self::look_up`], for a packet that was looked up under this epoch
    /// before and had to wait: it is not counted again.
    #[must_use]
    pub fn look_up_again(&self, key: &CacheKey, epoch: u32, now: Timestamp) -> Option<CacheEntry> {
        let stored = StoredKey::new(key, &self.hash_key);
        self.entries.pin().get(&stored)?.hit_again(epoch, seconds(now))
    }

    /// Looks up all `keys`, the answers in the same places of `found`.
    ///
    /// # Panics
    /// If `found` is not as long as `keys`.
    pub fn look_up_batch(&self, keys: &[CacheKey], epoch: u32, now: Timestamp, found: &mut [Option<CacheEntry>]) {
        assert_eq!(keys.len(), found.len(), "one place for each answer");
        let (entries, now) = (self.entries.pin(), seconds(now));
        for (key, found) in keys.iter().zip(found) {
            let stored = StoredKey::new(key, &self.hash_key);
            *found = entries.get(&stored).and_then(|s| s.hit(epoch, now));
        }
    }

    /// Adds a decision on a packet made under `epoch`, and tells `sink` if that, or its
    /// refusal, is to be alerted.
    ///
    /// There is never one entry more than the hard limit. Where several threads
    /// insert the *same* conversation into the last free place, one that could
    /// have found it there may be refused instead.
    pub fn insert(
        &self,
        key: &CacheKey,
        entry: CacheEntry,
        epoch: u32,
        now: Timestamp,
        sink: &mut impl FnMut(LimitEvent),
    ) -> Inserted {
        let key = StoredKey::new(key, &self.hash_key);
        let stored = || Stored::new(entry, epoch, seconds(now));
        let entries = self.entries.pin();
        loop {
            match entries.get(&key) {
                Some(there) if !is_older(there.epoch, epoch) => {
                    let _counted = there.hit(epoch, seconds(now));
                    return Inserted::AlreadyThere;
                }
                Some(_) => {
                    // Only what is there is replaced: this needs no place.
                    let replaced = entries.compute(key, |there| match there {
                        Some((_, there)) if is_older(there.epoch, epoch) => Operation::Insert(stored()),
                        Some(_) | None => Operation::Abort(()),
                    });
                    if let Compute::Updated { .. } = replaced {
                        return Inserted::Inserted;
                    }
                }
                None => {
                    let Some(place) = self.quota.reserve() else {
                        self.quota.refused(sink);
                        return Inserted::HardLimit;
                    };
                    // Not by `compute`, which adds without helping the table
                    // grow and leaves ever longer searches behind.
                    if entries.try_insert(key, stored()).is_ok() {
                        self.quota.used(&place, sink);
                        return Inserted::Inserted;
                    }
                    self.quota.release(1);
                }
            }
            // Somebody else changed the entry meanwhile: see what is there now.
        }
    }

    /// Removes entries not used for longer than `idle`; returns how many.
    pub fn age(&self, now: Timestamp, idle: Duration) -> u64 {
        let (now, idle) = (seconds(now), u32::try_from(idle.as_secs()).unwrap_or(u32::MAX));
        self.sweep(|s| now.saturating_sub(s.last_use.load(Relaxed)) > idle)
    }

    /// Removes entries of epochs before `epoch`; returns how many. They would
    /// only miss, but they count under the limits.
    pub fn clear_stale(&self, epoch: u32) -> u64 {
        self.sweep(|s| is_older(s.epoch, epoch))
    }

    fn sweep(&self, remove: impl Fn(&Stored) -> bool) -> u64 {
        let entries = self.entries.pin();
        let mut removed = 0;
        for (key, stored) in &entries {
            // Asked again when it is removed: it may have been replaced meanwhile.
            if remove(stored) && matches!(entries.remove_if(key, |_, s| remove(s)), Ok(Some(_))) {
                self.quota.release(1);
                removed += 1;
            }
        }
        self.quota.rearm();
        removed
    }

    /// Calls `visit` for each entry, in no order, stale ones included. Writers
    /// go on meanwhile: what comes or goes may or may not be seen.
    pub fn for_each(&self, mut visit: impl FnMut(CacheRecord)) {
        for (key, stored) in &self.entries.pin() {
            visit(CacheRecord {
                key: key.unpack(),
                entry: stored.entry,
                epoch: stored.epoch,
                last_use: Timestamp::from_micros(u64::from(stored.last_use.load(Relaxed)) * 1_000_000),
                packets: stored.packets.load(Relaxed),
            });
        }
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

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.quota.limits()
    }

    /// Changes the limits while packets flow.
    pub fn change_limits(&self, limits: Limits, sink: &mut impl FnMut(LimitEvent)) {
        self.quota.change(limits, sink);
    }
}

/// Whether an entry of epoch `there` gives way to one of `epoch`: epochs wrap.
fn is_older(there: u32, epoch: u32) -> bool {
    (there.wrapping_sub(epoch) as i32) < 0
}

/// Whole seconds since the origin: enough for 136 years.
fn seconds(t: Timestamp) -> u32 {
    u32::try_from(t.as_micros() / 1_000_000).unwrap_or(u32::MAX)
}
