//! Whatever the text, reading it ends, without a panic, with a configuration or
//! with errors that have their place in it; and a key is never shown.

use policy::config::{Checked, Config, Diagnostic, Severity};
use proptest::prelude::*;

const SECRET: &str = "zQ9-vK3-example-key-xW5";

/// Real files, the key of the two hosts replaced by one that is easy to find.
fn files() -> [String; 3] {
    [
        include_str!("../../examples/two-hosts/a.toml").replace("an-example-key-to-be-replaced", SECRET),
        include_str!("../../examples/two-hosts/b.toml").replace("an-example-key-to-be-replaced", SECRET),
        include_str!("../../examples/reference.toml").replace("0x7f3c1d5a9be04826c1f7d2309a64be15", SECRET),
    ]
}

fn check(text: &str) -> Vec<Diagnostic> {
    let found = match Config::parse(text, "file") {
        Ok(Checked { config, warnings }) => {
            assert!(warnings.iter().all(|d| d.severity == Severity::Warning));
            assert_sound(&config);
            warnings
        }
        Err(found) => {
            assert!(found.iter().any(|d| d.severity == Severity::Error));
            found
        }
    };
    let lines = text.split('\n').count();
    for d in &found {
        assert!((1..=lines).contains(&d.line) && d.column >= 1 && d.width >= 1, "{d:?}");
        let shown = d.to_string();
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
    found
}

/// What the rest of the system relies on.
fn assert_sound(config: &Config) {
    assert!(config.hosts.iter().all(|h| !h.selectors.is_empty()));
    assert!(config.hosts.is_sorted_by(|a, b| a.priority < b.priority && a.cookie < b.cookie));
    assert!(config.ikes.is_sorted_by(|a, b| a.priority < b.priority));
    assert!(config.startup.spd_soft <= config.startup.spd_hard && config.startup.spi_min <= config.startup.spi_max);
    for t in &config.tunnels {
        assert!(!t.transforms.is_empty() && t.transforms.iter().all(|x| x.pfs == t.transforms[0].pfs));
        assert_eq!(t.tsource.is_ipv4(), t.tdestination.is_ipv4());
        assert!(config.ike_policy(t.tdestination).is_some_and(|p| !p.proposals.is_empty()));
        assert!(config.auth_record(t.tdestination).is_some_and(|a| a.preshared.is_some()));
    }
}

/// A change at a place given as a fraction of the text.
#[derive(Clone, Debug)]
enum Edit {
    Delete(f64, usize),
    Insert(f64, String),
    DeleteLine(f64),
    DoubleLine(f64),
    SwapLines(f64, f64),
}

fn place(text: &str, at: f64) -> usize {
    let wanted = (text.len() as f64 * at) as usize;
    (wanted..=text.len()).find(|n| text.is_char_boundary(*n)).unwrap_or(text.len())
}

fn apply(text: &str, edit: &Edit) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let line = |at: f64| ((lines.len() as f64 * at) as usize).min(lines.len() - 1);
    match edit {
        Edit::Delete(at, count) => {
            let at = place(text, *at);
            text[..at].chars().chain(text[at..].chars().skip(*count)).collect()
        }
        Edit::Insert(at, what) => {
            let at = place(text, *at);
            format!("{}{what}{}", &text[..at], &text[at..])
        }
        Edit::DeleteLine(at) => {
            let mut lines = lines.clone();
            lines.remove(line(*at));
            lines.join("\n")
        }
        Edit::DoubleLine(at) => {
            let n = line(*at);
            let mut lines = lines.clone();
            lines.insert(n, lines[n]);
            lines.join("\n")
        }
        Edit::SwapLines(a, b) => {
            let (a, b) = (line(*a), line(*b));
            let mut lines = lines.clone();
            lines.swap(a, b);
            lines.join("\n")
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0.0..1.0f64;
    let token = prop_oneof![
        Just("\"".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("'''".to_owned()),
        Just("'".to_owned()),
        Just("=".to_owned()),
        Just("\n".to_owned()),
        Just("[".to_owned()),
        Just("]]".to_owned()),
        Just("{".to_owned()),
        Just("#".to_owned()),
        Just(".".to_owned()),
        Just(",".to_owned()),
        Just("/".to_owned()),
        Just("-".to_owned()),
        Just("4294967296".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop_oneof![
        4 => (at(), 1..4usize).prop_map(|(p, n)| Edit::Delete(p, n)),
        4 => (at(), token).prop_map(|(p, t)| Edit::Insert(p, t)),
        1 => at().prop_map(Edit::DeleteLine),
        1 => at().prop_map(Edit::DoubleLine),
        1 => (at(), at()).prop_map(|(a, b)| Edit::SwapLines(a, b)),
    ]
}

/// Text made of the words of the format, in any order.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("[[host]]\n"),
        Just("[[tunnel]]\n"),
        Just("[[ike]]\n"),
        Just("[[auth]]\n"),
        Just("[[bypass]]\n"),
        Just("[startup]\n"),
        Just("[default]\n"),
        Just("[host.x]\n"),
        Just("name = \"a\"\n"),
        Just("name = \"b\"\n"),
        Just("source = \"10.0.0.0/8\"\n"),
        Just("destination = [\"fd00::/8\", \"10.1.1.1-10.1.1.3/32/80\"]\n"),
        Just("protocol = \"TCP\"\n"),
        Just("protocol = 1\n"),
        Just("icmp_type = 8\n"),
        Just("priority = 10\n"),
        Just("action = \"PASS\"\n"),
        Just("action = \"aes128-sha1-modp2048/3600\"\n"),
        Just("tunnel = \"a\"\n"),
        Just("tsource = \"10.77.0.1\"\n"),
        Just("tdestination = \"10.77.0.2\"\n"),
        Just("remote = \"0.0.0.0/0\"\n"),
        Just("preshared = \"0x00\"\n"),
        Just("proposals = \"aes128-sha1-modp2048\"\n"),
        Just("group = 14\n"),
        Just("address = \"10.0.0.1\"\n"),
        Just("mtu = 1200\n"),
        Just("allow_short_lifetimes = true\n"),
        Just("x"),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_order_of_words(text in words()) {
        check(&text);
    }

    #[test]
    fn files_with_mistakes(file in 0..3usize, edits in prop::collection::vec(edit(), 1..6)) {
        let text = edits.iter().fold(files()[file].clone(), |text, edit| apply(&text, edit));
        check(&text);
    }

    /// Two mistakes, however unlucky, show no key.
    #[test]
    fn keys_stay_hidden(file in 0..3usize, edits in prop::collection::vec(edit(), 1..3)) {
        let text = edits.iter().fold(files()[file].clone(), |text, edit| apply(&text, edit));
        for d in check(&text) {
            let shown = format!("{d} {d:?}");
            // Half of the key is as good as a leak.
            prop_assert!(!shown.contains(&SECRET[..11]) && !shown.contains(&SECRET[12..]), "{shown}");
        }
    }
}
