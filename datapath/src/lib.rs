//! The packet path of Caponier: from clear packets to ESP and back, in batches.

pub mod esp;
pub mod headers;
pub mod io;
pub mod mtu;
pub mod outer;
pub mod packet;
pub mod replay;
pub mod sa;
#[cfg(test)]
mod testing;
