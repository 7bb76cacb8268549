//! Randomness as an argument.

pub mod testing;

/// A source of cryptographically secure random octets.
///
/// The daemon passes the operating system's; simulations pass a seeded one, so
/// that a failing run replays.
pub trait Entropy {
    /// Fills `out` with random octets. A source that cannot deliver must not
    /// return: the daemon's implementation aborts rather than go on with less.
    fn fill(&mut self, out: &mut [u8]);

    /// A uniformly random 64-bit number.
    fn next_u64(&mut self) -> u64 {
        let mut b = [0; 8];
        self.fill(&mut b);
        u64::from_be_bytes(b)
    }
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn fill(&mut self, out: &mut [u8]) {
        (**self).fill(out);
    }
}
