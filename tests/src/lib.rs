//! Whole-system tests: what they share.
//!
//! The tests themselves stand in `tests/tests`. Those against real peers need
//! root: each makes network namespaces of its own ([`lab::Lab`]), starts daemons
//! in them ([`strongswan`], [`caponier`]), sends traffic ([`traffic`]), captures
//! the wire ([`capture`]) and asks independent judges ([`judge`]). Every wait
//! has a deadline; everything is ended and deleted when the `Lab` goes.
#![allow(clippy::print_stderr)] // the test harness captures it, and shows it for a failure

pub mod caponier;
pub mod capture;
pub mod cases;
pub mod endpoint;
pub mod fuzzed;
pub mod judge;
pub mod lab;
pub mod need;
pub mod pki;
pub mod process;
pub mod strongswan;
pub mod traffic;
pub mod vici;
pub mod wait;
