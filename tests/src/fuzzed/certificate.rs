//! Certificates, names, CRLs, and files of them: what strangers send, and what the authority made of
//! it. Changed certificates are signed again on request, so that what comes after the signature is reached.

use super::Reached;
use crypto::Secret;
use crypto::table::{Hash, Signature, SigningKey};
use keys::credentials::{File, Files, Statement};
use keys::{Certificate, Credentials, certificate::parse_name, encoding};
use policy::config::{AuthRecord, Config, IdentityPattern};
use policy::identity::Identity;
use policy::trust::Claim;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub(super) const PLACES: &[&str] = &[
    "certificate",
    "no certificate",
    "name",
    "no name",
    "file of certificates",
    "file of keys",
    "file of CRLs",
    "no file",
    "believed",
    "not believed",
    "believed though signed again",
    "CRL in use",
    "CRL refused",
    "revoked by CRL",
];

pub(super) const AUTHORITY: &[u8] = include_bytes!("../../../fuzz/fixtures/authority.der");
const AUTHORITY_KEY: &[u8] = include_bytes!("../../../fuzz/fixtures/authority.key.der");
pub(super) const CRL: &[u8] = include_bytes!("../../../fuzz/fixtures/authority.crl");
pub(super) const HOST: &[u8] = include_bytes!("../../../fuzz/fixtures/host.der");
pub(super) const HOST_KEY: &[u8] = include_bytes!("../../../fuzz/fixtures/host.key.der");
pub(super) const HOST_P12: &[u8] = include_bytes!("../../../fuzz/fixtures/host.p12");
/// Encrypted, with the passphrase of [`HOST_P12`].
pub(super) const HOST_KEY_PEM: &[u8] = include_bytes!("../../../fuzz/fixtures/host.key.pem");
const PASSPHRASE: &[u8] = b"x";

/// 2030: all fixtures are valid then.
const NOW: i64 = 1_893_456_000;
/// What the host has signed.
const SIGNED: [u8; 32] = [0x11; 32];

/// What was given as signed, with the key of the authority and that of the host.
struct Kit {
    method: &'static Signature,
    authority: Box<dyn SigningKey>,
    signature: Vec<u8>,
    record: Arc<AuthRecord>,
    credentials: Credentials,
}

fn kit() -> &'static Kit {
    static KIT: OnceLock<Kit> = OnceLock::new();
    KIT.get_or_init(|| {
        let method = Signature::from_keyword("ecdsa256").expect("a row");
        let key = |der| method.signing_key(der).expect("a key of P-256");
        let text = "[[tunnel]]\nname = \"t\"\ntsource = \"192.0.2.1\"\ntdestination = \"192.0.2.2\"\n\
                    source = \"10.1.0.0/16\"\ndestination = \"10.2.0.0/16\"\naction = \"aes128-sha1\"\n\
                    [[host]]\nname = \"h\"\nsource = \"10.1.0.0/16\"\ndestination = \"10.2.0.0/16\"\ntunnel = \"t\"\n\
                    [[ike]]\nname = \"i\"\nremote = \"192.0.2.2\"\nproposals = \"aes128-sha1-x25519\"\n\
                    [[auth]]\nname = \"a\"\nremote = \"192.0.2.2\"\nmethod = \"ECDSA256\"\ncertificate = \"/c\"\n\
                    key = \"/k\"\nca = \"/ca\"\ncrl = \"/crl\"\ncrl_policy = \"strict\"\n";
        let config = Config::parse(text, "fuzz.toml").expect("a good configuration").config;
        let record = Arc::clone(&config.auths[0]);
        Kit {
            method,
            authority: key(AUTHORITY_KEY),
            signature: key(HOST_KEY).sign(&SIGNED).expect("a signature"),
            credentials: credentials(&record, &[CRL]).expect("good files"),
            record,
        }
    })
}

fn credentials(record: &AuthRecord, crls: &[&[u8]]) -> Result<Credentials, Vec<String>> {
    let file = |octets: &[u8]| File { path: Path::new("file"), octets: Secret::copy_of(octets) };
    let files = Files {
        certificate: Some(file(HOST)),
        key: Some(file(HOST_KEY)),
        authorities: vec![file(AUTHORITY)],
        crls: crls.iter().map(|crl| file(crl)).collect(),
    };
    Credentials::new(record, record.certificates.as_ref().expect("files"), files)
}

/// The first octet says what the others are.
pub(super) fn run(input: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let Some((&what, octets)) = input.split_first() else { return reached };
    match what % 6 {
        0 => certificate(octets, &mut reached),
        1 => match parse_name(octets) {
            Ok(name) => {
                reached.note("name");
                assert_eq!(name.der(), octets);
                shown(&name.to_string());
            }
            Err(_) => reached.note("no name"),
        },
        2 => file(octets, &mut reached),
        3 => judge(octets, false, &mut reached),
        4 => judge(octets, true, &mut reached),
        _ => crl(octets, &mut reached),
    }
    reached
}

/// What goes into a line of the audit has no control characters in it.
fn shown(text: &str) {
    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
}

