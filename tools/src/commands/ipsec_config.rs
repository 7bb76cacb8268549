//! `ipsec_config`: checks and shows configuration files.

use super::Failure;
use crate::config_file::{self, Unusable, count, listed};
use crate::report::auth::crl_policy;
use crate::report::document::VERSION;
use crate::report::from_model;
use clap::{Parser, Subcommand};
use crypto::{Entropy, Secret};
use policy::config::{
    AuthRecord, Checked, Config, DefaultAction, DfPolicy, Diagnostic, HostAction, HostPolicy, TunnelPolicy,
};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Verbs of HP-UX, or planned, that this version has not.
const NOT_HERE: [&str; 6] = ["add", "batch", "commit", "delete", "export", "plan"];

/// Runs the command.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    super::run(args, configure)
}

#[derive(Clone, Debug, Parser)]
#[command(name = "ipsec_config", version, about = "Checks and shows a configuration file")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Report everything that is wrong or odd in a file; status 0 if ipsecd would take it, else 1
    Check(Options),
    /// Check a file and show what it means, one line per object, in the order of search
    Show(Options),
    /// Read a password from standard input, and print the line of a user for the file `users` (XAUTH)
    User {
        /// The user's name
        name: String,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[derive(Clone, Debug, clap::Args)]
struct Options {
    /// The configuration file; nothing in it is changed, and no daemon is needed
    file: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn configure(args: Args, out: &mut dyn Write) -> Result<(), Failure> {
    match args.verb {
        Verb::Check(options) => check(&options, out),
        Verb::Show(options) => show(&options, out),
        Verb::User { name } => user(&name, out),
        Verb::Other(words) => {
            let verb = words.first().map(|w| w.display().to_string()).unwrap_or_default();
            Err(Failure::Failed(if NOT_HERE.contains(&verb.as_str()) {
                format!(
                    "`{verb}` is not in this version: edit the file, then `ipsec_config check FILE` and `ipsec_admin -reload`"
                )
            } else {
                format!("`{verb}` is no verb of ipsec_config: check, show, user")
            }))
        }
    }
}

fn check(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let (diagnostics, loaded) = match config_file::load(&options.file) {
        Ok(loaded) => (loaded.warnings.clone(), Some(loaded)),
        Err(Unusable::Invalid(diagnostics)) => (diagnostics, None),
        Err(unreadable) => return Err(Failure::new(unreadable)),
    };
    if options.json {
        #[derive(serde::Serialize)]
        struct Document<'a> {
            version: u32,
            file: String,
            valid: bool,
            diagnostics: &'a [Diagnostic],
        }
        let file = options.file.display().to_string();
        json(out, &Document { version: VERSION, file, valid: loaded.is_some(), diagnostics: &diagnostics })?;
    } else if !diagnostics.is_empty() {
        writeln!(out, "{}", listed(&diagnostics))?;
    }
    match loaded {
        Some(loaded) if !options.json => Ok(writeln!(out, "{}", contents(&options.file, &loaded.config))?),
        Some(_) => Ok(()),
        None => Err(Failure::Negative),
    }
}

/// `FILE: 2 host policies, ...`: so that an empty file is not mistaken for a good one.
fn contents(file: &Path, config: &Config) -> String {
    let policies = |n: usize, kind| if n == 1 { format!("1 {kind} policy") } else { format!("{n} {kind} policies") };
    format!(
        "{}: valid: {}, {}, {}, {}, {}",
        file.display(),
        policies(config.hosts.len(), "host"),
        policies(config.tunnels.len(), "tunnel"),
        policies(config.ikes.len(), "IKE"),
        count(config.auths.len(), "authentication record"),
        if config.bypass.len() == 1 {
            "1 bypass entry".into()
        } else {
            format!("{} bypass entries", config.bypass.len())
        },
    )
}

/// The line of a user.
fn user(name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    /// More is no password.
    const MOST: u64 = 4096;
    let mut password = Vec::with_capacity(MOST as usize + 1);
    let read = io::stdin().take(MOST).read_to_end(&mut password);
    let password = Secret::new(password);
    read.map_err(|e| Failure::Failed(format!("cannot read the password: {e}")))?;
    let line = password.expose().split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = Secret::copy_of(line.strip_suffix(b"\r").unwrap_or(line));
    let mut salt = [0; keys::users::SALT_LEN];
    crate::ipsecd::SystemEntropy.fill(&mut salt);
    let entry = keys::users::line(name, &line, salt).map_err(|what| Failure::Failed(what.to_owned()))?;
    Ok(writeln!(out, "{entry}")?)
}

fn show(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let Checked { config, .. } = config_file::read(&options.file).map_err(Failure::new)?;
    if options.json {
        show_json(&config, out)?
    } else {
        show_lines(&config, out)?
    }
    Ok(())
}

fn json<T: serde::Serialize>(out: &mut dyn Write, document: &T) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}

