//! The daemon's main loop: whatever happens is handed to the IKE engine, the
//! packet path or the network, and what they want in return is done at once.

use super::export::KeyExport;
use super::ike_ports::{Arrivals, IkePorts};
use super::judge::{Answer, Judge, Question, Sources, Task};
use super::manual::{self, Manual};
use super::network::Network;
use super::remote_access::{RemoteClients, Wish};
use super::reports;
use super::startup::StartError;
use super::system::{Clock, SystemEntropy, notify_service_manager};
use super::tun_mtu::tun_mtu;
use super::users::{self, UserChecker};
use super::waiting::Waiting;
use crate::audit_log::AuditLog;
use crate::control::Request;
use crate::control::server::{Responder, Server};
use crate::credentials::CredentialStore;
use crate::revocation::{CrlStatus, Issuers};
use crate::user_store::UserStore;
use crate::wall_clock::Date;
use crypto::Entropy;
use datapath::sa::SaEvent;
use datapath::sessions::Lane;
use datapath::{Datapath, Event, PairError, Shared};
use ike::{Command, Datagram, Engine, Output, TunnelState};
use keys::PresharedKeys;
use policy::audit::{AuditEvent, PolicyEvent};
use policy::config::Config;
use policy::counters::DropReason;
use policy::sa::{SaProtocol, SaSpec};
use policy::session::Session;
use policy::time::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How often the daemon looks whether the outside has changed: addresses, path MTUs, the guard.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// How often the daemon looks for sessions that are idle.
const SESSIONS: Duration = Duration::from_secs(1);
/// Events of the packet path that wait for the daemon; more are counted as lost by the packet path's sender.
const EVENTS: usize = 1024;
/// Commands that wait for the daemon.
const REQUESTS: usize = 32;
/// For so long after packets began a negotiation that failed, they do not begin another: a peer that refuses at once
/// would be asked, and the audit filled, with every packet.
const HOLD_DOWN: Duration = Duration::from_secs(2);
/// Where fetched CRLs are kept, in the run directory.
const CRL_DIRECTORY: &str = "crl";
/// Far enough away for a timer that is not set.
const LONG: Duration = Duration::from_secs(3600);

/// What a daemon is made of.
pub(super) struct Parts {
    pub(super) config_file: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) config: Arc<Config>,
    pub(super) preshared: PresharedKeys,
    pub(super) credentials: CredentialStore,
    pub(super) users: UserStore,
    pub(super) clients: RemoteClients,
    pub(super) clock: Clock,
    pub(super) entropy: SystemEntropy,
    pub(super) ike_ports: IkePorts,
    pub(super) datapath: Datapath,
    pub(super) audit: AuditLog,
    pub(super) export: Option<KeyExport>,
}

pub(super) struct Daemon {
    pub(super) config_file: PathBuf,
    run_dir: PathBuf,
    /// In force: that of the file, with what clients add to it.
    pub(super) config: Arc<Config>,
    /// That of the file.
    pub(super) base_config: Arc<Config>,
    pub(super) clients: RemoteClients,
    pub(super) config_loaded: Date,
    pub(super) preshared: PresharedKeys,
    pub(super) credentials: CredentialStore,
    pub(super) users: UserStore,
    /// Once it runs.
    judge: Option<Judge>,
    user_checker: Option<UserChecker>,
    pub(super) clock: Clock,
    pub(super) entropy: SystemEntropy,
    pub(super) engine: Engine,
    pub(super) datapath: Datapath,
    pub(super) shared: Arc<Shared>,
    pub(super) audit: AuditLog,
    pub(super) export: Option<KeyExport>,
    pub(super) tun_mtu: u16,
    pub(super) waiting: Waiting,
    /// The SAs whose keys are in the configuration.
    pub(super) manual: Manual,
    /// When packets last began a negotiation, by tunnel.
    attempts: HashMap<Arc<str>, Timestamp>,
    /// When negotiations for sessions failed, of late.
    failed_sessions: HashMap<(Arc<str>, Session), Timestamp>,
    /// When idle sessions were last looked for.
    sessions_walked: Timestamp,
    ike_ports: IkePorts,
    /// Told to stop.
    pub(super) stopping: bool,
    /// Why it cannot go on.
    fatal: Option<StartError>,
}

