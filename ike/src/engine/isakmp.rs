//! One ISAKMP SA, from its first message to its deletion, with the exchanges
//! under it.

use super::doubts::Doubts;
use super::mode_config::Lease;
use super::transaction::Transactions;
use super::xauth::Admission;
use crate::failure::{Exchange, Failure, Place, Role};
use crate::main_mode::{Established, MainMode, Setup};
use crate::mode_config::Assignment;
use crate::proposal::phase2::Agreed;
use crate::quick_mode::QuickMode;
use crate::report::IsakmpReport;
use crate::retransmit::{Answer, Request};
use crate::vendor::Vendors;
use core::fmt;
use policy::config::{AuthMethod, Xauth};
use policy::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Why a message was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discarded {
    /// Not a well-formed ISAKMP message.
    Malformed,
    /// The cookies and addresses are of no SA.
    UnknownSa,
    /// An exchange type that is not supported.
    Exchange,
    /// The same message as before; answered as before.
    Duplicate,
    /// A message ID that was used before, or one too many.
    Replayed,
    /// It does not decrypt, or its hash is wrong.
    NotAuthentic,
    /// Payloads are missing, too many, or not acceptable at this point.
    Unexpected,
    /// Too many negotiations are half-open, in all or from this address: this one, or one that gave way to it.
    HalfOpenLimit,
    /// No IKE policy or authentication record for the peer, or refused before.
    Refused,
    /// The peer's quick mode lost against ours for the same tunnel.
    Collision,
    /// The peer asks for what somebody else behind the same NAT has, who is being asked whether he is there.
    Contested,
    /// A session is to have a pair of its own, and there are as many as may be.
    SessionLimit,
    /// Too many begin in aggressive mode, in all or from this address.
    AggressiveLimit,
    /// A piece of a message that is here already.
    FragmentDuplicate,
    /// A piece that contradicts others, or pieces that make no message of their sender's.
    FragmentInconsistent,
    /// Too much in pieces, or from somebody of whom nothing is known.
    FragmentLimit,
    /// A message of which pieces did not come in time.
    FragmentIncomplete,
    /// We are shutting down.
    Stopping,
    /// Our answer would be longer than the message, and nothing shows who sent it.
    TooShortToAnswer,
}

impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::UnknownSa => "unknown_sa",
            Self::Exchange => "exchange",
            Self::Duplicate => "duplicate",
            Self::Replayed => "replayed",
            Self::NotAuthentic => "not_authentic",
            Self::Unexpected => "unexpected",
            Self::HalfOpenLimit => "half_open_limit",
            Self::Refused => "refused",
            Self::Collision => "collision",
            Self::Contested => "contested",
            Self::SessionLimit => "session_limit",
            Self::AggressiveLimit => "aggressive_limit",
            Self::FragmentDuplicate => "fragment_duplicate",
            Self::FragmentInconsistent => "fragment_inconsistent",
            Self::FragmentLimit => "fragment_limit",
            Self::FragmentIncomplete => "fragment_incomplete",
            Self::Stopping => "stopping",
            Self::TooShortToAnswer => "too_short_to_answer",
        })
    }
}

/// Message IDs remembered per ISAKMP SA, of either side: with so many it takes no new quick mode,
/// and is replaced.
pub(super) const WORN: usize = 16_384;
/// With so many it ends: what is left is for saying so.
pub(super) const WORN_OUT: usize = WORN + 1024;
/// More are not remembered: nothing new is accepted or sent.
const MESSAGE_IDS: usize = WORN_OUT + 64;

/// Unknown SPIs remembered per quick mode that the peer deletes before it is done.
const EARLY_DELETES: usize = 16;

/// A limit of the volume of an ISAKMP SA's lifetime (RFC 2409 appendix A, life type kilobytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VolumeLimit {
    /// It is to be replaced.
    Soft,
    /// It ends.
    Hard,
}

