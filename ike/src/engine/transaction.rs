//! Transaction exchanges in the engine: asking, answering, repeating, giving up.

use super::isakmp::Held;
use super::{Datagram, Discarded, Engine, Timer};
use crate::main_mode::table::StateName;
use crate::protection::Iv;
use crate::retransmit::{Answer, Request};
use crate::transaction::{self, table};
use crate::wire::attributes::xauth;
use crate::wire::{Attribute, Attributes, AttributesKind, Message};
use crypto::Entropy;
use policy::time::Timestamp;
use std::collections::VecDeque;

/// Questions of the peer whose answers are kept, to be given again.
const ANSWERS: usize = 8;

/// The transaction exchanges under one ISAKMP SA.
#[derive(Default)]
pub(super) struct Transactions {
    /// Our question, which is not answered yet. There is one at a time.
    asked: Option<Asked>,
    /// Those of the peer that were answered last.
    answered: VecDeque<Answered>,
    /// A question that came before we had seen the end of main mode.
    early: Option<Held>,
}

/// A question of ours.
struct Asked {
    message_id: u32,
    kind: AttributesKind,
    about: About,
    iv: Iv,
    request: Request,
}

/// What a question of ours is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Who the peer's user is.
    User,
    /// Whether he is believed.
    Status { user: String, believed: bool },
    /// Our address.
    Configuration,
    /// The peer's address.
    Lease,
}

struct Answered {
    message_id: u32,
    datagram: Vec<u8>,
    answer: Answer,
}

/// A question of the peer, which is authentic and waits for its answer.
pub(super) struct Question {
    pub(super) message_id: u32,
    pub(super) attributes: Attributes,
    iv: Iv,
    datagram: Vec<u8>,
}

impl Engine {
    /// A message of the transaction exchange.
    pub(super) fn transaction_message(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let message_id = message.header.message_id;
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Some(established) = sa.state.established() else {
            // A question may overtake message 6, or come while that is judged.
            if matches!(sa.state.name(), StateName::InitiatorAuthSent | StateName::InitiatorJudging) {
                let (local, remote) = (datagram.local, datagram.remote);
                sa.transactions.early = Some(Held { payload: datagram.payload.to_vec(), local, remote });
            } else {
                self.discard(Discarded::Unexpected);
            }
            return;
        };
        if let Some(asked) = sa.transactions.asked.as_ref().filter(|asked| asked.message_id == message_id) {
            let Ok(authentic) = transaction::open(&established.keys, &asked.iv, message, Some(asked.kind)) else {
                self.discard(Discarded::NotAuthentic);
                return;
            };
            // The answer should repeat the identifier (draft 3.2), but strongSwan's to XAUTH does not. What ties
            // it to the question is the message ID, in its hash and its IV.
            let Some(Asked { about, .. }) = sa.transactions.asked.take() else { return };
            self.timers.cancel(&Timer::Transaction(id));
            self.heard(now, id, datagram);
            self.answered_by_peer(now, id, about, &authentic.attributes, entropy);
            return;
        }
        let known = sa.transactions.answered.iter().position(|known| known.message_id == message_id);
        if let Some((at, known)) = known.and_then(|at| Some((at, sa.transactions.answered.get(at)?))) {
            if known.datagram == datagram.payload {
                self.discard(Discarded::Duplicate);
                self.answer_again(now, id, |sa| Some(&mut sa.transactions.answered.get_mut(at)?.answer));
            } else {
                self.discard(Discarded::Unexpected);
            }
            return;
        }
        let opened = self.begun_by_peer(now, id, datagram, message_id, |established| {
            let iv = Iv(established.keys.phase2_iv(&established.last_block.0, message_id));
            transaction::open(&established.keys, &iv, message, None)
        });
        let Some(authentic) = opened else { return };
        let question = Question {
            message_id,
            attributes: authentic.attributes,
            iv: authentic.next_iv,
            datagram: datagram.payload.to_vec(),
        };
        if question.attributes.attributes.iter().any(|a| (xauth::TYPE..=xauth::ANSWER).contains(&a.kind)) {
            self.user_question(now, id, question, entropy);
        } else {
            self.configuration_question(now, id, question, entropy);
        }
    }

