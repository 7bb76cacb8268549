//! Several workers over one shared state.

use super::*;
use crate::pipeline::BATCH;
use crypto::table::Integrity;

/// A worker beside the one of the host.
fn another(a: &Host, worker: usize) -> Outbound {
    Outbound::new(Arc::clone(&a.shared), worker, 4 * BATCH)
}

fn packets(count: usize) -> Vec<Packet> {
    some_packets(true, count).iter().map(|p| packet(p)).collect()
}

/// What workers that send with one SA both write, they write once for a batch.
#[test]
fn a_batch_counts_one_reference_to_its_sa_and_takes_its_numbers_at_once() {
    let a = Host::of(&gcm(), true, true);
    let sa = a.shared.pair(1).unwrap().outbound;
    let before = (Arc::strong_count(&sa), Arc::strong_count(&a.shared));
    let (mut first, mut second) = (another(&a, 2), another(&a, 3));
    let shared = Arc::strong_count(&a.shared);
    let (mut one, mut two) = (OutboundOutput::default(), OutboundOutput::default());
    first.handle_batch(&mut packets(BATCH), now(), &mut one);
    second.handle_batch(&mut packets(BATCH), now(), &mut two);
    assert_eq!((one.sealed.len(), one.runs.len(), two.sealed.len(), two.runs.len()), (BATCH, 1, BATCH, 1));
    assert_eq!(Arc::strong_count(&sa), before.0 + 2, "one for each run");
    assert_eq!(Arc::strong_count(&a.shared), shared, "none for a batch");
    for (out, from) in [(&one, 1), (&two, 1 + BATCH as u32)] {
        let numbers: Vec<_> =
            out.sealed.iter().map(|s| u32::from_be_bytes(s.packet.as_slice()[4..8].try_into().unwrap())).collect();
        assert_eq!(numbers, (from..from + BATCH as u32).collect::<Vec<_>>());
    }
    one.take_sealed(|sealed, _| first.sent(sealed));
    two.take_sealed(|sealed, _| second.sent(sealed));
    assert_eq!(Arc::strong_count(&sa), before.0);
    // Each has counted in a block of its own, and their lines are apart.
    let block = |n| a.shared.counters.worker(n);
    assert_eq!([2, 3].map(|n| block(n).counter(Counter::Sent)), [BATCH as u64; 2]);
    let places = [2, 3].map(|n| core::ptr::from_ref(block(n)).addr());
    assert!(places.iter().all(|place| place % 128 == 0) && places[1] - places[0] >= 128);
}

/// Batches are protected side by side and sent in the order of their numbers, whatever becomes of their packets.
#[test]
fn batches_of_one_sa_are_sent_in_turn() {
    let a = Host::of(&gcm(), true, true);
    a.shared.send_in_turn();
    let (mut first, mut second) = (another(&a, 2), another(&a, 3));
    let (mut one, mut two) = (OutboundOutput::default(), OutboundOutput::default());
    first.handle_batch(&mut packets(3), now(), &mut one);
    second.handle_batch(&mut packets(5), now(), &mut two);
    let has_come = |out: &OutboundOutput| out.runs[0].turn.as_ref().unwrap().has_come();
    assert!(has_come(&one) && !has_come(&two));
    one.take_sealed(|sealed, _| first.send_failed(sealed));
    assert!(has_come(&two));
    // Nobody waits for a batch that came to nothing, or for a worker that has gone.
    let mut none = OutboundOutput::default();
    first.handle_batch(&mut Vec::new(), now(), &mut none);
    assert!(none.runs.is_empty());
    drop(two);
    second.handle_batch(&mut packets(1), now(), &mut none);
    assert!(has_come(&none));
}

/// The AH of a bundle has the numbers of its ESP: two workers cannot take them in different orders.
#[test]
fn ah_around_esp_has_its_numbers() {
    let agreement = Agreement { ah_outside: Integrity::from_keyword("sha256"), ..gcm() };
    let mut a = Host::of(&agreement, true, true);
    a.send(&some_packets(true, 3));
    a.send(&some_packets(true, 2));
    let sa = a.shared.pair(1).unwrap().outbound;
    assert_eq!((sa.sequence(), sa.outside().unwrap().sequence()), (5, 5));
    for (sealed, number) in a.out.sealed.iter().zip(1..) {
        assert_eq!(crate::ah::place(sealed.packet.as_slice()).unwrap().sequence, number);
    }
}
