//! Pairs of ESP SAs: made, put to use, replaced before they end, removed.
//!
//! Several pairs of one tunnel may exist at once: the one that was put to use
//! last is the current one. An older one still receives, for packets under
//! way, until the side whose exchange replaced it deletes it; the other side
//! does so too, later, should that delete be lost.

use super::tunnels::Attempt;
use super::{Engine, Output, Timer};
use crate::failure::Role;
use crate::informational;
use crate::nat::NatState;
use crate::quick_mode::{Keymat, Negotiated, QuickMode};
use crate::report::{PairReport, PairState};
use crate::wire::numbers::encapsulation_mode;
use core::time::Duration;
use crypto::table::{Group, Integrity};
use crypto::{Entropy, EspSuite};
use policy::audit::Level;
use policy::config::Identity;
use policy::five_tuple::Direction;
use policy::sa::{AhOutside, Lifetime, Mode, OriginalAddresses, OwnLimits, SaProtocol, SaSpec, UdpEncapsulation};
use policy::selector::Selector;
use policy::session::Session;
use policy::spi::NoFreeSpi;
use policy::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;

/// A pair is replaced once in this time for being unknown to the peer.
const INVALID_PAUSE: Duration = Duration::from_secs(10);
/// How long the side that replaced a pair lets packets arrive under it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long the initiator waits with its first packet, if the responder has not announced that it
/// receives from message 2 on. Others install the pair when message 3 arrives, which nothing
/// confirms; a packet that overtakes it, or comes while that takes its time, would be lost.
const HEAD_START: Duration = Duration::from_millis(100);
/// How long a peer that has set the commit bit may keep us waiting for CONNECTED, which it does
/// not repeat, and which an attacker who sets the bit on the way does not send.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// How long the other side waits for the delete.
pub(super) const GRACE_OF_THE_OTHER: Duration = Duration::from_secs(30);

/// One pair.
pub(super) struct Pair {
    pub(super) id: u64,
    /// Names it in the engine; of a session, not as in the configuration.
    pub(super) tunnel: Arc<str>,
    /// The tunnel policy.
    of: Arc<str>,
    pub(super) session: Option<Session>,
    pub(super) role: Role,
    /// ISAKMP SA and message ID of the quick mode that made it.
    pub(super) exchange: (u64, u32),
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) identity: Identity,
    pub(super) nat: NatState,
    pub(super) inbound_spi: u32,
    pub(super) outbound_spi: u32,
    protocol: SaProtocol,
    suite: EspSuite,
    /// Of a bundle: the algorithm of the AH, and the peer's SPI of it.
    ah: Option<(&'static Integrity, u32)>,
    pfs: Option<&'static Group>,
    esn: bool,
    selector: Selector,
    encapsulation: Option<UdpEncapsulation>,
    lifetime: Lifetime,
    pub(super) created: Timestamp,
    /// Order in which pairs were put to use; `None` before.
    active: Option<u64>,
    /// The packet path encrypts with it.
    sending: bool,
    /// Its soft limit has passed.
    pub(super) rekey_wanted: bool,
    /// When the peer last said that it does not know it.
    invalid: Option<Timestamp>,
}

impl Pair {
    /// Whether the peer receives under this SPI, be it of the ESP or the AH of a bundle.
    pub(super) fn sends_to(&self, spi: u32) -> bool {
        self.outbound_spi == spi || self.ah.is_some_and(|(_, outer)| outer == spi)
    }

    /// Whether its ESP goes in UDP.
    pub(super) fn is_encapsulated(&self) -> bool {
        self.encapsulation.is_some()
    }

    /// The peer's NAT maps it to another port.
    pub(super) fn moved(&mut self, remote: SocketAddr) {
        self.remote = remote;
        if let Some(encapsulation) = &mut self.encapsulation {
            encapsulation.remote_port = remote.port();
        }
    }

    pub(super) fn report(&self, current: bool, soft: Option<Timestamp>, hard: Option<Timestamp>) -> PairReport {
        PairReport {
            pair: self.id,
            tunnel: Arc::clone(&self.of),
            session: self.session,
            state: match self.active {
                None => PairState::Larval,
                Some(_) if current => PairState::Mature,
                Some(_) => PairState::Dying,
            },
            role: self.role,
            local: self.local,
            remote: self.remote,
            peer_identity: self.identity.clone(),
            inbound_spi: self.inbound_spi,
            outbound_spi: self.outbound_spi,
            protocol: self.protocol,
            suite: self.suite,
            ah: self.ah,
            pfs: self.pfs,
            esn: self.esn,
            selector: self.selector.clone(),
            encapsulation: self.encapsulation,
            lifetime: self.lifetime,
            created: self.created,
            rekey: soft,
            expires: hard,
        }
    }
}

