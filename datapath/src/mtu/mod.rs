//! Sizes: what fits through a tunnel, and what becomes of what does not.
//!
//! A packet that does not fit is fragmented before it is encrypted, if its
//! sender allows that (IPv4 without DF: [`fragment`]); otherwise its sender is
//! told the size that fits ([`icmp`]); [`fit`] says which. Nothing relies on TCP's MSS.

pub mod fit;
pub mod fragment;
pub mod icmp;

use crypto::EspSuite;
use policy::config::{Config, NatTraversal};
use policy::sa::{Mode, SaProtocol};
use policy::time::Timestamp;
use std::net::IpAddr;

/// Octets of an IPv4 header without options.
const IPV4_HEADER: usize = 20;
/// Octets of an IPv6 header without extension headers.
const IPV6_HEADER: usize = 40;
/// Octets of a UDP header (RFC 3948 2.1).
const UDP_HEADER: usize = 8;
/// SPI and sequence number.
const ESP_HEADER: usize = 8;
/// Pad length and next header.
const ESP_TRAILER: usize = 2;
/// The MTU of Ethernet.
const ETHERNET: u16 = 1500;
/// What every IPv4 path carries (RFC 791 3.2).
const SMALLEST: usize = 68;

/// The largest inner packet, in octets, whose ESP or AH packet is no larger than
/// `path_mtu` octets, outer IP header included; `udp`: it travels in UDP
/// (RFC 3948). In transport mode the packet has its outer header itself. Never less than 68, what IPv4 asks of every link: a path too
/// narrow even for that makes the outer packet fragment.
#[must_use]
pub fn inner_mtu(path_mtu: u16, protocol: SaProtocol, suite: EspSuite, mode: Mode, outer_ipv4: bool, udp: bool) -> u16 {
    let outer = if outer_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    if protocol == SaProtocol::Ah {
        let around = crate::ah::header_len(suite.icv_len(), outer_ipv4) + if mode == Mode::Tunnel { outer } else { 0 };
        let inner = usize::from(path_mtu).saturating_sub(around).max(SMALLEST);
        return u16::try_from(inner).unwrap_or(u16::MAX);
    }
    let fixed = outer + if udp { UDP_HEADER } else { 0 } + ESP_HEADER + suite.encryption.iv_len + suite.icv_len();
    let encrypted = usize::from(path_mtu).saturating_sub(fixed);
    let aligned = encrypted - encrypted % suite.alignment();
    let payload = aligned.saturating_sub(ESP_TRAILER);
    let inner = match mode {
        Mode::Tunnel => payload,
        Mode::Transport => payload + outer,
    };
    let inner = inner.max(SMALLEST);
    // No larger than `path_mtu`, or 68.
    u16::try_from(inner).unwrap_or(u16::MAX)
}

/// Octets that the AH of a bundle adds.
pub(crate) fn ah_len(suite: EspSuite, ipv4: bool) -> u16 {
    u16::try_from(crate::ah::header_len(suite.icv_len(), ipv4)).unwrap_or(u16::MAX)
}

/// The MTU of the TUN interface for a configuration: as it says, or else the
/// smallest [`inner_mtu`] of any tunnel with any of its transforms. Where the
/// policy leaves it to the path whether ESP travels in UDP, it is taken to.
/// `path_mtu` tells the MTU of the path between two addresses; a path it does
/// not know is left out. Without tunnels it is that of Ethernet.
#[must_use]
pub fn interface_mtu(config: &Config, mut path_mtu: impl FnMut(IpAddr, IpAddr) -> Option<u16>) -> u16 {
    if let Some(mtu) = config.startup.mtu {
        return mtu;
    }
    let mut smallest = None;
    for tunnel in config.tunnels.iter().filter(|t| !t.tdestination.is_unspecified()) {
        let Some(path) = path_mtu(tunnel.tsource, tunnel.tdestination) else { continue };
        let udp = config.ike_policy(tunnel.tdestination).is_none_or(|p| p.nat_traversal != NatTraversal::Off);
        let ipv4 = tunnel.tdestination.is_ipv4();
        let inner = tunnel.transforms.iter().map(|t| {
            // AH does not go in UDP, nor does a bundle.
            let (ah, udp) = t.outside().map_or((0, udp), |ah| (ah_len(ah.suite, ipv4), false));
            inner_mtu(path.saturating_sub(ah), t.protocol, t.suite, tunnel.mode, ipv4, udp)
        });
        let inner = inner.min();
        smallest = smallest.into_iter().chain(inner).min();
    }
    smallest.unwrap_or(ETHERNET)
}

