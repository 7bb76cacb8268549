//! `ipsec_policy`: which policies would decide for a packet, and why. No packet is sent.

use super::{Failure, RunDir};
use crate::config_file;
use crate::control::{Answer, Packet, Request, client};
use crate::report::document::VERSION;
use crate::report::{Direction, explanation};
use clap::{Parser, ValueEnum};
use policy::config::names;
use policy::explain::Explanation;
use policy::spd::Spd;
use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The far end's port when none is given: HP-UX suggests it for the side whose port does not matter.
const DUMMY_PORT: u16 = 65535;

/// Runs the command.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    super::run(args, decide)
}

#[derive(Clone, Debug, Parser)]
#[command(
    name = "ipsec_policy",
    version,
    about = "Shows which policies would decide for a packet; nothing is sent",
    after_help = "HP-UX spelling (-sa) and GNU spelling (--sa) are the same. Example:\n  ipsec_policy -sa 10.78.1.1 -da 10.78.2.1 -p TCP -dp 80 -dir out --explain"
)]
pub(super) struct Args {
    /// Source address of the packet
    #[arg(long, value_name = "IP")]
    sa: IpAddr,
    /// Source port: a number or a well-known name [default: 65535]
    #[arg(long, value_name = "PORT", value_parser = port)]
    sp: Option<u16>,
    /// Destination address of the packet
    #[arg(long, value_name = "IP")]
    da: IpAddr,
    /// Destination port: a number or a well-known name [default: 65535]
    #[arg(long, value_name = "PORT", value_parser = port)]
    dp: Option<u16>,
    /// Protocol: TCP, UDP, ICMP, ICMPV6, ... or a number
    #[arg(short, long = "protocol", value_name = "PROTO", default_value = "TCP", value_parser = protocol)]
    p: u8,
    /// ICMP type and code; without it an echo request
    #[arg(long, value_name = "TYPE[/CODE]")]
    icmp: Option<String>,
    /// Which way the packet goes, seen from this host
    #[arg(long, value_name = "in|out", default_value = "out")]
    dir: Way,
    /// Interface of the packet path that it enters or leaves by [default: the TUN interface]
    #[arg(long = "if", value_name = "NAME")]
    interface: Option<String>,
    /// Ask this configuration, which need not be loaded, instead of the daemon
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show every rule that was tried, and the first field in which it differs
    #[arg(long)]
    explain: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run_dir: RunDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum Way {
    #[value(alias = "inbound")]
    In,
    #[value(alias = "outbound")]
    Out,
}

fn port(text: &str) -> Result<u16, String> {
    match names::ports(text).map_err(|e| e.to_string())? {
        (first, last) if first == last => Ok(first),
        _ => Err("a packet has one port, not a range".into()),
    }
}

fn protocol(text: &str) -> Result<u8, String> {
    match names::protocol(text).map_err(|e| e.to_string())? {
        Some(number) => Ok(number),
        None => Err("a packet has one protocol".into()),
    }
}

pub(super) fn decide(args: Args, out: &mut dyn Write) -> Result<(), Failure> {
    let packet = args.packet()?;
    let explanation = match &args.config {
        Some(file) => from_file(file, &packet)?,
        None => from_daemon(&args.run_dir.path(), packet.clone())?,
    };
    if args.json {
        #[derive(serde::Serialize)]
        struct Document<'a> {
            version: u32,
            packet: Packet,
            explanation: &'a Explanation,
        }
        let document = Document { version: VERSION, packet, explanation: &explanation };
        serde_json::to_writer_pretty(&mut *out, &document).map_err(std::io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    explanation::packet(out, &packet)?;
    for dummy in args.dummies(&packet) {
        writeln!(out, "({dummy})")?;
    }
    if args.explain {
        explanation::trace(out, &explanation)?;
    }
    Ok(explanation::verdict(out, &explanation)?)
}

fn from_file(file: &Path, packet: &Packet) -> Result<Explanation, Failure> {
    let checked = config_file::read(file).map_err(Failure::new)?;
    let tuple = packet.five_tuple(&checked.config.startup).map_err(Failure::from)?;
    Ok(Spd::compile(&checked.config, 0).explain(&tuple, packet.direction.into()))
}

fn from_daemon(run_dir: &Path, packet: Packet) -> Result<Explanation, Failure> {
    match client::ask_once(run_dir, &Request::Explain(packet))?.pop() {
        Some(Answer::Explanation(explanation)) => Ok(*explanation),
        other => Err(Failure::Failed(format!("ipsecd answered what was not asked: {other:?}"))),
    }
}

impl Args {
    fn packet(&self) -> Result<Packet, Failure> {
        let (source, destination, protocol) = (self.sa, self.da, self.p);
        if source.is_ipv4() != destination.is_ipv4() {
            let text = format!("-sa {source} and -da {destination} must both be IPv4 or both IPv6");
            return Err(Failure::Failed(text));
        }
        let is_icmp = [names::ICMP, names::ICMPV6].contains(&protocol);
        let has_ports = names::has_ports(protocol);
        let name = names::protocol_name(protocol);
        if !has_ports && (self.sp.is_some() || self.dp.is_some()) {
            return Err(Failure::Failed(format!("{name} has no ports: leave out -sp and -dp")));
        }
        if !is_icmp && self.icmp.is_some() {
            return Err(Failure::Failed(format!("--icmp is for ICMP and ICMPV6, not {name}: add -p ICMP")));
        }
        if is_icmp && source.is_ipv4() != (protocol == names::ICMP) {
            let text = format!(
                "{name} does not go between {source} and {destination}: -p ICMP is for IPv4, -p ICMPV6 for IPv6"
            );
            return Err(Failure::Failed(text));
        }
        Ok(Packet {
            source,
            destination,
            protocol,
            ports: has_ports.then(|| (self.sp.unwrap_or(DUMMY_PORT), self.dp.unwrap_or(DUMMY_PORT))),
            icmp: is_icmp.then(|| self.icmp_type_and_code()).transpose()?,
            direction: match self.dir {
                Way::In => Direction::Inbound,
                Way::Out => Direction::Outbound,
            },
            interface: self.interface.clone(),
        })
    }

    fn icmp_type_and_code(&self) -> Result<(u8, u8), Failure> {
        let text = self.icmp.as_deref().unwrap_or("echo-request");
        let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
        let one = |what: &str, value: Result<(u8, u8), names::Refused>| match value {
            Ok((first, last)) if first == last => Ok(first),
            Ok(_) => Err(Failure::Failed(format!("--icmp {text}: a packet has one {what}, not a range"))),
            Err(refused) => Err(Failure::Failed(format!("--icmp {text}: {refused}"))),
        };
        let kind = one("type", names::icmp_type(self.p, kind))?;
        let code = one("code", names::icmp_code(self.p, (kind, kind), code))?;
        Ok((kind, code))
    }

    /// What was not given and had to be assumed.
    fn dummies(&self, packet: &Packet) -> Vec<String> {
        let mut out = Vec::new();
        if packet.ports.is_some() {
            let missing = [("-sp", self.sp), ("-dp", self.dp)].into_iter().filter(|(_, given)| given.is_none());
            out.extend(missing.map(|(option, _)| format!("{option} not given: {DUMMY_PORT} assumed")));
        }
        if packet.icmp.is_some() && self.icmp.is_none() {
            out.push("--icmp not given: echo request assumed".into());
        }
        out
    }
}
