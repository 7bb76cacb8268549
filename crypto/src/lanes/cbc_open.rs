//! AES-CBC decryption (RFC 3602): inside a packet the blocks do not wait for each other, so 32 go at once.
#![allow(unsafe_code, reason = "vector instructions, which the processor was asked for")]

use super::Wide;
use super::schedule::RoundKeys;
use core::arch::x86_64::*;

/// Blocks in one register.
const QUARTERS: usize = 4;
/// Registers of blocks worked on at once, beside up to 15 of round keys.
const ABREAST: usize = 8;

/// Decryption under one key, of 11, 13 or 15 round keys.
pub(crate) struct CbcOpener<const KEYS: usize> {
    keys: RoundKeys<KEYS>,
    wide: Wide,
}

impl<const KEYS: usize> CbcOpener<KEYS> {
    /// `None` if the key has not `4 (KEYS - 7)` octets.
    pub(crate) fn new(wide: Wide, key: &[u8]) -> Option<Self> {
        Some(Self { keys: RoundKeys::expand(wide, key)?.inverse(wide), wide })
    }

    /// Decrypts in place.
    pub(crate) fn decrypt(&self, iv: &[u8; 16], blocks: &mut [[u8; 16]]) {
        let Wide(()) = self.wide;
        // SAFETY: `Wide` proves the instructions.
        unsafe { decrypt(&self.keys.0, iv, blocks) }
    }
}

#[target_feature(enable = "avx512f,vaes")]
fn decrypt<const KEYS: usize>(keys: &[[u8; 16]; KEYS], iv: &[u8; 16], blocks: &mut [[u8; 16]]) {
    let keys: [__m512i; KEYS] = core::array::from_fn(|round| broadcast(&keys[round]));
    // What is before the next block is in the last quarter.
    let mut before = broadcast(iv);
    for chunk in blocks.chunks_mut(QUARTERS * ABREAST) {
        before = match chunk.len().div_ceil(QUARTERS) {
            1 => step::<KEYS, 1>(&keys, before, chunk),
            2 => step::<KEYS, 2>(&keys, before, chunk),
            3 => step::<KEYS, 3>(&keys, before, chunk),
            4 => step::<KEYS, 4>(&keys, before, chunk),
            5 => step::<KEYS, 5>(&keys, before, chunk),
            6 => step::<KEYS, 6>(&keys, before, chunk),
            7 => step::<KEYS, 7>(&keys, before, chunk),
            _ => step::<KEYS, ABREAST>(&keys, before, chunk),
        };
    }
}

/// Decrypts a chunk that fills `N` registers, the last of them perhaps not wholly. Returns the last register of
/// ciphertext.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn step<const KEYS: usize, const N: usize>(keys: &[__m512i; KEYS], before: __m512i, chunk: &mut [[u8; 16]]) -> __m512i {
    let cipher: [__m512i; N] = core::array::from_fn(|at| load(chunk, at));
    let mut state = cipher.map(|blocks| _mm512_xor_si512(blocks, keys[0]));
    for key in &keys[1..KEYS - 1] {
        for blocks in &mut state {
            *blocks = _mm512_aesdec_epi128(*blocks, *key);
        }
    }
    for (at, blocks) in state.into_iter().enumerate() {
        let last = _mm512_aesdeclast_epi128(blocks, keys[KEYS - 1]);
        let previous = if at == 0 { before } else { cipher[at - 1] };
        // The last quarter of what is before, then the first three of this.
        let chain = _mm512_alignr_epi64::<6>(cipher[at], previous);
        store(chunk, at, _mm512_xor_si512(last, chain));
    }
    cipher[N - 1]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(block: &[u8; 16]) -> __m512i {
    // SAFETY: the reference is to 16 octets; the load needs no alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
}

/// Which 64-bit halves of blocks the `at`th register of a chunk has.
fn mask(chunk: &[[u8; 16]], at: usize) -> __mmask8 {
    let there = (chunk.len() - at * QUARTERS).min(QUARTERS);
    (0xff_u16 >> (8 - 2 * there)) as __mmask8
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(chunk: &[[u8; 16]], at: usize) -> __m512i {
    let (mask, blocks) = (mask(chunk, at), &chunk[at * QUARTERS..]);
    // SAFETY: the mask has the blocks that are there, and what is not in it is not read.
    unsafe { _mm512_maskz_loadu_epi64(mask, blocks.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(chunk: &mut [[u8; 16]], at: usize, value: __m512i) {
    let (mask, blocks) = (mask(chunk, at), &mut chunk[at * QUARTERS..]);
    // SAFETY: the mask has the blocks that are there, and what is not in it is not written.
    unsafe { _mm512_mask_storeu_epi64(blocks.as_mut_ptr().cast(), mask, value) }
}
