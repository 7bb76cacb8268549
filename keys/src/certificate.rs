//! One X.509 certificate, read once: what IKE has to know of it (RFC 4945, RFC 5280).

use crypto::table::Signature;
use policy::identity::{DistinguishedName, Identity, NameAttribute, attribute_keyword};
use policy::trust::CertificateName;
use std::net::IpAddr;
use x509_parser::asn1_rs::Any;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// Octets of the longest certificate that is looked at.
const LONGEST: usize = 65_536;

/// Places of its CRL that one certificate may name; more are not looked at.
const MOST_CRL_URIS: usize = 4;

/// A certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    name: CertificateName,
    subject: DistinguishedName,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    method: Option<&'static Signature>,
    key_algorithm: String,
    public_key: Vec<u8>,
    key_info: Vec<u8>,
    /// Whether the key usage allows signatures; none if there is no such extension.
    pub(crate) signs: Option<bool>,
    /// Whether the key usage allows to sign CRLs; none if there is no such extension.
    pub(crate) signs_crls: Option<bool>,
    /// Extended key usage, as object identifiers.
    pub(crate) purposes: Option<Vec<String>>,
    pub(crate) is_authority: bool,
    names: Vec<Identity>,
    crl_uris: Vec<String>,
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        if der.len() > LONGEST {
            return Err(format!("it has {} octets; expected at most {LONGEST}", der.len()));
        }
        let (rest, x509) = X509Certificate::from_der(der).map_err(|e| format!("it is no X.509 certificate ({e})"))?;
        if !rest.is_empty() {
            return Err(format!("{} octets follow the certificate", rest.len()));
        }
        let subject = distinguished_name(x509.subject()).map_err(|what| format!("its subject: {what}"))?;
        let issuer = distinguished_name(x509.issuer()).map_err(|what| format!("its issuer: {what}"))?;
        let name = CertificateName {
            subject: subject.to_string(),
            serial: x509.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect(),
            issuer: issuer.to_string(),
        };
        let key = x509.public_key();
        let algorithm = key.algorithm.algorithm.to_id_string();
        let parameters = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
        let mut certificate = Self {
            der: der.to_vec(),
            name,
            issuer: issuer.der().to_vec(),
            serial: x509.raw_serial().to_vec(),
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
            method: Signature::from_key(&algorithm, parameters.as_deref()),
            key_algorithm: parameters.unwrap_or(algorithm),
            public_key: key.subject_public_key.data.to_vec(),
            key_info: key.raw.to_vec(),
            signs: None,
            signs_crls: None,
            purposes: None,
            is_authority: x509.is_ca(),
            names: vec![Identity::Name(subject.clone())],
            subject,
            crl_uris: Vec::new(),
        };
        for extension in x509.extensions() {
            certificate.extend(extension.parsed_extension(), &extension.oid.to_id_string())?;
        }
        Ok(certificate)
    }

    fn extend(&mut self, extension: &ParsedExtension<'_>, oid: &str) -> Result<(), String> {
        match extension {
            ParsedExtension::KeyUsage(usage) => {
                self.signs = Some(usage.digital_signature() || usage.non_repudiation());
                self.signs_crls = Some(usage.crl_sign());
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let mut purposes: Vec<String> = usage.other.iter().map(|oid| oid.to_id_string()).collect();
                let known = [
                    (usage.any, ANY_PURPOSE),
                    (usage.server_auth, "1.3.6.1.5.5.7.3.1"),
                    (usage.client_auth, "1.3.6.1.5.5.7.3.2"),
                    (usage.code_signing, "1.3.6.1.5.5.7.3.3"),
                    (usage.email_protection, "1.3.6.1.5.5.7.3.4"),
                    (usage.time_stamping, "1.3.6.1.5.5.7.3.8"),
                    (usage.ocsp_signing, "1.3.6.1.5.5.7.3.9"),
                ];
                purposes.extend(known.iter().filter(|(there, _)| *there).map(|(_, oid)| (*oid).to_owned()));
                self.purposes = Some(purposes);
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in names.general_names.iter().filter_map(identity) {
                    self.names.push(name.map_err(|what| format!("its subjectAltName: {what}"))?);
                }
            }
            ParsedExtension::SubjectKeyIdentifier(identifier) => {
                self.names.push(Identity::KeyId(identifier.0.to_vec()));
            }
            ParsedExtension::CRLDistributionPoints(points) => {
                let names = points.iter().filter_map(|point| match &point.distribution_point {
                    Some(DistributionPointName::FullName(names)) => Some(names),
                    _ => None,
                });
                let uris = names.flatten().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                });
                self.crl_uris.extend(uris.take(MOST_CRL_URIS));
            }
            ParsedExtension::ParseError { error } => return Err(format!("its extension {oid} is malformed ({error})")),
            _ => {}
        }
        Ok(())
    }

    /// The encoding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// What tells it from all others.
    #[must_use]
    pub fn name(&self) -> &CertificateName {
        &self.name
    }

    /// Its owner.
    #[must_use]
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// From when on it is valid, in seconds since 1970.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Until when it is valid, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Where its issuer's CRL is, as it says itself (RFC 5280 4.2.1.13): URIs of any scheme.
    #[must_use]
    pub fn crl_uris(&self) -> &[String] {
        &self.crl_uris
    }

    /// Encoding of its issuer's name.
    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    pub(crate) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// How its key signs, if the algorithm is known here.
    #[must_use]
    pub fn method(&self) -> Option<&'static Signature> {
        self.method
    }

    /// Name of its key's kind, for messages.
    pub(crate) fn key_kind(&self) -> &str {
        self.method.map_or(&self.key_algorithm, |method| method.keyword)
    }

    /// subjectPublicKey.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// subjectPublicKeyInfo, encoded.
    pub(crate) fn key_info(&self) -> &[u8] {
        &self.key_info
    }

    /// Whether its owner has this name, which is encoded.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        self.subject.der() == name
    }

    /// Whether it names itself as its issuer, as roots do.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject.der() == self.issuer
    }

    /// Whether it is for the owner of this identity (RFC 4945 3.1): subject, subjectAltName, or subjectKeyIdentifier.
    #[must_use]
    pub fn certifies(&self, identity: &Identity) -> bool {
        // A certificate may leave its subject empty, which is nobody's name.
        let nobody = matches!(identity, Identity::Name(name) if name.attributes().is_empty());
        !nobody && self.names.iter().any(|own| own.is_same(identity))
    }

    /// The identities that it is for, for messages.
    #[must_use]
    pub fn identities(&self) -> String {
        let shown: Vec<_> = self.names.iter().take(8).map(ToString::to_string).collect();
        shown.join("; ")
    }
}

