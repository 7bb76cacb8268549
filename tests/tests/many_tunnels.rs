//! A thousand peers that negotiate with one daemon at once: every one gets its tunnel, memory is bounded, and
//! nothing is left when they have gone.
//!
//! `CAPONIER_TUNNELS` says how many. The figures are printed (`--nocapture`).
#![allow(clippy::print_stderr, reason = "it measures")]

use crypto::Entropy;
use ike::{Command, Datagram, Engine, Output};
use keys::PresharedKeys;
use policy::config::Config;
use policy::time::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration};
use tests::cases::PRESHARED;
use tests::lab::{Host, Lab};

/// The operating system's.
struct Random;

impl Entropy for Random {
    fn fill(&mut self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            filled += getrandom(&mut out[filled..], GetRandomFlags::empty()).expect("entropy");
        }
    }
}

/// The outer address of peer `n`, and the network behind it.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, (n / 250) as u8, (n % 250 + 1) as u8)
}

fn network(n: usize) -> String {
    format!("10.{}.{}.0/24", 128 + n / 250, n % 250)
}

/// A tunnel with its host policy.
fn tunnel(text: &mut String, name: &str, ends: (&str, &str), networks: (&str, &str)) {
    let ((tsource, tdestination), (source, destination)) = (ends, networks);
    let selector = format!("source = \"{source}\"\ndestination = \"{destination}\"\n");
    let _ = write!(
        text,
        "[[tunnel]]\nname = \"{name}\"\ntsource = \"{tsource}\"\ntdestination = \"{tdestination}\"\n{selector}\
         action = \"aes128-sha1\"\n[[host]]\nname = \"{name}\"\n{selector}tunnel = \"{name}\"\n"
    );
}

fn peers(text: &mut String, remote: &str) {
    let _ = write!(
        text,
        "[[ike]]\nname = \"peers\"\nremote = \"{remote}\"\nproposals = \"aes128-sha1-x25519\"\n\
         [[auth]]\nname = \"peers\"\nremote = \"{remote}\"\npreshared = \"{PRESHARED}\"\n"
    );
}

/// A peer: an engine and its socket.
struct Peer {
    engine: Engine,
    socket: UdpSocket,
    local: SocketAddr,
    secrets: PresharedKeys,
    up: bool,
    pairs: usize,
}

impl Peer {
    fn new(n: usize, a: &Host, now: Timestamp) -> Self {
        let mut text = String::new();
        let (me, peer) = (address(n).to_string(), a.outer().to_string());
        tunnel(&mut text, "hub", (&me, &peer), (&network(n), &a.network()));
        peers(&mut text, &peer);
        let config = Config::parse(&text, "peer.toml").expect("a good configuration").config;
        let local = SocketAddr::new(address(n).into(), 500);
        let socket = UdpSocket::bind(local).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let secrets = PresharedKeys::from_config(&config);
        Self { engine: Engine::new(Arc::new(config), now), socket, local, secrets, up: false, pairs: 0 }
    }

    /// Does what the engine wants.
    fn settle(&mut self, now: Timestamp) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { remote, payload, .. } => {
                    // What the system does not take is sent again.
                    let _ = self.socket.send_to(&payload, remote);
                }
                Output::NeedSecret { token, auth_record, .. } => {
                    let secret = self.secrets.secret(&auth_record);
                    self.engine.handle_command(now, Command::Secret { token, secret }, &mut Random);
                }
                Output::InstallPair { .. } => self.pairs += 1,
                Output::RemovePair { .. } => self.pairs -= 1,
                Output::ActivateOutbound { .. } => self.up = true,
                _ => {}
            }
        }
    }

    fn receive(&mut self, now: Timestamp) {
        let mut buffer = [0; 4096];
        while let Ok((len, remote)) = self.socket.recv_from(&mut buffer) {
            let datagram = Datagram { local: self.local, remote, payload: &buffer[..len] };
            self.engine.handle_datagram(now, datagram, &mut Random);
            self.settle(now);
        }
    }

    fn due(&mut self, now: Timestamp) {
        if self.engine.next_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now, &mut Random);
            self.settle(now);
        }
    }
}

