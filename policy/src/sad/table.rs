//! A table of one size from SPI to SA: open addressing over buckets of a cache line.
//!
//! One writer at a time; readers need nothing but a pin. A place that an SA
//! leaves keeps its SPI, and is not given to another before all who could have
//! seen the first are done. So a reader that finds its SPI before and after
//! it reads the pointer beside it has the right one.
#![allow(unsafe_code, reason = "places, under the pin that the caller has; see ARCHITECTURE.md")]

use super::place::Place;
use super::readers::Pin;
use crate::cache::pages::{Pages, Zeroable, prefetch};
use crate::sync::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use std::io;
use std::sync::Arc;

/// Places in a bucket.
const PLACES: usize = 5;

/// Buckets in which an SA may be, beginning with its home. A table grows when half of its places
/// are taken. By then `n` buckets in a row are full with a chance below `(e^(1-1/2) / 2)^5n` (Chernoff), 2^-44 for
/// 32; and it would grow before its time.
const REACH: usize = if cfg!(loom) { 2 } else { 32 };

/// Stands where no SPI does: 0 is none (RFC 4303 2.1).
const FREE: u32 = 0;

#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket<S> {
    /// How many SAs went past this bucket since it was full.
    beyond: AtomicU32,
    spis: [AtomicU32; PLACES],
    sas: [Place<S>; PLACES],
}

// SAFETY: `repr(C)`; zero is a value of the integers, and that of an empty place. `Table` empties the places
// before the memory goes. Nothing in it is aligned to more than a cache line.
unsafe impl<S: Send + Sync> Zeroable for Bucket<S> {
    #[cfg(any(loom, miri))]
    fn zero() -> Self {
        Self {
            beyond: AtomicU32::new(0),
            spis: core::array::from_fn(|_| AtomicU32::new(FREE)),
            sas: core::array::from_fn(|_| Place::empty()),
        }
    }
}
#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Bucket<u8>>() == 64);

/// Where an SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    bucket: usize,
    place: usize,
}

#[derive(Debug)]
pub(super) struct Table<S: Send + Sync> {
    /// Number of the table among those of its database.
    pub(super) number: u32,
    bits: u32,
    /// As many as homes, and those that the last ones spill into.
    buckets: Pages<Bucket<S>>,
}

