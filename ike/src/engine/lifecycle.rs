//! ISAKMP SAs once established: in use, replaced, ended; and what reaches all
//! of them: reload, deletion by command, shutdown.

use super::aggressive::abbreviation;
use super::isakmp::VolumeLimit;
use super::pairs::{GRACE, GRACE_OF_THE_OTHER, soft_limit};
use super::sessions::after_reload;
use super::source::Source;
use super::tunnels::{Attempt, Tunnel};
use super::{Engine, Output, Timer};
use crate::failure::Role;
use crate::informational;
use crate::proposal::{OfferedLifetime, shorter_lifetime};
use crate::quick_mode::QuickMode;
use crate::wire::numbers::{NotifyKind, phase1_attribute as class};
use crate::wire::{Attribute, Notification, Payload};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::Level;
use policy::config::{AuthRecord, Config, Identity, IkePolicy, Phase1Exchange, StartMode};
use policy::time::Timestamp;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How long a responder waits for a sign that the initiator has the SA too.
const CONFIRMATION: Duration = Duration::from_secs(35);

/// How long an initiator of aggressive mode waits for a sign that its message 3 has arrived.
const REPETITION: Duration = Duration::from_secs(1);

impl Engine {
    /// Both sides are authenticated.
    pub(super) fn isakmp_established(
        &mut self,
        now: Timestamp,
        id: u64,
        initial_contact: bool,
        entropy: &mut dyn Entropy,
    ) {
        let order = self.id();
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.established = Some(now);
        sa.order = Some(order);
        sa.heard = now;
        // Nothing answers message 3 of aggressive mode.
        sa.confirmed &= sa.setup.exchange == Phase1Exchange::Main;
        let unproven = sa.awaits_proof();
        let Some(established) = sa.state.established() else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        let nat = established.nat;
        let place = match (nat.forced, nat.local, nat.remote) {
            (true, ..) => ", NAT traversal forced",
            (_, true, true) => ", both sides behind a NAT",
            (_, true, _) => ", we are behind a NAT",
            (_, _, true) => ", the peer is behind a NAT",
            _ => "",
        };
        let pieces = if sa.takes_fragments() { ", IKE fragmentation" } else { "" };
        let vendors = match sa.vendors.names() {
            [] => String::new(),
            names => format!("; the peer announces {}", names.join(", ")),
        };
        let text = format!(
            "{} negotiation complete with the peer {}: identity {}{}{}, as {}, {}, ike policy {}{place}{pieces}{vendors}",
            abbreviation(sa.setup.exchange),
            remote.ip(),
            established.peer.identity(),
            if unproven { " (HYBRID: not proved before its user is believed)" } else { "" },
            established.peer.certificate().map_or(String::new(), |c| format!(" ({}: {c})", established.method)),
            sa.role,
            established.keys.suite,
            sa.setup.policy.name,
        );
        if self.config.startup.export_keys.is_some() {
            self.output.push_back(Output::IsakmpKeys {
                initiator_cookie: sa.setup.cookies.initiator.0,
                encryption_key: established.keys.encryption_key().clone(),
            });
        }
        if established.lifetime.seconds != 0 {
            let hard = Duration::from_secs(u64::from(established.lifetime.seconds));
            self.timers.set(Timer::IsakmpHard(id), now + hard);
            self.timers.set(Timer::IsakmpSoft(id), now + soft_limit(hard, sa.role, entropy));
        }
        match (sa.role, sa.setup.exchange) {
            (Role::Responder, _) => self.timers.set(Timer::Confirmation(id), now + CONFIRMATION),
            (Role::Initiator, Phase1Exchange::Aggressive) => self.timers.set(Timer::Confirmation(id), now + REPETITION),
            (Role::Initiator, Phase1Exchange::Main) => {}
        }
        self.audit(Level::Informative, 0, text);
        if !unproven {
            self.proved(id, remote.ip());
        }
        self.watch(now, id);
        if nat.local || nat.forced {
            self.keep_alive(now, local, remote);
        }
        if initial_contact {
            self.initial_contact(now, id, entropy);
        }
        self.tell_lifetime(now, id, entropy);
        self.begin_admission(now, id, entropy);
    }

