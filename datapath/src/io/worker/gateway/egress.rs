//! Packets on to the next hop: by the kernel's routes and neighbours, out of an interface of the gateway.

use super::super::super::ring::{ETHERNET_HEADER, Sender};
use super::super::wait_writable;
use super::netlink::{Mac, Way};
use super::router::{Hop, Router};
use super::{Door, Side};
use crate::forward;
use crate::offload::Kind;
use crate::offload::coalesce::Coalescer;
use crate::packet::Packet;
use core::ops::Range;
use core::time::Duration;
use policy::counters::DropReason;
use policy::time::Timestamp;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Packets that wait for neighbours, of all and of one.
const MOST_WAITING: usize = 256;
const MOST_OF_ONE: usize = 32;
/// How long they wait: the kernel gives up after three seconds, and says so.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a full interface may hold a worker up, in milliseconds.
const PATIENCE: u16 = 50;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    /// It is on the wire.
    Sent,
    /// It is longer than the way takes: so many octets.
    TooBig(u16),
    /// It goes nowhere.
    Dropped(DropReason),
}

/// What a packet is, told again with its [`Outcome`], which may come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Tag {
    /// One that is passed on.
    Passed,
    /// An ICMP message of our own.
    Reply,
}

/// What a packet is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    tag: Tag,
    /// Place among the doors.
    door: usize,
    hop: Mac,
    own: Mac,
}

#[derive(Debug)]
struct Waiting {
    packet: Packet,
    tag: Tag,
    to: Option<Side>,
    since: Timestamp,
    /// For whom.
    neighbour: (usize, IpAddr),
}

/// Where a packet goes.
enum Place {
    To(Label),
    Wait(usize, IpAddr),
}

/// The sending side of one worker.
#[derive(Debug)]
pub(in super::super) struct Egress {
    router: Router,
    doors: Vec<(Door, Sender)>,
    coalescer: Coalescer,
    /// Whether packets go in super-packets, of TCP and of UDP.
    together: (bool, bool),
    waiting: VecDeque<Waiting>,
    ready: Vec<Packet>,
    labels: Vec<Label>,
    taken: Vec<Option<Outcome>>,
}

impl Egress {
    /// Out of these doors, by the routes for packets with the firewall mark. With `offload` in super-packets.
    pub(in super::super) fn open(doors: &[Door], mark: u32, offload: bool) -> io::Result<Self> {
        let doors = doors.iter().map(|door| Ok((*door, Sender::open(door.interface)?)));
        Ok(Self {
            router: Router::open(mark)?,
            doors: doors.collect::<io::Result<_>>()?,
            coalescer: Coalescer::default(),
            together: (offload, offload),
            waiting: VecDeque::new(),
            ready: Vec::new(),
            labels: Vec::new(),
            taken: Vec::new(),
        })
    }

