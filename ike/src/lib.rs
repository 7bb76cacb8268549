//! Internet Key Exchange: the wire codec and the state machines of IKEv1.
//!
//! Everything here is pure: the time, randomness and configuration are
//! arguments, datagrams go in and come out ([`Engine`]).
#![forbid(unsafe_code)]

mod engine;
mod failure;
mod ids;
mod informational;
mod keys;
mod main_mode;
mod nat;
mod proposal;
mod protection;
mod quick_mode;
pub mod report;
mod retransmit;
mod schedule;
mod vendor;
pub mod wire;

pub use engine::{Command, Datagram, Discarded, Engine, Output};
pub use failure::Role;
pub use nat::NatState;
pub use report::{IsakmpReport, IsakmpState, PairReport, PairState, TunnelReport, TunnelState};
