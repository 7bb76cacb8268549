//! The initiator's side: messages 1, 3 and 5 out, 2, 4 and 6 in.

use super::authenticated::{Refused, authenticate};
use super::table::StateName;
use super::{
    Context, Established, MainMode, Outcome, Setup, Step, cipher_failed, clear, failed, header, ignored,
    initial_contact, key_exchange_failed, malformed, no_proposal, nonce, open, refuse_identity, says_initial_contact,
    traverses_nat, undecryptable, unusable, vendor_ids,
};
use crate::ids;
use crate::keys::{IsakmpKeys, Said};
use crate::nat::{self, NatState};
use crate::proposal::phase1::{self, Agreed};
use crate::protection::{self, Iv};
use crate::vendor::{Announced, NatSupport, RFC_3947};
use crate::wire::{Body, Message, Payload, Payloads, SecurityAssociation};
use crypto::Secret;
use crypto::table::KeyExchange;

/// Nothing is sent yet: the pre-shared key has been asked for.
pub(crate) struct InitiatorAwaitingSecret {
    /// The SA payload of message 1.
    pub(crate) offer: SecurityAssociation,
}

/// Message 1 is sent.
pub(crate) struct SaSent {
    offer: SecurityAssociation,
    secret: Secret,
}

/// Message 3 is sent.
pub(crate) struct KeSent {
    offer: SecurityAssociation,
    secret: Secret,
    agreed: Agreed,
    announced: Announced,
    exchange: Box<dyn KeyExchange>,
    nonce: Vec<u8>,
}

/// Message 5 is sent.
pub(crate) struct AuthSent {
    pub(super) keys: IsakmpKeys,
    /// Last ciphertext block of message 5.
    pub(super) iv: Iv,
    offer: SecurityAssociation,
    said: Said,
    agreed: Agreed,
    announced: Announced,
    nat: NatState,
    nat_support: Option<NatSupport>,
}

impl InitiatorAwaitingSecret {
    /// Message 1: SA, vendor IDs.
    pub(super) fn secret(self, setup: &Setup, secret: Secret) -> Step {
        let mut payloads = vec![Payload::SecurityAssociation(self.offer.clone())];
        payloads.extend(vendor_ids(traverses_nat(&setup.policy).then_some(RFC_3947), true));
        let datagram = clear(setup.cookies, payloads);
        Step::new(MainMode::InitiatorSaSent(Box::new(SaSent { offer: self.offer, secret })), datagram)
    }
}

impl SaSent {
    /// Message 2: the peer's choice. Answered with KE, NONCE, NAT-D.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let Body::Clear(payloads) = &message.body else {
            return Err(ignored(MainMode::InitiatorSaSent(self), malformed("an encrypted message 2")));
        };
        let Some(answer) = Payloads(payloads).sa() else {
            return Err(ignored(MainMode::InitiatorSaSent(self), malformed("a message 2 without SA")));
        };
        let agreed = match phase1::verify(&setup.policy, setup.short_lifetimes, answer) {
            Ok(agreed) => agreed,
            Err(mismatch) => return Err(ignored(MainMode::InitiatorSaSent(self), no_proposal(setup, &mismatch))),
        };
        let announced = Announced::read(payloads);
        let exchange = match agreed.suite.group.generate(context.entropy) {
            Ok(exchange) => exchange,
            Err(e) => return Err(failed(unusable(&e))),
        };
        let nonce = nonce(context.entropy);
        let mut reply = vec![Payload::KeyExchange(exchange.public().to_vec()), Payload::Nonce(nonce.clone())];
        if let Some((support, _)) = announced.nat.filter(|_| traverses_nat(&setup.policy)) {
            reply.extend(nat::payloads(
                support,
                setup.policy.nat_traversal,
                agreed.suite.hash,
                &setup.cookies,
                setup.local,
                setup.remote,
                context.entropy,
            ));
        }
        let state = KeSent { offer: self.offer, secret: self.secret, agreed, announced, exchange, nonce };
        Ok(Step::new(MainMode::InitiatorKeSent(Box::new(state)), clear(setup.cookies, reply)))
    }
}

