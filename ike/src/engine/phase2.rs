//! Quick mode in the engine: beginning, answering, repeating, giving up.

use super::doubts;
use super::isakmp::{IsakmpSa, Quick, WORN, WORN_OUT};
use super::tunnels::Attempt;
use super::{Datagram, Discarded, Engine, Output, Timer};
use crate::failure::{Failure, Fault, Kind, Place, Role};
use crate::ids::{self, ProxyId};
use crate::informational;
use crate::nat;
use crate::proposal::phase2::Wanted;
use crate::protection::Iv;
use crate::quick_mode::table::StateName;
use crate::quick_mode::{self, Abandoned, Asked, QuickMode, Under};
use crate::retransmit::{Answer, GIVE_UP, Request};
use crate::wire::numbers::{NotifyKind, ProtocolId};
use crate::wire::{Message, Payload};
use crypto::Entropy;
use policy::audit::{Level, number::ikmpd};
use policy::config::{QuickModeFailure, TunnelPolicy};
use policy::sa::Mode;
use policy::selector::AddressRange;
use policy::spi::NoFreeSpi;
use policy::time::Timestamp;
use std::sync::Arc;

/// Message 1 of a peer's quick mode, as it came.
struct First<'a> {
    /// The ISAKMP SA.
    id: u64,
    message_id: u32,
    datagram: &'a Datagram<'a>,
    /// Protocol and SPI of its first proposal.
    offered: (ProtocolId, u32),
    place: Place,
}

impl Engine {
    /// Begins a quick mode for `tunnel` under an established ISAKMP SA.
    pub(super) fn start_quick_mode(
        &mut self,
        now: Timestamp,
        id: u64,
        tunnel: &Arc<TunnelPolicy>,
        entropy: &mut dyn Entropy,
    ) {
        let Some(message_id) = self.fresh_message_id(id, entropy) else { return };
        let spi = self.allocate_spi(entropy);
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let place = sa.quick_place(message_id, Role::Initiator);
        let begun = spi.map_err(no_spi).and_then(|spi| {
            let established = sa.state.established().ok_or_else(not_established)?;
            let iv = Iv(established.keys.phase2_iv(&established.last_block.0, message_id));
            let under = Under { keys: &established.keys, cookies: sa.setup.cookies, message_id };
            quick_mode::begin(&under, &iv, tunnel, &wanted(sa, tunnel), spi, entropy)
        });
        let (state, datagram) = match begun {
            Ok(begun) => begun,
            Err(failure) => {
                if let Ok(spi) = spi {
                    self.inbound_spis.release(spi);
                }
                let event = failure.event(&place);
                let reason = event.text.clone();
                self.output.push_back(Output::Audit(event));
                self.tunnel_failed(now, &tunnel.name, reason, entropy);
                return;
            }
        };
        let (request, due) = Request::new(datagram.clone(), now);
        self.use_message_id(now, id, message_id);
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.quick_modes += 1;
        sa.exchanges.insert(
            message_id,
            Quick {
                request: Some(request),
                ..Quick::new(QuickMode::InitiatorSent(Box::new(state)), Role::Initiator, &tunnel.name)
            },
        );
        if let Some(tunnel) = self.tunnels.get_mut(&tunnel.name) {
            tunnel.attempt = Some(Attempt::Phase2 { isakmp: id, message_id, role: Role::Initiator });
        }
        self.timers.set(Timer::QuickMode(id, message_id), due);
        self.transmit_under(now, id, &datagram);
    }

