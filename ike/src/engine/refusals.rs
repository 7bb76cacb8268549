//! Negotiations that we refused, for as long as their initiator repeats itself:
//! so that each is reported once, and answered the same every time.

use crate::retransmit::GIVE_UP;
use crate::wire::Cookie;
use policy::time::Timestamp;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Refusals remembered; beyond them new ones go unanswered and unreported.
const LIMIT: usize = 256;

#[derive(Debug)]
struct Refusal {
    until: Timestamp,
    remote: SocketAddr,
    initiator: Cookie,
    reply: Option<Vec<u8>>,
}

/// The refusals of the last half minute, oldest first.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Refusal>);

impl Refusals {
    /// Whether this attempt was refused before; with what, if anything, it was answered.
    pub(super) fn find(&mut self, now: Timestamp, remote: SocketAddr, initiator: Cookie) -> Option<Option<&[u8]>> {
        self.forget(now);
        self.0.iter().find(|r| r.remote == remote && r.initiator == initiator).map(|r| r.reply.as_deref())
    }

    /// Remembers a refusal; `false` if there are too many.
    pub(super) fn keep(
        &mut self,
        now: Timestamp,
        remote: SocketAddr,
        initiator: Cookie,
        reply: Option<Vec<u8>>,
    ) -> bool {
        self.forget(now);
        let room = self.0.len() < LIMIT;
        if room {
            // A little longer than the initiator repeats itself.
            self.0.push_back(Refusal { until: now + GIVE_UP * 2, remote, initiator, reply });
        }
        room
    }

    fn forget(&mut self, now: Timestamp) {
        while self.0.front().is_some_and(|r| r.until <= now) {
            self.0.pop_front();
        }
    }
}
