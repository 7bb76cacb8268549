//! Main mode in the engine: beginning, answering, repeating, giving up.

use super::anti_clogging::Path;
use super::isakmp::{Held, IsakmpSa, Quick};
use super::source::Source;
use super::{Datagram, Discarded, Engine, Output, Timer};
use crate::failure::{Failure, Fault, Kind, Place, Role, slashed};
use crate::keys::Cookies;
use crate::main_mode::aggressive;
use crate::main_mode::table::StateName;
use crate::main_mode::{Context, InitiatorAwaitingSecret, MainMode, Setup, Step, Stop, Want, asked};
use crate::proposal::{listed, phase1};
use crate::retransmit::{Answer, GIVE_UP, Request};
use crate::wire::{Body, Cookie, Message};
use crypto::{Entropy, Secret};
use policy::audit::{Level, number::ikmpd};
use policy::config::{AuthMethod, AuthRecord, IkePolicy, Phase1Exchange};
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

impl Engine {
    /// Begins main mode: asks for the pre-shared key, which sends message 1.
    ///
    /// # Errors
    /// The failure, already reported, that makes it impossible.
    pub(super) fn begin_main_mode(
        &mut self,
        now: Timestamp,
        local: SocketAddr,
        remote: SocketAddr,
        entropy: &mut dyn Entropy,
    ) -> Result<u64, String> {
        let peer = remote.ip();
        let role = Role::Initiator;
        let Some(policy) = self.config.ike_policy(peer).cloned() else {
            let detail = format!("no ike policy covers {peer}");
            return Err(self.configuration_failure(local, remote, role, &detail, "add one with that `remote`"));
        };
        let Some(auth) = self.config.auth_record(peer).cloned() else {
            let detail = format!("no auth record covers {peer}");
            return Err(self.configuration_failure(local, remote, role, &detail, "add one with that `remote`"));
        };
        let methods = auth.methods_under(&policy);
        if methods.is_empty() {
            let detail = no_method(&policy, &auth);
            return Err(self.configuration_failure(local, remote, role, &detail, "align `auth` and `method`"));
        }
        let Some(offer) = phase1::offer(&policy, &methods, asked(&auth, role)) else {
            let detail = format!("no proposal of ike policy `{}` exists in IKEv1", policy.name);
            return Err(self.configuration_failure(local, remote, role, &detail, "add one, as aes128-sha1-modp2048"));
        };
        self.audit(
            Level::Informative,
            ikmpd::FOUND_IKE_POLICY,
            format!("found ikev1 policy: {} for {}<=>{}", policy.name, slashed(local), slashed(remote)),
        );
        let cookies = Cookies { initiator: self.cookie(entropy), responder: Cookie::ZERO };
        let keyed = methods.contains(&AuthMethod::PreSharedKey);
        let exchange = auth.exchange;
        let path = Path { local, remote, initiator: cookies.initiator };
        let setup = Setup { exchange, ..self.setup_of(&path, cookies, (policy, auth)) };
        let state = match (exchange, setup.policy.proposals.first()) {
            (Phase1Exchange::Aggressive, Some(first)) => {
                // The checker has seen to it that all are of one group.
                let place = Place { exchange: exchange.into(), role, local, remote };
                aggressive::begin(&setup, offer, first.group, entropy).map_err(|failure| {
                    let event = failure.event(&place);
                    let reason = event.text.clone();
                    self.output.push_back(Output::Audit(event));
                    reason
                })?
            }
            _ => MainMode::InitiatorAwaitingSecret(Box::new(InitiatorAwaitingSecret { offer })),
        };
        let id = self.id();
        self.insert_isakmp(IsakmpSa::new(id, role, setup, state, now));
        self.timers.set(Timer::MainMode(id), now + GIVE_UP);
        if keyed {
            self.ask(id, Want::Secret);
        } else {
            self.with_secret(now, id, None, entropy);
        }
        Ok(id)
    }

