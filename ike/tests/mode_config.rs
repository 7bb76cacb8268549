//! Mode configuration between two engines: a client gets an address, and only what goes with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::Secret;
use ike::{Assignment, Command};
use policy::audit::Level;
use policy::config::Client;
use policy::selector::AddressRange;
use std::sync::Arc;
use support::{World, config};

const TRANSACTION: u8 = 6;

fn client(virtual_: &str, start: &str) -> String {
    format!(
        "[[host]]\nname = \"office\"\ndestination = \"10.1.0.0/16\"\ntunnel = \"net\"\n\
         [[tunnel]]\nname = \"net\"\ntsource = \"10.77.0.1\"\ntdestination = \"10.77.0.2\"\nvirtual = \"{virtual_}\"\n\
         destination = \"10.1.0.0/16\"\naction = \"aes128-sha1\"\nstart = \"{start}\"\n\
         [[ike]]\nname = \"peer\"\nremote = \"10.77.0.2\"\nproposals = [\"aes128-sha1-x25519\"]\n\
         [[auth]]\nname = \"peer\"\nremote = \"10.77.0.2\"\npreshared = \"{}\"\n\
         xauth = \"client\"\nuser = \"alice\"\npassword = \"wonderland\"\n",
        support::PSK
    )
}

fn server(mode: &str) -> String {
    format!(
        "[[host]]\nname = \"clients\"\nsource = \"10.1.0.0/16\"\ndestination = \"10.3.0.0/24\"\ntunnel = \"clients\"\n\
         [[pool]]\nname = \"p\"\naddresses = \"10.3.0.0/24\"\nmode = \"{mode}\"\n\
         [[tunnel]]\nname = \"clients\"\ntsource = \"10.77.0.2\"\npool = \"p\"\nsource = \"10.1.0.0/16\"\n\
         action = \"aes128-sha1\"\n\
         [[ike]]\nname = \"peers\"\nremote = \"10.77.0.0/24\"\nproposals = [\"aes128-sha1-x25519\"]\n\
         [[auth]]\nname = \"peers\"\nremote = \"10.77.0.0/24\"\npreshared = \"{}\"\n\
         xauth = \"server\"\nusers = \"/users\"\n",
        support::PSK
    )
}

fn assignment() -> Assignment {
    Assignment {
        address: [10, 3, 0, 7].into(),
        dns: vec![[10, 1, 0, 53].into()],
        networks: Vec::new(),
        banner: Some("Hello".into()),
        seconds: Some(3600),
    }
}

fn world(a: &str, b: &str) -> World {
    let mut w = World::of(&[(config(a), "10.77.0.1"), (config(b), "10.77.0.2")], 1);
    w.hosts[0].password = Some(Secret::copy_of(b"wonderland"));
    w.hosts[1].users = Some(vec![("alice", "wonderland")]);
    w.hosts[1].lease = Ok(assignment());
    w
}

fn says(w: &World, host: usize, level: Level, words: &[&str]) {
    let lines = w.hosts[host].lines(level);
    assert!(lines.iter().any(|l| words.iter().all(|word| l.contains(word))), "{words:?}\n{}", w.story());
}

#[test]
fn an_address_is_asked_for_or_told() {
    for mode in ["pull", "push"] {
        let mut w = world(&client(mode, "boot"), &server(mode));
        w.seconds(3);
        w.assert_one_pair();
        assert_eq!(w.a().assigned, [assignment()], "{mode}");
        let (a, b) = (&w.a().engine.pairs()[0], &w.b().engine.pairs()[0]);
        assert_eq!((&*a.tunnel, &*b.tunnel), ("net@10.3.0.7", "clients@10.3.0.7"));
        assert_eq!(a.selector.to_string(), "10.3.0.7 <=> 10.1.0.0/16", "narrowed");
        let sas = (&w.a().engine.isakmp_sas()[0], &w.b().engine.isakmp_sas()[0]);
        assert_eq!((sas.0.assigned.as_ref(), sas.0.leased), (Some(&assignment()), None));
        assert_eq!((sas.1.assigned.as_ref(), sas.1.leased), (None, Some([10, 3, 0, 7].into())));
        says(&w, 0, Level::Informative, &["gives us the address 10.3.0.7", "DNS servers 10.1.0.53"]);
        says(&w, 0, Level::Informative, &["10.77.0.2 says \"Hello\""]);
        says(&w, 1, Level::Informative, &["`alice` at the peer 10.77.0.1 has the address 10.3.0.7"]);
        assert!(w.a().errors().is_empty() && w.b().errors().is_empty(), "{}", w.story());
        // A new ISAKMP SA asks again, gets the same, and what there is stays.
        w.command(0, Command::RekeyPeer { peer: "10.77.0.2".parse().unwrap() });
        w.seconds(60);
        w.assert_one_pair();
        assert_eq!(w.a().assigned.len(), 2);
        assert!(w.a().removed.is_empty());
    }
}

#[test]
fn a_first_packet_begins_it_too() {
    let mut w = world(&client("pull", "traffic"), &server("pull"));
    w.seconds(1);
    assert!(w.sent.is_empty());
    w.initiate(0);
    w.seconds(2);
    assert_eq!(w.a().assigned.len(), 1);
    assert!(w.a().failed.iter().any(|(t, r)| t == "net" && r.contains("not from the address")), "{:?}", w.a().failed);
    w.command(0, Command::Initiate { tunnel: "net@10.3.0.7".into() });
    w.seconds(2);
    w.assert_one_pair();
}

