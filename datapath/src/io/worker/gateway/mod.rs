//! The gateway: packets between an inside and an outside interface, taken from the kernel's hands.
//!
//! Frames come by a packet ring ([`super::super::ring`]). What is for this machine itself, or no business of a router's,
//! is left to the kernel, which sees every frame too; the guard keeps it from forwarding any. From the inside, packets
//! take the outbound pipeline, as if they came from the TUN interface ([`inside`]). From the outside only cleartext
//! comes this way ([`outside`]): ESP comes to the sockets, and what it carries for hosts inside goes on by
//! [`delivery`]. Whatever leaves for a host goes by the kernel's routes and neighbours ([`egress`]).

pub(in crate::io) mod delivery;
pub(super) mod egress;
pub(in crate::io) mod inside;
mod netlink;
pub(in crate::io) mod outside;
mod router;

use super::super::ring::{ETHERNET_HEADER, Fanout, Frame, Ring};
use super::Clock;
use crate::forward::{self, Brings};
use crate::offload::segment::{Segments, complete};
use crate::packet::Packet;
use crate::shared::Shared;
use egress::Egress;
use policy::counters::{Counter, DropReason, WorkerCounters};
use policy::time::Timestamp;
use rustix::net::netdevice::name_to_index;
use std::io;
use std::sync::Arc;

/// Blocks of a ring that are worked on before anything else is looked at.
const BLOCKS_AT_ONCE: usize = 4;

/// On which side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Side {
    Inside,
    Outside,
}

/// An interface of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) struct Door {
    pub(in crate::io) interface: u32,
    pub(in crate::io) side: Side,
}

impl Door {
    /// An interface by its name, which has to be an Ethernet.
    pub(in crate::io) fn find(name: &str, side: Side) -> io::Result<Self> {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        let interface = name_to_index(&socket, name)?;
        let link = netlink::Netlink::open()?.link(interface)?;
        if link.mac.is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no Ethernet interface"));
        }
        Ok(Self { interface, side })
    }
}

/// What all workers of the gateway have.
pub(in crate::io) struct Setting {
    pub(in crate::io) door: Door,
    /// All of the gateway's.
    pub(in crate::io) doors: Vec<Door>,
    pub(in crate::io) fanout: Option<Fanout>,
    pub(in crate::io) shared: Arc<Shared>,
    pub(in crate::io) clock: Clock,
    pub(in crate::io) mark: u32,
    pub(in crate::io) offload: bool,
    /// Number of its counter block.
    pub(in crate::io) number: usize,
}

impl Setting {
    /// Opens what the worker receives by and sends by.
    pub(in crate::io) fn open(self) -> io::Result<Gate> {
        Ok(Gate {
            ring: Ring::open(self.door.interface, self.fanout)?,
            egress: Egress::open(&self.doors, self.mark, self.offload)?,
            setting: self,
        })
    }
}

/// A worker's place between an interface and the others.
pub(in crate::io) struct Gate {
    ring: Ring,
    egress: Egress,
    setting: Setting,
}

/// Where packets out of frames are put.
trait Intake {
    /// An empty buffer.
    fn buffer(&mut self) -> Packet;
    /// Takes one back that was not used.
    fn recycle(&mut self, packet: Packet);
    /// A packet, to be forwarded if that may be.
    fn take(&mut self, packet: Packet, egress: &mut Egress, now: Timestamp);
}

impl Gate {
    /// What the frames of the ring bring, until it is empty or a few blocks are done.
    fn take_frames(&mut self, now: Timestamp, intake: &mut impl Intake) -> io::Result<()> {
        let counters = self.setting.shared.counters.worker(self.setting.number);
        let mut losing = false;
        for _ in 0..BLOCKS_AT_ONCE {
            let Some(block) = self.ring.block() else { break };
            for frame in block.frames() {
                losing |= frame.losing;
                if let Err(reason) = take_frame(&frame, &mut self.egress, counters, now, intake) {
                    counters.dropped(reason, 1);
                }
            }
        }
        if losing {
            counters.dropped(DropReason::ReceiveBufferFull, self.ring.newly_lost()?.into());
        }
        Ok(())
    }

    /// The ring has an error to tell of. One that goes down may come back; one that is gone does not.
    fn hear_error(&mut self) -> io::Result<()> {
        if let Some(e) = self.ring.take_error()?
            && e.raw_os_error() != Some(rustix::io::Errno::NETDOWN.raw_os_error())
        {
            return Err(e);
        }
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        rustix::net::netdevice::index_to_name(&socket, self.setting.door.interface)
            .map(|_| ())
            .map_err(|_| io::Error::other("its interface is gone"))
    }
}

/// Takes what a frame brings, cut and completed.
fn take_frame(
    frame: &Frame<'_>,
    egress: &mut Egress,
    counters: &WorkerCounters,
    now: Timestamp,
    intake: &mut impl Intake,
) -> Result<(), DropReason> {
    let left = |counters: &WorkerCounters| {
        counters.add(Counter::LeftToKernel, 1);
        Ok(())
    };
    if frame.packet_type != libc::PACKET_HOST {
        return left(counters);
    }
    let Brings::Packet(octets) = forward::open_frame(frame.octets, frame.tag)? else { return left(counters) };
    let destination = forward::destination(octets)?;
    if forward::stays_on_link(destination) || egress.is_here(destination, now) {
        return left(counters);
    }
    let offload = frame.offload.filter(|_| frame.whole).ok_or(DropReason::FrameCut)?;
    forward::check(octets)?;
    let mut buffer = intake.buffer();
    let Some((kind, size)) = offload.segments else {
        // The frame's header is not among the packet's octets.
        let mut offload = offload;
        if let Some((start, _)) = &mut offload.checksum {
            *start = start.saturating_sub(ETHERNET_HEADER as u16);
        }
        if buffer.copy_from(octets) && complete(offload, buffer.as_mut_slice()).is_ok() {
            intake.take(buffer, egress, now);
            return Ok(());
        }
        intake.recycle(buffer);
        return Err(DropReason::Malformed);
    };
    let Ok(mut segments) = Segments::new(octets, kind, size) else {
        intake.recycle(buffer);
        return Err(DropReason::Malformed);
    };
    while segments.next_into(&mut buffer) {
        intake.take(buffer, egress, now);
        buffer = intake.buffer();
    }
    intake.recycle(buffer);
    Ok(())
}