    /// A message of main mode under an SA that we hold.
    pub(super) fn main_mode_message(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        if sa.last_received == datagram.payload {
            self.discard(Discarded::Duplicate);
            self.answer_again(now, id, |sa| sa.reply.as_mut());
            return;
        }
        // In the clear nothing vouches for another port (RFC 3947 4).
        let clear = matches!(message.body, Body::Clear(_));
        let moved = !same_port(sa.setup.remote, datagram.remote) || !same_port(sa.setup.local, datagram.local);
        if message.header.message_id != 0 || sa.established.is_some() || (clear && moved) {
            self.discard(Discarded::Unexpected);
            return;
        }
        self.advance(now, id, datagram, message, entropy);
    }

    /// Sends an answer under an SA once more, if it may be sent again by now: the peer repeats its question, or seems to
    /// have missed it.
    pub(super) fn answer_again(
        &mut self,
        now: Timestamp,
        id: u64,
        answer: impl FnOnce(&mut IsakmpSa) -> Option<&mut Answer>,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        let again = answer(sa).and_then(|answer| answer.again(now)).map(<[u8]>::to_vec);
        if let Some(again) = again {
            self.transmit(local, remote, &again);
        }
    }

    /// Hands a message to the state machine and does what follows from it.
    pub(super) fn advance(
        &mut self,
        now: Timestamp,
        id: u64,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let Some(peer) = self.isakmp.get(&id).map(|sa| sa.setup.remote.ip()) else { return };
        let initial_contact = self.is_first_contact(peer);
        let Some(mut sa) = self.isakmp.remove(&id) else { return };
        let before = sa.setup.cookies.responder;
        sa.setup.cookies.responder = message.header.responder;
        let place = sa.place();
        let between = (datagram.local, datagram.remote);
        let mut context = Context { entropy: &mut *entropy, initial_contact, between };
        match sa.state.handle(&sa.setup, message, &mut context).map_err(|stop| *stop) {
            Ok(step) => {
                let Step { next, reply, float, initial_contact, wants } = step;
                sa.state = next;
                sa.last_received = datagram.payload.to_vec();
                sa.vendors.note(message);
                sa.reply = reply.clone().map(|reply| Answer::new(reply, now));
                sa.hint = None;
                if float {
                    self.float(&mut sa);
                } else if sa.state.established().is_some() {
                    // Authenticated: this is where the peer is.
                    (sa.setup.local, sa.setup.remote) = (datagram.local, datagram.remote);
                } else if matches!(message.body, Body::Encrypted(_)) {
                    sa.arrived = Some((datagram.local, datagram.remote));
                }
                self.isakmp.insert(id, sa);
                self.advanced(now, id, reply, wants, initial_contact, entropy);
            }
            Err(Stop::Ignored { state, failure, now: at_once }) => {
                sa.state = state;
                sa.setup.cookies.responder = before;
                let event = (at_once && !sa.reported).then(|| failure.event(&sa.place()));
                sa.reported |= at_once;
                sa.hint = Some(failure);
                let tell = event.is_some().then_some((sa.setup.cookies, sa.setup.local, sa.setup.remote));
                self.isakmp.insert(id, sa);
                self.discard(if at_once { Discarded::NotAuthentic } else { Discarded::Unexpected });
                self.output.extend(event.map(Output::Audit));
                if let Some((cookies, local, remote)) = tell {
                    // The initiator cannot believe it, but can show it.
                    let kind = crate::wire::numbers::NotifyKind::AUTHENTICATION_FAILED;
                    let message_id = crate::informational::message_id(entropy);
                    let reply = crate::informational::clear_notification(cookies, message_id, kind);
                    self.answer_stranger(&Datagram { local, remote, ..*datagram }, &reply);
                }
            }
            Err(Stop::Held { state }) => {
                sa.state = state;
                let (local, remote) = (datagram.local, datagram.remote);
                sa.held = Some(Held { payload: datagram.payload.to_vec(), local, remote });
                self.isakmp.insert(id, sa);
            }
            Err(Stop::Failed { failure, reply }) => {
                self.forget_isakmp(&sa.setup, id, &sa.exchanges);
                if let Some(reply) = reply {
                    self.transmit(datagram.local, datagram.remote, &reply);
                }
                self.main_mode_failed(now, id, &failure, &place, sa.reported, entropy);
            }
        }
    }

