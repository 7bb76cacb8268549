//! Pieces of messages, in and out (see [`crate::fragment`]).
//!
//! Pieces are kept of who has an SA with us or brings back a cookie of ours, so is where he says; of each a
//! little, of all together a bounded lot, for a while.

use super::anti_clogging::Path;
use super::isakmp::Discarded;
use super::source::Source;
use super::{Datagram, Engine, Timer};
use crate::fragment::{self, Misfit, Reassembly};
use crate::keys::Cookies;
use crate::wire::payload::Fragment;
use crate::wire::{Body, Message, Payloads};
use core::time::Duration;
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// So long a message may take to be complete: its sender repeats it meanwhile.
const LIFE: Duration = Duration::from_secs(30);
/// Messages of one source that are not complete, and octets of them.
const PER_SOURCE: usize = 16;
const OCTETS_PER_SOURCE: usize = 256 << 10;
/// The same of all sources; the oldest gives way.
const IN_ALL: usize = 512;
const OCTETS: usize = 4 << 20;

/// What the pieces of one message have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    local: SocketAddr,
    remote: SocketAddr,
    cookies: Cookies,
}

/// Messages that are not complete.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    flows: BTreeMap<Flow, Reassembly>,
    octets: usize,
}

/// Messages in pieces so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Messages that were sent in pieces.
    pub sent: u64,
    /// Messages that came in pieces and were put together.
    pub reassembled: u64,
}

impl Fragments {
    /// Takes a piece; `given_up` counts messages that will not be complete.
    fn add(
        &mut self,
        now: Timestamp,
        flow: Flow,
        fragment: &Fragment,
        given_up: &mut u64,
    ) -> Result<Option<Vec<u8>>, Discarded> {
        *given_up += self.expire(now);
        // Another ID is another message: its sender has gone on.
        if self.flows.get(&flow).is_some_and(|known| known.id != fragment.id) {
            self.remove(&flow);
            *given_up += 1;
        }
        let source = Source::of(flow.remote.ip());
        let own = self.flows.iter().filter(|(other, _)| Source::of(other.remote.ip()) == source);
        let (messages, octets) = own.fold((0, 0), |(n, octets), (_, r)| (n + 1, octets + r.octets));
        let begins = !self.flows.contains_key(&flow);
        if begins && messages >= PER_SOURCE || octets + fragment.data.len() > OCTETS_PER_SOURCE {
            return Err(Discarded::FragmentLimit);
        }
        while begins && self.flows.len() >= IN_ALL || self.octets + fragment.data.len() > OCTETS {
            let others = self.flows.iter().filter(|(other, _)| **other != flow);
            let Some(oldest) = others.min_by_key(|(_, r)| r.began).map(|(oldest, _)| *oldest) else {
                return Err(Discarded::FragmentLimit);
            };
            self.remove(&oldest);
            *given_up += 1;
        }
        let reassembly = self.flows.entry(flow).or_insert_with(|| Reassembly::new(fragment.id, now));
        let before = reassembly.octets;
        let result = reassembly.add(fragment);
        self.octets += reassembly.octets - before;
        if reassembly.octets == 0 || matches!(result, Ok(Some(_))) {
            self.remove(&flow);
        }
        result.map_err(|misfit| match misfit {
            Misfit::Duplicate => Discarded::FragmentDuplicate,
            Misfit::Inconsistent => Discarded::FragmentInconsistent,
            Misfit::TooLong => Discarded::FragmentLimit,
        })
    }

    fn remove(&mut self, flow: &Flow) {
        if let Some(gone) = self.flows.remove(flow) {
            self.octets -= gone.octets;
        }
    }

    /// Gives up what has been waited for long enough; how many.
    fn expire(&mut self, now: Timestamp) -> u64 {
        let before = self.flows.len();
        self.flows.retain(|_, r| now.since(r.began) < LIFE);
        self.octets = self.flows.values().map(|r| r.octets).sum();
        (before - self.flows.len()) as u64
    }

    fn first_due(&self) -> Option<Timestamp> {
        self.flows.values().map(|r| r.began + LIFE).min()
    }
}

impl Engine {
    /// A piece has come in; the whole message if it was the last that was missing.
    pub(super) fn fragment(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
    ) -> Option<(Vec<u8>, Message)> {
        let header = &message.header;
        let fragment = match &message.body {
            Body::Clear(payloads) if payloads.len() == 1 => Payloads(payloads).fragment(),
            _ => None,
        };
        let Some(fragment) = fragment else {
            self.discard(Discarded::FragmentInconsistent);
            return None;
        };
        let cookies = Cookies { initiator: header.initiator, responder: header.responder };
        if !self.takes_fragments(now, datagram, message) {
            self.discard(Discarded::FragmentLimit);
            return None;
        }
        let flow = Flow { local: datagram.local, remote: datagram.remote, cookies };
        let mut given_up = 0;
        let taken = self.fragments.add(now, flow, fragment, &mut given_up);
        self.fragments_given_up(given_up);
        let whole = match taken {
            Ok(whole) => whole?,
            Err(discarded) => {
                self.discard(discarded);
                return None;
            }
        };
        let belongs = |whole: &Message| {
            let h = &whole.header;
            (h.initiator, h.responder, h.exchange) == (header.initiator, header.responder, header.exchange)
                && h.first != header.first
        };
        match Message::decode(&whole) {
            Ok(decoded) if belongs(&decoded) => {
                self.fragment_counts.reassembled += 1;
                Some((whole, decoded))
            }
            _ => {
                self.discard(Discarded::FragmentInconsistent);
                None
            }
        }
    }

