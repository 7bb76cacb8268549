//! Informational exchanges: notifications and deletes, in and out.

use super::phase2::refused_by_peer;
use super::{Datagram, Discarded, Engine, Output, Timer};
use crate::failure::{Failure, Fault, Kind, Role};
use crate::informational;
use crate::main_mode::Established;
use crate::quick_mode::QuickMode;
use crate::wire::numbers::{NotifyKind, PayloadKind, ProtocolId};
use crate::wire::select;
use crate::wire::{Body, Delete, Message, Notification, Payload, Payloads};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::Level;
use policy::config::AuthMethod;
use policy::sa::SaProtocol;
use policy::time::Timestamp;
use policy::transform::EspTransform;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Pauses after which a delete is repeated: nothing tells that it arrived.
const FAREWELLS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// An unknown SPI is reported to its sender once in this time.
const UNKNOWN_SPI_PAUSE: Duration = Duration::from_secs(10);
/// Unknown SPIs remembered for that.
const UNKNOWN_SPIS: usize = 64;

/// A delete that is sent again. The peer's replay check makes that harmless.
pub(super) struct Farewell {
    local: SocketAddr,
    remote: SocketAddr,
    datagram: Vec<u8>,
    repeated: usize,
}

impl Engine {
    /// Sends an informational message under an SA; a delete is repeated.
    /// Returns the datagram.
    pub(super) fn send_informational(
        &mut self,
        now: Timestamp,
        id: u64,
        content: Vec<Payload>,
        repeat: bool,
        entropy: &mut dyn Entropy,
    ) -> Option<Vec<u8>> {
        let message_id = self.fresh_message_id(id, entropy)?;
        let sa = self.isakmp.get_mut(&id)?;
        let (keys, last_block) = sa.state.phase2_keys()?;
        // A cipher that fails here failed before: the SA would not exist.
        let datagram = informational::sealed(keys, last_block, sa.setup.cookies, message_id, content).ok()?;
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        self.use_message_id(now, id, message_id);
        self.transmit_under(now, id, &datagram);
        if repeat {
            let farewell = self.id();
            self.timers.set(Timer::Farewell(farewell), now + FAREWELLS[0]);
            self.farewells.insert(farewell, Farewell { local, remote, datagram: datagram.clone(), repeated: 0 });
        }
        Some(datagram)
    }

    /// A delete is to be repeated.
    pub(super) fn farewell_due(&mut self, now: Timestamp, id: u64) {
        let Some(farewell) = self.farewells.get_mut(&id) else { return };
        farewell.repeated += 1;
        let (local, remote, datagram) = (farewell.local, farewell.remote, farewell.datagram.clone());
        match FAREWELLS.get(farewell.repeated) {
            Some(&pause) => self.timers.set(Timer::Farewell(id), now + pause),
            None => {
                self.farewells.remove(&id);
            }
        }
        self.transmit(local, remote, &datagram);
    }

    /// An informational message.
    pub(super) fn informational_message(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        if let Body::Clear(payloads) = &message.body {
            if self.isakmp.get(&id).is_some_and(|sa| sa.established.is_some()) {
                self.stray_informational(now, datagram, message, entropy);
            } else {
                self.unauthenticated_notifications(id, Payloads(payloads));
            }
            return;
        }
        let message_id = message.header.message_id;
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        // RFC 2408 3.1: CONNECTED comes under the message ID of its quick mode.
        let connects = sa.exchanges.get(&message_id).is_some_and(|x| x.commit);
        if !sa.takes(message_id) && !connects {
            self.discard(Discarded::Replayed);
            return;
        }
        let Some((keys, last_block)) = sa.state.phase2_keys() else {
            self.discard(Discarded::Unexpected);
            return;
        };
        let Ok(authentic) = informational::open(keys, last_block, message) else {
            if sa.established.is_none() && sa.hint.is_none() {
                sa.hint = Some(undecryptable_hint(sa));
            }
            self.discard(Discarded::NotAuthentic);
            return;
        };
        let (established, settled) = (sa.established.is_some(), sa.established.is_some() && sa.confirmed);
        self.use_message_id(now, id, message_id);
        if established {
            self.heard(now, id, datagram);
        }
        // RFC 2408 5.3: with a payload of an unknown type the message is discarded.
        if select::check(authentic.payloads(), &[PayloadKind::HASH], &[]).is_err() {
            self.discard(Discarded::Unexpected);
            return;
        }
        let payloads = Payloads(authentic.payloads());
        if connects {
            if payloads.notifications().any(|n| n.kind == NotifyKind::CONNECTED) {
                self.connected(id, message_id);
            }
            return;
        }
        for notification in payloads.notifications().filter(|n| informational::concerns_us(n.doi)) {
            self.notified(now, id, settled, notification, entropy);
        }
        for delete in payloads.deletes().filter(|d| informational::concerns_us(d.doi)) {
            self.deleted(now, id, delete, entropy);
        }
    }

