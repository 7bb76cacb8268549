//! Many packets at once, each in a lane of wide registers.
//!
//! CBC encryption and the hashes are serial inside a packet: each block waits for the one
//! before it. Across packets there is no such order, so that 16 packets pass through AVX-512
//! registers together, where the processor has them; everywhere else, and for packets that are
//! alone, the portable code of `packet/cbc.rs` and `mac.rs` does the same.
//!
//! `unsafe` is confined to this module's files: loads and stores through pointers, and calls of
//! functions that want instructions which were found first ([`Wide`]).

pub(crate) mod cbc;
pub(crate) mod cbc_open;
pub(crate) mod hmac;
mod schedule;
mod sha1;
mod sha256;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests;
mod words;

pub(crate) use sha1::Sha1Lanes;
pub(crate) use sha256::Sha256Lanes;

/// Packets side by side: the 32-bit words of a 512-bit register.
pub(crate) const LANES: usize = 16;

/// The proof that this processor has the instructions of this module, without which none of it can be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wide(());

impl Wide {
    /// Looks once; later calls read what was found.
    pub(crate) fn found() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes");
        there.then_some(Self(()))
    }
}
