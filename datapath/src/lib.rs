//! The packet path.

pub mod io;
pub mod mtu;
