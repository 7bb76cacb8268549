//! What is on the wire: a capture by tcpdump, and a strict reading of it.

use crate::lab::Host;
use crate::process::Background;
use crate::wait;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// A capture that is going on.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Background,
    /// Where the packets are.
    pub file: PathBuf,
}

/// The kinds of frame that may be on a protected link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// UDP to or from port 500.
    Ike,
    /// UDP to or from port 4500: IKE, ESP, keepalives.
    NatTraversal,
    /// IP protocol 50.
    Esp,
    /// ARP, ICMPv6 neighbour discovery and group membership.
    Neighbours,
    /// ICMP between outer addresses.
    OuterIcmp,
    /// Anything else: clear-text.
    Clear,
}

impl Capture {
    /// Starts to capture every frame of a host's interface.
    ///
    /// # Panics
    /// If tcpdump does not start.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host, interface: &str) -> Self {
        Self::with_length(host, interface, 65_535)
    }

    /// As [`Capture::start`] for bulk transfers: only the headers, and some payload, of each frame.
    #[must_use]
    #[track_caller]
    pub fn start_headers(host: &Host, interface: &str) -> Self {
        Self::with_length(host, interface, 400)
    }

    #[track_caller]
    fn with_length(host: &Host, interface: &str, octets: u32) -> Self {
        let file = host.directory.join(format!("{interface}.pcap"));
        let _ = std::fs::remove_file(&file);
        let log = host.directory.join(format!("tcpdump-{interface}.log"));
        let _ = std::fs::remove_file(&log);
        let mut command = host.command("tcpdump");
        // As root and packet by packet: else it cannot write here, or loses the last second.
        command.args(["-Z", "root", "-U", "--immediate-mode", "-n", "-i", interface]);
        // A buffer (KiB) for the bursts of a bulk transfer.
        command.args(["-s", &octets.to_string(), "-B", "131072", "-w"]).arg(&file);
        let mut tcpdump = Background::spawn(&mut command, &log, &log);
        wait::until_true("tcpdump to listen", 15, || {
            assert!(tcpdump.is_running(), "tcpdump ended: {}", tcpdump.output());
            tcpdump.output().contains("listening on")
        });
        Self { tcpdump, file }
    }

    /// Frames up to now, while the capture goes on.
    #[must_use]
    pub fn so_far(&self) -> Vec<Vec<u8>> {
        frames(&std::fs::read(&self.file).unwrap_or_default())
    }

    /// Ends the capture.
    ///
    /// # Panics
    /// If the kernel dropped frames of it: then it proves nothing.
    #[must_use]
    #[track_caller]
    pub fn stop(mut self) -> Vec<Vec<u8>> {
        self.tcpdump.terminate(10);
        let log = self.tcpdump.output();
        assert!(log.contains("0 packets dropped by kernel"), "the capture is not complete: {log}");
        self.so_far()
    }
}

/// The frames of a file in libpcap's classic format, written by this machine.
fn frames(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let Some(rest) = file.get(24..) else { return frames };
    file = rest;
    while let Some((header, rest)) = file.split_at_checked(16) {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        frames.push(frame.to_vec());
        file = rest;
    }
    frames
}

/// The ISAKMP messages among frames, whole, those on port 4500 without their non-ESP marker.
#[must_use]
pub fn isakmp(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let message = |frame: &Vec<u8>| {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
        match (udp.source_port(), udp.destination_port()) {
            (500, _) | (_, 500) => Some(udp.payload().to_vec()),
            (4500, _) | (_, 4500) => udp.payload().strip_prefix(&[0; 4]).map(<[u8]>::to_vec),
            _ => None,
        }
    };
    frames.iter().filter_map(message).filter(|message| message.len() >= 28).collect()
}

/// Which kind of frame it is.
#[must_use]
pub fn kind(frame: &[u8]) -> Kind {
    // Lax: only the beginning of a long frame is captured.
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return Kind::Clear };
    let (source, destination): (IpAddr, IpAddr) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(LaxNetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(LaxNetSlice::Arp(_)) => return Kind::Neighbours,
        None => return Kind::Clear,
    };
    let protocol = packet.ip_payload().map(|payload| payload.ip_number.0);
    match (&packet.transport, protocol) {
        _ if is_inner(source) || is_inner(destination) => Kind::Clear,
        (_, Some(50)) => Kind::Esp,
        (Some(TransportSlice::Udp(udp)), _) => {
            let either = |port| udp.source_port() == port || udp.destination_port() == port;
            if either(4500) {
                Kind::NatTraversal
            } else if either(500) {
                Kind::Ike
            } else {
                Kind::Clear
            }
        }
        // Router solicitation to redirect (133 to 137); group membership (130 to 132, 143).
        (Some(TransportSlice::Icmpv6(icmp)), _) if matches!(icmp.type_u8(), 130..=137 | 143) => Kind::Neighbours,
        (Some(TransportSlice::Icmpv6(_) | TransportSlice::Icmpv4(_)), _) => Kind::OuterIcmp,
        _ => Kind::Clear,
    }
}

/// Whether an address is in the protected networks of [`crate::lab`].
fn is_inner(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[..2] == [10, 78],
        IpAddr::V6(a) => a.segments()[0] == 0xfd78,
    }
}

/// Frames by kind.
#[must_use]
pub fn census(frames: &[Vec<u8>]) -> BTreeMap<Kind, usize> {
    let mut census = BTreeMap::new();
    for frame in frames {
        *census.entry(kind(frame)).or_insert(0) += 1;
    }
    census
}

/// No frame is clear-text, and none holds an inner packet's addresses or `secret` anywhere.
///
/// # Panics
/// If one does.
#[track_caller]
pub fn assert_protected(frames: &[Vec<u8>], a: &Host, b: &Host, secret: &[u8]) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(x) => x.octets().to_vec(),
        IpAddr::V6(x) => x.octets().to_vec(),
    };
    let pair = |x: IpAddr, y: IpAddr| [octets(x), octets(y)].concat();
    let mut forbidden = vec![
        pair(a.inner(), b.inner()),
        pair(b.inner(), a.inner()),
        pair(a.inner6(), b.inner6()),
        pair(b.inner6(), a.inner6()),
    ];
    if !secret.is_empty() {
        forbidden.push(secret.to_vec());
    }
    for (number, frame) in frames.iter().enumerate() {
        assert_ne!(kind(frame), Kind::Clear, "frame {} of the capture is clear-text: {frame:02x?}", number + 1);
        for needle in &forbidden {
            let found = frame.windows(needle.len()).any(|w| w == needle);
            assert!(!found, "frame {} of the capture shows {needle:02x?} in the clear: {frame:02x?}", number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn udp(source: [u8; 4], destination: [u8; 4], port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(source, destination, 64)
            .udp(40_000, port)
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    #[test]
    fn clear_text_is_recognised() {
        assert_eq!(kind(&udp([10, 77, 0, 1], [10, 77, 0, 2], 500)), Kind::Ike);
        assert_eq!(kind(&udp([10, 77, 0, 1], [10, 77, 0, 2], 4500)), Kind::NatTraversal);
        assert_eq!(kind(&udp([10, 77, 0, 1], [10, 77, 0, 2], 80)), Kind::Clear);
        assert_eq!(kind(&udp([10, 78, 1, 1], [10, 78, 2, 1], 4500)), Kind::Clear);
        assert_eq!(kind(&[]), Kind::Clear);
    }
}