/// A token bucket: answers to packets that do not fit are limited, so that
/// nobody can make us flood anybody (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
#[derive(Clone, Debug)]
pub struct RateLimit {
    interval_micros: u64,
    burst: u64,
    /// Micro-seconds' worth of tokens spent, counted down as time passes.
    spent: u64,
    last: Timestamp,
}

impl RateLimit {
    /// `per_second` in the long run, `burst` at once.
    ///
    /// # Panics
    /// If either is 0.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        assert!(per_second > 0 && burst > 0, "a limit of nothing is no limit");
        let interval_micros = 1_000_000 / u64::from(per_second);
        Self { interval_micros, burst: u64::from(burst), spent: 0, last: Timestamp::default() }
    }

    /// Whether one more is within the limit; if so it is counted.
    pub fn allow(&mut self, now: Timestamp) -> bool {
        let passed = u64::try_from(now.since(self.last).as_micros()).unwrap_or(u64::MAX);
        self.last = self.last.max(now);
        self.spent = self.spent.saturating_sub(passed);
        let allowed = self.spent + self.interval_micros <= self.burst * self.interval_micros;
        if allowed {
            self.spent += self.interval_micros;
        }
        allowed
    }
}

/// The Internet checksum as it stands in a packet.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    crate::headers::checksum(parts).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn the_largest_that_fits_fits_and_one_more_does_not() {
        for suite in EspSuite::all() {
            for (outer_ipv4, udp) in [(true, false), (true, true), (false, false), (false, true)] {
                for path in 280..1600u16 {
                    for mode in [Mode::Tunnel, Mode::Transport] {
                        let header = if outer_ipv4 { 20 } else { 40 };
                        let size = |inner: u16| {
                            let a = suite.alignment();
                            let taken_off = if mode == Mode::Transport { header } else { 0 };
                            let encrypted = (usize::from(inner) - taken_off + 2).div_ceil(a) * a;
                            let outer = header + if udp { 8 } else { 0 };
                            outer + 8 + suite.encryption.iv_len + encrypted + suite.icv_len()
                        };
                        let inner = inner_mtu(path, SaProtocol::Esp, suite, mode, outer_ipv4, udp);
                        assert!(size(inner) <= usize::from(path), "{suite} {mode:?} {path}");
                        assert!(size(inner + 1) > usize::from(path), "{suite} {mode:?} {path}");
                    }
                }
                assert_eq!(inner_mtu(0, SaProtocol::Esp, suite, Mode::Tunnel, outer_ipv4, udp), 68);
            }
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limit = RateLimit::new(10, 3);
        let start = Timestamp::from_micros(5_000_000);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((0..5).filter(|_| limit.allow(start)).count(), 3);
        assert!(!limit.allow(at(99)));
        assert!(limit.allow(at(100)));
        assert!(!limit.allow(at(101)));
        assert_eq!((0..9).filter(|_| limit.allow(at(60_000))).count(), 3, "idle time saves up a burst, not more");
        assert!(!limit.allow(at(50_000)), "a clock that steps back gives nothing");
    }

    #[test]
    fn checksum_of_the_rfc() {
        // RFC 1071 3: the sum is ddf2.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), (!0xddf2u16).to_be_bytes());
        assert_eq!(checksum(&[&[0x01]]), (!0x0100u16).to_be_bytes());
    }
}
