//! SHA-256 (FIPS 180-4 6.2) in 16 lanes.
#![allow(unsafe_code, reason = "vector instructions, which the processor was asked for")]

use super::hmac::LaneHash;
use super::words::{Words, add, all, load, message_words, store};
use super::{LANES, Wide};
use core::arch::x86_64::*;

/// [`LaneHash`] of SHA-256.
pub(crate) enum Sha256Lanes {}

impl LaneHash<8> for Sha256Lanes {
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

    fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
        sha2::block_api::compress256(state, blocks);
    }

    fn compress_lanes(_: Wide, states: &mut [Words; 8], lanes: [&[[u8; 64]]; LANES], steps: usize) {
        assert!(lanes.iter().all(|lane| lane.len() >= steps), "a lane is shorter than it was said to be");
        // SAFETY: `Wide` proves the instructions, the assertion the lengths.
        unsafe { compress(states, &lanes.map(<[_]>::as_ptr), steps) };
    }
}

/// The constants of FIPS 180-4 4.2.2.
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// # Safety
/// Each pointer is to `steps` readable blocks.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn compress(states: &mut [Words; 8], lanes: &[*const [u8; 64]; LANES], steps: usize) {
    let mut hash = states.each_ref().map(|words| load(words));
    for step in 0..steps {
        // SAFETY: `step` is below `steps`.
        let mut w = unsafe { message_words(lanes, step) };
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = hash;
        macro_rules! rounds {
            ($($t:literal)*) => {
                $(
                    if $t >= 16 {
                        let (old, new) = (w[($t + 1) % 16], w[($t + 14) % 16]);
                        let s0 = xor(_mm512_ror_epi32::<7>(old), _mm512_ror_epi32::<18>(old), _mm512_srli_epi32::<3>(old));
                        let s1 = xor(_mm512_ror_epi32::<17>(new), _mm512_ror_epi32::<19>(new), _mm512_srli_epi32::<10>(new));
                        w[$t % 16] = add(add(w[$t % 16], s0), add(w[($t + 9) % 16], s1));
                    }
                    let s1 = xor(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
                    let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
                    let one = add(add(add(h, s1), choice), add(w[$t % 16], all(K[$t])));
                    let s0 = xor(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
                    let other = add(s0, _mm512_ternarylogic_epi32::<0xe8>(a, b, c));
                    (h, g, f, e, d, c, b, a) = (g, f, e, add(d, one), c, b, a, add(one, other));
                )*
            };
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
        rounds!(32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
        for (sum, last) in hash.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = add(*sum, last);
        }
    }
    for (words, register) in states.iter_mut().zip(hash) {
        store(words, register);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}
