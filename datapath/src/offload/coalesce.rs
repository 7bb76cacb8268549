//! Putting packets of one conversation together, so that the kernel takes them as one.
//!
//! Only packets that cutting would make again, octet for octet, are put together: TCP segments that follow each
//! other and differ in nothing else, UDP datagrams of one length. (Identifications that mean nothing may change.) A packet whose checksum is wrong is left alone,
//! since a super-packet's is made anew: what somebody else broke must not become right here.

use super::{Kind, UDP_HEADER, VirtioHeader, add, checksum_offset, pseudo_header, sum};
use crate::headers::{IPV4_HEADER, IPV6_HEADER, protocol, seal_ipv4_header};
use crate::packet::{MAX_PACKET, Packet};

/// Packets in one super-packet: the kernel takes no more UDP datagrams (UDP_MAX_SEGMENTS, 64 in older kernels),
/// and no system call more than 1024 parts.
pub const MOST: usize = 64;
/// Conversations that are open at once; of more, the oldest is closed.
const OPEN: usize = 8;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// What of a packet decides what it may be put together with.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Kind,
    /// Octets of the IP header, and of both.
    ip: usize,
    headers: usize,
    payload: usize,
}

/// Packets that go to the kernel as one, in their order.
#[derive(Debug)]
struct Group {
    /// `None`: one packet, as it is.
    shape: Option<Shape>,
    first: usize,
    last: usize,
    count: usize,
    /// Octets of all payloads.
    payload: usize,
    /// No more packets come to it.
    closed: bool,
}

/// Plans of what to put together, and how; kept for their memory.
#[derive(Debug, Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// The packet after each in its group.
    next: Vec<usize>,
}

/// One packet, or several as one, for the kernel.
#[derive(Debug, Default)]
pub struct SuperPacket {
    /// What to say of it.
    pub header: VirtioHeader,
    /// The headers that replace those of the first packet; empty if it goes as it is.
    pub headers: Headers,
    /// Octets to leave out at the beginning of each packet.
    pub skip: usize,
}

/// The headers of a super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    octets: [u8; LONGEST],
    len: usize,
}

/// IPv6, and TCP with all its options.
const LONGEST: usize = IPV6_HEADER + 60;

impl Default for Headers {
    fn default() -> Self {
        Self { octets: [0; LONGEST], len: 0 }
    }
}

impl Headers {
    /// The octets.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

impl Coalescer {
    /// Plans for a list of packets; `tcp` and `udp` say what the kernel takes. Packets of one conversation stay in
    /// their order.
    pub fn plan(&mut self, packets: &[Packet], tcp: bool, udp: bool) {
        self.groups.clear();
        self.next.clear();
        self.next.resize(packets.len(), usize::MAX);
        let mut oldest_open = 0;
        for at in 0..packets.len() {
            let packet = packets[at].as_slice();
            let Some(shape) = shape(packet).filter(|s| if s.kind == Kind::Udp { udp } else { tcp }) else {
                // Whatever it is of, what comes later must not overtake it.
                self.close_conversation(packets, packet, oldest_open);
                self.alone(at);
                continue;
            };
            let own = |group: &Group| {
                group.shape.is_some_and(|s| s.kind == shape.kind)
                    && same_conversation(packets[group.first].as_slice(), packet, shape.ip)
            };
            let found =
                (oldest_open..self.groups.len()).rev().find(|&g| !self.groups[g].closed && own(&self.groups[g]));
            if let Some(found) = found {
                let last = self.groups[found].last;
                if self.groups[found].takes(packets, packet, shape) {
                    let group = &mut self.groups[found];
                    self.next[last] = at;
                    group.last = at;
                    group.count += 1;
                    group.payload += shape.payload;
                    group.closed = ends(packet, shape) || group.shape.is_some_and(|s| shape.payload < s.payload);
                    continue;
                }
                self.groups[found].closed = true;
            }
            self.groups.push(Group {
                shape: Some(shape),
                first: at,
                last: at,
                count: 1,
                payload: shape.payload,
                closed: ends(packet, shape),
            });
            while self.groups.len() - oldest_open > OPEN {
                self.groups[oldest_open].closed = true;
                oldest_open += 1;
            }
        }
    }

    /// What to hand over, in this order, with the places of its packets.
    pub fn groups<'c>(
        &'c self,
        packets: &'c [Packet],
    ) -> impl Iterator<Item = (SuperPacket, impl Iterator<Item = usize> + Clone + 'c)> {
        self.groups.iter().map(move |group| {
            let places =
                core::iter::successors(Some(group.first), |&at| Some(self.next[at]).filter(|&n| n != usize::MAX));
            (group.super_packet(packets), places)
        })
    }

    fn alone(&mut self, at: usize) {
        self.groups.push(Group { shape: None, first: at, last: at, count: 1, payload: 0, closed: true });
    }

    /// Closes the groups of the conversation of a packet that is not put together with others; all of them, if
    /// it does not show what it is of.
    fn close_conversation(&mut self, packets: &[Packet], packet: &[u8], from: usize) {
        for group in &mut self.groups[from..] {
            let of_another = ip_header(packet).is_some_and(|ip| {
                !is_fragment(packet)
                    && packet.len() >= ip + 4
                    && !same_conversation(packets[group.first].as_slice(), packet, ip)
            });
            group.closed |= !of_another;
        }
    }
}

impl Group {
    /// Whether a packet of its conversation follows its last one and differs in nothing but what counts.
    fn takes(&self, packets: &[Packet], packet: &[u8], shape: Shape) -> bool {
        let Some(own) = self.shape else { return false };
        let (first, last) = (packets[self.first].as_slice(), packets[self.last].as_slice());
        let fits = own.headers == shape.headers
            && shape.payload <= own.payload
            && self.count < MOST
            && own.headers + self.payload + shape.payload <= MAX_PACKET;
        fits && same_ip_header(first, last, packet) && (own.kind == Kind::Udp || self.follows(first, packet, own))
    }

