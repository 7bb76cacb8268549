//! From protected packets of the wire to clear ones.

use super::gather::Gather;
use super::{SharedState, decide};
use crate::ah;
use crate::esp::inbound::{Authenticated, Candidate, Fresh, authenticate, check, commit};
use crate::esp::spi;
use crate::esp::transport::Outer;
use crate::event::{Event, IkeDatagram};
use crate::headers::{Fragment, Headers};
use crate::mtu::RateLimit;
use crate::packet::{Packet, Pool};
use crate::sa::InboundSa;
use crate::shared::Shared;
use core::iter::from_fn;
use core::mem;
use policy::cache::{CacheEntry, CacheKey, Reader};
use policy::counters::{Counter, DropReason, WorkerCounters};
use policy::five_tuple::Direction;
use policy::sa::SaProtocol;
use policy::sad;
use policy::spd::{Decision, Spd};
use policy::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;

/// What comes before IKE messages where ESP shares the port: an SPI of 0 (RFC 3948 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// A NAT keepalive (RFC 3948 2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// Octets of the longest IKE message that is handed over, on either port: the
/// longest in use, with chains of certificates, stay well below. Messages may
/// have to wait for the daemon, and strangers can send them.
pub const LONGEST_IKE_MESSAGE: usize = 16 * 1024;

/// What arrived on the wire.
#[derive(Debug)]
pub struct Arrival {
    /// An ESP packet, or the payload of a UDP datagram.
    pub packet: Packet,
    /// Where it was sent; port 0 without UDP.
    pub local: SocketAddr,
    /// Where it came from; port 0 without UDP.
    pub remote: SocketAddr,
    /// Whether it came in UDP.
    pub encapsulated: bool,
    /// ESP, or what else comes in UDP; or AH, and then the packet is whole, from its IP header.
    pub protocol: SaProtocol,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// Its hop limit.
    pub hop_limit: u8,
}

/// What comes out of a batch. The I/O moves it and reports back with
/// [`Inbound::delivered`] or [`Inbound::delivery_failed`].
#[derive(Debug, Default)]
pub struct InboundOutput {
    /// Inner packets for the TUN interface; those of one SA are in order.
    pub deliver: Vec<Packet>,
    /// For the daemon.
    pub events: Vec<Event>,
}

/// The inbound direction of one worker.
#[derive(Debug)]
pub struct Inbound {
    shared: Arc<SharedState>,
    cache: Reader,
    sas: sad::Reader,
    worker: usize,
    pool: Pool,
    unknown_spis: RateLimit,
    gather: Gather,
    // Emptied after each batch; kept for their memory.
    protected: Vec<Protected>,
    candidates: Vec<Candidate>,
    authenticated: Vec<Authenticated>,
    fresh: Vec<Fresh>,
    inner: Vec<Packet>,
    keys: Vec<CacheKey>,
    found: Vec<Option<CacheEntry>>,
    accepted: Vec<Packet>,
}

/// An ESP packet with its SPI.
#[derive(Debug)]
struct Protected {
    spi: u32,
    /// Place in the batch.
    order: usize,
    arrival: Arrival,
}

