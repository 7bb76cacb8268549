//! Combinations of rows, as negotiated.

use crate::table::{Encryption, Group, Hash, Integrity};
use core::fmt;

/// What protects the packets of an ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// Cipher or AEAD.
    pub encryption: &'static Encryption,
    /// Integrity; `None` exactly when the encryption is an AEAD.
    pub integrity: Option<&'static Integrity>,
}

impl EspSuite {
    /// Octets of key material for one direction.
    #[must_use]
    pub fn keymat_len(&self) -> usize {
        self.encryption.keymat_len() + self.integrity.map_or(0, |i| i.key_len)
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

/// `aes128-sha1-modp2048`.
impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.encryption, self.hash, self.group)
    }
}