    /// After a step of main mode: sends, and sees to the timers.
    pub(super) fn advanced(
        &mut self,
        now: Timestamp,
        id: u64,
        reply: Option<Vec<u8>>,
        wants: Option<Want>,
        initial_contact: bool,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        sa.request = None;
        let established = sa.state.established().is_some();
        let mut due = now + GIVE_UP;
        if let (Some(reply), Role::Initiator) = (&reply, sa.role) {
            let (request, at) = Request::new(reply.clone(), now);
            sa.request = Some(request);
            due = at;
        }
        if let Some(reply) = reply {
            self.transmit(local, remote, &reply);
        }
        if let Some(want) = wants {
            self.ask(id, want);
        }
        if established {
            if let Some(sa) = self.isakmp.get_mut(&id) {
                sa.request = None;
            }
            self.timers.cancel(&Timer::MainMode(id));
            self.isakmp_established(now, id, initial_contact, entropy);
        } else {
            self.timers.set(Timer::MainMode(id), due);
        }
    }

    /// RFC 3947 4: the initiator goes on from and to the NAT-T port.
    fn float(&self, sa: &mut IsakmpSa) {
        let startup = &self.config.startup;
        if sa.setup.local.port() != startup.natt_port {
            sa.setup.local.set_port(startup.natt_port);
            sa.setup.remote.set_port(startup.natt_port);
        }
    }

    /// The answer to a question for a pre-shared key.
    pub(super) fn secret(&mut self, now: Timestamp, id: u64, secret: Option<Secret>, entropy: &mut dyn Entropy) {
        if secret.is_none() {
            let Some(sa) = self.isakmp.remove(&id) else { return };
            let (name, line) = (sa.setup.auth.name.clone(), sa.setup.auth.line);
            let failure = Failure::new(
                Kind::Other,
                Fault::Ours,
                format!("auth record `{name}` (line {line}) has no pre-shared key"),
                "give it one with `preshared`",
            );
            let (place, reported) = (sa.place(), sa.reported);
            self.forget_isakmp(&sa.setup, id, &sa.exchanges);
            self.main_mode_failed(now, id, &failure, &place, reported, entropy);
            return;
        }
        self.with_secret(now, id, secret, entropy);
    }

    /// Goes on with the pre-shared key, or without one where none is offered.
    fn with_secret(&mut self, now: Timestamp, id: u64, secret: Option<Secret>, entropy: &mut dyn Entropy) {
        let Some(mut sa) = self.isakmp.remove(&id) else { return };
        let place = sa.place();
        match sa.state.secret(&sa.setup, secret).map_err(|stop| *stop) {
            Ok(step) => {
                sa.state = step.next;
                let held = sa.held.take();
                self.isakmp.insert(id, sa);
                if let Some(reply) = step.reply {
                    self.keep_message_2(now, id, &reply);
                    self.advanced(now, id, Some(reply), None, false, entropy);
                }
                let held = held.and_then(|held| Some((Message::decode(&held.payload).ok()?, held)));
                if let Some((message, held)) = held {
                    let datagram = Datagram { local: held.local, remote: held.remote, payload: &held.payload };
                    self.advance(now, id, &datagram, &message, entropy);
                }
            }
            Err(Stop::Ignored { state, .. } | Stop::Held { state }) => {
                sa.state = state;
                self.isakmp.insert(id, sa);
            }
            Err(Stop::Failed { failure, .. }) => {
                self.forget_isakmp(&sa.setup, id, &sa.exchanges);
                self.main_mode_failed(now, id, &failure, &place, sa.reported, entropy);
            }
        }
    }

    /// A main mode is due: repeat our message, or give up.
    pub(super) fn main_mode_due(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        if sa.established.is_some() {
            return;
        }
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        if let Some((datagram, next)) = sa.request.as_mut().and_then(|r| r.due(now)) {
            let datagram = datagram.to_vec();
            self.timers.set(Timer::MainMode(id), next);
            self.transmit(local, remote, &datagram);
            return;
        }
        let Some(sa) = self.remove_isakmp(id) else { return };
        let (failure, place) = (timed_out(&sa), sa.place());
        self.main_mode_failed(now, id, &failure, &place, sa.reported, entropy);
    }

