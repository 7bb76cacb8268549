//! The part of the SPD cache that one policy may take: exact, and no loss to the others.

mod common;

use common::{flow, flow_v6, hash_key};
use policy::cache::{CacheEntry, CacheKey, Inserted, Reader, ShareUse, SpdCache};
use policy::counters::DropReason;
use policy::limits::LimitEvent::{HardLimit, ShareLimit};
use policy::limits::{LimitEvent, Limits};
use policy::spd::Decision;
use policy::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// The policy that is flooded, and its two decisions.
const FLOODED: u32 = 5;
const PROTECT: CacheEntry = CacheEntry { decision: Decision::Protect { tunnel: 7 }, cookie: FLOODED, reason: None };
const OUTSIDE: CacheEntry =
    CacheEntry { decision: Decision::Discard, cookie: FLOODED, reason: Some(DropReason::OutsideTunnelSelector) };
/// Another policy, without a share.
const PASS: CacheEntry = CacheEntry { decision: Decision::Pass, cookie: 6, reason: None };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn cache(hard: u64) -> (Arc<SpdCache>, Reader) {
    let cache = SpdCache::new(Limits { soft: u64::MAX, hard }, hash_key());
    let reader = cache.reader();
    (cache, reader)
}

/// Either family, by turns.
fn any_flow(n: u32) -> CacheKey {
    if n.is_multiple_of(2) { flow(n) } else { flow_v6(n) }
}

/// Inserts these conversations; how many were, and what was told.
fn flood(
    r: &mut Reader,
    share: Option<u8>,
    entry: CacheEntry,
    epoch: u32,
    flows: core::ops::Range<u32>,
) -> (usize, Vec<LimitEvent>) {
    let mut events = Vec::new();
    let inserted = flows
        .filter(|n| {
            let outcome = r.insert_within(share, &any_flow(*n), entry, epoch, at(0), &mut |e| events.push(e));
            assert!(
                matches!(outcome, Inserted::Inserted | Inserted::ShareLimit | Inserted::HardLimit),
                "{n}: {outcome:?}"
            );
            outcome == Inserted::Inserted
        })
        .count();
    (inserted, events)
}

fn entries_of(cache: &SpdCache, epoch: u32, cookie: u32) -> u64 {
    let mut entries = 0;
    cache.for_each(at(0), |r| entries += u64::from(r.epoch == epoch && r.entry.is_some_and(|e| e.cookie == cookie)));
    entries
}

#[test]
fn a_flood_through_one_policy_leaves_the_rest_to_the_others() {
    let (c, mut r) = cache(1000);
    // Both decisions of the policy count.
    assert_eq!(flood(&mut r, Some(25), OUTSIDE, 1, 0..100), (100, vec![]));
    let full = ShareLimit { cookie: FLOODED, entries: 250 };
    assert_eq!(flood(&mut r, Some(25), PROTECT, 1, 100..5000), (150, vec![full]));
    assert_eq!(flood(&mut r, Some(25), OUTSIDE, 1, 5000..6000), (0, vec![]), "told once");
    assert_eq!(c.shares(1), [ShareUse { cookie: FLOODED, percent: 25, limit: 250, entries: 250 }]);
    assert_eq!((c.len(), entries_of(&c, 1, FLOODED)), (250, 250));
    // What it has goes on, and the others have all the rest.
    assert!((100..250).all(|n| r.look_up(&any_flow(n), 1, at(0)) == Some(PROTECT)));
    assert_eq!(flood(&mut r, None, PASS, 1, 10_000..12_000), (750, vec![HardLimit { entries: 1000 }]));
    assert_eq!(c.len(), 1000);
    // At the hard limit a policy is refused for that, if it still has places of its own.
    assert!(r.remove(&any_flow(0)));
    assert_eq!(flood(&mut r, None, PASS, 1, 12_000..12_001), (1, vec![]));
    let mut refused = |n| r.insert_within(Some(25), &any_flow(n), PROTECT, 1, at(0), &mut |_| ());
    assert_eq!(refused(7000), Inserted::HardLimit);
    assert_eq!(c.shares(1)[0].entries, 249, "a place that was not used is given back");
}

