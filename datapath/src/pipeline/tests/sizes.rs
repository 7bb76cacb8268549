//! Packets that do not fit.

use super::*;
use crate::headers::{Fragment, Headers};
use etherparse::defrag::IpDefragPool;
use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4};

fn without_df(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] &= !0x40;
    crate::headers::seal_ipv4_header(&mut packet[..20]);
    packet
}

/// The replies to the senders, for the TUN interface.
fn replies(host: &mut Host) -> Vec<Vec<u8>> {
    host.out.replies.drain(..).map(|p| p.as_slice().to_vec()).collect()
}

#[test]
fn the_longest_that_fits_goes_and_one_more_is_told() {
    for ipv4 in [true, false] {
        let mut a = Host::of(&Agreement { inner_ipv4: ipv4, ..gcm() }, true, true);
        let mtu = usize::from(a.shared.pair(1).unwrap().outbound.inner_mtu());
        a.send(&[udp_packet(ipv4, mtu), udp_packet(ipv4, mtu + 1)]);
        assert_eq!((a.on_the_wire().len(), a.drops(DropReason::TooBig)), (1, 1));
        let reply = replies(&mut a).remove(0);
        match SlicedPacket::from_ip(&reply).unwrap().transport.unwrap() {
            TransportSlice::Icmpv4(i) => {
                let next_hop_mtu = mtu as u16;
                let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
                assert_eq!(i.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
            }
            TransportSlice::Icmpv6(i) => assert_eq!(i.icmp_type(), Icmpv6Type::PacketTooBig { mtu: mtu as u32 }),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn answers_are_limited_in_rate_but_drops_always_counted() {
    let mut a = Host::of(&gcm(), true, true);
    a.send(&vec![udp_packet(true, 2000); 200]);
    assert_eq!(a.drops(DropReason::TooBig), 200);
    let told = replies(&mut a).len();
    assert!((1..200).contains(&told), "{told} answers");
}

#[test]
fn without_df_a_packet_goes_in_fragments_and_arrives_whole() {
    let (mut a, mut b) = (Host::of(&gcm(), true, true), Host::of(&gcm(), false, true));
    let packet = without_df(udp_packet(true, 4000));
    a.send(std::slice::from_ref(&packet));
    let wire = a.on_the_wire();
    assert_eq!(wire.len(), 3);
    assert!(wire.iter().all(|w| 20 + w.packet.len() <= 1500));
    assert_eq!(a.totals().counter(Counter::Sent), 1 + a.totals().counter(Counter::FragmentsAdded));
    let delivered = b.receive(wire);
    let mut pool: IpDefragPool<(), ()> = IpDefragPool::new();
    let mut whole = None;
    for fragment in &delivered {
        let sliced = SlicedPacket::from_ip(fragment).unwrap();
        whole = pool.process_sliced_packet(&sliced, (), ()).unwrap().or(whole);
    }
    assert_eq!(whole.unwrap().payload, packet[20..]);
}

#[test]
fn an_sa_that_looks_at_ports_fragments_outside() {
    let mut a = Host::of(&gcm(), true, false);
    let (mut inbound, mut outbound) = gcm().specs(true);
    for spec in [&mut inbound, &mut outbound] {
        spec.selector.protocol = Some(17);
        spec.selector.ports = PortSelector::Ports { local: (0, u16::MAX), remote: (80, 80) };
    }
    a.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
    a.shared.activate_outbound(1).unwrap();
    a.send(&[without_df(udp_packet(true, 4000))]);
    assert_eq!(a.out.sealed.len(), 1);
    assert!(!a.out.sealed[0].outer.dont_fragment);
}

#[test]
fn a_narrower_path_is_obeyed_at_once() {
    let mut a = Host::of(&gcm(), true, true);
    a.send(&[udp_packet(true, 1400)]);
    assert_eq!(a.on_the_wire().len(), 1);
    a.shared.pair(1).unwrap().outbound.set_path_mtu(1300);
    a.send(&[udp_packet(true, 1400)]);
    assert_eq!((a.on_the_wire().len(), replies(&mut a).len()), (0, 1));
}

#[test]
fn in_the_clear_too_what_does_not_fit_is_cut_or_told() {
    let mut a = Host::new(&empty_config());
    a.send(&[udp_packet(true, 1400), without_df(udp_packet(true, 1400)), udp_packet(false, 1400)]);
    let refused: Vec<Clear> = a.out.clear.drain(..).collect();
    for clear in refused {
        a.outbound.clear_too_big(clear, 1300, now(), &mut a.out);
    }
    assert_eq!((replies(&mut a).len(), a.drops(DropReason::TooBig)), (2, 2));
    let fragments = a.in_the_clear();
    let kinds: Vec<_> = fragments.iter().map(|f| Headers::parse(f).unwrap().fragment).collect();
    assert_eq!(kinds, [Fragment::First, Fragment::Later]);
    let totals = a.totals();
    assert_eq!(totals.counter(Counter::BypassedOut) + totals.all_drops(), 3 + totals.counter(Counter::FragmentsAdded));
}
