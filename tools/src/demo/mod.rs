//! The demo: two hosts on one machine, a negotiation, protected traffic, the
//! reports, and a wiretap that must not see anything it should not.
//!
//! Each host is a network namespace with an `ipsecd` of its own, a process that
//! this program starts by executing itself. Everything that is shown is checked;
//! the exit status is 0 only if all of it was true.

mod acts;
mod configs;
mod daemon;
mod host;
mod privilege;
mod show;
#[cfg(test)]
mod tests;
mod traffic;
mod wire;

use crate::net::{Namespace, Net, NetError};
use clap::Parser;
use show::Show;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// First argument of a process that becomes a host's `ipsecd`.
const DAEMON: &str = "daemon";
/// First argument of a process that only keeps a namespace open.
const HOLD: &str = "hold";

/// Two hosts on this machine negotiate a tunnel and talk through it.
#[derive(Debug, Parser)]
#[command(name = "ipsec_demo", version, about)]
struct Options {
    /// Leave both hosts up at the end, until Ctrl-C, and say how to enter them
    #[arg(long)]
    keep: bool,
    /// Where to leave configuration files, logs and the capture
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Why the demo ends early.
#[derive(Debug)]
enum Stop {
    /// The user has seen enough.
    Interrupted,
    /// Something does not work, in words.
    Failed(String),
}

type Outcome<T> = Result<T, Stop>;

/// Set by SIGINT, SIGTERM and SIGHUP.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs the demo.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    match args.first().and_then(|a| a.to_str()) {
        Some(DAEMON) => return with_the_demo(|| crate::ipsecd::run(args.into_iter().skip(1).collect())),
        Some(HOLD) => {
            return with_the_demo(|| {
                loop {
                    thread::park();
                }
            });
        }
        _ => {}
    }
    let options = match Options::try_parse_from(std::iter::once("ipsec_demo".into()).chain(args)) {
        Ok(options) => options,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(e.exit_code() as u8);
        }
    };
    // First of all: a second thread would make it impossible.
    let privilege = match privilege::acquire() {
        Ok(privilege) => privilege,
        Err(e) => return complain(&e),
    };
    if let Err(e) = catch_signals() {
        return complain(&format!("cannot catch signals: {e}"));
    }
    let mut show = Show::new();
    let interrupted = match acts::play(&mut show, &options, privilege) {
        Ok(()) => false,
        Err(Stop::Interrupted) => true,
        Err(Stop::Failed(what)) => {
            show.failure(&what);
            false
        }
    };
    if interrupted {
        show.print("\nInterrupted; everything is cleaned up.");
        return ExitCode::from(130);
    }
    if show.verdict() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A process of the demo ends when the demo does, however that ends.
fn with_the_demo(work: impl FnOnce() -> ExitCode) -> ExitCode {
    match rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)) {
        Ok(()) => work(),
        Err(e) => complain(&format!("cannot tie this process to the demo: {e}")),
    }
}

fn complain(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ipsec_demo: {text}");
    ExitCode::FAILURE
}

/// From here on a signal is a wish, which [`stop_if_interrupted`] fulfils.
fn catch_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _in_runtime = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}

fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn stop_if_interrupted() -> Outcome<()> {
    if interrupted() { Err(Stop::Interrupted) } else { Ok(()) }
}

fn failed(what: &str, why: &impl Display) -> Stop {
    Stop::Failed(format!("{what}: {why}"))
}
