//! The different decisions that entries of one epoch have: far fewer than
//! entries, so that an entry has only a number.

use super::{CacheEntry, STAMP_BITS};
use std::collections::HashMap;

/// The decisions of one epoch, by number. Number 0 is none.
#[derive(Clone, Debug)]
pub(super) struct Verdicts {
    epoch: u32,
    /// The first is `None`.
    entries: Vec<Option<CacheEntry>>,
    numbers: HashMap<CacheEntry, usize>,
}

/// Numbers that fit in an entry's value beside the time of use.
const NUMBERS: usize = 1 << (u32::BITS - STAMP_BITS);

impl Default for Verdicts {
    fn default() -> Self {
        Self { epoch: 0, entries: vec![None], numbers: HashMap::new() }
    }
}

impl Verdicts {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A decision by its number; `None` if that is not known here.
    #[inline(always)]
    pub(super) fn entry(&self, number: usize) -> Option<Option<CacheEntry>> {
        self.entries.get(number).copied()
    }

    /// Begins anew with a later epoch. Entries of the earlier one, which only have numbers, match no more.
    fn begin(&mut self, epoch: u32) {
        *self = Self { epoch, ..Self::default() };
    }

    /// The number of a decision, if it has one already.
    pub(super) fn known(&self, epoch: u32, entry: &CacheEntry) -> Option<usize> {
        if self.epoch == epoch { self.numbers.get(entry).copied() } else { None }
    }

    /// The number of a decision; `None` if it is of older policies than those
    /// in force, or there are more than a million different ones.
    pub(super) fn number(&mut self, epoch: u32, entry: CacheEntry) -> Option<usize> {
        if self.epoch != epoch {
            if self.entries.len() > 1 && (epoch.wrapping_sub(self.epoch) as i32) < 0 {
                return None;
            }
            self.begin(epoch);
        }
        if let Some(number) = self.numbers.get(&entry) {
            return Some(*number);
        }
        if self.entries.len() == NUMBERS {
            return None;
        }
        self.add(entry);
        Some(self.entries.len() - 1)
    }

    fn add(&mut self, entry: CacheEntry) {
        self.numbers.insert(entry, self.entries.len());
        self.entries.push(Some(entry));
    }

    /// Makes this the same as `shared`, in less time than cloning it takes when it is so nearly.
    pub(super) fn follow(&mut self, shared: &Self) {
        if self.epoch != shared.epoch {
            self.begin(shared.epoch);
        }
        for entry in shared.entries[self.entries.len()..].iter().flatten() {
            self.add(*entry);
        }
    }
}
