//! `ipsec_policy` and `ipsec_config`: on files, and `ipsec_policy` on a daemon.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "common/daemon.rs"]
mod daemon;

use daemon::{Daemon, run, stderr, stdout};
use policy::config::Config;
use policy::five_tuple;
use policy::spd::Spd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tools::control::{Answer, Packet, Request};
use tools::report::Direction;

const POLICY: &str = env!("CARGO_BIN_EXE_ipsec_policy");
const CONFIG: &str = env!("CARGO_BIN_EXE_ipsec_config");

const GOOD: &str = r#"
[[host]]
name = "web"
source = "10.1.0.0/16"
destination = "10.2.0.0/16/443"
protocol = "TCP"
priority = 10
tunnel = "b"

[[host]]
name = "nothing_else"
source = "10.1.0.0/16"
destination = "10.2.0.0/16"
priority = 20

[[tunnel]]
name = "b"
tsource = "192.0.2.1"
tdestination = "192.0.2.2"
source = "10.1.0.0/16"
destination = "10.2.0.0/16"
action = "aes128-sha1-modp2048"

[[ike]]
name = "peers"
remote = "192.0.2.0/24"
proposals = ["aes128-sha1-modp2048"]

[[auth]]
name = "b"
remote = "192.0.2.2"
preshared = "do-not-show-me-to-anybody"
"#;

struct File(tempfile::TempDir);

impl File {
    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = Self(dir);
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("caponier.toml")
    }

    fn name(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }
}

fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

fn policy(file: &File, args: &[&str]) -> std::process::Output {
    run(POLICY, nowhere(), &[args, &["--config", &file.name()]].concat())
}

