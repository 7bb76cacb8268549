//! Every row of [`tests::cases::CASES`] against strongSwan, in both roles.

use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::{CASES, Case};
use tests::lab::Lab;
use tests::need::Need;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

const NEEDS: [Need; 2] = [Need::StrongSwan, Need::Capture];

/// Caponier negotiates when the first packet comes, which is not lost.
fn as_initiator(case: Case) {
    let Some(lab) = Lab::open(&format!("initiator-{}", case.name), 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let swan = StrongSwan::start(b, &Connection::new(b, a, case), &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, case)));
    caponier.assert_nothing_left();
    let wire = Capture::start(a, "outer");
    traffic::ping_all(a, b, 1);
    traffic::ping_all(b, a, 3);
    traffic::ping_all(a, b, 3);
    finish(&caponier, &swan, wire, &lab, case, "initiator");
}

/// strongSwan negotiates.
fn as_responder(case: Case) {
    let Some(lab) = Lab::open(&format!("responder-{}", case.name), 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let caponier = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, case)));
    let swan = StrongSwan::start(b, &Connection::new(b, a, case), &Esp::UserSpace);
    let wire = Capture::start(a, "outer");
    swan.initiate();
    traffic::ping_all(b, a, 3);
    traffic::ping_all(a, b, 3);
    finish(&caponier, &swan, wire, &lab, case, "responder");
}

/// Both sides agree, the reports say so, and nothing was in the clear.
fn finish(caponier: &Caponier, swan: &StrongSwan, wire: Capture, lab: &Lab, case: Case, role: &str) {
    let ours = caponier.pairs("to_b");
    let mirrored: Vec<_> = swan.pairs().into_iter().map(|(i, o)| (o, i)).collect();
    assert_eq!(ours, mirrored, "SPIs mirror");
    assert_eq!(ours.len(), 1, "one pair");
    let mad = caponier.report("mad");
    assert_eq!(mad.len(), 1, "{mad:?}");
    assert_eq!(mad[0]["proposal"]["keyword"], case.ike);
    assert_eq!(mad[0]["role"], role);
    assert_eq!(mad[0]["state"], "established");
    for sa in caponier.report("sad") {
        let keyword = sa["transform"]["keyword"].as_str().unwrap_or_default();
        assert!(case.esp.starts_with(keyword) && !keyword.is_empty(), "{sa}");
        assert!(sa["udp_encapsulation"].is_array(), "strongSwan asked for UDP: {sa}");
        assert!(sa["packets"].as_u64() >= Some(4), "{sa}");
    }
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
    let frames = wire.stop();
    if case.esp.starts_with("null") {
        // The inner packets are there to read, as configured; nothing else is.
        assert!(!capture::census(&frames).contains_key(&capture::Kind::Clear), "{:?}", capture::census(&frames));
    } else {
        capture::assert_protected(&frames, lab.a(), lab.b(), b"");
    }
}

fn case(name: &str) -> Case {
    *CASES.iter().find(|c| c.name == name).expect("a row of that name")
}

macro_rules! rows {
    ($($row:ident = $name:literal,)*) => {
        $(mod $row {
            #[test]
            fn initiator() {
                super::as_initiator(super::case($name));
            }

            #[test]
            fn responder() {
                super::as_responder(super::case($name));
            }
        })*

        #[test]
        fn every_row_is_tried() {
            assert_eq!(CASES.map(|c| c.name), [$($name),*]);
        }
    };
}

rows! {
    aes128_modp2048 = "aes128-modp2048",
    aes128_pfs = "aes128-pfs",
    aes256_modp2048 = "aes256-modp2048",
    aes256_ecp256 = "aes256-ecp256",
    aes256_x25519 = "aes256-x25519",
    tripledes_modp1024 = "3des-modp1024",
    gcm128 = "gcm128",
    gcm256_ecp384 = "gcm256-ecp384",
    md5_modp1536 = "md5-modp1536",
    null_sha1 = "null-sha1",
    ctr = "ctr",
}
