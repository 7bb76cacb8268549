//! Telling a sender what became of its packet. It does not fit: ICMP "fragmentation needed"
//! (RFC 792, RFC 1191 4) and ICMPv6 "packet too big" (RFC 4443 3.2). Or, as a router, that it
//! has no hop left, or nowhere to go (RFC 792, RFC 4443 3.1 and 3.3).

use super::{IPV4_HEADER, IPV6_HEADER, checksum};
use std::net::IpAddr;

/// No answer longer than this in IPv4 (RFC 1812 4.3.2.3).
const LONGEST_V4: usize = 576;
/// No answer longer than this in IPv6: the minimum MTU (RFC 4443 2.4 c).
const LONGEST_V6: usize = 1280;
const ICMP_HEADER: usize = 8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Octets that an answer may need.
pub const LONGEST: usize = LONGEST_V6;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// So many octets fit.
    TooBig(u16),
    /// It had no hop left.
    HopLimit,
    /// There is no route to its destination.
    NoRoute,
    /// Its destination, or the next router, does not answer.
    HostUnreachable,
}

impl Trouble {
    /// ICMP type and code.
    fn v4(self) -> [u8; 2] {
        match self {
            Self::TooBig(_) => [3, 4],
            Self::HopLimit => [11, 0],
            Self::NoRoute => [3, 0],
            Self::HostUnreachable => [3, 1],
        }
    }

    /// ICMPv6 type and code.
    fn v6(self) -> [u8; 2] {
        match self {
            Self::TooBig(_) => [2, 0],
            Self::HopLimit => [3, 0],
            Self::NoRoute => [1, 0],
            Self::HostUnreachable => [1, 3],
        }
    }
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// It is not a whole IP packet.
    Malformed,
    /// It is an ICMP error itself: answering could go on for ever (RFC 1122 3.2.2).
    IcmpError,
    /// It is a fragment that is not the first (RFC 1122 3.2.2).
    LaterFragment,
    /// Its sender or its receiver is not one host: unspecified, multicast or broadcast.
    Sender,
}

/// Writes to `out` the whole IP packet that tells the sender of `packet` that
/// `mtu` octets fit; returns its length. It comes from the destination of
/// `packet`: the tunnel has no address of its own that the sender would know.
///
/// An MTU below 1280 is told to IPv6 senders as 1280: a host never sends less
/// than that (RFC 8200 5), and the outer packet fragments instead.
///
/// # Panics
/// If `out` is shorter than [`LONGEST`] octets.
pub fn too_big(packet: &[u8], mtu: u16, out: &mut [u8]) -> Result<usize, NoReply> {
    tell(packet, Trouble::TooBig(mtu), None, out)
}

/// As [`too_big`], for any trouble, and from an address of this machine where there is one of the family.
///
/// # Panics
/// If `out` is shorter than [`LONGEST`] octets.
pub fn tell(packet: &[u8], trouble: Trouble, from: Option<IpAddr>, out: &mut [u8]) -> Result<usize, NoReply> {
    assert!(out.len() >= LONGEST, "room for the longest answer");
    match packet.first().map(|b| b >> 4) {
        Some(4) => tell_v4(packet, trouble, from, out),
        Some(6) => tell_v6(packet, trouble, from, out),
        _ => Err(NoReply::Malformed),
    }
}