impl Daemon {
    pub(super) fn new(parts: Parts) -> Self {
        let engine = Engine::new(Arc::clone(&parts.config), parts.clock.now());
        Self {
            tun_mtu: tun_mtu(&parts.config),
            shared: Arc::clone(parts.datapath.shared()),
            config_file: parts.config_file,
            run_dir: parts.run_dir,
            base_config: Arc::clone(&parts.config),
            clients: parts.clients,
            config: parts.config,
            config_loaded: Date::now(),
            preshared: parts.preshared,
            credentials: parts.credentials,
            users: parts.users,
            judge: None,
            user_checker: None,
            clock: parts.clock,
            entropy: parts.entropy,
            engine,
            datapath: parts.datapath,
            audit: parts.audit,
            export: parts.export,
            waiting: Waiting::default(),
            manual: Manual::default(),
            attempts: HashMap::new(),
            failed_sessions: HashMap::new(),
            sessions_walked: Timestamp::default(),
            ike_ports: parts.ike_ports,
            stopping: false,
            fatal: None,
        }
    }

    /// Leads traffic in, and works until told to stop; then says goodbye to the peers.
    pub(super) async fn run(&mut self, control: Server, network: &mut Network) -> Result<(), StartError> {
        network.open_tunnel(&self.config, tun_mtu(&self.config)).await?;
        self.warn_of_deafness(network).await;
        let (to_requests, mut requests) = mpsc::channel(REQUESTS);
        let socket = control.socket().display().to_string();
        tokio::spawn(control.run(to_requests));
        let mut events = forward(self.datapath.events());
        let (judge, mut answers) = Judge::start(self.run_dir.join(CRL_DIRECTORY)).map_err(StartError::Thread)?;
        self.judge = Some(judge);
        let (user_checker, mut checked) = UserChecker::start().map_err(StartError::Thread)?;
        self.user_checker = Some(user_checker);
        self.keep_crls();
        let on = |kind| signal(kind).map_err(StartError::Signals);
        let (mut terminate, mut interrupt, mut hangup) =
            (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sessions = tokio::time::interval(SESSIONS);
        sessions.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.say(&PolicyEvent::PoliciesInForce {
            epoch: self.shared.spd.load().epoch(),
            hosts: self.config.hosts.len(),
            tunnels: self.config.tunnels.len(),
        });
        self.tell_of_the_cache();
        self.install_manual_keys();
        tracing::info!("ready; control socket {socket}");
        notify_service_manager("READY=1");
        let mut now = self.clock.now();
        self.engine.handle_timeout(now, &mut self.entropy);
        while !self.stopping && self.fatal.is_none() {
            self.do_what_the_engine_wants();
            self.grant_wishes(network).await;
            let wake = self.engine.next_timeout().unwrap_or(now + LONG);
            tokio::select! {
                arrived = self.ike_ports.arrived() => self.arrived(arrived),
                Some(event) = events.recv() => self.event(event),
                Some(answer) = answers.recv() => match answer {
                    Answer::Command(command) => self.command(command),
                    Answer::Audit(event) => self.audit.record(&event),
                },
                Some(answer) = checked.recv() => self.command(answer),
                Some((request, responder)) = requests.recv() => self.request(request, responder, network).await,
                () = tokio::time::sleep_until(self.clock.instant(wake)) => {}
                _ = housekeeping.tick() => self.keep_house(network).await,
                _ = sessions.tick() => {
                    self.end_idle_sessions();
                    self.forget_clients(network).await;
                }
                _ = terminate.recv() => self.stopping = true,
                _ = interrupt.recv() => self.stopping = true,
                _ = hangup.recv() => self.reload_and_tell(network).await,
            }
            now = self.clock.now();
            if self.engine.next_timeout().is_some_and(|t| t <= now) {
                self.engine.handle_timeout(now, &mut self.entropy);
            }
        }
        notify_service_manager("STOPPING=1");
        self.command(Command::Shutdown);
        self.do_what_the_engine_wants();
        self.fatal.take().map_or(Ok(()), Err)
    }

    /// What the SPD cache may take of the machine.
    fn tell_of_the_cache(&self) {
        let table = reports::cache_table(&self.shared.cache);
        self.say(&PolicyEvent::CacheMemory {
            soft: table.soft_limit,
            hard: table.hard_limit,
            octets_ipv4: table.octets_at_hard_limit_ipv4,
            octets_ipv6: table.octets_at_hard_limit_ipv6,
            pages: table.pages.to_string(),
        });
    }

    /// Hands a command to the engine.
    pub(super) fn command(&mut self, command: Command) {
        self.engine.handle_command(self.clock.now(), command, &mut self.entropy);
    }

    /// Records an event of the policy engine.
    pub(super) fn say(&self, event: &PolicyEvent) {
        self.audit.record(&AuditEvent::from(event));
    }

    fn arrived(&mut self, arrived: std::io::Result<Arrivals>) {
        match arrived {
            Ok(Arrivals { datagrams, too_long, lost }) => {
                let counters = self.shared.daemon_counters();
                counters.dropped(DropReason::IkeTooLong, too_long);
                counters.dropped(DropReason::ReceiveBufferFull, lost.into());
                for d in datagrams {
                    self.datagram(d.local, d.remote, &d.payload);
                }
            }
            // ICMP errors of earlier datagrams and the like: retransmissions make up for them.
            Err(e) => tracing::debug!("IKE port: {e}"),
        }
    }

    fn datagram(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) {
        self.engine.handle_datagram(self.clock.now(), Datagram { local, remote, payload }, &mut self.entropy);
        // One at a time, so that an answer is not held up by what comes behind it.
        self.do_what_the_engine_wants();
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Acquire { tunnel, session: None, .. } => self.acquire(tunnel),
            Event::Acquire { tunnel, session: Some(session), .. } => self.acquire_session(tunnel, session),
            Event::Ike(d) => self.datagram(d.local, d.remote, &d.message),
            Event::Sa(event) if manual::is_manual(event.pair()) => self.manual_limit(event),
            Event::Sa(SaEvent::SoftLimit { pair, .. }) => self.command(Command::Rekey { pair }),
            Event::Sa(SaEvent::HardLimit { pair, .. }) => self.command(Command::Expired { pair }),
            Event::Cache(event) => self.say(&PolicyEvent::of_limit(event, &self.config)),
            Event::PeerMoved { pair, remote } => self.command(Command::PeerMoved { pair, remote }),
            Event::UnknownSpi { spi, protocol, local, remote } => {
                let protocol = if protocol == SaProtocol::Ah { 51 } else { 50 };
                self.say(&PolicyEvent::NoSpi { spi, source: remote.ip(), destination: local, protocol });
                self.command(Command::UnknownSpi { peer: remote, spi });
            }
            Event::SendFailed { remote, error } => tracing::debug!("IKE datagram to {remote}: {error}"),
            Event::WorkerStopped { worker, error } => self.fatal = Some(StartError::Worker { worker, error }),
        }
    }

