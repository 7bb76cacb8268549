//! RSA, PKCS #1 v1.5 padding around the bare hash (RFC 2409 5.1): without the
//! DigestInfo that RFC 8017 9.2 puts there.

use super::rsa_raw::{PrivateKey, PublicKey};
use crate::table::{Error, SigningKey};

/// Keyword of the row.
const ROW: &str = "rsasig";
/// Bits of the smallest modulus that is still out of reach.
const FEWEST_BITS: u32 = 2048;
/// Bits of the largest: more would only keep us busy.
const MOST_BITS: u32 = 8192;

pub(crate) fn signing_key(der: &[u8]) -> Result<Box<dyn SigningKey>, Error> {
    let refused = |reason| Error::PrivateKey { algorithm: ROW, reason };
    let key =
        PrivateKey::parse(der).ok_or_else(|| refused("it is no RSA key in PKCS #1 or PKCS #8, or inconsistent"))?;
    match key.bits() {
        ..FEWEST_BITS => Err(refused("it has fewer than 2048 bits")),
        FEWEST_BITS..=MOST_BITS => Ok(Box::new(key)),
        _ => Err(refused("it has more than 8192 bits")),
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, hash: &[u8]) -> Result<Vec<u8>, Error> {
        self.sign_raw(hash).ok_or(Error::PrivateKey { algorithm: ROW, reason: "the library refuses to sign with it" })
    }
}

/// Verifies with the octets of an RSAPublicKey (RFC 8017 A.1.1).
pub(crate) fn verify(public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    let refused = |reason| Error::PublicKey { algorithm: ROW, reason };
    let key = PublicKey::parse(public).ok_or_else(|| refused("it is no RSA key"))?;
    match key.bits() {
        ..FEWEST_BITS => return Err(refused("it has fewer than 2048 bits")),
        FEWEST_BITS..=MOST_BITS => {}
        _ => return Err(refused("it has more than 8192 bits")),
    }
    match key.recover(signature) {
        Some(signed) if crate::secret::equal(&signed, hash) => Ok(()),
        _ => Err(Error::Signature { algorithm: ROW }),
    }
}
