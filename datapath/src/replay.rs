//! The anti-replay window of an inbound SA (RFC 4303 3.4.3, appendix A).
//!
//! A packet's sequence number is checked before the packet is authenticated,
//! and entered in the window only afterwards; between the two the caller holds
//! a [`ReplayChecked`], which nothing else can make.
//!
//! Several workers may receive on one SA: the window is behind a mutex that is
//! held for a few instructions, and for a batch of packets is taken once to
//! check and once to commit. Committing looks again, so of two copies that both
//! passed the check exactly one goes on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The smallest window, in packets (RFC 4303 3.4.3: "MUST be supported").
pub const MIN_WINDOW: u32 = 32;
/// The largest window, in packets.
pub const MAX_WINDOW: u32 = 65_536;
/// The window unless the configuration says otherwise, in packets.
pub const DEFAULT_WINDOW: u32 = 1024;

/// A window.
#[derive(Debug)]
pub struct ReplayWindow {
    state: Mutex<State>,
    size: u32,
    esn: bool,
}

/// Proof that a sequence number lay in the window or right of it, and was not
/// there yet. Not proof that the packet is genuine.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a sequence number that is not committed can be replayed"]
pub struct ReplayChecked {
    sequence: u64,
}

impl ReplayChecked {
    /// The whole sequence number: with ESN its high half is the inferred one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Why a sequence number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was received before; or it is 0, with which no sender begins.
    #[error("the sequence number was received before")]
    Duplicate,
    /// It is left of the window.
    #[error("the sequence number is left of the window")]
    TooOld,
}

/// A ring of bits, one per sequence number.
///
/// Of the ring's words one is always being overwritten, so it has at least one
/// word more than the window needs; a step right clears whole words (as in RFC 6479).
#[derive(Debug)]
struct State {
    /// The highest sequence number committed: the window's right edge. 0 at first.
    top: u64,
    /// Bit `s % 64` of word `s / 64 % len` stands for `s`; `len` is a power of two.
    ring: Box<[u64]>,
}

impl ReplayWindow {
    /// An empty window of `size` packets, put between [`MIN_WINDOW`] and
    /// [`MAX_WINDOW`]. With `esn`, sequence numbers have 64 bits, of which
    /// packets carry the low half.
    #[must_use]
    pub fn new(size: u32, esn: bool) -> Self {
        let size = size.clamp(MIN_WINDOW, MAX_WINDOW);
        let words = (size.div_ceil(64) as usize + 1).next_power_of_two();
        let state = State { top: 0, ring: vec![0; words].into_boxed_slice() };
        Self { state: Mutex::new(state), size, esn }
    }

    /// No window: every sequence number is taken, as RFC 4303 3.3.3 wants it for manual keys.
    #[must_use]
    pub fn off() -> Self {
        let state = State { top: 0, ring: Box::new([]) };
        Self { state: Mutex::new(state), size: 0, esn: false }
    }

    /// Number of packets it covers; 0 when it is off.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The highest sequence number committed, or the last when the window is off; 0 if none.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.lock().state.top
    }

    /// Takes the window for a batch of packets. Keep it only for as long as it
    /// takes to check them, or to commit them.
    pub fn lock(&self) -> Locked<'_> {
        // A panic elsewhere cannot leave the state half changed.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { state, size: u64::from(self.size), esn: self.esn }
    }
}

/// A window held by one worker.
#[derive(Debug)]
pub struct Locked<'a> {
    state: MutexGuard<'a, State>,
    size: u64,
    esn: bool,
}