    /// Packets wait for an SA: negotiates one, unless the last attempt has just been refused.
    fn acquire(&mut self, tunnel: u32) {
        let Some(name) = self.shared.spd.load().tunnel(tunnel).map(|t| Arc::clone(&t.name)) else { return };
        let now = self.clock.now();
        let down = |t: &ike::TunnelReport| t.name == name && t.state == TunnelState::Down && t.failures > 0;
        let begun = self.attempts.get(&name).is_some_and(|begun| now.since(*begun) < HOLD_DOWN);
        if begun && self.engine.tunnels().iter().any(down) {
            self.datapath.fail(tunnel);
        } else {
            self.attempts.insert(Arc::clone(&name), now);
            self.command(Command::Initiate { tunnel: name });
        }
    }

    /// Packets of a session wait for the SA that it is to have for itself.
    fn acquire_session(&mut self, tunnel: u32, session: Session) {
        let lane = Lane { tunnel, session: Some(session) };
        let Some(name) = self.shared.spd.load().tunnel(tunnel).map(|t| Arc::clone(&t.name)) else {
            return self.datapath.fail(lane);
        };
        let now = self.clock.now();
        self.failed_sessions.retain(|_, failed| now.since(*failed) < HOLD_DOWN);
        if self.failed_sessions.contains_key(&(Arc::clone(&name), session)) {
            self.datapath.fail(lane);
        } else {
            self.command(Command::InitiateSession { tunnel: name, session });
        }
    }

