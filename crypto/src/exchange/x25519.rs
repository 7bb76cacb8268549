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

struct X25519 {
    private: StaticSecret,
    public: PublicKey,
}

impl KeyExchange for X25519 {
    fn public(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, Error> {
        let invalid = |reason| Error::PublicValue { group: GROUP, reason };
        let peer: [u8; 32] = peer.try_into().map_err(|_| invalid("it is not 32 octets long"))?;
        let shared = self.private.diffie_hellman(&PublicKey::from(peer));
        // All zeros: the peer's point has a small order (RFC 8031 3.1, RFC 7748 6.1).
        if !shared.was_contributory() {
            return Err(invalid("it has a small order"));
        }
        Ok(Secret::copy_of(shared.as_bytes()))
    }
}
