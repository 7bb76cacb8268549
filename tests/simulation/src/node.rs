//! One host of a simulation: an engine, and a model of what the daemon and the packet path do with its outputs.

use crate::clock::Clock;
use crate::network::InFlight;
use crate::rng::Rng;
use crate::signer;
use crypto::entropy::testing::SeededEntropy;
use ike::{Command, Datagram, Engine, Output};
use policy::config::Config;
use policy::sa::SaSpec;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// An engine must have answered [`Command::Initiate`] after so long: an attempt
/// may take its 31 s, and several in a row may be lost with their ISAKMP SA
/// before the tunnel is given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Outputs that one input may cause.
const MOST_OUTPUTS: usize = 200;
/// Pairs that one tunnel may have at any time: the one in use, those being
/// replaced and, while both sides rekey at once, those that will lose.
const MOST_PAIRS: usize = 8;
/// Port of UDP encapsulation.
const NATT_PORT: u16 = 4500;
/// Datagrams that wait for a host which does not run: more are lost, as with a socket.
const SOCKET_BUFFER: usize = 100;

/// A pair as the packet path holds it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// What we receive with.
    pub(crate) inbound: SaSpec,
    /// What we send with.
    pub(crate) outbound: SaSpec,
    /// When it began to be used for sending, as a rising number; `None`: not yet.
    activated: Option<u64>,
    /// When a newer one of its tunnel began to be used.
    replaced: Option<Timestamp>,
    /// When a packet last went out with it, and when one last came in; by the host's clock.
    sent: Option<Timestamp>,
    received: Option<Timestamp>,
}

/// A host.
pub(crate) struct Node {
    /// Its outer address.
    pub(crate) address: IpAddr,
    /// Its clocks, and whether it is frozen.
    pub(crate) clock: Clock,
    config: Arc<Config>,
    engine: Option<Engine>,
    entropy: SeededEntropy,
    pairs: BTreeMap<u64, Pair>,
    activations: u64,
    /// Pairs removed that no packet ever could leave by.
    pub(crate) removed_unused: usize,
    wanted: BTreeMap<Arc<str>, Timestamp>,
    /// Answers to the engine's questions that are not given yet, and when they are.
    answers: Vec<(Timestamp, Command)>,
    /// What has arrived and is not read.
    inbox: Vec<InFlight>,
    /// Numbers of the packets that have arrived and could be decrypted.
    pub(crate) delivered: Vec<u64>,
    /// It believes no certificate.
    distrusts: bool,
    /// Texts of [`Output::TunnelFailed`].
    pub(crate) failures: Vec<String>,
    /// Audit lines, with their time: printed when a run fails.
    pub(crate) audit: Vec<(Timestamp, String)>,
}

impl Node {
    /// A host that does not run yet.
    #[must_use]
    pub(crate) fn new(address: IpAddr, config: Arc<Config>, distrusts: bool, seed: u64) -> Self {
        Self {
            address,
            clock: Clock::default(),
            config,
            engine: None,
            entropy: SeededEntropy::new(seed),
            pairs: BTreeMap::new(),
            activations: 0,
            removed_unused: 0,
            wanted: BTreeMap::new(),
            answers: Vec::new(),
            inbox: Vec::new(),
            delivered: Vec::new(),
            distrusts,
            failures: Vec::new(),
            audit: Vec::new(),
        }
    }

