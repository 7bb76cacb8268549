//! The guard in a real kernel: what it stops and what it lets through, with `nft` as a judge of the rules.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use policy::config::{DefaultAction, HostAction};
use policy::five_tuple::Direction;
use policy::selector::{PortSelector, Selector};
use std::net::IpAddr;
use std::time::Duration;
use support::{Host, between, config, is_stopped, neighbours, protect, reaches, wait_for_the_link};
use tools::guard::{DropName, Guard, GuardOptions, RuleSet};

fn options() -> GuardOptions {
    GuardOptions {
        interface: "caponier0".to_owned(),
        mark: 0x0ca9,
        ike_port: 500,
        natt_port: 4500,
        gateway: Vec::new(),
    }
}

fn install(host: &Host, rules: &RuleSet) {
    host.run(|| Guard::install(rules)).unwrap();
}

/// Packets counted under a name and direction.
fn count(host: &Host, name: &DropName, direction: Direction) -> u64 {
    let counters = host.run(Guard::counters).unwrap();
    counters.iter().find(|c| c.name == *name && c.direction == direction).map_or(0, |c| c.packets)
}

fn port(selector: Selector, protocol: u8, remote: u16) -> Selector {
    let ports = PortSelector::Ports { local: (0, u16::MAX), remote: (remote, remote) };
    Selector { protocol: Some(protocol), ports, ..selector }
}

fn local_port(selector: Selector, protocol: u8, local: u16) -> Selector {
    let ports = PortSelector::Ports { local: (local, local), remote: (0, u16::MAX) };
    Selector { protocol: Some(protocol), ports, ..selector }
}

const UDP: u8 = 17;

#[test]
fn protected_clear_text_neither_leaves_nor_is_accepted() {
    let Some((a, b)) = neighbours() else { return };
    for (from, to, local, remote) in [
        ("10.78.1.1:1000", "10.78.2.1:2000", "10.78.1.0/24", "10.78.2.0/24"),
        ("[fd78::1:1]:1000", "[fd78::2:1]:2000", "fd78::1:0/112", "fd78::2:0/112"),
    ] {
        let (at_a, at_b) = (a.udp(from), b.udp(to));
        assert!(reaches(&at_a, &at_b, 100), "the cable works");
        let selector = between(local, remote);
        let rules = Guard::plan(&config(vec![(selector.clone(), protect(&selector))], DefaultAction::Pass), &options());
        let name = DropName::Protect("h1".to_owned());

        install(&a, &rules);
        assert!(is_stopped(&at_a, &at_b, 100), "it left in the clear");
        assert_eq!(count(&a, &name, Direction::Outbound), 1);
        assert_eq!(count(&a, &name, Direction::Inbound), 0);
        assert!(is_stopped(&at_b, &at_a, 100), "clear-text was accepted");
        assert_eq!(count(&a, &name, Direction::Inbound), 1);

        a.run(Guard::remove).unwrap();
        assert!(!a.run(Guard::is_installed).unwrap());
        assert!(reaches(&at_a, &at_b, 100) && reaches(&at_b, &at_a, 100), "what was installed is gone");
        assert_eq!(a.run(Guard::counters).unwrap(), []);
    }
}

#[test]
fn our_own_sockets_and_other_addresses_pass() {
    let Some((a, b)) = neighbours() else { return };
    let selector = between("10.78.1.1/32", "10.78.2.1/32");
    let rules = Guard::plan(&config(vec![(selector.clone(), protect(&selector))], DefaultAction::Pass), &options());
    install(&a, &rules);
    let (at_a, at_b) = (a.udp("10.78.1.1:1000"), b.udp("10.78.2.1:2000"));
    assert!(is_stopped(&at_a, &at_b, 10));
    rustix_mark(&at_a, 0x0ca9);
    assert!(reaches(&at_a, &at_b, 10), "the mark of the packet path");
    rustix_mark(&at_a, 0x0ca8);
    assert!(is_stopped(&at_a, &at_b, 10), "another mark");
    let (six_a, six_b) = (a.udp("[fd78::1:1]:1000"), b.udp("[fd78::2:1]:2000"));
    assert!(reaches(&six_a, &six_b, 10) && reaches(&six_b, &six_a, 10), "IPv6 is not protected here");
}

