//! Report records out of the configuration. What only the running daemon knows is left absent.

use super::{
    BypassEntry, Direction, HostPolicyReport, IkePolicyReport, IkeProposal, PolicyAction, SelectorReport,
    TransformNames, TunnelReport,
};
use ::policy::config::{
    AuthMethod, Config, DefaultAction, HostAction, HostPolicy, IkePolicy, NatTraversal, QuickModeFailure, StartMode,
    TunnelPolicy,
};
use ::policy::sa::{Mode, SaProtocol};
use ::policy::selector::{AddressRange, PortSelector, Selector};
use ::policy::transform::{self, EspTransform};
use crypto::{EspSuite, IkeSuite};

/// Cookie of the default host policy.
pub const DEFAULT_COOKIE: u32 = 1;

/// Every host policy: in search order for outbound packets, then the same for inbound ones.
#[must_use]
pub fn host_policies(config: &Config) -> Vec<HostPolicyReport> {
    let mut out = Vec::new();
    for direction in [Direction::Outbound, Direction::Inbound] {
        let named = config.hosts.iter().zip(1..).map(|(p, id)| host_policy(config, p, id, direction));
        out.extend(named);
        let last = u32::try_from(config.hosts.len()).unwrap_or(u32::MAX).saturating_add(1);
        out.push(default_policy(config, last, direction));
    }
    out
}

/// One host policy; `id` is its place in the search order, from 1.
#[must_use]
pub fn host_policy(config: &Config, policy: &HostPolicy, id: u32, direction: Direction) -> HostPolicyReport {
    let outbound = direction == Direction::Outbound;
    let tunnel = match &policy.action {
        HostAction::Tunnel(t) => Some(t),
        HostAction::Pass | HostAction::Discard => None,
    };
    HostPolicyReport {
        name: policy.name.clone(),
        id,
        priority: policy.priority,
        cookie: policy.cookie,
        direction,
        active: None,
        selectors: policy.selectors.iter().map(SelectorReport::from).collect(),
        interface: policy.interface.and_then(|i| config.startup.attachment_name(i)).map(str::to_owned),
        action: match &policy.action {
            HostAction::Pass => PolicyAction::Pass,
            HostAction::Discard => PolicyAction::Discard,
            HostAction::Tunnel(t) if t.manual.is_some() => PolicyAction::ManualKeySa,
            HostAction::Tunnel(_) => PolicyAction::DynamicKeySa,
        },
        flags: if policy.exclusive { vec!["EXCLUSIVE".into()] } else { Vec::new() },
        tunnel: tunnel.map(|t| t.name.to_string()),
        sa_pairs_needed: tunnel.filter(|_| outbound).map(|_| 1),
        state: None,
        kernel_requests_queued: None,
        active_sessions: None,
        proposals: tunnel.filter(|_| outbound).map_or_else(Vec::new, |t| proposals(t)),
        sa_pairs: Vec::new(),
        cache_share: policy.cache_share,
        cache_entries_allowed: None,
        cache_entries: None,
        line: Some(policy.line),
    }
}

fn default_policy(config: &Config, id: u32, direction: Direction) -> HostPolicyReport {
    let any = |range: AddressRange| SelectorReport::from(&Selector::between(range, range));
    HostPolicyReport {
        name: "default".into(),
        id,
        priority: 0,
        cookie: DEFAULT_COOKIE,
        direction,
        active: None,
        selectors: vec![any(AddressRange::ANY_V4), any(AddressRange::ANY_V6)],
        interface: None,
        action: match config.default_action {
            DefaultAction::Pass => PolicyAction::Pass,
            DefaultAction::Discard => PolicyAction::Discard,
        },
        flags: Vec::new(),
        tunnel: None,
        sa_pairs_needed: None,
        state: None,
        kernel_requests_queued: None,
        active_sessions: None,
        proposals: Vec::new(),
        sa_pairs: Vec::new(),
        cache_share: config.default_cache_share,
        cache_entries_allowed: None,
        cache_entries: None,
        line: None,
    }
}

/// Every tunnel policy, in the order of the file.
#[must_use]
pub fn tunnels(config: &Config) -> Vec<TunnelReport> {
    config.tunnels.iter().map(|t| tunnel(config, t)).collect()
}

/// One tunnel policy, with the IKE policy and the authentication record that its peer leads to.
#[must_use]
pub fn tunnel(config: &Config, policy: &TunnelPolicy) -> TunnelReport {
    let negotiated = policy.manual.is_none();
    TunnelReport {
        name: policy.name.to_string(),
        tsource: policy.tsource,
        tdestination: policy.tdestination,
        selector: SelectorReport::from(&policy.selector),
        proposals: proposals(policy),
        lifetime_packets: Some(policy.packets).filter(|n| *n > 0),
        pfs: policy.transforms.first().and_then(|t| t.pfs).map(|g| g.keyword.to_string()),
        start: if policy.manual.is_some() { "manual" } else { start_name(policy.start) }.into(),
        state: None,
        state_seconds: None,
        last_error: None,
        packets_held: None,
        rekeys: None,
        sa_pairs: Vec::new(),
        ike_policy: config.ike_policy(policy.tdestination).filter(|_| negotiated).map(|p| p.name.clone()),
        auth_record: config.auth_record(policy.tdestination).filter(|_| negotiated).map(|a| a.name.clone()),
        line: Some(policy.line),
    }
}

