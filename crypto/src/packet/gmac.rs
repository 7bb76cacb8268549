//! AES-GMAC: the ICV of GCM without encryption, of ESP and of AH (RFC 4543).

use super::gcm::SaltedKey;
use super::{EspCipher, HEADER_LEN, Layout, OpenJob, Opener, SealJob, Sealer, high_half};
use crate::table::{Error, Mac};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm};

pub(crate) const AES128_GMAC: EspCipher = EspCipher::Combined {
    sealer: |keymat, layout, esn| Ok(Box::new(Gmac::new("aes128gmac", &AES_128_GCM, keymat, layout, esn)?)),
    opener: |keymat, layout, esn| Ok(Box::new(Gmac::new("aes128gmac", &AES_128_GCM, keymat, layout, esn)?)),
};
pub(crate) const AES192_GMAC: EspCipher = EspCipher::Combined {
    sealer: |keymat, layout, esn| Ok(Box::new(Gmac::new("aes192gmac", &AES_192_GCM, keymat, layout, esn)?)),
    opener: |keymat, layout, esn| Ok(Box::new(Gmac::new("aes192gmac", &AES_192_GCM, keymat, layout, esn)?)),
};
pub(crate) const AES256_GMAC: EspCipher = EspCipher::Combined {
    sealer: |keymat, layout, esn| Ok(Box::new(Gmac::new("aes256gmac", &AES_256_GCM, keymat, layout, esn)?)),
    opener: |keymat, layout, esn| Ok(Box::new(Gmac::new("aes256gmac", &AES_256_GCM, keymat, layout, esn)?)),
};

struct Gmac {
    salted: SaltedKey,
    layout: Layout,
    esn: bool,
}

impl Gmac {
    fn new(
        algorithm: &'static str,
        aead: &'static Algorithm,
        keymat: &[u8],
        layout: Layout,
        esn: bool,
    ) -> Result<Self, Error> {
        Ok(Self { salted: SaltedKey::new(algorithm, aead, keymat)?, layout, esn })
    }

    /// All that comes before the ICV, with the high half of the sequence number
    /// before its low half if it is extended (RFC 4543 3.3). `extended` is room for that.
    fn covered<'p>(&self, packet: &'p [u8], sequence: u64, extended: &'p mut Vec<u8>) -> &'p [u8] {
        if !self.esn {
            return packet;
        }
        let (spi, rest) = packet.split_at(HEADER_LEN / 2);
        extended.clear();
        extended.extend_from_slice(spi);
        extended.extend_from_slice(&high_half(sequence));
        extended.extend_from_slice(rest);
        extended
    }
}

impl Sealer for Gmac {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        self.layout.demand(jobs);
        let mut extended = Vec::new();
        for job in jobs {
            let (_, iv, _, _) = self.layout.split(job.packet);
            // The 64-bit sequence number never repeats under one key (RFC 4543 3.2).
            iv.copy_from_slice(&job.sequence.to_be_bytes());
            let nonce = self.salted.nonce(iv);
            let (packet, icv) = job.packet.split_at_mut(job.packet.len() - self.layout.icv_len);
            let aad = Aad::from(self.covered(packet, job.sequence, &mut extended));
            let tag = self
                .salted
                .key
                .seal_in_place_separate_tag(nonce, aad, &mut [])
                .expect("GCM authenticates everything below 64 GiB");
            icv.copy_from_slice(tag.as_ref());
        }
    }
}

impl Opener for Gmac {
    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        let mut extended = Vec::new();
        for job in jobs {
            job.authentic = self.layout.fits(job.packet, job.sequence) && {
                let (_, iv, _, _) = self.layout.split(job.packet);
                let nonce = self.salted.nonce(iv);
                let (packet, icv) = job.packet.split_at(job.packet.len() - self.layout.icv_len);
                let aad = Aad::from(self.covered(packet, job.sequence, &mut extended));
                self.salted.key.open_in_place_separate_tag(nonce, aad, icv, &mut []).is_ok()
            };
        }
    }
}

/// The MAC of AH. Its ICV is the IV, then the tag (RFC 4543 4).
pub(crate) fn for_ah(algorithm: &'static str, aead: &'static Algorithm, key: &[u8]) -> Result<Box<dyn Mac>, Error> {
    Ok(Box::new(AhGmac(SaltedKey::new(algorithm, aead, key)?)))
}

struct AhGmac(SaltedKey);

/// Octets of IV, and then of tag.
const IV_LEN: usize = 8;
const TAG_LEN: usize = 16;

impl Mac for AhGmac {
    fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        let (iv, tag) = icv.split_at_mut(IV_LEN);
        let (nonce, covered) = (self.0.nonce(iv), parts.concat());
        let made = self
            .0
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(covered), &mut [])
            .expect("GCM authenticates everything below 64 GiB");
        tag.copy_from_slice(made.as_ref());
    }

    fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        let Some((iv, tag)) = icv.split_at_checked(IV_LEN).filter(|(_, tag)| tag.len() == TAG_LEN) else {
            return false;
        };
        let (nonce, covered) = (self.0.nonce(iv), parts.concat());
        self.0.key.open_in_place_separate_tag(nonce, Aad::from(covered), tag, &mut []).is_ok()
    }
}
