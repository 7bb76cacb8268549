//! After the handshake: replacement, deletion, expiry, reload, restart, end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::{Command, IsakmpState, PairState};
use std::sync::Arc;
use support::{Host, Side, World, a, b};

fn up(a: &Side, b: &Side) -> World {
    let mut w = World::new(a, b);
    w.initiate(0);
    w.seconds(1);
    w.assert_one_pair();
    w
}

fn short() -> (Side, Side) {
    let startup = "allow_short_lifetimes = true";
    let make = |s: Side| Side {
        startup: startup.into(),
        esp: "ESP_AES128_HMAC_SHA1/60/0".into(),
        ike_extra: "life = 200".into(),
        ..s
    };
    (make(a()), make(b()))
}

#[test]
fn pairs_and_isakmp_sas_are_replaced_before_they_end() {
    let (a, b) = short();
    let mut w = up(&a, &b);
    let first = w.a().current().unwrap().inbound.spi;
    for _ in 0..600 {
        w.seconds(1);
        w.assert_mirror();
        for h in &w.hosts {
            assert!(h.pairs.len() <= 2, "old pairs go away");
            assert!(h.engine.isakmp_sas().len() <= 2);
        }
    }
    assert_ne!(w.a().current().unwrap().inbound.spi, first);
    assert!(w.a().removed.len() >= 9, "{}", w.a().removed.len());
    assert!(w.hosts.iter().all(|h| h.removed.iter().all(|(_, why)| !why.contains("lifetime"))));
    assert!(w.hosts.iter().all(|h| h.errors().is_empty()));
}

#[test]
fn make_before_break() {
    for side in 0..2 {
        let mut w = up(&a(), &b());
        let old = w.hosts[side].current().unwrap().inbound.pair;
        let old_spi = w.hosts[side].current().unwrap().inbound.spi;
        w.command(side, Command::Rekey { pair: old });
        w.seconds(1);
        for h in &w.hosts {
            assert_eq!(h.pairs.len(), 2, "the old pair still receives");
        }
        w.assert_mirror();
        assert_ne!(w.hosts[side].current().unwrap().inbound.spi, old_spi);
        let states: Vec<_> = w.a().engine.pairs().iter().map(|p| p.state).collect();
        assert_eq!(states, [PairState::Dying, PairState::Mature]);
        w.seconds(6);
        w.assert_one_pair();
        // The side whose exchange won deleted it; the other was told.
        assert!(w.hosts[side].removed[0].1.contains("replaced"));
        assert!(w.hosts[1 - side].removed[0].1.contains("deleted by the peer"));
    }
}

#[test]
fn a_lost_delete_leaves_nothing_for_long() {
    let mut w = up(&a(), &b());
    w.command(0, Command::Rekey { pair: w.a().current().unwrap().inbound.pair });
    w.seconds(1);
    w.wire = Box::new(|p| if p.exchange().0 == 5 { vec![] } else { vec![(support::LATENCY, p.clone())] });
    w.seconds(60);
    w.assert_one_pair();
}

#[test]
fn rekey_of_the_isakmp_sa_keeps_the_pairs() {
    for side in 0..2 {
        let mut w = up(&a(), &b());
        let peer = w.hosts[1 - side].address;
        let before = w.a().engine.isakmp_sas()[0].initiator_cookie;
        let spi = w.a().current().unwrap().inbound.spi;
        w.command(side, Command::RekeyPeer { peer });
        w.seconds(10);
        for h in &w.hosts {
            let sas = h.engine.isakmp_sas();
            assert_eq!(sas.len(), 1);
            assert_ne!(sas[0].initiator_cookie, before);
            assert_eq!(h.pairs.len(), 1);
        }
        assert_eq!(w.a().current().unwrap().inbound.spi, spi);
        w.assert_one_pair();
    }
}

#[test]
fn both_sides_start_at_once() {
    for seed in 0..50 {
        let (a, b) = (
            Side { tunnel_extra: "start = \"boot\"".into(), ..a() },
            Side { tunnel_extra: "start = \"boot\"".into(), ..b() },
        );
        let mut w = World::of(&[(a.config(), a.me), (b.config(), b.me)], seed);
        w.seconds(2);
        w.assert_mirror();
        w.seconds(60);
        w.assert_one_pair();
        for h in &w.hosts {
            assert_eq!(h.engine.isakmp_sas().len(), 1, "{seed}: {:?}", h.engine.isakmp_sas());
            assert!(h.errors().is_empty(), "{seed}: {:?}", h.errors());
            assert!(h.failed.is_empty());
        }
    }
}

