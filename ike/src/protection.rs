//! Encryption of whole messages (RFC 2409 appendix B).
//!
//! IVs chain: each message of an exchange starts with the last ciphertext block
//! of the one before, whoever sent it. So the IV belongs to the exchange, and
//! moves on only when a message was accepted.

use crate::keys::IsakmpKeys;
use crate::wire::numbers::PayloadKind;
use crate::wire::{DecodeError, Flags, Header, Payload, decode_chain, encode_chain, first_kind};
use zeroize::Zeroizing;

/// The IV for the next message of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Iv(pub(crate) Vec<u8>);

/// A decrypted message. Only a hash inside it can say that it is authentic.
pub(crate) struct Opened {
    pub(crate) payloads: Vec<Payload>,
    /// The payloads' octets, without padding.
    octets: Zeroizing<Vec<u8>>,
    /// IV for the next message, if this one is accepted.
    pub(crate) next_iv: Iv,
}

impl Opened {
    /// The message's own hash and what follows it, if it begins with a hash (RFC 2409 5.5, 5.7).
    pub(crate) fn hash_and_rest(&self) -> Option<(&[u8], &[u8])> {
        match self.payloads.first() {
            Some(Payload::Hash(hash)) => Some((hash, self.octets.get(4 + hash.len()..)?)),
            _ => None,
        }
    }
}

/// Encrypts `payloads` under `iv`; returns the datagram and the next IV.
///
/// # Errors
/// When the cipher does.
pub(crate) fn seal(
    keys: &IsakmpKeys,
    iv: &Iv,
    header: Header,
    payloads: &[Payload],
) -> Result<(Vec<u8>, Iv), crypto::table::Error> {
    let block = keys.cipher().block_len();
    let mut body = encode_chain(payloads);
    body.resize(body.len().next_multiple_of(block), 0);
    keys.cipher().encrypt(&iv.0, &mut body)?;
    let next = Iv(last_block(&body, block));
    let header = Header { first: first_kind(payloads), flags: Flags { encryption: true, ..header.flags }, ..header };
    Ok((header.with_body(&body), next))
}

/// Why a message could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Not a positive multiple of the block size.
    #[error("its {0} octets are no whole number of cipher blocks")]
    Length(usize),
    /// What came out is no chain of payloads: the wrong key, most of all.
    #[error("it does not decrypt to payloads ({0})")]
    Garbage(DecodeError),
}

/// Decrypts `ciphertext` under `iv`.
///
/// # Errors
/// When nothing sensible comes out; the exchange stays as it was.
pub(crate) fn open(keys: &IsakmpKeys, iv: &Iv, first: PayloadKind, ciphertext: &[u8]) -> Result<Opened, OpenError> {
    let block = keys.cipher().block_len();
    let mut octets = Zeroizing::new(ciphertext.to_vec());
    if octets.is_empty() || !octets.len().is_multiple_of(block) {
        return Err(OpenError::Length(octets.len()));
    }
    let next_iv = Iv(last_block(ciphertext, block));
    keys.cipher().decrypt(&iv.0, &mut octets).map_err(|_| OpenError::Length(ciphertext.len()))?;
    let (payloads, used) = decode_chain(first, &octets).map_err(OpenError::Garbage)?;
    octets.truncate(used);
    Ok(Opened { payloads, octets, next_iv })
}

fn last_block(octets: &[u8], block: usize) -> Vec<u8> {
    octets.get(octets.len().saturating_sub(block)..).unwrap_or_default().to_vec()
}
