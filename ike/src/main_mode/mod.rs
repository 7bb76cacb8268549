//! Main mode with a pre-shared key (RFC 2409 5.4): one state per message we
//! wait for, each with the data it needs and no other.

mod authenticated;
mod initiator;
mod responder;
pub(crate) mod table;

pub(crate) use authenticated::Authenticated;
pub(crate) use initiator::InitiatorAwaitingSecret;
pub(crate) use responder::{first_message, preview};

use crate::failure::{Failure, Fault, Kind};
use crate::informational;
use crate::keys::{Cookies, IsakmpKeys};
use crate::nat::NatState;
use crate::protection::{self, Iv};
use crate::vendor::{self, NatSupport};
use crate::wire::numbers::{ExchangeType, NotifyKind, PayloadKind};
use crate::wire::select;
use crate::wire::{Body, Flags, Header, Message, Payload, Payloads};
use crypto::{Entropy, Secret};
use policy::config::{AuthRecord, Identity, IkePolicy, NatTraversal};
use policy::sa::Lifetime;
use std::net::SocketAddr;
use std::sync::Arc;
use table::StateName;

/// Octets of our nonces.
pub(crate) const NONCE_LEN: usize = 32;

/// What does not change during one negotiation.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) cookies: Cookies,
    pub(crate) policy: Arc<IkePolicy>,
    pub(crate) auth: Arc<AuthRecord>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Lifetimes of less than a minute are accepted.
    pub(crate) short_lifetimes: bool,
}

impl Setup {
    /// Who we say we are: our address, unless the authentication record says otherwise.
    pub(crate) fn local_identity(&self) -> Identity {
        self.auth.local_id.clone().unwrap_or(Identity::Address(self.local.ip()))
    }
}

/// A state of main mode.
pub(crate) enum MainMode {
    InitiatorAwaitingSecret(Box<InitiatorAwaitingSecret>),
    InitiatorSaSent(Box<initiator::SaSent>),
    InitiatorKeSent(Box<initiator::KeSent>),
    InitiatorAuthSent(Box<initiator::AuthSent>),
    ResponderSaSent(Box<responder::SaSent>),
    ResponderKeSent(Box<responder::KeSent>),
    Established(Box<Established>),
}

/// What an established ISAKMP SA is made of.
pub(crate) struct Established {
    pub(crate) keys: IsakmpKeys,
    /// Last ciphertext block of phase 1, from which phase 2 IVs come.
    pub(crate) last_block: Iv,
    pub(crate) peer: Authenticated,
    pub(crate) lifetime: Lifetime,
    /// It is shorter than what the initiator offered.
    pub(crate) shortened: bool,
    pub(crate) nat: NatState,
    pub(crate) nat_support: Option<NatSupport>,
    /// The peer answers R-U-THERE.
    pub(crate) peer_dpd: bool,
}

/// What a message led to.
pub(crate) struct Step {
    pub(crate) next: MainMode,
    /// The datagram to answer with.
    pub(crate) reply: Option<Vec<u8>>,
    /// The initiator goes on from and to the NAT-T port (RFC 3947 4).
    pub(crate) float: bool,
    /// The peer says it holds no other SA with us.
    pub(crate) initial_contact: bool,
    /// The responder needs the pre-shared key now.
    pub(crate) needs_secret: bool,
}

impl Step {
    fn new(next: MainMode, reply: Vec<u8>) -> Self {
        Self { next, reply: Some(reply), float: false, initial_contact: false, needs_secret: false }
    }
}

/// Why a message led nowhere.
pub(crate) enum Stop {
    /// The negotiation goes on as if the message had not come: anybody could
    /// have sent it. `failure` is what to report if nothing better follows;
    /// `now` if it is certain enough to be reported at once.
    Ignored { state: MainMode, failure: Failure, now: bool },
    /// The pre-shared key is not here yet: hand the message in again with it.
    Held { state: MainMode },
    /// The negotiation is over; `reply` is what to tell the peer.
    Failed { failure: Failure, reply: Option<Vec<u8>> },
}

/// Circumstances of one message.
pub(crate) struct Context<'a> {
    pub(crate) entropy: &'a mut dyn Entropy,
    /// We hold no SA with this peer and must say so.
    pub(crate) initial_contact: bool,
}

type Outcome = Result<Step, Box<Stop>>;

