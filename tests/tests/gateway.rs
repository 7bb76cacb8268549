//! Gateways that take packets from their interfaces themselves (AF_PACKET), and hosts behind them that know of nothing.
//!
//! ```text
//! c 10.78.1.2 -- inside a outer -- 10.77.0.0/24 -- outer b inside -- 10.78.2.2 d
//! ```
//!
//! The gateways' kernels would forward too, if the guard let them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};

fn ip(host: &Host, arguments: &str) {
    host.run(20, "ip", &arguments.split(' ').collect::<Vec<_>>()).ok(&format!("{}: ip {arguments}", host.name));
}

/// What ping says, in the end of a few seconds.
fn ping(host: &Host, arguments: &str) -> String {
    let finished = host.run(30, "ping", &[&["-n"][..], &arguments.split(' ').collect::<Vec<_>>()].concat());
    finished.stdout
}

/// Puts a host behind a gateway, whose network is that behind `gateway` in every lab.
fn behind(lab: &Lab, gateway: &Host, host: &Host) {
    // It has no other way than through the gateway.
    ip(host, "link del outer");
    ip(host, "link del inner");
    ip(gateway, "link del inner");
    let near = gateway.inner();
    lab.link(host, "eth0", &format!("{}/24", address(gateway)), gateway, "inside", &format!("{near}/24"));
    ip(host, &format!("route add default via {near}"));
    let near = gateway.inner6();
    ip(gateway, &format!("addr add {near}/64 dev inside nodad"));
    ip(host, &format!("addr add {}/64 dev eth0 nodad", address6(gateway)));
    ip(host, &format!("-6 route add default via {near}"));
}

/// The address of the host behind a gateway.
fn address(gateway: &Host) -> IpAddr {
    match gateway.inner() {
        IpAddr::V4(a) => (Ipv4Addr::from_bits(a.to_bits() + 1)).into(),
        IpAddr::V6(_) => unreachable!("it is IPv4"),
    }
}

fn address6(gateway: &Host) -> IpAddr {
    match gateway.inner6() {
        IpAddr::V6(a) => (Ipv6Addr::from_bits(a.to_bits() + 1)).into(),
        IpAddr::V4(_) => unreachable!("it is IPv6"),
    }
}

/// With tunnels for both families to a peer, and the rest of the file.
fn configuration(me: &Host, peer: &Host, workers: u32, more: &str) -> Configuration {
    let four = Tunnel::new(me, peer, PLAIN);
    let six = Tunnel { name: "six".into(), source: me.network6(), destination: peer.network6(), ..four.clone() };
    let gateway = format!("[gateway]\ninside = \"inside\"\noutside = \"outer\"\nworkers = {workers}\n");
    Configuration { tunnels: vec![four, six], more: format!("{gateway}{more}"), ..Configuration::default() }
}

#[test]
fn two_hosts_unaware_of_two_gateways() {
    let Some(lab) = Lab::open("gateways", 4, &[Need::Capture, Need::Nft]) else { return };
    let [a, b, c, d] = lab.hosts() else { unreachable!("four were asked for") };
    behind(&lab, a, c);
    behind(&lab, b, d);
    let near = Caponier::start(a, &configuration(a, b, 2, ""));
    let far = Caponier::start(b, &configuration(b, a, 1, ""));
    let wire = Capture::start_headers(a, "outer");

    let (from, to) = (address(a), address(b));
    assert_eq!(traffic::ping(c, from, to, 3, 10), 3, "IPv4");
    assert_eq!(traffic::ping(c, address6(a), address6(b), 3, 10), 3, "IPv6");
    // An Ethernet packet does not fit a tunnel over Ethernet: it is cut on its way, or its sender is told.
    let cut = near.counter("fragments_added");
    assert!(ping(c, &format!("-c 2 -M dont -s 1472 -W 5 {to}")).contains(" 2 received"));
    assert!(near.counter("fragments_added") >= cut + 2);
    let told = ping(c, &format!("-c 1 -M do -s 1472 -W 5 {to}"));
    assert!(told.contains("Frag needed and DF set (mtu = 14"), "{told}");
    assert!(ping(c, &format!("-c 2 -s 4000 -W 5 {to}")).contains(" 2 received"), "the host's own fragments");
    assert!(ping(c, &format!("-c 3 -s 4000 -W 5 {}", address6(b))).contains(" received"));
    for (from, to) in [(from, to), (address6(a), address6(b))] {
        let transfer = Transfer::start(c, from, d, to, 4 << 20);
        transfer.finish();
    }

    let frames = wire.stop();
    for frame in &frames {
        assert_ne!(capture::kind(frame), capture::Kind::Clear, "clear-text on the wire: {frame:02x?}");
    }
    for gateway in [&near, &far] {
        assert_eq!((gateway.counter("cleartext_leaks"), gateway.counter("bypassed_out")), (0, 0));
        assert!(gateway.counter("received") > 1000 && gateway.counter("left_to_kernel") > 0);
        assert_eq!(gateway.counter("malformed") + gateway.counter("frame_cut") + gateway.counter("header_checksum"), 0);
    }
}

