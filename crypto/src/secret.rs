//! Octets that are wiped when dropped and never printed.

use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret octet string: zeroized on drop, opaque to `Debug`, compared in
/// constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `octets`.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Copies `octets`; the caller wipes its own copy.
    pub fn copy_of(octets: &[u8]) -> Self {
        Self::new(octets.to_vec())
    }

    /// The octets themselves. What is derived from them is a secret too.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Number of octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no octets at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.0.len())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

/// Constant-time equality of two octet strings, for MACs and hashes. Strings of
/// different length differ.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
