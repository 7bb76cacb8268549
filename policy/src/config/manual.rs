//! Manual keys: `in` and `out` of a `[[tunnel]]`, `ESP/spi/auth_key/enc_key[/iv]` as in HP-UX.

use super::auth::hexadecimal;
use super::model::{ManualKeys, ManualSa, Startup};
use super::object::Object;
use super::source::{Located, Span};
use crate::sa::SaProtocol;
use crate::selector::{AddressRange, Selector};
use crate::spi;
use crate::transform::{DEFAULT_LIFETIME, EspTransform};
use crypto::table::Error;
use crypto::{EspSuite, Secret};

const FORM: &str = "ESP/spi/auth_key/enc_key[/iv], the keys in hexadecimal digits";

/// The keys of a tunnel that has `in` or `out`.
pub(super) struct Given {
    /// The inbound SPI and where it stands.
    pub(super) spi: Option<Located<u32>>,
    /// `None`: wrong, and reported.
    pub(super) keys: Option<ManualKeys>,
}

/// Reads the manual keys of a tunnel; `None` if it has none. `transforms` are those of its
/// `action`, `selector` what goes through it, where they are right.
pub(super) fn read(
    object: &mut Object<'_, '_, '_>,
    transforms: Option<&[EspTransform]>,
    selector: Option<&Selector>,
    startup: &Startup,
) -> Option<Given> {
    let anti_replay = object.boolean("anti_replay");
    if !object.has("in") && !object.has("out") {
        if object.has("anti_replay") {
            let at = object.key_span("anti_replay");
            object
                .error(at, "`anti_replay` without manual keys: negotiated SAs always have an anti-replay window")
                .suggest("remove it; the size of the window is `replay_window` in [startup]");
        }
        return None;
    }
    for (key, other) in [("in", "out"), ("out", "in")] {
        if !object.has(other) {
            object.missing(format!("`{key}` without `{other}`; manual keys need both directions"));
        }
    }
    if object.has("start") {
        let at = object.key_span("start");
        object.error(at, "`start` says when to negotiate, but manual keys are never negotiated").suggest("remove it");
    }
    if object.has("lifetime_packets") {
        let at = object.key_span("lifetime_packets");
        object
            .error(at, "`lifetime_packets` says when to negotiate anew, but manual keys are never negotiated")
            .suggest("remove it");
    }
    let selects = selector.and_then(|s| no_wildcards(object, s));
    let suite = transforms.and_then(|t| suite(object, t));
    let inbound = suite.and_then(|suite| sa(object, "in", suite));
    let inbound = inbound.filter(|sa| is_outside(object, sa, startup));
    let outbound = suite.and_then(|suite| sa(object, "out", suite));
    let spi = inbound.as_ref().map(|sa| Located::new(sa.value.spi, sa.at));
    let keys = (|| {
        selects?;
        Some(ManualKeys { inbound: inbound?.value, outbound: outbound?.value, anti_replay })
    })();
    Some(Given { spi, keys })
}

/// HP-UX: both sides must be named, each as one address or one network.
fn no_wildcards(object: &mut Object<'_, '_, '_>, selector: &Selector) -> Option<()> {
    let mut right = Some(());
    for (key, range) in [("source", selector.local), ("destination", selector.remote)] {
        let wrong = if range == AddressRange::ANY_V4 || range == AddressRange::ANY_V6 {
            "is everything"
        } else if range.to_string().contains('-') {
            "is a range"
        } else {
            continue;
        };
        let at = object.key_span(key);
        object
            .error(at, format!("`{key}` {wrong}; expected one address or network with manual keys"))
            .suggest("name what the peer's configuration names too");
        right = None;
    }
    right
}

/// The one suite of the tunnel, if it may be used with manual keys.
fn suite(object: &mut Object<'_, '_, '_>, transforms: &[EspTransform]) -> Option<EspSuite> {
    let at = object.key_span("action");
    let [transform] = transforms else {
        object.error(
            at,
            format!("`action` lists {} transforms; expected one: manual keys are for one algorithm", transforms.len()),
        );
        return None;
    };
    if transform.protocol != SaProtocol::Esp || transform.ah.is_some() {
        object
            .error(at, format!("`action` is {}; in this version manual keys are for ESP", transform.keyword()))
            .suggest("use ESP_NULL_HMAC_SHA1, or negotiate the keys with [[ike]] and [[auth]]");
        return None;
    }
    let negotiated = [
        ("a group", transform.pfs.is_some()),
        ("extended sequence numbers", transform.esn),
        ("a lifetime", transform.lifetime != DEFAULT_LIFETIME),
    ];
    if let Some((what, _)) = negotiated.iter().find(|(_, there)| *there) {
        object
            .error(at, format!("`action` has {what}, for negotiated keys only; expected the algorithms alone"))
            .suggest(format!("write action = \"{}\"", transform.suite.hpux()));
        return None;
    }
    if !transform.suite.allows_manual_keys() {
        object
            .error(
                at,
                format!(
                    "{} must not be used with manual keys: after a restart it would use the same nonces again, which \
                     gives the traffic away (RFC 8221 3, RFC 4106 2, RFC 3686 2.1)",
                    transform.suite.hpux()
                ),
            )
            .suggest("negotiate the keys with [[ike]] and [[auth]], or use ESP_AES128_HMAC_SHA1 or the like");
        return None;
    }
    Some(transform.suite)
}

