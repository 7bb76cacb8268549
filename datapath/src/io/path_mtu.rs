//! What the kernel knows of the path to a peer.

use super::{int_option, set_int_option};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// The MTU of the path from `local` to `remote` in octets of IP packet: that of
/// the route, or what ICMP told the kernel since (RFC 1191, RFC 8201). `mark`
/// is the firewall mark that makes the packet take the outer route.
pub fn path_mtu(local: IpAddr, remote: IpAddr, mark: u32) -> io::Result<u16> {
    let domain = if remote.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_mark(mark)?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    // Nothing is sent: connecting a UDP socket only looks the route up.
    socket.connect(&SocketAddr::new(remote, 4500).into())?;
    let mtu = if remote.is_ipv4() {
        set_int_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
        int_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU)?
    } else {
        int_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU)?
    };
    Ok(u16::try_from(mtu.clamp(0, i32::from(u16::MAX))).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_one_and_an_unreachable_peer_is_an_error() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert!(path_mtu(local, local, 0).unwrap() >= 1280);
        // A loopback source cannot reach the outside.
        assert!(path_mtu(local, IpAddr::from([192, 0, 2, 1]), 0).is_err());
    }
}
