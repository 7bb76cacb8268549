//! Combinations of rows, as negotiated.

mod nearest;
mod parse;

pub use nearest::nearest;
pub use parse::SuiteError;

use crate::table::{ENCRYPTIONS, Encryption, Group, Hash, INTEGRITIES, Integrity, Status};
use core::fmt;

/// A part of a suite that is used only because the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyPart {
    /// Keyword of the row.
    pub keyword: &'static str,
    /// Why it is not to be used, as a clause.
    pub caveat: &'static str,
}

/// `3des: its 64-bit blocks begin to repeat ...`.
impl fmt::Display for LegacyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.keyword, self.caveat)
    }
}

/// One part of a suite, whatever its kind.
type Part = (Status, LegacyPart);

macro_rules! part {
    ($row:expr) => {
        ($row.status, LegacyPart { keyword: $row.keyword, caveat: $row.caveat })
    };
}

fn worst(parts: impl Iterator<Item = Part>) -> Status {
    parts.map(|(status, _)| status).max().unwrap_or(Status::Modern)
}

fn legacy(parts: impl Iterator<Item = Part>) -> Vec<LegacyPart> {
    parts.filter(|(status, _)| *status == Status::Legacy).map(|(_, part)| part).collect()
}

/// What protects the packets of an ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// Cipher or AEAD.
    pub encryption: &'static Encryption,
    /// Integrity; `None` exactly when the encryption is an AEAD.
    pub integrity: Option<&'static Integrity>,
}

impl EspSuite {
    /// Every suite that may be used, from the table: modern ones and legacy ones.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::every().filter(|suite| suite.status() != Status::Forbidden)
    }

    /// Every combination that makes sense, forbidden ones too.
    fn every() -> impl Iterator<Item = Self> {
        ENCRYPTIONS.iter().flat_map(|encryption| {
            let aead = encryption.is_aead().then_some(None);
            let separate = INTEGRITIES.iter().filter(|row| !encryption.is_aead() && row.goes_with_ciphers()).map(Some);
            aead.into_iter().chain(separate).map(move |integrity| Self { encryption, integrity })
        })
    }

    /// What AH does, as a suite: the integrity algorithm, and nothing is encrypted.
    #[must_use]
    pub fn of_ah(integrity: &'static Integrity) -> Self {
        Self { encryption: Encryption::nothing(), integrity: Some(integrity) }
    }

    /// As bad as the worst part.
    #[must_use]
    pub fn status(&self) -> Status {
        worst(self.parts())
    }

    /// The parts that the daemon warns of.
    #[must_use]
    pub fn legacy_parts(&self) -> Vec<LegacyPart> {
        legacy(self.parts())
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        [part!(self.encryption)].into_iter().chain(self.integrity.map(|row| part!(row)))
    }

    /// The name of the transform on HP-UX: `ESP_AES128_HMAC_SHA1`. What HP-UX
    /// did not have is named alike: `ESP_AES128_GCM16`.
    #[must_use]
    pub fn hpux(&self) -> String {
        match self.integrity {
            Some(integrity) => format!("ESP_{}_{}", self.encryption.hpux, integrity.hpux),
            None => format!("ESP_{}", self.encryption.hpux),
        }
    }

    /// Octets of key material for one direction.
    #[must_use]
    pub fn keymat_len(&self) -> usize {
        self.encryption.keymat_len() + self.integrity.map_or(0, |i| i.key_len)
    }

    /// Whether it may be used with keys that live longer than the SA's state, as manual ones do. Modes
    /// that count must not: under one key they must never see a nonce again (RFC 8221 3, RFC 4106 2, RFC 3686 2.1).
    #[must_use]
    pub fn allows_manual_keys(&self) -> bool {
        // They alone have part of their nonce from the key material.
        self.encryption.salt_len == 0
    }

    /// Octets of ICV at the end of each packet.
    #[must_use]
    pub fn icv_len(&self) -> usize {
        self.integrity.map_or(self.encryption.icv_len, |i| i.icv_len)
    }

    /// What the encrypted part is a multiple of, in octets: at least 4 (RFC 4303 2.4).
    #[must_use]
    pub fn alignment(&self) -> usize {
        self.encryption.block_len.max(4)
    }

    /// Octets of the shortest packet that can be valid: header, IV, one aligned block, ICV.
    #[must_use]
    pub fn min_packet_len(&self) -> usize {
        8 + self.encryption.iv_len + self.alignment() + self.icv_len()
    }
}

/// `aes128-sha1`, `aes256gcm16`.
impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.integrity {
            Some(i) => write!(f, "{}-{i}", self.encryption),
            None => write!(f, "{}", self.encryption),
        }
    }
}

/// What protects an ISAKMP SA (RFC 2409 4): the four attributes that must agree,
/// but for the authentication method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// Cipher of the messages.
    pub encryption: &'static Encryption,
    /// Hash, and PRF as HMAC of it.
    pub hash: &'static Hash,
    /// Diffie-Hellman group.
    pub group: &'static Group,
}

impl IkeSuite {
    /// As bad as the worst part.
    #[must_use]
    pub fn status(&self) -> Status {
        worst(self.parts())
    }

    /// The parts that the daemon warns of.
    #[must_use]
    pub fn legacy_parts(&self) -> Vec<LegacyPart> {
        legacy(self.parts())
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        [part!(self.encryption), part!(self.hash), part!(self.group)].into_iter()
    }
}

/// `aes128-sha1-modp2048`.
impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.encryption, self.hash, self.group)
    }
}
