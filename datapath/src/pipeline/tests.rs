//! Both pipelines, joined in memory.

mod accounting;
mod bundle;
mod fragments;
mod limits;
mod policies;
mod sessions;
mod sizes;
mod workers;

use super::inbound::{KEEPALIVE, LONGEST_IKE_MESSAGE, NON_ESP_MARKER};
use super::*;
use crate::esp::outbound::Sealed;
use crate::event::{Event, IkeDatagram};
use crate::packet::Packet;
use crate::shared::Shared;
use crate::testing::{
    Agreement, REMOTE_V4, all_suites, empty_config, shared, suite, tunnel_config, tunnel_policy, udp_packet,
};
use policy::config::{Config, DefaultAction, HostAction, HostPolicy, StartMode, TunnelPolicy};
use policy::counters::{Counter, DropReason, Totals};
use policy::five_tuple::Ports;
use policy::sa::UdpEncapsulation;
use policy::selector::{AddressRange, PortSelector, Selector};
use policy::time::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One of two hosts.
struct Host {
    shared: Arc<Shared>,
    outbound: Outbound,
    inbound: Inbound,
    out: OutboundOutput,
    input: InboundOutput,
}

impl Host {
    fn new(config: &Config) -> Self {
        let shared = shared(config);
        Self {
            outbound: Outbound::new(Arc::clone(&shared), 0, 256),
            inbound: Inbound::new(Arc::clone(&shared), 1, 256),
            shared,
            out: OutboundOutput::default(),
            input: InboundOutput::default(),
        }
    }

    /// One side of an agreement, with its SAs if `established`.
    fn of(agreement: &Agreement, near: bool, established: bool) -> Self {
        let host = Self::new(&tunnel_config(agreement, near));
        if established {
            host.establish(agreement, near);
        }
        host
    }

    fn establish(&self, agreement: &Agreement, near: bool) {
        let (inbound, outbound) = agreement.specs(near);
        let pair = self.shared.install_pair(&inbound, &outbound, &[3; 16]).unwrap();
        self.shared.activate_outbound(pair.id).unwrap();
    }

    /// Feeds packets from the protected side.
    fn send(&mut self, packets: &[Vec<u8>]) {
        let mut batch = packets.iter().map(|p| packet(p)).collect();
        self.outbound.handle_batch(&mut batch, now(), &mut self.out);
        assert!(batch.is_empty());
    }

    /// Takes what goes to the wire protected, as if it had been sent.
    fn on_the_wire(&mut self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        self.out.take_sealed(|sealed, sa| {
            arrivals.push(arrival(&sealed, sa));
            self.outbound.sent(sealed);
        });
        arrivals
    }

    /// Takes what goes to the wire in the clear, as if it had been sent.
    fn in_the_clear(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for clear in self.out.clear.drain(..) {
            packets.push(clear.octets().to_vec());
            self.outbound.clear_sent(clear);
        }
        packets
    }

    /// Feeds what arrives from the wire and takes what is delivered.
    fn receive(&mut self, mut arrivals: Vec<Arrival>) -> Vec<Vec<u8>> {
        self.inbound.handle_batch(&mut arrivals, now(), &mut self.input);
        let mut delivered = Vec::new();
        for packet in self.input.deliver.drain(..) {
            delivered.push(packet.as_slice().to_vec());
            self.inbound.delivered(packet);
        }
        delivered
    }

    fn events(&mut self) -> Vec<Event> {
        self.out.events.drain(..).chain(self.input.events.drain(..)).collect()
    }

    fn totals(&self) -> Totals {
        self.shared.counters.totals()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.totals().drops(reason)
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_000_000)
}

fn packet(octets: &[u8]) -> Packet {
    let mut packet = Packet::new();
    assert!(packet.copy_from(octets));
    packet
}

/// A protected packet as the peer receives it.
fn arrival(sealed: &Sealed, sa: &crate::sa::OutboundSa) -> Arrival {
    let spec = sa.spec();
    Arrival {
        packet: packet(sealed.packet.as_slice()),
        local: sa.remote(),
        remote: SocketAddr::new(spec.local, spec.encapsulation.map_or(0, |e| e.local_port)),
        encapsulated: spec.encapsulation.is_some(),
        traffic_class: sealed.outer.traffic_class,
        hop_limit: sealed.outer.hop_limit.unwrap_or(64),
        protocol: spec.protocol,
    }
}

