//! The limits of the SPD cache under storms of conversations, out and in: HP-UX scenarios H12 and H13.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;
use tests::caponier::{Caponier, Configuration, Tunnel, messages};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::traffic::{self, Transfer};
use tests::wait;

/// Room for more conversations than any storm here.
const ROOM: &str = "spd_soft = 900\nspd_hard = 1000";

fn configuration(me: &Host, peer: &Host, startup: &str) -> Configuration {
    Configuration { startup: startup.into(), ..Configuration::new(Tunnel::new(me, peer, PLAIN)) }
}

/// The numbers in the messages 20 or 55, in order.
fn told(log: &str, number: u32) -> Vec<u64> {
    let words = match number {
        20 => "Kernel Policy Cache Threshold reached ",
        _ => "Kernel Policy Cache Threshold exceeded ",
    };
    let entries = |text: &String| text.strip_prefix(words)?.split(' ').next()?.parse().ok();
    messages(log, number).iter().map(|text| entries(text).unwrap_or_else(|| panic!("{text}"))).collect()
}

/// Storms out and in at once, until the daemon says that it is at its limit; then once more.
fn storm(out: (&Host, &Host), full: impl Fn() -> bool) {
    let (a, b) = out;
    for port in 20_000..20_100 {
        std::thread::scope(|scope| {
            scope.spawn(|| traffic::flood(a, (a.inner(), port), b.inner(), 30_000..36_000));
            scope.spawn(|| traffic::flood(b, (b.inner(), port), a.inner(), 30_000..36_000));
        });
        if full() {
            return;
        }
    }
    panic!("the cache is not full after a hundred storms");
}

/// Datagrams of a socket's one conversation arrive, each in time.
fn goes_on(from: &UdpSocket, to: &UdpSocket) -> bool {
    let Ok(target) = to.local_addr() else { return false };
    let mut buffer = [0; 16];
    // One may meet a full queue.
    (0..3).any(|_| from.send_to(b"still here", target).is_ok() && to.recv(&mut buffer).is_ok())
}