#[test]
fn what_passes_in_the_clear_and_what_does_not() {
    let Some(lab) = Lab::open("gateway-clear", 4, &[Need::Nft]) else { return };
    let [a, b, c, d] = lab.hosts() else { unreachable!("four were asked for") };
    behind(&lab, a, c);
    behind(&lab, b, d);
    ip(a, "route add 10.99.0.0/16 via 10.77.0.2");
    ip(b, "route add 10.99.2.0/24 via 10.78.2.2");
    ip(b, "route add 10.99.4.0/24 via 10.78.2.77");
    ip(b, "route add 10.78.1.0/24 via 10.77.0.1");
    ip(d, "addr add 10.99.2.2/32 dev lo");
    let discard =
        "[[host]]\nname = \"drop\"\nsource = \"10.78.0.0/16\"\ndestination = \"10.99.3.0/24\"\naction = \"DISCARD\"\n";
    let near = Caponier::start(a, &configuration(a, b, 1, discard));

    // The far gateway is not one yet, and sends in the clear what is to come through the tunnel, and what is inside.
    let lost = |text: String| text.contains(" 0 received");
    ip(b, "addr add 10.78.1.77/32 dev lo");
    assert!(lost(ping(b, "-c 2 -W 1 -I 10.78.2.1 10.78.1.2")));
    assert!(near.counter("clear_text_protected") >= 2);
    assert!(lost(ping(b, "-c 2 -W 1 -I 10.78.1.77 10.78.1.2")));
    assert!(near.counter("not_forwardable") >= 2);
    ip(b, "addr del 10.78.1.77/32 dev lo");

    let far = Caponier::start(b, &configuration(b, a, 1, ""));
    let passed = ping(c, "-c 3 -i 0.2 -W 5 10.99.2.2");
    assert!(passed.contains(" 3 received") && !passed.contains("DUP!"), "{passed}");
    assert!(passed.contains("ttl=62"), "two routers on the way back: {passed}");
    assert!(ping(c, "-c 2 -i 0.2 -s 4000 -W 5 10.99.2.2").contains(" 2 received"), "in fragments");
    assert!(near.counter("bypassed_out") >= 5 && near.counter("bypassed_in") >= 5);
    // Routers as any other.
    assert!(ping(c, "-c 1 -t 1 -W 5 10.99.2.2").contains("From 10.78.1.1 icmp_seq=1 Time to live exceeded"));
    assert!(ping(c, "-c 1 -t 2 -W 5 10.99.2.2").contains("From 10.77.0.2 icmp_seq=1 Time to live exceeded"));
    assert!(ping(c, "-c 1 -W 5 10.55.0.1").contains("From 10.78.1.1 icmp_seq=1 Destination Net Unreachable"));
    assert!(ping(c, "-c 1 -W 10 10.99.4.1").contains("From 10.77.0.2 icmp_seq=1 Destination Host Unreachable"));
    assert_eq!((near.counter("no_route"), far.counter("neighbour_unreachable")), (1, 1));
    assert!(lost(ping(c, "-c 2 -i 0.2 -W 1 10.99.3.1")));
    assert!(near.counter("policy_discard") >= 2);
    // The gateway itself is a host as ever.
    assert!(ping(c, "-c 1 -W 5 10.78.1.1").contains(" 1 received"));

    // The daemon gone, nobody forwards: neither it nor the kernel, which the guard forbids it.
    near.kill();
    assert!(lost(ping(c, "-c 2 -i 0.2 -W 1 10.99.2.2")));
    assert!(ping(c, "-c 1 -W 5 10.78.1.1").contains(" 1 received"));
}

#[test]
fn strongswan_on_the_other_side() {
    let Some(lab) = Lab::open("gateway-swan", 3, &[Need::StrongSwan, Need::Capture, Need::Nft]) else { return };
    let [a, b, c] = lab.hosts() else { unreachable!("three were asked for") };
    behind(&lab, a, c);
    let _swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let near = Caponier::start(a, &configuration(a, b, 1, ""));
    let wire = Capture::start_headers(a, "outer");
    assert_eq!(traffic::ping(c, address(a), b.inner(), 3, 10), 3);
    // strongSwan's own TUN interface takes packets of 1400 octets.
    Transfer::start(c, address(a), b, b.inner(), 1 << 20).finish();
    let frames = wire.stop();
    for frame in &frames {
        assert_ne!(capture::kind(frame), capture::Kind::Clear, "clear-text on the wire: {frame:02x?}");
    }
    assert_eq!(near.counter("cleartext_leaks"), 0);
}
