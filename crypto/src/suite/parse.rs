//! Suites as people write them.

use super::nearest::nearest;
use super::{EspSuite, IkeSuite};
use crate::table::{ENCRYPTIONS, Encryption, GROUPS, Group, HASHES, Hash, INTEGRITIES, Integrity, Status};
use core::str::FromStr;

/// Why a text is not a suite that can be used. The text is ours, so whoever
/// wrote it has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// A part that names nothing we know.
    #[error("unknown {part} '{name}' in '{suite}'{}", did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// The whole text.
        suite: String,
        /// What the part should have been.
        part: &'static str,
        /// The part.
        name: String,
        /// The known name most like it, if any is.
        nearest: Option<String>,
    },
    /// A part that must not be used.
    #[error("{name} in '{suite}' must not be used: {reason}; use {instead}")]
    Forbidden {
        /// The whole text.
        suite: String,
        /// Keyword of the part.
        name: &'static str,
        /// Why it is forbidden.
        reason: &'static str,
        /// What to write in its place.
        instead: &'static str,
    },
    /// A part that has to be there.
    #[error("'{suite}' names no {part}; write for example '{example}'")]
    Missing {
        /// The whole text.
        suite: String,
        /// What is missing.
        part: &'static str,
        /// A complete suite like this one.
        example: String,
    },
    /// An integrity algorithm beside an AEAD, which is one itself.
    #[error("'{suite}': {encryption} authenticates by itself; write it without '{integrity}'")]
    NeedlessIntegrity {
        /// The whole text.
        suite: String,
        /// Keyword of the AEAD.
        encryption: &'static str,
        /// The part too many.
        integrity: String,
    },
    /// An integrity algorithm of AH in ESP.
    #[error(
        "'{suite}': {integrity} is no integrity algorithm of ESP beside a cipher; write '{integrity}' alone for ESP that encrypts nothing, or sha256"
    )]
    OnlyForAh {
        /// The whole text.
        suite: String,
        /// Its keyword.
        integrity: &'static str,
    },
    /// Something after the last part.
    #[error("'{suite}' is complete before '{rest}'; leave that away")]
    TooMuch {
        /// The whole text.
        suite: String,
        /// What is too much.
        rest: String,
    },
    /// An encryption algorithm that protects packets only.
    #[error("'{suite}': {encryption} is for ESP only; IKE messages are encrypted with {instead}")]
    NotForIke {
        /// The whole text.
        suite: String,
        /// Keyword of the encryption.
        encryption: &'static str,
        /// What to write in its place.
        instead: &'static str,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

impl FromStr for EspSuite {
    type Err = SuiteError;

    /// As [`EspSuite::parse_with_group`], but a group is too much.
    fn from_str(text: &str) -> Result<Self, SuiteError> {
        match Self::parse_with_group(text)? {
            (suite, None) => Ok(suite),
            (_, Some(group)) => {
                Err(SuiteError::TooMuch { suite: text.trim().to_owned(), rest: format!("-{}", group.keyword) })
            }
        }
    }
}

impl EspSuite {
    /// Parses `aes128-sha1`, `aes256gcm16`, or HP-UX's `ESP_AES128_HMAC_SHA1`,
    /// in any case, each optionally followed by the group of perfect forward
    /// secrecy: `aes128-sha1-modp2048`.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write instead.
    pub fn parse_with_group(text: &str) -> Result<(Self, Option<&'static Group>), SuiteError> {
        let text = Text(text.trim());
        let upper = text.0.to_ascii_uppercase();
        if upper.starts_with("ESP_") {
            let (name, group) = match text.0.split_once('-') {
                Some((name, group)) => (name, Some(text.group(group)?)),
                None => (text.0, None),
            };
            return Ok((text.hpux_transform(name)?, group));
        }

        let mut parts = text.0.split('-').peekable();
        let encryption = text.encryption(parts.next().unwrap_or_default())?;
        let integrity = if encryption.is_aead() {
            if let Some(part) = parts.peek().filter(|part| Integrity::from_keyword(part).is_some()) {
                return Err(SuiteError::NeedlessIntegrity {
                    suite: text.0.to_owned(),
                    encryption: encryption.keyword,
                    integrity: (*part).to_owned(),
                });
            }
            None
        } else {
            match parts.next() {
                Some(part) if Group::from_keyword(part).is_none() => {
                    let row = text.integrity(part)?;
                    if !row.goes_with_ciphers() {
                        return Err(SuiteError::OnlyForAh { suite: text.0.to_owned(), integrity: row.keyword });
                    }
                    Some(row)
                }
                _ => {
                    let example = format!("{encryption}-sha256");
                    return Err(text.missing("integrity algorithm", example));
                }
            }
        };
        let group = parts.next().map(|part| text.group(part)).transpose()?;
        text.end(parts)?;
        Ok((Self { encryption, integrity }, group))
    }
}

impl Integrity {
    /// Parses a transform of the Authentication Header, `ah-sha1` or HP-UX's `AH_SHA1`, in any
    /// case, optionally followed by the group of perfect forward secrecy; `None` if it is none.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write instead.
    pub fn parse_ah(text: &str) -> Option<Result<(&'static Self, Option<&'static Group>), SuiteError>> {
        let text = Text(text.trim());
        let (protocol, name) = text.0.split_at_checked(3)?;
        let hpux = protocol.eq_ignore_ascii_case("AH_");
        if !hpux && !protocol.eq_ignore_ascii_case("ah-") {
            return None;
        }
        let mut parts = name.split('-');
        let name = parts.next().unwrap_or_default();
        let of_hpux = INTEGRITIES.iter().find(|row| hpux && row.hpux_ah()[3..].eq_ignore_ascii_case(name));
        let row = match of_hpux {
            Some(row) => text.allowed(row.status, row.keyword, row.caveat, "AH_SHA1").map(|()| row),
            None => text.integrity(name),
        };
        Some(row.and_then(|row| {
            let group = parts.next().map(|part| text.group(part)).transpose()?;
            text.end(parts)?;
            Ok((row, group))
        }))
    }
}

impl FromStr for IkeSuite {
    type Err = SuiteError;

    /// Parses `aes128-sha1-modp2048`, in any case.
    fn from_str(text: &str) -> Result<Self, SuiteError> {
        let text = Text(text.trim());
        let mut parts = text.0.split('-');
        let encryption = text.encryption(parts.next().unwrap_or_default())?;
        if encryption.ike_cipher.is_none() {
            let instead = if encryption.key_bits == 256 { "aes256" } else { "aes128" };
            return Err(SuiteError::NotForIke { suite: text.0.to_owned(), encryption: encryption.keyword, instead });
        }
        let hash = match parts.next() {
            Some(part) if Group::from_keyword(part).is_none() => text.hash(part)?,
            _ => return Err(text.missing("hash", format!("{encryption}-sha256-modp2048"))),
        };
        let group = match parts.next() {
            Some(part) => text.group(part)?,
            None => return Err(text.missing("Diffie-Hellman group", format!("{encryption}-{hash}-modp2048"))),
        };
        text.end(parts)?;
        Ok(Self { encryption, hash, group })
    }
}

/// The whole text, for errors about its parts.
#[derive(Clone, Copy)]
struct Text<'t>(&'t str);

