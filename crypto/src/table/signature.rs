//! The rows of signatures: how peers with certificates authenticate themselves.

use super::{Signature, Status, by_keyword};
use crate::signature::{ecdsa, rsa};

/// id-ecPublicKey (RFC 5480 2.1.1).
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";

/// Every signature that Caponier knows.
pub static SIGNATURES: [Signature; 5] = [
    Signature {
        keyword: "rsasig",
        aliases: &["rsa"],
        hpux: "RSASIG",
        ikev1: 3,
        hash: None,
        key_algorithm: "1.2.840.113549.1.1.1",
        curve: None,
        status: Status::Modern,
        caveat: "",
        source: "RFC 2409 5.1, RFC 8017",
        signing_key: Some(rsa::signing_key),
        verify: Some(rsa::verify),
    },
    Signature {
        keyword: "ecdsa256",
        aliases: &["ecdsa-256", "ecdsa"],
        hpux: "ECDSA256",
        ikev1: 9,
        hash: Some("sha256"),
        key_algorithm: EC_PUBLIC_KEY,
        curve: Some("1.2.840.10045.3.1.7"),
        status: Status::Modern,
        caveat: "",
        source: "RFC 4754",
        signing_key: Some(ecdsa::signing_key_256),
        verify: Some(ecdsa::verify_256),
    },
    Signature {
        keyword: "ecdsa384",
        aliases: &["ecdsa-384"],
        hpux: "ECDSA384",
        ikev1: 10,
        hash: Some("sha384"),
        key_algorithm: EC_PUBLIC_KEY,
        curve: Some("1.3.132.0.34"),
        status: Status::Modern,
        caveat: "",
        source: "RFC 4754",
        signing_key: Some(ecdsa::signing_key_384),
        verify: Some(ecdsa::verify_384),
    },
    Signature {
        keyword: "ecdsa521",
        aliases: &["ecdsa-521"],
        hpux: "ECDSA521",
        ikev1: 11,
        hash: Some("sha512"),
        key_algorithm: EC_PUBLIC_KEY,
        curve: Some("1.3.132.0.35"),
        status: Status::Modern,
        caveat: "",
        source: "RFC 4754",
        signing_key: Some(ecdsa::signing_key_521),
        verify: Some(ecdsa::verify_521),
    },
    Signature {
        keyword: "dss",
        aliases: &["dsa"],
        hpux: "DSS",
        ikev1: 2,
        hash: Some("sha1"),
        key_algorithm: "1.2.840.10040.4.1",
        curve: None,
        status: Status::Forbidden,
        caveat: "DSA with SHA-1 and keys of 1024 bits is within reach of who can pay for it",
        source: "RFC 2409 5.1, FIPS 186-5",
        signing_key: None,
        verify: None,
    },
];

impl Signature {
    /// By keyword or alias, in any case.
    #[must_use]
    pub fn from_keyword(name: &str) -> Option<&'static Self> {
        by_keyword!(SIGNATURES, name)
    }

    /// By HP-UX name (`RSASIG`), in any case.
    #[must_use]
    pub fn from_hpux(name: &str) -> Option<&'static Self> {
        SIGNATURES.iter().find(|row| row.hpux.eq_ignore_ascii_case(name))
    }

    /// By IKEv1 Authentication Method.
    #[must_use]
    pub fn from_ikev1(id: u16) -> Option<&'static Self> {
        SIGNATURES.iter().find(|row| row.ikev1 == id)
    }

    /// By the key of a certificate (RFC 5280 4.1.2.7): the algorithm's object
    /// identifier, and that of its parameters, both with dots.
    #[must_use]
    pub fn from_key(algorithm: &str, parameters: Option<&str>) -> Option<&'static Self> {
        SIGNATURES.iter().find(|row| row.key_algorithm == algorithm && (row.curve.is_none() || row.curve == parameters))
    }
}
