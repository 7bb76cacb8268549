//! `[gateway]`: interfaces between which the packet path forwards.

use super::model::{Gateway, Startup};
use super::object::{Object, quoted};
use super::startup::is_interface;
use std::collections::BTreeMap;

/// Most workers of all interfaces together: each has a ring of its own.
const MOST_WORKERS: usize = 8;
const NAMES: &str = "names of Ethernet interfaces";

/// Reads it; `None`: it is wrong, and reported.
pub(super) fn read(mut object: Object<'_, '_, '_>, startup: &Startup) -> Option<Gateway> {
    let mut sides = [Vec::new(), Vec::new()];
    let mut named = BTreeMap::new();
    let mut wrong = false;
    for (side, key) in sides.iter_mut().zip(["inside", "outside"]) {
        if !object.has(key) {
            object.missing(format!("`{key}` is missing; expected {NAMES}"));
        }
        let names = object.strings(key, NAMES).map(|names| names.value).unwrap_or_default();
        wrong |= names.is_empty();
        for name in names {
            let refused = if !is_interface(name.value) {
                Some(format!("`{key}`: {} cannot be the name of an interface", quoted(name.value)))
            } else if name.value == startup.interface {
                Some(format!("`{key}`: {} is the TUN interface (`startup.interface`)", quoted(name.value)))
            } else {
                let before = named.insert(name.value, key);
                before.map(|before| format!("`{key}`: {} is already named under `{before}`", quoted(name.value)))
            };
            if let Some(refused) = refused {
                wrong = true;
                object.error(name.at, format!("{refused}; expected {NAMES}, each once"));
            } else {
                side.push(name.value.to_owned());
            }
        }
    }
    let workers = match object.has("workers") {
        true => object.integer("workers", 1..=MOST_WORKERS as u32).map(|n| (n.value, n.at)),
        false => None,
    };
    wrong |= object.has("workers") && workers.is_none();
    let count = workers.map_or(1, |(count, _)| count);
    let [inside, outside] = sides;
    let interfaces = inside.len() + outside.len();
    if interfaces * count as usize > MOST_WORKERS {
        let at = workers.map_or_else(|| object.key_span("inside"), |(_, at)| at);
        object.error(
            at,
            format!("{interfaces} interfaces with {count} workers each are too many; expected at most {MOST_WORKERS} workers in all"),
        );
        wrong = true;
    }
    (!wrong).then_some(Gateway { inside, outside, workers: count })
}
