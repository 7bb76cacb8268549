//! Caponier at both ends: several tunnels and peers, both first at once,
//! restarts, limits, and what the reports say.

use serde_json::Value;
use std::net::UdpSocket;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture, Kind};
use tests::cases::{CASES, Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::traffic::{self, Transfer};
use tests::wait;

fn mirrored(pairs: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    pairs.into_iter().map(|(i, o)| (o, i)).collect()
}

/// Waits until both hold exactly one pair for the tunnel, and the same.
#[track_caller]
fn agree(x: (&Caponier, &str), y: (&Caponier, &str)) {
    wait::until_true("both sides to agree on one pair", 60, || {
        let (ours, theirs) = (x.0.pairs(x.1), y.0.pairs(y.1));
        ours.len() == 1 && ours == mirrored(theirs)
    });
}

/// A full mesh of three hosts, with two tunnels between the first two.
#[test]
fn several_peers_and_tunnels() {
    let Some(lab) = Lab::open("mesh", 3, &[]) else { return };
    let hosts = lab.hosts();
    let tunnels = |me: &Host| {
        let others = hosts.iter().filter(|h| h.name != me.name);
        let mut tunnels: Vec<_> = others.map(|peer| Tunnel::new(me, peer, PLAIN)).collect();
        // IPv6 inside, between the same two peers, with other algorithms.
        if let Some(peer) = match me.name.as_str() {
            "a" => Some(&hosts[1]),
            "b" => Some(&hosts[0]),
            _ => None,
        } {
            let mut six = Tunnel::new(me, peer, Case { esp: "aes256gcm16", ..PLAIN });
            six.name = "six".into();
            (six.source, six.destination) = (me.network6(), peer.network6());
            tunnels.push(six);
        }
        Configuration { tunnels, ..Configuration::default() }
    };
    let daemons: Vec<_> = hosts.iter().map(|h| Caponier::start(h, &tunnels(h))).collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        traffic::ping_all(&hosts[from], &hosts[to], 1);
        traffic::ping_all(&hosts[to], &hosts[from], 1);
    }
    assert_eq!(traffic::ping(&hosts[0], hosts[0].inner6(), hosts[1].inner6(), 2, 10), 2);
    agree((&daemons[0], "to_b"), (&daemons[1], "to_a"));
    agree((&daemons[1], "to_c"), (&daemons[2], "to_b"));
    agree((&daemons[2], "to_a"), (&daemons[0], "to_c"));
    agree((&daemons[0], "six"), (&daemons[1], "six"));
    // One ISAKMP SA serves both tunnels to a peer.
    assert_eq!(daemons[0].report("mad").len(), 2);
    assert_eq!(daemons[0].report("sad").len(), 6);
}