    /// A message of quick mode.
    pub(super) fn quick_mode_message(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let message_id = message.header.message_id;
        if sa.established.is_none() || message_id == 0 {
            self.discard(Discarded::Unexpected);
            self.await_message_3(now, id);
            return;
        }
        let Some(exchange) = sa.exchanges.get_mut(&message_id) else {
            if !sa.takes(message_id) || sa.message_ids.len() >= WORN {
                self.discard(Discarded::Replayed);
            } else {
                self.quick_mode_first(now, id, datagram, message, entropy);
            }
            return;
        };
        if exchange.last_received.as_deref() == Some(datagram.payload) {
            self.discard(Discarded::Duplicate);
            self.answer_again(now, id, |sa| sa.exchanges.get_mut(&message_id)?.reply.as_mut());
            return;
        }
        match exchange.state {
            QuickMode::InitiatorSent(_) => self.quick_mode_second(now, id, datagram, message, entropy),
            QuickMode::ResponderSent(_) => self.quick_mode_third(now, id, datagram, message),
            QuickMode::Finished => self.discard(Discarded::Unexpected),
            QuickMode::Abandoned(_) => self.quick_mode_refused_answer(now, id, datagram, message, entropy),
        }
    }

    /// Message 1 of a peer.
    fn quick_mode_first(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let Some(established) = sa.state.established() else { return };
        let message_id = message.header.message_id;
        let iv = Iv(established.keys.phase2_iv(&established.last_block.0, message_id));
        let Ok(read) = quick_mode::read(&established.keys, &iv, message) else {
            self.discard(Discarded::NotAuthentic);
            return;
        };
        self.heard(now, id, datagram);
        let place = self.quick_place(id, message_id, Role::Responder);
        let offered = read.as_ref().map_or((ProtocolId::ESP, 0), Asked::first_spi);
        let first = First { id, message_id, datagram, offered, place };
        let found = read.and_then(|asked| self.tunnel_for(id, &asked).map(|tunnel| (asked, tunnel)));
        let (asked, tunnel) = match found {
            Ok(found) => found,
            Err(failure) => {
                self.refuse_quick_mode(now, &first, None, &failure, entropy);
                return;
            }
        };
        if let Some(failure) = self.isakmp.get(&id).and_then(one_too_many) {
            self.refuse_quick_mode(now, &first, Some(&tunnel), &failure, entropy);
            self.replace_isakmp(now, first.place.local, first.place.remote, entropy);
            return;
        }
        match self.contest(now, id, &tunnel, entropy) {
            Ok(()) => {}
            Err(None) => return,
            Err(Some(failure)) => {
                self.refuse_quick_mode(now, &first, Some(&tunnel), &failure, entropy);
                return;
            }
        }
        if !self.gives_way(now, &tunnel, &asked, (id, message_id)) {
            self.discard(Discarded::Collision);
            return;
        }
        let spi = self.allocate_spi(entropy);
        let Some(sa) = self.isakmp.get(&id) else { return };
        let answered = spi.map_err(no_spi).and_then(|spi| {
            let established = sa.state.established().ok_or_else(not_established)?;
            let under = Under { keys: &established.keys, cookies: sa.setup.cookies, message_id };
            quick_mode::answer(&under, &asked, &tunnel, &wanted(sa, &tunnel), spi, entropy)
        });
        let (state, negotiated, reply) = match answered {
            Ok(answered) => answered,
            Err(failure) => {
                if let Ok(spi) = spi {
                    self.inbound_spis.release(spi);
                }
                self.refuse_quick_mode(now, &first, Some(&tunnel), &failure, entropy);
                if self.gave_way(&tunnel) {
                    let reason = failure.event(&first.place).text;
                    self.tunnel_failed(now, &tunnel.name, reason, entropy);
                }
                return;
            }
        };
        self.audit(
            Level::Informative,
            ikmpd::FOUND_HOST_SELECTOR,
            format!("found host selector: {} ({})", tunnel.name, tunnel.selector),
        );
        let pair = self.install_pair(now, (id, message_id), negotiated, Role::Responder, entropy);
        let (request, due) = Request::new(reply.clone(), now);
        self.use_message_id(now, id, message_id);
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.quick_modes += 1;
        sa.answered += 1;
        let state = QuickMode::ResponderSent(Box::new(state)).after(StateName::Start);
        sa.exchanges.insert(
            message_id,
            Quick {
                request: Some(request),
                last_received: Some(datagram.payload.to_vec()),
                reply: Some(Answer::new(reply.clone(), now)),
                pair,
                commit: message.header.flags.commit,
                ..Quick::new(state, Role::Responder, &tunnel.name)
            },
        );
        if let Some(tunnel) = self.tunnels.get_mut(&tunnel.name) {
            tunnel.attempt = Some(Attempt::Phase2 { isakmp: id, message_id, role: Role::Responder });
        }
        self.timers.set(Timer::QuickMode(id, message_id), due);
        self.transmit_under(now, id, &reply);
    }