    /// Opens the first message of an exchange that the peer begins under an established SA, and takes note of it;
    /// `None`: it is discarded.
    pub(super) fn begun_by_peer<T, E>(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message_id: u32,
        open: impl FnOnce(&Established) -> Result<T, E>,
    ) -> Option<T> {
        let sa = self.isakmp.get(&id)?;
        // Not opened if it was seen before.
        let established = sa.takes(message_id).then(|| sa.state.established().map(open));
        let reason = match established {
            None => Discarded::Replayed,
            Some(None) => Discarded::Unexpected,
            Some(Some(Err(_))) => Discarded::NotAuthentic,
            Some(Some(Ok(opened))) => {
                self.use_message_id(now, id, message_id);
                self.heard(now, id, datagram);
                return Some(opened);
            }
        };
        self.discard(reason);
        None
    }

    /// A message of new group mode (RFC 2409 5.6): we know the groups that we know. Who may ask is told so.
    pub(super) fn new_group_message(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        // HASH(1) is that of an informational exchange.
        let opened = self.begun_by_peer(now, id, datagram, message.header.message_id, |established| {
            informational::open(&established.keys, &established.last_block, message)
        });
        let Some(sa) = opened.and_then(|_| self.isakmp.get(&id)) else { return };
        let (cookies, peer) = (sa.setup.cookies, sa.setup.remote.ip());
        self.discard(Discarded::Exchange);
        let kind = NotifyKind::ATTRIBUTES_NOT_SUPPORTED;
        let refusal = informational::isakmp_notification(cookies, kind, Vec::new());
        self.send_informational(now, id, vec![Payload::Notification(refusal)], false, entropy);
        let text = format!(
            "{peer} asks for another Diffie-Hellman group in new group mode, which is not supported: refused; \
             configure one of the groups that both sides know on the peer"
        );
        self.audit(Level::Warning, 0, text);
    }

    /// Anybody can send these: they are shown, and explain a failure of main mode that comes anyway.
    fn unauthenticated_notifications(&mut self, id: u64, payloads: Payloads<'_>) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let peer = sa.setup.remote.ip();
        let error = payloads.notifications().find(|n| n.kind.is_error());
        let Some(kind) = error.map(|n| n.kind).filter(|_| sa.hint.is_none()) else { return };
        sa.hint = Some(notified_failure(sa, kind));
        let text =
            format!("notification {kind} from {peer}, not authenticated and not acted upon; the negotiation goes on");
        self.audit(Level::Informative, 0, text);
    }

    /// An authenticated notification; `settled` if the peer has shown before that main mode is done.
    fn notified(
        &mut self,
        now: Timestamp,
        id: u64,
        settled: bool,
        notification: &Notification,
        entropy: &mut dyn Entropy,
    ) {
        let kind = notification.kind;
        let Some(sa) = self.isakmp.get(&id) else { return };
        let peer = sa.setup.remote.ip();
        let about_main_mode =
            !matches!(notification.protocol, ProtocolId::ESP | ProtocolId::AH) && sa.exchanges.is_empty();
        if !settled && kind.is_error() && about_main_mode {
            // It can decrypt, so the key is right: what it refuses is our last message of main mode.
            let failure = refused_under_keys(sa, notification);
            let Some(sa) = self.remove_isakmp(id) else { return };
            self.main_mode_failed(now, id, &failure, &sa.place(), sa.reported, entropy);
            return;
        }
        if sa.established.is_none() {
            return;
        }
        match kind {
            NotifyKind::INITIAL_CONTACT => self.initial_contact(now, id, entropy),
            NotifyKind::R_U_THERE => {
                // RFC 3706 5.4: the sequence number comes back as it is.
                let cookies = sa.setup.cookies;
                let ack =
                    informational::isakmp_notification(cookies, NotifyKind::R_U_THERE_ACK, notification.data.clone());
                self.send_informational(now, id, vec![Payload::Notification(ack)], false, entropy);
            }
            // `heard` has taken note that the peer is there.
            NotifyKind::R_U_THERE_ACK => {}
            NotifyKind::CONNECTED => self.connected_spi(id, notification),
            NotifyKind::INVALID_SPI => self.invalid_spi(now, id, notification, entropy),
            NotifyKind::RESPONDER_LIFETIME if notification.protocol == ProtocolId::ISAKMP => {
                self.shorten_isakmp(id, notification, entropy);
            }
            kind if kind.is_error() => self.quick_mode_refused(now, id, notification, entropy),
            kind => {
                let text = format!("notification {kind} from {peer} for {}", notification.protocol);
                self.audit(Level::Informative, 0, text);
            }
        }
    }

