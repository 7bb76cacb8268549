//! Batches of datagrams through `recvmmsg` and `sendmmsg`, with what the
//! control messages carry: our own address (IP_PKTINFO) and the TOS octet.

use super::control::{self, CONTROL_LEN, Control};
use crate::outer::OUTER_TTL;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Buffers for a batch of received datagrams, allocated once.
pub struct ReceiveBatch {
    buffers: Vec<u8>,
    buffer_len: usize,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    filled: usize,
}

// SAFETY: the raw pointers in `headers` and `iovecs` point into the other fields, are written anew
// by each call of `receive`, and are never followed outside it.
unsafe impl Send for ReceiveBatch {}

/// One received datagram.
#[derive(Debug)]
pub struct Received<'a> {
    /// What the socket delivers: a UDP payload, or an IP payload; a raw IPv4 socket puts the IP header before it.
    pub payload: &'a mut [u8],
    /// Sender; port 0 for raw sockets.
    pub source: SocketAddr,
    /// The address of ours that it was sent to.
    pub local: Option<IpAddr>,
    /// TOS octet or traffic class: DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit; 64 where the socket does not tell.
    pub hop_limit: u8,
    /// The datagram was longer than the buffer; the rest is lost.
    pub truncated: bool,
    /// `payload` is of several datagrams, each but the last of so many octets (UDP_GRO).
    pub segment: Option<usize>,
}

impl ReceiveBatch {
    /// Room for `count` datagrams of up to `buffer_len` octets each.
    #[must_use]
    pub fn new(count: usize, buffer_len: usize) -> Self {
        // SAFETY: all-zero octets are a valid value of these C structs: numbers, and null pointers
        // with lengths of zero.
        let (name, header, iovec): (libc::sockaddr_storage, libc::mmsghdr, libc::iovec) = unsafe {
            (
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
            )
        };
        Self {
            buffers: vec![0; count * buffer_len],
            buffer_len,
            names: vec![name; count],
            controls: vec![Control([0; CONTROL_LEN]); count],
            headers: vec![header; count],
            iovecs: vec![iovec; count],
            filled: 0,
        }
    }

    /// Receives what is there, up to the size of the batch, without waiting;
    /// returns how many. Nothing there is 0, not an error.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled = 0;
        // One borrow of each list for all its pointers: indexing anew would end the earlier ones.
        let parts = self.names.iter_mut().zip(&mut self.controls).zip(&mut self.iovecs);
        let buffers = self.buffers.chunks_exact_mut(self.buffer_len);
        for ((header, buffer), ((name, control), iovec)) in self.headers.iter_mut().zip(buffers).zip(parts) {
            *iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_len = 0;
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut *iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_LEN as _;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: every header was just pointed at its own buffer, name, iovec and control area,
        // which belong to `self` and outlive the call, with their true lengths.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(n) => {
                self.filled = n;
                Ok(n)
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
                e => Err(e),
            },
        }
    }

    /// How many datagrams the socket had lost for want of room when the last of
    /// this batch came, since it was opened and modulo 2^32; `None` where it
    /// does not say: without SO_RXQ_OVFL, or as long as there are none.
    #[must_use]
    pub fn lost(&self) -> Option<u32> {
        let header = self.headers.get(self.filled.checked_sub(1)?)?;
        // SAFETY: as in `told`.
        let mut messages = unsafe { control::messages(&header.msg_hdr) };
        let message = messages.find(|m| (m.level, m.kind) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL))?;
        // SAFETY: a number.
        unsafe { message.body() }
    }

    /// The datagrams of the last [`receive`](Self::receive). One whose sender
    /// is not an IP address is left out.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Received<'_>> {
        let Self { buffers, buffer_len, names, headers, filled, .. } = self;
        buffers.chunks_exact_mut(*buffer_len).zip(headers.iter()).zip(names.iter()).take(*filled).filter_map(
            |((buffer, header), name)| {
                let source = socket_addr(name)?;
                let Told { local, tos, hop_limit, segment } = told(&header.msg_hdr);
                let len = (header.msg_len as usize).min(buffer.len());
                Some(Received {
                    payload: &mut buffer[..len],
                    source,
                    local,
                    tos,
                    hop_limit,
                    truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                    segment,
                })
            },
        )
    }
}