    /// Whether a TCP segment is the next, with the same acknowledgement, window and options.
    fn follows(&self, first: &[u8], packet: &[u8], own: Shape) -> bool {
        let (first, tcp) = (&first[own.ip..own.headers], &packet[own.ip..own.headers]);
        let sequence = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        sequence(tcp) == sequence(first).wrapping_add(self.payload as u32)
            && tcp[8..13] == first[8..13]
            && tcp[14..16] == first[14..16]
            && tcp[18..] == first[18..]
    }

    fn super_packet(&self, packets: &[Packet]) -> SuperPacket {
        let mut headers = Headers::default();
        let Some(shape) = self.shape.filter(|_| self.count > 1) else {
            return SuperPacket { header: VirtioHeader::default(), headers, skip: 0 };
        };
        let (first, last) = (packets[self.first].as_slice(), packets[self.last].as_slice());
        headers.len = shape.headers;
        headers.octets[..shape.headers].copy_from_slice(&first[..shape.headers]);
        let len = shape.headers + self.payload;
        let upper_len = len - shape.ip;
        let (ip, upper) = headers.octets[..shape.headers].split_at_mut(shape.ip);
        if ip[0] >> 4 == 4 {
            ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            seal_ipv4_header(ip);
        } else {
            ip[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
        }
        let protocol = if shape.kind == Kind::Udp { protocol::UDP } else { protocol::TCP };
        if protocol == protocol::TCP {
            upper[13] |= last[shape.ip + 13] & PSH;
        } else {
            upper[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
        }
        // The kernel adds the rest of the sum, segment by segment if need be.
        let offset = checksum_offset(protocol);
        let partial = pseudo_header(ip, protocol, upper_len);
        upper[offset..offset + 2].copy_from_slice(&partial.to_be_bytes());
        SuperPacket {
            header: VirtioHeader {
                checksum: Some((shape.ip as u16, offset as u16)),
                segments: Some((shape.kind, shape.payload as u16)),
                header_len: shape.headers as u16,
            },
            headers,
            skip: shape.headers,
        }
    }
}

/// Whether nothing can follow a packet in its group: it asks for attention at once.
fn ends(packet: &[u8], shape: Shape) -> bool {
    shape.kind != Kind::Udp && packet[shape.ip + 13] & PSH != 0
}

/// The IP header of a packet that may be put together with others, without options and extension headers.
fn ip_header(packet: &[u8]) -> Option<usize> {
    match packet.first()? {
        0x45 => Some(IPV4_HEADER),
        first if first >> 4 == 6 => Some(IPV6_HEADER),
        _ => None,
    }
    .filter(|ip| packet.len() > *ip)
}

fn is_fragment(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0
    } else {
        // Whatever has extension headers is no packet of a conversation here.
        !matches!(packet[6], protocol::TCP | protocol::UDP)
    }
}

/// The shape of a packet that may be put together with others.
fn shape(packet: &[u8]) -> Option<Shape> {
    let ip = ip_header(packet)?;
    if is_fragment(packet) {
        return None;
    }
    let ipv4 = ip == IPV4_HEADER;
    let protocol = if ipv4 { packet[9] } else { packet[6] };
    let said = if ipv4 {
        usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    } else {
        IPV6_HEADER + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    };
    let upper = &packet[ip..];
    let (kind, upper_header) = match protocol {
        protocol::TCP if upper.len() >= 20 && upper[13] & !PSH == ACK => {
            let kind = if ipv4 { Kind::Tcp4 } else { Kind::Tcp6 };
            (kind, usize::from(upper[12] >> 4) * 4)
        }
        // A datagram without a checksum would get one.
        protocol::UDP
            if upper.len() >= UDP_HEADER
                && upper[6..8] != [0, 0]
                && usize::from(u16::from_be_bytes([upper[4], upper[5]])) == upper.len() =>
        {
            (Kind::Udp, UDP_HEADER)
        }
        _ => return None,
    };
    let least = if kind == Kind::Udp { UDP_HEADER } else { 20 };
    let payload = upper.len().checked_sub(upper_header).filter(|&payload| payload > 0 && upper_header >= least)?;
    let right = said == packet.len() && add(&[pseudo_header(packet, protocol, upper.len()), sum(upper)]) == 0xffff;
    right.then_some(Shape { kind, ip, headers: ip + upper_header, payload })
}

/// Whether two packets have the same addresses, protocol and ports.
fn same_conversation(one: &[u8], other: &[u8], ip: usize) -> bool {
    if one.len() < ip + 4 || one[0] >> 4 != other[0] >> 4 {
        return false;
    }
    let (addresses, protocol) = if ip == IPV4_HEADER { (12..20, 9) } else { (8..40, 6) };
    one[addresses.clone()] == other[addresses]
        && one[protocol] == other[protocol]
        && one[ip..ip + 4] == other[ip..ip + 4]
}

/// Whether nothing but length, identification and checksum differs, and the identification is the one that cutting
/// would give it, or nobody's business: that of a packet which may not be fragmented (RFC 6864 4.1).
fn same_ip_header(first: &[u8], last: &[u8], packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 {
        let id = |p: &[u8]| u16::from_be_bytes([p[4], p[5]]);
        let atomic = packet[6] & 0x40 != 0;
        packet[1] == first[1] && packet[6..9] == first[6..9] && (atomic || id(packet) == id(last).wrapping_add(1))
    } else {
        packet[..4] == first[..4] && packet[7] == first[7]
    }
}
