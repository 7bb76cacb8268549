//! One program, many names: each command is an applet of the same executable.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// A command: takes its arguments, its own name not among them.
pub type Run = fn(Vec<OsString>) -> ExitCode;

/// Every applet by name.
pub const APPLETS: [(&str, Run); 6] = [
    ("ipsec_admin", crate::commands::ipsec_admin::run),
    ("ipsec_config", crate::commands::ipsec_config::run),
    (DEMO, crate::demo::run),
    ("ipsec_policy", crate::commands::ipsec_policy::run),
    ("ipsec_report", crate::commands::ipsec_report::run),
    ("ipsecd", crate::ipsecd::run),
];

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

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(program: &str, args: &[&str]) -> (&'static str, Vec<OsString>) {
        let (run, rest) = choose(OsStr::new(program), args.iter().map(OsString::from).collect());
        let name = APPLETS.iter().find(|(_, r)| core::ptr::fn_addr_eq(*r, run)).expect("in the table").0;
        (name, rest)
    }

    #[test]
    fn by_the_name_it_was_called_as() {
        assert_eq!(chosen("/usr/bin/ipsec_report", &["-sad"]), ("ipsec_report", vec!["-sad".into()]));
        assert_eq!(chosen("ipsecd", &["ipsec_report"]), ("ipsecd", vec!["ipsec_report".into()]));
    }

    #[test]
    fn by_first_argument_of_the_demo_or_of_any_other_name() {
        assert_eq!(chosen("ipsec_demo", &["ipsecd", "--config", "x"]).0, "ipsecd");
        assert_eq!(chosen("/proc/self/exe", &["ipsec_admin", "-status"]), ("ipsec_admin", vec!["-status".into()]));
    }

    #[test]
    fn otherwise_the_demo() {
        assert_eq!(chosen("ipsec_demo", &["--keep"]), ("ipsec_demo", vec!["--keep".into()]));
        assert_eq!(chosen("", &[]), ("ipsec_demo", vec![]));
    }
}
