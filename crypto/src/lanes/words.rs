//! Registers of 16 words of 32 bits, one of each lane.
#![allow(unsafe_code, reason = "loads and stores of vector registers")]

use super::LANES;
use core::arch::x86_64::*;

/// One word of each lane.
pub(super) type Words = [u32; LANES];

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(words: &Words) -> __m512i {
    // SAFETY: the reference is to 64 octets; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(words: &mut Words, register: __m512i) {
    // SAFETY: as above, for a store.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), register) }
}

/// The `step`th block of each lane as big-endian words: register `w` has word `w` of every lane.
///
/// # Safety
/// Each pointer is to more than `step` readable blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn message_words(lanes: &[*const [u8; 64]; LANES], step: usize) -> [__m512i; LANES] {
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    let rows = core::array::from_fn(|lane| {
        // SAFETY: by the condition above; the load needs no alignment.
        let row = unsafe { _mm512_loadu_si512(lanes[lane].add(step).cast()) };
        _mm512_shuffle_epi8(row, swap)
    });
    transpose(rows)
}

/// Rows become columns, in four steps: words, pairs of words, and quarters of registers twice.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    // In each quarter of a register: two words of one row between two of the next.
    let pairs: [__m512i; LANES] = core::array::from_fn(|i| {
        let (one, other) = (rows[i & !1], rows[i | 1]);
        if i % 2 == 0 { _mm512_unpacklo_epi32(one, other) } else { _mm512_unpackhi_epi32(one, other) }
    });
    // `fours[4 g + j]`: of rows 4 g to 4 g + 3 the columns j, j + 4, j + 8 and j + 12, one in each quarter.
    let fours: [__m512i; LANES] = core::array::from_fn(|i| {
        let (group, j) = (i & !3, i % 4);
        let (one, other) = (pairs[group + j / 2], pairs[group + 2 + j / 2]);
        if j % 2 == 0 { _mm512_unpacklo_epi64(one, other) } else { _mm512_unpackhi_epi64(one, other) }
    });
    core::array::from_fn(|column| {
        let (quarter, j) = (column / 4, column % 4);
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        // Even quarters of the first two and of the last two, or odd ones; then the lower or upper of those.
        let (ab, cd) = if quarter % 2 == 0 {
            (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d))
        } else {
            (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d))
        };
        if quarter < 2 { _mm512_shuffle_i32x4::<0x88>(ab, cd) } else { _mm512_shuffle_i32x4::<0xdd>(ab, cd) }
    })
}

/// The sum modulo 2^32, in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(a, b)
}

/// One value for all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn all(value: u32) -> __m512i {
    _mm512_set1_epi32(value.cast_signed())
}
