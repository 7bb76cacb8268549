//! ECDSA on the NIST curves (RFC 4754): the signature is r | s, each as long as
//! the curve's order.

use crate::table::{Error, SigningKey};
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    EcdsaVerificationAlgorithm, UnparsedPublicKey,
};

struct Curve {
    /// Keyword of the row.
    row: &'static str,
    digest: &'static digest::Algorithm,
    signing: &'static EcdsaSigningAlgorithm,
    verification: &'static EcdsaVerificationAlgorithm,
}

static P256: Curve = Curve {
    row: "ecdsa256",
    digest: &digest::SHA256,
    signing: &ECDSA_P256_SHA256_FIXED_SIGNING,
    verification: &ECDSA_P256_SHA256_FIXED,
};
static P384: Curve = Curve {
    row: "ecdsa384",
    digest: &digest::SHA384,
    signing: &ECDSA_P384_SHA384_FIXED_SIGNING,
    verification: &ECDSA_P384_SHA384_FIXED,
};
static P521: Curve = Curve {
    row: "ecdsa521",
    digest: &digest::SHA512,
    signing: &ECDSA_P521_SHA512_FIXED_SIGNING,
    verification: &ECDSA_P521_SHA512_FIXED,
};

pub(crate) fn signing_key_256(der: &[u8]) -> Result<Box<dyn SigningKey>, Error> {
    signing_key(&P256, der)
}

pub(crate) fn signing_key_384(der: &[u8]) -> Result<Box<dyn SigningKey>, Error> {
    signing_key(&P384, der)
}

pub(crate) fn signing_key_521(der: &[u8]) -> Result<Box<dyn SigningKey>, Error> {
    signing_key(&P521, der)
}

pub(crate) fn verify_256(public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    verify(&P256, public, hash, signature)
}

pub(crate) fn verify_384(public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    verify(&P384, public, hash, signature)
}

pub(crate) fn verify_521(public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    verify(&P521, public, hash, signature)
}

struct Key {
    curve: &'static Curve,
    /// AWS-LC wipes it on drop.
    pair: EcdsaKeyPair,
}

fn signing_key(curve: &'static Curve, der: &[u8]) -> Result<Box<dyn SigningKey>, Error> {
    let pair = EcdsaKeyPair::from_private_key_der(curve.signing, der).map_err(|_| Error::PrivateKey {
        algorithm: curve.row,
        reason: "it is no key of that curve in SEC 1 or PKCS #8",
    })?;
    Ok(Box::new(Key { curve, pair }))
}

impl Curve {
    /// The hash as the library wants it: of the length that belongs to the curve.
    fn digest(&self, hash: &[u8]) -> Result<Digest, Error> {
        Digest::import_less_safe(hash, self.digest)
            .map_err(|_| Error::DataLength { algorithm: self.row, given: hash.len() })
    }
}

impl SigningKey for Key {
    fn sign(&self, hash: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.pair.sign_digest(&self.curve.digest(hash)?);
        let refused =
            |_| Error::PrivateKey { algorithm: self.curve.row, reason: "the library refuses to sign with it" };
        signed.map(|s| s.as_ref().to_vec()).map_err(refused)
    }
}

/// Verifies with a point of the curve as X.509 has it (RFC 5480 2.2).
fn verify(curve: &'static Curve, public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    UnparsedPublicKey::new(curve.verification, public)
        .verify_digest(&curve.digest(hash)?, signature)
        .map_err(|_| Error::Signature { algorithm: curve.row })
}
