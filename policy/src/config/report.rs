//! Collects what is found in a file, so that all of it is reported and not just the first.

use super::diagnostic::{Diagnostic, Severity};
use super::source::{Located, Source, Span, printable};
use std::collections::BTreeSet;

/// Everything found so far.
pub(super) struct Report<'a> {
    source: Source<'a>,
    found: Vec<Finding>,
    /// Lines that are not TOML, and those under a header that is not. What else
    /// is wrong on them only follows from that.
    broken: BTreeSet<usize>,
}

struct Finding {
    diagnostic: Diagnostic,
    reason: Reason,
}

#[derive(Clone, Copy, PartialEq)]
enum Reason {
    Syntax,
    Value,
    /// Something is missing, perhaps only because its line is not TOML.
    Absence,
}

impl<'a> Report<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self { source, found: Vec::new(), broken: BTreeSet::new() }
    }

    /// Line of a span, from 1.
    pub(super) fn line(&self, at: Span) -> usize {
        self.source.line(at.start)
    }

    /// The text is not TOML here.
    pub(super) fn syntax(&mut self, at: Span, message: &str) -> &mut Diagnostic {
        self.broken.extend(self.source.orphans(self.line(at)));
        self.add(Severity::Error, Reason::Syntax, at, "", message)
    }

    /// A value is wrong.
    pub(super) fn error(&mut self, at: Span, object: &str, message: impl AsRef<str>) -> &mut Diagnostic {
        self.add(Severity::Error, Reason::Value, at, object, message.as_ref())
    }

    /// Something that must be there is not.
    pub(super) fn missing(&mut self, at: Span, object: &str, message: impl AsRef<str>) -> &mut Diagnostic {
        self.add(Severity::Error, Reason::Absence, at, object, message.as_ref())
    }

    /// Something is odd.
    pub(super) fn warning(&mut self, at: Span, object: &str, message: impl AsRef<str>) -> &mut Diagnostic {
        self.add(Severity::Warning, Reason::Value, at, object, message.as_ref())
    }

    fn add(&mut self, severity: Severity, reason: Reason, at: Span, object: &str, message: &str) -> &mut Diagnostic {
        let line = self.source.line(at.start);
        let excerpt = self.source.excerpt(line);
        let length = excerpt.as_ref().map_or(usize::MAX, |e| e.chars().count());
        let column = self.source.column(at.start);
        // A masked line is shorter than the line: the mark stays under what is shown.
        let width = self.source.width(at).min(length.saturating_sub(column - 1)).max(1);
        let excerpt = excerpt.filter(|_| column <= length + 1);
        let diagnostic = Diagnostic {
            severity,
            file: printable(self.source.file),
            line,
            column,
            object: one_line(object),
            message: one_line(message),
            suggestion: None,
            excerpt,
            width,
        };
        self.found.push(Finding { diagnostic, reason });
        let last = self.found.len() - 1;
        &mut self.found[last].diagnostic
    }

    /// Whether the file must be refused.
    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|f| f.diagnostic.severity == Severity::Error)
    }

    /// All findings in the order of the file.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Self { found, broken, .. } = self;
        let follows = |f: &Finding| match f.reason {
            Reason::Syntax => false,
            Reason::Value => broken.contains(&f.diagnostic.line),
            Reason::Absence => !broken.is_empty(),
        };
        let mut all: Vec<_> = found.into_iter().filter(|f| !follows(f)).map(|f| f.diagnostic).collect();
        all.sort_by_key(|d| (d.line, d.column, d.severity));
        all.dedup();
        all
    }
}

/// Words hold no line break of their own: where there is one, a value has
/// swallowed lines that follow it, perhaps with a key.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    if line.len() == text.len() { printable(line) } else { printable(line) + "…" }
}

impl<T> Located<T> {
    pub(super) fn new(value: T, at: Span) -> Self {
        Self { value, at }
    }
}
