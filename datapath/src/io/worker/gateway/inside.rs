//! From the inside to wherever the policies say.

use super::super::outbound::{Command, send_sealed};
use super::super::wire::Wire;
use super::super::{Events, Ports, Waker, wait_readable};
use super::egress::{Egress, Outcome, Tag};
use super::{Gate, Intake};
use crate::forward;
use crate::mtu::RateLimit;
use crate::mtu::icmp::{self, Trouble};
use crate::packet::Packet;
use crate::pipeline::{BATCH, Clear, Outbound, OutboundOutput};
use crate::shared::Shared;
use crossbeam::channel::Receiver;
use policy::counters::DropReason;
use policy::time::Timestamp;
use rustix::event::PollFlags;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// ICMP answers: a second, and at once.
const ANSWERS: (u32, u32) = (100, 50);

/// A worker of an inside interface.
pub(in crate::io) struct InsideWorker {
    pub(in crate::io) gate: Gate,
    pub(in crate::io) ports: Arc<Ports>,
    pub(in crate::io) commands: Receiver<Command>,
    pub(in crate::io) waker: Waker,
    pub(in crate::io) events: Events,
}

/// What it works with.
struct Work {
    pipeline: Outbound,
    wire: Wire,
    batch: Vec<Packet>,
    out: OutboundOutput,
    answers: RateLimit,
    events: Events,
    shared: Arc<Shared>,
    mark: u32,
    // Emptied after each batch; kept for their memory.
    clear: Vec<Packet>,
    troubled: Vec<(Packet, Outcome)>,
}

