//! What mode configuration tells a client (draft-ietf-ipsec-isakmp-mode-cfg-05 3.3): as attributes, and back.

use crate::wire::attributes::configuration as class;
use crate::wire::{Attribute, AttributeValue, Attributes};
use policy::selector::AddressRange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// DNS servers and networks that are looked at.
const MOST: usize = 64;
/// Octets of the longest banner that is shown.
const LONGEST_BANNER: usize = 1024;

/// An address for a client, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The address inside.
    pub address: IpAddr,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// Networks to be reached through the tunnel; empty: all that it may carry. Each has a prefix.
    pub networks: Vec<AddressRange>,
    /// Words for the user.
    pub banner: Option<String>,
    /// Seconds for which the address may be used.
    pub seconds: Option<u32>,
}

/// What we ask for: addresses of both families, as far as the peer has them.
pub(crate) fn wanted() -> Vec<Attribute> {
    let classes = [
        class::IP4_ADDRESS,
        class::IP4_NETMASK,
        class::IP4_DNS,
        class::ADDRESS_EXPIRY,
        class::IP6_ADDRESS,
        class::IP6_DNS,
        class::IP4_SUBNET,
        class::IP6_SUBNET,
        class::UNITY_BANNER,
        class::UNITY_SPLIT_INCLUDE,
    ];
    classes.map(|kind| variable(kind, Vec::new())).to_vec()
}

impl Assignment {
    /// As attributes; with `asked`, only those of the classes that the client asks for.
    pub(crate) fn attributes(&self, asked: Option<&Attributes>) -> Vec<Attribute> {
        let mut out = Vec::new();
        match self.address {
            IpAddr::V4(address) => {
                out.push(variable(class::IP4_ADDRESS, address.octets().to_vec()));
                out.push(variable(class::IP4_NETMASK, vec![0xff; 4]));
            }
            IpAddr::V6(address) => {
                let mut octets = address.octets().to_vec();
                octets.push(128);
                out.push(variable(class::IP6_ADDRESS, octets));
            }
        }
        if let Some(seconds) = self.seconds {
            out.push(variable(class::ADDRESS_EXPIRY, seconds.to_be_bytes().to_vec()));
        }
        out.extend(self.dns.iter().map(|server| match server {
            IpAddr::V4(server) => variable(class::IP4_DNS, server.octets().to_vec()),
            IpAddr::V6(server) => variable(class::IP6_DNS, server.octets().to_vec()),
        }));
        let mut split = Vec::new();
        for network in &self.networks {
            match (network.first(), network.prefix_len()) {
                (IpAddr::V4(first), Some(prefix)) => {
                    let both = [first.octets(), mask(prefix).octets()].concat();
                    split.extend_from_slice(&both);
                    split.extend_from_slice(&[0; 6]);
                    out.push(variable(class::IP4_SUBNET, both));
                }
                (IpAddr::V6(first), Some(prefix)) => {
                    let mut octets = first.octets().to_vec();
                    octets.push(prefix);
                    out.push(variable(class::IP6_SUBNET, octets));
                }
                // The configuration takes none such.
                (_, None) => {}
            }
        }
        if !split.is_empty() {
            out.push(variable(class::UNITY_SPLIT_INCLUDE, split));
        }
        if let Some(banner) = &self.banner {
            out.push(variable(class::UNITY_BANNER, banner.clone().into_bytes()));
        }
        out.retain(|attribute| asked.is_none_or(|asked| asked.get(attribute.kind).is_some()));
        out
    }

