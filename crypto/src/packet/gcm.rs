//! AES-GCM with a 16-octet ICV (RFC 4106).

use super::{EspCipher, Layout, OpenJob, Opener, PacketAad, SealJob, Sealer};
use crate::table::Error;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};

pub(crate) const AES128_GCM16: EspCipher = EspCipher::Combined {
    sealer: |keymat, layout, esn| Ok(Box::new(Gcm::new("aes128gcm16", &AES_128_GCM, keymat, layout, esn)?)),
    opener: |keymat, layout, esn| Ok(Box::new(Gcm::new("aes128gcm16", &AES_128_GCM, keymat, layout, esn)?)),
};
pub(crate) const AES192_GCM16: EspCipher = EspCipher::Combined {
    sealer: |keymat, layout, esn| Ok(Box::new(Gcm::new("aes192gcm16", &AES_192_GCM, keymat, layout, esn)?)),
    opener: |keymat, layout, esn| Ok(Box::new(Gcm::new("aes192gcm16", &AES_192_GCM, keymat, layout, esn)?)),
};
pub(crate) const AES256_GCM16: EspCipher = EspCipher::Combined {
    sealer: |keymat, layout, esn| Ok(Box::new(Gcm::new("aes256gcm16", &AES_256_GCM, keymat, layout, esn)?)),
    opener: |keymat, layout, esn| Ok(Box::new(Gcm::new("aes256gcm16", &AES_256_GCM, keymat, layout, esn)?)),
};

const SALT_LEN: usize = 4;

/// A key of GCM with the salt of its nonces, for ESP (RFC 4106) and for GMAC (RFC 4543).
pub(super) struct SaltedKey {
    pub(super) key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl SaltedKey {
    /// `keymat`: key, then salt (RFC 4106 8.1, RFC 4543 5.4).
    pub(super) fn new(algorithm: &'static str, aead: &'static Algorithm, keymat: &[u8]) -> Result<Self, Error> {
        let wrong_length = || Error::KeyLength { algorithm, expected: aead.key_len() + SALT_LEN, given: keymat.len() };
        let (key, salt) = keymat.split_last_chunk().ok_or_else(wrong_length)?;
        let key = LessSafeKey::new(UnboundKey::new(aead, key).map_err(|_| wrong_length())?);
        Ok(Self { key, salt: *salt })
    }

    /// Salt, then the packet's IV (RFC 4106 4, RFC 4543 3.2).
    pub(super) fn nonce(&self, iv: &[u8]) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

struct Gcm {
    salted: SaltedKey,
    layout: Layout,
    esn: bool,
}

impl Gcm {
    fn new(
        algorithm: &'static str,
        aead: &'static Algorithm,
        keymat: &[u8],
        layout: Layout,
        esn: bool,
    ) -> Result<Self, Error> {
        Ok(Self { salted: SaltedKey::new(algorithm, aead, keymat)?, layout, esn })
    }
}

impl Sealer for Gcm {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        self.layout.demand(jobs);
        for job in jobs {
            let (header, iv, payload, icv) = self.layout.split(job.packet);
            // The 64-bit sequence number never repeats under one key (RFC 4106 3.1).
            iv.copy_from_slice(&job.sequence.to_be_bytes());
            self.salted
                .key
                .seal_in_place_scatter(
                    self.salted.nonce(iv),
                    Aad::from(PacketAad::of(header, job.sequence, self.esn)),
                    payload,
                    &[],
                    icv,
                )
                .expect("GCM seals everything below 64 GiB");
        }
    }
}

impl Opener for Gcm {
    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.authentic = self.layout.fits(job.packet, job.sequence) && {
                let (header, iv, payload, icv) = self.layout.split(job.packet);
                let aad = Aad::from(PacketAad::of(header, job.sequence, self.esn));
                self.salted.key.open_in_place_separate_tag(self.salted.nonce(iv), aad, icv, payload).is_ok()
            };
        }
    }
}
