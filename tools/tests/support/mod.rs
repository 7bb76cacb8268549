//! Two hosts in network namespaces of this process, joined by a cable.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "each test file includes it and uses a part"
)]

use policy::config::{Config, DefaultAction, HostAction, StartMode, TunnelPolicy};
use policy::selector::{AddressRange, Selector};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tools::net::{Namespace, Net, NetError};

/// A host: a namespace with `lo` up.
pub struct Host(pub Namespace);

impl Host {
    /// `None`, said aloud, where namespaces may not be made; a failure where they must.
    pub fn make() -> Option<Self> {
        match Namespace::unnamed() {
            Ok(namespace) => {
                let host = Self(namespace);
                host.net(async |net| net.set_up("lo").await);
                Some(host)
            }
            Err(e) if std::env::var_os("CAPONIER_REQUIRE_ROOT").is_some() => panic!("{e}"),
            Err(e) => {
                eprintln!("SKIPPED, not tested: {e}");
                None
            }
        }
    }

    /// Runs code in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.run(|| Ok(work())).expect("the namespace can be entered")
    }

    /// Does something over rtnetlink in the namespace, which must succeed.
    pub fn net<T: Send, F: Future<Output = Result<T, NetError>>>(&self, work: impl FnOnce(Net) -> F + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(Net::open().unwrap()).await }).unwrap()
        })
    }

    /// A UDP socket bound in the namespace.
    pub fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| UdpSocket::bind(address)).unwrap()
    }

    /// The output of a program in the namespace; `None`, said aloud, if it is not installed.
    pub fn output(&self, program: &str, arguments: &[&str], input: &str) -> Option<String> {
        self.run(|| {
            let child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut child = match child {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    eprintln!("SKIPPED, not judged: {program} is not installed");
                    return None;
                }
                other => other.unwrap(),
            };
            io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        })
    }
}

/// Two hosts on one cable: 10.78.1.1 and fd78::1:1 on `left` of the first,
/// 10.78.2.1 and fd78::2:1 on `right` of the second, each other's neighbours.
pub fn neighbours() -> Option<(Host, Host)> {
    let (a, b) = (Host::make()?, Host::make()?);
    a.net(async |net| {
        net.add_veth("left", "right").await?;
        net.move_interface("right", &b.0).await
    });
    for (host, name, n) in [(&a, "left", 1), (&b, "right", 2)] {
        host.net(async move |net| {
            net.add_address(name, IpAddr::from([10, 78, n, 1]), 16).await?;
            net.add_address(name, IpAddr::from([0xfd78, 0, 0, 0, 0, 0, u16::from(n), 1]), 64).await?;
            net.set_up(name).await
        });
    }
    for (x, y) in [("10.78.1.1:0", "10.78.2.1:0"), ("[fd78::1:1]:0", "[fd78::2:1]:0")] {
        wait_for_the_link(&a.udp(x), &b.udp(y));
    }
    Some((a, b))
}

/// A new cable takes its time to carry something.
pub fn wait_for_the_link(from: &UdpSocket, to: &UdpSocket) {
    assert!((0..50).any(|_| !is_stopped(from, to, 1)), "the cable does not work");
    // What was sent before it carried is not to be mistaken for something else.
    while to.recv(&mut [0; 8]).is_ok() {}
}

/// Whether a datagram from one socket reaches another: waits long, for it should.
pub fn reaches(from: &UdpSocket, to: &UdpSocket, len: usize) -> bool {
    within(from, to, len, Duration::from_secs(5))
}

/// Whether it does not: does not wait long, for it should not.
pub fn is_stopped(from: &UdpSocket, to: &UdpSocket, len: usize) -> bool {
    !within(from, to, len, Duration::from_millis(200))
}

fn within(from: &UdpSocket, to: &UdpSocket, len: usize, time: Duration) -> bool {
    to.set_read_timeout(Some(time)).unwrap();
    from.send_to(&vec![0x5a; len], to.local_addr().unwrap()).ok();
    let mut buffer = [0; 65536];
    to.recv(&mut buffer).is_ok_and(|n| n == len)
}

pub fn range(text: &str) -> AddressRange {
    let (address, len) = text.split_once('/').unwrap();
    AddressRange::prefix(address.parse().unwrap(), len.parse().unwrap()).unwrap()
}

pub fn between(local: &str, remote: &str) -> Selector {
    Selector::between(range(local), range(remote))
}

/// Through a tunnel whose ends are no part of these tests.
pub fn protect(selector: &Selector) -> HostAction {
    HostAction::Tunnel(Arc::new(TunnelPolicy {
        name: "t".into(),
        tsource: "192.0.2.1".parse().unwrap(),
        tdestination: "192.0.2.2".parse().unwrap(),
        mode: policy::sa::Mode::Tunnel,
        selector: Selector::between(selector.local, selector.remote),
        transforms: Vec::new(),
        packets: 0,
        start: StartMode::Traffic,
        manual: None,
        remote_access: policy::config::RemoteAccess::None,
        line: 1,
    }))
}

/// A configuration of these host policies, named `h1`, `h2` and so on.
pub fn config(hosts: Vec<(Selector, HostAction)>, default_action: DefaultAction) -> Config {
    let mut config = Config::without_hosts(default_action);
    for (selector, action) in hosts {
        config.add_host(vec![selector], action);
    }
    config
}
