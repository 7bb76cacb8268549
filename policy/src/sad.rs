//! The SA database: what the packet path looks up for every protected packet.
//!
//! [`Sad`] finds inbound SAs by SPI, [`Outbound`] the current SA of a tunnel.
//! Readers take no lock; writers are the daemon, seldom. `S` is whatever the
//! packet path needs to know of an SA.

use arc_swap::ArcSwapOption;
use core::hash::{BuildHasherDefault, Hasher};
use core::ops::Deref;
use papaya::{HashMap, HashMapRef, LocalGuard};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Inbound SAs by SPI.
///
/// The SPI alone identifies an inbound unicast SA (RFC 4303 2.1): we chose it,
/// so no two of ours are equal.
#[derive(Debug)]
pub struct Sad<S> {
    by_spi: HashMap<u32, Arc<S>, BuildHasherDefault<SpiHasher>>,
}

/// The SPI is already in the SAD (PF_KEY: EEXIST).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an SA with SPI {spi:#x} exists already")]
pub struct DuplicateSpi {
    /// The SPI.
    pub spi: u32,
}

impl<S> Default for Sad<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Sad<S> {
    /// An empty database.
    #[must_use]
    pub fn new() -> Self {
        Self { by_spi: HashMap::with_hasher(BuildHasherDefault::default()) }
    }

    /// Adds an SA. An SA that has the same SPI stays as it is.
    pub fn insert(&self, spi: u32, sa: Arc<S>) -> Result<(), DuplicateSpi> {
        match self.by_spi.pin().try_insert(spi, sa) {
            Ok(_) => Ok(()),
            Err(_) => Err(DuplicateSpi { spi }),
        }
    }

    /// Removes an SA and returns it; packets under way may still hold it.
    pub fn remove(&self, spi: u32) -> Option<Arc<S>> {
        self.by_spi.pin().remove(&spi).cloned()
    }

    /// Begins a batch of look-ups. While the guard lives no memory of removed
    /// SAs is given back: keep it for one batch, not longer.
    #[must_use]
    pub fn pin(&self) -> Pinned<'_, S> {
        Pinned(self.by_spi.pin())
    }

    /// One look-up that keeps the SA.
    #[must_use]
    pub fn find(&self, spi: u32) -> Option<Arc<S>> {
        self.by_spi.pin().get(&spi).cloned()
    }

    /// Number of SAs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_spi.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_spi.is_empty()
    }

    /// Calls `visit` for each SA, in no order; SAs that come or go meanwhile may or may not be seen.
    pub fn for_each(&self, mut visit: impl FnMut(u32, &Arc<S>)) {
        for (spi, sa) in &self.by_spi.pin() {
            visit(*spi, sa);
        }
    }
}

/// Look-ups in the SAD, see [`Sad::pin`].
pub struct Pinned<'a, S>(HashMapRef<'a, u32, Arc<S>, BuildHasherDefault<SpiHasher>, LocalGuard<'a>>);

impl<S> Pinned<'_, S> {
    /// The SA with this SPI. Takes no lock and counts no reference.
    #[inline]
    #[must_use]
    pub fn find(&self, spi: u32) -> Option<&Arc<S>> {
        self.0.get(&spi)
    }
}

/// Mixes an SPI. It needs no key: we draw the SPIs ourselves, so nobody can
/// choose colliding ones.
#[derive(Debug, Default)]
pub struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        // 2^64 / golden ratio; the halves are folded since the map uses bits of both.
        let mixed = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Outbound SAs: for each tunnel the current one, and behind it the older ones
/// that are still alive.
///
/// While an SA is being replaced a tunnel has several (make before break). The
/// one installed last is used; when that goes, the next younger takes over.
///
/// Slots are tunnel indices ([`crate::spd::Spd`] gives them). The table grows
/// in blocks that never move, so that a reader needs no lock.
#[derive(Debug)]
pub struct Outbound<S> {
    /// Block `n` has `2^n` slots; made when first written to.
    blocks: [OnceLock<Box<[Slot<S>]>>; 32],
}

#[derive(Debug)]
struct Slot<S> {
    current: ArcSwapOption<S>,
    /// All that are alive, with their pairs, the oldest first; `current` is the last.
    alive: Mutex<Vec<(u64, Arc<S>)>>,
}

