//! NAT traversal (RFC 3947): detection, and what follows from it.

use crate::keys::Cookies;
use crate::vendor::NatSupport;
use crate::wire::Payload;
use crate::wire::numbers::{IdKind, encapsulation_mode};
use crypto::Entropy;
use crypto::table::Hash;
use policy::config::NatTraversal;
use policy::sa::Mode;
use std::net::{IpAddr, SocketAddr};

/// What is known of NATs between the peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatState {
    /// Our address is translated: we must send keepalives.
    pub local: bool,
    /// The peer's address is translated: its port may change.
    pub remote: bool,
    /// Our configuration asks for encapsulation whatever was found.
    pub forced: bool,
}

impl NatState {
    /// Whether ESP goes in UDP and IKE to the NAT-T port.
    #[must_use]
    pub fn detected(&self) -> bool {
        self.local || self.remote || self.forced
    }
}

/// The encapsulation mode that quick mode negotiates (RFC 3947 5.1).
pub(crate) fn encapsulation(mode: Mode, nat: NatState, support: Option<NatSupport>) -> u16 {
    match (mode, support.filter(|_| nat.detected())) {
        (Mode::Tunnel, None) => encapsulation_mode::TUNNEL,
        (Mode::Tunnel, Some(NatSupport::Rfc3947)) => encapsulation_mode::UDP_TUNNEL,
        (Mode::Tunnel, Some(NatSupport::Draft)) => encapsulation_mode::UDP_TUNNEL_DRAFT,
        (Mode::Transport, None) => encapsulation_mode::TRANSPORT,
        (Mode::Transport, Some(NatSupport::Rfc3947)) => encapsulation_mode::UDP_TRANSPORT,
        (Mode::Transport, Some(NatSupport::Draft)) => encapsulation_mode::UDP_TRANSPORT_DRAFT,
    }
}

/// The addresses of initiator and responder as one side sees them (RFC 3947 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) initiator: IpAddr,
    pub(crate) responder: IpAddr,
}

impl Seen {
    /// NAT-OAi and NAT-OAr, for a quick mode of this encapsulation mode; none unless it is transport mode in UDP.
    pub(crate) fn payloads(self, mode: u16) -> impl Iterator<Item = Payload> {
        let draft = mode == encapsulation_mode::UDP_TRANSPORT_DRAFT;
        let wanted = draft || mode == encapsulation_mode::UDP_TRANSPORT;
        [self.initiator, self.responder].into_iter().filter(move |_| wanted).map(move |address| {
            let (kind, address) = match address {
                IpAddr::V4(a) => (IdKind::IPV4_ADDR, a.octets().to_vec()),
                IpAddr::V6(a) => (IdKind::IPV6_ADDR, a.octets().to_vec()),
            };
            Payload::NatOriginalAddress { draft, kind, address }
        })
    }

    /// What a peer's NAT-OA payloads say; `None` unless there are two of an address each.
    pub(crate) fn read(received: &[Payload]) -> Option<Self> {
        let mut addresses = received.iter().filter_map(|p| match p {
            Payload::NatOriginalAddress { kind, address, .. } => Some(original_address(*kind, address)),
            _ => None,
        });
        Some(Self { initiator: addresses.next()??, responder: addresses.next()?? })
    }
}

fn original_address(kind: IdKind, octets: &[u8]) -> Option<IpAddr> {
    match kind {
        IdKind::IPV4_ADDR => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        IdKind::IPV6_ADDR => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Our NAT-D payloads: the hash of the peer's address first, then of ours (RFC 3947 3.2).
///
/// With [`NatTraversal::Force`] the hash of ours is of random octets, so the
/// peer must conclude that we are behind a NAT.
pub(crate) fn payloads(
    support: NatSupport,
    mode: NatTraversal,
    hash: &Hash,
    cookies: &Cookies,
    local: SocketAddr,
    remote: SocketAddr,
    entropy: &mut dyn Entropy,
) -> [Payload; 2] {
    let draft = support == NatSupport::Draft;
    let ours = if mode == NatTraversal::Force {
        let mut random = [0; 32];
        entropy.fill(&mut random);
        hash.digest(&[&random])
    } else {
        address_hash(hash, cookies, local)
    };
    [
        Payload::NatDiscovery { draft, hash: address_hash(hash, cookies, remote) },
        Payload::NatDiscovery { draft, hash: ours },
    ]
}

/// Compares the peer's NAT-D payloads with the addresses we see. `None`
/// without at least two: the peer does not take part.
pub(crate) fn detect(
    received: &[Payload],
    mode: NatTraversal,
    hash: &Hash,
    cookies: &Cookies,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<NatState> {
    let mut hashes = received.iter().filter_map(|p| match p {
        Payload::NatDiscovery { hash, .. } => Some(hash.as_slice()),
        _ => None,
    });
    let ours_seen_by_peer = hashes.next()?;
    let mut theirs = hashes.peekable();
    theirs.peek()?;
    let remote_hash = address_hash(hash, cookies, remote);
    Some(NatState {
        local: ours_seen_by_peer != address_hash(hash, cookies, local),
        remote: !theirs.any(|h| h == remote_hash),
        forced: mode == NatTraversal::Force,
    })
}

/// HASH(CKY-I | CKY-R | IP | Port).
fn address_hash(hash: &Hash, cookies: &Cookies, address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    let (ci, cr) = (&cookies.initiator.0, &cookies.responder.0);
    match address.ip() {
        IpAddr::V4(a) => hash.digest(&[ci, cr, &a.octets(), &port]),
        IpAddr::V6(a) => hash.digest(&[ci, cr, &a.octets(), &port]),
    }
}
