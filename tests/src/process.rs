//! Other programs: run to their end within a deadline, or kept in the background.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output of a program that must have succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(self, what: &str) -> String {
        assert!(self.status.success(), "{what}: {}\n{}{}", self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started or is not done within `seconds`; it is killed then.
#[track_caller]
pub fn run(command: &mut Command, seconds: u64) -> Finished {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (out, err) = (scratch.path().join("out"), scratch.path().join("err"));
    let mut child = Background::spawn(command, &out, &err);
    let status = child.wait(seconds);
    let read = |p: &Path| String::from_utf8_lossy(&std::fs::read(p).unwrap_or_default()).into_owned();
    let (stdout, stderr) = (read(&out), read(&err));
    let Some(status) = status else {
        child.kill();
        panic!("{command:?} was not done after {seconds} s\n{stdout}{stderr}");
    };
    Finished { status, stdout, stderr }
}

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    /// Where its standard error goes (the standard output too, unless apart).
    pub log: PathBuf,
    command: String,
}

impl Background {
    /// Starts it with its output going to the two files, which may be one.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn spawn(command: &mut Command, out: &Path, err: &Path) -> Self {
        let create = |p: &Path| File::options().create(true).append(true).open(p).expect("a log file can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(create(out))
            .stderr(create(err))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: err.to_owned(), command: format!("{command:?}") }
    }

    /// What it wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, at most `seconds`.
    pub fn wait(&mut self, seconds: u64) -> Option<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // The child is not reaped yet, so its number is still its own.
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, signal));
        }
    }

    /// Asks it to end and waits.
    ///
    /// # Panics
    /// If it is still there after `seconds`.
    #[track_caller]
    pub fn terminate(&mut self, seconds: u64) -> ExitStatus {
        self.signal(Signal::TERM);
        let status = self.wait(seconds);
        status.unwrap_or_else(|| {
            self.kill();
            panic!("{} did not end {seconds} s after SIGTERM", self.command)
        })
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used, all its threads together (utime and stime of proc(5)).
///
/// # Panics
/// If the system does not say.
#[must_use]
#[track_caller]
pub fn cpu(pid: u32) -> Duration {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // The name before it may hold anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
    // USER_HZ, which is 100 wherever Linux shows times to programs.
    Duration::from_millis(ticks * 10)
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}