#[test]
fn both_sides_rekey_at_once() {
    for seed in 0..50 {
        let mut w = World::of(&[(a().config(), a().me), (b().config(), b().me)], seed);
        w.initiate(0);
        w.seconds(1);
        for host in 0..2 {
            let pair = w.hosts[host].current().unwrap().inbound.pair;
            w.command(host, Command::Rekey { pair });
        }
        w.seconds(1);
        w.assert_mirror();
        for h in &w.hosts {
            assert_eq!(h.pairs.len(), 2, "the old pair and one new one");
        }
        w.seconds(120);
        w.assert_one_pair();
        assert!(w.hosts.iter().all(|h| h.errors().is_empty()), "{seed}");
    }
}

#[test]
fn both_sides_rekey_the_isakmp_sa_at_once() {
    for seed in 0..20 {
        let mut w = World::of(&[(a().config(), a().me), (b().config(), b().me)], seed);
        w.initiate(0);
        w.seconds(1);
        for host in 0..2 {
            let peer = w.hosts[1 - host].address;
            w.command(host, Command::RekeyPeer { peer });
        }
        w.seconds(120);
        w.assert_one_pair();
        let cookies: Vec<_> = w.hosts.iter().map(|h| h.engine.isakmp_sas()[0].initiator_cookie).collect();
        assert_eq!(cookies[0], cookies[1], "{seed}");
        assert!(w.hosts.iter().all(|h| h.engine.isakmp_sas().len() == 1), "{seed}");
    }
}

#[test]
fn deletion_by_command_reaches_both_sides() {
    for side in 0..2 {
        let mut w = up(&a(), &b());
        let peer = w.hosts[1 - side].address;
        w.command(side, Command::DeletePeer { peer });
        w.seconds(1);
        w.assert_nothing_left();
        // And the next packet brings it back.
        w.initiate(1 - side);
        w.seconds(1);
        w.assert_one_pair();
    }
}

#[test]
fn a_boot_tunnel_comes_back_after_deletion() {
    let mut w = World::new(&Side { tunnel_extra: "start = \"boot\"".into(), ..a() }, &b());
    w.seconds(1);
    w.assert_one_pair();
    let peer = w.a().address;
    w.command(1, Command::DeletePeer { peer });
    w.seconds(5);
    w.assert_one_pair();
}

#[test]
fn volume_limits() {
    let mut w = up(&a(), &b());
    let pair = w.a().current().unwrap().inbound.pair;
    w.command(0, Command::Expired { pair });
    w.seconds(1);
    assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
    assert_eq!(w.a().engine.isakmp_sas()[0].state, IsakmpState::Mature);
    w.initiate(1);
    w.seconds(1);
    w.assert_one_pair();
}

#[test]
fn hard_expiry_without_a_peer() {
    let (a, b) = short();
    let mut w = up(&a, &b);
    w.wire = Box::new(|_| vec![]);
    w.seconds(300);
    w.assert_nothing_left();
    assert!(w.hosts.iter().all(|h| h.removed.iter().any(|(_, why)| why.contains("lifetime"))));
}

#[test]
fn shutdown_tells_everybody_and_ends() {
    let mut w = up(&Side { tunnel_extra: "start = \"boot\"".into(), ..a() }, &b());
    w.command(0, Command::Shutdown);
    w.seconds(60);
    w.assert_nothing_left();
    w.initiate(0);
    w.initiate(1);
    w.seconds(40);
    w.assert_nothing_left();
    assert_eq!(w.a().engine.next_timeout(), None);
}

#[test]
fn a_restarted_peer_says_so() {
    let mut w = up(&a(), &b());
    let old = w.b().current().unwrap().inbound.pair;
    // A crashes: nothing is said. Then it starts anew, and its first packet goes out.
    w.hosts[0] = Host::new(a().config(), a().me, 99, w.now);
    w.initiate(0);
    w.seconds(1);
    w.assert_one_pair();
    assert_eq!(w.b().removed[0], (old, "the peer has restarted (INITIAL-CONTACT)".into()));
    assert_eq!(w.b().engine.isakmp_sas().len(), 1);
}

