//! The whole packet path between two network namespaces: TUN, sockets, wire.
//!
//! Needs root, `/dev/net/tun` and `ip` of iproute2. Without them each test says
//! so and does nothing, or fails if CAPONIER_REQUIRE_ROOT=1.

#![allow(clippy::unwrap_used)]

mod lab;

use datapath::io::{Outgoing, Port, PortKind, ReceiveBatch, SendBatch};
use datapath::pipeline::inbound::{KEEPALIVE, NON_ESP_MARKER};
use datapath::{Event, IkeDatagram};
use lab::{Lab, Layout, MARK, Side, outer};
use policy::counters::{Counter, DropReason};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something is true.
fn until(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn udp(side: &Side, address: IpAddr) -> UdpSocket {
    side.inside(|| {
        // A program that another test is just starting may still have a copy of the one before.
        let mut socket = UdpSocket::bind(SocketAddr::new(address, 7000));
        until("port 7000 free", || {
            if socket.as_ref().is_err_and(|e| e.kind() == ErrorKind::AddrInUse) {
                socket = UdpSocket::bind(SocketAddr::new(address, 7000));
            }
            !socket.as_ref().is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
        });
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

/// Receives a datagram; a signal is no reason to give up.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

/// Sends `len` octets from `a` to `b` and back; `state` says what a lost one may have been lost to.
fn echo(a: &UdpSocket, b: &UdpSocket, len: usize, state: impl Fn() -> String) {
    let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let mut buffer = vec![0; 65_536];
    for (from, to) in [(a, b), (b, a)] {
        from.send_to(&message, to.local_addr().unwrap()).unwrap();
        let (received, sender) =
            receive(to, &mut buffer).unwrap_or_else(|e| panic!("{len} octets to {to:?}: {e}\n{}", state()));
        assert_eq!((&buffer[..received], sender), (&message[..], from.local_addr().unwrap()));
    }
}

fn layouts() -> impl Iterator<Item = Layout> {
    (0..8).map(|n| Layout { inner_ipv4: n & 1 == 0, outer_ipv4: n & 2 == 0, udp: n & 4 != 0 })
}

#[test]
fn packets_cross_in_every_encapsulation() {
    let Some(lab) = Lab::new("cross") else { return };
    for layout in layouts() {
        let [a, b] = lab.sides(layout, 1400);
        a.establish(&b, layout, 1);
        let (sa, sb) = (udp(&a, a.inner(layout)), udp(&b, b.inner(layout)));
        // The last two are cut by the sender, and their fragments travel one by one.
        for len in [1, 100, 1300, 3000, 9000] {
            echo(&sa, &sb, len, || {
                format!("{layout:?}\na: {:?}\nb: {:?}", a.datapath.counters(), b.datapath.counters())
            });
        }
        for side in [&a, &b] {
            let count = |c| side.datapath.counters().counter(c);
            until("all counted", || count(Counter::Sent) >= 5 && count(Counter::Received) >= 5);
            let totals = side.datapath.counters();
            assert_eq!(totals.counter(Counter::BypassedOut), 0, "{layout:?}");
            assert_eq!(totals.counter(Counter::ClearTextLeaks), 0);
        }
        // The kernel may speak IPv6 on the interface by itself; nothing else may have been dropped.
        let drops = a.datapath.counters().all_drops();
        assert!(drops == 0, "{layout:?}: {:?}", a.datapath.counters());
    }
}

#[test]
fn tcp_crosses_and_adapts_to_a_path_that_becomes_narrower() {
    let Some(lab) = Lab::new("tcp") else { return };
    for (layout, too_wide) in [
        (Layout { inner_ipv4: true, outer_ipv4: true, udp: true }, 9000),
        (Layout { inner_ipv4: false, outer_ipv4: true, udp: false }, 9000),
    ] {
        // The interface promises more than the path holds, so all depends on our telling the senders.
        let [a, b] = lab.sides(layout, too_wide);
        a.establish(&b, layout, 1);
        let listener = b.inside(|| TcpListener::bind(SocketAddr::new(b.inner(layout), 7001)).unwrap());
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                received
            });
            let mut client = a.inside(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            client.write_all(&data[..1_000_000]).unwrap();
            lab.set_outer_mtu(1400);
            client.write_all(&data[1_000_000..]).unwrap();
            drop(client);
            assert!(server.join().unwrap() == data, "the stream arrived, but changed");
        });
        let sa = &a.datapath.shared().all_pairs()[0].outbound;
        assert_eq!(sa.path_mtu(), 1400, "the path was asked again");
        let drops = |reason| a.datapath.counters().drops(reason);
        assert!(drops(DropReason::TooBig) > 0);
        // Those on their way when it happened, under a name of their own.
        assert!(drops(DropReason::PathMtuShrunk) > 0);
        assert_eq!(drops(DropReason::SendFailed), 0);
        lab.set_outer_mtu(1500);
    }
}

#[test]
fn the_first_packet_waits_for_its_sa() {
    let Some(lab) = Lab::new("first") else { return };
    let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: true };
    let [a, b] = lab.sides(layout, 1400);
    let (sa, sb) = (udp(&a, a.inner(layout)), udp(&b, b.inner(layout)));
    for n in 0..3 {
        sa.send_to(&[n], sb.local_addr().unwrap()).unwrap();
    }
    let event = a.events.recv_timeout(PATIENCE).unwrap();
    let Event::Acquire { tunnel, tuple, .. } = event else { panic!("{event:?}") };
    assert_eq!(tuple.destination, b.inner(layout));
    until("three packets held", || a.datapath.held(tunnel) == 3);
    a.establish(&b, layout, 1);
    for n in 0..3 {
        let mut buffer = [0; 10];
        assert_eq!(sb.recv(&mut buffer).map(|len| buffer[..len].to_vec()).unwrap(), [n]);
    }
    assert!(a.events.try_recv().is_err(), "asked once");

    // Without an SA again, and a negotiation that fails.
    a.datapath.remove_pair(1).unwrap();
    sa.send_to(&[9], sb.local_addr().unwrap()).unwrap();
    assert!(matches!(a.events.recv_timeout(PATIENCE), Ok(Event::Acquire { .. })));
    a.datapath.fail(tunnel);
    until("the packet dropped", || a.datapath.counters().drops(DropReason::NegotiationFailed) == 1);
}

