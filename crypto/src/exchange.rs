//! Diffie-Hellman, one file per family of groups.

pub(crate) mod ecp;
pub(crate) mod modp;
pub(crate) mod x25519;

/// How often a private value is drawn before the entropy source counts as
/// broken. Even P-256, of which one value in 2^32 is refused, never gets there.
const ATTEMPTS: usize = 16;
