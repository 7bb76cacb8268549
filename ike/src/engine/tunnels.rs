//! Tunnels: who wants a pair, and what is being done about it.

use super::sessions::Of;
use super::{Discarded, Engine, Output, Timer};
use crate::failure::{Failure, Fault, Kind, Role};
use crate::report::{TunnelReport, TunnelState};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::Level;
use policy::config::{RemoteAccess, StartMode, TunnelPolicy};
use policy::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;

/// First pause before a tunnel that starts at boot is tried again; doubles with each failure.
const BACK_OFF: Duration = Duration::from_secs(5);
/// The longest such pause.
const BACK_OFF_LIMIT: Duration = Duration::from_secs(300);
/// Pause after a failed rekey, while the old pair still works.
const REKEY_AGAIN: Duration = Duration::from_secs(10);
/// Pause before a tunnel that went down is started again: the peer that
/// deleted its SAs may be about to come back itself.
const RESTART: Duration = Duration::from_secs(1);

/// Attempts in a row that may be lost with their ISAKMP SA before the tunnel is given up: a peer
/// that deletes one SA after the other must not keep packets waiting for ever.
const LOSSES: u32 = 8;

/// What is under way for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// An ISAKMP SA, of ours, is being negotiated.
    Phase1(u64),
    /// A quick mode is under way, in either role.
    Phase2 { isakmp: u64, message_id: u32, role: Role },
}

/// One tunnel of the configuration, or of a session.
pub(super) struct Tunnel {
    pub(super) policy: Arc<TunnelPolicy>,
    /// `None`: of the configuration.
    pub(super) of: Option<Of>,
    /// A new pair is wanted.
    pub(super) wanted: bool,
    pub(super) attempt: Option<Attempt>,
    /// Its peer died, and it is to wait for it.
    pub(super) cleared: bool,
    /// Attempts lost since it was wanted.
    losses: u32,
    failures: u32,
    last_error: Option<(Timestamp, String)>,
}

impl Tunnel {
    pub(super) fn new(policy: Arc<TunnelPolicy>) -> Self {
        Self {
            policy,
            of: None,
            wanted: false,
            attempt: None,
            cleared: false,
            losses: 0,
            failures: 0,
            last_error: None,
        }
    }

    pub(super) fn of_session(policy: Arc<TunnelPolicy>, of: Of) -> Self {
        Self { of: Some(of), ..Self::new(policy) }
    }

    pub(super) fn report(&self, pair: Option<u64>, next_attempt: Option<Timestamp>) -> TunnelReport {
        TunnelReport {
            name: Arc::clone(&self.policy.name),
            state: match (pair, self.attempt) {
                (Some(_), _) => TunnelState::Up,
                (None, Some(_)) => TunnelState::Negotiating,
                (None, None) => TunnelState::Down,
            },
            start: self.policy.start,
            pair,
            last_error: self.last_error.clone(),
            failures: self.failures,
            next_attempt,
        }
    }
}

impl Engine {
    /// A packet waits, or somebody asks: begin, unless there is a pair already.
    pub(super) fn initiate(&mut self, now: Timestamp, name: &str, entropy: &mut dyn Entropy) {
        let Some((name, tunnel)) = self.tunnels.get_key_value(name) else {
            let reason = format!("tunnel `{name}` is not in the configuration");
            self.output.push_back(Output::TunnelFailed { tunnel: name.into(), reason });
            return;
        };
        let name = Arc::clone(name);
        if self.stopping {
            self.discard(Discarded::Stopping);
            let reason = "the daemon is stopping".into();
            self.output.push_back(Output::TunnelFailed { tunnel: name, reason });
        } else if self.awaits_message_3(&name) {
            // What waits leaves when that has come, or is given up with the pair.
        } else if tunnel.policy.start == StartMode::Respond {
            let reason = format!("tunnel `{name}` only responds (start = \"respond\"): its peer must begin");
            self.output.push_back(Output::TunnelFailed { tunnel: name, reason });
        } else if !self.config.is_shared(&name) {
            let reason = format!(
                "only EXCLUSIVE policies name tunnel `{name}`: each session has SAs of its own, negotiated when it begins"
            );
            self.output.push_back(Output::TunnelFailed { tunnel: name, reason });
        } else if tunnel.cleared {
            let reason = waits_for_its_peer(&name);
            self.output.push_back(Output::TunnelFailed { tunnel: name, reason });
        } else if self.current_pair(&name).is_none() {
            self.want(now, &name, entropy);
        }
    }

