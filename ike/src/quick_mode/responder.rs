//! The responder's side: messages 1 and 3 in, 2 out.

use super::table::StateName;
use super::{Authentic, Negotiated, Under, authenticate, crypto_failed, header, keymats, no_proposal, peer_failed};
use crate::failure::{Failure, Fault, Kind};
use crate::ids::ProxyId;
use crate::keys::IsakmpKeys;
use crate::main_mode::NONCE_LEN;
use crate::nat::Seen;
use crate::proposal::phase2::{self, Wanted};
use crate::protection::{self, Iv};
use crate::wire::numbers::{NotifyKind, ProtocolId};
use crate::wire::{Identification, Message, Payload, SecurityAssociation, encode_chain};
use crypto::Entropy;
use policy::config::TunnelPolicy;
use std::sync::Arc;

/// Message 2 is sent.
pub(crate) struct ResponderSent {
    initiator_nonce: Vec<u8>,
    responder_nonce: Vec<u8>,
    iv: Iv,
}

/// An authentic message 1, taken apart.
pub(crate) struct Asked {
    pub(crate) sa: SecurityAssociation,
    pub(crate) nonce: Vec<u8>,
    public: Option<Vec<u8>>,
    /// IDs as received, to be returned as they are.
    ids: Vec<Identification>,
    /// What they say (ours, the peer's); `None` if there are none: the outer addresses.
    pub(crate) proxies: Option<(ProxyId, ProxyId)>,
    /// The addresses as the initiator sees them, if it says so.
    pub(crate) seen: Option<Seen>,
    next_iv: Iv,
}

impl Asked {
    /// Protocol and SPI of the first proposal: by these the initiator knows its exchange. SPI 0 if there is none.
    pub(crate) fn first_spi(&self) -> (ProtocolId, u32) {
        let first = self.sa.proposals.first();
        let spi = first.and_then(|p| <[u8; 4]>::try_from(p.spi.as_slice()).ok()).map_or(0, u32::from_be_bytes);
        (first.map_or(ProtocolId::ESP, |p| p.protocol), spi)
    }
}

/// Decrypts message 1 and checks HASH(1).
///
/// # Errors
/// Why it is to be ignored.
pub(crate) fn read(keys: &IsakmpKeys, iv: &Iv, message: &Message) -> Result<Result<Asked, Failure>, String> {
    let expected = |rest: &[u8]| keys.hash1(message.header.message_id, rest);
    let authentic = authenticate(keys, iv, message, StateName::Start, expected)?;
    Ok(asked(&authentic))
}

fn asked(authentic: &Authentic) -> Result<Asked, Failure> {
    let payloads = authentic.payloads();
    let (Some(sa), Some(nonce)) = (payloads.sa(), payloads.nonce()) else {
        return Err(peer_failed("message 1 without SA or a usable nonce"));
    };
    let ids: Vec<_> = payloads.ids().cloned().collect();
    let proxies = match ids.as_slice() {
        [initiator, responder] => {
            let read = |id| {
                ProxyId::from_payload(id).map_err(|what| {
                    Failure::new(
                        Kind::NoSelector,
                        Fault::Mismatch,
                        format!("the peer asks for selectors that no tunnel can have: {what}"),
                        "configure addresses, subnets or ranges on the peer",
                    )
                })
            };
            Some((read(responder)?, read(initiator)?))
        }
        _ => None,
    };
    Ok(Asked {
        sa: sa.clone(),
        nonce: nonce.to_vec(),
        public: payloads.key_exchange().map(<[u8]>::to_vec),
        ids,
        proxies,
        seen: payloads.original_addresses(),
        next_iv: authentic.next_iv().clone(),
    })
}

/// Message 2: our choice among the peer's proposals.
///
/// # Errors
/// Why the exchange fails.
pub(crate) fn answer(
    under: &Under<'_>,
    asked: &Asked,
    tunnel: &Arc<TunnelPolicy>,
    wanted: &Wanted<'_>,
    spi: u32,
    entropy: &mut dyn Entropy,
) -> Result<(ResponderSent, Negotiated, Vec<u8>), Failure> {
    let agreed = phase2::choose(wanted, &asked.sa).map_err(|m| no_proposal(tunnel, &m))?;
    let (shared, our_public) = match (agreed.pfs, &asked.public) {
        (None, _) => (None, None),
        (Some(group), Some(public)) => {
            group.check(public).map_err(|e| crypto_failed(&e, Fault::Peer))?;
            let exchange = group.generate(entropy).map_err(|e| crypto_failed(&e, Fault::Ours))?;
            let ours = exchange.public().to_vec();
            (Some(exchange.agree(public).map_err(|e| crypto_failed(&e, Fault::Peer))?), Some(ours))
        }
        (Some(group), None) => return Err(peer_failed(format!("message 1 offers {group} without a KE payload"))),
    };
    let mut nonce = vec![0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut content = vec![Payload::SecurityAssociation(agreed.answer(spi)), Payload::Nonce(nonce.clone())];
    content.extend(our_public.map(Payload::KeyExchange));
    content.extend(asked.ids.iter().cloned().map(Payload::Identification));
    let (ours, theirs) = wanted.ends;
    content.extend(Seen { initiator: theirs, responder: ours }.payloads(wanted.mode));
    content.extend(agreed.responder_lifetime(spi).map(Payload::Notification));
    let hash = under.keys.hash2(under.message_id, &asked.nonce, &encode_chain(&content));
    content.insert(0, Payload::Hash(hash.expose().to_vec()));
    let (datagram, iv) = protection::seal(under.keys, &asked.next_iv, header(under), &content)
        .map_err(|e| crypto_failed(&e, Fault::Ours))?;
    let (inbound, outbound) = keymats(under.keys, &agreed, shared.as_ref(), spi, (&asked.nonce, &nonce));
    let negotiated = Negotiated {
        tunnel: Arc::clone(tunnel),
        agreed,
        inbound_spi: spi,
        inbound_keymat: inbound,
        outbound_keymat: outbound,
        mode: wanted.mode,
        original: asked.seen.map(|seen| (seen.initiator, seen.responder)),
    };
    let state = ResponderSent { initiator_nonce: asked.nonce.clone(), responder_nonce: nonce, iv };
    Ok((state, negotiated, datagram))
}

/// The notification that tells an initiator of a failure (RFC 2407 4.6.3, RFC 2408 3.14.1).
pub(crate) fn notify_kind(failure: &Failure) -> NotifyKind {
    match failure.kind {
        Kind::NoProposal | Kind::NatDisagreement | Kind::Spent => NotifyKind::NO_PROPOSAL_CHOSEN,
        Kind::NoSelector => NotifyKind::INVALID_ID_INFORMATION,
        Kind::Timeout | Kind::Distrusted(_) | Kind::Other => NotifyKind::PAYLOAD_MALFORMED,
    }
}

impl ResponderSent {
    /// Message 3: HASH(3) shows that the initiator has the pair.
    ///
    /// # Errors
    /// Why it is to be ignored.
    pub(crate) fn confirm(&self, keys: &IsakmpKeys, message: &Message) -> Result<(), String> {
        let id = message.header.message_id;
        let expected = |_: &[u8]| keys.hash3(id, &self.initiator_nonce, &self.responder_nonce);
        authenticate(keys, &self.iv, message, StateName::ResponderSent, expected).map(|_| ())
    }
}
