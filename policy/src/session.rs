//! Sessions: what each has an SA pair of its own under an EXCLUSIVE host policy.
//!
//! EXCLUSIVE, as HP-UX calls it, is the flag "populate from packet" of RFC 4301
//! 4.4.1.2 for local and remote address, protocol and ports, all at once: the SA's
//! selectors are those of the packet that asked for it. A protocol without ports has
//! one session for each two addresses; so has ICMP, whose types and codes IKEv1
//! cannot negotiate (RFC 2407 4.6.2). A fragment that shows no ports of a protocol
//! that has them belongs to no session that could be told (4.4.2.2: "discard packet").

use crate::config::names::has_ports;
use crate::config::{Config, HostAction, HostPolicy, TunnelPolicy};
use crate::counters::DropReason;
use crate::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use crate::selector::{AddressRange, PortSelector, Selector};
use crate::spd::could_cover;
use core::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A five-tuple without a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    local: IpAddr,
    remote: IpAddr,
    protocol: u8,
    /// Local and remote; `None`: the protocol has none, or they do not count.
    ports: Option<(u16, u16)>,
}

impl Session {
    /// The session of a packet.
    ///
    /// # Errors
    /// As what the packet is dropped: its ports cannot be seen, or quick mode cannot
    /// name the session, since protocol and port 0 stand for all there (RFC 2407 4.6.2).
    pub fn of(tuple: &FiveTuple, direction: Direction) -> Result<Self, DropReason> {
        let ports = match tuple.ports {
            _ if !has_ports(tuple.protocol) => None,
            Ports::Pair { source, destination } => Some(match direction {
                Direction::Outbound => (source, destination),
                Direction::Inbound => (destination, source),
            }),
            Ports::None | Ports::Opaque | Ports::Icmp { .. } => return Err(DropReason::FragmentPortsHidden),
        };
        let session =
            Self { local: tuple.local(direction), remote: tuple.remote(direction), protocol: tuple.protocol, ports };
        if session.can_be_named() { Ok(session) } else { Err(DropReason::SessionUnnamable) }
    }

    /// The session whose selector this is, if it is one.
    #[must_use]
    pub fn of_selector(selector: &Selector) -> Option<Self> {
        let protocol = selector.protocol?;
        let ports = match selector.ports {
            PortSelector::Any if !has_ports(protocol) => None,
            PortSelector::Ports { local, remote }
                if has_ports(protocol) && local.0 == local.1 && remote.0 == remote.1 =>
            {
                Some((local.0, remote.0))
            }
            _ => return None,
        };
        let single = |range: &AddressRange| (range.first() == range.last()).then(|| range.first());
        let session = Self { local: single(&selector.local)?, remote: single(&selector.remote)?, protocol, ports };
        session.can_be_named().then_some(session)
    }

    fn can_be_named(&self) -> bool {
        self.protocol != 0 && self.ports.is_none_or(|(local, remote)| local != 0 && remote != 0)
    }

    /// What its SAs may carry.
    #[must_use]
    pub fn selector(&self) -> Selector {
        Selector {
            local: AddressRange::single(self.local),
            remote: AddressRange::single(self.remote),
            protocol: Some(self.protocol),
            ports: match self.ports {
                Some((l, r)) => PortSelector::Ports { local: (l, l), remote: (r, r) },
                None => PortSelector::Any,
            },
        }
    }

    /// The policy that gives this session a pair of its own, and its tunnel: the first
    /// that covers it, on any interface; `None` if that one does not, or the tunnel does not carry it.
    #[must_use]
    pub fn policy<'c>(&self, config: &'c Config) -> Option<(&'c Arc<HostPolicy>, &'c Arc<TunnelPolicy>)> {
        if config.bypass.iter().any(|range| range.contains(self.local)) {
            return None;
        }
        let on = |interface| self.policy_on(config, interface);
        config.startup.attachments().enumerate().filter_map(|(place, _)| Attachment::new(place)).find_map(on)
    }

    fn policy_on<'c>(
        &self,
        config: &'c Config,
        interface: Attachment,
    ) -> Option<(&'c Arc<HostPolicy>, &'c Arc<TunnelPolicy>)> {
        let ports = match self.ports {
            Some((source, destination)) => Ports::Pair { source, destination },
            None => Ports::None,
        };
        let (source, destination, protocol) = (self.local, self.remote, self.protocol);
        let tuple = FiveTuple { source, destination, protocol, ports, interface };
        // Of a policy for some types of ICMP, the session may be one or not: then a later one counts too.
        let covering = config.hosts.iter().filter(|host| could_cover(host, &tuple, Direction::Outbound));
        for host in covering {
            match &host.action {
                HostAction::Tunnel(tunnel) if host.exclusive => {
                    return tunnel.selector.covers(&self.selector()).then_some((host, tunnel));
                }
                _ if host.matches(&tuple, Direction::Outbound) => return None,
                _ => {}
            }
        }
        None
    }
}

