use super::*;
use crate::testing::{Agreement, suite};

fn now() -> Timestamp {
    Timestamp::from_micros(5)
}

/// The near side's SAs.
fn sas(kbytes: u32, esn: bool) -> (Arc<InboundSa>, Arc<OutboundSa>) {
    let agreement = Agreement { kbytes, esn, ..Agreement::new(suite("aes128gcm16")) };
    let [near, _] = agreement.sas();
    near
}

#[test]
fn sequence_numbers_begin_at_one_and_never_wrap() {
    let (_, sa) = sas(0, false);
    let mut events = Vec::new();
    assert_eq!(sa.take_sequences(3, &mut |e| events.push(e)), 1..4);
    sa.set_sequence(u64::from(u32::MAX) - 2);
    assert_eq!(sa.take_sequences(5, &mut |e| events.push(e)), 0xffff_fffe..0x1_0000_0000);
    assert!(sa.take_sequences(1, &mut |e| events.push(e)).is_empty());
    assert!(sa.take_sequences(1, &mut |e| events.push(e)).is_empty());
    let limit = Limit::Sequence;
    assert_eq!(events, [SaEvent::SoftLimit { pair: 1, limit }, SaEvent::HardLimit { pair: 1, limit }]);
}

#[test]
fn the_soft_sequence_limit_comes_once_and_in_time() {
    let (_, sa) = sas(0, false);
    let soft = u64::from(u32::MAX) - SEQUENCE_RESERVE;
    sa.set_sequence(soft - 10);
    let mut events = Vec::new();
    let mut take = |n| sa.take_sequences(n, &mut |e| events.push(e)).count();
    assert_eq!((take(9), take(1), take(100)), (9, 1, 100));
    assert_eq!(events, [SaEvent::SoftLimit { pair: 1, limit: Limit::Sequence }]);
}

#[test]
fn extended_sequence_numbers_pass_32_bits_and_end_too() {
    let (_, sa) = sas(0, true);
    let mut events = Vec::new();
    sa.set_sequence(u64::from(u32::MAX));
    assert_eq!(sa.take_sequences(2, &mut |e| events.push(e)), 0x1_0000_0000..0x1_0000_0002);
    assert_eq!(events, []);
    sa.set_sequence(u64::MAX - 3);
    assert_eq!(sa.take_sequences(9, &mut |e| events.push(e)).count(), 2);
    assert!(sa.take_sequences(9, &mut |e| events.push(e)).is_empty());
    assert_eq!(events.len(), 2);
}

#[test]
fn volume_ends_both_softly_and_hard_once_per_pair() {
    let (inbound, outbound) = sas(8, false);
    let mut events = Vec::new();
    let mut charge = |len: usize| outbound.charge([len].into_iter(), now(), &mut |e| events.push(e));
    assert_eq!(charge(7 * 1024 - 1), 1);
    assert_eq!(charge(1), 1);
    assert_eq!(charge(1024), 1);
    // One octet more than there is; and after that not even none.
    assert_eq!(charge(1), 0);
    assert_eq!(charge(0), 0);
    let limit = Limit::Volume;
    assert_eq!(events, [SaEvent::SoftLimit { pair: 1, limit }, SaEvent::HardLimit { pair: 1, limit }]);
    assert!(outbound.is_expired() && !inbound.is_expired());
    assert_eq!((outbound.octets(), outbound.packets(), outbound.last_use()), (8 * 1024, 3, now()));

    // The other direction has a volume of its own, but the daemon knows already.
    let mut again = Vec::new();
    assert_eq!(inbound.charge([9000].into_iter(), now(), &mut |e| again.push(e)), 0);
    assert!(inbound.is_expired());
    assert_eq!(again, []);
}

#[test]
fn a_batch_is_charged_as_far_as_the_volume_reaches() {
    let (_, sa) = sas(8, false);
    let lens = [4096, 4096, 1, 1];
    assert_eq!(sa.charge(lens.into_iter(), now(), &mut |_| {}), 2);
    assert_eq!(sa.octets(), 8192);
}

#[test]
fn packets_end_it_like_octets() {
    let agreement = Agreement { packets: 100, ..Agreement::new(suite("aes128gcm16")) };
    let [(_, outbound), _] = agreement.sas();
    let mut events = Vec::new();
    let mut charge = |packets: usize| outbound.charge(vec![10; packets].into_iter(), now(), &mut |e| events.push(e));
    assert_eq!((charge(87), charge(1), charge(20), charge(1)), (87, 1, 12, 0));
    let limit = Limit::Packets;
    assert_eq!(events, [SaEvent::SoftLimit { pair: 1, limit }, SaEvent::HardLimit { pair: 1, limit }]);
    assert_eq!((outbound.packets(), outbound.octets(), outbound.is_expired()), (100, 1000, true));
}

