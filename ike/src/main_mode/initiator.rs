//! The initiator's side: messages 1, 3 and 5 out, 2, 4 and 6 in.

use super::authenticated::{Authenticated, Refused, authenticate};
use super::signatures::{self, Judgement, Of, Signed};
use super::table::{By, StateName};
use super::{
    Context, Exchanged, MainMode, Outcome, Setup, Step, certificate_requests, cipher_failed, clear, failed, header,
    ignored, initial_contact, key_exchange_failed, malformed, no_proposal, nonce, open, refuse_identity,
    says_initial_contact, traverses_nat, undecryptable, unusable, vendor_ids,
};
use crate::failure::Role;
use crate::ids;
use crate::keys::{IsakmpKeys, Said};
use crate::nat;
use crate::proposal::phase1::{self, Agreed};
use crate::protection::{self, Iv};
use crate::vendor::{self, Announced};
use crate::wire::{Body, Identification, Message, Payload, Payloads, SecurityAssociation};
use crypto::table::KeyExchange;
use crypto::{Entropy, Secret};
use policy::config::AuthMethod;

/// Nothing is sent yet: the pre-shared key has been asked for, if one is offered.
pub(crate) struct InitiatorAwaitingSecret {
    /// The SA payload of message 1.
    pub(crate) offer: SecurityAssociation,
}

/// Message 1 is sent.
pub(crate) struct SaSent {
    offer: SecurityAssociation,
    secret: Option<Secret>,
}

/// Message 3 is sent.
pub(crate) struct KeSent {
    offer: SecurityAssociation,
    secret: Option<Secret>,
    agreed: Agreed,
    announced: Announced,
    exchange: Box<dyn KeyExchange>,
    nonce: Vec<u8>,
}

/// Our signature for message 5 has been asked for.
pub(crate) struct Signing {
    pub(super) exchanged: Exchanged,
    id: Identification,
    /// Message 5 is to say that we hold no other SA with the peer.
    initial_contact: bool,
}

/// Message 5 is sent.
pub(crate) struct AuthSent {
    pub(super) exchanged: Exchanged,
    /// Last ciphertext block of message 5.
    pub(super) iv: Iv,
}

/// The verdict on the peer, after message 6, has been asked for.
pub(crate) struct Judging {
    pub(super) exchanged: Exchanged,
    /// Last ciphertext block of message 6.
    last_block: Iv,
    /// The peer says it holds no other SA with us.
    initial_contact: bool,
}

impl InitiatorAwaitingSecret {
    /// Message 1: SA, vendor IDs.
    pub(super) fn secret(self, setup: &Setup, secret: Option<Secret>) -> Step {
        let mut payloads = vec![Payload::SecurityAssociation(self.offer.clone())];
        payloads.extend(vendor_ids(&setup.policy));
        payloads.extend(vendor::xauth(setup.auth.xauth.is_some()));
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
        let agreed = match phase1::verify(setup.acceptable(Role::Initiator), answer) {
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
        reply.extend(certificate_requests(setup, agreed.method));
        let state = KeSent { offer: self.offer, secret: self.secret, agreed, announced, exchange, nonce };
        Ok(Step::new(MainMode::InitiatorKeSent(Box::new(state)), clear(setup.cookies, reply)))
    }
}

impl KeSent {
    pub(super) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// Message 4: the peer's KE and NONCE. Answered with ID and HASH_I, encrypted; or with ID and SIG,
    /// once our signature is here.
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
        // Signatures do not rest on the pre-shared key, even where one was offered as well.
        let preshared = match this.agreed.method {
            AuthMethod::PreSharedKey => this.secret,
            AuthMethod::Signature(_) | AuthMethod::Hybrid => None,
        };
        let keys = this
            .exchange
            .agree(public)
            .and_then(|shared| IsakmpKeys::derive(this.agreed.suite, preshared.as_ref(), &shared, &said))
            .map_err(|e| failed(key_exchange_failed(&e)))?;
        let id = ids::phase1_payload(&setup.local_identity());
        let exchanged = Exchanged {
            keys,
            offer: this.offer,
            said,
            agreed: this.agreed,
            announced: this.announced,
            nat: nat.unwrap_or_default(),
            nat_support: nat.and(nat_support),
        };
        let float = exchanged.nat.detected();
        if let Some(want) = signatures::want_signature(&exchanged, &Of::Initiator, &id) {
            let state = Signing { exchanged, id, initial_contact: context.initial_contact };
            let step = Step::silent(MainMode::InitiatorSigning(Box::new(state)));
            return Ok(Step { float, wants: Some(want), ..step });
        }
        let reply = signatures::hash_payloads(&exchanged, &Of::Initiator, id);
        let step = message_5(setup, exchanged, reply, context.initial_contact)?;
        Ok(Step { float, ..step })
    }
}

