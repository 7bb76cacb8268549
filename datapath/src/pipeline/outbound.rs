//! From clear packets of the TUN interface to protected ones.

use super::gather::Gather;
use super::hold::{Held, HoldQueues, Waiting};
use super::{SharedState, decide};
use crate::ah;
use crate::esp::outbound::{Inner, Run, Sealed, seal};
use crate::esp::transport;
use crate::event::Event;
use crate::fragment::Whole;
use crate::headers::{Fragment, Headers};
use crate::mtu::fit::{Fit, fit};
use crate::mtu::{RateLimit, fragment, icmp};
use crate::packet::{Packet, Pool};
use crate::sa::OutboundSa;
use crate::sessions::Lane;
use crate::shared::Shared;
use core::iter::from_fn;
use core::mem;
use policy::cache::{CacheEntry, CacheKey, Reader};
use policy::config::StartMode;
use policy::counters::{Counter, DropReason, WorkerCounters};
use policy::five_tuple::{Direction, FiveTuple};
use policy::sa::{Mode, SaProtocol};
use policy::sad;
use policy::session::Session;
use policy::spd::{Decision, Spd, is_link_control};
use policy::time::Timestamp;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// ICMP answers to packets that do not fit: a second, and at once.
const ANSWERS: (u32, u32) = (100, 50);
/// Of the cached decisions to go in the clear, one in this many is checked
/// against the policies themselves.
const CLEAR_CHECK_INTERVAL: u32 = 64;

/// The outbound direction of one worker.
#[derive(Debug)]
pub struct Outbound {
    shared: Arc<SharedState>,
    cache: Reader,
    sas: sad::Reader,
    worker: usize,
    pool: Pool,
    holds: HoldQueues,
    gather: Gather,
    answers: RateLimit,
    clear_from_cache: u32,
    // Emptied after each batch; kept for their memory.
    parsed: Vec<(Packet, Headers)>,
    keys: Vec<CacheKey>,
    found: Vec<Option<CacheEntry>>,
    protect: Vec<Protect>,
    /// Those that packets of `protect` are of.
    sessions: Vec<Session>,
    inner: Vec<Inner>,
}

/// A packet that goes into a tunnel.
#[derive(Debug)]
struct Protect {
    tunnel: u32,
    /// Place in `sessions`, from 1; 0: it shares the tunnel's SA.
    session: usize,
    /// Place in the batch.
    order: usize,
    packet: Packet,
    headers: Headers,
}

/// A packet that a policy lets go in the clear. Only the pipeline makes it.
#[derive(Debug)]
pub struct Clear {
    packet: Packet,
    headers: Headers,
}

impl Clear {
    /// The packet, from its IP header.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.packet.as_slice()
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.headers.tuple.destination
    }

    /// The packet, for whoever forwards it himself, and tells of it by [`Outbound::passed`],
    /// [`Outbound::discarded`] or [`Outbound::passed_too_big`].
    #[must_use]
    pub fn into_packet(self) -> Packet {
        self.packet
    }
}

/// What comes out of a batch. The I/O moves it and reports back with
/// [`Outbound::sent`], [`Outbound::send_failed`] and their like.
#[derive(Debug, Default)]
pub struct OutboundOutput {
    /// Protected packets for the wire; those of one SA are in order.
    pub sealed: Vec<Sealed>,
    /// What SAs protected them: together they say so of each of `sealed`, in that order. Where there are
    /// [turns](Run::turn) the packets are to be sent in this order.
    pub runs: Vec<Run>,
    /// Packets for the wire as they are.
    pub clear: Vec<Clear>,
    /// ICMP messages for the TUN interface, to the senders of packets that do not fit.
    pub replies: Vec<Packet>,
    /// For the daemon.
    pub events: Vec<Event>,
}

