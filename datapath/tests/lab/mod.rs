//! Two network namespaces joined by a veth, or by a router between them, each with a packet path.

// Each test program uses a part of it.
#![allow(dead_code)]

use crossbeam::channel::Receiver;
use crypto::entropy::testing::SeededEntropy;
use crypto::{Entropy, EspSuite, Secret};
use datapath::{Datapath, DatapathConfig, Event, Shared, StartError};
use policy::cache::HashKey;
use policy::config::Config;
use policy::five_tuple::Direction;
use policy::sa::{Lifetime, Mode, SaProtocol, SaSpec, UdpEncapsulation};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

pub(crate) const MARK: u32 = 0x0ca9;

/// What is inside, what is outside, and what between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) inner_ipv4: bool,
    pub(crate) outer_ipv4: bool,
    pub(crate) udp: bool,
}

/// The outer address of side 1 or 2.
pub(crate) fn outer(ipv4: bool, n: u8) -> IpAddr {
    if ipv4 { [192, 0, 2, n].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)].into() }
}

/// The namespaces; removed when dropped.
pub(crate) struct Lab {
    names: [String; 2],
    router: Option<String>,
}

impl Lab {
    /// Makes the namespaces, if it can.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let lab = Self::of(test, false)?;
        lab.build();
        Some(lab)
    }

    /// As [`Self::new`], with a router between the two.
    pub(crate) fn routed(test: &str) -> Option<Self> {
        let lab = Self::of(test, true)?;
        lab.build_routed();
        Some(lab)
    }

    fn of(test: &str, routed: bool) -> Option<Self> {
        let reason = if !rustix::process::geteuid().is_root() {
            "not root"
        } else if !std::path::Path::new("/dev/net/tun").exists() {
            "no /dev/net/tun"
        } else if Command::new("ip").arg("-V").output().is_err() {
            "no `ip` (Debian package iproute2)"
        } else {
            let pid = std::process::id();
            let name = |side| format!("cap-datapath-{pid}-{test}-{side}");
            return Some(Self { names: ["a", "b"].map(name), router: routed.then(|| name("r")) });
        };
        let required = std::env::var("CAPONIER_REQUIRE_ROOT").is_ok_and(|v| v == "1");
        assert!(!required, "cannot run: {reason}");
        // Past the test harness, which keeps what `eprintln!` says to itself.
        let _ = writeln!(std::io::stderr(), "NOT RUN: datapath {test}: {reason}");
        None
    }

    fn build(&self) {
        let [a, b] = &self.names;
        for name in &self.names {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        ip(&format!("-n {a} link add cap-veth type veth peer name cap-veth netns {b}"));
        for (name, n) in self.names.iter().zip(1..) {
            ip(&format!("-n {name} address add {}/24 dev cap-veth", outer(true, n)));
            ip(&format!("-n {name} address add {}/64 dev cap-veth nodad", outer(false, n)));
            ip(&format!("-n {name} link set cap-veth up"));
        }
    }

    /// Each side has a network of its own with the router, and its outer address beside.
    fn build_routed(&self) {
        let router = self.router.as_deref().unwrap();
        for name in self.names.iter().map(String::as_str).chain([router]) {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        inside(router, || {
            for family in ["ipv4", "ipv6"] {
                std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").unwrap();
            }
        });
        for (name, n) in self.names.iter().zip(1..) {
            let port = format!("to-{n}");
            ip(&format!("-n {name} link add cap-veth type veth peer name {port} netns {router}"));
            for ipv4 in [true, false] {
                let (near, far) = (outer(ipv4, n), outer(ipv4, 3 - n));
                let (host, gateway, flags) = if ipv4 {
                    (format!("10.20{n}.0.1"), format!("10.20{n}.0.254"), "")
                } else {
                    (format!("2001:db8:{n}::1"), format!("2001:db8:{n}::fe"), "nodad")
                };
                let (one, net) = if ipv4 { (32, 24) } else { (128, 64) };
                ip(&format!("-n {name} address add {near}/{one} dev cap-veth {flags}"));
                ip(&format!("-n {name} address add {host}/{net} dev cap-veth {flags}"));
                ip(&format!("-n {router} address add {gateway}/{net} dev {port} {flags}"));
                if ipv4 {
                    ip(&format!("-n {name} link set cap-veth up"));
                    ip(&format!("-n {router} link set {port} up"));
                }
                ip(&format!("-n {name} route add {far}/{one} via {gateway}"));
                ip(&format!("-n {router} route add {near}/{one} via {host}"));
            }
        }
    }

    /// The MTU of the link between the router and the second side.
    pub(crate) fn set_far_mtu(&self, mtu: u16) {
        let router = self.router.as_deref().unwrap();
        ip(&format!("-n {router} link set to-2 mtu {mtu}"));
        ip(&format!("-n {} link set cap-veth mtu {mtu}", self.names[1]));
    }

    pub(crate) fn set_outer_mtu(&self, mtu: u16) {
        for name in &self.names {
            ip(&format!("-n {name} link set cap-veth mtu {mtu}"));
        }
    }

    /// `ip` in the first namespace.
    pub(crate) fn ip_first(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.names[0]));
    }

    /// Runs something in the first namespace.
    pub(crate) fn inside_first<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        inside(&self.names[0], run)
    }

    /// Starts a packet path on both sides, with addresses and routes for a layout.
    pub(crate) fn sides(&self, layout: Layout, interface_mtu: u16) -> [Side; 2] {
        [1, 2].map(|n| Side::start(&self.names[usize::from(n) - 1], n, layout, interface_mtu))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.names.iter().chain(&self.router) {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One side.
pub(crate) struct Side {
    namespace: String,
    number: u8,
    pub(crate) datapath: Datapath,
    pub(crate) events: Receiver<Event>,
}

impl Side {
    fn start(namespace: &str, number: u8, layout: Layout, interface_mtu: u16) -> Self {
        let datapath = inside(namespace, || start_patiently(number, layout.outer_ipv4));
        let events = datapath.events();
        let side = Self { namespace: namespace.into(), number, datapath, events };
        let far = 3 - number;
        // Before it comes up: so that the kernel says nothing on it by itself.
        inside(namespace, || {
            std::fs::write("/proc/sys/net/ipv6/conf/cap-tun/addr_gen_mode", "1").unwrap();
        });
        for command in [
            format!("link set cap-tun mtu {interface_mtu} up"),
            format!("address add 10.{number}.0.1/32 dev cap-tun"),
            format!("address add fd0{number}::1/128 dev cap-tun nodad"),
            format!("route add 10.{far}.0.0/16 dev cap-tun src 10.{number}.0.1"),
            format!("route add fd0{far}::/16 dev cap-tun src fd0{number}::1"),
        ] {
            side.ip(&command);
        }
        side
    }

    /// The address that is protected.
    pub(crate) fn inner(&self, layout: Layout) -> IpAddr {
        let n = self.number;
        if layout.inner_ipv4 { [10, n, 0, 1].into() } else { [0xfd00 | u16::from(n), 0, 0, 0, 0, 0, 0, 1].into() }
    }

    /// Runs something in the side's namespace.
    pub(crate) fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace, run)
    }

    pub(crate) fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.namespace));
    }

    /// Tries to start a second packet path beside it.
    pub(crate) fn start_another(&self, interface: &str) -> Result<Datapath, StartError> {
        self.inside(|| start(self.number, true, interface))
    }

    /// Gives both sides the two SAs of a pair.
    pub(crate) fn establish(&self, far: &Side, layout: Layout, pair: u64) {
        for side in [far, self] {
            let (inbound, outbound) = side.specs(layout, pair);
            // Where the kernel is asked for the path, it has to be the side's own.
            side.inside(|| side.datapath.install_pair(&inbound, &outbound, &[7; 16])).unwrap();
        }
        for side in [far, self] {
            side.datapath.activate_outbound(pair).unwrap();
        }
    }

    fn specs(&self, layout: Layout, pair: u64) -> (SaSpec, SaSpec) {
        let far = 3 - self.number;
        let suite: EspSuite = "aes128-sha1".parse().unwrap();
        let spd = self.datapath.shared().spd.load();
        let tunnel = spd.config().tunnel(if layout.inner_ipv4 { "t4" } else { "t6" }).unwrap();
        let spec = |direction, sender: u8| {
            let mut keymat = vec![0; suite.keymat_len()];
            SeededEntropy::new(pair * 4 + u64::from(sender)).fill(&mut keymat);
            SaSpec {
                spi: u32::from(sender) * 0x1000 + pair as u32,
                direction,
                local: outer(layout.outer_ipv4, self.number),
                remote: outer(layout.outer_ipv4, far),
                protocol: SaProtocol::Esp,
                mode: Mode::Tunnel,
                original: None,
                suite,
                keymat: Secret::new(keymat),
                ah: None,
                esn: false,
                anti_replay: true,
                selector: tunnel.selector.clone(),
                encapsulation: layout.udp.then_some(UdpEncapsulation { local_port: 4500, remote_port: 4500 }),
                lifetime: Lifetime { seconds: 28_800, kbytes: 0 },
                own: policy::sa::OwnLimits::NONE,
                tunnel: Arc::clone(&tunnel.name),
                pair,
                session: None,
            }
        };
        (spec(Direction::Inbound, far), spec(Direction::Outbound, self.number))
    }
}

