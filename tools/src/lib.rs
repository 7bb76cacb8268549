//! The daemon and its commands.

pub mod applet;
pub mod control;
pub mod demo;
pub mod guard;
pub mod ipsecd;
pub mod net;
pub mod report;
