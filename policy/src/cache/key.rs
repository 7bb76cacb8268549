//! Keys of the SPD cache: five-tuple, interface and direction, packed and hashed.

use crate::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use core::hash::{Hash, Hasher};
use crypto::Entropy;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which conversation, and which way: packed into words, for these are compared and hashed for every packet.
///
/// Two keys are equal exactly when their tuples and directions are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct CacheKey {
    /// IPv4: both addresses. IPv6: the first half of the source.
    first: u64,
    /// Ports, protocol and flags, see below. Next to the word before, which is all that there is of IPv4.
    rest: u64,
    /// IPv6: what is left of the addresses.
    others: [u64; 3],
}

// `rest`: bits 0 to 31 ports, 32 to 39 protocol, then these. In a table the upper bits are the epoch.
// Of IPv4 it is never 0, which in a table is a free place.
const IPV4: u64 = 1 << 40;
const INBOUND: u64 = 1 << 41;
const OPAQUE: u64 = 1 << 42;
const PAIR: u64 = 2 << 42;
const ICMP: u64 = 3 << 42;
const KIND: u64 = 3 << 42;
const INTERFACE_SHIFT: u32 = 44;
const EPOCH_SHIFT: u32 = 50;
const _: () = assert!(Attachment::MOST == 1 << (EPOCH_SHIFT - INTERFACE_SHIFT));
/// The bits of a key's last word that a table has for the epoch.
pub(super) const EPOCH: u64 = !0 << EPOCH_SHIFT;

/// A key of an IPv4 conversation as a table has it.
pub(super) type WordsV4 = [u64; 2];
/// A key of an IPv6 conversation as a table has it.
pub(super) type WordsV6 = [u64; 5];

impl CacheKey {
    /// A packet's key.
    #[inline]
    #[must_use]
    pub fn new(tuple: FiveTuple, direction: Direction) -> Self {
        let mut rest = u64::from(tuple.protocol) << 32
            | (tuple.interface.place() as u64) << INTERFACE_SHIFT
            | match tuple.ports {
                Ports::None => 0,
                Ports::Opaque => OPAQUE,
                Ports::Pair { source, destination } => PAIR | u64::from(source) << 16 | u64::from(destination),
                Ports::Icmp { kind, code } => ICMP | u64::from(kind) << 8 | u64::from(code),
            };
        if direction == Direction::Inbound {
            rest |= INBOUND;
        }
        match (tuple.source, tuple.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                Self { first: u64::from(s.to_bits()) << 32 | u64::from(d.to_bits()), rest: rest | IPV4, others: [0; 3] }
            }
            (source, destination) => {
                let (s, d) = (bits(source), bits(destination));
                Self { first: (s >> 64) as u64, rest, others: [s as u64, (d >> 64) as u64, d as u64] }
            }
        }
    }

    /// The conversation.
    #[must_use]
    pub fn tuple(&self) -> FiveTuple {
        let (a, [b, c, d]) = (self.first, self.others);
        let (source, destination) = if self.is_ipv6() {
            let v6 = |high: u64, low: u64| IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)));
            (v6(a, b), v6(c, d))
        } else {
            (IpAddr::V4(Ipv4Addr::from_bits((a >> 32) as u32)), IpAddr::V4(Ipv4Addr::from_bits(a as u32)))
        };
        let rest = self.rest;
        let ports = match rest & KIND {
            PAIR => Ports::Pair { source: (rest >> 16) as u16, destination: rest as u16 },
            ICMP => Ports::Icmp { kind: (rest >> 8) as u8, code: rest as u8 },
            OPAQUE => Ports::Opaque,
            _ => Ports::None,
        };
        let interface = Attachment::of_low_bits(rest >> INTERFACE_SHIFT);
        FiveTuple { source, destination, protocol: (rest >> 32) as u8, ports, interface }
    }

    /// Which way.
    #[must_use]
    pub fn direction(&self) -> Direction {
        if self.rest & INBOUND == 0 { Direction::Outbound } else { Direction::Inbound }
    }

    #[inline(always)]
    pub(super) fn is_ipv6(&self) -> bool {
        self.rest & IPV4 == 0
    }

    pub(super) fn from_words_v4([addresses, rest]: WordsV4) -> Self {
        Self { first: addresses, rest: rest & !EPOCH, others: [0; 3] }
    }

    pub(super) fn from_words_v6([a, b, c, d, rest]: WordsV6) -> Self {
        Self { first: a, rest: rest & !EPOCH, others: [b, c, d] }
    }
}

