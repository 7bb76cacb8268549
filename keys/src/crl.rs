//! Certificate revocation lists: read once, from a file or from where somebody fetched them.

use crate::certificate::{Certificate, name_text};
use core::fmt;
use std::sync::Arc;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// A CRL. That its issuer signed it is seen when it is asked about a certificate, whose issuer's key is known then.
#[derive(Debug)]
pub(crate) struct Crl {
    list: CertRevocationList<'static>,
    issuer: Vec<u8>,
    issued: i64,
    next: i64,
}

impl Crl {
    /// Reads DER.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|e| format!("it is no CRL ({e})"))?;
        let issued = parsed.last_update().timestamp();
        let next = parsed.next_update().map(|t| t.timestamp()).ok_or("it does not say when the next is due")?;
        let list = OwnedCertRevocationList::from_der(der).map_err(|e| format!("it cannot be used: {e:?}"))?;
        Ok(Self { list: list.into(), issuer: parsed.issuer().as_raw().to_vec(), issued, next })
    }

    /// Its issuer's name, encoded.
    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its issuer's name, for messages.
    pub(crate) fn issuer_name(&self) -> String {
        name_text(&self.issuer)
    }

    /// When it was issued, in seconds since 1970.
    pub(crate) fn issued(&self) -> i64 {
        self.issued
    }

    /// When the next is due, in seconds since 1970.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// As webpki takes it.
    pub(crate) fn list(&self) -> &CertRevocationList<'static> {
        &self.list
    }

    /// Whether the certificate with this number is on it.
    pub(crate) fn lists(&self, serial: &[u8]) -> bool {
        self.list.find_serial(serial).is_ok_and(|found| found.is_some())
    }
}

/// A CRL of which it has been seen that an authority signed it: what came from a network is nothing else before.
#[derive(Debug)]
pub struct ProvenCrl {
    crl: Crl,
    /// subjectPublicKeyInfo of that authority.
    key: Vec<u8>,
}

/// Why a list is not a [`ProvenCrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// It cannot be read; what is wrong, as a clause.
    Malformed(String),
    /// No certificate of the authority that it names is known, so nothing can be said of its signature.
    UnknownIssuer {
        /// The authority's name.
        issuer: String,
    },
    /// The authority that it names did not make it, or may not.
    Forged {
        /// The authority's name.
        issuer: String,
        /// How that is seen, as a clause.
        reason: String,
    },
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "of what came, {what}"),
            Self::UnknownIssuer { issuer } => write!(
                f,
                "what came is a list of \"{issuer}\", of which no certificate is known here, so that its signature \
                 cannot be checked"
            ),
            Self::Forged { issuer, reason } => {
                write!(f, "what came names \"{issuer}\" as its issuer, and cannot be believed: {reason}")
            }
        }
    }
}

impl ProvenCrl {
    /// Reads DER, and verifies the signature (RFC 5280 6.3.3 f, g) with the key of that one of `issuers` whose name it has.
    /// These must be certificates of authorities that are believed for other reasons; their dates are not looked at.
    ///
    /// # Errors
    /// Why it is not to be used.
    pub fn prove<'a>(der: &[u8], issuers: impl IntoIterator<Item = &'a Arc<Certificate>>) -> Result<Self, Unproven> {
        let crl = Crl::parse(der).map_err(Unproven::Malformed)?;
        let mut unproven = Unproven::UnknownIssuer { issuer: crl.issuer_name() };
        for certificate in issuers.into_iter().filter(|c| c.is_named(crl.issuer())) {
            match verify(der, certificate) {
                Ok(()) => return Ok(Self { key: certificate.key_info().to_vec(), crl }),
                // Of an authority with several keys, that of the last is said.
                Err(reason) => unproven = Unproven::Forged { issuer: crl.issuer_name(), reason },
            }
        }
        Err(unproven)
    }

    /// Whether this is the authority that signed it, by name and key.
    #[must_use]
    pub fn is_by(&self, authority: &Certificate) -> bool {
        authority.is_named(self.crl.issuer()) && authority.key_info() == self.key
    }

    /// Whether it names this authority as its issuer, and another key than this one's signed it.
    #[must_use]
    pub fn is_by_namesake(&self, authority: &Certificate) -> bool {
        authority.is_named(self.crl.issuer()) && authority.key_info() != self.key
    }

    /// Whether the same key signed both.
    #[must_use]
    pub fn is_by_the_same(&self, other: &Self) -> bool {
        (self.crl.issuer(), &self.key) == (other.crl.issuer(), &other.key)
    }

    /// Its issuer's name, for messages.
    #[must_use]
    pub fn issuer_name(&self) -> String {
        self.crl.issuer_name()
    }

    /// When it was issued, in seconds since 1970.
    #[must_use]
    pub fn issued(&self) -> i64 {
        self.crl.issued()
    }

    /// When the next is due, in seconds since 1970.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.crl.next()
    }

    pub(crate) fn crl(&self) -> &Crl {
        &self.crl
    }
}

/// Whether the key of `authority` signed the list, and may: by the algorithms that webpki takes for certificates too.
fn verify(der: &[u8], authority: &Certificate) -> Result<(), String> {
    if !authority.is_authority {
        return Err("its issuer's certificate is no authority's (basicConstraints)".to_owned());
    }
    if authority.signs_crls == Some(false) {
        return Err(
            "its issuer's certificate may not sign lists (keyUsage without cRLSign, RFC 5280 4.2.1.3)".to_owned()
        );
    }
    let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|e| format!("it is no CRL ({e})"))?;
    let strange = || "its signature is by an algorithm or a kind of key that is not accepted".to_owned();
    let signed_by = list_algorithm(der).ok_or_else(strange)?;
    let key = algorithm(authority.key_info()).ok_or_else(strange)?;
    let mut known = webpki::ALL_VERIFICATION_ALGS.iter().filter(|a| *a.signature_alg_id() == *signed_by).peekable();
    if known.peek().is_none() {
        return Err(strange());
    }
    let row = known.find(|a| *a.public_key_alg_id() == *key).ok_or_else(strange)?;
    let tbs: &[u8] = parsed.tbs_cert_list.as_ref();
    row.verify_signature(authority.public_key(), tbs, &parsed.signature_value.data)
        .map_err(|_| "the signature is not of its issuer's key".to_owned())
}

/// Content of the AlgorithmIdentifier that a sequence begins with: subjectPublicKeyInfo.
fn algorithm(der: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Any::from_der(der).ok()?;
    next_content(outer.data)
}

/// Content of the AlgorithmIdentifier after the tbsCertList of a CRL.
fn list_algorithm(der: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Any::from_der(der).ok()?;
    let (after, _) = Any::from_der(outer.data).ok()?;
    next_content(after)
}

fn next_content(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, any)| any.data)
}
