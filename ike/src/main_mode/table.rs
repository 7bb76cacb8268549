//! Main mode as a table: in which state which message is awaited, what it must
//! carry (RFC 2409 5.4), and where it leads.

use crate::wire::numbers::PayloadKind;

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
    /// Message 5 is sent.
    InitiatorAuthSent,
    /// Message 2 is sent.
    ResponderSaSent,
    /// Message 4 is sent.
    ResponderKeSent,
    /// Both sides are authenticated.
    Established,
}

/// One transition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) from: StateName,
    /// Number of the message that leads on; `None` is the pre-shared key.
    pub(crate) message: Option<u8>,
    pub(crate) encrypted: bool,
    /// Payloads the message must carry, in any order.
    pub(crate) required: &'static [PayloadKind],
    pub(crate) to: StateName,
}

const SA: PayloadKind = PayloadKind::SECURITY_ASSOCIATION;
const KE: PayloadKind = PayloadKind::KEY_EXCHANGE;
const NONCE: PayloadKind = PayloadKind::NONCE;
const ID: PayloadKind = PayloadKind::IDENTIFICATION;
const HASH: PayloadKind = PayloadKind::HASH;

/// Every transition of main mode with a pre-shared key.
pub(crate) const TRANSITIONS: [Transition; 7] = [
    clear(StateName::Start, Some(1), &[SA], StateName::ResponderSaSent),
    clear(StateName::ResponderSaSent, Some(3), &[KE, NONCE], StateName::ResponderKeSent),
    encrypted(StateName::ResponderKeSent, 5, &[ID, HASH], StateName::Established),
    clear(StateName::InitiatorAwaitingSecret, None, &[], StateName::InitiatorSaSent),
    clear(StateName::InitiatorSaSent, Some(2), &[SA], StateName::InitiatorKeSent),
    clear(StateName::InitiatorKeSent, Some(4), &[KE, NONCE], StateName::InitiatorAuthSent),
    encrypted(StateName::InitiatorAuthSent, 6, &[ID, HASH], StateName::Established),
];

const fn clear(from: StateName, message: Option<u8>, required: &'static [PayloadKind], to: StateName) -> Transition {
    Transition { from, message, encrypted: false, required, to }
}

const fn encrypted(from: StateName, message: u8, required: &'static [PayloadKind], to: StateName) -> Transition {
    Transition { from, message: Some(message), encrypted: true, required, to }
}

/// The transition out of a state, if there is one.
pub(crate) fn transition(from: StateName) -> Option<&'static Transition> {
    TRANSITIONS.iter().find(|t| t.from == from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn graph() -> String {
        let mut out = String::new();
        for t in TRANSITIONS {
            let message = t.message.map_or("secret".into(), |n| format!("message {n}"));
            let payloads: Vec<_> = t.required.iter().map(PayloadKind::to_string).collect();
            let star = if t.encrypted { "*" } else { "" };
            writeln!(out, "{:?} --{message}{star} {}--> {:?}", t.from, payloads.join(", "), t.to).unwrap();
        }
        out
    }

    #[test]
    fn the_graph_is_the_one_on_file() {
        assert_eq!(graph(), include_str!("transitions.txt"));
    }
}
