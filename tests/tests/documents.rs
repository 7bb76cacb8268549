//! The documents name what is there: every test, file and link in them exists, and the tables of
//! conformance say of each row how it stands and what shows it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says why by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How a row of `docs/conformance/` may begin, where it says what is here.
const STANDINGS: [&str; 4] = ["done", "in part", "refused", "not there"];

/// The tree as documents speak of it: files from the root, and tests with the file each is in.
#[derive(Default)]
struct Tree {
    files: BTreeSet<PathBuf>,
    tests: BTreeSet<(PathBuf, String)>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.walk(root, Path::new(""));
        tree
    }

    fn walk(&mut self, root: &Path, under: &Path) {
        for entry in std::fs::read_dir(root.join(under)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = under.join(&name);
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                self.walk(root, &path);
                continue;
            }
            if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                self.tests.extend(tests_in(&text).map(|name| (path.clone(), name)));
            }
            self.files.insert(path);
        }
    }

    fn has_test(&self, name: &str) -> bool {
        self.tests.iter().any(|(_, test)| test == name)
    }

    fn has_path(&self, path: &str) -> bool {
        let path = Path::new(path.trim_end_matches('/'));
        self.files.iter().any(|file| file.starts_with(path))
    }
}

/// Names of the functions that follow `#[test]`.
fn tests_in(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut awaited = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        awaited |= line == "#[test]";
        let name = line.strip_prefix("fn ").filter(|_| awaited)?;
        awaited = false;
        Some(name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
    })
}

/// What stands between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Whether something between backticks is a file of the tree, and not one of the reader's.
fn is_path(quoted: &str) -> bool {
    const KINDS: [&str; 5] = [".rs", ".md", ".toml", ".txt", ".service"];
    quoted.contains('/')
        && !quoted.contains('*')
        && !quoted.starts_with(['/', '~'])
        && KINDS.iter().any(|kind| quoted.ends_with(kind))
}

/// The paths that `a/{b,c}.rs` stands for.
fn alternatives(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (choice, after))) => choice.split(',').map(|one| format!("{before}{one}{after}")).collect(),
        None => vec![path.to_owned()],
    }
}

fn is_identifier(quoted: &str) -> bool {
    let (first, rest) = quoted.split_at_checked(1).unwrap_or_default();
    let lower = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    first.chars().all(|c| c.is_ascii_lowercase()) && !first.is_empty() && rest.chars().all(lower)
}

/// What a document says that is not so; `at` is where it is, from the root.
fn faults(tree: &Tree, at: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut header: Option<Vec<String>> = None;
    for (number, line) in text.lines().enumerate() {
        let mut fault = |what: String| faults.push(format!("{}:{}: {what}", at.display(), number + 1));
        for target in line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !tree.has_path(&joined(at, target)) {
                fault(format!("links to {target}, which is not there"));
            }
        }
        let named = quoted(line).map(|q| q.split("::").next().unwrap_or_default()).filter(|q| is_path(q));
        for path in named.flat_map(alternatives).filter(|path| !tree.has_path(path)) {
            fault(format!("names the file {path}, which is not there"));
        }
        let Some(cells) = cells(line) else {
            header = None;
            continue;
        };
        let Some(header) = &header else {
            header = Some(cells.iter().map(|c| c.to_lowercase()).collect());
            continue;
        };
        if cells.iter().all(|c| !c.is_empty() && c.chars().all(|c| "-:".contains(c))) {
            continue;
        }
        if cells.len() != header.len() {
            fault(format!("has {} cells under {} headings", cells.len(), header.len()));
            continue;
        }
        let Some(column) = header.iter().position(|h| matches!(h.as_str(), "test" | "tests" | "tested by")) else {
            continue;
        };
        for name in quoted(cells[column]) {
            match name.split_once("::") {
                Some((file, test)) if !tree.tests.contains(&(file.into(), test.to_owned())) => {
                    fault(format!("names the test {test} in {file}, which has none of that name"));
                }
                None if is_identifier(name) && !tree.has_test(name) => {
                    fault(format!("names the test {name}, which is not there"));
                }
                None if name.contains(['/', '.']) && !tree.has_path(name) => {
                    fault(format!("names {name} as a test, which is no file, from the root"));
                }
                _ => {}
            }
        }
        if at.starts_with("docs/conformance")
            && let Some(here) = header.iter().position(|h| h == "here")
        {
            let standing = STANDINGS.iter().find(|s| cells[here].starts_with(**s));
            match standing {
                None => fault(format!("does not begin with one of {}", STANDINGS.join(", "))),
                Some(&("done" | "in part")) if quoted(cells[column]).count() == 0 && cells[column] != "none" => {
                    fault("names no test, and does not say `none`".into());
                }
                Some(_) => {}
            }
        }
    }
    faults
}

