//! The table is consistent: every look-up finds its row again, and no two rows
//! claim one name or number.

use crypto::table::{
    ENCRYPTIONS, Encryption, GROUPS, Group, HASHES, Hash, INTEGRITIES, Integrity, SIGNATURES, Signature, Status,
};
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash as StdHash;

fn all_differ<T: StdHash + Eq + Debug>(what: &str, values: impl Iterator<Item = T>) {
    let mut seen = HashSet::new();
    for value in values {
        let text = format!("{value:?}");
        assert!(seen.insert(value), "two {what} {text}");
    }
}

#[test]
fn every_look_up_finds_its_row() {
    for row in &ENCRYPTIONS {
        let found = |by: &str, found: Option<&Encryption>| assert_eq!(found, Some(row), "{row} by {by}");
        for name in row.aliases.iter().chain([&row.keyword]) {
            found(name, Encryption::from_keyword(name));
            found(name, Encryption::from_keyword(&name.to_uppercase()));
        }
        found("HP-UX name", Encryption::from_hpux(&row.hpux.to_lowercase()));
        let key_bits = row.key_length_attribute.then_some(row.key_bits);
        if let Some(id) = row.ikev1_phase1 {
            found("phase 1", Encryption::from_ikev1_phase1(id, key_bits));
        }
        if let Some(id) = row.ikev1_esp {
            found("ESP", Encryption::from_ikev1_esp(id, key_bits));
        }
        if let Some(id) = row.ikev2 {
            found("IKEv2", Encryption::from_ikev2(id, key_bits));
        }
    }
    for row in &INTEGRITIES {
        for name in row.aliases.iter().chain([&row.keyword]) {
            assert_eq!(Integrity::from_keyword(name), Some(row), "{name}");
        }
        assert_eq!(Integrity::from_hpux(row.hpux), Some(row));
        assert_eq!(Integrity::from_ikev1_auth(row.ikev1_auth), Some(row));
        assert_eq!(Integrity::from_ikev2(row.ikev2), Some(row));
    }
    for row in &HASHES {
        for name in row.aliases.iter().chain([&row.keyword]) {
            assert_eq!(Hash::from_keyword(name), Some(row), "{name}");
        }
        assert_eq!(Hash::from_hpux(row.hpux), Some(row));
        assert_eq!(Hash::from_ikev1(row.ikev1), Some(row));
        assert_eq!(Hash::from_ikev2_prf(row.ikev2_prf), Some(row));
    }
    for row in &GROUPS {
        for name in row.aliases.iter().chain([&row.keyword]) {
            assert_eq!(Group::from_keyword(name), Some(row), "{name}");
        }
        assert_eq!(Group::from_number(row.number), Some(row));
    }
    for row in &SIGNATURES {
        for name in row.aliases.iter().chain([&row.keyword]) {
            assert_eq!(Signature::from_keyword(name), Some(row), "{name}");
        }
        assert_eq!(Signature::from_hpux(&row.hpux.to_lowercase()), Some(row));
        assert_eq!(Signature::from_ikev1(row.ikev1), Some(row));
        assert_eq!(Signature::from_key(row.key_algorithm, row.curve), Some(row));
        assert!(row.hash.is_none_or(|hash| Hash::from_keyword(hash).is_some()), "{row}");
    }
    // RSA keys have NULL for parameters; of elliptic curves the parameters are what counts.
    assert_eq!(Signature::from_key("1.2.840.113549.1.1.1", None).map(|row| row.keyword), Some("rsasig"));
    assert_eq!(Signature::from_key("1.2.840.10045.2.1", None), None);
    assert_eq!(Signature::from_key("1.2.840.10045.2.1", Some("1.3.132.0.10")), None);
}

#[test]
fn no_two_rows_claim_one_name() {
    all_differ("encryptions called", ENCRYPTIONS.iter().flat_map(|row| row.aliases.iter().chain([&row.keyword])));
    all_differ("encryptions called", ENCRYPTIONS.iter().map(|row| row.hpux));
    all_differ(
        "integrity algorithms called",
        INTEGRITIES.iter().flat_map(|row| row.aliases.iter().chain([&row.keyword])),
    );
    all_differ("hashes called", HASHES.iter().flat_map(|row| row.aliases.iter().chain([&row.keyword])));
    all_differ("groups called", GROUPS.iter().flat_map(|row| row.aliases.iter().chain([&row.keyword])));
    all_differ("groups numbered", GROUPS.iter().map(|row| row.number));
    all_differ("signatures called", SIGNATURES.iter().flat_map(|row| row.aliases.iter().chain([&row.keyword])));
    all_differ("signatures called", SIGNATURES.iter().map(|row| row.hpux));
    all_differ("signatures numbered", SIGNATURES.iter().map(|row| row.ikev1));
    all_differ("signatures with keys", SIGNATURES.iter().map(|row| (row.key_algorithm, row.curve)));
}

