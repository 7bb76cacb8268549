//! Whole negotiations, one after the other, between two daemons: main mode and quick mode, then
//! everything is deleted. Beside strongSwan in the same run, since only the ratio says something.
//!
//! ```text
//! cargo test --release -p tests --test setup_rate -- --ignored --nocapture
//! ```
//! `CAPONIER_NEGOTIATIONS` says how many of each.
#![allow(clippy::print_stderr, reason = "it measures")]

use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::{Case, PLAIN};
use tests::lab::Lab;
use tests::need::{self, Need};
use tests::pki::{self, Authority, Kind};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::vici::Vici;
use tools::control::{Request, client};

/// What was measured of one implementation.
struct Figures {
    /// Each from the command to the answer that it is up.
    each: Vec<Duration>,
    /// Processor time of the initiator and the responder.
    cpu: [Duration; 2],
}

impl Figures {
    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.each.iter().sum::<Duration>().as_secs_f64()
    }

    fn say(&mut self, who: &str, case: &str) {
        self.each.sort();
        let count = self.each.len();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        eprintln!(
            "{case} {who}: {:.0}/s (median {:.2} ms, 95 % {:.2} ms); processor time {:.2} + {:.2} ms",
            self.rate(),
            ms(self.each[count / 2]),
            ms(self.each[count * 95 / 100]),
            ms(self.cpu[0]) / count as f64,
            ms(self.cpu[1]) / count as f64,
        );
    }
}

/// Repeats `up`, which is timed, and `down`, which is not.
fn measure(count: usize, mut up: impl FnMut(), mut down: impl FnMut(), cpu: impl Fn() -> [Duration; 2]) -> Figures {
    for _ in 0..count / 10 + 1 {
        up();
        down();
    }
    let (before, mut each) = (cpu(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        up();
        each.push(began.elapsed());
        down();
    }
    let after = cpu();
    Figures { each, cpu: [after[0] - before[0], after[1] - before[1]] }
}

const CASES: [(&str, Option<Kind>, &str); 4] = [
    ("PSK x25519", None, "aes128-sha256-x25519"),
    ("PSK modp2048", None, "aes128-sha256-modp2048"),
    ("RSA-2048 x25519", Some(Kind::Rsa), "aes128-sha256-x25519"),
    ("ECDSA-256 x25519", Some(Kind::P256), "aes128-sha256-x25519"),
];

#[test]
#[ignore = "a benchmark"]
fn beside_strongswan() {
    let count: usize = std::env::var("CAPONIER_NEGOTIATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for (name, kind, ike) in CASES {
        let case = Case { ike, ..PLAIN };
        let mut ours = caponier(case, kind, count);
        ours.say("caponier", name);
        // charon's certificates would need its own directories: compared where both do the same with little to set up.
        if kind.is_none() && need::available("setup_rate", &[Need::StrongSwan]) {
            let mut theirs = strongswan(case, count);
            theirs.say("strongSwan", name);
            eprintln!("{name}: {:.1} times strongSwan's rate", ours.rate() / theirs.rate());
        }
    }
}

fn caponier(case: Case, kind: Option<Kind>, count: usize) -> Figures {
    let lab = Lab::open("setup_rate", 2, &[]).expect("root");
    let (a, b) = (lab.a(), lab.b());
    let root = Authority::root("Lab CA", |_| ());
    let start = |me, peer| {
        let mut tunnel = Tunnel::new(me, peer, case);
        if let Some(kind) = kind {
            let own = root.issue(kind, &format!("{}.lab", me.name), 10, |p| {
                p.subject_alt_names.push(pki::address(me.outer()));
            });
            let at = me.directory.join("pki");
            let (certificate, key) =
                (pki::write(&at, "own.pem", &own.certificate), pki::write(&at, "own.key", &own.key));
            let ca = pki::write(&at, "ca.pem", &root.certificate());
            let method = if kind == Kind::Rsa { "RSASIG" } else { "ECDSA256" };
            tunnel.preshared = String::new();
            tunnel.more_auth = format!(
                "method = \"{method}\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\ncrl_policy = \"relaxed\""
            );
        }
        let daemon = Caponier::start(me, &Configuration::new(tunnel));
        // charon's log is quiet too.
        daemon.admin(&["-auditlvl", "error"]);
        daemon
    };
    let (at_b, at_a) = (start(b, a), start(a, b));
    let ask = |request: &Request| client::ask_once(at_a.run_dir(), request).expect("an answer");
    let up = || drop(ask(&Request::Initiate { tunnel: "to_b".into() }));
    let down = || {
        ask(&Request::DeleteSa { peer: b.outer() });
        // Until the peer knows it too.
        while at_b_has_sas(&at_b) {
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    let figures = measure(count, up, down, || [at_a.cpu(), at_b.cpu()]);
    drop((at_a, at_b));
    figures
}

fn at_b_has_sas(at_b: &Caponier) -> bool {
    let answers = client::ask_once(at_b.run_dir(), &Request::Status).expect("an answer");
    answers.iter().any(|answer| match answer {
        tools::control::Answer::Record(tools::report::Record::Status(status)) => status.ipsec_sas > 0,
        _ => false,
    })
}

fn strongswan(case: Case, count: usize) -> Figures {
    let lab = Lab::open("setup_rate_swan", 2, &[Need::StrongSwan]).expect("root and strongSwan");
    let (a, b) = (lab.a(), lab.b());
    let at_b = StrongSwan::start(b, &Connection::new(b, a, case), &Esp::UserSpace);
    let at_a = StrongSwan::start(a, &Connection::new(a, b, case), &Esp::UserSpace);
    let mut vici = Vici::connect(&at_a.vici()).expect("charon");
    let mut again = Vici::connect(&at_a.vici()).expect("charon");
    let quiet = [("timeout", "10000"), ("loglevel", "-1")];
    let up = || {
        let child = [&[("child", "net"), ("ike", "lab")][..], &quiet].concat();
        assert!(vici.command("initiate", &child).expect("charon"), "strongSwan does not negotiate");
    };
    let down = || {
        let sa = [&[("ike", "lab")][..], &quiet].concat();
        assert!(again.command("terminate", &sa).expect("charon"), "strongSwan does not delete");
    };
    let figures = measure(count, up, down, || [at_a.cpu(), at_b.cpu()]);
    at_a.stop();
    at_b.stop();
    figures
}
