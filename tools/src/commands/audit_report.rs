//! `ipsec_report -audit FILE`: an audit file, formatted.

use super::Failure;
use crate::audit_log::reader::{Entry, Item, Reader};
use crate::report::document::{Format, VERSION};
use policy::audit::Entity;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

/// Shows a file, or of it what one entity said. Lines that are no entries are shown as such.
pub(super) fn show(path: &Path, entity: Option<&str>, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let wanted = entity.map(str::parse::<Entity>).transpose().map_err(Failure::new)?.map(|e| e.to_string());
    let failed = |e: std::io::Error| Failure::Failed(format!("cannot read audit file {}: {e}", path.display()));
    let items = Reader::new(BufReader::new(File::open(path).map_err(failed)?));
    let (mut shown, mut entries, mut stray) = (0u64, 0u64, Vec::new());
    if format == Format::Json {
        write!(out, "{{\"version\":{VERSION},\n\"audit\":[")?;
    }
    for item in items {
        match item.map_err(failed)? {
            Item::Stray(line) => stray.push(line),
            Item::Entry(entry) => {
                entries += 1;
                if wanted.as_ref().is_none_or(|w| entry.entity.eq_ignore_ascii_case(w)) {
                    write_entry(&entry, shown == 0, format, out)?;
                    shown += 1;
                }
            }
        }
    }
    if format == Format::Json {
        write!(out, "],\n\"stray_lines\":")?;
        serde_json::to_writer(&mut *out, &stray).map_err(std::io::Error::from)?;
        writeln!(out, "}}")?;
    }
    match stray.first() {
        Some(_) if entries == 0 => {
            Err(Failure::Failed(format!("{} is not an audit file: no line of it begins an entry", path.display())))
        }
        Some(first) => {
            let count = stray.len();
            Err(Failure::Failed(format!("{}:{first}: {count} line(s) from here on belong to no entry", path.display())))
        }
        None => Ok(()),
    }
}

fn write_entry(entry: &Entry, first: bool, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    match format {
        Format::Text => {
            let Entry { number, entity, level, date, text } = entry;
            let gap = if first { "" } else { "\n" };
            writeln!(out, "{gap}Msg: {number} From: {entity} Lvl: {level} Date: {date}\nEvent: {text}")
        }
        Format::Json => {
            out.write_all(if first { b"\n" } else { b",\n" })?;
            Ok(serde_json::to_writer(out, entry)?)
        }
    }
}
