//! What `ipsec_report` shows: one struct per kind of record, with the fields of HP-UX IPSec.
//!
//! The daemon fills the structs, the control protocol carries them, and [`document`] writes them
//! as text in HP-UX style or as one JSON document. A field that is not known is absent; it is never
//! made up. JSON names are snake_case and stable: fields may be added, not renamed.

pub mod auth;
pub mod cache;
pub mod document;
pub mod explanation;
mod form;
pub mod from_model;
pub mod policy;
pub mod pool;
pub mod sa;
pub mod status;
pub mod text;

pub use auth::{AuthReport, CertificateReport, FetchedCrl, OwnCertificate};
pub use cache::{CacheAction, CacheFilter, CacheRecord, CacheSa, CacheSaState, CacheSelection, CacheTable, PageKind};
pub use policy::{
    BypassEntry, HostPolicyReport, IkePolicyReport, IkeProposal, PolicyAction, PolicyState, SaPair, SelectorReport,
    TransformNames, TunnelError, TunnelReport, TunnelState,
};
pub use pool::LeaseReport;
pub use sa::{IpsecSa, IsakmpSa, IsakmpState, Role, SaLife, SaState};
pub use status::{CounterMap, InterfaceReport, Status};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A section of the report, in the order of `-all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The daemon as a whole (`ipsec_admin -status`; not part of `-all`).
    Status,
    /// Active interfaces, and whether IPsec applies to each.
    Ip,
    /// The bypass list.
    Bypass,
    /// Host policies: outbound rules first, then inbound.
    Host,
    /// Tunnel policies.
    Tunnel,
    /// IKE policies.
    Ike,
    /// Authentication records.
    Auth,
    /// Leases of pools.
    Pool,
    /// ISAKMP (main mode) SAs.
    Mad,
    /// IPsec (quick mode) SAs.
    Sad,
    /// The SPD cache as a whole: with `-ip` and `-cache`.
    CacheTable,
    /// Decisions in the SPD cache.
    Cache,
}

impl Section {
    /// What `ipsec_report` shows when nothing is named.
    pub const ALL: [Self; 11] = [
        Self::Ip,
        Self::Bypass,
        Self::Host,
        Self::Tunnel,
        Self::Ike,
        Self::Auth,
        Self::Pool,
        Self::Mad,
        Self::Sad,
        Self::CacheTable,
        Self::Cache,
    ];

    /// Its name in JSON documents and, after a dash, on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Ip => "ip",
            Self::Bypass => "bypass",
            Self::Host => "host",
            Self::Tunnel => "tunnel",
            Self::Ike => "ike",
            Self::Auth => "auth",
            Self::Pool => "pool",
            Self::Mad => "mad",
            Self::Sad => "sad",
            Self::CacheTable => "cache_table",
            Self::Cache => "cache",
        }
    }

    /// Whether there is one record of it, which is then no list in JSON.
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(self, Self::Status | Self::CacheTable)
    }
}

/// Which host policies `-host` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostScope {
    /// All that are configured.
    #[default]
    Configured,
    /// Those tied to an address of an interface that exists.
    Active,
}

/// What to leave out of a report. The daemon applies it, so that it need not be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Which host policies.
    pub host: HostScope,
    /// Which cache entries.
    pub cache: CacheFilter,
}

/// One record of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "section", content = "record", rename_all = "snake_case")]
pub enum Record {
    /// Of [`Section::Status`].
    Status(Box<Status>),
    /// Of [`Section::Ip`].
    Ip(InterfaceReport),
    /// Of [`Section::Bypass`].
    Bypass(BypassEntry),
    /// Of [`Section::Host`].
    Host(Box<HostPolicyReport>),
    /// Of [`Section::Tunnel`].
    Tunnel(Box<TunnelReport>),
    /// Of [`Section::Ike`].
    Ike(Box<IkePolicyReport>),
    /// Of [`Section::Auth`].
    Auth(Box<AuthReport>),
    /// Of [`Section::Pool`].
    Pool(Box<LeaseReport>),
    /// Of [`Section::Mad`].
    Mad(Box<IsakmpSa>),
    /// Of [`Section::Sad`].
    Sad(Box<IpsecSa>),
    /// Of [`Section::CacheTable`].
    CacheTable(Box<CacheTable>),
    /// Of [`Section::Cache`].
    Cache(Box<CacheRecord>),
}

impl Record {
    /// The section it belongs to.
    #[must_use]
    pub const fn section(&self) -> Section {
        match self {
            Self::Status(_) => Section::Status,
            Self::Ip(_) => Section::Ip,
            Self::Bypass(_) => Section::Bypass,
            Self::Host(_) => Section::Host,
            Self::Tunnel(_) => Section::Tunnel,
            Self::Ike(_) => Section::Ike,
            Self::Auth(_) => Section::Auth,
            Self::Pool(_) => Section::Pool,
            Self::Mad(_) => Section::Mad,
            Self::Sad(_) => Section::Sad,
            Self::CacheTable(_) => Section::CacheTable,
            Self::Cache(_) => Section::Cache,
        }
    }
}

/// Which way packets go, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the protected side to the wire.
    Outbound,
    /// From the wire to the protected side.
    Inbound,
}

impl core::fmt::Display for Direction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

impl From<::policy::five_tuple::Direction> for Direction {
    fn from(d: ::policy::five_tuple::Direction) -> Self {
        match d {
            ::policy::five_tuple::Direction::Outbound => Self::Outbound,
            ::policy::five_tuple::Direction::Inbound => Self::Inbound,
        }
    }
}

impl From<Direction> for ::policy::five_tuple::Direction {
    fn from(d: Direction) -> Self {
        match d {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound => Self::Inbound,
        }
    }
}

/// An address with its UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(a: std::net::SocketAddr) -> Self {
        Self { address: a.ip(), port: a.port() }
    }
}
