//! The round keys of AES.
#![allow(unsafe_code, reason = "vector instructions, which the processor was asked for")]

use super::Wide;
use core::arch::x86_64::*;
use zeroize::Zeroize;

/// An expanded key, wiped on drop.
pub(super) struct RoundKeys<const KEYS: usize>(pub(super) [[u8; 16]; KEYS]);

impl<const KEYS: usize> Drop for RoundKeys<KEYS> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const KEYS: usize> RoundKeys<KEYS> {
    /// Expands a key of `4 (KEYS - 7)` octets; `None` if it has another length.
    pub(super) fn expand(Wide(()): Wide, key: &[u8]) -> Option<Self> {
        const { assert!(matches!(KEYS, 11 | 13 | 15)) };
        // SAFETY: `Wide` proves the instructions.
        (key.len() == 4 * (KEYS - 7)).then(|| Self(unsafe { expand(key) }))
    }

    /// Those of the equivalent inverse cipher (FIPS 197 5.3.5), in the order of its rounds.
    pub(super) fn inverse(self, Wide(()): Wide) -> Self {
        let mut keys = self;
        keys.0.reverse();
        for key in &mut keys.0[1..KEYS - 1] {
            // SAFETY: `Wide` proves the instructions.
            *key = unsafe { unmix(key) };
        }
        keys
    }
}

/// The inverse of MixColumns.
#[target_feature(enable = "aes")]
fn unmix(key: &[u8; 16]) -> [u8; 16] {
    let mut out = [0; 16];
    // SAFETY: both references are to 16 octets; neither load nor store needs alignment.
    unsafe {
        let unmixed = _mm_aesimc_si128(_mm_loadu_si128(key.as_ptr().cast()));
        _mm_storeu_si128(out.as_mut_ptr().cast(), unmixed);
    }
    out
}

/// The key schedule (FIPS 197 5.2).
#[target_feature(enable = "aes,sse4.1")]
fn expand<const KEYS: usize>(key: &[u8]) -> [[u8; 16]; KEYS] {
    let key_words = key.len() / 4;
    let mut words = [0u32; 60];
    for (word, octets) in words.iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut rcon = 1u8;
    for at in key_words..4 * KEYS {
        let mut word = words[at - 1];
        if at % key_words == 0 {
            word = substitute(word.rotate_right(8)) ^ u32::from(rcon);
            rcon = (rcon << 1) ^ ((rcon >> 7) * 0x1b);
        } else if key_words > 6 && at % key_words == 4 {
            word = substitute(word);
        }
        words[at] = words[at - key_words] ^ word;
    }
    let mut keys = [[0; 16]; KEYS];
    for (octets, word) in keys.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *octets = word.to_le_bytes();
    }
    words.zeroize();
    keys
}

/// The S-box on each octet, in constant time.
#[target_feature(enable = "aes,sse4.1")]
fn substitute(word: u32) -> u32 {
    let substituted = _mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word.cast_signed()));
    _mm_extract_epi32::<0>(substituted).cast_unsigned()
}