    /// Out of what a peer tells; the first address counts.
    ///
    /// # Errors
    /// What is missing, or not as it must be.
    pub(crate) fn read(told: &Attributes) -> Result<Self, String> {
        let malformed = |what: &str| format!("{what} in a form that none has");
        let address = match (told.get(class::IP4_ADDRESS), told.get(class::IP6_ADDRESS)) {
            (Some(v4), _) if !octets(v4).is_empty() => {
                ipv4(octets(v4)).map(IpAddr::V4).ok_or_else(|| malformed("an address"))?
            }
            (_, Some(v6)) if !octets(v6).is_empty() => {
                let octets = octets(v6);
                ipv6(octets.get(..16).filter(|_| octets.len() <= 17).unwrap_or_default())
                    .map(IpAddr::V6)
                    .ok_or_else(|| malformed("an address"))?
            }
            _ => return Err("no address".to_owned()),
        };
        let unusable = match address {
            IpAddr::V4(a) => a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.is_broadcast(),
            IpAddr::V6(a) => a.is_unspecified() || a.is_multicast() || a.is_loopback(),
        };
        if unusable {
            return Err(format!("the address {address}, which no host can have"));
        }
        let v4 = told.all(class::IP4_DNS).filter_map(|a| ipv4(octets(a))).map(IpAddr::V4);
        let v6 = told.all(class::IP6_DNS).filter_map(|a| ipv6(octets(a))).map(IpAddr::V6);
        let dns = v4.chain(v6).filter(|server| !server.is_unspecified()).take(MOST).collect();
        let expiry = told.get(class::ADDRESS_EXPIRY).and_then(Attribute::as_number);
        Ok(Self {
            address,
            dns,
            networks: networks(told)?,
            banner: told.get(class::UNITY_BANNER).map(words).filter(|words| !words.is_empty()),
            seconds: expiry.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
        })
    }
}

/// Networks behind the peer: of Unity, else those of the draft.
fn networks(told: &Attributes) -> Result<Vec<AddressRange>, String> {
    const ENTRY: usize = 14;
    let mut found = Vec::new();
    for attribute in told.all(class::UNITY_SPLIT_INCLUDE) {
        let octets = octets(attribute);
        // Some leave the padding of the last one out.
        for entry in octets.chunks(ENTRY) {
            let pair = entry.get(..8).ok_or("a split network that is cut short")?;
            found.push(subnet(pair)?);
        }
    }
    if found.is_empty() {
        for attribute in told.all(class::IP4_SUBNET).filter(|a| !octets(a).is_empty()) {
            found.push(subnet(octets(attribute))?);
        }
        for attribute in told.all(class::IP6_SUBNET).filter(|a| !octets(a).is_empty()) {
            let octets = octets(attribute);
            let network = match octets.split_at_checked(16) {
                Some((address, [prefix])) => ipv6(address).and_then(|a| AddressRange::prefix(IpAddr::V6(a), *prefix)),
                _ => None,
            };
            found.push(network.ok_or("a network that is none")?);
        }
    }
    found.truncate(MOST);
    Ok(found)
}