/// A message that waits for the pre-shared key.
pub(super) struct Held {
    pub(super) payload: Vec<u8>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// One ISAKMP SA.
pub(super) struct IsakmpSa {
    pub(super) id: u64,
    pub(super) role: Role,
    pub(super) setup: Setup,
    pub(super) state: MainMode,
    pub(super) started: Timestamp,
    pub(super) established: Option<Timestamp>,
    /// When that was, among all that was begun and established here: its number and those of SAs and pairs, which are
    /// as old as they, come from one counter. Times may be equal.
    pub(super) order: Option<u64>,
    /// Our last message of main mode, while it is to be repeated.
    pub(super) request: Option<Request>,
    /// The peer's last message of main mode that was accepted.
    pub(super) last_received: Vec<u8>,
    /// Our answer to it.
    pub(super) reply: Option<Answer>,
    pub(super) held: Option<Held>,
    /// Between which addresses the last encrypted message of main mode came, which is not yet judged.
    pub(super) arrived: Option<(SocketAddr, SocketAddr)>,
    /// The best explanation so far, should the negotiation fail.
    pub(super) hint: Option<Failure>,
    /// A failure was reported already.
    pub(super) reported: bool,
    /// Quick modes by message ID.
    pub(super) exchanges: BTreeMap<u32, Quick>,
    /// Message IDs that were used.
    pub(super) message_ids: BTreeSet<u32>,
    /// Quick modes so far, whoever began.
    pub(super) quick_modes: u32,
    /// Those of them that the peer began.
    pub(super) answered: u32,
    /// Octets of messages under its keys, both ways.
    octets: u64,
    /// The peer has shown that it holds the SA too.
    pub(super) confirmed: bool,
    /// Another SA replaces it: nothing new begins under it.
    pub(super) retired: bool,
    /// The peer did not answer under it: nothing new begins under it.
    pub(super) suspect: bool,
    /// When something authentic last came from the peer.
    pub(super) heard: Timestamp,
    /// When something that is not authentic last had the peer asked.
    pub(super) suspected: Option<Timestamp>,
    pub(super) probe: Option<Probe>,
    /// Refusals that name no quick mode.
    pub(super) doubts: Doubts,
    /// What the peer says that it is and can.
    pub(super) vendors: Vendors,
    /// What comes between phase 1 and quick mode.
    pub(super) admission: Admission,
    /// The peer has said INITIAL-CONTACT before it had shown who it is.
    pub(super) first_contact: bool,
    /// The peer's user, once he is believed.
    pub(super) user: Option<String>,
    pub(super) transactions: Transactions,
    /// The address that we gave its peer.
    pub(super) lease: Lease,
    /// The address that its peer gave us, with what goes with it.
    pub(super) assigned: Option<Assignment>,
}

/// One quick mode.
pub(super) struct Quick {
    pub(super) state: QuickMode,
    pub(super) role: Role,
    pub(super) tunnel: Arc<str>,
    pub(super) request: Option<Request>,
    pub(super) last_received: Option<Vec<u8>>,
    pub(super) reply: Option<Answer>,
    /// The pair it made.
    pub(super) pair: Option<u64>,
    /// The peer has set the commit bit: it says with CONNECTED when the pair may be used.
    pub(super) commit: bool,
    /// Best explanation so far, should it fail.
    pub(super) hint: Option<Failure>,
    /// SPIs that the peer has deleted and we do not know, while we wait for its answer: it may be of one.
    pub(super) deleted: Vec<u32>,
    /// The peer's quick mode (ISAKMP SA and message ID) that began at the same time and must give way to this one.
    pub(super) outdone: Option<(u64, u32)>,
}

/// R-U-THERE on its way (RFC 3706).
pub(super) struct Probe {
    pub(super) sequence: u32,
    pub(super) sent: u32,
    /// Times it is sent at most.
    pub(super) most: u32,
}

impl Quick {
    /// One of which nothing has been sent or received.
    pub(super) fn new(state: QuickMode, role: Role, tunnel: &Arc<str>) -> Self {
        Self {
            state,
            role,
            tunnel: Arc::clone(tunnel),
            request: None,
            last_received: None,
            reply: None,
            pair: None,
            commit: false,
            hint: None,
            deleted: Vec::new(),
            outdone: None,
        }
    }

    /// The peer has deleted an SA that we do not know: perhaps the one of an answer that is still on its way.
    pub(super) fn forestall(&mut self, spi: u32) {
        if matches!(self.state, QuickMode::InitiatorSent(_)) && self.deleted.len() < EARLY_DELETES {
            self.deleted.push(spi);
        }
    }

    /// Whether the peer has deleted this SA of its already.
    pub(super) fn is_forestalled(&self, agreed: &Agreed) -> bool {
        self.deleted.contains(&agreed.spi) || agreed.ah.is_some_and(|(_, spi)| self.deleted.contains(&spi))
    }

    /// The SPI of ours that is offered in it and belongs to no pair yet.
    pub(super) fn offered_spi(&self) -> Option<u32> {
        match &self.state {
            QuickMode::InitiatorSent(state) => Some(state.spi),
            QuickMode::Abandoned(state) => Some(state.spi()),
            QuickMode::ResponderSent(_) | QuickMode::Finished => None,
        }
    }
}

impl IsakmpSa {
    pub(super) fn new(id: u64, role: Role, setup: Setup, state: MainMode, now: Timestamp) -> Self {
        Self {
            id,
            role,
            setup,
            state,
            started: now,
            established: None,
            order: None,
            request: None,
            last_received: Vec::new(),
            reply: None,
            held: None,
            arrived: None,
            hint: None,
            reported: false,
            exchanges: BTreeMap::new(),
            message_ids: BTreeSet::new(),
            quick_modes: 0,
            answered: 0,
            octets: 0,
            confirmed: role == Role::Initiator,
            retired: false,
            suspect: false,
            heard: now,
            suspected: None,
            probe: None,
            doubts: Doubts::default(),
            vendors: Vendors::default(),
            admission: Admission::default(),
            first_contact: false,
            user: None,
            transactions: Transactions::default(),
            lease: Lease::default(),
            assigned: None,
        }
    }

