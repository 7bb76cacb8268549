//! EXCLUSIVE policies: each session has an SA pair of its own.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};
use tests::wait;

fn exclusive(me: &Host, peer: &Host, startup: &str) -> Configuration {
    let mut tunnel = Tunnel::new(me, peer, PLAIN);
    tunnel.more_host = "flags = \"EXCLUSIVE\"".into();
    Configuration { startup: startup.into(), ..Configuration::new(tunnel) }
}

/// What the pairs in use are for: protocol and local port (0: none).
fn sessions(caponier: &Caponier) -> BTreeSet<(u64, u64)> {
    let session = |sa: Value| {
        let selector = &sa["selector"];
        let (local, remote) = (selector["local"].as_str()?, selector["remote"].as_str()?);
        assert!(!local.contains('/') && !remote.contains('/'), "one address on each side: {selector}");
        let ports = &selector["local_ports"];
        assert_eq!(ports[0], ports[1], "one port: {selector}");
        Some((selector["protocol"].as_u64()?, ports[0].as_u64().unwrap_or(0)))
    };
    caponier.report("sad").into_iter().filter_map(session).collect()
}

fn policy(caponier: &Caponier) -> Value {
    caponier.report("host").into_iter().find(|h| h["direction"] == "outbound").expect("the host policy")
}

/// Waits until both hold the same pairs, `count` of them.
#[track_caller]
fn agree(x: (&Caponier, &str), y: (&Caponier, &str), count: usize) {
    wait::until_true("both sides to hold the same pairs", 30, || {
        let ours: BTreeSet<_> = x.0.pairs(x.1).into_iter().collect();
        let theirs: BTreeSet<_> = y.0.pairs(y.1).into_iter().map(|(i, o)| (o, i)).collect();
        ours.len() == count && ours == theirs
    });
}

