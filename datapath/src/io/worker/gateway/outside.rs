//! From the outside to the inside, in the clear.

use super::super::{Events, Waker, wait_readable};
use super::egress::{Egress, Outcome, Tag};
use super::{Gate, Intake, Side};
use crate::forward;
use crate::mtu::icmp::Trouble;
use crate::packet::Packet;
use crate::pipeline::{BATCH, Cleartext, CleartextOutput};
use policy::counters::DropReason;
use policy::time::Timestamp;
use rustix::event::PollFlags;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};

/// A worker of an outside interface.
pub(in crate::io) struct OutsideWorker {
    pub(in crate::io) gate: Gate,
    pub(in crate::io) stop: Arc<AtomicBool>,
    pub(in crate::io) waker: Waker,
    pub(in crate::io) events: Events,
}

/// What it works with.
struct Work {
    pipeline: Cleartext,
    batch: Vec<Packet>,
    out: CleartextOutput,
    events: Events,
    // Emptied after each batch; kept for its memory.
    troubled: Vec<(Packet, Outcome)>,
}

impl OutsideWorker {
    /// Runs until it is told to stop, or the interface is gone.
    pub(in crate::io) fn run(self) -> io::Result<()> {
        let Self { mut gate, stop, waker, events } = self;
        let setting = &gate.setting;
        let mut work = Work {
            pipeline: Cleartext::new(Arc::clone(&setting.shared), setting.number, 4 * BATCH),
            batch: Vec::with_capacity(BATCH),
            out: CleartextOutput::default(),
            events,
            troubled: Vec::new(),
        };
        let ended = work.run(&mut gate, &stop, &waker);
        work.pipeline.shut_down();
        let Work { pipeline, .. } = &mut work;
        gate.egress.shut_down(&mut |packet, tag, outcome| match (tag, outcome) {
            (Tag::Passed, Outcome::Dropped(reason)) => pipeline.discarded(packet, reason),
            _ => pipeline.recycle(packet),
        });
        ended
    }
}

impl Work {
    fn run(&mut self, gate: &mut Gate, stop: &AtomicBool, waker: &Waker) -> io::Result<()> {
        let clock = gate.setting.clock;
        while !stop.load(Acquire) {
            let fds = [waker.as_fd(), gate.ring.as_fd(), gate.egress.news_fd()].map(Some);
            let [woken, arrived, told] = wait_readable(fds)?;
            let now = clock.now();
            if !woken.is_empty() {
                waker.answer();
            }
            if !told.is_empty() {
                let (pipeline, troubled) = (&mut self.pipeline, &mut self.troubled);
                gate.egress.take_news(now, &mut |p, tag, o| settle(pipeline, troubled, p, tag, o))?;
                self.trouble(&mut gate.egress, now);
            }
            if arrived.contains(PollFlags::ERR) {
                gate.hear_error()?;
            }
            gate.take_frames(now, self)?;
            self.handle(&mut gate.egress, now);
        }
        Ok(())
    }

    /// Processes the batch, and moves what comes out of the pipeline.
    fn handle(&mut self, egress: &mut Egress, now: Timestamp) {
        self.pipeline.handle_batch(&mut self.batch, now, &mut self.out);
        let mut passing = std::mem::take(&mut self.out.pass);
        for packet in &mut passing {
            if !forward::take_hop(packet.as_mut_slice()) {
                self.troubled.push((std::mem::take(packet), Outcome::Dropped(DropReason::HopLimitExceeded)));
            }
        }
        // Those that were put aside left nothing.
        passing.retain(|packet| !packet.is_empty());
        self.out.pass = passing;
        self.forward(egress, now);
        self.trouble(egress, now);
        self.events.send_all(&mut self.out.events, |_| {});
    }

    /// Sends on what passes, to the inside alone.
    fn forward(&mut self, egress: &mut Egress, now: Timestamp) {
        let (pipeline, troubled) = (&mut self.pipeline, &mut self.troubled);
        let mut done = |p, tag, o| settle(pipeline, troubled, p, tag, o);
        egress.send(&mut self.out.pass, Tag::Passed, Some(Side::Inside), now, &mut done);
    }

    /// What could not go on is cut, and sent again, or its sender told.
    fn trouble(&mut self, egress: &mut Egress, now: Timestamp) {
        for (packet, outcome) in std::mem::take(&mut self.troubled) {
            let reason = match outcome {
                Outcome::TooBig(mtu) => {
                    self.pipeline.too_big(packet, mtu, now, &mut self.out);
                    continue;
                }
                Outcome::Dropped(reason) => reason,
                Outcome::Sent => DropReason::SendFailed,
            };
            let trouble = match reason {
                DropReason::NoRoute => Some(Trouble::NoRoute),
                DropReason::NeighbourUnreachable => Some(Trouble::HostUnreachable),
                DropReason::HopLimitExceeded => Some(Trouble::HopLimit),
                _ => None,
            };
            if let Some(trouble) = trouble {
                let from = forward::source(packet.as_slice()).ok().and_then(|sender| egress.own_address(sender, now));
                self.pipeline.tell(&packet, trouble, from, now, &mut self.out);
            }
            self.pipeline.discarded(packet, reason);
        }
        if !self.out.pass.is_empty() {
            self.forward(egress, now);
            // Whatever is still too big is given up.
            for (packet, outcome) in self.troubled.drain(..) {
                let reason = if let Outcome::Dropped(reason) = outcome { reason } else { DropReason::SendFailed };
                self.pipeline.discarded(packet, reason);
            }
        }
        let pipeline = &mut self.pipeline;
        egress.send(&mut self.out.replies, Tag::Reply, None, now, &mut |packet, _, _| pipeline.recycle(packet));
    }
}

/// Counts a packet that was sent, or puts it aside.
fn settle(pipeline: &mut Cleartext, troubled: &mut Vec<(Packet, Outcome)>, packet: Packet, tag: Tag, outcome: Outcome) {
    match (tag, outcome) {
        (Tag::Reply, _) => pipeline.recycle(packet),
        (Tag::Passed, Outcome::Sent) => pipeline.passed(packet),
        (Tag::Passed, _) => troubled.push((packet, outcome)),
    }
}

impl Intake for Work {
    fn buffer(&mut self) -> Packet {
        self.pipeline.buffer()
    }

    fn recycle(&mut self, packet: Packet) {
        self.pipeline.recycle(packet);
    }

    fn take(&mut self, packet: Packet, egress: &mut Egress, now: Timestamp) {
        // Who says that he is inside, or this machine, is not out there (RFC 3704).
        let source = forward::source(packet.as_slice()).ok();
        if source.is_none_or(|s| egress.is_here(s, now) || egress.side_of(s, now) == Some(Side::Inside)) {
            return self.pipeline.discarded(packet, DropReason::NotForwardable);
        }
        self.batch.push(packet);
        if self.batch.len() >= BATCH {
            self.handle(egress, now);
        }
    }
}
