//! Criterion benchmarks, and what they work on.

pub mod rule_sets;
