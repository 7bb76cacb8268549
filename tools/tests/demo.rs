//! The demo as a user meets it: it shows what it says, and leaves nothing behind however it ends.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// False, said aloud, where the demo cannot run; a failure where it must.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CAPONIER_REQUIRE_ROOT").is_none(), "these tests need root");
    if !root {
        eprintln!("SKIPPED, not tested: the demo as root, and as an ordinary user from here");
    }
    root
}

fn demo(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--dir").arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reads the output until a line of it contains `text`.
fn wait_for(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().contains(text)), "the demo ended before it said: {text}");
}

/// Processes that were told about `directory`.
fn processes(directory: &Path) -> usize {
    let needle = directory.to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap().filter_map(|e| fs::read(e.unwrap().path().join("cmdline")).ok());
    all.filter(|c| String::from_utf8_lossy(c).contains(needle)).count()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

fn assert_all_was_shown(output: &std::process::Output, directory: &Path) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for words in ["checks passed.", "ESP, protocol 50", "4 of 4 answered", "0 missed", "new SAs"] {
        assert!(text.contains(words), "`{words}` is not in\n{text}");
    }
    assert!(!text.contains('\x1b'), "colour, though nobody looks");
    for file in ["a.toml", "b.toml", "a.log", "wire.pcap"] {
        assert!(directory.join(file).is_file(), "{file}");
    }
    let mode = fs::metadata(directory.join("a.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "there is a key in it");
}

#[test]
fn it_shows_a_tunnel_as_root() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_ipsec_demo"));
    let output = demo(program, directory.path()).output().unwrap();
    assert_all_was_shown(&output, directory.path());
    assert_eq!(processes(directory.path()), 0);
}

/// Runs the demo as a user who is nobody, with a TUN device of this mode: what
/// it is on this machine depends on which packages set it up.
fn demo_as_nobody(tun_mode: &str, files: &str) -> (tempfile::TempDir, std::process::Output) {
    // Where nobody can reach it.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("ipsec_demo");
    fs::copy(env!("CARGO_BIN_EXE_ipsec_demo"), &program).unwrap();
    // The mount is one of the demo's own namespace.
    let script = "mknod \"$1/tun\" c 10 200 && chmod $2 \"$1/tun\" && mount --bind \"$1/tun\" /dev/net/tun && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$1/ipsec_demo\" --dir \"$1/$3\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(directory.path()).args([tun_mode, files]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (directory, output)
}

#[test]
fn it_shows_a_tunnel_to_an_ordinary_user() {
    if !is_root() {
        return;
    }
    let (directory, output) = demo_as_nobody("666", "files");
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("does not let an ordinary user make networks") {
        assert!(complaint.contains("sudo"), "{complaint}");
        eprintln!("SKIPPED, not tested: {complaint}");
        return;
    }
    assert_all_was_shown(&output, &directory.path().join("files"));
}

#[test]
fn it_says_what_to_do_where_an_ordinary_user_may_not() {
    if !is_root() {
        return;
    }
    let (_directory, output) = demo_as_nobody("600", "files");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("sudo"), "{complaint}");
    if !complaint.contains("does not let an ordinary user make networks") {
        assert!(complaint.contains("chmod 666 /dev/net/tun"), "{complaint}");
    }
}

#[test]
fn an_interrupt_cleans_up() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo(Path::new(env!("CARGO_BIN_EXE_ipsec_demo")), directory.path()).spawn().unwrap();
    wait_for(&mut child, "TCP through the tunnel");
    assert_eq!(processes(directory.path()), 3, "the demo and two daemons");
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(processes(directory.path()), 0);
}

#[test]
fn daemons_do_not_outlive_a_demo_that_is_killed() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo(Path::new(env!("CARGO_BIN_EXE_ipsec_demo")), directory.path()).spawn().unwrap();
    wait_for(&mut child, "host b lets nothing");
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let start = Instant::now();
    while processes(directory.path()) > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "daemons go on without the demo");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn it_says_what_is_wrong() {
    let program = Path::new(env!("CARGO_BIN_EXE_ipsec_demo"));
    let output = demo(program, Path::new("/proc/nowhere")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/proc/nowhere") || text.contains("does not let"), "{text}");
    let output = Command::new(program).arg("--nonsense").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
