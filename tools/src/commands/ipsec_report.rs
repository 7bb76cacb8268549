//! `ipsec_report`: shows the daemon's SAs, policies, cached decisions and interfaces, or an audit file.

use super::{Failure, RunDir};
use crate::control::{Answer, Request, client};
use crate::report::cache::MOST_TOP;
use crate::report::document::{Document, Format};
use crate::report::{CacheFilter, Filters, HostScope, Section};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the command.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    super::run(args, report)
}

#[derive(Clone, Debug, Parser)]
#[command(
    name = "ipsec_report",
    version,
    about = "Shows SAs, policies, cached decisions and interfaces of a running ipsecd",
    after_help = "Without an option: -all. HP-UX spelling (-sad) and GNU spelling (--sad) are the same."
)]
pub(super) struct Args {
    /// Everything
    #[arg(long)]
    all: bool,
    /// ISAKMP (main mode) SAs
    #[arg(long)]
    mad: bool,
    /// IPsec (quick mode) SAs
    #[arg(long)]
    sad: bool,
    /// SAs of one kind or both
    #[arg(long, value_name = "KIND", num_args = 0..=1, default_missing_value = "both")]
    sa: Option<SaKind>,
    /// Host policies
    #[arg(long, value_name = "WHICH", num_args = 0..=1, default_missing_value = "configured")]
    host: Option<HostKind>,
    /// Tunnel policies, up or not, and why not
    #[arg(long)]
    tunnel: bool,
    /// IKE policies
    #[arg(long)]
    ike: bool,
    /// Authentication records: methods, identities, certificates
    #[arg(long)]
    auth: bool,
    /// Leases of pools: whose each address is, and whether he is there
    #[arg(long)]
    pool: bool,
    /// Decisions in the SPD cache
    #[arg(long)]
    cache: bool,
    /// The bypass list
    #[arg(long)]
    bypass: bool,
    /// Interfaces, whether IPsec applies to each, and their counters
    #[arg(long)]
    ip: bool,
    /// With -cache: only entries with this address at either end
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// With -cache: only entries made by the host policy of this name or cookie
    #[arg(long, value_name = "NAME|COOKIE")]
    policy: Option<String>,
    /// With -cache: only the N busiest entries, 10000 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_TOP)))]
    top: Option<u32>,
    /// An audit file; needs no daemon
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// With -audit: only events of this entity, e.g. ikmpd
    #[arg(long, value_name = "NAME", requires = "audit")]
    entity: Option<String>,
    /// Write the report to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run_dir: RunDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum SaKind {
    Ike,
    Ipsec,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum HostKind {
    Active,
    Configured,
}

pub(super) fn report(args: Args, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(path) = &args.file else { return report_to(&args, out) };
    let failed = |e: std::io::Error| Failure::Failed(format!("cannot write {}: {e}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    report_to(&args, &mut file)?;
    file.flush().map_err(failed)
}

fn report_to(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let sections = args.sections();
    if let Some(path) = &args.audit {
        return if sections.is_empty() {
            super::audit_report::show(path, args.entity.as_deref(), args.format(), out)
        } else {
            Err(Failure::new("-audit shows a file and nothing else: leave out either it or the other sections"))
        };
    }
    let sections = if sections.is_empty() { Section::ALL.to_vec() } else { sections };
    let cache = CacheFilter { address: args.address, policy: args.policy.clone(), top: args.top };
    if cache != CacheFilter::default() && !sections.contains(&Section::Cache) {
        return Err(Failure::new("--address, --policy and --top choose among cache entries: add -cache"));
    }
    let host = match args.host {
        Some(HostKind::Active) => HostScope::Active,
        Some(HostKind::Configured) | None => HostScope::Configured,
    };
    let request = Request::Report { sections: sections.clone(), filters: Filters { host, cache } };
    let answers = client::ask(&args.run_dir.path(), &request)?;
    let mut answers = answers.peekable();
    // A daemon that refuses at once leaves no half document.
    if let Some(Err(e)) = answers.next_if(Result::is_err) {
        return Err(e.into());
    }
    let mut document = Document::begin(out, args.format(), &sections)?;
    for answer in answers {
        match answer? {
            Answer::Record(record) => document.record(&record)?,
            other => return Err(Failure::Failed(format!("ipsecd answered what was not asked: {other:?}"))),
        }
    }
    Ok(document.finish()?)
}

impl Args {
    /// The sections that are named, in the order of `-all`.
    fn sections(&self) -> Vec<Section> {
        let named = |section| match section {
            Section::Status => false,
            Section::Ip => self.ip,
            Section::Bypass => self.bypass,
            Section::Host => self.host.is_some(),
            Section::Tunnel => self.tunnel,
            Section::Ike => self.ike,
            Section::Auth => self.auth,
            Section::Pool => self.pool,
            Section::Mad => self.mad || matches!(self.sa, Some(SaKind::Ike | SaKind::Both)),
            Section::Sad => self.sad || matches!(self.sa, Some(SaKind::Ipsec | SaKind::Both)),
            // Before the entries, or else behind the interfaces.
            Section::CacheTable => self.cache || self.ip,
            Section::Cache => self.cache,
        };
        Section::ALL.into_iter().filter(|s| self.all || named(*s)).collect()
    }

    fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}
