//! Negotiations that we refused, for as long as their initiator repeats itself:
//! so that each is reported once, and answered the same every time.

use crate::retransmit::{Answer, GIVE_UP};
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
    reply: Option<Answer>,
}

/// The refusals of the last half minute, oldest first.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Refusal>);

impl Refusals {
    /// Whether this attempt was refused before; with what, if anything, it is answered now.
    pub(super) fn find(&mut self, now: Timestamp, remote: SocketAddr, initiator: Cookie) -> Option<Option<&[u8]>> {
        self.forget(now);
        let refusal = self.0.iter_mut().find(|r| r.remote == remote && r.initiator == initiator)?;
        Some(refusal.reply.as_mut().and_then(|answer| answer.again(now)))
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
            self.0.push_back(Refusal {
                until: now + GIVE_UP * 2,
                remote,
                initiator,
                reply: reply.map(|reply| Answer::new(reply, now)),
            });
        }
        room
    }

    fn forget(&mut self, now: Timestamp) {
        while self.0.front().is_some_and(|r| r.until <= now) {
            self.0.pop_front();
        }
    }
}
