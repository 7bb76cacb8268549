//! The configurations of the hosts of a run.

use crate::{ISAKMP_LIFE, Mismatch};
use policy::config::Config;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The outer address of a host.
#[must_use]
pub(crate) fn address(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, host as u8 + 1).into()
}

/// What a seed chooses for all hosts alike.
pub(crate) struct Options {
    /// Perfect forward secrecy.
    pub(crate) pfs: bool,
    /// Everything in UDP.
    pub(crate) force: bool,
    /// Quick modes under one ISAKMP SA.
    pub(crate) max_quick_modes: u32,
    /// 0: nobody starts by itself; 1: the first host of each tunnel; 2: both.
    pub(crate) boot: u64,
    /// Lifetime of the pairs in seconds.
    pub(crate) life: u32,
    /// Signatures instead of pre-shared keys.
    pub(crate) certificates: bool,
    /// Aggressive mode instead of main mode.
    pub(crate) aggressive: bool,
    /// What is done about a peer that is dead.
    pub(crate) dpd_action: &'static str,
}

/// What the daemon of a host would have read from its file, and from those that it names.
#[must_use]
pub(crate) fn read(
    host: usize,
    tunnels: &[(usize, usize, Arc<str>)],
    mismatch: Mismatch,
    options: &Options,
) -> Arc<Config> {
    let text = text(host, tunnels, mismatch, options);
    let checked = Config::parse(&text, "simulation.toml");
    let mut config = checked.unwrap_or_else(|errors| panic!("{errors:#?}\n{text}")).config;
    if options.certificates {
        config.auths.iter_mut().for_each(|auth| Arc::make_mut(auth).authorities = vec![b"an encoded name".to_vec()]);
    }
    Arc::new(config)
}

fn text(host: usize, tunnels: &[(usize, usize, Arc<str>)], mismatch: Mismatch, options: &Options) -> String {
    let other = |kind| mismatch == kind && host == 1;
    let mut text = "[startup]\nallow_short_lifetimes = true\nauditlvl = \"debug\"\n".to_owned();
    let esp = match (other(Mismatch::Esp), options.pfs) {
        (true, _) => "aes256-sha256",
        (false, true) => "aes128-sha1-ecp256",
        (false, false) => "aes128-sha1",
    };
    for (number, (x, y, name)) in tunnels.iter().enumerate().filter(|(_, (x, y, _))| [*x, *y].contains(&host)) {
        let peer = if *x == host { *y } else { *x };
        let (a, b) = (format!("10.{x}.{number}.0/24"), format!("10.{y}.{number}.0/24"));
        let (ours, theirs) = if *x == host { (a, b) } else { (b, a) };
        let theirs = if other(Mismatch::Selectors) { theirs.replace("/24", "/25") } else { theirs };
        let start = match options.boot {
            2 => "boot",
            1 if *x == host => "boot",
            _ => "traffic",
        };
        let _ = write!(
            text,
            "
[[host]]
name = \"{name}\"
source = \"{ours}\"
destination = \"{theirs}\"
tunnel = \"{name}\"

[[tunnel]]
name = \"{name}\"
tsource = \"{}\"
tdestination = \"{}\"
source = \"{ours}\"
destination = \"{theirs}\"
action = \"{esp}/{}\"
start = \"{start}\"
",
            address(host),
            address(peer),
            options.life,
        );
    }
    let preshared = format!(
        "preshared = \"{}-preshared-key-of-the-simulation\"",
        match other(Mismatch::Preshared) {
            true => "another",
            false => "the",
        }
    );
    let files = "certificate = \"/c.pem\"\nca = \"/ca.pem\"\ncrl_policy = \"relaxed\"\nmethod = \"ECDSA256\"";
    let _ = write!(
        text,
        "
[[ike]]
name = \"all\"
remote = \"10.77.0.0/24\"
proposals = [\"{}\"]
life = {ISAKMP_LIFE}
maxqm = {}
nat_traversal = \"{}\"
dpd_action = \"{}\"

[[auth]]
name = \"all\"
remote = \"10.77.0.0/24\"
{}
{}
",
        if other(Mismatch::Ike) { "aes256-sha256-ecp256" } else { "aes128-sha1-ecp256" },
        options.max_quick_modes,
        if options.force { "force" } else { "auto" },
        options.dpd_action,
        if options.certificates { files } else { &preshared },
        match (options.aggressive, options.certificates) {
            (false, _) => "",
            (true, true) => "exchange = \"AM\"",
            (true, false) => "exchange = \"AM\"\naggressive_psk = \"accept\"",
        },
    );
    text
}