    fn session_failed(&mut self, tunnel: Arc<str>, session: Session, reason: &str) {
        tracing::info!("no SA for session {session} of tunnel {tunnel}: {reason}");
        if let Some(index) = self.shared.spd.load().tunnel_index(&tunnel) {
            self.datapath.fail(Lane { tunnel: index, session: Some(session) });
        }
        // No more are kept than there may be sessions: each of them failed.
        if self.failed_sessions.len() < self.config.startup.exclusive_sessions as usize {
            self.failed_sessions.insert((tunnel, session), self.clock.now());
        }
    }

    /// Deletes the pairs of sessions that have carried nothing for as long as cached decisions are kept.
    fn end_idle_sessions(&mut self) {
        let now = self.clock.now();
        let idle = Duration::from_secs(self.config.startup.cache_idle_seconds.into());
        // All pairs are walked: the longer they may idle, the less often.
        let pause = (idle / 10).clamp(SESSIONS, SESSIONS * 30);
        if self.shared.sessions() == 0 || now.since(self.sessions_walked) < pause {
            return;
        }
        self.sessions_walked = now;
        let mut last_use: HashMap<(Arc<str>, Session), (Timestamp, u64)> = HashMap::new();
        for pair in self.engine.pairs() {
            let (Some(session), Some(sas)) = (pair.session, self.shared.pair(pair.pair)) else { continue };
            let used = pair.created.max(sas.inbound.last_use()).max(sas.outbound.last_use());
            let latest = last_use.entry((pair.tunnel, session)).or_insert((used, pair.pair));
            latest.0 = latest.0.max(used);
        }
        for (_, (used, pair)) in last_use {
            if now.since(used) > idle {
                self.command(Command::Idle { pair });
            }
        }
    }

