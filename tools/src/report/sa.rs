//! Security associations: `-mad` (ISAKMP) and `-sad` (IPsec).

use super::{Direction, Endpoint, SelectorReport, TransformNames};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Which side began a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// We did.
    Initiator,
    /// The peer did.
    Responder,
}

/// State of an ISAKMP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsakmpState {
    /// Phase 1 is not finished, or the user is not known yet (XAUTH).
    Negotiating,
    /// Protects quick modes and notifications.
    Established,
    /// Replaced by a newer one, or being deleted.
    Dying,
}

/// How long an SA may live, and how much of that is gone. Zero lifetimes (no limit) are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaLife {
    /// Agreed lifetime in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Agreed lifetime in kilobytes of 1024 octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kbytes: Option<u32>,
    /// Packets that the tunnel policy allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Seconds since the SA was established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Seconds until it expires by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
    /// Seconds until it is renegotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_in_seconds: Option<u64>,
}

/// An ISAKMP SA: the result of main mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsakmpSa {
    /// Counts the records of this report, from 1.
    pub sequence_number: u32,
    /// Where it stands.
    pub state: IsakmpState,
    /// Which side began.
    pub role: Role,
    /// IKE version, 1.
    pub ike_version: u8,
    /// Phase 1 exchange, e.g. `Main Mode`.
    pub exchange: String,
    /// Our end.
    pub local: Endpoint,
    /// The peer's end.
    pub remote: Endpoint,
    /// Cookie of the initiator, 16 hexadecimal digits.
    pub initiator_cookie: String,
    /// Cookie of the responder, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responder_cookie: Option<String>,
    /// Authentication method, e.g. `PSK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_method: Option<String>,
    /// Negotiated algorithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<super::IkeProposal>,
    /// Who we said we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_id: Option<String>,
    /// Who the peer proved to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// The certificate that it proved that with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_certificate: Option<super::CertificateReport>,
    /// The peer's user, where XAUTH asked for him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_user: Option<String>,
    /// The address inside that the peer has of a pool of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_inner_address: Option<IpAddr>,
    /// The address inside that the peer has given us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_inner_address: Option<IpAddr>,
    /// The DNS servers that it told with that; nothing uses them by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Whether long messages to the peer go in pieces.
    #[serde(default)]
    pub fragmentation: bool,
    /// What the peer says that it is and can, by its vendor IDs; not authenticated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vendor_ids: Vec<String>,
    /// Where NAT traversal found a NAT: `none`, `local`, `remote`, `both`, `forced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<String>,
    /// Lifetime.
    #[serde(default)]
    pub lifetime: SaLife,
    /// Quick modes it has protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_modes: Option<u32>,
    /// Quick modes it may protect; absent is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_quick_modes: Option<u32>,
    /// The IKE policy it was negotiated by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_policy: Option<String>,
    /// The authentication record that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_record: Option<String>,
}

/// State of an IPsec SA, in the words of PF_KEY (RFC 2367 2.3.1) and HP-UX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaState {
    /// SPI reserved, no keys yet.
    Larval,
    /// In use.
    Mature,
    /// Still accepted, but replaced by a newer one.
    Dying,
    /// Past a hard limit.
    Dead,
}

/// One IPsec SA in the SAD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpsecSa {
    /// Counts the records of this report, from 1.
    pub sequence_number: u32,
    /// SPI: chosen by the receiver.
    pub spi: u32,
    /// Where it stands.
    pub state: SaState,
    /// `ESP` or `AH`.
    pub sa_type: String,
    /// Which packets it is for.
    pub direction: Direction,
    /// `Tunnel` or `Transport`.
    pub mode: String,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address.
    pub dst: IpAddr,
    /// UDP encapsulation (RFC 3948): source and destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_encapsulation: Option<(u16, u16)>,
    /// Ciphers.
    pub transform: TransformNames,
    /// Perfect forward secrecy: keyword of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pfs: Option<String>,
    /// What it may carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<SelectorReport>,
    /// The tunnel policy it was negotiated for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// The same for the two SAs of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<u64>,
    /// 64-bit sequence numbers (RFC 4303 2.2.1).
    pub esn: bool,
    /// Anti-replay window in packets, inbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_window: Option<u32>,
    /// Last sequence number sent, or highest received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<u64>,
    /// Lifetime.
    #[serde(default)]
    pub lifetime: SaLife,
    /// Packets it has carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Octets it has carried, as counted against the lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds since it last carried a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// Packets it refused, by named reason; zeros are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
}
