//! What a router looks at before a packet goes on: whether the frame brings a packet to it at all, whether the packet
//! may be forwarded, and how many hops it has left (RFC 1812 5, RFC 8200 3).

use crate::headers::{IPV4_HEADER, IPV6_HEADER, checksum};
use policy::counters::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of an Ethernet header without a tag.
const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The VLAN identifier in a tag; 0 is none, only a priority (IEEE 802.1Q).
const VLAN: u16 = 0x0fff;

/// What a frame brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings<'f> {
    /// An IP packet, perhaps with the frame's padding behind it.
    Packet(&'f [u8]),
    /// Something that is the kernel's business alone: another protocol, or a tag that makes it one of another
    /// (VLAN) interface.
    Other,
}

/// What a frame brings, of which the interface has taken off `tag`.
///
/// # Errors
/// Why it is dropped.
pub fn open_frame(frame: &[u8], tag: Option<u16>) -> Result<Brings<'_>, DropReason> {
    let (header, packet) = frame.split_first_chunk::<ETHERNET_HEADER>().ok_or(DropReason::RuntFrame)?;
    if tag.is_some_and(|tag| tag & VLAN != 0) {
        return Ok(Brings::Other);
    }
    let version = match [header[12], header[13]] {
        ETHERTYPE_IPV4 => 4,
        ETHERTYPE_IPV6 => 6,
        _ => return Ok(Brings::Other),
    };
    match packet.first() {
        Some(first) if first >> 4 == version => Ok(Brings::Packet(packet)),
        _ => Err(DropReason::Malformed),
    }
}

/// Where a packet goes.
///
/// # Errors
/// It is too short to say.
pub fn destination(packet: &[u8]) -> Result<IpAddr, DropReason> {
    addresses(packet).map(|(_, destination)| destination)
}

/// Where a packet comes from.
///
/// # Errors
/// It is too short to say.
pub fn source(packet: &[u8]) -> Result<IpAddr, DropReason> {
    addresses(packet).map(|(source, _)| source)
}

fn addresses(packet: &[u8]) -> Result<(IpAddr, IpAddr), DropReason> {
    if packet.first().is_some_and(|first| first >> 4 == 4) {
        let header = packet.first_chunk::<IPV4_HEADER>().ok_or(DropReason::Malformed)?;
        let at = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
        return Ok((at(12), at(16)));
    }
    let header = packet.first_chunk::<IPV6_HEADER>().ok_or(DropReason::Malformed)?;
    let at = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(octets).into()
    };
    Ok((at(8), at(24)))
}

/// Whether packets to this address are for one link and those on it, and no router forwards them: multicast (of which
/// this is no router), broadcast, link-local, loopback, unspecified.
#[must_use]
pub fn stays_on_link(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.is_loopback() || a.is_link_local() || a.octets()[0] >= 224,
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_unicast_link_local(),
    }
}

/// Whether a router may forward a packet: its IPv4 header is as it was sent (RFC 1812 5.2.2), and its sender one that
/// somebody beyond this link can know (RFC 1812 5.3.7, RFC 3927 2.7, RFC 4291 2.5).
///
/// # Errors
/// Why it is dropped.
pub fn check(packet: &[u8]) -> Result<(), DropReason> {
    if packet.first().is_some_and(|first| first >> 4 == 4) {
        let header = packet.get(..usize::from(packet[0] & 0xf) * 4).filter(|h| h.len() >= IPV4_HEADER);
        let header = header.ok_or(DropReason::Malformed)?;
        if checksum(&[header]) != 0 {
            return Err(DropReason::HeaderChecksum);
        }
    }
    // What is no destination beyond a link is no source either.
    if stays_on_link(source(packet)?) { Err(DropReason::NotForwardable) } else { Ok(()) }
}

