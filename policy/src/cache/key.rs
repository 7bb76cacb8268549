//! Keys of the SPD cache: five-tuple and direction, packed and hashed.

use crate::five_tuple::{Direction, FiveTuple, Ports};
use core::hash::{BuildHasher, Hash, Hasher};
use crypto::Entropy;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which conversation, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey {
    /// As in the packet's headers.
    pub tuple: FiveTuple,
    /// Seen from this host.
    pub direction: Direction,
}

impl CacheKey {
    /// A packet's key.
    #[must_use]
    pub fn new(tuple: FiveTuple, direction: Direction) -> Self {
        Self { tuple, direction }
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

    #[inline]
    fn hash(&self, words: &[u64; 5]) -> u64 {
        let [offset, tail] = [self.offset, self.factors[4].wrapping_mul(u128::from(words[4]))];
        let mut sum = offset.wrapping_add(tail).wrapping_add(self.factors[0].wrapping_mul(u128::from(words[0])));
        // Words 1 to 3 of an IPv4 key are 0 and would add nothing.
        if words[4] & IPV6 != 0 {
            for (word, factor) in words[1..4].iter().zip(&self.factors[1..4]) {
                sum = sum.wrapping_add(factor.wrapping_mul(u128::from(*word)));
            }
        }
        (sum >> 64) as u64
    }
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

// The last word: bits 0 to 31 ports, 32 to 39 protocol, then these.
const IPV6: u64 = 1 << 40;
const INBOUND: u64 = 1 << 41;
const OPAQUE: u64 = 1 << 42;
const PAIR: u64 = 2 << 42;
const ICMP: u64 = 3 << 42;
const KIND: u64 = 3 << 42;

/// A key as the table keeps it. Two keys are equal exactly when their words are.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredKey {
    /// IPv4: both addresses, 0, 0, 0, rest. IPv6: two words each, rest.
    words: [u64; 5],
    hash: u64,
}

impl StoredKey {
    #[inline]
    pub(super) fn new(key: &CacheKey, secret: &HashKey) -> Self {
        let words = pack(key);
        Self { words, hash: secret.hash(&words) }
    }

    /// The key it was made from.
    pub(super) fn unpack(&self) -> CacheKey {
        let [a, b, c, d, rest] = self.words;
        let (source, destination) = if rest & IPV6 == 0 {
            (IpAddr::V4(Ipv4Addr::from_bits((a >> 32) as u32)), IpAddr::V4(Ipv4Addr::from_bits(a as u32)))
        } else {
            let v6 = |high: u64, low: u64| IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)));
            (v6(a, b), v6(c, d))
        };
        let ports = match rest & KIND {
            PAIR => Ports::Pair { source: (rest >> 16) as u16, destination: rest as u16 },
            ICMP => Ports::Icmp { kind: (rest >> 8) as u8, code: rest as u8 },
            OPAQUE => Ports::Opaque,
            _ => Ports::None,
        };
        let direction = if rest & INBOUND == 0 { Direction::Outbound } else { Direction::Inbound };
        CacheKey::new(FiveTuple { source, destination, protocol: (rest >> 32) as u8, ports }, direction)
    }
}

#[inline]
fn pack(key: &CacheKey) -> [u64; 5] {
    let mut rest = u64::from(key.tuple.protocol) << 32
        | match key.tuple.ports {
            Ports::None => 0,
            Ports::Opaque => OPAQUE,
            Ports::Pair { source, destination } => PAIR | u64::from(source) << 16 | u64::from(destination),
            Ports::Icmp { kind, code } => ICMP | u64::from(kind) << 8 | u64::from(code),
        };
    if key.direction == Direction::Inbound {
        rest |= INBOUND;
    }
    match (key.tuple.source, key.tuple.destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => [u64::from(s.to_bits()) << 32 | u64::from(d.to_bits()), 0, 0, 0, rest],
        (source, destination) => {
            let (s, d) = (bits(source), bits(destination));
            [(s >> 64) as u64, s as u64, (d >> 64) as u64, d as u64, rest | IPV6]
        }
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

impl PartialEq for StoredKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for StoredKey {}

impl Hash for StoredKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that the key brings along.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreHashed;

impl BuildHasher for PreHashed {
    type Hasher = PassThrough;

    #[inline]
    fn build_hasher(&self) -> PassThrough {
        PassThrough(0)
    }
}

#[derive(Debug)]
pub(super) struct PassThrough(u64);

impl Hasher for PassThrough {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
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
            CacheKey::new(FiveTuple { source, destination, protocol: 6, ports }, Direction::Inbound)
        })
    }

    /// The table takes places from the low bits and tags from the high ones:
    /// neither may crowd. 16384 keys in 1024 bins are 16 each on average.
    #[test]
    fn keys_that_resemble_each_other_spread() {
        for v6 in [false, true] {
            for secret in 0..20 {
                let secret = HashKey::draw(&mut Counting(secret));
                let (mut low, mut high) = (vec![0u32; 1024], vec![0u32; 1024]);
                for key in scan(v6) {
                    let hash = StoredKey::new(&key, &secret).hash;
                    low[(hash & 1023) as usize] += 1;
                    high[(hash >> 54) as usize] += 1;
                }
                let fullest = low.iter().chain(&high).max().unwrap();
                assert!(*fullest <= 64, "{fullest}");
            }
        }
    }

    #[test]
    fn every_word_and_the_secret_count() {
        let (one, other) = (HashKey::draw(&mut Counting(1)), HashKey::draw(&mut Counting(2)));
        let words = [1, 2, 3, 4, 5 | IPV6];
        assert_ne!(one.hash(&words), other.hash(&words));
        for at in 0..5 {
            let mut changed = words;
            changed[at] ^= 1 << 20;
            assert_ne!(one.hash(&words), one.hash(&changed), "word {at}");
        }
        assert_eq!(format!("{one:?}"), "HashKey(secret)");
    }
}
