//! Engines on virtual time in one process: no sockets, no threads, no sleeps,
//! and everything random from one seed.
//!
//! A run has four parts. In the [storm](storm), the network is as bad as the seed says,
//! hosts start in any order, freeze, crash, stop, start again, rekey and delete, clocks jump, and
//! packets ask for tunnels. In the second, the network is reliable and nothing
//! but packets happens: all must come to agree. In the third, agreement must
//! hold, through every rekey, and no packet may be lost. In the fourth both sides are
//! [commanded](rounds) at once to rekey, to reauthenticate and to delete, and must agree after each. At the end all
//! are stopped, and nothing is left. In some runs an attacker sends what was seen on the wire once more, as it was
//! or changed, from beginning to end. Whatever is sent is checked to be encrypted.

#![forbid(unsafe_code)]
// A run that fails says how, and with which seed.
#![allow(clippy::print_stderr)]

mod checks;
mod clock;
mod configuration;
mod network;
mod node;
mod rng;
mod rounds;
mod signer;
mod storm;

use configuration::{Options, address};
use ike::Command;
use network::{InFlight, Network, Quality};
use node::Node;
use policy::time::Timestamp;
use rng::Rng;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What the two sides of every tunnel disagree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mismatch {
    /// Nothing: tunnels must come up.
    None,
    /// The pre-shared key.
    Preshared,
    /// Whose certificates to believe.
    Authority,
    /// Phase-1 algorithms.
    Ike,
    /// Phase-2 algorithms.
    Esp,
    /// Selectors.
    Selectors,
}

/// Lifetime of the ISAKMP SAs, in seconds.
const ISAKMP_LIFE: u32 = 200;
/// How long the network is bad.
const STORM: Duration = Duration::from_secs(300);
/// How long a pair may be there after it was replaced, when no Delete is lost.
const REPLACED: Duration = Duration::from_secs(45);
/// How long a packet may be under way on a reliable network.
const FLIGHT: Duration = Duration::from_millis(100);

/// A run.
struct World {
    seed: u64,
    rng: Rng,
    now: Timestamp,
    network: Network,
    nodes: Vec<Node>,
    /// (host, host, name of the tunnel at both).
    tunnels: Vec<(usize, usize, Arc<str>)>,
    mismatch: Mismatch,
    attacker: bool,
    aggressive: bool,
    /// Lifetime of the pairs, in seconds: so short that there are many rekeys, or
    /// so long that what is replaced but not removed cannot hide behind its expiry.
    life: u32,
    /// Clocks that have been put back or stood still let SAs live for so much longer.
    lag: Duration,
    /// Packets sent so far, and those that have not arrived.
    packets: u64,
    outstanding: BTreeMap<u64, Timestamp>,
    steps: u64,
}

