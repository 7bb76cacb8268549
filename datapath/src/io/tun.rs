//! The TUN interface: whole IP packets to and from the kernel.

use crate::offload::coalesce::{MOST, SuperPacket};
use crate::offload::{VIRTIO_HEADER, VirtioHeader};
use crate::packet::Packet;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// One queue of a TUN interface. The interface exists as long as a queue is
/// open, unless it was made persistent by somebody else.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    offload: TunOffload,
}

/// The descriptors of one interface for several workers.
#[derive(Debug)]
pub struct Queues {
    /// One for each worker that reads; a flow comes by one of them alone.
    pub readers: Vec<Arc<Tun>>,
    /// One for each worker that writes.
    pub writers: Vec<Arc<Tun>>,
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
        Self::open_with(name, if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 }, offload)
    }

    fn open_with(name: &str, queue: libc::c_int, offload: bool) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_LEN || name.bytes().any(|b| b == 0 || b == b'/' || b == b'%') {
            let text =
                format!("`{name}` cannot be the name of a network interface: 1 to {NAME_LEN} octets, no `/` or `%`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let mut tun = Self { fd, name: name.to_string(), offload: TunOffload::default() };
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

    /// Opens `readers` queues of the TUN interface, and as many descriptors that write only as there are `writers`. Where
    /// the interface can have one queue alone, being somebody's who made it so, that one reads and writes.
    ///
    /// What is written through a queue would make the kernel give the answers to the same queue from then on, and so move a
    /// flow from one worker to another while packets of it wait with the first. It does not with a queue
    /// that is detached, so writers are: which queue a flow comes by depends on its addresses, protocol and ports alone.
    pub fn open_queues(name: &str, readers: usize, writers: usize, offload: bool) -> io::Result<Queues> {
        let single = || {
            let tun = Arc::new(Self::open(name, false, offload)?);
            Ok(Queues { readers: vec![Arc::clone(&tun)], writers: vec![tun; writers] })
        };
        if readers < 2 {
            return single();
        }
        let first = match Self::open_with(name, libc::IFF_MULTI_QUEUE | libc::IFF_TUN_EXCL, offload) {
            // It is there. Somebody made it for us, unless it is of a program that runs.
            Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => match Self::open(name, true, offload) {
                // With one queue.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => return single(),
                Ok(theirs) if !theirs.is_persistent()? => return Err(Errno::BUSY.into()),
                opened => opened?,
            },
            made => made?,
        };
        let mut queues = Queues { readers: vec![Arc::new(first)], writers: Vec::new() };
        for _ in 0..writers {
            let writer = Self::open(name, true, offload)?;
            writer.detach()?;
            queues.writers.push(Arc::new(writer));
        }
        for _ in 1..readers {
            queues.readers.push(Arc::new(Self::open(name, true, offload)?));
        }
        Ok(queues)
    }

    /// Nothing is to be read from this queue any more.
    fn detach(&self) -> io::Result<()> {
        self.request(libc::TUNSETQUEUE as _, libc::IFF_DETACH_QUEUE).map(drop)
    }

    /// Whether the interface stays when nobody has it open.
    fn is_persistent(&self) -> io::Result<bool> {
        self.request(libc::TUNGETIFF as _, 0).map(|flags| flags & libc::IFF_PERSIST != 0)
    }

    /// Attaches the descriptor to its interface, without a header but the one that `flags` ask for.
    fn attach(&self, flags: libc::c_int) -> io::Result<()> {
        self.request(libc::TUNSETIFF as _, libc::IFF_TUN | libc::IFF_NO_PI | flags).map(drop)
    }

    /// A request about the interface; returns the flags that the kernel leaves.
    fn request(&self, request: libc::Ioctl, flags: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: all-zero octets are a valid ifreq.
        let mut argument: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in argument.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        argument.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF, TUNSETQUEUE and TUNGETIFF read and write one ifreq, which `argument` is; the name in it ends
        // with a zero, since it is shorter than the field.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, &raw mut argument) };
        // SAFETY: the flags are what was written above, and what the kernel writes for such requests.
        let flags = unsafe { argument.ifr_ifru.ifru_flags };
        if result == 0 { Ok(libc::c_int::from(flags)) } else { Err(io::Error::last_os_error()) }
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
            Err(Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        packet.set_len(if self.offload.header { len.saturating_sub(VIRTIO_HEADER) } else { len });
        VirtioHeader::decode(&header).map(Some).ok_or_else(|| Errno::PROTO.into())
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
