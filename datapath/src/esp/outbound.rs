//! Encapsulation (RFC 4303 3.3).

use super::{HEADER, transport};
use crate::ah;
use crate::headers::protocol;
use crate::outer::{OUTER_TTL, OuterFields, outer_fields};
use crate::packet::{HEADROOM, Packet, TAILROOM};
use crate::pipeline::BATCH;
use crate::sa::{OutboundSa, SaEvent};
use crate::turn::Turn;
use core::array::from_fn;
use core::ops::Range;
use crypto::packet::SealJob;
use policy::config::DfPolicy;
use policy::counters::DropReason;
use policy::sa::{Mode, SaProtocol};
use policy::time::Timestamp;
use std::sync::Arc;

/// A packet that an SA is to protect: a whole IP packet or a fragment; for transport
/// mode a whole one that it [carries](transport::carries).
#[derive(Debug)]
pub struct Inner {
    /// The packet, from its IP header.
    pub packet: Packet,
    /// Whether it is IPv4, not IPv6.
    pub ipv4: bool,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Its own DF bit; true for IPv6.
    pub dont_fragment: bool,
    /// The outer packet may be fragmented, whatever the policy says of DF:
    /// there is no other way for it.
    pub outer_fragments: bool,
}

/// A protected packet, ready for the wire.
#[derive(Debug)]
pub struct Sealed {
    /// The ESP packet, from its SPI to the end of its ICV; of AH, also around ESP, the whole packet, from its IP header.
    pub packet: Packet,
    /// What the outer IP header says.
    pub outer: OuterFields,
    /// Octets of the inner packet.
    pub inner_len: usize,
}

/// What one SA has protected at one time: the next so many of a list of [`Sealed`]. So a reference to the SA is counted
/// once for all of them, and workers that send with one SA do not write the count for each packet.
#[derive(Debug)]
pub struct Run {
    /// The SA: where to send them, and in what encapsulation. Of a bundle the AH.
    pub sa: Arc<OutboundSa>,
    /// How many they are.
    pub packets: usize,
    /// Where workers send in turn; to be waited for, and dropped when they are sent.
    pub turn: Option<Turn>,
}

/// Protects the packets of a batch with one SA, in order, as far as its limits
/// reach; the others go to `dropped`. Returns the place of those that it numbered in the order of all workers.
pub fn seal(
    sa: &Arc<OutboundSa>,
    inner: &mut Vec<Inner>,
    df: DfPolicy,
    now: Timestamp,
    sealed: &mut Vec<Sealed>,
    dropped: &mut impl FnMut(Packet, DropReason),
    events: &mut impl FnMut(SaEvent),
) -> Option<Turn> {
    let charged = sa.charge(inner.iter().map(|i| i.packet.len()), now, events);
    for refused in inner.drain(charged..) {
        dropped(refused.packet, DropReason::SaExpired);
    }
    let sequences = sa.take_sequences(inner.len(), events);
    // At once, so that nobody waits for numbers that a defect below keeps from being sent.
    let turn = Turn::new(sa, &sequences);
    let numbered = (sequences.end - sequences.start) as usize;
    for refused in inner.drain(numbered..) {
        dropped(refused.packet, DropReason::SequenceExhausted);
    }
    let first = sealed.len();
    for (mut inner, sequence) in inner.drain(..).zip(sequences.clone()) {
        let inner_len = inner.packet.len();
        let transport = sa.spec().mode == Mode::Transport;
        let mut outer = outer_fields(inner.traffic_class, false);
        // In transport mode its own header is the outer one.
        let df = if transport { DfPolicy::Copy } else { df };
        if transport {
            outer.hop_limit = transport::hop_limit(inner.packet.as_slice());
        }
        outer.dont_fragment = !inner.outer_fragments
            && match df {
                DfPolicy::Copy => inner.dont_fragment,
                DfPolicy::Set => true,
                DfPolicy::Clear => false,
            };
        match (sa.spec().protocol, transport) {
            (SaProtocol::Esp, true) => {
                let next_header = transport::take_header(&mut inner.packet);
                lay_out(&mut inner.packet, sa, sequence, next_header);
            }
            (SaProtocol::Esp, false) => {
                let next_header = if inner.ipv4 { protocol::IPV4 } else { protocol::IPV6 };
                lay_out(&mut inner.packet, sa, sequence, next_header);
            }
            (SaProtocol::Ah, true) => lay_out_ah(&mut inner.packet, sa, ah::Content::Transport, sequence, outer),
            (SaProtocol::Ah, false) => lay_out_ah(&mut inner.packet, sa, ah::Content::Tunnel, sequence, outer),
        }
        sealed.push(Sealed { packet: inner.packet, outer, inner_len });
    }
    seal_octets(sa, &mut sealed[first..], &sequences);
    if let Some(ah) = sa.outside() {
        enclose(ah, sealed, first, &sequences, now, dropped, events);
    }
    turn
}