/// Where a link in the document `at` leads, from the root.
fn joined(at: &Path, target: &str) -> String {
    let mut path = at.parent().unwrap().to_path_buf();
    for part in Path::new(target) {
        match part.to_str().unwrap() {
            ".." => drop(path.pop()),
            "." => {}
            part => path.push(part),
        }
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let tree = Tree::read(root);
    let documents: Vec<_> = tree.files.iter().filter(|f| f.extension().is_some_and(|e| e == "md")).collect();
    let named = |d: &str| documents.iter().any(|f| f.as_path() == Path::new(d));
    assert!(named("README.md") && named("docs/spd.md") && named("docs/conformance.md"), "{documents:?}");
    assert!(tree.has_test("what_documents_name_is_there") && tree.tests.len() > 700);
    let read = |d: &Path| std::fs::read_to_string(root.join(d)).unwrap();
    let faults: Vec<_> = documents.iter().flat_map(|d| faults(&tree, d, &read(d))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    let there = "fn helper() {}\n#[test]\n/// Why.\n#[ignore]\nfn it_is_there() {}\nfn it_is_no_test() {}\n";
    let file = PathBuf::from("a/tests/b.rs");
    let mut tree = Tree { files: [file.clone(), "docs/x.md".into()].into(), tests: BTreeSet::new() };
    tree.tests = tests_in(there).map(|name| (file.clone(), name)).collect();
    let faults = |row: &str| {
        faults(&tree, Path::new("docs/conformance/x.md"), &format!("| s | here | tests |\n|---|---|---|\n{row}"))
    };
    for good in [
        "| 1 | done | `it_is_there`, `A_WORD` |",
        "| 1 | in part: `helper` | `a/tests/b.rs`, [x](../x.md), `a/tests` |",
        "| 1 | done | `a/tests/b.rs::it_is_there` |",
        "| 1 | done | none |",
        "| 1 | refused: why, as `/etc/x.toml` | |",
        "| 1 | not there | |",
    ] {
        assert_eq!(faults(good), [""; 0], "{good}");
    }
    for (bad, what) in [
        ("| 1 | done | `it_is_no_test` |", "names the test it_is_no_test"),
        ("| 1 | done | `a/tests/b.rs::it_is_no_test` |", "names the test it_is_no_test in"),
        ("| 1 | done | `it_is_there`, `b.rs` |", "names b.rs as a test"),
        ("| 1 | done, see `a/tests/c.rs` | `it_is_there` |", "names the file a/tests/c.rs"),
        ("| 1 | done, see `a/tests/{b,c}.rs` | `it_is_there` |", "names the file a/tests/c.rs"),
        ("| 1 | done | [x](x.md), `it_is_there` |", "links to x.md"),
        ("| 1 | done | |", "names no test"),
        ("| 1 | works | `it_is_there` |", "does not begin"),
        ("| 1 | done |", "has 2 cells"),
    ] {
        let found = faults(bad);
        assert!(found.len() == 1 && found[0].contains(what) && found[0].contains("x.md:3"), "{bad}: {found:?}");
    }
}
