//! One host of a simulation: an engine, and a model of what the daemon does with its outputs.

use super::network::InFlight;
use super::rng::Rng;
use crypto::entropy::testing::SeededEntropy;
use ike::{Command, Datagram, Engine, Output};
use policy::config::Config;
use policy::sa::SaSpec;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
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

/// A pair as the packet path holds it.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// What we receive with.
    pub(super) inbound: SaSpec,
    /// What we send with.
    pub(super) outbound: SaSpec,
    /// When it began to be used for sending, as a rising number; `None`: not yet.
    activated: Option<u64>,
    /// When a newer one of its tunnel began to be used.
    replaced: Option<Timestamp>,
}

/// A host.
pub(super) struct Node {
    /// Its outer address.
    pub(super) address: IpAddr,
    config: Arc<Config>,
    engine: Option<Engine>,
    entropy: SeededEntropy,
    pairs: BTreeMap<u64, Pair>,
    activations: u64,
    wanted: BTreeMap<Arc<str>, Timestamp>,
    secrets: Vec<(Timestamp, u64, String)>,
    /// Answers to [`Output::NeedActivity`] that are not given yet.
    activity: Vec<Command>,
    /// Texts of [`Output::TunnelFailed`].
    pub(super) failures: Vec<String>,
    /// Audit lines, with their time: printed when a run fails.
    pub(super) audit: Vec<(Timestamp, String)>,
}

impl Node {
    /// A host that does not run yet.
    #[must_use]
    pub(super) fn new(address: IpAddr, config: Arc<Config>, seed: u64) -> Self {
        Self {
            address,
            config,
            engine: None,
            entropy: SeededEntropy::new(seed),
            pairs: BTreeMap::new(),
            activations: 0,
            wanted: BTreeMap::new(),
            secrets: Vec::new(),
            activity: Vec::new(),
            failures: Vec::new(),
            audit: Vec::new(),
        }
    }

    /// Whether the engine runs.
    #[must_use]
    pub(super) fn is_running(&self) -> bool {
        self.engine.is_some()
    }

