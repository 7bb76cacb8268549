//! The limits of the SPD cache: entries counted exactly, alerts at the right moment.

use crate::sync::{Mutex, lock};
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Limits of the cache, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// An alert at this many entries, and at each further [`SOFT_STEP`].
    pub soft: u64,
    /// Never more entries than this.
    pub hard: u64,
}

/// Entries between two alerts above the soft limit.
pub const SOFT_STEP: u64 = 1000;

impl Limits {
    /// From the units of the configuration and of `ipsec_admin`: thousands of entries.
    #[must_use]
    pub fn from_thousands(soft: u32, hard: u32) -> Self {
        Self { soft: u64::from(soft) * 1000, hard: u64::from(hard) * 1000 }
    }
}

/// Entries that are a share of a hard limit, in percent; rounded down.
#[must_use]
pub fn share_of(hard: u64, percent: u8) -> u64 {
    (u128::from(hard) * u128::from(percent) / 100) as u64
}

/// What the daemon is to tell its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitEvent {
    /// The cache has reached the soft limit, or [`SOFT_STEP`] more since the last alert.
    SoftLimit {
        /// Entries at that moment: the soft limit plus a multiple of [`SOFT_STEP`].
        entries: u64,
    },
    /// An entry was refused: the cache is at its hard limit. Once until it has been below again.
    HardLimit {
        /// The hard limit.
        entries: u64,
    },
    /// An entry was refused: those of one policy take the part of the cache that is theirs. Once until
    /// there has been a place again.
    ShareLimit {
        /// The policy.
        cookie: u32,
        /// Entries that it may have.
        entries: u64,
    },
}

/// A count of entries under limits, shared by all writers of a table.
///
/// A writer reserves a place *before* it inserts, and releases it after it
/// has removed; so there are never more entries than reservations, and never
/// more reservations than the hard limit.
#[derive(Debug)]
pub struct Quota {
    reserved: AtomicU64,
    soft: AtomicU64,
    hard: AtomicU64,
    /// The count at which the next soft alert is due. Changed under `telling` alone, looked at without.
    next_alert: AtomicU64,
    /// Held to tell of a threshold, and to move it: so each is told once for each time that it is passed.
    telling: Mutex<()>,
    /// The refusal at the hard limit has been told.
    refusal_told: AtomicBool,
}

/// A reserved place; the number of places taken, this one included.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not used is released"]
pub struct Place(u64);

impl Quota {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            reserved: AtomicU64::new(0),
            soft: AtomicU64::new(limits.soft),
            hard: AtomicU64::new(limits.hard),
            next_alert: AtomicU64::new(limits.soft.max(1)),
            telling: Mutex::new(()),
            refusal_told: AtomicBool::new(false),
        }
    }

    /// The limits now in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { soft: self.soft.load(Relaxed), hard: self.hard.load(Relaxed) }
    }

    /// Places taken: at least the number of entries.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.reserved.load(Relaxed)
    }

    /// Takes a place, unless the hard limit is reached.
    pub fn reserve(&self) -> Option<Place> {
        let hard = self.hard.load(Relaxed);
        let taken = self.reserved.fetch_update(AcqRel, Acquire, |n| (n < hard).then_some(n + 1));
        taken.ok().map(|before| Place(before + 1))
    }

    /// The reserved place is used for an entry: alerts if that reached a threshold.
    pub fn used(&self, place: &Place, sink: &mut impl FnMut(LimitEvent)) {
        if place.0 < self.next_alert.load(Relaxed) {
            return;
        }
        let _telling = lock(&self.telling);
        let mut due = self.next_alert.load(Relaxed);
        while place.0 >= due {
            sink(LimitEvent::SoftLimit { entries: due });
            due = due.saturating_add(SOFT_STEP);
        }
        self.next_alert.store(due, Relaxed);
    }

    /// An entry was refused for want of a place: alerts, once per crossing.
    pub fn refused(&self, sink: &mut impl FnMut(LimitEvent)) {
        // Looked at first, so that a flood of refusals shares the line unwritten.
        if !self.refusal_told.load(Relaxed) && !self.refusal_told.swap(true, AcqRel) {
            sink(LimitEvent::HardLimit { entries: self.hard.load(Relaxed) });
        }
    }

    /// Gives back `places` places, of entries removed or never made.
    pub fn release(&self, places: u64) {
        self.reserved.fetch_sub(places, AcqRel);
    }

    /// Makes ready to alert again at the thresholds that the count has fallen
    /// below. Called after a sweep, not after each removal: a count that
    /// trembles around a threshold does not raise an alert each time.
    pub fn rearm(&self) {
        let _telling = lock(&self.telling);
        let (taken, limits) = (self.taken(), self.limits());
        self.next_alert.fetch_min(next_threshold(limits.soft, taken), Relaxed);
        if taken < limits.hard {
            self.refusal_told.store(false, Release);
        }
    }

    /// Changes the limits. What is there stays, even above a lower hard limit:
    /// nothing is added until enough has aged out. Another soft limit, at or below
    /// the present count, alerts at once; with the same one the alerts go on as
    /// they would have.
    pub fn change(&self, limits: Limits, sink: &mut impl FnMut(LimitEvent)) {
        let _telling = lock(&self.telling);
        if self.hard.swap(limits.hard, Relaxed) != limits.hard {
            self.refusal_told.store(false, Release);
        }
        if self.soft.swap(limits.soft, Relaxed) != limits.soft {
            let taken = self.taken();
            self.next_alert.store(next_threshold(limits.soft, taken), Relaxed);
            if taken > 0 && taken >= limits.soft {
                sink(LimitEvent::SoftLimit { entries: limits.soft + (taken - limits.soft) / SOFT_STEP * SOFT_STEP });
            }
        }
    }
}

