//! Cutting against etherparse; and what is put together is cut into the same packets again.

use super::coalesce::Coalescer;
use super::segment::{Segments, complete};
use super::*;
use crate::headers::{checksum, seal_ipv4_header};
use crate::packet::Packet;
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a packet of these tests is made of.
#[derive(Clone, Debug)]
struct Make {
    v4: bool,
    tcp: bool,
    /// Conversation.
    port: u8,
    sequence: u32,
    flags: u8,
    id: u16,
    dont_fragment: bool,
    options: u8,
    payload: Vec<u8>,
}

impl Make {
    fn packet(&self) -> Vec<u8> {
        let mut upper = vec![0x10, self.port, 0x20, 0x01];
        if self.tcp {
            upper.extend(self.sequence.to_be_bytes());
            upper.extend([0, 0, 0, 9, (5 + self.options % 3) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
            upper.extend(vec![1; 4 * usize::from(self.options % 3)]);
        } else {
            upper.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            upper.extend([0, 0]);
        }
        upper.extend(&self.payload);
        let protocol = if self.tcp { protocol::TCP } else { protocol::UDP };
        let mut packet = if self.v4 {
            let flags = if self.dont_fragment { 0x40 } else { 0 };
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, flags, 0, 60, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            ip[2..4].copy_from_slice(&((20 + upper.len()) as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&self.id.to_be_bytes());
            seal_ipv4_header(&mut ip);
            ip
        } else {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 60];
            ip[4..6].copy_from_slice(&(upper.len() as u16).to_be_bytes());
            ip.extend([0xfd; 15]);
            ip.push(1);
            ip.extend([0xfd; 15]);
            ip.push(2);
            ip
        };
        let at = packet.len() + checksum_offset(protocol);
        let pseudo = pseudo_header(&packet, protocol, upper.len());
        let sum = match !add(&[pseudo, sum(&upper)]) {
            0 if !self.tcp => 0xffff,
            sum => sum,
        };
        packet.extend(upper);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn kind(&self) -> Kind {
        match (self.tcp, self.v4) {
            (false, _) => Kind::Udp,
            (true, true) => Kind::Tcp4,
            (true, false) => Kind::Tcp6,
        }
    }
}

fn make(payload: impl Strategy<Value = usize>) -> impl Strategy<Value = Make> {
    let one = (any::<(bool, bool, bool, u32, u16, u8, u8)>(), 0..3u8, payload);
    one.prop_map(|((v4, tcp, dont_fragment, sequence, id, options, fill), port, len)| Make {
        v4,
        tcp,
        port,
        sequence,
        flags: ACK,
        id,
        dont_fragment,
        options,
        payload: (0..len).map(|at| (at as u8).wrapping_mul(7) ^ fill).collect(),
    })
}

const ACK: u8 = 0x10;

fn cut(packet: &[u8], kind: Kind, size: u16) -> Result<Vec<Vec<u8>>, segment::Mismatch> {
    let mut segments = Segments::new(packet, kind, size)?;
    let mut buffer = Packet::new();
    Ok(std::iter::from_fn(|| segments.next_into(&mut buffer).then(|| buffer.as_slice().to_vec())).collect())
}

fn assert_checksums(packet: &[u8]) {
    let parsed = PacketHeaders::from_ip_slice(packet).unwrap();
    let payload = parsed.payload.slice();
    match (parsed.net.unwrap(), parsed.transport.unwrap()) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), packet.len());
            match transport {
                TransportHeader::Tcp(t) => assert_eq!(t.checksum, t.calc_checksum_ipv4(&ip, payload).unwrap()),
                TransportHeader::Udp(u) => assert_eq!(u.checksum, u.calc_checksum_ipv4(&ip, payload).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        (NetHeaders::Ipv6(ip, _), transport) => {
            assert_eq!(usize::from(ip.payload_length) + 40, packet.len());
            match transport {
                TransportHeader::Tcp(t) => assert_eq!(t.checksum, t.calc_checksum_ipv6(&ip, payload).unwrap()),
                TransportHeader::Udp(u) => assert_eq!(u.checksum, u.calc_checksum_ipv6(&ip, payload).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn the_sum_is_the_checksum_of_the_rfc(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(!sum(&octets), checksum(&[&octets]));
    }

    #[test]
    fn a_header_survives(octets: [u8; VIRTIO_HEADER]) {
        if let Some(header) = VirtioHeader::decode(&octets) {
            prop_assert_eq!(VirtioHeader::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn segments_are_packets_that_make_the_whole(make in make(1..20_000usize), size in 1..1500u16, flags: u8) {
        let make = Make { flags: if make.tcp { flags } else { 0 }, ..make };
        let whole = make.packet();
        let segments = cut(&whole, make.kind(), size).unwrap();
        prop_assert_eq!(segments.len(), make.payload.len().div_ceil(usize::from(size)));
        let mut payload = Vec::new();
        for (n, segment) in segments.iter().enumerate() {
            assert_checksums(segment);
            let parsed = PacketHeaders::from_ip_slice(segment).unwrap();
            if let Some(TransportHeader::Tcp(tcp)) = parsed.transport {
                prop_assert_eq!(tcp.sequence_number, make.sequence.wrapping_add(payload.len() as u32));
                let (first, last) = (n == 0, n + 1 == segments.len());
                prop_assert_eq!((tcp.fin, tcp.psh), (last && flags & 1 != 0, last && flags & 8 != 0));
                prop_assert_eq!(tcp.cwr, first && flags & 0x80 != 0);
                prop_assert_eq!((tcp.syn, tcp.rst, tcp.urg, tcp.ece), (flags & 2 != 0, flags & 4 != 0, flags & 0x20 != 0, flags & 0x40 != 0));
            }
            if let Some(NetHeaders::Ipv4(ip, _)) = parsed.net {
                prop_assert_eq!(ip.identification, make.id.wrapping_add(n as u16));
            }
            payload.extend_from_slice(parsed.payload.slice());
        }
        prop_assert_eq!(payload, make.payload);
    }

    #[test]
    fn what_is_no_super_packet_is_refused(octets in proptest::collection::vec(any::<u8>(), 0..200), size: u16, version in 4..7u8) {
        let mut octets = octets;
        if let Some(first) = octets.first_mut() {
            *first = version << 4 | *first & 0xf;
        }
        for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Udp] {
            let _ = cut(&octets, kind, size);
        }
        for (start, offset) in [(0, 0), (size, 16), (20, size), (u16::MAX, u16::MAX)] {
            let _ = complete(VirtioHeader { checksum: Some((start, offset)), ..VirtioHeader::default() }, &mut octets);
        }
    }

    #[test]
    fn a_checksum_is_completed(make in make(0..300usize)) {
        let whole = make.packet();
        let ip = if make.v4 { 20 } else { 40 };
        let protocol = if make.tcp { protocol::TCP } else { protocol::UDP };
        let offset = checksum_offset(protocol);
        let mut partial = whole.clone();
        let pseudo = pseudo_header(&whole, protocol, whole.len() - ip);
        partial[ip + offset..][..2].copy_from_slice(&pseudo.to_be_bytes());
        let header = VirtioHeader { checksum: Some((ip as u16, offset as u16)), ..VirtioHeader::default() };
        complete(header, &mut partial).unwrap();
        prop_assert_eq!(partial, whole);
    }

    #[test]
    fn what_is_put_together_is_cut_into_the_same(pieces in proptest::collection::vec(piece(), 1..40), udp: bool) {
        let list = arrivals(pieces);
        let packets: Vec<Packet> = list.iter().map(|octets| {
            let mut packet = Packet::new();
            assert!(packet.copy_from(octets));
            packet
        }).collect();
        let mut coalescer = Coalescer::default();
        coalescer.plan(&packets, true, udp);
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut seen = 0;
        for (whole, places) in coalescer.groups(&packets) {
            seen += places.clone().count();
            let octets: Vec<u8> = whole.headers.as_slice().iter().copied()
                .chain(places.clone().flat_map(|at| packets[at].as_slice()[whole.skip..].to_vec())).collect();
            match whole.header.segments {
                None => {
                    prop_assert_eq!(places.count(), 1);
                    out.push(octets);
                }
                Some((kind, size)) => {
                    prop_assert!(udp || kind != Kind::Udp);
                    prop_assert!(octets.len() <= 65_535);
                    // The kernel would complete the sum that the header says.
                    let mut completed = octets.clone();
                    complete(whole.header, &mut completed).unwrap();
                    assert_checksums(&completed);
                    out.extend(cut(&octets, kind, size).unwrap());
                }
            }
        }
        prop_assert_eq!(seen, packets.len());
        prop_assert_eq!(by_conversation(&list), by_conversation(&out));
    }
}

/// A run of packets of one conversation, as they might arrive.
#[derive(Clone, Debug)]
enum Piece {
    /// A super-packet, cut.
    Run(Make, u16),
    /// A packet by itself, with these TCP flags.
    One(Make, u8),
    /// With a wrong checksum.
    Broken(Make),
    /// Repeats what came before it.
    Again,
    /// A fragment.
    Fragment(Make),
}

fn piece() -> impl Strategy<Value = Piece> {
    let run =
        || (make(1..6000usize), prop_oneof![Just(1400u16), Just(64), 1..1400u16]).prop_map(|(m, s)| Piece::Run(m, s));
    prop_oneof![
        4 => run(),
        2 => (make(0..100usize), any::<u8>()).prop_map(|(m, f)| Piece::One(m, f)),
        1 => make(1..100usize).prop_map(Piece::Broken),
        1 => Just(Piece::Again),
        1 => make(8..100usize).prop_map(Piece::Fragment),
    ]
}

/// The packets of all pieces; TCP runs of a conversation go on where the last one ended.
fn arrivals(pieces: Vec<Piece>) -> Vec<Vec<u8>> {
    let mut next: BTreeMap<(bool, u8), u32> = BTreeMap::new();
    let mut list: Vec<Vec<u8>> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Run(mut make, size) => {
                let next = next.entry((make.v4, make.port)).or_default();
                (make.sequence, make.options, make.dont_fragment) = (*next, make.port, true);
                *next = next.wrapping_add(make.payload.len() as u32);
                list.extend(cut(&make.packet(), make.kind(), size).unwrap());
            }
            Piece::One(make, flags) => list.push(Make { flags, ..make }.packet()),
            Piece::Broken(make) => {
                let mut packet = make.packet();
                if let Some(last) = packet.last_mut() {
                    *last ^= 1;
                }
                list.push(packet);
            }
            Piece::Again => list.extend(list.last().cloned()),
            Piece::Fragment(make) if make.v4 => {
                let mut packet = make.packet();
                packet[6] = 0x20;
                seal_ipv4_header(&mut packet[..20]);
                list.push(packet);
            }
            Piece::Fragment(_) => {}
        }
    }
    list
}

/// The packets of each conversation in their order, without identifications that mean nothing.
fn by_conversation(list: &[Vec<u8>]) -> BTreeMap<(u8, Vec<u8>), Vec<Vec<u8>>> {
    let mut conversations: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in list {
        let mut packet = packet.clone();
        let (v4, protocol) = (packet[0] == 0x45, if packet[0] == 0x45 { packet[9] } else { packet[6] });
        let ports = if v4 { packet[20..24].to_vec() } else { packet[40..44].to_vec() };
        if v4 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            seal_ipv4_header(&mut packet[..20]);
        }
        conversations.entry((protocol, [ports, vec![packet[0]]].concat())).or_default().push(packet);
    }
    conversations
}

#[test]
fn a_cut_stream_is_put_together_again_and_nothing_else() {
    let whole = Make {
        v4: true,
        tcp: true,
        port: 1,
        sequence: u32::MAX - 5000,
        flags: ACK | 8,
        id: 7,
        dont_fragment: false,
        options: 2,
        payload: vec![3; 20_000],
    };
    let segments = cut(&whole.packet(), Kind::Tcp4, 1400).unwrap();
    assert_eq!(segments.len(), 15);
    let planned = |list: &[Vec<u8>]| {
        let packets: Vec<Packet> = list
            .iter()
            .map(|octets| {
                let mut packet = Packet::new();
                packet.copy_from(octets);
                packet
            })
            .collect();
        let mut coalescer = Coalescer::default();
        coalescer.plan(&packets, true, true);
        coalescer.groups(&packets).map(|(_, places)| places.count()).collect::<Vec<_>>()
    };
    assert_eq!(planned(&segments), [15]);
    // Out of order, a gap, a pure acknowledgement in between.
    let mut swapped = segments.clone();
    swapped.swap(5, 6);
    assert_eq!(planned(&swapped), [5, 1, 1, 8]);
    let mut gap = segments.clone();
    gap.remove(7);
    assert_eq!(planned(&gap), [7, 7]);
    let mut acknowledged = segments.clone();
    acknowledged.insert(4, Make { payload: Vec::new(), ..whole.clone() }.packet());
    assert_eq!(planned(&acknowledged), [4, 1, 11]);
    // Another class of traffic.
    let mut marked = segments.clone();
    marked[3][1] = 3;
    seal_ipv4_header(&mut marked[3][..20]);
    assert_eq!(planned(&marked), [3, 1, 11]);
    // Another conversation in between holds nobody up.
    let mut two = segments;
    two.insert(4, Make { port: 2, ..whole }.packet()[..].to_vec());
    assert_eq!(planned(&two), [15, 1]);
}
