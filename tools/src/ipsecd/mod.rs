//! The daemon.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs the daemon.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let _ = args;
    let _ = writeln!(std::io::stderr(), "ipsecd: not in this version");
    ExitCode::FAILURE
}
