//! One cache line of the table: a few entries under a sequence lock.
//!
//! A reader takes no lock and writes nothing: it reads the entries between two
//! looks at the state and begins again if the state changed meanwhile. All
//! fields are atomics, so that a torn read is only a value to be thrown away
//! (H. Boehm, "Can seqlocks get along with programming language memory models?",
//! 2012). A reader that finds a writer in its way for too long takes that for a
//! miss, which is always right for a cache: so readers never wait for a writer
//! that was interrupted.

use super::pages::Zeroable;
use crate::sync::{AtomicU32, AtomicU64, fence, relax};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Entries with keys of `W` words in `S` places.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Bucket<const W: usize, const S: usize> {
    /// Bit 0: a writer is at work. Bits 1 to 7: how many entries went past this
    /// bucket since it was full. The rest counts changes.
    state: AtomicU32,
    /// 0 where the place is free.
    values: [AtomicU32; S],
    keys: [[AtomicU64; W]; S],
}

/// The last word of the key in a free place. It is that of no key, where a bucket has more than one place: so at most
/// one of them is equal to a key.
const FREE: u64 = 0;

const LOCKED: u32 = 1;
const SPILLED_ONE: u32 = 2;
const SPILLED: u32 = 0xfe;
const CHANGE: u32 = 0x100;

/// How often a reader tries before it takes a busy bucket for a miss. A writer
/// is done after some 10 ns, unless it is interrupted.
#[cfg(not(loom))]
const PATIENCE: usize = 64;
#[cfg(loom)]
const PATIENCE: usize = 2;

// SAFETY: `repr(C)`, all fields are atomics, for which zero is a value; a state of 0 is a bucket
// that is not locked, and values of 0 are free places. Checked for the sizes in use:
#[allow(unsafe_code, reason = "a promise that the lines above argue for")]
unsafe impl<const W: usize, const S: usize> Zeroable for Bucket<W, S> {
    #[cfg(any(loom, miri))]
    fn zero() -> Self {
        Self {
            state: AtomicU32::new(0),
            values: core::array::from_fn(|_| AtomicU32::new(0)),
            keys: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0))),
        }
    }
}
#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket<2, 3>>() == 64 && size_of::<Bucket<5, 1>>() == 64);

/// An entry and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held<const W: usize> {
    pub(super) place: usize,
    pub(super) key: [u64; W],
    /// Never 0.
    pub(super) value: u32,
}

/// What a reader saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// 0 if the key is not here.
    pub(super) value: u32,
    /// With a value: which place it is in.
    pub(super) place: usize,
    /// Entries that belong here may be in a later bucket.
    pub(super) spilled: bool,
}

impl<const W: usize, const S: usize> Bucket<W, S> {
    /// Looks for a key, without waiting for a writer.
    #[inline(always)]
    pub(super) fn find(&self, key: &[u64; W]) -> Seen {
        self.glance(key).unwrap_or_else(|| self.look_again(*key, 0, PATIENCE - 1))
    }

    /// Looks for a key, but for the bits `ignored` of its last word. Waits for writers.
    pub(super) fn find_ignoring(&self, key: &[u64; W], ignored: u64) -> Seen {
        self.look_again(*key, ignored, usize::MAX)
    }

    /// Looks for a key once; nothing if a writer came between.
    #[inline(always)]
    pub(super) fn glance(&self, key: &[u64; W]) -> Option<Seen> {
        self.look(key, 0)
    }

    /// Which place a key is in cannot be foretold: there is no branch, and nothing of which compilers make one.
    #[inline(always)]
    fn look(&self, key: &[u64; W], ignored: u64) -> Option<Seen> {
        let before = self.state.load(Acquire);
        if before & LOCKED != 0 {
            return None;
        }
        let mut equal = 0;
        for at in 0..S {
            let mut different = 0;
            for (word, (theirs, ours)) in self.keys[at].iter().zip(key).enumerate() {
                let difference = theirs.load(Relaxed) ^ ours;
                different |= if word == W - 1 { difference & !ignored } else { difference };
            }
            equal |= usize::from(different == 0) << at;
        }
        // At most one is equal, see `FREE`: 1, 2 and 4 are places 0, 1 and 2. Anything else is a torn read.
        let place = equal >> 1;
        let value = if equal == 0 { 0 } else { self.values.get(place)?.load(Relaxed) };
        fence(Acquire);
        let after = self.state.load(Relaxed);
        (after == before).then_some(Seen { value, place, spilled: before & SPILLED != 0 })
    }

    #[cold]
    #[inline(never)]
    fn look_again(&self, key: [u64; W], ignored: u64, patience: usize) -> Seen {
        for _ in 0..patience {
            if let Some(seen) = self.look(&key, ignored) {
                return seen;
            }
            relax();
        }
        Seen { value: 0, place: 0, spilled: false }
    }

    /// The last word of the key in a place that nobody is changing.
    pub(super) fn last_word(&self, place: usize) -> u64 {
        self.keys[place][W - 1].load(Relaxed)
    }

    /// All entries, as they were at one moment. For whoever is in no hurry: it
    /// waits for writers.
    pub(super) fn all(&self) -> impl Iterator<Item = Held<W>> + use<W, S> {
        loop {
            let before = self.state.load(Acquire);
            if before & LOCKED == 0 {
                let values: [u32; S] = core::array::from_fn(|at| self.values[at].load(Relaxed));
                let keys: [[u64; W]; S] =
                    core::array::from_fn(|at| core::array::from_fn(|word| self.keys[at][word].load(Relaxed)));
                fence(Acquire);
                if self.state.load(Relaxed) == before {
                    return (0..S)
                        .map(move |place| Held { place, key: keys[place], value: values[place] })
                        .filter(|held| held.value != 0);
                }
            }
            relax();
        }
    }

