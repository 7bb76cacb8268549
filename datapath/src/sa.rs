//! SAs as the packet path has them: a hot part that every packet touches, on
//! cache lines of its own, and the cold [`SaSpec`] they were made from.
//!
//! [`pair`] makes the two SAs of a negotiation. Limits are told to the daemon
//! once per pair, whichever direction reaches them first.

use crate::ah::Ah;
use crate::replay::ReplayWindow;
use crate::turn::Turnstile;
use arc_swap::ArcSwap;
use core::ops::Range;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crypto::packet::{Opener, Sealer};
use crypto::{EspSuite, Secret};
use policy::five_tuple::Direction;
use policy::sa::{AhOutside, Mode, SaProtocol, SaSpec};
use policy::selector::PortSelector;
use policy::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the daemon is to know of an SA pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaEvent {
    /// It is time to negotiate the successor; the pair still works.
    SoftLimit {
        /// Which pair.
        pair: u64,
        /// What runs out.
        limit: Limit,
    },
    /// One direction has stopped for good.
    HardLimit {
        /// Which pair.
        pair: u64,
        /// What has run out.
        limit: Limit,
    },
}

impl SaEvent {
    /// Which pair it is of.
    #[must_use]
    pub fn pair(&self) -> u64 {
        match *self {
            Self::SoftLimit { pair, .. } | Self::HardLimit { pair, .. } => pair,
        }
    }
}

/// What an SA can run out of by use. (The daemon looks after time.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Kilobytes of its lifetime.
    Volume,
    /// Packets that the tunnel policy allows it.
    Packets,
    /// Sequence numbers (RFC 4303 3.3.3).
    Sequence,
}

/// Why an SA, or a pair, cannot be made. Ours, or the negotiation's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaError {
    /// The suite or its key material.
    #[error("SA {spi:#x}: {source}")]
    Crypto {
        /// SPI of the SA.
        spi: u32,
        /// What is wrong.
        source: crypto::table::Error,
    },
    /// SPIs 0 to 255 are reserved (RFC 4303 2.1).
    #[error("SPI {spi:#x} is reserved: SPIs of SAs are 0x100 and above")]
    ReservedSpi {
        /// The SPI.
        spi: u32,
    },
    /// The two are not an inbound and an outbound SA of one pair.
    #[error("SAs {inbound:#x} (as inbound) and {outbound:#x} (as outbound) are not a pair: {field} is wrong")]
    NotAPair {
        /// SPI of the first.
        inbound: u32,
        /// SPI of the second.
        outbound: u32,
        /// Which field contradicts it.
        field: &'static str,
    },
    /// An SA lives between addresses of one family.
    #[error("SA {spi:#x}: local {local} and remote {remote} are of different families")]
    Families {
        /// SPI of the SA.
        spi: u32,
        /// Our address.
        local: std::net::IpAddr,
        /// The peer's.
        remote: std::net::IpAddr,
    },
}

/// Makes both SAs of a pair. `tunnel` is the index of their tunnel in the SPD,
/// `window` the inbound replay window in packets, `iv_key` as for
/// [`crypto::packet::sealer`].
pub fn pair(
    inbound: &SaSpec,
    outbound: &SaSpec,
    tunnel: u32,
    iv_key: &[u8; 16],
    window: u32,
) -> Result<(InboundSa, OutboundSa), SaError> {
    let not_a_pair = |field| Err(SaError::NotAPair { inbound: inbound.spi, outbound: outbound.spi, field });
    if inbound.direction != Direction::Inbound || outbound.direction != Direction::Outbound {
        return not_a_pair("direction");
    }
    if inbound.pair != outbound.pair {
        return not_a_pair("pair");
    }
    if inbound.tunnel != outbound.tunnel {
        return not_a_pair("tunnel");
    }
    if inbound.session != outbound.session {
        return not_a_pair("session");
    }
    if inbound.anti_replay != outbound.anti_replay {
        return not_a_pair("anti_replay");
    }
    // Our packets of a bundle are found by one SPI, whichever of its SAs they come by.
    if inbound.ah.is_some() != outbound.ah.is_some() || inbound.ah.as_ref().is_some_and(|ah| ah.spi != inbound.spi) {
        return not_a_pair("ah");
    }
    for spec in [inbound, outbound] {
        for spi in spec.ah.iter().map(|ah| ah.spi).chain([spec.spi]) {
            if spi <= 255 {
                return Err(SaError::ReservedSpi { spi });
            }
        }
        if spec.local.is_ipv4() != spec.remote.is_ipv4() {
            return Err(SaError::Families { spi: spec.spi, local: spec.local, remote: spec.remote });
        }
    }
    let told = Arc::new(Told::default());
    let outbound = OutboundSa::new(outbound, iv_key, Arc::clone(&told))?;
    Ok((InboundSa::new(inbound, tunnel, window, told, Arc::clone(&outbound.remote))?, outbound))
}

