//! What only a peer that holds the keys can do wrong, or unusually: messages made with an engine's own keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::isakmp::{WORN, WORN_OUT};
use super::{Command, Datagram, Engine, Output};
use crate::informational;
use crate::wire::numbers::{DOI_IPSEC, ExchangeType, NotifyKind, PayloadKind, ProtocolId};
use crate::wire::{Body, Delete, Flags, Header, Message, Notification, Payload};
use crypto::entropy::testing::SeededEntropy;
use policy::audit::AuditEvent;
use policy::config::Config;
use policy::sa::SaProtocol;
use policy::time::Timestamp;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

mod doubts;
mod hybrid;
mod xauth;

/// Two hosts that hear each other at once, unless `lost` says otherwise.
struct Two {
    now: Timestamp,
    hosts: [Host; 2],
    /// Changes what is under way; `None` loses it.
    wire: fn(Vec<u8>) -> Option<Vec<u8>>,
}

struct Host {
    engine: Engine,
    entropy: SeededEntropy,
    config: Arc<Config>,
    sending: BTreeSet<u64>,
    audit: Vec<AuditEvent>,
    sent: Vec<Vec<u8>>,
}

fn address(host: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, host as u8 + 1), 500).into()
}

/// `auth` are more lines of the authentication record.
fn config(host: usize, ike: &str, tunnel: &str, auth: &str) -> Arc<Config> {
    let (me, peer) = (address(host).ip(), address(1 - host).ip());
    let text = format!(
        "[startup]\nauditlvl = \"informative\"\n[[host]]\nname = \"h\"\nsource = \"10.{host}.0.0/16\"\ndestination = \
         \"10.{}.0.0/16\"\ntunnel = \"t\"\n[[tunnel]]\nname = \"t\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\n\
         source = \"10.{host}.0.0/16\"\ndestination = \"10.{}.0.0/16\"\naction = \"aes128-sha1\"\n{tunnel}\n\
         [[ike]]\nname = \"i\"\nremote = \"{peer}\"\nproposals = [\"aes128-sha1-x25519\"]\n{ike}\n\
         [[auth]]\nname = \"a\"\nremote = \"{peer}\"\npreshared = \"a-key-that-is-long-enough\"\n{auth}\n",
        1 - host,
        1 - host,
    );
    Arc::new(Config::parse(&text, "test.toml").map_err(|e| format!("{e:?}")).unwrap().config)
}

impl Two {
    fn new(ike: [&str; 2], tunnel: [&str; 2]) -> Self {
        Self::with(ike, tunnel, "")
    }

    fn with(ike: [&str; 2], tunnel: [&str; 2], auth: &str) -> Self {
        let now = Timestamp::from_micros(0);
        let host = |host: usize| {
            let config = config(host, ike[host], tunnel[host], auth);
            Host {
                engine: Engine::new(Arc::clone(&config), now),
                entropy: SeededEntropy::new(host as u64 + 1),
                config,
                sending: BTreeSet::new(),
                audit: Vec::new(),
                sent: Vec::new(),
            }
        };
        Self { now, hosts: [host(0), host(1)], wire: Some }
    }

    fn up() -> Self {
        let mut two = Self::new(["", ""], ["", ""]);
        two.initiate();
        two
    }

    fn initiate(&mut self) {
        self.command(0, Command::Initiate { tunnel: "t".into() });
        self.seconds(1);
        assert_eq!(self.pairs(), [1, 1]);
    }

    fn pairs(&self) -> [usize; 2] {
        [0, 1].map(|host| self.hosts[host].engine.pairs().len())
    }

    fn isakmp(&self, host: usize) -> u64 {
        *self.hosts[host].engine.isakmp.last_key_value().unwrap().0
    }

    fn command(&mut self, host: usize, command: Command) {
        let h = &mut self.hosts[host];
        h.engine.handle_command(self.now, command, &mut h.entropy);
        self.drain();
    }

