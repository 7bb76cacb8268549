//! Several peers behind one NAT, which has one address for all, and gives their ports anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::Command;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use support::{Packet, Side, World, b, config};

/// What the world knows the clients by.
const OUTSIDE: &str = "10.99.0.9";

/// First of the ports that the NAT gives each client, of private addresses 192.168.1.1 on.
type Ports = Rc<RefCell<Vec<u16>>>;

fn nat(w: &mut World, clients: u16) -> Ports {
    let ports: Ports = Rc::new(RefCell::new((0..clients).map(|n| 20_000 + 10 * n).collect()));
    let mapped = Rc::clone(&ports);
    w.wire = Box::new(move |p| {
        let mut p: Packet = p.clone();
        let outside: IpAddr = OUTSIDE.parse().unwrap();
        if let IpAddr::V4(from) = p.from.ip()
            && from.octets()[0] == 192
        {
            let port = mapped.borrow()[usize::from(from.octets()[3]) - 1] + u16::from(p.from.port() == 4500);
            p.from = SocketAddr::new(outside, port);
        } else {
            let (asked, mapped) = (p.to.port(), mapped.borrow());
            let Some(client) = mapped.iter().position(|port| (*port..port + 2).contains(&asked)) else {
                return Vec::new();
            };
            let port = if asked == mapped[client] { 500 } else { 4500 };
            p.to = SocketAddr::from(([192, 168, 1, client as u8 + 1], port));
        }
        vec![(support::LATENCY, p)]
    });
    ports
}

fn client(n: u8, mode: &str, more: &str, startup: &str) -> (std::sync::Arc<policy::config::Config>, String) {
    let me: &'static str = ["192.168.1.1", "192.168.1.2"][usize::from(n)];
    let network: &'static str = ["10.78.1.0/24", "10.78.3.0/24"][usize::from(n)];
    let transport = mode == "transport";
    let side = Side {
        me,
        peer: "10.77.0.2",
        source: if transport { me } else { network },
        destination: if transport { "10.77.0.2" } else { "10.78.2.0/24" },
        tunnel_extra: format!("mode = \"{mode}\""),
        auth_extra: more.into(),
        startup: startup.into(),
        ..b()
    };
    (side.config(), me.into())
}

/// The gateway's configuration, with a tunnel to each of these networks.
fn gateway(mode: &str, networks: &[(&str, &str)], auth: &str) -> std::sync::Arc<policy::config::Config> {
    let mut text = String::new();
    for (name, network) in networks {
        let source = if mode == "transport" { "10.77.0.2" } else { "10.78.2.0/24" };
        text += &format!(
            "[[tunnel]]\nname = \"{name}\"\ntsource = \"10.77.0.2\"\ntdestination = \"{OUTSIDE}\"\nmode = \"{mode}\"\n\
             source = \"{source}\"\ndestination = \"{network}\"\naction = \"aes128-sha1\"\n\
             [[host]]\nname = \"{name}\"\nsource = \"{source}\"\ndestination = \"{network}\"\ntunnel = \"{name}\"\n"
        );
    }
    config(&format!(
        "{text}[[ike]]\nname = \"peer\"\nremote = \"{OUTSIDE}\"\nproposals = [\"aes128-sha1-modp2048\"]\ndpd = 30\n\
         [[auth]]\nname = \"peer\"\nremote = \"{OUTSIDE}\"\npreshared = \"{}\"\n{auth}\n",
        support::PSK
    ))
}

const ANY_PRIVATE: &str = "rtype = \"IPV4\"\nrid = \"192.168.1.0/24\"";

fn world(mode: &str, networks: &[(&str, &str)], more: [&str; 2], startup: &str) -> (World, Ports) {
    let [one, two] = [client(0, mode, more[0], startup), client(1, mode, more[1], startup)];
    let gateway = gateway(mode, networks, ANY_PRIVATE);
    let hosts = [(gateway, "10.77.0.2"), (one.0, one.1.as_str()), (two.0, two.1.as_str())];
    let mut w = World::of(&hosts, 7);
    let ports = nat(&mut w, 2);
    (w, ports)
}

const NETWORKS: [(&str, &str); 2] = [("one", "10.78.1.0/24"), ("two", "10.78.3.0/24")];

/// The ports where the gateway sends the ESP of each tunnel.
fn sent_to(w: &World) -> Vec<(String, u16)> {
    let gateway = &w.hosts[0];
    let to = |p: &support::Installed| {
        let port = p.outbound.encapsulation.expect("ESP in UDP").remote_port;
        (p.outbound.tunnel.to_string(), port)
    };
    let mut all: Vec<_> = gateway.pairs.values().filter(|p| p.active.is_some()).map(to).collect();
    all.sort();
    all
}

