//! A table that grows while it is read and written.
//!
//! The first bits of a key's hash name its *group*; each group has a lock for
//! its writers, and all entries of a group are in the same table. To grow, a
//! table of the double size is published beside the old one; whoever next locks
//! a group moves its entries over, and those of a few more groups. So nobody
//! waits for more than some microseconds, or two groups of a very large table; readers,
//! who look into both tables meanwhile, do not wait at all. A reader that looks
//! for an entry at the moment it is moved may miss it, as with any cache.

use super::key::HashKey;
use super::table::{Found, Homes, Lane, Slot, Table};
use crate::sync::{Apart, Arc, AtomicU32, AtomicU64, Mutex, MutexGuard, lock};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::io;

/// log2 of the number of groups: also of the homes of the smallest table.
const GROUP_BITS: u32 = if cfg!(loom) { 1 } else { 13 };

/// Homes whose entries a writer moves over on the way, at least one group's: so many take some microseconds.
const MOVED_AT_ONCE: u32 = 512;

#[derive(Debug)]
pub(super) struct Growing<const W: usize, const S: usize> {
    /// For each group the number of the table that its entries are in.
    groups: Box<[Mutex<u32>]>,
    tables: Mutex<Tables<W, S>>,
    /// Raised with each change of `tables`.
    generation: Apart<AtomicU64>,
    /// Groups whose entries are still in the older table, while there is one.
    unmoved: AtomicU32,
    /// Where the search for a group to move goes on.
    cursor: AtomicU32,
    entries: AtomicU64,
    /// Tables that a reader may still have; freed by [`Growing::tidy`], not by the reader.
    retired: Mutex<Vec<Arc<Table<W, S>>>>,
}

/// The table in use, and the one before it while entries are moved over.
#[derive(Debug)]
pub(super) struct Tables<const W: usize, const S: usize> {
    pub(super) new: Arc<Table<W, S>>,
    pub(super) old: Option<Arc<Table<W, S>>>,
}

impl<const W: usize, const S: usize> Clone for Tables<W, S> {
    fn clone(&self) -> Self {
        Self { new: Arc::clone(&self.new), old: self.old.clone() }
    }
}

/// A group, locked, with the table that its entries are in.
pub(super) struct Group<'a, const W: usize, const S: usize> {
    pub(super) table: &'a Table<W, S>,
    number: usize,
    growing: &'a Growing<W, S>,
    _lock: MutexGuard<'a, u32>,
}

impl<const W: usize, const S: usize> Growing<W, S> {
    pub(super) fn new() -> io::Result<Self> {
        let first = Table::new(0, GROUP_BITS)?;
        Ok(Self {
            groups: (0..1 << GROUP_BITS).map(|_| Mutex::new(0)).collect(),
            tables: Mutex::new(Tables { new: Arc::new(first), old: None }),
            generation: Apart(AtomicU64::new(0)),
            unmoved: AtomicU32::new(0),
            cursor: AtomicU32::new(0),
            entries: AtomicU64::new(0),
            retired: Mutex::new(Vec::new()),
        })
    }

