//! The engine: every negotiation and SA of this host, with datagrams, time and
//! commands as input and a queue of outputs.
//!
//! Call one of the `handle_` functions, then [`Engine::poll_output`] until
//! nothing is left; call [`Engine::handle_timeout`] at [`Engine::next_timeout`].

mod aggressive;
mod anti_clogging;
mod contacts;
mod doubts;
mod fragments;
mod informational;
mod isakmp;
mod lifecycle;
mod liveness;
mod mode_config;
mod newcomers;
mod pairs;
mod peers;
mod phase1;
mod phase2;
mod refusals;
mod sessions;
mod signatures;
mod source;
#[cfg(test)]
mod tests;
mod transaction;
mod tunnels;
mod undecodable;
mod xauth;

pub use fragments::FragmentCounts;
pub use isakmp::Discarded;

use crate::failure::slashed;
use crate::main_mode::Established;
use crate::main_mode::table::StateName;
use crate::mode_config::Assignment;
use crate::report::{IsakmpReport, PairReport, TunnelReport};
use crate::schedule::Schedule;
use crate::wire::numbers::{ExchangeType, PayloadKind};
use crate::wire::{Cookie, Header, Message};
use aggressive::Strangers;
use anti_clogging::{AntiClogging, Path};
use contacts::Contacts;
use crypto::table::Signature;
use crypto::{Entropy, Secret};
use fragments::Fragments;
use isakmp::{IsakmpSa, Quick};
use newcomers::Newcomers;
use pairs::Pair;
use policy::audit::{AuditEvent, Entity, Level, number};
use policy::config::{Config, IdentityPattern, StartMode};
use policy::sa::SaSpec;
use policy::session::Session;
use policy::spi::SpiPool;
use policy::time::Timestamp;
use policy::trust::{Claim, Refusal, Trusted};
use refusals::Refusals;
use source::HalfOpen;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tunnels::Tunnel;

/// One ISAKMP message as it came in, without the non-ESP marker.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Our address and the port it came to: `ike_port` or `natt_port` of the configuration.
    pub local: SocketAddr,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The message.
    pub payload: &'a [u8],
}

