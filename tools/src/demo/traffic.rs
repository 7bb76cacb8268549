//! Traffic between the inside addresses: ICMP echoes and TCP streams.

use super::host::Host;
use super::wire::Gauge;
use super::{Outcome, failed, interrupted, stop_if_interrupted};
use pnet::packet::Packet;
use pnet::packet::icmp::echo_reply::EchoReplyPacket;
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{self, IcmpPacket, IcmpTypes};
use pnet::packet::ipv4::Ipv4Packet;
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// In every packet of data, so that the capture can tell clear-text.
pub(super) const MARKER: &[u8; 16] = b"caponier's data\n";
/// Longest wait for one thing that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 7878;
const SEND_BUFFER: usize = 1 << 15;

/// How echoes fared.
pub(super) struct Echoes {
    /// How many were sent.
    pub(super) sent: u16,
    /// Round-trip time of each that was answered.
    pub(super) answered: Vec<Duration>,
    /// Why the first that could not be sent was not.
    pub(super) refused: Option<io::Error>,
}

/// Sends `count` ICMP echo requests from inside to inside and waits for the
/// answers; the first may take as long as a negotiation.
pub(super) fn ping(from: &Host, to: &Host, count: u16, patience: Duration) -> Outcome<Echoes> {
    let (source, destination) = (from.inside, to.inside);
    let socket = from.run(move || icmp_socket(source))?.map_err(|e| failed("cannot open an ICMP socket", &e))?;
    let id = std::process::id() as u16;
    let mut echoes = Echoes { sent: 0, answered: Vec::new(), refused: None };
    for sequence in 1..=count {
        stop_if_interrupted()?;
        echoes.sent += 1;
        let start = Instant::now();
        if let Err(e) = socket.send_to(&request(id, sequence), &SocketAddrV4::new(destination, 0).into()) {
            echoes.refused.get_or_insert(e);
            continue;
        }
        while start.elapsed() < patience && !interrupted() {
            let mut buffer = [0; 2048];
            match (&socket).read(&mut buffer) {
                Ok(n) if answers(buffer.get(..n).unwrap_or_default(), id, sequence, destination) => {
                    echoes.answered.push(start.elapsed());
                    break;
                }
                Ok(_) => {}
                Err(e) if is_timeout(&e) => {}
                Err(e) => {
                    echoes.refused.get_or_insert(e);
                    break;
                }
            }
        }
    }
    Ok(echoes)
}

