//! Somebody on the network who wants no tunnel but trouble.

use ike::wire::numbers::{ExchangeType, PayloadKind, ProtocolId};
use ike::wire::{Attribute, Body, Cookie, Flags, Header, Message, Payload, Proposal, SecurityAssociation, Transform};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::traffic;
use tests::wait;

/// At least so many first messages.
const FLOOD: u64 = 100_000;
/// So many every 10 ms: enough to fill any table of half-open negotiations within a second, and no
/// more than an unoptimized daemon takes from its socket on a busy machine.
const BURST: u64 = 100;

/// A first message of main mode with the proposal of [`PLAIN`], and `vendor` as a vendor ID.
fn first_message(initiator: u64, vendor: [u8; 16]) -> Vec<u8> {
    // AES with 128 bits, SHA-1, pre-shared key, group 14, 28800 s (RFC 2409 appendix A).
    let attributes = [(1, 7), (14, 128), (2, 2), (3, 1), (4, 14), (11, 1), (12, 28_800)];
    let attributes = attributes.map(|(kind, value)| Attribute::basic(kind, value)).to_vec();
    let transforms = vec![Transform { number: 1, id: 1, attributes }];
    let proposals = vec![Proposal { number: 1, protocol: ProtocolId::ISAKMP, spi: Vec::new(), transforms }];
    let header = Header {
        initiator: Cookie(initiator.to_be_bytes()),
        responder: Cookie::ZERO,
        first: PayloadKind::SECURITY_ASSOCIATION,
        exchange: ExchangeType::MAIN_MODE,
        flags: Flags::default(),
        message_id: 0,
    };
    let sa = Payload::SecurityAssociation(SecurityAssociation { proposals });
    Message { header, body: Body::Clear(vec![sa, Payload::VendorId(vendor.to_vec())]) }.encode()
}

/// An IPv4 packet with UDP from `source` to `destination`, both ports 500; the kernel adds the checksum of the header.
fn packet(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let udp = 8 + payload.len() as u16;
    let mut out = vec![0x45, 0];
    out.extend((20 + udp).to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    out.extend(source);
    out.extend(destination);
    out.extend([500u16, 500, udp, 0].map(u16::to_be_bytes).concat());
    out.extend(payload);
    out
}

/// Sends first messages to `victim` until told to stop: a third under the address of `peer`, the
/// others under any; every other one with proposals like no other's.
fn flood(attacker: &Host, victim: IpAddr, peer: IpAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let (IpAddr::V4(to), IpAddr::V4(peer)) = (victim, peer) else { unreachable!("the lab's addresses are IPv4") };
    attacker.inside(|| {
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).expect("a raw socket");
        for n in 0u64.. {
            if stop.load(Relaxed) {
                return;
            }
            if n % BURST == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let [.., a, b] = mixed.to_be_bytes();
            let source = if n % 3 == 0 { peer.octets() } else { [10, 66, a, b] };
            let mut vendor = [7; 16];
            if n % 2 == 0 {
                vendor[..8].copy_from_slice(&mixed.to_be_bytes());
            }
            let datagram = packet(source, to.octets(), &first_message(mixed | 1, vendor));
            let destination = SocketAddr::new(victim, 0);
            if sendto(&raw, &datagram, SendFlags::empty(), &destination).is_ok() {
                sent.fetch_add(1, Relaxed);
            }
        }
    });
}

/// A flood of first messages under forged addresses: a peer is served while it lasts, the daemon's
/// memory does not grow with it, its log stays short, and nothing is left of it.
#[test]
fn a_flood_of_forged_first_messages() {
    let Some(lab) = Lab::open("flood", 3, &[]) else { return };
    let [a, b, c] = lab.hosts() else { unreachable!("three hosts were asked for") };
    let at_a = Caponier::start(a, &Configuration::new(Tunnel::new(a, b, PLAIN)));
    let anybody = "[[ike]]\nname = \"anybody\"\nremote = \"10.66.0.0/16\"\nproposals = [\"aes128-sha1-modp2048\"]\n\
                   [[auth]]\nname = \"anybody\"\nremote = \"10.66.0.0/16\"\npreshared = \"some-secret-or-other-1\"\n";
    let configuration = Configuration { more: anybody.into(), ..Configuration::new(Tunnel::new(b, a, PLAIN)) };
    let at_b = Caponier::start(b, &configuration);
    // Once before, so that what the first negotiation takes is not counted.
    traffic::ping_all(a, b, 1);
    let before = at_b.resident_kbytes();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        s.spawn(|| flood(c, b.outer(), a.outer(), &stop, &sent));
        wait::until_true("the flood to be on", 30, || sent.load(Relaxed) > 20_000);
        // A begins anew, in the middle of it.
        at_a.admin(&["-deletesa", &b.outer().to_string()]);
        let answered = traffic::ping(a, a.inner(), b.inner(), 1, 20);
        wait::until_true("the flood to be over", 60, || sent.load(Relaxed) >= FLOOD);
        stop.store(true, Relaxed);
        assert_eq!(answered, 1, "nobody is kept out by {} forged messages", sent.load(Relaxed));
    });
    at_a.wait_tunnel(40, "to_b", "up");
    let grown = at_b.resident_kbytes().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} kB more for {} messages", sent.load(Relaxed));
    assert_eq!(at_b.report("mad").len(), 1, "one ISAKMP SA, that with A");
    let lines = at_b.log().lines().count();
    assert!(lines < 2000, "{lines} lines of log for {} messages", sent.load(Relaxed));
    traffic::ping_all(a, b, 2);
    println!("{} forged messages, {grown} kB, {lines} lines", sent.load(Relaxed));
}