#[test]
fn a_restarted_peer_is_found_out_by_who_stayed() {
    let mut w = up(&a(), &b());
    w.hosts[0] = Host::new(a().config(), a().me, 99, w.now);
    w.seconds(100);
    // B sends into the void, until A's packet path reports the SPI, but A has no ISAKMP SA to say so.
    let pair = w.b().current().unwrap().inbound.pair;
    w.command(1, Command::Rekey { pair });
    w.seconds(40);
    w.assert_mirror();
    w.seconds(60);
    w.assert_one_pair();
    assert!(w.b().errors().is_empty(), "{:?}", w.b().errors());
}

#[test]
fn an_unknown_spi_is_answered_with_a_delete() {
    let mut w = up(&a(), &b());
    let out = w.a().current().unwrap().outbound.spi;
    // B loses the pair without being able to say so.
    w.wire = Box::new(|_| vec![]);
    let pair = w.b().current().unwrap().inbound.pair;
    w.command(1, Command::Expired { pair });
    w.seconds(20);
    w.wire = support::lossless();
    assert_eq!(w.a().pairs.len(), 1);
    let peer = (w.a().address, 0).into();
    w.command(1, Command::UnknownSpi { peer, spi: out });
    w.command(1, Command::UnknownSpi { peer, spi: out });
    w.seconds(1);
    assert!(w.a().pairs.is_empty());
    let told = w.sent.iter().filter(|(at, p)| p.exchange().0 == 5 && w.now.since(*at).as_secs() < 2).count();
    assert_eq!(told, 1, "once is enough");
}

/// Packets under SPIs that nobody has, all in one second: the peer is told of a few.
#[test]
fn a_flood_of_unknown_spis_is_answered_with_a_few() {
    let mut w = up(&a(), &b());
    let (from, before) = ((w.a().address, 0).into(), w.sent.len());
    for spi in 0x0100_0000..0x0100_2000 {
        w.command(1, Command::UnknownSpi { peer: from, spi });
    }
    // And from somebody we have no SA with: nothing at all.
    w.command(1, Command::UnknownSpi { peer: "10.99.0.1:0".parse().unwrap(), spi: 0x0200_0000 });
    w.seconds(5);
    let told = w.sent[before..].iter().filter(|(_, p)| p.exchange().0 == 5).count();
    assert!((1..=64).contains(&told), "{told}");
    w.assert_one_pair();
}

#[test]
fn an_spi_of_the_peer_is_not_deleted_for_a_forged_packet() {
    let mut w = up(&a(), &b());
    // Whoever watches the wire knows the SPI that A sends under, and sends A a packet with it.
    let (peer, spi) = ((w.b().address, 0).into(), w.a().current().unwrap().outbound.spi);
    let before = w.sent.len();
    w.command(0, Command::UnknownSpi { peer, spi });
    w.seconds(5);
    // A delete of it would be believed by peers that look for it among their own SPIs.
    assert!(w.sent[before..].iter().all(|(_, p)| p.exchange().0 != 5), "nothing was said");
    w.assert_one_pair();
}

/// Main mode, and message 1 and 2 of quick mode.
const UNTIL_MESSAGE_2: core::time::Duration = support::LATENCY.saturating_mul(8);

/// Whether A encrypts as soon as it has sent message 3 of quick mode.
fn sends_at_once(w: &mut World) -> bool {
    w.initiate(0);
    w.run(UNTIL_MESSAGE_2);
    assert!(w.b().current().is_none(), "message 3 is on its way");
    // What A sends now B can decrypt, even if it overtakes message 3.
    assert_eq!((w.a().pairs.len(), w.b().pairs.len()), (1, 1));
    let at_once = w.a().current().is_some();
    w.run(core::time::Duration::from_millis(99));
    assert!(w.b().current().is_some());
    assert_eq!(w.a().current().is_some(), at_once);
    w.run(core::time::Duration::from_millis(1));
    w.assert_one_pair();
    at_once
}

#[test]
fn a_responder_that_receives_from_message_2_is_not_waited_for() {
    for exchange in ["", "exchange = \"AM\"\naggressive_psk = \"accept\""] {
        let side = |side: Side| Side { ike: "aes128-sha1-x25519".into(), auth_extra: exchange.into(), ..side };
        let mut w = World::new(&side(a()), &side(b()));
        if !exchange.is_empty() {
            // Three messages in place of six: there is time left when message 3 of quick mode is sent.
            w.initiate(0);
            w.run(support::LATENCY * 4);
            assert!(w.a().current().is_some() && w.b().current().is_none());
            w.seconds(1);
            w.assert_one_pair();
        } else {
            assert!(sends_at_once(&mut w));
        }
        let announced = &w.a().engine.isakmp_sas()[0].vendors;
        assert!(announced.iter().any(|name| name == "receives from message 2"), "{announced:?}");
    }
}

