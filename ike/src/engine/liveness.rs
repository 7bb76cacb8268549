//! Is the peer still there (RFC 3706)?
//!
//! Whatever comes authenticated from a peer, IKE or ESP, shows that it is. When nothing has come
//! for a while, and something was sent meanwhile (or always, if the policy says so), it is asked
//! under its ISAKMP SA; when it does not answer, its SAs are of no use. What is not authenticated
//! can have it asked, now and then, and do no more.

use super::isakmp::Probe;
use super::{Datagram, Discarded, Engine, Output, Timer};
use crate::informational;
use crate::wire::numbers::NotifyKind;
use crate::wire::{Body, Message, Payload, Payloads};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::Level;
use policy::config::DpdAction;
use policy::time::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Times a peer is asked, after pauses of 1, 2, 4, 8 and 16 seconds: 31 seconds in all.
const PROBES: u32 = 5;
/// Times if somebody else behind its NAT asks for what it has: 7 seconds, within which that one
/// repeats its message.
const PROBES_IF_CLAIMED: u32 = 3;
/// A peer is asked because of a message that is not authenticated once in this time.
const SUSPICION_PAUSE: Duration = Duration::from_secs(10);

impl Engine {
    /// Looks after the peer of an established SA, if it answers R-U-THERE and the policy wants it.
    pub(super) fn watch(&mut self, now: Timestamp, id: u64) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let seconds = sa.setup.policy.dpd.seconds;
        if seconds != 0 && sa.state.established().is_some_and(|e| e.peer_dpd) && !self.timers.contains(&Timer::Dpd(id))
        {
            self.timers.set(Timer::Dpd(id), now + Duration::from_secs(seconds.into()));
        }
    }

    /// It is time to think of the peer of an SA.
    pub(super) fn dpd_due(&mut self, now: Timestamp, id: u64) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let pause = Duration::from_secs(sa.setup.policy.dpd.seconds.into());
        if pause.is_zero() {
            return;
        }
        let quiet = now.since(sa.heard);
        let waits = if quiet < pause { pause - quiet } else { pause };
        self.timers.set(Timer::Dpd(id), now + waits);
        if quiet >= pause && sa.probe.is_none() && !sa.retired {
            let Some(peer) = sa.peer() else { return };
            let pairs = self.pairs.values().filter(|p| p.peer().is(&peer)).map(|p| p.id).collect();
            self.output.push_back(Output::NeedActivity { token: id, pairs });
        }
    }

    /// When packets last came from the peer and went to it: the answer to [`Output::NeedActivity`].
    pub(super) fn activity(
        &mut self,
        now: Timestamp,
        id: u64,
        received: Option<Timestamp>,
        sent: Option<Timestamp>,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let dpd = sa.setup.policy.dpd;
        sa.heard = received.map_or(sa.heard, |at| at.max(sa.heard));
        let pause = Duration::from_secs(dpd.seconds.into());
        if now.since(sa.heard) < pause {
            let due = sa.heard + pause;
            self.timers.set(Timer::Dpd(id), due);
        } else if dpd.periodic || sent.is_some_and(|at| at > sa.heard) {
            self.probe(now, id, entropy);
        }
    }

    /// Somebody says, unauthenticated, that the peer has lost what it had with us. The peer is asked.
    pub(super) fn stray_informational(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        self.discard(Discarded::UnknownSa);
        let Body::Clear(payloads) = &message.body else { return };
        let lost = [NotifyKind::INVALID_SPI, NotifyKind::INVALID_COOKIE];
        if Payloads(payloads).notifications().any(|n| lost.contains(&n.kind)) {
            self.suspect_peer(now, datagram.local.ip(), datagram.remote, entropy);
        }
    }

    /// Asks a peer whether it is there, unless it was heard or asked lately.
    pub(super) fn suspect_peer(
        &mut self,
        now: Timestamp,
        local: IpAddr,
        remote: SocketAddr,
        entropy: &mut dyn Entropy,
    ) {
        let Some(id) = self.isakmp_at(local, remote) else { return };
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let lately = |at: Timestamp| now.since(at) < SUSPICION_PAUSE;
        if !lately(sa.heard) && !sa.suspected.is_some_and(lately) {
            sa.suspected = Some(now);
            self.probe(now, id, entropy);
        }
    }

    /// Asks the peer of an SA because somebody else claims what it has; it has less time than usual to answer.
    pub(super) fn ask_whether_there(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        self.probe(now, id, entropy);
        if let Some(probe) = self.isakmp.get_mut(&id).and_then(|sa| sa.probe.as_mut()) {
            probe.most = PROBES_IF_CLAIMED;
        }
    }

    /// Begins to ask the peer of an SA.
    fn probe(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let first = (entropy.next_u64() >> 33) as u32;
        let Some(sa) = self.isakmp.get_mut(&id).filter(|sa| sa.probe.is_none()) else { return };
        if sa.state.established().is_some_and(|e| e.peer_dpd) {
            sa.probe = Some(Probe { sequence: first, sent: 0, most: PROBES });
            self.probe_due(now, id, entropy);
        }
    }

    /// The peer of an SA has not shown that it has it too: an initiator is asked, a responder of aggressive mode
    /// is sent message 3 again.
    pub(super) fn confirmation_due(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        if self.repeat_message_3(now, id) {
            return;
        }
        if self.isakmp.get(&id).is_some_and(|sa| !sa.confirmed) {
            self.probe(now, id, entropy);
        }
    }

    /// The peer has not answered yet.
    pub(super) fn probe_due(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Some(probe) = sa.probe.as_mut() else { return };
        if probe.sent >= probe.most {
            self.unanswered(now, id, entropy);
            return;
        }
        let pause = Duration::from_secs(1 << probe.sent);
        probe.sent += 1;
        let sequence = probe.sequence.wrapping_add(probe.sent);
        let data = sequence.to_be_bytes().to_vec();
        let question = informational::isakmp_notification(sa.setup.cookies, NotifyKind::R_U_THERE, data);
        self.timers.set(Timer::Probe(id), now + pause);
        self.send_informational(now, id, vec![Payload::Notification(question)], false, entropy);
    }

    /// The peer does not answer under an SA.
    fn unanswered(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        if !sa.confirmed {
            self.isakmp_gone(now, id, "the peer never showed that it has it too", entropy);
            return;
        }
        let Some(peer) = sa.peer() else { return };
        let (remote, heard, asked) = (sa.setup.remote.ip(), sa.heard, sa.probe.as_ref().map_or(0, |p| p.sent));
        let (action, seconds) = (sa.setup.policy.dpd.action, now.since(heard).as_secs());
        let others = self.isakmp.values().filter(|other| other.id != id && other.is_with(&peer));
        if others.filter(|other| other.established.is_some()).any(|other| other.heard > heard) {
            self.delete_isakmp(now, id, "the peer does not answer under it, but under another one", true, entropy);
            return;
        }
        self.audit(
            Level::Warning,
            0,
            format!(
                "the peer {remote} is dead: it has not been heard for {seconds} s and did not answer R-U-THERE \
                 {asked} times; its SAs are deleted, and dpd_action is {action}: {}",
                action.meaning()
            ),
        );
        self.peer_dead(now, id, action, entropy);
    }

    /// Deletes all SAs with a peer that is dead, telling it should it hear us after all, and does
    /// with its tunnels what the policy says.
    fn peer_dead(&mut self, now: Timestamp, id: u64, action: DpdAction, entropy: &mut dyn Entropy) {
        let Some(peer) = self.isakmp.get(&id).and_then(|sa| sa.peer()) else { return };
        let of_peer = |t: &super::Tunnel| self.is_tunnel_of(t, &peer);
        let names: Vec<Arc<str>> =
            self.tunnels.iter().filter(|(_, t)| of_peer(t)).map(|(n, _)| Arc::clone(n)).collect();
        let pairs: Vec<_> = self.pairs.values().filter(|p| p.peer().is(&peer)).map(|p| p.id).collect();
        let isakmp: Vec<_> = self.isakmp.values().filter(|sa| sa.is_with(&peer)).map(|sa| sa.id).collect();
        let had_pair: Vec<_> = names.iter().filter(|n| self.current_pair(n).is_some()).cloned().collect();
        if action == DpdAction::Clear {
            names.iter().for_each(|name| self.clear_tunnel(name));
        }
        for pair in pairs {
            self.remove_pair(now, pair, "the peer is dead", true, entropy);
        }
        for id in isakmp {
            self.delete_isakmp(now, id, "the peer is dead", true, entropy);
        }
        if action == DpdAction::Restart {
            had_pair.iter().for_each(|name| self.want(now, name, entropy));
        }
    }

    /// A tunnel waits for its peer: neither packets nor its own start begin it.
    fn clear_tunnel(&mut self, name: &Arc<str>) {
        let Some(tunnel) = self.tunnels.get_mut(name) else { return };
        tunnel.cleared = true;
        tunnel.attempt = None;
        self.timers.cancel(&Timer::Tunnel(Arc::clone(name)));
        if std::mem::take(&mut tunnel.wanted) {
            self.ended.insert(Arc::clone(name));
            self.in_vain(name, "its peer is dead (dpd_action = \"clear\")".into());
        }
    }
}
