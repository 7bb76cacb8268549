//! Keys for Wireshark: a debugging aid, off unless the configuration names a directory.
//!
//! Two files that Wireshark and tshark read from their configuration directory:
//! `esp_sa` and `ikev1_decryption_table`. They hold secrets and are made with mode 0600.

use crypto::Secret;
use policy::five_tuple::Direction;
use policy::sa::{SaProtocol, SaSpec};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Appends keys as they are negotiated.
#[derive(Debug)]
pub(super) struct KeyExport {
    directory: PathBuf,
}

impl KeyExport {
    /// Makes the directory if need be.
    pub(super) fn to(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_path_buf() })
    }

    /// Writes one SA as a line of `esp_sa`; as a comment if Wireshark does not know its
    /// algorithm, since it would refuse the whole file.
    pub(super) fn esp_sa(&self, sa: &SaSpec) -> io::Result<()> {
        // Wireshark reads AH without a key, and checks no ICV.
        if sa.protocol == SaProtocol::Ah {
            return Ok(());
        }
        let (source, destination) = match sa.direction {
            Direction::Outbound => (sa.local, sa.remote),
            Direction::Inbound => (sa.remote, sa.local),
        };
        let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
        let (encryption, integrity) =
            sa.keymat.expose().split_at(sa.suite.encryption.keymat_len().min(sa.keymat.len()));
        let unknown = match sa.suite.encryption {
            row if row.wireshark.is_empty() => format!("# Wireshark has no {row}: "),
            _ => String::new(),
        };
        let line = format!(
            "{unknown}\"{family}\",\"{source}\",\"{destination}\",\"0x{:08x}\",\"{}\",\"{}\",\"{}\",\"{}\"\n",
            sa.spi,
            sa.suite.encryption.wireshark,
            hexadecimal(encryption),
            sa.suite.integrity.map_or("NULL", |i| i.wireshark),
            hexadecimal(integrity),
        );
        self.append("esp_sa", line)
    }

    /// Writes the key of an ISAKMP SA as a line of `ikev1_decryption_table`.
    pub(super) fn isakmp(&self, initiator_cookie: [u8; 8], key: &Secret) -> io::Result<()> {
        let cookie = hexadecimal(&initiator_cookie);
        let key = hexadecimal(key.expose());
        let line = format!("{},{}\n", cookie.trim_start_matches("0x"), key.trim_start_matches("0x"));
        self.append("ikev1_decryption_table", line)
    }

    fn append(&self, name: &str, line: String) -> io::Result<()> {
        let line = Secret::new(line.into_bytes());
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.directory.join(name))?
            .write_all(line.expose())
    }
}

/// `0x0a0b`; nothing for no octets, as Wireshark writes it.
fn hexadecimal(octets: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(2 + 2 * octets.len());
    if !octets.is_empty() {
        out.push_str("0x");
    }
    for b in octets {
        // Writing to a string cannot fail.
        let _ = write!(out, "{b:02x}");
    }
    out
}
