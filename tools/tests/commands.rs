//! The commands as programs, against a control server in this process.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;
#[path = "common/daemon.rs"]
mod daemon;

use daemon::{Daemon, run, stderr, stdout};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tools::control::{Refusal, RefusalKind, Request};
use tools::report::{CacheFilter, Filters, HostScope, Section};

const REPORT: &str = env!("CARGO_BIN_EXE_ipsec_report");
const ADMIN: &str = env!("CARGO_BIN_EXE_ipsec_admin");

/// Answers reports with the records of every section asked for, and anything else in words.
fn daemon() -> Daemon {
    Daemon::start(|request, responder| match request {
        Request::Report { sections, .. } => {
            responder.answer(sections.into_iter().flat_map(common::of).map(Into::into).collect());
        }
        Request::Status => responder.answer(vec![common::status().into()]),
        other => responder.done(format!("done: {other:?}")),
    })
}

fn sections_of(request: Option<Request>) -> Vec<Section> {
    match request {
        Some(Request::Report { sections, .. }) => sections,
        other => panic!("expected a report, got {other:?}"),
    }
}

#[test]
fn a_report_without_options_is_everything() {
    let daemon = daemon();
    let output = run(REPORT, daemon.run_dir(), &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(sections_of(daemon.last_request()), Section::ALL);
    for title in ["Cache Policy Rule", "IPSec SA", "ISAKMP/MM SA", "IKE Policy Rule", "Active Host Policy Rule"] {
        assert!(stdout(&output).contains(&format!("------------------- {title} ---")), "{title}");
    }
}

#[test]
fn options_of_either_spelling_choose_sections() {
    let daemon = daemon();
    let cases: [(&[&str], &[Section]); 8] = [
        (&["-sad"], &[Section::Sad]),
        (&["--sad"], &[Section::Sad]),
        (&["-sa"], &[Section::Mad, Section::Sad]),
        (&["-sa", "ike"], &[Section::Mad]),
        (&["-sa", "ipsec", "-json"], &[Section::Sad]),
        (&["-cache", "-mad"], &[Section::Mad, Section::CacheTable, Section::Cache]),
        (
            &["-host", "-tunnel", "-ike", "-auth", "-pool", "-bypass", "-ip"],
            &[
                Section::Ip,
                Section::Bypass,
                Section::Host,
                Section::Tunnel,
                Section::Ike,
                Section::Auth,
                Section::Pool,
                Section::CacheTable,
            ],
        ),
        (&["-sad", "-all"], &Section::ALL),
    ];
    for (args, expected) in cases {
        let output = run(REPORT, daemon.run_dir(), args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert_eq!(sections_of(daemon.last_request()), expected, "{args:?}");
    }
}

#[test]
fn filters_are_the_daemons_work() {
    let daemon = daemon();
    let args = ["-cache", "--address", "fd00::1", "--policy", "to_b", "--top", "5", "-host", "active"];
    assert!(run(REPORT, daemon.run_dir(), &args).status.success());
    let cache = CacheFilter { address: Some("fd00::1".parse().unwrap()), policy: Some("to_b".into()), top: Some(5) };
    let filters = Filters { host: HostScope::Active, cache };
    let sections = vec![Section::Host, Section::CacheTable, Section::Cache];
    assert_eq!(daemon.last_request(), Some(Request::Report { sections, filters }));
    let output = run(REPORT, daemon.run_dir(), &["-sad", "--top", "5"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("add -cache"));
}

#[test]
fn json_is_one_document() {
    let daemon = daemon();
    let output = run(REPORT, daemon.run_dir(), &["-json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["version"], 1);
    for section in Section::ALL {
        let member = &document[section.name()];
        assert!(if section.is_single() { member.is_object() } else { member.is_array() }, "{section:?}");
    }
}

#[test]
fn a_report_can_go_to_a_file() {
    let daemon = daemon();
    let file = daemon.run_dir().join("report");
    let output = run(REPORT, daemon.run_dir(), &["-sad", "-file", file.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(std::fs::read_to_string(&file).unwrap().contains("IPSec SA"));
    let output = run(REPORT, daemon.run_dir(), &["-sad", "-file", "/nonexistent/x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write /nonexistent/x"));
}

#[test]
fn without_a_daemon_every_command_says_so() {
    for (program, args) in [(REPORT, &["-sad", "-json"][..]), (ADMIN, &["-status"])] {
        let output = run(program, Path::new("/nonexistent"), args);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let said = stderr(&output);
        assert!(said.contains("no ipsecd answers at /nonexistent/ipsecd.sock"), "{said}");
        assert!(said.contains("ipsecd --config FILE"), "{said}");
    }
}

#[test]
fn arguments_that_are_not_understood_are_status_2_and_help_is_0() {
    for args in [&["-sads"][..], &["-sa", "both", "more"], &["-sa", "none"], &["-top", "x"], &["-entity", "ikmpd"]] {
        let output = run(REPORT, Path::new("/nonexistent"), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
    }
    for args in [&["-help"][..], &["--help"], &["-version"], &["-V"]] {
        let output = run(REPORT, Path::new("/nonexistent"), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_refusal_is_an_error_with_advice() {
    let daemon = Daemon::start(|_, responder| {
        responder.refuse(Refusal::new(RefusalKind::NotFound, "no tunnel policy `x`").next("Tunnels: b, c."));
    });
    let output = run(ADMIN, daemon.run_dir(), &["-initiate", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "ipsec_admin: no tunnel policy `x`\nTunnels: b, c.\n");
    let output = run(REPORT, daemon.run_dir(), &["--json"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
}

#[test]
fn a_closed_pipe_ends_a_report_quietly() {
    let daemon = Daemon::start(|_, responder| {
        let mut stream = responder.stream();
        std::thread::spawn(move || {
            for number in 1..=50_000 {
                let record = tools::report::Record::Cache(Box::new(common::cache_record(number)));
                if stream.blocking_send(record).is_err() {
                    return;
                }
            }
            let _ = stream.blocking_finish();
        });
    });
    let mut child = Command::new(REPORT)
        .args(["-cache", "--run-dir"])
        .arg(daemon.run_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn each_action_is_one_request() {
    let daemon = daemon();
    let peer = "10.77.0.2".parse().unwrap();
    let level = policy::audit::Level::Informative;
    let cases: [(&[&str], Request); 9] = [
        (&["-status"], Request::Status),
        (&["-reload"], Request::Reload),
        (&["-deletesa", "10.77.0.2"], Request::DeleteSa { peer }),
        (&["-initiate", "b"], Request::Initiate { tunnel: "b".into() }),
        (&["-rekey_ike", "10.77.0.2"], Request::RekeyIke { peer }),
        (&["--rekey-sa", "b"], Request::RekeySa { tunnel: "b".into() }),
        (&["-spd_soft", "20"], Request::SetLimits { soft: Some(20), hard: None }),
        (&["-spd_hard", "30", "-spd_soft", "20"], Request::SetLimits { soft: Some(20), hard: Some(30) }),
        (&["-al", "informative"], Request::AuditLevel { level }),
    ];
    for (args, expected) in cases {
        let output = run(ADMIN, daemon.run_dir(), args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(!output.stdout.is_empty(), "{args:?}");
        assert_eq!(daemon.last_request(), Some(expected), "{args:?}");
    }
}

#[test]
fn actions_that_contradict_or_are_missing_are_refused_before_anybody_is_asked() {
    let daemon = daemon();
    for args in [&["-stop", "-status"][..], &[], &["-start", "-stop"], &["-auditlvl", "debug", "-spd_soft", "1"]] {
        let output = run(ADMIN, daemon.run_dir(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
    let unknown_level = run(ADMIN, daemon.run_dir(), &["-auditlvl", "loud"]);
    assert_eq!(unknown_level.status.code(), Some(2));
    assert!(stderr(&unknown_level).contains("alert, error, warning, informative or debug"));
    assert_eq!(daemon.last_request(), None);
}

#[test]
fn options_of_hp_ux_that_are_not_here_say_what_to_do_instead() {
    let cases: [(&[&str], &str); 4] = [
        (&["-traceon", "tcp"], "TUN interface"),
        (&["-np"], "control socket"),
        (&["-auditdir=/x"], "startup.auditdir"),
        (&["doctor"], "ipsec_report -tunnel"),
    ];
    for (args, instead) in cases {
        let output = run(ADMIN, Path::new("/nonexistent"), args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(said.contains("is not in this version") && said.contains(instead), "{said}");
    }
}

#[test]
fn status_as_json() {
    let daemon = daemon();
    let output = run(ADMIN, daemon.run_dir(), &["-status", "-json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(document["status"]["pid"], 4711);
    assert_eq!(document["status"]["audit_level"], "error");
}

#[test]
fn stop_waits_until_the_daemon_is_gone() {
    let daemon = daemon();
    // A daemon that answers, and does not go.
    let mut child =
        Command::new(ADMIN).args(["-stop", "--run-dir"]).arg(daemon.run_dir()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(child.try_wait().unwrap(), None, "still waiting");
    drop(daemon);
    assert!(child.wait().unwrap().success());
}

#[test]
fn start_tells_how_or_becomes_the_daemon() {
    let output = run(ADMIN, Path::new("/nonexistent"), &["-start"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("ipsec_admin -start --config FILE"), "{}", stderr(&output));
    let output = run(ADMIN, Path::new("/nonexistent"), &["-start", "--config", "/nonexistent/caponier.toml"]);
    assert!(!output.status.success());
    assert!(!stderr(&output).contains("ipsec_admin"), "{}", stderr(&output));
}

#[test]
fn audit_files_are_shown_and_filtered() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let entry = |number, entity, text: &str| policy::audit::AuditEvent {
        number,
        entity,
        level: policy::audit::Level::Error,
        text: text.to_owned(),
    };
    let date = "Sat Nov 21 02:54:19 2026";
    let first = entry(20, policy::audit::Entity::Secpolicyd, "Kernel Policy Cache Threshold reached 1000 records.");
    let second = entry(31, policy::audit::Entity::Ikmpd, "Main Mode processing failed");
    write!(file, "{}\n{}\n", first.render(date), second.render(date)).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let show = |args: &[&str]| run(REPORT, Path::new("/nonexistent"), &[&["-audit", &path], args].concat());

    assert_eq!(stdout(&show(&[])), format!("{}\n\n{}\n", first.render(date), second.render(date)));
    assert_eq!(stdout(&show(&["-entity", "ikmpd"])), format!("{}\n", second.render(date)));
    let document: serde_json::Value = serde_json::from_str(&stdout(&show(&["-json"]))).unwrap();
    assert_eq!(document["audit"][1]["number"], 31);
    assert_eq!(document["audit"][0]["entity"], "SECPOLICYD");

    let wrong = show(&["-entity", "ikmp"]);
    assert!(stderr(&wrong).contains("secpolicyd, ikmpd or secauditd"), "{}", stderr(&wrong));
    assert_eq!(show(&["-sad"]).status.code(), Some(1));
    writeln!(file, "Msg: 9 From: IKM").unwrap();
    let damaged = show(&[]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stderr(&damaged).contains(&format!("{path}:5: 1 line(s)")), "{}", stderr(&damaged));
    assert!(stdout(&damaged).contains("Main Mode processing failed"));
    let none = run(REPORT, Path::new("/nonexistent"), &["-audit", REPORT]);
    assert!(stderr(&none).contains("is not an audit file"), "{}", stderr(&none));
}
