//! `[[auth]]` and `[[bypass]]`.

use super::address::{self, NETWORK};
use super::identity;
use super::ike;
use super::keys::{PASSPHRASE, PRESHARED};
use super::model::{AuthMethod, AuthRecord, CertificateFiles, Phase1Exchange, RevocationPolicy, Xauth};
use super::object::{Object, quoted};
use super::source::{Located, Span};
use super::xauth;
use crate::selector::AddressRange;
use crypto::Secret;
use crypto::table::Signature;
use std::path::PathBuf;

/// Shorter keys can be guessed by whoever records a negotiation.
const SHORT_KEY: usize = 16;
/// In aggressive mode, by whoever asks for one.
const AGGRESSIVE_KEY: usize = 32;

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
    let methods = methods(&mut object);
    let xauth = xauth::read(&mut object, methods.as_deref().unwrap_or_default());
    let parts = Parts::of(methods.as_deref().unwrap_or_default(), xauth.as_ref().ok().and_then(Option::as_ref));
    let files = files(&mut object, parts);
    let local_id = identity::local(&mut object);
    let remote_id = identity::remote(&mut object);
    let exchange = exchange(&mut object, methods.as_deref().unwrap_or_default(), preshared.as_ref().ok());
    let line = object.line();
    let record = (|| {
        Some(AuthRecord {
            name: name.as_ref()?.value.clone(),
            remote: remote.as_ref()?.value,
            methods: methods.ok()?,
            preshared: preshared.ok()?,
            certificates: files.ok()?,
            local_id: local_id.as_ref().ok()?.named.clone(),
            local_subject: local_id.as_ref().ok()?.subject,
            remote_id: remote_id.ok()?,
            exchange: exchange?,
            authorities: Vec::new(),
            xauth: xauth.ok()?,
            line,
        })
    })();
    AuthEntry { label: object.label, header: object.header, name, remote, record }
}

/// URLs of CRLs in one record.
const MOST_URLS: usize = 16;

/// Marks that something was wrong and was reported.
pub(super) struct Reported;

/// `method`, or what HP-UX takes: PSK if there is a key, else signatures. What a method needs must be there.
fn methods(object: &mut Object<'_, '_, '_>) -> Result<Vec<AuthMethod>, Reported> {
    let (key, certificate) = (object.has(PRESHARED), object.has("certificate"));
    if !object.has("method") {
        if key && certificate {
            let at = object.key_span("certificate");
            object
                .warning(at, "`certificate` is not used, as there is a `preshared` key and no `method`")
                .suggest("write method = [\"RSASIG\", \"PSK\"], the preferred one first");
        }
        let signatures = Signature::from_keyword("rsasig").map(AuthMethod::Signature);
        return Ok(match (key, certificate) {
            (true, _) => vec![AuthMethod::PreSharedKey],
            (false, true) => signatures.into_iter().collect(),
            (false, false) => Vec::new(),
        });
    }
    let methods = ike::methods(object, "method").ok_or(Reported)?;
    let at = object.key_span("method");
    for method in &methods {
        match method {
            AuthMethod::PreSharedKey if !key => {
                object.error(at, format!("`method` has PSK, but there is no `{PRESHARED}` key"));
                return Err(Reported);
            }
            AuthMethod::Hybrid if !object.has("xauth") => {
                object
                    .error(
                        at,
                        "`method` has HYBRID, but there is no `xauth`, so that nothing would show who the client is",
                    )
                    .suggest("add xauth = \"client\", or on the gateway xauth = \"server\"");
                return Err(Reported);
            }
            AuthMethod::Signature(row) if !certificate => {
                object
                    .error(at, format!("`method` has {}, but there is no `certificate`", row.hpux))
                    .suggest("add certificate, key and ca, the paths of their files");
                return Err(Reported);
            }
            _ => {}
        }
    }
    if certificate && !methods.iter().any(|m| m.signature().is_some()) {
        let at = object.key_span("certificate");
        object.warning(at, "`certificate` is not used, as `method` has no signatures");
    }
    Ok(methods)
}

/// What certificates are for in a record: in hybrid authentication one side signs and the other judges.
#[derive(Clone, Copy)]
struct Parts {
    hybrid: bool,
    we_sign: bool,
    peer_signs: bool,
}

impl Parts {
    fn of(methods: &[AuthMethod], xauth: Option<&Xauth>) -> Self {
        let hybrid = methods.contains(&AuthMethod::Hybrid);
        let alone = hybrid && !methods.iter().any(|m| matches!(m, AuthMethod::Signature(_)));
        let client = matches!(xauth, Some(Xauth::Client { .. }));
        Self { hybrid, we_sign: !(alone && client), peer_signs: !alone || client }
    }
}

