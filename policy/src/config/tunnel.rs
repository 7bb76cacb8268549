//! `[[tunnel]]`.

use super::address;
use super::manual;
use super::model::{RemoteAccess, StartMode, Startup, TunnelPolicy};
use super::object::Object;
use super::selectors;
use super::source::{Located, Span};
use crate::sa::Mode;
use crate::selector::{AddressRange, PortSelector, Selector};
use crate::transform::{EspTransform, Limits, MOST_AH_TRANSFORMS, MOST_TRANSFORMS};
use std::net::IpAddr;
use std::sync::Arc;

/// The transform of a tunnel that names none.
const DEFAULT_TRANSFORM: &str = "ESP_AES128_HMAC_SHA1/28800/0";

/// A tunnel policy as read, with the places that checks across objects speak of.
pub(super) struct TunnelEntry {
    pub(super) label: String,
    pub(super) header: Span,
    pub(super) name: Option<Located<String>>,
    /// Where the peer's address stands.
    pub(super) peer_at: Span,
    /// The inbound SPI of manual keys.
    pub(super) manual_spi: Option<Located<u32>>,
    /// `None`: wrong, and reported.
    pub(super) policy: Option<Arc<TunnelPolicy>>,
}

/// Reads one tunnel policy.
pub(super) fn read(mut object: Object<'_, '_, '_>, startup: &Startup) -> TunnelEntry {
    let name = object.name();
    let tsource = end_point(&mut object, "tsource", "our own address on the way to the peer");
    let remote_access = remote_access(&mut object);
    let tdestination = match (&remote_access, &tsource) {
        // Whoever has an address of the pool.
        (Some(RemoteAccess::Pool(_)), Some(ours)) => Some(Located::new(nobody(ours.value), ours.at)),
        _ if object.has("pool") => None,
        _ => end_point(&mut object, "tdestination", "the peer's address"),
    };
    let end_points = match (&tsource, &tdestination) {
        (Some(s), Some(d)) => different_ends(&mut object, s, d),
        _ => None,
    };
    let words = [("tunnel", Mode::Tunnel), ("transport", Mode::Transport)];
    let mode = match object.one_of("mode", &words) {
        Some(mode) => Some(mode.value),
        None if object.has("mode") => None,
        None => Some(Mode::Tunnel),
    };
    let selector = selector(&mut object, tsource.as_ref().or(tdestination.as_ref()).map(|a| a.value));
    let selector = match (mode, end_points, selector) {
        (Some(Mode::Transport), Some(ends), Some(selector)) => between_ends(&mut object, ends, selector),
        (_, _, selector) => selector,
    };
    let transforms = transforms(&mut object, startup);
    let manual = manual::read(&mut object, transforms.as_deref(), selector.as_ref(), startup);
    let (manual_spi, manual) = manual.map_or((None, Some(None)), |given| (given.spi, given.keys.map(Some)));
    let lowest = if startup.allow_short_lifetimes { Limits::SHORT } else { Limits::HPUX }.packets;
    let packets = match object.integer("lifetime_packets", 0..=u32::MAX) {
        Some(n) if n.value != 0 && n.value < lowest => {
            object.error(
                n.at,
                format!("`lifetime_packets` is {}; expected 0 (no limit) or {lowest} to {}", n.value, u32::MAX),
            );
            None
        }
        Some(n) => Some(n.value),
        None if object.has("lifetime_packets") => None,
        None => Some(0),
    };
    let modes = [("traffic", StartMode::Traffic), ("boot", StartMode::Boot), ("respond", StartMode::Respond)];
    let start = match object.one_of("start", &modes) {
        Some(mode) => Some(mode.value),
        None if object.has("start") => None,
        None if matches!(remote_access, Some(RemoteAccess::Pool(_))) => Some(StartMode::Respond),
        None => Some(StartMode::Traffic),
    };
    let line = object.line();
    let peer_at = tdestination.map_or(object.header, |d| d.at);
    let policy = (|| {
        let (tsource, tdestination) = end_points?;
        Some(Arc::new(TunnelPolicy {
            name: name.as_ref()?.value.as_str().into(),
            tsource,
            tdestination,
            mode: mode?,
            selector: selector?,
            transforms: transforms?,
            packets: packets?,
            start: start?,
            manual: manual?,
            remote_access: remote_access?,
            line,
        }))
    })();
    TunnelEntry { label: object.label, header: object.header, name, peer_at, manual_spi, policy }
}