impl OutboundOutput {
    /// Takes the protected packets, each with its SA, without regard for turns.
    pub fn take_sealed(&mut self, mut each: impl FnMut(Sealed, &Arc<OutboundSa>)) {
        let mut sealed = self.sealed.drain(..);
        for run in self.runs.drain(..) {
            sealed.by_ref().take(run.packets).for_each(|s| each(s, &run.sa));
        }
    }
}

impl Outbound {
    /// The outbound direction of worker number `worker`, which keeps up to
    /// `pool` free buffers.
    #[must_use]
    pub fn new(shared: Arc<Shared>, worker: usize, pool: usize) -> Self {
        Self {
            cache: shared.cache.reader(),
            sas: shared.outbound.reader(),
            shared: Arc::new(SharedState(shared)),
            worker,
            pool: Pool::new(pool),
            holds: HoldQueues::default(),
            gather: Gather::default(),
            answers: RateLimit::new(ANSWERS.0, ANSWERS.1),
            clear_from_cache: 0,
            parsed: Vec::new(),
            keys: Vec::new(),
            found: Vec::new(),
            protect: Vec::new(),
            sessions: Vec::new(),
            inner: Vec::new(),
        }
    }

    /// An empty buffer to read a packet into.
    pub fn buffer(&mut self) -> Packet {
        self.pool.take()
    }