#[test]
fn workers_never_charge_more_packets_than_there_are() {
    let agreement = Agreement { packets: 1000, kbytes: 1024, ..Agreement::new(suite("aes128gcm16")) };
    let [(_, sa), _] = agreement.sas();
    let charged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    charged.fetch_add(sa.charge([10, 10, 10].into_iter(), now(), &mut |_| {}) as u64, Relaxed);
                }
            });
        }
    });
    assert_eq!((charged.into_inner(), sa.packets(), sa.octets(), sa.is_expired()), (1000, 1000, 10_000, true));
}

#[test]
fn no_volume_no_limit() {
    let (_, sa) = sas(0, false);
    let mut events = Vec::new();
    for _ in 0..10 {
        assert_eq!(sa.charge([usize::MAX >> 8].into_iter(), now(), &mut |e| events.push(e)), 1);
    }
    assert_eq!(events, []);
}

#[test]
fn workers_never_charge_more_than_the_volume_nor_repeat_a_number() {
    let (_, sa) = sas(64, false);
    let (charged, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            for _ in 0..1000 {
                let count = sa.charge([100, 60].into_iter(), now(), &mut |_| {
                    told.fetch_add(1, Relaxed);
                });
                charged.fetch_add([0, 100, 160][count], Relaxed);
                mine.extend(sa.take_sequences(count, &mut |_| {}));
            }
            mine
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    assert_eq!(charged.into_inner(), sa.octets());
    assert!(sa.octets() <= 64 * 1024 && sa.is_expired());
    assert_eq!(told.into_inner(), 2);
    all.sort_unstable();
    assert!(all.windows(2).all(|w| w[0] != w[1]), "a sequence number was given out twice");
}

#[test]
fn what_is_not_a_pair_is_refused() {
    let (inbound, outbound) = Agreement::new(suite("aes128-sha1")).specs(true);
    let refused = |i: &SaSpec, o: &SaSpec| pair(i, o, 0, &[0; 16], 64).err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(refused(&inbound, &outbound), "");
    assert!(refused(&outbound, &inbound).contains("direction is wrong"));
    let other = SaSpec { pair: 9, ..outbound.clone() };
    assert!(refused(&inbound, &other).contains("pair is wrong"));
    let other = SaSpec { tunnel: "another".into(), ..outbound.clone() };
    assert!(refused(&inbound, &other).contains("tunnel is wrong"));
    let other = SaSpec { spi: 255, ..outbound.clone() };
    assert!(refused(&inbound, &other).contains("0xff is reserved"));
    let other = SaSpec { remote: [0u16; 8].into(), ..outbound.clone() };
    assert!(refused(&inbound, &other).contains("different families"));
    let other = SaSpec { keymat: Secret::new(vec![0; 3]), ..outbound.clone() };
    assert!(refused(&inbound, &other).contains("key material"));
}

#[test]
fn keys_do_not_stay_in_the_specification() {
    let (inbound, outbound) = sas(0, false);
    assert!(inbound.spec().keymat.is_empty() && outbound.spec().keymat.is_empty());
    assert_eq!(format!("{outbound:?}"), "OutboundSa(0x1001 aes128gcm16)");
}

#[test]
fn hot_parts_share_no_line_with_cold_ones() {
    assert_eq!((align_of::<InboundHot>(), align_of::<OutboundHot>()), (128, 128));
    assert_eq!((size_of::<InboundHot>() % 128, size_of::<OutboundHot>() % 128), (0, 0));
}

#[test]
fn the_inner_mtu_follows_the_path() {
    let (_, sa) = sas(0, false);
    assert_eq!((sa.path_mtu(), sa.inner_mtu()), (1500, 1446));
    sa.set_path_mtu(1400);
    assert_eq!(sa.inner_mtu(), 1346);
}

#[test]
fn without_anti_replay_sequence_numbers_begin_again_after_the_last() {
    let (inbound, outbound) = Agreement::new(suite("aes128-sha1")).specs(true);
    let manual = |spec: &SaSpec| SaSpec { anti_replay: false, ..spec.clone() };
    assert!(pair(&manual(&inbound), &outbound, 0, &[0; 16], 64).is_err());
    let (inbound, outbound) = pair(&manual(&inbound), &manual(&outbound), 0, &[0; 16], 64).unwrap();
    assert_eq!(inbound.window().size(), 0);
    outbound.set_sequence(u64::from(u32::MAX) - 1);
    let mut events = Vec::new();
    let taken = outbound.take_sequences(4, &mut |e| events.push(e));
    // As packets carry them.
    assert_eq!(taken.map(|sequence| sequence as u32).collect::<Vec<_>>(), [u32::MAX, 0, 1, 2]);
    assert_eq!(events, []);
}
