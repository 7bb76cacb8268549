//! The packet path as the daemon has it.

#![deny(unsafe_code)]

mod gateway;

use super::worker::gateway::Door;
use super::worker::gateway::delivery::Delivery;
use super::worker::inbound::InboundWorker;
use super::worker::outbound::{Command, OutboundWorker};
use super::worker::{Clock, Events, Ports, Waker, housekeeping, spawn};
use super::{PortKind, Queues, Share, Tun, path_mtu};
use crate::event::Event;
use crate::mtu::interface_mtu;
use crate::sessions::Lane;
use crate::shared::{MOST_WORKERS, Pair, PairError, Shared};
use crossbeam::channel::{Receiver, Sender, unbounded};
use policy::config::{Config, Gateway};
use policy::counters::Totals;
use policy::sa::SaSpec;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread::JoinHandle;
use std::time::Instant;

/// What the packet path needs to know to start.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Name of the TUN interface; made if it is not there, and then gone when the packet path stops.
    pub interface: String,
    /// Whether packets may come and go in super-packets, as far as the kernel can.
    pub offload: bool,
    /// Workers in each direction, 1 to [`MOST_WORKERS`](crate::shared::MOST_WORKERS): what is more or less is put between.
    /// Fewer read from the TUN interface where it has fewer queues.
    pub workers: usize,
    /// UDP port of ESP and IKE behind a NAT, 4500.
    pub natt_port: u16,
    /// Firewall mark of everything we send.
    pub mark: u32,
    /// The zero of [`Timestamp`](policy::time::Timestamp): the daemon's own.
    pub origin: Instant,
    /// The interfaces of the gateway, if it is one; see [`Gateway`](policy::config::Gateway).
    pub gateway: Option<Gateway>,
}

/// Why the packet path cannot start. All are ours, or the system's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TUN interface.
    #[error(
        "cannot open TUN interface `{name}`: {source}; it takes CAP_NET_ADMIN and /dev/net/tun, and a name that no other program uses"
    )]
    Tun {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// A socket.
    #[error("cannot open the socket for {}: {source}; {}", what(*kind), advice(*kind))]
    Socket {
        /// Which.
        kind: PortKind,
        /// What the system says.
        source: io::Error,
    },
    /// An interface of the gateway.
    #[error(
        "cannot use `{name}` as an interface of the gateway: {source}; it takes an Ethernet interface, CAP_NET_RAW, CAP_NET_ADMIN, and Linux 4.20"
    )]
    Gateway {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// A thread, or what wakes it.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

fn what(kind: PortKind) -> String {
    match kind {
        PortKind::Udp(port) => format!("ESP and IKE on UDP port {port}"),
        PortKind::RawEsp => "ESP (IP protocol 50)".into(),
        PortKind::RawAh => "AH (IP protocol 51)".into(),
        PortKind::Clear => "packets that pass in the clear".into(),
    }
}

fn advice(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Udp(_) => "is another IKE daemon running? It also takes CAP_NET_ADMIN, for the firewall mark",
        PortKind::RawEsp | PortKind::RawAh | PortKind::Clear => "it takes CAP_NET_RAW and CAP_NET_ADMIN",
    }
}

/// The running packet path. Dropping it stops it.
#[derive(Debug)]
pub struct Datapath {
    shared: Arc<Shared>,
    events: Receiver<Event>,
    outbound: Vec<Outbox>,
    stop: Arc<AtomicBool>,
    inbound_wakers: Vec<Waker>,
    housekeeping: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    mark: u32,
    queues: Queues,
    /// Of each number of workers.
    ports: Vec<Arc<Ports>>,
}

/// The way to one outbound worker.
#[derive(Debug)]
struct Outbox {
    commands: Sender<Command>,
    waker: Waker,
}

