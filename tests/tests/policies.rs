//! The ordered policies, both ways: nested tunnels, and large datagrams where policies look at ports.

use std::net::{IpAddr, UdpSocket};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::Capture;
use tests::cases::{PLAIN, PRESHARED};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::traffic;

/// Behind c is 10.99.1.0/24, and behind b the rest of 10.99.0.0/16: b must not speak for c.
#[test]
fn of_nested_tunnels_each_peer_speaks_for_its_own_hosts_alone() {
    let Some(lab) = Lab::open("nested", 3, &[]) else { return };
    let [a, b, c] = lab.hosts() else { unreachable!("three hosts") };
    let (wide, narrow) = ("10.99.0.0/16", "10.99.1.0/24");
    let tunnel = |me: &Host, peer: &Host, ours: &str, theirs: &str| Tunnel {
        source: ours.into(),
        destination: theirs.into(),
        ..Tunnel::new(me, peer, PLAIN)
    };
    let at_a = vec![tunnel(a, c, &a.network(), narrow), tunnel(a, b, &a.network(), wide)];
    let at_a = Caponier::start(a, &Configuration { tunnels: at_a, ..Configuration::default() });
    let _at_b = Caponier::start(b, &Configuration::new(tunnel(b, a, wide, &a.network())));
    let _at_c = Caponier::start(c, &Configuration::new(tunnel(c, a, narrow, &a.network())));
    let address = |host: &Host, address: &str| -> IpAddr {
        host.run(10, "ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"]).ok("ip addr add");
        address.parse().expect("an address")
    };
    let (of_b, of_c, forged) = (address(b, "10.99.9.1"), address(c, "10.99.1.1"), address(b, "10.99.1.1"));
    assert_eq!(traffic::ping(b, of_b, a.inner(), 2, 10), 2);
    assert_eq!(traffic::ping(c, of_c, a.inner(), 2, 10), 2);
    assert_eq!(at_a.counter("wrong_tunnel"), 0);

    let listener = traffic::udp(a, a.inner(), 9, 2);
    let forger = b.inside(|| UdpSocket::bind((forged, 0))).expect("a UDP socket");
    forger.send_to(b"forged", (a.inner(), 9)).expect("sent");
    assert!(listener.recv(&mut [0; 16]).is_err(), "b has spoken for c");
    assert_eq!(at_a.counter("wrong_tunnel"), 1);
    // Those of its own go on.
    assert_eq!(traffic::ping(b, of_b, a.inner(), 2, 10), 2);
    assert_eq!(traffic::ping(c, of_c, a.inner(), 2, 10), 2);
}

/// Only UDP port 9009 of b is protected, in tunnels that carry more, or no more than that.
fn by_port(me: &Host, peer: &Host, serves: bool, narrow: bool) -> Configuration {
    let mut more = String::new();
    let families = [
        ("four", me.network(), peer.network(), me.outer(), peer.outer()),
        ("six", me.network6(), peer.network6(), me.outer(), peer.outer()),
    ];
    for (name, ours, theirs, local, remote) in families {
        let (ours_by_port, theirs_by_port) =
            if serves { (format!("{ours}/9009"), theirs.clone()) } else { (ours.clone(), format!("{theirs}/9009")) };
        let by_port = format!("source = \"{ours_by_port}\"\ndestination = \"{theirs_by_port}\"\nprotocol = \"UDP\"");
        let all = format!("source = \"{ours}\"\ndestination = \"{theirs}\"");
        let carried = if narrow { &by_port } else { &all };
        more += &format!(
            "[[host]]\nname = \"{name}\"\n{by_port}\ntunnel = \"{name}\"\n\
             [[tunnel]]\nname = \"{name}\"\ntsource = \"{local}\"\ntdestination = \"{remote}\"\n{carried}\naction = \"aes128-sha1\"\n"
        );
    }
    let peer = peer.outer();
    more += &format!(
        "[[ike]]\nname = \"peer\"\nremote = \"{peer}\"\nproposals = [\"aes128-sha1-modp2048\"]\n\
         [[auth]]\nname = \"peer\"\nremote = \"{peer}\"\npreshared = \"{PRESHARED}\"\n"
    );
    Configuration { more, ..Configuration::default() }
}

