//! Mode configuration in the engine (draft-ietf-ipsec-isakmp-mode-cfg-05): a client gets an
//! address, with networks to be reached and DNS servers, before its first quick mode. It asks
//! (pull), or is told (push); who has addresses to give is the daemon's to know.

use super::transaction::{About, Question};
use super::xauth::Admission;
use super::{Engine, IsakmpSa, Output, Timer};
use crate::failure::{Failure, Fault, Kind};
use crate::mode_config::{Assignment, wanted};
use crate::retransmit::GIVE_UP;
use crate::wire::{Attribute, AttributeValue, Attributes, AttributesKind};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::Level;
use policy::config::RemoteAccess;
use policy::time::Timestamp;
use std::sync::Arc;

/// How long the daemon may take to find an address: a client that asks gives up after 31 seconds.
const LEASE_WAIT: Duration = Duration::from_secs(20);

/// Who has an address of ours, under one ISAKMP SA.
#[derive(Default)]
pub(super) enum Lease {
    /// Nobody asked.
    #[default]
    None,
    /// The daemon was asked; the client's question waits, or it is to be told unasked.
    Wanted(Option<Box<Question>>),
    /// The client has it.
    Given(Assignment),
}

impl Engine {
    /// The user is known, or nobody asks for one: an address, if one is to be given or taken, and then quick mode.
    pub(super) fn begin_configuration(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (local, remote) = (sa.setup.local.ip(), sa.setup.remote.ip());
        match self.config.virtual_to(local, remote) {
            Some(RemoteAccess::Virtual { push: false }) => {
                sa.admission = Admission::Configuring;
                self.timers.cancel(&Timer::Admission(id));
                self.ask_peer(now, id, AttributesKind::REQUEST, wanted(), About::Configuration, entropy);
                return;
            }
            Some(_) => {
                sa.admission = Admission::Configuring;
                self.timers.set(Timer::Admission(id), now + GIVE_UP * 2);
                return;
            }
            None => {}
        }
        let push = self.config.pool_at(local).is_some_and(|pool| pool.push);
        if push && self.config.tunnels_to(remote).all(|t| matches!(t.remote_access, RemoteAccess::Leased(_))) {
            // It may answer only what it knows; its quick modes wait for that of themselves.
            self.want_lease(now, id, None);
        } else {
            self.admitted(now, id, entropy);
        }
    }

