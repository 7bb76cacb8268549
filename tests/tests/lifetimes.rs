//! The end of an SA by use: engine and packet path together, on virtual time. The successor is there
//! before a pair runs out of octets, packets or sequence numbers; no number is used twice; and where there is
//! no successor, nothing is sent any more.

use crypto::entropy::testing::SeededEntropy;
use datapath::sa::{SaEvent, pair};
use datapath::{InboundSa, OutboundSa};
use ike::{Command, Datagram, Engine, Output};
use policy::config::Config;
use policy::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Octets of a packet.
const PACKET: usize = 100;
/// The last sequence number of 32 bits.
const LAST: u64 = u32::MAX as u64;
/// Sequence numbers that are left when the successor is asked for.
const RESERVE: u64 = 1 << 28;

struct Host {
    engine: Engine,
    entropy: SeededEntropy,
    config: Arc<Config>,
    pairs: BTreeMap<u64, (InboundSa, OutboundSa)>,
    current: Option<u64>,
    /// SPI and sequence number of each packet that was sent.
    sent: Vec<(u32, u64)>,
    /// Octets of the pair when its successor was asked for.
    asked: Vec<u64>,
    dropped: usize,
}

struct World {
    now: Timestamp,
    hosts: [Host; 2],
    connected: bool,
}

fn address(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, host as u8 + 1).into()
}

impl World {
    /// Both hosts with a pair that host 0 began.
    fn up(action: &str, more: &str, seed: u64) -> Self {
        let host = |host: usize| {
            let (me, peer) = (address(host), address(1 - host));
            let (source, destination) = (format!("10.78.{host}.0/24"), format!("10.78.{}.0/24", 1 - host));
            let text = format!(
                "[startup]\nallow_short_lifetimes = true\n[[host]]\nname = \"h\"\nsource = \"{source}\"\ndestination = \
                 \"{destination}\"\ntunnel = \"t\"\n[[tunnel]]\nname = \"t\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\n\
                 source = \"{source}\"\ndestination = \"{destination}\"\naction = \"{action}\"\n{more}\n[[ike]]\nname = \
                 \"i\"\nremote = \"{peer}\"\nproposals = [\"aes128-sha1-x25519\"]\n[[auth]]\nname = \"a\"\nremote = \"{peer}\"\n\
                 preshared = \"a-key-that-is-long-enough\"\n"
            );
            let config = Arc::new(Config::parse(&text, "test.toml").expect("a configuration").config);
            Host {
                engine: Engine::new(Arc::clone(&config), Timestamp::default()),
                entropy: SeededEntropy::new(seed * 2 + host as u64),
                config,
                pairs: BTreeMap::new(),
                current: None,
                sent: Vec::new(),
                asked: Vec::new(),
                dropped: 0,
            }
        };
        let mut world = Self { now: Timestamp::default(), hosts: [host(0), host(1)], connected: true };
        world.command(0, Command::Initiate { tunnel: "t".into() });
        world.pass(100);
        assert!(world.hosts.iter().all(|h| h.current.is_some()));
        world
    }

    fn command(&mut self, host: usize, command: Command) {
        let h = &mut self.hosts[host];
        h.engine.handle_command(self.now, command, &mut h.entropy);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((host, output)) = (0..2).find_map(|n| Some((n, self.hosts[n].engine.poll_output()?))) {
            let h = &mut self.hosts[host];
            match output {
                Output::Transmit { local, remote, payload } if self.connected => {
                    let other = &mut self.hosts[1 - host];
                    let datagram = Datagram { local: remote, remote: local, payload: &payload };
                    other.engine.handle_datagram(self.now, datagram, &mut other.entropy);
                }
                Output::NeedSecret { token, .. } => {
                    let secret = h.config.auths[0].preshared.clone();
                    h.engine.handle_command(self.now, Command::Secret { token, secret }, &mut h.entropy);
                }
                Output::InstallPair { inbound, outbound } => {
                    let sas = pair(&inbound, &outbound, 0, &[7; 16], 1024).expect("a pair");
                    h.pairs.insert(inbound.pair, sas);
                }
                Output::ActivateOutbound { pair } => h.current = Some(pair),
                Output::RemovePair { pair, .. } => {
                    h.pairs.remove(&pair);
                    h.current = h.current.filter(|current| *current != pair);
                }
                _ => {}
            }
        }
    }

