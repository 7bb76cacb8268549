//! Main modes that cross.

use super::Fate::{Arrives, Held, Lost};
use super::Message::Quick;
use super::*;

#[test]
fn main_modes_at_once_from_nothing() {
    for seed in SEEDS {
        let (a, b) = sides();
        let mut w = World::of(&[(a.config(), a.me), (b.config(), b.me)], seed);
        w.initiate(0);
        w.initiate(1);
        w.seconds(60);
        assert_eq!(removed(&w), (0, 0), "seed {seed}: one pair was made");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn phase_1_rekeys_at_once() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        rekey_isakmp(&mut w, 0);
        rekey_isakmp(&mut w, 1);
        without_a_gap(&mut w, 60);
        assert_eq!(removed(&w), (0, 0), "seed {seed}: pairs outlive their ISAKMP SA");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn phase_1_rekey_crosses_a_quick_mode() {
    for seed in SEEDS {
        for (renews, rekeys) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut w = world(seed, true);
            // The quick mode begins under the old ISAKMP SA and ends when the new one is there.
            let kept =
                wire(&mut w, |_, message, before| if (message, before) == (Quick(2), 0) { Held } else { Arrives });
            rekey(&mut w, rekeys);
            rekey_isakmp(&mut w, renews);
            w.run(Duration::from_millis(300));
            release(&mut w, &kept);
            without_a_gap(&mut w, 60);
            assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
            ends_with_one_pair(&mut w);
        }
    }
}

#[test]
fn reauthentication_of_both_while_both_rekey() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        for host in 0..2 {
            rekey_isakmp(&mut w, host);
            rekey(&mut w, host);
        }
        without_a_gap(&mut w, 90);
        assert_eq!(removed(&w), (1, 1), "seed {seed}: the old pair and no other");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn quick_mode_under_an_isakmp_sa_that_is_replaced() {
    for rekeys in 0..2 {
        let mut w = world(1, true);
        // Message 2 is lost for 10 s: the old SA, which would go after 5, stays as long as it is needed.
        let start = w.now;
        let mut count = 0;
        wire(&mut w, move |_, message, _| {
            count += usize::from(message == Quick(2));
            if message == Quick(2) && count <= 5 { Lost } else { Arrives }
        });
        rekey(&mut w, rekeys);
        rekey_isakmp(&mut w, 0);
        w.seconds(6);
        assert!(w.hosts.iter().all(|h| h.engine.isakmp_sas().len() == 2), "the old one is in use");
        without_a_gap(&mut w, 40);
        assert_eq!(removed(&w), (1, 1), "since {start:?}: the old pair and no other");
        ends_with_one_pair(&mut w);
    }
}

#[test]
fn quick_mode_under_an_isakmp_sa_that_is_being_deleted() {
    for seed in SEEDS {
        let mut w = world(seed, true);
        // A deletes everything while message 1 of B comes: it is of no SA any more.
        rekey(&mut w, 1);
        w.run(Duration::from_millis(5));
        delete_peer(&mut w, 0);
        w.seconds(1);
        assert!(w.a().engine.discarded()[&Discarded::UnknownSa] > 0);
        // B wants its pair still, and begins anew.
        ends_with_one_pair(&mut w);
    }
}

/// The initiator's cookies of the ISAKMP SAs that a host means to keep.
fn chosen(w: &World, host: usize) -> Vec<[u8; 8]> {
    let sas = w.hosts[host].engine.isakmp_sas();
    sas.iter().filter(|sa| !sa.retiring).map(|sa| sa.initiator_cookie).collect()
}

/// As fast as the two can answer, all at one time: what came first is not to be told by the clock.
#[test]
fn main_modes_at_one_time_from_nothing() {
    for seed in SEEDS {
        for first in 0..2 {
            let (a, b) = sides();
            let mut w = World::of(&[(a.config(), a.me), (b.config(), b.me)], seed);
            w.wire = Box::new(|p| vec![(Duration::ZERO, p.clone())]);
            w.initiate(first);
            w.initiate(1 - first);
            w.run(Duration::ZERO);
            w.assert_mirror();
            // Each has said INITIAL-CONTACT, and it takes nothing that was made with it.
            assert!(w.hosts.iter().all(|h| h.engine.isakmp_sas().len() == 2), "seed {seed}: {}", w.story());
            assert_eq!((chosen(&w, 0).len(), chosen(&w, 0)), (1, chosen(&w, 1)), "seed {seed}");
            w.seconds(60);
            assert_eq!(removed(&w), (0, 0), "seed {seed}: one pair was made");
            ends_with_one_pair(&mut w);
        }
    }
}

/// One side may have seen the end of the other's main mode before it begins its own, while to the other they cross:
/// then they choose differently at first.
#[test]
fn a_main_mode_begins_at_any_time_of_the_peers() {
    let mut alike = [0; 2];
    for seed in SEEDS {
        for ms in (0..150).step_by(5) {
            let mut w = world(seed, true);
            rekey_isakmp(&mut w, 0);
            w.run(Duration::from_millis(ms));
            rekey_isakmp(&mut w, 1);
            w.run(Duration::from_millis(200));
            assert_eq!((chosen(&w, 0).len(), chosen(&w, 1).len()), (1, 1), "seed {seed}, {ms} ms");
            alike[usize::from(chosen(&w, 0) == chosen(&w, 1))] += 1;
            without_a_gap(&mut w, 60);
            assert_eq!(removed(&w), (0, 0), "seed {seed}, {ms} ms: pairs outlive their ISAKMP SA");
            ends_with_one_pair(&mut w);
        }
    }
    assert!(alike[0] > 0 && alike[1] > alike[0], "{alike:?}");
}

/// Whether there is a NAT is not authenticated: a vendor ID that was damaged on its way hides it, for one ISAKMP SA.
#[test]
fn one_of_two_isakmp_sas_does_not_know_of_the_nat() {
    let (a, b) = sides();
    let force = |side: Side| Side { ike_extra: "nat_traversal = \"force\"".into(), ..side };
    let damage = |w: &mut World| w.wire = support::without_vendor_id(support::RFC_3947);
    for (a, b) in [(force(a.clone()), force(b.clone())), (force(a.clone()), b.clone()), (a, force(b))] {
        for which in 0..2 {
            for renews in [&[0][..], &[1], &[0, 1]] {
                let mut w = World::of(&[(a.config(), a.me), (b.config(), b.me)], 1);
                if which == 0 {
                    damage(&mut w);
                }
                w.initiate(0);
                w.seconds(1);
                w.assert_one_pair();
                w.wire = support::lossless();
                if which == 1 {
                    damage(&mut w);
                }
                renews.iter().for_each(|&host| rekey_isakmp(&mut w, host));
                w.seconds(1);
                w.wire = support::lossless();
                let nats: Vec<_> = w.a().engine.isakmp_sas().iter().map(|sa| sa.nat).collect();
                assert!(nats.len() > 1 && nats[0] != nats[1], "{nats:?}");
                without_a_gap(&mut w, 60);
                assert_eq!(removed(&w), (0, 0), "pairs outlive their ISAKMP SA");
                ends_with_one_pair(&mut w);
            }
        }
    }
}
