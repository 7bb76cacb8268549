//! Audit files: `audit<date>.log`, one after the other.

use super::Destination;
use crate::wall_clock::Date;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that is being written, and where the next one will be.
#[derive(Debug)]
pub(super) struct AuditFile {
    dir: PathBuf,
    max_bytes: u64,
    current: File,
    size: u64,
}

impl AuditFile {
    /// Goes on with the newest file of `dir` if it has room, else begins one. Makes the directory.
    pub(super) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let newest = newest(dir)?;
        let with_room = match newest {
            Some(path) if fs::symlink_metadata(&path)?.is_file() => {
                let file = File::options().append(true).open(path)?;
                let size = file.metadata()?.len();
                (size < max_bytes).then_some((file, size))
            }
            _ => None,
        };
        let (current, size) = match with_room {
            Some(found) => found,
            None => (create(dir, &Date::now())?, 0),
        };
        Ok(Self { dir: dir.to_path_buf(), max_bytes, current, size })
    }
}

impl Destination for AuditFile {
    fn write(&mut self, entries: &str) -> io::Result<()> {
        // A file that somebody removed is as good as full.
        let removed = self.current.metadata()?.nlink() == 0;
        if removed || (self.size > 0 && self.size + entries.len() as u64 > self.max_bytes) {
            self.current = create(&self.dir, &Date::now())?;
            self.size = 0;
        }
        match self.current.write_all(entries.as_bytes()) {
            Ok(()) => {
                self.size += entries.len() as u64;
                Ok(())
            }
            Err(e) => {
                // No half entries: what was written of them is taken back.
                let _ = self.current.set_len(self.size);
                Err(e)
            }
        }
    }
}

/// The last audit file in the order of names, which is that of time.
fn newest(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with("audit") && n.ends_with(".log"));
        if ours && newest.as_ref().is_none_or(|n| *n < name) {
            newest = Some(name);
        }
    }
    Ok(newest.map(|name| dir.join(name)))
}

/// A new file; several of one second are numbered, after a mark that sorts behind the dot.
fn create(dir: &Path, date: &Date) -> io::Result<File> {
    let mut number = 0u32;
    loop {
        let suffix = if number == 0 { String::new() } else { format!("_{number:04}") };
        let path = dir.join(format!("audit{}{suffix}.log", date.file_name()));
        match File::options().append(true).create_new(true).mode(0o600).open(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < 9999 => number += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn files(dir: &Path) -> Vec<(String, u64)> {
        let mut out: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()))
            .collect();
        out.sort();
        out
    }

    #[test]
    fn a_full_file_is_followed_by_another_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("made/on/the/way");
        let mut log = AuditFile::open(&sub, 100).unwrap();
        for _ in 0..7 {
            log.write(&"x".repeat(40)).unwrap();
        }
        let sizes: Vec<_> = files(&sub).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [80, 80, 80, 40]);
        let mode = fs::metadata(sub.join(&files(&sub)[0].0)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_entry_longer_than_a_file_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = AuditFile::open(dir.path(), 100).unwrap();
        log.write(&"x".repeat(400)).unwrap();
        log.write("y").unwrap();
        let sizes: Vec<_> = files(dir.path()).into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, [400, 1]);
    }

    #[test]
    fn a_restart_goes_on_with_the_newest_file() {
        let dir = tempfile::tempdir().unwrap();
        AuditFile::open(dir.path(), 100).unwrap().write(&"x".repeat(60)).unwrap();
        AuditFile::open(dir.path(), 100).unwrap().write(&"x".repeat(40)).unwrap();
        assert_eq!(files(dir.path()).len(), 1);
        AuditFile::open(dir.path(), 100).unwrap().write("x").unwrap();
        assert_eq!(files(dir.path()).len(), 2);
    }

    #[test]
    fn a_removed_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = AuditFile::open(dir.path(), 1000).unwrap();
        log.write("one").unwrap();
        fs::remove_file(dir.path().join(&files(dir.path())[0].0)).unwrap();
        log.write("two").unwrap();
        assert_eq!(files(dir.path()).iter().map(|(_, size)| *size).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_directory_that_is_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(AuditFile::open(&path, 100).is_err());
    }
}