/// Which events of a pair have been told.
#[derive(Debug, Default)]
struct Told(AtomicU8);

const SOFT: u8 = 1;
const HARD: u8 = 2;

impl Told {
    /// Whether the caller is the first.
    fn first(&self, what: u8) -> bool {
        // The load keeps the line shared once it has been told.
        self.0.load(Relaxed) & what == 0 && self.0.fetch_or(what, Relaxed) & what == 0
    }
}

/// Octets and packets an SA has processed, under the limits of both.
#[derive(Debug)]
struct Volume {
    octets: AtomicU64,
    packets: AtomicU64,
    expired: AtomicBool,
    /// In octets; `u64::MAX` is no limit.
    soft: u64,
    hard: u64,
    /// In packets, likewise.
    soft_packets: u64,
    hard_packets: u64,
}

impl Volume {
    fn new(spec: &SaSpec) -> Self {
        let soft = |hard: u64| {
            if hard == u64::MAX {
                hard
            } else {
                hard / 1000 * u64::from(spec.own.soft) + hard % 1000 * u64::from(spec.own.soft) / 1000
            }
        };
        let hard = if spec.lifetime.kbytes == 0 { u64::MAX } else { u64::from(spec.lifetime.kbytes) * 1024 };
        let hard_packets = if spec.own.packets == 0 { u64::MAX } else { spec.own.packets };
        let zero = || AtomicU64::new(0);
        Self {
            octets: zero(),
            packets: zero(),
            expired: AtomicBool::new(false),
            soft: soft(hard),
            hard,
            soft_packets: soft(hard_packets),
            hard_packets,
        }
    }

    /// Charges packets of these lengths in order, as far as both limits reach; returns
    /// how many. The first that does not fit ends the SA.
    fn charge(&self, lens: impl Iterator<Item = usize> + Clone) -> usize {
        if self.hard_packets == u64::MAX {
            let count = self.charge_octets(lens);
            self.packets.fetch_add(count as u64, Relaxed);
            return count;
        }
        // Taken before they are charged, so that no two workers take the last one.
        let wanted = lens.clone().count();
        let room = |used: u64| (wanted as u64).min(self.hard_packets - used);
        let used =
            self.packets.fetch_update(AcqRel, Relaxed, |used| Some(used + room(used))).unwrap_or_else(|used| used);
        let taken = room(used) as usize;
        let count = self.charge_octets(lens.take(taken));
        if count < taken {
            self.packets.fetch_sub((taken - count) as u64, Relaxed);
        }
        if taken < wanted {
            self.expired.store(true, Release);
        }
        count
    }

    fn charge_octets(&self, lens: impl Iterator<Item = usize> + Clone) -> usize {
        let mut before = self.octets.load(Relaxed);
        loop {
            let (mut count, mut after, mut refused) = (0, before, self.expired.load(Acquire));
            for len in lens.clone() {
                let sum = after.saturating_add(len as u64);
                if refused || sum > self.hard {
                    refused = true;
                    break;
                }
                (count, after) = (count + 1, sum);
            }
            match self.octets.compare_exchange_weak(before, after, AcqRel, Relaxed) {
                Ok(_) => {
                    if refused {
                        self.expired.store(true, Release);
                    }
                    return count;
                }
                Err(now) => before = now,
            }
        }
    }

    /// The limit whose soft part is used up, if one is.
    fn soft_reached(&self) -> Option<Limit> {
        if self.octets.load(Relaxed) >= self.soft {
            Some(Limit::Volume)
        } else {
            (self.packets.load(Relaxed) >= self.soft_packets).then_some(Limit::Packets)
        }
    }

    /// The limit that has ended it, if it is over.
    fn expired_by(&self) -> Option<Limit> {
        let packets = self.packets.load(Relaxed) >= self.hard_packets;
        self.is_expired().then_some(if packets { Limit::Packets } else { Limit::Volume })
    }

    fn is_expired(&self) -> bool {
        self.expired.load(Acquire)
    }
}

