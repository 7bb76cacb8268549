//! Diffie-Hellman in the MODP groups, in constant time (RFC 2409 6, RFC 3526).
//!
//! All moduli are safe primes and the generator is 2, so that checking
//! 1 < y < p - 1 of the peer's value is enough (RFC 6989 2.1).

use super::ATTEMPTS;
use crate::table::{Error, KeyExchange};
use crate::{Entropy, Secret};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U192, U256, U320, U384, U1024, U1536, U2048, U3072, U4096, Uint};
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// A modulus, ready for Montgomery multiplication.
type Modulus<const LIMBS: usize> = LazyLock<FixedMontyParams<LIMBS>>;

// Private exponents have at least twice as many bits as the group has bits of
// strength, by the higher of the two estimates of RFC 3526 8 where RFC 7919
// appendix A does not ask for less: 225 (2048), 275 (3072), 325 (4096).

/// Group 2, with exponents of 192 bits (RFC 2409 6.2).
pub(crate) fn generate_1024(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate::<{ U1024::LIMBS }, { U192::LIMBS }>("modp1024", &P1024, entropy)
}

/// Group 5, with exponents of 256 bits (RFC 3526 2).
pub(crate) fn generate_1536(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate::<{ U1536::LIMBS }, { U256::LIMBS }>("modp1536", &P1536, entropy)
}

/// Group 14, with exponents of 256 bits (RFC 3526 3).
pub(crate) fn generate_2048(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate::<{ U2048::LIMBS }, { U256::LIMBS }>("modp2048", &P2048, entropy)
}

/// Group 15, with exponents of 320 bits (RFC 3526 4).
pub(crate) fn generate_3072(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate::<{ U3072::LIMBS }, { U320::LIMBS }>("modp3072", &P3072, entropy)
}

/// Group 16, with exponents of 384 bits (RFC 3526 5).
pub(crate) fn generate_4096(entropy: &mut dyn Entropy) -> Result<Box<dyn KeyExchange>, Error> {
    generate::<{ U4096::LIMBS }, { U384::LIMBS }>("modp4096", &P4096, entropy)
}

/// A value of `modp1024`?
pub(crate) fn check_1024(peer: &[u8]) -> Result<(), Error> {
    element("modp1024", &P1024, peer).map(|_| ())
}

/// A value of `modp1536`?
pub(crate) fn check_1536(peer: &[u8]) -> Result<(), Error> {
    element("modp1536", &P1536, peer).map(|_| ())
}

/// A value of `modp2048`?
pub(crate) fn check_2048(peer: &[u8]) -> Result<(), Error> {
    element("modp2048", &P2048, peer).map(|_| ())
}

/// A value of `modp3072`?
pub(crate) fn check_3072(peer: &[u8]) -> Result<(), Error> {
    element("modp3072", &P3072, peer).map(|_| ())
}

/// A value of `modp4096`?
pub(crate) fn check_4096(peer: &[u8]) -> Result<(), Error> {
    element("modp4096", &P4096, peer).map(|_| ())
}

/// Draws x and computes 2^x.
fn generate<const LIMBS: usize, const EXPONENT: usize>(
    group: &'static str,
    modulus: &'static Modulus<LIMBS>,
    entropy: &mut dyn Entropy,
) -> Result<Box<dyn KeyExchange>, Error> {
    let mut octets = Zeroizing::new(vec![0; Uint::<EXPONENT>::BYTES]);
    for _ in 0..ATTEMPTS {
        entropy.fill(&mut octets);
        let exponent = Zeroizing::new(Uint::<EXPONENT>::from_be_slice(&octets));
        // 0 and 1 would make the public value 1 or 2, and tell.
        if *exponent > Uint::ONE {
            let public = power(&Uint::from_u8(2), &exponent, modulus);
            return Ok(Box::new(Modp { group, modulus, exponent, public: public.to_be_bytes().as_ref().to_vec() }));
        }
    }
    Err(Error::Entropy { group })
}

struct Modp<const LIMBS: usize, const EXPONENT: usize> {
    group: &'static str,
    modulus: &'static Modulus<LIMBS>,
    exponent: Zeroizing<Uint<EXPONENT>>,
    public: Vec<u8>,
}

impl<const LIMBS: usize, const EXPONENT: usize> KeyExchange for Modp<LIMBS, EXPONENT> {
    fn public(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, Error> {
        let peer = element(self.group, self.modulus, peer)?;
        let shared = Zeroizing::new(power(&peer, &self.exponent, self.modulus));
        let octets = Zeroizing::new(shared.to_be_bytes());
        Ok(Secret::copy_of((*octets).as_ref()))
    }
}

/// The number that a peer's public value is, if it may be one.
fn element<const LIMBS: usize>(
    group: &'static str,
    modulus: &'static Modulus<LIMBS>,
    peer: &[u8],
) -> Result<Uint<LIMBS>, Error> {
    let invalid = |reason| Error::PublicValue { group, reason };
    // As long as the modulus, leading zeros included (RFC 2409 5).
    if peer.len() != Uint::<LIMBS>::BYTES {
        return Err(invalid("it is not as long as the prime"));
    }
    let peer = Uint::from_be_slice(peer);
    let p_minus_1 = modulus.modulus().as_ref().wrapping_sub(&Uint::ONE);
    if peer <= Uint::ONE {
        return Err(invalid("it is 0 or 1"));
    }
    if peer >= p_minus_1 {
        return Err(invalid("it is not below p - 1"));
    }
    Ok(peer)
}

/// base^exponent, in a time that depends on the sizes alone.
fn power<const LIMBS: usize, const EXPONENT: usize>(
    base: &Uint<LIMBS>,
    exponent: &Uint<EXPONENT>,
    modulus: &FixedMontyParams<LIMBS>,
) -> Uint<LIMBS> {
    let mut power = FixedMontyForm::new(base, modulus).pow_bounded_exp(exponent, Uint::<EXPONENT>::BITS);
    let result = power.retrieve();
    zeroize::Zeroize::zeroize(&mut power);
    result
}

fn modulus<const LIMBS: usize>(hex: &str) -> FixedMontyParams<LIMBS> {
    let prime = Uint::from_be_hex(hex);
    // The modulus is public: variable time tells nothing.
    FixedMontyParams::new_vartime(Option::<Odd<_>>::from(prime.to_odd()).expect("the primes below are odd"))
}

static P1024: Modulus<{ U1024::LIMBS }> = LazyLock::new(|| {
    modulus(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    )
});

static P1536: Modulus<{ U1536::LIMBS }> = LazyLock::new(|| {
    modulus(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF",
    )
});

static P2048: Modulus<{ U2048::LIMBS }> = LazyLock::new(|| {
    modulus(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    )
});

static P3072: Modulus<{ U3072::LIMBS }> = LazyLock::new(|| {
    modulus(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    )
});

static P4096: Modulus<{ U4096::LIMBS }> = LazyLock::new(|| {
    modulus(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
     88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
     287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
     93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
    )
});
