//! Main mode as a table: in which state which message is awaited, what it must
//! carry (RFC 2409 5.1, 5.4), and where it leads.

use super::aggressive;
use crate::proposal::phase1::{Agreed, Asked};
use crate::wire::numbers::PayloadKind;
use core::fmt;
use policy::config::AuthMethod;

/// The states, by name; each has its own struct with just the data it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StateName {
    /// No negotiation yet: a responder before message 1.
    Start,
    /// An initiator that waits for the pre-shared key before it says anything.
    InitiatorAwaitingSecret,
    /// Message 1 is sent.
    InitiatorSaSent,
    /// Message 3 is sent.
    InitiatorKeSent,
    /// An initiator that waits for its own signature, to send message 5.
    InitiatorSigning,
    /// Message 5 is sent.
    InitiatorAuthSent,
    /// An initiator that waits for the verdict on the peer's certificate.
    InitiatorJudging,
    /// Message 2 is sent.
    ResponderSaSent,
    /// Message 4 is sent.
    ResponderKeSent,
    /// A responder that waits for the verdict on the peer's certificate.
    ResponderJudging,
    /// A responder that waits for its own signature, to send message 6.
    ResponderSigning,
    /// No negotiation yet: a responder before message 1 of aggressive mode.
    AggressiveStart,
    /// An initiator of aggressive mode that waits for the pre-shared key before it says anything.
    AggressiveInitiatorAwaitingSecret,
    /// Message 1 of aggressive mode is sent.
    AggressiveInitiatorSaSent,
    /// An initiator of aggressive mode that waits for the verdict on the peer's certificate.
    AggressiveInitiatorJudging,
    /// An initiator of aggressive mode that waits for its own signature, to send message 3.
    AggressiveInitiatorSigning,
    /// A responder of aggressive mode that waits for the pre-shared key, to send message 2.
    AggressiveResponderAwaitingSecret,
    /// A responder of aggressive mode that waits for its own signature, to send message 2.
    AggressiveResponderSigning,
    /// Message 2 of aggressive mode is sent.
    AggressiveResponderAuthSent,
    /// A responder of aggressive mode that waits for the verdict on the peer's certificate.
    AggressiveResponderJudging,
    /// Both sides are authenticated.
    Established,
}

/// What leads out of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A message of the peer, by number.
    Message(u8),
    /// The pre-shared key.
    Secret,
    /// Our signature.
    Signature,
    /// The verdict on the peer's certificate.
    Verdict,
}

/// As failures name what is awaited.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(number) => write!(f, "message {number}"),
            Self::Secret => f.write_str("secret"),
            Self::Signature => f.write_str("signature"),
            Self::Verdict => f.write_str("verdict"),
        }
    }
}

/// Which methods a transition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// All of them.
    Any,
    /// A pre-shared key (RFC 2409 5.4).
    Key,
    /// Signatures (RFC 2409 5.1).
    Signatures,
    /// A signature of the responder and a hash of the initiator (hybrid-auth-05, HybridInitRSA).
    ResponderSigns,
    /// The other way round (HybridRespRSA).
    InitiatorSigns,
}

impl By {
    /// What was agreed.
    pub(crate) fn of(agreed: &Agreed) -> Self {
        match (agreed.method, agreed.asked) {
            (AuthMethod::PreSharedKey, _) => Self::Key,
            (AuthMethod::Signature(_), _) => Self::Signatures,
            (AuthMethod::Hybrid, Asked::Responder) => Self::InitiatorSigns,
            (AuthMethod::Hybrid, Asked::Initiator | Asked::Nobody) => Self::ResponderSigns,
        }
    }
}

/// One transition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) from: StateName,
    pub(crate) by: By,
    pub(crate) trigger: Trigger,
    pub(crate) encrypted: bool,
    /// Payloads the message must carry, in any order.
    pub(crate) required: &'static [PayloadKind],
    pub(crate) to: StateName,
}

pub(super) const SA: PayloadKind = PayloadKind::SECURITY_ASSOCIATION;
pub(super) const KE: PayloadKind = PayloadKind::KEY_EXCHANGE;
pub(super) const NONCE: PayloadKind = PayloadKind::NONCE;
pub(super) const ID: PayloadKind = PayloadKind::IDENTIFICATION;
pub(super) const HASH: PayloadKind = PayloadKind::HASH;
pub(super) const SIG: PayloadKind = PayloadKind::SIGNATURE;