fn show_json(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let auths: Vec<_> = config
        .auths
        .iter()
        .map(|a| {
            serde_json::json!({
                "name": a.name,
                "remote": a.remote.to_string(),
                "methods": a.methods.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "preshared": a.preshared.is_some(),
                "certificate": a.certificates.as_ref().and_then(|c| Some(c.certificate.as_ref()?.display().to_string())),
                "crl_urls": a.certificates.as_ref().map(|c| &c.crl_urls),
                "crl_fetch": a.certificates.as_ref().map(|c| c.crl_fetch),
                "crl_policy": a.certificates.as_ref().map(|c| crl_policy(c.crl_policy)),
                "local_id": local_id(a),
                "remote_id": a.remote_id.as_ref().map(ToString::to_string),
                "line": a.line,
            })
        })
        .collect();
    json(
        out,
        &serde_json::json!({
            "version": VERSION,
            "host": from_model::host_policies(config),
            "tunnel": from_model::tunnels(config),
            "ike": from_model::ike_policies(config),
            "auth": auths,
            "bypass": from_model::bypass(config),
        }),
    )
}

fn show_lines(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    startup(config, out)?;
    for address in &config.bypass {
        writeln!(out, "bypass   {address}")?;
    }
    config.hosts.iter().try_for_each(|h| host(h, out))?;
    let action = match config.default_action {
        DefaultAction::Pass => "PASS",
        DefaultAction::Discard => "DISCARD",
    };
    let share = share(config.default_cache_share);
    writeln!(
        out,
        "host     default: priority 0, searched last, cookie {}: {action}{share}",
        from_model::DEFAULT_COOKIE
    )?;
    config.tunnels.iter().try_for_each(|t| tunnel(t, out))?;
    for report in from_model::ike_policies(config) {
        let proposals: Vec<_> = report.proposals.iter().map(|p| p.keyword.as_str()).collect();
        writeln!(
            out,
            "ike      {}: priority {}, remote {}, {}, {}, life {} s, maxqm {}, NAT traversal {}",
            report.name,
            report.priority,
            report.remote,
            report.authentication_method,
            proposals.join(", "),
            report.lifetime_seconds,
            report.max_quick_modes,
            report.nat_traversal,
        )?;
    }
    config.auths.iter().try_for_each(|a| auth(a, out))
}

fn startup(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let s = &config.startup;
    let df = match s.df {
        DfPolicy::Copy => "copy",
        DfPolicy::Set => "set",
        DfPolicy::Clear => "clear",
    };
    let audit_dir = s.audit_dir.as_ref().map_or_else(|| "standard error".into(), |d| d.display().to_string());
    writeln!(
        out,
        "startup  audit {} to {audit_dir}, files of {} KB; cache limits {} and {} thousand entries, idle {} s; SPIs {} to {}",
        s.audit_level, s.audit_max_kbytes, s.spd_soft, s.spd_hard, s.cache_idle_seconds, s.spi_min, s.spi_max,
    )?;
    let mtu = s.mtu.map_or_else(|| "from the path".into(), |m| m.to_string());
    let workers = s.workers.map_or_else(|| "auto".into(), |n| n.to_string());
    writeln!(
        out,
        "startup  interface {}, MTU {mtu}, offload {}, workers {workers}, DF {df}, replay window {}, ports {} and {}, {} packets held, {} sessions",
        s.interface,
        if s.offload { "auto" } else { "off" },
        s.replay_window,
        s.ike_port,
        s.natt_port,
        s.hold_queue,
        s.exclusive_sessions,
    )?;
    if let Some(gateway) = &config.gateway {
        let (inside, outside) = (gateway.inside.join(", "), gateway.outside.join(", "));
        writeln!(out, "gateway  inside {inside}; outside {outside}; workers {} for each", gateway.workers)?;
    }
    match &s.export_keys {
        Some(dir) => writeln!(out, "startup  KEYS ARE WRITTEN to {}: for debugging only", dir.display()),
        None => Ok(()),
    }
}

