//! Identities: who a peer is (phase 1) and what an SA pair covers (phase 2),
//! as they stand in ID payloads (RFC 2407 4.6.2).

use crate::wire::Identification;
use crate::wire::numbers::IdKind;
use policy::config::Identity;
use policy::selector::{AddressRange, PortSelector, Selector};
use policy::trust::Claim;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ID payload of phase 1 for `identity`.
pub(crate) fn phase1_payload(identity: &Identity) -> Identification {
    let (kind, data) = match identity {
        Identity::Address(a) => (address_kind(*a), address_octets(*a)),
        Identity::Fqdn(n) => (IdKind::FQDN, n.clone().into_bytes()),
        Identity::UserFqdn(n) => (IdKind::USER_FQDN, n.clone().into_bytes()),
        Identity::Name(n) => (IdKind::DER_ASN1_DN, n.der().to_vec()),
        Identity::KeyId(k) => (IdKind::KEY_ID, k.clone()),
    };
    Identification { kind, protocol: 0, port: 0, data }
}

/// The identity in an ID payload of phase 1.
///
/// # Errors
/// The type of an ID that is not known here or malformed, for the report.
pub(crate) fn phase1_identity(id: &Identification) -> Result<Identity, String> {
    let text = || String::from_utf8(id.data.clone()).map_err(|_| format!("{} that is not text", id.kind));
    match id.kind {
        IdKind::IPV4_ADDR | IdKind::IPV6_ADDR => match parse_addresses(id.kind, &id.data) {
            Some([a]) => Ok(Identity::Address(a)),
            _ => Err(format!("{} of {} octets", id.kind, id.data.len())),
        },
        IdKind::FQDN => text().map(Identity::Fqdn),
        IdKind::USER_FQDN => text().map(Identity::UserFqdn),
        IdKind::KEY_ID => Ok(Identity::KeyId(id.data.clone())),
        other => Err(format!("an identity of type {other}")),
    }
}

/// The identity in an ID payload of phase 1, as whoever judges certificates takes it.
///
/// # Errors
/// As [`phase1_identity`].
pub(crate) fn phase1_claim(id: &Identification) -> Result<Claim, String> {
    match id.kind {
        IdKind::DER_ASN1_DN => Ok(Claim::EncodedName(id.data.clone())),
        _ => phase1_identity(id).map(Claim::Identity),
    }
}

/// One side of a selector as quick mode can say it: addresses, protocol, one port or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyId {
    pub(crate) addresses: AddressRange,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

impl ProxyId {
    /// The ID payload: an address, a subnet or a range, whichever is simplest.
    pub(crate) fn payload(&self) -> Identification {
        let (first, last) = (self.addresses.first(), self.addresses.last());
        let v4 = self.addresses.is_ipv4();
        let (kind, data) = if first == last {
            (address_kind(first), address_octets(first))
        } else if let Some(len) = self.addresses.prefix_len() {
            let kind = if v4 { IdKind::IPV4_ADDR_SUBNET } else { IdKind::IPV6_ADDR_SUBNET };
            (kind, [address_octets(first), mask_octets(v4, len)].concat())
        } else {
            let kind = if v4 { IdKind::IPV4_ADDR_RANGE } else { IdKind::IPV6_ADDR_RANGE };
            (kind, [address_octets(first), address_octets(last)].concat())
        };
        Identification { kind, protocol: self.protocol, port: self.port, data }
    }

    /// What an ID payload of quick mode covers.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_payload(id: &Identification) -> Result<Self, String> {
        let malformed = || format!("{} of {} octets is malformed", id.kind, id.data.len());
        let half = id.data.len() / 2;
        let addresses = match id.kind {
            IdKind::IPV4_ADDR | IdKind::IPV6_ADDR => {
                let [a] = parse_addresses(id.kind, &id.data).ok_or_else(malformed)?;
                AddressRange::single(a)
            }
            IdKind::IPV4_ADDR_SUBNET | IdKind::IPV6_ADDR_SUBNET => {
                let [a, mask] = parse_addresses(id.kind, &id.data).ok_or_else(malformed)?;
                let bits =
                    mask_bits(mask).ok_or_else(|| format!("the mask {mask} of {} is not contiguous", id.kind))?;
                AddressRange::prefix(a, bits).ok_or_else(malformed)?
            }
            IdKind::IPV4_ADDR_RANGE | IdKind::IPV6_ADDR_RANGE => {
                let [a, b] = parse_addresses(id.kind, &id.data).ok_or_else(malformed)?;
                AddressRange::new(a, b).ok_or_else(|| format!("the range {a}-{b} ends before it begins"))?
            }
            other => return Err(format!("{other} ({half} octets twice) is no address that quick mode can negotiate")),
        };
        Ok(Self { addresses, protocol: id.protocol, port: id.port })
    }
}

