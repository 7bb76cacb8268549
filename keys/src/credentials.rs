//! What an authentication record stands on: our certificate and key, and whom we
//! believe; made of files whose octets the caller has read.

use crate::certificate::{Certificate, parse_name};
use crate::crl::ProvenCrl;
use crate::date::date;
use crate::encoding::{self, Contents};
use crate::validation::{MissingCrl, Source, Trust, refusal};
use crypto::Secret;
use crypto::table::{Signature, SigningKey};
use policy::config::{AuthMethod, AuthRecord, CertificateFiles};
use policy::identity::{DistinguishedName, Identity};
use policy::trust::{Claim, Distrust, Refusal, Trusted};
use std::path::Path;
use std::sync::Arc;

/// Seconds before its end from which on a certificate is warned of: 30 days.
const WARNING: i64 = 30 * 86_400;
/// Certificates of a peer that are looked at.
const MOST_CERTIFICATES: usize = 16;

/// A file's octets; wiped, as there may be a key in them.
#[derive(Debug)]
pub struct File<'a> {
    /// Where it was, for messages.
    pub path: &'a Path,
    /// What was in it.
    pub octets: Secret,
}

/// The files of a record.
#[derive(Debug)]
pub struct Files<'a> {
    /// `certificate`; none where only the peer signs.
    pub certificate: Option<File<'a>>,
    /// `key`.
    pub key: Option<File<'a>>,
    /// `ca`.
    pub authorities: Vec<File<'a>>,
    /// `crl`.
    pub crls: Vec<File<'a>>,
}

/// Our certificate and key, and whom we believe.
pub struct Credentials {
    record: String,
    /// None where only the peer signs.
    own: Option<Own>,
    trust: Trust,
}

/// Our certificate, with those between it and the authority behind it, and its key.
struct Own {
    chain: Vec<Certificate>,
    method: &'static Signature,
    key: Box<dyn SigningKey>,
}

/// Our answer to a peer that wants to know who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Our certificate and those between it and the authority, DER.
    pub certificates: Vec<Vec<u8>>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// What a peer says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// How it signed.
    pub method: &'static Signature,
    /// HASH_I or HASH_R.
    pub hash: &'a [u8],
    /// The signature over it.
    pub signature: &'a [u8],
    /// Who it says it is.
    pub claim: &'a Claim,
    /// Its certificates, DER.
    pub certificates: &'a [Vec<u8>],
    /// Who it must be.
    pub expected: &'a policy::identity::IdentityPattern,
}

impl core::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let own = self.certificate().map_or("no certificate".to_owned(), |own| own.name().to_string());
        write!(f, "Credentials({}, {own})", self.record)
    }
}

