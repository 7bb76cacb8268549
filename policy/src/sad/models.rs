//! Models for loom, see `cache/models.rs`:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p policy --lib models`.
//!
//! What must hold: a look-up finds the SA with its SPI or none; one that is there all the time is
//! found; and no SA is dropped while a reader uses it, which loom sees by the number in it.

use super::{Outbound, Sad};
use loom::sync::Arc as LoomArc;
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;
use std::sync::Arc;

/// An SA whose use and end loom watches: all uses must come before the end, and be seen to.
struct Sa(AtomicU32);

impl Sa {
    fn new(spi: u32) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(spi)))
    }

    fn use_it(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Drop for Sa {
    fn drop(&mut self) {
        // Not an atomic access: loom wants every other one to happen before it.
        self.0.with_mut(|spi| *spi = 0);
    }
}

/// All orders with up to so many switches away from a thread that could go on.
fn model(switches: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(switches);
    model.check(check);
}

/// Looks up twice in one batch, and uses what was found at its end.
fn look_up(sad: &Sad<Sa>, spi: u32) -> Option<u32> {
    let mut reader = sad.reader();
    let pinned = sad.pin(&mut reader);
    let found = [pinned.find(spi), pinned.find(spi)];
    let used = found.map(|sa| sa.map(Sa::use_it));
    assert!(used.iter().flatten().all(|s| *s == spi), "{used:?}");
    used[0]
}

#[test]
fn an_sa_is_whole_when_it_is_found_and_lives_as_long_as_it_is_used() {
    model(3, || {
        let sad = LoomArc::new(Sad::new());
        let writer = {
            let sad = LoomArc::clone(&sad);
            thread::spawn(move || {
                sad.insert(7, Sa::new(7)).unwrap();
                assert!(sad.remove(7).is_some());
                sad.tidy();
            })
        };
        look_up(&sad, 7);
        writer.join().unwrap();
        assert!(look_up(&sad, 7).is_none());
        sad.tidy();
    });
}

#[test]
fn a_place_that_another_sa_gets_is_never_taken_for_the_first() {
    model(3, || {
        let sad = LoomArc::new(Sad::new());
        sad.insert(7, Sa::new(7)).unwrap();
        let writer = {
            let sad = LoomArc::clone(&sad);
            thread::spawn(move || {
                // There and back: the SPI alone would not tell what was there in between.
                drop(sad.remove(7));
                sad.insert(8, Sa::new(8)).unwrap();
                drop(sad.remove(8));
                sad.insert(7, Sa::new(7)).unwrap();
            })
        };
        look_up(&sad, 7);
        writer.join().unwrap();
        assert_eq!((look_up(&sad, 7), look_up(&sad, 8)), (Some(7), None));
    });
}

/// The third SA makes the table grow, and copies the others.
#[test]
fn growth_hides_no_sa_from_any_reader() {
    model(2, || {
        let sad = LoomArc::new(Sad::new());
        for spi in [7, 8, 9] {
            sad.insert(spi, Sa::new(spi)).unwrap();
        }
        let writer = {
            let sad = LoomArc::clone(&sad);
            thread::spawn(move || {
                drop(sad.remove(9));
                sad.tidy();
            })
        };
        assert_eq!(look_up(&sad, 7), Some(7));
        look_up(&sad, 9);
        writer.join().unwrap();
        assert_eq!((look_up(&sad, 8), look_up(&sad, 9)), (Some(8), None));
    });
}

#[test]
fn a_tunnel_that_changes_its_sa_always_has_one_that_lives() {
    model(3, || {
        let table = LoomArc::new(Outbound::new());
        table.install(0, 1, Sa::new(1));
        let writer = {
            let table = LoomArc::clone(&table);
            thread::spawn(move || {
                table.install(0, 2, Sa::new(2));
                drop(table.retire(0, 1));
            })
        };
        let mut reader = table.reader();
        let pinned = table.pin(&mut reader);
        let (first, then) = (pinned.current(0).unwrap(), pinned.current(0).unwrap());
        assert!(first.use_it() <= then.use_it());
        drop(pinned);
        writer.join().unwrap();
    });
}
