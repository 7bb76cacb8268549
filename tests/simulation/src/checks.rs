//! What must be so, and what a run that failed looked like.

use crate::{FLIGHT, World};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

impl World {
    /// Nobody waits for ever, and nothing grows without bounds.
    pub(crate) fn assert_bounds(&self) {
        for node in &self.nodes {
            node.assert_answers(self.now);
            node.assert_same_pairs();
            // A responder of aggressive mode, which has no cookies to come back, waits half a minute for each message 3: of
            // eight first messages of a peer at once, and then of one a second.
            let waiting = if self.aggressive { 40 } else { 0 };
            let most = (8 + waiting) * self.nodes.len();
            assert!(node.isakmp_sas() <= most, "{}: {} ISAKMP SAs", node.address, node.isakmp_sas());
        }
    }

    /// Every packet that was encrypted could be decrypted by the other side.
    pub(crate) fn assert_nothing_lost(&self) {
        let lost: Vec<_> = self.outstanding.iter().filter(|(_, sent)| self.now.since(**sent) > FLIGHT).collect();
        assert!(lost.is_empty(), "packets that did not arrive, by number: {lost:?}");
    }

    /// Waits until all agree.
    pub(crate) fn agree(&mut self, patience: Duration, when: &str) {
        self.packets_until(self.now + patience, |world| world.disagreement().is_none());
        let disagreement = self.disagreement();
        assert!(disagreement.is_none(), "no agreement {when}: {disagreement:?}");
        self.assert_bounds();
    }

    /// The first tunnel whose two sides do not hold exactly one pair, and the same.
    pub(crate) fn disagreement(&self) -> Option<String> {
        self.tunnels.iter().find_map(|(x, y, tunnel)| {
            let (x, y) = (&self.nodes[*x], &self.nodes[*y]);
            let counts = (x.pairs(tunnel).count(), y.pairs(tunnel).count());
            if counts != (1, 1) {
                return Some(format!("{tunnel}: pairs {counts:?}"));
            }
            let (Some(p), Some(q)) = (x.current(tunnel), y.current(tunnel)) else {
                return Some(format!("{tunnel}: a side does not send"));
            };
            for (out, inn) in [(&p.outbound, &q.inbound), (&q.outbound, &p.inbound)] {
                if out.spi != inn.spi || out.keymat != inn.keymat || out.suite != inn.suite {
                    return Some(format!("{tunnel}: {:#x} and {:#x} differ", out.spi, inn.spi));
                }
                if out.encapsulation.is_some() != inn.encapsulation.is_some()
                    || out.selector.local != inn.selector.remote
                {
                    return Some(format!("{tunnel}: encapsulation or selectors differ: {out:?} {inn:?}"));
                }
            }
            None
        })
    }

    /// Everything that was audited, with its time, as one number.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for node in &self.nodes {
            node.audit.iter().for_each(|(at, line)| (at.as_micros(), line).hash(&mut hasher));
        }
        hasher.finish()
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = format!("seed {} at {:?}, {:?}, {:?}\n", self.seed, self.now, self.mismatch, self.tunnels);
        for node in &self.nodes {
            let _ = writeln!(text, "{}", node.describe());
            for (at, line) in &node.audit {
                let _ = writeln!(text, "  {:.3} {line}", Duration::from_micros(at.as_micros()).as_secs_f64());
            }
        }
        text
    }
}
