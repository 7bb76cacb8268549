use super::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;

/// Seconds since 1970: 2030, when the CRL below is in force.
const NOW: i64 = 1_893_456_000;
const CRL: &[u8] = include_bytes!("../../tests/data/authority.crl");
/// Of the same authority, a year later.
const NEWER: &[u8] = include_bytes!("../../tests/data/authority_newer.crl");
/// In its name, another year later, by the key of a namesake.
const FORGED: &[u8] = include_bytes!("../../tests/data/authority_forged.crl");

/// The authority.
fn authority() -> Issuers {
    vec![Arc::new(Certificate::parse(include_bytes!("../../tests/data/authority.crt")).unwrap())]
}

/// Another one of the same name.
fn namesake() -> Issuers {
    vec![Arc::new(Certificate::parse(include_bytes!("../../tests/data/authority_other.crt")).unwrap())]
}

/// Answers each connection with the next of `answers`; tells which paths were asked for.
fn serve(answers: Vec<Vec<u8>>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ca.crl", listener.local_addr().unwrap());
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let len = stream.read(&mut request).unwrap();
            let text = String::from_utf8_lossy(&request[..len]).into_owned();
            let _ = tell.send(text.split(' ').nth(1).unwrap_or_default().to_owned());
            let _ = stream.write_all(&answer);
        }
    });
    (url, asked)
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn pem() -> Vec<u8> {
    // Base64 by hand would prove nothing about it: OpenSSL made the same list.
    include_bytes!("../../tests/data/authority.crl.pem").to_vec()
}

struct Bench {
    crls: Crls,
    now: Instant,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { crls: Crls::new(directory.path().join("crl")), now: Instant::now(), _directory: directory }
    }

    fn want(&mut self, url: &str) -> Want {
        self.crls.want(url, &authority(), self.now, NOW)
    }

    /// Waits for the end of a fetch.
    fn end(&mut self) -> String {
        let fetched = self.crls.events().recv_timeout(Duration::from_secs(20)).unwrap();
        self.crls.ended(fetched, self.now, NOW)
    }

    fn error(&mut self, url: &str) -> String {
        assert_eq!(self.want(url), Want::Pending);
        self.end();
        match self.want(url) {
            Want::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn fetched_once_and_kept_over_a_restart() {
    let mut bench = Bench::new();
    let (url, asked) = serve(vec![ok(CRL)]);
    assert_eq!(bench.want(&url), Want::Pending);
    assert_eq!(bench.want(&url), Want::Pending, "not asked twice");
    assert_eq!(bench.end(), url);
    assert_eq!((asked.recv().unwrap(), bench.want(&url)), ("/ca.crl".to_owned(), Want::There));
    assert_eq!(bench.crls.all().len(), 1);
    // The server is gone; another daemon finds the file.
    let mut second = Crls::new(bench.crls.store.directory().to_path_buf());
    assert_eq!(second.want(&url, &authority(), bench.now, NOW), Want::There);
    // What somebody put there instead is not taken.
    for other in [&b"garbage"[..], FORGED] {
        for entry in std::fs::read_dir(bench.crls.store.directory()).unwrap() {
            std::fs::write(entry.unwrap().path(), other).unwrap();
        }
        let mut third = Crls::new(bench.crls.store.directory().to_path_buf());
        assert_eq!(third.want(&url, &authority(), bench.now, NOW), Want::Pending);
        assert!(third.all().is_empty());
    }
}

#[test]
fn pem_and_redirects_are_taken() {
    let mut bench = Bench::new();
    let (target, _asked) = serve(vec![ok(&pem())]);
    let moved = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
    let (url, _asked) = serve(vec![moved.into_bytes()]);
    assert_eq!(bench.want(&url), Want::Pending);
    bench.end();
    assert_eq!(bench.want(&url), Want::There);
}

#[test]
fn what_is_no_crl_is_refused_and_not_asked_for_at_once_again() {
    let mut bench = Bench::new();
    let (url, _asked) = serve(vec![ok(b"<html>"), ok(CRL)]);
    let why = bench.error(&url);
    assert!(why.contains("holds no certificate, key or CRL"), "{why}");
    bench.now += FIRST_PAUSE / 2;
    assert!(matches!(bench.want(&url), Want::Failed(_)));
    bench.now += FIRST_PAUSE;
    assert_eq!(bench.want(&url), Want::Pending);
    bench.end();
    assert_eq!(bench.want(&url), Want::There);

    let (url, _asked) = serve(vec![ok(&[&[0x30, 0x03, 0x02, 0x01][..], &[1]].concat())]);
    let why = bench.error(&url);
    assert!(why.contains("it is no CRL"), "{why}");
    let (url, _asked) = serve(vec![b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()]);
    let why = bench.error(&url);
    assert!(why.contains("404"), "{why}");
    let (round, _asked) =
        serve((0..9).map(|_| b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec()).collect());
    let why = bench.error(&round);
    assert!(why.contains("redirect"), "{why}");
    let why = bench.error("http://127.0.0.1:1/");
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n0").unwrap();
        let mut sent = 0_u64;
        while stream.write_all(&[0x30; 65_536]).is_ok() {
            sent += 65_536;
        }
        sent
    });
    let why = bench.error(&url);
    assert!(why.contains("the answer has more than 10485760 octets"), "{why}");
    assert!(server.join().unwrap() < 40 << 20, "it read on and on");
}

