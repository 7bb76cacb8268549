//! Rules and packets as numbers: four fields, and a rule is a range of each.
//!
//! The fields are the local address, the remote address, and two words that
//! stand for protocol and ports:
//!
//! | word | bits 18 to 25 | bits 16 and 17 | bits 0 to 15 |
//! |---|---|---|---|
//! | near | protocol | kind of ports | local port, or ICMP type |
//! | far | 0 | kind of ports | remote port, or ICMP code |
//!
//! A rule for a protocol and any ports is thus one range of `near`, and so is
//! one for a protocol and a range of ports.

use crate::five_tuple::{Direction, FiveTuple, Ports};
use crate::selector::{AddressRange, PortSelector, Selector};
use std::net::IpAddr;

const NONE: u32 = 0;
const OPAQUE: u32 = 1 << 16;
const PAIR: u32 = 2 << 16;
const ICMP: u32 = 3 << 16;
const PORTS: u32 = ICMP | 0xffff;
/// Where the protocol begins in `near`.
pub(super) const PROTOCOL_SHIFT: u8 = 18;
const NEAR_BITS: u8 = 26;
const FAR_BITS: u8 = 18;

/// How rules over addresses of one family are kept and compared.
pub(super) trait Family {
    /// The four fields of a packet, or the lowest or highest of a rule.
    type Point: Copy;
    /// The bits of each field that a table looks at.
    type Mask: Copy + core::fmt::Debug;
    /// A rule.
    type Row: Copy + core::fmt::Debug;
    /// Bits of a field: the spread of a rule that says nothing about it.
    const BITS: [u8; 4];

    /// `None` if an address is of the other family.
    fn point(local: IpAddr, remote: IpAddr, near: u32, far: u32) -> Option<Self::Point>;
    fn row(low: Self::Point, high: Self::Point) -> Self::Row;
    /// Low bits of each field that are not the same all over the rule.
    fn spread(low: Self::Point, high: Self::Point) -> [u8; 4];
    /// Leaves `dropped[field]` low bits out of each field.
    fn mask(dropped: [u8; 4]) -> Self::Mask;
    fn covers(row: &Self::Row, point: Self::Point) -> bool;
    /// The upper bits are well mixed.
    fn hash(point: Self::Point, mask: &Self::Mask) -> u64;
}

// Odd and without pattern: multiply-shift hashing (Dietzfelbinger et al., 1997).
const FACTORS: [u64; 5] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];

/// IPv4. Fields are kept with the highest bit flipped, so that signed
/// comparison, which SSE2 has, orders them.
#[derive(Debug)]
pub(super) struct V4;

/// See [`V4`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RowV4 {
    low: [i32; 4],
    high: [i32; 4],
}

impl Family for V4 {
    type Point = PointV4;
    type Mask = PointV4;
    type Row = RowV4;
    const BITS: [u8; 4] = [32, 32, NEAR_BITS, FAR_BITS];

    #[inline]
    fn point(local: IpAddr, remote: IpAddr, near: u32, far: u32) -> Option<PointV4> {
        let (IpAddr::V4(local), IpAddr::V4(remote)) = (local, remote) else { return None };
        Some(PointV4::new([local.to_bits(), remote.to_bits(), near, far]).flipped())
    }

    fn row(low: PointV4, high: PointV4) -> RowV4 {
        RowV4 { low: low.fields(), high: high.fields() }
    }

    fn spread(low: PointV4, high: PointV4) -> [u8; 4] {
        let (low, high) = (low.fields(), high.fields());
        core::array::from_fn(|n| (32 - (low[n] ^ high[n]).leading_zeros() as u8).min(Self::BITS[n]))
    }

    fn mask(dropped: [u8; 4]) -> PointV4 {
        PointV4::new(core::array::from_fn(|n| match Self::BITS[n] - dropped[n] {
            0 => 0,
            _ => u32::MAX << dropped[n],
        }))
    }

    #[inline]
    fn covers(row: &RowV4, point: PointV4) -> bool {
        // A loop without a branch becomes comparisons of vectors.
        let mut outside = 0;
        for ((field, low), high) in point.fields().iter().zip(&row.low).zip(&row.high) {
            outside |= i32::from(low > field) | i32::from(field > high);
        }
        outside == 0
    }

    #[inline]
    fn hash(point: PointV4, mask: &PointV4) -> u64 {
        let [addresses, words] = [(point.0 & mask.0), (point.1 & mask.1)];
        addresses.wrapping_mul(FACTORS[0]).wrapping_add(words.wrapping_mul(FACTORS[1]))
    }
}

/// Fields of [`V4`], two by two: so it stays in registers, and does not wait
/// for four stores to become one load.
#[derive(Clone, Copy, Debug)]
pub(super) struct PointV4(u64, u64);

impl PointV4 {
    #[inline]
    fn new([a, b, c, d]: [u32; 4]) -> Self {
        let pair = |low, high| u64::from(low) | u64::from(high) << 32;
        Self(pair(a, b), pair(c, d))
    }

    #[inline]
    fn flipped(self) -> Self {
        const HIGHEST: u64 = 1 << 63 | 1 << 31;
        Self(self.0 ^ HIGHEST, self.1 ^ HIGHEST)
    }

    #[inline]
    fn fields(self) -> [i32; 4] {
        [self.0 as i32, (self.0 >> 32) as i32, self.1 as i32, (self.1 >> 32) as i32]
    }
}

/// IPv6.
#[derive(Debug)]
pub(super) struct V6;