impl<S> Slot<S> {
    fn new() -> Self {
        Self { current: ArcSwapOption::empty(), alive: Mutex::new(Vec::new()) }
    }

    /// The list is whole between any two statements that change it, so a
    /// writer that panicked leaves nothing to repair.
    fn alive(&self) -> MutexGuard<'_, Vec<(u64, Arc<S>)>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Default for Outbound<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Outbound<S> {
    /// A table without SAs.
    #[must_use]
    pub fn new() -> Self {
        Self { blocks: [const { OnceLock::new() }; 32] }
    }

    /// The current SA of a tunnel: wait-free, and no reference is counted.
    #[inline]
    #[must_use]
    pub fn current(&self, slot: u32) -> Option<Current<S>> {
        let guard = self.slot(slot)?.current.load();
        guard.is_some().then_some(Current(guard))
    }

    /// Makes `sa`, of the pair `pair`, the current one of a tunnel; those before
    /// it stay alive behind it. One of the same pair is replaced.
    pub fn install(&self, slot: u32, pair: u64, sa: Arc<S>) {
        let slot = self.slot_or_new(slot);
        let mut alive = slot.alive();
        alive.retain(|(p, _)| *p != pair);
        alive.push((pair, Arc::clone(&sa)));
        slot.current.store(Some(sa));
    }

    /// Takes the SA of a pair out of a tunnel and returns it. If it was the current
    /// one, the next younger becomes current; otherwise the current one stays.
    ///
    /// By pair, not by SPI: the peer chooses the SPI, and may choose again one
    /// that an older SA of the tunnel still has.
    pub fn retire(&self, slot: u32, pair: u64) -> Option<Arc<S>> {
        let slot = self.slot(slot)?;
        let mut alive = slot.alive();
        let at = alive.iter().position(|(p, _)| *p == pair)?;
        let (_, sa) = alive.remove(at);
        slot.current.store(alive.last().map(|(_, sa)| Arc::clone(sa)));
        Some(sa)
    }

    /// Takes all SAs of a tunnel out and returns them with their pairs, the oldest first.
    pub fn retire_all(&self, slot: u32) -> Vec<(u64, Arc<S>)> {
        let Some(slot) = self.slot(slot) else { return Vec::new() };
        let mut alive = slot.alive();
        slot.current.store(None);
        core::mem::take(&mut *alive)
    }

    /// Number of SAs of a tunnel that are alive.
    #[must_use]
    pub fn alive(&self, slot: u32) -> usize {
        self.slot(slot).map_or(0, |s| s.alive().len())
    }

    /// Calls `visit(slot, pair, sa, is_current)` for each SA, by slot, in each the oldest first.
    pub fn for_each(&self, mut visit: impl FnMut(u32, u64, &Arc<S>, bool)) {
        for (block, slots) in self.blocks.iter().enumerate() {
            let Some(slots) = slots.get() else { continue };
            let first = (1u64 << block) - 1;
            for (index, slot) in (first..).zip(slots) {
                // A copy, so that `visit` may take its time, or call us.
                let alive = slot.alive().clone();
                for (n, (pair, sa)) in alive.iter().enumerate() {
                    visit(index as u32, *pair, sa, n + 1 == alive.len());
                }
            }
        }
    }

    /// Block and place in the block: slot 0 is block 0; slots 1, 2 block 1; 3 to 6 block 2.
    fn place(slot: u32) -> (usize, usize) {
        let n = u64::from(slot) + 1;
        let block = n.ilog2();
        (block as usize, (n - (1 << block)) as usize)
    }

    #[inline]
    fn slot(&self, slot: u32) -> Option<&Slot<S>> {
        let (block, place) = Self::place(slot);
        self.blocks.get(block)?.get()?.get(place)
    }

    /// # Panics
    /// For slot `u32::MAX`: tunnel indices are dense, so there are never so many.
    fn slot_or_new(&self, slot: u32) -> &Slot<S> {
        let (block, place) = Self::place(slot);
        let slots = self.blocks[block].get_or_init(|| (0..1usize << block).map(|_| Slot::new()).collect());
        &slots[place]
    }
}

/// The current outbound SA of a tunnel, borrowed from the table.
///
/// Short-lived: a thread that keeps many of these at once makes them slower.
pub struct Current<S>(arc_swap::Guard<Option<Arc<S>>>);