/// What the control messages of a received datagram say of it.
struct Told {
    local: Option<IpAddr>,
    tos: u8,
    hop_limit: u8,
    segment: Option<usize>,
}

fn told(header: &libc::msghdr) -> Told {
    let (mut local, mut tos, mut hop_limit, mut segment) = (None, 0, OUTER_TTL, None);
    // SAFETY: `header` was filled in by recvmmsg and its control area still lives in the batch.
    for message in unsafe { control::messages(header) } {
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = |info: libc::in_pktinfo| Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
                // SAFETY: the kernel puts this struct, of numbers alone, into messages of this type.
                local = unsafe { message.body() }.map(address).map(IpAddr::V4).or(local);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = |info: libc::in6_pktinfo| Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // SAFETY: as above.
                local = unsafe { message.body() }.map(address).map(IpAddr::V6).or(local);
            }
            // SAFETY: a number.
            (libc::IPPROTO_IP, libc::IP_TOS) => tos = unsafe { message.body() }.unwrap_or(tos),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: a number.
                tos = unsafe { message.body::<libc::c_int>() }.map_or(tos, |class| (class & 0xff) as u8);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: a number.
                hop_limit = unsafe { message.body::<libc::c_int>() }.map_or(hop_limit, |n| (n & 0xff) as u8);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: a number.
                let size = unsafe { message.body::<libc::c_int>() };
                segment = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
            }
            _ => {}
        }
    }
    Told { local, tos, hop_limit, segment }
}

/// One datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// UDP payload, IP payload, or for a socket with IP_HDRINCL the whole packet.
    pub payload: &'a [u8],
    /// Receiver; the port is ignored by raw sockets.
    pub destination: SocketAddr,
    /// The address of ours to send from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// TOS octet or traffic class; `None` leaves the socket's.
    pub tos: Option<u8>,
    /// TTL or hop limit, at least 1; `None` leaves the socket's.
    pub hop_limit: Option<u8>,
}

/// Headers for a batch of datagrams to be sent, allocated once.
pub struct SendBatch {
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    /// Datagrams of each header.
    runs: Vec<usize>,
}

