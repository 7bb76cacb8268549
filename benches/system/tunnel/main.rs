//! Traffic through a tunnel between two hosts, with programs that do the same beside us in the same run.
//!
//! ```text
//! benches/tunnel [--json FILE] [--rounds N] [--seconds N] [--only NAME,NAME...] [--segmented]
//! ```
//! As root: every tunnel has two network namespaces of its own, joined by a veth, and all of them stand at once. A round
//! goes through all tunnels and tests, so a machine whose speed drifts treats all alike: ratios are taken within a
//! round. A peer that is not installed is left out, and said to be.
//!
//! A veth carries super-packets whole, which flatters whoever sends them; with `--segmented` the kernel cuts them before
//! they go over it, as before a network card without offloads.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a benchmark")]

mod figures;
mod iperf;
mod tunnels;

use figures::Figures;
use iperf::{TESTS, Test};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use tests::need::{self, Need};
use tunnels::{KINDS, Tunnel};

/// What the command line asks for.
struct Options {
    rounds: usize,
    seconds: u32,
    only: Vec<String>,
    segmented: bool,
    json: Option<PathBuf>,
}

const USAGE: &str = "expected --json FILE, --rounds N, --seconds N, --only NAME,NAME... or --segmented";

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { rounds: 5, seconds: 4, only: Vec::new(), segmented: false, json: None };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument}: a value is missing"));
            let count = |text: String| match text.parse::<u16>() {
                Ok(count) if count > 0 => Ok(count),
                _ => Err(format!("`{text}` is not a number from 1 to 65535")),
            };
            match &*argument {
                // Cargo's.
                "--bench" => {}
                "--rounds" => options.rounds = count(value()?)?.into(),
                "--seconds" => options.seconds = count(value()?)?.into(),
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--segmented" => options.segmented = true,
                "--json" => options.json = Some(value()?.into()),
                other => return Err(format!("{other}: {USAGE}")),
            }
        }
        if let Some(unknown) = options.only.iter().find(|name| !KINDS.iter().any(|kind| kind.name == **name)) {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            return Err(format!("--only: there is no `{unknown}`, but {}", names.join(", ")));
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("tunnel: {what}");
            return ExitCode::from(2);
        }
    };
    if !need::available("tunnel", &[Need::Root, Need::Iperf]) {
        return ExitCode::FAILURE;
    }
    if options.segmented && !need::available("tunnel --segmented", &[Need::Ethtool]) {
        return ExitCode::FAILURE;
    }
    let all = measure(&options);
    println!("{}", figures::table(&all, options.segmented));
    if let Some(path) = &options.json
        && let Err(error) = std::fs::write(path, figures::json(&all, options.segmented).to_string())
    {
        eprintln!("tunnel: cannot write {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Figures by tunnel, in the order of [`KINDS`], and test.
fn measure(options: &Options) -> Vec<(&'static str, BTreeMap<Test, Figures>)> {
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut tunnels = Vec::new();
    for kind in KINDS.iter().filter(|kind| wanted(kind.name)) {
        match Tunnel::open(kind, options.segmented) {
            Ok(tunnel) => tunnels.push((kind.name, tunnel, BTreeMap::<Test, Figures>::new())),
            Err(missing) => eprintln!("tunnel: {} is left out: {missing}", kind.name),
        }
    }
    for round in 1..=options.rounds {
        for (name, tunnel, figures) in &mut tunnels {
            for test in TESTS {
                let measured = iperf::run(tunnel, test, options.seconds);
                eprintln!("round {round} of {}: {name} {}: {measured}", options.rounds, test.name());
                figures.entry(test).or_default().rounds.push(measured);
            }
        }
    }
    tunnels.into_iter().map(|(name, _, figures)| (name, figures)).collect()
}
