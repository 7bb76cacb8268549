//! Secrets and trust: where the daemon gets an answer when a negotiation asks
//! for a key.
//!
//! `ike` never looks a secret up: it asks with an event and goes on when the
//! answer comes, so that a slow source never holds a negotiation of somebody
//! else. Today's source is the configuration ([`preshared`]).
#![forbid(unsafe_code)]

pub mod preshared;

pub use preshared::PresharedKeys;
