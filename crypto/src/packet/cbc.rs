//! CBC: AES (RFC 3602) and 3DES (RFC 2451).
//!
//! Inside a packet CBC encryption is serial, each block waiting for the one
//! before it, and a processor that could work on many blocks at once idles. So
//! the packets of a batch are encrypted side by side, one block of each in turn.

use super::{Decryptor, Encryptor, EspCipher, Layout, SealJob};
use crate::table::{Error, Made};
use aes::cipher::array::ArraySize;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt};
use aes::cipher::{BlockModeDecrypt, BlockSizeUser, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc};
use des::TdesEde3;

pub(crate) const AES128_CBC: EspCipher = EspCipher::Separate {
    encryptor: |key, iv_key| aes_encryptor::<Aes128Enc, 11>("aes128", key, iv_key),
    decryptor: |key| aes_decryptor::<Aes128Dec, 11>("aes128", key),
};
pub(crate) const AES192_CBC: EspCipher = EspCipher::Separate {
    encryptor: |key, iv_key| aes_encryptor::<Aes192Enc, 13>("aes192", key, iv_key),
    decryptor: |key| aes_decryptor::<Aes192Dec, 13>("aes192", key),
};
pub(crate) const AES256_CBC: EspCipher = EspCipher::Separate {
    encryptor: |key, iv_key| aes_encryptor::<Aes256Enc, 15>("aes256", key, iv_key),
    decryptor: |key| aes_decryptor::<Aes256Dec, 15>("aes256", key),
};
pub(crate) const TRIPLE_DES_CBC: EspCipher = EspCipher::Separate {
    encryptor: |key, iv_key| Ok(Box::new(CbcEncryptor::new(keyed_triple_des(key)?, iv_key))),
    decryptor: |key| Ok(Box::new(CbcDecryptor(keyed_triple_des(key)?))),
};

