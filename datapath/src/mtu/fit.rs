//! How a packet goes into a tunnel (RFC 4301 8).

use super::SMALLEST;
use crate::headers::Headers;

/// The smallest MTU a link may have for IPv6 (RFC 8200 5).
const IPV6_MIN_MTU: u16 = 1280;

/// How a packet goes into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Whole,
    /// As it is, and the outer packet may be fragmented: DF not set.
    OuterFragments,
    /// In fragments of at most this many octets, each protected by itself.
    Fragments(u16),
    /// Not at all: its sender is told this MTU.
    TooBig(u16),
}

/// How a packet of these headers goes into a tunnel of this
/// [`inner_mtu`](super::inner_mtu).
///
/// `only_whole`: the SA may not carry fragments, so that the outer packet has to
/// be fragmented instead of the inner one.
#[must_use]
pub fn fit(headers: &Headers, inner_mtu: u16, only_whole: bool) -> Fit {
    let len = headers.total_len;
    // The floor of `inner_mtu` is a promise that only a fragmented outer packet keeps.
    let at_floor = usize::from(inner_mtu) <= SMALLEST;
    if len <= usize::from(inner_mtu) {
        return if at_floor { Fit::OuterFragments } else { Fit::Whole };
    }
    if headers.is_ipv4() {
        return match (headers.dont_fragment, only_whole || at_floor) {
            (true, _) => Fit::TooBig(inner_mtu),
            (false, true) => Fit::OuterFragments,
            (false, false) => Fit::Fragments(inner_mtu),
        };
    }
    // No IPv6 sender can be asked for less than the minimum MTU (RFC 2473 7.1).
    if len <= usize::from(IPV6_MIN_MTU) { Fit::OuterFragments } else { Fit::TooBig(inner_mtu.max(IPV6_MIN_MTU)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp_packet;

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
        assert_eq!(fit(&headers(true, 60, true), 68, false), Fit::OuterFragments);
        assert_eq!(fit(&headers(true, 69, true), 68, false), Fit::TooBig(68));
        assert_eq!(fit(&headers(true, 69, false), 68, false), Fit::OuterFragments);
        assert_eq!(fit(&headers(false, 1300, true), 1300, false), Fit::Whole);
        assert_eq!(fit(&headers(false, 1400, true), 1300, false), Fit::TooBig(1300));
        assert_eq!(fit(&headers(false, 1280, true), 1200, false), Fit::OuterFragments);
        assert_eq!(fit(&headers(false, 1281, true), 1200, false), Fit::TooBig(1280));
    }
}
