//! What reports look like, compared with files. After a change that is meant:
//! `CAPONIER_ACCEPT=1 cargo test -p tools --test reports`, and read the difference.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::path::PathBuf;
use tools::report::document::{Document, Format};
use tools::report::{Record, Section};

const EVERY: [Section; 12] = [
    Section::Status,
    Section::Ip,
    Section::Bypass,
    Section::Host,
    Section::Tunnel,
    Section::Ike,
    Section::Auth,
    Section::Pool,
    Section::Mad,
    Section::Sad,
    Section::CacheTable,
    Section::Cache,
];

fn written(format: Format, sections: &[Section], records: &[Record]) -> String {
    let mut out = Vec::new();
    let mut document = Document::begin(&mut out, format, sections).unwrap();
    records.iter().for_each(|r| document.record(r).unwrap());
    document.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn compare(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("CAPONIER_ACCEPT").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} differs", path.display());
}

#[test]
fn each_section_as_text() {
    for section in EVERY {
        compare(&format!("{}.txt", section.name()), &written(Format::Text, &[section], &common::of(section)));
    }
}

#[test]
fn each_section_as_json_which_reads_back() {
    for section in EVERY {
        let records = common::of(section);
        let document = written(Format::Json, &[section], &records);
        compare(&format!("{}.json", section.name()), &document);
        let parsed: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(parsed["version"], 1);
        let member = &parsed[section.name()];
        let members = member.as_array().cloned().unwrap_or_else(|| vec![member.clone()]);
        let back: Vec<Record> = members
            .into_iter()
            .map(|record| serde_json::json!({ "section": section.name(), "record": record }))
            .map(|tagged| serde_json::from_value(tagged).unwrap())
            .collect();
        assert_eq!(back, records);
    }
}

/// Names of all members, but for those of maps, whose names are data.
fn names(value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                into.insert(name.clone());
                if !["counters", "drops"].contains(&name.as_str()) {
                    names(value, into);
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| names(v, into)),
        _ => {}
    }
}

#[test]
fn every_field_is_documented() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reports.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = std::collections::BTreeSet::new();
    for section in EVERY {
        let document = written(Format::Json, &[section], &common::of(section));
        names(&serde_json::from_str(&document).unwrap(), &mut found);
    }
    let missing: Vec<_> =
        found.iter().filter(|n| !text.contains(&format!("`{n}`")) && !text.contains(&format!("\"{n}\""))).collect();
    assert!(found.len() > 80 && missing.is_empty(), "not in docs/reports.md: {missing:?}");
}

#[test]
fn sections_without_records_are_there_all_the_same() {
    let sections = [Section::Mad, Section::Sad, Section::Cache];
    let text = written(Format::Text, &sections, &[]);
    compare("empty.txt", &text);
    assert_eq!(written(Format::Json, &sections, &[]), "{\"version\":1,\n\"mad\":[],\n\"sad\":[],\n\"cache\":[]}\n");
    let between: serde_json::Value =
        serde_json::from_str(&written(Format::Json, &sections, &common::of(Section::Sad))).unwrap();
    assert_eq!(between["sad"].as_array().unwrap().len(), 2);
    assert_eq!((&between["mad"], &between["cache"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn records_out_of_order_are_refused() {
    let mut out = Vec::new();
    let mut document = Document::begin(&mut out, Format::Json, &[Section::Mad, Section::Sad]).unwrap();
    document.record(&common::of(Section::Sad)[0]).unwrap();
    assert!(document.record(&common::of(Section::Mad)[0]).is_err());
}

#[test]
fn inbound_rules_show_the_peer_as_source() {
    let Record::Host(inbound) = &common::of(Section::Host)[1] else { panic!("a host policy") };
    let text = written(Format::Text, &[Section::Host], &[Record::Host(inbound.clone())]);
    let source = text.lines().position(|l| l.starts_with("Src IP Addr: fd00::1")).expect("the peer as source");
    assert_eq!(text.lines().nth(source + 1), Some("Src Port number: 80"));
}