impl Locked<'_> {
    /// As [`ReplayWindow::top`].
    #[must_use]
    pub fn top(&self) -> u64 {
        self.state.top
    }

    /// Checks the sequence number field of a packet that is not yet authenticated.
    pub fn check(&self, field: u32) -> Result<ReplayChecked, Refused> {
        let sequence = if self.esn { self.infer(field)? } else { u64::from(field) };
        self.look(sequence)?;
        Ok(ReplayChecked { sequence })
    }

    /// Enters the sequence number of a packet that was authenticated. Fails if
    /// another copy was committed, or the window has moved on, since the check.
    pub fn commit(&mut self, checked: ReplayChecked) -> Result<(), Refused> {
        let sequence = checked.sequence;
        self.look(sequence)?;
        let state = &mut *self.state;
        if self.size == 0 {
            state.top = sequence;
            return Ok(());
        }
        let mask = state.ring.len() as u64 - 1;
        let word = sequence / 64;
        if sequence > state.top {
            let top_word = state.top / 64;
            let steps = (word - top_word).min(mask + 1);
            for step in 1..=steps {
                state.ring[((top_word + step) & mask) as usize] = 0;
            }
            state.top = sequence;
        }
        state.ring[(word & mask) as usize] |= 1 << (sequence % 64);
        Ok(())
    }

    fn look(&self, sequence: u64) -> Result<(), Refused> {
        let State { top, ref ring } = *self.state;
        if self.size == 0 {
            return Ok(());
        }
        if sequence == 0 {
            return Err(Refused::Duplicate);
        }
        if sequence > top {
            return Ok(());
        }
        if top - sequence >= self.size {
            return Err(Refused::TooOld);
        }
        let word = ring[(sequence / 64) as usize & (ring.len() - 1)];
        if word >> (sequence % 64) & 1 == 0 { Ok(()) } else { Err(Refused::Duplicate) }
    }

    /// The high half that the sender must have used (RFC 4303 A2.2).
    fn infer(&self, field: u32) -> Result<u64, Refused> {
        let (top_high, top_low) = (self.state.top >> 32, self.state.top as u32);
        // MAX_WINDOW is far below 2^32.
        let left_edge = top_low.wrapping_sub(self.size as u32 - 1);
        let high = if u64::from(top_low) >= self.size - 1 {
            // Case A: the window lies in one span of 2^32.
            if field >= left_edge { Some(top_high) } else { (top_high < u64::from(u32::MAX)).then_some(top_high + 1) }
        } else {
            // Case B: it spans two.
            if field >= left_edge { top_high.checked_sub(1) } else { Some(top_high) }
        };
        high.map(|h| h << 32 | u64::from(field)).ok_or(Refused::TooOld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn receive(window: &ReplayWindow, field: u32) -> Result<u64, Refused> {
        let checked = window.lock().check(field)?;
        let sequence = checked.sequence();
        window.lock().commit(checked)?;
        Ok(sequence)
    }

    #[test]
    fn without_a_window_every_packet_is_taken() {
        let window = ReplayWindow::off();
        for field in [5, 5, 0, 1, u32::MAX, 0, 5] {
            assert_eq!(receive(&window, field), Ok(u64::from(field)));
            assert_eq!(window.top(), u64::from(field));
        }
        assert_eq!(window.size(), 0);
    }

    /// What RFC 4303 3.4.3 says, with a set of everything ever received.
    struct Model {
        seen: BTreeSet<u64>,
        size: u64,
    }

    impl Model {
        fn receive(&mut self, sequence: u64) -> Result<u64, Refused> {
            let top = self.seen.last().copied().unwrap_or(0);
            if sequence == 0 {
                return Err(Refused::Duplicate);
            }
            if sequence + self.size <= top {
                return Err(Refused::TooOld);
            }
            if self.seen.insert(sequence) { Ok(sequence) } else { Err(Refused::Duplicate) }
        }
    }

    #[test]
    fn sizes_are_kept_within_limits() {
        assert_eq!(ReplayWindow::new(0, false).size(), MIN_WINDOW);
        assert_eq!(ReplayWindow::new(u32::MAX, false).size(), MAX_WINDOW);
        assert_eq!(ReplayWindow::new(DEFAULT_WINDOW, false).size(), 1024);
    }

    #[test]
    fn zero_is_refused_and_one_is_the_first() {
        let w = ReplayWindow::new(64, false);
        assert_eq!(receive(&w, 0), Err(Refused::Duplicate));
        assert_eq!(receive(&w, 1), Ok(1));
        assert_eq!(receive(&w, 1), Err(Refused::Duplicate));
    }

    #[test]
    fn both_edges() {
        let w = ReplayWindow::new(64, false);
        assert_eq!(receive(&w, 1000), Ok(1000));
        assert_eq!(receive(&w, 936), Err(Refused::TooOld));
        assert_eq!(receive(&w, 937), Ok(937));
        assert_eq!(receive(&w, 937), Err(Refused::Duplicate));
        assert_eq!(receive(&w, u32::MAX), Ok(u64::from(u32::MAX)));
        assert_eq!(receive(&w, 1001), Err(Refused::TooOld));
    }

    #[test]
    fn an_uncommitted_check_changes_nothing() {
        let w = ReplayWindow::new(64, false);
        receive(&w, 5).unwrap();
        let forged = w.lock().check(4_000_000_000).unwrap();
        drop(forged);
        assert_eq!(w.top(), 5);
        assert_eq!(receive(&w, 6), Ok(6));
    }

    #[test]
    fn of_two_copies_one_is_committed() {
        let w = ReplayWindow::new(64, false);
        let a = w.lock().check(7).unwrap();
        let b = w.lock().check(7).unwrap();
        assert_eq!(w.lock().commit(a), Ok(()));
        assert_eq!(w.lock().commit(b), Err(Refused::Duplicate));
    }

    #[test]
    fn esn_goes_past_32_bits_and_back_within_the_window() {
        let w = ReplayWindow::new(64, true);
        for field in [1, 0x7fff_ffff, 0xffff_fff0] {
            assert_eq!(receive(&w, field), Ok(u64::from(field)));
        }
        assert_eq!(receive(&w, 3), Ok(0x1_0000_0003));
        assert_eq!(receive(&w, 0xffff_fff1), Ok(0xffff_fff1));
        assert_eq!(receive(&w, 0xffff_fff0), Err(Refused::Duplicate));
        assert_eq!(receive(&w, 0), Ok(0x1_0000_0000));
    }

    #[test]
    fn esn_does_not_reach_below_its_beginning_or_past_its_end() {
        let w = ReplayWindow::new(64, true);
        // Left of 0: there is no span before the first.
        assert_eq!(receive(&w, u32::MAX), Err(Refused::TooOld));
        w.lock().state.top = u64::MAX - 1;
        assert_eq!(receive(&w, 5), Err(Refused::TooOld));
        assert_eq!(receive(&w, u32::MAX), Ok(u64::MAX));
    }

    #[test]
    fn workers_accept_each_number_once_between_them() {
        let w = ReplayWindow::new(MAX_WINDOW, false);
        let accepted: u32 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (1..=20_000).filter(|s| receive(&w, *s).is_ok()).count() as u32))
                .collect();
            workers.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(accepted, 20_000);
    }

    /// A sender's numbers, in batches that several workers take and receive in any order, some twice: each is accepted at most
    /// once, and none is refused but a second copy and what has fallen out of the window meanwhile.
    #[test]
    fn several_workers_refuse_only_copies_and_what_is_too_old() {
        const NUMBERS: u32 = 40_000;
        const AT_ONCE: u32 = 16;
        let window = ReplayWindow::new(256, false);
        let sent = std::sync::atomic::AtomicU32::new(1);
        let work = |seed: u32| {
            let (window, sent) = (&window, &sent);
            move || {
                let (mut accepted, mut too_old) = (Vec::new(), Vec::new());
                loop {
                    let first = sent.fetch_add(AT_ONCE, std::sync::atomic::Ordering::Relaxed);
                    if first > NUMBERS {
                        return (accepted, too_old);
                    }
                    // Backwards, and some of them again, also of an earlier batch, which may be another worker's.
                    let again = first.saturating_sub(seed * 8).max(1);
                    let fields: Vec<u32> = (first..first + AT_ONCE).rev().chain(again..again + 8).collect();
                    let checked: Vec<_> = fields.iter().map(|field| window.lock().check(*field)).collect();
                    let mut locked = window.lock();
                    for (field, checked) in fields.into_iter().zip(checked) {
                        let committed = checked.and_then(|checked| locked.commit(checked));
                        match committed {
                            Ok(()) => accepted.push(field),
                            Err(Refused::Duplicate) => {}
                            // The right edge only moves on, so it is no less than when this one was refused.
                            Err(Refused::TooOld) => {
                                assert!(locked.top() - u64::from(field) >= 256, "{field} with {}", locked.top());
                                too_old.push(field);
                            }
                        }
                    }
                }
            }
        };
        let (mut accepted, mut too_old) = (Vec::new(), BTreeSet::new());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|seed| scope.spawn(work(seed))).collect();
            for worker in workers {
                let (a, t) = worker.join().unwrap();
                accepted.extend(a);
                too_old.extend(t);
            }
        });
        let count = accepted.len();
        let accepted: BTreeSet<u32> = accepted.into_iter().collect();
        assert_eq!(accepted.len(), count, "accepted twice");
        let lost: Vec<_> = (1..=NUMBERS).filter(|n| !accepted.contains(n) && !too_old.contains(n)).collect();
        assert!(lost.is_empty(), "refused as copies without having been accepted: {lost:?}");
    }

    /// Sequences that mostly creep forward, with jumps, repeats and old ones.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![6 => -3i64..8, 2 => -100i64..200, 1 => -70_000i64..140_000];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(size in prop_oneof![Just(32u32), Just(64), Just(65), 32u32..2000], steps in steps()) {
            let (window, mut model) = (ReplayWindow::new(size, false), Model { seen: BTreeSet::new(), size: u64::from(size) });
            let mut at = 0i64;
            for step in steps {
                at = (at + step).max(0);
                prop_assert_eq!(receive(&window, at as u32), model.receive(at as u64), "at {}", at);
            }
        }

        /// As long as no sequence number strays 2^31 from the right edge,
        /// inference finds the whole number again.
        #[test]
        fn infers_the_high_half(start in prop_oneof![Just(0xffff_ff00u64), Just(0x1_ffff_fff0), 1u64..1 << 40], size in 32u32..2000, steps in steps()) {
            let (window, mut model) = (ReplayWindow::new(size, true), Model { seen: BTreeSet::new(), size: u64::from(size) });
            window.lock().state.top = start;
            // The window knows the edge but not the bit, so neither does the model below it.
            model.seen.insert(start);
            let mut locked = window.lock();
            let mask = locked.state.ring.len() - 1;
            locked.state.ring[(start / 64) as usize & mask] |= 1 << (start % 64);
            drop(locked);
            let mut at = start as i64;
            for step in steps {
                at = (at + step).max(1);
                let top = window.top() as i64;
                // Left of the window the low half means a number one span on: the ICV decides there.
                if top - at >= i64::from(size) {
                    continue;
                }
                prop_assert_eq!(receive(&window, at as u32), model.receive(at as u64), "at {}", at);
            }
        }
    }
}