    /// Starts the engine, which knows nothing of an earlier life.
    pub(super) fn start(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<InFlight> {
        self.engine = Some(Engine::new(Arc::clone(&self.config), now));
        self.input(now, rng, |engine, entropy| engine.handle_timeout(now, entropy))
    }

    /// The process dies.
    pub(super) fn crash(&mut self) {
        self.engine = None;
        self.pairs.clear();
        self.wanted.clear();
        self.secrets.clear();
    }

    /// The engine ends in good order.
    ///
    /// # Panics
    /// If it leaves an SA.
    pub(super) fn stop(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<InFlight> {
        let sent = self.command(now, rng, Command::Shutdown);
        assert!(self.pairs.is_empty(), "{}: pairs left after shutdown: {:?}", self.address, self.pairs.keys());
        self.crash();
        sent
    }

    /// A command, if the engine runs.
    pub(super) fn command(&mut self, now: Timestamp, rng: &mut Rng, command: Command) -> Vec<InFlight> {
        self.input(now, rng, |engine, entropy| engine.handle_command(now, command, entropy))
    }

    /// A packet that a tunnel protects: it goes out, or asks for a pair.
    pub(super) fn traffic(&mut self, now: Timestamp, rng: &mut Rng, tunnel: &Arc<str>) -> Vec<InFlight> {
        if self.engine.is_none() || self.current(tunnel).is_some() || self.wanted.contains_key(tunnel) {
            return Vec::new();
        }
        self.wanted.insert(Arc::clone(tunnel), now);
        self.command(now, rng, Command::Initiate { tunnel: Arc::clone(tunnel) })
    }

    /// A datagram arrives.
    pub(super) fn receive(&mut self, now: Timestamp, rng: &mut Rng, datagram: &InFlight) -> Vec<InFlight> {
        let mut payload = &datagram.payload[..];
        if datagram.destination.port() == NATT_PORT {
            // A keepalive, or ESP, which is not simulated, has no marker.
            let Some(message) = payload.strip_prefix(&[0; 4]) else { return Vec::new() };
            payload = message;
        }
        let (local, remote) = (datagram.destination, datagram.source);
        self.input(now, rng, |engine, entropy| {
            engine.handle_datagram(now, Datagram { local, remote, payload }, entropy)
        })
    }

    /// What is due: secrets that were asked for, then the engine's timers.
    pub(super) fn timeout(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<InFlight> {
        let mut sent = Vec::new();
        let (due, later) = std::mem::take(&mut self.secrets).into_iter().partition(|(at, ..)| *at <= now);
        self.secrets = later;
        let due: Vec<(Timestamp, u64, String)> = due;
        for (_, token, record) in due {
            let auth = self.config.auths.iter().find(|auth| auth.name == record);
            let secret = auth.and_then(|auth| auth.preshared.clone());
            sent.extend(self.command(now, rng, Command::Secret { token, secret }));
        }
        for _ in 0..50 {
            if self.engine.as_ref().and_then(Engine::next_timeout).is_none_or(|at| at > now) {
                return sent;
            }
            sent.extend(self.input(now, rng, |engine, entropy| engine.handle_timeout(now, entropy)));
        }
        panic!("{}: the next time-out stays at {now:?} however often it is handled", self.address);
    }

    /// When [`Node::timeout`] is due.
    #[must_use]
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        let secret = self.secrets.iter().map(|(at, ..)| *at).min();
        let engine = self.engine.as_ref().and_then(Engine::next_timeout);
        secret.into_iter().chain(engine).min()
    }

    /// The pair that packets of a tunnel leave by: the one activated last.
    #[must_use]
    pub(super) fn current(&self, tunnel: &str) -> Option<&Pair> {
        let of = self.pairs.values().filter(|pair| &*pair.outbound.tunnel == tunnel && pair.activated.is_some());
        of.max_by_key(|pair| pair.activated)
    }

    /// How many times a pair began to be used for sending.
    pub(super) fn activations(&self) -> u64 {
        self.activations
    }

    /// All pairs of a tunnel.
    pub(super) fn pairs<'a>(&'a self, tunnel: &'a str) -> impl Iterator<Item = &'a Pair> {
        self.pairs.values().filter(move |pair| &*pair.outbound.tunnel == tunnel)
    }

    /// The inbound SA of an SPI.
    #[must_use]
    pub(super) fn inbound(&self, spi: u32) -> Option<&SaSpec> {
        self.pairs.values().map(|pair| &pair.inbound).find(|sa| sa.spi == spi)
    }

    /// Identifiers of the pairs of a tunnel.
    #[must_use]
    pub(super) fn pair_ids(&self, tunnel: &str) -> Vec<u64> {
        self.pairs.iter().filter(|(_, pair)| &*pair.outbound.tunnel == tunnel).map(|(id, _)| *id).collect()
    }

    /// Nothing that was asked for is unanswered for too long.
    ///
    /// # Panics
    /// If something is.
    pub(super) fn assert_answers(&self, now: Timestamp) {
        for (tunnel, since) in &self.wanted {
            assert!(now.since(*since) <= PATIENCE, "{}: no answer for {tunnel} since {since:?}", self.address);
        }
    }

    /// No pair is still there long after it was replaced.
    ///
    /// # Panics
    /// If one is.
    pub(super) fn assert_replaced_are_gone(&self, now: Timestamp, limit: Duration) {
        for pair in self.pairs.values() {
            let since = pair.replaced.map_or(Duration::ZERO, |at| now.since(at));
            assert!(since <= limit, "{}: {:#x} was replaced {since:?} ago", self.address, pair.inbound.spi);
        }
    }

    /// ISAKMP SAs that the engine lists.
    #[must_use]
    pub(super) fn isakmp_sas(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| engine.isakmp_sas().len())
    }

    /// What the engine itself says about its state: printed when a run fails.
    #[must_use]
    pub(super) fn describe(&self) -> String {
        let engine = self.engine.as_ref().map(|e| (e.isakmp_sas(), e.pairs(), e.tunnels(), e.next_timeout()));
        let pairs =
            self.pairs.iter().map(|(id, p)| (id, &p.outbound.tunnel, p.inbound.spi, p.outbound.spi, p.activated));
        format!("{}: pairs {:?}\nengine {engine:?}", self.address, pairs.collect::<Vec<_>>())
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
        let mut sent: Vec<_> = outputs.into_iter().filter_map(|output| self.apply(now, rng, output)).collect();
        for answer in std::mem::take(&mut self.activity) {
            sent.extend(self.command(now, rng, answer));
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
                self.secrets.push((now + rng.millis(0, 300), token, auth_record));
            }
            Output::NeedActivity { token, .. } => {
                // Packets go out, and it is not sure that any come.
                let received = rng.chance(50).then_some(now);
                self.activity.push(Command::Activity { token, received, sent: Some(now) });
            }
            Output::InstallPair { inbound, outbound } => self.install(now, inbound, outbound),
            Output::ActivateOutbound { pair } => self.activate(now, pair),
            Output::RemovePair { pair, inbound_spi, outbound_spi, .. } => {
                let removed = self.pairs.remove(&pair);
                let removed = removed.unwrap_or_else(|| panic!("{}: pair {pair} is not there to remove", self.address));
                assert_eq!((removed.inbound.spi, removed.outbound.spi), (inbound_spi, outbound_spi));
            }
            Output::TunnelFailed { tunnel, reason } => {
                self.wanted.remove(&tunnel);
                self.failures.push(reason);
            }
            Output::SessionFailed { session, .. } => unreachable!("nobody asked for session {session}"),
            Output::Audit(event) => self.audit.push((now, format!("{} {}", event.level, event.text))),
            Output::PeerMoved { .. } | Output::IsakmpKeys { .. } => {}
            Output::NeedPassword { .. } | Output::CheckUser { .. } => panic!("{}: nobody has users", self.address),
            Output::Sign { .. } | Output::Judge { .. } => panic!("{}: its peers have keys", self.address),
        }
        None
    }

    fn install(&mut self, now: Timestamp, inbound: SaSpec, outbound: SaSpec) {
        assert_eq!(inbound.pair, outbound.pair);
        assert!(self.inbound(inbound.spi).is_none(), "{}: SPI {:#x} is in use", self.address, inbound.spi);
        let tunnel = Arc::clone(&outbound.tunnel);
        let pair = inbound.pair;
        let before = self.pairs.insert(pair, Pair { inbound, outbound, activated: None, replaced: None });
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
