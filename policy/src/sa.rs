//! What a negotiation agrees on, before it becomes an SA in the SAD.

use crate::five_tuple::Direction;
use crate::selector::Selector;
use crate::session::Session;
use crypto::{EspSuite, Secret};
use std::net::IpAddr;
use std::sync::Arc;

/// Security protocol of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SaProtocol {
    /// Encapsulating Security Payload, IP protocol 50 (RFC 4303).
    Esp,
    /// Authentication Header, IP protocol 51 (RFC 4302).
    Ah,
}

/// Encapsulation mode of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The whole inner packet is the payload (RFC 4301 4.1).
    Tunnel,
    /// What follows the packet's own IP header is the payload: between the two hosts alone (RFC 4301 4.1).
    Transport,
}

/// The addresses of an SA in transport mode as its peer knows them, where a NAT
/// translates them (RFC 3947 5.2): with these it computes checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalAddresses {
    /// The peer's own.
    pub remote: IpAddr,
    /// Ours, as the peer sees it.
    pub local: IpAddr,
}

/// AH around the ESP of an SA: a bundle, negotiated as one (RFC 2408 4.2; HP-UX calls it nested). On the wire it is
/// IP header, AH, ESP, in either mode.
#[derive(Clone, Debug)]
pub struct AhOutside {
    /// SPI of the AH. Ours, inbound, is the ESP's too.
    pub spi: u32,
    /// [`EspSuite::of_ah`].
    pub suite: EspSuite,
    /// Key of its algorithm.
    pub keymat: Secret,
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpEncapsulation {
    /// Our port, 4500.
    pub local_port: u16,
    /// The peer's port as we see it; 4500 unless a NAT translates it.
    pub remote_port: u16,
}

/// How long an SA may be used: whichever limit comes first ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Seconds; 0 is no limit.
    pub seconds: u32,
    /// Kilobytes of 1024 octets; 0 is no limit.
    pub kbytes: u32,
}

/// What we ourselves add to the negotiated lifetime of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLimits {
    /// Packets after which it ends, in each direction; 0 is no limit. IKEv1 does not negotiate it.
    pub packets: u64,
    /// Thousandths of the volume, and of `packets`, after which its successor is to be negotiated.
    pub soft: u16,
}

impl OwnLimits {
    /// No limit of packets, and an eighth of the volume to negotiate the successor in.
    pub const NONE: Self = Self { packets: 0, soft: 875 };
}

/// Everything the packet path needs to make one SA of a pair.
#[derive(Clone, Debug)]
pub struct SaSpec {
    /// SPI: chosen by the receiver.
    pub spi: u32,
    /// Inbound: we decrypt with it. Outbound: we encrypt.
    pub direction: Direction,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// ESP or AH.
    pub protocol: SaProtocol,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Ciphers; of AH [`EspSuite::of_ah`].
    pub suite: EspSuite,
    /// Key material in the order of [`crypto::packet::sealer`].
    pub keymat: Secret,
    /// What is around ESP, if that is not all.
    pub ah: Option<AhOutside>,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Whether the receiver refuses replayed packets. Without that, which is for manual keys, the
    /// sender's sequence numbers begin again after the last (RFC 4303 3.3.3).
    pub anti_replay: bool,
    /// What the SA may carry.
    pub selector: Selector,
    /// UDP encapsulation, if NAT traversal asks for it.
    pub encapsulation: Option<UdpEncapsulation>,
    /// In transport mode through a NAT: the addresses before it.
    pub original: Option<OriginalAddresses>,
    /// Hard limits. The negotiator rekeys on time by itself, and on volume when told.
    pub lifetime: Lifetime,
    /// What we add to that.
    pub own: OwnLimits,
    /// The tunnel policy it was negotiated for.
    pub tunnel: Arc<str>,
    /// Joins the two SAs of a pair: the same for both.
    pub pair: u64,
    /// The session whose pair it is, if it is not shared; `selector` is then the session's.
    pub session: Option<Session>,
}
