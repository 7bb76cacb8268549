//! AH around ESP, as one: against packets of scapy, and with what is missing or wrong.

use super::*;
use crate::headers::Headers;
use crate::sa::{InboundSa, pair};
use crypto::Secret;
use crypto::table::Integrity;
use policy::sa::{Mode, SaProtocol};

/// A packet of scapy: ESP with sequence number 7 in AES-CBC and HMAC-SHA-1, in AH with HMAC-SHA-256 (whose ICV is
/// of Python's hmac: scapy takes ESP in AH for ESP).
struct Vector {
    mode: Mode,
    ipv4: bool,
    clear: &'static str,
    protected: &'static str,
}

static VECTORS: [Vector; 3] = [
    Vector {
        mode: Mode::Transport,
        ipv4: true,
        clear: "45b8003f471140003d11e1e00a0100010a02000104000050002b3a1261757468656e746963617465642c2061\
             6e64206e6f7420696e2074686520636c656172",
        protected: "45b80084471140003d33e1790a0100010a020001320500000000100100000007188920949e00eb0b5b77a98a\
             837e43380000100100000007505152535455565758595a5b5c5d5e5fd89caed884ba40769ac2c3dd09353aa5\
             c77a280793b013831eabc62ed9d3b39cf1ee43b95ce42d49a247f0f2320850aae1d7bb6a1552970bd79f0ad8",
    },
    Vector {
        mode: Mode::Tunnel,
        ipv4: true,
        clear: "45b8003f471140003d11e1e00a0100010a02000104000050002b3a1261757468656e746963617465642c2061\
             6e64206e6f7420696e2074686520636c656172",
        protected: "450000a4000100004033f622c0000201c0000202320500000000100100000007b2c5f8f7d73a85fb3d9b3c8c\
             3ababc790000100100000007505152535455565758595a5b5c5d5e5f85f7fc7c717c9948dfadc49ac9dcd469\
             d4dc2c9011bc5ae94123b42c06b8f0603faf3710a411dc5d17d7e79b8484041b0e437f187127f29273d703d3\
             d577e53061aafbf05b129cf7b5d2c129f0d1330bdd9bcbfc16ae545cd68d6730",
    },
    Vector {
        mode: Mode::Transport,
        ipv4: false,
        clear: "6b800000002b113dfd010000000000000000000000000001fd02000000000000000000000000000104000050\
             002b541061757468656e746963617465642c20616e64206e6f7420696e2074686520636c656172",
        protected: "6b8000000074333dfd010000000000000000000000000001fd02000000000000000000000000000132060000\
             00001001000000072d82d8e9d444e20f04609c6fcf21eba80000000000001001000000075051525354555657\
             58595a5b5c5d5e5f098628ca61fd255f011d9d24a6d889621b6debe9c3fdf3d336f708a335380f1aad70f8bf\
             d29d6287339403d85a959246e98832f8f23f3816cfa76617",
    },
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn bundle(mode: Mode, ipv4: bool) -> Agreement {
    let agreement = match mode {
        Mode::Tunnel => Agreement { inner_ipv4: ipv4, outer_ipv4: ipv4, ..Agreement::new(suite("aes128-sha1")) },
        Mode::Transport => Agreement::transport(suite("aes128-sha1"), ipv4),
    };
    Agreement { ah_outside: Integrity::from_keyword("sha256"), ..agreement }
}

fn all() -> impl Iterator<Item = Agreement> {
    let of = |mode| [true, false].map(|ipv4| bundle(mode, ipv4));
    [Mode::Tunnel, Mode::Transport].into_iter().flat_map(of)
}

#[test]
fn packets_of_scapy_are_opened() {
    for vector in &VECTORS {
        let agreement = bundle(vector.mode, vector.ipv4);
        let (mut inbound, outbound) = agreement.specs(false);
        inbound.keymat = Secret::new((0..36).collect::<Vec<u8>>());
        inbound.ah.as_mut().unwrap().keymat = Secret::new((40..72).collect::<Vec<u8>>());
        let mut b = Host::of(&agreement, false, false);
        b.shared.install_pair(&inbound, &outbound, &[3; 16]).unwrap();
        let protected = hex(vector.protected);
        let whole = Arrival {
            packet: packet(&protected),
            local: SocketAddr::new(inbound.local, 0),
            remote: SocketAddr::new(inbound.remote, 0),
            encapsulated: false,
            protocol: SaProtocol::Ah,
            traffic_class: Headers::parse(&protected).unwrap().traffic_class,
            hop_limit: 61,
        };
        let clear = hex(vector.clear);
        let delivered = b.receive(vec![whole]);
        assert_eq!(delivered.len(), 1, "{:?} {:?}", vector.mode, b.totals());
        // The identification of a packet of transport mode is not its own any more.
        let header = if vector.ipv4 { 20 } else { 40 };
        assert_eq!(delivered[0][header..], clear[header..]);
        assert_eq!(Headers::parse(&delivered[0]).unwrap(), Headers::parse(&clear).unwrap());
    }
}

#[test]
fn both_protect_in_order() {
    for agreement in all() {
        let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
        let packets: Vec<_> = (0..40).map(|n| udp_packet(agreement.inner_ipv4, 100 + n)).collect();
        a.send(&packets);
        let wire = a.on_the_wire();
        for (n, arrival) in wire.iter().enumerate() {
            let octets = arrival.packet.as_slice();
            assert_eq!(arrival.protocol, SaProtocol::Ah);
            let ah = crate::ah::place(octets).unwrap();
            assert_eq!((ah.spi, ah.sequence, ah.next_header), (0x1001, n as u32 + 1, 50));
            let esp = &octets[ah.at + ah.len..];
            assert_eq!((&esp[..4], &esp[4..8]), (&0x1001u32.to_be_bytes()[..], &(n as u32 + 1).to_be_bytes()[..]));
        }
        let delivered = b.receive(wire);
        let headers = |p: &Vec<u8>| Headers::parse(p).unwrap();
        assert_eq!(delivered.iter().map(headers).collect::<Vec<_>>(), packets.iter().map(headers).collect::<Vec<_>>());
        let sas = b.shared.pair(1).unwrap();
        let counted = |sa: &InboundSa| (sa.packets(), sa.octets(), sa.window().top());
        let ah = sas.inbound.outside().unwrap();
        assert_eq!(counted(ah), counted(&sas.inbound));
        assert_eq!(counted(ah).0, 40);
        assert_eq!(a.shared.pair(1).unwrap().outbound.outside().unwrap().packets(), 40);
    }
}

/// What is sent as only one of the two is nothing, however right it is.
#[test]
fn one_of_the_two_is_not_enough() {
    for agreement in all() {
        let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
        let packets = some_packets(agreement.inner_ipv4, 3);
        a.send(&packets);
        let wire = a.on_the_wire();
        // The ESP alone.
        let naked = |n: usize| {
            let ah = crate::ah::place(wire[n].packet.as_slice()).unwrap();
            let esp = packet(&wire[n].packet.as_slice()[ah.at + ah.len..]);
            Arrival { packet: esp, protocol: SaProtocol::Esp, ..copy(&wire[n]) }
        };
        assert!(b.receive(vec![naked(0)]).is_empty());
        assert_eq!(b.drops(DropReason::BundleIncomplete), 1);
        // AH alone, by somebody who has its key: with the packet itself inside.
        let (_, mut outbound) = agreement.specs(true);
        let outer = outbound.ah.take().unwrap();
        (outbound.protocol, outbound.suite, outbound.keymat) = (SaProtocol::Ah, outer.suite, outer.keymat);
        let (mut inbound, _) = agreement.specs(true);
        inbound.ah = None;
        let (_, ah) = pair(&inbound, &outbound, 0, &[7; 16], 64).unwrap();
        let ah = Arc::new(ah);
        ah.set_sequence(9);
        let headers = Headers::parse(&packets[0]).unwrap();
        let mut inner = vec![crate::esp::outbound::Inner {
            packet: packet(&packets[0]),
            ipv4: headers.is_ipv4(),
            traffic_class: 0,
            dont_fragment: false,
            outer_fragments: false,
        }];
        let mut sealed = Vec::new();
        let df = policy::config::DfPolicy::Copy;
        crate::esp::outbound::seal(&ah, &mut inner, df, now(), &mut sealed, &mut |_, _| {}, &mut |_| {});
        assert!(b.receive(vec![arrival(&sealed[0], &ah)]).is_empty());
        assert_eq!(b.drops(DropReason::BundleIncomplete), 2, "{:?}", b.totals());
        // Nothing of this has touched the ESP's window, and AH's only what was authentic.
        let sas = b.shared.pair(1).unwrap();
        assert_eq!((sas.inbound.window().top(), sas.inbound.outside().unwrap().window().top()), (0, 10));
        // A changed octet of the outer header, of AH, of ESP: AH sees all of them.
        for at in [wire[1].packet.len() - 1, wire[1].packet.len() / 2, if agreement.outer_ipv4 { 12 } else { 8 }] {
            let mut changed = copy(&wire[1]);
            changed.packet.as_mut_slice()[at] ^= 1;
            assert!(b.receive(vec![changed]).is_empty());
        }
        assert_eq!(b.drops(DropReason::AuthenticationFailed), 3);
        assert_eq!(b.receive(vec![copy(&wire[1]), copy(&wire[1])]).len(), 1);
        assert_eq!(b.drops(DropReason::Replayed), 1);
        assert!(a.events().is_empty() && b.events().is_empty());
    }
}

/// Too long for the path: in fragments, or its sender told, as with ESP alone.
#[test]
fn sizes_are_those_of_both() {
    for agreement in all() {
        let mut a = Host::of(&agreement, true, true);
        let sa = a.shared.pair(1).unwrap().outbound;
        let longest = usize::from(sa.inner_mtu());
        let plain = Agreement { ah_outside: None, ..agreement.clone() };
        let without = Host::of(&plain, true, true).shared.pair(1).unwrap().outbound.inner_mtu();
        assert!(longest + 24 <= usize::from(without), "{longest} {without}");
        a.send(&[udp_packet(agreement.inner_ipv4, longest)]);
        let wire = a.on_the_wire();
        assert!(wire.len() == 1 && wire[0].packet.len() <= 1500, "{}", wire[0].packet.len());
        // The next step of the block cipher would not have fitted.
        assert!(wire[0].packet.len() + 16 > 1500, "{}", wire[0].packet.len());
    }
}

#[test]
fn volume_ends_both_at_once() {
    let agreement = Agreement { kbytes: 4, ..bundle(Mode::Tunnel, true) };
    let (mut a, mut b) = (Host::of(&agreement, true, true), Host::of(&agreement, false, true));
    a.send(&vec![udp_packet(true, 1000); 5]);
    let wire = a.on_the_wire();
    assert_eq!(wire.len(), 4);
    assert_eq!(b.receive(wire).len(), 4);
    assert_eq!(a.drops(DropReason::SaExpired), 1);
    assert_eq!(a.events().len(), 2, "soft and hard, once for all four SAs");
}

#[test]
fn specs_that_are_no_bundle() {
    let agreement = bundle(Mode::Tunnel, true);
    let (inbound, outbound) = agreement.specs(true);
    let refused =
        |inbound: &policy::sa::SaSpec, outbound: &policy::sa::SaSpec| pair(inbound, outbound, 0, &[0; 16], 64).err();
    let mut half = outbound.clone();
    half.ah = None;
    assert!(matches!(refused(&inbound, &half), Some(crate::sa::SaError::NotAPair { field: "ah", .. })));
    let mut apart = inbound.clone();
    apart.ah.as_mut().unwrap().spi += 1;
    assert!(matches!(refused(&apart, &outbound), Some(crate::sa::SaError::NotAPair { field: "ah", .. })));
    let mut reserved = outbound.clone();
    reserved.ah.as_mut().unwrap().spi = 255;
    assert_eq!(refused(&inbound, &reserved), Some(crate::sa::SaError::ReservedSpi { spi: 255 }));
    assert!(pair(&inbound, &outbound, 0, &[0; 16], 64).is_ok());
}
