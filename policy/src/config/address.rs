//! Addresses as the file writes them: `10.1.0.0/16`, `10.1.1.1-10.1.1.3`, `10.1.1.1/32/80`, `fd00::/64`.

use super::names;
use super::nearest::did_you_mean;
use super::object::quoted;
use crate::selector::AddressRange;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Addresses and ports of one side of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) range: AddressRange,
    /// (lowest, highest); everything if none were named.
    pub(super) ports: (u16, u16),
    /// Bits of the address beyond the prefix were set, and are ignored.
    pub(super) host_bits: bool,
}

/// Why an address was refused: what is wrong, and what to do.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

/// How an end point is written.
pub(super) const ENDPOINT: &str =
    "an address such as 10.1.1.1, 10.1.0.0/16, 10.1.1.1-10.1.1.3 or fd00::/64, with ports as in 10.1.1.1/32/80";

/// How a network is written.
pub(super) const NETWORK: &str = "an address such as 10.1.1.1, 10.1.0.0/16, 10.1.1.1-10.1.1.3 or fd00::/64";

impl Refused {
    fn new(message: String) -> Self {
        Self { message, suggestion: None }
    }

    fn suggest(message: String, suggestion: String) -> Self {
        Self { message, suggestion: Some(suggestion) }
    }
}

/// How the address of one host is written.
const HOST: &str = "the address of one host, such as 10.1.1.1 or fd00::1";

/// An end point: address, prefix or range, and perhaps ports after it.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Refused> {
    read(text, true)
}

fn read(text: &str, ports_allowed: bool) -> Result<Endpoint, Refused> {
    let mut parts = text.splitn(3, '/');
    let (address, prefix, ports) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    let ports = match ports {
        Some(p) => names::ports(p).map_err(|e| Refused {
            message: format!("{} in {} is not a port; expected {}", quoted(p), quoted(text), e.expected),
            suggestion: e.suggestion,
        })?,
        None => (0, u16::MAX),
    };
    let (range, host_bits) = match range_of(address)? {
        Some(range) => (range_with_prefix(range, prefix, text)?, false),
        None => network_of(address, prefix, text, ports_allowed)?,
    };
    unicast(range, text)?;
    Ok(Endpoint { range, ports, host_bits })
}

/// A network without ports.
pub(super) fn network(text: &str) -> Result<Endpoint, Refused> {
    if text.split('/').count() > 2 {
        return Err(Refused::new(format!(
            "{} names ports, which have no place here; expected {NETWORK}",
            quoted(text)
        )));
    }
    read(text, false)
}

/// One address that packets can be sent to and from.
pub(super) fn single(text: &str) -> Result<IpAddr, Refused> {
    if let Some((address, prefix)) = text.split_once('/')
        && let Ok(a) = address.parse::<IpAddr>()
    {
        return Err(Refused::suggest(
            format!("{} is a network; expected {HOST}", quoted(text)),
            format!("leave out `/{prefix}`: {a}"),
        ));
    }
    let address = parse_address(text, HOST)?;
    if address.is_unspecified() {
        return Err(Refused::new(format!("{} is no address of a host; expected {HOST}", quoted(text))));
    }
    if let IpAddr::V6(a) = address
        && a.is_unicast_link_local()
    {
        return Err(Refused::new(format!(
            "{} is link-local, so it means nothing without an interface; expected a global or unique local address",
            quoted(text)
        )));
    }
    unicast(AddressRange::single(address), text)?;
    Ok(address)
}

/// `A-B`; `None` if it is not of this form.
fn range_of(text: &str) -> Result<Option<AddressRange>, Refused> {
    let Some((first, last)) = text.split_once('-') else { return Ok(None) };
    let (first, last) = (parse_address(first.trim(), NETWORK)?, parse_address(last.trim(), NETWORK)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(Refused::new(format!("the range {} mixes IPv4 and IPv6", quoted(text))));
    }
    match AddressRange::new(first, last) {
        Some(range) => Ok(Some(range)),
        None => Err(Refused::suggest(
            format!("the range {} ends before it begins", quoted(text)),
            format!("did you mean `{last}-{first}`?"),
        )),
    }
}

