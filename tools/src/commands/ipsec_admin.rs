//! `ipsec_admin`: operates the daemon.

use super::{Failure, RunDir};
use crate::control::{Answer, Request, client};
use crate::report::document::{Document, Format};
use crate::report::{Record, Section};
use clap::Parser;
use policy::audit::Level;
use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

/// How long `-stop` waits for the daemon to be gone.
const FAREWELL: Duration = Duration::from_secs(15);

/// Options of HP-UX that this version has not, each with what to do instead.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "traceon",
        "capture on the TUN interface instead (startup.interface), e.g. `tcpdump -ni caponier0`: it shows packets before they are encrypted and after they are decrypted",
    ),
    ("traceoff", "capture on the TUN interface instead (startup.interface), e.g. `tcpdump -ni caponier0`"),
    ("newpasswd", "the control socket is open to root and to ipsecd's user only; there is no password"),
    ("np", "the control socket is open to root and to ipsecd's user only; there is no password"),
    ("auditdir", "set startup.auditdir in the configuration"),
    ("au", "set startup.auditdir in the configuration"),
    ("maxsize", "set startup.maxsize in the configuration"),
    ("m", "set startup.maxsize in the configuration"),
    ("spi_min", "set startup.spi_min in the configuration"),
    ("spi_max", "set startup.spi_max in the configuration"),
    ("autoboot", "enable the systemd unit: `systemctl enable caponier`"),
    ("doctor", "look at `ipsec_report -tunnel` for why a tunnel is down, and at the audit file"),
];

/// Runs the command.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    match not_here(&args) {
        Some(text) => {
            let _ = writeln!(std::io::stderr(), "ipsec_admin: {text}");
            ExitCode::FAILURE
        }
        None => super::run(args, administer),
    }
}

/// What to say about the first option that is HP-UX's, or planned, but not here.
fn not_here(args: &[OsString]) -> Option<String> {
    let options = args.iter().filter_map(|a| a.to_str()).filter(|a| a.starts_with('-'));
    let verb = args.first().and_then(|a| a.to_str()).filter(|a| *a == "doctor");
    verb.into_iter().chain(options).find_map(|arg| {
        let word = arg.trim_start_matches('-').split('=').next()?;
        let (_, instead) = NOT_HERE.iter().find(|(name, _)| *name == word)?;
        Some(format!("{arg} is not in this version; {instead}"))
    })
}

#[derive(Clone, Debug, Parser)]
#[command(
    name = "ipsec_admin",
    version,
    about = "Operates a running ipsecd",
    after_help = "One action at a time; -spd_soft and -spd_hard go together. HP-UX spelling (-status) and GNU spelling (--status) are the same."
)]
pub(super) struct Args {
    /// Start ipsecd in the foreground, in place of this command; needs --config
    #[arg(long)]
    start: bool,
    /// With -start: the configuration file
    #[arg(long, value_name = "FILE", requires = "start")]
    config: Option<PathBuf>,
    /// Delete all SAs, tell the peers, and end ipsecd
    #[arg(long)]
    stop: bool,
    /// Show whether ipsecd runs, and how it is
    #[arg(long)]
    status: bool,
    /// Read the configuration again; if it has errors, the old one stays in force
    #[arg(long)]
    reload: bool,
    /// Delete all SAs with a peer, and tell it
    #[arg(long, value_name = "IP")]
    deletesa: Option<IpAddr>,
    /// Negotiate a tunnel now
    #[arg(long, value_name = "TUNNEL")]
    initiate: Option<String>,
    /// Negotiate a new ISAKMP SA with a peer
    #[arg(long = "rekey_ike", alias = "rekey-ike", value_name = "IP")]
    rekey_ike: Option<IpAddr>,
    /// Negotiate new IPsec SAs for a tunnel
    #[arg(long = "rekey_sa", alias = "rekey-sa", value_name = "TUNNEL")]
    rekey_sa: Option<String>,
    /// Soft limit of the SPD cache, in thousands of entries, until the configuration is read again
    #[arg(long = "spd_soft", alias = "spd-soft", value_name = "N")]
    spd_soft: Option<u32>,
    /// Hard limit of the SPD cache, in thousands of entries, until the configuration is read again
    #[arg(long = "spd_hard", alias = "spd-hard", value_name = "N")]
    spd_hard: Option<u32>,
    /// Record events up to this level, until the configuration is read again: alert, error, warning, informative, debug
    #[arg(long, alias = "al", value_name = "LEVEL")]
    auditlvl: Option<Level>,
    /// With -status: one JSON document
    #[arg(long, requires = "status")]
    json: bool,
    #[command(flatten)]
    run_dir: RunDir,
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Start,
    Ask(Request),
}

