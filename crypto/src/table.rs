//! The algorithm table: one row per algorithm, and the only place that knows
//! their numbers.
//!
//! Sources of the numbers: IANA "Internet Key Exchange (IKE) Attributes" and
//! "ISAKMP registry" (IKEv1), "IKEv2 Parameters" (IKEv2).
//!
//! The types of the rows are here, the rows in [`ENCRYPTIONS`], [`INTEGRITIES`],
//! [`HASHES`], [`GROUPS`] and [`SIGNATURES`]. The look-ups find every row, forbidden ones too, so
//! that a report can name what a peer offered: a caller that is to *use* a row
//! asks [`Encryption::status`] and its like first.

mod encryption;
mod group;
mod hash;
mod integrity;
mod signature;

pub use encryption::ENCRYPTIONS;
pub use group::GROUPS;
pub use hash::HASHES;
pub use integrity::INTEGRITIES;
pub use signature::SIGNATURES;

use crate::packet::EspCipher;
use crate::{Entropy, Secret};
use core::fmt;

/// Whether, and how, an algorithm may be used.
///
/// Ordered from best to worst, so that a combination is as bad as its `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// May be used and offered by default.
    Modern,
    /// Works only where the configuration names it; the daemon says so once.
    Legacy,
    /// Known by name and number for reports and errors; never used.
    Forbidden,
}

