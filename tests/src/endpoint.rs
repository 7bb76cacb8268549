//! Raw ESP: a scapy end point that uses the SAs of a charon behind a shim.

use crate::lab::{Host, Lab};
use crate::need;
use crate::process::{self, Background};
use crate::wait;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of `tests/fixtures`.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Compiles the shim that hides the kernel's lack of ESP from charon.
///
/// # Panics
/// If it does not compile.
#[must_use]
#[track_caller]
pub fn shim(lab: &Lab) -> PathBuf {
    let library = lab.directory().join("xfrm_shim.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library);
    process::run(cc.arg(fixture("xfrm_shim.c")).arg("-ldl"), 60).ok("cc xfrm_shim.c");
    library
}

/// An end point that answers pings to the host's inner address.
#[must_use]
#[track_caller]
pub fn echo(host: &Host) -> Background {
    echo_at(host, host.inner())
}

/// An end point that answers pings to an address of the host.
#[must_use]
#[track_caller]
pub fn echo_at(host: &Host, address: IpAddr) -> Background {
    let log = host.directory.join("endpoint.log");
    let mut endpoint = Background::spawn(&mut endpoint(host, "echo", address), &log, &log);
    wait::until_true("the scapy end point", 30, || {
        assert!(endpoint.is_running(), "the scapy end point ended: {}", endpoint.output());
        endpoint.output().contains("ready")
    });
    endpoint
}

/// Three pings from the host's inner address to the peer's, which must all be answered.
#[track_caller]
pub fn ping(host: &Host, peer: &Host) {
    ping_at(host, host.inner(), peer.inner());
}

/// Three pings from an address of the host to one of a peer, which must all be answered.
#[track_caller]
pub fn ping_at(host: &Host, from: IpAddr, to: IpAddr) {
    let mut command = endpoint(host, "ping", from);
    command.arg(to.to_string());
    process::run(&mut command, 60).ok("the scapy end point's pings");
}

fn endpoint(host: &Host, mode: &str, address: IpAddr) -> Command {
    let mut command = host.command(need::python());
    command.arg(fixture("esp_endpoint.py")).args([mode, "outer", &address.to_string()]);
    command.arg(host.directory.join("sa.keys"));
    command
}