/// Several connections at once: each has its pair, on both sides the same, as long as it lasts.
#[test]
fn flows_have_pairs_of_their_own() {
    let Some(lab) = Lab::open("exclusive", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let at_a = Caponier::start(a, &exclusive(a, b, "cache_idle = 5"));
    let at_b = Caponier::start(b, &exclusive(b, a, "cache_idle = 5"));
    let wire = Capture::start(a, "outer");
    let transfers = [
        Transfer::start(a, a.inner(), b, b.inner(), 1_000_000),
        Transfer::start(b, b.inner(), a, a.inner(), 1_000_000),
    ];
    // In fragments, which show the ports once.
    let server = traffic::udp(b, b.inner(), 5001, 10);
    let client = a.inside(|| UdpSocket::bind((a.inner(), 5002))).expect("a UDP socket");
    client.send_to(&[7; 4000], (b.inner(), 5001)).expect("sent");
    let mut room = [0; 8000];
    let (len, from) = server.recv_from(&mut room).expect("the datagram");
    assert_eq!((len, from.port()), (4000, 5002));
    server.send_to(b"answer", from).expect("sent");
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time-out");
    assert_eq!(client.recv(&mut room).expect("the answer"), 6);
    // And what has no ports.
    traffic::ping_all(a, b, 2);
    for transfer in &transfers {
        transfer.advance(500_000);
    }
    agree((&at_a, "to_b"), (&at_b, "to_a"), 4);
    let ours = sessions(&at_a);
    assert_eq!(ours.iter().map(|(protocol, _)| *protocol).collect::<Vec<_>>(), [1, 6, 6, 17]);
    assert!(ours.contains(&(1, 0)) && ours.contains(&(17, 5002)), "{ours:?}");
    assert!(sessions(&at_b).contains(&(17, 5001)));

    let policy = policy(&at_a);
    assert_eq!((&policy["flags"], &policy["active_sessions"]), (&json!(["EXCLUSIVE"]), &json!(4)));
    assert_eq!(policy["sa_pairs"].as_array().map(Vec::len), Some(4));
    let text = at_a.command(20, "ipsec_report", &["-host"]).ok("ipsec_report -host");
    assert!(text.contains("FLAGS: EXCLUSIVE") && text.contains("Active Sessions Created: 4"), "{text}");
    let cache = at_a.report("cache");
    let entry = cache.iter().find(|e| e["direction"] == "outbound" && e["src_port"] == 5002).expect("a cache entry");
    let spi = at_a
        .report("sad")
        .into_iter()
        .find(|sa| sa["direction"] == "outbound" && sa["selector"]["local_ports"][0] == 5002);
    assert_eq!(entry["sas"][0]["spi"], spi.expect("its SA")["spi"], "the entry leads to the SA of its session");
    let query = ["-sa", "10.78.1.1", "-sp", "5002", "-da", "10.78.2.1", "-dp", "5001", "-p", "udp", "-dir", "out"];
    let verdict = at_a.command(20, "ipsec_policy", &query).ok("ipsec_policy");
    assert!(verdict.contains("EXCLUSIVE"), "{verdict}");

    // The flows end, and their pairs with them; the last ones stay as long as they are used.
    for transfer in transfers {
        transfer.finish();
    }
    wait::until_true("the pairs of ended flows to go", 30, || {
        traffic::ping_all(a, b, 1);
        sessions(&at_a) == BTreeSet::from([(1, 0)])
    });
    agree((&at_a, "to_b"), (&at_b, "to_a"), 1);
    for daemon in [&at_a, &at_b] {
        assert_eq!((daemon.counter("wrong_session"), daemon.counter("selector_mismatch")), (0, 0));
        assert_eq!(daemon.counter("cleartext_leaks"), 0);
    }
    capture::assert_protected(&wire.stop(), a, b, b"");
}

/// A pair is replaced under a connection that goes on; a session begun meanwhile has its own time.
#[test]
fn rekeyed_under_traffic() {
    let Some(lab) = Lab::open("exclusive-rekey", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let short = |me: &Host, peer: &Host| {
        let mut config = exclusive(me, peer, "allow_short_lifetimes = true");
        config.tunnels[0].esp = vec!["aes128-sha1/10/0".into()];
        config
    };
    let at_a = Caponier::start(a, &short(a, b));
    let at_b = Caponier::start(b, &short(b, a));
    let transfer = Transfer::start(a, a.inner(), b, b.inner(), 1_000_000);
    let first: BTreeSet<_> = at_a.pairs("to_b").into_iter().collect();
    assert_eq!(first.len(), 1);
    wait::until_true("the pair to be replaced", 30, || {
        transfer.advance(100_000);
        at_a.pairs("to_b").iter().all(|pair| !first.contains(pair))
    });
    transfer.finish();
    assert_eq!(sessions(&at_a).len(), 1, "one session all the while");
    for daemon in [&at_a, &at_b] {
        for reason in ["wrong_session", "selector_mismatch", "unknown_spi", "negotiation_failed", "cleartext_leaks"] {
            assert_eq!(daemon.counter(reason), 0, "{reason}");
        }
    }
}

/// Beyond the limit, sessions are refused and counted, and those that are there go on.
#[test]
fn no_more_sessions_than_may_be() {
    let Some(lab) = Lab::open("exclusive-limit", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let at_a = Caponier::start(a, &exclusive(a, b, "exclusive_sessions = 2\ncache_idle = 3"));
    let _at_b = Caponier::start(b, &exclusive(b, a, ""));
    let server = traffic::udp(b, b.inner(), 5001, 5);
    let mut room = [0; 16];
    let mut send = |port: u16, wait: u64| {
        let client = a.inside(|| UdpSocket::bind((a.inner(), port))).expect("a UDP socket");
        client.send_to(b"x", (b.inner(), 5001)).expect("sent");
        server.set_read_timeout(Some(std::time::Duration::from_millis(wait))).expect("a time-out");
        server.recv_from(&mut room).ok().map(|(_, from)| from.port())
    };
    assert_eq!((send(6001, 5000), send(6002, 5000)), (Some(6001), Some(6002)));
    assert_eq!((send(6003, 700), send(6001, 5000)), (None, Some(6001)));
    assert_eq!((at_a.counter("session_limit"), policy(&at_a)["active_sessions"].clone()), (1, json!(2)));
    wait::until_true("idle sessions to make room", 20, || sessions(&at_a).is_empty());
    assert_eq!(send(6003, 5000), Some(6003));
}

/// strongSwan takes our five-tuple as traffic selectors, from a connection for the networks.
#[test]
fn strongswan_as_responder() {
    let Some(lab) = Lab::open("exclusive-swan", 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let at_a = Caponier::start(a, &exclusive(a, b, "cache_idle = 5"));
    let server = traffic::udp(b, b.inner(), 5001, 15);
    let client = a.inside(|| UdpSocket::bind((a.inner(), 5002))).expect("a UDP socket");
    client.send_to(b"question", (b.inner(), 5001)).expect("sent");
    let mut room = [0; 16];
    let (len, from) = server.recv_from(&mut room).expect("the datagram");
    assert_eq!((len, from.port()), (8, 5002));
    server.send_to(b"answer", from).expect("sent");
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time-out");
    assert_eq!(client.recv(&mut room).expect("the answer"), 6);
    // What has no ports has another pair.
    traffic::ping_all(a, b, 2);
    assert_eq!(sessions(&at_a), BTreeSet::from([(1, 0), (17, 5002)]));
    let mirrored: BTreeSet<_> = swan.pairs().into_iter().map(|(i, o)| (o, i)).collect();
    assert_eq!(at_a.pairs("to_b").into_iter().collect::<BTreeSet<_>>(), mirrored);
    let sas = swan.sas();
    assert!(sas.contains("10.78.1.1/32[udp/5002]") && sas.contains("10.78.2.1/32[udp"), "{sas}");
    wait::until_true("idle pairs to go on both sides", 30, || sessions(&at_a).is_empty() && swan.pairs().is_empty());
}

/// strongSwan asks for one five-tuple, and then for the whole tunnel, which it does not get.
#[test]
fn strongswan_as_initiator() {
    let Some(lab) = Lab::open("exclusive-swan-first", 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let at_a = Caponier::start(a, &exclusive(a, b, ""));
    let wide = Connection::new(b, a, PLAIN);
    let exact = Connection {
        local_ts: format!("{}/32[udp/5001]", b.inner()),
        remote_ts: format!("{}/32[udp/5002]", a.inner()),
        ..wide.clone()
    };
    let swan = StrongSwan::start(b, &exact, &Esp::UserSpace);
    swan.initiate();
    assert_eq!(sessions(&at_a), BTreeSet::from([(17, 5002)]));
    let client = traffic::udp(a, a.inner(), 5002, 10);
    let server = traffic::udp(b, b.inner(), 5001, 10);
    server.send_to(b"question", (a.inner(), 5002)).expect("sent");
    let mut room = [0; 16];
    let (len, from) = client.recv_from(&mut room).expect("the datagram");
    client.send_to(b"answer", from).expect("sent");
    assert_eq!((len, server.recv(&mut room).expect("the answer")), (8, 6));
    assert_eq!(at_a.pairs("to_b").len(), 1, "both ways by one pair");
    swan.rekey_child();
    wait::until_true("another pair of the same session", 20, || at_a.pairs("to_b").len() == 2);
    assert_eq!(sessions(&at_a), BTreeSet::from([(17, 5002)]));
    server.send_to(b"question", (a.inner(), 5002)).expect("sent");
    assert_eq!(client.recv(&mut room).expect("the datagram"), 8);
    swan.terminate_child();
    wait::until_true("the pair to go", 20, || at_a.pairs("to_b").is_empty());
    swan.reload(&wide);
    swan.initiate_in_vain(5);
    at_a.wait_event(10, "ERROR", &["only EXCLUSIVE policies name our tunnel to_b"]);
    at_a.assert_no_pairs();
}
