//! What extended authentication stands on: the files of users, and our own users' passwords.

use crate::credentials::{diagnostic, octets};
use crypto::Secret;
use keys::Users;
use policy::config::{Config, Diagnostic, PasswordSource, Severity, Xauth};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Octets of the longest file of users.
const LONGEST: u64 = 16 << 20;
/// Octets of the longest password.
const LONGEST_PASSWORD: usize = 255;

/// Users and passwords, by the names of authentication records.
#[derive(Debug, Default)]
pub struct UserStore {
    users: HashMap<String, Arc<Users>>,
    passwords: HashMap<String, Secret>,
}

impl UserStore {
    /// Who may come in by a record.
    #[must_use]
    pub fn users(&self, auth_record: &str) -> Option<&Arc<Users>> {
        self.users.get(auth_record)
    }

    /// The password of our user to the peers of a record.
    #[must_use]
    pub fn password(&self, auth_record: &str) -> Option<Secret> {
        self.passwords.get(auth_record).cloned()
    }
}

/// Reads the files that the records of `config` name. What is wrong is in the diagnostics; `file`
/// is the configuration's, for them.
#[must_use]
pub fn load(config: &Config, file: &str) -> (UserStore, Vec<Diagnostic>) {
    let mut store = UserStore::default();
    let mut found = Vec::new();
    for auth in &config.auths {
        let faults = match &auth.xauth {
            None => continue,
            Some(Xauth::Server { users, .. }) => match read_users(users) {
                Ok(users) => {
                    store.users.insert(auth.name.clone(), Arc::new(users));
                    continue;
                }
                Err(faults) => faults,
            },
            Some(Xauth::Client { password, .. }) => match read_password(password) {
                Ok(password) => {
                    store.passwords.insert(auth.name.clone(), password);
                    continue;
                }
                Err(fault) => vec![fault],
            },
        };
        found.extend(faults.into_iter().map(|fault| diagnostic(file, auth, Severity::Error, fault)));
    }
    (store, found)
}

fn read_users(path: &Path) -> Result<Users, Vec<String>> {
    let named = |fault: String| format!("`users` {}: {fault}", path.display());
    let octets = octets(path, LONGEST, Some("what is kept of passwords")).map_err(|fault| vec![named(fault)])?;
    let text = core::str::from_utf8(octets.expose()).map_err(|_| vec![named("it is not text in UTF-8".to_owned())])?;
    Users::parse(text).map_err(|faults| faults.into_iter().map(named).collect())
}

/// The password of our user: what the configuration says, or the first line of the file.
fn read_password(source: &PasswordSource) -> Result<Secret, String> {
    let path = match source {
        PasswordSource::Given(password) => return Ok(password.clone()),
        PasswordSource::File(path) => path,
    };
    let named = |fault: String| format!("`password_file` {}: {fault}", path.display());
    let octets = octets(path, 4096, Some("a password")).map_err(named)?;
    let line = octets.expose().split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.len() > LONGEST_PASSWORD {
        return Err(named(format!("its first line is empty or too long; expected 1 to {LONGEST_PASSWORD} octets")));
    }
    Ok(Secret::copy_of(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_line_is_the_password() {
        for text in [&b"wonderland"[..], b"wonderland\n", b"wonderland\r\nmore\n"] {
            let file = file(text, 0o600);
            let read = read_password(&PasswordSource::File(file.path().to_owned()));
            assert_eq!(read.unwrap(), Secret::copy_of(b"wonderland"));
        }
        for (text, mode, words) in [
            (&b"\nx"[..], 0o600, "its first line is empty"),
            (&[b'a'; 300], 0o600, "too long"),
            (b"x", 0o644, "it holds a password, and others can open or change it (mode 0644); chmod 600 it"),
        ] {
            let file = file(text, mode);
            let fault = read_password(&PasswordSource::File(file.path().to_owned())).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn users_are_read_only_from_a_closed_file() {
        let faults = |text: &[u8], mode| read_users(file(text, mode).path()).unwrap_err().join("\n");
        assert!(faults(b"", 0o604).contains("it holds what is kept of passwords, and others can open"));
        assert!(faults(b"", 0o600).contains("it has no user"));
        assert!(faults(&[0xff], 0o600).contains("it is not text"));
        assert!(read_users(Path::new("/nowhere/users")).unwrap_err()[0].contains("cannot read it"));
    }
}