/// Message 20 at the soft limit and each further 1000, message 55 at the hard one; entries stop there; what has
/// none is dropped both ways; what has one goes on; other limits at run time.
#[test]
fn past_soft_and_hard_limit_both_ways() {
    let Some(lab) = Lab::open("storm", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let audit = a.directory.join("audit");
    let limits = format!("auditdir = {:?}\nspd_soft = 4\nspd_hard = 9", audit.display().to_string());
    let at_a = Caponier::start(a, &configuration(a, b, &limits));
    let at_b = Caponier::start(b, &configuration(b, a, ROOM));

    // Conversations of before.
    traffic::ping_all(a, b, 1);
    let transfer = Transfer::start(a, a.inner(), b, b.inner(), 1_000_000);
    transfer.advance(200_000);
    let (old, listener) = (traffic::udp(a, a.inner(), 0, 1), traffic::udp(b, b.inner(), 9, 1));
    let (old_in, listener_in) = (traffic::udp(b, b.inner(), 0, 1), traffic::udp(a, a.inner(), 9, 1));
    assert!(goes_on(&old, &listener) && goes_on(&old_in, &listener_in));

    // The storm goes on until echo requests have been answered in it: some meet a full queue.
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut answers = 0;
            wait::until_true("three answers during the storm", 60, || {
                answers += traffic::ping(a, a.inner(), b.inner(), 3, 1);
                answers >= 3
            });
            answered.store(true, Relaxed);
        });
        storm((a, b), || at_a.counter("spd_hard_limit") > 2000 && answered.load(Relaxed));
    });
    transfer.advance(200_000);

    // Exactly as many as allowed, and each message once, on the console and in the audit file.
    wait::until_true("message 55", 10, || !at_a.messages(55).is_empty());
    assert_eq!(at_a.counter("cache_entries"), 9000);
    assert_eq!(at_a.report("cache").len(), 9000);
    let file = || {
        let files = std::fs::read_dir(&audit).expect("the audit directory").flatten();
        let mut texts: Vec<_> = files.map(|f| (f.file_name(), std::fs::read_to_string(f.path()))).collect();
        texts.sort_by(|x, y| x.0.cmp(&y.0));
        texts.into_iter().map(|(_, text)| text.expect("an audit file")).collect::<String>()
    };
    let soft = vec![4000, 5000, 6000, 7000, 8000, 9000];
    for log in [at_a.log(), file()] {
        assert_eq!((told(&log, 20), told(&log, 55)), (soft.clone(), vec![9000]));
    }
    let text = at_a.command(20, "ipsec_report", &["-ip", "--json"]).ok("ipsec_report -ip");
    let document: serde_json::Value = serde_json::from_str(&text).expect("a document");
    let table = &document["cache_table"];
    assert_eq!((&table["entries"], &table["soft_limit"]), (&9000.into(), &4000.into()), "{table}");
    assert!(table["octets"].as_u64() >= table["octets_at_hard_limit_ipv4"].as_u64(), "{table}");
    assert!(at_a.log().contains("SPD cache: soft limit 4000, hard limit 9000 entries"));
    let directions = |direction: &str| at_a.report("cache").iter().filter(|e| e["direction"] == direction).count();
    assert!(directions("inbound") > 500 && directions("outbound") > 500);
    assert_eq!((at_b.messages(20), at_b.messages(55), at_b.counter("spd_hard_limit")), (vec![], vec![], 0));

    // A conversation that is not there is dropped, either way, and counted; those of before go on.
    let (new, new_in) = (traffic::udp(a, a.inner(), 0, 1), traffic::udp(b, b.inner(), 0, 1));
    for (from, to) in [(&new, &listener), (&new_in, &listener_in)] {
        let before = at_a.counter("spd_hard_limit");
        assert!(!goes_on(from, to), "a new conversation at the hard limit");
        assert!(at_a.counter("spd_hard_limit") >= before + 3);
    }
    assert!(goes_on(&old, &listener) && goes_on(&old_in, &listener_in));
    transfer.advance(200_000);

    // Raised: both go, and the messages go on where they were.
    assert!(at_a.admin(&["-spd_soft", "6", "-spd_hard", "12"]).contains("soft 6, hard 12"));
    assert!(goes_on(&new, &listener) && goes_on(&new_in, &listener_in), "flows resume at once");
    storm((a, b), || at_a.counter("cache_entries") == 12_000);
    storm((a, b), || true);
    wait::until_true("message 55 of the new limit", 10, || at_a.messages(55).len() == 2);
    // 9000 is told again, for it is past the new soft limit, which begins a row of its own.
    let soft = [&soft[..], &[9000, 10_000, 11_000, 12_000]].concat();
    assert_eq!((told(&at_a.log(), 20), told(&at_a.log(), 55)), (soft.clone(), vec![9000, 12_000]));
    assert_eq!(at_a.counter("cache_entries"), 12_000);

    // Lowered below what is there: nothing goes, nothing comes, and that is told.
    at_a.admin(&["-spd_soft", "1", "-spd_hard", "2"]);
    wait::until_true("message 20 of the lower limit", 10, || at_a.messages(20).len() == soft.len() + 1);
    let newest = traffic::udp(a, a.inner(), 0, 1);
    assert!(!goes_on(&newest, &listener));
    assert!(goes_on(&new, &listener) && goes_on(&old, &listener) && goes_on(&old_in, &listener_in));
    wait::until_true("message 55 of the lower limit", 10, || at_a.messages(55).len() == 3);
    assert_eq!(at_a.counter("cache_entries"), 12_000);
    let soft = [&soft[..], &[12_000]].concat();
    assert_eq!((told(&at_a.log(), 20), told(&at_a.log(), 55)), (soft, vec![9000, 12_000, 2000]));
    let refused = at_a.command(10, "ipsec_admin", &["-spd_soft", "3"]);
    assert!(!refused.status.success() && refused.stderr.contains("at least the soft limit"), "{}", refused.stderr);

    // A hard limit above what is there, and the one that could not go goes.
    at_a.admin(&["-spd_hard", "13"]);
    assert!(goes_on(&newest, &listener));
    transfer.advance(200_000);
    transfer.finish();
    assert_eq!(at_a.counter("cleartext_leaks"), 0);
}

/// A storm that is over makes room for others by itself, and the next one is told of again. Beside it, a policy
/// that keeps to its share of the cache.
#[test]
fn idle_entries_make_room_again_and_shares_are_kept() {
    let Some(lab) = Lab::open("ebb", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut configuration = configuration(a, b, "spd_soft = 1\nspd_hard = 2\ncache_idle = 2");
    // In the clear, to a service of the peer's other address: another policy, with half of the cache.
    configuration.more = format!(
        "[[host]]\nname = \"shared\"\nsource = \"{}\"\ndestination = \"{}\"\nprotocol = \"UDP\"\npriority = 1\n\
         tunnel = \"to_b\"\ncache_share = 50\n",
        a.inner(),
        "10.78.2.64/26"
    );
    let at_a = Caponier::start(a, &configuration);
    let _at_b = Caponier::start(b, &self::configuration(b, a, ROOM));
    b.run(10, "ip", &["addr", "add", "10.78.2.77/32", "dev", "inner"]).ok("an address");
    let other = "10.78.2.77".parse().expect("an address");

    // The policy with a share takes a thousand, not one more, and that is told of.
    for port in 20_000..20_003 {
        traffic::flood(a, (a.inner(), port), other, 30_000..32_000);
    }
    let alert = at_a.wait_event(10, "ALERT", &["Host policy shared has 1000 records", "--policy shared"]);
    assert!(alert.contains("cache_share"), "{alert}");
    let dropped = at_a.counter("cache_share_limit");
    assert!(dropped > 0 && at_a.counter("spd_hard_limit") == 0, "{dropped}");
    // The others have theirs.
    traffic::ping_all(a, b, 1);
    let hosts = at_a.report("host");
    let shared = hosts.iter().find(|h| h["name"] == "shared").expect("the policy");
    assert_eq!((&shared["cache_share"], &shared["cache_entries_allowed"]), (&50.into(), &1000.into()));

    let full = || at_a.messages(55).len();
    for storm in 1..=2 {
        for port in 20_000.. {
            traffic::flood(a, (a.inner(), port), b.inner(), 30_000..33_000);
            if full() >= storm {
                break;
            }
            assert!(port < 20_050, "the cache is not full");
        }
        assert!(at_a.counter("cache_entries") <= 2000);
        let new = traffic::udp(a, a.inner(), 0, 1);
        let listener = traffic::udp(b, b.inner(), 9, 1);
        // The daemon looks for idle entries every ten seconds.
        wait::until_true("entries to age out", 30, || at_a.counter("cache_entries") < 100);
        assert!(goes_on(&new, &listener), "a new conversation after the storm");
    }
    let numbers = told(&at_a.log(), 20);
    assert!(numbers.iter().filter(|n| **n == 1000).count() >= 2, "{numbers:?}");
    assert!(numbers.iter().all(|n| [1000, 2000].contains(n)), "{numbers:?}");
}

/// Octets of a process that are in memory; 0 if it has ended.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.map_or(0, |l| l.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024)
}