/// Networks that the peer tells us, as far as our own policy protects them.
#[test]
fn each_split_network_has_a_tunnel() {
    let range = |text: &str, prefix| AddressRange::prefix(text.parse().unwrap(), prefix).unwrap();
    let mut w = world(&client("pull", "boot"), &server("pull"));
    let networks = vec![range("10.1.5.0", 24), range("10.9.0.0", 16), range("10.1.6.0", 24)];
    w.hosts[1].lease = Ok(Assignment { networks, ..assignment() });
    w.seconds(3);
    let tunnels: Vec<_> = w.a().engine.tunnels().iter().map(|t| t.name.to_string()).collect();
    assert_eq!(tunnels, ["net", "net@10.3.0.7", "net@10.3.0.7-2"], "what is not ours to send there is left out");
    // The gateway's tunnel is for all of it: these are other selectors, and it says so.
    says(&w, 1, Level::Error, &["our tunnel clients@10.3.0.7", "peer asked for 10.1.5.0/24"]);
}

#[test]
fn no_address_is_said_by_name() {
    let mut w = world(&client("pull", "traffic"), &server("pull"));
    w.hosts[1].lease = Err("all 254 addresses of pool `p` are taken".into());
    w.initiate(0);
    w.seconds(3);
    w.assert_nothing_left();
    says(&w, 0, Level::Error, &["the peer tells us no address"]);
    says(
        &w,
        1,
        Level::Error,
        &["no address for `alice` at the peer 10.77.0.1: all 254 addresses of pool `p` are taken"],
    );
    // Nobody knows whether there is one.
    let mut w = world(&client("pull", "traffic"), &server("pull"));
    w.initiate(0);
    w.run(support::LATENCY * 17 / 2);
    w.hosts[1].answers = false;
    w.seconds(70);
    says(&w, 1, Level::Error, &["an address for the peer did not come in time"]);
    w.assert_nothing_left();
}

#[test]
fn who_does_not_push_or_is_not_asked_is_given_up_by_name() {
    let mut w = world(&client("push", "traffic"), &server("pull"));
    w.initiate(0);
    w.seconds(70);
    says(&w, 0, Level::Error, &["does not tell us an address", "virtual = \"pull\""]);
    // A peer that has none to give.
    let plain = server("pull").replace("pool = \"p\"", "tdestination = \"10.77.0.1\"\ndestination = \"10.3.0.0/24\"");
    let mut w = world(&client("pull", "traffic"), &plain);
    w.initiate(0);
    w.seconds(3);
    says(&w, 1, Level::Warning, &["asks for an address", "no tunnel with tsource 10.77.0.2 has a pool"]);
    says(&w, 0, Level::Error, &["the peer tells us no address"]);
    // Nobody hears.
    let mut w = world(&client("pull", "traffic"), &server("pull"));
    let mut seen = 0;
    w.wire = Box::new(move |p| {
        seen += usize::from(p.exchange().0 == TRANSACTION);
        if p.exchange().0 == TRANSACTION && seen > 4 { vec![] } else { support::lossless()(p) }
    });
    w.initiate(0);
    w.seconds(70);
    says(&w, 0, Level::Error, &["does not tell us an address (mode-config), asked 6 times"]);
}

/// An address is only for whom it was given to: another user at the same place cannot take its tunnel.
#[test]
fn a_lease_is_only_for_its_owner() {
    let mut w = world(&client("pull", "boot"), &server("pull"));
    w.seconds(3);
    w.assert_one_pair();
    let local = "10.77.0.2".parse().unwrap();
    let eve = Client::Leased {
        pool: "p".into(),
        owner: "eve".into(),
        local,
        peer: "10.77.0.1".parse().unwrap(),
        address: [10, 3, 0, 7].into(),
    };
    let config = Arc::new(config(&server("pull")).expanded(&[eve]));
    w.command(1, Command::Reload { config });
    w.seconds(5);
    says(
        &w,
        1,
        Level::Error,
        &["we have no tunnel from 10.77.0.2 to 10.77.0.1; peer asked for 10.1.0.0/16 <=> 10.3.0.7"],
    );
    assert!(w.b().pairs.is_empty());
}

#[test]
fn a_packet_for_an_address_that_nobody_has_waits_in_vain() {
    let mut w = world(&client("pull", "traffic"), &server("pull"));
    w.command(1, Command::Initiate { tunnel: "clients".into() });
    w.seconds(1);
    assert!(w.sent.is_empty());
    let (tunnel, reason) = &w.b().failed[0];
    assert!(tunnel == "clients" && reason.contains("only responds"), "{reason}");
}

#[test]
fn losses_and_duplicates() {
    for mode in ["pull", "push"] {
        let mut w = world(&client(mode, "boot"), &server(mode));
        let mut seen = std::collections::BTreeSet::new();
        w.wire = Box::new(move |p| {
            if p.exchange().0 == TRANSACTION && seen.insert(p.payload.clone()) {
                return vec![];
            }
            vec![(support::LATENCY, p.clone()), (support::LATENCY * 3, p.clone())]
        });
        w.seconds(30);
        w.assert_one_pair();
        assert_eq!(w.b().asked, ["user", "lease"]);
        assert_eq!(w.a().assigned.len(), 1);
    }
}
