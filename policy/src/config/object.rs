//! One table of the file, read key by key; what is wrong is reported and reading goes on.

use super::diagnostic::Diagnostic;
use super::keys::{self, Section};
use super::nearest::did_you_mean;
use super::report::Report;
use super::source::{Located, Span};
use core::ops::RangeInclusive;
use toml::de::{DeTable, DeValue};

/// A table of the file with its keys checked to be known.
pub(super) struct Object<'t, 'r, 's> {
    /// How messages call it: ``host `web` ``, or `host 3` if it has no name.
    pub(super) label: String,
    /// Its header line.
    pub(super) header: Span,
    table: &'t DeTable<'t>,
    report: &'r mut Report<'s>,
}

impl<'t, 'r, 's> Object<'t, 'r, 's> {
    /// Opens a table, the `nth` (from 1) of its section, and reports keys it should not have.
    pub(super) fn open(
        section: &Section,
        nth: usize,
        table: &'t DeTable<'t>,
        header: Span,
        report: &'r mut Report<'s>,
    ) -> Self {
        let name = table.get("name").and_then(|v| v.get_ref().as_str()).filter(|n| !n.is_empty());
        let label = match name {
            Some(name) => format!("{} `{}`", section.name, shorten(name)),
            None if section.repeated => format!("{} {nth}", section.name),
            None => section.name.to_owned(),
        };
        for key in table.keys().filter(|k| !section.keys.contains(&&**k.get_ref())) {
            let (name, at) = (&**key.get_ref(), key.span().into());
            if let Some((_, instead)) = section.elsewhere.iter().find(|(known, _)| *known == name) {
                report.error(at, &label, format!("`{name}` is not supported")).suggest(*instead);
            } else {
                report
                    .error(
                        at,
                        &label,
                        format!("unknown key `{}`; expected one of {}", shorten(name), section.keys.join(", ")),
                    )
                    .suggest_if(keys::belongs(name).or_else(|| did_you_mean(name, section.keys.iter().copied())));
            }
        }
        Self { label, header, table, report }
    }

    /// Line of the header, from 1.
    pub(super) fn line(&self) -> usize {
        self.report.line(self.header)
    }

    /// Reports an error of this object.
    pub(super) fn error(&mut self, at: Span, message: impl AsRef<str>) -> &mut Diagnostic {
        self.report.error(at, &self.label, message)
    }

    /// Reports that a key, or one of several, is missing.
    pub(super) fn missing(&mut self, message: impl AsRef<str>) -> &mut Diagnostic {
        self.report.missing(self.header, &self.label, message)
    }

    /// Reports something odd in this object.
    pub(super) fn warning(&mut self, at: Span, message: impl AsRef<str>) -> &mut Diagnostic {
        self.report.warning(at, &self.label, message)
    }

