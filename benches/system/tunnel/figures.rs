//! Medians, ratios within a round, and how they are shown.

use crate::iperf::{Measured, TESTS, Test};
use core::fmt::Write;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What was measured of one tunnel in one test, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rounds: Vec<Measured>,
}

impl Figures {
    fn of(&self, figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.rounds.iter().map(figure).collect()
    }

    fn rates(&self) -> Vec<f64> {
        self.of(|m| m.rate)
    }
}

/// A tunnel with its figures by test.
pub(crate) type Row = (&'static str, BTreeMap<Test, Figures>);

/// Ours, which are compared with the others.
fn is_ours(name: &str) -> bool {
    name.starts_with("caponier")
}

/// The middle one.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// The ratios of each round's rate to that of the best of the others in the same round.
fn ratios(rates: &[f64], others: &[Vec<f64>]) -> Vec<f64> {
    let best = |round: usize| others.iter().filter_map(|o| o.get(round).copied()).reduce(f64::max);
    let ratio = |(round, rate): (usize, &f64)| best(round).map(|best| rate / best);
    rates.iter().enumerate().filter_map(ratio).collect()
}

/// One row of the report.
struct Line<'a> {
    tunnel: &'a str,
    test: Test,
    figures: &'a Figures,
    to_plain: Option<f64>,
    /// To the best tunnel that is not ours; of ours only.
    to_best_peer: Option<f64>,
}

fn lines(all: &[Row]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for test in TESTS {
        let rates = |wanted: &dyn Fn(&str) -> bool| -> Vec<Vec<f64>> {
            let of = all.iter().filter(|(name, _)| wanted(name));
            of.filter_map(|(_, tests)| Some(tests.get(&test)?.rates())).collect()
        };
        let plain = rates(&|name| name == "plain");
        let peers = rates(&|name| name != "plain" && !is_ours(name));
        for (tunnel, tests) in all {
            let Some(figures) = tests.get(&test) else { continue };
            let to_plain = median(ratios(&figures.rates(), &plain));
            let to_best_peer = is_ours(tunnel).then(|| median(ratios(&figures.rates(), &peers))).flatten();
            lines.push(Line { tunnel, test, figures, to_plain, to_best_peer });
        }
    }
    lines
}

/// An array of an object for each tunnel and test.
pub(crate) fn json(all: &[Row], segmented: bool) -> Value {
    let line = |line: Line<'_>| {
        let figures = line.figures;
        json!({
            "tunnel": line.tunnel, "test": line.test.name(), "unit": line.test.unit(), "segmented": segmented,
            "median": median(figures.rates()), "ratio_to_plain": line.to_plain,
            "ratio_to_best_peer": line.to_best_peer, "rounds": figures.rates(),
            "cpu_seconds_per_gigabit": median(figures.of(|m| m.cpu)),
            "lost": median(figures.of(|m| m.lost)),
            "reordered": figures.rounds.iter().map(|m| m.reordered).sum::<u64>(),
        })
    };
    lines(all).into_iter().map(line).collect()
}

/// The same to read.
pub(crate) fn table(all: &[Row], segmented: bool) -> String {
    let link = if segmented { "super-packets cut before the link" } else { "super-packets cross the link whole" };
    let mut out = format!(
        "Medians, with the least and the most of the rounds; {link}.\n\n\
         | test | tunnel | rate | of plain | of the best peer | CPU s a Gbit | lost | reordered |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n"
    );
    for Line { tunnel, test, figures, to_plain, to_best_peer } in lines(all) {
        let rates = figures.rates();
        let (least, most) =
            (rates.iter().copied().fold(f64::INFINITY, f64::min), rates.iter().copied().fold(0.0, f64::max));
        let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let lost = median(figures.of(|m| m.lost)).unwrap_or_default();
        let lost = match test {
            Test::Tcp1 | Test::Tcp4 => format!("{lost:.0} segments"),
            Test::Udp64 | Test::Udp1400 => format!("{:.1} %", lost * 100.0),
        };
        let _ = writeln!(
            out,
            "| {} | {tunnel} | {} ({least:.0} to {most:.0}) {} | {} | {} | {} | {lost} | {} |",
            test.name(),
            number(median(rates.clone()), 0),
            test.unit(),
            number(to_plain, 3),
            number(to_best_peer, 2),
            number(median(figures.of(|m| m.cpu)), 3),
            figures.rounds.iter().map(|m| m.reordered).sum::<u64>(),
        );
    }
    out
}
