//! The packet path in memory, on one core, and two of its parts.
//!
//! One iteration is one packet. Group `pipeline`: from the clear packet to the
//! protected one and back, policies, cache, replay window and ciphers included,
//! in batches of 64; the function is direction and suite, the parameter the
//! octets of the inner packet. Group `replay`: check and commit in order.
//! Group `five_tuple`: our parser and etherparse on the same packets. Compare
//! functions within one run: the machine's speed drifts between runs.

use core::hint::black_box;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::entropy::testing::SeededEntropy;
use crypto::{EspSuite, Secret};
use datapath::Shared;
use datapath::headers::Headers;
use datapath::packet::Packet;
use datapath::pipeline::{Arrival, BATCH, Inbound, InboundOutput, Outbound, OutboundOutput};
use datapath::replay::ReplayWindow;
use etherparse::{PacketBuilder, SlicedPacket};
use policy::cache::HashKey;
use policy::config::Config;
use policy::five_tuple::Direction;
use policy::sa::{Lifetime, Mode, SaProtocol, SaSpec};
use policy::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SUITES: [&str; 3] = ["aes128-sha1", "aes128gcm16", "null-sha1"];
const SIZES: [usize; 3] = [64, 512, 1420];
const NOW: Timestamp = Timestamp::from_micros(1_000_000);

/// Host `near`, 1 or 2, of two, with its SAs.
fn host(near: u8, suite: EspSuite) -> Arc<Shared> {
    let far = 3 - near;
    let selector = format!("source = \"10.{near}.0.0/16\"\ndestination = \"10.{far}.0.0/16\"");
    let text = format!(
        "[[host]]\nname = \"h\"\n{selector}\ntunnel = \"t\"\n\
         [[tunnel]]\nname = \"t\"\ntsource = \"192.0.2.{near}\"\ntdestination = \"192.0.2.{far}\"\n{selector}\naction = \"aes128-sha1\"\n\
         [[ike]]\nname = \"i\"\nremote = \"192.0.2.{far}\"\nproposals = [\"aes128-sha1-modp2048\"]\n\
         [[auth]]\nname = \"a\"\nremote = \"192.0.2.{far}\"\npreshared = \"only-for-this-benchmark\"\n"
    );
    let config = Config::parse(&text, "benchmark").expect("the text above is a configuration").config;
    let shared = Arc::new(Shared::new(&config, HashKey::draw(&mut SeededEntropy::new(1))));
    let spec = |direction, sender: u8| SaSpec {
        spi: 0x1000 + u32::from(sender),
        direction,
        local: [192, 0, 2, near].into(),
        remote: [192, 0, 2, far].into(),
        protocol: SaProtocol::Esp,
        mode: Mode::Tunnel,
        original: None,
        suite,
        keymat: Secret::new(vec![sender; suite.keymat_len()]),
        ah: None,
        esn: false,
        anti_replay: true,
        selector: config.tunnels[0].selector.clone(),
        encapsulation: None,
        lifetime: Lifetime { seconds: 28_800, kbytes: 0 },
        own: policy::sa::OwnLimits::NONE,
        tunnel: "t".into(),
        pair: 1,
        session: None,
    };
    shared
        .install_pair(&spec(Direction::Inbound, far), &spec(Direction::Outbound, near), &[7; 16])
        .and_then(|pair| shared.activate_outbound(pair.id))
        .expect("the SAs above fit the configuration");
    shared
}

/// Packets of `len` octets, of 16 conversations.
fn clear_packets(len: usize) -> Vec<Vec<u8>> {
    (0..BATCH as u16)
        .map(|n| {
            let mut packet = Vec::new();
            let payload = vec![0; len - 28];
            let builder = PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64).udp(1000 + n % 16, 80);
            builder.write(&mut packet, &payload).expect("memory takes everything");
            packet
        })
        .collect()
}

fn packet(octets: &[u8], mut packet: Packet) -> Packet {
    packet.copy_from(octets);
    packet
}

/// Time for `packets` packets out, each batch read anew into buffers of the pool.
fn outbound(pipeline: &mut Outbound, clear: &[Vec<u8>], packets: u64) -> Duration {
    let (mut batch, mut out) = (Vec::new(), OutboundOutput::default());
    let mut spent = Duration::ZERO;
    for _ in 0..packets.div_ceil(BATCH as u64) {
        for octets in clear {
            let buffer = pipeline.buffer();
            batch.push(packet(octets, buffer));
        }
        let start = Instant::now();
        pipeline.handle_batch(&mut batch, NOW, &mut out);
        out.take_sealed(|sealed, _| pipeline.sent(black_box(sealed)));
        spent += start.elapsed();
    }
    spent
}

