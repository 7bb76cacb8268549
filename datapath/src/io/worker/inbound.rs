//! From the wire to the TUN interface.

use super::super::{Port, ReceiveBatch, Received, Report, Tun};
use super::gateway::delivery::Delivery;
use super::{Clock, Events, Family, Handed, Ports, Waker, paths, wait_readable};
use crate::headers::{IPV6_HEADER, protocol};
use crate::offload::coalesce::Coalescer;
use crate::packet::{MAX_PACKET, Packet};
use crate::pipeline::{Arrival, BATCH, Inbound, InboundOutput};
use crate::sa::OutboundSa;
use crate::shared::Shared;
use policy::sa::SaProtocol;
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
    /// The way to hosts behind us, if it is not through the TUN interface.
    pub(in crate::io) delivery: Option<Delivery>,
}

impl InboundWorker {
    /// Runs until it is told to stop, or the system calls fail.
    pub(in crate::io) fn run(mut self) -> io::Result<()> {
        let mut received = ReceiveBatch::new(BATCH, MAX_PACKET);
        let mut work = Work {
            pipeline: Inbound::new(Arc::clone(&self.shared), self.number, 2 * LONGEST_BATCH),
            batch: Vec::with_capacity(LONGEST_BATCH),
            coalescer: Coalescer::default(),
            taken: Vec::new(),
            out: InboundOutput::default(),
            delivery: self.delivery.take(),
        };
        while !self.stop.load(Acquire) {
            let v6 = self.ports.family(false);
            let v4 = Some(&self.ports.ipv4);
            let ports = [v4, v6].map(|family| {
                let ways = [Way::Udp, Way::Esp, Way::Ah];
                ways.map(|way| family.map(|f| (way.port(f), way)))
            });
            let [[udp4, esp4, ah4], [udp6, esp6, ah6]] = ports.map(|p| p.map(|p| p.map(|(port, _)| port.as_fd())));
            let news = work.delivery.as_ref().map(Delivery::news_fd);
            let ready = wait_readable([Some(self.waker.as_fd()), news, udp4, esp4, ah4, udp6, esp6, ah6])?;
            if !ready[0].is_empty() {
                self.waker.answer();
            }
            if let Some(delivery) = work.delivery.as_mut().filter(|_| !ready[1].is_empty()) {
                delivery.take_news(&mut work.pipeline, self.clock.now())?;
            }
            for (port, ready) in ports.into_iter().flatten().zip(&ready[2..]).filter(|(_, ready)| !ready.is_empty()) {
                let Some((port, way)) = port else { continue };
                if ready.contains(PollFlags::ERR) {
                    self.hear_reports(port)?;
                }
                self.receive(port, way, &mut received, &mut work)?;
                self.handle(&mut work);
            }
        }
        if let Some(delivery) = &mut work.delivery {
            delivery.shut_down(&mut work.pipeline);
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
    fn receive(&self, port: &Port, way: Way, received: &mut ReceiveBatch, work: &mut Work) -> io::Result<()> {
        match port.receive(received) {
            Ok(_) => work.pipeline.lost(port.newly_lost(received)),
            // What ICMP says of an earlier datagram of ours, or a signal: the port itself is well.
            Err(e) if is_transient(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
        for datagram in received.iter_mut() {
            let encapsulated = way == Way::Udp;
            let any = || match datagram.source {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let local = datagram.local.unwrap_or_else(any);
            // An empty datagram is one too, and counted.
            let size = datagram.segment.unwrap_or(datagram.payload.len()).max(1);
            let segments = datagram.payload.len().div_ceil(size).max(1);
            for at in 0..segments {
                let octets = &datagram.payload[at * size..datagram.payload.len().min((at + 1) * size)];
                if work.batch.len() == LONGEST_BATCH {
                    self.handle(work);
                }
                let mut packet = work.pipeline.buffer();
                let fits = match way {
                    Way::Udp => packet.copy_from(octets),
                    Way::Esp => packet.copy_from(esp_of(&datagram)),
                    Way::Ah => packet.copy_from(octets) && whole(&mut packet, &datagram),
                };
                // Of several, only the last is cut.
                if datagram.truncated && at + 1 == segments || !fits {
                    work.pipeline.truncated(packet);
                    continue;
                }
                work.batch.push(Arrival {
                    packet,
                    local: SocketAddr::new(local, if encapsulated { self.natt_port } else { 0 }),
                    remote: datagram.source,
                    encapsulated,
                    protocol: if way == Way::Ah { SaProtocol::Ah } else { SaProtocol::Esp },
                    traffic_class: datagram.tos,
                    hop_limit: datagram.hop_limit,
                });
            }
        }
        Ok(())
    }

    /// Processes the batch, and moves what comes out of the pipeline.
    fn handle(&self, work: &mut Work) {
        let Work { pipeline, batch, coalescer, taken, out, delivery } = work;
        let now = self.clock.now();
        pipeline.handle_batch(batch, now, out);
        if let Some(delivery) = delivery {
            delivery.take(&mut out.deliver, pipeline, now);
        }
        let offload = self.tun.offload();
        coalescer.plan(&out.deliver, offload.tcp, offload.udp);
        taken.clear();
        taken.resize(out.deliver.len(), false);
        for (whole, places) in coalescer.groups(&out.deliver) {
            let packets = places.clone().map(|at| out.deliver[at].as_slice());
            let written = self.tun.write_together(&whole, packets).is_ok();
            places.for_each(|at| taken[at] = written);
        }
        for (packet, taken) in out.deliver.drain(..).zip(taken) {
            if *taken {
                pipeline.delivered(packet);
            } else {
                pipeline.delivery_failed(packet);
            }
        }
        self.events.send_all(&mut out.events, |handed| match handed {
            Handed::Over => pipeline.ike_handed_over(),
            Handed::Refused => pipeline.ike_refused(),
        });
    }
}

/// Packets worked on together at most: a system call may bring many times as many, in super-packets.
const LONGEST_BATCH: usize = 4 * BATCH;

/// What a worker works with.
struct Work {
    pipeline: Inbound,
    batch: Vec<Arrival>,
    coalescer: Coalescer,
    /// Whether the TUN interface took each packet.
    taken: Vec<bool>,
    out: InboundOutput,
    delivery: Option<Delivery>,
}

/// The socket that something came in by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    Esp,
    Ah,
}

impl Way {
    fn port(self, family: &Family) -> &Port {
        match self {
            Self::Udp => &family.udp,
            Self::Esp => &family.esp,
            Self::Ah => &family.ah,
        }
    }
}

/// Makes a packet of AH whole: what a raw IPv6 socket delivers lacks the IPv6 header, and any extension headers
/// before AH, with which it would not be authentic. `false` if it is too long.
fn whole(packet: &mut Packet, datagram: &Received<'_>) -> bool {
    let (IpAddr::V6(source), Some(IpAddr::V6(destination))) = (datagram.source.ip(), datagram.local) else {
        return datagram.source.is_ipv4();
    };
    let Ok(len) = u16::try_from(packet.len()) else { return false };
    let fits = packet.grow_front(IPV6_HEADER);
    if fits {
        let header = &mut packet.as_mut_slice()[..IPV6_HEADER];
        header.fill(0);
        (header[0], header[1]) = (0x60 | datagram.tos >> 4, datagram.tos << 4);
        header[4..6].copy_from_slice(&len.to_be_bytes());
        (header[6], header[7]) = (protocol::AH, datagram.hop_limit);
        header[8..24].copy_from_slice(&source.octets());
        header[24..40].copy_from_slice(&destination.octets());
    }
    fits
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
