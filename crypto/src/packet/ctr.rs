//! AES-CTR (RFC 3686).

use super::{Decryptor, Encryptor, EspCipher, Layout, SealJob};
use crate::table::Error;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipherCore};
use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use ctr::CtrCore;
use ctr::flavors::Ctr32BE;

pub(crate) const AES128_CTR: EspCipher = EspCipher::Separate {
    encryptor: |keymat, _| Ok(Box::new(Ctr::<Aes128Enc>::new("aes128ctr", keymat)?)),
    decryptor: |keymat| Ok(Box::new(Ctr::<Aes128Enc>::new("aes128ctr", keymat)?)),
};
pub(crate) const AES192_CTR: EspCipher = EspCipher::Separate {
    encryptor: |keymat, _| Ok(Box::new(Ctr::<Aes192Enc>::new("aes192ctr", keymat)?)),
    decryptor: |keymat| Ok(Box::new(Ctr::<Aes192Enc>::new("aes192ctr", keymat)?)),
};
pub(crate) const AES256_CTR: EspCipher = EspCipher::Separate {
    encryptor: |keymat, _| Ok(Box::new(Ctr::<Aes256Enc>::new("aes256ctr", keymat)?)),
    decryptor: |keymat| Ok(Box::new(Ctr::<Aes256Enc>::new("aes256ctr", keymat)?)),
};

const NONCE_LEN: usize = 4;

struct Ctr<C> {
    cipher: C,
    nonce: [u8; NONCE_LEN],
}

impl<C: BlockCipherEncrypt<BlockSize = U16> + KeyInit> Ctr<C> {
    /// `keymat`: key, then nonce (RFC 3686 5.1).
    fn new(algorithm: &'static str, keymat: &[u8]) -> Result<Self, Error> {
        let wrong_length = || Error::KeyLength { algorithm, expected: C::key_size() + NONCE_LEN, given: keymat.len() };
        let (key, nonce) = keymat.split_last_chunk().ok_or_else(wrong_length)?;
        let cipher = C::new_from_slice(key).map_err(|_| wrong_length())?;
        Ok(Self { cipher, nonce: *nonce })
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Ctr<C> {
    /// Encrypts or decrypts, which is the same.
    fn apply(&self, iv: &[u8], payload: &mut [u8]) {
        // nonce | IV | block counter from 1 (RFC 3686 4).
        let mut block = [0; 16];
        block[..4].copy_from_slice(&self.nonce);
        block[4..12].copy_from_slice(iv);
        block[15] = 1;
        CtrCore::<_, Ctr32BE>::inner_iv_init(&self.cipher, &block.into())
            .try_apply_keystream_partial(payload.into())
            .expect("a packet has far fewer than 2^32 blocks");
    }
}

impl<C: BlockCipherEncrypt<BlockSize = U16> + Send + Sync> Encryptor for Ctr<C> {
    fn encrypt(&self, jobs: &mut [SealJob<'_>], layout: Layout) {
        for job in jobs {
            // The 64-bit sequence number never repeats under one key (RFC 3686 2.1).
            let (_, iv, payload, _) = layout.split(job.packet);
            iv.copy_from_slice(&job.sequence.to_be_bytes());
            self.apply(iv, payload);
        }
    }
}

impl<C: BlockCipherEncrypt<BlockSize = U16> + Send + Sync> Decryptor for Ctr<C> {
    fn decrypt(&self, iv: &[u8], payload: &mut [u8]) {
        self.apply(iv, payload);
    }
}
