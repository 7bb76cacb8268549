//! What came through a tunnel for hosts inside.

use super::egress::{Egress, Outcome, Tag};
use super::{Door, Side};
use crate::forward;
use crate::mtu::fragment::Fragments;
use crate::packet::Packet;
use crate::pipeline::Inbound;
use policy::counters::DropReason;
use policy::time::Timestamp;
use std::io;
use std::os::fd::BorrowedFd;

/// The way to the hosts inside, for one inbound worker.
pub(in crate::io) struct Delivery {
    egress: Egress,
    // Emptied after each batch; kept for their memory.
    forwarded: Vec<Packet>,
    kept: Vec<Packet>,
}

impl Delivery {
    /// See [`Egress::open`].
    pub(in crate::io) fn open(doors: &[Door], mark: u32, offload: bool) -> io::Result<Self> {
        Ok(Self { egress: Egress::open(doors, mark, offload)?, forwarded: Vec::new(), kept: Vec::new() })
    }

    /// Readable when [`Self::take_news`] has something to do.
    pub(in crate::io) fn news_fd(&self) -> BorrowedFd<'_> {
        self.egress.news_fd()
    }

    /// Hears of changes, and sends what waited for them.
    pub(in crate::io) fn take_news(&mut self, pipeline: &mut Inbound, now: Timestamp) -> io::Result<()> {
        let mut too_big = Vec::new();
        self.egress.take_news(now, &mut |packet, tag, outcome| match tag {
            Tag::Passed => settle(pipeline, &mut too_big, packet, outcome),
            Tag::Reply => pipeline.recycle(packet),
        })?;
        self.cut(too_big, pipeline, now);
        Ok(())
    }

    /// Of decrypted packets takes those for hosts inside, and sends them on. The others are the kernel's.
    pub(in crate::io) fn take(&mut self, packets: &mut Vec<Packet>, pipeline: &mut Inbound, now: Timestamp) {
        for mut packet in packets.drain(..) {
            let destination = forward::destination(packet.as_slice()).ok();
            let inside = destination
                .filter(|d| !forward::stays_on_link(*d))
                .is_some_and(|d| self.egress.side_of(d, now) == Some(Side::Inside));
            if !inside {
                self.kept.push(packet);
            } else if let Err(reason) = forward::check(packet.as_slice()) {
                pipeline.discarded(packet, reason);
            } else if forward::take_hop(packet.as_mut_slice()) {
                self.forwarded.push(packet);
            } else {
                pipeline.discarded(packet, DropReason::HopLimitExceeded);
            }
        }
        core::mem::swap(packets, &mut self.kept);
        let mut too_big = Vec::new();
        self.egress.send(&mut self.forwarded, Tag::Passed, Some(Side::Inside), now, &mut |packet, tag, outcome| {
            match tag {
                Tag::Passed => settle(pipeline, &mut too_big, packet, outcome),
                // A fragment, whose packet is counted.
                Tag::Reply => pipeline.recycle(packet),
            }
        });
        self.cut(too_big, pipeline, now);
    }

    /// Drops what waits, since the worker ends.
    pub(in crate::io) fn shut_down(&mut self, pipeline: &mut Inbound) {
        self.egress.shut_down(&mut |packet, tag, _| match tag {
            Tag::Passed => pipeline.discarded(packet, DropReason::NeighbourUnreachable),
            Tag::Reply => pipeline.recycle(packet),
        });
    }

    /// Sends in fragments what is too big and may be cut. Others are dropped: their sender is beyond the tunnel, and
    /// what would tell him quotes what came through it, which policies may want in the clear.
    fn cut(&mut self, too_big: Vec<(Packet, u16)>, pipeline: &mut Inbound, now: Timestamp) {
        for (packet, mtu) in too_big {
            let Ok(mut fragments) = Fragments::new(packet.as_slice(), mtu) else {
                pipeline.discarded(packet, DropReason::TooBig);
                continue;
            };
            loop {
                let mut part = pipeline.buffer();
                let Some(len) = fragments.next_into(part.room()) else {
                    pipeline.recycle(part);
                    break;
                };
                part.set_len(len);
                self.forwarded.push(part);
            }
            // Counted as the packet it was: its fragments are none that arrived.
            let mut sent = true;
            self.egress.send(&mut self.forwarded, Tag::Reply, Some(Side::Inside), now, &mut |part, _, outcome| {
                sent &= outcome == Outcome::Sent;
                pipeline.recycle(part);
            });
            if sent { pipeline.delivered(packet) } else { pipeline.delivery_failed(packet) }
        }
    }
}

/// Counts a packet, or puts it aside.
fn settle(pipeline: &mut Inbound, too_big: &mut Vec<(Packet, u16)>, packet: Packet, outcome: Outcome) {
    match outcome {
        Outcome::Sent => pipeline.delivered(packet),
        Outcome::TooBig(mtu) => too_big.push((packet, mtu)),
        Outcome::Dropped(reason) => pipeline.discarded(packet, reason),
    }
}
