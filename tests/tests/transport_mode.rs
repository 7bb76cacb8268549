//! Transport mode: two hosts, no networks behind them, and the outer addresses
//! are the ones that programs use.

use std::net::{IpAddr, UdpSocket};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture, Kind};
use tests::cases::{Case, PLAIN};
use tests::endpoint;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};
use tests::{process, wait};

/// Transport mode between two addresses.
fn transport(me: &Host, peer: &Host, local: IpAddr, remote: IpAddr, esp: &'static str) -> Tunnel {
    Tunnel {
        local,
        remote,
        source: local.to_string(),
        destination: remote.to_string(),
        more: "mode = \"transport\"".into(),
        ..Tunnel::new(me, peer, Case { esp, ..PLAIN })
    }
}

/// Only this kind of frame, beside IKE and neighbour discovery: no echo, no TCP, no UDP.
#[track_caller]
fn assert_only(frames: &[Vec<u8>], protected: Kind) {
    // Of fragments the census reads no ports; the first shows them, for all.
    let (fragments, whole): (Vec<_>, Vec<_>) =
        frames.iter().cloned().partition(|f| f[12..14] == [8, 0] && u16::from_be_bytes([f[20], f[21]]) & 0x3fff != 0);
    for fragment in fragments {
        let first = u16::from_be_bytes([fragment[20], fragment[21]]) & 0x1fff == 0;
        let in_udp = [&fragment[34..36], &fragment[36..38]].contains(&&4500u16.to_be_bytes()[..]);
        assert!(fragment[23] == 50 || !first || in_udp, "{fragment:02x?}");
    }
    let census = capture::census(&whole);
    for clear in [Kind::Clear, Kind::OuterIcmp] {
        assert_eq!(census.get(&clear), None, "{census:?}");
    }
    assert!(census.get(&protected) >= Some(&20), "{census:?}");
}

/// A datagram of many fragments there, and an answer back.
#[track_caller]
fn long_datagram(a: &Host, from: IpAddr, b: &Host, to: IpAddr, seen_as: IpAddr) {
    let listener = traffic::udp(b, to, 0, 10);
    let to = listener.local_addr().expect("its address");
    let sender = a.inside(|| UdpSocket::bind((from, 0))).expect("a UDP socket");
    let sent: Vec<u8> = (0..6000u32).map(|n| (n * 7) as u8).collect();
    sender.send_to(&sent, to).expect("sent");
    let mut buffer = vec![0; 9000];
    let (len, peer) = listener.recv_from(&mut buffer).expect("a long datagram");
    assert!(buffer[..len] == sent, "its content");
    assert_eq!(peer.ip(), seen_as);
    listener.send_to(b"got it", peer).expect("sent");
    sender.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time-out");
    let (len, peer) = sender.recv_from(&mut buffer).expect("the answer");
    assert_eq!((&buffer[..len], peer), (&b"got it"[..], to));
}

