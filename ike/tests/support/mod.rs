//! Hosts on a wire in memory, on virtual time.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod signer;

pub use signer::{Signer, Statement};

use crypto::Secret;
use crypto::entropy::testing::SeededEntropy;
use ike::{Assignment, Command, Datagram, Engine, Output};
use policy::audit::{AuditEvent, Level};
use policy::config::{Client, Config};
use policy::sa::SaSpec;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A pair as the packet path would hold it.
pub struct Installed {
    pub inbound: SaSpec,
    pub outbound: SaSpec,
    /// Order of activation.
    pub active: Option<u64>,
}

pub struct Host {
    pub engine: Engine,
    pub address: IpAddr,
    pub entropy: SeededEntropy,
    pub audit: Vec<AuditEvent>,
    pub audit_at: Vec<Timestamp>,
    pub pairs: BTreeMap<u64, Installed>,
    pub removed: Vec<(u64, String)>,
    pub failed: Vec<(String, String)>,
    pub exported: Vec<[u8; 8]>,
    /// What the engine is told when it asks for a key, and whether it is told at all.
    pub secret: Option<Secret>,
    /// The same of the records after the first, by name.
    pub secrets: BTreeMap<String, Secret>,
    pub answers: bool,
    pub pending_tokens: Vec<u64>,
    pub keepalives: usize,
    pub signer: Option<Signer>,
    /// The password of our user.
    pub password: Option<Secret>,
    /// Users who may come in, with their passwords; `None`: nobody can tell.
    pub users: Option<Vec<(&'static str, &'static str)>>,
    /// What clients get, and those that have something.
    pub lease: Result<Assignment, String>,
    pub clients: Vec<Client>,
    /// What peers gave us.
    pub assigned: Vec<Assignment>,
    base: Arc<Config>,
    /// Questions for signatures and verdicts so far.
    pub asked: Vec<&'static str>,
    /// When its packet path last received and sent something.
    pub activity: (Option<Timestamp>, Option<Timestamp>),
    /// How often it was asked for that.
    pub activity_asked: usize,
    order: u64,
}

pub fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
}

impl Packet {
    /// The ISAKMP message, without the non-ESP marker.
    pub fn message(&self) -> &[u8] {
        self.payload.strip_prefix(&[0, 0, 0, 0]).filter(|_| self.to.port() != 500).unwrap_or(&self.payload)
    }

    /// Exchange type and message ID.
    pub fn exchange(&self) -> (u8, u32) {
        let m = self.message();
        (m[18], u32::from_be_bytes([m[20], m[21], m[22], m[23]]))
    }
}

/// What the wire does to a packet: the copies that arrive, each after a delay.
pub type Wire = Box<dyn FnMut(&Packet) -> Vec<(Duration, Packet)>>;

pub const LATENCY: Duration = Duration::from_millis(10);

pub struct World {
    pub now: Timestamp,
    pub hosts: Vec<Host>,
    pub wire: Wire,
    pub sent: Vec<(Timestamp, Packet)>,
    queue: BTreeMap<(Timestamp, u64), Packet>,
    sequence: u64,
}

pub fn lossless() -> Wire {
    Box::new(|p| vec![(LATENCY, p.clone())])
}

/// A wire on which nobody hears a vendor ID that begins like this.
pub fn without_vendor_id(begins: [u8; 4]) -> Wire {
    Box::new(move |p| {
        let mut p = p.clone();
        if let Some(at) = p.payload.windows(4).position(|id| id == begins) {
            p.payload[at + 1] ^= 1;
        }
        vec![(LATENCY, p)]
    })
}

/// How the vendor ID of NAT traversal begins, and ours of who receives from message 2 on.
pub const RFC_3947: [u8; 4] = [0x4a, 0x13, 0x1c, 0x81];
pub const RECEIVES_EARLY: [u8; 4] = [0xf5, 0x4b, 0x93, 0x60];

/// Parses a configuration that must be without errors.
pub fn config(text: &str) -> Arc<Config> {
    match Config::parse(text, "test.toml") {
        Ok(checked) => Arc::new(checked.config),
        Err(diagnostics) => {
            let all: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
            panic!("{}", all.join("\n"));
        }
    }
}

pub const PSK: &str = "correct-horse-battery-staple";

