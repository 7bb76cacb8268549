//! Who is one and the same when something is counted per source, and half-open negotiations so counted.

use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 that an IPv6 address is in: whoever has one has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(IpAddr);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << 64))),
        })
    }
}

/// Half-open negotiations that peers began, in all.
pub(super) const HALF_OPEN_LIMIT: usize = 2048;
/// Half-open negotiations that one source began.
pub(super) const HALF_OPEN_LIMIT_PER_SOURCE: usize = 128;
/// One that is older may be displaced: an honest peer needs a few round trips.
pub(super) const PATIENCE: core::time::Duration = core::time::Duration::from_secs(3);

/// Whether one more may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It may.
    Free,
    /// If this one ends for it.
    InPlaceOf(u64),
    /// It must wait: a repeated message 3 may find room.
    None,
}

/// Negotiations whose initiators have shown that their addresses are real, but not yet who they are.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    /// SAs by source, with the time of their beginning; the numbers of SAs rise.
    by_source: BTreeMap<Source, BTreeMap<u64, Timestamp>>,
    all: usize,
}

impl HalfOpen {
    /// Whether `source` may begin another. A source that has its share displaces what is its own;
    /// who displaces others' takes it from the source that has most.
    pub(super) fn room(&self, now: Timestamp, source: Source) -> Room {
        let of = |source: &Source| self.by_source.get(source).map_or(0, BTreeMap::len);
        let own = of(&source);
        if own < HALF_OPEN_LIMIT_PER_SOURCE && self.all < HALF_OPEN_LIMIT {
            return Room::Free;
        }
        let stale = |sas: &BTreeMap<u64, Timestamp>| {
            sas.first_key_value().filter(|(_, began)| now.since(**began) > PATIENCE).map(|(id, _)| *id)
        };
        if own >= HALF_OPEN_LIMIT_PER_SOURCE {
            return self.by_source.get(&source).and_then(stale).map_or(Room::None, Room::InPlaceOf);
        }
        let largest = self.by_source.values().max_by_key(|sas| sas.len());
        match largest {
            Some(sas) if sas.len() > own + 1 => {
                sas.first_key_value().map_or(Room::None, |(id, _)| Room::InPlaceOf(*id))
            }
            _ => {
                let oldest = self.by_source.values().filter_map(stale).min();
                oldest.map_or(Room::None, Room::InPlaceOf)
            }
        }
    }

    pub(super) fn insert(&mut self, source: Source, id: u64, now: Timestamp) {
        if self.by_source.entry(source).or_default().insert(id, now).is_none() {
            self.all += 1;
        }
    }

    /// It is established, or gone; nothing if it was not half-open.
    pub(super) fn remove(&mut self, source: Source, id: u64) {
        let Some(sas) = self.by_source.get_mut(&source) else { return };
        if sas.remove(&id).is_some() {
            self.all -= 1;
        }
        if sas.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u16) -> Source {
        let [a, b] = n.to_be_bytes();
        Source::of([10, 0, a, b].into())
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn one_source_displaces_its_own() {
        let mut half_open = HalfOpen::default();
        for id in 0..HALF_OPEN_LIMIT_PER_SOURCE as u64 {
            assert_eq!(half_open.room(at(0), source(1)), Room::Free);
            half_open.insert(source(1), id, at(0));
        }
        assert_eq!(half_open.room(at(0), source(1)), Room::None, "not before it had its chance");
        assert_eq!(half_open.room(at(4), source(1)), Room::InPlaceOf(0));
        assert_eq!(half_open.room(at(0), source(2)), Room::Free, "others are not concerned");
        half_open.remove(source(1), 0);
        half_open.remove(source(1), 0);
        assert_eq!(half_open.room(at(0), source(1)), Room::Free);
    }

    #[test]
    fn when_all_is_full_the_greediest_gives_way() {
        let mut half_open = HalfOpen::default();
        let mut id = 0;
        for n in 0..(HALF_OPEN_LIMIT / HALF_OPEN_LIMIT_PER_SOURCE) as u16 {
            for _ in 0..HALF_OPEN_LIMIT_PER_SOURCE {
                id += 1;
                half_open.insert(source(n), id, at(0));
            }
        }
        let Room::InPlaceOf(gone) = half_open.room(at(0), source(999)) else { panic!("a newcomer is served") };
        assert_eq!((gone - 1) % HALF_OPEN_LIMIT_PER_SOURCE as u64, 0, "the oldest of its source");
        // Very many that have one each: only who had a chance gives way.
        let mut half_open = HalfOpen::default();
        (0..HALF_OPEN_LIMIT as u16).for_each(|n| half_open.insert(source(n), u64::from(n), at(0)));
        assert_eq!(half_open.room(at(1), source(60_000)), Room::None);
        assert_eq!(half_open.room(at(4), source(60_000)), Room::InPlaceOf(0));
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
