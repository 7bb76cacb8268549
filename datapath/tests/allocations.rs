//! In the steady state nothing is allocated: not for a packet, not for a batch, whichever way it goes.
//!
//! One test alone, since the count is that of the whole process.

#![allow(clippy::unwrap_used)]

mod lab;

use crypto::entropy::testing::SeededEntropy;
use crypto::{Entropy, EspSuite, Secret};
use datapath::Shared;
use datapath::offload::coalesce::Coalescer;
use datapath::offload::segment::Segments;
use datapath::offload::{Kind, VirtioHeader};
use datapath::packet::Packet;
use datapath::pipeline::{Arrival, BATCH, Inbound, InboundOutput, Outbound, OutboundOutput};
use etherparse::PacketBuilder;
use lab::{Lab, Layout};
use policy::cache::HashKey;
use policy::config::Config;
use policy::five_tuple::Direction;
use policy::sa::{Lifetime, Mode, OwnLimits, SaProtocol, SaSpec};
use policy::time::Timestamp;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);
/// Batches before the count begins: every list has its length then, and every buffer of a pool has been used.
const WARM: usize = 20;
const BATCHES: usize = 100;

/// Allocations, and lists that grew, while something ran.
fn allocations(run: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    run();
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    for suite in ["aes128-sha1", "aes128gcm16", "aes256-sha256", "3des-sha1", "null-sha1"] {
        pipelines(suite);
    }
    offloads();
    whole_path();
}

/// Host `near`, 1 or 2, of two, with its SAs.
fn host(near: u8, suite: EspSuite) -> Arc<Shared> {
    let far = 3 - near;
    let selector = format!("source = \"10.{near}.0.0/16\"\ndestination = \"10.{far}.0.0/16\"");
    let text = format!(
        "[[host]]\nname = \"h\"\n{selector}\ntunnel = \"t\"\n\
         [[tunnel]]\nname = \"t\"\ntsource = \"192.0.2.{near}\"\ntdestination = \"192.0.2.{far}\"\n{selector}\naction = \"aes128-sha1\"\n\
         [[ike]]\nname = \"i\"\nremote = \"192.0.2.{far}\"\nproposals = [\"aes128-sha1-modp2048\"]\n\
         [[auth]]\nname = \"a\"\nremote = \"192.0.2.{far}\"\npreshared = \"only-for-this-test\"\n"
    );
    let config = Config::parse(&text, "test").unwrap().config;
    let shared = Arc::new(Shared::new(&config, HashKey::draw(&mut SeededEntropy::new(1))));
    shared.send_in_turn();
    let spec = |direction, sender: u8| SaSpec {
        spi: 0x1000 + u32::from(sender),
        direction,
        local: [192, 0, 2, near].into(),
        remote: [192, 0, 2, far].into(),
        protocol: SaProtocol::Esp,
        mode: Mode::Tunnel,
        original: None,
        suite,
        keymat: {
            let mut keymat = vec![0; suite.keymat_len()];
            SeededEntropy::new(sender.into()).fill(&mut keymat);
            Secret::new(keymat)
        },
        ah: None,
        esn: false,
        anti_replay: true,
        selector: config.tunnels[0].selector.clone(),
        encapsulation: None,
        lifetime: Lifetime { seconds: 28_800, kbytes: 0 },
        own: OwnLimits::NONE,
        tunnel: "t".into(),
        pair: 1,
        session: None,
    };
    let pair = shared.install_pair(&spec(Direction::Inbound, far), &spec(Direction::Outbound, near), &[7; 16]).unwrap();
    shared.activate_outbound(pair.id).unwrap();
    shared
}

/// Packets of several conversations and lengths.
fn clear_packets() -> Vec<Vec<u8>> {
    let packet = |n: u16| {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64).udp(1000 + n % 16, 80);
        builder.write(&mut packet, &vec![0; usize::from(n * 131 % 1400)]).unwrap();
        packet
    };
    (0..BATCH as u16).map(packet).collect()
}

fn pipelines(suite: &str) {
    let parsed: EspSuite = suite.parse().unwrap();
    let clear = clear_packets();
    let mut near = Outbound::new(host(1, parsed), 0, 4 * BATCH);
    let mut far = Inbound::new(host(2, parsed), 1, 4 * BATCH);
    let (mut batch, mut out) = (Vec::new(), OutboundOutput::default());
    let (mut arrivals, mut input) = (Vec::new(), InboundOutput::default());
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    let mut round = |_| {
        for octets in &clear {
            let mut packet = near.buffer();
            packet.copy_from(octets);
            batch.push(packet);
        }
        near.handle_batch(&mut batch, NOW, &mut out);
        out.take_sealed(|sealed, _| {
            let mut packet = far.buffer();
            packet.copy_from(sealed.packet.as_slice());
            arrivals.push(Arrival {
                packet,
                local: address,
                remote: address,
                encapsulated: false,
                traffic_class: 0,
                hop_limit: 64,
                protocol: SaProtocol::Esp,
            });
            near.sent(sealed);
        });
        far.handle_batch(&mut arrivals, NOW, &mut input);
        assert_eq!(input.deliver.len(), BATCH);
        input.deliver.drain(..).for_each(|packet| far.delivered(packet));
    };
    (0..WARM).for_each(&mut round);
    assert_eq!(allocations(|| (0..BATCHES).for_each(&mut round)), 0, "{suite}");
}

/// A super-packet cut, and its segments put together again.
fn offloads() {
    let mut whole = Vec::new();
    let builder = PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64).tcp(1, 2, 3, 4).ack(5);
    builder.write(&mut whole, &[7; 40_000]).unwrap();
    let mut segments: Vec<Packet> = (0..32).map(|_| Packet::new()).collect();
    let mut coalescer = Coalescer::default();
    let mut round = |_| {
        let mut cut = Segments::new(&whole, Kind::Tcp4, 1400).unwrap();
        let mut count = 0;
        while cut.next_into(&mut segments[count]) {
            count += 1;
        }
        assert_eq!(count, 29);
        coalescer.plan(&segments[..count], true, true);
        let groups = coalescer.groups(&segments[..count]).map(|(_, places)| places.count());
        assert!(groups.eq([29]));
        assert_ne!(VirtioHeader::default().encode().len(), 0);
    };
    (0..WARM).for_each(&mut round);
    assert_eq!(allocations(|| (0..BATCHES).for_each(&mut round)), 0, "offloads");
}

/// From socket to socket, through two packet paths with their threads and system calls.
fn whole_path() {
    let Some(lab) = Lab::new("allocations") else { return };
    for udp in [true, false] {
        let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp };
        let [a, b] = lab.sides(layout, 1400);
        a.establish(&b, layout, 1);
        let bound = |side: &lab::Side| {
            let socket = side.inside(|| UdpSocket::bind((side.inner(layout), 0))).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        };
        let (near, far) = (bound(&a), bound(&b));
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        let (octets, mut buffer) = ([7; 1300], [0; 2000]);
        let mut round = |_| {
            for (from, to) in [(&near, &far), (&far, &near)] {
                (0..20).for_each(|_| assert_eq!(from.send(&octets).unwrap(), 1300));
                (0..20).for_each(|_| assert_eq!(to.recv(&mut buffer).unwrap(), 1300));
            }
        };
        (0..3 * WARM).for_each(&mut round);
        let count = allocations(|| (0..BATCHES).for_each(&mut round));
        // Now and then the packet path looks at its paths, and that is all.
        assert!(count < 50, "{count} allocations for {} packets", 40 * BATCHES);
    }
}
