//! The two directions of the packet path, without any I/O: packets and time go
//! in, packets and events come out, and every packet ends in exactly one counter.
//!
//! Both work on batches. Whoever does the I/O hands over a batch, moves what is
//! in the output, tells what became of it, and gives the buffers back.

mod hold;
pub mod inbound;
pub mod outbound;

pub use inbound::{Arrival, Inbound, InboundOutput};
pub use outbound::{Clear, Outbound, OutboundOutput};

/// Packets that are worked on together.
pub const BATCH: usize = 64;

#[cfg(test)]
mod tests;