/// Several workers at one side: flows both ways stay whole while SAs are replaced under them.
#[test]
fn several_workers() {
    let Some(lab) = Lab::open("several-workers", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let config = Configuration { startup: "workers = 2".into(), ..Configuration::new(Tunnel::new(a, b, PLAIN)) };
    let at_a = Caponier::start(a, &config);
    let at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    let ours = |daemon: &Caponier| {
        let interface =
            daemon.report("ip").into_iter().find(|i| i["tun"] == true).expect("the interface of the daemon");
        (interface["workers"].as_u64(), interface["tun_queues"].as_u64())
    };
    assert_eq!(ours(&at_a), (Some(2), Some(2)));
    // The first packets of flows that wait with one worker or the other.
    let transfers: Vec<_> = (0..4).map(|_| Transfer::start(a, a.inner(), b, b.inner(), 1_000_000)).collect();
    for (daemon, tunnel) in [(&at_a, "to_b"), (&at_b, "to_a"), (&at_a, "to_b")] {
        daemon.admin(&["-rekey_sa", tunnel]);
        transfers.iter().for_each(|t| t.advance(300_000));
    }
    transfers.into_iter().for_each(|t| {
        t.finish();
    });
    agree((&at_a, "to_b"), (&at_b, "to_a"));
    for daemon in [&at_a, &at_b] {
        for name in ["replay_too_old", "replayed", "unknown_spi", "cleartext_leaks"] {
            assert_eq!(daemon.counter(name), 0, "{name}");
        }
    }
    at_a.stop();
}

/// Both start to negotiate at the same time, again and again.
#[test]
fn both_first_at_once() {
    let Some(lab) = Lab::open("at-once", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let boot = |me: &Host, peer: &Host| {
        let mut tunnel = Tunnel::new(me, peer, PLAIN);
        tunnel.more = "start = \"boot\"".into();
        Configuration::new(tunnel)
    };
    for round in 0..3 {
        let (at_a, at_b) = std::thread::scope(|s| {
            let first = s.spawn(|| Caponier::start(a, &boot(a, b)));
            let second = s.spawn(|| Caponier::start(b, &boot(b, a)));
            (first.join().expect("ipsecd at a"), second.join().expect("ipsecd at b"))
        });
        at_a.wait_tunnel(40, "to_b", "up");
        at_b.wait_tunnel(40, "to_a", "up");
        traffic::ping_all(a, b, 2);
        agree((&at_a, "to_b"), (&at_b, "to_a"));
        // Rekeyed from both sides at once, under traffic.
        let transfer = Transfer::start(a, a.inner(), b, b.inner(), 2_000_000);
        std::thread::scope(|s| {
            s.spawn(|| at_a.admin(&["-rekey_sa", "to_b"]));
            s.spawn(|| at_b.admin(&["-rekey_sa", "to_a"]));
        });
        transfer.advance(500_000);
        transfer.finish();
        agree((&at_a, "to_b"), (&at_b, "to_a"));
        // Ended in good order in one round, at once in the next: the following start must not mind.
        if round == 1 {
            at_a.kill();
            at_b.kill();
        } else {
            at_a.stop();
            at_b.stop();
        }
    }
}

/// A peer killed and started again: INITIAL-CONTACT clears what it no longer knows.
#[test]
fn restart_after_sigkill() {
    let Some(lab) = Lab::open("restart", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let at_a = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    let wire = Capture::start(a, "outer");
    traffic::ping_all(a, b, 1);
    let before = at_a.pairs("to_b");
    at_b.kill();
    let at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    // The first packet of the side that forgot everything makes both agree again.
    traffic::ping_all(b, a, 1);
    agree((&at_a, "to_b"), (&at_b, "to_a"));
    assert_ne!(at_a.pairs("to_b"), before);
    assert_eq!(at_a.report("mad").len(), 1, "the old ISAKMP SA is gone: {:?}", at_a.report("mad"));
    traffic::ping_all(a, b, 1);
    capture::assert_protected(&wire.stop(), a, b, b"");
}

/// SPD cache limits: alert 20 at the soft limit, alert 55 at the hard one, new
/// conversations dropped, old ones unharmed, and all well after the limit is raised.
#[test]
fn cache_limits() {
    let Some(lab) = Lab::open("limits", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let limited = "spd_soft = 1\nspd_hard = 2";
    let config = Configuration { startup: limited.into(), ..Configuration::new(Tunnel::new(a, b, PLAIN)) };
    let at_a = Caponier::start(a, &config);
    let _at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    let listener = traffic::udp(b, b.inner(), 9, 5);
    let old = a.inside(|| UdpSocket::bind((a.inner(), 0))).expect("a UDP socket");
    old.send_to(b"old", (b.inner(), 9)).expect("sent");
    let mut buffer = [0; 16];
    assert_eq!(listener.recv(&mut buffer).expect("the first datagram"), 3);

    let flood = a.inside(|| UdpSocket::bind((a.inner(), 0))).expect("a UDP socket");
    for port in 10_000..12_500 {
        let _ = flood.send_to(b"flood", (b.inner(), port));
        if port % 100 == 0 {
            // The queue of the interface is shorter than the flood.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    at_a.wait_event(20, "ALERT", &["Threshold reached"]);
    at_a.wait_event(20, "ALERT", &["Threshold exceeded"]);
    assert!(at_a.report("cache").len() <= 2000, "{}", at_a.report("cache").len());
    assert!(at_a.counter("spd_hard_limit") > 0);

    old.send_to(b"old again", (b.inner(), 9)).expect("sent");
    assert_eq!(listener.recv(&mut buffer).expect("a cached conversation goes on"), 9);
    let new = a.inside(|| UdpSocket::bind((a.inner(), 0))).expect("a UDP socket");
    let _ = new.send_to(b"new", (b.inner(), 9));
    listener.set_read_timeout(Some(std::time::Duration::from_millis(700))).expect("a time-out");
    assert!(listener.recv(&mut buffer).is_err(), "a new conversation beyond the hard limit");
    at_a.admin(&["-spd_hard", "5"]);
    listener.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a time-out");
    new.send_to(b"new", (b.inner(), 9)).expect("sent");
    assert_eq!(listener.recv(&mut buffer).expect("flows resume after the limit is raised"), 3);
}

/// What the reports of a working tunnel hold.
#[test]
fn reports() {
    let Some(lab) = Lab::open("reports", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    // Ours alone: the peer has no limit of packets, and says none.
    let bounded = Tunnel { more: "lifetime_packets = 5000000\n".into(), ..Tunnel::new(a, b, PLAIN) };
    let at_a = Caponier::start(a, &Configuration::new(bounded));
    let at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    traffic::ping_all(a, b, 3);

    let sad = at_a.report("sad");
    assert_eq!(sad.len(), 2);
    for sa in &sad {
        assert_eq!(sa["sa_type"], "ESP");
        assert_eq!(sa["mode"], "Tunnel");
        assert_eq!(sa["state"], "mature");
        assert_eq!(sa["transform"]["keyword"], "aes128-sha1");
        assert_eq!(sa["transform"]["hpux"], "ESP_AES128_HMAC_SHA1");
        assert_eq!(sa["tunnel"], "to_b");
        assert_eq!(sa["packets"], 3);
        assert_eq!(sa["last_sequence"], 3);
        assert_eq!(sa["lifetime"]["packets"], 5_000_000);
        let spi = sa["spi"].as_u64().unwrap_or_default();
        assert!((300..=2_500_000).contains(&spi), "the SPI range of dynamic SAs: {spi}");
    }
    let mad = at_a.report("mad");
    assert_eq!((mad.len(), &mad[0]["role"], &mad[0]["exchange"]), (1, &"initiator".into(), &"Main Mode".into()));
    assert_eq!(mad[0]["remote_id"], b.outer().to_string());
    assert_eq!(at_b.report("mad")[0]["role"], "responder");
    assert_eq!(at_b.report("mad")[0]["initiator_cookie"], mad[0]["initiator_cookie"]);

    // The cookie of a cache entry is that of the host policy that decided.
    let hosts = at_a.report("host");
    let policy = hosts.iter().find(|h| h["name"] == "to_b").expect("the host policy");
    let cache = at_a.report("cache");
    let entry = |direction: &str| cache.iter().find(|e| e["direction"] == direction && e["dst"] != Value::Null);
    let out = entry("outbound").expect("an outbound entry");
    assert_eq!((&out["action"], &out["cookie"]), (&"secure".into(), &policy["cookie"]));
    assert_eq!(out["src"], a.inner().to_string());
    let default = hosts.iter().find(|h| h["name"] == "default").expect("the default policy");
    assert_eq!((&default["cookie"], &default["priority"]), (&1.into(), &0.into()));

    let tunnels = at_a.report("tunnel");
    assert_eq!((tunnels.len(), &tunnels[0]["state"]), (1, &"up".into()));
    assert_eq!(tunnels[0]["lifetime_packets"], 5_000_000);
    assert!(at_b.report("tunnel")[0]["lifetime_packets"].is_null());
    assert!(at_b.report("sad").iter().all(|sa| sa["lifetime"]["packets"].is_null()));
    assert_eq!(at_a.report("ike")[0]["name"], "to_b");
    assert_eq!(at_a.report("bypass"), Vec::<Value>::new());
    let interfaces = at_a.report("ip");
    assert!(interfaces.iter().any(|i| i["name"] == "outer" && i["ipsec"] == true), "{interfaces:?}");
    assert!(interfaces.iter().any(|i| i["tun"] == true), "{interfaces:?}");

    // Text, every section, in both spellings.
    for option in ["-all", "--all"] {
        let text = at_a.command(20, "ipsec_report", &[option]).ok("ipsec_report");
        for word in ["10.78.2.1", "to_b", "ESP_AES128_HMAC_SHA1"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
    let preshared = tests::cases::PRESHARED;
    let everything = at_a.command(20, "ipsec_report", &["-all", "--json"]).ok("ipsec_report") + &at_a.log();
    assert!(!everything.contains(preshared), "the pre-shared key is shown");

    // The dry run names the same policy.
    let query = ["-sa", "10.78.1.1", "-sp", "1024", "-da", "10.78.2.1", "-dp", "80", "-p", "tcp", "-dir", "out"];
    let verdict = at_a.command(20, "ipsec_policy", &query).ok("ipsec_policy");
    assert!(verdict.contains("to_b"), "{verdict}");
}

/// `-deletesa` takes the SAs away on both sides; the next packet brings others.
#[test]
fn deleted_by_hand() {
    let Some(lab) = Lab::open("deletesa", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let at_a = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    traffic::ping_all(a, b, 1);
    at_a.admin(&["-deletesa", &b.outer().to_string()]);
    at_a.assert_nothing_left();
    wait::until_true("the peer's SAs to go", 10, || at_b.report("sad").is_empty() && at_b.report("mad").is_empty());
    traffic::ping_all(b, a, 1);
    agree((&at_a, "to_b"), (&at_b, "to_a"));
}

/// Behind a NAT: the peer's address and port are those of the NAT, kept open by keepalives.
#[test]
fn forced_nat_traversal() {
    let Some(lab) = Lab::open("forced", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let forced = |me: &Host, peer: &Host, mode: &str| {
        let mut tunnel = Tunnel::new(me, peer, CASES[2]);
        tunnel.more_ike = format!("nat_traversal = {mode:?}");
        Configuration::new(tunnel)
    };
    let _at_a = Caponier::start(a, &forced(a, b, "force"));
    let at_b = Caponier::start(b, &forced(b, a, "auto"));
    let wire = Capture::start_headers(a, "outer");
    traffic::ping_all(a, b, 1);
    Transfer::start(a, a.inner(), b, b.inner(), 5_000_000).finish();
    for sa in at_b.report("sad") {
        assert_eq!(sa["udp_encapsulation"], serde_json::json!([4500, 4500]));
    }
    let frames = wire.stop();
    capture::assert_protected(&frames, a, b, b"");
    let census = capture::census(&frames);
    assert_eq!(census.get(&Kind::Esp), None, "{census:?}");
    // Main mode 1 to 4 on port 500, everything else on 4500.
    assert_eq!(census.get(&Kind::Ike), Some(&4), "{census:?}");
}

/// Packets larger than the tunnel carries: refused with the right size, or
/// fragmented where DF allows it; never lost in silence.
#[test]
fn large_packets() {
    let Some(lab) = Lab::open("large", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let _at_a = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let _at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    traffic::ping_all(a, b, 1);
    let ping = |df: &str, size: &str| {
        let (from, to) = (a.inner().to_string(), b.inner().to_string());
        a.run(30, "ping", &["-n", "-c", "3", "-i", "0.2", "-W", "3", "-M", df, "-s", size, "-I", &from, &to])
    };
    assert!(ping("dont", "4000").status.success(), "fragments pass");
    assert!(ping("do", "1300").status.success(), "a packet that fits");
    let refused = ping("do", "1472");
    assert!(!refused.status.success(), "a packet that cannot fit");
    let said = refused.stdout + &refused.stderr;
    assert!(said.contains("mtu"), "the sender is told the size: {said}");
}

/// Between IPv6 addresses, without UDP, through a router with a narrow link
/// behind it, of which only ICMPv6 tells: nothing is lost for good.
#[test]
fn a_narrow_ipv6_path() {
    let Some(lab) = Lab::open("narrow", 3, &[]) else { return };
    let [a, b, router] = lab.hosts() else { panic!("three hosts") };
    for host in lab.hosts() {
        let conf = "/proc/sys/net/ipv6/conf";
        host.run(10, "sh", &["-c", &format!("echo 0 > {conf}/default/accept_dad; echo 1 > {conf}/all/forwarding")])
            .ok("IPv6 settings");
    }
    lab.link(a, "path", "fd79:1::1/64", router, "to-a", "fd79:1::ff/64");
    lab.link(b, "path", "fd79:2::1/64", router, "to-b", "fd79:2::ff/64");
    a.run(10, "ip", &["route", "add", "fd79:2::/64", "via", "fd79:1::ff"]).ok("a route");
    b.run(10, "ip", &["route", "add", "fd79:1::/64", "via", "fd79:2::ff"]).ok("a route");
    router.run(10, "ip", &["link", "set", "to-b", "mtu", "1400"]).ok("a narrow link");
    b.run(10, "ip", &["link", "set", "path", "mtu", "1400"]).ok("a narrow link");
    let [at_a, _at_b] =
        [(a, b, "fd79:1::1", "fd79:2::1"), (b, a, "fd79:2::1", "fd79:1::1")].map(|(me, peer, local, remote)| {
            let mut tunnel = Tunnel::new(me, peer, PLAIN);
            tunnel.local = local.parse().expect("an address");
            tunnel.remote = remote.parse().expect("an address");
            tunnel.more_ike = "nat_traversal = \"off\"".into();
            Caponier::start(me, &Configuration::new(tunnel))
        });
    traffic::ping_all(a, b, 3);
    let ping = |df: &str| {
        let (from, to) = (a.inner().to_string(), b.inner().to_string());
        a.run(30, "ping", &["-n", "-c", "4", "-i", "0.2", "-W", "2", "-M", df, "-s", "1370", "-I", &from, &to])
    };
    let refused = ping("do");
    let said = refused.stdout + &refused.stderr;
    assert!(!refused.status.success() && said.contains("mtu"), "the sender is told the size: {said}");
    assert!(ping("dont").status.success(), "fragments pass");
    Transfer::start(a, a.inner(), b, b.inner(), 5_000_000).finish();
    for sa in at_a.report("sad") {
        assert!(sa["udp_encapsulation"].is_null(), "{sa}");
    }
    assert_eq!(at_a.counter("send_failed"), 0);
}

/// A lifetime that only one side finds sane: each says so in its role, once.
#[test]
fn lifetime_mismatch() {
    let Some(lab) = Lab::open("lifetime", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut short = Tunnel::new(a, b, PLAIN);
    short.more_ike = "life = 20".into();
    let config = Configuration { startup: "allow_short_lifetimes = true".into(), ..Configuration::new(short) };
    let at_a = Caponier::start(a, &config);
    let at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    let answered = traffic::ping(a, a.inner(), b.inner(), 1, 1);
    assert_eq!(answered, 0);
    at_b.wait_event(20, "ERROR", &["lifetime", "20 s", "a mismatch"]);
    at_a.wait_event(36, "ERROR", &["NO-PROPOSAL-CHOSEN", "aes128-sha1-modp2048"]);
    assert_eq!(at_a.events("ERROR").len(), 1, "{:?}", at_a.events("ERROR"));
    assert_eq!(at_b.events("ERROR").len(), 1, "{:?}", at_b.events("ERROR"));
    at_a.assert_nothing_left();
    at_b.assert_nothing_left();
}

/// The demo tells the truth with its exit status.
#[test]
fn demo() {
    if !tests::need::available("demo", &[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut demo = std::process::Command::new(tests::caponier::applets());
    let finished = tests::process::run(demo.arg("ipsec_demo").arg("--dir").arg(dir.path()), 120);
    let said = finished.ok("ipsec_demo");
    assert!(said.contains("ESP"), "{said}");
}
