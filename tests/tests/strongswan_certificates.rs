//! Main mode with signatures against strongSwan, in both roles: every kind of key,
//! a chain with an authority in between, CRLs, and what a refusal looks like.

use serde_json::Value;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::{Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::pki::{self, Authority, Issued, Kind};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

/// The hash of the negotiation is not the one of any signature.
const NEGOTIATED: Case = Case { name: "signatures", ike: "aes256-sha1-modp2048", esp: "aes128-sha1" };

/// Files of Caponier's host, and the lines of its record.
fn ours(host: &Host, method: &str, certificate: &str, key: &str, authorities: &str, crl: Option<&str>) -> String {
    let at = host.directory.join("pki");
    let certificate = pki::write(&at, "a.pem", certificate);
    let key = pki::write(&at, "a.key", key);
    let ca = pki::write(&at, "ca.pem", authorities);
    let crl = match crl {
        Some(crl) => format!("crl = {:?}", pki::write(&at, "ca.crl", crl)),
        None => "crl_policy = \"relaxed\"".into(),
    };
    format!(
        "method = \"{method}\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n{crl}\n\
         ltype = \"FQDN\"\nlid = \"a.lab\"\nrtype = \"FQDN\"\nrid = \"b.lab\""
    )
}

/// Caponier's tunnel with these lines in its record.
fn tunnel(lab: &Lab, case: Case, record: String) -> Tunnel {
    Tunnel { preshared: String::new(), more_auth: record, ..Tunnel::new(lab.a(), lab.b(), case) }
}

/// strongSwan's files: its certificate, key, the authorities it believes, and CRLs.
fn theirs(host: &Host, issued: &Issued, authorities: &[String], crl: Option<&str>) {
    let run = host.directory.join("run");
    pki::write(&run.join("x509"), "b.crt", &issued.certificate);
    pki::write(&run.join("private"), "b.key", &issued.key);
    for (n, authority) in authorities.iter().enumerate() {
        pki::write(&run.join("x509ca"), &format!("ca{n}.crt"), authority);
    }
    if let Some(crl) = crl {
        pki::write(&run.join("x509crl"), "ca.crl", crl);
    }
}

/// strongSwan's connection with signatures.
fn connection(lab: &Lab, case: Case) -> Connection {
    let mut c = Connection::new(lab.b(), lab.a(), case);
    c.local_auth = "auth = pubkey\n    certs = b.crt".into();
    c.remote_auth = "auth = pubkey".into();
    (c.local_id, c.remote_id) = ("b.lab".into(), "a.lab".into());
    c
}

/// Both sides agree, and the reports name method, identity and certificate.
fn assert_up(caponier: &Caponier, swan: &StrongSwan, method: &str, issuer: &str) {
    let mirrored: Vec<_> = swan.pairs().into_iter().map(|(i, o)| (o, i)).collect();
    assert_eq!(caponier.pairs("to_b"), mirrored, "SPIs mirror");
    let mad = caponier.report("mad");
    let sa = mad.iter().find(|sa| sa["state"] == "established").expect("an ISAKMP SA");
    assert_eq!(sa["authentication_method"], method, "{sa}");
    assert_eq!((&sa["local_id"], &sa["remote_id"]), (&Value::from("a.lab"), &Value::from("b.lab")));
    assert_eq!(sa["remote_certificate"]["subject"], "C=DE, O=Lab, CN=b.lab", "{sa}");
    assert_eq!(sa["remote_certificate"]["issuer"], issuer, "{sa}");
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
}

/// A root that issued both sides' certificates, checked with its CRL on both sides.
fn every_kind(kind: Kind, method: &str, initiate: bool) {
    let role = if initiate { "initiator" } else { "responder" };
    let Some(lab) = Lab::open(&format!("{method}-{role}").to_lowercase(), 2, &[Need::StrongSwan]) else { return };
    let root = Authority::root("Lab CA", |_| ());
    let (a, b) = (root.issue(kind, "a.lab", 10, |_| ()), root.issue(kind, "b.lab", 11, |_| ()));
    let crl = root.crl(&[99], 2080);
    theirs(lab.b(), &b, &[root.certificate()], Some(&crl));
    let record = ours(lab.a(), method, &a.certificate, &a.key, &root.certificate(), Some(&crl));
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, NEGOTIATED, record)));
    let swan = StrongSwan::start(lab.b(), &connection(&lab, NEGOTIATED), &Esp::UserSpace);
    if initiate {
        traffic::ping_all(lab.a(), lab.b(), 1);
    } else {
        swan.initiate();
        traffic::ping_all(lab.b(), lab.a(), 1);
    }
    assert_up(&caponier, &swan, method, "C=DE, O=Lab, CN=Lab CA");
    assert_eq!(caponier.events("WARNING"), Vec::<String>::new(), "a strict policy lets nothing pass");
}

