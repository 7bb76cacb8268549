//! Peers that begin in another version, domain of interpretation or situation: what they say
//! cannot be read, but that they say it can, and is refused by name, once for each attempt.

use super::{Datagram, Discarded, Engine, Output};
use crate::failure::{Exchange, Failure, Fault, Kind, Place, Role};
use crate::informational;
use crate::keys::Cookies;
use crate::wire::numbers::{ExchangeType, NotifyKind};
use crate::wire::{Cookie, DecodeError, HEADER_LEN};
use crypto::Entropy;
use policy::time::Timestamp;

impl Engine {
    /// A datagram that is no message to us.
    pub(super) fn undecodable(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        error: &DecodeError,
        entropy: &mut dyn Entropy,
    ) {
        self.discard(Discarded::Malformed);
        let (Some((kind, remedy)), Some(initiator)) = (refusal(error), initiator_of_first(datagram.payload)) else {
            return;
        };
        let remote = datagram.remote;
        let configured = self.config.ike_policy(remote.ip()).is_some();
        if self.stopping || !configured || self.refusals.find(now, remote, initiator).is_some() {
            return;
        }
        if self.refusals.keep(now, remote, initiator, None) {
            let failure = Failure::new(Kind::Other, Fault::Mismatch, format!("message 1: {error}"), remedy);
            let exchange = exchange_of_first(datagram.payload);
            let place = Place { exchange, role: Role::Responder, local: datagram.local, remote };
            self.output.push_back(Output::Audit(failure.event(&place)));
            let cookies = Cookies { initiator, responder: Cookie::ZERO };
            let reply = informational::clear_notification(cookies, informational::message_id(entropy), kind);
            self.answer_stranger(datagram, &reply);
        }
    }
}

/// What a peer is told, and what to do about it; `None` for what is merely malformed.
fn refusal(error: &DecodeError) -> Option<(NotifyKind, &'static str)> {
    const LABELS: &str = "have the peer negotiate without labels of secrecy or integrity (SIT_IDENTITY_ONLY)";
    const VERSION: &str = "configure IKE version 1 on the peer";
    match error {
        DecodeError::Doi(_) => Some((NotifyKind::DOI_NOT_SUPPORTED, "configure IPsec on the peer")),
        DecodeError::Situation(_) => Some((NotifyKind::SITUATION_NOT_SUPPORTED, LABELS)),
        DecodeError::Version(version) if version >> 4 == 1 => Some((NotifyKind::INVALID_MINOR_VERSION, VERSION)),
        DecodeError::Version(_) => Some((NotifyKind::INVALID_MAJOR_VERSION, VERSION)),
        _ => None,
    }
}

/// The initiator's cookie, if these octets begin as a first message does, of whichever version.
fn initiator_of_first(octets: &[u8]) -> Option<Cookie> {
    let header: &[u8; HEADER_LEN] = octets.first_chunk()?;
    let (initiator, rest) = header.split_first_chunk::<8>()?;
    (*initiator != [0; 8] && rest.starts_with(&[0; 8])).then_some(Cookie(*initiator))
}

/// Which exchange its header names (RFC 2408 3.1), of whichever version.
fn exchange_of_first(octets: &[u8]) -> Exchange {
    let octet = |at: usize| octets.get(at).copied().unwrap_or(0);
    let (version, exchange) = (octet(17) >> 4, octet(18));
    match (version, ExchangeType(exchange)) {
        (1, ExchangeType::MAIN_MODE) => Exchange::Main,
        (1, ExchangeType::AGGRESSIVE) => Exchange::Aggressive,
        _ => Exchange::Foreign { version, exchange },
    }
}
