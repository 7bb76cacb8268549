//! Packet buffers: fixed, reused, with room for the headers and trailers of ESP.

/// Octets kept free before a packet: an outer IP header and the longest AH fit with
/// room to spare, and the packet begins on a cache line.
pub const HEADROOM: usize = 128;
/// Octets kept free behind a packet: padding up to a block, pad length, next
/// header and the longest ICV.
pub const TAILROOM: usize = 64;
/// The longest IP packet.
pub const MAX_PACKET: usize = 65_535;

/// One packet, somewhere inside a buffer of its own.
///
/// Buffers have room for the longest packet. The system backs only the part
/// that was ever touched with memory, so a pool of them costs what the traffic
/// needs.
pub struct Packet {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Packet {
    /// An empty packet with room for the longest one.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(MAX_PACKET)
    }

    /// An empty packet with room for `capacity` octets between head and tail.
    fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![0; HEADROOM + capacity + TAILROOM].into_boxed_slice(), start: HEADROOM, end: HEADROOM }
    }

    /// Number of octets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are no octets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The octets.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The octets, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Empties it and gives back head and tail room.
    pub fn clear(&mut self) {
        (self.start, self.end) = (HEADROOM, HEADROOM);
    }

    /// The room that a packet can be read into; [`Self::set_len`] then says how
    /// much of it was used. Empties the packet.
    pub fn room(&mut self) -> &mut [u8] {
        self.clear();
        let end = self.buffer.len() - TAILROOM;
        &mut self.buffer[HEADROOM..end]
    }

    /// Makes the first `len` octets of [`Self::room`] the packet; more than
    /// there is room are cut off.
    pub fn set_len(&mut self, len: usize) {
        self.start = HEADROOM;
        self.end = (HEADROOM + len).min(self.buffer.len() - TAILROOM);
    }

    /// Makes it a copy of `octets`; `false`, and empty, if they do not fit.
    pub fn copy_from(&mut self, octets: &[u8]) -> bool {
        let fits = match self.room().get_mut(..octets.len()) {
            Some(room) => {
                room.copy_from_slice(octets);
                true
            }
            None => false,
        };
        self.set_len(if fits { octets.len() } else { 0 });
        fits
    }

    /// Grows by `n` octets in front, whose content is unspecified; `false`,
    /// and unchanged, if there is no such room.
    #[must_use]
    pub fn grow_front(&mut self, n: usize) -> bool {
        let fits = n <= self.start;
        if fits {
            self.start -= n;
        }
        fits
    }

    /// Grows by `n` octets behind, whose content is unspecified; `false`, and
    /// unchanged, if there is no such room.
    #[must_use]
    pub fn grow_back(&mut self, n: usize) -> bool {
        let fits = n <= self.buffer.len() - self.end;
        if fits {
            self.end += n;
        }
        fits
    }

    /// Drops the first `n` octets; all if there are fewer.
    pub fn trim_front(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Drops what lies behind the first `len` octets.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// A copy that takes just the memory the packet needs, for packets that
    /// are kept for long.
    #[must_use]
    pub fn compact_copy(&self) -> Self {
        let mut copy = Self::with_capacity(self.len());
        copy.copy_from(self.as_slice());
        copy
    }

    fn is_full_sized(&self) -> bool {
        self.buffer.len() == HEADROOM + MAX_PACKET + TAILROOM
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Packet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Packet({} octets)", self.len())
    }
}

/// Free buffers of one worker.
///
/// Holds at most as many as it was made for; when it runs out it makes new
/// ones, so a burst costs allocations, never packets.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Packet>,
    limit: usize,
}

impl Pool {
    /// A pool that keeps up to `limit` free buffers; it begins with none.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { free: Vec::with_capacity(limit), limit }
    }

    /// An empty packet.
    pub fn take(&mut self) -> Packet {
        self.free.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub fn give(&mut self, mut packet: Packet) {
        if self.free.len() < self.limit && packet.is_full_sized() {
            packet.clear();
            self.free.push(packet);
        }
    }

    /// Takes back all buffers of a list and empties it.
    pub fn give_all(&mut self, packets: &mut Vec<Packet>) {
        for packet in packets.drain(..) {
            self.give(packet);
        }
    }

    /// Number of free buffers.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_at_both_ends() {
        let mut p = Packet::new();
        assert!(p.copy_from(b"inner"));
        assert!(p.grow_front(3) && p.grow_back(2));
        assert_eq!(p.len(), 10);
        assert_eq!(&p.as_slice()[3..8], b"inner");
        p.trim_front(3);
        p.truncate(5);
        assert_eq!(p.as_slice(), b"inner");
        p.truncate(9);
        p.trim_front(9);
        assert!(p.is_empty());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut p = Packet::new();
        assert!(!p.copy_from(&vec![0; MAX_PACKET + 1]));
        assert!(p.is_empty());
        assert!(p.copy_from(&vec![7; MAX_PACKET]));
        assert!(!p.grow_front(HEADROOM + 1));
        assert!(!p.grow_back(TAILROOM + 1));
        assert!(p.grow_front(HEADROOM) && p.grow_back(TAILROOM));
    }

    #[test]
    fn a_compact_copy_can_be_protected_too() {
        let mut p = Packet::new();
        p.copy_from(&[1; 100]);
        let mut copy = p.compact_copy();
        assert_eq!(copy.as_slice(), p.as_slice());
        assert!(copy.grow_front(HEADROOM) && copy.grow_back(TAILROOM));
    }

    #[test]
    fn the_pool_keeps_whole_buffers_up_to_its_limit() {
        let mut pool = Pool::new(2);
        let (a, b, c) = (pool.take(), pool.take(), pool.take());
        pool.give(a.compact_copy());
        assert_eq!(pool.free(), 0);
        for p in [a, b, c] {
            pool.give(p);
        }
        assert_eq!(pool.free(), 2);
    }
}