    fn deliver(&mut self, host: usize, payload: &[u8]) {
        let (local, remote) = (address(host), address(1 - host));
        let h = &mut self.hosts[host];
        h.engine.handle_datagram(self.now, Datagram { local, remote, payload }, &mut h.entropy);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((host, output)) =
            (0..2).find_map(|host| self.hosts[host].engine.poll_output().map(|output| (host, output)))
        {
            let h = &mut self.hosts[host];
            match output {
                Output::Transmit { payload, .. } => {
                    h.sent.push(payload.clone());
                    if let Some(payload) = (self.wire)(payload) {
                        self.deliver(1 - host, &payload);
                    }
                }
                Output::NeedSecret { token, .. } => {
                    let secret = h.config.auths[0].preshared.clone();
                    self.command(host, Command::Secret { token, secret });
                }
                Output::Sign { token, method, hash, .. } => {
                    let signed = hybrid::sign(method, hash.expose());
                    self.command(host, Command::Signed { token, signed });
                }
                Output::Judge { token, method, hash, signature, claim, expected, .. } => {
                    let verdict = hybrid::judge(method, hash.expose(), &signature, &claim, &expected);
                    self.command(host, Command::Judged { token, verdict });
                }
                Output::ActivateOutbound { pair } => drop(h.sending.insert(pair)),
                Output::RemovePair { pair, .. } => drop(h.sending.remove(&pair)),
                Output::Audit(event) => h.audit.push(event),
                _ => {}
            }
        }
    }

    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now + core::time::Duration::from_millis(100);
            for host in 0..2 {
                let h = &mut self.hosts[host];
                h.engine.handle_timeout(self.now, &mut h.entropy);
                self.drain();
            }
        }
    }

    /// An informational message as `host` would send it under its newest ISAKMP SA.
    fn sealed(&mut self, host: usize, message_id: u32, exchange: ExchangeType, content: Vec<Payload>) -> Vec<u8> {
        let id = self.isakmp(host);
        let sa = &self.hosts[host].engine.isakmp[&id];
        let (keys, last_block) = sa.state.phase2_keys().unwrap();
        let mut sealed = informational::sealed(keys, last_block, sa.setup.cookies, message_id, content).unwrap();
        sealed[18] = exchange.0;
        sealed
    }

    /// The message ID of the last quick mode of a host.
    fn quick_mode(&self, host: usize) -> u32 {
        let of = |m: &&Vec<u8>| m[18] == ExchangeType::QUICK_MODE.0;
        let last = self.hosts[host].sent.iter().rfind(of).unwrap();
        u32::from_be_bytes([last[20], last[21], last[22], last[23]])
    }
}

fn notification(kind: NotifyKind, spi: Vec<u8>) -> Vec<Payload> {
    let protocol = ProtocolId::ESP;
    vec![Payload::Notification(Notification { doi: DOI_IPSEC, protocol, spi, kind, data: Vec::new() })]
}

/// Sets the commit bit of what is sent in quick mode.
fn with_commit(mut message: Vec<u8>) -> Option<Vec<u8>> {
    if message[18] == ExchangeType::QUICK_MODE.0 {
        message[19] |= 2;
    }
    Some(message)
}

#[test]
fn with_the_commit_bit_we_wait_for_connected() {
    for waits in 0..2 {
        let mut two = Two::new(["", ""], ["", ""]);
        two.wire = with_commit;
        two.initiate();
        assert!(two.hosts.iter().all(|h| h.sending.is_empty()), "nobody said that it may be used");
        // Of another exchange, and not authentic: nothing.
        let message_id = two.quick_mode(0);
        let connected = notification(NotifyKind::CONNECTED, Vec::new());
        let mut sealed = two.sealed(1 - waits, message_id, ExchangeType::INFORMATIONAL, connected.clone());
        let other = two.sealed(1 - waits, message_id ^ 1, ExchangeType::INFORMATIONAL, connected);
        two.deliver(waits, &other);
        *sealed.last_mut().unwrap() ^= 1;
        two.deliver(waits, &sealed);
        assert!(two.hosts[waits].sending.is_empty());
        *sealed.last_mut().unwrap() ^= 1;
        two.deliver(waits, &sealed);
        assert_eq!(two.hosts[waits].sending.len(), 1);
        // Nobody repeats CONNECTED: the other side goes on without it after a while.
        assert!(two.hosts[1 - waits].sending.is_empty());
        two.seconds(6);
        assert_eq!(two.hosts[1 - waits].sending.len(), 1);
        let sent = two.hosts.iter().map(|h| h.sent.len()).sum::<usize>();
        two.deliver(waits, &sealed);
        assert_eq!(two.hosts.iter().map(|h| h.sent.len()).sum::<usize>(), sent, "a replay does nothing");
    }
}

