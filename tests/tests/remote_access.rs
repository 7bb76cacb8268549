//! Remote access against strongSwan, in both roles: extended authentication with a pre-shared key, with RSA signatures
//! and with that of the gateway alone (hybrid), what a wrong password looks like, and addresses by mode-config, asked
//! for and told. Between two Caponiers, what docs/remote-access.md shows.

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

/// Lines of our record and strongSwan's connection where certificates are for `a.lab`, which is us, and `b.lab`; its files
/// are in place. The lines begin with the method; `[certificate, ca]` are those of our files.
struct Certified {
    names: &'static str,
    certificate: String,
    ca: String,
    connection: Connection,
}

fn certified(lab: &Lab, root: &Authority) -> Certified {
    let (a, b) = (root.issue(Kind::Rsa, "a.lab", 10, |_| ()), root.issue(Kind::Rsa, "b.lab", 11, |_| ()));
    let at = lab.a().directory.join("pki");
    let (certificate, key) = (pki::write(&at, "a.pem", &a.certificate), pki::write(&at, "a.key", &a.key));
    let run = lab.b().directory.join("run");
    pki::write(&run.join("x509"), "b.crt", &b.certificate);
    pki::write(&run.join("private"), "b.key", &b.key);
    pki::write(&run.join("x509ca"), "ca.crt", &root.certificate());
    let mut connection = Connection::new(lab.b(), lab.a(), RSA);
    connection.local_auth = "auth = pubkey\n    certs = b.crt".into();
    connection.remote_auth = "auth = pubkey".into();
    (connection.local_id, connection.remote_id) = ("b.lab".into(), "a.lab".into());
    Certified {
        names: "ltype = \"FQDN\"\nlid = \"a.lab\"\nrtype = \"FQDN\"\nrid = \"b.lab\"\n",
        certificate: format!("certificate = {certificate:?}\nkey = {key:?}\n"),
        ca: believing(lab, root),
        connection,
    }
}

/// The lines of a record that believes an authority.
fn believing(lab: &Lab, root: &Authority) -> String {
    let ca = pki::write(&lab.a().directory.join("pki"), "ca.pem", &root.certificate());
    format!("ca = {ca:?}\ncrl_policy = \"relaxed\"\n")
}

fn with_record(lab: &Lab, record: String) -> Configuration {
    let tunnel = Tunnel { preshared: String::new(), more_auth: record, ..Tunnel::new(lab.a(), lab.b(), RSA) };
    Configuration::new(tunnel)
}

/// RSA signatures and then a user: XAUTHInitRSA.
#[test]
fn with_rsa_signatures() {
    let Some(lab) = Lab::open("xauth-rsa", 2, &NEEDS) else { return };
    let Certified { names, certificate, ca, connection } = certified(&lab, &Authority::root("Lab CA", |_| ()));
    let user = client(lab.a(), "wonderland");
    let record = format!("method = \"RSASIG\"\n{names}{certificate}{ca}{user}");
    let caponier = Caponier::start(lab.a(), &with_record(&lab, record));
    let swan = StrongSwan::start(lab.b(), &asking(connection), &Esp::UserSpace);
    traffic::ping_all(lab.a(), lab.b(), 2);
    assert!(swan.log().contains("XAuth authentication of 'alice' successful"), "{}", swan.log());
    assert_eq!(caponier.report("mad")[0]["authentication_method"], "RSASIG");
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
}

/// What `ipsec_report -mad` has of the peer's user.
fn assert_user(caponier: &Caponier, method: &str, exchange: &str) {
    let mad = caponier.report("mad");
    let sa = mad.iter().find(|sa| sa["state"] == "established").expect("an ISAKMP SA");
    assert_eq!(sa["remote_user"], "alice", "{sa}");
    assert_eq!((&sa["authentication_method"], &sa["exchange"]), (&method.into(), &exchange.into()), "{sa}");
}