fn host(policy: &HostPolicy, out: &mut dyn Write) -> io::Result<()> {
    let selectors: Vec<_> = policy.selectors.iter().map(ToString::to_string).collect();
    let action = match &policy.action {
        HostAction::Pass => "PASS".to_string(),
        HostAction::Discard => "DISCARD".to_string(),
        HostAction::Tunnel(t) => format!("tunnel {}", t.name),
    };
    let (name, priority, cookie) = (&policy.name, policy.priority, policy.cookie);
    let (selectors, share) = (selectors.join("; "), share(policy.cache_share));
    writeln!(out, "host     {name}: priority {priority}, cookie {cookie}, {selectors}: {action}{share}")
}

fn share(percent: Option<u8>) -> String {
    percent.map_or_else(String::new, |percent| format!(", at most {percent} % of the cache"))
}

fn tunnel(policy: &TunnelPolicy, out: &mut dyn Write) -> io::Result<()> {
    let transforms: Vec<_> = policy.transforms.iter().map(|t| format!("{t} ({})", t.keyword())).collect();
    let (name, from, to) = (&policy.name, policy.tsource, policy.tdestination);
    let start = from_model::start_name(policy.start);
    let mode = from_model::mode_name(policy.mode).to_lowercase();
    let (selector, transforms) = (&policy.selector, transforms.join(", "));
    write!(out, "tunnel   {name}: {from} to {to}, {mode} mode, {selector}, ")?;
    match (&policy.manual, policy.transforms.as_slice()) {
        (Some(keys), [transform]) => {
            let (inbound, outbound) = (keys.inbound.spi, keys.outbound.spi);
            let names = format!("{} ({})", transform.suite.hpux(), transform.keyword());
            writeln!(out, "{names}, manual keys, SPI {inbound:#x} in, {outbound:#x} out")
        }
        _ => writeln!(out, "{transforms}, start {start}"),
    }
}

fn auth(record: &AuthRecord, out: &mut dyn Write) -> io::Result<()> {
    let methods = if record.methods.is_empty() { "no key".into() } else { from_model::listed(&record.methods) };
    write!(out, "auth     {}: remote {}, {methods}", record.name, record.remote)?;
    if let Some(files) = &record.certificates {
        if let Some(certificate) = &files.certificate {
            write!(out, ", certificate {}", certificate.display())?;
        }
        if !files.authorities.is_empty() {
            write!(out, ", {} CRL policy", crl_policy(files.crl_policy))?;
        }
        for url in &files.crl_urls {
            write!(out, ", CRL fetched from {url}")?;
        }
        if files.crl_fetch {
            write!(out, ", CRLs fetched from where certificates say")?;
        }
    }
    if let Some(xauth) = &record.xauth {
        write!(out, ", XAUTH {}", crate::report::auth::xauth(xauth))?;
    }
    if let Some(id) = local_id(record) {
        write!(out, ", local ID {id}")?;
    }
    if let Some(id) = &record.remote_id {
        write!(out, ", remote ID {id}")?;
    }
    writeln!(out)
}

/// Who we say we are, where the record says so.
fn local_id(record: &AuthRecord) -> Option<String> {
    let subject = record.local_subject.then(|| "owner of the certificate".to_owned());
    record.local_id.as_ref().map(ToString::to_string).or(subject)
}