/// Address and mask.
fn subnet(octets: &[u8]) -> Result<AddressRange, String> {
    let network = match octets.split_at_checked(4) {
        Some((address, given)) => ipv4(address).zip(ipv4(given)).and_then(|(address, given)| {
            let prefix = given.to_bits().leading_ones() as u8;
            let network = Ipv4Addr::from_bits(address.to_bits() & given.to_bits());
            AddressRange::prefix(network.into(), prefix).filter(|_| mask(prefix) == given)
        }),
        None => None,
    };
    network.ok_or_else(|| "a network whose mask is none".to_owned())
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

fn variable(kind: u16, value: Vec<u8>) -> Attribute {
    Attribute { kind, value: AttributeValue::Variable(value) }
}

fn octets(attribute: &Attribute) -> &[u8] {
    match &attribute.value {
        AttributeValue::Variable(octets) => octets,
        AttributeValue::Basic(_) => &[],
    }
}

fn ipv4(octets: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

fn ipv6(octets: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(octets).ok().map(Ipv6Addr::from)
}

/// A banner as it may stand in a line of the audit log.
fn words(attribute: &Attribute) -> String {
    let octets = octets(attribute);
    let octets = octets.get(..octets.len().min(LONGEST_BANNER)).unwrap_or_default();
    String::from_utf8_lossy(octets).trim_matches(['\0', '\n', '\r', ' ']).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::AttributesKind;

    fn told(attributes: Vec<Attribute>) -> Attributes {
        Attributes { kind: AttributesKind::REPLY, identifier: 1, attributes }
    }

    fn range(text: &str, prefix: u8) -> AddressRange {
        AddressRange::prefix(text.parse().unwrap(), prefix).unwrap()
    }

    fn assignment() -> Assignment {
        Assignment {
            address: [10, 3, 0, 7].into(),
            dns: vec![[10, 1, 0, 53].into(), "fd00::53".parse().unwrap()],
            networks: vec![range("10.1.0.0", 16), range("10.2.3.0", 25), range("0.0.0.0", 0)],
            banner: Some("Hello".into()),
            seconds: Some(86_400),
        }
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        let all = assignment();
        assert_eq!(Assignment::read(&told(all.attributes(None))).unwrap(), all);
        let six = Assignment { address: "fd00::7".parse().unwrap(), networks: vec![range("fd01::", 48)], ..all };
        assert_eq!(Assignment::read(&told(six.attributes(None))).unwrap(), six);
        // Without the classes of Unity it is the same.
        let plain = told(assignment().attributes(None).into_iter().filter(|a| a.kind != 28676).collect());
        assert_eq!(Assignment::read(&plain).unwrap().networks, assignment().networks);
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let asked = told(vec![variable(class::IP4_ADDRESS, vec![]), variable(class::UNITY_BANNER, vec![])]);
        let kinds: Vec<_> = assignment().attributes(Some(&asked)).iter().map(|a| a.kind).collect();
        assert_eq!(kinds, [class::IP4_ADDRESS, class::UNITY_BANNER]);
        let everything = told(wanted());
        assert_eq!(assignment().attributes(Some(&everything)), assignment().attributes(None));
    }

    /// As Cisco writes them: address, mask, six octets of padding, each.
    #[test]
    fn split_networks_on_the_wire() {
        let attributes = assignment().attributes(None);
        let split = attributes.iter().find(|a| a.kind == class::UNITY_SPLIT_INCLUDE).unwrap();
        let expected = [
            [10, 1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0],
            [10, 2, 3, 0, 255, 255, 255, 128, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(octets(split), expected.concat());
    }

    #[test]
    fn what_is_not_as_it_must_be_is_named() {
        let address = || variable(class::IP4_ADDRESS, vec![10, 3, 0, 7]);
        for (attributes, words) in [
            (vec![], "no address"),
            (vec![variable(class::IP4_ADDRESS, vec![])], "no address"),
            (vec![variable(class::IP4_ADDRESS, vec![10, 3, 0])], "a form that none has"),
            (vec![variable(class::IP6_ADDRESS, vec![1; 18])], "a form that none has"),
            (vec![variable(class::IP6_ADDRESS, vec![1; 3])], "a form that none has"),
            (vec![variable(class::IP4_ADDRESS, vec![0; 4])], "0.0.0.0, which no host can have"),
            (vec![variable(class::IP4_ADDRESS, vec![127, 0, 0, 1])], "127.0.0.1, which"),
            (vec![variable(class::IP4_ADDRESS, vec![224, 0, 0, 1])], "224.0.0.1, which"),
            (vec![address(), variable(class::UNITY_SPLIT_INCLUDE, vec![10, 1, 0])], "cut short"),
            (vec![address(), variable(class::IP4_SUBNET, vec![10, 1, 0, 0, 255, 0, 255, 0])], "mask is none"),
            (vec![address(), variable(class::IP6_SUBNET, vec![1; 16])], "a network that is none"),
            (vec![address(), variable(class::IP6_SUBNET, [[0; 16].to_vec(), vec![129]].concat())], "is none"),
        ] {
            let read = Assignment::read(&told(attributes));
            assert!(read.as_ref().is_err_and(|e| e.contains(words)), "{words}: {read:?}");
        }
        let odd = vec![address(), variable(class::UNITY_BANNER, b"a\nb\x1b[2J\n".to_vec()), Attribute::basic(3, 1)];
        let read = Assignment::read(&told(odd)).unwrap();
        assert_eq!((read.banner.as_deref(), read.dns.len()), (Some("a\\nb\\u{1b}[2J"), 0));
    }
}
