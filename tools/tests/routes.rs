//! Routes and rules in a real kernel.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use policy::config::{DefaultAction, HostAction};
use policy::selector::{PortSelector, Selector};
use std::net::IpAddr;
use support::{Host, between, config, neighbours, protect};
use tools::net::{MARK, RoutePlan, Routing, Target};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A host whose `left` interface stands for the TUN interface, `lo` has the inside addresses.
fn host() -> Option<(Host, Host)> {
    let (a, b) = neighbours()?;
    a.net(async |net| {
        net.add_address("lo", ip("10.1.0.9"), 32).await?;
        net.add_address("lo", ip("fd01::9"), 128).await
    });
    Some((a, b))
}

fn two_families() -> policy::config::Config {
    let (v4, v6) = (between("10.1.0.0/24", "10.2.0.0/24"), between("fd01::/64", "fd02::/64"));
    config(vec![(v4.clone(), protect(&v4)), (v6.clone(), protect(&v6))], DefaultAction::Pass)
}

#[test]
fn protected_destinations_go_to_the_tun_interface_and_are_refused_without_it() {
    let Some((a, _b)) = host() else { return };
    let routing = Routing::default();
    a.net(async |net| {
        let plan = RoutePlan::new(&two_families(), &net.interfaces().await?);
        let tun = net.interface_index("left").await?;
        // Without the interface: refused.
        net.set_routes(&routing, &plan, None).await?;
        net.add_rules(&routing).await?;
        for destination in [ip("10.2.0.1"), ip("fd02::1")] {
            assert!(net.way_to(destination, 0).await.is_err(), "{destination} must not take another way");
        }
        // With it: there, from an address that the policy covers.
        net.set_routes(&routing, &plan, Some(tun)).await?;
        for (destination, source) in [(ip("10.2.0.1"), ip("10.1.0.9")), (ip("fd02::1"), ip("fd01::9"))] {
            let way = net.way_to(destination, 0).await?;
            assert_eq!((way.interface, way.source), (tun, Some(source)));
            assert!(net.way_to(destination, MARK).await.is_err(), "our own sockets do not see the table");
        }
        // Everything again, as a new daemon does: the same, and no second rule.
        net.set_routes(&routing, &plan, Some(tun)).await?;
        net.add_rules(&routing).await
    });
    if let Some(rules) = a.output("ip", &["rule", "list"], "") {
        let ours: Vec<_> = rules.lines().filter(|l| l.contains("220")).collect();
        assert_eq!(ours, ["220:\tnot from all fwmark 0xca9 lookup 220 proto 202"], "{rules}");
        let routes = a.output("ip", &["-4", "route", "list", "table", "220"], "").unwrap();
        assert_eq!(routes.lines().count(), 2, "{routes}");
    }
    // The interface goes, as with a killed daemon.
    a.net(async |net| {
        net.delete_interface("left").await?;
        for destination in [ip("10.2.0.1"), ip("fd02::1")] {
            assert!(net.way_to(destination, 0).await.is_err(), "{destination} must not take another way");
        }
        net.clear_routes(&routing).await?;
        net.delete_rules(&routing).await?;
        net.delete_rules(&routing).await
    });
    if let Some(rules) = a.output("ip", &["rule", "list"], "") {
        assert!(!rules.contains("220"), "{rules}");
        // An empty table may not even exist.
        let routes = a.output("ip", &["-4", "route", "list", "table", "all", "proto", "202"], "").unwrap();
        let six = a.output("ip", &["-6", "route", "list", "table", "all", "proto", "202"], "").unwrap();
        assert_eq!(routes + &six, "");
    }
}