impl Credentials {
    /// Puts the files of a record together. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Everything that keeps the record from being used, each with the file it is about.
    pub fn new(record: &AuthRecord, options: &CertificateFiles, files: Files<'_>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let passphrase = options.passphrase.as_ref();
        let mut read = |file: &File<'_>, what: &str, passphrase: Option<&Secret>| {
            encoding::read(file.octets.expose(), passphrase).unwrap_or_else(|e| {
                faults.push(format!("`{what}` {} {e}", file.path.display()));
                Contents::default()
            })
        };
        let own = files.certificate.as_ref().map(|file| (file.path, read(file, "certificate", passphrase)));
        let key = files.key.as_ref().map(|file| (file.path, read(file, "key", passphrase)));
        let authorities: Vec<_> =
            files.authorities.iter().map(|f| (f.path, read(f, "ca", None).certificates)).collect();
        let crls: Vec<_> = files.crls.iter().map(|f| (f.path, read(f, "crl", None).crls)).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let own = own.as_ref().map(|(path, contents)| {
            let (key_path, keys) = key.as_ref().map_or((*path, &contents.keys), |(path, key)| (*path, &key.keys));
            own_chain(&contents.certificates, path).and_then(|chain| with_key(record, chain, path, keys, key_path))
        });
        let subject = || Err("there is no `certificate`, of whose owner `ltype` speaks; expected `lid`".to_owned());
        let own = if own.is_none() && record.local_subject { subject() } else { own.transpose() };
        let trust = trust(&authorities, &crls, options);
        match (own, trust) {
            (Ok(own), Ok(trust)) => Ok(Self { record: record.name.clone(), own, trust }),
            (own, trust) => Err(own.err().into_iter().chain(trust.err()).collect()),
        }
    }

    /// What works but should be known, at `now` (seconds since 1970): certificates that end soon, CRLs
    /// that are out of date, an identity that our certificate does not hold.
    #[must_use]
    pub fn remarks(&self, now: i64, identities: &[Identity]) -> Vec<String> {
        let mut remarks = Vec::new();
        let ours = self.chain().iter().map(|c| (c, "peers refuse it"));
        let theirs = self.trust.authorities().map(|c| (c, "nothing that it issued is believed"));
        for (certificate, consequence) in ours.chain(theirs) {
            let name = certificate.name();
            if certificate.not_before > now {
                remarks.push(format!(
                    "{name} is not valid before {}: until then {consequence}",
                    date(certificate.not_before)
                ));
            } else if certificate.not_after < now {
                remarks.push(format!("{name} expired on {}: {consequence}", date(certificate.not_after)));
            } else if certificate.not_after < now + WARNING {
                let days = (certificate.not_after - now) / 86_400;
                remarks.push(format!(
                    "{name} expires in {days} days, on {}: then {consequence}",
                    date(certificate.not_after)
                ));
            }
        }
        for (issuer, due) in self.trust.overdue(now) {
            remarks.push(format!("the CRL of \"{issuer}\" should have been replaced on {due}"));
        }
        if let Some(own) = self.certificate() {
            for identity in identities.iter().filter(|identity| !own.certifies(identity)) {
                remarks.push(format!(
                    "{} is not for our identity {identity}, so peers will not believe it; it is for {}",
                    own.name(),
                    own.identities()
                ));
            }
        }
        remarks
    }

    /// The owner of our certificate.
    #[must_use]
    pub fn subject(&self) -> Option<&DistinguishedName> {
        self.certificate().map(Certificate::subject)
    }

    /// Our certificate, if we have one.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.chain().first()
    }

    /// Our certificate and those between it and the authority.
    fn chain(&self) -> &[Certificate] {
        self.own.as_ref().map_or(&[], |own| &own.chain)
    }

    /// Names of the authorities that we believe, for reports.
    #[must_use]
    pub fn authority_names(&self) -> Vec<String> {
        self.trust.authorities().map(|authority| authority.name().subject.clone()).collect()
    }

    /// Encoded names of the authorities that we believe, for certificate requests.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.trust.authorities().map(|authority| authority.subject().der().to_vec()).collect()
    }

    /// Certificates of authorities that are known without any peer: those that we believe, and those between them and
    /// our own certificate. A CRL that one of them signed is a true one.
    #[must_use]
    pub fn list_issuers(&self) -> Vec<Arc<Certificate>> {
        let between = self.chain().iter().skip(1).filter(|c| c.is_authority);
        self.trust.authorities().chain(between).map(|c| Arc::new(c.clone())).collect()
    }

    /// Signs a hash.
    ///
    /// # Errors
    /// Why not, as a clause.
    pub fn sign(&self, method: &'static Signature, hash: &[u8]) -> Result<Signed, String> {
        let Some(own) = &self.own else { return Err("there is no certificate of ours".to_owned()) };
        if method != own.method {
            return Err(format!("our key is for {}, and {method} was agreed", own.method));
        }
        let signature = own.key.sign(hash).map_err(|e| e.to_string())?;
        let certificates = own.chain.iter().map(|c| c.der().to_vec()).collect();
        Ok(Signed { certificates, signature })
    }

    /// Judges a peer at `now` (seconds since 1970): its signature, its certificate, its identity. CRLs of `fetched`
    /// count beside those of the files.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn judge(&self, statement: &Statement<'_>, now: i64, fetched: &[Arc<ProvenCrl>]) -> Result<Trusted, Refusal> {
        let chain = self.signer(statement)?;
        let own = &chain[0];
        let valid = self.trust.judge(&chain, now, fetched)?;
        let identity = claimed(statement.claim, own)?;
        if !own.certifies(&identity) {
            return Err(refusal(
                Distrust::IdentityNotCertified,
                Some(own),
                format!("the peer says it is {identity}, and its certificate is for {}", own.identities()),
                "set the peer's identity to one that is in its certificate, or have it issued with that subjectAltName",
            ));
        }
        if !statement.expected.matches(&identity) {
            return Err(refusal(
                Distrust::WrongIdentity,
                Some(own),
                format!("identity: we expect {}; the peer is {identity}", statement.expected),
                format!("set `rid` of auth record `{}`, or the peer's own identity", self.record),
            ));
        }
        Ok(Trusted { identity, certificate: own.name().clone(), remarks: valid.remarks })
    }

    /// The CRLs without which [`Self::judge`] cannot say whether the peer's certificates are revoked. Nothing for a
    /// peer that did not sign, or whose certificate none of our authorities issued: strangers have nothing fetched.
    #[must_use]
    pub fn missing_crls(&self, statement: &Statement<'_>, now: i64, fetched: &[Arc<ProvenCrl>]) -> Vec<MissingCrl> {
        self.signer(statement).map_or_else(|_| Vec::new(), |chain| self.trust.missing(&chain, now, fetched))
    }

    /// The peer's certificates, that of the key that signed first.
    fn signer(&self, statement: &Statement<'_>) -> Result<Vec<Certificate>, Refusal> {
        let record = &self.record;
        let mut chain = Vec::new();
        for der in statement.certificates.iter().take(MOST_CERTIFICATES) {
            match Certificate::parse(der) {
                Ok(certificate) => chain.push(certificate),
                Err(what) => {
                    let remedy = "look at the peer's certificate with openssl x509";
                    return Err(refusal(
                        Distrust::Malformed,
                        None,
                        format!("a certificate of the peer: {what}"),
                        remedy,
                    ));
                }
            }
        }
        // The peer's own comes first, but no order is promised (RFC 4945 3.3).
        if let Some(own) = chain.iter().position(|c| !c.is_authority) {
            chain.swap(0, own);
        }
        let Some(own) = chain.first() else {
            return Err(refusal(
                Distrust::NoCertificate,
                None,
                "the peer sent no certificate",
                "have the peer send its certificate always (strongSwan: send_cert = always)",
            ));
        };
        if own.method() != Some(statement.method) {
            let detail = format!("its key is of the kind {}, and {} was agreed", own.key_kind(), statement.method);
            return Err(refusal(
                Distrust::WrongAlgorithm,
                Some(own),
                detail,
                format!("align `method` of auth record `{record}` with the peer's key"),
            ));
        }
        statement.method.verify(own.public_key(), statement.hash, statement.signature).map_err(|e| {
            let distrust = match e {
                crypto::table::Error::PublicKey { .. } => Distrust::WrongAlgorithm,
                _ => Distrust::BadSignature,
            };
            let remedy = "see that the peer signs with the key of that certificate, and that nobody is in between";
            refusal(distrust, Some(own), e.to_string(), remedy)
        })?;
        Ok(chain)
    }
}