/// Both sides of `selector` as proxy IDs (ours, the peer's).
///
/// # Errors
/// What IKEv1 cannot express: a range of ports, or ICMP types.
pub(crate) fn proxies(selector: &Selector) -> Result<(ProxyId, ProxyId), String> {
    let single = |(low, high): (u16, u16)| match (low, high) {
        (0, u16::MAX) => Ok(0),
        (low, high) if low == high && low != 0 => Ok(low),
        (low, high) => Err(format!("IKEv1 cannot negotiate the port range {low}-{high}, only one port or all")),
    };
    let (local_port, remote_port) = match &selector.ports {
        PortSelector::Any => (0, 0),
        PortSelector::Ports { local, remote } => (single(*local)?, single(*remote)?),
        PortSelector::Icmp { kind: (0, u8::MAX), code: (0, u8::MAX) } => (0, 0),
        PortSelector::Icmp { .. } => return Err("IKEv1 cannot negotiate ICMP types, only the whole protocol".into()),
    };
    let protocol = selector.protocol.unwrap_or(0);
    Ok((
        ProxyId { addresses: selector.local, protocol, port: local_port },
        ProxyId { addresses: selector.remote, protocol, port: remote_port },
    ))
}

/// The proxy IDs of a quick mode without any (RFC 2409 5.5): the peers' own addresses.
pub(crate) fn outer(local: IpAddr, remote: IpAddr) -> (ProxyId, ProxyId) {
    let id = |address| ProxyId { addresses: AddressRange::single(address), protocol: 0, port: 0 };
    (id(local), id(remote))
}

/// The selector of two proxy IDs, for reports of what a peer asked for.
pub(crate) fn selector(local: &ProxyId, remote: &ProxyId) -> Selector {
    let span = |port| if port == 0 { (0, u16::MAX) } else { (port, port) };
    let protocol = if local.protocol != 0 { local.protocol } else { remote.protocol };
    Selector {
        local: local.addresses,
        remote: remote.addresses,
        protocol: (protocol != 0).then_some(protocol),
        ports: if local.port == 0 && remote.port == 0 {
            PortSelector::Any
        } else {
            PortSelector::Ports { local: span(local.port), remote: span(remote.port) }
        },
    }
}

/// How the selectors that a peer asked for differ from ours, by field.
pub(crate) fn differences(ours: (&ProxyId, &ProxyId), asked: (&ProxyId, &ProxyId)) -> Vec<String> {
    let mut out = Vec::new();
    for (side, ours, asked) in [("local", ours.0, asked.0), ("remote", ours.1, asked.1)] {
        let (mine, theirs) = (ours.addresses, asked.addresses);
        if mine != theirs {
            let how = if mine.covers(&theirs) {
                "narrower"
            } else if theirs.covers(&mine) {
                "wider"
            } else {
                "other"
            };
            out.push(match how {
                "other" => format!("another {side} range"),
                how => format!("{side} range {how}"),
            });
        }
        if ours.protocol != asked.protocol {
            out.push(format!("{side} protocol differs"));
        }
        if ours.port != asked.port {
            out.push(format!("{side} port differs"));
        }
    }
    out
}

fn address_kind(address: IpAddr) -> IdKind {
    if address.is_ipv4() { IdKind::IPV4_ADDR } else { IdKind::IPV6_ADDR }
}

fn address_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn mask_octets(v4: bool, len: u8) -> Vec<u8> {
    if v4 {
        let host = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        (!host).to_be_bytes().to_vec()
    } else {
        let host = u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        (!host).to_be_bytes().to_vec()
    }
}

fn mask_bits(mask: IpAddr) -> Option<u8> {
    let (ones, contiguous) = match mask {
        IpAddr::V4(m) => (m.to_bits().leading_ones(), m.to_bits().leading_ones() == m.to_bits().count_ones()),
        IpAddr::V6(m) => (m.to_bits().leading_ones(), m.to_bits().leading_ones() == m.to_bits().count_ones()),
    };
    contiguous.then_some(ones as u8)
}

