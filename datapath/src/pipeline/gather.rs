//! The fragments of one packet, brought together.
//!
//! Only the first fragment shows the ports. Where policies look at them, the
//! others wait for it, and all go the way that its ports say, as the fragments
//! they are (RFC 4301 7.3, stateful fragment checking). It is bounded: a packet
//! whose fragments are not all there in time, or which are too many, is dropped.

use crate::fragment::{Place, place};
use crate::headers::{Fragment, Headers};
use crate::packet::Packet;
use core::time::Duration;
use policy::counters::DropReason;
use policy::five_tuple::FiveTuple;
use policy::time::Timestamp;
use std::net::IpAddr;

/// Fragments that wait, of all packets: the longest packet has 46 at the MTU of Ethernet.
const MOST: usize = 256;
/// How long the first to come waits for the last (RFC 791 3.2 suggests as much).
const PATIENCE: Duration = Duration::from_secs(15);

/// The fragments that wait.
#[derive(Debug, Default)]
pub(super) struct Gather {
    waiting: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    key: Key,
    /// When the first of its packet came.
    since: Timestamp,
    place: Place,
    packet: Packet,
    headers: Headers,
}

/// What the fragments of one packet have in common (RFC 791 3.2, RFC 8200 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Where they come from: fragments of different tunnels are never of one packet.
    from: u32,
    source: IpAddr,
    destination: IpAddr,
    /// Of IPv4 alone: the later fragments of IPv6 do not say it reliably.
    protocol: Option<u8>,
    id: u32,
}

impl Key {
    fn new(from: u32, headers: &Headers, id: u32) -> Self {
        let FiveTuple { source, destination, protocol, .. } = headers.tuple;
        Self { from, source, destination, protocol: headers.is_ipv4().then_some(protocol), id }
    }
}

impl Gather {
    /// Takes a fragment, given exactly. If it is the last that was missing, all of
    /// its packet go to `complete`, in their order and with the five-tuple of the
    /// first.
    pub(super) fn add(
        &mut self,
        from: u32,
        packet: Packet,
        headers: Headers,
        now: Timestamp,
        complete: &mut impl FnMut(Packet, Headers),
        dropped: &mut impl FnMut(Packet, DropReason),
    ) {
        let Some(place) = place(packet.as_slice()) else { return dropped(packet, DropReason::Malformed) };
        let key = Key::new(from, &headers, place.id);
        let since = self.of(key).next().map_or(now, |p| p.since);
        // All but the last are in units of 8 octets; and overlapping ones are an attack (RFC 5722).
        let odd = place.octets().is_empty() || place.more && !place.octets().len().is_multiple_of(8);
        if odd || self.of(key).any(|p| place.overlaps(&p.place)) {
            self.drop_packet_of(key, DropReason::Malformed, dropped);
            return dropped(packet, DropReason::Malformed);
        }
        if self.waiting.len() == MOST {
            self.drop_oldest(dropped);
        }
        self.waiting.push(Part { key, since, place, packet, headers });
        if self.is_complete(key) {
            self.release(key, complete);
        }
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self, now: Timestamp, dropped: &mut impl FnMut(Packet, DropReason)) {
        for part in self.waiting.extract_if(.., |p| now.since(p.since) > PATIENCE) {
            dropped(part.packet, DropReason::FragmentsMissing);
        }
    }

    /// Drops everything, since the worker ends.
    pub(super) fn shut_down(&mut self, dropped: &mut impl FnMut(Packet, DropReason)) {
        for part in self.waiting.drain(..) {
            dropped(part.packet, DropReason::FragmentsMissing);
        }
    }

    fn of(&self, key: Key) -> impl Iterator<Item = &Part> {
        self.waiting.iter().filter(move |p| p.key == key)
    }

    /// Since none overlap, they are all there when their octets are as many as the last one says.
    fn is_complete(&self, key: Key) -> bool {
        let octets: usize = self.of(key).map(|p| p.place.octets().len()).sum();
        let end = self.of(key).map(|p| p.place.octets().end).max();
        let last = self.of(key).find(|p| !p.place.more).map(|p| p.place.octets().end);
        last == Some(octets) && last == end
    }

    fn release(&mut self, key: Key, complete: &mut impl FnMut(Packet, Headers)) {
        self.waiting.sort_unstable_by_key(|p| p.place.octets().start);
        let first = self.of(key).find(|p| p.headers.fragment == Fragment::First).map(|p| p.headers.tuple);
        for mut part in self.waiting.extract_if(.., |p| p.key == key) {
            // Complete ones have a first.
            part.headers.tuple = first.unwrap_or(part.headers.tuple);
            complete(part.packet, part.headers);
        }
    }

    fn drop_oldest(&mut self, dropped: &mut impl FnMut(Packet, DropReason)) {
        if let Some(key) = self.waiting.iter().min_by_key(|p| p.since).map(|p| p.key) {
            self.drop_packet_of(key, DropReason::FragmentsMissing, dropped);
        }
    }

    fn drop_packet_of(&mut self, key: Key, reason: DropReason, dropped: &mut impl FnMut(Packet, DropReason)) {
        for part in self.waiting.extract_if(.., |p| p.key == key) {
            dropped(part.packet, reason);
        }
    }
}
