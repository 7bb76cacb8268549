//! Interfaces, addresses, routes and routing rules, over rtnetlink.
//!
//! How traffic finds the TUN interface, with no kernel IPsec:
//!
//! - a routing table of our own has a route to the TUN interface for each
//!   destination that a policy protects ([`RoutePlan`]);
//! - a rule sends to that table whatever does not carry [`MARK`], which only our
//!   own sockets do: so ESP and IKE take the usual way, even to an end point that
//!   is itself a protected destination;
//! - a second route, `unreachable` and less preferred, stays when the TUN
//!   interface goes with the daemon: the destination is then refused, not sent to
//!   the default route.
//!
//! All we make carries our routing protocol number, [`ROUTE_PROTOCOL`], by which
//! a new daemon knows and takes over what a killed one left.

mod links;
mod namespace;
mod plan;
mod routes;

pub use links::{Interface, InterfaceAddress, strict_reverse_path};
pub use namespace::Namespace;
pub use plan::{PlannedRoute, RoutePlan, Target};
pub use routes::{Routing, Way};

use std::io;

/// SO_MARK of our own sockets.
pub const MARK: u32 = 0x0ca9;
/// Routing table of ours, unless another is chosen.
pub const TABLE: u32 = 220;
/// Priority of the rule that leads there: after `local` (0), before `main` (32766).
pub const RULE_PRIORITY: u32 = 220;
/// Routing protocol number of our routes and rules (`ip route` shows `proto 202`).
pub const ROUTE_PROTOCOL: u8 = 202;

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct NetError {
    /// What was to be done.
    pub action: String,
    /// Why it was not.
    pub source: io::Error,
}

/// A netlink connection to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Net {
    handle: rtnetlink::Handle,
    driver: tokio::task::JoinHandle<()>,
}

impl Net {
    /// Opens the connection; runs on the calling tokio runtime.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetError { action: "cannot open a netlink socket".to_owned(), source })?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Turns a failed request into an error that says what was to be done.
fn failed(action: impl FnOnce() -> String) -> impl FnOnce(rtnetlink::Error) -> NetError {
    move |e| {
        let source = match e {
            rtnetlink::Error::NetlinkError(e) => e.to_io(),
            other => io::Error::other(other),
        };
        let mut action = action();
        if source.kind() == io::ErrorKind::PermissionDenied {
            action.push_str(" (this needs CAP_NET_ADMIN)");
        }
        NetError { action, source }
    }
}

/// Whether a request failed for the given reason.
fn is(e: &rtnetlink::Error, errno: rustix::io::Errno) -> bool {
    matches!(e, rtnetlink::Error::NetlinkError(e) if e.raw_code() == -errno.raw_os_error())
}
