//! `[[auth]]` and `[[bypass]]`.

use super::address::{self, NETWORK};
use super::ike;
use super::keys::PRESHARED;
use super::model::{AuthRecord, Identity};
use super::object::{Object, quoted};
use super::source::{Located, Span};
use crate::selector::AddressRange;
use crypto::Secret;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Shorter keys can be guessed by whoever records a negotiation.
const SHORT_KEY: usize = 16;

/// An authentication record as read.
pub(super) struct AuthEntry {
    pub(super) label: String,
    pub(super) header: Span,
    pub(super) name: Option<Located<String>>,
    pub(super) remote: Option<Located<AddressRange>>,
    /// `None`: wrong, and reported.
    pub(super) record: Option<AuthRecord>,
}

/// Reads one authentication record.
pub(super) fn read(mut object: Object<'_, '_, '_>) -> AuthEntry {
    let name = object.name();
    let remote = ike::remote(&mut object);
    let preshared = preshared(&mut object);
    let local_id = identity(&mut object, "ltype", "lid");
    let remote_id = identity(&mut object, "rtype", "rid");
    let exchange = exchange(&mut object);
    let line = object.line();
    let record = (|| {
        exchange?;
        Some(AuthRecord {
            name: name.as_ref()?.value.clone(),
            remote: remote.as_ref()?.value,
            preshared: preshared.ok()?,
            local_id: local_id.ok()?,
            remote_id: remote_id.ok()?,
            line,
        })
    })();
    AuthEntry { label: object.label, header: object.header, name, remote, record }
}

/// Marks that something was wrong and was reported.
struct Reported;

/// The key: `0x` and hex digits, or ASCII as it stands. Messages never show it.
fn preshared(object: &mut Object<'_, '_, '_>) -> Result<Option<Secret>, Reported> {
    if !object.has(PRESHARED) {
        return Ok(None);
    }
    let text = object.string(PRESHARED, "0x and hexadecimal digits, or ASCII characters").ok_or(Reported)?;
    let octets = match text.value.strip_prefix("0x").or_else(|| text.value.strip_prefix("0X")) {
        Some(digits) => hexadecimal(digits).map(Secret::new),
        None if text.value.is_empty() => Err("is empty; expected a key".to_owned()),
        None if text.value.contains(char::is_whitespace) => Err("has white space, which a key cannot hold".to_owned()),
        None if !text.value.chars().all(|c| c.is_ascii_graphic()) => {
            Err("has characters that are not printable ASCII; expected ASCII, or 0x and hexadecimal digits".to_owned())
        }
        None => Ok(Secret::copy_of(text.value.as_bytes())),
    };
    match octets {
        Ok(key) => {
            if key.len() < SHORT_KEY {
                object
                    .warning(
                        text.at,
                        format!("`{PRESHARED}` has {} octets; a key under {SHORT_KEY} can be guessed", key.len()),
                    )
                    .suggest("make one with: openssl rand -hex 32");
            }
            Ok(Some(key))
        }
        Err(message) => {
            object.error(text.at, format!("`{PRESHARED}` {message}"));
            Err(Reported)
        }
    }
}

/// Octets of hexadecimal digits; the error does not show them.
fn hexadecimal(digits: &str) -> Result<Vec<u8>, String> {
    if digits.is_empty() {
        return Err("is 0x and nothing more; expected hexadecimal digits after it".to_owned());
    }
    if let Some(at) = digits.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("begins with 0x but digit {} is not hexadecimal", at + 1));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("has {} hexadecimal digits; expected an even number", digits.len()));
    }
    let value = |c: u8| char::from(c).to_digit(16).unwrap_or(0) as u8;
    Ok(digits.as_bytes().chunks_exact(2).map(|pair| pair.iter().fold(0, |octet, c| octet << 4 | value(*c))).collect())
}

#[derive(Clone, Copy, PartialEq)]
enum IdentityType {
    Ipv4,
    Ipv6,
    Fqdn,
    UserFqdn,
    KeyId,
}

/// An identity and its type: both, or neither.
fn identity(object: &mut Object<'_, '_, '_>, type_key: &str, id_key: &str) -> Result<Option<Identity>, Reported> {
    let types = [
        ("IPV4", IdentityType::Ipv4),
        ("IPV6", IdentityType::Ipv6),
        ("FQDN", IdentityType::Fqdn),
        ("USER-FQDN", IdentityType::UserFqdn),
        ("KEY-ID", IdentityType::KeyId),
    ];
    let kind = object.one_of(type_key, &types);
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
    let (kind, id) = (kind.ok_or(Reported)?, id.ok_or(Reported)?);
    let wrong = |what: &str| format!("`{id_key}` is {}; expected {what}", quoted(id.value));
    let read = match kind.value {
        IdentityType::Ipv4 => {
            id.value.parse::<Ipv4Addr>().map(|a| Identity::Address(IpAddr::V4(a))).map_err(|_| wrong("an IPv4 address"))
        }
        IdentityType::Ipv6 => {
            id.value.parse::<Ipv6Addr>().map(|a| Identity::Address(IpAddr::V6(a))).map_err(|_| wrong("an IPv6 address"))
        }
        IdentityType::Fqdn if is_domain_name(id.value) => Ok(Identity::Fqdn(id.value.to_owned())),
        IdentityType::Fqdn => Err(wrong("a domain name such as gw.example.com")),
        IdentityType::UserFqdn => match id.value.split_once('@') {
            Some((user, domain)) if is_word(user) && is_domain_name(domain) => {
                Ok(Identity::UserFqdn(id.value.to_owned()))
            }
            _ => Err(wrong("a mail address such as admin@example.com")),
        },
        IdentityType::KeyId => match id.value.strip_prefix("0x") {
            Some(digits) => hexadecimal(digits).map(Identity::KeyId).map_err(|e| format!("`{id_key}` {e}")),
            None if is_word(id.value) => Ok(Identity::KeyId(id.value.as_bytes().to_vec())),
            None => Err(wrong("ASCII characters, or 0x and hexadecimal digits")),
        },
    };
    read.map(Some).map_err(|message| {
        object.error(id.at, message);
        Reported
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.chars().all(|c| c.is_ascii_graphic())
}

fn is_domain_name(text: &str) -> bool {
    is_word(text)
        && text.split('.').all(|l| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)))
}

fn exchange(object: &mut Object<'_, '_, '_>) -> Option<()> {
    match object.one_of("exchange", &[("MM", true), ("AM", false)]) {
        Some(Located { value: true, .. }) => Some(()),
        Some(Located { value: false, at }) => {
            object
                .error(at, "`exchange` AM, aggressive mode, is not supported in this version; expected MM")
                .suggest("set main mode on the peer too; it also hides the identities");
            None
        }
        None => (!object.has("exchange")).then_some(()),
    }
}

/// Reads one entry of the bypass list.
pub(super) fn bypass(mut object: Object<'_, '_, '_>) -> Option<Located<AddressRange>> {
    if !object.has("address") {
        object.missing("`address` is missing; expected an address of this host");
    }
    let text = object.string("address", NETWORK)?;
    match address::network(text.value) {
        Ok(network) => Some(Located::new(network.range, text.at)),
        Err(refused) => {
            object.error(text.at, format!("`address`: {}", refused.message)).suggest_if(refused.suggestion);
            None
        }
    }
}