impl<S: Send + Sync> Table<S> {
    /// An empty one with `2^bits` homes.
    pub(super) fn new(number: u32, bits: u32) -> io::Result<Self> {
        // An SPI has no more bits to tell homes apart with.
        let homes = if bits <= 32 { 1usize.checked_shl(bits) } else { None };
        let buckets = homes.and_then(|homes| homes.checked_add(REACH - 1)).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { number, bits, buckets: Pages::zeroed(buckets)? })
    }

    /// log2 of the number of homes.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// So many places may be taken before it should grow.
    pub(super) fn comfortable(&self) -> usize {
        (PLACES << self.bits) / 2
    }

    /// Octets of memory it takes.
    pub(super) fn octets(&self) -> u64 {
        self.buckets.octets() as u64
    }

    /// SPIs in a row go to buckets far apart. It needs no key: we draw the SPIs
    /// ourselves, or our own configuration names them.
    #[inline(always)]
    fn home(&self, spi: u32) -> usize {
        // 2^32 / golden ratio.
        (u64::from(spi.wrapping_mul(0x9e37_79b9)) >> (32 - self.bits)) as usize
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, spi: u32) {
        prefetch(&self.buckets[self.home(spi)]);
    }

    /// The SA with an SPI.
    ///
    /// # Safety
    /// `pin` is of the readers for whose sake what [`Table::take`] returns is kept, and
    /// [`Table::free`] waits.
    #[inline(always)]
    pub(super) unsafe fn find<'p>(&self, spi: u32, pin: &'p Pin) -> Option<&'p S> {
        for bucket in &self.buckets[self.home(spi)..] {
            // All five without a branch: which it is, no processor can foresee.
            let mut equal = 0u32;
            for (at, theirs) in bucket.spis.iter().enumerate() {
                equal |= u32::from(theirs.load(Relaxed) == spi) << at;
            }
            while equal != 0 {
                let at = equal.trailing_zeros() as usize;
                // SAFETY: as the caller promises.
                let found = unsafe { bucket.sas[at].load(pin) };
                // With the pointer comes the SPI that was written before it. If that is
                // another one, the place was given to another SA since we looked first.
                if found.is_some() && bucket.spis[at].load(Relaxed) == spi {
                    return found;
                }
                equal &= equal - 1;
            }
            if bucket.beyond.load(Relaxed) == 0 {
                break;
            }
        }
        None
    }

    /// For the writer: where the SA with an SPI is.
    pub(super) fn spot(&self, spi: u32) -> Option<Spot> {
        let first = self.home(spi);
        for (bucket, b) in (first..).zip(&self.buckets[first..first + REACH]) {
            let mut places = b.spis.iter().zip(&b.sas);
            if let Some(place) = places.position(|(s, sa)| s.load(Relaxed) == spi && !sa.is_empty()) {
                return Some(Spot { bucket, place });
            }
        }
        None
    }

    /// Adds an SA whose SPI is not there; gives it back if there is no place.
    pub(super) fn put(&self, spi: u32, sa: Arc<S>) -> Result<Spot, Arc<S>> {
        let first = self.home(spi);
        for (bucket, b) in (first..).zip(&self.buckets[first..first + REACH]) {
            if let Some(place) = b.spis.iter().position(|s| s.load(Relaxed) == FREE) {
                for passed in &self.buckets[first..bucket] {
                    passed.beyond.fetch_add(1, Relaxed);
                }
                b.spis[place].store(spi, Relaxed);
                // Publishes: a reader that sees the SA sees the SPI and the notes on the way to it.
                let before = b.sas[place].replace(Some(sa));
                debug_assert!(before.is_none(), "a place without an SPI has no SA");
                return Ok(Spot { bucket, place });
            }
        }
        Err(sa)
    }

    /// Takes an SA out. It must be kept while readers may use it; its place is to be freed with it.
    pub(super) fn take(&self, spot: Spot) -> Option<Arc<S>> {
        let bucket = &self.buckets[spot.bucket];
        let taken = bucket.sas[spot.place].replace(None)?;
        let home = self.home(bucket.spis[spot.place].load(Relaxed));
        for passed in &self.buckets[home..spot.bucket] {
            passed.beyond.fetch_sub(1, Relaxed);
        }
        Some(taken)
    }

    /// Gives the place of an SA that was taken out to others: no reader can have seen it any more.
    pub(super) fn free(&self, spot: Spot) {
        self.buckets[spot.bucket].spis[spot.place].store(FREE, Relaxed);
    }

    /// How many buckets there are.
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// For the writer: the SA in a spot.
    ///
    /// # Safety
    /// Nobody else takes SAs out or puts them in.
    pub(super) unsafe fn at(&self, spot: Spot) -> Option<Arc<S>> {
        // SAFETY: as the caller promises.
        unsafe { self.buckets[spot.bucket].sas[spot.place].held() }
    }

    /// For the writer: the SAs in a bucket, with their SPIs.
    ///
    /// # Safety
    /// As for [`Table::at`].
    pub(super) unsafe fn in_bucket(&self, bucket: usize) -> impl Iterator<Item = (u32, Arc<S>)> {
        let spi = move |place: usize| self.buckets[bucket].spis[place].load(Relaxed);
        // SAFETY: as the caller promises.
        let sa = move |place| unsafe { self.at(Spot { bucket, place }) };
        (0..PLACES).filter_map(move |place| Some((spi(place), sa(place)?)))
    }
}

impl<S: Send + Sync> Drop for Table<S> {
    fn drop(&mut self) {
        for bucket in self.buckets.iter() {
            for sa in &bucket.sas {
                drop(sa.replace(None));
            }
        }
    }
}
