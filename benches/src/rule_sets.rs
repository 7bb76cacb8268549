//! Sets of rules that resemble those of real packet filters, and packets for them.
//!
//! Three kinds, after the seeds of ClassBench (Taylor and Turner, 2007), whose
//! distributions of prefix lengths, ports and protocols they follow roughly:
//! access lists (specific on both sides), firewalls (a wildcard on one side, and
//! ports), and chains of a host's own filter (everything). The generator is ours,
//! and seeded: the same set on every machine. Rules in ClassBench's format can be
//! read as well.

use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use policy::five_tuple::{Attachment, FiveTuple, Ports};
use policy::selector::{AddressRange, PortSelector, Selector};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const GRE: u8 = 47;
const ANY_PORT: (u16, u16) = (0, u16::MAX);
/// Packets of a trace.
const TRACE: usize = 100_000;

/// Rules, and packets that leave this host.
pub struct RuleSet {
    /// `acl_1000`, or the name of the file.
    pub name: String,
    /// In search order.
    pub selectors: Vec<Selector>,
    /// Outbound packets, most of them covered.
    pub trace: Vec<FiveTuple>,
}

impl RuleSet {
    /// A set of a kind with exactly so many rules, all different.
    #[must_use]
    pub fn generate(kind: &Kind, rules: usize) -> Self {
        let mut random = Random(SeededEntropy::new(rules as u64));
        let selectors = random.selectors(kind, rules);
        let trace = random.trace(&selectors);
        Self { name: format!("{}_{rules}", kind.name), selectors, trace }
    }

    /// Reads rules in ClassBench's format, and the packets of `<file>_trace`
    /// (source, destination, ports and protocol as numbers) if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is not a rule.
    pub fn read(file: &Path) -> std::io::Result<Self> {
        let wrong = |line: &str| std::io::Error::other(format!("{}: not a rule: {line}", file.display()));
        let text = std::fs::read_to_string(file)?;
        let lines = text.lines().filter(|line| line.starts_with('@'));
        let selectors: Vec<_> = lines.map(|line| rule(line).ok_or_else(|| wrong(line))).collect::<Result<_, _>>()?;
        let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let trace = match std::fs::read_to_string(file.with_file_name(format!("{name}_trace"))) {
            Ok(text) => text.lines().map(|line| packet(line).ok_or_else(|| wrong(line))).collect::<Result<_, _>>()?,
            Err(_) => Random(SeededEntropy::new(1)).trace(&selectors),
        };
        Ok(Self { name, selectors, trace })
    }

    /// The sets of a directory, by name; none if there is no such directory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_all(directory: &Path) -> std::io::Result<Vec<Self>> {
        let mut files: Vec<_> = std::fs::read_dir(directory)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.retain(|f| f.is_file() && !f.to_string_lossy().ends_with("_trace"));
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }
}

/// `@source/len <tab> destination/len <tab> low : high <tab> low : high <tab> protocol/mask`; more is ignored.
fn rule(line: &str) -> Option<Selector> {
    let words: Vec<&str> = line.strip_prefix('@')?.split_whitespace().filter(|w| *w != ":").collect();
    let [source, destination, source_low, source_high, low, high, protocol, ..] = words[..] else { return None };
    let range = |text: &str| {
        let (address, len) = text.split_once('/')?;
        AddressRange::prefix(address.parse().ok()?, len.parse().ok()?)
    };
    let (number, mask) = protocol.split_once('/')?;
    let protocol = match mask.trim_start_matches("0x").trim_start_matches('0') {
        "" => None,
        _ => Some(u8::from_str_radix(number.strip_prefix("0x")?, 16).ok()?),
    };
    let ports = (source_low.parse().ok()?, source_high.parse().ok()?);
    Some(selector(range(source)?, range(destination)?, protocol, ports, (low.parse().ok()?, high.parse().ok()?)))
}

fn packet(line: &str) -> Option<FiveTuple> {
    let numbers: Vec<u32> = line.split_whitespace().take(5).map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let [source, destination, source_port, destination_port, protocol] = numbers[..] else { return None };
    let ports = Ports::Pair { source: source_port.try_into().ok()?, destination: destination_port.try_into().ok()? };
    Some(FiveTuple {
        source: Ipv4Addr::from_bits(source).into(),
        destination: Ipv4Addr::from_bits(destination).into(),
        protocol: protocol.try_into().ok()?,
        ports,
        interface: Attachment::TUN,
    })
}

fn selector(
    local: AddressRange,
    remote: AddressRange,
    protocol: Option<u8>,
    source: (u16, u16),
    destination: (u16, u16),
) -> Selector {
    let ports = match (source, destination) {
        (ANY_PORT, ANY_PORT) => PortSelector::Any,
        (local, remote) => PortSelector::Ports { local, remote },
    };
    Selector { local, remote, protocol, ports }
}

/// What the ports of one side are.
#[derive(Clone, Copy)]
enum PortKind {
    Any,
    Exact,
    High,
    Range,
}

/// Shortest and longest prefix; all between are as likely.
type Lengths = (u8, u8);