/// What the initiator sends early is answered early: an answer that finds no SA to leave by waits for message 3, also where
/// the tunnel begins nothing, and needs no pair of its own where it could.
#[test]
fn an_answer_of_the_responder_waits_for_message_3() {
    for start in ["respond", "traffic"] {
        let mut w = World::new(&a(), &Side { tunnel_extra: format!("start = \"{start}\""), ..b() });
        w.initiate(0);
        w.run(UNTIL_MESSAGE_2);
        assert!(w.a().current().is_some() && w.b().current().is_none());
        w.initiate(1);
        assert!(w.b().failed.is_empty(), "{:?}", w.b().failed);
        w.seconds(1);
        w.assert_one_pair();
        assert_eq!(w.b().pairs.len(), 1, "no second negotiation");
    }
}

#[test]
fn an_answer_that_waits_for_message_3_in_vain_is_given_up() {
    let mut w = World::new(&a(), &Side { tunnel_extra: "start = \"respond\"".into(), ..b() });
    w.initiate(0);
    // Message 2 is on its way; nothing comes after it.
    w.run(support::LATENCY * 7);
    w.wire = Box::new(|_| vec![]);
    w.run(support::LATENCY);
    assert!(w.a().current().is_some() && w.b().pairs.len() == 1);
    w.initiate(1);
    assert!(w.b().failed.is_empty());
    w.seconds(120);
    assert!(w.b().pairs.is_empty() && !w.b().failed.is_empty(), "{:?}", w.b().failed);
}

#[test]
fn other_responders_have_a_head_start() {
    let mut w = World::new(&a(), &b());
    w.wire = support::without_vendor_id(support::RECEIVES_EARLY);
    assert!(!sends_at_once(&mut w));
}

#[test]
fn a_pair_that_goes_before_it_is_used_fails_its_tunnel() {
    let mut w = World::new(&a(), &b());
    w.wire = support::without_vendor_id(support::RECEIVES_EARLY);
    w.initiate(0);
    // The head start has not passed: A has the pair, but does not encrypt with it yet.
    w.run(UNTIL_MESSAGE_2);
    let pair = w.a().engine.pairs()[0].pair;
    assert!(w.a().pairs[&pair].active.is_none());
    let before = w.a().failed.len();
    w.command(0, Command::Expired { pair });
    assert_eq!(w.a().failed.len(), before + 1, "whoever waits for it is told");
}

#[test]
fn reload_keeps_what_did_not_change() {
    let (sa, sb) = (a(), b());
    let mut w = up(&sa, &sb);
    let spi = w.a().current().unwrap().inbound.spi;
    let cookie = w.a().engine.isakmp_sas()[0].initiator_cookie;
    let more = sa.text()
        + "[[tunnel]]\nname = \"second\"\ntsource = \"10.77.0.1\"\ntdestination = \"10.77.0.2\"\nsource = \
           \"10.79.1.0/24\"\ndestination = \"10.79.2.0/24\"\naction = \"aes128-sha1\"\n";
    w.command(0, Command::Reload { config: support::config(&more) });
    w.seconds(5);
    assert_eq!(w.a().current().unwrap().inbound.spi, spi);
    assert_eq!(w.a().engine.isakmp_sas()[0].initiator_cookie, cookie);
    assert_eq!(w.a().engine.tunnels().len(), 2);
    w.assert_one_pair();
}

#[test]
fn reload_deletes_what_changed() {
    let (sa, sb) = (a(), b());
    let mut w = up(&sa, &sb);
    // Another transform: the pair goes, the ISAKMP SA stays.
    let changed = Side { esp: "aes256-sha256".into(), ..sa.clone() }.config();
    w.command(0, Command::Reload { config: changed });
    w.seconds(1);
    assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
    assert_eq!(w.a().engine.isakmp_sas().len(), 1);
    let changed = Side { esp: "aes256-sha256".into(), ..sb.clone() }.config();
    w.command(1, Command::Reload { config: changed });
    w.initiate(0);
    w.seconds(1);
    w.assert_one_pair();
    // Another key: everything goes.
    let changed = Side { esp: "aes256-sha256".into(), psk: "a-new-key-for-both-of-them".into(), ..sa }.config();
    w.hosts[0].secret = changed.auths[0].preshared.clone();
    w.command(0, Command::Reload { config: changed });
    w.seconds(1);
    w.assert_nothing_left();
    let changed = Side { esp: "aes256-sha256".into(), psk: "a-new-key-for-both-of-them".into(), ..sb }.config();
    w.hosts[1].secret = changed.auths[0].preshared.clone();
    w.command(1, Command::Reload { config: changed });
    w.initiate(1);
    w.seconds(1);
    w.assert_one_pair();
}