fn copy(a: &Arrival) -> Arrival {
    Arrival { packet: packet(a.packet.as_slice()), ..*a }
}

fn gcm() -> Agreement {
    Agreement::new(suite("aes128gcm16"))
}

fn some_packets(ipv4: bool, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| udp_packet(ipv4, 100 + n)).collect()
}

const NAT: UdpEncapsulation = UdpEncapsulation { local_port: 4500, remote_port: 4500 };

#[test]
fn what_one_side_protects_the_other_delivers() {
    for suite in all_suites() {
        for case in 0..8 {
            let agreement = Agreement {
                inner_ipv4: case & 1 == 0,
                outer_ipv4: case & 2 == 0,
                encapsulation: (case & 4 != 0).then_some(NAT),
                ..Agreement::new(suite)
            };
            let mut a = Host::of(&agreement, true, true);
            let mut b = Host::of(&agreement, false, true);
            let packets = some_packets(agreement.inner_ipv4, 10);
            a.send(&packets);
            assert!(a.in_the_clear().is_empty());
            let wire = a.on_the_wire();
            assert_eq!(b.receive(wire), packets, "{agreement:?}");
            assert_eq!(a.totals().counter(Counter::Sent), 10);
            assert_eq!(b.totals().counter(Counter::Received), 10);
            let octets = packets.iter().map(|p| p.len() as u64).sum();
            assert_eq!(a.totals().counter(Counter::SentOctets), octets);
            assert_eq!(b.totals().counter(Counter::ReceivedOctets), octets);
            assert_eq!(a.totals().all_drops() + b.totals().all_drops(), 0);
            assert_eq!((a.events(), b.events()), (vec![], vec![]));
        }
    }
}

#[test]
fn a_packet_that_arrives_twice_is_delivered_once() {
    let (mut a, mut b) = (Host::of(&gcm(), true, true), Host::of(&gcm(), false, true));
    a.send(&some_packets(true, 3));
    let wire = a.on_the_wire();
    let again: Vec<_> = wire.iter().map(copy).collect();
    let doubled = wire.iter().map(copy).chain(wire.iter().map(copy)).collect();
    assert_eq!(b.receive(doubled).len(), 3);
    assert_eq!(b.receive(again).len(), 0);
    assert_eq!(b.drops(DropReason::Replayed), 6);
}

#[test]
fn a_changed_packet_is_not_delivered() {
    let (mut a, mut b) = (Host::of(&gcm(), true, true), Host::of(&gcm(), false, true));
    a.send(&some_packets(true, 1));
    let mut wire = a.on_the_wire();
    let last = wire[0].packet.len() - 1;
    wire[0].packet.as_mut_slice()[last] ^= 1;
    assert!(b.receive(wire).is_empty());
    assert_eq!(b.drops(DropReason::AuthenticationFailed), 1);
}

#[test]
fn the_first_packets_wait_for_the_sa_and_leave_in_order() {
    let mut a = Host::of(&gcm(), true, false);
    let packets = some_packets(true, 5);
    a.send(&packets[..2]);
    a.send(&packets[2..4]);
    let events = a.events();
    assert!(
        matches!(events[..], [Event::Acquire { tunnel: 0, tuple, .. }] if tuple.destination == IpAddr::from(REMOTE_V4))
    );
    assert_eq!((a.outbound.held(), a.shared.held(0)), (4, 4));
    assert!(a.on_the_wire().is_empty() && a.in_the_clear().is_empty());

    a.establish(&gcm(), true);
    // A packet that comes before the release is told must not overtake them.
    a.send(&packets[4..]);
    a.outbound.release(0, now(), &mut a.out);
    let mut b = Host::of(&gcm(), false, true);
    let wire = a.on_the_wire();
    assert_eq!(b.receive(wire), packets);
    assert_eq!((a.outbound.held(), a.shared.held(0), a.events()), (0, 0, vec![]));
}