#[test]
fn a_reload_changes_only_what_differs() {
    let Some((a, _b)) = host() else { return };
    let routing = Routing { table: 1000, priority: 500, mark: 7 };
    a.net(async |net| {
        let interfaces = net.interfaces().await?;
        let tun = net.interface_index("left").await?;
        net.add_rules(&routing).await?;
        net.set_routes(&routing, &RoutePlan::new(&two_families(), &interfaces), Some(tun)).await?;
        let other = between("10.1.0.0/24", "10.3.0.0/24");
        let next = config(vec![(other.clone(), protect(&other))], DefaultAction::Pass);
        net.set_routes(&routing, &RoutePlan::new(&next, &interfaces), Some(tun)).await?;
        assert_eq!(net.way_to(ip("10.3.0.1"), 0).await?.interface, tun);
        assert!(net.way_to(ip("10.2.0.1"), 0).await.is_err(), "no longer protected, and nothing else leads there");
        // Another priority replaces the rule, it does not add one.
        net.add_rules(&Routing { priority: 501, ..routing }).await
    });
    if let Some(rules) = a.output("ip", &["rule", "list"], "") {
        assert_eq!(rules.lines().filter(|l| l.contains("lookup 1000")).count(), 1, "{rules}");
        assert!(rules.contains("501:"), "{rules}");
    }
}

#[test]
fn a_tunnel_for_everything_leaves_the_link_alone() {
    let Some((a, _b)) = host() else { return };
    let (v4, v6) = (between("0.0.0.0/0", "0.0.0.0/0"), between("::/0", "::/0"));
    let all = config(vec![(v4.clone(), protect(&v4)), (v6.clone(), protect(&v6))], DefaultAction::Pass);
    let routing = Routing::default();
    a.net(async |net| {
        let plan = RoutePlan::new(&all, &net.interfaces().await?);
        net.set_routes(&routing, &plan, None).await?;
        net.add_rules(&routing).await?;
        assert!(net.way_to(ip("198.51.100.1"), 0).await.is_err(), "refused");
        assert!(net.way_to(ip("10.78.2.1"), 0).await.is_err(), "refused, though it is a neighbour");
        assert!(net.way_to(ip("10.78.2.1"), MARK).await.is_ok());
        assert!(net.way_to(ip("ff02::1"), 0).await.is_ok(), "multicast");
        assert!(net.way_to(ip("10.1.0.9"), 0).await.is_ok(), "ourselves");
        net.set_routes(&routing, &plan, None).await?;
        net.clear_routes(&routing).await?;
        assert!(net.way_to(ip("10.78.2.1"), 0).await.is_ok(), "all is as it was");
        Ok(())
    });
}

#[test]
fn plans_follow_the_policies() {
    let web = Selector {
        protocol: Some(6),
        ports: PortSelector::Ports { local: (0, u16::MAX), remote: (80, 80) },
        ..between("10.1.0.0/24", "10.9.0.0/24")
    };
    let passed = between("10.1.0.0/24", "10.8.0.0/24");
    let config = config(vec![(web.clone(), protect(&web)), (passed, HostAction::Pass)], DefaultAction::Pass);
    let plan = RoutePlan::new(&config, &[]);
    assert_eq!(plan.routes.len(), 1, "where ports decide there is no refusing by route, what passes needs none");
    assert_eq!(plan.routes[0].target, Target::Tun { source: None });
}

#[test]
fn interfaces_are_listed_with_their_addresses() {
    let Some((a, _b)) = host() else { return };
    let interfaces = a.net(async |net| {
        net.set_mtu("left", 1400).await?;
        net.interfaces().await
    });
    let left = interfaces.iter().find(|i| i.name == "left").unwrap();
    assert!(left.up && !left.loopback && left.mtu == 1400);
    let four = left.addresses.iter().find(|x| x.address == ip("10.78.1.1")).unwrap();
    assert!(four.prefix == 16 && four.usable);
    assert!(left.addresses.iter().any(|x| x.address == ip("fd78::1:1") && x.usable));
    assert!(interfaces.iter().any(|i| i.name == "lo" && i.loopback));
    let error = a.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tools::net::Net::open().unwrap().set_up("nothing").await.unwrap_err() })
    });
    assert!(error.to_string().starts_with("cannot find the interface nothing: "), "{error}");
}