/// `pool` or `virtual`; `None`: wrong, and reported.
fn remote_access(object: &mut Object<'_, '_, '_>) -> Option<RemoteAccess> {
    let way = match (object.has("pool"), object.has("virtual")) {
        (false, false) => return Some(RemoteAccess::None),
        (true, true) => {
            let at = object.key_span("virtual");
            object
                .error(at, "`pool` and `virtual` are both there: one gives addresses to clients, the other takes one");
            return None;
        }
        (true, false) => RemoteAccess::Pool(object.string("pool", "the name of a [[pool]]")?.value.to_owned()),
        (false, true) => {
            let push = object.one_of("virtual", &[("pull", false), ("push", true)])?;
            RemoteAccess::Virtual { push: push.value }
        }
    };
    let given: &[(&str, &str)] = match way {
        RemoteAccess::Pool(_) => {
            &[("tdestination", "that is where each client is"), ("destination", "that is each client's address")]
        }
        _ => &[("source", "that is the address that the peer gives us")],
    };
    let always: &[(&str, &str)] = &[("in", "its keys are negotiated"), ("out", "its keys are negotiated")];
    let key = if matches!(way, RemoteAccess::Pool(_)) { "pool" } else { "virtual" };
    for (stray, why) in given.iter().chain(always) {
        if object.has(stray) {
            let at = object.key_span(stray);
            object.error(at, format!("`{stray}` in a tunnel with `{key}`: {why}")).suggest("leave it out");
            return None;
        }
    }
    let transport = object.one_of("mode", &[("tunnel", false), ("transport", true)]);
    if let Some(Located { value: true, at }) = transport {
        object.error(at, format!("`mode` is transport in a tunnel with `{key}`; expected tunnel"));
        return None;
    }
    Some(way)
}

/// The end point of a tunnel whose peers are not known.
fn nobody(family_of: IpAddr) -> IpAddr {
    if family_of.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0; 16]) }
}

fn end_point(object: &mut Object<'_, '_, '_>, key: &str, what: &str) -> Option<Located<IpAddr>> {
    if !object.has(key) {
        object.missing(format!("`{key}` is missing; expected {what}"));
    }
    let text = object.string(key, what)?;
    match address::single(text.value) {
        Ok(a) => Some(Located::new(a, text.at)),
        Err(refused) => {
            object.error(text.at, format!("`{key}`: {}", refused.message)).suggest_if(refused.suggestion);
            None
        }
    }
}

fn different_ends(
    object: &mut Object<'_, '_, '_>,
    tsource: &Located<IpAddr>,
    tdestination: &Located<IpAddr>,
) -> Option<(IpAddr, IpAddr)> {
    let (s, d) = (tsource.value, tdestination.value);
    if s == d {
        object.error(tdestination.at, format!("`tsource` and `tdestination` are both {s}; expected two hosts"));
        return None;
    }
    if s.is_ipv4() != d.is_ipv4() {
        object.error(
            tdestination.at,
            format!("`tsource` {s} and `tdestination` {d} are of different families; expected both IPv4 or both IPv6"),
        );
        return None;
    }
    Some((s, d))
}

