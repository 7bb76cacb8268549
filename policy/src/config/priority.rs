//! Priorities: unique, lowest first, given automatically where the file names none.

use super::object::Object;
use super::report::Report;
use super::source::{Located, Span};
use std::collections::BTreeMap;

/// Distance of an automatic priority from the highest so far, as HP-UX's profile.
const INCREMENT: u32 = 10;

/// Highest priority.
const HIGHEST: u32 = i32::MAX as u32;

/// What an object says of its priority.
pub(super) enum Priority {
    /// Nothing: the highest so far and 10 more.
    Automatic,
    /// This.
    Named(Located<u32>),
    /// Something wrong, which was reported.
    Wrong,
}

/// Reads `priority`.
pub(super) fn read(object: &mut Object<'_, '_, '_>) -> Priority {
    match object.integer("priority", 1..=HIGHEST) {
        Some(n) => Priority::Named(n),
        None if object.has("priority") => Priority::Wrong,
        None => Priority::Automatic,
    }
}

/// Gives every object, in the order of the file, its priority, and reports those that are not unique.
pub(super) fn assign<'o>(
    objects: impl Iterator<Item = (&'o str, Span, &'o Priority)>,
    report: &mut Report<'_>,
) -> Vec<u32> {
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    let mut assigned = Vec::new();
    for (label, header, priority) in objects {
        let highest = taken.last_key_value().map_or(0, |(p, _)| *p);
        let (value, at, origin) = match priority {
            Priority::Named(n) => (n.value, n.at, ""),
            Priority::Automatic => (highest.saturating_add(INCREMENT), header, ", given by itself"),
            Priority::Wrong => {
                assigned.push(highest);
                continue;
            }
        };
        assigned.push(value);
        let line = report.line(header);
        if value > HIGHEST {
            report
                .missing(header, label, format!("no priority is left after {highest}; the highest is {HIGHEST}"))
                .suggest("give it a `priority`");
        } else if let Some(other) = taken.get(&value) {
            report
                .error(at, label, format!("priority {value} is already that of {other}; expected a unique one"))
                .suggest("leave it out to come after all before");
        } else {
            taken.insert(value, format!("{label} (line {line}{origin})"));
        }
    }
    assigned
}