#[test]
fn numbers_are_those_of_the_registries() {
    let phase1 = |id, bits| Encryption::from_ikev1_phase1(id, bits).map(|row| row.keyword);
    assert_eq!(phase1(7, Some(128)), Some("aes128"));
    assert_eq!(phase1(7, Some(192)), Some("aes192"));
    assert_eq!(phase1(7, Some(256)), Some("aes256"));
    assert_eq!(phase1(5, None), Some("3des"));
    assert_eq!(phase1(1, None), Some("des"));
    // AES has to state its key length, 3DES must not (RFC 2409 appendix A, RFC 3602 5.3).
    assert_eq!(phase1(7, None), None);
    assert_eq!(phase1(7, Some(512)), None);
    assert_eq!(phase1(5, Some(192)), None);

    let esp = |id, bits| Encryption::from_ikev1_esp(id, bits).map(|row| row.keyword);
    assert_eq!(esp(12, Some(256)), Some("aes256"));
    assert_eq!(esp(13, Some(128)), Some("aes128ctr"));
    assert_eq!(esp(20, Some(256)), Some("aes256gcm16"));
    assert_eq!(esp(3, None), Some("3des"));
    assert_eq!(esp(2, None), Some("des"));
    assert_eq!(esp(11, None), Some("null"));
    let ccm = [14, 15, 16].map(|id| esp(id, Some(192)));
    assert_eq!(ccm, [Some("aes192ccm8"), Some("aes192ccm12"), Some("aes192ccm16")]);
    assert_eq!(esp(23, Some(256)), Some("aes256gmac"));
    assert_eq!(esp(19, Some(128)), None);

    let ikev2 = |id, bits| Encryption::from_ikev2(id, bits).map(|row| row.keyword);
    assert_eq!(ikev2(12, Some(128)), Some("aes128"));
    assert_eq!(ikev2(20, Some(192)), Some("aes192gcm16"));
    assert_eq!(ikev2(15, Some(128)), Some("aes128ccm12"));
    assert_eq!(ikev2(21, Some(128)), Some("aes128gmac"));

    let auth: Vec<_> = [1, 2, 3, 5, 6, 7].map(|id| Integrity::from_ikev1_auth(id).map(|row| row.keyword)).into();
    let gmac: Vec<_> = INTEGRITIES.iter().filter(|row| !row.goes_with_ciphers()).map(|row| row.ikev1_ah).collect();
    assert_eq!(gmac, [11, 12, 13]);
    assert_eq!(auth, [Some("md5"), Some("sha1"), None, Some("sha256"), Some("sha384"), Some("sha512")]);
    let auth: Vec<_> = [1, 2, 12, 13, 14].map(|id| Integrity::from_ikev2(id).map(|row| row.keyword)).into();
    assert_eq!(auth, [Some("md5"), Some("sha1"), Some("sha256"), Some("sha384"), Some("sha512")]);
    let hash: Vec<_> = [1, 2, 3, 4, 5, 6].map(|id| Hash::from_ikev1(id).map(|row| row.keyword)).into();
    assert_eq!(hash, [Some("md5"), Some("sha1"), None, Some("sha256"), Some("sha384"), Some("sha512")]);
    let prf: Vec<_> = [1, 2, 5, 6, 7].map(|id| Hash::from_ikev2_prf(id).map(|row| row.keyword)).into();
    assert_eq!(prf, [Some("md5"), Some("sha1"), Some("sha256"), Some("sha384"), Some("sha512")]);

    let methods: Vec<_> = [1, 2, 3, 9, 10, 11].map(|id| Signature::from_ikev1(id).map(|row| row.keyword)).into();
    assert_eq!(methods, [None, Some("dss"), Some("rsasig"), Some("ecdsa256"), Some("ecdsa384"), Some("ecdsa521")]);

    let groups: Vec<_> = (0..40).filter_map(Group::from_number).map(|row| (row.number, row.keyword)).collect();
    assert_eq!(
        groups,
        [
            (1, "modp768"),
            (2, "modp1024"),
            (5, "modp1536"),
            (14, "modp2048"),
            (15, "modp3072"),
            (16, "modp4096"),
            (19, "ecp256"),
            (20, "ecp384"),
            (21, "ecp521"),
            (31, "x25519"),
        ]
    );
}

#[test]
fn rows_that_are_not_modern_say_why() {
    let mut legacy = Vec::new();
    let mut check = |keyword: &'static str, status: Status, caveat: &str, source: &str| {
        assert_eq!(caveat.is_empty(), status == Status::Modern, "{keyword}");
        assert!(!source.is_empty(), "{keyword}");
        if status == Status::Legacy {
            legacy.push(keyword);
        }
    };
    ENCRYPTIONS.iter().for_each(|row| check(row.keyword, row.status, row.caveat, row.source));
    INTEGRITIES.iter().for_each(|row| check(row.keyword, row.status, row.caveat, row.source));
    HASHES.iter().for_each(|row| check(row.keyword, row.status, row.caveat, row.source));
    GROUPS.iter().for_each(|row| check(row.keyword, row.status, row.caveat, row.source));
    SIGNATURES.iter().for_each(|row| check(row.keyword, row.status, row.caveat, row.source));
    assert_eq!(
        legacy,
        ["3des", "null", "aes128gmac", "aes192gmac", "aes256gmac", "md5", "md5", "modp1536", "modp1024"]
    );
    assert!(Status::Modern < Status::Legacy && Status::Legacy < Status::Forbidden);
}
