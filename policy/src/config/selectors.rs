//! What a host or tunnel policy covers: `source`, `destination`, `protocol`, ports, ICMP types.

use super::address::{self, ENDPOINT, Endpoint};
use super::names::{self, ICMP, ICMPV6};
use super::object::{Object, quoted};
use super::source::{Located, Span};
use crate::selector::{AddressRange, PortSelector, Selector};

/// Most addresses of `source` or `destination` in one policy, as HP-UX A.03.02.
const MOST_ADDRESSES: usize = 20;

/// Reads the selectors of a policy: each source with each destination. A side
/// that is not given is everything, of the family of the other. `None` if
/// something was wrong and was reported.
///
/// When neither is given the policy is for everything of the `families`.
pub(super) fn read(object: &mut Object<'_, '_, '_>, families: &[AddressRange]) -> Option<Vec<Selector>> {
    let sources = side(object, "source");
    let destinations = side(object, "destination");
    let protocol = protocol(object);
    let icmp = icmp(object, protocol.as_ref().ok());
    // Read everything first, so that all that is wrong is reported at once.
    let (sources, destinations, protocol, icmp) = (sources.ok()?, destinations.ok()?, protocol.ok()?, icmp.ok()?);

    let number = protocol.as_ref().and_then(|p| p.value);
    one_family(object, &sources, &destinations, protocol.as_ref())?;
    ports_need_a_protocol(object, sources.iter().chain(&destinations), number)?;

    let mut selectors = Vec::new();
    for (source, destination) in pairs(&sources, &destinations, families) {
        let suits = match number {
            Some(ICMP) => source.range.is_ipv4(),
            Some(ICMPV6) => !source.range.is_ipv4(),
            _ => true,
        };
        if suits {
            let ports = match icmp {
                Some((kind, code)) => PortSelector::Icmp { kind, code },
                None => port_selector(source.ports, destination.ports),
            };
            selectors.push(Selector { local: source.range, remote: destination.range, protocol: number, ports });
        }
    }
    if selectors.is_empty() {
        let at = object.key_span("protocol");
        object
            .error(at, "the protocol is not one of the end points' family, which is what is inside unless named")
            .suggest("add `source` and `destination`");
        return None;
    }
    Some(selectors)
}

fn port_selector(local: (u16, u16), remote: (u16, u16)) -> PortSelector {
    let any = (0, u16::MAX);
    if local == any && remote == any { PortSelector::Any } else { PortSelector::Ports { local, remote } }
}

type Side = Vec<Located<Endpoint>>;

fn pairs(sources: &Side, destinations: &Side, families: &[AddressRange]) -> Vec<(Endpoint, Endpoint)> {
    let everything = |range: AddressRange| Endpoint { range, ports: (0, u16::MAX), host_bits: false };
    let same_family = |of: &Side| {
        let v4 = of.first().is_some_and(|e| e.value.range.is_ipv4());
        vec![everything(if v4 { AddressRange::ANY_V4 } else { AddressRange::ANY_V6 })]
    };
    let values = |side: &Side| side.iter().map(|e| e.value).collect::<Vec<_>>();
    let (sources, destinations) = match (sources.is_empty(), destinations.is_empty()) {
        (true, true) => return families.iter().map(|f| (everything(*f), everything(*f))).collect(),
        (true, false) => (same_family(destinations), values(destinations)),
        (false, true) => (values(sources), same_family(sources)),
        (false, false) => (values(sources), values(destinations)),
    };
    sources.iter().flat_map(|s| destinations.iter().map(move |d| (*s, *d))).collect()
}

/// Marks that something was wrong and was reported.
struct Reported;

/// The end points of `source` or `destination`; empty when the key is absent.
fn side(object: &mut Object<'_, '_, '_>, key: &str) -> Result<Side, Reported> {
    let Some(texts) = object.strings(key, ENDPOINT) else { return Ok(Vec::new()) };
    if texts.value.len() > MOST_ADDRESSES {
        object
            .error(texts.at, format!("`{key}` has {} addresses; expected at most {MOST_ADDRESSES}", texts.value.len()));
        return Err(Reported);
    }
    let (mut side, given) = (Vec::new(), texts.value.len());
    for text in texts.value {
        match address::endpoint(text.value) {
            Ok(endpoint) => {
                if endpoint.host_bits {
                    object
                        .warning(
                            text.at,
                            format!("{} has bits set beyond its prefix, which are ignored", quoted(text.value)),
                        )
                        .suggest(format!("write {}", endpoint.range));
                }
                side.push(Located::new(endpoint, text.at));
            }
            Err(refused) => {
                object.error(text.at, format!("`{key}`: {}", refused.message)).suggest_if(refused.suggestion);
            }
        }
    }
    if side.is_empty() || side.len() < given { Err(Reported) } else { Ok(side) }
}

