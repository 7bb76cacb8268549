//! The TUN interface: whole IP packets to and from the kernel.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One queue of a TUN interface. The interface exists as long as a queue is
/// open, unless it was made persistent by somebody else.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
}

/// Longest interface name, without the final zero.
const NAME_LEN: usize = libc::IFNAMSIZ - 1;

impl Tun {
    /// Opens a queue of the TUN interface `name`, which is made if need be.
    /// Packets come and go without any header before the IP header
    /// (IFF_NO_PI). With `multi_queue` further calls with the same name add queues, and the kernel
    /// spreads flows over them. Non-blocking. Needs CAP_NET_ADMIN.
    pub fn open(name: &str, multi_queue: bool) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_LEN || name.bytes().any(|b| b == 0 || b == b'/' || b == b'%') {
            let text =
                format!("`{name}` cannot be the name of a network interface: 1 to {NAME_LEN} octets, no `/` or `%`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        // SAFETY: all-zero octets are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let queue = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | queue) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is; the name in it ends with a
        // zero, since it is shorter than the field.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd, name: name.to_string() })
    }

    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet; `Ok(0)` when none is waiting. A packet longer than
    /// `buffer` is cut by the kernel: give it the interface's MTU at least.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(n) => Ok(n),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// Hands one whole packet to the kernel. The error tells whether the
    /// interface is down (EIO), the packet malformed (EINVAL) or a queue full (EAGAIN).
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_cut_or_expand_are_refused() {
        for name in ["", "a-name-of-16-oct", "a/b", "tun%d", "a\0b"] {
            let error = Tun::open(name, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
