//! Certificate revocation lists: read once, from a file or from where somebody fetched them.

use crate::certificate::name_text;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// A CRL. That its issuer signed it is seen when it is asked about a certificate, whose issuer's key is known then.
#[derive(Debug)]
pub struct Crl {
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
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|e| format!("it is no CRL ({e})"))?;
        let issued = parsed.last_update().timestamp();
        let next = parsed.next_update().map(|t| t.timestamp()).ok_or("it does not say when the next is due")?;
        let list = OwnedCertRevocationList::from_der(der).map_err(|e| format!("it cannot be used: {e:?}"))?;
        Ok(Self { list: list.into(), issuer: parsed.issuer().as_raw().to_vec(), issued, next })
    }

    /// Its issuer's name, encoded.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its issuer's name, for messages.
    #[must_use]
    pub fn issuer_name(&self) -> String {
        name_text(&self.issuer)
    }

    /// When it was issued, in seconds since 1970.
    #[must_use]
    pub fn issued(&self) -> i64 {
        self.issued
    }

    /// When the next is due, in seconds since 1970.
    #[must_use]
    pub fn next(&self) -> i64 {
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
