//! Fragments under policies that look at ports.

use super::*;
use crate::headers::Headers;
use crate::mtu::fragment::Fragments;
use core::time::Duration;

/// A packet in fragments of at most 1000 octets.
fn cut(ipv4: bool, len: usize, id: u16) -> Vec<Vec<u8>> {
    let packet = udp_packet(ipv4, len);
    if ipv4 {
        let mut packet = packet;
        packet[4..8].copy_from_slice(&[(id >> 8) as u8, id as u8, 0, 0]);
        crate::headers::seal_ipv4_header(&mut packet[..20]);
        let mut fragments = Fragments::new(&packet, 1000).unwrap();
        let mut out = [0; 1000];
        return std::iter::from_fn(|| fragments.next_into(&mut out).map(|n| out[..n].to_vec())).collect();
    }
    let (header, payload) = packet.split_at(40);
    let parts = payload.chunks(944).enumerate();
    parts
        .map(|(n, part)| {
            let more = (n + 1) * 944 < payload.len();
            let mut fragment = header.to_vec();
            fragment[4..6].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
            fragment[6] = 44;
            fragment.extend([17, 0]);
            fragment.extend(((n as u16 * 944) | u16::from(more)).to_be_bytes());
            fragment.extend(u32::from(id).to_be_bytes());
            fragment.extend(part);
            assert!(Headers::parse(&fragment).is_ok());
            fragment
        })
        .collect()
}

/// Of packets of the tunnel, only UDP port 80 of the far side is protected.
fn by_port(agreement: &Agreement, near: bool) -> Config {
    let mut config = tunnel_config(agreement, near);
    config.hosts.clear();
    let tunnel = Arc::clone(&config.tunnels[0]);
    config.add_host(vec![web(&tunnel.selector, near)], HostAction::Tunnel(tunnel));
    config
}

fn web(selector: &Selector, near: bool) -> Selector {
    let (any, port) = ((0, u16::MAX), (80, 80));
    let (local, remote) = if near { (any, port) } else { (port, any) };
    Selector { protocol: Some(17), ports: PortSelector::Ports { local, remote }, ..selector.clone() }
}

fn agreement(ipv4: bool) -> Agreement {
    Agreement { inner_ipv4: ipv4, ..gcm() }
}

fn pair_of_hosts(ipv4: bool) -> (Host, Host) {
    let agreement = agreement(ipv4);
    let hosts = [true, false].map(|near| {
        let host = Host::new(&by_port(&agreement, near));
        host.establish(&agreement, near);
        host
    });
    hosts.into()
}

#[test]
fn all_fragments_go_where_the_first_one_shows() {
    for ipv4 in [true, false] {
        let (mut a, mut b) = pair_of_hosts(ipv4);
        let (x, y) = (cut(ipv4, 4000, 1), cut(ipv4, 4000, 2));
        assert_eq!(x.len(), 5);
        // In order, backwards, and two packets at once.
        let mixed: Vec<_> = x.iter().zip(y.iter().rev()).flat_map(|(x, y)| [x.clone(), y.clone()]).collect();
        for sent in [x.clone(), x.iter().rev().cloned().collect(), mixed] {
            // One batch, and one at a time.
            for batch in [sent.len(), 1] {
                let mut delivered = Vec::new();
                for batch in sent.chunks(batch) {
                    a.send(batch);
                    let wire = a.on_the_wire();
                    delivered.extend(b.receive(wire));
                }
                assert!(a.in_the_clear().is_empty());
                let mut expected = sent.clone();
                expected.sort();
                delivered.sort();
                assert_eq!(delivered, expected);
            }
        }
        assert_eq!(a.totals().all_drops() + b.totals().all_drops(), 0);
    }
}

#[test]
fn a_fragmented_packet_of_another_port_goes_its_own_way() {
    let (mut a, _) = pair_of_hosts(true);
    let mut fragments = cut(true, 4000, 1);
    // To port 81, which the default policy passes.
    fragments[0][23] = 81;
    a.send(&fragments);
    assert!(a.on_the_wire().is_empty());
    assert_eq!(a.in_the_clear(), fragments);
}