    /// Whether pieces are kept: of a peer whose policy has fragmentation, and who is where he says.
    fn takes_fragments(&self, now: Timestamp, datagram: &Datagram<'_>, message: &Message) -> bool {
        if let Some(sa) = self.sa_of(&message.header, datagram).and_then(|id| self.isakmp.get(&id)) {
            return sa.setup.policy.fragment_size.is_some();
        }
        let path = Path { local: datagram.local, remote: datagram.remote, initiator: message.header.initiator };
        self.config.ike_policy(datagram.remote.ip()).is_some_and(|p| p.fragment_size.is_some())
            && self.anti_clogging.verify(now, &path, message.header.responder).is_some()
    }

    /// Counts messages that will not be complete, and sees to the timer of the others.
    fn fragments_given_up(&mut self, messages: u64) {
        if messages > 0 {
            *self.discarded.entry(Discarded::FragmentIncomplete).or_default() += messages;
        }
        match self.fragments.first_due() {
            Some(due) => self.timers.set(Timer::Fragments, due),
            None => self.timers.cancel(&Timer::Fragments),
        }
    }

    /// Some messages have not been complete in time.
    pub(super) fn fragments_due(&mut self, now: Timestamp) {
        let given_up = self.fragments.expire(now);
        self.fragments_given_up(given_up);
    }

    /// A message to a peer in pieces, if it is too long and the peer has announced that it takes them.
    pub(super) fn in_fragments(&mut self, local: SocketAddr, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        let cookie = |at: usize| message.get(at..at + 8);
        let initiator = crate::wire::Cookie(cookie(0)?.try_into().ok()?);
        let mut with_cookie = self.by_cookie.get(&initiator)?.iter().filter_map(|id| self.isakmp.get(id));
        let sa = with_cookie.find(|sa| Some(&sa.setup.cookies.responder.0[..]) == cookie(8))?;
        let size = usize::from(sa.setup.policy.fragment_size.filter(|_| sa.vendors.fragmentation())?);
        // The size is that of the IP packet, as it is of strongSwan's: IP, UDP, and the non-ESP marker.
        let ip = if local.is_ipv4() { 20 } else { 40 };
        let marker = if local.port() == self.config.startup.natt_port { 4 } else { 0 };
        let pieces = fragment::split(message, size.saturating_sub(ip + 8 + marker))?;
        self.fragment_counts.sent += 1;
        Some(pieces)
    }

    /// Messages that were sent or came in pieces.
    #[must_use]
    pub fn fragment_counts(&self) -> FragmentCounts {
        self.fragment_counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Cookie;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn flow(host: u32, cookie: u32) -> Flow {
        let mut octets = [1; 8];
        octets[..4].copy_from_slice(&cookie.to_be_bytes());
        let remote = SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + host), 500));
        let cookies = Cookies { initiator: Cookie(octets), responder: Cookie([2; 8]) };
        Flow { local: "10.9.9.9:500".parse().unwrap(), remote, cookies }
    }

    fn piece(id: u16, number: u8, last: bool, len: usize) -> Fragment {
        Fragment { id, number, last, data: vec![7; len] }
    }

    #[test]
    fn memory_is_bounded_per_source_and_in_all_and_given_back() {
        let (mut fragments, mut given_up) = (Fragments::default(), 0);
        for n in 0..1000 {
            let _ = fragments.add(at(0), flow(1, n), &piece(1, 1, false, 1000), &mut given_up);
        }
        assert_eq!((fragments.flows.len(), fragments.octets), (16, 16_000));
        for number in 2..=255 {
            let _ = fragments.add(at(0), flow(1, 0), &piece(1, number, false, 1200), &mut given_up);
        }
        assert!(fragments.octets <= OCTETS_PER_SOURCE, "{}", fragments.octets);
        for host in 2..3000 {
            let taken = fragments.add(at(1), flow(host, host), &piece(1, 1, false, 60_000), &mut given_up);
            assert_eq!(taken, Ok(None), "the oldest gives way");
            assert!(fragments.octets <= OCTETS && fragments.flows.len() <= IN_ALL);
        }
        assert!(given_up > 2000);
        for host in 10_000..20_000 {
            assert_eq!(fragments.add(at(2), flow(host, host), &piece(1, 1, false, 1), &mut given_up), Ok(None));
            assert!(fragments.flows.len() <= IN_ALL);
        }
        assert_eq!(fragments.first_due(), Some(at(32)));
        assert_eq!(fragments.expire(at(32)), IN_ALL as u64);
        assert_eq!((fragments.flows.len(), fragments.octets, fragments.first_due()), (0, 0, None));
    }

    #[test]
    fn another_id_begins_anew_and_what_is_nothing_is_not_kept() {
        let (mut fragments, mut given_up) = (Fragments::default(), 0);
        let mut add = |f: Fragment| fragments.add(at(0), flow(1, 1), &f, &mut given_up);
        assert_eq!(add(piece(1, 0, false, 5)), Err(Discarded::FragmentInconsistent));
        assert_eq!(add(piece(1, 1, false, 5)), Ok(None));
        assert_eq!(add(piece(1, 1, false, 5)), Err(Discarded::FragmentDuplicate));
        assert_eq!(add(piece(2, 2, true, 5)), Ok(None));
        assert_eq!(add(piece(2, 1, false, 3)), Ok(Some(vec![7; 8])));
        assert_eq!((given_up, fragments.flows.len(), fragments.octets), (1, 0, 0));
    }
}
