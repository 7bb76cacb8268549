//! Diffie-Hellman on the NIST curves (RFC 5903).

use super::ATTEMPTS;
use crate::table::{Error, KeyExchange};
use crate::{Entropy, Secret};
use aws_lc_rs::agreement::{
    self, Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, ParsedPublicKey, PrivateKey, UnparsedPublicKey,
};
use zeroize::Zeroizing;

/// Group 19.
pub(crate) fn generate_256(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate(&P256, entropy)
}

/// Group 20.
pub(crate) fn generate_384(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate(&P384, entropy)
}

/// Group 21.
pub(crate) fn generate_521(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate(&P521, entropy)
}

/// A value of group 19?
pub(crate) fn check_256(peer: &[u8]) -> Result<(), Error> {
    P256.point(peer).map(|_| ())
}

/// A value of group 20?
pub(crate) fn check_384(peer: &[u8]) -> Result<(), Error> {
    P384.point(peer).map(|_| ())
}

/// A value of group 21?
pub(crate) fn check_521(peer: &[u8]) -> Result<(), Error> {
    P521.point(peer).map(|_| ())
}

static P256: Curve = Curve { group: "ecp256", algorithm: &ECDH_P256, coordinate_len: 32, top_mask: 0xff };
static P384: Curve = Curve { group: "ecp384", algorithm: &ECDH_P384, coordinate_len: 48, top_mask: 0xff };
static P521: Curve = Curve { group: "ecp521", algorithm: &ECDH_P521, coordinate_len: 66, top_mask: 0x01 };

struct Curve {
    group: &'static str,
    algorithm: &'static Algorithm,
    /// Octets of a coordinate, and of a scalar.
    coordinate_len: usize,
    /// The bits of a scalar's first octet that can be set.
    top_mask: u8,
}

const OFF_THE_CURVE: &str = "it is not a point on the curve";

impl Curve {
    /// The point that a peer's public value is, if it is one of the curve and not its origin.
    fn point(&self, peer: &[u8]) -> Result<ParsedPublicKey, Error> {
        let invalid = |reason| Error::PublicValue { group: self.group, reason };
        if peer.len() != 2 * self.coordinate_len {
            return Err(invalid("it is not two coordinates long"));
        }
        let mut point = Vec::with_capacity(1 + peer.len());
        point.push(UNCOMPRESSED);
        point.extend_from_slice(peer);
        let parsed = ParsedPublicKey::try_from(UnparsedPublicKey::new(self.algorithm, point));
        parsed.map_err(|_| invalid(OFF_THE_CURVE))
    }
}

/// SEC 1's mark of an uncompressed point, which IKE leaves out (RFC 5903 7).
const UNCOMPRESSED: u8 = 0x04;

fn generate(curve: &'static Curve, entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    let mut scalar = Zeroizing::new(vec![0; curve.coordinate_len]);
    for _ in 0..ATTEMPTS {
        entropy.fill(&mut scalar);
        scalar[0] &= curve.top_mask;
        // Refuses scalars outside [1, n - 1]; drawing again keeps the rest uniform.
        let Ok(private) = PrivateKey::from_private_key(curve.algorithm, &scalar) else { continue };
        let Ok(public) = private.compute_public_key() else { continue };
        if let Some((&UNCOMPRESSED, public)) = public.as_ref().split_first() {
            return Ok(Box::new(Ecp { curve, private, public: public.to_vec() }));
        }
    }
    Err(Error::Entropy { group: curve.group })
}

struct Ecp {
    curve: &'static Curve,
    private: PrivateKey,
    /// x | y.
    public: Vec<u8>,
}

impl KeyExchange for Ecp {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, Error> {
        let failed = Error::PublicValue { group: self.curve.group, reason: OFF_THE_CURVE };
        let peer = self.curve.point(peer)?;
        agreement::agree(&self.private, peer, failed, |x| Ok(Secret::copy_of(x)))
    }
}
