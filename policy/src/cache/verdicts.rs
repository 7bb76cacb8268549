//! The different decisions that entries of one epoch have: far fewer than
//! entries, so that an entry has only a number.

use super::share::Share;
use super::{CacheEntry, STAMP_BITS};
use std::collections::HashMap;
use std::sync::Arc;

/// The decisions of one epoch, by number. Number 0 is none.
#[derive(Clone, Debug)]
pub(super) struct Verdicts {
    epoch: u32,
    /// The first is `None`.
    entries: Vec<Option<CacheEntry>>,
    numbers: HashMap<CacheEntry, usize>,
    /// By number: what entries of this decision count under, if anything.
    shares: Vec<Option<Arc<Share>>>,
    by_cookie: HashMap<u32, Arc<Share>>,
}

/// Numbers that fit in an entry's value beside the time of use.
const NUMBERS: usize = 1 << (u32::BITS - STAMP_BITS);

impl Default for Verdicts {
    fn default() -> Self {
        Self { epoch: 0, entries: vec![None], numbers: HashMap::new(), shares: vec![None], by_cookie: HashMap::new() }
    }
}

impl Verdicts {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The decisions by their numbers; the first is none.
    #[inline(always)]
    pub(super) fn entries(&self) -> &[Option<CacheEntry>] {
        &self.entries
    }

    /// What entries of a decision count under; `None` if that is nothing, or the number is not known here.
    pub(super) fn share(&self, number: usize) -> Option<&Arc<Share>> {
        self.shares.get(number)?.as_ref()
    }

    /// What the policies have whose part of the table is limited.
    pub(super) fn shares(&self) -> impl Iterator<Item = &Arc<Share>> {
        self.by_cookie.values()
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
    /// in force, or there are more than a million different ones. `percent` is
    /// the share of the policy that made it.
    pub(super) fn number(&mut self, epoch: u32, entry: CacheEntry, percent: Option<u8>) -> Option<usize> {
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
        let cookie = entry.cookie;
        let share =
            percent.map(|percent| self.by_cookie.get(&cookie).cloned().unwrap_or_else(|| Share::new(cookie, percent)));
        self.add(entry, share);
        Some(self.entries.len() - 1)
    }

    fn add(&mut self, entry: CacheEntry, share: Option<Arc<Share>>) {
        self.numbers.insert(entry, self.entries.len());
        self.entries.push(Some(entry));
        self.by_cookie.extend(share.iter().map(|s| (s.cookie, Arc::clone(s))));
        self.shares.push(share);
    }

    /// Makes this the same as `shared`, in less time than cloning it takes when it is so nearly.
    pub(super) fn follow(&mut self, shared: &Self) {
        if self.epoch != shared.epoch {
            self.begin(shared.epoch);
        }
        let new = self.entries.len()..;
        for (entry, share) in shared.entries[new.clone()].iter().zip(&shared.shares[new]) {
            if let Some(entry) = entry {
                self.add(*entry, share.clone());
            }
        }
    }
}
