//! Why a packet is treated as it is: the rules tried, one by one.
//!
//! What `ipsec_policy` shows, live or for a configuration that is not loaded.
//! The verdict is [`Spd::decide`]'s own; the trace only tells how it came about.

use crate::classifier::{Coverage, coverage};
use crate::config::{AuthRecord, HostAction, HostPolicy, IkePolicy, TunnelPolicy};
use crate::five_tuple::{Direction, FiveTuple, Ports};
use crate::selector::{AddressRange, PortSelector, Selector};
use crate::spd::{COOKIE_DEFAULT, Decision, Spd, is_link_control};
use crate::transform::EspTransform;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Entries of the bypass list that are warned of for one packet.
const MOST_HOLES: usize = 10;

/// The whole answer about one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet: `6 10.1.1.1:1024 > 10.2.2.2:80`.
    pub packet: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Host policies tried, in order, up to the one that decided; empty if the bypass list did.
    pub tried: Vec<Step>,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// Its cookie: the same number in the reports of policies and cache; 0 if no policy decided.
    pub cookie: u32,
    /// What happens to the packet.
    pub action: Action,
    /// The name under which it is counted, if it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// The tunnel, if the policy has one, also when the packet is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStep>,
    /// Its session has an SA pair of its own (EXCLUSIVE).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub exclusive: bool,
    /// Host policies after the one that decided which cover the packet too: they
    /// would decide if the order were another.
    pub overridden: Vec<String>,
    /// The answer in sentences, with what to do where something is odd.
    pub summary: Vec<String>,
    /// What the bypass list takes from a tunnel policy that is, or would be, asked about this packet: HP-UX warns of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What happens to a packet, in HP-UX's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// In the clear.
    Pass,
    /// Dropped.
    Discard,
    /// Outbound: protected. Inbound: accepted only if it comes protected.
    Secure,
}

/// Who decides about a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The bypass list, by this entry.
    Bypass {
        /// The entry.
        range: String,
    },
    /// Nobody: it keeps the IPv6 link working ([`is_link_control`]), and no policy names its type.
    LinkControl,
    /// A host policy.
    Host {
        /// Its name.
        name: String,
    },
    /// The default policy.
    Default,
}

/// One host policy that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u32,
    /// Its cookie.
    pub cookie: u32,
    /// Its line in the file.
    pub line: usize,
    /// What it covers.
    pub selectors: Vec<String>,
    /// The interface that it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether that is the packet.
    pub outcome: Outcome,
}

/// What came of trying one host policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It covers the packet.
    Match,
    /// It does not.
    Differs {
        /// The first field that differs; of several selectors, in the one that comes closest.
        field: String,
    },
    /// It could: it looks at ports, and the packet shows none.
    PortsHidden,
    /// It does not name the type of a packet of link control, and so says nothing about it.
    TypeNotNamed,
}

/// The tunnel of the policy that decided, and who would negotiate it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStep {
    /// Its name.
    pub name: String,
    /// Our end point.
    pub tsource: IpAddr,
    /// The peer's.
    pub tdestination: IpAddr,
    /// What may go through.
    pub selector: String,
    /// Whether that covers the packet, and if not, the first field that differs.
    pub outcome: Outcome,
    /// Transforms, most preferred first: `ESP_AES128_HMAC_SHA1/28800/0 (aes128-sha1)`.
    pub transforms: Vec<String>,
    /// Its keys are in the configuration: nothing is negotiated, by no policy.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub manual_keys: bool,
    /// The IKE policy for the peer; without one negotiations fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_policy: Option<IkeStep>,
    /// The authentication record for the peer; without one negotiations fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_record: Option<AuthStep>,
}

/// The IKE policy that a negotiation would use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeStep {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u32,
    /// Peers it is for.
    pub remote: String,
    /// Proposals, most preferred first: `aes128-sha1-modp2048`.
    pub proposals: Vec<String>,
    /// Lifetime of the ISAKMP SA in seconds; 0 is no limit.
    pub lifetime_seconds: u32,
}

