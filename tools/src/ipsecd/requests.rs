//! What the commands ask of the daemon.

use super::daemon::Daemon;
use super::network::Network;
use super::reports;
use super::startup::export;
use super::tun_mtu::tun_mtu;
use crate::config_file;
use crate::control::server::Responder;
use crate::control::{Answer, Refusal, RefusalKind, Request};
use crate::report::Record;
use ike::Command;
use keys::PresharedKeys;
use policy::audit::PolicyEvent;
use policy::config::{Config, RemoteAccess, Startup};
use policy::limits::Limits;
use std::net::IpAddr;
use std::sync::Arc;

/// Answers one request, at once or when its outcome is known.
pub(super) async fn answer(daemon: &mut Daemon, request: Request, responder: Responder, network: &mut Network) {
    match request {
        Request::Report { sections, filters } => {
            reports::answer(daemon, network, &sections, filters, responder).await;
        }
        Request::Explain(packet) => {
            let spd = daemon.shared.spd.load();
            match packet.five_tuple(&spd.config().startup) {
                Ok(tuple) => {
                    let explanation = spd.explain(&tuple, packet.direction.into());
                    responder.answer(vec![Answer::Explanation(Box::new(explanation))]);
                }
                Err(refusal) => responder.refuse(refusal),
            }
        }
        Request::Status => {
            let status = reports::status(daemon);
            responder.answer(vec![Record::Status(Box::new(status)).into()]);
        }
        Request::Stop => {
            daemon.stopping = true;
            responder.done("ipsecd deletes its SAs, tells the peers, and ends");
        }
        Request::Reload => match daemon.reload(network).await {
            Ok(text) => responder.done(text),
            Err(refusal) => responder.refuse(refusal),
        },
        Request::DeleteSa { peer } => delete_sa(daemon, peer, responder),
        Request::Initiate { tunnel } => initiate(daemon, &tunnel, responder),
        Request::RekeySa { tunnel } => rekey_sa(daemon, &tunnel, responder),
        Request::RekeyIke { peer } => {
            if daemon.engine.isakmp_sas().iter().any(|sa| sa.remote.ip() == peer) {
                daemon.command(Command::RekeyPeer { peer });
                responder.done(format!("negotiating a new ISAKMP SA with {peer}"));
            } else {
                responder.refuse(no_such_peer(peer));
            }
        }
        Request::SetLimits { soft, hard } => set_limits(daemon, soft, hard, responder),
        Request::AuditLevel { level } => {
            daemon.audit.set_level(level);
            responder.done(format!("audit level is {level}"));
        }
    }
}

fn delete_sa(daemon: &mut Daemon, peer: IpAddr, responder: Responder) {
    let isakmp = daemon.engine.isakmp_sas().iter().filter(|sa| sa.remote.ip() == peer).count();
    let pairs = daemon.engine.pairs().iter().filter(|p| p.remote.ip() == peer).count();
    if isakmp + pairs == 0 {
        responder.refuse(no_such_peer(peer));
        return;
    }
    daemon.command(Command::DeletePeer { peer });
    responder.done(format!("deleted {isakmp} ISAKMP SA(s) and {pairs} pair(s) of IPsec SAs with {peer}, and told it"));
}

fn no_such_peer(peer: IpAddr) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("there is no SA with {peer}"))
        .next("`ipsec_report -mad -sad` lists those there are.")
}