#[test]
fn connected_may_name_the_spi_instead() {
    let mut two = Two::new(["", ""], ["", ""]);
    two.wire = with_commit;
    two.initiate();
    let spi = two.hosts[0].engine.pairs()[0].outbound_spi.to_be_bytes().to_vec();
    let connected = notification(NotifyKind::CONNECTED, spi);
    let sealed = two.sealed(1, 77, ExchangeType::INFORMATIONAL, connected);
    two.deliver(0, &sealed);
    assert_eq!(two.hosts[0].sending.len(), 1);
}

#[test]
fn without_the_commit_bit_nobody_waits() {
    let two = Two::up();
    assert!(two.hosts.iter().all(|h| h.sending.len() == 1));
}

#[test]
fn new_group_mode_is_refused_to_the_peer_and_ignored_from_others() {
    let mut two = Two::up();
    let sealed = two.sealed(0, 99, ExchangeType::NEW_GROUP_MODE, vec![Payload::Nonce(vec![0; 16])]);
    let sent = two.hosts[1].sent.len();
    let mut forged = sealed.clone();
    *forged.last_mut().unwrap() ^= 1;
    two.deliver(1, &forged);
    assert_eq!(two.hosts[1].sent.len(), sent);
    two.deliver(1, &sealed);
    assert_eq!(two.hosts[1].sent.len(), sent + 1);
    assert!(two.hosts[0].audit.iter().any(|e| e.text.contains("ATTRIBUTES-NOT-SUPPORTED")), "{:?}", two.hosts[0].audit);
    two.deliver(1, &sealed);
    assert_eq!(two.hosts[1].sent.len(), sent + 1, "a replay is not answered");
    // In the clear, or of nobody we know.
    let header = Message::decode(&sealed).unwrap().header;
    let clear = Message {
        header: Header { flags: Flags::default(), message_id: 100, ..header },
        body: Body::Clear(vec![Payload::Nonce(vec![0; 16])]),
    };
    two.deliver(1, &clear.encode());
    assert_eq!(two.hosts[1].sent.len(), sent + 1);
    assert_eq!(two.pairs(), [1, 1]);
}

#[test]
fn an_unknown_payload_or_a_foreign_domain_makes_nothing_of_a_delete() {
    let mut two = Two::up();
    let spi = two.hosts[0].engine.pairs()[0].inbound_spi;
    let delete = |doi| Payload::Delete(Delete { doi, ..of(informational::delete(SaProtocol::Esp, &[spi])) });
    let unknown = |kind| Payload::Unknown { kind: PayloadKind(kind), body: vec![0; 4] };
    let contents = [
        vec![delete(DOI_IPSEC), unknown(99)],
        vec![delete(DOI_IPSEC), Payload::Nonce(vec![0; 16])],
        vec![delete(2)],
        notification(NotifyKind::INITIAL_CONTACT, Vec::new()).into_iter().chain([unknown(100)]).collect(),
    ];
    for (message_id, content) in (1..).zip(contents) {
        let sealed = two.sealed(0, message_id, ExchangeType::INFORMATIONAL, content);
        two.deliver(1, &sealed);
        assert_eq!(two.pairs(), [1, 1], "message {message_id}");
    }
    // Of a private type nothing is known, and nothing need be; and ISAKMP's own domain will do.
    let sealed = two.sealed(0, 9, ExchangeType::INFORMATIONAL, vec![delete(0), unknown(200)]);
    two.deliver(1, &sealed);
    assert_eq!(two.pairs(), [1, 0]);
}

fn of(payload: Payload) -> Delete {
    match payload {
        Payload::Delete(delete) => delete,
        other => panic!("{other:?} is no delete"),
    }
}

#[test]
fn invalid_spi_replaces_the_pair_and_deletes_nothing() {
    let mut two = Two::up();
    let before = two.hosts[0].engine.pairs()[0].clone();
    let say = |two: &mut Two, message_id, spi: u32| {
        let content = notification(NotifyKind::INVALID_SPI, spi.to_be_bytes().to_vec());
        let sealed = two.sealed(1, message_id, ExchangeType::INFORMATIONAL, content);
        two.deliver(0, &sealed);
    };
    say(&mut two, 1, before.outbound_spi ^ 1);
    say(&mut two, 2, before.inbound_spi);
    assert_eq!(two.pairs(), [1, 1], "no such SPI: nothing happens");
    for n in 0..20 {
        say(&mut two, 10 + n, before.outbound_spi);
    }
    two.seconds(1);
    // Make before break, and once.
    assert_eq!(two.pairs(), [2, 2]);
    two.seconds(20);
    assert_eq!(two.pairs(), [1, 1]);
    assert_ne!(two.hosts[0].engine.pairs()[0].outbound_spi, before.outbound_spi);
}

