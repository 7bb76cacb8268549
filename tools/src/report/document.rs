//! A whole report, written as its records come in: text, or one JSON document
//! `{ "version": 1, "sad": [ ... ], "cache": [ ... ] }` with a member for every section asked for,
//! empty or not. `status` and `cache_table`, of which there is one, are objects instead of arrays.

use super::{Record, Section, text};
use serde::Serialize;
use std::io::{self, Write};

/// Version of the JSON documents.
pub const VERSION: u32 = 1;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A report that is being written.
pub struct Document<'a> {
    out: &'a mut dyn Write,
    format: Format,
    /// Sections still to come, the current one first, the last one at the start.
    pending: Vec<Section>,
    /// Records of the current section.
    records: u64,
}

impl<'a> Document<'a> {
    /// Begins a report of `sections`, in that order.
    pub fn begin(out: &'a mut dyn Write, format: Format, sections: &[Section]) -> io::Result<Self> {
        if format == Format::Json {
            write!(out, "{{\"version\":{VERSION}")?;
        }
        let mut document = Self { out, format, pending: sections.iter().rev().copied().collect(), records: 0 };
        document.open()?;
        Ok(document)
    }

    /// Adds a record. Records come section by section, in the order of the report.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        while self.pending.last().is_some_and(|s| *s != record.section()) {
            self.close()?;
            self.open()?;
        }
        if self.pending.is_empty() {
            let text = format!("the daemon sent a record of section {} out of order", record.section().name());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        match self.format {
            Format::Text => {
                if self.records > 0 {
                    writeln!(self.out)?;
                }
                text::record(self.out, record)?;
            }
            Format::Json => {
                let separator = if self.records > 0 { ",\n" } else { "\n" };
                match record {
                    Record::Status(r) => json(self.out, "", r)?,
                    Record::Ip(r) => json(self.out, separator, r)?,
                    Record::Bypass(r) => json(self.out, separator, r)?,
                    Record::Host(r) => json(self.out, separator, r)?,
                    Record::Tunnel(r) => json(self.out, separator, r)?,
                    Record::Ike(r) => json(self.out, separator, r)?,
                    Record::Auth(r) => json(self.out, separator, r)?,
                    Record::Pool(r) => json(self.out, separator, r)?,
                    Record::Mad(r) => json(self.out, separator, r)?,
                    Record::Sad(r) => json(self.out, separator, r)?,
                    Record::CacheTable(r) => json(self.out, "", r)?,
                    Record::Cache(r) => json(self.out, separator, r)?,
                }
            }
        }
        self.records += 1;
        Ok(())
    }

    /// Ends the report.
    pub fn finish(mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            self.close()?;
            self.open()?;
        }
        if self.format == Format::Json {
            writeln!(self.out, "}}")?;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        self.records = 0;
        match (self.format, self.pending.last()) {
            (Format::Json, Some(section)) if section.is_single() => write!(self.out, ",\n\"{}\":", section.name()),
            (Format::Json, Some(section)) => write!(self.out, ",\n\"{}\":[", section.name()),
            _ => Ok(()),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(section) = self.pending.pop() else { return Ok(()) };
        match (self.format, section) {
            (Format::Json, section) if section.is_single() && self.records == 0 => write!(self.out, "null"),
            (Format::Json, section) if section.is_single() => Ok(()),
            (Format::Json, _) => write!(self.out, "]"),
            (Format::Text, _) => {
                if self.records == 0 {
                    text::empty(self.out, section)?;
                }
                if self.pending.is_empty() { Ok(()) } else { writeln!(self.out) }
            }
        }
    }
}

fn json<T: Serialize>(out: &mut dyn Write, separator: &str, record: &T) -> io::Result<()> {
    out.write_all(separator.as_bytes())?;
    serde_json::to_writer(out, record).map_err(io::Error::from)
}
