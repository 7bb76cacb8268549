//! The SAD: what readers find while SAs come and go, and that what goes is given back.

use policy::sad::{DuplicateSpi, InsertError, Outbound, Sad};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// An SA that knows its SPI, and says when it goes.
#[derive(Debug)]
struct Sa {
    spi: u32,
    alive: AtomicBool,
    dropped: Arc<AtomicU64>,
}

impl Sa {
    fn new(spi: u32, dropped: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { spi, alive: AtomicBool::new(true), dropped: Arc::clone(dropped) })
    }
}

impl Drop for Sa {
    fn drop(&mut self) {
        assert!(self.alive.swap(false, Relaxed), "dropped twice");
        self.dropped.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_duplicate_spi_is_refused_and_changes_nothing() {
    let sad = Sad::new();
    let mut reader = sad.reader();
    sad.insert(0x201, Arc::new("first")).unwrap();
    assert_eq!(sad.insert(0x201, Arc::new("second")), Err(InsertError::Duplicate(DuplicateSpi { spi: 0x201 })));
    assert_eq!(sad.pin(&mut reader).find(0x201), Some(&"first"));
    assert_eq!(sad.find(0x201).as_deref(), Some(&"first"));
    assert_eq!(sad.len(), 1);
    assert_eq!(sad.remove(0x201).as_deref(), Some(&"first"));
    assert_eq!(sad.remove(0x201), None);
    assert!(sad.pin(&mut reader).find(0x201).is_none() && sad.find(0x201).is_none());
    assert!(sad.is_empty());
    sad.insert(0x201, Arc::new("second")).unwrap();
    assert_eq!(sad.pin(&mut reader).find(0x201), Some(&"second"));
}

#[test]
fn zero_is_no_spi() {
    let sad = Sad::new();
    assert_eq!(sad.insert(0, Arc::new(())), Err(InsertError::NotAnSpi));
    assert!(sad.pin(&mut sad.reader()).find(0).is_none());
    sad.insert(u32::MAX, Arc::new(())).unwrap();
    assert!(sad.pin(&mut sad.reader()).find(u32::MAX).is_some());
}

#[test]
fn a_removed_sa_lives_as_long_as_a_batch_may_use_it() {
    let dropped = Arc::new(AtomicU64::new(0));
    let (sad, mut reader) = (Sad::new(), Sad::<Sa>::new().reader());
    sad.insert(300, Sa::new(300, &dropped)).unwrap();
    let pinned = sad.pin(&mut reader);
    let found = pinned.find(300).unwrap();
    drop(sad.remove(300));
    assert!(pinned.find(300).is_none());
    for spi in 301..400 {
        sad.insert(spi, Sa::new(spi, &dropped)).unwrap();
    }
    sad.tidy();
    assert!(found.spi == 300 && found.alive.load(Relaxed) && dropped.load(Relaxed) == 0);
    drop(pinned);
    sad.tidy();
    assert_eq!(dropped.load(Relaxed), 1);
    drop(sad);
    assert_eq!(dropped.load(Relaxed), 100);
}

#[test]
fn the_table_grows_and_finds_the_same() {
    const COUNT: u32 = 100_000;
    let dropped = Arc::new(AtomicU64::new(0));
    let sad = Sad::new();
    let mut reader = sad.reader();
    for spi in 300..300 + COUNT {
        sad.insert(spi, Sa::new(spi, &dropped)).unwrap();
        // An early one and the last, at every stage of every growth.
        let pinned = sad.pin(&mut reader);
        assert!(pinned.find(300).is_some() && pinned.find(spi).is_some() && pinned.find(spi + 1).is_none());
    }
    assert_eq!(sad.len(), COUNT as usize);
    assert!(sad.memory() <= u64::from(COUNT) * 70, "{} octets", sad.memory());
    let mut seen = Vec::new();
    sad.for_each(|spi, sa| seen.push((spi, sa.spi)));
    seen.sort_unstable();
    assert!(seen.into_iter().eq((300..300 + COUNT).map(|spi| (spi, spi))));

    let spis: Vec<u32> = (0..64).map(|n| 299 + n * (COUNT / 62)).collect();
    let pinned = sad.pin(&mut reader);
    let mut found = vec![None; spis.len()];
    pinned.find_batch(&spis, &mut found);
    for (spi, found) in spis.iter().zip(found) {
        assert_eq!(found.map(|sa| sa.spi), (300..300 + COUNT).contains(spi).then_some(*spi));
    }
    drop(pinned);

    for spi in (300..300 + COUNT).step_by(2) {
        assert_eq!(sad.remove(spi).unwrap().spi, spi);
    }
    let pinned = sad.pin(&mut reader);
    assert!((300..300 + COUNT).all(|spi| pinned.find(spi).is_some() == (spi % 2 == 1)));
    drop(pinned);
    sad.tidy();
    assert_eq!(dropped.load(Relaxed), u64::from(COUNT / 2));
    drop(sad);
    assert_eq!(dropped.load(Relaxed), u64::from(COUNT));
}

/// Whoever installs and removes all the time needs no more room than for what is there at once.
#[test]
fn places_are_given_again() {
    let sad = Sad::new();
    let room = sad.memory();
    for spi in 1..=200_000u32 {
        sad.insert(spi, Arc::new(spi)).unwrap();
        if spi > 300 {
            assert_eq!(sad.remove(spi - 300).as_deref(), Some(&(spi - 300)));
        }
    }
    assert_eq!((sad.len(), sad.memory()), (300, room));
}

/// SPIs that all want the same place: the table makes room early, and says when there is none.
#[test]
fn spis_with_the_worst_of_luck() {
    // The hash multiplies by 2^32 / golden ratio; this is the inverse of that.
    let inverse = (0..5).fold(1u32, |x, _| x.wrapping_mul(2u32.wrapping_sub(x.wrapping_mul(0x9e37_79b9))));
    assert_eq!(inverse.wrapping_mul(0x9e37_79b9), 1);
    let sad = Sad::new();
    let mut reader = sad.reader();
    let spi = |n: u32| (n << 14).wrapping_mul(inverse);
    for n in 1..=168 {
        sad.insert(spi(n), Arc::new(n)).unwrap();
    }
    let pinned = sad.pin(&mut reader);
    assert!((1..=168).all(|n| pinned.find(spi(n)) == Some(&n)));
    drop(pinned);

    let sad = Sad::new();
    let spi = |n: u32| n.wrapping_mul(inverse);
    let refused = (1..1000).find(|n| sad.insert(spi(*n), Arc::new(*n)).is_err()).expect("there is an end");
    assert!(refused > 100, "{refused}");
    assert_eq!(sad.insert(spi(refused), Arc::new(0)), Err(InsertError::NoMemory { spi: spi(refused) }));
    assert_eq!(sad.len(), refused as usize - 1);
    assert!((1..refused).all(|n| sad.find(spi(n)).as_deref() == Some(&n)));
    sad.insert(5, Arc::new(0)).unwrap();
}

/// Each reader looks for SAs that are always there, and for those that come and go.
#[test]
fn a_hundred_thousand_sas_under_readers_and_writers() {
    const FIRST: u32 = 300;
    const COUNT: u32 = 100_000;
    const ROUNDS: u32 = 3;
    let dropped = Arc::new(AtomicU64::new(0));
    let mut made = 0;
    let sad = Sad::<Sa>::new();
    let done = AtomicBool::new(false);
    let comes_and_goes = |spi: u32| spi.is_multiple_of(4);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3u32)
            .map(|thread| {
                let (sad, done) = (&sad, &done);
                scope.spawn(move || {
                    let mut reader = sad.reader();
                    let (mut spi, mut found) = (thread, 0u64);
                    while !done.load(Relaxed) {
                        let pinned = sad.pin(&mut reader);
                        let spis = [(); 32].map(|()| {
                            spi = spi.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            FIRST + (spi >> 8) % (COUNT + 100)
                        });
                        let mut answers = [None; 32];
                        pinned.find_batch(&spis, &mut answers);
                        for (spi, sa) in spis.iter().zip(answers) {
                            let Some(sa) = sa else { continue };
                            assert!(sa.spi == *spi && sa.alive.load(Relaxed), "{sa:?} for {spi}");
                            found += 1;
                        }
                    }
                    found
                })
            })
            .collect();
        for spi in FIRST..FIRST + COUNT {
            sad.insert(spi, Sa::new(spi, &dropped)).unwrap();
            made += 1;
        }
        // From here on most are always there.
        let steady = scope.spawn(|| {
            let mut reader = sad.reader();
            let mut batches = 0u64;
            while !done.load(Relaxed) {
                let pinned = sad.pin(&mut reader);
                for spi in
                    (FIRST..FIRST + COUNT).filter(|spi| !comes_and_goes(*spi)).skip(batches as usize % 97).step_by(97)
                {
                    assert!(pinned.find(spi).is_some_and(|sa| sa.spi == spi), "{spi} is missing");
                }
                batches += 1;
            }
            batches
        });
        for _ in 0..ROUNDS {
            for spi in (FIRST..FIRST + COUNT).filter(|spi| comes_and_goes(*spi)) {
                assert_eq!(sad.remove(spi).unwrap().spi, spi);
                sad.insert(spi, Sa::new(spi, &dropped)).unwrap();
                made += 1;
            }
        }
        done.store(true, Relaxed);
        assert!(readers.into_iter().all(|r| r.join().unwrap() > 0) && steady.join().unwrap() > 0);
    });
    sad.tidy();
    assert_eq!(made - dropped.load(Relaxed), u64::from(COUNT), "what was removed is given back");
    assert!(sad.memory() < u64::from(COUNT) * 140, "{} octets", sad.memory());
    drop(sad);
    assert_eq!(dropped.load(Relaxed), made);
}