#[test]
fn a_release_without_an_sa_asks_again_and_loses_nothing() {
    let mut a = Host::of(&gcm(), true, false);
    a.send(&some_packets(true, 3));
    assert_eq!(a.events().len(), 1);
    a.outbound.release(0, now(), &mut a.out);
    assert_eq!((a.events().len(), a.outbound.held()), (1, 3));
}

#[test]
fn a_full_queue_keeps_the_oldest() {
    let mut a = Host::of(&gcm(), true, false);
    let packets = some_packets(true, 20);
    a.send(&packets);
    assert_eq!((a.outbound.held(), a.drops(DropReason::HoldQueueFull)), (8, 12));
    a.establish(&gcm(), true);
    a.outbound.release(0, now(), &mut a.out);
    let mut b = Host::of(&gcm(), false, true);
    let wire = a.on_the_wire();
    assert_eq!(b.receive(wire), packets[..8]);
}

#[test]
fn with_the_sa_there_a_full_queue_makes_room_first() {
    let mut a = Host::of(&gcm(), true, false);
    let packets = some_packets(true, 9);
    a.send(&packets[..8]);
    a.establish(&gcm(), true);
    a.send(&packets[8..]);
    let mut b = Host::of(&gcm(), false, true);
    let wire = a.on_the_wire();
    assert_eq!((b.receive(wire), a.totals().all_drops()), (packets, 0));
}

#[test]
fn a_packet_that_changes_its_tunnel_queues_behind_those_that_wait_there() {
    let wide = |name: &str| Agreement { tunnel: name.into(), ..gcm() };
    let tunnels = ["x", "y"].map(|name| tunnel_policy(&wide(name), true));
    let everything = || vec![tunnels[0].selector.clone()];
    let mut config = empty_config();
    config.tunnels = tunnels.to_vec();
    let mut only_tcp = everything();
    only_tcp[0].protocol = Some(6);
    config.add_host(only_tcp, HostAction::Tunnel(Arc::clone(&tunnels[1])));
    config.add_host(everything(), HostAction::Tunnel(Arc::clone(&tunnels[0])));
    let mut a = Host::new(&config);
    let udp = udp_packet(true, 100);
    let mut tcp = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(crate::testing::LOCAL_V4, REMOTE_V4, 64);
    builder.tcp(1, 2, 3, 4).write(&mut tcp, &[]).unwrap();
    a.send(&[tcp.clone(), udp.clone()]);
    assert_eq!((a.shared.held(0), a.shared.held(1)), (1, 1));

    config.hosts.clear();
    config.add_host(everything(), HostAction::Tunnel(Arc::clone(&tunnels[0])));
    a.shared.replace_policies(&config, |_| {});
    a.establish(&wide("x"), true);
    a.outbound.release(1, now(), &mut a.out);
    assert_eq!((a.on_the_wire().len(), a.shared.held(0), a.shared.held(1)), (0, 2, 0));
    a.outbound.release(0, now(), &mut a.out);
    let mut b = Host::of(&wide("x"), false, true);
    let wire = a.on_the_wire();
    assert_eq!(b.receive(wire), [udp, tcp]);
}

#[test]
fn octets_behind_a_packet_go_nowhere() {
    let packet = udp_packet(true, 100);
    let longer = [&packet[..], b"left over in a buffer"].concat();
    let (mut a, mut b) = (Host::of(&gcm(), true, true), Host::of(&gcm(), false, true));
    a.send(std::slice::from_ref(&longer));
    assert_eq!(a.out.sealed[0].inner_len, 100);
    let wire = a.on_the_wire();
    assert_eq!(b.receive(wire), std::slice::from_ref(&packet));
    let mut clear = Host::new(&empty_config());
    clear.send(&[longer]);
    assert_eq!(clear.in_the_clear(), [packet]);
}

#[test]
fn no_queue_at_all_still_asks_for_an_sa() {
    let mut config = tunnel_config(&gcm(), true);
    config.startup.hold_queue = 0;
    let mut a = Host::new(&config);
    a.send(&some_packets(true, 2));
    assert_eq!((a.events().len(), a.outbound.held(), a.drops(DropReason::HoldQueueFull)), (1, 0, 2));
}

