//! Certificate authorities of the tests, and what they issue.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationList, CertificateRevocationListParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Kind of a key, by the keyword of its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RSA of 2048 bits.
    Rsa,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Kind {
    /// All of them, with the word of the configuration for each.
    pub const ALL: [(Self, &str); 4] =
        [(Self::Rsa, "RSASIG"), (Self::P256, "ECDSA256"), (Self::P384, "ECDSA384"), (Self::P521, "ECDSA521")];

    fn key(self) -> KeyPair {
        let algorithm = match self {
            Self::Rsa => &PKCS_RSA_SHA256,
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::P521 => &PKCS_ECDSA_P521_SHA512,
        };
        KeyPair::generate_for(algorithm).expect("a key")
    }
}

/// id-kp-ipsecIKE (RFC 4945 5.1.3.12).
#[must_use]
pub fn ipsec_ike() -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17])
}

/// A certificate with its key.
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// DER.
    pub der: Vec<u8>,
    /// PKCS #8, PEM.
    pub key: String,
    /// PKCS #8, DER.
    pub key_der: Vec<u8>,
    /// Its number.
    pub serial: u64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "certificate {}", self.serial)
    }
}

/// An authority.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "authority {:?}", self.params.distinguished_name)
    }
}

/// What is the same of every certificate here.
fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "DE");
    params.distinguished_name.push(DnType::OrganizationName, "Lab");
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2080, 1, 1);
    params
}

fn authority_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// A root; `change` has the last word on what is in its certificate.
    #[must_use]
    pub fn root(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name, 1);
        change(&mut params);
        let key = Kind::P256.key();
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { params, key, certificate }
    }

    /// An authority below this one.
    #[must_use]
    pub fn authority(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name, serial);
        change(&mut params);
        let key = Kind::P256.key();
        let certificate = params.signed_by(&key, &self.issuer()).expect("a certificate");
        Self { params, key, certificate }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate for signatures, with a subjectAltName for `name` (a domain name).
    #[must_use]
    pub fn issue(&self, kind: Kind, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = params(name, serial);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ipsec_ike()];
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("ASCII"))];
        params.is_ca = IsCa::ExplicitNoCa;
        change(&mut params);
        let key = kind.key();
        let certificate = params.signed_by(&key, &self.issuer()).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            key: key.serialize_pem(),
            key_der: key.serialize_der(),
            serial,
        }
    }

    /// The same authority with another key: what a forger has.
    #[must_use]
    pub fn forged(&self) -> Self {
        let key = Kind::P256.key();
        let certificate = self.params.self_signed(&key).expect("a certificate");
        Self { params: self.params.clone(), key, certificate }
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.certificate.pem()
    }

    /// Its own certificate, DER.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// A CRL that revokes these numbers, PEM; `until` is the year in which the next is due.
    #[must_use]
    pub fn crl(&self, revoked: &[u64], until: i32) -> String {
        self.crl_due(revoked, 2021, until, Duration::ZERO).pem().expect("PEM")
    }

    /// The same in DER, the next being due after so many seconds.
    ///
    /// # Panics
    /// If the clock is before 1970.
    #[must_use]
    pub fn crl_for(&self, revoked: &[u64], seconds: u64) -> Vec<u8> {
        self.crl_dated(revoked, 2021, seconds)
    }

    /// The same, issued in the given year.
    ///
    /// # Panics
    /// If the clock is before 1970.
    #[must_use]
    pub fn crl_dated(&self, revoked: &[u64], issued: i32, seconds: u64) -> Vec<u8> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        self.crl_due(revoked, issued, 1970, now + Duration::from_secs(seconds)).der().to_vec()
    }

    /// A CRL; the next is due so long after the beginning of a year.
    fn crl_due(&self, revoked: &[u64], issued: i32, year: i32, after: Duration) -> CertificateRevocationList {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(issued, 1, 2),
            next_update: date_time_ymd(year, 1, 1) + after,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        // Even where its certificate does not allow it.
        let mut willing = self.params.clone();
        willing.key_usages.push(KeyUsagePurpose::CrlSign);
        let issuer = Issuer::from_params(&willing, &self.key);
        params.signed_by(&issuer).expect("a CRL")
    }
}

/// The subjectAltName of an address.
#[must_use]
pub fn address(address: IpAddr) -> SanType {
    SanType::IpAddress(address)
}

/// Writes a file that only its owner can open.
///
/// # Panics
/// If it cannot be written.
pub fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    let path = directory.join(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("a file");
    path
}
