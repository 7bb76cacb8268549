//! The responder's side: messages 1, 3 and 5 in, 2, 4 and 6 out.

use super::authenticated::{Authenticated, Refused, authenticate};
use super::signatures::{self, Judgement, Of, Signed};
use super::table::{self, By, StateName};
use super::{
    Context, Exchanged, MainMode, Outcome, Setup, Step, Stop, Want, certificate_requests, cipher_failed, clear, failed,
    header, ignored, initial_contact, key_exchange_failed, malformed, no_proposal, nonce, open, refuse_identity,
    says_initial_contact, traverses_nat, undecryptable, unusable, vendor_ids_for,
};
use crate::failure::{Failure, Role};
use crate::ids;
use crate::informational;
use crate::keys::{IsakmpKeys, Said};
use crate::nat::{self, NatState};
use crate::proposal::phase1::{self, Agreed};
use crate::protection::{self, Iv};
use crate::vendor::{self, Announced, NatSupport};
use crate::wire::numbers::NotifyKind;
use crate::wire::select;
use crate::wire::{Body, Identification, Message, Payload, Payloads, SecurityAssociation};
use crypto::table::Group;
use crypto::{Entropy, Secret};
use policy::config::AuthMethod;

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
    /// When the pre-shared key is here, where one is needed, else at once.
    keys: Option<IsakmpKeys>,
    nat: NatState,
    nat_support: Option<NatSupport>,
}

/// The verdict on the peer, after message 5, has been asked for.
pub(crate) struct Judging {
    pub(super) exchanged: Exchanged,
    /// Last ciphertext block of message 5.
    last_block: Iv,
    /// The peer says it holds no other SA with us.
    peer_says_initial_contact: bool,
    /// Message 6 is to say so of us.
    say_initial_contact: bool,
}

/// Our signature for message 6 has been asked for.
pub(crate) struct Signing {
    pub(super) exchanged: Exchanged,
    last_block: Iv,
    peer: Authenticated,
    id: Identification,
    peer_says_initial_contact: bool,
    say_initial_contact: bool,
}

/// Whether a message can be the first of main mode, before anything is kept of it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn preview(message: &Message) -> Result<(), String> {
    let Body::Clear(payloads) = &message.body else {
        return Err("it is encrypted".into());
    };
    let required = table::transition(StateName::Start, None).map_or(&[][..], |t| t.required);
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
    let agreed = match phase1::choose(setup.acceptable(Role::Responder), offered) {
        Ok(agreed) => agreed,
        Err(mismatch) => {
            let message_id = informational::message_id(context.entropy);
            let kind = NotifyKind::NO_PROPOSAL_CHOSEN;
            let reply = Some(informational::clear_notification(setup.cookies, message_id, kind));
            return Err(Box::new(Stop::Failed { failure: no_proposal(setup, &mismatch), reply }));
        }
    };
    let announced = Announced::read(payloads);
    let mut reply = vec![Payload::SecurityAssociation(agreed.answer.clone())];
    reply.extend(vendor_ids_for(&setup.policy, announced));
    reply.extend(vendor::xauth(setup.auth.xauth.is_some() && announced.xauth));
    let state = SaSent { offered: offered.clone(), agreed, announced };
    Ok(Step::new(MainMode::ResponderSaSent(Box::new(state)), clear(setup.cookies, reply)))
}

impl SaSent {
    /// The group that was chosen.
    pub(super) fn group(&self) -> &'static Group {
        self.agreed.suite.group
    }

    pub(super) fn agreed(&self) -> &Agreed {
        &self.agreed
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
        let method = self.agreed.method;
        reply.extend(certificate_requests(setup, method));
        let (keys, wants) = match method {
            AuthMethod::PreSharedKey => (None, Some(Want::Secret)),
            AuthMethod::Signature(_) | AuthMethod::Hybrid => match IsakmpKeys::derive(suite, None, &shared, &said) {
                Ok(keys) => (Some(keys), None),
                Err(e) => return Err(failed(key_exchange_failed(&e))),
            },
        };
        let state = KeSent {
            offered: self.offered,
            agreed: self.agreed,
            announced: self.announced,
            said,
            shared,
            keys,
            nat: nat.unwrap_or_default(),
            nat_support: nat.and(support),
        };
        let reply = clear(setup.cookies, reply);
        Ok(Step { wants, ..Step::new(MainMode::ResponderKeSent(Box::new(state)), reply) })
    }
}

impl KeSent {
    pub(super) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// The pre-shared key has come.
    pub(super) fn secret(&mut self, secret: &Secret) -> Result<(), Failure> {
        if self.agreed.method == AuthMethod::PreSharedKey {
            let keys = IsakmpKeys::derive(self.agreed.suite, Some(secret), &self.shared, &self.said);
            self.keys = Some(keys.map_err(|e| key_exchange_failed(&e))?);
        }
        Ok(())
    }