fn both(one: u16, two: u16) -> Vec<(String, u16)> {
    vec![("one".into(), one), ("two".into(), two)]
}

#[test]
fn each_has_its_own_sas_and_ends_only_those() {
    let (mut w, _) = world("tunnel", &NETWORKS, ["", ""], "");
    w.initiate(1);
    w.initiate(2);
    w.seconds(3);
    assert!(w.hosts.iter().all(|h| h.errors().is_empty()), "{}", w.story());
    assert_eq!(sent_to(&w), both(20_001, 20_011), "{}", w.story());
    assert_eq!(w.hosts[0].engine.isakmp_sas().len(), 2);
    // The gateway replaces the pair of the first under the ISAKMP SA with the first, though the second's is newer.
    let one = w.hosts[0].pairs.values().find(|p| &*p.inbound.tunnel == "one").unwrap().inbound.pair;
    w.command(0, Command::Rekey { pair: one });
    w.seconds(40);
    assert!(w.hosts.iter().all(|h| h.errors().is_empty()), "{}", w.story());
    assert_eq!(sent_to(&w), both(20_001, 20_011));
    assert!(!w.hosts[0].pairs.contains_key(&one), "replaced");
    // It ends one, and only its peer is told.
    let one = w.hosts[0].pairs.values().find(|p| &*p.inbound.tunnel == "one").unwrap().inbound.pair;
    w.command(0, Command::Expired { pair: one });
    w.seconds(10);
    assert_eq!((w.hosts[1].pairs.len(), w.hosts[2].pairs.len()), (0, 1), "{}", w.story());
}

#[test]
fn one_that_dies_takes_nothing_of_the_others_along() {
    let (mut w, ports) = world("tunnel", &NETWORKS, ["", ""], "");
    w.initiate(1);
    w.initiate(2);
    w.seconds(3);
    // The first is gone; packets go to both, and none come from either.
    ports.borrow_mut()[0] = 60_000;
    w.hosts[1] = support::Host::new(client(0, "tunnel", "", "").0, "192.168.1.1", 5, w.now);
    w.hosts[0].activity = (None, Some(w.now + std::time::Duration::from_secs(25)));
    w.seconds(120);
    assert_eq!(sent_to(&w), [("two".to_string(), 20_011)], "{}", w.story());
    assert_eq!(w.hosts[0].engine.isakmp_sas().len(), 1, "{}", w.story());
    assert_eq!(w.hosts[2].pairs.len(), 1);
}

/// The same SPI, chosen by two peers, is two SPIs.
#[test]
fn a_delete_concerns_the_sas_of_its_sender() {
    // Each client has one SPI to choose from.
    let (mut w, _) = world("tunnel", &NETWORKS, ["", ""], "spi_min = 300\nspi_max = 300");
    w.initiate(1);
    w.seconds(2);
    w.initiate(2);
    w.seconds(2);
    let spis: Vec<_> = w.hosts[0].pairs.values().map(|p| p.outbound.spi).collect();
    assert_eq!(spis[0], spis[1], "what this test is about");
    let pair = *w.hosts[2].pairs.keys().next().unwrap();
    w.command(2, Command::Expired { pair });
    w.seconds(2);
    assert_eq!(sent_to(&w), [("one".to_string(), 20_001)], "{}", w.story());
}

