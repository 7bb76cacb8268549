//! Diffie-Hellman on Curve25519 (RFC 8031, RFC 7748).

use crate::table::{Error, KeyExchange};
use crate::{Entropy, Secret};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const GROUP: &str = "x25519";

/// Group 31. Every 32 octets are a private value (RFC 7748 5).
pub(crate) fn generate(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    let mut octets = Zeroizing::new([0; 32]);
    entropy.fill(&mut *octets);
    let private = StaticSecret::from(*octets);
    let public = PublicKey::from(&private);
    Ok(Box::new(X25519 { private, public }))
}

/// A value of group 31?
pub(crate) fn check(peer: &[u8]) -> Result<(), Error> {
    let mut peer = octets(peer)?;
    // RFC 7748 5: the top bit says nothing.
    peer[31] &= 0x7f;
    if SMALL_ORDER.contains(&peer) {
        return Err(Error::PublicValue { group: GROUP, reason: "it has a small order" });
    }
    Ok(())
}

fn octets(peer: &[u8]) -> Result<[u8; 32], Error> {
    peer.try_into().map_err(|_| Error::PublicValue { group: GROUP, reason: "it is not 32 octets long" })
}

/// The u-coordinates of the points of order 1, 2, 4 and 8, on the curve and on its twist, in
/// every encoding of 255 bits: 0, 1, two of order 8, p - 1, p and p + 1, little-endian. With any
/// of them the shared secret is zero (RFC 7748 6.1). A test multiplies them.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    near_zero(0x01),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

const fn near_zero(low: u8) -> [u8; 32] {
    let mut octets = [0; 32];
    octets[0] = low;
    octets
}

/// p is 2^255 - 19.
const fn near_p(low: u8) -> [u8; 32] {
    let mut octets = [0xff; 32];
    octets[0] = low;
    octets[31] = 0x7f;
    octets
}

struct X25519 {
    private: StaticSecret,
    public: PublicKey,
}

impl KeyExchange for X25519 {
    fn public(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, Error> {
        check(peer)?;
        let shared = self.private.diffie_hellman(&PublicKey::from(octets(peer)?));
        // All zeros: the peer's point has a small order (RFC 8031 3.1, RFC 7748 6.1).
        if !shared.was_contributory() {
            return Err(Error::PublicValue { group: GROUP, reason: "it makes the shared secret zero" });
        }
        Ok(Secret::copy_of(shared.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_the_list_makes_the_secret_zero_and_its_neighbours_do_not() {
        let private = StaticSecret::from([0x77; 32]);
        let contributes = |point: [u8; 32]| private.diffie_hellman(&PublicKey::from(point)).was_contributory();
        for point in SMALL_ORDER {
            assert!(!contributes(point), "{point:02x?}");
            assert!(check(&point).is_err());
            let mut other = point;
            other[31] |= 0x80;
            assert!(!contributes(other) && check(&other).is_err(), "the top bit says nothing");
            other[1] ^= 0x20;
            assert!(contributes(other) && check(&other).is_ok(), "{other:02x?}");
        }
    }
}
