//! Whole negotiations between two engines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::table::{ENCRYPTIONS, GROUPS, HASHES, Status};
use crypto::{EspSuite, IkeSuite};
use ike::{Role, TunnelState};
use policy::sa::{Mode, OriginalAddresses, SaProtocol};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Packet, Side, World, a, b};

fn both(change: impl Fn(&mut Side)) -> World {
    let (mut a, mut b) = (a(), b());
    change(&mut a);
    change(&mut b);
    World::new(&a, &b)
}

/// Negotiates from A and checks that both sides agree.
#[track_caller]
fn agree(mut w: World) -> World {
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    assert!(w.a().errors().is_empty() && w.b().errors().is_empty());
    w
}

#[test]
fn main_mode_and_quick_mode() {
    let w = agree(both(|_| {}));
    assert_eq!(w.sent.len(), 9, "six messages of main mode, three of quick mode");
    let exchanges: Vec<_> = w.sent.iter().map(|(_, p)| p.exchange().0).collect();
    assert_eq!(exchanges, [2, 2, 2, 2, 2, 2, 32, 32, 32]);
    assert!(w.sent.iter().all(|(_, p)| p.from.port() == 500 && p.to.port() == 500));
    let (sa, pair) = (&w.a().engine.isakmp_sas()[0], &w.a().engine.pairs()[0]);
    assert_eq!(sa.role, Role::Initiator);
    assert_eq!(w.b().engine.isakmp_sas()[0].role, Role::Responder);
    assert_eq!(sa.peer_identity.as_ref().unwrap().to_string(), "10.77.0.2");
    assert_eq!(sa.suite.unwrap().to_string(), "aes128-sha1-modp2048");
    assert_eq!((pair.suite.to_string().as_str(), pair.lifetime.seconds), ("aes128-sha1", 28800));
    assert_eq!(w.a().engine.tunnels()[0].state, TunnelState::Up);
    assert!(w.a().exported.is_empty(), "keys stay where they are");
    let spis = 300..=2_500_000;
    assert!(w.hosts.iter().all(|h| h.pairs.values().all(|p| spis.contains(&p.inbound.spi))));
}

#[test]
fn every_suite_of_main_mode() {
    let mut seen = 0;
    for encryption in ENCRYPTIONS.iter().filter(|e| e.ikev1_phase1.is_some() && e.status != Status::Forbidden) {
        for hash in HASHES.iter().filter(|h| h.status != Status::Forbidden) {
            let group = GROUPS.iter().find(|g| g.keyword == "x25519").unwrap();
            let suite = IkeSuite { encryption, hash, group };
            let w = agree(both(|s| s.ike = suite.to_string()));
            assert_eq!(w.b().engine.isakmp_sas()[0].suite, Some(suite));
            seen += 1;
        }
    }
    assert!(seen >= 20, "four ciphers, five hashes: {seen}");
}

#[test]
fn every_group_in_both_phases() {
    for group in GROUPS.iter().filter(|g| g.status != Status::Forbidden) {
        let w = agree(both(|s| {
            s.ike = format!("aes128-sha256-{group}");
            s.esp = format!("aes256-sha256-{group}");
        }));
        assert_eq!(w.a().engine.pairs()[0].pfs, Some(group));
    }
}

#[test]
fn every_suite_of_esp() {
    for suite in EspSuite::all().filter(|s| s.status() != Status::Forbidden) {
        for pfs in ["", "-ecp256"] {
            let w = agree(both(|s| s.esp = format!("{suite}{pfs}")));
            let pair = w.a().current().unwrap();
            assert_eq!(pair.outbound.suite, suite);
            assert_ne!(pair.outbound.keymat, pair.inbound.keymat);
        }
    }
}