impl MainMode {
    /// The name of the state.
    pub(crate) fn name(&self) -> StateName {
        match self {
            Self::InitiatorAwaitingSecret(_) => StateName::InitiatorAwaitingSecret,
            Self::InitiatorSaSent(_) => StateName::InitiatorSaSent,
            Self::InitiatorKeSent(_) => StateName::InitiatorKeSent,
            Self::InitiatorAuthSent(_) => StateName::InitiatorAuthSent,
            Self::ResponderSaSent(_) => StateName::ResponderSaSent,
            Self::ResponderKeSent(_) => StateName::ResponderKeSent,
            Self::Established(_) => StateName::Established,
        }
    }

    /// Whether a message in the clear carries what is awaited now, and a public value that can be one.
    pub(crate) fn awaits(&self, message: &Message) -> bool {
        let (Some(transition), Body::Clear(payloads)) = (table::transition(self.name()), &message.body) else {
            return false;
        };
        let group = match self {
            Self::ResponderSaSent(state) => state.group(),
            _ => return false,
        };
        let public = Payloads(payloads).key_exchange();
        select::check(payloads, transition.required, &[]).is_ok() && public.is_some_and(|p| group.check(p).is_ok())
    }

    /// Processes the next message. Duplicates were sorted out before.
    pub(crate) fn handle(self, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let from = self.name();
        let Some(transition) = table::transition(from) else {
            return Err(ignored(self, malformed("a message after the last of main mode")));
        };
        let encrypted = matches!(message.body, Body::Encrypted(_));
        if encrypted != transition.encrypted {
            let what = if encrypted { "an encrypted message" } else { "a message in the clear" };
            let awaited = transition.message.map_or("the pre-shared key".into(), |n| format!("message {n}"));
            return Err(ignored(self, malformed(&format!("{what} where {awaited} is awaited"))));
        }
        if let Body::Clear(payloads) = &message.body
            && let Err(what) = select::check(payloads, transition.required, &[])
        {
            let number = transition.message.unwrap_or_default();
            return Err(ignored(self, malformed(&format!("a message {number} that is not acceptable: {what}"))));
        }
        let outcome = match self {
            Self::InitiatorSaSent(state) => state.handle(setup, message, context),
            Self::InitiatorKeSent(state) => state.handle(setup, message, context),
            Self::InitiatorAuthSent(state) => state.handle(setup, message, context),
            Self::ResponderSaSent(state) => state.handle(setup, message, context),
            Self::ResponderKeSent(state) => state.handle(setup, message, context),
            Self::InitiatorAwaitingSecret(_) | Self::Established(_) => {
                Err(ignored(self, malformed("a message that nobody waits for")))
            }
        };
        if let Ok(step) = &outcome {
            debug_assert_eq!(step.next.name(), transition.to);
        }
        outcome
    }

    /// Hands in the pre-shared key; the reply is the first message of an initiator.
    pub(crate) fn secret(self, setup: &Setup, secret: Secret) -> Outcome {
        match self {
            Self::InitiatorAwaitingSecret(state) => Ok(state.secret(setup, secret)),
            Self::ResponderKeSent(mut state) => match state.secret(setup, secret) {
                Ok(()) => Ok(Step {
                    next: Self::ResponderKeSent(state),
                    reply: None,
                    float: false,
                    initial_contact: false,
                    needs_secret: false,
                }),
                Err(failure) => Err(failed(failure)),
            },
            other => Ok(Step { next: other, reply: None, float: false, initial_contact: false, needs_secret: false }),
        }
    }

    /// Keys and the IV base for messages other than main mode's, as soon as
    /// both sides can have them.
    pub(crate) fn phase2_keys(&self) -> Option<(&IsakmpKeys, &Iv)> {
        match self {
            Self::InitiatorAuthSent(s) => Some((&s.keys, &s.iv)),
            Self::Established(s) => Some((&s.keys, &s.last_block)),
            _ => None,
        }
    }

    /// The established SA.
    pub(crate) fn established(&self) -> Option<&Established> {
        match self {
            Self::Established(e) => Some(e),
            _ => None,
        }
    }
}

fn ignored(state: MainMode, failure: Failure) -> Box<Stop> {
    Box::new(Stop::Ignored { state, failure, now: false })
}

fn failed(failure: Failure) -> Box<Stop> {
    Box::new(Stop::Failed { failure, reply: None })
}

fn malformed(what: &str) -> Failure {
    Failure::new(
        Kind::Other,
        Fault::Peer,
        format!("the peer sent {what}"),
        "look at the peer's implementation, or for somebody who forges its messages",
    )
}