    /// Changes whenever [`Growing::tables`] does.
    #[inline(always)]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    pub(super) fn tables(&self) -> Tables<W, S> {
        lock(&self.tables).clone()
    }

    /// Octets of memory that the tables take when all of them is in use.
    pub(super) fn octets(&self) -> u64 {
        let tables = self.tables();
        tables.new.octets() + tables.old.map_or(0, |old| old.octets())
    }

    /// Octets of the table that so many entries are in, with the counters of `lanes` readers.
    pub(super) fn octets_with(entries: u64, lanes: usize) -> u64 {
        Table::<W, S>::octets_with(entries, GROUP_BITS, lanes)
    }

    /// Locks the group of a key for a writer, who lends its view.
    pub(super) fn group<'a>(&'a self, hash: u64, secret: &HashKey, view: &'a mut View<W, S>) -> Group<'a, W, S> {
        if self.unmoved.load(Relaxed) > 0 {
            view.refresh(self);
            let homes_of_one = 1 << (view.new.table.bits() - GROUP_BITS);
            let count = (MOVED_AT_ONCE / homes_of_one).max(1);
            let first = self.cursor.fetch_add(count, Relaxed);
            for number in first..first.saturating_add(count).min(self.groups.len() as u32) {
                // Let go before ours is locked: two writers could wait for each other.
                drop(self.lock_group(number as usize, secret, view));
            }
        }
        self.lock_group((hash >> (64 - GROUP_BITS)) as usize, secret, view)
    }

    fn lock_group<'a>(&'a self, number: usize, secret: &HashKey, view: &'a mut View<W, S>) -> Group<'a, W, S> {
        view.refresh(self);
        let mut in_table = lock(&self.groups[number]);
        if *in_table > view.new.table.number {
            // Published and moved since. Nothing can be published twice while we hold the lock.
            view.refresh(self);
        }
        if *in_table < view.new.table.number {
            if let Some(old) = &view.old {
                self.move_group(number, &old.table, &view.new.table, secret);
            }
            *in_table = view.new.table.number;
            if self.unmoved.fetch_sub(1, AcqRel) == 1 {
                self.retire_old();
            }
        }
        Group { table: &view.new.table, number, growing: self, _lock: in_table }
    }

    fn move_group(&self, group: usize, old: &Table<W, S>, new: &Table<W, S>, secret: &HashKey) {
        old.for_each_near(group, GROUP_BITS, |slot, held| {
            let hash = secret.hash(&held.key);
            if (hash >> (64 - GROUP_BITS)) as usize != group {
                return;
            }
            if !new.put(hash, &held.key, held.value, old.packets(slot)) {
                // No room in a table that is a quarter full: see `reach`. It will be decided anew.
                self.entries.fetch_sub(1, Relaxed);
                debug_assert!(false, "no place in a table that has just grown");
            }
            // Only now: in between a reader finds it in both.
            old.take(hash, slot);
        });
    }

    fn retire_old(&self) {
        let mut tables = lock(&self.tables);
        if let Some(old) = tables.old.take() {
            lock(&self.retired).push(old);
            self.generation.fetch_add(1, Release);
        }
    }

    /// Begins to grow, unless that is under way or done since table number `full` was seen to be so.
    pub(super) fn grow(&self, full: u32) -> io::Result<()> {
        let mut tables = lock(&self.tables);
        if tables.old.is_some() || tables.new.number != full {
            return Ok(());
        }
        let new = Arc::new(Table::new(full + 1, tables.new.bits() + 1)?);
        self.cursor.store(0, Relaxed);
        self.unmoved.store(self.groups.len() as u32, Release);
        let old = core::mem::replace(&mut tables.new, new);
        tables.old = Some(old);
        self.generation.fetch_add(1, Release);
        Ok(())
    }

    /// Visits all groups, one after the other, each locked. Ends a growth that is under way.
    pub(super) fn for_each_group(&self, secret: &HashKey, mut visit: impl FnMut(&Group<'_, W, S>)) {
        let mut view = View::new(self, None);
        for number in 0..self.groups.len() {
            visit(&self.lock_group(number, secret, &mut view));
        }
    }

    /// Calls `visit` with the key, the value and the packets of each entry. No
    /// lock is held meanwhile.
    pub(super) fn for_each(&self, secret: &HashKey, mut visit: impl FnMut([u64; W], u32, u64)) {
        let mut view = View::new(self, None);
        let mut entries = Vec::new();
        for number in 0..self.groups.len() {
            let group = self.lock_group(number, secret, &mut view);
            group.for_each(secret, |_, slot, key, value| entries.push((key, value, group.table.packets(slot))));
            drop(group);
            entries.drain(..).for_each(|(key, value, packets)| visit(key, value, packets));
        }
    }

    /// Gives back the memory of tables that nobody reads any more.
    pub(super) fn tidy(&self) {
        lock(&self.retired).retain(|table| Arc::strong_count(table) > 1);
    }
}

impl<const W: usize, const S: usize> Group<'_, W, S> {
    /// Adds an entry whose key is not there; `false` if there is no room before the table has grown.
    pub(super) fn put(&self, hash: u64, key: &[u64; W], value: u32) -> bool {
        let put = self.table.put(hash, key, value, 1);
        if put {
            self.growing.entries.fetch_add(1, Relaxed);
        }
        put
    }

    /// Whether the table should grow.
    pub(super) fn is_crowded(&self) -> bool {
        self.growing.entries.load(Relaxed) > self.table.comfortable()
    }

    /// Removes an entry of the group.
    pub(super) fn take(&self, hash: u64, slot: Slot) {
        self.table.take(hash, slot);
        self.growing.entries.fetch_sub(1, Relaxed);
    }

    /// Calls `visit` for the entries of the group, with their hashes.
    pub(super) fn for_each(&self, secret: &HashKey, mut visit: impl FnMut(u64, Slot, [u64; W], u32)) {
        self.table.for_each_near(self.number, GROUP_BITS, |slot, held| {
            let hash = secret.hash(&held.key);
            if (hash >> (64 - GROUP_BITS)) as usize == self.number {
                visit(hash, slot, held.key, held.value);
            }
        });
    }
}

