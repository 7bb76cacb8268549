//! What Caponier puts on the wire, judged by tshark and scapy from the keys it
//! exports: every row, in raw ESP and in UDP.

use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture, Kind};
use tests::cases::{CASES, Case};
use tests::judge;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::traffic;

const NEEDS: [Need; 3] = [Need::Capture, Need::Tshark, Need::Scapy];

fn start(me: &Host, peer: &Host, case: Case, nat_traversal: &str) -> Caponier {
    let mut tunnel = Tunnel::new(me, peer, case);
    tunnel.more_ike = format!("nat_traversal = {nat_traversal:?}");
    let keys = me.directory.join("keys");
    std::fs::create_dir_all(&keys).expect("a directory for keys");
    // A capture has as one what the kernel cuts into datagrams behind it, and the judges want them cut.
    let startup = format!("offload = \"off\"\nexport_keys = {:?}", keys.display().to_string());
    Caponier::start(me, &Configuration { startup, ..Configuration::new(tunnel) })
}

fn judged(case: Case, nat_traversal: &str) {
    let Some(lab) = Lab::open(&format!("judged-{}-{nat_traversal}", case.name), 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let wire = Capture::start(a, "outer");
    let (ours, peer) = (start(a, b, case, nat_traversal), start(b, a, case, nat_traversal));
    traffic::ping_all(a, b, 4);
    let spis: Vec<_> = ours.pairs("to_b");
    let [(inbound, outbound)] = spis[..] else { panic!("one pair: {spis:?}") };
    assert_eq!(peer.pairs("to_a"), [(outbound, inbound)]);
    let file = wire.file.clone();
    let frames = wire.stop();
    let expected = if nat_traversal == "force" { Kind::NatTraversal } else { Kind::Esp };
    assert!(capture::census(&frames).get(&expected) >= Some(&8), "{:?}", capture::census(&frames));

    for keys in [a.directory.join("keys"), b.directory.join("keys")] {
        let verdict = judge::tshark(&file, &keys);
        assert_eq!((verdict.icv_good, verdict.icv_bad, verdict.icmp), (8, 0, 8), "{verdict:?}");
        // Main mode 5 and 6, quick mode 1 to 3.
        assert!(verdict.ike_decrypted >= 5 && verdict.ike_opaque == 0, "{verdict:?}");
        let counts = judge::scapy(&file, &keys);
        let expected = [inbound, outbound].map(|spi| (format!("{spi:#010x}"), 4)).into_iter().collect();
        assert_eq!(counts, expected);
    }
}

/// The judges are awake: with another key nothing is found right.
#[test]
fn a_wrong_key_is_noticed() {
    let Some(lab) = Lab::open("wrong-key", 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let wire = Capture::start(a, "outer");
    let (_ours, _peer) = (start(a, b, CASES[0], "auto"), start(b, a, CASES[0], "auto"));
    traffic::ping_all(a, b, 1);
    let file = wire.file.clone();
    let _ = wire.stop();
    let keys = a.directory.join("keys");
    let table = keys.join("esp_sa");
    let text = std::fs::read_to_string(&table).expect("the exported table");
    // The last column is the integrity key: other digits in it.
    let spoil = |line: &str| {
        let (rest, key) = line.rsplit_once(',').expect("columns");
        let other: String = key.chars().map(|c| if c == '0' { '1' } else { c }).collect();
        format!("{rest},{}\n", other.replacen("\"1x", "\"0x", 1).replace('a', "b"))
    };
    let spoiled: String = text.lines().map(spoil).collect();
    assert_ne!(text, spoiled);
    std::fs::write(&table, spoiled).expect("the table");
    let verdict = judge::tshark(&file, &keys);
    assert_eq!(verdict.icv_good, 0, "{verdict:?}");
    let judged = std::panic::catch_unwind(|| judge::scapy(&file, &keys));
    assert!(judged.is_err(), "scapy found a wrong key right: {judged:?}");
}

macro_rules! rows {
    ($($row:ident = $index:literal,)*) => {
        $(mod $row {
            #[test]
            fn raw() {
                super::judged(super::CASES[$index], "auto");
            }

            #[test]
            fn in_udp() {
                super::judged(super::CASES[$index], "force");
            }
        })*

        #[test]
        fn every_row_is_judged() {
            assert_eq!([$($index),*].len(), CASES.len());
        }
    };
}

rows! {
    aes128_modp2048 = 0,
    aes128_pfs = 1,
    aes256_modp2048 = 2,
    aes256_ecp256 = 3,
    aes256_x25519 = 4,
    tripledes_modp1024 = 5,
    gcm128 = 6,
    gcm256_ecp384 = 7,
    md5_modp1536 = 8,
    null_sha1 = 9,
    ctr = 10,
}
