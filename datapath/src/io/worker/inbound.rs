//! From the wire to the TUN interface.

use super::super::{Port, ReceiveBatch, Received, Report, Tun};
use super::{Clock, Events, Handed, Ports, Waker, paths, wait_readable};
use crate::packet::MAX_PACKET;
use crate::pipeline::{Arrival, BATCH, Inbound, InboundOutput};
use crate::sa::OutboundSa;
use crate::shared::Shared;
use rustix::event::PollFlags;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};

/// What every IPv6 path carries (RFC 8200 5): the kernel believes no report of less.
const SMALLEST_MTU: u32 = 1280;

/// A worker of the inbound direction.
pub(in crate::io) struct InboundWorker {
    pub(in crate::io) tun: Arc<Tun>,
    pub(in crate::io) ports: Arc<Ports>,
    pub(in crate::io) natt_port: u16,
    pub(in crate::io) stop: Arc<AtomicBool>,
    pub(in crate::io) waker: Waker,
    pub(in crate::io) events: Events,
    pub(in crate::io) clock: Clock,
    pub(in crate::io) mark: u32,
    pub(in crate::io) shared: Arc<Shared>,
    /// Number of its counter block.
    pub(in crate::io) number: usize,
}

impl InboundWorker {
    /// Runs until it is told to stop, or the system calls fail.
    pub(in crate::io) fn run(self) -> io::Result<()> {
        let mut pipeline = Inbound::new(Arc::clone(&self.shared), self.number, 4 * BATCH);
        let mut received = ReceiveBatch::new(BATCH, MAX_PACKET);
        let mut batch = Vec::with_capacity(BATCH);
        let mut out = InboundOutput::default();
        while !self.stop.load(Acquire) {
            let v6 = self.ports.family(false);
            let ports = [
                Some((&self.ports.ipv4.udp, true)),
                Some((&self.ports.ipv4.esp, false)),
                v6.map(|f| (&f.udp, true)),
                v6.map(|f| (&f.esp, false)),
            ];
            let [udp4, esp4, udp6, esp6] = ports.map(|p| p.map(|(port, _)| port.as_fd()));
            let ready = wait_readable([Some(self.waker.as_fd()), udp4, esp4, udp6, esp6])?;
            if !ready[0].is_empty() {
                self.waker.answer();
            }
            for (port, ready) in ports.into_iter().zip(&ready[1..]).filter(|(_, ready)| !ready.is_empty()) {
                let Some((port, encapsulated)) = port else { continue };
                if ready.contains(PollFlags::ERR) {
                    self.hear_reports(port)?;
                }
                self.receive(port, encapsulated, &mut received, &mut pipeline, &mut batch)?;
                pipeline.handle_batch(&mut batch, self.clock.now(), &mut out);
                self.deliver(&mut pipeline, &mut out);
            }
        }
        Ok(())
    }

    /// Takes the reports about packets sent. SAs whose path one calls narrower
    /// than they know ask the kernel, which has had the same report.
    fn hear_reports(&self, port: &Port) -> io::Result<()> {
        let mut narrower: BTreeMap<IpAddr, u32> = BTreeMap::new();
        // What is left is taken after the next wait, which it ends at once.
        for _ in 0..BATCH {
            match port.take_report() {
                Ok(Some(Report::TooBig { destination, mtu })) if mtu >= SMALLEST_MTU => {
                    let smallest = narrower.entry(destination).or_insert(mtu);
                    *smallest = mtu.min(*smallest);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) if is_transient(&e) => break,
                Err(e) => return Err(e),
            }
        }
        if !narrower.is_empty() {
            let is_news =
                |sa: &OutboundSa| narrower.get(&sa.remote().ip()).is_some_and(|mtu| *mtu < u32::from(sa.path_mtu()));
            paths::refresh(&self.shared, self.mark, is_news);
        }
        Ok(())
    }

    /// Takes a batch from a port.
    fn receive(
        &self,
        port: &Port,
        encapsulated: bool,
        received: &mut ReceiveBatch,
        pipeline: &mut Inbound,
        batch: &mut Vec<Arrival>,
    ) -> io::Result<()> {
        match port.receive(received) {
            Ok(_) => pipeline.lost(port.newly_lost(received)),
            // What ICMP says of an earlier datagram of ours, or a signal: the port itself is well.
            Err(e) if is_transient(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
        for datagram in received.iter_mut() {
            let mut packet = pipeline.buffer();
            let payload = if encapsulated { &*datagram.payload } else { esp_of(&datagram) };
            let fits = packet.copy_from(payload);
            if datagram.truncated || !fits {
                pipeline.truncated(packet);
                continue;
            }
            let any = || match datagram.source {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let local_port = if encapsulated { self.natt_port } else { 0 };
            batch.push(Arrival {
                packet,
                local: SocketAddr::new(datagram.local.unwrap_or_else(any), local_port),
                remote: datagram.source,
                encapsulated,
                traffic_class: datagram.tos,
                hop_limit: datagram.hop_limit,
            });
        }
        Ok(())
    }

    /// Moves what came out of the pipeline.
    fn deliver(&self, pipeline: &mut Inbound, out: &mut InboundOutput) {
        for packet in out.deliver.drain(..) {
            match self.tun.write(packet.as_slice()) {
                Ok(()) => pipeline.delivered(packet),
                Err(_) => pipeline.delivery_failed(packet),
            }
        }
        self.events.send_all(&mut out.events, |handed| match handed {
            Handed::Over => pipeline.ike_handed_over(),
            Handed::Refused => pipeline.ike_refused(),
        });
    }
}

/// What a raw socket delivers, without the IPv4 header that comes before it.
fn esp_of<'a>(datagram: &'a Received<'_>) -> &'a [u8] {
    if datagram.source.is_ipv6() {
        return datagram.payload;
    }
    let header_len = datagram.payload.first().map_or(0, |b| usize::from(b & 0xf) * 4);
    datagram.payload.get(header_len..).unwrap_or_default()
}

fn is_transient(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let transient = [
        Errno::INTR,
        Errno::CONNREFUSED,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::MSGSIZE,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::ACCESS,
        Errno::HOSTDOWN,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    e.raw_os_error().is_some_and(|code| transient.iter().any(|t| t.raw_os_error() == code))
}
