//! EXCLUSIVE policies: each session has an SA pair of its own.

use super::*;
use crate::mtu::fragment::Fragments;
use crate::sessions::Lane;
use crate::testing::LOCAL_V4;
use policy::five_tuple::{Attachment, Direction, FiveTuple};
use policy::session::Session;

/// What a port of the near side says to port 80 of the far one.
fn from_port(port: u16, len: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(LOCAL_V4, REMOTE_V4, 64);
    builder.udp(port, 80).write(&mut packet, &vec![7; len]).unwrap();
    packet[6] = 0;
    crate::headers::seal_ipv4_header(&mut packet[..20]);
    packet
}

fn session(port: u16, near: bool) -> Session {
    let (source, destination) = (LOCAL_V4.into(), REMOTE_V4.into());
    let ports = Ports::Pair { source: port, destination: 80 };
    let tuple = FiveTuple { source, destination, protocol: 17, ports, interface: Attachment::TUN };
    Session::of(&tuple, if near { Direction::Outbound } else { Direction::Inbound }).unwrap()
}

fn lane(port: u16) -> Lane {
    Lane { tunnel: 0, session: Some(session(port, true)) }
}

/// The pair of one session: `pair` is its number, and makes its keys and SPIs.
fn establish(host: &Host, port: u16, pair: u64, near: bool) {
    let (mut inbound, mut outbound) = Agreement { seed: pair, ..gcm() }.specs(near);
    for spec in [&mut inbound, &mut outbound] {
        spec.session = Some(session(port, near));
        spec.selector = session(port, near).selector();
    }
    host.shared.install_pair(&inbound, &outbound, &[3; 16]).unwrap();
    host.shared.activate_outbound(pair).unwrap();
}

fn exclusive(near: bool) -> Config {
    let mut config = tunnel_config(&gcm(), near);
    config.hosts =
        config.hosts.iter().map(|h| Arc::new(HostPolicy { exclusive: true, ..HostPolicy::clone(h) })).collect();
    config
}

fn hosts() -> (Host, Host) {
    (Host::new(&exclusive(true)), Host::new(&exclusive(false)))
}

fn acquired(host: &mut Host) -> Vec<Session> {
    let session = |e| match e {
        Event::Acquire { tunnel: 0, session, .. } => session,
        other => panic!("{other:?}"),
    };
    host.events().into_iter().filter_map(session).collect()
}

fn spis(wire: &[Arrival]) -> Vec<u32> {
    wire.iter().map(|a| crate::esp::spi(&a.packet).unwrap()).collect()
}

#[test]
fn each_session_waits_for_an_sa_of_its_own() {
    let (mut a, mut b) = hosts();
    let (x, y) = (from_port(1001, 40), from_port(1002, 40));
    a.send(&[x.clone(), y.clone(), x.clone()]);
    assert_eq!(acquired(&mut a), [session(1001, true), session(1002, true)]);
    assert_eq!((a.outbound.held(), a.shared.held(0), a.shared.sessions()), (3, 3, 2));
    // A pair that all share is of no use to them.
    a.establish(&Agreement { seed: 9, ..gcm() }, true);
    a.outbound.release(0, now(), &mut a.out);
    assert!(a.on_the_wire().is_empty() && a.in_the_clear().is_empty());

    establish(&a, 1001, 1, true);
    a.outbound.release(lane(1001), now(), &mut a.out);
    establish(&b, 1001, 1, false);
    let wire = a.on_the_wire();
    assert_eq!(spis(&wire), [0x1001; 2]);
    assert_eq!(b.receive(wire), [x.clone(), x.clone()]);
    assert_eq!(a.outbound.held(), 1, "the other waits for its own");

    establish(&a, 1002, 2, true);
    a.outbound.release(lane(1002), now(), &mut a.out);
    a.send(&[y.clone(), x.clone(), y.clone()]);
    let wire = a.on_the_wire();
    let mut of_each = spis(&wire);
    of_each.sort_unstable();
    assert_eq!(of_each, [0x1001, 0x1002, 0x1002, 0x1002]);
    assert_eq!((a.outbound.held(), a.totals().all_drops(), a.shared.sessions()), (0, 0, 2));
}

#[test]
fn a_session_that_fails_takes_no_other_with_it() {
    let (mut a, _) = hosts();
    a.send(&[from_port(1001, 40), from_port(1002, 40)]);
    a.outbound.fail(lane(1001));
    assert_eq!((a.drops(DropReason::NegotiationFailed), a.outbound.held(), a.shared.sessions()), (1, 1, 1));
    a.events();
    a.send(&[from_port(1001, 40), from_port(1002, 40)]);
    assert_eq!(acquired(&mut a), [session(1001, true)], "the next packet asks again");
}