#[test]
fn the_newest_outbound_sa_is_used_and_the_next_takes_over() {
    let table = Outbound::new();
    let mut reader = table.reader();
    let mut current = |table: &Outbound<u64>| table.pin(&mut reader).current(7).copied();
    assert!(!table.has(7) && current(&table).is_none());
    for pair in 1..=3 {
        table.install(7, pair, Arc::new(pair));
    }
    assert_eq!((current(&table), table.alive(7)), (Some(3), 3));
    // One that is not current goes: nothing changes for senders.
    assert!(table.retire(7, 2).is_some());
    assert_eq!(current(&table), Some(3));
    assert!(table.retire(7, 2).is_none());
    // The current one goes: the next younger takes over.
    assert!(table.retire(7, 3).is_some());
    assert_eq!(current(&table), Some(1));
    assert!(table.retire(7, 1).is_some());
    assert!(!table.has(7) && current(&table).is_none());
    assert_eq!(table.alive(7), 0);
}

#[test]
fn tunnels_do_not_see_each_other() {
    let table = Outbound::new();
    let mut reader = table.reader();
    for slot in 0..100 {
        table.install(slot, 9, Arc::new(slot));
    }
    let pinned = table.pin(&mut reader);
    assert!((0..100).all(|slot| pinned.current(slot) == Some(&slot)));
    assert!((0..100).all(|slot| pinned.current_kept(slot).as_deref() == Some(&slot)));
    assert!(pinned.current(100).is_none() && pinned.current(u32::MAX).is_none());
    assert_eq!(table.retire_all(50).len(), 1);
    assert!(pinned.current(50).is_none());
    let mut seen = Vec::new();
    table.for_each(|slot, pair, sa, current| {
        assert!(current && pair == 9 && **sa == slot);
        seen.push(slot);
    });
    assert!(seen.into_iter().eq((0..100).filter(|s| *s != 50)));
}