/// What others want of the engine.
#[derive(Clone, Debug)]
pub enum Command {
    /// A packet waits for this tunnel, or an administrator asks for it.
    Initiate {
        /// Name of the tunnel policy.
        tunnel: Arc<str>,
    },
    /// A packet of a session waits, which is to have a pair of its own.
    InitiateSession {
        /// Name of the tunnel policy.
        tunnel: Arc<str>,
        /// The session.
        session: Session,
    },
    /// The session of this pair has carried nothing for long: delete its pairs.
    Idle {
        /// The pair.
        pair: u64,
    },
    /// The answer to [`Output::NeedSecret`].
    Secret {
        /// As in the question.
        token: u64,
        /// `None`: there is no such key.
        secret: Option<Secret>,
    },
    /// The answer to [`Output::Sign`].
    Signed {
        /// As in the question.
        token: u64,
        /// Our certificates (DER, our own first, then those between it and the authority) and the
        /// signature; or why there are none, as a clause.
        signed: Result<(Vec<Vec<u8>>, Vec<u8>), String>,
    },
    /// The answer to [`Output::Judge`].
    Judged {
        /// As in the question.
        token: u64,
        /// Whether the peer is believed.
        verdict: Result<Trusted, Refusal>,
    },
    /// The answer to [`Output::NeedPassword`].
    Password {
        /// As in the question.
        token: u64,
        /// `None`: there is none.
        password: Option<Secret>,
    },
    /// The answer to [`Output::CheckUser`].
    UserChecked {
        /// As in the question.
        token: u64,
        /// Whether it is his password; or why that cannot be told, as a clause.
        verdict: Result<bool, String>,
    },
    /// The answer to [`Output::NeedLease`]. The tunnels of that client must be in the configuration before.
    Leased {
        /// As in the question.
        token: u64,
        /// The address, and what goes with it; or why there is none, as a clause.
        lease: Result<Assignment, String>,
    },
    /// The answer to [`Output::NeedActivity`].
    Activity {
        /// As in the question.
        token: u64,
        /// When a packet last came in that was authentic; `None`: never.
        received: Option<Timestamp>,
        /// When a packet last went out.
        sent: Option<Timestamp>,
    },
    /// A pair reached its soft volume limit: replace it.
    Rekey {
        /// The pair.
        pair: u64,
    },
    /// A pair reached its hard volume limit and is not used any more: delete it.
    Expired {
        /// The pair.
        pair: u64,
    },
    /// An authentic packet of a pair, newer than all before it, came from elsewhere than
    /// where the peer was.
    PeerMoved {
        /// The pair.
        pair: u64,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// Negotiate new ISAKMP SAs in place of those with this peer.
    RekeyPeer {
        /// Its address.
        peer: IpAddr,
    },
    /// An ESP packet came in under an SPI that no SA has: tell its sender, if
    /// an ISAKMP SA with it allows to do so credibly.
    UnknownSpi {
        /// The sender's address, and its port if the packet came in UDP.
        peer: SocketAddr,
        /// The SPI.
        spi: u32,
    },
    /// Work by this configuration from now on. SAs that it does not change stay.
    Reload {
        /// The new configuration.
        config: Arc<Config>,
    },
    /// Delete every SA with this peer, and tell it.
    DeletePeer {
        /// Its address.
        peer: IpAddr,
    },
    /// Delete every SA, tell the peers, and begin nothing any more.
    Shutdown,
}

/// What the engine wants of others, in the order in which it must happen.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the queue is short, and its items are moved once")]
pub enum Output {
    /// Send a datagram: the exact UDP payload, with the non-ESP marker or
    /// being a keepalive where the NAT-T port asks for it.
    Transmit {
        /// From this address and port of ours.
        local: SocketAddr,
        /// To.
        remote: SocketAddr,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// Answer with [`Command::Secret`], in time: the negotiation waits.
    NeedSecret {
        /// To be repeated in the answer.
        token: u64,
        /// Name of the authentication record.
        auth_record: String,
        /// For which peer.
        peer: IpAddr,
    },
    /// Sign, and answer with [`Command::Signed`], in time: the negotiation waits.
    Sign {
        /// To be repeated in the answer.
        token: u64,
        /// Name of the authentication record.
        auth_record: String,
        /// How to sign.
        method: &'static Signature,
        /// HASH_I or HASH_R (RFC 2409 5), to be signed as it is.
        hash: Secret,
    },
    /// Judge whether a peer is who it must be, and answer with [`Command::Judged`], in time:
    /// the negotiation waits.
    Judge {
        /// To be repeated in the answer.
        token: u64,
        /// Name of the authentication record.
        auth_record: String,
        /// How the peer signed.
        method: &'static Signature,
        /// What the peer must have signed.
        hash: Secret,
        /// Its signature.
        signature: Vec<u8>,
        /// Who it says it is.
        claim: Claim,
        /// Its certificates, DER, as they came.
        certificates: Vec<Vec<u8>>,
        /// Who it must be.
        expected: IdentityPattern,
    },
    /// Answer with [`Command::Password`], in time: the peer waits.
    NeedPassword {
        /// To be repeated in the answer.
        token: u64,
        /// Name of the authentication record, whose user it is.
        auth_record: String,
        /// Who asks.
        peer: IpAddr,
    },
    /// See whether a user is who he says, and answer with [`Command::UserChecked`], in time: the peer waits.
    CheckUser {
        /// To be repeated in the answer.
        token: u64,
        /// Name of the authentication record.
        auth_record: String,
        /// Who he says he is.
        user: String,
        /// The password he gives.
        password: Secret,
    },
    /// A client is to have an address: answer with [`Command::Leased`], in time.
    NeedLease {
        /// To be repeated in the answer.
        token: u64,
        /// Who has proved to be its owner: a user, or an identity of phase 1.
        owner: Arc<str>,
        /// Our end point, which names the pool.
        local: IpAddr,
        /// Where the client is.
        peer: IpAddr,
    },
    /// A peer has given us an address: use it, with tunnels made for it.
    Assigned {
        /// Our end point.
        local: IpAddr,
        /// Where the peer is.
        peer: IpAddr,
        /// The address, and what goes with it.
        assignment: Assignment,
    },
    /// Answer with [`Command::Activity`]: when did these pairs last carry packets? Nobody waits.
    NeedActivity {
        /// To be repeated in the answer.
        token: u64,
        /// The pairs with one peer.
        pairs: Vec<u64>,
    },
    /// Both SAs of a pair exist: make them.
    InstallPair {
        /// Decrypts what the peer sends, from now on.
        inbound: SaSpec,
        /// Encrypts what we send, but only from [`Output::ActivateOutbound`] on,
        /// when the peer has it too.
        outbound: SaSpec,
    },
    /// Encrypt with the outbound SA of this pair from now on.
    ActivateOutbound {
        /// The pair.
        pair: u64,
    },
    /// The peer's NAT maps it to another port: send UDP-encapsulated ESP of this pair there.
    PeerMoved {
        /// The pair.
        pair: u64,
        /// Where the peer is now.
        remote: SocketAddr,
    },
    /// Both SAs of a pair are gone.
    RemovePair {
        /// The pair.
        pair: u64,
        /// SPI of the inbound SA.
        inbound_spi: u32,
        /// SPI of the outbound SA.
        outbound_spi: u32,
        /// Why.
        reason: String,
    },
    /// What waits for this tunnel waits in vain.
    TunnelFailed {
        /// Name of the tunnel policy.
        tunnel: Arc<str>,
        /// As in the audit event.
        reason: String,
    },
    /// What waits for the pair of this session waits in vain.
    SessionFailed {
        /// Name of the tunnel policy.
        tunnel: Arc<str>,
        /// The session.
        session: Session,
        /// As in the audit event.
        reason: String,
    },
    /// Something to be recorded.
    Audit(AuditEvent),
    /// The key of an ISAKMP SA's messages, for an observer such as Wireshark.
    /// Only when `export_keys` of the configuration asks for it.
    IsakmpKeys {
        /// Names the SA.
        initiator_cookie: [u8; 8],
        /// Key of the cipher.
        encryption_key: Secret,
    },
}

/// What can become due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A main mode: retransmit, or give up.
    MainMode(u64),
    /// A quick mode: retransmit, give up, or forget.
    QuickMode(u64, u32),
    /// An ISAKMP SA nears its end.
    IsakmpSoft(u64),
    /// An ISAKMP SA ends.
    IsakmpHard(u64),
    /// An ISAKMP SA that another one replaces.
    IsakmpRetire(u64),
    /// Has the initiator of an ISAKMP SA shown that it has it too?
    Confirmation(u64),
    /// The peer of an ISAKMP SA is to answer a transaction exchange.
    Transaction(u64),
    /// What stands before the quick modes of an ISAKMP SA takes too long.
    Admission(u64),
    /// Has the peer of an ISAKMP SA been heard lately?
    Dpd(u64),
    /// The peer of an ISAKMP SA was asked whether it is there.
    Probe(u64),
    /// A NAT mapping is to be kept open.
    Keepalive(SocketAddr, SocketAddr),
    /// A pair nears its end.
    PairSoft(u64),
    /// A pair ends.
    PairHard(u64),
    /// The peer has had time to install a pair.
    PairReady(u64),
    /// A pair that another one replaces.
    PairRetire(u64),
    /// A tunnel is to be tried (again).
    Tunnel(Arc<str>),
    /// A delete is to be repeated, in case it was lost.
    Farewell(u64),
    /// First messages are remembered that nothing has followed.
    Newcomers,
    /// Messages are not complete.
    Fragments,
}

/// Every negotiation and SA of this host.
pub struct Engine {
    config: Arc<Config>,
    stopping: bool,
    /// Names ISAKMP SAs, pairs and farewells; never reused.
    next_id: u64,
    isakmp: BTreeMap<u64, IsakmpSa>,
    by_cookie: BTreeMap<Cookie, Vec<u64>>,
    pairs: BTreeMap<u64, Pair>,
    by_tunnel: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// SPIs of ours that are in use or offered.
    inbound_spis: SpiPool,
    /// Those of the configuration, and of sessions.
    tunnels: BTreeMap<Arc<str>, Tunnel>,
    /// How many are of sessions.
    sessions: u32,
    /// Of sessions that may have ended.
    ended: BTreeSet<Arc<str>>,
    timers: Schedule<Timer>,
    refusals: Refusals,
    anti_clogging: AntiClogging,
    newcomers: Newcomers,
    half_open: HalfOpen,
    strangers: Strangers,
    fragments: Fragments,
    fragment_counts: FragmentCounts,
    farewells: BTreeMap<u64, informational::Farewell>,
    /// Peers that had an ISAKMP SA with us since we started.
    contacted: Contacts,
    /// Unknown SPIs reported to their senders lately.
    unknown_spis: VecDeque<(Timestamp, IpAddr, u32)>,
    discarded: BTreeMap<Discarded, u64>,
    output: VecDeque<Output>,
}

impl Engine {
    /// An engine with no SA. Tunnels that start at boot are due at once.
    #[must_use]
    pub fn new(config: Arc<Config>, now: Timestamp) -> Self {
        let mut engine = Self {
            config: Arc::clone(&config),
            stopping: false,
            next_id: 1,
            isakmp: BTreeMap::new(),
            by_cookie: BTreeMap::new(),
            pairs: BTreeMap::new(),
            by_tunnel: BTreeMap::new(),
            inbound_spis: SpiPool::default(),
            tunnels: BTreeMap::new(),
            sessions: 0,
            ended: BTreeSet::new(),
            timers: Schedule::new(),
            refusals: Refusals::default(),
            anti_clogging: AntiClogging::default(),
            newcomers: Newcomers::default(),
            half_open: HalfOpen::default(),
            strangers: Strangers::default(),
            fragments: Fragments::default(),
            fragment_counts: FragmentCounts::default(),
            farewells: BTreeMap::new(),
            contacted: Contacts::default(),
            unknown_spis: VecDeque::new(),
            discarded: BTreeMap::new(),
            output: VecDeque::new(),
        };
        for policy in config.negotiated() {
            engine.tunnels.insert(Arc::clone(&policy.name), Tunnel::new(Arc::clone(policy)));
            if policy.start == StartMode::Boot {
                engine.timers.set(Timer::Tunnel(Arc::clone(&policy.name)), now);
            }
        }
        engine
    }

