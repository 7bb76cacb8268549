//! What the fuzzers found worth keeping, run again: each input comes back, and together they still
//! come to every place that the target names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tests::fuzzed::{Reached, TARGETS, Target};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files of a directory, in order; none if there is none.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths: BTreeSet<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.into_iter().collect()
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
}

fn replay(name: &str) {
    let target = target(name);
    let corpus = files(&fuzz().join("corpus").join(name));
    assert!(corpus.len() >= 8, "the corpus of {name} is gone: {} files", corpus.len());
    let mut reached = Reached::default();
    for path in corpus.iter().chain(&files(&fuzz().join("findings").join(name))) {
        let input = fs::read(path).expect("an input");
        // The name of the input that fails.
        let run = std::panic::catch_unwind(|| (target.run)(&input));
        reached.join(run.unwrap_or_else(|_| panic!("{name} fails on {}", path.display())));
    }
    let missed: Vec<_> = target.places.iter().filter(|place| !reached.has(place)).collect();
    assert!(missed.is_empty(), "no input of {name} comes to {missed:?} any more: run the fuzzer, see fuzz/README.md");
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_and_has_a_fuzzer() {
            let replayed = [$(stringify!($name)),*];
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, replayed);
            let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("fuzz/Cargo.toml");
            for name in names {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no fuzzer");
                let main = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).expect("its main file");
                assert!(main.contains(&format!("\"{name}\"")), "{main}");
            }
        }
    };
}

replayed! { wire ike_peer ike_pair certificate esp config control }
