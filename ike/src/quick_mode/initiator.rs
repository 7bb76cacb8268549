//! The initiator's side: messages 1 and 3 out, 2 in.

use super::table::StateName;
use super::{Authentic, Negotiated, Under, authenticate, crypto_failed, header, keymats, no_proposal, peer_failed};
use crate::failure::{Failure, Fault, Kind};
use crate::ids::{self, ProxyId};
use crate::keys::IsakmpKeys;
use crate::main_mode::NONCE_LEN;
use crate::nat::Seen;
use crate::proposal::phase2::{self, Wanted};
use crate::proposal::shorter_lifetime;
use crate::protection::{self, Iv};
use crate::wire::numbers::NotifyKind;
use crate::wire::{Message, Payload, Payloads, encode_chain};
use crypto::Entropy;
use crypto::table::{Group, KeyExchange};
use policy::config::TunnelPolicy;
use std::net::IpAddr;
use std::sync::Arc;

/// Message 1 is sent.
pub(crate) struct InitiatorSent {
    pub(crate) tunnel: Arc<TunnelPolicy>,
    /// Our inbound SPI.
    pub(crate) spi: u32,
    pub(crate) nonce: Vec<u8>,
    exchange: Option<Box<dyn KeyExchange>>,
    ids: (ProxyId, ProxyId),
    mode: u16,
    ends: (IpAddr, IpAddr),
    group: Option<&'static Group>,
    short: bool,
    iv: Iv,
}

