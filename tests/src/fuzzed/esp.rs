//! ESP and AH that come in: SAs with real keys, and packets that are right, nearly right, or
//! anything, before and inside the protection.

use super::Reached;
use arbitrary::{Result, Unstructured};
use crypto::entropy::testing::SeededEntropy;
use crypto::packet::{SealJob, Sealer, sealer};
use crypto::table::{Integrity, Mac};
use crypto::{Entropy, EspSuite, Secret};
use datapath::event::Event;
use datapath::packet::Packet;
use datapath::pipeline::{Arrival, Inbound, InboundOutput};
use datapath::shared::Shared;
use policy::cache::HashKey;
use policy::config::Config;
use policy::counters::{Counter, DropReason};
use policy::five_tuple::Direction;
use policy::sa::{Lifetime, Mode, OwnLimits, SaProtocol, SaSpec, UdpEncapsulation};
use policy::selector::{AddressRange, Selector};
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) const PLACES: &[&str] = &[
    "delivered by gcm",
    "delivered by esn",
    "delivered by udp",
    "delivered by host4",
    "delivered by host6",
    "delivered by ah",
    "delivered by ah_host",
    "delivered by six",
    "bad length",
    "not authentic",
    "replayed",
    "bad padding",
    "malformed inside",
    "selector mismatch",
    "dummy",
    "IKE",
    "unknown SPI",
];

/// One SA, as the peer uses it.
struct Row {
    name: &'static str,
    delivered: &'static str,
    suite: &'static str,
    esn: bool,
    inner6: bool,
}

const ROWS: [Row; 8] = [
    Row { name: "gcm", delivered: "delivered by gcm", suite: "aes128gcm16", esn: false, inner6: false },
    Row { name: "esn", delivered: "delivered by esn", suite: "aes256-sha256", esn: true, inner6: false },
    Row { name: "udp", delivered: "delivered by udp", suite: "null-sha1", esn: false, inner6: false },
    Row { name: "host4", delivered: "delivered by host4", suite: "aes128-sha1", esn: false, inner6: false },
    Row { name: "host6", delivered: "delivered by host6", suite: "aes128gcm16", esn: false, inner6: true },
    Row { name: "ah", delivered: "delivered by ah", suite: "sha256", esn: false, inner6: false },
    Row { name: "ah_host", delivered: "delivered by ah_host", suite: "sha1", esn: false, inner6: false },
    Row { name: "six", delivered: "delivered by six", suite: "aes128ctr-sha384", esn: false, inner6: true },
];

const CONFIG: &str = r#"
[startup]
hold_queue = 8
[default]
action = "DISCARD"
TUNNELS
[[ike]]
name = "any"
remote = "0.0.0.0/0"
proposals = "aes128-sha1-modp2048"
[[ike]]
name = "any6"
remote = "::/0"
proposals = "aes128-sha1-modp2048"
[[auth]]
name = "any"
remote = "0.0.0.0/0"
preshared = "correct-horse-battery-staple"
[[auth]]
name = "any6"
remote = "::/0"
preshared = "correct-horse-battery-staple"
"#;

/// Packets of one run, and octets of the longest that is made up.
const MOST: usize = 24;
const LONGEST: usize = 300;

/// Where an SA of this number is between, and what it carries: (outer local, outer remote, local, remote).
fn ends(nth: usize) -> (IpAddr, IpAddr, AddressRange, AddressRange) {
    let n = nth as u8;
    let prefix = |side: u8| match ROWS[nth].inner6 {
        false => AddressRange::prefix(IpAddr::from([10, side, n, 0]), 24),
        true => AddressRange::prefix(IpAddr::from([0xfd00, u16::from(side), u16::from(n), 0, 0, 0, 0, 0]), 64),
    };
    let outer = |side: u8| IpAddr::from([192, 0, side, n + 1]);
    let outer6 = |side: u8| IpAddr::from([0x2001, 0xdb8, u16::from(side), 0, 0, 0, 0, u16::from(n) + 1]);
    let single = AddressRange::single;
    match ROWS[nth].name {
        "host4" | "ah_host" => (outer(1), outer(2), single(outer(1)), single(outer(2))),
        "host6" => (outer6(1), outer6(2), single(outer6(1)), single(outer6(2))),
        _ => (outer(1), outer(2), prefix(1).expect("a prefix"), prefix(2).expect("a prefix")),
    }
}

