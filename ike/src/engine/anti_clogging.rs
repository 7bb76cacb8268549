//! First messages of peers, of which nothing is kept but one copy of all that are alike.
//!
//! Anybody can send a first message under anybody's address, so it must cost neither memory for
//! each nor a Diffie-Hellman computation. Our cookie is what proves an address real (RFC 2408
//! 2.5.3): a keyed function of both addresses and ports, the initiator's cookie, the time, and the
//! *offer*, the payloads of message 1, which message 3 does not repeat and HASH_I covers. Peers
//! that are configured alike, and every retransmission, send the same offer, so a flood of copies
//! is one offer. A flood of different ones displaces the oldest that no message 3 has come back
//! for; one that a real address has used before is not displaced by those that only pretend.

use super::source::Source;
use crate::wire::numbers::PayloadKind;
use crate::wire::{Cookie, Header, Message};
use core::time::Duration;
use crypto::table::Hash;
use crypto::{Entropy, Secret, secret};
use policy::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Time goes into a cookie in steps of this.
const STEP: Duration = Duration::from_secs(16);
/// A cookie is good for so many steps after its own: an initiator has message 3 on its way within
/// a round trip of message 2, and may repeat both for a while.
const STEPS: u64 = 4;
/// Offers kept, in number and in octets of their payloads.
const OFFERS: usize = 16_384;
const OCTETS: usize = 8 << 20;
/// Payloads of message 1 that are longer are nobody's honest offer.
const LONGEST: usize = 16_384;
/// Offers that are kept for having been used by a real address: in all, and for one source.
const PROVEN: usize = 1024;
const PROVEN_PER_SOURCE: usize = 8;
/// Cookies remembered as spent, until they are too old anyway.
const SPENT: usize = 65_536;

/// What a cookie is bound to besides the offer and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) initiator: Cookie,
}

/// The payloads of a first message that our policy accepts, and what we answer.
#[derive(Debug)]
pub(super) struct Offer {
    serial: u64,
    /// The payloads, as they came; SA is the first.
    payloads: Arc<[u8]>,
    /// Name of the IKE policy that chose, with the methods that it could choose from.
    policy: Arc<str>,
    /// Message 2; its cookies are another negotiation's.
    answer: Vec<u8>,
    /// Who first used it in earnest, and when it was last so used.
    proven: Option<(Source, u64)>,
}

impl Offer {
    /// Message 2 with the right cookies.
    pub(super) fn answer(&self, initiator: Cookie, responder: Cookie) -> Vec<u8> {
        [&initiator.0, &responder.0, self.answer.get(16..).unwrap_or_default()].concat()
    }

    /// The first message that it came in, put together again under `header`.
    pub(super) fn first_message(&self, header: Header) -> Option<Message> {
        let header = Header { responder: Cookie::ZERO, first: PayloadKind::SECURITY_ASSOCIATION, ..header };
        Message::decode(&header.with_body(&self.payloads)).ok()
    }

    /// Whether `answer` says the same as ours, whatever its cookies.
    pub(super) fn is_answered_by(&self, answer: &[u8]) -> bool {
        self.answer.get(16..) == answer.get(16..)
    }

    fn weight(&self) -> usize {
        self.payloads.len() + self.answer.len()
    }
}

/// The offers, and the cookies that were used up.
#[derive(Debug, Default)]
pub(super) struct AntiClogging {
    secret: Option<Secret>,
    offers: BTreeMap<u16, Offer>,
    /// Places among `offers` that may be free again, and the lowest that was never used.
    free: Vec<u16>,
    unused: u16,
    /// By policy and payloads.
    by_content: BTreeMap<Arc<str>, BTreeMap<Arc<[u8]>, u16>>,
    /// Those that no real address has used, by serial number.
    fresh: BTreeMap<u64, u16>,
    /// The others, by last use.
    proven: BTreeMap<u64, u16>,
    octets: usize,
    /// Numbers offers, and uses of them.
    serial: u64,
    spent: BTreeMap<Cookie, Timestamp>,
    spent_order: VecDeque<Cookie>,
}

