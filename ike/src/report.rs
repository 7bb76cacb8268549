//! What the engine knows of its SAs and tunnels, for reports.

use crate::failure::Role;
use crate::main_mode::table::StateName;
use crate::mode_config::Assignment;
use crate::nat::NatState;
use core::fmt;
use crypto::table::{Group, Integrity};
use crypto::{EspSuite, IkeSuite};
use policy::config::{AuthMethod, Identity, Phase1Exchange, StartMode};
use policy::sa::{Lifetime, SaProtocol, UdpEncapsulation};
use policy::selector::Selector;
use policy::session::Session;
use policy::time::Timestamp;
use policy::trust::CertificateName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How far an ISAKMP SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsakmpState {
    /// Waiting for the pre-shared key.
    AwaitingSecret,
    /// Proposals sent or chosen (messages 1 and 2).
    SaSent,
    /// Public values sent (messages 3 and 4).
    KeSent,
    /// Identity sent (message 5).
    AuthSent,
    /// Established.
    Mature,
}

impl fmt::Display for IsakmpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwaitingSecret => "AWAITING_SECRET",
            Self::SaSent => "SA_SENT",
            Self::KeSent => "KE_SENT",
            Self::AuthSent => "AUTH_SENT",
            Self::Mature => "MATURE",
        })
    }
}

impl StateName {
    pub(crate) fn report(self) -> IsakmpState {
        match self {
            Self::Start | Self::AggressiveStart | Self::InitiatorAwaitingSecret => IsakmpState::AwaitingSecret,
            Self::AggressiveInitiatorAwaitingSecret | Self::AggressiveResponderAwaitingSecret => {
                IsakmpState::AwaitingSecret
            }
            Self::AggressiveInitiatorSaSent | Self::AggressiveInitiatorJudging => IsakmpState::SaSent,
            Self::AggressiveInitiatorSigning | Self::AggressiveResponderSigning => IsakmpState::KeSent,
            Self::AggressiveResponderAuthSent | Self::AggressiveResponderJudging => IsakmpState::AuthSent,
            Self::InitiatorSaSent | Self::ResponderSaSent => IsakmpState::SaSent,
            Self::InitiatorKeSent | Self::ResponderKeSent => IsakmpState::KeSent,
            Self::InitiatorSigning | Self::ResponderJudging | Self::ResponderSigning => IsakmpState::KeSent,
            Self::InitiatorAuthSent | Self::InitiatorJudging => IsakmpState::AuthSent,
            Self::Established => IsakmpState::Mature,
        }
    }
}

/// One ISAKMP SA.
#[derive(Clone, Debug)]
pub struct IsakmpReport {
    /// Initiator's cookie.
    pub initiator_cookie: [u8; 8],
    /// Responder's cookie; zero before its first message.
    pub responder_cookie: [u8; 8],
    /// Our role.
    pub role: Role,
    /// How it was negotiated.
    pub exchange: Phase1Exchange,
    /// How far it is.
    pub state: IsakmpState,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Name of the IKE policy.
    pub policy: String,
    /// Name of the authentication record.
    pub auth_record: String,
    /// Authentication method, once it is agreed.
    pub method: Option<AuthMethod>,
    /// Once established: algorithms.
    pub suite: Option<IkeSuite>,
    /// Who we say we are.
    pub local_identity: Identity,
    /// Once established: who the peer proved to be.
    pub peer_identity: Option<Identity>,
    /// The certificate that it proved that with, if it did so with one.
    pub peer_certificate: Option<CertificateName>,
    /// When the negotiation began.
    pub started: Timestamp,
    /// When it was established.
    pub established: Option<Timestamp>,
    /// Once established: the agreed lifetime.
    pub lifetime: Option<Lifetime>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// NATs between the peers.
    pub nat: NatState,
    /// What the peer says that it is and can, not authenticated: names of vendor IDs, text of its own in quotation
    /// marks, or hexadecimal digits.
    pub vendors: Vec<String>,
    /// Long messages go in pieces.
    pub fragmentation: bool,
    /// Quick modes under it so far.
    pub quick_modes: u32,
    /// Another SA replaces it.
    pub retiring: bool,
    /// The peer's user, once XAUTH has shown who he is.
    pub user: Option<String>,
    /// The address inside that the peer has of us (mode-config).
    pub leased: Option<IpAddr>,
    /// The address inside that we have of the peer, and what goes with it.
    pub assigned: Option<Assignment>,
    /// Whether quick modes may begin: phase 1 is done, and XAUTH where it is asked for.
    pub admitted: bool,
}

/// How far a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairState {
    /// Inbound works; outbound waits for the peer's confirmation.
    Larval,
    /// Both directions are in use.
    Mature,
    /// A newer pair of the tunnel is in use; this one only receives.
    Dying,
}

impl fmt::Display for PairState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Larval => "Larval",
            Self::Mature => "Mature",
            Self::Dying => "Dying",
        })
    }
}

/// One pair of ESP SAs.
#[derive(Clone, Debug)]
pub struct PairReport {
    /// As in [`policy::sa::SaSpec::pair`].
    pub pair: u64,
    /// Name of the tunnel policy.
    pub tunnel: Arc<str>,
    /// The session whose pair it is, if it is not shared.
    pub session: Option<Session>,
    /// How far it is.
    pub state: PairState,
    /// Our role in the quick mode that made it.
    pub role: Role,
    /// Our address and port of IKE.
    pub local: SocketAddr,
    /// The peer's address and port of IKE.
    pub remote: SocketAddr,
    /// Who the peer proved to be.
    pub peer_identity: Identity,
    /// SPI of the inbound SA.
    pub inbound_spi: u32,
    /// SPI of the outbound SA.
    pub outbound_spi: u32,
    /// ESP or AH.
    pub protocol: SaProtocol,
    /// Algorithms.
    pub suite: EspSuite,
    /// Of a bundle: the algorithm of the AH around ESP, and the SPI of the outbound one. The inbound one has
    /// the SPI of the ESP.
    pub ah: Option<(&'static Integrity, u32)>,
    /// Group of perfect forward secrecy.
    pub pfs: Option<&'static Group>,
    /// Whether sequence numbers are extended to 64 bits (RFC 4304).
    pub esn: bool,
    /// What it covers.
    pub selector: Selector,
    /// UDP encapsulation.
    pub encapsulation: Option<UdpEncapsulation>,
    /// The agreed lifetime.
    pub lifetime: Lifetime,
    /// When it was made.
    pub created: Timestamp,
    /// When it is to be replaced.
    pub rekey: Option<Timestamp>,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// Whether a tunnel is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// No pair, and none being negotiated.
    Down,
    /// No pair yet.
    Negotiating,
    /// A pair is in use.
    Up,
}

/// One tunnel of the configuration.
#[derive(Clone, Debug)]
pub struct TunnelReport {
    /// Name of the tunnel policy.
    pub name: Arc<str>,
    /// Whether it is up.
    pub state: TunnelState,
    /// When it starts.
    pub start: StartMode,
    /// The pair in use.
    pub pair: Option<u64>,
    /// The last failure and when it was; kept after a success.
    pub last_error: Option<(Timestamp, String)>,
    /// Failures since the last success.
    pub failures: u32,
    /// When it is tried again by itself.
    pub next_attempt: Option<Timestamp>,
}