/// The lowest threshold above `taken`; never 0, which no entry reaches.
fn next_threshold(soft: u64, taken: u64) -> u64 {
    match taken.checked_sub(soft) {
        None => soft,
        Some(over) => soft.saturating_add((over / SOFT_STEP + 1) * SOFT_STEP),
    }
    .max(1)
}

#[cfg(test)]
mod tests {
    use super::LimitEvent::{HardLimit, SoftLimit};
    use super::*;

    /// Takes `n` places and returns the alerts.
    fn take(quota: &Quota, n: u64) -> Vec<LimitEvent> {
        let mut events = Vec::new();
        for _ in 0..n {
            match quota.reserve() {
                Some(place) => quota.used(&place, &mut |e| events.push(e)),
                None => quota.refused(&mut |e| events.push(e)),
            }
        }
        events
    }

    #[test]
    fn soft_alerts_exactly_at_the_limit_and_at_each_further_thousand() {
        let quota = Quota::new(Limits { soft: 1500, hard: 100_000 });
        assert_eq!(take(&quota, 1499), []);
        assert_eq!(take(&quota, 1), [SoftLimit { entries: 1500 }]);
        assert_eq!(take(&quota, 999), []);
        assert_eq!(take(&quota, 1), [SoftLimit { entries: 2500 }]);
        assert_eq!(take(&quota, 1000), [SoftLimit { entries: 3500 }]);
    }

    #[test]
    fn the_hard_limit_is_exact_and_told_once_per_crossing() {
        let quota = Quota::new(Limits { soft: 500, hard: 10 });
        assert_eq!(take(&quota, 10), []);
        assert_eq!(take(&quota, 1), [HardLimit { entries: 10 }]);
        assert_eq!(take(&quota, 100), []);
        assert_eq!(quota.taken(), 10);
        // Removals alone do not rearm: a sweep does.
        quota.release(1);
        assert_eq!(take(&quota, 2), []);
        quota.release(1);
        quota.rearm();
        assert_eq!(take(&quota, 2), [HardLimit { entries: 10 }]);
        // A sweep that frees nothing does not.
        quota.rearm();
        assert_eq!(take(&quota, 2), []);
    }

    #[test]
    fn thresholds_are_told_again_only_after_falling_below_them() {
        let quota = Quota::new(Limits { soft: 1000, hard: 100_000 });
        assert_eq!(take(&quota, 2100), [SoftLimit { entries: 1000 }, SoftLimit { entries: 2000 }]);
        quota.release(50);
        quota.rearm();
        assert_eq!(take(&quota, 50), []);
        quota.release(600);
        quota.rearm();
        assert_eq!(take(&quota, 600), [SoftLimit { entries: 2000 }]);
        quota.release(2100);
        quota.rearm();
        assert_eq!(take(&quota, 1000), [SoftLimit { entries: 1000 }]);
    }

