//! The daemon: the only place that composes threads, sockets, the clock,
//! random numbers and files.
//!
//! One thread runs [`daemon::Daemon`], which owns the IKE engine and answers the
//! commands; the packet path has threads of its own.

mod daemon;
mod export;
mod huge_pages;
mod ike_ports;
mod judge;
mod manual;
mod network;
mod pool;
mod remote_access;
mod reports;
mod requests;
mod startup;
mod system;
mod tun_mtu;
mod users;
mod waiting;

pub(crate) use system::SystemEntropy;

use clap::Parser;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The IPsec daemon: negotiates with peers and carries protected traffic. Runs in the foreground.
#[derive(Debug, Parser)]
#[command(name = "ipsecd", version, max_term_width = 100)]
struct Options {
    /// The configuration file; `ipsec_config check FILE` tells what is wrong with one.
    #[arg(long, value_name = "FILE", required_unless_present = "withdraw")]
    config: Option<PathBuf>,
    /// Directory of the control socket that the commands talk to
    /// [default: $CAPONIER_RUN_DIR, or /run/caponier].
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Take away what a killed daemon left to block protected traffic: the nftables table, the
    /// routes and the routing rule. From then on that traffic may go in the clear.
    #[arg(long, conflicts_with = "config")]
    withdraw: bool,
}

/// Runs the daemon until it is told to stop.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let options = match Options::try_parse_from(std::iter::once("ipsecd".into()).chain(args)) {
        Ok(options) => options,
        Err(e) => {
            // Where to is clap's decision: help is no error.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    start_diagnostics();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&format!("cannot start: {e}")),
    };
    let outcome = match &options.config {
        Some(file) => runtime.block_on(startup::start_and_run(file, options.run_dir.clone())),
        None => runtime.block_on(startup::withdraw(options.run_dir.clone())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e.to_string()),
    }
}

fn failed(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ipsecd: {text}");
    ExitCode::FAILURE
}

/// Diagnostics for developers, apart from the audit: `RUST_LOG=debug ipsecd ...`.
fn start_diagnostics() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // An applet of the same process may have set it up already.
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours only for somebody who sees them: not for the journal, or a file.
    let _ = subscriber.with_ansi(std::io::stderr().is_terminal()).try_init();
}
