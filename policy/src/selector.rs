//! Selectors: what a policy or an SA covers (RFC 4301 4.4.1).

use crate::five_tuple::{Direction, FiveTuple, Ports};
use core::fmt;
use core::ops::RangeInclusive;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A non-empty range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Every IPv4 address.
    pub const ANY_V4: Self = Self { first: IpAddr::V4(Ipv4Addr::UNSPECIFIED), last: IpAddr::V4(Ipv4Addr::BROADCAST) };
    /// Every IPv6 address.
    pub const ANY_V6: Self =
        Self { first: IpAddr::V6(Ipv6Addr::UNSPECIFIED), last: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)) };

    /// Just `address`.
    #[must_use]
    pub const fn single(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    /// From `first` to `last`, both included; `None` if the families differ or the order is wrong.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The network of `prefix` leading bits around `address`, whose host bits
    /// are ignored; `None` if the prefix is longer than the address.
    #[must_use]
    pub fn prefix(address: IpAddr, prefix: u8) -> Option<Self> {
        match address {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                let network = a.to_bits() & !host;
                (prefix <= 32)
                    .then(|| Self { first: IpAddr::V4(network.into()), last: IpAddr::V4((network | host).into()) })
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                let network = a.to_bits() & !host;
                (prefix <= 128)
                    .then(|| Self { first: IpAddr::V6(network.into()), last: IpAddr::V6((network | host).into()) })
            }
        }
    }

    /// Lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the range is one of IPv4 addresses.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether every address of `other` lies in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// What both have in common.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.is_ipv4() != other.is_ipv4() {
            return None;
        }
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Whether it is every address of its family.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::ANY_V4 || *self == Self::ANY_V6
    }

    /// The prefix length, if the range is exactly one prefix.
    #[must_use]
    pub fn prefix_len(&self) -> Option<u8> {
        let (width, spread) = match (self.first, self.last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (32, u128::from(a.to_bits() ^ b.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits() ^ b.to_bits()),
            _ => return None,
        };
        let host_bits = 128 - spread.leading_zeros() as u8;
        let len = width - host_bits;
        (Self::prefix(self.first, len) == Some(*self)).then_some(len)
    }

    /// The fewest prefixes that cover exactly the range, in ascending order, as
    /// (network, length).
    #[must_use]
    pub fn to_prefixes(&self) -> Vec<(IpAddr, u8)> {
        let (mut at, last, width) = match (self.first, self.last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32u32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return Vec::new(),
        };
        let mut out = Vec::new();
        loop {
            // The largest block that starts here and does not pass the end.
            let mut bits = at.trailing_zeros().min(width);
            while bits > 0 && block_end(at, bits) > last {
                bits -= 1;
            }
            let address = if width == 32 {
                IpAddr::V4(Ipv4Addr::from_bits(at as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(at))
            };
            out.push((address, (width - bits) as u8));
            let end = block_end(at, bits);
            if end >= last {
                return out;
            }
            at = end + 1;
        }
    }
}

fn block_end(at: u128, bits: u32) -> u128 {
    at | if bits == 0 { 0 } else { u128::MAX >> (128 - bits) }
}

/// `10.1.1.1`, `10.1.0.0/16` or `10.1.1.1-10.1.1.3`.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        match self.prefix_len() {
            Some(len) => write!(f, "{}/{len}", self.first),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Ports, ICMP types and codes, or anything, for one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSelector {
    /// Whatever the packet has there, or has not: also OPAQUE.
    Any,
    /// Ports of the local and of the remote side, inclusive.
    Ports {
        /// (lowest, highest) on this side.
        local: (u16, u16),
        /// (lowest, highest) on the other side.
        remote: (u16, u16),
    },
    /// ICMP types and codes, inclusive.
    Icmp {
        /// (lowest, highest) type.
        kind: (u8, u8),
        /// (lowest, highest) code.
        code: (u8, u8),
    },
}

/// What a policy or an SA covers. `local` is always this side: the source of
/// outbound packets, the destination of inbound ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Addresses on this side.
    pub local: AddressRange,
    /// Addresses on the other side; of the same family.
    pub remote: AddressRange,
    /// IP protocol; `None` is any.
    pub protocol: Option<u8>,
    /// Ports or ICMP type and code; anything but [`PortSelector::Any`] needs a protocol.
    pub ports: PortSelector,
}