/// A key as the table of its family has it.
pub(super) trait Words {
    /// Whether the family is IPv6.
    const IPV6: bool;

    /// Of a key of the family, with an epoch.
    fn of(key: &CacheKey, epoch: EpochTag) -> Self;
}

impl Words for WordsV4 {
    const IPV6: bool = false;

    #[inline(always)]
    fn of(key: &CacheKey, epoch: EpochTag) -> Self {
        [key.first, key.rest | epoch.as_in_word()]
    }
}

impl Words for WordsV6 {
    const IPV6: bool = true;

    #[inline(always)]
    fn of(key: &CacheKey, epoch: EpochTag) -> Self {
        let [b, c, d] = key.others;
        [key.first, b, c, d, key.rest | epoch.as_in_word()]
    }
}

impl core::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {:?}", self.tuple(), self.direction())
    }
}

impl Hash for CacheKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.rest);
        state.write_u64(self.first);
        // The others of an IPv4 key are 0.
        if self.is_ipv6() {
            self.others.iter().for_each(|word| state.write_u64(*word));
        }
    }
}

/// What a table keeps of an epoch. Epochs that are 2^14 apart look alike there:
/// each policy change removes stale entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochTag(u32);

impl EpochTag {
    pub(super) fn of_epoch(epoch: u32) -> Self {
        Self(epoch << (EPOCH_SHIFT - 32) >> (EPOCH_SHIFT - 32))
    }

    /// From the last word of a key in a table.
    pub(super) fn of_word(word: u64) -> Self {
        Self((word >> EPOCH_SHIFT) as u32)
    }

    /// Where the last word of a key has it.
    #[inline(always)]
    fn as_in_word(self) -> u64 {
        u64::from(self.0) << EPOCH_SHIFT
    }

    /// Whether it is of an epoch before that of `other`: epochs wrap.
    pub(super) fn is_before(self, other: Self) -> bool {
        ((self.0.wrapping_sub(other.0) << (EPOCH_SHIFT - 32)) as i32) < 0
    }

    /// The epoch, as one at or before `latest`, or shortly after it.
    pub(super) fn near(self, latest: u32) -> u32 {
        let ahead = (self.0.wrapping_sub(latest) << (EPOCH_SHIFT - 32)) as i32 >> (EPOCH_SHIFT - 32);
        latest.wrapping_add_signed(ahead)
    }
}

/// The secret of the cache's hash.
///
/// The hash is multilinear: word `i` of a key is multiplied by the 128-bit
/// secret `i`, all is added up modulo 2^128, and the upper half is taken. It is
/// strongly universal: whoever does not know the secret can do no better than
/// chance, 2^-64, at choosing two keys that collide (Lemire and Kaser, "Strongly
/// universal string hashing is fast", 2014).
#[derive(Clone)]
pub struct HashKey {
    offset: u128,
    factors: [u128; 5],
}

