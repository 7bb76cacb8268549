//! The responder's side: messages 1, 3 and 5 in, 2, 4 and 6 out.

use super::authenticated::{Refused, authenticate};
use super::table::{self, StateName};
use super::{
    Context, Established, MainMode, Outcome, Setup, Step, Stop, cipher_failed, clear, failed, header, ignored,
    initial_contact, key_exchange_failed, malformed, no_proposal, nonce, open, refuse_identity, says_initial_contact,
    traverses_nat, undecryptable, unusable, vendor_ids,
};
use crate::failure::Failure;
use crate::ids;
use crate::informational;
use crate::keys::{IsakmpKeys, Said};
use crate::nat::{self, NatState};
use crate::proposal::phase1::{self, Agreed};
use crate::protection::{self, Iv};
use crate::vendor::{Announced, NatSupport};
use crate::wire::numbers::NotifyKind;
use crate::wire::select;
use crate::wire::{Body, Message, Payload, Payloads, SecurityAssociation};
use crypto::Secret;
use crypto::table::Group;

/// Message 2 is sent.
pub(crate) struct SaSent {
    offered: SecurityAssociation,
    agreed: Agreed,
    announced: Announced,
}

/// Message 4 is sent.
pub(crate) struct KeSent {
    offered: SecurityAssociation,
    agreed: Agreed,
    announced: Announced,
    said: Said,
    shared: Secret,
    /// Once the pre-shared key is here.
    keys: Option<IsakmpKeys>,
    nat: NatState,
    nat_support: Option<NatSupport>,
}

/// Whether a message can be the first of main mode, before anything is kept of it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn preview(message: &Message) -> Result<(), String> {
    let Body::Clear(payloads) = &message.body else {
        return Err("it is encrypted".into());
    };
    let required = table::transition(StateName::Start).map_or(&[][..], |t| t.required);
    select::check(payloads, required, &[])
}

/// Message 1: the peer's proposals. Answered with our choice.
pub(crate) fn first_message(setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
    let Body::Clear(payloads) = &message.body else {
        return Err(failed(malformed("an encrypted message 1")));
    };
    let Some(offered) = Payloads(payloads).sa() else {
        return Err(failed(malformed("a message 1 without SA")));
    };
    let agreed = match phase1::choose(&setup.policy, setup.short_lifetimes, offered) {
        Ok(agreed) => agreed,
        Err(mismatch) => {
            let message_id = informational::message_id(context.entropy);
            let kind = NotifyKind::NO_PROPOSAL_CHOSEN;
            let reply = Some(informational::clear_notification(setup.cookies, message_id, kind));
            return Err(Box::new(Stop::Failed { failure: no_proposal(setup, &mismatch), reply }));
        }
    };
    let announced = Announced::read(payloads);
    let nat = announced.nat.filter(|_| traverses_nat(&setup.policy));
    let mut reply = vec![Payload::SecurityAssociation(agreed.answer.clone())];
    // Only what the peer has announced too: the answer must not be longer than the question.
    reply.extend(vendor_ids(nat.map(|(_, id)| id), announced.dpd));
    let state = SaSent { offered: offered.clone(), agreed, announced };
    Ok(Step::new(MainMode::ResponderSaSent(Box::new(state)), clear(setup.cookies, reply)))
}