fn rustix_mark(socket: &std::net::UdpSocket, mark: u32) {
    socket2::SockRef::from(socket).set_mark(mark).unwrap();
}

#[test]
fn ports_decide_and_fragments_cannot_hide_them() {
    let Some((a, b)) = neighbours() else { return };
    for (net_a, net_b, host_a, host_b) in [
        ("10.78.1.0/24", "10.78.2.0/24", "10.78.1.1", "10.78.2.1"),
        ("fd78::1:0/112", "fd78::2:0/112", "[fd78::1:1]", "[fd78::2:1]"),
    ] {
        // At b: port 80 here is protected, port 82 is passed by name, everything else by default.
        let all = between(net_b, net_a);
        let guarded = local_port(all.clone(), UDP, 80);
        let hosts = vec![(guarded.clone(), protect(&guarded)), (local_port(all.clone(), UDP, 82), HostAction::Pass)];
        install(&b, &Guard::plan(&config(hosts, DefaultAction::Pass), &options()));
        let sender = a.udp(&format!("{host_a}:1000"));
        let to = |port: u16| b.udp(&format!("{host_b}:{port}"));
        assert!(is_stopped(&sender, &to(80), 100));
        assert!(reaches(&sender, &to(81), 100));
        assert!(reaches(&sender, &to(82), 100));
        // Of a datagram in three fragments the later two could be port 80's.
        let name = DropName::Protect("h1".to_owned());
        let before = count(&b, &name, Direction::Inbound);
        assert!(is_stopped(&sender, &to(80), 4000));
        assert_eq!(count(&b, &name, Direction::Inbound), before + 3);
        assert!(is_stopped(&sender, &to(81), 4000));
        assert_eq!(count(&b, &name, Direction::Inbound), before + 5, "its first fragment showed another port");

        // A policy that passes all of UDP before it speaks for the fragments too.
        let udp = Selector { protocol: Some(UDP), ..all.clone() };
        let hosts = vec![(udp, HostAction::Pass), (all.clone(), protect(&all))];
        install(&b, &Guard::plan(&config(hosts, DefaultAction::Pass), &options()));
        assert!(reaches(&sender, &to(80), 4000));

        // What leaves is judged before it is cut: ports are always seen.
        install(&b, &Guard::plan(&config(Vec::new(), DefaultAction::Pass), &options()));
        let out = port(between(net_a, net_b), UDP, 80);
        install(&a, &Guard::plan(&config(vec![(out, HostAction::Discard)], DefaultAction::Pass), &options()));
        assert!(is_stopped(&sender, &to(80), 4000));
        assert!(reaches(&sender, &to(81), 4000));
        a.run(Guard::remove).unwrap();
    }
}

#[test]
fn a_header_too_short_to_judge_does_not_pass() {
    let Some((a, _b)) = neighbours() else { return };
    let raw = |protocol: i32| {
        let socket = a.run(|| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(protocol.into())));
        let to: std::net::SocketAddr = "10.78.2.1:0".parse().unwrap();
        socket.unwrap().send_to(&[0, 80], &to.into())
    };
    let selector = port(between("10.78.1.0/24", "10.78.2.0/24"), 6, 80);
    install(&a, &Guard::plan(&config(vec![(selector.clone(), protect(&selector))], DefaultAction::Pass), &options()));
    raw(6).ok();
    assert_eq!(count(&a, &DropName::Malformed, Direction::Outbound), 1);
    raw(47).ok();
    assert_eq!(count(&a, &DropName::Malformed, Direction::Outbound), 1, "GRE has no ports to miss");
}

