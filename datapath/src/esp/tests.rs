use super::inbound::{authenticate, check, commit};
use super::outbound::{Inner, Sealed, seal};
use super::transport::Outer;
use super::*;
use crate::headers::{Headers, protocol};
use crate::sa::{InboundSa, OutboundSa};
use crate::testing::{Agreement, all_suites, suite, suites, udp_packet};
use crypto::packet::SealJob;
use policy::config::DfPolicy;
use policy::counters::DropReason;
use policy::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) fn inner(octets: &[u8]) -> Inner {
    let h = Headers::parse(octets).unwrap();
    let mut packet = Packet::new();
    assert!(packet.copy_from(octets));
    Inner {
        packet,
        ipv4: h.is_ipv4(),
        traffic_class: h.traffic_class,
        dont_fragment: h.dont_fragment,
        outer_fragments: false,
    }
}

fn seal_all(sa: &Arc<OutboundSa>, packets: &[Vec<u8>]) -> Vec<Sealed> {
    let mut batch = packets.iter().map(|p| inner(p)).collect();
    let mut sealed = Vec::new();
    let mut dropped = |_, reason| panic!("dropped: {reason}");
    seal(sa, &mut batch, DfPolicy::Copy, Timestamp::default(), &mut sealed, &mut dropped, &mut |_| {});
    sealed
}

/// Protects one packet.
pub(crate) fn seal_inner(sa: &Arc<OutboundSa>, inner: Inner) -> Packet {
    let (mut batch, mut sealed) = (vec![inner], Vec::new());
    let mut dropped = |_, reason| panic!("dropped: {reason}");
    seal(sa, &mut batch, DfPolicy::Copy, Timestamp::default(), &mut sealed, &mut dropped, &mut |_| {});
    sealed.remove(0).packet
}

/// One packet's fate.
pub(crate) fn open_one(sa: &InboundSa, packet: Packet) -> Result<Vec<u8>, DropReason> {
    open_all(sa, [(packet, seen(0))]).remove(0)
}