    /// What it was established with, and one of its quick modes.
    pub(super) fn exchange(&mut self, message_id: u32) -> Option<(&Established, &mut Quick)> {
        Some((self.state.established()?, self.exchanges.get_mut(&message_id)?))
    }

    /// Whether long messages go in pieces: the policy has it, and the peer has announced it.
    pub(super) fn takes_fragments(&self) -> bool {
        self.setup.policy.fragment_size.is_some() && self.vendors.fragmentation()
    }

    /// Where a failure of phase 1 is.
    pub(super) fn place(&self) -> Place {
        let exchange = self.setup.exchange.into();
        Place { exchange, role: self.role, local: self.setup.local, remote: self.setup.remote }
    }

    /// Where a quick mode failure is.
    pub(super) fn quick_place(&self, message_id: u32, role: Role) -> Place {
        Place { exchange: Exchange::Quick { message_id }, role, ..self.place() }
    }

    /// Whether its peer has proved nothing yet: in hybrid authentication a client does that with its user alone, after
    /// phase 1 (draft-ietf-ipsec-isakmp-hybrid-auth-05 2). Until then anybody could have made this SA, under any
    /// name: nothing but the question for the user is negotiated under it, and what it says is of itself alone.
    pub(super) fn awaits_proof(&self) -> bool {
        self.state.established().is_some_and(|e| e.method == AuthMethod::Hybrid)
            && !matches!(self.setup.auth.xauth, Some(Xauth::Client { .. }))
            && !self.admission.lets_in()
    }

    /// Whether it is between the same addresses.
    pub(super) fn is_between(&self, local: std::net::IpAddr, remote: std::net::IpAddr) -> bool {
        self.setup.local.ip() == local && self.setup.remote.ip() == remote
    }

    /// Whether it is being negotiated: by us, or up to the admission of a user on either side.
    pub(super) fn is_under_way(&self) -> bool {
        match self.state.established() {
            Some(_) => !self.admission.is_complete(),
            None => self.role == Role::Initiator,
        }
    }

    /// Whether a new quick mode of ours may begin under it.
    pub(super) fn is_usable(&self) -> bool {
        let limit = self.setup.policy.max_quick_modes;
        self.state.established().is_some()
            && self.admission.is_complete()
            && !self.retired
            && !self.suspect
            && (limit == 0 || self.quick_modes < limit)
            && self.message_ids.len() < WORN
    }

    /// Counts a message under its keys; which limit of volume that reaches, if any.
    pub(super) fn charge(&mut self, octets: usize) -> Option<VolumeLimit> {
        let before = self.octets;
        self.octets = before.saturating_add(octets as u64);
        let kbytes = self.state.established().map_or(0, |e| e.lifetime.kbytes);
        let hard = u64::from(kbytes) * 1024;
        // An eighth is left to negotiate the successor in.
        let soft = hard - hard / 8;
        let reaches = |limit: u64| before < limit && self.octets >= limit;
        match kbytes {
            0 => None,
            _ if reaches(hard) => Some(VolumeLimit::Hard),
            _ if reaches(soft) => Some(VolumeLimit::Soft),
            _ => None,
        }
    }

    /// Whether the peer has begun all the quick modes that it may under this SA.
    pub(super) fn has_served(&self) -> bool {
        let limit = self.setup.policy.max_quick_modes;
        limit != 0 && self.answered >= limit
    }

    /// Whether the peer may begin an exchange under this message ID: it is new, and there is room to remember it.
    pub(super) fn takes(&self, message_id: u32) -> bool {
        message_id != 0 && self.message_ids.len() < MESSAGE_IDS && !self.message_ids.contains(&message_id)
    }

    pub(super) fn report(&self, expires: Option<Timestamp>) -> IsakmpReport {
        let established = self.state.established();
        IsakmpReport {
            initiator_cookie: self.setup.cookies.initiator.0,
            responder_cookie: self.setup.cookies.responder.0,
            role: self.role,
            exchange: self.setup.exchange,
            state: self.state.name().report(),
            local: self.setup.local,
            remote: self.setup.remote,
            policy: self.setup.policy.name.clone(),
            auth_record: self.setup.auth.name.clone(),
            method: self.state.method(),
            suite: established.map(|e| e.keys.suite),
            local_identity: self.setup.local_identity(),
            peer_identity: established.map(|e| e.peer.identity().clone()),
            peer_certificate: established.and_then(|e| e.peer.certificate().cloned()),
            started: self.started,
            established: self.established,
            lifetime: established.map(|e| e.lifetime),
            expires,
            nat: established.map(|e| e.nat).unwrap_or_default(),
            vendors: self.vendors.names().to_vec(),
            fragmentation: self.takes_fragments(),
            quick_modes: self.quick_modes,
            retiring: self.retired,
            user: self.user.clone(),
            leased: match &self.lease {
                Lease::Given(assignment) => Some(assignment.address),
                Lease::None | Lease::Wanted(_) => None,
            },
            assigned: self.assigned.clone(),
            admitted: self.admission.lets_in(),
        }
    }
}