    /// A main mode failed and its SA is gone: report it once, and see to the tunnels that waited.
    pub(super) fn main_mode_failed(
        &mut self,
        now: Timestamp,
        id: u64,
        failure: &Failure,
        place: &Place,
        reported: bool,
        entropy: &mut dyn Entropy,
    ) {
        let event = failure.event(place);
        let reason = event.text.clone();
        if !reported {
            self.output.push_back(Output::Audit(event));
        }
        for name in self.waiting_for(id) {
            self.tunnel_failed(now, &name, reason.clone(), entropy);
        }
    }

    /// A cookie that no SA has.
    pub(super) fn cookie(&self, entropy: &mut dyn Entropy) -> Cookie {
        loop {
            let mut octets = [0; 8];
            entropy.fill(&mut octets);
            let cookie = Cookie(octets);
            if cookie != Cookie::ZERO && !self.by_cookie.contains_key(&cookie) {
                return cookie;
            }
        }
    }

    /// Whether we hold no SA with `peer`, and have held none since we started.
    fn is_first_contact(&self, peer: IpAddr) -> bool {
        !self.contacted.contains(peer)
            && !self.pairs.values().any(|p| p.remote.ip() == peer)
            && !self.isakmp.values().any(|sa| sa.setup.remote.ip() == peer && sa.established.is_some())
    }

    pub(super) fn insert_isakmp(&mut self, sa: IsakmpSa) {
        self.by_cookie.entry(sa.setup.cookies.initiator).or_default().push(sa.id);
        self.isakmp.insert(sa.id, sa);
    }

    /// Takes an SA out with all its timers.
    pub(super) fn remove_isakmp(&mut self, id: u64) -> Option<IsakmpSa> {
        let sa = self.isakmp.remove(&id)?;
        self.forget_isakmp(&sa.setup, id, &sa.exchanges);
        Some(sa)
    }

    /// Sees to it that nothing points to an SA that was taken out.
    pub(super) fn forget_isakmp(&mut self, setup: &Setup, id: u64, exchanges: &BTreeMap<u32, Quick>) {
        self.forget_cookie(setup.cookies.initiator, id);
        self.half_open.remove(Source::of(setup.remote.ip()), id);
        let all = [
            Timer::MainMode,
            Timer::IsakmpSoft,
            Timer::IsakmpHard,
            Timer::IsakmpRetire,
            Timer::Confirmation,
            Timer::Dpd,
            Timer::Probe,
            Timer::Transaction,
            Timer::Admission,
        ];
        all.iter().for_each(|timer| self.timers.cancel(&timer(id)));
        for &message_id in exchanges.keys() {
            self.timers.cancel(&Timer::QuickMode(id, message_id));
        }
    }

    fn forget_cookie(&mut self, cookie: Cookie, id: u64) {
        if let Some(ids) = self.by_cookie.get_mut(&cookie) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.by_cookie.remove(&cookie);
            }
        }
    }
}

/// Whether two addresses name the same end point, whatever their IPv6 flow label.
fn same_port(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip(), a.port()) == (b.ip(), b.port())
}