impl AntiClogging {
    /// The offer that equals these payloads, if we hold it for the policy and methods of that name.
    pub(super) fn find(&self, policy: &str, payloads: &[u8]) -> Option<u16> {
        self.by_content.get(policy)?.get(payloads).copied()
    }

    /// Keeps an offer and what we answer to it; `None` if it is longer than any honest one.
    pub(super) fn keep(&mut self, policy: &str, payloads: &[u8], answer: Vec<u8>) -> Option<u16> {
        if payloads.len() > LONGEST {
            return None;
        }
        let weight = payloads.len() + answer.len();
        while self.offers.len() >= OFFERS || self.octets + weight > OCTETS {
            let oldest = self.fresh.first_key_value().or_else(|| self.proven.first_key_value());
            let (_, &place) = oldest?;
            self.forget(place);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.unused += 1;
            self.unused - 1
        });
        self.serial += 1;
        let payloads: Arc<[u8]> = payloads.into();
        let policy: Arc<str> = policy.into();
        self.by_content.entry(Arc::clone(&policy)).or_default().insert(Arc::clone(&payloads), place);
        self.fresh.insert(self.serial, place);
        self.octets += weight;
        self.offers.insert(place, Offer { serial: self.serial, payloads, policy, answer, proven: None });
        Some(place)
    }

    /// The offer in a place that [`AntiClogging::find`], `keep` or `verify` named.
    pub(super) fn offer(&self, place: u16) -> Option<&Offer> {
        self.offers.get(&place)
    }

    /// Our cookie for a negotiation of this offer that begins now.
    pub(super) fn cookie(
        &mut self,
        now: Timestamp,
        path: &Path,
        place: u16,
        entropy: &mut dyn Entropy,
    ) -> Option<Cookie> {
        if self.secret.is_none() {
            let mut octets = [0; 32];
            entropy.fill(&mut octets);
            self.secret = Some(Secret::copy_of(&octets));
        }
        self.made(step(now), path, place)
    }

    /// The cookie of a time step: place of the offer (16 bits), a one, the step (3 bits), MAC (44 bits).
    fn made(&self, step: u64, path: &Path, place: u16) -> Option<Cookie> {
        let serial = self.offers.get(&place)?.serial;
        let mac = self.mac(step, path, serial)?;
        let mut octets = [0; 8];
        octets[..2].copy_from_slice(&place.to_be_bytes());
        octets[2..].copy_from_slice(mac.expose().get(..6)?);
        octets[2] = octets[2] & 0x0f | 0x80 | ((step % 8) as u8) << 4;
        Some(Cookie(octets))
    }

    fn mac(&self, step: u64, path: &Path, serial: u64) -> Option<Secret> {
        let hash = Hash::from_keyword("sha256")?;
        let address = |a: SocketAddr| match a.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), a.port().to_be_bytes()),
            IpAddr::V6(ip) => (ip.octets(), a.port().to_be_bytes()),
        };
        let ((l, lp), (r, rp)) = (address(path.local), address(path.remote));
        let parts: [&[u8]; 7] = [&step.to_be_bytes(), &serial.to_be_bytes(), &l, &lp, &r, &rp, &path.initiator.0];
        Some(hash.prf(self.secret.as_ref()?.expose(), &parts))
    }

    /// The place of the offer of a negotiation whose message 3 brings this cookie of ours back;
    /// `None` if we did not make it, not for this path, too long ago, or if it is spent.
    pub(super) fn verify(&self, now: Timestamp, path: &Path, cookie: Cookie) -> Option<u16> {
        let place = u16::from_be_bytes([cookie.0[0], cookie.0[1]]);
        let (this, said) = (step(now), u64::from(cookie.0[2] >> 4 & 0x07));
        let age = (this + 8 - said) % 8;
        if age > STEPS || self.spent.contains_key(&cookie) {
            return None;
        }
        let expected = self.made(this.checked_sub(age)?, path, place)?;
        secret::equal(&expected.0, &cookie.0).then_some(place)
    }

    /// A negotiation has begun with a cookie: it begins no other, and its offer is one of a real address.
    pub(super) fn spend(&mut self, now: Timestamp, cookie: Cookie, place: u16, source: Source) {
        while let Some(oldest) = self.spent_order.front().copied() {
            let over = self.spent.get(&oldest).is_none_or(|until| *until <= now);
            if !over && self.spent_order.len() < SPENT {
                break;
            }
            self.spent_order.pop_front();
            self.spent.remove(&oldest);
        }
        self.spent.insert(cookie, now + STEP * (STEPS as u32 + 1));
        self.spent_order.push_back(cookie);
        self.prove(place, source);
    }

    /// A negotiation ended before its time for others' sake: it may begin again.
    pub(super) fn restore(&mut self, cookie: Cookie) {
        self.spent.remove(&cookie);
    }

    fn prove(&mut self, place: u16, source: Source) {
        let Some(before) = self.offers.get(&place).map(|o| o.proven) else { return };
        if before.is_none()
            && let Some(displaced) = self.displaced_by(source)
        {
            self.forget(displaced);
        }
        self.serial += 1;
        let Some(offer) = self.offers.get_mut(&place) else { return };
        // Its serial number stays: cookies are bound to it.
        self.fresh.remove(&offer.serial);
        offer.proven = Some((before.map_or(source, |(first, _)| first), self.serial));
        self.proven.insert(self.serial, place);
        if let Some((_, used)) = before {
            self.proven.remove(&used);
        }
    }

    /// Which proven offer must go for a new one of this source, if any.
    fn displaced_by(&self, source: Source) -> Option<u16> {
        let proven_by = |place: &u16| self.offers.get(place).and_then(|o| o.proven).map(|(by, _)| by);
        let of_source: Vec<_> = self.proven.values().copied().filter(|p| proven_by(p) == Some(source)).collect();
        match of_source.first() {
            Some(&oldest) if of_source.len() >= PROVEN_PER_SOURCE => Some(oldest),
            _ if self.proven.len() >= PROVEN => self.proven.first_key_value().map(|(_, p)| *p),
            _ => None,
        }
    }

    fn forget(&mut self, place: u16) {
        let Some(offer) = self.offers.remove(&place) else { return };
        self.octets -= offer.weight();
        self.fresh.remove(&offer.serial);
        if let Some((_, used)) = offer.proven {
            self.proven.remove(&used);
        }
        if let Some(of_policy) = self.by_content.get_mut(&offer.policy) {
            // After a reload the same payloads may stand in another place.
            if of_policy.get(&offer.payloads) == Some(&place) {
                of_policy.remove(&offer.payloads);
            }
            if of_policy.is_empty() {
                self.by_content.remove(&offer.policy);
            }
        }
        self.free.push(place);
    }

    /// The policies have changed: offers are answered anew. Cookies that are out stay good if the
    /// answer is still the same.
    pub(super) fn answer_anew(&mut self) {
        self.by_content.clear();
        for (_, place) in std::mem::take(&mut self.proven) {
            if let Some(offer) = self.offers.get_mut(&place) {
                offer.proven = None;
                self.fresh.insert(offer.serial, place);
            }
        }
    }
}