#[test]
fn extended_sequence_numbers_where_both_want_them() {
    let sides = |first: &str, second: &str| {
        let side = |side: Side, esp: &str| Side { esp: esp.into(), ..side };
        World::new(&side(a(), first), &side(b(), second))
    };
    for (first, second, extended) in [
        ("aes256gcm16-esn", "aes256gcm16-esn", true),
        ("aes128-sha1-modp2048-esn", "aes128-sha1-modp2048,aes128-sha1-modp2048-esn", true),
        ("aes128-sha1-esn,aes128-sha1", "aes128-sha1", false),
        ("aes128-sha1", "aes128-sha1-esn,aes128-sha1", false),
    ] {
        let w = agree(sides(first, second));
        for host in &w.hosts {
            let pair = host.current().unwrap();
            assert_eq!((pair.inbound.esn, pair.outbound.esn), (extended, extended), "{first} with {second}");
            assert_eq!(host.engine.pairs()[0].esn, extended);
        }
    }
    for (first, second, said) in [
        ("aes128-sha1-esn", "aes128-sha1", "sequence numbers: ours:peer = 32 bits:64 bits"),
        ("aes128-sha1", "aes128-sha1-esn", "sequence numbers: ours:peer = 64 bits:32 bits"),
    ] {
        let mut w = sides(first, second);
        w.initiate(0);
        w.seconds(2);
        assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
        let errors = w.b().errors();
        assert!(errors.iter().any(|e| e.contains(said)), "{errors:?}");
    }
}

#[test]
fn ah_with_every_integrity_algorithm() {
    for row in crypto::table::INTEGRITIES.iter() {
        let w = agree(both(|s| s.esp = format!("ah-{row}-ecp256")));
        let (pair, peer) = (w.a().current().unwrap(), w.b().current().unwrap());
        assert_eq!((pair.outbound.protocol, pair.outbound.suite.integrity), (SaProtocol::Ah, Some(row)));
        assert_eq!(pair.outbound.keymat.len(), row.key_len);
        assert_ne!(pair.outbound.keymat, pair.inbound.keymat);
        assert_eq!(peer.inbound.protocol, SaProtocol::Ah);
        assert_eq!(w.b().engine.pairs()[0].protocol, SaProtocol::Ah);
    }
    // The keys of AH are not those of ESP with the same algorithm: KEYMAT names the protocol (RFC 2409 5.5).
    let key = |esp: &str| agree(both(|s| s.esp = esp.into())).a().current().unwrap().outbound.keymat.clone();
    assert_ne!(key("ah-sha1"), key("null-sha1"));
}

#[test]
fn ah_and_esp_in_the_offered_order() {
    for (first, second, agreed, protocol) in [
        ("ah-sha1,aes128-sha1", "aes128-sha1,ah-sha1", "ah-sha1", SaProtocol::Ah),
        ("aes128-sha1,ah-sha1", "ah-sha1", "ah-sha1", SaProtocol::Ah),
        ("aes128-sha1,ah-sha1,aes256-sha1", "aes256-sha1", "aes256-sha1", SaProtocol::Esp),
    ] {
        let w = agree(World::new(&Side { esp: first.into(), ..a() }, &Side { esp: second.into(), ..b() }));
        let pair = &w.a().engine.pairs()[0];
        assert_eq!(
            policy::transform::name(pair.protocol, pair.suite, pair.ah.map(|(ah, _)| ah)),
            agreed,
            "{first} with {second}"
        );
        assert_eq!(pair.protocol, protocol);
    }
    let mut w = World::new(&Side { esp: "ah-sha1".into(), ..a() }, &Side { esp: "aes128-sha1".into(), ..b() });
    w.initiate(0);
    w.seconds(2);
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    let said = "we accept aes128-sha1; peer offered ah-sha1: protocol differs (rejected protocol: ours:peer = ESP:AH)";
    assert!(w.b().errors().iter().any(|e| e.contains(said)), "{:?}", w.b().errors());
}

/// As many as HP-UX allows, in their order: 25 of ESP and 2 of AH.
#[test]
fn the_longest_list_of_transforms() {
    let esp: Vec<_> = (0..25).map(|n| format!("aes256-sha256/{}", 3600 + n)).collect();
    let all = [&["ah-sha256".to_owned()][..], &esp[..], &["ah-sha1".to_owned()][..]].concat().join(",");
    let last = Side { esp: "ah-sha1".into(), ..b() };
    let w = agree(World::new(&Side { esp: all.clone(), ..a() }, &last));
    assert_eq!(w.b().engine.pairs()[0].protocol, SaProtocol::Ah);
    let w = agree(both(|s| s.esp = all.clone()));
    assert_eq!(w.b().engine.pairs()[0].suite.integrity.map(|i| i.keyword), Some("sha256"), "the first");
}

