//! The rows of Diffie-Hellman groups.

use super::{Group, Status, by_keyword};
use crate::exchange::{ecp, modp, x25519};

/// Every Diffie-Hellman group that Caponier knows.
pub static GROUPS: [Group; 10] = [
    Group { generate: Some(modp::generate_2048), check: Some(modp::check_2048), ..modp(14, "modp2048", 256) },
    Group { generate: Some(modp::generate_3072), check: Some(modp::check_3072), ..modp(15, "modp3072", 384) },
    Group { generate: Some(modp::generate_4096), check: Some(modp::check_4096), ..modp(16, "modp4096", 512) },
    Group { generate: Some(ecp::generate_256), check: Some(ecp::check_256), ..ecp(19, "ecp256", 32) },
    Group { generate: Some(ecp::generate_384), check: Some(ecp::check_384), ..ecp(20, "ecp384", 48) },
    Group { generate: Some(ecp::generate_521), check: Some(ecp::check_521), ..ecp(21, "ecp521", 66) },
    Group {
        keyword: "x25519",
        aliases: &["curve25519"],
        number: 31,
        public_len: 32,
        shared_len: 32,
        status: Status::Modern,
        caveat: "",
        source: "RFC 8031, RFC 7748",
        generate: Some(x25519::generate),
        check: Some(x25519::check),
    },
    Group {
        status: Status::Legacy,
        caveat: "1536 bits are below what RFC 8247 allows",
        generate: Some(modp::generate_1536),
        check: Some(modp::check_1536),
        ..modp(5, "modp1536", 192)
    },
    Group {
        status: Status::Legacy,
        caveat: "a well-funded attacker can break 1024 bits (RFC 8247 2.4)",
        source: "RFC 2409 6.2",
        generate: Some(modp::generate_1024),
        check: Some(modp::check_1024),
        ..modp(2, "modp1024", 128)
    },
    Group {
        status: Status::Forbidden,
        caveat: "768 bits have been broken in public",
        source: "RFC 2409 6.1",
        ..modp(1, "modp768", 96)
    },
];

const fn modp(number: u16, keyword: &'static str, len: usize) -> Group {
    Group {
        keyword,
        aliases: &[],
        number,
        public_len: len,
        shared_len: len,
        status: Status::Modern,
        caveat: "",
        source: "RFC 3526",
        generate: None,
        check: None,
    }
}

/// `len`: octets of one coordinate. Both go on the wire, x alone is the secret
/// (RFC 5903 7).
const fn ecp(number: u16, keyword: &'static str, len: usize) -> Group {
    Group {
        keyword,
        aliases: &[],
        number,
        public_len: 2 * len,
        shared_len: len,
        status: Status::Modern,
        caveat: "",
        source: "RFC 5903",
        generate: None,
        check: None,
    }
}

impl Group {
    /// By keyword or alias, in any case.
    #[must_use]
    pub fn from_keyword(name: &str) -> Option<&'static Self> {
        by_keyword!(GROUPS, name)
    }

    /// By group number, which is the same in IKEv1 and IKEv2.
    #[must_use]
    pub fn from_number(number: u16) -> Option<&'static Self> {
        GROUPS.iter().find(|row| row.number == number)
    }
}
