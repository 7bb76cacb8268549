//! Super-packets: what the kernel hands over, and takes, as one packet of up to 64 KiB that stands for many.
//!
//! A TUN interface opened with IFF_VNET_HDR gives every packet a header (`virtio_net_hdr`) that says whether its
//! checksum is still to be completed, and into what segments it is to be cut. [`segment`] does that on the way out;
//! [`coalesce`] puts packets of one conversation together on the way in, so that the kernel goes through its layers
//! once for dozens of them. What was put together is cut again into exactly the same packets.

pub mod coalesce;
pub mod segment;

use crate::headers::{IPV4_HEADER, IPV6_HEADER, protocol};

/// Octets of a [`VirtioHeader`].
pub const VIRTIO_HEADER: usize = 10;

/// Where the checksum is in a TCP header (RFC 9293 3.1), and in a UDP header (RFC 768).
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// Octets of a UDP header.
const UDP_HEADER: usize = 8;

/// What a super-packet is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP segments in IPv4.
    Tcp4,
    /// TCP segments in IPv6.
    Tcp6,
    /// UDP datagrams.
    Udp,
}

/// The header before each packet of a TUN interface (`struct virtio_net_hdr` of Linux; Virtual I/O Device 1.3 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// Where the checksummed part begins, and where in it the checksum is; `None`: the checksum is complete.
    pub checksum: Option<(u16, u16)>,
    /// Into what it is cut, and octets of payload in each but the last.
    pub segments: Option<(Kind, u16)>,
    /// Octets of headers, which the kernel takes as a hint.
    pub header_len: u16,
}

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

impl VirtioHeader {
    /// Reads one; `None` if it asks for something that was not offered.
    #[must_use]
    pub fn decode(octets: &[u8; VIRTIO_HEADER]) -> Option<Self> {
        let word = |at: usize| u16::from_ne_bytes([octets[at], octets[at + 1]]);
        let kind = match octets[1] {
            GSO_NONE => None,
            GSO_TCPV4 => Some(Kind::Tcp4),
            GSO_TCPV6 => Some(Kind::Tcp6),
            GSO_UDP_L4 => Some(Kind::Udp),
            _ => return None,
        };
        Some(Self {
            checksum: (octets[0] & NEEDS_CHECKSUM != 0).then(|| (word(6), word(8))),
            segments: kind.map(|kind| (kind, word(4))),
            header_len: word(2),
        })
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> [u8; VIRTIO_HEADER] {
        let mut octets = [0; VIRTIO_HEADER];
        let mut put = |at: usize, word: u16| octets[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        put(2, self.header_len);
        if let Some((_, size)) = self.segments {
            put(4, size);
        }
        if let Some((start, offset)) = self.checksum {
            put(6, start);
            put(8, offset);
            octets[0] = NEEDS_CHECKSUM;
        }
        octets[1] = match self.segments {
            None => GSO_NONE,
            Some((Kind::Tcp4, _)) => GSO_TCPV4,
            Some((Kind::Tcp6, _)) => GSO_TCPV6,
            Some((Kind::Udp, _)) => GSO_UDP_L4,
        };
        octets
    }
}

/// A sum of the Internet checksum (RFC 1071), not complemented: of 16-bit words in the order of the wire.
#[must_use]
pub(crate) fn sum(octets: &[u8]) -> u16 {
    // In any order of octets the sum is the same but for the order of its own two (RFC 1071 2 B), and so it may be
    // taken of larger words. 32-bit words in 64 bits do not overflow below 16 GiB.
    let (words, rest) = octets.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    u16::from_be_bytes(folded(sum).to_ne_bytes())
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of sums.
fn add(sums: &[u16]) -> u16 {
    folded(sums.iter().map(|sum| u64::from(*sum)).sum())
}

/// The sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1) of a packet whose upper layer has `len` octets.
fn pseudo_header(packet: &[u8], protocol: u8, len: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..IPV4_HEADER] } else { &packet[8..IPV6_HEADER] };
    add(&[sum(addresses), u16::from(protocol), (len >> 16) as u16, len as u16])
}

/// Where the checksum is in the header of a protocol.
fn checksum_offset(protocol: u8) -> usize {
    if protocol == protocol::TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests;
