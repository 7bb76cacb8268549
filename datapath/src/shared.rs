//! What the workers of the packet path and the daemon share: policies, their
//! cache, SAs, counters. Workers only read; the daemon changes it under them.

use crate::sa::{InboundSa, OutboundSa, SaError, pair};
use crate::sessions::{Lane, Sessions};
use policy::cache::{HashKey, SpdCache};
use policy::config::Config;
use policy::counters::{Counters, WorkerCounters};
use policy::limits::Limits;
use policy::sa::SaSpec;
use policy::sad::{DuplicateSpi, InsertError, Outbound, Sad};
use policy::spd::SharedSpd;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counter blocks: one for each worker there may be, and one for the daemon.
const WORKERS: usize = 16;
/// The most workers there may be in each direction.
pub const MOST_WORKERS: usize = (WORKERS - 1) / 2;

/// The shared state.
#[derive(Debug)]
pub struct Shared {
    /// The policies.
    pub spd: SharedSpd,
    /// Decisions by five-tuple.
    pub cache: Arc<SpdCache>,
    /// Inbound SAs by SPI.
    pub inbound: Sad<InboundSa>,
    /// Outbound SAs by tunnel; those of sessions are apart.
    pub outbound: Outbound<OutboundSa>,
    /// What became of every packet.
    pub counters: Counters,
    pub(crate) sessions: Sessions,
    pairs: Mutex<HashMap<u64, Pair>>,
    held: Mutex<HashMap<u32, u64>>,
    in_turn: AtomicBool,
}

/// Both SAs of a pair, for reports.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What it is called in [`SaSpec::pair`].
    pub id: u64,
    /// Index of its tunnel in the SPD.
    pub tunnel: u32,
    /// The SA we decrypt with: in use since the pair was installed.
    pub inbound: Arc<InboundSa>,
    /// The SA we encrypt with.
    pub outbound: Arc<OutboundSa>,
    /// Whether packets may be sent with it.
    pub active: bool,
}

impl Pair {
    /// What it is used for.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane { tunnel: self.tunnel, session: self.outbound.spec().session }
    }
}

