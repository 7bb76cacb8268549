//! Internet Key Exchange.
#![forbid(unsafe_code)]

pub mod wire;