impl Args {
    /// What to do: exactly one thing.
    fn action(&self) -> Result<Action, Failure> {
        let limits = (self.spd_soft.is_some() || self.spd_hard.is_some())
            .then_some(Request::SetLimits { soft: self.spd_soft, hard: self.spd_hard });
        let mut actions = [
            self.start.then_some(Action::Start),
            self.stop.then_some(Action::Ask(Request::Stop)),
            self.status.then_some(Action::Ask(Request::Status)),
            self.reload.then_some(Action::Ask(Request::Reload)),
            self.deletesa.map(|peer| Action::Ask(Request::DeleteSa { peer })),
            self.initiate.clone().map(|tunnel| Action::Ask(Request::Initiate { tunnel })),
            self.rekey_ike.map(|peer| Action::Ask(Request::RekeyIke { peer })),
            self.rekey_sa.clone().map(|tunnel| Action::Ask(Request::RekeySa { tunnel })),
            limits.map(Action::Ask),
            self.auditlvl.map(|level| Action::Ask(Request::AuditLevel { level })),
        ]
        .into_iter()
        .flatten();
        match (actions.next(), actions.next()) {
            (Some(action), None) => Ok(action),
            (None, _) => Err(Failure::new("nothing to do: name an action such as -status; --help lists them")),
            (Some(_), Some(_)) => Err(Failure::new("one action at a time; only -spd_soft and -spd_hard go together")),
        }
    }
}

pub(super) fn administer(args: Args, out: &mut dyn Write) -> Result<(), Failure> {
    let run_dir = args.run_dir.path();
    let request = match args.action()? {
        Action::Start => return Err(start(args.config.as_deref(), &run_dir)),
        Action::Ask(request) => request,
    };
    let answers = client::ask_once(&run_dir, &request)?;
    for answer in answers {
        match answer {
            Answer::Done(text) => writeln!(out, "{text}")?,
            Answer::Record(record @ Record::Status(_)) => {
                let format = if args.json { Format::Json } else { Format::Text };
                let mut document = Document::begin(out, format, &[Section::Status])?;
                document.record(&record)?;
                document.finish()?;
            }
            other => return Err(Failure::Failed(format!("ipsecd answered what was not asked: {other:?}"))),
        }
    }
    if request == Request::Stop { wait_until_gone(&run_dir) } else { Ok(()) }
}

/// Becomes ipsecd; returns only if that fails.
fn start(config: Option<&Path>, run_dir: &Path) -> Failure {
    let Some(config) = config else {
        return Failure::new(
            "-start needs the configuration: `ipsec_admin -start --config FILE`, which is `ipsecd --config FILE` in the foreground.\n\
             As a service: `systemctl start caponier`.",
        );
    };
    // The daemon that was installed with this command, else whichever the search path has.
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("ipsecd")).filter(|p| p.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from("ipsecd"));
    let reason = Command::new(&program).arg("--config").arg(config).arg("--run-dir").arg(run_dir).exec();
    Failure::Failed(format!("cannot execute {}: {reason}", program.display()))
}

fn wait_until_gone(run_dir: &Path) -> Result<(), Failure> {
    let socket = crate::control::socket_path(run_dir);
    let deadline = Instant::now() + FAREWELL;
    while std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        if Instant::now() > deadline {
            let seconds = FAREWELL.as_secs();
            return Err(Failure::Failed(format!("ipsecd agreed to stop, but still runs after {seconds} seconds")));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
