//! Audit levels as `-auditlvl` spells them, for messages and documents.

use ::policy::audit::Level;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a level in lower case.
pub fn serialize<S: Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&level.to_string().to_ascii_lowercase())
}

/// Reads a level.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Level, D::Error> {
    let name = String::deserialize(from)?;
    name.parse().map_err(D::Error::custom)
}
