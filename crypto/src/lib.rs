//! The algorithm table of Caponier and the implementations behind it.
//!
//! [`table`] has one row per algorithm; configuration, negotiation, reports and
//! tests iterate it, and nobody else matches on algorithm numbers. Randomness is
//! always an argument ([`Entropy`]); secrets zeroize ([`Secret`]).
#![forbid(unsafe_code)]

pub mod entropy;
mod exchange;
mod mac;
mod message;
pub mod packet;
pub mod secret;
pub mod suite;
pub mod table;

pub use entropy::Entropy;
pub use secret::Secret;
pub use suite::{EspSuite, IkeSuite, SuiteError};