#[test]
fn echo_tcp_and_udp_over_both_families() {
    let Some(lab) = Lab::open("transport", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    for (x, y, esp) in [(a.outer(), b.outer(), "aes128-sha1"), (a.outer6(), b.outer6(), "aes256gcm16-esn")] {
        // A reverse path filter, loose: what most distributions set.
        for host in [a, b] {
            host.run(10, "sh", &["-c", "echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter"]).ok("rp_filter");
        }
        let at_a = Caponier::start(a, &Configuration::new(transport(a, b, x, y, esp)));
        let at_b = Caponier::start(b, &Configuration::new(transport(b, a, y, x, esp)));
        let wire = Capture::start(a, "outer");
        assert_eq!(traffic::ping(a, x, y, 3, 10), 3, "the first is not lost");
        assert_eq!(traffic::ping(b, y, x, 3, 10), 3);
        let transfer = Transfer::start(a, x, b, y, 300_000);
        transfer.finish();
        long_datagram(a, x, b, y, x);
        for (us, tunnel) in [(&at_a, "to_b"), (&at_b, "to_a")] {
            assert_eq!(us.pairs(tunnel).len(), 1);
            for sa in us.report("sad") {
                assert_eq!(sa["mode"], "Transport", "{sa}");
                assert!(sa["packets"].as_u64() >= Some(10), "{sa}");
            }
            assert_eq!(us.counter("cleartext_leaks"), 0);
        }
        assert_only(&wire.stop(), Kind::Esp);

        // Without the daemon nothing leaves in the clear, in either direction.
        at_a.kill();
        let wire = Capture::start(b, "outer");
        assert_eq!(traffic::ping(a, x, y, 2, 1), 0);
        assert_eq!(traffic::ping(b, y, x, 2, 1), 0);
        let census = capture::census(&wire.stop());
        assert_eq!((census.get(&Kind::Clear), census.get(&Kind::OuterIcmp)), (None, None), "{census:?}");
        let at_a = Caponier::start(a, &Configuration::new(transport(a, b, x, y, esp)));
        assert_eq!(traffic::ping(a, x, y, 2, 10), 2, "and with it again all is well");
        at_a.stop();
        at_b.stop();
    }
}

/// A host behind a NAT: checksums are of addresses that its peer never sees (RFC 3947 5.2).
#[test]
fn behind_a_nat() {
    let Some(lab) = Lab::open("transport-nat", 3, &[Need::Capture]) else { return };
    let [a, b, router] = lab.hosts() else { panic!("three hosts") };
    lab.link(a, "lan", "192.168.7.2/24", router, "lan", "192.168.7.1/24");
    a.run(10, "ip", &["link", "set", "outer", "down"]).ok("the only way is through the router");
    a.run(10, "ip", &["route", "add", "default", "via", "192.168.7.1"]).ok("its route");
    let nat = "table ip nat {
  chain out {
    type nat hook postrouting priority 100
    oifname \"outer\" masquerade
  }
}
";
    let rules = router.directory.join("nat.nft");
    std::fs::write(&rules, nat).expect("the router's rules");
    let rules = rules.to_str().expect("a path of text");
    process::run(router.command("nft").args(["-f", rules]), 10).ok("nft");

    let private: IpAddr = [192, 168, 7, 2].into();
    let (public, far) = (router.outer(), b.outer());
    let at_a = Caponier::start(a, &Configuration::new(transport(a, b, private, far, "aes128-sha1")));
    let mut of_b = Configuration::new(transport(b, a, far, public, "aes128-sha1"));
    of_b.tunnels[0].more.push_str("\nstart = \"respond\"");
    let identity = format!("rtype = \"IPV4\"\nrid = \"{private}\"\n");
    // Behind the record of the peer, which is the last in the file.
    of_b.more = identity;
    let at_b = Caponier::start(b, &of_b);
    let wire = Capture::start(b, "outer");
    assert_eq!(traffic::ping(a, private, far, 3, 10), 3);
    assert_eq!(traffic::ping(b, far, public, 2, 10), 2, "and back through the same pair");
    let transfer = Transfer::start(a, private, b, far, 300_000);
    transfer.finish();
    long_datagram(a, private, b, far, public);
    for sa in at_b.report("sad") {
        assert_eq!(sa["mode"], "Transport", "{sa}");
        assert!(sa["udp_encapsulation"].is_array(), "{sa}");
    }
    // A rekey of either side changes nothing.
    at_a.admin(&["-rekey_sa", "to_b"]);
    assert_eq!(traffic::ping(a, private, far, 2, 10), 2);
    wait::until_true("both sides to agree on one pair", 40, || {
        let ours = at_a.pairs("to_b");
        ours.len() == 1 && at_b.pairs("to_a") == [(ours[0].1, ours[0].0)]
    });
    let transfer = Transfer::start(a, private, b, far, 100_000);
    transfer.finish();
    assert_only(&wire.stop(), Kind::NatTraversal);
}

/// strongSwan negotiates, scapy does the packets: neither owes Caponier anything.
#[test]
fn with_a_strongswan_peer() {
    let needs = [Need::StrongSwan, Need::Capture, Need::Scapy, Need::Cc];
    let Some(lab) = Lab::open("transport-swan", 2, &needs) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut connection = Connection::new(b, a, PLAIN);
    (connection.local_ts, connection.remote_ts) = ("dynamic".into(), "dynamic".into());
    connection.more_child.push_str("mode = transport\n");
    let swan = StrongSwan::start(b, &connection, &Esp::Shim(endpoint::shim(&lab)));
    let at_a = Caponier::start(a, &Configuration::new(transport(a, b, a.outer(), b.outer(), PLAIN.esp)));
    let wire = Capture::start(a, "outer");
    let echo = endpoint::echo_at(b, b.outer());
    assert_eq!(traffic::ping(a, a.outer(), b.outer(), 3, 10), 3);
    assert!(swan.sas().contains("TRANSPORT"), "{}", swan.sas());
    assert_eq!(at_a.pairs("to_b"), swan.pairs().into_iter().map(|(i, o)| (o, i)).collect::<Vec<_>>());
    drop(echo);
    // strongSwan as initiator.
    swan.rekey_child();
    endpoint::ping_at(b, b.outer(), a.outer());
    for sa in at_a.report("sad") {
        assert_eq!(sa["mode"], "Transport", "{sa}");
    }
    let census = capture::census(&wire.stop());
    assert_eq!(census.get(&Kind::Clear), None, "{census:?}");
    assert!(census.get(&Kind::Esp) >= Some(&12), "{census:?}");
}