/// Takes a hop from those a packet has left; `false`, and nothing changed, if it has none to go on with.
///
/// The packet is one that [`check`] has found right.
#[must_use]
pub fn take_hop(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER && packet[8] > 1 => {
            packet[8] -= 1;
            // RFC 1624: HC' = ~(~HC + ~m + m'); the word has the protocol beside it, which stays.
            let old = u16::from_be_bytes([packet[10], packet[11]]);
            let now = u16::from_be_bytes([packet[8], packet[9]]);
            let before = now + 0x0100;
            let sum = u32::from(!old) + u32::from(!before) + u32::from(now);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            true
        }
        Some(6) if packet.len() >= IPV6_HEADER && packet[7] > 1 => {
            packet[7] -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::testing::udp_packet;
    use proptest::prelude::*;

    fn frame(ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[2; 6][..], &[4; 6], &ethertype, packet].concat()
    }

    fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
        if packet[0] >> 4 == 4 {
            crate::headers::seal_ipv4_header(&mut packet[..20]);
        }
        packet
    }

    #[test]
    fn frames_by_what_they_bring() {
        let (v4, v6) = (udp_packet(true, 60), udp_packet(false, 60));
        let opened = |f: &[u8], tag| match open_frame(f, tag) {
            Ok(Brings::Packet(p)) => Ok(Some(p.to_vec())),
            Ok(Brings::Other) => Ok(None),
            Err(reason) => Err(reason),
        };
        assert_eq!(opened(&frame(ETHERTYPE_IPV4, &v4), None), Ok(Some(v4.clone())));
        assert_eq!(opened(&frame(ETHERTYPE_IPV6, &v6), None), Ok(Some(v6.clone())));
        assert_eq!(opened(&frame(ETHERTYPE_IPV4, &v4), Some(0x6000)), Ok(Some(v4.clone())), "a priority is no VLAN");
        assert_eq!(opened(&frame(ETHERTYPE_IPV4, &v4), Some(0x600a)), Ok(None), "of another interface");
        assert_eq!(opened(&frame([0x08, 0x06], &[0; 28]), None), Ok(None), "ARP");
        assert_eq!(opened(&frame([0x81, 0x00], &[0; 28]), None), Ok(None), "a tag inside");
        assert_eq!(opened(&[0; 13], None), Err(DropReason::RuntFrame));
        assert_eq!(opened(&frame(ETHERTYPE_IPV4, &v6), None), Err(DropReason::Malformed), "IPv6 as IPv4");
        assert_eq!(opened(&frame(ETHERTYPE_IPV6, &[]), None), Err(DropReason::Malformed));
    }

    #[test]
    fn what_no_router_forwards() {
        let mut packet = sealed(udp_packet(true, 60));
        assert_eq!(check(&packet), Ok(()));
        packet[8] ^= 1;
        assert_eq!(check(&packet), Err(DropReason::HeaderChecksum));
        for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [169, 254, 1, 1]] {
            let mut packet = udp_packet(true, 60);
            packet[12..16].copy_from_slice(&source);
            assert_eq!(check(&sealed(packet)), Err(DropReason::NotForwardable), "{source:?}");
        }
        for source in ["::", "::1", "ff02::1", "fe80::1"] {
            let mut packet = udp_packet(false, 60);
            packet[8..24].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(check(&packet), Err(DropReason::NotForwardable), "{source}");
        }
        assert_eq!(check(&[0x44; 60]), Err(DropReason::Malformed), "a header of 16 octets");
        assert_eq!(check(&[0x4f; 40]), Err(DropReason::Malformed), "one that ends too soon");
    }

    proptest! {
        #[test]
        fn a_hop_less_and_the_checksum_still_right(ttl: u8, tos: u8, id: u16, v4: bool) {
            let mut packet = udp_packet(v4, 60);
            if v4 {
                (packet[1], packet[8]) = (tos, ttl);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
            } else {
                packet[7] = ttl;
            }
            let before = sealed(packet);
            let mut after = before.clone();
            prop_assert_eq!(take_hop(&mut after), ttl > 1);
            if ttl > 1 {
                let mut expected = before;
                expected[if v4 { 8 } else { 7 }] -= 1;
                prop_assert_eq!(check(&after), Ok(()));
                // ~0 and 0 are one in this arithmetic; a header's sum is never 0, so there is only one way.
                prop_assert_eq!(after, sealed(expected));
            } else {
                prop_assert_eq!(after, before);
            }
        }

        #[test]
        fn octets_of_any_kind_do_not_upset_it(octets in proptest::collection::vec(any::<u8>(), 0..100), tag: Option<u16>) {
            if let Ok(Brings::Packet(packet)) = open_frame(&octets, tag) {
                let mut packet = packet.to_vec();
                let _ = (destination(&packet), check(&packet), take_hop(&mut packet));
            }
            let mut octets = octets;
            let _ = (check(&octets), take_hop(&mut octets));
        }
    }
}
