//! `[[ike]]`.

use super::address::{self, NETWORK};
use super::model::{AuthMethod, Dpd, DpdAction, IkePolicy, NatTraversal, QuickModeFailure, Startup};
use super::nearest::did_you_mean;
use super::object::{Object, quoted};
use super::priority::{self, Priority};
use super::source::{Located, Span};
use crate::sa::Lifetime;
use crate::selector::AddressRange;
use crate::transform::Limits;
use crypto::IkeSuite;
use crypto::table::{ENCRYPTIONS, Encryption, GROUPS, Group, HASHES, Hash, SIGNATURES, Signature, Status};

/// The proposal of a policy that names none.
const DEFAULT_PROPOSAL: &str = "aes128-sha1-modp2048";

/// The ISAKMP SA's lifetime unless named, in seconds.
const DEFAULT_LIFE: u32 = 28800;

/// Octets of an IP packet that every IPv6 link carries (RFC 8200 5), and practically every IPv4 link.
const FRAGMENT_SIZE: u32 = 1280;
const FRAGMENT_SIZES: core::ops::RangeInclusive<u32> = 576..=9000;

/// Most proposals of a policy: each is a transform of one message.
const MOST_PROPOSALS: usize = 25;

/// An IKE policy as read.
pub(super) struct IkeEntry {
    pub(super) label: String,
    pub(super) header: Span,
    pub(super) name: Option<Located<String>>,
    pub(super) priority: Priority,
    pub(super) remote: Option<Located<AddressRange>>,
    /// Without its priority; `None`: wrong, and reported.
    pub(super) policy: Option<IkePolicy>,
}

/// Reads one IKE policy.
pub(super) fn read(mut object: Object<'_, '_, '_>, startup: &Startup) -> IkeEntry {
    let name = object.name();
    let priority = priority::read(&mut object);
    let remote = remote(&mut object);
    let methods = if object.has("auth") { methods(&mut object, "auth") } else { Some(Vec::new()) };
    let proposals = proposals(&mut object);
    let floor = if startup.allow_short_lifetimes { Limits::SHORT } else { Limits::HPUX }.seconds;
    let life = integer_or(&mut object, "life", floor..=u32::MAX - 1, DEFAULT_LIFE);
    let maxqm = integer_or(&mut object, "maxqm", 0..=u32::MAX, 100);
    let keepalive = integer_or(&mut object, "keepalive", 1..=3600, 20).and_then(|n| u16::try_from(n).ok());
    let words = [("auto", NatTraversal::Auto), ("force", NatTraversal::Force), ("off", NatTraversal::Off)];
    let nat_traversal = match object.one_of("nat_traversal", &words) {
        Some(n) => Some(n.value),
        None if object.has("nat_traversal") => None,
        None => Some(NatTraversal::Auto),
    };
    let fragment_size = fragment_size(&mut object);
    let dpd = dpd(&mut object);
    let failures = [("keep", QuickModeFailure::Keep), ("delete", QuickModeFailure::Delete)];
    let quick_mode_failure = choice(&mut object, "quick_mode_failure", &failures, QuickModeFailure::Keep);
    let line = object.line();
    let policy = (|| {
        Some(IkePolicy {
            name: name.as_ref()?.value.clone(),
            remote: remote.as_ref()?.value,
            priority: 0,
            proposals: proposals?,
            methods: methods?,
            lifetime: Lifetime { seconds: life?, kbytes: 0 },
            max_quick_modes: maxqm?,
            nat_traversal: nat_traversal?,
            keepalive_seconds: keepalive?,
            fragment_size: fragment_size?,
            dpd: dpd?,
            quick_mode_failure: quick_mode_failure?,
            line,
        })
    })();
    IkeEntry { label: object.label, header: object.header, name, priority, remote, policy }
}

/// `fragmentation` and `fragment_size`.
fn fragment_size(object: &mut Object<'_, '_, '_>) -> Option<Option<u16>> {
    let on = choice(object, "fragmentation", &[("on", true), ("off", false)], true);
    let size = integer_or(object, "fragment_size", FRAGMENT_SIZES, FRAGMENT_SIZE);
    let size = size.and_then(|n| u16::try_from(n).ok());
    if on == Some(false) && object.has("fragment_size") {
        let at = object.key_span("fragment_size");
        object.error(at, "`fragment_size`, but `fragmentation` is off; expected one of the two");
        return None;
    }
    Some(on?.then_some(size?))
}