/// Every packet's fate, delivered ones first.
fn open_all(sa: &InboundSa, packets: impl IntoIterator<Item = (Packet, Outer)>) -> Vec<Result<Vec<u8>, DropReason>> {
    let (mut candidates, mut authenticated, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    let mut refused = Vec::new();
    let mut dropped = |_, reason| refused.push(Err(reason));
    let from = SocketAddr::new(sa.spec().remote, 0);
    let packets = packets.into_iter().map(|(packet, outer)| (packet, outer, from));
    check(sa, packets, &mut candidates, &mut dropped);
    authenticate(sa, &mut candidates, &mut authenticated, &mut dropped);
    let _ = commit(sa, &mut authenticated, &mut fresh, &mut dropped);
    let mut fates: Vec<_> = fresh
        .into_iter()
        .map(|f| f.into_inner(sa).map(|(p, _)| p.as_slice().to_vec()).map_err(|(_, reason)| reason))
        .collect();
    fates.extend(refused);
    fates
}

fn seen(traffic_class: u8) -> Outer {
    Outer { traffic_class, hop_limit: 64 }
}

fn copy(packet: &Packet) -> Packet {
    let mut copy = Packet::new();
    copy.copy_from(packet.as_slice());
    copy
}

fn classes(sealed: Vec<Sealed>) -> impl Iterator<Item = (Packet, Outer)> {
    sealed.into_iter().map(|s| (s.packet, seen(s.outer.traffic_class)))
}

#[test]
fn every_suite_carries_both_families() {
    for suite in all_suites() {
        for (inner_ipv4, esn) in [(true, false), (false, false), (true, true)] {
            let [(_, near), (far, _)] = Agreement { inner_ipv4, esn, ..Agreement::new(suite) }.sas();
            let packets: Vec<_> = (48..110).chain([1400, 9000]).map(|len| udp_packet(inner_ipv4, len)).collect();
            let sealed = seal_all(&near, &packets);
            assert!(sealed.iter().all(|s| spi(&s.packet) == Some(near.spec().spi)), "{suite}");
            let delivered: Vec<_> = open_all(&far, classes(sealed)).into_iter().map(Result::unwrap).collect();
            assert_eq!(delivered, packets, "{suite} esn {esn}");
        }
    }
}

#[test]
fn extended_sequence_numbers_go_over_the_border_with_losses() {
    const BORDER: u64 = 1 << 32;
    for suite in all_suites() {
        let agreement = Agreement { esn: true, ..Agreement::new(suite) };
        let [(_, near), (far, _)] = agreement.sas();
        let [_, (short, _)] = Agreement { esn: false, ..agreement }.sas();
        let packet = || [udp_packet(true, 60)];
        // The receiver has to be led there: a leap of more than half the numbers is an old packet.
        for sequence in [1, BORDER / 2, BORDER - 10] {
            near.set_sequence(sequence - 1);
            assert!(open_all(&far, classes(seal_all(&near, &packet())))[0].is_ok(), "{suite} {sequence:#x}");
        }
        let mut sealed: Vec<_> = (0..20).flat_map(|_| seal_all(&near, &packet())).map(|s| Some(s.packet)).collect();
        assert_eq!(near.sequence(), BORDER + 10);
        let send = |n: usize| open_all(&far, [(copy(sealed[n].as_ref().unwrap()), seen(0))]).remove(0);
        // BORDER - 9 arrives; those up to BORDER + 3 are lost or late.
        assert!(send(0).is_ok() && send(12).is_ok(), "{suite}");
        assert_eq!(far.window().top(), BORDER + 3, "{suite}");
        assert!(send(8).is_ok() && send(9).is_ok(), "{suite}: the late ones of either side");
        assert_eq!([send(8), send(9), send(12)], [const { Err(DropReason::Replayed) }; 3], "{suite}");
        assert!(send(19).is_ok());
        // The high half is not in the packet but in the ICV.
        let old = sealed[19].take().unwrap();
        assert_eq!(open_all(&short, [(old, seen(0))]), [Err(DropReason::AuthenticationFailed)], "{suite}");
    }
}

#[test]
fn lengths_on_the_wire_are_those_of_the_mtu_computation() {
    for suite in all_suites() {
        let [(_, near), _] = Agreement::new(suite).sas();
        let longest = usize::from(near.inner_mtu());
        let sealed = seal_all(&near, &[udp_packet(true, longest), udp_packet(true, longest + 1)]);
        let outer: Vec<_> = sealed.iter().map(|s| 20 + s.packet.len()).collect();
        assert!(outer[0] <= 1500 && outer[1] > 1500, "{suite}: {outer:?}");
    }
}

/// Protects arbitrary octets as a payload whose trailer is already there.
fn forge(sa: &OutboundSa, sequence: u64, payload: &[u8]) -> Packet {
    let suite = sa.suite();
    let mut octets = sa.spec().spi.to_be_bytes().to_vec();
    octets.extend((sequence as u32).to_be_bytes());
    octets.resize(8 + suite.encryption.iv_len, 0);
    octets.extend(payload);
    octets.resize(octets.len() + suite.icv_len(), 0);
    sa.sealer().seal(&mut [SealJob { packet: &mut octets, sequence }]);
    let mut packet = Packet::new();
    packet.copy_from(&octets);
    packet
}

/// `inner`, padded to whole blocks of 16 with `padding` extra blocks, and the trailer.
fn with_trailer(inner: &[u8], next_header: u8) -> Vec<u8> {
    let padding = (inner.len() + 2).next_multiple_of(16) - inner.len() - 2;
    let mut payload = inner.to_vec();
    payload.extend(1..=padding as u8);
    payload.extend([padding as u8, next_header]);
    payload
}

#[test]
fn an_authentic_packet_with_a_bad_inside_is_refused_by_its_name() {
    let [(_, near), (far, _)] = Agreement::new(suite("aes128-sha1")).sas();
    let v4 = udp_packet(true, 60);
    let mut sequence = 0;
    let mut fate = |payload: &[u8]| {
        sequence += 1;
        open_all(&far, [(forge(&near, sequence, payload), seen(0))]).remove(0)
    };
    assert_eq!(fate(&with_trailer(&v4, protocol::IPV4)), Ok(v4.clone()));

    let good = with_trailer(&v4, protocol::IPV4);
    let mut bad = good.clone();
    let last_pad = bad.len() - 3;
    bad[last_pad] ^= 1;
    assert_eq!(fate(&bad), Err(DropReason::BadPadding));
    let mut bad = good.clone();
    let pad_length = bad.len() - 2;
    bad[pad_length] = 255;
    assert_eq!(fate(&bad), Err(DropReason::BadPadding));

    assert_eq!(fate(&with_trailer(&[], protocol::NO_NEXT_HEADER)), Err(DropReason::DummyPacket));
    assert_eq!(fate(&with_trailer(&v4, protocol::NO_NEXT_HEADER)), Err(DropReason::DummyPacket));
    assert_eq!(fate(&with_trailer(&v4, protocol::UDP)), Err(DropReason::BadNextHeader));
    assert_eq!(fate(&with_trailer(&v4, protocol::IPV6)), Err(DropReason::BadNextHeader));
    assert_eq!(fate(&with_trailer(&v4[..30], protocol::IPV4)), Err(DropReason::Malformed));
    assert_eq!(fate(&with_trailer(&[], protocol::IPV4)), Err(DropReason::Malformed));

    let stranger = etherparse::PacketBuilder::ipv4([10, 9, 0, 1], crate::testing::REMOTE_V4, 64);
    let mut packet = Vec::new();
    stranger.udp(1, 2).write(&mut packet, &[]).unwrap();
    assert_eq!(fate(&with_trailer(&packet, protocol::IPV4)), Err(DropReason::SelectorMismatch));

    // Right for the way out, wrong for the way in.
    let mut reversed = v4.clone();
    reversed[12..20].rotate_left(4);
    assert_eq!(fate(&with_trailer(&reversed, protocol::IPV4)), Err(DropReason::SelectorMismatch));
}

#[test]
fn a_forged_sequence_number_of_zero_is_refused() {
    let [(_, near), (far, _)] = Agreement::new(suite("aes128gcm16")).sas();
    let mut sealed = seal_all(&near, &[udp_packet(true, 100)]);
    sealed[0].packet.as_mut_slice()[7] ^= 1;
    assert_eq!(open_all(&far, classes(sealed)), [Err(DropReason::Replayed)]);
}

#[test]
fn traffic_flow_confidentiality_padding_is_removed() {
    let [(_, near), (far, _)] = Agreement::new(suite("aes128gcm16")).sas();
    let v4 = udp_packet(true, 60);
    let padded = [&v4[..], &[0xaa; 300]].concat();
    assert_eq!(open_all(&far, [(forge(&near, 1, &with_trailer(&padded, 4)), seen(0))]), [Ok(v4)]);
}

#[test]
fn congestion_outside_is_told_inside_or_the_packet_dropped() {
    let [(_, near), (far, _)] = Agreement::new(suite("aes128gcm16")).sas();
    let mut capable = udp_packet(true, 60);
    let headers = Headers::parse(&capable).unwrap();
    crate::outer::set_traffic_class(&mut capable, &headers, 0xb8 | 2);
    let mut sealed = seal_all(&near, &[capable, udp_packet(true, 60)]);
    assert_eq!(sealed[0].outer.traffic_class, 0xb8 | 2);
    let (incapable, capable) = (sealed.pop().unwrap(), sealed.pop().unwrap());
    let marked = open_all(&far, [(capable.packet, seen(3))]).remove(0).unwrap();
    assert_eq!(Headers::parse(&marked).unwrap().traffic_class, 0xb8 | 3);
    assert_eq!(open_all(&far, [(incapable.packet, seen(3))]), [Err(DropReason::EcnIllegal)]);
}

#[test]
fn df_follows_the_policy() {
    let [(_, sa), _] = Agreement::new(suite("aes128gcm16")).sas();
    let outer = |policy, dont_fragment, outer_fragments| {
        let mut batch = vec![Inner { dont_fragment, outer_fragments, ..inner(&udp_packet(true, 60)) }];
        let mut sealed = Vec::new();
        seal(&sa, &mut batch, policy, Timestamp::default(), &mut sealed, &mut |_, _| {}, &mut |_| {});
        sealed[0].outer.dont_fragment
    };
    assert!(outer(DfPolicy::Copy, true, false) && !outer(DfPolicy::Copy, false, false));
    assert!(outer(DfPolicy::Set, false, false) && !outer(DfPolicy::Clear, true, false));
    assert!(!outer(DfPolicy::Set, true, true));
}

#[test]
fn limits_end_a_batch_where_they_are_reached() {
    let agreement = Agreement { kbytes: 1, ..Agreement::new(suite("aes128gcm16")) };
    let [(_, sa), _] = agreement.sas();
    let mut batch: Vec<_> = (0..12).map(|_| inner(&udp_packet(true, 100))).collect();
    let (mut sealed, mut dropped) = (Vec::new(), Vec::new());
    sa.set_sequence(u64::from(u32::MAX) - 8);
    let mut on_drop = |_, reason| dropped.push(reason);
    seal(&sa, &mut batch, DfPolicy::Copy, Timestamp::default(), &mut sealed, &mut on_drop, &mut |_| {});
    assert_eq!(sealed.len(), 8);
    let expected =
        [DropReason::SaExpired, DropReason::SaExpired, DropReason::SequenceExhausted, DropReason::SequenceExhausted];
    assert_eq!(dropped, expected);
}

#[test]
fn an_expired_sa_accepts_nothing() {
    let [(_, near), (far, _)] = Agreement { kbytes: 1, ..Agreement::new(suite("aes128gcm16")) }.sas();
    let sealed = seal_all(&near, &[udp_packet(true, 60)]);
    assert_eq!(far.charge([2000].into_iter(), Timestamp::default(), &mut |_| {}), 0);
    assert_eq!(open_all(&far, classes(sealed)), [Err(DropReason::SaExpired)]);
}

proptest! {
    #[test]
    fn no_changed_octet_is_delivered(suite in suites(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let [(_, near), (far, _)] = Agreement::new(suite).sas();
        // No one bit away from 0, which is refused before it is authenticated.
        near.set_sequence(100);
        let mut sealed = seal_all(&near, &[udp_packet(true, 100)]);
        let intact = copy(&sealed[0].packet);
        let octets = sealed[0].packet.as_mut_slice();
        // The SPI decides which SA is asked, and is not looked at here.
        let at = 4 + at.index(octets.len() - 4);
        octets[at] ^= 1 << bit;
        let fate = open_all(&far, classes(sealed)).remove(0);
        prop_assert_eq!(fate, Err(DropReason::AuthenticationFailed));
        // A forgery moves no window: the true packet still arrives.
        prop_assert!(open_all(&far, [(intact, seen(0))])[0].is_ok());
    }

    #[test]
    fn no_length_is_too_strange(suite in suites(), octets in vec(any::<u8>(), 0..200)) {
        let [_, (far, _)] = Agreement::new(suite).sas();
        let mut packet = Packet::new();
        packet.copy_from(&octets);
        let fate = open_all(&far, [(packet, seen(0))]).remove(0);
        let expected = [DropReason::BadLength, DropReason::AuthenticationFailed, DropReason::Replayed];
        prop_assert!(expected.map(Err).contains(&fate), "{:?}", fate);
    }

    #[test]
    fn replays_in_one_batch_or_several_are_delivered_once(order in vec(0usize..8, 1..40), batch in 1usize..12) {
        let [(_, near), (far, _)] = Agreement::new(suite("aes128gcm16")).sas();
        let packets: Vec<_> = (0..8).map(|n| udp_packet(true, 60 + n)).collect();
        let sealed = seal_all(&near, &packets);
        let mut delivered = Vec::new();
        for chunk in order.chunks(batch) {
            for fate in open_all(&far, chunk.iter().map(|n| (copy(&sealed[*n].packet), seen(0)))) {
                match fate {
                    Ok(packet) => delivered.push(packet),
                    Err(reason) => prop_assert_eq!(reason, DropReason::Replayed),
                }
            }
        }
        let mut expected: Vec<_> = order.iter().map(|n| packets[*n].clone()).collect();
        for list in [&mut delivered, &mut expected] {
            list.sort();
        }
        expected.dedup();
        prop_assert_eq!(delivered, expected);
    }
}

#[test]
fn transport_mode_carries_what_follows_the_header() {
    for suite in all_suites() {
        for ipv4 in [true, false] {
            let [(_, near), (far, _)] = Agreement::transport(suite, ipv4).sas();
            let header = if ipv4 { 20 } else { 40 };
            let mut packets: Vec<_> = (48..100).chain([1400]).map(|len| udp_packet(ipv4, len)).collect();
            // Not the default of any host: they have to come from the packet.
            let mut headers = Headers::parse(&packets[0]).unwrap();
            headers.traffic_class = 0xb9;
            for packet in &mut packets {
                crate::outer::set_traffic_class(packet, &headers, 0xb9);
            }
            let sealed = seal_all(&near, &packets);
            for (s, packet) in sealed.iter().zip(&packets) {
                let around = 8 + suite.encryption.iv_len + suite.icv_len() + 2;
                let padded = (packet.len() - header + 2).next_multiple_of(suite.alignment()) - 2;
                assert_eq!(s.packet.len(), around + padded, "{suite}: no inner header");
                assert_eq!((s.outer.traffic_class, s.outer.hop_limit), (0xb9, Some(64)));
                assert_eq!(s.outer.dont_fragment, headers.dont_fragment);
            }
            let arrived = sealed.into_iter().map(|s| (s.packet, Outer { traffic_class: 0xb9, hop_limit: 61 }));
            for (fate, sent) in open_all(&far, arrived).into_iter().zip(&packets) {
                let got = fate.unwrap();
                let (parsed, expected) = (Headers::parse(&got).unwrap(), Headers::parse(sent).unwrap());
                assert_eq!(parsed, expected, "{suite}");
                assert_eq!(got[header..], sent[header..], "{suite}: the payload");
                assert_eq!(got[if ipv4 { 8 } else { 7 }], 61, "the hop limit it arrived with");
                if ipv4 {
                    assert_eq!(crate::headers::checksum(&[&got[..20]]), 0);
                }
            }
        }
    }
}

/// The peer's address was 192.168.7.7 and ours 203.0.113.9 where it computed the checksum.
#[test]
fn checksums_are_made_right_behind_a_nat() {
    let agreement = Agreement::transport(suite("aes128-sha1"), true);
    let (mut inbound, outbound) = agreement.specs(false);
    inbound.original =
        Some(policy::sa::OriginalAddresses { remote: [192, 168, 7, 7].into(), local: [203, 0, 113, 9].into() });
    let (far, _) = crate::sa::pair(&inbound, &outbound, 0, &[7; 16], 64).unwrap();
    let [(_, near), (plain, _)] = agreement.sas();
    let mut sent = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4([192, 168, 7, 7], [203, 0, 113, 9], 64);
    builder.tcp(1, 2, 3, 4).write(&mut sent, b"original addresses").unwrap();
    let expected = {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4(crate::testing::LOCAL_V4, crate::testing::REMOTE_V4, 64);
        builder.tcp(1, 2, 3, 4).write(&mut packet, b"original addresses").unwrap();
        packet
    };
    let forged = || forge(&near, 1, &with_trailer(&sent[20..], protocol::TCP));
    let got = open_all(&far, [(forged(), seen(0))]).remove(0).unwrap();
    assert_eq!(got[20..], expected[20..]);
    // Without being told, the checksum is as wrong as it came.
    let got = open_all(&plain, [(forged(), seen(0))]).remove(0).unwrap();
    assert_ne!(got[36..38], expected[36..38]);
}

#[test]
fn transport_mode_delivers_no_fragments_and_nothing_beside_its_selector() {
    for ipv4 in [true, false] {
        let agreement = Agreement::transport(suite("aes128-sha1"), ipv4);
        let (mut inbound, outbound) = agreement.specs(false);
        inbound.selector.protocol = Some(protocol::TCP);
        let (far, _) = crate::sa::pair(&inbound, &outbound, 0, &[7; 16], 64).unwrap();
        let [(_, near), _] = agreement.sas();
        let fate = |sequence, next_header, payload: &[u8]| {
            open_all(&far, [(forge(&near, sequence, &with_trailer(payload, next_header)), seen(0))]).remove(0)
        };
        assert!(fate(1, protocol::TCP, &[0; 20]).is_ok());
        assert_eq!(fate(2, protocol::UDP, &[0; 8]), Err(DropReason::SelectorMismatch));
        assert_eq!(fate(3, protocol::TCP, &[0; 3]), Err(DropReason::Malformed), "no ports");
        assert_eq!(fate(4, protocol::NO_NEXT_HEADER, &[0; 8]), Err(DropReason::DummyPacket));
        if !ipv4 {
            // Next header TCP, offset 8: a later fragment.
            assert_eq!(fate(5, protocol::FRAGMENT, &[6, 0, 0, 9, 0, 0, 0, 1, 0, 0]), Err(DropReason::Malformed));
        }
    }
}