#[test]
fn inbound_the_first_fragment_shows_whether_the_tunnel_is_right() {
    // Port 80 is of one peer, the rest of the other: both may carry later fragments.
    let (web_peer, rest) =
        (Agreement { tunnel: "web".into(), ..gcm() }, Agreement { tunnel: "rest".into(), seed: 2, ..gcm() });
    let mut config = empty_config();
    let tunnels = [tunnel_policy(&web_peer, false), tunnel_policy(&rest, false)];
    config.tunnels = tunnels.to_vec();
    config.add_host(vec![web(&tunnels[0].selector, false)], HostAction::Tunnel(Arc::clone(&tunnels[0])));
    config.add_host(vec![tunnels[1].selector.clone()], HostAction::Tunnel(Arc::clone(&tunnels[1])));
    let mut b = Host::new(&config);
    for agreement in [&web_peer, &rest] {
        b.establish(agreement, false);
    }
    let fragments = cut(true, 4000, 1);
    let mut through = [&web_peer, &rest].map(|agreement| Host::of(agreement, true, true));
    let mut deliver = |tunnel: usize, fragments: &[Vec<u8>]| {
        through[tunnel].send(fragments);
        let wire = through[tunnel].on_the_wire();
        b.receive(wire)
    };
    assert!(deliver(1, &fragments).is_empty());
    assert_eq!(deliver(0, &fragments), fragments);
    // Nor do they mix.
    assert!(deliver(1, &fragments[1..]).is_empty());
    assert!(deliver(0, &fragments[..1]).is_empty());
    assert_eq!(deliver(0, &fragments[1..]), fragments);
    assert_eq!((b.drops(DropReason::WrongTunnel), b.totals().all_drops()), (5, 5));
}

#[test]
fn an_sa_that_looks_at_ports_carries_the_packet_whole() {
    for ipv4 in [true, false] {
        let agreement = agreement(ipv4);
        let [mut a, mut b] = [true, false].map(|near| {
            let mut config = by_port(&agreement, near);
            let narrow = web(&config.tunnels[0].selector, near);
            let tunnel = Arc::new(TunnelPolicy { selector: narrow.clone(), ..TunnelPolicy::clone(&config.tunnels[0]) });
            config.tunnels = vec![Arc::clone(&tunnel)];
            config.hosts.clear();
            config.add_host(vec![narrow.clone()], HostAction::Tunnel(tunnel));
            let host = Host::new(&config);
            let (mut inbound, mut outbound) = agreement.specs(near);
            (inbound.selector, outbound.selector) = (narrow.clone(), narrow);
            host.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
            host.shared.activate_outbound(1).unwrap();
            host
        });
        let mut fragments = cut(ipv4, 4000, 1);
        fragments.extend(cut(ipv4, 2000, 2));
        a.send(&fragments);
        assert_eq!(a.out.sealed.len(), 2);
        assert!(a.out.sealed.iter().all(|s| !s.outer.dont_fragment));
        let wire = a.on_the_wire();
        let delivered = b.receive(wire);
        for (packet, len) in delivered.iter().zip([4000, 2000]) {
            let original = udp_packet(ipv4, len);
            let header = if ipv4 { 20 } else { 40 };
            assert_eq!(packet[header..], original[header..]);
            let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
            if let Some(ip) = sliced.net.as_ref().and_then(|n| n.ipv4_ref()) {
                assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
            } else {
                assert_eq!(packet[..40], original[..40], "no fragment header is left");
            }
        }
        assert_eq!(delivered.len(), 2);
        let totals = a.totals();
        assert_eq!(totals.counter(Counter::Sent) + totals.counter(Counter::FragmentsJoined), fragments.len() as u64);
        assert_eq!(totals.all_drops(), 0);
    }
}

#[test]
fn fragments_wait_for_the_sa_as_well() {
    let agreement = agreement(true);
    let mut a = Host::new(&by_port(&agreement, true));
    let fragments = cut(true, 4000, 1);
    a.send(&fragments);
    assert_eq!(a.outbound.held(), 5);
    a.establish(&agreement, true);
    a.outbound.release(0, now(), &mut a.out);
    assert_eq!((a.on_the_wire().len(), a.totals().all_drops()), (5, 0));
}

#[test]
fn what_is_not_complete_in_time_is_dropped_and_counted() {
    let (mut a, mut b) = pair_of_hosts(true);
    let fragments = cut(true, 4000, 1);
    a.send(&fragments[..4]);
    let later = now() + Duration::from_secs(16);
    a.outbound.handle_batch(&mut vec![packet(&fragments[4])], later, &mut a.out);
    assert_eq!((a.on_the_wire().len(), a.drops(DropReason::FragmentsMissing)), (0, 4));
    a.outbound.shut_down();
    assert_eq!(a.drops(DropReason::FragmentsMissing), 5);
    // Inbound, one is lost on the way.
    a.send(&fragments);
    let mut wire = a.on_the_wire();
    wire.remove(2);
    assert!(b.receive(wire).is_empty());
    b.inbound.handle_batch(&mut Vec::new(), later, &mut b.input);
    assert_eq!(b.drops(DropReason::FragmentsMissing), 4);
}