fn claimed(claim: &Claim, own: &Certificate) -> Result<Identity, Refusal> {
    match claim {
        Claim::Identity(identity) => Ok(identity.clone()),
        Claim::EncodedName(der) => parse_name(der).map(Identity::Name).map_err(|what| {
            refusal(
                Distrust::IdentityNotCertified,
                Some(own),
                format!("the peer's identity, a distinguished name: {what}"),
                "look at the peer's implementation",
            )
        }),
    }
}

/// The certificates of our file, not yet in order.
fn own_chain(certificates: &[Vec<u8>], path: &Path) -> Result<Vec<Certificate>, String> {
    if certificates.is_empty() {
        return Err(format!("`certificate` {} holds no certificate", path.display()));
    }
    let parse =
        |der: &Vec<u8>| Certificate::parse(der).map_err(|what| format!("`certificate` {}: {what}", path.display()));
    certificates.iter().map(parse).collect()
}

/// Finds the certificate that belongs to the key, and puts those between it and the authority behind it.
fn with_key(
    record: &AuthRecord,
    mut certificates: Vec<Certificate>,
    certificate_path: &Path,
    keys: &[Secret],
    key_path: &Path,
) -> Result<Own, String> {
    let key = match keys {
        [key] => key,
        [] => return Err(format!("`key`: {} holds no private key", key_path.display())),
        several => {
            return Err(format!("`key`: {} holds {} private keys; expected one", key_path.display(), several.len()));
        }
    };
    let mut last_error = None;
    let own = certificates.iter().position(|c| match c.method().map(|method| fits(method, key, c)) {
        Some(Ok(fits)) => fits,
        Some(Err(e)) => {
            last_error.get_or_insert(e);
            false
        }
        None => false,
    });
    let Some(own) = own else {
        let first = certificates[0].name();
        let why = last_error.map(|e| format!(" ({e})")).unwrap_or_default();
        return Err(format!(
            "the key in {} does not belong to the {first} in {}{why}",
            key_path.display(),
            certificate_path.display()
        ));
    };
    let own = certificates.swap_remove(own);
    let method = own.method().ok_or("its key's algorithm is not known")?;
    // Both sides sign in the same way (RFC 2409 5.1), so a method that our key cannot do would be offered in vain.
    let mut signatures = record.methods.iter().filter_map(|m: &AuthMethod| m.signature()).peekable();
    if signatures.peek().is_none() || !signatures.all(|m| m == method) {
        let named: Vec<_> = record.methods.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the {} in {} has a key for {method}, and `method` is {}",
            own.name(),
            certificate_path.display(),
            named.join(", ")
        ));
    }
    let key = method.signing_key(key.expose()).map_err(|e| format!("`key` {}: {e}", key_path.display()))?;
    let mut chain = vec![own];
    // What leads up from it, without the root, which the peer must have anyway.
    while let Some(last) = chain.last()
        && let Some(issuer) =
            certificates.iter().position(|c| c.subject().der() == last.issuer() && !c.is_self_issued())
    {
        chain.push(certificates.swap_remove(issuer));
    }
    Ok(Own { chain, method, key })
}

