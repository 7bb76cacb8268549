//! Timers: at most one time per key, the earliest first.

use policy::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Times by key.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    by_key: BTreeMap<K, Timestamp>,
    by_time: BTreeSet<(Timestamp, K)>,
}

impl<K: Ord + Clone> Schedule<K> {
    pub(crate) fn new() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets the time of `key`, in place of an earlier one.
    pub(crate) fn set(&mut self, key: K, at: Timestamp) {
        self.cancel(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Forgets `key`.
    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// Whether `key` has a time.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// When `key` is due.
    pub(crate) fn at(&self, key: &K) -> Option<Timestamp> {
        self.by_key.get(key).copied()
    }

    /// The earliest time.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the first key whose time has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_one_time_per_key() {
        let at = Timestamp::from_micros;
        let mut s = Schedule::new();
        s.set("a", at(5));
        s.set("b", at(3));
        s.set("a", at(2));
        assert_eq!(s.next(), Some(at(2)));
        assert_eq!(s.pop_due(at(1)), None);
        assert_eq!(s.pop_due(at(4)), Some("a"));
        s.cancel(&"b");
        assert_eq!(s.pop_due(at(9)), None);
        assert_eq!(s.next(), None);
    }
}
