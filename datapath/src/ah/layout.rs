//! Where AH stands in a packet, how it gets there, and out again.

use super::FIXED;
use crate::headers::{IPV4_HEADER, IPV6_HEADER, protocol, seal_ipv4_header};
use crate::packet::Packet;
use policy::sa::Mode;
use std::net::IpAddr;

/// An AH in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it begins.
    pub(crate) at: usize,
    /// Octets it has, ICV and padding included.
    pub(crate) len: usize,
    /// Where the protocol field stands that names it.
    pub(crate) named_at: usize,
    /// What follows it.
    pub(crate) next_header: u8,
    /// SPI.
    pub(crate) spi: u32,
    /// Sequence number field.
    pub(crate) sequence: u32,
}

/// The AH of a packet, whole within it; `None` if there is none.
pub(crate) fn place(packet: &[u8]) -> Option<Place> {
    let (named_at, at) = gap(packet)?;
    if *packet.get(named_at)? != protocol::AH {
        return None;
    }
    let fixed: &[u8; FIXED] = packet.get(at..)?.first_chunk()?;
    let len = 4 * (usize::from(fixed[1]) + 2);
    packet.get(at..at + len).filter(|_| len >= FIXED)?;
    Some(Place {
        at,
        len,
        named_at,
        next_header: fixed[0],
        spi: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        sequence: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
    })
}

/// Where an AH goes (RFC 4302 3.1.1): behind the IPv4 header, or in IPv6 behind the headers
/// that routers look at. (Where the field stands that names what is there now, where that begins.)
fn gap(packet: &[u8]) -> Option<(usize, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let at = usize::from(packet[0] & 0xf) * 4;
            (at >= IPV4_HEADER && at <= packet.len()).then_some((9, at))
        }
        6 => {
            let (mut named_at, mut at) = (6, IPV6_HEADER);
            loop {
                let next = *packet.get(named_at)?;
                let header = packet.get(at..)?;
                let len = || Some(8 + 8 * usize::from(*header.get(1)?));
                let for_routers = match next {
                    protocol::HOP_BY_HOP | protocol::ROUTING => true,
                    // Those before a routing header are for each of its hops.
                    protocol::DESTINATION_OPTIONS => *header.first()? == protocol::ROUTING,
                    _ => false,
                };
                if !for_routers {
                    return Some((named_at, at));
                }
                (named_at, at) = (at, at + len()?);
            }
        }
        _ => None,
    }
}

/// Whether a packet can go in transport mode: whole, that is not as a fragment of one.
pub(crate) fn carries(packet: &[u8]) -> bool {
    gap(packet).is_some_and(|(named_at, _)| packet[named_at] != protocol::FRAGMENT)
}

/// Octets of an AH with an ICV of this length: a multiple of 4 in IPv4, of 8 in IPv6 (RFC 4302 2.2).
pub(crate) fn header_len(icv_len: usize, ipv4: bool) -> usize {
    (FIXED + icv_len).next_multiple_of(if ipv4 { 4 } else { 8 })
}

/// What the outer header of a tunnel-mode packet says.
pub(crate) struct Outer {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) traffic_class: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) hop_limit: u8,
}

/// What an AH is to protect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// An IP packet, under an outer header.
    Tunnel,
    /// An IP packet, under its own header.
    Transport,
    /// A packet of ESP, under an outer header: a bundle.
    Esp,
}

/// Puts an AH into a packet, and where it needs one an outer header before it; the ICV is left
/// to the sealer. `false`, and the packet is spoilt, if it would be longer than any.
pub(crate) fn insert(
    packet: &mut Packet,
    content: Content,
    outer: &Outer,
    spi: u32,
    sequence: u32,
    icv_len: usize,
) -> bool {
    let Some(&version) = packet.as_slice().first() else { return false };
    let (next_header, at) = match content {
        Content::Tunnel | Content::Esp => {
            let header = if outer.remote.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
            if !packet.grow_front(header) {
                return false;
            }
            write_outer(packet.as_mut_slice(), outer);
            let next_header = match content {
                Content::Esp => protocol::ESP,
                _ if version >> 4 == 4 => protocol::IPV4,
                _ => protocol::IPV6,
            };
            (next_header, header)
        }
        Content::Transport => {
            let Some((named_at, at)) = gap(packet.as_slice()) else { return false };
            let next_header = packet.as_slice()[named_at];
            packet.as_mut_slice()[named_at] = protocol::AH;
            (next_header, at)
        }
    };
    let ipv4 = packet.as_slice()[0] >> 4 == 4;
    let len = header_len(icv_len, ipv4);
    if !packet.grow_front(len) {
        return false;
    }
    let octets = packet.as_mut_slice();
    octets.copy_within(len..len + at, 0);
    let ah = &mut octets[at..at + len];
    ah.fill(0);
    (ah[0], ah[1]) = (next_header, (len / 4 - 2) as u8);
    ah[4..8].copy_from_slice(&spi.to_be_bytes());
    ah[8..12].copy_from_slice(&sequence.to_be_bytes());
    let total = octets.len();
    if ipv4 {
        let Ok(total) = u16::try_from(total) else { return false };
        octets[2..4].copy_from_slice(&total.to_be_bytes());
        if octets[4..6] == [0, 0] {
            // The kernel would choose one of its own, and the ICV covers it.
            octets[4..6].copy_from_slice(&(sequence as u16 | 1).to_be_bytes());
        }
        seal_ipv4_header(&mut octets[..at]);
    } else {
        let Ok(payload) = u16::try_from(total - IPV6_HEADER) else { return false };
        octets[4..6].copy_from_slice(&payload.to_be_bytes());
    }
    true
}

/// Writes an outer header that names AH, without its length and checksum.
fn write_outer(octets: &mut [u8], outer: &Outer) {
    match (outer.local, outer.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let header = &mut octets[..IPV4_HEADER];
            header.fill(0);
            (header[0], header[1]) = (0x45, outer.traffic_class);
            header[6] = if outer.dont_fragment { 0x40 } else { 0 };
            (header[8], header[9]) = (outer.hop_limit, protocol::AH);
            header[12..16].copy_from_slice(&local.octets());
            header[16..20].copy_from_slice(&remote.octets());
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let header = &mut octets[..IPV6_HEADER];
            header.fill(0);
            (header[0], header[1]) = (0x60 | outer.traffic_class >> 4, outer.traffic_class << 4);
            (header[6], header[7]) = (protocol::AH, outer.hop_limit);
            header[8..24].copy_from_slice(&local.octets());
            header[24..40].copy_from_slice(&remote.octets());
        }
        // No SA is made between the families.
        _ => {}
    }
}

/// Takes the AH out of an authentic packet, and in tunnel mode all that is before it; returns
/// what followed it.
pub(crate) fn remove(packet: &mut Packet, mode: Mode) -> Option<u8> {
    let Place { at, len, named_at, next_header, .. } = place(packet.as_slice())?;
    match mode {
        Mode::Tunnel => packet.trim_front(at + len),
        Mode::Transport => {
            let octets = packet.as_mut_slice();
            octets[named_at] = next_header;
            octets.copy_within(..at, len);
            packet.trim_front(len);
            let octets = packet.as_mut_slice();
            let total = octets.len();
            // Shorter than it was, and that fitted.
            if octets[0] >> 4 == 4 {
                octets[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                seal_ipv4_header(&mut octets[..at]);
            } else {
                octets[4..6].copy_from_slice(&((total - IPV6_HEADER) as u16).to_be_bytes());
            }
        }
    }
    Some(next_header)
}