/// A report of many entries while packets flow: it begins at once, takes little memory on either side, and a
/// reader that stops reading holds nobody up.
#[test]
fn a_long_report_streams() {
    const ENTRIES: u64 = 60_000;
    const LITTLE: u64 = 10 << 20;
    let Some(lab) = Lab::open("long", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let mut configuration = configuration(a, b, ROOM);
    // Decisions to drop are cached like any other, and need no peer.
    configuration.more = "[[host]]\nname = \"drop\"\ndestination = \"10.78.2.128/25\"\npriority = 1\n".into();
    let at_a = Caponier::start(a, &configuration);
    let target = "10.78.2.200".parse().expect("an address");
    wait::until_true("many entries", 120, || {
        traffic::flood(a, (a.inner(), 20_000), target, 1..61_000);
        at_a.counter("cache_entries") >= ENTRIES
    });

    let (daemon, done) = (at_a.process(), AtomicBool::new(false));
    let before = resident(daemon);
    let dropped = at_a.counter("policy_discard");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                traffic::flood(a, (a.inner(), 20_000), target, 1..1000);
            }
        });
        let start = Instant::now();
        let mut report = at_a.piped("ipsec_report", &["-cache", "--json"]);
        let mut output = BufReader::new(report.stdout.take().expect("its output"));
        let (mut text, mut most) = (Vec::new(), (0, 0));
        output.read_until(b'\n', &mut text).expect("a first line");
        let first = start.elapsed();
        let mut chunk = vec![0; 1 << 20];
        loop {
            let read = output.read(&mut chunk).expect("more of it");
            if read == 0 {
                break;
            }
            text.extend_from_slice(&chunk[..read]);
            // The command runs in place of `ip`, which began it, and may have ended.
            most = (resident(daemon).max(most.0), resident(report.id()).max(most.1));
        }
        let all = start.elapsed();
        done.store(true, Relaxed);
        assert!(report.wait().expect("its end").success());
        assert!(first * 4 < all, "the first line after {first:?} of {all:?}");
        let document: serde_json::Value = serde_json::from_slice(&text).expect("a document");
        let records = document["cache"].as_array().expect("entries").len() as u64;
        assert!(records >= ENTRIES && text.len() as u64 > LITTLE, "{records} records, {} octets", text.len());
        assert!(most.0 < before + LITTLE, "the daemon took {} octets more", most.0 - before);
        assert!(most.1 > 0 && most.1 < 2 * LITTLE, "the command took {} octets", most.1);
    });
    assert!(at_a.counter("policy_discard") > dropped, "packets flow meanwhile");

    // Readers that stop.
    let mut stuck: Vec<_> = (0..4).map(|_| at_a.piped("ipsec_report", &["-cache"])).collect();
    for reader in &mut stuck {
        let mut line = [0; 16];
        reader.stdout.as_mut().expect("its output").read_exact(&mut line).expect("a beginning");
    }
    let dropped = at_a.counter("policy_discard");
    traffic::flood(a, (a.inner(), 20_000), target, 1..1000);
    assert!(at_a.counter("policy_discard") > dropped, "packets flow meanwhile");
    assert_eq!(
        at_a.command(10, "ipsec_report", &["-cache", "--top", "3", "--json"]).ok("-top").matches("\"record\"").count(),
        3
    );
    assert!(resident(daemon) < before + LITTLE);
    let log = at_a.stop();
    assert!(!log.contains("panicked"), "{log}");
    for mut reader in stuck {
        let _ = reader.kill();
        let _ = reader.wait();
    }
}