/// What one reader keeps of a growing table, so that it need not ask for it each time.
#[derive(Debug)]
pub(super) struct View<const W: usize, const S: usize> {
    generation: u64,
    lane: Option<usize>,
    new: Counted<W, S>,
    old: Option<Counted<W, S>>,
}

/// Which of the tables of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    New,
    Old,
}

#[derive(Debug)]
struct Counted<const W: usize, const S: usize> {
    table: Arc<Table<W, S>>,
    /// `None`: there is no memory for counters, or no lane left for this reader.
    lane: Option<Arc<Lane>>,
}

impl<const W: usize, const S: usize> Counted<W, S> {
    fn new(table: Arc<Table<W, S>>, lane: Option<usize>) -> Self {
        let lane = lane.and_then(|number| table.lane(number).ok());
        Self { table, lane }
    }
}

impl<const W: usize, const S: usize> View<W, S> {
    /// The view of the reader with this lane.
    pub(super) fn new(growing: &Growing<W, S>, lane: Option<usize>) -> Self {
        // Before the tables: what is published in between is seen next time.
        let generation = growing.generation();
        let Tables { new, old } = growing.tables();
        Self { generation, lane, new: Counted::new(new, lane), old: old.map(|old| Counted::new(old, lane)) }
    }

    #[inline(always)]
    pub(super) fn is_stale(&self, growing: &Growing<W, S>) -> bool {
        self.generation != growing.generation()
    }

    #[inline(always)]
    pub(super) fn refresh(&mut self, growing: &Growing<W, S>) {
        if self.is_stale(growing) {
            *self = Self::new(growing, self.lane);
        }
    }

    /// The buckets of the newer table.
    #[inline(always)]
    pub(super) fn homes(&self) -> Homes<'_, W, S> {
        self.new.table.homes()
    }

    /// The packet counters of the newer table.
    #[inline(always)]
    pub(super) fn lane(&self) -> &[AtomicU32] {
        self.new.lane.as_deref().map_or(&[], |lane| lane)
    }

    /// Whether entries may still be in the older table.
    #[inline(always)]
    pub(super) fn is_growing(&self) -> bool {
        self.old.is_some()
    }

    /// Looks for a key everywhere.
    #[cfg(all(test, loom))]
    pub(super) fn find(&self, hash: u64, key: &[u64; W]) -> (Found, Place) {
        let found = self.homes().find(self.homes().of(hash), key);
        if found.value == 0 { self.find_further(hash, key) } else { (found, Place::New) }
    }

    /// Looks for a key everywhere but at its home in the newer table.
    pub(super) fn find_further(&self, hash: u64, key: &[u64; W]) -> (Found, Place) {
        let found = self.new.table.find_further(hash, key);
        match &self.old {
            Some(old) if found.value == 0 => (old.table.find(hash, key), Place::Old),
            _ => (found, Place::New),
        }
    }

    fn holder(&self, place: Place) -> Option<&Counted<W, S>> {
        match place {
            Place::New => Some(&self.new),
            Place::Old => self.old.as_ref(),
        }
    }

    /// Notes a use: see [`Table::exchange_value`].
    pub(super) fn exchange_value(&self, (slot, place): (Slot, Place), seen: u32, value: u32) {
        if let Some(holder) = self.holder(place) {
            holder.table.exchange_value(slot, seen, value);
        }
    }

    /// Counts a packet of each entry, all of them in the newer table.
    #[inline(always)]
    pub(super) fn count_each(&self, slots: &[Slot]) {
        let Counted { table, lane: Some(lane) } = &self.new else { return };
        for slot in slots {
            table.count(lane, *slot, 1);
        }
    }

    /// Counts packets of an entry.
    #[inline(always)]
    pub(super) fn count(&self, (slot, place): (Slot, Place), packets: u32) {
        if let Some(Counted { table, lane: Some(lane) }) = self.holder(place) {
            table.count(lane, slot, packets);
        }
    }
}
