//! Putting packets on the wire, through the right socket, in as few system
//! calls as their order allows.

use super::super::{Outgoing, Port, SendBatch};
use super::{Family, Ports, wait_writable};
use crate::esp::outbound::{Run, Sealed};
use crate::pipeline::{BATCH, Clear, OutboundOutput};
use crate::sa::OutboundSa;
use policy::sa::SaProtocol;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

/// How long a full socket may hold a worker up, in milliseconds. Meanwhile
/// packets queue in the TUN interface, where the kernel's own queueing applies.
const PATIENCE: u16 = 100;

/// The sending side of one worker.
pub(super) struct Wire {
    ports: Arc<Ports>,
    sender: Sender,
}

/// What sends, and what became of each packet so far.
struct Sender {
    batch: SendBatch,
    outcomes: Vec<io::Result<()>>,
}

/// Packets of one system call, and what they have in common.
struct Chunk<'a, C> {
    class: Option<C>,
    outgoing: [Outgoing<'a>; BATCH],
    len: usize,
}

impl<'a, C: PartialEq + Copy> Chunk<'a, C> {
    fn new() -> Self {
        let none = Outgoing {
            payload: &[],
            destination: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            source: None,
            tos: None,
            hop_limit: None,
        };
        Self { class: None, outgoing: [none; BATCH], len: 0 }
    }

    /// Adds a packet; those before go to `send` first where they cannot go together.
    fn push(&mut self, class: C, outgoing: Outgoing<'a>, send: &mut impl FnMut(C, &[Outgoing<'_>])) {
        if self.len == BATCH || self.class != Some(class) {
            self.flush(send);
        }
        self.class = Some(class);
        self.outgoing[self.len] = outgoing;
        self.len += 1;
    }

    fn flush(&mut self, send: &mut impl FnMut(C, &[Outgoing<'_>])) {
        if let Some(class) = self.class.take().filter(|_| self.len > 0) {
            send(class, &self.outgoing[..self.len]);
        }
        self.len = 0;
    }
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
    fn of(sealed: &Sealed, sa: &OutboundSa) -> Self {
        let spec = sa.spec();
        Self {
            ipv4: spec.remote.is_ipv4(),
            encapsulated: spec.encapsulation.is_some(),
            dont_fragment: sealed.outer.dont_fragment || spec.protocol == SaProtocol::Ah,
            protocol: spec.protocol,
        }
    }

    fn port(self, family: &Family) -> &Port {
        match self.protocol {
            // Whole packets, with their own headers.
            SaProtocol::Ah => &family.clear,
            SaProtocol::Esp if self.encapsulated => &family.udp,
            SaProtocol::Esp => &family.esp,
        }
    }
}

impl Wire {
    pub(super) fn new(ports: Arc<Ports>) -> Self {
        Self { ports, sender: Sender { batch: SendBatch::new(BATCH), outcomes: Vec::new() } }
    }

    /// Sends protected packets in order, each SA's when it is their turn, and empties the lists of them; `done` hears
    /// what became of each.
    pub(super) fn send_sealed(
        &mut self,
        out: &mut OutboundOutput,
        mut done: impl FnMut(Sealed, &OutboundSa, io::Result<()>),
    ) {
        let (mut sealed, mut runs) = (&out.sealed[..], &mut out.runs[..]);
        while let Some(first) = runs.first() {
            if let Some(turn) = &first.turn {
                turn.wait();
            }
            // Nobody is kept waiting for what comes with it.
            let others = runs[1..].iter().take_while(|r| r.turn.as_ref().is_none_or(|turn| turn.has_come()));
            let (ready, rest) = runs.split_at_mut(1 + others.count());
            let (packets, later) = sealed.split_at(ready.iter().map(|r| r.packets).sum());
            self.send_runs(packets, ready);
            ready.iter_mut().for_each(|r| r.turn = None);
            (sealed, runs) = (later, rest);
        }
        let mut outcomes = self.sender.outcomes.drain(..);
        out.take_sealed(|sealed, sa| done(sealed, sa, outcomes.next().unwrap_or(Ok(()))));
    }

    fn send_runs(&mut self, packets: &[Sealed], runs: &[Run]) {
        let Self { ports, sender } = self;
        let mut send = |class: Class, outgoing: &[Outgoing<'_>]| {
            sender.send(ports.family(class.ipv4).map(|f| class.port(f)), class.dont_fragment, outgoing);
        };
        let (mut packets, mut chunk) = (packets.iter(), Chunk::new());
        for run in runs {
            let remote = run.sa.remote();
            for sealed in packets.by_ref().take(run.packets) {
                chunk.push(Class::of(sealed, &run.sa), outgoing(sealed, &run.sa, remote), &mut send);
            }
        }
        chunk.flush(&mut send);
    }

    /// Sends packets as they are and empties the list.
    pub(super) fn send_clear(&mut self, clear: &mut Vec<Clear>, mut done: impl FnMut(Clear, io::Result<()>)) {
        let Self { ports, sender } = self;
        // The packets' own headers say what DF is to be; the kernel shall not fragment them.
        let mut send = |ipv4, outgoing: &[Outgoing<'_>]| {
            sender.send(ports.family(ipv4).map(|f| &f.clear), true, outgoing);
        };
        let mut chunk = Chunk::new();
        for c in clear.iter() {
            let destination = SocketAddr::new(c.destination(), 0);
            let outgoing = Outgoing { payload: c.octets(), destination, source: None, tos: None, hop_limit: None };
            chunk.push(destination.is_ipv4(), outgoing, &mut send);
        }
        chunk.flush(&mut send);
        for (clear, outcome) in clear.drain(..).zip(self.sender.outcomes.drain(..)) {
            done(clear, outcome);
        }
    }

    /// Sends one datagram of the port that IKE and ESP share.
    pub(super) fn send_datagram(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let source = (!local.ip().is_unspecified()).then_some(local.ip());
        let outgoing = [Outgoing { payload, destination: remote, source, tos: None, hop_limit: None }];
        // IKE has no other fragmentation than that of IP.
        self.sender.send(self.ports.family(remote.is_ipv4()).map(|f| &f.udp), false, &outgoing);
        self.sender.outcomes.pop().unwrap_or(Ok(()))
    }
}

impl Sender {
    /// Sends everything through one port, adding one outcome for each.
    fn send(&mut self, port: Option<&Port>, dont_fragment: bool, outgoing: &[Outgoing<'_>]) {
        let outcomes = &mut self.outcomes;
        let end = outcomes.len() + outgoing.len();
        let Some(port) = port else {
            outcomes.resize_with(end, || Err(io::ErrorKind::Unsupported.into()));
            return;
        };
        let _held = port.hold();
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

/// A protected packet as a datagram. `remote` is where its SA sends just now.
fn outgoing<'a>(sealed: &'a Sealed, sa: &OutboundSa, remote: SocketAddr) -> Outgoing<'a> {
    let spec = sa.spec();
    if spec.protocol == SaProtocol::Ah {
        let destination = SocketAddr::new(spec.remote, 0);
        return Outgoing { payload: sealed.packet.as_slice(), destination, source: None, tos: None, hop_limit: None };
    }
    Outgoing {
        payload: sealed.packet.as_slice(),
        destination: remote,
        source: Some(spec.local),
        tos: Some(sealed.outer.traffic_class),
        hop_limit: sealed.outer.hop_limit,
    }
}