fn tell_v4(packet: &[u8], trouble: Trouble, from: Option<IpAddr>, out: &mut [u8]) -> Result<usize, NoReply> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(NoReply::Malformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < IPV4_HEADER || packet.len() < header_len {
        return Err(NoReply::Malformed);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Err(NoReply::LaterFragment);
    }
    // Everything but the informational messages counts as an error.
    if header[9] == ICMP && !matches!(packet.get(header_len), Some(0 | 8 | 9 | 10 | 13..=18 | 42 | 43)) {
        return Err(NoReply::IcmpError);
    }
    let (source, destination) = (&header[12..16], &header[16..20]);
    // To a group there is no answer (RFC 1122 3.2.2).
    if source[0] == 0 || source[0] >= 224 || destination[0] >= 224 {
        return Err(NoReply::Sender);
    }
    let quoted = packet.len().min(LONGEST_V4 - IPV4_HEADER - ICMP_HEADER);
    let total = IPV4_HEADER + ICMP_HEADER + quoted;
    let (ip, icmp) = out[..total].split_at_mut(IPV4_HEADER);
    // TOS: internetwork control (RFC 1812 4.3.2.5). Identification 0 and DF: the answer is atomic (RFC 6864).
    ip.copy_from_slice(&[0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, 64, ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    match from {
        Some(IpAddr::V4(from)) => ip[12..16].copy_from_slice(&from.octets()),
        _ => ip[12..16].copy_from_slice(destination),
    }
    ip[16..20].copy_from_slice(source);
    let sum = checksum(&[ip]);
    ip[10..12].copy_from_slice(&sum);
    icmp[..ICMP_HEADER].fill(0);
    icmp[..2].copy_from_slice(&trouble.v4());
    if let Trouble::TooBig(mtu) = trouble {
        icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    }
    icmp[8..].copy_from_slice(&packet[..quoted]);
    let sum = checksum(&[icmp]);
    icmp[2..4].copy_from_slice(&sum);
    Ok(total)
}

fn tell_v6(packet: &[u8], trouble: Trouble, from: Option<IpAddr>, out: &mut [u8]) -> Result<usize, NoReply> {
    let header: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(NoReply::Malformed)?;
    if icmpv6_type(packet)?.is_some_and(|kind| kind < 128) {
        return Err(NoReply::IcmpError);
    }
    let (source, destination) = (&header[8..24], &header[24..40]);
    // Packet too big is the one error that a multicast destination may get (RFC 4443 2.4 e);
    // neither tunnels nor routers of ours carry such.
    if source == [0; 16] || source[0] == 0xff || destination[0] == 0xff {
        return Err(NoReply::Sender);
    }
    let quoted = packet.len().min(LONGEST_V6 - IPV6_HEADER - ICMP_HEADER);
    let total = IPV6_HEADER + ICMP_HEADER + quoted;
    let (ip, icmp) = out[..total].split_at_mut(IPV6_HEADER);
    let length = ((total - IPV6_HEADER) as u16).to_be_bytes();
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], ICMPV6, 64]);
    match from {
        Some(IpAddr::V6(from)) => ip[8..24].copy_from_slice(&from.octets()),
        _ => ip[8..24].copy_from_slice(destination),
    }
    ip[24..40].copy_from_slice(source);
    icmp[..ICMP_HEADER].fill(0);
    icmp[..2].copy_from_slice(&trouble.v6());
    if let Trouble::TooBig(mtu) = trouble {
        icmp[4..8].copy_from_slice(&u32::from(mtu.max(LONGEST_V6 as u16)).to_be_bytes());
    }
    icmp[8..].copy_from_slice(&packet[..quoted]);
    // The pseudo-header (RFC 8200 8.1).
    let sum = checksum(&[&ip[8..40], &[0, 0, length[0], length[1], 0, 0, 0, ICMPV6], icmp]);
    icmp[2..4].copy_from_slice(&sum);
    Ok(total)
}

