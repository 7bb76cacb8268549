//! The responder's side: messages 1 and 3 in, 2 out.

use super::{Aggressive, clear};
use crate::failure::{Failure, Fault, Kind, Role};
use crate::ids;
use crate::informational;
use crate::keys::{IsakmpKeys, Said};
use crate::main_mode::authenticated::{Authenticated, Refused, authenticate};
use crate::main_mode::signatures::{self, Judgement, Of, Signed};
use crate::main_mode::table::{self, By, StateName};
use crate::main_mode::{
    Context, Exchanged, MainMode, Outcome, Setup, Step, Stop, Want, certificate_requests, failed, ignored,
    key_exchange_failed, malformed, no_proposal, nonce, refuse_identity, says_initial_contact, traverses_nat,
    undecryptable, unusable, vendor_ids_for,
};
use crate::nat;
use crate::proposal::phase1::{self, Agreed};
use crate::protection::{self, Iv};
use crate::vendor::{self, Announced, NatSupport};
use crate::wire::numbers::NotifyKind;
use crate::wire::select;
use crate::wire::{Body, Identification, Message, Payload, Payloads, SecurityAssociation};
use crypto::{Entropy, Secret};
use policy::config::{AuthMethod, Identity};

/// Message 1 has come; the pre-shared key or our signature has been asked for, to send message 2.
pub(crate) struct Answering {
    offered: SecurityAssociation,
    agreed: Agreed,
    announced: Announced,
    said: Said,
    shared: Secret,
    /// When the pre-shared key is here, where one is needed, else at once.
    keys: Option<IsakmpKeys>,
    /// Who the peer says it is.
    peer: Identification,
    /// Who we are.
    id: Identification,
    nat_support: Option<NatSupport>,
    /// What follows the authentication in message 2.
    tail: Vec<Payload>,
}

/// Message 2 is sent.
pub(crate) struct AuthSent {
    pub(super) exchanged: Exchanged,
    /// IV of the first encrypted message.
    pub(super) iv: Iv,
    peer: Identification,
    nat_support: Option<NatSupport>,
}

/// The verdict on the peer, after message 3, has been asked for.
pub(crate) struct Judging {
    pub(super) exchanged: Exchanged,
    last_block: Iv,
    initial_contact: bool,
}

/// Whether a message can be the first of aggressive mode, before anything is computed for it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn preview(message: &Message) -> Result<(), String> {
    let Body::Clear(payloads) = &message.body else {
        return Err("it is encrypted".into());
    };
    let transition = table::transition(StateName::AggressiveStart, Some(By::Key));
    select::check(payloads, transition.map_or(&[][..], |t| t.required), &[])?;
    Payloads(payloads).nonce().map(|_| ()).ok_or_else(|| "its nonce has no allowed size".into())
}

/// Who a first message says its sender is: its identity, or, of a distinguished name or what we cannot
/// read, the words for it.
///
/// # Errors
/// Those words.
pub(crate) fn named_identity(message: &Message) -> Result<Identity, String> {
    let Body::Clear(payloads) = &message.body else { return Err("nobody".into()) };
    match Payloads(payloads).ids().next() {
        Some(id) => ids::phase1_identity(id),
        None => Err("nobody".into()),
    }
}