    /// An authenticated error: the end of the quick mode it is about.
    fn quick_mode_refused(&mut self, now: Timestamp, id: u64, notification: &Notification, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let peer = sa.setup.remote.ip();
        let kind = notification.kind;
        let ours: Vec<_> = sa
            .exchanges
            .iter()
            .filter_map(|(&message_id, x)| match &x.state {
                QuickMode::InitiatorSent(state) => Some((message_id, state.spi)),
                _ => None,
            })
            .collect();
        let named = ours.iter().find(|(_, spi)| notification.spi == spi.to_be_bytes());
        // Many peers name no SPI, or their own: clear enough if only one exchange is open.
        let meant = named.or(if let [only] = ours.as_slice() { Some(only) } else { None }).map(|(id, _)| *id);
        if let Some(message_id) = meant {
            let Some(exchange) = sa.exchanges.get(&message_id) else { return };
            let failure = refused_by_peer(sa, exchange, kind);
            self.quick_mode_failed(now, id, message_id, &failure, entropy);
            return;
        }
        let hints: Vec<_> = ours
            .iter()
            .filter_map(|(message_id, _)| Some((*message_id, refused_by_peer(sa, sa.exchanges.get(message_id)?, kind))))
            .collect();
        for (message_id, hint) in hints {
            if let Some(exchange) = sa.exchanges.get_mut(&message_id) {
                exchange.hint = Some(hint);
            }
        }
        let among: BTreeSet<_> = ours.iter().map(|(message_id, _)| *message_id).collect();
        if !among.is_empty() {
            sa.doubts.add(kind, among);
        }
        self.audit(Level::Warning, 0, format!("notification {kind} from {peer} for {}", notification.protocol));
    }

    /// The peer does not know an SPI that we send with.
    fn invalid_spi(&mut self, now: Timestamp, id: u64, notification: &Notification, entropy: &mut dyn Entropy) {
        if let Some(pair) = self.outbound_pair(id, notification) {
            self.pair_unknown(now, pair, entropy);
        }
    }

    /// CONNECTED under a message ID of its own, as some send it: it names the SPI.
    fn connected_spi(&mut self, id: u64, notification: &Notification) {
        let named = self.outbound_pair(id, notification);
        let exchange = named.and_then(|pair| self.pairs.get(&pair)).map(|pair| pair.exchange);
        if let Some((isakmp, message_id)) = exchange.filter(|(isakmp, _)| *isakmp == id) {
            self.connected(isakmp, message_id);
        }
    }

    /// The pair with the peer of an SA whose outbound SPI a notification names.
    fn outbound_pair(&self, id: u64, notification: &Notification) -> Option<u64> {
        let spi = if notification.spi.len() == 4 { &notification.spi } else { &notification.data };
        let spi = u32::from_be_bytes(<[u8; 4]>::try_from(spi.as_slice()).ok()?);
        self.pair_by_outbound_spi(id, spi)
    }

    fn pair_by_outbound_spi(&self, isakmp: u64, spi: u32) -> Option<u64> {
        let sa = self.isakmp.get(&isakmp)?;
        let peer = sa.peer()?;
        self.pairs.values().filter(|p| p.peer().is(&peer)).find(|p| p.sends_to(spi)).map(|p| p.id)
    }

    /// SAs of the peer are gone.
    fn deleted(&mut self, now: Timestamp, id: u64, delete: &Delete, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        match (delete.protocol, delete.spi_len) {
            (ProtocolId::ESP | ProtocolId::AH, 4) => {
                for spi in &delete.spis {
                    let Ok(octets) = <[u8; 4]>::try_from(spi.as_slice()) else { continue };
                    self.outbound_gone(now, id, u32::from_be_bytes(octets), "deleted by the peer", entropy);
                }
            }
            (ProtocolId::ISAKMP, 16) => {
                let peer = sa.peer();
                // Of this SA, or of another one with the same peer.
                let named: Vec<_> = self
                    .isakmp
                    .values()
                    .filter(|sa| sa.id == id || peer.as_ref().is_some_and(|peer| sa.is_with(peer)))
                    .filter(|sa| delete.spis.contains(&sa.setup.cookies.spi()))
                    .map(|sa| sa.id)
                    .collect();
                for gone in named {
                    if !self.deleted_before_admission(now, gone, entropy) {
                        self.isakmp_gone(now, gone, "deleted by the peer", entropy);
                    }
                }
            }
            (protocol, _) => {
                let text = format!("delete of {protocol} SAs from {}: we have none", sa.setup.remote.ip());
                self.audit(Level::Informative, 0, text);
            }
        }
    }

