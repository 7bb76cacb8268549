//! Packets that wait for an SA.

use crate::packet::Packet;
use crate::sessions::Lane;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// For so many times the longest queue there is room in those of sessions together.
const SESSION_QUEUES: usize = 16;

/// The queues of all tunnels, and of sessions, each bounded.
#[derive(Debug, Default)]
pub(super) struct HoldQueues {
    by_lane: BTreeMap<Lane, Queue>,
    /// Packets in the queues of sessions.
    of_sessions: usize,
}

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) packet: Packet,
    /// Of the policies that sent it here, whose cache entry has counted it.
    pub(super) epoch: u32,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Waiting>,
    /// The daemon was asked for an SA and has not answered.
    asked: bool,
}

/// What became of a packet that was to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// A copy of it waits; otherwise the queue is full, and those that came before it stay.
    pub(super) waits: bool,
    /// The daemon is to be asked for an SA: nobody has done so yet.
    pub(super) ask: bool,
}

impl HoldQueues {
    /// Adds a copy of a packet, small enough to be kept, to the queue of a
    /// lane, which holds at most `limit`; `epoch` is that of the policies which said so.
    pub(super) fn hold(&mut self, lane: Lane, packet: &Packet, epoch: u32, limit: usize) -> Held {
        let queue = self.by_lane.entry(lane).or_default();
        let session = lane.session.is_some();
        let waits = queue.packets.len() < limit && !(session && self.of_sessions >= SESSION_QUEUES * limit);
        if waits {
            self.of_sessions += usize::from(session);
            queue.packets.push_back(Waiting { packet: packet.compact_copy(), epoch });
        }
        Held { waits, ask: !core::mem::replace(&mut queue.asked, true) }
    }

    /// Whether packets wait.
    pub(super) fn has(&self, lane: Lane) -> bool {
        self.by_lane.get(&lane).is_some_and(|q| !q.packets.is_empty())
    }

    /// Takes the packets of a queue out, the oldest first. The daemon's answer
    /// is still awaited.
    pub(super) fn take(&mut self, lane: Lane) -> VecDeque<Waiting> {
        let packets = self.by_lane.get_mut(&lane).map(|q| core::mem::take(&mut q.packets)).unwrap_or_default();
        self.taken(lane, packets)
    }

    /// Takes the packets of a queue out since the daemon has answered.
    pub(super) fn answered(&mut self, lane: Lane) -> VecDeque<Waiting> {
        let packets = self.by_lane.remove(&lane).map(|q| q.packets).unwrap_or_default();
        self.taken(lane, packets)
    }

    fn taken(&mut self, lane: Lane, packets: VecDeque<Waiting>) -> VecDeque<Waiting> {
        if lane.session.is_some() {
            self.of_sessions -= packets.len();
        }
        packets
    }

    /// Whether there is a queue, be it an empty one: the daemon was asked.
    pub(super) fn is_asked(&self, lane: Lane) -> bool {
        self.by_lane.contains_key(&lane)
    }

    /// Those with a queue.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        self.by_lane.keys().copied().collect()
    }

    /// Whether there is no queue at all.
    pub(super) fn is_empty(&self) -> bool {
        self.by_lane.is_empty()
    }

    /// Packets that wait, in all queues.
    pub(super) fn len(&self) -> usize {
        self.by_lane.values().map(|q| q.packets.len()).sum()
    }
}