/// Why a pair cannot be installed, activated or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The SAs cannot be made.
    #[error(transparent)]
    Sa(#[from] SaError),
    /// The inbound SPI is taken (PF_KEY: EEXIST).
    #[error(transparent)]
    Duplicate(#[from] DuplicateSpi),
    /// The SAD does not take the inbound SA, for another reason.
    #[error(transparent)]
    Sad(InsertError),
    /// A pair of this number is installed already.
    #[error("SA pair {0} exists already")]
    Exists(u64),
    /// There is no such pair.
    #[error("there is no SA pair {0}")]
    Unknown(u64),
    /// No tunnel policy of this name is loaded: it went while the SA was negotiated.
    #[error("tunnel policy `{0}` is not loaded any more")]
    UnknownTunnel(Arc<str>),
}

impl From<InsertError> for PairError {
    fn from(e: InsertError) -> Self {
        match e {
            InsertError::Duplicate(duplicate) => Self::Duplicate(duplicate),
            other => Self::Sad(other),
        }
    }
}

impl Shared {
    /// State with the policies of `config`, and no SA. `hash_key` is drawn at random.
    #[must_use]
    pub fn new(config: &Config, hash_key: HashKey) -> Self {
        let limits = Limits::from_thousands(config.startup.spd_soft, config.startup.spd_hard);
        Self {
            spd: SharedSpd::new(config),
            cache: SpdCache::new(limits, hash_key),
            inbound: Sad::new(),
            outbound: Outbound::new(),
            counters: Counters::new(WORKERS),
            sessions: Sessions::default(),
            pairs: Mutex::new(HashMap::new()),
            held: Mutex::new(HashMap::new()),
            in_turn: AtomicBool::new(false),
        }
    }

    /// Several workers will send: from now on each gives its packets a [`Turn`](crate::turn::Turn), so that those of one SA leave in
    /// the order of their sequence numbers, whoever has them. To be called before the first worker starts.
    pub fn send_in_turn(&self) {
        self.in_turn.store(true, Relaxed);
    }

    pub(crate) fn sends_in_turn(&self) -> bool {
        self.in_turn.load(Relaxed)
    }

    /// Makes a pair known: from now on packets of its inbound SA are accepted.
    /// Nothing is sent with its outbound SA until [`Self::activate_outbound`].
    /// `iv_key` is 16 random octets, see [`crypto::packet::sealer`].
    pub fn install_pair(&self, inbound: &SaSpec, outbound: &SaSpec, iv_key: &[u8; 16]) -> Result<Pair, PairError> {
        let spd = self.spd.load();
        let tunnel =
            spd.tunnel_index(&inbound.tunnel).ok_or_else(|| PairError::UnknownTunnel(Arc::clone(&inbound.tunnel)))?;
        let (i, o) = pair(inbound, outbound, tunnel, iv_key, spd.config().startup.replay_window)?;
        let pair = Pair { id: inbound.pair, tunnel, inbound: Arc::new(i), outbound: Arc::new(o), active: false };
        match self.pairs().entry(pair.id) {
            Entry::Occupied(_) => Err(PairError::Exists(pair.id)),
            Entry::Vacant(free) => {
                self.inbound.insert(inbound.spi, Arc::clone(&pair.inbound))?;
                if pair.lane().session.is_some() {
                    self.sessions.add(pair.lane(), pair.id);
                }
                free.insert(pair.clone());
                Ok(pair)
            }
        }
    }

    /// Sends with a pair's outbound SA from now on; older SAs of the tunnel
    /// stay behind it, but for one with the same SPI: the peer, which chose it
    /// again, has forgotten that one. Returns the pair. To be followed by a release of the
    /// packets that wait for the tunnel.
    pub fn activate_outbound(&self, id: u64) -> Result<Pair, PairError> {
        let mut pairs = self.pairs();
        let pair = pairs.get_mut(&id).ok_or(PairError::Unknown(id))?;
        if pair.active {
            return Ok(pair.clone());
        }
        pair.active = true;
        let pair = pair.clone();
        let (lane, spi) = (pair.lane(), pair.outbound.spec().spi);
        match lane.session {
            None => self.outbound.install(lane.tunnel, id, Arc::clone(&pair.outbound)),
            Some(_) => self.sessions.activate(lane, id, Arc::clone(&pair.outbound)),
        }
        let forgotten = |p: &&mut Pair| p.active && p.id != id && p.lane() == lane && p.outbound.spec().spi == spi;
        for older in pairs.values_mut().filter(forgotten) {
            older.active = false;
            self.retire(&lane, older.id);
        }
        Ok(pair)
    }

    /// Removes both SAs of a pair and returns them, for their last counts.
    /// The next younger SA of the tunnel, if there is one, takes over.
    pub fn remove_pair(&self, id: u64) -> Result<Pair, PairError> {
        let mut pairs = self.pairs();
        let pair = pairs.remove(&id).ok_or(PairError::Unknown(id))?;
        if pair.active {
            self.retire(&pair.lane(), id);
        }
        self.sessions.remove(&pair.lane(), id);
        self.inbound.remove(pair.inbound.spec().spi);
        Ok(pair)
    }

    fn retire(&self, lane: &Lane, pair: u64) {
        match lane.session {
            None => {
                self.outbound.retire(lane.tunnel, pair);
            }
            Some(_) => self.sessions.retire(lane, pair),
        }
    }

    /// Whether there is an SA that packets can be sent with.
    pub(crate) fn has(&self, lane: &Lane) -> bool {
        match lane.session {
            None => self.outbound.has(lane.tunnel),
            Some(_) => self.sessions.current(lane).is_some(),
        }
    }

    /// Whether there is a pair, if only one that packets are not to be sent with yet. For packets that find no SA: it
    /// goes through all pairs.
    pub(crate) fn has_pair(&self, lane: &Lane) -> bool {
        self.pairs().values().any(|pair| pair.lane() == *lane)
    }

    /// Sessions with an SA pair of their own, or that wait for one.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Replaces the policies, and the limits of the cache with them. Returns
    /// the pairs whose tunnel is not among the policies any more, or is another
    /// under the same name: whoever works by the new policies neither sends with
    /// them nor accepts what comes through them, and the daemon is to delete them.
    pub fn replace_policies(&self, config: &Config, mut on_limit: impl FnMut(policy::limits::LimitEvent)) -> Vec<u64> {
        let spd = self.spd.replace(config);
        let startup = &config.startup;
        self.cache.change_limits(Limits::from_thousands(startup.spd_soft, startup.spd_hard), &mut on_limit);
        self.cache.clear_stale(spd.epoch());
        let mut orphans: Vec<u64> =
            self.pairs().values().filter(|p| spd.tunnel(p.tunnel).is_none()).map(|p| p.id).collect();
        orphans.sort_unstable();
        orphans
    }

    /// The counters of the daemon, for datagrams that do not pass a worker.
    #[must_use]
    pub fn daemon_counters(&self) -> &WorkerCounters {
        // The last block: workers count from the first.
        self.counters.worker(WORKERS - 1)
    }

    /// A pair by its number.
    #[must_use]
    pub fn pair(&self, id: u64) -> Option<Pair> {
        self.pairs().get(&id).cloned()
    }

    /// All pairs, by number.
    #[must_use]
    pub fn all_pairs(&self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = self.pairs().values().cloned().collect();
        pairs.sort_unstable_by_key(|p| p.id);
        pairs
    }

    /// Packets that wait for an SA of a tunnel, with all workers.
    #[must_use]
    pub fn held(&self, tunnel: u32) -> u64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&tunnel).copied().unwrap_or(0)
    }

    /// `added` more packets wait for a tunnel, and `taken` no longer do.
    pub(crate) fn count_held(&self, tunnel: u32, added: u64, taken: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(tunnel).or_default();
        *count = (*count + added).saturating_sub(taken);
        if *count == 0 {
            held.remove(&tunnel);
        }
    }

    /// Each change of the map is one step, so a panic leaves nothing to repair.
    fn pairs(&self) -> MutexGuard<'_, HashMap<u64, Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