#[test]
fn other_schemes_are_refused_by_name() {
    let mut bench = Bench::new();
    for url in ["ldap://ldap.example.com/cn=ca", "https://example.com/ca.crl", "file:///etc/passwd"] {
        let Want::Failed(why) = bench.want(url) else { panic!("{url}") };
        assert!(why.contains(url) && why.contains("only http://"), "{why}");
    }
    assert!(bench.crls.entries.is_empty());
}

/// Certificates of our own authorities may name any number of places.
#[test]
fn the_number_of_urls_is_bounded() {
    let mut bench = Bench::new();
    for n in 0..500 {
        let _ = bench.want(&format!("http://127.0.0.1:1/{n}"));
    }
    assert!(bench.crls.entries.len() <= MOST_URLS && bench.crls.active <= MOST_FETCHES);
}

#[test]
fn what_is_kept_is_fetched_again_in_time_and_never_replaced_by_an_older_one() {
    let mut bench = Bench::new();
    let (url, _asked) = serve(vec![ok(CRL), ok(CRL)]);
    bench.crls.keep(&[(url.clone(), authority())].into(), bench.now, NOW);
    bench.end();
    let crl = ProvenCrl::prove(CRL, &authority()).unwrap();
    let due = bench.crls.next_refresh().unwrap().duration_since(bench.now).as_secs() as i64;
    assert!(due < crl.next() - NOW && due > (crl.next() - NOW) / 2, "{due}");
    bench.crls.refresh(bench.now);
    assert!(bench.crls.waiting.is_empty() && bench.crls.active == 0, "not yet");
    bench.now += Duration::from_secs(due as u64);
    bench.crls.refresh(bench.now);
    bench.end();
    assert_eq!(bench.crls.statuses().lock().unwrap()[0].error, None, "the same again is no fault");
    // As if there were a newer one: what comes now is a replay.
    let newer = ProvenCrl::prove(NEWER, &authority()).unwrap();
    bench.crls.entries.get_mut(&url).unwrap().put(Arc::new(newer));
    let older = Fetched { url: url.clone(), result: Ok(CRL.to_vec()) };
    bench.crls.ended(older, bench.now, NOW);
    let status = bench.crls.statuses().lock().unwrap()[0].clone();
    assert!(status.error.unwrap().contains("older than"), "a replay");
}

