//! The commands, as functions of their arguments.
//!
//! Each takes its arguments, its own name not among them, writes to standard output and standard
//! error, and returns its exit status: 0 if it did what was asked, 1 if not, 2 if it did not
//! understand its arguments. A reader that closes the pipe early ends a command quietly.

mod audit_report;
pub mod hpux;
pub mod ipsec_admin;
pub mod ipsec_config;
pub mod ipsec_policy;
pub mod ipsec_report;

use crate::control::client;
use clap::Parser;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments are not understood; or they ask for help, which is no failure.
    Usage(clap::Error),
    /// It was tried and went wrong, as the text says.
    Failed(String),
    /// It was done, and the answer is no; the output says why.
    Negative,
    /// Nobody reads the output any more.
    ClosedPipe,
}

impl Failure {
    pub(crate) fn new(text: impl core::fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }
}

impl From<clap::Error> for Failure {
    fn from(e: clap::Error) -> Self {
        Self::Usage(e)
    }
}

impl From<crate::control::Refusal> for Failure {
    fn from(r: crate::control::Refusal) -> Self {
        Self::new(r)
    }
}

impl From<client::Error> for Failure {
    fn from(e: client::Error) -> Self {
        Self::new(e)
    }
}

/// Of writing the output.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("cannot write the output: {e}")),
        }
    }
}

/// What a command does, its output going to `out`.
pub(crate) type Body<A> = fn(A, &mut dyn Write) -> Result<(), Failure>;

/// Runs a command on the process's standard output and standard error.
pub(crate) fn run<A: Parser>(args: Vec<OsString>, body: Body<A>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    ExitCode::from(execute(args, body, &mut out, &mut io::stderr()))
}

/// Runs a command; returns its exit status.
pub(crate) fn execute<A: Parser>(args: Vec<OsString>, body: Body<A>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let command = A::command();
    let name = command.get_name().to_string();
    let result = A::try_parse_from(hpux::gnu_spelling(&command, args)).map_err(Failure::from);
    let result = result.and_then(|args| body(args, out));
    // Even of a command that fails: what it wrote before is still true.
    let result = match out.flush() {
        Ok(()) => result,
        Err(e) => result.and(Err(e.into())),
    };
    // Nothing can be done about a standard error that is gone.
    match result {
        Ok(()) | Err(Failure::ClosedPipe) => 0,
        Err(Failure::Negative) => 1,
        Err(Failure::Failed(text)) => {
            let _ = writeln!(err, "{name}: {text}");
            1
        }
        Err(Failure::Usage(e)) if e.use_stderr() => {
            let _ = write!(err, "{e}");
            2
        }
        Err(Failure::Usage(e)) => {
            let _ = write!(out, "{e}");
            let _ = out.flush();
            0
        }
    }
}

/// `--run-dir`, which every command that talks to the daemon has.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunDir {
    /// Run directory of the daemon to talk to [default: $CAPONIER_RUN_DIR, else /run/caponier]
    #[arg(long, value_name = "DIR", global = true)]
    run_dir: Option<std::path::PathBuf>,
}

impl RunDir {
    pub(crate) fn path(&self) -> std::path::PathBuf {
        crate::control::run_dir(self.run_dir.clone())
    }
}