    /// The peer has no inbound SA for an SPI that we send with: the pair is of no use.
    fn outbound_gone(&mut self, now: Timestamp, isakmp: u64, spi: u32, reason: &str, entropy: &mut dyn Entropy) {
        if let Some(pair) = self.pair_by_outbound_spi(isakmp, spi) {
            self.remove_pair(now, pair, reason, false, entropy);
            return;
        }
        let Some(peer) = self.isakmp.get(&isakmp).and_then(|sa| sa.peer()) else { return };
        let same_peer: BTreeSet<_> = self.isakmp.values().filter(|sa| sa.is_with(&peer)).map(|sa| sa.id).collect();
        let same_peer = self.isakmp.values_mut().filter(|sa| same_peer.contains(&sa.id));
        same_peer.flat_map(|sa| sa.exchanges.values_mut()).for_each(|exchange| exchange.forestall(spi));
    }

    /// ESP came in under an SPI of no SA: its sender must have missed a delete.
    pub(super) fn unknown_spi(&mut self, now: Timestamp, from: SocketAddr, spi: u32, entropy: &mut dyn Entropy) {
        let peer = from.ip();
        while self.unknown_spis.front().is_some_and(|(at, ..)| now.since(*at) >= UNKNOWN_SPI_PAUSE) {
            self.unknown_spis.pop_front();
        }
        let told = self.unknown_spis.iter().any(|&(_, p, s)| (p, s) == (peer, spi));
        if told || self.unknown_spis.len() >= UNKNOWN_SPIS || self.inbound_spis.contains(spi) {
            return;
        }
        // An SPI that the peer receives under is no news of the peer's: whoever sees it on the wire could
        // have us delete the peer's side of a pair that works.
        if self.pairs.values().any(|p| p.remote.ip() == peer && p.sends_to(spi)) {
            return;
        }
        // Behind a NAT the port tells who it is.
        let sender = |sa: &super::IsakmpSa, translated: bool| !translated || sa.setup.remote == from;
        let with_peer = |sa: &&super::IsakmpSa| {
            sa.setup.remote.ip() == peer && sa.peer().is_some_and(|peer| sender(sa, peer.is_translated()))
        };
        let newest = self.isakmp.values().filter(with_peer).map(|sa| sa.id).next_back();
        if let Some(id) = newest {
            self.unknown_spis.push_back((now, peer, spi));
            // An authenticated delete is believed by every peer; a notification by few.
            let protocols = self
                .config
                .tunnels_to(peer)
                .flat_map(|t| t.transforms.iter().flat_map(EspTransform::protocols))
                .collect();
            self.send_informational(now, id, deletes(&protocols, spi), false, entropy);
        }
    }

    /// Has the peer forget the SA that it may have made of an offer for a tunnel of which nothing comes: which
    /// of the protocols that we offered it chose, we do not know.
    pub(super) fn withdrawal(&self, tunnel: &str, spi: u32) -> Vec<Payload> {
        let transforms = self.tunnels.get(tunnel).map(|t| &t.policy.transforms);
        deletes(&transforms.into_iter().flatten().flat_map(EspTransform::protocols).collect(), spi)
    }

    /// Something was sent towards a NAT that keeps our mapping (RFC 3948 4).
    pub(super) fn keepalive(&mut self, now: Timestamp, local: SocketAddr, remote: SocketAddr) {
        let behind = |nat: crate::nat::NatState| nat.local || nat.forced;
        let isakmp = self.isakmp.values().any(|sa| {
            (sa.setup.local, sa.setup.remote) == (local, remote)
                && sa.state.established().is_some_and(|e| behind(e.nat))
        });
        let pair = || self.pairs.values().any(|p| (p.local, p.remote) == (local, remote) && behind(p.nat));
        if isakmp || pair() {
            self.output.push_back(Output::Transmit { local, remote, payload: vec![0xff] });
            self.keep_alive(now, local, remote);
        }
    }

    /// Sees to it that a mapping is kept open.
    pub(super) fn keep_alive(&mut self, now: Timestamp, local: SocketAddr, remote: SocketAddr) {
        let timer = Timer::Keepalive(local, remote);
        if !self.timers.contains(&timer) {
            let seconds = self.config.ike_policy(remote.ip()).map_or(20, |p| p.keepalive_seconds.max(1));
            self.timers.set(timer, now + Duration::from_secs(u64::from(seconds)));
        }
    }
}