/// How often what occurs: weights before values.
pub struct Kind {
    /// Name of its sets.
    pub name: &'static str,
    /// Of local and remote prefix.
    lengths: &'static [(u32, Lengths, Lengths)],
    /// Protocol and ports of both sides.
    services: &'static [(u32, Option<u8>, PortKind, PortKind)],
}

/// Access lists, firewalls, and filters of one host.
pub const KINDS: [Kind; 3] = [
    Kind {
        name: "acl",
        lengths: &[
            (33, (32, 32), (32, 32)),
            (16, (31, 31), (32, 32)),
            (13, (32, 32), (31, 31)),
            (6, (31, 31), (30, 31)),
            (10, (21, 24), (31, 32)),
            (9, (32, 32), (21, 24)),
            (6, (28, 30), (28, 32)),
            (5, (16, 24), (16, 24)),
            (2, (0, 0), (16, 32)),
        ],
        services: &[
            (60, Some(TCP), PortKind::Any, PortKind::Exact),
            (17, Some(TCP), PortKind::Any, PortKind::Any),
            (10, Some(TCP), PortKind::Any, PortKind::Range),
            (2, Some(UDP), PortKind::Any, PortKind::Exact),
            (8, None, PortKind::Any, PortKind::Any),
            (3, Some(ICMP), PortKind::Any, PortKind::Any),
        ],
    },
    Kind {
        name: "fw",
        lengths: &[
            (40, (0, 0), (29, 32)),
            (18, (0, 2), (30, 32)),
            (16, (29, 32), (0, 0)),
            (8, (30, 32), (0, 2)),
            (5, (28, 32), (28, 32)),
            (8, (16, 27), (0, 0)),
            (3, (0, 0), (16, 24)),
            (2, (0, 1), (0, 1)),
        ],
        services: &[
            (45, Some(TCP), PortKind::Any, PortKind::Exact),
            (14, Some(UDP), PortKind::Any, PortKind::Exact),
            (11, Some(UDP), PortKind::Exact, PortKind::Any),
            (9, Some(TCP), PortKind::Any, PortKind::Any),
            (6, Some(TCP), PortKind::High, PortKind::Range),
            (4, Some(UDP), PortKind::High, PortKind::High),
            (3, Some(UDP), PortKind::Exact, PortKind::Exact),
            (4, Some(GRE), PortKind::Any, PortKind::Any),
            (3, Some(ICMP), PortKind::Any, PortKind::Any),
            (1, None, PortKind::Any, PortKind::Any),
        ],
    },
    Kind {
        name: "ipc",
        lengths: &[
            (20, (31, 32), (31, 32)),
            (18, (22, 25), (31, 32)),
            (16, (31, 32), (22, 25)),
            (16, (22, 25), (22, 25)),
            (8, (0, 0), (30, 32)),
            (6, (30, 32), (0, 0)),
            (10, (14, 30), (14, 30)),
            (5, (0, 0), (14, 24)),
            (1, (0, 0), (0, 0)),
        ],
        services: &[
            (33, None, PortKind::Any, PortKind::Any),
            (22, Some(UDP), PortKind::Any, PortKind::Exact),
            (14, Some(TCP), PortKind::Any, PortKind::Exact),
            (16, Some(UDP), PortKind::Exact, PortKind::Any),
            (7, Some(UDP), PortKind::Any, PortKind::Range),
            (6, Some(TCP), PortKind::Any, PortKind::Any),
            (2, Some(ICMP), PortKind::Any, PortKind::Any),
        ],
    },
];