impl Engine {
    /// Every pair of a tunnel.
    pub(super) fn pairs_of(&self, tunnel: &str) -> Vec<u64> {
        self.by_tunnel.get(tunnel).into_iter().flatten().copied().collect()
    }

    /// The pair that a tunnel encrypts with.
    pub(super) fn current_pair(&self, tunnel: &str) -> Option<u64> {
        let of_tunnel = self.by_tunnel.get(tunnel)?.iter().filter_map(|id| self.pairs.get(id));
        of_tunnel.filter_map(|p| Some((p.active?, p.id))).max().map(|(_, id)| id)
    }

    /// Whether the first pair of a tunnel waits for message 3 of the peer's quick mode. The peer, which knows that we
    /// receive under it, may have sent packets already, whose answers are to wait for it too.
    pub(super) fn awaits_message_3(&self, tunnel: &str) -> bool {
        let pairs = self.by_tunnel.get(tunnel).into_iter().flatten().filter_map(|id| self.pairs.get(id));
        let mut states = pairs.map(|pair| pair.active.is_some()).peekable();
        states.peek().is_some() && !states.any(|active| active)
    }

    /// An SPI of ours that is not in use (RFC 2409 does not say more), taken.
    pub(super) fn allocate_spi(&mut self, entropy: &mut dyn Entropy) -> Result<u32, NoFreeSpi> {
        let startup = &self.config.startup;
        self.inbound_spis.draw(startup.spi_min..=startup.spi_max, entropy)
    }

    /// Makes the pair of a finished negotiation. A responder encrypts with it
    /// only once message 3 has come.
    pub(super) fn install_pair(
        &mut self,
        now: Timestamp,
        exchange: (u64, u32),
        negotiated: Negotiated,
        role: Role,
        entropy: &mut dyn Entropy,
    ) -> Option<u64> {
        let id = self.id();
        let sa = self.isakmp.get(&exchange.0)?;
        let established = sa.state.established()?;
        let Negotiated { tunnel, agreed, inbound_spi, inbound_keymat, outbound_keymat, mode, original } = negotiated;
        let encapsulation = encapsulation_mode::is_udp(mode)
            .then(|| UdpEncapsulation { local_port: sa.setup.local.port(), remote_port: sa.setup.remote.port() });
        // Only where they differ: most often there is nothing to translate.
        let original = original
            .filter(|_| tunnel.mode == Mode::Transport)
            .filter(|addresses| *addresses != (sa.setup.remote.ip(), sa.setup.local.ip()))
            .map(|(remote, local)| OriginalAddresses { remote, local });
        let of = self.tunnels.get(&tunnel.name).and_then(|t| t.of.clone());
        let pair = Pair {
            id,
            tunnel: Arc::clone(&tunnel.name),
            session: of.as_ref().map(|of| of.session),
            of: of.map_or_else(|| Arc::clone(&tunnel.name), |of| of.tunnel),
            role,
            exchange,
            local: sa.setup.local,
            remote: sa.setup.remote,
            identity: established.peer.identity().clone(),
            nat: established.nat,
            inbound_spi,
            outbound_spi: agreed.spi,
            protocol: agreed.protocol,
            suite: agreed.suite,
            ah: agreed.ah,
            pfs: agreed.pfs,
            esn: agreed.esn,
            selector: tunnel.selector.clone(),
            encapsulation,
            lifetime: agreed.lifetime,
            created: now,
            active: None,
            sending: false,
            rekey_wanted: false,
            invalid: None,
        };
        let own = OwnLimits { packets: tunnel.packets.into(), soft: soft_thousandths(role, entropy) };
        let spec = |direction, spi, outer_spi, Keymat { main: keymat, ah }: Keymat| SaSpec {
            spi,
            ah: pair.ah.zip(ah).map(|((integrity, _), keymat)| AhOutside {
                spi: outer_spi,
                suite: EspSuite::of_ah(integrity),
                keymat,
            }),
            direction,
            local: pair.local.ip(),
            remote: pair.remote.ip(),
            protocol: pair.protocol,
            mode: tunnel.mode,
            original,
            suite: pair.suite,
            keymat,
            esn: pair.esn,
            anti_replay: true,
            selector: pair.selector.clone(),
            encapsulation,
            lifetime: pair.lifetime,
            own,
            tunnel: Arc::clone(&pair.of),
            pair: id,
            session: pair.session,
        };
        let outer_spi = pair.ah.map_or(pair.outbound_spi, |(_, spi)| spi);
        self.output.push_back(Output::InstallPair {
            // Ours is the same for both SAs of a bundle: packets name the protocol.
            inbound: spec(Direction::Inbound, pair.inbound_spi, pair.inbound_spi, inbound_keymat),
            outbound: spec(Direction::Outbound, pair.outbound_spi, outer_spi, outbound_keymat),
        });
        if pair.lifetime.seconds != 0 {
            let hard = Duration::from_secs(u64::from(pair.lifetime.seconds));
            self.timers.set(Timer::PairHard(id), now + hard);
            self.timers.set(Timer::PairSoft(id), now + soft_limit(hard, role, entropy));
        }
        let path = (pair.nat.local || pair.nat.forced).then_some((pair.local, pair.remote));
        self.by_tunnel.entry(Arc::clone(&pair.tunnel)).or_default().insert(id);
        self.pairs.insert(id, pair);
        if let Some((local, remote)) = path {
            self.keep_alive(now, local, remote);
        }
        Some(id)
    }

