//! The README says what is true: its table of algorithms is that of the code,
//! and its configuration is one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says why by panicking")]

use crypto::table::{ENCRYPTIONS, GROUPS, HASHES, INTEGRITIES, SIGNATURES, Status};
use policy::config::Config;
use std::fmt::Write;

const BEGIN: &str = "<!-- generated from the algorithm table by tests/tests/readme.rs -->\n";
const END: &str = "<!-- end of the generated part -->\n";

fn readme() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    std::fs::read_to_string(file).unwrap()
}

fn names(rows: impl Iterator<Item = (&'static str, Status)>) -> String {
    let named = rows.filter_map(|(name, status)| match status {
        Status::Modern => Some(format!("`{name}`")),
        Status::Legacy => Some(format!("`{name}` (legacy)")),
        Status::Forbidden => None,
    });
    named.collect::<Vec<_>>().join(", ")
}

fn table() -> String {
    let mut out = String::from("\n| | |\n|---|---|\n");
    let mut row = |what, rows| writeln!(out, "| {what} | {rows} |").unwrap();
    row("ESP encryption", names(ENCRYPTIONS.iter().filter(|e| e.ikev1_esp.is_some()).map(|e| (e.keyword, e.status))));
    let integrity = |beside: bool| {
        names(INTEGRITIES.iter().filter(|i| i.goes_with_ciphers() == beside).map(|i| (i.keyword, i.status)))
    };
    row("ESP and AH integrity", integrity(true));
    row("AH integrity", integrity(false));
    row(
        "IKE encryption",
        names(ENCRYPTIONS.iter().filter(|e| e.ikev1_phase1.is_some()).map(|e| (e.keyword, e.status))),
    );
    row("IKE hash and PRF", names(HASHES.iter().map(|h| (h.keyword, h.status))));
    row("Diffie-Hellman groups", names(GROUPS.iter().map(|g| (g.keyword, g.status))));
    row("Signatures", names(SIGNATURES.iter().map(|s| (s.keyword, s.status))));
    out.push('\n');
    out
}

#[test]
fn the_table_of_algorithms_is_the_one_of_the_code() {
    let readme = readme();
    let (_, rest) = readme.split_once(BEGIN).expect("the mark before the table");
    let (there, _) = rest.split_once(END).expect("the mark after the table");
    let expected = table();
    assert!(there == expected, "README.md should have between its marks:\n{expected}");
}

#[test]
fn the_configuration_is_one_and_the_example_files_are_the_same() {
    let readme = readme();
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let shown = Config::parse(shown, "README.md").unwrap_or_else(|e| panic!("{}", e[0]));
    assert!(shown.warnings.is_empty(), "{}", shown.warnings[0]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two-hosts/a.toml");
    let example =
        Config::parse(&std::fs::read_to_string(file).unwrap(), "a.toml").unwrap_or_else(|e| panic!("{}", e[0]));
    let essence = |c: &Config| {
        let tunnel = &c.tunnels[0];
        (
            c.hosts[0].selectors.clone(),
            tunnel.selector.clone(),
            tunnel.transforms.clone(),
            c.ikes[0].proposals.clone(),
            c.auths[0].preshared.clone(),
        )
    };
    assert_eq!(essence(&shown.config), essence(&example.config));
}