#[test]
fn ah_does_not_go_through_a_nat() {
    let force = |esp: &str| {
        let mut w = both(|s| {
            s.esp = esp.into();
            s.ike_extra = "nat_traversal = \"force\"".into();
        });
        w.initiate(0);
        w.seconds(2);
        w
    };
    let w = force("ah-sha1");
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    assert!(w.a().errors().iter().any(|e| e.contains("AH cannot pass the NAT")), "{:?}", w.a().errors());
    let w = force("ah-sha1,aes128-sha1");
    assert_eq!(w.b().engine.pairs()[0].protocol, SaProtocol::Esp, "what can pass, passes");
}

#[test]
fn the_initiators_order_decides() {
    let a = Side {
        ike: "aes256-sha256-ecp256,aes128-sha1-modp2048".into(),
        esp: "aes256-sha256,aes128-sha1".into(),
        ..a()
    };
    let b = Side {
        ike: "aes128-sha1-modp2048,aes256-sha256-ecp256".into(),
        esp: "aes128-sha1,aes256-sha256".into(),
        ..b()
    };
    for (first, ike, esp) in [(0, "aes256-sha256-ecp256", "aes256-sha256"), (1, "aes128-sha1-modp2048", "aes128-sha1")]
    {
        let mut w = World::new(&a, &b);
        w.initiate(first);
        w.seconds(2);
        w.assert_one_pair();
        assert_eq!(w.a().engine.isakmp_sas()[0].suite.unwrap().to_string(), ike);
        assert_eq!(w.a().engine.pairs()[0].suite.to_string(), esp);
    }
}

#[test]
fn one_quick_mode_per_isakmp_sa_means_its_own_key_exchange() {
    let w = agree(both(|s| s.ike_extra = "maxqm = 1".into()));
    assert_eq!(w.a().engine.pairs()[0].pfs.unwrap().keyword, "modp2048", "the group of the ISAKMP SA");
    assert_eq!(w.b().engine.pairs()[0].pfs.unwrap().keyword, "modp2048");
}

#[test]
fn one_quick_mode_per_isakmp_sa_means_an_isakmp_sa_per_tunnel() {
    let second = |side: &Side, s: &str, d: &str| {
        let extra = format!(
            "[[tunnel]]\nname = \"second\"\ntsource = \"{}\"\ntdestination = \"{}\"\nsource = \"{s}\"\ndestination = \
             \"{d}\"\naction = \"aes128-sha1\"\n{}\n",
            side.me, side.peer, side.tunnel_extra
        );
        support::config(&(side.text() + &extra))
    };
    let (a, b) = (
        Side { ike_extra: "maxqm = 1".into(), tunnel_extra: "start = \"boot\"".into(), ..a() },
        Side { ike_extra: "maxqm = 1".into(), ..b() },
    );
    let configs =
        [(second(&a, "10.79.1.0/24", "10.79.2.0/24"), a.me), (second(&b, "10.79.2.0/24", "10.79.1.0/24"), b.me)];
    let mut w = World::of(&configs, 4);
    w.run(Duration::from_millis(2000));
    assert_eq!((w.a().pairs.len(), w.b().pairs.len()), (2, 2));
    assert!(w.a().engine.isakmp_sas().iter().all(|sa| sa.quick_modes <= 1));
}

#[test]
fn all_kinds_of_phase_2_ids() {
    for (at_a, at_b) in [
        ("10.78.1.0/24", "10.78.2.0/24"),
        ("10.78.1.7", "10.78.2.9"),
        ("10.78.1.3-10.78.1.9", "10.78.2.0/25"),
        ("10.78.1.0/24", "0.0.0.0/0"),
        ("fd00:1::/64", "fd00:2::7"),
        ("fd00:1::1-fd00:1::5", "fd00:2::/48"),
    ] {
        let (at_a, at_b): (&'static str, &'static str) = (at_a, at_b);
        let w = World::new(
            &Side { source: at_a, destination: at_b, ..a() },
            &Side { source: at_b, destination: at_a, ..b() },
        );
        let w = agree(w);
        let selector = &w.a().current().unwrap().outbound.selector;
        assert_eq!(selector.local.to_string(), at_a);
        assert_eq!(selector.remote.to_string(), at_b);
    }
}

