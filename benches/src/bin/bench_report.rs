//! `tools/bench-report`: what `cargo bench -p benches` measured, as `benches/RESULTS.md` and plots.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use benches::report::results::{ReadError, Results};
use benches::report::{markdown, plot, results, tunnel};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs, io};

const USAGE: &str = "usage: tools/bench-report [GROUP...]\n\
    Writes benches/RESULTS.md and benches/plots/*.svg from target/criterion: of all groups, or of those that begin so;\n    \
    and from target/tunnel.json and target/tunnel-segmented.json, if benches/tunnel has written them.";

/// What `benches/tunnel` may have written, by the name of its section.
const TUNNELS: [&str; 2] = ["tunnel", "tunnel-segmented"];

fn main() -> ExitCode {
    let groups: Vec<String> = env::args().skip(1).collect();
    if groups.iter().any(|g| g.starts_with('-')) {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match report(&groups) {
        Ok(written) => {
            println!("{written}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("bench-report: {e}");
            ExitCode::FAILURE
        }
    }
}

fn report(groups: &[String]) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace is above the crate")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let mut results = results::read(&target.join("criterion")).map_err(|e| explain(&e))?;
    results.retain(|group, _| groups.is_empty() || groups.iter().any(|g| group.starts_with(g)));
    if results.is_empty() {
        return Err("there are no such results: run `cargo bench -p benches` first".into());
    }
    let plots_directory = root.join("benches/plots");
    let plots = write_plots(&plots_directory, &results).map_err(|e| format!("cannot write plots: {e}"))?;
    let file = root.join("benches/RESULTS.md");
    let mut document = markdown::document(&results, &machine(), &plots);
    for name in TUNNELS {
        document += &tunnel_section(&target.join(format!("{name}.json")), &plots_directory, name)?;
    }
    fs::write(&file, document).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    Ok(format!("{}: {} groups, {} plots", file.display(), results.len(), plots.len()))
}

/// The section of a file that `benches/tunnel` has written; nothing if it has not.
fn tunnel_section(file: &Path, plots: &Path, name: &str) -> Result<String, String> {
    let text = match fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        text => text.map_err(|e| format!("cannot read {}: {e}", file.display()))?,
    };
    let rows =
        tunnel::read(&text).map_err(|e| format!("{}: {e}; write it anew with benches/tunnel", file.display()))?;
    let plot = plots.join(format!("{name}.svg"));
    fs::write(&plot, tunnel::svg(&rows)).map_err(|e| format!("cannot write {}: {e}", plot.display()))?;
    Ok(tunnel::section(&rows, name))
}

fn explain(e: &ReadError) -> String {
    match e {
        ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            format!("{e}; run `cargo bench -p benches` first")
        }
        _ => e.to_string(),
    }
}

fn write_plots(directory: &Path, results: &Results) -> io::Result<Vec<String>> {
    fs::create_dir_all(directory)?;
    let mut written = Vec::new();
    for (group, measured) in results {
        if let Some(svg) = plot::svg(group, measured) {
            fs::write(directory.join(format!("{group}.svg")), svg)?;
            written.push(group.clone());
        }
    }
    Ok(written)
}

/// Processor, system and compiler.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).map(|m| m.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok();
        output.map_or_else(|| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_string())
    };
    format!(
        "Measured on {}, {cores} cores, Linux {}, {}.",
        model.unwrap_or("an unknown processor"),
        said("uname", "-r").split('-').next().unwrap_or_default(),
        said("rustc", "--version")
    )
}
