//! NATs as they are: nftables between the hosts, on either side, that forget and translate anew.
//!
//! ```text
//! a --- c === the network "outer" === d --- b
//! ```
//!
//! c and d translate what comes from behind them; d also forwards IKE to b.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{Capture, Kind, census};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};
use tests::{process, wait};

/// Puts a host behind a router, in the network `192.168.N.0/24`, with no other way. Returns its address there.
fn behind(lab: &Lab, host: &Host, router: &Host, network: u8) -> IpAddr {
    let name = format!("lan-{}", host.name);
    let (here, there) = (format!("192.168.{network}.2"), format!("192.168.{network}.1"));
    lab.link(host, "lan", &format!("{here}/24"), router, &name, &format!("{there}/24"));
    host.run(10, "ip", &["link", "set", "outer", "down"]).ok("the only way is through the router");
    host.run(10, "ip", &["route", "add", "default", "via", &there]).ok("its route");
    here.parse().expect("an address")
}

/// Makes a router translate, UDP to these ports; and forward IKE to a host behind it.
fn translate(router: &Host, ports: &str, forward: Option<IpAddr>) {
    let forward = forward.map_or(String::new(), |to| {
        format!("chain in {{ type nat hook prerouting priority -100; iifname \"outer\" udp dport {{ 500, 4500 }} dnat to {to}; }}")
    });
    let text = format!(
        "table ip nat\ndelete table ip nat\ntable ip nat {{\n{forward}\n chain out {{ type nat hook postrouting priority 100; \
         oifname \"outer\" meta l4proto udp masquerade to :{ports}; oifname \"outer\" masquerade; }}\n}}\n"
    );
    let rules = router.directory.join("nat.nft");
    std::fs::write(&rules, text).expect("the router's rules");
    process::run(router.command("nft").arg("-f").arg(rules), 10).ok("nft");
}

/// The router forgets all its mappings, as after a restart: what masquerades goes with the interface's link.
fn forget(router: &Host) {
    for state in ["down", "up"] {
        router.run(10, "ip", &["link", "set", "outer", state]).ok("the link");
    }
}

/// A tunnel between the networks of two hosts, whose outer addresses are these.
fn tunnel(me: &Host, local: IpAddr, peer: &Host, remote: IpAddr) -> Tunnel {
    Tunnel { local, remote, more_ike: "keepalive = 2\ndpd = 10".into(), ..Tunnel::new(me, peer, PLAIN) }
}

/// The configuration with one tunnel, whose peer says that it is `identity`.
fn expecting(tunnel: Tunnel, identity: &str) -> Configuration {
    let more_auth = format!("rtype = \"IPV4\"\nrid = \"{identity}\"");
    Configuration::new(Tunnel { more_auth, ..tunnel })
}

/// The peer's port as the SAs of a tunnel have it, and as the ISAKMP SAs have it.
fn ports_of(at: &Caponier, tunnel: &str) -> (Vec<u64>, Vec<u64>) {
    let outbound = |sa: &serde_json::Value| sa["tunnel"] == tunnel && sa["direction"] == "outbound";
    let sad = at.report("sad").into_iter().filter(outbound);
    let mad = at.report("mad").into_iter().filter(|sa| sa["state"] == "established");
    (
        sad.filter_map(|sa| sa["udp_encapsulation"][1].as_u64()).collect(),
        mad.filter_map(|sa| sa["remote"]["port"].as_u64()).collect(),
    )
}