/// Whether a key belongs to a certificate: what it signs, the certificate verifies.
fn fits(method: &'static Signature, key: &Secret, certificate: &Certificate) -> Result<bool, String> {
    let key = method.signing_key(key.expose()).map_err(|e| e.to_string())?;
    let len = method.hash.and_then(crypto::table::Hash::from_keyword).map_or(32, |hash| hash.len);
    let probe = vec![0x5a; len];
    let signature = key.sign(&probe).map_err(|e| e.to_string())?;
    Ok(method.verify(certificate.public_key(), &probe, &signature).is_ok())
}

type FromFile<'a> = (&'a Path, Vec<Vec<u8>>);

fn trust(authorities: &[FromFile<'_>], crls: &[FromFile<'_>], options: &CertificateFiles) -> Result<Trust, String> {
    let mut parsed = Vec::new();
    let mut paths = Vec::new();
    for (path, certificates) in authorities {
        if certificates.is_empty() {
            return Err(format!("`ca` {} holds no certificate", path.display()));
        }
        for der in certificates {
            parsed.push(Certificate::parse(der).map_err(|what| format!("`ca` {}: {what}", path.display()))?);
            paths.push(path);
        }
    }
    let mut lists = Vec::new();
    let mut list_paths = Vec::new();
    for (path, crls) in crls {
        if crls.is_empty() {
            return Err(format!("`crl` {} holds no CRL", path.display()));
        }
        lists.extend(crls.iter().cloned());
        list_paths.extend(crls.iter().map(|_| path));
    }
    Trust::new(parsed, &lists, options.crl_policy).map_err(|(source, nth, what)| {
        let (key, path) = match source {
            Source::Authority => ("ca", paths.get(nth)),
            Source::Crl => ("crl", list_paths.get(nth)),
        };
        format!("`{key}` {}: {what}", path.map(|p| p.display().to_string()).unwrap_or_default())
    })
}
