//! Audit levels as `-auditlvl` spells them, for messages and documents.

use ::policy::audit::Level;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Every level, most to least urgent.
pub const LEVELS: [Level; 5] = [Level::Alert, Level::Error, Level::Warning, Level::Informative, Level::Debug];

/// The level of a name, in either case.
#[must_use]
pub fn parse(name: &str) -> Option<Level> {
    LEVELS.into_iter().find(|l| l.to_string().eq_ignore_ascii_case(name))
}

/// Writes a level in lower case.
pub fn serialize<S: Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&level.to_string().to_ascii_lowercase())
}

/// Reads a level.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Level, D::Error> {
    let name = String::deserialize(from)?;
    parse(&name).ok_or_else(|| D::Error::custom(format!("{name:?} is no audit level")))
}