#[test]
fn both_ends_behind_nats() {
    let needs = [Need::StrongSwan, Need::Capture];
    let Some(lab) = Lab::open("double-nat", 4, &needs) else { return };
    let [a, b, c, d] = lab.hosts() else { panic!("four hosts") };
    let (private_a, private_b) = (behind(&lab, a, c, 7), behind(&lab, b, d, 8));
    translate(c, "20000-20099", None);
    translate(d, "30000-30099", Some(private_b));
    let of_a = || expecting(tunnel(a, private_a, b, d.outer()), &private_b.to_string());
    let of_b = || expecting(tunnel(b, private_b, a, c.outer()), &private_a.to_string());
    {
        let (at_a, at_b) = (Caponier::start(a, &of_a()), Caponier::start(b, &of_b()));
        let wire = Capture::start(d, "outer");
        traffic::ping_all(a, b, 2);
        traffic::ping_all(b, a, 2);
        Transfer::start(b, b.inner(), a, a.inner(), 300_000).finish();
        for (us, far) in [(&at_a, &at_b), (&at_b, &at_a)] {
            assert_eq!(us.report("mad")[0]["nat"], "both");
            // Each keeps its own mapping open.
            wait::until_true("the keepalives of the other side", 15, || far.counter("keepalives") > 1);
            assert_eq!(us.counter("cleartext_leaks"), 0);
        }
        let census = census(&wire.stop());
        // IKE through the NATs is not at port 500 on both sides, nor is ESP at 4500.
        assert_eq!((census.get(&Kind::Clear), census.get(&Kind::Esp)), (None, None), "{census:?}");
        // The one that can be reached rekeys: it goes back through the other's NAT.
        at_b.admin(&["-rekey_sa", "to_a"]);
        wait::until_true("one pair", 40, || at_a.pairs("to_b").len() == 1 && at_b.pairs("to_a").len() == 1);
        traffic::ping_all(a, b, 2);
        at_a.stop();
        at_b.stop();
    }
    // strongSwan as initiator behind one, and as responder behind the other.
    let connection = |me: &Host, local: IpAddr, peer: &Host, remote: IpAddr, identity: IpAddr| Connection {
        local,
        remote,
        local_id: local.to_string(),
        remote_id: identity.to_string(),
        ..Connection::new(me, peer, PLAIN)
    };
    {
        let at_b = Caponier::start(b, &of_b());
        let swan = StrongSwan::start(a, &connection(a, private_a, b, d.outer(), private_b), &Esp::UserSpace);
        swan.initiate();
        traffic::ping_all(a, b, 2);
        traffic::ping_all(b, a, 2);
        let ours = at_b.pairs("to_a");
        assert_eq!(ours, swan.pairs().into_iter().map(|(i, o)| (o, i)).collect::<Vec<_>>());
        assert_eq!((ports_of(&at_b, "to_a").0.len(), &at_b.report("mad")[0]["nat"]), (1, &"both".into()));
        swan.stop();
        at_b.stop();
    }
    let at_a = Caponier::start(a, &of_a());
    let swan = StrongSwan::start(b, &connection(b, private_b, a, c.outer(), private_a), &Esp::UserSpace);
    traffic::ping_all(a, b, 2);
    traffic::ping_all(b, a, 2);
    assert_eq!(at_a.report("mad")[0]["role"], "initiator");
    // strongSwan begins the next one.
    let before = at_a.pairs("to_b");
    swan.rekey_child();
    wait::until_true("the successor", 20, || at_a.pairs("to_b").iter().any(|pair| !before.contains(pair)));
    traffic::ping_all(a, b, 2);
}