/// `6 10.1.1.1:1024 <=> 10.2.2.2:80`, this side first.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, protocol, ports } = self;
        match ports {
            Some((l, r)) => {
                write!(f, "{protocol} {} <=> {}", SocketAddr::new(*local, *l), SocketAddr::new(*remote, *r))
            }
            None => write!(f, "{protocol} {local} <=> {remote}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(protocol: u8, ports: Ports) -> FiveTuple {
        let (source, destination) = ("10.1.1.1".parse().unwrap(), "10.2.2.2".parse().unwrap());
        FiveTuple { source, destination, protocol, ports, interface: Attachment::TUN }
    }

    #[test]
    fn both_directions_are_one_session() {
        let out = tuple(6, Ports::Pair { source: 1024, destination: 80 });
        let back = FiveTuple {
            source: out.destination,
            destination: out.source,
            ports: Ports::Pair { source: 80, destination: 1024 },
            ..out
        };
        let session = Session::of(&out, Direction::Outbound).unwrap();
        assert_eq!(Session::of(&back, Direction::Inbound), Ok(session));
        assert_ne!(Session::of(&back, Direction::Outbound), Ok(session));
        assert_eq!(session.to_string(), "6 10.1.1.1:1024 <=> 10.2.2.2:80");
        assert_eq!(Session::of_selector(&session.selector()), Some(session));
        assert!(session.selector().matches(&out, Direction::Outbound));
        assert!(session.selector().matches(&back, Direction::Inbound));
    }

    /// The table of RFC 4301 4.4.2.2, rows "PFP 1".
    #[test]
    fn what_the_packet_does_not_show_cannot_be_populated() {
        let of = |protocol, ports| Session::of(&tuple(protocol, ports), Direction::Outbound);
        for protocol in [6, 17, 33, 132, 136] {
            assert_eq!(of(protocol, Ports::Opaque), Err(DropReason::FragmentPortsHidden));
            assert_eq!(of(protocol, Ports::None), Err(DropReason::FragmentPortsHidden));
            let zero = Ports::Pair { source: 0, destination: 80 };
            assert_eq!(of(protocol, zero), Err(DropReason::SessionUnnamable));
        }
        assert_eq!(of(0, Ports::None), Err(DropReason::SessionUnnamable));
        // Types and codes, and fragments of ICMP, are all one session; so is a protocol without ports.
        let echo = of(1, Ports::Icmp { kind: 8, code: 0 }).unwrap();
        assert_eq!(of(1, Ports::Icmp { kind: 0, code: 0 }), Ok(echo));
        assert_eq!(of(1, Ports::Opaque), Ok(echo));
        assert_eq!(of(47, Ports::None).unwrap().to_string(), "47 10.1.1.1 <=> 10.2.2.2");
    }

    #[test]
    fn a_wider_selector_is_no_session() {
        let session = Session::of(&tuple(6, Ports::Pair { source: 1, destination: 2 }), Direction::Outbound).unwrap();
        let exact = session.selector();
        let ports = |local, remote| PortSelector::Ports { local, remote };
        for wider in [
            Selector { protocol: None, ports: PortSelector::Any, ..exact.clone() },
            Selector { ports: PortSelector::Any, ..exact.clone() },
            Selector { ports: ports((1, 1), (0, u16::MAX)), ..exact.clone() },
            Selector { ports: ports((0, 0), (2, 2)), ..exact.clone() },
            Selector { remote: AddressRange::ANY_V4, ..exact.clone() },
            Selector { protocol: Some(1), ..exact.clone() },
        ] {
            assert_eq!(Session::of_selector(&wider), None, "{wider}");
        }
    }
}
