//! Main mode with a pre-shared key (RFC 2409 5.4), with signatures (5.1), or with a signature of one side
//! and a user of the other's (draft-ietf-ipsec-isakmp-hybrid-auth-05): one
//! state per message or answer we wait for, each with the data it needs and no other.
//! What aggressive mode does in its place is in `aggressive`.

pub(crate) mod aggressive;
mod authenticated;
mod initiator;
mod responder;
mod signatures;
pub(crate) mod table;

pub(crate) use authenticated::Authenticated;
pub(crate) use initiator::InitiatorAwaitingSecret;
pub(crate) use responder::{first_message, preview};
pub(crate) use signatures::{Judgement, Signed, Want};

use crate::failure::{Failure, Fault, Kind, Role};
use crate::informational;
use crate::keys::{Cookies, IsakmpKeys, Said};
use crate::nat::NatState;
use crate::proposal::phase1::{Acceptable, Agreed, Asked};
use crate::protection::{self, Iv};
use crate::vendor::{self, Announced, Fragmentation, NatSupport};
use crate::wire::numbers::{ExchangeType, NotifyKind, PayloadKind, X509_SIGNATURE};
use crate::wire::select;
use crate::wire::{Body, Flags, Header, Message, Payload, Payloads, SecurityAssociation};
use aggressive::Aggressive;
use crypto::{Entropy, Secret};
use policy::config::{
    AuthMethod, AuthRecord, Identity, IdentityPattern, IkePolicy, NatTraversal, Phase1Exchange, Xauth,
};
use policy::sa::Lifetime;
use std::net::SocketAddr;
use std::sync::Arc;
use table::{By, StateName, Trigger};

/// Octets of our nonces.
pub(crate) const NONCE_LEN: usize = 32;

/// What does not change during one negotiation.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) cookies: Cookies,
    pub(crate) policy: Arc<IkePolicy>,
    pub(crate) auth: Arc<AuthRecord>,
    /// What policy and record allow, the most preferred first.
    pub(crate) methods: Vec<AuthMethod>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Main or aggressive mode.
    pub(crate) exchange: Phase1Exchange,
    /// Where both sides go on if there is a NAT.
    pub(crate) natt_port: u16,
    /// Lifetimes of less than a minute are accepted.
    pub(crate) short_lifetimes: bool,
}

impl Setup {
    /// Who we say we are: our address, unless the authentication record says otherwise.
    pub(crate) fn local_identity(&self) -> Identity {
        self.auth.local_id.clone().unwrap_or(Identity::Address(self.local.ip()))
    }

    /// Who the peer must be: its address, unless the authentication record says otherwise.
    pub(crate) fn expected_identity(&self) -> IdentityPattern {
        self.auth.remote_id.clone().unwrap_or(IdentityPattern::Exactly(Identity::Address(self.remote.ip())))
    }

    /// What we may agree to in a role.
    fn acceptable(&self, role: Role) -> Acceptable<'_> {
        let asked = asked(&self.auth, role);
        Acceptable { policy: &self.policy, methods: &self.methods, short_lifetimes: self.short_lifetimes, asked }
    }
}

/// Whose user is to be asked by XAUTH, in a negotiation in which this is our role.
pub(crate) fn asked(auth: &AuthRecord, role: Role) -> Asked {
    match (&auth.xauth, role) {
        (None, _) => Asked::Nobody,
        (Some(Xauth::Client { .. }), Role::Initiator) | (Some(Xauth::Server { .. }), Role::Responder) => {
            Asked::Initiator
        }
        (Some(_), _) => Asked::Responder,
    }
}

/// A state of main mode, or of aggressive mode.
pub(crate) enum MainMode {
    InitiatorAwaitingSecret(Box<InitiatorAwaitingSecret>),
    InitiatorSaSent(Box<initiator::SaSent>),
    InitiatorKeSent(Box<initiator::KeSent>),
    InitiatorSigning(Box<initiator::Signing>),
    InitiatorAuthSent(Box<initiator::AuthSent>),
    InitiatorJudging(Box<initiator::Judging>),
    ResponderSaSent(Box<responder::SaSent>),
    ResponderKeSent(Box<responder::KeSent>),
    ResponderJudging(Box<responder::Judging>),
    ResponderSigning(Box<responder::Signing>),
    Aggressive(Box<Aggressive>),
    Established(Box<Established>),
}