impl Selector {
    /// Everything between two ranges of addresses.
    #[must_use]
    pub fn between(local: AddressRange, remote: AddressRange) -> Self {
        Self { local, remote, protocol: None, ports: PortSelector::Any }
    }

    /// Whether a packet is covered. A fragment without ports is covered only
    /// by a selector that does not look at ports (RFC 4301 7.2).
    #[must_use]
    pub fn matches(&self, tuple: &FiveTuple, direction: Direction) -> bool {
        self.local.contains(tuple.local(direction))
            && self.remote.contains(tuple.remote(direction))
            && self.protocol.is_none_or(|p| p == tuple.protocol)
            && self.ports.matches(tuple.ports, direction)
    }

    /// The first field, if any, in which a packet is not covered: for explanations.
    #[must_use]
    pub fn first_difference(&self, tuple: &FiveTuple, direction: Direction) -> Option<&'static str> {
        if !self.local.contains(tuple.local(direction)) {
            Some("source (local address)")
        } else if !self.remote.contains(tuple.remote(direction)) {
            Some("destination (remote address)")
        } else if self.protocol.is_some_and(|p| p != tuple.protocol) {
            Some("protocol")
        } else if !self.ports.matches(tuple.ports, direction) {
            Some("port")
        } else {
            None
        }
    }

    /// Whether every packet that `other` covers is covered.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.local.covers(&other.local)
            && self.remote.covers(&other.remote)
            && self.protocol.is_none_or(|p| other.protocol == Some(p))
            && self.ports.covers(&other.ports)
    }
}

impl PortSelector {
    fn matches(&self, ports: Ports, direction: Direction) -> bool {
        match (self, ports) {
            (Self::Any, _) => true,
            (Self::Ports { local, remote }, Ports::Pair { source, destination }) => {
                let (l, r) = match direction {
                    Direction::Outbound => (source, destination),
                    Direction::Inbound => (destination, source),
                };
                within(*local).contains(&l) && within(*remote).contains(&r)
            }
            (Self::Icmp { kind, code }, Ports::Icmp { kind: k, code: c }) => {
                within(*kind).contains(&k) && within(*code).contains(&c)
            }
            _ => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        fn over<T: PartialOrd + Copy>(a: (T, T), b: (T, T)) -> bool {
            a.0 <= b.0 && b.1 <= a.1
        }
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Ports { local, remote }, Self::Ports { local: l, remote: r }) => {
                over(*local, *l) && over(*remote, *r)
            }
            (Self::Icmp { kind, code }, Self::Icmp { kind: k, code: c }) => over(*kind, *k) && over(*code, *c),
            _ => false,
        }
    }
}

fn within<T: Copy>(r: (T, T)) -> RangeInclusive<T> {
    r.0..=r.1
}

/// `10.1.0.0/16 <=> 10.2.0.0/16 protocol 6 local port 1-1023`; parts that say nothing are left out.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn span<T: fmt::Display + PartialEq>(f: &mut fmt::Formatter<'_>, what: &str, r: &(T, T)) -> fmt::Result {
            if r.0 == r.1 { write!(f, " {what} {}", r.0) } else { write!(f, " {what} {}-{}", r.0, r.1) }
        }
        write!(f, "{} <=> {}", self.local, self.remote)?;
        if let Some(p) = self.protocol {
            write!(f, " protocol {p}")?;
        }
        match &self.ports {
            PortSelector::Any => Ok(()),
            PortSelector::Ports { local, remote } => {
                if *local != (0, u16::MAX) {
                    span(f, "local port", local)?;
                }
                if *remote != (0, u16::MAX) {
                    span(f, "remote port", remote)?;
                }
                Ok(())
            }
            PortSelector::Icmp { kind, code } => {
                span(f, "type", kind)?;
                if *code != (0, u8::MAX) {
                    span(f, "code", code)?;
                }
                Ok(())
            }
        }
    }
}