/// The proxy IDs: IKEv1 can carry one pair, with one port each at most.
fn selector(object: &mut Object<'_, '_, '_>, end_point: Option<IpAddr>) -> Option<Selector> {
    // Everything, of the family of the end points: the nearest there is to HP-UX's 0.0.0.0/0.
    let everything = if end_point.is_some_and(|a| a.is_ipv6()) { AddressRange::ANY_V6 } else { AddressRange::ANY_V4 };
    let selectors = selectors::read(object, &[everything])?;
    let [selector] = selectors.as_slice() else {
        let key = if object.has("source") { "source" } else { "destination" };
        let at = object.key_span(key);
        object
            .error(at, "a tunnel has one `source` and one `destination`: they are the proxy IDs of quick mode")
            .suggest("write a [[tunnel]] for each, or one network that covers them all");
        return None;
    };
    one_port_each(object, selector, "leave the ports out here, and select by port in the [[host]] policies")?;
    Some(selector.clone())
}

/// The proxy IDs of IKEv1 carry one port each, or any.
fn one_port_each(object: &mut Object<'_, '_, '_>, selector: &Selector, instead: &str) -> Option<()> {
    if let PortSelector::Ports { local, remote } = selector.ports {
        let one = |p: (u16, u16)| p.0 == p.1 || p == (0, u16::MAX);
        for (key, ports) in [("source", local), ("destination", remote)] {
            if !one(ports) {
                let at = object.key_span(key);
                object
                    .error(
                        at,
                        format!(
                            "`{key}` has ports {}-{}, but the proxy IDs of IKEv1 carry one port or any (RFC 2407 4.6.2)",
                            ports.0, ports.1
                        ),
                    )
                    .suggest(instead);
                return None;
            }
        }
    }
    Some(())
}

/// The tunnel policy in transport mode that a host policy with transforms at `at` as its action
/// stands for, as in HP-UX: between its one local and its one remote host.
pub(super) fn of_host(
    object: &mut Object<'_, '_, '_>,
    startup: &Startup,
    name: Option<&Located<String>>,
    selectors: Option<&[Selector]>,
    at: Span,
) -> TunnelEntry {
    let transforms = transforms(object, startup);
    let selector = selectors.and_then(|selectors| {
        let host = |range: AddressRange| (range.first() == range.last()).then(|| range.first());
        let hosts = match selectors {
            [only] => host(only.local).zip(host(only.remote)).map(|ends| (ends, only)),
            _ => None,
        };
        let Some((ends, selector)) = hosts else {
            object
                .error(at, "transforms as `action` mean transport mode: expected one host as `source` and one as `destination`")
                .suggest("write a policy for each pair of hosts, or a [[tunnel]] for networks and name it here: tunnel = \"…\"");
            return None;
        };
        if matches!(selector.ports, PortSelector::Icmp { .. }) {
            object
                .error(at, "the proxy IDs of IKEv1 cannot say ICMP types (RFC 2407 4.6.2)")
                .suggest("leave `icmp_type` and `icmp_code` out, for the whole protocol");
            return None;
        }
        one_port_each(object, selector, "write a policy for each port, or one for all")?;
        Some((ends, selector.clone()))
    });
    let line = object.line();
    let policy = (|| {
        let ((tsource, tdestination), selector) = selector?;
        Some(Arc::new(TunnelPolicy {
            name: name?.value.as_str().into(),
            tsource,
            tdestination,
            mode: Mode::Transport,
            selector,
            transforms: transforms?,
            packets: 0,
            start: StartMode::Traffic,
            manual: None,
            remote_access: RemoteAccess::None,
            line,
        }))
    })();
    TunnelEntry {
        label: object.label.clone(),
        header: object.header,
        name: name.cloned(),
        peer_at: at,
        manual_spi: None,
        policy,
    }
}