    /// A tunnel is due: at start, after a failure, or when it went down.
    pub(super) fn tunnel_due(&mut self, now: Timestamp, name: &Arc<str>, entropy: &mut dyn Entropy) {
        let start = self.tunnels.get(name).map(|t| t.policy.start);
        let rekey = self.current_pair(name).is_some();
        let wanted = |id: &u64| self.pairs.get(id).is_some_and(|p| p.rekey_wanted);
        let soft_passed = self.pairs_of(name).iter().any(wanted);
        match start {
            Some(StartMode::Boot) if !rekey => self.want(now, name, entropy),
            Some(_) if rekey && soft_passed => self.want(now, name, entropy),
            _ => {}
        }
    }

    /// A new pair is wanted for a tunnel.
    pub(super) fn want(&mut self, now: Timestamp, name: &Arc<str>, entropy: &mut dyn Entropy) {
        if self.stopping {
            return;
        }
        if let Some(tunnel) = self.tunnels.get_mut(name) {
            if !std::mem::replace(&mut tunnel.wanted, true) {
                tunnel.losses = 0;
            }
            self.timers.cancel(&Timer::Tunnel(Arc::clone(name)));
            self.pursue(now, name, entropy);
        }
    }

    /// Does the next thing for a wanted tunnel for which nothing is under way.
    pub(super) fn pursue(&mut self, now: Timestamp, name: &Arc<str>, entropy: &mut dyn Entropy) {
        let Some(tunnel) = self.tunnels.get(name) else { return };
        if !tunnel.wanted || tunnel.attempt.is_some() {
            return;
        }
        let policy = Arc::clone(&tunnel.policy);
        if let RemoteAccess::Pool(pool) = &policy.remote_access {
            let reason = format!("tunnel `{name}` is for clients of pool `{pool}`: nobody has that address now");
            self.tunnel_failed(now, name, reason, entropy);
            return;
        }
        if let Some(isakmp) = self.usable_isakmp(&policy) {
            if policy.is_template() {
                // Our address is known: the tunnels that are made for it go on from here.
                self.template_done(name);
                return;
            }
            self.start_quick_mode(now, isakmp, &policy, entropy);
            return;
        }
        let attempt = match self.negotiating_isakmp(&policy) {
            Some(isakmp) => Ok(isakmp),
            None => {
                let (local, remote) = self.path_to(&policy);
                self.begin_main_mode(now, local, remote, entropy)
            }
        };
        match attempt {
            Ok(isakmp) => {
                if let Some(tunnel) = self.tunnels.get_mut(name) {
                    tunnel.attempt = Some(Attempt::Phase1(isakmp));
                }
            }
            Err(reason) => self.tunnel_failed(now, name, reason, entropy),
        }
    }

    /// The newest ISAKMP SA under which a quick mode for this tunnel may begin.
    fn usable_isakmp(&self, policy: &TunnelPolicy) -> Option<u64> {
        let between = |sa: &&super::IsakmpSa| {
            sa.is_between(policy.tsource, policy.tdestination) && self.may_serve(sa, &policy.name)
        };
        self.isakmp.values().filter(between).filter(|sa| sa.is_usable()).map(|sa| sa.id).next_back()
    }

    /// A main mode of ours that will bring such an SA, if no other tunnel is to use it alone.
    fn negotiating_isakmp(&self, policy: &TunnelPolicy) -> Option<u64> {
        self.isakmp
            .values()
            .filter(|sa| sa.is_under_way())
            .filter(|sa| sa.is_between(policy.tsource, policy.tdestination))
            .find(|sa| {
                let waiting = self.tunnels.values().filter(|t| t.attempt == Some(Attempt::Phase1(sa.id))).count();
                let limit = sa.setup.policy.max_quick_modes;
                limit == 0 || waiting < limit as usize
            })
            .map(|sa| sa.id)
    }