    /// A pair is in use in both directions: its tunnel is up, and older pairs retire. With `commit`
    /// we do not encrypt with it before the peer says so.
    pub(super) fn pair_active(&mut self, now: Timestamp, id: u64, commit: bool) {
        let order = self.id();
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.active = Some(order);
        let (tunnel, role) = (Arc::clone(&pair.tunnel), pair.role);
        let received =
            role == Role::Responder || self.isakmp.get(&pair.exchange.0).is_some_and(|sa| sa.vendors.receives_early());
        let pfs = pair.pfs.map(|g| format!(" with {g}")).unwrap_or_default();
        let esn = if pair.esn { ", extended sequence numbers" } else { "" };
        let udp = pair.encapsulation.map(|e| format!(", in UDP {}/{}", e.local_port, e.remote_port));
        let text = format!(
            "QM negotiation complete with the peer {}: tunnel {tunnel} as {role}, {}{pfs}{esn}, SPI 0x{:08x} in, 0x{:08x} out{}",
            pair.remote.ip(),
            policy::transform::name(pair.protocol, pair.suite, pair.ah.map(|(ah, _)| ah)),
            pair.inbound_spi,
            pair.outbound_spi,
            udp.unwrap_or_default(),
        );
        self.audit(Level::Informative, 0, text);
        let grace = if role == Role::Initiator { GRACE } else { GRACE_OF_THE_OTHER };
        for old in self.pairs_of(&tunnel) {
            if old == id || self.pairs.get(&old).is_none_or(|p| p.active.is_none()) {
                continue;
            }
            self.timers.cancel(&Timer::PairSoft(old));
            let earlier = self.timers.at(&Timer::PairRetire(old)).is_some_and(|at| at <= now + grace);
            if !earlier {
                self.timers.set(Timer::PairRetire(old), now + grace);
            }
        }
        self.tunnel_up(&tunnel);
        match received {
            _ if commit => self.timers.set(Timer::PairReady(id), now + COMMIT_WAIT),
            true => self.pair_ready(id),
            false => self.timers.set(Timer::PairReady(id), now + HEAD_START),
        }
    }

    /// The peer can receive under a pair: encrypt with it, unless a newer one is there already.
    pub(super) fn pair_ready(&mut self, id: u64) {
        let Some(tunnel) = self.pairs.get(&id).map(|pair| Arc::clone(&pair.tunnel)) else { return };
        if self.current_pair(&tunnel) != Some(id) {
            return;
        }
        if let Some(pair) = self.pairs.get_mut(&id).filter(|pair| !pair.sending) {
            pair.sending = true;
            self.timers.cancel(&Timer::PairReady(id));
            self.output.push_back(Output::ActivateOutbound { pair: id });
        }
    }

    /// A pair that was replaced has had its time.
    pub(super) fn pair_retire(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(pair) = self.pairs.get(&id) else { return };
        // Its successor may be gone by now: then it is needed again.
        if self.current_pair(&pair.tunnel) == Some(id) {
            let overdue = now + GRACE;
            self.timers.set(Timer::PairSoft(id), overdue);
            return;
        }
        self.remove_pair(now, id, "replaced by a newer pair", true, entropy);
    }

    /// A pair nears its end: negotiate its successor.
    pub(super) fn pair_soft(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.rekey_wanted = true;
        let tunnel = Arc::clone(&pair.tunnel);
        // Also where we only respond: what there is is replaced, only nothing is begun from nothing.
        if self.current_pair(&tunnel) == Some(id) {
            self.want(now, &tunnel, entropy);
        }
    }