/// By the batch where the processor can; `KEYS` is the number of round keys.
fn aes_encryptor<C, const KEYS: usize>(algorithm: &'static str, key: &[u8], iv_key: &[u8; 16]) -> Made<dyn Encryptor>
where
    C: KeyInit + BlockCipherEncrypt + Send + Sync + 'static,
{
    let portable = CbcEncryptor::new(keyed::<C>(algorithm, key)?, iv_key);
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = super::cbc_wide::encryptor::<KEYS>(key, iv_key) {
        return Ok(wide);
    }
    Ok(Box::new(portable))
}

/// By wide registers where the processor has them; `KEYS` is the number of round keys.
fn aes_decryptor<C, const KEYS: usize>(algorithm: &'static str, key: &[u8]) -> Made<dyn Decryptor>
where
    C: KeyInit + BlockCipherDecrypt + Send + Sync + 'static,
{
    let portable = CbcDecryptor(keyed::<C>(algorithm, key)?);
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = super::cbc_wide::decryptor::<KEYS>(key) {
        return Ok(wide);
    }
    Ok(Box::new(portable))
}

/// The block cipher `C` under `key`.
pub(crate) fn keyed<C: KeyInit>(algorithm: &'static str, key: &[u8]) -> Result<C, Error> {
    C::new_from_slice(key).map_err(|_| Error::KeyLength { algorithm, expected: C::key_size(), given: key.len() })
}

/// 3DES under `key`, unless that is in truth DES or has a weak DES key in it
/// (RFC 2451 2.3).
pub(crate) fn keyed_triple_des(key: &[u8]) -> Result<TdesEde3, Error> {
    let cipher = keyed("3des", key)?;
    // The lowest bit of each octet is parity, which DES does not look at.
    let mut with_parity = zeroize::Zeroizing::new([0; 24]);
    for (with, octet) in with_parity.iter_mut().zip(key) {
        *with = octet & 0xfe | u8::from((octet >> 1).count_ones() % 2 == 0);
    }
    des::weak_key_test(&*with_parity).map_err(|_| Error::WeakKey {
        algorithm: "3des",
        reason: "two of its three DES keys are equal, or one is a weak DES key",
    })?;
    Ok(cipher)
}

/// Makes IVs that nobody else can predict and that need no randomness per
/// packet: the sequence number, encrypted under a key of their own
/// (NIST SP 800-38A appendix C).
struct IvSource(Aes128Enc);

impl IvSource {
    fn write(&self, sequence: u64, iv: &mut [u8]) {
        let mut block = Array::from([0; 16]);
        block[8..].copy_from_slice(&sequence.to_be_bytes());
        self.0.encrypt_block(&mut block);
        iv.copy_from_slice(&block[..iv.len()]);
    }
}

pub(super) struct CbcEncryptor<C> {
    cipher: C,
    ivs: IvSource,
}

impl<C> CbcEncryptor<C> {
    pub(super) fn new(cipher: C, iv_key: &[u8; 16]) -> Self {
        Self { cipher, ivs: IvSource(Aes128Enc::new(iv_key.into())) }
    }
}

impl<C: BlockCipherEncrypt + Send + Sync> Encryptor for CbcEncryptor<C> {
    fn encrypt(&self, jobs: &mut [SealJob<'_>], layout: Layout) {
        for job in &mut *jobs {
            let (_, iv, _, _) = layout.split(job.packet);
            self.ivs.write(job.sequence, iv);
        }
        self.cipher.encrypt_with_backend(SideBySide { jobs, layout, block_size: core::marker::PhantomData });
    }
}

pub(super) struct CbcDecryptor<C>(pub(super) C);

impl<C: BlockCipherDecrypt + Send + Sync> Decryptor for CbcDecryptor<C> {
    fn decrypt(&self, iv: &[u8], payload: &mut [u8]) {
        let mut cbc = cbc::Decryptor::inner_iv_slice_init(&self.0, iv).expect("the layout has an IV of one block");
        let (blocks, _) = Array::slice_as_chunks_mut(payload);
        cbc.decrypt_blocks(blocks);
    }
}

/// How many packets are encrypted side by side here: enough to keep an AES unit
/// with two instructions per clock and four clocks of latency busy.
const ABREAST: usize = 8;

/// One packet in the middle of its encryption.
struct Track<'p, N: ArraySize> {
    /// The last ciphertext block, or the IV.
    chain: Array<u8, N>,
    /// The blocks still to be encrypted.
    rest: &'p mut [Array<u8, N>],
}

/// The encryption of a batch whose IVs are written, as something that a block
/// cipher's backend can run: so the loop is compiled for the instructions that
/// the backend found on this processor.
struct SideBySide<'j, 'p, N> {
    jobs: &'j mut [SealJob<'p>],
    layout: Layout,
    block_size: core::marker::PhantomData<N>,
}

impl<N: ArraySize> BlockSizeUser for SideBySide<'_, '_, N> {
    type BlockSize = N;
}

impl<N: ArraySize> BlockCipherEncClosure for SideBySide<'_, '_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = N>>(self, backend: &B) {
        let layout = self.layout;
        let mut waiting = self.jobs.iter_mut().map(|job| {
            let (_, iv, payload, _) = layout.split(job.packet);
            let mut chain = Array::<u8, N>::default();
            chain.copy_from_slice(iv);
            Track { chain, rest: Array::slice_as_chunks_mut(payload).0 }
        });
        let mut lanes: [Track<'_, N>; ABREAST] =
            core::array::from_fn(|_| Track { chain: Array::default(), rest: &mut [] });
        loop {
            let mut busy = 0;
            for at in 0..ABREAST {
                if lanes[at].rest.is_empty() {
                    let Some(next) = waiting.next() else { continue };
                    lanes[at] = next;
                }
                lanes.swap(busy, at);
                busy += 1;
            }
            let lanes = &mut lanes[..busy];
            let Some(steps) = lanes.iter().map(|lane| lane.rest.len()).min() else { break };
            match <&mut [Track<'_, N>; ABREAST]>::try_from(&mut *lanes) {
                Ok(all) => advance(backend, all, steps),
                Err(_) => advance(backend, lanes, steps),
            }
        }
    }
}

/// Encrypts the next `steps` blocks of every lane, which has that many.
#[inline(always)]
fn advance<N: ArraySize, B: BlockCipherEncBackend<BlockSize = N>>(
    backend: &B,
    lanes: &mut [Track<'_, N>],
    steps: usize,
) {
    if let [lane] = lanes {
        // Alone, a chain that lives in a register nearly doubles the speed.
        let mut chain = lane.chain.clone();
        for block in &mut lane.rest[..steps] {
            chain = encrypt_next(backend, chain, block);
        }
        lane.chain = chain;
    } else {
        for step in 0..steps {
            for lane in &mut *lanes {
                lane.chain = encrypt_next(backend, lane.chain.clone(), &mut lane.rest[step]);
            }
        }
    }
    for lane in lanes {
        lane.rest = &mut core::mem::take(&mut lane.rest)[steps..];
    }
}

/// Encrypts `block` after the ciphertext block `chain`; returns the next of those.
///
/// It works on values: references might overlap, and would cost stores between
/// the rounds.
#[inline(always)]
fn encrypt_next<N: ArraySize, B: BlockCipherEncBackend<BlockSize = N>>(
    backend: &B,
    chain: Array<u8, N>,
    block: &mut Array<u8, N>,
) -> Array<u8, N> {
    let mut work = block.clone();
    for (octet, chain) in work.iter_mut().zip(chain) {
        *octet ^= chain;
    }
    backend.encrypt_block_inplace(&mut work);
    *block = work.clone();
    work
}
