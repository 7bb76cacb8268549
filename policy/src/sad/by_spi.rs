//! Inbound SAs by SPI: a table that grows while it is read.
//!
//! To grow, a table of the double size is published beside the old one. New SAs go
//! into the new one; each call of a writer copies those of a few buckets of the old one
//! over, until the old one can go. An SA that is copied stays in the old table too, so that
//! a reader finds it with either pair of tables. So nobody ever waits for all SAs to be moved.
#![allow(unsafe_code, reason = "tables, under the pin of the reader or the lock of the writer; see ARCHITECTURE.md")]

use super::place::Place;
use super::readers::{Pin, Reader, Readers, Retired};
use super::table::{Spot, Table};
use super::{DuplicateSpi, InsertError};
use crate::cache::pages::prefetch;
use crate::sync::{Arc as SyncArc, Mutex, lock};
use core::marker::PhantomData;
use std::io;
use std::sync::Arc;

/// log2 of the homes of the first table: 16 KB.
const FIRST_BITS: u32 = if cfg!(loom) { 0 } else { 8 };
/// Buckets of the old table that a call of a writer copies: a microsecond or two. A growth
/// ends long before the next begins, since that takes more than two insertions for each bucket.
const COPIED_AT_ONCE: usize = 16;
/// So many times the comfortable room may be given to SAs whose SPIs have bad luck together.
const MOST_ROOM: usize = 64;

/// Inbound SAs by SPI.
///
/// The SPI alone identifies an inbound unicast SA (RFC 4303 2.1): we chose it, or our
/// configuration did, so no two of ours are equal, whatever their addresses. (A protocol with SPIs of its own, as AH, has a
/// database of its own.)
///
/// Whoever looks up has a [`Reader`], and [`pin`](Sad::pin)s for a batch. Look-ups take no
/// lock and write nothing that others read. A removed SA is dropped by the writer once the
/// batches that may use it are over, never by a reader. The table grows with the largest number of SAs there ever were,
/// some 30 octets for each, and does not shrink.
#[derive(Debug)]
pub struct Sad<S: Send + Sync> {
    tables: Place<Tables<S>>,
    readers: SyncArc<Readers>,
    writer: Mutex<Writer<S>>,
}

/// The table in use, and the one before while SAs are copied.
#[derive(Debug)]
struct Tables<S: Send + Sync> {
    new: Arc<Table<S>>,
    old: Option<Arc<Table<S>>>,
}

impl<S: Send + Sync> Clone for Tables<S> {
    fn clone(&self) -> Self {
        Self { new: Arc::clone(&self.new), old: self.old.clone() }
    }
}

#[derive(Debug)]
struct Writer<S: Send + Sync> {
    tables: Tables<S>,
    len: usize,
    /// Places in the new table that are taken, or not free yet.
    taken: usize,
    /// The bucket of the old table to be copied next.
    next: usize,
    retired: Retired<Gone<S>>,
}

/// What is out of use, but perhaps not yet for all readers.
#[derive(Debug)]
#[expect(dead_code, reason = "it is owned, so that it lives, and then dropped")]
enum Gone<S: Send + Sync> {
    /// An SA, and where it was: in the table of this number.
    Sa { sa: Arc<S>, table: u32, spot: Spot },
    /// A pair of tables.
    Tables(Arc<Tables<S>>),
}

impl<S: Send + Sync> Default for Sad<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Send + Sync> Sad<S> {
    /// An empty database.
    ///
    /// # Panics
    /// If the system has no memory for the first table, some 18 KB.
    #[must_use]
    pub fn new() -> Self {
        let first = Table::new(0, FIRST_BITS).expect("memory for the first table of the SAD");
        let tables = Tables { new: Arc::new(first), old: None };
        let published = Place::empty();
        published.replace(Some(Arc::new(tables.clone())));
        let writer = Writer { tables, len: 0, taken: 0, next: 0, retired: Retired::new() };
        Self { tables: published, readers: Readers::new(), writer: Mutex::new(writer) }
    }

