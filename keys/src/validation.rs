//! Whether a certificate may be believed: path (RFC 5280 6), revocation, and what
//! IKE asks of certificates beyond that (RFC 4945 5.1.3).
//!
//! The path is searched by webpki. It does not say which certificate of it is at
//! fault, so that is found out afterwards.

use crate::certificate::{ANY_PURPOSE, Certificate};
use crate::crl::{Crl, ProvenCrl};
use crate::date::date;
use core::time::Duration;
use policy::config::RevocationPolicy;
use policy::trust::{Distrust, Refusal};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

/// Key purposes with which a certificate may be used for IKE, if it names any (RFC 4945 5.1.3.12):
/// any, id-kp-ipsecIKE, iKEIntermediate, and the three of RFC 2459, which old authorities wrote.
const IKE_PURPOSES: [&str; 6] = [
    ANY_PURPOSE,
    "1.3.6.1.5.5.7.3.17",
    "1.3.6.1.5.5.8.2.2",
    "1.3.6.1.5.5.7.3.5",
    "1.3.6.1.5.5.7.3.6",
    "1.3.6.1.5.5.7.3.7",
];

/// Whom a record trusts to say who is who.
pub(crate) struct Trust {
    authorities: Vec<Authority>,
    crls: Vec<Crl>,
    policy: RevocationPolicy,
}

struct Authority {
    certificate: Certificate,
    anchor: TrustAnchor<'static>,
}

/// A certificate that may be believed.
#[derive(Debug)]
pub(crate) struct Valid {
    /// What was let pass and should be known.
    pub(crate) remarks: Vec<String>,
}

/// A CRL that is not there, or not in force any more.
#[derive(Clone, Debug)]
pub struct MissingCrl {
    /// Its issuer's certificate, which is one of our authorities' or has been verified up to one.
    pub issuer: Arc<Certificate>,
    /// Where the certificate that it is wanted for says that it is: URIs of any scheme.
    pub uris: Vec<String>,
}

/// The CRLs that a judgement may ask: the newest of an issuer comes first.
struct Lists<'a>(Vec<&'a Crl>);

/// A way from a certificate to an authority.
struct Way<'c> {
    /// The first, and those between it and the authority, in the order in which they came.
    certificates: Vec<&'c Certificate>,
    authority: &'c Certificate,
}

impl<'c> Way<'c> {
    /// The certificate of a certificate's issuer.
    fn issuer(&self, of: &Certificate) -> &'c Certificate {
        let between = self.certificates.iter().skip(1).find(|c| c.is_named(of.issuer()));
        between.copied().unwrap_or(self.authority)
    }
}

impl<'a> Lists<'a> {
    fn of(&self, issuer: &[u8]) -> Option<&'a Crl> {
        self.0.iter().copied().find(|crl| crl.issuer() == issuer)
    }
}

impl Trust {
    /// Trusts these authorities, with these CRLs (DER).
    ///
    /// # Errors
    /// What is wrong with one of them, and which: the place in its list.
    pub(crate) fn new(
        authorities: Vec<Certificate>,
        crls: &[Vec<u8>],
        policy: RevocationPolicy,
    ) -> Result<Self, (Source, usize, String)> {
        let mut trust = Self { authorities: Vec::new(), crls: Vec::new(), policy };
        for (nth, certificate) in authorities.into_iter().enumerate() {
            let wrong = |what: String| (Source::Authority, nth, format!("{}: {what}", certificate.name()));
            if !certificate.is_authority {
                return Err(wrong("it is no authority's (basicConstraints)".to_owned()));
            }
            let der = CertificateDer::from(certificate.der());
            let anchor = anchor_from_trusted_cert(&der).map_err(|e| wrong(format!("{e:?}")))?.to_owned();
            trust.authorities.push(Authority { certificate, anchor });
        }
        for (nth, der) in crls.iter().enumerate() {
            trust.crls.push(Crl::parse(der).map_err(|what| (Source::Crl, nth, what))?);
        }
        Ok(trust)
    }

