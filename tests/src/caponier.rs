//! Caponier in a lab host: `ipsecd` and the commands, run as a user runs them.

use crate::cases::{Case, PRESHARED};
use crate::lab::Host;
use crate::process::{self, Background, Finished};
use crate::wait;
use serde_json::Value;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The executable that is every program of Caponier: a binary of this package.
///
/// # Panics
/// Unless called by a test, whose executable is in `target/PROFILE/deps`.
#[must_use]
pub fn applets() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("two directories above a test");
    profile.join("applets")
}

/// A tunnel with everything that goes with it: a host policy of the same
/// selectors, and an IKE policy and an authentication record for the peer.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Name of all four objects.
    pub name: String,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// Our protected network.
    pub source: String,
    /// The peer's protected network.
    pub destination: String,
    /// Phase-1 proposals.
    pub ike: Vec<String>,
    /// Phase-2 transforms, with or without lifetime.
    pub esp: Vec<String>,
    /// The pre-shared key; empty: none.
    pub preshared: String,
    /// More lines of the host policy, e.g. `flags = "EXCLUSIVE"`.
    pub more_host: String,
    /// More lines of the authentication record, e.g. `certificate = "/…"`.
    pub more_auth: String,
    /// More lines of the tunnel policy, e.g. `start = "boot"`.
    pub more: String,
    /// More lines of the IKE policy, e.g. `life = 60`.
    pub more_ike: String,
}

impl Tunnel {
    /// The tunnel from `me` to `peer` between the IPv4 networks behind them.
    #[must_use]
    pub fn new(me: &Host, peer: &Host, case: Case) -> Self {
        Self {
            name: format!("to_{}", peer.name),
            local: me.outer(),
            remote: peer.outer(),
            source: me.network(),
            destination: peer.network(),
            ike: vec![case.ike.into()],
            esp: vec![case.esp.into()],
            preshared: PRESHARED.into(),
            more_host: String::new(),
            more_auth: String::new(),
            more: String::new(),
            more_ike: String::new(),
        }
    }
}

/// A configuration file.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// More lines of `[startup]`.
    pub startup: String,
    /// In order of priority. Two to the same peer share the IKE policy and
    /// authentication record of the first.
    pub tunnels: Vec<Tunnel>,
    /// Anything more.
    pub more: String,
}

impl Configuration {
    /// With one tunnel.
    #[must_use]
    pub fn new(tunnel: Tunnel) -> Self {
        Self { tunnels: vec![tunnel], ..Self::default() }
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("[startup]\nauditlvl = \"informative\"\n{}\n", self.startup);
        let mut peers = Vec::new();
        for t in &self.tunnels {
            let Tunnel { name, local, remote, source, destination, preshared, more_host, more, more_ike, .. } = t;
            let (ike, esp) = (&t.ike, &t.esp);
            let _ = write!(
                text,
                "
[[host]]
name = \"{name}\"
source = \"{source}\"
destination = \"{destination}\"
tunnel = \"{name}\"
{more_host}

[[tunnel]]
name = \"{name}\"
tsource = \"{local}\"
tdestination = \"{remote}\"
source = \"{source}\"
destination = \"{destination}\"
action = {esp:?}
{more}
"
            );
            if !peers.contains(remote) {
                peers.push(*remote);
                let key = if preshared.is_empty() { String::new() } else { format!("preshared = \"{preshared}\"") };
                let more_auth = &t.more_auth;
                let _ = write!(
                    text,
                    "
[[ike]]
name = \"{name}\"
remote = \"{remote}\"
proposals = {ike:?}
{more_ike}

[[auth]]
name = \"{name}\"
remote = \"{remote}\"
{key}
{more_auth}
"
                );
            }
        }
        text + &self.more
    }
}

/// A running `ipsecd`.
#[derive(Debug)]
pub struct Caponier {
    host: Host,
    daemon: Background,
    run: PathBuf,
    config: PathBuf,
}

