//! Clients of ours, and we as a client: addresses inside, and the tunnels and policies that go with them.
//!
//! The configuration in force is that of the file with what clients add to it ([`Config::expanded`]).
//! It changes like at a reload, the guard first, so nothing is ever protected less than the file says.

use super::daemon::Daemon;
use super::network::{Network, NetworkError};
use super::pool::{Pool, PoolError};
use super::tun_mtu::tun_mtu;
use crate::report::LeaseReport;
use ike::{Assignment, Command};
use policy::config::{Client, Config};
use std::net::IpAddr;
use std::sync::Arc;

/// What the engine has asked for.
#[derive(Debug)]
pub(super) enum Wish {
    /// A client is to have an address.
    Lease { token: u64, owner: Arc<str>, local: IpAddr, peer: IpAddr },
    /// A peer has given us one.
    Assigned { local: IpAddr, peer: IpAddr, assignment: Assignment },
}

/// Everybody with an address that the file does not know.
#[derive(Debug, Default)]
pub(super) struct RemoteClients {
    pools: Vec<Pool>,
    clients: Vec<Client>,
    /// What is to be done as soon as the network may be changed.
    pub(super) wishes: Vec<Wish>,
}

impl RemoteClients {
    /// The pools of a configuration: those that did not change as they are, with leases that are in
    /// memory too, the others from their files.
    pub(super) fn open(&self, config: &Config) -> Result<Vec<Pool>, PoolError> {
        let pool = |policy: &Arc<policy::config::Pool>| {
            let same = self.pools.iter().find(|pool| pool.policy() == policy);
            same.map_or_else(|| Pool::open(Arc::clone(policy)), |pool| Ok(pool.clone()))
        };
        config.pools.iter().map(pool).collect()
    }

    /// Works with these pools from now on.
    pub(super) fn replace_pools(&mut self, pools: Vec<Pool>) {
        self.pools = pools;
    }

    /// A configuration with the tunnels of those that there are.
    pub(super) fn expand(&self, base: &Config) -> Config {
        base.expanded(&self.clients)
    }

    /// Whose the addresses of the pools are, for reports.
    pub(super) fn leases(&self) -> Vec<LeaseReport> {
        let there =
            |a: IpAddr| self.clients.iter().any(|c| matches!(c, Client::Leased { address, .. } if *address == a));
        self.pools.iter().flat_map(|pool| pool.report(there)).collect()
    }

    /// Addresses that peers gave us.
    fn virtual_addresses(&self) -> Vec<IpAddr> {
        let of = |client: &Client| match client {
            Client::Virtual { address, .. } => Some(*address),
            Client::Leased { .. } => None,
        };
        self.clients.iter().filter_map(of).collect()
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(crate::credentials::now()).unwrap_or(0)
}

impl Daemon {
    /// Does what the engine has asked for.
    pub(super) async fn grant_wishes(&mut self, network: &mut Network) {
        while !self.clients.wishes.is_empty() {
            match self.clients.wishes.remove(0) {
                Wish::Lease { token, owner, local, peer } => {
                    let lease = self.lease(&owner, local, peer, network).await;
                    self.command(Command::Leased { token, lease });
                }
                Wish::Assigned { local, peer, assignment } => self.assigned(local, peer, assignment, network).await,
            }
            self.do_what_the_engine_wants();
        }
    }

    /// An address for a client, whose tunnels are in force when this returns.
    async fn lease(
        &mut self,
        owner: &Arc<str>,
        local: IpAddr,
        peer: IpAddr,
        network: &mut Network,
    ) -> Result<Assignment, String> {
        let wanted = self.base_config.pool_at(local).map(|policy| policy.name.clone());
        let pool = wanted.and_then(|name| self.clients.pools.iter_mut().find(|pool| pool.policy().name == name));
        let pool = pool.ok_or_else(|| format!("no tunnel with tsource {local} has a pool any more"))?;
        let address = pool.lease(owner, now()).map_err(|e| e.to_string())?;
        let policy = Arc::clone(pool.policy());
        let client = Client::Leased { pool: policy.name.clone(), owner: Arc::clone(owner), local, peer, address };
        if !self.clients.clients.contains(&client) {
            let before = self.clients.clients.clone();
            // Who comes from somewhere else is there no more.
            self.clients.clients.retain(|c| !matches!(c, Client::Leased { address: a, .. } if *a == address));
            self.clients.clients.push(client);
            if let Err(e) = self.apply_clients(network).await {
                self.clients.clients = before;
                return Err(e.to_string());
            }
        }
        Ok(Assignment {
            address,
            dns: policy.dns.clone(),
            networks: policy.split.clone(),
            banner: policy.banner.clone(),
            seconds: Some(policy.lease_seconds),
        })
    }

    /// A peer has given us an address.
    async fn assigned(&mut self, local: IpAddr, peer: IpAddr, assignment: Assignment, network: &mut Network) {
        let (address, networks) = (assignment.address, assignment.networks);
        let client = Client::Virtual { local, peer, address, networks };
        if self.clients.clients.contains(&client) {
            return;
        }
        let same = |c: &Client| matches!(c, Client::Virtual { local: l, peer: p, .. } if (*l, *p) == (local, peer));
        self.clients.clients.retain(|c| !same(c));
        self.clients.clients.push(client);
        if let Err(e) = self.apply_clients(network).await {
            tracing::error!("the address {address} that {peer} gives us cannot be used: {e}");
        }
    }

    /// Clients that have nothing with us any more lose their tunnels, not their leases.
    pub(super) async fn forget_clients(&mut self, network: &mut Network) {
        if self.clients.clients.is_empty() {
            return;
        }
        let (sas, pairs) = (self.engine.isakmp_sas(), self.engine.pairs());
        let is_there = |client: &Client| match client {
            Client::Virtual { .. } => true,
            Client::Leased { address, .. } => {
                let suffix = format!("@{address}");
                sas.iter().any(|sa| sa.leased == Some(*address)) || pairs.iter().any(|p| p.tunnel.ends_with(&suffix))
            }
        };
        let before = self.clients.clients.len();
        self.clients.clients.retain(is_there);
        let there = &self.clients.clients;
        let used = |address| there.iter().any(|c| matches!(c, Client::Leased { address: a, .. } if *a == address));
        for pool in &mut self.clients.pools {
            if let Err(e) = pool.renew(used, now()) {
                tracing::error!("{e}");
            }
        }
        if self.clients.clients.len() != before
            && let Err(e) = self.apply_clients(network).await
        {
            tracing::error!("{e}");
        }
    }

    /// Works by the file's configuration with the clients of now.
    async fn apply_clients(&mut self, network: &mut Network) -> Result<(), NetworkError> {
        let config = Arc::new(self.clients.expand(&self.base_config));
        let mtu = tun_mtu(&config);
        if let Err(e) = network.reload(&config, mtu).await {
            // What stays in force is to be so wholly, the guard too.
            if let Err(again) = network.reload(&self.config, self.tun_mtu).await {
                tracing::error!("cannot go back to the configuration in force: {again}");
            }
            return Err(e);
        }
        // Routes prefer an address of the interface as source, so it comes before what uses it.
        network.hold_addresses(&config, &self.clients.virtual_addresses()).await?;
        self.tun_mtu = mtu;
        self.work_by(config);
        Ok(())
    }
}
