//! `ipsecd` on a host of the demo, as a process of its own, and the commands that talk to it.

use super::configs;
use super::host::Host;
use super::{Outcome, failed, stop_if_interrupted};
use crate::control::client;
use crate::control::{Answer, Request};
use crate::report::{Filters, Record, Section};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The running program, under whichever name: it is all commands at once.
const OURSELVES: &str = "/proc/self/exe";
/// How long a daemon may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the files of one host are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// Its configuration.
    pub(super) config: PathBuf,
    /// Its run directory.
    pub(super) run_dir: PathBuf,
    /// What it writes to standard error.
    pub(super) log: PathBuf,
}

impl Files {
    pub(super) fn new(directory: &Path, host: &str) -> Self {
        let named = |end| directory.join(format!("{host}{end}"));
        Self { config: named(".toml"), run_dir: named(".run"), log: named(".log") }
    }
}

/// A running `ipsecd`; stopped when dropped.
pub(super) struct Daemon {
    child: Child,
    pub(super) files: Files,
}

impl Daemon {
    /// Starts it and waits until it answers.
    pub(super) fn start(host: &Host, files: &Files) -> Outcome<Self> {
        let log = File::options().create(true).append(true).open(&files.log);
        let log = log.map_err(|e| failed(&format!("cannot write {}", files.log.display()), &e))?;
        let mut command = Command::new(OURSELVES);
        command
            .args(["ipsec_demo", super::DAEMON])
            .arg("--config")
            .arg(&files.config)
            .arg("--run-dir")
            .arg(&files.run_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which then stops its daemons in order.
            .process_group(0);
        let child = host.run(move || command.spawn())?.map_err(|e| failed("cannot start ipsecd", &e))?;
        let mut daemon = Self { child, files: files.clone() };
        daemon.wait_until_ready(host.name)?;
        Ok(daemon)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request; all of the answer.
    pub(super) fn ask(&self, request: &Request) -> Outcome<Vec<Answer>> {
        client::ask_once(&self.files.run_dir, request).map_err(|e| failed("ipsecd does not answer", &e))
    }

    /// The records of a section of the report.
    pub(super) fn report(&self, section: Section) -> Outcome<Vec<Record>> {
        let answers = self.ask(&Request::Report { sections: vec![section], filters: Filters::default() })?;
        Ok(answers.into_iter().filter_map(|a| if let Answer::Record(r) = a { Some(r) } else { None }).collect())
    }

    /// Runs one of the commands, as a user would.
    pub(super) fn command(&self, name: &str, arguments: &[&str]) -> Outcome<String> {
        let run_dir = self.files.run_dir.to_string_lossy();
        let mut all = arguments.to_vec();
        all.extend(["--run-dir", &run_dir]);
        command(name, &all)
    }

    /// What it has said of its negotiations since `offset` octets of its log, one line each.
    pub(super) fn audit_lines(&self, entity: &str, offset: usize) -> Vec<String> {
        let log = std::fs::read_to_string(&self.files.log).unwrap_or_default();
        let mut ours = false;
        let mut out = Vec::new();
        for line in log.get(offset..).unwrap_or_default().lines() {
            if line.starts_with("Msg: ") {
                ours = line.contains(&format!("From: {entity} "));
            } else if let (true, Some(event)) = (ours, line.strip_prefix("Event: ")) {
                out.push(event.to_owned());
            }
        }
        out
    }

    /// Octets of its log so far.
    pub(super) fn log_len(&self) -> usize {
        std::fs::metadata(&self.files.log).map_or(0, |m| m.len() as usize)
    }

    /// Ends it without a chance to clean up.
    pub(super) fn kill(mut self) -> Outcome<()> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(|e| failed("cannot kill ipsecd", &e))?;
        Ok(())
    }

    /// Stops it as an administrator does; whether it ended well and in time.
    pub(super) fn stop(&mut self) -> Outcome<bool> {
        self.command("ipsec_admin", &["-stop"])?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().map_err(|e| failed("cannot wait for ipsecd", &e))? {
                return Ok(status.success());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    fn wait_until_ready(&mut self, name: &str) -> Outcome<()> {
        let start = Instant::now();
        loop {
            stop_if_interrupted()?;
            let ended = self.child.try_wait().map_err(|e| failed("cannot wait for ipsecd", &e))?;
            if let Some(status) = ended {
                let why = format!("{status}\n{}", tail(&self.files.log, 12));
                return Err(failed(&format!("ipsecd on host {name} did not start"), &why));
            }
            match client::ask_once(&self.files.run_dir, &Request::Status) {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() > PATIENCE => {
                    return Err(failed(&format!("ipsecd on host {name} did not get ready"), &e));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs one of the commands; its output.
pub(super) fn command(name: &str, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(OURSELVES).arg(name).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| failed(&format!("cannot run {name}"), &e))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let why = format!("{}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Err(failed(&format!("{name} {}", arguments.join(" ")), &why.trim_end()))
}

/// Writes the configuration files of both hosts, with a key of their own.
pub(super) fn write_configs(directory: &Path, hosts: (&Host, &Host)) -> Outcome<(Files, Files)> {
    let key = configs::new_key().map_err(|e| failed("cannot make a key", &e))?;
    let write = |ours: &Host, theirs: &Host| {
        let files = Files::new(directory, ours.name);
        let all = std::fs::create_dir_all(&files.run_dir)
            .and_then(|()| configs::write(&files.config, &configs::text(ours, theirs, &key)))
            .and_then(|()| File::create(&files.log));
        all.map_err(|e| failed(&format!("cannot write to {}", directory.display()), &e))?;
        Ok(files)
    };
    Ok((write(hosts.0, hosts.1)?, write(hosts.1, hosts.0)?))
}

/// The last lines of a file.
fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    let start = all.len().saturating_sub(lines);
    all.get(start..).unwrap_or_default().join("\n")
}