impl HashKey {
    /// Draws a secret.
    pub fn draw(entropy: &mut dyn Entropy) -> Self {
        let mut word = || u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64());
        Self { offset: word(), factors: core::array::from_fn(|_| word()) }
    }

    #[cfg(all(test, loom))]
    pub(super) fn of_tests() -> Self {
        Self { offset: 1 << 100, factors: [3 << 90, 5 << 91, 7 << 92, 9 << 93, 11 << 94] }
    }

    /// Hashes a key as a table has it; its epoch does not count.
    #[inline(always)]
    pub(super) fn hash<const W: usize>(&self, words: &[u64; W]) -> u64 {
        let mut sum = self.offset.wrapping_add(self.factors[4].wrapping_mul(u128::from(words[W - 1] & !EPOCH)));
        for (word, factor) in words[..W - 1].iter().zip(&self.factors) {
            sum = sum.wrapping_add(factor.wrapping_mul(u128::from(*word)));
        }
        (sum >> 64) as u64
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// A tuple of mixed families exists in no packet; it is packed as IPv6, its
/// IPv4 address mapped (RFC 4291 2.5.5.2), rather than refused.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u64);

    impl Entropy for Counting {
        fn fill(&mut self, out: &mut [u8]) {
            for byte in out {
                self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                *byte = (self.0 >> 56) as u8;
            }
        }
    }

    /// A scan, one port after the other: what an attacker sends without knowing the secret.
    fn scan(v6: bool) -> impl Iterator<Item = CacheKey> {
        let address = |text4: &str, text6: &str| -> IpAddr { if v6 { text6 } else { text4 }.parse().unwrap() };
        let (source, destination) = (address("10.1.1.1", "fd01::1"), address("10.2.2.2", "fd02::2"));
        (0..1u16 << 14).map(move |port| {
            let ports = Ports::Pair { source: 40_000, destination: port };
            CacheKey::new(
                FiveTuple { source, destination, protocol: 6, ports, interface: Attachment::TUN },
                Direction::Inbound,
            )
        })
    }

    /// The table takes homes from the high bits: they may not crowd. 16384 keys in 1024 bins are 16 each on average.
    #[test]
    fn keys_that_resemble_each_other_spread() {
        for v6 in [false, true] {
            for secret in 0..20 {
                let secret = HashKey::draw(&mut Counting(secret));
                let mut high = vec![0u32; 1024];
                for key in scan(v6) {
                    let hash = if v6 {
                        secret.hash(&WordsV6::of(&key, EpochTag(7)))
                    } else {
                        secret.hash(&WordsV4::of(&key, EpochTag(7)))
                    };
                    high[(hash >> 54) as usize] += 1;
                }
                let fullest = high.iter().max().unwrap();
                assert!(*fullest <= 64, "{fullest}");
            }
        }
    }

    #[test]
    fn every_word_and_the_secret_count_and_the_epoch_does_not() {
        let (one, other) = (HashKey::draw(&mut Counting(1)), HashKey::draw(&mut Counting(2)));
        let words = [1, 2, 3, 4, 5];
        assert_ne!(one.hash(&words), other.hash(&words));
        for at in 0..5 {
            let mut changed = words;
            changed[at] ^= 1 << 20;
            assert_ne!(one.hash(&words), one.hash(&changed), "word {at}");
        }
        assert_eq!(one.hash(&words), one.hash(&[1, 2, 3, 4, 5 | EPOCH]));
        assert_eq!(format!("{one:?}"), "HashKey(secret)");
    }

    /// A table takes the last word of an IPv4 key to be none of a free place.
    #[test]
    fn no_ipv4_key_has_a_last_word_of_zero() {
        let nothing = FiveTuple {
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            protocol: 0,
            ports: Ports::None,
            interface: Attachment::TUN,
        };
        assert_ne!(WordsV4::of(&CacheKey::new(nothing, Direction::Outbound), EpochTag(0))[1] & !EPOCH, 0);
    }

    #[test]
    fn epochs_are_ordered_and_found_again() {
        for epoch in [0, 1, 2, 0x3fff, 0x4000, 0xf_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let tag = EpochTag::of_epoch(epoch);
            let next = EpochTag::of_epoch(epoch.wrapping_add(1));
            assert!(tag.is_before(next) && !next.is_before(tag) && !tag.is_before(tag));
            for latest in [epoch, epoch.wrapping_add(1), epoch.wrapping_add(4000), epoch.wrapping_sub(1)] {
                assert_eq!(tag.near(latest), epoch);
            }
        }
    }
}
