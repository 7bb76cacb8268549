//! Packets that arrive in the clear from the outside, for hosts behind a gateway.

use super::decide;
use super::gather::Gather;
use crate::event::Event;
use crate::headers::{Fragment, Headers};
use crate::mtu::fit::{Fit, fit};
use crate::mtu::icmp::{self, Trouble};
use crate::mtu::{RateLimit, fragment};
use crate::packet::{Packet, Pool};
use crate::shared::Shared;
use policy::cache::{CacheEntry, CacheKey, Reader};
use policy::counters::{Counter, DropReason};
use policy::five_tuple::Direction;
use policy::spd::{Decision, is_link_control};
use policy::time::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;

/// ICMP answers: a second, and at once.
const ANSWERS: (u32, u32) = (100, 50);

/// What comes out of a batch. The I/O moves it, and reports back with [`Cleartext::passed`],
/// [`Cleartext::too_big`] or [`Cleartext::discarded`].
#[derive(Debug, Default)]
pub struct CleartextOutput {
    /// Packets for hosts behind us.
    pub pass: Vec<Packet>,
    /// ICMP messages to senders outside; they need no counting.
    pub replies: Vec<Packet>,
    /// For the daemon.
    pub events: Vec<Event>,
}

/// Clear packets from the outside, for one worker: what a policy protects is not accepted so (RFC 4301 5.2).
#[derive(Debug)]
pub struct Cleartext {
    shared: Arc<Shared>,
    cache: Reader,
    worker: usize,
    pool: Pool,
    gather: Gather,
    answers: RateLimit,
    // Emptied after each batch; kept for their memory.
    parsed: Vec<(Packet, Headers)>,
    keys: Vec<CacheKey>,
    found: Vec<Option<CacheEntry>>,
}

impl Cleartext {
    /// For worker number `worker`, which keeps up to `pool` free buffers.
    #[must_use]
    pub fn new(shared: Arc<Shared>, worker: usize, pool: usize) -> Self {
        Self {
            cache: shared.cache.reader(),
            shared,
            worker,
            pool: Pool::new(pool),
            gather: Gather::default(),
            answers: RateLimit::new(ANSWERS.0, ANSWERS.1),
            parsed: Vec::new(),
            keys: Vec::new(),
            found: Vec::new(),
        }
    }

    /// An empty buffer to read a packet into.
    pub fn buffer(&mut self) -> Packet {
        self.pool.take()
    }

