//! Packets, SAs and configurations for the crate's own tests.

use crate::sa::{InboundSa, OutboundSa, pair};
use crate::shared::Shared;
use crypto::entropy::testing::SeededEntropy;
use crypto::table::{ENCRYPTIONS, INTEGRITIES, Integrity, Status};
use crypto::{Entropy, EspSuite, Secret};
use etherparse::PacketBuilder;
use policy::cache::HashKey;
use policy::config::{Config, DefaultAction, DfPolicy, HostAction, StartMode, Startup, TunnelPolicy};
use policy::five_tuple::Direction;
use policy::sa::{AhOutside, Lifetime, Mode, OwnLimits, SaProtocol, SaSpec};
use policy::selector::{AddressRange, Selector};
use policy::transform::EspTransform;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) const LOCAL_V4: [u8; 4] = [10, 1, 0, 1];
pub(crate) const REMOTE_V4: [u8; 4] = [10, 2, 0, 1];
pub(crate) const LOCAL_V6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const REMOTE_V6: [u8; 16] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A UDP packet of `len` octets in all, at least 48, between the two sides; DF is set in IPv4.
pub(crate) fn udp_packet(ipv4: bool, len: usize) -> Vec<u8> {
    let (builder, header) = if ipv4 {
        (PacketBuilder::ipv4(LOCAL_V4, REMOTE_V4, 64), 28)
    } else {
        (PacketBuilder::ipv6(LOCAL_V6, REMOTE_V6, 64), 48)
    };
    let payload: Vec<u8> = (0..len.saturating_sub(header)).map(|i| i as u8).collect();
    let mut packet = Vec::new();
    builder.udp(1024, 80).write(&mut packet, &payload).unwrap();
    packet
}

/// Every suite that may be negotiated, legacy ones too.
pub(crate) fn all_suites() -> Vec<EspSuite> {
    let mut suites = Vec::new();
    for encryption in ENCRYPTIONS.iter().filter(|e| e.status != Status::Forbidden) {
        if encryption.is_aead() {
            suites.push(EspSuite { encryption, integrity: None });
        } else {
            let usable = INTEGRITIES.iter().filter(|i| i.status != Status::Forbidden && i.goes_with_ciphers());
            suites.extend(usable.map(|i| EspSuite { encryption, integrity: Some(i) }));
        }
    }
    suites
}

pub(crate) fn suites() -> impl Strategy<Value = EspSuite> {
    proptest::sample::select(all_suites())
}

pub(crate) fn suite(name: &str) -> EspSuite {
    name.parse().unwrap()
}

/// What two peers agree on; each side's specs are made from it.
#[derive(Clone, Debug)]
pub(crate) struct Agreement {
    pub(crate) suite: EspSuite,
    pub(crate) inner_ipv4: bool,
    pub(crate) outer_ipv4: bool,
    pub(crate) esn: bool,
    pub(crate) kbytes: u32,
    pub(crate) packets: u64,
    pub(crate) tunnel: Arc<str>,
    pub(crate) encapsulation: Option<policy::sa::UdpEncapsulation>,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) protocol: SaProtocol,
    /// Around ESP.
    pub(crate) ah_outside: Option<&'static Integrity>,
}

impl Agreement {
    pub(crate) fn new(suite: EspSuite) -> Self {
        Self {
            suite,
            inner_ipv4: true,
            outer_ipv4: true,
            esn: false,
            kbytes: 0,
            packets: 0,
            tunnel: "t".into(),
            encapsulation: None,
            seed: 1,
            mode: Mode::Tunnel,
            protocol: SaProtocol::Esp,
            ah_outside: None,
        }
    }

    /// AH with an integrity algorithm.
    pub(crate) fn ah(integrity: &str, mode: Mode, ipv4: bool) -> Self {
        let suite = EspSuite::of_ah(Integrity::from_keyword(integrity).unwrap());
        let protocol = SaProtocol::Ah;
        Self { mode, protocol, inner_ipv4: ipv4, outer_ipv4: ipv4, ..Self::new(suite) }
    }

    /// Transport mode between the two hosts of [`udp_packet`].
    pub(crate) fn transport(suite: EspSuite, ipv4: bool) -> Self {
        Self { mode: Mode::Transport, inner_ipv4: ipv4, outer_ipv4: ipv4, ..Self::new(suite) }
    }

