//! What is said about a configuration file: where, how bad, what was expected, what to do.

use core::fmt;
use serde::Serialize;

/// Whether a configuration can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted, but probably does not do what was meant.
    Warning,
}

/// One finding. It never holds a secret: neither the words nor the quoted line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The object it is about, ``host `web` ``; empty when it is about the file as a whole.
    pub object: String,
    /// What was found and what was expected.
    pub message: String,
    /// The next step: ``did you mean `protocol`?``.
    pub suggestion: Option<String>,
    /// The line of the file, secrets masked; absent where it cannot be shown safely.
    pub excerpt: Option<String>,
    /// How many characters of the line, from `column`, it is about; at least 1.
    pub width: usize,
}

impl Diagnostic {
    /// Adds the next step.
    pub(super) fn suggest(&mut self, suggestion: impl Into<String>) {
        self.suggestion = Some(super::source::printable(&suggestion.into()));
    }

    /// Adds the next step, if there is one.
    pub(super) fn suggest_if(&mut self, suggestion: Option<String>) {
        if let Some(s) = suggestion {
            self.suggest(s);
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// ``caponier.toml:12:1: error: host `web`: unknown key `protcol`; did you mean `protocol`?``,
/// then the line of the file with carets under what is meant. No newline at the end.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: ", self.file, self.line, self.column, self.severity)?;
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        f.write_str(&self.message)?;
        if let Some(s) = &self.suggestion {
            write!(f, "; {s}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            let (before, marks) = (self.column.saturating_sub(1), "^".repeat(self.width.max(1)));
            write!(f, "\n{:5} | {excerpt}\n      | {:before$}{marks}", self.line, "")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