    /// Lets hundredths of a second pass.
    fn pass(&mut self, hundredths: u64) {
        for _ in 0..hundredths {
            self.now = self.now + Duration::from_millis(10);
            for host in 0..2 {
                let h = &mut self.hosts[host];
                h.engine.handle_timeout(self.now, &mut h.entropy);
                self.drain();
            }
        }
    }

    /// Host sends packets, as the pipelines do; the daemon hears of what runs out.
    fn send(&mut self, host: usize, packets: usize) {
        for _ in 0..packets {
            let mut events = Vec::new();
            let [a, b] = &mut self.hosts;
            let (h, other) = if host == 0 { (a, b) } else { (b, a) };
            let Some((_, outbound)) = h.current.and_then(|current| h.pairs.get(&current)) else {
                h.dropped += 1;
                continue;
            };
            let charged = outbound.charge([PACKET].into_iter(), self.now, &mut |event| events.push((host, event)));
            let numbers = outbound.take_sequences(charged, &mut |event| events.push((host, event)));
            if numbers.is_empty() {
                h.dropped += 1;
            }
            let spi = outbound.spec().spi;
            h.sent.extend(numbers.clone().map(|number| (spi, number)));
            let receives = other.pairs.values().find(|(inbound, _)| inbound.spec().spi == spi);
            if let Some((inbound, _)) = receives.filter(|_| self.connected && !numbers.is_empty()) {
                let taken = inbound.charge([PACKET].into_iter(), self.now, &mut |event| events.push((1 - host, event)));
                assert_eq!(taken, 1, "refused by the receiver");
            } else {
                assert!(!self.connected || numbers.is_empty(), "nobody can decrypt {spi:#x}");
            }
            for (host, event) in events {
                match event {
                    SaEvent::SoftLimit { pair, .. } => {
                        let (inbound, outbound) = &self.hosts[host].pairs[&pair];
                        let octets = inbound.octets().max(outbound.octets());
                        self.hosts[host].asked.push(octets);
                        self.command(host, Command::Rekey { pair });
                    }
                    SaEvent::HardLimit { pair, .. } => self.command(host, Command::Expired { pair }),
                }
            }
        }
    }

    /// As if a host's current SA had used its sequence numbers up to `last`.
    fn skip(&mut self, host: usize, last: u64) {
        let h = &self.hosts[host];
        h.pairs[&h.current.expect("a pair is in use")].1.skip_sequences(last);
    }

    /// No number was used twice, or out of order, under one SPI; returns the SPIs.
    fn spis(&self, host: usize, last: u64) -> BTreeSet<u32> {
        let mut used: BTreeMap<u32, u64> = BTreeMap::new();
        for (spi, number) in &self.hosts[host].sent {
            assert!((1..=last).contains(number), "{number:#x}");
            let before = used.insert(*spi, *number);
            assert!(before.is_none_or(|before| before < *number), "{number:#x} after {before:?}");
        }
        used.into_keys().collect()
    }
}

#[test]
fn sequence_numbers_run_out_and_the_successor_is_there() {
    for host in 0..2 {
        let mut w = World::up("aes128-sha1", "", 1);
        w.skip(host, LAST - RESERVE - 20);
        for _ in 0..1000 {
            w.send(host, 1);
            w.pass(1);
        }
        assert_eq!(w.hosts[host].dropped, 0);
        assert_eq!(w.spis(host, LAST).len(), 2, "replaced once");
        assert!(w.hosts[host].sent.last().is_some_and(|(_, number)| *number < 1000), "the successor begins at 1");
        assert!(w.hosts.iter().all(|h| h.pairs.len() == 1));
    }
}

