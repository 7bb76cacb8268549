//! The right to make networks: root's, or that of a user in a namespace of its own.

use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io;

/// The device that makes TUN interfaces. Anybody may open it where udev or
/// systemd-tmpfiles set it up; the kernel alone gives it to root.
const TUN: &str = "/dev/net/tun";

/// In which capacity the demo makes its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privilege {
    /// As root of the system: namespaces can have names.
    Root,
    /// As root of a user namespace that was made for it.
    UserNamespace,
}

/// Takes what is needed. Must be called before there is a second thread: a
/// process with several cannot change its user namespace.
///
/// # Errors
/// In words, with what to do.
pub(super) fn acquire() -> Result<Privilege, String> {
    if may_make_networks().map_err(|e| format!("cannot read /proc/self/status: {e}"))? {
        return Ok(Privilege::Root);
    }
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|e| refused(&e.into()))?;
    become_root(uid, gid).map_err(|e| refused(&e))?;
    fs::OpenOptions::new().read(true).write(true).open(TUN).map_err(|e| tun_refused(&e))?;
    Ok(Privilege::UserNamespace)
}

/// Maps our user and group to root of the new namespace (user_namespaces(7)).
fn become_root(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    // Some systems give the namespace and keep its privileges back.
    super::Namespace::unnamed().map(drop).map_err(|e| e.source)
}

pub(super) fn refused(e: &io::Error) -> String {
    let mut text = format!(
        "this system does not let an ordinary user make networks ({e}).\n\
         Run the demo as root:\n\
         \x20   sudo target/release/ipsec_demo\n\
         or allow user namespaces, with whichever of these the system has:"
    );
    for (setting, value) in [
        ("kernel.unprivileged_userns_clone", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),
        ("user.max_user_namespaces", "10000"),
    ] {
        let file = format!("/proc/sys/{}", setting.replace('.', "/"));
        if let Ok(now) = fs::read_to_string(file) {
            text.push_str(&format!("\n    sudo sysctl {setting}={value}    (now {})", now.trim()));
        }
    }
    text
}

fn tun_refused(e: &io::Error) -> String {
    format!(
        "an ordinary user cannot open {TUN} here ({e}).\n\
         Run the demo as root:\n\
         \x20   sudo target/release/ipsec_demo\n\
         or let everybody open it, as udev does (an interface can still only be made with the right to):\n\
         \x20   sudo chmod 666 {TUN}"
    )
}

/// Whether we have CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN.
fn may_make_networks() -> io::Result<bool> {
    const NEEDED: u64 = 1 << 12 | 1 << 13 | 1 << 21;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    Ok(effective & NEEDED == NEEDED)
}
