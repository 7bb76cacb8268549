//! Aggressive mode with a pre-shared key (RFC 2409 5.4) or with signatures (5.1): the three messages that
//! lead to where main mode's six do.
//!
//! What it gives up for that: the responder computes a shared secret for whoever sends message 1, and the
//! identities are in the clear. Message 3 answers message 2 and nothing answers it, so whoever sent it does so
//! again for as long as nothing shows that it has arrived.

mod initiator;
mod responder;
pub(crate) mod table;

pub(crate) use initiator::begin;
pub(crate) use responder::{first_message, named_identity, preview};

use super::table::StateName;
use super::{Context, MainMode, Outcome, Setup, Signed, Step, ignored, malformed};
use crate::keys::{Cookies, IsakmpKeys};
use crate::main_mode::Judgement;
use crate::proposal::phase1::Agreed;
use crate::protection::Iv;
use crate::wire::numbers::{ExchangeType, PayloadKind};
use crate::wire::{Body, Flags, Header, Message, Payload};
use crypto::{Entropy, Secret};

/// A state of aggressive mode. Its last one is main mode's.
pub(crate) enum Aggressive {
    InitiatorAwaitingSecret(initiator::AwaitingSecret),
    InitiatorSaSent(initiator::SaSent),
    InitiatorJudging(initiator::Judging),
    InitiatorSigning(initiator::Signing),
    ResponderAwaitingSecret(responder::Answering),
    ResponderSigning(responder::Answering),
    ResponderAuthSent(responder::AuthSent),
    ResponderJudging(responder::Judging),
}

impl From<Aggressive> for MainMode {
    fn from(state: Aggressive) -> Self {
        Self::Aggressive(Box::new(state))
    }
}

impl Aggressive {
    pub(super) fn name(&self) -> StateName {
        match self {
            Self::InitiatorAwaitingSecret(_) => StateName::AggressiveInitiatorAwaitingSecret,
            Self::InitiatorSaSent(_) => StateName::AggressiveInitiatorSaSent,
            Self::InitiatorJudging(_) => StateName::AggressiveInitiatorJudging,
            Self::InitiatorSigning(_) => StateName::AggressiveInitiatorSigning,
            Self::ResponderAwaitingSecret(_) => StateName::AggressiveResponderAwaitingSecret,
            Self::ResponderSigning(_) => StateName::AggressiveResponderSigning,
            Self::ResponderAuthSent(_) => StateName::AggressiveResponderAuthSent,
            Self::ResponderJudging(_) => StateName::AggressiveResponderJudging,
        }
    }

    pub(super) fn agreed(&self) -> Option<&Agreed> {
        match self {
            Self::InitiatorAwaitingSecret(_) | Self::InitiatorSaSent(_) => None,
            Self::InitiatorJudging(s) => Some(&s.exchanged.agreed),
            Self::InitiatorSigning(s) => Some(&s.exchanged.agreed),
            Self::ResponderAwaitingSecret(s) | Self::ResponderSigning(s) => Some(s.agreed()),
            Self::ResponderAuthSent(s) => Some(&s.exchanged.agreed),
            Self::ResponderJudging(s) => Some(&s.exchanged.agreed),
        }
    }

    /// Processes the next message: the second or third.
    pub(super) fn handle(self, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::InitiatorSaSent(state) => state.handle(setup, message, context),
            Self::ResponderAuthSent(state) => state.handle(setup, message, context),
            other => Err(ignored(other.into(), malformed("a message that nobody waits for"))),
        }
    }

    /// Hands in the pre-shared key; the reply is message 1 or 2.
    pub(super) fn secret(self, setup: &Setup, secret: Option<Secret>) -> Outcome {
        match (self, secret) {
            (Self::InitiatorAwaitingSecret(state), secret) => Ok(state.secret(setup, secret)),
            (Self::ResponderAwaitingSecret(state), Some(secret)) => state.secret(setup, &secret),
            (other, _) => Ok(Step::silent(other.into())),
        }
    }

    /// Hands in our signature; the reply is message 2 or 3.
    pub(super) fn signed(self, setup: &Setup, signed: Signed, entropy: &mut dyn Entropy) -> Outcome {
        match self {
            Self::InitiatorSigning(state) => state.signed(setup, signed, entropy),
            Self::ResponderSigning(state) => state.signed(setup, signed),
            other => Ok(Step::silent(other.into())),
        }
    }

    /// Hands in the verdict on the peer's certificate.
    pub(super) fn judged(self, setup: &Setup, judgement: &Judgement, entropy: &mut dyn Entropy) -> Outcome {
        match self {
            Self::InitiatorJudging(state) => state.judged(setup, judgement, entropy),
            Self::ResponderJudging(state) => state.judged(setup, judgement, entropy),
            other => Ok(Step::silent(other.into())),
        }
    }

    /// Keys and the IV base for what an initiator says who does not accept message 2.
    pub(super) fn phase2_keys(&self) -> Option<(&IsakmpKeys, &Iv)> {
        match self {
            Self::ResponderAuthSent(s) => Some((&s.exchanged.keys, &s.iv)),
            _ => None,
        }
    }
}

/// Header of a message of aggressive mode.
fn header(cookies: Cookies) -> Header {
    Header {
        initiator: cookies.initiator,
        responder: cookies.responder,
        first: PayloadKind::NONE,
        exchange: ExchangeType::AGGRESSIVE,
        flags: Flags::default(),
        message_id: 0,
    }
}

fn clear(cookies: Cookies, payloads: Vec<Payload>) -> Vec<u8> {
    Message { header: header(cookies), body: Body::Clear(payloads) }.encode()
}