/// Header of a main mode message.
fn header(cookies: Cookies) -> Header {
    Header {
        initiator: cookies.initiator,
        responder: cookies.responder,
        first: PayloadKind::NONE,
        exchange: ExchangeType::MAIN_MODE,
        flags: Flags::default(),
        message_id: 0,
    }
}

fn clear(cookies: Cookies, payloads: Vec<Payload>) -> Vec<u8> {
    Message { header: header(cookies), body: Body::Clear(payloads) }.encode()
}

/// Our vendor IDs: what NAT traversal we agree to, and dead peer detection.
fn vendor_ids(nat: Option<[u8; 16]>, dpd: bool) -> Vec<Payload> {
    nat.into_iter().chain(dpd.then_some(vendor::DPD)).map(|id| Payload::VendorId(id.to_vec())).collect()
}

/// Whether we take part in NAT traversal at all.
fn traverses_nat(policy: &IkePolicy) -> bool {
    policy.nat_traversal != NatTraversal::Off
}

fn nonce(entropy: &mut dyn Entropy) -> Vec<u8> {
    let mut nonce = vec![0; NONCE_LEN];
    entropy.fill(&mut nonce);
    nonce
}

fn initial_contact(setup: &Setup) -> Payload {
    let kind = NotifyKind::INITIAL_CONTACT;
    Payload::Notification(informational::isakmp_notification(setup.cookies, kind, Vec::new()))
}

fn says_initial_contact(payloads: &[Payload]) -> bool {
    Payloads(payloads).notifications().any(|n| n.kind == NotifyKind::INITIAL_CONTACT)
}

/// The peer's failure to say something that is nevertheless well-formed.
fn key_exchange_failed(error: &crypto::table::Error) -> Failure {
    Failure::new(
        Kind::Other,
        Fault::Peer,
        format!("the key exchange failed: {error}"),
        "try again; if it persists, look at the peer's implementation of that group",
    )
}

/// An algorithm that the configuration names but that has no implementation.
fn unusable(error: &crypto::table::Error) -> Failure {
    Failure::new(Kind::Other, Fault::Ours, error.to_string(), "take that algorithm out of the proposals")
}

fn cipher_failed(error: &crypto::table::Error) -> Failure {
    Failure::new(Kind::Other, Fault::Ours, format!("encryption failed: {error}"), "try again")
}

/// Opens an encrypted message of main mode and checks what it must carry.
fn open(keys: &IsakmpKeys, iv: &Iv, message: &Message, from: StateName) -> Result<protection::Opened, String> {
    let Body::Encrypted(ciphertext) = &message.body else {
        return Err("it is not encrypted".into());
    };
    let opened = protection::open(keys, iv, message.header.first, ciphertext).map_err(|e| e.to_string())?;
    let required = table::transition(from).map_or(&[][..], |t| t.required);
    select::check(&opened.payloads, required, &[])?;
    Ok(opened)
}

/// The failure of a message that does not decrypt: almost always the key.
fn undecryptable(setup: &Setup, message: u8) -> Failure {
    let auth = &setup.auth;
    Failure::new(
        Kind::Other,
        Fault::Mismatch,
        format!("the pre-shared key differs: message {message}, which depends on it, does not decrypt"),
        format!(
            "compare the pre-shared key of auth record `{}` (line {}) with the peer's, hexadecimal or ASCII, quotes",
            auth.name, auth.line
        ),
    )
}

/// The end of a negotiation with a peer that holds the key but is not who it
/// must be: it is told under the keys, as it can read them.
fn refuse_identity(
    setup: &Setup,
    failure: Failure,
    keys: &IsakmpKeys,
    last_block: &Iv,
    entropy: &mut dyn Entropy,
) -> Box<Stop> {
    let notification =
        informational::isakmp_notification(setup.cookies, NotifyKind::INVALID_ID_INFORMATION, Vec::new());
    let content = vec![Payload::Notification(notification), informational::isakmp_delete(setup.cookies)];
    let message_id = informational::message_id(entropy);
    // Without a cipher the peer is not told, and its own time runs out.
    let reply = informational::sealed(keys, last_block, setup.cookies, message_id, content).ok();
    Box::new(Stop::Failed { failure, reply })
}

/// A proposal mismatch of main mode.
fn no_proposal(setup: &Setup, mismatch: &crate::proposal::Mismatch) -> Failure {
    Failure::new(
        Kind::NoProposal,
        Fault::Mismatch,
        mismatch.to_string(),
        format!("align `proposals` of ike policy `{}` (line {}) with the peer's", setup.policy.name, setup.policy.line),
    )
}