#[test]
fn protocol_and_port_in_phase_2_ids() {
    let tcp =
        |side: Side| support::config(&side.text().replace("\ndestination = ", "\nprotocol = \"TCP\"\ndestination = "));
    let (a, b) = (Side { destination: "10.78.2.0/24/80", ..a() }, Side { source: "10.78.2.0/24/80", ..b() });
    let configs = [(tcp(a.clone()), a.me), (tcp(b.clone()), b.me)];
    let w = agree(World::of(&configs, 1));
    assert_eq!(w.b().current().unwrap().inbound.selector.protocol, Some(6));
}

#[test]
fn ipv6_outside() {
    let w =
        World::new(&Side { me: "fd77::1", peer: "fd77::2", ..a() }, &Side { me: "fd77::2", peer: "fd77::1", ..b() });
    agree(w);
}

#[test]
fn identities_other_than_addresses() {
    let w = World::new(
        &Side {
            auth_extra: "ltype = \"FQDN\"\nlid = \"A.example\"\nrtype = \"USER-FQDN\"\nrid = \"b@example\"".into(),
            ..a()
        },
        &Side {
            auth_extra: "ltype = \"USER-FQDN\"\nlid = \"b@example\"\nrtype = \"FQDN\"\nrid = \"a.example\"".into(),
            ..b()
        },
    );
    let w = agree(w);
    assert_eq!(w.a().engine.isakmp_sas()[0].peer_identity.as_ref().unwrap().to_string(), "b@example");
}

#[test]
fn the_shorter_lifetime_counts_on_both_sides() {
    for (at_a, at_b) in [("3600", "28800"), ("28800", "3600"), ("0", "3600"), ("3600", "0")] {
        let w = agree(World::new(
            &Side { esp: format!("ESP_AES128_HMAC_SHA1/{at_a}/0"), ..a() },
            &Side { esp: format!("ESP_AES128_HMAC_SHA1/{at_b}/10240"), ..b() },
        ));
        for h in &w.hosts {
            let spec = &h.current().unwrap().inbound;
            assert_eq!((spec.lifetime.seconds, spec.lifetime.kbytes), (3600, 10240), "{at_a} {at_b}");
        }
    }
}

#[test]
fn unlimited_on_both_sides_is_unlimited() {
    let w = agree(both(|s| s.esp = "ESP_AES128_HMAC_SHA1/0/0".into()));
    assert_eq!(w.b().current().unwrap().inbound.lifetime.seconds, 0);
    assert_eq!(w.a().engine.pairs()[0].expires, None);
}

#[test]
fn keys_are_exported_only_when_asked() {
    let w = agree(both(|s| s.startup = "export_keys = \"/tmp/keys\"".into()));
    assert_eq!(w.a().exported, w.b().exported);
    assert_eq!(w.a().exported.len(), 1);
}

#[test]
fn forced_nat_traversal_on_either_side() {
    for forced in [[true, false], [false, true], [true, true]] {
        let force = |on| if on { "nat_traversal = \"force\"".into() } else { String::new() };
        let w = agree(World::new(
            &Side { ike_extra: force(forced[0]), ..a() },
            &Side { ike_extra: force(forced[1]), ..b() },
        ));
        for h in &w.hosts {
            let encapsulation = h.current().unwrap().outbound.encapsulation.unwrap();
            assert_eq!((encapsulation.local_port, encapsulation.remote_port), (4500, 4500));
        }
        // Messages 1 to 4 on port 500, the rest on 4500 behind the non-ESP marker.
        for (i, (_, p)) in w.sent.iter().enumerate() {
            let port = if i < 4 { 500 } else { 4500 };
            assert_eq!((p.from.port(), p.to.port()), (port, port));
            assert_eq!(p.payload.starts_with(&[0, 0, 0, 0]), i >= 4);
        }
    }
}

#[test]
fn keepalives_only_from_behind_a_nat() {
    let mut w = agree(World::new(&Side { ike_extra: "nat_traversal = \"force\"\nkeepalive = 20".into(), ..a() }, &b()));
    w.seconds(61);
    assert_eq!(w.a().keepalives, 3);
    assert_eq!(w.b().keepalives, 0, "B sees a NAT before A, none before itself");
}

