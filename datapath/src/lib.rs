//! The packet path of Caponier: from clear packets to ESP and back, in batches.

pub mod headers;
pub mod io;
pub mod mtu;
pub mod packet;
pub mod replay;
