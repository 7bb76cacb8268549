//! One program, many names: each command is an applet of the same executable.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// A command: takes its arguments, its own name not among them.
pub type Run = fn(Vec<OsString>) -> ExitCode;

/// Every applet by name.
pub const APPLETS: [(&str, Run); 2] = [(DEMO, crate::demo::run), ("ipsecd", crate::ipsecd::run)];

/// The applet that becomes any other if its first argument says so.
const DEMO: &str = "ipsec_demo";

/// Runs the applet that the program was called as, or, when that is `ipsec_demo`, the one that its
/// first argument names, if it names one: so the demo becomes any of them by executing itself.
#[must_use]
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let (run, args) = choose(&program, args.collect());
    run(args)
}

fn choose(program: &OsStr, mut args: Vec<OsString>) -> (Run, Vec<OsString>) {
    let by_name = |name: &OsStr| APPLETS.iter().find(|(n, _)| name == *n).map(|(_, run)| *run);
    if let Some(run) = Path::new(program).file_name().filter(|n| *n != DEMO).and_then(by_name) {
        return (run, args);
    }
    match args.first().and_then(|first| by_name(first)) {
        Some(run) => {
            args.remove(0);
            (run, args)
        }
        None => (crate::demo::run, args),
    }
}