    /// Addresses and ports for a new main mode: where the peer was last, if a
    /// NAT is between us, else the plain ports.
    fn path_to(&self, policy: &TunnelPolicy) -> (SocketAddr, SocketAddr) {
        let isakmp = self
            .isakmp
            .values()
            .rev()
            .filter(|sa| sa.is_between(policy.tsource, policy.tdestination) && self.may_serve(sa, &policy.name))
            .find(|sa| sa.state.established().is_some_and(|e| e.nat.remote))
            .map(|sa| (sa.setup.local, sa.setup.remote));
        let pair = || {
            let between = |p: &&super::Pair| (p.local.ip(), p.remote.ip()) == (policy.tsource, policy.tdestination);
            let translated = || self.pairs.values().rev().filter(between).filter(|p| p.nat.remote);
            let own = translated().find(|p| *p.tunnel == *policy.name);
            own.or_else(|| translated().next()).map(|p| (p.local, p.remote))
        };
        isakmp.or_else(pair).unwrap_or_else(|| {
            let port = self.config.startup.ike_port;
            (SocketAddr::new(policy.tsource, port), SocketAddr::new(policy.tdestination, port))
        })
    }

    /// An ISAKMP SA is there: begin what waits for one with that peer.
    pub(super) fn pursue_waiting(&mut self, now: Timestamp, isakmp: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&isakmp) else { return };
        let (local, remote) = (sa.setup.local.ip(), sa.setup.remote.ip());
        let waiting: Vec<_> = self
            .tunnels
            .iter()
            .filter(|(_, t)| (t.policy.tsource, t.policy.tdestination) == (local, remote))
            .filter(|(_, t)| t.wanted && !matches!(t.attempt, Some(Attempt::Phase2 { .. })))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in waiting {
            // Not more than the SA may protect: the others go on waiting for theirs.
            let mine = self.tunnels.get(&name).is_some_and(|t| t.attempt == Some(Attempt::Phase1(isakmp)));
            let usable = self.isakmp.get(&isakmp).is_some_and(super::IsakmpSa::is_usable);
            let serves = self.isakmp.get(&isakmp).is_some_and(|sa| self.may_serve(sa, &name));
            if mine && !serves {
                // Somebody else behind the same NAT has answered.
                self.attempt_lost(now, &name, entropy);
            } else if mine || usable {
                if let Some(tunnel) = self.tunnels.get_mut(&name) {
                    tunnel.attempt = None;
                }
                self.pursue(now, &name, entropy);
            }
        }
    }

    /// There is an ISAKMP SA under which the peer has given us an address, and tunnels for it: packets that came
    /// before are not of that address.
    fn template_done(&mut self, name: &Arc<str>) {
        self.tunnel_up(name);
        let reason = "packets that waited are not from the address that the peer has given us".into();
        self.output.push_back(Output::TunnelFailed { tunnel: Arc::clone(name), reason });
    }

    /// A negotiation for a tunnel failed.
    pub(super) fn tunnel_failed(&mut self, now: Timestamp, name: &Arc<str>, reason: String, entropy: &mut dyn Entropy) {
        let rekeying = self.current_pair(name).is_some();
        let Some(tunnel) = self.tunnels.get_mut(name) else { return };
        tunnel.wanted = false;
        tunnel.attempt = None;
        tunnel.failures = tunnel.failures.saturating_add(1);
        tunnel.last_error = Some((now, reason.clone()));
        let again = if rekeying {
            Some(REKEY_AGAIN)
        } else if tunnel.policy.start == StartMode::Boot {
            Some(BACK_OFF.saturating_mul(1 << (tunnel.failures - 1).min(16)).min(BACK_OFF_LIMIT))
        } else {
            None
        };
        if let Some(pause) = again.filter(|_| !self.stopping) {
            let at = now + jittered(pause, entropy);
            self.timers.set(Timer::Tunnel(Arc::clone(name)), at);
        }
        self.ended.insert(Arc::clone(name));
        self.in_vain(name, reason);
    }

    /// A negotiation that the peer began for a tunnel failed.
    pub(super) fn tunnel_refused(&mut self, now: Timestamp, name: &str, reason: String) {
        if let Some(tunnel) = self.tunnels.get_mut(name) {
            tunnel.last_error = Some((now, reason));
        }
    }

    /// A tunnel has a new pair in use.
    pub(super) fn tunnel_up(&mut self, name: &Arc<str>) {
        if let Some(tunnel) = self.tunnels.get_mut(name) {
            tunnel.wanted = false;
            tunnel.attempt = None;
            tunnel.cleared = false;
            tunnel.failures = 0;
        }
        // The peer of a session is that of all sessions of its tunnel.
        let of = self.tunnels.get(name).and_then(|t| t.of.as_ref()).map(|of| Arc::clone(&of.tunnel));
        if let Some(tunnel) = of.and_then(|of| self.tunnels.get_mut(&of)) {
            tunnel.cleared = false;
        }
        self.timers.cancel(&Timer::Tunnel(Arc::clone(name)));
    }

    /// A tunnel lost a pair; if it was the last one, it may have to be started again.
    pub(super) fn tunnel_lost_pair(&mut self, now: Timestamp, name: &Arc<str>) {
        let boot = self.tunnels.get(name).is_some_and(|t| t.policy.start == StartMode::Boot && !t.wanted && !t.cleared);
        let timer = Timer::Tunnel(Arc::clone(name));
        if boot && !self.stopping && self.current_pair(name).is_none() && !self.timers.contains(&timer) {
            self.timers.set(timer, now + RESTART);
        }
    }

    /// The ISAKMP SA or quick mode that a tunnel waited for is gone through no
    /// fault of the tunnel: go on with another one, but not for ever.
    pub(super) fn attempt_lost(&mut self, now: Timestamp, name: &Arc<str>, entropy: &mut dyn Entropy) {
        let Some(tunnel) = self.tunnels.get_mut(name) else { return };
        tunnel.attempt = None;
        self.ended.insert(Arc::clone(name));
        tunnel.losses = tunnel.losses.saturating_add(1);
        if tunnel.wanted && tunnel.losses > LOSSES {
            let peer = tunnel.policy.tdestination;
            let reason = format!(
                "tunnel {name} to {peer} given up: its ISAKMP SA went away {LOSSES} times before quick mode was done; \
                 look at the audit log of {peer} for why it deletes them"
            );
            self.audit(Level::Error, 0, reason.clone());
            self.tunnel_failed(now, name, reason, entropy);
        } else if !self.stopping {
            self.pursue(now, name, entropy);
        }
    }

    /// Tunnels for which an ISAKMP SA is being negotiated.
    pub(super) fn waiting_for(&self, isakmp: u64) -> Vec<Arc<str>> {
        let waits = |t: &Tunnel| t.attempt == Some(Attempt::Phase1(isakmp));
        self.tunnels.iter().filter(|(_, t)| waits(t)).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// A failure before anything was sent, in our configuration.
    pub(super) fn configuration_failure(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        role: Role,
        detail: &str,
        remedy: &str,
    ) -> String {
        let failure = Failure::new(Kind::Other, Fault::Ours, detail, remedy);
        let place = crate::failure::Place { exchange: crate::failure::Exchange::Main, role, local, remote };
        let event = failure.event(&place);
        debug_assert_eq!(event.level, Level::Error);
        let reason = event.text.clone();
        self.output.push_back(Output::Audit(event));
        reason
    }
}

/// Why nothing begins for a tunnel whose peer died.
pub(super) fn waits_for_its_peer(name: &str) -> String {
    format!("tunnel `{name}` waits for its peer, which died (dpd_action = \"clear\"); a reload begins anew too")
}

/// A pause, lengthened by up to a quarter, so that many do not end at once.
fn jittered(pause: Duration, entropy: &mut dyn Entropy) -> Duration {
    let quarter = pause.as_micros() as u64 / 4;
    pause + Duration::from_micros(entropy.next_u64() % (quarter + 1))
}