    /// What one thread looks up with.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Readers::reader(&self.readers)
    }

    /// Begins a batch of look-ups. While it lives no memory of removed
    /// SAs is given back: keep it for one batch, not longer.
    #[inline]
    #[must_use]
    pub fn pin(&self, reader: &mut Reader) -> Pinned<'_, S> {
        let pin = Readers::pin(&self.readers, reader);
        // SAFETY: the pin is of our readers, for whose sake `publish` keeps what was here.
        let tables = unsafe { self.tables.load(&pin) }.expect("tables are published from the beginning to the end");
        Pinned { tables, pin, sad: PhantomData }
    }

    /// Adds an SA. An SA that has the same SPI stays as it is.
    pub fn insert(&self, spi: u32, sa: Arc<S>) -> Result<(), InsertError> {
        if spi == 0 {
            return Err(InsertError::NotAnSpi);
        }
        let mut writer = lock(&self.writer);
        let unused = self.go_on(&mut writer);
        let inserted = self.put(&mut writer, spi, sa);
        drop(writer);
        // Outside the lock: it takes its time to wipe keys.
        drop(unused);
        inserted
    }

    fn put(&self, writer: &mut Writer<S>, spi: u32, mut sa: Arc<S>) -> Result<(), InsertError> {
        if writer.tables.spots(spi).next().is_some() {
            return Err(DuplicateSpi { spi }.into());
        }
        while let Err(refused) = writer.tables.new.put(spi, sa) {
            sa = refused;
            self.rebuild(writer).map_err(|_| InsertError::NoMemory { spi })?;
        }
        writer.len += 1;
        writer.taken += 1;
        if writer.taken > writer.tables.new.comfortable() && writer.tables.old.is_none() {
            // Without the memory to grow it goes on as it is, a little slower.
            let _ = self.grow(writer);
        }
        Ok(())
    }

    /// Removes an SA and returns it; packets under way may still use it.
    pub fn remove(&self, spi: u32) -> Option<Arc<S>> {
        let mut writer = lock(&self.writer);
        let mut removed = None;
        let Writer { tables, retired, .. } = &mut *writer;
        // Twice while it is being copied.
        for (table, spot) in tables.spots(spi) {
            let Some(sa) = table.take(spot) else { continue };
            removed = Some(Arc::clone(&sa));
            retired.keep(&self.readers, Gone::Sa { sa, table: table.number, spot });
        }
        writer.len -= usize::from(removed.is_some());
        let unused = self.go_on(&mut writer);
        drop(writer);
        drop(unused);
        removed
    }

    /// Gives back what was removed and is no longer in use. Every change of the database does that
    /// too; to be called now and then, so that the last SA to be removed does not stay for long.
    pub fn tidy(&self) {
        let mut writer = lock(&self.writer);
        let unused = self.go_on(&mut writer);
        drop(writer);
        drop(unused);
    }

    /// One look-up that keeps the SA. Waits for writers.
    #[must_use]
    pub fn find(&self, spi: u32) -> Option<Arc<S>> {
        let writer = lock(&self.writer);
        // SAFETY: whoever changes the tables holds the lock, which we have.
        writer.tables.spots(spi).find_map(|(table, spot)| unsafe { table.at(spot) })
    }

    /// Number of SAs.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.writer).len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory that the tables take, without the SAs.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let tables = lock(&self.writer).tables.clone();
        tables.new.octets() + tables.old.map_or(0, |old| old.octets())
    }

    /// Calls `visit` for each SA there is now, in no order. No lock is held meanwhile.
    pub fn for_each(&self, mut visit: impl FnMut(u32, &Arc<S>)) {
        let writer = lock(&self.writer);
        let mut all = Vec::with_capacity(writer.len);
        // SAFETY: whoever changes the tables holds the lock, which we have.
        all.extend(unsafe { writer.tables.all() });
        drop(writer);
        all.iter().for_each(|(spi, sa)| visit(*spi, sa));
    }

    /// What each writer does on the way: copies a little, and takes back what is no longer in use,
    /// to be dropped when the lock is not held.
    #[must_use]
    fn go_on(&self, writer: &mut Writer<S>) -> Vec<Gone<S>> {
        self.copy(writer);
        let unused = writer.retired.unused(&self.readers);
        for gone in &unused {
            if let Gone::Sa { table, spot, .. } = gone
                && *table == writer.tables.new.number
            {
                writer.tables.new.free(*spot);
                writer.taken -= 1;
            }
        }
        unused
    }

    /// Copies a few buckets of the old table, if there is one, and lets it go after the last.
    fn copy(&self, writer: &mut Writer<S>) {
        let Some(old) = writer.tables.old.clone() else { return };
        let end = old.len().min(writer.next + COPIED_AT_ONCE);
        for bucket in writer.next..end {
            // SAFETY: whoever changes the tables holds the writer's lock, as our caller does.
            for (spi, sa) in unsafe { old.in_bucket(bucket) } {
                if writer.tables.new.spot(spi).is_some() {
                    // Copied before, in a call that could not end.
                    continue;
                }
                if writer.tables.new.put(spi, sa).is_err() {
                    // Without the memory for a larger one both tables stay, until there is.
                    let _ = self.rebuild(writer);
                    return;
                }
                writer.taken += 1;
            }
            writer.next = bucket + 1;
        }
        if end == old.len() {
            self.publish(writer, Tables { new: Arc::clone(&writer.tables.new), old: None });
        }
    }

    /// Begins to grow.
    fn grow(&self, writer: &mut Writer<S>) -> io::Result<()> {
        let old = Arc::clone(&writer.tables.new);
        let new = Arc::new(Table::new(old.number + 1, old.bits() + 1)?);
        (writer.taken, writer.next) = (0, 0);
        self.publish(writer, Tables { new, old: Some(old) });
        Ok(())
    }

    /// Moves to a larger table at once, for the case of the worst luck: an SA that finds no place in one
    /// that is half empty.
    #[cold]
    fn rebuild(&self, writer: &mut Writer<S>) -> io::Result<()> {
        let number = writer.tables.new.number + 1;
        for bits in writer.tables.new.bits() + 1.. {
            let larger = Table::new(number, bits)?;
            if larger.comfortable() > (writer.len + 1) * MOST_ROOM {
                // It is not luck: these SPIs would fill any table.
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            // SAFETY: whoever changes the tables holds the writer's lock, as our caller does.
            let mut all = unsafe { writer.tables.all() };
            if all.all(|(spi, sa)| larger.put(spi, sa).is_ok()) {
                drop(all);
                writer.taken = writer.len;
                self.publish(writer, Tables { new: Arc::new(larger), old: None });
                break;
            }
        }
        Ok(())
    }

    fn publish(&self, writer: &mut Writer<S>, tables: Tables<S>) {
        writer.tables = tables.clone();
        if let Some(before) = self.tables.replace(Some(Arc::new(tables))) {
            writer.retired.keep(&self.readers, Gone::Tables(before));
        }
    }
}