    /// The tunnel whose selector is the one that a peer asks for, or of the session that it asks for.
    fn tunnel_for(&mut self, id: u64, asked: &Asked) -> Result<Arc<TunnelPolicy>, Failure> {
        if let Some(failure) = self.not_admitted(id) {
            return Err(failure);
        }
        let Some(sa) = self.isakmp.get(&id) else { return Err(not_established()) };
        let (local, remote) = (sa.setup.local.ip(), sa.setup.remote.ip());
        // RFC 2409 5.5: without IDs the selectors are the addresses of the peers.
        let wanted = asked.proxies.unwrap_or_else(|| ids::outer(local, remote));
        let seen_here = translate(sa, asked, wanted);
        for (mode, wanted) in [(Mode::Tunnel, wanted), (Mode::Transport, seen_here)] {
            if let Some((tunnel, session)) = self.session_asked_for((local, remote), mode, &wanted) {
                return self.tunnel_of(&tunnel, session);
            }
        }
        let candidates: Vec<_> =
            self.config.tunnels_to(remote).filter(|t| t.tsource == local && sa.owns(&t.remote_access)).collect();
        let mut nearest: Option<(usize, String)> = None;
        for tunnel in &candidates {
            let Ok((ours, theirs)) = ids::proxies(&tunnel.selector) else { continue };
            let wanted = if tunnel.mode == Mode::Transport { seen_here } else { wanted };
            let differences = ids::differences((&ours, &theirs), (&wanted.0, &wanted.1));
            if differences.is_empty() && !self.config.is_shared(&tunnel.name) {
                let (name, line) = (&tunnel.name, tunnel.line);
                return Err(Failure::new(
                    Kind::NoSelector,
                    Fault::Mismatch,
                    format!(
                        "only EXCLUSIVE policies name our tunnel {name}; peer asked for all of it: {}",
                        tunnel.selector
                    ),
                    format!(
                        "have the peer negotiate one address, protocol and port on each side for each session, or name \
                         tunnel `{name}` (line {line}) in a policy without that flag"
                    ),
                ));
            }
            if differences.is_empty() {
                return Ok(Arc::clone(tunnel));
            }
            let text = format!(
                "our tunnel {}: {}; peer asked for {}: {}",
                tunnel.name,
                tunnel.selector,
                ids::selector(&wanted.0, &wanted.1),
                differences.join(", ")
            );
            if nearest.as_ref().is_none_or(|(least, _)| differences.len() < *least) {
                nearest = Some((differences.len(), text));
            }
        }
        let detail = nearest.map_or_else(
            || {
                let asked = ids::selector(&wanted.0, &wanted.1);
                format!("we have no tunnel from {local} to {remote}; peer asked for {asked}")
            },
            |(_, text)| text,
        );
        let names: Vec<_> = candidates.iter().map(|t| format!("`{}` (line {})", t.name, t.line)).collect();
        let remedy = if names.is_empty() {
            format!("add a tunnel with tsource {local} and tdestination {remote}")
        } else {
            format!("make source and destination of tunnel {} the mirror image of the peer's", names.join(" or "))
        };
        Err(Failure::new(Kind::NoSelector, Fault::Mismatch, detail, remedy))
    }

