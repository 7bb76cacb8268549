//! The sockets that ESP and IKE go through.

use super::error_queue::{Report, take_report};
use super::mmsg::{Outgoing, ReceiveBatch, SendBatch, segment_run};
use super::set_int_option;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// UDP with this local port: IKE, or ESP in UDP.
    Udp(u16),
    /// ESP as IP protocol 50. What is received has the IPv4 header before it, and no IPv6 header.
    RawEsp,
    /// AH as IP protocol 51, received only, with headers as for [`PortKind::RawEsp`].
    RawAh,
    /// Whole packets, sent as they are (IP_HDRINCL). Receives nothing.
    Clear,
}

/// A non-blocking socket of one address family, bound to no particular address;
/// each datagram says which of ours it is for or from.
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    ipv4: bool,
    /// Whether the kernel sets DF: 0 no, 1 yes, 2 not known.
    dont_fragment: AtomicU8,
    /// The count of losses of the socket when it was last looked at.
    lost: AtomicU32,
    /// Whether datagrams of one length go to the kernel as one, and come from it so.
    segments: AtomicBool,
    coalesced: bool,
    /// Held by who sends: what a socket does about DF is one setting for all that comes after.
    sending: Mutex<()>,
}

/// Which of several alike a port is, that share what arrives: all that one peer sends comes by one of them, so it
/// stays in order. Datagrams of UDP are shared out by the kernel, by addresses and ports; it also
/// puts those together that agree in them (UDP_GRO), so what is in ESP cannot be looked at. IP packets are by the address of the peer.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// From 0. They are opened in that order.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// One alone.
    pub const WHOLE: Self = Self { number: 0, of: 1 };
}

/// Enough for bursts at a few Gbit/s while a worker is busy elsewhere.
const BUFFER_OCTETS: libc::c_int = 4 << 20;

impl Port {
    /// Opens a port. Packets sent through it carry the firewall mark `mark`,
    /// by which routing tells them from those to be protected. With `offload` a UDP port takes and gives
    /// datagrams by the dozen, as far as the kernel can. Needs CAP_NET_RAW and CAP_NET_ADMIN.
    pub fn open(kind: PortKind, ipv4: bool, mark: u32, offload: bool) -> io::Result<Self> {
        Self::open_share(kind, ipv4, mark, offload, Share::WHOLE)
    }

    /// As [`Self::open`], for one of several workers.
    pub fn open_share(kind: PortKind, ipv4: bool, mark: u32, offload: bool, share: Share) -> io::Result<Self> {
        let domain = if ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let (ty, protocol) = match kind {
            PortKind::Udp(_) => (Type::DGRAM, Protocol::UDP),
            PortKind::RawEsp => (Type::RAW, Protocol::from(50)),
            PortKind::RawAh => (Type::RAW, Protocol::from(51)),
            PortKind::Clear => (Type::RAW, Protocol::from(libc::IPPROTO_RAW)),
        };
        let socket = Socket::new(domain, ty.nonblocking(), Some(protocol))?;
        socket.set_mark(mark)?;
        let fd = socket.as_fd();
        if ipv4 {
            set_int_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_int_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            set_int_option(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
        } else {
            set_int_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set_int_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            set_int_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        }
        match kind {
            PortKind::Udp(port) => {
                // A raw socket is of one family anyway, and refuses the option.
                if !ipv4 {
                    socket.set_only_v6(true)?;
                }
                let any = if ipv4 {
                    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
                } else {
                    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
                };
                // The first alone finds out whether the port is in use; the others then join it.
                if share.number > 0 {
                    socket.set_reuse_port(true)?;
                }
                socket.bind(&any.into())?;
                if share.of > 1 {
                    socket.set_reuse_port(true)?;
                }
            }
            // Of a packet too big for its path the kernel learns through any IPv4 socket, but only through a
            // raw IPv6 socket that wants reports, which then also has to take them.
            // Each report goes to all of them: one is enough.
            PortKind::RawEsp if !ipv4 && share.number == 0 => {
                set_int_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
            }
            PortKind::RawEsp | PortKind::RawAh => {}
            PortKind::Clear => {
                if ipv4 {
                    socket.set_header_included_v4(true)?;
                } else {
                    socket.set_header_included_v6(true)?;
                }
            }
        }
        if matches!(kind, PortKind::RawEsp | PortKind::RawAh) && share.of > 1 {
            socket.attach_filter(&sources_of(share, ipv4))?;
        }
        if kind != PortKind::Clear {
            set_int_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
            for (beyond_limits, within) in
                [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
            {
                if set_int_option(fd, libc::SOL_SOCKET, beyond_limits, BUFFER_OCTETS).is_err() {
                    // What net.core.rmem_max and wmem_max allow; less costs bursts, not correctness.
                    let _ = set_int_option(fd, libc::SOL_SOCKET, within, BUFFER_OCTETS);
                }
            }
        }
        let can = |option, value| {
            offload && matches!(kind, PortKind::Udp(_)) && set_int_option(fd, libc::SOL_UDP, option, value).is_ok()
        };
        // A size of 0 changes nothing: it only tells whether the kernel knows the option.
        let (segments, coalesced) = (can(libc::UDP_SEGMENT, 0), can(libc::UDP_GRO, 1));
        let (dont_fragment, lost) = (AtomicU8::new(2), AtomicU32::new(0));
        Ok(Self {
            socket,
            ipv4,
            dont_fragment,
            lost,
            segments: AtomicBool::new(segments),
            coalesced,
            sending: Mutex::new(()),
        })
    }

    /// Whether the port is one of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.ipv4
    }

    /// To be held from [`Self::set_dont_fragment`] until that is sent which it is for: others may send by the same port.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether what is sent from now on carries DF (IPv4), or is refused
    /// rather than fragmented by us (IPv6), when it does not fit the path.
    pub fn set_dont_fragment(&self, on: bool) -> io::Result<()> {
        if self.dont_fragment.load(Relaxed) == u8::from(on) {
            return Ok(());
        }
        if self.ipv4 {
            set_path_mtu_discovery(self.as_fd(), on)?;
        } else {
            let value = if on { libc::IPV6_PMTUDISC_DO } else { libc::IPV6_PMTUDISC_DONT };
            set_int_option(self.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)?;
        }
        self.dont_fragment.store(u8::from(on), Relaxed);
        Ok(())
    }

    /// Receives a batch without waiting; see [`ReceiveBatch::receive`].
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.receive(self.as_fd())
    }