    /// The authorities.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        self.authorities.iter().map(|authority| &authority.certificate)
    }

    /// CRLs that should have been replaced by `now`: the issuer's name, and the date.
    pub(crate) fn overdue(&self, now: i64) -> impl Iterator<Item = (String, String)> {
        let overdue = self.crls.iter().filter(move |crl| crl.next() <= now);
        overdue.map(|crl| (crl.issuer_name(), date(crl.next())))
    }

    /// Those of the files, and of those that were fetched the ones that an authority of ours or of `chain` signed:
    /// another record may believe an authority of the same name and with another key. What a peer puts into its chain
    /// to bring in such a list only keeps itself from being believed.
    fn lists<'a>(&'a self, chain: &[Certificate], fetched: &'a [Arc<ProvenCrl>]) -> Lists<'a> {
        let ours = |crl: &&Arc<ProvenCrl>| self.authorities().chain(chain).any(|issuer| crl.is_by(issuer));
        let mut all: Vec<_> = self.crls.iter().chain(fetched.iter().filter(ours).map(|crl| crl.crl())).collect();
        all.sort_by_key(|crl| core::cmp::Reverse(crl.issued()));
        Lists(all)
    }

    /// The CRLs that should be there to judge `chain`, and are not: those of the issuers of its path to an authority.
    /// None where there is no such path, so that nobody else's certificate has anything fetched.
    pub(crate) fn missing(&self, chain: &[Certificate], now: i64, fetched: &[Arc<ProvenCrl>]) -> Vec<MissingCrl> {
        let Ok(way) = self.way(chain, now, None) else { return Vec::new() };
        let lists = self.lists(chain, fetched);
        let in_force = |issuer: &[u8]| lists.of(issuer).is_some_and(|crl| crl.next() > now);
        way.certificates
            .iter()
            .filter(|certificate| !in_force(certificate.issuer()))
            .map(|c| MissingCrl { issuer: Arc::new(way.issuer(c).clone()), uris: c.crl_uris().to_vec() })
            .collect()
    }

    /// Judges the first of `chain`; the others may be of use as its issuers. `now` is in seconds since 1970.
    /// `fetched` are asked beside the CRLs of the files.
    pub(crate) fn judge(&self, chain: &[Certificate], now: i64, fetched: &[Arc<ProvenCrl>]) -> Result<Valid, Refusal> {
        let crls = &self.lists(chain, fetched);
        let explained = |e: Error| self.explain(&e, chain, now, crls);
        let [certificate, ..] = chain else {
            return Err(refusal(Distrust::NoCertificate, None, "there is no certificate", "look at the peer's log"));
        };
        usable_for_signatures(certificate)?;
        let lists: Vec<_> = crls.0.iter().map(|crl| crl.list()).collect();
        let revocation = self.revocation(&lists).map_err(|()| explained(Error::UnknownRevocationStatus))?;
        let way = self.way(chain, now, revocation).map_err(explained)?;
        Ok(Valid { remarks: way.certificates.iter().filter_map(|c| doubt(c.issuer(), now, crls)).collect() })
    }

    /// The first of `chain` and those of its issuers among the others, up to an authority.
    fn way<'c>(
        &'c self,
        chain: &'c [Certificate],
        now: i64,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<Way<'c>, Error> {
        let [certificate, others @ ..] = chain else { return Err(Error::UnknownIssuer) };
        let der = CertificateDer::from(certificate.der());
        let end = EndEntityCert::try_from(&der)?;
        let others: Vec<_> = others.iter().map(|c| CertificateDer::from(c.der())).collect();
        // webpki never asks an anchor for its dates.
        let anchors: Vec<_> = self.valid_authorities(now).map(|authority| authority.anchor.clone()).collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let path = end.verify_for_usage(algorithms, &anchors, &others, time, IkePurpose, revocation, None)?;
        let between = |c: &&Certificate| path.intermediate_certificates().any(|used| *used.der() == *c.der());
        let certificates = core::iter::once(certificate).chain(chain.iter().filter(between)).collect();
        let anchor = path.anchor();
        let is_anchor = |a: &&Authority| {
            (&a.anchor.subject, &a.anchor.subject_public_key_info) == (&anchor.subject, &anchor.subject_public_key_info)
        };
        let authority = self.valid_authorities(now).find(is_anchor).ok_or(Error::UnknownIssuer)?;
        Ok(Way { certificates, authority: &authority.certificate })
    }

    fn valid_authorities(&self, now: i64) -> impl Iterator<Item = &Authority> {
        self.authorities.iter().filter(move |a| (a.certificate.not_before..=a.certificate.not_after).contains(&now))
    }

    /// How webpki is to look at revocation.
    fn revocation<'a>(&self, crls: &'a [&'a CertRevocationList<'static>]) -> Result<Option<RevocationOptions<'a>>, ()> {
        let Ok(builder) = RevocationOptionsBuilder::new(crls) else {
            return if self.policy == RevocationPolicy::Strict { Err(()) } else { Ok(None) };
        };
        let builder = builder.with_depth(RevocationCheckDepth::Chain);
        Ok(Some(match self.policy {
            RevocationPolicy::Strict => builder
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
            RevocationPolicy::Relaxed => builder
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build(),
        }))
    }

    /// webpki's verdict in words, with the certificate it is about.
    fn explain(&self, error: &Error, chain: &[Certificate], now: i64, crls: &Lists<'_>) -> Refusal {
        let first = &chain[0];
        let which = |is: &dyn Fn(&Certificate) -> bool| chain.iter().find(|c| is(c)).unwrap_or(first);
        match error {
            Error::CertExpired { .. } => expired(which(&|c| c.not_after < now)),
            Error::CertNotValidYet { .. } => not_yet_valid(which(&|c| c.not_before > now)),
            Error::CertRevoked => {
                let revoked = which(&|c| is_revoked(c, crls));
                refusal(
                    Distrust::Revoked,
                    Some(revoked),
                    "its issuer's CRL revokes it",
                    "give the peer a new certificate, or the CRL that is in force to `crl`",
                )
            }
            Error::UnknownIssuer => self.unknown_authority(chain, now),
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
                let wrong = which(&|c| c.purposes.as_ref().is_some_and(|p| !is_for_ike(p)));
                wrong_purpose(wrong)
            }
            Error::UnknownRevocationStatus => {
                let unknown = which(&|c| crls.of(c.issuer()).is_none());
                refusal(
                    Distrust::RevocationUnknown,
                    Some(unknown),
                    "there is no CRL of its issuer, and `crl_policy` is strict",
                    "add the issuer's CRL to `crl`",
                )
            }
            Error::CrlExpired { next_update, .. } => refusal(
                Distrust::RevocationUnknown,
                Some(first),
                format!(
                    "a CRL should have been replaced on {}, and `crl_policy` is strict",
                    date(i64::try_from(next_update.as_secs()).unwrap_or(i64::MAX))
                ),
                "fetch the CRL in force from the authority, and reload",
            ),
            forged if is_forged_crl(forged) => refusal(
                Distrust::RevocationUnknown,
                Some(first),
                format!("a CRL in its issuer's name cannot be believed ({error:?})"),
                "fetch the CRL from the authority again",
            ),
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => refusal(
                Distrust::WrongAlgorithm,
                Some(first),
                "it, or one of its issuers' certificates, is signed by an algorithm or a key that is not accepted: expected \
                 RSA of 2048 bits and more or ECDSA, with SHA-256, SHA-384 or SHA-512",
                "have the authority issue it anew",
            ),
            Error::BadDer
            | Error::BadDerTime
            | Error::ExtensionValueInvalid
            | Error::InvalidCertValidity
            | Error::InvalidSerialNumber
            | Error::MalformedExtensions
            | Error::UnsupportedCertVersion
            | Error::UnsupportedCriticalExtension
            | Error::TrailingData(_) => refusal(
                Distrust::Malformed,
                Some(first),
                format!("it, or one of its issuers' certificates, cannot be used ({error:?})"),
                "have the authority issue it anew, as X.509 version 3",
            ),
            other => refusal(
                Distrust::BrokenChain,
                Some(first),
                format!("the chain to the authority breaks a rule of RFC 5280 ({other:?})"),
                "look at the authorities' certificates: basic constraints, path length, name constraints",
            ),
        }
    }

    /// Follows the chain to where it ends: nobody knows the issuer of the last.
    fn unknown_authority(&self, chain: &[Certificate], now: i64) -> Refusal {
        let mut last = &chain[0];
        for _ in chain {
            match chain.iter().find(|c| c.subject().der() == last.issuer() && !c.is_self_issued()) {
                Some(issuer) if !core::ptr::eq(issuer, last) => last = issuer,
                _ => break,
            }
        }
        let named = |a: &&Authority| a.certificate.subject().der() == last.issuer();
        if let Some(out_of_date) = self.authorities.iter().filter(named).map(|a| &a.certificate).next() {
            if out_of_date.not_after < now {
                return expired(out_of_date);
            }
            if out_of_date.not_before > now {
                return not_yet_valid(out_of_date);
            }
        }
        let ours: Vec<_> =
            self.authorities.iter().take(6).map(|a| format!("\"{}\"", a.certificate.subject())).collect();
        refusal(
            Distrust::UnknownAuthority,
            Some(last),
            format!("its issuer is none of the authorities trusted here: {}", ours.join(", ")),
            "add the authority to `ca`, or have the peer send the certificates in between",
        )
    }
}

