//! The Authentication Header: what it protects can be read on the way, and not changed.

use std::net::IpAddr;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture, Kind};
use tests::cases::{Case, PLAIN};
use tests::endpoint;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};
use tests::wait;

/// Every IP packet but IKE and neighbour discovery is one of AH.
#[track_caller]
fn assert_authenticated(frames: &[Vec<u8>]) {
    let mut of_ah = 0;
    for frame in frames {
        let protocol = match frame[12..14] {
            [8, 0] => frame[23],
            [0x86, 0xdd] => frame[20],
            _ => continue,
        };
        match (protocol, capture::kind(frame)) {
            (51, _) => of_ah += 1,
            (_, Kind::Ike | Kind::Neighbours) => {}
            (other, kind) => panic!("protocol {other} ({kind:?}): {frame:02x?}"),
        }
    }
    assert!(of_ah >= 20, "{of_ah} of {}", frames.len());
}

#[track_caller]
fn through(lab: &Lab, esp: &'static str, mode: &str, outer: [IpAddr; 2], inner: [IpAddr; 2], networks: [String; 2]) {
    let (a, b) = (lab.a(), lab.b());
    let tunnel = |me: &Host, peer: &Host, at: usize| Tunnel {
        local: outer[at],
        remote: outer[1 - at],
        source: networks[at].clone(),
        destination: networks[1 - at].clone(),
        more: format!("mode = \"{mode}\""),
        ..Tunnel::new(me, peer, Case { esp, ..PLAIN })
    };
    let at_a = Caponier::start(a, &Configuration::new(tunnel(a, b, 0)));
    let at_b = Caponier::start(b, &Configuration::new(tunnel(b, a, 1)));
    let wire = Capture::start(a, "outer");
    assert_eq!(traffic::ping(a, inner[0], inner[1], 3, 10), 3, "{esp} {mode}");
    assert_eq!(traffic::ping(b, inner[1], inner[0], 3, 10), 3, "{esp} {mode}");
    let transfer = Transfer::start(a, inner[0], b, inner[1], 200_000);
    transfer.finish();
    for us in [&at_a, &at_b] {
        // Of a bundle AH first, then ESP, each with its own name.
        let parts: Vec<_> = esp.trim_end_matches("-esn").split('+').collect();
        let sad = us.report("sad");
        assert_eq!(sad.len(), 2 * parts.len(), "{sad:?}");
        for (sa, part) in sad.iter().zip(parts.iter().flat_map(|part| [part; 2])) {
            assert_eq!(sa["sa_type"], if part.starts_with("ah-") { "AH" } else { "ESP" }, "{sa}");
            assert_eq!(sa["transform"]["keyword"], **part, "{sa}");
            assert!(sa["packets"].as_u64() >= Some(10), "{sa}");
        }
        assert_eq!(us.counter("cleartext_leaks"), 0);
    }
    assert_authenticated(&wire.stop());
    at_a.stop();
    at_b.stop();
}