/// A range takes only the prefix of a single address, and only so that ports can follow it.
fn range_with_prefix(range: AddressRange, prefix: Option<&str>, text: &str) -> Result<AddressRange, Refused> {
    let full = if range.is_ipv4() { "32" } else { "128" };
    match prefix {
        None => Ok(range),
        Some(p) if p == full => Ok(range),
        Some(p) => Err(Refused::suggest(
            format!("the range {} has the prefix {}; a range takes none", quoted(text), quoted(p)),
            format!("leave it out, or name ports after /{full}: {range}/{full}/{p}"),
        )),
    }
}

/// `A` or `A/prefix`, and whether bits beyond the prefix were set.
fn network_of(
    address: &str,
    prefix: Option<&str>,
    text: &str,
    ports_allowed: bool,
) -> Result<(AddressRange, bool), Refused> {
    let a = parse_address(address, NETWORK)?;
    let width: u8 = if a.is_ipv4() { 32 } else { 128 };
    let length = match prefix {
        Some(p) => p.parse().ok().filter(|n: &u8| *n <= width && !p.starts_with('+')).ok_or_else(|| {
            let message = format!("{} in {} is not a prefix length; expected 0 to {width}", quoted(p), quoted(text));
            match p.parse::<Ipv4Addr>().ok().and_then(mask_length).filter(|_| a.is_ipv4()) {
                Some(n) => Refused::suggest(message, format!("did you mean `{a}/{n}`?")),
                // A number just above the width is rather a mistyped prefix than a port.
                None if ports_allowed && names::ports(p).is_ok() && p.parse().map_or(true, |n: u16| n >= 80) => {
                    Refused::suggest(message, format!("ports come after the prefix: {a}/{width}/{p}"))
                }
                None => Refused::new(message),
            }
        })?,
        // As HP-UX: all-zero is everything, anything else one host.
        None if a.is_unspecified() => 0,
        None => width,
    };
    match AddressRange::prefix(a, length) {
        Some(range) => Ok((range, range.first() != a)),
        None => Err(Refused::new(format!("{} is not a network", quoted(text)))),
    }
}

/// The prefix length of a netmask such as 255.255.0.0.
fn mask_length(mask: Ipv4Addr) -> Option<u32> {
    let bits = mask.to_bits();
    let length = bits.leading_ones();
    (bits.count_ones() == length).then_some(length)
}

fn parse_address(text: &str, expected: &str) -> Result<IpAddr, Refused> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(a)) => match a.to_ipv4_mapped() {
            Some(v4) => Err(Refused::suggest(
                format!("{} is an IPv4 address in IPv6 clothes, which no packet carries", quoted(text)),
                format!("did you mean `{v4}`?"),
            )),
            None => Ok(IpAddr::V6(a)),
        },
        Ok(a) => Ok(a),
        Err(_) => Err(not_an_address(text, expected)),
    }
}

fn not_an_address(text: &str, expected: &str) -> Refused {
    let message = format!("{} is not an address; expected {expected}", quoted(text));
    let suggestion = if text.eq_ignore_ascii_case("any") || text.eq_ignore_ascii_case("all") || text == "*" {
        Some("write 0.0.0.0/0 for every IPv4 address, ::/0 for every IPv6 address".to_owned())
    } else if let Ok(socket) = text.parse::<SocketAddr>() {
        let width = if socket.is_ipv4() { 32 } else { 128 };
        Some(format!("ports come after the prefix: {}/{width}/{}", socket.ip(), socket.port()))
    } else if text.contains('%') {
        Some("leave out the interface after `%`".to_owned())
    } else if text.split('.').count() == 4 && text.split('.').any(|p| p.len() > 1 && p.starts_with('0')) {
        Some("leave out leading zeros".to_owned())
    } else if text.chars().any(|c| c.is_ascii_alphabetic()) && !text.contains(':') {
        did_you_mean(text, ["localhost"])
            .map(|_| "did you mean `127.0.0.1`?".to_owned())
            .or_else(|| Some("host names are not looked up; write the address".to_owned()))
    } else {
        None
    };
    Refused { message, suggestion }
}

