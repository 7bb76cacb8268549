//! Traffic between hosts of a lab.

use crate::lab::Host;
use crate::wait;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sends `count` echo requests, 0.2 s apart, and returns how many were answered
/// within `wait` seconds each.
///
/// One program for each: once a single answer has come, one `ping` waits for the others no longer than two
/// round trips, which on a busy machine takes slow answers for lost ones.
#[track_caller]
pub fn ping(host: &Host, from: IpAddr, to: IpAddr, count: u32, wait: u32) -> u32 {
    let (from, to, wait_text) = (from.to_string(), to.to_string(), wait.to_string());
    let arguments = ["-n", "-q", "-c", "1", "-W", &wait_text, "-I", &from, &to];
    std::thread::scope(|scope| {
        let mut requests = Vec::new();
        for number in 0..count {
            if number > 0 {
                std::thread::sleep(Duration::from_millis(200));
            }
            requests.push(scope.spawn(|| host.run(u64::from(wait) + 60, "ping", &arguments).status.success()));
        }
        let answered = requests.into_iter().map(|r| u32::from(r.join().expect("ping runs")));
        answered.sum()
    })
}

/// Pings between the inner IPv4 addresses; every request must be answered.
#[track_caller]
pub fn ping_all(from: &Host, to: &Host, count: u32) {
    let answered = ping(from, from.inner(), to.inner(), count, 10);
    assert_eq!(answered, count, "echo requests answered from {} to {}", from.inner(), to.inner());
}

/// A TCP connection through which both sides send at the same time.
///
/// What is sent is pseudo-random, and each side says at the end what it sent and
/// got (octets and SHA-256).
#[derive(Debug)]
pub struct Transfer {
    client: JoinHandle<std::io::Result<Side>>,
    server: JoinHandle<std::io::Result<Side>>,
    finish: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
}

/// What one side of a transfer sent and got.
#[derive(Debug)]
struct Side {
    sent: (u64, Vec<u8>),
    got: (u64, Vec<u8>),
}

/// No octet for so long: the connection is lost.
const STALL: Duration = Duration::from_secs(40);

impl Transfer {
    /// Connects `client` to `server` and starts to send, at least `least` octets
    /// each way, and on until [`Transfer::finish`].
    ///
    /// # Panics
    /// If the connection cannot be made.
    #[must_use]
    #[track_caller]
    pub fn start(client: &Host, from: IpAddr, server: &Host, to: IpAddr, least: u64) -> Self {
        let finish = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let listener = server.inside(|| TcpListener::bind((to, 0))).expect("a listening socket");
        let port = listener.local_addr().expect("its address").port();
        let stop = (Arc::clone(&finish), Arc::clone(&received));
        let accepted = std::thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            exchange(stream, least, 1, &stop.0, &stop.1)
        });
        let stream = client.inside(|| connect_from(from, SocketAddr::new(to, port))).expect("a TCP connection");
        let stop = (Arc::clone(&finish), Arc::clone(&received));
        let connected = std::thread::spawn(move || exchange(stream, least, 2, &stop.0, &stop.1));
        Self { client: connected, server: accepted, finish, received }
    }

    /// Octets got so far, both sides together.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until `octets` more have come through.
    #[track_caller]
    pub fn advance(&self, octets: u64) {
        let goal = self.received() + octets;
        wait::until_true("the transfer to go on", STALL.as_secs() + 20, || {
            assert!(!self.client.is_finished() && !self.server.is_finished(), "the connection was lost");
            self.received() >= goal
        });
    }

    /// Lets both sides finish, and checks that each got what the other sent.
    /// Returns the octets each got.
    ///
    /// # Panics
    /// If the connection was lost or the checksums differ.
    #[track_caller]
    pub fn finish(self) -> (u64, u64) {
        self.finish.store(true, Ordering::Relaxed);
        let client = self.client.join().expect("the client thread").expect("the client's connection");
        let server = self.server.join().expect("the server thread").expect("the server's connection");
        assert_eq!(client.sent, server.got, "the server got what the client sent");
        assert_eq!(server.sent, client.got, "the client got what the server sent");
        (client.got.0, server.got.0)
    }
}

/// A connection from a chosen source address.
fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net;
    let family = if from.is_ipv4() { net::AddressFamily::INET } else { net::AddressFamily::INET6 };
    let socket = net::socket(family, net::SocketType::STREAM, None)?;
    net::bind(&socket, &SocketAddr::new(from, 0))?;
    net::connect(&socket, &to)?;
    Ok(socket.into())
}

fn exchange(
    stream: TcpStream,
    least: u64,
    seed: u64,
    finish: &AtomicBool,
    received: &AtomicU64,
) -> std::io::Result<Side> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    std::thread::scope(|s| {
        let writer = s.spawn(|| send(&stream, least, seed, finish));
        let got = receive(&stream, received);
        let sent = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Side { sent, got: got? })
    })
}

