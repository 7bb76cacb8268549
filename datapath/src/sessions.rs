//! The outbound SAs of sessions, each of which has a pair of its own, and how many
//! sessions there are: those with a pair, and those for which one was asked.

use crate::sa::OutboundSa;
use papaya::HashMap;
use policy::session::Session;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What packets wait for an SA of: a tunnel, or one session in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Index of the tunnel in the SPD.
    pub tunnel: u32,
    /// `None`: what shares the tunnel's SAs.
    pub session: Option<Session>,
}

impl From<u32> for Lane {
    fn from(tunnel: u32) -> Self {
        Self { tunnel, session: None }
    }
}

/// See the module. Readers take no lock; writers are the daemon, and a worker that asks for an SA.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    current: HashMap<Lane, Arc<OutboundSa>>,
    known: Mutex<BTreeMap<Lane, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// A worker waits for the daemon's answer.
    asked: bool,
    /// Pairs that are installed; those that are sent with have their SA, the oldest first.
    pairs: Vec<u64>,
    alive: Vec<(u64, Arc<OutboundSa>)>,
}

impl Known {
    fn is_over(&self) -> bool {
        !self.asked && self.pairs.is_empty()
    }
}

impl Sessions {
    /// The SA that a session's packets are sent with.
    pub(crate) fn current(&self, lane: &Lane) -> Option<Arc<OutboundSa>> {
        self.current.pin().get(lane).cloned()
    }

    /// The daemon is to be asked for an SA; `false`: there are as many sessions as may be.
    pub(crate) fn ask(&self, lane: Lane, limit: u32) -> bool {
        let mut known = self.known();
        let room = known.len() < limit as usize || known.contains_key(&lane);
        if room {
            known.entry(lane).or_default().asked = true;
        }
        room
    }

    /// The daemon has answered.
    pub(crate) fn answered(&self, lane: &Lane) {
        let mut known = self.known();
        if let Some(session) = known.get_mut(lane) {
            session.asked = false;
            if session.is_over() {
                known.remove(lane);
            }
        }
    }

    /// A pair is installed.
    pub(crate) fn add(&self, lane: Lane, pair: u64) {
        self.known().entry(lane).or_default().pairs.push(pair);
    }

    /// Sends with an installed pair from now on; older ones stay behind it.
    pub(crate) fn activate(&self, lane: Lane, pair: u64, sa: Arc<OutboundSa>) {
        let mut known = self.known();
        let Some(session) = known.get_mut(&lane) else { return };
        session.alive.retain(|(p, _)| *p != pair);
        session.alive.push((pair, Arc::clone(&sa)));
        self.current.pin().insert(lane, sa);
    }

    /// Sends with a pair no more. The youngest of those that are left takes over.
    pub(crate) fn retire(&self, lane: &Lane, pair: u64) {
        let mut known = self.known();
        let Some(session) = known.get_mut(lane) else { return };
        session.alive.retain(|(p, _)| *p != pair);
        match session.alive.last() {
            Some((_, sa)) => {
                self.current.pin().insert(*lane, Arc::clone(sa));
            }
            None => {
                self.current.pin().remove(lane);
            }
        }
    }

    /// A pair is gone.
    pub(crate) fn remove(&self, lane: &Lane, pair: u64) {
        self.retire(lane, pair);
        let mut known = self.known();
        if let Some(session) = known.get_mut(lane) {
            session.pairs.retain(|p| *p != pair);
            if session.is_over() {
                known.remove(lane);
            }
        }
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.known().len()
    }

    /// The map is whole between any two statements that change it.
    fn known(&self) -> MutexGuard<'_, BTreeMap<Lane, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
