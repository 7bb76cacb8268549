//! EXCLUSIVE policies: quick modes for single sessions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::{Command, TunnelState};
use policy::config::Config;
use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use policy::session::Session;
use std::sync::Arc;
use support::{Side, World, a, b, config};

fn exclusive(side: &Side) -> Arc<Config> {
    config(&side.text().replace("tunnel = \"net\"", "tunnel = \"net\"\nflags = \"EXCLUSIVE\""))
}

fn world_of(a: &Side, b: &Side) -> World {
    World::of(&[(exclusive(a), a.me), (exclusive(b), b.me)], 1)
}

fn world() -> World {
    world_of(&a(), &b())
}

/// From a port of A's side to port 80 of B's.
fn session(port: u16, of_a: bool) -> Session {
    let (source, destination) = ("10.78.1.5".parse().unwrap(), "10.78.2.5".parse().unwrap());
    let ports = Ports::Pair { source: port, destination: 80 };
    let tuple = FiveTuple { source, destination, protocol: 6, ports, interface: Attachment::TUN };
    Session::of(&tuple, if of_a { Direction::Outbound } else { Direction::Inbound }).unwrap()
}

fn begin(w: &mut World, host: usize, port: u16) {
    w.command(host, Command::InitiateSession { tunnel: "net".into(), session: session(port, host == 0) });
}

/// The sessions with pairs in use, and with how many.
fn sessions(w: &World, host: usize) -> Vec<(Session, usize)> {
    let mut out: Vec<(Session, usize)> = Vec::new();
    for pair in w.hosts[host].pairs.values().filter(|p| p.active.is_some()) {
        let session = pair.outbound.session.expect("of a session");
        assert_eq!((&pair.outbound.selector, &*pair.outbound.tunnel), (&session.selector(), "net"));
        match out.iter_mut().find(|(s, _)| *s == session) {
            Some((_, count)) => *count += 1,
            None => out.push((session, 1)),
        }
    }
    out.sort();
    out
}

#[track_caller]
fn assert_sessions(w: &World, ports: &[u16]) {
    for host in [0, 1] {
        let mut expected: Vec<_> = ports.iter().map(|p| (session(*p, host == 0), 1)).collect();
        expected.sort();
        assert_eq!(sessions(w, host), expected, "host {host}");
        let reports = w.hosts[host].engine.pairs();
        assert!(reports.iter().all(|p| p.session.is_some() && &*p.tunnel == "net"));
        assert_eq!(w.hosts[host].engine.tunnels().len(), 1, "sessions are no tunnels in reports");
    }
}

#[test]
fn each_session_has_a_pair_under_one_isakmp_sa() {
    let mut w = world();
    for port in 1001..=1005 {
        begin(&mut w, 0, port);
    }
    w.seconds(3);
    assert_sessions(&w, &[1001, 1002, 1003, 1004, 1005]);
    assert_eq!(w.a().engine.isakmp_sas().len(), 1);
    // The peer answers by the same pair.
    begin(&mut w, 1, 1003);
    w.seconds(3);
    assert_sessions(&w, &[1001, 1002, 1003, 1004, 1005]);
    assert!(w.a().errors().is_empty() && w.b().errors().is_empty(), "{:?}", w.b().errors());
}

#[test]
fn both_sides_at_once_end_with_one_pair() {
    let mut w = world();
    begin(&mut w, 0, 999);
    w.seconds(3);
    for port in 1001..=1008 {
        begin(&mut w, 0, port);
        begin(&mut w, 1, port);
    }
    w.seconds(3);
    assert_sessions(&w, &[999, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008]);
}

#[test]
fn an_idle_session_goes_on_both_sides_and_the_others_stay() {
    let mut w = world();
    begin(&mut w, 0, 1001);
    begin(&mut w, 0, 1002);
    w.seconds(3);
    let pair = w.a().pairs.values().find(|p| p.outbound.session == Some(session(1001, true))).unwrap().inbound.pair;
    w.command(0, Command::Idle { pair });
    w.seconds(3);
    assert_sessions(&w, &[1002]);
    // And comes back with the next packet.
    begin(&mut w, 1, 1001);
    w.seconds(3);
    assert_sessions(&w, &[1001, 1002]);
}

#[test]
fn each_session_is_rekeyed_by_itself() {
    let (mut side_a, mut side_b) = (a(), b());
    (side_a.esp, side_b.esp) = ("aes128-sha1/600".into(), "aes128-sha1/600".into());
    let mut w = world_of(&side_a, &side_b);
    begin(&mut w, 0, 1001);
    w.seconds(200);
    begin(&mut w, 0, 1002);
    w.seconds(3);
    let spis = |w: &World| -> Vec<u32> { w.a().engine.pairs().iter().map(|p| p.inbound_spi).collect() };
    let before = spis(&w);
    w.seconds(367);
    assert_sessions(&w, &[1001, 1002]);
    let after = spis(&w);
    assert!(!after.contains(&before[0]) && after.contains(&before[1]), "{before:?} {after:?}");
    w.seconds(2000);
    assert_sessions(&w, &[1001, 1002]);
    assert!(w.a().failed.is_empty() && w.b().failed.is_empty());
}