    /// How many datagrams the kernel has dropped before they could be received,
    /// since this was last asked, as far as `batch` tells: it was just filled by
    /// [`Self::receive`]. Of those after its last one the next tells.
    pub fn newly_lost(&self, batch: &ReceiveBatch) -> u32 {
        batch.lost().map_or(0, |lost| lost.wrapping_sub(self.lost.swap(lost, Relaxed)))
    }

    /// Takes the oldest report about a packet sent; see [`take_report`]. Only an
    /// IPv6 [`PortKind::RawEsp`] has any, and while it has, polling it tells of an error.
    pub fn take_report(&self) -> io::Result<Option<Report>> {
        take_report(self.as_fd())
    }

    /// Whether datagrams go to the kernel as one, and come from it so.
    #[must_use]
    pub fn offload(&self) -> (bool, bool) {
        (self.segments.load(Relaxed), self.coalesced)
    }

    /// Sends the first of `outgoing`; see [`SendBatch::send`].
    pub fn send(&self, batch: &mut SendBatch, outgoing: &[Outgoing<'_>]) -> io::Result<usize> {
        if !self.segments.load(Relaxed) {
            return batch.send(self.as_fd(), outgoing);
        }
        let run = segment_run(outgoing);
        match batch.send_segmented(self.as_fd(), outgoing) {
            Err(e) if run > 1 && !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                // The way out cannot compute checksums, without which the kernel cuts nothing (EIO).
                if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
                    self.segments.store(false, Relaxed);
                }
                // One by one, each hears what is wrong with it: that it does not fit the path, for one.
                batch.send(self.as_fd(), &outgoing[..run])
            }
            sent => sent,
        }
    }
}

/// Accepts what comes from the addresses whose turn it is: every raw socket gets a copy of each packet, and this
/// program of the kernel's packet filter leaves it to one of them.
fn sources_of(share: Share, ipv4: bool) -> Vec<SockFilter> {
    let op = |code: u32, k: u32| SockFilter::new(code as u16, 0, 0, k);
    let load = |offset: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (libc::SKF_NET_OFF as u32) + offset);
    let to_x = || op(libc::BPF_MISC | libc::BPF_TAX, 0);
    let xor_x = || op(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0);
    // The words of the address together ...
    let words: &[u32] = if ipv4 { &[12] } else { &[8, 12, 16, 20] };
    let mut program = vec![load(words[0])];
    for word in &words[1..] {
        program.extend([to_x(), load(*word), xor_x()]);
    }
    // ... and their halves.
    program.extend([to_x(), op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16), xor_x()]);
    program.push(op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, share.of as u32));
    let ours = SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, share.number as u32);
    let returns = |octets| op(libc::BPF_RET | libc::BPF_K, octets);
    program.extend([ours, returns(u32::MAX), returns(0)]);
    program
}

/// Whether the kernel sets DF in what an IPv4 socket sends.
pub fn set_path_mtu_discovery(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let value = if on { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
    set_int_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
