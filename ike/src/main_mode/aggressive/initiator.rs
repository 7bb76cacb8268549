//! The initiator's side: messages 1 and 3 out, 2 in.

use super::{Aggressive, clear, header};
use crate::failure::{Failure, Role};
use crate::ids;
use crate::informational;
use crate::keys::{IsakmpKeys, Said};
use crate::main_mode::authenticated::{Authenticated, Refused, authenticate};
use crate::main_mode::signatures::{self, Judgement, Of, Signed};
use crate::main_mode::table::{self, By, StateName};
use crate::main_mode::{
    Context, Exchanged, MainMode, Outcome, Setup, Step, Stop, certificate_requests, cipher_failed, failed, ignored,
    initial_contact, key_exchange_failed, malformed, no_proposal, nonce, refuse_identity, traverses_nat, unusable,
    vendor_ids,
};
use crate::nat;
use crate::proposal::phase1;
use crate::protection::{self, Iv};
use crate::vendor::{self, Announced, NatSupport};
use crate::wire::numbers::NotifyKind;
use crate::wire::select;
use crate::wire::{Body, Identification, Message, Payload, Payloads, SecurityAssociation};
use crypto::table::{Group, KeyExchange};
use crypto::{Entropy, Secret};
use policy::config::AuthMethod;

/// Nothing is sent yet: the pre-shared key has been asked for, if one is offered.
pub(crate) struct AwaitingSecret {
    offer: SecurityAssociation,
    exchange: Box<dyn KeyExchange>,
    nonce: Vec<u8>,
    id: Identification,
}

/// Message 1 is sent.
pub(crate) struct SaSent {
    offer: SecurityAssociation,
    exchange: Box<dyn KeyExchange>,
    nonce: Vec<u8>,
    id: Identification,
    secret: Option<Secret>,
}

/// The verdict on the peer, after message 2, has been asked for.
pub(crate) struct Judging {
    pub(super) exchanged: Exchanged,
    id: Identification,
    initial_contact: bool,
}

/// Our signature for message 3 has been asked for.
pub(crate) struct Signing {
    pub(super) exchanged: Exchanged,
    peer: Authenticated,
    initial_contact: bool,
}

/// An initiator that has said nothing yet; all of `offer` is of `group`.
///
/// # Errors
/// If there is no public value of that group.
pub(crate) fn begin(
    setup: &Setup,
    offer: SecurityAssociation,
    group: &'static Group,
    entropy: &mut dyn Entropy,
) -> Result<MainMode, Failure> {
    let exchange = group.generate(entropy).map_err(|e| unusable(&e))?;
    let (nonce, id) = (nonce(entropy), ids::phase1_payload(&setup.local_identity()));
    Ok(Aggressive::InitiatorAwaitingSecret(AwaitingSecret { offer, exchange, nonce, id }).into())
}

impl AwaitingSecret {
    /// Message 1: SA, KE, NONCE, ID, vendor IDs.
    pub(super) fn secret(self, setup: &Setup, secret: Option<Secret>) -> Step {
        let Self { offer, exchange, nonce, id } = self;
        let mut payloads = vec![
            Payload::SecurityAssociation(offer.clone()),
            Payload::KeyExchange(exchange.public().to_vec()),
            Payload::Nonce(nonce.clone()),
            Payload::Identification(id.clone()),
        ];
        let signs = setup.methods.iter().find(|m| m.signature().is_some());
        payloads.extend(signs.into_iter().flat_map(|method| certificate_requests(setup, *method)));
        payloads.extend(vendor_ids(&setup.policy));
        payloads.extend(vendor::xauth(setup.auth.xauth.is_some()));
        let state = SaSent { offer, exchange, nonce, id, secret };
        Step::new(Aggressive::InitiatorSaSent(state).into(), clear(setup.cookies, payloads))
    }
}