impl Outbox {
    fn send(&self, command: Command) {
        // A worker that is gone has said so by an event.
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

impl Datapath {
    /// Opens interface and sockets and starts the workers. Address, MTU and
    /// state of the interface, and routes to it, are the daemon's.
    pub fn start(config: &DatapathConfig, shared: Arc<Shared>) -> Result<Self, StartError> {
        let mark = config.mark;
        let workers = config.workers.clamp(1, MOST_WORKERS);
        let queues = Tun::open_queues(&config.interface, workers, workers, config.offload)
            .map_err(|source| StartError::Tun { name: config.interface.clone(), source })?;
        let ports = (0..workers)
            .map(|number| {
                let share = Share { number, of: workers };
                let ports = Ports::open(config.natt_port, mark, config.offload, share);
                ports.map(Arc::new).map_err(|(kind, source)| StartError::Socket { kind, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if queues.readers.len() > 1 || config.gateway.is_some() {
            shared.send_in_turn();
        }
        let (sender, events) = unbounded();
        let (housekeeping, housekeeping_stop) = unbounded();
        let mut started = Self {
            shared: Arc::clone(&shared),
            events,
            outbound: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            inbound_wakers: Vec::new(),
            housekeeping: Some(housekeeping),
            threads: Vec::new(),
            mark,
            queues,
            ports,
        };
        let clock = Clock { origin: config.origin };
        let doors = gateway::doors(config.gateway.as_ref())?;
        // If one cannot be started, dropping `started` stops the others.
        started.start_workers(&Events(sender.clone()), clock, config, &doors)?;
        if let Some(interfaces) = &config.gateway {
            started.start_gateway(config, interfaces, &doors, &Events(sender.clone()))?;
        }
        let keeper = move || {
            housekeeping::run(&shared, &housekeeping_stop, clock, mark);
            Ok(())
        };
        started.threads.push(spawn("esp-keep", Events(sender), keeper)?);
        Ok(started)
    }

    fn start_workers(
        &mut self,
        events: &Events,
        clock: Clock,
        config: &DatapathConfig,
        doors: &[Door],
    ) -> io::Result<()> {
        // Those that read, then those that write: a block of counters for each.
        let mut numbers = 0..;
        let mut number = || numbers.next().unwrap_or_default();
        for ((tun, answers), ports) in self.queues.readers.iter().zip(&self.queues.writers).zip(&self.ports) {
            let (commands, receiver) = unbounded();
            let waker = Waker::new()?;
            self.outbound.push(Outbox { commands, waker: waker.clone() });
            let worker = OutboundWorker {
                tun: Arc::clone(tun),
                answers: Arc::clone(answers),
                ports: Arc::clone(ports),
                commands: receiver,
                waker,
                events: events.clone(),
                clock,
                mark: self.mark,
                shared: Arc::clone(&self.shared),
                number: number(),
            };
            self.threads.push(spawn("esp-out", events.clone(), move || worker.run())?);
        }
        for (tun, ports) in self.queues.writers.iter().zip(&self.ports) {
            let waker = Waker::new()?;
            self.inbound_wakers.push(waker.clone());
            let delivery = match &config.gateway {
                Some(_) => Some(Delivery::open(doors, self.mark, config.offload)?),
                None => None,
            };
            let worker = InboundWorker {
                tun: Arc::clone(tun),
                ports: Arc::clone(ports),
                natt_port: config.natt_port,
                stop: Arc::clone(&self.stop),
                waker,
                events: events.clone(),
                clock,
                mark: self.mark,
                shared: Arc::clone(&self.shared),
                number: number(),
                delivery,
            };
            self.threads.push(spawn("esp-in", events.clone(), move || worker.run())?);
        }
        Ok(())
    }

    /// What the packet path has to say; for one listener.
    #[must_use]
    pub fn events(&self) -> Receiver<Event> {
        self.events.clone()
    }

    /// Policies, cache, SAs and counters, for reports.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Makes a pair known and accepts its inbound packets; see
    /// [`Shared::install_pair`]. Asks the kernel for the MTU of its path.
    pub fn install_pair(&self, inbound: &SaSpec, outbound: &SaSpec, iv_key: &[u8; 16]) -> Result<Pair, PairError> {
        let pair = self.shared.install_pair(inbound, outbound, iv_key)?;
        // Without a route there is nothing to ask; once there is one it is asked again.
        if let Ok(mtu) = path_mtu(outbound.local, outbound.remote, self.mark) {
            pair.outbound.set_path_mtu(mtu);
        }
        Ok(pair)
    }

    /// Sends with a pair's outbound SA from now on, first what waits for it.
    pub fn activate_outbound(&self, pair: u64) -> Result<Pair, PairError> {
        let pair = self.shared.activate_outbound(pair)?;
        self.release(pair.lane());
        Ok(pair)
    }

    /// Removes both SAs of a pair and returns them, for their last counts.
    pub fn remove_pair(&self, pair: u64) -> Result<Pair, PairError> {
        self.shared.remove_pair(pair)
    }

    /// Sends what waits for a tunnel or session, if it has an SA; otherwise asks for one again.
    pub fn release(&self, lane: impl Into<Lane>) {
        let lane = lane.into();
        self.command(|| Command::Release(lane));
    }

    /// Drops what waits for a tunnel or session: there will be no SA. The next packet asks again.
    pub fn fail(&self, lane: impl Into<Lane>) {
        let lane = lane.into();
        self.command(|| Command::Fail(lane));
    }

    /// A NAT has moved the peer of a pair, which the peer itself has shown by an
    /// authenticated message: sends there from now on.
    pub fn move_peer(&self, pair: u64, remote: SocketAddr) -> Result<Pair, PairError> {
        let pair = self.shared.pair(pair).ok_or(PairError::Unknown(pair))?;
        pair.outbound.move_remote(remote);
        Ok(pair)
    }

    /// The MTU that the TUN interface should have, for the policies in force
    /// and what the kernel knows of the paths now; see
    /// [`interface_mtu`](crate::mtu::interface_mtu). It may change when
    /// policies or paths do.
    #[must_use]
    pub fn interface_mtu(&self) -> u16 {
        let spd = self.shared.spd.load();
        interface_mtu(spd.config(), |local, remote| path_mtu(local, remote, self.mark).ok())
    }

    /// Packets that wait for an SA of a tunnel.
    #[must_use]
    pub fn held(&self, tunnel: u32) -> u64 {
        self.shared.held(tunnel)
    }

    /// Replaces the policies under the running workers and decides anew on
    /// packets that wait. Returns the pairs whose tunnel is gone or changed, for
    /// the daemon to delete. What of `startup` the packet path uses changes too,
    /// but for names and ports.
    pub fn replace_policies(&self, config: &Config, on_limit: impl FnMut(policy::limits::LimitEvent)) -> Vec<u64> {
        let orphans = self.shared.replace_policies(config, on_limit);
        self.command(|| Command::PoliciesReplaced);
        orphans
    }

    /// Sends a datagram from the port that ESP in UDP shares: an IKE message
    /// behind its non-ESP marker, or a NAT keepalive. `payload` is the whole UDP
    /// payload. A failure comes back as [`Event::SendFailed`].
    pub fn send_udp(&self, local: SocketAddr, remote: SocketAddr, payload: Vec<u8>) {
        // One worker does for what is no flow.
        if let Some(outbox) = self.outbound.first() {
            outbox.send(Command::Send { local, remote, payload });
        }
    }

    /// What of the kernel and the processor is made use of, by stable names: `tcp_offload` and `udp_offload`
    /// (super-packets of the TUN interface), `multi_queue` (a queue of it for each worker), `udp_segment` and `udp_gro`
    /// (datagrams by the dozen, sent and received), `crypto_avx512` (packets side by side).
    #[must_use]
    pub fn features(&self) -> Vec<&'static str> {
        let (tun, (segment, gro)) = (self.queues.readers[0].offload(), self.ports[0].offload());
        let used = [
            ("tcp_offload", tun.tcp),
            ("udp_offload", tun.udp),
            ("multi_queue", self.queues.readers.len() > 1),
            ("udp_segment", segment),
            ("udp_gro", gro),
            ("crypto_avx512", crypto::packet::is_wide()),
        ];
        used.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect()
    }

    /// Workers in each direction; of the outbound ones there are no more than queues of the TUN interface.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.ports.len()
    }

    /// Queues of the TUN interface that are read from.
    #[must_use]
    pub fn tun_queues(&self) -> usize {
        self.queues.readers.len()
    }

    /// The sums of all workers' counters.
    #[must_use]
    pub fn counters(&self) -> Totals {
        self.shared.counters.totals()
    }

    /// Stops the workers and waits for them. Packets that still wait for an SA
    /// are dropped and counted. Also what dropping does.
    pub fn stop(self) {
        drop(self);
    }

    fn command(&self, command: impl Fn() -> Command) {
        for outbox in &self.outbound {
            outbox.send(command());
        }
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.command(|| Command::Stop);
        self.stop.store(true, Release);
        for waker in &self.inbound_wakers {
            waker.wake();
        }
        self.housekeeping = None;
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so by an event.
            let _ = thread.join();
        }
    }
}