#[test]
fn a_failed_negotiation_drops_what_waits_and_the_next_packet_asks_again() {
    let mut a = Host::of(&gcm(), true, false);
    a.send(&some_packets(true, 3));
    a.outbound.fail(0);
    assert_eq!((a.drops(DropReason::NegotiationFailed), a.outbound.held(), a.shared.held(0)), (3, 0, 0));
    assert_eq!(a.events().len(), 1);
    a.send(&some_packets(true, 1));
    assert_eq!((a.events().len(), a.outbound.held()), (1, 1));
}

#[test]
fn a_tunnel_that_only_the_peer_starts_drops() {
    let mut config = tunnel_config(&gcm(), true);
    let tunnel = Arc::new(TunnelPolicy { start: StartMode::Respond, ..TunnelPolicy::clone(&config.tunnels[0]) });
    config.tunnels = vec![Arc::clone(&tunnel)];
    config.hosts.clear();
    config.add_host(vec![tunnel.selector.clone()], HostAction::Tunnel(tunnel));
    let mut a = Host::new(&config);
    a.send(&some_packets(true, 2));
    assert_eq!((a.events(), a.drops(DropReason::NoSa)), (vec![], 2));
    // It has begun: what answers its first packets waits until we may send.
    let (inbound, outbound) = gcm().specs(true);
    let pair = a.shared.install_pair(&inbound, &outbound, &[3; 16]).unwrap();
    a.send(&some_packets(true, 2));
    assert_eq!((a.events().len(), a.outbound.held(), a.drops(DropReason::NoSa)), (1, 2, 2));
    a.shared.activate_outbound(pair.id).unwrap();
    a.outbound.release(pair.lane(), now(), &mut a.out);
    assert_eq!(a.on_the_wire().len(), 2);
}

#[test]
fn each_decision_has_its_way() {
    let network = |n: u8| AddressRange::prefix(IpAddr::from([10, n, 0, 0]), 16).unwrap();
    let mut config = empty_config();
    let everything_of = |n| vec![Selector::between(AddressRange::ANY_V4, network(n))];
    config.add_host(everything_of(2), HostAction::Discard);
    config.bypass.push(AddressRange::single(IpAddr::from([10, 1, 0, 9])));
    let to = |source: [u8; 4], destination: [u8; 4]| {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4(source, destination, 64).udp(1, 2).write(&mut packet, &[1]).unwrap();
        packet
    };
    let bypassed = to([10, 1, 0, 9], [10, 2, 0, 1]);
    let discarded = to([10, 1, 0, 1], [10, 2, 0, 1]);
    let unmatched = to([10, 1, 0, 1], [10, 3, 0, 1]);
    let mut a = Host::new(&config);
    for _ in 0..2 {
        // From the policies, and then from the cache.
        a.send(&[bypassed.clone(), discarded.clone(), unmatched.clone(), vec![0x45; 19]]);
        assert_eq!(a.in_the_clear(), [bypassed.clone(), unmatched.clone()]);
    }
    let totals = a.totals();
    assert_eq!(totals.drops(DropReason::PolicyDiscard), 2);
    assert_eq!(totals.drops(DropReason::Malformed), 2);
    assert_eq!(totals.counter(Counter::BypassedOut), 4);
    assert_eq!(a.shared.cache.len(), 3);

    config.default_action = DefaultAction::Discard;
    a.shared.replace_policies(&config, |_| {});
    a.send(&[unmatched]);
    assert!(a.in_the_clear().is_empty());
}

#[test]
fn what_belongs_to_a_link_does_not_go_on_from_the_tun() {
    // The default policy passes: without more ado both would leave in the clear.
    let mut host = Host::new(&empty_config());
    let mut advertisement = udp_packet(false, 200);
    // ICMPv6 neighbour solicitation, with a hop limit that no neighbour's has.
    (advertisement[6], advertisement[7], advertisement[40]) = (58, 64, 135);
    let mut multicast = udp_packet(false, 200);
    multicast[24..40].copy_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16]);
    host.send(&[advertisement, multicast, udp_packet(false, 200)]);
    assert_eq!(host.in_the_clear().len(), 1, "an ordinary packet passes");
    assert_eq!(host.drops(DropReason::LinkScope), 2);
}