impl SaSent {
    /// The group that was chosen.
    pub(super) fn group(&self) -> &'static Group {
        self.agreed.suite.group
    }

    /// Message 3: the peer's KE and NONCE. Answered with ours.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let Body::Clear(payloads) = &message.body else {
            return Err(ignored(MainMode::ResponderSaSent(self), malformed("an encrypted message 3")));
        };
        let (Some(public), Some(peer_nonce)) = (Payloads(payloads).key_exchange(), Payloads(payloads).nonce()) else {
            return Err(ignored(MainMode::ResponderSaSent(self), malformed("a message 3 without a usable nonce")));
        };
        let suite = self.agreed.suite;
        // A worthless value costs nobody an exponentiation.
        if let Err(e) = suite.group.check(public) {
            return Err(ignored(MainMode::ResponderSaSent(self), key_exchange_failed(&e)));
        }
        let exchange = match suite.group.generate(context.entropy) {
            Ok(exchange) => exchange,
            Err(e) => return Err(failed(unusable(&e))),
        };
        let our_public = exchange.public().to_vec();
        let shared = match exchange.agree(public) {
            Ok(shared) => shared,
            Err(e) => return Err(ignored(MainMode::ResponderSaSent(self), key_exchange_failed(&e))),
        };
        let said = Said {
            cookies: setup.cookies,
            initiator_nonce: peer_nonce.to_vec(),
            responder_nonce: nonce(context.entropy),
            initiator_public: public.to_vec(),
            responder_public: our_public.clone(),
        };
        let mut reply = vec![Payload::KeyExchange(our_public), Payload::Nonce(said.responder_nonce.clone())];
        let mode = setup.policy.nat_traversal;
        let (local, remote) = (setup.local, setup.remote);
        let support = self.announced.nat.filter(|_| traverses_nat(&setup.policy)).map(|(support, _)| support);
        let nat = support.and_then(|_| nat::detect(payloads, mode, suite.hash, &setup.cookies, local, remote));
        if let (Some(support), Some(_)) = (support, nat) {
            reply.extend(nat::payloads(support, mode, suite.hash, &setup.cookies, local, remote, context.entropy));
        }
        let state = KeSent {
            offered: self.offered,
            agreed: self.agreed,
            announced: self.announced,
            said,
            shared,
            keys: None,
            nat: nat.unwrap_or_default(),
            nat_support: nat.and(support),
        };
        let reply = clear(setup.cookies, reply);
        Ok(Step { needs_secret: true, ..Step::new(MainMode::ResponderKeSent(Box::new(state)), reply) })
    }
}

impl KeSent {
    /// The pre-shared key has come.
    pub(super) fn secret(&mut self, _: &Setup, secret: Secret) -> Result<(), Failure> {
        let keys = IsakmpKeys::derive(self.agreed.suite, &secret, &self.shared, &self.said);
        self.keys = Some(keys.map_err(|e| key_exchange_failed(&e))?);
        Ok(())
    }

    /// Message 5: the peer's ID and HASH_I. Answered with ours.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let mut this = *self;
        let Some(keys) = this.keys.take() else {
            return Err(Box::new(Stop::Held { state: MainMode::ResponderKeSent(Box::new(this)) }));
        };
        let iv = Iv(keys.phase1_iv(&this.said));
        let opened = match open(&keys, &iv, message, StateName::ResponderKeSent) {
            Ok(opened) => opened,
            // Anybody can send octets that do not decrypt: the negotiation
            // stays open for the true message 5 until its time is up.
            Err(_) => {
                let failure = undecryptable(setup, 5);
                let state = MainMode::ResponderKeSent(Box::new(Self { keys: Some(keys), ..this }));
                return Err(Box::new(Stop::Ignored { state, failure, now: true }));
            }
        };
        let payloads = Payloads(&opened.payloads);
        let (Some(id), Some(hash)) = (payloads.ids().next(), payloads.hash()) else {
            let state = MainMode::ResponderKeSent(Box::new(Self { keys: Some(keys), ..this }));
            return Err(ignored(state, malformed("a message 5 without ID or HASH")));
        };
        let offered = this.offered.body();
        let expected = keys.hash_i(&this.said, &offered, &id.body());
        let peer = match authenticate(setup, &expected, hash, id) {
            Ok(peer) => peer,
            // The true message 5 may yet come, as above.
            Err(Refused::Hash(failure)) => {
                let state = MainMode::ResponderKeSent(Box::new(Self { keys: Some(keys), ..this }));
                return Err(Box::new(Stop::Ignored { state, failure, now: true }));
            }
            Err(Refused::Identity(failure)) => {
                return Err(refuse_identity(setup, failure, &keys, &opened.next_iv, context.entropy));
            }
        };
        let our_id = ids::phase1_payload(&setup.local_identity());
        let our_hash = keys.hash_r(&this.said, &offered, &our_id.body());
        let mut reply = vec![Payload::Identification(our_id), Payload::Hash(our_hash.expose().to_vec())];
        if context.initial_contact {
            reply.push(initial_contact(setup));
        }
        let (datagram, last_block) = protection::seal(&keys, &opened.next_iv, header(setup.cookies), &reply)
            .map_err(|e| failed(cipher_failed(&e)))?;
        let established = Established {
            keys,
            last_block,
            peer,
            lifetime: this.agreed.lifetime,
            shortened: this.agreed.shortened,
            nat: this.nat,
            nat_support: this.nat_support,
            peer_dpd: this.announced.dpd,
        };
        Ok(Step {
            initial_contact: says_initial_contact(&opened.payloads),
            ..Step::new(MainMode::Established(Box::new(established)), datagram)
        })
    }
}
