//! Decapsulation (RFC 4303 3.4): each step takes what only the step before can make.
//!
//! [`check`] → [`Candidate`] → [`authenticate`] → [`Authenticated`] → [`commit`]
//! → [`Fresh`] → [`Fresh::into_inner`]. So a packet cannot be delivered that was
//! not authenticated, nor enter the replay window before it was.

use super::transport::{self, Outer};
use super::{HEADER, sequence_field, spi};
use crate::ah;
use crate::headers::{Fragment, Headers, protocol};
use crate::outer::{inner_traffic_class, set_traffic_class};
use crate::packet::Packet;
use crate::pipeline::BATCH;
use crate::replay::{Refused, ReplayChecked};
use crate::sa::InboundSa;
use core::array::from_fn;
use crypto::packet::OpenJob;
use policy::counters::DropReason;
use policy::five_tuple::Direction;
use policy::sa::{Mode, SaProtocol};
use std::net::SocketAddr;

/// An ESP packet whose sequence number may be new.
#[derive(Debug)]
pub struct Candidate {
    packet: Packet,
    outer: Outer,
    from: SocketAddr,
    checked: ReplayChecked,
    /// What [`authenticate`] has found.
    authentic: bool,
}

/// An ESP packet that the peer made, decrypted.
#[derive(Debug)]
pub struct Authenticated {
    packet: Packet,
    outer: Outer,
    from: SocketAddr,
    checked: ReplayChecked,
}

/// An authenticated packet that is the first with its sequence number.
#[derive(Debug)]
pub struct Fresh {
    packet: Packet,
    outer: Outer,
}

/// What a refusal is counted as.
fn reason(refused: Refused) -> DropReason {
    match refused {
        Refused::Duplicate => DropReason::Replayed,
        Refused::TooOld => DropReason::ReplayTooOld,
    }
}

/// Checks lengths and sequence numbers of a batch of ESP packets, each with
/// what its outer header says and where it came from; refused ones go to `dropped`, and all do
/// when the SA has expired.
pub fn check(
    sa: &InboundSa,
    packets: impl Iterator<Item = (Packet, Outer, SocketAddr)>,
    candidates: &mut Vec<Candidate>,
    dropped: &mut impl FnMut(Packet, DropReason),
) {
    let suite = sa.spec().suite;
    let around = HEADER + suite.encryption.iv_len + suite.icv_len();
    let len_fits = |packet: &Packet| {
        packet.len() >= suite.min_packet_len() && (packet.len() - around).is_multiple_of(suite.alignment())
    };
    let (expired, protocol) = (sa.is_expired(), sa.spec().protocol);
    let window = sa.window().lock();
    for (packet, outer, from) in packets {
        if expired {
            dropped(packet, DropReason::SaExpired);
            continue;
        }
        let field = match protocol {
            SaProtocol::Esp => sequence_field(&packet).filter(|_| len_fits(&packet)),
            SaProtocol::Ah => {
                let place = ah::place(packet.as_slice()).filter(|ah| ah.len >= ah::FIXED + suite.icv_len());
                place.map(|ah| ah.sequence)
            }
        };
        match field {
            None => dropped(packet, DropReason::BadLength),
            Some(field) => match window.check(field) {
                Ok(checked) => candidates.push(Candidate { packet, outer, from, checked, authentic: false }),
                Err(refused) => dropped(packet, reason(refused)),
            },
        }
    }
}

