//! The text of a configuration file: offsets to lines and columns, and lines that may be shown.

use core::ops::Range;

/// A part of the text, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(r: Range<usize>) -> Self {
        Self { start: r.start, end: r.end }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Span,
}

/// Lines longer than this are not quoted.
const LONGEST_EXCERPT: usize = 200;

/// A configuration file.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    /// Whether there is, or seems to be, a string over several lines.
    multi_line: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let line_starts = core::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let multi_line = text.contains("\"\"\"") || text.contains("'''");
        Self { file, text, line_starts, multi_line }
    }

    /// Line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// Column of an offset in characters, from 1.
    pub(super) fn column(&self, offset: usize) -> usize {
        let start = self.line_starts.get(self.line(offset) - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or("");
        before.chars().count() + 1
    }

    /// Characters of the span that stand on its first line.
    pub(super) fn width(&self, span: Span) -> usize {
        let text = self.text.get(span.start..span.end).unwrap_or("");
        text.lines().next().unwrap_or("").chars().count()
    }

    /// The lines that lose their meaning with this one: itself and, if it is a
    /// header, all up to the next.
    pub(super) fn orphans(&self, line: usize) -> Range<usize> {
        let is_header = |line: &usize| self.line_text(*line).is_some_and(|t| t.trim_start().starts_with('['));
        if !is_header(&line) {
            return line..line + 1;
        }
        let end = self.line_starts.len() + 1;
        line..(line + 1..end).find(is_header).unwrap_or(end)
    }

    /// A line without its end, from 1.
    fn line_text(&self, line: usize) -> Option<&'a str> {
        let start = *self.line_starts.get(line.checked_sub(1)?)?;
        self.text.get(start..)?.lines().next()
    }

    /// A line as it may be shown: the values of keys that could be secret are
    /// masked, control characters replaced. `None` when it cannot be told what is secret.
    ///
    /// The text may not even be TOML, so this looks at words alone and shows a
    /// value only after a key that is known not to be a secret: a mistyped
    /// `preshraed` is masked too.
    pub(super) fn excerpt(&self, line: usize) -> Option<String> {
        // Lines inside such a string look like anything.
        if self.multi_line {
            return None;
        }
        let text = self.line_text(line)?;
        if text.len() > LONGEST_EXCERPT {
            return None;
        }
        let shown = match classify(text) {
            Line::Harmless => text.to_owned(),
            Line::Continuation if self.continues_harmless(line) => text.to_owned(),
            Line::Continuation => "***".to_owned(),
            Line::Secret { shown_until } => format!("{} ***", text.get(..shown_until).unwrap_or("")),
        };
        Some(printable(&shown))
    }

    /// Whether the value that an earlier line began, and this one goes on, is harmless.
    fn continues_harmless(&self, line: usize) -> bool {
        (1..line)
            .rev()
            .filter_map(|l| self.line_text(l))
            .map(classify)
            .find(|l| *l != Line::Continuation)
            .is_some_and(|l| l == Line::Harmless)
    }
}

#[derive(PartialEq)]
enum Line {
    Harmless,
    /// Goes on with the value of an earlier line.
    Continuation,
    Secret {
        shown_until: usize,
    },
}

fn classify(line: &str) -> Line {
    let trimmed = line.trim_start();
    if let Some(equals) = line.find('=') {
        let key = line.get(..equals).unwrap_or("").trim();
        // A second `=` may belong to a second key on the same line.
        let lower = line.to_ascii_lowercase();
        let one_key = line.matches('=').count() == 1 && !lower.contains("preshar") && !lower.contains("passphr");
        return if one_key && super::keys::is_public(key) {
            Line::Harmless
        } else {
            Line::Secret { shown_until: equals + 1 }
        };
    }
    let without_comment = trimmed.split('#').next().unwrap_or("").trim_end();
    let header = trimmed.starts_with('[') && without_comment.ends_with(']') && !trimmed.contains(['"', '\'']);
    if trimmed.is_empty() || header {
        Line::Harmless
    } else if trimmed.starts_with(['"', '\'', ']', '[', ',', '#']) || trimmed.starts_with(|c: char| c.is_ascii_digit())
    {
        Line::Continuation
    } else {
        Line::Secret { shown_until: 0 }
    }
}

/// The text with control characters, which could play tricks on a terminal, replaced;
/// a tab becomes one space so that columns stay right.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}