    /// Both sides began at once: the exchange with the lower nonce gives way,
    /// as RFC 7296 2.8.1 has it. Both sides compare the same nonces, so
    /// exactly one exchange goes on.
    fn gives_way(&mut self, now: Timestamp, tunnel: &TunnelPolicy, asked: &Asked, theirs: (u64, u32)) -> bool {
        let attempt = self.tunnels.get(&tunnel.name).and_then(|t| t.attempt);
        let Some(Attempt::Phase2 { isakmp, message_id, role: Role::Initiator }) = attempt else { return true };
        let Some(sa) = self.isakmp.get_mut(&isakmp) else { return true };
        let Some(exchange) = sa.exchanges.get_mut(&message_id) else { return true };
        let before = exchange.state.name();
        exchange.state = match std::mem::replace(&mut exchange.state, QuickMode::Finished) {
            QuickMode::InitiatorSent(ours) if ours.nonce > asked.nonce => {
                exchange.state = QuickMode::InitiatorSent(ours);
                exchange.outdone = Some(theirs);
                return false;
            }
            QuickMode::InitiatorSent(ours) => QuickMode::Abandoned(Box::new(Abandoned::new(*ours))).after(before),
            other => {
                exchange.state = other;
                return true;
            }
        };
        exchange.request = None;
        self.timers.set(Timer::QuickMode(isakmp, message_id), now + GIVE_UP * 2);
        true
    }

    /// Whether our exchange for a tunnel gave way to one of the peer's: it will bring nothing.
    fn gave_way(&self, tunnel: &TunnelPolicy) -> bool {
        let attempt = self.tunnels.get(&tunnel.name).and_then(|t| t.attempt);
        let Some(Attempt::Phase2 { isakmp, message_id, role: Role::Initiator }) = attempt else { return false };
        let exchange = self.isakmp.get(&isakmp).and_then(|sa| sa.exchanges.get(&message_id));
        exchange.is_some_and(|exchange| matches!(exchange.state, QuickMode::Abandoned(_)))
    }

    /// Message 2: the pair exists on both sides.
    fn quick_mode_second(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let message_id = message.header.message_id;
        let Some((established, exchange)) = self.exchange(id, message_id) else { return };
        let before = exchange.state.name();
        let QuickMode::InitiatorSent(state) = &exchange.state else { return };
        let Ok(authentic) = state.authenticate(&established.keys, message) else {
            self.discard(Discarded::NotAuthentic);
            return;
        };
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Some(established) = sa.state.established() else { return };
        let Some(mut exchange) = sa.exchanges.remove(&message_id) else { return };
        let QuickMode::InitiatorSent(state) = std::mem::replace(&mut exchange.state, QuickMode::Finished) else {
            return;
        };
        let (spi, tunnel) = (state.spi, Arc::clone(&exchange.tunnel));
        let under = Under { keys: &established.keys, cookies: sa.setup.cookies, message_id };
        match state.finish(&under, &authentic) {
            // Its delete has overtaken its answer: the peer holds no such SA, and waits for nothing.
            Ok((negotiated, _)) if exchange.is_forestalled(&negotiated.agreed) => {
                self.timers.cancel(&Timer::QuickMode(id, message_id));
                self.inbound_spis.release(spi);
                self.heard(now, id, datagram);
                self.attempt_lost(now, &tunnel, entropy);
            }
            Ok((negotiated, reply)) => {
                let outdone = exchange.outdone.take();
                exchange.state = QuickMode::Finished.after(before);
                exchange.request = None;
                exchange.last_received = Some(datagram.payload.to_vec());
                exchange.reply = Some(Answer::new(reply.clone(), now));
                sa.exchanges.insert(message_id, exchange);
                self.timers.set(Timer::QuickMode(id, message_id), now + GIVE_UP * 2);
                self.heard(now, id, datagram);
                self.transmit_under(now, id, &reply);
                // The peer has answered ours, so its own gave way: should that come again, it is a repetition.
                if let Some((isakmp, theirs)) = outdone {
                    self.use_message_id(now, isakmp, theirs);
                }
                if let Some(pair) = self.install_pair(now, (id, message_id), negotiated, Role::Initiator, entropy) {
                    self.confirmed(now, id, message_id, pair, message.header.flags.commit);
                }
                self.quick_mode_answered(now, id, message_id, entropy);
            }
            Err(failure) => {
                let place = sa.quick_place(message_id, Role::Initiator);
                self.timers.cancel(&Timer::QuickMode(id, message_id));
                self.inbound_spis.release(spi);
                self.heard(now, id, datagram);
                let event = failure.event(&place);
                let reason = event.text.clone();
                self.output.push_back(Output::Audit(event));
                // The responder holds a pair by now: it must not wait for message 3.
                let content = self.withdrawal(&tunnel, spi);
                self.send_informational(now, id, content, true, entropy);
                self.tunnel_failed(now, &tunnel, reason, entropy);
                self.tear_down(now, id, entropy);
            }
        }
    }

