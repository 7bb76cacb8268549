//! Proposals: what we offer, what we accept of a peer's, and how to say where
//! the two do not meet.

pub(crate) mod phase1;
pub(crate) mod phase2;

use crate::wire::Attribute;
use crate::wire::numbers::life_type;
use core::fmt;
use policy::sa::Lifetime;

/// Seconds of an SA whose offer names no lifetime (RFC 2407 4.5).
const DEFAULT_SECONDS: u32 = 28_800;
/// Offered lifetimes below this are refused, unless our own is shorter still
/// or the configuration allows short ones.
const SHORTEST_SECONDS: u32 = 60;
/// The same for volume, in kilobytes: less is gone with a few messages.
const SHORTEST_KBYTES: u32 = 64;
/// As many alternatives are listed in a report.
const LISTED: usize = 6;

/// A disagreement, with both sides' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// What we would have accepted, most preferred first.
    ours: Vec<String>,
    /// What the peer offered, or chose.
    theirs: Vec<String>,
    /// Fields in which the closest two differ.
    fields: Vec<Field>,
    /// Whether the peer offered or answered.
    verb: &'static str,
}

impl Mismatch {
    /// Whether nothing differs but whether ESP is to go in UDP.
    pub(crate) fn is_about_nat(&self) -> bool {
        let inside = |mode: &str| mode.trim_end_matches(" (draft)").trim_start_matches("UDP-encapsulated ").to_owned();
        matches!(self.fields.as_slice(), [only]
            if only.name == phase2::ENCAPSULATION && inside(&only.ours) == inside(&only.theirs))
    }
}

/// One field in which a proposal differs: name, ours, theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    name: &'static str,
    ours: String,
    theirs: String,
}

impl Field {
    fn new(name: &'static str, ours: impl fmt::Display, theirs: impl fmt::Display) -> Self {
        Self { name, ours: ours.to_string(), theirs: theirs.to_string() }
    }
}

/// `we accept A; peer offered B: encryption and hash differ (rejected encryption: ours:peer's = x:y)`.
impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "we accept {}; peer {} {}", listed(&self.ours), self.verb, listed(&self.theirs))?;
        let names: Vec<_> = self.fields.iter().map(|field| field.name).collect();
        match names.as_slice() {
            [] => return Ok(()),
            [one] => write!(f, ": {one} differs")?,
            [head @ .., last] => write!(f, ": {} and {last} differ", head.join(", "))?,
        }
        f.write_str(" (rejected ")?;
        for (index, field) in self.fields.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}: ours:peer = {}:{}", field.name, field.ours, field.theirs)?;
        }
        f.write_str(")")
    }
}

