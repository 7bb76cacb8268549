//! Two Caponiers with certificates: what is refused is said on both sides, and what is
//! wrong with files is said before anything starts.

use std::path::Path;
use std::process::Command;
use tests::caponier::{Caponier, Configuration, Tunnel, applets};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::pki::{self, Authority, Issued, Kind};
use tests::process;
use tests::traffic;

/// Lines of a record; identities are the addresses unless `more` says otherwise.
fn record(host: &Host, own: &Issued, ca: &str, more: &str) -> String {
    let at = host.directory.join("pki");
    let (certificate, key) = (pki::write(&at, "own.pem", &own.certificate), pki::write(&at, "own.key", &own.key));
    let ca = pki::write(&at, "ca.pem", ca);
    format!("certificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n{more}")
}

fn configuration(me: &Host, peer: &Host, record: String) -> Configuration {
    Configuration::new(Tunnel { preshared: String::new(), more_auth: record, ..Tunnel::new(me, peer, PLAIN) })
}

/// A certificate for the host's address.
fn for_host(
    authority: &Authority,
    kind: Kind,
    host: &Host,
    change: impl FnOnce(&mut rcgen::CertificateParams),
) -> Issued {
    authority.issue(kind, &format!("{}.lab", host.name), 10, |p| {
        p.subject_alt_names.push(pki::address(host.outer()));
        change(p);
    })
}

const RELAXED: &str = "crl_policy = \"relaxed\"";

