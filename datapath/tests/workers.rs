//! Several workers: flows between two network namespaces, and what sockets share out.
//!
//! Needs what `namespaces.rs` needs.

#![allow(clippy::unwrap_used)]

mod lab;

use datapath::io::{Outgoing, Port, PortKind, ReceiveBatch, SendBatch, Share};
use lab::{Lab, Layout, MARK, Side};
use policy::counters::{Counter, DropReason};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const LAYOUT: Layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: true };

/// A conversation through the tunnel.
struct Flow {
    near: UdpSocket,
    far: UdpSocket,
    next: u64,
}

impl Flow {
    fn new(a: &Side, b: &Side, layout: Layout) -> Self {
        let bound = |side: &Side| {
            let socket = side.inside(|| UdpSocket::bind((side.inner(layout), 0))).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (near, far) = (bound(a), bound(b));
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        Self { near, far, next: 0 }
    }

    fn send(&mut self, packets: u64) {
        for number in self.next..self.next + packets {
            // Lengths that change, so that super-packets begin and end anywhere.
            let octets = [&number.to_be_bytes()[..], &[number as u8; 900]].concat();
            self.near.send(&octets[..8 + (number * 37 % 900) as usize]).unwrap();
        }
    }

    /// Every packet arrives, once and in order, and the same comes back.
    fn receive(&mut self, packets: u64) {
        for expected in self.next..self.next + packets {
            self.expect(expected, &self.far);
            self.far.send(&expected.to_be_bytes()).unwrap();
        }
        for expected in self.next..self.next + packets {
            self.expect(expected, &self.near);
        }
        self.next += packets;
    }

    fn expect(&self, number: u64, at: &UdpSocket) {
        let mut buffer = [0; 2000];
        let len = loop {
            match at.recv(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                received => break received.unwrap_or_else(|e| panic!("{number} of {at:?}: {e}")),
            }
        };
        let got = u64::from_be_bytes(buffer[..8].try_into().unwrap());
        assert_eq!(got, number, "lost, doubled or out of order at {at:?}");
        assert!(buffer[8..len].iter().all(|b| *b == number as u8), "changed");
    }
}

/// Two outbound workers send with one SA to a peer with the smallest window there may be, while SAs are replaced.
#[test]
fn flows_of_several_workers_arrive_whole_and_in_order_across_rekeys() {
    let Some(lab) = Lab::new("workers") else { return };
    for layout in [LAYOUT, Layout { udp: false, inner_ipv4: false, ..LAYOUT }] {
        let [a, b] = lab.sides(layout, 1400);
        assert_eq!((a.datapath.workers(), a.datapath.tun_queues()), (2, 2));
        assert!(a.datapath.features().contains(&"multi_queue"));
        assert_eq!((b.datapath.workers(), b.datapath.tun_queues()), (1, 1));
        assert!(!b.datapath.features().contains(&"multi_queue"));
        a.establish(&b, layout, 1);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..4)
                .map(|_| {
                    let mut flows: Vec<_> = (0..6).map(|_| Flow::new(&a, &b, layout)).collect();
                    scope.spawn(move || {
                        for round in 0..60 {
                            let packets = 1 + round * 5 % 23;
                            flows.iter_mut().for_each(|f| f.send(packets));
                            flows.iter_mut().for_each(|f| f.receive(packets));
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                for pair in 2.. {
                    if done.load(Relaxed) {
                        break;
                    }
                    a.establish(&b, layout, pair);
                    std::thread::sleep(Duration::from_millis(30));
                    // As a daemon does: after what was on its way has arrived.
                    if pair > 3 {
                        for side in [&a, &b] {
                            side.datapath.remove_pair(pair - 3).unwrap();
                        }
                    }
                }
            });
            let ended: Vec<_> = senders.into_iter().map(|s| s.join()).collect();
            done.store(true, Relaxed);
            for sender in ended {
                sender.unwrap_or_else(|panic| {
                    eprintln!("a: {:?}\nb: {:?}", a.datapath.counters(), b.datapath.counters());
                    std::panic::resume_unwind(panic)
                });
            }
        });
        for side in [&a, &b] {
            assert_eq!(side.datapath.counters().all_drops(), 0, "{:?}", side.datapath.counters());
        }
        let by_worker = |n| a.datapath.shared().counters.worker(n).counter(Counter::Sent);
        assert!(by_worker(0) > 0 && by_worker(1) > 0, "both have sent");
        assert_eq!(by_worker(0) + by_worker(1), a.datapath.counters().counter(Counter::Sent));
    }
}

#[test]
fn an_interface_with_one_queue_has_one_worker_that_reads() {
    let Some(lab) = Lab::new("queue") else { return };
    lab.ip_first("tuntap add dev cap-tun mode tun");
    let [a, b] = lab.sides(LAYOUT, 1400);
    assert_eq!((a.datapath.workers(), a.datapath.tun_queues()), (2, 1));
    assert!(!a.datapath.features().contains(&"multi_queue"));
    a.establish(&b, LAYOUT, 1);
    let mut flow = Flow::new(&a, &b, LAYOUT);
    flow.send(20);
    flow.receive(20);
    assert_eq!(a.datapath.counters().drops(DropReason::ReplayTooOld), 0);
}

/// One made with several queues, before the packet path came and after it has gone, is not somebody else's.
#[test]
fn an_interface_made_for_several_workers_is_used() {
    let Some(lab) = Lab::new("made") else { return };
    lab.ip_first("tuntap add dev cap-tun mode tun multi_queue");
    let [a, b] = lab.sides(LAYOUT, 1400);
    assert_eq!(a.datapath.tun_queues(), 2);
    a.establish(&b, LAYOUT, 1);
    let mut flow = Flow::new(&a, &b, LAYOUT);
    flow.send(20);
    flow.receive(20);
}

/// What comes from one peer comes to one worker, always the same; and no worker gets it all.
#[test]
fn sockets_share_out_what_arrives_by_peer() {
    let Some(lab) = Lab::new("shares") else { return };
    lab.inside_first(|| {
        for kind in [PortKind::RawEsp, PortKind::Udp(4501)] {
            let share = |number| Port::open_share(kind, true, MARK, false, Share { number, of: 3 }).unwrap();
            let ports = [0, 1, 2].map(share);
            let error = Port::open(kind, true, MARK, false).map(drop);
            let taken = matches!(kind, PortKind::Udp(_));
            assert_eq!(error.is_err(), taken, "the port is in use: {error:?}");
            let mut expected = 0;
            // From 24 addresses of ours, three packets each.
            for from in 1..=24u8 {
                let source = Ipv4Addr::new(127, 0, 0, from);
                let to = SocketAddr::from(([127, 0, 0, 1], if taken { 4501 } else { 0 }));
                for n in 0..3 {
                    send_from(kind, source, to, &[from, n, 0, 0, 0, 0, 0, 0]);
                    expected += 1;
                }
            }
            let (mut by_peer, mut got) = (BTreeMap::new(), 0);
            let mut busy = [false; 3];
            let (mut batch, start) = (ReceiveBatch::new(64, 2000), Instant::now());
            while got < expected && start.elapsed() < PATIENCE {
                for (number, port) in ports.iter().enumerate() {
                    port.receive(&mut batch).unwrap();
                    for received in batch.iter_mut() {
                        assert_eq!(*by_peer.entry(received.source).or_insert(number), number);
                        busy[number] = true;
                        got += 1;
                    }
                }
            }
            assert_eq!((got, by_peer.len()), (expected, 24), "each packet once");
            assert_eq!(busy, [true; 3]);
            for port in &ports {
                assert_eq!(port.receive(&mut batch).unwrap(), 0, "and not again");
            }
        }
    });
}

/// Always from the same port of an address, as a peer does.
fn send_from(kind: PortKind, source: Ipv4Addr, to: SocketAddr, payload: &[u8]) {
    if matches!(kind, PortKind::Udp(_)) {
        let socket = UdpSocket::bind((source, 4500)).unwrap();
        socket.send_to(payload, to).unwrap();
        return;
    }
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 50, 0, 0];
    packet.extend(source.octets());
    packet.extend([127, 0, 0, 1]);
    packet.extend(payload);
    let outgoing = Outgoing { payload: &packet, destination: to, source: None, tos: None, hop_limit: None };
    let clear = Port::open(PortKind::Clear, true, MARK, false).unwrap();
    assert_eq!(clear.send(&mut SendBatch::new(1), &[outgoing]).unwrap(), 1);
}
