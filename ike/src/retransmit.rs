//! Retransmission: five times, exponentially from one second, 31 seconds in all.

use core::time::Duration;
use policy::time::Timestamp;

/// Seconds from one transmission to the next, then to giving up. The fifth
/// retransmission goes out a second before the end, so that its answer can
/// still count.
const WAITS: [u64; 6] = [1, 2, 4, 8, 15, 1];

/// How long a request is tried before its exchange fails.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(31);

/// A request on its way, repeated until it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) datagram: Vec<u8>,
    waits: usize,
}

impl Request {
    /// A request that is sent now; returns it and when to look at it again.
    pub(crate) fn new(datagram: Vec<u8>, now: Timestamp) -> (Self, Timestamp) {
        (Self { datagram, waits: 0 }, now + Duration::from_secs(WAITS[0]))
    }

    /// What to do at the time that was named: send again, and when to look next; or give up.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<(&[u8], Timestamp)> {
        self.waits += 1;
        let wait = WAITS.get(self.waits)?;
        Some((&self.datagram, now + Duration::from_secs(*wait)))
    }

    /// Times it was sent so far.
    pub(crate) fn transmissions(&self) -> usize {
        self.waits.min(WAITS.len() - 1) + 1
    }
}

/// Pause before an answer is given again.
const PAUSE: Duration = Duration::from_millis(250);
/// An answer is given so many times again and no more: whoever repeats a message for ever gets silence.
const REPEATS: u8 = 24;
/// As often as an honest peer repeats itself.
const SELDOM: u8 = 6;

/// An answer, given again to who repeats the question: it may have been lost.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    datagram: Vec<u8>,
    not_before: Timestamp,
    left: u8,
}

impl Answer {
    /// An answer that is given now for the first time.
    pub(crate) fn new(datagram: Vec<u8>, now: Timestamp) -> Self {
        Self { datagram, not_before: now + PAUSE, left: REPEATS }
    }

    /// An answer that may be longer than its question, to who may be somebody else: given again a few times.
    pub(crate) fn seldom(datagram: Vec<u8>, now: Timestamp) -> Self {
        Self { left: SELDOM, ..Self::new(datagram, now) }
    }

    /// The question has come again.
    pub(crate) fn again(&mut self, now: Timestamp) -> Option<&[u8]> {
        if now < self.not_before {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.not_before = now + PAUSE;
        Some(&self.datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_retransmissions_then_failure_at_31_seconds() {
        let start = Timestamp::from_micros(7);
        let (mut request, mut next) = Request::new(vec![1], start);
        let mut sent_at = vec![0];
        while let Some((datagram, after)) = request.due(next) {
            assert_eq!(datagram, [1]);
            sent_at.push(next.since(start).as_secs());
            next = after;
        }
        assert_eq!(sent_at, [0, 1, 3, 7, 15, 30]);
        assert_eq!(next.since(start), GIVE_UP);
        assert_eq!(request.transmissions(), 6);
    }
    #[test]
    fn an_answer_is_repeated_now_and_then_and_not_for_ever() {
        let mut answer = Answer::new(vec![1], Timestamp::from_micros(0));
        let given = (0..1_000_000).filter(|ms| answer.again(Timestamp::from_micros(ms * 1000)).is_some());
        let given: Vec<u64> = given.collect();
        assert_eq!(given.len(), usize::from(REPEATS));
        assert_eq!(given[..3], [250, 500, 750]);
    }
}