/// The mapping changes under traffic: what is authentic is followed, what is forged or replayed is not.
#[test]
fn a_nat_that_translates_anew() {
    let Some(lab) = Lab::open("rebind", 3, &[Need::Capture]) else { return };
    let [a, b, c] = lab.hosts() else { panic!("three hosts") };
    let private = behind(&lab, a, c, 7);
    translate(c, "20000-20099", None);
    let mut of_a = tunnel(a, private, b, b.outer());
    // Long: what is followed is ESP, and IKE where the test says so.
    of_a.more_ike = "keepalive = 600".into();
    let at_a = Caponier::start(a, &Configuration::new(of_a));
    let mut of_b = tunnel(b, b.outer(), a, c.outer());
    of_b.more = "start = \"respond\"".into();
    of_b.more_ike = "dpd = 0".into();
    let at_b = Caponier::start(b, &expecting(of_b, &private.to_string()));
    let wire = Capture::start(b, "outer");
    traffic::ping_all(a, b, 1);
    let within = |ports: (Vec<u64>, Vec<u64>), from: u64| {
        let (sad, mad) = ports;
        let all = |ports: &[u64]| ports.len() == 1 && ports.iter().all(|port| (from..from + 100).contains(port));
        all(&sad) && all(&mad)
    };
    assert!(within(ports_of(&at_b, "to_a"), 20_000), "{:?}", ports_of(&at_b, "to_a"));

    let transfer = Transfer::start(a, a.inner(), b, b.inner(), 300_000);
    transfer.advance(100_000);
    translate(c, "40000-40099", None);
    forget(c);
    transfer.advance(100_000);
    transfer.finish();
    wait::until_true("the report to show the new port", 10, || within(ports_of(&at_b, "to_a"), 40_000));
    let moves = || at_b.events("INFORMATIVE").iter().filter(|e| e.contains("moved from port")).count();
    assert_eq!(moves(), 1);
    // The gateway begins: IKE reaches the peer at its new port.
    let before = at_b.pairs("to_a");
    at_b.admin(&["-rekey_sa", "to_a"]);
    wait::until_true("another pair", 30, || at_b.pairs("to_a").iter().all(|pair| !before.contains(pair)));
    traffic::ping_all(b, a, 1);

    // Somebody at the NAT's address sends to the gateway from a port of his own: the last ESP packet as it
    // was, and with other numbers; an IKE message as it was, and changed.
    let frames = wire.stop();
    let to_b: Vec<_> =
        frames.iter().filter(|f| f[12..14] == [8, 0] && f[23] == 17 && f[36..38] == [0x11, 0x94]).collect();
    let payload = |ike: bool| {
        let of = |f: &&&Vec<u8>| (f[42..46] == [0; 4]) == ike && f.len() > 60;
        to_b.iter().rfind(of).expect("one was sent")[42..].to_vec()
    };
    let (esp, message) = (payload(false), payload(true));
    let mut forged_esp = esp.clone();
    forged_esp[7] = forged_esp[7].wrapping_add(50);
    let mut forged_message = message.clone();
    // Another message ID, of an exchange that nobody has begun.
    forged_message[4 + 21] ^= 0x55;
    let stranger = c.inside(|| UdpSocket::bind((c.outer(), 33_333))).expect("a UDP socket");
    let gateway = SocketAddr::new(b.outer(), 4500);
    let before = [at_b.counter("authentication_failed"), at_b.counter("replayed"), at_b.counter("ike_handed_over")];
    for datagram in [&esp, &forged_esp, &message, &forged_message] {
        stranger.send_to(datagram, gateway).expect("sent");
    }
    let counted = |name: &str, before: u64| wait::until_true(name, 10, || at_b.counter(name) > before);
    counted("authentication_failed", before[0]);
    counted("replayed", before[1]);
    wait::until_true("both IKE messages to be looked at", 10, || at_b.counter("ike_handed_over") >= before[2] + 2);
    assert!(within(ports_of(&at_b, "to_a"), 40_000), "{:?}", ports_of(&at_b, "to_a"));
    assert_eq!(moves(), 1);
    stranger.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    assert!(stranger.recv(&mut [0; 2000]).is_err(), "nothing is sent to him");
    traffic::ping_all(b, a, 2);

    // The mapping changes while nothing is sent but IKE.
    translate(c, "50000-50099", None);
    forget(c);
    at_a.admin(&["-rekey_sa", "to_b"]);
    wait::until_true("the report to show the new port", 10, || within_all(&ports_of(&at_b, "to_a"), 50_000));
    traffic::ping_all(b, a, 2);
    assert_eq!(at_b.counter("cleartext_leaks"), 0);
}

/// As long as a rekey goes on there may be two pairs.
fn within_all((sad, mad): &(Vec<u64>, Vec<u64>), from: u64) -> bool {
    !sad.is_empty() && sad.iter().chain(mad).all(|port| (from..from + 100).contains(port))
}

/// A Caponier and a strongSwan behind one NAT, with a gateway that is a Caponier.
#[test]
fn several_clients_behind_one_nat() {
    let Some(lab) = Lab::open("clients", 4, &[Need::StrongSwan, Need::Capture]) else { return };
    let [a, b, c, d] = lab.hosts() else { panic!("four hosts") };
    let (private_a, private_b) = (behind(&lab, a, c, 7), behind(&lab, b, c, 8));
    translate(c, "20000-20099", None);
    let from_gateway = |peer: &Host| {
        let more = "start = \"respond\"".into();
        let more_auth = "rtype = \"IPV4\"\nrid = \"192.168.0.0/16\"".into();
        Tunnel { more, more_auth, ..tunnel(d, d.outer(), peer, c.outer()) }
    };
    let tunnels = vec![from_gateway(a), from_gateway(b)];
    let gateway = Caponier::start(d, &Configuration { tunnels, ..Configuration::default() });
    let at_a = Caponier::start(a, &Configuration::new(tunnel(a, private_a, d, d.outer())));
    let connection = Connection {
        local: private_b,
        remote: d.outer(),
        local_id: private_b.to_string(),
        remote_id: d.outer().to_string(),
        ..Connection::new(b, d, PLAIN)
    };
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    let wire = Capture::start(d, "outer");
    traffic::ping_all(a, d, 2);
    swan.initiate();
    let transfers =
        [Transfer::start(a, a.inner(), d, d.inner(), 300_000), Transfer::start(b, b.inner(), d, d.inner(), 300_000)];
    transfers.into_iter().for_each(|transfer| {
        transfer.finish();
    });
    let (of_a, of_b) = (ports_of(&gateway, "to_a").0, ports_of(&gateway, "to_b").0);
    assert!(of_a.len() == 1 && of_b.len() == 1 && of_a != of_b, "{of_a:?} {of_b:?}");
    assert_eq!(gateway.report("mad").len(), 2);
    // The gateway rekeys the pair of each with that one.
    for (tunnel, host) in [("to_a", a), ("to_b", b)] {
        gateway.admin(&["-rekey_sa", tunnel]);
        traffic::ping_all(d, host, 2);
    }
    assert_eq!(gateway.events("ERROR"), Vec::<String>::new());
    // One that goes in good order takes its own along, and nothing else.
    at_a.stop();
    wait::until_true("the pair of the first to go", 10, || gateway.pairs("to_a").is_empty());
    assert!(!gateway.pairs("to_b").is_empty());
    traffic::ping_all(d, b, 2);
    traffic::ping_all(b, d, 2);
    let census = census(&wire.stop());
    assert_eq!((census.get(&Kind::Clear), census.get(&Kind::Esp)), (None, None), "{census:?}");
}