/// Message 1: SA, NONCE, KE with perfect forward secrecy, both IDs always.
///
/// # Errors
/// What in our own configuration makes it impossible.
pub(crate) fn begin(
    under: &Under<'_>,
    iv: &Iv,
    tunnel: &Arc<TunnelPolicy>,
    wanted: &Wanted<'_>,
    spi: u32,
    entropy: &mut dyn Entropy,
) -> Result<(InitiatorSent, Vec<u8>), Failure> {
    let ours = |what: String| {
        Failure::new(Kind::Other, Fault::Ours, what, format!("change tunnel `{}` (line {})", tunnel.name, tunnel.line))
    };
    let ids = ids::proxies(&tunnel.selector).map_err(ours)?;
    let offer = phase2::offer(wanted, spi).ok_or_else(|| ours(nothing_to_offer(wanted)))?;
    let mut nonce = vec![0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let exchange = match wanted.offered_group() {
        Some(group) => Some(group.generate(entropy).map_err(|e| crypto_failed(&e, Fault::Ours))?),
        None => None,
    };
    let mut content = vec![Payload::SecurityAssociation(offer), Payload::Nonce(nonce.clone())];
    content.extend(exchange.as_ref().map(|x| Payload::KeyExchange(x.public().to_vec())));
    content.extend([Payload::Identification(ids.0.payload()), Payload::Identification(ids.1.payload())]);
    content.extend(Seen { initiator: wanted.ends.0, responder: wanted.ends.1 }.payloads(wanted.mode));
    let hash = under.keys.hash1(under.message_id, &encode_chain(&content));
    content.insert(0, Payload::Hash(hash.expose().to_vec()));
    let (datagram, iv) =
        protection::seal(under.keys, iv, header(under), &content).map_err(|e| crypto_failed(&e, Fault::Ours))?;
    let state = InitiatorSent {
        tunnel: Arc::clone(tunnel),
        spi,
        nonce,
        exchange,
        ids,
        mode: wanted.mode,
        ends: wanted.ends,
        group: wanted.group,
        short: wanted.short,
        iv,
    };
    Ok((state, datagram))
}

fn nothing_to_offer(wanted: &Wanted<'_>) -> String {
    match wanted.tunnel.transforms.is_empty() || wanted.transforms().next().is_some() {
        true => "no transform of the tunnel exists in IKEv1".into(),
        false => "AH cannot pass the NAT between the peers, and the tunnel has no transform of ESP".into(),
    }
}

impl InitiatorSent {
    /// The same, able to read an answer but not to use it.
    pub(super) fn without_secret(self) -> Self {
        Self { exchange: None, ..self }
    }

    /// Decrypts message 2 and checks HASH(2).
    ///
    /// # Errors
    /// Why it is to be ignored.
    pub(crate) fn authenticate(&self, keys: &IsakmpKeys, message: &Message) -> Result<Authentic, String> {
        let expected = |rest: &[u8]| keys.hash2(message.header.message_id, &self.nonce, rest);
        authenticate(keys, &self.iv, message, StateName::InitiatorSent, expected)
    }

    /// Message 2: the peer's choice. Answered with HASH(3).
    ///
    /// # Errors
    /// Why the exchange fails.
    pub(crate) fn finish(self, under: &Under<'_>, authentic: &Authentic) -> Result<(Negotiated, Vec<u8>), Failure> {
        let payloads = authentic.payloads();
        let (Some(sa), Some(nonce)) = (payloads.sa(), payloads.nonce()) else {
            return Err(peer_failed("message 2 without SA or a usable nonce"));
        };
        let wanted =
            Wanted { tunnel: &self.tunnel, mode: self.mode, ends: self.ends, group: self.group, short: self.short };
        let mut agreed = phase2::verify(&wanted, sa).map_err(|m| no_proposal(&self.tunnel, &m))?;
        self.check_ids(payloads)?;
        for notification in payloads.notifications().filter(|n| n.kind == NotifyKind::RESPONDER_LIFETIME) {
            // RFC 2407 4.6.3.1: the responder's lifetime counts; never the longer one.
            let told = phase2::notified_lifetime(notification);
            if told.seconds.is_some() || told.kbytes.is_some() {
                agreed.lifetime = shorter_lifetime(agreed.lifetime, told.stated_only());
            }
        }
        let shared = match (agreed.pfs, self.exchange, payloads.key_exchange()) {
            (None, _, _) => None,
            (Some(_), Some(exchange), Some(public)) => {
                Some(exchange.agree(public).map_err(|e| crypto_failed(&e, Fault::Peer))?)
            }
            (Some(group), ..) => return Err(peer_failed(format!("message 2 chose {group} without a KE payload"))),
        };
        let (inbound, outbound) = keymats(under.keys, &agreed, shared.as_ref(), self.spi, (&self.nonce, nonce));
        let hash = under.keys.hash3(under.message_id, &self.nonce, nonce);
        let reply = [Payload::Hash(hash.expose().to_vec())];
        let (datagram, _) = protection::seal(under.keys, authentic.next_iv(), header(under), &reply)
            .map_err(|e| crypto_failed(&e, Fault::Ours))?;
        let negotiated = Negotiated {
            tunnel: self.tunnel,
            agreed,
            inbound_spi: self.spi,
            inbound_keymat: inbound,
            outbound_keymat: outbound,
            mode: self.mode,
            original: payloads.original_addresses().map(|seen| (seen.responder, seen.initiator)),
        };
        Ok((negotiated, datagram))
    }

    /// The responder must return our IDs as they are (RFC 2409 5.5).
    fn check_ids(&self, payloads: Payloads<'_>) -> Result<(), Failure> {
        let mut returned = Vec::new();
        for id in payloads.ids() {
            returned.push(ProxyId::from_payload(id).map_err(peer_failed)?);
        }
        let [initiator, responder] = returned.as_slice() else {
            return Ok(());
        };
        if (initiator, responder) == (&self.ids.0, &self.ids.1) {
            return Ok(());
        }
        Err(Failure::new(
            Kind::NoSelector,
            Fault::Mismatch,
            format!(
                "our tunnel {}: {}; peer answered with {}: {}",
                self.tunnel.name,
                self.tunnel.selector,
                ids::selector(initiator, responder),
                ids::differences((&self.ids.0, &self.ids.1), (initiator, responder)).join(", "),
            ),
            format!(
                "make source and destination of tunnel `{}` (line {}) the mirror image of the peer's",
                self.tunnel.name, self.tunnel.line
            ),
        ))
    }
}
