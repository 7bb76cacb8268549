//! Whole ESP packets through a cipher suite, in batches.
//!
//! The batch is the unit, so that an implementation may work on several packets
//! at once; a batch of one is always right.

use crate::table::Error;
use crate::{EspSuite, Secret};

/// One packet to be protected, laid out as on the wire (RFC 4303 2):
/// `SPI | sequence number | IV | payload, padding, pad length, next header | ICV`.
///
/// SPI, sequence number and everything between IV and ICV are filled in by the
/// caller; IV and ICV are written by [`Sealer::seal`]. The part between IV and
/// ICV is a multiple of the suite's alignment.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// The packet, from its SPI to the end of its ICV.
    pub packet: &'a mut [u8],
    /// The full 64-bit sequence number; the low half is in the packet.
    pub sequence: u64,
}

/// One packet to be authenticated and decrypted in place, laid out as in [`SealJob`].
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// The packet, from its SPI to the end of its ICV, at least [`EspSuite::min_packet_len`] octets.
    pub packet: &'a mut [u8],
    /// The full 64-bit sequence number, its high half inferred by the caller when ESN is in use.
    pub sequence: u64,
    /// Set by [`Opener::open`]: the ICV was right and the packet is decrypted.
    /// When false the packet's content is unspecified and must not be used.
    pub authentic: bool,
}

/// Protects outbound packets of one SA.
pub trait Sealer: Send + Sync {
    /// Encrypts and authenticates every job.
    ///
    /// # Panics
    /// If a packet is not laid out as [`SealJob`] says: an error of the caller,
    /// whose lengths never come from the peer.
    fn seal(&self, jobs: &mut [SealJob<'_>]);
}

/// Authenticates and decrypts inbound packets of one SA.
pub trait Opener: Send + Sync {
    /// Checks and decrypts every job; sets `authentic` in each. A packet of an
    /// impossible length is merely not authentic.
    fn open(&self, jobs: &mut [OpenJob<'_>]);
}

/// Makes the sealer of a suite.
///
/// `keymat`: encryption key, salt, integrity key, in that order (RFC 2409 5.5,
/// RFC 4106 8.1), [`EspSuite::keymat_len`] octets. `iv_key`: 16 random octets
/// from which CBC IVs are derived, one per sequence number, unpredictable to
/// anyone else (RFC 3602 2.1). `esn`: the high half of the sequence number is
/// authenticated too (RFC 4303 2.2.1).
pub fn sealer(suite: EspSuite, keymat: &Secret, iv_key: &[u8; 16], esn: bool) -> Result<Box<dyn Sealer>, Error> {
    let _ = (suite, keymat, iv_key, esn);
    unimplemented!()
}

/// Makes the opener of a suite; arguments as for [`sealer`].
pub fn opener(suite: EspSuite, keymat: &Secret, esn: bool) -> Result<Box<dyn Opener>, Error> {
    let _ = (suite, keymat, esn);
    unimplemented!()
}
