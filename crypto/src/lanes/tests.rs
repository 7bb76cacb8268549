//! The lanes do what the portable code does, whatever the mixture of lengths.

use super::hmac::{HmacLanes, LaneHash};
use super::{LANES, Sha1Lanes, Sha256Lanes, Wide};
use crate::entropy::Entropy;
use crate::entropy::testing::SeededEntropy;
use crate::mac::truncated_hmac;
use crate::table::{Covered, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// `None` where the processor has no such instructions: then nothing of this module is ever used.
fn wide() -> Option<Wide> {
    let wide = Wide::found();
    if wide.is_none() {
        eprintln!("no AVX-512 and VAES here: lanes are not tested");
    }
    wide
}

/// Random octets and numbers from a seed.
struct Random(SeededEntropy);

impl Random {
    fn octets(&mut self, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        self.0.fill(&mut octets);
        octets
    }

    fn below(&mut self, bound: usize) -> usize {
        let octets = self.octets(8);
        (u64::from_le_bytes(octets.try_into().unwrap()) % bound as u64) as usize
    }
}

fn macs_agree(lanes: &dyn Mac, portable: &dyn Mac, icv_len: usize, random: &mut Random) {
    for count in (1..=2 * LANES + 1).chain([3 * LANES]) {
        for longest in [1, 70, 300, 1500] {
            let equal = random.below(3) == 0;
            let messages: Vec<_> = (0..count)
                .map(|_| {
                    let len = if equal { longest } else { random.below(longest + 1) };
                    (random.octets(len), (random.below(2) == 0).then(|| random.octets(4)))
                })
                .collect();
            let covered: Vec<_> = messages
                .iter()
                .map(|(octets, high)| {
                    let covered = Covered::of(octets);
                    high.as_ref().map_or(covered, |high| covered.followed_by(high[..].try_into().unwrap()))
                })
                .collect();
            let mut tags = vec![[0; 32]; count];
            lanes.sign_each(&covered, icv_len, &mut tags);
            for ((octets, high), tag) in messages.iter().zip(&tags) {
                let mut icv = vec![0; icv_len];
                portable.sign(&[octets, high.as_deref().unwrap_or_default()], &mut icv);
                assert_eq!(tag[..icv_len], icv, "{} octets of {count} messages", octets.len());
                assert!(lanes.verify(&[octets, high.as_deref().unwrap_or_default()], &icv));
                icv[0] ^= 1;
                assert!(!lanes.verify(&[octets, high.as_deref().unwrap_or_default()], &icv));
            }
        }
    }
}

#[test]
fn hmac_of_every_mixture_of_lengths() {
    let Some(wide) = wide() else { return };
    let mut random = Random(SeededEntropy::new(1));
    for _ in 0..4 {
        let key = random.octets(20);
        let lanes = HmacLanes::<Sha1Lanes, 5>::new(wide, &key, 12);
        macs_agree(&lanes, &*truncated_hmac::<Sha1>("sha1", &key, 12).unwrap(), 12, &mut random);
        let key = random.octets(32);
        let lanes = HmacLanes::<Sha256Lanes, 8>::new(wide, &key, 16);
        macs_agree(&lanes, &*truncated_hmac::<Sha256>("sha256", &key, 16).unwrap(), 16, &mut random);
    }
}

#[test]
fn every_lane_has_a_state_of_its_own() {
    let Some(wide) = wide() else { return };
    let mut random = Random(SeededEntropy::new(2));
    let blocks: Vec<[u8; 64]> = (0..LANES * 3).map(|_| random.octets(64).try_into().unwrap()).collect();
    let mut states = Sha256Lanes::INITIAL.map(|word| core::array::from_fn(|lane| word ^ lane as u32));
    let expected: Vec<_> = (0..LANES)
        .map(|lane| {
            let mut state = Sha256Lanes::INITIAL.map(|word| word ^ lane as u32);
            Sha256Lanes::compress(&mut state, &blocks[lane * 3..][..3]);
            state
        })
        .collect();
    Sha256Lanes::compress_lanes(wide, &mut states, core::array::from_fn(|lane| &blocks[lane * 3..][..3]), 3);
    for (lane, expected) in expected.iter().enumerate() {
        assert_eq!(states.map(|words| words[lane]), *expected, "lane {lane}");
    }
}

#[test]
#[should_panic(expected = "shorter than it was said to be")]
fn a_lane_that_is_too_short_is_not_read() {
    let Some(wide) = wide() else { panic!("a lane is shorter than it was said to be: not tested here") };
    let mut states = Sha1Lanes::INITIAL.map(|word| [word; LANES]);
    Sha1Lanes::compress_lanes(wide, &mut states, [&[[0; 64]]; LANES], 2);
}
