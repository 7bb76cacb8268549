//! Results as tables, each cell with its ratio to ours of the same run.

use super::results::{Measured, Results, number};
use core::fmt::Write;

/// What others are compared with, in the order of preference.
const OURS: [&str; 2] = ["caponier_batch", "caponier"];

/// Tables of all groups. `machine` says where they were measured, `plots` the groups that have a plot.
#[must_use]
pub fn document(results: &Results, machine: &str, plots: &[String]) -> String {
    let mut out = format!(
        "# Results\n\nWritten by `tools/bench-report` from what `cargo bench -p benches` measured. Medians in nanoseconds an\n\
         iteration; in brackets how many times longer than `{}`, or `{}` where there is no batch, takes for the same.\n\
         Only ratios within a column mean anything: the machine's speed drifts.\n\n{machine}\n",
        OURS[0], OURS[1]
    );
    for (group, measured) in results {
        let _ = write!(out, "\n## {group}\n\n");
        if plots.contains(group) {
            let _ = write!(out, "![{group}](plots/{group}.svg)\n\n");
        }
        table(&mut out, measured);
    }
    out
}

fn table(out: &mut String, measured: &[Measured]) {
    let mut parameters: Vec<&str> = measured.iter().map(|m| m.parameter.as_str()).collect();
    parameters.sort_by(|a, b| number(a).partial_cmp(&number(b)).unwrap_or(core::cmp::Ordering::Equal));
    parameters.dedup();
    let mut functions: Vec<&str> = measured.iter().map(|m| m.function.as_str()).collect();
    functions.dedup();
    let at = |function: &str, parameter: &str| {
        measured.iter().find(|m| m.function == function && m.parameter == parameter).map(|m| m.median)
    };
    let ours = OURS.iter().find(|ours| functions.contains(ours));
    let _ = writeln!(out, "| | {} |", parameters.join(" | "));
    let _ = writeln!(out, "|---|{}", "--:|".repeat(parameters.len()));
    for function in &functions {
        let _ = write!(out, "| `{function}` |");
        for parameter in &parameters {
            let reference = ours.and_then(|ours| at(ours, parameter));
            let _ = match (at(function, parameter), reference) {
                (None, _) => write!(out, " |"),
                (Some(time), Some(reference)) if ours != Some(function) => {
                    write!(out, " {} ({:.2}) |", nanoseconds(time), time / reference)
                }
                (Some(time), _) => write!(out, " {} |", nanoseconds(time)),
            };
        }
        out.push('\n');
    }
}

/// Three digits that matter.
#[must_use]
pub fn nanoseconds(time: f64) -> String {
    match time {
        t if t < 10.0 => format!("{t:.2}"),
        t if t < 100.0 => format!("{t:.1}"),
        t => format!("{t:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(function: &str, parameter: &str, median: f64) -> Measured {
        Measured { function: function.into(), parameter: parameter.into(), median, lower: median, upper: median }
    }

    #[test]
    fn ratios_are_to_ours_in_the_same_column() {
        let results = Results::from([(
            "g".to_string(),
            vec![
                measured("caponier", "1000", 20.0),
                measured("caponier_batch", "1000", 10.0),
                measured("caponier_batch", "10000", 4.0),
                measured("papaya", "1000", 25.0),
                measured("papaya", "10000", 1000.0),
            ],
        )]);
        let text = document(&results, "a machine", &["g".into()]);
        assert!(text.contains("![g](plots/g.svg)"), "{text}");
        assert!(text.contains("| | 1000 | 10000 |\n|---|--:|--:|\n"), "{text}");
        assert!(text.contains("| `caponier` | 20.0 (2.00) | |\n"), "{text}");
        assert!(text.contains("| `caponier_batch` | 10.0 | 4.00 |\n"), "{text}");
        assert!(text.contains("| `papaya` | 25.0 (2.50) | 1000 (250.00) |\n"), "{text}");
    }
}
