//! Quick mode (RFC 2409 5.5): three messages under an ISAKMP SA, at the end of
//! which both sides have a pair of ESP SAs.
//!
//! The responder can decrypt from message 2 on, but encrypts only after
//! message 3 has shown that the initiator is there; the initiator does both
//! from message 2 on.

mod initiator;
mod responder;
pub(crate) mod table;

pub(crate) use initiator::{InitiatorSent, begin};
pub(crate) use responder::{Asked, ResponderSent, answer, notify_kind, read};

use crate::failure::{Failure, Fault, Kind};
use crate::keys::{Cookies, IsakmpKeys};
use crate::proposal::Mismatch;
use crate::proposal::phase2::Agreed;
use crate::protection::{self, Iv, Opened};
use crate::wire::numbers::{ExchangeType, PayloadKind, ProtocolId};
use crate::wire::select;
use crate::wire::{Body, Flags, Header, Message};
use crypto::{EspSuite, Secret};
use policy::config::TunnelPolicy;
use std::net::IpAddr;
use std::sync::Arc;
use table::StateName;

/// The ISAKMP SA that an exchange is under, and the exchange's name.
#[derive(Clone, Copy)]
pub(crate) struct Under<'a> {
    pub(crate) keys: &'a IsakmpKeys,
    pub(crate) cookies: Cookies,
    pub(crate) message_id: u32,
}

/// A state of quick mode.
pub(crate) enum QuickMode {
    InitiatorSent(Box<InitiatorSent>),
    ResponderSent(Box<ResponderSent>),
    Finished,
    Abandoned(Box<Abandoned>),
}

/// Our own exchange that gave way to the peer's: what it takes to tell whether an answer to it is the peer's.
pub(crate) struct Abandoned(InitiatorSent);

impl Abandoned {
    /// What we sent, without the secret that an answer would have been used with.
    pub(crate) fn new(sent: InitiatorSent) -> Self {
        Self(sent.without_secret())
    }

    /// The SPI that we offered in it.
    pub(crate) fn spi(&self) -> u32 {
        self.0.spi
    }

    /// Whether a message is the peer's answer.
    pub(crate) fn is_answered_by(&self, keys: &IsakmpKeys, message: &Message) -> bool {
        self.0.authenticate(keys, message).is_ok()
    }
}

/// The outcome of an exchange, on either side: all that a pair is made of.
pub(crate) struct Negotiated {
    pub(crate) tunnel: Arc<TunnelPolicy>,
    pub(crate) agreed: Agreed,
    pub(crate) inbound_spi: u32,
    pub(crate) inbound_keymat: Keymat,
    pub(crate) outbound_keymat: Keymat,
    /// Encapsulation mode on the wire.
    pub(crate) mode: u16,
    /// Transport mode through a NAT: the peer's own address, and ours as it sees it.
    pub(crate) original: Option<(IpAddr, IpAddr)>,
}

/// KEYMAT of one direction.
pub(crate) struct Keymat {
    pub(crate) main: Secret,
    /// That of the AH of a bundle.
    pub(crate) ah: Option<Secret>,
}

impl QuickMode {
    pub(crate) fn name(&self) -> StateName {
        match self {
            Self::InitiatorSent(_) => StateName::InitiatorSent,
            Self::ResponderSent(_) => StateName::ResponderSent,
            Self::Finished => StateName::Finished,
            Self::Abandoned(_) => StateName::Abandoned,
        }
    }

    /// This state, entered from another one: as the table has it.
    pub(crate) fn after(self, from: StateName) -> Self {
        debug_assert!(table::TRANSITIONS.iter().any(|t| t.from == from && t.to == self.name()));
        self
    }
}

/// A message of quick mode whose hash was right. Only [`authenticate`] makes it.
pub(crate) struct Authentic {
    opened: Opened,
}

impl Authentic {
    pub(crate) fn payloads(&self) -> select::Payloads<'_> {
        select::Payloads(&self.opened.payloads)
    }

    /// IV for the next message of the exchange.
    pub(crate) fn next_iv(&self) -> &Iv {
        &self.opened.next_iv
    }
}

/// Decrypts a message, checks what it must carry in state `from` and its hash,
/// which `expected` computes of what follows the HASH payload.
///
/// # Errors
/// Why it is not acceptable: it is to be ignored.
fn authenticate(
    keys: &IsakmpKeys,
    iv: &Iv,
    message: &Message,
    from: StateName,
    expected: impl FnOnce(&[u8]) -> Secret,
) -> Result<Authentic, String> {
    let Body::Encrypted(ciphertext) = &message.body else {
        return Err("it is not encrypted".into());
    };
    let opened = protection::open(keys, iv, message.header.first, ciphertext).map_err(|e| e.to_string())?;
    let (hash, rest) = opened.hash_and_rest().ok_or("it does not begin with a hash")?;
    if !crypto::secret::equal(expected(rest).expose(), hash) {
        return Err("its hash is wrong".into());
    }
    let transition = table::transition(from).ok_or("nothing is awaited")?;
    select::check(&opened.payloads, transition.required, transition.optional)?;
    Ok(Authentic { opened })
}

/// KEYMAT of both directions (RFC 2409 5.5): each under its protocol and its receiver's SPI.
fn keymats(
    keys: &IsakmpKeys,
    agreed: &Agreed,
    shared: Option<&Secret>,
    inbound_spi: u32,
    nonces: (&[u8], &[u8]),
) -> (Keymat, Keymat) {
    let of = |protocol: ProtocolId, spi, len| keys.keymat(shared, protocol.0, spi, nonces, len);
    let main = |spi| of(agreed.protocol.into(), spi, agreed.suite.keymat_len());
    let ah = |spi| agreed.ah.map(|(ah, _)| of(ProtocolId::AH, spi, EspSuite::of_ah(ah).keymat_len()));
    let outer_spi = agreed.ah.map_or(agreed.spi, |(_, spi)| spi);
    (Keymat { main: main(inbound_spi), ah: ah(inbound_spi) }, Keymat { main: main(agreed.spi), ah: ah(outer_spi) })
}

fn header(under: &Under<'_>) -> Header {
    Header {
        initiator: under.cookies.initiator,
        responder: under.cookies.responder,
        first: PayloadKind::NONE,
        exchange: ExchangeType::QUICK_MODE,
        flags: Flags::default(),
        message_id: under.message_id,
    }
}

fn crypto_failed(error: &crypto::table::Error, fault: Fault) -> Failure {
    Failure::new(Kind::Other, fault, error.to_string(), "try again; if it persists, take another group or cipher")
}

fn peer_failed(what: impl Into<String>) -> Failure {
    Failure::new(Kind::Other, Fault::Peer, what, "look at the peer's implementation")
}

/// The proposals of the two sides do not meet.
fn no_proposal(tunnel: &TunnelPolicy, mismatch: &Mismatch) -> Failure {
    let (name, line) = (&tunnel.name, tunnel.line);
    let detail = format!("tunnel {name}: {mismatch}");
    if mismatch.is_about_nat() {
        let remedy = "the two sides do not agree on whether there is a NAT: a new ISAKMP SA will tell";
        return Failure::new(Kind::NatDisagreement, Fault::Mismatch, detail, remedy);
    }
    let remedy = format!("align `action` of tunnel `{name}` (line {line}) with the peer's transforms");
    Failure::new(Kind::NoProposal, Fault::Mismatch, detail, remedy)
}
