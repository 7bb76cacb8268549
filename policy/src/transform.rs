//! Transforms of policies: a suite with its lifetime, `ESP_AES128_HMAC_SHA1/28800/0`.

use crate::sa::{Lifetime, SaProtocol};
use core::fmt;
use crypto::EspSuite;
use crypto::suite::{LegacyPart, SuiteError};
use crypto::table::{Group, Integrity, Status};

/// One transform, of ESP or AH, that a tunnel policy offers or accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspTransform {
    /// ESP or AH.
    pub protocol: SaProtocol,
    /// Ciphers; of AH [`EspSuite::of_ah`].
    pub suite: EspSuite,
    /// With ESP: the algorithm of an AH around it, as one bundle (HP-UX: nested).
    pub ah: Option<&'static Integrity>,
    /// Group of perfect forward secrecy if the transform names one (`aes128-sha1-modp2048`).
    pub pfs: Option<&'static Group>,
    /// Extended, 64-bit sequence numbers (RFC 4304), if the transform ends in `-esn`.
    pub esn: bool,
    /// Offered lifetime; 28800 seconds and no volume limit unless named.
    pub lifetime: Lifetime,
}

/// What a transform with extended sequence numbers ends in.
const ESN: &str = "-esn";

/// Most ESP transforms of one policy, as HP-UX A.03.02.
pub const MOST_TRANSFORMS: usize = 25;

/// Most AH transforms of one policy, as HP-UX.
pub const MOST_AH_TRANSFORMS: usize = 2;

/// Lifetime of a transform that names none, as HP-UX: 8 hours, no limit of volume.
pub const DEFAULT_LIFETIME: Lifetime = Lifetime { seconds: 28800, kbytes: 0 };

/// Shortest lifetimes that a configuration may name; 0, no limit, is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds.
    pub seconds: u32,
    /// Kilobytes of 1024 octets.
    pub kbytes: u32,
    /// Packets (`lifetime_packets` of a tunnel).
    pub packets: u32,
}

impl Limits {
    /// Those of HP-UX, which has none of packets.
    pub const HPUX: Self = Self { seconds: 600, kbytes: 5120, packets: 10_000 };
    /// For tests (`startup.allow_short_lifetimes`).
    pub const SHORT: Self = Self { seconds: 10, kbytes: 1, packets: 10 };
}

/// HP-UX's highest lifetime.
const LONGEST: u32 = u32::MAX - 1;

/// Why a transform was refused: always the configuration's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// The part before the lifetimes is no suite that may be used.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// A lifetime out of its range.
    #[error("`{transform}` has a lifetime of `{given}` {unit}; expected 0 (no limit) or {lowest} to {LONGEST}")]
    Lifetime {
        /// The whole transform.
        transform: String,
        /// What was given.
        given: String,
        /// `seconds` or `kilobytes`.
        unit: &'static str,
        /// The lowest allowed.
        lowest: u32,
    },
    /// A `+` where there is no AH before it and ESP behind.
    #[error("`{0}` is no bundle; expected AH first, then ESP: AH_SHA1+ESP_AES128_HMAC_SHA1 or ah-sha1+aes128-sha1")]
    Bundle(String),
    /// More than a name, seconds and kilobytes.
    #[error("`{0}` has too many parts; expected name/seconds/kilobytes")]
    TooManyParts(String),
}

impl EspTransform {
    /// Reads `name[/seconds[/kilobytes]]` with HP-UX's limits. The name is
    /// HP-UX's (`ESP_AES128_HMAC_SHA1`) or today's (`aes128-sha1-modp2048`); either
    /// may end in `-esn`, for extended sequence numbers. `AH_SHA1+ESP_AES128_HMAC_SHA1`
    /// is a bundle of AH and ESP: what is behind the ESP is for both.
    pub fn parse(text: &str) -> Result<Self, TransformError> {
        Self::parse_within(text, Limits::HPUX)
    }