#[test]
fn with_rsa_signatures_as_the_gateway() {
    let Some(lab) = Lab::open("xauth-rsa-gw", 2, &NEEDS) else { return };
    let Certified { names, certificate, ca, connection } = certified(&lab, &Authority::root("Lab CA", |_| ()));
    let record = format!("method = \"RSASIG\"\n{names}{certificate}{ca}{}", server(lab.a()));
    let caponier = Caponier::start(lab.a(), &with_record(&lab, record));
    let swan = StrongSwan::start(lab.b(), &telling(connection.clone(), "looking-glass"), &Esp::UserSpace);
    swan.initiate_in_vain(15);
    caponier.wait_event(5, "WARNING", &["user `alice` at the peer 10.77.0.2 is refused, try 1 of 2"]);
    caponier.assert_no_pairs();
    swan.reload(&telling(connection, "wonderland"));
    swan.initiate();
    traffic::ping_all(lab.b(), lab.a(), 2);
    assert_user(&caponier, "RSASIG", "Main Mode");
}

/// The classic of remote access: aggressive mode with a group's key, and then a user.
#[test]
fn after_aggressive_mode_our_user_and_the_peers() {
    let Some(lab) = Lab::open("xauth-aggressive", 2, &NEEDS) else { return };
    const AM: &str = "exchange = \"AM\"\naggressive_psk = \"accept\"\n";
    let mut connection = Connection::new(lab.b(), lab.a(), PLAIN);
    connection.more += "aggressive = yes\n";
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, client(lab.a(), "wonderland") + AM)));
    let swan = StrongSwan::start(lab.b(), &asking(connection.clone()), &Esp::UserSpace);
    traffic::ping_all(lab.a(), lab.b(), 2);
    assert!(swan.log().contains("XAuth authentication of 'alice' successful"), "{}", swan.log());
    assert_eq!(caponier.report("mad")[0]["exchange"], "Aggressive Mode");
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
    caponier.stop();
    drop(swan);
    let caponier = Caponier::start(lab.a(), &Configuration::new(tunnel(&lab, server(lab.a()) + AM)));
    let swan = StrongSwan::start(lab.b(), &telling(connection, "wonderland"), &Esp::UserSpace);
    swan.initiate();
    traffic::ping_all(lab.b(), lab.a(), 2);
    assert_user(&caponier, "PSK", "Aggressive Mode");
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
}

/// Hybrid authentication: strongSwan signs, and we have but a user.
#[test]
fn hybrid_as_the_client() {
    let Some(lab) = Lab::open("hybrid-client", 2, &NEEDS) else { return };
    let Certified { names, ca, mut connection, .. } = certified(&lab, &Authority::root("Lab CA", |_| ()));
    connection.remote_auth = "auth = xauth".into();
    connection.end = asking(connection.clone()).end;
    // Also to who asks for one of another authority.
    connection.more += "send_cert = always\n";
    let user = client(lab.a(), "wonderland");
    let record = |more: &str| format!("method = \"HYBRID\"\n{names}{ca}{user}{more}");
    let swan = StrongSwan::start(lab.b(), &connection, &Esp::UserSpace);
    for (more, swans, exchange) in
        [("", "", "Main Mode"), ("exchange = \"AM\"\n", "aggressive = yes\n", "Aggressive Mode")]
    {
        let more_of_swan = format!("{}{swans}", connection.more);
        swan.reload(&Connection { more: more_of_swan, ..connection.clone() });
        let caponier = Caponier::start(lab.a(), &with_record(&lab, record(more)));
        traffic::ping_all(lab.a(), lab.b(), 2);
        let mad = caponier.report("mad");
        let (sa, auth) = (&mad[0], caponier.report("auth"));
        assert_eq!((&sa["authentication_method"], &sa["exchange"]), (&"HYBRID".into(), &exchange.into()), "{sa}");
        assert_eq!((&sa["remote_id"], &auth[0]["authentication_method"]), (&"b.lab".into(), &"HYBRID".into()));
        assert!(auth[0]["certificate"].is_null(), "{auth:?}");
        caponier.wait_event(5, "INFORMATIVE", &["negotiation complete", "b.lab", "HYBRID: ", "serial 0x0b"]);
        caponier.wait_event(5, "INFORMATIVE", &["the peer 10.77.0.2 believes our user `alice`"]);
        assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
        assert_eq!(caponier.counter("cleartext_leaks"), 0);
        caponier.stop();
    }
    assert_eq!(swan.log().matches("XAuth authentication of 'alice' successful").count(), 2, "{}", swan.log());
    // A gateway of another authority gets no password.
    swan.reload(&connection);
    believing(&lab, &Authority::root("Other CA", |_| ()));
    let caponier = Caponier::start(lab.a(), &with_record(&lab, record("")));
    assert_eq!(traffic::ping(lab.a(), lab.a().inner(), lab.b().inner(), 1, 3), 0);
    caponier.wait_event(5, "ERROR", &["unknown certificate authority", "CN=Lab CA"]);
    caponier.assert_no_pairs();
    assert_eq!(swan.log().matches("XAuth authentication of 'alice'").count(), 2, "{}", swan.log());
}