#[test]
fn no_more_sessions_than_may_be_on_either_side() {
    for limited in [0, 1] {
        let (mut side_a, mut side_b) = (a(), b());
        [&mut side_a, &mut side_b][limited].startup = "exclusive_sessions = 2".into();
        let mut w = world_of(&side_a, &side_b);
        for port in 1001..=1004 {
            begin(&mut w, 0, port);
        }
        // A refusal that names no SPI is believed when it is clear which quick mode is meant, or in the end.
        w.seconds(90);
        assert_sessions(&w, &[1001, 1002]);
        let failed = &w.a().failed;
        assert_eq!(failed.len(), 2, "{failed:?}");
        let told = &w.hosts[limited];
        assert_eq!(told.engine.discarded().get(&ike::Discarded::SessionLimit), Some(&2));
        // With one gone there is room again.
        let pair = *w.a().pairs.first_key_value().unwrap().0;
        w.command(0, Command::Idle { pair });
        w.seconds(3);
        begin(&mut w, 0, 1004);
        w.seconds(3);
        assert_eq!(sessions(&w, 1).len(), 2);
    }
}

#[test]
fn what_no_exclusive_policy_covers_is_refused() {
    // B's policy shares its SAs: it answers for the whole of the tunnel alone.
    let mut w = World::of(&[(exclusive(&a()), a().me), (b().config(), b().me)], 1);
    begin(&mut w, 0, 1001);
    w.seconds(3);
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    let (session, reason) = &w.a().failed[0];
    assert_eq!(session, "6 10.78.1.5:1001 <=> 10.78.2.5:80");
    assert!(reason.contains("INVALID-ID-INFORMATION"), "{reason}");
    // And the reverse.
    let mut w = World::of(&[(a().config(), a().me), (exclusive(&b()), b().me)], 1);
    w.initiate(0);
    w.seconds(3);
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    assert!(w.b().errors()[0].contains("only EXCLUSIVE policies name our tunnel net"), "{:?}", w.b().errors());
    // Nor do we ask for all of it.
    let mut w = world();
    w.initiate(0);
    w.seconds(3);
    assert!(w.sent.is_empty() && w.a().failed[0].1.contains("only EXCLUSIVE policies name tunnel"));
    // An earlier policy that discards is asked first, by whoever answers.
    let discard = "[[host]]\nname = \"no\"\nprotocol = \"TCP\"\nsource = \"0.0.0.0/0/80\"\npriority = 1\n[[tunnel]]";
    let text = b().text().replacen("[[tunnel]]", discard, 1);
    let text = text.replace("tunnel = \"net\"", "tunnel = \"net\"\nflags = \"EXCLUSIVE\"");
    let mut w = World::of(&[(exclusive(&a()), a().me), (config(&text), b().me)], 1);
    begin(&mut w, 0, 1001);
    w.seconds(3);
    assert!(w.b().pairs.is_empty());
}

#[test]
fn a_reload_keeps_sessions_that_are_still_such() {
    let mut w = world();
    begin(&mut w, 0, 1001);
    begin(&mut w, 0, 1002);
    w.seconds(3);
    let spis = |w: &World| -> Vec<u32> { w.a().engine.pairs().iter().map(|p| p.inbound_spi).collect() };
    let before = spis(&w);
    w.command(0, Command::Reload { config: exclusive(&a()) });
    w.seconds(3);
    assert_eq!(spis(&w), before);
    // Port 1002 is in the clear from now on.
    let pass = "[[host]]\nname = \"clear\"\nprotocol = \"TCP\"\nsource = \"10.78.1.0/24/1002\"\naction = \"PASS\"\n\
                priority = 1\n[[tunnel]]";
    let text = a().text().replacen("[[tunnel]]", pass, 1);
    let text = text.replace("tunnel = \"net\"", "tunnel = \"net\"\nflags = \"EXCLUSIVE\"");
    w.command(0, Command::Reload { config: config(&text) });
    w.seconds(3);
    assert_sessions(&w, &[1001]);
    // Without the flag, sessions end, and the whole tunnel can be negotiated.
    w.command(0, Command::Reload { config: a().config() });
    w.command(1, Command::Reload { config: b().config() });
    w.seconds(3);
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
    w.initiate(0);
    w.seconds(3);
    w.assert_one_pair();
    assert_eq!(w.a().engine.tunnels()[0].state, TunnelState::Up);
}