/// The time step of a time.
fn step(now: Timestamp) -> u64 {
    now.as_micros() / STEP.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::entropy::testing::SeededEntropy;

    fn path(last: u8, port: u16) -> Path {
        let local = SocketAddr::from(([10, 0, 0, 1], 500));
        Path { local, remote: SocketAddr::from(([10, 0, 1, last], port)), initiator: Cookie([last; 8]) }
    }

    fn source(last: u8) -> Source {
        Source::of([10, 0, 1, last].into())
    }

    fn keep(table: &mut AntiClogging, n: u32) -> u16 {
        table.keep("p", &n.to_be_bytes(), vec![7; 60]).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_cookie_is_good_for_its_path_its_offer_and_its_time() {
        let (mut table, mut entropy) = (AntiClogging::default(), SeededEntropy::new(1));
        let (one, two) = (keep(&mut table, 1), keep(&mut table, 2));
        let cookie = table.cookie(at(1000), &path(1, 500), one, &mut entropy).unwrap();
        assert_eq!(table.verify(at(1000), &path(1, 500), cookie), Some(one));
        assert_eq!(table.cookie(at(1001), &path(1, 500), one, &mut entropy), Some(cookie), "a repeated message 1");
        assert_eq!(table.verify(at(1060), &path(1, 500), cookie), Some(one));
        for later in [1090, 1128, 1136, 1256, 2000, 100_000] {
            assert_eq!(table.verify(at(later), &path(1, 500), cookie), None, "at {later} s");
        }
        assert_eq!(table.verify(at(900), &path(1, 500), cookie), None, "made in the future");
        assert_eq!(table.verify(at(1000), &path(1, 501), cookie), None);
        assert_eq!(table.verify(at(1000), &path(2, 500), cookie), None);
        for bit in 0..64 {
            let mut other = cookie;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(table.verify(at(1000), &path(1, 500), other), None, "bit {bit}");
        }
        // The place of another offer, or of one that came after it into the same place.
        let mut other = cookie;
        other.0[..2].copy_from_slice(&two.to_be_bytes());
        assert_eq!(table.verify(at(1000), &path(1, 500), other), None);
        table.forget(one);
        assert_eq!(keep(&mut table, 3), one);
        assert_eq!(table.verify(at(1000), &path(1, 500), cookie), None);
    }

    #[test]
    fn a_spent_cookie_begins_nothing_until_it_is_too_old_anyway() {
        let (mut table, mut entropy) = (AntiClogging::default(), SeededEntropy::new(1));
        let place = keep(&mut table, 1);
        let cookie = table.cookie(at(16), &path(1, 500), place, &mut entropy).unwrap();
        table.spend(at(17), cookie, place, source(1));
        for later in 17..200 {
            assert_eq!(table.verify(at(later), &path(1, 500), cookie), None);
        }
        table.restore(cookie);
        assert_eq!(table.verify(at(18), &path(1, 500), cookie), Some(place));
        // Others take their place among the spent, which are bounded.
        for n in 0..2 * SPENT as u64 {
            table.spend(at(20), Cookie(n.to_be_bytes()), place, source(1));
        }
        assert_eq!((table.spent.len(), table.spent_order.len()), (SPENT, SPENT));
    }

    #[test]
    fn a_flood_of_different_offers_displaces_the_unused_and_not_the_used() {
        let mut table = AntiClogging::default();
        let used = keep(&mut table, 0);
        table.prove(used, source(1));
        let unused = keep(&mut table, 1);
        for n in 2..100_000 {
            keep(&mut table, n);
        }
        assert!(table.offers.len() <= OFFERS && table.octets <= OCTETS);
        assert_eq!(table.find("p", &0u32.to_be_bytes()), Some(used));
        assert_eq!(table.find("p", &1u32.to_be_bytes()), None);
        assert_ne!(table.offer(unused).unwrap().payloads[..], 1u32.to_be_bytes());
        assert_eq!(table.find("q", &0u32.to_be_bytes()), None, "another policy chooses otherwise");
        assert_eq!(table.by_content["p"].len(), table.offers.len());
    }

    #[test]
    fn long_offers_are_bounded_in_octets() {
        let mut table = AntiClogging::default();
        assert_eq!(table.keep("p", &vec![0; LONGEST + 1], Vec::new()), None);
        for n in 0..2000u32 {
            let mut payloads = vec![0; LONGEST];
            payloads[..4].copy_from_slice(&n.to_be_bytes());
            table.keep("p", &payloads, vec![0; 80]).unwrap();
        }
        assert!(table.octets <= OCTETS && table.offers.len() > 400);
    }

    #[test]
    fn one_source_keeps_few_and_all_together_keep_a_bounded_number() {
        let mut table = AntiClogging::default();
        for n in 0..20 {
            let place = keep(&mut table, n);
            table.prove(place, source(1));
        }
        assert_eq!(table.proven.len(), PROVEN_PER_SOURCE);
        for n in 100..3000u32 {
            let place = keep(&mut table, n);
            table.prove(place, Source::of([10, 1, (n >> 8) as u8, n as u8].into()));
        }
        assert_eq!(table.proven.len(), PROVEN);
        table.answer_anew();
        assert_eq!((table.proven.len(), table.by_content.len()), (0, 0));
        assert_eq!(table.fresh.len(), table.offers.len());
    }
}
