//! Aggressive mode against strongSwan in both roles, with a pre-shared key and with certificates: the identity of
//! message 1 selects the key, the mode and its dangers are told, and what was on the wire is what it must be.

use serde_json::Value;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::{Case, PLAIN, PRESHARED};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::pki::{self, Authority, Issued, Kind};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

const NEEDS: [Need; 2] = [Need::StrongSwan, Need::Capture];
const SIGNATURES: Case = Case { name: "signatures", ike: "aes256-sha256-ecp256", esp: "aes256gcm16" };
const AM: &str = "exchange = \"AM\"\naggressive_psk = \"accept\"\n";
const NAMES: &str = "ltype = \"FQDN\"\nlid = \"a.lab\"\nrtype = \"FQDN\"\nrid = \"b.lab\"\n";

fn connection(lab: &Lab, case: Case) -> Connection {
    let mut c = Connection::new(lab.b(), lab.a(), case);
    (c.local_id, c.remote_id) = ("b.lab".into(), "a.lab".into());
    c.more.push_str("aggressive = yes\n");
    c
}

/// Both sides agree, in aggressive mode, with names as identities.
fn assert_up(caponier: &Caponier, swan: &StrongSwan, method: &str, role: &str) {
    let mirrored: Vec<_> = swan.pairs().into_iter().map(|(i, o)| (o, i)).collect();
    assert_eq!(caponier.pairs("to_b"), mirrored, "SPIs mirror");
    assert_eq!(mirrored.len(), 1);
    let mad = caponier.report("mad");
    let sa = mad.iter().find(|sa| sa["state"] == "established").expect("an ISAKMP SA");
    assert_eq!((&sa["exchange"], &sa["role"]), (&"Aggressive Mode".into(), &role.into()), "{sa}");
    assert_eq!(sa["authentication_method"], method, "{sa}");
    assert_eq!((&sa["local_id"], &sa["remote_id"]), (&Value::from("a.lab"), &Value::from("b.lab")));
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
    assert_eq!(swan.isakmp_sas(), 1);
}

/// Exchange types of the ISAKMP messages in a capture.
fn wire_exchanges(frames: &[Vec<u8>]) -> Vec<u8> {
    capture::isakmp(frames).iter().map(|message| message[18]).collect()
}

/// Two records for strongSwan's address, told apart by who it says it is; the right key is in the second.
fn with_a_key(lab: &Lab) -> Configuration {
    let wrong = format!("{AM}ltype = \"FQDN\"\nlid = \"a.lab\"\nrtype = \"FQDN\"\nrid = \"other.lab\"\n");
    let right = format!("{AM}{NAMES}");
    let mut tunnel = Tunnel::new(lab.a(), lab.b(), PLAIN);
    tunnel.more_auth = right;
    let (peer, more) = (lab.b().outer(), "another-key-than-that-of-strongswan-77");
    let more = format!("[[auth]]\nname = \"other\"\nremote = \"{peer}\"\npreshared = \"{more}\"\n{wrong}");
    Configuration { more, ..Configuration::new(tunnel) }
}

#[test]
fn preshared_key_as_initiator() {
    let Some(lab) = Lab::open("am-psk-initiator", 2, &NEEDS) else { return };
    let swan = StrongSwan::start(lab.b(), &connection(&lab, PLAIN), &Esp::UserSpace);
    let caponier = Caponier::start(lab.a(), &with_a_key(&lab));
    let wire = Capture::start(lab.a(), "outer");
    traffic::ping_all(lab.a(), lab.b(), 3);
    assert_up(&caponier, &swan, "PSK", "initiator");
    let frames = wire.stop();
    assert_eq!(wire_exchanges(&frames)[..4], [4, 4, 4, 32]);
    capture::assert_protected(&frames, lab.a(), lab.b(), b"");
    // strongSwan begins anew, and ends in good order.
    swan.rekey_ike();
    traffic::ping_all(lab.b(), lab.a(), 3);
    // The daemon says what aggressive mode with a key means.
    let warnings = caponier.log();
    assert!(warnings.contains("aggressive mode shows a hash of the pre-shared key to whoever asks"), "{warnings}");
}