/// Begins a negotiation; the answer is its outcome.
fn negotiate(daemon: &mut Daemon, tunnel: &str, responder: Responder, command: Command) {
    let Some(policy) = daemon.config.tunnel(tunnel) else {
        let known: Vec<&str> = daemon.config.tunnels.iter().map(|t| &*t.name).collect();
        let text = format!("there is no tunnel policy `{tunnel}`");
        let next =
            if known.is_empty() { "None is configured.".into() } else { format!("There are: {}.", known.join(", ")) };
        responder.refuse(Refusal::new(RefusalKind::NotFound, text).next(next));
        return;
    };
    if policy.manual.is_some() {
        let text = format!("tunnel `{tunnel}` has manual keys: there is nothing to negotiate");
        let next = "Change `in` and `out` at both ends, and reload.";
        responder.refuse(Refusal::new(RefusalKind::Invalid, text).next(next));
        return;
    }
    match &policy.remote_access {
        RemoteAccess::Pool(pool) => {
            let text = format!("tunnel `{tunnel}` is for clients with addresses of pool `{pool}`: each of them begins");
            responder
                .refuse(Refusal::new(RefusalKind::Invalid, text).next("`ipsec_report -tunnel` lists those there are."));
        }
        RemoteAccess::Virtual { .. } => {
            let peer = policy.tdestination;
            daemon.command(command);
            responder.done(format!("asking {peer} for an address; its tunnels will be `{tunnel}@ADDRESS`"));
        }
        RemoteAccess::None | RemoteAccess::Leased(_) => {
            daemon.waiting.add(Arc::clone(&policy.name), responder);
            daemon.command(command);
        }
    }
}

/// The pair of SAs that a tunnel uses.
fn current_pair(daemon: &Daemon, tunnel: &str) -> Option<u64> {
    daemon.engine.tunnels().into_iter().find(|t| &*t.name == tunnel).and_then(|t| t.pair)
}

fn initiate(daemon: &mut Daemon, tunnel: &str, responder: Responder) {
    match current_pair(daemon, tunnel) {
        Some(_) => responder
            .done(format!("tunnel {tunnel} is up already; `ipsec_admin -rekey_sa {tunnel}` negotiates new SAs")),
        None => negotiate(daemon, tunnel, responder, Command::Initiate { tunnel: tunnel.into() }),
    }
}

fn rekey_sa(daemon: &mut Daemon, tunnel: &str, responder: Responder) {
    match current_pair(daemon, tunnel) {
        Some(pair) => negotiate(daemon, tunnel, responder, Command::Rekey { pair }),
        // Without SAs to replace, new ones are what is wanted; an unknown name is refused there.
        None => negotiate(daemon, tunnel, responder, Command::Initiate { tunnel: tunnel.into() }),
    }
}

fn set_limits(daemon: &mut Daemon, soft: Option<u32>, hard: Option<u32>, responder: Responder) {
    let now = daemon.shared.cache.limits();
    let thousands = |entries: u64| u32::try_from(entries / 1000).unwrap_or(u32::MAX);
    let (soft, hard) = (soft.unwrap_or(thousands(now.soft)), hard.unwrap_or(thousands(now.hard)));
    if hard == 0 || hard < soft {
        let text =
            format!("the hard limit ({hard} thousand) must be at least the soft limit ({soft} thousand), and not 0");
        responder
            .refuse(Refusal::new(RefusalKind::Invalid, text).next("Change both at once: -spd_soft N -spd_hard N."));
        return;
    }
    daemon.change_limits(Limits::from_thousands(soft, hard));
    responder.done(format!("SPD cache limits: soft {soft}, hard {hard} thousand entries"));
}

impl Daemon {
    fn change_limits(&self, limits: Limits) {
        let mut events = Vec::new();
        self.shared.cache.change_limits(limits, &mut |e| events.push(e));
        for event in events {
            self.say(&PolicyEvent::of_limit(event, &self.config));
        }
    }

