//! Conversations, the same in each run, and orders to look them up in.

use crypto::Entropy;
use policy::cache::CacheKey;
use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A seeded source of numbers (SplitMix64), also for secrets that need not be secret.
pub struct Seeded(pub u64);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let chunk_len = chunk.len();
            chunk.copy_from_slice(&mix(self.0).to_le_bytes()[..chunk_len]);
        }
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Both addresses of IPv4.
    V4,
    /// Both addresses of IPv6, in two /32 networks.
    V6,
}

/// Conversation `n`: a different one for each number, half of them TCP.
#[must_use]
pub fn flow(family: Family, n: u64) -> CacheKey {
    let (a, b) = (mix(n), mix(!n));
    let (source, destination): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::from_bits(a as u32).into(), Ipv4Addr::from_bits((a >> 32) as u32).into()),
        Family::V6 => {
            let address = |network: u128, low: u64| Ipv6Addr::from_bits(network << 96 | u128::from(low)).into();
            (address(0x2001_0db8, a), address(0x2001_0db9, mix(a)))
        }
    };
    let ports = Ports::Pair { source: b as u16, destination: (b >> 16) as u16 };
    let protocol = if b >> 63 == 0 { 6 } else { 17 };
    CacheKey::new(FiveTuple { source, destination, protocol, ports, interface: Attachment::TUN }, Direction::Outbound)
}

/// How often which conversations are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popularity {
    /// Each of `entries` as often as the others.
    Uniform,
    /// The one of rank `k` in proportion to `1/k`.
    Zipf,
    /// None of the `entries`, but as many others.
    Absent,
}

/// Two million conversations to look up in a table of the conversations below `entries`.
#[must_use]
pub fn probes(family: Family, entries: u64, popularity: Popularity) -> Vec<CacheKey> {
    const PROBES: usize = 1 << 21;
    let mut random = Seeded(7);
    let mut number = || {
        let drawn = random.next_u64();
        match popularity {
            Popularity::Uniform => drawn % entries,
            Popularity::Absent => (1 << 50) + (drawn >> 16),
            Popularity::Zipf => {
                let fraction = (drawn >> 11) as f64 / (1u64 << 53) as f64;
                let rank = ((entries + 1) as f64).powf(fraction) as u64;
                rank.clamp(1, entries) - 1
            }
        }
    };
    (0..PROBES).map(|_| flow(family, number())).collect()
}
