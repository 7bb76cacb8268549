//! The packet path of Caponier: from clear packets to ESP and back, in batches.

mod ah;
pub mod esp;
pub mod event;
pub mod forward;
mod fragment;
pub mod headers;
pub mod io;
pub mod mtu;
pub mod offload;
pub mod outer;
pub mod packet;
pub mod pipeline;
pub mod replay;
pub mod sa;
pub mod sessions;
pub mod shared;
#[cfg(test)]
mod testing;
pub mod turn;

pub use event::{Event, IkeDatagram};
pub use io::{Datapath, DatapathConfig, StartError};
pub use sa::{InboundSa, OutboundSa, SaEvent};
pub use shared::{Pair, PairError, Shared};