    /// Message 3: the initiator has the pair, so we may encrypt with it.
    fn quick_mode_third(&mut self, now: Timestamp, id: u64, datagram: &Datagram<'_>, message: &Message) {
        let message_id = message.header.message_id;
        let Some((established, exchange)) = self.exchange(id, message_id) else { return };
        let QuickMode::ResponderSent(state) = &exchange.state else { return };
        if state.confirm(&established.keys, message).is_err() {
            self.discard(Discarded::NotAuthentic);
            return;
        }
        exchange.state = QuickMode::Finished.after(exchange.state.name());
        exchange.request = None;
        exchange.last_received = Some(datagram.payload.to_vec());
        exchange.reply = None;
        let (pair, commit) = (exchange.pair, exchange.commit || message.header.flags.commit);
        self.timers.set(Timer::QuickMode(id, message_id), now + GIVE_UP * 2);
        self.heard(now, id, datagram);
        if let Some(pair) = pair
            && self.pairs.contains_key(&pair)
        {
            self.confirmed(now, id, message_id, pair, commit);
        }
    }

    /// Both sides have a pair; with `commit` the peer will say when it is ready for it (RFC 2408 3.1).
    fn confirmed(&mut self, now: Timestamp, id: u64, message_id: u32, pair: u64, commit: bool) {
        if let Some((_, exchange)) = self.exchange(id, message_id) {
            (exchange.pair, exchange.commit) = (Some(pair), commit);
        }
        self.pair_active(now, pair, commit);
    }

    /// CONNECTED has come under the message ID of a quick mode: its pair may be used.
    pub(super) fn connected(&mut self, id: u64, message_id: u32) {
        let exchange = self.exchange(id, message_id).map(|(_, exchange)| exchange);
        let Some(exchange) = exchange.filter(|x| x.commit && matches!(x.state, QuickMode::Finished)) else { return };
        exchange.commit = false;
        if let Some(pair) = exchange.pair {
            self.pair_ready(pair);
        }
    }

    /// The peer answered an exchange that gave way: it must forget its pair, and is told so once.
    fn quick_mode_refused_answer(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let message_id = message.header.message_id;
        let Some((established, exchange)) = self.exchange(id, message_id) else { return };
        let QuickMode::Abandoned(abandoned) = &exchange.state else { return };
        if exchange.last_received.is_some() || !abandoned.is_answered_by(&established.keys, message) {
            self.discard(Discarded::NotAuthentic);
            return;
        }
        exchange.last_received = Some(datagram.payload.to_vec());
        let (spi, tunnel) = (abandoned.spi(), Arc::clone(&exchange.tunnel));
        self.heard(now, id, datagram);
        self.discard(Discarded::Collision);
        let content = self.withdrawal(&tunnel, spi);
        let told = self.send_informational(now, id, content, false, entropy);
        if let Some((_, exchange)) = self.exchange(id, message_id) {
            exchange.reply = told.map(|told| Answer::new(told, now));
        }
    }