/// RSA without another word: HP-UX's default where there is no key. The reports show who is who.
#[test]
fn addresses_as_identities() {
    let Some(lab) = Lab::open("addresses", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let root = Authority::root("Lab CA", |_| ());
    let ca = root.certificate();
    let start = |me: &Host, peer: &Host| {
        let own = for_host(&root, Kind::Rsa, me, |_| ());
        Caponier::start(me, &configuration(me, peer, record(me, &own, &ca, RELAXED)))
    };
    let (at_a, at_b) = (start(a, b), start(b, a));
    traffic::ping_all(a, b, 1);
    for (caponier, peer) in [(&at_a, b), (&at_b, a)] {
        let mad = caponier.report("mad");
        assert_eq!(mad[0]["authentication_method"], "RSASIG");
        assert_eq!(mad[0]["remote_id"], peer.outer().to_string());
        assert_eq!(mad[0]["remote_certificate"]["subject"], format!("C=DE, O=Lab, CN={}.lab", peer.name));
        let auth = caponier.report("auth");
        assert_eq!(auth[0]["authentication_method"], "RSASIG");
        assert_eq!(auth[0]["certificate"]["not_after"], "2080-01-01T00:00:00Z");
        assert_eq!(auth[0]["authorities"][0], "C=DE, O=Lab, CN=Lab CA");
        assert_eq!(auth[0]["crl_policy"], "relaxed");
    }
}

/// One negotiation each: the line of the side that refuses, and of the one that is refused.
#[test]
fn refusals_on_both_sides() {
    let Some(lab) = Lab::open("refusals", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let (root, other) = (Authority::root("Lab CA", |_| ()), Authority::root("Other CA", |_| ()));
    let good = for_host(&root, Kind::P256, b, |_| ());
    let past = rcgen::date_time_ymd(2022, 1, 1);
    let server = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let method = "method = \"ECDSA256\"\n";
    let strict = format!("crl = {:?}", pki::write(&b.directory.join("pki"), "ca.crl", &root.crl(&[10], 2080)));
    let rows = [
        ("certificate expired", for_host(&root, Kind::P256, a, |p| p.not_after = past), "", ""),
        (
            "certificate not yet valid",
            for_host(&root, Kind::P256, a, |p| p.not_before = rcgen::date_time_ymd(2070, 1, 1)),
            "",
            "",
        ),
        ("wrong key usage", for_host(&root, Kind::P256, a, |p| p.extended_key_usages = server), "", ""),
        ("unknown certificate authority", for_host(&other, Kind::P256, a, |_| ()), "", ""),
        ("certificate revoked", for_host(&root, Kind::P256, a, |_| ()), "", &strict),
        (
            "identity not in the certificate",
            for_host(&root, Kind::P256, a, |_| ()),
            "ltype = \"FQDN\"\nlid = \"b.lab\"",
            "rtype = \"FQDN\"\nrid = \".lab\"",
        ),
        (
            "wrong identity",
            for_host(&root, Kind::P256, a, |_| ()),
            "ltype = \"DN\"",
            "rtype = \"DN\"\nrid = \"C=DE, O=Lab\"",
        ),
    ];
    let ours = |own: &Issued, more: &str| {
        configuration(a, b, record(a, own, &root.certificate(), &format!("{method}{RELAXED}\n{more}")))
    };
    let theirs = |more: &str| {
        let policy = if more.starts_with("crl") { "" } else { RELAXED };
        configuration(b, a, record(b, &good, &root.certificate(), &format!("{method}{policy}\n{more}")))
    };
    let at_a = Caponier::start(a, &ours(&rows[0].1, rows[0].2));
    let at_b = Caponier::start(b, &theirs(rows[0].3));
    for (words, own, our_more, their_more) in &rows {
        at_a.reload(&ours(own, our_more));
        at_b.reload(&theirs(their_more));
        let finished = at_a.command(40, "ipsec_admin", &["-initiate", "to_b"]);
        assert!(!finished.status.success(), "{words}: {}", finished.stdout);
        let refused = at_b.wait_event(10, "ERROR", &[words, "CN=a.lab", "serial 0x0a", &a.outer().to_string()]);
        assert!(refused.starts_with(&format!("Main Mode processing failed: {words}: main mode")), "{refused}");
        at_a.wait_event(10, "ERROR", &[words, "under the agreed keys", &b.outer().to_string()]);
        at_b.assert_no_pairs();
    }
    assert_eq!((at_a.events("ERROR").len(), at_b.events("ERROR").len()), (rows.len(), rows.len()), "one line for each");
    // And with nothing wrong it works.
    at_a.reload(&ours(&for_host(&root, Kind::P256, a, |_| ()), ""));
    at_b.reload(&theirs(""));
    traffic::ping_all(a, b, 1);
}

fn check(file: &Path) -> (bool, String) {
    let mut command = Command::new(applets());
    command.args(["ipsec_config", "check"]).arg(file);
    let finished = process::run(&mut command, 20);
    (finished.status.success(), finished.stdout + &finished.stderr)
}

/// `ipsec_config check` reads the files: what it refuses, and what it warns of.
#[test]
fn files_are_checked() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let root = Authority::root("Lab CA", |_| ());
    let address = "10.77.0.1".parse().expect("an address");
    let own = root.issue(Kind::P256, "a.lab", 10, |p| p.subject_alt_names.push(pki::address(address)));
    let old = root.issue(Kind::P256, "a.lab", 11, |p| p.not_after = rcgen::date_time_ymd(2022, 1, 1));
    let rsa = root.issue(Kind::Rsa, "a.lab", 12, |_| ());
    let write = |name: &str, text: &str| pki::write(at, name, text);
    let (certificate, key) = (write("own.pem", &own.certificate), write("own.key", &own.key));
    let (ca, crl) = (write("ca.pem", &root.certificate()), write("ca.crl", &root.crl(&[], 2022)));
    let said = |record: &str| {
        let text = format!(
            "[[host]]\nname = \"t\"\nsource = \"10.78.1.0/24\"\ndestination = \"10.78.2.0/24\"\ntunnel = \"t\"\n\
             [[tunnel]]\nname = \"t\"\ntsource = \"10.77.0.1\"\ntdestination = \"10.77.0.2\"\nsource = \"10.78.1.0/24\"\n\
             destination = \"10.78.2.0/24\"\n[[ike]]\nname = \"i\"\nremote = \"10.77.0.2\"\n\
             [[auth]]\nname = \"b\"\nremote = \"10.77.0.2\"\nmethod = \"ECDSA256\"\nca = {ca:?}\n{record}\n"
        );
        check(&write("c.toml", &text))
    };
    let files = |certificate: &Path, key: &Path| format!("certificate = {certificate:?}\nkey = {key:?}\n{RELAXED}");
    let (good, text) = said(&files(&certificate, &key));
    assert!(good && text.contains("valid:") && !text.contains("warning"), "{text}");

    let missing = at.join("nowhere.key");
    let (good, text) = said(&files(&certificate, &missing));
    assert!(!good && text.contains(&format!("auth `b`: `key` {}: cannot read it", missing.display())), "{text}");
    assert!(text.contains("c.toml:15:1: error"), "with the line: {text}");
    let (good, text) = said(&files(&certificate, &write("other.key", &old.key)));
    assert!(!good && text.contains("does not belong to the certificate of \"C=DE, O=Lab, CN=a.lab\""), "{text}");
    let (good, text) = said(&files(&write("rsa.pem", &rsa.certificate), &write("rsa.key", &rsa.key)));
    assert!(!good && text.contains("has a key for rsasig, and `method` is ECDSA256"), "{text}");
    let open = write("open.key", &own.key);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    let (good, text) = said(&files(&certificate, &open));
    assert!(!good && text.contains("others can open or change it (mode 0644); chmod 600 it"), "{text}");

    // It would start, but not work.
    let (good, text) = said(&files(&write("old.pem", &old.certificate), &write("old.key", &old.key)));
    assert!(good && text.contains("expired on Sat") && text.contains("peers refuse it"), "{text}");
    assert!(text.contains("is not for our identity 10.77.0.1"), "{text}");
    let overdue = files(&certificate, &key).replace(RELAXED, &format!("crl = {crl:?}"));
    let (good, text) = said(&overdue);
    assert!(good && text.contains("the CRL of \"C=DE, O=Lab, CN=Lab CA\" should have been replaced"), "{text}");
    let named = format!("{}\nltype = \"FQDN\"\nlid = \"c.lab\"", files(&certificate, &key));
    let (good, text) = said(&named);
    assert!(good && text.contains("is not for our identity c.lab") && text.contains("it is for C=DE"), "{text}");
    assert!(!text.contains("PRIVATE") && !text.contains("MIG"), "no key is shown: {text}");
}