/// The configuration of one of two hosts.
#[derive(Clone)]
pub struct Side {
    pub me: &'static str,
    pub peer: &'static str,
    pub source: &'static str,
    pub destination: &'static str,
    pub ike: String,
    pub esp: String,
    pub psk: String,
    pub startup: String,
    pub tunnel_extra: String,
    pub ike_extra: String,
    pub auth_extra: String,
}

pub fn a() -> Side {
    Side {
        me: "10.77.0.1",
        peer: "10.77.0.2",
        source: "10.78.1.0/24",
        destination: "10.78.2.0/24",
        ike: "aes128-sha1-modp2048".into(),
        esp: "aes128-sha1".into(),
        psk: PSK.into(),
        startup: String::new(),
        tunnel_extra: String::new(),
        ike_extra: String::new(),
        auth_extra: String::new(),
    }
}

pub fn b() -> Side {
    Side { me: "10.77.0.2", peer: "10.77.0.1", source: "10.78.2.0/24", destination: "10.78.1.0/24", ..a() }
}

impl Side {
    pub fn text(&self) -> String {
        let Self { me, peer, source, destination, ike, esp, psk, startup, tunnel_extra, ike_extra, auth_extra } = self;
        let ike = ike.split(',').map(|p| format!("\"{p}\"")).collect::<Vec<_>>().join(", ");
        format!(
            "[startup]\n{startup}\n\
             [[tunnel]]\nname = \"net\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\naction = \"{esp}\"\n{tunnel_extra}\n\
             [[host]]\nname = \"h\"\nsource = \"{source}\"\ndestination = \"{destination}\"\ntunnel = \"net\"\n\
             [[ike]]\nname = \"peer\"\nremote = \"{peer}\"\nproposals = [{ike}]\n{ike_extra}\n\
             [[auth]]\nname = \"peer\"\nremote = \"{peer}\"\npreshared = \"{psk}\"\n{auth_extra}\n"
        )
    }

    pub fn config(&self) -> Arc<Config> {
        config(&self.text())
    }
}

impl Host {
    pub fn new(config: Arc<Config>, address: &str, seed: u64, now: Timestamp) -> Self {
        Self {
            secret: config.auths.first().and_then(|a| a.preshared.clone()),
            secrets: config.auths.iter().skip(1).filter_map(|a| Some((a.name.clone(), a.preshared.clone()?))).collect(),
            engine: Engine::new(Arc::clone(&config), now),
            address: address.parse().unwrap(),
            entropy: SeededEntropy::new(seed),
            audit: Vec::new(),
            audit_at: Vec::new(),
            pairs: BTreeMap::new(),
            removed: Vec::new(),
            failed: Vec::new(),
            exported: Vec::new(),
            answers: true,
            pending_tokens: Vec::new(),
            keepalives: 0,
            signer: None,
            password: None,
            users: None,
            lease: Err("there is none".into()),
            clients: Vec::new(),
            assigned: Vec::new(),
            base: config,
            asked: Vec::new(),
            activity: (None, None),
            activity_asked: 0,
            order: 0,
        }
    }

    /// The pair that packets would leave with.
    pub fn current(&self) -> Option<&Installed> {
        self.pairs.values().filter(|p| p.active.is_some()).max_by_key(|p| p.active)
    }

    pub fn lines(&self, level: Level) -> Vec<&str> {
        self.audit.iter().filter(|e| e.level == level).map(|e| e.text.as_str()).collect()
    }

    pub fn errors(&self) -> Vec<&str> {
        self.lines(Level::Error)
    }
}

impl World {
    pub fn new(a: &Side, b: &Side) -> Self {
        Self::of(&[(a.config(), a.me), (b.config(), b.me)], 1)
    }

    pub fn of(hosts: &[(Arc<Config>, &str)], seed: u64) -> Self {
        let now = Timestamp::from_micros(0);
        let hosts = hosts
            .iter()
            .enumerate()
            .map(|(i, (config, address))| Host::new(Arc::clone(config), address, seed * 1000 + i as u64, now))
            .collect();
        Self { now, hosts, wire: lossless(), sent: Vec::new(), queue: BTreeMap::new(), sequence: 0 }
    }

    pub fn a(&self) -> &Host {
        &self.hosts[0]
    }

    pub fn b(&self) -> &Host {
        &self.hosts[1]
    }

    pub fn command(&mut self, host: usize, command: Command) {
        let now = self.now;
        let h = &mut self.hosts[host];
        h.engine.handle_command(now, command, &mut h.entropy);
        self.drain(host);
    }

    pub fn initiate(&mut self, host: usize) {
        self.command(host, Command::Initiate { tunnel: "net".into() });
    }