macro_rules! kinds {
    ($($name:ident: $kind:expr, $method:literal;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn as_initiator() {
                every_kind($kind, $method, true);
            }

            #[test]
            fn as_responder() {
                every_kind($kind, $method, false);
            }
        })*
    };
}

kinds! {
    rsa: Kind::Rsa, "RSASIG";
    ecdsa_256: Kind::P256, "ECDSA256";
    ecdsa_384: Kind::P384, "ECDSA384";
    ecdsa_521: Kind::P521, "ECDSA521";
}

/// Each side has its own authority below a common root, and sends that along.
#[test]
fn a_chain_with_an_authority_in_between() {
    let Some(lab) = Lab::open("chain", 2, &[Need::StrongSwan]) else { return };
    let root = Authority::root("Lab CA", |_| ());
    let (ours_below, theirs_below) = (root.authority("A's CA", 20, |_| ()), root.authority("B's CA", 21, |_| ()));
    let (a, b) =
        (ours_below.issue(Kind::P256, "a.lab", 10, |_| ()), theirs_below.issue(Kind::P256, "b.lab", 11, |_| ()));
    theirs(lab.b(), &b, &[root.certificate(), theirs_below.certificate()], None);
    // In any order, and with the root, which is not sent.
    let chain = root.certificate() + &ours_below.certificate() + &a.certificate;
    let record = ours(lab.a(), "ECDSA256", &chain, &a.key, &root.certificate(), None);
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, PLAIN, record)));
    let swan = StrongSwan::start(lab.b(), &connection(&lab, PLAIN), &Esp::UserSpace);
    traffic::ping_all(lab.a(), lab.b(), 1);
    assert_up(&caponier, &swan, "ECDSA256", "C=DE, O=Lab, CN=B's CA");
    // Without a CRL that is said aloud, once for each certificate that could be revoked.
    let warnings = caponier.events("WARNING");
    assert!(warnings.iter().all(|w| w.contains("is accepted, although there is no CRL")), "{warnings:?}");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

/// Revoked by our CRL: refused by name, in both roles, and the peer can read why.
#[test]
fn revoked() {
    let Some(lab) = Lab::open("revoked", 2, &[Need::StrongSwan]) else { return };
    let root = Authority::root("Lab CA", |_| ());
    let (a, b) = (root.issue(Kind::P256, "a.lab", 10, |_| ()), root.issue(Kind::P256, "b.lab", 11, |_| ()));
    theirs(lab.b(), &b, &[root.certificate()], None);
    let crl = root.crl(&[11], 2080);
    let record = ours(lab.a(), "ECDSA256", &a.certificate, &a.key, &root.certificate(), Some(&crl));
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, PLAIN, record)));
    let swan = StrongSwan::start(lab.b(), &connection(&lab, PLAIN), &Esp::UserSpace);
    let words = ["certificate revoked", "CN=b.lab", "serial 0x0b", "CN=Lab CA", "10.77.0.2"];
    let said = swan.initiate_in_vain(8);
    assert!(said.contains("INVALID_CERT"), "strongSwan was told: {said}");
    let event = caponier.wait_event(10, "ERROR", &words);
    assert!(event.contains("as responder"), "{event}");
    caponier.command(40, "ipsec_admin", &["-initiate", "to_b"]);
    let event = caponier.wait_event(10, "ERROR", &[&words[..], &["as initiator"]].concat());
    assert!(event.contains("Main Mode processing failed"), "{event}");
    caponier.assert_no_pairs();
    // A new list, and the peer is believed again.
    pki::write(&lab.a().directory.join("pki"), "ca.crl", &root.crl(&[], 2080));
    caponier.admin(&["-reload"]);
    traffic::ping_all(lab.a(), lab.b(), 1);
}

/// strongSwan refuses ours, and Caponier's line says so with what it can know.
#[test]
fn refused_by_the_peer() {
    let Some(lab) = Lab::open("refused", 2, &[Need::StrongSwan]) else { return };
    let (root, other) = (Authority::root("Lab CA", |_| ()), Authority::root("Another CA", |_| ()));
    let (a, b) = (other.issue(Kind::P256, "a.lab", 10, |_| ()), root.issue(Kind::P256, "b.lab", 11, |_| ()));
    theirs(lab.b(), &b, &[root.certificate()], None);
    let record = ours(lab.a(), "ECDSA256", &a.certificate, &a.key, &root.certificate(), None);
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, PLAIN, record)));
    let _swan = StrongSwan::start(lab.b(), &connection(&lab, PLAIN), &Esp::UserSpace);
    caponier.command(45, "ipsec_admin", &["-initiate", "to_b"]);
    let event = caponier.wait_event(40, "ERROR", &["AUTHENTICATION-FAILED", "our certificate", "10.77.0.2"]);
    assert!(event.contains("auth record `to_b`"), "{event}");
    caponier.assert_no_pairs();
}
