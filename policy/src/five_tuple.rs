//! What identifies a conversation.

use core::fmt;
use std::net::IpAddr;

/// Which way a packet goes, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the protected side to the wire.
    Outbound,
    /// From the wire to the protected side.
    Inbound,
}

/// An interface of the packet path, by which packets enter and leave: its place
/// in [`Startup::attachments`](crate::config::Startup::attachments).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment(u8);

impl Attachment {
    /// The TUN interface, which there always is.
    pub const TUN: Self = Self(0);
    /// How many there can be: so many have room in the keys of the SPD cache.
    pub const MOST: usize = 64;

    /// By its place; `None` beyond [`Attachment::MOST`].
    #[must_use]
    pub fn new(place: usize) -> Option<Self> {
        (place < Self::MOST).then_some(Self(place as u8))
    }

    /// Of the low bits of a number.
    pub(crate) const fn of_low_bits(bits: u64) -> Self {
        Self((bits % Self::MOST as u64) as u8)
    }

    /// Its place.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0 as usize
    }
}

/// The part of a packet that takes the place of ports (RFC 4301 4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// The protocol has none.
    None,
    /// It has, but they cannot be seen: a fragment that is not the first (RFC 4301 OPAQUE).
    Opaque,
    /// TCP, UDP, SCTP, DCCP, UDP-Lite.
    Pair {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Message type.
        kind: u8,
        /// Message code.
        code: u8,
    },
}

/// Addresses, protocol and ports of a packet, as in its headers: `source` is
/// the sender's whatever the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver; of the same family.
    pub destination: IpAddr,
    /// IP protocol, after IPv6 extension headers.
    pub protocol: u8,
    /// Ports, or what stands for them.
    pub ports: Ports,
    /// Where the packet enters or leaves. No part of a conversation, but of what policies ask.
    pub interface: Attachment,
}

impl FiveTuple {
    /// The address on this side.
    #[must_use]
    pub fn local(&self, direction: Direction) -> IpAddr {
        match direction {
            Direction::Outbound => self.source,
            Direction::Inbound => self.destination,
        }
    }

    /// The address on the other side.
    #[must_use]
    pub fn remote(&self, direction: Direction) -> IpAddr {
        match direction {
            Direction::Outbound => self.destination,
            Direction::Inbound => self.source,
        }
    }
}

/// `6 10.1.1.1:1024 > 10.2.2.2:80`.
impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, d) = (self.source, self.destination);
        match self.ports {
            Ports::None => write!(f, "{} {s} > {d}", self.protocol),
            Ports::Opaque => write!(f, "{} {s} > {d} (fragment)", self.protocol),
            Ports::Pair { source, destination } => write!(
                f,
                "{} {} > {}",
                self.protocol,
                std::net::SocketAddr::new(s, source),
                std::net::SocketAddr::new(d, destination)
            ),
            Ports::Icmp { kind, code } => write!(f, "{} {s} > {d} type {kind} code {code}", self.protocol),
        }
    }
}
