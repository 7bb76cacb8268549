//! `[[host]]`.

use super::model::Startup;
use super::object::{Object, quoted};
use super::priority::{self, Priority};
use super::selectors;
use super::source::{Located, Span};
use super::tunnel::{self, TunnelEntry};
use crate::five_tuple::Attachment;
use crate::selector::{AddressRange, Selector};

/// A host policy as read, before what it names is looked up.
pub(super) struct HostEntry {
    pub(super) label: String,
    pub(super) header: Span,
    pub(super) line: usize,
    pub(super) name: Option<Located<String>>,
    pub(super) priority: Priority,
    /// `None`: wrong, and reported.
    pub(super) selectors: Option<Vec<Selector>>,
    /// The interface it is tied to; outer `None`: wrong, and reported.
    pub(super) interface: Option<Option<Attachment>>,
    pub(super) action: Action,
    /// EXCLUSIVE.
    pub(super) exclusive: bool,
    /// The tunnel policy in transport mode that transforms as the action stand for.
    pub(super) transport: Option<TunnelEntry>,
    pub(super) cache_share: Option<u8>,
}

/// What the policy does.
pub(super) enum Action {
    Pass,
    Discard,
    /// Through the tunnel of this name.
    Tunnel(Located<String>),
}

/// Reads one host policy.
pub(super) fn read(mut object: Object<'_, '_, '_>, startup: &Startup) -> HostEntry {
    let name = object.name();
    if let Some(n) = &name
        && n.value.eq_ignore_ascii_case("default")
    {
        object
            .error(n.at, format!("the name {} is that of the default policy; expected another", quoted(&n.value)))
            .suggest("set what the default policy does with [default] action = \"PASS\" or \"DISCARD\"");
    }
    let priority = priority::read(&mut object);
    let selectors = selectors::read(&mut object, &[AddressRange::ANY_V4, AddressRange::ANY_V6]);
    let interface = interface(&mut object, startup);
    let (action, transport) = action(&mut object, startup, name.as_ref(), selectors.as_deref());
    let exclusive = flags(&mut object, &action);
    let cache_share = cache_share(&mut object);
    HostEntry {
        line: object.line(),
        label: object.label,
        header: object.header,
        name,
        priority,
        selectors,
        interface,
        action,
        exclusive,
        transport,
        cache_share,
    }
}

/// Percent of the SPD cache that entries of one policy may take.
pub(super) fn cache_share(object: &mut Object<'_, '_, '_>) -> Option<u8> {
    object.integer("cache_share", 1..=100).and_then(|percent| u8::try_from(percent.value).ok())
}

/// The interface that packets enter or leave by; `None` if it was wrong and was reported.
fn interface(object: &mut Object<'_, '_, '_>, startup: &Startup) -> Option<Option<Attachment>> {
    let expected = "the name of an interface of the packet path";
    let Some(name) = object.string("interface", expected) else {
        return if object.has("interface") { None } else { Some(None) };
    };
    let found = startup.attachment(name.value);
    if found.is_none() {
        let known: Vec<&str> = startup.attachments().collect();
        object
            .error(
                name.at,
                format!(
                    "`interface` is {}, but the packet path has no interface of this name; it has {}",
                    quoted(name.value),
                    known.join(", ")
                ),
            )
            .suggest(
                super::nearest::did_you_mean(name.value, known.iter().copied())
                    .unwrap_or_else(|| "leave it out: a policy without `interface` is for all".to_owned()),
            );
    }
    found.map(Some)
}

/// HP-UX's flags that are not here, and why.
const OTHER_FLAGS: [(&str, &str); 3] = [
    ("MIPV6", "it is for mobile IPv6 with manual keys, which is not supported"),
    ("AUTOCONF", "addresses that are given to clients are not supported"),
    ("FALLBACK_TO_CLEAR", "it would send in the clear what a policy protects; write a policy that passes instead"),
];