/// Both directions' dealings with their volume.
macro_rules! volume {
    () => {
        /// The negotiated facts; the key material is not among them any more.
        #[must_use]
        pub fn spec(&self) -> &SaSpec {
            &self.spec
        }

        /// Octets of inner packets processed.
        #[must_use]
        pub fn octets(&self) -> u64 {
            self.hot.volume.octets.load(Relaxed)
        }

        /// Inner packets processed.
        #[must_use]
        pub fn packets(&self) -> u64 {
            self.hot.volume.packets.load(Relaxed)
        }

        /// Whether its volume is used up: it processes nothing any more.
        #[must_use]
        pub fn is_expired(&self) -> bool {
            self.hot.volume.is_expired()
        }

        /// When it last processed a packet; the origin if never.
        #[must_use]
        pub fn last_use(&self) -> Timestamp {
            Timestamp::from_micros(self.hot.last_use.load(Relaxed))
        }

        /// Charges packets of these lengths, in octets, in order; returns how
        /// many of them the SA may process. The others are to be dropped as
        /// [`DropReason::SaExpired`](policy::counters::DropReason::SaExpired).
        pub fn charge(
            &self,
            lens: impl Iterator<Item = usize> + Clone,
            now: Timestamp,
            events: &mut impl FnMut(SaEvent),
        ) -> usize {
            let count = self.hot.volume.charge(lens);
            if count > 0 {
                self.hot.last_use.store(now.as_micros(), Relaxed);
            }
            if let Some(limit) = self.hot.volume.soft_reached()
                && self.told.first(SOFT)
            {
                events(SaEvent::SoftLimit { pair: self.spec.pair, limit });
            }
            if let Some(limit) = self.hot.volume.expired_by()
                && self.told.first(HARD)
            {
                events(SaEvent::HardLimit { pair: self.spec.pair, limit });
            }
            count
        }
    };
}

/// A copy of `spec` without the keys, which now live in the cipher alone.
fn without_keys(spec: &SaSpec) -> SaSpec {
    let none = || Secret::new(Vec::new());
    let ah = spec.ah.as_ref().map(|ah| AhOutside { keymat: none(), ..*ah });
    SaSpec { keymat: none(), ah, ..spec.clone() }
}

/// The AH of a bundle, as an SA of its own: between the outer header and the ESP, in either mode.
fn outside(spec: &SaSpec) -> Option<SaSpec> {
    spec.ah.as_ref().map(|AhOutside { spi, suite, keymat }| SaSpec {
        spi: *spi,
        protocol: SaProtocol::Ah,
        mode: Mode::Transport,
        suite: *suite,
        keymat: keymat.clone(),
        ah: None,
        ..spec.clone()
    })
}

/// An SA we decrypt with.
pub struct InboundSa {
    hot: InboundHot,
    opener: Box<dyn Opener>,
    told: Arc<Told>,
    /// Where the outbound SA of its pair sends.
    remote: Arc<ArcSwap<SocketAddr>>,
    /// When the daemon was last told that its peer is elsewhere.
    moved: AtomicU64,
    /// The AH of a bundle.
    outside: Option<Box<InboundSa>>,
    tunnel: u32,
    spec: SaSpec,
}

/// A peer that is elsewhere is told of once in this time, in microseconds.
const MOVED_PAUSE: u64 = 1_000_000;

/// What every batch writes: on lines that nothing read-only shares.
#[repr(align(128))]
struct InboundHot {
    window: ReplayWindow,
    volume: Volume,
    last_use: AtomicU64,
}

impl InboundSa {
    fn new(
        spec: &SaSpec,
        tunnel: u32,
        window: u32,
        told: Arc<Told>,
        remote: Arc<ArcSwap<SocketAddr>>,
    ) -> Result<Self, SaError> {
        let opener = match spec.protocol {
            SaProtocol::Esp => crypto::packet::opener(spec.suite, &spec.keymat, spec.esn),
            SaProtocol::Ah => Ah::of(spec).map(|ah| Box::new(ah) as Box<dyn Opener>),
        }
        .map_err(|source| SaError::Crypto { spi: spec.spi, source })?;
        let hot = InboundHot {
            window: if spec.anti_replay { ReplayWindow::new(window, spec.esn) } else { ReplayWindow::off() },
            volume: Volume::new(spec),
            last_use: AtomicU64::new(0),
        };
        let outside = outside(spec)
            .map(|ah| Self::new(&ah, tunnel, window, Arc::clone(&told), Arc::clone(&remote)).map(Box::new))
            .transpose()?;
        let moved = AtomicU64::new(0);
        Ok(Self { hot, opener, told, remote, moved, outside, tunnel, spec: without_keys(spec) })
    }

