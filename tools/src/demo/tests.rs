//! The demo's own instruments: a wiretap that would not see clear-text proves nothing.

use super::host::{Host, two_hosts};
use super::wire::{Gauge, Kind, Seen, Wiretap};
use super::{Namespace, configs, traffic};
use policy::config::Config;
use std::net::IpAddr;
use std::time::Duration;

/// Two hosts whose inside addresses are those on the cable: nothing protects them.
fn bare_hosts() -> Option<(Host, Host)> {
    if let Err(e) = Namespace::unnamed() {
        assert!(std::env::var_os("CAPONIER_REQUIRE_ROOT").is_none(), "{e}");
        eprintln!("SKIPPED, not tested: {e}");
        return None;
    }
    let (mut a, mut b) = two_hosts(|_| Namespace::unnamed()).unwrap();
    (a.inside, b.inside) = (a.outside, b.outside);
    Some((a, b))
}

fn seen_during(a: &Host, work: impl FnOnce(Gauge)) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let addresses: [IpAddr; 2] = ["10.77.0.0".parse().unwrap(), "10.77.0.255".parse().unwrap()];
    let tap = Wiretap::start(a, vec![addresses.into()], &directory.path().join("wire.pcap")).unwrap();
    work(tap.gauge());
    let seen = tap.finish().unwrap();
    let file = std::fs::metadata(directory.path().join("wire.pcap")).unwrap();
    assert!(file.len() > 24, "frames are in the file too");
    seen
}

#[test]
fn the_wiretap_sees_what_must_not_be_there() {
    let Some((a, b)) = bare_hosts() else { return };
    let seen = seen_during(&a, |_| {
        let echoes = traffic::ping(&a, &b, 3, Duration::from_secs(2)).unwrap();
        assert_eq!(echoes.answered.len(), 3);
    });
    assert_eq!((seen.inside, seen.clear_text, seen.missed), (6, 6, 0), "{seen:?}");
    assert!(!seen.strangers().is_empty());

    let octets = 3_000_001;
    let seen = seen_during(&a, |gauge| {
        let done = traffic::transfer(&a, &b, octets, gauge).unwrap();
        assert!(done.equal && done.octets == octets);
    });
    assert!(seen.clear_text > 10 && seen.missed == 0, "{seen:?}");

    // Nobody listens: the kernel answers each with an error that quotes it.
    let seen = seen_during(&a, |_| {
        for port in [500, 4500, 501] {
            let to = (b.outside, port);
            let socket = a.run(move || std::net::UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
            socket.send_to(b"nothing of ours", to).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(seen.kinds.get(&Kind::Ike).map(|k| k.0), Some(1));
    assert_eq!(seen.kinds.get(&Kind::NatTraversal).map(|k| k.0), Some(1));
    assert!(seen.strangers().iter().any(|s| s.contains("to 501")), "{seen:?}");
    assert_eq!(seen.kinds.get(&Kind::Errors).map(|k| k.0), Some(2));
    assert!(seen.strangers().iter().any(|s| s.contains("Icmp")), "an error about something else: {seen:?}");
    assert_eq!(seen.clear_text, 0);
}

#[test]
fn a_stream_goes_on_until_it_is_told_to_end() {
    let Some((a, b)) = bare_hosts() else { return };
    let seen = seen_during(&a, |gauge| {
        let stream = traffic::stream(&a, &b, gauge).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(!stream.is_over());
        let done = stream.finish().unwrap();
        assert!(done.equal && done.octets > 0);
    });
    assert_eq!(seen.missed, 0);
}

#[test]
fn echoes_to_nowhere_are_not_answered() {
    let Some((a, mut b)) = bare_hosts() else { return };
    b.inside = "10.99.0.1".parse().unwrap();
    let echoes = traffic::ping(&a, &b, 2, Duration::from_millis(50)).unwrap();
    assert!(echoes.answered.is_empty() && echoes.sent == 2);
    assert!(echoes.refused.is_some(), "there is no route");
}

#[test]
fn the_configuration_files_are_right() {
    let Some((a, b)) = bare_hosts() else { return };
    let key = configs::new_key().unwrap();
    assert_eq!(key.len(), 64);
    assert_ne!(key, configs::new_key().unwrap());
    for (ours, theirs) in [(&a, &b), (&b, &a)] {
        let checked = Config::parse(&configs::text(ours, theirs, &key), "demo.toml").unwrap();
        assert_eq!(checked.warnings.len(), 0, "{:?}", checked.warnings);
        let tunnel = checked.config.tunnel(configs::TUNNEL).unwrap();
        assert_eq!(tunnel.tdestination, IpAddr::from(theirs.outside));
        let secret = checked.config.auth_record(tunnel.tdestination).and_then(|a| a.preshared.as_ref()).unwrap();
        assert_eq!(secret.len(), 32);
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let text = super::privilege::refused(&std::io::ErrorKind::PermissionDenied.into());
    assert!(text.contains("sudo target/release/ipsec_demo"), "{text}");
    for setting in text.lines().filter(|l| l.contains("sysctl")) {
        assert!(setting.contains("(now "), "only what this system has: {setting}");
    }
}
