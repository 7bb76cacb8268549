//! Rekeys, reauthentications and a dead peer under traffic, with strongSwan: nothing may be lost, and
//! nothing may be left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Steady};
use tests::wait;

const NEEDS: [Need; 2] = [Need::StrongSwan, Need::Capture];

/// How long both sides rekey.
const SOAK: Duration = Duration::from_secs(120);

/// Both sides rekey pairs after 6 to 10 seconds and reauthenticate after some twenty, for two minutes.
#[test]
fn rekeys_every_few_seconds_for_two_minutes() {
    let Some(lab) = Lab::open("soak", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut connection = Connection::new(b, a, PLAIN);
    connection.more = "rekey_time = 21s\n  over_time = 20s\n  rand_time = 2s\n".into();
    connection.more_child = "rekey_time = 7s\n    life_time = 25s\n    rand_time = 1s\n".into();
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    let mut tunnel = Tunnel::new(a, b, PLAIN);
    tunnel.esp = vec![format!("{}/12/0", PLAIN.esp)];
    tunnel.more_ike = "life = 30".into();
    let mut configuration = Configuration::new(tunnel);
    configuration.startup = "allow_short_lifetimes = true".into();
    let caponier = Caponier::start(a, &configuration);
    let wire = Capture::start_headers(a, "outer");
    traffic::ping_all(a, b, 1);
    let connections = [Steady::start(a, a.inner(), b, b.inner(), 3), Steady::start(b, b.inner(), a, a.inner(), 3)];

    let begun = Instant::now();
    let (mut spis, mut cookies) = (BTreeSet::new(), BTreeSet::new());
    while begun.elapsed() < SOAK {
        let (ours, theirs) = (caponier.pairs("to_b"), swan.pairs());
        spis.extend(ours.iter().map(|(inbound, _)| *inbound));
        let mad = caponier.report("mad");
        cookies.extend(mad.iter().filter_map(|sa| sa["initiator_cookie"].as_str().map(str::to_owned)));
        // What is replaced goes: strongSwan keeps it to the end of its lifetime.
        assert!(ours.len() <= 6 && mad.len() <= 4, "{ours:x?} {mad:?}");
        assert!(theirs.len() <= 8 && swan.isakmp_sas() <= 4, "{}", swan.sas());
        std::thread::sleep(Duration::from_millis(1500));
    }
    for steady in connections {
        let least = steady.finish();
        assert!(least >= 300, "a connection made {least} round trips in {SOAK:?}");
    }
    assert!(spis.len() >= 12 && cookies.len() >= 4, "{} pairs, {} ISAKMP SAs", spis.len(), cookies.len());
    capture::assert_protected(&wire.stop(), a, b, b"");
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());

    swan.terminate_ike();
    wait::until_true("nothing to be left on either side", 30, || {
        let ours = caponier.report("sad").is_empty() && caponier.report("mad").is_empty();
        ours && swan.pairs().is_empty() && swan.isakmp_sas() == 0
    });
}

/// Pings 50 times a second; returns how many of the first `count` were not answered.
fn lost(a: &Host, b: &Host, count: u32) -> u32 {
    let (from, to, number) = (a.inner().to_string(), b.inner().to_string(), count.to_string());
    // With a deadline it goes on until `count` answers have come, so one that is slow is not one that is lost.
    let arguments = ["-n", "-I", &from, "-c", &number, "-i", "0.02", "-w", "50", &to];
    let finished = a.run(60, "ping", &arguments);
    let sequence = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse::<u32>().ok();
    let answered: BTreeSet<u32> = finished.stdout.lines().filter_map(sequence).filter(|n| *n <= count).collect();
    count - u32::try_from(answered.len()).expect("no more than were counted")
}

/// A new ISAKMP SA in place of the old, from either side, costs not one packet; nor does the rekey of the pair.
#[test]
fn reauthentication_loses_no_packet() {
    let Some(lab) = Lab::open("reauth", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    traffic::ping_all(a, b, 1);
    let cookies = || {
        let of = |sa: &serde_json::Value| sa["initiator_cookie"].as_str().map(str::to_owned);
        caponier.report("mad").iter().filter_map(of).collect::<Vec<_>>()
    };
    let before = cookies();
    let missing = std::thread::scope(|scope| {
        let pings = scope.spawn(|| lost(a, b, 600));
        std::thread::sleep(Duration::from_millis(500));
        swan.rekey_ike();
        wait::until_true("strongSwan's new ISAKMP SA", 10, || cookies().iter().any(|new| !before.contains(new)));
        std::thread::sleep(Duration::from_secs(2));
        let between = cookies();
        caponier.admin(&["-rekey_ike", &b.outer().to_string()]);
        wait::until_true("Caponier's new ISAKMP SA", 10, || cookies().iter().any(|new| !between.contains(new)));
        caponier.admin(&["-rekey_sa", "to_b"]);
        pings.join().expect("the pings end")
    });
    assert_eq!(missing, 0, "packets lost");
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
}

/// A peer that was killed is found out by R-U-THERE while packets go to it, and its tunnel is there again when it is.
#[test]
fn a_killed_peer_is_found_out_and_its_tunnel_restarted() {
    let Some(lab) = Lab::open("killed", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let connection = Connection::new(b, a, PLAIN);
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    let mut tunnel = Tunnel::new(a, b, PLAIN);
    tunnel.more_ike = "dpd = 2\ndpd_action = \"restart\"".into();
    let caponier = Caponier::start(a, &Configuration::new(tunnel));
    traffic::ping_all(a, b, 1);
    let before = caponier.pairs("to_b");
    swan.kill();
    assert_eq!(traffic::ping(a, a.inner(), b.inner(), 1, 1), 0, "it is dead");
    caponier.wait_event(60, "WARNING", &["is dead", "R-U-THERE", "restart"]);
    assert!(caponier.pairs("to_b").is_empty());
    // No packet asks for it: the tunnel is negotiated by itself.
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    caponier.wait_tunnel(40, "to_b", "up");
    traffic::ping_all(a, b, 2);
    let after = caponier.pairs("to_b");
    assert_ne!(after, before);
    assert_eq!(swan.pairs().into_iter().map(|(i, o)| (o, i)).collect::<Vec<_>>(), after);
}