    /// A peer's quick mode is refused: told once, reported once, answered the same if repeated.
    fn refuse_quick_mode(
        &mut self,
        now: Timestamp,
        first: &First<'_>,
        tunnel: Option<&Arc<TunnelPolicy>>,
        failure: &Failure,
        entropy: &mut dyn Entropy,
    ) {
        let First { id, message_id, datagram, offered: (protocol, spi), place } = first;
        let (id, message_id) = (*id, *message_id);
        let event = failure.event(place);
        let reason = event.text.clone();
        self.output.push_back(Output::Audit(event));
        // The SPI tells the peer which of its quick modes it is.
        let notification = informational::sa_notification(*protocol, *spi, quick_mode::notify_kind(failure));
        let reply = self.send_informational(now, id, vec![Payload::Notification(notification)], false, entropy);
        self.use_message_id(now, id, message_id);
        if let Some(sa) = self.isakmp.get_mut(&id) {
            let name = tunnel.map_or_else(|| "".into(), |t| Arc::clone(&t.name));
            sa.exchanges.insert(
                message_id,
                Quick {
                    last_received: Some(datagram.payload.to_vec()),
                    reply: reply.map(|reply| Answer::new(reply, now)),
                    ..Quick::new(QuickMode::Finished, Role::Responder, &name)
                },
            );
            self.timers.set(Timer::QuickMode(id, message_id), now + GIVE_UP * 2);
        }
        if let Some(tunnel) = tunnel {
            self.tunnel_refused(now, &tunnel.name, reason);
        }
        self.tear_down(now, id, entropy);
        // NAT discovery is not authenticated: what it said for this SA may be wrong.
        if failure.kind == Kind::NatDisagreement {
            self.replace_isakmp(now, place.local, place.remote, entropy);
        }
    }

    /// A quick mode is due: repeat our message, give up, or forget it.
    pub(super) fn quick_mode_due(&mut self, now: Timestamp, id: u64, message_id: u32, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        let Some(exchange) = sa.exchanges.get_mut(&message_id) else { return };
        // A peer that may have refused it is not waited for as one that says nothing.
        let hinted = exchange.hint.is_some();
        let patient = |request: &&mut Request| !hinted || request.transmissions() < doubts::TRIES;
        if let Some((datagram, next)) = exchange.request.as_mut().filter(patient).and_then(|r| r.due(now)) {
            let datagram = datagram.to_vec();
            self.timers.set(Timer::QuickMode(id, message_id), next);
            self.transmit(local, remote, &datagram);
            return;
        }
        match &exchange.state {
            QuickMode::Finished | QuickMode::Abandoned(_) => {
                if let Some(spi) = exchange.offered_spi() {
                    self.inbound_spis.release(spi);
                }
                sa.exchanges.remove(&message_id);
            }
            QuickMode::InitiatorSent(_) | QuickMode::ResponderSent(_) => {
                let reused = sa.established.is_some_and(|at| now.since(at) > GIVE_UP * 2);
                let role = exchange.role;
                let failure = timed_out(sa, message_id);
                if role == Role::Initiator {
                    self.quick_mode_unanswered(now, id, message_id, reused, &failure, entropy);
                } else {
                    self.quick_mode_failed(now, id, message_id, &failure, entropy);
                }
            }
        }
    }

    /// Nobody answered our quick mode. Under an ISAKMP SA that has been there
    /// for a while the peer may have lost it: then a new one is tried first.
    fn quick_mode_unanswered(
        &mut self,
        now: Timestamp,
        id: u64,
        message_id: u32,
        reused: bool,
        failure: &Failure,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.suspect = true;
        let peer = sa.setup.remote.ip();
        let hinted = sa.exchanges.get(&message_id).is_some_and(|x| x.hint.is_some());
        if !reused || hinted {
            self.quick_mode_failed(now, id, message_id, failure, entropy);
            return;
        }
        let Some(exchange) = sa.exchanges.remove(&message_id) else { return };
        sa.doubts.ended(message_id);
        if let Some(spi) = exchange.offered_spi() {
            self.inbound_spis.release(spi);
        }
        self.audit(
            Level::Warning,
            0,
            format!(
                "no answer from {peer} under an ISAKMP SA that was established before (tunnel {}): the peer may have \
                 restarted; negotiating a new one",
                exchange.tunnel
            ),
        );
        self.attempt_lost(now, &exchange.tunnel, entropy);
    }