#[test]
fn fragments_that_overlap_or_make_no_sense_are_dropped() {
    for ipv4 in [true, false] {
        let (mut a, _) = pair_of_hosts(ipv4);
        let fragments = cut(ipv4, 4000, 1);
        a.send(&[fragments[0].clone(), fragments[1].clone(), fragments[1].clone()]);
        assert_eq!(a.drops(DropReason::Malformed), 3);
        // A middle one of an odd length.
        let mut odd = fragments[1].clone();
        odd.pop();
        let at = if ipv4 { 2 } else { 4 };
        let length = u16::from_be_bytes([odd[at], odd[at + 1]]) - 1;
        odd[at..at + 2].copy_from_slice(&length.to_be_bytes());
        a.send(&[odd]);
        assert_eq!(a.drops(DropReason::Malformed), 4);
    }
}

#[test]
fn those_that_never_come_together_do_not_crowd_out_the_others() {
    let (mut a, _) = pair_of_hosts(true);
    for id in 100..700 {
        a.send(&cut(true, 4000, id)[..1]);
    }
    assert_eq!(a.drops(DropReason::FragmentsMissing), 600 - 256);
    a.send(&cut(true, 4000, 1));
    assert_eq!(a.on_the_wire().len(), 5);
}

#[test]
fn where_no_policy_looks_at_ports_fragments_wait_for_nothing() {
    let (mut a, mut b) = (Host::of(&gcm(), true, true), Host::of(&gcm(), false, true));
    let fragments = cut(true, 4000, 1);
    a.send(&fragments[2..3]);
    let wire = a.on_the_wire();
    assert_eq!(b.receive(wire), fragments[2..3]);
}

/// Transport mode takes whole packets alone (RFC 4303 3.3.4), whether policies look at ports or not.
#[test]
fn transport_mode_makes_whole_packets_of_fragments() {
    for ipv4 in [true, false] {
        let agreement = Agreement::transport(gcm().suite, ipv4);
        let [mut a, mut b] = [true, false].map(|near| {
            let host = Host::new(&tunnel_config(&agreement, near));
            host.establish(&agreement, near);
            host
        });
        for batch in [5, 1] {
            for fragments in cut(ipv4, 4000, 1).chunks(batch) {
                a.send(fragments);
            }
        }
        let wire = a.on_the_wire();
        assert_eq!(wire.len(), 2, "one packet each time");
        let header = if ipv4 { 20 } else { 40 };
        for whole in b.receive(wire) {
            assert_eq!(whole[header..], udp_packet(ipv4, 4000)[header..]);
            assert_eq!(Headers::parse(&whole).unwrap().fragment, crate::headers::Fragment::Whole);
        }
        assert!(a.in_the_clear().is_empty());
        assert_eq!(a.totals().counter(Counter::FragmentsJoined), 8);
        assert_eq!(a.totals().all_drops() + b.totals().all_drops(), 0);
    }
}

#[test]
fn headers_that_transport_mode_cannot_carry_are_dropped_by_name() {
    let packets = [
        // IPv4 with 4 octets of options; IPv6 with hop-by-hop options.
        {
            let mut packet = udp_packet(true, 60);
            packet.splice(20..20, [1, 1, 1, 1]);
            packet[0] = 0x46;
            packet[3] = 64;
            crate::headers::seal_ipv4_header(&mut packet[..24]);
            packet
        },
        {
            let mut packet = udp_packet(false, 80);
            packet.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
            packet[5] += 8;
            packet[6] = 0;
            packet
        },
    ];
    for (packet, ipv4) in packets.into_iter().zip([true, false]) {
        let agreement = Agreement::transport(gcm().suite, ipv4);
        let mut a = Host::new(&tunnel_config(&agreement, true));
        a.establish(&agreement, true);
        assert!(Headers::parse(&packet).is_ok());
        a.send(&[packet]);
        assert!(a.on_the_wire().is_empty() && a.in_the_clear().is_empty());
        assert_eq!(a.totals().drops(DropReason::TransportHeaders), 1);
    }
}
