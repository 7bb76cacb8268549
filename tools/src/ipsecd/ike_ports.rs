//! UDP port 500: IKE datagrams to and from the network. Those on the NAT-T port
//! come and go through the packet path, which shares that port with ESP.

use datapath::io::{Outgoing, Port, PortKind, ReceiveBatch, SendBatch};
use datapath::pipeline::inbound::LONGEST_IKE_MESSAGE;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams taken from a socket at a time.
const BATCH: usize = 16;

/// An IKE datagram that arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Ours: address and port.
    pub(super) local: SocketAddr,
    /// The peer's.
    pub(super) remote: SocketAddr,
    /// The UDP payload.
    pub(super) payload: Vec<u8>,
}

/// What was found at a port.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) datagrams: Vec<Arrived>,
    /// Datagrams longer than [`LONGEST_IKE_MESSAGE`].
    pub(super) too_long: u64,
    /// Datagrams that the kernel dropped before.
    pub(super) lost: u32,
}

/// The IKE port, for IPv4 and, where the host has it, IPv6.
pub(super) struct IkePorts {
    port: u16,
    v4: Watched,
    v6: Option<Watched>,
    send: SendBatch,
    receive: ReceiveBatch,
}

/// A port, and what tells when something has arrived at it.
struct Watched {
    port: Port,
    /// The same socket once more: only its readiness is used.
    readiness: UdpSocket,
}

impl Watched {
    fn open(port: u16, ipv4: bool, mark: u32) -> io::Result<Self> {
        let port = Port::open(PortKind::Udp(port), ipv4, mark, false)?;
        let again = std::net::UdpSocket::from(port.as_fd().try_clone_to_owned()?);
        Ok(Self { readiness: UdpSocket::from_std(again)?, port })
    }

    fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        let received = self.readiness.try_io(Interest::READABLE, || match self.port.receive(batch)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        });
        match received {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}

impl IkePorts {
    /// Binds UDP `port`. Call within a tokio runtime.
    pub(super) fn bind(port: u16, mark: u32) -> io::Result<Self> {
        let v6 = match Watched::open(port, false, mark) {
            Ok(v6) => Some(v6),
            // A kernel with IPv6 switched off.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
            Err(e) => return Err(e),
        };
        let v4 = Watched::open(port, true, mark)?;
        Ok(Self { port, v4, v6, send: SendBatch::new(1), receive: ReceiveBatch::new(BATCH, LONGEST_IKE_MESSAGE) })
    }

    /// Waits for datagrams; there may be none after all. Cancel safe: nothing
    /// is taken from a socket before this returns.
    pub(super) async fn arrived(&mut self) -> io::Result<Arrivals> {
        let Self { port, v4, v6, receive, .. } = self;
        let ready = match v6 {
            Some(v6) => tokio::select! {
                r = v4.readiness.readable() => r.map(|()| &*v4),
                r = v6.readiness.readable() => r.map(|()| &*v6),
            }?,
            None => v4.readiness.readable().await.map(|()| &*v4)?,
        };
        if ready.receive(receive)? == 0 {
            return Ok(Arrivals::default());
        }
        let mut arrivals = Arrivals { lost: ready.port.newly_lost(receive), ..Arrivals::default() };
        for d in receive.iter_mut() {
            if d.truncated {
                arrivals.too_long += 1;
            } else if let Some(local) = d.local {
                let local = SocketAddr::new(local, *port);
                arrivals.datagrams.push(Arrived { local, remote: d.source, payload: d.payload.to_vec() });
            }
        }
        Ok(arrivals)
    }

    /// Sends one datagram. A full socket buffer or a missing route is an error
    /// that a retransmission makes up for.
    pub(super) fn send(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let port = if remote.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let Some(port) = port else { return Err(io::ErrorKind::Unsupported.into()) };
        let datagram = Outgoing { payload, destination: remote, source: Some(local.ip()), tos: None, hop_limit: None };
        port.port.send(&mut self.send, &[datagram]).map(drop)
    }
}
