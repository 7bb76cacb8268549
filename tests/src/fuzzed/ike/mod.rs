//! The IKE engine: against a peer that holds real keys and says anything ([`peer`]), and two
//! engines on a wire that does anything ([`pair`]).

mod host;
mod keys;
pub(super) mod pair;
mod payloads;
pub(super) mod peer;
mod speaker;

use host::{ENGINE, PEER, PSK, text};

/// What two engines say to each other until they have a pair, as seeds of the codec's fuzzer.
pub(super) fn conversation() -> Vec<Vec<u8>> {
    let now = policy::time::Timestamp::from_micros(0);
    let more = "nat_traversal = \"force\"";
    let mut hosts = [host::Host::new(ENGINE, PEER, more, 1, now), host::Host::new(PEER, ENGINE, more, 2, now)];
    hosts[0].command(::ike::Command::Initiate { tunnel: "net".into() });
    let mut said = Vec::new();
    for turn in 0..20 {
        for (from, to, payload) in std::mem::take(&mut hosts[turn % 2].sent) {
            let message = payload.strip_prefix(&[0; 4]).unwrap_or(&payload);
            said.push([&[0][..], message].concat());
            // The same without the header, as inside an encrypted message.
            said.push([&[1, message[16]][..], &message[28..]].concat());
            hosts[1 - turn % 2].receive(from, to, &payload);
        }
        for host in &mut hosts {
            host.wait(host.now + std::time::Duration::from_millis(200));
        }
    }
    assert!(hosts[0].reached.has("pair in use"));
    said
}

/// A configuration with several tunnels, as a seed.
pub(super) fn text_of_a_host() -> String {
    text(ENGINE, PEER, "life = 300", false)
}