    /// Takes a buffer back whose packet needs no counting.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.give(packet);
    }

    /// Decides on a batch of packets, each from its IP header; empties it.
    pub fn handle_batch(&mut self, batch: &mut Vec<Packet>, now: Timestamp, out: &mut CleartextOutput) {
        let shared = Arc::clone(&self.shared);
        let (spd, counters) = (shared.spd.load(), shared.counters.worker(self.worker));
        let (pool, gather) = (&mut self.pool, &mut self.gather);
        let mut dropped = |packet, reason| {
            counters.dropped(reason, 1);
            pool.give(packet);
        };
        let (keys, parsed) = (&mut self.keys, &mut self.parsed);
        let mut complete = |packet, headers: Headers| {
            keys.push(CacheKey::new(headers.tuple, Direction::Inbound));
            parsed.push((packet, headers));
        };
        gather.expire(now, &mut dropped);
        for mut packet in batch.drain(..) {
            match Headers::parse(packet.as_slice()) {
                Err(_) => dropped(packet, DropReason::Malformed),
                Ok(headers) => {
                    packet.truncate(headers.total_len);
                    if headers.fragment != Fragment::Whole && spd.looks_at_ports(&headers.tuple, Direction::Inbound) {
                        gather.add(0, packet, headers, now, &mut complete, &mut dropped);
                    } else {
                        complete(packet, headers);
                    }
                }
            }
        }
        self.found.resize(self.keys.len(), None);
        self.cache.look_up_batch(&self.keys, spd.epoch(), now, &mut self.found);
        for (((packet, headers), key), found) in
            self.parsed.drain(..).zip(self.keys.drain(..)).zip(self.found.drain(..))
        {
            let entry = found.map_or_else(|| decide(&mut self.cache, &spd, &key, now, &mut out.events), Ok);
            let refused = match entry {
                Ok(CacheEntry { decision: Decision::Bypass | Decision::Pass, .. })
                    if is_link_control(&headers.tuple) =>
                {
                    DropReason::LinkScope
                }
                Ok(CacheEntry { decision: Decision::Bypass | Decision::Pass, .. }) => {
                    out.pass.push(packet);
                    continue;
                }
                Ok(CacheEntry { decision: Decision::Discard, reason, .. }) => {
                    reason.unwrap_or(DropReason::PolicyDiscard)
                }
                Ok(CacheEntry { decision: Decision::Protect { .. } | Decision::ProtectExclusive { .. }, .. }) => {
                    DropReason::ClearTextProtected
                }
                Err(reason) => reason,
            };
            dropped(packet, refused);
        }
        self.cache.count();
    }

    /// A packet was handed on.
    pub fn passed(&mut self, packet: Packet) {
        self.shared.counters.worker(self.worker).add(Counter::BypassedIn, 1);
        self.pool.give(packet);
    }

    /// A packet went nowhere, for this reason.
    pub fn discarded(&mut self, packet: Packet, reason: DropReason) {
        self.shared.counters.worker(self.worker).dropped(reason, 1);
        self.pool.give(packet);
    }

    /// A packet is too big for where it goes: it comes out again in fragments, or its sender is told.
    pub fn too_big(&mut self, packet: Packet, mtu: u16, now: Timestamp, out: &mut CleartextOutput) {
        let Ok(headers) = Headers::parse(packet.as_slice()) else {
            return self.discarded(packet, DropReason::Malformed);
        };
        let Fit::Fragments(mtu) = fit(&headers, mtu, false) else {
            self.tell(&packet, Trouble::TooBig(mtu), None, now, out);
            return self.discarded(packet, DropReason::TooBig);
        };
        let Ok(mut fragments) = fragment::Fragments::new(packet.as_slice(), mtu) else {
            return self.discarded(packet, DropReason::TooBig);
        };
        let mut made = 0;
        loop {
            let mut part = self.pool.take();
            let Some(len) = fragments.next_into(part.room()) else {
                self.pool.give(part);
                break;
            };
            part.set_len(len);
            out.pass.push(part);
            made += 1;
        }
        self.shared.counters.worker(self.worker).add(Counter::FragmentsAdded, made - 1);
        self.pool.give(packet);
    }

    /// Tells a packet's sender what became of it, from an address of ours, within the rate; and only if the policies
    /// let that go in the clear.
    pub fn tell(
        &mut self,
        packet: &Packet,
        trouble: Trouble,
        from: Option<IpAddr>,
        now: Timestamp,
        out: &mut CleartextOutput,
    ) {
        let mut reply = self.pool.take();
        if let Ok(len) = icmp::tell(packet.as_slice(), trouble, from, reply.room()) {
            reply.set_len(len);
            let passes = Headers::parse(reply.as_slice()).is_ok_and(|headers| {
                let verdict = self.shared.spd.load().decide(&headers.tuple, Direction::Outbound);
                matches!(verdict.decision, Decision::Bypass | Decision::Pass)
            });
            if passes && self.answers.allow(now) {
                return out.replies.push(reply);
            }
        }
        self.pool.give(reply);
    }

    /// Drops what waits for other fragments, since the worker ends.
    pub fn shut_down(&mut self) {
        let (pool, counters) = (&mut self.pool, self.shared.counters.worker(self.worker));
        self.gather.shut_down(&mut |packet, reason| {
            counters.dropped(reason, 1);
            pool.give(packet);
        });
    }
}
