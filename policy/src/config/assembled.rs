//! A configuration that a program makes, without a file.

use super::model::{Config, DefaultAction, HostAction, HostPolicy, Startup};
use crate::selector::Selector;
use std::sync::Arc;

impl Config {
    /// Nothing but a default host policy.
    #[must_use]
    pub fn without_hosts(default_action: DefaultAction) -> Self {
        Self {
            startup: Startup::default(),
            hosts: Vec::new(),
            default_action,
            default_cache_share: None,
            tunnels: Vec::new(),
            ikes: Vec::new(),
            auths: Vec::new(),
            bypass: Vec::new(),
            pools: Vec::new(),
            gateway: None,
        }
    }

    /// Adds a host policy behind those that are there, and its tunnel policy if that is new. It is named `h1`, `h2`
    /// and so on, has priority 10, 20 and so on and the next cookie, and is for all interfaces.
    pub fn add_host(&mut self, selectors: Vec<Selector>, action: HostAction) {
        let n = self.hosts.len() as u32 + 1;
        if let HostAction::Tunnel(tunnel) = &action
            && !self.tunnels.iter().any(|t| t.name == tunnel.name)
        {
            self.tunnels.push(Arc::clone(tunnel));
        }
        self.hosts.push(Arc::new(HostPolicy {
            name: format!("h{n}"),
            priority: n * 10,
            cookie: n + 1,
            selectors,
            interface: None,
            action,
            exclusive: false,
            cache_share: None,
            line: n as usize,
        }));
    }
}