    /// The peer says, authenticated, that it does not know a pair that we send with. It may say so
    /// of one that it is about to install, or because somebody forged a packet: nothing is
    /// deleted, but the pair is replaced, at most once in a while.
    pub(super) fn pair_unknown(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        let told = pair.invalid.is_some_and(|at| now.since(at) < INVALID_PAUSE);
        if !told && pair.active.is_some() {
            pair.invalid = Some(now);
            self.pair_soft(now, id, entropy);
        }
    }

    /// A pair ends.
    pub(super) fn pair_hard(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        self.remove_pair(now, id, "its lifetime is over", true, entropy);
    }

    /// Removes both SAs of a pair; `tell` the peer, if an ISAKMP SA with it exists.
    pub(super) fn remove_pair(&mut self, now: Timestamp, id: u64, reason: &str, tell: bool, entropy: &mut dyn Entropy) {
        let Some(pair) = self.pairs.get(&id) else { return };
        let was_current = self.current_pair(&pair.tunnel) == Some(id);
        let Some(pair) = self.pairs.remove(&id) else { return };
        if let Some(siblings) = self.by_tunnel.get_mut(&pair.tunnel) {
            siblings.remove(&id);
            if siblings.is_empty() {
                self.by_tunnel.remove(&pair.tunnel);
            }
        }
        for timer in [Timer::PairSoft(id), Timer::PairHard(id), Timer::PairReady(id), Timer::PairRetire(id)] {
            self.timers.cancel(&timer);
        }
        self.inbound_spis.release(pair.inbound_spi);
        self.output.push_back(Output::RemovePair {
            pair: id,
            inbound_spi: pair.inbound_spi,
            outbound_spi: pair.outbound_spi,
            reason: reason.into(),
        });
        if tell && let Some(isakmp) = self.isakmp_with_peer(&pair.peer()) {
            let protocols = pair.ah.map(|_| SaProtocol::Ah).into_iter().chain([pair.protocol]);
            let content = protocols.map(|protocol| informational::delete(protocol, &[pair.inbound_spi])).collect();
            self.send_informational(now, isakmp, content, true, entropy);
        }
        let text = format!(
            "IPsec SA pair of tunnel {} with {} removed: {reason}; SPI 0x{:08x} in, 0x{:08x} out",
            pair.tunnel,
            pair.remote.ip(),
            pair.inbound_spi,
            pair.outbound_spi
        );
        self.audit(Level::Informative, 0, text);
        if pair.active.is_none() {
            self.forget_larval(now, &pair, entropy);
        }
        self.tunnel_lost_pair(now, &pair.tunnel);
        self.ended.insert(Arc::clone(&pair.tunnel));
        // Packets that waited for it to be used would wait for ever.
        let wanted = self.tunnels.get(&pair.tunnel).is_some_and(|t| t.wanted);
        let others = self.current_pair(&pair.tunnel).is_some() || self.awaits_message_3(&pair.tunnel);
        if !pair.sending && !wanted && !others {
            let reason = format!("its SAs went before they were used: {reason}");
            self.in_vain(&pair.tunnel, reason);
        }
        // Its predecessor takes over, if there is one: it may never have been used.
        if let Some(current) = self.current_pair(&pair.tunnel).filter(|_| was_current) {
            self.pair_ready(current);
        }
    }

    /// A pair that its initiator never confirmed is gone: so is the attempt that made it.
    fn forget_larval(&mut self, now: Timestamp, pair: &Pair, entropy: &mut dyn Entropy) {
        let (isakmp, message_id) = pair.exchange;
        let exchange = self.isakmp.get_mut(&isakmp).and_then(|sa| sa.exchanges.get_mut(&message_id));
        if let Some(exchange) = exchange.filter(|x| x.request.is_some()) {
            exchange.state = QuickMode::Finished;
            exchange.request = None;
            exchange.reply = None;
        }
        let attempt = Attempt::Phase2 { isakmp, message_id, role: pair.role };
        if self.tunnels.get(&pair.tunnel).is_some_and(|t| t.attempt == Some(attempt)) {
            self.attempt_lost(now, &pair.tunnel, entropy);
        }
    }
}

/// When to replace an SA, in thousandths of its lifetime: early enough for a negotiation with
/// losses, at random so that many do not meet, and the side that made it well
/// before the other, so that they rarely begin at once.
fn soft_thousandths(role: Role, entropy: &mut dyn Entropy) -> u16 {
    let base = match role {
        Role::Initiator => 800,
        Role::Responder => 880,
    };
    base + (entropy.next_u64() % 50) as u16
}

/// When to replace an SA of this lifetime.
pub(super) fn soft_limit(hard: Duration, role: Role, entropy: &mut dyn Entropy) -> Duration {
    let thousandths = u64::from(soft_thousandths(role, entropy));
    Duration::from_micros((hard.as_micros() as u64 / 1000).saturating_mul(thousandths))
}
