//! A table of one size: open addressing over buckets of a cache line.
//!
//! The first bits of a key's hash name its home bucket; what finds no place
//! there goes on to one of the next: see [`reach`]. Each bucket counts what went
//! past it, so that a look-up ends at the first bucket that nothing went past.
//!
//! Whoever changes the entries of a home bucket must be the only one who does:
//! see [`super::growing`], which has a lock for each group of home buckets.
//! Readers need nothing.

use super::bucket::{Bucket, Held, Seen};
use super::pages::{Pages, mapped_octets, prefetch};
use crate::sync::{Arc, AtomicU32, AtomicU64};
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use std::io;
use std::sync::OnceLock;

/// Buckets in which an entry of a table with `places` places a bucket may be.
///
/// A table grows when half of its places are taken. For `n` places in a row to
/// be taken then has a chance below `(e^(1-1/2) / 2)^n` (Chernoff; the hash is
/// keyed), 2^-36 for 128, and the table grows before its time; 2^-117 in the new
/// one, a quarter full.
const fn reach(places: usize) -> usize {
    if cfg!(loom) { 2 } else { 128 / places }
}

/// Buckets that there is memory for at least: a page of 2 MB full of them. In small pages even the first table would
/// need more than a processor has at hand.
const fn room<const W: usize, const S: usize>() -> usize {
    if cfg!(any(loom, miri)) { 0 } else { (2 << 20) / size_of::<Bucket<W, S>>() }
}

/// Readers that can count packets at once.
pub(super) const LANES: usize = 16;

/// The packets that one reader counted, by slot. They wrap into [`Table::carried`].
pub(super) type Lane = Pages<AtomicU32>;

#[derive(Debug)]
pub(super) struct Table<const W: usize, const S: usize> {
    /// Number of the table among those of its cache: each is of the double size of the one before.
    pub(super) number: u32,
    bits: u32,
    /// As many as homes, and those that the last ones spill into.
    buckets: Pages<Bucket<W, S>>,
    /// By slot: what to add to the packets in the lanes. Lanes are never reset;
    /// this is, in their stead, when a slot gets another entry.
    carried: Pages<AtomicU64>,
    lanes: [OnceLock<Arc<Lane>>; LANES],
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// 0 if the key is not there.
    pub(super) value: u32,
    pub(super) slot: Slot,
    /// Without a value: it may be elsewhere.
    pub(super) may_be_further: bool,
}

impl Found {
    const NOTHING: Self = Self { value: 0, slot: Slot(0), may_be_further: false };
}

/// The buckets of a table. Copied, as a processor's registers want it: what is
/// behind a reference is read anew after each look at a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Homes<'a, const W: usize, const S: usize> {
    buckets: &'a [Bucket<W, S>],
    /// From a hash to the number of its home.
    shift: u32,
}

impl<const W: usize, const S: usize> Homes<'_, W, S> {
    /// The number of a hash's home.
    #[inline(always)]
    pub(super) fn of(self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    /// Fetches a home.
    #[inline(always)]
    pub(super) fn prefetch(self, home: usize) {
        prefetch(&self.buckets[home]);
    }

    /// Looks for a key where it is most likely.
    #[inline(always)]
    pub(super) fn find(self, home: usize, key: &[u64; W]) -> Found {
        let seen = self.buckets[home].find(key);
        Found { value: seen.value, slot: Slot::new::<S>(home, seen.place), may_be_further: seen.spilled }
    }

    /// The same, but nothing if a writer came between.
    #[inline(always)]
    pub(super) fn glance(self, home: usize, key: &[u64; W]) -> Option<Found> {
        let seen = self.buckets[home].glance(key)?;
        Some(Found { value: seen.value, slot: Slot::new::<S>(home, seen.place), may_be_further: seen.spilled })
    }

    /// Looks for a key behind its home.
    pub(super) fn find_further(self, home: usize, key: &[u64; W]) -> Found {
        search(self.buckets, home + 1..home + reach(S), |bucket| bucket.find(key))
    }
}