    /// A quick mode failed: reported once; the ISAKMP SA stays.
    pub(super) fn quick_mode_failed(
        &mut self,
        now: Timestamp,
        id: u64,
        message_id: u32,
        failure: &Failure,
        entropy: &mut dyn Entropy,
    ) {
        self.timers.cancel(&Timer::QuickMode(id, message_id));
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Some(exchange) = sa.exchanges.remove(&message_id) else { return };
        sa.doubts.ended(message_id);
        let place = sa.quick_place(message_id, exchange.role);
        let event = failure.event(&place);
        let reason = event.text.clone();
        self.output.push_back(Output::Audit(event));
        if let Some(spi) = exchange.offered_spi() {
            self.inbound_spis.release(spi);
        }
        if let Some(pair) = exchange.pair {
            self.tunnel_refused(now, &exchange.tunnel, reason);
            self.remove_pair(now, pair, "the quick mode was not confirmed by its initiator", true, entropy);
            self.tear_down(now, id, entropy);
            return;
        }
        let attempt = Attempt::Phase2 { isakmp: id, message_id, role: Role::Initiator };
        if self.tunnels.get(&exchange.tunnel).is_some_and(|t| t.attempt == Some(attempt)) {
            self.tunnel_failed(now, &exchange.tunnel, reason, entropy);
        }
        self.tear_down(now, id, entropy);
    }

    /// A quick mode failed: as HP-UX A.02 did, its ISAKMP SA goes with it, if the policy says so.
    fn tear_down(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        if self.isakmp.get(&id).is_some_and(|sa| sa.setup.policy.quick_mode_failure == QuickModeFailure::Delete) {
            self.delete_isakmp(
                now,
                id,
                "a quick mode under it failed (quick_mode_failure = \"delete\")",
                true,
                entropy,
            );
        }
    }

    /// An authenticated message came in under an SA: the peer holds it, and is where it came from.
    pub(super) fn heard(&mut self, now: Timestamp, id: u64, datagram: &Datagram<'_>) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.confirmed = true;
        sa.suspect = false;
        sa.heard = now;
        sa.probe = None;
        self.timers.cancel(&Timer::Probe(id));
        self.timers.cancel(&Timer::Confirmation(id));
        self.charge(now, id, datagram.payload.len());
        self.follow(now, id, datagram);
    }

    fn quick_place(&self, id: u64, message_id: u32, role: Role) -> Place {
        let unspecified = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        self.isakmp.get(&id).map_or(
            Place {
                exchange: crate::failure::Exchange::Quick { message_id },
                role,
                local: unspecified,
                remote: unspecified,
            },
            |sa| sa.quick_place(message_id, role),
        )
    }

    /// A message ID that the SA has not seen; `None` if the SA is gone or worn out.
    pub(super) fn fresh_message_id(&self, id: u64, entropy: &mut dyn Entropy) -> Option<u32> {
        let sa = self.isakmp.get(&id)?;
        // Few are taken of 2^32: one draw does, practically always.
        (0..64).map(|_| informational::message_id(entropy)).find(|drawn| sa.takes(*drawn))
    }

    /// A message ID is used up. An SA that has used very many is replaced, then ends (RFC 2409 5.5: none comes twice).
    pub(super) fn use_message_id(&mut self, now: Timestamp, id: u64, message_id: u32) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.message_ids.insert(message_id);
        match sa.message_ids.len() {
            WORN => self.timers.set(Timer::IsakmpSoft(id), now),
            WORN_OUT => self.timers.set(Timer::IsakmpHard(id), now),
            _ => {}
        }
    }
}

/// What a tunnel asks for under an ISAKMP SA.
fn wanted<'a>(sa: &IsakmpSa, tunnel: &'a TunnelPolicy) -> Wanted<'a> {
    let established = sa.state.established();
    let mode = established.map_or(0, |e| nat::encapsulation(tunnel.mode, e.nat, e.nat_support));
    let ends = (sa.setup.local.ip(), sa.setup.remote.ip());
    let alone = sa.setup.policy.max_quick_modes == 1;
    let group = established.filter(|_| alone).map(|e| e.keys.suite.group);
    Wanted { tunnel, mode, ends, group, short: sa.setup.short_lifetimes }
}