/// The authentication record that a negotiation would use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthStep {
    /// Its name.
    pub name: String,
    /// Peers it is for.
    pub remote: String,
    /// Whether it has a pre-shared key.
    pub preshared: bool,
    /// How the peer and we prove who we are, the most preferred first: `PSK`, `RSASIG`.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Who we say we are.
    pub local_id: String,
    /// Who the peer must be.
    pub remote_id: String,
}

impl Spd {
    /// Decides about a packet as [`Self::decide`] does, and tells why. No packet is sent, nothing is cached.
    #[must_use]
    pub fn explain(&self, tuple: &FiveTuple, direction: Direction) -> Explanation {
        let verdict = self.decide(tuple, direction);
        let hosts = &self.config().hosts;
        let bypassed = self.bypass().find(tuple.local(direction));
        let outcome = |host: &HostPolicy| outcome_of(host, tuple, direction);
        let first_match = hosts.iter().position(|h| outcome(h) == Outcome::Match);
        let tried = match bypassed {
            Some(_) => &[],
            None => &hosts[..first_match.map_or(hosts.len(), |at| at + 1)],
        };
        // Not always the first match: hidden ports may let an earlier one decide.
        let decider = tried.iter().find(|h| h.cookie == verdict.cookie);
        let decided_by = match (bypassed, decider) {
            (Some(range), _) => DecidedBy::Bypass { range: range.to_string() },
            (None, Some(host)) => DecidedBy::Host { name: host.name.clone() },
            (None, None) if verdict.cookie == COOKIE_DEFAULT => DecidedBy::Default,
            (None, None) => DecidedBy::LinkControl,
        };
        let overridden = match bypassed {
            Some(_) => &hosts[..],
            None => &hosts[tried.len()..],
        };
        let tunnel = decider.and_then(|host| match &host.action {
            HostAction::Tunnel(tunnel) => Some(self.tunnel_step(tunnel, tuple, direction)),
            HostAction::Pass | HostAction::Discard => None,
        });
        let mut explanation = Explanation {
            packet: tuple.to_string(),
            direction: match direction {
                Direction::Outbound => "outbound".to_owned(),
                Direction::Inbound => "inbound".to_owned(),
            },
            tried: tried.iter().map(|h| self.step(h, outcome(h))).collect(),
            decided_by,
            cookie: verdict.cookie,
            action: match verdict.decision {
                Decision::Bypass | Decision::Pass => Action::Pass,
                Decision::Discard => Action::Discard,
                Decision::Protect { .. } | Decision::ProtectExclusive { .. } => Action::Secure,
            },
            drop_reason: verdict.reason.map(|r| r.name().to_owned()),
            tunnel,
            exclusive: decider.is_some_and(|h| h.exclusive),
            overridden: overridden.iter().filter(|h| outcome(h) == Outcome::Match).map(|h| h.name.clone()).collect(),
            summary: Vec::new(),
            warnings: self.hollowed_by_bypass(bypassed, tuple, direction),
        };
        explanation.summary = summary(&explanation);
        explanation
    }

    fn step(&self, host: &HostPolicy, outcome: Outcome) -> Step {
        let interface = host.interface.and_then(|i| self.config().startup.attachment_name(i));
        Step {
            name: host.name.clone(),
            priority: host.priority,
            cookie: host.cookie,
            line: host.line,
            selectors: host.selectors.iter().map(ToString::to_string).collect(),
            interface: interface.map(str::to_owned),
            outcome,
        }
    }

