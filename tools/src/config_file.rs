//! The configuration file, read and checked.

use crate::credentials::{self, CredentialStore};
use crate::user_store::{self, UserStore};
use policy::config::{AuthRecord, Checked, Config, Diagnostic, PasswordSource, Severity, Xauth};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Octets of the longest configuration file.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("cannot read configuration {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It has errors: everything found, warnings too, in the order of the file.
    #[error("the configuration has errors\n{}", listed(.0))]
    Invalid(Vec<Diagnostic>),
}

/// Reads and checks a file. What is odd but no error is in the result's warnings, among it that
/// others can read the keys in it.
pub fn read(path: &Path) -> Result<Checked, Unusable> {
    let unreadable = |reason| Unusable::Unreadable { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    let mut text = String::new();
    let octets = file.take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    if octets as u64 > LONGEST {
        let reason = format!("longer than {} megabytes", LONGEST >> 20);
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
    }
    let name = path.display().to_string();
    let mut checked = Config::parse(&text, &name).map_err(Unusable::Invalid)?;
    let passphrase = |a: &AuthRecord| a.certificates.as_ref().is_some_and(|c| c.passphrase.is_some());
    let password = |a: &AuthRecord| matches!(&a.xauth, Some(Xauth::Client { password: PasswordSource::Given(_), .. }));
    let secret = checked.config.auths.iter().any(|a| a.preshared.is_some() || passphrase(a) || password(a));
    if mode & 0o077 != 0 && secret {
        checked.warnings.insert(0, readable_keys(name, mode));
    }
    Ok(checked)
}

/// A configuration that may be used, with the files that it names.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Certificates and keys of its authentication records.
    pub credentials: CredentialStore,
    /// Users who may come in, and passwords of ours.
    pub users: UserStore,
    /// What is odd in it or in those files.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a file as [`read`], and the certificates, keys, CRLs, users and passwords that it names.
pub fn load(path: &Path) -> Result<Loaded, Unusable> {
    let Checked { mut config, mut warnings } = read(path)?;
    let (credentials, found) = credentials::load(&mut config, &path.display().to_string(), credentials::now());
    warnings.extend(found);
    let (users, found) = user_store::load(&config, &path.display().to_string());
    warnings.extend(found);
    if warnings.iter().any(|d| d.severity == Severity::Error) {
        return Err(Unusable::Invalid(warnings));
    }
    Ok(Loaded { config, credentials, users, warnings })
}

fn readable_keys(file: String, mode: u32) -> Diagnostic {
    let suggestion = Some(format!("`chmod 600 {file}`"));
    Diagnostic {
        severity: Severity::Warning,
        file,
        line: 1,
        column: 1,
        object: String::new(),
        message: format!("it holds secrets, and users other than its owner can open it (mode {mode:04o})"),
        suggestion,
        excerpt: None,
        width: 1,
    }
}

/// Diagnostics one after the other, then how many there are.
#[must_use]
pub fn listed(diagnostics: &[Diagnostic]) -> String {
    let mut text: String = diagnostics.iter().map(|d| format!("{d}\n")).collect();
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    text.push_str(&count(errors, "error"));
    text.push_str(", ");
    text.push_str(&count(diagnostics.len() - errors, "warning"));
    text
}

/// `1 error`, `2 errors`.
#[must_use]
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