/// Looks into one bucket after the other, until there is something or nothing went past one.
#[inline(always)]
fn search<const W: usize, const S: usize>(
    buckets: &[Bucket<W, S>],
    numbers: Range<usize>,
    find: impl Fn(&Bucket<W, S>) -> Seen,
) -> Found {
    for number in numbers {
        let seen = find(&buckets[number]);
        if seen.value != 0 {
            return Found { value: seen.value, slot: Slot::new::<S>(number, seen.place), may_be_further: false };
        }
        if !seen.spilled {
            break;
        }
    }
    Found::NOTHING
}

/// The number of a place in a table: of its bucket times places a bucket, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u32);

impl Slot {
    /// A table has no more places than a u32 can count: see [`Table::new`].
    #[inline(always)]
    fn new<const S: usize>(bucket: usize, place: usize) -> Self {
        Self((bucket * S + place) as u32)
    }

    #[inline(always)]
    fn number(self) -> usize {
        self.0 as usize
    }

    fn bucket<const S: usize>(self) -> usize {
        self.number() / S
    }

    fn place<const S: usize>(self) -> usize {
        self.number() % S
    }
}

impl<const W: usize, const S: usize> Table<W, S> {
    /// An empty table of 2^`bits` home buckets.
    pub(super) fn new(number: u32, bits: u32) -> io::Result<Self> {
        let buckets = (1 << bits) + reach(S) - 1;
        if buckets * S > u32::MAX as usize {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self {
            number,
            bits,
            buckets: Pages::zeroed(buckets.max(room::<W, S>()))?,
            carried: Pages::zeroed(buckets * S)?,
            lanes: [const { OnceLock::new() }; LANES],
        })
    }

    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// Entries it can have before it should grow.
    pub(super) fn comfortable(&self) -> u64 {
        (S as u64) << (self.bits - 1)
    }

    /// Octets of memory that it takes when all of it is in use.
    pub(super) fn octets(&self) -> u64 {
        let lanes: usize = self.lanes.iter().filter_map(OnceLock::get).map(|lane| lane.octets()).sum();
        (self.buckets.octets() + self.carried.octets() + lanes) as u64
    }

    /// Octets of the table that so many entries are in, with the counters of `lanes` readers; `least_bits` as for the smallest.
    pub(super) fn octets_with(entries: u64, least_bits: u32, lanes: usize) -> u64 {
        let mut bits = least_bits;
        // No table has more places than a u32 counts.
        while bits < u32::BITS && (S as u64) << (bits - 1) < entries {
            bits += 1;
        }
        let buckets = (1u64 << bits) + reach(S) as u64 - 1;
        let octets = |each: usize, count: u64| mapped_octets(each as u64 * count);
        octets(size_of::<Bucket<W, S>>(), buckets.max(room::<W, S>() as u64))
            + octets(size_of::<AtomicU64>(), buckets * S as u64)
            + octets(size_of::<AtomicU32>(), buckets * S as u64) * lanes as u64
    }

    /// The counters of reader `number`, below [`LANES`]; made when they are first asked for.
    pub(super) fn lane(&self, number: usize) -> io::Result<Arc<Lane>> {
        let lane = &self.lanes[number];
        if let Some(made) = lane.get() {
            return Ok(Arc::clone(made));
        }
        let new = Arc::new(Pages::zeroed(self.carried.len())?);
        Ok(Arc::clone(lane.get_or_init(|| new)))
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        self.homes().of(hash)
    }