impl KeSent {
    /// Message 4: the peer's KE and NONCE. Answered with ID and HASH_I, encrypted.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let Body::Clear(payloads) = &message.body else {
            return Err(ignored(MainMode::InitiatorKeSent(self), malformed("an encrypted message 4")));
        };
        let (Some(public), Some(peer_nonce)) = (Payloads(payloads).key_exchange(), Payloads(payloads).nonce()) else {
            return Err(ignored(MainMode::InitiatorKeSent(self), malformed("a message 4 without a usable nonce")));
        };
        // Anybody on the way could have sent it: the true message 4 may yet come.
        if let Err(e) = self.agreed.suite.group.check(public) {
            return Err(ignored(MainMode::InitiatorKeSent(self), key_exchange_failed(&e)));
        }
        let this = *self;
        let nat_support = this.announced.nat.filter(|_| traverses_nat(&setup.policy)).map(|(support, _)| support);
        let nat = nat_support.and_then(|_| {
            nat::detect(
                payloads,
                setup.policy.nat_traversal,
                this.agreed.suite.hash,
                &setup.cookies,
                setup.local,
                setup.remote,
            )
        });
        let said = Said {
            cookies: setup.cookies,
            initiator_nonce: this.nonce,
            responder_nonce: peer_nonce.to_vec(),
            initiator_public: this.exchange.public().to_vec(),
            responder_public: public.to_vec(),
        };
        let keys = this
            .exchange
            .agree(public)
            .and_then(|shared| IsakmpKeys::derive(this.agreed.suite, &this.secret, &shared, &said))
            .map_err(|e| failed(key_exchange_failed(&e)))?;

        let id = ids::phase1_payload(&setup.local_identity());
        let hash = keys.hash_i(&said, &this.offer.body(), &id.body());
        let mut reply = vec![Payload::Identification(id), Payload::Hash(hash.expose().to_vec())];
        if context.initial_contact {
            reply.push(initial_contact(setup));
        }
        let (datagram, iv) = protection::seal(&keys, &Iv(keys.phase1_iv(&said)), header(setup.cookies), &reply)
            .map_err(|e| failed(cipher_failed(&e)))?;
        let state = AuthSent {
            keys,
            iv,
            offer: this.offer,
            said,
            agreed: this.agreed,
            announced: this.announced,
            nat: nat.unwrap_or_default(),
            nat_support: nat.and(nat_support),
        };
        let float = state.nat.detected();
        Ok(Step { float, ..Step::new(MainMode::InitiatorAuthSent(Box::new(state)), datagram) })
    }
}

impl AuthSent {
    /// Message 6: the peer's ID and HASH_R.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let opened = match open(&self.keys, &self.iv, message, StateName::InitiatorAuthSent) {
            Ok(opened) => opened,
            Err(_) => {
                let failure = undecryptable(setup, 6);
                return Err(ignored(MainMode::InitiatorAuthSent(self), failure));
            }
        };
        let payloads = Payloads(&opened.payloads);
        let (Some(id), Some(hash)) = (payloads.ids().next(), payloads.hash()) else {
            return Err(ignored(MainMode::InitiatorAuthSent(self), malformed("a message 6 without ID or HASH")));
        };
        let expected = self.keys.hash_r(&self.said, &self.offer.body(), &id.body());
        let peer = match authenticate(setup, &expected, hash, id) {
            Ok(peer) => peer,
            Err(Refused::Hash(failure)) => return Err(ignored(MainMode::InitiatorAuthSent(self), failure)),
            Err(Refused::Identity(failure)) => {
                return Err(refuse_identity(setup, failure, &self.keys, &opened.next_iv, context.entropy));
            }
        };
        let established = Established {
            keys: self.keys,
            last_block: opened.next_iv,
            peer,
            lifetime: self.agreed.lifetime,
            shortened: self.agreed.shortened,
            nat: self.nat,
            nat_support: self.nat_support,
            peer_dpd: self.announced.dpd,
        };
        Ok(Step {
            next: MainMode::Established(Box::new(established)),
            reply: None,
            float: false,
            initial_contact: says_initial_contact(&opened.payloads),
            needs_secret: false,
        })
    }
}
