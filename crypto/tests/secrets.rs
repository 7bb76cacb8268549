//! Nothing that can be printed shows key octets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crypto::entropy::testing::SeededEntropy;
use crypto::packet::{OpenJob, SealJob};
use crypto::secret;
use crypto::table::{Encryption, Error, GROUPS, Group, Hash, Status};
use crypto::{EspSuite, Secret};
use std::fmt::Debug;

/// Fails if `printed` has four of the octets in a row, in hexadecimal or as a list.
fn shows_nothing(printed: &impl Debug, octets: &[u8]) {
    for printed in [format!("{printed:?}"), format!("{printed:#?}"), format!("{printed:x?}")] {
        let printed = printed.to_lowercase();
        for four in octets.windows(4) {
            let hex: String = four.iter().map(|octet| format!("{octet:02x}")).collect();
            assert!(!printed.contains(&hex), "{printed}");
            let list: Vec<_> = four.iter().map(u8::to_string).collect();
            assert!(!printed.contains(&list.join(", ")), "{printed}");
            let list: Vec<_> = four.iter().map(|octet| format!("{octet:x}")).collect();
            assert!(!printed.contains(&list.join(", ")), "{printed}");
        }
    }
}

#[test]
fn debug_shows_no_key() {
    let key: Vec<u8> = (0x41..0x41 + 36).collect();
    let secret = Secret::copy_of(&key);
    shows_nothing(&secret, &key);
    assert_eq!(format!("{secret:?}"), "Secret(36 octets)");
    shows_nothing(&Some(vec![secret.clone()]), &key);

    let prf = Hash::from_keyword("sha256").unwrap().prf(&key, &[b"data"]);
    shows_nothing(&prf, prf.expose());

    for suite in EspSuite::all() {
        // One octet too many, so that there is an error to print.
        let keymat = Secret::new((0..=suite.keymat_len()).map(|at| 0x41 ^ at as u8).collect());
        let error = crypto::packet::opener(suite, &keymat, false).err().unwrap();
        shows_nothing(&error, keymat.expose());
        shows_nothing(&error.to_string(), keymat.expose());
    }
    let weak = [0x41; 24];
    shows_nothing(&Encryption::from_keyword("3des").unwrap().ike_cipher(&weak).err().unwrap(), &weak);

    for group in GROUPS.iter().filter(|row| row.status != Status::Forbidden) {
        let [a, b] = [1, 2].map(|seed| group.generate(&mut SeededEntropy::new(seed)).unwrap());
        let public = b.public().to_vec();
        let shared = a.agree(&public).unwrap();
        shows_nothing(&shared, shared.expose());
    }
    let group = Group::from_keyword("ecp256").unwrap();
    let error = group.generate(&mut SeededEntropy::new(1)).unwrap().agree(&[0x41; 64]).err().unwrap();
    assert!(matches!(error, Error::PublicValue { .. }));
    shows_nothing(&error, &[0x41; 64]);
}

/// The payload of a job is clear text on one side.
#[test]
fn debug_shows_no_packet() {
    let mut clear: Vec<u8> = (0x41..0x41 + 64).collect();
    let octets = clear.clone();
    shows_nothing(&SealJob { packet: &mut clear, sequence: 1 }, &octets);
    shows_nothing(&OpenJob { packet: &mut clear, sequence: 1, authentic: true }, &octets);
}

#[test]
fn equality_is_of_all_octets() {
    assert!(secret::equal(b"", b""));
    assert!(secret::equal(b"mac", b"mac"));
    assert!(!secret::equal(b"mac", b"mad"));
    assert!(!secret::equal(b"mac", b"mac "));
    assert_eq!(Secret::copy_of(b"key"), Secret::new(b"key".to_vec()));
    assert_ne!(Secret::copy_of(b"key"), Secret::copy_of(b"kez"));
    assert_eq!(Secret::copy_of(b"key").len(), 3);
    assert!(Secret::copy_of(b"").is_empty());
}
