//! Criterion benchmarks, and what they share.

pub mod flows;
pub mod report;
pub mod rule_sets;
pub mod tables;