impl Caponier {
    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host, configuration: &Configuration) -> Self {
        let run = host.directory.join("caponier");
        let config = host.directory.join("caponier.toml");
        std::fs::write(&config, configuration.text()).expect("the configuration file");
        let mut command = host.command(applets());
        command.arg("ipsecd").arg("--config").arg(&config).arg("--run-dir").arg(&run);
        let log = (1..)
            .map(|n| host.directory.join(format!("ipsecd-{n}.log")))
            .find(|path| !path.exists())
            .expect("numbers do not end");
        let daemon = Background::spawn(&mut command, &log, &log);
        let mut us = Self { host: host.clone(), daemon, run, config };
        wait::until_true("ipsecd to answer", 30, || {
            assert!(us.daemon.is_running(), "ipsecd ended: {}", us.daemon.output());
            us.command(10, "ipsec_admin", &["-status"]).status.success()
        });
        us
    }

    /// Runs one of the commands against this daemon.
    #[track_caller]
    pub fn command(&self, seconds: u64, program: &str, arguments: &[&str]) -> Finished {
        let mut command: Command = self.host.command(applets());
        command.arg(program).args(arguments).arg("--run-dir").arg(&self.run);
        process::run(&mut command, seconds)
    }

    /// One of the commands, running, with its standard output to be read.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn piped(&self, program: &str, arguments: &[&str]) -> std::process::Child {
        let mut command: Command = self.host.command(applets());
        command.arg(program).args(arguments).arg("--run-dir").arg(&self.run);
        command.stdout(std::process::Stdio::piped()).spawn().expect("a command")
    }

    /// `ipsec_admin`, which must succeed.
    #[track_caller]
    pub fn admin(&self, arguments: &[&str]) -> String {
        self.command(70, "ipsec_admin", arguments).ok(&format!("ipsec_admin {}", arguments.join(" ")))
    }

    /// One section of `ipsec_report --json`, e.g. `sad`.
    ///
    /// # Panics
    /// If the answer is not a JSON document with that section.
    #[must_use]
    #[track_caller]
    pub fn report(&self, section: &str) -> Vec<Value> {
        let text = self.command(20, "ipsec_report", &[&format!("-{section}"), "--json"]).ok("ipsec_report");
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(document["version"], 1, "{text}");
        document[section].as_array().unwrap_or_else(|| panic!("no section {section}: {text}")).clone()
    }

    /// The pairs of SAs in use for a tunnel: SPIs (inbound, outbound), the newest first.
    #[must_use]
    #[track_caller]
    pub fn pairs(&self, tunnel: &str) -> Vec<(u32, u32)> {
        let sad = self.report("sad");
        let spi = |sa: &Value| u32::try_from(sa["spi"].as_u64().expect("an SPI")).expect("32 bits");
        let of = |direction: &str, pair: &Value| {
            sad.iter().find(|sa| sa["direction"] == direction && sa["pair"] == *pair).map(spi)
        };
        let mut pairs: Vec<_> = sad
            .iter()
            .filter(|sa| sa["tunnel"] == tunnel && sa["direction"] == "inbound")
            .map(|sa| {
                let outbound = of("outbound", &sa["pair"]);
                (sa["pair"].as_u64(), spi(sa), outbound.expect("an inbound SA has its outbound one"))
            })
            .collect();
        pairs.sort_by_key(|(pair, ..)| std::cmp::Reverse(*pair));
        pairs.into_iter().map(|(_, inbound, outbound)| (inbound, outbound)).collect()
    }

    /// A counter of the daemon; 0 if it has not counted anything under that name.
    #[must_use]
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let text = self.command(20, "ipsec_admin", &["-status", "--json"]).ok("ipsec_admin -status --json");
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let status = document["status"].as_array().and_then(|s| s.first()).unwrap_or(&document["status"]);
        status[name].as_u64().or_else(|| status["counters"][name].as_u64()).unwrap_or(0)
    }

    /// No SA of any kind and no packet waiting for one.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.assert_no_pairs();
        assert_eq!(self.report("mad"), Vec::<Value>::new(), "ISAKMP SAs left behind");
    }

    /// No IPsec SA and no packet waiting for one; an ISAKMP SA may be there.
    #[track_caller]
    pub fn assert_no_pairs(&self) {
        assert_eq!(self.report("sad"), Vec::<Value>::new(), "IPsec SAs left behind");
        for tunnel in self.report("tunnel") {
            assert_eq!(tunnel["packets_held"].as_u64().unwrap_or(0), 0, "packets held: {tunnel}");
        }
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.counter("pid") as u32
    }

    /// What the daemon has written: audit events and diagnostics.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.output()
    }

    /// The texts of the audit events of a level, e.g. `ERROR`, in order.
    #[must_use]
    pub fn events(&self, level: &str) -> Vec<String> {
        let log = self.log();
        let level = format!("Lvl: {level} ");
        log.lines()
            .zip(log.lines().skip(1))
            .filter(|(head, _)| head.starts_with("Msg:") && head.contains(&level))
            .filter_map(|(_, text)| text.strip_prefix("Event:"))
            .map(|text| text.trim().to_owned())
            .collect()
    }

    /// The audit events of a number, e.g. 20, in order: each one's text.
    #[must_use]
    pub fn messages(&self, number: u32) -> Vec<String> {
        messages(&self.log(), number)
    }

    /// Waits for an audit event of a level that contains each of `words`.
    #[track_caller]
    pub fn wait_event(&self, seconds: u64, level: &str, words: &[&str]) -> String {
        wait::until(&format!("an event of level {level} with {words:?}"), Duration::from_secs(seconds), || {
            self.events(level).into_iter().find(|event| words.iter().all(|word| event.contains(word)))
        })
    }

    /// Waits until a tunnel is in a state (`up`, `down`, `negotiating`).
    #[track_caller]
    pub fn wait_tunnel(&self, seconds: u64, name: &str, state: &str) {
        wait::until_true(&format!("tunnel {name} to be {state}"), seconds, || {
            self.report("tunnel").iter().any(|t| t["name"] == name && t["state"] == state)
        });
    }

    /// Writes another configuration and makes the daemon read it.
    #[track_caller]
    pub fn reload(&self, configuration: &Configuration) {
        std::fs::write(&self.config, configuration.text()).expect("the configuration file");
        self.admin(&["-reload"]);
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(mut self) -> String {
        let status = self.daemon.terminate(20);
        assert!(status.success(), "ipsecd: {status}: {}", self.log());
        self.log()
    }

    /// Ends it at once (SIGKILL): it can do nothing more, on the wire or here.
    pub fn kill(mut self) {
        self.daemon.kill();
    }

    /// Memory of the daemon that is in use, in kilobytes (VmRSS of proc(5)).
    ///
    /// # Panics
    /// If the system does not say.
    #[must_use]
    #[track_caller]
    pub fn resident_kbytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.daemon.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS is there");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kilobytes")
    }

    /// Processor time of the daemon so far (utime and stime of proc(5)).
    ///
    /// # Panics
    /// If the system does not say.
    #[must_use]
    #[track_caller]
    pub fn cpu(&self) -> Duration {
        process::cpu(self.daemon.id())
    }

    /// Its run directory.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.daemon.is_running()
    }
}