#[test]
fn the_pair_of_a_session_is_for_nothing_else_and_nothing_else_for_it() {
    let (mut a, mut b) = hosts();
    // The peer has no such policy, and sends everything with what all share.
    let mut peer = Host::of(&gcm(), true, true);
    b.establish(&gcm(), false);
    establish(&b, 1001, 2, false);
    peer.send(&[from_port(1001, 40)]);
    let wire = peer.on_the_wire();
    assert!(b.receive(wire).is_empty());
    assert_eq!(b.drops(DropReason::WrongSession), 1);
    // Another session, by the SA of the first.
    let mut confused = exclusive(true);
    confused.hosts.clear();
    let tunnel = Arc::clone(&confused.tunnels[0]);
    confused.add_host(vec![tunnel.selector.clone()], HostAction::Tunnel(tunnel));
    let mut confused = Host::new(&confused);
    let (inbound, outbound) = Agreement { seed: 2, ..gcm() }.specs(true);
    confused.shared.install_pair(&inbound, &outbound, &[3; 16]).unwrap();
    confused.shared.activate_outbound(2).unwrap();
    confused.send(&[from_port(1002, 40), from_port(1001, 40)]);
    let wire = confused.on_the_wire();
    assert_eq!(b.receive(wire), [from_port(1001, 40)]);
    assert_eq!(b.drops(DropReason::SelectorMismatch), 1);
    // And the reverse: a policy that shares its SAs takes nothing from the pair of a session.
    let mut shared = Host::of(&gcm(), false, true);
    establish(&shared, 1001, 3, false);
    establish(&a, 1001, 3, true);
    a.send(&[from_port(1001, 40)]);
    let wire = a.on_the_wire();
    assert!(shared.receive(wire).is_empty());
    assert_eq!(shared.drops(DropReason::WrongSession), 1);
}

#[test]
fn there_are_no_more_sessions_than_may_be() {
    let mut config = exclusive(true);
    config.startup.exclusive_sessions = 3;
    let mut a = Host::new(&config);
    establish(&a, 1001, 1, true);
    a.send(&(1001..=1010).map(|port| from_port(port, 40)).collect::<Vec<_>>());
    assert_eq!(acquired(&mut a), [session(1002, true), session(1003, true)]);
    assert_eq!((a.drops(DropReason::SessionLimit), a.outbound.held(), a.shared.sessions()), (7, 2, 3));
    assert_eq!(a.on_the_wire().len(), 1, "those that are there go on");
    // One goes, and makes room for another.
    a.shared.remove_pair(1).unwrap();
    a.send(&[from_port(1004, 40), from_port(1005, 40)]);
    assert_eq!((acquired(&mut a), a.drops(DropReason::SessionLimit)), (vec![session(1004, true)], 8));
}

#[test]
fn all_queues_of_sessions_together_have_a_bound() {
    let mut a = Host::new(&exclusive(true));
    // Of eight packets each, and of sixteen times as many.
    for port in 1001..1101 {
        a.send(&vec![from_port(port, 40); 2]);
    }
    assert_eq!((a.outbound.held(), a.drops(DropReason::HoldQueueFull)), (128, 72));
    assert_eq!(acquired(&mut a).len(), 100, "asked for all the same");
    a.outbound.fail(lane(1001));
    a.send(&[from_port(1100, 40)]);
    assert_eq!(a.outbound.held(), 127);
}

#[test]
fn a_newer_pair_takes_over_and_gives_back() {
    let (mut a, _) = hosts();
    let sent_with = |a: &mut Host| {
        a.send(&[from_port(1001, 40)]);
        let wire = a.on_the_wire();
        spis(&wire)
    };
    establish(&a, 1001, 1, true);
    establish(&a, 1001, 2, true);
    assert_eq!(sent_with(&mut a), [0x1002]);
    a.shared.remove_pair(2).unwrap();
    assert_eq!(sent_with(&mut a), [0x1001]);
    assert_eq!(a.shared.sessions(), 1);
    a.shared.remove_pair(1).unwrap();
    assert_eq!((sent_with(&mut a), a.outbound.held()), (vec![], 1));
    assert_eq!(acquired(&mut a), [session(1001, true)]);
}

#[test]
fn fragments_go_with_the_first_of_their_packet_and_alone_nowhere() {
    let (mut a, mut b) = hosts();
    establish(&a, 1001, 1, true);
    establish(&b, 1001, 1, false);
    let whole = from_port(1001, 3000);
    let mut pieces = Vec::new();
    let mut cut = Fragments::new(&whole, 1400).unwrap();
    let mut room = vec![0; 2000];
    while let Some(len) = cut.next_into(&mut room) {
        pieces.push(room[..len].to_vec());
    }
    assert_eq!(pieces.len(), 3);
    a.send(&pieces[1..]);
    assert!(a.on_the_wire().is_empty() && a.in_the_clear().is_empty() && acquired(&mut a).is_empty());
    a.send(&pieces[..1]);
    let wire = a.on_the_wire();
    assert_eq!(b.receive(wire), [whole]);
    // As whoever sees one alone would decide.
    let spd = a.shared.spd.load();
    let headers = crate::headers::Headers::parse(&pieces[1]).unwrap();
    let verdict = spd.decide(&headers.tuple, Direction::Outbound);
    assert_eq!(verdict.reason, Some(DropReason::FragmentPortsHidden));
}

/// ICMP is one session for two addresses, whatever the types: IKEv1 cannot tell them apart.
#[test]
fn icmp_between_two_addresses_is_one_session() {
    let mut a = Host::new(&exclusive(true));
    let icmp = |kind: etherparse::Icmpv4Type| {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4(LOCAL_V4, REMOTE_V4, 64).icmpv4(kind).write(&mut packet, &[1; 20]).unwrap();
        packet
    };
    let echo = etherparse::IcmpEchoHeader { id: 1, seq: 1 };
    a.send(&[icmp(etherparse::Icmpv4Type::EchoRequest(echo)), icmp(etherparse::Icmpv4Type::EchoReply(echo))]);
    let sessions = acquired(&mut a);
    assert_eq!((sessions.len(), sessions[0].to_string().as_str()), (1, "1 10.1.0.1 <=> 10.2.0.1"));
    assert_eq!(a.outbound.held(), 2);
}
