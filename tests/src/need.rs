//! What a test needs from the machine, and what happens where it is not there.

use std::io::Write;
use std::path::Path;

/// Something a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Network namespaces, TUN and raw sockets; `ip`, `ping`.
    Root,
    /// strongSwan's charon and swanctl.
    StrongSwan,
    /// strongSwan's plugin for XAUTH.
    Xauth,
    /// tcpdump.
    Capture,
    /// tshark.
    Tshark,
    /// Python with scapy and cryptography, at `CAPONIER_PYTHON` or in `target/venv`.
    Scapy,
    /// A C compiler.
    Cc,
    /// nft.
    Nft,
    /// openssl.
    OpenSsl,
    /// iperf3.
    Iperf,
    /// ethtool.
    Ethtool,
}

/// Path of charon in Debian.
pub const CHARON: &str = "/usr/lib/ipsec/charon";

const XAUTH: &str = "/usr/lib/ipsec/plugins/libstrongswan-xauth-generic.so";

impl Need {
    /// Why it cannot be had, if so.
    fn missing(self) -> Option<String> {
        let program = |name: &str, package: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path)
                .chain(["/usr/sbin".into(), "/sbin".into()])
                .any(|directory| directory.join(name).is_file());
            (!found).then(|| format!("{name} is not installed (Debian: {package})"))
        };
        match self {
            Self::Root if !rustix::process::geteuid().is_root() => Some("not root".into()),
            Self::Root => program("ip", "iproute2").or_else(|| program("ping", "iputils-ping")),
            Self::StrongSwan if !Path::new(CHARON).is_file() => {
                Some(format!("{CHARON} is not installed (Debian: strongswan-charon libcharon-extra-plugins)"))
            }
            Self::StrongSwan => program("swanctl", "strongswan-swanctl"),
            Self::Xauth => (!Path::new(XAUTH).is_file())
                .then(|| format!("{XAUTH} is not installed (Debian: libcharon-extauth-plugins)")),
            Self::Capture => program("tcpdump", "tcpdump"),
            Self::Tshark => program("tshark", "tshark"),
            Self::Scapy => {
                (!python().is_file()).then(|| format!("{} is not there (tests/run makes it)", python().display()))
            }
            Self::Cc => program("cc", "gcc libc6-dev"),
            Self::Nft => program("nft", "nftables"),
            Self::OpenSsl => program("openssl", "openssl"),
            Self::Iperf => program("iperf3", "iperf3"),
            Self::Ethtool => program("ethtool", "ethtool"),
        }
    }
}

/// The Python that has scapy.
#[must_use]
pub fn python() -> std::path::PathBuf {
    std::env::var_os("CAPONIER_PYTHON")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python"), Into::into)
}

/// Whether all that is needed is there. If not, says loudly that `test` was
/// skipped and why.
///
/// # Panics
/// If something is missing and `CAPONIER_REQUIRE_ROOT` is set: then nothing may be skipped.
#[must_use]
pub fn available(test: &str, needs: &[Need]) -> bool {
    let reason = if std::env::var_os("CAPONIER_SKIP_PEERS").is_some() {
        Some("left out (quick)".to_owned())
    } else {
        needs.iter().find_map(|need| need.missing())
    };
    let Some(reason) = reason else { return true };
    let line = format!("{test}: {reason}");
    assert!(std::env::var_os("CAPONIER_REQUIRE_ROOT").is_none(), "nothing may be skipped, but {line}");
    eprintln!("SKIPPED: {line}");
    if let Some(path) = std::env::var_os("CAPONIER_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut f| writeln!(f, "{line}")) {
            eprintln!("CAPONIER_SKIPPED: {error}");
        }
    }
    false
}