/// Runs a seed to its end, and returns a digest of all that happened.
///
/// # Panics
/// If anything is not as it must be; says how to run the seed again.
pub fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let Err(panic) = result else { return world.digest() };
    let description = catch_unwind(AssertUnwindSafe(|| world.describe()));
    eprintln!("{}", description.unwrap_or_else(|_| "cannot be described".into()));
    eprintln!("replay: CAPONIER_SEED={seed} cargo test -p simulation -- --nocapture");
    resume_unwind(panic)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let certificates = rng.chance(25);
        let mismatch = match rng.below(10) {
            0 if certificates => Mismatch::Authority,
            0 => Mismatch::Preshared,
            1 => [Mismatch::Ike, Mismatch::Esp, Mismatch::Selectors][rng.below(3) as usize],
            _ => Mismatch::None,
        };
        let hosts = if mismatch == Mismatch::None && rng.chance(25) { 3 } else { 2 };
        let each = 1 + rng.below(2) as usize;
        let mut tunnels = Vec::new();
        for x in 0..hosts {
            for y in x + 1..hosts {
                tunnels.extend((0..each).map(|n| (x, y, Arc::from(format!("t{x}{y}{n}")))));
            }
        }
        let options = Options {
            pfs: rng.chance(20),
            force: rng.chance(20),
            max_quick_modes: [1, 2, 100, 100, 100, 100, 100, 100][rng.below(8) as usize],
            boot: rng.below(3),
            life: if rng.chance(15) { 300 } else { 90 },
            certificates,
            aggressive: rng.chance(20),
            dpd_action: ["hold", "restart"][rng.below(2) as usize],
        };
        let nodes = (0..hosts)
            .map(|host| {
                let config = configuration::read(host, &tunnels, mismatch, &options);
                let distrusts = mismatch == Mismatch::Authority && host == 1;
                Node::new(address(host), config, distrusts, rng.next())
            })
            .collect();
        let quality = Quality::random(&mut rng);
        // Far enough from the beginning of time for clocks to be put back.
        let now = Timestamp::from_micros(100_000_000_000);
        let attacker = rng.chance(30);
        Self {
            seed,
            attacker,
            aggressive: options.aggressive,
            life: options.life,
            rng,
            now,
            network: Network::new(quality, attacker),
            nodes,
            tunnels,
            mismatch,
            lag: Duration::ZERO,
            packets: 0,
            outstanding: BTreeMap::new(),
            steps: 0,
        }
    }

    fn run(&mut self) {
        self.storm(self.now + STORM);
        self.network.quality = Quality::RELIABLE;
        for host in 0..self.nodes.len() {
            self.nodes[host].clock.set_right();
            if !self.nodes[host].is_running() {
                self.with(host, Node::start);
            }
        }
        if self.mismatch == Mismatch::None {
            self.settle();
            self.calm();
            self.rounds();
        } else {
            let life = Duration::from_secs(self.life.into());
            self.packets_until(self.now + life + self.lag + Duration::from_secs(210), |_| false);
            for node in &self.nodes {
                let pairs = self.tunnels.iter().map(|(.., tunnel)| node.pairs(tunnel).count()).sum::<usize>();
                assert_eq!(pairs, 0, "{}: pairs in spite of {:?}", node.address, self.mismatch);
                assert!(!node.failures.is_empty(), "{}: no failure was told", node.address);
            }
        }
        for host in 0..self.nodes.len() {
            self.with(host, Node::stop);
        }
    }

    /// All come to agree.
    fn settle(&mut self) {
        // What one side does not know of (a Delete that was lost) and pairs whose
        // rekey failed in the storm end first.
        let life = Duration::from_secs(self.life.into());
        self.packets_until(self.now + life + self.lag + Duration::from_secs(30), |_| false);
        self.packets_until(self.now + Duration::from_secs(ISAKMP_LIFE.into()), |world| world.disagreement().is_none());
        let disagreement = self.disagreement();
        assert!(disagreement.is_none(), "no agreement after settling: {disagreement:?}");
        self.outstanding.clear();
    }

    /// Agreement holds, through every rekey, and no packet is lost.
    fn calm(&mut self) {
        let before: Vec<_> = self.nodes.iter().map(Node::activations).collect();
        let life = Duration::from_secs(self.life.into());
        self.packets_until(self.now + 2 * life, |world| {
            world.assert_nothing_lost();
            for node in &world.nodes {
                node.assert_replaced_are_gone(world.now, REPLACED);
            }
            false
        });
        for (node, before) in self.nodes.iter().zip(before) {
            assert!(node.activations() > before, "{}: nothing was rekeyed", node.address);
        }
        self.agree(Duration::from_secs(60), "after the calm");
    }

    /// A packet for some tunnel, at either end.
    fn packet(&mut self) {
        let (x, y, tunnel) = self.tunnels[self.rng.below(self.tunnels.len() as u64) as usize].clone();
        let host = if self.rng.chance(50) { x } else { y };
        self.packet_at(host, &tunnel);
    }

    fn packet_at(&mut self, host: usize, tunnel: &Arc<str>) {
        self.packets += 1;
        let number = self.packets;
        if self.nodes[host].current(tunnel).is_some() {
            self.outstanding.insert(number, self.now);
        }
        self.with(host, |node, now, rng| node.traffic(now, rng, tunnel, number));
    }

    fn attack(&mut self) {
        if self.attacker && self.rng.chance(30) {
            self.network.attack(self.now, &mut self.rng);
        }
    }

    /// Packets twice a second until `end`, or until `done` says so.
    fn packets_until(&mut self, end: Timestamp, mut done: impl FnMut(&Self) -> bool) {
        while self.now < end && !done(self) {
            self.packet();
            self.attack();
            self.advance(self.now + Duration::from_millis(500));
        }
    }

    /// Lets time pass until `end`, with all that is due on the way.
    fn advance(&mut self, end: Timestamp) {
        loop {
            let timers = self.nodes.iter().filter_map(Node::next_timeout);
            let next = timers.chain(self.network.next_arrival()).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            while let Some(datagram) = self.network.receive(self.now) {
                let at = datagram.destination.ip();
                // Nobody listens on other ports: not at the attacker's either.
                if !matches!(datagram.destination.port(), 0 | 500 | 4500) {
                    continue;
                }
                if let Some(host) = self.nodes.iter().position(|node| node.address == at) {
                    self.with(host, |node, now, rng| node.arrives(now, rng, datagram));
                }
            }
            for host in 0..self.nodes.len() {
                if self.nodes[host].next_timeout().is_some_and(|at| at <= self.now) {
                    self.with(host, Node::timeout);
                }
            }
        }
        self.now = self.now.max(end);
        self.steps += 1;
        if self.steps.is_multiple_of(20) {
            self.assert_bounds();
        }
    }

    fn command(&mut self, host: usize, command: Command) {
        self.with(host, |node, now, rng| node.command(now, rng, command));
    }

    fn with(&mut self, host: usize, f: impl FnOnce(&mut Node, Timestamp, &mut Rng) -> Vec<InFlight>) {
        for datagram in f(&mut self.nodes[host], self.now, &mut self.rng) {
            self.network.send(self.now, &mut self.rng, datagram);
        }
        for number in self.nodes[host].delivered.drain(..) {
            self.outstanding.remove(&number);
        }
    }
}