/// The IDs of a transport mode through a NAT, with the addresses that we see. The peer's are those
/// that it sees itself (RFC 3947 5.2); to it the NAT gives another address than to us.
fn translate(sa: &IsakmpSa, asked: &Asked, (mut ours, mut theirs): (ProxyId, ProxyId)) -> (ProxyId, ProxyId) {
    let nat = sa.state.established().map(|e| e.nat).unwrap_or_default();
    let Some(seen) = asked.seen.filter(|_| nat.detected()) else { return (ours, theirs) };
    for (id, told, here) in
        [(&mut ours, seen.responder, sa.setup.local.ip()), (&mut theirs, seen.initiator, sa.setup.remote.ip())]
    {
        if id.addresses == AddressRange::single(told) {
            id.addresses = AddressRange::single(here);
        }
    }
    (ours, theirs)
}

/// The failure of a peer that begins more quick modes under an SA than it may.
fn one_too_many(sa: &IsakmpSa) -> Option<Failure> {
    let ike = &sa.setup.policy;
    sa.has_served().then(|| {
        Failure::new(
            Kind::Spent,
            Fault::Mismatch,
            format!("the peer has begun {} quick modes under this ISAKMP SA, and one more", sa.answered),
            format!(
                "a new ISAKMP SA is being negotiated; raise `maxqm` of ike policy `{}` (line {}), or lower the peer's",
                ike.name, ike.line
            ),
        )
    })
}

fn no_spi(none: NoFreeSpi) -> Failure {
    Failure::new(Kind::Other, Fault::Ours, none.to_string(), "widen that range in [startup], or delete SAs")
}

fn not_established() -> Failure {
    Failure::new(Kind::Other, Fault::Ours, "the ISAKMP SA is gone", "nothing: the next packet negotiates another")
}

/// The failure of a quick mode whose time is up.
fn timed_out(sa: &IsakmpSa, message_id: u32) -> Failure {
    let exchange = sa.exchanges.get(&message_id);
    let name = exchange.map_or("", |x| &x.tunnel);
    let sent = exchange.and_then(|x| x.request.as_ref()).map_or(1, Request::transmissions);
    let (awaited, ours) = match exchange.map(|x| x.role) {
        Some(Role::Responder) => ("message 3 did not come after our message 2", "message 2"),
        _ => ("no answer to message 1", "message 1"),
    };
    let exceeded = format!("{awaited}, {ours} sent {sent} times: retransmission count exceeded the limit");
    match exchange.and_then(|x| x.hint.as_ref()) {
        Some(hint) => {
            Failure::new(Kind::Timeout, hint.fault, format!("{} ({exceeded})", hint.detail), hint.remedy.clone())
        }
        None => Failure::new(
            Kind::Timeout,
            Fault::Peer,
            format!("tunnel {name}: {exceeded}"),
            "look at the peer's log: it may refuse in silence, or have lost its ISAKMP SA",
        ),
    }
}

/// The failure that a peer's authenticated error notification means for a quick mode of ours.
pub(super) fn refused_by_peer(sa: &IsakmpSa, exchange: &Quick, kind: NotifyKind) -> Failure {
    let QuickMode::InitiatorSent(state) = &exchange.state else {
        return Failure::new(
            Kind::Other,
            Fault::Peer,
            format!("tunnel {}: the peer sent {kind}", exchange.tunnel),
            "look at the peer's log",
        );
    };
    let tunnel = &state.tunnel;
    let offered = crate::proposal::listed(&wanted(sa, tunnel).describe());
    let selector = &tunnel.selector;
    let (name, line) = (&tunnel.name, tunnel.line);
    match kind {
        NotifyKind::NO_PROPOSAL_CHOSEN => Failure::new(
            Kind::NoProposal,
            Fault::Mismatch,
            format!("tunnel {name}: the peer answered {kind}; we offered {offered} for {selector}"),
            format!("align `action` of tunnel `{name}` (line {line}) with the peer's transforms, and its selectors"),
        ),
        NotifyKind::INVALID_ID_INFORMATION => Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("the peer answered {kind}: it has no such selectors; our tunnel {name}: {selector}"),
            format!("make source and destination of tunnel `{name}` (line {line}) the mirror image of the peer's"),
        ),
        kind => Failure::new(
            Kind::Other,
            Fault::Peer,
            format!("tunnel {name}: the peer answered {kind}; we offered {offered} for {selector}"),
            "look at the peer's log",
        ),
    }
}