fn start(number: u8, outer_ipv4: bool, interface: &str) -> Result<Datapath, StartError> {
    let config = Config::parse(&configuration(number, outer_ipv4), "test").unwrap().config;
    let shared = Arc::new(Shared::new(&config, HashKey::draw(&mut SeededEntropy::new(1))));
    let config = DatapathConfig {
        interface: interface.into(),
        offload: config.startup.offload,
        workers: if number == 1 { 2 } else { 1 },
        natt_port: 4500,
        mark: MARK,
        origin: Instant::now(),
        gateway: None,
    };
    Datapath::start(&config, shared)
}

/// A program that another test is just starting has a copy of our descriptors
/// for a moment, and the interface of a packet path that was stopped lives on in it.
fn start_patiently(number: u8, outer_ipv4: bool) -> Datapath {
    for _ in 0..100 {
        match start(number, outer_ipv4, "cap-tun") {
            Err(StartError::Tun { source, .. }) if source.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            started => return started.unwrap(),
        }
    }
    panic!("the interface of a stopped packet path is still there after two seconds");
}

/// Everything between the two inner networks is protected, and the rest passes.
fn configuration(near: u8, outer_ipv4: bool) -> String {
    let far = 3 - near;
    let (here, there) = (outer(outer_ipv4, near), outer(outer_ipv4, far));
    // One side with super-packets, the other as where the kernel has none: they must understand each other.
    let offload = if near == 1 { "auto" } else { "off" };
    // The least that a peer may have: what leaves out of order is lost.
    let window = if near == 1 { 1024 } else { 32 };
    let mut text = format!(
        "[startup]\noffload = \"{offload}\"\nreplay_window = {window}\n\
         [[ike]]\nname = \"i\"\nremote = \"{there}\"\nproposals = [\"aes128-sha1-modp2048\"]\n\
         [[auth]]\nname = \"a\"\nremote = \"{there}\"\npreshared = \"a-key-for-tests-only\"\n"
    );
    for (name, ours, theirs) in [
        ("t4", format!("10.{near}.0.0/16"), format!("10.{far}.0.0/16")),
        ("t6", format!("fd0{near}::/16"), format!("fd0{far}::/16")),
    ] {
        text += &format!(
            "[[host]]\nname = \"{name}\"\nsource = \"{ours}\"\ndestination = \"{theirs}\"\ntunnel = \"{name}\"\n\
             [[tunnel]]\nname = \"{name}\"\ntsource = \"{here}\"\ntdestination = \"{there}\"\n\
             source = \"{ours}\"\ndestination = \"{theirs}\"\naction = \"aes128-sha1\"\n"
        );
    }
    text
}

/// Runs something in a namespace, in a thread of its own.
fn inside<T: Send>(namespace: &str, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{namespace}")).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lets the kernel set DF, or not, on what a socket sends.
pub(crate) fn set_df(socket: &UdpSocket, on: bool) {
    use datapath::io::set_path_mtu_discovery;
    set_path_mtu_discovery(socket.as_fd(), on).unwrap();
}