    /// The peer of an SA has shown who it is: it is no half-open one any more.
    pub(super) fn proved(&mut self, id: u64, peer: IpAddr) {
        self.half_open.remove(Source::of(peer), id);
        self.contacted.add(peer);
    }

    /// Quick modes may begin.
    pub(super) fn isakmp_ready(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        self.supersede(now, id);
        self.pursue_waiting(now, id, entropy);
    }

    /// Sends a message under the keys of an SA, and counts it.
    pub(super) fn transmit_under(&mut self, now: Timestamp, id: u64, message: &[u8]) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        self.charge(now, id, message.len());
        self.transmit(local, remote, message);
    }

    /// Counts an authentic message under an SA, which may end by volume as well as by time.
    pub(super) fn charge(&mut self, now: Timestamp, id: u64, octets: usize) {
        match self.isakmp.get_mut(&id).and_then(|sa| sa.charge(octets)) {
            Some(VolumeLimit::Soft) => self.timers.set(Timer::IsakmpSoft(id), now),
            Some(VolumeLimit::Hard) => self.timers.set(Timer::IsakmpHard(id), now),
            None => {}
        }
    }

    /// The initiator offered a longer lifetime than ours: it is told (RFC 2407 4.5.4), as the
    /// answer to its proposal could not say so.
    fn tell_lifetime(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id).filter(|sa| sa.role == Role::Responder) else { return };
        let Some(established) = sa.state.established().filter(|e| e.shortened) else { return };
        let data = crate::proposal::phase1::responder_lifetime(established.lifetime);
        let told = informational::isakmp_notification(sa.setup.cookies, NotifyKind::RESPONDER_LIFETIME, data);
        self.send_informational(now, id, vec![Payload::Notification(told)], false, entropy);
    }

    /// A new ISAKMP SA replaces the older ones with the same peer. Of two that
    /// were negotiated at the same time, one in each direction, the one with
    /// the lower initiator's cookie gives way, so that both sides keep the same.
    fn supersede(&mut self, now: Timestamp, id: u64) {
        let Some(new) = self.isakmp.get(&id) else { return };
        let Some(who) = new.state.established() else { return };
        let Some(peer) = new.peer() else { return };
        let others: Vec<_> = self
            .isakmp
            .values()
            .filter(|sa| sa.id != id && !sa.retired && sa.is_with(&peer))
            .filter(|sa| sa.state.established().is_some_and(|e| e.peer.identity() == who.peer.identity()))
            .map(|old| {
                let crossing = old.role != new.role && old.order.is_some_and(|order| order > new.id);
                let old_wins = crossing && old.setup.cookies.initiator > new.setup.cookies.initiator;
                let (loser, deletes) = if old_wins {
                    (id, new.role == Role::Initiator)
                } else if crossing {
                    (old.id, old.role == Role::Initiator)
                } else {
                    (old.id, new.role == Role::Initiator)
                };
                (loser, deletes)
            })
            .collect();
        for (loser, deletes) in others {
            let grace = if deletes { GRACE } else { GRACE_OF_THE_OTHER };
            self.timers.set(Timer::IsakmpRetire(loser), now + grace);
            if let Some(sa) = self.isakmp.get_mut(&loser) {
                sa.retired = true;
            }
        }
    }

    /// A replaced ISAKMP SA has had its time.
    pub(super) fn isakmp_retire(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let busy = sa.exchanges.values().any(|x| x.request.is_some());
        if busy {
            self.timers.set(Timer::IsakmpRetire(id), now + GRACE);
        } else if self.has_successor(sa) {
            self.delete_isakmp(now, id, "replaced by a newer one", true, entropy);
        } else if let Some(sa) = self.isakmp.get_mut(&id) {
            sa.retired = false;
        }
    }

    /// Whether there is another SA in use with its peer.
    fn has_successor(&self, of: &super::IsakmpSa) -> bool {
        let Some(peer) = of.peer() else { return false };
        let other = |sa: &&super::IsakmpSa| sa.id != of.id && !sa.retired && sa.admission.is_complete();
        self.isakmp.values().filter(other).any(|sa| sa.is_with(&peer))
    }

    /// An ISAKMP SA nears its end: negotiate its successor, if anything depends on it.
    pub(super) fn isakmp_soft(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let (local, remote) = (sa.setup.local, sa.setup.remote);
        if self.stopping || sa.retired || self.has_successor(sa) {
            return;
        }
        let needed = self.tunnels.values().any(|t| {
            sa.peer().is_some_and(|peer| self.is_tunnel_of(t, &peer))
                && (t.policy.start == StartMode::Boot || self.current_pair(&t.policy.name).is_some())
        });
        if needed {
            self.replace_isakmp(now, local, remote, entropy);
        }
    }

    /// Begins main mode with a peer that an SA exists with, unless one is under way.
    pub(super) fn replace_isakmp(
        &mut self,
        now: Timestamp,
        local: SocketAddr,
        remote: SocketAddr,
        entropy: &mut dyn Entropy,
    ) {
        // Behind a NAT others have the address too; a negotiation that began at a well-known port has not met one yet.
        let startup = &self.config.startup;
        let plain = |port| port == startup.ike_port || port == startup.natt_port;
        let to_peer = |there: SocketAddr| {
            there.ip() == remote.ip() && (there.port() == remote.port() || plain(there.port()) && plain(remote.port()))
        };
        let ours = |sa: &&super::IsakmpSa| sa.is_under_way() && sa.setup.local.ip() == local.ip();
        let under_way = self.isakmp.values().filter(ours).any(|sa| to_peer(sa.setup.remote));
        if !under_way {
            // A failure is reported where it happens; the old SA stays until its end.
            let _ = self.begin_main_mode(now, local, remote, entropy);
        }
    }

    /// An administrator wants new ISAKMP SAs with a peer.
    pub(super) fn rekey_peer(&mut self, now: Timestamp, peer: IpAddr, entropy: &mut dyn Entropy) {
        let paths: BTreeSet<_> = self
            .isakmp
            .values()
            .filter(|sa| sa.setup.remote.ip() == peer && sa.established.is_some() && !sa.retired)
            .map(|sa| (sa.setup.local, sa.setup.remote))
            .collect();
        if paths.is_empty() {
            self.audit(Level::Warning, 0, format!("no ISAKMP SA with {peer} to be replaced"));
        }
        for (local, remote) in paths {
            self.replace_isakmp(now, local, remote, entropy);
        }
    }

    /// An ISAKMP SA ends. The pairs made under it live on.
    pub(super) fn isakmp_hard(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        // Some peers take the pairs away with their last ISAKMP SA: they are
        // not told while there are pairs that need no telling.
        let alone = !self.has_successor(sa);
        let pairs = sa.peer().is_some_and(|peer| self.pairs.values().any(|p| p.peer().is(&peer)));
        self.delete_isakmp(now, id, "its lifetime is over", !(alone && pairs), entropy);
    }

    /// The peer shortens the lifetime of an ISAKMP SA (RFC 2407 4.6.3.1).
    pub(super) fn shorten_isakmp(&mut self, id: u64, notification: &Notification, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let (Some(since), role) = (sa.established, sa.role) else { return };
        let crate::main_mode::MainMode::Established(established) = &mut sa.state else { return };
        let attributes = Attribute::decode_list(&notification.data).unwrap_or_default();
        let told = OfferedLifetime::read(&attributes, class::LIFE_TYPE, class::LIFE_DURATION);
        let agreed = shorter_lifetime(established.lifetime, told.stated_only());
        let absurd = agreed.seconds < 60 && !sa.setup.short_lifetimes;
        if agreed.seconds != 0 && agreed != established.lifetime && !absurd {
            established.lifetime = agreed;
            let hard = Duration::from_secs(u64::from(agreed.seconds));
            self.timers.set(Timer::IsakmpHard(id), since + hard);
            self.timers.set(Timer::IsakmpSoft(id), since + soft_limit(hard, role, entropy));
        }
    }

    /// Deletes an ISAKMP SA; `tell` the peer.
    pub(super) fn delete_isakmp(
        &mut self,
        now: Timestamp,
        id: u64,
        reason: &str,
        tell: bool,
        entropy: &mut dyn Entropy,
    ) {
        if tell && let Some(cookies) = self.isakmp.get(&id).map(|sa| sa.setup.cookies) {
            self.send_informational(now, id, vec![informational::isakmp_delete(cookies)], true, entropy);
        }
        self.isakmp_gone(now, id, reason, entropy);
    }

    /// An ISAKMP SA is gone: what was under way under it goes on under another one.
    pub(super) fn isakmp_gone(&mut self, now: Timestamp, id: u64, reason: &str, entropy: &mut dyn Entropy) {
        let Some(sa) = self.remove_isakmp(id) else { return };
        let peer = sa.setup.remote.ip();
        self.audit(Level::Informative, 0, format!("ISAKMP SA with the peer {peer} removed: {reason}"));
        // A replaced SA that is the only one left is good again.
        if !self.has_successor(&sa)
            && let Some(peer) = sa.peer()
        {
            let heir = self.isakmp.values_mut().rev().find(|other| other.retired && other.is_with(&peer));
            if let Some(heir) = heir {
                heir.retired = false;
                self.timers.cancel(&Timer::IsakmpRetire(heir.id));
            }
        }
        for (message_id, exchange) in sa.exchanges {
            if let Some(spi) = exchange.offered_spi() {
                self.inbound_spis.release(spi);
            }
            if let (QuickMode::ResponderSent(_), Some(pair)) = (&exchange.state, exchange.pair) {
                self.remove_pair(now, pair, "its ISAKMP SA is gone", false, entropy);
            }
            let attempt = Attempt::Phase2 { isakmp: id, message_id, role: exchange.role };
            if self.tunnels.get(&exchange.tunnel).is_some_and(|t| t.attempt == Some(attempt)) {
                self.attempt_lost(now, &exchange.tunnel, entropy);
            }
        }
        for name in self.waiting_for(id) {
            self.attempt_lost(now, &name, entropy);
        }
    }

    /// The peer holds no SA with us but this one: what we have from before it
    /// began is of no use (RFC 2407 4.6.3.3). What was made since then, by a
    /// negotiation that crossed this one, stays.
    pub(super) fn initial_contact(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        if sa.awaits_proof() {
            sa.first_contact = true;
            return;
        }
        let Some(who) = sa.state.established().map(|e| e.peer.identity().clone()) else { return };
        // By the order of what happened here, not by the time: a negotiation that crossed this one may have ended
        // at the very time at which this one began.
        let before = |order: u64| order < id;
        // Several peers may prove the same identity: one that restarts speaks for itself only. Behind a NAT the
        // same private address is no proof that it is the same host: who has what he had is asked.
        let (local, remote, port) = (sa.setup.local.ip(), sa.setup.remote.ip(), sa.setup.remote.port());
        let ambiguous = matches!(who, Identity::Address(_)) && sa.peer().is_some_and(|peer| peer.is_translated());
        let itself = |there: SocketAddr| there.ip() == remote && (!ambiguous || there.port() == port);
        let isakmp: Vec<_> = self
            .isakmp
            .values()
            .filter(|old| old.id != id && old.order.is_some_and(before))
            .filter(|old| old.setup.local.ip() == local && itself(old.setup.remote))
            .filter(|old| old.state.established().is_some_and(|e| *e.peer.identity() == who))
            .map(|old| old.id)
            .collect();
        let pairs: Vec<_> = self
            .pairs
            .values()
            .filter(|p| p.identity == who && before(p.id))
            .filter(|p| p.local.ip() == local && itself(p.remote))
            .map(|p| p.id)
            .collect();
        for old in pairs {
            self.remove_pair(now, old, "the peer has restarted (INITIAL-CONTACT)", false, entropy);
        }
        for old in isakmp {
            self.isakmp_gone(now, old, "the peer has restarted (INITIAL-CONTACT)", entropy);
        }
    }

    /// Deletes every SA with a peer, and tells it.
    pub(super) fn delete_peer(&mut self, now: Timestamp, peer: IpAddr, entropy: &mut dyn Entropy) {
        self.delete_all(now, |address| address == peer, "deleted by command", entropy);
    }

    /// Deletes everything and begins nothing any more.
    pub(super) fn shutdown(&mut self, now: Timestamp, entropy: &mut dyn Entropy) {
        self.stopping = true;
        let names: Vec<_> = self.tunnels.keys().cloned().collect();
        for name in names {
            self.timers.cancel(&Timer::Tunnel(name));
        }
        self.delete_all(now, |_| true, "the daemon stops", entropy);
    }

    fn delete_all(
        &mut self,
        now: Timestamp,
        concerns: impl Fn(IpAddr) -> bool,
        reason: &str,
        entropy: &mut dyn Entropy,
    ) {
        let mut in_vain = Vec::new();
        for (name, tunnel) in self.tunnels.iter_mut().filter(|(_, t)| concerns(t.policy.tdestination)) {
            if std::mem::take(&mut tunnel.wanted) {
                in_vain.push(Arc::clone(name));
            }
        }
        let pairs: Vec<_> = self.pairs.values().filter(|p| concerns(p.remote.ip())).map(|p| p.id).collect();
        for pair in pairs {
            self.remove_pair(now, pair, reason, true, entropy);
        }
        let isakmp: Vec<_> = self.isakmp.values().filter(|sa| concerns(sa.setup.remote.ip())).map(|sa| sa.id).collect();
        for id in isakmp {
            let established = self.isakmp.get(&id).is_some_and(|sa| sa.established.is_some());
            self.delete_isakmp(now, id, reason, established, entropy);
        }
        for tunnel in in_vain {
            self.ended.insert(Arc::clone(&tunnel));
            self.in_vain(&tunnel, reason.into());
        }
    }

    /// Works by a new configuration: what it does not change stays.
    pub(super) fn reload(&mut self, now: Timestamp, config: Arc<Config>, entropy: &mut dyn Entropy) {
        let old = std::mem::replace(&mut self.config, Arc::clone(&config));
        self.anti_clogging.answer_anew();
        self.tunnels.values_mut().for_each(|tunnel| tunnel.cleared = false);
        self.reload_tunnels(now, &old, &config, entropy);
        self.reload_peers(now, &old, &config, entropy);
        for policy in config.negotiated().filter(|t| t.start == StartMode::Boot) {
            let timer = Timer::Tunnel(Arc::clone(&policy.name));
            let idle = self.tunnels.get(&policy.name).is_some_and(|t| !t.wanted && t.attempt.is_none());
            if idle && self.current_pair(&policy.name).is_none() && !self.stopping {
                self.timers.set(timer, now);
            }
        }
    }

    fn reload_tunnels(&mut self, now: Timestamp, old: &Config, config: &Config, entropy: &mut dyn Entropy) {
        let names: Vec<_> = self.tunnels.keys().cloned().collect();
        for name in names {
            let Some(tunnel) = self.tunnels.get_mut(&name) else { continue };
            let policy = match &tunnel.of {
                Some(of) => after_reload(of, old, config).map(Arc::new),
                None => config.tunnel(&name).filter(|new| new.has_same_sas(&tunnel.policy)).cloned(),
            };
            let kept = policy.is_some();
            if let Some(policy) = policy {
                tunnel.policy = policy;
            }
            if !kept {
                self.drop_tunnel(now, &name, entropy);
            }
        }
        for policy in config.negotiated() {
            self.tunnels.entry(Arc::clone(&policy.name)).or_insert_with(|| Tunnel::new(Arc::clone(policy)));
        }
    }

    /// A tunnel is no more in the configuration, or another one has its name.
    fn drop_tunnel(&mut self, now: Timestamp, name: &Arc<str>, entropy: &mut dyn Entropy) {
        self.timers.cancel(&Timer::Tunnel(Arc::clone(name)));
        let reason = "its tunnel policy was removed or changed";
        let mut waited = false;
        if let Some(tunnel) = self.tunnels.get_mut(name) {
            waited = tunnel.wanted;
            tunnel.wanted = false;
        }
        let exchanges: Vec<_> = self
            .isakmp
            .values()
            .flat_map(|sa| sa.exchanges.iter().map(move |(&message_id, x)| (sa.id, message_id, x)))
            .filter(|(_, _, x)| x.tunnel == *name)
            .map(|(id, message_id, x)| (id, message_id, x.offered_spi()))
            .collect();
        for pair in self.pairs_of(name) {
            self.remove_pair(now, pair, reason, true, entropy);
        }
        for (id, message_id, spi) in exchanges {
            self.timers.cancel(&Timer::QuickMode(id, message_id));
            if let Some(sa) = self.isakmp.get_mut(&id) {
                sa.exchanges.remove(&message_id);
            }
            if let Some(spi) = spi {
                self.inbound_spis.release(spi);
                // The peer may have answered already.
                let content = self.withdrawal(name, spi);
                self.send_informational(now, id, content, true, entropy);
            }
        }
        if waited {
            self.in_vain(name, reason.into());
        }
        self.remove_tunnel(name);
    }

    fn reload_peers(&mut self, now: Timestamp, old: &Config, config: &Config, entropy: &mut dyn Entropy) {
        let peers: BTreeSet<_> = self.isakmp.values().map(|sa| sa.setup.remote.ip()).collect();
        for peer in peers {
            let same_auth = match (old.auth_record(peer), config.auth_record(peer)) {
                (Some(a), Some(b)) => same_auth(a, b) && same_aggressive(old, config, peer),
                _ => false,
            };
            let served = config.serves(peer) && config.ike_policy(peer).is_some();
            if !same_auth || !served {
                self.delete_all(now, |address| address == peer, "its configuration was removed or changed", entropy);
                continue;
            }
            let (Some(ike), Some(auth)) = (config.ike_policy(peer), config.auth_record(peer)) else { continue };
            let unchanged = old.ike_policy(peer).is_some_and(|a| same_ike(a, ike));
            let mut lost = Vec::new();
            for sa in self.isakmp.values_mut().filter(|sa| sa.setup.remote.ip() == peer) {
                if unchanged {
                    sa.setup.policy = Arc::clone(ike);
                    let chosen = config.aggressive_records(peer).find(|a| a.name == sa.setup.auth.name);
                    sa.setup.auth = Arc::clone(chosen.unwrap_or(auth));
                } else if sa.established.is_some() {
                    // To delete it would take the pairs away from some peers:
                    // nothing new begins under it, and its successor replaces it.
                    sa.retired = true;
                } else {
                    lost.push(sa.id);
                }
            }
            for id in lost {
                self.isakmp_gone(now, id, "its ike policy was changed", entropy);
            }
            for id in self.isakmp.values().filter(|sa| sa.setup.remote.ip() == peer).map(|sa| sa.id).collect::<Vec<_>>()
            {
                self.watch(now, id);
            }
        }
    }
}

fn same_ike(a: &IkePolicy, b: &IkePolicy) -> bool {
    (&a.proposals, &a.methods, a.lifetime, a.max_quick_modes, a.nat_traversal)
        == (&b.proposals, &b.methods, b.lifetime, b.max_quick_modes, b.nat_traversal)
}

/// Whether the records from which a peer chooses in aggressive mode are the same.
fn same_aggressive(old: &Config, new: &Config, peer: IpAddr) -> bool {
    let (mut old, mut new) = (old.aggressive_records(peer), new.aggressive_records(peer));
    loop {
        match (old.next(), new.next()) {
            (Some(a), Some(b)) if a.name == b.name && same_auth(a, b) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn same_auth(a: &AuthRecord, b: &AuthRecord) -> bool {
    (&a.methods, &a.preshared, &a.local_id, &a.remote_id) == (&b.methods, &b.preshared, &b.local_id, &b.remote_id)
        && (&a.certificates, &a.authorities, &a.xauth) == (&b.certificates, &b.authorities, &b.xauth)
}
