//! Audit events: a typed stream, apart from diagnostics.
//!
//! The layout and, where HP-UX has one, the number and the words of a message
//! are those of HP-UX IPSec: `Msg: N From: ENTITY Lvl: LEVEL Date: ...`, `Event: text`.

use core::fmt;

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

/// As in `-auditlvl`: `alert`, `error`, `warning`, `informative`, `debug`.
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