#[test]
fn without_a_successor_nothing_is_sent_after_the_last_number() {
    let mut w = World::up("aes128-sha1", "", 1);
    w.connected = false;
    w.skip(0, LAST - 3);
    w.send(0, 10);
    let numbers: Vec<_> = w.hosts[0].sent.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [LAST - 2, LAST - 1, LAST]);
    assert_eq!((w.hosts[0].dropped, w.hosts[0].pairs.len()), (7, 0), "the pair is gone");
    // The peer is back: a new pair, whose numbers begin anew.
    w.connected = true;
    w.pass(10_000);
    w.command(0, Command::Initiate { tunnel: "t".into() });
    w.pass(100);
    w.send(0, 3);
    assert_eq!(w.spis(0, LAST).len(), 2);
    assert_eq!(w.hosts[0].sent.last().map(|(_, number)| *number), Some(3));
}

#[test]
fn extended_sequence_numbers_go_on_after_32_bits_and_end_too() {
    let mut w = World::up("aes128-sha1-esn", "", 1);
    w.skip(0, LAST - 5);
    w.send(0, 10);
    w.pass(100);
    assert_eq!(w.spis(0, u64::MAX - 1).len(), 1, "nothing is replaced");
    assert_eq!(w.hosts[0].sent.last().map(|(_, number)| *number), Some(LAST + 5));
    w.skip(0, u64::MAX - 1 - RESERVE - 5);
    for _ in 0..100 {
        w.send(0, 1);
        w.pass(1);
    }
    assert_eq!((w.spis(0, u64::MAX - 1).len(), w.hosts[0].dropped), (2, 0));
}

#[test]
fn a_lifetime_in_packets_is_kept_on_both_sides() {
    const PACKETS: usize = 1000;
    let mut w = World::up("aes128-sha1", &format!("lifetime_packets = {PACKETS}"), 1);
    for _ in 0..6000 {
        w.send(0, 1);
        w.pass(1);
    }
    assert_eq!(w.hosts[0].dropped, 0, "the successor is there in time");
    let mut carried: BTreeMap<u32, usize> = BTreeMap::new();
    w.hosts[0].sent.iter().for_each(|(spi, _)| *carried.entry(*spi).or_default() += 1);
    assert!((6..=9).contains(&carried.len()), "{carried:?}");
    assert!(carried.values().all(|n| *n <= PACKETS));
    // Without a peer it is the end of the pair.
    w.pass(4000);
    assert!(w.hosts.iter().all(|h| h.pairs.len() == 1), "what was replaced is gone");
    w.connected = false;
    let before = w.hosts[0].sent.len();
    w.send(0, 3 * PACKETS);
    assert!(w.hosts[0].sent.len() - before <= PACKETS && w.hosts[0].pairs.is_empty());
}

#[test]
fn the_volume_at_which_the_successor_is_asked_for_differs() {
    const KBYTES: u64 = 64;
    let mut asked = BTreeSet::new();
    for seed in 0..8 {
        let mut w = World::up(&format!("aes128-sha1/28800/{KBYTES}"), "", seed);
        // Both directions carry the same, so both sides come to it: the one that made the pair first.
        for _ in 0..KBYTES * 1024 / PACKET as u64 {
            w.send(0, 1);
            w.send(1, 1);
            w.pass(1);
        }
        assert!(w.hosts.iter().all(|h| h.dropped == 0));
        assert!(w.hosts[1].asked.is_empty(), "its peer was first");
        let octets = w.hosts[0].asked[0];
        assert!((KBYTES * 1024 * 80 / 100..=KBYTES * 1024 * 86 / 100).contains(&octets), "{octets}");
        asked.insert(octets);
    }
    assert!(asked.len() > 3, "{asked:?}");
}
