//! What came through an SA, against the ordered policies.

use super::*;
use crate::testing::LOCAL_V4;

/// A UDP packet to the near side.
fn from(source: [u8; 4], source_port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(source, LOCAL_V4, 64);
    builder.udp(source_port, 1024).write(&mut packet, &[1; 40]).unwrap();
    packet
}

fn named(tunnel: &str, seed: u64) -> Agreement {
    Agreement { tunnel: tunnel.into(), seed, ..gcm() }
}

/// What the peer of a tunnel sends, whatever its own policies may be.
fn sent_by(peer: &mut Host, packets: &[Vec<u8>]) -> Vec<Arrival> {
    peer.send(packets);
    let wire = peer.on_the_wire();
    assert_eq!(wire.len(), packets.len());
    wire
}

fn everything() -> Selector {
    tunnel_policy(&gcm(), true).selector.clone()
}

fn of_network(prefix: [u8; 4]) -> Selector {
    Selector { remote: AddressRange::prefix(IpAddr::from(prefix), 24).unwrap(), ..everything() }
}

/// 10.2.1.0/24 is behind one peer, and the rest of 10.2.0.0/16 behind another.
fn nested() -> Config {
    let mut config = empty_config();
    let wide = tunnel_policy(&named("wide", 1), true);
    let narrow = tunnel_policy(&named("narrow", 2), true);
    let narrow = Arc::new(TunnelPolicy { selector: of_network([10, 2, 1, 0]), ..TunnelPolicy::clone(&narrow) });
    config.tunnels = vec![Arc::clone(&wide), Arc::clone(&narrow)];
    config.add_host(vec![narrow.selector.clone()], HostAction::Tunnel(narrow));
    config.add_host(vec![wide.selector.clone()], HostAction::Tunnel(wide));
    config
}

fn establish_narrow(near: &Host) {
    let (mut inbound, mut outbound) = named("narrow", 2).specs(true);
    (inbound.selector, outbound.selector) = (of_network([10, 2, 1, 0]), of_network([10, 2, 1, 0]));
    near.shared.install_pair(&inbound, &outbound, &[0; 16]).unwrap();
    near.shared.activate_outbound(2).unwrap();
}

#[test]
fn of_nested_tunnels_each_peer_speaks_for_its_own_hosts_alone() {
    let mut near = Host::new(&nested());
    near.establish(&named("wide", 1), true);
    establish_narrow(&near);
    let mut peers = [Host::of(&named("wide", 1), false, true), Host::of(&named("narrow", 2), false, true)];
    let (inside, outside) = (from([10, 2, 1, 5], 80), from([10, 2, 9, 5], 80));
    for _ in 0..2 {
        // From the policies, and then from the cache.
        let wire = sent_by(&mut peers[0], &[inside.clone(), outside.clone(), inside.clone()]);
        assert_eq!(near.receive(wire), std::slice::from_ref(&outside));
        let wire = sent_by(&mut peers[1], &[inside.clone(), outside.clone()]);
        assert_eq!(near.receive(wire), std::slice::from_ref(&inside));
    }
    assert_eq!((near.drops(DropReason::WrongTunnel), near.drops(DropReason::SelectorMismatch)), (4, 2));
    // Dropped before they use the SA up.
    assert_eq!(near.shared.pair(1).unwrap().inbound.packets(), 2);
}

#[test]
fn what_a_policy_before_the_tunnel_says_holds_inbound_too() {
    let cases = [
        (HostAction::Discard, DropReason::PolicyDiscard),
        // What is to come in the clear does not come protected: its answer would leave in the clear.
        (HostAction::Pass, DropReason::WrongTunnel),
    ];
    for (action, reason) in cases {
        let mut config = empty_config();
        let tunnel = tunnel_policy(&gcm(), true);
        config.tunnels.push(Arc::clone(&tunnel));
        let telnet = PortSelector::Ports { local: (0, u16::MAX), remote: (23, 23) };
        let first = Selector { protocol: Some(17), ports: telnet, ..everything() };
        config.add_host(vec![first], action);
        config.add_host(vec![everything()], HostAction::Tunnel(tunnel));
        let mut near = Host::new(&config);
        near.establish(&gcm(), true);
        let mut far = Host::of(&gcm(), false, true);
        let (telnet, web) = (from(REMOTE_V4, 23), from(REMOTE_V4, 80));
        let wire = sent_by(&mut far, &[telnet.clone(), web.clone(), telnet]);
        assert_eq!(near.receive(wire), [web]);
        assert_eq!(near.drops(reason), 2);
    }
}

