//! The demo: two hosts on one machine.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs the demo.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let _ = args;
    let _ = writeln!(std::io::stderr(), "ipsec_demo: not in this version");
    ExitCode::FAILURE
}