#[test]
fn waiting_packets_follow_new_policies() {
    let packets = some_packets(true, 2);
    let config = tunnel_config(&gcm(), true);

    // The tunnel goes, and a policy to discard comes.
    let mut a = Host::new(&config);
    a.send(&packets);
    let mut discard = empty_config();
    discard.add_host(config.hosts[0].selectors.clone(), HostAction::Discard);
    a.shared.replace_policies(&discard, |_| {});
    a.outbound.policies_replaced(now(), &mut a.out);
    assert_eq!((a.drops(DropReason::PolicyDiscard), a.outbound.held()), (2, 0));
    assert_eq!(a.outbound.tunnels_waited_for(), []);

    // Nothing changes: they wait on, and nobody is asked twice.
    let mut a = Host::new(&config);
    a.send(&packets);
    a.shared.replace_policies(&config, |_| {});
    a.outbound.policies_replaced(now(), &mut a.out);
    assert_eq!((a.events().len(), a.outbound.held(), a.shared.held(0)), (1, 2, 2));
}

#[test]
fn pairs_without_a_tunnel_are_named_and_send_nothing() {
    let mut a = Host::of(&gcm(), true, true);
    let orphans = a.shared.replace_policies(&empty_config(), |_| {});
    assert_eq!(orphans, [1]);
    let mut discard = empty_config();
    discard.default_action = DefaultAction::Discard;
    a.shared.replace_policies(&discard, |_| {});
    a.send(&some_packets(true, 1));
    assert!(a.on_the_wire().is_empty());
    assert!(a.shared.remove_pair(1).is_ok());
    assert_eq!((a.shared.inbound.len(), a.shared.all_pairs().len()), (0, 0));
}

#[test]
fn a_tunnel_that_changes_does_not_use_its_old_sas() {
    let changes: [fn(&mut TunnelPolicy); 4] = [
        |t| t.tdestination = [192, 0, 2, 99].into(),
        |t| t.tsource = [192, 0, 2, 98].into(),
        |t| t.selector.remote = AddressRange::prefix(IpAddr::from(REMOTE_V4), 24).unwrap(),
        |t| t.transforms.clear(),
    ];
    for change in changes {
        let mut a = Host::of(&gcm(), true, true);
        let mut tunnel = TunnelPolicy::clone(&tunnel_policy(&gcm(), true));
        change(&mut tunnel);
        let tunnel = Arc::new(tunnel);
        let mut config = empty_config();
        config.tunnels.push(Arc::clone(&tunnel));
        config.add_host(vec![tunnel.selector.clone()], HostAction::Tunnel(tunnel));
        assert_eq!(a.shared.replace_policies(&config, |_| {}), [1]);
        // The daemon has not deleted the old pair yet.
        a.send(&some_packets(true, 2));
        assert!(a.on_the_wire().is_empty() && a.in_the_clear().is_empty());
        assert_eq!(a.outbound.held(), 2);
        assert!(matches!(a.events()[..], [Event::Acquire { tunnel: 1, .. }]));
        a.shared.remove_pair(1).unwrap();
        a.establish(&Agreement { seed: 2, ..gcm() }, true);
        a.outbound.release(1, now(), &mut a.out);
        assert_eq!((a.on_the_wire().len(), a.outbound.held()), (2, 0));
    }
    // What its SAs do not depend on may change under them.
    let mut a = Host::of(&gcm(), true, true);
    let mut config = tunnel_config(&gcm(), true);
    config.tunnels[0] =
        Arc::new(TunnelPolicy { line: 7, start: StartMode::Boot, ..TunnelPolicy::clone(&config.tunnels[0]) });
    assert_eq!(a.shared.replace_policies(&config, |_| {}), []);
    a.send(&some_packets(true, 1));
    assert_eq!(a.on_the_wire().len(), 1);
}

#[test]
fn the_newer_sa_takes_over_and_the_older_steps_in_again() {
    let (first, second) = (gcm(), Agreement { seed: 2, ..gcm() });
    let mut a = Host::of(&first, true, true);
    let spi = |a: &mut Host| {
        a.send(&some_packets(true, 1));
        crate::esp::spi(&a.on_the_wire()[0].packet).unwrap()
    };
    assert_eq!(spi(&mut a), 0x1001);
    let (inbound, outbound) = second.specs(true);
    a.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
    assert_eq!(spi(&mut a), 0x1001, "not before it is activated");
    a.shared.activate_outbound(2).unwrap();
    assert_eq!(spi(&mut a), 0x1002);
    a.shared.remove_pair(2).unwrap();
    assert_eq!(spi(&mut a), 0x1001);
    a.shared.remove_pair(1).unwrap();
    a.send(&some_packets(true, 1));
    assert_eq!(a.outbound.held(), 1);
}