    /// Whether entries that belong here may be in a later bucket.
    pub(super) fn has_spilled(&self) -> bool {
        self.state.load(Acquire) & SPILLED != 0
    }

    /// Notes a use in an entry, if it is still the one that was seen. This is
    /// no change for readers: see [`super::stamp`].
    pub(super) fn exchange_value(&self, place: usize, seen: u32, value: u32) {
        let _ = self.values[place].compare_exchange(seen, value, Relaxed, Relaxed);
    }

    /// Puts an entry into a free place and returns which; `before_visible`
    /// hears of it while no reader can see the entry. Without a free place the
    /// spill is noted.
    pub(super) fn put(&self, key: &[u64; W], value: u32, before_visible: impl FnOnce(usize)) -> Option<usize> {
        let state = self.lock();
        let free = (0..S).find(|at| self.values[*at].load(Relaxed) == 0);
        match free {
            Some(place) => {
                for (to, word) in self.keys[place].iter().zip(key) {
                    to.store(*word, Relaxed);
                }
                before_visible(place);
                self.values[place].store(value, Relaxed);
                self.unlock(state);
            }
            // A count that has reached its end stays there: it only costs readers a look.
            None if state & SPILLED == SPILLED => self.unlock(state),
            None => self.unlock(state + SPILLED_ONE),
        }
        free
    }

    /// Replaces key and value of an entry.
    pub(super) fn replace(&self, place: usize, key: &[u64; W], value: u32) {
        let state = self.lock();
        for (to, word) in self.keys[place].iter().zip(key) {
            to.store(*word, Relaxed);
        }
        self.values[place].swap(value, Relaxed);
        self.unlock(state);
    }

    /// Frees a place.
    pub(super) fn take(&self, place: usize) {
        let state = self.lock();
        self.keys[place][W - 1].store(FREE, Relaxed);
        // Not a plain store: a note of use that is under way comes before it or finds nothing.
        self.values[place].swap(0, Relaxed);
        self.unlock(state);
    }

    /// One entry fewer is in a later bucket.
    pub(super) fn unspill(&self) {
        let state = self.lock();
        let at_its_end = state & SPILLED == SPILLED;
        self.unlock(if at_its_end { state } else { state - SPILLED_ONE });
    }

    fn lock(&self) -> u32 {
        loop {
            let state = self.state.load(Relaxed);
            if state & LOCKED == 0 && self.state.compare_exchange_weak(state, state | LOCKED, Acquire, Relaxed).is_ok()
            {
                // Whoever reads what is written from here on, sees the lock too when it looks again.
                fence(Release);
                return state;
            }
            relax();
        }
    }

    fn unlock(&self, state: u32) {
        self.state.store((state & !LOCKED).wrapping_add(CHANGE), Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const A: [u64; 2] = [1, 1];
    const B: [u64; 2] = [2, 1];

    /// What the models show for all orders of few steps, with many steps: two keys take turns in
    /// the one place of a bucket, and a look-up of one never has the value of the other.
    #[test]
    fn a_torn_read_is_thrown_away() {
        const KEYS: [[u64; 5]; 2] = [[1; 5], [2; 5]];
        let bucket: Bucket<5, 1> = zeroed();
        bucket.put(&KEYS[0], 1, |_| {});
        let done = AtomicBool::new(false);
        let (found, wrong) = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    bucket.replace(0, &KEYS[1], 2);
                    bucket.replace(0, &KEYS[0], 1);
                }
            });
            // Under Miri few steps are many.
            let looks = if cfg!(miri) { 1_000 } else { 2_000_000 };
            let (mut found, mut wrong) = ([0u32; 2], 0);
            for look in 0..looks {
                match bucket.find(&KEYS[look % 2]).value {
                    0 => {}
                    value if value as usize == look % 2 + 1 => found[look % 2] += 1,
                    _ => wrong += 1,
                }
            }
            // Nothing above panics: the writer would never end.
            done.store(true, Relaxed);
            (found, wrong)
        });
        assert_eq!(wrong, 0, "values of another key");
        assert!(found[0] > 0 && found[1] > 0, "the keys were hardly there: {found:?}");
    }

    fn zeroed<const W: usize, const S: usize>() -> Bucket<W, S> {
        Bucket {
            state: AtomicU32::new(0),
            values: core::array::from_fn(|_| AtomicU32::new(0)),
            keys: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    #[test]
    fn what_a_place_held_before_is_not_found_beside_what_another_holds_now() {
        let bucket: Bucket<2, 3> = zeroed();
        assert_eq!((bucket.put(&A, 11, |_| ()), bucket.put(&B, 22, |_| ())), (Some(0), Some(1)));
        let seen = bucket.find(&B);
        assert_eq!((seen.value, seen.place), (22, 1));
        bucket.take(0);
        bucket.take(1);
        assert_eq!(bucket.find(&B).value, 0);
        assert_eq!(bucket.put(&B, 33, |_| ()), Some(0));
        let seen = bucket.find(&B);
        assert_eq!((seen.value, seen.place), (33, 0));
    }

    #[test]
    fn a_reader_does_not_wait_for_a_writer_for_ever() {
        let bucket: Bucket<2, 3> = zeroed();
        bucket.put(&A, 11, |_| ());
        let state = bucket.lock();
        assert_eq!((bucket.glance(&A), bucket.find(&A).value), (None, 0));
        bucket.unlock(state);
        assert_eq!(bucket.find(&A).value, 11);
    }
}