impl Text<'_> {
    fn encryption(self, name: &str) -> Result<&'static Encryption, SuiteError> {
        let row = Encryption::from_keyword(name).ok_or_else(|| {
            self.unknown(
                "encryption algorithm",
                name,
                ENCRYPTIONS.iter().map(|row| (row.status != Status::Forbidden).then_some(row.keyword)),
            )
        })?;
        self.allowed(row.status, row.keyword, row.caveat, "aes128 or aes256")?;
        Ok(row)
    }

    fn integrity(self, name: &str) -> Result<&'static Integrity, SuiteError> {
        let row = Integrity::from_keyword(name).ok_or_else(|| {
            self.unknown(
                "integrity algorithm",
                name,
                INTEGRITIES.iter().map(|row| (row.status != Status::Forbidden).then_some(row.keyword)),
            )
        })?;
        self.allowed(row.status, row.keyword, row.caveat, "sha1 or sha256")?;
        Ok(row)
    }

    fn hash(self, name: &str) -> Result<&'static Hash, SuiteError> {
        let row = Hash::from_keyword(name).ok_or_else(|| {
            self.unknown(
                "hash",
                name,
                HASHES.iter().map(|row| (row.status != Status::Forbidden).then_some(row.keyword)),
            )
        })?;
        self.allowed(row.status, row.keyword, row.caveat, "sha1 or sha256")?;
        Ok(row)
    }

    fn group(self, name: &str) -> Result<&'static Group, SuiteError> {
        let row = Group::from_keyword(name).ok_or_else(|| {
            self.unknown(
                "Diffie-Hellman group",
                name,
                GROUPS.iter().map(|row| (row.status != Status::Forbidden).then_some(row.keyword)),
            )
        })?;
        self.allowed(row.status, row.keyword, row.caveat, "modp2048 or x25519")?;
        Ok(row)
    }

    /// `name` is a transform of HP-UX, without a group.
    fn hpux_transform(self, name: &str) -> Result<EspSuite, SuiteError> {
        if let Some(suite) = EspSuite::every().find(|suite| suite.hpux().eq_ignore_ascii_case(name)) {
            let row = suite.encryption;
            self.allowed(row.status, row.keyword, row.caveat, "ESP_AES128_HMAC_SHA1")?;
            return Ok(suite);
        }
        // `ESP_AES128`: older releases allowed ESP without authentication.
        if let Some(row) = name.get(4..).and_then(Encryption::from_hpux) {
            return Err(self.missing("integrity algorithm", format!("ESP_{}_HMAC_SHA1", row.hpux)));
        }
        let known: Vec<String> = EspSuite::all().map(|suite| suite.hpux()).collect();
        Err(self.unknown("transform", name, known.iter().map(|name| Some(name.as_str()))))
    }

    fn end<'p>(self, mut parts: impl Iterator<Item = &'p str>) -> Result<(), SuiteError> {
        match parts.next() {
            None => Ok(()),
            Some(part) => Err(SuiteError::TooMuch { suite: self.0.to_owned(), rest: format!("-{part}") }),
        }
    }

    fn allowed(
        self,
        status: Status,
        name: &'static str,
        reason: &'static str,
        instead: &'static str,
    ) -> Result<(), SuiteError> {
        match status {
            Status::Modern | Status::Legacy => Ok(()),
            Status::Forbidden => Err(SuiteError::Forbidden { suite: self.0.to_owned(), name, reason, instead }),
        }
    }

    fn unknown<'k>(self, part: &'static str, name: &str, known: impl Iterator<Item = Option<&'k str>>) -> SuiteError {
        SuiteError::Unknown {
            suite: self.0.to_owned(),
            part,
            name: name.to_owned(),
            nearest: nearest(name, known.flatten()).map(str::to_owned),
        }
    }

    fn missing(self, part: &'static str, example: String) -> SuiteError {
        SuiteError::Missing { suite: self.0.to_owned(), part, example }
    }
}