impl Inbound {
    /// The inbound direction of worker number `worker`, which keeps up to
    /// `pool` free buffers.
    #[must_use]
    pub fn new(shared: Arc<Shared>, worker: usize, pool: usize) -> Self {
        Self {
            cache: shared.cache.reader(),
            sas: shared.inbound.reader(),
            shared: Arc::new(SharedState(shared)),
            worker,
            pool: Pool::new(pool),
            unknown_spis: RateLimit::new(1, 1),
            gather: Gather::default(),
            protected: Vec::new(),
            candidates: Vec::new(),
            authenticated: Vec::new(),
            fresh: Vec::new(),
            inner: Vec::new(),
            keys: Vec::new(),
            found: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// An empty buffer to receive a packet into.
    pub fn buffer(&mut self) -> Packet {
        self.pool.take()
    }

    /// Takes back a buffer that was not used.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.give(packet);
    }

    /// Processes a batch of arrivals; empties it.
    pub fn handle_batch(&mut self, batch: &mut Vec<Arrival>, now: Timestamp, out: &mut InboundOutput) {
        for (order, arrival) in batch.drain(..).enumerate() {
            if arrival.encapsulated && !Self::is_esp(arrival.packet.as_slice()) {
                self.handle_other(arrival, out);
                continue;
            }
            let spi = match arrival.protocol {
                SaProtocol::Esp => spi(&arrival.packet),
                SaProtocol::Ah => ah::place(arrival.packet.as_slice()).map(|ah| ah.spi),
            };
            match spi {
                Some(spi) => self.protected.push(Protected { spi, order, arrival }),
                None => self.drop_packet(arrival.packet, DropReason::BadLength),
            }
        }
        let shared = Arc::clone(&self.shared);
        let (sad, spd) = (shared.inbound.pin(&mut self.sas), shared.spd.load());
        self.protected.iter().for_each(|p| sad.prefetch(p.spi));
        self.expire_fragments(now);
        let mut protected = mem::take(&mut self.protected);
        protected.sort_unstable_by_key(|p| (p.spi, p.order));
        let mut rest = protected.drain(..).peekable();
        while let Some(spi) = rest.peek().map(|p| p.spi) {
            let run = from_fn(|| rest.next_if(|p| p.spi == spi)).map(|p| p.arrival);
            match sad.find(spi) {
                Some(sa) => self.open_run(sa, run, &spd, now, out),
                None => self.unknown_spi(spi, run, now, out),
            }
        }
        drop(rest);
        self.protected = protected;
    }

    /// The packet was handed to the TUN interface.
    pub fn delivered(&mut self, packet: Packet) {
        self.counters().add(Counter::Received, 1);
        self.counters().add(Counter::ReceivedOctets, packet.len() as u64);
        self.pool.give(packet);
    }

    /// The TUN interface did not take the packet.
    pub fn delivery_failed(&mut self, packet: Packet) {
        self.drop_packet(packet, DropReason::DeliveryFailed);
    }

    /// A packet for a host behind us went nowhere, for this reason.
    pub fn discarded(&mut self, packet: Packet, reason: DropReason) {
        self.drop_packet(packet, reason);
    }

    /// A datagram that the buffer was too short for.
    pub fn truncated(&mut self, packet: Packet) {
        self.drop_packet(packet, DropReason::BadLength);
    }

    /// `count` datagrams that the kernel dropped before they could be received.
    pub fn lost(&mut self, count: u32) {
        self.counters().dropped(DropReason::ReceiveBufferFull, count.into());
    }

    /// An IKE message was handed to the daemon.
    pub fn ike_handed_over(&mut self) {
        self.counters().add(Counter::IkeHandedOver, 1);
    }

    /// The daemon is too far behind to take an IKE message.
    pub fn ike_refused(&mut self) {
        self.counters().dropped(DropReason::IkeQueueFull, 1);
    }

    /// Whether a UDP payload is ESP (RFC 3948 2.1): no keepalive, and no non-ESP marker.
    fn is_esp(octets: &[u8]) -> bool {
        octets.len() >= NON_ESP_MARKER.len() && !octets.starts_with(&NON_ESP_MARKER)
    }

    /// What shares the port with ESP.
    fn handle_other(&mut self, arrival: Arrival, out: &mut InboundOutput) {
        let Arrival { packet, local, remote, .. } = arrival;
        if let Some(message) = packet.as_slice().strip_prefix(&NON_ESP_MARKER) {
            if message.len() > LONGEST_IKE_MESSAGE {
                self.drop_packet(packet, DropReason::IkeTooLong);
                return;
            }
            out.events.push(Event::Ike(IkeDatagram { local, remote, message: message.to_vec() }));
            self.pool.give(packet);
        } else if packet.as_slice() == KEEPALIVE {
            self.counters().add(Counter::Keepalives, 1);
            self.pool.give(packet);
        } else {
            self.drop_packet(packet, DropReason::BadLength);
        }
    }

    fn open_run(
        &mut self,
        sa: &InboundSa,
        run: impl Iterator<Item = Arrival>,
        spd: &Spd,
        now: Timestamp,
        out: &mut InboundOutput,
    ) {
        let encapsulated = sa.spec().encapsulation.is_some();
        let (protocol, otherwise) = match sa.outside() {
            Some(_) => (SaProtocol::Ah, DropReason::BundleIncomplete),
            None => (sa.spec().protocol, DropReason::EncapsulationMismatch),
        };
        let (pool, counters) = (&mut self.pool, self.shared.counters.worker(self.worker));
        let mut dropped = |packet, reason| {
            counters.dropped(reason, 1);
            pool.give(packet);
        };
        let mut mismatched = Vec::new();
        let expected = run.filter_map(|arrival| {
            if arrival.encapsulated == encapsulated && arrival.protocol == protocol {
                let outer = Outer { traffic_class: arrival.traffic_class, hop_limit: arrival.hop_limit };
                Some((arrival.packet, outer, arrival.remote))
            } else {
                mismatched.push(arrival.packet);
                None
            }
        });
        check(sa.outside().unwrap_or(sa), expected, &mut self.candidates, &mut dropped);
        for packet in mismatched {
            dropped(packet, otherwise);
        }
        if let Some(ah) = sa.outside() {
            authenticate(ah, &mut self.candidates, &mut self.authenticated, &mut dropped);
            commit(ah, &mut self.authenticated, &mut self.fresh, &mut dropped);
            let mut inside = Vec::with_capacity(self.fresh.len());
            for fresh in self.fresh.drain(..) {
                match fresh.into_esp(sa) {
                    Ok(esp) => inside.push(esp),
                    Err((packet, reason)) => dropped(packet, reason),
                }
            }
            check(sa, inside.into_iter(), &mut self.candidates, &mut dropped);
        }
        authenticate(sa, &mut self.candidates, &mut self.authenticated, &mut dropped);
        let newest = commit(sa, &mut self.authenticated, &mut self.fresh, &mut dropped);
        if let Some(remote) = newest.filter(|_| encapsulated)
            && sa.is_elsewhere(remote, now)
        {
            out.events.push(Event::PeerMoved { pair: sa.spec().pair, remote });
        }
        let (inner, keys) = (&mut self.inner, &mut self.keys);
        let mut to_decide = |packet, headers: Headers| {
            inner.push(packet);
            keys.push(CacheKey::new(headers.tuple, Direction::Inbound));
        };
        for fresh in self.fresh.drain(..) {
            match fresh.into_inner(sa) {
                Ok((packet, headers))
                    if headers.fragment != Fragment::Whole
                        && spd.looks_at_ports(&headers.tuple, Direction::Inbound) =>
                {
                    self.gather.add(sa.tunnel(), packet, headers, now, &mut to_decide, &mut dropped);
                }
                Ok((packet, headers)) => to_decide(packet, headers),
                Err((packet, reason)) => dropped(packet, reason),
            }
        }
        self.check_policies(sa, spd, now, out);
        let (pool, counters) = (&mut self.pool, self.shared.counters.worker(self.worker));
        let lens = self.accepted.iter().map(Packet::len);
        if let Some(ah) = sa.outside() {
            // As much as its ESP, so that both have the same left.
            ah.charge(lens.clone(), now, &mut |event| out.events.push(event.into()));
        }
        let charged = sa.charge(lens, now, &mut |event| out.events.push(event.into()));
        for packet in self.accepted.drain(charged..) {
            counters.dropped(DropReason::SaExpired, 1);
            pool.give(packet);
        }
        out.deliver.append(&mut self.accepted);
    }

    /// Of the packets that came through a tunnel, accepts those which the ordered
    /// policies would protect in that tunnel (RFC 4301 5.2 step 4): of nested
    /// tunnels, the peer of the wider one must not speak for the narrower. Nor is
    /// anything accepted that is to come in the clear: what answers it would leave
    /// in the clear too. What has an SA pair of its own comes through no other, and nothing
    /// else through that.
    fn check_policies(&mut self, sa: &InboundSa, spd: &Spd, now: Timestamp, out: &mut InboundOutput) {
        let tunnel = sa.tunnel();
        let expected = match sa.spec().session {
            None => Decision::Protect { tunnel },
            Some(_) => Decision::ProtectExclusive { tunnel },
        };
        let shared = Arc::clone(&self.shared);
        let (pool, counters) = (&mut self.pool, shared.counters.worker(self.worker));
        self.found.resize(self.keys.len(), None);
        self.cache.look_up_batch(&self.keys, spd.epoch(), now, &mut self.found);
        for ((packet, key), found) in self.inner.drain(..).zip(self.keys.drain(..)).zip(self.found.drain(..)) {
            let entry = found.map_or_else(|| decide(&mut self.cache, spd, &key, now, &mut out.events), Ok);
            let refused = match entry {
                Ok(CacheEntry { decision, .. }) if decision == expected => {
                    self.accepted.push(packet);
                    continue;
                }
                Ok(CacheEntry { decision: Decision::Discard, reason, .. }) => {
                    reason.unwrap_or(DropReason::PolicyDiscard)
                }
                Ok(CacheEntry { decision, .. }) if decision.tunnel() == Some(tunnel) => DropReason::WrongSession,
                Ok(_) => DropReason::WrongTunnel,
                Err(reason) => reason,
            };
            counters.dropped(refused, 1);
            pool.give(packet);
        }
        self.cache.count();
    }

    /// Drops fragments whose others have not come.
    fn expire_fragments(&mut self, now: Timestamp) {
        let (pool, counters) = (&mut self.pool, self.shared.counters.worker(self.worker));
        self.gather.expire(now, &mut |packet, reason| {
            counters.dropped(reason, 1);
            pool.give(packet);
        });
    }

    fn unknown_spi(&mut self, spi: u32, run: impl Iterator<Item = Arrival>, now: Timestamp, out: &mut InboundOutput) {
        for arrival in run {
            if self.unknown_spis.allow(now) {
                let Arrival { protocol, remote, .. } = arrival;
                out.events.push(Event::UnknownSpi { spi, protocol, local: arrival.local.ip(), remote });
            }
            self.drop_packet(arrival.packet, DropReason::UnknownSpi);
        }
    }

    fn drop_packet(&mut self, packet: Packet, reason: DropReason) {
        self.counters().dropped(reason, 1);
        self.pool.give(packet);
    }

    fn counters(&self) -> &WorkerCounters {
        self.shared.counters.worker(self.worker)
    }
}
