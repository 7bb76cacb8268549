use super::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;

/// What etherparse makes of a packet: the tuple, and whether it is a fragment.
/// `None` where it refuses the packet, or looks deeper than we do (into AH), or
/// takes an IPv6 payload length of 0 for "as much as there is".
fn by_etherparse(packet: &[u8]) -> Option<(FiveTuple, bool)> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (source, destination, payload) = match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) if ip.extensions().is_empty() => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().clone())
        }
        NetSlice::Ipv6(ip) if !has_ah(ip) && ip.header().payload_length() != 0 => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().clone())
        }
        _ => return None,
    };
    let pair = |source, destination| Ports::Pair { source, destination };
    let ports = match sliced.transport {
        Some(TransportSlice::Tcp(t)) => pair(t.source_port(), t.destination_port()),
        Some(TransportSlice::Udp(t)) => pair(t.source_port(), t.destination_port()),
        Some(TransportSlice::Icmpv4(t)) => Ports::Icmp { kind: t.type_u8(), code: t.code_u8() },
        Some(TransportSlice::Icmpv6(t)) => Ports::Icmp { kind: t.type_u8(), code: t.code_u8() },
        Some(TransportSlice::Igmp(_)) | None => Ports::None,
    };
    let (protocol, interface) = (payload.ip_number.0, Attachment::TUN);
    Some((FiveTuple { source, destination, protocol, ports, interface }, payload.fragmented))
}

fn has_ah(ip: &etherparse::Ipv6Slice<'_>) -> bool {
    ip.extensions().clone().into_iter().any(|e| matches!(e, etherparse::Ipv6ExtensionSlice::Authentication(_)))
}

/// A transport header etherparse accepts, or arbitrary octets.
fn payload() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let tcp = any::<[u8; 20]>().prop_map(|mut h| {
        h[12] = 0x50;
        (protocol::TCP, h.to_vec())
    });
    let udp = any::<[u8; 4]>().prop_map(|p| (protocol::UDP, [&p[..], &[0, 8, 0, 0]].concat()));
    let icmp4 = any::<[u8; 8]>().prop_map(|h| (protocol::ICMP, h.to_vec()));
    let icmp6 = any::<[u8; 8]>().prop_map(|h| (protocol::ICMPV6, h.to_vec()));
    let other = (any::<u8>(), vec(any::<u8>(), 0..40));
    prop_oneof![tcp, udp, icmp4, icmp6, other]
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![4 => Just(0u16), 2 => Just(0x4000), 1 => Just(0x2000), 1 => 1u16..0x2000];
    (any::<[u8; 8]>(), any::<u8>(), fragment, vec(any::<[u8; 4]>(), 0..=10), payload()).prop_map(
        |(addresses, tos, fragment, options, (protocol, payload))| {
            let header_len = IPV4_HEADER + 4 * options.len();
            let mut p = vec![0x40 | (header_len / 4) as u8, tos];
            p.extend(((header_len + payload.len()) as u16).to_be_bytes());
            p.extend([0, 1]);
            p.extend(fragment.to_be_bytes());
            p.extend([64, protocol, 0, 0]);
            p.extend(addresses);
            p.extend(options.concat());
            seal_ipv4_header(&mut p);
            p.extend(payload);
            p
        },
    )
}

fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        Just(protocol::HOP_BY_HOP),
        Just(protocol::ROUTING),
        Just(protocol::DESTINATION_OPTIONS),
        Just(protocol::FRAGMENT)
    ];
    let field = prop_oneof![3 => Just(0u16), 1 => Just(1u16), 1 => any::<u16>()];
    let chain = vec((kind, 0u8..3, field), 0..5);
    (any::<[u8; 32]>(), any::<u8>(), chain, payload()).prop_map(|(addresses, class, chain, (protocol, payload))| {
        let mut following = chain.iter().map(|c| c.0).chain([protocol]);
        let first = following.next().unwrap_or(protocol);
        let mut body = Vec::new();
        for ((kind, len, field), next) in chain.iter().zip(following) {
            if *kind == protocol::FRAGMENT {
                body.extend([next, 0]);
                body.extend(field.to_be_bytes());
                body.extend([0, 0, 0, 7]);
            } else {
                body.extend([next, *len]);
                body.resize(body.len() + 6 + 8 * usize::from(*len), 0);
            }
        }
        body.extend(payload);
        let mut p = vec![0x60 | class >> 4, class << 4, 0, 0];
        p.extend((body.len() as u16).to_be_bytes());
        p.extend([first, 64]);
        p.extend(addresses);
        p.extend(body);
        p
    })
}

