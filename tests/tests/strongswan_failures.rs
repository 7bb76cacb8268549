//! What cannot be agreed ends with one clear audit line, within the time of five
//! retransmissions (31 s), and leaves nothing behind: against strongSwan, in
//! both roles.

use std::process::Command;
use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::{Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::process::{self, Background};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

/// The five retransmissions take 31 s; this much later at most the line is there.
const LIMIT: Duration = Duration::from_secs(31 + 5);

/// A packet that makes Caponier negotiate, and is lost.
fn packet_in_vain(host: &Host, peer: &Host) -> Background {
    let log = host.directory.join("packet.log");
    let mut ping: Command = host.command("ping");
    ping.args(["-n", "-c", "1", "-W", "1", "-I", &host.inner().to_string(), &peer.inner().to_string()]);
    Background::spawn(&mut ping, &log, &log)
}

/// Caponier as initiator: the error line holds each of `words`.
fn initiator(test: &str, tunnel: fn(&mut Tunnel), connection: fn(&mut Connection), words: &[&str]) {
    let Some(lab) = Lab::open(&format!("initiator-{test}"), 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut theirs = Connection::new(b, a, PLAIN);
    connection(&mut theirs);
    let _swan = StrongSwan::start(b, &theirs, &Esp::UserSpace);
    let mut ours = Tunnel::new(a, b, PLAIN);
    tunnel(&mut ours);
    let caponier = Caponier::start(a, &Configuration::new(ours));
    fails(&caponier, a, b, words);
}

/// One packet, then the failure and what must be true after it.
fn fails(caponier: &Caponier, a: &Host, b: &Host, words: &[&str]) {
    let start = Instant::now();
    let _ping = packet_in_vain(a, b);
    let event = caponier.wait_event(60, "ERROR", words);
    let took = start.elapsed();
    assert!(took <= LIMIT, "after {took:?}: {event}");
    assert!(event.contains(&b.outer().to_string()), "the peer is not named: {event}");
    nothing_left(caponier);
    let errors = caponier.events("ERROR");
    assert_eq!(errors.len(), 1, "exactly one line for one failure: {errors:?}");
}

/// Once its last message is out, a failed negotiation leaves nothing but
/// perhaps an ISAKMP SA, if it was phase 2 that failed.
fn nothing_left(caponier: &Caponier) {
    tests::wait::until_true("the negotiation to be forgotten", 10, || {
        let negotiating = caponier.report("mad").iter().any(|sa| sa["state"] == "negotiating");
        !negotiating && caponier.report("sad").is_empty()
    });
    caponier.assert_no_pairs();
    assert!(caponier.report("tunnel").iter().all(|t| t["state"] == "down"), "{:?}", caponier.report("tunnel"));
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
}

/// Caponier as responder: the error line holds each of `words`.
fn responder(test: &str, tunnel: fn(&mut Tunnel), connection: fn(&mut Connection), words: &[&str]) {
    let Some(lab) = Lab::open(&format!("responder-{test}"), 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut ours = Tunnel::new(a, b, PLAIN);
    tunnel(&mut ours);
    let caponier = Caponier::start(a, &Configuration::new(ours));
    let mut theirs = Connection::new(b, a, PLAIN);
    connection(&mut theirs);
    let swan = StrongSwan::start(b, &theirs, &Esp::UserSpace);
    let start = Instant::now();
    swan.initiate_in_vain(8);
    let event = caponier.wait_event(60, "ERROR", words);
    assert!(start.elapsed() <= LIMIT, "{:?}: {event}", start.elapsed());
    assert!(event.contains(&b.outer().to_string()), "the peer is not named: {event}");
    drop(swan);
    // strongSwan gives up; a half-open negotiation of ours lives as long as a peer may retransmit.
    tests::wait::until_true("the negotiation to be forgotten", 45, || {
        caponier.report("mad").iter().all(|sa| sa["state"] == "established")
    });
    nothing_left(&caponier);
    // strongSwan may have tried more than once, but each line says the same.
    let errors = caponier.events("ERROR");
    assert!(errors.iter().all(|e| words.iter().all(|w| e.contains(w))), "{errors:?}");
}

macro_rules! both_roles {
    ($($(#[$doc:meta])* $name:ident: $tunnel:expr, $connection:expr, $as_initiator:expr, $as_responder:expr;)*) => {
        $($(#[$doc])* mod $name {
            use super::*;

            #[test]
            fn as_initiator() {
                initiator(stringify!($name), $tunnel, $connection, &$as_initiator);
            }

            #[test]
            fn as_responder() {
                responder(stringify!($name), $tunnel, $connection, &$as_responder);
            }
        })*
    };
}

both_roles! {
    wrong_preshared_key: |_| (), |c| c.preshared = "something-else-entirely".into(),
        ["pre-shared key"], ["pre-shared key"];
    hash: |_| (), |c| c.ike = "aes128-sha256-modp2048".into(),
        ["aes128-sha1-modp2048"], ["aes128-sha1-modp2048", "aes128-sha256-modp2048", "hash"];
    encryption: |_| (), |c| c.ike = "aes256-sha1-modp2048".into(),
        ["aes128-sha1-modp2048"], ["aes128-sha1-modp2048", "aes256-sha1-modp2048", "encryption"];
    group: |_| (), |c| c.ike = "aes128-sha1-ecp256".into(),
        ["aes128-sha1-modp2048"], ["aes128-sha1-modp2048", "aes128-sha1-ecp256", "group"];
    phase_2_transform: |_| (), |c| c.esp = "aes256-sha256".into(),
        ["aes128-sha1"], ["aes128-sha1", "aes256-sha256"];
    perfect_forward_secrecy: |t| t.esp = vec!["aes128-sha1-modp2048".into()], |c| c.esp = "aes128-sha1-ecp256".into(),
        ["modp2048"], ["modp2048", "ecp256"];
    narrower_selectors: |_| (), |c| c.local_ts = "10.78.2.0/25".into(),
        ["10.78.2.0/24"], ["10.78.2.0/24", "10.78.2.0/25"];
    other_selectors: |_| (), |c| c.remote_ts = "10.79.0.0/16".into(),
        ["10.78.1.0/24"], ["10.78.1.0/24", "10.79.0.0/16"];
}

/// A self-signed certificate for a side that wants to sign.
fn certificate(host: &Host) {
    let run = host.directory.join("run");
    for directory in ["x509", "private"] {
        std::fs::create_dir_all(run.join(directory)).expect("strongSwan's directories");
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab"]);
    openssl.arg("-addext").arg(format!("subjectAltName=IP:{}", host.outer()));
    openssl.arg("-keyout").arg(run.join("private/lab.key")).arg("-out").arg(run.join("x509/lab.crt"));
    process::run(&mut openssl, 60).ok("openssl req");
}

fn signatures(c: &mut Connection) {
    c.local_auth = "auth = pubkey\n    certs = lab.crt".into();
    c.remote_auth = "auth = pubkey".into();
}

#[test]
fn authentication_method_as_initiator() {
    let Some(lab) = Lab::open("initiator-method", 2, &[Need::StrongSwan]) else { return };
    certificate(lab.b());
    let mut theirs = Connection::new(lab.b(), lab.a(), PLAIN);
    signatures(&mut theirs);
    let _swan = StrongSwan::start(lab.b(), &theirs, &Esp::UserSpace);
    let caponier = Caponier::start(lab.a(), &Configuration::new(Tunnel::new(lab.a(), lab.b(), PLAIN)));
    fails(&caponier, lab.a(), lab.b(), &["AUTHENTICATION-FAILED"]);
}

#[test]
fn authentication_method_as_responder() {
    let Some(lab) = Lab::open("responder-method", 2, &[Need::StrongSwan]) else { return };
    certificate(lab.b());
    let caponier = Caponier::start(lab.a(), &Configuration::new(Tunnel::new(lab.a(), lab.b(), PLAIN)));
    let mut theirs = Connection::new(lab.b(), lab.a(), PLAIN);
    signatures(&mut theirs);
    let swan = StrongSwan::start(lab.b(), &theirs, &Esp::UserSpace);
    swan.initiate_in_vain(8);
    caponier.wait_event(10, "ERROR", &["authentication method", "10.77.0.2"]);
    nothing_left(&caponier);
}

/// An absurd lifetime of phase 1 is refused by name.
#[test]
fn lifetime_as_responder() {
    responder(
        "lifetime",
        |_| (),
        |c| c.more = "rekey_time = 20s\nover_time = 5s\nrand_time = 0s\n".into(),
        &["lifetime"],
    );
}

/// Without rekeying, strongSwan offers a lifetime of 0 s, which says nothing.
#[test]
fn no_lifetime_as_responder() {
    responder("no-lifetime", |_| (), |c| c.more = "rekey_time = 0\n".into(), &["lifetime", "0 s"]);
}

/// Different but sane lifetimes are no mismatch: the shorter one is used (RFC 2407 4.5.4).
#[test]
fn the_shorter_lifetime_is_used() {
    let Some(lab) = Lab::open("shorter-lifetime", 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut ours = Tunnel::new(a, b, PLAIN);
    ours.esp = vec!["aes128-sha1/7200".into()];
    let caponier = Caponier::start(a, &Configuration::new(ours));
    let mut theirs = Connection::new(b, a, PLAIN);
    theirs.more_child = "rekey_time = 900s\nlife_time = 1000s\nrand_time = 0s\n".into();
    let swan = StrongSwan::start(b, &theirs, &Esp::UserSpace);
    swan.initiate();
    traffic::ping_all(a, b, 1);
    for sa in caponier.report("sad") {
        let seconds = sa["lifetime"]["seconds"].as_u64().unwrap_or(u64::MAX);
        assert!(seconds <= 1000, "{sa}");
    }
}

/// Nothing listens at the peer: its kernel says so with ICMP, which proves nothing.
#[test]
fn nobody_listens() {
    let Some(lab) = Lab::open("nobody", 2, &[]) else { return };
    let caponier = Caponier::start(lab.a(), &Configuration::new(Tunnel::new(lab.a(), lab.b(), PLAIN)));
    fails(&caponier, lab.a(), lab.b(), &["retransmission count exceeded"]);
}

/// The peer's packets are dropped.
#[test]
fn silent_peer() {
    let Some(lab) = Lab::open("silent", 2, &[Need::Nft]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let rules = "table inet silent { chain in { type filter hook input priority 0; policy drop; \
                 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }";
    b.run(10, "nft", &[rules]).ok("nft");
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let start = Instant::now();
    fails(&caponier, a, b, &["retransmission count exceeded"]);
    assert!(start.elapsed() >= Duration::from_secs(25), "five retransmissions take 31 s: {:?}", start.elapsed());
    // The next packet is another attempt, once the peer is back.
    b.run(10, "nft", &["delete", "table", "inet", "silent"]).ok("nft");
    if tests::need::available("silent peer comes back", &[Need::StrongSwan]) {
        let _swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
        traffic::ping_all(a, b, 1);
    }
}

/// A peer that no policy knows is refused, and said so.
#[test]
fn unknown_peer() {
    let Some(lab) = Lab::open("unknown", 3, &[Need::StrongSwan]) else { return };
    let [a, b, c] = lab.hosts() else { unreachable!("three hosts") };
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let swan = StrongSwan::start(c, &Connection::new(c, a, PLAIN), &Esp::UserSpace);
    swan.initiate_in_vain(8);
    caponier.wait_event(10, "ERROR", &[&c.outer().to_string()]);
    caponier.assert_nothing_left();
}

/// A row that nobody has configured is not used, however the peer insists.
#[test]
fn legacy_only_where_named() {
    let case = Case { name: "legacy", ike: "3des-md5-modp1024", esp: "3des-md5" };
    let Some(lab) = Lab::open("legacy", 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let swan = StrongSwan::start(b, &Connection::new(b, a, case), &Esp::UserSpace);
    swan.initiate_in_vain(8);
    caponier.wait_event(10, "ERROR", &["3des-md5-modp1024"]);
    nothing_left(&caponier);
}

/// A peer that is frozen is found out by R-U-THERE while packets go to it, and its tunnel is
/// negotiated again as soon as it is back.
#[test]
fn a_frozen_peer_is_found_out_and_its_tunnel_restarted() {
    let Some(lab) = Lab::open("frozen", 2, &[Need::StrongSwan]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let mut tunnel = Tunnel::new(a, b, PLAIN);
    tunnel.more_ike = "dpd = 2\ndpd_action = \"restart\"".into();
    let caponier = Caponier::start(a, &Configuration::new(tunnel));
    traffic::ping_all(a, b, 1);
    let before = caponier.pairs("to_b");
    // It answers while it is there, and is kept.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(caponier.pairs("to_b"), before);
    swan.freeze();
    assert_eq!(traffic::ping(a, a.inner(), b.inner(), 1, 1), 0, "it is frozen");
    caponier.wait_event(60, "WARNING", &["is dead", "R-U-THERE", "restart"]);
    swan.thaw();
    caponier.wait_tunnel(40, "to_b", "up");
    traffic::ping_all(a, b, 2);
    assert_ne!(caponier.pairs("to_b"), before);
}
