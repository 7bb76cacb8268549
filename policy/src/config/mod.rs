//! The configuration: one TOML file, checked whole before anything starts.

pub mod model;

pub use model::*;
