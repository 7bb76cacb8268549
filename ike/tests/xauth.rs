//! Extended authentication between two engines: who asks, who answers, who is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use crypto::Secret;
use ike::{Command, Discarded, TunnelState};
use policy::audit::Level;
use support::{Packet, Side, World, a, b};

const TRANSACTION: u8 = 6;
const QUICK_MODE: u8 = 32;

/// A has the user `alice`, B asks for it and knows her and Bob.
fn world() -> World {
    let mut w = World::new(&client(), &server());
    w.hosts[0].password = Some(Secret::copy_of(b"wonderland"));
    w.hosts[1].users = Some(vec![("bob", "builder"), ("alice", "wonderland")]);
    w
}

fn client() -> Side {
    Side { auth_extra: "xauth = \"client\"\nuser = \"alice\"\npassword_file = \"/dev/null\"".into(), ..a() }
}

fn server() -> Side {
    Side { auth_extra: "xauth = \"server\"\nusers = \"/dev/null\"\ntries = 2".into(), ..b() }
}

fn of(w: &World, exchange: u8) -> Vec<&Packet> {
    w.sent.iter().map(|(_, p)| p).filter(|p| p.exchange().0 == exchange).collect()
}

fn says(w: &World, host: usize, level: Level, words: &[&str]) {
    let lines = w.hosts[host].lines(level);
    assert!(lines.iter().any(|l| words.iter().all(|word| l.contains(word))), "{words:?}\n{}", w.story());
}

fn nobody_says(w: &World, words: &str) {
    assert!(w.hosts.iter().all(|h| h.audit.iter().all(|e| !e.text.contains(words))), "{}", w.story());
}

#[test]
fn a_user_is_believed_and_then_comes_quick_mode() {
    for initiator in [0, 1] {
        let mut w = world();
        w.initiate(initiator);
        w.seconds(2);
        w.assert_one_pair();
        let order: Vec<_> = w.sent.iter().map(|(_, p)| p.exchange().0).filter(|x| *x != 2).collect();
        assert_eq!(order[..4], [TRANSACTION; 4], "nothing before XAUTH is done");
        assert_eq!(order[4..], [QUICK_MODE; 3]);
        // Each question under a message ID of its own, the answer under the same (mode-cfg-05 3).
        let ids: Vec<_> = of(&w, TRANSACTION).iter().map(|p| p.exchange().1).collect();
        assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[0] != ids[2] && ids[0] != 0);
        says(&w, 0, Level::Informative, &["10.77.0.2 believes our user `alice`"]);
        says(&w, 1, Level::Informative, &["user `alice` at the peer 10.77.0.1 is believed"]);
        nobody_says(&w, "wonderland");
        // Both announce it (draft 3), the responder as it was announced.
        let announces = |p: &&Packet| p.payload.windows(8).any(|octets| octets == support::hex("09002689dfd6b712"));
        assert_eq!(w.sent.iter().map(|(_, p)| p).filter(announces).count(), 2);
        assert!(w.a().errors().is_empty() && w.b().errors().is_empty());
        let sa = &w.b().engine.isakmp_sas()[0];
        assert_eq!((sa.user.as_deref(), sa.admitted), (Some("alice"), true));
        assert_eq!(w.a().engine.isakmp_sas()[0].user, None, "that is who the peer's user is");
        assert_eq!((w.a().asked.clone(), w.b().asked.clone()), (vec!["password"], vec!["user"]));
    }
}

#[test]
fn a_wrong_password_is_refused_on_both_sides() {
    let mut w = world();
    w.hosts[0].password = Some(Secret::copy_of(b"looking-glass"));
    w.initiate(0);
    w.seconds(5);
    w.assert_nothing_left();
    assert!(of(&w, QUICK_MODE).is_empty());
    says(
        &w,
        0,
        Level::Error,
        &["User authentication failed: XAUTH with 10.77.0.2/500 as initiator", "our user `alice`"],
    );
    says(&w, 1, Level::Warning, &["user `alice` at the peer 10.77.0.1 is refused, try 1 of 2"]);
    nobody_says(&w, "looking-glass");
    assert_eq!(w.a().engine.tunnels()[0].state, TunnelState::Down);
    assert!(w.a().failed.iter().any(|(tunnel, reason)| tunnel == "net" && reason.contains("refuses our user")));
    assert_eq!(w.a().errors().len(), 1, "{:?}", w.a().errors());
}

