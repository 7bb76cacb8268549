//! Secrets and trust: where the daemon gets an answer when a negotiation asks
//! for a key, for a signature, or whether a certificate may be believed.
//!
//! `ike` never looks any of this up: it asks with an event and goes on when the
//! answer comes, so that a slow source never holds a negotiation of somebody
//! else. Pre-shared keys come from the configuration ([`preshared`]), certificates,
//! private keys and CRLs from files ([`credentials`]), users and their passwords from another ([`users`]), whose octets and the time of
//! day are arguments here. So are CRLs that the caller has fetched, and of which [`ProvenCrl`] has seen who signed them;
//! which are missing, [`Credentials::missing_crls`] says.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod credentials;
mod crl;
mod date;
pub mod encoding;
pub mod preshared;
pub mod users;
mod validation;

pub use certificate::Certificate;
pub use credentials::Credentials;
pub use crl::{ProvenCrl, Unproven};
pub use preshared::PresharedKeys;
pub use users::Users;
pub use validation::MissingCrl;
