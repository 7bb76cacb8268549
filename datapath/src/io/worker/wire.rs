//! Putting packets on the wire, through the right socket, in as few system
//! calls as their order allows.

use super::super::{Outgoing, Port, SendBatch};
use super::{Ports, wait_writable};
use crate::esp::outbound::Sealed;
use crate::pipeline::{BATCH, Clear};
use policy::sa::SaProtocol;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// How long a full socket may hold a worker up, in milliseconds. Meanwhile
/// packets queue in the TUN interface, where the kernel's own queueing applies.
const PATIENCE: u16 = 100;

/// The sending side of one worker.
pub(super) struct Wire {
    ports: Arc<Ports>,
    batch: SendBatch,
}

/// What packets of one system call have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Class {
    ipv4: bool,
    encapsulated: bool,
    dont_fragment: bool,
    protocol: SaProtocol,
}

impl Class {
    fn of(sealed: &Sealed) -> Self {
        let spec = sealed.sa.spec();
        Self {
            ipv4: spec.remote.is_ipv4(),
            encapsulated: spec.encapsulation.is_some(),
            dont_fragment: sealed.outer.dont_fragment || spec.protocol == SaProtocol::Ah,
            protocol: spec.protocol,
        }
    }
}

impl Wire {
    pub(super) fn new(ports: Arc<Ports>) -> Self {
        Self { ports, batch: SendBatch::new(BATCH) }
    }

    /// Sends protected packets in order and empties the list; `done` hears what
    /// became of each.
    pub(super) fn send_sealed(&mut self, sealed: &mut Vec<Sealed>, mut done: impl FnMut(Sealed, io::Result<()>)) {
        let mut outcomes = Vec::with_capacity(sealed.len());
        for run in sealed.chunk_by(|a, b| Class::of(a) == Class::of(b)) {
            let Some(class) = run.first().map(Class::of) else { continue };
            let outgoing: Vec<Outgoing<'_>> = run.iter().map(outgoing).collect();
            let ports = Arc::clone(&self.ports);
            let port = ports.family(class.ipv4).map(|f| match class.protocol {
                // Whole packets, with their own headers.
                SaProtocol::Ah => &f.clear,
                SaProtocol::Esp if class.encapsulated => &f.udp,
                SaProtocol::Esp => &f.esp,
            });
            self.send(port, class.dont_fragment, &outgoing, &mut outcomes);
        }
        for (sealed, outcome) in sealed.drain(..).zip(outcomes) {
            done(sealed, outcome);
        }
    }

    /// Sends packets as they are and empties the list.
    pub(super) fn send_clear(&mut self, clear: &mut Vec<Clear>, mut done: impl FnMut(Clear, io::Result<()>)) {
        let mut outcomes = Vec::with_capacity(clear.len());
        for run in clear.chunk_by(|a, b| a.destination().is_ipv4() == b.destination().is_ipv4()) {
            let ipv4 = run.first().is_some_and(|c| c.destination().is_ipv4());
            let outgoing: Vec<Outgoing<'_>> = run
                .iter()
                .map(|c| Outgoing {
                    payload: c.octets(),
                    destination: SocketAddr::new(c.destination(), 0),
                    source: None,
                    tos: None,
                    hop_limit: None,
                })
                .collect();
            let ports = Arc::clone(&self.ports);
            // The packets' own headers say what DF is to be; the kernel shall not fragment them.
            self.send(ports.family(ipv4).map(|f| &f.clear), true, &outgoing, &mut outcomes);
        }
        for (clear, outcome) in clear.drain(..).zip(outcomes) {
            done(clear, outcome);
        }
    }

    /// Sends one datagram of the port that IKE and ESP share.
    pub(super) fn send_datagram(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let source = (!local.ip().is_unspecified()).then_some(local.ip());
        let outgoing = [Outgoing { payload, destination: remote, source, tos: None, hop_limit: None }];
        let ports = Arc::clone(&self.ports);
        let mut outcomes = Vec::with_capacity(1);
        // IKE has no other fragmentation than that of IP.
        self.send(ports.family(remote.is_ipv4()).map(|f| &f.udp), false, &outgoing, &mut outcomes);
        outcomes.pop().unwrap_or(Ok(()))
    }

    /// Sends everything through one port, adding one outcome for each.
    fn send(
        &mut self,
        port: Option<&Port>,
        dont_fragment: bool,
        outgoing: &[Outgoing<'_>],
        outcomes: &mut Vec<io::Result<()>>,
    ) {
        let end = outcomes.len() + outgoing.len();
        let Some(port) = port else {
            outcomes.resize_with(end, || Err(io::ErrorKind::Unsupported.into()));
            return;
        };
        if let Err(e) = port.set_dont_fragment(dont_fragment) {
            let kind = e.kind();
            outcomes.resize_with(end, || Err(kind.into()));
            return;
        }
        let mut rest = outgoing;
        let mut patience = PATIENCE;
        while !rest.is_empty() {
            match port.send(&mut self.batch, rest) {
                Ok(sent) => {
                    outcomes.resize_with(outcomes.len() + sent, || Ok(()));
                    rest = &rest[sent..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && patience > 0 => {
                    // Once in a batch: a socket that stays full must not hold up the others.
                    if !wait_writable(port.as_fd(), patience) {
                        patience = 0;
                    }
                }
                // The first of the rest is what failed.
                Err(e) => {
                    outcomes.push(Err(e));
                    rest = &rest[1..];
                }
            }
        }
    }
}

/// A protected packet as a datagram.
fn outgoing(sealed: &Sealed) -> Outgoing<'_> {
    let spec = sealed.sa.spec();
    if spec.protocol == SaProtocol::Ah {
        let destination = SocketAddr::new(spec.remote, 0);
        return Outgoing { payload: sealed.packet.as_slice(), destination, source: None, tos: None, hop_limit: None };
    }
    Outgoing {
        payload: sealed.packet.as_slice(),
        destination: sealed.sa.remote(),
        source: Some(spec.local),
        tos: Some(sealed.outer.traffic_class),
        hop_limit: sealed.outer.hop_limit,
    }
}