/// An unknown user is asked and answered like one with a wrong password: the check itself is the daemon's.
#[test]
fn an_unknown_user_looks_like_a_wrong_password() {
    let run = |users: Vec<(&'static str, &'static str)>| {
        let mut w = world();
        w.hosts[1].users = Some(users);
        w.initiate(0);
        w.seconds(5);
        w.assert_nothing_left();
        let lengths: Vec<_> = w.sent.iter().map(|(at, p)| (*at, p.from, p.payload.len())).collect();
        let warnings: Vec<_> = w.b().lines(Level::Warning).iter().map(ToString::to_string).collect();
        (lengths, warnings, w.b().asked.clone())
    };
    assert_eq!(run(vec![("bob", "builder")]), run(vec![("alice", "other")]));
}

#[test]
fn who_does_not_answer_is_given_up_by_name() {
    let mut w = world();
    w.hosts[0].answers = true;
    w.hosts[0].password = None;
    w.initiate(0);
    w.seconds(3);
    says(&w, 0, Level::Error, &["has no password for its user"]);
    says(&w, 1, Level::Error, &["the peer cannot say who its user is"]);
    w.assert_nothing_left();
    // Nobody hears the question.
    let mut w = world();
    w.wire = Box::new(|p| if p.exchange().0 == TRANSACTION { vec![] } else { support::lossless()(p) });
    w.initiate(0);
    w.seconds(70);
    says(&w, 1, Level::Error, &["does not say who its user is, asked 6 times"]);
    says(&w, 0, Level::Error, &["the peer deleted the ISAKMP SA before it said whether it believes our user `alice`"]);
    w.assert_nothing_left();
    assert!(of(&w, QUICK_MODE).is_empty());
}

#[test]
fn a_check_that_cannot_be_made_or_takes_too_long_is_ours() {
    let mut w = world();
    w.hosts[1].users = None;
    w.initiate(0);
    w.seconds(3);
    says(
        &w,
        1,
        Level::Error,
        &["our fault", "user `alice` cannot be checked: its file is gone", "`users` of auth record"],
    );
    w.assert_nothing_left();
    let mut w = world();
    // What nobody asked for is no answer.
    w.command(1, Command::UserChecked { token: 1, verdict: Ok(true) });
    w.initiate(0);
    w.run(support::LATENCY * 5);
    w.hosts[1].answers = false;
    w.seconds(70);
    says(&w, 1, Level::Error, &["the verdict on the peer's user did not come in time"]);
    w.assert_nothing_left();
}

/// One side asks for XAUTH and the other does not: the method's number differs, and it says so.
#[test]
fn one_side_without_xauth_is_a_mismatch_by_name() {
    for (first, second) in [(client(), b()), (a(), server())] {
        let mut w = World::new(&first, &second);
        w.initiate(0);
        w.seconds(3);
        assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty());
        says(&w, 1, Level::Error, &["authentication method", "pre-shared key and XAUTH of the initiator"]);
    }
    // Both ask, or both wait to be asked.
    let mut w = World::new(&client(), &Side { auth_extra: client().auth_extra, ..b() });
    w.initiate(0);
    w.seconds(3);
    says(&w, 1, Level::Error, &["XAUTH of the initiator", "XAUTH of the responder"]);
}

/// A peer that begins quick mode without being asked for: one that agreed to XAUTH and then does not care.
#[test]
fn quick_mode_before_xauth_is_refused_by_name() {
    let mut w = world();
    w.initiate(0);
    w.seconds(2);
    w.assert_one_pair();
    // A second negotiation, whose questions never arrive: A's user is not known under it.
    let mut w2 = world();
    w2.wire = Box::new(|p| if p.exchange().0 == TRANSACTION { vec![] } else { support::lossless()(p) });
    w2.initiate(0);
    w2.run(support::LATENCY * 10);
    assert_eq!(w2.b().engine.isakmp_sas().len(), 1);
    assert!(!w2.b().engine.isakmp_sas()[0].admitted && !w2.a().engine.isakmp_sas()[0].admitted);
    // Neither begins one of itself, whatever is asked of it.
    w2.initiate(0);
    w2.initiate(1);
    w2.run(support::LATENCY * 10);
    assert!(of(&w2, QUICK_MODE).is_empty());
    assert_eq!(w2.a().engine.isakmp_sas().len(), 1, "what waits, waits for the one that is under way");
}

