//! What the packet path reads of an inner packet's headers (IPv4, IPv6 with
//! extension headers), with strict lengths.
//!
//! Only headers up to the ports are looked at. What follows them is the
//! receiver's business.

use policy::five_tuple::{Attachment, FiveTuple, Ports};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in something.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 in something.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 no next header; in ESP a dummy packet (RFC 4303 2.6).
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Octets of an IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Extension headers a packet may have; RFC 8504 5.3 lets a node set a limit, and suggests 8.
const MAX_EXTENSION_HEADERS: usize = 16;

/// Place of a packet in a fragmented one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented (an IPv6 atomic fragment, RFC 6946, counts as whole).
    Whole,
    /// The first fragment: it shows the ports.
    First,
    /// Any other.
    Later,
}

/// The headers of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// What policies are asked about; as of a packet of the TUN interface.
    pub tuple: FiveTuple,
    /// Octets of the whole packet by its own account; never more than were given.
    pub total_len: usize,
    /// Octets before the upper-layer header, or before the fragment's data.
    pub header_len: usize,
    /// IPv4 type of service, or IPv6 traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Its sender forbids fragmentation: the DF bit of IPv4; always so in IPv6.
    pub dont_fragment: bool,
    /// Place in a fragmented packet.
    pub fragment: Fragment,
}

/// Why a packet cannot be understood. All are the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Neither 4 nor 6.
    #[error("IP version {0}, not 4 or 6")]
    Version(u8),
    /// It ends before a header does, or before its own length says.
    #[error("the packet is shorter than its headers say")]
    Truncated,
    /// A length field contradicts itself.
    #[error("a header's length field is impossible")]
    Length,
    /// More than 16 IPv6 extension headers.
    #[error("more than 16 IPv6 extension headers")]
    TooManyExtensionHeaders,
    /// A fragment whose protocol lies in another fragment: no policy could be asked (RFC 7112).
    #[error("a fragment whose upper-layer protocol is in another fragment")]
    HiddenProtocol,
}

impl Headers {
    /// Reads the headers of a packet that begins with its IP header. Octets
    /// behind the packet's own length are allowed: see [`Headers::total_len`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, HeaderError> {
        match packet.first().map(|b| b >> 4) {
            Some(4) => parse_ipv4(packet),
            Some(6) => parse_ipv6(packet),
            Some(version) => Err(HeaderError::Version(version)),
            None => Err(HeaderError::Truncated),
        }
    }

    /// Whether it is IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.tuple.source.is_ipv4()
    }
}

fn parse_ipv4(packet: &[u8]) -> Result<Headers, HeaderError> {
    let (fixed, _) = packet.split_first_chunk::<IPV4_HEADER>().ok_or(HeaderError::Truncated)?;
    let header_len = usize::from(fixed[0] & 0xf) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header_len < IPV4_HEADER || total_len < header_len {
        return Err(HeaderError::Length);
    }
    let packet = packet.get(..total_len).ok_or(HeaderError::Truncated)?;
    let flags_offset = u16::from_be_bytes([fixed[6], fixed[7]]);
    let (more, offset) = (flags_offset & 0x2000 != 0, flags_offset & 0x1fff);
    let fragment = match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    let protocol = fixed[9];
    // Evidently in range: header_len <= total_len == packet.len().
    let ports = ports(protocol, fragment, &packet[header_len..])?;
    let [.., a, b, c, d, e, f, g, h] = *fixed;
    Ok(Headers {
        tuple: FiveTuple {
            source: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            destination: IpAddr::V4(Ipv4Addr::new(e, f, g, h)),
            protocol,
            ports,
            interface: Attachment::TUN,
        },
        total_len,
        header_len,
        traffic_class: fixed[1],
        dont_fragment: flags_offset & 0x4000 != 0,
        fragment,
    })
}

fn parse_ipv6(packet: &[u8]) -> Result<Headers, HeaderError> {
    let (fixed, _) = packet.split_first_chunk::<IPV6_HEADER>().ok_or(HeaderError::Truncated)?;
    // A jumbogram (RFC 2675) says 0 and has a hop-by-hop header: it ends up truncated, as it should here.
    let total_len = IPV6_HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let packet = packet.get(..total_len).ok_or(HeaderError::Truncated)?;
    let (mut protocol, mut at, mut fragment) = (fixed[6], IPV6_HEADER, Fragment::Whole);
    let mut extension_headers = 0;
    while fragment != Fragment::Later {
        let rest = &packet[at..];
        let len = match protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                8 + 8 * usize::from(*rest.get(1).ok_or(HeaderError::Truncated)?)
            }
            protocol::FRAGMENT => {
                let (header, _) = rest.split_first_chunk::<8>().ok_or(HeaderError::Truncated)?;
                let field = u16::from_be_bytes([header[2], header[3]]);
                fragment = match (field >> 3, field & 1) {
                    (0, 0) => fragment,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            _ => break,
        };
        if rest.len() < len {
            return Err(HeaderError::Truncated);
        }
        protocol = rest[0];
        at += len;
        extension_headers += 1;
        if extension_headers > MAX_EXTENSION_HEADERS {
            return Err(HeaderError::TooManyExtensionHeaders);
        }
    }
    let is_extension = matches!(
        protocol,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS | protocol::FRAGMENT
    );
    if fragment == Fragment::Later && is_extension {
        return Err(HeaderError::HiddenProtocol);
    }
    let ports = ports(protocol, fragment, &packet[at..])?;
    Ok(Headers {
        tuple: FiveTuple {
            source: IpAddr::V6(ipv6_address(fixed, 8)),
            destination: IpAddr::V6(ipv6_address(fixed, 24)),
            protocol,
            ports,
            interface: Attachment::TUN,
        },
        total_len,
        header_len: at,
        traffic_class: fixed[0] << 4 | fixed[1] >> 4,
        dont_fragment: true,
        fragment,
    })
}

fn ipv6_address(header: &[u8; IPV6_HEADER], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// A whole packet, or a first fragment, too short to show its ports is an error
/// (RFC 1858: tiny fragments are an attack on filters).
#[inline]
fn ports(protocol: u8, fragment: Fragment, payload: &[u8]) -> Result<Ports, HeaderError> {
    let has_ports = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDP_LITE => true,
        protocol::ICMP | protocol::ICMPV6 => false,
        _ => return Ok(Ports::None),
    };
    if fragment == Fragment::Later {
        return Ok(Ports::Opaque);
    }
    let (first, _) = payload.split_first_chunk::<4>().ok_or(HeaderError::Truncated)?;
    Ok(if has_ports {
        Ports::Pair {
            source: u16::from_be_bytes([first[0], first[1]]),
            destination: u16::from_be_bytes([first[2], first[3]]),
        }
    } else {
        Ports::Icmp { kind: first[0], code: first[1] }
    })
}

/// The Internet checksum (RFC 1071) over the concatenation of `parts`, each but
/// the last of even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        let (pairs, odd) = part.as_chunks::<2>();
        // At most 65,535 / 2 words of 16 bits a part, and few parts: 32 bits do not overflow.
        sum += pairs.iter().map(|p| u32::from(u16::from_be_bytes(*p))).sum::<u32>();
        sum += odd.first().map_or(0, |b| u32::from(*b) << 8);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Writes the header checksum of an IPv4 header, given exactly.
pub(crate) fn seal_ipv4_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum(&[header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