impl InsideWorker {
    /// Runs until it is told to stop, or the interface is gone.
    pub(in crate::io) fn run(self) -> io::Result<()> {
        let Self { mut gate, ports, commands, waker, events } = self;
        let setting = &gate.setting;
        let mut work = Work {
            pipeline: Outbound::new(Arc::clone(&setting.shared), setting.number, 4 * BATCH),
            wire: Wire::new(ports),
            batch: Vec::with_capacity(BATCH),
            out: OutboundOutput::default(),
            answers: RateLimit::new(ANSWERS.0, ANSWERS.1),
            events,
            shared: Arc::clone(&setting.shared),
            mark: setting.mark,
            clear: Vec::new(),
            troubled: Vec::new(),
        };
        let ended = work.run(&mut gate, &commands, &waker);
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
    fn run(&mut self, gate: &mut Gate, commands: &Receiver<Command>, waker: &Waker) -> io::Result<()> {
        let clock = gate.setting.clock;
        loop {
            let fds = [waker.as_fd(), gate.ring.as_fd(), gate.egress.news_fd()].map(Some);
            let [commanded, arrived, told] = wait_readable(fds)?;
            let now = clock.now();
            if !told.is_empty() {
                let (pipeline, troubled) = (&mut self.pipeline, &mut self.troubled);
                gate.egress.take_news(now, &mut |p, tag, o| settle(pipeline, troubled, p, tag, o))?;
                self.trouble(&mut gate.egress, now);
            }
            if !commanded.is_empty() {
                waker.answer();
                if !self.obey(commands, &mut gate.egress, now) {
                    return Ok(());
                }
            }
            if arrived.contains(PollFlags::ERR) {
                gate.hear_error()?;
            }
            gate.take_frames(now, self)?;
            self.handle(&mut gate.egress, now);
        }
    }

    /// Carries out commands; `false` for the last.
    fn obey(&mut self, commands: &Receiver<Command>, egress: &mut Egress, now: Timestamp) -> bool {
        while let Ok(command) = commands.try_recv() {
            match command {
                Command::Release(lane) => self.pipeline.release(lane, now, &mut self.out),
                Command::Fail(lane) => self.pipeline.fail(lane),
                Command::PoliciesReplaced => self.pipeline.policies_replaced(now, &mut self.out),
                // One worker does for what is no flow, and that is another.
                Command::Send { .. } => {}
                Command::Stop => return false,
            }
            self.emit(egress, now);
        }
        true
    }

    /// Processes the batch, and moves what comes out of the pipeline.
    fn handle(&mut self, egress: &mut Egress, now: Timestamp) {
        self.pipeline.handle_batch(&mut self.batch, now, &mut self.out);
        self.emit(egress, now);
    }

    fn emit(&mut self, egress: &mut Egress, now: Timestamp) {
        send_sealed(&mut self.wire, &mut self.pipeline, &mut self.out, &self.shared, self.mark);
        self.forward(egress, now);
        self.trouble(egress, now);
        let pipeline = &mut self.pipeline;
        egress.send(&mut self.out.replies, Tag::Reply, None, now, &mut |packet, _, _| pipeline.recycle(packet));
        self.events.send_all(&mut self.out.events, |_| {});
    }

    /// Sends on what passes.
    fn forward(&mut self, egress: &mut Egress, now: Timestamp) {
        self.clear.extend(self.out.clear.drain(..).map(Clear::into_packet));
        let (pipeline, troubled) = (&mut self.pipeline, &mut self.troubled);
        egress.send(&mut self.clear, Tag::Passed, None, now, &mut |p, tag, o| settle(pipeline, troubled, p, tag, o));
    }

    /// What could not go on is cut, and sent again, or its sender told.
    fn trouble(&mut self, egress: &mut Egress, now: Timestamp) {
        for (packet, outcome) in std::mem::take(&mut self.troubled) {
            match outcome {
                Outcome::TooBig(mtu) => self.pipeline.passed_too_big(packet, mtu, now, &mut self.out),
                Outcome::Dropped(reason) => {
                    let trouble = match reason {
                        DropReason::NoRoute => Some(Trouble::NoRoute),
                        DropReason::NeighbourUnreachable => Some(Trouble::HostUnreachable),
                        _ => None,
                    };
                    if let Some(trouble) = trouble {
                        self.tell(&packet, trouble, egress, now);
                    }
                    self.pipeline.discarded(packet, reason);
                }
                Outcome::Sent => self.pipeline.passed(packet),
            }
        }
        if self.out.clear.is_empty() {
            return;
        }
        self.forward(egress, now);
        // Whatever is still too big is given up.
        for (packet, outcome) in self.troubled.drain(..) {
            let reason = if let Outcome::Dropped(reason) = outcome { reason } else { DropReason::SendFailed };
            self.pipeline.discarded(packet, reason);
        }
    }

    /// Tells a packet's sender what became of it, within the rate.
    fn tell(&mut self, packet: &Packet, trouble: Trouble, egress: &mut Egress, now: Timestamp) {
        let from = forward::source(packet.as_slice()).ok().and_then(|sender| egress.own_address(sender, now));
        let mut reply = self.pipeline.buffer();
        match icmp::tell(packet.as_slice(), trouble, from, reply.room()) {
            Ok(len) if self.answers.allow(now) => {
                reply.set_len(len);
                self.out.replies.push(reply);
            }
            _ => self.pipeline.recycle(reply),
        }
    }
}

/// Counts a packet that was sent, or puts it aside.
fn settle(pipeline: &mut Outbound, troubled: &mut Vec<(Packet, Outcome)>, packet: Packet, tag: Tag, outcome: Outcome) {
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

    fn take(&mut self, mut packet: Packet, egress: &mut Egress, now: Timestamp) {
        // Before it is protected: a router takes a hop from what it forwards, into a tunnel too (RFC 4301 5.1.2.1).
        if !forward::take_hop(packet.as_mut_slice()) {
            self.tell(&packet, Trouble::HopLimit, egress, now);
            return self.pipeline.discarded(packet, DropReason::HopLimitExceeded);
        }
        self.batch.push(packet);
        if self.batch.len() >= BATCH {
            self.handle(egress, now);
        }
    }
}