#[test]
fn an_sa_that_has_used_many_message_ids_is_replaced_and_bounded() {
    let mut two = Two::up();
    let id = two.isakmp(1);
    let used: Vec<u32> = (1_000_000..1_000_000 + WORN as u32 - 20).collect();
    two.hosts[1].engine.isakmp.get_mut(&id).unwrap().message_ids.extend(used);
    for n in 0..100 {
        let kind = NotifyKind::R_U_THERE_ACK;
        let content = notification(kind, Vec::new());
        let sealed = two.sealed(0, 2_000_000 + n, ExchangeType::INFORMATIONAL, content);
        two.deliver(1, &sealed);
    }
    two.seconds(1);
    assert!(two.isakmp(1) > id, "another was negotiated");
    two.seconds(60);
    assert!(!two.hosts[1].engine.isakmp.contains_key(&id));
    assert_eq!(two.pairs(), [1, 1]);
    // A peer that goes on all the same, under an SA that nothing replaces.
    let mut two = Two::up();
    let id = two.isakmp(1);
    two.wire = |_| None;
    for n in 0..2 * WORN_OUT as u32 {
        let content = notification(NotifyKind::R_U_THERE_ACK, Vec::new());
        if !two.hosts[0].engine.isakmp.contains_key(&id) && two.hosts[0].engine.isakmp.is_empty() {
            break;
        }
        let sealed = two.sealed(0, 3_000_000 + n, ExchangeType::INFORMATIONAL, content);
        two.deliver(1, &sealed);
        if let Some(sa) = two.hosts[1].engine.isakmp.get(&id) {
            assert!(sa.message_ids.len() <= WORN_OUT + 64);
        }
    }
    two.seconds(1);
    assert!(!two.hosts[1].engine.isakmp.contains_key(&id), "it is worn out");
}

#[test]
fn a_peer_may_begin_as_many_quick_modes_as_the_policy_says() {
    // A knows no limit, B allows two.
    let mut two = Two::new(["maxqm = 0", "maxqm = 2"], ["", ""]);
    two.initiate();
    let first = two.isakmp(0);
    for _ in 0..2 {
        let pair = two.hosts[0].engine.pairs().last().unwrap().pair;
        two.command(0, Command::Rekey { pair });
        two.seconds(8);
        assert_eq!(two.pairs(), [1, 1]);
    }
    let refused = |h: &Host| h.audit.iter().filter(|e| e.text.contains("and one more; a new ISAKMP SA")).count();
    assert_eq!(refused(&two.hosts[1]), 1, "the third one: {:?}", two.hosts[1].audit);
    assert!(two.isakmp(0) > first, "B began another ISAKMP SA");
    two.seconds(30);
    let pair = two.hosts[0].engine.pairs().last().unwrap().pair;
    let spi = two.hosts[0].engine.pairs()[0].inbound_spi;
    two.command(0, Command::Rekey { pair });
    two.seconds(8);
    assert_ne!(two.hosts[0].engine.pairs()[0].inbound_spi, spi, "and under it all goes on");
}

#[test]
fn an_isakmp_sa_ends_by_volume_too() {
    let mut two = Two::up();
    let id = two.isakmp(1);
    let crate::main_mode::MainMode::Established(e) = &mut two.hosts[1].engine.isakmp.get_mut(&id).unwrap().state else {
        panic!("it is established")
    };
    e.lifetime.kbytes = 64;
    let mut messages = 0u32;
    while two.isakmp(1) == id {
        let content = notification(NotifyKind::R_U_THERE_ACK, vec![0; 200]);
        let sealed = two.sealed(0, 5000 + messages, ExchangeType::INFORMATIONAL, content);
        two.deliver(1, &sealed);
        // What is not authentic is not counted.
        let mut forged = sealed;
        *forged.last_mut().unwrap() ^= 1;
        forged[20] ^= 1;
        two.deliver(1, &forged);
        messages += 1;
        let _ = messages.is_multiple_of(50).then(|| two.seconds(1));
        assert!(messages < 400, "it is replaced at seven eighths of its volume");
    }
    assert!(messages > 150, "{messages}");
    two.seconds(60);
    assert!(!two.hosts[1].engine.isakmp.contains_key(&id));
}

