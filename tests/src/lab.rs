//! Hosts in network namespaces, joined by one link, with a protected network
//! behind each.
//!
//! ```text
//! host 0 "a": outer 10.77.0.1/24 fd77::1/64   inner 10.78.1.1/24 fd78:1::1/64
//! host 1 "b": outer 10.77.0.2/24 fd77::2/64   inner 10.78.2.1/24 fd78:2::1/64
//! ...
//! ```
//!
//! No namespace has a way out. Each `Lab` has names and a directory of its own,
//! so that tests run at the same time with the same addresses.

use crate::need::{self, Need};
use crate::process::{self, Finished};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Namespaces begin with this, then the process id: `tests/run` deletes those
/// of processes that are gone.
pub const PREFIX: &str = "cap-lab-";

/// One test's hosts and its directory of logs.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    switch: Option<String>,
    directory: PathBuf,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// `a`, `b`, ...
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Where its programs write.
    pub directory: PathBuf,
    number: u8,
}

impl Lab {
    /// Makes `hosts` hosts that reach each other; `None` (said loudly) where
    /// something the test needs is missing.
    ///
    /// # Panics
    /// If a namespace or link cannot be made.
    #[must_use]
    pub fn open(test: &str, hosts: u8, needs: &[Need]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !need::available(test, &[&[Need::Root], needs].concat()) {
            return None;
        }
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("{PREFIX}{process}-{number}-{test}"));
        std::fs::create_dir_all(&directory).expect("a directory for logs");
        let host = |i: u8| {
            let name = char::from(b'a' + i).to_string();
            Host {
                namespace: format!("{PREFIX}{process}-{number}{name}"),
                directory: directory.join(&name),
                name,
                number: i + 1,
            }
        };
        let mut lab = Self { hosts: Vec::new(), switch: None, directory: directory.clone() };
        for host in (0..hosts).map(host) {
            std::fs::create_dir_all(&host.directory).expect("a directory for logs");
            ip(&["netns", "add", &host.namespace]);
            lab.hosts.push(host);
        }
        if let [a, b] = &lab.hosts[..] {
            ip(&[
                "link",
                "add",
                "outer",
                "netns",
                &a.namespace,
                "type",
                "veth",
                "peer",
                "name",
                "outer",
                "netns",
                &b.namespace,
            ]);
        } else {
            let switch = format!("{PREFIX}{process}-{number}switch");
            ip(&["netns", "add", &switch]);
            lab.switch = Some(switch.clone());
            ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"]);
            ip(&["-n", &switch, "link", "set", "switch", "up"]);
            for h in &lab.hosts {
                let port = format!("to-{}", h.name);
                ip(&[
                    "link",
                    "add",
                    "outer",
                    "netns",
                    &h.namespace,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    &port,
                    "netns",
                    &switch,
                ]);
                ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"]);
            }
        }
        lab.hosts.iter().for_each(Host::configure);
        Some(lab)
    }

    /// Host 0.
    #[must_use]
    pub fn a(&self) -> &Host {
        &self.hosts[0]
    }

    /// Host 1.
    #[must_use]
    pub fn b(&self) -> &Host {
        &self.hosts[1]
    }

    /// Every host.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Joins two hosts by another link, each end with a name and an address with prefix.
    #[track_caller]
    pub fn link(&self, x: &Host, x_name: &str, x_address: &str, y: &Host, y_name: &str, y_address: &str) {
        let (m, n) = (x.namespace.as_str(), y.namespace.as_str());
        ip(&["link", "add", x_name, "netns", m, "type", "veth", "peer", "name", y_name, "netns", n]);
        for (namespace, name, address) in [(m, x_name, x_address), (n, y_name, y_address)] {
            ip(&["-n", namespace, "addr", "add", address, "dev", name]);
            ip(&["-n", namespace, "link", "set", name, "up"]);
        }
    }

    /// The test's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let names = self.hosts.iter().map(|h| &h.namespace).chain(&self.switch);
        for name in names {
            // Whatever a failed test left running in there.
            let pids = Command::new("ip").args(["netns", "pids", name]).output();
            for pid in String::from_utf8_lossy(&pids.map(|o| o.stdout).unwrap_or_default()).lines() {
                let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
                let _ = pid.map(|p| rustix::process::kill_process(p, rustix::process::Signal::KILL));
            }
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
        if std::thread::panicking() {
            show_logs(&self.directory);
            eprintln!("logs and captures are kept in {}", self.directory.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

impl Host {
    /// Outer IPv4 address.
    #[must_use]
    pub fn outer(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number).into()
    }

    /// Outer IPv6 address.
    #[must_use]
    pub fn outer6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into()).into()
    }

    /// Inner IPv4 address.
    #[must_use]
    pub fn inner(&self) -> IpAddr {
        Ipv4Addr::new(10, 78, self.number, 1).into()
    }

    /// Inner IPv6 address.
    #[must_use]
    pub fn inner6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd78, self.number.into(), 0, 0, 0, 0, 0, 1).into()
    }

    /// Protected IPv4 network.
    #[must_use]
    pub fn network(&self) -> String {
        format!("10.78.{}.0/24", self.number)
    }

    /// Protected IPv6 network.
    #[must_use]
    pub fn network6(&self) -> String {
        format!("fd78:{}::/64", self.number)
    }

    /// A command that will run inside the host.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Runs a program inside to its end.
    #[track_caller]
    pub fn run(&self, seconds: u64, program: &str, arguments: &[&str]) -> Finished {
        process::run(self.command(program).args(arguments), seconds)
    }

    /// Runs `body` in a thread of its own inside the host, and waits for it.
    ///
    /// # Panics
    /// If the namespace cannot be entered, or `body` panics.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|s| {
            let thread = s.spawn(|| {
                self.enter();
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the host, for good.
    ///
    /// # Panics
    /// If it cannot.
    pub fn enter(&self) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        let file = std::fs::File::open(format!("/run/netns/{}", self.namespace)).expect("the namespace exists");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root enters namespaces");
    }

    fn configure(&self) {
        let n = self.namespace.as_str();
        for (key, value) in [
            // Packets of protected networks arrive by the tunnel interface, while routes may say otherwise.
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.ip_forward", "1"),
        ] {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            self.run(10, "sh", &["-c", &format!("echo {value} > {path}")]).ok(key);
        }
        ip(&["-n", n, "link", "set", "lo", "up"]);
        ip(&["-n", n, "addr", "add", &format!("{}/24", self.outer()), "dev", "outer"]);
        ip(&["-n", n, "addr", "add", &format!("{}/64", self.outer6()), "dev", "outer", "nodad"]);
        ip(&["-n", n, "link", "set", "outer", "up"]);
        // A veth whose other end is nowhere: strongSwan takes no source address from `lo`.
        ip(&["-n", n, "link", "add", "inner", "type", "veth", "peer", "name", "inner-end"]);
        ip(&["-n", n, "link", "set", "inner-end", "up"]);
        ip(&["-n", n, "addr", "add", &format!("{}/24", self.inner()), "dev", "inner"]);
        ip(&["-n", n, "addr", "add", &format!("{}/64", self.inner6()), "dev", "inner", "nodad"]);
        ip(&["-n", n, "link", "set", "inner", "up"]);
    }
}

/// Runs `ip`, which must succeed.
#[track_caller]
fn ip(arguments: &[&str]) {
    process::run(Command::new("ip").args(arguments), 20).ok(&format!("ip {}", arguments.join(" ")));
}

/// The end of every log below `directory`.
fn show_logs(directory: &Path) {
    const LINES: usize = 80;
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            show_logs(&path);
        } else if path.extension().is_some_and(|e| e == "log" || e == "toml" || e == "conf") {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("===== {} ({} lines)", path.display(), lines.len());
            lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
