//! Configurations that are refused or warned of, each with exactly what is said about it.
//!
//! The cases are in `data/bad_configurations.txt`: a title after `===`, the
//! configuration, and after `---` every diagnostic in order, without the file's
//! name and the quoted line. `%SITE` stands for a tunnel that is complete and
//! right, `%PEER` for its peer alone.

use policy::config::{Config, Diagnostic, Severity};

const CASES: &str = include_str!("data/bad_configurations.txt");

const PEER: &str = r#"
[[ike]]
name = "peer"
remote = "10.77.0.2"
[[auth]]
name = "peer"
remote = "10.77.0.2"
preshared = "0123456789abcdef"
"#;

const SITE: &str = r#"
[[host]]
name = "site"
source = "10.78.1.0/24"
destination = "10.78.2.0/24"
priority = 1000
tunnel = "site"
[[tunnel]]
name = "site"
tsource = "10.77.0.1"
tdestination = "10.77.0.2"
source = "10.78.1.0/24"
destination = "10.78.2.0/24"
"#;

struct Case<'t> {
    title: &'t str,
    text: String,
    expected: Vec<&'t str>,
}

fn cases() -> impl Iterator<Item = Case<'static>> {
    CASES.split("=== ").skip(1).map(|case| {
        let (title, rest) = case.split_once('\n').expect("a title is a line");
        let (text, expected) = rest.split_once("---\n").unwrap_or_else(|| panic!("{title}: no `---`"));
        let text = text.replace("%SITE", &format!("{SITE}{PEER}")).replace("%PEER", PEER);
        Case { title, text, expected: expected.lines().filter(|l| !l.is_empty()).collect() }
    })
}

fn found(text: &str) -> Vec<Diagnostic> {
    match Config::parse(text, "c") {
        Ok(checked) => {
            assert!(checked.warnings.iter().all(|d| d.severity == Severity::Warning));
            checked.warnings
        }
        Err(found) => {
            assert!(found.iter().any(|d| d.severity == Severity::Error), "refused without an error");
            found
        }
    }
}

#[test]
fn every_mistake_is_named() {
    let mut wrong = String::new();
    let mut count = 0;
    for case in cases() {
        count += 1;
        let said: Vec<String> = found(&case.text)
            .iter()
            .map(|d| Diagnostic { excerpt: None, ..d.clone() }.to_string())
            .map(|line| line.trim_start_matches("c:").to_owned())
            .collect();
        if said != case.expected {
            wrong +=
                &format!("=== {}\nexpected:\n{}\nsaid:\n{}\n\n", case.title, case.expected.join("\n"), said.join("\n"));
        }
    }
    assert!(count > 80, "only {count} cases were read");
    assert!(wrong.is_empty(), "{wrong}");
}

/// What must never be shown stands in the cases as `SECRET` or, in hexadecimal, `5ec2e7`.
#[test]
fn no_secret_is_shown() {
    let mut with_secrets = 0;
    for case in cases() {
        with_secrets += usize::from(case.text.contains("SECRET"));
        for d in found(&case.text) {
            let shown = format!("{d} {d:?}");
            assert!(!shown.contains("SECRET") && !shown.contains("5ec2e7"), "{}: {shown}", case.title);
        }
    }
    assert!(with_secrets >= 10, "only {with_secrets} cases have a secret");
}

#[test]
fn the_line_is_quoted_with_a_mark_under_the_place() {
    let text = "[[host]]\nname = \"web\"\n\tprotcol = \"TCP\" # a comment\naction = \"PASS\"\n";
    let found = found(text);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "c:3:2: error: host `web`: unknown key `protcol`; expected one of name, source, destination, protocol, \
         icmp_type, icmp_code, interface, priority, action, tunnel, flags, cache_share; did you mean `protocol`?\n    3 |  protcol = ***\n      |  ^^^^^^^"
    );
}

#[test]
fn columns_count_characters_and_masked_lines_keep_their_mark() {
    let said = |text: &str| found(text).first().map(ToString::to_string).unwrap_or_default();
    assert!(
        said("[[host]]\nname = \"naïve\"\naction = \"PASS\"\n")
            .ends_with("\n    2 | name = \"naïve\"\n      |        ^^^^^^^"),
        "{}",
        said("[[host]]\nname = \"naïve\"\naction = \"PASS\"\n")
    );
    assert!(
        said("[[auth]]\nname = \"a\"\nremote = \"10.0.0.1\"\npreshared = \"SECRET SECRET SECRET\"\n")
            .ends_with("\n    4 | preshared = ***\n      |             ^^^")
    );
}

#[test]
fn nothing_said_can_play_tricks_on_a_terminal() {
    for text in ["\"a\\u001b[2Jb\" = 1\n", "[[host]]\nname = \"\\u001b[2J\"\n", "x = \"\u{1b}[2J\"\n", "\u{1b}[31m"] {
        for d in found(text) {
            let shown = d.to_string();
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        }
    }
}