/// Fields of [`V6`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PointV6 {
    addresses: [u128; 2],
    words: [u32; 2],
}

/// See [`V6`]. Two points would have gaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowV6 {
    /// Lowest and highest of each field.
    addresses: [(u128, u128); 2],
    words: [(u32, u32); 2],
}

impl Family for V6 {
    type Point = PointV6;
    type Mask = PointV6;
    type Row = RowV6;
    const BITS: [u8; 4] = [128, 128, NEAR_BITS, FAR_BITS];

    #[inline]
    fn point(local: IpAddr, remote: IpAddr, near: u32, far: u32) -> Option<PointV6> {
        let (IpAddr::V6(local), IpAddr::V6(remote)) = (local, remote) else { return None };
        Some(PointV6 { addresses: [local.to_bits(), remote.to_bits()], words: [near, far] })
    }

    fn row(low: PointV6, high: PointV6) -> RowV6 {
        let [(near, far), (near_high, far_high)] = [low, high].map(|p| (p.words[0], p.words[1]));
        let [local, remote] = [0, 1].map(|n| (low.addresses[n], high.addresses[n]));
        RowV6 { addresses: [local, remote], words: [(near, near_high), (far, far_high)] }
    }

    fn spread(low: PointV6, high: PointV6) -> [u8; 4] {
        let address = |n: usize| 128 - (low.addresses[n] ^ high.addresses[n]).leading_zeros() as u8;
        let word = |n: usize| (32 - (low.words[n] ^ high.words[n]).leading_zeros() as u8).min(Self::BITS[2 + n]);
        [address(0), address(1), word(0), word(1)]
    }

    fn mask(dropped: [u8; 4]) -> PointV6 {
        let address = |n: usize| u128::MAX.checked_shl(u32::from(dropped[n])).unwrap_or(0);
        let word = |n: usize| match Self::BITS[n] - dropped[n] {
            0 => 0,
            _ => u32::MAX << dropped[n],
        };
        PointV6 { addresses: [address(0), address(1)], words: [word(2), word(3)] }
    }

    #[inline]
    fn covers(row: &RowV6, point: PointV6) -> bool {
        let mut inside = true;
        for n in 0..2 {
            let ((low, high), address) = (row.addresses[n], point.addresses[n]);
            inside &= (low <= address) & (address <= high);
            let ((low, high), word) = (row.words[n], point.words[n]);
            inside &= (low <= word) & (word <= high);
        }
        inside
    }

    #[inline]
    fn hash(point: PointV6, mask: &PointV6) -> u64 {
        let word = |n: usize| u64::from(point.words[n] & mask.words[n]);
        let mut sum = (word(0) | word(1) << 32).wrapping_mul(FACTORS[4]);
        for n in 0..2 {
            let address = point.addresses[n] & mask.addresses[n];
            sum = sum.wrapping_add((address as u64).wrapping_mul(FACTORS[2 * n]));
            sum = sum.wrapping_add(((address >> 64) as u64).wrapping_mul(FACTORS[2 * n + 1]));
        }
        sum
    }
}

/// The fields of a packet; `None` if it is not of the family.
#[inline]
pub(super) fn packet<F: Family>(tuple: &FiveTuple, direction: Direction) -> Option<F::Point> {
    let outbound = direction == Direction::Outbound;
    let (near, far) = match tuple.ports {
        Ports::None => (NONE, NONE),
        Ports::Opaque => (OPAQUE, OPAQUE),
        Ports::Pair { source, destination } => {
            let (near, far) = if outbound { (source, destination) } else { (destination, source) };
            (PAIR | u32::from(near), PAIR | u32::from(far))
        }
        Ports::Icmp { kind, code } => (ICMP | u32::from(kind), ICMP | u32::from(code)),
    };
    let near = near | u32::from(tuple.protocol) << PROTOCOL_SHIFT;
    F::point(tuple.local(direction), tuple.remote(direction), near, far)
}

/// The words of a selector, each as lowest and highest, and whether that says
/// all of it: otherwise the selector covers less than they enclose.
pub(crate) fn words(selector: &Selector) -> ([(u32, u32); 2], bool) {
    let (near, far) = match selector.ports {
        PortSelector::Any => ((NONE, PORTS), (NONE, PORTS)),
        PortSelector::Ports { local, remote } => {
            let pair = |(low, high): (u16, u16)| (PAIR | u32::from(low), PAIR | u32::from(high));
            (pair(local), pair(remote))
        }
        PortSelector::Icmp { kind, code } => {
            let icmp = |(low, high): (u8, u8)| (ICMP | u32::from(low), ICMP | u32::from(high));
            (icmp(kind), icmp(code))
        }
    };
    match selector.protocol {
        Some(protocol) => {
            let protocol = u32::from(protocol) << PROTOCOL_SHIFT;
            ([(protocol | near.0, protocol | near.1), far], true)
        }
        None => ([(0, u32::from(u8::MAX) << PROTOCOL_SHIFT | PORTS), far], selector.ports == PortSelector::Any),
    }
}

/// A selector as lowest and highest point, and whether they say all of it. `None`
/// if it is not of the family.
pub(super) fn points<F: Family>(selector: &Selector) -> Option<(F::Point, F::Point, bool)> {
    let ([near, far], exact) = words(selector);
    let point =
        |of: fn(&AddressRange) -> IpAddr, near, far| F::point(of(&selector.local), of(&selector.remote), near, far);
    Some((point(AddressRange::first, near.0, far.0)?, point(AddressRange::last, near.1, far.1)?, exact))
}
