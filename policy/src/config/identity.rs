//! Identities of authentication records: who we are, and patterns of who the peer may be.

use super::address;
use super::auth::{Reported, hexadecimal};
use super::object::{Object, quoted};
use super::source::Located;
use crate::identity::{Identity, IdentityPattern, NamePattern};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, PartialEq)]
enum IdentityType {
    Ipv4,
    Ipv6,
    Fqdn,
    UserFqdn,
    KeyId,
    Name,
}

/// The names of the types; `DN` has several in the field.
const TYPES: [(&str, IdentityType); 7] = [
    ("IPV4", IdentityType::Ipv4),
    ("IPV6", IdentityType::Ipv6),
    ("FQDN", IdentityType::Fqdn),
    ("USER-FQDN", IdentityType::UserFqdn),
    ("KEY-ID", IdentityType::KeyId),
    ("DN", IdentityType::Name),
    ("X500-DN", IdentityType::Name),
];

/// Who we say we are.
pub(super) struct Local {
    pub(super) named: Option<Identity>,
    /// The owner of our certificate.
    pub(super) subject: bool,
}

/// `ltype` and `lid`: both, or neither; `DN` alone is the owner of our certificate.
pub(super) fn local(object: &mut Object<'_, '_, '_>) -> Result<Local, Reported> {
    let kind = object.one_of("ltype", &TYPES);
    if let Some(Located { value: IdentityType::Name, at }) = kind {
        if object.has("lid") {
            let at = object.key_span("lid");
            object.error(at, "`lid` with `ltype` DN; expected none: it is the owner of `certificate`");
            return Err(Reported);
        }
        if !object.has("certificate") {
            object.error(at, "`ltype` is DN, but there is no `certificate` whose owner that would be");
            return Err(Reported);
        }
        return Ok(Local { named: None, subject: true });
    }
    let Some((kind, id)) = both(object, "ltype", "lid", kind)? else {
        return Ok(Local { named: None, subject: false });
    };
    match exact(kind, id.value) {
        Ok(identity) => Ok(Local { named: Some(identity), subject: false }),
        Err(what) => {
            object.error(id.at, format!("`lid` {what}"));
            Err(Reported)
        }
    }
}

/// `rtype` and `rid`: both, or neither.
pub(super) fn remote(object: &mut Object<'_, '_, '_>) -> Result<Option<IdentityPattern>, Reported> {
    let kind = object.one_of("rtype", &TYPES);
    let Some((kind, id)) = both(object, "rtype", "rid", kind)? else { return Ok(None) };
    match pattern(kind, id.value) {
        Ok(pattern) => Ok(Some(pattern)),
        Err(what) => {
            object.error(id.at, format!("`rid` {what}"));
            Err(Reported)
        }
    }
}

fn both<'t>(
    object: &mut Object<'t, '_, '_>,
    type_key: &str,
    id_key: &str,
    kind: Option<Located<IdentityType>>,
) -> Result<Option<(IdentityType, Located<&'t str>)>, Reported> {
    let id = object.string(id_key, "an identity");
    for (key, other) in [(type_key, id_key), (id_key, type_key)] {
        if object.has(key) && !object.has(other) {
            let at = object.key_span(key);
            object.error(at, format!("`{key}` without `{other}`; expected both or neither"));
        }
    }
    if !object.has(type_key) && !object.has(id_key) {
        return Ok(None);
    }
    Ok(Some((kind.ok_or(Reported)?.value, id.ok_or(Reported)?)))
}

/// One identity.
fn exact(kind: IdentityType, id: &str) -> Result<Identity, String> {
    let wrong = |what: &str| format!("is {}; expected {what}", quoted(id));
    match kind {
        IdentityType::Ipv4 => {
            id.parse::<Ipv4Addr>().map(|a| Identity::Address(IpAddr::V4(a))).map_err(|_| wrong("an IPv4 address"))
        }
        IdentityType::Ipv6 => {
            id.parse::<Ipv6Addr>().map(|a| Identity::Address(IpAddr::V6(a))).map_err(|_| wrong("an IPv6 address"))
        }
        IdentityType::Fqdn if is_domain_name(id) => Ok(Identity::Fqdn(id.to_owned())),
        IdentityType::Fqdn => Err(wrong("a domain name such as gw.example.com")),
        IdentityType::UserFqdn => match id.split_once('@') {
            Some((user, domain)) if is_word(user) && is_domain_name(domain) => Ok(Identity::UserFqdn(id.to_owned())),
            _ => Err(wrong("a mail address such as admin@example.com")),
        },
        IdentityType::KeyId => match id.strip_prefix("0x") {
            Some(digits) => hexadecimal(digits).map(Identity::KeyId),
            None if is_word(id) => Ok(Identity::KeyId(id.as_bytes().to_vec())),
            None => Err(wrong("ASCII characters, or 0x and hexadecimal digits")),
        },
        IdentityType::Name => Err(wrong("an identity that can be written")),
    }
}

/// One identity, or the subtrees and wildcards of HP-UX.
fn pattern(kind: IdentityType, id: &str) -> Result<IdentityPattern, String> {
    match kind {
        IdentityType::Ipv4 | IdentityType::Ipv6 if id.contains(['/', '-']) => {
            let refused = |message: &str| format!("is {}: {message}", quoted(id));
            let range = address::network(id).map_err(|e| refused(&e.message))?.range;
            if range.is_ipv4() == (kind == IdentityType::Ipv4) {
                Ok(IdentityPattern::Addresses(range))
            } else {
                Err(refused("expected addresses of the family that `rtype` says"))
            }
        }
        IdentityType::Fqdn if is_domain_pattern(id) => Ok(IdentityPattern::Fqdn(id.to_owned())),
        IdentityType::UserFqdn => match id.strip_prefix("*@").or_else(|| id.strip_prefix('@')) {
            Some(domain) if is_domain_name(domain) || is_domain_pattern(domain) => {
                Ok(IdentityPattern::AnyUser(domain.to_owned()))
            }
            _ => exact(kind, id).map(IdentityPattern::Exactly),
        },
        IdentityType::Name => NamePattern::parse(id)
            .map(IdentityPattern::Name)
            .map_err(|what| format!("is {}, which {what}; expected a name such as C=DE, O=Example, CN=*", quoted(id))),
        _ => exact(kind, id).map(IdentityPattern::Exactly),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.chars().all(|c| c.is_ascii_graphic())
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

fn is_domain_name(text: &str) -> bool {
    is_word(text) && text.split('.').all(is_label)
}

/// `.example.com`, everything below; or `*` in place of labels.
fn is_domain_pattern(text: &str) -> bool {
    match text.strip_prefix('.') {
        Some(parent) => is_domain_name(parent),
        None => is_word(text) && text.contains('*') && text.split('.').all(|label| label == "*" || is_label(label)),
    }
}
