//! A network that loses, doubles, delays, reorders and damages datagrams, and an attacker
//! who has seen all of them.

use crate::rng::Rng;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A UDP datagram on its way, or an ESP packet: then both ports are 0.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    /// Sender.
    pub(crate) source: SocketAddr,
    /// Receiver.
    pub(crate) destination: SocketAddr,
    /// UDP payload, or the packet from its SPI on.
    pub(crate) payload: Vec<u8>,
}

/// How bad a network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Datagrams lost, of 100.
    pub(crate) loss: u64,
    /// Datagrams delivered twice, of 100.
    pub(crate) duplication: u64,
    /// Datagrams delivered, each copy by itself, with other octets than were sent, of 100.
    pub(crate) corruption: u64,
    /// Shortest and longest delay in milliseconds: the difference makes the reordering.
    pub(crate) delay: (u64, u64),
}

impl Quality {
    /// Loses nothing.
    pub(crate) const RELIABLE: Self = Self { loss: 0, duplication: 0, corruption: 0, delay: (1, 20) };
    /// Loses nothing, and nothing overtakes.
    pub(crate) const ORDERLY: Self = Self { delay: (15, 15), ..Self::RELIABLE };

    /// Any, from reliable to dreadful.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let longest = [20, 200, 1500, 4000][rng.below(4) as usize];
        let corruption = [0, 0, 3, 15][rng.below(4) as usize];
        Self { loss: rng.below(5) * 10, duplication: rng.below(4) * 10, corruption, delay: (1, longest) }
    }
}

/// Datagrams that the attacker remembers.
const MEMORY: usize = 300;

/// What is under way, in order of arrival.
#[derive(Debug)]
pub(crate) struct Network {
    /// How bad it is at the moment.
    pub(crate) quality: Quality,
    queue: BTreeMap<(Timestamp, u64), InFlight>,
    sent: u64,
    /// The latest datagrams, also those that were lost; a ring.
    seen: Vec<InFlight>,
    overheard: usize,
    /// Somebody listens.
    overhears: bool,
}

impl Network {
    /// An empty network, with or without an attacker.
    #[must_use]
    pub(crate) fn new(quality: Quality, attacker: bool) -> Self {
        Self { quality, queue: BTreeMap::new(), sent: 0, seen: Vec::new(), overheard: 0, overhears: attacker }
    }

    /// A datagram is sent.
    ///
    /// # Panics
    /// If it shows what must be encrypted.
    pub(crate) fn send(&mut self, now: Timestamp, rng: &mut Rng, datagram: InFlight) {
        assert_nothing_shows(&datagram);
        if self.overhears {
            match self.seen.get_mut(self.overheard % MEMORY) {
                Some(old) => *old = datagram.clone(),
                None => self.seen.push(datagram.clone()),
            }
            self.overheard += 1;
        }
        if rng.chance(self.quality.loss) {
            return;
        }
        if rng.chance(self.quality.duplication) {
            self.deliver(now, rng, datagram.clone());
        }
        self.deliver(now, rng, datagram);
    }

    fn deliver(&mut self, now: Timestamp, rng: &mut Rng, mut datagram: InFlight) {
        if rng.chance(self.quality.corruption) {
            damage(rng, &mut datagram.payload);
        }
        self.sent += 1;
        let (least, most) = self.quality.delay;
        self.queue.insert((now + rng.millis(least, most), self.sent), datagram);
    }

    /// The attacker sends what was seen before: as it was, from another port, or changed.
    pub(crate) fn attack(&mut self, now: Timestamp, rng: &mut Rng) {
        if self.seen.is_empty() {
            return;
        }
        let mut datagram = self.seen[rng.below(self.seen.len() as u64) as usize].clone();
        match rng.below(3) {
            0 => {}
            1 if datagram.source.port() != 0 => datagram.source.set_port(1024 + rng.below(60_000) as u16),
            _ => flip(rng, &mut datagram.payload),
        }
        self.sent += 1;
        let (least, most) = self.quality.delay;
        self.queue.insert((now + rng.millis(least, most), self.sent), datagram);
    }

    /// When the next datagram arrives.
    #[must_use]
    pub(crate) fn next_arrival(&self) -> Option<Timestamp> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a datagram that has arrived.
    pub(crate) fn receive(&mut self, now: Timestamp) -> Option<InFlight> {
        self.next_arrival().filter(|at| *at <= now)?;
        self.queue.pop_first().map(|(_, datagram)| datagram)
    }
}

/// Changes up to three bits.
fn flip(rng: &mut Rng, payload: &mut [u8]) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(payload.len() as u64) as usize;
        payload[at] ^= 1 << rng.below(8);
    }
}

/// What a bad line does: changed bits, an end that is missing, or one too many.
fn damage(rng: &mut Rng, payload: &mut Vec<u8>) {
    match rng.below(4) {
        0 => payload.truncate(1 + rng.below(payload.len() as u64) as usize),
        1 => payload.extend((0..=rng.below(40)).map(|n| (n * 37) as u8)),
        _ => flip(rng, payload),
    }
}

const MAIN_MODE: u8 = 2;
const AGGRESSIVE: u8 = 4;
const INFORMATIONAL: u8 = 5;
/// Payload types (RFC 2408 3.1).
const SA: u8 = 1;
const KEY_EXCHANGE: u8 = 4;
const NOTIFICATION: u8 = 11;
/// The bit of the flags (RFC 2408 3.1).
const ENCRYPTED: u8 = 1;

/// What is sent is an ESP packet, a keepalive, or an ISAKMP message that is encrypted from where it must be.
fn assert_nothing_shows(datagram: &InFlight) {
    let payload = &datagram.payload[..];
    let message = match (datagram.source.port(), payload) {
        (0, _) | (_, [0xff]) => return,
        (4500, [0, 0, 0, 0, message @ ..]) => message,
        // In UDP behind its SPI.
        (4500, _) => return,
        (_, message) => message,
    };
    let (first, exchange, flags) = (message[16], message[18], message[19]);
    let may_show = match exchange {
        // Identities and hashes come after the key exchange.
        MAIN_MODE => [SA, KEY_EXCHANGE].contains(&first),
        // Identities and hashes go with it, but not in message 3.
        AGGRESSIVE => first == SA,
        // A refusal before there are keys. A delete is always encrypted.
        INFORMATIONAL => first == NOTIFICATION,
        _ => false,
    };
    assert!(may_show || flags & ENCRYPTED != 0, "exchange {exchange}, payload {first} in the clear: {datagram:?}");
}