impl SaSent {
    /// Message 2: the peer's choice, its KE and NONCE, its ID and HASH_R or SIG_R.
    pub(super) fn handle(self, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let Body::Clear(payloads) = &message.body else {
            return Err(self.ignores(malformed("an encrypted message 2")));
        };
        let Some(answer) = Payloads(payloads).sa() else {
            return Err(self.ignores(malformed("a message 2 without SA")));
        };
        let agreed = match phase1::verify(setup.acceptable(Role::Initiator), answer) {
            Ok(agreed) => agreed,
            Err(mismatch) => return Err(self.ignores(no_proposal(setup, &mismatch))),
        };
        let transition = table::transition(StateName::AggressiveInitiatorSaSent, Some(By::of(&agreed)));
        let required = transition.map_or(&[][..], |t| t.required);
        if let Err(what) = select::check(payloads, required, &[]) {
            return Err(self.ignores(malformed(&format!("a message 2 that is not acceptable: {what}"))));
        }
        let content = Payloads(payloads);
        let (Some(public), Some(peer_nonce), Some(peer_id)) =
            (content.key_exchange(), content.nonce(), content.ids().next())
        else {
            return Err(self.ignores(malformed("a message 2 without a usable nonce")));
        };
        // Anybody on the way could have sent it: the true message 2 may yet come.
        if let Err(e) = agreed.suite.group.check(public) {
            return Err(self.ignores(key_exchange_failed(&e)));
        }
        let announced = Announced::read(payloads);
        let nat_support = announced.nat.filter(|_| traverses_nat(&setup.policy)).map(|(support, _)| support);
        let (mode, hash) = (setup.policy.nat_traversal, agreed.suite.hash);
        let nat =
            nat_support.and_then(|_| nat::detect(payloads, mode, hash, &setup.cookies, setup.local, setup.remote));
        let said = Said {
            cookies: setup.cookies,
            initiator_nonce: self.nonce,
            responder_nonce: peer_nonce.to_vec(),
            initiator_public: self.exchange.public().to_vec(),
            responder_public: public.to_vec(),
        };
        let preshared = match agreed.method {
            AuthMethod::PreSharedKey => self.secret,
            AuthMethod::Signature(_) | AuthMethod::Hybrid => None,
        };
        let keys = self
            .exchange
            .agree(public)
            .and_then(|shared| IsakmpKeys::derive(agreed.suite, preshared.as_ref(), &shared, &said))
            .map_err(|e| failed(key_exchange_failed(&e)))?;
        let method = agreed.method;
        let exchanged = Exchanged {
            keys,
            offer: self.offer,
            said,
            agreed,
            announced,
            nat: nat.unwrap_or_default(),
            nat_support: nat.and(nat_support),
        };
        let float = exchanged.nat.detected();
        let iv = Iv(exchanged.keys.phase1_iv(&exchanged.said));
        if let Some(method) = exchanged.signs(&Of::Responder) {
            return match exchanged.testimony(setup, method, &Of::Responder, content) {
                Ok(testimony) => {
                    let state = Judging { exchanged, id: self.id, initial_contact: context.initial_contact };
                    let step = signatures::judge(Aggressive::InitiatorJudging(state).into(), testimony);
                    Ok(Step { float, ..step })
                }
                Err(refusal) => Err(exchanged.distrust(setup, &refusal, &iv, context.entropy)),
            };
        }
        let expected = exchanged.hash(&Of::Responder, peer_id);
        let peer = match authenticate(setup, method, &expected, content.hash().unwrap_or_default(), peer_id) {
            Ok(peer) => peer,
            // It names our cookie, so whoever sent it is the peer or on the way to it; what it was to be checked
            // with is used up. The peer cannot believe that, but can show it.
            Err(Refused::Hash(failure)) => {
                let message_id = informational::message_id(context.entropy);
                let kind = NotifyKind::AUTHENTICATION_FAILED;
                let reply = Some(informational::clear_notification(setup.cookies, message_id, kind));
                return Err(Box::new(Stop::Failed { failure, reply }));
            }
            Err(Refused::Identity(failure)) => {
                return Err(refuse_identity(setup, failure, &exchanged.keys, &iv, context.entropy));
            }
        };
        let step = prove(setup, exchanged, peer, &self.id, context.initial_contact, context.entropy)?;
        Ok(Step { float, ..step })
    }

