//! The part of the table that entries of one policy may take.

use crate::limits::{LimitEvent, share_of};
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::Arc;

/// Entries that one policy made, in one epoch, and how many it may have.
///
/// As with [`Quota`](crate::limits::Quota), a place is reserved before an entry
/// is made and released after it is gone, so there are never more than allowed.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) cookie: u32,
    /// Of the hard limit, in percent.
    pub(super) percent: u8,
    reserved: AtomicU64,
    /// The refusal was told.
    told: AtomicBool,
}

impl Share {
    pub(super) fn new(cookie: u32, percent: u8) -> Arc<Self> {
        Arc::new(Self { cookie, percent, reserved: AtomicU64::new(0), told: AtomicBool::new(false) })
    }

    /// Entries it may have under a hard limit.
    pub(super) fn limit(&self, hard: u64) -> u64 {
        share_of(hard, self.percent)
    }

    /// Entries it has.
    pub(super) fn taken(&self) -> u64 {
        self.reserved.load(Relaxed)
    }

    /// Takes a place, unless there is none left; then that is told, once until it has been otherwise.
    pub(super) fn reserve(&self, hard: u64, sink: &mut impl FnMut(LimitEvent)) -> bool {
        let limit = self.limit(hard);
        let reserved = self.reserved.fetch_update(AcqRel, Acquire, |n| (n < limit).then_some(n + 1)).is_ok();
        if !reserved && !self.told.load(Relaxed) && !self.told.swap(true, AcqRel) {
            sink(LimitEvent::ShareLimit { cookie: self.cookie, entries: limit });
        }
        reserved
    }

    /// Gives back the place of an entry that is gone, or was never made.
    pub(super) fn release(&self) {
        self.reserved.fetch_sub(1, AcqRel);
    }

    /// Makes ready to tell again, if there is a place.
    pub(super) fn rearm(&self, hard: u64) {
        if self.taken() < self.limit(hard) {
            self.told.store(false, Release);
        }
    }
}