/// Transport mode is for packets between the end points themselves (RFC 4301 4.1): a side
/// that is not given is its end point.
fn between_ends(
    object: &mut Object<'_, '_, '_>,
    (tsource, tdestination): (IpAddr, IpAddr),
    mut selector: Selector,
) -> Option<Selector> {
    let sides = [
        ("source", "tsource", tsource, &mut selector.local),
        ("destination", "tdestination", tdestination, &mut selector.remote),
    ];
    let mut right = true;
    for (key, end_key, end, range) in sides {
        let end_alone = AddressRange::single(end);
        if range.is_any() && !object.has(key) || *range == end_alone {
            *range = end_alone;
            continue;
        }
        right = false;
        let at = object.key_span(key);
        object
            .error(at, format!("`{key}` is {range}, but in transport mode it can only be `{end_key}`, {end}"))
            .suggest(format!("leave `{key}` out, or write mode = \"tunnel\""));
    }
    right.then_some(selector)
}

fn transforms(object: &mut Object<'_, '_, '_>, startup: &Startup) -> Option<Vec<EspTransform>> {
    let expected = "transforms such as ESP_AES128_HMAC_SHA1/28800/0 or aes128-sha1-modp2048/3600";
    if !object.has("action") {
        return EspTransform::parse(DEFAULT_TRANSFORM).ok().map(|t| vec![t]);
    }
    let texts = object.strings("action", expected)?;
    let listed: Vec<Located<&str>> = texts
        .value
        .iter()
        .flat_map(|text| text.value.split(',').map(|part| Located::new(part.trim(), text.at)))
        .collect();
    let of_ah = |text: &&Located<&str>| {
        !text.value.contains('+') && text.value.get(..3).is_some_and(|p| ["ah-", "ah_"].contains(&&*p.to_lowercase()))
    };
    let ah = listed.iter().filter(of_ah).count();
    if ah > MOST_AH_TRANSFORMS {
        object.error(texts.at, format!("`action` has {ah} transforms of AH; expected at most {MOST_AH_TRANSFORMS}"));
        return None;
    }
    if listed.len() - ah > MOST_TRANSFORMS {
        object.error(
            texts.at,
            format!("`action` has {} transforms of ESP; expected at most {MOST_TRANSFORMS}", listed.len() - ah),
        );
        return None;
    }
    let limits = if startup.allow_short_lifetimes { Limits::SHORT } else { Limits::HPUX };
    let mut transforms: Vec<EspTransform> = Vec::new();
    for text in &listed {
        match EspTransform::parse_within(text.value, limits) {
            Ok(transform) => {
                if transforms.contains(&transform) {
                    object.warning(text.at, format!("the transform {transform} is listed twice"));
                } else {
                    odd_transform(object, text.at, &transform);
                }
                transforms.push(transform);
            }
            Err(e) => {
                object.error(text.at, format!("`action`: {e}"));
            }
        }
    }
    if listed.is_empty() || transforms.len() < listed.len() {
        return None;
    }
    one_group(object, texts.at, &transforms)?;
    Some(transforms)
}

fn odd_transform(object: &mut Object<'_, '_, '_>, at: Span, transform: &EspTransform) {
    if transform.lifetime.seconds == 0 && transform.lifetime.kbytes != 0 {
        object
            .warning(at, format!("{transform} has no limit of time but one of volume: an idle SA lives for ever"))
            .suggest("name seconds too, as in /28800/…");
    }
    for part in transform.legacy_parts() {
        object.warning(at, format!("{} uses a legacy algorithm, {part}", transform.keyword()));
    }
}

/// RFC 2409 5.5: one KE payload in a quick mode, so one group for all it offers.
fn one_group(object: &mut Object<'_, '_, '_>, at: Span, transforms: &[EspTransform]) -> Option<()> {
    let name = |t: &EspTransform| t.pfs.map_or("no group", |g| g.keyword);
    let first = transforms.first()?;
    let Some(other) = transforms.iter().find(|t| t.pfs != first.pfs) else { return Some(()) };
    object
        .error(
            at,
            format!(
                "`{}` has {} but `{}` has {}; expected one group of perfect forward secrecy in all (RFC 2409 5.5)",
                first.keyword(),
                name(first),
                other.keyword(),
                name(other)
            ),
        )
        .suggest("end every transform with the same group, or none");
    None
}
