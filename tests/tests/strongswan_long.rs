//! Long-lived tunnels with strongSwan: bulk transfer while SAs are rekeyed from
//! either side, deletion by the peer, IPv6 outside and inside.

use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::{Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic::{self, Transfer};
use tests::wait;

const NEEDS: [Need; 2] = [Need::StrongSwan, Need::Capture];
const MEGABYTE: u64 = 1_000_000;

fn newest(swan: &StrongSwan) -> Option<(u32, u32)> {
    swan.pairs().last().copied()
}

/// Waits until both sides are down to one pair, which is not `old`, and the same.
fn settled(caponier: &Caponier, swan: &StrongSwan, old: (u32, u32)) -> (u32, u32) {
    let both = || {
        let (ours, theirs) = (caponier.pairs("to_b"), swan.pairs());
        match (&ours[..], &theirs[..]) {
            ([(i, o)], [(pi, po)]) if (i, o) == (po, pi) && (*i, *o) != old => Some((*i, *o)),
            _ => None,
        }
    };
    wait::until("both sides to agree on one new pair", std::time::Duration::from_secs(60), both)
}

/// 50 MB each way over one TCP connection, during which each side rekeys each SA.
#[test]
fn transfer_while_both_sides_rekey() {
    let Some(lab) = Lab::open("rekey", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let wire = Capture::start_headers(a, "outer");
    let transfer = Transfer::start(a, a.inner(), b, b.inner(), 50 * MEGABYTE);
    transfer.advance(MEGABYTE);
    let first = caponier.pairs("to_b")[0];

    swan.rekey_child();
    let second = settled(&caponier, &swan, first);
    transfer.advance(MEGABYTE);
    caponier.admin(&["-rekey_sa", "to_b"]);
    let third = settled(&caponier, &swan, second);
    transfer.advance(MEGABYTE);

    let cookie = |caponier: &Caponier| {
        let mad = caponier.report("mad");
        let of = |sa: &serde_json::Value| sa["initiator_cookie"].as_str().map(str::to_owned);
        mad.iter().filter(|sa| sa["state"] == "established").find_map(of)
    };
    let changed = |old: Option<String>| {
        wait::until("another ISAKMP SA", std::time::Duration::from_secs(60), || {
            cookie(&caponier).filter(|new| Some(new) != old.as_ref())
        })
    };
    let before = cookie(&caponier);
    swan.rekey_ike();
    let after = changed(before);
    transfer.advance(MEGABYTE);
    caponier.admin(&["-rekey_ike", &b.outer().to_string()]);
    changed(Some(after));
    transfer.advance(MEGABYTE);

    let (got_a, got_b) = transfer.finish();
    assert!(got_a >= 50 * MEGABYTE && got_b >= 50 * MEGABYTE, "{got_a} {got_b}");
    assert_eq!(wait_one_pair(&caponier), newest(&swan).map(|(i, o)| (o, i)).expect("a pair"), "after {third:?}");
    capture::assert_protected(&wire.stop(), a, b, b"");
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
}

fn wait_one_pair(caponier: &Caponier) -> (u32, u32) {
    wait::until("one pair", std::time::Duration::from_secs(60), || match caponier.pairs("to_b")[..] {
        [pair] => Some(pair),
        _ => None,
    })
}

/// The peer deletes the pair; the next packet brings another, and is not lost.
#[test]
fn deleted_by_the_peer_and_established_again() {
    let Some(lab) = Lab::open("deleted", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let wire = Capture::start_headers(a, "outer");
    traffic::ping_all(a, b, 1);
    let first = caponier.pairs("to_b")[0];

    swan.terminate_child();
    wait::until_true("the pair to go", 10, || caponier.pairs("to_b").is_empty());
    traffic::ping_all(a, b, 1);
    let second = caponier.pairs("to_b")[0];
    assert_ne!(first, second);

    swan.terminate_ike();
    wait::until_true("both SAs to go", 10, || caponier.report("sad").is_empty() && caponier.report("mad").is_empty());
    traffic::ping_all(a, b, 1);
    assert_ne!(second, caponier.pairs("to_b")[0]);
    capture::assert_protected(&wire.stop(), a, b, b"");
}

/// Stopped in good order, Caponier deletes its SAs at the peer.
#[test]
fn shutdown_is_told_to_the_peer() {
    let Some(lab) = Lab::open("shutdown", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, PLAIN), &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    traffic::ping_all(a, b, 1);
    caponier.stop();
    wait::until_true("strongSwan's SAs to go", 10, || swan.pairs().is_empty() && swan.isakmp_sas() == 0);
    let left = a.run(10, "ip", &["-o", "link"]).ok("ip link");
    assert!(!left.contains("caponier"), "the interface is gone: {left}");
    for family in ["-4", "-6"] {
        let rules = a.run(10, "ip", &[family, "rule"]).ok("ip rule");
        assert_eq!(rules.matches("fwmark").count(), 0, "the rules are gone: {rules}");
    }
}

/// One family outside, another (or the same) inside.
fn families(name: &str, outer: fn(&Host) -> std::net::IpAddr, inner6: bool) {
    let Some(lab) = Lab::open(name, 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let case = Case { name: "families", ike: "aes256-sha256-ecp256", esp: "aes128gcm16" };
    let mut connection = Connection::new(b, a, case);
    let mut tunnel = Tunnel::new(a, b, case);
    (connection.local, connection.remote) = (outer(b), outer(a));
    (connection.local_id, connection.remote_id) = (outer(b).to_string(), outer(a).to_string());
    (tunnel.local, tunnel.remote) = (outer(a), outer(b));
    let inner = if inner6 { Host::inner6 } else { Host::inner };
    if inner6 {
        (connection.local_ts, connection.remote_ts) = (b.network6(), a.network6());
        (tunnel.source, tunnel.destination) = (a.network6(), b.network6());
    }
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration::new(tunnel));
    let wire = Capture::start_headers(a, "outer");
    assert_eq!(traffic::ping(a, inner(a), inner(b), 1, 10), 1, "the first packet");
    assert_eq!(traffic::ping(b, inner(b), inner(a), 3, 10), 3, "the other way");
    let transfer = Transfer::start(b, inner(b), a, inner(a), 5 * MEGABYTE);
    transfer.finish();
    let mirrored: Vec<_> = swan.pairs().into_iter().map(|(i, o)| (o, i)).collect();
    assert_eq!(caponier.pairs("to_b"), mirrored);
    capture::assert_protected(&wire.stop(), a, b, b"");
}

#[test]
fn ipv4_in_ipv6() {
    families("4in6", Host::outer6, false);
}

#[test]
fn ipv6_in_ipv6() {
    families("6in6", Host::outer6, true);
}

#[test]
fn ipv6_in_ipv4() {
    families("6in4", Host::outer, true);
}
