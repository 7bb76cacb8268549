//! Two engines, and a wire that loses, repeats, reorders and changes what they say. When it has
//! come to its senses again, so do they.

use super::super::Reached;
use super::host::Host;
use super::payloads::damage;
use super::{ENGINE, PEER};
use arbitrary::{Result, Unstructured};
use ike::Command;
use policy::sa::SaSpec;
use policy::time::Timestamp;
use std::net::SocketAddr;
use std::time::Duration;

pub(in super::super) const PLACES: &[&str] = &[
    "ISAKMP SA as initiator",
    "ISAKMP SA as responder",
    "pair",
    "pair in use",
    "pair removed",
    "restart",
    "agreement",
];

/// Steps of one run.
const STEPS: usize = 60;

type Packet = (SocketAddr, SocketAddr, Vec<u8>);

struct World {
    hosts: [Host; 2],
    wire: Vec<Packet>,
    seed: u64,
    more_ike: [&'static str; 2],
}

/// Runs one input.
pub(in super::super) fn run(input: &[u8]) -> Reached {
    let mut u = Unstructured::new(input);
    let Ok(how) = u.arbitrary::<u8>() else { return Reached::default() };
    let more_ike = ["", "nat_traversal = \"force\"", "dpd = 20", "life = 300"];
    let mut more_ike = [more_ike[usize::from(how & 3)], more_ike[usize::from(how >> 2 & 3)]];
    if how & 0x30 == 0x30 {
        // Both must say so: it asks for perfect forward secrecy.
        more_ike = ["maxqm = 1"; 2];
    }
    let now = Timestamp::from_micros(0);
    let hosts = [Host::new(ENGINE, PEER, more_ike[0], 1, now), Host::new(PEER, ENGINE, more_ike[1], 2, now)];
    let mut world = World { hosts, wire: Vec::new(), seed: 3, more_ike };
    for _ in 0..STEPS {
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
    }
    world.end()
}

impl World {
    fn collect(&mut self) {
        let now = self.hosts.iter().map(|host| host.now).max().unwrap_or_default();
        for host in &mut self.hosts {
            host.wait(now);
            self.wire.extend(host.sent.drain(..));
        }
        // A wire holds only so much.
        let surplus = self.wire.len().saturating_sub(200);
        self.wire.drain(..surplus);
    }