struct Random(SeededEntropy);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    fn between<T: Into<u64> + TryFrom<u64> + Copy>(&mut self, (low, high): (T, T)) -> T {
        let (from, to) = (low.into(), high.into());
        T::try_from(from + self.below(to - from + 1)).unwrap_or(low)
    }

    fn weighted<T>(&mut self, of: &'static [T], weight: impl Fn(&T) -> u32) -> &'static T {
        let mut at = self.below(of.iter().map(|t| u64::from(weight(t))).sum());
        for candidate in of {
            let weight = u64::from(weight(candidate));
            if at < weight {
                return candidate;
            }
            at -= weight;
        }
        &of[0]
    }

    fn selectors(&mut self, kind: &Kind, rules: usize) -> Vec<Selector> {
        // Hosts stand in networks of organisations: rules share prefixes and nest.
        let networks = (rules / 50).clamp(8, 2000);
        let networks: Vec<u32> = (0..networks).map(|_| self.0.next_u64() as u32 & 0xffff_ff00).collect();
        let (mut seen, mut selectors) = (HashSet::new(), Vec::new());
        while selectors.len() < rules {
            let (_, local, remote) = *self.weighted(kind.lengths, |l| l.0);
            let (_, protocol, source, destination) = *self.weighted(kind.services, |s| s.0);
            let (local, remote) = (self.prefix(&networks, local), self.prefix(&networks, remote));
            let (source, destination) = (self.ports(source), self.ports(destination));
            let made = selector(local.0, remote.0, protocol, source, destination);
            if seen.insert(made.clone()) {
                // Specific rules stand before general ones, roughly.
                let rank = 64 - u64::from(local.1 + remote.1) + self.below(12);
                selectors.push((rank, made));
            }
        }
        selectors.sort_by_key(|(rank, _)| *rank);
        selectors.into_iter().map(|(_, selector)| selector).collect()
    }

    fn prefix(&mut self, networks: &[u32], lengths: Lengths) -> (AddressRange, u8) {
        let len = self.between(lengths);
        // The square makes some networks more popular.
        let n = self.below(networks.len() as u64) * self.below(networks.len() as u64) / networks.len() as u64;
        let address = networks[n as usize] ^ self.below(1024) as u32;
        let range = AddressRange::prefix(Ipv4Addr::from_bits(address).into(), len).unwrap_or(AddressRange::ANY_V4);
        (range, len)
    }

    fn ports(&mut self, kind: PortKind) -> (u16, u16) {
        const SERVICES: [u16; 16] = [80, 443, 53, 25, 22, 123, 161, 1521, 110, 143, 389, 1433, 3306, 8080, 5060, 2049];
        match kind {
            PortKind::Any => ANY_PORT,
            PortKind::High => (1024, u16::MAX),
            PortKind::Exact => {
                let port = if self.below(4) == 0 {
                    self.between((1024u16, u16::MAX))
                } else {
                    SERVICES[self.below(16) as usize]
                };
                (port, port)
            }
            PortKind::Range => {
                let low = self.between((1u16, 60_000));
                (low, low + self.between((1u16, 5000)))
            }
        }
    }

    /// Packets on the corners of rules and in between; each comes again as often
    /// as a Pareto distribution says (as ClassBench: shape 1, scale 0.1).
    fn trace(&mut self, selectors: &[Selector]) -> Vec<FiveTuple> {
        let mut trace = Vec::with_capacity(TRACE);
        while trace.len() < TRACE && !selectors.is_empty() {
            let rule = &selectors[self.below(selectors.len() as u64) as usize];
            let packet = self.packet(rule);
            let chance = (self.below(1_000_000) + 1) as f64 / 1e6;
            let times = ((0.1 / chance).ceil() as usize).min(1000);
            trace.extend(core::iter::repeat_n(packet, times));
        }
        trace.truncate(TRACE);
        trace
    }

    fn packet(&mut self, rule: &Selector) -> FiveTuple {
        let (source, destination) = match rule.ports {
            PortSelector::Ports { local, remote } => (local, remote),
            _ => (ANY_PORT, ANY_PORT),
        };
        let protocol = rule.protocol.unwrap_or([TCP, UDP, ICMP][self.below(3) as usize]);
        let ports = match protocol {
            ICMP => Ports::Icmp { kind: 8, code: 0 },
            GRE => Ports::None,
            _ => Ports::Pair { source: self.inside(source), destination: self.inside(destination) },
        };
        let (source, destination) = (self.address(&rule.local), self.address(&rule.remote));
        FiveTuple { source, destination, protocol, ports, interface: Attachment::TUN }
    }

    fn inside<T: Into<u64> + TryFrom<u64> + Copy>(&mut self, range: (T, T)) -> T {
        match self.below(3) {
            0 => range.0,
            1 => range.1,
            _ => self.between(range),
        }
    }

    fn address(&mut self, range: &AddressRange) -> std::net::IpAddr {
        match (range.first(), range.last()) {
            (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
                Ipv4Addr::from_bits(self.inside((a.to_bits(), b.to_bits()))).into()
            }
            (first, _) => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_the_same_each_time_and_full() {
        for kind in &KINDS {
            let (one, other) = (RuleSet::generate(kind, 500), RuleSet::generate(kind, 500));
            assert_eq!(one.selectors.len(), 500);
            assert_eq!((one.selectors, one.trace.len()), (other.selectors, TRACE));
            assert_eq!(one.trace, other.trace);
        }
    }

    #[test]
    fn rules_of_classbench_are_read() {
        let line = "@10.1.2.3/31\t0.0.0.0/0\t0 : 65535\t80 : 81\t0x06/0xFF\t0x1000/0x1000\t";
        assert_eq!(
            rule(line).map(|s| s.to_string()).as_deref(),
            Some("10.1.2.2/31 <=> 0.0.0.0/0 protocol 6 remote port 80-81")
        );
        let any = rule("@1.2.3.4/32\t5.6.7.8/32\t0 : 65535\t0 : 65535\t0x00/0x00");
        assert_eq!(any.map(|s| s.to_string()).as_deref(), Some("1.2.3.4 <=> 5.6.7.8"));
        assert_eq!(rule("@1.2.3.4/33\t5.6.7.8/32\t0 : 65535\t0 : 65535\t0x00/0x00"), None);
        assert_eq!(rule("@1.2.3.4/32"), None);
        assert_eq!(
            packet("167837955 1 1024 80 6 0").map(|p| p.to_string()).as_deref(),
            Some("6 10.1.1.3:1024 > 0.0.0.1:80")
        );
    }
}