#[test]
fn the_default_policy_discards_but_neighbours_are_found() {
    let Some((a, b)) = neighbours() else { return };
    install(&a, &Guard::plan(&config(Vec::new(), DefaultAction::Discard), &options()));
    for (from, to) in [("10.78.1.1:1000", "10.78.2.1:2000"), ("[fd78::1:1]:1000", "[fd78::2:1]:2000")] {
        let (at_a, at_b) = (a.udp(from), b.udp(to));
        assert!(is_stopped(&at_a, &at_b, 10));
        rustix_mark(&at_a, 0x0ca9);
        assert!(reaches(&at_a, &at_b, 10), "neighbour discovery is not in the way of our own packets");
    }
    assert!(count(&a, &DropName::Default, Direction::Outbound) >= 2);
    let (x, y) = (a.udp("127.0.0.1:1"), a.udp("127.0.0.1:2"));
    assert!(reaches(&x, &y, 10), "loopback is not the wire");
}

#[test]
fn replacing_leaves_no_gap_and_a_refused_table_changes_nothing() {
    let Some((a, _b)) = neighbours() else { return };
    let selector = between("10.78.1.0/24", "10.78.2.0/24");
    let good = Guard::plan(&config(vec![(selector.clone(), protect(&selector))], DefaultAction::Pass), &options());
    a.run(Guard::is_supported).unwrap();
    assert!(!a.run(Guard::is_installed).unwrap(), "asking installs nothing");
    a.run(Guard::remove).unwrap();
    for _ in 0..3 {
        install(&a, &good);
    }
    let mut bad = good.clone();
    for chain in &mut bad.chains {
        for rule in &mut chain.rules {
            if let tools::guard::Verdict::Jump(to) = &mut rule.verdict {
                *to = "nowhere";
            }
        }
    }
    let error = a.run(|| Guard::install(&bad)).unwrap_err().to_string();
    assert!(error.contains("jump nowhere"), "{error}");
    assert!(a.run(Guard::is_installed).unwrap());
    let at_a = a.udp("10.78.1.1:1000");
    at_a.send_to(b"x", "10.78.2.1:9").ok();
    assert_eq!(count(&a, &DropName::Protect("h1".to_owned()), Direction::Outbound), 1, "the good one is in force");
}

#[test]
fn many_policies_are_one_batch() {
    let Some(a) = Host::make() else { return };
    let hosts = (0..2000u32)
        .map(|n| {
            let [_, _, x, y] = n.to_be_bytes();
            let selector = port(between("10.78.1.0/24", &format!("10.{}.{x}.{y}/32", 80)), UDP, 53);
            (selector.clone(), protect(&selector))
        })
        .collect();
    let rules = Guard::plan(&config(hosts, DefaultAction::Pass), &options());
    install(&a, &rules);
    assert_eq!(a.run(Guard::counters).unwrap().len(), 2 * 2000 + 2);
}

#[test]
fn nft_reads_the_rules_as_we_print_them() {
    let Some(a) = Host::make() else { return };
    let v4 = between("10.78.1.0/24", "10.78.2.0/24");
    let v6 = between("fd78::1:0/112", "::/0");
    let web = port(v4.clone(), 6, 80);
    let ping = Selector { protocol: Some(1), ports: PortSelector::Icmp { kind: (8, 8), code: (0, 0) }, ..v4.clone() };
    let config = config(
        vec![
            (web.clone(), protect(&web)),
            (ping, HostAction::Pass),
            (v6.clone(), protect(&v6)),
            (between("0.0.0.0/0", "0.0.0.0/0"), HostAction::Discard),
        ],
        DefaultAction::Discard,
    );
    let rules = Guard::plan(&config, &options());
    install(&a, &rules);
    let Some(installed) = a.output("nft", &["list", "table", "inet", "caponier"], "") else { return };
    a.run(Guard::remove).unwrap();
    a.output("nft", &["-f", "-"], &rules.to_string());
    let printed = a.output("nft", &["list", "table", "inet", "caponier"], "").unwrap();
    assert_eq!(installed, printed, "what we print is not what we install");
    for line in [
        "ip saddr 10.78.1.0/24 ip daddr 10.78.2.0/24 tcp dport 80 counter packets 0 bytes 0 drop comment \"protect h1\"",
        "ip6 saddr fd78::1:0/112 counter packets 0 bytes 0 drop comment \"protect h3\"",
        "meta mark 0x00000ca9 accept",
    ] {
        assert!(installed.contains(line), "{line} is not in\n{installed}");
    }
}

