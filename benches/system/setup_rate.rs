//! Whole negotiations, one after the other, between two daemons: main mode and quick mode, then everything is
//! deleted. strongSwan's charon, with its ESP in user space and without its log, takes turns with us: only the ratio within
//! a round says something.
//!
//! ```text
//! cargo bench -p tests --bench setup_rate [-- --rounds N --each N --only NAME --json FILE]
//! ```
//! As root: it makes network namespaces. A time is that from the command to the initiator to its answer that the tunnel
//! is up, with which packets may leave; by then both sides receive. To delete, and to wait until the other side
//! has deleted too, is not counted.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a benchmark")]

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::{Case, PLAIN};
use tests::lab::Lab;
use tests::need::{self, Need};
use tests::pki::{self, Authority, Kind};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::vici::Vici;
use tools::control::{Request, client};

/// What is negotiated. charon's certificates would need directories of its own: compared is what both do with little to
/// set up.
const CASES: [(&str, Option<Kind>, &str); 4] = [
    ("PSK x25519", None, "aes128-sha256-x25519"),
    ("PSK modp2048", None, "aes128-sha256-modp2048"),
    ("RSA-2048 x25519", Some(Kind::Rsa), "aes128-sha256-x25519"),
    ("ECDSA-256 x25519", Some(Kind::P256), "aes128-sha256-x25519"),
];

/// What the command line asks for.
struct Options {
    rounds: usize,
    each: usize,
    only: Option<String>,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { rounds: 9, each: 100, only: None, json: None };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument}: a value is missing"));
            let count = |text: String| match text.parse() {
                Ok(count) if count > 0 => Ok(count),
                _ => Err(format!("`{text}` is not a number above 0")),
            };
            match &*argument {
                // Cargo's.
                "--bench" => {}
                "--rounds" => options.rounds = count(value()?)?,
                "--each" => options.each = count(value()?)?,
                "--only" => options.only = Some(value()?),
                "--json" => options.json = Some(value()?.into()),
                other => return Err(format!("{other}: expected --rounds N, --each N, --only NAME or --json FILE")),
            }
        }
        Ok(options)
    }
}

/// Two daemons that negotiate with each other.
trait Ends {
    /// Brings the tunnel up, and returns when it is.
    fn up(&mut self);
    /// Takes everything down on both sides.
    fn down(&mut self);
    /// Processor time of the initiator and the responder so far.
    fn cpu(&self) -> [Duration; 2];
}

/// What was measured of one implementation, a number for each round.
#[derive(Default)]
struct Figures {
    /// Negotiations a second.
    rates: Vec<f64>,
    /// Milliseconds of processor time a negotiation, initiator and responder.
    cpu: Vec<[f64; 2]>,
}

impl Figures {
    /// Measures `each` negotiations.
    fn round(&mut self, ends: &mut dyn Ends, each: usize) {
        let (before, mut times) = (ends.cpu(), Vec::new());
        for _ in 0..each {
            let began = Instant::now();
            ends.up();
            times.push(began.elapsed().as_secs_f64());
            ends.down();
        }
        let after = ends.cpu();
        self.rates.push(each as f64 / times.iter().sum::<f64>());
        self.cpu.push([0, 1].map(|n| (after[n] - before[n]).as_secs_f64() * 1e3 / each as f64));
    }