/// `dpd`, `dpd_mode` and `dpd_action`.
fn dpd(object: &mut Object<'_, '_, '_>) -> Option<Dpd> {
    let default = Dpd::DEFAULT;
    let seconds = integer_or(object, "dpd", 0..=3600, default.seconds.into()).and_then(|n| u16::try_from(n).ok());
    let periodic = choice(object, "dpd_mode", &[("demand", false), ("periodic", true)], default.periodic);
    let actions = [("hold", DpdAction::Hold), ("clear", DpdAction::Clear), ("restart", DpdAction::Restart)];
    let action = choice(object, "dpd_action", &actions, default.action);
    Some(Dpd { seconds: seconds?, periodic: periodic?, action: action? })
}

/// One of a few words; `None`: another one, and reported.
fn choice<T: Copy>(object: &mut Object<'_, '_, '_>, key: &str, words: &[(&str, T)], default: T) -> Option<T> {
    if !object.has(key) {
        return Some(default);
    }
    object.one_of(key, words).map(|n| n.value)
}

/// Reads `remote` of IKE policies and authentication records.
pub(super) fn remote(object: &mut Object<'_, '_, '_>) -> Option<Located<AddressRange>> {
    if !object.has("remote") {
        object.missing("`remote` is missing; expected the addresses of peers").suggest("add remote = \"10.1.1.1\"");
    }
    let text = object.string("remote", NETWORK)?;
    match address::network(text.value) {
        Ok(network) => {
            if network.host_bits {
                object
                    .warning(
                        text.at,
                        format!("{} has bits set beyond its prefix, which are ignored", quoted(text.value)),
                    )
                    .suggest(format!("write {}", network.range));
            }
            Some(Located::new(network.range, text.at))
        }
        Err(refused) => {
            object.error(text.at, format!("`remote`: {}", refused.message)).suggest_if(refused.suggestion);
            None
        }
    }
}

/// A list of authentication methods, `PSK`, names of signatures and `HYBRID`, the preferred one first.
pub(super) fn methods(object: &mut Object<'_, '_, '_>, key: &str) -> Option<Vec<AuthMethod>> {
    let usable = || SIGNATURES.iter().filter(|row| row.status != Status::Forbidden);
    let names: Vec<&str> = core::iter::once("PSK").chain(usable().map(|row| row.hpux)).chain(["HYBRID"]).collect();
    let expected = format!("one or more of {}", names.join(", "));
    let texts = object.strings(key, &expected)?;
    let mut methods = Vec::new();
    for text in &texts.value {
        let row = Signature::from_hpux(text.value).or_else(|| Signature::from_keyword(text.value));
        let method = match row {
            _ if text.value.eq_ignore_ascii_case("PSK") => AuthMethod::PreSharedKey,
            _ if text.value.eq_ignore_ascii_case("HYBRID") => AuthMethod::Hybrid,
            Some(row) if row.status == Status::Forbidden => {
                object.error(
                    text.at,
                    format!(
                        "`{key}` is {}, which is never used: {}; expected {expected}",
                        quoted(text.value),
                        row.caveat
                    ),
                );
                return None;
            }
            Some(row) => AuthMethod::Signature(row),
            None => {
                object
                    .error(text.at, format!("`{key}` is {}; expected {expected}", quoted(text.value)))
                    .suggest_if(did_you_mean(text.value, names.iter().copied()));
                return None;
            }
        };
        if methods.contains(&method) {
            object.warning(text.at, format!("`{key}` has {method} twice"));
        } else {
            methods.push(method);
        }
    }
    (!methods.is_empty()).then_some(methods)
}

fn integer_or(
    object: &mut Object<'_, '_, '_>,
    key: &str,
    range: core::ops::RangeInclusive<u32>,
    default: u32,
) -> Option<u32> {
    if !object.has(key) {
        return Some(default);
    }
    object.integer(key, range).map(|n| n.value)
}

/// `proposals`, or HP-UX's `hash`, `encryption` and `group`.
fn proposals(object: &mut Object<'_, '_, '_>) -> Option<Vec<IkeSuite>> {
    let hpux = ["hash", "encryption", "group"].into_iter().find(|k| object.has(k));
    match hpux {
        Some(key) if object.has("proposals") => {
            let at = object.key_span(key);
            object.error(at, format!("`{key}` and `proposals` are both there; expected one way to say it"));
            None
        }
        Some(_) => hpux_proposal(object).map(|suite| vec![suite]),
        None if object.has("proposals") => listed_proposals(object),
        None => DEFAULT_PROPOSAL.parse().ok().map(|suite| vec![suite]),
    }
}