// SAFETY: as for `ReceiveBatch`: pointers are written anew by each call and not kept.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Room for `count` datagrams in one system call.
    #[must_use]
    pub fn new(count: usize) -> Self {
        // SAFETY: as in `ReceiveBatch::new`.
        let (name, header, iovec): (libc::sockaddr_storage, libc::mmsghdr, libc::iovec) = unsafe {
            (
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
            )
        };
        Self {
            names: vec![name; count],
            controls: vec![Control([0; CONTROL_LEN]); count],
            headers: vec![header; count],
            iovecs: vec![iovec; count],
            runs: vec![0; count],
        }
    }

    /// Sends the first datagrams of `outgoing`, as many as the batch and the
    /// socket take; returns how many. An error is that of the first: none was sent.
    pub fn send(&mut self, fd: BorrowedFd<'_>, outgoing: &[Outgoing<'_>]) -> io::Result<usize> {
        self.send_runs(fd, outgoing, |_| 1)
    }

    /// As [`Self::send`] through a UDP socket, but datagrams of one length that go the same way are handed over as
    /// one (UDP_SEGMENT). An error is that of the first [run](segment_run).
    pub fn send_segmented(&mut self, fd: BorrowedFd<'_>, outgoing: &[Outgoing<'_>]) -> io::Result<usize> {
        self.send_runs(fd, outgoing, segment_run)
    }

    /// `run`: how many of the first of some datagrams go as one.
    fn send_runs(
        &mut self,
        fd: BorrowedFd<'_>,
        outgoing: &[Outgoing<'_>],
        run: impl Fn(&[Outgoing<'_>]) -> usize,
    ) -> io::Result<usize> {
        let mut rest = &outgoing[..outgoing.len().min(self.headers.len())];
        // As in `ReceiveBatch::receive`.
        let parts = self.names.iter_mut().zip(&mut self.controls);
        let mut iovecs = &mut self.iovecs[..];
        let mut count = 0;
        for ((header, length), (name, control)) in self.headers.iter_mut().zip(&mut self.runs).zip(parts) {
            let Some(first) = rest.first() else { break };
            let (datagrams, others) = rest.split_at(run(rest));
            let (own, unused) = iovecs.split_at_mut(datagrams.len());
            for (iovec, datagram) in own.iter_mut().zip(datagrams) {
                // The kernel does not write through the pointer of a message that is sent.
                let base = datagram.payload.as_ptr().cast_mut().cast();
                *iovec = libc::iovec { iov_base: base, iov_len: datagram.payload.len() };
            }
            let name_len = write_socket_addr(first.destination, name);
            let mut control_len = write_control(first, control);
            if datagrams.len() > 1 {
                control.push(&mut control_len, libc::SOL_UDP, libc::UDP_SEGMENT, first.payload.len() as u16);
            }
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = name_len;
            header.msg_iov = own.as_mut_ptr();
            header.msg_iovlen = own.len() as _;
            header.msg_control = if control_len == 0 { ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
            header.msg_controllen = control_len as _;
            header.msg_flags = 0;
            *length = datagrams.len();
            count += 1;
            (rest, iovecs) = (others, unused);
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers point at payloads borrowed for this call and at names,
        // iovecs and control areas of `self`, with their true lengths.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        Ok(self.runs[..sent].iter().sum())
    }
}

/// The most datagrams, and octets of them, that the kernel takes as one: UDP_MAX_SEGMENTS of older kernels, and the
/// longest UDP payload of IPv4.
const RUN: (usize, usize) = (64, 65_507);

/// How many of the first datagrams may go as one: all of one length but the last, which may be shorter, and alike in
/// everything else. At least 1.
#[must_use]
pub fn segment_run(outgoing: &[Outgoing<'_>]) -> usize {
    let Some(first) = outgoing.first() else { return 0 };
    let (size, mut octets) = (first.payload.len(), 0);
    let mut count = 0;
    for datagram in &outgoing[..outgoing.len().min(RUN.0)] {
        let alike = (datagram.destination, datagram.source, datagram.tos, datagram.hop_limit)
            == (first.destination, first.source, first.tos, first.hop_limit);
        octets += datagram.payload.len();
        if !alike || datagram.payload.is_empty() || datagram.payload.len() > size || octets > RUN.1 {
            break;
        }
        count += 1;
        if datagram.payload.len() < size {
            break;
        }
    }
    count.max(1)
}

/// Writes source address, TOS and hop limit as control messages; returns the octets used.
fn write_control(datagram: &Outgoing<'_>, control: &mut Control) -> usize {
    let mut used = 0;
    match datagram.source {
        Some(IpAddr::V4(a)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(a.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control.push(&mut used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(a)) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: a.octets() }, ipi6_ifindex: 0 };
            control.push(&mut used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(tos) = datagram.tos {
        let value = libc::c_int::from(tos);
        if datagram.destination.is_ipv4() {
            control.push(&mut used, libc::IPPROTO_IP, libc::IP_TOS, value);
        } else {
            control.push(&mut used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value);
        }
    }
    if let Some(hop_limit) = datagram.hop_limit {
        let value = libc::c_int::from(hop_limit);
        if datagram.destination.is_ipv4() {
            control.push(&mut used, libc::IPPROTO_IP, libc::IP_TTL, value);
        } else {
            control.push(&mut used, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, value);
        }
    }
    used
}

pub(super) fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage, which is larger and more strictly aligned,
            // holds a sockaddr_in.
            let a = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a sockaddr_in6.
            let a = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_socket_addr(address: SocketAddr, name: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match address {
        SocketAddr::V4(a) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as strictly aligned as any sockaddr.
            unsafe { ptr::write((&raw mut *name).cast(), value) };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(a) => {
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::write((&raw mut *name).cast(), value) };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
    }

    #[test]
    fn a_batch_arrives_whole_and_in_order_with_addresses_and_tos() {
        for (address, loopback) in
            [("127.0.0.1:0", IpAddr::V4(Ipv4Addr::LOCALHOST)), ("[::1]:0", Ipv6Addr::LOCALHOST.into())]
        {
            let (from, to) = pair(address);
            let option = |name4, name6| {
                if loopback.is_ipv4() {
                    super::super::set_int_option(to.as_fd(), libc::IPPROTO_IP, name4, 1).unwrap();
                } else {
                    super::super::set_int_option(to.as_fd(), libc::IPPROTO_IPV6, name6, 1).unwrap();
                }
            };
            option(libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO);
            option(libc::IP_RECVTOS, libc::IPV6_RECVTCLASS);
            option(libc::IP_RECVTTL, libc::IPV6_RECVHOPLIMIT);
            let payloads: Vec<Vec<u8>> = (0..10u8).map(|i| vec![i; 100 + usize::from(i)]).collect();
            let outgoing: Vec<_> = payloads
                .iter()
                .map(|p| Outgoing {
                    payload: p,
                    destination: to.local_addr().unwrap(),
                    source: Some(loopback),
                    tos: Some(0xb9),
                    hop_limit: Some(37),
                })
                .collect();
            let mut send = SendBatch::new(4);
            let mut at = 0;
            while at < outgoing.len() {
                let n = send.send(from.as_fd(), &outgoing[at..]).unwrap();
                assert!((1..=4).contains(&n), "no more than the batch holds");
                at += n;
            }
            let mut batch = ReceiveBatch::new(16, 105);
            assert_eq!(batch.receive(to.as_fd()).unwrap(), 10);
            for (received, sent) in batch.iter_mut().zip(&payloads) {
                assert_eq!(received.payload, &sent[..sent.len().min(105)]);
                assert_eq!(received.truncated, sent.len() > 105);
                assert_eq!(received.source, from.local_addr().unwrap());
                assert_eq!(received.local, Some(loopback));
                assert_eq!((received.tos, received.hop_limit), (0xb9, 37));
            }
            assert_eq!(batch.receive(to.as_fd()).unwrap(), 0, "nothing left, and no waiting");
            assert_eq!(batch.iter_mut().count(), 0);
        }
    }

    #[test]
    fn datagrams_handed_over_as_one_arrive_as_they_were() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(address);
            super::super::set_int_option(to.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
            let lengths = [[1000; 30].as_slice(), &[400, 1000, 1000, 1001, 7, 7, 7], &[60; 100]].concat();
            let payloads: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
            let outgoing = |tos: u8| {
                let destination = to.local_addr().unwrap();
                let all = payloads.iter().map(move |payload| Outgoing {
                    payload,
                    destination,
                    source: None,
                    tos: Some(tos),
                    hop_limit: None,
                });
                all.collect::<Vec<_>>()
            };
            let all = outgoing(4);
            assert_eq!(segment_run(&all), 31, "equal ones, and one that is shorter");
            assert_eq!(segment_run(&all[31..]), 2, "one that is longer goes elsewhere");
            assert_eq!(segment_run(&all[33..]), 2);
            assert_eq!(segment_run(&all[34..]), 3);
            assert_eq!(segment_run(&all[37..]), 64);
            assert_eq!(segment_run(&[all[0], outgoing(8)[1]]), 1, "another class of traffic");
            assert_eq!(segment_run(&[]), 0);
            let mut send = SendBatch::new(64);
            let mut batch = ReceiveBatch::new(64, 65_535);
            let (mut at, mut got) = (0, Vec::new());
            while at < all.len() {
                at += send.send_segmented(from.as_fd(), &all[at..]).unwrap();
                batch.receive(to.as_fd()).unwrap();
                for received in batch.iter_mut() {
                    let size = received.segment.unwrap_or(received.payload.len());
                    got.extend(received.payload.chunks(size).map(<[u8]>::to_vec));
                }
            }
            assert!(got == payloads, "{} of {} came", got.len(), payloads.len());
        }
    }

    #[test]
    fn without_control_messages_nothing_is_made_up() {
        let (from, to) = pair("127.0.0.1:0");
        let datagram =
            Outgoing { payload: b"x", destination: to.local_addr().unwrap(), source: None, tos: None, hop_limit: None };
        assert_eq!(SendBatch::new(1).send(from.as_fd(), &[datagram]).unwrap(), 1);
        let mut batch = ReceiveBatch::new(1, 10);
        assert_eq!(batch.receive(to.as_fd()).unwrap(), 1);
        let received = batch.iter_mut().next().unwrap();
        assert_eq!((received.local, received.tos, received.truncated), (None, 0, false));
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        let (from, to) = pair("127.0.0.1:0");
        let source = Some(IpAddr::from([192, 0, 2, 1]));
        let datagram =
            Outgoing { payload: b"x", destination: to.local_addr().unwrap(), source, tos: None, hop_limit: None };
        assert!(SendBatch::new(1).send(from.as_fd(), &[datagram]).is_err());
    }
}