/// The files of certificates.
fn files(object: &mut Object<'_, '_, '_>, parts: Parts) -> Result<Option<CertificateFiles>, Reported> {
    if !object.has("certificate") {
        let all = ["key", PASSPHRASE, "ca", "crl", "crl_fetch", "crl_policy"];
        let useless = if parts.we_sign { &all[..] } else { &all[..2] };
        for key in useless {
            if object.has(key) {
                let at = object.key_span(key);
                object.error(at, format!("`{key}` without `certificate`; expected our own certificate too"));
                return Err(Reported);
            }
        }
        if parts.hybrid && parts.we_sign {
            object
                .missing("`certificate` is missing; expected ours, as `method` HYBRID has the gateway sign")
                .suggest("add certificate and key, the paths of their files");
            return Err(Reported);
        }
        if parts.we_sign {
            return Ok(None);
        }
    }
    let unused = match (parts.we_sign, parts.peer_signs) {
        (false, _) => Some(("certificate", "the client of hybrid authentication has its user alone")),
        (_, false) => Some(("ca", "the client of hybrid authentication has no certificate")),
        _ => None,
    };
    if let Some((key, why)) = unused.filter(|(key, _)| object.has(key)) {
        let at = object.key_span(key);
        object.warning(at, format!("`{key}` is not used: {why}"));
    }
    let certificate = if object.has("certificate") { one_path(object, "certificate").map(Some) } else { Ok(None) };
    let key = if object.has("key") { one_path(object, "key").map(Some) } else { Ok(None) };
    let authorities = paths(object, "ca");
    if parts.peer_signs && !object.has("ca") {
        object
            .missing("`ca` is missing; expected the file of the authority that issued the peer's certificate")
            .suggest("add ca = \"/etc/caponier/ca.pem\"");
    }
    let crls = crls(object);
    let crl_fetch = object.boolean("crl_fetch");
    let words = [("strict", RevocationPolicy::Strict), ("relaxed", RevocationPolicy::Relaxed)];
    let given = object.one_of("crl_policy", &words);
    let crl_policy = match given {
        Some(policy) => Ok(policy.value),
        None if object.has("crl_policy") => Err(Reported),
        None if object.has("crl") || crl_fetch => Ok(RevocationPolicy::Strict),
        None => Ok(RevocationPolicy::Relaxed),
    };
    let passphrase = match object.has(PASSPHRASE) {
        true => {
            object.string(PASSPHRASE, "text").map(|text| Some(Secret::copy_of(text.value.as_bytes()))).ok_or(Reported)
        }
        false => Ok(None),
    };
    let (crls, crl_urls) = crls?;
    let files = CertificateFiles {
        certificate: certificate?,
        key: key?,
        passphrase: passphrase?,
        authorities: authorities?,
        crls,
        crl_urls,
        crl_fetch,
        crl_policy: crl_policy?,
    };
    if parts.peer_signs && files.authorities.is_empty() {
        return Err(Reported);
    }
    if parts.peer_signs && files.crls.is_empty() && !files.fetches() {
        if files.crl_policy == RevocationPolicy::Strict {
            let at = object.key_span("crl_policy");
            object
                .error(at, "`crl_policy` is strict, but there is no `crl`, so that every peer would be refused")
                .suggest("add crl, the authority's list, or write crl_policy = \"relaxed\"");
            return Err(Reported);
        }
        if !object.has("crl_policy") {
            let at = object.key_span(if object.has("certificate") { "certificate" } else { "ca" });
            object
                .warning(at, "there is no `crl`: a certificate that was revoked is accepted")
                .suggest("add crl, or write crl_policy = \"relaxed\" to say that this is meant");
        }
    }
    Ok(Some(files))
}

pub(super) fn path(object: &mut Object<'_, '_, '_>, key: &str, text: Located<&str>) -> Option<PathBuf> {
    if text.value.is_empty() || text.value.contains('\0') {
        object.error(text.at, format!("`{key}` is not a path; expected a file"));
        return None;
    }
    let path = PathBuf::from(text.value);
    if !path.is_absolute() {
        object
            .warning(text.at, format!("`{key}` {} depends on where the daemon is started", quoted(text.value)))
            .suggest("write it from the root: /…");
    }
    Some(path)
}

pub(super) fn one_path(object: &mut Object<'_, '_, '_>, key: &str) -> Result<PathBuf, Reported> {
    let text = object.string(key, "the path of a file").ok_or(Reported)?;
    path(object, key, text).ok_or(Reported)
}

