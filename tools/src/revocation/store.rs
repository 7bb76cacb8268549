//! Fetched CRLs on disk: a file for each URL, written at once or not at all.

use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

/// Files that are kept; the oldest goes when there are more.
const MOST_FILES: usize = 64;
/// Octets that are read of one.
const LONGEST: u64 = 10 << 20;

/// The directory.
#[derive(Debug)]
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn path(&self, url: &str) -> PathBuf {
        let name: String = Sha256::digest(url.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect();
        self.0.join(format!("{name}.crl"))
    }

    /// Where they are.
    #[cfg(test)]
    pub(super) fn directory(&self) -> &std::path::Path {
        &self.0
    }

    /// What was kept of a URL, if anything.
    pub(super) fn read(&self, url: &str) -> Option<Vec<u8>> {
        let file = OpenOptions::new().read(true).custom_flags(no_links()).open(self.path(url)).ok()?;
        let mut octets = Vec::new();
        file.take(LONGEST).read_to_end(&mut octets).ok()?;
        Some(octets)
    }

    /// Keeps what came from a URL.
    pub(super) fn write(&self, url: &str, octets: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let path = self.path(url);
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(octets)?;
        // Whole before it is there, also after the machine has stopped.
        file.sync_all()?;
        fs::rename(&new, &path)?;
        self.prune()
    }

    /// Deletes the oldest files.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "crl") {
                files.push((entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(MOST_FILES);
        files.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// A link in the directory is not followed: only we write there.
fn no_links() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}