    volume!();

    /// The tunnel that its packets come through, by its index in the SPD: no other
    /// tunnel has it, before a reload or after.
    #[must_use]
    pub fn tunnel(&self) -> u32 {
        self.tunnel
    }

    /// The AH that its packets come in, if it is of a bundle.
    #[must_use]
    pub fn outside(&self) -> Option<&Self> {
        self.outside.as_deref()
    }

    /// Whether `remote`, where its newest authentic packet came from, is not where its peer was, and
    /// that is to be told now.
    pub(crate) fn is_elsewhere(&self, remote: SocketAddr, now: Timestamp) -> bool {
        if **self.remote.load() == remote {
            return false;
        }
        let last = self.moved.load(Relaxed);
        let due = last == 0 || now.as_micros().saturating_sub(last) >= MOVED_PAUSE;
        due && self.moved.compare_exchange(last, now.as_micros().max(1), Relaxed, Relaxed).is_ok()
    }

    /// Its replay window.
    #[must_use]
    pub fn window(&self) -> &ReplayWindow {
        &self.hot.window
    }

    /// Its cipher.
    pub(crate) fn opener(&self) -> &dyn Opener {
        &*self.opener
    }
}

/// An SA we encrypt with.
pub struct OutboundSa {
    hot: OutboundHot,
    sealer: Box<dyn Sealer>,
    told: Arc<Told>,
    last_sequence: u64,
    path_mtu: AtomicU32,
    remote: Arc<ArcSwap<SocketAddr>>,
    /// The AH of a bundle.
    outside: Option<Arc<OutboundSa>>,
    spec: SaSpec,
}

/// What every batch writes.
#[repr(align(128))]
struct OutboundHot {
    /// The last sequence number given out; 0 at first.
    sequence: AtomicU64,
    volume: Volume,
    last_use: AtomicU64,
    turnstile: Turnstile,
}

/// Sequence numbers left when the daemon is told: a minute at 4 Mpps.
const SEQUENCE_RESERVE: u64 = 1 << 28;

/// What a path MTU is taken for until it is known: that of Ethernet.
pub const DEFAULT_PATH_MTU: u16 = 1500;

impl OutboundSa {
    fn new(spec: &SaSpec, iv_key: &[u8; 16], told: Arc<Told>) -> Result<Self, SaError> {
        let sealer = match spec.protocol {
            SaProtocol::Esp => crypto::packet::sealer(spec.suite, &spec.keymat, iv_key, spec.esn),
            SaProtocol::Ah => Ah::of(spec).map(|ah| Box::new(ah) as Box<dyn Sealer>),
        }
        .map_err(|source| SaError::Crypto { spi: spec.spi, source })?;
        let hot = OutboundHot {
            sequence: AtomicU64::new(0),
            volume: Volume::new(spec),
            last_use: AtomicU64::new(0),
            turnstile: Turnstile::new(),
        };
        // One short of the last ESN, so that the end of a range of them is a u64 as well.
        // Where nobody looks for replays they begin again after the last (RFC 4303 3.3.3): packets carry the low half.
        let endless = spec.esn || !spec.anti_replay;
        let last_sequence = if endless { u64::MAX - 1 } else { u64::from(u32::MAX) };
        let path_mtu = AtomicU32::new(u32::from(DEFAULT_PATH_MTU));
        let remote = SocketAddr::new(spec.remote, spec.encapsulation.map_or(0, |e| e.remote_port));
        let remote = Arc::new(ArcSwap::from_pointee(remote));
        let outside = outside(spec).map(|ah| Self::new(&ah, iv_key, Arc::clone(&told)).map(Arc::new)).transpose()?;
        Ok(Self { hot, sealer, told, last_sequence, path_mtu, remote, outside, spec: without_keys(spec) })
    }

    volume!();

    /// The AH that its packets go in, if it is of a bundle.
    #[must_use]
    pub fn outside(&self) -> Option<&Arc<Self>> {
        self.outside.as_ref()
    }

