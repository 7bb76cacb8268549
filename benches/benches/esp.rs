//! ESP packets through the cipher suites, in memory, on one core.
//!
//! Groups `esp_encrypt` and `esp_decrypt`; the function is the suite, the
//! parameter `<octets of the inner packet>x<packets in a batch>`. One iteration
//! is one packet, authentication included. Buffers are warm. Compare functions
//! within one run: the machine's speed drifts between runs.

use core::hint::black_box;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::entropy::testing::SeededEntropy;
use crypto::packet::{OpenJob, SealJob, opener, sealer};
use crypto::{Entropy, EspSuite, Secret};
use std::time::{Duration, Instant};

const SUITES: [&str; 9] = [
    "aes128-sha1",
    "aes256-sha1",
    "aes128-sha256",
    "aes256-sha512",
    "aes128ctr-sha256",
    "aes128gcm16",
    "aes256gcm16",
    "null-sha1",
    "3des-sha1",
];
const SIZES: [usize; 4] = [64, 512, 1420, 9000];
const BATCHES: [usize; 3] = [1, 8, 32];
/// Packets worked on between two looks at the clock.
const PACKETS: usize = 32;
const SEQUENCE: u64 = 0x1234_5678;

struct Sa {
    suite: EspSuite,
    keymat: Secret,
}

impl Sa {
    fn new(name: &str) -> Self {
        let suite: EspSuite = name.parse().expect("the suites above are known");
        let mut keymat = vec![0; suite.keymat_len()];
        SeededEntropy::new(1).fill(&mut keymat);
        Self { suite, keymat: Secret::new(keymat) }
    }

    /// Packets around an inner packet of `size` octets, not sealed yet.
    fn packets(&self, size: usize) -> Vec<Vec<u8>> {
        // Pad length and next header, then padding (RFC 4303 2.4).
        let payload_len = (size + 2).next_multiple_of(self.suite.alignment());
        let len = 8 + self.suite.encryption.iv_len + payload_len + self.suite.icv_len();
        (0..PACKETS)
            .map(|at| {
                let mut packet = vec![0; len];
                SeededEntropy::new(at as u64).fill(&mut packet);
                packet[4..8].copy_from_slice(&SEQUENCE.to_be_bytes()[4..]);
                packet
            })
            .collect()
    }
}

fn seal_jobs(packets: &mut [Vec<u8>]) -> Vec<SealJob<'_>> {
    packets.iter_mut().map(|packet| SealJob { packet, sequence: SEQUENCE }).collect()
}

/// The time of `iterations` packets, from rounds of [`PACKETS`] of them.
fn rounds(iterations: u64, mut round: impl FnMut() -> Duration) -> Duration {
    let rounds = iterations.div_ceil(PACKETS as u64);
    let took: Duration = (0..rounds).map(|_| round()).sum();
    took.mul_f64(iterations as f64 / (rounds * PACKETS as u64) as f64)
}

fn encrypt(c: &mut Criterion) {
    each(c, "esp_encrypt", |group, name, size, batch| {
        let sa = Sa::new(name);
        let sealer = sealer(sa.suite, &sa.keymat, &[7; 16], false).expect("keymat_len octets");
        let mut packets = sa.packets(size);
        let mut jobs = seal_jobs(&mut packets);
        group.bench_function(BenchmarkId::new(name, format!("{size}x{batch}")), |b| {
            b.iter_custom(|iterations| {
                rounds(iterations, || {
                    let start = Instant::now();
                    for batch in black_box(&mut jobs).chunks_mut(batch) {
                        sealer.seal(batch);
                    }
                    start.elapsed()
                })
            });
        });
    });
}

fn decrypt(c: &mut Criterion) {
    each(c, "esp_decrypt", |group, name, size, batch| {
        let sa = Sa::new(name);
        let sealer = sealer(sa.suite, &sa.keymat, &[7; 16], false).expect("keymat_len octets");
        let opener = opener(sa.suite, &sa.keymat, false).expect("keymat_len octets");
        let mut sealed = sa.packets(size);
        sealer.seal(&mut seal_jobs(&mut sealed));
        let mut packets = sealed.clone();
        group.bench_function(BenchmarkId::new(name, format!("{size}x{batch}")), |b| {
            b.iter_custom(|iterations| {
                rounds(iterations, || {
                    // Opening destroys the packets; making them again is not timed.
                    for (packet, sealed) in packets.iter_mut().zip(&sealed) {
                        packet.copy_from_slice(sealed);
                    }
                    let mut jobs: Vec<_> = packets
                        .iter_mut()
                        .map(|packet| OpenJob { packet, sequence: SEQUENCE, authentic: false })
                        .collect();
                    let start = Instant::now();
                    for batch in black_box(&mut jobs).chunks_mut(batch) {
                        opener.open(batch);
                    }
                    let took = start.elapsed();
                    assert!(jobs.iter().all(|job| job.authentic));
                    took
                })
            });
        });
    });
}

fn each(
    c: &mut Criterion,
    group: &str,
    mut bench: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, &'static str, usize, usize),
) {
    let mut group = c.benchmark_group(group);
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        for suite in SUITES {
            for batch in BATCHES {
                bench(&mut group, suite, size, batch);
            }
        }
    }
}

criterion_group!(benches, encrypt, decrypt);
criterion_main!(benches);