    /// Reads a transform whose lifetimes are at least those of `limits`.
    pub fn parse_within(text: &str, limits: Limits) -> Result<Self, TransformError> {
        let text = text.trim();
        let mut parts = text.split('/');
        let (name, seconds, kbytes) = (parts.next().unwrap_or(""), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(TransformError::TooManyParts(text.to_owned()));
        }
        let (name, esn) = match name.len().checked_sub(ESN.len()).and_then(|at| name.split_at_checked(at)) {
            Some((name, end)) if end.eq_ignore_ascii_case(ESN) => (name, true),
            _ => (name, false),
        };
        let (ah, name) = match name.split_once('+') {
            None => (None, name),
            Some((ah, esp)) if Integrity::parse_ah(esp).is_none() && !esp.contains('+') => {
                match Integrity::parse_ah(ah).ok_or_else(|| TransformError::Bundle(text.to_owned()))?? {
                    (integrity, None) => (Some(integrity), esp),
                    (_, Some(_)) => return Err(TransformError::Bundle(text.to_owned())),
                }
            }
            Some(_) => return Err(TransformError::Bundle(text.to_owned())),
        };
        let (protocol, (suite, pfs)) = match Integrity::parse_ah(name) {
            Some(ah) => (SaProtocol::Ah, ah.map(|(integrity, pfs)| (EspSuite::of_ah(integrity), pfs))?),
            None => (SaProtocol::Esp, EspSuite::parse_with_group(name)?),
        };
        let number =
            |given: Option<&str>, unit: &'static str, lowest: u32, default: u32| match given {
                None => Ok(default),
                Some(digits) => {
                    let number = digits.parse::<u32>().ok().filter(|_| !digits.starts_with('+'));
                    number.filter(|n| *n == 0 || (lowest..=LONGEST).contains(n)).ok_or_else(|| {
                        TransformError::Lifetime { transform: text.to_owned(), given: digits.to_owned(), unit, lowest }
                    })
                }
            };
        let lifetime = Lifetime {
            seconds: number(seconds, "seconds", limits.seconds, DEFAULT_LIFETIME.seconds)?,
            kbytes: number(kbytes, "kilobytes", limits.kbytes, DEFAULT_LIFETIME.kbytes)?,
        };
        Ok(Self { protocol, suite, ah, pfs, esn, lifetime })
    }

    /// Today's spelling, without the lifetime: `aes128-sha1-modp2048`.
    #[must_use]
    pub fn keyword(&self) -> String {
        let esn = if self.esn { ESN } else { "" };
        let name = name(self.protocol, self.suite, self.ah);
        match self.pfs {
            Some(group) => format!("{name}-{group}{esn}"),
            None => format!("{name}{esn}"),
        }
    }

    /// The AH of a bundle, as a transform of its own.
    #[must_use]
    pub fn outside(&self) -> Option<Self> {
        self.ah.map(|ah| Self { protocol: SaProtocol::Ah, suite: EspSuite::of_ah(ah), ah: None, ..*self })
    }

    /// Without the AH of a bundle.
    #[must_use]
    pub fn inside(&self) -> Self {
        Self { ah: None, ..*self }
    }

    /// The protocols it is of.
    pub fn protocols(&self) -> impl Iterator<Item = SaProtocol> + use<> {
        self.ah.map(|_| SaProtocol::Ah).into_iter().chain([self.protocol])
    }

    /// The parts that the daemon warns of, the group among them.
    #[must_use]
    pub fn legacy_parts(&self) -> Vec<LegacyPart> {
        let group = self.pfs.filter(|g| g.status == Status::Legacy);
        let group = group.map(|g| LegacyPart { keyword: g.keyword, caveat: g.caveat });
        let mut parts = self.suite.legacy_parts();
        if self.protocol == SaProtocol::Ah {
            // Whoever asks for AH knows that it encrypts nothing.
            parts.retain(|part| self.suite.integrity.is_some_and(|i| i.keyword == part.keyword));
        }
        let ah = self.ah.filter(|ah| ah.status == Status::Legacy);
        let ah = ah.map(|ah| LegacyPart { keyword: ah.keyword, caveat: ah.caveat });
        parts.into_iter().chain(ah).chain(group).collect()
    }
}