/// IPsec here is between two hosts: no multicast, no broadcast. Ranges that merely include them are fine.
fn unicast(range: AddressRange, text: &str) -> Result<(), Refused> {
    let kind = match (range.first(), range.last()) {
        (IpAddr::V4(a), _) if a.is_broadcast() => "broadcast",
        (IpAddr::V4(a), IpAddr::V4(b)) if a.is_multicast() && b.is_multicast() => "multicast",
        (IpAddr::V6(a), _) if a.is_multicast() => "multicast",
        _ => return Ok(()),
    };
    Err(Refused::new(format!("{} is {kind}; expected unicast addresses", quoted(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> String {
        endpoint(text).expect(text).range.to_string()
    }

    #[test]
    fn forms() {
        assert_eq!(range("10.1.1.1"), "10.1.1.1");
        assert_eq!(range("0.0.0.0"), "0.0.0.0/0");
        assert_eq!(range("::"), "::/0");
        assert_eq!(range("10.1.0.0/16"), "10.1.0.0/16");
        assert_eq!(range("10.1.1.1-10.1.1.3"), "10.1.1.1-10.1.1.3");
        assert_eq!(range("fd00::/64"), "fd00::/64");
        assert_eq!(range("10.0.0.0-240.0.0.0"), "10.0.0.0-240.0.0.0");
        assert_eq!(endpoint("10.1.1.1/32/80").map(|e| e.ports), Ok((80, 80)));
        assert_eq!(endpoint("10.1.1.1/32/0").map(|e| e.ports), Ok((0, 65535)));
        assert_eq!(endpoint("fd00::1/128/8000-8080").map(|e| e.ports), Ok((8000, 8080)));
        assert_eq!(endpoint("10.1.1.1-10.1.1.3/32/ssh").map(|e| e.ports), Ok((22, 22)));
        assert_eq!(
            endpoint("10.1.2.3/16").map(|e| (e.range.to_string(), e.host_bits)),
            Ok(("10.1.0.0/16".into(), true))
        );
    }

    #[test]
    fn refusals() {
        let suggestion = |text: &str| endpoint(text).expect_err(text).suggestion.unwrap_or_default();
        assert_eq!(suggestion("10.1.0.0/255.255.0.0"), "did you mean `10.1.0.0/16`?");
        assert_eq!(suggestion("10.1.1.1/http"), "ports come after the prefix: 10.1.1.1/32/http");
        assert_eq!(suggestion("10.1.1.1:80"), "ports come after the prefix: 10.1.1.1/32/80");
        assert_eq!(suggestion("[fd00::1]:80"), "ports come after the prefix: fd00::1/128/80");
        assert_eq!(suggestion("any"), "write 0.0.0.0/0 for every IPv4 address, ::/0 for every IPv6 address");
        assert_eq!(suggestion("10.1.01.1"), "leave out leading zeros");
        assert_eq!(suggestion("::ffff:10.1.1.1"), "did you mean `10.1.1.1`?");
        assert_eq!(suggestion("10.1.1.3-10.1.1.1"), "did you mean `10.1.1.1-10.1.1.3`?");
        assert_eq!(
            suggestion("10.1.1.1-10.1.1.3/24"),
            "leave it out, or name ports after /32: 10.1.1.1-10.1.1.3/32/24"
        );
        for bad in [
            "",
            "/",
            "10.1.1",
            "10.1.1.1/33",
            "10.1.1.1/+8",
            "fd00::/129",
            "10.1.1.1-fd00::1",
            "224.0.0.1",
            "ff02::/16",
            "255.255.255.255",
            "10.1.1.1/32/",
            "10.1.1.1/32/80/tcp",
            "10.1.1.1-",
            "fe80::1%eth0",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn single_addresses() {
        assert!(single("10.1.1.1").is_ok());
        assert!(single("fd00::1").is_ok());
        for bad in ["0.0.0.0", "::", "10.1.1.0/24", "10.1.1.1-10.1.1.2", "224.0.0.1", "fe80::1", "255.255.255.255"] {
            assert!(single(bad).is_err(), "{bad}");
        }
    }
}