/// Clients in transport mode behind one NAT are one address to the gateway. With pairs for each session those with
/// different ports are kept apart; who takes a port that another one has is refused, and gets nothing of his.
#[test]
fn transport_mode_clients_behind_one_nat() {
    let Some(lab) = Lab::open("transport-clients", 4, &[Need::Capture]) else { return };
    let [a, b, c, d] = lab.hosts() else { panic!("four hosts") };
    let (private_a, private_b) = (behind(&lab, a, c, 7), behind(&lab, b, c, 8));
    translate(c, "20000-20099", None);
    let transport = |me: &Host, local: IpAddr, peer: &Host, remote: IpAddr| Tunnel {
        source: local.to_string(),
        destination: remote.to_string(),
        more: "mode = \"transport\"".into(),
        more_host: "flags = \"EXCLUSIVE\"".into(),
        ..tunnel(me, local, peer, remote)
    };
    let far = d.outer();
    let mut of_d = transport(d, far, c, c.outer());
    of_d.more.push_str("\nstart = \"respond\"");
    let gateway = Caponier::start(d, &expecting(of_d, "192.168.0.0/16"));
    let _at_a = Caponier::start(a, &Configuration::new(transport(a, private_a, d, far)));
    let at_b = Caponier::start(b, &Configuration::new(transport(b, private_b, d, far)));
    let wire = Capture::start(d, "outer");

    let server = traffic::udp(d, far, 7000, 10);
    let client = |host: &Host, address: IpAddr, port: u16| {
        let socket = host.inside(|| UdpSocket::bind((address, port))).expect("a UDP socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        socket
    };
    let ask = |from: &UdpSocket, word: &[u8]| from.send_to(word, (far, 7000)).expect("sent");
    let mut room = [0; 100];
    let mut answer = |port: u16, word: &[u8]| {
        let (len, from) = server.recv_from(&mut room).expect("a question");
        assert_eq!((&room[..len], from), (word, SocketAddr::new(c.outer(), port)));
        server.send_to(word, from).expect("sent");
    };
    let got = |at: &UdpSocket, word: &[u8]| {
        let mut room = [0; 100];
        let len = at.recv(&mut room).expect("the answer");
        assert_eq!(&room[..len], word);
    };
    let (one, two) = (client(a, private_a, 5000), client(b, private_b, 5001));
    ask(&one, b"of one");
    answer(5000, b"of one");
    ask(&two, b"of two");
    answer(5001, b"of two");
    got(&one, b"of one");
    got(&two, b"of two");
    assert_eq!(gateway.pairs("to_c").len(), 2);
    // The same port at the other one: it is the first's.
    let intruder = client(b, private_b, 5000);
    intruder.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    ask(&intruder, b"of an intruder");
    let why = gateway.wait_event(30, "ERROR", &["behind the same NAT", "192.168.7.2", "192.168.8.2"]);
    assert!(why.contains("5000"), "{why}");
    at_b.wait_event(10, "ERROR", &["INVALID-ID-INFORMATION"]);
    ask(&one, b"again");
    answer(5000, b"again");
    got(&one, b"again");
    assert!(intruder.recv(&mut [0; 100]).is_err(), "nothing of the first's");
    assert_eq!(gateway.pairs("to_c").len(), 2);
    assert_eq!(gateway.counter("cleartext_leaks"), 0);
    let census = census(&wire.stop());
    assert_eq!((census.get(&Kind::Clear), census.get(&Kind::OuterIcmp)), (None, None), "{census:?}");
}
