//! What the user sees, and what was checked.

use std::io::{IsTerminal, Write};

/// Width to which names of checks and keys are padded.
const KEY: usize = 14;

/// The demo's output: numbered steps, and a verdict that remembers what failed.
pub(super) struct Show {
    colour: bool,
    step: u32,
    checks: u32,
    failed: Vec<String>,
}

impl Show {
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, step: 0, checks: 0, failed: Vec::new() }
    }

    /// Begins a numbered step.
    pub(super) fn step(&mut self, title: &str) {
        self.step += 1;
        let line = format!("{:>2}  {title}", self.step);
        self.print(&format!("\n{}", self.paint("1", &line)));
    }

    /// A key and what is to be said of it.
    pub(super) fn fact(&self, key: &str, text: &str) {
        self.print(&format!("    {key:<KEY$} {text}"));
    }

    /// Lines of a command's output, under the command; at most `limit` of them.
    pub(super) fn output(&self, command: &str, text: &str, limit: usize) {
        self.print(&format!("    {}", self.paint("36", &format!("$ {command}"))));
        let lines: Vec<_> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        for line in lines.iter().take(limit) {
            self.print(&format!("      {line}"));
        }
        if lines.len() > limit {
            self.print(&format!("      ... and {} lines more", lines.len() - limit));
        }
    }

    /// Something that must be true, with what was found.
    pub(super) fn check(&mut self, what: &str, holds: bool, found: &str) {
        self.checks += 1;
        let mark = if holds { self.paint("32", "ok") } else { self.paint("31", "NO") };
        self.print(&format!("    {mark}  {what}{}{found}", if found.is_empty() { "" } else { ": " }));
        if !holds {
            self.failed.push(format!("{what}{}{found}", if found.is_empty() { "" } else { ": " }));
        }
    }

    /// Something that stopped the demo.
    pub(super) fn failure(&mut self, what: &str) {
        self.failed.push(what.to_owned());
    }

    /// The last words; whether everything that was checked was true.
    pub(super) fn verdict(&self) -> bool {
        if self.failed.is_empty() {
            let line = format!("All {} checks passed.", self.checks);
            self.print(&format!("\n{}", self.paint("1;32", &line)));
            return true;
        }
        self.print(&format!("\n{}", self.paint("1;31", "Not everything was as it should be:")));
        for what in &self.failed {
            self.print(&format!("  - {what}"));
        }
        false
    }

    /// A line as it is.
    pub(super) fn print(&self, text: &str) {
        // Whoever closed our output does not want to hear of it.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