#[test]
fn ike_and_keepalives_share_the_port() {
    let Some(lab) = Lab::new("ike") else { return };
    let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: true };
    let [a, b] = lab.sides(layout, 1400);
    for ipv4 in [true, false] {
        let [at_a, at_b] = [1, 2].map(|n| SocketAddr::new(outer(ipv4, n), 4500));
        // The second is far longer than the path's MTU: IP fragments carry it.
        for len in [28, 5000] {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            a.datapath.send_udp(at_a, at_b, [&NON_ESP_MARKER[..], &message].concat());
            let event = b.events.recv_timeout(PATIENCE).unwrap();
            assert_eq!(event, Event::Ike(IkeDatagram { local: at_b, remote: at_a, message }));
        }
        a.datapath.send_udp(at_a, at_b, KEEPALIVE.to_vec());
    }
    until("both keepalives", || b.datapath.counters().counter(Counter::Keepalives) == 2);
    assert_eq!(b.datapath.counters().counter(Counter::IkeHandedOver), 4);

    let nowhere = SocketAddr::from(([203, 0, 113, 1], 4500));
    a.datapath.send_udp(SocketAddr::new(outer(true, 1), 4500), nowhere, b"x".to_vec());
    assert!(matches!(a.events.recv_timeout(PATIENCE), Ok(Event::SendFailed { remote, .. }) if remote == nowhere));
}

