//! Suites as people write them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crypto::suite::SuiteError;
use crypto::table::{INTEGRITIES, Integrity, Status};
use crypto::{EspSuite, IkeSuite};
use proptest::prelude::*;

fn esp(text: &str) -> String {
    text.parse::<EspSuite>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

fn esp_error(text: &str) -> String {
    text.parse::<EspSuite>().err().unwrap_or_else(|| panic!("{text} was taken")).to_string()
}

fn ike_error(text: &str) -> String {
    text.parse::<IkeSuite>().err().unwrap_or_else(|| panic!("{text} was taken")).to_string()
}

#[test]
fn both_spellings_of_every_suite() {
    assert_eq!(EspSuite::all().count(), 3 + 9 + 3 + 5 * 8);
    for suite in EspSuite::all() {
        assert_eq!(suite.to_string().parse(), Ok(suite));
        assert_eq!(suite.hpux().parse(), Ok(suite));
        assert_eq!(suite.hpux().to_lowercase().parse(), Ok(suite));
    }
}

#[test]
fn todays_spelling() {
    for text in ["aes128-sha1", "aes256gcm16", "null-sha256", "3des-md5", "aes192ctr-sha512"] {
        assert_eq!(esp(text), text);
    }
    assert_eq!(esp("AES128-SHA2_256"), "aes128-sha256");
    assert_eq!(esp("aes-sha256_128"), "aes128-sha256");
    assert_eq!(esp(" aes256gcm "), "aes256gcm16");

    let with_group = |text| {
        let (suite, group) = EspSuite::parse_with_group(text).unwrap();
        (suite.to_string(), group.map(|group| group.keyword))
    };
    assert_eq!(with_group("aes128-sha1-modp2048"), ("aes128-sha1".into(), Some("modp2048")));
    assert_eq!(with_group("aes256gcm16-ecp384"), ("aes256gcm16".into(), Some("ecp384")));
    assert_eq!(with_group("aes256gcm16"), ("aes256gcm16".into(), None));
    assert_eq!(with_group("ESP_AES128_HMAC_SHA1-modp2048"), ("aes128-sha1".into(), Some("modp2048")));
}

#[test]
fn spelling_of_hpux() {
    for (hpux, today) in [
        ("ESP_AES128_HMAC_SHA1", "aes128-sha1"),
        ("ESP_AES256_HMAC_SHA2_512", "aes256-sha512"),
        ("ESP_3DES_HMAC_MD5", "3des-md5"),
        ("ESP_NULL_HMAC_SHA2_256", "null-sha256"),
        ("ESP_AES128_GCM16", "aes128gcm16"),
    ] {
        assert_eq!(esp(hpux), today);
        assert_eq!(esp(today).parse::<EspSuite>().unwrap().hpux(), hpux);
    }
}

#[test]
fn ike_suites() {
    for text in ["aes128-sha1-modp2048", "aes256-sha384-ecp384", "3des-md5-modp1024", "aes256-sha256-x25519"] {
        assert_eq!(text.parse::<IkeSuite>().unwrap().to_string(), text);
    }
    assert_eq!("AES-SHA2_256-curve25519".parse::<IkeSuite>().unwrap().to_string(), "aes128-sha256-x25519");
}

#[test]
fn errors_name_the_part_and_the_way_out() {
    for (text, expected) in [
        ("aes218-sha1", "unknown encryption algorithm 'aes218' in 'aes218-sha1'; did you mean 'aes128'?"),
        ("aes128-sha3", "unknown integrity algorithm 'sha3' in 'aes128-sha3'; did you mean 'sha1'?"),
        (
            "aes128-sha1-modp2084",
            "unknown Diffie-Hellman group 'modp2084' in 'aes128-sha1-modp2084'; did you mean 'modp2048'?",
        ),
        ("blowfish-sha1", "unknown encryption algorithm 'blowfish' in 'blowfish-sha1'"),
        ("", "unknown encryption algorithm '' in ''"),
        ("aes128", "'aes128' names no integrity algorithm; write for example 'aes128-sha256'"),
        ("null", "'null' names no integrity algorithm; write for example 'null-sha256'"),
        ("aes128-modp2048", "'aes128-modp2048' names no integrity algorithm; write for example 'aes128-sha256'"),
        ("aes128gcm16-sha256", "'aes128gcm16-sha256': aes128gcm16 authenticates by itself; write it without 'sha256'"),
        ("aes128-sha1-modp2048", "'aes128-sha1-modp2048' is complete before '-modp2048'; leave that away"),
        ("aes128-sha1-modp2048-x", "'aes128-sha1-modp2048-x' is complete before '-x'; leave that away"),
        (
            "ESP_AES128_HMAC_SHA",
            "unknown transform 'ESP_AES128_HMAC_SHA' in 'ESP_AES128_HMAC_SHA'; did you mean 'ESP_AES128_HMAC_SHA1'?",
        ),
        ("ESP_AES128", "'ESP_AES128' names no integrity algorithm; write for example 'ESP_AES128_HMAC_SHA1'"),
        ("des-md5", "des in 'des-md5' must not be used: anybody can search its 56-bit keys; use aes128 or aes256"),
        (
            "ESP_DES_HMAC_MD5",
            "des in 'ESP_DES_HMAC_MD5' must not be used: anybody can search its 56-bit keys; use ESP_AES128_HMAC_SHA1",
        ),
        (
            "aes128-sha1-modp768",
            "modp768 in 'aes128-sha1-modp768' must not be used: 768 bits have been broken in public; \
             use modp2048 or x25519",
        ),
    ] {
        assert_eq!(esp_error(text), expected);
    }
    for (text, expected) in [
        ("aes128-sha1", "'aes128-sha1' names no Diffie-Hellman group; write for example 'aes128-sha1-modp2048'"),
        ("aes128-modp2048", "'aes128-modp2048' names no hash; write for example 'aes128-sha256-modp2048'"),
        ("aes128", "'aes128' names no hash; write for example 'aes128-sha256-modp2048'"),
        ("aes128-sah1-modp2048", "unknown hash 'sah1' in 'aes128-sah1-modp2048'; did you mean 'sha1'?"),
        (
            "aes256gcm16-sha384-ecp384",
            "'aes256gcm16-sha384-ecp384': aes256gcm16 is for ESP only; IKE messages are encrypted with aes256",
        ),
        ("null-sha1-modp2048", "'null-sha1-modp2048': null is for ESP only; IKE messages are encrypted with aes128"),
        (
            "des-sha1-modp2048",
            "des in 'des-sha1-modp2048' must not be used: anybody can search its 56-bit keys; use aes128 or aes256",
        ),
        (
            "aes128-sha1-modp2048-modp2048",
            "'aes128-sha1-modp2048-modp2048' is complete before '-modp2048'; leave that away",
        ),
    ] {
        assert_eq!(ike_error(text), expected);
    }
    assert!(matches!("x".repeat(100_000).parse::<EspSuite>(), Err(SuiteError::Unknown { nearest: None, .. })));
}

#[test]
fn a_suite_is_as_bad_as_its_worst_part() {
    let legacy = |text: &str| {
        let suite: EspSuite = text.parse().unwrap();
        (suite.status(), suite.legacy_parts().iter().map(|part| part.keyword).collect::<Vec<_>>())
    };
    assert_eq!(legacy("aes128-sha1"), (Status::Modern, vec![]));
    assert_eq!(legacy("aes128gcm16"), (Status::Modern, vec![]));
    assert_eq!(legacy("aes128-md5"), (Status::Legacy, vec!["md5"]));
    assert_eq!(legacy("3des-md5"), (Status::Legacy, vec!["3des", "md5"]));

    let suite: IkeSuite = "3des-sha1-modp1024".parse().unwrap();
    assert_eq!(suite.status(), Status::Legacy);
    let warnings: Vec<_> = suite.legacy_parts().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "3des: its 64-bit blocks begin to repeat within some gigabytes, and it is slow",
            "modp1024: a well-funded attacker can break 1024 bits (RFC 8247 2.4)",
        ]
    );
    assert_eq!("aes128-sha1-modp2048".parse::<IkeSuite>().unwrap().status(), Status::Modern);
}

