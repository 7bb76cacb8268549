//! What criterion wrote: a directory for each benchmark, with its name and its estimates.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// One benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// As in `cargo bench -- GROUP/FUNCTION/PARAMETER`.
    pub function: String,
    /// May be empty.
    pub parameter: String,
    /// Median time of one iteration, in nanoseconds, and the bounds of its 95 % confidence interval.
    pub median: f64,
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
}

/// All benchmarks by group.
pub type Results = BTreeMap<String, Vec<Measured>>;

/// A file of criterion's that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what criterion writes.
    #[error("{}: {what}; was it written by another version of criterion?", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Reads all results below a directory, usually `target/criterion`.
pub fn read(directory: &Path) -> Result<Results, ReadError> {
    let mut results = Results::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(path) = directories.pop() {
        let failed = |source| ReadError::Io { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            if entry.is_dir() {
                directories.push(entry);
            }
        }
        // The newest run of a benchmark; `base` beside it is an older one.
        if path.file_name().is_some_and(|name| name == "new") && path.join("benchmark.json").is_file() {
            let (group, measured) = one(&path)?;
            results.entry(group).or_default().push(measured);
        }
    }
    for group in results.values_mut() {
        group.sort_by(|a, b| {
            (&a.function, number(&a.parameter))
                .partial_cmp(&(&b.function, number(&b.parameter)))
                .unwrap_or(core::cmp::Ordering::Equal)
        });
    }
    Ok(results)
}

fn one(path: &Path) -> Result<(String, Measured), ReadError> {
    let name = json(&path.join("benchmark.json"))?;
    let estimates_path = path.join("estimates.json");
    let estimates = json(&estimates_path)?;
    let text = |key: &str| name[key].as_str().unwrap_or_default().to_string();
    let number = |value: &Value, what: &str| {
        let format = || ReadError::Format { path: estimates_path.clone(), what: format!("no number `{what}`") };
        value.as_f64().ok_or_else(format)
    };
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    Ok((
        text("group_id"),
        Measured {
            function: text("function_id"),
            parameter: text("value_str"),
            median: number(&median["point_estimate"], "median.point_estimate")?,
            lower: number(&interval["lower_bound"], "median.confidence_interval.lower_bound")?,
            upper: number(&interval["upper_bound"], "median.confidence_interval.upper_bound")?,
        },
    ))
}

fn json(path: &Path) -> Result<Value, ReadError> {
    let text = fs::read_to_string(path).map_err(|source| ReadError::Io { path: path.to_path_buf(), source })?;
    serde_json::from_str(&text).map_err(|e| ReadError::Format { path: path.to_path_buf(), what: e.to_string() })
}

/// A parameter as a series and a number: `1000` is `("", 1000)`, `acl_1000` is `("acl", 1000)`.
#[must_use]
pub fn number(parameter: &str) -> (&str, f64) {
    let (series, digits) = parameter.rsplit_once('_').unwrap_or(("", parameter));
    match digits.parse() {
        Ok(number) => (series, number),
        Err(_) => (parameter, f64::INFINITY),
    }
}