fn listed_proposals(object: &mut Object<'_, '_, '_>) -> Option<Vec<IkeSuite>> {
    let texts = object.strings("proposals", "suites such as aes128-sha1-modp2048")?;
    let listed: Vec<Located<&str>> =
        texts.value.iter().flat_map(|t| t.value.split(',').map(|part| Located::new(part.trim(), t.at))).collect();
    if listed.len() > MOST_PROPOSALS {
        object.error(texts.at, format!("`proposals` has {}; expected at most {MOST_PROPOSALS}", listed.len()));
        return None;
    }
    let mut suites: Vec<IkeSuite> = Vec::new();
    for text in &listed {
        match text.value.parse::<IkeSuite>() {
            Ok(suite) => {
                if suites.contains(&suite) {
                    object.warning(text.at, format!("the proposal {suite} is listed twice"));
                }
                warn_of_legacy(object, text.at, &suite);
                suites.push(suite);
            }
            Err(e) => {
                object.error(text.at, format!("`proposals`: {e}"));
            }
        }
    }
    (!listed.is_empty() && suites.len() == listed.len()).then_some(suites)
}

fn warn_of_legacy(object: &mut Object<'_, '_, '_>, at: Span, suite: &IkeSuite) {
    for part in suite.legacy_parts() {
        object.warning(at, format!("{suite} uses a legacy algorithm, {part}"));
    }
}

/// HP-UX's three options; what is not named is that of the default proposal.
fn hpux_proposal(object: &mut Object<'_, '_, '_>) -> Option<IkeSuite> {
    let default: IkeSuite = DEFAULT_PROPOSAL.parse().ok()?;
    let phase1 = ENCRYPTIONS.iter().filter(|e| e.ikev1_phase1.is_some());
    let encryption = row(object, "encryption", default.encryption, phase1, |t| {
        Encryption::from_hpux(t).or_else(|| Encryption::from_keyword(t)).filter(|e| e.ikev1_phase1.is_some())
    });
    let hash =
        row(object, "hash", default.hash, HASHES.iter(), |t| Hash::from_hpux(t).or_else(|| Hash::from_keyword(t)));
    let group = row(object, "group", default.group, GROUPS.iter(), |t| match t.parse() {
        Ok(number) => Group::from_number(number),
        Err(_) => Group::from_keyword(t),
    });
    let suite = IkeSuite { encryption: encryption?, hash: hash?, group: group? };
    let at = object.header;
    warn_of_legacy(object, at, &suite);
    Some(suite)
}

/// One row of the algorithm table by name; `None`: not to be used, and reported.
fn row<T: Row + 'static>(
    object: &mut Object<'_, '_, '_>,
    key: &str,
    default: &'static T,
    rows: impl Iterator<Item = &'static T>,
    find: impl Fn(&str) -> Option<&'static T>,
) -> Option<&'static T> {
    if !object.has(key) {
        return Some(default);
    }
    let usable: Vec<&str> = rows.filter(|r| r.status() != Status::Forbidden).map(|r| r.name()).collect();
    let expected = format!("{}one of {}", T::ALSO, usable.join(", "));
    let text = object.string_or_integer(key, &expected)?;
    match find(&text.value) {
        Some(row) if row.status() == Status::Forbidden => {
            object.error(
                text.at,
                format!(
                    "`{key}` is {}, which is never used: {}; expected {expected}",
                    quoted(&text.value),
                    row.caveat()
                ),
            );
            None
        }
        Some(row) => Some(row),
        None => {
            object
                .error(text.at, format!("`{key}` is {}; expected {expected}", quoted(&text.value)))
                .suggest_if(did_you_mean(&text.value, usable.iter().copied()));
            None
        }
    }
}

/// What [`row`] needs to know of a row.
trait Row {
    /// What else the key may be, for messages.
    const ALSO: &'static str;
    fn name(&self) -> &'static str;
    fn status(&self) -> Status;
    fn caveat(&self) -> &'static str;
}

macro_rules! rows {
    ($($row:ty: $name:ident $also:literal),*) => {$(
        impl Row for $row {
            const ALSO: &'static str = $also;
            fn name(&self) -> &'static str {
                self.$name
            }
            fn status(&self) -> Status {
                self.status
            }
            fn caveat(&self) -> &'static str {
                self.caveat
            }
        }
    )*};
}
rows!(Encryption: hpux "", Hash: hpux "", Group: keyword "a number such as 14, or ");