/// Lets all peers work until `done` for each, and says how long that took.
fn work(peers: &mut [Peer], origin: Instant, seconds: u64, done: impl Fn(&Peer) -> bool) -> Duration {
    let began = Instant::now();
    let now = || Timestamp::from_micros(origin.elapsed().as_micros() as u64);
    loop {
        let missing = peers.iter().filter(|peer| !done(peer)).count();
        if missing == 0 {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(seconds), "{missing} peers are not done");
        let mut fds: Vec<_> = peers.iter().map(|peer| PollFd::new(&peer.socket, PollFlags::IN)).collect();
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        poll(&mut fds, Some(&pause)).expect("poll");
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (peer, ready) in peers.iter_mut().zip(ready) {
            if ready {
                peer.receive(now());
            }
            peer.due(now());
        }
    }
}

#[test]
fn a_thousand_tunnels_at_once() {
    let many: usize = std::env::var("CAPONIER_TUNNELS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let Some(lab) = Lab::open("many_tunnels", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("a limit");
    b.run(10, "ip", &["route", "add", "local", "10.64.0.0/16", "dev", "lo"]).ok("ip route");
    a.run(10, "ip", &["route", "add", "10.64.0.0/16", "via", &b.outer().to_string()]).ok("ip route");
    let mut more = String::new();
    for n in 0..many {
        let ends = (a.outer().to_string(), address(n).to_string());
        tunnel(&mut more, &format!("peer_{n}"), (&ends.0, &ends.1), (&a.network(), &network(n)));
    }
    peers(&mut more, "10.64.0.0/16");
    let hub = Caponier::start(a, &Configuration { more, ..Configuration::default() });
    let at_rest = hub.resident_kbytes();
    let mut sizes = Vec::new();
    for round in 1..=2 {
        let origin = Instant::now();
        let start = Timestamp::from_micros(0);
        let mut all: Vec<Peer> = b.inside(|| (0..many).map(|n| Peer::new(n, a, start)).collect());
        let cpu = hub.cpu();
        for peer in &mut all {
            let now = Timestamp::from_micros(origin.elapsed().as_micros() as u64);
            peer.engine.handle_command(now, Command::Initiate { tunnel: "hub".into() }, &mut Random);
            peer.settle(now);
        }
        let took = work(&mut all, origin, 120, |peer| peer.up);
        let cpu = hub.cpu() - cpu;
        assert_eq!(hub.counter("ipsec_sas"), 2 * many as u64, "the hub has a pair for each");
        assert!(all.iter().all(|peer| peer.pairs == 1), "one pair each, no more");
        let up = hub.resident_kbytes();
        eprintln!(
            "round {round}: {many} tunnels in {:.2} s ({:.0} a second); {:.2} ms of the daemon's processor time each; \
             resident {at_rest} kB at rest, {up} kB with all of them ({:.1} kB each)",
            took.as_secs_f64(),
            many as f64 / took.as_secs_f64(),
            cpu.as_secs_f64() * 1e3 / many as f64,
            up.saturating_sub(at_rest) as f64 / many as f64,
        );
        // They go, and say so.
        let now = Timestamp::from_micros(origin.elapsed().as_micros() as u64);
        for peer in &mut all {
            peer.engine.handle_command(now, Command::Shutdown, &mut Random);
            peer.settle(now);
        }
        tests::wait::until_true("the hub to be rid of them", 60, || hub.report("sad").is_empty());
        tests::wait::until_true("their ISAKMP SAs to go", 60, || hub.report("mad").is_empty());
        hub.assert_nothing_left();
        sizes.push(up);
    }
    assert!(sizes[0] < at_rest + 64 * many as u64, "more than 64 kB a tunnel: {at_rest} kB, {sizes:?}");
    assert!(sizes[1] < sizes[0] + 4 * many as u64, "it grows with each round: {sizes:?}");
}