    /// What the look-ups of a batch have at hand.
    #[inline(always)]
    pub(super) fn homes(&self) -> Homes<'_, W, S> {
        Homes { buckets: &self.buckets, shift: 64 - self.bits }
    }

    /// Looks for a key behind its home.
    pub(super) fn find_further(&self, hash: u64, key: &[u64; W]) -> Found {
        self.homes().find_further(self.home(hash), key)
    }

    /// Looks for a key everywhere.
    pub(super) fn find(&self, hash: u64, key: &[u64; W]) -> Found {
        let (homes, home) = (self.homes(), self.home(hash));
        let found = homes.find(home, key);
        if found.value == 0 && found.may_be_further { homes.find_further(home, key) } else { found }
    }

    /// Looks for a key but for the bits `ignored` of its last word; says those bits, and the value. For writers.
    pub(super) fn find_ignoring(&self, hash: u64, key: &[u64; W], ignored: u64) -> Option<(u64, Slot, u32)> {
        let home = self.home(hash);
        let found = search(&self.buckets, home..home + reach(S), |bucket| bucket.find_ignoring(key, ignored));
        let slot = found.slot;
        (found.value != 0).then(|| (self.bucket(slot).last_word(slot.place::<S>()) & ignored, slot, found.value))
    }

    fn bucket(&self, slot: Slot) -> &Bucket<W, S> {
        &self.buckets[slot.bucket::<S>()]
    }

    /// Notes a use in an entry, if it is still the one that was seen.
    #[inline]
    pub(super) fn exchange_value(&self, slot: Slot, seen: u32, value: u32) {
        self.bucket(slot).exchange_value(slot.place::<S>(), seen, value);
    }

    /// Adds an entry whose key is not in the table, with so many packets;
    /// `false` if there is no place within reach.
    pub(super) fn put(&self, hash: u64, key: &[u64; W], value: u32, packets: u64) -> bool {
        let home = self.home(hash);
        for bucket in home..home + reach(S) {
            let start_count = |place| self.count_from(Slot::new::<S>(bucket, place), packets);
            if self.buckets[bucket].put(key, value, start_count).is_some() {
                return true;
            }
        }
        self.unspill(home..home + reach(S));
        false
    }

    /// Gives an entry another value, and other ignored bits in its key.
    pub(super) fn replace(&self, slot: Slot, key: &[u64; W], value: u32, packets: u64) {
        self.count_from(slot, packets);
        self.bucket(slot).replace(slot.place::<S>(), key, value);
    }

    /// Removes an entry whose home is that of `hash`.
    pub(super) fn take(&self, hash: u64, slot: Slot) {
        self.bucket(slot).take(slot.place::<S>());
        self.unspill(self.home(hash)..slot.bucket::<S>());
    }

    fn unspill(&self, buckets: Range<usize>) {
        for bucket in &self.buckets[buckets] {
            bucket.unspill();
        }
    }

    /// Calls `visit` for all entries of group `group` of 2^`group_bits` groups of
    /// homes, and some of the next groups'.
    pub(super) fn for_each_near(&self, group: usize, group_bits: u32, mut visit: impl FnMut(Slot, Held<W>)) {
        let homes = 1 << (self.bits - group_bits);
        let (first, behind) = (group * homes, (group + 1) * homes);
        for bucket in first..behind + reach(S) - 1 {
            // Behind the group's own homes are only those of its entries that went past all before.
            if bucket >= behind && !self.buckets[bucket - 1].has_spilled() {
                return;
            }
            for held in self.buckets[bucket].all() {
                visit(Slot::new::<S>(bucket, held.place), held);
            }
        }
    }

    /// Counts packets in the lane of the caller, who alone writes to it.
    #[inline(always)]
    pub(super) fn count(&self, lane: &Lane, slot: Slot, packets: u32) {
        let counter = &lane[slot.number()];
        let before = counter.load(Relaxed);
        let after = before.wrapping_add(packets);
        counter.store(after, Relaxed);
        if after < before {
            self.carried[slot.number()].fetch_add(1 << 32, Relaxed);
        }
    }

    /// Counts a packet for somebody who has no lane at hand.
    pub(super) fn count_one(&self, slot: Slot) {
        self.carried[slot.number()].fetch_add(1, Relaxed);
    }

    /// Packets of an entry. One that is counted meanwhile, and one in 2^32, may be missing.
    pub(super) fn packets(&self, slot: Slot) -> u64 {
        self.carried[slot.number()].load(Relaxed).wrapping_add(self.in_lanes(slot))
    }

    fn count_from(&self, slot: Slot, packets: u64) {
        self.carried[slot.number()].store(packets.wrapping_sub(self.in_lanes(slot)), Relaxed);
    }

    fn in_lanes(&self, slot: Slot) -> u64 {
        let made = self.lanes.iter().filter_map(OnceLock::get);
        made.map(|lane| u64::from(lane[slot.number()].load(Relaxed))).sum()
    }
}