/// Exactly `N` addresses of the family that `kind` says.
fn parse_addresses<const N: usize>(kind: IdKind, data: &[u8]) -> Option<[IpAddr; N]> {
    let v4 = matches!(kind, IdKind::IPV4_ADDR | IdKind::IPV4_ADDR_SUBNET | IdKind::IPV4_ADDR_RANGE);
    let len = if v4 { 4 } else { 16 };
    if data.len() != N * len {
        return None;
    }
    let mut out = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); N];
    for (slot, octets) in out.iter_mut().zip(data.chunks_exact(len)) {
        *slot = if v4 {
            IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?))
        } else {
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: IdKind, data: &[u8]) -> Identification {
        Identification { kind, protocol: 0, port: 0, data: data.to_vec() }
    }

    #[test]
    fn a_host_has_one_address_or_name() {
        let read = |kind, data: &[u8]| phase1_identity(&id(kind, data)).ok();
        assert_eq!(read(IdKind::IPV4_ADDR, &[10, 0, 0, 1]), Some(Identity::Address([10, 0, 0, 1].into())));
        assert_eq!(read(IdKind::IPV6_ADDR, &[1; 16]), Some(Identity::Address([1; 16].into())));
        assert_eq!(read(IdKind::FQDN, b"a.example"), Some(Identity::Fqdn("a.example".into())));
        assert_eq!(read(IdKind::KEY_ID, &[0xff, 0]), Some(Identity::KeyId(vec![0xff, 0])));
        let bad: [(IdKind, &[u8]); 8] = [
            (IdKind::IPV4_ADDR, &[10, 0, 0]),
            (IdKind::IPV4_ADDR, &[1; 16]),
            (IdKind::IPV6_ADDR, &[1; 4]),
            (IdKind::IPV4_ADDR_SUBNET, &[10, 0, 0, 0, 255, 0, 0, 0]),
            (IdKind::IPV4_ADDR_RANGE, &[10, 0, 0, 0, 10, 0, 0, 9]),
            (IdKind::DER_ASN1_GN, &[0x82, 1, b'a']),
            (IdKind::USER_FQDN, &[0xff]),
            (IdKind(12), b"list"),
        ];
        for (kind, data) in bad {
            assert_eq!(read(kind, data), None, "{kind} {data:?}");
        }
    }

    #[test]
    fn what_selects_packets_and_what_does_not() {
        let read = |kind, data: &[u8]| ProxyId::from_payload(&id(kind, data)).map(|p| p.addresses.to_string());
        let subnet = IdKind::IPV4_ADDR_SUBNET;
        assert_eq!(read(IdKind::IPV4_ADDR, &[10, 0, 0, 1]), Ok("10.0.0.1".into()));
        assert_eq!(read(subnet, &[10, 1, 2, 3, 255, 255, 0, 0]), Ok("10.1.0.0/16".into()));
        assert_eq!(read(subnet, &[0; 8]), Ok("0.0.0.0/0".into()));
        assert_eq!(read(IdKind::IPV4_ADDR_RANGE, &[10, 0, 0, 1, 10, 0, 0, 9]), Ok("10.0.0.1-10.0.0.9".into()));
        assert_eq!(read(IdKind::IPV6_ADDR_SUBNET, &[[0xfd; 16], [0xff; 16]].concat()).map(|s| s.len() > 2), Ok(true));
        let bad: [(IdKind, &[u8], &str); 7] = [
            (subnet, &[10, 0, 0, 0, 255, 0, 255, 0], "not contiguous"),
            (subnet, &[10, 0, 0, 0], "malformed"),
            (IdKind::IPV4_ADDR, &[10, 0, 0, 0, 255, 0, 0, 0], "malformed"),
            (IdKind::IPV6_ADDR_RANGE, &[1; 8], "malformed"),
            (IdKind::IPV4_ADDR_RANGE, &[10, 0, 0, 9, 10, 0, 0, 1], "ends before it begins"),
            (IdKind::FQDN, b"a.example", "no address"),
            (IdKind::KEY_ID, &[10, 0, 0, 1], "no address"),
        ];
        for (kind, data, why) in bad {
            let refused = read(kind, data).unwrap_err();
            assert!(refused.contains(why), "{kind} {data:?}: {refused}");
        }
    }
}
