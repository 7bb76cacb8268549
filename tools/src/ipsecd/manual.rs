//! SAs with manual keys: installed when the daemon starts or reloads, without IKE.

use super::daemon::Daemon;
use crate::report::SaState;
use crypto::table::Integrity;
use crypto::{Entropy, EspSuite, Secret};
use datapath::sa::SaEvent;
use datapath::{PairError, Shared};
use ike::report::{PairReport, PairState};
use policy::audit::PolicyEvent;
use policy::config::{ManualKeys, ManualSa, TunnelPolicy};
use policy::five_tuple::Direction;
use policy::sa::{Lifetime, OwnLimits, SaProtocol, SaSpec};
use policy::selector::Selector;
use policy::session::Session;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Sets manual pairs apart from the negotiated ones, which the engine counts from 1. The index of the
/// tunnel makes up the rest: no other tunnel ever has it.
const MANUAL: u64 = 1 << 63;

/// Whether a pair has manual keys.
pub(super) const fn is_manual(pair: u64) -> bool {
    pair & MANUAL != 0
}

/// The manual pairs there are, and since when.
#[derive(Debug, Default)]
pub(super) struct Manual(BTreeMap<u64, Timestamp>);

/// A pair of SAs as reports show it, negotiated or manual.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) id: u64,
    pub(super) tunnel: Arc<str>,
    pub(super) state: SaState,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
    pub(super) protocol: SaProtocol,
    pub(super) suite: EspSuite,
    /// Of a bundle: the algorithm of the AH, and the SPI of the outbound one.
    pub(super) ah: Option<(&'static Integrity, u32)>,
    pub(super) pfs: Option<&'static crypto::table::Group>,
    pub(super) selector: Selector,
    pub(super) lifetime: Lifetime,
    pub(super) created: Timestamp,
    pub(super) rekey: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    /// The session whose pair it is, if it is not shared.
    pub(super) session: Option<Session>,
}

impl From<PairReport> for Pair {
    fn from(pair: PairReport) -> Self {
        Self {
            id: pair.pair,
            tunnel: pair.tunnel,
            state: match pair.state {
                PairState::Larval => SaState::Larval,
                PairState::Mature => SaState::Mature,
                PairState::Dying => SaState::Dying,
            },
            local: pair.local.ip(),
            remote: pair.remote.ip(),
            inbound_spi: pair.inbound_spi,
            outbound_spi: pair.outbound_spi,
            protocol: pair.protocol,
            suite: pair.suite,
            ah: pair.ah,
            pfs: pair.pfs,
            selector: pair.selector,
            lifetime: pair.lifetime,
            created: pair.created,
            rekey: pair.rekey,
            expires: pair.expires,
            session: pair.session,
        }
    }
}

impl Manual {
    /// The pairs, by tunnel.
    pub(super) fn pairs(&self, shared: &Shared) -> Vec<Pair> {
        let pair = |(&id, &created): (&u64, &Timestamp)| {
            let sas = shared.pair(id)?;
            let (inbound, outbound) = (sas.inbound.spec(), sas.outbound.spec());
            Some(Pair {
                id,
                tunnel: Arc::clone(&inbound.tunnel),
                state: SaState::Mature,
                local: inbound.local,
                remote: inbound.remote,
                inbound_spi: inbound.spi,
                outbound_spi: outbound.spi,
                protocol: inbound.protocol,
                suite: inbound.suite,
                ah: None,
                pfs: None,
                selector: inbound.selector.clone(),
                lifetime: inbound.lifetime,
                created,
                rekey: None,
                expires: None,
                session: None,
            })
        };
        self.0.iter().filter_map(pair).collect()
    }
}

impl Daemon {
    /// All pairs, those with manual keys last.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let negotiated = self.engine.pairs().into_iter().map(Pair::from);
        negotiated.chain(self.manual.pairs(&self.shared)).collect()
    }

    /// Installs the manual SAs of the policies in force that are not there yet.
    pub(super) fn install_manual_keys(&mut self) {
        let config = Arc::clone(&self.config);
        for tunnel in &config.tunnels {
            let index = self.shared.spd.load().tunnel_index(&tunnel.name);
            let (Some(keys), Some(index), [transform]) = (&tunnel.manual, index, tunnel.transforms.as_slice()) else {
                continue;
            };
            let pair = MANUAL | u64::from(index);
            if self.manual.0.contains_key(&pair) {
                continue;
            }
            let (inbound, outbound) = specs(tunnel, keys, transform.suite, pair);
            match self.install_manual(&inbound, &outbound) {
                Ok(()) => {
                    self.manual.0.insert(pair, self.clock.now());
                }
                Err(e) => {
                    // HP-UX: the SA is not added, and that is said.
                    self.say(&match &e {
                        PairError::Duplicate(duplicate) => (*duplicate).into(),
                        other => PolicyEvent::InvalidSa { spi: inbound.spi, reason: other.to_string() },
                    });
                }
            }
        }
    }

    fn install_manual(&mut self, inbound: &SaSpec, outbound: &SaSpec) -> Result<(), PairError> {
        let mut iv_key = [0; 16];
        self.entropy.fill(&mut iv_key);
        let pair = self.datapath.install_pair(inbound, outbound, &iv_key)?;
        for sa in [inbound, outbound] {
            self.exported(|export| export.esp_sa(sa));
        }
        self.datapath.activate_outbound(pair.id)?;
        Ok(())
    }

    /// Removes the manual SAs among `orphans`, the pairs whose tunnels are gone or others by now.
    pub(super) fn remove_manual_keys(&mut self, orphans: &[u64]) {
        for pair in orphans.iter().filter(|pair| self.manual.0.remove(pair).is_some()) {
            if let Err(e) = self.datapath.remove_pair(*pair) {
                tracing::error!("{e}");
            }
        }
    }

    /// A manual SA that counts its sequence numbers has few left, or none.
    pub(super) fn manual_limit(&self, event: SaEvent) {
        let name = self.shared.pair(event.pair()).map(|pair| Arc::clone(&pair.inbound.spec().tunnel));
        let name = name.as_deref().unwrap_or("?");
        let what = match event {
            SaEvent::SoftLimit { .. } => "soon has no sequence numbers left",
            SaEvent::HardLimit { .. } => "has no sequence numbers left and sends nothing any more",
        };
        tracing::error!("tunnel `{name}` with manual keys {what}: change its keys at both ends, and reload");
    }
}

/// Both SAs of a tunnel with manual keys. They have no lifetimes.
fn specs(tunnel: &TunnelPolicy, keys: &ManualKeys, suite: EspSuite, pair: u64) -> (SaSpec, SaSpec) {
    let spec = |direction, ManualSa { spi, keymat }: &ManualSa| SaSpec {
        spi: *spi,
        direction,
        local: tunnel.tsource,
        remote: tunnel.tdestination,
        protocol: SaProtocol::Esp,
        mode: tunnel.mode,
        original: None,
        suite,
        keymat: Secret::clone(keymat),
        ah: None,
        esn: false,
        anti_replay: keys.anti_replay,
        selector: tunnel.selector.clone(),
        encapsulation: None,
        lifetime: Lifetime { seconds: 0, kbytes: 0 },
        own: OwnLimits::NONE,
        tunnel: Arc::clone(&tunnel.name),
        pair,
        session: None,
    };
    (spec(Direction::Inbound, &keys.inbound), spec(Direction::Outbound, &keys.outbound))
}
