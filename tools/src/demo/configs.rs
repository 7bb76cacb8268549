//! The two configuration files.

use super::host::{Host, INSIDE_PREFIX};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the tunnel policy at both ends.
pub(super) const TUNNEL: &str = "site-to-site";

/// What `ours` is to be told about `theirs`.
pub(super) fn text(ours: &Host, theirs: &Host, key: &str) -> String {
    let mut out = String::new();
    let (us, them) = (network(ours), network(theirs));
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"# Host {name} of the demo. Objects and words are those of ipsec_config(1M).

[startup]
auditlvl = "informative"

# What is to be protected: everything between the two inside networks.
[[host]]
name = "inside"
source = "{us}"         # always this side
destination = "{them}"
tunnel = "{TUNNEL}"

# How: ESP in tunnel mode between the two hosts.
[[tunnel]]
name = "{TUNNEL}"
tsource = "{our_end}"
tdestination = "{their_end}"
source = "{us}"
destination = "{them}"
action = ["aes128gcm16-modp2048", "aes128-sha1-modp2048/28800/0"]

# The negotiation with the other host.
[[ike]]
name = "{peer}"
remote = "{their_end}"
auth = "PSK"
proposals = ["aes128-sha256-modp2048"]

# Who the other host is: whoever knows this key.
[[auth]]
name = "{peer}"
remote = "{their_end}"
preshared = "0x{key}"
"#,
        name = ours.name,
        our_end = ours.outside,
        their_end = theirs.outside,
        peer = theirs.name,
    );
    out
}

/// The protected network of a host.
pub(super) fn network(host: &Host) -> String {
    let [a, b, c, _] = host.inside.octets();
    format!("{a}.{b}.{c}.0/{INSIDE_PREFIX}")
}

/// Writes a file that holds a key: only its owner may read it.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// A pre-shared key that nobody else has: 32 random octets.
pub(super) fn new_key() -> io::Result<String> {
    let mut octets = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    }))
}
