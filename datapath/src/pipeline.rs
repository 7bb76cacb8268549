//! The two directions of the packet path, without any I/O: packets and time go
//! in, packets and events come out, and every packet ends in exactly one counter.
//!
//! Both work on batches. Whoever does the I/O hands over a batch, moves what is
//! in the output, tells what became of it, and gives the buffers back.

pub mod cleartext;
mod gather;
mod hold;
pub mod inbound;
pub mod outbound;

pub use cleartext::{Cleartext, CleartextOutput};
pub use inbound::{Arrival, Inbound, InboundOutput};
pub use outbound::{Clear, Outbound, OutboundOutput};

use crate::event::Event;
use crate::shared::Shared;
use core::ops::Deref;
use policy::cache::{CacheEntry, CacheKey, Inserted, Reader};
use policy::counters::DropReason;
use policy::spd::Spd;
use policy::time::Timestamp;
use std::sync::Arc;

/// Packets that are worked on together.
pub const BATCH: usize = 64;

/// The shared state as one worker has it. Each keeps it in an `Arc` of its own, so that to take it for a batch writes no count
/// that other workers write.
#[derive(Debug)]
struct SharedState(Arc<Shared>);

impl Deref for SharedState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Decides on the first packet of a conversation, and remembers.
fn decide(
    cache: &mut Reader,
    spd: &Spd,
    key: &CacheKey,
    now: Timestamp,
    events: &mut Vec<Event>,
) -> Result<CacheEntry, DropReason> {
    let entry = CacheEntry::from(spd.decide(&key.tuple(), key.direction()));
    let share = spd.cache_share(entry.cookie);
    match cache.insert_within(share, key, entry, spd.epoch(), now, &mut |e| events.push(Event::Cache(e))) {
        Inserted::Inserted | Inserted::AlreadyThere => Ok(entry),
        Inserted::HardLimit => Err(DropReason::SpdHardLimit),
        Inserted::ShareLimit => Err(DropReason::CacheShareLimit),
    }
}

#[cfg(test)]
mod tests;
