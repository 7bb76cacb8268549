//! What the fuzzers begin with: one good example of each kind, so that they need not invent formats.

use super::certificate::{AUTHORITY, CRL, HOST, HOST_KEY, HOST_KEY_PEM, HOST_P12};
use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use ike::wire::Attribute;
use policy::audit::Level;
use std::path::Path;
use tools::control::{MAX_REPLY, MAX_REQUEST, Refusal, RefusalKind, Reply, Request, frame};

/// The seeds of a target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "wire" => wire(),
        "certificate" => certificates(),
        "config" => configurations(),
        "control" => control(),
        // Structured inputs, of which any octets are good.
        _ => (0..64)
            .map(|seed| octets(seed, 64 + 8 * seed as usize))
            .chain((0..=255).flat_map(|how| [0, 0x80].map(|more| beginning(how, more, 60))))
            .collect(),
    }
}

fn octets(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    SeededEntropy::new(seed).fill(&mut out);
    out
}

/// One way to begin, and then nothing unusual.
fn beginning(how: u8, more: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    (out[0], out[1]) = (how, more);
    out
}

fn wire() -> Vec<Vec<u8>> {
    let mut seeds = super::ike::conversation();
    let attributes = [Attribute::basic(1, 7), Attribute::number(12, 86_400)];
    seeds.push([&[2][..], &Attribute::encode_list(&attributes)].concat());
    seeds
}

fn certificates() -> Vec<Vec<u8>> {
    let subject = keys::Certificate::parse(HOST).expect("a certificate").subject().der().to_vec();
    let pem = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
    let whats: [(u8, &[u8]); 14] = [
        (0, HOST),
        (0, AUTHORITY),
        (1, &subject),
        (2, HOST),
        (2, CRL),
        (2, HOST_KEY),
        (2, HOST_P12),
        (2, HOST_KEY_PEM),
        (2, pem.as_bytes()),
        (3, HOST),
        (3, AUTHORITY),
        (4, HOST),
        (4, AUTHORITY),
        (5, CRL),
    ];
    whats.iter().map(|(what, octets)| [&[*what][..], octets].concat()).collect()
}

fn configurations() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = ["examples/two-hosts/a.toml", "examples/two-hosts/b.toml", "examples/reference.toml"];
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("an example");
    let whole = files.map(read);
    // Comments teach a fuzzer nothing.
    let bare = |text: &String| {
        text.lines()
            .map(|l| l.split(" #").next().unwrap_or(l))
            .filter(|l| !l.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let bad = read("policy/tests/data/bad_configurations.txt");
    let bad = bad.split("=== ").filter_map(|case| case.split_once('\n')?.1.split("---\n").next());
    let bad = bad.map(|text| text.as_bytes().to_vec());
    let manual = read("docs/manual-keys.md");
    let manual = manual.split("```toml\n").skip(1).filter_map(|part| part.split("```").next());
    let manual = manual.map(|text| text.as_bytes().to_vec());
    whole
        .iter()
        .map(|text| bare(text).into_bytes())
        .chain([super::ike::text_of_a_host().into_bytes()])
        .chain(bad)
        .chain(manual)
        .collect()
}

fn control() -> Vec<Vec<u8>> {
    let peer = [192, 0, 2, 1].into();
    let requests = [
        Request::Status,
        Request::Report { sections: vec![], filters: Default::default() },
        Request::DeleteSa { peer },
        Request::Initiate { tunnel: "net".into() },
        Request::SetLimits { soft: Some(10), hard: None },
        Request::AuditLevel { level: Level::Error },
    ];
    let replies = [
        Reply::Records(vec![tools::control::Answer::Done("done".into())]),
        Reply::End,
        Reply::Refused(Refusal::new(RefusalKind::Busy, "busy").next("wait")),
    ];
    let requests = requests.iter().map(|r| frame::encode(r, MAX_REQUEST)).map(|octets| (0, octets));
    let replies = replies.iter().map(|r| frame::encode(r, MAX_REPLY)).map(|octets| (1, octets));
    let frames = requests.chain(replies).map(|(who, octets)| [&[who][..], &octets.expect("a short message")].concat());
    frames.collect()
}