/// Encrypts and authenticates packets that are laid out, in place.
fn seal_octets(sa: &OutboundSa, mut sealed: &mut [Sealed], sequences: &Range<u64>) {
    let mut sequences = sequences.clone();
    while !sealed.is_empty() {
        let (some, rest) = sealed.split_at_mut(sealed.len().min(BATCH));
        let mut jobs: [SealJob<'_>; BATCH] = from_fn(|_| SealJob { packet: &mut [], sequence: 0 });
        let count = some.len();
        for ((job, s), sequence) in jobs.iter_mut().zip(some).zip(&mut sequences) {
            *job = SealJob { packet: s.packet.as_mut_slice(), sequence };
        }
        sa.sealer().seal(&mut jobs[..count]);
        sealed = rest;
    }
}

/// Puts the AH of a bundle around sealed ESP packets, from the `first` on, with the numbers that those have. It is
/// charged what its ESP is.
fn enclose(
    ah: &Arc<OutboundSa>,
    sealed: &mut Vec<Sealed>,
    first: usize,
    sequences: &Range<u64>,
    now: Timestamp,
    dropped: &mut impl FnMut(Packet, DropReason),
    events: &mut impl FnMut(SaEvent),
) {
    let charged = ah.charge(sealed[first..].iter().map(|s| s.inner_len), now, events);
    for refused in sealed.drain(first + charged..) {
        dropped(refused.packet, DropReason::SaExpired);
    }
    ah.take_those_of_esp(sequences);
    for (s, sequence) in sealed[first..].iter_mut().zip(sequences.clone()) {
        lay_out_ah(&mut s.packet, ah, ah::Content::Esp, sequence, s.outer);
    }
    seal_octets(ah, &mut sealed[first..], sequences);
}

/// Puts an AH into a packet, and where it needs one an outer header before it; the ICV is left to the sealer.
fn lay_out_ah(packet: &mut Packet, sa: &OutboundSa, content: ah::Content, sequence: u64, outer: OuterFields) {
    let spec = sa.spec();
    let header = ah::Outer {
        local: spec.local,
        remote: spec.remote,
        traffic_class: outer.traffic_class,
        dont_fragment: outer.dont_fragment,
        hop_limit: outer.hop_limit.unwrap_or(OUTER_TTL),
    };
    let fits = ah::insert(packet, content, &header, spec.spi, sequence as u32, spec.suite.icv_len());
    assert!(fits, "a packet that was read and is not too long has room for {}", spec.suite);
}

/// Puts header and trailer around an inner packet; IV and ICV are left to the sealer.
fn lay_out(packet: &mut Packet, sa: &OutboundSa, sequence: u64, next_header: u8) {
    let suite = sa.suite();
    let (iv, icv, alignment) = (suite.encryption.iv_len, suite.icv_len(), suite.alignment());
    // At most 63 octets for the alignments there are; padding is numbered from 1 (RFC 4303 2.4).
    let padding = (packet.len() + 2).next_multiple_of(alignment) - packet.len() - 2;
    let fits = packet.grow_front(HEADER + iv) && packet.grow_back(padding + 2 + icv);
    assert!(fits, "a buffer has {HEADROOM} octets before and {TAILROOM} behind a packet, enough for {suite}");
    let octets = packet.as_mut_slice();
    octets[..4].copy_from_slice(&sa.spec().spi.to_be_bytes());
    octets[4..HEADER].copy_from_slice(&(sequence as u32).to_be_bytes());
    let trailer_end = octets.len() - icv;
    let trailer = &mut octets[trailer_end - padding - 2..trailer_end];
    for (octet, n) in trailer.iter_mut().zip(1..=padding as u8) {
        *octet = n;
    }
    trailer[padding] = padding as u8;
    trailer[padding + 1] = next_header;
}