    fn ignores(self, failure: Failure) -> Box<Stop> {
        ignored(Aggressive::InitiatorSaSent(self).into(), failure)
    }
}

/// The peer is believed: our signature is next, or message 3 with a hash at once.
fn prove(
    setup: &Setup,
    exchanged: Exchanged,
    peer: Authenticated,
    id: &Identification,
    initial_contact: bool,
    entropy: &mut dyn Entropy,
) -> Outcome {
    if let Some(want) = signatures::want_signature(&exchanged, &Of::Initiator, id) {
        let step = Step::silent(Aggressive::InitiatorSigning(Signing { exchanged, peer, initial_contact }).into());
        return Ok(Step { wants: Some(want), ..step });
    }
    let ours = exchanged.hash(&Of::Initiator, id);
    let content = vec![Payload::Hash(ours.expose().to_vec())];
    message_3(setup, exchanged, peer, content, initial_contact, entropy)
}

/// Seals message 3, with which aggressive mode is done: NAT-D (RFC 3947 3.2), HASH_I or SIG_I.
fn message_3(
    setup: &Setup,
    exchanged: Exchanged,
    peer: Authenticated,
    mut payloads: Vec<Payload>,
    say_initial_contact: bool,
    entropy: &mut dyn Entropy,
) -> Outcome {
    if say_initial_contact {
        payloads.push(initial_contact(setup));
    }
    if let Some(support) = exchanged.nat_support {
        payloads.extend(nat_discovery(setup, &exchanged, support, entropy));
    }
    let iv = Iv(exchanged.keys.phase1_iv(&exchanged.said));
    let (datagram, last_block) = protection::seal(&exchanged.keys, &iv, header(setup.cookies), &payloads)
        .map_err(|e| failed(cipher_failed(&e)))?;
    let established = exchanged.established(last_block, peer);
    Ok(Step::new(MainMode::Established(Box::new(established)), datagram))
}

/// NAT-D of the addresses that message 3 goes between: with a NAT, no more the ports of message 1 (RFC 3947 3.2, 4).
fn nat_discovery(setup: &Setup, exchanged: &Exchanged, support: NatSupport, entropy: &mut dyn Entropy) -> [Payload; 2] {
    let (mode, hash) = (setup.policy.nat_traversal, exchanged.agreed.suite.hash);
    let (mut local, mut remote) = (setup.local, setup.remote);
    if exchanged.nat.detected() && local.port() != setup.natt_port {
        local.set_port(setup.natt_port);
        remote.set_port(setup.natt_port);
    }
    nat::payloads(support, mode, hash, &setup.cookies, local, remote, entropy)
}

impl Judging {
    /// The verdict on the peer is here; our own signature, or hash, is next.
    pub(super) fn judged(self, setup: &Setup, judgement: &Judgement, entropy: &mut dyn Entropy) -> Outcome {
        match judgement {
            Ok(trusted) => {
                let peer = Authenticated::trusted(trusted);
                prove(setup, self.exchanged, peer, &self.id, self.initial_contact, entropy)
            }
            Err(refusal) => {
                let iv = Iv(self.exchanged.keys.phase1_iv(&self.exchanged.said));
                Err(self.exchanged.distrust(setup, refusal, &iv, entropy))
            }
        }
    }
}

impl Signing {
    /// Our signature is here: message 3. Our identity was in message 1.
    pub(super) fn signed(self, setup: &Setup, signed: Signed, entropy: &mut dyn Entropy) -> Outcome {
        let payloads = signatures::without_identity(signed);
        message_3(setup, self.exchanged, self.peer, payloads, self.initial_contact, entropy)
    }
}