#[test]
fn nat_traversal_off_is_not_announced() {
    let w = agree(World::new(
        &Side { ike_extra: "nat_traversal = \"off\"".into(), ..a() },
        &Side { ike_extra: "nat_traversal = \"force\"".into(), ..b() },
    ));
    assert!(w.sent.iter().all(|(_, p)| p.to.port() == 500));
    assert!(w.a().current().unwrap().outbound.encapsulation.is_none());
}

/// A NAT before A: A's ports are translated, and its address is 10.77.0.1 to
/// itself, `outside` to B.
fn nat(w: &mut World, outside: &'static str, base: u16) {
    w.wire = Box::new(move |p| {
        let mut p: Packet = p.clone();
        if p.from.ip().to_string() == "10.77.0.1" {
            p.from = SocketAddr::new(outside.parse().unwrap(), base + p.from.port() % 1000);
        } else {
            let port = if p.to.port() == base + 500 { 500 + 4000 * u16::from(p.from.port() == 4500) } else { 500 };
            p.to = SocketAddr::new("10.77.0.1".parse().unwrap(), port);
        }
        vec![(support::LATENCY, p)]
    });
}

fn world_with_nat() -> World {
    let a = a();
    let b = Side { peer: "10.99.0.9", auth_extra: "rtype = \"IPV4\"\nrid = \"10.77.0.1\"".into(), ..b() };
    World::new(&a, &b)
}

#[test]
fn a_nat_is_detected_and_its_ports_are_followed() {
    let mut w = world_with_nat();
    nat(&mut w, "10.99.0.9", 20_000);
    w.initiate(0);
    w.seconds(2);
    assert!(w.b().errors().is_empty() && w.a().errors().is_empty(), "{:?} {:?}", w.a().errors(), w.b().errors());
    let sa = &w.b().engine.isakmp_sas()[0];
    assert!(sa.nat.remote && !sa.nat.local && !sa.nat.forced);
    assert_eq!(sa.remote, "10.99.0.9:20500".parse().unwrap());
    assert!(w.a().engine.isakmp_sas()[0].nat.local);
    let encapsulation = w.b().current().unwrap().outbound.encapsulation.unwrap();
    assert_eq!((encapsulation.local_port, encapsulation.remote_port), (4500, 20_500));

    // The NAT forgets its mapping: the next authenticated message shows the new port.
    nat(&mut w, "10.99.0.9", 30_000);
    w.command(0, ike::Command::RekeyPeer { peer: "10.77.0.2".parse().unwrap() });
    w.seconds(60);
    w.command(0, ike::Command::Rekey { pair: w.a().current().unwrap().inbound.pair });
    w.seconds(60);
    assert_eq!(w.b().current().unwrap().outbound.encapsulation.unwrap().remote_port, 30_500);
    assert_eq!(w.b().pairs.len(), 1);
}

fn in_transport_mode(side: Side) -> Side {
    Side {
        source: side.me,
        destination: side.peer,
        tunnel_extra: format!("mode = \"transport\"\n{}", side.tunnel_extra),
        ..side
    }
}

#[test]
fn transport_mode() {
    let w = agree(World::new(&in_transport_mode(a()), &in_transport_mode(b())));
    for host in &w.hosts {
        for spec in [&host.current().unwrap().inbound, &host.current().unwrap().outbound] {
            assert_eq!((spec.mode, spec.original, spec.encapsulation), (Mode::Transport, None, None));
            assert_eq!(spec.selector.local.first(), spec.local);
            assert_eq!(spec.selector.remote.first(), spec.remote);
        }
    }
    // One side asks for the other mode.
    let mut w = World::new(&in_transport_mode(a()), &Side { source: "10.77.0.2", destination: "10.77.0.1", ..b() });
    w.initiate(0);
    w.seconds(2);
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    let said = "encapsulation mode: ours:peer = tunnel:transport";
    assert!(w.b().errors().iter().any(|e| e.contains(said)), "{:?}", w.b().errors());
}

