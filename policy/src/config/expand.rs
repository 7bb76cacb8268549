//! Tunnels of remote access: what the file says once, for clients and addresses that it does not
//! know, becomes tunnels and host policies as they come and go.
//!
//! The policies of the file stay behind those that are made of them, so what is protected is
//! protected whether or not there is a client.

use super::model::{Config, HostAction, HostPolicy, RemoteAccess, StartMode, TunnelPolicy};
use crate::selector::{AddressRange, Selector};
use std::net::IpAddr;
use std::sync::Arc;

/// A client with an address: one of ours, or we ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// A peer that has an address of a pool.
    Leased {
        /// Name of the pool.
        pool: String,
        /// Who has proved to be its owner: a user, or an identity of phase 1.
        owner: Arc<str>,
        /// Our end point.
        local: IpAddr,
        /// Where the client is.
        peer: IpAddr,
        /// Its address inside.
        address: IpAddr,
    },
    /// An address that a peer has given to us.
    Virtual {
        /// Our end point.
        local: IpAddr,
        /// Where the peer is.
        peer: IpAddr,
        /// Our address inside.
        address: IpAddr,
        /// What is to be reached through the tunnel; empty: what the tunnel's `destination` says.
        networks: Vec<AddressRange>,
    },
}

impl Config {
    /// This configuration with the tunnels and host policies of some clients.
    #[must_use]
    pub fn expanded(&self, clients: &[Client]) -> Self {
        let mut tunnels = Vec::with_capacity(self.tunnels.len());
        let mut made: Vec<(&Arc<TunnelPolicy>, Arc<TunnelPolicy>)> = Vec::new();
        for template in &self.tunnels {
            let of_client = |client| made_of(template, client);
            made.extend(clients.iter().flat_map(of_client).map(|tunnel| (template, Arc::new(tunnel))));
            tunnels.push(Arc::clone(template));
        }
        tunnels.extend(made.iter().map(|(_, tunnel)| Arc::clone(tunnel)));
        let mut hosts: Vec<HostPolicy> = Vec::with_capacity(self.hosts.len());
        for host in &self.hosts {
            if let HostAction::Tunnel(named) = &host.action {
                let of_tunnel = made.iter().filter(|(template, _)| template.name == named.name);
                hosts.extend(of_tunnel.filter_map(|(template, tunnel)| narrowed(host, template, tunnel)));
            }
            hosts.push(HostPolicy::clone(host));
        }
        // The first is that of the default policy.
        let hosts = (2..).zip(hosts).map(|(cookie, host)| Arc::new(HostPolicy { cookie, ..host })).collect();
        Self { tunnels, hosts, ..self.clone() }
    }
}

