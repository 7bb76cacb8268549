//! AES-CCM with ICVs of 8, 12 and 16 octets (RFC 4309).

use super::{EspCipher, Layout, OpenJob, Opener, PacketAad, SealJob, Sealer};
use crate::table::Error;
use aes::cipher::consts::{U8, U11, U12, U16};
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use ccm::aead::array::{Array, ArraySize};
use ccm::{AeadInOut, Ccm, TagSize};

macro_rules! rows {
    ($($row:ident = $cipher:ty, $icv:ty, $keyword:literal;)*) => {$(
        pub(crate) const $row: EspCipher = EspCipher::Combined {
            sealer: |keymat, layout, esn| Ok(Box::new(AesCcm::<$cipher, $icv>::new($keyword, keymat, layout, esn)?)),
            opener: |keymat, layout, esn| Ok(Box::new(AesCcm::<$cipher, $icv>::new($keyword, keymat, layout, esn)?)),
        };
    )*};
}
rows! {
    AES128_CCM8 = Aes128Enc, U8, "aes128ccm8";
    AES128_CCM12 = Aes128Enc, U12, "aes128ccm12";
    AES128_CCM16 = Aes128Enc, U16, "aes128ccm16";
    AES192_CCM8 = Aes192Enc, U8, "aes192ccm8";
    AES192_CCM12 = Aes192Enc, U12, "aes192ccm12";
    AES192_CCM16 = Aes192Enc, U16, "aes192ccm16";
    AES256_CCM8 = Aes256Enc, U8, "aes256ccm8";
    AES256_CCM12 = Aes256Enc, U12, "aes256ccm12";
    AES256_CCM16 = Aes256Enc, U16, "aes256ccm16";
}

const SALT_LEN: usize = 3;

struct AesCcm<C, M>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    M: ArraySize + TagSize,
{
    cipher: Ccm<C, M, U11>,
    salt: [u8; SALT_LEN],
    layout: Layout,
    esn: bool,
}

impl<C, M> AesCcm<C, M>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
    M: ArraySize + TagSize,
{
    /// `keymat`: key, then salt (RFC 4309 7.1).
    fn new(algorithm: &'static str, keymat: &[u8], layout: Layout, esn: bool) -> Result<Self, Error> {
        let wrong_length = || Error::KeyLength { algorithm, expected: C::key_size() + SALT_LEN, given: keymat.len() };
        let (key, salt) = keymat.split_last_chunk().ok_or_else(wrong_length)?;
        let cipher = C::new_from_slice(key).map_err(|_| wrong_length())?.into();
        Ok(Self { cipher, salt: *salt, layout, esn })
    }
}

impl<C, M> AesCcm<C, M>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    M: ArraySize + TagSize,
{
    /// Salt, then the packet's IV (RFC 4309 4).
    fn nonce(&self, iv: &[u8]) -> Array<u8, U11> {
        let mut nonce = Array::default();
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(iv);
        nonce
    }
}

impl<C, M> Sealer for AesCcm<C, M>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
    M: ArraySize + TagSize + Send + Sync,
{
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        self.layout.demand(jobs);
        for job in jobs {
            let (header, iv, payload, icv) = self.layout.split(job.packet);
            // The 64-bit sequence number never repeats under one key (RFC 4309 3.1).
            iv.copy_from_slice(&job.sequence.to_be_bytes());
            let aad = PacketAad::of(header, job.sequence, self.esn);
            let tag = self
                .cipher
                .encrypt_inout_detached(&self.nonce(iv), aad.as_ref(), payload.into())
                .expect("CCM with 4 octets of length seals everything below 4 GiB");
            icv.copy_from_slice(&tag);
        }
    }
}

impl<C, M> Opener for AesCcm<C, M>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
    M: ArraySize + TagSize + Send + Sync,
{
    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.authentic = self.layout.fits(job.packet, job.sequence) && {
                let (header, iv, payload, icv) = self.layout.split(job.packet);
                let aad = PacketAad::of(header, job.sequence, self.esn);
                <&Array<u8, M>>::try_from(&*icv).is_ok_and(|icv| {
                    self.cipher.decrypt_inout_detached(&self.nonce(iv), aad.as_ref(), payload.into(), icv).is_ok()
                })
            };
        }
    }
}
