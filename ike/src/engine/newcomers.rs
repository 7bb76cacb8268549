//! Peers that begin a negotiation: message 1, after which we hold nothing of them, and message 3,
//! with which it begins for us.

use super::anti_clogging::Path;
use super::isakmp::IsakmpSa;
use super::source::{Room, Source};
use super::{Datagram, Discarded, Engine, Output, Timer};
use crate::failure::{Exchange, Failure, Fault, Kind, Place, Role, slashed};
use crate::keys::Cookies;
use crate::main_mode::{self, Context, MainMode, Setup, Stop};
use crate::retransmit::GIVE_UP;
use crate::wire::numbers::PayloadKind;
use crate::wire::{Cookie, HEADER_LEN, Message};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::{Level, number::ikmpd};
use policy::config::{AuthRecord, IkePolicy, Phase1Exchange};
use policy::time::Timestamp;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// First messages that are remembered for the audit log alone; a flood is not recorded one by one.
const REMEMBERED: usize = 64;
/// It is said once in this time that half-open negotiations displace each other.
const DISPLACEMENT_PAUSE: Duration = Duration::from_secs(30);

/// Who sent a first message lately, for the audit log: that it came, and that nothing came after it.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    oldest_first: VecDeque<(Timestamp, Path)>,
    /// When displacement was last told.
    displacement_told: Option<Timestamp>,
}

impl Newcomers {
    /// Whether this is the first message of a negotiation that is to be recorded.
    fn is_new(&mut self, now: Timestamp, path: Path) -> bool {
        let new = self.oldest_first.len() < REMEMBERED && self.oldest_first.iter().all(|(_, known)| *known != path);
        if new {
            self.oldest_first.push_back((now, path));
        }
        new
    }

    /// Its message 3 has come; whether its first was recorded.
    fn goes_on(&mut self, path: &Path) -> bool {
        let before = self.oldest_first.len();
        self.oldest_first.retain(|(_, known)| known != path);
        self.oldest_first.len() < before
    }

    fn first_due(&self) -> Option<Timestamp> {
        self.oldest_first.front().map(|(since, _)| *since + GIVE_UP)
    }
}

impl Engine {
    /// A message with no responder's cookie: the first of a main mode, or the same again, which
    /// is answered the same way.
    pub(super) fn first_message(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let (header, remote) = (&message.header, datagram.remote);
        // RFC 2409 5: SA precedes all other payloads.
        let acceptable = header.initiator != Cookie::ZERO
            && header.message_id == 0
            && header.first == PayloadKind::SECURITY_ASSOCIATION
            && main_mode::preview(message).is_ok();
        if !acceptable {
            self.discard(Discarded::Unexpected);
            return;
        }
        if self.has_begun(header.initiator, remote) || self.refused_before(now, datagram, header.initiator) {
            self.discard(Discarded::Duplicate);
            return;
        }
        if self.stopping {
            self.discard(Discarded::Stopping);
            return;
        }
        let path = Path { local: datagram.local, remote, initiator: header.initiator };
        let Some((policy, auth)) = self.configured_for(now, &path) else { return };
        let payloads = datagram.payload.get(HEADER_LEN..).unwrap_or_default();
        let place = match self.anti_clogging.find(&chooser(&policy, &auth), payloads) {
            Some(place) => Some(place),
            None => self.new_offer(now, datagram, message, (Arc::clone(&policy), auth), entropy),
        };
        let cookie = place.and_then(|place| self.anti_clogging.cookie(now, &path, place, entropy));
        let offer = place.and_then(|place| self.anti_clogging.offer(place));
        if let (Some(cookie), Some(offer)) = (cookie, offer) {
            let reply = offer.answer(path.initiator, cookie);
            if self.newcomers.is_new(now, path) {
                self.record_newcomer(&path, Some(&policy));
                self.watch_newcomers();
            }
            self.answer_stranger(datagram, &reply);
        }
    }

