//! Predictable "randomness", so that a simulation can be replayed.

use super::Entropy;
use sha2::{Digest, Sha256};

/// A stream of octets that a seed decides: for simulations and tests **only**.
///
/// Whoever knows the seed knows every key that is made with it. The stream is
/// SHA-256 of a label, the seed and a counter; it does not depend on how the
/// octets are asked for, whether one by one or many at once.
#[derive(Clone, Debug)]
pub struct SeededEntropy {
    seed: u64,
    counter: u64,
    block: [u8; 32],
    /// Octets of `block` already given out.
    used: usize,
}

impl SeededEntropy {
    /// The stream of `seed`, from its beginning.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0, block: [0; 32], used: 32 }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            if self.used == self.block.len() {
                let hash = Sha256::new()
                    .chain_update(b"caponier seeded entropy")
                    .chain_update(self.seed.to_be_bytes())
                    .chain_update(self.counter.to_be_bytes());
                self.block = hash.finalize().into();
                self.counter += 1;
                self.used = 0;
            }
            *octet = self.block[self.used];
            self.used += 1;
        }
    }
}
