//! Aggressive mode as a table, as main mode's.

use crate::main_mode::table::{By, ID, KE, NONCE, SA, StateName, Transition, Trigger};
use crate::main_mode::table::{HASH, SIG, answer, answer_by, clear, encrypted};

/// Every transition of aggressive mode. A message 3 in the clear is accepted too (RFC 2409 5).
pub(crate) const TRANSITIONS: [Transition; 19] = [
    clear(StateName::AggressiveStart, By::Key, 1, &[SA, KE, NONCE, ID], StateName::AggressiveResponderAwaitingSecret),
    clear(StateName::AggressiveStart, By::Signatures, 1, &[SA, KE, NONCE, ID], StateName::AggressiveResponderSigning),
    clear(
        StateName::AggressiveStart,
        By::ResponderSigns,
        1,
        &[SA, KE, NONCE, ID],
        StateName::AggressiveResponderSigning,
    ),
    clear(
        StateName::AggressiveStart,
        By::InitiatorSigns,
        1,
        &[SA, KE, NONCE, ID],
        StateName::AggressiveResponderAuthSent,
    ),
    answer(StateName::AggressiveResponderAwaitingSecret, Trigger::Secret, StateName::AggressiveResponderAuthSent),
    answer(StateName::AggressiveResponderSigning, Trigger::Signature, StateName::AggressiveResponderAuthSent),
    encrypted(StateName::AggressiveResponderAuthSent, By::Key, 3, &[HASH], StateName::Established),
    encrypted(StateName::AggressiveResponderAuthSent, By::Signatures, 3, &[SIG], StateName::AggressiveResponderJudging),
    encrypted(StateName::AggressiveResponderAuthSent, By::ResponderSigns, 3, &[HASH], StateName::Established),
    encrypted(
        StateName::AggressiveResponderAuthSent,
        By::InitiatorSigns,
        3,
        &[SIG],
        StateName::AggressiveResponderJudging,
    ),
    answer(StateName::AggressiveResponderJudging, Trigger::Verdict, StateName::Established),
    answer(StateName::AggressiveInitiatorAwaitingSecret, Trigger::Secret, StateName::AggressiveInitiatorSaSent),
    clear(StateName::AggressiveInitiatorSaSent, By::Key, 2, &[SA, KE, NONCE, ID, HASH], StateName::Established),
    clear(
        StateName::AggressiveInitiatorSaSent,
        By::Signatures,
        2,
        &[SA, KE, NONCE, ID, SIG],
        StateName::AggressiveInitiatorJudging,
    ),
    clear(
        StateName::AggressiveInitiatorSaSent,
        By::ResponderSigns,
        2,
        &[SA, KE, NONCE, ID, SIG],
        StateName::AggressiveInitiatorJudging,
    ),
    clear(
        StateName::AggressiveInitiatorSaSent,
        By::InitiatorSigns,
        2,
        &[SA, KE, NONCE, ID, HASH],
        StateName::AggressiveInitiatorSigning,
    ),
    answer_by(StateName::AggressiveInitiatorJudging, By::ResponderSigns, Trigger::Verdict, StateName::Established),
    answer(StateName::AggressiveInitiatorJudging, Trigger::Verdict, StateName::AggressiveInitiatorSigning),
    answer(StateName::AggressiveInitiatorSigning, Trigger::Signature, StateName::Established),
];
