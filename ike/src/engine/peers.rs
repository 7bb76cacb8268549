//! With whom SAs are. As a rule an address is a peer; but a NAT gives one address to many, who differ
//! in the port that it gives each and in who they have proved to be. What one of them says or does
//! concerns its own SAs alone.

use super::isakmp::IsakmpSa;
use super::pairs::Pair;
use super::tunnels::Tunnel;
use super::{Datagram, Discarded, Engine, Output};
use crate::failure::{Failure, Fault, Kind};
use core::time::Duration;
use crypto::Entropy;
use policy::audit::Level;
use policy::config::{Identity, TunnelPolicy};
use policy::time::Timestamp;
use std::net::{IpAddr, SocketAddr};

/// Who was heard so lately need not be asked whether he is there.
const LATELY: Duration = Duration::from_secs(5);

/// The peer of an established SA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    local: IpAddr,
    remote: SocketAddr,
    /// A NAT translates its address: others may have the same.
    translated: bool,
    identity: &'a Identity,
}

impl Peer<'_> {
    /// Whether both are one. Whether there is a NAT is not authenticated, and may have been found out for one of two SAs
    /// only: then the identity alone tells.
    pub(super) fn is(&self, other: &Peer<'_>) -> bool {
        (self.local, self.remote.ip()) == (other.local, other.remote.ip())
            && match (self.translated, other.translated) {
                (false, false) => true,
                (true, true) => self.remote.port() == other.remote.port() && self.identity.is_same(other.identity),
                _ => self.identity.is_same(other.identity),
            }
    }

    /// Whether a NAT translates its address.
    pub(super) fn is_translated(&self) -> bool {
        self.translated
    }
}

impl IsakmpSa {
    /// Its peer, once that has shown who it is.
    pub(super) fn peer(&self) -> Option<Peer<'_>> {
        let established = self.state.established().filter(|_| !self.awaits_proof())?;
        Some(Peer {
            local: self.setup.local.ip(),
            remote: self.setup.remote,
            translated: established.nat.remote,
            identity: established.peer.identity(),
        })
    }

    /// Whether it is with this peer, and established.
    pub(super) fn is_with(&self, peer: &Peer<'_>) -> bool {
        self.peer().is_some_and(|own| own.is(peer))
    }
}

impl Pair {
    /// Its peer.
    pub(super) fn peer(&self) -> Peer<'_> {
        Peer { local: self.local.ip(), remote: self.remote, translated: self.nat.remote, identity: &self.identity }
    }
}

impl Engine {
    /// An established ISAKMP SA with a peer, the best.
    pub(super) fn isakmp_with_peer(&self, peer: &Peer<'_>) -> Option<u64> {
        let with_peer = self.isakmp.values().filter(|sa| sa.is_with(peer));
        with_peer.max_by_key(|sa| (!sa.suspect, !sa.retired, sa.id)).map(|sa| sa.id)
    }

    /// An established ISAKMP SA with whoever is there, the best.
    pub(super) fn isakmp_at(&self, local: IpAddr, remote: SocketAddr) -> Option<u64> {
        let there = |sa: &&IsakmpSa| {
            sa.is_between(local, remote.ip())
                && sa.peer().is_some_and(|peer| !peer.translated || peer.remote.port() == remote.port())
        };
        self.isakmp.values().filter(there).max_by_key(|sa| (!sa.suspect, !sa.retired, sa.id)).map(|sa| sa.id)
    }

    /// A pair of a tunnel that is not with this peer: somebody else behind the same NAT has it.
    fn pair_of_another(&self, tunnel: &str, peer: &Peer<'_>) -> Option<&Pair> {
        self.by_tunnel.get(tunnel)?.iter().filter_map(|id| self.pairs.get(id)).find(|pair| !pair.peer().is(peer))
    }

    /// Whether a quick mode for a tunnel may be under this SA: it is not somebody else's who has it.
    pub(super) fn may_serve(&self, sa: &IsakmpSa, tunnel: &str) -> bool {
        sa.peer().is_none_or(|peer| self.pair_of_another(tunnel, &peer).is_none())
    }

    /// Whether a tunnel is of this peer: by the addresses, unless somebody else behind the same NAT has it.
    pub(super) fn is_tunnel_of(&self, tunnel: &Tunnel, peer: &Peer<'_>) -> bool {
        (tunnel.policy.tsource, tunnel.policy.tdestination) == (peer.local, peer.remote.ip())
            && self.pair_of_another(&tunnel.policy.name, peer).is_none()
    }

