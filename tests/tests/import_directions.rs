//! The crates depend on each other only in the directions of ARCHITECTURE.md,
//! and the pure ones stay pure.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Each crate and the crates of this workspace it may depend on.
const MAY_DEPEND_ON: [(&str, &[&str]); 9] = [
    ("crypto", &[]),
    ("policy", &["crypto"]),
    ("ike", &["crypto", "policy"]),
    ("keys", &["crypto", "policy"]),
    ("datapath", &["crypto", "policy"]),
    ("tools", &["crypto", "policy", "ike", "keys", "datapath"]),
    ("benches", &["crypto", "policy", "ike", "keys", "datapath", "tools"]),
    ("tests", &["crypto", "policy", "ike", "keys", "datapath", "tools"]),
    ("simulation", &["crypto", "policy", "ike"]),
];

/// Crates without `unsafe`.
const SAFE: [&str; 2] = ["ike", "keys"];
/// Where else it may be lifted.
const MAY_BE_UNSAFE: [&str; 9] = [
    "crypto/src/lanes/",
    "crypto/src/signature/rsa_raw.rs",
    "datapath/src/io/",
    "policy/src/cache/pages.rs",
    "policy/src/cache/bucket.rs",
    "policy/src/sad/place.rs",
    "policy/src/sad/table.rs",
    "policy/src/sad/by_spi.rs",
    "policy/src/sad/outbound.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above")
}

/// Dependencies of every kind (normal, development, build) within the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |v: &Value| v.as_str().map(str::to_owned).expect("a string");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let local = package["dependencies"].as_array().expect("dependencies").iter();
            let local = local.filter(|d| d["path"].is_string()).map(|d| text(&d["name"])).collect();
            (text(&package["name"]), local)
        })
        .collect()
}

#[test]
fn only_in_the_given_directions() {
    let found = dependencies();
    assert_eq!(
        found.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
        MAY_DEPEND_ON.iter().map(|(name, _)| *name).collect(),
        "the crates of the workspace and those of this test"
    );
    for (name, allowed) in MAY_DEPEND_ON {
        for dependency in &found[name] {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

/// Source files that allow what the workspace denies, by their paths from the root.
fn files_that_lift(directory: &Path, lifted: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_that_lift(&path, lifted);
        } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("allow(unsafe_code")) {
            let path = path.strip_prefix(root()).expect("it is below");
            lifted.push(path.to_string_lossy().into_owned());
        }
    }
}

#[test]
fn pure_crates_forbid_unsafe_code_and_ban_clocks() {
    for name in SAFE {
        let source = root().join(name).join("src/lib.rs");
        let text = std::fs::read_to_string(&source).expect("a library");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{} lacks it", source.display());
    }
    let mut lifted = Vec::new();
    for (name, _) in MAY_DEPEND_ON {
        files_that_lift(&root().join(name).join("src"), &mut lifted);
    }
    assert!(!lifted.is_empty(), "none is found where there are some");
    for file in lifted {
        assert!(MAY_BE_UNSAFE.iter().any(|may| file.starts_with(may)), "{file} must not allow unsafe code");
    }
    // keys has sockets in its `client` module.
    for name in ["crypto", "policy", "ike"] {
        let bans = std::fs::read_to_string(root().join(name).join("clippy.toml")).unwrap_or_default();
        assert!(bans.contains("std::time::Instant::now"), "{name}/clippy.toml must ban clocks");
    }
}
