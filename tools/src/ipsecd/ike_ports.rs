//! UDP port 500: IKE datagrams to and from the network. Those on the NAT-T port
//! come and go through the packet path, which shares that port with ESP.

use datapath::io::{Outgoing, Port, PortKind, ReceiveBatch, SendBatch};
use std::io;
use std::net::SocketAddr;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams taken from a socket at a time.
const BATCH: usize = 16;
/// The longest UDP payload.
const LONGEST: usize = 65_535;

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

/// The IKE port, for IPv4 and, where the host has it, IPv6.
pub(super) struct IkePorts {
    port: u16,
    v4: AsyncFd<Port>,
    v6: Option<AsyncFd<Port>>,
    send: SendBatch,
    receive: ReceiveBatch,
}

impl IkePorts {
    /// Binds UDP `port`. Call within a tokio runtime.
    pub(super) fn bind(port: u16, mark: u32) -> io::Result<Self> {
        let open = |ipv4| AsyncFd::with_interest(Port::open(PortKind::Udp(port), ipv4, mark)?, Interest::READABLE);
        let v6 = match open(false) {
            Ok(v6) => Some(v6),
            // A kernel with IPv6 switched off.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
            Err(e) => return Err(e),
        };
        Ok(Self { port, v4: open(true)?, v6, send: SendBatch::new(1), receive: ReceiveBatch::new(BATCH, LONGEST) })
    }

    /// Waits for datagrams; those that do not fit a UDP payload do not exist.
    /// Cancel safe: nothing is taken from a socket before this returns.
    pub(super) async fn arrived(&mut self) -> io::Result<Vec<Arrived>> {
        let Self { port, v4, v6, receive, .. } = self;
        let mut ready = match v6 {
            Some(v6) => tokio::select! { r = v4.readable() => r?, r = v6.readable() => r? },
            None => v4.readable().await?,
        };
        if ready.get_inner().receive(receive)? < BATCH {
            ready.clear_ready();
        }
        let local = |d: &datapath::io::Received<'_>| Some(SocketAddr::new(d.local?, *port));
        Ok(receive
            .iter_mut()
            .filter(|d| !d.truncated)
            .filter_map(|d| Some(Arrived { local: local(&d)?, remote: d.source, payload: d.payload.to_vec() }))
            .collect())
    }

    /// Sends one datagram. A full socket buffer or a missing route is an error
    /// that a retransmission makes up for.
    pub(super) fn send(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let port = if remote.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let Some(port) = port else { return Err(io::ErrorKind::Unsupported.into()) };
        let datagram = Outgoing { payload, destination: remote, source: Some(local.ip()), tos: None };
        port.get_ref().send(&mut self.send, &[datagram]).map(drop)
    }
}
