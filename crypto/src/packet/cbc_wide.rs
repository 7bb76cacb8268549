//! AES-CBC by the batch, in wide registers.

use super::{Decryptor, Encryptor, Layout, SealJob};
use crate::lanes::cbc::{CbcLanes, Lane};
use crate::lanes::cbc_open::CbcOpener;
use crate::lanes::{LANES, Wide};

/// Under a key with `KEYS` round keys, if the processor can.
pub(super) fn encryptor<const KEYS: usize>(key: &[u8], iv_key: &[u8; 16]) -> Option<Box<dyn Encryptor>> {
    let wide = Wide::found()?;
    let (cipher, ivs) = (CbcLanes::<KEYS>::new(wide, key)?, CbcLanes::new(wide, iv_key)?);
    Some(Box::new(WideEncryptor { cipher, ivs }))
}

/// As [`encryptor`].
pub(super) fn decryptor<const KEYS: usize>(key: &[u8]) -> Option<Box<dyn Decryptor>> {
    Some(Box::new(WideDecryptor(CbcOpener::<KEYS>::new(Wide::found()?, key)?)))
}

struct WideEncryptor<const KEYS: usize> {
    cipher: CbcLanes<KEYS>,
    /// What makes IVs of sequence numbers, as `cbc.rs` does.
    ivs: CbcLanes<11>,
}

impl<const KEYS: usize> Encryptor for WideEncryptor<KEYS> {
    fn encrypt(&self, jobs: &mut [SealJob<'_>], layout: Layout) {
        for jobs in jobs.chunks_mut(LANES) {
            let count = jobs.len();
            let mut ivs = [[0; 16]; LANES];
            let mut lanes: [Lane<'_>; LANES] = Default::default();
            for ((iv, lane), job) in ivs.iter_mut().zip(&mut lanes).zip(&*jobs) {
                iv[8..].copy_from_slice(&job.sequence.to_be_bytes());
                lane.rest = core::slice::from_mut(iv);
            }
            self.ivs.encrypt(&mut lanes[..count]);
            let mut lanes: [Lane<'_>; LANES] = Default::default();
            for ((made, lane), job) in ivs.iter().zip(&mut lanes).zip(jobs) {
                let (_, iv, payload, _) = layout.split(job.packet);
                iv.copy_from_slice(made);
                *lane = Lane { chain: *made, rest: payload.as_chunks_mut().0 };
            }
            self.cipher.encrypt(&mut lanes[..count]);
        }
    }
}

struct WideDecryptor<const KEYS: usize>(CbcOpener<KEYS>);

impl<const KEYS: usize> Decryptor for WideDecryptor<KEYS> {
    fn decrypt(&self, iv: &[u8], payload: &mut [u8]) {
        let iv = iv.try_into().expect("the layout has an IV of one block");
        self.0.decrypt(iv, payload.as_chunks_mut().0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::cbc::{CbcDecryptor, CbcEncryptor, keyed};
    use super::*;
    use crate::Entropy;
    use crate::entropy::testing::SeededEntropy;
    use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
    use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc};

    const LAYOUT: Layout = Layout { iv_len: 16, alignment: 16, icv_len: 12 };
    const IV_KEY: [u8; 16] = [9; 16];

    /// Packets of all mixtures of lengths, as the lanes and as the portable code make them.
    fn agree<E, D, const KEYS: usize>(key_len: usize)
    where
        E: KeyInit + BlockCipherEncrypt + Send + Sync,
        D: KeyInit + BlockCipherDecrypt + Send + Sync,
    {
        let mut random = SeededEntropy::new(key_len as u64);
        let mut octets = |len| {
            let mut octets = vec![0; len];
            random.fill(&mut octets);
            octets
        };
        let key = octets(key_len);
        let (Some(wide_encryptor), Some(wide_decryptor)) = (encryptor::<KEYS>(&key, &IV_KEY), decryptor::<KEYS>(&key))
        else {
            assert!(Wide::found().is_none());
            eprintln!("no AVX-512 and VAES here: lanes are not tested");
            return;
        };
        let portable = CbcEncryptor::new(keyed::<E>("aes", &key).unwrap(), &IV_KEY);
        assert!(encryptor::<KEYS>(&key[1..], &IV_KEY).is_none() && decryptor::<KEYS>(&key[1..]).is_none());
        for count in 1..=2 * LANES + 1 {
            // Longer than the scratch memory of idle lanes too.
            for longest in [1, 2, 9, 300] {
                let clear: Vec<_> = octets(count)
                    .iter()
                    .map(|&n| octets(8 + 16 + 16 * (1 + usize::from(n) * longest / 256) + 12))
                    .collect();
                let sealed = |encryptor: &dyn Encryptor| {
                    let mut packets = clear.clone();
                    let mut jobs: Vec<_> =
                        packets.iter_mut().zip(7..).map(|(packet, sequence)| SealJob { packet, sequence }).collect();
                    encryptor.encrypt(&mut jobs, LAYOUT);
                    packets
                };
                assert_eq!(sealed(&*wide_encryptor), sealed(&portable), "{count} packets");
            }
        }
        let portable = CbcDecryptor(keyed::<D>("aes", &key).unwrap());
        for blocks in (0..130).chain([561]) {
            let (iv, cipher) = (octets(16), octets(16 * blocks));
            let (mut one, mut other) = (cipher.clone(), cipher);
            wide_decryptor.decrypt(&iv, &mut one);
            portable.decrypt(&iv, &mut other);
            assert_eq!(one, other, "{blocks} blocks");
        }
    }

    #[test]
    fn wide_registers_do_what_the_portable_code_does() {
        agree::<Aes128Enc, Aes128Dec, 11>(16);
        agree::<Aes192Enc, Aes192Dec, 13>(24);
        agree::<Aes256Enc, Aes256Dec, 15>(32);
    }
}