/// Message 1: the peer's proposals, KE, NONCE and ID. Answered when our secret or signature is here.
pub(crate) fn first_message(setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
    let Body::Clear(payloads) = &message.body else {
        return Err(failed(malformed("an encrypted message 1")));
    };
    let content = Payloads(payloads);
    let (Some(offered), Some(public), Some(peer_nonce), Some(peer)) =
        (content.sa(), content.key_exchange(), content.nonce(), content.ids().next())
    else {
        return Err(failed(malformed("a message 1 without SA, KE, NONCE or ID")));
    };
    let groups = phase1::groups(offered);
    if groups.len() > 1 {
        let failure = Failure::new(
            Kind::NoProposal,
            Fault::Peer,
            format!(
                "the peer offers the groups {}, but aggressive mode has a public value of one group and cannot \
                 negotiate it (RFC 2409 5)",
                groups.join(" and ")
            ),
            "configure proposals of one group on the peer, or main mode",
        );
        return Err(refused(setup, failure, NotifyKind::NO_PROPOSAL_CHOSEN, context));
    }
    let agreed = match phase1::choose(setup.acceptable(Role::Responder), offered) {
        Ok(agreed) => agreed,
        Err(mismatch) => {
            return Err(refused(setup, no_proposal(setup, &mismatch), NotifyKind::NO_PROPOSAL_CHOSEN, context));
        }
    };
    let suite = agreed.suite;
    if let Err(e) = suite.group.check(public) {
        return Err(refused(setup, key_exchange_failed(&e), NotifyKind::INVALID_KEY_INFORMATION, context));
    }
    let exchange = suite.group.generate(context.entropy).map_err(|e| failed(unusable(&e)))?;
    let our_public = exchange.public().to_vec();
    let shared = exchange.agree(public).map_err(|e| failed(key_exchange_failed(&e)))?;
    let said = Said {
        cookies: setup.cookies,
        initiator_nonce: peer_nonce.to_vec(),
        responder_nonce: nonce(context.entropy),
        initiator_public: public.to_vec(),
        responder_public: our_public,
    };
    let announced = Announced::read(payloads);
    let nat = announced.nat.filter(|_| traverses_nat(&setup.policy));
    let mut tail: Vec<_> = certificate_requests(setup, agreed.method).collect();
    tail.extend(vendor_ids_for(&setup.policy, announced));
    tail.extend(vendor::xauth(setup.auth.xauth.is_some() && announced.xauth));
    if let Some((support, _)) = nat {
        let (mode, local, remote) = (setup.policy.nat_traversal, setup.local, setup.remote);
        tail.extend(nat::payloads(support, mode, suite.hash, &setup.cookies, local, remote, context.entropy));
    }
    let method = agreed.method;
    let mut state = Answering {
        offered: offered.clone(),
        agreed,
        announced,
        said,
        shared,
        keys: None,
        peer: peer.clone(),
        id: ids::phase1_payload(&setup.local_identity()),
        nat_support: nat.map(|(support, _)| support),
        tail,
    };
    if method == AuthMethod::PreSharedKey {
        let step = Step::silent(Aggressive::ResponderAwaitingSecret(state).into());
        return Ok(Step { wants: Some(Want::Secret), ..step });
    }
    let keys =
        IsakmpKeys::derive(suite, None, &state.shared, &state.said).map_err(|e| failed(key_exchange_failed(&e)))?;
    let hash = keys.hash_r(method, &state.said, &state.offered.body(), &state.id.body());
    state.keys = Some(keys);
    match state.agreed.signs(Role::Responder) {
        Some(row) => {
            let step = Step::silent(Aggressive::ResponderSigning(state).into());
            Ok(Step { wants: Some(Want::Signature { method: row, hash }), ..step })
        }
        None => {
            let proof = vec![Payload::Identification(state.id.clone()), Payload::Hash(hash.expose().to_vec())];
            state.message_2(setup, proof)
        }
    }
}

/// A first message that is refused: whoever sent it is told in the clear.
fn refused(setup: &Setup, failure: Failure, kind: NotifyKind, context: &mut Context<'_>) -> Box<Stop> {
    let message_id = informational::message_id(context.entropy);
    let reply = Some(informational::clear_notification(setup.cookies, message_id, kind));
    Box::new(Stop::Failed { failure, reply })
}

impl Answering {
    pub(super) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// The pre-shared key is here: message 2 with HASH_R.
    pub(super) fn secret(mut self, setup: &Setup, secret: &Secret) -> Outcome {
        let keys = IsakmpKeys::derive(self.agreed.suite, Some(secret), &self.shared, &self.said)
            .map_err(|e| failed(key_exchange_failed(&e)))?;
        let hash = keys.hash_r(self.agreed.method, &self.said, &self.offered.body(), &self.id.body());
        self.keys = Some(keys);
        let proof = vec![Payload::Identification(self.id.clone()), Payload::Hash(hash.expose().to_vec())];
        self.message_2(setup, proof)
    }

    /// Our signature is here: message 2 with it.
    pub(super) fn signed(self, setup: &Setup, signed: Signed) -> Outcome {
        let proof = signatures::payloads(self.id.clone(), signed);
        self.message_2(setup, proof)
    }

    fn message_2(self, setup: &Setup, proof: Vec<Payload>) -> Outcome {
        // Both callers have derived them.
        let Some(keys) = self.keys else { return Err(failed(malformed("nothing to derive keys from"))) };
        let mut payloads = vec![
            Payload::SecurityAssociation(self.agreed.answer.clone()),
            Payload::KeyExchange(self.said.responder_public.clone()),
            Payload::Nonce(self.said.responder_nonce.clone()),
        ];
        payloads.extend(proof);
        payloads.extend(self.tail);
        let iv = Iv(keys.phase1_iv(&self.said));
        let exchanged = Exchanged {
            keys,
            offer: self.offered,
            said: self.said,
            agreed: self.agreed,
            announced: self.announced,
            nat: nat::NatState::default(),
            nat_support: None,
        };
        let state = AuthSent { exchanged, iv, peer: self.peer, nat_support: self.nat_support };
        Ok(Step::new(Aggressive::ResponderAuthSent(state).into(), clear(setup.cookies, payloads)))
    }
}