/// The audit events of a number in a log or an audit file, in order: each one's text.
#[must_use]
pub fn messages(log: &str, number: u32) -> Vec<String> {
    let head = format!("Msg: {number} From: SECPOLICYD Lvl: ALERT ");
    let pairs = log.lines().zip(log.lines().skip(1)).filter(|(first, _)| first.starts_with(&head));
    pairs.filter_map(|(_, text)| text.strip_prefix("Event: ")).map(str::to_owned).collect()
}

/// A failing test shows the reports of the daemons it had.
impl Drop for Caponier {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_running() {
            for (program, option) in [("ipsec_admin", "-status"), ("ipsec_report", "-all")] {
                let mut command = self.host.command(applets());
                command.args([program, option, "--run-dir"]).arg(&self.run);
                if let Ok(output) = command.output() {
                    eprintln!("===== {program} {option} at {}", self.host.name);
                    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::CASES;
    use policy::config::Config;

    /// What the tests write is a good configuration: for every row, with all that tests add.
    #[test]
    fn configurations_are_accepted() {
        for case in CASES {
            let tunnel = |name: &str, source: &str, destination: &str| Tunnel {
                name: name.into(),
                local: [10, 77, 0, 1].into(),
                remote: [10, 77, 0, 2].into(),
                source: source.into(),
                destination: destination.into(),
                ike: vec![case.ike.into()],
                esp: vec![format!("{}/20", case.esp)],
                preshared: PRESHARED.into(),
                more_host: String::new(),
                more_auth: String::new(),
                more: "start = \"boot\"".into(),
                more_ike: "nat_traversal = \"force\"\nlife = 60".into(),
            };
            let configuration = Configuration {
                startup: "allow_short_lifetimes = true\nspd_soft = 1\nspd_hard = 2\nexport_keys = \"/tmp\"".into(),
                tunnels: vec![
                    tunnel("to_b", "10.78.1.0/24", "10.78.2.0/24"),
                    tunnel("six", "fd78:1::/64", "fd78:2::/64"),
                ],
                more:
                    "[[host]]\nname = \"web\"\nsource = \"10.99.0.1\"\ndestination = \"10.99.0.2\"\naction = \"PASS\""
                        .into(),
            };
            let text = configuration.text();
            let checked = Config::parse(&text, "caponier.toml");
            let errors = checked.err().unwrap_or_default();
            assert!(errors.is_empty(), "{}\n{text}", errors.iter().map(ToString::to_string).collect::<String>());
        }
    }
}