    fn json(&self) -> Value {
        json!({ "negotiations_per_second": self.rates, "cpu_ms_initiator_responder": self.cpu })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: &[f64]) -> f64 {
    let values = sorted(values);
    let (low, high) = (values.get((values.len() - 1) / 2), values.get(values.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
}

/// Median, least and most, as a cell of a table.
fn spread(values: &[f64], digits: usize) -> String {
    let values = sorted(values);
    let (least, most) = (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN));
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(&values))
}

/// The cell of the processor time.
fn cpu(figures: &Figures) -> String {
    let of = |n: usize| median(&figures.cpu.iter().map(|both| both[n]).collect::<Vec<_>>());
    format!("{:.2} + {:.2}", of(0), of(1))
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("setup_rate: {what}");
            return ExitCode::from(2);
        }
    };
    if !need::available("setup_rate", &[Need::Root]) {
        return ExitCode::FAILURE;
    }
    let with_charon = need::available("setup_rate beside strongSwan", &[Need::StrongSwan]);
    println!(
        "{} rounds of {} negotiations each. Median of the rounds, with the least and the most; processor time of initiator \
         and responder.\n",
        options.rounds, options.each
    );
    println!("| | Caponier, 1/s | strongSwan, 1/s | ratio | Caponier, ms CPU | strongSwan, ms CPU |");
    println!("|---|--:|--:|--:|--:|--:|");
    let mut all = Vec::new();
    for (name, kind, ike) in CASES {
        if options.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let case = Case { ike, ..PLAIN };
        let mut ours = Ours::start(case, kind);
        let mut theirs = (kind.is_none() && with_charon).then(|| Charons::start(case));
        // Not counted: what is done for the first time.
        for _ in 0..options.each / 10 + 1 {
            let charons = theirs.iter_mut().map(|charons| charons as &mut dyn Ends);
            for ends in std::iter::once(&mut ours as &mut dyn Ends).chain(charons) {
                ends.up();
                ends.down();
            }
        }
        let (mut of_ours, mut of_theirs) = (Figures::default(), Figures::default());
        for _ in 0..options.rounds {
            of_ours.round(&mut ours, options.each);
            if let Some(theirs) = &mut theirs {
                of_theirs.round(theirs, options.each);
            }
        }
        let ratios: Vec<_> = of_ours.rates.iter().zip(&of_theirs.rates).map(|(ours, theirs)| ours / theirs).collect();
        let or_dash = |text: String| if ratios.is_empty() { "-".to_owned() } else { text };
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            spread(&of_ours.rates, 0),
            or_dash(spread(&of_theirs.rates, 0)),
            or_dash(spread(&ratios, 2)),
            cpu(&of_ours),
            or_dash(cpu(&of_theirs)),
        );
        all.push(json!({
            "case": name, "proposal": ike, "negotiations_in_a_round": options.each,
            "caponier": of_ours.json(), "strongswan": of_theirs.json(), "ratios": ratios,
        }));
    }
    if all.is_empty() {
        let names: Vec<_> = CASES.iter().map(|(name, ..)| *name).collect();
        eprintln!("setup_rate: --only knows {}", names.join(", "));
        return ExitCode::from(2);
    }
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, Value::from(all).to_string())
    {
        eprintln!("setup_rate: cannot write {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Two `ipsecd`.
struct Ours {
    at_a: Caponier,
    at_b: Caponier,
    b: std::net::IpAddr,
    _lab: Lab,
}

impl Ours {
    fn start(case: Case, kind: Option<Kind>) -> Self {
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
        let (at_b, at_a, b) = (start(b, a), start(a, b), b.outer());
        Self { at_a, at_b, b, _lab: lab }
    }
}

/// A request to a daemon, which must not refuse it.
fn ask(daemon: &Caponier, request: &Request) -> Vec<tools::control::Answer> {
    client::ask_once(daemon.run_dir(), request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
}

impl Ends for Ours {
    fn up(&mut self) {
        ask(&self.at_a, &Request::Initiate { tunnel: "to_b".into() });
    }

    fn down(&mut self) {
        ask(&self.at_a, &Request::DeleteSa { peer: self.b });
        // Until the peer knows it too.
        while sas(&self.at_b) > 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn cpu(&self) -> [Duration; 2] {
        [self.at_a.cpu(), self.at_b.cpu()]
    }
}

/// How many IPsec SAs a daemon holds.
fn sas(daemon: &Caponier) -> u64 {
    let of = |answer| match answer {
        tools::control::Answer::Record(tools::report::Record::Status(status)) => u64::from(status.ipsec_sas),
        _ => 0,
    };
    ask(daemon, &Request::Status).into_iter().map(of).sum()
}

/// Two charons.
struct Charons {
    at_a: StrongSwan,
    at_b: StrongSwan,
    /// Connections to the initiator.
    vici: [Vici; 2],
    _lab: Lab,
}

/// charon answers when it is done, and says nothing before.
const QUIET: [(&str, &str); 2] = [("timeout", "10000"), ("loglevel", "-1")];

impl Charons {
    fn start(case: Case) -> Self {
        let lab = Lab::open("setup_rate_swan", 2, &[Need::StrongSwan]).expect("root and strongSwan");
        let (a, b) = (lab.a(), lab.b());
        let at_b = StrongSwan::start_silent(b, &Connection::new(b, a, case), &Esp::UserSpace);
        let at_a = StrongSwan::start_silent(a, &Connection::new(a, b, case), &Esp::UserSpace);
        let vici = [0, 1].map(|_| Vici::connect(&at_a.vici()).expect("charon listens"));
        Self { at_a, at_b, vici, _lab: lab }
    }
}

impl Ends for Charons {
    fn up(&mut self) {
        let child = [&[("child", "net"), ("ike", "lab")][..], &QUIET].concat();
        assert!(self.vici[0].command("initiate", &child).expect("charon answers"), "strongSwan does not negotiate");
    }

    fn down(&mut self) {
        let sa = [&[("ike", "lab")][..], &QUIET].concat();
        assert!(self.vici[1].command("terminate", &sa).expect("charon answers"), "strongSwan does not delete");
    }

    fn cpu(&self) -> [Duration; 2] {
        [self.at_a.cpu(), self.at_b.cpu()]
    }
}