    /// Takes up to `count` sequence numbers; fewer when they run out, and then
    /// never any again (RFC 4303 3.3.3: they must not cycle). Packets that get
    /// none are to be dropped as
    /// [`DropReason::SequenceExhausted`](policy::counters::DropReason::SequenceExhausted).
    pub fn take_sequences(&self, count: usize, events: &mut impl FnMut(SaEvent)) -> Range<u64> {
        let count = count as u64;
        let mut last = self.hot.sequence.load(Relaxed);
        let taken = loop {
            let taken = count.min(self.last_sequence - last);
            match self.hot.sequence.compare_exchange_weak(last, last + taken, Relaxed, Relaxed) {
                Ok(_) => break taken,
                Err(now) => last = now,
            }
        };
        if self.last_sequence - last - taken <= SEQUENCE_RESERVE && self.told.first(SOFT) {
            events(SaEvent::SoftLimit { pair: self.spec.pair, limit: Limit::Sequence });
        }
        if taken < count && self.told.first(HARD) {
            events(SaEvent::HardLimit { pair: self.spec.pair, limit: Limit::Sequence });
        }
        last + 1..last + 1 + taken
    }

    /// The last sequence number given out; 0 if none.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.hot.sequence.load(Relaxed)
    }

    /// Where packets are sent; the port is 0 without UDP encapsulation.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        **self.remote.load()
    }

    /// Sends to another address or port from now on: a NAT has moved the peer
    /// (RFC 3947 4). The caller has heard so from the peer itself, authenticated.
    /// Returns whether it can be: an SA without UDP encapsulation, or to the other address
    /// family, stays as it is.
    pub fn move_remote(&self, remote: SocketAddr) -> bool {
        let can = self.spec.encapsulation.is_some() && remote.is_ipv4() == self.spec.remote.is_ipv4();
        if can {
            self.remote.store(Arc::new(remote));
        }
        can
    }

    /// MTU of the path to the peer, in octets of the outer packet.
    #[must_use]
    pub fn path_mtu(&self) -> u16 {
        self.path_mtu.load(Relaxed) as u16
    }

    /// Notes what is now known of the path to the peer.
    pub fn set_path_mtu(&self, mtu: u16) {
        self.path_mtu.store(u32::from(mtu), Relaxed);
    }

    /// The longest inner packet that fits the path, in octets.
    #[must_use]
    pub fn inner_mtu(&self) -> u16 {
        let ah = self.outside().map_or(0, |ah| crate::mtu::ah_len(ah.spec.suite, self.spec.local.is_ipv4()));
        crate::mtu::inner_mtu(
            self.path_mtu().saturating_sub(ah),
            self.spec.protocol,
            self.spec.suite,
            self.spec.mode,
            self.spec.local.is_ipv4(),
            self.spec.encapsulation.is_some(),
        )
    }

    /// Whether it may not carry fragments of a packet, only the whole: its selector
    /// looks at ports (RFC 4301 7), or it is in transport mode (RFC 4303 3.3.4).
    #[must_use]
    pub fn takes_whole_packets(&self) -> bool {
        self.spec.selector.ports != PortSelector::Any || self.spec.mode == Mode::Transport
    }

    /// Its suite.
    #[must_use]
    pub fn suite(&self) -> EspSuite {
        self.spec.suite
    }

    /// Its cipher.
    pub(crate) fn sealer(&self) -> &dyn Sealer {
        &*self.sealer
    }

    /// Gives up the sequence numbers up to `last`: as if they had been used. Never back, so that none can be used
    /// twice. For tests of what happens at their end, which nobody could wait for.
    pub fn skip_sequences(&self, last: u64) {
        let last = last.min(self.last_sequence);
        self.hot.sequence.fetch_max(last, Relaxed);
        self.hot.turnstile.pass(last + 1);
    }

    /// As the AH of a bundle: takes the sequence numbers that its ESP has taken. They go together always, so the two
    /// never differ, and the one [`Turn`](crate::turn::Turn) of the ESP keeps both in order.
    pub(crate) fn take_those_of_esp(&self, sequences: &Range<u64>) {
        self.hot.sequence.fetch_max(sequences.end - 1, Relaxed);
    }

    /// The order in which workers send with it.
    pub(crate) fn turnstile(&self) -> &Turnstile {
        &self.hot.turnstile
    }

    /// As if `sequence` numbers had been used already.
    #[cfg(test)]
    pub(crate) fn set_sequence(&self, sequence: u64) {
        self.hot.sequence.store(sequence, Relaxed);
        self.hot.turnstile.set(sequence + 1);
    }
}

impl core::fmt::Debug for InboundSa {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "InboundSa({:#x} {})", self.spec.spi, self.spec.suite)
    }
}

impl core::fmt::Debug for OutboundSa {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OutboundSa({:#x} {})", self.spec.spi, self.spec.suite)
    }
}

#[cfg(test)]
mod tests;