/// The tunnels of one client.
fn made_of(template: &TunnelPolicy, client: &Client) -> Vec<TunnelPolicy> {
    match (&template.remote_access, client) {
        (RemoteAccess::Pool(named), Client::Leased { pool, owner, local, peer, address })
            if named == pool && *local == template.tsource =>
        {
            let selector = Selector { remote: AddressRange::single(*address), ..template.selector.clone() };
            vec![TunnelPolicy {
                name: format!("{}@{address}", template.name).into(),
                tdestination: *peer,
                selector,
                start: StartMode::Respond,
                remote_access: RemoteAccess::Leased(Arc::clone(owner)),
                ..template.clone()
            }]
        }
        (RemoteAccess::Virtual { .. }, Client::Virtual { local, peer, address, networks })
            if (*local, *peer) == (template.tsource, template.tdestination) =>
        {
            let whole = [template.selector.remote];
            let networks = if networks.is_empty() { &whole[..] } else { networks };
            let within = networks.iter().filter_map(|network| network.intersection(&template.selector.remote));
            (1..)
                .zip(within)
                .map(|(n, remote)| {
                    let nth = if n == 1 { String::new() } else { format!("-{n}") };
                    TunnelPolicy {
                        name: format!("{}@{address}{nth}", template.name).into(),
                        selector: Selector {
                            local: AddressRange::single(*address),
                            remote,
                            ..template.selector.clone()
                        },
                        remote_access: RemoteAccess::None,
                        ..template.clone()
                    }
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// A host policy for what one of these tunnels covers; `None` if it covers nothing of it.
fn narrowed(host: &HostPolicy, template: &TunnelPolicy, tunnel: &Arc<TunnelPolicy>) -> Option<HostPolicy> {
    let suffix = tunnel.name.strip_prefix(&*template.name)?;
    let selectors: Vec<_> = host
        .selectors
        .iter()
        .filter_map(|s| {
            let local = s.local.intersection(&tunnel.selector.local)?;
            let remote = s.remote.intersection(&tunnel.selector.remote)?;
            Some(Selector { local, remote, ..s.clone() })
        })
        .collect();
    (!selectors.is_empty()).then(|| HostPolicy {
        name: format!("{}{suffix}", host.name),
        selectors,
        action: HostAction::Tunnel(Arc::clone(tunnel)),
        ..host.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::five_tuple::{Attachment, Direction, FiveTuple, Ports};

    const FILE: &str = "
        [[pool]]
        name = \"p\"
        addresses = \"10.3.0.0/24\"
        [[tunnel]]
        name = \"clients\"
        tsource = \"192.0.2.1\"
        pool = \"p\"
        source = \"10.1.0.0/16\"
        [[tunnel]]
        name = \"office\"
        tsource = \"192.0.2.1\"
        tdestination = \"198.51.100.1\"
        virtual = \"pull\"
        destination = \"10.2.0.0/16\"
        [[host]]
        name = \"first\"
        source = \"10.1.9.9\"
        destination = \"10.3.0.0/24\"
        action = \"DISCARD\"
        [[host]]
        name = \"web\"
        source = \"10.1.1.0/24/443\"
        destination = \"10.3.0.0/24\"
        protocol = \"TCP\"
        tunnel = \"clients\"
        [[host]]
        name = \"office\"
        destination = \"10.2.0.0/17\"
        tunnel = \"office\"
        [[ike]]
        name = \"i\"
        remote = \"0.0.0.0/0\"
        [[auth]]
        name = \"a\"
        remote = \"0.0.0.0/0\"
        preshared = \"0123456789abcdef\"
    ";

    fn base() -> Config {
        Config::parse(FILE, "file").map_err(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap().config
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn leased(pool: &str, address: &str) -> Client {
        let (owner, local, peer) = ("alice".into(), ip("192.0.2.1"), ip("203.0.113.7"));
        Client::Leased { pool: pool.into(), owner, local, peer, address: ip(address) }
    }

    fn names(config: &Config) -> (Vec<String>, Vec<&str>) {
        let hosts = config.hosts.iter().map(|h| h.name.clone()).collect();
        (hosts, config.tunnels.iter().map(|t| &*t.name).collect())
    }

    #[test]
    fn without_clients_it_is_the_same() {
        let base = base();
        let expanded = base.expanded(&[]);
        assert_eq!(names(&expanded), names(&base));
        let cookies = |c: &Config| c.hosts.iter().map(|h| h.cookie).collect::<Vec<_>>();
        assert_eq!(cookies(&expanded), cookies(&base));
    }

    #[test]
    fn a_client_has_a_tunnel_and_what_the_policies_leave_it() {
        let config = base().expanded(&[leased("p", "10.3.0.5"), leased("q", "10.3.0.6")]);
        let (hosts, tunnels) = names(&config);
        assert_eq!(tunnels, ["clients", "office", "clients@10.3.0.5"], "another pool is none of ours");
        assert_eq!(hosts, ["first", "web@10.3.0.5", "web", "office"], "before the one that it is made of");
        let cookies: Vec<_> = config.hosts.iter().map(|h| h.cookie).collect();
        assert_eq!(cookies, [2, 3, 4, 5]);
        let tunnel = config.tunnel("clients@10.3.0.5").unwrap();
        assert_eq!((tunnel.tdestination, tunnel.start), (ip("203.0.113.7"), StartMode::Respond));
        assert_eq!(tunnel.remote_access, RemoteAccess::Leased("alice".into()));
        assert_eq!(tunnel.selector.to_string(), "10.1.0.0/16 <=> 10.3.0.5");
        let web = &config.hosts[1].selectors[0];
        assert_eq!(
            (web.local.to_string(), web.remote.to_string(), web.protocol),
            ("10.1.1.0/24".into(), "10.3.0.5".into(), Some(6))
        );
        assert_eq!(web.ports, base().hosts[1].selectors[0].ports);
    }

    /// Whatever there are of clients: what the file protects or discards is protected or discarded.
    #[test]
    fn nothing_is_protected_less() {
        let (base, clients) = (base(), [leased("p", "10.3.0.5"), leased("p", "10.3.0.9")]);
        let expanded = base.expanded(&clients);
        let kind = |config: &Config, tuple: &FiveTuple| {
            let first = config.hosts.iter().find(|h| h.matches(tuple, Direction::Outbound));
            first.map(|h| core::mem::discriminant(&h.action))
        };
        for local in ["10.1.9.9", "10.1.1.7", "10.1.2.7", "10.4.0.1"] {
            for remote in ["10.3.0.5", "10.3.0.9", "10.3.0.77", "10.2.0.1", "10.2.200.1", "10.9.9.9"] {
                for (protocol, port) in [(6, 443), (6, 80), (17, 443)] {
                    let (source, destination) = (ip(local), ip(remote));
                    let ports = Ports::Pair { source: port, destination: 40_000 };
                    let tuple = FiveTuple { source, destination, protocol, ports, interface: Attachment::TUN };
                    assert_eq!(kind(&base, &tuple), kind(&expanded, &tuple), "{tuple:?}");
                }
            }
        }
    }

    #[test]
    fn split_networks_within_what_the_tunnel_may_carry() {
        let range = |text: &str, prefix| AddressRange::prefix(ip(text), prefix).unwrap();
        let given = |networks| Client::Virtual {
            local: ip("192.0.2.1"),
            peer: ip("198.51.100.1"),
            address: ip("10.7.0.1"),
            networks,
        };
        let (hosts, tunnels) = {
            let config =
                base().expanded(&[given(vec![range("10.2.1.0", 24), range("10.9.0.0", 16), range("10.2.200.0", 24)])]);
            let selectors: Vec<_> = config.tunnels[2..].iter().map(|t| t.selector.to_string()).collect();
            assert_eq!(selectors, ["10.7.0.1 <=> 10.2.1.0/24", "10.7.0.1 <=> 10.2.200.0/24"]);
            (names(&config).0, config.tunnels.len())
        };
        assert_eq!(tunnels, 4);
        // The second is not of what the host policy protects.
        assert_eq!(hosts, ["first", "web", "office@10.7.0.1", "office"]);
        let whole = base().expanded(&[given(Vec::new())]);
        assert_eq!(whole.tunnel("office@10.7.0.1").unwrap().selector.to_string(), "10.7.0.1 <=> 10.2.0.0/16");
    }
}
