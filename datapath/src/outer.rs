//! Fields of the outer IP header that depend on the inner one, and back
//! (RFC 4301 5.1.2, RFC 6040).
//!
//! The header itself is written by the kernel, or by whatever puts the packet
//! on the wire.

use crate::headers::{Headers, seal_ipv4_header};

/// Hop limit of outer packets. The inner one is left alone: it was decremented
/// by whoever forwarded the packet to us, or not at all.
pub const OUTER_TTL: u8 = 64;

/// What the outer header says beside addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterFields {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// DF of IPv4; in IPv6, that we do not fragment it ourselves.
    pub dont_fragment: bool,
    /// Hop limit; `None` leaves it to the kernel.
    pub hop_limit: Option<u8>,
}

/// Explicit congestion notification, the low two bits of the traffic class (RFC 3168 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ecn {
    NotEct,
    Ect1,
    Ect0,
    Ce,
}

impl Ecn {
    fn of(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// DSCP and ECN are copied out (RFC 4301 5.1.2.1; RFC 6040 4.1 normal mode).
#[must_use]
pub fn outer_fields(inner_traffic_class: u8, dont_fragment: bool) -> OuterFields {
    OuterFields { traffic_class: inner_traffic_class, dont_fragment, hop_limit: None }
}

/// Congestion was signalled to a packet whose ends do not know ECN: it has to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion experienced outside, but the inner packet is not ECN-capable")]
pub struct IllegalEcn;

/// The inner traffic class of a packet that arrives: its own DSCP, and the ECN
/// field of RFC 6040 4.2, figure 4.
pub fn inner_traffic_class(inner: u8, outer: u8) -> Result<u8, IllegalEcn> {
    let ecn = match (Ecn::of(inner), Ecn::of(outer)) {
        (Ecn::NotEct, Ecn::Ce) => return Err(IllegalEcn),
        (Ecn::NotEct, _) => Ecn::NotEct,
        (Ecn::Ce, _) | (_, Ecn::Ce) => Ecn::Ce,
        (Ecn::Ect0, Ecn::Ect1) | (Ecn::Ect1, _) => Ecn::Ect1,
        (Ecn::Ect0, _) => Ecn::Ect0,
    };
    Ok(inner & !3 | ecn as u8)
}

/// Writes a traffic class into a packet with these headers.
pub fn set_traffic_class(packet: &mut [u8], headers: &Headers, traffic_class: u8) {
    if headers.is_ipv4() {
        packet[1] = traffic_class;
        seal_ipv4_header(&mut packet[..headers.header_len]);
    } else {
        packet[0] = packet[0] & 0xf0 | traffic_class >> 4;
        packet[1] = packet[1] & 0x0f | traffic_class << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp_packet;

    /// RFC 6040 figure 4: rows the inner field, columns the outer; `None` drops.
    #[test]
    fn ecn_table() {
        const NOT_ECT: u8 = 0;
        const ECT1: u8 = 1;
        const ECT0: u8 = 2;
        const CE: u8 = 3;
        let columns = [NOT_ECT, ECT0, ECT1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in columns.into_iter().zip(row) {
                // The inner DSCP stays, the outer one goes.
                let got = inner_traffic_class(0xb8 | inner, 0x20 | outer).ok();
                assert_eq!(got, expected.map(|e| 0xb8 | e), "inner {inner:02b} outer {outer:02b}");
            }
        }
    }

    #[test]
    fn a_changed_class_keeps_the_packet_valid() {
        for v4 in [true, false] {
            let mut packet = udp_packet(v4, 100);
            let before = Headers::parse(&packet).unwrap();
            set_traffic_class(&mut packet, &before, 0xbb);
            let after = Headers::parse(&packet).unwrap();
            assert_eq!(after, Headers { traffic_class: 0xbb, ..before });
            if v4 {
                assert_eq!(crate::headers::checksum(&[&packet[..20]]), 0);
            }
        }
    }
}