fn icmp_socket(source: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

fn request(id: u16, sequence: u16) -> Vec<u8> {
    let mut buffer = vec![0; MutableEchoRequestPacket::minimum_packet_size() + 4 * MARKER.len()];
    if let Some(mut echo) = MutableEchoRequestPacket::new(&mut buffer) {
        echo.set_icmp_type(IcmpTypes::EchoRequest);
        echo.set_identifier(id);
        echo.set_sequence_number(sequence);
        echo.set_payload(&MARKER.repeat(4));
    }
    let sum = IcmpPacket::new(&buffer).map(|p| icmp::checksum(&p)).unwrap_or_default();
    if let Some(mut echo) = MutableEchoRequestPacket::new(&mut buffer) {
        echo.set_checksum(sum);
    }
    buffer
}

fn answers(packet: &[u8], id: u16, sequence: u16, from: Ipv4Addr) -> bool {
    let Some(ip) = Ipv4Packet::new(packet) else { return false };
    let Some(echo) = EchoReplyPacket::new(ip.payload()) else { return false };
    ip.get_source() == from
        && echo.get_icmp_type() == IcmpTypes::EchoReply
        && echo.get_identifier() == id
        && echo.get_sequence_number() == sequence
}

/// A TCP connection through which data is, or was, sent.
pub(super) struct Transfer {
    /// Octets that arrived.
    pub(super) octets: u64,
    /// Whether what arrived is what was sent: the same SHA-256.
    pub(super) equal: bool,
    /// From the first octet to the last.
    pub(super) time: Duration,
    /// Longest time in which nothing arrived.
    pub(super) pause: Duration,
}

/// A transfer that goes on until it is told to end.
pub(super) struct Stream {
    stop: Arc<AtomicBool>,
    sender: thread::JoinHandle<io::Result<[u8; 32]>>,
    receiver: thread::JoinHandle<io::Result<Received>>,
}

struct Received {
    digest: [u8; 32],
    octets: u64,
    time: Duration,
    pause: Duration,
}

/// Sends `octets` from one inside address to the other.
pub(super) fn transfer(from: &Host, to: &Host, octets: u64, gauge: Gauge) -> Outcome<Transfer> {
    start(from, to, Some(octets), gauge)?.finish()
}

/// Begins to send, until [`Stream::finish`].
pub(super) fn stream(from: &Host, to: &Host, gauge: Gauge) -> Outcome<Stream> {
    start(from, to, None, gauge)
}

fn start(from: &Host, to: &Host, octets: Option<u64>, gauge: Gauge) -> Outcome<Stream> {
    let (source, address) = (from.inside, SocketAddr::from((to.inside, PORT)));
    let listener = to.run(move || listen(address))?.map_err(|e| failed("cannot listen for TCP", &e))?;
    let stop = Arc::new(AtomicBool::new(false));
    let receiver = spawn(move || receive(&accept(&listener)?))?;
    let connection = from.run(move || connect(source, address))?;
    let connection = connection.map_err(|e| failed(&format!("no TCP connection from {source} to {address}"), &e))?;
    let stopped = Arc::clone(&stop);
    let sender = spawn(move || send(connection, octets, &stopped, &gauge))?;
    Ok(Stream { stop, sender, receiver })
}

impl Stream {
    /// Whether it has come to an end by itself, which only a lost connection brings about.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_finished() || self.receiver.is_finished()
    }

    /// Lets what is under way arrive, and compares.
    pub(super) fn finish(self) -> Outcome<Transfer> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let received = self.receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        stop_if_interrupted()?;
        let sent = sent.map_err(|e| failed("the sender's TCP connection was lost", &e))?;
        let received = received.map_err(|e| failed("the receiver's TCP connection was lost", &e))?;
        let Received { digest, octets, time, pause } = received;
        Ok(Transfer { octets, equal: digest == sent, time, pause })
    }
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<thread::JoinHandle<T>> {
    thread::Builder::new().spawn(work).map_err(|e| failed("cannot start a thread", &e))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE && !interrupted() {
        match listener.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            other => {
                let (connection, _) = other?;
                connection.set_nonblocking(false)?;
                return Ok(connection);
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn connect(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Little is under way unseen when the wiretap asks to wait; more than the path needs all the same.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

fn send(mut connection: TcpStream, octets: Option<u64>, stop: &AtomicBool, gauge: &Gauge) -> io::Result<[u8; 32]> {
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut digest = Sha256::new();
    let mut left = octets.unwrap_or(u64::MAX);
    let mut number = 0u64;
    while left > 0 && !interrupted() && !(octets.is_none() && stop.load(Ordering::Relaxed)) {
        let mut block = Vec::with_capacity(1 << 15);
        while block.len() < 1 << 15 {
            block.extend_from_slice(MARKER);
            block.extend_from_slice(&number.to_be_bytes());
            number += 1;
        }
        block.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        gauge.wait()?;
        connection.write_all(&block)?;
        digest.update(&block);
        left -= block.len() as u64;
    }
    connection.shutdown(std::net::Shutdown::Write)?;
    Ok(digest.finalize().into())
}

fn receive(mut connection: &TcpStream) -> io::Result<Received> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let (mut digest, mut octets, mut pause) = (Sha256::new(), 0, Duration::ZERO);
    let start = Instant::now();
    let mut last = start;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = connection.read(&mut buffer)?;
        let now = Instant::now();
        if n == 0 {
            return Ok(Received { digest: digest.finalize().into(), octets, time: last - start, pause });
        }
        pause = pause.max(now - last);
        last = now;
        digest.update(buffer.get(..n).unwrap_or_default());
        octets += n as u64;
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