#[test]
fn ageing_removal_and_higher_limits_make_room() {
    let (c, mut r) = cache(1000);
    let full = |entries| vec![ShareLimit { cookie: FLOODED, entries }];
    assert_eq!(flood(&mut r, Some(10), PROTECT, 1, 0..200), (100, full(100)));
    assert!((0..10).all(|n| r.remove(&any_flow(n))));
    assert_eq!(flood(&mut r, Some(10), PROTECT, 1, 200..220), (10, vec![]));
    // The rest ages out, and a refusal is told again.
    assert!((200..210).all(|n| r.look_up(&any_flow(n), 1, at(100)) == Some(PROTECT)));
    assert_eq!(c.age(at(100), Duration::from_secs(30)), 90);
    assert_eq!(c.shares(1)[0].entries, 10);
    assert_eq!(flood(&mut r, Some(10), PROTECT, 1, 300..600), (90, full(100)));
    // A share is one of the limit in force.
    c.change_limits(Limits { soft: u64::MAX, hard: 2000 }, &mut |e| panic!("{e:?}"));
    assert_eq!(flood(&mut r, Some(10), PROTECT, 1, 600..900), (100, full(200)));
    c.change_limits(Limits { soft: u64::MAX, hard: 500 }, &mut |e| panic!("{e:?}"));
    assert_eq!(flood(&mut r, Some(10), PROTECT, 1, 900..950).0, 0);
    assert_eq!(c.shares(1), [ShareUse { cookie: FLOODED, percent: 10, limit: 50, entries: 200 }]);
}

#[test]
fn other_policies_begin_anew() {
    let (c, mut r) = cache(1000);
    assert_eq!(flood(&mut r, Some(10), PROTECT, 1, 0..200).0, 100);
    // Replaced in place or made new: both count, and what is stale does not.
    assert_eq!(flood(&mut r, Some(5), PROTECT, 2, 0..40), (40, vec![]));
    assert_eq!(c.len(), 100);
    assert_eq!(flood(&mut r, Some(5), PROTECT, 2, 40..200), (10, vec![ShareLimit { cookie: FLOODED, entries: 50 }]));
    assert_eq!(c.shares(1), []);
    assert_eq!(c.clear_stale(2), 50);
    assert_eq!((c.len(), c.shares(2)[0].entries, entries_of(&c, 2, FLOODED)), (50, 50, 50));
    // Without a share there is no limit of its own.
    assert_eq!(flood(&mut r, None, PROTECT, 3, 0..200), (200, vec![]));
    assert_eq!(c.shares(3), []);
}

/// Writers, removals, sweeps and new epochs at once: never one entry too many, and none lost to the count.
#[test]
fn the_share_is_exact_under_churn() {
    const HARD: u64 = 2000;
    const SHARE: u64 = 200;
    let (c, _) = cache(HARD);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u32)
            .map(|thread| {
                let mut r = c.reader();
                scope.spawn(move || {
                    let mut seed = thread + 1;
                    for step in 0..90_000u32 {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let (key, epoch) = (any_flow((seed >> 8) % 3000), 1 + step / 30_000);
                        let entry = if (seed >> 8).is_multiple_of(5) { OUTSIDE } else { PROTECT };
                        if seed >> 30 == 0 {
                            r.remove(&key);
                        } else {
                            let _ =
                                r.insert_within(Some(10), &key, entry, epoch, at(u64::from(step / 1000)), &mut |_| ());
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut now = 0;
            while !done.load(Relaxed) {
                now += 1;
                c.age(at(now / 10), Duration::from_secs(5));
                c.clear_stale(1 + now as u32 % 3);
                for epoch in 1..=3 {
                    // A walk may see an entry, and later the one that came in its place: only the count is of one moment.
                    assert!(c.shares(epoch).iter().all(|share| share.entries <= SHARE));
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Relaxed);
    });
    c.clear_stale(3);
    let counted = c.shares(3)[0].entries;
    assert_eq!((counted, c.len()), (entries_of(&c, 3, FLOODED), entries_of(&c, 3, FLOODED)));
    let mut r = c.reader();
    assert_eq!(flood(&mut r, Some(10), PROTECT, 3, 10_000..20_000).0 as u64, SHARE - counted);
    assert_eq!(c.len(), SHARE);
}