/// Hybrid authentication: we sign, and strongSwan has but a user.
#[test]
fn hybrid_as_the_gateway() {
    let Some(lab) = Lab::open("hybrid-gateway", 2, &NEEDS) else { return };
    let Certified { names, certificate, mut connection, .. } = certified(&lab, &Authority::root("Lab CA", |_| ()));
    let record = format!("method = \"HYBRID\"\n{names}{certificate}{}exchange = \"AM\"\n", server(lab.a()));
    connection.local_auth = "auth = xauth\n    xauth_id = alice".into();
    let telling = |password: &str, more: &str| {
        let end = format!("secrets {{ xauth-a {{ id = alice\n secret = \"{password}\" }} }}");
        Connection { more: format!("{}{more}", connection.more), end, ..connection.clone() }
    };
    let caponier = Caponier::start(lab.a(), &with_record(&lab, record));
    let swan = StrongSwan::start(lab.b(), &telling("looking-glass", ""), &Esp::UserSpace);
    swan.initiate_in_vain(15);
    caponier.wait_event(5, "INFORMATIVE", &["b.lab (HYBRID: not proved before its user is believed)"]);
    caponier.wait_event(5, "WARNING", &["user `alice` at the peer 10.77.0.2 is refused, try 1 of 2"]);
    caponier.assert_no_pairs();
    for (more, exchange) in [("", "Main Mode"), ("aggressive = yes\n", "Aggressive Mode")] {
        swan.reload(&telling("wonderland", more));
        swan.initiate();
        traffic::ping_all(lab.b(), lab.a(), 2);
        assert_user(&caponier, "HYBRID", exchange);
        swan.terminate_ike();
        tests::wait::until_true("the SAs to go", 10, || caponier.pairs("to_b").is_empty());
    }
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
}

/// Caponier's side of the records in phase 1.
fn phase_1(peer: &Host, more: &str) -> String {
    let (name, remote, preshared) = (&peer.name, peer.outer(), tests::cases::PRESHARED);
    format!(
        "[[ike]]\nname = \"{name}\"\nremote = \"{remote}\"\nproposals = [\"{}\"]\n\
         [[auth]]\nname = \"{name}\"\nremote = \"{remote}\"\npreshared = \"{preshared}\"\n{more}\n",
        PLAIN.ike
    )
}