    /// A datagram has come in.
    pub fn handle_datagram(&mut self, now: Timestamp, datagram: Datagram<'_>, entropy: &mut dyn Entropy) {
        let message = match Message::decode(datagram.payload) {
            Ok(message) => message,
            Err(error) => return self.undecodable(now, &datagram, &error, entropy),
        };
        if message.header.first != PayloadKind::FRAGMENT {
            self.handle_message(now, datagram, &message, entropy);
        } else if let Some((whole, message)) = self.fragment(now, &datagram, &message) {
            self.handle_message(now, Datagram { payload: &whole, ..datagram }, &message, entropy);
        }
        self.forget_sessions();
    }

    /// A whole message has come in.
    fn handle_message(&mut self, now: Timestamp, datagram: Datagram<'_>, message: &Message, entropy: &mut dyn Entropy) {
        let exchange = message.header.exchange;
        let known = [
            ExchangeType::MAIN_MODE,
            ExchangeType::AGGRESSIVE,
            ExchangeType::QUICK_MODE,
            ExchangeType::INFORMATIONAL,
            ExchangeType::TRANSACTION,
            ExchangeType::NEW_GROUP_MODE,
        ];
        if !known.contains(&exchange) {
            self.unsupported_exchange(now, &datagram, message, entropy);
        } else if exchange == ExchangeType::MAIN_MODE && message.header.responder == Cookie::ZERO {
            self.first_message(now, &datagram, message, entropy);
        } else if exchange == ExchangeType::AGGRESSIVE && message.header.responder == Cookie::ZERO {
            self.first_aggressive_message(now, &datagram, message, entropy);
        } else if let Some(id) = self.sa_of(&message.header, &datagram) {
            match exchange {
                ExchangeType::MAIN_MODE | ExchangeType::AGGRESSIVE => {
                    self.main_mode_message(now, id, &datagram, message, entropy)
                }
                ExchangeType::QUICK_MODE => self.quick_mode_message(now, id, &datagram, message, entropy),
                ExchangeType::TRANSACTION => self.transaction_message(now, id, &datagram, message, entropy),
                ExchangeType::NEW_GROUP_MODE => self.new_group_message(now, id, &datagram, message, entropy),
                _ => self.informational_message(now, id, &datagram, message, entropy),
            }
        } else if exchange == ExchangeType::MAIN_MODE {
            self.admit(now, &datagram, message, entropy);
        } else if exchange == ExchangeType::INFORMATIONAL {
            self.stray_informational(now, &datagram, message, entropy);
        } else {
            self.discard(Discarded::UnknownSa);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp, entropy: &mut dyn Entropy) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::MainMode(id) => self.main_mode_due(now, id, entropy),
                Timer::QuickMode(id, message_id) => self.quick_mode_due(now, id, message_id, entropy),
                Timer::IsakmpSoft(id) => self.isakmp_soft(now, id, entropy),
                Timer::IsakmpHard(id) => self.isakmp_hard(now, id, entropy),
                Timer::IsakmpRetire(id) => self.isakmp_retire(now, id, entropy),
                Timer::Confirmation(id) => self.confirmation_due(now, id, entropy),
                Timer::Transaction(id) => self.transaction_due(now, id, entropy),
                Timer::Admission(id) => self.admission_due(now, id, entropy),
                Timer::Dpd(id) => self.dpd_due(now, id),
                Timer::Probe(id) => self.probe_due(now, id, entropy),
                Timer::Keepalive(local, remote) => self.keepalive(now, local, remote),
                Timer::PairSoft(pair) => self.pair_soft(now, pair, entropy),
                Timer::PairHard(pair) => self.pair_hard(now, pair, entropy),
                Timer::PairReady(pair) => self.pair_ready(pair),
                Timer::PairRetire(pair) => self.pair_retire(now, pair, entropy),
                Timer::Tunnel(name) => self.tunnel_due(now, &name, entropy),
                Timer::Farewell(id) => self.farewell_due(now, id),
                Timer::Newcomers => self.newcomers_due(now),
                Timer::Fragments => self.fragments_due(now),
            }
        }
        self.forget_sessions();
    }

    /// Somebody wants something.
    pub fn handle_command(&mut self, now: Timestamp, command: Command, entropy: &mut dyn Entropy) {
        match command {
            Command::Initiate { tunnel } => self.initiate(now, &tunnel, entropy),
            Command::InitiateSession { tunnel, session } => self.initiate_session(now, &tunnel, session, entropy),
            Command::Idle { pair } => self.session_idle(now, pair, entropy),
            Command::Secret { token, secret } => self.secret(now, token, secret, entropy),
            Command::Signed { token, signed } => self.signed(now, token, signed, entropy),
            Command::Judged { token, verdict } => self.judged(now, token, verdict, entropy),
            Command::Password { token, password } => self.password(now, token, password, entropy),
            Command::Leased { token, lease } => self.leased(now, token, lease, entropy),
            Command::UserChecked { token, verdict } => self.user_checked(now, token, verdict, entropy),
            Command::Activity { token, received, sent } => self.activity(now, token, received, sent, entropy),
            Command::Rekey { pair } => self.pair_soft(now, pair, entropy),
            Command::Expired { pair } => self.pair_hard(now, pair, entropy),
            Command::PeerMoved { pair, remote } => self.pair_moved(now, pair, remote),
            Command::RekeyPeer { peer } => self.rekey_peer(now, peer, entropy),
            Command::UnknownSpi { peer, spi } => self.unknown_spi(now, peer, spi, entropy),
            Command::Reload { config } => self.reload(now, config, entropy),
            Command::DeletePeer { peer } => self.delete_peer(now, peer, entropy),
            Command::Shutdown => self.shutdown(now, entropy),
        }
        self.forget_sessions();
    }

    /// The next thing to be done outside, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call [`Engine::handle_timeout`], if nothing else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// ISAKMP SAs, negotiated or being negotiated.
    #[must_use]
    pub fn isakmp_sas(&self) -> Vec<IsakmpReport> {
        self.isakmp.values().map(|sa| sa.report(self.timers.at(&Timer::IsakmpHard(sa.id)))).collect()
    }

    /// Pairs of ESP SAs.
    #[must_use]
    pub fn pairs(&self) -> Vec<PairReport> {
        let report = |pair: &Pair| {
            let current = self.current_pair(&pair.tunnel) == Some(pair.id);
            let soft = self.timers.at(&Timer::PairSoft(pair.id));
            pair.report(current, soft, self.timers.at(&Timer::PairHard(pair.id)))
        };
        self.pairs.values().map(report).collect()
    }

    /// Tunnels of the configuration, up, down or in between.
    #[must_use]
    pub fn tunnels(&self) -> Vec<TunnelReport> {
        self.tunnels
            .iter()
            .filter(|(_, tunnel)| tunnel.of.is_none())
            .map(|(name, tunnel)| {
                tunnel.report(self.current_pair(name), self.timers.at(&Timer::Tunnel(Arc::clone(name))))
            })
            .collect()
    }

    /// Messages that were not processed, by reason.
    #[must_use]
    pub fn discarded(&self) -> &BTreeMap<Discarded, u64> {
        &self.discarded
    }

    fn discard(&mut self, reason: Discarded) {
        *self.discarded.entry(reason).or_default() += 1;
    }

    /// A quick mode under an established ISAKMP SA.
    fn exchange(&mut self, id: u64, message_id: u32) -> Option<(&Established, &mut Quick)> {
        self.isakmp.get_mut(&id)?.exchange(message_id)
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn audit(&mut self, level: Level, number: u32, text: String) {
        self.output.push_back(Output::Audit(AuditEvent { number, entity: Entity::Ikmpd, level, text }));
    }

    /// Sends an ISAKMP message, behind the non-ESP marker on the NAT-T port (RFC 3948 2.2).
    fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, message: &[u8]) {
        let marker: &[u8] = if local.port() == self.config.startup.natt_port { &[0; 4] } else { &[] };
        let Some(pieces) = self.in_fragments(local, message) else {
            self.output.push_back(Output::Transmit { local, remote, payload: [marker, message].concat() });
            return;
        };
        for piece in pieces {
            self.output.push_back(Output::Transmit { local, remote, payload: [marker, &piece].concat() });
        }
    }

    /// The SA that a message belongs to, by its cookies and addresses.
    fn sa_of(&self, header: &Header, datagram: &Datagram<'_>) -> Option<u64> {
        let ids = self.by_cookie.get(&header.initiator)?;
        ids.iter().copied().find(|id| {
            self.isakmp.get(id).is_some_and(|sa| {
                let cookie = sa.setup.cookies.responder;
                // The first answer to an initiator brings the responder's cookie.
                let named = cookie == header.responder
                    || cookie == Cookie::ZERO
                        && matches!(sa.state.name(), StateName::InitiatorSaSent | StateName::AggressiveInitiatorSaSent);
                named && sa.setup.remote.ip() == datagram.remote.ip() && sa.setup.local.ip() == datagram.local.ip()
            })
        })
    }

    /// An exchange that this version does not know: refused aloud, once per attempt.
    fn unsupported_exchange(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        self.discard(Discarded::Exchange);
        let first = message.header.responder == Cookie::ZERO && message.header.initiator != Cookie::ZERO;
        let peer = datagram.remote.ip();
        if !first || self.stopping || self.config.ike_policy(peer).is_none() {
            return;
        }
        if self.refusals.find(now, datagram.remote, message.header.initiator).is_some() {
            return;
        }
        if self.refusals.keep(now, datagram.remote, message.header.initiator, None) {
            let exchange = message.header.exchange;
            let (words, why) = if exchange == ExchangeType::AGGRESSIVE {
                let initiator = message.header.initiator;
                let path = Path { local: datagram.local, remote: datagram.remote, initiator };
                ("Aggressive Mode", self.aggressive_not_allowed(&path))
            } else {
                ("Main Mode", "which is not supported; configure main mode on the peer".to_owned())
            };
            let text = format!(
                "{words} processing failed: {exchange} with {} as responder, a mismatch: the peer asks for {exchange}, \
                 {why}",
                slashed(datagram.remote),
            );
            self.audit(Level::Error, number::ikmpd::MAIN_MODE_FAILED, text);
            let kind = crate::wire::numbers::NotifyKind::INVALID_EXCHANGE_TYPE;
            let cookies = crate::keys::Cookies { initiator: message.header.initiator, responder: Cookie::ZERO };
            let id = crate::informational::message_id(entropy);
            let reply = crate::informational::clear_notification(cookies, id, kind);
            self.answer_stranger(datagram, &reply);
        }
    }
}
