//! Outbound SAs by tunnel.
#![allow(unsafe_code, reason = "places, under the pin that the reader has; see ARCHITECTURE.md")]

use super::place::Place;
use super::readers::{Pin, Reader, Readers, Retired};
use crate::sync::{Arc as SyncArc, Mutex, lock};
use std::sync::{Arc, OnceLock};

/// Outbound SAs: for each tunnel the current one, and behind it the older ones
/// that are still alive.
///
/// While an SA is being replaced a tunnel has several (make before break). The
/// one installed last is used; when that goes, the next younger takes over.
///
/// Slots are tunnel indices ([`crate::spd::Spd`] gives them). The table grows
/// in blocks that never move, so that a reader needs no lock. Readers are those of
/// [`Sad`](super::Sad): they write nothing that others read.
#[derive(Debug)]
pub struct Outbound<S: Send + Sync> {
    /// Block `n` has `2^n` slots; made when first written to.
    blocks: [OnceLock<Box<[Slot<S>]>>; 32],
    readers: SyncArc<Readers>,
    retired: Mutex<Retired<Arc<S>>>,
}

#[derive(Debug)]
struct Slot<S> {
    current: Place<S>,
    /// All that are alive, with their pairs, the oldest first; `current` is the last.
    alive: Mutex<Vec<(u64, Arc<S>)>>,
}

impl<S> Slot<S> {
    fn new() -> Self {
        Self { current: Place::empty(), alive: Mutex::new(Vec::new()) }
    }
}

impl<S: Send + Sync> Default for Outbound<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Send + Sync> Outbound<S> {
    /// A table without SAs.
    #[must_use]
    pub fn new() -> Self {
        Self { blocks: [const { OnceLock::new() }; 32], readers: Readers::new(), retired: Mutex::new(Retired::new()) }
    }

    /// What one thread looks up with.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Readers::reader(&self.readers)
    }

    /// Begins a batch of look-ups. While it lives no memory of retired
    /// SAs is given back: keep it for one batch, not longer.
    #[inline]
    #[must_use]
    pub fn pin(&self, reader: &mut Reader) -> PinnedOutbound<'_, S> {
        PinnedOutbound { table: self, pin: Readers::pin(&self.readers, reader) }
    }

    /// Whether a tunnel has an SA.
    #[must_use]
    pub fn has(&self, slot: u32) -> bool {
        self.slot(slot).is_some_and(|slot| !slot.current.is_empty())
    }

    /// Makes `sa`, of the pair `pair`, the current one of a tunnel; those before
    /// it stay alive behind it. One of the same pair is replaced.
    pub fn install(&self, slot: u32, pair: u64, sa: Arc<S>) {
        let slot = self.slot_or_new(slot);
        let mut alive = lock(&slot.alive);
        alive.retain(|(p, _)| *p != pair);
        alive.push((pair, Arc::clone(&sa)));
        self.switch(slot, Some(sa));
        drop(alive);
        self.tidy();
    }

    /// Takes the SA of a pair out of a tunnel and returns it. If it was the current
    /// one, the next younger becomes current; otherwise the current one stays.
    ///
    /// By pair, not by SPI: the peer chooses the SPI, and may choose again one
    /// that an older SA of the tunnel still has.
    pub fn retire(&self, slot: u32, pair: u64) -> Option<Arc<S>> {
        let slot = self.slot(slot)?;
        let mut alive = lock(&slot.alive);
        let at = alive.iter().position(|(p, _)| *p == pair)?;
        let (_, sa) = alive.remove(at);
        self.switch(slot, alive.last().map(|(_, sa)| Arc::clone(sa)));
        drop(alive);
        self.tidy();
        Some(sa)
    }

    /// Takes all SAs of a tunnel out and returns them with their pairs, the oldest first.
    pub fn retire_all(&self, slot: u32) -> Vec<(u64, Arc<S>)> {
        let Some(slot) = self.slot(slot) else { return Vec::new() };
        let mut alive = lock(&slot.alive);
        self.switch(slot, None);
        let taken = core::mem::take(&mut *alive);
        drop(alive);
        self.tidy();
        taken
    }

    /// Gives back SAs that are retired and no longer in use. Every change of the table does that too; to be
    /// called now and then, so that the last SA to be retired does not stay for long.
    pub fn tidy(&self) {
        let unused = lock(&self.retired).unused(&self.readers);
        // Outside the lock: it takes its time to wipe keys.
        drop(unused);
    }

    /// Changes the current SA. The slot is locked by the caller.
    fn switch(&self, slot: &Slot<S>, to: Option<Arc<S>>) {
        if let Some(before) = slot.current.replace(to) {
            lock(&self.retired).keep(&self.readers, before);
        }
    }

    /// Number of SAs of a tunnel that are alive.
    #[must_use]
    pub fn alive(&self, slot: u32) -> usize {
        self.slot(slot).map_or(0, |s| lock(&s.alive).len())
    }

    /// Calls `visit(slot, pair, sa, is_current)` for each SA, by slot, in each the oldest first.
    pub fn for_each(&self, mut visit: impl FnMut(u32, u64, &Arc<S>, bool)) {
        for (block, slots) in self.blocks.iter().enumerate() {
            let Some(slots) = slots.get() else { continue };
            let first = (1u64 << block) - 1;
            for (index, slot) in (first..).zip(slots) {
                // A copy, so that `visit` may take its time, or call us.
                let alive = lock(&slot.alive).clone();
                for (n, (pair, sa)) in alive.iter().enumerate() {
                    visit(index as u32, *pair, sa, n + 1 == alive.len());
                }
            }
        }
    }

    /// Block and place in the block: slot 0 is block 0; slots 1, 2 block 1; 3 to 6 block 2.
    #[inline]
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

/// A batch of look-ups of outbound SAs, see [`Outbound::pin`].
#[derive(Debug)]
pub struct PinnedOutbound<'a, S: Send + Sync> {
    table: &'a Outbound<S>,
    pin: Pin,
}

impl<S: Send + Sync> PinnedOutbound<'_, S> {
    /// The current SA of a tunnel: wait-free, and no reference is counted.
    #[inline]
    #[must_use]
    pub fn current(&self, slot: u32) -> Option<&S> {
        // SAFETY: our pin is of the readers of this table, for whose sake `switch` keeps what was current.
        unsafe { self.table.slot(slot)?.current.load(&self.pin) }
    }

    /// The same, kept beyond the batch.
    #[inline]
    #[must_use]
    pub fn current_kept(&self, slot: u32) -> Option<Arc<S>> {
        // SAFETY: as above.
        unsafe { self.table.slot(slot)?.current.load_kept(&self.pin) }
    }
}
