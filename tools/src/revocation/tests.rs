use super::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;

/// Seconds since 1970: 2030, when the CRL below is in force.
const NOW: i64 = 1_893_456_000;
const CRL: &[u8] = include_bytes!("../../tests/data/authority.crl");

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
        self.crls.want(url, self.now, NOW)
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
    assert_eq!(second.want(&url, bench.now, NOW), Want::There);
    // What somebody put there instead is not taken.
    for entry in std::fs::read_dir(bench.crls.store.directory()).unwrap() {
        std::fs::write(entry.unwrap().path(), b"garbage").unwrap();
    }
    let mut third = Crls::new(bench.crls.store.directory().to_path_buf());
    assert_eq!(third.want(&url, bench.now, NOW), Want::Pending);
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
    bench.crls.keep(std::slice::from_ref(&url), bench.now, NOW);
    bench.end();
    let crl = Crl::parse(CRL).unwrap();
    let due = bench.crls.next_refresh().unwrap().duration_since(bench.now).as_secs() as i64;
    assert!(due < crl.next() - NOW && due > (crl.next() - NOW) / 2, "{due}");
    bench.crls.refresh(bench.now);
    assert!(bench.crls.waiting.is_empty() && bench.crls.active == 0, "not yet");
    bench.now += Duration::from_secs(due as u64);
    bench.crls.refresh(bench.now);
    bench.end();
    assert_eq!(bench.crls.statuses().lock().unwrap()[0].error, None, "the same again is no fault");
    // As if there were a newer one: what comes now is a replay.
    let mut newer = CRL.to_vec();
    let issued = newer.windows(2).position(|w| w == [0x17, 13]).unwrap() + 2;
    newer[issued..issued + 2].copy_from_slice(b"31");
    bench.crls.entries.get_mut(&url).unwrap().crl = Some(Arc::new(Crl::parse(&newer).unwrap()));
    let older = Fetched { url: url.clone(), result: Ok(CRL.to_vec()) };
    bench.crls.ended(older, bench.now, NOW);
    let status = bench.crls.statuses().lock().unwrap()[0].clone();
    assert!(status.error.unwrap().contains("older than"), "a replay");
}