/// Seals message 5.
fn message_5(setup: &Setup, exchanged: Exchanged, mut payloads: Vec<Payload>, say_initial_contact: bool) -> Outcome {
    if say_initial_contact {
        payloads.push(initial_contact(setup));
    }
    let iv = Iv(exchanged.keys.phase1_iv(&exchanged.said));
    let (datagram, iv) = protection::seal(&exchanged.keys, &iv, header(setup.cookies), &payloads)
        .map_err(|e| failed(cipher_failed(&e)))?;
    Ok(Step::new(MainMode::InitiatorAuthSent(Box::new(AuthSent { exchanged, iv })), datagram))
}

impl Signing {
    /// Our signature is here: message 5.
    pub(super) fn signed(self: Box<Self>, setup: &Setup, signed: Signed) -> Outcome {
        let this = *self;
        message_5(setup, this.exchanged, signatures::payloads(this.id, signed), this.initial_contact)
    }
}

impl AuthSent {
    /// Message 6: the peer's ID and HASH_R, or its ID and SIG.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let method = self.exchanged.agreed.method;
        let by = By::of(&self.exchanged.agreed);
        let opened = match open(&self.exchanged.keys, &self.iv, message, StateName::InitiatorAuthSent, by) {
            Ok(opened) => opened,
            Err(_) => {
                let failure = undecryptable(setup, method, 6);
                return Err(ignored(MainMode::InitiatorAuthSent(self), failure));
            }
        };
        let payloads = Payloads(&opened.payloads);
        let initial_contact = says_initial_contact(&opened.payloads);
        if let Some(method) = self.exchanged.signs(&Of::Responder) {
            let exchanged = self.exchanged;
            return match exchanged.testimony(setup, method, &Of::Responder, payloads) {
                Ok(testimony) => {
                    let state = Judging { exchanged, last_block: opened.next_iv, initial_contact };
                    Ok(signatures::judge(MainMode::InitiatorJudging(Box::new(state)), testimony))
                }
                Err(refusal) => Err(exchanged.distrust(setup, &refusal, &opened.next_iv, context.entropy)),
            };
        }
        let (Some(id), Some(hash)) = (payloads.ids().next(), payloads.hash()) else {
            return Err(ignored(MainMode::InitiatorAuthSent(self), malformed("a message 6 without ID or HASH")));
        };
        let expected = self.exchanged.hash(&Of::Responder, id);
        let peer = match authenticate(setup, method, &expected, hash, id) {
            Ok(peer) => peer,
            Err(Refused::Hash(failure)) => return Err(ignored(MainMode::InitiatorAuthSent(self), failure)),
            Err(Refused::Identity(failure)) => {
                return Err(refuse_identity(setup, failure, &self.exchanged.keys, &opened.next_iv, context.entropy));
            }
        };
        let established = self.exchanged.established(opened.next_iv, peer);
        Ok(Step { initial_contact, ..Step::silent(MainMode::Established(Box::new(established))) })
    }
}

impl Judging {
    /// The verdict on the peer is here.
    pub(super) fn judged(self: Box<Self>, setup: &Setup, judgement: &Judgement, entropy: &mut dyn Entropy) -> Outcome {
        let this = *self;
        match judgement {
            Ok(trusted) => {
                let established = this.exchanged.established(this.last_block, Authenticated::trusted(trusted));
                let step = Step::silent(MainMode::Established(Box::new(established)));
                Ok(Step { initial_contact: this.initial_contact, ..step })
            }
            Err(refusal) => Err(this.exchanged.distrust(setup, refusal, &this.last_block, entropy)),
        }
    }
}
