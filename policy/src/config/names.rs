//! Names for numbers of packets: protocols, services, ICMP types and codes.

use super::nearest::did_you_mean;

/// IP protocols by name (IANA "Protocol Numbers").
pub(super) const PROTOCOLS: &[(&str, u8)] = &[
    ("ICMP", ICMP),
    ("IGMP", 2),
    ("IPIP", 4),
    ("TCP", 6),
    ("UDP", 17),
    ("DCCP", 33),
    ("IPV6", 41),
    ("GRE", 47),
    ("ESP", 50),
    ("AH", 51),
    ("ICMPV6", ICMPV6),
    ("OSPF", 89),
    ("PIM", 103),
    ("VRRP", 112),
    ("L2TP", 115),
    ("SCTP", 132),
    ("UDPLITE", 136),
];

/// IP protocol of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Whether a protocol has ports.
#[must_use]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// `TCP`, or the number of a protocol without a name here.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    PROTOCOLS.iter().find(|(_, n)| *n == protocol).map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

/// Well-known services (IANA "Service Name and Transport Protocol Port Number Registry").
const SERVICES: &[(&str, u16)] = &[
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("ntp", 123),
    ("imap", 143),
    ("snmp", 161),
    ("snmptrap", 162),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("isakmp", 500),
    ("exec", 512),
    ("login", 513),
    ("shell", 514),
    ("syslog", 514),
    ("printer", 515),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("l2tp", 1701),
    ("radius", 1812),
    ("nfs", 2049),
    ("mysql", 3306),
    ("rdp", 3389),
    ("ipsec-nat-t", 4500),
    ("sip", 5060),
    ("postgresql", 5432),
    ("x11", 6000),
];

/// ICMP message types (IANA "ICMP Type Numbers").
const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

/// ICMPv6 message types (IANA "ICMPv6 Type Numbers").
const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("multicast-listener-query", 130),
    ("multicast-listener-report", 131),
    ("multicast-listener-done", 132),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbor-solicitation", 135),
    ("neighbor-advertisement", 136),
    ("redirect", 137),
    ("multicast-listener-report-v2", 143),
    ("mobile-prefix-solicitation", 146),
    ("mobile-prefix-advertisement", 147),
];

/// Codes of ICMP destination-unreachable (RFC 792, RFC 1191).
const UNREACHABLE_CODES: &[(&str, u8)] = &[
    ("network-unreachable", 0),
    ("host-unreachable", 1),
    ("protocol-unreachable", 2),
    ("port-unreachable", 3),
    ("fragmentation-needed", 4),
];

/// Codes of ICMPv6 destination-unreachable (RFC 4443 3.1).
const UNREACHABLE_CODES_V6: &[(&str, u8)] =
    &[("no-route", 0), ("administratively-prohibited", 1), ("address-unreachable", 3), ("port-unreachable", 4)];

/// Why a name or number was refused.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// What was expected.
    pub expected: String,
    /// What to do.
    pub suggestion: Option<String>,
}

/// `expected ...; did you mean ...?`
impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "expected {}", self.expected)?;
        self.suggestion.iter().try_for_each(|s| write!(f, "; {s}"))
    }
}

impl std::error::Error for Refused {}

/// An IP protocol by name or number; `ALL` and 0 (RFC 2407 4.6.2) are any.
pub fn protocol(text: &str) -> Result<Option<u8>, Refused> {
    if text.eq_ignore_ascii_case("ALL") {
        return Ok(None);
    }
    if let Ok(number) = text.parse::<u8>() {
        return Ok((number != 0).then_some(number));
    }
    match PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, number)) => Ok(Some(*number)),
        None => Err(Refused {
            expected: "ALL, a number from 0 to 255, or a name such as TCP, UDP, ICMP, ICMPV6, SCTP".to_owned(),
            suggestion: did_you_mean(text, PROTOCOLS.iter().map(|(name, _)| *name).chain(["ALL"])),
        }),
    }
}

