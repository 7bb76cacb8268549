//! The TUN interface: whole IP packets to and from the kernel.

use crate::offload::coalesce::{MOST, SuperPacket};
use crate::offload::{VIRTIO_HEADER, VirtioHeader};
use crate::packet::Packet;
use rustix::fs::{Mode, OFlags};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One queue of a TUN interface. The interface exists as long as a queue is
/// open, unless it was made persistent by somebody else.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    offload: TunOffload,
}

/// What the kernel and we hand each other in super-packets; see [`offload`](crate::offload).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunOffload {
    /// Every packet has a header before it (IFF_VNET_HDR).
    header: bool,
    /// TCP (TSO).
    pub tcp: bool,
    /// UDP (USO, Linux 6.2).
    pub udp: bool,
}

// Of `linux/if_tun.h`.
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO: libc::c_uint = 0x02 | 0x04;
const TUN_F_USO: libc::c_uint = 0x20 | 0x40;

/// Longest interface name, without the final zero.
const NAME_LEN: usize = libc::IFNAMSIZ - 1;

impl Tun {
    /// Opens a queue of the TUN interface `name`, which is made if need be.
    /// With `multi_queue` further calls with the same name add queues, and the kernel
    /// spreads flows over them. With `offload` super-packets come and go, as far as the kernel
    /// can; see [`Self::offload`]. Non-blocking. Needs CAP_NET_ADMIN.
    pub fn open(name: &str, multi_queue: bool, offload: bool) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_LEN || name.bytes().any(|b| b == 0 || b == b'/' || b == b'%') {
            let text =
                format!("`{name}` cannot be the name of a network interface: 1 to {NAME_LEN} octets, no `/` or `%`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let mut tun = Self { fd, name: name.to_string(), offload: TunOffload::default() };
        let queue = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
        let with_header = if offload { tun.attach(queue | libc::IFF_VNET_HDR).map(|()| true) } else { Ok(false) };
        tun.offload.header = match with_header {
            // A kernel without such headers.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => false,
            other => other?,
        };
        if tun.offload.header {
            (tun.offload.tcp, tun.offload.udp) = tun.ask_for_offload()?;
        } else {
            tun.attach(queue)?;
        }
        Ok(tun)
    }

    /// Attaches the descriptor to its interface, without a header but the one that `flags` ask for.
    fn attach(&self, flags: libc::c_int) -> io::Result<()> {
        // SAFETY: all-zero octets are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | flags) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is; the name in it ends with a
        // zero, since it is shorter than the field.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sets the length of the header, and takes what super-packets the kernel gives: of TCP, of UDP.
    fn ask_for_offload(&self) -> io::Result<(bool, bool)> {
        let len = VIRTIO_HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which `len` is.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let takes = |flags: libc::c_uint| {
            // SAFETY: TUNSETOFFLOAD takes its flags by value.
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) == 0 }
        };
        let udp = takes(TUN_F_CSUM | TUN_F_TSO | TUN_F_USO);
        Ok((udp || takes(TUN_F_CSUM | TUN_F_TSO), udp))
    }

    /// What super-packets it gives and takes.
    #[must_use]
    pub fn offload(&self) -> TunOffload {
        self.offload
    }

    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet, with what its header says; `Ok(None)` when none is waiting.
    /// A header that asks for what was not offered is an error of the kernel (EPROTO).
    pub fn read(&self, packet: &mut Packet) -> io::Result<Option<VirtioHeader>> {
        let mut header = [0; VIRTIO_HEADER];
        let read = if self.offload.header {
            let room = packet.room();
            rustix::io::readv(&self.fd, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(room)])
        } else {
            rustix::io::read(&self.fd, packet.room())
        };
        let len = match read {
            Ok(n) => n,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        packet.set_len(if self.offload.header { len.saturating_sub(VIRTIO_HEADER) } else { len });
        VirtioHeader::decode(&header).map(Some).ok_or_else(|| rustix::io::Errno::PROTO.into())
    }

    /// Hands one whole packet to the kernel. The error tells whether the
    /// interface is down (EIO), the packet malformed (EINVAL) or a queue full (EAGAIN).
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.write_together(&SuperPacket::default(), [packet].into_iter())
    }

    /// Hands packets to the kernel as one, as the [`Coalescer`](crate::offload::coalesce::Coalescer) planned. Errors
    /// as for [`Self::write`]: none was taken.
    pub fn write_together<'p>(&self, whole: &SuperPacket, packets: impl Iterator<Item = &'p [u8]>) -> io::Result<()> {
        let header = whole.header.encode();
        let mut parts = [IoSlice::new(&[]); MOST + 2];
        let before = if self.offload.header { &header[..] } else { &[] };
        (parts[0], parts[1]) = (IoSlice::new(before), IoSlice::new(whole.headers.as_slice()));
        let mut count = 2;
        for (part, packet) in parts[2..].iter_mut().zip(packets) {
            *part = IoSlice::new(&packet[whole.skip..]);
            count += 1;
        }
        rustix::io::writev(&self.fd, &parts[..count])?;
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
            let error = Tun::open(name, false, true).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