/// One direction. Messages never show the keys.
fn sa(object: &mut Object<'_, '_, '_>, key: &str, suite: EspSuite) -> Option<Located<ManualSa>> {
    let text = object.string(key, FORM)?;
    match parse(text.value, suite) {
        Ok((sa, has_iv)) => {
            if has_iv {
                object
                    .warning(text.at, format!("the IV of `{key}` is not used: each packet has an unpredictable one"))
                    .suggest("leave it out (RFC 3602 2.1, RFC 2451 3)");
            }
            Some(Located::new(sa, text.at))
        }
        Err(wrong) => {
            object.error(text.at, format!("`{key}`: {wrong}"));
            None
        }
    }
}

/// Reads one descriptor, and says whether it has an IV.
fn parse(text: &str, suite: EspSuite) -> Result<(ManualSa, bool), String> {
    let mut parts = text.split('/').map(str::trim);
    match parts.next().unwrap_or("") {
        p if p.eq_ignore_ascii_case("ESP") => {}
        p if p.eq_ignore_ascii_case("AH") => return Err("in this version manual keys are for ESP; expected ESP".into()),
        _ => return Err(format!("does not begin with ESP/; expected {FORM}")),
    }
    let spi = parts.next().ok_or_else(|| format!("has no SPI; expected {FORM}"))?;
    let spi = number(spi).ok_or("the SPI is not a number from 256 to 4294967295, decimal or 0x and hexadecimal")?;
    if spi <= spi::RESERVED {
        return Err(format!("SPI {spi} is reserved (RFC 4303 2.1); expected 256 or more"));
    }
    let mac_len = suite.integrity.map_or(0, |i| i.key_len);
    let authentication = octets("authentication key", parts.next(), mac_len, suite)?;
    let encryption = octets("encryption key", parts.next(), suite.encryption.key_len(), suite)?;
    let iv = parts.next().filter(|iv| !iv.is_empty());
    if let Some(iv) = iv
        && !hexadecimal(digits(iv)).is_ok_and(|iv| iv.len() == 8)
    {
        return Err("the IV is not 16 hexadecimal digits".into());
    }
    if parts.next().is_some() {
        return Err(format!("has too many parts; expected {FORM}"));
    }
    let mut keymat = Vec::with_capacity(suite.keymat_len());
    keymat.extend_from_slice(encryption.expose());
    keymat.extend_from_slice(authentication.expose());
    let keymat = Secret::new(keymat);
    match crypto::packet::sealer(suite, &keymat, &[0; 16], false) {
        Ok(_) => Ok((ManualSa { spi, keymat }, iv.is_some())),
        // HP-UX shows the key; a log is no place for one.
        Err(Error::WeakKey { .. }) => {
            Err(format!("Weak {} encryption key: 0x..; expected another key", suite.encryption.hpux))
        }
        Err(e) => Err(e.to_string()),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
        None => text.parse().ok().filter(|_| !text.starts_with('+')),
    }
}

fn digits(text: &str) -> &str {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}

/// A key of `len` octets.
fn octets(what: &str, text: Option<&str>, len: usize, suite: EspSuite) -> Result<Secret, String> {
    let digits = digits(text.unwrap_or(""));
    let wrong =
        |found: &str| format!("the {what} {found}; expected {} hexadecimal digits for {}", 2 * len, suite.hpux());
    match digits.chars().position(|c| !c.is_ascii_hexdigit()) {
        Some(at) => return Err(wrong(&format!("has something else than a hexadecimal digit in place {}", at + 1))),
        None if digits.len() != 2 * len => return Err(wrong(&format!("has {} digits", digits.len()))),
        None if len == 0 => return Ok(Secret::new(Vec::new())),
        None => {}
    }
    hexadecimal(digits).map(Secret::new).map_err(|e| wrong(&e))
}

/// HP-UX: manual SPIs are outside the range of the dynamic ones.
fn is_outside(object: &mut Object<'_, '_, '_>, sa: &Located<ManualSa>, startup: &Startup) -> bool {
    let (low, high) = (startup.spi_min, startup.spi_max);
    if !(low..=high).contains(&sa.value.spi) {
        return true;
    }
    let first = spi::RESERVED + 1;
    let below = (low > first).then(|| format!("{first} to {}", low - 1));
    let above = (high < u32::MAX).then(|| format!("{} to {}", high + 1, u32::MAX));
    let expected: Vec<String> = below.into_iter().chain(above).collect();
    let expected = if expected.is_empty() { "a narrower range".into() } else { expected.join(" or ") };
    object
        .error(
            sa.at,
            format!(
                "`in`: SPI {} is among the dynamic ones, `spi_min` {low} to `spi_max` {high}; expected {expected}",
                sa.value.spi
            ),
        )
        .suggest("the peer's `out` must say the same SPI");
    false
}

/// Reports inbound SPIs that two tunnels share. `seen` are labels and lines by SPI.
pub(super) fn unique<'e>(
    spis: impl Iterator<Item = (&'e str, &'e Located<u32>)>,
    report: &mut super::report::Report<'_>,
) {
    let mut seen: std::collections::BTreeMap<u32, (&str, Span)> = std::collections::BTreeMap::new();
    for (label, spi) in spis {
        let Some((other, at)) = seen.get(&spi.value) else {
            seen.insert(spi.value, (label, spi.at));
            continue;
        };
        let line = report.line(*at);
        report
            .error(
                spi.at,
                label,
                format!("`in`: SPI {} is that of {other} (line {line}); expected a unique one", spi.value),
            )
            .suggest("choose another, and change `out` of the peer too");
    }
}
