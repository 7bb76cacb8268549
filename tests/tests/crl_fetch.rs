//! CRLs that are fetched while a negotiation waits: what comes, what does not come, and what is said of it.

use rcgen::CrlDistributionPoint;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::pki::{self, Authority, Issued, Kind};

/// What is answered for a path.
#[derive(Clone)]
enum Answer {
    Body(Vec<u8>),
    /// Without end.
    Endless,
    /// Nothing, and the connection stays.
    Silence,
}

/// A web server in a host, and how often each path was asked for.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Server {
    fn start(host: &Host) -> (Self, SocketAddr) {
        let address = SocketAddr::new(host.outer(), 8080);
        let listener = host.inside(|| TcpListener::bind(address)).expect("a port");
        let server = Self::default();
        let us = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let us = us.clone();
                std::thread::spawn(move || us.serve(stream));
            }
        });
        (server, address)
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut request = [0; 4096];
        let len = stream.read(&mut request).unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..len]).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        *self.asked.lock().expect("no panic").entry(path.clone()).or_default() += 1;
        let answer = self.answers.lock().expect("no panic").get(&path).cloned();
        match answer {
            None => drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
            Some(Answer::Body(body)) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
            Some(Answer::Endless) => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[0x30; 65_536]).is_ok() {}
            }
            Some(Answer::Silence) => std::thread::sleep(Duration::from_secs(40)),
        }
    }

    fn set(&self, path: &str, answer: Answer) {
        self.answers.lock().expect("no panic").insert(path.into(), answer);
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().expect("no panic").get(path).copied().unwrap_or(0)
    }
}

fn issue(authority: &Authority, host: &Host, uri: &str) -> Issued {
    authority.issue(Kind::P256, &format!("{}.lab", host.name), 10, |p| {
        p.subject_alt_names.push(pki::address(host.outer()));
        p.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![uri.to_owned()] }];
    })
}

/// Lines of a record for `own`, which believes `authorities`.
fn record(host: &Host, own: &Issued, authorities: &str, more: &str) -> String {
    let at = host.directory.join("pki");
    let (certificate, key) = (pki::write(&at, "own.pem", &own.certificate), pki::write(&at, "own.key", &own.key));
    let ca = pki::write(&at, "ca.pem", authorities);
    format!("method = \"ECDSA256\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n{more}")
}

fn tunnel(me: &Host, peer: &Host, record: String) -> Tunnel {
    Tunnel { preshared: String::new(), more_auth: record, ..Tunnel::new(me, peer, PLAIN) }
}

const RELAXED: &str = "crl_policy = \"relaxed\"";

