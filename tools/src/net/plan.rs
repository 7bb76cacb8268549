//! From the policies to the routes they need. Pure.

use super::Interface;
use policy::config::{Config, HostAction};
use policy::selector::{AddressRange, PortSelector, Selector};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The routes of our table, most preferred first for each destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// By destination.
    pub routes: Vec<PlannedRoute>,
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedRoute {
    /// Network.
    pub destination: IpAddr,
    /// Length of its prefix.
    pub prefix: u8,
    /// What becomes of packets to it.
    pub target: Target,
}

/// What becomes of packets that a route covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// To the TUN interface; `source` is what a socket without an address sends from.
    Tun {
        /// An address of this host that the policy covers.
        source: Option<IpAddr>,
    },
    /// Refused: what is left when the TUN interface is gone.
    Unreachable,
    /// As if our table did not exist.
    Elsewhere,
}

impl RoutePlan {
    /// The routes for what `config` protects, on a host with these interfaces.
    ///
    /// The unreachable route is made only where everything to a destination is
    /// protected: where ports decide, the guard does.
    #[must_use]
    pub fn new(config: &Config, interfaces: &[Interface]) -> Self {
        let mut wanted: BTreeMap<(IpAddr, u8), Wanted> = BTreeMap::new();
        for host in &config.hosts {
            if !matches!(host.action, HostAction::Tunnel(_)) {
                continue;
            }
            for selector in &host.selectors {
                let source = local_address(selector, interfaces);
                for network in selector.remote.to_prefixes() {
                    // The first policy decides where two ask for the same network.
                    let entry = wanted.entry(network).or_default();
                    entry.source = entry.source.or(source);
                    entry.whole |= selector.protocol.is_none() && selector.ports == PortSelector::Any;
                }
            }
        }
        let mut routes = Vec::new();
        for (&(destination, prefix), w) in &wanted {
            routes.push(PlannedRoute { destination, prefix, target: Target::Tun { source: w.source } });
            if w.whole {
                routes.push(PlannedRoute { destination, prefix, target: Target::Unreachable });
            }
        }
        for (destination, prefix) in never_tunnelled() {
            let covered = wanted.keys().filter_map(|&(a, len)| AddressRange::prefix(a, len));
            let it = AddressRange::prefix(destination, prefix);
            if it.is_some_and(|it| covered.into_iter().any(|c| c.covers(&it))) {
                routes.push(PlannedRoute { destination, prefix, target: Target::Elsewhere });
            }
        }
        Self { routes }
    }
}

#[derive(Default)]
struct Wanted {
    source: Option<IpAddr>,
    whole: bool,
}

/// Multicast, broadcast and link-local destinations belong to a link, which a
/// tunnel does not have.
fn never_tunnelled() -> [(IpAddr, u8); 4] {
    [
        (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
        (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
        (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    ]
}

/// An address of this host on the local side of a selector. Where the selector
/// says "any" the kernel's own choice is as good.
fn local_address(selector: &Selector, interfaces: &[Interface]) -> Option<IpAddr> {
    if selector.local.is_any() {
        return None;
    }
    let up = interfaces.iter().filter(|i| i.up);
    let mut addresses = up.flat_map(|i| &i.addresses).filter(|a| a.usable).map(|a| a.address);
    addresses.find(|a| selector.local.contains(*a))
}