/// Datagrams of 4000 octets there and back, which the kernel fragments before we see them.
fn large_datagrams(name: &str, narrow: bool) {
    let Some(lab) = Lab::open(name, 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let at_a = Caponier::start(a, &by_port(a, b, false, narrow));
    let at_b = Caponier::start(b, &by_port(b, a, true, narrow));
    let wire = Capture::start(a, "outer");
    for (from, to) in [(a.inner(), b.inner()), (a.inner6(), b.inner6())] {
        let server = traffic::udp(b, to, 9009, 15);
        let client = traffic::udp(a, from, 0, 15);
        for n in 0..3u8 {
            let datagram: Vec<u8> = b"in the clear?".iter().copied().cycle().take(3999).chain([n]).collect();
            let mut buffer = [0; 8000];
            // The first waits for the SA.
            client.send_to(&datagram, (to, 9009)).expect("sent");
            let (len, back) = server.recv_from(&mut buffer).expect("a large datagram at the server");
            assert_eq!(buffer[..len], datagram);
            server.send_to(&datagram, back).expect("sent");
            let len = client.recv(&mut buffer).expect("a large datagram back at the client");
            assert_eq!(buffer[..len], datagram);
        }
    }
    for daemon in [&at_a, &at_b] {
        for drop in ["fragment_ports_hidden", "fragments_missing", "selector_mismatch", "wrong_tunnel", "too_big"] {
            assert_eq!(daemon.counter(drop), 0, "{drop}");
        }
        assert_eq!(daemon.counter("fragments_joined") > 0, narrow);
    }
    let frames = wire.stop();
    assert!(frames.len() > 36, "{} frames", frames.len());
    let leaked = frames.iter().any(|f| f.windows(13).any(|w| w == b"in the clear?"));
    assert!(!leaked, "protected data in the clear");
}

#[test]
fn large_datagrams_where_host_policies_look_at_ports() {
    large_datagrams("large-hosts", false);
}

#[test]
fn large_datagrams_where_tunnels_look_at_ports() {
    large_datagrams("large-tunnels", true);
}

/// The bypass list is of local addresses, of either family: shown, warned of, and in the clear.
#[test]
fn a_bypassed_address_goes_in_the_clear_and_is_warned_of() {
    let Some(lab) = Lab::open("bypass", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let both = |me: &Host, peer: &Host, more: &str| {
        let six = Tunnel { source: me.network6(), destination: peer.network6(), ..Tunnel::new(me, peer, PLAIN) };
        let tunnels = vec![Tunnel::new(me, peer, PLAIN), Tunnel { name: "six".into(), ..six }];
        Configuration { tunnels, more: more.into(), ..Configuration::default() }
    };
    let (four, six) = ("10.78.1.7", "fd78:1::7");
    let list = format!("[[bypass]]\naddress = \"{four}\"\n[[bypass]]\naddress = \"{six}\"\n");
    let at_a = Caponier::start(a, &both(a, b, &list));
    // Of which a has one address.
    a.run(10, "ip", &["addr", "add", &format!("{four}/32"), "dev", "inner"]).ok("an address");
    let shown = at_a.report("bypass");
    let addresses: Vec<_> = shown.iter().map(|entry| &entry["address"]).collect();
    assert_eq!(addresses, [four, six]);
    assert_eq!(
        (&shown[0]["interfaces"], &shown[1]["interfaces"]),
        (&serde_json::json!(["inner"]), &serde_json::json!([]))
    );

    let ask = |source: &str, destination: &str, direction: &str| {
        let args = ["-sa", source, "-da", destination, "-p", "tcp", "-dir", direction];
        at_a.command(10, "ipsec_policy", &args).ok("ipsec_policy")
    };
    let (b4, b6) = (b.inner().to_string(), b.inner6().to_string());
    for (ours, theirs, policy) in [(four, &b4, "to_b"), (six, &b6, "six")] {
        for text in [ask(ours, theirs, "out"), ask(theirs, ours, "in")] {
            assert!(text.contains("Action: Pass"), "{text}");
            let warning = format!("bypass {ours} makes host policy `{policy}`");
            assert!(text.contains("-- Warnings --") && text.contains(&warning), "{text}");
        }
        // The other side's address does not count.
        assert!(!ask(theirs, ours, "out").contains("bypass "));
    }
    let text = ask(&a.inner().to_string(), &b4, "out");
    assert!(text.contains("Action: Secure") && text.contains(&format!("bypass {four}: traffic of {four}")), "{text}");

    // The peer has no policies: it is reached in the clear, from the one address alone.
    b.run(10, "ip", &["route", "add", "10.78.1.0/24", "via", &a.outer().to_string()]).ok("a route");
    a.run(10, "ip", &["route", "add", "10.78.2.0/24", "via", &b.outer().to_string()]).ok("a route");
    assert_eq!(traffic::ping(a, four.parse().expect("an address"), b.inner(), 2, 2), 2);
    assert_eq!(traffic::ping(a, a.inner(), b.inner(), 1, 1), 0);
    assert_eq!(at_a.counter("cleartext_leaks"), 0);
}
