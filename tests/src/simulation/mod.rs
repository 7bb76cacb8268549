//! Engines on virtual time in one process: no sockets, no threads, no sleeps,
//! and everything random from one seed.
//!
//! A run has three parts. In the first, the network is as bad as the seed says,
//! hosts start in any order, crash, stop, start again, rekey and delete, and
//! packets ask for tunnels. In the second, the network is reliable and nothing
//! but packets happens: all must come to agree. In the third, agreement must
//! hold, through every rekey. At the end all are stopped, and nothing is left.
//! In some runs an attacker sends what was seen on the wire once more, as it was
//! or changed, from beginning to end.

mod network;
mod node;
mod rng;

use ike::Command;
use network::{InFlight, Network, Quality};
use node::Node;
use policy::config::Config;
use policy::time::Timestamp;
use rng::Rng;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What the two sides of every tunnel disagree about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Nothing: tunnels must come up.
    None,
    /// The pre-shared key.
    Preshared,
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

/// A run.
pub struct World {
    seed: u64,
    rng: Rng,
    now: Timestamp,
    network: Network,
    nodes: Vec<Node>,
    /// (host, host, name of the tunnel at both).
    tunnels: Vec<(usize, usize, Arc<str>)>,
    mismatch: Mismatch,
    attacker: bool,
    /// Lifetime of the pairs, in seconds: so short that there are many rekeys, or
    /// so long that what is replaced but not removed cannot hide behind its expiry.
    life: u32,
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
    eprintln!("replay: CAPONIER_SEED={seed} cargo test -p tests --test simulation -- --nocapture");
    resume_unwind(panic)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mismatch = match rng.below(10) {
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
            pfs: rng.chance(30),
            force: rng.chance(20),
            max_quick_modes: [100, 100, 2, 1][rng.below(4) as usize],
            boot: rng.below(3),
            life: if rng.chance(25) { 600 } else { 90 },
        };
        let nodes = (0..hosts)
            .map(|host| {
                let text = configuration(host, &tunnels, mismatch, &options);
                let checked = Config::parse(&text, "simulation.toml");
                let config = checked.unwrap_or_else(|errors| panic!("{errors:#?}\n{text}")).config;
                Node::new(address(host), Arc::new(config), rng.next())
            })
            .collect();
        let quality = Quality::random(&mut rng);
        let now = Timestamp::from_micros(1_000_000);
        let attacker = rng.chance(30);
        Self { seed, attacker, life: options.life, rng, now, network: Network::new(quality), nodes, tunnels, mismatch }
    }

    fn run(&mut self) {
        let life = Duration::from_secs(self.life.into());
        let storm = self.now + STORM;
        self.storm(storm);
        self.network.quality = Quality::RELIABLE;
        for host in 0..self.nodes.len() {
            if !self.nodes[host].is_running() {
                self.with(host, Node::start);
            }
        }
        if self.mismatch == Mismatch::None {
            // What one side does not know of (a Delete that was lost) and pairs whose
            // rekey failed in the storm end first.
            self.packets_until(self.now + life + Duration::from_secs(30), |_| false);
            self.packets_until(self.now + Duration::from_secs(ISAKMP_LIFE.into()), |world| {
                world.disagreement().is_none()
            });
            let disagreement = self.disagreement();
            assert!(disagreement.is_none(), "no agreement after settling: {disagreement:?}");
            let before: Vec<_> = self.nodes.iter().map(Node::activations).collect();
            let calm = self.now + 2 * life;
            self.packets_until(calm, |world| {
                let hole = world.black_hole();
                assert!(hole.is_none(), "packets are lost for good: {hole:?}");
                for node in &world.nodes {
                    node.assert_replaced_are_gone(world.now, REPLACED);
                }
                false
            });
            for (node, before) in self.nodes.iter().zip(before) {
                assert!(node.activations() > before, "{}: nothing was rekeyed", node.address);
            }
            // A rekey may be going on: wait for its end.
            let end = self.now + Duration::from_secs(60);
            self.packets_until(end, |world| world.disagreement().is_none());
            let disagreement = self.disagreement();
            assert!(disagreement.is_none(), "no agreement at the end: {disagreement:?}");
        } else {
            self.packets_until(self.now + life + Duration::from_secs(210), |_| false);
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

    /// Everything that can go wrong.
    fn storm(&mut self, end: Timestamp) {
        // Hosts start in any order, up to 10 s apart.
        let mut starts: Vec<_> =
            (0..self.nodes.len()).map(|host| (self.now + self.rng.millis(0, 10_000), host)).collect();
        if self.rng.chance(20) {
            starts.iter_mut().for_each(|(at, _)| *at = self.now);
        }
        let trouble = self.rng.chance(70);
        let mut next_trouble = self.now + self.rng.millis(5_000, 60_000);
        let mut next_packet = self.now;
        while self.now < end {
            let next_start = starts.iter().map(|(at, _)| *at).min().unwrap_or(end);
            self.advance(next_start.min(next_packet).min(next_trouble).min(end));
            let due: Vec<_> = starts.extract_if(.., |(at, _)| *at <= self.now).collect();
            for (_, host) in due {
                if !self.nodes[host].is_running() {
                    self.with(host, Node::start);
                }
            }
            if next_packet <= self.now {
                self.packet();
                self.attack();
                next_packet = self.now + self.rng.millis(1, 3_000);
            }
            if next_trouble <= self.now {
                if trouble {
                    self.trouble(&mut starts);
                }
                next_trouble = self.now + self.rng.millis(1_000, 60_000);
            }
        }
    }

    /// One thing that an administrator, or fate, does to a host.
    fn trouble(&mut self, starts: &mut Vec<(Timestamp, usize)>) {
        let host = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[host].is_running() {
            return;
        }
        let tunnels: Vec<_> = self.tunnels.iter().filter(|(x, y, _)| [*x, *y].contains(&host)).cloned().collect();
        let (x, y, tunnel) = tunnels[self.rng.below(tunnels.len() as u64) as usize].clone();
        let peer = self.nodes[if x == host { y } else { x }].address;
        match self.rng.below(7) {
            0 => {
                self.nodes[host].crash();
                starts.push((self.now + self.rng.millis(0, 20_000), host));
            }
            1 => {
                self.with(host, Node::stop);
                starts.push((self.now + self.rng.millis(0, 20_000), host));
            }
            2 => self.command(host, Command::DeletePeer { peer }),
            3 | 4 => {
                // Both sides may find at once that it is time.
                let both = self.rng.chance(50);
                for host in if both { vec![x, y] } else { vec![host] } {
                    for pair in self.nodes[host].pair_ids(&tunnel) {
                        self.command(host, Command::Rekey { pair });
                    }
                }
            }
            5 => {
                if let Some(pair) = self.nodes[host].pair_ids(&tunnel).first() {
                    self.command(host, Command::Expired { pair: *pair });
                }
            }
            _ => {
                // Both at once, while there is nothing.
                for host in [x, y] {
                    self.with(host, |node, now, rng| node.traffic(now, rng, &tunnel));
                }
            }
        }
    }

    /// A packet for some tunnel, at either end.
    fn packet(&mut self) {
        let (x, y, tunnel) = self.tunnels[self.rng.below(self.tunnels.len() as u64) as usize].clone();
        let host = if self.rng.chance(50) { x } else { y };
        self.with(host, |node, now, rng| node.traffic(now, rng, &tunnel));
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
                if !matches!(datagram.destination.port(), 500 | 4500) {
                    continue;
                }
                if let Some(host) = self.nodes.iter().position(|node| node.address == at) {
                    self.with(host, |node, now, rng| node.receive(now, rng, &datagram));
                }
            }
            for host in 0..self.nodes.len() {
                if self.nodes[host].next_timeout().is_some_and(|at| at <= self.now) {
                    self.with(host, Node::timeout);
                }
            }
        }
        self.now = self.now.max(end);
        for node in &self.nodes {
            node.assert_answers(self.now);
            let most = 8 * self.nodes.len();
            assert!(node.isakmp_sas() <= most, "{}: {} ISAKMP SAs", node.address, node.isakmp_sas());
        }
    }

    fn command(&mut self, host: usize, command: Command) {
        self.with(host, |node, now, rng| node.command(now, rng, command));
    }

    fn with(&mut self, host: usize, f: impl FnOnce(&mut Node, Timestamp, &mut Rng) -> Vec<InFlight>) {
        for datagram in f(&mut self.nodes[host], self.now, &mut self.rng) {
            self.network.send(self.now, &mut self.rng, datagram);
        }
    }

    /// The first tunnel whose two sides do not hold exactly one pair, and the same.
    fn disagreement(&self) -> Option<String> {
        self.tunnels.iter().find_map(|(x, y, tunnel)| {
            let (x, y) = (&self.nodes[*x], &self.nodes[*y]);
            let counts = (x.pairs(tunnel).count(), y.pairs(tunnel).count());
            if counts != (1, 1) {
                return Some(format!("{tunnel}: pairs {counts:?}"));
            }
            let (Some(p), Some(q)) = (x.current(tunnel), y.current(tunnel)) else {
                return Some(format!("{tunnel}: a side does not send"));
            };
            for (out, inn) in [(&p.outbound, &q.inbound), (&q.outbound, &p.inbound)] {
                if out.spi != inn.spi || out.keymat != inn.keymat || out.suite != inn.suite {
                    return Some(format!("{tunnel}: {:#x} and {:#x} differ", out.spi, inn.spi));
                }
                if out.encapsulation.is_some() != inn.encapsulation.is_some()
                    || out.selector.local != inn.selector.remote
                {
                    return Some(format!("{tunnel}: encapsulation or selectors differ: {out:?} {inn:?}"));
                }
            }
            None
        })
    }

    /// The first side that sends by an SA that the other side does not have.
    fn black_hole(&self) -> Option<String> {
        self.tunnels.iter().flat_map(|(x, y, t)| [(x, y, t), (y, x, t)]).find_map(|(x, y, tunnel)| {
            let Some(pair) = self.nodes[*x].current(tunnel) else {
                return Some(format!("{tunnel}: {} does not send", self.nodes[*x].address));
            };
            let spi = pair.outbound.spi;
            match self.nodes[*y].inbound(spi) {
                Some(inbound) if inbound.keymat == pair.outbound.keymat => None,
                Some(_) => Some(format!("{tunnel}: {spi:#x} has other keys at the receiver")),
                None => Some(format!("{tunnel}: {} does not know {spi:#x}", self.nodes[*y].address)),
            }
        })
    }

    /// Everything that was audited, with its time, as one number.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for node in &self.nodes {
            node.audit.iter().for_each(|(at, line)| (at.as_micros(), line).hash(&mut hasher));
        }
        hasher.finish()
    }

    fn describe(&self) -> String {
        let mut text = format!("seed {} at {:?}, {:?}, {:?}\n", self.seed, self.now, self.mismatch, self.tunnels);
        for node in &self.nodes {
            let _ = writeln!(text, "{}", node.describe());
            for (at, line) in &node.audit {
                let _ = writeln!(text, "  {:.3} {line}", Duration::from_micros(at.as_micros()).as_secs_f64());
            }
        }
        text
    }
}