#[test]
fn a_peer_may_choose_an_spi_again() {
    let mut a = Host::of(&gcm(), true, true);
    let second = Agreement { seed: 2, ..gcm() };
    let (inbound, mut outbound) = second.specs(true);
    outbound.spi = 0x1001;
    a.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
    a.shared.activate_outbound(2).unwrap();
    let new = a.shared.pair(2).unwrap().outbound;
    // The older pair has had its time: the newer stays in use.
    a.shared.remove_pair(1).unwrap();
    a.send(&some_packets(true, 1));
    assert_eq!((a.out.sealed.len(), a.outbound.held()), (1, 0));
    assert!(Arc::ptr_eq(&a.out.runs[0].sa, &new));
    // The peer has forgotten the older one: if the newer goes, nobody would understand it.
    let third = Agreement { seed: 3, ..gcm() };
    let (inbound, mut outbound) = third.specs(true);
    outbound.spi = 0x1001;
    a.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
    a.shared.activate_outbound(3).unwrap();
    assert!(!a.shared.pair(2).unwrap().active);
    a.shared.remove_pair(3).unwrap();
    a.send(&some_packets(true, 1));
    assert_eq!((a.out.sealed.len(), a.outbound.held()), (1, 1));
}

#[test]
fn pairs_that_cannot_be_installed_leave_nothing_behind() {
    let a = Host::of(&gcm(), true, true);
    let (inbound, outbound) = gcm().specs(true);
    let refused = |i: &_, o: &_| a.shared.install_pair(i, o, &[0; 16]).err().map(|e| e.to_string());
    assert_eq!(refused(&inbound, &outbound).as_deref(), Some("SA pair 1 exists already"));
    let (mut i, mut o) = (inbound.clone(), outbound.clone());
    (i.pair, o.pair) = (7, 7);
    assert_eq!(refused(&i, &o).as_deref(), Some("an SA with SPI 0x2001 exists already"));
    (i.tunnel, o.tunnel) = ("gone".into(), "gone".into());
    assert!(refused(&i, &o).unwrap().contains("`gone` is not loaded"));
    assert_eq!(a.shared.all_pairs().len(), 1);
    assert!(a.shared.activate_outbound(7).is_err() && a.shared.remove_pair(7).is_err());
}

#[test]
fn esp_ike_and_keepalives_share_a_port() {
    let agreement = Agreement { encapsulation: Some(NAT), ..gcm() };
    let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
    a.send(&some_packets(true, 1));
    let mut wire = a.on_the_wire();
    let with = |octets: &[u8]| Arrival { packet: packet(octets), ..copy(&wire[0]) };
    let message = [&NON_ESP_MARKER[..], b"IKE"].concat();
    let others = [with(&message), with(&KEEPALIVE), with(&[0xfe]), with(&[]), with(&[0, 0, 0]), with(&NON_ESP_MARKER)];
    let (local, remote) = (wire[0].local, wire[0].remote);
    wire.extend(others);
    assert_eq!(b.receive(wire).len(), 1);
    let ike = |message: &[u8]| Event::Ike(IkeDatagram { local, remote, message: message.to_vec() });
    assert_eq!(b.events(), [ike(b"IKE"), ike(b"")]);
    assert_eq!((b.totals().counter(Counter::Keepalives), b.drops(DropReason::BadLength)), (1, 3));
}

