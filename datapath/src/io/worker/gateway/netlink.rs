//! Asking the kernel for links, routes and neighbours, and hearing of their changes.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as SocketFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// What the kernel says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its address; `None`: it is no Ethernet.
    pub(super) mac: Option<Mac>,
    /// Octets of the largest packet.
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// Where the kernel would send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To this machine, it alone or among others.
    Here,
    /// By an interface.
    Via {
        interface: u32,
        /// Whose Ethernet address it takes.
        next_hop: IpAddr,
        /// Octets of the largest packet, if the route says so.
        mtu: Option<u32>,
        /// What this machine would send from.
        source: Option<IpAddr>,
    },
    /// There is none, perhaps by intent.
    Nowhere,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its address, which it has confirmed of late.
    Fresh(Mac),
    /// Its address; whether it is still there is to be seen.
    Stale(Mac),
    /// It has been asked for.
    Asked,
    /// It does not answer.
    Failed,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Of a neighbour.
    Neighbour { interface: u32, address: IpAddr, known: Known },
    /// Links, addresses, routes or rules are others than before; or so much has changed that it was not all told.
    Everything,
}

/// Octets of the longest answer: a link with all its attributes.
const LONGEST: usize = 64 * 1024;
/// Groups of rtnetlink, each a bit: RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR,
/// _IPV6_ROUTE, _IPV6_RULE.
const GROUPS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;

/// A socket for questions and one for news.
#[derive(Debug)]
pub(super) struct Netlink {
    questions: OwnedFd,
    news: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let open = |flags, groups| -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | flags;
            // No protocol is NETLINK_ROUTE.
            let fd = rustix::net::socket_with(SocketFamily::NETLINK, SocketType::RAW, flags, None)?;
            rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
            Ok(fd)
        };
        Ok(Self {
            questions: open(SocketFlags::empty(), 0)?,
            news: open(SocketFlags::NONBLOCK, GROUPS)?,
            sequence: 0,
            buffer: vec![0; LONGEST].into_boxed_slice(),
        })
    }

    /// Readable when there is news.
    pub(super) fn news_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Takes what has changed since.
    pub(super) fn take_news(&mut self, each: &mut impl FnMut(News)) -> io::Result<()> {
        loop {
            match rustix::net::recv(&self.news, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, len)) => {
                    for message in messages(&self.buffer[..len.min(LONGEST)]) {
                        if let NetlinkPayload::InnerMessage(message) = message.payload {
                            news(&message).into_iter().for_each(&mut *each);
                        }
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // Some of it is lost.
                Err(Errno::NOBUFS) => each(News::Everything),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// An interface, by its index.
    pub(super) fn link(&mut self, index: u32) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.ask(RouteNetlinkMessage::GetLink(message))? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link_of(&link)),
            _ => Err(Errno::NODEV.into()),
        }
    }

    /// The way to an address, for what carries the firewall mark.
    pub(super) fn way(&mut self, destination: IpAddr, mark: u32) -> io::Result<Way> {
        let mut message = RouteMessage::default();
        let (family, length, address) = match destination {
            IpAddr::V4(a) => (AddressFamily::Inet, 32, RouteAddress::Inet(a)),
            IpAddr::V6(a) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(a)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes = vec![RouteAttribute::Destination(address), RouteAttribute::Mark(mark)];
        match self.ask(RouteNetlinkMessage::GetRoute(message)) {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(way_of(&route, destination)),
            Ok(_) => Ok(Way::Nowhere),
            // No route, or one that says so.
            Err(e) if is_no_route(&e) => Ok(Way::Nowhere),
            Err(e) => Err(e),
        }
    }

    /// What is known of a neighbour, which has not been heard of before: if it is nothing, the kernel asks for it.
    pub(super) fn neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<Known> {
        match self.ask(RouteNetlinkMessage::GetNeighbour(about(interface, address))) {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(message))) => match known(&message) {
                Known::Failed => {}
                known => return Ok(known),
            },
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
        self.use_neighbour(interface, address)?;
        Ok(Known::Asked)
    }

    /// Tells the kernel that a neighbour is in use: it makes sure that it is there.
    pub(super) fn use_neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<()> {
        let mut message = about(interface, address);
        message.header.flags = NeighbourFlags::Use;
        self.ask(RouteNetlinkMessage::NewNeighbour(message)).map(|_| ())
    }

    /// Asks one question; `None`: done, and nothing to say.
    fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let changes = matches!(question, RouteNetlinkMessage::NewNeighbour(_));
        let mut header = NetlinkHeader::default();
        header.flags = if changes { NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE } else { NLM_F_REQUEST };
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let length = message.buffer_len();
        message.serialize(&mut self.buffer[..length]);
        rustix::net::send(&self.questions, &self.buffer[..length], SendFlags::empty())?;
        loop {
            // The kernel has answered before `send` came back.
            let len = match rustix::net::recv(&self.questions, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, len)) => len,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            // An answer to an earlier question is one that was given up.
            let mut answers = messages(&self.buffer[..len.min(LONGEST)]);
            if let Some(answer) = answers.find(|m| m.header.sequence_number == self.sequence) {
                return match answer.payload {
                    NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                    NetlinkPayload::Error(e) if e.code.is_some() => Err(e.to_io()),
                    _ => Ok(None),
                };
            }
        }
    }
}

