//! Criterion's results as a document: tables with ratios, and plots.

pub mod markdown;
pub mod plot;
pub mod results;
pub mod tunnel;
