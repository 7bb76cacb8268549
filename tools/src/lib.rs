//! The daemon and its commands.

pub mod applet;
pub mod control;
pub mod demo;
pub mod ipsecd;
pub mod report;
