//! The look of HP-UX reports: banners, and labelled values in two columns.

use core::fmt;
use std::io::{self, Write};

/// Column in which the second value of a row begins.
const SECOND_COLUMN: usize = 40;
/// Dashes before a banner's title, and the width that dashes fill up after it.
const BANNER_LEAD: usize = 19;
const BANNER_WIDTH: usize = 64;

/// A labelled value; `None` is not shown.
pub(super) type Field = (&'static str, Option<String>);

/// A value that is known.
pub(super) fn is(value: impl fmt::Display) -> Option<String> {
    Some(value.to_string())
}

/// A value that may be known.
pub(super) fn may<T: fmt::Display>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(T::to_string)
}

/// A value with its unit that may be known.
pub(super) fn may_in<T: fmt::Display>(value: &Option<T>, unit: &str) -> Option<String> {
    value.as_ref().map(|v| format!("{v} {unit}"))
}

/// `Yes` or `No`.
pub(super) fn yes_no(value: bool) -> Option<String> {
    is(if value { "Yes" } else { "No" })
}

/// A list, or nothing if it is empty.
pub(super) fn list<T: fmt::Display>(values: &[T]) -> Option<String> {
    (!values.is_empty()).then(|| values.iter().map(T::to_string).collect::<Vec<_>>().join(", "))
}

/// `------------------- Cache Policy Rule -----------------------`
pub(super) fn banner(out: &mut dyn Write, title: &str) -> io::Result<()> {
    let tail = BANNER_WIDTH.saturating_sub(BANNER_LEAD + 2 + title.chars().count()).max(4);
    writeln!(out, "{:-<BANNER_LEAD$} {title} {:-<tail$}", "", "")
}

/// `-- SA Number 1 --`
pub(super) fn heading(out: &mut dyn Write, title: &str) -> io::Result<()> {
    writeln!(out, "-- {title} --")
}

/// One or two fields on a line; nothing if none is known.
pub(super) fn row(out: &mut dyn Write, fields: &[Field]) -> io::Result<()> {
    let mut line = String::new();
    for (label, value) in fields {
        let Some(value) = value else { continue };
        if !line.is_empty() {
            let width = line.chars().count();
            line.extend(core::iter::repeat_n(' ', SECOND_COLUMN.saturating_sub(width).max(2)));
        }
        line.push_str(label);
        line.push_str(": ");
        push_printable(&mut line, value);
    }
    if line.is_empty() { Ok(()) } else { writeln!(out, "{line}") }
}

/// Counters, one per line, their values aligned.
pub(super) fn counters(out: &mut dyn Write, title: &str, counters: &super::CounterMap) -> io::Result<()> {
    if counters.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}:")?;
    let width = counters.keys().map(String::len).max().unwrap_or(0);
    counters.iter().try_for_each(|(name, value)| writeln!(out, "  {name:<width$}  {value}"))
}

/// Control characters are escaped: some values come from peers, and must not steer a terminal.
fn push_printable(line: &mut String, value: &str) {
    for c in value.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(fields: &[Field]) -> String {
        let mut out = Vec::new();
        row(&mut out, fields).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_that_are_not_known_leave_no_trace() {
        assert_eq!(rendered(&[("A", None), ("B", None)]), "");
        assert_eq!(rendered(&[("A", None), ("B", is(1))]), "B: 1\n");
    }

    #[test]
    fn the_second_column_is_aligned_but_never_glued() {
        assert_eq!(rendered(&[("A", is(1)), ("B", is(2))]).find('B'), Some(SECOND_COLUMN));
        let long = "x".repeat(SECOND_COLUMN);
        assert_eq!(rendered(&[("A", is(&long)), ("B", is(2))]), format!("A: {long}  B: 2\n"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(rendered(&[("ID", is("a\x1b[2J\nb\u{9b}"))]), "ID: a\\u{1b}[2J\\nb\\u{9b}\n");
    }
}