fn address(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, host as u8 + 1).into()
}

/// What a seed chooses for all hosts alike.
struct Options {
    pfs: bool,
    force: bool,
    max_quick_modes: u32,
    /// 0: nobody starts by itself; 1: the first host of each tunnel; 2: both.
    boot: u64,
    life: u32,
}

fn configuration(host: usize, tunnels: &[(usize, usize, Arc<str>)], mismatch: Mismatch, options: &Options) -> String {
    let other = |kind| mismatch == kind && host == 1;
    let mut text = "[startup]\nallow_short_lifetimes = true\nauditlvl = \"debug\"\n".to_owned();
    let esp = match (other(Mismatch::Esp), options.pfs) {
        (true, _) => "aes256-sha256",
        (false, true) => "aes128-sha1-x25519",
        (false, false) => "aes128-sha1",
    };
    for (number, (x, y, name)) in tunnels.iter().enumerate().filter(|(_, (x, y, _))| [*x, *y].contains(&host)) {
        let peer = if *x == host { *y } else { *x };
        let (a, b) = (format!("10.{x}.{number}.0/24"), format!("10.{y}.{number}.0/24"));
        let (ours, theirs) = if *x == host { (a, b) } else { (b, a) };
        let theirs = if other(Mismatch::Selectors) { theirs.replace("/24", "/25") } else { theirs };
        let start = match options.boot {
            2 => "boot",
            1 if *x == host => "boot",
            _ => "traffic",
        };
        let _ = write!(
            text,
            "
[[host]]
name = \"{name}\"
source = \"{ours}\"
destination = \"{theirs}\"
tunnel = \"{name}\"

[[tunnel]]
name = \"{name}\"
tsource = \"{}\"
tdestination = \"{}\"
source = \"{ours}\"
destination = \"{theirs}\"
action = \"{esp}/{}\"
start = \"{start}\"
",
            address(host),
            address(peer),
            options.life,
        );
    }
    let _ = write!(
        text,
        "
[[ike]]
name = \"all\"
remote = \"10.77.0.0/24\"
proposals = [\"{}\"]
life = {ISAKMP_LIFE}
maxqm = {}
nat_traversal = \"{}\"

[[auth]]
name = \"all\"
remote = \"10.77.0.0/24\"
preshared = \"{}-preshared-key-of-the-simulation\"
",
        if other(Mismatch::Ike) { "aes256-sha256-x25519" } else { "aes128-sha1-x25519" },
        options.max_quick_modes,
        if options.force { "force" } else { "auto" },
        if other(Mismatch::Preshared) { "another" } else { "the" },
    );
    text
}
