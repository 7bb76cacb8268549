//! Pre-shared keys of the authentication records.

use crypto::Secret;
use policy::config::Config;
use std::collections::HashMap;

/// The pre-shared keys of a configuration, by the name of the authentication record.
#[derive(Debug, Default)]
pub struct PresharedKeys(HashMap<String, Secret>);

impl PresharedKeys {
    /// Takes the keys out of a checked configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self(config.auths.iter().filter_map(|a| Some((a.name.clone(), a.preshared.clone()?))).collect())
    }

    /// The key of the record called `auth_record`, if it exists and has one.
    #[must_use]
    pub fn secret(&self, auth_record: &str) -> Option<Secret> {
        self.0.get(auth_record).cloned()
    }

    /// Number of keys held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