    /// Message 5: the peer's ID and HASH_I, answered with ours; or its ID and SIG, to be judged.
    pub(super) fn handle(self: Box<Self>, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let mut this = *self;
        let method = this.agreed.method;
        let Some(keys) = this.keys.take() else {
            return Err(Box::new(Stop::Held { state: MainMode::ResponderKeSent(Box::new(this)) }));
        };
        let iv = Iv(keys.phase1_iv(&this.said));
        let opened = match open(&keys, &iv, message, StateName::ResponderKeSent, By::of(&this.agreed)) {
            Ok(opened) => opened,
            // Anybody can send octets that do not decrypt: the negotiation
            // stays open for the true message 5 until its time is up.
            Err(_) => {
                let failure = undecryptable(setup, method, 5);
                let state = MainMode::ResponderKeSent(Box::new(Self { keys: Some(keys), ..this }));
                return Err(Box::new(Stop::Ignored { state, failure, now: true }));
            }
        };
        let payloads = Payloads(&opened.payloads);
        let peer_says_initial_contact = says_initial_contact(&opened.payloads);
        if let Some(method) = this.agreed.signs(Role::Initiator) {
            let exchanged = this.exchanged(keys);
            // Only whom we exchanged keys with can have made this message, so its failure is the end.
            return match exchanged.testimony(setup, method, &Of::Initiator, payloads) {
                Ok(testimony) => {
                    let state = Judging {
                        exchanged,
                        last_block: opened.next_iv,
                        peer_says_initial_contact,
                        say_initial_contact: context.initial_contact,
                    };
                    Ok(signatures::judge(MainMode::ResponderJudging(Box::new(state)), testimony))
                }
                Err(refusal) => Err(exchanged.distrust(setup, &refusal, &opened.next_iv, context.entropy)),
            };
        }
        let (Some(id), Some(hash)) = (payloads.ids().next(), payloads.hash()) else {
            let state = MainMode::ResponderKeSent(Box::new(Self { keys: Some(keys), ..this }));
            return Err(ignored(state, malformed("a message 5 without ID or HASH")));
        };
        let expected = keys.hash_i(method, &this.said, &this.offered.body(), &id.body());
        let peer = match authenticate(setup, method, &expected, hash, id) {
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
        let exchanged = this.exchanged(keys);
        if let Some(want) = signatures::want_signature(&exchanged, &Of::Responder, &our_id) {
            let state = Signing {
                exchanged,
                last_block: opened.next_iv,
                peer,
                id: our_id,
                peer_says_initial_contact,
                say_initial_contact: context.initial_contact,
            };
            let step = Step::silent(MainMode::ResponderSigning(Box::new(state)));
            return Ok(Step { wants: Some(want), ..step });
        }
        let reply = signatures::hash_payloads(&exchanged, &Of::Responder, our_id);
        let step = message_6(setup, exchanged, &opened.next_iv, peer, reply, context.initial_contact)?;
        Ok(Step { initial_contact: peer_says_initial_contact, ..step })
    }

    fn exchanged(self, keys: IsakmpKeys) -> Exchanged {
        Exchanged {
            keys,
            offer: self.offered,
            said: self.said,
            agreed: self.agreed,
            announced: self.announced,
            nat: self.nat,
            nat_support: self.nat_support,
        }
    }
}

/// Seals message 6, with which main mode is done.
fn message_6(
    setup: &Setup,
    exchanged: Exchanged,
    iv: &Iv,
    peer: Authenticated,
    mut payloads: Vec<Payload>,
    say_initial_contact: bool,
) -> Outcome {
    if say_initial_contact {
        payloads.push(initial_contact(setup));
    }
    let (datagram, last_block) = protection::seal(&exchanged.keys, iv, header(setup.cookies), &payloads)
        .map_err(|e| failed(cipher_failed(&e)))?;
    let established = exchanged.established(last_block, peer);
    Ok(Step::new(MainMode::Established(Box::new(established)), datagram))
}

impl Judging {
    /// The verdict on the peer is here; our own signature, or hash, is next.
    pub(super) fn judged(self: Box<Self>, setup: &Setup, judgement: &Judgement, entropy: &mut dyn Entropy) -> Outcome {
        let this = *self;
        match judgement {
            Ok(trusted) => {
                let id = ids::phase1_payload(&setup.local_identity());
                let peer = Authenticated::trusted(trusted);
                let wants = signatures::want_signature(&this.exchanged, &Of::Responder, &id);
                if wants.is_none() {
                    let reply = signatures::hash_payloads(&this.exchanged, &Of::Responder, id);
                    let (iv, say) = (&this.last_block, this.say_initial_contact);
                    let step = message_6(setup, this.exchanged, iv, peer, reply, say)?;
                    return Ok(Step { initial_contact: this.peer_says_initial_contact, ..step });
                }
                let state = Signing {
                    exchanged: this.exchanged,
                    last_block: this.last_block,
                    peer,
                    id,
                    peer_says_initial_contact: this.peer_says_initial_contact,
                    say_initial_contact: this.say_initial_contact,
                };
                Ok(Step { wants, ..Step::silent(MainMode::ResponderSigning(Box::new(state))) })
            }
            Err(refusal) => Err(this.exchanged.distrust(setup, refusal, &this.last_block, entropy)),
        }
    }
}

impl Signing {
    /// Our signature is here: message 6.
    pub(super) fn signed(self: Box<Self>, setup: &Setup, signed: Signed) -> Outcome {
        let this = *self;
        let payloads = signatures::payloads(this.id, signed);
        let (iv, say) = (&this.last_block, this.say_initial_contact);
        let step = message_6(setup, this.exchanged, iv, this.peer, payloads, say)?;
        Ok(Step { initial_contact: this.peer_says_initial_contact, ..step })
    }
}
