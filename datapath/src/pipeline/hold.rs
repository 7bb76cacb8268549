//! Packets that wait for an SA.

use crate::packet::Packet;
use std::collections::BTreeMap;
use std::collections::VecDeque;

/// The queues of all tunnels, each bounded.
#[derive(Debug, Default)]
pub(super) struct HoldQueues {
    by_tunnel: BTreeMap<u32, Queue>,
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
    /// tunnel, which holds at most `limit`; `epoch` is that of the policies which said so.
    pub(super) fn hold(&mut self, tunnel: u32, packet: &Packet, epoch: u32, limit: usize) -> Held {
        let queue = self.by_tunnel.entry(tunnel).or_default();
        let waits = queue.packets.len() < limit;
        if waits {
            queue.packets.push_back(Waiting { packet: packet.compact_copy(), epoch });
        }
        Held { waits, ask: !core::mem::replace(&mut queue.asked, true) }
    }

    /// Whether packets wait for a tunnel.
    pub(super) fn has(&self, tunnel: u32) -> bool {
        self.by_tunnel.get(&tunnel).is_some_and(|q| !q.packets.is_empty())
    }

    /// Takes the packets of a tunnel out, the oldest first. The daemon's answer
    /// is still awaited.
    pub(super) fn take(&mut self, tunnel: u32) -> VecDeque<Waiting> {
        self.by_tunnel.get_mut(&tunnel).map(|q| core::mem::take(&mut q.packets)).unwrap_or_default()
    }

    /// Takes the packets of a tunnel out since the daemon has answered.
    pub(super) fn answered(&mut self, tunnel: u32) -> VecDeque<Waiting> {
        self.by_tunnel.remove(&tunnel).map(|q| q.packets).unwrap_or_default()
    }

    /// Tunnels with a queue.
    pub(super) fn tunnels(&self) -> Vec<u32> {
        self.by_tunnel.keys().copied().collect()
    }

    /// Whether there is no queue at all.
    pub(super) fn is_empty(&self) -> bool {
        self.by_tunnel.is_empty()
    }

    /// Packets that wait, in all queues.
    pub(super) fn len(&self) -> usize {
        self.by_tunnel.values().map(|q| q.packets.len()).sum()
    }
}
