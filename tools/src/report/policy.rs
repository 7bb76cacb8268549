//! Policies: `-host`, `-tunnel`, `-ike`, `-bypass`.

use super::Direction;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A transform in both spellings, with its lifetimes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformNames {
    /// As HP-UX writes it, e.g. `ESP_AES128_HMAC_SHA1`.
    pub hpux: String,
    /// As today's configurations do, e.g. `aes128-sha1`.
    pub keyword: String,
    /// Encryption algorithm, HP-UX name.
    pub encryption: String,
    /// Authentication algorithm, HP-UX name; absent if the encryption authenticates by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
    /// Lifetime in seconds, as configured; 0 is no limit. Absent where the record shows what was agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u32>,
    /// Lifetime in kilobytes, as configured; 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_kbytes: Option<u32>,
}

/// What a policy or an SA covers. `local` is always this side. Parts that cover everything are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorReport {
    /// Addresses on this side: `10.1.1.1`, `10.1.0.0/16` or `10.1.1.1-10.1.1.3`.
    pub local: String,
    /// Addresses on the other side.
    pub remote: String,
    /// IP protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Ports on this side, lowest and highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ports: Option<(u16, u16)>,
    /// Ports on the other side, lowest and highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ports: Option<(u16, u16)>,
    /// ICMP types, lowest and highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_types: Option<(u8, u8)>,
    /// ICMP codes, lowest and highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_codes: Option<(u8, u8)>,
}

/// What a host policy does, in the words of HP-UX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyAction {
    /// Protected by SAs that IKE negotiates.
    DynamicKeySa,
    /// Protected by SAs whose keys are in the configuration.
    ManualKeySa,
    /// In the clear.
    Pass,
    /// Dropped.
    Discard,
}

/// Whether a policy's SAs are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyState {
    /// They are, or none is needed.
    Ready,
    /// They are not.
    SpisNotEstablished,
    /// They are being negotiated.
    SpisBeingEstablished,
}

/// A pair of SAs in use by a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaPair {
    /// `ESP` or `AH`.
    pub sa_type: String,
    /// Ciphers.
    pub transform: TransformNames,
    /// SPI of the SA that sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_spi: Option<u32>,
    /// SPI of the SA that receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_spi: Option<u32>,
}

/// A host policy, for one direction. Inbound rules carry nothing about SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicyReport {
    /// Name; `default` for the default policy.
    pub name: String,
    /// Place in the search order of its direction, from 1.
    pub id: u32,
    /// The lowest is searched first; 0 for the default policy, which is searched last.
    pub priority: u32,
    /// The same number in `-cache`.
    pub cookie: u32,
    /// Which packets this rule is for.
    pub direction: Direction,
    /// Whether the rule is tied to an address of an interface that exists; absent when not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// What it covers, as configured: `local` is this host's side in either direction.
    pub selectors: Vec<SelectorReport>,
    /// The interface of the packet path that it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What it does.
    pub action: PolicyAction,
    /// Flags, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Name of the tunnel policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Pairs of SAs it needs; outbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sa_pairs_needed: Option<u32>,
    /// Whether they are there; outbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PolicyState>,
    /// Packets held until they are; outbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_requests_queued: Option<u64>,
    /// Sessions with an SA pair of their own now; outbound and EXCLUSIVE only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_sessions: Option<u64>,
    /// Transforms, most preferred first; outbound only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<TransformNames>,
    /// Pairs of SAs in use; outbound only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sa_pairs: Vec<SaPair>,
    /// Percent of the SPD cache's hard limit that entries of this policy, of both directions, may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_share: Option<u8>,
    /// Entries that it may have; with a share only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_entries_allowed: Option<u64>,
    /// Entries that it has; with a share only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_entries: Option<u64>,
    /// Line of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// Where a tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelState {
    /// No SA, and none being negotiated.
    Down,
    /// No SA yet.
    Negotiating,
    /// SAs in both directions.
    Up,
}

/// Why a tunnel last failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelError {
    /// The audit line.
    pub text: String,
    /// When, UTC, RFC 3339.
    pub date: String,
    /// Seconds ago.
    pub age_seconds: u64,
}

/// A tunnel policy, configured and as it is; one that is down is listed all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Name.
    pub name: String,
    /// Our end point.
    pub tsource: IpAddr,
    /// The peer's end point.
    pub tdestination: IpAddr,
    /// What may go through.
    pub selector: SelectorReport,
    /// Transforms, most preferred first.
    pub proposals: Vec<TransformNames>,
    /// Packets after which a pair ends, in either direction, as configured; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_packets: Option<u32>,
    /// Group of perfect forward secrecy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pfs: Option<String>,
    /// When it is negotiated: `traffic`, `boot`, `respond`; `manual` when its keys are in the configuration.
    pub start: String,
    /// Where it stands; absent for a configuration that is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TunnelState>,
    /// Seconds since it entered that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_seconds: Option<u64>,
    /// Why it last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<TunnelError>,
    /// Packets held until an SA is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_held: Option<u64>,
    /// Times its SAs were renegotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekeys: Option<u64>,
    /// Pairs of SAs in use, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sa_pairs: Vec<SaPair>,
    /// The IKE policy for its peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_policy: Option<String>,
    /// The authentication record for its peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_record: Option<String>,
    /// Line of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// The algorithms of an ISAKMP SA, or of a proposal for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeProposal {
    /// `aes128-sha1-modp2048`.
    pub keyword: String,
    /// Encryption algorithm, HP-UX name.
    pub encryption: String,
    /// Hash algorithm, HP-UX name.
    pub hash: String,
    /// Diffie-Hellman group number.
    pub group: u16,
}

/// An IKE policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkePolicyReport {
    /// Name.
    pub name: String,
    /// The lowest is searched first.
    pub priority: u32,
    /// Peers it is for.
    pub remote: String,
    /// Authentication method, e.g. `PSK`.
    pub authentication_method: String,
    /// Proposals, most preferred first.
    pub proposals: Vec<IkeProposal>,
    /// Lifetime in seconds; 0 is no limit.
    pub lifetime_seconds: u32,
    /// Quick modes one ISAKMP SA may protect; 0 is no limit.
    pub max_quick_modes: u32,
    /// `auto`, `force` or `off`.
    pub nat_traversal: String,
    /// Seconds between NAT keepalives.
    pub keepalive_seconds: u16,
    /// Octets of an IP packet with a piece of a message; 0: no fragmentation.
    #[serde(default)]
    pub fragment_size: u16,
    /// Seconds without a sign of a peer before it is asked (RFC 3706); 0: it never is.
    pub dpd_seconds: u16,
    /// `demand` or `periodic`.
    pub dpd_mode: String,
    /// `hold`, `clear` or `restart`.
    pub dpd_action: String,
    /// `keep` or `delete`.
    pub quick_mode_failure: String,
    /// Line of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// An entry of the bypass list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BypassEntry {
    /// Local address, prefix or range to which IPsec does not apply.
    pub address: String,
    /// Interfaces that have such an address; absent when not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
}