    /// Whether a key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key's name stands; the header if it is not there.
    pub(super) fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or(self.header, |(k, _)| k.span().into())
    }

    fn value(&self, key: &str) -> Option<(&'t DeValue<'t>, Span)> {
        self.table.get(key).map(|v| (v.get_ref(), v.span().into()))
    }

    fn wrong_type(&mut self, at: Span, key: &str, found: &DeValue<'_>, expected: &str) {
        self.error(at, format!("`{key}` is {}; expected {expected}", kind(found)));
    }

    /// A string; `expected` says of what kind, as in "an address".
    pub(super) fn string(&mut self, key: &str, expected: &str) -> Option<Located<&'t str>> {
        let (value, at) = self.value(key)?;
        match value {
            DeValue::String(s) => Some(Located::new(&**s, at)),
            other => {
                self.wrong_type(at, key, other, &format!("a string: {expected}"));
                None
            }
        }
    }

    /// A string, or an integer as its decimal digits.
    pub(super) fn string_or_integer(&mut self, key: &str, expected: &str) -> Option<Located<String>> {
        let (value, at) = self.value(key)?;
        match value {
            DeValue::String(s) => Some(Located::new(s.to_string(), at)),
            DeValue::Integer(i) => {
                let digits =
                    i64::from_str_radix(i.as_str(), i.radix()).map_or_else(|_| i.to_string(), |n| n.to_string());
                Some(Located::new(digits, at))
            }
            other => {
                self.wrong_type(at, key, other, expected);
                None
            }
        }
    }

    /// A string or an array of strings. `None` when absent; wrong elements are reported and left out.
    pub(super) fn strings(&mut self, key: &str, expected: &str) -> Option<Located<Vec<Located<&'t str>>>> {
        let (value, at) = self.value(key)?;
        let values = match value {
            DeValue::String(s) => vec![Located::new(&**s, at)],
            DeValue::Array(items) => {
                let mut values = Vec::new();
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::String(s) => values.push(Located::new(&**s, item.span().into())),
                        other => {
                            self.wrong_type(item.span().into(), key, other, &format!("strings: {expected}"));
                        }
                    }
                }
                if items.is_empty() {
                    self.error(at, format!("`{key}` is empty; expected {expected}"));
                }
                values
            }
            other => {
                self.wrong_type(at, key, other, &format!("a string or an array of strings: {expected}"));
                Vec::new()
            }
        };
        Some(Located::new(values, at))
    }

    /// An integer in a range; `None` when absent or wrong.
    pub(super) fn integer(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<Located<u32>> {
        let (value, at) = self.value(key)?;
        let expected = format!("{} to {}", range.start(), range.end());
        match value {
            DeValue::Integer(i) => {
                let number = i64::from_str_radix(i.as_str(), i.radix()).ok().and_then(|n| u32::try_from(n).ok());
                let inside = number.filter(|n| range.contains(n));
                if inside.is_none() {
                    self.error(at, format!("`{key}` is {}; expected {expected}", shorten(&i.to_string())));
                }
                inside.map(|n| Located::new(n, at))
            }
            DeValue::String(s) if s.parse::<u32>().is_ok_and(|n| range.contains(&n)) => {
                self.error(at, format!("`{key}` is a string; expected an integer, {expected}"))
                    .suggest(format!("write it without quotes: {key} = {s}"));
                None
            }
            other => {
                self.wrong_type(at, key, other, &format!("an integer, {expected}"));
                None
            }
        }
    }

    /// An integer in a range of 16 bits.
    pub(super) fn integer_u16(&mut self, key: &str, range: RangeInclusive<u16>) -> Option<u16> {
        let wide = u32::from(*range.start())..=u32::from(*range.end());
        self.integer(key, wide).and_then(|n| u16::try_from(n.value).ok())
    }

    /// `true` or `false`; false when absent.
    pub(super) fn boolean(&mut self, key: &str) -> bool {
        match self.value(key) {
            Some((DeValue::Boolean(b), _)) => *b,
            Some((other, at)) => {
                self.wrong_type(at, key, other, "true or false");
                false
            }
            None => false,
        }
    }

    /// One of some words, upper or lower case.
    pub(super) fn one_of<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<Located<T>> {
        let list = words.iter().map(|(w, _)| *w).collect::<Vec<_>>().join(", ");
        let given = self.string(key, &list)?;
        match words.iter().find(|(w, _)| w.eq_ignore_ascii_case(given.value)) {
            Some((_, meaning)) => Some(Located::new(*meaning, given.at)),
            None => {
                self.error(given.at, format!("`{key}` is {}; expected one of {list}", quoted(given.value)))
                    .suggest_if(did_you_mean(given.value, words.iter().map(|(w, _)| *w)));
                None
            }
        }
    }

    /// The name of the object: it must have one.
    pub(super) fn name(&mut self) -> Option<Located<String>> {
        if !self.has("name") {
            self.missing("`name` is missing").suggest("give it one: 1 to 63 letters, digits, `-` and `_`");
        }
        let name = self.string("name", "1 to 63 letters, digits, `-` and `_`")?;
        let proper = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.value.is_empty() || name.value.len() > 63 || !name.value.chars().all(proper) {
            self.error(
                name.at,
                format!(
                    "the name {} is not allowed; expected 1 to 63 ASCII letters, digits, `-` and `_`",
                    quoted(name.value)
                ),
            );
            return None;
        }
        Some(Located::new(name.value.to_owned(), name.at))
    }
}

/// What a value is: `an integer`.
pub(super) fn kind(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// A value as messages show it.
pub(super) fn quoted(value: &str) -> String {
    format!("`{}`", shorten(value))
}

/// At most 60 characters of one line. No value has several; one that seems to has
/// swallowed what follows it, perhaps a key.
fn shorten(value: &str) -> String {
    const MOST: usize = 60;
    let line = value.lines().next().unwrap_or("");
    if line.len() == value.len() && line.chars().count() <= MOST {
        value.to_owned()
    } else {
        line.chars().take(MOST - 1).chain(['…']).collect()
    }
}