    /// Whether we hold the negotiation that a first message of this peer once began.
    fn has_begun(&self, initiator: Cookie, remote: SocketAddr) -> bool {
        let ids = self.by_cookie.get(&initiator);
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.isakmp.get(id))
            .any(|sa| sa.role == Role::Responder && sa.setup.remote.ip() == remote.ip())
    }

    /// Whether this attempt was refused before; if so it is answered as it was then.
    pub(super) fn refused_before(&mut self, now: Timestamp, datagram: &Datagram<'_>, initiator: Cookie) -> bool {
        let Some(answer) = self.refusals.find(now, datagram.remote, initiator) else { return false };
        if let Some(reply) = answer.map(<[u8]>::to_vec) {
            self.answer_stranger(datagram, &reply);
        }
        true
    }

    /// The policy and the authentication record for a peer; refused and reported without.
    fn configured_for(&mut self, now: Timestamp, path: &Path) -> Option<(Arc<IkePolicy>, Arc<AuthRecord>)> {
        let peer = path.remote.ip();
        let (policy, auth) = (self.config.ike_policy(peer), self.config.auth_record(peer));
        if let (Some(policy), Some(auth)) = (policy, auth) {
            return Some((Arc::clone(policy), Arc::clone(auth)));
        }
        let what = if policy.is_none() { "ike policy" } else { "auth record" };
        if self.refusals.keep(now, path.remote, path.initiator, None) {
            self.record_newcomer(path, None);
            let detail = format!("no {what} covers {peer}");
            let remedy = "add one with that `remote`, or stop the peer";
            self.configuration_failure(path.local, path.remote, Role::Responder, &detail, remedy);
        }
        self.discard(Discarded::Refused);
        None
    }

    /// Proposals that we have not seen before: chosen from, or refused.
    fn new_offer(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
        (policy, auth): (Arc<IkePolicy>, Arc<AuthRecord>),
        entropy: &mut dyn Entropy,
    ) -> Option<u16> {
        let path = Path { local: datagram.local, remote: datagram.remote, initiator: message.header.initiator };
        let cookies = Cookies { initiator: path.initiator, responder: self.cookie(entropy) };
        let setup = self.setup_of(&path, cookies, (Arc::clone(&policy), auth));
        let between = (path.local, path.remote);
        match main_mode::first_message(&setup, message, &mut Context { entropy, initial_contact: false, between }) {
            Ok(step) => {
                let payloads = datagram.payload.get(HEADER_LEN..).unwrap_or_default();
                let chooser = chooser(&policy, &setup.auth);
                let kept = self.anti_clogging.keep(&chooser, payloads, step.reply.unwrap_or_default());
                if kept.is_none() {
                    self.discard(Discarded::Unexpected);
                }
                kept
            }
            Err(stop) => {
                if let Stop::Failed { failure, reply } = *stop
                    && self.refusals.keep(now, path.remote, path.initiator, reply.clone())
                {
                    self.record_newcomer(&path, Some(&policy));
                    self.output.push_back(Output::Audit(failure.event(&place(&path))));
                    if let Some(reply) = reply {
                        self.answer_stranger(datagram, &reply);
                    }
                }
                self.discard(Discarded::Refused);
                None
            }
        }
    }

    /// A message of main mode under cookies that no SA has: message 3, if it brings back a cookie
    /// of ours. Whoever sent it receives at its address, so the negotiation begins for us too.
    pub(super) fn admit(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let path = Path { local: datagram.local, remote: datagram.remote, initiator: message.header.initiator };
        let cookie = message.header.responder;
        let Some(offer) = self.anti_clogging.verify(now, &path, cookie) else {
            self.discard(Discarded::UnknownSa);
            return;
        };
        if self.stopping {
            self.discard(Discarded::Stopping);
            return;
        }
        let source = Source::of(path.remote.ip());
        match self.half_open.room(now, source) {
            Room::Free => {}
            Room::InPlaceOf(id) => self.displace(now, id),
            Room::None => {
                self.discard(Discarded::HalfOpenLimit);
                return;
            }
        }
        let Some((setup, state, first)) = self.resumed(&path, offer, message, entropy) else {
            self.discard(Discarded::Unexpected);
            return;
        };
        if !self.newcomers.goes_on(&path) {
            self.record_newcomer(&path, Some(&Arc::clone(&setup.policy)));
        }
        self.watch_newcomers();
        let id = self.id();
        self.anti_clogging.spend(now, cookie, offer, source);
        self.half_open.insert(source, id, now);
        let mut sa = IsakmpSa::new(id, Role::Responder, setup, state, now);
        sa.vendors.note(&first);
        self.insert_isakmp(sa);
        self.timers.set(Timer::MainMode(id), now + GIVE_UP);
        self.advance(now, id, datagram, message, entropy);
    }

    /// The state after message 2, which we did not keep: message 1 is read once more, by today's
    /// configuration. `None` if that would answer otherwise, or if this is no message 3.
    fn resumed(
        &self,
        path: &Path,
        offer: u16,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) -> Option<(Setup, MainMode, Message)> {
        let offer = self.anti_clogging.offer(offer)?;
        let peer = path.remote.ip();
        let configured = (Arc::clone(self.config.ike_policy(peer)?), Arc::clone(self.config.auth_record(peer)?));
        let cookies = Cookies { initiator: path.initiator, responder: message.header.responder };
        let setup = self.setup_of(path, cookies, configured);
        let first = offer.first_message(message.header)?;
        let between = (path.local, path.remote);
        let mut context = Context { entropy, initial_contact: false, between };
        let step = main_mode::first_message(&setup, &first, &mut context).ok()?;
        let same = step.reply.is_some_and(|reply| offer.is_answered_by(&reply));
        (same && message.header.message_id == 0 && step.next.awaits(message)).then_some((setup, step.next, first))
    }

    pub(super) fn setup_of(
        &self,
        path: &Path,
        cookies: Cookies,
        (policy, auth): (Arc<IkePolicy>, Arc<AuthRecord>),
    ) -> Setup {
        Setup {
            cookies,
            methods: auth.methods_under(&policy),
            policy,
            auth,
            local: path.local,
            remote: path.remote,
            exchange: Phase1Exchange::Main,
            natt_port: self.config.startup.natt_port,
            short_lifetimes: self.config.startup.allow_short_lifetimes,
        }
    }

    /// A half-open negotiation gives way to another one.
    fn displace(&mut self, now: Timestamp, id: u64) {
        let Some(sa) = self.remove_isakmp(id) else { return };
        self.anti_clogging.restore(sa.setup.cookies.responder);
        self.discard(Discarded::HalfOpenLimit);
        if self.newcomers.displacement_told.is_none_or(|at| now.since(at) >= DISPLACEMENT_PAUSE) {
            self.newcomers.displacement_told = Some(now);
            let text = format!(
                "too many half-open negotiations: that of {} gives way to a newer one; `ipsec_report -sa ike` \
                 shows from where they come",
                slashed(sa.setup.remote)
            );
            self.audit(Level::Warning, 0, text);
        }
    }

    /// Sends an answer to who has not shown yet where he is: never longer than what he sent, or
    /// whoever forges another's address could multiply its traffic through us.
    pub(super) fn answer_stranger(&mut self, datagram: &Datagram<'_>, reply: &[u8]) {
        if reply.len() > datagram.payload.len() {
            self.discard(Discarded::TooShortToAnswer);
        } else {
            self.transmit(datagram.local, datagram.remote, reply);
        }
    }

    pub(super) fn record_newcomer(&mut self, path: &Path, policy: Option<&IkePolicy>) {
        let between = format!("{}<=>{}", slashed(path.local), slashed(path.remote));
        let text = format!("respond new phase 1 negotiation: {between}");
        self.audit(Level::Informative, ikmpd::RESPOND_PHASE_1, text);
        if let Some(policy) = policy {
            let text = format!("found ikev1 policy: {} for {between}", policy.name);
            self.audit(Level::Informative, ikmpd::FOUND_IKE_POLICY, text);
        }
    }

    fn watch_newcomers(&mut self) {
        match self.newcomers.first_due() {
            Some(due) => self.timers.set(Timer::Newcomers, due),
            None => self.timers.cancel(&Timer::Newcomers),
        }
    }

    /// Some newcomers have sent nothing after message 1.
    pub(super) fn newcomers_due(&mut self, now: Timestamp) {
        while self.newcomers.first_due().is_some_and(|due| due <= now) {
            let Some((_, path)) = self.newcomers.oldest_first.pop_front() else { break };
            let failure = Failure::new(
                Kind::Timeout,
                Fault::Peer,
                "message 3 did not come after our message 2",
                format!(
                    "see that UDP port {} gets through both ways, and look at the peer's log; somebody may also \
                     have sent message 1 under its address",
                    path.local.port()
                ),
            );
            self.output.push_back(Output::Audit(failure.event(&place(&path))));
        }
        self.watch_newcomers();
    }
}

/// What an answer to proposals depends on, by name: the policy, and the methods that a record leaves of it.
fn chooser(policy: &IkePolicy, auth: &AuthRecord) -> String {
    let methods = auth.methods_under(policy);
    let name = auth.xauth.as_ref().map_or_else(|| policy.name.clone(), |xauth| format!("{} {xauth}", policy.name));
    methods.iter().fold(name, |name, method| format!("{name} {method}"))
}

fn place(path: &Path) -> Place {
    Place { exchange: Exchange::Main, role: Role::Responder, local: path.local, remote: path.remote }
}