/// An error of a cryptographic primitive. Carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Key material of the wrong size: (expected, given), in octets.
    #[error("{algorithm} takes {expected} octets of key material, not {given}")]
    KeyLength {
        /// Keyword of the row.
        algorithm: &'static str,
        /// Octets the algorithm takes.
        expected: usize,
        /// Octets it was given.
        given: usize,
    },
    /// Data whose length the algorithm cannot process.
    #[error("{algorithm} cannot process {given} octets")]
    DataLength {
        /// Keyword of the row.
        algorithm: &'static str,
        /// Octets it was given.
        given: usize,
    },
    /// A key that turns the cipher into a weaker one (RFC 2409 appendix B, RFC 2451 2.3).
    #[error("weak {algorithm} key: {reason}; negotiate or configure another")]
    WeakKey {
        /// Keyword of the row.
        algorithm: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A public value that is malformed, out of range or of small order.
    #[error("the peer's public value for {group} is not valid: {reason}")]
    PublicValue {
        /// Keyword of the group.
        group: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A private key that cannot be used.
    #[error("the private key is no good for {algorithm}: {reason}")]
    PrivateKey {
        /// Keyword of the row.
        algorithm: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A public key that cannot be used.
    #[error("the public key is no good for {algorithm}: {reason}")]
    PublicKey {
        /// Keyword of the row.
        algorithm: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A signature that the key did not make, or not over this.
    #[error("the {algorithm} signature is wrong")]
    Signature {
        /// Keyword of the row.
        algorithm: &'static str,
    },
    /// No usable private value was drawn in many attempts: the entropy source
    /// of this host is broken.
    #[error("no private value for {group} could be drawn: the entropy source of this host is broken")]
    Entropy {
        /// Keyword of the group.
        group: &'static str,
    },
    /// The row is known but has no implementation for this use.
    #[error("{algorithm} cannot be used for {purpose}")]
    Unusable {
        /// Keyword of the row.
        algorithm: &'static str,
        /// For what it was asked.
        purpose: &'static str,
    },
}

/// What the constructors in rows return.
pub(crate) type Made<T> = Result<Box<T>, Error>;
type NewIkeCipher = fn(key: &[u8]) -> Made<dyn IkeCipher>;
type Generate = fn(&mut dyn Entropy) -> Made<dyn KeyExchange>;
type NewSigningKey = fn(der: &[u8]) -> Made<dyn SigningKey>;
type Verify = fn(public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error>;
type Check = fn(peer: &[u8]) -> Result<(), Error>;

/// An encryption algorithm (cipher or AEAD) with one key size.
pub struct Encryption {
    /// The keyword of today's configurations, e.g. `aes128`, `aes256gcm16`.
    pub keyword: &'static str,
    /// Other spellings of the keyword that configurations may use.
    pub aliases: &'static [&'static str],
    /// The name inside an HP-UX transform, e.g. `AES128`.
    pub hpux: &'static str,
    /// The name in Wireshark's table of ESP SAs; empty if it has none.
    pub wireshark: &'static str,
    /// IKEv1 phase 1 Encryption Algorithm (RFC 2409 appendix A), if defined.
    pub ikev1_phase1: Option<u16>,
    /// IKEv1 ESP transform identifier (RFC 2407 4.4.4), if defined.
    pub ikev1_esp: Option<u8>,
    /// IKEv2 transform type 1 identifier (RFC 7296 3.3.2), if defined.
    pub ikev2: Option<u16>,
    /// Key size in bits, salt not counted; 0 for NULL.
    pub key_bits: u16,
    /// Whether proposals carry the Key Length attribute.
    pub key_length_attribute: bool,
    /// Octets of key material after the key proper (nonce or salt).
    pub salt_len: usize,
    /// Octets of explicit IV in each ESP packet.
    pub iv_len: usize,
    /// Block size that the plaintext is padded to, in octets; 1 for stream modes.
    pub block_len: usize,
    /// Octets of ICV the algorithm itself produces; 0 unless it is an AEAD.
    pub icv_len: usize,
    /// May it be used?
    pub status: Status,
    /// Why it is legacy or forbidden, as a clause; empty for modern rows.
    pub caveat: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// Makes the cipher that IKEv1 phase 1 messages are encrypted with.
    pub(crate) ike_cipher: Option<NewIkeCipher>,
    /// How it protects ESP packets.
    pub(crate) esp: EspCipher,
}

/// An integrity algorithm: HMAC truncated, or GMAC for AH.
pub struct Integrity {
    /// Keyword, e.g. `sha1`, `sha256`.
    pub keyword: &'static str,
    /// Other spellings of the keyword that configurations may use.
    pub aliases: &'static [&'static str],
    /// The name inside an HP-UX transform, e.g. `HMAC_SHA1`.
    pub hpux: &'static str,
    /// The name in Wireshark's table of ESP SAs.
    pub wireshark: &'static str,
    /// IKEv1 Authentication Algorithm attribute (RFC 2407 4.5).
    pub ikev1_auth: u16,
    /// IKEv1 AH transform identifier (RFC 2407 4.4.3).
    pub ikev1_ah: u8,
    /// IKEv2 transform type 3 identifier.
    pub ikev2: u16,
    /// Key size in octets.
    pub key_len: usize,
    /// Octets of ICV on the wire.
    pub icv_len: usize,
    /// Octets of an IV at the beginning of the ICV; 0 for those that take none. With an IV it is for AH alone.
    pub iv_len: usize,
    /// May it be used?
    pub status: Status,
    /// Why it is legacy or forbidden, as a clause; empty for modern rows.
    pub caveat: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// Makes the MAC.
    pub(crate) new: fn(key: &[u8]) -> Made<dyn Mac>,
}

/// A hash and the HMAC pseudo-random function made of it.
pub struct Hash {
    /// Keyword, e.g. `sha1`, `sha256`.
    pub keyword: &'static str,
    /// Other spellings of the keyword that configurations may use.
    pub aliases: &'static [&'static str],
    /// HP-UX name, e.g. `SHA1`.
    pub hpux: &'static str,
    /// IKEv1 Hash Algorithm (RFC 2409 appendix A).
    pub ikev1: u16,
    /// IKEv2 transform type 2 (PRF) identifier.
    pub ikev2_prf: u16,
    /// Digest size in octets.
    pub len: usize,
    /// May it be used?
    pub status: Status,
    /// Why it is legacy or forbidden, as a clause; empty for modern rows.
    pub caveat: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// The plain digest.
    pub(crate) digest: fn(parts: &[&[u8]]) -> Vec<u8>,
    /// HMAC, untruncated.
    pub(crate) hmac: fn(key: &[u8], parts: &[&[u8]]) -> Secret,
}

/// A Diffie-Hellman group.
pub struct Group {
    /// Keyword, e.g. `modp2048`, `ecp256`, `x25519`.
    pub keyword: &'static str,
    /// Other spellings of the keyword that configurations may use.
    pub aliases: &'static [&'static str],
    /// Group number (RFC 2409 6, RFC 3526, RFC 5903, RFC 8031); the same in IKEv1 and IKEv2.
    pub number: u16,
    /// Octets of a public value on the wire.
    pub public_len: usize,
    /// Octets of the shared secret g^xy.
    pub shared_len: usize,
    /// May it be used?
    pub status: Status,
    /// Why it is legacy or forbidden, as a clause; empty for modern rows.
    pub caveat: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// Draws an ephemeral secret; none for forbidden groups.
    pub(crate) generate: Option<Generate>,
    /// Whether a peer's public value is one of the group; there with `generate`.
    pub(crate) check: Option<Check>,
}

