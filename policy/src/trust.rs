//! Why a peer that shows a certificate is not believed: said by who judges the
//! certificate, carried to the peer and into the audit by who negotiates.

use crate::identity::Identity;
use core::fmt;

/// What is wrong, by name: each is an audit message of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distrust {
    /// The peer sent no certificate.
    NoCertificate,
    /// It is no X.509 certificate, or one with parts that must be understood and are not.
    Malformed,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Its issuer has revoked it.
    Revoked,
    /// No valid CRL tells whether it is revoked, and the policy asks for one.
    RevocationUnknown,
    /// Its key usage or extended key usage is not for this (RFC 4945 5.1.3).
    WrongUsage,
    /// No authority that is trusted here issued it.
    UnknownAuthority,
    /// A certificate of the chain breaks a constraint: no authority, too long a path, a name not permitted,
    /// a signature that is wrong.
    BrokenChain,
    /// The key or an algorithm is too weak, or not the one that was negotiated.
    WrongAlgorithm,
    /// The peer's signature was not made by the certificate's key, or over other messages.
    BadSignature,
    /// The identity that the peer claims is not in the certificate (RFC 4945 3.1).
    IdentityNotCertified,
    /// It is who it says it is, but not who it must be.
    WrongIdentity,
    /// The daemon could not judge.
    NotJudged,
}

impl Distrust {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoCertificate,
        Self::Malformed,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::RevocationUnknown,
        Self::WrongUsage,
        Self::UnknownAuthority,
        Self::BrokenChain,
        Self::WrongAlgorithm,
        Self::BadSignature,
        Self::IdentityNotCertified,
        Self::WrongIdentity,
        Self::NotJudged,
    ];
}

/// The words of the audit message.
impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "no certificate",
            Self::Malformed => "malformed certificate",
            Self::Expired => "certificate expired",
            Self::NotYetValid => "certificate not yet valid",
            Self::Revoked => "certificate revoked",
            Self::RevocationUnknown => "revocation status unknown",
            Self::WrongUsage => "wrong key usage",
            Self::UnknownAuthority => "unknown certificate authority",
            Self::BrokenChain => "broken certificate chain",
            Self::WrongAlgorithm => "unacceptable key or algorithm",
            Self::BadSignature => "bad signature",
            Self::IdentityNotCertified => "identity not in the certificate",
            Self::WrongIdentity => "wrong identity",
            Self::NotJudged => "certificate not judged",
        })
    }
}

/// What tells one certificate from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName {
    /// Distinguished name of its owner.
    pub subject: String,
    /// Its number, hexadecimal.
    pub serial: String,
    /// Distinguished name of who issued it.
    pub issuer: String,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate of \"{}\", serial 0x{}, issuer \"{}\"", self.subject, self.serial, self.issuer)
    }
}

/// A peer is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub distrust: Distrust,
    /// The certificate in question, if it could be read.
    pub certificate: Option<Box<CertificateName>>,
    /// The reason, as a clause, with both sides' values where there are two.
    pub detail: String,
    /// What to change or to look at.
    pub remedy: String,
}

impl Refusal {
    /// The certificate and the reason.
    #[must_use]
    pub fn explanation(&self) -> String {
        match &self.certificate {
            Some(certificate) => format!("{certificate}: {}", self.detail),
            None => self.detail.clone(),
        }
    }
}

/// Who a peer says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An identity that needs no certificate to be read.
    Identity(Identity),
    /// ID_DER_ASN1_DN: an encoded name, which whoever reads certificates can read.
    EncodedName(Vec<u8>),
}

/// A peer is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Who it is.
    pub identity: Identity,
    /// What it proved that with.
    pub certificate: CertificateName,
    /// What was let pass, and should be known.
    pub remarks: Vec<String>,
}