#[test]
fn reload_with_another_ike_policy_takes_a_new_isakmp_sa_next_time() {
    let ike = "aes256-sha256-ecp256,aes128-sha1-modp2048";
    let mut w = up(&a(), &Side { ike: ike.into(), ..b() });
    w.command(0, Command::Reload { config: Side { ike: "aes256-sha256-ecp256".into(), ..a() }.config() });
    w.seconds(1);
    w.assert_one_pair();
    w.command(0, Command::Rekey { pair: w.a().current().unwrap().inbound.pair });
    w.seconds(60);
    w.assert_one_pair();
    for h in &w.hosts {
        let sas = h.engine.isakmp_sas();
        assert_eq!(sas.len(), 1);
        assert_eq!(sas[0].suite.unwrap().to_string(), "aes256-sha256-ecp256");
    }
}

#[test]
fn several_tunnels_at_once() {
    let n = 30;
    let side = |me: &str, peer: &str, mine: u8, theirs: u8| {
        let mut text = format!(
            "[[ike]]\nname = \"p\"\nremote = \"{peer}\"\nproposals = [\"aes128-sha1-x25519\"]\n[[auth]]\nname = \
             \"p\"\nremote = \"{peer}\"\npreshared = \"{}\"\n",
            support::PSK
        );
        for i in 0..n {
            text += &format!(
                "[[tunnel]]\nname = \"t{i}\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\nsource = \
                 \"10.{mine}.{i}.0/24\"\ndestination = \"10.{theirs}.{i}.0/24\"\naction = \"aes128-sha1\"\nstart = \
                 \"boot\"\n"
            );
        }
        support::config(&text)
    };
    let (ca, cb) = (side("10.77.0.1", "10.77.0.2", 1, 2), side("10.77.0.2", "10.77.0.1", 2, 1));
    let mut w = World::of(&[(Arc::clone(&ca), "10.77.0.1"), (cb, "10.77.0.2")], 3);
    w.seconds(120);
    assert_eq!((w.a().pairs.len(), w.b().pairs.len()), (n, n));
    for h in &w.hosts {
        assert!(h.errors().is_empty());
        assert_eq!(h.engine.isakmp_sas().len(), 1);
    }
    w.command(0, Command::Shutdown);
    w.seconds(2);
    assert!(w.a().pairs.is_empty());
}

/// A host that goes silent at once, and the times at which the other asks whether it is there.
fn silenced(ike_extra: &str, tunnel_extra: &str, activity: (bool, bool)) -> World {
    let side = Side { ike_extra: ike_extra.into(), tunnel_extra: tunnel_extra.into(), ..a() };
    let mut w = World::new(&side, &b());
    w.initiate(0);
    w.seconds(5);
    w.assert_one_pair();
    w.wire = Box::new(|_| vec![]);
    w.sent.clear();
    let now = w.now;
    w.hosts[0].activity = (activity.0.then_some(now), activity.1.then(|| now + std::time::Duration::from_secs(1)));
    w
}

fn asked(w: &World) -> usize {
    w.sent.iter().filter(|(_, p)| p.from.ip() == w.a().address && p.exchange().0 == 5).count()
}