/// Some well made, some cut short or with octets changed.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let made = prop_oneof![ipv4(), ipv6()];
    let change = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (made, change, prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)]).prop_map(
        |(mut p, changes, cut)| {
            for (at, to) in changes {
                let at = at.index(p.len());
                p[at] = to;
            }
            if let Some(cut) = cut {
                p.truncate(cut.index(p.len()));
            }
            p
        },
    )
}

fn agrees(packet: &[u8]) -> Result<(), TestCaseError> {
    let ours = Headers::parse(packet);
    if let Ok(h) = ours {
        prop_assert!(h.header_len <= h.total_len && h.total_len <= packet.len());
    }
    let Some((theirs, fragmented)) = by_etherparse(packet) else { return Ok(()) };
    match ours {
        Ok(h) => {
            prop_assert_eq!((h.tuple.source, h.tuple.destination), (theirs.source, theirs.destination));
            prop_assert_eq!(h.fragment != Fragment::Whole, fragmented);
            // etherparse goes on reading headers in what is not a first fragment.
            if h.fragment != Fragment::Later || h.is_ipv4() {
                prop_assert_eq!(h.tuple.protocol, theirs.protocol);
            }
            // It does not look at ports in any fragment, nor know as many protocols.
            if !fragmented && theirs.ports != Ports::None {
                prop_assert_eq!(h.tuple.ports, theirs.ports);
            }
        }
        // Stricter than etherparse only where the ports are missing or hidden.
        Err(HeaderError::HiddenProtocol) => prop_assert!(fragmented),
        Err(HeaderError::Truncated) => prop_assert_eq!(theirs.ports, Ports::None),
        Err(e) => prop_assert!(false, "refused ({}) what etherparse reads as {}", e, theirs),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_etherparse(packet in packets()) {
        agrees(&packet)?;
    }

    #[test]
    fn arbitrary_octets_never_panic(mut packet in vec(any::<u8>(), 0..120), version in prop_oneof![Just(4u8), Just(6), any::<u8>()]) {
        if let Some(first) = packet.first_mut() {
            *first = version << 4 | (*first & 0xf);
        }
        agrees(&packet)?;
    }

    #[test]
    fn octets_behind_the_packet_change_nothing(packet in prop_oneof![ipv4(), ipv6()], more in vec(any::<u8>(), 1..60)) {
        let longer = [&packet[..], &more].concat();
        prop_assert_eq!(Headers::parse(&packet), Headers::parse(&longer));
    }

    #[test]
    fn checksum_agrees_with_etherparse(header in vec(any::<u8>(), 6..100)) {
        let theirs = etherparse::checksum::Sum16BitWords::new().add_slice(&header).ones_complement();
        prop_assert_eq!(checksum(&[&header]), theirs.to_be());
        prop_assert_eq!(checksum(&[&header[..6], &header[6..]]), theirs.to_be());
    }
}

fn udp4(fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45, 0xb8, 0, (20 + payload.len()) as u8, 0, 1, 0, 0, 64, protocol::UDP, 0, 0];
    p[6..8].copy_from_slice(&fragment.to_be_bytes());
    p.extend([10, 1, 1, 1, 10, 2, 2, 2]);
    p.extend(payload);
    p
}

#[test]
fn fields_of_ipv4() {
    let h = Headers::parse(&udp4(0x4000, &[4, 0, 0, 80, 0, 8, 0, 0])).unwrap();
    assert_eq!(h.tuple.to_string(), "17 10.1.1.1:1024 > 10.2.2.2:80");
    assert_eq!((h.traffic_class, h.dont_fragment, h.total_len, h.header_len), (0xb8, true, 28, 20));
}