#[test]
fn tunnel_mode() {
    let Some(lab) = Lab::open("ah-tunnel", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let inner = [a.inner(), b.inner()];
    let networks = [a.network(), b.network()];
    through(&lab, "ah-sha1", "tunnel", [a.outer(), b.outer()], inner, networks.clone());
    through(&lab, "ah-sha256-esn", "tunnel", [a.outer6(), b.outer6()], inner, networks);
}

#[test]
fn transport_mode() {
    let Some(lab) = Lab::open("ah-transport", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    for ends in [[a.outer(), b.outer()], [a.outer6(), b.outer6()]] {
        through(&lab, "ah-sha256", "transport", ends, ends, ends.map(|end| end.to_string()));
        // A datagram of many fragments is put together first, and cut again.
        let tunnel = |me: &Host, peer: &Host, at: usize| Tunnel {
            local: ends[at],
            remote: ends[1 - at],
            source: ends[at].to_string(),
            destination: ends[1 - at].to_string(),
            more: "mode = \"transport\"".into(),
            ..Tunnel::new(me, peer, Case { esp: "ah-aes128gmac-esn", ..PLAIN })
        };
        let _at_a = Caponier::start(a, &Configuration::new(tunnel(a, b, 0)));
        let _at_b = Caponier::start(b, &Configuration::new(tunnel(b, a, 1)));
        let to = ends[1].to_string();
        a.run(30, "ping", &["-n", "-c", "2", "-s", "5000", "-M", "dont", "-W", "10", &to]).ok("long echo requests");
    }
}

/// HP-UX's nested AH and ESP: every packet is one of AH, and what is in it cannot be read.
#[test]
fn a_bundle_with_esp_inside() {
    let Some(lab) = Lab::open("ah-bundle", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let networks = [a.network(), b.network()];
    through(&lab, "ah-sha256+aes128-sha1", "tunnel", [a.outer(), b.outer()], [a.inner(), b.inner()], networks);
    let ends = [a.outer6(), b.outer6()];
    through(&lab, "ah-sha1+aes256gcm16-esn", "transport", ends, ends, ends.map(|end| end.to_string()));
    // IPv4, in fragments both inside and out; a rekey and a delete of all four SAs under HP-UX's name.
    let ends = [a.outer(), b.outer()];
    let tunnel = |me: &Host, peer: &Host, at: usize| Tunnel {
        source: ends[at].to_string(),
        destination: ends[1 - at].to_string(),
        more: "mode = \"transport\"".into(),
        ..Tunnel::new(me, peer, Case { esp: "AH_SHA1+ESP_AES128_HMAC_SHA1/3600/0", ..PLAIN })
    };
    let at_a = Caponier::start(a, &Configuration::new(tunnel(a, b, 0)));
    let at_b = Caponier::start(b, &Configuration::new(tunnel(b, a, 1)));
    let wire = Capture::start(a, "outer");
    let to = ends[1].to_string();
    let long = ["-n", "-c", "12", "-i", "0.2", "-s", "5000", "-M", "dont", "-W", "10", &to];
    a.run(30, "ping", &long).ok("long echo requests");
    at_a.admin(&["-rekey_sa", "to_b"]);
    wait::until_true("one bundle", 30, || at_a.report("sad").len() == 4 && at_b.report("sad").len() == 4);
    assert_eq!(traffic::ping(b, ends[1], ends[0], 2, 10), 2);
    let tunnels = at_a.report("tunnel");
    let pairs = tunnels[0]["sa_pairs"].as_array().expect("the pairs");
    assert_eq!((&pairs[0]["sa_type"], &pairs[1]["sa_type"]), (&"AH".into(), &"ESP".into()), "{tunnels:?}");
    let frames = wire.stop();
    assert_authenticated(&frames);
    // What a ping of this size repeats again and again.
    let pattern: Vec<u8> = (0x40..0x60).collect();
    assert!(!frames.iter().any(|frame| frame.windows(32).any(|w| w == pattern)), "it can be read");
    at_a.admin(&["-deletesa", &to]);
    wait::until_true("both to have nothing left", 10, || {
        at_a.report("sad").is_empty() && at_b.report("sad").is_empty()
    });
}

/// AH first, then ESP, as the configuration has it: the peer takes what it knows, in our order.
#[test]
fn with_strongswan() {
    let needs = [Need::StrongSwan, Need::Capture, Need::Cc];
    let Some(lab) = Lab::open("ah-swan", 2, &needs) else { return };
    let (a, b) = (lab.a(), lab.b());
    let case = Case { esp: "ah-sha256-modp2048", ..PLAIN };
    let swan = StrongSwan::start(b, &Connection::new(b, a, case), &Esp::Shim(endpoint::shim(&lab)));
    let mut tunnel = Tunnel::new(a, b, case);
    tunnel.esp = ["aes256gcm16-modp2048", "ah-sha256-modp2048", "ah-sha1-modp2048"].map(Into::into).into();
    tunnel.more = "start = \"boot\"".into();
    let at_a = Caponier::start(a, &Configuration::new(tunnel));
    at_a.wait_tunnel(30, "to_b", "up");
    let agreed = || {
        let (ours, sas) = (at_a.pairs("to_b"), swan.sas());
        assert!(sas.contains("AH:HMAC_SHA2_256_128"), "{sas}");
        ours == swan.pairs().into_iter().map(|(i, o)| (o, i)).collect::<Vec<_>>() && ours.len() == 1
    };
    wait::until_true("one pair", 20, agreed);
    for sa in at_a.report("sad") {
        assert_eq!((&sa["sa_type"], &sa["transform"]["hpux"]), (&"AH".into(), &"AH_SHA2_256".into()), "{sa}");
    }
    // strongSwan as initiator, and its delete. (The predecessor may stay for a while on either side.)
    let before = at_a.pairs("to_b");
    swan.rekey_child();
    let succeeded = || {
        let (ours, theirs) = (at_a.pairs("to_b"), swan.pairs());
        ours.iter().any(|pair @ (i, o)| !before.contains(pair) && theirs.contains(&(*o, *i)))
    };
    wait::until_true("the successor", 30, succeeded);
    let all = at_a.pairs("to_b");
    swan.terminate_child();
    wait::until_true("the deletes to arrive", 20, || !at_a.pairs("to_b").iter().any(|pair| all.contains(pair)));
}