    /// The question that came before the end of main mode did.
    pub(super) fn early_question(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let early = self.isakmp.get_mut(&id).and_then(|sa| sa.transactions.early.take());
        let Some((early, message)) = early.and_then(|early| Message::decode(&early.payload).ok().map(|m| (early, m)))
        else {
            return;
        };
        let datagram = Datagram { local: early.local, remote: early.remote, payload: &early.payload };
        self.transaction_message(now, id, &datagram, &message, entropy);
    }

    /// Asks the peer, or tells it; the answer goes to [`Self::answered_by_peer`].
    pub(super) fn ask_peer(
        &mut self,
        now: Timestamp,
        id: u64,
        kind: AttributesKind,
        attributes: Vec<Attribute>,
        about: About,
        entropy: &mut dyn Entropy,
    ) {
        let Some(message_id) = self.fresh_message_id(id, entropy) else { return };
        let identifier = (entropy.next_u64() >> 48) as u16;
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Some(established) = sa.state.established() else { return };
        let iv = Iv(established.keys.phase2_iv(&established.last_block.0, message_id));
        let attributes = Attributes { kind, identifier, attributes };
        let sealed = transaction::seal(&established.keys, &iv, sa.setup.cookies, message_id, attributes);
        // A cipher that fails here failed before: the SA would not exist.
        let Ok((datagram, iv)) = sealed else { return };
        let (request, due) = Request::new(datagram.clone(), now);
        sa.transactions.asked = Some(Asked { message_id, kind, about, iv, request });
        self.timers.set(Timer::Transaction(id), due);
        self.use_message_id(now, id, message_id);
        self.transmit_under(now, id, &datagram);
    }

    /// Answers a question of the peer.
    pub(super) fn answer_question(&mut self, now: Timestamp, id: u64, question: Question, attributes: Vec<Attribute>) {
        let Question { message_id, attributes: asked, iv, datagram } = question;
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (Some(established), Some(kind)) = (sa.state.established(), table::answer(asked.kind)) else { return };
        let attributes = Attributes { kind, identifier: asked.identifier, attributes };
        let sealed = transaction::seal(&established.keys, &iv, sa.setup.cookies, message_id, attributes);
        let Ok((reply, _)) = sealed else { return };
        let answered = &mut sa.transactions.answered;
        if answered.len() == ANSWERS {
            answered.pop_front();
        }
        answered.push_back(Answered { message_id, datagram, answer: Answer::new(reply.clone(), now) });
        self.transmit_under(now, id, &reply);
    }

    /// Our question is due: repeat it, or give up.
    pub(super) fn transaction_due(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        let Some(asked) = sa.transactions.asked.as_mut() else { return };
        if let Some((datagram, next)) = asked.request.due(now) {
            let datagram = datagram.to_vec();
            self.timers.set(Timer::Transaction(id), next);
            self.transmit(local, remote, &datagram);
            return;
        }
        let Some(Asked { about, request, .. }) = sa.transactions.asked.take() else { return };
        self.unanswered_by_peer(now, id, about, request.transmissions(), entropy);
    }

    /// The peer has answered a question of ours.
    fn answered_by_peer(
        &mut self,
        now: Timestamp,
        id: u64,
        about: About,
        answer: &Attributes,
        entropy: &mut dyn Entropy,
    ) {
        match about {
            About::User => self.user_answer(now, id, answer, entropy),
            About::Status { user, believed } => self.status_known(now, id, &user, believed, entropy),
            About::Configuration => self.configured(now, id, answer, entropy),
            About::Lease => self.admitted(now, id, entropy),
        }
    }

    /// The peer has not answered a question of ours.
    fn unanswered_by_peer(
        &mut self,
        now: Timestamp,
        id: u64,
        about: About,
        transmissions: usize,
        entropy: &mut dyn Entropy,
    ) {
        match about {
            About::User => self.user_unanswered(now, id, transmissions, entropy),
            // Some do not take note of it.
            About::Status { user, believed } => self.status_known(now, id, &user, believed, entropy),
            About::Lease => self.admitted(now, id, entropy),
            About::Configuration => self.not_configured(now, id, transmissions, entropy),
        }
    }
}
