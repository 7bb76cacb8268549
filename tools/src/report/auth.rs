//! Authentication records: who we are to a peer, who it must be, and how either proves it.

use crate::report::from_model::listed;
use crate::revocation::CrlStatus;
use crate::wall_clock::Date;
use keys::Credentials;
use policy::config::{AuthRecord, CertificateFiles, RevocationPolicy, Xauth};
use policy::trust::CertificateName;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// What tells one certificate from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Distinguished name of its owner.
    pub subject: String,
    /// Its number, hexadecimal.
    pub serial: String,
    /// Distinguished name of who issued it.
    pub issuer: String,
}

/// Our certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCertificate {
    /// Which it is.
    #[serde(flatten)]
    pub name: CertificateReport,
    /// From when on it is valid, UTC, RFC 3339.
    pub not_before: String,
    /// Until when, UTC, RFC 3339.
    pub not_after: String,
    /// The file.
    pub file: String,
}

/// A CRL that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedCrl {
    /// From where.
    pub url: String,
    /// Distinguished name of its issuer; absent: it never could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Until when it is in force, UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_update: Option<String>,
    /// Why the last attempt to fetch it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An authentication record. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthReport {
    /// Name.
    pub name: String,
    /// Peers it is for.
    pub remote: String,
    /// How both sides may prove who they are, the most preferred first: `RSASIG, PSK`.
    pub authentication_method: String,
    /// Whether there is a pre-shared key.
    pub preshared: bool,
    /// Who we say we are; absent: our address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_id: Option<String>,
    /// Who the peer must be; absent: its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// Our certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<OwnCertificate>,
    /// Distinguished names of the authorities that are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
    /// `strict` or `relaxed`, with certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_policy: Option<String>,
    /// `client` or `server`, and with what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xauth: Option<String>,
    /// CRLs that are fetched for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetched_crls: Vec<FetchedCrl>,
    /// Line of the configuration file.
    pub line: usize,
}

impl From<&CertificateName> for CertificateReport {
    fn from(name: &CertificateName) -> Self {
        Self { subject: name.subject.clone(), serial: name.serial.clone(), issuer: name.issuer.clone() }
    }
}

impl AuthReport {
    /// A record, what its files hold once they are read, and what is known of fetched CRLs.
    #[must_use]
    pub fn new(record: &AuthRecord, credentials: Option<&Credentials>, crls: &[CrlStatus]) -> Self {
        let file = record.certificates.as_ref().and_then(|files| files.certificate.as_ref());
        let certificate = file.zip(credentials.and_then(Credentials::certificate)).map(|(file, own)| OwnCertificate {
            name: own.name().into(),
            not_before: date(own.not_before()),
            not_after: date(own.not_after()),
            file: file.display().to_string(),
        });
        Self {
            name: record.name.clone(),
            remote: record.remote.to_string(),
            authentication_method: listed(&record.methods),
            preshared: record.preshared.is_some(),
            local_id: record.local_id.as_ref().map(ToString::to_string),
            remote_id: record.remote_id.as_ref().map(ToString::to_string),
            certificate,
            authorities: credentials.map(Credentials::authority_names).unwrap_or_default(),
            crl_policy: record.certificates.as_ref().map(|files| crl_policy(files.crl_policy).to_owned()),
            xauth: record.xauth.as_ref().map(xauth),
            fetched_crls: record.certificates.as_ref().map(|files| fetched(files, crls)).unwrap_or_default(),
            line: record.line,
        }
    }
}

/// Who says who his user is, to whom.
#[must_use]
pub fn xauth(xauth: &Xauth) -> String {
    match xauth {
        Xauth::Client { user, .. } => format!("client, user {user}"),
        Xauth::Server { users, tries } => format!("server, users of {}, {tries} tries", users.display()),
    }
}

/// The CRLs that a record has fetched: those that it names, and with `crl_fetch` all.
fn fetched(files: &CertificateFiles, crls: &[CrlStatus]) -> Vec<FetchedCrl> {
    let of_record = |crl: &&CrlStatus| files.crl_fetch || files.crl_urls.contains(&crl.url);
    let report = |crl: &CrlStatus| FetchedCrl {
        url: crl.url.clone(),
        issuer: crl.crl.as_ref().map(|(issuer, _)| issuer.clone()),
        next_update: crl.crl.as_ref().map(|(_, next)| date(*next)),
        error: crl.error.clone(),
    };
    crls.iter().filter(of_record).map(report).collect()
}

/// The word of the configuration.
#[must_use]
pub const fn crl_policy(policy: RevocationPolicy) -> &'static str {
    match policy {
        RevocationPolicy::Strict => "strict",
        RevocationPolicy::Relaxed => "relaxed",
    }
}

/// Seconds since 1970; certificates of before then are shown as of then.
fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Date::of(SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)).rfc3339()
}
