//! The policy engine of Caponier: selectors, ordered policies, the caches the
//! packet path asks, limits, the configuration and audit events. No I/O, no
//! clock, no randomness: those are arguments.

pub mod audit;
pub mod bypass;
pub mod cache;
pub mod classifier;
pub mod config;
pub mod counters;
pub mod explain;
pub mod five_tuple;
pub mod identity;
pub mod limits;
pub mod sa;
pub mod sad;
pub mod selector;
pub mod session;
pub mod spd;
pub mod spi;
mod sync;
pub mod time;
pub mod transform;
pub mod trust;
