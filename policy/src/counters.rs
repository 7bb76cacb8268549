//! Named counters: what became of every packet.
//!
//! Each worker of the packet path writes a block of its own, on cache lines of
//! its own; readers add the blocks up. Every packet ends in exactly one
//! [`DropReason`] or one of the outcomes of [`Counter`].

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! named {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of the reports.
            pub const ALL: [Self; named!(@count $($variant)*)] = [$(Self::$variant,)*];

            /// The stable name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
    (@count $($variant:ident)*) => { 0 $(+ { let _ = stringify!($variant); 1 })* };
}

named! {
    /// Why a packet was not delivered.
    DropReason {
        // Policy, both directions.
        /// A policy, or the default policy, says discard.
        PolicyDiscard = "policy_discard",
        /// A host policy sends it through a tunnel whose own selector does not cover it.
        OutsideTunnelSelector = "outside_tunnel_selector",
        /// It came to the TUN interface although it belongs to a link: neighbour discovery, multicast, a
        /// link-local destination. A tunnel has no link, and in the clear it must not go on.
        LinkScope = "link_scope",
        /// Its ports cannot be seen, and a policy that looks at them could have
        /// protected or discarded it (RFC 4301 7).
        FragmentPortsHidden = "fragment_ports_hidden",
        /// Other fragments of its packet did not come, and policies look at the
        /// ports that only the first one shows (RFC 4301 7.3).
        FragmentsMissing = "fragments_missing",
        /// A policy gives each session an SA pair of its own, and this session has no name in
        /// quick mode: its protocol or a port is 0, which means all there (RFC 2407 4.6.2).
        SessionUnnamable = "session_unnamable",
        /// The SPD cache is at its hard limit and has no entry for it.
        SpdHardLimit = "spd_hard_limit",
        /// The policy that decides has as many entries in the SPD cache as it may have, and none for it.
        CacheShareLimit = "cache_share_limit",
        /// It arrived in the clear where a policy protects (RFC 4301 5.2).
        ClearTextProtected = "clear_text_protected",
        /// Not a well-formed IP packet.
        Malformed = "malformed",

        // The gateway, between its interfaces.
        /// A frame too short for its header.
        RuntFrame = "runt_frame",
        /// A frame of which the kernel handed over a part, or could not say what is still to be done to it.
        FrameCut = "frame_cut",
        /// The checksum of its IPv4 header is wrong (RFC 1812 5.2.2).
        HeaderChecksum = "header_checksum",
        /// Its sender's address means nothing beyond its own link (RFC 1812 5.3.7, RFC 3927 2.7, RFC 4291 2.5.6).
        NotForwardable = "not_forwardable",
        /// It had no hop left (RFC 1812 5.3.1, RFC 4443 3.3).
        HopLimitExceeded = "hop_limit_exceeded",
        /// No route, or none through an interface of the gateway; what comes from the outside, none to the inside.
        NoRoute = "no_route",
        /// Its destination, or the next router, does not answer ARP or neighbour discovery.
        NeighbourUnreachable = "neighbour_unreachable",
        /// As many packets as may be wait for neighbours to answer.
        NeighbourQueueFull = "neighbour_queue_full",

        // Outbound.
        /// The queue of packets that wait for the tunnel's SA was full.
        HoldQueueFull = "hold_queue_full",
        /// The SA it waited for could not be negotiated.
        NegotiationFailed = "negotiation_failed",
        /// Its session is to have an SA pair of its own, and there are as many as may be.
        SessionLimit = "session_limit",
        /// No SA, and the policy leaves the negotiation to the peer.
        NoSa = "no_sa",
        /// The SA has no sequence number left (RFC 4303 3.3.3).
        SequenceExhausted = "sequence_exhausted",
        /// The SA is past its hard lifetime.
        SaExpired = "sa_expired",
        /// It does not fit the path, and its sender was told (RFC 1191, RFC 4443 3.2).
        TooBig = "too_big",
        /// Its path became narrower after it was protected: SA and sender learn of it, the sender by the
        /// next packet that does not fit.
        PathMtuShrunk = "path_mtu_shrunk",
        /// The interface or the network did not take it.
        SendFailed = "send_failed",
        /// It has IPv4 options, or IPv6 extension headers for routers, that transport mode does not carry.
        TransportHeaders = "transport_headers",

        // Inbound.
        /// The kernel dropped it before it was read: as a rule, the socket's buffer was full.
        ReceiveBufferFull = "receive_buffer_full",
        /// No SA has this SPI.
        UnknownSpi = "unknown_spi",
        /// Shorter than any packet of the SA, or not a multiple of its block.
        BadLength = "bad_length",
        /// It came with UDP encapsulation and the SA has none, or the reverse.
        EncapsulationMismatch = "encapsulation_mismatch",
        /// It came by only one of the two SAs of a bundle: ESP that is not in AH, or AH without that ESP inside.
        BundleIncomplete = "bundle_incomplete",
        /// Its sequence number was seen before.
        Replayed = "replayed",
        /// Its sequence number is left of the window.
        ReplayTooOld = "replay_too_old",
        /// The ICV is wrong (RFC 4303 3.4.4).
        AuthenticationFailed = "authentication_failed",
        /// The padding is not 1, 2, 3, ... (RFC 4303 2.4).
        BadPadding = "bad_padding",
        /// The payload is not an IP packet.
        BadNextHeader = "bad_next_header",
        /// A dummy packet, next header 59: discarded by design (RFC 4303 2.6).
        DummyPacket = "dummy_packet",
        /// The inner packet is not one that the SA may carry (RFC 4301 5.2).
        SelectorMismatch = "selector_mismatch",
        /// It came through a tunnel, and the ordered policies say that packets like
        /// it come another way: through another tunnel, or in the clear (RFC 4301 5.2).
        WrongTunnel = "wrong_tunnel",
        /// Its session is to have an SA pair of its own and it came through another, or the reverse.
        WrongSession = "wrong_session",
        /// Congestion was experienced outside, and the inner packet cannot say so (RFC 6040 4.2).
        EcnIllegal = "ecn_illegal",
        /// A datagram for the IKE daemon, which is too far behind to take more.
        IkeQueueFull = "ike_queue_full",
        /// A datagram for the IKE daemon, longer than any IKE message.
        IkeTooLong = "ike_too_long",
        /// The TUN interface did not take it.
        DeliveryFailed = "delivery_failed",
    }
}

