//! The MTU of the TUN interface.
//!
//! The packet path knows what fits each SA and tells senders exactly; this is
//! what programs on this host begin with, so that few need to be told.

use crate::net::MARK;
use datapath::io::path_mtu;
use datapath::mtu::interface_mtu;
use policy::config::Config;

/// Below it the kernel takes IPv6 off the interface (RFC 8200 5).
const SMALLEST_V6: u16 = 1280;

/// What fits through every tunnel, but for IPv6 inside no less than 1280.
pub(super) fn tun_mtu(config: &Config) -> u16 {
    let mtu = interface_mtu(config, |local, remote| path_mtu(local, remote, MARK).ok());
    if config.tunnels.iter().any(|t| !t.selector.remote.is_ipv4()) { mtu.max(SMALLEST_V6) } else { mtu }
}