/// A host behind a gateway behind a wire: `lan` 10.1.0.5 - 10.1.0.1 `inner` (gateway) `outer` 198.51.100.1 - 198.51.100.2.
fn behind_a_gateway() -> Option<(Host, Host, Host)> {
    let (lan, gateway, outside) = (Host::make()?, Host::make()?, Host::make()?);
    for (far, near, name) in [(&lan, "inner", "lan"), (&outside, "outer", "wan")] {
        gateway.net(async |net| {
            net.add_veth(near, name).await?;
            net.move_interface(name, &far.0).await
        });
    }
    for (host, name, address) in [
        (&lan, "lan", [10, 1, 0, 5]),
        (&gateway, "inner", [10, 1, 0, 1]),
        (&gateway, "outer", [198, 51, 100, 1]),
        (&outside, "wan", [198, 51, 100, 2]),
    ] {
        host.net(async move |net| {
            net.add_address(name, IpAddr::from(address), 24).await?;
            net.set_up(name).await
        });
    }
    gateway.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    // `ip` and `nft` play the administrator.
    lan.output("ip", &["route", "add", "default", "via", "10.1.0.1"], "")?;
    outside.output("ip", &["route", "add", "10.1.0.0/24", "via", "198.51.100.1"], "")?;
    wait_for_the_link(&lan.udp("10.1.0.5:0"), &gateway.udp("10.1.0.1:0"));
    wait_for_the_link(&gateway.udp("198.51.100.1:0"), &outside.udp("198.51.100.2:0"));
    Some((lan, gateway, outside))
}

#[test]
fn address_translation_does_not_hide_what_is_protected() {
    let Some((lan, gateway, outside)) = behind_a_gateway() else { return };
    let nat = "table ip nat {
        chain out { type nat hook postrouting priority 100; oifname \"outer\" masquerade; }
        chain in { type nat hook prerouting priority -100; iifname \"outer\" udp dport 7000 dnat to 10.1.0.5; }
    }";
    if gateway.output("nft", &["-f", "-"], nat).is_none() {
        return;
    }
    let (at_lan, at_wan) = (lan.udp("10.1.0.5:7000"), outside.udp("198.51.100.2:2000"));
    let to_gateway = |patience| {
        at_lan.set_read_timeout(Some(Duration::from_millis(patience))).unwrap();
        at_wan.send_to(&[1; 10], "198.51.100.1:7000").unwrap();
        at_lan.recv(&mut [0; 100]).is_ok()
    };
    assert!(reaches(&at_lan, &at_wan, 10), "translated on the way out");
    assert!(to_gateway(5000), "and on the way in");

    let inside = between("10.1.0.0/24", "198.51.100.0/24");
    let protected = config(vec![(inside.clone(), protect(&inside))], DefaultAction::Pass);
    install(&gateway, &Guard::plan(&protected, &options()));
    let name = DropName::Protect("h1".to_owned());
    assert!(is_stopped(&at_lan, &at_wan, 10), "masquerading made it look like something else");
    assert_eq!(count(&gateway, &name, Direction::Outbound), 1);
    assert!(!to_gateway(200), "so did the forwarded port");
    assert_eq!(count(&gateway, &name, Direction::Inbound), 1);
}

#[test]
fn what_was_decrypted_goes_on_to_the_hosts_behind_us() {
    let Some((lan, gateway, outside)) = behind_a_gateway() else { return };
    let inside = between("10.1.0.0/24", "198.51.100.0/24");
    let discarding = config(vec![(inside.clone(), protect(&inside))], DefaultAction::Discard);
    install(&gateway, &Guard::plan(&discarding, &options()));
    let (at_lan, at_wan) = (lan.udp("10.1.0.5:1000"), outside.udp("198.51.100.2:2000"));
    assert!(is_stopped(&at_wan, &at_lan, 10), "in the clear");
    // With `outer` in the place of the TUN interface.
    let options = GuardOptions { interface: "outer".to_owned(), ..options() };
    install(&gateway, &Guard::plan(&discarding, &options));
    assert!(reaches(&at_wan, &at_lan, 10));
    assert!(reaches(&at_lan, &at_wan, 10), "what hosts behind us send into the tunnel comes in by another interface");
}