/// What the relaxed policy lets pass: said aloud.
fn doubt(issuer: &[u8], now: i64, crls: &Lists<'_>) -> Option<String> {
    let name = || crate::certificate::name_text(issuer);
    match crls.of(issuer) {
        None if crls.0.is_empty() => Some(format!("no CRL of \"{}\": revocation is not checked", name())),
        None => Some(format!("no CRL of \"{}\": whether it revoked the certificate is not known", name())),
        Some(crl) if crl.next() <= now => Some(format!(
            "the CRL of \"{}\" should have been replaced on {}: whether it revoked the certificate since is not known",
            name(),
            date(crl.next())
        )),
        Some(_) => None,
    }
}

fn is_revoked(certificate: &Certificate, crls: &Lists<'_>) -> bool {
    let of_issuer = crls.0.iter().filter(|crl| crl.issuer() == certificate.issuer());
    of_issuer.into_iter().any(|crl| crl.lists(certificate.serial()))
}

/// Whether a CRL was not made by whom it names as its issuer.
fn is_forged_crl(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCrlSignatureForPublicKey
            | Error::IssuerNotCrlSigner
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
    )
}

/// Which list a certificate or CRL was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Authority,
    Crl,
}

/// RFC 4945 5.1.3.2: a key usage must allow digital signatures.
fn usable_for_signatures(certificate: &Certificate) -> Result<(), Refusal> {
    if certificate.signs == Some(false) {
        return Err(refusal(
            Distrust::WrongUsage,
            Some(certificate),
            "its keyUsage allows neither digitalSignature nor nonRepudiation (RFC 4945 5.1.3.2)",
            "have the authority issue it for signatures",
        ));
    }
    Ok(())
}

