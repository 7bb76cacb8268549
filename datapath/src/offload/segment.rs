//! Cutting a super-packet into the packets it stands for.

use super::{Kind, TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER, VirtioHeader, add, checksum_offset, pseudo_header, sum};
use crate::headers::{Fragment, Headers, protocol, seal_ipv4_header};
use crate::packet::Packet;

/// TCP flags that only the last segment has: FIN and PSH.
const ONLY_LAST: u8 = 0x01 | 0x08;
/// That only the first has: CWR (RFC 3168 6.1.2).
const ONLY_FIRST: u8 = 0x80;

/// A packet of the TUN interface is not what the header before it says: the fault of our kernel, which wrote both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch;

/// Completes the checksum of a packet that is not to be cut.
///
/// # Errors
/// [`Mismatch`] where the header points outside the packet.
pub fn complete(header: VirtioHeader, packet: &mut [u8]) -> Result<(), Mismatch> {
    let Some((start, offset)) = header.checksum else { return Ok(()) };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let covered = packet.get_mut(start..).filter(|covered| covered.len() >= offset + 2).ok_or(Mismatch)?;
    // The field has the sum of the pseudo-header, and is part of what is summed.
    let mut checksum = !sum(covered);
    if checksum == 0 && offset == UDP_CHECKSUM {
        // Zero would mean that there is none (RFC 768).
        checksum = 0xffff;
    }
    covered[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// The packets of a super-packet, one after another.
#[derive(Debug)]
pub struct Segments<'p> {
    headers: &'p [u8],
    payload: &'p [u8],
    at: usize,
    size: usize,
    /// Octets of the IP header.
    ip: usize,
    protocol: u8,
}

impl<'p> Segments<'p> {
    /// Those of `packet`, from its IP header, as `kind` and `size` of its header say.
    ///
    /// # Errors
    /// [`Mismatch`] if it is no whole packet of that kind, or has no payload.
    pub fn new(packet: &'p [u8], kind: Kind, size: u16) -> Result<Self, Mismatch> {
        // A super-packet's own length may be 0, being longer than its field can say; the kernel never does that here.
        let parsed = Headers::parse(packet).map_err(|_| Mismatch)?;
        let (ip, protocol) = (parsed.header_len, parsed.tuple.protocol);
        let fits = match kind {
            Kind::Tcp4 => parsed.is_ipv4() && protocol == protocol::TCP,
            Kind::Tcp6 => !parsed.is_ipv4() && protocol == protocol::TCP,
            Kind::Udp => protocol == protocol::UDP,
        };
        if !fits || parsed.fragment != Fragment::Whole || parsed.total_len != packet.len() || size == 0 {
            return Err(Mismatch);
        }
        let upper = &packet[ip..];
        let upper_header = match protocol {
            protocol::TCP => usize::from(upper.get(12).ok_or(Mismatch)? >> 4) * 4,
            _ => UDP_HEADER,
        };
        let least = if protocol == protocol::TCP { 20 } else { UDP_HEADER };
        if upper_header < least || upper.len() <= upper_header {
            return Err(Mismatch);
        }
        let (headers, payload) = packet.split_at(ip + upper_header);
        Ok(Self { headers, payload, at: 0, size: usize::from(size), ip, protocol })
    }

    /// Writes the next packet; `false` when there are no more.
    pub fn next_into(&mut self, packet: &mut Packet) -> bool {
        if self.at >= self.payload.len() {
            return false;
        }
        let payload = &self.payload[self.at..self.payload.len().min(self.at + self.size)];
        let len = self.headers.len() + payload.len();
        let (headers, body) = packet.room()[..len].split_at_mut(self.headers.len());
        headers.copy_from_slice(self.headers);
        body.copy_from_slice(payload);
        let (ip, upper) = headers.split_at_mut(self.ip);
        let upper_len = upper.len() + payload.len();
        if self.protocol == protocol::TCP {
            let sequence = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]).wrapping_add(self.at as u32);
            upper[4..8].copy_from_slice(&sequence.to_be_bytes());
            if self.at > 0 {
                upper[13] &= !ONLY_FIRST;
            }
            if self.at + payload.len() < self.payload.len() {
                upper[13] &= !ONLY_LAST;
            }
        } else {
            upper[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
        }
        if ip[0] >> 4 == 4 {
            ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add((self.at / self.size) as u16);
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            seal_ipv4_header(ip);
        } else {
            ip[4..6].copy_from_slice(&((len - crate::headers::IPV6_HEADER) as u16).to_be_bytes());
        }
        let offset = checksum_offset(self.protocol);
        upper[offset..offset + 2].fill(0);
        let pseudo = pseudo_header(ip, self.protocol, upper_len);
        let mut checksum = !add(&[pseudo, sum(upper), sum(body)]);
        if checksum == 0 && offset != TCP_CHECKSUM {
            checksum = 0xffff;
        }
        upper[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
        packet.set_len(len);
        self.at += payload.len();
        true
    }
}