/// A list for a report, cut where it gets long.
pub(crate) fn listed(items: &[String]) -> String {
    if items.is_empty() {
        return "nothing".into();
    }
    let shown = items.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Lifetimes as they stand in the attributes of a transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfferedLifetime {
    pub(crate) seconds: Option<u32>,
    pub(crate) kbytes: Option<u32>,
    /// The same kind of lifetime twice with different values (RFC 2407 4.5).
    pub(crate) conflicting: bool,
}

impl OfferedLifetime {
    /// Reads pairs of life type and duration, whichever comes first.
    pub(crate) fn read(attributes: &[Attribute], type_class: u16, duration_class: u16) -> Self {
        let mut out = Self::default();
        let (mut kind, mut duration) = (None, None);
        for attribute in attributes {
            // A duration beyond 64 bits is as good as for ever.
            let value = attribute.as_number().unwrap_or(u64::MAX);
            if attribute.kind == type_class {
                kind = Some(value);
            } else if attribute.kind == duration_class {
                duration = Some(u32::try_from(value).unwrap_or(u32::MAX));
            }
            if let (Some(k), Some(d)) = (kind, duration) {
                (kind, duration) = (None, None);
                out.record(k, d);
            }
        }
        out
    }

    fn record(&mut self, kind: u64, duration: u32) {
        let slot = match u16::try_from(kind) {
            Ok(life_type::SECONDS) => &mut self.seconds,
            Ok(life_type::KILOBYTES) => &mut self.kbytes,
            _ => return,
        };
        self.conflicting |= slot.is_some_and(|before| before != duration);
        *slot = Some(duration);
    }

    /// The lifetime it states, with the default for what it leaves out.
    pub(crate) fn stated(&self) -> Lifetime {
        Lifetime {
            seconds: unlimited(self.seconds.unwrap_or(DEFAULT_SECONDS)),
            kbytes: unlimited(self.kbytes.unwrap_or(0)),
        }
    }

    /// The lifetime it states; what it leaves out is unlimited.
    pub(crate) fn stated_only(&self) -> Lifetime {
        Lifetime { seconds: unlimited(self.seconds.unwrap_or(0)), kbytes: unlimited(self.kbytes.unwrap_or(0)) }
    }

    /// The lifetime to use, given ours: the shorter of each kind.
    ///
    /// # Errors
    /// What is offered, if it is absurd: zero or below a minute, or a few kilobytes, while ours
    /// is not and `short` ones are not allowed.
    pub(crate) fn agree(&self, ours: Lifetime, short: bool) -> Result<Lifetime, String> {
        let floor = |ours: u32, shortest: u32| match ours {
            _ if short => 1,
            0 => shortest,
            ours => shortest.min(ours),
        };
        let seconds = self.seconds.unwrap_or(DEFAULT_SECONDS);
        if seconds < floor(ours.seconds, SHORTEST_SECONDS) {
            return Err(format!("{seconds} s"));
        }
        if let Some(kbytes) = self.kbytes.filter(|offered| *offered < floor(ours.kbytes, SHORTEST_KBYTES)) {
            return Err(format!("{kbytes} kB"));
        }
        if self.conflicting {
            return Err("two of the same kind".into());
        }
        Ok(shorter_lifetime(ours, self.stated()))
    }
}

/// A lifetime for a report.
fn described(lifetime: Lifetime) -> String {
    match (lifetime.seconds, lifetime.kbytes) {
        (0, 0) => "no limit".into(),
        (seconds, 0) => format!("{seconds} s"),
        (0, kbytes) => format!("{kbytes} kB"),
        (seconds, kbytes) => format!("{seconds} s and {kbytes} kB"),
    }
}

/// Appends a lifetime: seconds always (no limit as the longest that fits), volume if limited.
pub(crate) fn write_lifetime(out: &mut Vec<Attribute>, lifetime: Lifetime, type_class: u16, duration_class: u16) {
    let seconds = if lifetime.seconds == 0 { u32::MAX } else { lifetime.seconds };
    out.push(Attribute::basic(type_class, life_type::SECONDS));
    out.push(Attribute::number(duration_class, seconds));
    if lifetime.kbytes != 0 {
        out.push(Attribute::basic(type_class, life_type::KILOBYTES));
        out.push(Attribute::number(duration_class, lifetime.kbytes));
    }
}

/// The shorter of each kind.
pub(crate) fn shorter_lifetime(a: Lifetime, b: Lifetime) -> Lifetime {
    Lifetime { seconds: shorter(a.seconds, b.seconds), kbytes: shorter(a.kbytes, b.kbytes) }
}

/// The shorter of two limits of which 0 is none.
fn shorter(a: u32, b: u32) -> u32 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

/// The longest lifetime that fits means none.
fn unlimited(value: u32) -> u32 {
    if value == u32::MAX { 0 } else { value }
}

/// The value of the first attribute of a class.
fn attribute(attributes: &[Attribute], class: u16) -> Option<u64> {
    attributes.iter().find(|a| a.kind == class).and_then(Attribute::as_number)
}

/// The first class of which there are two different values (RFC 2407 4.5.2): such a transform contradicts itself.
/// Those of a lifetime may come once for each kind.
fn contradiction(attributes: &[Attribute], of_lifetime: [u16; 2]) -> Option<u16> {
    let differs = |(at, one): (usize, &Attribute)| {
        let earlier = attributes.iter().take(at).find(|other| other.kind == one.kind)?;
        (!of_lifetime.contains(&one.kind) && earlier.as_number() != one.as_number()).then_some(one.kind)
    };
    attributes.iter().enumerate().find_map(differs)
}

/// A number as the type of a registry, for comparison with its rows.
fn narrow(value: Option<u64>) -> Option<u16> {
    value.and_then(|v| u16::try_from(v).ok())
}
