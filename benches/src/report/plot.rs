//! A group of results as a plot: time over size, both logarithmic, one line for each function.

use super::markdown::nanoseconds;
use super::results::{Measured, number};
use core::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
/// Left, top, right (room for names), bottom.
const MARGIN: [f64; 4] = [64.0, 44.0, 190.0, 52.0];
/// Colours that people who confuse red and green can tell apart (Okabe and Ito); ours is the first.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000"];

struct Line<'a> {
    name: String,
    points: Vec<&'a Measured>,
}

/// The plot, as SVG; `None` if there are not two sizes to draw a line between.
#[must_use]
pub fn svg(group: &str, measured: &[Measured]) -> Option<String> {
    let lines = lines(measured);
    let sizes = || lines.iter().flat_map(|l| &l.points).map(|m| number(&m.parameter).1);
    let times = || lines.iter().flat_map(|l| &l.points).map(|m| m.median);
    let (left, right) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    if lines.is_empty() || left >= right {
        return None;
    }
    let (low, high) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let (low, high) = (round_down(low), round_up(high));
    let [margin_left, margin_top, margin_right, margin_bottom] = MARGIN;
    let (width, height) = (WIDTH - margin_left - margin_right, HEIGHT - margin_top - margin_bottom);
    let x = |size: f64| margin_left + (size / left).ln() / (right / left).ln() * width;
    let y = |time: f64| margin_top + height - (time / low).ln() / (high / low).ln() * height;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{margin_left}\" y=\"24\" font-size=\"16\" font-weight=\"bold\" fill=\"#222222\">{group}</text>\n\
         <text x=\"{:.0}\" y=\"24\" text-anchor=\"end\" fill=\"#666666\">ns an iteration; both axes logarithmic</text>\n",
        WIDTH - 12.0
    );
    for time in grid(low, high) {
        let _ = writeln!(
            out,
            "<line x1=\"{margin_left}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#444444\">{time}</text>",
            margin_left + width,
            y(time),
            margin_left - 8.0,
            y(time) + 4.0
        );
    }
    let mut marked: Vec<f64> = sizes().collect();
    marked.sort_by(f64::total_cmp);
    marked.dedup();
    for size in marked {
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{margin_top}\" y2=\"{1:.1}\" stroke=\"#f0f0f0\"/>\
             <text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\" fill=\"#444444\">{3}</text>",
            x(size),
            margin_top + height,
            margin_top + height + 20.0,
            short(size)
        );
    }
    let mut labels: Vec<(f64, usize)> = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let points: Vec<String> =
            line.points.iter().map(|m| format!("{:.1},{:.1}", x(number(&m.parameter).1), y(m.median))).collect();
        let weight = if line.name.starts_with("caponier") { 3 } else { 2 };
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{weight}\"/>",
            points.join(" ")
        );
        for m in &line.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{} at {}: {} ns</title></circle>",
                x(number(&m.parameter).1),
                y(m.median),
                line.name,
                m.parameter,
                nanoseconds(m.median)
            );
        }
        if let Some(last) = line.points.last() {
            labels.push((y(last.median), n));
        }
    }
    // Names at the ends of the lines, apart from each other.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (wanted, n) in labels {
        let at = wanted.max(lowest + 15.0);
        lowest = at;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
            margin_left + width + 10.0,
            at + 4.0,
            COLOURS[n % COLOURS.len()],
            lines[n].name
        );
    }
    out.push_str("</svg>\n");
    Some(out)
}

/// A line for each function and, where parameters are like `acl_1000`, each set.
fn lines(measured: &[Measured]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for m in measured.iter().filter(|m| number(&m.parameter).1.is_finite()) {
        let (series, _) = number(&m.parameter);
        let name = if series.is_empty() { m.function.clone() } else { format!("{} {series}", m.function) };
        match lines.iter_mut().find(|l| l.name == name) {
            Some(line) => line.points.push(m),
            None => lines.push(Line { name, points: vec![m] }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| number(&a.parameter).1.total_cmp(&number(&b.parameter).1));
    }
    lines
}

/// 1, 2 and 5 times powers of ten, between two times.
fn grid(low: f64, high: f64) -> impl Iterator<Item = f64> {
    (0..12).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10f64.powi(power))).filter(move |t| (low..=high).contains(t))
}

fn round_down(time: f64) -> f64 {
    grid(0.0, time).last().unwrap_or(1.0)
}

fn round_up(time: f64) -> f64 {
    grid(time, f64::INFINITY).next().unwrap_or(time)
}

/// 1000 as `1 k`.
fn short(size: f64) -> String {
    match size {
        s if s >= 1e6 => format!("{} M", s / 1e6),
        s if s >= 1e3 => format!("{} k", s / 1e3),
        s => format!("{s}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(function: &str, parameter: &str, median: f64) -> Measured {
        Measured { function: function.into(), parameter: parameter.into(), median, lower: median, upper: median }
    }

    #[test]
    fn every_point_and_name_is_drawn_within_the_frame() {
        let all: Vec<_> = ["caponier", "papaya", "dashmap"]
            .iter()
            .flat_map(|f| [("1000", 7.0), ("1000000", 150.0)].map(|(p, t)| measured(f, p, t)))
            .collect();
        let svg = svg("group", &all).unwrap();
        assert_eq!(svg.matches("<circle").count(), 6);
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert!(svg.contains(">1 k<") && svg.contains(">1 M<") && svg.contains(">papaya<"), "{svg}");
        for part in svg.split("cy=\"").skip(1) {
            let y: f64 = part.split('"').next().unwrap().parse().unwrap();
            assert!((MARGIN[1]..=HEIGHT - MARGIN[3]).contains(&y), "{y}");
        }
    }

    #[test]
    fn one_size_is_no_plot() {
        assert!(svg("group", &[measured("a", "1000", 1.0), measured("b", "1000", 2.0)]).is_none());
        assert!(svg("group", &[measured("a", "gcm", 1.0), measured("a", "cbc", 2.0)]).is_none());
        assert!(svg("group", &[]).is_none());
    }
}