/// Reads the messages of a datagram; what is no message ends it.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    core::iter::from_fn(move || {
        loop {
            let length = u32::from_ne_bytes(*octets.first_chunk()?) as usize;
            if length < 16 || length > octets.len() {
                return None;
            }
            let one = &octets[..length];
            octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
            // One that this library does not understand tells of what does not matter here.
            if let Ok(message) = NetlinkMessage::deserialize(one) {
                return Some(message);
            }
        }
    })
}

fn is_no_route(e: &io::Error) -> bool {
    let codes = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL, Errno::NODEV, Errno::SRCH];
    e.raw_os_error().is_some_and(|code| codes.iter().any(|c| c.raw_os_error() == code))
}

fn about(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface;
    let (family, destination) = match address {
        IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
    };
    message.header.family = family;
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

fn link_of(message: &LinkMessage) -> Link {
    let (mut mac, mut mtu) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(octets) => mac = octets.as_slice().try_into().ok(),
            LinkAttribute::Mtu(n) => mtu = *n,
            _ => {}
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    Link { mac: mac.filter(|_| ethernet), mtu, up: message.header.flags.contains(LinkFlags::Up) }
}

fn way_of(message: &RouteMessage, destination: IpAddr) -> Way {
    match message.header.kind {
        // Whom else such a packet may be for, the kernel knows.
        RouteType::Local | RouteType::Anycast | RouteType::Broadcast | RouteType::Multicast => return Way::Here,
        RouteType::Unicast => {}
        _ => return Way::Nowhere,
    }
    let (mut interface, mut next_hop, mut mtu, mut source) = (None, destination, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(a) => next_hop = address(a).unwrap_or(next_hop),
            RouteAttribute::Via(RouteVia::Inet(a)) => next_hop = (*a).into(),
            RouteAttribute::Via(RouteVia::Inet6(a)) => next_hop = (*a).into(),
            RouteAttribute::PrefSource(a) => source = address(a),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(n) = m { Some(*n) } else { None });
            }
            _ => {}
        }
    }
    interface.map_or(Way::Nowhere, |interface| Way::Via { interface, next_hop, mtu, source })
}

fn address(a: &RouteAddress) -> Option<IpAddr> {
    match a {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn known(message: &NeighbourMessage) -> Known {
    let mac = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(octets) => octets.as_slice().try_into().ok(),
        _ => None,
    });
    match (message.header.state, mac) {
        (NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Known::Fresh(mac),
        // Of one that is being looked after already, nobody needs to be told.
        (NeighbourState::Delay | NeighbourState::Probe, Some(mac)) => Known::Fresh(mac),
        (NeighbourState::Stale, Some(mac)) => Known::Stale(mac),
        (NeighbourState::Incomplete, _) => Known::Asked,
        _ => Known::Failed,
    }
}

fn news(message: &RouteNetlinkMessage) -> Option<News> {
    let (message, gone) = match message {
        RouteNetlinkMessage::NewNeighbour(message) => (message, false),
        RouteNetlinkMessage::DelNeighbour(message) => (message, true),
        RouteNetlinkMessage::NewAddress(AddressMessage { .. })
        | RouteNetlinkMessage::DelAddress(_)
        | RouteNetlinkMessage::NewLink(_)
        | RouteNetlinkMessage::DelLink(_)
        | RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => return Some(News::Everything),
        _ => return None,
    };
    let address = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })?;
    let known = if gone { Known::Failed } else { known(message) };
    Some(News::Neighbour { interface: message.header.ifindex, address, known })
}
