//! Writes what the fuzzers begin with into `fuzz/seeds`, a directory for each target: see fuzz/README.md.

use std::io::Write;
use std::path::Path;
use std::{fs, io};
use tests::fuzzed::{TARGETS, seeds};

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for target in TARGETS {
        let directory = fuzz.join("seeds").join(target.name);
        fs::create_dir_all(&directory)?;
        let seeds = seeds::of(target.name);
        for (nth, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(format!("seed-{nth:03}")), seed)?;
        }
        writeln!(io::stdout(), "{}: {} seeds", directory.display(), seeds.len())?;
    }
    Ok(())
}
