//! AES-CBC encryption (RFC 3602) in 16 lanes.
#![allow(unsafe_code, reason = "vector instructions, which the processor was asked for")]

use super::schedule::RoundKeys;
use super::{LANES, Wide};
use core::arch::x86_64::*;

/// AES blocks in one register.
const QUARTERS: usize = 4;
/// Blocks of memory that lanes with nothing to encrypt work on.
const SCRATCH: usize = 128;

/// Encryption under one key, of 11, 13 or 15 round keys.
pub(crate) struct CbcLanes<const KEYS: usize> {
    keys: RoundKeys<KEYS>,
    wide: Wide,
}

/// One packet in the middle of its encryption.
#[derive(Default)]
pub(crate) struct Lane<'p> {
    /// The last ciphertext block, or the IV.
    pub(crate) chain: [u8; 16],
    /// The blocks still to be encrypted.
    pub(crate) rest: &'p mut [[u8; 16]],
}

impl<const KEYS: usize> CbcLanes<KEYS> {
    /// `None` if the key has not `4 (KEYS - 7)` octets.
    pub(crate) fn new(wide: Wide, key: &[u8]) -> Option<Self> {
        Some(Self { keys: RoundKeys::expand(wide, key)?, wide })
    }

    /// Encrypts every block of every lane, of which there are up to [`LANES`].
    pub(crate) fn encrypt(&self, lanes: &mut [Lane<'_>]) {
        let Wide(()) = self.wide;
        let mut scratch = [[0; 16]; SCRATCH];
        loop {
            let mut busy = 0;
            for at in 0..lanes.len() {
                if !lanes[at].rest.is_empty() {
                    lanes.swap(busy, at);
                    busy += 1;
                }
            }
            let lanes = &mut lanes[..busy];
            let Some(shortest) = lanes.iter().map(|lane| lane.rest.len()).min() else { return };
            let full = busy % QUARTERS == 0;
            let steps = if full { shortest } else { shortest.min(SCRATCH) };
            let mut chains = [[0; 16]; LANES];
            let mut blocks = [scratch.as_mut_ptr(); LANES];
            for ((lane, chain), block) in lanes.iter_mut().zip(&mut chains).zip(&mut blocks) {
                *chain = lane.chain;
                *block = lane.rest.as_mut_ptr();
            }
            // SAFETY: `Wide` proves the instructions. Lanes have `steps` blocks each and do not overlap,
            // being exclusive borrows; the others have the scratch memory, of as many at least, where they may
            // spoil each other's blocks. Every pointer is written through only during this call.
            unsafe {
                match busy.div_ceil(QUARTERS) {
                    1 => encrypt::<KEYS, 1>(&self.keys.0, &mut chains, &blocks, steps),
                    2 => encrypt::<KEYS, 2>(&self.keys.0, &mut chains, &blocks, steps),
                    3 => encrypt::<KEYS, 3>(&self.keys.0, &mut chains, &blocks, steps),
                    _ => encrypt::<KEYS, 4>(&self.keys.0, &mut chains, &blocks, steps),
                }
            }
            for (lane, chain) in lanes.iter_mut().zip(chains) {
                lane.chain = chain;
                lane.rest = &mut core::mem::take(&mut lane.rest)[steps..];
            }
        }
    }
}

/// Encrypts `steps` blocks of the first `4 GROUPS` lanes.
///
/// # Safety
/// Each of those lanes points at `steps` blocks, readable and writable.
#[target_feature(enable = "avx512f,vaes")]
unsafe fn encrypt<const KEYS: usize, const GROUPS: usize>(
    keys: &[[u8; 16]; KEYS],
    chains: &mut [[u8; 16]; LANES],
    lanes: &[*mut [u8; 16]; LANES],
    steps: usize,
) {
    let keys: [__m512i; KEYS] = core::array::from_fn(|round| {
        // SAFETY: the reference is to 16 octets; the load needs no alignment.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(keys[round].as_ptr().cast()) })
    });
    let chains: *mut [u8; 16] = chains.as_mut_ptr();
    let chains: [*mut [u8; 16]; LANES] = core::array::from_fn(|lane| chains.wrapping_add(lane));
    let mut state: [__m512i; GROUPS] = core::array::from_fn(|group| {
        // SAFETY: the pointers are to the elements of `chains`.
        unsafe { gather(&chains, group, 0) }
    });
    for step in 0..steps {
        for (group, state) in state.iter_mut().enumerate() {
            // SAFETY: by the condition above; `step` is below `steps`.
            let clear = unsafe { gather(lanes, group, step) };
            *state = _mm512_ternarylogic_epi32::<0x96>(*state, clear, keys[0]);
        }
        for key in &keys[1..KEYS - 1] {
            for state in &mut state {
                *state = _mm512_aesenc_epi128(*state, *key);
            }
        }
        for (group, state) in state.iter_mut().enumerate() {
            *state = _mm512_aesenclast_epi128(*state, keys[KEYS - 1]);
            // SAFETY: as for the load.
            unsafe { scatter(lanes, group, step, *state) };
        }
    }
    for (group, state) in state.into_iter().enumerate() {
        // SAFETY: as for the load of the chains.
        unsafe { scatter(&chains, group, 0, state) };
    }
}

/// The `step`th blocks of the four lanes of a group.
///
/// # Safety
/// Those blocks are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(lanes: &[*mut [u8; 16]; LANES], group: usize, step: usize) -> __m512i {
    // SAFETY: by the condition above; the load needs no alignment.
    let block = |at: usize| unsafe { _mm_loadu_si128(lanes[QUARTERS * group + at].add(step).cast()) };
    let two = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(block(0)), block(1));
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(two, block(2)), block(3))
}

/// Writes the `step`th blocks of the four lanes of a group.
///
/// # Safety
/// Those blocks are writable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scatter(lanes: &[*mut [u8; 16]; LANES], group: usize, step: usize, blocks: __m512i) {
    let quarters = [
        _mm512_castsi512_si128(blocks),
        _mm512_extracti32x4_epi32::<1>(blocks),
        _mm512_extracti32x4_epi32::<2>(blocks),
        _mm512_extracti32x4_epi32::<3>(blocks),
    ];
    for (at, block) in quarters.into_iter().enumerate() {
        // SAFETY: by the condition above; the store needs no alignment.
        unsafe { _mm_storeu_si128(lanes[QUARTERS * group + at].add(step).cast(), block) };
    }
}
