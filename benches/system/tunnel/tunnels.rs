//! The tunnels: two hosts each, and what makes the tunnel between them.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tests::caponier::{self, Caponier, Configuration};
use tests::cases::{Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::{self, Need};
use tests::process::Background;
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::{traffic, wait};

/// A kind of tunnel.
pub(crate) struct Kind {
    /// What it is called in reports.
    pub(crate) name: &'static str,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    /// None: the link itself.
    Plain,
    /// Two ipsecd: ESP transform, and whether ESP goes in UDP.
    Caponier { esp: &'static str, in_udp: bool },
    /// Two charon with ESP in user space.
    Libipsec { esp: &'static str },
    /// A program that speaks WireGuard's user-space interface: its name, that of a variable with its path, and arguments.
    WireGuard { program: &'static str, variable: &'static str, arguments: &'static [&'static str] },
}

const WIREGUARD_GO: &str = "CAPONIER_WIREGUARD_GO";
const BORINGTUN: &str = "CAPONIER_BORINGTUN";
const ONE_THREAD: &[&str] = &["-f", "--disable-drop-privileges", "--threads", "1"];

/// All, in the order of the report.
pub(crate) const KINDS: [Kind; 9] = [
    Kind { name: "plain", how: How::Plain },
    Kind { name: "caponier-aes128gcm16", how: How::Caponier { esp: "aes128gcm16", in_udp: true } },
    Kind { name: "caponier-aes128-sha1", how: How::Caponier { esp: "aes128-sha1", in_udp: true } },
    Kind { name: "caponier-raw-aes128gcm16", how: How::Caponier { esp: "aes128gcm16", in_udp: false } },
    Kind { name: "libipsec-aes128gcm16", how: How::Libipsec { esp: "aes128gcm16" } },
    Kind { name: "libipsec-aes128-sha1", how: How::Libipsec { esp: "aes128-sha1" } },
    Kind {
        name: "wireguard-go",
        how: How::WireGuard { program: "wireguard-go", variable: WIREGUARD_GO, arguments: &["-f"] },
    },
    Kind {
        name: "boringtun",
        how: How::WireGuard {
            program: "boringtun-cli",
            variable: BORINGTUN,
            arguments: &["-f", "--disable-drop-privileges"],
        },
    },
    Kind {
        name: "boringtun-1-thread",
        how: How::WireGuard { program: "boringtun-cli", variable: BORINGTUN, arguments: ONE_THREAD },
    },
];

/// A tunnel that stands.
pub(crate) struct Tunnel {
    /// Where traffic comes from.
    pub(crate) from: IpAddr,
    /// Where it goes to.
    pub(crate) to: IpAddr,
    // Before the hosts that they run in.
    _ends: Ends,
    pub(crate) lab: Lab,
}

/// What keeps a tunnel standing: dropped, it goes.
enum Ends {
    None,
    Caponier { _ends: [Caponier; 2] },
    Libipsec { _ends: [StrongSwan; 2] },
    WireGuard { _ends: [Background; 2] },
}

impl Tunnel {
    /// Makes one, and sees that it carries a packet.
    ///
    /// # Errors
    /// What is missing for it, in words.
    ///
    /// # Panics
    /// If all is there and it does not come up.
    pub(crate) fn open(kind: &Kind, segmented: bool) -> Result<Self, String> {
        if matches!(kind.how, How::Libipsec { .. }) && !need::available(kind.name, &[Need::StrongSwan]) {
            return Err("strongSwan is not installed".into());
        }
        let program = match kind.how {
            How::WireGuard { program, variable, .. } => Some(find(program, variable)?),
            _ => None,
        };
        let lab = Lab::open(&format!("tunnel-{}", kind.name), 2, &[]).ok_or("no lab can be had")?;
        let (a, b) = (lab.a(), lab.b());
        if segmented {
            for host in [a, b] {
                let features = ["-K", "outer", "tx-udp-segmentation", "off", "tso", "off", "gso", "off"];
                host.run(10, "ethtool", &features).ok("ethtool -K outer");
            }
        }
        let ends = match kind.how {
            How::Plain => Ends::None,
            How::Caponier { esp, in_udp } => Ends::Caponier { _ends: caponiers(a, b, esp, in_udp) },
            How::Libipsec { esp } => Ends::Libipsec { _ends: charons(a, b, esp) },
            How::WireGuard { arguments, .. } => {
                Ends::WireGuard { _ends: wireguards(a, b, &program.unwrap_or_default(), arguments) }
            }
        };
        let (from, to) = match kind.how {
            How::Plain => (a.outer(), b.outer()),
            _ => (a.inner(), b.inner()),
        };
        wait::until_true(&format!("{} to carry a packet", kind.name), 30, || traffic::ping(a, from, to, 1, 2) == 1);
        Ok(Self { from, to, _ends: ends, lab })
    }
}

fn caponiers(a: &Host, b: &Host, esp: &'static str, in_udp: bool) -> [Caponier; 2] {
    [(b, a), (a, b)].map(|(me, peer)| {
        let mut tunnel = caponier::Tunnel::new(me, peer, Case { esp, ..PLAIN });
        tunnel.more_ike = format!("nat_traversal = \"{}\"", if in_udp { "force" } else { "auto" });
        Caponier::start(me, &Configuration::new(tunnel))
    })
}

fn charons(a: &Host, b: &Host, esp: &'static str) -> [StrongSwan; 2] {
    let start =
        |me, peer| StrongSwan::start_silent(me, &Connection::new(me, peer, Case { esp, ..PLAIN }), &Esp::UserSpace);
    let ends = [start(b, a), start(a, b)];
    ends[1].initiate();
    ends
}

/// A program, in `PATH` or where a variable says.
fn find(program: &str, variable: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(format!("{variable}={} is no file", path.display())) };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|directory| directory.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{program} is not installed; {variable} may say where it is"))
}

/// Key pairs of two ends (RFC 7748 6.1): private, public.
const KEYS: [[&str; 2]; 2] = [
    [
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ],
    [
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ],
];

/// What WireGuard listens on by custom.
const PORT: u16 = 51820;

fn wireguards(a: &Host, b: &Host, program: &std::path::Path, arguments: &[&str]) -> [Background; 2] {
    // Its control sockets are named after the interfaces, and not in the namespace.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let hosts = [(a, b), (b, a)];
    let names = hosts.map(|(me, _)| format!("wg{}{number}-{}", me.name, std::process::id() % 100_000));
    let ends = [0, 1].map(|n| {
        let me = hosts[n].0;
        let log = me.directory.join("wireguard.log");
        let mut command = me.command(program);
        command.args(arguments).arg(&names[n]);
        // Else it asks for the kernel's.
        command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        Background::spawn(&mut command, &log, &log)
    });
    for n in [0, 1] {
        let (me, peer) = hosts[n];
        let socket = PathBuf::from(format!("/var/run/wireguard/{}.sock", names[n]));
        wait::until_true(&format!("{} to appear", socket.display()), 15, || socket.exists());
        // WireGuard's "Cross-platform Userspace Implementation" protocol.
        let settings = format!(
            "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nendpoint={}:{PORT}\nallowed_ip={}\n\n",
            KEYS[n][0],
            KEYS[1 - n][1],
            peer.outer(),
            peer.network()
        );
        let mut stream = UnixStream::connect(&socket).expect("WireGuard's control socket");
        stream.write_all(settings.as_bytes()).expect("WireGuard takes its settings");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("WireGuard answers");
        assert_eq!(answer.trim(), "errno=0", "{settings}");
        me.run(10, "ip", &["link", "set", &names[n], "up"]).ok("the interface is up");
        let (network, own) = (peer.network(), me.inner().to_string());
        me.run(10, "ip", &["route", "replace", &network, "dev", &names[n], "src", &own]).ok("a route");
    }
    ends
}