#[test]
fn an_ike_message_longer_than_any_is_not_handed_over() {
    let mut b = Host::of(&Agreement { encapsulation: Some(NAT), ..gcm() }, false, true);
    let (local, remote) = (SocketAddr::from(([192, 0, 2, 2], 4500)), SocketAddr::from(([192, 0, 2, 1], 4500)));
    let arrival = |len: usize| Arrival {
        packet: packet(&[&NON_ESP_MARKER[..], &vec![1; len]].concat()),
        local,
        remote,
        encapsulated: true,
        traffic_class: 0,
        hop_limit: 64,
        protocol: policy::sa::SaProtocol::Esp,
    };
    let lens = [LONGEST_IKE_MESSAGE, LONGEST_IKE_MESSAGE + 1, 65_000];
    assert!(b.receive(lens.map(arrival).into()).is_empty());
    let message = vec![1; LONGEST_IKE_MESSAGE];
    assert_eq!(b.events(), [Event::Ike(IkeDatagram { local, remote, message })]);
    assert_eq!(b.drops(DropReason::IkeTooLong), 2);
}

#[test]
fn without_udp_there_are_no_markers() {
    let mut b = Host::of(&gcm(), false, true);
    let addresses = SocketAddr::from(([192, 0, 2, 1], 0));
    let raw = |octets: &[u8]| Arrival {
        packet: packet(octets),
        local: addresses,
        remote: addresses,
        encapsulated: false,
        traffic_class: 0,
        hop_limit: 64,
        protocol: policy::sa::SaProtocol::Esp,
    };
    assert!(b.receive(vec![raw(&[0, 0, 0, 0, 1, 2, 3, 4]), raw(&KEEPALIVE), raw(&[])]).is_empty());
    assert_eq!((b.drops(DropReason::UnknownSpi), b.drops(DropReason::BadLength)), (1, 2));
}

#[test]
fn the_wrong_encapsulation_is_refused() {
    for encapsulation in [None, Some(NAT)] {
        let agreement = Agreement { encapsulation, ..gcm() };
        let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
        a.send(&some_packets(true, 2));
        let mut wire = a.on_the_wire();
        wire[0].encapsulated ^= true;
        assert_eq!(b.receive(wire).len(), 1);
        assert_eq!(b.drops(DropReason::EncapsulationMismatch), 1);
    }
}

#[test]
fn unknown_spis_are_told_once_a_second() {
    let (mut a, mut b) = (Host::of(&gcm(), true, true), Host::of(&gcm(), false, false));
    a.send(&some_packets(true, 5));
    let wire = a.on_the_wire();
    assert!(b.receive(wire).is_empty());
    let (local, remote) = (IpAddr::from([192, 0, 2, 2]), SocketAddr::from(([192, 0, 2, 1], 0)));
    let protocol = policy::sa::SaProtocol::Esp;
    assert_eq!(b.events(), [Event::UnknownSpi { spi: 0x1001, protocol, local, remote }]);
    assert_eq!(b.drops(DropReason::UnknownSpi), 5);
}

#[test]
fn a_peer_that_a_nat_moved_is_followed() {
    let agreement = Agreement { encapsulation: Some(NAT), ..gcm() };
    let mut a = Host::of(&agreement, true, true);
    let moved = SocketAddr::from(([192, 0, 2, 77], 1027));
    let sa = a.shared.pair(1).unwrap().outbound;
    assert!(sa.move_remote(moved));
    assert!(!sa.move_remote(SocketAddr::from(([0u16; 8], 1))), "another family");
    a.send(&some_packets(true, 1));
    assert_eq!(a.on_the_wire()[0].local, moved);
    let raw = Host::of(&gcm(), true, true);
    assert!(!raw.shared.pair(1).unwrap().outbound.move_remote(moved), "ESP without UDP has no NAT to pass");
}

