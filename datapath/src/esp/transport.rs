//! Transport mode (RFC 4303 3.1.1): ESP goes between a packet's IP header and
//! what follows it. The header itself travels as the outer one, and is made
//! anew by the receiver from what is left of it and the addresses of the SA.

use crate::headers::{IPV4_HEADER, IPV6_HEADER, protocol, seal_ipv4_header};
use crate::packet::Packet;
use core::net::IpAddr;
use policy::sa::SaSpec;

/// Whether a packet can go in transport mode. Its header becomes the outer one, which
/// the kernel writes: without IPv4 options, and without the IPv6 extension headers
/// that routers look at or that belong to one fragment (RFC 4303 3.1.1). Destination
/// options can: they travel protected.
#[must_use]
pub(crate) fn carries(packet: &[u8]) -> bool {
    match packet {
        [first, ..] if first >> 4 == 4 => packet.len() >= IPV4_HEADER && first & 0xf == 5,
        [first, ..] if first >> 4 == 6 && packet.len() >= IPV6_HEADER => {
            !matches!(packet[6], protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT)
        }
        _ => false,
    }
}

/// Takes the IP header off a whole packet that [transport mode carries](carries);
/// returns the protocol of what is left.
pub(super) fn take_header(packet: &mut Packet) -> u8 {
    debug_assert!(carries(packet.as_slice()));
    let octets = packet.as_slice();
    let (protocol_at, len) = if octets[0] >> 4 == 4 { (9, IPV4_HEADER) } else { (6, IPV6_HEADER) };
    let next_header = octets[protocol_at];
    packet.trim_front(len);
    next_header
}

/// The hop limit of a packet.
pub(super) fn hop_limit(packet: &[u8]) -> Option<u8> {
    packet.get(if packet.first()? >> 4 == 4 { 8 } else { 7 }).copied()
}

/// What the header of a packet that arrived said beside addresses and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Hop limit.
    pub hop_limit: u8,
}

/// Puts an IP header before the payload of an SA's packet that has arrived, with the
/// addresses of the SA: those outside are not authenticated, and a NAT may have
/// changed them. `false` if it would be too long a packet.
pub(super) fn give_header(packet: &mut Packet, next_header: u8, outer: Outer, spec: &SaSpec) -> bool {
    if let Some(original) = spec.original {
        translate(packet.as_mut_slice(), next_header, (original.remote, original.local), (spec.remote, spec.local));
    }
    let payload_len = packet.len();
    match (spec.remote, spec.local) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let Ok(len) = u16::try_from(payload_len + IPV4_HEADER) else { return false };
            if !packet.grow_front(IPV4_HEADER) {
                return false;
            }
            let header = &mut packet.as_mut_slice()[..IPV4_HEADER];
            header.fill(0);
            (header[0], header[1], header[8], header[9]) = (0x45, outer.traffic_class, outer.hop_limit, next_header);
            header[2..4].copy_from_slice(&len.to_be_bytes());
            // Whole, and never to be fragmented: so it needs no identification (RFC 6864 4.1).
            header[6] = 0x40;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            seal_ipv4_header(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let Ok(len) = u16::try_from(payload_len) else { return false };
            if !packet.grow_front(IPV6_HEADER) {
                return false;
            }
            let header = &mut packet.as_mut_slice()[..IPV6_HEADER];
            header.fill(0);
            (header[0], header[1]) = (0x60 | outer.traffic_class >> 4, outer.traffic_class << 4);
            header[4..6].copy_from_slice(&len.to_be_bytes());
            (header[6], header[7]) = (next_header, outer.hop_limit);
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
        }
        // No SA is made between the families.
        _ => return false,
    }
    true
}

