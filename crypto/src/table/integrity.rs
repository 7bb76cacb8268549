//! The rows of integrity algorithms.

use super::{Integrity, Status, by_keyword};
use crate::mac::{hmac_sha1, hmac_sha256, truncated_hmac};
use crate::packet::gmac;
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM};
use md5::Md5;
use sha2::{Sha384, Sha512};

/// Every integrity algorithm that Caponier knows.
pub static INTEGRITIES: [Integrity; 8] = [
    Integrity {
        keyword: "sha1",
        aliases: &["sha1_96", "sha", "hmac_sha1"],
        hpux: "HMAC_SHA1",
        wireshark: "HMAC-SHA-1-96 [RFC2404]",
        ikev1_auth: 2,
        ikev1_ah: 3,
        ikev2: 2,
        key_len: 20,
        icv_len: 12,
        iv_len: 0,
        status: Status::Modern,
        caveat: "",
        source: "RFC 2404",
        new: hmac_sha1,
    },
    Integrity {
        keyword: "sha256",
        aliases: &["sha2_256", "sha256_128", "sha2_256_128", "hmac_sha2_256"],
        hpux: "HMAC_SHA2_256",
        wireshark: "HMAC-SHA-256-128 [RFC4868]",
        ikev1_auth: 5,
        ikev1_ah: 5,
        ikev2: 12,
        key_len: 32,
        icv_len: 16,
        iv_len: 0,
        status: Status::Modern,
        caveat: "",
        source: "RFC 4868",
        new: hmac_sha256,
    },
    Integrity {
        keyword: "sha384",
        aliases: &["sha2_384", "sha384_192", "sha2_384_192", "hmac_sha2_384"],
        hpux: "HMAC_SHA2_384",
        wireshark: "HMAC-SHA-384-192 [RFC4868]",
        ikev1_auth: 6,
        ikev1_ah: 6,
        ikev2: 13,
        key_len: 48,
        icv_len: 24,
        iv_len: 0,
        status: Status::Modern,
        caveat: "",
        source: "RFC 4868",
        new: |key| truncated_hmac::<Sha384>("sha384", key, 24),
    },
    Integrity {
        keyword: "sha512",
        aliases: &["sha2_512", "sha512_256", "sha2_512_256", "hmac_sha2_512"],
        hpux: "HMAC_SHA2_512",
        wireshark: "HMAC-SHA-512-256 [RFC4868]",
        ikev1_auth: 7,
        ikev1_ah: 7,
        ikev2: 14,
        key_len: 64,
        icv_len: 32,
        iv_len: 0,
        status: Status::Modern,
        caveat: "",
        source: "RFC 4868",
        new: |key| truncated_hmac::<Sha512>("sha512", key, 32),
    },
    Integrity {
        keyword: "md5",
        aliases: &["md5_96", "hmac_md5"],
        hpux: "HMAC_MD5",
        wireshark: "HMAC-MD5-96 [RFC2403]",
        ikev1_auth: 1,
        ikev1_ah: 2,
        ikev2: 1,
        key_len: 16,
        icv_len: 12,
        iv_len: 0,
        status: Status::Legacy,
        caveat: "MD5 is broken as a hash; HMAC-MD5 still stands, but nothing new should rest on it",
        source: "RFC 2403, RFC 6151",
        new: |key| truncated_hmac::<Md5>("md5", key, 12),
    },
    Integrity {
        keyword: "aes128gmac",
        aliases: &["aes128_gmac"],
        hpux: "AES128_GMAC",
        wireshark: "",
        ikev1_auth: 11,
        ikev1_ah: 11,
        ikev2: 9,
        key_len: 20,
        icv_len: 24,
        iv_len: 8,
        status: Status::Modern,
        caveat: "",
        source: "RFC 4543",
        new: |key| gmac::for_ah("aes128gmac", &AES_128_GCM, key),
    },
    Integrity {
        keyword: "aes192gmac",
        aliases: &["aes192_gmac"],
        hpux: "AES192_GMAC",
        wireshark: "",
        ikev1_auth: 12,
        ikev1_ah: 12,
        ikev2: 10,
        key_len: 28,
        icv_len: 24,
        iv_len: 8,
        status: Status::Modern,
        caveat: "",
        source: "RFC 4543",
        new: |key| gmac::for_ah("aes192gmac", &AES_192_GCM, key),
    },
    Integrity {
        keyword: "aes256gmac",
        aliases: &["aes256_gmac"],
        hpux: "AES256_GMAC",
        wireshark: "",
        ikev1_auth: 13,
        ikev1_ah: 13,
        ikev2: 11,
        key_len: 36,
        icv_len: 24,
        iv_len: 8,
        status: Status::Modern,
        caveat: "",
        source: "RFC 4543",
        new: |key| gmac::for_ah("aes256gmac", &AES_256_GCM, key),
    },
];

impl Integrity {
    /// Whether it may stand beside a cipher in ESP.
    #[must_use]
    pub fn goes_with_ciphers(&self) -> bool {
        self.iv_len == 0
    }

    /// By keyword or alias, in any case.
    #[must_use]
    pub fn from_keyword(name: &str) -> Option<&'static Self> {
        by_keyword!(INTEGRITIES, name)
    }

    /// By its name inside an HP-UX transform (`HMAC_SHA1`), in any case.
    #[must_use]
    pub fn from_hpux(name: &str) -> Option<&'static Self> {
        INTEGRITIES.iter().find(|row| row.hpux.eq_ignore_ascii_case(name))
    }

    /// By IKEv1 Authentication Algorithm attribute.
    #[must_use]
    pub fn from_ikev1_auth(id: u16) -> Option<&'static Self> {
        INTEGRITIES.iter().find(|row| row.ikev1_auth == id)
    }

    /// By IKEv1 AH transform identifier.
    #[must_use]
    pub fn from_ikev1_ah(id: u8) -> Option<&'static Self> {
        INTEGRITIES.iter().find(|row| row.ikev1_ah == id)
    }

    /// Its name as an AH transform of HP-UX: `AH_SHA1`.
    #[must_use]
    pub fn hpux_ah(&self) -> String {
        format!("AH_{}", self.hpux.trim_start_matches("HMAC_"))
    }

    /// By IKEv2 transform type 3 identifier.
    #[must_use]
    pub fn from_ikev2(id: u16) -> Option<&'static Self> {
        INTEGRITIES.iter().find(|row| row.ikev2 == id)
    }
}
