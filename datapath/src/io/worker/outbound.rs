//! From the TUN interface to the wire.

use super::super::{Tun, path_mtu};
use super::wire::Wire;
use super::{Clock, Events, Ports, Waker, paths, wait_readable};
use crate::event::Event;
use crate::offload::VirtioHeader;
use crate::offload::segment::{Mismatch, Segments, complete};
use crate::packet::Packet;
use crate::pipeline::{BATCH, Clear, Outbound, OutboundOutput};
use crate::sessions::Lane;
use crate::shared::Shared;
use crossbeam::channel::Receiver;
use policy::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

/// What a worker is told to do.
#[derive(Debug)]
pub(in crate::io) enum Command {
    /// The SA of this tunnel or session is there.
    Release(Lane),
    /// There will be none.
    Fail(Lane),
    /// The policies were replaced.
    PoliciesReplaced,
    /// A datagram of the port that IKE shares with ESP.
    Send { local: SocketAddr, remote: SocketAddr, payload: Vec<u8> },
    /// End.
    Stop,
}

/// A worker of the outbound direction.
pub(in crate::io) struct OutboundWorker {
    pub(in crate::io) tun: Arc<Tun>,
    /// For ICMP messages: a queue that may be written to.
    pub(in crate::io) answers: Arc<Tun>,
    pub(in crate::io) ports: Arc<Ports>,
    pub(in crate::io) commands: Receiver<Command>,
    pub(in crate::io) waker: Waker,
    pub(in crate::io) events: Events,
    pub(in crate::io) clock: Clock,
    pub(in crate::io) mark: u32,
    pub(in crate::io) shared: Arc<Shared>,
    /// Number of its counter block.
    pub(in crate::io) number: usize,
}

impl OutboundWorker {
    /// Runs until it is told to stop, or the TUN interface fails.
    pub(in crate::io) fn run(self) -> io::Result<()> {
        let mut pipeline = Outbound::new(Arc::clone(&self.shared), self.number, 4 * BATCH);
        let ended = self.work(&mut pipeline);
        pipeline.shut_down();
        ended
    }

    fn work(&self, pipeline: &mut Outbound) -> io::Result<()> {
        let mut wire = Wire::new(Arc::clone(&self.ports));
        let mut batch = Vec::with_capacity(BATCH);
        let mut out = OutboundOutput::default();
        loop {
            let [commanded, _] = wait_readable([Some(self.waker.as_fd()), Some(self.tun.as_fd())])?;
            let now = self.clock.now();
            if !commanded.is_empty() {
                self.waker.answer();
                if !self.obey(pipeline, &mut wire, now, &mut out) {
                    return Ok(());
                }
            }
            let read = self.read_batch(pipeline, &mut batch);
            // What was read before it failed goes on.
            pipeline.handle_batch(&mut batch, now, &mut out);
            self.emit(pipeline, &mut wire, now, &mut out);
            read?;
        }
    }

    /// Reads what is there, up to a batch or the end of the super-packet that fills it.
    fn read_batch(&self, pipeline: &mut Outbound, batch: &mut Vec<Packet>) -> io::Result<()> {
        while batch.len() < BATCH {
            let mut packet = pipeline.buffer();
            match self.tun.read(&mut packet) {
                Ok(Some(header)) => take(header, packet, pipeline, batch),
                Ok(None) => {
                    pipeline.recycle(packet);
                    break;
                }
                Err(e) => {
                    pipeline.recycle(packet);
                    if e.kind() == io::ErrorKind::Interrupted {
                        continue;
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Carries out commands; `false` for the last.
    fn obey(&self, pipeline: &mut Outbound, wire: &mut Wire, now: Timestamp, out: &mut OutboundOutput) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Release(lane) => pipeline.release(lane, now, out),
                Command::Fail(lane) => pipeline.fail(lane),
                Command::PoliciesReplaced => pipeline.policies_replaced(now, out),
                Command::Send { local, remote, payload } => {
                    if let Err(e) = wire.send_datagram(local, remote, &payload) {
                        self.events.send(Event::SendFailed { remote, error: e.to_string() });
                    }
                }
                Command::Stop => return false,
            }
            self.emit(pipeline, wire, now, out);
        }
        true
    }

    /// Moves what came out of the pipeline.
    fn emit(&self, pipeline: &mut Outbound, wire: &mut Wire, now: Timestamp, out: &mut OutboundOutput) {
        send_sealed(wire, pipeline, out, &self.shared, self.mark);
        let mut too_big: Vec<Clear> = Vec::new();
        wire.send_clear(&mut out.clear, |clear, outcome| match outcome {
            Ok(()) => pipeline.clear_sent(clear),
            Err(e) if is_too_big(&e) => too_big.push(clear),
            Err(_) => pipeline.clear_failed(clear),
        });
        self.clear_too_big(too_big, pipeline, now, out);
        // What was cut just now; whatever is still too big is given up.
        wire.send_clear(&mut out.clear, |clear, outcome| match outcome {
            Ok(()) => pipeline.clear_sent(clear),
            Err(_) => pipeline.clear_failed(clear),
        });
        for reply in out.replies.drain(..) {
            // Its loss is that of any ICMP message: the sender tries again and is told again.
            let _ = self.answers.write(reply.as_slice());
            pipeline.recycle(reply);
        }
        self.events.send_all(&mut out.events, |_| {});
    }

    /// Asks each path once.
    fn clear_too_big(&self, too_big: Vec<Clear>, pipeline: &mut Outbound, now: Timestamp, out: &mut OutboundOutput) {
        let mut paths = BTreeMap::new();
        for clear in too_big {
            let remote = clear.destination();
            // Its source may be a host behind us: only the route counts.
            let any: IpAddr =
                if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            match paths.entry(remote).or_insert_with(|| path_mtu(any, remote, self.mark).ok()) {
                Some(mtu) => pipeline.clear_too_big(clear, *mtu, now, out),
                None => pipeline.clear_failed(clear),
            }
        }
    }
}

/// Sends protected packets, and tells what became of each.
pub(super) fn send_sealed(
    wire: &mut Wire,
    pipeline: &mut Outbound,
    out: &mut OutboundOutput,
    shared: &Shared,
    mark: u32,
) {
    let mut shrunk = BTreeSet::new();
    wire.send_sealed(out, |sealed, sa, outcome| match outcome {
        Ok(()) => pipeline.sent(sealed),
        Err(e) if is_too_big(&e) => {
            shrunk.insert(sa.remote().ip());
            pipeline.path_shrunk(sealed);
        }
        Err(_) => pipeline.send_failed(sealed),
    });
    if !shrunk.is_empty() {
        // Those that follow are cut, or their senders told.
        paths::refresh(shared, mark, |sa| shrunk.contains(&sa.remote().ip()));
    }
}

/// Adds to the batch what a packet that was read stands for.
fn take(header: VirtioHeader, mut packet: Packet, pipeline: &mut Outbound, batch: &mut Vec<Packet>) {
    let Some((kind, size)) = header.segments else {
        return match complete(header, packet.as_mut_slice()) {
            Ok(()) => batch.push(packet),
            Err(Mismatch) => pipeline.malformed(packet),
        };
    };
    let Ok(mut segments) = Segments::new(packet.as_slice(), kind, size) else { return pipeline.malformed(packet) };
    loop {
        let mut segment = pipeline.buffer();
        if !segments.next_into(&mut segment) {
            pipeline.recycle(segment);
            break;
        }
        batch.push(segment);
    }
    pipeline.recycle(packet);
}

fn is_too_big(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}
