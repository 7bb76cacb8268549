//! The daemon and its commands.

pub mod applet;
pub mod audit_log;
pub mod commands;
pub mod config_file;
pub mod control;
pub mod credentials;
pub mod demo;
pub mod guard;
pub mod ipsecd;
pub mod net;
pub mod report;
pub mod revocation;
pub mod user_store;
pub mod wall_clock;