fn is_for_ike(purposes: &[String]) -> bool {
    purposes.iter().any(|purpose| IKE_PURPOSES.contains(&purpose.as_str()))
}

/// Every certificate of a path that names purposes must name one of IKE's.
struct IkePurpose;

impl ExtendedKeyUsageValidator for IkePurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut named = Vec::new();
        for purpose in purposes {
            let parts: Vec<_> = purpose?.to_decoded_oid().iter().map(ToString::to_string).collect();
            named.push(parts.join("."));
        }
        // An empty extension is refused before; so this is one that is not there.
        if named.is_empty() || is_for_ike(&named) { Ok(()) } else { Err(Error::EmptyEkuExtension) }
    }
}

fn wrong_purpose(certificate: &Certificate) -> Refusal {
    let named = certificate.purposes.as_ref().map_or("nothing".to_owned(), |purposes| purposes.join(", "));
    refusal(
        Distrust::WrongUsage,
        Some(certificate),
        format!("its extendedKeyUsage is {named}, none of which is for IKE (RFC 4945 5.1.3.12)"),
        "have the authority issue it with id-kp-ipsecIKE (1.3.6.1.5.5.7.3.17), or without that extension",
    )
}

fn expired(certificate: &Certificate) -> Refusal {
    refusal(
        Distrust::Expired,
        Some(certificate),
        format!("it expired on {}", date(certificate.not_after)),
        "have it renewed, and look at both clocks",
    )
}

fn not_yet_valid(certificate: &Certificate) -> Refusal {
    refusal(
        Distrust::NotYetValid,
        Some(certificate),
        format!("it is not valid before {}", date(certificate.not_before)),
        "look at both clocks, or wait",
    )
}

pub(crate) fn refusal(
    distrust: Distrust,
    certificate: Option<&Certificate>,
    detail: impl Into<String>,
    remedy: impl Into<String>,
) -> Refusal {
    let certificate = certificate.map(|c| Box::new(c.name().clone()));
    Refusal { distrust, certificate, detail: detail.into(), remedy: remedy.into() }
}