/// A signature by which a peer authenticates itself, with the key that makes it.
pub struct Signature {
    /// Keyword, e.g. `rsasig`, `ecdsa256`.
    pub keyword: &'static str,
    /// Other spellings of the keyword that configurations may use.
    pub aliases: &'static [&'static str],
    /// The name in HP-UX's style; its own is only `RSASIG`.
    pub hpux: &'static str,
    /// IKEv1 Authentication Method (RFC 2409 appendix A, RFC 4754 6).
    pub ikev1: u16,
    /// Keyword of the hash whose HMAC makes HASH_I and HASH_R, if the signature is tied to one
    /// (RFC 2409 5.1); else it is the negotiated one.
    pub hash: Option<&'static str>,
    /// Object identifier of the key's algorithm in a certificate.
    pub key_algorithm: &'static str,
    /// Object identifier of the key's curve, if it has one.
    pub curve: Option<&'static str>,
    /// May it be used?
    pub status: Status,
    /// Why it is legacy or forbidden, as a clause; empty for modern rows.
    pub caveat: &'static str,
    /// Where it is specified.
    pub source: &'static str,
    /// Reads a private key; none for forbidden rows.
    pub(crate) signing_key: Option<NewSigningKey>,
    /// Verifies a signature; none for forbidden rows.
    pub(crate) verify: Option<Verify>,
}

/// A cipher for whole IKEv1 messages: CBC, no padding rules of its own.
pub trait IkeCipher: Send + Sync {
    /// Block size in octets; IVs have the same size.
    fn block_len(&self) -> usize;
    /// Encrypts `data` (a multiple of the block size) in place.
    fn encrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), Error>;
    /// Decrypts `data` (a multiple of the block size) in place.
    fn decrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), Error>;
}

/// A keyed MAC, already truncated to its ICV.
pub trait Mac: Send + Sync {
    /// Writes the ICV over the concatenation of `parts` to `icv`, which has
    /// exactly [`Integrity::icv_len`] octets. The first [`Integrity::iv_len`] of them are the IV, which is the
    /// caller's: never the same under one key.
    fn sign(&self, parts: &[&[u8]], icv: &mut [u8]);
    /// Whether `icv` is the ICV over the concatenation of `parts`, in constant
    /// time. An ICV of another length is not.
    #[must_use]
    fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool;
    /// Writes the ICV over each message to the first `icv_len` octets of the tag beside it, which is
    /// [`Integrity::icv_len`]; the octets behind those mean nothing.
    fn sign_each(&self, messages: &[Covered<'_>], icv_len: usize, tags: &mut [Tag]) {
        for (message, tag) in messages.iter().zip(tags) {
            self.sign(&[message.octets, message.trailer()], &mut tag[..icv_len]);
        }
    }
}

/// Room for the longest ICV.
pub type Tag = [u8; 32];

/// A message of [`Mac::sign_each`].
#[derive(Clone, Copy)]
pub struct Covered<'m> {
    pub(crate) octets: &'m [u8],
    trailer: Option<[u8; 4]>,
}

impl<'m> Covered<'m> {
    /// These octets.
    #[must_use]
    pub fn of(octets: &'m [u8]) -> Self {
        Self { octets, trailer: None }
    }

    /// The same, and behind them the half of the sequence number that is not in the packet (RFC 4303 2.2.1).
    #[must_use]
    pub fn followed_by(self, high_half: [u8; 4]) -> Self {
        Self { trailer: Some(high_half), ..self }
    }

    pub(crate) fn trailer(&self) -> &[u8] {
        self.trailer.as_ref().map_or(&[], |octets| octets)
    }
}

/// One side's ephemeral secret of a Diffie-Hellman exchange.
pub trait KeyExchange: Send {
    /// The public value as it goes on the wire.
    fn public(&self) -> &[u8];
    /// The shared secret g^xy with the peer's public value, which is checked
    /// first (range, on the curve, not of small order, not zero).
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, Error>;
}

/// A private key that signs. Wiped on drop.
pub trait SigningKey: Send + Sync {
    /// Signs a hash as it is. ECDSA takes only hashes of the length that belongs to the curve.
    fn sign(&self, hash: &[u8]) -> Result<Vec<u8>, Error>;
}

impl Encryption {
    /// Whether the algorithm authenticates by itself.
    #[must_use]
    pub fn is_aead(&self) -> bool {
        self.icv_len != 0
    }

