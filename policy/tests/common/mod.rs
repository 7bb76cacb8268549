//! Configurations and packets for the tests of the engine.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a fixture that is wrong fails the test")]

use crypto::{Entropy, Secret};
use policy::cache::{CacheKey, HashKey};
use policy::config::{
    AuthMethod, AuthRecord, Config, DefaultAction, Dpd, HostAction, HostPolicy, IkePolicy, NatTraversal,
    Phase1Exchange, QuickModeFailure, StartMode, TunnelPolicy,
};
use policy::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use policy::sa::Lifetime;
use policy::selector::{AddressRange, PortSelector, Selector};
use std::net::IpAddr;
use std::sync::Arc;

/// Seeded, so that a failure replays (xorshift64*).
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            *byte = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8;
        }
    }
}

pub(crate) fn hash_key() -> HashKey {
    HashKey::draw(&mut Seeded(0x5eed))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `10.1.0.0/16` or `10.1.1.1`.
pub(crate) fn range(text: &str) -> AddressRange {
    match text.split_once('/') {
        Some((network, len)) => AddressRange::prefix(ip(network), len.parse().unwrap()).unwrap(),
        None => AddressRange::single(ip(text)),
    }
}

pub(crate) fn between(local: &str, remote: &str) -> Selector {
    Selector::between(range(local), range(remote))
}

/// TCP (6), UDP (17): any local port, these remote ones.
pub(crate) fn remote_port(selector: Selector, protocol: u8, remote: (u16, u16)) -> Selector {
    Selector { protocol: Some(protocol), ports: PortSelector::Ports { local: (0, u16::MAX), remote }, ..selector }
}

pub(crate) fn icmp_types(selector: Selector, protocol: u8, kind: (u8, u8)) -> Selector {
    Selector { protocol: Some(protocol), ports: PortSelector::Icmp { kind, code: (0, u8::MAX) }, ..selector }
}

pub(crate) fn tunnel(name: &str, peer: &str, selector: Selector) -> Arc<TunnelPolicy> {
    Arc::new(TunnelPolicy {
        name: name.into(),
        tsource: ip(if peer.contains(':') { "fd77::1" } else { "10.77.0.1" }),
        tdestination: ip(peer),
        mode: policy::sa::Mode::Tunnel,
        selector,
        transforms: Vec::new(),
        packets: 0,
        start: StartMode::Traffic,
        manual: None,
        remote_access: policy::config::RemoteAccess::None,
        line: 1,
    })
}

/// Builds configurations; host policies in search order.
pub(crate) struct Rules(Config);

impl Rules {
    pub(crate) fn new() -> Self {
        Self(Config::without_hosts(DefaultAction::Pass))
    }

    pub(crate) fn host(mut self, name: &str, selectors: Vec<Selector>, action: HostAction) -> Self {
        self.0.add_host(selectors, action);
        self.change_last(|host| (host.name, host.line) = (name.to_owned(), host.line * 7))
    }

    fn change_last(mut self, change: impl FnOnce(&mut HostPolicy)) -> Self {
        change(Arc::make_mut(self.0.hosts.last_mut().expect("a host policy")));
        self
    }

    /// The last host policy is for one interface alone.
    pub(crate) fn on(self, interface: Option<Attachment>) -> Self {
        self.change_last(|host| host.interface = interface)
    }

    /// Each session of the last host policy has an SA pair of its own.
    pub(crate) fn exclusive(self) -> Self {
        self.change_last(|host| host.exclusive = true)
    }

    pub(crate) fn pass(self, name: &str, selector: Selector) -> Self {
        self.host(name, vec![selector], HostAction::Pass)
    }

    pub(crate) fn discard(self, name: &str, selector: Selector) -> Self {
        self.host(name, vec![selector], HostAction::Discard)
    }

    pub(crate) fn protect(self, name: &str, selector: Selector, tunnel: &Arc<TunnelPolicy>) -> Self {
        self.host(name, vec![selector], HostAction::Tunnel(Arc::clone(tunnel)))
    }

    pub(crate) fn bypass(mut self, address: &str) -> Self {
        self.0.bypass.push(range(address));
        self
    }

    pub(crate) fn peer(mut self, remote: &str, key: Option<&[u8]>) -> Self {
        self.0.ikes.push(Arc::new(IkePolicy {
            name: format!("ike-{remote}"),
            remote: range(remote),
            priority: 10,
            proposals: Vec::new(),
            methods: Vec::new(),
            lifetime: Lifetime { seconds: 28_800, kbytes: 0 },
            max_quick_modes: 100,
            nat_traversal: NatTraversal::Auto,
            fragment_size: Some(1280),
            keepalive_seconds: 20,
            dpd: Dpd::DEFAULT,
            quick_mode_failure: QuickModeFailure::Keep,
            line: 1,
        }));
        self.0.auths.push(Arc::new(AuthRecord {
            name: format!("auth-{remote}"),
            remote: range(remote),
            methods: key.iter().map(|_| AuthMethod::PreSharedKey).collect(),
            preshared: key.map(Secret::copy_of),
            certificates: None,
            local_id: None,
            local_subject: false,
            remote_id: None,
            exchange: Phase1Exchange::Main,
            authorities: Vec::new(),
            xauth: None,
            line: 1,
        }));
        self
    }

    pub(crate) fn discard_by_default(mut self) -> Self {
        self.0.default_action = DefaultAction::Discard;
        self
    }

    pub(crate) fn config(self) -> Config {
        self.0
    }
}

pub(crate) fn tuple(source: &str, destination: &str, protocol: u8, ports: Ports) -> FiveTuple {
    FiveTuple { source: ip(source), destination: ip(destination), protocol, ports, interface: Attachment::TUN }
}

pub(crate) fn tcp(source: &str, destination: &str, destination_port: u16) -> FiveTuple {
    tuple(source, destination, 6, Ports::Pair { source: 40_000, destination: destination_port })
}

/// A different conversation for each number.
pub(crate) fn flow(n: u32) -> CacheKey {
    let pair = Ports::Pair { source: n as u16, destination: 80 };
    let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 | n >> 16).to_string();
    CacheKey::new(tuple(&source, "10.200.0.1", 17, pair), Direction::Outbound)
}

/// The same with IPv6.
pub(crate) fn flow_v6(n: u32) -> CacheKey {
    let tuple = flow(n).tuple();
    let mapped = |address: IpAddr, network: u128| match address {
        IpAddr::V4(a) => std::net::Ipv6Addr::from_bits(network << 112 | u128::from(a.to_bits())).into(),
        IpAddr::V6(_) => address,
    };
    let (source, destination) = (mapped(tuple.source, 0xfd01), mapped(tuple.destination, 0xfd02));
    CacheKey::new(FiveTuple { source, destination, ..tuple }, Direction::Outbound)
}