#[test]
fn fetched_where_certificates_say() {
    let Some(lab) = Lab::open("crl_fetch", 3, &[]) else { return };
    let (a, b, c) = (lab.a(), lab.b(), &lab.hosts()[2]);
    let (server, address) = Server::start(a);
    let names = ["good", "short", "down", "lenient", "endless", "garbage", "silent", "ldap", "forged"];
    let authorities: HashMap<_, _> = names.map(|name| (name, Authority::root(&format!("{name} CA"), |_| ()))).into();
    let all: String = names.iter().map(|name| authorities[name].certificate()).collect();
    let certificate = |host: &Host, name: &str| {
        let uri = match name {
            "ldap" => "ldap://ldap.lab/cn=ca".to_owned(),
            "down" | "lenient" => format!("http://{}:9/{name}", a.outer()),
            _ => format!("http://{address}/{name}"),
        };
        issue(&authorities[name], host, &uri)
    };
    server.set("good", Answer::Body(authorities["good"].crl_for(&[77], 3600)));
    server.set("short", Answer::Body(authorities["short"].crl_for(&[], 4)));
    server.set("endless", Answer::Endless);
    server.set("garbage", Answer::Body(b"<html>Welcome</html>".to_vec()));
    server.set("silent", Answer::Silence);
    server.set("forged", Answer::Body(authorities["forged"].forged().crl_for(&[], 3600)));

    // B asks; the others do not.
    let judge = |policy: &str| {
        let own = certificate(b, "good");
        let more = format!("crl_fetch = true\ncrl_policy = \"{policy}\"");
        let to = |peer: &Host| tunnel(b, peer, record(b, &own, &all, &more));
        Configuration { tunnels: vec![to(a), to(c)], ..Configuration::default() }
    };
    let with = |host: &Host, name: &str| {
        Configuration::new(tunnel(host, b, record(host, &certificate(host, name), &all, RELAXED)))
    };
    let at_b = Caponier::start(b, &judge("strict"));
    let at_a = Caponier::start(a, &with(a, "good"));
    let at_c = Caponier::start(c, &with(c, "good"));
    // What the last negotiation left, if it left anything.
    let forget = || at_a.command(20, "ipsec_admin", &["-deletesa", &b.outer().to_string()]);
    let initiate = |name: &str| {
        forget();
        at_a.reload(&with(a, name));
        at_a.command(40, "ipsec_admin", &["-initiate", "to_b"]).status.success()
    };
    let refused = |name: &str, words: &[&str]| {
        assert!(!initiate(name), "{name} is accepted");
        at_b.wait_event(10, "ERROR", &[words, &[&format!("issuer \"C=DE, O=Lab, CN={name} CA\"")]].concat())
    };

    // Fetched, and once for all.
    assert!(initiate("good"));
    assert!(initiate("good"));
    assert_eq!(server.asked("good"), 1);
    let auth = at_b.report("auth");
    let fetched = &auth[0]["fetched_crls"][0];
    assert_eq!(fetched["issuer"], "C=DE, O=Lab, CN=good CA", "{auth:?}");
    assert!(fetched["next_update"].is_string() && fetched["error"].is_null(), "{auth:?}");

    // In force for four seconds; the next one revokes.
    let began = Instant::now();
    assert!(initiate("short"));
    server.set("short", Answer::Body(authorities["short"].crl_for(&[10], 3600)));
    std::thread::sleep(Duration::from_secs(5).saturating_sub(began.elapsed()));
    refused("short", &["certificate revoked", "serial 0x0a"]);
    assert_eq!(server.asked("short"), 2);

    // Strict refuses what cannot be known, and says why it cannot.
    refused("down", &["revocation status unknown", "no CRL from http://10.77.0.1:9/down", "refused"]);
    refused("endless", &["revocation status unknown", "the answer has more than 10485760 octets"]);
    refused("garbage", &["revocation status unknown", "holds no certificate, key or CRL"]);
    refused("ldap", &["revocation status unknown", "ldap://ldap.lab/cn=ca: only http:// is fetched"]);
    refused("forged", &["revocation status unknown", "no CRL from", "the signature is not of its issuer's key"]);
    at_b.wait_event(10, "ERROR", &["CRL refused", &format!("http://{address}/forged"), "CN=forged CA"]);

    // A server that says nothing holds up nobody else.
    forget();
    at_a.reload(&with(a, "silent"));
    std::thread::scope(|s| {
        let waits = s.spawn(|| at_a.command(40, "ipsec_admin", &["-initiate", "to_b"]).status.success());
        tests::wait::until_true("the fetch to begin", 10, || server.asked("silent") == 1);
        let began = Instant::now();
        assert!(at_c.command(20, "ipsec_admin", &["-initiate", "to_b"]).status.success());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(!waits.join().expect("a command"), "a CRL that never came");
    });
    at_b.wait_event(10, "ERROR", &["revocation status unknown", "silent CA", "no CRL from"]);

    // Relaxed lets pass what cannot be known, and says so; not what is known to be revoked.
    at_b.reload(&judge("relaxed"));
    assert!(initiate("lenient"));
    at_b.wait_event(10, "WARNING", &["lenient CA", "no CRL from http://10.77.0.1:9/lenient", "refused"]);
    refused("short", &["certificate revoked"]);
}