fn certificate(octets: &[u8], reached: &mut Reached) {
    let Ok(certificate) = Certificate::parse(octets) else { return reached.note("no certificate") };
    reached.note("certificate");
    assert_eq!(certificate.der(), octets);
    shown(&certificate.name().to_string());
    shown(&certificate.identities());
    let _ = certificate.certifies(&Identity::Name(certificate.subject().clone()));
}

fn file(octets: &[u8], reached: &mut Reached) {
    for passphrase in [None, Some(Secret::copy_of(PASSPHRASE))] {
        match encoding::read(octets, passphrase.as_ref()) {
            Ok(contents) => {
                let found = [
                    (contents.certificates.is_empty(), "file of certificates"),
                    (contents.keys.is_empty(), "file of keys"),
                    (contents.crls.is_empty(), "file of CRLs"),
                ];
                assert!(found.iter().any(|(empty, _)| !empty), "a file that holds nothing is an error");
                found.iter().filter(|(empty, _)| !empty).for_each(|(_, place)| reached.note(place));
            }
            Err(error) => {
                reached.note("no file");
                shown(&error.to_string());
            }
        }
    }
}

/// A chain that a peer shows: its own certificate is `octets`, perhaps signed again by the authority.
fn judge(octets: &[u8], sign: bool, reached: &mut Reached) {
    let kit = kit();
    let own = if sign { signed_again(octets, kit) } else { Some(octets.to_vec()) };
    let Some(own) = own else { return };
    let claim = Claim::Identity(Identity::Fqdn("host.example.com".into()));
    let certificates = [own, AUTHORITY.to_vec()];
    let statement = Statement {
        method: kit.method,
        hash: &SIGNED,
        signature: &kit.signature,
        claim: &claim,
        certificates: &certificates,
        expected: &IdentityPattern::Exactly(Identity::Fqdn("host.example.com".into())),
    };
    match kit.credentials.judge(&statement, NOW, &[]) {
        Ok(trusted) => {
            reached.note(if sign { "believed though signed again" } else { "believed" });
            // Nobody but the authority can make a certificate that is believed.
            assert!(sign || octets == HOST, "a certificate that the authority never signed is believed");
            shown(&trusted.certificate.to_string());
        }
        Err(refusal) => {
            reached.note("not believed");
            shown(&refusal.explanation());
        }
    }
}

/// A CRL in place of the authority's, which the authority has signed too.
fn crl(octets: &[u8], reached: &mut Reached) {
    let kit = kit();
    let Some(crl) = signed_again(octets, kit) else { return };
    let Ok(credentials) = credentials(&kit.record, &[&crl]) else { return reached.note("CRL refused") };
    let claim = Claim::Identity(Identity::Fqdn("host.example.com".into()));
    let certificates = [HOST.to_vec()];
    let statement = Statement {
        method: kit.method,
        hash: &SIGNED,
        signature: &kit.signature,
        claim: &claim,
        certificates: &certificates,
        expected: &IdentityPattern::Exactly(Identity::Fqdn("host.example.com".into())),
    };
    for remark in credentials.remarks(NOW, &[]) {
        shown(&remark);
    }
    match credentials.judge(&statement, NOW, &[]) {
        Ok(_) => reached.note("CRL in use"),
        Err(refusal) => {
            if refusal.distrust == policy::trust::Distrust::Revoked {
                reached.note("revoked by CRL");
            }
            shown(&refusal.explanation());
        }
    }
}

/// Replaces algorithm and signature of a signed structure by the authority's over what is in it.
fn signed_again(octets: &[u8], kit: &Kit) -> Option<Vec<u8>> {
    let (body, _) = element(octets)?;
    let (_, rest) = element(body)?;
    let inner = &body[..body.len() - rest.len()];
    let digest = Hash::from_keyword("sha256").expect("a row").digest(&[inner]);
    let raw = kit.authority.sign(&digest).expect("a signature");
    let (r, s) = raw.split_at(raw.len() / 2);
    let signature = der(0x30, &[integer(r), integer(s)].concat());
    // ecdsa-with-SHA256
    let algorithm = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    Some(der(0x30, &[inner, &algorithm, &der(0x03, &[&[0][..], &signature].concat())].concat()))
}

/// The content of the first element of DER, and what follows it.
fn element(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, content) = match octets {
        [_, len @ 0..=0x7f, rest @ ..] => (usize::from(*len), rest),
        [_, 0x81, len, rest @ ..] => (usize::from(*len), rest),
        [_, 0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    content.split_at_checked(len)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a short element");
    let [high, low] = len.to_be_bytes();
    let length = match len {
        0..0x80 => vec![low],
        0x80..0x100 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, content].concat()
}

fn integer(octets: &[u8]) -> Vec<u8> {
    let first = octets.iter().position(|&b| b != 0).unwrap_or(octets.len() - 1);
    let significant = &octets[first..];
    let sign: &[u8] = if significant[0] & 0x80 == 0 { &[] } else { &[0] };
    der(0x02, &[sign, significant].concat())
}
