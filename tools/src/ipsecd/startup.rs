//! From a configuration file to a running daemon, and back.
//!
//! The order is the point. The configuration is checked whole, the guard closes
//! the gates, and only then does anything that carries traffic start. At a clean
//! stop the guard goes last.

use super::daemon::{Daemon, Parts};
use super::export::KeyExport;
use super::ike_ports::IkePorts;
use super::network::{Network, NetworkError};
use super::pool::PoolError;
use super::remote_access::RemoteClients;
use super::system::{Clock, SystemEntropy, forbid_core_dumps};
use crate::audit_log::{AuditLog, AuditOptions};
use crate::config_file::{self, Loaded};
use crate::control::run_dir;
use crate::control::server::{BindError, Server};
use crate::credentials::CredentialStore;
use crate::net::MARK;
use crate::user_store::UserStore;
use datapath::shared::MOST_WORKERS;
use datapath::{Datapath, DatapathConfig, Shared};
use keys::PresharedKeys;
use policy::cache::HashKey;
use policy::config::Config;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Config(#[from] config_file::Unusable),
    #[error("cannot keep secrets out of core dumps: {0}")]
    CoreDumps(rustix::io::Errno),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Control(#[from] BindError),
    #[error(transparent)]
    Audit(#[from] crate::audit_log::StartError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(
        "cannot use UDP port {port} for IKE: {reason}\nIs another IKE daemon running? It needs CAP_NET_ADMIN and CAP_NET_BIND_SERVICE, usually root."
    )]
    IkePort { port: u16, reason: io::Error },
    #[error("cannot write keys for Wireshark to {}: {reason}\nChange startup.export_keys, or leave it out.", directory.display())]
    Export { directory: PathBuf, reason: io::Error },
    #[error("cannot start the packet path: {0}")]
    Datapath(#[from] datapath::StartError),
    #[error(
        "{0}\nThe guard stays: what the configuration protects is blocked until ipsecd runs, or `ipsecd --withdraw` takes the guard away."
    )]
    Guarded(Box<StartError>),
    #[error("the packet path's worker `{worker}` cannot go on: {error}")]
    Worker { worker: &'static str, error: String },
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Starts the daemon, runs it until it is told to stop, and cleans up.
pub(super) async fn start_and_run(config_file: &Path, named_run_dir: Option<PathBuf>) -> Result<(), StartError> {
    forbid_core_dumps().map_err(StartError::CoreDumps)?;
    let Loaded { config, credentials, users, warnings } = config_file::load(config_file)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(config);
    let run_dir = run_dir(named_run_dir);
    let control = Server::bind(&run_dir)?;
    let mut network = Network::open()?;
    network.close(&config)?;
    match carry_traffic(config_file, run_dir, config, (credentials, users), control, &mut network).await {
        Ok(()) => Ok(network.withdraw().await?),
        // What is to be protected must not go in the clear because of, say, a port in use.
        Err(e) => Err(StartError::Guarded(Box::new(e))),
    }
}

/// Takes away what a killed daemon left, unless one runs.
pub(super) async fn withdraw(named_run_dir: Option<PathBuf>) -> Result<(), StartError> {
    let _nobody_else = Server::bind(&run_dir(named_run_dir))?;
    Ok(Network::open()?.withdraw().await?)
}

async fn carry_traffic(
    config_file: &Path,
    run_dir: PathBuf,
    config: Arc<Config>,
    (credentials, users): (CredentialStore, UserStore),
    control: Server,
    network: &mut Network,
) -> Result<(), StartError> {
    network.refuse(&config).await?;
    let audit = AuditLog::start(&AuditOptions {
        level: config.startup.audit_level,
        dir: config.startup.audit_dir.clone(),
        max_kbytes: config.startup.audit_max_kbytes,
    })?;
    let export = export(&config)?;
    let clock = Clock::start();
    let mut entropy = SystemEntropy;
    let ike_ports = IkePorts::bind(config.startup.ike_port, MARK)
        .map_err(|reason| StartError::IkePort { port: config.startup.ike_port, reason })?;
    let shared = Arc::new(Shared::new(&config, HashKey::draw(&mut entropy)));
    let datapath = Datapath::start(
        &DatapathConfig {
            interface: config.startup.interface.clone(),
            offload: config.startup.offload,
            workers: workers(config.startup.workers),
            natt_port: config.startup.natt_port,
            mark: MARK,
            origin: clock.origin(),
            gateway: config.gateway.clone(),
        },
        shared,
    )?;
    let mut clients = RemoteClients::default();
    let pools = clients.open(&config)?;
    clients.replace_pools(pools);
    let mut daemon = Daemon::new(Parts {
        config_file: config_file.to_path_buf(),
        run_dir,
        preshared: PresharedKeys::from_config(&config),
        credentials,
        users,
        clients,
        config,
        clock,
        entropy,
        ike_ports,
        datapath,
        audit,
        export,
    });
    daemon.run(control, network).await?;
    // The last deletes go out before the sockets close.
    drop(daemon);
    Ok(())
}

/// Workers in each direction, unless the configuration says how many: half as many as processors, since
/// one of them works for each direction. The kernel's part of the work runs on the processors of those who
/// ask for it, so there is little to gain by more, and with fewer than four processors one does as well as two.
fn workers(configured: Option<u8>) -> usize {
    configured
        .map_or_else(|| (available_parallelism().map_or(1, NonZeroUsize::get) / 2).clamp(1, MOST_WORKERS), usize::from)
}

/// Opens the files that keys are exported to, if the configuration names a directory.
pub(super) fn export(config: &Config) -> Result<Option<KeyExport>, StartError> {
    let Some(directory) = &config.startup.export_keys else { return Ok(None) };
    match KeyExport::to(directory) {
        Ok(export) => Ok(Some(export)),
        Err(reason) => Err(StartError::Export { directory: directory.clone(), reason }),
    }
}