#[test]
fn preshared_key_as_responder() {
    let Some(lab) = Lab::open("am-psk-responder", 2, &NEEDS) else { return };
    let caponier = Caponier::start(lab.a(), &with_a_key(&lab));
    let swan = StrongSwan::start(lab.b(), &connection(&lab, PLAIN), &Esp::UserSpace);
    let wire = Capture::start(lab.a(), "outer");
    swan.initiate();
    traffic::ping_all(lab.b(), lab.a(), 3);
    traffic::ping_all(lab.a(), lab.b(), 3);
    assert_up(&caponier, &swan, "PSK", "responder");
    assert_eq!(wire_exchanges(&wire.stop())[..4], [4, 4, 4, 32]);
    // With a key that is not ours it does not come up, and both sides know why.
    swan.terminate_ike();
    swan.reload(&Connection { preshared: format!("not-{PRESHARED}"), ..connection(&lab, PLAIN) });
    let said = swan.initiate_in_vain(6);
    assert!(said.contains("AUTH_FAILED") || said.contains("HASH"), "{said}");
    // Nor for a name that nobody expects.
    swan.reload(&Connection { local_id: "mallory.lab".into(), ..connection(&lab, PLAIN) });
    let _ = swan.initiate_in_vain(6);
    let event = caponier.wait_event(10, "ERROR", &["Aggressive Mode processing failed", "\"mallory.lab\""]);
    assert!(event.contains("as responder"), "{event}");
    caponier.assert_no_pairs();
}

fn files(host: &Host, issued: &Issued, root: &Authority) -> String {
    let at = host.directory.join("pki");
    let certificate = pki::write(&at, "a.pem", &issued.certificate);
    let key = pki::write(&at, "a.key", &issued.key);
    let ca = pki::write(&at, "ca.pem", &root.certificate());
    format!(
        "method = \"RSASIG\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\ncrl_policy = \"relaxed\"\n\
         exchange = \"AM\"\n{NAMES}"
    )
}

fn certificates(initiate: bool) {
    let role = if initiate { "initiator" } else { "responder" };
    let Some(lab) = Lab::open(&format!("am-rsa-{role}"), 2, &NEEDS) else { return };
    let root = Authority::root("Lab CA", |_| ());
    let (a, b) = (root.issue(Kind::Rsa, "a.lab", 10, |_| ()), root.issue(Kind::Rsa, "b.lab", 11, |_| ()));
    let run = lab.b().directory.join("run");
    pki::write(&run.join("x509"), "b.crt", &b.certificate);
    pki::write(&run.join("private"), "b.key", &b.key);
    pki::write(&run.join("x509ca"), "ca.crt", &root.certificate());
    let mut tunnel = Tunnel::new(lab.a(), lab.b(), SIGNATURES);
    (tunnel.preshared, tunnel.more_auth) = (String::new(), files(lab.a(), &a, &root));
    // Whole messages are to be counted.
    tunnel.more_ike = "fragmentation = \"off\"".into();
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel));
    let mut theirs = connection(&lab, SIGNATURES);
    (theirs.local_auth, theirs.remote_auth) = ("auth = pubkey\n    certs = b.crt".into(), "auth = pubkey".into());
    let swan = StrongSwan::start(lab.b(), &theirs, &Esp::UserSpace);
    let wire = Capture::start(lab.a(), "outer");
    if initiate {
        traffic::ping_all(lab.a(), lab.b(), 3);
    } else {
        swan.initiate();
        traffic::ping_all(lab.b(), lab.a(), 3);
    }
    assert_up(&caponier, &swan, "RSASIG", role);
    // What follows may overtake message 3 within charon, which then wants both again.
    assert_eq!(wire_exchanges(&wire.stop())[..4], [4, 4, 4, 32]);
    assert!(!caponier.log().contains("hash of the pre-shared key"), "there is none");
}

#[test]
fn certificates_as_initiator() {
    certificates(true);
}

#[test]
fn certificates_as_responder() {
    certificates(false);
}