    /// The side whose addresses are the local ones, or the other: (inbound, outbound).
    pub(crate) fn specs(&self, near: bool) -> (SaSpec, SaSpec) {
        let prefix = |v4: [u8; 4], v6: [u8; 16]| {
            let (address, len) = if self.inner_ipv4 { (IpAddr::from(v4), 16) } else { (IpAddr::from(v6), 32) };
            AddressRange::prefix(address, len).unwrap()
        };
        let hosts = [(LOCAL_V4, LOCAL_V6), (REMOTE_V4, REMOTE_V6)]
            .map(|(v4, v6)| if self.inner_ipv4 { IpAddr::from(v4) } else { IpAddr::from(v6) });
        let (a, b) = match self.mode {
            Mode::Tunnel => (prefix(LOCAL_V4, LOCAL_V6), prefix(REMOTE_V4, REMOTE_V6)),
            Mode::Transport => (AddressRange::single(hosts[0]), AddressRange::single(hosts[1])),
        };
        let outer = |n: u8| {
            if self.mode == Mode::Transport {
                hosts[usize::from(n - 1)]
            } else if self.outer_ipv4 {
                IpAddr::from([192, 0, 2, n])
            } else {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)])
            }
        };
        let (selector, local, remote) = if near {
            (Selector::between(a, b), outer(1), outer(2))
        } else {
            (Selector::between(b, a), outer(2), outer(1))
        };
        let spec = |direction, toward_far: bool| SaSpec {
            spi: if toward_far { 0x1000 } else { 0x2000 } + self.seed as u32,
            direction,
            local,
            remote,
            protocol: self.protocol,
            mode: self.mode,
            original: None,
            suite: self.suite,
            keymat: self.keymat(toward_far),
            ah: self.ah_outside.map(|ah| self.outside(ah, toward_far)),
            esn: self.esn,
            anti_replay: true,
            selector: selector.clone(),
            encapsulation: self.encapsulation,
            lifetime: Lifetime { seconds: 28_800, kbytes: self.kbytes },
            own: OwnLimits { packets: self.packets, ..OwnLimits::NONE },
            tunnel: Arc::clone(&self.tunnel),
            pair: self.seed,
            session: None,
        };
        (spec(Direction::Inbound, !near), spec(Direction::Outbound, near))
    }

    fn outside(&self, ah: &'static Integrity, toward_far: bool) -> AhOutside {
        let suite = EspSuite::of_ah(ah);
        let mut keymat = vec![0; suite.keymat_len()];
        SeededEntropy::new(1000 + self.seed * 2 + u64::from(toward_far)).fill(&mut keymat);
        let spi = if toward_far { 0x1000 } else { 0x2000 } + self.seed as u32;
        AhOutside { spi, suite, keymat: Secret::new(keymat) }
    }

    fn keymat(&self, toward_far: bool) -> Secret {
        let mut keymat = vec![0; self.suite.keymat_len()];
        SeededEntropy::new(self.seed * 2 + u64::from(toward_far)).fill(&mut keymat);
        Secret::new(keymat)
    }

    /// The SAs of both sides: near and far, each (inbound, outbound).
    #[allow(clippy::type_complexity)]
    pub(crate) fn sas(&self) -> [(Arc<InboundSa>, Arc<OutboundSa>); 2] {
        [true, false].map(|near| {
            let (inbound, outbound) = self.specs(near);
            let (i, o) = pair(&inbound, &outbound, 0, &[7; 16], 1024).unwrap();
            (Arc::new(i), Arc::new(o))
        })
    }
}

/// A configuration without policies; what no policy matches passes.
pub(crate) fn empty_config() -> Config {
    let startup = Startup { hold_queue: 8, spd_soft: 10, spd_hard: 20, df: DfPolicy::Copy, ..Startup::default() };
    Config { startup, ..Config::without_hosts(DefaultAction::Pass) }
}

/// A tunnel policy as one side of an agreement has it.
pub(crate) fn tunnel_policy(agreement: &Agreement, near: bool) -> Arc<TunnelPolicy> {
    let (_, outbound) = agreement.specs(near);
    Arc::new(TunnelPolicy {
        name: Arc::clone(&agreement.tunnel),
        tsource: outbound.local,
        tdestination: outbound.remote,
        mode: outbound.mode,
        selector: outbound.selector,
        transforms: vec![EspTransform {
            protocol: agreement.protocol,
            suite: agreement.suite,
            ah: agreement.ah_outside,
            pfs: None,
            esn: agreement.esn,
            lifetime: outbound.lifetime,
        }],
        packets: 0,
        start: StartMode::Traffic,
        manual: None,
        remote_access: policy::config::RemoteAccess::None,
        line: 1,
    })
}

/// The configuration of one side of an agreement: its tunnel, and a host policy
/// for all that the tunnel may carry.
pub(crate) fn tunnel_config(agreement: &Agreement, near: bool) -> Config {
    let mut config = empty_config();
    let tunnel = tunnel_policy(agreement, near);
    config.add_host(vec![tunnel.selector.clone()], HostAction::Tunnel(tunnel));
    config
}

pub(crate) fn shared(config: &Config) -> Arc<Shared> {
    Arc::new(Shared::new(config, HashKey::draw(&mut SeededEntropy::new(9))))
}