#[test]
fn bypassed_addresses_and_what_no_policy_covers_do_not_come_out_of_a_tunnel() {
    let mut config = tunnel_config(&gcm(), true);
    config.bypass.push(AddressRange::single(IpAddr::from(LOCAL_V4)));
    // A tunnel that may carry everything, of which the policies protect the half.
    let mut half = tunnel_config(&gcm(), true);
    half.hosts.clear();
    let tunnel = Arc::clone(&half.tunnels[0]);
    half.add_host(vec![of_network([10, 2, 0, 0])], HostAction::Tunnel(tunnel));
    for (config, source) in [(config, REMOTE_V4), (half, [10, 2, 7, 7])] {
        let mut near = Host::new(&config);
        near.establish(&gcm(), true);
        let wire = sent_by(&mut Host::of(&gcm(), false, true), &[from(source, 80)]);
        assert!(near.receive(wire).is_empty());
        assert_eq!(near.drops(DropReason::WrongTunnel), 1);
    }
}

#[test]
fn new_policies_hold_for_the_next_packet_of_an_old_sa() {
    let mut near = Host::of(&gcm(), true, true);
    let mut far = Host::of(&gcm(), false, true);
    let packet = from(REMOTE_V4, 80);
    let mut deliver = |near: &mut Host| {
        let wire = sent_by(&mut far, std::slice::from_ref(&packet));
        near.receive(wire).len()
    };
    assert_eq!(deliver(&mut near), 1);
    // Nothing changes for it.
    near.shared.replace_policies(&tunnel_config(&gcm(), true), |_| {});
    assert_eq!(deliver(&mut near), 1);
    // The tunnel has another peer: the old one does not speak for it.
    let mut config = tunnel_config(&gcm(), true);
    let moved = TunnelPolicy { tdestination: [192, 0, 2, 99].into(), ..TunnelPolicy::clone(&config.tunnels[0]) };
    config.hosts.clear();
    let moved = Arc::new(moved);
    config.tunnels = vec![Arc::clone(&moved)];
    config.add_host(vec![everything()], HostAction::Tunnel(moved));
    near.shared.replace_policies(&config, |_| {});
    assert_eq!((deliver(&mut near), near.drops(DropReason::WrongTunnel)), (0, 1));
    // The tunnel is gone.
    near.shared.replace_policies(&empty_config(), |_| {});
    assert_eq!((deliver(&mut near), near.drops(DropReason::WrongTunnel)), (0, 2));
}

#[test]
fn at_the_hard_limit_new_conversations_are_dropped_inbound_too() {
    let mut config = tunnel_config(&gcm(), true);
    (config.startup.spd_soft, config.startup.spd_hard) = (1, 2);
    let mut near = Host::new(&config);
    near.establish(&gcm(), true);
    let mut far_config = tunnel_config(&gcm(), false);
    (far_config.startup.spd_soft, far_config.startup.spd_hard) = (10, 20);
    let mut far = Host::new(&far_config);
    far.establish(&gcm(), false);
    let all: Vec<_> = (0..2100).map(|n| from(REMOTE_V4, n)).collect();
    for _ in 0..2 {
        let mut delivered = 0;
        for some in all.chunks(BATCH) {
            let wire = sent_by(&mut far, some);
            delivered += near.receive(wire).len();
        }
        assert_eq!(delivered, 2000, "cached conversations go on");
    }
    assert_eq!(near.drops(DropReason::SpdHardLimit), 200);
    let told = near.events().iter().filter(|e| matches!(e, Event::Cache(_))).count();
    assert_eq!(told, 3, "two soft limits, and the hard one once");
}
