//! Digests, PRFs and truncated MACs, generic over the hash.

#[cfg(target_arch = "x86_64")]
use crate::lanes::{Sha1Lanes, Sha256Lanes, Wide, hmac::HmacLanes};
use crate::table::{Error, Mac};
use crate::{Secret, secret};
use hmac::digest::block_api::EagerHash;
use hmac::digest::{Digest, FixedOutput, Update};
use hmac::{Hmac, KeyInit};
use sha1::Sha1;
use sha2::Sha256;

/// The digest of the concatenation of `parts`.
pub(crate) fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = D::new();
    for part in parts {
        Digest::update(&mut hash, part);
    }
    hash.finalize().to_vec()
}

/// HMAC over the concatenation of `parts`, whole.
pub(crate) fn prf<D: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut hmac = keyed::<D>(key);
    for part in parts {
        hmac.update(part);
    }
    Secret::new(hmac.finalize_fixed().to_vec())
}

/// The MAC of an integrity row: HMAC under a key as long as the digest
/// (RFC 2403 3, RFC 2404 3, RFC 4868 2.1.1), truncated to `icv_len` octets.
pub(crate) fn truncated_hmac<D: EagerHash>(
    algorithm: &'static str,
    key: &[u8],
    icv_len: usize,
) -> Result<Box<dyn Mac>, Error>
where
    Hmac<D>: Send + Sync + 'static,
{
    let expected = <D as Digest>::output_size();
    if key.len() != expected {
        return Err(Error::KeyLength { algorithm, expected, given: key.len() });
    }
    Ok(Box::new(TruncatedHmac { keyed: keyed::<D>(key), icv_len }))
}

/// As [`truncated_hmac`] for SHA-1, by the batch where the processor can.
pub(crate) fn hmac_sha1(key: &[u8]) -> Result<Box<dyn Mac>, Error> {
    let portable = truncated_hmac::<Sha1>("sha1", key, 12)?;
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = Wide::found() {
        return Ok(Box::new(HmacLanes::<Sha1Lanes, 5>::new(wide, key, 12)));
    }
    Ok(portable)
}

/// As [`truncated_hmac`] for SHA-256, by the batch where the processor can.
pub(crate) fn hmac_sha256(key: &[u8]) -> Result<Box<dyn Mac>, Error> {
    let portable = truncated_hmac::<Sha256>("sha256", key, 16)?;
    #[cfg(target_arch = "x86_64")]
    if let Some(wide) = Wide::found() {
        return Ok(Box::new(HmacLanes::<Sha256Lanes, 8>::new(wide, key, 16)));
    }
    Ok(portable)
}

fn keyed<D: EagerHash>(key: &[u8]) -> Hmac<D> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length (RFC 2104 2)")
}

/// An HMAC whose two key blocks are hashed already: each use copies the states.
struct TruncatedHmac<D: EagerHash> {
    keyed: Hmac<D>,
    icv_len: usize,
}

impl<D: EagerHash> TruncatedHmac<D> {
    fn full(&self, parts: &[&[u8]]) -> hmac::digest::Output<Hmac<D>> {
        let mut hmac = self.keyed.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac.finalize_fixed()
    }
}

impl<D: EagerHash> Mac for TruncatedHmac<D>
where
    Hmac<D>: Send + Sync,
{
    fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        debug_assert_eq!(icv.len(), self.icv_len);
        for (out, octet) in icv.iter_mut().zip(self.full(parts)) {
            *out = octet;
        }
    }

    fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        secret::equal(&self.full(parts)[..self.icv_len], icv)
    }
}