/// What both sides know once the public values are exchanged.
pub(crate) struct Exchanged {
    keys: IsakmpKeys,
    /// The initiator's SA payload (SAi_b).
    offer: SecurityAssociation,
    said: Said,
    agreed: Agreed,
    announced: Announced,
    nat: NatState,
    nat_support: Option<NatSupport>,
}

impl Exchanged {
    fn established(self, last_block: Iv, peer: Authenticated) -> Established {
        Established {
            keys: self.keys,
            last_block,
            peer,
            method: self.agreed.method,
            lifetime: self.agreed.lifetime,
            shortened: self.agreed.shortened,
            nat: self.nat,
            nat_support: self.nat_support,
            peer_dpd: self.announced.dpd,
        }
    }
}

/// What an established ISAKMP SA is made of.
pub(crate) struct Established {
    pub(crate) keys: IsakmpKeys,
    /// Last ciphertext block of phase 1, from which phase 2 IVs come.
    pub(crate) last_block: Iv,
    pub(crate) peer: Authenticated,
    pub(crate) method: AuthMethod,
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
    /// What is needed from outside before it goes on.
    pub(crate) wants: Option<Want>,
}

impl Step {
    fn new(next: MainMode, reply: Vec<u8>) -> Self {
        Self { reply: Some(reply), ..Self::silent(next) }
    }

    /// Without an answer to the peer.
    fn silent(next: MainMode) -> Self {
        Self { next, reply: None, float: false, initial_contact: false, wants: None }
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
    /// Our address and the peer's that the message came between.
    pub(crate) between: (SocketAddr, SocketAddr),
}

type Outcome = Result<Step, Box<Stop>>;

impl MainMode {
    /// The name of the state.
    pub(crate) fn name(&self) -> StateName {
        match self {
            Self::InitiatorAwaitingSecret(_) => StateName::InitiatorAwaitingSecret,
            Self::InitiatorSaSent(_) => StateName::InitiatorSaSent,
            Self::InitiatorKeSent(_) => StateName::InitiatorKeSent,
            Self::InitiatorSigning(_) => StateName::InitiatorSigning,
            Self::InitiatorAuthSent(_) => StateName::InitiatorAuthSent,
            Self::InitiatorJudging(_) => StateName::InitiatorJudging,
            Self::ResponderSaSent(_) => StateName::ResponderSaSent,
            Self::ResponderKeSent(_) => StateName::ResponderKeSent,
            Self::ResponderJudging(_) => StateName::ResponderJudging,
            Self::ResponderSigning(_) => StateName::ResponderSigning,
            Self::Aggressive(state) => state.name(),
            Self::Established(_) => StateName::Established,
        }
    }

    /// Whether a message in the clear carries what is awaited now, and a public value that can be one.
    pub(crate) fn awaits(&self, message: &Message) -> bool {
        let (Some(transition), Body::Clear(payloads)) = (table::transition(self.name(), self.by()), &message.body)
        else {
            return false;
        };
        let group = match self {
            Self::ResponderSaSent(state) => state.group(),
            _ => return false,
        };
        let public = Payloads(payloads).key_exchange();
        select::check(payloads, transition.required, &[]).is_ok() && public.is_some_and(|p| group.check(p).is_ok())
    }

    /// The method, once it is agreed.
    pub(crate) fn method(&self) -> Option<AuthMethod> {
        match self {
            Self::Established(s) => Some(s.method),
            other => other.agreed().map(|agreed| agreed.method),
        }
    }

    /// How both sides prove who they are, once it is agreed and before it is done.
    fn by(&self) -> Option<By> {
        self.agreed().map(By::of)
    }

    fn agreed(&self) -> Option<&Agreed> {
        match self {
            Self::InitiatorAwaitingSecret(_) | Self::InitiatorSaSent(_) | Self::Established(_) => None,
            Self::InitiatorKeSent(s) => Some(s.agreed()),
            Self::InitiatorSigning(s) => Some(&s.exchanged.agreed),
            Self::InitiatorAuthSent(s) => Some(&s.exchanged.agreed),
            Self::InitiatorJudging(s) => Some(&s.exchanged.agreed),
            Self::ResponderSaSent(s) => Some(s.agreed()),
            Self::ResponderKeSent(s) => Some(s.agreed()),
            Self::ResponderJudging(s) => Some(&s.exchanged.agreed),
            Self::ResponderSigning(s) => Some(&s.exchanged.agreed),
            Self::Aggressive(s) => s.agreed(),
        }
    }

