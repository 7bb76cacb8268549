//! A peer refuses a quick mode of ours without saying which.
//!
//! Its notification comes under a message ID of its own, and many peers name no SPI in it, or theirs. If only one quick
//! mode is open, it is that one. Of several it is none that the peer answers: when one alone is left, it was that one.
//! What cannot be told apart so is not waited for as long as a peer that says nothing.

use super::Engine;
use super::phase2::refused_by_peer;
use crate::wire::numbers::NotifyKind;
use crypto::Entropy;
use policy::time::Timestamp;
use std::collections::BTreeSet;

/// Refusals remembered under an ISAKMP SA.
const MOST: usize = 32;

/// Times that a message 1 is sent which may have been refused.
pub(super) const TRIES: usize = 3;

/// Refusals of which it is not clear yet what they refuse.
#[derive(Debug, Default)]
pub(super) struct Doubts(Vec<(NotifyKind, BTreeSet<u32>)>);

impl Doubts {
    /// One of these quick modes, by message ID, was refused.
    pub(super) fn add(&mut self, kind: NotifyKind, among: BTreeSet<u32>) {
        if self.0.len() < MOST {
            self.0.push((kind, among));
        }
    }

    /// The peer has answered a quick mode: it has refused another one. Returns those of which that is now clear.
    fn answered(&mut self, message_id: u32) -> Vec<(u32, NotifyKind)> {
        for (_, among) in &mut self.0 {
            among.remove(&message_id);
        }
        let clear = self.0.extract_if(.., |(_, among)| among.len() < 2);
        clear.filter_map(|(kind, among)| Some((among.into_iter().next()?, kind))).collect()
    }

    /// A quick mode has ended without an answer: what may have been about it says nothing of the others any more.
    pub(super) fn ended(&mut self, message_id: u32) {
        self.0.retain(|(_, among)| !among.contains(&message_id));
    }
}

impl Engine {
    /// The peer has answered a quick mode of ours.
    pub(super) fn quick_mode_answered(&mut self, now: Timestamp, id: u64, message_id: u32, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        for (refused, kind) in sa.doubts.answered(message_id) {
            let Some(sa) = self.isakmp.get(&id) else { return };
            let Some(failure) = sa.exchanges.get(&refused).map(|exchange| refused_by_peer(sa, exchange, kind)) else {
                continue;
            };
            self.quick_mode_failed(now, id, refused, &failure, entropy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_was_not_refused() {
        let kind = NotifyKind::NO_PROPOSAL_CHOSEN;
        let mut doubts = Doubts::default();
        doubts.add(kind, [1, 2, 3].into());
        doubts.add(kind, [2, 3].into());
        assert_eq!(doubts.answered(1), []);
        assert_eq!(doubts.answered(2), [(3, kind), (3, kind)]);
        // One that failed by itself may have been the one.
        doubts.add(kind, [4, 5].into());
        doubts.ended(4);
        assert_eq!(doubts.answered(6), []);
        (0..100).for_each(|n| doubts.add(kind, [n, n + 1].into()));
        assert_eq!(doubts.0.len(), MOST);
    }
}
