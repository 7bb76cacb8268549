//! Leases: whose the addresses of a pool are, whether he is there or not.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A lease of a `[[pool]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReport {
    /// Name of the pool.
    pub pool: String,
    /// The address.
    pub address: IpAddr,
    /// Whose it is: a user, or an identity of phase 1 where there are no users.
    pub owner: String,
    /// Whether he has an SA with us now.
    pub present: bool,
    /// Since when the address is his, UTC, RFC 3339; absent: not known, as the file is of a version that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Until when it is kept for him, UTC, RFC 3339; renewed while he is there.
    pub ends: String,
}