#[test]
fn which_rule_decides_and_what_happens() {
    let file = File::with(GOOD);
    let secure = policy(&file, &["-sa", "10.1.0.1", "-da", "10.2.0.1", "-sp", "1024", "-dp", "https", "-dir", "out"]);
    assert!(secure.status.success(), "{}", stderr(&secure));
    let text = stdout(&secure);
    for line in [
        "Src IP Address: 10.1.0.1                Src Port number: 1024",
        "Dst IP Address: 10.2.0.1                Dst Port number: 443",
        "Rule Name: web                          Cookie: 2",
        "Action: Secure",
        "Transforms: ESP_AES128_HMAC_SHA1/28800/0 (aes128-sha1-modp2048)",
        "Rule Name: peers                        Priority: 10",
        "Record Name: b                          Remote IP Addr: 192.0.2.2",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    assert!(!text.contains("assumed") && !text.contains("Rules tried") && !text.contains("do-not-show"));

    let discard = policy(&file, &["-sa", "10.1.0.1", "-da", "10.2.0.1", "-dp", "80", "--explain"]);
    let text = stdout(&discard);
    assert!(text.contains("(-sp not given: 65535 assumed)"), "{text}");
    assert!(text.contains("1. web (priority 10, cookie 2, line 2): no: port differs"), "{text}");
    assert!(text.contains("2. nothing_else (priority 20, cookie 3, line 10): match"), "{text}");
    assert!(text.contains("Action: Discard"), "{text}");

    let pass = policy(&file, &["-sa", "10.3.0.1", "-da", "10.2.0.1", "-p", "icmp", "-explain"]);
    let text = stdout(&pass);
    assert!(text.contains("(--icmp not given: echo request assumed)"), "{text}");
    assert!(text.contains("3. default (searched last): match") && text.contains("Action: Pass"), "{text}");
}

#[test]
fn inbound_packets_are_seen_from_the_other_side() {
    let file = File::with(GOOD);
    let output = policy(&file, &["-sa", "10.2.0.1", "-sp", "443", "-da", "10.1.0.1", "-dir", "in", "-json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["packet"]["direction"], "inbound");
    assert_eq!(document["explanation"]["decided_by"]["host"]["name"], "web");
    assert_eq!(document["explanation"]["action"], "secure");
}

#[test]
fn packets_that_cannot_be_are_refused() {
    let file = File::with(GOOD);
    let cases: [(&[&str], &str, i32); 8] = [
        (&["-sa", "10.1.0.1", "-da", "fd00::1"], "both be IPv4 or both IPv6", 1),
        (&["-sa", "10.1.0.1", "-da", "10.2.0.1", "-p", "GRE", "-dp", "80"], "GRE has no ports", 1),
        (&["-sa", "10.1.0.1", "-da", "10.2.0.1", "-p", "ICMPV6"], "-p ICMP is for IPv4", 1),
        (&["-sa", "10.1.0.1", "-da", "10.2.0.1", "-icmp", "echo-request"], "--icmp is for ICMP", 1),
        (&["-sa", "10.1.0.1", "-da", "10.2.0.1", "-p", "ICMP", "-icmp", "0-8"], "one type, not a range", 1),
        (&["-sa", "10.1.0.1", "-da", "10.2.0.1", "-dp", "80-90"], "one port, not a range", 2),
        (&["-sa", "10.1.0.1", "-da", "10.2.0.1", "-p", "TPC"], "did you mean `TCP`?", 2),
        (&["-sa", "10.1.0.1"], "--da", 2),
    ];
    for (args, reason, status) in cases {
        let output = policy(&file, args);
        assert_eq!(output.status.code(), Some(status), "{args:?}");
        assert!(stderr(&output).contains(reason), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_daemon_gives_the_same_answer_as_its_file() {
    let file = File::with(GOOD);
    let spd = Spd::compile(&Config::parse(GOOD, "test").unwrap().config, 1);
    let daemon = Daemon::start(move |request, responder| match request {
        Request::Explain(packet) => {
            let direction = five_tuple::Direction::from(packet.direction);
            let explanation = spd.explain(&packet.five_tuple(&spd.config().startup).unwrap(), direction);
            responder.answer(vec![Answer::Explanation(Box::new(explanation))]);
        }
        other => panic!("{other:?}"),
    });
    let args = ["-sa", "10.1.0.1", "-da", "10.2.0.1", "-sp", "1", "-dp", "443", "-if", "caponier0", "-explain"];
    let live = run(POLICY, daemon.run_dir(), &args);
    assert!(live.status.success(), "{}", stderr(&live));
    assert_eq!(stdout(&live), stdout(&policy(&file, &args)));
    let asked = Packet {
        source: "10.1.0.1".parse().unwrap(),
        destination: "10.2.0.1".parse().unwrap(),
        protocol: 6,
        ports: Some((1, 443)),
        icmp: None,
        direction: Direction::Outbound,
        interface: Some("caponier0".into()),
    };
    assert_eq!(daemon.last_request(), Some(Request::Explain(asked)));
    let nobody = run(POLICY, nowhere(), &args);
    assert!(stderr(&nobody).contains("no ipsecd answers"), "{}", stderr(&nobody));
}

#[test]
fn a_good_file_checks_and_shows_without_its_secrets() {
    let file = File::with(GOOD);
    let check = run(CONFIG, nowhere(), &["check", &file.name()]);
    assert!(check.status.success(), "{}{}", stdout(&check), stderr(&check));
    let valid = "valid: 2 host policies, 1 tunnel policy, 1 IKE policy, 1 authentication record, 0 bypass entries";
    assert!(stdout(&check).contains(valid), "{}", stdout(&check));
    for args in [&["show", &file.name()][..], &["show", &file.name(), "--json"], &["check", &file.name(), "-json"]] {
        let output = run(CONFIG, nowhere(), args);
        assert!(output.status.success());
        assert!(!stdout(&output).contains("do-not-show"), "{}", stdout(&output));
    }
    let shown = stdout(&run(CONFIG, nowhere(), &["show", &file.name()]));
    for line in [
        "host     web: priority 10, cookie 2, 10.1.0.0/16 <=> 10.2.0.0/16 protocol 6 remote port 443: tunnel b",
        "host     nothing_else: priority 20, cookie 3, 10.1.0.0/16 <=> 10.2.0.0/16: DISCARD",
        "host     default: priority 0, searched last, cookie 1: PASS",
        "auth     b: remote 192.0.2.2, PSK",
    ] {
        assert!(shown.lines().any(|l| l == line), "no line {line:?} in\n{shown}");
    }
    let json = stdout(&run(CONFIG, nowhere(), &["show", &file.name(), "-json"]));
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["tunnel"][0]["proposals"][0]["hpux"], "ESP_AES128_HMAC_SHA1");
    assert_eq!(document["tunnel"][0]["proposals"][0]["keyword"], "aes128-sha1");
    assert_eq!(document["tunnel"][0]["pfs"], "modp2048");
    assert_eq!(document["auth"][0]["preshared"], true);
    let names: Vec<_> = document["host"].as_array().unwrap().iter().map(|h| (&h["name"], &h["direction"])).collect();
    assert_eq!(names.len(), 6, "each rule for either direction, and the default: {names:?}");
}

#[test]
fn every_error_of_a_bad_file_is_shown_with_its_place() {
    let bad = GOOD.replace("[[tunnel]]", "[[tunel]]").replace("10.2.0.0/16/443", "10.2.0.0/33");
    let file = File::with(&bad);
    let check = run(CONFIG, nowhere(), &["check", &file.name()]);
    assert_eq!(check.status.code(), Some(1));
    let text = stdout(&check);
    assert!(text.contains(&format!("{}:16:", file.name())) && text.contains("did you mean `tunnel`?"), "{text}");
    assert!(text.contains(&format!("{}:5:", file.name())), "{text}");
    let json = run(CONFIG, nowhere(), &["check", &file.name(), "--json"]);
    assert_eq!(json.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(document["valid"], false);
    assert!(document["diagnostics"].as_array().unwrap().len() >= 2);
    // The other commands say the same on standard error.
    for output in
        [run(CONFIG, nowhere(), &["show", &file.name()]), policy(&file, &["-sa", "1.1.1.1", "-da", "1.1.1.2"])]
    {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("did you mean `tunnel`?") && output.stdout.is_empty());
    }
}

#[test]
fn keys_that_others_can_read_are_a_warning() {
    let file = File::with(GOOD);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let check = run(CONFIG, nowhere(), &["check", &file.name()]);
    assert!(check.status.success());
    assert!(stdout(&check).contains("mode 0640"), "{}", stdout(&check));
    assert!(stdout(&check).contains("chmod 600"), "{}", stdout(&check));
}

#[test]
fn files_that_cannot_be_read_and_verbs_that_are_not_here() {
    let binary = run(CONFIG, nowhere(), &["check", CONFIG]);
    assert_eq!(binary.status.code(), Some(1));
    assert!(stderr(&binary).contains("cannot read configuration"), "{}", stderr(&binary));
    let missing = run(CONFIG, nowhere(), &["check", "/nonexistent/x.toml"]);
    assert!(stderr(&missing).contains("/nonexistent/x.toml"));
    let verb = run(CONFIG, nowhere(), &["add", "host", "x", "-source", "10.1.1.1"]);
    assert_eq!(verb.status.code(), Some(1));
    assert!(stderr(&verb).contains("`add` is not in this version"), "{}", stderr(&verb));
    let typo = run(CONFIG, nowhere(), &["chekc", "x"]);
    assert!(stderr(&typo).contains("`chekc` is no verb"), "{}", stderr(&typo));
    assert_eq!(run(CONFIG, nowhere(), &[]).status.code(), Some(2));
}

/// As `ipsec_config check` does, on a file; the running daemon answers with the same.
#[test]
fn a_bypass_that_takes_traffic_out_of_a_tunnel_is_warned_of() {
    let file = File::with(&format!("{GOOD}\n[[bypass]]\naddress = \"10.1.0.7\"\n"));
    let ask = |source: &str, more: &[&str]| {
        let args = ["-sa", source, "-da", "10.2.0.1", "-p", "tcp", "-dp", "443", "-dir", "out"];
        let output = policy(&file, &[&args, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let text = ask("10.1.0.7", &[]);
    assert!(text.contains("-- Warnings --\nbypass 10.1.0.7 makes host policy `web`"), "{text}");
    let text = ask("10.1.0.8", &[]);
    assert!(text.contains("-- Warnings --\nbypass 10.1.0.7: traffic of 10.1.0.7 goes in the clear"), "{text}");
    let document: serde_json::Value = serde_json::from_str(&ask("10.1.0.7", &["--json"])).unwrap();
    assert_eq!(document["explanation"]["warnings"].as_array().unwrap().len(), 1);
    let checked = run(CONFIG, nowhere(), &["check", &file.name()]);
    assert!((stdout(&checked) + &stderr(&checked)).contains("bypass 10.1.0.7: traffic of 10.1.0.7 goes in the clear"));
    // Without the entry there is nothing to warn of.
    let file = File::with(GOOD);
    let args = ["-sa", "10.1.0.7", "-da", "10.2.0.1", "-p", "tcp", "-dp", "443", "-dir", "out"];
    assert!(!stdout(&policy(&file, &args)).contains("Warnings"));
}