#[test]
fn a_side_that_only_responds_replaces_what_its_peer_does_not() {
    let mut two = Two::new(["", ""], ["", "start = \"respond\""]);
    two.command(1, Command::Initiate { tunnel: "t".into() });
    two.seconds(1);
    assert_eq!(two.pairs(), [0, 0], "from nothing it begins nothing");
    two.initiate();
    let (pair, spi) = (two.hosts[1].engine.pairs()[0].pair, two.hosts[1].engine.pairs()[0].inbound_spi);
    // Its volume is used up, which the peer cannot know.
    two.command(1, Command::Rekey { pair });
    two.seconds(10);
    assert_eq!(two.pairs(), [1, 1]);
    assert_ne!(two.hosts[1].engine.pairs()[0].inbound_spi, spi);
}

#[test]
fn an_initiator_is_told_of_a_shorter_lifetime() {
    let mut two = Two::new(["life = 28800", "life = 3600"], ["", ""]);
    two.initiate();
    for host in &two.hosts {
        let lifetime = host.engine.isakmp_sas()[0].lifetime.unwrap();
        assert_eq!(lifetime.seconds, 3600);
    }
}

#[test]
fn a_withdrawal_names_every_protocol_that_was_offered() {
    for (offered, protocols) in [
        (&["aes128-sha1"][..], &[ProtocolId::ESP][..]),
        (&["ah-sha256"], &[ProtocolId::AH]),
        (&["aes128-sha1", "ah-sha256", "aes256-sha1"], &[ProtocolId::ESP, ProtocolId::AH]),
    ] {
        let mut two = Two::up();
        let tunnel = two.hosts[0].engine.tunnels.get_mut("t").unwrap();
        let mut policy = (*tunnel.policy).clone();
        policy.transforms = offered.iter().map(|text| policy::transform::EspTransform::parse(text).unwrap()).collect();
        tunnel.policy = Arc::new(policy);
        let named = two.hosts[0].engine.withdrawal("t", 0x1234).into_iter().map(|payload| match payload {
            Payload::Delete(delete) => {
                assert_eq!((delete.spi_len, delete.spis), (4, vec![vec![0, 0, 0x12, 0x34]]));
                delete.protocol
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(named.collect::<Vec<_>>(), protocols);
    }
}

/// RFC 2409 5: the last message of aggressive mode may be in the clear.
#[test]
fn message_3_of_aggressive_mode_may_be_in_the_clear() {
    let mut two = Two::with(["", ""], ["", ""], "exchange = \"AM\"\naggressive_psk = \"accept\"");
    let encrypted = |m: &[u8]| m[18] == ExchangeType::AGGRESSIVE.0 && m[19] & 1 == 1;
    two.wire = |m| (m[18] != ExchangeType::AGGRESSIVE.0 || m[19] & 1 == 0).then_some(m);
    two.command(0, Command::Initiate { tunnel: "t".into() });
    two.seconds(1);
    let id = two.isakmp(1);
    assert!(two.hosts[1].engine.isakmp[&id].established.is_none());
    let sent = two.hosts[0].sent.iter().find(|m| encrypted(m)).unwrap();
    let Message { header, body: Body::Encrypted(octets) } = Message::decode(sent).unwrap() else { unreachable!() };
    let (keys, iv) = two.hosts[1].engine.isakmp[&id].state.phase2_keys().unwrap();
    let opened = crate::protection::open(keys, iv, header.first, &octets).unwrap();
    let header = Header { flags: Flags::default(), ..header };
    let clear = Message { header, body: Body::Clear(opened.payloads) }.encode();
    // Another hash is nobody's, and leaves room for the true one.
    let mut forged = clear.clone();
    forged[40] ^= 1;
    two.deliver(1, &forged);
    assert!(two.hosts[1].engine.isakmp[&id].established.is_none());
    assert!(two.hosts[1].audit.iter().any(|e| e.text.contains("the peer's hash is wrong")));
    two.deliver(1, &clear);
    assert!(two.hosts[1].engine.isakmp[&id].established.is_some());
}