impl AuthSent {
    /// Message 3: the peer's HASH_I, or its SIG_I to be judged; encrypted or not (RFC 2409 5).
    pub(super) fn handle(mut self, setup: &Setup, message: &Message, context: &mut Context<'_>) -> Outcome {
        let method = self.exchanged.agreed.method;
        let opened = match &message.body {
            Body::Encrypted(octets) => {
                match protection::open(&self.exchanged.keys, &self.iv, message.header.first, octets) {
                    Ok(opened) => Some(opened),
                    Err(_) => return Err(self.ignores(undecryptable(setup, method, 3), true)),
                }
            }
            Body::Clear(_) => None,
        };
        let (payloads, last_block) = match (&opened, &message.body) {
            (Some(opened), _) => (&opened.payloads[..], opened.next_iv.clone()),
            (None, Body::Clear(payloads)) => (&payloads[..], self.iv.clone()),
            (None, Body::Encrypted(_)) => (&[][..], self.iv.clone()),
        };
        let transition =
            table::transition(StateName::AggressiveResponderAuthSent, Some(By::of(&self.exchanged.agreed)));
        if let Err(what) = select::check(payloads, transition.map_or(&[][..], |t| t.required), &[]) {
            // With a wrong pre-shared key the HASH_I is as wrong as all else, so this is the peer's doing.
            return Err(self.ignores(malformed(&format!("a message 3 that is not acceptable: {what}")), false));
        }
        let (mode, hash) = (setup.policy.nat_traversal, self.exchanged.agreed.suite.hash);
        let nat = self
            .nat_support
            .and_then(|_| nat::detect(payloads, mode, hash, &setup.cookies, context.between.0, context.between.1));
        // Nothing in the clear is taken from who could be anybody.
        let initial_contact = opened.is_some() && says_initial_contact(payloads);
        let content = Payloads(payloads);
        if let Some(method) = self.exchanged.signs(&Of::Initiator) {
            let testimony = self.exchanged.testimony_of(setup, method, &Of::Initiator, Some(&self.peer), content);
            return match testimony {
                Ok(testimony) => {
                    self.detected(nat);
                    let state = Judging { exchanged: self.exchanged, last_block, initial_contact };
                    Ok(signatures::judge(Aggressive::ResponderJudging(state).into(), testimony))
                }
                // In the clear anybody could have sent it.
                Err(refusal) if opened.is_none() => Err(self.ignores(Failure::distrusted(&refusal), false)),
                Err(refusal) => Err(self.exchanged.distrust(setup, &refusal, &last_block, context.entropy)),
            };
        }
        let expected = self.exchanged.hash(&Of::Initiator, &self.peer);
        match authenticate(setup, method, &expected, content.hash().unwrap_or_default(), &self.peer) {
            Ok(peer) => {
                self.detected(nat);
                let established = self.exchanged.established(last_block, peer);
                let step = Step::silent(MainMode::Established(Box::new(established)));
                Ok(Step { initial_contact, ..step })
            }
            // The true message 3 may yet come.
            Err(Refused::Hash(failure)) => Err(self.ignores(failure, true)),
            Err(Refused::Identity(failure)) => {
                Err(refuse_identity(setup, failure, &self.exchanged.keys, &last_block, context.entropy))
            }
        }
    }

    fn detected(&mut self, nat: Option<nat::NatState>) {
        self.exchanged.nat = nat.unwrap_or_default();
        self.exchanged.nat_support = nat.and(self.nat_support);
    }

    fn ignores(self, failure: Failure, now: bool) -> Box<Stop> {
        let state = Aggressive::ResponderAuthSent(self).into();
        if now { Box::new(Stop::Ignored { state, failure, now }) } else { ignored(state, failure) }
    }
}

impl Judging {
    /// The verdict on the peer is here: that is all.
    pub(super) fn judged(self, setup: &Setup, judgement: &Judgement, entropy: &mut dyn Entropy) -> Outcome {
        match judgement {
            Ok(trusted) => {
                let peer = Authenticated::trusted(trusted);
                let established = self.exchanged.established(self.last_block, peer);
                let step = Step::silent(MainMode::Established(Box::new(established)));
                Ok(Step { initial_contact: self.initial_contact, ..step })
            }
            Err(refusal) => Err(self.exchanged.distrust(setup, refusal, &self.last_block, entropy)),
        }
    }
}