    /// Whether the engine runs.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        self.engine.is_some()
    }

    /// Starts the engine, which knows nothing of an earlier life.
    pub(crate) fn start(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<InFlight> {
        let local = self.clock.at(now);
        self.engine = Some(Engine::new(Arc::clone(&self.config), local));
        self.input(now, rng, |engine, entropy| engine.handle_timeout(local, entropy))
    }

    /// The process dies.
    pub(crate) fn crash(&mut self) {
        self.engine = None;
        self.pairs.clear();
        self.wanted.clear();
        self.answers.clear();
        self.inbox.clear();
        self.clock.thaw();
    }

    /// The engine ends in good order.
    ///
    /// # Panics
    /// If it leaves an SA.
    pub(crate) fn stop(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<InFlight> {
        let sent = self.command(now, rng, Command::Shutdown);
        assert!(self.pairs.is_empty(), "{}: pairs left after shutdown: {:?}", self.address, self.pairs.keys());
        self.assert_same_pairs();
        self.crash();
        sent
    }

    /// A command, if the engine runs.
    pub(crate) fn command(&mut self, now: Timestamp, rng: &mut Rng, command: Command) -> Vec<InFlight> {
        let local = self.clock.at(now);
        self.input(now, rng, |engine, entropy| engine.handle_command(local, command, entropy))
    }

    /// Packet `number` for a tunnel: it goes out encrypted, or asks for a pair.
    pub(crate) fn traffic(&mut self, now: Timestamp, rng: &mut Rng, tunnel: &Arc<str>, number: u64) -> Vec<InFlight> {
        if self.engine.is_none() || self.clock.is_frozen(now) {
            return Vec::new();
        }
        let local = self.clock.at(now);
        if let Some(id) = self.current(tunnel).map(|pair| pair.outbound.pair) {
            let Some(pair) = self.pairs.get_mut(&id) else { return Vec::new() };
            pair.sent = Some(local);
            return vec![sealed(&pair.outbound, number)];
        }
        if self.wanted.contains_key(tunnel) {
            return Vec::new();
        }
        self.wanted.insert(Arc::clone(tunnel), now);
        self.command(now, rng, Command::Initiate { tunnel: Arc::clone(tunnel) })
    }

    /// A datagram arrives: it is read at once if the host runs.
    pub(crate) fn arrives(&mut self, now: Timestamp, rng: &mut Rng, datagram: InFlight) -> Vec<InFlight> {
        if !self.clock.is_frozen(now) {
            return self.receive(now, rng, &datagram);
        }
        if self.engine.is_some() && self.inbox.len() < SOCKET_BUFFER {
            self.inbox.push(datagram);
        }
        Vec::new()
    }

    fn receive(&mut self, now: Timestamp, rng: &mut Rng, datagram: &InFlight) -> Vec<InFlight> {
        let mut payload = &datagram.payload[..];
        let (local, remote) = (datagram.destination, datagram.source);
        if local.port() == 0
            || local.port() == NATT_PORT && payload.len() > 1 && payload[..4.min(payload.len())] != [0; 4]
        {
            return self.open(now, rng, remote, payload);
        }
        if local.port() == NATT_PORT {
            // A keepalive has no marker.
            let Some(message) = payload.strip_prefix(&[0; 4]) else { return Vec::new() };
            payload = message;
        }
        let clock = self.clock.at(now);
        self.input(now, rng, |engine, entropy| {
            engine.handle_datagram(clock, Datagram { local, remote, payload }, entropy)
        })
    }

    /// An ESP packet has come.
    fn open(&mut self, now: Timestamp, rng: &mut Rng, peer: SocketAddr, packet: &[u8]) -> Vec<InFlight> {
        let Some((spi, rest)) = packet.split_first_chunk::<4>() else { return Vec::new() };
        let spi = u32::from_be_bytes(*spi);
        let local = self.clock.at(now);
        let Some(pair) = self.pairs.values_mut().find(|pair| pair.inbound.spi == spi) else {
            return self.command(now, rng, Command::UnknownSpi { peer, spi });
        };
        let Some((number, tag)) = rest.split_first_chunk::<8>() else { return Vec::new() };
        let number = u64::from_be_bytes(*number);
        if tag == seal(&pair.inbound, number) {
            pair.received = Some(local);
            self.delivered.push(number);
        }
        Vec::new()
    }

    /// What is due: datagrams that waited, answers, then the engine's timers.
    pub(crate) fn timeout(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<InFlight> {
        let mut sent = Vec::new();
        for datagram in std::mem::take(&mut self.inbox) {
            sent.extend(self.receive(now, rng, &datagram));
        }
        let (due, later) = std::mem::take(&mut self.answers).into_iter().partition(|(at, _)| *at <= now);
        self.answers = later;
        let due: Vec<(Timestamp, Command)> = due;
        for (_, answer) in due {
            sent.extend(self.command(now, rng, answer));
        }
        let local = self.clock.at(now);
        for _ in 0..50 {
            if self.engine.as_ref().and_then(Engine::next_timeout).is_none_or(|at| at > local) {
                return sent;
            }
            sent.extend(self.input(now, rng, |engine, entropy| engine.handle_timeout(local, entropy)));
        }
        panic!("{}: the next time-out stays at {local:?} however often it is handled", self.address);
    }

    /// When [`Node::timeout`] is due.
    #[must_use]
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        let answer = self.answers.iter().map(|(at, _)| *at).min();
        let engine = self.engine.as_ref().and_then(Engine::next_timeout).map(|at| self.clock.when(at));
        let unread = (!self.inbox.is_empty()).then_some(Timestamp::default());
        let next = answer.into_iter().chain(engine).chain(unread).min()?;
        Some(self.clock.frozen_until().map_or(next, |thaw| next.max(thaw)))
    }

    /// Something has happened to the clock: whoever waits for this host must have more patience.
    pub(crate) fn excuse(&mut self, until: Timestamp) {
        self.wanted.values_mut().for_each(|since| *since = until);
    }

    /// The pair that packets of a tunnel leave by: the one activated last.
    #[must_use]
    pub(crate) fn current(&self, tunnel: &str) -> Option<&Pair> {
        let of = self.pairs.values().filter(|pair| &*pair.outbound.tunnel == tunnel && pair.activated.is_some());
        of.max_by_key(|pair| pair.activated)
    }

    /// How many times a pair began to be used for sending.
    pub(crate) fn activations(&self) -> u64 {
        self.activations
    }

    /// All pairs of a tunnel.
    pub(crate) fn pairs<'a>(&'a self, tunnel: &'a str) -> impl Iterator<Item = &'a Pair> {
        self.pairs.values().filter(move |pair| &*pair.outbound.tunnel == tunnel)
    }

    /// Identifiers of the pairs of a tunnel.
    #[must_use]
    pub(crate) fn pair_ids(&self, tunnel: &str) -> Vec<u64> {
        self.pairs.iter().filter(|(_, pair)| &*pair.outbound.tunnel == tunnel).map(|(id, _)| *id).collect()
    }

    /// Nothing that was asked for is unanswered for too long.
    ///
    /// # Panics
    /// If something is.
    pub(crate) fn assert_answers(&self, now: Timestamp) {
        for (tunnel, since) in &self.wanted {
            assert!(now.since(*since) <= PATIENCE, "{}: no answer for {tunnel} since {since:?}", self.address);
        }
    }

    /// No pair is still there long after it was replaced.
    ///
    /// # Panics
    /// If one is.
    pub(crate) fn assert_replaced_are_gone(&self, now: Timestamp, limit: Duration) {
        for pair in self.pairs.values() {
            let since = pair.replaced.map_or(Duration::ZERO, |at| now.since(at));
            assert!(since <= limit, "{}: {:#x} was replaced {since:?} ago", self.address, pair.inbound.spi);
        }
    }

    /// The engine and the packet path hold the same pairs.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn assert_same_pairs(&self) {
        let Some(engine) = &self.engine else { return };
        let known: Vec<_> = engine.pairs().iter().map(|p| (p.pair, p.inbound_spi, p.outbound_spi)).collect();
        let held: Vec<_> = self.pairs.iter().map(|(id, p)| (*id, p.inbound.spi, p.outbound.spi)).collect();
        assert_eq!(known, held, "{}: the engine's pairs and the installed ones", self.address);
    }

    /// ISAKMP SAs that the engine lists.
    #[must_use]
    pub(crate) fn isakmp_sas(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| engine.isakmp_sas().len())
    }

    /// What the engine itself says about its state: printed when a run fails.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let engine = self.engine.as_ref().map(|e| (e.isakmp_sas(), e.pairs(), e.tunnels(), e.next_timeout()));
        let pairs =
            self.pairs.iter().map(|(id, p)| (id, &p.outbound.tunnel, p.inbound.spi, p.outbound.spi, p.activated));
        format!("{}: {:?}, pairs {:?}\nengine {engine:?}", self.address, self.clock, pairs.collect::<Vec<_>>())
    }

    fn input(
        &mut self,
        now: Timestamp,
        rng: &mut Rng,
        input: impl FnOnce(&mut Engine, &mut SeededEntropy),
    ) -> Vec<InFlight> {
        let Some(engine) = &mut self.engine else { return Vec::new() };
        input(engine, &mut self.entropy);
        let outputs: Vec<_> = std::iter::from_fn(|| engine.poll_output()).take(MOST_OUTPUTS + 1).collect();
        assert!(outputs.len() <= MOST_OUTPUTS, "{}: one input, too many outputs: {outputs:?}", self.address);
        let mut sent = Vec::new();
        for output in outputs {
            sent.extend(self.apply(now, rng, output));
        }
        sent
    }

    /// What the daemon does.
    fn apply(&mut self, now: Timestamp, rng: &mut Rng, output: Output) -> Option<InFlight> {
        match output {
            Output::Transmit { local, remote, payload } => {
                assert_eq!(local.ip(), self.address, "sent from an address that is not ours");
                return Some(InFlight { source: local, destination: remote, payload });
            }
            Output::NeedSecret { token, auth_record, .. } => {
                let auth = self.config.auths.iter().find(|auth| auth.name == auth_record);
                let secret = auth.and_then(|auth| auth.preshared.clone());
                self.answer(now, rng, Command::Secret { token, secret });
            }
            Output::Sign { token, hash, .. } => {
                let signed = Ok(signer::signed(self.address, hash.expose()));
                self.answer(now, rng, Command::Signed { token, signed });
            }
            Output::Judge { token, hash, signature, claim, certificates, expected, .. } => {
                let clock = (self.clock.day, self.distrusts);
                let verdict = signer::judged(clock, hash.expose(), &signature, &claim, &certificates, &expected);
                self.answer(now, rng, Command::Judged { token, verdict });
            }
            Output::NeedActivity { token, pairs } => {
                let of = || pairs.iter().filter_map(|id| self.pairs.get(id));
                let (received, sent) = (of().filter_map(|p| p.received).max(), of().filter_map(|p| p.sent).max());
                self.answers.push((now, Command::Activity { token, received, sent }));
            }
            Output::InstallPair { inbound, outbound } => self.install(now, inbound, outbound),
            Output::ActivateOutbound { pair } => self.activate(now, pair),
            Output::RemovePair { pair, inbound_spi, outbound_spi, .. } => {
                let removed = self.pairs.remove(&pair);
                let removed = removed.unwrap_or_else(|| panic!("{}: pair {pair} is not there to remove", self.address));
                assert_eq!((removed.inbound.spi, removed.outbound.spi), (inbound_spi, outbound_spi));
                self.removed_unused += usize::from(removed.activated.is_none());
            }
            Output::TunnelFailed { tunnel, reason } => {
                self.wanted.remove(&tunnel);
                self.failures.push(reason);
            }
            Output::SessionFailed { session, .. } => unreachable!("nobody asked for session {session}"),
            Output::Audit(event) => self.audit.push((now, format!("{} {}", event.level, event.text))),
            Output::PeerMoved { .. } | Output::IsakmpKeys { .. } => {}
            Output::NeedPassword { .. }
            | Output::CheckUser { .. }
            | Output::NeedLease { .. }
            | Output::Assigned { .. } => panic!("{}: nobody has users", self.address),
        }
        None
    }

    /// Answers a question of the engine after a while.
    fn answer(&mut self, now: Timestamp, rng: &mut Rng, answer: Command) {
        self.answers.push((now + rng.millis(0, 300), answer));
    }

    fn install(&mut self, now: Timestamp, inbound: SaSpec, outbound: SaSpec) {
        assert_eq!(inbound.pair, outbound.pair);
        let in_use = self.pairs.values().any(|pair| pair.inbound.spi == inbound.spi);
        assert!(!in_use, "{}: SPI {:#x} is in use", self.address, inbound.spi);
        let tunnel = Arc::clone(&outbound.tunnel);
        let pair = inbound.pair;
        let installed = Pair { inbound, outbound, activated: None, replaced: None, sent: None, received: None };
        let before = self.pairs.insert(pair, installed);
        assert!(before.is_none(), "{}: pair {pair} is in use", self.address);
        let count = self.pairs(&tunnel).count();
        assert!(count <= MOST_PAIRS, "{}: {count} pairs for {tunnel} at {now:?}", self.address);
    }

    fn activate(&mut self, now: Timestamp, pair: u64) {
        self.activations += 1;
        let number = self.activations;
        let pair = self.pairs.get_mut(&pair).unwrap_or_else(|| panic!("{}: no pair {pair} to activate", self.address));
        pair.activated.get_or_insert(number);
        let (tunnel, spi) = (Arc::clone(&pair.outbound.tunnel), pair.inbound.spi);
        for other in self.pairs.values_mut().filter(|p| p.outbound.tunnel == tunnel && p.inbound.spi != spi) {
            if other.activated.is_some() {
                other.replaced.get_or_insert(now);
            }
        }
        self.wanted.remove(&tunnel);
    }
}

/// Stands for encryption: only who holds the keys can make it.
fn seal(sa: &SaSpec, number: u64) -> [u8; 8] {
    let key = sa.keymat.expose().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    (key ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// An ESP packet, in UDP where the SA says so.
fn sealed(sa: &SaSpec, number: u64) -> InFlight {
    let ports = sa.encapsulation.map_or((0, 0), |udp| (udp.local_port, udp.remote_port));
    let payload = [&sa.spi.to_be_bytes()[..], &number.to_be_bytes(), &seal(sa, number)].concat();
    InFlight { source: SocketAddr::new(sa.local, ports.0), destination: SocketAddr::new(sa.remote, ports.1), payload }
}
