//! What the daemon makes in the kernel: the guard, the routing rule, the routes
//! and the TUN interface's settings; and takes away again.
//!
//! The order is what keeps protected traffic from leaving in the clear: the
//! guard comes first and goes last, and a reload replaces it before anything else.

use crate::guard::{Guard, GuardError, GuardOptions, NamedCounter};
use crate::net::{Interface, MARK, Net, NetError, RoutePlan, Routing, strict_reverse_path};
use policy::config::Config;
use std::net::IpAddr;
use std::path::Path;

/// Why the network is not as the daemon needs it.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    /// Interfaces or routes.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// The daemon's hold on the network namespace it runs in.
#[derive(Debug)]
pub(super) struct Network {
    net: Net,
    routing: Routing,
    /// Index of the TUN interface, once there is one.
    tun: Option<u32>,
    routes: RoutePlan,
    /// Addresses of the TUN interface that peers have given us.
    addresses: Vec<IpAddr>,
}

impl Network {
    pub(super) fn open() -> Result<Self, NetworkError> {
        Ok(Self {
            net: Net::open()?,
            routing: Routing::default(),
            tun: None,
            routes: RoutePlan::default(),
            addresses: Vec::new(),
        })
    }

    /// Before anything else: from here on, nothing that `config` protects or
    /// discards leaves or is accepted in the clear.
    pub(super) fn close(&self, config: &Config) -> Result<(), NetworkError> {
        Guard::is_supported()?;
        self.guard(config)
    }

    /// Next: leads protected traffic to routes that refuse it, since there is no tunnel yet.
    pub(super) async fn refuse(&mut self, config: &Config) -> Result<(), NetworkError> {
        self.routes = RoutePlan::new(config, &self.net.interfaces().await?);
        self.net.set_routes(&self.routing, &self.routes, None).await?;
        Ok(self.net.add_rules(&self.routing).await?)
    }

    /// Once the TUN interface exists: leads protected traffic into it.
    pub(super) async fn open_tunnel(&mut self, config: &Config, mtu: u16) -> Result<(), NetworkError> {
        self.net.start_tun(&config.startup.interface, mtu.into()).await?;
        self.tun = Some(self.net.interface_index(&config.startup.interface).await?);
        self.follow(config).await?;
        Ok(())
    }

    /// Another configuration: the guard first, then the routes.
    pub(super) async fn reload(&mut self, config: &Config, mtu: u16) -> Result<(), NetworkError> {
        self.guard(config)?;
        self.net.set_mtu(&config.startup.interface, mtu.into()).await?;
        self.follow(config).await?;
        Ok(())
    }

    /// Makes the routes fit the addresses that the host has now; says whether
    /// anything changed.
    pub(super) async fn follow(&mut self, config: &Config) -> Result<bool, NetworkError> {
        let plan = RoutePlan::new(config, &self.net.interfaces().await?);
        let changed = plan != self.routes;
        self.net.set_routes(&self.routing, &plan, self.tun).await?;
        self.routes = plan;
        Ok(changed)
    }

    /// Makes the TUN interface have exactly these addresses, of those that peers may give us.
    pub(super) async fn hold_addresses(&mut self, config: &Config, addresses: &[IpAddr]) -> Result<(), NetworkError> {
        let interface = &config.startup.interface;
        for address in addresses.iter().filter(|a| !self.addresses.contains(a)) {
            self.net.add_address(interface, *address, if address.is_ipv4() { 32 } else { 128 }).await?;
        }
        for address in self.addresses.iter().filter(|a| !addresses.contains(a)) {
            self.net.delete_address(interface, *address).await?;
        }
        self.addresses = addresses.to_vec();
        self.follow(config).await?;
        Ok(())
    }

    /// Sets the MTU of the TUN interface.
    pub(super) async fn set_mtu(&self, config: &Config, mtu: u16) -> Result<(), NetworkError> {
        Ok(self.net.set_mtu(&config.startup.interface, mtu.into()).await?)
    }

    /// Puts the guard back if somebody took it away (`nft flush ruleset`); says whether it was gone.
    pub(super) fn restore_guard(&self, config: &Config) -> Result<bool, NetworkError> {
        let gone = !Guard::is_installed()?;
        if gone {
            self.guard(config)?;
        }
        Ok(gone)
    }

    /// At a clean stop: the routes, the rule, and last the guard.
    pub(super) async fn withdraw(&mut self) -> Result<(), NetworkError> {
        self.net.clear_routes(&self.routing).await?;
        self.net.delete_rules(&self.routing).await?;
        Ok(Guard::remove()?)
    }

    pub(super) async fn interfaces(&self) -> Result<Vec<Interface>, NetworkError> {
        Ok(self.net.interfaces().await?)
    }

    /// Interfaces on which the kernel would not hear a peer that is itself a protected destination.
    pub(super) async fn deaf_interfaces(&self) -> Result<Vec<String>, NetworkError> {
        Ok(strict_reverse_path(Path::new("/proc/sys"), &self.net.interfaces().await?))
    }

    pub(super) fn guard_counters(&self) -> Result<Vec<NamedCounter>, NetworkError> {
        Ok(Guard::counters()?)
    }

    fn guard(&self, config: &Config) -> Result<(), NetworkError> {
        let options = GuardOptions {
            interface: config.startup.interface.clone(),
            mark: MARK,
            ike_port: config.startup.ike_port,
            natt_port: config.startup.natt_port,
            gateway: config.gateway.iter().flat_map(|g| g.inside.iter().chain(&g.outside)).cloned().collect(),
        };
        Ok(Guard::install(&Guard::plan(config, &options))?)
    }
}
