//! How the commands talk to the daemon.
//!
//! A Unix stream socket, [`SOCKET_NAME`] in the run directory, mode 0600. A connection carries one
//! request and its answer. Every message is a 32-bit big-endian length and that many octets of
//! JSON, and carries the protocol version; a side that does not speak the other's version says so
//! and hangs up. An answer is any number of [`Reply::Records`], so that a cache of a million
//! entries streams, and then [`Reply::End`] or [`Reply::Refused`]. An answer without either was
//! cut off, and the client says that too.

pub mod client;
pub mod frame;
pub mod level;
pub mod server;

use crate::report::{Direction, Filters, Record, Section};
use ::policy::audit::Level;
use ::policy::config::Startup;
use ::policy::explain::Explanation;
use ::policy::five_tuple::{Attachment, FiveTuple, Ports};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Version of the protocol. Any change that an older peer would misread raises it.
pub const VERSION: u32 = 1;
/// Name of the socket in the run directory.
pub const SOCKET_NAME: &str = "ipsecd.sock";
/// Where the socket is unless the command line or [`RUN_DIR_VARIABLE`] says otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/caponier";
/// Environment variable that names the run directory.
pub const RUN_DIR_VARIABLE: &str = "CAPONIER_RUN_DIR";
/// Octets of the longest request.
pub const MAX_REQUEST: usize = 64 * 1024;
/// Octets of the longest message of an answer.
pub const MAX_REPLY: usize = 4 * 1024 * 1024;
/// Most records in one [`Reply::Records`].
pub const MAX_BATCH: usize = 256;

/// The run directory: the command line's, else the environment's, else the default.
#[must_use]
pub fn run_dir(named: Option<PathBuf>) -> PathBuf {
    named
        .or_else(|| std::env::var_os(RUN_DIR_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_RUN_DIR))
}

/// The socket in a run directory.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET_NAME)
}

/// A message with the version of the protocol it is written in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The message.
    pub message: T,
}

/// What a command asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The records of some sections. They are answered section by section, in the order asked.
    Report {
        /// Which sections; each at most once.
        sections: Vec<Section>,
        /// What to leave out.
        #[serde(default)]
        filters: Filters,
    },
    /// Which policies would decide for a packet, and why. Answered by one [`Answer::Explanation`].
    Explain(Packet),
    /// The daemon as a whole. Answered by one [`Record::Status`].
    Status,
    /// Delete all SAs, tell the peers, and end. Answered before the daemon ends.
    Stop,
    /// Read the configuration again; if it has errors, keep the old one and refuse.
    Reload,
    /// Delete all SAs with a peer, and tell it.
    DeleteSa {
        /// The peer.
        peer: IpAddr,
    },
    /// Negotiate a tunnel now.
    Initiate {
        /// Name of the tunnel policy.
        tunnel: String,
    },
    /// Negotiate a new ISAKMP SA with a peer.
    RekeyIke {
        /// The peer.
        peer: IpAddr,
    },
    /// Negotiate new IPsec SAs for a tunnel.
    RekeySa {
        /// Name of the tunnel policy.
        tunnel: String,
    },
    /// Change the limits of the SPD cache; those not given stay.
    SetLimits {
        /// Soft limit in thousands of entries.
        soft: Option<u32>,
        /// Hard limit in thousands of entries.
        hard: Option<u32>,
    },
    /// Change the audit level.
    AuditLevel {
        /// Least urgent level that is recorded from now on.
        #[serde(with = "level")]
        level: Level,
    },
}

/// A packet that need not exist, for [`Request::Explain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Sender.
    pub source: IpAddr,
    /// Receiver; of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source and destination port, if the protocol has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
    /// ICMP type and code, for ICMP and ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// Which way it goes.
    pub direction: Direction,
    /// The interface of the packet path that it enters or leaves by; absent: the TUN interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl Packet {
    /// As the policy engine sees it.
    ///
    /// # Errors
    /// The packet path has no interface of that name.
    pub fn five_tuple(&self, startup: &Startup) -> Result<FiveTuple, Refusal> {
        let interface = match &self.interface {
            None => Attachment::TUN,
            Some(name) => startup.attachment(name).ok_or_else(|| {
                let known: Vec<&str> = startup.attachments().collect();
                let text = format!("the packet path has no interface `{name}`; it has {}", known.join(", "));
                Refusal::new(RefusalKind::NotFound, text).next("Name one of these, or leave out -if.")
            })?,
        };
        let ports = match (self.ports, self.icmp) {
            (Some((source, destination)), _) => Ports::Pair { source, destination },
            (None, Some((kind, code))) => Ports::Icmp { kind, code },
            (None, None) => Ports::None,
        };
        let (source, destination, protocol) = (self.source, self.destination, self.protocol);
        Ok(FiveTuple { source, destination, protocol, ports, interface })
    }
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "content", rename_all = "snake_case")]
pub enum Answer {
    /// A record of a report.
    Record(Record),
    /// Which policies decide for a packet, and why.
    Explanation(Box<Explanation>),
    /// What was done, in words, for the user.
    Done(String),
}

impl From<Record> for Answer {
    fn from(record: Record) -> Self {
        Self::Record(record)
    }
}

/// What the daemon sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "content", rename_all = "snake_case")]
pub enum Reply {
    /// A part of the answer: at most [`MAX_BATCH`] of them.
    Records(Vec<Answer>),
    /// The answer is complete.
    End,
    /// There is no answer, or no more of it, and why.
    Refused(Refusal),
}

/// Why a request was not, or not wholly, answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of reason.
    pub kind: RefusalKind,
    /// What was wrong and where; may have several lines.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Kinds of refusals, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The client speaks another version of the protocol.
    Version,
    /// The request is not understood.
    Malformed,
    /// Something that the request names does not exist.
    NotFound,
    /// A value of the request is not allowed.
    Invalid,
    /// It was tried and failed.
    Failed,
    /// Too much is going on; try again.
    Busy,
    /// The caller may not ask.
    Forbidden,
}

impl Refusal {
    /// A refusal without advice.
    #[must_use]
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), next: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn next(mut self, advice: impl Into<String>) -> Self {
        self.next = Some(advice.into());
        self
    }
}