proptest! {
    #[test]
    fn parsing_anything_only_says_no(text in ".*", tail in "[-_A-Za-z0-9]{0,40}") {
        for text in [text.clone(), format!("ESP_{text}"), format!("aes128-{text}"), format!("ESP_{tail}"), tail] {
            if let Ok((suite, _)) = EspSuite::parse_with_group(&text) {
                prop_assert!(suite.status() != Status::Forbidden);
            }
            let _: Result<IkeSuite, _> = text.parse();
        }
    }
}

#[test]
fn transforms_of_ah_in_both_spellings() {
    for row in INTEGRITIES.iter() {
        for text in [format!("ah-{row}"), format!("AH-{row}-modp2048"), row.hpux_ah(), row.hpux_ah().to_lowercase()] {
            let (found, group) = Integrity::parse_ah(&text).unwrap().unwrap();
            assert_eq!((found, group.is_some()), (row, text.contains("modp")), "{text}");
        }
    }
    assert_eq!(Integrity::from_keyword("sha256").unwrap().hpux_ah(), "AH_SHA2_256");
    assert!(Integrity::parse_ah("aes128-sha1").is_none() && Integrity::parse_ah("ah").is_none());
    for (wrong, said) in [
        ("ah-sha7", "unknown integrity algorithm 'sha7' in 'ah-sha7'; did you mean 'sha1'?"),
        ("AH_SHA1-modp2048-x", "'AH_SHA1-modp2048-x' is complete before '-x'; leave that away"),
    ] {
        assert_eq!(Integrity::parse_ah(wrong).unwrap().unwrap_err().to_string(), said);
    }
    // GMAC is an integrity algorithm of AH, and in ESP a cipher that encrypts nothing.
    let refused = "aes128-aes128gmac".parse::<EspSuite>().unwrap_err().to_string();
    assert!(refused.contains("aes128gmac is no integrity algorithm of ESP beside a cipher"), "{refused}");
    assert!("ESP_AES128_AES128_GMAC".parse::<EspSuite>().is_err());
    assert!("aes128gmac".parse::<EspSuite>().is_ok());
    assert_eq!(EspSuite::of_ah(Integrity::from_keyword("sha1").unwrap()).keymat_len(), 20);
}
