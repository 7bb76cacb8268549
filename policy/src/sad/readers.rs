//! Who reads, and since when: so that what was taken out is kept until nobody can still be using it.
//!
//! Removals are numbered. A reader notes, in a cache line of its own, how many there have been
//! when it begins a batch, and wipes the note at its end. What was taken out as number `n` may go
//! once no note says `n` or less: whoever began later cannot have found it. (The scheme of user-space
//! RCU's generation counter: M. Desnoyers et al., "User-level implementations of
//! read-copy update", 2012.)
//!
//! A reader writes nothing that another reader reads, and waits for nobody.

use crate::sync::{Apart, Arc, AtomicU64, Mutex, fence, lock};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};
use std::collections::VecDeque;

/// What a note says of a reader that reads nothing.
const IDLE: u64 = 0;

type Note = Apart<AtomicU64>;

/// The readers of one table.
#[derive(Debug)]
pub(super) struct Readers {
    /// The number of the next removal; the first is 1.
    next: Apart<AtomicU64>,
    notes: Mutex<Vec<Arc<Note>>>,
}

/// What a thread reads with, see [`Sad::reader`](super::Sad::reader). It belongs to one table; given to
/// another it becomes a reader of that one.
#[derive(Debug)]
pub struct Reader {
    readers: Arc<Readers>,
    note: Arc<Note>,
}

/// As long as it lives, nothing is given back of what its owner may have found.
#[derive(Debug)]
pub(super) struct Pin {
    note: Arc<Note>,
}

impl Readers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { next: Apart(AtomicU64::new(1)), notes: Mutex::new(Vec::new()) })
    }

    pub(super) fn reader(readers: &Arc<Self>) -> Reader {
        let note = Arc::new(Apart(AtomicU64::new(IDLE)));
        let mut notes = lock(&readers.notes);
        // Of readers that are gone: nobody else has such a note, nor can get it any more.
        notes.retain(|n| Arc::strong_count(n) > 1 || n.load(Acquire) != IDLE);
        notes.push(Arc::clone(&note));
        Reader { readers: Arc::clone(readers), note }
    }

    /// Begins to read.
    #[inline]
    pub(super) fn pin(readers: &Arc<Self>, reader: &mut Reader) -> Pin {
        if !Arc::ptr_eq(&reader.readers, readers) || reader.note.load(Acquire) != IDLE {
            // Another table's, or its last batch is not over: one note stands for one batch.
            *reader = Self::reader(readers);
        }
        // Acquire: with the number come all removals before it.
        reader.note.store(readers.next.load(Acquire), Release);
        // Either a writer that looks for us now sees the note, or we see what it took out.
        fence(SeqCst);
        Pin { note: Arc::clone(&reader.note) }
    }

    /// The number of a removal that has just been made.
    fn removed(&self) -> u64 {
        self.next.fetch_add(1, AcqRel)
    }

    /// Removals below this number were before any batch that is not over.
    fn oldest(&self) -> u64 {
        fence(SeqCst);
        let notes = lock(&self.notes);
        // Acquire: what a reader did in a batch that is over comes before what we do now.
        notes.iter().map(|n| n.load(Acquire)).filter(|n| *n != IDLE).min().unwrap_or(u64::MAX)
    }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        self.note.store(IDLE, Release);
    }
}

/// What was taken out and may still be in use.
#[derive(Debug)]
pub(super) struct Retired<T> {
    /// With their numbers, the oldest first.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Retired<T> {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new() }
    }

    /// Keeps what no reader can find any more from now on.
    pub(super) fn keep(&mut self, readers: &Readers, gone: T) {
        self.waiting.push_back((readers.removed(), gone));
    }

    /// What nobody uses any more.
    pub(super) fn unused(&mut self, readers: &Readers) -> Vec<T> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let oldest = readers.oldest();
        let count = self.waiting.partition_point(|(number, _)| *number < oldest);
        self.waiting.drain(..count).map(|(_, gone)| gone).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_out_during_a_batch_is_kept_until_its_end() {
        let readers = Readers::new();
        let (mut one, mut other) = (Readers::reader(&readers), Readers::reader(&readers));
        let mut retired = Retired::new();
        retired.keep(&readers, "before");
        let first = Readers::pin(&readers, &mut one);
        retired.keep(&readers, "during the first");
        let second = Readers::pin(&readers, &mut other);
        assert_eq!(retired.unused(&readers), ["before"]);
        retired.keep(&readers, "during both");
        drop(first);
        assert_eq!(retired.unused(&readers), ["during the first"]);
        let third = Readers::pin(&readers, &mut one);
        drop(second);
        assert_eq!(retired.unused(&readers), ["during both"]);
        retired.keep(&readers, "during the third");
        assert!(retired.unused(&readers).is_empty());
        drop(third);
        assert_eq!(retired.unused(&readers), ["during the third"]);
    }

    #[test]
    fn two_batches_of_one_reader_are_both_waited_for() {
        let readers = Readers::new();
        let mut reader = Readers::reader(&readers);
        let outer = Readers::pin(&readers, &mut reader);
        let mut retired = Retired::new();
        retired.keep(&readers, ());
        drop(Readers::pin(&readers, &mut reader));
        assert!(retired.unused(&readers).is_empty());
        drop(reader);
        assert!(retired.unused(&readers).is_empty(), "the reader is gone, what it began is not");
        drop(outer);
        assert_eq!(retired.unused(&readers).len(), 1);
    }

    #[test]
    fn a_reader_of_another_table_changes_over() {
        let (ours, theirs) = (Readers::new(), Readers::new());
        let mut reader = Readers::reader(&theirs);
        let pin = Readers::pin(&ours, &mut reader);
        let mut retired = Retired::new();
        retired.keep(&ours, ());
        assert!(retired.unused(&ours).is_empty());
        drop(pin);
        assert_eq!(retired.unused(&ours).len(), 1);
    }

    #[test]
    fn readers_that_are_gone_leave_nothing() {
        let readers = Readers::new();
        for _ in 0..100 {
            drop(Readers::pin(&readers, &mut Readers::reader(&readers)));
        }
        assert!(lock(&readers.notes).len() <= 2);
    }
}
