//! The SPD cache and the tables people would use in its stead, behind one interface.
//!
//! All but `RwLock<HashMap>` have readers and writers at once by design. They
//! map the same keys to the same decisions with a fast keyed hash (foldhash);
//! only the SPD cache also counts packets, notes the time of use, tells epochs
//! apart and has an exact limit.

use crate::flows::Seeded;
use core::hint::black_box;
use foldhash::fast::RandomState;
use left_right::{Absorb, ReadHandleFactory, WriteHandle};
use policy::cache::{CacheEntry, CacheKey, HashKey, Inserted, SpdCache};
use policy::limits::Limits;
use policy::spd::Decision;
use policy::time::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Packets of one batch of the packet path.
pub const BATCH: usize = 32;
const EPOCH: u32 = 1;
const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const ENTRY: CacheEntry = CacheEntry { decision: Decision::Protect { tunnel: 3 }, cookie: 2, reason: None };

/// Looks up a batch of keys and returns how many were found.
pub type Look<'a> = Box<dyn FnMut(&[CacheKey]) -> usize + 'a>;

/// A table under test.
pub trait Table: Sync {
    /// What one reading thread does.
    fn reader(&self) -> Look<'_>;
    /// Adds entries, and removes others: what one writing thread does.
    fn writer(&self) -> Box<dyn Writer + '_>;
}

/// A writing thread's access.
pub trait Writer {
    /// Adds one.
    fn insert(&mut self, key: &CacheKey);
    /// Removes one.
    fn remove(&mut self, key: &CacheKey);
    /// Lets readers see it, where that takes an act of its own.
    fn publish(&mut self) {}
}

/// Makes one, empty, for so many entries.
pub type Maker = fn(entries: u64) -> Box<dyn Table>;

/// All, by the name they have in the results.
pub const TABLES: [(&str, Maker); 8] = [
    ("caponier", |_| Box::new(Caponier::new(Ask::One))),
    ("caponier_batch", |_| Box::new(Caponier::new(Ask::Batch))),
    ("caponier_batch_counted", |_| Box::new(Caponier::new(Ask::CountedBatch))),
    ("papaya", |n| Box::new(Papaya(papaya::HashMap::builder().capacity(n as usize).hasher(hasher()).build()))),
    ("dashmap", |n| Box::new(Dashmap(dashmap::DashMap::with_capacity_and_hasher(n as usize, hasher())))),
    ("scc", |n| Box::new(Scc(scc::HashMap::with_capacity_and_hasher(n as usize, hasher())))),
    ("left_right", |n| Box::new(LeftRight::new(n as usize))),
    ("rwlock_hashmap", |n| Box::new(Locked(RwLock::new(HashMap::with_capacity_and_hasher(n as usize, hasher()))))),
];

fn hasher() -> RandomState {
    RandomState::default()
}

/// How the SPD cache is asked.
#[derive(Clone, Copy)]
enum Ask {
    One,
    Batch,
    /// As the packet path does: the packets of each entry are counted too.
    CountedBatch,
}

struct Caponier {
    cache: Arc<SpdCache>,
    ask: Ask,
}

impl Caponier {
    fn new(ask: Ask) -> Self {
        // Limits that count, and are never reached.
        let limits = Limits { soft: 1 << 40, hard: 1 << 41 };
        Self { cache: SpdCache::new(limits, HashKey::draw(&mut Seeded(1))), ask }
    }
}

impl Table for Caponier {
    fn reader(&self) -> Look<'_> {
        let mut reader = self.cache.reader();
        let mut found = [None; BATCH];
        let ask = self.ask;
        Box::new(move |keys| {
            if let Ask::One = ask {
                return keys.iter().filter_map(|key| black_box(reader.look_up(key, EPOCH, NOW))).count();
            }
            let found = &mut found[..keys.len()];
            reader.look_up_batch(keys, EPOCH, NOW, found);
            if let Ask::CountedBatch = ask {
                reader.count();
            }
            black_box(found).iter().flatten().count()
        })
    }

    fn writer(&self) -> Box<dyn Writer + '_> {
        Box::new(self.cache.reader())
    }
}

impl Writer for policy::cache::Reader {
    fn insert(&mut self, key: &CacheKey) {
        assert_ne!(self.insert(key, ENTRY, EPOCH, NOW, &mut |_| ()), Inserted::HardLimit);
    }

