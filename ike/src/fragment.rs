//! IKE fragmentation, the extension of Cisco that others speak too: a message is cut into pieces, each in an
//! ISAKMP message of its own with one payload of type 132, since outer IP fragments do not get through everywhere.
//! No RFC describes it. Pieces are not authenticated; the message that they make is, or is not, as if it had come
//! whole.

use crate::wire::numbers::PayloadKind;
use crate::wire::payload::Fragment;
use crate::wire::{Body, Cookie, Flags, HEADER_LEN, Header, Message, Payload};
use policy::time::Timestamp;
use std::collections::BTreeMap;

/// Octets of a piece that are not the message's: header, generic header, fragment ID, number and flags.
const OVERHEAD: usize = HEADER_LEN + 8;
/// Octets of the longest message that is put together: as much as a datagram can hold.
const LONGEST: usize = 65_535;

/// `message` in pieces of at most `most` octets each; `None` if it is no longer than that, or cannot be cut so.
///
/// The same message is always cut in the same way, so that its repetition fills gaps.
pub(crate) fn split(message: &[u8], most: usize) -> Option<Vec<Vec<u8>>> {
    let room = most.checked_sub(OVERHEAD).filter(|room| *room > 0)?;
    if message.len() <= most || message.len().div_ceil(room) > usize::from(u8::MAX) {
        return None;
    }
    let cookie = |at: usize| Some(Cookie(message.get(at..at + 8)?.try_into().ok()?));
    let header = Header {
        initiator: cookie(0)?,
        responder: cookie(8)?,
        first: PayloadKind::FRAGMENT,
        exchange: crate::wire::numbers::ExchangeType(*message.get(18)?),
        // Whatever they are in the whole: all implementations have none, and 0.
        flags: Flags::default(),
        message_id: 0,
    };
    let id = number_of(message);
    let last = message.len().div_ceil(room);
    let pieces = message.chunks(room).zip(1..=u8::MAX).map(|(data, number)| {
        let fragment = Fragment { id, number, last: usize::from(number) == last, data: data.to_vec() };
        Message { header, body: Body::Clear(vec![Payload::Fragment(fragment)]) }.encode()
    });
    Some(pieces.collect())
}

/// A fragment ID that repetitions share and different messages mostly do not; never 0.
fn number_of(message: &[u8]) -> u16 {
    let sum = message.iter().fold(0u32, |sum, octet| sum.wrapping_mul(31).wrapping_add(u32::from(*octet)));
    (sum % u32::from(u16::MAX)) as u16 + 1
}

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is here already.
    Duplicate,
    /// It contradicts what is here already, or cannot be a piece at all.
    Inconsistent,
    /// The message would be too long.
    TooLong,
}

/// The pieces of one message, so far.
#[derive(Debug)]
pub(crate) struct Reassembly {
    pub(crate) id: u16,
    pub(crate) began: Timestamp,
    pieces: BTreeMap<u8, Vec<u8>>,
    last: Option<u8>,
    pub(crate) octets: usize,
}

impl Reassembly {
    pub(crate) fn new(id: u16, now: Timestamp) -> Self {
        Self { id, began: now, pieces: BTreeMap::new(), last: None, octets: 0 }
    }