    /// Takes a buffer back whose packet needs no counting: an ICMP reply, or one never used.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.give(packet);
    }

    /// What the TUN interface gave is no packet.
    pub fn malformed(&mut self, packet: Packet) {
        self.drop_packet(packet, DropReason::Malformed);
    }

    /// Processes a batch of packets, each from its IP header; empties it.
    pub fn handle_batch(&mut self, batch: &mut Vec<Packet>, now: Timestamp, out: &mut OutboundOutput) {
        self.gather.expire(now, &mut dropping(&mut self.pool, self.shared.counters.worker(self.worker)));
        // Those that waited for an SA which is there by now go first.
        self.release_ready(now, out);
        self.process(batch.drain(..), now, out);
        self.release_ready(now, out);
    }

    /// The SA of a tunnel or session is there: sends what waits for it, the oldest first.
    pub fn release(&mut self, lane: impl Into<Lane>, now: Timestamp, out: &mut OutboundOutput) {
        let packets = self.answered(lane.into());
        self.process_held(packets, now, out);
    }

    /// There will be no SA for a tunnel or session: drops what waits for it. The next
    /// packet asks again.
    pub fn fail(&mut self, lane: impl Into<Lane>) {
        let packets = self.answered(lane.into());
        for Waiting { packet, .. } in packets {
            self.drop_packet(packet, DropReason::NegotiationFailed);
        }
    }

    /// The policies were replaced: decides anew what becomes of packets that wait.
    pub fn policies_replaced(&mut self, now: Timestamp, out: &mut OutboundOutput) {
        let spd = self.shared.spd.load_full();
        for lane in self.holds.lanes() {
            let gone = spd.tunnel(lane.tunnel).is_none();
            let packets = if gone { self.answered(lane) } else { self.take_held(lane) };
            self.process_held(packets, now, out);
        }
    }

    /// Drops everything that waits, since the worker ends.
    pub fn shut_down(&mut self) {
        for lane in self.holds.lanes() {
            self.fail(lane);
        }
        self.gather.shut_down(&mut dropping(&mut self.pool, self.shared.counters.worker(self.worker)));
    }

    /// Packets that wait for an SA.
    #[must_use]
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    /// A protected packet is on the wire.
    pub fn sent(&mut self, sealed: Sealed) {
        self.counters().add(Counter::Sent, 1);
        self.counters().add(Counter::SentOctets, sealed.inner_len as u64);
        self.pool.give(sealed.packet);
    }

    /// A protected packet could not be sent.
    pub fn send_failed(&mut self, sealed: Sealed) {
        self.drop_packet(sealed.packet, DropReason::SendFailed);
    }

    /// A protected packet was longer than its path carries by now.
    pub fn path_shrunk(&mut self, sealed: Sealed) {
        self.drop_packet(sealed.packet, DropReason::PathMtuShrunk);
    }

    /// A packet left in the clear.
    pub fn clear_sent(&mut self, clear: Clear) {
        self.counters().add(Counter::BypassedOut, 1);
        self.pool.give(clear.packet);
    }

    /// A packet could not be sent in the clear.
    pub fn clear_failed(&mut self, clear: Clear) {
        self.drop_packet(clear.packet, DropReason::SendFailed);
    }

    /// A packet is too big for the path it takes in the clear: it comes out
    /// again in fragments, or its sender is told.
    pub fn clear_too_big(&mut self, clear: Clear, mtu: u16, now: Timestamp, out: &mut OutboundOutput) {
        let Clear { packet, headers } = clear;
        match fit(&headers, mtu, false) {
            Fit::Fragments(mtu) => {
                self.fragment(packet, mtu, &mut |fragment| {
                    // A fragment of ours is a packet we can read.
                    if let Ok(headers) = Headers::parse(fragment.as_slice()) {
                        out.clear.push(Clear { packet: fragment, headers });
                    }
                });
            }
            Fit::TooBig(mtu) => self.too_big(packet, mtu, now, &mut out.replies),
            // It fits what the path is said to carry, and yet was refused.
            Fit::Whole | Fit::OuterFragments => self.drop_packet(packet, DropReason::SendFailed),
        }
    }

    /// The packet of a [`Clear`] was forwarded.
    pub fn passed(&mut self, packet: Packet) {
        self.counters().add(Counter::BypassedOut, 1);
        self.pool.give(packet);
    }

    /// A packet went nowhere, for this reason: that of a [`Clear`], or one that was not handed in.
    pub fn discarded(&mut self, packet: Packet, reason: DropReason) {
        self.drop_packet(packet, reason);
    }

    /// The packet of a [`Clear`] is too big for where it goes: as [`Self::clear_too_big`].
    pub fn passed_too_big(&mut self, packet: Packet, mtu: u16, now: Timestamp, out: &mut OutboundOutput) {
        match Headers::parse(packet.as_slice()) {
            Ok(headers) => self.clear_too_big(Clear { packet, headers }, mtu, now, out),
            Err(_) => self.drop_packet(packet, DropReason::Malformed),
        }
    }

    /// Tunnels for whose SA packets wait, or the daemon was asked.
    #[cfg(test)]
    pub(super) fn tunnels_waited_for(&self) -> Vec<u32> {
        self.holds.lanes().iter().map(|lane| lane.tunnel).collect()
    }

    fn release_ready(&mut self, now: Timestamp, out: &mut OutboundOutput) {
        if self.holds.is_empty() {
            return;
        }
        for lane in self.holds.lanes() {
            if self.shared.has(&lane) {
                let packets = self.take_held(lane);
                self.process_held(packets, now, out);
            }
        }
    }

    fn answered(&mut self, lane: Lane) -> VecDeque<Waiting> {
        let packets = self.holds.answered(lane);
        self.shared.count_held(lane.tunnel, 0, packets.len() as u64);
        if lane.session.is_some() {
            self.shared.sessions.answered(&lane);
        }
        packets
    }

    fn take_held(&mut self, lane: Lane) -> VecDeque<Waiting> {
        let packets = self.holds.take(lane);
        self.shared.count_held(lane.tunnel, 0, packets.len() as u64);
        packets
    }

    /// Packets that waited.
    fn process_held(&mut self, packets: VecDeque<Waiting>, now: Timestamp, out: &mut OutboundOutput) {
        let shared = Arc::clone(&self.shared);
        let spd = shared.spd.load();
        for Waiting { packet, epoch } in packets {
            self.parse(packet, &spd, now);
            for key in &self.keys[self.found.len()..] {
                self.found.push(if epoch == spd.epoch() {
                    self.cache.look_up_again(key, epoch, now)
                } else {
                    self.cache.look_up(key, spd.epoch(), now)
                });
            }
        }
        self.decide_all(&spd, now, out);
    }

    /// Parse, look up, decide, act.
    fn process(&mut self, packets: impl IntoIterator<Item = Packet>, now: Timestamp, out: &mut OutboundOutput) {
        let shared = Arc::clone(&self.shared);
        let spd = shared.spd.load();
        for packet in packets {
            self.parse(packet, &spd, now);
        }
        self.found.resize(self.keys.len(), None);
        self.cache.look_up_batch(&self.keys, spd.epoch(), now, &mut self.found);
        self.decide_all(&spd, now, out);
    }

    /// Reads the headers of a packet. A fragment on which policies cannot decide
    /// by itself comes with the others of its packet, or later, or not at all.
    fn parse(&mut self, mut packet: Packet, spd: &Spd, now: Timestamp) {
        let Ok(headers) = Headers::parse(packet.as_slice()) else {
            return self.drop_packet(packet, DropReason::Malformed);
        };
        packet.truncate(headers.total_len);
        let (keys, parsed) = (&mut self.keys, &mut self.parsed);
        let mut complete = |packet, headers: Headers| {
            keys.push(CacheKey::new(headers.tuple, Direction::Outbound));
            parsed.push((packet, headers));
        };
        if headers.fragment == Fragment::Whole || !spd.looks_at_ports(&headers.tuple, Direction::Outbound) {
            return complete(packet, headers);
        }
        let mut dropped = dropping(&mut self.pool, self.shared.counters.worker(self.worker));
        self.gather.add(0, packet, headers, now, &mut complete, &mut dropped);
    }

    fn decide_all(&mut self, spd: &Spd, now: Timestamp, out: &mut OutboundOutput) {
        let mut parsed = mem::take(&mut self.parsed);
        for (order, (packet, headers)) in parsed.drain(..).enumerate() {
            let entry = match self.found[order] {
                Some(entry) => self.check_clear(spd, entry, &headers.tuple),
                None => decide(&mut self.cache, spd, &self.keys[order], now, &mut out.events),
            };
            match entry {
                Err(reason) => self.drop_packet(packet, reason),
                Ok(CacheEntry { decision: Decision::Bypass | Decision::Pass, .. }) => {
                    // What keeps a link working passes everywhere else, but never comes from a TUN interface
                    // rightly: sent on, it would be a way around the policies, or come back for ever.
                    if is_link_control(&headers.tuple) || is_of_a_link(headers.tuple.destination) {
                        self.drop_packet(packet, DropReason::LinkScope);
                    } else {
                        out.clear.push(Clear { packet, headers });
                    }
                }
                Ok(CacheEntry { decision: Decision::Discard, reason, .. }) => {
                    self.drop_packet(packet, reason.unwrap_or(DropReason::PolicyDiscard));
                }
                Ok(CacheEntry { decision: Decision::Protect { tunnel }, .. }) => {
                    self.protect.push(Protect { tunnel, session: 0, order, packet, headers });
                }
                Ok(CacheEntry { decision: Decision::ProtectExclusive { tunnel }, .. }) => {
                    match Session::of(&headers.tuple, Direction::Outbound) {
                        Ok(session) => {
                            let session = self.place_of(session);
                            self.protect.push(Protect { tunnel, session, order, packet, headers });
                        }
                        // Such packets are not decided so.
                        Err(reason) => self.drop_packet(packet, reason),
                    }
                }
            }
        }
        self.parsed = parsed;
        self.keys.clear();
        self.found.clear();
        self.cache.count();
        self.protect_all(spd, now, out);
    }

    /// Watches the cache, on which it hangs that nothing leaves unprotected: of
    /// the decisions for the clear that come from it, some are made again.
    fn check_clear(&mut self, spd: &Spd, entry: CacheEntry, tuple: &FiveTuple) -> Result<CacheEntry, DropReason> {
        if !matches!(entry.decision, Decision::Bypass | Decision::Pass) {
            return Ok(entry);
        }
        self.clear_from_cache = (self.clear_from_cache + 1) % CLEAR_CHECK_INTERVAL;
        if self.clear_from_cache == 0 {
            let verdict = spd.decide(tuple, Direction::Outbound);
            if !matches!(verdict.decision, Decision::Bypass | Decision::Pass) {
                // Not this packet; but others of its flow may have left.
                self.counters().add(Counter::ClearTextLeaks, 1);
                return Err(verdict.reason.unwrap_or(DropReason::PolicyDiscard));
            }
        }
        Ok(entry)
    }

    /// Place of a session among those of the batch, from 1.
    fn place_of(&mut self, session: Session) -> usize {
        let known = self.sessions.iter().rposition(|s| *s == session);
        known.unwrap_or_else(|| {
            self.sessions.push(session);
            self.sessions.len() - 1
        }) + 1
    }

    /// Splits the packets to be protected by tunnel and session, in their order.
    fn protect_all(&mut self, spd: &Spd, now: Timestamp, out: &mut OutboundOutput) {
        let shared = Arc::clone(&self.shared);
        let sas = shared.outbound.pin(&mut self.sas);
        let mut protect = mem::take(&mut self.protect);
        protect.sort_unstable_by_key(|p| (p.tunnel, p.session, p.order));
        let mut rest = protect.drain(..).peekable();
        while let Some((tunnel, session)) = rest.peek().map(|p| (p.tunnel, p.session)) {
            let run = from_fn(|| rest.next_if(|p| (p.tunnel, p.session) == (tunnel, session)));
            let lane = Lane { tunnel, session: session.checked_sub(1).map(|place| self.sessions[place]) };
            // What came later must not overtake what waits.
            let sa = match lane.session {
                _ if self.holds.has(lane) => None,
                None => sas.current_kept(tunnel),
                Some(_) => self.shared.sessions.current(&lane),
            };
            match sa {
                Some(sa) => self.protect_run(&sa, run, spd, now, out),
                None => self.hold_run(lane, run, spd, out),
            }
        }
        drop(rest);
        self.protect = protect;
        self.sessions.clear();
    }

    /// Protects packets with an SA.
    fn protect_run(
        &mut self,
        sa: &Arc<OutboundSa>,
        run: impl Iterator<Item = Protect>,
        spd: &Spd,
        now: Timestamp,
        out: &mut OutboundOutput,
    ) {
        let (inner_mtu, only_whole) = (sa.inner_mtu(), sa.takes_whole_packets());
        let in_transport = sa.spec().mode == Mode::Transport;
        let carries: fn(&[u8]) -> bool = match sa.spec().protocol {
            SaProtocol::Esp => transport::carries,
            SaProtocol::Ah => ah::carries,
        };
        let mut inner = mem::take(&mut self.inner);
        let mut joined = None;
        for Protect { packet, headers, .. } in run {
            if !sa.spec().selector.matches(&headers.tuple, Direction::Outbound) {
                self.drop_packet(packet, DropReason::SelectorMismatch);
                continue;
            }
            if only_whole && headers.fragment != Fragment::Whole {
                match self.join(packet, headers, &mut joined) {
                    Some(whole) if in_transport && !carries(whole.packet.as_slice()) => {
                        self.drop_packet(whole.packet, DropReason::TransportHeaders);
                    }
                    whole => inner.extend(whole),
                }
                continue;
            }
            if in_transport && !carries(packet.as_slice()) {
                self.drop_packet(packet, DropReason::TransportHeaders);
                continue;
            }
            let whole = |packet, outer_fragments| Inner {
                packet,
                ipv4: headers.is_ipv4(),
                traffic_class: headers.traffic_class,
                dont_fragment: headers.dont_fragment,
                outer_fragments,
            };
            match fit(&headers, inner_mtu, only_whole) {
                Fit::Whole => inner.push(whole(packet, false)),
                Fit::OuterFragments => inner.push(whole(packet, true)),
                Fit::Fragments(mtu) => self.fragment(packet, mtu, &mut |f| inner.push(whole(f, false))),
                Fit::TooBig(mtu) => self.too_big(packet, mtu, now, &mut out.replies),
            }
        }
        if let Some((whole, _)) = joined {
            self.drop_packet(whole.abandon(), DropReason::FragmentPortsHidden);
        }
        let first = out.sealed.len();
        let turn = {
            let events = &mut out.events;
            let mut dropped = dropping(&mut self.pool, self.shared.counters.worker(self.worker));
            let df = spd.config().startup.df;
            seal(sa, &mut inner, df, now, &mut out.sealed, &mut dropped, &mut |event| events.push(event.into()))
        };
        self.inner = inner;
        if sa.spec().protocol == SaProtocol::Ah || sa.outside().is_some() {
            self.fragment_ah(sa.spec().remote.is_ipv4(), sa.path_mtu(), out, first);
        }
        let packets = out.sealed.len() - first;
        let turn = turn.filter(|_| self.shared.sends_in_turn());
        if packets > 0 || turn.is_some() {
            out.runs.push(Run { sa: Arc::clone(sa.outside().unwrap_or(sa)), packets, turn });
        }
    }

    /// Cuts packets of AH from the `first` on that do not fit their path and may be cut: the
    /// kernel does not do it with packets that come with their header.
    fn fragment_ah(&mut self, ipv4: bool, path_mtu: u16, out: &mut OutboundOutput, first: usize) {
        if out.sealed[first..].iter().all(|s| s.packet.len() <= usize::from(path_mtu)) {
            return;
        }
        let mut fitting = Vec::with_capacity(out.sealed.len() - first);
        for sealed in out.sealed.drain(first..) {
            if sealed.packet.len() <= usize::from(path_mtu) || !ipv4 && sealed.outer.dont_fragment {
                fitting.push(sealed);
                continue;
            }
            let Sealed { packet, outer, mut inner_len } = sealed;
            let mut each = |packet| fitting.push(Sealed { packet, outer, inner_len: mem::take(&mut inner_len) });
            if ipv4 {
                self.fragment(packet, path_mtu, &mut each);
            } else {
                self.fragment_ipv6(packet, path_mtu, &mut each);
            }
        }
        out.sealed.append(&mut fitting);
    }

    /// Joins the fragments of a packet for an SA that takes whole packets alone: whole it may go, and the outer
    /// packet is fragmented instead. They come in order and together, see
    /// [`Gather`]; the packet comes with the last.
    fn join(&mut self, fragment: Packet, headers: Headers, joined: &mut Option<(Whole, Headers)>) -> Option<Inner> {
        let last = match joined {
            Some((whole, _)) => whole.add(fragment.as_slice()),
            None => match Whole::begin(fragment.as_slice(), self.pool.take()) {
                Ok(whole) => {
                    *joined = Some((whole, headers));
                    self.pool.give(fragment);
                    return None;
                }
                Err(buffer) => {
                    self.pool.give(buffer);
                    None
                }
            },
        };
        let Some(last) = last else {
            self.drop_packet(fragment, DropReason::FragmentPortsHidden);
            if let Some((whole, _)) = joined.take() {
                self.drop_packet(whole.abandon(), DropReason::FragmentPortsHidden);
            }
            return None;
        };
        self.counters().add(Counter::FragmentsJoined, 1);
        self.pool.give(fragment);
        let (whole, first) = joined.take_if(|_| last)?;
        Some(Inner {
            packet: whole.finish(),
            ipv4: first.is_ipv4(),
            traffic_class: first.traffic_class,
            dont_fragment: false,
            outer_fragments: true,
        })
    }

    /// Keeps packets until there is an SA.
    fn hold_run(&mut self, lane: Lane, run: impl Iterator<Item = Protect>, spd: &Spd, out: &mut OutboundOutput) {
        let Lane { tunnel, session } = lane;
        let most_sessions = spd.config().startup.exclusive_sessions;
        // The peer may send, and be answered, before it has told us that we may send too.
        let only_peer_starts =
            spd.tunnel(tunnel).is_none_or(|t| t.start == StartMode::Respond) && !self.shared.has_pair(&lane);
        let limit = spd.config().startup.hold_queue as usize;
        for Protect { packet, headers, .. } in run {
            if only_peer_starts && !self.holds.has(lane) {
                self.drop_packet(packet, DropReason::NoSa);
                continue;
            }
            if session.is_some() && !self.holds.is_asked(lane) && !self.shared.sessions.ask(lane, most_sessions) {
                self.drop_packet(packet, DropReason::SessionLimit);
                continue;
            }
            let Held { waits, ask } = self.holds.hold(lane, &packet, spd.epoch(), limit);
            if ask {
                out.events.push(Event::Acquire { tunnel, session, tuple: headers.tuple });
            }
            if waits {
                self.shared.count_held(tunnel, 1, 0);
                self.pool.give(packet);
            } else {
                self.drop_packet(packet, DropReason::HoldQueueFull);
            }
        }
    }

    /// Cuts an IPv6 packet of AH.
    fn fragment_ipv6(&mut self, packet: Packet, mtu: u16, each: &mut impl FnMut(Packet)) {
        let Some(mut fragments) = ah::Fragments::new(packet.as_slice(), mtu) else {
            return self.drop_packet(packet, DropReason::TooBig);
        };
        let mut made = 0;
        loop {
            let mut part = self.pool.take();
            let Some(len) = fragments.next_into(part.room()) else {
                self.pool.give(part);
                break;
            };
            part.set_len(len);
            each(part);
            made += 1;
        }
        self.counters().add(Counter::FragmentsAdded, made - 1);
        self.pool.give(packet);
    }

    /// Cuts an IPv4 packet that allows it.
    fn fragment(&mut self, packet: Packet, mtu: u16, each: &mut impl FnMut(Packet)) {
        let reason = match fragment::Fragments::new(packet.as_slice(), mtu) {
            Ok(mut fragments) => {
                let mut made = 0;
                loop {
                    let mut part = self.pool.take();
                    match fragments.next_into(part.room()) {
                        Some(len) => part.set_len(len),
                        None => {
                            self.pool.give(part);
                            break;
                        }
                    }
                    each(part);
                    made += 1;
                }
                self.counters().add(Counter::FragmentsAdded, made - 1);
                self.pool.give(packet);
                return;
            }
            Err(fragment::Error::Malformed) => DropReason::Malformed,
            Err(fragment::Error::DontFragment | fragment::Error::Impossible) => DropReason::TooBig,
        };
        self.drop_packet(packet, reason);
    }

    /// Drops a packet that does not fit and, within the rate, tells its sender.
    fn too_big(&mut self, packet: Packet, mtu: u16, now: Timestamp, replies: &mut Vec<Packet>) {
        let mut reply = self.pool.take();
        match icmp::too_big(packet.as_slice(), mtu, reply.room()) {
            Ok(len) if self.answers.allow(now) => {
                reply.set_len(len);
                replies.push(reply);
            }
            _ => self.pool.give(reply),
        }
        self.drop_packet(packet, DropReason::TooBig);
    }

    fn drop_packet(&mut self, packet: Packet, reason: DropReason) {
        self.counters().dropped(reason, 1);
        self.pool.give(packet);
    }

    fn counters(&self) -> &WorkerCounters {
        self.shared.counters.worker(self.worker)
    }
}

/// Counts what is dropped, and takes its buffer back.
fn dropping(pool: &mut Pool, counters: &WorkerCounters) -> impl FnMut(Packet, DropReason) {
    |packet, reason| {
        counters.dropped(reason, 1);
        pool.give(packet);
    }
}

/// Whether an address means something on one link only: multicast, broadcast, link-local.
fn is_of_a_link(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast() || a.is_link_local(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local(),
    }
}
