//! Whole ESP packets through a cipher suite, in batches.
//!
//! The batch is the unit, so that an implementation may work on several packets
//! at once; a batch of one is always right.

pub(crate) mod cbc;
#[cfg(target_arch = "x86_64")]
mod cbc_wide;
pub(crate) mod ccm;
pub(crate) mod ctr;
pub(crate) mod gcm;
pub(crate) mod gmac;
pub(crate) mod null;
mod separate;

use crate::table::{Error, Mac, Made};
use crate::{EspSuite, Secret};
use core::fmt;
use separate::{SeparateOpener, SeparateSealer};

/// One packet to be protected, laid out as on the wire (RFC 4303 2):
/// `SPI | sequence number | IV | payload, padding, pad length, next header | ICV`.
///
/// SPI, sequence number and everything between IV and ICV are filled in by the
/// caller; IV and ICV are written by [`Sealer::seal`]. The part between IV and
/// ICV is a multiple of the suite's alignment.
pub struct SealJob<'a> {
    /// The packet, from its SPI to the end of its ICV.
    pub packet: &'a mut [u8],
    /// The full 64-bit sequence number; the low half is in the packet.
    pub sequence: u64,
}

/// One packet to be authenticated and decrypted in place, laid out as in [`SealJob`].
pub struct OpenJob<'a> {
    /// The packet, from its SPI to the end of its ICV, at least [`EspSuite::min_packet_len`] octets.
    pub packet: &'a mut [u8],
    /// The full 64-bit sequence number, its high half inferred by the caller when ESN is in use.
    pub sequence: u64,
    /// Set by [`Opener::open`]: the ICV was right and the packet is decrypted.
    /// When false the packet's content is unspecified and must not be used.
    pub authentic: bool,
}

/// Shows the packet's length only: on one side of the job it is clear text.
impl fmt::Debug for SealJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealJob({} octets, sequence number {})", self.packet.len(), self.sequence)
    }
}

/// Shows the packet's length only: on one side of the job it is clear text.
impl fmt::Debug for OpenJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authentic = if self.authentic { "authentic" } else { "not authentic" };
        write!(f, "OpenJob({} octets, sequence number {}, {authentic})", self.packet.len(), self.sequence)
    }
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

/// Whether packets of a batch go side by side through AVX-512 registers, in the suites that gain by it.
#[must_use]
pub fn is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::lanes::Wide::found().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Makes the sealer of a suite.
///
/// `keymat`: encryption key, salt, integrity key, in that order (RFC 2409 5.5,
/// RFC 4106 8.1), [`EspSuite::keymat_len`] octets. `iv_key`: 16 random octets
/// from which CBC IVs are derived, one per sequence number, unpredictable to
/// anyone else (RFC 3602 2.1). `esn`: the high half of the sequence number is
/// authenticated too (RFC 4303 2.2.1).
///
/// # Errors
/// [`Error::KeyLength`], [`Error::WeakKey`], and [`Error::Unusable`] for a suite
/// that is forbidden or that does not authenticate exactly once.
pub fn sealer(suite: EspSuite, keymat: &Secret, iv_key: &[u8; 16], esn: bool) -> Result<Box<dyn Sealer>, Error> {
    let Keyed { key, mac } = split_keymat(suite, keymat)?;
    match (&suite.encryption.esp, mac) {
        (EspCipher::Separate { encryptor, .. }, Some(mac)) => {
            let encryptor = encryptor(key, iv_key)?;
            Ok(Box::new(SeparateSealer { encryptor, mac, layout: Layout::of(suite), esn }))
        }
        (EspCipher::Combined { sealer, .. }, None) => sealer(key, Layout::of(suite), esn),
        _ => Err(unusable(suite)),
    }
}

/// Makes the opener of a suite; arguments and errors as for [`sealer`].
pub fn opener(suite: EspSuite, keymat: &Secret, esn: bool) -> Result<Box<dyn Opener>, Error> {
    let Keyed { key, mac } = split_keymat(suite, keymat)?;
    match (&suite.encryption.esp, mac) {
        (EspCipher::Separate { decryptor, .. }, Some(mac)) => {
            let decryptor = decryptor(key)?;
            Ok(Box::new(SeparateOpener { decryptor, mac, layout: Layout::of(suite), esn }))
        }
        (EspCipher::Combined { opener, .. }, None) => opener(key, Layout::of(suite), esn),
        _ => Err(unusable(suite)),
    }
}

/// How an encryption row protects ESP packets. Keys include the salt.
pub(crate) enum EspCipher {
    /// The payload, with an integrity algorithm beside it.
    Separate {
        /// Takes key and IV key.
        encryptor: fn(&[u8], &[u8; 16]) -> Made<dyn Encryptor>,
        /// Takes the key.
        decryptor: fn(&[u8]) -> Made<dyn Decryptor>,
    },
    /// The whole packet, as an AEAD.
    Combined {
        /// Takes key, layout, and whether sequence numbers are extended.
        sealer: fn(&[u8], Layout, bool) -> Made<dyn Sealer>,
        /// Takes the same.
        opener: fn(&[u8], Layout, bool) -> Made<dyn Opener>,
    },
    /// Not at all.
    Unusable,
}