/// Time for `packets` packets in; they are made by the other side outside it.
fn inbound(near: &mut Outbound, far: &mut Inbound, clear: &[Vec<u8>], packets: u64) -> Duration {
    let (mut batch, mut out) = (Vec::new(), OutboundOutput::default());
    let (mut arrivals, mut input) = (Vec::new(), InboundOutput::default());
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    let mut spent = Duration::ZERO;
    for _ in 0..packets.div_ceil(BATCH as u64) {
        for octets in clear {
            let buffer = near.buffer();
            batch.push(packet(octets, buffer));
        }
        near.handle_batch(&mut batch, NOW, &mut out);
        out.take_sealed(|sealed, _| {
            let buffer = far.buffer();
            let packet = packet(sealed.packet.as_slice(), buffer);
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
        let start = Instant::now();
        far.handle_batch(&mut arrivals, NOW, &mut input);
        assert_eq!(input.deliver.len(), BATCH, "everything is delivered");
        for packet in input.deliver.drain(..) {
            far.delivered(black_box(packet));
        }
        spent += start.elapsed();
    }
    spent
}

/// `iter_custom` wants the time of `iterations`, and whole batches are timed.
fn scaled(spent: Duration, iterations: u64) -> Duration {
    spent.mul_f64(iterations as f64 / iterations.next_multiple_of(BATCH as u64) as f64)
}

fn pipeline(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    for name in SUITES {
        let suite: EspSuite = name.parse().expect("the suites above are known");
        for size in SIZES {
            let clear = clear_packets(size);
            group.throughput(Throughput::Bytes(size as u64));
            let mut near = Outbound::new(host(1, suite), 0, 4 * BATCH);
            group.bench_function(BenchmarkId::new(format!("out_{name}"), size), |b| {
                b.iter_custom(|n| scaled(outbound(&mut near, &clear, n), n));
            });
            let mut far = Inbound::new(host(2, suite), 1, 4 * BATCH);
            let mut near = Outbound::new(host(1, suite), 0, 4 * BATCH);
            group.bench_function(BenchmarkId::new(format!("in_{name}"), size), |b| {
                b.iter_custom(|n| scaled(inbound(&mut near, &mut far, &clear, n), n));
            });
        }
    }
    group.finish();
}

fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for size in [64, 1024, 65_536] {
        for (name, batch) in [("caponier", 1u32), ("caponier_batch", BATCH as u32)] {
            let window = ReplayWindow::new(size, true);
            let mut next = 1u32;
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter_custom(|n| {
                    let mut checked = Vec::with_capacity(batch as usize);
                    let start = Instant::now();
                    for _ in 0..n.div_ceil(u64::from(batch)) {
                        let locked = window.lock();
                        checked.extend((0..batch).flat_map(|i| locked.check(next.wrapping_add(i))));
                        drop(locked);
                        let mut locked = window.lock();
                        for checked in checked.drain(..) {
                            let committed = locked.commit(checked);
                            assert!(committed.is_ok(), "each number is new");
                        }
                        next = next.wrapping_add(batch);
                    }
                    start.elapsed().mul_f64(n as f64 / n.next_multiple_of(u64::from(batch)) as f64)
                });
            });
        }
    }
    group.finish();
}

fn five_tuple(c: &mut Criterion) {
    let mut ipv6 = Vec::new();
    let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(1, 2, 3, 4);
    builder.write(&mut ipv6, &[0; 64]).expect("memory takes everything");
    let ipv4 = clear_packets(100).remove(0);
    let mut group = c.benchmark_group("five_tuple");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, packet) in [("ipv4", &ipv4), ("ipv6", &ipv6)] {
        group.bench_function(BenchmarkId::new("caponier", name), |b| b.iter(|| Headers::parse(black_box(packet))));
        group.bench_function(BenchmarkId::new("etherparse", name), |b| {
            b.iter(|| SlicedPacket::from_ip(black_box(packet)).map(|p| (p.net, p.transport)));
        });
    }
    group.finish();
}

criterion_group!(benches, pipeline, replay, five_tuple);
criterion_main!(benches);