/// Where the checksum over a pseudo-header stands in a protocol's header, if it has one.
fn checksum_at(next_header: u8) -> Option<usize> {
    match next_header {
        protocol::TCP => Some(16),
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => Some(6),
        protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Makes the checksum of a payload right for the addresses `to` (source, destination),
/// that its sender computed for the addresses `from` (RFC 3948 3.1.2 a), by the difference
/// alone (RFC 1624 3): what was wrong before is wrong after.
fn translate(payload: &mut [u8], next_header: u8, from: (IpAddr, IpAddr), to: (IpAddr, IpAddr)) {
    let Some(field) = checksum_at(next_header).and_then(|at| payload.get_mut(at..at + 2)) else { return };
    let before = u16::from_be_bytes([field[0], field[1]]);
    // UDP over IPv4: no checksum.
    if before == 0 && next_header == protocol::UDP {
        return;
    }
    let sum = |(a, b): (IpAddr, IpAddr)| words(a) + words(b);
    let complement = |n: u32| 0xffff * 32 - n;
    let after = !fold(u32::from(!before) + complement(sum(from)) + sum(to));
    // The complement of 0 is sent as all ones where 0 means none (RFC 768).
    let after = if after == 0 && next_header == protocol::UDP { 0xffff } else { after };
    field.copy_from_slice(&after.to_be_bytes());
}

/// The sum of an address's 16-bit words: at most 8 times 0xffff.
fn words(address: IpAddr) -> u32 {
    let sum = |octets: &[u8]| octets.as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    match address {
        IpAddr::V4(a) => sum(&a.octets()),
        IpAddr::V6(a) => sum(&a.octets()),
    }
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::checksum;
    use crate::testing::udp_packet;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[test]
    fn what_can_go_and_what_cannot() {
        let (v4, v6) = (udp_packet(true, 60), udp_packet(false, 80));
        assert!(carries(&v4) && carries(&v6));
        assert!(!carries(&v4[..19]) && !carries(&v6[..39]) && !carries(&[]));
        let mut options = v4.clone();
        options[0] = 0x46;
        assert!(!carries(&options));
        for (next, expected) in [(0, false), (43, false), (44, false), (60, true), (6, true)] {
            let mut packet = v6.clone();
            packet[6] = next;
            assert_eq!(carries(&packet), expected, "{next}");
        }
    }

    fn pseudo_checksum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
        let mut pseudo = Vec::new();
        for address in [source, destination] {
            match address {
                IpAddr::V4(a) => pseudo.extend(a.octets()),
                IpAddr::V6(a) => pseudo.extend(a.octets()),
            }
        }
        pseudo.extend((payload.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        checksum(&[&pseudo, payload])
    }

    proptest! {
        /// Against a checksum computed anew, for both families, and TCP as well as UDP.
        #[test]
        fn translated_checksums_are_right(
            v4: bool,
            tcp: bool,
            octets: [[u8; 16]; 4],
            data in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let address = |o: [u8; 16]| if v4 { IpAddr::from([o[0], o[1], o[2], o[3]]) } else { IpAddr::from(o) };
            let [a, b, c, d] = octets.map(address);
            let builder = match (a, b) {
                (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), 64),
                (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), 64),
                _ => unreachable!("one family"),
            };
            let mut packet = Vec::new();
            if tcp {
                builder.tcp(1, 2, 3, 4).write(&mut packet, &data).unwrap();
            } else {
                builder.udp(1, 2).write(&mut packet, &data).unwrap();
            }
            let payload = &mut packet[if v4 { 20 } else { 40 }..];
            let protocol = if tcp { 6 } else { 17 };
            prop_assert_eq!(pseudo_checksum(a, b, protocol, payload), 0);
            translate(payload, protocol, (a, b), (c, d));
            prop_assert_eq!(pseudo_checksum(c, d, protocol, payload), 0);
            // A wrong one stays wrong.
            payload[0] ^= 1;
            translate(payload, protocol, (c, d), (a, b));
            prop_assert_ne!(pseudo_checksum(a, b, protocol, payload), 0);
        }
    }

    #[test]
    fn no_checksum_stays_none() {
        let mut payload = [0, 1, 0, 2, 0, 8, 0, 0];
        let (a, b) = (IpAddr::from([1, 2, 3, 4]), IpAddr::from([4, 3, 2, 1]));
        translate(&mut payload, protocol::UDP, (a, a), (b, b));
        assert_eq!(payload[6..], [0, 0]);
        translate(&mut payload[..7], protocol::UDP, (a, a), (b, b));
    }
}
