//! The daemon as a whole, and the interfaces it sees.

use ::policy::audit::Level;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Counters by their stable snake_case names.
pub type CounterMap = BTreeMap<String, u64>;

/// What `ipsec_admin -status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub daemon_version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The configuration in force, as named on the command line.
    pub config: String,
    /// When that was loaded, UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_loaded: Option<String>,
    /// Least urgent audit level that is recorded.
    #[serde(with = "crate::control::level")]
    pub audit_level: Level,
    /// Where audit files are; absent: standard error only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_dir: Option<String>,
    /// Audit events that could not be written.
    pub audit_lost: u64,
    /// Entries in the SPD cache.
    pub cache_entries: u64,
    /// SPD cache soft limit, in thousands of entries.
    pub spd_soft: u32,
    /// SPD cache hard limit, in thousands of entries.
    pub spd_hard: u32,
    /// ISAKMP SAs established.
    pub isakmp_sas: u32,
    /// IPsec SAs, both directions counted.
    pub ipsec_sas: u32,
    /// Tunnel policies whose SAs are up.
    pub tunnels_up: u32,
    /// Tunnel policies configured.
    pub tunnels_configured: u32,
    /// Packets that left in the clear although a policy protects them: must be 0.
    pub cleartext_leaks: u64,
    /// Packets by what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: CounterMap,
}

/// An interface, and whether IPsec applies to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Name.
    pub name: String,
    /// Index in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Whether it is up.
    pub up: bool,
    /// Whether packets through it are subject to the policies.
    pub ipsec: bool,
    /// Whether it is the daemon's own TUN interface.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub tun: bool,
    /// MTU in octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Those of its addresses that are on the bypass list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bypassed: Vec<IpAddr>,
    /// What is in use on it, e.g. `guard`, `tcp_offload`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Workers of the packet path in each direction; of the daemon's own interface alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Its queues that are read from: so many are the workers of the outbound direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tun_queues: Option<usize>,
    /// Packets that left in the clear although a policy protects them; only where it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleartext_leaks: Option<u64>,
    /// Packets by what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: CounterMap,
}
