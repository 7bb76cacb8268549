//! What fits through a tunnel (RFC 4301 8), and what becomes of what does not.

use crate::headers::{Headers, IPV4_HEADER, IPV6_HEADER};
use crypto::EspSuite;

/// Octets of a UDP header (RFC 3948 2.1).
const UDP_HEADER: usize = 8;
/// SPI and sequence number.
const ESP_HEADER: usize = 8;
/// Pad length and next header.
const ESP_TRAILER: usize = 2;

/// The smallest MTU a link may have for IPv4 (RFC 791 3.2).
pub const IPV4_MIN_MTU: usize = 68;
/// The smallest MTU a link may have for IPv6 (RFC 8200 5).
pub const IPV6_MIN_MTU: usize = 1280;

/// The longest inner packet that fits an outer packet of `path_mtu` octets; 0
/// if none does.
#[must_use]
pub fn inner_mtu(path_mtu: usize, suite: EspSuite, outer_ipv4: bool, udp_encapsulated: bool) -> usize {
    let outer = if outer_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let udp = if udp_encapsulated { UDP_HEADER } else { 0 };
    let around = outer + udp + ESP_HEADER + suite.encryption.iv_len + suite.icv_len();
    let encrypted = path_mtu.saturating_sub(around);
    (encrypted - encrypted % suite.alignment()).saturating_sub(ESP_TRAILER)
}

/// How a packet goes into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Whole,
    /// As it is, and the outer packet may be fragmented: DF not set.
    OuterFragments,
    /// In fragments of at most this many octets, each protected by itself.
    Fragments(usize),
    /// Not at all: its sender is told this MTU.
    TooBig(usize),
}

/// How a packet of these headers goes into a tunnel with this inner MTU.
///
/// `selects_ports`: the SA may not carry fragments that show no ports (RFC 4301
/// 7), so that the outer packet has to be fragmented instead of the inner one.
#[must_use]
pub fn fit(headers: &Headers, inner_mtu: usize, selects_ports: bool) -> Fit {
    if headers.total_len <= inner_mtu {
        return Fit::Whole;
    }
    let smallest = if headers.is_ipv4() { IPV4_MIN_MTU } else { IPV6_MIN_MTU };
    if inner_mtu < smallest && headers.total_len <= smallest {
        // No sender can be asked for less (RFC 2473 7.1).
        return Fit::OuterFragments;
    }
    let mtu = inner_mtu.max(smallest);
    match (headers.dont_fragment, selects_ports || inner_mtu < smallest) {
        (true, _) => Fit::TooBig(mtu),
        (false, true) => Fit::OuterFragments,
        (false, false) => Fit::Fragments(mtu),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{suites, udp_packet};
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        let suite = |name: &str| EspSuite::parse_with_group(name).unwrap().0;
        // 1500 - 20 - 8 - 16 - 12 = 1444; of that 1440 are whole blocks, and 2 the trailer.
        assert_eq!(inner_mtu(1500, suite("aes128-sha1"), true, false), 1438);
        assert_eq!(inner_mtu(1500, suite("aes128-sha1"), true, true), 1422);
        assert_eq!(inner_mtu(1500, suite("aes128gcm16"), true, false), 1446);
        assert_eq!(inner_mtu(1500, suite("aes128gcm16"), false, false), 1426);
        assert_eq!(inner_mtu(40, suite("aes128-sha1"), true, true), 0);
    }

    #[test]
    fn each_way_to_fit() {
        let headers = |v4, len, df| {
            let mut h = Headers::parse(&udp_packet(v4, len)).unwrap();
            h.dont_fragment = df || !v4;
            h
        };
        assert_eq!(fit(&headers(true, 1000, true), 1000, false), Fit::Whole);
        assert_eq!(fit(&headers(true, 1001, true), 1000, false), Fit::TooBig(1000));
        assert_eq!(fit(&headers(true, 1001, false), 1000, false), Fit::Fragments(1000));
        assert_eq!(fit(&headers(true, 1001, false), 1000, true), Fit::OuterFragments);
        assert_eq!(fit(&headers(true, 60, true), 50, false), Fit::OuterFragments);
        assert_eq!(fit(&headers(true, 69, true), 50, false), Fit::TooBig(68));
        assert_eq!(fit(&headers(true, 69, false), 50, false), Fit::OuterFragments);
        assert_eq!(fit(&headers(false, 1400, true), 1300, false), Fit::TooBig(1300));
        assert_eq!(fit(&headers(false, 1280, true), 1200, false), Fit::OuterFragments);
        assert_eq!(fit(&headers(false, 1281, true), 1200, false), Fit::TooBig(1280));
    }

    proptest! {
        /// The longest that fits, fits, and one more does not.
        #[test]
        fn is_exact(suite in suites(), path in 300usize..9000, outer_ipv4: bool, udp: bool) {
            let inner = inner_mtu(path, suite, outer_ipv4, udp);
            let outer = |inner: usize| {
                let around = if outer_ipv4 { 20 } else { 40 } + if udp { 8 } else { 0 };
                around + 8 + suite.encryption.iv_len + (inner + 2).next_multiple_of(suite.alignment()) + suite.icv_len()
            };
            prop_assert!(outer(inner) <= path);
            prop_assert!(outer(inner + 1) > path);
        }
    }
}
