//! AES-GMAC: the ICV of GCM without encryption (RFC 4543).

use super::{EspCipher, HEADER_LEN, Layout, OpenJob, Opener, SealJob, Sealer, high_half};
use crate::table::Error;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};

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

const SALT_LEN: usize = 4;

struct Gmac {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
    layout: Layout,
    esn: bool,
}

impl Gmac {
    /// `keymat`: key, then salt (RFC 4543 5.4).
    fn new(
        algorithm: &'static str,
        aead: &'static Algorithm,
        keymat: &[u8],
        layout: Layout,
        esn: bool,
    ) -> Result<Self, Error> {
        let wrong_length = || Error::KeyLength { algorithm, expected: aead.key_len() + SALT_LEN, given: keymat.len() };
        let (key, salt) = keymat.split_last_chunk().ok_or_else(wrong_length)?;
        let key = LessSafeKey::new(UnboundKey::new(aead, key).map_err(|_| wrong_length())?);
        Ok(Self { key, salt: *salt, layout, esn })
    }

    /// Salt, then the packet's IV (RFC 4543 3.2).
    fn nonce(&self, iv: &[u8]) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(iv);
        Nonce::assume_unique_for_key(nonce)
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
            let nonce = self.nonce(iv);
            let (packet, icv) = job.packet.split_at_mut(job.packet.len() - self.layout.icv_len);
            let aad = Aad::from(self.covered(packet, job.sequence, &mut extended));
            let tag = self
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
                let nonce = self.nonce(iv);
                let (packet, icv) = job.packet.split_at(job.packet.len() - self.layout.icv_len);
                let aad = Aad::from(self.covered(packet, job.sequence, &mut extended));
                self.key.open_in_place_separate_tag(nonce, aad, icv, &mut []).is_ok()
            };
        }
    }
}
