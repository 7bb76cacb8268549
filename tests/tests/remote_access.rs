//! Remote access against strongSwan, in both roles: extended authentication with a
//! pre-shared key and with RSA signatures, and what a wrong password looks like.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::{Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::pki::{self, Authority, Kind};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

const RSA: Case = Case { name: "rsa", ike: "aes256-sha1-modp2048", esp: "aes128-sha1" };
const NEEDS: [Need; 2] = [Need::StrongSwan, Need::Xauth];

/// `alice` with the password `wonderland`, of fewer iterations than `ipsec_config user` would make.
const ALICE: &str = "alice:pbkdf2-sha256:10000:07070707070707070707070707070707:\
                     55ba68921d61e5a66a97ed416161eedff2768de4b515f9fdcb30ebea0cfaf908";

/// Writes a file that only we may read.
fn closed(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    path
}

/// The lines of a record whose peer is asked for its user.
fn server(host: &Host) -> String {
    format!("xauth = \"server\"\nusers = {:?}\ntries = 2\n", closed(&host.directory, "users", ALICE))
}

/// The lines of a record that says who our user is.
fn client(host: &Host, password: &str) -> String {
    let file = closed(&host.directory, "password", &format!("{password}\n"));
    format!("xauth = \"client\"\nuser = \"alice\"\npassword_file = {file:?}\n")
}

/// strongSwan asks for a user, and knows alice.
fn asking(mut c: Connection) -> Connection {
    c.more += "remote-user { auth = xauth\n round = 2 }\n";
    c.end = "secrets { xauth-a { id = alice\n secret = \"wonderland\" } }".into();
    c
}

/// strongSwan says it is alice.
fn telling(mut c: Connection, password: &str) -> Connection {
    c.more += "local-user { auth = xauth\n xauth_id = alice\n round = 2 }\n";
    c.end = format!("secrets {{ xauth-a {{ id = alice\n secret = \"{password}\" }} }}");
    c
}

fn tunnel(lab: &Lab, more_auth: String) -> Tunnel {
    Tunnel { more_auth, ..Tunnel::new(lab.a(), lab.b(), PLAIN) }
}

#[test]
fn our_user_is_believed() {
    let Some(lab) = Lab::open("xauth-client", 2, &NEEDS) else { return };
    let configuration = Configuration::new(tunnel(&lab, client(lab.a(), "wonderland")));
    let caponier = Caponier::start(lab.a(), &configuration);
    let swan = StrongSwan::start(lab.b(), &asking(Connection::new(lab.b(), lab.a(), PLAIN)), &Esp::UserSpace);
    traffic::ping_all(lab.a(), lab.b(), 2);
    assert!(swan.log().contains("XAuth authentication of 'alice' successful"), "{}", swan.log());
    caponier.wait_event(5, "INFORMATIVE", &["the peer 10.77.0.2 believes our user `alice`"]);
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
    assert!(!caponier.log().contains("wonderland"));
}

#[test]
fn the_peers_user_is_believed() {
    let Some(lab) = Lab::open("xauth-server", 2, &NEEDS) else { return };
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, server(lab.a()))));
    let connection = Connection::new(lab.b(), lab.a(), PLAIN);
    let swan = StrongSwan::start(lab.b(), &telling(connection.clone(), "looking-glass"), &Esp::UserSpace);
    // First with a wrong password: both sides say so, and nothing can be sent.
    let said = swan.initiate_in_vain(15);
    assert!(said.contains("XAuth authentication of 'alice' (myself) failed"), "{said}");
    caponier.wait_event(5, "WARNING", &["user `alice` at the peer 10.77.0.2 is refused, try 1 of 2"]);
    assert!(!caponier.log().contains("looking-glass"));
    caponier.assert_no_pairs();
    swan.reload(&telling(connection, "wonderland"));
    swan.initiate();
    traffic::ping_all(lab.b(), lab.a(), 2);
    let mad = caponier.report("mad");
    let sa = mad.iter().find(|sa| sa["state"] == "established").expect("an ISAKMP SA");
    assert_eq!(sa["remote_user"], "alice", "{sa}");
    caponier.wait_event(5, "INFORMATIVE", &["user `alice` at the peer 10.77.0.2 is believed"]);
}

#[test]
fn our_user_is_refused() {
    let Some(lab) = Lab::open("xauth-refused", 2, &NEEDS) else { return };
    let configuration = Configuration::new(tunnel(&lab, client(lab.a(), "looking-glass")));
    let caponier = Caponier::start(lab.a(), &configuration);
    let swan = StrongSwan::start(lab.b(), &asking(Connection::new(lab.b(), lab.a(), PLAIN)), &Esp::UserSpace);
    assert_eq!(traffic::ping(lab.a(), lab.a().inner(), lab.b().inner(), 1, 3), 0);
    caponier.wait_event(5, "ERROR", &["User authentication failed", "our user `alice`"]);
    assert!(swan.log().contains("XAuth authentication of 'alice' failed"), "{}", swan.log());
    caponier.assert_no_pairs();
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
    assert!(!caponier.log().contains("looking-glass"));
}

/// RSA signatures and then a user: XAUTHInitRSA.
#[test]
fn with_rsa_signatures() {
    let Some(lab) = Lab::open("xauth-rsa", 2, &NEEDS) else { return };
    let root = Authority::root("Lab CA", |_| ());
    let (a, b) = (root.issue(Kind::Rsa, "a.lab", 10, |_| ()), root.issue(Kind::Rsa, "b.lab", 11, |_| ()));
    let at = lab.a().directory.join("pki");
    let (certificate, key) = (pki::write(&at, "a.pem", &a.certificate), pki::write(&at, "a.key", &a.key));
    let ca = pki::write(&at, "ca.pem", &root.certificate());
    let record = format!(
        "method = \"RSASIG\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\ncrl_policy = \"relaxed\"\n\
         ltype = \"FQDN\"\nlid = \"a.lab\"\nrtype = \"FQDN\"\nrid = \"b.lab\"\n{}",
        client(lab.a(), "wonderland")
    );
    let tunnel = Tunnel { preshared: String::new(), more_auth: record, ..Tunnel::new(lab.a(), lab.b(), RSA) };
    let run = lab.b().directory.join("run");
    pki::write(&run.join("x509"), "b.crt", &b.certificate);
    pki::write(&run.join("private"), "b.key", &b.key);
    pki::write(&run.join("x509ca"), "ca.crt", &root.certificate());
    let mut connection = asking(Connection::new(lab.b(), lab.a(), RSA));
    connection.local_auth = "auth = pubkey\n    certs = b.crt".into();
    connection.remote_auth = "auth = pubkey".into();
    (connection.local_id, connection.remote_id) = ("b.lab".into(), "a.lab".into());
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel));
    let swan = StrongSwan::start(lab.b(), &connection, &Esp::UserSpace);
    traffic::ping_all(lab.a(), lab.b(), 2);
    assert!(swan.log().contains("XAuth authentication of 'alice' successful"), "{}", swan.log());
    assert_eq!(caponier.report("mad")[0]["authentication_method"], "RSASIG");
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
}
