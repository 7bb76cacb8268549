//! Certificates, keys and CRLs that a configuration names: the files, read and checked.

use crypto::Secret;
use keys::Credentials;
use keys::credentials::{File, Files};
use policy::config::{AuthRecord, CertificateFiles, Config, Diagnostic, Identity, Severity};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Octets of the longest file of certificates or keys.
const LONGEST: u64 = 1 << 20;
/// Octets of the longest CRL.
const LONGEST_CRL: u64 = 64 << 20;

/// What authentication records with certificates stand on, by their names.
#[derive(Clone, Debug, Default)]
pub struct CredentialStore(HashMap<String, Arc<Credentials>>);

impl CredentialStore {
    /// Those of the record called `auth_record`, if it has certificates.
    #[must_use]
    pub fn of(&self, auth_record: &str) -> Option<&Arc<Credentials>> {
        self.0.get(auth_record)
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// Reads the files that the records of `config` name, and puts into the records what a negotiation
/// needs of them: the authorities' names, and who we are where that is the owner of our certificate.
/// What is wrong or odd is in the diagnostics; `file` is the configuration's, for them.
pub fn load(config: &mut Config, file: &str, now: i64) -> (CredentialStore, Vec<Diagnostic>) {
    let mut store = CredentialStore::default();
    let mut found = Vec::new();
    let addresses: Vec<Vec<Identity>> = config.auths.iter().map(|auth| addresses(config, auth)).collect();
    for (auth, addresses) in config.auths.iter_mut().zip(addresses) {
        let Some(options) = auth.certificates.as_ref().filter(|_| signs(auth)) else { continue };
        let say = |severity, message| diagnostic(file, auth, severity, message);
        match read(auth, options) {
            Ok(credentials) => {
                let identities = match (&auth.local_id, auth.local_subject) {
                    (_, true) => Vec::new(),
                    (Some(identity), _) => vec![identity.clone()],
                    (None, _) => addresses,
                };
                let remarks = credentials.remarks(now, &identities);
                found.extend(remarks.into_iter().map(|remark| say(Severity::Warning, remark)));
                let record = Arc::make_mut(auth);
                record.authorities = credentials.authorities();
                if record.local_subject {
                    record.local_id = credentials.subject().map(|subject| Identity::Name(subject.clone()));
                }
                store.0.insert(record.name.clone(), Arc::new(credentials));
            }
            Err(faults) => found.extend(faults.into_iter().map(|fault| say(Severity::Error, fault))),
        }
    }
    (store, found)
}

fn signs(auth: &AuthRecord) -> bool {
    auth.methods.iter().any(|method| method.signature().is_some())
}

/// Our addresses to the peers of a record: who we are to them unless it says otherwise.
fn addresses(config: &Config, auth: &Arc<AuthRecord>) -> Vec<Identity> {
    let theirs = |peer| config.auth_record(peer).is_some_and(|record| Arc::ptr_eq(record, auth));
    let tunnels = config.tunnels.iter().filter(|tunnel| theirs(tunnel.tdestination));
    let mut addresses: Vec<_> = tunnels.map(|tunnel| Identity::Address(tunnel.tsource)).collect();
    addresses.dedup();
    addresses
}

pub(crate) fn diagnostic(file: &str, auth: &AuthRecord, severity: Severity, message: String) -> Diagnostic {
    Diagnostic {
        severity,
        file: file.to_owned(),
        line: auth.line,
        column: 1,
        object: format!("auth `{}`", auth.name),
        message,
        suggestion: None,
        excerpt: None,
        width: 1,
    }
}

fn read(auth: &AuthRecord, options: &CertificateFiles) -> Result<Credentials, Vec<String>> {
    let mut faults = Vec::new();
    let mut open = |option: &str, path: &Path, longest: u64, secret: bool| {
        octets(path, longest, secret.then_some("a private key"))
            .map_err(|what| faults.push(format!("`{option}` {}: {what}", path.display())))
            .unwrap_or_else(|()| Secret::new(Vec::new()))
    };
    // Without a file of its own the key is beside the certificate.
    let certificate =
        options.certificate.as_deref().map(|path| (path, open("certificate", path, LONGEST, options.key.is_none())));
    let key = options.key.as_deref().map(|path| (path, open("key", path, LONGEST, true)));
    let authorities: Vec<_> = options.authorities.iter().map(|p| (p, open("ca", p, LONGEST, false))).collect();
    let crls: Vec<_> = options.crls.iter().map(|p| (p, open("crl", p, LONGEST_CRL, false))).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let files = Files {
        certificate: certificate.map(|(path, octets)| File { path, octets }),
        key: key.map(|(path, octets)| File { path, octets }),
        authorities: authorities.into_iter().map(|(path, octets)| File { path, octets }).collect(),
        crls: crls.into_iter().map(|(path, octets)| File { path, octets }).collect(),
    };
    Credentials::new(auth, options, files)
}

/// A whole file; one that holds a secret, which is named, must be closed to others.
pub(crate) fn octets(path: &Path, longest: u64, secret: Option<&str>) -> Result<Secret, String> {
    let unreadable = |e: io::Error| format!("cannot read it: {e}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mode = metadata.mode() & 0o777;
    // A group that may read it is a common way to share a key among services.
    if let Some(what) = secret.filter(|_| mode & 0o027 != 0) {
        return Err(format!("it holds {what}, and others can open or change it (mode {mode:04o}); chmod 600 it"));
    }
    if metadata.len() > longest {
        return Err(format!("it has {} octets; expected at most {longest}", metadata.len()));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut octets = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    let read = file.take(longest + 1).read_to_end(&mut octets).map_err(unreadable);
    let octets = Secret::new(octets);
    if read? as u64 > longest {
        return Err(format!("it has more than {longest} octets"));
    }
    Ok(octets)
}
