//! SPIs of inbound SAs: drawn at random from the configured range, each given to one SA at a time.

use crate::sad::DuplicateSpi;
use core::ops::RangeInclusive;
use crypto::Entropy;
use std::collections::BTreeSet;

/// SPIs up to here are reserved (RFC 4303 2.1).
pub const RESERVED: u32 = 255;

/// How often a number is drawn before the free ones are counted. Where one SPI in ten is free,
/// one draw in a thousand gets that far.
const DRAWS: usize = 64;

/// Which SPIs are in use: by SAs, installed or being negotiated, dynamic or manual.
#[derive(Clone, Debug, Default)]
pub struct SpiPool {
    taken: BTreeSet<u32>,
}

/// All SPIs of the range are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all SPIs from `spi_min` {low} to `spi_max` {high} are in use")]
pub struct NoFreeSpi {
    /// The first of the range.
    pub low: u32,
    /// The last.
    pub high: u32,
}

impl SpiPool {
    /// Takes an SPI of `range` that is not in use, each with the same probability. Reserved ones
    /// are none.
    ///
    /// # Errors
    /// [`NoFreeSpi`] when all are in use, or the range is empty.
    pub fn draw(&mut self, range: RangeInclusive<u32>, entropy: &mut dyn Entropy) -> Result<u32, NoFreeSpi> {
        let (low, high) = range.into_inner();
        let first = low.max(RESERVED + 1);
        let span = (u64::from(high) + 1).saturating_sub(first.into());
        if span == 0 {
            return Err(NoFreeSpi { low, high });
        }
        let free = (0..DRAWS).map(|_| first + below(span, entropy) as u32).find(|spi| !self.taken.contains(spi));
        let spi = match free {
            Some(spi) => spi,
            None => self.draw_counted(first, high, span, entropy).ok_or(NoFreeSpi { low, high })?,
        };
        self.taken.insert(spi);
        Ok(spi)
    }

    /// The same where few are free: numbers them, and draws a number.
    fn draw_counted(&self, first: u32, last: u32, span: u64, entropy: &mut dyn Entropy) -> Option<u32> {
        let taken = self.taken.range(first..=last);
        let free = span.checked_sub(taken.clone().count() as u64).filter(|free| *free > 0)?;
        // The SPI of that number, if none before it is taken; each that is moves it on by one.
        let mut spi = u64::from(first) + below(free, entropy);
        for taken in taken {
            if u64::from(*taken) > spi {
                break;
            }
            spi += 1;
        }
        u32::try_from(spi).ok()
    }

    /// Takes an SPI that somebody else chose: a manual one.
    ///
    /// # Errors
    /// [`DuplicateSpi`] when it is in use.
    pub fn reserve(&mut self, spi: u32) -> Result<(), DuplicateSpi> {
        if self.taken.insert(spi) { Ok(()) } else { Err(DuplicateSpi { spi }) }
    }

    /// The SA of an SPI is gone, or will not be. Returns whether the SPI was in use.
    pub fn release(&mut self, spi: u32) -> bool {
        self.taken.remove(&spi)
    }

    /// Whether an SPI is in use.
    #[must_use]
    pub fn contains(&self, spi: u32) -> bool {
        self.taken.contains(&spi)
    }