#[test]
fn a_peer_that_is_gone_fails_every_session_and_leaves_nothing() {
    let mut w = world();
    w.wire = Box::new(|_| Vec::new());
    for port in 1001..=1003 {
        begin(&mut w, 0, port);
    }
    w.seconds(120);
    assert_eq!(w.a().failed.len(), 3);
    w.wire = support::lossless();
    begin(&mut w, 0, 1001);
    w.seconds(3);
    assert_sessions(&w, &[1001]);
    w.command(0, Command::Shutdown);
    w.seconds(3);
    assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
}

#[test]
fn sessions_wait_for_a_peer_that_died_where_the_policy_says_so() {
    let clear = Side { ike_extra: "dpd = 10\ndpd_mode = \"periodic\"\ndpd_action = \"clear\"".into(), ..a() };
    let mut w = world_of(&clear, &b());
    begin(&mut w, 0, 1001);
    w.seconds(3);
    assert_sessions(&w, &[1001]);
    w.wire = Box::new(|_| vec![]);
    // One more that will not be answered.
    w.seconds(8);
    begin(&mut w, 0, 1002);
    w.seconds(60);
    assert!(w.a().pairs.is_empty());
    let failed = w.a().failed.len();
    assert!(failed >= 1, "who waits is told: {:?}", w.a().failed);
    w.wire = support::lossless();
    w.sent.clear();
    begin(&mut w, 0, 1003);
    w.seconds(3);
    assert!(w.a().failed.last().unwrap().1.contains("waits for its peer"), "{:?}", w.a().failed);
    assert!(w.a().pairs.is_empty() && w.sent.is_empty(), "nothing begins");
    // The peer comes back by a session of its own: then others begin too.
    let us = w.a().address;
    w.command(1, Command::DeletePeer { peer: us });
    w.seconds(5);
    begin(&mut w, 1, 1004);
    w.seconds(3);
    begin(&mut w, 0, 1005);
    w.seconds(3);
    assert_sessions(&w, &[1004, 1005]);
}

/// The five-tuple of a session over IPv6.
#[test]
fn sessions_over_ipv6() {
    let v6 = |side: Side, source, destination| Side { source, destination, ..side };
    let mut w = world_of(&v6(a(), "fd01::/64", "fd02::/64"), &v6(b(), "fd02::/64", "fd01::/64"));
    let of = |port, direction| {
        let (source, destination) = ("fd01::5".parse().unwrap(), "fd02::5".parse().unwrap());
        let ports = Ports::Pair { source: port, destination: 80 };
        Session::of(&FiveTuple { source, destination, protocol: 17, ports, interface: Attachment::TUN }, direction)
    };
    for port in [1001, 1002] {
        let session = of(port, Direction::Outbound).unwrap();
        w.command(0, Command::InitiateSession { tunnel: "net".into(), session });
    }
    w.seconds(3);
    for (host, direction) in [(0, Direction::Outbound), (1, Direction::Inbound)] {
        let expected: Vec<_> = [1001, 1002].iter().map(|port| (of(*port, direction).unwrap(), 1)).collect();
        assert_eq!(sessions(&w, host), expected, "host {host}");
    }
}

#[test]
fn sessions_of_ah() {
    let ah = |side: Side| Side { esp: "ah-sha256".into(), ..side };
    let mut w = world_of(&ah(a()), &ah(b()));
    [1001, 1002].iter().for_each(|port| begin(&mut w, 0, *port));
    w.seconds(3);
    assert_sessions(&w, &[1001, 1002]);
    assert!(w.hosts.iter().flat_map(|h| h.engine.pairs()).all(|p| p.protocol == policy::sa::SaProtocol::Ah));
}

#[test]
fn sessions_in_transport_mode() {
    let between = |side: Side| Side {
        source: side.me,
        destination: side.peer,
        tunnel_extra: "mode = \"transport\"".into(),
        ..side
    };
    let mut w = world_of(&between(a()), &between(b()));
    let of = |port, direction| {
        let (source, destination) = (a().me.parse().unwrap(), b().me.parse().unwrap());
        let ports = Ports::Pair { source: port, destination: 80 };
        Session::of(&FiveTuple { source, destination, protocol: 6, ports, interface: Attachment::TUN }, direction)
            .unwrap()
    };
    for port in [1001, 1002] {
        let session = of(port, Direction::Outbound);
        w.command(0, Command::InitiateSession { tunnel: "net".into(), session });
    }
    w.seconds(3);
    for (host, direction) in [(0, Direction::Outbound), (1, Direction::Inbound)] {
        let expected: Vec<_> = [1001, 1002].iter().map(|port| (of(*port, direction), 1)).collect();
        assert_eq!(sessions(&w, host), expected, "host {host}");
        assert!(w.hosts[host].pairs.values().all(|p| p.outbound.mode == policy::sa::Mode::Transport));
    }
}
