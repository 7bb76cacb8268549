//! Against packets of scapy, which shares no code with us.

use super::*;
use crate::headers::Headers;
use crate::packet::Packet;
use crate::testing::{Agreement, udp_packet};
use policy::sa::{Mode, SaProtocol};
use std::net::IpAddr;

/// The key is 0, 1, 2, ...; the SPI 0x1234.
struct Vector {
    title: &'static str,
    integrity: &'static str,
    tunnel: bool,
    sequence: u64,
    esn: bool,
    clear: &'static str,
    protected: &'static str,
}

static VECTORS: &[Vector] = &[
    Vector {
        title: "IPv4",
        integrity: "sha1",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "45b80037471140003d11e1e80a0100010a02000104000050002358ca61757468656e746963617465642c2069\
             6e2074686520636c656172",
        protected: "45b8004f471140003d33e1ae0a0100010a020001110400000000123400000007366b8ef763c9c90357cb0abd\
             04000050002358ca61757468656e746963617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv4, extended sequence number",
        integrity: "sha256",
        tunnel: false,
        sequence: 0x300000007,
        esn: true,
        clear: "45b80037471140003d11e1e80a0100010a02000104000050002358ca61757468656e746963617465642c2069\
             6e2074686520636c656172",
        protected: "45b80053471140003d33e1aa0a0100010a0200011105000000001234000000079ef02efa9010794a6bd5e40b\
             c02a99b104000050002358ca61757468656e746963617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv4 with options: no operation, router alert, record route",
        integrity: "sha1",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "48b80043471140003d11d23d0a0100010a02000101940400000707040000000004000050002358ca61757468\
             656e746963617465642c20696e2074686520636c656172",
        protected: "48b8005b471140003d33d2030a0100010a020001019404000007070400000000110400000000123400000007\
             3e7d23512a03ef032988d88704000050002358ca61757468656e746963617465642c20696e2074686520636c\
             656172",
    },
    Vector {
        title: "IPv4 in IPv4",
        integrity: "sha512",
        tunnel: true,
        sequence: 0x7,
        esn: false,
        clear: "45b80037471140003d11e1e80a0100010a02000104000050002358ca61757468656e746963617465642c2069\
             6e2074686520636c656172",
        protected: "45b80077000740004033b591c0000201c00002020409000000001234000000072335d31c9da627ed848e7dba\
             219693cd1127b2699a175c1879b7a6ac2be77ef045b80037471140003d11e1e80a0100010a02000104000050\
             002358ca61757468656e746963617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv6 in IPv4",
        integrity: "md5",
        tunnel: true,
        sequence: 0x7,
        esn: false,
        clear: "600000000023113dfd010000000000000000000000000001fd02000000000000000000000000000104000050\
             002372c861757468656e746963617465642c20696e2074686520636c656172",
        protected: "45000077000740004033b649c0000201c0000202290400000000123400000007bcd3d2850732cef035316114\
             600000000023113dfd010000000000000000000000000001fd02000000000000000000000000000104000050\
             002372c861757468656e746963617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv6",
        integrity: "sha1",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "6b8123450023113dfd010000000000000000000000000001fd02000000000000000000000000000104000050\
             002372c861757468656e746963617465642c20696e2074686520636c656172",
        protected: "6b812345003b333dfd010000000000000000000000000001fd02000000000000000000000000000111040000\
             00001234000000076592409101717844291b67ed04000050002372c861757468656e746963617465642c2069\
             6e2074686520636c656172",
    },
    Vector {
        title: "IPv6, padded AH",
        integrity: "sha256",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "6b8123450023113dfd010000000000000000000000000001fd02000000000000000000000000000104000050\
             002372c861757468656e746963617465642c20696e2074686520636c656172",
        protected: "6b8123450043333dfd010000000000000000000000000001fd02000000000000000000000000000111060000\
             00001234000000076b685fe339ff29b99304f3b032e331bc0000000004000050002372c861757468656e7469\
             63617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv6 with hop-by-hop options, one of which may change",
        integrity: "sha384",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "6b8123450033003dfd010000000000000000000000000001fd02000000000000000000000000000111010502\
             00003e04010203040102000004000050002372c861757468656e746963617465642c20696e2074686520636c\
             656172",
        protected: "6b812345005b003dfd010000000000000000000000000001fd02000000000000000000000000000133010502\
             00003e0401020304010200001108000000001234000000078eb439136445f3b76c0c4115ddb08409055674ae\
             07a907060000000004000050002372c861757468656e746963617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv6 with a routing header",
        integrity: "sha1",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "6b812345004b2b3dfd010000000000000000000000000001fd02000000000000000000000000000111040002\
             00000000fd030000000000000000000000000001fd04000000000000000000000000000104000050002372c6\
             61757468656e746963617465642c20696e2074686520636c656172",
        protected: "6b81234500632b3dfd010000000000000000000000000001fd02000000000000000000000000000133040002\
             00000000fd030000000000000000000000000001fd0400000000000000000000000000011104000000001234\
             00000007e92b5160f8c7ce57391ebe3204000050002372c661757468656e746963617465642c20696e207468\
             6520636c656172",
    },
    Vector {
        title: "IPv4 in IPv6",
        integrity: "sha256",
        tunnel: true,
        sequence: 0x7,
        esn: false,
        clear: "45b80037471140003d11e1e80a0100010a02000104000050002358ca61757468656e746963617465642c2069\
             6e2074686520636c656172",
        protected: "6b80000000573340fd770000000000000000000000000001fd77000000000000000000000000000204060000\
             0000123400000007eadeefc19c53949789e68786adf210450000000045b80037471140003d11e1e80a010001\
             0a02000104000050002358ca61757468656e746963617465642c20696e2074686520636c656172",
    },
    Vector {
        title: "IPv4, GMAC of Python's cryptography, extended sequence number",
        integrity: "aes128gmac",
        tunnel: false,
        sequence: 0x300000007,
        esn: true,
        clear: "45b80037471140003d11e1e80a0100010a02000104000050002358ca61757468656e746963617465642c2069\
             6e2074686520636c656172",
        protected: "45b8005b471140003d33e1a20a0100010a0200011107000000001234000000070000000300000007446dadfe\
             9453f6fbc90dd432d1d6a71004000050002358ca61757468656e746963617465642c20696e2074686520636c\
             656172",
    },
    Vector {
        title: "IPv6, GMAC of Python's cryptography, padded AH",
        integrity: "aes256gmac",
        tunnel: false,
        sequence: 0x7,
        esn: false,
        clear: "6b8123450023113dfd010000000000000000000000000001fd02000000000000000000000000000104000050\
             002372c861757468656e746963617465642c20696e2074686520636c656172",
        protected: "6b812345004b333dfd010000000000000000000000000001fd02000000000000000000000000000111080000\
             0000123400000007000000000000000751efaf8852e07de8962550aa17c148dd0000000004000050002372c8\
             61757468656e746963617465642c20696e2074686520636c656172",
    },
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn packet(octets: &[u8]) -> Packet {
    let mut packet = Packet::new();
    assert!(packet.copy_from(octets));
    packet
}

impl Vector {
    fn ah(&self) -> Ah {
        let (spec, _) = Agreement::ah(self.integrity, self.mode(), true).specs(true);
        let keymat = crypto::Secret::new((0..spec.keymat.len() as u8).collect::<Vec<_>>());
        Ah::of(&SaSpec { keymat, esn: self.esn, ..spec }).unwrap()
    }

    fn content(&self) -> Content {
        if self.tunnel { Content::Tunnel } else { Content::Transport }
    }

    fn mode(&self) -> Mode {
        if self.tunnel { Mode::Tunnel } else { Mode::Transport }
    }

    /// The outer header's fields, from the packet itself.
    fn outer(&self) -> Outer {
        let protected = hex(self.protected);
        let v4 = protected[0] >> 4 == 4;
        let address = |at: usize| -> IpAddr {
            match v4 {
                true => <[u8; 4]>::try_from(&protected[at..at + 4]).unwrap().into(),
                false => <[u8; 16]>::try_from(&protected[at..at + 16]).unwrap().into(),
            }
        };
        let (local, remote) = if v4 { (address(12), address(16)) } else { (address(8), address(24)) };
        let traffic_class = if v4 { protected[1] } else { protected[0] << 4 | protected[1] >> 4 };
        Outer { local, remote, traffic_class, dont_fragment: v4 && protected[6] & 0x40 != 0, hop_limit: 64 }
    }
}

#[test]
fn packets_of_scapy_are_authentic_and_come_out_as_they_went_in() {
    for v in VECTORS {
        let mut octets = hex(v.protected);
        let mut jobs = [OpenJob { packet: &mut octets, sequence: v.sequence, authentic: false }];
        v.ah().open(&mut jobs);
        assert!(jobs[0].authentic, "{}", v.title);
        let mut packet = packet(&octets);
        assert!(remove(&mut packet, v.mode()).is_some());
        assert_eq!(packet.as_slice(), hex(v.clear), "{}", v.title);
    }
}

#[test]
fn our_packets_are_those_of_scapy() {
    for v in VECTORS {
        let (ah, mut ours) = (v.ah(), packet(&hex(v.clear)));
        assert!(insert(&mut ours, v.content(), &v.outer(), 0x1234, v.sequence as u32, ah.icv_len), "{}", v.title);
        ah.seal(&mut [SealJob { packet: ours.as_mut_slice(), sequence: v.sequence }]);
        assert_eq!(ours.as_slice(), hex(v.protected), "{}", v.title);
    }
}

#[test]
fn what_changes_on_the_way_may_change_and_nothing_else() {
    for v in VECTORS {
        let (good, ah) = (hex(v.protected), v.ah());
        let v4 = good[0] >> 4 == 4;
        let at = place(&good).unwrap().at;
        for bit in 0..good.len() * 8 {
            let mut octets = good.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            let mutable = if v4 {
                matches!(bit / 8, 1 | 6..=8 | 10 | 11)
            } else {
                // All but the version of the first word; the hop limit.
                matches!(bit, 0..4 | 8..32) || bit / 8 == 7
            };
            let authentic = ah.is_authentic(&octets, v.sequence);
            // Options and extension headers have rules of their own.
            if bit / 8 < 20 || bit / 8 >= at {
                assert_eq!(authentic, mutable, "{}: bit {bit}", v.title);
            }
        }
        assert!(!ah.is_authentic(&good, v.sequence + (1 << 32)) || !v.esn, "{}: high half", v.title);
        for len in 0..good.len() {
            assert!(!ah.is_authentic(&good[..len], v.sequence), "{}: {len} octets", v.title);
        }
    }
}

/// A record route is zeros to the ICV, a router alert is not; so with options that may change.
#[test]
fn options_are_covered_as_their_types_say() {
    let named = |title: &str| VECTORS.iter().find(|v| v.title.starts_with(title)).unwrap();
    let v = named("IPv4 with options");
    // NOP, router alert (4 octets), record route (7).
    for (at, covered) in [(22, true), (24, true), (29, false), (31, false)] {
        let mut octets = hex(v.protected);
        octets[at] ^= 1;
        assert_eq!(v.ah().is_authentic(&octets, v.sequence), !covered, "octet {at}");
    }
    let v = named("IPv6 with hop-by-hop");
    // Next header, length, router alert (4 octets), an option that may change (type, length, 4 octets).
    for (at, covered) in [(45, true), (46, true), (47, true), (48, false), (51, false)] {
        let mut octets = hex(v.protected);
        octets[at] ^= 1;
        assert_eq!(v.ah().is_authentic(&octets, v.sequence), !covered, "octet {at}");
    }
}

#[test]
fn malformed_packets_are_no_packets_of_ah() {
    assert_eq!(place(&[]), None);
    let good = hex(VECTORS[0].protected);
    for (at, value, why) in [
        (0, 0x44, "a header too short"),
        (0, 0x4f, "a header beyond the packet"),
        (9, 50, "ESP"),
        (21, 0, "an AH of 8 octets"),
        (21, 255, "an AH beyond the packet"),
        (21, 1, "an AH without room for the ICV"),
    ] {
        let mut octets = good.clone();
        octets[at] = value;
        assert!(!VECTORS[0].ah().is_authentic(&octets, 7), "{why}");
    }
    // Options and routing headers that end nowhere.
    let mut options = hex(VECTORS[2].protected);
    options[22] = 0;
    assert!(!VECTORS[2].ah().is_authentic(&options, 7));
    let mut routing = hex(VECTORS[8].protected);
    routing[43] = 9;
    assert!(!VECTORS[8].ah().is_authentic(&routing, 7));
}

#[test]
fn every_integrity_algorithm_in_both_modes_and_families() {
    for row in crypto::table::INTEGRITIES.iter() {
        for (mode, ipv4) in
            [(Mode::Tunnel, true), (Mode::Tunnel, false), (Mode::Transport, true), (Mode::Transport, false)]
        {
            let agreement = Agreement { esn: true, ..Agreement::ah(row.keyword, mode, ipv4) };
            let [(_, near), (far, _)] = agreement.sas();
            assert_eq!(near.spec().protocol, SaProtocol::Ah);
            for len in [60, 61, 1000, usize::from(near.inner_mtu())] {
                let sent = udp_packet(ipv4, len);
                let headers = Headers::parse(&sent).unwrap();
                let inner = crate::esp::outbound::Inner {
                    packet: packet(&sent),
                    ipv4,
                    traffic_class: headers.traffic_class,
                    dont_fragment: true,
                    outer_fragments: false,
                };
                let sealed = crate::esp::tests::seal_inner(&near, inner);
                assert!(sealed.len() <= 1500, "{row} {mode:?} {len}: {}", sealed.len());
                let got = crate::esp::tests::open_one(&far, sealed).unwrap();
                // What has no identification gets one: the ICV covers it.
                let skip = if ipv4 { 12 } else { 0 };
                assert_eq!(got[skip..], sent[skip..], "{row} {mode:?} {len}");
            }
            let most = usize::from(near.inner_mtu());
            let around =
                header_len(row.icv_len, ipv4) + if mode == Mode::Tunnel { if ipv4 { 20 } else { 40 } } else { 0 };
            assert_eq!(most + around, 1500, "{row} {mode:?}");
        }
    }
}