    #[test]
    fn limits_change_at_run_time() {
        let quota = Quota::new(Limits { soft: 100, hard: 100 });
        assert_eq!(take(&quota, 101), [SoftLimit { entries: 100 }, HardLimit { entries: 100 }]);
        let mut events = Vec::new();
        quota.change(Limits { soft: 200, hard: 300 }, &mut |e| events.push(e));
        assert_eq!(events, []);
        assert_eq!(take(&quota, 201), [SoftLimit { entries: 200 }, HardLimit { entries: 300 }]);
        // Below what is there: told, and nothing is added until enough is gone.
        quota.change(Limits { soft: 50, hard: 150 }, &mut |e| events.push(e));
        assert_eq!(events, [SoftLimit { entries: 50 }]);
        assert_eq!(take(&quota, 1), [HardLimit { entries: 150 }]);
        quota.release(150);
        assert_eq!(take(&quota, 1), []);
        quota.release(1);
        quota.rearm();
        assert_eq!(take(&quota, 2), [HardLimit { entries: 150 }]);
        assert_eq!(quota.taken(), 150);
    }

    #[test]
    fn what_was_told_is_not_told_again_for_a_change_of_the_hard_limit() {
        let quota = Quota::new(Limits { soft: 1000, hard: 2500 });
        assert_eq!(take(&quota, 2500), [SoftLimit { entries: 1000 }, SoftLimit { entries: 2000 }]);
        assert_eq!(take(&quota, 1), [HardLimit { entries: 2500 }]);
        let mut events = Vec::new();
        // As a reload does that leaves the limits as they are.
        quota.change(Limits { soft: 1000, hard: 2500 }, &mut |e| events.push(e));
        assert_eq!((&events[..], take(&quota, 9)), (&[][..], vec![]));
        quota.change(Limits { soft: 1000, hard: 4500 }, &mut |e| events.push(e));
        assert_eq!(events, []);
        let [three, four] = [3000, 4000].map(|entries| SoftLimit { entries });
        assert_eq!(take(&quota, 3000), [three, four, HardLimit { entries: 4500 }]);
    }

    /// Writers pass thresholds up and down while sweeps rearm: between two tellings of a
    /// threshold the count was below it.
    #[test]
    fn no_threshold_is_told_twice_for_one_crossing() {
        let quota = Quota::new(Limits { soft: 1000, hard: u64::MAX });
        let told = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..100_000 {
                            let place = quota.reserve().unwrap();
                            quota.used(&place, &mut |event| lock(&told).push(event));
                        }
                    })
                })
                .collect();
            // The count only rises: a rearm has nothing to make ready.
            while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                quota.rearm();
            }
        });
        let expected: Vec<_> = (1..=300).map(|n| SoftLimit { entries: n * 1000 }).collect();
        assert_eq!(*lock(&told), expected);
    }

    /// While one writer tells of a threshold, another one comes that is past it too.
    #[test]
    fn a_threshold_that_is_being_told_is_not_told_by_another() {
        let quota = Quota::new(Limits { soft: 2, hard: 10 });
        let mut places = (0..3).map(|_| quota.reserve().unwrap()).skip(1);
        let (first, second) = (places.next().unwrap(), places.next().unwrap());
        let (told, telling) = (Mutex::new(Vec::new()), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                quota.used(&first, &mut |event| {
                    lock(&told).push(event);
                    telling.wait();
                    // Time for the other one, which without the lock has it told twice.
                    (0..20_000).for_each(|_| std::thread::yield_now());
                });
            });
            scope.spawn(|| {
                telling.wait();
                quota.used(&second, &mut |event| lock(&told).push(event));
            });
        });
        assert_eq!(*lock(&told), [SoftLimit { entries: 2 }]);
    }

    #[test]
    fn limits_of_zero_allow_nothing_and_do_not_loop() {
        let quota = Quota::new(Limits { soft: 0, hard: 0 });
        assert_eq!(take(&quota, 3), [HardLimit { entries: 0 }]);
        let quota = Quota::new(Limits { soft: u64::MAX, hard: u64::MAX });
        assert_eq!(take(&quota, 3), []);
        quota.change(Limits { soft: 0, hard: u64::MAX }, &mut |_| ());
        assert_eq!(take(&quota, 1), []);
    }

    #[test]
    fn units_of_the_configuration_are_thousands() {
        assert_eq!(Limits::from_thousands(900, 1000), Limits { soft: 900_000, hard: 1_000_000 });
        assert_eq!(Limits::from_thousands(1, u32::MAX).hard, 4_294_967_295_000);
    }
}
