//! The order in which workers send what they protected with one SA.
//!
//! A worker takes sequence numbers for a batch at once, so several workers that send with one SA never
//! have the same. But the one that took the earlier numbers may be the later to have its batch ready, or be
//! interrupted in between for longer than others need for thousands of packets: left of the peer's
//! window, which may be of 32 packets alone (RFC 4303 3.4.3), its batch would be lost. So batches are
//! protected side by side and sent in turn, in the order of their numbers.
//!
//! Nobody waits for ever: a worker sends in the order in which it took numbers. Were there a ring of workers
//! in which each waits for the next, each would have taken the numbers it waits with later than the
//! next one did, and that one, which took them before those it waits with itself, earlier still: round
//! the ring, earlier than itself. A [`Turn`] that is dropped, of a worker that fails, passes too.

use crate::sa::OutboundSa;
use core::hint::spin_loop;
use core::ops::Range;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, SeqCst},
};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Looks before a worker goes to sleep: about the time of a system call that sends.
const LOOKS: u32 = 200;

/// Whose turn it is, of one SA. Touched once a batch, and by nobody where only one worker sends.
#[derive(Debug)]
pub(crate) struct Turnstile {
    /// The first sequence number that has not been sent.
    next: AtomicU64,
    sleeping: AtomicU32,
    asleep: Mutex<()>,
    passed: Condvar,
}

impl Turnstile {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(1), sleeping: AtomicU32::new(0), asleep: Mutex::new(()), passed: Condvar::new() }
    }

    fn is_open(&self, first: u64) -> bool {
        self.next.load(Acquire) >= first
    }

    fn wait(&self, first: u64) {
        for _ in 0..LOOKS {
            if self.is_open(first) {
                return;
            }
            spin_loop();
        }
        // Whoever passes after this knows of us; whoever passed before has been seen below.
        self.sleeping.fetch_add(1, SeqCst);
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        while self.next.load(SeqCst) < first {
            guard = self.passed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleeping.fetch_sub(1, SeqCst);
    }

    /// As if the numbers before `next` had been sent, and no others.
    #[cfg(test)]
    pub(crate) fn set(&self, next: u64) {
        self.next.store(next, SeqCst);
    }

    /// The numbers before `next` are sent, or given up.
    pub(crate) fn pass(&self, next: u64) {
        self.next.fetch_max(next, SeqCst);
        if self.sleeping.load(SeqCst) > 0 {
            // Not between a look at `next` and the sleep that follows it.
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.passed.notify_all();
        }
    }
}

/// A worker's place in the order. To be dropped when its packets are sent: then it is the next one's turn.
#[derive(Debug)]
pub struct Turn {
    sa: Arc<OutboundSa>,
    sequences: Range<u64>,
}

impl Turn {
    /// The turn of those who took `sequences`; `None` if they got none.
    pub(crate) fn new(sa: &Arc<OutboundSa>, sequences: &Range<u64>) -> Option<Self> {
        (!sequences.is_empty()).then(|| Self { sa: Arc::clone(sa), sequences: sequences.clone() })
    }

    /// Whether it has come.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.sa.turnstile().is_open(self.sequences.start)
    }

    /// Waits until it has come. Turns that the same worker took earlier must have been dropped.
    pub fn wait(&self) {
        self.sa.turnstile().wait(self.sequences.start);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.wait();
        self.sa.turnstile().pass(self.sequences.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Agreement, suite};
    use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Duration;

    fn sa(seed: u64) -> Arc<OutboundSa> {
        let [(_, sa), _] = Agreement { seed, ..Agreement::new(suite("aes128gcm16")) }.sas();
        sa
    }

    fn take(sa: &Arc<OutboundSa>, count: usize) -> (Range<u64>, Option<Turn>) {
        let sequences = sa.take_sequences(count, &mut |_| {});
        let turn = Turn::new(sa, &sequences);
        (sequences, turn)
    }

    #[test]
    fn turns_come_in_the_order_of_numbers() {
        let sa = sa(1);
        let (_, first) = take(&sa, 3);
        let (_, second) = take(&sa, 2);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.has_come() && !second.has_come());
        drop(first);
        assert!(second.has_come());
    }

    #[test]
    fn who_waits_sleeps_until_it_is_his_turn() {
        let sa = sa(1);
        let (_, first) = take(&sa, 3);
        let (_, second) = take(&sa, 2);
        let woken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                second.unwrap().wait();
                woken.store(true, Relaxed);
            });
            while sa.turnstile().sleeping.load(SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!woken.load(Relaxed));
            drop(first);
        });
        assert!(woken.load(Relaxed));
    }

    #[test]
    fn no_number_no_turn() {
        let sa = sa(1);
        sa.set_sequence(u64::from(u32::MAX));
        assert!(take(&sa, 1).1.is_none());
    }

    #[test]
    fn numbers_given_up_hold_nobody_up() {
        let sa = sa(1);
        sa.skip_sequences(100);
        let (sequences, turn) = take(&sa, 1);
        assert_eq!((sequences, turn.unwrap().has_come()), (101..102, true));
    }

    /// Workers that send with several SAs, each in an order of its own: every number leaves once and in order, and none waits for ever.
    #[test]
    fn several_workers_and_sas_leave_in_order() {
        const ROUNDS: usize = 2000;
        let sas: Vec<_> = (1..=3).map(sa).collect();
        let wire: Vec<Mutex<Vec<u64>>> = sas.iter().map(|_| Mutex::default()).collect();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (sas, wire) = (&sas, &wire);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // Taken in one order, some SA twice; sent in the same.
                        let order = [worker + round, round * 7 + worker * 5, round];
                        let taken: Vec<_> = order
                            .iter()
                            .map(|at| at % sas.len())
                            .map(|at| (at, take(&sas[at], 1 + (round + worker) % 5)))
                            .collect();
                        for (at, (sequences, turn)) in taken {
                            let turn = turn.unwrap();
                            // One worker fails now and then, after it has taken numbers.
                            if (worker, round % 11) == (3, 0) {
                                drop(turn);
                                continue;
                            }
                            turn.wait();
                            wire[at].lock().unwrap().extend(sequences);
                        }
                    }
                });
            }
        });
        for wire in wire {
            let sent = wire.into_inner().unwrap();
            assert!(sent.len() > ROUNDS);
            assert!(sent.is_sorted_by(|a, b| a < b), "sent out of order, or twice");
        }
    }
}