#[test]
fn what_a_policy_passes_leaves_as_it_is() {
    let Some(lab) = Lab::new("clear") else { return };
    let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: true };
    let [a, b] = lab.sides(layout, 9000);
    // A network that no policy covers is routed into the interface, and what is marked past it.
    b.ip("address add 198.51.100.1/32 dev lo");
    b.ip("route add 10.9.0.0/24 via 192.0.2.1");
    a.ip("address add 10.9.0.1/32 dev lo");
    a.ip("route add 198.51.100.0/24 dev cap-tun");
    a.ip("route add 198.51.100.0/24 via 192.0.2.2 table 100");
    a.ip(&format!("rule add fwmark {MARK} lookup 100 priority 100"));
    let receiver = udp(&b, IpAddr::from([198, 51, 100, 1]));
    let sender = udp(&a, IpAddr::from([10, 9, 0, 1]));
    let mut buffer = [0; 10_000];
    // The second has to be cut on the way, after its sender was told.
    for len in [100, 3000] {
        until("the packet in the clear", || {
            sender.send_to(&vec![5; len], receiver.local_addr().unwrap()).unwrap();
            receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            receiver.recv(&mut buffer).is_ok_and(|n| n == len)
        });
    }
    // A worker counts after it has sent.
    until("both packets counted", || a.datapath.counters().counter(Counter::BypassedOut) >= 2);
    let totals = a.datapath.counters();
    assert_eq!(totals.counter(Counter::Sent), 0);
    assert!(totals.drops(DropReason::TooBig) + totals.counter(Counter::FragmentsAdded) > 0);
}

#[test]
fn the_outer_header_is_as_the_rules_say() {
    let Some(lab) = Lab::new("outer") else { return };
    for udp_encapsulated in [false, true] {
        let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: udp_encapsulated };
        let [a, b] = lab.sides(layout, 1400);
        a.establish(&b, layout, 1);
        // Everything of IPv4 that arrives at B, from the IP header.
        let wire = b.inside(|| {
            let ethertype = Protocol::from(i32::from(0x0800u16.to_be()));
            Socket::new(Domain::PACKET, Type::DGRAM, Some(ethertype)).unwrap()
        });
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let (sa, sb) = (udp(&a, a.inner(layout)), udp(&b, b.inner(layout)));
        for (tos, df) in [(0xb8 | 2, true), (0, true), (0x20, false)] {
            let options = SockRef::from(&sa);
            options.set_tos_v4(tos).unwrap();
            lab::set_df(&sa, df);
            sa.send_to(b"a secret", sb.local_addr().unwrap()).unwrap();
            let header = next_outer(&wire, if udp_encapsulated { 17 } else { 50 });
            assert_eq!(u32::from(header[1]), tos, "DSCP and ECN copied");
            assert_eq!(header[6] & 0x40 != 0, df, "DF copied");
            assert_eq!(header[8], 64, "TTL");
            assert_eq!(header[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
            let secret = header.windows(8).any(|w| w == b"a secret");
            assert!(!secret, "the wire shows the inside");
            sb.recv(&mut [0; 20]).unwrap();
        }
    }
}

/// The next packet of this protocol between the outer addresses.
fn next_outer(mut wire: &Socket, protocol: u8) -> Vec<u8> {
    let mut buffer = [0; 2000];
    loop {
        let len = wire.read(&mut buffer).unwrap();
        if buffer[9] == protocol && buffer[12..16] == [192, 0, 2, 1] {
            return buffer[..len].to_vec();
        }
    }
}

#[test]
fn unknown_spis_are_heard_of() {
    let Some(lab) = Lab::new("spi") else { return };
    let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: false };
    let [a, b] = lab.sides(layout, 1400);
    a.establish(&b, layout, 1);
    b.datapath.remove_pair(1).unwrap();
    let socket = udp(&a, a.inner(layout));
    socket.send_to(b"x", SocketAddr::new(b.inner(layout), 7000)).unwrap();
    let (local, remote) = (outer(true, 2), outer(true, 1));
    let (protocol, remote) = (policy::sa::SaProtocol::Esp, SocketAddr::new(remote, 0));
    assert_eq!(b.events.recv_timeout(PATIENCE).unwrap(), Event::UnknownSpi { spi: 0x1001, protocol, local, remote });
}

#[test]
fn it_stops_and_starts_again_and_says_when_it_cannot() {
    let Some(lab) = Lab::new("stop") else { return };
    let layout = Layout { inner_ipv4: true, outer_ipv4: true, udp: true };
    let [a, b] = lab.sides(layout, 1400);
    drop(b);
    // The port and the interface are taken.
    let error = a.start_another("cap-other").unwrap_err().to_string();
    assert!(error.contains("UDP port 4500") && error.contains("another IKE daemon"), "{error}");
    let error = a.start_another("cap-tun").unwrap_err().to_string();
    assert!(error.contains("`cap-tun`"), "{error}");

    // Packets that wait are counted when it ends.
    let socket = udp(&a, a.inner(layout));
    socket.send_to(b"x", "10.2.0.1:7000").unwrap();
    until("the packet held", || a.datapath.held(0) == 1);
    let shared = std::sync::Arc::clone(a.datapath.shared());
    let Side { datapath, .. } = a;
    datapath.stop();
    assert_eq!(shared.counters.totals().drops(DropReason::NegotiationFailed), 1);
    let [again, _] = lab.sides(layout, 1400);
    assert_eq!(again.datapath.counters().all_drops(), 0);
}