    /// The daemon is asked for an address for the peer of an SA.
    fn want_lease(&mut self, now: Timestamp, id: u64, question: Option<Box<Question>>) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Some(owner) = sa.owner() else { return };
        sa.lease = Lease::Wanted(question);
        let (local, peer) = (sa.setup.local.ip(), sa.setup.remote.ip());
        self.timers.set(Timer::Admission(id), now + LEASE_WAIT);
        self.output.push_back(Output::NeedLease { token: id, owner, local, peer });
    }

    /// A question of the peer that is not about users.
    pub(super) fn configuration_question(
        &mut self,
        now: Timestamp,
        id: u64,
        question: Question,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let (local, peer) = (sa.setup.local.ip(), sa.setup.remote.ip());
        if question.attributes.kind == AttributesKind::SET {
            let pushed = self.config.virtual_to(local, peer) == Some(&RemoteAccess::Virtual { push: true });
            // What is taken note of comes back, without values.
            let taken = |a: &Attribute| Attribute { kind: a.kind, value: AttributeValue::Variable(Vec::new()) };
            let (told, noted) =
                (question.attributes.clone(), question.attributes.attributes.iter().map(taken).collect());
            self.answer_question(now, id, question, if pushed { noted } else { Vec::new() });
            if pushed {
                self.configured(now, id, &told, entropy);
            }
            return;
        }
        // Before its user is known, a peer gets nothing.
        if let Some(failure) = self.not_admitted(id) {
            let text = format!("{peer} asks for an address (mode-config) too early: {}", failure.detail);
            self.audit(Level::Warning, 0, text);
            self.answer_question(now, id, question, Vec::new());
            return;
        }
        match &sa.lease {
            Lease::Given(assignment) => {
                let attributes = assignment.attributes(Some(&question.attributes));
                self.answer_question(now, id, question, attributes);
            }
            Lease::None if self.config.pool_at(local).is_some() => self.want_lease(now, id, Some(Box::new(question))),
            Lease::None => {
                let text = format!(
                    "{peer} asks for an address (mode-config), and no tunnel with tsource {local} has a pool: it gets \
                     none; write `pool` in a [[tunnel]], or have the peer not ask"
                );
                self.audit(Level::Warning, 0, text);
                self.answer_question(now, id, question, Vec::new());
            }
            Lease::Wanted(_) => self.answer_question(now, id, question, Vec::new()),
        }
    }

    /// The daemon has an address for the peer of an SA, or none: the answer to [`Output::NeedLease`].
    pub(super) fn leased(
        &mut self,
        now: Timestamp,
        id: u64,
        lease: Result<Assignment, String>,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let question = match std::mem::take(&mut sa.lease) {
            Lease::Wanted(question) => question,
            other => {
                sa.lease = other;
                return;
            }
        };
        self.timers.cancel(&Timer::Admission(id));
        let peer = sa.setup.remote.ip();
        let owner = sa.owner().unwrap_or_default();
        let assignment = match lease {
            Ok(assignment) => assignment,
            Err(reason) => {
                let text = format!("no address for `{owner}` at the peer {peer}: {reason}");
                if let Some(question) = question {
                    self.answer_question(now, id, *question, Vec::new());
                }
                let failure = Failure::new(Kind::Other, Fault::Ours, text, "see `addresses` and `lease` of the pool");
                self.admission_failed(now, id, &failure, entropy);
                return;
            }
        };
        let address = assignment.address;
        sa.lease = Lease::Given(assignment.clone());
        self.audit(Level::Informative, 0, format!("`{owner}` at the peer {peer} has the address {address}"));
        match question {
            Some(question) => {
                let attributes = assignment.attributes(Some(&question.attributes));
                self.answer_question(now, id, *question, attributes);
            }
            None => {
                let attributes = assignment.attributes(None);
                self.ask_peer(now, id, AttributesKind::SET, attributes, About::Lease, entropy);
            }
        }
    }

    /// The peer has told us our address, or has not.
    pub(super) fn configured(&mut self, now: Timestamp, id: u64, told: &Attributes, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id).filter(|sa| matches!(sa.admission, Admission::Configuring)) else {
            return;
        };
        let (local, peer) = (sa.setup.local.ip(), sa.setup.remote.ip());
        let assignment = match Assignment::read(told) {
            Ok(assignment) => assignment,
            Err(what) => {
                let failure = Failure::new(
                    Kind::Other,
                    Fault::Peer,
                    format!("the peer tells us {what} (mode-config)"),
                    "see whether the peer has an address left for our user, and look at its log",
                );
                self.admission_failed(now, id, &failure, entropy);
                return;
            }
        };
        sa.assigned = Some(assignment.clone());
        let mut text = format!("the peer {peer} gives us the address {}", assignment.address);
        let listed = |name: &str, all: Vec<String>| match all.is_empty() {
            true => String::new(),
            false => format!(", {name} {}", all.join(", ")),
        };
        text.push_str(&listed("networks", assignment.networks.iter().map(ToString::to_string).collect()));
        text.push_str(&listed("DNS servers", assignment.dns.iter().map(ToString::to_string).collect()));
        self.audit(Level::Informative, 0, text);
        if let Some(banner) = &assignment.banner {
            self.audit(Level::Informative, 0, format!("the peer {peer} says \"{banner}\""));
        }
        self.output.push_back(Output::Assigned { local, peer, assignment });
        self.admitted(now, id, entropy);
    }

    /// Nobody answers our question for an address, or takes note of the one that we gave.
    pub(super) fn not_configured(&mut self, now: Timestamp, id: u64, sent: usize, entropy: &mut dyn Entropy) {
        let failure = Failure::new(
            Kind::Other,
            Fault::Peer,
            format!("the peer does not tell us an address (mode-config), asked {sent} times"),
            "have the peer give addresses, or take `virtual` out of the tunnel",
        );
        self.admission_failed(now, id, &failure, entropy);
    }
}

impl IsakmpSa {
    /// Who owns what is given under it: the user, else whom phase 1 has shown.
    pub(super) fn owner(&self) -> Option<Arc<str>> {
        let identity = || self.state.established().map(|e| e.peer.identity().to_string());
        self.user.clone().or_else(identity).map(Into::into)
    }

    /// Whether a tunnel is this peer's: that of a client is only for whom its address was given to.
    pub(super) fn owns(&self, access: &RemoteAccess) -> bool {
        match access {
            RemoteAccess::Leased(owner) => self.owner().as_ref() == Some(owner),
            RemoteAccess::None => true,
            RemoteAccess::Pool(_) | RemoteAccess::Virtual { .. } => false,
        }
    }
}