named! {
    /// What is counted beside drops.
    Counter {
        /// Packets protected and handed to the wire.
        Sent = "sent",
        /// Octets of those, before protection.
        SentOctets = "sent_octets",
        /// Protected packets that arrived and were delivered.
        Received = "received",
        /// Octets of those, after decryption.
        ReceivedOctets = "received_octets",
        /// Packets that left in the clear, as policy says.
        BypassedOut = "bypassed_out",
        /// Packets that arrived in the clear and were delivered, as policy says.
        BypassedIn = "bypassed_in",
        /// Frames that were none of the gateway's business: for this machine itself, of other protocols, of other VLANs.
        LeftToKernel = "left_to_kernel",
        /// Packets that fragmentation before encryption added: one less than the fragments of each.
        FragmentsAdded = "fragments_added",
        /// Fragments that became part of a whole packet before encryption: one less than the fragments of each.
        FragmentsJoined = "fragments_joined",
        /// Datagrams handed to the IKE daemon.
        IkeHandedOver = "ike_handed_over",
        /// NAT keepalives (RFC 3948 2.3).
        Keepalives = "keepalives",
        /// Protected packets that left in the clear: 0, or there is a defect.
        ClearTextLeaks = "cleartext_leaks",
    }
}

/// The counters of one worker, on cache lines that no other worker writes.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    counters: [AtomicU64; Counter::ALL.len()],
    drops: [AtomicU64; DropReason::ALL.len()],
}

impl WorkerCounters {
    fn new() -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; Counter::ALL.len()],
            drops: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
        }
    }

    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        self.counters[counter as usize].fetch_add(n, Relaxed);
    }

    /// Counts `n` packets dropped for `reason`.
    #[inline]
    pub fn dropped(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].fetch_add(n, Relaxed);
    }

    /// The value of a counter of this worker.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// The packets this worker dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }
}

/// The counters of all workers.
#[derive(Debug)]
pub struct Counters {
    workers: Box<[WorkerCounters]>,
}

impl Counters {
    /// Counters for `workers` workers, at least one; all 0.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| WorkerCounters::new()).collect() }
    }

    /// The block of a worker; numbers beyond the last share the blocks in
    /// turn, which costs time but loses no count.
    #[must_use]
    pub fn worker(&self, worker: usize) -> &WorkerCounters {
        &self.workers[worker % self.workers.len()]
    }

    /// The sum over all workers. While they go on, each number is one that was
    /// true at some moment of the call.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            counters: Counter::ALL.map(|c| self.workers.iter().map(|w| w.counter(c)).sum()),
            drops: DropReason::ALL.map(|r| self.workers.iter().map(|w| w.drops(r)).sum()),
        }
    }
}

/// The counters of all workers, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    counters: [u64; Counter::ALL.len()],
    drops: [u64; DropReason::ALL.len()],
}

impl Totals {
    /// The value of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Packets dropped for any reason.
    #[must_use]
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Names and values in the order of the reports: counters, then drops.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counters = Counter::ALL.iter().map(|c| (c.name(), self.counter(*c)));
        let drops = DropReason::ALL.iter().map(|r| (r.name(), self.drops(*r)));
        counters.chain(drops)
    }
}

/// As a map from names to values, drops in a map of their own:
/// `{"sent":1, ..., "drops":{"policy_discard":0, ...}}`.
impl serde::Serialize for Totals {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;

        struct Drops<'a>(&'a Totals);
        impl serde::Serialize for Drops<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(DropReason::ALL.iter().map(|r| (r.name(), self.0.drops(*r))))
            }
        }

        let mut map = serializer.serialize_map(Some(Counter::ALL.len() + 1))?;
        for counter in Counter::ALL {
            map.serialize_entry(counter.name(), &self.counter(counter))?;
        }
        map.serialize_entry("drops", &Drops(self))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_snake_case() {
        let names: Vec<_> = Counters::new(1).totals().iter().map(|(name, _)| name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{names:?}");
    }

    #[test]
    fn discriminants_index_all() {
        assert!(DropReason::ALL.iter().enumerate().all(|(i, r)| *r as usize == i));
        assert!(Counter::ALL.iter().enumerate().all(|(i, c)| *c as usize == i));
    }

    #[test]
    fn workers_add_up_and_share_no_line() {
        let counters = Counters::new(3);
        for worker in 0..3 {
            counters.worker(worker).add(Counter::Sent, 10);
            counters.worker(worker).dropped(DropReason::Replayed, worker as u64);
        }
        counters.worker(3).add(Counter::Sent, 1);
        let totals = counters.totals();
        assert_eq!(totals.counter(Counter::Sent), 31);
        assert_eq!(totals.drops(DropReason::Replayed), 3);
        assert_eq!(totals.all_drops(), 3);
        assert_eq!(totals.counter(Counter::ClearTextLeaks), 0);
        assert_eq!(align_of::<WorkerCounters>(), 128);
        assert_eq!(size_of::<WorkerCounters>() % 128, 0);
    }
}