#[test]
fn fragments_of_ipv4() {
    let first = Headers::parse(&udp4(0x2000, &[4, 0, 0, 80])).unwrap();
    assert_eq!((first.fragment, first.tuple.ports), (Fragment::First, Ports::Pair { source: 1024, destination: 80 }));
    let later = Headers::parse(&udp4(0x2001, &[4, 0, 0, 80])).unwrap();
    assert_eq!((later.fragment, later.tuple.ports), (Fragment::Later, Ports::Opaque));
    let last = Headers::parse(&udp4(3, &[])).unwrap();
    assert_eq!((last.fragment, last.tuple.ports), (Fragment::Later, Ports::Opaque));
    // A tiny first fragment would pass for one without ports.
    assert_eq!(Headers::parse(&udp4(0x2000, &[4, 0, 0])), Err(HeaderError::Truncated));
}

fn ipv6_of(first: u8, body: &[u8]) -> Vec<u8> {
    let mut p = vec![0x6b, 0x80, 0, 0, 0, body.len() as u8, first, 64];
    p.extend([0; 15]);
    p.push(1);
    p.extend([0; 15]);
    p.push(2);
    p.extend(body);
    p
}

#[test]
fn extension_headers_are_walked() {
    let mut body = vec![protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0];
    body.extend([protocol::ICMPV6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    body.extend([128, 0, 0, 0]);
    let h = Headers::parse(&ipv6_of(protocol::HOP_BY_HOP, &body)).unwrap();
    assert_eq!((h.tuple.protocol, h.tuple.ports), (protocol::ICMPV6, Ports::Icmp { kind: 128, code: 0 }));
    assert_eq!((h.header_len, h.traffic_class, h.dont_fragment), (64, 0xb8, true));
}

#[test]
fn protected_packets_have_no_ports() {
    for p in [protocol::AH, protocol::ESP] {
        let h = Headers::parse(&ipv6_of(p, &[0; 16])).unwrap();
        assert_eq!((h.tuple.protocol, h.tuple.ports), (p, Ports::None));
    }
}

#[test]
fn fragments_of_ipv6() {
    let atomic = Headers::parse(&ipv6_of(44, &[17, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 2])).unwrap();
    assert_eq!((atomic.fragment, atomic.tuple.ports), (Fragment::Whole, Ports::Pair { source: 1, destination: 2 }));
    let later = Headers::parse(&ipv6_of(44, &[17, 0, 0, 9, 0, 0, 0, 9, 0, 1, 0, 2])).unwrap();
    assert_eq!((later.fragment, later.tuple.ports), (Fragment::Later, Ports::Opaque));
    let hidden = ipv6_of(44, &[60, 0, 0, 9, 0, 0, 0, 9, 0, 1, 0, 2]);
    assert_eq!(Headers::parse(&hidden), Err(HeaderError::HiddenProtocol));
    // RFC 7112: the first fragment must hold the whole chain.
    let split = ipv6_of(44, &[60, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(Headers::parse(&split), Err(HeaderError::Truncated));
}

#[test]
fn too_long_a_chain_is_refused() {
    let chain = |n: usize| {
        let mut body = [protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(n - 1);
        body.extend([protocol::NO_NEXT_HEADER, 0, 0, 0, 0, 0, 0, 0]);
        ipv6_of(protocol::DESTINATION_OPTIONS, &body)
    };
    assert!(Headers::parse(&chain(16)).is_ok());
    assert_eq!(Headers::parse(&chain(17)), Err(HeaderError::TooManyExtensionHeaders));
}

#[test]
fn an_ipv6_payload_length_of_zero_is_no_payload() {
    let mut packet = ipv6_of(protocol::TCP, &[0; 20]);
    packet[5] = 0;
    assert_eq!(Headers::parse(&packet), Err(HeaderError::Truncated));
    packet[6] = protocol::NO_NEXT_HEADER;
    assert_eq!(Headers::parse(&packet).map(|h| (h.total_len, h.tuple.ports)), Ok((40, Ports::None)));
}

#[test]
fn impossible_lengths() {
    let good = udp4(0, &[4, 0, 0, 80]);
    let with = |at: usize, to: u8| {
        let mut p = good.clone();
        p[at] = to;
        Headers::parse(&p)
    };
    assert_eq!(with(0, 0x44), Err(HeaderError::Length));
    assert_eq!(with(3, 19), Err(HeaderError::Length));
    assert_eq!(with(3, 25), Err(HeaderError::Truncated));
    assert_eq!(with(0, 0x55), Err(HeaderError::Version(5)));
    assert_eq!(Headers::parse(&[]), Err(HeaderError::Truncated));
}
