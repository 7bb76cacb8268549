//! What `benches/tunnel --json` wrote, as tables and bars.

use core::fmt::Write;
use serde::Deserialize;

/// One tunnel in one test.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Its name; ours begin with `caponier`.
    pub tunnel: String,
    /// What was sent.
    pub test: String,
    /// Of the rates.
    pub unit: String,
    /// Whether super-packets were cut before the link.
    pub segmented: bool,
    /// Median of the rounds.
    pub median: f64,
    /// To the bare link, median of the rounds' ratios.
    pub ratio_to_plain: Option<f64>,
    /// Of ours, to the best of the others; median of the rounds' ratios.
    pub ratio_to_best_peer: Option<f64>,
    /// The rates, round by round.
    pub rounds: Vec<f64>,
    /// Processor time of the whole machine, iperf3 included.
    pub cpu_seconds_per_gigabit: f64,
    /// UDP: share of the datagrams. TCP: segments sent again.
    pub lost: f64,
    /// Datagrams that came out of order, all rounds together.
    pub reordered: u64,
}

/// Rows of the file.
///
/// # Errors
/// If the text is not what `benches/tunnel` writes.
pub fn read(text: &str) -> serde_json::Result<Vec<Row>> {
    serde_json::from_str(text)
}

/// Tests in the order of the rows, with their rows.
fn by_test(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|x, y| x.test == y.test)
}

/// A section of the report; `plot` is the name of its plot.
#[must_use]
pub fn section(rows: &[Row], plot: &str) -> String {
    let segmented = rows.first().is_some_and(|row| row.segmented);
    let link = if segmented {
        "super-packets are cut before they cross the link, as before a network card without offloads"
    } else {
        "super-packets cross the link, a veth, whole"
    };
    let mut out = format!(
        "\n## {plot}\n\nTwo hosts in network namespaces, both ends and iperf3 on the same processors; {link}. Medians of the rounds, \
         with the least and the most; ratios are medians of those within a round. CPU: the whole machine's, iperf3 included, for a \
         gigabit that arrived.\n\n![{plot}](plots/{plot}.svg)\n"
    );
    for rows in by_test(rows) {
        let Some(first) = rows.first() else { continue };
        let _ = write!(
            out,
            "\n| {} | {} | of plain | of the best peer | CPU s a Gbit | lost | reordered |\n|---|--:|--:|--:|--:|--:|--:|\n",
            first.test, first.unit
        );
        for row in rows {
            let (least, most) = row.rounds.iter().fold((f64::INFINITY, 0.0_f64), |(l, m), r| (l.min(*r), m.max(*r)));
            let ratio = |ratio: Option<f64>, digits: usize| ratio.map_or("-".into(), |r| format!("{r:.digits$}"));
            let lost = if row.test.starts_with("udp") {
                format!("{:.1} %", row.lost * 100.0)
            } else {
                format!("{:.0} segments", row.lost)
            };
            let _ = writeln!(
                out,
                "| `{}` | {:.0} ({least:.0} to {most:.0}) | {} | {} | {:.3} | {lost} | {} |",
                row.tunnel,
                row.median,
                ratio(row.ratio_to_plain, 3),
                ratio(row.ratio_to_best_peer, 2),
                row.cpu_seconds_per_gigabit,
                row.reordered
            );
        }
    }
    out
}

const WIDTH: f64 = 860.0;
/// Where bars begin and how long the longest is; names are before, numbers behind.
const BARS: [f64; 2] = [210.0, 540.0];
/// Height of a bar with the space to the next, and of a heading.
const STEP: f64 = 20.0;

/// A bar for each row, tests one below the other, each on a scale of its own.
#[must_use]
pub fn svg(rows: &[Row]) -> String {
    let height = by_test(rows).map(|rows| STEP * (rows.len() as f64 + 2.0)).sum::<f64>() + STEP;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut y = STEP;
    for rows in by_test(rows) {
        let most = rows.iter().map(|row| row.median).fold(0.0, f64::max);
        if let Some(first) = rows.first() {
            y += STEP;
            let _ = writeln!(
                out,
                "<text x=\"12\" y=\"{:.1}\" font-size=\"14\" font-weight=\"bold\" fill=\"#222222\">{}, {}</text>",
                y - 6.0,
                first.test,
                first.unit
            );
        }
        for row in rows {
            let length = if most > 0.0 { row.median / most * BARS[1] } else { 0.0 };
            let colour = if row.tunnel.starts_with("caponier") { "#0072b2" } else { "#999999" };
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{1:.1}\" text-anchor=\"end\" fill=\"#222222\">{2}</text>\
                 <rect x=\"{3}\" y=\"{4:.1}\" width=\"{length:.1}\" height=\"{5}\" fill=\"{colour}\"/>\
                 <text x=\"{6:.1}\" y=\"{1:.1}\" fill=\"#444444\">{7:.0}</text>",
                BARS[0] - 8.0,
                y + 14.0,
                row.tunnel,
                BARS[0],
                y + 3.0,
                STEP - 5.0,
                BARS[0] + length + 6.0,
                row.median
            );
            y += STEP;
        }
        y += STEP;
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"[
        {"tunnel": "plain", "test": "tcp1", "unit": "Mbit/s", "segmented": false, "median": 20000.0, "ratio_to_plain": 1.0,
         "ratio_to_best_peer": null, "rounds": [19000.0, 20000.0, 21000.0], "cpu_seconds_per_gigabit": 0.1, "lost": 3.0,
         "reordered": 0},
        {"tunnel": "caponier-gcm", "test": "tcp1", "unit": "Mbit/s", "segmented": false, "median": 5000.0,
         "ratio_to_plain": 0.25, "ratio_to_best_peer": 2.5, "rounds": [5000.0], "cpu_seconds_per_gigabit": 0.4, "lost": 0.0,
         "reordered": 0},
        {"tunnel": "other", "test": "udp64", "unit": "kpps", "segmented": false, "median": 90.0, "ratio_to_plain": 0.1,
         "ratio_to_best_peer": null, "rounds": [90.0], "cpu_seconds_per_gigabit": 9.0, "lost": 0.25, "reordered": 7}]"#;

    #[test]
    fn each_row_is_in_the_table_of_its_test() {
        let text = section(&read(FILE).unwrap(), "tunnel");
        assert!(text.contains("![tunnel](plots/tunnel.svg)"), "{text}");
        assert!(text.contains("| `plain` | 20000 (19000 to 21000) | 1.000 | - | 0.100 | 3 segments | 0 |\n"), "{text}");
        assert!(
            text.contains("| `caponier-gcm` | 5000 (5000 to 5000) | 0.250 | 2.50 | 0.400 | 0 segments | 0 |\n"),
            "{text}"
        );
        assert!(text.contains("\n| udp64 | kpps |"), "{text}");
        assert!(text.contains("| `other` | 90 (90 to 90) | 0.100 | - | 9.000 | 25.0 % | 7 |\n"), "{text}");
    }

    #[test]
    fn bars_are_as_long_as_what_they_stand_for() {
        let svg = svg(&read(FILE).unwrap());
        assert!(svg.contains("width=\"540.0\"") && svg.contains("width=\"135.0\""), "{svg}");
        assert_eq!(svg.matches("fill=\"#0072b2\"").count(), 1);
    }

    #[test]
    fn another_file_is_refused() {
        assert!(read("[{}]").is_err());
        assert!(read("").is_err());
    }
}