/// A URL in the configuration is fetched before anybody asks, and again by the daemon that comes after.
#[test]
fn fetched_from_the_configuration_and_kept() {
    let Some(lab) = Lab::open("crl_kept", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let (server, address) = Server::start(a);
    let root = Authority::root("Lab CA", |_| ());
    server.set("ca.crl", Answer::Body(root.crl_for(&[10], 3600)));
    let own = |host: &Host| {
        root.issue(Kind::P256, &format!("{}.lab", host.name), if host.name == "a" { 10 } else { 11 }, |p| {
            p.subject_alt_names.push(pki::address(host.outer()));
        })
    };
    let more = format!("crl = \"http://{address}/ca.crl\"");
    let judging = Configuration::new(tunnel(b, a, record(b, &own(b), &root.certificate(), &more)));
    let at_b = Caponier::start(b, &judging);
    tests::wait::until_true("the CRL", 10, || at_b.report("auth")[0]["fetched_crls"][0]["next_update"].is_string());
    let at_a = Caponier::start(a, &Configuration::new(tunnel(a, b, record(a, &own(a), &root.certificate(), RELAXED))));
    assert!(!at_a.command(40, "ipsec_admin", &["-initiate", "to_b"]).status.success());
    at_b.wait_event(10, "ERROR", &["certificate revoked", "serial 0x0a"]);
    at_b.stop();
    server.answers.lock().expect("no panic").clear();
    let at_b = Caponier::start(b, &judging);
    assert!(!at_a.command(40, "ipsec_admin", &["-initiate", "to_b"]).status.success());
    at_b.wait_event(10, "ERROR", &["certificate revoked", "serial 0x0a"]);
    assert_eq!(server.asked("ca.crl"), 1, "what was kept is in force");
}

/// Whoever sits between us and the server may make up lists of a later date: they keep nobody's true list out.
#[test]
fn forged_lists_displace_none() {
    let Some(lab) = Lab::open("crl_forged", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let (server, address) = Server::start(a);
    let root = Authority::root("Lab CA", |_| ());
    let forger = root.forged();
    let own = |host: &Host, serial| {
        let names = pki::address(host.outer());
        root.issue(Kind::P256, &format!("{}.lab", host.name), serial, |p| p.subject_alt_names.push(names))
    };
    let (of_a, of_b) = (own(a, 10), own(b, 11));
    let judging = |policy: &str| {
        let urls = format!("[\"http://{address}/ca.crl\", \"http://{address}/mirror.crl\"]");
        let more = format!("crl = {urls}\ncrl_policy = \"{policy}\"");
        Configuration::new(tunnel(b, a, record(b, &of_b, &root.certificate(), &more)))
    };
    let at_a = Caponier::start(a, &Configuration::new(tunnel(a, b, record(a, &of_a, &root.certificate(), RELAXED))));
    let accepted = || at_a.command(40, "ipsec_admin", &["-initiate", "to_b"]).status.success();
    let forged = Answer::Body(forger.crl_dated(&[], 2024, 3600));
    let refused = |at: &Caponier, path: &str| {
        let url = format!("http://{address}/{path}");
        let ca = "CA \"C=DE, O=Lab, CN=Lab CA\"";
        at.wait_event(10, "ERROR", &["CRL refused", &url, ca, "the signature is not of its issuer's key"]);
    };

    // The forged one first: it counts for nothing, and nothing is left of it.
    server.set("ca.crl", forged.clone());
    let at_b = Caponier::start(b, &judging("strict"));
    refused(&at_b, "ca.crl");
    assert!(!accepted());
    at_b.wait_event(10, "ERROR", &["revocation status unknown", "no CRL from"]);
    assert!(at_b.report("auth")[0]["fetched_crls"][0]["next_update"].is_null());
    at_b.stop();

    // Then the true one, beside a forged one: what it revokes is refused, also where what is not known is accepted.
    let began = Instant::now();
    server.set("ca.crl", Answer::Body(root.crl_for(&[10], 10)));
    server.set("mirror.crl", forged.clone());
    let at_b = Caponier::start(b, &judging("relaxed"));
    refused(&at_b, "mirror.crl");
    tests::wait::until_true("the CRL", 10, || at_b.report("auth")[0]["fetched_crls"][0]["next_update"].is_string());
    assert!(!accepted());
    at_b.wait_event(10, "ERROR", &["certificate revoked", "serial 0x0a"]);

    // The true one is out of date, and what comes in its place is forged.
    server.set("ca.crl", forged);
    std::thread::sleep(Duration::from_secs(11).saturating_sub(began.elapsed()));
    assert!(!accepted());
    refused(&at_b, "ca.crl");
    assert_eq!(server.asked("ca.crl"), 3);
}