    /// A peer asks for a tunnel that somebody else behind the same NAT has: replies would go to either
    /// (RFC 3948 5.1, 5.2). It may be the same one after a restart, so whoever has it is asked whether
    /// he is there; until then there is no answer, and the peer repeats its message.
    ///
    /// # Errors
    /// The tunnel is taken; or `None`: nothing is known yet.
    pub(super) fn contest(
        &mut self,
        now: Timestamp,
        id: u64,
        tunnel: &TunnelPolicy,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Option<Failure>> {
        let Some(newcomer) = self.isakmp.get(&id).and_then(IsakmpSa::peer) else { return Ok(()) };
        let Some(pair) = self.pair_of_another(&tunnel.name, &newcomer) else { return Ok(()) };
        let holder = pair.peer();
        let taken = || {
            Failure::new(
                Kind::NoSelector,
                Fault::Mismatch,
                format!(
                    "tunnel {}: {} ({}) asks for {}, which {} ({}) behind the same NAT has, and is there: replies to \
                     one would go to the other",
                    tunnel.name, newcomer.remote, newcomer.identity, tunnel.selector, holder.remote, holder.identity
                ),
                format!(
                    "give each of them a tunnel with a selector of its own beside `{}` (line {}): tunnel mode with \
                     addresses of their own, or other ports; in transport mode, host policies with the flag EXCLUSIVE",
                    tunnel.name, tunnel.line
                ),
            )
        };
        let same_name = holder.identity.is_same(newcomer.identity);
        let asked = self.isakmp_with_peer(&holder).and_then(|id| self.isakmp.get(&id));
        let Some(asked) = asked.filter(|sa| sa.state.established().is_some_and(|e| e.peer_dpd)) else {
            // It cannot be asked: who proves to be the same is taken for the same.
            return if same_name { Ok(()) } else { Err(Some(taken())) };
        };
        if now.since(asked.heard) < LATELY {
            return Err(Some(taken()));
        }
        let asked = asked.id;
        self.discard(Discarded::Contested);
        self.ask_whether_there(now, asked, entropy);
        Err(None)
    }

    /// A NAT may map the peer to another port: followed, as the message was authentic (RFC 3947 4).
    pub(super) fn follow(&mut self, now: Timestamp, id: u64, datagram: &Datagram<'_>) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let floated = datagram.local.port() == self.config.startup.natt_port;
        let Some((before, identity)) = sa.peer().filter(|p| p.translated).map(|p| (p.remote, p.identity.clone()))
        else {
            return;
        };
        if floated {
            self.moved(now, before, &identity, datagram.local, datagram.remote);
        }
    }

    /// An authentic packet of a pair, newer than all before it, came from another port.
    pub(super) fn pair_moved(&mut self, now: Timestamp, id: u64, remote: SocketAddr) {
        let Some(pair) = self.pairs.get(&id).filter(|pair| pair.nat.remote && pair.is_encapsulated()) else { return };
        let (local, before, identity) = (pair.local, pair.remote, pair.identity.clone());
        self.moved(now, before, &identity, local, remote);
    }

    /// All that a peer has with us moves with it. Another address is not followed: policies name the peer by it.
    fn moved(&mut self, now: Timestamp, before: SocketAddr, identity: &Identity, local: SocketAddr, to: SocketAddr) {
        if before.ip() != to.ip() || before.port() == to.port() {
            return;
        }
        let text = format!("the peer {} ({identity}) moved from port {} to {}", to.ip(), before.port(), to.port());
        self.audit(Level::Informative, 0, text);
        let concerned = |peer: Peer<'_>| peer.translated && peer.remote == before && peer.identity.is_same(identity);
        for sa in self.isakmp.values_mut() {
            if sa.peer().is_some_and(concerned) {
                (sa.setup.local, sa.setup.remote) = (local, to);
            }
        }
        for pair in self.pairs.values_mut() {
            if pair.is_encapsulated() && concerned(pair.peer()) {
                pair.moved(to);
                self.output.push_back(Output::PeerMoved { pair: pair.id, remote: to });
            }
        }
        self.keep_alive(now, local, to);
    }
}