/// The ICMPv6 type of a packet, if it is one, behind its extension headers.
fn icmpv6_type(packet: &[u8]) -> Result<Option<u8>, NoReply> {
    let (mut next, mut at) = (packet[6], IPV6_HEADER);
    loop {
        let octet = |i: usize| packet.get(at + i).copied().ok_or(NoReply::Malformed);
        let length = match next {
            ICMPV6 => return Ok(Some(octet(0)?)),
            // Fragment header (RFC 8200 4.5).
            44 => {
                if u16::from_be_bytes([octet(2)?, octet(3)?]) & 0xfff8 != 0 {
                    return Err(NoReply::LaterFragment);
                }
                8
            }
            // Authentication header: in words of 4 octets, less 2 (RFC 4302 2.2).
            51 => (usize::from(octet(1)?) + 2) * 4,
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6: in words of 8, less 1.
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(octet(1)?) + 1) * 8,
            _ => return Ok(None),
        };
        next = octet(0)?;
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{
        Icmpv4Slice, Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6,
    };
    use proptest::prelude::*;

    fn udp_v4(size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let payload = vec![7; size];
        PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 60).udp(1000, 2000).write(&mut out, &payload).unwrap();
        out
    }

    fn udp_v6(size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let payload = vec![7; size];
        PacketBuilder::ipv6([1; 16], [2; 16], 60).udp(1000, 2000).write(&mut out, &payload).unwrap();
        out
    }

    fn answer(packet: &[u8], mtu: u16) -> Result<Vec<u8>, NoReply> {
        let mut out = [0xaa; LONGEST];
        too_big(packet, mtu, &mut out).map(|n| out[..n].to_vec())
    }

    #[test]
    fn what_a_router_tells() {
        use etherparse::{IpNumber, SlicedPacket, TransportSlice};
        for (v4, from) in [(true, "192.0.2.1"), (false, "2001:db8::1")] {
            let packet = crate::testing::udp_packet(v4, 100);
            for trouble in [Trouble::HopLimit, Trouble::NoRoute, Trouble::HostUnreachable] {
                let mut out = [0xee; LONGEST];
                let len = tell(&packet, trouble, Some(from.parse().unwrap()), &mut out).unwrap();
                let told = SlicedPacket::from_ip(&out[..len]).unwrap();
                let net = told.net.unwrap();
                let source: IpAddr = match &net {
                    etherparse::NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
                    etherparse::NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
                    etherparse::NetSlice::Arp(_) => unreachable!("it was read as IP"),
                };
                assert_eq!(source, from.parse::<IpAddr>().unwrap());
                assert!(matches!(net.ip_payload_ref().unwrap().ip_number, IpNumber::ICMP | IpNumber::IPV6_ICMP));
                let (is, expected, rest, quoted) = match told.transport.unwrap() {
                    TransportSlice::Icmpv4(m) => {
                        ([m.type_u8(), m.code_u8()], trouble.v4(), m.bytes5to8(), m.payload().to_vec())
                    }
                    TransportSlice::Icmpv6(m) => {
                        ([m.type_u8(), m.code_u8()], trouble.v6(), m.bytes5to8(), m.payload().to_vec())
                    }
                    other => unreachable!("{other:?}"),
                };
                assert_eq!((is, rest, quoted), (expected, [0; 4], packet.clone()));
                let upper = if v4 {
                    checksum(&[&out[20..len]])
                } else {
                    checksum(&[&out[8..40], &[0, 0, out[4], out[5], 0, 0, 0, ICMPV6], &out[40..len]])
                };
                assert_eq!(upper, [0, 0]);
            }
        }
    }

    #[test]
    fn ipv4_quotes_the_packet_and_tells_the_size() {
        for size in [100, 1472] {
            let packet = udp_v4(size);
            let reply = answer(&packet, 1400).unwrap();
            assert_eq!(reply.len(), (28 + packet.len()).min(576));
            let sliced = SlicedPacket::from_ip(&reply).unwrap();
            let ip = sliced.net.unwrap();
            let ip = ip.ipv4_ref().unwrap().header();
            assert_eq!((ip.source(), ip.destination()), ([10, 2, 0, 2], [10, 1, 0, 1]));
            assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
            let icmp = Icmpv4Slice::from_slice(&reply[20..]).unwrap();
            let expected = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(expected));
            assert_eq!(icmp.payload(), &packet[..reply.len() - 28]);
            let typed = icmp.icmp_type();
            assert_eq!(typed.calc_checksum(icmp.payload()), icmp.checksum());
        }
    }

    #[test]
    fn ipv6_quotes_the_packet_and_never_tells_less_than_1280() {
        for (mtu, told) in [(1400, 1400), (1000, 1280)] {
            let packet = udp_v6(1440);
            let reply = answer(&packet, mtu).unwrap();
            assert_eq!(reply.len(), 1280);
            let sliced = SlicedPacket::from_ip(&reply).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!() };
            assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: told });
            assert!(icmp.is_checksum_valid([2; 16], [1; 16]));
            assert_eq!(icmp.payload(), &packet[..1280 - 48]);
        }
    }

    #[test]
    fn errors_later_fragments_and_odd_senders_get_no_answer() {
        let mut unreachable = Vec::new();
        let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host);
        PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 60).icmpv4(kind).write(&mut unreachable, &[0; 1000]).unwrap();
        assert_eq!(answer(&unreachable, 500), Err(NoReply::IcmpError));

        let mut exceeded = Vec::new();
        let kind = Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded);
        PacketBuilder::ipv6([1; 16], [2; 16], 60).icmpv6(kind).write(&mut exceeded, &[0; 1400]).unwrap();
        assert_eq!(answer(&exceeded, 1300), Err(NoReply::IcmpError));

        let mut echo = Vec::new();
        PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 60)
            .icmpv4_echo_request(1, 2)
            .write(&mut echo, &[0; 1000])
            .unwrap();
        assert!(answer(&echo, 500).is_ok());

        let mut fragment = udp_v4(1000);
        fragment[7] = 1;
        assert_eq!(answer(&fragment, 500), Err(NoReply::LaterFragment));

        for first in [0, 224, 255] {
            let mut odd = udp_v4(1000);
            odd[12] = first;
            assert_eq!(answer(&odd, 500), Err(NoReply::Sender));
        }
        let mut group = udp_v4(1000);
        group[16] = 224;
        assert_eq!(answer(&group, 500), Err(NoReply::Sender));
        let mut odd = udp_v6(1000);
        odd[8..24].fill(0);
        assert_eq!(answer(&odd, 500), Err(NoReply::Sender));
        assert_eq!(answer(&[], 500), Err(NoReply::Malformed));
    }

    #[test]
    fn icmpv6_errors_are_seen_behind_extension_headers() {
        let mut packet = udp_v6(1300);
        // Hop-by-hop, then fragment, then ICMPv6 of type 1.
        packet[6] = 0;
        packet[40..48].copy_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
        packet[48..56].copy_from_slice(&[58, 0, 0, 1, 0, 0, 0, 9]);
        packet[56] = 1;
        assert_eq!(answer(&packet, 1280), Err(NoReply::IcmpError));
        packet[56] = 128;
        assert!(answer(&packet, 1280).is_ok());
        packet[51] = 0x09;
        assert_eq!(answer(&packet, 1280), Err(NoReply::LaterFragment));
    }

    proptest! {
        #[test]
        fn arbitrary_octets_do_not_upset_it(mut packet in proptest::collection::vec(any::<u8>(), 0..200), six: bool, mtu: u16) {
            if let Some(first) = packet.first_mut() {
                *first = *first & 0x0f | if six { 0x60 } else { 0x40 };
            }
            let _ = answer(&packet, mtu);
        }
    }
}