    /// Hands a datagram to a host as if it had come from the wire.
    pub fn deliver(&mut self, packet: &Packet) {
        let Some(host) = self.hosts.iter().position(|h| h.address == packet.to.ip()) else { return };
        if packet.payload == [0xff] {
            return;
        }
        let now = self.now;
        let h = &mut self.hosts[host];
        let datagram = Datagram { local: packet.to, remote: packet.from, payload: packet.message() };
        h.engine.handle_datagram(now, datagram, &mut h.entropy);
        self.drain(host);
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].engine.poll_output() {
            let now = self.now;
            let h = &mut self.hosts[host];
            match output {
                Output::Transmit { local, remote, payload } => {
                    assert_eq!(local.ip(), h.address, "a host speaks only for itself");
                    if payload == [0xff] {
                        h.keepalives += 1;
                    }
                    let packet = Packet { from: local, to: remote, payload };
                    self.sent.push((now, packet.clone()));
                    for (delay, copy) in (self.wire)(&packet) {
                        self.sequence += 1;
                        self.queue.insert((now + delay, self.sequence), copy);
                    }
                }
                Output::NeedSecret { token, auth_record, .. } => {
                    if h.answers {
                        let secret = h.secrets.get(&auth_record).cloned().or_else(|| h.secret.clone());
                        h.engine.handle_command(now, Command::Secret { token, secret }, &mut h.entropy);
                    } else {
                        h.pending_tokens.push(token);
                    }
                }
                Output::Sign { token, method, hash, .. } => {
                    h.asked.push("sign");
                    let signer = h.signer.clone().expect("a key");
                    let signed = signer.sign(method, hash.expose());
                    if signer.answers {
                        h.engine.handle_command(now, Command::Signed { token, signed }, &mut h.entropy);
                    }
                }
                Output::Judge { token, method, hash, signature, claim, certificates, expected, .. } => {
                    h.asked.push("judge");
                    let signer = h.signer.clone().expect("a key");
                    let verdict = signer.judge(&Statement {
                        method,
                        hash: hash.expose(),
                        signature: &signature,
                        claim: &claim,
                        certificates: &certificates,
                        expected: &expected,
                    });
                    if signer.answers {
                        h.engine.handle_command(now, Command::Judged { token, verdict }, &mut h.entropy);
                    }
                }
                Output::NeedPassword { token, .. } => {
                    h.asked.push("password");
                    if h.answers {
                        let password = h.password.clone();
                        h.engine.handle_command(now, Command::Password { token, password }, &mut h.entropy);
                    }
                }
                Output::CheckUser { token, user, password, .. } => {
                    h.asked.push("user");
                    let is = |u: &&(&str, &str)| u.0 == user && u.1.as_bytes() == password.expose();
                    let verdict = h.users.as_ref().ok_or_else(|| "its file is gone".to_owned());
                    let verdict = verdict.map(|users| users.iter().any(|u| is(&u)));
                    if h.answers {
                        h.engine.handle_command(now, Command::UserChecked { token, verdict }, &mut h.entropy);
                    }
                }
                Output::NeedLease { token, owner, local, peer } => {
                    h.asked.push("lease");
                    if !h.answers {
                        continue;
                    }
                    let lease = h.lease.clone();
                    if let (Ok(assignment), Some(pool)) = (&lease, h.base.pool_at(local)) {
                        let (pool, address) = (pool.name.clone(), assignment.address);
                        h.clients = vec![Client::Leased { pool, owner, local, peer, address }];
                        let config = Arc::new(h.base.expanded(&h.clients));
                        h.engine.handle_command(now, Command::Reload { config }, &mut h.entropy);
                    }
                    h.engine.handle_command(now, Command::Leased { token, lease }, &mut h.entropy);
                }
                Output::Assigned { local, peer, assignment } => {
                    let (address, networks) = (assignment.address, assignment.networks.clone());
                    h.assigned.push(assignment);
                    let clients = vec![Client::Virtual { local, peer, address, networks }];
                    if clients != h.clients {
                        h.clients = clients;
                        let config = Arc::new(h.base.expanded(&h.clients));
                        h.engine.handle_command(now, Command::Reload { config }, &mut h.entropy);
                    }
                }
                Output::NeedActivity { token, .. } => {
                    let (received, sent) = h.activity;
                    h.activity_asked += 1;
                    h.engine.handle_command(now, Command::Activity { token, received, sent }, &mut h.entropy);
                }
                Output::InstallPair { inbound, outbound } => {
                    assert_eq!(inbound.pair, outbound.pair);
                    assert!(h.pairs.values().all(|p| p.inbound.spi != inbound.spi), "an SPI is used twice");
                    let installed = Installed { inbound, outbound, active: None };
                    assert!(h.pairs.insert(installed.inbound.pair, installed).is_none());
                }
                Output::ActivateOutbound { pair } => {
                    h.order += 1;
                    let order = h.order;
                    h.pairs.get_mut(&pair).expect("activated pairs exist").active = Some(order);
                }
                Output::PeerMoved { pair, remote } => {
                    let pair = h.pairs.get_mut(&pair).expect("moved pairs exist");
                    pair.outbound.encapsulation.as_mut().expect("only behind a NAT").remote_port = remote.port();
                }
                Output::RemovePair { pair, inbound_spi, outbound_spi, reason } => {
                    let gone = h.pairs.remove(&pair).expect("removed pairs exist");
                    assert_eq!((gone.inbound.spi, gone.outbound.spi), (inbound_spi, outbound_spi));
                    h.removed.push((pair, reason));
                }
                Output::TunnelFailed { tunnel, reason } => h.failed.push((tunnel.to_string(), reason)),
                Output::SessionFailed { session, reason, .. } => h.failed.push((session.to_string(), reason)),
                Output::Audit(event) => {
                    h.audit.push(event);
                    h.audit_at.push(now);
                }
                Output::IsakmpKeys { initiator_cookie, .. } => h.exported.push(initiator_cookie),
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        for host in 0..self.hosts.len() {
            self.drain(host);
        }
        loop {
            steps += 1;
            assert!(steps < 1_000_000, "the hosts never come to rest");
            let timer = (0..self.hosts.len()).filter_map(|i| Some((self.hosts[i].engine.next_timeout()?, i))).min();
            let packet = self.queue.first_key_value().map(|(&key, _)| key);
            match (timer, packet) {
                (t, Some((at, sequence))) if at <= end && t.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    let packet = self.queue.remove(&(at, sequence)).expect("just seen");
                    self.deliver(&packet);
                }
                (Some((due, host)), _) if due <= end => {
                    self.now = self.now.max(due);
                    let now = self.now;
                    let h = &mut self.hosts[host];
                    h.engine.handle_timeout(now, &mut h.entropy);
                    assert!(h.engine.next_timeout().is_none_or(|next| next > now), "a timer must move on");
                    self.drain(host);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// What both sides recorded, for a failing test.
    pub fn story(&self) -> String {
        let mut lines = Vec::new();
        for h in &self.hosts {
            let at = |t: &Timestamp| t.as_micros() as f64 / 1e6;
            lines.push(format!("{}: {:#?}", h.address, h.engine.pairs()));
            let events = h.audit.iter().zip(&h.audit_at);
            lines.extend(events.map(|(e, t)| format!("{:>8.2} {} {}", at(t), e.level, e.text)));
        }
        lines.join("\n")
    }

    /// Both sides hold exactly one pair, mirror images of each other, in use on both.
    pub fn assert_one_pair(&self) {
        let (a, b) = (self.a(), self.b());
        assert_eq!((a.pairs.len(), b.pairs.len()), (1, 1), "{:#?}\n{:#?}", a.audit, b.audit);
        self.assert_mirror();
    }

    /// What one side encrypts with, the other can decrypt, both ways.
    pub fn assert_mirror(&self) {
        for (x, y) in [(self.a(), self.b()), (self.b(), self.a())] {
            let out = &x.current().expect("a pair is in use").outbound;
            let peer = y.pairs.values().find(|p| p.inbound.spi == out.spi).expect("the peer has the SPI");
            assert_eq!(out.keymat, peer.inbound.keymat);
            assert_eq!(out.keymat.len(), out.suite.keymat_len());
            assert_eq!(out.suite, peer.inbound.suite);
            assert_eq!((out.local, out.remote), (peer.inbound.remote, peer.inbound.local));
            assert_eq!(out.encapsulation.is_some(), peer.inbound.encapsulation.is_some());
        }
    }

    pub fn assert_nothing_left(&self) {
        for h in &self.hosts {
            assert!(h.pairs.is_empty());
            assert!(h.engine.pairs().is_empty());
            assert!(h.engine.isakmp_sas().is_empty(), "{:?}", h.engine.isakmp_sas());
        }
    }
}
