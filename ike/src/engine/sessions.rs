//! Sessions of EXCLUSIVE policies: each is a tunnel of its own, made when a packet or
//! the peer asks for it and forgotten with its last pair.
//!
//! Such a tunnel is the configured one with the session's selector, under a name that no
//! configuration can have. So all that holds for tunnels (one attempt at a time,
//! crossing quick modes, rekeys, deletes) holds for each session by itself.

use super::{Discarded, Engine, Output, Timer};
use crate::failure::{Failure, Fault, Kind};
use crate::ids::{self, ProxyId};
use crypto::Entropy;
use policy::config::{Config, StartMode, TunnelPolicy};
use policy::sa::Mode;
use policy::session::Session;
use policy::time::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;

use super::tunnels::Tunnel;

/// Of which configured tunnel a session is.
#[derive(Clone, Debug)]
pub(super) struct Of {
    pub(super) tunnel: Arc<str>,
    pub(super) session: Session,
}

/// The tunnel of a session.
fn narrowed(tunnel: &TunnelPolicy, session: &Session) -> TunnelPolicy {
    TunnelPolicy {
        // Names of configured tunnels have no spaces.
        name: format!("{} [{session}]", tunnel.name).into(),
        selector: session.selector(),
        start: match tunnel.start {
            StartMode::Respond => StartMode::Respond,
            StartMode::Traffic | StartMode::Boot => StartMode::Traffic,
        },
        ..tunnel.clone()
    }
}

impl Engine {
    /// A packet of a session waits: begin, unless there is a pair already.
    pub(super) fn initiate_session(&mut self, now: Timestamp, name: &str, session: Session, entropy: &mut dyn Entropy) {
        let found = match session.policy(&self.config) {
            Some((_, tunnel)) if *tunnel.name == *name => Ok(Arc::clone(tunnel)),
            _ => Err(format!("no EXCLUSIVE policy leads session {session} into tunnel `{name}`")),
        };
        let begun = found.and_then(|tunnel| {
            if self.stopping {
                self.discard(Discarded::Stopping);
                Err("the daemon is stopping".into())
            } else if self.awaits_message_3(&narrowed(&tunnel, &session).name) {
                // What waits leaves when that has come, or is given up with the pair.
                Ok(None)
            } else if tunnel.start == StartMode::Respond {
                Err(format!("tunnel `{name}` only responds (start = \"respond\"): its peer must begin"))
            } else if self.tunnels.get(&tunnel.name).is_some_and(|t| t.cleared) {
                Err(super::tunnels::waits_for_its_peer(name))
            } else {
                self.tunnel_of(&tunnel, session).map(Some).map_err(|failure| failure.detail)
            }
        });
        match begun {
            Ok(Some(tunnel)) if self.current_pair(&tunnel.name).is_none() => self.want(now, &tunnel.name, entropy),
            Ok(_) => {}
            Err(reason) => {
                self.output.push_back(Output::SessionFailed { tunnel: name.into(), session, reason });
            }
        }
    }

    /// The session that a peer asks for, with its tunnel of this mode, if it asks for one.
    pub(super) fn session_asked_for(
        &self,
        (local, remote): (IpAddr, IpAddr),
        mode: Mode,
        wanted: &(ProxyId, ProxyId),
    ) -> Option<(Arc<TunnelPolicy>, Session)> {
        if wanted.0.protocol != wanted.1.protocol {
            return None;
        }
        let session = Session::of_selector(&ids::selector(&wanted.0, &wanted.1))?;
        let (_, tunnel) = session.policy(&self.config)?;
        ((tunnel.tsource, tunnel.tdestination, tunnel.mode) == (local, remote, mode))
            .then(|| (Arc::clone(tunnel), session))
    }

    /// The tunnel of a session, made if it is not there.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(super) fn tunnel_of(
        &mut self,
        tunnel: &Arc<TunnelPolicy>,
        session: Session,
    ) -> Result<Arc<TunnelPolicy>, Failure> {
        let policy = narrowed(tunnel, &session);
        if let Some(known) = self.tunnels.get(&policy.name) {
            return Ok(Arc::clone(&known.policy));
        }
        let limit = self.config.startup.exclusive_sessions;
        if self.sessions >= limit {
            self.discard(Discarded::SessionLimit);
            return Err(Failure::new(
                Kind::NoSelector,
                Fault::Ours,
                format!("tunnel {}: no room for session {session}, there are {limit}", tunnel.name),
                "raise `exclusive_sessions` in [startup], or lower `cache_idle`, after which idle ones go",
            ));
        }
        let policy = Arc::new(policy);
        let of = Of { tunnel: Arc::clone(&tunnel.name), session };
        self.tunnels.insert(Arc::clone(&policy.name), Tunnel::of_session(Arc::clone(&policy), of));
        self.sessions += 1;
        self.ended.insert(Arc::clone(&policy.name));
        Ok(policy)
    }

    /// A session has carried nothing for long: its pairs go.
    pub(super) fn session_idle(&mut self, now: Timestamp, pair: u64, entropy: &mut dyn Entropy) {
        let Some(pair) = self.pairs.get(&pair).filter(|pair| pair.session.is_some()) else { return };
        for id in self.pairs_of(&Arc::clone(&pair.tunnel)) {
            self.remove_pair(now, id, "its session is idle", true, entropy);
        }
    }

    /// Forgets sessions that may have ended, if nothing is left of them.
    pub(super) fn forget_sessions(&mut self) {
        while let Some(name) = self.ended.pop_first() {
            let over = self.tunnels.get(&name).is_some_and(|t| t.of.is_some() && !t.wanted && t.attempt.is_none());
            if over && !self.by_tunnel.contains_key(&name) {
                self.remove_tunnel(&name);
            }
        }
    }

    /// Forgets a tunnel, of a session or not.
    pub(super) fn remove_tunnel(&mut self, name: &Arc<str>) {
        self.timers.cancel(&Timer::Tunnel(Arc::clone(name)));
        if self.tunnels.remove(name).is_some_and(|t| t.of.is_some()) {
            self.sessions -= 1;
        }
    }

    /// What waits for a tunnel, of a session or not, waits in vain.
    pub(super) fn in_vain(&mut self, name: &Arc<str>, reason: String) {
        self.output.push_back(match self.tunnels.get(name).and_then(|t| t.of.as_ref()) {
            Some(Of { tunnel, session }) => {
                Output::SessionFailed { tunnel: Arc::clone(tunnel), session: *session, reason }
            }
            None => Output::TunnelFailed { tunnel: Arc::clone(name), reason },
        });
    }
}

/// The tunnel of a session under another configuration; `None` if the session is no more one, or the
/// tunnel that it is of has other SAs.
pub(super) fn after_reload(of: &Of, old: &Config, new: &Config) -> Option<TunnelPolicy> {
    let (_, tunnel) = of.session.policy(new)?;
    let same = tunnel.name == of.tunnel && old.tunnel(&of.tunnel).is_some_and(|before| tunnel.has_same_sas(before));
    same.then(|| narrowed(tunnel, &of.session))
}