    /// Readable when [`Self::take_news`] has something to do.
    pub(in super::super) fn news_fd(&self) -> BorrowedFd<'_> {
        self.router.news_fd()
    }

    /// Hears of changes, and sends what waited for them.
    pub(in super::super) fn take_news(
        &mut self,
        now: Timestamp,
        done: &mut impl FnMut(Packet, Tag, Outcome),
    ) -> io::Result<()> {
        if self.router.take_news(now)? {
            self.retry(now, done);
            self.flush(done);
        }
        Ok(())
    }

    /// Whether an address is one of this machine's own; not if that cannot be found out.
    pub(in super::super) fn is_here(&mut self, destination: IpAddr, now: Timestamp) -> bool {
        matches!(self.router.way(destination, now), Ok(Way::Here))
    }

    /// By which side the way to an address leads.
    pub(in super::super) fn side_of(&mut self, destination: IpAddr, now: Timestamp) -> Option<Side> {
        match self.router.way(destination, now) {
            Ok(Way::Via { interface, .. }) => self.door(interface).map(|door| self.doors[door].0.side),
            _ => None,
        }
    }

    /// The address that this machine has towards another.
    pub(in super::super) fn own_address(&mut self, towards: IpAddr, now: Timestamp) -> Option<IpAddr> {
        match self.router.way(towards, now) {
            Ok(Way::Via { source, .. }) => source,
            _ => None,
        }
    }

    /// Sends packets, only to one side if `to` says so, and empties the list. `done` hears what became of each; of one
    /// that waits for a neighbour, some later time. Those to one host stay in order.
    pub(in super::super) fn send(
        &mut self,
        packets: &mut Vec<Packet>,
        tag: Tag,
        to: Option<Side>,
        now: Timestamp,
        done: &mut impl FnMut(Packet, Tag, Outcome),
    ) {
        if !self.waiting.is_empty() {
            self.retry(now, done);
        }
        for packet in packets.drain(..) {
            self.place_or_wait(packet, tag, to, now, done);
        }
        self.flush(done);
    }

    /// Drops what waits, since the worker ends.
    pub(in super::super) fn shut_down(&mut self, done: &mut impl FnMut(Packet, Tag, Outcome)) {
        for waiting in self.waiting.drain(..) {
            done(waiting.packet, waiting.tag, Outcome::Dropped(DropReason::NeighbourUnreachable));
        }
    }

    fn door(&self, interface: u32) -> Option<usize> {
        self.doors.iter().position(|(door, _)| door.interface == interface)
    }

    fn retry(&mut self, now: Timestamp, done: &mut impl FnMut(Packet, Tag, Outcome)) {
        for Waiting { packet, tag, to, since, neighbour } in std::mem::take(&mut self.waiting) {
            match self.place(packet.as_slice(), tag, to, now) {
                Ok(Place::To(label)) => {
                    self.ready.push(packet);
                    self.labels.push(label);
                }
                Ok(Place::Wait(..)) if now.since(since) < LONGEST_WAIT => {
                    self.waiting.push_back(Waiting { packet, tag, to, since, neighbour });
                }
                Ok(Place::Wait(..)) => done(packet, tag, Outcome::Dropped(DropReason::NeighbourUnreachable)),
                Err(outcome) => done(packet, tag, outcome),
            }
        }
    }

    fn place_or_wait(
        &mut self,
        packet: Packet,
        tag: Tag,
        to: Option<Side>,
        now: Timestamp,
        done: &mut impl FnMut(Packet, Tag, Outcome),
    ) {
        match self.place(packet.as_slice(), tag, to, now) {
            Ok(Place::To(label)) => {
                self.ready.push(packet);
                self.labels.push(label);
            }
            Ok(Place::Wait(door, next_hop)) => {
                let neighbour = (door, next_hop);
                let of_one = self.waiting.iter().filter(|w| w.neighbour == neighbour).count();
                if self.waiting.len() < MOST_WAITING && of_one < MOST_OF_ONE {
                    self.waiting.push_back(Waiting { packet, tag, to, since: now, neighbour });
                } else {
                    done(packet, tag, Outcome::Dropped(DropReason::NeighbourQueueFull));
                }
            }
            Err(outcome) => done(packet, tag, outcome),
        }
    }

    fn place(&mut self, packet: &[u8], tag: Tag, to: Option<Side>, now: Timestamp) -> Result<Place, Outcome> {
        let failed = |_| Outcome::Dropped(DropReason::SendFailed);
        let destination = forward::destination(packet).map_err(Outcome::Dropped)?;
        let way = self.router.way(destination, now).map_err(failed)?;
        let Way::Via { interface, next_hop, mtu, .. } = way else {
            return Err(Outcome::Dropped(DropReason::NoRoute));
        };
        let allowed = |door: &usize| to.is_none_or(|side| self.doors[*door].0.side == side);
        let door = self.door(interface).filter(allowed).ok_or(Outcome::Dropped(DropReason::NoRoute))?;
        let link = self.router.link(interface).map_err(failed)?;
        let (Some(own), true) = (link.mac, link.up) else { return Err(Outcome::Dropped(DropReason::SendFailed)) };
        let mtu = mtu.unwrap_or(link.mtu).min(link.mtu);
        if packet.len() > mtu as usize {
            // No packet is longer than 65,535 octets, so this is less.
            return Err(Outcome::TooBig(u16::try_from(mtu).unwrap_or(u16::MAX)));
        }
        match self.router.hop(interface, next_hop, now).map_err(failed)? {
            Hop::To(hop) => Ok(Place::To(Label { tag, door, hop, own })),
            Hop::Wait => Ok(Place::Wait(door, next_hop)),
            Hop::Failed => Err(Outcome::Dropped(DropReason::NeighbourUnreachable)),
        }
    }

    /// Sends what is ready.
    fn flush(&mut self, done: &mut impl FnMut(Packet, Tag, Outcome)) {
        self.taken.clear();
        self.taken.resize(self.ready.len(), None);
        let mut from = 0;
        while let Some(label) = self.labels.get(from).copied() {
            let same = self.labels[from..].iter().take_while(|l| **l == label).count();
            self.send_run(label, from..from + same);
            from += same;
        }
        let failed = Outcome::Dropped(DropReason::SendFailed);
        for ((packet, label), outcome) in self.ready.drain(..).zip(self.labels.drain(..)).zip(self.taken.drain(..)) {
            done(packet, label.tag, outcome.unwrap_or(failed));
        }
    }

    /// Sends packets to one hop.
    fn send_run(&mut self, label: Label, run: Range<usize>) {
        let first = run.start;
        let packets = &self.ready[run];
        let (_, sender) = &self.doors[label.door];
        let (tcp, mut udp) = self.together;
        self.coalescer.plan(packets, tcp, udp);
        for (whole, places) in self.coalescer.groups(packets) {
            let head = places.clone().next().map_or(&[][..], |at| packets[at].as_slice());
            let ethernet = ethernet(&label, head);
            let group = places.clone().map(|at| packets[at].as_slice());
            match send(sender, || sender.send(&ethernet, &whole, group.clone())) {
                Ok(()) => places.for_each(|at| self.taken[first + at] = Some(Outcome::Sent)),
                // One by one, each hears what is wrong with it.
                Err(e) => {
                    let of_udp = matches!(whole.header.segments, Some((Kind::Udp, _)));
                    if of_udp && e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
                        // The kernel does not know those of UDP (before Linux 6.2).
                        udp = false;
                    }
                    for at in places {
                        let alone =
                            || sender.send(&ethernet, &Default::default(), [packets[at].as_slice()].into_iter());
                        self.taken[first + at] = Some(match send(sender, alone) {
                            Ok(()) => Outcome::Sent,
                            Err(_) => Outcome::Dropped(DropReason::SendFailed),
                        });
                    }
                }
            }
        }
        self.together = (tcp, udp);
    }
}

/// The header of a packet's frame.
fn ethernet(label: &Label, packet: &[u8]) -> [u8; ETHERNET_HEADER] {
    let mut header = [0; ETHERNET_HEADER];
    header[..6].copy_from_slice(&label.hop);
    header[6..12].copy_from_slice(&label.own);
    let ethertype: [u8; 2] = if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] };
    header[12..].copy_from_slice(&ethertype);
    header
}

/// Sends, and waits once for an interface that is behind.
fn send(sender: &Sender, mut once: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match once() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return if wait_writable(sender.as_fd(), PATIENCE) { once() } else { Err(e) };
            }
            sent => return sent,
        }
    }
}
