//! What the checker says of the order of host policies, against packets: of
//! random small configurations, each claim is tried with every packet there is.
#![allow(clippy::unwrap_used, reason = "a generator that is wrong fails the test")]

mod common;

use common::Seeded;
use crypto::Entropy;
use policy::config::Config;
use policy::counters::DropReason;
use policy::five_tuple::{Direction, FiveTuple, Ports};
use policy::spd::{Spd, Verdict};

/// Few, so that policies meet often.
const ADDRESSES: u64 = 4;

fn pick<'t>(random: &mut Seeded, of: &[&'t str]) -> &'t str {
    of[(random.next_u64() % of.len() as u64) as usize]
}

fn side(random: &mut Seeded, v6: bool, ports: bool) -> String {
    let (a, b) = (random.next_u64() % ADDRESSES, random.next_u64() % ADDRESSES);
    let base = if v6 { "fd00::" } else { "10.0.0." };
    if ports {
        // Of four addresses, two or one.
        let len = if v6 { 126 } else { 30 } + b.min(2);
        format!("{base}{a}/{len}") + pick(random, &["", "/80", "/80-81", "/1-80", "/81-65535"])
    } else {
        format!("{base}{}-{base}{}", a.min(b), a.max(b))
    }
}

fn host(random: &mut Seeded, n: u64) -> String {
    let v6 = random.next_u64().is_multiple_of(3);
    let mut text = format!("[[host]]\nname = \"h{n}\"\n");
    let protocol = pick(random, &["", "", "TCP", "TCP", "UDP", if v6 { "ICMPV6" } else { "ICMP" }]);
    let ports = protocol == "TCP";
    text += &format!("source = \"{}\"\ndestination = \"{}\"\n", side(random, v6, false), side(random, v6, ports));
    if !protocol.is_empty() {
        text += &format!("protocol = \"{protocol}\"\n");
    }
    if protocol == "ICMPV6" {
        text += pick(random, &["", "icmp_type = \"128-135\"\n", "icmp_type = 135\n", "icmp_type = 128\n"]);
    }
    text + pick(random, &["action = \"PASS\"\n", "action = \"PASS\"\n", "action = \"DISCARD\"\n"])
}

fn packets() -> Vec<(FiveTuple, Direction)> {
    let pair = |destination| Ports::Pair { source: 5, destination };
    let icmp = |kind| Ports::Icmp { kind, code: 0 };
    let kinds = |v6| -> Vec<(u8, Ports)> {
        let mut kinds = vec![(6, Ports::Opaque), (6, pair(79)), (6, pair(80)), (6, pair(81)), (6, pair(82))];
        kinds.extend([(17, Ports::Opaque), (17, pair(80)), (47, Ports::None)]);
        kinds.extend(if v6 { [(58, icmp(128)), (58, icmp(135)), (58, icmp(1))] } else { [(1, icmp(8)); 3] });
        kinds
    };
    let mut packets = Vec::new();
    for base in ["10.0.0.", "fd00::"] {
        for (protocol, ports) in kinds(base == "fd00::") {
            for n in 0..ADDRESSES * ADDRESSES {
                let address = |n: u64| format!("{base}{n}");
                let (s, d) = (address(n / ADDRESSES), address(n % ADDRESSES));
                packets.push((common::tuple(&s, &d, protocol, ports), Direction::Outbound));
            }
        }
    }
    packets
}

#[test]
fn what_is_said_of_the_order_is_true() {
    let mut random = Seeded(11);
    let packets = packets();
    let (mut unreached, mut together, mut same) = (0, 0, 0);
    for _ in 0..1500 {
        let hosts: Vec<String> = (0..2 + random.next_u64() % 6).map(|n| host(&mut random, n)).collect();
        let text = hosts.concat() + pick(&mut random, &["", "[[bypass]]\naddress = \"10.0.0.1\"\n"]);
        let checked = Config::parse(&text, "c").unwrap();
        let verdicts = |config: &Config| -> Vec<Verdict> {
            let spd = Spd::compile(config, 1);
            packets.iter().map(|(tuple, direction)| spd.decide(tuple, *direction)).collect()
        };
        let all = verdicts(&checked.config);
        let odd_prefix = |w: &&policy::config::Diagnostic| !w.message.contains("beyond its prefix");
        for warning in checked.warnings.iter().filter(odd_prefix) {
            let mut without = checked.config.clone();
            without.hosts.retain(|h| warning.object != format!("host `{}`", h.name));
            assert_eq!(without.hosts.len() + 1, checked.config.hosts.len(), "{warning}");
            let rest = verdicts(&without);
            if warning.message.starts_with("is never reached") {
                for (((tuple, _), before), after) in packets.iter().zip(&all).zip(&rest) {
                    // Nothing it covers comes to it, but a fragment may still be dropped for its sake.
                    let for_its_sake = before.reason == Some(DropReason::FragmentPortsHidden);
                    assert!(before == after || for_its_sake, "{warning}\n{tuple}\n{text}");
                }
                unreached += 1;
                together += u32::from(warning.message.contains(") and host"));
            } else {
                assert!(warning.message.starts_with("makes no difference"), "{warning}");
                let decisions = |verdicts: &[Verdict]| verdicts.iter().map(|v| v.decision).collect::<Vec<_>>();
                assert_eq!(decisions(&rest), decisions(&all), "{warning}\n{text}");
                same += 1;
            }
        }
    }
    assert!(unreached > 100 && together > 5 && same > 100, "{unreached} {together} {same}");
}
