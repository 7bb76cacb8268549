//! The clocks of a host, and what can happen to them.
//!
//! The engine lives by a monotonic clock, which stands still while the machine sleeps and goes on while
//! the process alone is stopped. That it goes back is not supposed to happen, and must be harmless all the
//! same. The clock on the wall, which anybody may set, matters only to certificates.

use crate::rng::Rng;
use policy::time::Timestamp;
use std::time::Duration;

/// A host's clocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// How far the host's clock is ahead of the world's, in microseconds.
    ahead: i64,
    /// The process does nothing before.
    frozen: Option<Timestamp>,
    /// What the clock on the wall shows, in days; 0 is right.
    pub(crate) day: i64,
}

impl Clock {
    /// What it shows.
    #[must_use]
    pub(crate) fn at(&self, world: Timestamp) -> Timestamp {
        Timestamp::from_micros(world.as_micros().saturating_add_signed(self.ahead))
    }

    /// When in the world it shows this.
    #[must_use]
    pub(crate) fn when(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_micros(local.as_micros().saturating_add_signed(-self.ahead))
    }

    /// Until when the host is frozen, or was last.
    #[must_use]
    pub(crate) fn frozen_until(&self) -> Option<Timestamp> {
        self.frozen
    }

    /// Whether the host does nothing.
    #[must_use]
    pub(crate) fn is_frozen(&self, now: Timestamp) -> bool {
        self.frozen.is_some_and(|thaw| now < thaw)
    }

    /// The host runs.
    pub(crate) fn thaw(&mut self) {
        self.frozen = None;
    }

    /// The process is stopped for a while.
    pub(crate) fn freeze(&mut self, now: Timestamp, pause: Duration) {
        self.frozen = Some(now + pause);
    }

    /// The clock on the wall is right again.
    pub(crate) fn set_right(&mut self) {
        self.day = 0;
    }

    /// One thing that happens to a clock. Returns for how much longer than it says nothing expires here.
    pub(crate) fn disturb(&mut self, now: Timestamp, rng: &mut Rng) -> Duration {
        let pause = rng.millis(100, 40_000);
        match rng.below(5) {
            // The process is stopped.
            0 => {
                self.freeze(now, pause);
                pause
            }
            // The machine sleeps, and the clock with it.
            1 => {
                self.freeze(now, pause);
                self.ahead -= pause.as_micros() as i64;
                pause
            }
            2 => {
                self.ahead -= pause.as_micros() as i64;
                pause
            }
            3 => {
                self.ahead += rng.millis(0, 200_000).as_micros() as i64;
                Duration::ZERO
            }
            _ => {
                self.day = if self.day == 0 { rng.below(20_000) as i64 - 10_000 } else { 0 };
                Duration::ZERO
            }
        }
    }
}
