//! One reader's look-ups in the table of one family of addresses.
//!
//! A batch goes through a few short loops rather than a long one, so that the
//! processor has many keys at work at once: the first asks for the line of each
//! key's home, the second compares, the third notes the uses. What is not
//! settled at its home (it went past, a writer is there, or the table is
//! growing) waits for the last.

use super::growing::{Growing, Place, View};
use super::key::{CacheKey, EpochTag, HashKey, Words};
use super::pages::prefetch;
use super::table::Slot;
use super::{STAMP, ticks_between};

/// Look-ups of which the lines are on their way at once.
pub(super) const BATCH: usize = 32;
/// Uses that are remembered between two counts.
const MOST_UNCOUNTED: usize = 1024;

/// One reader's access to a table, and what it found there.
#[derive(Debug)]
pub(super) struct Family<const W: usize, const S: usize> {
    pub(super) view: View<W, S>,
    uncounted: Uncounted,
}

/// The slots that were used since the last count, all of them in the newer table.
#[derive(Debug)]
struct Uncounted {
    slots: Box<[Slot; MOST_UNCOUNTED]>,
    len: usize,
}

impl Uncounted {
    #[inline(always)]
    fn push(&mut self, slot: Slot) -> bool {
        if self.len == MOST_UNCOUNTED {
            return false;
        }
        self.slots[self.len] = slot;
        self.len += 1;
        true
    }
}

/// What the look-ups of one moment have in common.
pub(super) struct Ask<'a> {
    pub(super) secret: &'a HashKey,
    pub(super) epoch: EpochTag,
    pub(super) stamp: u32,
    /// Whether what is found is to be counted as a packet.
    pub(super) counts: bool,
}

/// Some keys of a batch are of the other family.
#[derive(Debug)]
pub(super) struct Mixed;

impl<const W: usize, const S: usize> Family<W, S>
where
    [u64; W]: Words,
{
    pub(super) fn new(growing: &Growing<W, S>, lane: Option<usize>) -> Self {
        let uncounted = Uncounted { slots: Box::new([Slot(0); MOST_UNCOUNTED]), len: 0 };
        Self { view: View::new(growing, lane), uncounted }
    }

    #[inline(always)]
    pub(super) fn is_stale(&self, growing: &Growing<W, S>) -> bool {
        self.view.is_stale(growing)
    }

    /// Notices that the tables are others.
    pub(super) fn refresh(&mut self, growing: &Growing<W, S>) {
        if self.is_stale(growing) {
            // Their places are those of the tables there were.
            self.uncounted.len = 0;
            self.view.refresh(growing);
        }
    }

    /// The value of one key; 0 if it is not there.
    #[inline(always)]
    pub(super) fn look_up(&mut self, ask: &Ask<'_>, key: &CacheKey) -> u32 {
        let words = Words::of(key, ask.epoch);
        let homes = self.view.homes();
        let found = homes.find(homes.of(ask.secret.hash(&words)), &words);
        if found.value == 0 {
            let may_be_further = found.may_be_further || self.view.is_growing();
            return if may_be_further {
                self.look_further(ask.secret.hash(&words), words, ask.stamp, ask.counts)
            } else {
                0
            };
        }
        if found.value & STAMP != ask.stamp {
            self.note_time((found.slot, Place::New), found.value, ask.stamp);
        }
        if ask.counts
            && self.uncounted.push(found.slot)
            && let Some(counter) = self.view.lane().get(found.slot.0 as usize)
        {
            prefetch(counter);
        }
        found.value
    }

    /// The same for a key that is not at its home.
    #[inline(never)]
    fn look_further(&mut self, hash: u64, words: [u64; W], stamp: u32, counts: bool) -> u32 {
        let (found, place) = self.view.find_further(hash, &words);
        if found.value != 0 {
            if found.value & STAMP != stamp {
                self.note_time((found.slot, place), found.value, stamp);
            }
            match place {
                Place::New if counts => {
                    self.uncounted.push(found.slot);
                }
                Place::Old if counts => self.view.count((found.slot, place), 1),
                _ => (),
            }
        }
        found.value
    }

    /// The values of `count` keys, up to [`BATCH`], of which number `n` is `keys[order(n)]`.
    #[inline(never)]
    pub(super) fn look_up_batch(
        &mut self,
        ask: &Ask<'_>,
        (count, order): (usize, impl Fn(usize) -> usize),
        keys: &[CacheKey],
        values: &mut [u32; BATCH],
    ) -> Result<(), Mixed> {
        let homes = self.view.homes();
        let mut at_home = [0; BATCH];
        let mut mixed = false;
        for (n, home) in at_home[..count].iter_mut().enumerate() {
            let key = &keys[order(n)];
            mixed |= key.is_ipv6() != <[u64; W]>::IPV6;
            *home = homes.of(ask.secret.hash(&<[u64; W]>::of(key, ask.epoch)));
            homes.prefetch(*home);
        }
        if mixed {
            return Err(Mixed);
        }

        let growing = self.view.is_growing();
        let mut slots = [Slot(0); BATCH];
        let (mut waiting, mut later) = ([0u8; BATCH], 0);
        for (n, ((home, value), slot)) in at_home[..count].iter().zip(&mut *values).zip(&mut slots).enumerate() {
            let seen = homes.glance(*home, &Words::of(&keys[order(n)], ask.epoch));
            let settled = seen.is_some_and(|found| found.value != 0 || !(found.may_be_further | growing));
            (*value, *slot) = seen.map_or((0, Slot(0)), |found| (found.value, found.slot));
            if !settled {
                waiting[later] = n as u8;
                later += 1;
            }
        }
        for n in &waiting[..later] {
            homes.prefetch(at_home[usize::from(*n)] + 1);
        }

        let mut other_stamps = 0;
        for value in &values[..count] {
            other_stamps |= if *value == 0 { 0 } else { (value ^ ask.stamp) & STAMP };
        }
        let (lane, free) = (self.view.lane(), &mut self.uncounted.slots[self.uncounted.len..]);
        let mut used = 0;
        for (value, slot) in values[..count].iter().zip(&slots) {
            let Some(place) = free.get_mut(used) else { break };
            *place = *slot;
            used += usize::from(*value != 0);
            if let Some(counter) = lane.get(slot.0 as usize) {
                prefetch(counter);
            }
        }
        self.uncounted.len += used;
        if other_stamps != 0 {
            for (value, slot) in values[..count].iter().zip(&slots).filter(|(value, _)| **value != 0) {
                self.note_time((*slot, Place::New), *value, ask.stamp);
            }
        }

        for n in &waiting[..later] {
            let n = usize::from(*n);
            values[n] = self.look_up(ask, &keys[order(n)]);
        }
        Ok(())
    }

    /// Notes the time of use.
    #[cold]
    fn note_time(&self, (slot, place): (Slot, Place), value: u32, stamp: u32) {
        // A clock may be behind another's.
        if ticks_between(value & STAMP, stamp) > 0 {
            self.view.exchange_value((slot, place), value, value & !STAMP | stamp);
        }
    }

    /// Counts a packet for each use since the last count.
    #[inline]
    pub(super) fn count(&mut self) {
        self.view.count_each(&self.uncounted.slots[..self.uncounted.len]);
        self.uncounted.len = 0;
    }
}
