//! Limits of SAs and of the cache, as the daemon hears of them.

use super::*;
use crate::sa::{Limit, SaEvent};
use policy::limits::LimitEvent;

#[test]
fn past_the_hard_limit_nothing_is_sent() {
    let agreement = Agreement { kbytes: 8, ..gcm() };
    let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
    for _ in 0..20 {
        a.send(&[udp_packet(true, 1000)]);
        let wire = a.on_the_wire();
        b.receive(wire);
    }
    let limit = Limit::Volume;
    let soft = Event::Sa(SaEvent::SoftLimit { pair: 1, limit });
    assert_eq!(a.events(), [soft.clone(), Event::Sa(SaEvent::HardLimit { pair: 1, limit })]);
    assert_eq!((a.totals().counter(Counter::Sent), a.drops(DropReason::SaExpired)), (8, 12));
    // The receiver has counted as much, and is not yet past its own limit.
    assert_eq!((b.events(), b.totals().counter(Counter::Received)), (vec![soft], 8));
}

#[test]
fn past_the_hard_limit_nothing_is_accepted() {
    let agreement = Agreement { kbytes: 8, ..gcm() };
    // The sender does not keep to it.
    let mut a = Host::of(&gcm(), true, true);
    let mut b = Host::of(&agreement, false, true);
    for _ in 0..20 {
        a.send(&[udp_packet(true, 1000)]);
        let wire = a.on_the_wire();
        b.receive(wire);
    }
    assert_eq!((b.totals().counter(Counter::Received), b.drops(DropReason::SaExpired)), (8, 12));
    assert_eq!(b.events().len(), 2);
}

#[test]
fn exhausted_sequence_numbers_are_counted() {
    let mut a = Host::of(&gcm(), true, true);
    a.shared.pair(1).unwrap().outbound.set_sequence(u64::from(u32::MAX) - 1);
    a.send(&some_packets(true, 3));
    assert_eq!((a.on_the_wire().len(), a.drops(DropReason::SequenceExhausted)), (1, 2));
    assert_eq!(a.events().len(), 2);
}

/// A packet of a conversation of its own.
fn conversation(n: u16) -> Vec<u8> {
    let mut packet = udp_packet(true, 60);
    packet[20..22].copy_from_slice(&n.to_be_bytes());
    packet
}

#[test]
fn at_the_hard_limit_new_conversations_are_dropped_and_old_ones_go_on() {
    let mut config = tunnel_config(&gcm(), true);
    (config.startup.spd_soft, config.startup.spd_hard) = (1, 2);
    let mut a = Host::new(&config);
    a.establish(&gcm(), true);
    let all: Vec<_> = (0..2100).map(conversation).collect();
    a.send(&all);
    assert_eq!((a.on_the_wire().len(), a.drops(DropReason::SpdHardLimit)), (2000, 100));
    let events = a.events();
    assert_eq!(events[0], Event::Cache(LimitEvent::SoftLimit { entries: 1000 }));
    assert!(events.contains(&Event::Cache(LimitEvent::HardLimit { entries: 2000 })));
    a.send(&all);
    assert_eq!((a.on_the_wire().len(), a.drops(DropReason::SpdHardLimit)), (2000, 200));

    // Raised at run time, the others go too.
    config.startup.spd_hard = 3;
    a.shared.replace_policies(&config, |_| {});
    a.send(&all);
    assert_eq!(a.on_the_wire().len(), 2100);
}

/// A flood of one policy takes no more than its share; others find room, and what it had goes on.
#[test]
fn a_policy_keeps_to_its_share_of_the_cache() {
    let mut config = tunnel_config(&gcm(), true);
    (config.startup.spd_soft, config.startup.spd_hard) = (2, 2);
    let flooded = HostPolicy { cache_share: Some(25), ..(*config.hosts[0]).clone() };
    config.hosts[0] = Arc::new(flooded);
    config.default_action = DefaultAction::Pass;
    let mut a = Host::new(&config);
    a.establish(&gcm(), true);
    let flood: Vec<_> = (0..3000).map(conversation).collect();
    a.send(&flood);
    assert_eq!((a.on_the_wire().len(), a.drops(DropReason::CacheShareLimit)), (500, 2500));
    let cookie = config.hosts[0].cookie;
    assert_eq!(a.events(), [Event::Cache(LimitEvent::ShareLimit { cookie, entries: 500 })]);
    // Others have the rest of the table, to its last place.
    let elsewhere: Vec<_> = (0..1501)
        .map(|n| {
            let mut packet = conversation(n);
            packet[16] = 99;
            packet
        })
        .collect();
    a.send(&elsewhere);
    assert_eq!((a.in_the_clear().len(), a.drops(DropReason::SpdHardLimit)), (1500, 1));
    a.send(&flood[..500]);
    assert_eq!((a.on_the_wire().len(), a.drops(DropReason::CacheShareLimit)), (500, 2500));
}