/// Deletes of an SA of ours under each of these protocols.
fn deletes(protocols: &BTreeSet<SaProtocol>, spi: u32) -> Vec<Payload> {
    protocols.iter().map(|protocol| informational::delete(*protocol, &[spi])).collect()
}

/// What an error notification means for a main mode of ours.
fn notified_failure(sa: &super::IsakmpSa, kind: NotifyKind) -> Failure {
    let (ike, auth) = (&sa.setup.policy, &sa.setup.auth);
    let offered = crate::proposal::listed(&crate::proposal::phase1::suites(ike));
    let key = matches!(sa.state.method(), None | Some(AuthMethod::PreSharedKey));
    match (kind, sa.role) {
        (NotifyKind::NO_PROPOSAL_CHOSEN, Role::Initiator) => Failure::new(
            Kind::NoProposal,
            Fault::Mismatch,
            format!("the peer answered {kind}, unauthenticated; we offered {offered}"),
            format!("align `proposals` of ike policy `{}` (line {}) with the peer's", ike.name, ike.line),
        ),
        (NotifyKind::INVALID_ID_INFORMATION, _) => Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("the peer answered {kind}, unauthenticated: it does not accept our identity"),
            format!("compare `lid` of auth record `{}` (line {}) with what the peer expects", auth.name, auth.line),
        ),
        (
            NotifyKind::AUTHENTICATION_FAILED | NotifyKind::PAYLOAD_MALFORMED | NotifyKind::INVALID_HASH_INFORMATION,
            _,
        ) if key => Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("the peer answered {kind}, unauthenticated: most likely the pre-shared key differs"),
            format!("compare the pre-shared key of auth record `{}` (line {}) with the peer's", auth.name, auth.line),
        ),
        (NotifyKind::AUTHENTICATION_FAILED, _) => Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!(
                "the peer answered {kind}, unauthenticated: it does not accept our certificate, signature or identity"
            ),
            format!(
                "look at the peer's log, and at `certificate` and `lid` of auth record `{}` (line {})",
                auth.name, auth.line
            ),
        ),
        _ => Failure::new(
            Kind::Other,
            Fault::Peer,
            format!("the peer answered {kind}, unauthenticated"),
            "look at the peer's log",
        ),
    }
}

/// An error notification under the keys of a main mode that the peer has not finished.
fn refused_under_keys(sa: &super::IsakmpSa, notification: &Notification) -> Failure {
    let (auth, kind) = (&sa.setup.auth, notification.kind);
    let ours = sa.setup.local_identity();
    let said = explanation(&notification.data);
    if sa.state.method().is_some_and(|method| method != AuthMethod::PreSharedKey)
        && kind != NotifyKind::INVALID_ID_INFORMATION
    {
        return Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!(
                "the peer answered {kind} under the agreed keys{said}: it does not accept our certificate or signature"
            ),
            format!(
                "look at `certificate` and `key` of auth record `{}` (line {}) with ipsec_config check, and at the \
                 peer's authorities, CRLs and clock",
                auth.name, auth.line
            ),
        );
    }
    Failure::new(
        Kind::Other,
        Fault::Mismatch,
        format!("the peer answered {kind} under the agreed keys{said}: it does not accept our identity {ours}"),
        format!("compare `lid` of auth record `{}` (line {}) with what the peer expects", auth.name, auth.line),
    )
}

/// The words that a peer may add to a notification, if they are words.
fn explanation(data: &[u8]) -> String {
    const MOST: usize = 400;
    match core::str::from_utf8(data) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => {
            format!(" (\"{}\")", text.chars().take(MOST).collect::<String>())
        }
        _ => String::new(),
    }
}

/// An encrypted message that we cannot decrypt came instead of message 6.
fn undecryptable_hint(sa: &super::IsakmpSa) -> Failure {
    let auth = &sa.setup.auth;
    if sa.state.method().is_some_and(|method| method != AuthMethod::PreSharedKey) {
        return Failure::new(
            Kind::Other,
            Fault::Peer,
            "the peer answered with a notification that cannot be decrypted",
            "look at the peer's log",
        );
    }
    Failure::new(
        Kind::Other,
        Fault::Mismatch,
        "the peer answered message 5 with a notification that cannot be decrypted: the pre-shared key differs",
        format!("compare the pre-shared key of auth record `{}` (line {}) with the peer's", auth.name, auth.line),
    )
}
