//! A path that is narrow behind a router: only ICMP tells of it.
//!
//! Needs what `namespaces.rs` needs. A program of its own, so that the
//! processor time of its workers is that of these tests.

#![allow(clippy::unwrap_used)]

mod lab;

use datapath::Event;
use lab::{Lab, Layout, Side, outer};
use policy::counters::{Counter, DropReason};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const NARROW: u16 = 1400;
/// Octets of UDP that fit a path of 1500 in every layout, and one of 1400 in none.
const LONG: usize = 1360;

/// One test at a time: they measure.
static TURN: Mutex<()> = Mutex::new(());

fn layouts() -> impl Iterator<Item = Layout> {
    (0..8).map(|n| Layout { inner_ipv4: n & 1 == 0, outer_ipv4: n & 2 == 0, udp: n & 4 != 0 })
}

fn until(what: &str, layout: Layout, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}: {layout:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn udp(side: &Side, address: IpAddr) -> UdpSocket {
    side.inside(|| {
        let socket = UdpSocket::bind(SocketAddr::new(address, 7000)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    })
}

/// Sends a datagram; whether it arrives.
fn crosses(from: &UdpSocket, to: &UdpSocket, len: usize) -> bool {
    static SENT: AtomicU8 = AtomicU8::new(0);
    let message = vec![SENT.fetch_add(1, Relaxed); len];
    match from.send_to(&message, to.local_addr().unwrap()) {
        Ok(_) => {}
        Err(e) if is_too_big(&e) => return false,
        Err(e) => panic!("{e}"),
    }
    let mut buffer = vec![0; 65_536];
    loop {
        match to.recv(&mut buffer) {
            Ok(n) if buffer[..n] == message => return true,
            // One that was given up, and came late.
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn is_too_big(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Processor time of this program's workers.
fn worked() -> Duration {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with("esp-") {
            total += read("schedstat").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(total)
}

/// Workers that have nothing to do, do nothing.
fn assert_idle(layout: Layout) {
    std::thread::sleep(Duration::from_millis(100));
    let before = worked();
    std::thread::sleep(Duration::from_millis(300));
    let spent = worked().saturating_sub(before);
    assert!(spent < Duration::from_millis(30), "the workers spin: {spent:?} of 300 ms: {layout:?}");
}

fn path_mtu(side: &Side) -> u16 {
    side.datapath.shared().all_pairs()[0].outbound.path_mtu()
}

#[test]
fn tcp_adapts_to_a_path_that_becomes_narrower_behind_a_router() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    for layout in layouts().filter(|l| l.inner_ipv4) {
        let Some(lab) = Lab::routed("tcp") else { return };
        // The interface promises more than the path holds, so all depends on our telling the senders.
        let [a, b] = lab.sides(layout, 9000);
        a.establish(&b, layout, 1);
        let listener = b.inside(|| TcpListener::bind(SocketAddr::new(b.inner(layout), 7001)).unwrap());
        let data: Vec<u8> = (0..1_500_000u32).map(|i| (i * 7 % 251) as u8).collect();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut received = Vec::new();
                let mut stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.read_to_end(&mut received).unwrap_or_else(|e| panic!("{e}: {layout:?}"));
                received
            });
            let mut client = a.inside(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            client.write_all(&data[..500_000]).unwrap();
            lab.set_far_mtu(NARROW);
            client.write_all(&data[500_000..]).unwrap();
            drop(client);
            assert!(server.join().unwrap() == data, "the stream arrived, but changed: {layout:?}");
        });
        assert_eq!(path_mtu(&a), NARROW, "{layout:?}");
        assert!(a.datapath.counters().drops(DropReason::TooBig) > 0, "{layout:?}");
        assert_idle(layout);
    }
}

#[test]
fn datagrams_cross_or_their_sender_is_told() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    for layout in layouts() {
        let Some(lab) = Lab::routed("udp") else { return };
        lab.set_far_mtu(NARROW);
        let [a, b] = lab.sides(layout, 1500);
        a.establish(&b, layout, 1);
        assert_eq!(path_mtu(&a), 1500, "nobody has told yet");
        let (sa, sb) = (udp(&a, a.inner(layout)), udp(&b, b.inner(layout)));
        if layout.inner_ipv4 {
            lab::set_df(&sa, true);
            let told = || sa.send_to(&[0; LONG], sb.local_addr().unwrap()).is_err_and(|e| is_too_big(&e));
            until("the sender to be told", layout, told);
            assert_eq!(path_mtu(&a), NARROW, "{layout:?}");
            lab::set_df(&sa, false);
        }
        for len in [LONG, 3000, 9000] {
            until("a datagram to cross", layout, || crosses(&sa, &sb, len));
            until("a datagram to cross back", layout, || crosses(&sb, &sa, len));
        }
        for len in [1, 1000, LONG, 3000, 9000] {
            assert!(
                crosses(&sa, &sb, len) && crosses(&sb, &sa, len),
                "{len} octets, once the path is known: {layout:?}"
            );
        }
        assert_idle(layout);
    }
}

/// An ICMPv6 error about an ESP packet from one address to another.
fn icmp_error(kind: u8, code: u8, argument: u32, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    // The kernel writes the checksum.
    let mut message = vec![kind, code, 0, 0];
    message.extend(argument.to_be_bytes());
    message.extend([0x60, 0, 0, 0, 0, 100, 50, 64]);
    message.extend(source.octets());
    message.extend(destination.octets());
    message.extend([0; 100]);
    message
}

#[test]
fn icmp_errors_of_anybody_lose_no_packet_and_end_no_worker() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let Some(lab) = Lab::new("forged") else { return };
    let layout = Layout { inner_ipv4: true, outer_ipv4: false, udp: false };
    let [a, b] = lab.sides(layout, 1280);
    a.establish(&b, layout, 1);
    let (sa, sb) = (udp(&a, a.inner(layout)), udp(&b, b.inner(layout)));
    let (IpAddr::V6(near), IpAddr::V6(far)) = (outer(false, 1), outer(false, 2)) else { panic!("IPv6") };
    let forger = b.inside(|| Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap());
    let to = SocketAddr::from((near, 0)).into();
    let tell = |kind, code, argument, destination| {
        forger.send_to(&icmp_error(kind, code, argument, near, destination), &to).unwrap();
    };
    // Unreachable for each reason, time exceeded, parameter problem; then too big, of others and of ours.
    for round in 0..50 {
        for (kind, code) in [(1, 0), (1, 1), (1, 3), (1, 4), (1, 5), (1, 6), (3, 0), (4, 1)] {
            tell(kind, code, 0, far);
        }
        tell(2, 0, 1300, Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99]));
        assert!(crosses(&sa, &sb, 100) && crosses(&sb, &sa, 100), "round {round}");
    }
    assert_eq!(path_mtu(&a), 1500, "nothing was said of this path");
    let flood = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while flood.load(Relaxed) {
                tell(1, 4, 0, far);
            }
        });
        for _ in 0..300 {
            assert!(sa.send_to(&[0; 100], sb.local_addr().unwrap()).is_ok());
            sb.recv(&mut [0; 200]).unwrap();
        }
        flood.store(false, Relaxed);
    });
    // Believed before any packet of ours was too long for it; but not less than any IPv6 link must carry.
    for (mtu, believed) in [(1450, 1450), (1279, 1450), (600, 1450), (0, 1450), (u32::MAX, 1450), (1280, 1280)] {
        tell(2, 0, mtu, far);
        assert!(crosses(&sa, &sb, 100) && crosses(&sb, &sa, 100), "MTU {mtu}");
        until("the path to be known", layout, || path_mtu(&a) == believed);
    }
    for len in [1, 1000, 3000, 9000] {
        assert!(crosses(&sa, &sb, len), "{len} octets");
    }
    let totals = a.datapath.counters();
    assert_eq!(totals.all_drops(), 0, "{totals:?}");
    assert!(totals.counter(Counter::Sent) > 50);
    let stopped = a.events.try_iter().find(|e| matches!(e, Event::WorkerStopped { .. }));
    assert_eq!(stopped, None);
    assert_idle(layout);
}