#[test]
fn the_same_pair_again_replaces() {
    let table = Outbound::new();
    let mut reader = table.reader();
    table.install(0, 1, Arc::new("old"));
    table.install(0, 2, Arc::new("middle"));
    table.install(0, 1, Arc::new("new"));
    assert_eq!(table.alive(0), 2);
    assert_eq!(table.pin(&mut reader).current(0), Some(&"new"));
    table.retire(0, 1);
    assert_eq!(table.pin(&mut reader).current(0), Some(&"middle"));
}

#[test]
fn a_sender_never_misses_while_sas_are_replaced() {
    const SLOTS: u32 = 40;
    let dropped = Arc::new(AtomicU64::new(0));
    let table = Outbound::new();
    for slot in 0..SLOTS {
        table.install(slot, 0, Sa::new(0, &dropped));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut last = [0; SLOTS as usize];
                let mut reader = table.reader();
                while !done.load(Relaxed) {
                    let pinned = table.pin(&mut reader);
                    for (slot, last) in last.iter_mut().enumerate() {
                        let now = pinned.current(slot as u32).expect("there is always one");
                        assert!(now.spi >= *last && now.alive.load(Relaxed));
                        *last = now.spi;
                    }
                }
            })
        });
        for pair in 1..1_000u64 {
            for slot in 0..SLOTS {
                table.install(slot, pair, Sa::new(pair as u32, &dropped));
                table.retire(slot, pair - 1);
            }
        }
        done.store(true, Relaxed);
        readers.into_iter().for_each(|r| r.join().unwrap());
    });
    table.tidy();
    assert_eq!(dropped.load(Relaxed), 999 * u64::from(SLOTS));
    drop(table);
    assert_eq!(dropped.load(Relaxed), 1_000 * u64::from(SLOTS));
}
