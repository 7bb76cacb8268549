//! A network that loses, doubles, delays and reorders datagrams, and an attacker
//! who has seen all of them.

use super::rng::Rng;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A UDP datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// Sender.
    pub(super) source: SocketAddr,
    /// Receiver.
    pub(super) destination: SocketAddr,
    /// UDP payload.
    pub(super) payload: Vec<u8>,
}

/// How bad a network is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    /// Datagrams lost, of 100.
    pub(super) loss: u64,
    /// Datagrams delivered twice, of 100.
    pub(super) duplication: u64,
    /// Longest delay in milliseconds; the shortest is 1, so this is the reordering too.
    pub(super) delay: u64,
}

impl Quality {
    /// Loses nothing.
    pub(super) const RELIABLE: Self = Self { loss: 0, duplication: 0, delay: 20 };

    /// Any, from reliable to dreadful.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let delay = [20, 200, 1500, 4000][rng.below(4) as usize];
        Self { loss: rng.below(5) * 10, duplication: rng.below(4) * 10, delay }
    }
}

/// Datagrams that the attacker remembers.
const MEMORY: usize = 300;

/// What is under way, in order of arrival.
#[derive(Debug)]
pub(super) struct Network {
    /// How bad it is at the moment.
    pub(super) quality: Quality,
    queue: BTreeMap<(Timestamp, u64), InFlight>,
    sent: u64,
    /// The latest datagrams, also those that were lost; a ring.
    seen: Vec<InFlight>,
    overheard: usize,
}

impl Network {
    /// An empty network.
    #[must_use]
    pub(super) fn new(quality: Quality) -> Self {
        Self { quality, queue: BTreeMap::new(), sent: 0, seen: Vec::new(), overheard: 0 }
    }

    /// A datagram is sent.
    pub(super) fn send(&mut self, now: Timestamp, rng: &mut Rng, datagram: InFlight) {
        match self.seen.get_mut(self.overheard % MEMORY) {
            Some(old) => *old = datagram.clone(),
            None => self.seen.push(datagram.clone()),
        }
        self.overheard += 1;
        if rng.chance(self.quality.loss) {
            return;
        }
        let copies = 1 + usize::from(rng.chance(self.quality.duplication));
        for _ in 0..copies {
            self.sent += 1;
            let arrival = now + rng.millis(1, self.quality.delay);
            self.queue.insert((arrival, self.sent), datagram.clone());
        }
    }

    /// The attacker sends what was seen before: as it was, from another port, or changed.
    pub(super) fn attack(&mut self, now: Timestamp, rng: &mut Rng) {
        if self.seen.is_empty() {
            return;
        }
        let mut datagram = self.seen[rng.below(self.seen.len() as u64) as usize].clone();
        match rng.below(3) {
            0 => {}
            1 => datagram.source.set_port(1024 + rng.below(60_000) as u16),
            _ => {
                for _ in 0..=rng.below(3) {
                    let at = rng.below(datagram.payload.len() as u64) as usize;
                    datagram.payload[at] ^= 1 << rng.below(8);
                }
            }
        }
        self.sent += 1;
        self.queue.insert((now + rng.millis(1, self.quality.delay), self.sent), datagram);
    }

    /// When the next datagram arrives.
    #[must_use]
    pub(super) fn next_arrival(&self) -> Option<Timestamp> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a datagram that has arrived.
    pub(super) fn receive(&mut self, now: Timestamp) -> Option<InFlight> {
        self.next_arrival().filter(|at| *at <= now)?;
        self.queue.pop_first().map(|(_, datagram)| datagram)
    }
}