#[test]
fn a_dead_peer_is_found_out_when_packets_go_and_none_come() {
    let mut w = silenced("", "", (true, true));
    w.seconds(29);
    assert_eq!(asked(&w), 0);
    w.seconds(25);
    assert_eq!((asked(&w), w.a().pairs.len()), (5, 1), "asked, and waited for");
    w.seconds(12);
    assert!(w.a().pairs.is_empty() && w.a().engine.isakmp_sas().is_empty());
    let told: Vec<_> = w.a().audit.iter().filter(|e| e.text.starts_with("the peer 10.77.0.2 is dead")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    // The next packet begins anew.
    w.wire = support::lossless();
    w.initiate(0);
    w.seconds(1);
    w.assert_mirror();
}

#[test]
fn an_idle_peer_is_left_alone_unless_asked_for() {
    let mut w = silenced("", "", (true, false));
    w.hosts[0].activity.1 = None;
    w.seconds(600);
    assert_eq!((asked(&w), w.a().pairs.len()), (0, 1), "nothing was sent, so nothing is missed");
    assert!(w.a().activity_asked > 10);
    let mut w = silenced("dpd_mode = \"periodic\"\ndpd = 10", "", (true, false));
    w.seconds(60);
    assert!(w.a().pairs.is_empty());
    let mut w = silenced("dpd = 0", "", (true, true));
    w.seconds(600);
    assert_eq!((asked(&w), w.a().pairs.len()), (0, 1));
}

#[test]
fn a_peer_that_is_there_is_kept() {
    let periodic = Side { ike_extra: "dpd_mode = \"periodic\"\ndpd = 10".into(), ..a() };
    let mut w = World::new(&periodic, &b());
    w.initiate(0);
    // A third of all messages is lost.
    let mut n = 0;
    w.wire = Box::new(move |p| {
        n += 1;
        if n % 3 == 0 { vec![] } else { vec![(support::LATENCY, p.clone())] }
    });
    w.seconds(30);
    let spi = w.a().current().unwrap().inbound.spi;
    w.seconds(1200);
    assert_eq!(w.a().current().unwrap().inbound.spi, spi);
    // Packets that come are a sign of life: nobody is asked.
    w.wire = support::lossless();
    w.seconds(60);
    w.sent.clear();
    for _ in 0..60 {
        let now = w.now;
        w.hosts[0].activity = (Some(now), Some(now));
        w.seconds(5);
    }
    assert_eq!(asked(&w), 0);
}

#[test]
fn what_becomes_of_the_tunnels_of_a_dead_peer() {
    for (action, start, packets_begin, begins) in [
        ("hold", "traffic", true, false),
        ("hold", "boot", true, true),
        ("clear", "traffic", false, false),
        ("clear", "boot", false, false),
        ("restart", "traffic", true, true),
    ] {
        let what = format!("{action} {start}");
        let tunnel = format!("start = \"{start}\"");
        let mut w = silenced(&format!("dpd = 10\ndpd_action = \"{action}\""), &tunnel, (true, true));
        w.seconds(45);
        assert!(w.a().pairs.is_empty(), "{what}");
        let main_mode = w.sent.iter().any(|(_, p)| p.exchange().0 == 2);
        assert_eq!(main_mode, begins, "{what}: a negotiation of its own");
        w.seconds(100);
        w.wire = support::lossless();
        if !begins {
            let failed = w.a().failed.len();
            w.initiate(0);
            w.seconds(1);
            assert_eq!(!w.a().pairs.is_empty(), packets_begin, "{what}");
            assert_eq!(w.a().failed.len() > failed, !packets_begin, "{what}");
        }
        w.seconds(400);
        // The peer begins: all is well again, also for packets.
        let us = w.a().address;
        w.command(1, Command::DeletePeer { peer: us });
        w.seconds(5);
        w.initiate(1);
        w.seconds(5);
        w.assert_mirror();
        let peer = w.b().address;
        w.command(0, Command::DeletePeer { peer });
        w.seconds(5);
        w.initiate(0);
        w.seconds(1);
        w.assert_mirror();
    }
}

#[test]
fn a_failed_quick_mode_takes_its_isakmp_sa_along_where_the_policy_says_so() {
    for (failure, left) in [("keep", 1), ("delete", 0)] {
        for side in 0..2 {
            let extra = |host| if host == side { format!("quick_mode_failure = \"{failure}\"") } else { String::new() };
            let (a, b) =
                (Side { ike_extra: extra(0), ..a() }, Side { ike_extra: extra(1), esp: "aes256-sha256".into(), ..b() });
            let mut w = World::new(&a, &b);
            w.initiate(0);
            w.seconds(8);
            assert!(w.hosts.iter().all(|h| h.pairs.is_empty()));
            for h in &w.hosts {
                assert_eq!(h.engine.isakmp_sas().len(), left, "{failure} at {side}");
            }
            assert!(w.a().errors()[0].contains("NO-PROPOSAL-CHOSEN"), "{:?}", w.a().errors());
        }
    }
}
