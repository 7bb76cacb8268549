//! ESP (RFC 4303), for batches of packets of one SA.

pub mod inbound;
pub mod outbound;
pub mod transport;

use crate::packet::Packet;

/// SPI and sequence number.
const HEADER: usize = 8;

/// The SPI of an ESP packet, if it is long enough to have one.
#[must_use]
pub fn spi(packet: &Packet) -> Option<u32> {
    packet.as_slice().first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// The sequence number field of an ESP packet, if it is long enough to have one.
#[must_use]
fn sequence_field(packet: &Packet) -> Option<u32> {
    packet.as_slice().get(4..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

#[cfg(test)]
pub(crate) mod tests;
