//! One measurement: iperf3 from one end of a tunnel to the other.

use crate::tunnels::Tunnel;
use core::fmt;
use serde_json::Value;
use std::path::Path;
use tests::process::Background;
use tests::wait;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Test {
    /// One TCP connection.
    Tcp1,
    /// Four of them.
    Tcp4,
    /// UDP with 64 octets in each datagram, as fast as the sender can.
    Udp64,
    /// UDP in packets of 1400 octets, which no tunnel here fragments.
    Udp1400,
}

pub(crate) const TESTS: [Test; 4] = [Test::Tcp1, Test::Tcp4, Test::Udp64, Test::Udp1400];

impl Test {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp1",
            Self::Tcp4 => "tcp4",
            Self::Udp64 => "udp64",
            Self::Udp1400 => "udp1400",
        }
    }

    /// Of what [`Measured::rate`] counts millions a second, or thousands.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Udp64 => "kpps",
            _ => "Mbit/s",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tcp1 => &[],
            Self::Tcp4 => &["-P", "4"],
            Self::Udp64 => &["-u", "-b", "0", "-l", "64"],
            // With the headers of IPv4 and UDP.
            Self::Udp1400 => &["-u", "-b", "0", "-l", "1372"],
        }
    }

    fn is_udp(self) -> bool {
        matches!(self, Self::Udp64 | Self::Udp1400)
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// What arrived, in the test's unit.
    pub(crate) rate: f64,
    /// Processor time of the whole machine, both ends and iperf3 included, in seconds for a gigabit that arrived.
    pub(crate) cpu: f64,
    /// UDP: share of the datagrams that did not arrive. TCP: retransmitted segments.
    pub(crate) lost: f64,
    /// UDP: datagrams that arrived out of order.
    pub(crate) reordered: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}, lost {:.2}, reordered {}", self.rate, self.lost, self.reordered)
    }
}

/// Measures for so many seconds.
///
/// # Panics
/// If iperf3 fails: a tunnel that carries nothing is no result.
pub(crate) fn run(tunnel: &Tunnel, test: Test, seconds: u32) -> Measured {
    let (a, b) = (tunnel.lab.a(), tunnel.lab.b());
    let (from, to) = (tunnel.from.to_string(), tunnel.to.to_string());
    let log = b.directory.join("iperf3.log");
    let _ = std::fs::remove_file(&log);
    let mut server = b.command("iperf3");
    server.args(["-s", "-1", "--forceflush", "-B", &to]);
    let mut server = Background::spawn(&mut server, &log, &log);
    wait::until_true("iperf3 to listen", 10, || server.output().contains("listening"));
    let seconds_text = seconds.to_string();
    let mut arguments = vec!["-c", &to, "-B", &from, "-t", &seconds_text, "-J"];
    arguments.extend(test.arguments());
    let before = busy();
    let client = a.run(u64::from(seconds) + 30, "iperf3", &arguments);
    let busy = busy() - before;
    server.kill();
    let said: Value = serde_json::from_str(&client.stdout).unwrap_or_default();
    read(test, &said, busy).unwrap_or_else(|| panic!("iperf3 {} did not measure: {}", test.name(), client.stdout))
}

fn read(test: Test, said: &Value, busy: f64) -> Option<Measured> {
    let end = &said["end"];
    if test.is_udp() {
        let sum = &end["sum"];
        let (packets, lost) = (sum["packets"].as_f64()?, sum["lost_packets"].as_f64()?);
        let (seconds, octets) = (sum["seconds"].as_f64()?, sum["bytes"].as_f64()?);
        let arrived = packets - lost;
        let bits = octets * 8.0 * arrived / packets;
        let rate = if test == Test::Udp64 { arrived / seconds / 1e3 } else { bits / seconds / 1e6 };
        let out_of_order = |stream: &Value| stream["udp"]["out_of_order"].as_u64();
        let reordered = end["streams"].as_array()?.iter().filter_map(out_of_order).sum();
        return Some(Measured { rate, cpu: busy / bits * 1e9, lost: lost / packets, reordered });
    }
    let received = &end["sum_received"];
    let bits = received["bytes"].as_f64()? * 8.0;
    let rate = received["bits_per_second"].as_f64()? / 1e6;
    let lost = end["sum_sent"]["retransmits"].as_f64()?;
    (bits > 0.0).then_some(Measured { rate, cpu: busy / bits * 1e9, lost, reordered: 0 })
}

/// Seconds in which processors of this machine were busy so far (proc(5), `stat`: all but idle and iowait).
fn busy() -> f64 {
    let stat = std::fs::read_to_string(Path::new("/proc/stat")).unwrap_or_default();
    let numbers = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is counted with user.
    let ticks: Vec<f64> = numbers.filter_map(|n| n.parse().ok()).collect();
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|n| ticks.get(*n)).sum();
    // USER_HZ, which is 100 wherever Linux shows times to programs.
    busy / 100.0
}