/// One path or several; none if the key is not there.
fn paths(object: &mut Object<'_, '_, '_>, key: &str) -> Result<Vec<PathBuf>, Reported> {
    let Some(texts) = object.strings(key, "paths of files") else { return Ok(Vec::new()) };
    let wanted = texts.value.len();
    let paths: Vec<_> = texts.value.into_iter().filter_map(|text| path(object, key, text)).collect();
    if paths.len() == wanted && wanted > 0 { Ok(paths) } else { Err(Reported) }
}

/// Files and URLs of CRLs; none if the key is not there.
fn crls(object: &mut Object<'_, '_, '_>) -> Result<(Vec<PathBuf>, Vec<String>), Reported> {
    let Some(texts) = object.strings("crl", "paths of files, or http:// URLs") else {
        return if object.has("crl") { Err(Reported) } else { Ok((Vec::new(), Vec::new())) };
    };
    let (mut files, mut urls, wanted) = (Vec::new(), Vec::new(), texts.value.len());
    for text in texts.value {
        match text.value.split_once("://") {
            None => files.extend(path(object, "crl", text)),
            Some((scheme, _)) if !scheme.eq_ignore_ascii_case("http") => {
                object
                    .error(text.at, format!("`crl`: {}: CRLs are fetched by http:// only", quoted(text.value)))
                    .suggest(
                        "a CRL is signed, so plain HTTP does; or fetch it with another program, and name the file",
                    );
            }
            Some((_, rest)) if is_host_and_path(rest) => urls.push(text.value.to_owned()),
            Some(_) => {
                object.error(text.at, format!("`crl`: {} is no URL; expected http://HOST/PATH", quoted(text.value)));
            }
        }
    }
    if urls.len() > MOST_URLS {
        let at = object.key_span("crl");
        object.error(at, format!("`crl` has {} URLs; expected at most {MOST_URLS}", urls.len()));
        return Err(Reported);
    }
    if files.len() + urls.len() == wanted && wanted > 0 { Ok((files, urls)) } else { Err(Reported) }
}

/// Whether this can follow `http://`: there is a host, and nothing that would have to be encoded.
fn is_host_and_path(rest: &str) -> bool {
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    !host.is_empty() && !host.contains('@') && rest.chars().all(|c| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c))
}

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
pub(super) fn hexadecimal(digits: &str) -> Result<Vec<u8>, String> {
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

/// `exchange`. Aggressive mode with a pre-shared key only with `aggressive_psk`, and never in silence: the
/// responder's hash and both identities are in the clear, and are sent to whoever asks (RFC 2409 5.4).
fn exchange(
    object: &mut Object<'_, '_, '_>,
    methods: &[AuthMethod],
    key: Option<&Option<Secret>>,
) -> Option<Phase1Exchange> {
    const WORD: &str = "aggressive_psk";
    let words = [("MM", Phase1Exchange::Main), ("AM", Phase1Exchange::Aggressive)];
    let exchange = match object.one_of("exchange", &words) {
        Some(exchange) => exchange,
        None if object.has("exchange") => return None,
        None => Located { value: Phase1Exchange::Main, at: object.header },
    };
    let accepted = object.one_of(WORD, &[("accept", ())]).is_some();
    if !accepted && object.has(WORD) {
        return None;
    }
    let exposed = exchange.value == Phase1Exchange::Aggressive && methods.contains(&AuthMethod::PreSharedKey);
    if accepted && !exposed {
        let at = object.key_span(WORD);
        object.error(at, format!("`{WORD}` without a pre-shared key in `exchange` AM; expected both, or neither"));
        return None;
    }
    if exposed && !accepted {
        object
            .error(
                exchange.at,
                "`exchange` is AM, aggressive mode, with a pre-shared key: whoever asks under an address of `remote` is \
                 sent a hash of the key, and can try keys against it for as long as he likes; expected MM, or signatures",
            )
            .suggest("write exchange = \"MM\" on both sides; if the peer can do nothing else, aggressive_psk = \"accept\"");
        return None;
    }
    if exposed {
        let octets = key.and_then(Option::as_ref).map_or(0, Secret::len);
        let weak = octets < AGGRESSIVE_KEY;
        object
            .warning(
                exchange.at,
                format!(
                    "aggressive mode shows a hash of the pre-shared key to whoever asks, and both identities{}",
                    if weak { format!("; a key of {octets} octets may be found by trying") } else { String::new() }
                ),
            )
            .suggest(if weak {
                "use certificates or main mode, or make a key with: openssl rand -hex 32"
            } else {
                "use certificates or main mode"
            });
    }
    Some(exchange.value)
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
