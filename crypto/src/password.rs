//! Passwords as they are kept: PBKDF2 with HMAC-SHA-256 (RFC 8018 5.2), slow on purpose.

use crate::Secret;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use core::num::NonZeroU32;

/// Octets of what [`derive`] gives.
pub const DERIVED_LEN: usize = 32;

/// What is kept of a password.
#[must_use]
pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Secret {
    let mut derived = vec![0; DERIVED_LEN];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, salt, password, &mut derived);
    Secret::new(derived)
}

/// Whether `derived` was made of this password; compared in constant time.
#[must_use]
pub fn verify(password: &[u8], salt: &[u8], iterations: NonZeroU32, derived: &Secret) -> bool {
    derive(password, salt, iterations) == *derived
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7914 11, the first 32 octets of each.
    #[test]
    fn known_answers() {
        let known: [(&str, &str, u32, [u8; 32]); 2] = [
            (
                "passwd",
                "salt",
                1,
                [
                    0x55, 0xac, 0x04, 0x6e, 0x56, 0xe3, 0x08, 0x9f, 0xec, 0x16, 0x91, 0xc2, 0x25, 0x44, 0xb6, 0x05,
                    0xf9, 0x41, 0x85, 0x21, 0x6d, 0xde, 0x04, 0x65, 0xe6, 0x8b, 0x9d, 0x57, 0xc2, 0x0d, 0xac, 0xbc,
                ],
            ),
            (
                "Password",
                "NaCl",
                80_000,
                [
                    0x4d, 0xdc, 0xd8, 0xf6, 0x0b, 0x98, 0xbe, 0x21, 0x83, 0x0c, 0xee, 0x5e, 0xf2, 0x27, 0x01, 0xf9,
                    0x64, 0x1a, 0x44, 0x18, 0xd0, 0x4c, 0x04, 0x14, 0xae, 0xff, 0x08, 0x87, 0x6b, 0x34, 0xab, 0x56,
                ],
            ),
        ];
        for (password, salt, iterations, expected) in known {
            let iterations = NonZeroU32::new(iterations).unwrap();
            let derived = derive(password.as_bytes(), salt.as_bytes(), iterations);
            assert_eq!(derived.expose(), expected);
            assert!(verify(password.as_bytes(), salt.as_bytes(), iterations, &derived));
            assert!(!verify(b"passwe", salt.as_bytes(), iterations, &derived));
        }
    }
}