    /// Octets of key proper.
    #[must_use]
    pub fn key_len(&self) -> usize {
        usize::from(self.key_bits / 8)
    }

    /// Octets of key material it takes: key, then salt.
    #[must_use]
    pub fn keymat_len(&self) -> usize {
        self.key_len() + self.salt_len
    }

    /// The cipher for IKEv1 messages under `key`, which has [`Encryption::key_len`] octets.
    ///
    /// # Errors
    /// [`Error::Unusable`] unless it is a CBC cipher, [`Error::KeyLength`], [`Error::WeakKey`].
    pub fn ike_cipher(&self, key: &[u8]) -> Result<Box<dyn IkeCipher>, Error> {
        match self.ike_cipher {
            Some(new) => new(key),
            None => Err(Error::Unusable { algorithm: self.keyword, purpose: "IKE messages" }),
        }
    }
}

impl Integrity {
    /// The MAC under `key`, which has [`Integrity::key_len`] octets.
    pub fn mac(&self, key: &[u8]) -> Result<Box<dyn Mac>, Error> {
        (self.new)(key)
    }
}

impl Hash {
    /// The digest of the concatenation of `parts`.
    #[must_use]
    pub fn digest(&self, parts: &[&[u8]]) -> Vec<u8> {
        (self.digest)(parts)
    }

    /// prf(key, parts), HMAC of this hash, untruncated (RFC 2409 4).
    #[must_use]
    pub fn prf(&self, key: &[u8], parts: &[&[u8]]) -> Secret {
        (self.hmac)(key, parts)
    }
}

impl Group {
    /// Draws an ephemeral secret and computes its public value.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a forbidden group, [`Error::Entropy`] if `entropy`
    /// yields nothing usable.
    pub fn generate(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
        match self.generate {
            Some(generate) => generate(entropy),
            None => Err(Error::Unusable { algorithm: self.keyword, purpose: "key exchange" }),
        }
    }

    /// Whether a peer's public value can be one of this group: its length, its range, on the
    /// curve, not of small order. Cheap, and needs no secret of ours: to be asked before
    /// [`Group::generate`], so that a worthless value costs nothing (RFC 6989 2).
    ///
    /// # Errors
    /// [`Error::PublicValue`] says what is wrong; [`Error::Unusable`] for a forbidden group.
    pub fn check(&self, peer: &[u8]) -> Result<(), Error> {
        match self.check {
            Some(check) => check(peer),
            None => Err(Error::Unusable { algorithm: self.keyword, purpose: "key exchange" }),
        }
    }
}

impl Signature {
    /// The private key in `der`: PKCS #8, or the algorithm's own form (PKCS #1, SEC 1), not encrypted.
    ///
    /// # Errors
    /// [`Error::PrivateKey`], [`Error::Unusable`] for a forbidden row.
    pub fn signing_key(&self, der: &[u8]) -> Result<Box<dyn SigningKey>, Error> {
        match self.signing_key {
            Some(new) => new(der),
            None => Err(Error::Unusable { algorithm: self.keyword, purpose: "signatures" }),
        }
    }

    /// Whether the owner of `public` signed `hash`. `public` is the subjectPublicKey of a
    /// certificate (RFC 5280 4.1.2.7), without its algorithm.
    ///
    /// # Errors
    /// [`Error::Signature`] if not; [`Error::PublicKey`] or [`Error::DataLength`] if it cannot be
    /// said, [`Error::Unusable`] for a forbidden row.
    pub fn verify(&self, public: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
        match self.verify {
            Some(verify) => verify(public, hash, signature),
            None => Err(Error::Unusable { algorithm: self.keyword, purpose: "signatures" }),
        }
    }
}

/// Finds a row by its keyword or one of its aliases, whatever the case.
macro_rules! by_keyword {
    ($rows:expr, $name:expr) => {
        $rows.iter().find(|row| {
            row.keyword.eq_ignore_ascii_case($name) || row.aliases.iter().any(|a| a.eq_ignore_ascii_case($name))
        })
    };
}
use by_keyword;

macro_rules! identity_by_keyword {
    ($($row:ty),*) => {$(
        impl PartialEq for $row {
            fn eq(&self, other: &Self) -> bool {
                self.keyword == other.keyword
            }
        }
        impl Eq for $row {}
        impl fmt::Debug for $row {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.keyword)
            }
        }
        impl fmt::Display for $row {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.keyword)
            }
        }
    )*};
}
identity_by_keyword!(Encryption, Integrity, Hash, Group, Signature);