#[test]
fn a_changed_mapping_is_followed_by_what_is_authentic() {
    let (mut w, ports) = world("tunnel", &NETWORKS, ["", ""], "");
    w.initiate(1);
    w.initiate(2);
    w.seconds(3);
    let reported = |w: &World| {
        let mut all: Vec<_> = w.hosts[0].engine.isakmp_sas().iter().map(|sa| sa.remote.port()).collect();
        all.sort_unstable();
        all
    };
    // A message that anybody can forge: the right cookies, and no more.
    let (_, last) = w.sent.iter().rfind(|(_, p)| p.from.ip().to_string() == "192.168.1.1").unwrap().clone();
    let mut forged = last;
    let here = forged.payload.len() - 1;
    forged.payload[here] ^= 1;
    // Another message ID: an old one would not be looked at.
    forged.payload[4 + 20] ^= 0x55;
    forged.from = SocketAddr::new(OUTSIDE.parse().unwrap(), 31_337);
    w.deliver(&forged);
    w.seconds(1);
    assert_eq!(sent_to(&w), both(20_001, 20_011));
    assert_eq!(reported(&w), [20_001, 20_011]);
    assert!(w.hosts[0].engine.discarded().iter().any(|(why, _)| *why == ike::Discarded::NotAuthentic));
    // The packet path reports an authentic packet: everything of that peer moves, and nothing of the other.
    ports.borrow_mut()[0] = 30_000;
    let one = w.hosts[0].pairs.values().find(|p| &*p.inbound.tunnel == "one").unwrap().inbound.pair;
    let to = SocketAddr::new(OUTSIDE.parse().unwrap(), 30_001);
    w.command(0, Command::PeerMoved { pair: one, remote: to });
    assert_eq!(sent_to(&w), both(30_001, 20_011));
    assert_eq!(reported(&w), [20_011, 30_001]);
    let said = w.hosts[0].lines(policy::audit::Level::Informative);
    assert!(said.iter().any(|line| line.contains("moved from port 20001 to 30001")), "{said:?}");
    // Not to another address: the policies know the peer by it.
    w.command(0, Command::PeerMoved { pair: one, remote: "10.99.0.10:30001".parse().unwrap() });
    assert_eq!(sent_to(&w), both(30_001, 20_011));
    // IKE goes there too, and what the peer says from yet another port is followed.
    w.command(0, Command::Rekey { pair: one });
    w.seconds(40);
    assert_eq!(sent_to(&w), both(30_001, 20_011), "{}", w.story());
    assert!(!w.hosts[0].pairs.contains_key(&one), "{}", w.story());
    ports.borrow_mut()[0] = 40_000;
    w.command(1, Command::RekeyPeer { peer: "10.77.0.2".parse().unwrap() });
    w.seconds(40);
    assert_eq!(sent_to(&w), both(40_001, 20_011), "{}", w.story());
    assert_eq!(reported(&w), [20_011, 40_001]);
    assert!(w.hosts.iter().all(|h| h.errors().is_empty()), "{}", w.story());
}

/// A peer that no NAT translates does not move because somebody has sent its packets on.
#[test]
fn without_a_nat_nobody_moves() {
    let mut w = World::new(&support::a(), &b());
    w.initiate(0);
    w.seconds(2);
    let pair = w.b().current().unwrap().inbound.pair;
    w.command(1, Command::PeerMoved { pair, remote: "10.77.0.1:4501".parse().unwrap() });
    assert_eq!(w.b().engine.pairs()[0].remote.port(), 500);
}

/// In transport mode both clients are the same address to the gateway.
#[test]
fn who_comes_second_to_the_same_selector_is_refused_by_name() {
    // With identities of their own, and with the same private address as identity behind NATs of their own.
    let same = "ltype = \"IPV4\"\nlid = \"192.168.1.7\"";
    for more in [["", ""], [same, same]] {
        let (mut w, _) = world("transport", &[("clients", OUTSIDE)], more, "");
        w.initiate(1);
        w.seconds(10);
        assert_eq!(sent_to(&w), [("clients".to_string(), 20_001)], "{}", w.story());
        let first = w.hosts[0].current().unwrap().inbound.pair;
        w.initiate(2);
        w.seconds(60);
        assert_eq!(w.hosts[0].current().unwrap().inbound.pair, first, "{}", w.story());
        assert_eq!((w.hosts[1].pairs.len(), w.hosts[2].pairs.len()), (1, 0), "{}", w.story());
        let errors = w.hosts[0].errors();
        let told =
            |e: &&&str| e.contains("10.99.0.9:20001") && e.contains("10.99.0.9:20011") && e.contains("EXCLUSIVE");
        assert_eq!(errors.iter().filter(told).count(), 1, "{errors:?}");
        assert!(w.hosts[2].failed.len() == 1 && !w.hosts[2].errors().is_empty(), "{}", w.story());
    }
}

#[test]
fn who_comes_second_gets_what_the_first_has_left_without_a_word() {
    let (mut w, ports) = world("transport", &[("clients", OUTSIDE)], ["", ""], "");
    w.initiate(1);
    w.seconds(10);
    ports.borrow_mut()[0] = 60_000;
    w.hosts[1] = support::Host::new(client(0, "transport", "", "").0, "192.168.1.1", 5, w.now);
    w.initiate(2);
    // The first is asked, for 7 seconds; the second repeats its message until then.
    w.seconds(5);
    assert_eq!(sent_to(&w), [("clients".to_string(), 20_001)]);
    w.seconds(20);
    assert_eq!(sent_to(&w), [("clients".to_string(), 20_011)], "{}", w.story());
    assert!(w.hosts[2].errors().is_empty() && w.hosts[0].errors().is_empty(), "{}", w.story());
}