/// Authenticates and decrypts a batch.
pub fn authenticate(
    sa: &InboundSa,
    candidates: &mut Vec<Candidate>,
    authenticated: &mut Vec<Authenticated>,
    dropped: &mut impl FnMut(Packet, DropReason),
) {
    let mut rest = &mut candidates[..];
    while !rest.is_empty() {
        let (some, others) = rest.split_at_mut(rest.len().min(BATCH));
        let mut jobs: [OpenJob<'_>; BATCH] = from_fn(|_| OpenJob { packet: &mut [], sequence: 0, authentic: false });
        let count = some.len();
        for (job, c) in jobs.iter_mut().zip(some.iter_mut()) {
            (job.packet, job.sequence) = (c.packet.as_mut_slice(), c.checked.sequence());
        }
        sa.opener().open(&mut jobs[..count]);
        let authentic: [bool; BATCH] = from_fn(|at| jobs[at].authentic);
        for (candidate, authentic) in some.iter_mut().zip(authentic) {
            candidate.authentic = authentic;
        }
        rest = others;
    }
    for Candidate { packet, outer, from, checked, authentic } in candidates.drain(..) {
        if authentic {
            authenticated.push(Authenticated { packet, outer, from, checked });
        } else {
            dropped(packet, DropReason::AuthenticationFailed);
        }
    }
}

/// Enters a batch in the replay window. Returns where the newest of all packets so far came from, if it is
/// in this batch: one that was held up says nothing of where its sender is by now.
pub fn commit(
    sa: &InboundSa,
    authenticated: &mut Vec<Authenticated>,
    fresh: &mut Vec<Fresh>,
    dropped: &mut impl FnMut(Packet, DropReason),
) -> Option<SocketAddr> {
    let mut newest = None;
    let mut window = sa.window().lock();
    for Authenticated { packet, outer, from, checked } in authenticated.drain(..) {
        let top = window.top();
        match window.commit(checked) {
            Ok(()) => {
                if window.top() > top {
                    newest = Some(from);
                }
                fresh.push(Fresh { packet, outer });
            }
            Err(refused) => dropped(packet, reason(refused)),
        }
    }
    newest
}

impl Fresh {
    /// Takes the ESP out that the AH of a bundle protects. `sa` is that of the ESP: the packet goes on
    /// with [`check`].
    pub fn into_esp(self, sa: &InboundSa) -> Result<(Packet, Outer, SocketAddr), (Packet, DropReason)> {
        let Self { mut packet, outer } = self;
        let next_header = ah::remove(&mut packet, Mode::Tunnel);
        if next_header == Some(protocol::ESP) && spi(&packet) == Some(sa.spec().spi) {
            // It has no port that could change.
            Ok((packet, outer, SocketAddr::new(sa.spec().remote, 0)))
        } else {
            Err((packet, DropReason::BundleIncomplete))
        }
    }

    /// Takes the inner packet out, and checks that the SA may carry it.
    pub fn into_inner(self, sa: &InboundSa) -> Result<(Packet, Headers), (Packet, DropReason)> {
        let Self { mut packet, outer } = self;
        let suite = sa.spec().suite;
        if sa.spec().protocol == SaProtocol::Ah {
            return match without_ah(&mut packet, outer, sa) {
                Ok(headers) => Ok((packet, headers)),
                Err(reason) => Err((packet, reason)),
            };
        }
        packet.truncate(packet.len().saturating_sub(suite.icv_len()));
        packet.trim_front(HEADER + suite.encryption.iv_len);
        match take_inner(&mut packet, outer, sa) {
            Ok(headers) => Ok((packet, headers)),
            Err(reason) => Err((packet, reason)),
        }
    }
}

/// From payload, padding, pad length and next header to the inner packet.
fn take_inner(packet: &mut Packet, outer: Outer, sa: &InboundSa) -> Result<Headers, DropReason> {
    let (payload, &[pad_length, next_header]) = packet.as_slice().split_last_chunk().ok_or(DropReason::BadLength)?;
    let inner_len = payload.len().checked_sub(usize::from(pad_length)).ok_or(DropReason::BadPadding)?;
    // RFC 4303 2.4: the receiver SHOULD inspect the padding.
    if !payload[inner_len..].iter().copied().eq(1..=pad_length) {
        return Err(DropReason::BadPadding);
    }
    if sa.spec().mode == Mode::Transport {
        if next_header == protocol::NO_NEXT_HEADER {
            return Err(DropReason::DummyPacket);
        }
        packet.truncate(inner_len);
        return with_header(packet, next_header, outer, sa);
    }
    let ipv4 = match next_header {
        protocol::IPV4 => true,
        protocol::IPV6 => false,
        protocol::NO_NEXT_HEADER => return Err(DropReason::DummyPacket),
        _ => return Err(DropReason::BadNextHeader),
    };
    packet.truncate(inner_len);
    inner_of_tunnel(packet, ipv4, outer, sa)
}

/// Checks the inner packet of tunnel mode, and marks in it what happened outside.
fn inner_of_tunnel(packet: &mut Packet, ipv4: bool, outer: Outer, sa: &InboundSa) -> Result<Headers, DropReason> {
    let headers = Headers::parse(packet.as_slice()).map_err(|_| DropReason::Malformed)?;
    if headers.is_ipv4() != ipv4 {
        return Err(DropReason::BadNextHeader);
    }
    // Behind the packet's own length lies traffic flow confidentiality padding (RFC 4303 2.7).
    packet.truncate(headers.total_len);
    if !sa.spec().selector.matches(&headers.tuple, Direction::Inbound) {
        return Err(DropReason::SelectorMismatch);
    }
    let class = inner_traffic_class(headers.traffic_class, outer.traffic_class).map_err(|_| DropReason::EcnIllegal)?;
    if class != headers.traffic_class {
        set_traffic_class(packet.as_mut_slice(), &headers, class);
    }
    Ok(headers)
}

/// From the payload of transport mode to the packet it was.
fn with_header(packet: &mut Packet, next_header: u8, outer: Outer, sa: &InboundSa) -> Result<Headers, DropReason> {
    if !transport::give_header(packet, next_header, outer, sa.spec()) {
        return Err(DropReason::BadLength);
    }
    whole_within(packet, sa)
}

/// From an authentic packet of AH to what it protects.
fn without_ah(packet: &mut Packet, outer: Outer, sa: &InboundSa) -> Result<Headers, DropReason> {
    let mode = sa.spec().mode;
    match (mode, ah::remove(packet, mode).ok_or(DropReason::BadLength)?) {
        (_, protocol::NO_NEXT_HEADER) => Err(DropReason::DummyPacket),
        (Mode::Transport, _) => whole_within(packet, sa),
        (Mode::Tunnel, protocol::IPV4) => inner_of_tunnel(packet, true, outer, sa),
        (Mode::Tunnel, protocol::IPV6) => inner_of_tunnel(packet, false, outer, sa),
        (Mode::Tunnel, _) => Err(DropReason::BadNextHeader),
    }
}

/// Checks a packet of transport mode, with its header.
fn whole_within(packet: &mut Packet, sa: &InboundSa) -> Result<Headers, DropReason> {
    let headers = Headers::parse(packet.as_slice()).map_err(|_| DropReason::Malformed)?;
    // A fragment cannot be inside: it would be one of a packet that nobody has checked (RFC 4303 3.3.4).
    if headers.fragment != Fragment::Whole {
        return Err(DropReason::Malformed);
    }
    if !sa.spec().selector.matches(&headers.tuple, Direction::Inbound) {
        return Err(DropReason::SelectorMismatch);
    }
    Ok(headers)
}