/// Every transition of main mode; what is for one way stands before what is for any.
pub(crate) const TRANSITIONS: [Transition; 21] = [
    clear(StateName::Start, By::Any, 1, &[SA], StateName::ResponderSaSent),
    clear(StateName::ResponderSaSent, By::Any, 3, &[KE, NONCE], StateName::ResponderKeSent),
    encrypted(StateName::ResponderKeSent, By::Key, 5, &[ID, HASH], StateName::Established),
    encrypted(StateName::ResponderKeSent, By::Signatures, 5, &[ID, SIG], StateName::ResponderJudging),
    encrypted(StateName::ResponderKeSent, By::ResponderSigns, 5, &[ID, HASH], StateName::ResponderSigning),
    encrypted(StateName::ResponderKeSent, By::InitiatorSigns, 5, &[ID, SIG], StateName::ResponderJudging),
    answer_by(StateName::ResponderJudging, By::InitiatorSigns, Trigger::Verdict, StateName::Established),
    answer(StateName::ResponderJudging, Trigger::Verdict, StateName::ResponderSigning),
    answer(StateName::ResponderSigning, Trigger::Signature, StateName::Established),
    answer(StateName::InitiatorAwaitingSecret, Trigger::Secret, StateName::InitiatorSaSent),
    clear(StateName::InitiatorSaSent, By::Any, 2, &[SA], StateName::InitiatorKeSent),
    clear(StateName::InitiatorKeSent, By::Key, 4, &[KE, NONCE], StateName::InitiatorAuthSent),
    clear(StateName::InitiatorKeSent, By::Signatures, 4, &[KE, NONCE], StateName::InitiatorSigning),
    clear(StateName::InitiatorKeSent, By::ResponderSigns, 4, &[KE, NONCE], StateName::InitiatorAuthSent),
    clear(StateName::InitiatorKeSent, By::InitiatorSigns, 4, &[KE, NONCE], StateName::InitiatorSigning),
    answer(StateName::InitiatorSigning, Trigger::Signature, StateName::InitiatorAuthSent),
    encrypted(StateName::InitiatorAuthSent, By::Key, 6, &[ID, HASH], StateName::Established),
    encrypted(StateName::InitiatorAuthSent, By::Signatures, 6, &[ID, SIG], StateName::InitiatorJudging),
    encrypted(StateName::InitiatorAuthSent, By::ResponderSigns, 6, &[ID, SIG], StateName::InitiatorJudging),
    encrypted(StateName::InitiatorAuthSent, By::InitiatorSigns, 6, &[ID, HASH], StateName::Established),
    answer(StateName::InitiatorJudging, Trigger::Verdict, StateName::Established),
];

pub(super) const fn clear(
    from: StateName,
    by: By,
    message: u8,
    required: &'static [PayloadKind],
    to: StateName,
) -> Transition {
    Transition { from, by, trigger: Trigger::Message(message), encrypted: false, required, to }
}

pub(super) const fn encrypted(
    from: StateName,
    by: By,
    message: u8,
    required: &'static [PayloadKind],
    to: StateName,
) -> Transition {
    Transition { from, by, trigger: Trigger::Message(message), encrypted: true, required, to }
}

/// What the daemon answers to a question of ours.
pub(super) const fn answer(from: StateName, trigger: Trigger, to: StateName) -> Transition {
    answer_by(from, By::Any, trigger, to)
}

/// The same, where it depends on what was agreed.
pub(super) const fn answer_by(from: StateName, by: By, trigger: Trigger, to: StateName) -> Transition {
    Transition { from, by, trigger, encrypted: false, required: &[], to }
}

/// The transition out of a state, if there is one; `by` once it is agreed.
pub(crate) fn transition(from: StateName, by: Option<By>) -> Option<&'static Transition> {
    let applies = |t: &&Transition| t.from == from && (t.by == By::Any || Some(t.by) == by);
    TRANSITIONS.iter().chain(&aggressive::table::TRANSITIONS).find(applies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn graph(transitions: &[Transition]) -> String {
        let mut out = String::new();
        for t in transitions {
            let payloads: Vec<_> = t.required.iter().map(PayloadKind::to_string).collect();
            let star = if t.encrypted { "*" } else { "" };
            let by = match t.by {
                By::ResponderSigns | By::InitiatorSigns => format!(" ({:?})", t.by),
                By::Any | By::Key | By::Signatures => String::new(),
            };
            writeln!(out, "{:?} --{}{star} {}--> {:?}{by}", t.from, t.trigger, payloads.join(", "), t.to).unwrap();
        }
        out
    }

    #[test]
    fn the_graph_is_the_one_on_file() {
        assert_eq!(graph(&TRANSITIONS), include_str!("transitions.txt"));
        assert_eq!(graph(&aggressive::table::TRANSITIONS), include_str!("aggressive/transitions.txt"));
    }
}