#[test]
fn losses_duplicates_and_replays() {
    // Every transaction message is lost once, and comes twice after that.
    let mut w = world();
    let mut seen = std::collections::BTreeSet::new();
    w.wire = Box::new(move |p| {
        if p.exchange().0 == TRANSACTION && seen.insert(p.payload.clone()) {
            return vec![];
        }
        vec![(support::LATENCY, p.clone()), (support::LATENCY * 3, p.clone())]
    });
    w.initiate(0);
    w.seconds(20);
    w.assert_one_pair();
    assert_eq!(w.b().asked, ["user"], "asked once, whatever came how often");
    assert_eq!(w.a().asked, ["password"]);
    // All of it again, later: nothing happens but that answers of late are repeated.
    let recorded: Vec<_> = of(&w, TRANSACTION).into_iter().cloned().collect();
    let (pairs, sas) = (w.b().engine.pairs().len(), w.b().engine.isakmp_sas().len());
    for packet in &recorded {
        w.deliver(packet);
    }
    w.seconds(2);
    assert_eq!((w.b().engine.pairs().len(), w.b().engine.isakmp_sas().len()), (pairs, sas));
    assert_eq!((w.a().asked.len(), w.b().asked.len()), (1, 1));
    let discarded = w.b().engine.discarded();
    assert!(discarded.contains_key(&Discarded::Replayed), "{discarded:?}");
}

#[test]
fn what_is_not_authentic_changes_nothing() {
    let mut w = world();
    w.wire = Box::new(|p| {
        let mut copies = support::lossless()(p);
        if p.exchange().0 == TRANSACTION {
            // The same with one bit changed arrives first, and one with its end cut off.
            for cut in [0, 16] {
                let mut forged = p.clone();
                let last = forged.payload.len() - 1 - cut;
                forged.payload[last] ^= 1;
                copies.insert(0, (support::LATENCY / 2, forged));
            }
        }
        copies
    });
    w.initiate(0);
    w.seconds(3);
    w.assert_one_pair();
    assert!(w.a().engine.discarded().contains_key(&Discarded::NotAuthentic));
    assert!(w.b().engine.discarded().contains_key(&Discarded::NotAuthentic));
    assert!(w.a().errors().is_empty() && w.b().errors().is_empty());
}

#[test]
fn a_new_isakmp_sa_asks_again() {
    let mut w = world();
    w.initiate(0);
    w.seconds(2);
    w.command(0, Command::RekeyPeer { peer: "10.77.0.2".parse().unwrap() });
    w.seconds(2);
    assert_eq!(w.b().asked, ["user", "user"]);
    // The password was changed meanwhile: the new SA fails, and what there is stays.
    w.hosts[1].users = Some(vec![("alice", "changed")]);
    w.seconds(60);
    let before = w.a().engine.pairs().len();
    w.command(0, Command::RekeyPeer { peer: "10.77.0.2".parse().unwrap() });
    w.seconds(60);
    assert_eq!(w.a().engine.pairs().len(), before);
    assert_eq!(w.a().engine.isakmp_sas().iter().filter(|sa| sa.admitted && !sa.retiring).count(), 1, "{}", w.story());
}

/// The classic of remote access: aggressive mode with a group's key, and then a user.
#[test]
fn after_aggressive_mode_too() {
    let more = "exchange = \"AM\"\naggressive_psk = \"accept\"\n";
    let with = |side: Side| Side { auth_extra: format!("{}\n{more}", side.auth_extra), ..side };
    let mut w = World::new(&with(client()), &with(server()));
    w.hosts[0].password = Some(Secret::copy_of(b"wonderland"));
    w.hosts[1].users = Some(vec![("alice", "wonderland")]);
    w.initiate(0);
    w.seconds(3);
    w.assert_one_pair();
    assert_eq!(w.b().asked, ["user"], "{}", w.story());
    let exchanges: std::collections::BTreeSet<_> = w.sent.iter().map(|(_, p)| p.exchange().0).collect();
    assert_eq!(exchanges, [4, TRANSACTION, QUICK_MODE].into());
}