/// What comes from a URL, without a web server.
fn comes(bench: &mut Bench, url: &str, der: &[u8]) {
    bench.crls.ended(Fetched { url: url.to_owned(), result: Ok(der.to_vec()) }, bench.now, NOW);
}

fn there(bench: &Bench) -> Vec<i64> {
    bench.crls.all().iter().map(|crl| crl.issued()).collect()
}

#[test]
fn a_forged_list_takes_nothings_place_and_is_told_of() {
    let url = "http://127.0.0.1:1/ca.crl";
    let issued = |der| ProvenCrl::prove(der, &authority()).unwrap().issued();
    let mut bench = Bench::new();
    bench.want(url);
    comes(&mut bench, url, CRL);
    assert!(bench.crls.refusals().is_empty());
    let on_disk = bench.crls.store.read(url).unwrap();
    // The true one first.
    comes(&mut bench, url, FORGED);
    assert_eq!((there(&bench), bench.want(url)), (vec![issued(CRL)], Want::There));
    assert_eq!(bench.crls.store.read(url).unwrap(), on_disk);
    let refused = bench.crls.refusals();
    let [AuditEvent { level: Level::Error, text, .. }] = &refused[..] else { panic!("{refused:?}") };
    for words in [url, "CA \"C=DE, O=Lab, CN=Authority\"", "the signature is not of its issuer's key"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(bench.crls.refusals().is_empty(), "once");
    comes(&mut bench, url, NEWER);
    assert_eq!(there(&bench), [issued(NEWER)], "its date keeps no true one out");

    // The forged one first.
    let mut bench = Bench::new();
    bench.want(url);
    comes(&mut bench, url, FORGED);
    assert!(there(&bench).is_empty() && bench.crls.store.read(url).is_none());
    let status = bench.crls.statuses().lock().unwrap()[0].clone();
    assert!(status.crl.is_none() && status.error.unwrap().contains("cannot be believed"));
    assert!(matches!(bench.want(url), Want::Failed(_)));
    comes(&mut bench, url, CRL);
    assert_eq!((there(&bench), bench.want(url)), (vec![issued(CRL)], Want::There));
    // A single wrong bit in what is signed, or in the signature.
    for place in [60, CRL.len() - 1] {
        let mut other = NEWER.to_vec();
        other[place] ^= 1;
        comes(&mut bench, url, &other);
        assert_eq!(there(&bench), [issued(CRL)]);
    }
}

/// An authority in between is known once a peer has shown it.
#[test]
fn a_list_of_a_stranger_waits_until_he_is_known() {
    let url = "http://127.0.0.1:1/ca.crl";
    let mut bench = Bench::new();
    bench.crls.keep(&[(url.to_owned(), Vec::new())].into(), bench.now, NOW);
    bench.end();
    comes(&mut bench, url, CRL);
    let refused = bench.crls.refusals();
    let [AuditEvent { level: Level::Warning, text, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert!(text.contains("of which no certificate is known"), "{text}");
    assert!(there(&bench).is_empty() && bench.crls.store.read(url).is_none());
    assert!(matches!(bench.crls.want(url, &[], bench.now, NOW), Want::Failed(_)), "not before a minute has passed");
    assert_eq!(bench.want(url), Want::Pending, "but at once for who knows him");
    bench.end();
    assert!(matches!(bench.want(url), Want::Failed(_)), "and not again and again");
}

/// Two records may believe authorities of one name.
#[test]
fn a_namesake_has_a_list_of_his_own() {
    let url = "http://127.0.0.1:1/ca.crl";
    let mut bench = Bench::new();
    bench.want(url);
    comes(&mut bench, url, CRL);
    assert_ne!(bench.crls.want(url, &namesake(), bench.now, NOW), Want::There);
    comes(&mut bench, url, FORGED);
    assert_eq!(bench.crls.want(url, &namesake(), bench.now, NOW), Want::There);
    assert_eq!((there(&bench).len(), bench.want(url)), (2, Want::There), "nobody's place is taken");
}
