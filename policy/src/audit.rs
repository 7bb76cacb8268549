//! Audit events: a typed stream, apart from diagnostics.
//!
//! The layout and, where HP-UX has one, the number and the words of a message
//! are those of HP-UX IPSec: `Msg: N From: ENTITY Lvl: LEVEL Date: ...`, `Event: text`.

use core::fmt;
use core::str::FromStr;

pub mod number;
pub mod secpolicyd;

pub use secpolicyd::PolicyEvent;

/// Audit levels, most to least urgent; a level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Act now.
    Alert,
    /// Something failed.
    Error,
    /// Something is odd.
    Warning,
    /// Normal, worth knowing.
    Informative,
    /// For developers.
    Debug,
}

/// Which part of the system speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// The policy engine and the packet path.
    Secpolicyd,
    /// The IKE daemon.
    Ikmpd,
    /// The audit writer.
    Secauditd,
}

/// One event. `text` is complete: with whom, in which exchange, whose fault,
/// what to do; it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// HP-UX message number of the entity, or 0 where it has none.
    pub number: u32,
    /// Who speaks.
    pub entity: Entity,
    /// How urgent.
    pub level: Level,
    /// The event, one line.
    pub text: String,
}

impl Level {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Alert, Self::Error, Self::Warning, Self::Informative, Self::Debug];

    /// Whether an event of level `event` is recorded when the audit level is this one.
    #[must_use]
    pub fn includes(self, event: Self) -> bool {
        event <= self
    }
}

/// Not one of the names that are allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {what}: expected {expected}")]
pub struct UnknownName {
    given: String,
    what: &'static str,
    expected: &'static str,
}

/// As in `-auditlvl`: `alert`, `error`, `warning`, `informative`, `debug`, in any case.
impl FromStr for Level {
    type Err = UnknownName;

    fn from_str(given: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|l| l.to_string().eq_ignore_ascii_case(given)).ok_or_else(|| UnknownName {
            given: given.to_owned(),
            what: "an audit level",
            expected: "alert, error, warning, informative or debug",
        })
    }
}

/// As in `-entity`: `secpolicyd`, `ikmpd`, `secauditd`, in any case.
impl FromStr for Entity {
    type Err = UnknownName;

    fn from_str(given: &str) -> Result<Self, UnknownName> {
        let all = [Self::Secpolicyd, Self::Ikmpd, Self::Secauditd];
        all.into_iter().find(|e| e.to_string().eq_ignore_ascii_case(given)).ok_or_else(|| UnknownName {
            given: given.to_owned(),
            what: "an entity",
            expected: "secpolicyd, ikmpd or secauditd",
        })
    }
}

impl AuditEvent {
    /// The two lines of an audit file, without the last line's end:
    ///
    /// ```text
    /// Msg: 20 From: SECPOLICYD Lvl: ALERT Date: <date>
    /// Event: Kernel Policy Cache Threshold reached 5000 records.
    /// ```
    ///
    /// Control characters in the text are escaped: what a peer sent, say as its
    /// identity, cannot forge a line or drive a terminal.
    pub fn render<D: fmt::Display>(&self, date: D) -> impl fmt::Display + use<'_, D> {
        Rendered { event: self, date }
    }
}

struct Rendered<'a, D> {
    event: &'a AuditEvent,
    date: D,
}

impl<D: fmt::Display> fmt::Display for Rendered<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuditEvent { number, entity, level, text } = self.event;
        write!(f, "Msg: {number} From: {entity} Lvl: {level} Date: {}\nEvent: ", self.date)?;
        for c in text.chars() {
            if is_harmful(c) { write!(f, "{}", c.escape_unicode())? } else { fmt::Write::write_char(f, c)? }
        }
        Ok(())
    }
}

/// Control characters, and those that reorder or break a line on a display.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As HP-UX prints it: `ALERT`, `ERROR`, `WARNING`, `INFORMATIVE`, `DEBUG`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alert => "ALERT",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Informative => "INFORMATIVE",
            Self::Debug => "DEBUG",
        })
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secpolicyd => "SECPOLICYD",
            Self::Ikmpd => "IKMPD",
            Self::Secauditd => "SECAUDITD",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_includes_those_before_it() {
        use Level::{Alert, Debug, Error, Informative, Warning};
        assert!(Error.includes(Alert) && Error.includes(Error) && !Error.includes(Warning));
        assert!(Alert.includes(Alert) && !Alert.includes(Error));
        assert!(Level::ALL.into_iter().all(|l| Debug.includes(l)));
        assert!(!Informative.includes(Debug));
    }

    #[test]
    fn names_parse_in_any_case_and_nothing_else() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(level.to_string().to_lowercase().parse(), Ok(level));
        }
        assert_eq!("ikmpd".parse(), Ok(Entity::Ikmpd));
        assert_eq!("SecPolicyD".parse(), Ok(Entity::Secpolicyd));
        for wrong in ["", "info", "alert ", "ALERTS"] {
            let error = wrong.parse::<Level>().unwrap_err().to_string();
            assert!(error.contains("alert, error, warning, informative or debug"), "{error}");
        }
        assert!("ike".parse::<Entity>().is_err());
    }

    #[test]
    fn rendered_as_hpux_does() {
        let event = AuditEvent::from(PolicyEvent::CacheSoftLimit { entries: 5000 });
        let text = event.render("Tue Nov 21 02:51:00 2023").to_string();
        assert!(text.starts_with(
            "Msg: 20 From: SECPOLICYD Lvl: ALERT Date: Tue Nov 21 02:51:00 2023\n\
             Event: Kernel Policy Cache Threshold reached 5000 records."
        ));
    }

    #[test]
    fn a_peer_cannot_forge_a_line() {
        let event = AuditEvent {
            number: number::ikmpd::MAIN_MODE_FAILED,
            entity: Entity::Ikmpd,
            level: Level::Error,
            text: "identity a\r\nMsg: 1\u{1b}[2J\u{202e}\u{85}é".to_owned(),
        };
        let text = event.render("D").to_string();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("identity a\\u{d}\\u{a}Msg: 1\\u{1b}[2J\\u{202e}\\u{85}é"), "{text}");
    }
}
