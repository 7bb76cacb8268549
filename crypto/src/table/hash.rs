//! The rows of hashes and of the PRFs made of them.

use super::{Hash, Status, by_keyword};
use crate::mac::{digest, prf};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

/// Every hash that Caponier knows.
pub static HASHES: [Hash; 5] = [
    Hash {
        keyword: "sha1",
        aliases: &["sha", "prfsha1"],
        hpux: "SHA1",
        ikev1: 2,
        ikev2_prf: 2,
        len: 20,
        status: Status::Modern,
        caveat: "",
        source: "FIPS 180-4, RFC 2104",
        digest: digest::<Sha1>,
        hmac: prf::<Sha1>,
    },
    Hash {
        keyword: "sha256",
        aliases: &["sha2_256", "prfsha256"],
        hpux: "SHA2_256",
        ikev1: 4,
        ikev2_prf: 5,
        len: 32,
        status: Status::Modern,
        caveat: "",
        source: "FIPS 180-4, RFC 4868",
        digest: digest::<Sha256>,
        hmac: prf::<Sha256>,
    },
    Hash {
        keyword: "sha384",
        aliases: &["sha2_384", "prfsha384"],
        hpux: "SHA2_384",
        ikev1: 5,
        ikev2_prf: 6,
        len: 48,
        status: Status::Modern,
        caveat: "",
        source: "FIPS 180-4, RFC 4868",
        digest: digest::<Sha384>,
        hmac: prf::<Sha384>,
    },
    Hash {
        keyword: "sha512",
        aliases: &["sha2_512", "prfsha512"],
        hpux: "SHA2_512",
        ikev1: 6,
        ikev2_prf: 7,
        len: 64,
        status: Status::Modern,
        caveat: "",
        source: "FIPS 180-4, RFC 4868",
        digest: digest::<Sha512>,
        hmac: prf::<Sha512>,
    },
    Hash {
        keyword: "md5",
        aliases: &["prfmd5"],
        hpux: "MD5",
        ikev1: 1,
        ikev2_prf: 1,
        len: 16,
        status: Status::Legacy,
        caveat: "MD5 is broken as a hash; HMAC-MD5 still stands, but nothing new should rest on it",
        source: "RFC 1321, RFC 2104, RFC 6151",
        digest: digest::<Md5>,
        hmac: prf::<Md5>,
    },
];

impl Hash {
    /// By keyword or alias, in any case.
    #[must_use]
    pub fn from_keyword(name: &str) -> Option<&'static Self> {
        by_keyword!(HASHES, name)
    }

    /// By HP-UX name (`SHA1`), in any case.
    #[must_use]
    pub fn from_hpux(name: &str) -> Option<&'static Self> {
        HASHES.iter().find(|row| row.hpux.eq_ignore_ascii_case(name))
    }

    /// By IKEv1 Hash Algorithm.
    #[must_use]
    pub fn from_ikev1(id: u16) -> Option<&'static Self> {
        HASHES.iter().find(|row| row.ikev1 == id)
    }

    /// By IKEv2 PRF identifier.
    #[must_use]
    pub fn from_ikev2_prf(id: u16) -> Option<&'static Self> {
        HASHES.iter().find(|row| row.ikev2_prf == id)
    }
}
