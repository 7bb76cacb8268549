//! Quick mode as a table (RFC 2409 5.5), as main mode's.

use crate::wire::numbers::PayloadKind;

/// The states, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StateName {
    /// No exchange yet: a responder before message 1.
    Start,
    /// Message 1 is sent.
    InitiatorSent,
    /// Message 2 is sent.
    ResponderSent,
    /// Both sides have the pair; only duplicates are answered.
    Finished,
    /// We gave our exchange up for the peer's; its answer is refused.
    Abandoned,
}

/// One transition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    pub(crate) from: StateName,
    /// Number of the message that leads on; `None` is the peer's own message 1
    /// for the same tunnel, with the greater nonce.
    pub(crate) message: Option<u8>,
    pub(crate) required: &'static [PayloadKind],
    /// Payloads it may carry, all or none.
    pub(crate) optional: &'static [PayloadKind],
    pub(crate) to: StateName,
}

const SA: PayloadKind = PayloadKind::SECURITY_ASSOCIATION;
const KE: PayloadKind = PayloadKind::KEY_EXCHANGE;
const NONCE: PayloadKind = PayloadKind::NONCE;
const ID: PayloadKind = PayloadKind::IDENTIFICATION;
const HASH: PayloadKind = PayloadKind::HASH;

/// Every transition of quick mode.
pub(crate) const TRANSITIONS: [Transition; 4] = [
    Transition {
        from: StateName::Start,
        message: Some(1),
        required: &[HASH, SA, NONCE],
        optional: &[KE, ID, ID],
        to: StateName::ResponderSent,
    },
    Transition {
        from: StateName::ResponderSent,
        message: Some(3),
        required: &[HASH],
        optional: &[],
        to: StateName::Finished,
    },
    Transition {
        from: StateName::InitiatorSent,
        message: Some(2),
        required: &[HASH, SA, NONCE],
        optional: &[KE, ID, ID],
        to: StateName::Finished,
    },
    Transition {
        from: StateName::InitiatorSent,
        message: None,
        required: &[],
        optional: &[],
        to: StateName::Abandoned,
    },
];

/// The transition out of a state by a message, if there is one.
pub(crate) fn transition(from: StateName) -> Option<&'static Transition> {
    TRANSITIONS.iter().find(|t| t.from == from && t.message.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn graph() -> String {
        let names = |kinds: &[PayloadKind]| kinds.iter().map(PayloadKind::to_string).collect::<Vec<_>>().join(", ");
        let mut out = String::new();
        for t in TRANSITIONS {
            let message = t.message.map_or("peer's message 1".into(), |n| format!("message {n}"));
            write!(out, "{:?} --{message}* {}", t.from, names(t.required)).unwrap();
            if !t.optional.is_empty() {
                write!(out, " [{}]", names(t.optional)).unwrap();
            }
            writeln!(out, "--> {:?}", t.to).unwrap();
        }
        out
    }

    #[test]
    fn the_graph_is_the_one_on_file() {
        assert_eq!(graph(), include_str!("transitions.txt"));
    }
}