fn send(mut stream: &TcpStream, least: u64, seed: u64, finish: &AtomicBool) -> std::io::Result<(u64, Vec<u8>)> {
    let (mut sent, mut hash, mut state) = (0, Sha256::new(), seed);
    let mut chunk = vec![0; 64 * 1024];
    while sent < least || !finish.load(Ordering::Relaxed) {
        for word in chunk.chunks_exact_mut(8) {
            // splitmix64: different in every chunk, so that no packet can pass for another.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word.copy_from_slice(&(z ^ (z >> 27)).to_le_bytes());
        }
        stream.write_all(&chunk)?;
        hash.update(&chunk);
        sent += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok((sent, hash.finalize().to_vec()))
}

fn receive(mut stream: &TcpStream, received: &AtomicU64) -> std::io::Result<(u64, Vec<u8>)> {
    let (mut got, mut hash) = (0, Sha256::new());
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok((got, hash.finalize().to_vec()));
        }
        hash.update(&chunk[..n]);
        got += n as u64;
        received.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Sends a short datagram to each of these UDP ports, from a port of the caller's choice: as many conversations.
///
/// No faster than a tunnel takes them that was built without optimisation: what the queue of its
/// interface has no room for, the kernel drops.
///
/// # Panics
/// If there can be no such socket.
#[track_caller]
pub fn flood(host: &Host, (from, port): (IpAddr, u16), to: IpAddr, ports: std::ops::Range<u16>) {
    const AT_ONCE: usize = 100;
    // A program that another thread is starting has the last flood's socket open until it is its own.
    let socket =
        wait::until("a UDP socket", Duration::from_secs(10), || host.inside(|| UdpSocket::bind((from, port))).ok());
    let ports: Vec<u16> = ports.collect();
    for ports in ports.chunks(AT_ONCE) {
        for port in ports {
            // Refused where nobody listens: so an earlier one has arrived.
            let _ = socket.send_to(b"flood", (to, *port));
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// A UDP socket bound inside a host, which waits at most `seconds` for a datagram.
///
/// # Panics
/// If it cannot be bound.
#[must_use]
#[track_caller]
pub fn udp(host: &Host, address: IpAddr, port: u16, seconds: u64) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind((address, port))).expect("a UDP socket");
    socket.set_read_timeout(Some(Duration::from_secs(seconds))).expect("a time-out");
    socket
}

/// TCP connections that carry little, all the time: a question and its answer ten times a second on each.
#[derive(Debug)]
pub struct Steady {
    clients: Vec<JoinHandle<std::io::Result<u64>>>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    finish: Arc<AtomicBool>,
}

impl Steady {
    /// Connects `client` to `server`, so many times.
    ///
    /// # Panics
    /// If a connection cannot be made.
    #[must_use]
    #[track_caller]
    pub fn start(client: &Host, from: IpAddr, server: &Host, to: IpAddr, connections: usize) -> Self {
        let finish = Arc::new(AtomicBool::new(false));
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            let listener = server.inside(|| TcpListener::bind((to, 0))).expect("a listening socket");
            let port = listener.local_addr().expect("its address").port();
            servers.push(std::thread::spawn(move || {
                let (mut stream, _) = listener.accept()?;
                let mut question = [0; 64];
                while stream.read_exact(&mut question).is_ok() {
                    stream.write_all(&question)?;
                }
                Ok(())
            }));
            let stream = client.inside(|| connect_from(from, SocketAddr::new(to, port))).expect("a TCP connection");
            let stop = Arc::clone(&finish);
            clients.push(std::thread::spawn(move || question(stream, &stop)));
        }
        Self { clients, servers, finish }
    }

    /// Ends all of them; returns the round trips of the connection that made the fewest.
    ///
    /// # Panics
    /// If a connection was lost, or an answer was not that of its question.
    #[track_caller]
    pub fn finish(self) -> u64 {
        self.finish.store(true, Ordering::Relaxed);
        let ended = |client: JoinHandle<std::io::Result<u64>>| {
            client.join().expect("a client thread").expect("a connection that is not lost")
        };
        let least = self.clients.into_iter().map(ended).min().unwrap_or(0);
        self.servers.into_iter().for_each(|s| s.join().expect("a server thread").expect("its connection"));
        least
    }
}

/// Asks until it is told to stop; returns how often an answer came.
fn question(mut stream: TcpStream, stop: &AtomicBool) -> std::io::Result<u64> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_nodelay(true)?;
    let mut trips = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let asked = [trips.to_be_bytes(); 8].concat();
        stream.write_all(&asked)?;
        let mut answer = [0; 64];
        stream.read_exact(&mut answer)?;
        if answer[..] != asked[..] {
            return Err(std::io::Error::other("the answer to another question"));
        }
        trips += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    stream.shutdown(Shutdown::Both)?;
    Ok(trips)
}