impl<S> Deref for Current<S> {
    type Target = Arc<S>;

    #[inline]
    fn deref(&self) -> &Arc<S> {
        self.0.as_ref().expect("made by Outbound::current, which checked it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_duplicate_spi_is_refused_and_changes_nothing() {
        let sad = Sad::new();
        sad.insert(0x201, Arc::new("first")).unwrap();
        assert_eq!(sad.insert(0x201, Arc::new("second")), Err(DuplicateSpi { spi: 0x201 }));
        assert_eq!(sad.pin().find(0x201).map(|s| **s), Some("first"));
        assert_eq!(sad.len(), 1);
        assert_eq!(sad.remove(0x201).as_deref(), Some(&"first"));
        assert_eq!(sad.remove(0x201), None);
        assert!(sad.pin().find(0x201).is_none());
        assert!(sad.is_empty());
    }

    #[test]
    fn a_removed_sa_lives_as_long_as_somebody_holds_it() {
        let sad = Sad::new();
        let sa = Arc::new(5);
        sad.insert(300, Arc::clone(&sa)).unwrap();
        let pinned = sad.pin();
        let found = pinned.find(300).unwrap();
        sad.remove(300);
        assert_eq!(**found, 5);
    }

    #[test]
    fn many_spis() {
        let sad = Sad::new();
        for spi in 300..20_300 {
            sad.insert(spi, Arc::new(spi)).unwrap();
        }
        let pinned = sad.pin();
        assert!((300..20_300).all(|spi| pinned.find(spi).is_some_and(|s| **s == spi)));
        assert!(pinned.find(299).is_none() && pinned.find(20_300).is_none());
        let mut seen = Vec::new();
        sad.for_each(|spi, _| seen.push(spi));
        seen.sort_unstable();
        assert!(seen.into_iter().eq(300..20_300));
    }

    #[test]
    fn the_newest_outbound_sa_is_used_and_the_next_takes_over() {
        let table = Outbound::new();
        assert!(table.current(7).is_none());
        for pair in 1..=3 {
            table.install(7, pair, Arc::new(pair));
        }
        assert_eq!(table.current(7).map(|s| **s), Some(3));
        assert_eq!(table.alive(7), 3);
        // One that is not current goes: nothing changes for senders.
        assert!(table.retire(7, 2).is_some());
        assert_eq!(table.current(7).map(|s| **s), Some(3));
        assert!(table.retire(7, 2).is_none());
        // The current one goes: the next younger takes over.
        assert!(table.retire(7, 3).is_some());
        assert_eq!(table.current(7).map(|s| **s), Some(1));
        assert!(table.retire(7, 1).is_some());
        assert!(table.current(7).is_none());
        assert_eq!(table.alive(7), 0);
    }

    #[test]
    fn tunnels_do_not_see_each_other() {
        let table = Outbound::new();
        for slot in 0..100 {
            table.install(slot, 9, Arc::new(slot));
        }
        assert!((0..100).all(|slot| table.current(slot).is_some_and(|s| **s == slot)));
        assert!(table.current(100).is_none());
        assert_eq!(table.retire_all(50).len(), 1);
        assert!(table.current(50).is_none());
        let mut seen = Vec::new();
        table.for_each(|slot, pair, sa, current| {
            assert!(current && pair == 9 && **sa == slot);
            seen.push(slot);
        });
        assert!(seen.into_iter().eq((0..100).filter(|s| *s != 50)));
    }

    #[test]
    fn the_same_pair_again_replaces() {
        let table = Outbound::new();
        table.install(0, 1, Arc::new("old"));
        table.install(0, 2, Arc::new("middle"));
        table.install(0, 1, Arc::new("new"));
        assert_eq!(table.alive(0), 2);
        assert_eq!(table.current(0).map(|s| **s), Some("new"));
        table.retire(0, 1);
        assert_eq!(table.current(0).map(|s| **s), Some("middle"));
    }

    #[test]
    fn a_reader_never_misses_while_sas_are_replaced() {
        let table = Outbound::new();
        table.install(0, 0, Arc::new(0u64));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let now = **table.current(0).expect("there is always one");
                    assert!(now >= last);
                    last = now;
                }
            });
            for pair in 1..5_000 {
                table.install(0, pair, Arc::new(pair));
                table.retire(0, pair - 1);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