    /// Processes the next message. Duplicates were sorted out before.
    pub(crate) fn handle(self, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        if let Self::Aggressive(state) = self {
            return state.handle(setup, message, context);
        }
        let from = self.name();
        let Some(transition) = table::transition(from, self.by()) else {
            return Err(ignored(self, malformed("a message after the last of main mode")));
        };
        let encrypted = matches!(message.body, Body::Encrypted(_));
        if encrypted != transition.encrypted {
            let what = if encrypted { "an encrypted message" } else { "a message in the clear" };
            return Err(ignored(self, malformed(&format!("{what} where {} is awaited", transition.trigger))));
        }
        if let Body::Clear(payloads) = &message.body
            && let Err(what) = select::check(payloads, transition.required, &[])
        {
            return Err(ignored(self, malformed(&format!("a {} that is not acceptable: {what}", transition.trigger))));
        }
        let outcome = match self {
            Self::InitiatorSaSent(state) => state.handle(setup, message, context),
            Self::InitiatorKeSent(state) => state.handle(setup, message, context),
            Self::InitiatorAuthSent(state) => state.handle(setup, message, context),
            Self::ResponderSaSent(state) => state.handle(setup, message, context),
            Self::ResponderKeSent(state) => state.handle(setup, message, context),
            Self::InitiatorAwaitingSecret(_)
            | Self::Aggressive(_)
            | Self::InitiatorSigning(_)
            | Self::InitiatorJudging(_)
            | Self::ResponderJudging(_)
            | Self::ResponderSigning(_)
            | Self::Established(_) => Err(ignored(self, malformed("a message that nobody waits for"))),
        };
        if let Ok(step) = &outcome {
            debug_assert_eq!(step.next.name(), transition.to);
        }
        outcome
    }

    /// Hands in the pre-shared key, if one is needed; the reply is the first message of an initiator.
    pub(crate) fn secret(self, setup: &Setup, secret: Option<Secret>) -> Outcome {
        match (self, secret) {
            (Self::Aggressive(state), secret) => state.secret(setup, secret),
            (Self::InitiatorAwaitingSecret(state), secret) => Ok(state.secret(setup, secret)),
            (Self::ResponderKeSent(mut state), Some(secret)) => match state.secret(&secret) {
                Ok(()) => Ok(Step::silent(Self::ResponderKeSent(state))),
                Err(failure) => Err(failed(failure)),
            },
            (other, _) => Ok(Step::silent(other)),
        }
    }

    /// Hands in our signature, or why there is none; the reply is the message that it is for.
    pub(crate) fn signed(self, setup: &Setup, signed: Result<Signed, String>, entropy: &mut dyn Entropy) -> Outcome {
        let awaited = table::transition(self.name(), self.by()).is_some_and(|t| t.trigger == Trigger::Signature);
        let signed = match (awaited, signed) {
            (true, Err(reason)) => {
                return Err(failed(signatures::cannot_sign(setup, &reason)));
            }
            (_, Err(_)) => return Ok(Step::silent(self)),
            (_, Ok(signed)) => signed,
        };
        self.answered(Trigger::Signature, |state| match state {
            Self::InitiatorSigning(state) => state.signed(setup, signed),
            Self::ResponderSigning(state) => state.signed(setup, signed),
            Self::Aggressive(state) => state.signed(setup, signed, entropy),
            other => Ok(Step::silent(other)),
        })
    }

    /// Hands in the verdict on the peer's certificate.
    pub(crate) fn judged(self, setup: &Setup, judgement: Judgement, entropy: &mut dyn Entropy) -> Outcome {
        self.answered(Trigger::Verdict, |state| match state {
            Self::InitiatorJudging(state) => state.judged(setup, &judgement, entropy),
            Self::ResponderJudging(state) => state.judged(setup, &judgement, entropy),
            Self::Aggressive(state) => state.judged(setup, &judgement, entropy),
            other => Ok(Step::silent(other)),
        })
    }

