//! SHA-1 (FIPS 180-4 6.1) in 16 lanes.
#![allow(unsafe_code, reason = "vector instructions, which the processor was asked for")]

use super::hmac::LaneHash;
use super::words::{Words, add, all, load, message_words, store};
use super::{LANES, Wide};
use core::arch::x86_64::*;

/// [`LaneHash`] of SHA-1.
pub(crate) enum Sha1Lanes {}

impl LaneHash<5> for Sha1Lanes {
    const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

    fn compress(state: &mut [u32; 5], blocks: &[[u8; 64]]) {
        sha1::block_api::compress(state, blocks);
    }

    fn compress_lanes(_: Wide, states: &mut [Words; 5], lanes: [&[[u8; 64]]; LANES], steps: usize) {
        assert!(lanes.iter().all(|lane| lane.len() >= steps), "a lane is shorter than it was said to be");
        // SAFETY: `Wide` proves the instructions, the assertion the lengths.
        unsafe { compress(states, &lanes.map(<[_]>::as_ptr), steps) };
    }
}

/// # Safety
/// Each pointer is to `steps` readable blocks.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn compress(states: &mut [Words; 5], lanes: &[*const [u8; 64]; LANES], steps: usize) {
    let [mut h0, mut h1, mut h2, mut h3, mut h4] = states.each_ref().map(|words| load(words));
    for step in 0..steps {
        // SAFETY: `step` is below `steps`.
        let mut w = unsafe { message_words(lanes, step) };
        let (mut a, mut b, mut c, mut d, mut e) = (h0, h1, h2, h3, h4);
        // Choice, parity and majority are each one instruction, named by their truth table.
        macro_rules! rounds {
            ($table:literal, $k:literal; $($t:literal)*) => {
                let k = all($k);
                $(
                    if $t >= 16 {
                        let far = _mm512_ternarylogic_epi32::<0x96>(w[($t + 13) % 16], w[($t + 8) % 16], w[($t + 2) % 16]);
                        w[$t % 16] = _mm512_rol_epi32::<1>(_mm512_xor_si512(far, w[$t % 16]));
                    }
                    let mixed = _mm512_ternarylogic_epi32::<$table>(b, c, d);
                    let sum = add(add(_mm512_rol_epi32::<5>(a), mixed), add(add(e, k), w[$t % 16]));
                    (e, d, c, b, a) = (d, c, _mm512_rol_epi32::<30>(b), a, sum);
                )*
            };
        }
        rounds!(0xca, 0x5a82_7999; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        rounds!(0x96, 0x6ed9_eba1; 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39);
        rounds!(0xe8, 0x8f1b_bcdc; 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59);
        rounds!(0x96, 0xca62_c1d6; 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79);
        (h0, h1, h2, h3, h4) = (add(h0, a), add(h1, b), add(h2, c), add(h3, d), add(h4, e));
    }
    for (words, register) in states.iter_mut().zip([h0, h1, h2, h3, h4]) {
        store(words, register);
    }
}