/// The failure of a main mode whose time is up: where it stood tells most,
/// unless the peer gave an explanation before.
fn timed_out(sa: &IsakmpSa) -> Failure {
    let setup = &sa.setup;
    let (ike, auth) = (&setup.policy, &setup.auth);
    let awaited = match sa.state.name() {
        StateName::InitiatorSaSent => "no answer to message 1",
        StateName::InitiatorKeSent => "no answer to message 3",
        StateName::InitiatorAuthSent => "no answer to message 5",
        StateName::ResponderSaSent => "message 3 did not come after our message 2",
        StateName::AggressiveInitiatorSaSent => "no answer to message 1",
        StateName::AggressiveResponderAuthSent => "message 3 did not come after our message 2",
        StateName::InitiatorSigning
        | StateName::ResponderSigning
        | StateName::AggressiveInitiatorSigning
        | StateName::AggressiveResponderSigning => {
            return late_answer(&sa.setup.auth, "our signature");
        }
        StateName::InitiatorJudging
        | StateName::ResponderJudging
        | StateName::AggressiveInitiatorJudging
        | StateName::AggressiveResponderJudging => {
            return late_answer(&sa.setup.auth, "the verdict on the peer's certificate");
        }
        _ => "message 5 did not come after our message 4",
    };
    let exceeded = match &sa.request {
        Some(request) => {
            format!("{awaited}, sent {} times: retransmission count exceeded the limit", request.transmissions())
        }
        None => awaited.into(),
    };
    if let Some(hint) = &sa.hint {
        let detail = format!("{} ({exceeded})", hint.detail);
        return Failure::new(Kind::Timeout, hint.fault, detail, hint.remedy.clone());
    }
    let port = setup.remote.port();
    let (fault, detail, remedy) = match sa.state.name() {
        StateName::InitiatorAwaitingSecret
        | StateName::AggressiveInitiatorAwaitingSecret
        | StateName::AggressiveResponderAwaitingSecret => return late_secret(auth),
        StateName::ResponderKeSent if sa.held.is_some() => return late_secret(auth),
        StateName::AggressiveResponderAuthSent => (
            Fault::Peer,
            exceeded,
            format!(
                "see that UDP ports {} and {} get through both ways, and look at the peer's log: it may not accept our \
                 key, certificate or identity; somebody may also have sent message 1 under its address",
                setup.local.port(),
                setup.natt_port
            ),
        ),
        StateName::InitiatorSaSent | StateName::AggressiveInitiatorSaSent => (
            Fault::Peer,
            format!("{exceeded}; we offered {}", listed(&phase1::suites(ike))),
            format!(
                "see that the peer runs and UDP port {port} gets through, and compare `proposals` of ike policy `{}` \
                 (line {}) with the peer's, which may refuse in silence",
                ike.name, ike.line
            ),
        ),
        StateName::InitiatorAuthSent if sa.state.method() != Some(AuthMethod::PreSharedKey) => (
            Fault::Mismatch,
            format!("{exceeded}; the peer does not accept our certificate, signature or identity, or is not heard"),
            format!(
                "look at the peer's log, and at `certificate` and `lid` of auth record `{}` (line {}), and see that UDP \
                 port {port} gets through: with certificates in it the message may come in fragments",
                auth.name, auth.line
            ),
        ),
        StateName::InitiatorAuthSent => (
            Fault::Mismatch,
            format!(
                "{exceeded}; that message is the first that depends on the pre-shared key: it differs, or the peer \
                 does not accept our identity"
            ),
            format!(
                "compare the pre-shared key and `lid` of auth record `{}` (line {}) with the peer's, and see that UDP \
                 port {port} gets through",
                auth.name, auth.line
            ),
        ),
        _ => (
            Fault::Peer,
            exceeded,
            format!("see that UDP port {} gets through both ways, and look at the peer's log", setup.local.port()),
        ),
    };
    Failure::new(Kind::Timeout, fault, detail, remedy)
}

/// The pre-shared key was asked for, and no answer came.
fn late_secret(auth: &AuthRecord) -> Failure {
    late_answer(auth, "the pre-shared key")
}

fn late_answer(auth: &AuthRecord, what: &str) -> Failure {
    let detail = format!("{what} of auth record `{}` (line {}) did not come in time", auth.name, auth.line);
    Failure::new(Kind::Timeout, Fault::Ours, detail, "look at where the keys are kept")
}

/// Policy and record have no authentication method in common.
fn no_method(policy: &IkePolicy, auth: &AuthRecord) -> String {
    let (ike, name) = (&policy.name, &auth.name);
    if auth.methods.is_empty() {
        return format!("auth record `{name}` (line {}) has no pre-shared key and no certificate", auth.line);
    }
    let listed = |methods: &[AuthMethod]| methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (ours, allowed) = (listed(&auth.methods), listed(&policy.methods));
    format!("auth record `{name}` (line {}) has {ours}, ike policy `{ike}` (line {}) {allowed}", auth.line, policy.line)
}