    fn answered(self, trigger: Trigger, act: impl FnOnce(Self) -> Outcome) -> Outcome {
        let transition = table::transition(self.name(), self.by()).filter(|t| t.trigger == trigger);
        let outcome = act(self);
        if let (Ok(step), Some(transition)) = (&outcome, transition) {
            debug_assert_eq!(step.next.name(), transition.to);
        }
        outcome
    }

    /// Keys and the IV base for messages other than main mode's, as soon as
    /// both sides can have them.
    pub(crate) fn phase2_keys(&self) -> Option<(&IsakmpKeys, &Iv)> {
        match self {
            Self::InitiatorAuthSent(s) => Some((&s.exchanged.keys, &s.iv)),
            Self::Aggressive(s) => s.phase2_keys(),
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

/// Our vendor IDs as initiator, but for that of XAUTH: NAT traversal, dead peer detection, fragmentation, and that we
/// receive early.
fn vendor_ids(policy: &IkePolicy) -> Vec<Payload> {
    let nat = traverses_nat(policy).then_some((NatSupport::Rfc3947, vendor::RFC_3947));
    let fragmentation = Some(Fragmentation::Capable);
    let all = Announced { nat, dpd: true, xauth: false, fragmentation, receives_early: true };
    vendor_ids_for(policy, all)
}

/// The same as responder: only what the peer has announced too, as the answer must not be longer than the question.
fn vendor_ids_for(policy: &IkePolicy, announced: Announced) -> Vec<Payload> {
    let nat = announced.nat.filter(|_| traverses_nat(policy)).map(|(_, id)| id.to_vec());
    let fragmentation = announced.fragmentation.filter(|_| policy.fragment_size.is_some());
    let fragmentation = fragmentation.map(Fragmentation::vendor_id);
    let dpd = announced.dpd.then(|| vendor::DPD.to_vec());
    let early = announced.receives_early.then(|| vendor::RECEIVES_EARLY.to_vec());
    [nat, dpd, fragmentation, early].into_iter().flatten().map(Payload::VendorId).collect()
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
fn open(keys: &IsakmpKeys, iv: &Iv, message: &Message, from: StateName, by: By) -> Result<protection::Opened, String> {
    let Body::Encrypted(ciphertext) = &message.body else {
        return Err("it is not encrypted".into());
    };
    let opened = protection::open(keys, iv, message.header.first, ciphertext).map_err(|e| e.to_string())?;
    let required = table::transition(from, Some(by)).map_or(&[][..], |t| t.required);
    select::check(&opened.payloads, required, &[])?;
    Ok(opened)
}

/// The failure of a message that does not decrypt: with a pre-shared key almost always the key.
fn undecryptable(setup: &Setup, method: AuthMethod, message: u8) -> Failure {
    let auth = &setup.auth;
    if method != AuthMethod::PreSharedKey {
        return Failure::new(
            Kind::Other,
            Fault::Peer,
            format!("message {message} does not decrypt to what it must carry: identity, and signature or hash"),
            "look at the peer's implementation, or for somebody who forges its messages",
        );
    }
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

/// Requests for certificates of the authorities that we believe (RFC 2409 5.1, RFC 4945 3.2.7).
fn certificate_requests(setup: &Setup, method: AuthMethod) -> impl Iterator<Item = Payload> {
    /// So many, that a message stays within a packet or two.
    const MOST: usize = 16;
    let authorities = if method == AuthMethod::PreSharedKey { &[][..] } else { &setup.auth.authorities };
    let request = |name: &Vec<u8>| Payload::CertificateRequest { encoding: X509_SIGNATURE, authority: name.clone() };
    authorities.iter().take(MOST).map(request)
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
    refuse(setup, failure, (NotifyKind::INVALID_ID_INFORMATION, String::new()), keys, last_block, entropy)
}

/// The end of a negotiation under its keys: the peer is told a kind of error, and some words.
fn refuse(
    setup: &Setup,
    failure: Failure,
    (kind, words): (NotifyKind, String),
    keys: &IsakmpKeys,
    last_block: &Iv,
    entropy: &mut dyn Entropy,
) -> Box<Stop> {
    let notification = informational::isakmp_notification(setup.cookies, kind, words.into_bytes());
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