    /// Takes a piece; the whole message if it was the one that was missing.
    ///
    /// # Errors
    /// If the piece does not belong here; then all is as before.
    pub(crate) fn add(&mut self, fragment: &Fragment) -> Result<Option<Vec<u8>>, Misfit> {
        let number = fragment.number;
        if number == 0 || fragment.data.is_empty() {
            return Err(Misfit::Inconsistent);
        }
        if let Some(known) = self.pieces.get(&number) {
            let same = *known == fragment.data && fragment.last == (self.last == Some(number));
            return Err(if same { Misfit::Duplicate } else { Misfit::Inconsistent });
        }
        let highest = self.pieces.last_key_value().map_or(0, |(highest, _)| *highest);
        let fits = match self.last {
            Some(last) => number < last && !fragment.last,
            None => !fragment.last || number > highest,
        };
        if !fits {
            return Err(Misfit::Inconsistent);
        }
        if self.octets + fragment.data.len() > LONGEST {
            return Err(Misfit::TooLong);
        }
        if fragment.last {
            self.last = Some(number);
        }
        self.octets += fragment.data.len();
        self.pieces.insert(number, fragment.data.clone());
        let complete = self.last.is_some_and(|last| self.pieces.len() == usize::from(last));
        Ok(complete.then(|| self.pieces.values().flatten().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Payloads;

    fn message(len: usize) -> Vec<u8> {
        let header = Header {
            initiator: Cookie([1; 8]),
            responder: Cookie([2; 8]),
            first: PayloadKind::HASH,
            exchange: crate::wire::numbers::ExchangeType::MAIN_MODE,
            flags: Flags { encryption: true, ..Flags::default() },
            message_id: 0,
        };
        header.with_body(&(0..len - HEADER_LEN).map(|n| n as u8).collect::<Vec<_>>())
    }

    fn fragments(pieces: &[Vec<u8>]) -> Vec<Fragment> {
        let read = |piece: &Vec<u8>| {
            let message = Message::decode(piece).unwrap();
            assert_eq!((message.header.message_id, message.header.flags), (0, Flags::default()));
            assert_eq!((message.header.initiator, message.header.responder), (Cookie([1; 8]), Cookie([2; 8])));
            let Body::Clear(payloads) = message.body else { panic!("in the clear") };
            Payloads(&payloads).fragment().unwrap().clone()
        };
        pieces.iter().map(read).collect()
    }

    fn empty(id: u16) -> Reassembly {
        Reassembly::new(id, Timestamp::from_micros(0))
    }

    #[test]
    fn what_is_cut_comes_together_in_any_order() {
        for len in [101, 128, 129, 1000, 2000, 64 * 255] {
            let whole = message(len);
            let pieces = split(&whole, 100).unwrap();
            assert!(pieces.iter().all(|piece| piece.len() <= 100));
            assert_eq!(pieces, split(&whole, 100).unwrap(), "always the same");
            let mut fragments = fragments(&pieces);
            assert!(fragments.iter().rev().skip(1).all(|f| !f.last) && fragments.last().unwrap().last);
            for turn in 0..3 {
                let by = turn * fragments.len() / 3;
                fragments.rotate_left(by);
                let mut reassembly = empty(fragments[0].id);
                let (end, most) = fragments.split_last().unwrap();
                assert!(most.iter().all(|f| reassembly.add(f) == Ok(None)));
                assert!(most.iter().all(|f| reassembly.add(f) == Err(Misfit::Duplicate)));
                assert_eq!(reassembly.add(end), Ok(Some(whole.clone())), "{len} {turn}");
            }
        }
    }

    #[test]
    fn what_need_not_or_cannot_be_cut_is_not() {
        assert_eq!(split(&message(100), 100), None);
        assert_eq!(split(&message(64 * 255 + 1), 100), None, "more than 255 pieces");
        assert_eq!(split(&message(100), OVERHEAD), None);
        assert_eq!(split(&[0; 20], 10), None);
    }

    #[test]
    fn contradictions_are_refused_and_change_nothing() {
        let of = |number, last, data: &[u8]| Fragment { id: 7, number, last, data: data.to_vec() };
        let mut reassembly = empty(7);
        assert_eq!(reassembly.add(&of(2, false, b"b")), Ok(None));
        for wrong in [
            of(0, false, b"x"),
            of(0, true, b"x"),
            of(3, false, b""),
            of(2, false, b"x"),
            of(2, true, b"b"),
            // The last is not before one that is here.
            of(1, true, b"a"),
        ] {
            assert_eq!(reassembly.add(&wrong), Err(Misfit::Inconsistent), "{wrong:?}");
        }
        assert_eq!(reassembly.add(&of(3, true, b"c")), Ok(None));
        for wrong in [of(4, false, b"d"), of(5, true, b"e"), of(1, true, b"a"), of(3, false, b"c"), of(3, true, b"x")] {
            assert_eq!(reassembly.add(&wrong), Err(Misfit::Inconsistent), "{wrong:?}");
        }
        assert_eq!(reassembly.add(&of(3, true, b"c")), Err(Misfit::Duplicate));
        assert_eq!(reassembly.add(&of(1, false, b"a")), Ok(Some(b"abc".to_vec())));
        let mut long = empty(7);
        for number in 1..=6 {
            assert_eq!(long.add(&of(number, false, &[0; 10_000])), Ok(None));
        }
        assert_eq!(long.add(&of(7, true, &[0; 10_000])), Err(Misfit::TooLong));
        assert_eq!(long.octets, 60_000);
    }
}