/// Ports: `80`, `http`, `8000-8080`; 0 is any. As (lowest, highest).
pub fn ports(text: &str) -> Result<(u16, u16), Refused> {
    if text == "0" {
        return Ok((0, u16::MAX));
    }
    span(text, SERVICES, u16::MAX).map_err(|suggestion| Refused {
        expected: "a port from 1 to 65535, a range such as 8000-8080, or the name of a well-known service".to_owned(),
        suggestion,
    })
}

/// An ICMP type: number, range or name, as (lowest, highest).
pub fn icmp_type(protocol: u8, text: &str) -> Result<(u8, u8), Refused> {
    let names = if protocol == ICMPV6 { ICMPV6_TYPES } else { ICMP_TYPES };
    span(text, names, u8::MAX).map_err(|suggestion| Refused {
        expected: "a number from 0 to 255, a range such as 3-5, or a name such as echo-request".to_owned(),
        suggestion,
    })
}

/// An ICMP code: number, range or, for destination-unreachable, name; as (lowest, highest).
pub fn icmp_code(protocol: u8, kind: (u8, u8), text: &str) -> Result<(u8, u8), Refused> {
    let (names, expected) = match (protocol, kind) {
        (ICMP, (3, 3)) => (UNREACHABLE_CODES, ", or a name such as port-unreachable"),
        (ICMPV6, (1, 1)) => (UNREACHABLE_CODES_V6, ", or a name such as port-unreachable"),
        _ => (&[] as &[_], ""),
    };
    span(text, names, u8::MAX).map_err(|suggestion| Refused {
        expected: format!("a number from 0 to 255 or a range such as 0-3{expected}"),
        suggestion,
    })
}

/// A number up to `most`, a range of two in order, or a name; the error is a suggestion.
fn span<T>(text: &str, names: &[(&str, T)], most: T) -> Result<(T, T), Option<String>>
where
    T: Copy + PartialOrd + core::str::FromStr,
{
    // `+5` parses as a number in Rust, but nobody writes a port so.
    let number = |t: &str| if t.starts_with('+') { None } else { t.parse::<T>().ok().filter(|n| *n <= most) };
    if let Some(n) = number(text) {
        return Ok((n, n));
    }
    if let Some((_, n)) = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok((*n, *n));
    }
    if let Some((low, high)) = text.split_once('-')
        && let (Some(a), Some(b)) = (number(low), number(high))
    {
        return if a <= b { Ok((a, b)) } else { Err(Some(format!("write the lower one first: {high}-{low}"))) };
    }
    Err(did_you_mean(text, names.iter().map(|(name, _)| *name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        assert_eq!(protocol("tcp"), Ok(Some(6)));
        assert_eq!(protocol("ALL"), Ok(None));
        assert_eq!(protocol("0"), Ok(None));
        assert_eq!(protocol("255"), Ok(Some(255)));
        assert_eq!(protocol("256").map_err(|e| e.suggestion), Err(None));
        assert_eq!(protocol("UPD").map_err(|e| e.suggestion), Err(Some("did you mean `UDP`?".into())));
    }

    #[test]
    fn port_ranges() {
        assert_eq!(ports("80"), Ok((80, 80)));
        assert_eq!(ports("0"), Ok((0, 65535)));
        assert_eq!(ports("8000-8080"), Ok((8000, 8080)));
        assert_eq!(ports("ftp-data"), Ok((20, 20)));
        assert_eq!(ports("HTTP"), Ok((80, 80)));
        for bad in ["65536", "-1", "+80", "80-", "", "8080-8000", "80-90-100", "htpp-x"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn icmp() {
        assert_eq!(icmp_type(ICMP, "echo-request"), Ok((8, 8)));
        assert_eq!(icmp_type(ICMPV6, "echo-request"), Ok((128, 128)));
        assert_eq!(icmp_type(ICMP, "0-18"), Ok((0, 18)));
        assert!(icmp_type(ICMP, "packet-too-big").is_err());
        assert_eq!(icmp_code(ICMP, (3, 3), "port-unreachable"), Ok((3, 3)));
        assert_eq!(icmp_code(ICMPV6, (1, 1), "port-unreachable"), Ok((4, 4)));
        assert!(icmp_code(ICMP, (8, 8), "port-unreachable").is_err());
    }
}