/// Protocol of an SA, as reports print it.
#[must_use]
pub const fn protocol_name(protocol: SaProtocol) -> &'static str {
    match protocol {
        SaProtocol::Esp => "ESP",
        SaProtocol::Ah => "AH",
    }
}

/// Mode of an SA, as reports print it.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Tunnel => "Tunnel",
        Mode::Transport => "Transport",
    }
}

/// When a tunnel is negotiated, as the configuration spells it.
#[must_use]
pub const fn start_name(mode: StartMode) -> &'static str {
    match mode {
        StartMode::Traffic => "traffic",
        StartMode::Boot => "boot",
        StartMode::Respond => "respond",
    }
}

fn proposals(policy: &TunnelPolicy) -> Vec<TransformNames> {
    match policy.manual {
        // Manual keys have no lifetimes.
        Some(_) => policy.transforms.iter().map(|t| TransformNames::of(t.protocol, t.suite)).collect(),
        None => policy.transforms.iter().map(TransformNames::from).collect(),
    }
}

/// Every IKE policy, in search order.
#[must_use]
pub fn ike_policies(config: &Config) -> Vec<IkePolicyReport> {
    config.ikes.iter().map(|p| ike_policy(p)).collect()
}

fn ike_policy(policy: &IkePolicy) -> IkePolicyReport {
    IkePolicyReport {
        name: policy.name.clone(),
        priority: policy.priority,
        remote: policy.remote.to_string(),
        authentication_method: match policy.methods.as_slice() {
            [] => "as the auth record".into(),
            methods => listed(methods),
        },
        proposals: policy.proposals.iter().map(IkeProposal::from).collect(),
        lifetime_seconds: policy.lifetime.seconds,
        max_quick_modes: policy.max_quick_modes,
        nat_traversal: match policy.nat_traversal {
            NatTraversal::Auto => "auto",
            NatTraversal::Force => "force",
            NatTraversal::Off => "off",
        }
        .into(),
        keepalive_seconds: policy.keepalive_seconds,
        fragment_size: policy.fragment_size.unwrap_or(0),
        dpd_seconds: policy.dpd.seconds,
        dpd_mode: if policy.dpd.periodic { "periodic" } else { "demand" }.into(),
        dpd_action: policy.dpd.action.to_string(),
        quick_mode_failure: match policy.quick_mode_failure {
            QuickModeFailure::Keep => "keep",
            QuickModeFailure::Delete => "delete",
        }
        .into(),
        line: Some(policy.line),
    }
}

/// `RSASIG, PSK`.
pub(crate) fn listed(methods: &[AuthMethod]) -> String {
    methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The bypass list.
#[must_use]
pub fn bypass(config: &Config) -> Vec<BypassEntry> {
    config.bypass.iter().map(|a| BypassEntry { address: a.to_string(), interfaces: None }).collect()
}

impl TransformNames {
    /// What protects an SA.
    #[must_use]
    pub fn of(protocol: SaProtocol, suite: EspSuite) -> Self {
        Self {
            hpux: transform::hpux_name(protocol, suite, None),
            keyword: transform::name(protocol, suite, None),
            encryption: match protocol {
                SaProtocol::Esp => suite.encryption.hpux.into(),
                SaProtocol::Ah => "NONE".into(),
            },
            authentication: suite.integrity.map(|i| i.hpux.into()),
            lifetime_seconds: None,
            lifetime_kbytes: None,
        }
    }
}

impl From<&EspTransform> for TransformNames {
    fn from(transform: &EspTransform) -> Self {
        Self {
            lifetime_seconds: Some(transform.lifetime.seconds),
            lifetime_kbytes: Some(transform.lifetime.kbytes),
            // The group has a field of its own where proposals are shown.
            keyword: EspTransform { pfs: None, ..*transform }.keyword(),
            hpux: transform::hpux_name(transform.protocol, transform.suite, transform.ah),
            ..Self::of(transform.protocol, transform.suite)
        }
    }
}

impl From<&IkeSuite> for IkeProposal {
    fn from(suite: &IkeSuite) -> Self {
        Self {
            keyword: suite.to_string(),
            encryption: suite.encryption.hpux.into(),
            hash: suite.hash.hpux.into(),
            group: suite.group.number,
        }
    }
}

impl From<&Selector> for SelectorReport {
    fn from(selector: &Selector) -> Self {
        let mut report = Self {
            local: selector.local.to_string(),
            remote: selector.remote.to_string(),
            protocol: selector.protocol,
            local_ports: None,
            remote_ports: None,
            icmp_types: None,
            icmp_codes: None,
        };
        match selector.ports {
            PortSelector::Any => {}
            PortSelector::Ports { local, remote } => {
                report.local_ports = Some(local).filter(|r| *r != (0, u16::MAX));
                report.remote_ports = Some(remote).filter(|r| *r != (0, u16::MAX));
            }
            PortSelector::Icmp { kind, code } => {
                report.icmp_types = Some(kind).filter(|r| *r != (0, u8::MAX));
                report.icmp_codes = Some(code).filter(|r| *r != (0, u8::MAX));
            }
        }
        report
    }
}
