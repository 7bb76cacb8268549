//! Signatures that authenticate a peer (RFC 2409 5.1, RFC 4754), one file per
//! family of keys.
//!
//! What is signed is HASH_I or HASH_R as it is: no hash is made of it, and no
//! name of a hash goes into the signature. The nonce of ECDSA and the blinding of
//! RSA are the library's own: a caller who chose them could give the key away.

pub(crate) mod ecdsa;
pub(crate) mod rsa;
pub(crate) mod rsa_raw;
