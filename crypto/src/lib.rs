//! The algorithm table of Caponier and the implementations behind it.
//!
//! [`table`] has one row per algorithm; configuration, negotiation, reports and
//! tests iterate it, and nobody else matches on algorithm numbers. Randomness is
//! an argument ([`Entropy`]), but for what protects a private key while it signs
//! ([`table::SigningKey`]); secrets zeroize ([`Secret`]).
#![deny(unsafe_code)] // lifted in signature/rsa_raw.rs and lanes/ alone

pub mod entropy;
mod exchange;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod mac;
mod message;
pub mod packet;
pub mod password;
pub mod secret;
mod signature;
pub mod suite;
pub mod table;

pub use entropy::Entropy;
pub use secret::Secret;
pub use suite::{EspSuite, IkeSuite, SuiteError};
