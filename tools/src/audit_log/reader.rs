//! Audit files, read back.

use serde::Serialize;
use std::io::{self, BufRead};

/// An entry of an audit file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Message number of the entity; 0 where it has none.
    pub number: u32,
    /// Who spoke, e.g. `IKMPD`.
    pub entity: String,
    /// How urgent, e.g. `ERROR`.
    pub level: String,
    /// When, as written.
    pub date: String,
    /// What.
    pub text: String,
}

/// What a file has at some place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// A line, by its number from 1, that belongs to no entry.
    Stray(u64),
}

/// Reads a file entry by entry.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    line: u64,
    /// A line that was read to see whether it belongs to the entry before it.
    ahead: Option<String>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the start of a file.
    pub fn new(from: R) -> Self {
        Self { from, line: 0, ahead: None }
    }

    /// The next line that is not empty, without its end; octets that are no UTF-8 are replaced.
    fn next_line(&mut self) -> io::Result<Option<String>> {
        if let Some(line) = self.ahead.take() {
            return Ok(Some(line));
        }
        let mut octets = Vec::new();
        loop {
            octets.clear();
            if self.from.read_until(b'\n', &mut octets)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let line = String::from_utf8_lossy(octets.trim_ascii_end());
            if !line.is_empty() {
                return Ok(Some(line.into_owned()));
            }
        }
    }

    fn next_item(&mut self) -> io::Result<Option<Item>> {
        let Some(line) = self.next_line()? else { return Ok(None) };
        let at = self.line;
        let Some(mut entry) = head(&line) else { return Ok(Some(Item::Stray(at))) };
        match self.next_line()? {
            Some(event) => match event.strip_prefix("Event:") {
                Some(text) => {
                    entry.text = text.trim_start().to_owned();
                    Ok(Some(Item::Entry(entry)))
                }
                None => {
                    self.ahead = Some(event);
                    Ok(Some(Item::Stray(at)))
                }
            },
            None => Ok(Some(Item::Stray(at))),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_item().transpose()
    }
}

/// `Msg: N From: ENTITY Lvl: LEVEL Date: ...`
fn head(line: &str) -> Option<Entry> {
    let rest = line.strip_prefix("Msg: ")?;
    let (number, rest) = rest.split_once(" From: ")?;
    let (entity, rest) = rest.split_once(" Lvl: ")?;
    let (level, date) = rest.split_once(" Date: ")?;
    let number = number.trim().parse().ok()?;
    Some(Entry {
        number,
        entity: entity.trim().into(),
        level: level.trim().into(),
        date: date.into(),
        text: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::audit::{AuditEvent, Entity, Level};

    fn items(file: &[u8]) -> Vec<Item> {
        Reader::new(file).map(|i| i.unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let event = |number, text: &str| AuditEvent {
            number,
            entity: Entity::Ikmpd,
            level: Level::Error,
            text: text.to_owned(),
        };
        let date = "Sat Nov 21 02:54:19 2026";
        let file = format!("{}\n{}\n", event(31, "one\nEvent: forged").render(date), event(0, "").render(date));
        let entry = |number, text: &str| {
            Item::Entry(Entry {
                number,
                entity: "IKMPD".into(),
                level: "ERROR".into(),
                date: date.into(),
                text: text.into(),
            })
        };
        assert_eq!(items(file.as_bytes()), [entry(31, "one\\u{a}Event: forged"), entry(0, "")]);
    }

    #[test]
    fn damage_costs_only_the_entry_it_hits() {
        let file = b"garbage \xff\nMsg: 1 From: IKMPD Lvl: ERROR Date: D\nMsg: 2 From: IKMPD Lvl: ERROR Date: D\n\
                     Event: two\nMsg: x From: IKMPD Lvl: ERROR Date: D\nMsg: 3 From: IKMPD";
        let found = items(file);
        assert_eq!(found.len(), 5);
        assert_eq!(
            [&found[0], &found[1], &found[3], &found[4]],
            [&Item::Stray(1), &Item::Stray(2), &Item::Stray(5), &Item::Stray(6)]
        );
        assert!(matches!(&found[2], Item::Entry(e) if e.number == 2 && e.text == "two"));
    }
}