    fn remove(&mut self, key: &CacheKey) {
        self.remove(key);
    }
}

struct Papaya(papaya::HashMap<CacheKey, CacheEntry, RandomState>);

impl Table for Papaya {
    fn reader(&self) -> Look<'_> {
        Box::new(|keys| {
            let map = self.0.pin();
            keys.iter().filter_map(|key| black_box(map.get(key).copied())).count()
        })
    }

    fn writer(&self) -> Box<dyn Writer + '_> {
        Box::new(self)
    }
}

impl Writer for &Papaya {
    fn insert(&mut self, key: &CacheKey) {
        self.0.pin().insert(*key, ENTRY);
    }

    fn remove(&mut self, key: &CacheKey) {
        self.0.pin().remove(key);
    }
}

struct Dashmap(dashmap::DashMap<CacheKey, CacheEntry, RandomState>);

impl Table for Dashmap {
    fn reader(&self) -> Look<'_> {
        Box::new(|keys| keys.iter().filter_map(|key| black_box(self.0.get(key).map(|entry| *entry))).count())
    }

    fn writer(&self) -> Box<dyn Writer + '_> {
        Box::new(self)
    }
}

impl Writer for &Dashmap {
    fn insert(&mut self, key: &CacheKey) {
        self.0.insert(*key, ENTRY);
    }

    fn remove(&mut self, key: &CacheKey) {
        self.0.remove(key);
    }
}

struct Scc(scc::HashMap<CacheKey, CacheEntry, RandomState>);

impl Table for Scc {
    fn reader(&self) -> Look<'_> {
        Box::new(|keys| keys.iter().filter_map(|key| black_box(self.0.read_sync(key, |_, entry| *entry))).count())
    }

    fn writer(&self) -> Box<dyn Writer + '_> {
        Box::new(self)
    }
}

impl Writer for &Scc {
    fn insert(&mut self, key: &CacheKey) {
        let _ = self.0.insert_sync(*key, ENTRY);
    }

    fn remove(&mut self, key: &CacheKey) {
        self.0.remove_sync(key);
    }
}

type Map = HashMap<CacheKey, CacheEntry, RandomState>;

struct Locked(RwLock<Map>);

impl Table for Locked {
    fn reader(&self) -> Look<'_> {
        Box::new(|keys| {
            // Once for a batch: what a packet path would do.
            let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
            keys.iter().filter_map(|key| black_box(map.get(key).copied())).count()
        })
    }

    fn writer(&self) -> Box<dyn Writer + '_> {
        Box::new(self)
    }
}

impl Writer for &Locked {
    fn insert(&mut self, key: &CacheKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(*key, ENTRY);
    }

    fn remove(&mut self, key: &CacheKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

enum Change {
    Insert(CacheKey),
    Remove(CacheKey),
}

#[derive(Clone)]
struct Side(Map);

impl Absorb<Change> for Side {
    fn absorb_first(&mut self, change: &mut Change, _: &Self) {
        match change {
            Change::Insert(key) => {
                self.0.insert(*key, ENTRY);
            }
            Change::Remove(key) => {
                self.0.remove(key);
            }
        }
    }

    fn sync_with(&mut self, first: &Self) {
        self.0.clone_from(&first.0);
    }
}

struct LeftRight {
    readers: ReadHandleFactory<Side>,
    writer: Mutex<WriteHandle<Side, Change>>,
}

impl LeftRight {
    fn new(entries: usize) -> Self {
        let empty = Side(HashMap::with_capacity_and_hasher(entries, hasher()));
        let (writer, reader) = left_right::new_from_empty(empty);
        Self { readers: reader.factory(), writer: Mutex::new(writer) }
    }
}

impl Table for LeftRight {
    fn reader(&self) -> Look<'_> {
        let handle = self.readers.handle();
        Box::new(move |keys| {
            let Some(side) = handle.enter() else { return 0 };
            keys.iter().filter_map(|key| black_box(side.0.get(key).copied())).count()
        })
    }

    fn writer(&self) -> Box<dyn Writer + '_> {
        Box::new(self)
    }
}

impl Writer for &LeftRight {
    fn insert(&mut self, key: &CacheKey) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).append(Change::Insert(*key));
    }

    fn remove(&mut self, key: &CacheKey) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).append(Change::Remove(*key));
    }

    fn publish(&mut self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).publish();
    }
}