/// anyExtendedKeyUsage (RFC 5280 4.2.1.12).
pub(crate) const ANY_PURPOSE: &str = "2.5.29.37.0";

/// The identity of IKE that a name in subjectAltName is.
fn identity(name: &GeneralName<'_>) -> Option<Result<Identity, String>> {
    match name {
        GeneralName::DNSName(name) => Some(Ok(Identity::Fqdn((*name).to_owned()))),
        GeneralName::RFC822Name(name) => Some(Ok(Identity::UserFqdn((*name).to_owned()))),
        GeneralName::IPAddress(octets) => match <[u8; 4]>::try_from(*octets) {
            Ok(v4) => Some(Ok(Identity::Address(IpAddr::from(v4)))),
            Err(_) => <[u8; 16]>::try_from(*octets).ok().map(|v6| Ok(Identity::Address(IpAddr::from(v6)))),
        },
        GeneralName::DirectoryName(name) => Some(distinguished_name(name).map(Identity::Name)),
        _ => None,
    }
}

fn distinguished_name(name: &X509Name<'_>) -> Result<DistinguishedName, String> {
    // The parser ends a name at the first thing in it that is no attribute, and is content: the rest, too, is what was
    // signed, and a rule must not see half of a name.
    if !matches!(Any::from_der(name.as_raw()), Ok(([], _))) {
        return Err("not all of the name is attributes".into());
    }
    let attributes = name.iter_attributes().map(|attribute| NameAttribute {
        kind: attribute_keyword(&attribute.attr_type().to_id_string()).to_owned(),
        value: match attribute.as_str() {
            Ok(text) => text.to_owned(),
            // As RFC 4514 2.4 writes what has no text.
            Err(_) => attribute.as_slice().iter().fold("#".to_owned(), |out, octet| out + &format!("{octet:02x}")),
        },
    });
    Ok(DistinguishedName::new(name.as_raw().to_vec(), attributes.collect()))
}

/// Reads an encoded name.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn parse_name(der: &[u8]) -> Result<DistinguishedName, String> {
    match X509Name::from_der(der) {
        Ok(([], name)) => distinguished_name(&name),
        Ok((rest, _)) => Err(format!("{} octets follow the name", rest.len())),
        Err(e) => Err(format!("it is no distinguished name ({e})")),
    }
}

/// An encoded name for a message.
pub(crate) fn name_text(der: &[u8]) -> String {
    parse_name(der).map_or_else(|what| format!("({what})"), |name| name.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    /// CN=a, and beside it in the name's SEQUENCE `more`.
    fn name(more: &[u8]) -> Vec<u8> {
        let attribute = [&[0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'a'][..], more].concat();
        [&[0x30, attribute.len() as u8][..], &attribute].concat()
    }

    #[test]
    fn a_name_is_read_to_its_end_or_not_at_all() {
        let whole = parse_name(&name(&[])).unwrap();
        assert_eq!((whole.to_string().as_str(), whole.der()), ("CN=a", &name(&[])[..]));
        for more in [&[0x05, 0x00][..], &[0x31, 0x00], &[0x31, 0x7f], &[0xff]] {
            let refused = parse_name(&name(more)).unwrap_err();
            assert!(refused.contains("attributes") || refused.contains("distinguished name"), "{more:x?}: {refused}");
        }
        assert!(parse_name(&[&name(&[])[..], &[0]].concat()).unwrap_err().contains("follow"));
    }
}