    /// How many are in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

/// A random number below `bound`, which is at most 2^32: no probability is off by more than 2^-32 of itself.
fn below(bound: u64, entropy: &mut dyn Entropy) -> u64 {
    ((u128::from(entropy.next_u64()) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::entropy::testing::SeededEntropy;

    /// Draws so often what the closure may ask for.
    struct Scripted(Vec<u64>);

    impl Entropy for Scripted {
        fn fill(&mut self, _: &mut [u8]) {
            unreachable!("numbers only")
        }

        fn next_u64(&mut self) -> u64 {
            self.0.pop().expect("it was not to ask for so many")
        }
    }

    #[test]
    fn a_tiny_range_is_used_up_and_then_refused() {
        for seed in 0..200 {
            let mut entropy = SeededEntropy::new(seed);
            let mut pool = SpiPool::default();
            let mut drawn: Vec<u32> = (0..5).map(|_| pool.draw(300..=304, &mut entropy).unwrap()).collect();
            assert_eq!(pool.draw(300..=304, &mut entropy), Err(NoFreeSpi { low: 300, high: 304 }));
            drawn.sort_unstable();
            assert_eq!(drawn, [300, 301, 302, 303, 304]);
            // One that is given back is the next to be drawn.
            assert!(pool.release(302) && !pool.release(302));
            assert_eq!(pool.draw(300..=304, &mut entropy), Ok(302));
            assert!(pool.draw(300..=304, &mut entropy).is_err());
            assert_eq!((pool.draw(300..=305, &mut entropy), pool.len()), (Ok(305), 6));
        }
    }

    #[test]
    fn an_unlucky_source_ends_with_a_free_spi_all_the_same() {
        let mut pool = SpiPool::default();
        for spi in [300, 301, 303] {
            pool.reserve(spi).unwrap();
        }
        // 64 times what is taken; then the second of the free ones, 302 and 304.
        let mut numbers = vec![u64::MAX];
        numbers.extend([0; DRAWS]);
        let mut entropy = Scripted(numbers);
        assert_eq!(pool.draw(300..=304, &mut entropy), Ok(304));
        assert!(entropy.0.is_empty());
        assert_eq!(pool.draw(300..=304, &mut Scripted(vec![0; DRAWS + 1])), Ok(302));
    }

    /// 4 of 4096 are free: each should be drawn 1000 times of 4000, and is between 850 and 1150.
    #[test]
    fn what_is_free_is_drawn_with_the_same_probability() {
        let mut entropy = SeededEntropy::new(1);
        let mut pool = SpiPool::default();
        let free = [1000, 1001, 3000, 5095];
        (1000..=5095).filter(|spi| !free.contains(spi)).for_each(|spi| pool.reserve(spi).unwrap());
        let mut counts = [0; 4];
        for _ in 0..4000 {
            let spi = pool.draw(1000..=5095, &mut entropy).unwrap();
            counts[free.iter().position(|f| *f == spi).unwrap()] += 1;
            pool.release(spi);
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_whole_default_range_is_reached() {
        let mut entropy = SeededEntropy::new(2);
        let mut pool = SpiPool::default();
        let drawn: BTreeSet<u32> = (0..20_000).map(|_| pool.draw(300..=2_500_000, &mut entropy).unwrap()).collect();
        assert_eq!((drawn.len(), pool.len()), (20_000, 20_000));
        assert!(drawn.iter().all(|spi| (300..=2_500_000).contains(spi)));
        for part in 0..20 {
            let first = 300 + part * 124_985;
            let count = drawn.range(first..first + 124_985).count();
            assert!((850..1150).contains(&count), "{count} of 20000 are in part {part} of 20");
        }
    }

    #[test]
    fn reserved_spis_and_empty_ranges_give_none() {
        let mut entropy = SeededEntropy::new(3);
        let mut pool = SpiPool::default();
        assert_eq!(pool.draw(0..=256, &mut entropy), Ok(256));
        assert_eq!(pool.draw(0..=256, &mut entropy), Err(NoFreeSpi { low: 0, high: 256 }));
        assert!(pool.draw(0..=RESERVED, &mut entropy).is_err());
        assert!(pool.draw(RangeInclusive::new(400, 300), &mut entropy).is_err());
        assert_eq!(pool.draw(u32::MAX..=u32::MAX, &mut entropy), Ok(u32::MAX));
        assert!(pool.draw(u32::MAX..=u32::MAX, &mut entropy).is_err());
    }

    #[test]
    fn a_manual_spi_is_never_drawn_and_never_taken_twice() {
        let mut entropy = SeededEntropy::new(4);
        let mut pool = SpiPool::default();
        pool.reserve(0x201).unwrap();
        assert_eq!(pool.reserve(0x201), Err(DuplicateSpi { spi: 0x201 }));
        assert!(pool.contains(0x201));
        assert_eq!(pool.draw(0x200..=0x201, &mut entropy), Ok(0x200));
        assert!(pool.draw(0x200..=0x201, &mut entropy).is_err());
    }
}