impl<S: Send + Sync> Tables<S> {
    /// For the writer: where the SA with an SPI is, in one table or in both.
    fn spots(&self, spi: u32) -> impl Iterator<Item = (&Table<S>, Spot)> {
        let tables = [Some(&self.new), self.old.as_ref()].into_iter().flatten();
        tables.filter_map(move |table| Some((&**table, table.spot(spi)?)))
    }

    /// For the writer: each SA once.
    ///
    /// # Safety
    /// Nobody takes SAs out or puts them in meanwhile.
    unsafe fn all(&self) -> impl Iterator<Item = (u32, Arc<S>)> {
        // SAFETY: as the caller promises.
        let of = |table: &Arc<Table<S>>| {
            let table = Arc::clone(table);
            (0..table.len()).flat_map(move |bucket| unsafe { table.in_bucket(bucket) }.collect::<Vec<_>>())
        };
        let not_copied = |(spi, _): &(u32, _)| self.new.spot(*spi).is_none();
        self.old.iter().flat_map(of).filter(not_copied).chain(of(&self.new))
    }
}

/// A batch of look-ups in the SAD, see [`Sad::pin`].
#[derive(Debug)]
pub struct Pinned<'a, S: Send + Sync> {
    /// As they were published when the batch began.
    tables: *const Tables<S>,
    pin: Pin,
    sad: PhantomData<&'a Sad<S>>,
}

impl<S: Send + Sync> Pinned<'_, S> {
    #[inline(always)]
    fn tables(&self) -> &Tables<S> {
        // SAFETY: found in a place of the database under our pin, see `Sad::pin`, and the database cannot
        // go before us.
        unsafe { &*self.tables }
    }

    /// The SA with this SPI. Takes no lock and counts no reference. An SA
    /// that was installed since the batch began need not be found.
    #[inline]
    #[must_use]
    pub fn find(&self, spi: u32) -> Option<&S> {
        let tables = self.tables();
        // SAFETY: our pin is of the readers of this database.
        let found = unsafe { tables.new.find(spi, &self.pin) };
        if found.is_none() && tables.old.is_some() { self.find_in_old(spi) } else { found }
    }

    #[cold]
    fn find_in_old(&self, spi: u32) -> Option<&S> {
        // SAFETY: our pin is of the readers of this database.
        unsafe { self.tables().old.as_ref()?.find(spi, &self.pin) }
    }

    /// Looks up many: memory is fetched for all of them at once, also the beginning of each SA.
    ///
    /// # Panics
    /// If the slices are not of the same length.
    #[inline]
    pub fn find_batch<'p>(&'p self, spis: &[u32], found: &mut [Option<&'p S>]) {
        assert_eq!(spis.len(), found.len(), "a place for each answer");
        let tables = self.tables();
        spis.iter().for_each(|spi| tables.new.prefetch(*spi));
        for (spi, found) in spis.iter().zip(found) {
            *found = self.find(*spi);
            if let Some(sa) = found {
                prefetch(*sa);
            }
        }
    }

    /// Fetches what a look-up will need.
    #[inline]
    pub fn prefetch(&self, spi: u32) {
        self.tables().new.prefetch(spi);
    }
}