fn protocol(object: &mut Object<'_, '_, '_>) -> Result<Option<Located<Option<u8>>>, Reported> {
    let Some(text) = object.string_or_integer("protocol", "a name such as TCP, or a number from 0 to 255") else {
        return if object.has("protocol") { Err(Reported) } else { Ok(None) };
    };
    match names::protocol(&text.value) {
        Ok(number) => Ok(Some(Located::new(number, text.at))),
        Err(refused) => {
            object
                .error(text.at, format!("`protocol` is {}; expected {}", quoted(&text.value), refused.expected))
                .suggest_if(refused.suggestion);
            Err(Reported)
        }
    }
}

type IcmpTypeAndCode = ((u8, u8), (u8, u8));

/// Types and codes; `None` if neither is given. `protocol` is `None` if it was wrong.
fn icmp(
    object: &mut Object<'_, '_, '_>,
    protocol: Option<&Option<Located<Option<u8>>>>,
) -> Result<Option<IcmpTypeAndCode>, Reported> {
    let expected = "a number from 0 to 255, a range or a name";
    let kind = object.string_or_integer("icmp_type", expected);
    let code = object.string_or_integer("icmp_code", expected);
    if ["icmp_type", "icmp_code"].iter().all(|k| !object.has(k)) {
        return Ok(None);
    }
    let protocol = match protocol.ok_or(Reported)?.as_ref().and_then(|p| p.value) {
        Some(p @ (ICMP | ICMPV6)) => p,
        _ => {
            let key = if object.has("icmp_type") { "icmp_type" } else { "icmp_code" };
            let at = object.key_span(key);
            object
                .error(at, format!("`{key}` needs a protocol that has it"))
                .suggest("add protocol = \"ICMP\" or \"ICMPV6\"");
            return Err(Reported);
        }
    };
    let any = (0, u8::MAX);
    let kind_value = match kind {
        Some(text) => {
            let read = names::icmp_type(protocol, &text.value);
            Some(accept(object, "icmp_type", &text, read)?)
        }
        None if object.has("icmp_type") => return Err(Reported),
        None => None,
    };
    let code_value = match code {
        Some(text) => {
            let read = names::icmp_code(protocol, kind_value.unwrap_or(any), &text.value);
            Some(accept(object, "icmp_code", &text, read)?)
        }
        None if object.has("icmp_code") => return Err(Reported),
        None => None,
    };
    Ok(Some((kind_value.unwrap_or(any), code_value.unwrap_or(any))))
}

fn accept<T>(
    object: &mut Object<'_, '_, '_>,
    key: &str,
    text: &Located<String>,
    read: Result<T, names::Refused>,
) -> Result<T, Reported> {
    read.map_err(|refused| {
        object
            .error(text.at, format!("`{key}` is {}; expected {}", quoted(&text.value), refused.expected))
            .suggest_if(refused.suggestion);
        Reported
    })
}

/// Both sides, and ICMP, must be of one family.
fn one_family(
    object: &mut Object<'_, '_, '_>,
    sources: &Side,
    destinations: &Side,
    protocol: Option<&Located<Option<u8>>>,
) -> Option<()> {
    let mut all = sources.iter().map(|e| ("source", e)).chain(destinations.iter().map(|e| ("destination", e)));
    let Some((first_key, first)) = all.next() else { return Some(()) };
    let v4 = first.value.range.is_ipv4();
    if let Some((key, other)) = all.find(|(_, e)| e.value.range.is_ipv4() != v4) {
        let message = format!(
            "`{key}` {} is {} but `{first_key}` {} is {}; expected one family in a policy",
            other.value.range,
            family(!v4),
            first.value.range,
            family(v4)
        );
        object.error(other.at, message).suggest("write a policy for each family");
        return None;
    }
    let wrong = match protocol.and_then(|p| p.value) {
        Some(ICMP) if !v4 => Some(("ICMP is of IPv4", "ICMPV6")),
        Some(ICMPV6) if v4 => Some(("ICMPV6 is of IPv6", "ICMP")),
        _ => None,
    };
    if let Some((what, instead)) = wrong {
        let at = protocol.map_or(first.at, |p| p.at);
        object
            .error(at, format!("{what} but `{first_key}` {} is {}", first.value.range, family(v4)))
            .suggest(format!("did you mean `{instead}`?"));
        return None;
    }
    Some(())
}

fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn ports_need_a_protocol<'e>(
    object: &mut Object<'_, '_, '_>,
    endpoints: impl Iterator<Item = &'e Located<Endpoint>>,
    protocol: Option<u8>,
) -> Option<()> {
    let with_ports: Option<Span> = endpoints.into_iter().find(|e| e.value.ports != (0, u16::MAX)).map(|e| e.at);
    let Some(at) = with_ports else { return Some(()) };
    match protocol {
        Some(p) if names::has_ports(p) => return Some(()),
        Some(p) => {
            object
                .error(at, format!("ports are named but protocol {} has none", names::protocol_name(p)))
                .suggest("remove the ports, or choose TCP, UDP, SCTP, DCCP or UDPLITE");
        }
        None => {
            object
                .error(at, "ports are named but no protocol; expected one that has ports")
                .suggest("add protocol = \"TCP\" or \"UDP\"");
        }
    }
    None
}