/// strongSwan gives an address, and the configuration of the client that takes it.
fn from_strongswan(mode: &str) {
    let Some(lab) = Lab::open(&format!("mode-config-client-{mode}"), 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut connection = asking(Connection::new(b, a, PLAIN));
    connection.remote_ts = "dynamic".into();
    connection.more += "pools = rw\n";
    connection.more += if mode == "push" { "pull = no\n" } else { "" };
    connection.end += "\npools { rw { addrs = 10.79.0.0/24\n dns = 10.78.2.53\n split_include = 10.78.2.0/24 } }\n";
    let more = format!(
        "[[host]]\nname = \"office\"\ndestination = \"10.78.2.0/24\"\ntunnel = \"office\"\n\
         [[tunnel]]\nname = \"office\"\ntsource = \"{}\"\ntdestination = \"{}\"\nvirtual = \"{mode}\"\n\
         destination = \"10.78.2.0/24\"\naction = \"{}\"\nstart = \"boot\"\n{}",
        a.outer(),
        b.outer(),
        PLAIN.esp,
        phase_1(b, &client(a, "wonderland"))
    );
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    let caponier = Caponier::start(a, &Configuration { more, ..Configuration::default() });
    caponier.wait_tunnel(20, "office@10.79.0.1", "up");
    // Without an address of its own a program sends from the one that was given.
    a.run(20, "ping", &["-n", "-c", "1", "-W", "10", "10.78.2.1"]).ok("an echo request from the address given");
    assert!(swan.sas().contains("10.79.0.1/32"), "{}", swan.sas());
    let (mad, sad) = (caponier.report("mad"), caponier.report("sad"));
    assert_eq!((&mad[0]["local_inner_address"], &mad[0]["dns"][0]), (&"10.79.0.1".into(), &"10.78.2.53".into()));
    assert_eq!(sad.len(), 2);
    caponier.wait_event(5, "INFORMATIVE", &["gives us the address 10.79.0.1", "10.78.2.0/24", "10.78.2.53"]);
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
    // Another address of this host does not get through, and not out either.
    assert_eq!(traffic::ping(a, a.inner(), b.inner(), 1, 2), 0);
    assert_eq!(caponier.counter("cleartext_leaks"), 0);
}

#[test]
fn strongswan_gives_us_an_address_that_we_ask_for() {
    from_strongswan("pull");
}

#[test]
fn strongswan_tells_us_an_address_unasked() {
    from_strongswan("push");
}

/// strongSwan gets an address; which one, the file of leases says, also after a restart.
fn to_strongswan(mode: &str) {
    let Some(lab) = Lab::open(&format!("mode-config-server-{mode}"), 2, &NEEDS) else { return };
    let (a, b) = (lab.a(), lab.b());
    let leases = a.directory.join("leases");
    let header = "# Leases of Caponier, version 1: address, end (seconds since 1970), owner";
    std::fs::write(&leases, format!("{header}\n10.79.0.1 9999999999 bob\n")).expect("a file");
    let more = format!(
        "[[pool]]\nname = \"p\"\naddresses = \"10.79.0.0/24\"\nmode = \"{mode}\"\nfile = {leases:?}\n\
         dns = \"10.78.1.53\"\nsplit = \"10.78.1.0/24\"\n\
         [[host]]\nname = \"clients\"\nsource = \"10.78.1.0/24\"\ndestination = \"10.79.0.0/24\"\ntunnel = \"clients\"\n\
         [[tunnel]]\nname = \"clients\"\ntsource = \"{}\"\npool = \"p\"\nsource = \"10.78.1.0/24\"\n\
         action = \"{}\"\n{}",
        a.outer(),
        PLAIN.esp,
        phase_1(b, &server(a))
    );
    let configuration = Configuration { more, ..Configuration::default() };
    let mut connection = telling(Connection::new(b, a, PLAIN), "wonderland");
    connection.local_ts = "dynamic".into();
    connection.more += "vips = 0.0.0.0\n";
    connection.more += if mode == "push" { "pull = no\n" } else { "" };
    let swan = StrongSwan::start(b, &connection, &Esp::UserSpace);
    let given = "10.79.0.2".parse().expect("an address");
    for round in ["first", "after a restart"] {
        let caponier = Caponier::start(a, &configuration);
        swan.initiate();
        assert_eq!(traffic::ping(b, given, a.inner(), 2, 10), 2, "{round}");
        caponier.wait_event(5, "INFORMATIVE", &["`alice` at the peer 10.77.0.2 has the address 10.79.0.2"]);
        let mad = caponier.report("mad");
        let sa = mad.iter().find(|sa| sa["state"] == "established").expect("an ISAKMP SA");
        assert_eq!((&sa["remote_user"], &sa["remote_inner_address"]), (&"alice".into(), &"10.79.0.2".into()), "{sa}");
        assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
        let leases = caponier.report("pool");
        let of = |owner: &str| leases.iter().find(|lease| lease["owner"] == owner).expect("a lease");
        assert_eq!(
            (&of("alice")["present"], &of("alice")["address"]),
            (&true.into(), &"10.79.0.2".into()),
            "{leases:?}"
        );
        assert!(of("alice")["since"].is_string() && of("bob")["since"].is_null(), "{leases:?}");
        assert_eq!((&of("bob")["present"], &of("bob")["address"]), (&false.into(), &"10.79.0.1".into()));
        // Nobody has the next address: what is for it stays here.
        assert_eq!(traffic::ping(a, a.inner(), "10.79.0.3".parse().expect("an address"), 1, 1), 0);
        assert_eq!(caponier.counter("cleartext_leaks"), 0);
        swan.terminate_ike();
        tests::wait::until_true("the client's tunnel to go", 10, || {
            caponier.report("tunnel").iter().all(|t| t["name"] != "clients@10.79.0.2")
        });
        caponier.stop();
    }
    assert!(swan.log().contains("installing new virtual IP 10.79.0.2"), "{}", swan.log());
}

#[test]
fn strongswan_asks_us_for_an_address() {
    to_strongswan("pull");
}

#[test]
fn we_tell_strongswan_an_address_unasked() {
    to_strongswan("push");
}

/// A damaged file of leases is an error by line: nobody's address may become somebody else's by it.
#[test]
fn damaged_leases_keep_the_daemon_from_starting() {
    let Some(lab) = Lab::open("damaged-leases", 2, &[]) else { return };
    let leases = lab.a().directory.join("leases");
    std::fs::write(&leases, "10.79.0.1 alice\n").expect("a file");
    let file = closed(
        &lab.a().directory,
        "pool.toml",
        &format!("[[pool]]\nname = \"p\"\naddresses = \"10.79.0.0/24\"\nfile = {leases:?}\n"),
    );
    let mut command = lab.a().command(tests::caponier::applets());
    command.arg("ipsecd").arg("--config").arg(&file).arg("--run-dir").arg(lab.a().directory.join("run"));
    let finished = tests::process::run(&mut command, 20);
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("the leases of pool `p` in"), "{}", finished.stderr);
    assert!(finished.stderr.contains("are damaged: line 1 is not that of a file of leases"), "{}", finished.stderr);
}