/// RFC 3947 5.2: each side learns the addresses that the other computes checksums with.
#[test]
fn transport_mode_through_a_nat() {
    for first in [0, 1] {
        let mut w = World::new(
            &in_transport_mode(a()),
            &in_transport_mode(Side {
                peer: "10.99.0.9",
                auth_extra: "rtype = \"IPV4\"\nrid = \"10.77.0.1\"".into(),
                ..b()
            }),
        );
        nat(&mut w, "10.99.0.9", 20_000);
        w.initiate(0);
        w.seconds(2);
        if first == 1 {
            // Under the same ISAKMP SA the other side begins.
            let pair = w.b().current().unwrap().inbound.pair;
            w.command(1, ike::Command::Rekey { pair });
            w.seconds(60);
        }
        assert!(w.a().errors().is_empty() && w.b().errors().is_empty(), "{}", w.story());
        let (at_a, at_b) = (w.a().current().unwrap(), w.b().current().unwrap());
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let original = |remote, local| Some(OriginalAddresses { remote: ip(remote), local: ip(local) });
        // B sees the NAT's address; A says its own. A sees B as it is, but B sees A otherwise.
        assert_eq!(at_b.inbound.original, original("10.77.0.1", "10.77.0.2"));
        assert_eq!(at_a.inbound.original, original("10.77.0.2", "10.99.0.9"));
        assert_eq!((at_b.inbound.remote, at_b.inbound.local), (ip("10.99.0.9"), ip("10.77.0.2")));
        assert_eq!(at_b.inbound.selector.remote.first(), ip("10.99.0.9"));
        assert!(at_a.outbound.encapsulation.is_some() && at_b.outbound.encapsulation.is_some());
        assert_eq!(at_a.outbound.spi, at_b.inbound.spi);
        assert_eq!(at_b.outbound.spi, at_a.inbound.spi);
    }
}

#[test]
fn a_forged_port_is_not_followed() {
    let mut w = world_with_nat();
    nat(&mut w, "10.99.0.9", 20_000);
    w.initiate(0);
    w.seconds(2);
    let last = w.sent.iter().rev().find(|(_, p)| p.from.ip().to_string() == "10.77.0.1").unwrap().1.clone();
    let mut forged = last.clone();
    forged.from = "10.99.0.9:6666".parse().unwrap();
    let end = forged.payload.len() - 1;
    forged.payload[end] ^= 1;
    w.deliver(&forged);
    // A replay of a true message is not believed either.
    let mut replayed = last;
    replayed.from = "10.99.0.9:6666".parse().unwrap();
    w.deliver(&replayed);
    assert_eq!(w.b().engine.isakmp_sas()[0].remote.port(), 20_500);
}

#[test]
fn message_ids_and_cookies_are_unique() {
    let mut w = agree(both(|_| {}));
    for _ in 0..5 {
        let pair = w.a().current().unwrap().inbound.pair;
        w.command(0, ike::Command::Rekey { pair });
        w.seconds(40);
    }
    let ids: Vec<_> = w.sent.iter().map(|(_, p)| p.exchange()).filter(|(kind, _)| *kind != 2).collect();
    let quick: BTreeSet<_> = ids.iter().filter(|(kind, _)| *kind == 32).map(|(_, id)| *id).collect();
    assert_eq!(quick.len(), 6);
    assert!(ids.iter().all(|(_, id)| *id != 0));
    w.assert_one_pair();
}

/// A peer that knows only the drafts of NAT traversal: its vendor ID takes the place of RFC 3947's.
#[test]
fn nat_traversal_by_the_drafts_is_understood() {
    const RFC_3947: [u8; 16] = *b"\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f";
    const DRAFT_03: [u8; 16] = *b"\x7d\x94\x19\xa6\x53\x10\xca\x6f\x2c\x17\x9d\x92\x15\x52\x9d\x56";
    let mut w = World::new(&Side { ike_extra: "nat_traversal = \"force\"".into(), ..a() }, &b());
    w.wire = Box::new(|p| {
        let mut p = p.clone();
        if let Some(at) = p.payload.windows(16).position(|w| w == RFC_3947) {
            p.payload[at..at + 16].copy_from_slice(&DRAFT_03);
        }
        vec![(support::LATENCY, p)]
    });
    let w = agree(w);
    // NAT-D payloads have the number of the drafts, 130: KE, NONCE, NAT-D, NAT-D.
    let message_3 = &w.sent[2].1;
    let nonce_next = message_3.payload[28 + 4 + 256];
    assert_eq!(nonce_next, 130);
    assert!(w.b().current().unwrap().outbound.encapsulation.is_some());
}

#[test]
fn the_engine_may_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<ike::Engine>();
}
