//! The transaction exchange as a table: which message may follow which, and what each carries.

use crate::wire::AttributesKind;
use crate::wire::numbers::PayloadKind;

/// What every message carries (draft-ietf-ipsec-isakmp-mode-cfg-05 3.1).
pub(crate) const REQUIRED: [PayloadKind; 2] = [PayloadKind::HASH, PayloadKind::ATTRIBUTES];

/// Message 1 and the message 2 that answers it.
pub(crate) const EXCHANGES: [(AttributesKind, AttributesKind); 2] =
    [(AttributesKind::REQUEST, AttributesKind::REPLY), (AttributesKind::SET, AttributesKind::ACK)];

/// Whether a message of this kind may come: after `question` its answer, else a question.
pub(crate) fn allows(question: Option<AttributesKind>, kind: AttributesKind) -> bool {
    EXCHANGES.iter().any(|(first, second)| match question {
        Some(question) => (question, kind) == (*first, *second),
        None => kind == *first,
    })
}

/// The kind of the answer to a question.
pub(crate) fn answer(question: AttributesKind) -> Option<AttributesKind> {
    EXCHANGES.iter().find(|(first, _)| *first == question).map(|(_, second)| *second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn graph() -> String {
        let mut out = String::new();
        let payloads: Vec<_> = REQUIRED.iter().map(PayloadKind::to_string).collect();
        for (first, second) in EXCHANGES {
            for (from, kind, to) in [
                ("Start".into(), first, format!("Asked({first})")),
                (format!("Asked({first})"), second, "Finished".into()),
            ] {
                writeln!(out, "{from} --{kind}* {}--> {to}", payloads.join(", ")).unwrap();
            }
        }
        out
    }

    #[test]
    fn the_graph_is_the_one_on_file() {
        assert_eq!(graph(), include_str!("transitions.txt"));
    }

    #[test]
    fn answers_are_no_questions_and_of_the_right_kind() {
        use AttributesKind as K;
        assert!(allows(None, K::REQUEST) && allows(None, K::SET));
        for kind in [K::REPLY, K::ACK, K(0), K(5)] {
            assert!(!allows(None, kind), "{kind}");
        }
        assert!(allows(Some(K::REQUEST), K::REPLY) && allows(Some(K::SET), K::ACK));
        for (question, kind) in [(K::REQUEST, K::ACK), (K::REQUEST, K::REQUEST), (K::SET, K::REPLY), (K::SET, K(9))] {
            assert!(!allows(Some(question), kind), "{question} {kind}");
        }
    }
}