#[test]
fn a_lost_interface_is_reported() {
    let Some(lab) = Lab::new("lost") else { return };
    let [a, _b] = lab.sides(Layout { inner_ipv4: true, outer_ipv4: true, udp: true }, 1400);
    let socket = udp(&a, IpAddr::from([10, 1, 0, 1]));
    socket.send_to(b"x", "10.2.0.1:7000").unwrap();
    assert!(matches!(a.events.recv_timeout(PATIENCE), Ok(Event::Acquire { .. })));
    // Down is not lost: it may come up again.
    a.ip("link set cap-tun down");
    assert!(a.events.recv_timeout(Duration::from_millis(200)).is_err());
    a.ip("link delete cap-tun");
    let event = a.events.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(&event, Event::WorkerStopped { worker: "esp-out", .. }), "{event:?}");
    assert_eq!(a.datapath.counters().drops(DropReason::NegotiationFailed), 1, "the packet that waited");
    assert_eq!(a.datapath.held(0), 0);
}

#[test]
fn what_the_kernel_drops_before_it_is_read_is_known() {
    let Some(lab) = Lab::new("lost-datagrams") else { return };
    lab.inside_first(|| {
        let port = Port::open(PortKind::Udp(4501), true, MARK, false).unwrap();
        let options = SockRef::from(&port);
        // The kernel doubles what it is asked for, and keeps it to far less without the privilege.
        assert_eq!(options.recv_buffer_size().unwrap(), 8 << 20);
        assert_eq!(options.send_buffer_size().unwrap(), 8 << 20);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = ReceiveBatch::new(64, 100);
        let (mut sent, mut received, mut lost) = (0, 0, 0);
        for round in 0..2 {
            for _ in 0..20_000 {
                sender.send_to(b"x", "127.0.0.1:4501").unwrap();
            }
            sent += 20_000;
            let mut receive = |lost: &mut u32| {
                loop {
                    match port.receive(&mut batch).unwrap() {
                        0 => break,
                        n => received += n as u32,
                    }
                    *lost += port.newly_lost(&batch);
                }
            };
            receive(&mut lost);
            // The next that has room tells of those that had none.
            sender.send_to(b"x", "127.0.0.1:4501").unwrap();
            sent += 1;
            receive(&mut lost);
            assert!(received < sent, "round {round}: the buffer took all");
            assert_eq!(received + lost, sent, "round {round}");
        }
    });
}

#[test]
fn datagrams_lost_before_a_worker_are_counted() {
    let Some(lab) = Lab::new("flood") else { return };
    let [a, b] = lab.sides(Layout { inner_ipv4: true, outer_ipv4: true, udp: true }, 1400);
    // Long datagrams, of which a buffer holds few, from more threads than the worker has processors for itself.
    lab.set_outer_mtu(65_000);
    let payload = vec![0; 60_000];
    let long = Outgoing {
        payload: &payload,
        destination: SocketAddr::new(outer(true, 2), 4500),
        source: None,
        tos: None,
        hop_limit: None,
    };
    let drops = |reason| b.datapath.counters().drops(reason);
    let full = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let sender = a.inside(|| UdpSocket::bind("192.0.2.1:0").unwrap());
            let full = &full;
            scope.spawn(move || {
                let mut batch = SendBatch::new(16);
                while !full.load(Relaxed) {
                    batch.send(sender.as_fd(), &[long; 16]).unwrap();
                }
            });
        }
        let start = Instant::now();
        while drops(DropReason::ReceiveBufferFull) == 0 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        full.store(true, Relaxed);
    });
    assert!(drops(DropReason::ReceiveBufferFull) > 0);
    assert!(drops(DropReason::IkeTooLong) > 0);
    assert_eq!(b.datapath.counters().counter(Counter::IkeHandedOver), 0);
}
