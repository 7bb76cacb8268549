//! Everything that can go wrong.

use crate::{Node, Timestamp, World};
use ike::Command;
use std::sync::Arc;

impl World {
    /// Hosts start, and then nothing is spared them until `end`.
    pub(crate) fn storm(&mut self, end: Timestamp) {
        // Hosts start in any order, up to 10 s apart.
        let mut starts: Vec<_> =
            (0..self.nodes.len()).map(|host| (self.now + self.rng.millis(0, 10_000), host)).collect();
        if self.rng.chance(20) {
            starts.iter_mut().for_each(|(at, _)| *at = self.now);
        }
        let trouble = self.rng.chance(70);
        let mut next_trouble = self.now + self.rng.millis(5_000, 60_000);
        let mut next_packet = self.now;
        while self.now < end {
            let next_start = starts.iter().map(|(at, _)| *at).min().unwrap_or(end);
            self.advance(next_start.min(next_packet).min(next_trouble).min(end));
            let due: Vec<_> = starts.extract_if(.., |(at, _)| *at <= self.now).collect();
            for (_, host) in due {
                if !self.nodes[host].is_running() {
                    self.with(host, Node::start);
                }
            }
            if next_packet <= self.now {
                self.packet();
                self.attack();
                next_packet = self.now + self.rng.millis(1, 3_000);
            }
            if next_trouble <= self.now {
                if trouble {
                    self.trouble(&mut starts);
                }
                next_trouble = self.now + self.rng.millis(1_000, 60_000);
            }
        }
        self.outstanding.clear();
    }

    /// One thing that an administrator, or fate, does to a host, or to both ends of a tunnel at once.
    fn trouble(&mut self, starts: &mut Vec<(Timestamp, usize)>) {
        let host = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[host].is_running() || self.nodes[host].clock.is_frozen(self.now) {
            return;
        }
        let tunnels: Vec<_> = self.tunnels.iter().filter(|(x, y, _)| [*x, *y].contains(&host)).cloned().collect();
        let (x, y, tunnel) = tunnels[self.rng.below(tunnels.len() as u64) as usize].clone();
        let other = if x == host { y } else { x };
        let concerned = if self.rng.chance(50) { vec![x, y] } else { vec![host] };
        match self.rng.below(10) {
            0 => {
                self.nodes[host].crash();
                starts.push((self.now + self.rng.millis(0, 20_000), host));
            }
            1 => {
                self.with(host, Node::stop);
                starts.push((self.now + self.rng.millis(0, 20_000), host));
            }
            2 => concerned.iter().for_each(|&at| self.delete_peer(at, host + other - at)),
            // Both sides may find at once that it is time.
            3 | 4 => concerned.iter().for_each(|&at| self.rekey(at, &tunnel)),
            5 => concerned.iter().for_each(|&at| self.expire(at, &tunnel)),
            6 => concerned.iter().for_each(|&at| self.rekey_peer(at, host + other - at)),
            7 => {
                // One is done with what the other one wants to replace.
                self.rekey(host, &tunnel);
                self.expire(other, &tunnel);
            }
            8 => {
                let lag = self.nodes[host].clock.disturb(self.now, &mut self.rng);
                self.lag += lag;
                self.nodes[host].excuse(self.now + lag);
            }
            _ => {
                // Both at once, while there is nothing.
                for host in [x, y] {
                    self.packet_at(host, &tunnel);
                }
            }
        }
    }

    /// Commands one side to replace its pairs of a tunnel.
    pub(crate) fn rekey(&mut self, host: usize, tunnel: &Arc<str>) {
        for pair in self.nodes[host].pair_ids(tunnel) {
            self.command_awake(host, Command::Rekey { pair });
        }
    }

    /// One side deletes its pairs of a tunnel.
    pub(crate) fn expire(&mut self, host: usize, tunnel: &Arc<str>) {
        for pair in self.nodes[host].pair_ids(tunnel) {
            self.command_awake(host, Command::Expired { pair });
        }
    }

    /// One side negotiates new ISAKMP SAs with the other, which authenticates both anew.
    pub(crate) fn rekey_peer(&mut self, host: usize, other: usize) {
        let peer = self.nodes[other].address;
        self.command_awake(host, Command::RekeyPeer { peer });
    }

    /// One side deletes all that it has with the other.
    pub(crate) fn delete_peer(&mut self, host: usize, other: usize) {
        let peer = self.nodes[other].address;
        self.command_awake(host, Command::DeletePeer { peer });
    }

    /// A host that does nothing takes no commands.
    fn command_awake(&mut self, host: usize, command: Command) {
        if !self.nodes[host].clock.is_frozen(self.now) {
            self.command(host, command);
        }
    }
}
