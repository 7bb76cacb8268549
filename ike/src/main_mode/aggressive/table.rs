//! Aggressive mode as a table, as main mode's.

use crate::main_mode::table::{By, ID, KE, NONCE, SA, StateName, Transition, Trigger, answer, clear, encrypted};
use crate::main_mode::table::{HASH, SIG};

/// Every transition of aggressive mode. A message 3 in the clear is accepted too (RFC 2409 5).
pub(crate) const TRANSITIONS: [Transition; 12] = [
    clear(StateName::AggressiveStart, By::Key, 1, &[SA, KE, NONCE, ID], StateName::AggressiveResponderAwaitingSecret),
    clear(StateName::AggressiveStart, By::Signatures, 1, &[SA, KE, NONCE, ID], StateName::AggressiveResponderSigning),
    answer(StateName::AggressiveResponderAwaitingSecret, Trigger::Secret, StateName::AggressiveResponderAuthSent),
    answer(StateName::AggressiveResponderSigning, Trigger::Signature, StateName::AggressiveResponderAuthSent),
    encrypted(StateName::AggressiveResponderAuthSent, By::Key, 3, &[HASH], StateName::Established),
    encrypted(StateName::AggressiveResponderAuthSent, By::Signatures, 3, &[SIG], StateName::AggressiveResponderJudging),
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
    answer(StateName::AggressiveInitiatorJudging, Trigger::Verdict, StateName::AggressiveInitiatorSigning),
    answer(StateName::AggressiveInitiatorSigning, Trigger::Signature, StateName::Established),
];
