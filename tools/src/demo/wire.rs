//! The wiretap: every frame on the cable, counted by kind and searched for what must not be there.

use super::host::{CABLE, Host};
use super::traffic::MARKER;
use super::{Outcome, failed};
use pnet::datalink::{self, Channel, NetworkInterface};
use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmp::{IcmpPacket, IcmpTypes};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Type};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::udp::UdpPacket;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Room for what a burst brings while we look at it.
const BUFFER: usize = 64 << 20;
/// A frame of segmentation offload is at most this long.
const LONGEST_FRAME: usize = 1 << 17;
/// How much of each frame goes into the file.
const KEPT: usize = 256;

/// A capture that runs.
pub(super) struct Wiretap {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<Seen>>,
    gauge: Gauge,
}

/// How far the wiretap is behind the wire. Without privileges its buffer is
/// small, and bulk traffic must wait for it, or frames go by unseen.
#[derive(Clone)]
pub(super) struct Gauge {
    /// `/proc/net/dev` of the host.
    counters: Arc<File>,
    /// Frames that were counted when the wiretap began.
    before: u64,
    captured: Arc<AtomicU64>,
    /// Frames that surely fit into its buffer.
    room: u64,
    broken: Arc<AtomicBool>,
}

/// Memory that the kernel may charge for a frame in a socket's buffer.
const CHARGE: usize = 4096;
/// How long traffic waits for the wiretap; when that is not enough it has lost frames for good.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Frames and octets by kind.
    pub(super) kinds: BTreeMap<Kind, (u64, u64)>,
    /// Frames with an inside address in their headers.
    pub(super) inside: u64,
    /// Frames with the marker of the data in them.
    pub(super) clear_text: u64,
    /// Frames that the interface counted but we did not get.
    pub(super) missed: u64,
}

/// Kinds of frames.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// UDP 500.
    Ike,
    /// UDP 4500.
    NatTraversal,
    /// IP protocol 50.
    Esp,
    /// ICMP errors that quote IKE or ESP: what the kernel says for a daemon that is not there.
    Errors,
    /// ARP, IPv6 neighbour and multicast listener discovery.
    Neighbours,
    /// Anything else, in words.
    Other(String),
}

