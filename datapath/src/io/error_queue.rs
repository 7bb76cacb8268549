//! What comes back of packets that a socket sent, if it wants to know
//! (IPV6_RECVERR): the socket's error queue.

use super::control::{self, CONTROL_LEN, Control};
use super::mmsg::socket_addr;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One report, of the network by ICMP or of the kernel itself. Whoever can send
/// us packets can have made it up: it is a reason to ask the kernel, no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A packet was too big for its path (RFC 4443 3.2).
    TooBig {
        /// Where it was sent.
        destination: IpAddr,
        /// Octets of IP packet that fit, it says.
        mtu: u32,
    },
    /// Anything else.
    Other,
}

/// Takes the oldest report out of the queue, without waiting.
pub fn take_report(fd: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    loop {
        // SAFETY: all-zero octets are a valid value of these C structs: numbers, and null pointers
        // with lengths of zero.
        let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        let mut control = Control([0; CONTROL_LEN]);
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_LEN as _;
        // SAFETY: the header points at `name` and `control`, which outlive the call, with their true
        // lengths. It names no buffer for the packet itself, which the kernel then leaves out.
        let received =
            unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if received < 0 {
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(e),
            }
        }
        // SAFETY: `header` was filled in by recvmsg, and `control` is alive.
        let mut messages = unsafe { control::messages(&header) };
        let error = messages
            .find(|m| (m.level, m.kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR))
            // SAFETY: the kernel puts this struct, of numbers alone, into messages of this type.
            .and_then(|m| unsafe { m.body::<libc::sock_extended_err>() });
        return Ok(Some(match (error, socket_addr(&name)) {
            (Some(error), Some(destination)) if error.ee_errno == libc::EMSGSIZE as u32 => {
                Report::TooBig { destination: destination.ip(), mtu: error.ee_info }
            }
            _ => Report::Other,
        }));
    }
}
