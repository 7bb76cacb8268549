//! Transforms of policies: a suite with its lifetime.

use crate::sa::Lifetime;
use crypto::EspSuite;
use crypto::table::Group;

/// One ESP transform that a tunnel policy offers or accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspTransform {
    /// Ciphers.
    pub suite: EspSuite,
    /// Group of perfect forward secrecy if the transform names one (`aes128-sha1-modp2048`).
    pub pfs: Option<&'static Group>,
    /// Offered lifetime; 28800 seconds and no volume limit unless named.
    pub lifetime: Lifetime,
}
