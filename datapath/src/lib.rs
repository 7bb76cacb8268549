//! The packet path.

pub mod io;
