//! The ordered policies: large datagrams where policies look at ports.

use tests::caponier::{Caponier, Configuration};
use tests::capture::Capture;
use tests::cases::PRESHARED;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::traffic;

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