impl Wiretap {
    /// Begins to listen at a host's end of the cable.
    pub(super) fn start(host: &Host, inside: Vec<(IpAddr, IpAddr)>, file: &Path) -> Outcome<Self> {
        let index = host.net(async |net| net.interface_index(CABLE).await)?;
        let cannot = |e: io::Error| failed("cannot listen on the wire", &e);
        let (mut frames, buffer) = host.run(move || open(index))?.map_err(cannot)?;
        let counters = host.run(|| File::open("/proc/thread-self/net/dev"))?.map_err(cannot)?;
        let mut gauge = Gauge {
            counters: Arc::new(counters),
            before: 0,
            captured: Arc::default(),
            room: (buffer / CHARGE) as u64,
            broken: Arc::default(),
        };
        gauge.before = gauge.passed().map_err(cannot)?;
        let mut file = pcap(file).map_err(|e| failed(&format!("cannot write {}", file.display()), &e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, captured) = (Arc::clone(&stop), Arc::clone(&gauge.captured));
        let listen = move || {
            let mut seen = Seen::default();
            // After the word to stop, what is still in the buffer counts.
            loop {
                match frames.next() {
                    Ok(frame) => {
                        captured.fetch_add(1, Ordering::Relaxed);
                        seen.look_at(frame, &inside);
                        record(&mut file, frame)?;
                    }
                    Err(e) if is_timeout(&e) && stopped.load(Ordering::Relaxed) => break,
                    Err(e) if is_timeout(&e) => {}
                    // The interface goes away with the network.
                    Err(e) => return Err(e),
                }
            }
            file.flush()?;
            Ok(seen)
        };
        let thread = thread::Builder::new().name("wiretap".to_owned()).spawn(listen).map_err(cannot)?;
        Ok(Self { stop, thread, gauge })
    }

    /// For those who send.
    pub(super) fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    /// Stops listening.
    pub(super) fn finish(self) -> Outcome<Seen> {
        let passed = self.gauge.passed().map_err(|e| failed("cannot read the counters of the wire", &e))?;
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut seen = seen.map_err(|e| failed("the wiretap broke", &e))?;
        let there = passed.saturating_sub(self.gauge.before);
        seen.missed = there.saturating_sub(self.gauge.captured.load(Ordering::Relaxed));
        Ok(seen)
    }
}

impl Gauge {
    /// Waits until the wiretap has room for what is sent next.
    pub(super) fn wait(&self) -> io::Result<()> {
        let start = Instant::now();
        while !self.broken.load(Ordering::Relaxed) {
            let behind = self.passed()?.saturating_sub(self.before + self.captured.load(Ordering::Relaxed));
            if behind < self.room / 2 {
                break;
            }
            if start.elapsed() > LONGEST_WAIT {
                self.broken.store(true, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Frames that the host's end of the cable has sent and received so far.
    fn passed(&self) -> io::Result<u64> {
        let mut table = vec![0; 1 << 13];
        let n = self.counters.read_at(&mut table, 0)?;
        let table = String::from_utf8_lossy(table.get(..n).unwrap_or_default());
        let line = table.lines().find_map(|l| l.trim_start().strip_prefix(CABLE)?.strip_prefix(':'));
        let fields: Vec<u64> = line.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // Columns of packets: the second of eight for receiving, then of eight for sending.
        Ok(fields.get(1).copied().unwrap_or(0) + fields.get(9).copied().unwrap_or(0))
    }
}

impl Seen {
    /// Kinds that IPsec and the link do not account for.
    pub(super) fn strangers(&self) -> Vec<String> {
        let strange = self.kinds.iter().filter_map(|(kind, (frames, _))| match kind {
            Kind::Other(what) => Some(format!("{frames} of {what}")),
            _ => None,
        });
        strange.collect()
    }

    fn look_at(&mut self, frame: &[u8], inside: &[(IpAddr, IpAddr)]) {
        let (kind, addresses) = classify(frame);
        let count = self.kinds.entry(kind).or_default();
        count.0 += 1;
        count.1 += frame.len() as u64;
        let is_inside = |a: &IpAddr| inside.iter().any(|(first, last)| first <= a && a <= last);
        self.inside += u64::from(addresses.iter().flatten().any(is_inside));
        self.clear_text += u64::from(memchr::memmem::find(frame, MARKER).is_some());
    }
}

/// What a frame is, and whose.
fn classify(frame: &[u8]) -> (Kind, Option<[IpAddr; 2]>) {
    let unreadable = || (Kind::Other("frames too short to read".to_owned()), None);
    let Some(ethernet) = EthernetPacket::new(frame) else { return unreadable() };
    match ethernet.get_ethertype() {
        EtherTypes::Arp => (Kind::Neighbours, None),
        EtherTypes::Ipv4 => {
            let Some(ip) = Ipv4Packet::new(ethernet.payload()) else { return unreadable() };
            let addresses = [ip.get_source().into(), ip.get_destination().into()];
            let first = ip.get_fragment_offset() == 0;
            (upper(ip.get_next_level_protocol(), ip.payload(), first), Some(addresses))
        }
        EtherTypes::Ipv6 => {
            let Some(ip) = Ipv6Packet::new(ethernet.payload()) else { return unreadable() };
            let addresses = [ip.get_source().into(), ip.get_destination().into()];
            (upper_of_ipv6(ip.get_next_header(), ip.payload()), Some(addresses))
        }
        other => (Kind::Other(format!("ethertype {:#06x}", other.0)), None),
    }
}

fn upper(protocol: IpNextHeaderProtocol, payload: &[u8], first_fragment: bool) -> Kind {
    if protocol == IpNextHeaderProtocols::Esp {
        return Kind::Esp;
    }
    if protocol == IpNextHeaderProtocols::Udp
        && first_fragment
        && let Some(udp) = UdpPacket::new(payload)
    {
        let ports = [udp.get_source(), udp.get_destination()];
        if ports.contains(&500) {
            return Kind::Ike;
        }
        if ports.contains(&4500) {
            return Kind::NatTraversal;
        }
        return Kind::Other(format!("UDP {} to {}", ports[0], ports[1]));
    }
    if protocol == IpNextHeaderProtocols::Icmp && first_fragment && quotes_ipsec(payload) {
        return Kind::Errors;
    }
    Kind::Other(format!("{protocol}"))
}

/// Whether an ICMP message is about IKE or ESP that the receiver has sent (RFC 792).
fn quotes_ipsec(icmp: &[u8]) -> bool {
    let error = IcmpPacket::new(icmp).is_some_and(|p| matches!(p.get_icmp_type(), IcmpTypes::DestinationUnreachable));
    let quoted = icmp.get(8..).and_then(Ipv4Packet::new);
    error
        && quoted.is_some_and(|ip| {
            matches!(
                upper(ip.get_next_level_protocol(), ip.payload(), true),
                Kind::Ike | Kind::NatTraversal | Kind::Esp
            )
        })
}

fn upper_of_ipv6(protocol: IpNextHeaderProtocol, payload: &[u8]) -> Kind {
    // Multicast listener reports come behind a hop-by-hop header (RFC 3810 5).
    let (protocol, payload) = match (protocol, payload) {
        (IpNextHeaderProtocols::Hopopt, [next, len, ..]) => {
            let skip = (usize::from(*len) + 1) * 8;
            (IpNextHeaderProtocol(*next), payload.get(skip..).unwrap_or_default())
        }
        other => other,
    };
    if protocol == IpNextHeaderProtocols::Icmpv6
        && let Some(Icmpv6Type(130..=137 | 143)) = Icmpv6Packet::new(payload).map(|p| p.get_icmpv6_type())
    {
        return Kind::Neighbours;
    }
    upper(protocol, payload, true)
}

/// A socket that hears the interface, and the size of its buffer in octets.
fn open(index: u32) -> io::Result<(Box<dyn datalink::DataLinkReceiver>, usize)> {
    // Without a protocol it hears nothing until it is bound to the one interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    let buffer = socket.recv_buffer_size()?;
    let interface = NetworkInterface {
        name: CABLE.to_owned(),
        description: String::new(),
        index,
        mac: None,
        ips: Vec::new(),
        flags: 0,
    };
    let config = datalink::Config {
        read_buffer_size: LONGEST_FRAME,
        read_timeout: Some(Duration::from_millis(50)),
        socket_fd: Some(socket.into_raw_fd()),
        ..datalink::Config::default()
    };
    match datalink::channel(&interface, config)? {
        Channel::Ethernet(_, frames) => Ok((frames, buffer)),
        _ => Err(io::Error::other("not an Ethernet channel")),
    }
}

/// A file for Wireshark and tcpdump (pcap, microseconds, LINKTYPE_ETHERNET).
fn pcap(path: &Path) -> io::Result<BufWriter<File>> {
    let mut file = BufWriter::new(File::create(path)?);
    for word in [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, KEPT as u32, 1] {
        file.write_all(&word.to_ne_bytes())?;
    }
    Ok(file)
}

fn record(file: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let kept = frame.get(..KEPT).unwrap_or(frame);
    for word in [now.as_secs() as u32, now.subsec_micros(), kept.len() as u32, frame.len() as u32] {
        file.write_all(&word.to_ne_bytes())?;
    }
    file.write_all(kept)
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// `IKE, UDP 500` and the like.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ike => f.write_str("IKE, UDP 500"),
            Self::NatTraversal => f.write_str("IKE and ESP, UDP 4500"),
            Self::Esp => f.write_str("ESP, protocol 50"),
            Self::Errors => f.write_str("ICMP errors about these"),
            Self::Neighbours => f.write_str("ARP, IPv6 neighbours"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
