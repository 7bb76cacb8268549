//! Internet Key Exchange: the wire codec and the state machines of IKEv1.
//!
//! Everything here is pure: the time, randomness and configuration are
//! arguments, datagrams go in and come out ([`Engine`]).
//!
//! What was decided where the RFCs leave a choice:
//!
//! - A responder takes the first of the initiator's proposals that its own
//!   configuration accepts, in the initiator's order.
//! - Lifetimes need not agree: the shorter one counts on both sides, and an
//!   initiator that offered a longer one in quick mode is told so
//!   (RESPONDER-LIFETIME). Only absurd ones, below a minute, are a mismatch.
//! - A responder of a quick mode decrypts from message 2 on and encrypts from
//!   message 3 on; an initiator encrypts a moment after it has sent message 3.
//! - A pair is replaced before it ends; the old one receives for a few seconds
//!   more, and is deleted by the side whose exchange made the new one.
//! - Of two quick modes for one tunnel that cross, the one with the lower
//!   initiator's nonce gives way (after RFC 7296 2.8.1); of two main modes that
//!   cross, the one with the lower initiator's cookie is deleted afterwards.
//! - Pairs outlive the ISAKMP SA they were made under. A quick mode that fails
//!   leaves its ISAKMP SA as it is, unless `quick_mode_failure` says otherwise.
//! - What is not authenticated changes nothing: it is shown, and explains a
//!   failure that comes anyway; or the peer is asked whether it is still there.
//! - We do not set the commit bit. Where the peer does, we encrypt only when its
//!   CONNECTED has come, or some seconds have passed without: nobody repeats it,
//!   and the bit itself is not authenticated.
//! - After `max_quick_modes` of them, whoever began, we begin no more under an
//!   ISAKMP SA; it is not deleted but replaced when the next one is needed, as
//!   some peers drop their pairs with the ISAKMP SA. A peer may begin as many;
//!   one more is refused, and a new ISAKMP SA negotiated.
//! - A side that only responds begins nothing from nothing, but replaces what
//!   there is before it ends, should its peer not do so.
//! - INVALID-SPI deletes nothing, not even authenticated: the pair is replaced.
#![forbid(unsafe_code)]

mod engine;
mod failure;
mod fragment;
mod ids;
mod informational;
mod keys;
mod main_mode;
mod mode_config;
mod nat;
mod proposal;
mod protection;
mod quick_mode;
pub mod report;
mod retransmit;
mod schedule;
mod transaction;
mod vendor;
pub mod wire;

pub use engine::{Command, Datagram, Discarded, Engine, FragmentCounts, Output};
pub use failure::Role;
pub use mode_config::Assignment;
pub use nat::NatState;
pub use report::{IsakmpReport, IsakmpState, PairReport, PairState, TunnelReport, TunnelState};