/// The encrypting half of a suite with separate integrity.
pub(crate) trait Encryptor: Send + Sync {
    /// Writes the IVs and encrypts what lies between them and the ICVs.
    fn encrypt(&self, jobs: &mut [SealJob<'_>], layout: Layout);
}

/// The decrypting half of a suite with separate integrity.
pub(crate) trait Decryptor: Send + Sync {
    /// Decrypts `payload`, a multiple of the alignment, in place.
    fn decrypt(&self, iv: &[u8], payload: &mut [u8]);
}

/// Octets of SPI and sequence number.
const HEADER_LEN: usize = 8;

/// Where the parts of a packet of one suite are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    iv_len: usize,
    alignment: usize,
    icv_len: usize,
}

impl Layout {
    fn of(suite: EspSuite) -> Self {
        Self { iv_len: suite.encryption.iv_len, alignment: suite.alignment(), icv_len: suite.icv_len() }
    }

    /// Whether `packet` is laid out like this and has the low half of `sequence`.
    fn fits(self, packet: &[u8], sequence: u64) -> bool {
        let around = HEADER_LEN + self.iv_len + self.icv_len;
        let payload_fits = match packet.len().checked_sub(around) {
            Some(len) => len >= self.alignment && len % self.alignment == 0,
            None => false,
        };
        payload_fits && packet[4..HEADER_LEN] == low_half(sequence)
    }

    /// Header, IV, payload and ICV of a packet that fits.
    fn split(self, packet: &mut [u8]) -> (&mut [u8], &mut [u8], &mut [u8], &mut [u8]) {
        let icv_at = packet.len() - self.icv_len;
        let (rest, icv) = packet.split_at_mut(icv_at);
        let (header, rest) = rest.split_at_mut(HEADER_LEN);
        let (iv, payload) = rest.split_at_mut(self.iv_len);
        (header, iv, payload, icv)
    }

    /// The assertion behind [`Sealer::seal`]'s panic.
    fn demand(self, jobs: &[SealJob<'_>]) {
        for job in jobs {
            assert!(
                self.fits(job.packet, job.sequence),
                "a packet to be sealed is not laid out for its suite: {} octets, {self:?}, sequence number {}",
                job.packet.len(),
                job.sequence,
            );
        }
    }
}

fn low_half(sequence: u64) -> [u8; 4] {
    let [_, _, _, _, low @ ..] = sequence.to_be_bytes();
    low
}

fn high_half(sequence: u64) -> [u8; 4] {
    let [high @ .., _, _, _, _] = sequence.to_be_bytes();
    high
}

/// What an AEAD authenticates beside the payload: SPI and sequence number, all 64
/// bits of it with ESN (RFC 4106 5, RFC 4309 5).
struct PacketAad {
    octets: [u8; 12],
    len: usize,
}

impl PacketAad {
    fn of(header: &[u8], sequence: u64, esn: bool) -> Self {
        let mut octets = [0; 12];
        let (spi, low) = header.split_at(4);
        octets[..4].copy_from_slice(spi);
        if esn {
            octets[4..8].copy_from_slice(&high_half(sequence));
            octets[8..].copy_from_slice(low);
            Self { octets, len: 12 }
        } else {
            octets[4..8].copy_from_slice(low);
            Self { octets, len: 8 }
        }
    }
}

impl AsRef<[u8]> for PacketAad {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// Key material in use.
struct Keyed<'k> {
    /// The cipher's part, salt included.
    key: &'k [u8],
    /// The MAC under the integrity's part.
    mac: Option<Box<dyn Mac>>,
}

fn split_keymat(suite: EspSuite, keymat: &Secret) -> Result<Keyed<'_>, Error> {
    if keymat.len() != suite.keymat_len() {
        return Err(Error::KeyLength {
            algorithm: suite.encryption.keyword,
            expected: suite.keymat_len(),
            given: keymat.len(),
        });
    }
    let (key, integrity_key) = keymat.expose().split_at(suite.encryption.keymat_len());
    let mac = suite.integrity.map(|integrity| integrity.mac(integrity_key)).transpose()?;
    Ok(Keyed { key, mac })
}

fn unusable(suite: EspSuite) -> Error {
    let purpose = match (&suite.encryption.esp, suite.integrity) {
        (EspCipher::Separate { .. }, _) => "ESP without an integrity algorithm",
        (EspCipher::Combined { .. }, _) => "ESP together with an integrity algorithm, being one itself",
        (EspCipher::Unusable, _) => "ESP",
    };
    Error::Unusable { algorithm: suite.encryption.keyword, purpose }
}