/// Whether EXCLUSIVE is among the flags.
fn flags(object: &mut Object<'_, '_, '_>, action: &Action) -> bool {
    let Some(words) = object.strings("flags", "NONE or EXCLUSIVE") else { return false };
    let mut exclusive = false;
    // HP-UX joins them with `+`.
    let parts = words.value.iter().flat_map(|w| w.value.split('+').map(|part| Located::new(part.trim(), w.at)));
    for flag in parts {
        let is = |name: &str| flag.value.eq_ignore_ascii_case(name);
        if is("EXCLUSIVE") {
            exclusive = true;
        } else if let Some((name, why)) = OTHER_FLAGS.iter().find(|(name, _)| is(name)) {
            object.error(flag.at, format!("the flag {name} is not supported")).suggest(format!("remove it: {why}"));
        } else if !is("NONE") {
            object
                .error(flag.at, format!("`flags` is {}; expected NONE or EXCLUSIVE", quoted(flag.value)))
                .suggest_if(super::nearest::did_you_mean(flag.value, ["NONE", "EXCLUSIVE"]));
        }
    }
    if exclusive && !matches!(action, Action::Tunnel(_)) {
        let at = object.key_span("flags");
        object
            .error(at, "the flag EXCLUSIVE gives each session an SA pair of its own, but the policy has no `tunnel`")
            .suggest("name a tunnel, or remove the flag");
    }
    exclusive
}

/// HP-UX: an omitted action is DISCARD; with a tunnel it is PASS and may be omitted; transforms
/// mean transport mode between the two hosts.
fn action(
    object: &mut Object<'_, '_, '_>,
    startup: &Startup,
    name: Option<&Located<String>>,
    selectors: Option<&[Selector]>,
) -> (Action, Option<TunnelEntry>) {
    let tunnel = object.string("tunnel", "the name of a [[tunnel]]").map(|t| Located::new(t.value.to_owned(), t.at));
    let action = object.strings("action", "PASS, DISCARD, or leave it out and name a tunnel");
    let word = action.and_then(|a| match a.value.as_slice() {
        [only] => Some(Located::new(only.value, only.at)),
        [first, ..] if is_transform(first.value) => Some(Located::new(first.value, a.at)),
        [] => None,
        _ => {
            object.error(a.at, "`action` is an array; expected PASS or DISCARD");
            None
        }
    });
    let Some(word) = word else { return (tunnel.map_or(Action::Discard, Action::Tunnel), None) };
    if word.value.eq_ignore_ascii_case("PASS") {
        return (tunnel.map_or(Action::Pass, Action::Tunnel), None);
    }
    if word.value.eq_ignore_ascii_case("DISCARD") {
        if let Some(t) = tunnel {
            object
                .error(
                    word.at,
                    format!("`action` is DISCARD but `tunnel` is {}; expected PASS with a tunnel", quoted(&t.value)),
                )
                .suggest("leave out `action`, or `tunnel`");
        }
    } else if is_transform(word.value) {
        if let Some(t) = tunnel {
            object
                .error(
                    word.at,
                    format!(
                        "`action` is the transform {} but `tunnel` is {}; expected PASS with a tunnel",
                        quoted(word.value),
                        quoted(&t.value)
                    ),
                )
                .suggest("leave out `tunnel` for transport mode between the hosts, or `action`");
            return (Action::Discard, None);
        }
        let entry = tunnel::of_host(object, startup, name, selectors, word.at);
        // Without a name the policy is refused anyway.
        let action = name.map_or(Action::Discard, |n| Action::Tunnel(Located::new(n.value.clone(), word.at)));
        return (action, Some(entry));
    } else {
        object
            .error(word.at, format!("`action` is {}; expected PASS or DISCARD", quoted(word.value)))
            .suggest_if(super::nearest::did_you_mean(word.value, ["PASS", "DISCARD"]));
    }
    (Action::Discard, None)
}

fn is_transform(word: &str) -> bool {
    let upper = word.to_ascii_uppercase();
    upper.starts_with("ESP_") || upper.starts_with("AH_") || crate::transform::EspTransform::parse(word).is_ok()
}
