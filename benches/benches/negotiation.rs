//! Whole negotiations between two engines in memory: main mode and quick mode, no network and no waiting.
//! What is left is what the processor has to do for both ends; the Diffie-Hellman exchange alone is beside it.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use crypto::entropy::testing::SeededEntropy;
use crypto::table::Group;
use ike::{Command, Datagram, Engine, Output};
use policy::config::Config;
use policy::time::Timestamp;
use std::collections::VecDeque;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const GROUPS: [&str; 4] = ["x25519", "ecp256", "modp2048", "modp3072"];

fn config(me: &str, peer: &str, group: &str) -> Arc<Config> {
    let net = |host: &str| format!("10.{}.0.0/16", if host.ends_with('1') { 1 } else { 2 });
    let (source, destination) = (net(me), net(peer));
    let text = format!(
        "[[tunnel]]\nname = \"t\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\nsource = \"{source}\"\n\
         destination = \"{destination}\"\naction = \"aes128-sha1\"\n\
         [[host]]\nname = \"h\"\nsource = \"{source}\"\ndestination = \"{destination}\"\ntunnel = \"t\"\n\
         [[ike]]\nname = \"i\"\nremote = \"{peer}\"\nproposals = \"aes128-sha256-{group}\"\n\
         [[auth]]\nname = \"a\"\nremote = \"{peer}\"\npreshared = \"correct-horse-battery-staple\"\n"
    );
    Arc::new(Config::parse(&text, "bench.toml").unwrap().config)
}

struct Host {
    engine: Engine,
    config: Arc<Config>,
    entropy: SeededEntropy,
    address: SocketAddr,
    installed: usize,
}

impl Host {
    fn settle(&mut self, now: Timestamp, wire: &mut VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit { local, remote, payload } => wire.push_back((local, remote, payload)),
                Output::NeedSecret { token, .. } => {
                    let secret = self.config.auths[0].preshared.clone();
                    self.engine.handle_command(now, Command::Secret { token, secret }, &mut self.entropy);
                }
                Output::InstallPair { .. } => self.installed += 1,
                _ => {}
            }
        }
    }
}

/// One negotiation; both must have installed a pair.
fn negotiate(configs: &[Arc<Config>; 2], seed: u64) {
    let now = Timestamp::from_micros(0);
    let mut hosts = [0, 1].map(|n| Host {
        engine: Engine::new(Arc::clone(&configs[n]), now),
        config: Arc::clone(&configs[n]),
        entropy: SeededEntropy::new(seed * 2 + n as u64),
        address: SocketAddr::new([192, 0, 2, n as u8 + 1].into(), 500),
        installed: 0,
    });
    let mut wire = VecDeque::new();
    let initiate = Command::Initiate { tunnel: "t".into() };
    hosts[0].engine.handle_command(now, initiate, &mut SeededEntropy::new(seed));
    hosts[0].settle(now, &mut wire);
    while let Some((from, to, payload)) = wire.pop_front() {
        let host = hosts.iter_mut().find(|host| host.address == to).unwrap();
        let datagram = Datagram { local: to, remote: from, payload: &payload };
        host.engine.handle_datagram(now, datagram, &mut host.entropy);
        host.settle(now, &mut wire);
    }
    assert_eq!(hosts.each_ref().map(|host| host.installed), [1, 1]);
}

fn negotiation(c: &mut Criterion) {
    let mut group = c.benchmark_group("negotiation");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for name in GROUPS {
        let configs = [config("192.0.2.1", "192.0.2.2", name), config("192.0.2.2", "192.0.2.1", name)];
        let mut seed = 0;
        group.bench_function(format!("caponier/{name}"), |b| {
            b.iter(|| {
                seed += 1;
                negotiate(&configs, seed);
            });
        });
        // Both ends' values and the secret that both compute: the least that any implementation has to do.
        let row = Group::from_keyword(name).unwrap();
        group.bench_function(format!("diffie_hellman/{name}"), |b| {
            let mut entropy = SeededEntropy::new(1);
            b.iter(|| {
                let (x, y) = (row.generate(&mut entropy).unwrap(), row.generate(&mut entropy).unwrap());
                let (of_x, of_y) = (x.public().to_vec(), y.public().to_vec());
                black_box((x.agree(&of_y).unwrap(), y.agree(&of_x).unwrap()));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, negotiation);
criterion_main!(benches);