fn is_host(nth: usize) -> bool {
    ROWS[nth].name.contains("host")
}

fn config() -> Config {
    let mut tunnels = String::new();
    for (nth, row) in ROWS.iter().enumerate() {
        let (local, remote, source, destination) = ends(nth);
        let mode = if is_host(nth) { "mode = \"transport\"" } else { "" };
        let ah = if row.name.starts_with("ah") { "ah-" } else { "" };
        let esn = if row.esn { "-esn" } else { "" };
        // One tunnel looks at ports, so that fragments wait for each other.
        let port = if row.name == "gcm" { "protocol = \"UDP\"" } else { "" };
        tunnels += &format!(
            "[[tunnel]]\nname = \"{name}\"\ntsource = \"{local}\"\ntdestination = \"{remote}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\naction = \"{ah}{suite}{esn}\"\n{mode}\n\
             [[host]]\nname = \"{name}\"\nsource = \"{source}\"\ndestination = \"{destination}\"\ntunnel = \"{name}\"\n\
             {port}\n",
            name = row.name,
            suite = row.suite,
        );
    }
    match Config::parse(&CONFIG.replace("TUNNELS", &tunnels), "fuzz.toml") {
        Ok(checked) => checked.config,
        Err(found) => panic!("{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// The peer's end of an SA.
struct Sa {
    inbound: SaSpec,
    sealer: Option<Box<dyn Sealer>>,
    mac: Option<Box<dyn Mac>>,
    sequence: u64,
}

impl Sa {
    fn install(nth: usize, shared: &Shared) -> Self {
        let row = &ROWS[nth];
        let (local, remote, source, destination) = ends(nth);
        let ah = row.name.starts_with("ah");
        let suite = match Integrity::from_keyword(row.suite).filter(|_| ah) {
            Some(integrity) => EspSuite::of_ah(integrity),
            None => row.suite.parse().expect("a suite"),
        };
        let keymat = |seed| {
            let mut octets = vec![0; suite.keymat_len()];
            SeededEntropy::new(seed).fill(&mut octets);
            Secret::new(octets)
        };
        let ports = UdpEncapsulation { local_port: 4500, remote_port: 4500 };
        let spec = |direction, spi| SaSpec {
            spi,
            direction,
            local,
            remote,
            protocol: if ah { SaProtocol::Ah } else { SaProtocol::Esp },
            mode: if is_host(nth) { Mode::Transport } else { Mode::Tunnel },
            suite,
            keymat: keymat(spi.into()),
            ah: None,
            own: OwnLimits::NONE,
            esn: row.esn,
            anti_replay: true,
            selector: Selector::between(source, destination),
            encapsulation: (row.name == "udp").then_some(ports),
            original: None,
            lifetime: Lifetime { seconds: 28_800, kbytes: 0 },
            tunnel: row.name.into(),
            pair: nth as u64 + 1,
            session: None,
        };
        let inbound = spec(Direction::Inbound, 0x1000 + nth as u32);
        let outbound = spec(Direction::Outbound, 0x2000 + nth as u32);
        let pair = shared.install_pair(&inbound, &outbound, &[3; 16]).expect("a pair");
        shared.activate_outbound(pair.id).expect("just installed");
        let key = inbound.keymat.expose();
        let mac = suite.integrity.filter(|_| ah).map(|i| i.mac(key).expect("a key of its length"));
        let sealer = (!ah).then(|| sealer(suite, &inbound.keymat, &[5; 16], row.esn).expect("keys of their length"));
        Self { inbound, sealer, mac, sequence: 0 }
    }

    /// Protects `payload` with `next_header` as if it were what the SA carries.
    fn seal(&mut self, payload: &[u8], padding: &[u8], next_header: u8, sequence: u64) -> Vec<u8> {
        self.sequence = self.sequence.max(sequence);
        let low = (sequence as u32).to_be_bytes();
        let spi = self.inbound.spi.to_be_bytes();
        let suite = self.inbound.suite;
        if let Some(mac) = &self.mac {
            // Everything that changes on the way is zero already (RFC 4302 3.3.3.1.1).
            let icv = suite.icv_len();
            let total = (20 + 12 + icv + payload.len()) as u16;
            let mut packet = vec![0x45, 0];
            packet.extend(total.to_be_bytes());
            packet.extend([0, 1, 0, 0, 0, 51, 0, 0]);
            for address in [self.inbound.remote, self.inbound.local] {
                let IpAddr::V4(address) = address else { panic!("AH here is over IPv4") };
                packet.extend(address.octets());
            }
            packet.extend([next_header, (12 + icv) as u8 / 4 - 2, 0, 0]);
            packet.extend([spi, low].concat());
            let at = packet.len();
            packet.extend(vec![0; icv]);
            packet.extend(payload);
            let mut value = vec![0; icv];
            mac.sign(&[&packet], &mut value);
            packet[at..at + icv].copy_from_slice(&value);
            return packet;
        }
        let mut packet = [spi, low].concat();
        packet.extend(vec![0; suite.encryption.iv_len]);
        let start = packet.len();
        packet.extend(payload);
        packet.extend(padding);
        packet.extend([padding.len() as u8, next_header]);
        let odd = (packet.len() - start) % suite.alignment();
        if odd != 0 {
            // Not aligned, so never authentic: the cipher takes whole blocks only.
            packet.extend(vec![0; suite.alignment() - odd]);
        }
        packet.extend(vec![0; suite.icv_len()]);
        if let Some(sealer) = &self.sealer {
            sealer.seal(&mut [SealJob { packet: &mut packet, sequence }]);
        }
        packet
    }
}

/// Runs one input.
pub(super) fn run(input: &[u8]) -> Reached {
    let mut u = Unstructured::new(input);
    let mut reached = Reached::default();
    let shared = Arc::new(Shared::new(&config(), HashKey::draw(&mut SeededEntropy::new(9))));
    let mut sas: BTreeMap<usize, Sa> = BTreeMap::new();
    let mut inbound = Inbound::new(Arc::clone(&shared), 1, 16);
    let mut history: Vec<Arrival> = Vec::new();
    let (mut arrived, mut micros) = (0, 1_000_000);
    let mut out = InboundOutput::default();
    for _ in 0..MOST {
        if u.is_empty() {
            break;
        }
        let Ok(arrival) = arrival(&mut u, &shared, &mut sas, &history) else { break };
        let batch = 1 + u.arbitrary::<u8>().unwrap_or(0) % 2;
        history.push(copy(&arrival));
        let mut batch: Vec<_> = (0..batch).map(|_| copy(&arrival)).collect();
        arrived += batch.len() as u64;
        inbound.handle_batch(&mut batch, Timestamp::from_micros(micros), &mut out);
        assert!(batch.is_empty());
        micros += u64::from(u.arbitrary::<u16>().unwrap_or(0)) * 16;
        settle(&mut inbound, &mut out, &sas, &mut reached);
    }
    // Fragments that wait for others have waited long enough.
    inbound.handle_batch(&mut Vec::new(), Timestamp::from_micros(micros + 3_600_000_000), &mut out);
    settle(&mut inbound, &mut out, &sas, &mut reached);
    let totals = shared.counters.totals();
    let kept = [Counter::Received, Counter::IkeHandedOver, Counter::Keepalives].map(|c| totals.counter(c));
    assert_eq!(kept.iter().sum::<u64>() + totals.all_drops(), arrived, "every packet ends in one counter: {totals:?}");
    let drops = [
        (DropReason::BadLength, "bad length"),
        (DropReason::AuthenticationFailed, "not authentic"),
        (DropReason::Replayed, "replayed"),
        (DropReason::BadPadding, "bad padding"),
        (DropReason::Malformed, "malformed inside"),
        (DropReason::SelectorMismatch, "selector mismatch"),
        (DropReason::DummyPacket, "dummy"),
        (DropReason::UnknownSpi, "unknown SPI"),
    ];
    for (reason, place) in drops {
        if totals.drops(reason) > 0 {
            reached.note(place);
        }
    }
    reached
}

fn copy(arrival: &Arrival) -> Arrival {
    let mut packet = Packet::new();
    packet.copy_from(arrival.packet.as_slice());
    Arrival { packet, ..*arrival }
}

/// Takes what came out. Every packet must be one that an SA may carry.
fn settle(inbound: &mut Inbound, out: &mut InboundOutput, sas: &BTreeMap<usize, Sa>, reached: &mut Reached) {
    for event in out.events.drain(..) {
        if matches!(event, Event::Ike(_)) {
            inbound.ike_handed_over();
            reached.note("IKE");
        }
    }
    for packet in out.deliver.drain(..) {
        let octets = packet.as_slice();
        let (source, destination) = addresses(octets);
        let carries = |nth: &&usize| {
            let (_, _, local, remote) = ends(**nth);
            local.contains(destination) && remote.contains(source)
        };
        let nth = sas.keys().find(carries).expect("an SA that carries it");
        reached.note(ROWS[*nth].delivered);
        inbound.delivered(packet);
    }
}

fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four octets"));
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen octets"));
    if packet[0] >> 4 == 4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

/// Something that arrives.
fn arrival(
    u: &mut Unstructured<'_>,
    shared: &Shared,
    sas: &mut BTreeMap<usize, Sa>,
    history: &[Arrival],
) -> Result<Arrival> {
    let how = u.arbitrary::<u8>()?;
    if how % 16 == 15 && !history.is_empty() {
        let mut again = copy(&history[u.choose_index(history.len())?]);
        if u.arbitrary()? {
            let mut octets = again.packet.as_slice().to_vec();
            damage(u, &mut octets)?;
            again.packet.copy_from(&octets);
        }
        return Ok(again);
    }
    let nth = usize::from(u.arbitrary::<u8>()?) % ROWS.len();
    let sa = sas.entry(nth).or_insert_with(|| Sa::install(nth, shared));
    let (local, remote, ..) = ends(nth);
    let (protocol, encapsulated) = (sa.inbound.protocol, sa.inbound.encapsulation.is_some());
    let mut octets = match how % 16 {
        0..=9 => protected(u, nth, sa)?,
        10 => [&[0; 4][..], &octets(u, 60)?].concat(),
        11 => [&sa.inbound.spi.to_be_bytes()[..], &octets(u, 90)?].concat(),
        _ => octets(u, LONGEST)?,
    };
    if how & 0x70 == 0x70 {
        damage(u, &mut octets)?;
    }
    let mut packet = Packet::new();
    packet.copy_from(&octets);
    let turned = how & 0x80 != 0 && u.ratio(1, 4)?;
    let encapsulated = encapsulated != turned || how % 16 == 10;
    let port = if encapsulated { 4500 } else { 0 };
    let protocol = if encapsulated { SaProtocol::Esp } else { protocol };
    Ok(Arrival {
        packet,
        local: SocketAddr::new(local, port),
        remote: SocketAddr::new(remote, port),
        encapsulated,
        protocol,
        traffic_class: if how & 0x80 == 0 { 0 } else { u.arbitrary()? },
        hop_limit: 64,
    })
}

/// A packet under the SA's keys.
fn protected(u: &mut Unstructured<'_>, nth: usize, sa: &mut Sa) -> Result<Vec<u8>> {
    let how = u.arbitrary::<u8>()?;
    let mut inner = inner(u, nth)?;
    if how & 0x03 == 0x03 {
        damage(u, &mut inner)?;
    }
    let next_header = match (how >> 2) % 8 {
        7 => u.arbitrary()?,
        6 => 59,
        _ if is_host(nth) => 17,
        _ if ROWS[nth].inner6 => 41,
        _ => 4,
    };
    let alignment = sa.inbound.suite.alignment();
    let needed = (inner.len() + 2).next_multiple_of(alignment) - inner.len() - 2;
    let mut padding: Vec<u8> = (1..=needed as u8).collect();
    if how & 0xe0 == 0xe0 {
        // More of it, or other.
        padding.extend((1..=u.arbitrary::<u8>()? % 64).map(|n| n + needed as u8));
        if u.arbitrary()? {
            damage(u, &mut padding)?;
        }
    }
    let sequence = match u.arbitrary::<u8>()? {
        // Far ahead, far behind, beyond 32 bits where that is possible.
        jump @ 0xf0.. => {
            let by = u64::from(u.arbitrary::<u32>()?);
            if jump & 1 == 0 { sa.sequence.saturating_add(by) } else { sa.sequence.saturating_sub(by) }
        }
        ahead => sa.sequence + 1 + u64::from(ahead % 4),
    };
    let sequence = if sa.inbound.esn { sequence } else { sequence & 0xffff_ffff };
    Ok(sa.seal(&inner, &padding, next_header, sequence))
}

/// What the SA carries: an IP packet, or in transport mode what follows its header.
fn inner(u: &mut Unstructured<'_>, nth: usize) -> Result<Vec<u8>> {
    let mut payload = [u.arbitrary::<u16>()?.to_be_bytes(), [0, 80]].concat();
    let data = octets(u, 40)?;
    payload.extend(((8 + data.len()) as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(data);
    let how = u.arbitrary::<u8>()?;
    if is_host(nth) {
        return Ok(payload);
    }
    let (_, _, local, remote) = ends(nth);
    // The last octet, mostly.
    let host = |range: AddressRange, n: u8| match range.first() {
        IpAddr::V4(a) => [&a.octets()[..3], &[n]].concat(),
        IpAddr::V6(a) => [&a.octets()[..15], &[n]].concat(),
    };
    let (from, to) = (host(remote, how | 1), host(local, how | 2));
    let protocol = if how & 0x30 == 0x30 { u.arbitrary()? } else { 17 };
    let fragment = if how & 0x0c == 0x0c { u.arbitrary::<u16>()? } else { 0 };
    Ok(if ROWS[nth].inner6 {
        let mut packet = vec![0x60, 0, 0, 0];
        let extension =
            if fragment == 0 { vec![] } else { [&[protocol, 0][..], &fragment.to_be_bytes(), &[0, 0, 0, 7]].concat() };
        packet.extend(((payload.len() + extension.len()) as u16).to_be_bytes());
        packet.extend([if fragment == 0 { protocol } else { 44 }, 64]);
        packet.extend([from, to, extension, payload].concat());
        packet
    } else {
        let options = if how & 0xc0 == 0xc0 { vec![1; 4 * usize::from(u.arbitrary::<u8>()? % 11)] } else { vec![] };
        let mut packet = vec![0x45 + (options.len() / 4) as u8, 0];
        packet.extend(((20 + options.len() + payload.len()) as u16).to_be_bytes());
        packet.extend([0, 7]);
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend([from, to, options, payload].concat());
        packet
    })
}

fn octets(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    let len = usize::from(u.arbitrary::<u16>()?) % (most + 1);
    let len = len.min(u.len());
    Ok(u.bytes(len)?.to_vec())
}

/// Changes some octets, or the length.
fn damage(u: &mut Unstructured<'_>, octets: &mut Vec<u8>) -> Result<()> {
    for _ in 0..1 + u.arbitrary::<u8>()? % 3 {
        if octets.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(octets.len())?;
        match u.arbitrary::<u8>()? % 8 {
            0 => octets.truncate(at),
            1 => octets.insert(at, u.arbitrary()?),
            2 => drop(octets.remove(at)),
            _ => octets[at] = u.arbitrary()?,
        }
    }
    Ok(())
}