    /// Does everything that the engine has asked for, until it asks for nothing more.
    pub(super) fn do_what_the_engine_wants(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { local, remote, payload } => self.transmit(local, remote, &payload),
                Output::NeedSecret { token, auth_record, .. } => {
                    let secret = self.preshared.secret(&auth_record);
                    self.command(Command::Secret { token, secret });
                }
                Output::Sign { token, auth_record, method, hash } => {
                    self.ask(token, &auth_record, Task::Sign { method, hash });
                }
                Output::Judge { token, auth_record, method, hash, signature, claim, certificates, expected } => {
                    let task = Task::Judge { method, hash, signature, claim, certificates, expected };
                    self.ask(token, &auth_record, task);
                }
                Output::NeedPassword { token, auth_record, .. } => {
                    let password = self.users.password(&auth_record);
                    self.command(Command::Password { token, password });
                }
                Output::CheckUser { token, auth_record, user, password } => {
                    let users = self.users.users(&auth_record).cloned();
                    let question = users::Question { token, users, user, password };
                    if let Some(refusal) = self.user_checker.as_ref().and_then(|checker| checker.ask(question)) {
                        self.command(refusal);
                    }
                }
                Output::NeedLease { token, owner, local, peer } => {
                    self.clients.wishes.push(Wish::Lease { token, owner, local, peer });
                }
                Output::Assigned { local, peer, assignment } => {
                    self.clients.wishes.push(Wish::Assigned { local, peer, assignment });
                }
                Output::NeedActivity { token, pairs } => self.tell_activity(token, &pairs),
                Output::InstallPair { inbound, outbound } => self.install(&inbound, &outbound),
                Output::ActivateOutbound { pair } => self.activate(pair),
                Output::PeerMoved { pair, remote } => {
                    if let Err(e) = self.datapath.move_peer(pair, remote) {
                        tracing::error!("the peer of pair {pair} moved to {remote}, but {e}");
                    }
                }
                Output::RemovePair { pair, inbound_spi, outbound_spi, reason } => {
                    tracing::info!("SAs {inbound_spi:#x} and {outbound_spi:#x} are gone: {reason}");
                    // One that could not be installed is not there to be removed.
                    if let Err(e) = self.datapath.remove_pair(pair) {
                        tracing::debug!("{e}");
                    }
                }
                Output::TunnelFailed { tunnel, reason } => {
                    if let Some(index) = self.shared.spd.load().tunnel_index(&tunnel) {
                        self.datapath.fail(index);
                    }
                    self.waiting.failed(&tunnel, &reason);
                }
                Output::SessionFailed { tunnel, session, reason } => self.session_failed(tunnel, session, &reason),
                Output::Audit(event) => self.audit.record(&event),
                Output::IsakmpKeys { initiator_cookie, encryption_key } => {
                    self.exported(|export| export.isakmp(initiator_cookie, &encryption_key));
                }
            }
        }
    }

    /// Has a question answered; where nobody can, the negotiation ends by its time.
    fn ask(&mut self, token: u64, auth_record: &str, task: Task) {
        let credentials = self.credentials.of(auth_record).cloned();
        let record = self.config.auths.iter().find(|auth| auth.name == auth_record);
        let sources = record.and_then(|auth| auth.certificates.as_ref()).and_then(Sources::of);
        let question = Question { token, credentials, sources, task };
        if let Some(refusal) = self.judge.as_ref().and_then(|judge| judge.ask(question)) {
            self.command(refusal);
        }
    }

    /// Has the CRLs that the configuration names kept up to date.
    pub(super) fn keep_crls(&self) {
        let mut urls: BTreeMap<String, Issuers> = BTreeMap::new();
        for auth in &self.config.auths {
            let named = auth.certificates.iter().flat_map(|files| &files.crl_urls);
            let issuers = self.credentials.of(&auth.name).map(|credentials| credentials.list_issuers());
            for url in named {
                urls.entry(url.clone()).or_default().extend(issuers.iter().flatten().cloned());
            }
        }
        if let Some(judge) = &self.judge {
            judge.keep_crls(urls);
        }
    }

    /// What is known of fetched CRLs.
    pub(super) fn crls(&self) -> Vec<CrlStatus> {
        let Some(judge) = &self.judge else { return Vec::new() };
        judge.crls().lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) {
        if local.port() == self.config.startup.natt_port {
            self.datapath.send_udp(local, remote, payload.to_vec());
        } else if let Err(e) = self.ike_ports.send(local, remote, payload) {
            // A retransmission may fare better; if none does, the negotiation says so.
            tracing::debug!("IKE datagram from {local} to {remote}: {e}");
        }
    }

    fn install(&mut self, inbound: &SaSpec, outbound: &SaSpec) {
        let mut iv_key = [0; 16];
        self.entropy.fill(&mut iv_key);
        for sa in [inbound, outbound] {
            self.exported(|export| export.esp_sa(sa));
        }
        match self.datapath.install_pair(inbound, outbound, &iv_key) {
            Ok(_) => {}
            Err(e) => {
                self.say(&match &e {
                    PairError::Duplicate(duplicate) => (*duplicate).into(),
                    other => PolicyEvent::InvalidSa { spi: inbound.spi, reason: other.to_string() },
                });
                if inbound.session.is_none() {
                    self.waiting.failed(&inbound.tunnel, &e.to_string());
                }
                // The peer must not send into a void.
                self.command(Command::Expired { pair: inbound.pair });
            }
        }
    }

    /// When some pairs last carried packets.
    fn tell_activity(&mut self, token: u64, pairs: &[u64]) {
        let pairs: Vec<_> = pairs.iter().filter_map(|&pair| self.shared.pair(pair)).collect();
        let inbound = pairs.iter().filter(|p| p.inbound.packets() > 0).map(|p| p.inbound.last_use());
        let outbound = pairs.iter().filter(|p| p.outbound.packets() > 0).map(|p| p.outbound.last_use());
        let (received, sent) = (inbound.max(), outbound.max());
        self.command(Command::Activity { token, received, sent });
    }

    /// Sends with a pair from now on: only now is a tunnel up, both ways.
    fn activate(&mut self, pair: u64) {
        match self.datapath.activate_outbound(pair) {
            Ok(pair) => {
                let (inbound, outbound) = (pair.inbound.spec(), pair.outbound.spec());
                if outbound.session.is_none() {
                    self.waiting.up(&outbound.tunnel, inbound.spi, outbound.spi);
                }
            }
            Err(e) => tracing::error!("{e}"),
        }
    }

    pub(super) fn exported(&mut self, write: impl FnOnce(&KeyExport) -> std::io::Result<()>) {
        if let Some(Err(e)) = self.export.as_ref().map(write) {
            tracing::error!("cannot export keys: {e}; no more are exported until the next reload");
            self.export = None;
        }
    }

    async fn keep_house(&mut self, network: &mut Network) {
        match network.restore_guard(&self.config) {
            Ok(false) => {}
            Ok(true) => tracing::error!(
                "the nftables table `caponier` was taken away by somebody and has been put back; \
                 protected traffic could have left in the clear meanwhile"
            ),
            Err(e) => tracing::error!("{e}"),
        }
        if let Err(e) = network.follow(&self.config).await {
            tracing::error!("{e}");
        }
        let mtu = tun_mtu(&self.config);
        if mtu != self.tun_mtu {
            match network.set_mtu(&self.config, mtu).await {
                Ok(()) => self.tun_mtu = mtu,
                Err(e) => tracing::error!("{e}"),
            }
        }
    }

    async fn warn_of_deafness(&self, network: &Network) {
        match network.deaf_interfaces().await {
            Ok(names) if !names.is_empty() => tracing::warn!(
                "rp_filter is strict (1) on {}: a peer whose own address is protected by a policy is not heard \
                 there; set net.ipv4.conf.*.rp_filter to 2",
                names.join(", ")
            ),
            Ok(_) => {}
            Err(e) => tracing::warn!("{e}"),
        }
    }
}

/// Brings the packet path's events, which threads send, to the main loop.
fn forward(events: crossbeam::channel::Receiver<Event>) -> mpsc::Receiver<Event> {
    let (to_daemon, received) = mpsc::channel(EVENTS);
    let forward = move || {
        for event in events {
            if to_daemon.blocking_send(event).is_err() {
                return;
            }
        }
    };
    // Without this thread no first packet and no datagram on the NAT-T port would ever be heard of.
    if let Err(e) = std::thread::Builder::new().name("events".into()).spawn(forward) {
        tracing::error!("cannot start a thread: {e}");
    }
    received
}

impl Daemon {
    async fn reload_and_tell(&mut self, network: &mut Network) {
        notify_service_manager("RELOADING=1");
        if let Err(refusal) = self.reload(network).await {
            tracing::error!("{refusal}");
        }
        notify_service_manager("READY=1");
    }

    async fn request(&mut self, request: Request, responder: Responder, network: &mut Network) {
        super::requests::answer(self, request, responder, network).await;
    }
}
