//! Clear-text that a policy protects neither leaves nor is accepted, whatever happens.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::{traffic, wait};

/// In every datagram: must never be seen on the wire.
const SECRET: &[u8] = b"only for the protected side";
const PORT: u16 = 7777;

/// Datagrams from one inner address to another, a hundred a second, until
/// dropped; what arrives is counted.
struct Stream {
    paused: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    fn start(from: &Host, to: &Host) -> Self {
        let [paused, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let received = Arc::new(AtomicU64::new(0));
        let sender = from.inside(|| UdpSocket::bind((from.inner(), 0))).expect("a UDP socket");
        let receiver = traffic::udp(to, to.inner(), PORT, 1);
        let destination = (to.inner(), PORT);
        let (p, s, r) = (Arc::clone(&paused), Arc::clone(&stop), Arc::clone(&received));
        let send = std::thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                if !p.load(Ordering::Relaxed) {
                    // An error is the kernel's refusal: just what must happen while there is no tunnel.
                    let _ = sender.send_to(SECRET, destination);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let s = Arc::clone(&stop);
        let receive = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while !s.load(Ordering::Relaxed) {
                if receiver.recv(&mut buffer).is_ok() {
                    r.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { paused, stop, received, threads: vec![send, receive] }
    }

    fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        // A datagram may be on its way.
        std::thread::sleep(Duration::from_millis(100));
    }

    #[track_caller]
    fn flows(&self, seconds: u64) {
        let before = self.received.load(Ordering::Relaxed);
        let enough = || self.received.load(Ordering::Relaxed) >= before + 20;
        wait::until_true("datagrams to arrive", seconds, enough);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Ways past the tunnel that would work, were nothing there to forbid it.
fn open_roads(lab: &Lab) {
    for (host, peer) in [(lab.a(), lab.b()), (lab.b(), lab.a())] {
        let via = peer.outer().to_string();
        host.run(10, "ip", &["route", "add", &peer.network(), "via", &via]).ok("a route");
    }
}

fn configuration(me: &Host, peer: &Host, seconds: u32) -> Configuration {
    let mut tunnel = Tunnel::new(me, peer, PLAIN);
    tunnel.esp = vec![format!("aes128-sha1/{seconds}")];
    Configuration { startup: "allow_short_lifetimes = true".into(), ..Configuration::new(tunnel) }
}

#[test]
fn nothing_in_the_clear_through_everything() {
    let Some(lab) = Lab::open("fail-closed", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    open_roads(&lab);
    traffic::ping_all(a, b, 1); // in the clear: the roads are open

    // From now on the policy holds at both.
    let (config_a, config_b) = (configuration(a, b, 20), configuration(b, a, 20));
    let mut at_a = Caponier::start(a, &config_a);
    let mut at_b = Caponier::start(b, &config_b);
    let wire = Capture::start(a, "outer");
    let leaks = |daemons: [&Caponier; 2]| assert_eq!(daemons.map(|d| d.counter("cleartext_leaks")), [0, 0]);

    // First packet.
    let there = Stream::start(a, b);
    let back = Stream::start(b, a);
    there.flows(20);
    back.flows(20);

    // Rekey, by command and by time.
    at_a.admin(&["-rekey_sa", "to_b"]);
    at_b.admin(&["-rekey_sa", "to_a"]);
    at_a.admin(&["-rekey_ike", &b.outer().to_string()]);
    there.flows(20);
    let pair = at_a.pairs("to_b").first().copied();
    wait::until_true("a rekey by time", 40, || at_a.pairs("to_b").first().copied() != pair);
    there.flows(20);

    // Reload: the same, then other transforms, then a policy more.
    at_a.reload(&config_a);
    there.flows(20);
    let mut other = [config_a.clone(), config_b.clone()];
    for configuration in &mut other {
        configuration.tunnels[0].esp = vec!["aes256-sha256/20".into()];
    }
    at_a.reload(&other[0]);
    at_b.reload(&other[1]);
    there.flows(60);
    back.flows(60);
    let more = "\n[[host]]\nname = \"web\"\nsource = \"10.99.0.1\"\ndestination = \"10.99.0.2\"\naction = \"PASS\"\n";
    at_b.reload(&Configuration { more: more.into(), ..other[1].clone() });
    back.flows(60);
    leaks([&at_a, &at_b]);

    // Restart of the peer in good order. Stopped, it protects nothing: it is silent meanwhile.
    back.pause(true);
    at_b.stop();
    at_b = Caponier::start(b, &other[1]);
    back.pause(false);
    there.flows(60);
    back.flows(60);

    // SIGKILL of either daemon: nothing leaves, and the other's SAs expire. Then it works again.
    at_b.kill();
    wait::until_true("the SAs to expire", 60, || at_a.report("sad").is_empty());
    at_b = Caponier::start(b, &other[1]);
    there.flows(90);
    back.flows(90);
    at_a.kill();
    std::thread::sleep(Duration::from_secs(3));
    at_a = Caponier::start(a, &other[0]);
    there.flows(90);
    back.flows(90);
    leaks([&at_a, &at_b]);
    let frames = wire.stop();
    drop((there, back));
    capture::assert_protected(&frames, a, b, SECRET);
    assert!(frames.len() > 1000, "the capture saw the traffic: {}", frames.len());
}

/// What the test above relies on: the roads are open and the capture sees it,
/// once both things that a killed daemon leaves behind are taken away by hand:
/// the packet filter and the unreachable route. Either is enough.
#[test]
fn without_the_guard_it_would_leak() {
    let Some(lab) = Lab::open("no-guard", 2, &[Need::Capture, Need::Nft]) else { return };
    let (a, b) = (lab.a(), lab.b());
    open_roads(&lab);
    let at_a = Caponier::start(a, &configuration(a, b, 600));
    let at_b = Caponier::start(b, &configuration(b, a, 600));
    let wire = Capture::start(a, "outer");
    let stream = Stream::start(a, b);
    stream.flows(20);
    at_a.kill();
    std::thread::sleep(Duration::from_secs(1));
    a.run(10, "nft", &["delete", "table", "inet", "caponier"]).ok("nft");
    std::thread::sleep(Duration::from_secs(1));
    capture::assert_protected(&wire.so_far(), a, b, SECRET);
    let rules = a.run(10, "ip", &["-4", "rule"]).ok("ip rule");
    let rule = rules.lines().find(|rule| rule.contains("fwmark")).expect("the rule of the daemon");
    let table = rule.split_whitespace().skip_while(|word| *word != "lookup").nth(1).expect("its table");
    a.run(10, "ip", &["route", "flush", "table", table]).ok("ip route flush");
    wait::until_true("clear-text on the wire", 10, || {
        wire.so_far().iter().any(|frame| capture::kind(frame) == capture::Kind::Clear)
    });
    drop((stream, at_b));
}

/// Whether a datagram from `attacker`, in the clear, reaches the protected
/// address of `victim`. It is sent from the address of a host behind the tunnel.
fn accepted(attacker: &Host, source: IpAddr, victim: &Host, via: &str) -> bool {
    let listener = traffic::udp(victim, victim.inner(), 0, 1);
    let port = listener.local_addr().expect("its address").port();
    let route = [&victim.network(), "via", via].map(str::to_owned);
    attacker.run(10, "ip", &["route", "replace", &route[0], &route[1], &route[2]]).ok("a route");
    let socket = attacker.inside(|| UdpSocket::bind((source, 0))).expect("a UDP socket");
    for _ in 0..5 {
        let _ = socket.send_to(b"injected", (victim.inner(), port));
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut buffer = [0; 100];
    while Instant::now() < deadline {
        match listener.recv(&mut buffer) {
            Ok(n) if &buffer[..n] == b"injected" => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn injected_clear_text_is_not_accepted() {
    let Some(lab) = Lab::open("injected", 3, &[]) else { return };
    let [a, b, c] = lab.hosts() else { unreachable!("three hosts") };
    // A second link between the victim and the attacker, who has the address of a protected host.
    lab.link(a, "side", "10.76.0.1/24", c, "side", "10.76.0.3/24");
    c.run(10, "ip", &["addr", "add", &format!("{}/24", b.inner()), "dev", "inner"]).ok("an address");
    let roads = [a.outer().to_string(), "10.76.0.1".to_owned()];
    let tries = |what: &str, expected: bool| {
        for via in &roads {
            assert_eq!(accepted(c, b.inner(), a, via), expected, "{what}: clear-text by {via}");
        }
    };
    tries("nothing protects", true);

    let caponier = Caponier::start(a, &configuration(a, b, 600));
    tries("no SA yet", false);
    let peer = Caponier::start(b, &configuration(b, a, 600));
    traffic::ping_all(a, b, 2);
    tries("the tunnel is up", false);
    assert!(accepted(c, c.inner(), a, &roads[0]), "what no policy protects goes on in the clear");
    caponier.reload(&configuration(a, b, 700));
    tries("after a reload", false);
    caponier.kill();
    tries("after SIGKILL", false);
    let caponier = Caponier::start(a, &configuration(a, b, 600));
    tries("started again", false);
    traffic::ping_all(a, b, 2);
    caponier.stop();
    tries("stopped in good order", true);
    drop(peer);
}