/// The two configurations of docs/remote-access.md.
#[test]
fn what_the_documentation_shows() {
    let Some(lab) = Lab::open("remote-access-docs", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let text = include_str!("../../docs/remote-access.md");
    let blocks: Vec<_> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [gateway, client] = blocks.as_slice() else { panic!("two configurations: {blocks:?}") };
    let here = |host: &Host, text: &str| {
        let directory = format!("{}/", host.directory.display());
        let more = text.replace("/etc/caponier/", &directory).replace("/var/lib/caponier/", &directory);
        Configuration { more, ..Configuration::default() }
    };
    closed(&a.directory, "password", "wonderland\n");
    closed(&b.directory, "users", ALICE);
    let server = Caponier::start(b, &here(b, gateway));
    let caponier = Caponier::start(a, &here(a, client));
    caponier.wait_tunnel(20, "office@10.79.0.1", "up");
    a.run(20, "ping", &["-n", "-c", "1", "-W", "10", "10.78.2.1"]).ok("an echo request from the address given");
    assert_eq!(traffic::ping(b, b.inner(), "10.79.0.1".parse().expect("an address"), 1, 10), 1);
    caponier.wait_event(5, "INFORMATIVE", &["10.77.0.2 says \"Authorised use only.\""]);
    for daemon in [&caponier, &server] {
        assert_eq!(daemon.events("ERROR"), Vec::<String>::new());
        assert_eq!(daemon.counter("cleartext_leaks"), 0);
    }
    assert!(a.run(10, "ip", &["addr", "show"]).stdout.contains("10.79.0.1/32"));
    // The gateway forgets who says goodbye, and keeps his address for him.
    caponier.stop();
    assert!(!a.run(10, "ip", &["addr", "show"]).stdout.contains("10.79.0.1"));
    let leases = std::fs::read_to_string(b.directory.join("clients.leases")).expect("leases");
    assert!(leases.lines().any(|l| l.starts_with("10.79.0.1 ") && l.ends_with(" alice")), "{leases}");
    drop(server);
}