/// HP-UX's spelling, `ESP_AES128_HMAC_SHA1/28800/0`. It has no word for the group nor for
/// extended sequence numbers: see [`EspTransform::keyword`].
impl fmt::Display for EspTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            hpux_name(self.protocol, self.suite, self.ah),
            self.lifetime.seconds,
            self.lifetime.kbytes
        )
    }
}

/// Today's name of what protects an SA: `aes128-sha1`, `ah-sha1`, `ah-sha1+aes128-sha1`.
#[must_use]
pub fn name(protocol: SaProtocol, suite: EspSuite, ah: Option<&'static Integrity>) -> String {
    match (protocol, suite.integrity, ah) {
        (SaProtocol::Ah, Some(integrity), _) => format!("ah-{integrity}"),
        (.., Some(ah)) => format!("ah-{ah}+{suite}"),
        _ => suite.to_string(),
    }
}

/// HP-UX's name of what protects an SA: `ESP_AES128_HMAC_SHA1`, `AH_SHA1`, `AH_SHA1+ESP_AES128_HMAC_SHA1`.
#[must_use]
pub fn hpux_name(protocol: SaProtocol, suite: EspSuite, ah: Option<&'static Integrity>) -> String {
    match (protocol, suite.integrity, ah) {
        (SaProtocol::Ah, Some(integrity), _) => integrity.hpux_ah(),
        (.., Some(ah)) => format!("{}+{}", ah.hpux_ah(), suite.hpux()),
        _ => suite.hpux(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        for suite in EspSuite::all() {
            let lifetime = Lifetime { seconds: 3600, kbytes: 5120 };
            let transform =
                EspTransform { protocol: SaProtocol::Esp, suite, ah: None, pfs: None, esn: false, lifetime };
            assert_eq!(EspTransform::parse(&transform.to_string()), Ok(transform));
            assert_eq!(EspTransform::parse(&format!("{}/3600/5120", transform.keyword())), Ok(transform));
        }
    }

    #[test]
    fn what_is_left_out() {
        let t = EspTransform::parse("aes128-sha1-modp2048").expect("a transform");
        assert_eq!((t.lifetime, t.pfs.map(|g| g.number)), (DEFAULT_LIFETIME, Some(14)));
        assert_eq!(t.to_string(), "ESP_AES128_HMAC_SHA1/28800/0");
        assert_eq!(t.keyword(), "aes128-sha1-modp2048");
        assert_eq!(EspTransform::parse("ESP_AES128_HMAC_SHA1/0").map(|t| t.lifetime.seconds), Ok(0));
    }

    #[test]
    fn extended_sequence_numbers_are_the_last_word() {
        for text in ["aes128-sha1-modp2048-esn", "ESP_AES128_HMAC_SHA1-modp2048-ESN/28800/0", "aes256gcm16-esn/0"] {
            let t = EspTransform::parse(text).expect(text);
            assert!(t.esn && t.keyword().ends_with("-esn"), "{text}: {}", t.keyword());
            assert_eq!(EspTransform::parse(&format!("{}/{}", t.keyword(), t.lifetime.seconds)), Ok(t));
        }
        for wrong in ["aes128-sha1-esn-modp2048", "-esn", "esn", "aes128-esn", "aes128-sha1-esn-esn", "é-esn"] {
            assert!(matches!(EspTransform::parse(wrong), Err(TransformError::Suite(_))), "{wrong}");
        }
    }

    #[test]
    fn transforms_of_ah() {
        let t = EspTransform::parse("AH_SHA2_256-modp2048-esn/3600/0").expect("a transform");
        assert_eq!((t.protocol, t.esn, t.keyword().as_str()), (SaProtocol::Ah, true, "ah-sha256-modp2048-esn"));
        assert_eq!(t.to_string(), "AH_SHA2_256/3600/0");
        assert_eq!(EspTransform::parse("ah-sha256-modp2048-esn/3600"), Ok(t));
        assert!(t.legacy_parts().is_empty(), "{:?}", t.legacy_parts());
        let legacy = EspTransform::parse("AH_MD5").expect("a transform").legacy_parts();
        assert_eq!(legacy.iter().map(|p| p.keyword).collect::<Vec<_>>(), ["md5"]);
    }

    #[test]
    fn bundles_of_ah_and_esp() {
        let t = EspTransform::parse("AH_SHA1+ESP_AES128_HMAC_SHA2_256-modp2048-esn/3600/0").expect("a bundle");
        assert_eq!((t.protocol, t.ah.map(|ah| ah.keyword), t.esn), (SaProtocol::Esp, Some("sha1"), true));
        assert_eq!(t.keyword(), "ah-sha1+aes128-sha256-modp2048-esn");
        assert_eq!(t.to_string(), "AH_SHA1+ESP_AES128_HMAC_SHA2_256/3600/0");
        assert_eq!(EspTransform::parse("ah-sha1+aes128-sha256-modp2048-esn/3600"), Ok(t));
        let outside = t.outside().expect("AH");
        assert_eq!((outside.protocol, outside.keyword().as_str()), (SaProtocol::Ah, "ah-sha1-modp2048-esn"));
        assert_eq!(t.inside().keyword(), "aes128-sha256-modp2048-esn");
        let legacy = EspTransform::parse("ah-md5+3des-sha1").expect("a bundle").legacy_parts();
        assert_eq!(legacy.iter().map(|p| p.keyword).collect::<Vec<_>>(), ["3des", "md5"]);
        for wrong in [
            "aes128-sha1+ah-sha1",
            "ah-sha1+ah-sha1",
            "ah-sha1+",
            "+aes128-sha1",
            "ah-sha1-modp2048+aes128-sha1",
            "ah-sha1+ah-sha1+aes128-sha1",
            "ah-sha7+aes128-sha1",
            "aes128-sha1+aes128-sha1",
        ] {
            assert!(EspTransform::parse(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(EspTransform::parse("aes128-sha1+ah-sha1"), Err(TransformError::Bundle(_))));
    }

    #[test]
    fn lifetimes_have_limits() {
        let lifetime = |text: &str, limits| EspTransform::parse_within(text, limits).map(|t| t.lifetime);
        for bad in
            ["aes128-sha1/599", "aes128-sha1/600/5119", "aes128-sha1/4294967295", "aes128-sha1/", "aes128-sha1/+600"]
        {
            assert!(matches!(lifetime(bad, Limits::HPUX), Err(TransformError::Lifetime { .. })), "{bad}");
        }
        assert!(matches!(lifetime("aes128-sha1/600/5120/1", Limits::HPUX), Err(TransformError::TooManyParts(_))));
        assert_eq!(lifetime("aes128-sha1/10/1", Limits::SHORT), Ok(Lifetime { seconds: 10, kbytes: 1 }));
        assert!(lifetime("aes128-sha1/9/1", Limits::SHORT).is_err());
    }

    #[test]
    fn legacy_parts_are_known() {
        let legacy = |text: &str| {
            let t = EspTransform::parse(text).expect(text);
            t.legacy_parts().iter().map(|p| p.keyword).collect::<Vec<_>>()
        };
        assert_eq!(legacy("3des-md5-modp1024"), ["3des", "md5", "modp1024"]);
        assert!(legacy("aes128-sha1-modp2048").is_empty());
    }
}