    /// Reads the configuration again. With errors in it, or changes that need
    /// a restart, everything stays as it was.
    pub(super) async fn reload(&mut self, network: &mut Network) -> Result<String, Refusal> {
        let refused = |e: &dyn core::fmt::Display| {
            Refusal::new(RefusalKind::Invalid, format!("{e}\nThe configuration in force stays."))
        };
        let loaded = match config_file::load(&self.config_file) {
            Ok(loaded) => loaded,
            Err(e) => {
                let reason = e.to_string();
                self.say(&PolicyEvent::ConfigurationInvalid {
                    reason: reason.lines().nth(1).unwrap_or(&reason).to_string(),
                });
                return Err(refused(&e));
            }
        };
        let base = Arc::new(loaded.config);
        let pools = self.clients.open(&base).map_err(|e| refused(&e))?;
        let config = Arc::new(self.clients.expand(&base));
        if self.config.gateway != config.gateway {
            let text = "[gateway] cannot be changed while ipsecd runs\nThe configuration in force stays.";
            return Err(Refusal::new(RefusalKind::Invalid, text).next("Restart ipsecd to change it."));
        }
        let fixed = needs_restart(&self.config.startup, &config.startup);
        if !fixed.is_empty() {
            let text = format!(
                "startup.{} cannot be changed while ipsecd runs\nThe configuration in force stays.",
                fixed.join(", startup.")
            );
            return Err(Refusal::new(RefusalKind::Invalid, text).next("Restart ipsecd to change it."));
        }
        let export = export(&config).map_err(|e| refused(&e))?;
        // The guard first: what is newly protected must not slip out between.
        let mtu = tun_mtu(&config);
        if let Err(e) = network.reload(&config, mtu).await {
            // What stays in force is to be so wholly, the guard too.
            if let Err(again) = network.reload(&self.config, self.tun_mtu).await {
                tracing::error!("cannot go back to the configuration in force: {again}");
            }
            return Err(refused(&e));
        }
        self.export = export;
        self.preshared = PresharedKeys::from_config(&config);
        self.credentials = loaded.credentials;
        self.users = loaded.users;
        self.audit.set_level(config.startup.audit_level);
        self.tun_mtu = mtu;
        self.clients.replace_pools(pools);
        self.base_config = base;
        self.config_loaded = crate::wall_clock::Date::now();
        self.work_by(config);
        self.keep_crls();
        let mut text = format!(
            "{} is in force: {} host and {} tunnel policies",
            self.config_file.display(),
            self.base_config.hosts.len(),
            self.base_config.tunnels.len()
        );
        for warning in loaded.warnings {
            text.push_str(&format!("\n{warning}"));
        }
        Ok(text)
    }
}

impl Daemon {
    /// Packets and negotiations go by this configuration from now on; the guard and the routes do already.
    pub(super) fn work_by(&mut self, config: Arc<Config>) {
        let mut events = Vec::new();
        let orphans = self.datapath.replace_policies(&config, |e| events.push(e));
        for event in events {
            self.say(&PolicyEvent::of_limit(event, &self.config));
        }
        // The engine deletes the SAs of tunnels that are gone, or not the same any more.
        tracing::debug!("{} pairs without a tunnel", orphans.len());
        self.remove_manual_keys(&orphans);
        self.command(Command::Reload { config: Arc::clone(&config) });
        self.config = config;
        // First those that go: they may have an SPI that is manual now.
        self.do_what_the_engine_wants();
        self.install_manual_keys();
        self.say(&PolicyEvent::PoliciesInForce {
            epoch: self.shared.spd.load().epoch(),
            hosts: self.config.hosts.len(),
            tunnels: self.config.tunnels.len(),
        });
    }
}

/// Settings that are fixed while the daemon runs.
fn needs_restart(old: &Startup, new: &Startup) -> Vec<&'static str> {
    let mut changed = Vec::new();
    let mut compare = |name, same: bool| {
        if !same {
            changed.push(name);
        }
    };
    compare("interface", old.interface == new.interface);
    compare("offload", old.offload == new.offload);
    compare("workers", old.workers == new.workers);
    compare("ike_port", old.ike_port == new.ike_port);
    compare("natt_port", old.natt_port == new.natt_port);
    compare("auditdir", old.audit_dir == new.audit_dir);
    compare("maxsize", old.audit_max_kbytes == new.audit_max_kbytes);
    changed
}
