//! Both sides are commanded at once, on a reliable network, and must agree after each time.

use crate::World;
use crate::network::Quality;
use ike::Command;
use std::time::Duration;

/// Rounds of a run.
const ROUNDS: usize = 3;

/// What a round commands, of one tunnel.
#[derive(Clone, Copy, Debug)]
enum Round {
    /// Both rekey: the only pair that goes is the old one, and every pair that was made is used.
    RekeyBoth,
    /// One is told twice to rekey the same pair.
    RekeyTwice,
    /// Both negotiate a new ISAKMP SA.
    ReauthenticateBoth,
    /// All of it.
    RekeyAndReauthenticateBoth,
    /// Both delete the pair.
    DeleteBoth,
    /// One rekeys what the other deletes.
    RekeyAndDelete,
    /// Both delete everything.
    DeleteAllBoth,
    /// One reauthenticates while the other deletes everything.
    ReauthenticateAndDeleteAll,
    /// One is stopped for a while, and finds that time has passed.
    Freeze,
}

impl Round {
    const ALL: [Self; 9] = [
        Self::RekeyBoth,
        Self::RekeyTwice,
        Self::ReauthenticateBoth,
        Self::RekeyAndReauthenticateBoth,
        Self::DeleteBoth,
        Self::RekeyAndDelete,
        Self::DeleteAllBoth,
        Self::ReauthenticateAndDeleteAll,
        Self::Freeze,
    ];

    /// Whether it makes before it breaks: then no packet is lost, and where no message overtakes another one, no pair is
    /// made for nothing.
    fn loses_nothing(self) -> bool {
        matches!(self, Self::RekeyBoth | Self::RekeyTwice | Self::ReauthenticateBoth | Self::RekeyAndReauthenticateBoth)
    }
}

impl World {
    pub(crate) fn rounds(&mut self) {
        for _ in 0..ROUNDS {
            let round = Round::ALL[self.rng.below(Round::ALL.len() as u64) as usize];
            self.round(round);
        }
    }

    fn round(&mut self, round: Round) {
        let (x, y, tunnel) = self.tunnels[self.rng.below(self.tunnels.len() as u64) as usize].clone();
        let (one, other) = if self.rng.chance(50) { (x, y) } else { (y, x) };
        let unused = |world: &Self| world.nodes.iter().map(|node| node.removed_unused).sum::<usize>();
        let before = unused(self);
        // What an attacker repeats comes late.
        let orderly = !self.attacker && self.rng.chance(50);
        self.network.quality = if orderly { Quality::ORDERLY } else { Quality::RELIABLE };
        match round {
            Round::RekeyBoth => [one, other].iter().for_each(|&host| self.rekey(host, &tunnel)),
            Round::RekeyTwice => {
                let pairs = self.nodes[one].pair_ids(&tunnel);
                for _ in 0..2 {
                    pairs.iter().for_each(|&pair| self.command(one, Command::Rekey { pair }));
                    let pause = self.rng.millis(1, 100);
                    self.advance(self.now + pause);
                }
            }
            Round::ReauthenticateBoth => {
                self.rekey_peer(one, other);
                self.rekey_peer(other, one);
            }
            Round::RekeyAndReauthenticateBoth => {
                for (host, peer) in [(one, other), (other, one)] {
                    self.rekey_peer(host, peer);
                    self.rekey(host, &tunnel);
                }
            }
            Round::DeleteBoth => [one, other].iter().for_each(|&host| self.expire(host, &tunnel)),
            Round::RekeyAndDelete => {
                self.rekey(one, &tunnel);
                self.expire(other, &tunnel);
            }
            Round::DeleteAllBoth => {
                self.delete_peer(one, other);
                self.delete_peer(other, one);
            }
            Round::ReauthenticateAndDeleteAll => {
                self.rekey_peer(one, other);
                self.delete_peer(other, one);
            }
            Round::Freeze => {
                let pause = self.rng.millis(100, 6_000);
                self.nodes[one].clock.freeze(self.now, pause);
            }
        }
        let end = self.now + Duration::from_secs(8);
        while self.now < end {
            self.packet_at(one, &tunnel);
            self.packet_at(other, &tunnel);
            self.attack();
            self.advance(self.now + Duration::from_millis(250));
            if round.loses_nothing() {
                self.assert_nothing_lost();
            }
        }
        if round.loses_nothing() && orderly {
            assert_eq!(unused(self), before, "a pair was made and removed without use in {round:?}");
        }
        self.agree(Duration::from_secs(120), &format!("after {round:?}"));
        self.outstanding.clear();
    }
}