    fn deliver(&mut self, (from, to, payload): &Packet) {
        if let Some(host) = self.hosts.iter_mut().find(|host| host.address == to.ip()) {
            host.receive(*from, *to, payload);
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        self.collect();
        let at = |u: &mut Unstructured<'_>, wire: &[Packet]| u.choose_index(wire.len().max(1));
        match u.arbitrary::<u8>()? % 20 {
            0..=6 => {
                for packet in std::mem::take(&mut self.wire) {
                    self.deliver(&packet);
                }
            }
            7 => {
                // One, before those that were sent earlier.
                let nth = at(u, &self.wire)?;
                if nth < self.wire.len() {
                    let packet = self.wire.remove(nth);
                    self.deliver(&packet);
                }
            }
            8 => {
                let nth = at(u, &self.wire)?;
                if nth < self.wire.len() {
                    self.wire.remove(nth);
                }
            }
            9 => {
                let nth = at(u, &self.wire)?;
                if let Some(packet) = self.wire.get(nth).cloned() {
                    self.deliver(&packet);
                }
            }
            10 => {
                let nth = at(u, &self.wire)?;
                if let Some((from, to, mut payload)) = self.wire.get(nth).cloned() {
                    damage(u, &mut payload)?;
                    self.deliver(&(from, to, payload));
                }
            }
            11..=13 => {
                let range = [1_000, 20_000, 120_000, 8_000_000][usize::from(u.arbitrary::<u8>()? % 4)];
                let time = Duration::from_millis(u64::from(u.arbitrary::<u16>()?) * range / 65_536);
                let until = self.hosts[0].now.max(self.hosts[1].now) + time;
                self.hosts.iter_mut().for_each(|host| host.wait(until));
            }
            14 | 15 => {
                let tunnel = ["net", "pfs"][usize::from(u.arbitrary::<u8>()? % 2)];
                self.host(u)?.command(Command::Initiate { tunnel: tunnel.into() });
            }
            16 => {
                let host = self.host(u)?;
                let nth = u.choose_index(host.pairs.len().max(1))?;
                let pair = host.pairs.keys().nth(nth).copied().unwrap_or(7);
                host.command(if u.arbitrary()? { Command::Rekey { pair } } else { Command::Expired { pair } });
            }
            17 => {
                let rekey = u.arbitrary()?;
                let host = self.host(u)?;
                let peer = if host.address.to_string() == ENGINE { PEER } else { ENGINE };
                let peer = peer.parse().expect("an address");
                host.command(if rekey { Command::RekeyPeer { peer } } else { Command::DeletePeer { peer } });
            }
            18 if u.ratio(1, 4)? => {
                // It crashes, and knows nothing of an earlier life.
                let nth = usize::from(u.arbitrary::<bool>()?);
                self.seed += 1;
                let now = self.hosts[nth].now;
                let (me, peer) = if nth == 0 { (ENGINE, PEER) } else { (PEER, ENGINE) };
                let reached = std::mem::take(&mut self.hosts[nth].reached);
                self.hosts[nth] = Host::new(me, peer, self.more_ike[nth], self.seed, now);
                self.hosts[nth].reached = reached;
                self.hosts[nth].reached.note("restart");
            }
            _ => {
                let slow = u.arbitrary()?;
                let host = self.host(u)?;
                host.answer_late(u)?;
                host.slow = slow;
                if !slow {
                    host.answer_all();
                }
            }
        }
        Ok(())
    }

    fn host(&mut self, u: &mut Unstructured<'_>) -> Result<&mut Host> {
        Ok(&mut self.hosts[usize::from(u.arbitrary::<bool>()?)])
    }

    /// Nothing is lost any more, for so long.
    fn calm(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.collect();
            // At once, and what it causes too, as often as both have something to say.
            for _ in 0..20 {
                for packet in std::mem::take(&mut self.wire) {
                    self.deliver(&packet);
                }
                self.collect();
                if self.wire.is_empty() {
                    break;
                }
            }
            let until = self.hosts[0].now.max(self.hosts[1].now) + Duration::from_millis(500);
            self.hosts.iter_mut().for_each(|host| host.wait(until));
        }
    }

    fn end(mut self) -> Reached {
        for host in &mut self.hosts {
            host.answer_all();
            host.command(Command::Initiate { tunnel: "net".into() });
        }
        self.calm(80);
        for host in &mut self.hosts {
            host.command(Command::Initiate { tunnel: "net".into() });
        }
        self.calm(80);
        self.assert_agreement();
        let mut reached = Reached::default();
        for mut host in self.hosts {
            host.end();
            reached.join(host.reached);
        }
        reached.note("agreement");
        reached
    }

    /// What either sends with last, the other can receive.
    fn assert_agreement(&self) {
        for (x, y) in [(0, 1), (1, 0)] {
            let newest = |sas: &&(SaSpec, SaSpec, bool)| sas.2 && &*sas.0.tunnel == "net";
            let Some((_, out, _)) = self.hosts[x].pairs.values().rev().find(newest) else {
                let story = self.hosts.iter().map(Host::story).collect::<Vec<_>>().join("\n");
                panic!("{} has no pair, though nothing is in its way\n{story}", self.hosts[x].address)
            };
            let theirs = self.hosts[y].pairs.values().find(|(inbound, ..)| inbound.spi == out.spi);
            let story = || self.hosts.iter().map(Host::story).collect::<Vec<_>>().join("\n");
            let (inbound, ..) =
                theirs.unwrap_or_else(|| panic!("{} sends into a void\n{}", self.hosts[x].address, story()));
            assert_eq!((&inbound.keymat, inbound.suite), (&out.keymat, out.suite));
        }
    }
}
