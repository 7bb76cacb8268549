//! What the fuzzers run, as plain functions: `fuzz/` calls them with what libFuzzer makes up, and
//! `tests/tests/corpora.rs` with what it found worth keeping.
//!
//! Each takes any octets and must come back. What it must not do besides, it asserts: lose count of
//! packets, install an SA with a peer that has not proved who it is, show a key. It tells how far
//! it came ([`Reached`]), so that a corpus that no longer gets anywhere is noticed.

mod certificate;
mod config;
mod control;
mod esp;
mod ike;
pub mod seeds;
mod wire;

use std::collections::BTreeSet;

/// Places that a run came to, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached(BTreeSet<&'static str>);

impl Reached {
    fn note(&mut self, place: &'static str) {
        self.0.insert(place);
    }

    /// Adds those of another run.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether some run came there.
    #[must_use]
    pub fn has(&self, place: &str) -> bool {
        self.0.contains(place)
    }
}

/// Something that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the fuzzer and of its corpus.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]) -> Reached,
    /// Where its corpus must come to, all in all.
    pub places: &'static [&'static str],
}

/// Everything that is fuzzed.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", run: wire::run, places: wire::PLACES },
    Target { name: "ike_peer", run: ike::peer::run, places: ike::peer::PLACES },
    Target { name: "ike_pair", run: ike::pair::run, places: ike::pair::PLACES },
    Target { name: "certificate", run: certificate::run, places: certificate::PLACES },
    Target { name: "esp", run: esp::run, places: esp::PLACES },
    Target { name: "config", run: config::run, places: config::PLACES },
    Target { name: "control", run: control::run, places: control::PLACES },
];

/// Runs one input of the target called `name`.
///
/// # Panics
/// If there is no such target, or the input is a finding.
pub fn run(name: &str, input: &[u8]) -> Reached {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    (target.run)(input)
}