/// Who forges, replays or holds up packets must not have others sent where he likes.
#[test]
fn only_the_newest_authentic_packet_tells_where_a_peer_is() {
    let agreement = Agreement { encapsulation: Some(NAT), ..gcm() };
    let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
    a.send(&some_packets(true, 6));
    let wire = a.on_the_wire();
    let known = b.shared.pair(1).unwrap().outbound.remote();
    let from = |n: usize, port: u16| Arrival { remote: SocketAddr::new(known.ip(), port), ..copy(&wire[n]) };
    let told = |b: &mut Host, arrival: Arrival| {
        b.receive(vec![arrival]);
        b.events()
    };
    assert_eq!(told(&mut b, from(0, known.port())), []);
    let mut forged = from(5, 999);
    *forged.packet.as_mut_slice().last_mut().unwrap() ^= 1;
    assert_eq!(told(&mut b, forged), [], "forged");
    assert_eq!(told(&mut b, from(0, 999)), [], "replayed");
    assert_eq!(told(&mut b, from(2, known.port())), []);
    assert_eq!(told(&mut b, from(1, 999)), [], "held up");
    assert_eq!((b.drops(DropReason::AuthenticationFailed), b.drops(DropReason::Replayed)), (1, 1));
    let moved = SocketAddr::new(known.ip(), 1027);
    assert_eq!(told(&mut b, from(3, 1027)), [Event::PeerMoved { pair: 1, remote: moved }]);
    assert_eq!(b.shared.pair(1).unwrap().outbound.remote(), known, "the daemon decides");
    assert_eq!(told(&mut b, from(4, 1027)), [], "told once in a second");
    assert!(b.shared.pair(1).unwrap().outbound.move_remote(moved));
    assert_eq!(told(&mut b, from(5, 1027)), []);
    assert_eq!(b.totals().counter(Counter::Received), 6);
}

/// What would be left if a defect put a wrong entry into the cache.
#[test]
fn a_wrong_cache_entry_does_not_go_unnoticed() {
    use policy::cache::{CacheEntry, CacheKey};
    use policy::five_tuple::Direction;
    use policy::spd::Decision;
    let mut a = Host::of(&gcm(), true, true);
    let packet = udp_packet(true, 100);
    let tuple = crate::headers::Headers::parse(&packet).unwrap().tuple;
    let wrong = CacheEntry { decision: Decision::Pass, cookie: 1, reason: None };
    let epoch = a.shared.spd.load().epoch();
    let key = CacheKey::new(tuple, Direction::Outbound);
    let _ = a.shared.cache.reader().insert(&key, wrong, epoch, now(), &mut |_| {});
    a.send(&vec![packet; 64]);
    assert_eq!(a.totals().counter(Counter::ClearTextLeaks), 1);
    assert_eq!(a.in_the_clear().len(), 63);
}

#[test]
fn an_sa_for_less_than_its_policy_carries_less() {
    let mut agreement = gcm();
    let mut a = Host::of(&agreement, true, false);
    agreement.inner_ipv4 = true;
    let (mut inbound, mut outbound) = agreement.specs(true);
    for spec in [&mut inbound, &mut outbound] {
        spec.selector.protocol = Some(17);
        spec.selector.ports = PortSelector::Ports { local: (0, u16::MAX), remote: (443, 443) };
    }
    a.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
    a.shared.activate_outbound(1).unwrap();
    let packet = udp_packet(true, 100);
    let ports = crate::headers::Headers::parse(&packet).unwrap().tuple.ports;
    assert_eq!(ports, Ports::Pair { source: 1024, destination: 80 });
    a.send(&[packet]);
    assert!(a.on_the_wire().is_empty());
    assert_eq!(a.drops(DropReason::SelectorMismatch), 1);
}

#[test]
fn packets_of_two_tunnels_in_one_batch_each_take_theirs() {
    let (v4, v6) = (gcm(), Agreement { inner_ipv4: false, tunnel: "six".into(), seed: 2, ..gcm() });
    let mut config = tunnel_config(&v4, true);
    let tunnel = tunnel_policy(&v6, true);
    config.tunnels.push(Arc::clone(&tunnel));
    config.add_host(vec![tunnel.selector.clone()], HostAction::Tunnel(tunnel));
    let mut a = Host::new(&config);
    a.establish(&v4, true);
    a.establish(&v6, true);
    let mixed: Vec<_> = (0..20).map(|n| udp_packet(n % 3 != 0, 100 + n)).collect();
    a.send(&mixed);
    let mut wire = a.on_the_wire();
    let (mut b4, mut b6) = (Host::of(&v4, false, true), Host::of(&v6, false, true));
    let to_six = wire.split_off(wire.iter().position(|w| crate::esp::spi(&w.packet) == Some(0x1002)).unwrap());
    let of = |v4| mixed.iter().filter(|p| (p[0] >> 4 == 4) == v4).cloned().collect::<Vec<_>>();
    assert_eq!(b4.receive(wire), of(true));
    assert_eq!(b6.receive(to_six), of(false));
}
