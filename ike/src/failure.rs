//! Failures of negotiations: with whom, in which exchange, whose fault, both
//! sides' values, and what to change.

use core::fmt;
use policy::audit::number::{NONE, ikmpd};
use policy::audit::{AuditEvent, Entity, Level};
use policy::config::Phase1Exchange;
use policy::trust::{Distrust, Refusal};
use std::net::SocketAddr;

/// Which side of an exchange we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// We sent the first message.
    Initiator,
    /// The peer did.
    Responder,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        })
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Ours: configuration, keys.
    Ours,
    /// The peer's, or of the way to it.
    Peer,
    /// Nobody's alone: the two configurations differ.
    Mismatch,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "our fault",
            Self::Peer => "the peer's fault",
            Self::Mismatch => "a mismatch",
        })
    }
}

/// The exchange that failed, and the HP-UX words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    Main,
    Aggressive,
    Quick {
        message_id: u32,
    },
    /// A transaction exchange between the two, or several.
    Transaction,
    /// Of a message that cannot be read: the major version of IKE and the exchange type that its header names.
    Foreign {
        version: u8,
        exchange: u8,
    },
}

/// One failure. Its text is complete but for addresses and role, which the
/// negotiation adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) fault: Fault,
    /// What happened, with both sides' values where there are two.
    pub(crate) detail: String,
    /// What to change or to look at.
    pub(crate) remedy: String,
}

/// What HP-UX calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `no proposal chosen`.
    NoProposal,
    /// The same, because the two sides do not agree on whether there is a NAT.
    NatDisagreement,
    /// The time is up.
    Timeout,
    /// Proxy IDs that no tunnel has.
    NoSelector,
    /// An ISAKMP SA that has protected as much as it may.
    Spent,
    /// The peer's certificate, signature or identity is not believed.
    Distrusted(Distrust),
    /// Whatever else.
    Other,
}

impl From<Phase1Exchange> for Exchange {
    fn from(exchange: Phase1Exchange) -> Self {
        match exchange {
            Phase1Exchange::Main => Self::Main,
            Phase1Exchange::Aggressive => Self::Aggressive,
        }
    }
}

/// Between whom, and in which role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) exchange: Exchange,
    pub(crate) role: Role,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Failure {
    pub(crate) fn new(kind: Kind, fault: Fault, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, fault, detail: detail.into(), remedy: remedy.into() }
    }

    /// A peer that is not believed.
    pub(crate) fn distrusted(refusal: &Refusal) -> Self {
        let fault = match refusal.distrust {
            Distrust::NotJudged => Fault::Ours,
            Distrust::WrongIdentity
            | Distrust::UnknownAuthority
            | Distrust::RevocationUnknown
            | Distrust::WrongAlgorithm => Fault::Mismatch,
            _ => Fault::Peer,
        };
        Self::new(Kind::Distrusted(refusal.distrust), fault, refusal.explanation(), refusal.remedy.clone())
    }

    /// The audit event: HP-UX's number and words first, then everything else.
    pub(crate) fn event(&self, place: &Place) -> AuditEvent {
        let (local, remote) = (slashed(place.local), slashed(place.remote));
        let (src, dst) = (place.local.ip(), place.remote.ip());
        let (number, words) = match (self.kind, place.exchange) {
            (Kind::NoProposal | Kind::NatDisagreement, Exchange::Main | Exchange::Aggressive) => {
                (ikmpd::NO_PROPOSAL_CHOSEN, format!("local {local} - remote {remote}:no proposal chosen"))
            }
            (Kind::NoProposal | Kind::NatDisagreement, Exchange::Quick { .. }) => (
                ikmpd::NO_PROPOSAL_CHOSEN,
                format!("local {local} - remote {remote}:no proposal chosen: Quick Mode processing failed"),
            ),
            (Kind::Timeout, Exchange::Main) => {
                (ikmpd::MAIN_MODE_TIMEOUT, format!("MM negotiation timeout, src {src}, dst {dst}"))
            }
            (Kind::Timeout, Exchange::Aggressive) => {
                (ikmpd::MAIN_MODE_TIMEOUT, format!("AM negotiation timeout, src {src}, dst {dst}"))
            }
            (Kind::Timeout, Exchange::Quick { message_id }) => {
                (NONE, format!("QM negotiation timeout, mess ID {message_id:08x}, src {src}, dst {dst}"))
            }
            (Kind::NoSelector, _) => {
                (ikmpd::NO_MATCHING_SELECTOR, "can't find matching selector: Quick Mode processing failed".into())
            }
            (Kind::Distrusted(distrust), Exchange::Aggressive) => {
                (ikmpd::MAIN_MODE_FAILED, format!("Aggressive Mode processing failed: {distrust}"))
            }
            (Kind::Distrusted(distrust), _) => {
                (ikmpd::MAIN_MODE_FAILED, format!("Main Mode processing failed: {distrust}"))
            }
            (Kind::Spent | Kind::Other, Exchange::Main) => {
                (ikmpd::MAIN_MODE_FAILED, "Main Mode processing failed".into())
            }
            (Kind::Spent | Kind::Other, Exchange::Aggressive) => {
                (ikmpd::MAIN_MODE_FAILED, "Aggressive Mode processing failed".into())
            }
            (Kind::Spent | Kind::Other, Exchange::Quick { .. }) => (NONE, "Quick Mode processing failed".into()),
            (_, Exchange::Transaction) => (NONE, "User authentication failed".into()),
            (_, Exchange::Foreign { .. }) => (NONE, "IKE processing failed".into()),
        };
        let name = match place.exchange {
            Exchange::Main => "main mode".to_owned(),
            Exchange::Aggressive => "aggressive mode".to_owned(),
            Exchange::Quick { .. } => "quick mode".to_owned(),
            Exchange::Transaction => "XAUTH".to_owned(),
            // RFC 7296 3.1.
            Exchange::Foreign { version: 2, exchange: 34 } => "IKEv2, IKE_SA_INIT,".to_owned(),
            Exchange::Foreign { version, exchange } => format!("IKEv{version}, exchange type {exchange},"),
        };
        let text = format!(
            "{words}: {name} with {remote} as {}, {}: {}; {}",
            place.role, self.fault, self.detail, self.remedy
        );
        AuditEvent { number, entity: Entity::Ikmpd, level: Level::Error, text }
    }
}

/// `10.1.1.1/500`, as HP-UX writes an address with its port.
pub(crate) fn slashed(address: SocketAddr) -> String {
    format!("{}/{}", address.ip(), address.port())
}