    /// The bypass list comes before every policy: what it takes from the one that decides, or would.
    fn hollowed_by_bypass(
        &self,
        bypassed: Option<AddressRange>,
        tuple: &FiveTuple,
        direction: Direction,
    ) -> Vec<String> {
        let hosts = &self.config().hosts;
        let Some(host) = hosts.iter().find(|h| outcome_of(h, tuple, direction) == Outcome::Match) else {
            return Vec::new();
        };
        let HostAction::Tunnel(tunnel) = &host.action else { return Vec::new() };
        let (name, tunnel) = (&host.name, &tunnel.name);
        if let Some(range) = bypassed {
            return vec![format!(
                "bypass {range} makes host policy `{name}` (line {}) ineffective for this packet: without it, the \
                 packet would be put in tunnel `{tunnel}`; take {} off the bypass list if that is meant",
                host.line,
                tuple.local(direction)
            )];
        }
        let ranges = self.bypass().ranges();
        let holes = ranges.iter().filter_map(|range| {
            let hole = host.selectors.iter().find_map(|s| s.local.intersection(range))?;
            Some(format!(
                "bypass {range}: traffic of {hole} goes in the clear, although host policy `{name}` (line {}) puts it \
                 in tunnel `{tunnel}`",
                host.line
            ))
        });
        holes.take(MOST_HOLES).collect()
    }

    fn tunnel_step(&self, tunnel: &TunnelPolicy, tuple: &FiveTuple, direction: Direction) -> TunnelStep {
        let config = self.config();
        let negotiated = tunnel.manual.is_none();
        TunnelStep {
            name: tunnel.name.to_string(),
            tsource: tunnel.tsource,
            tdestination: tunnel.tdestination,
            selector: tunnel.selector.to_string(),
            outcome: compare(&tunnel.selector, tuple, direction).1,
            transforms: tunnel.transforms.iter().map(spell).collect(),
            manual_keys: !negotiated,
            ike_policy: config.ike_policy(tunnel.tdestination).filter(|_| negotiated).map(|p| ike_step(p)),
            auth_record: config.auth_record(tunnel.tdestination).filter(|_| negotiated).map(|a| auth_step(a, tunnel)),
        }
    }
}

fn ike_step(policy: &IkePolicy) -> IkeStep {
    IkeStep {
        name: policy.name.clone(),
        priority: policy.priority,
        remote: policy.remote.to_string(),
        proposals: policy.proposals.iter().map(ToString::to_string).collect(),
        lifetime_seconds: policy.lifetime.seconds,
    }
}

fn auth_step(record: &AuthRecord, tunnel: &TunnelPolicy) -> AuthStep {
    AuthStep {
        name: record.name.clone(),
        remote: record.remote.to_string(),
        preshared: record.preshared.is_some(),
        methods: record.methods.iter().map(ToString::to_string).collect(),
        local_id: record.local_id.as_ref().map_or_else(|| tunnel.tsource.to_string(), ToString::to_string),
        remote_id: record.remote_id.as_ref().map_or_else(|| tunnel.tdestination.to_string(), ToString::to_string),
    }
}

/// In both spellings: `ESP_AES128_HMAC_SHA1/3600/0 (aes128-sha1-modp2048)`.
fn spell(transform: &EspTransform) -> String {
    format!("{transform} ({})", transform.keyword())
}

/// The best outcome of any of a policy's selectors.
fn outcome_of(host: &HostPolicy, tuple: &FiveTuple, direction: Direction) -> Outcome {
    if !host.is_for(tuple.interface) {
        return Outcome::Differs { field: "interface".to_owned() };
    }
    let outcomes = host.selectors.iter().map(|selector| {
        if is_link_control(tuple) && !names_a_type(selector) {
            (0, Outcome::TypeNotNamed)
        } else {
            compare(selector, tuple, direction)
        }
    });
    let best = outcomes.max_by_key(|(closeness, _)| *closeness);
    best.map_or_else(|| Outcome::Differs { field: "no selector".to_owned() }, |(_, outcome)| outcome)
}

fn names_a_type(selector: &Selector) -> bool {
    matches!(selector.ports, PortSelector::Icmp { kind, .. } if kind != (0, u8::MAX))
}

