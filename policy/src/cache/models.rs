//! Models for loom, which tries every order in which the threads' reads and writes may take effect:
//! `tests/models`.
//!
//! What must hold: a look-up returns a value that was stored for exactly its key, or nothing.

use super::bucket::Bucket;
use super::growing::{Growing, View};
use super::key::HashKey;
use super::pages::Zeroable;
use loom::sync::Arc;
use loom::thread;

const ONE: [u64; 2] = [1, 1];
const OTHER: [u64; 2] = [2, 2];

fn bucket() -> Arc<Bucket<2, 1>> {
    Arc::new(Bucket::zero())
}

/// All orders with up to three switches away from a thread that could go on: more take minutes.
fn model(check: impl Fn() + Send + Sync + 'static) {
    model_of(3, check);
}

/// All orders with up to so many switches.
fn model_of(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(check);
}

#[test]
fn a_reader_never_mixes_two_entries_of_a_place() {
    model(|| {
        let bucket = bucket();
        bucket.put(&ONE, 11, |_| ());
        let writer = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.replace(0, &OTHER, 22))
        };
        let (one, other) = (bucket.find(&ONE).value, bucket.find(&OTHER).value);
        assert!([0, 11].contains(&one), "{one}");
        assert!([0, 22].contains(&other), "{other}");
        // Neither is a value of the other's key, nor one of two halves of keys.
        assert_eq!(bucket.find(&[1, 2]).value, 0);
        assert_eq!(bucket.find(&[2, 1]).value, 0);
        writer.join().unwrap();
        assert_eq!((bucket.find(&ONE).value, bucket.find(&OTHER).value), (0, 22));
    });
}

#[test]
fn a_place_that_is_taken_and_given_again_is_never_seen_as_another() {
    model(|| {
        let bucket = bucket();
        bucket.put(&ONE, 11, |_| ());
        let writer = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || {
                bucket.take(0);
                bucket.put(&OTHER, 22, |_| ())
            })
        };
        assert!([0, 11].contains(&bucket.find(&ONE).value));
        writer.join().unwrap();
    });
}

#[test]
fn a_note_of_use_does_not_bring_an_entry_back() {
    model(|| {
        let bucket = bucket();
        bucket.put(&ONE, 11, |_| ());
        let writer = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.take(0))
        };
        bucket.exchange_value(0, 11, 12);
        writer.join().unwrap();
        assert_eq!(bucket.find(&ONE).value, 0);
    });
}

#[test]
fn two_writers_do_not_share_a_place() {
    model(|| {
        let bucket: Arc<Bucket<2, 2>> = Arc::new(Bucket::zero());
        let writer = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.put(&ONE, 11, |_| ()))
        };
        let ours = bucket.put(&OTHER, 22, |_| ());
        assert_ne!(writer.join().unwrap(), ours);
        assert_eq!((bucket.find(&ONE).value, bucket.find(&OTHER).value), (11, 22));
    });
}

/// An entry is moved to the larger table while somebody looks for it and somebody adds another.
#[test]
fn growth_loses_nothing_and_invents_nothing() {
    // With three it takes a minute.
    model_of(2, || {
        let secret = HashKey::of_tests();
        let growing: Arc<Growing<2, 1>> = Arc::new(Growing::new().unwrap());
        let mut view = View::new(&growing, None);
        let (one, other) = (secret.hash(&ONE), secret.hash(&OTHER));
        assert!(growing.group(one, &secret, &mut view).put(one, &ONE, 11));
        growing.grow(0).unwrap();
        let writer = {
            let (growing, secret) = (Arc::clone(&growing), secret.clone());
            thread::spawn(move || {
                let mut view = View::new(&growing, None);
                assert!(growing.group(other, &secret, &mut view).put(other, &OTHER, 22));
            })
        };
        view.refresh(&growing);
        let found = view.find(one, &ONE).0.value;
        assert!([0, 11].contains(&found), "{found}");
        let found = view.find(other, &OTHER).0.value;
        assert!([0, 22].contains(&found), "{found}");
        writer.join().unwrap();
        view.refresh(&growing);
        assert_eq!((view.find(one, &ONE).0.value, view.find(other, &OTHER).0.value), (11, 22));
    });
}
