//! What stands for certificates, private keys, and the clock that certificates are judged by.

use policy::config::IdentityPattern;
use policy::trust::{CertificateName, Claim, Distrust, Refusal, Trusted};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// What certificates are valid for, in days of the clock on the wall, which begins at 0.
const VALID: std::ops::Range<i64> = -30..30;

/// A host's certificate, and its signature of `hash`.
#[must_use]
pub(crate) fn signed(host: IpAddr, hash: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let name = host.to_string();
    let signature = signature(&name, hash);
    (vec![name.into_bytes()], signature)
}

/// Stands for a signature that only the owner of the certificate can make.
fn signature(name: &str, hash: &[u8]) -> Vec<u8> {
    let word = |n: u8| {
        let mut hasher = DefaultHasher::new();
        (n, name, hash).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    (0..8).flat_map(word).collect()
}

/// Whether a host whose clock on the wall shows `today` believes its peer; `distrusts`: it does not know the authority.
pub(crate) fn judged(
    (today, distrusts): (i64, bool),
    hash: &[u8],
    signed: &[u8],
    claim: &Claim,
    certificates: &[Vec<u8>],
    expected: &IdentityPattern,
) -> Result<Trusted, Refusal> {
    let refused = |distrust| {
        Err(Refusal { distrust, certificate: None, detail: format!("{distrust}"), remedy: "look at it".into() })
    };
    let Some(name) = certificates.first().and_then(|c| std::str::from_utf8(c).ok()) else {
        return refused(Distrust::NoCertificate);
    };
    if distrusts {
        return refused(Distrust::UnknownAuthority);
    }
    if !VALID.contains(&today) {
        return refused(if today < VALID.start { Distrust::NotYetValid } else { Distrust::Expired });
    }
    if signed != signature(name, hash) {
        return refused(Distrust::BadSignature);
    }
    match claim {
        Claim::Identity(identity) if identity.to_string() != name => refused(Distrust::IdentityNotCertified),
        Claim::Identity(identity) if !expected.matches(identity) => refused(Distrust::WrongIdentity),
        Claim::Identity(identity) => Ok(Trusted {
            identity: identity.clone(),
            certificate: CertificateName { subject: name.into(), serial: "01".into(), issuer: "CA".into() },
            remarks: Vec::new(),
        }),
        Claim::EncodedName(_) => refused(Distrust::IdentityNotCertified),
    }
}