/// Compares, and tells how close they come: the number of fields that agree, in order.
fn compare(selector: &Selector, tuple: &FiveTuple, direction: Direction) -> (u8, Outcome) {
    match coverage(selector, tuple, direction) {
        Coverage::Covers => (6, Outcome::Match),
        Coverage::PortsHidden => (5, Outcome::PortsHidden),
        Coverage::Differs => {
            let agrees = [
                selector.local.contains(tuple.local(direction)),
                selector.remote.contains(tuple.remote(direction)),
                selector.protocol.is_none_or(|p| p == tuple.protocol),
            ];
            let closeness = agrees.iter().take_while(|a| **a).count() as u8;
            let field = match (selector.first_difference(tuple, direction), tuple.ports) {
                (Some("port"), Ports::Icmp { .. }) => "ICMP type or code",
                (Some(field), _) => field,
                (None, _) => "ports",
            };
            // Above TypeNotNamed.
            (closeness + 1, Outcome::Differs { field: field.to_owned() })
        }
    }
}

fn summary(e: &Explanation) -> Vec<String> {
    let mut out = Vec::new();
    out.push(match &e.decided_by {
        DecidedBy::Bypass { range } => format!("the local address is on the bypass list ({range}): no policy is asked"),
        DecidedBy::LinkControl => {
            "it keeps the IPv6 link working, and no host policy names its ICMPv6 type: it passes".to_owned()
        }
        DecidedBy::Default => "no host policy covers it: the default policy decides".to_owned(),
        DecidedBy::Host { name } => format!("host policy `{name}` decides"),
    });
    out.push(match (e.action, e.drop_reason.as_deref(), &e.tunnel) {
        (Action::Pass, ..) => "it passes in the clear".to_owned(),
        (Action::Secure, _, Some(t)) if e.direction == "outbound" => {
            format!("it is protected in tunnel `{}` to {}", t.name, t.tdestination)
        }
        (Action::Secure, _, Some(t)) => format!(
            "it is accepted only out of tunnel `{}` from {}; in the clear it is dropped (clear_text_protected)",
            t.name, t.tdestination
        ),
        (Action::Discard, Some("outside_tunnel_selector"), Some(t)) => format!(
            "it is dropped (outside_tunnel_selector): tunnel `{}` carries only {}; widen the tunnel's selector on both \
             sides, or narrow the host policy",
            t.name, t.selector
        ),
        (Action::Discard, Some("fragment_ports_hidden"), _) => {
            "it is dropped (fragment_ports_hidden) if it comes alone: its ports cannot be seen, and that policy looks \
             at ports; with the first fragment of its packet it goes where that one goes"
                .to_owned()
        }
        (Action::Discard, Some("session_unnamable"), _) => {
            "it is dropped (session_unnamable): each session is to have an SA pair of its own (EXCLUSIVE), and quick \
             mode has no name for port or protocol 0, which mean all there"
                .to_owned()
        }
        (_, reason, _) => format!("it is dropped ({})", reason.unwrap_or("policy_discard")),
    });
    if let Some(t) = e.tunnel.as_ref().filter(|_| e.action == Action::Secure) {
        let peer = t.tdestination;
        out.push(match (&t.ike_policy, &t.auth_record) {
            _ if t.manual_keys => "its keys are in the configuration: nothing is negotiated".to_owned(),
            (None, _) => format!("no IKE policy is for {peer}: negotiations fail; add [[ike]] with that remote"),
            (_, None) => {
                format!("no authentication record is for {peer}: negotiations fail; add [[auth]] with that remote")
            }
            (_, Some(auth)) if auth.methods.is_empty() => {
                format!(
                    "authentication record `{}` has no key: negotiations with {peer} fail; add preshared or certificate",
                    auth.name
                )
            }
            (Some(ike), Some(auth)) => {
                format!("negotiated with IKE policy `{}` and authentication record `{}`", ike.name, auth.name)
            }
        });
    }
    if e.exclusive && e.action == Action::Secure {
        out.push("its session has an SA pair of its own (EXCLUSIVE)".to_owned());
    }
    if !e.overridden.is_empty() {
        let names: Vec<_> = e.overridden.iter().map(|n| format!("`{n}`")).collect();
        out.push(format!("covering it too, but not asked: {}", names.join(", ")));
    }
    out
}
