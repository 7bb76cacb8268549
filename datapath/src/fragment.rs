//! Fragments: where one belongs in its packet, and the packet made of them all.

use crate::headers::{protocol, seal_ipv4_header};
use crate::packet::{MAX_PACKET, Packet};
use core::ops::Range;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Length of the IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;

/// Where a fragment belongs in its packet (RFC 791 3.1, RFC 8200 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Identification.
    pub(crate) id: u32,
    /// Whether fragments follow it.
    pub(crate) more: bool,
    /// Octets of the packet's fragmented part that come before it, and its own.
    offset: usize,
    len: usize,
    /// Where its own octets begin.
    data: usize,
    /// IPv6: where the field stands that names the fragment header.
    named_at: Option<usize>,
}

impl Place {
    /// Which octets of the packet's fragmented part it has.
    pub(crate) fn octets(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }

    /// Whether both have an octet in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.octets().start < other.octets().end && other.octets().start < self.octets().end
    }
}

/// Where a fragment, given exactly, belongs; `None` if it is none, or ends too soon.
pub(crate) fn place(packet: &[u8]) -> Option<Place> {
    if packet.first()? >> 4 == 4 {
        let (fixed, _) = packet.split_first_chunk::<IPV4_HEADER>()?;
        let data = usize::from(fixed[0] & 0xf) * 4;
        let word = u16::from_be_bytes([fixed[6], fixed[7]]);
        return Some(Place {
            id: u16::from_be_bytes([fixed[4], fixed[5]]).into(),
            more: word & 0x2000 != 0,
            offset: usize::from(word & 0x1fff) * 8,
            len: packet.len().checked_sub(data)?,
            data,
            named_at: None,
        });
    }
    let (mut named_at, mut at) = (6, IPV6_HEADER);
    loop {
        let next = *packet.get(named_at)?;
        let header = packet.get(at..)?;
        match next {
            protocol::FRAGMENT => {
                let (header, data) = header.split_first_chunk::<FRAGMENT_HEADER>()?;
                let word = u16::from_be_bytes([header[2], header[3]]);
                return Some(Place {
                    id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                    more: word & 1 != 0,
                    offset: usize::from(word & 0xfff8),
                    len: data.len(),
                    data: at + FRAGMENT_HEADER,
                    named_at: Some(named_at),
                });
            }
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                (named_at, at) = (at, at + 8 + 8 * usize::from(*header.get(1)?));
            }
            _ => return None,
        }
    }
}

/// A packet that is being put together from its fragments, which come in order.
#[derive(Debug)]
pub(crate) struct Whole {
    packet: Packet,
    /// Octets before the fragmented part.
    header_len: usize,
}

impl Whole {
    /// Begins with the first fragment, in the buffer `packet`, which comes back
    /// if it is not a first one.
    pub(crate) fn begin(first: &[u8], mut packet: Packet) -> Result<Self, Packet> {
        let Some(place) = place(first).filter(|p| p.offset == 0 && packet.copy_from(&first[..p.data])) else {
            return Err(packet);
        };
        if let Some(named_at) = place.named_at {
            // What followed the fragment header follows what came before it.
            let header = place.data - FRAGMENT_HEADER;
            packet.as_mut_slice()[named_at] = first[header];
            packet.truncate(header);
        }
        let header_len = packet.len();
        let mut whole = Self { packet, header_len };
        if whole.append(&first[place.data..]) { Ok(whole) } else { Err(whole.packet) }
    }

    /// Adds the next fragment. `None` if it is not the one that follows, or makes the packet longer than
    /// any; otherwise whether it was the last.
    pub(crate) fn add(&mut self, fragment: &[u8]) -> Option<bool> {
        let place = place(fragment).filter(|p| p.offset == self.packet.len() - self.header_len)?;
        self.append(&fragment[place.data..]).then_some(!place.more)
    }

    fn append(&mut self, octets: &[u8]) -> bool {
        let end = self.packet.len();
        let fits = end + octets.len() <= MAX_PACKET && self.packet.grow_back(octets.len());
        if fits {
            self.packet.as_mut_slice()[end..].copy_from_slice(octets);
        }
        fits
    }

    /// The packet, whole.
    pub(crate) fn finish(mut self) -> Packet {
        let len = self.packet.len();
        let octets = self.packet.as_mut_slice();
        // No longer than `MAX_PACKET`, so both fit 16 bits.
        if octets[0] >> 4 == 4 {
            octets[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            octets[6..8].fill(0);
            seal_ipv4_header(&mut octets[..self.header_len]);
        } else {
            octets[4..6].copy_from_slice(&((len - IPV6_HEADER) as u16).to_be_bytes());
        }
        self.packet
    }

    /// The buffer, if it comes to nothing.
    pub(crate) fn abandon(self) -> Packet {
        self.packet
    }
}
