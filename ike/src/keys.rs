//! Key material of IKEv1 (RFC 2409 5, 5.5 and appendix B) and the hashes that
//! authenticate its messages.

use crate::wire::Cookie;
use crypto::table::{Error, Hash, IkeCipher};
use crypto::{IkeSuite, Secret};
use policy::config::AuthMethod;

/// Both cookies: the name of an ISAKMP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cookies {
    pub(crate) initiator: Cookie,
    pub(crate) responder: Cookie,
}

impl Cookies {
    /// As the SPI of ISAKMP in notifications and deletes (RFC 2408 3.15).
    pub(crate) fn spi(&self) -> Vec<u8> {
        [self.initiator.0, self.responder.0].concat()
    }
}

/// What both sides said in the first four messages of main mode.
pub(crate) struct Said {
    pub(crate) cookies: Cookies,
    /// Ni_b.
    pub(crate) initiator_nonce: Vec<u8>,
    /// Nr_b.
    pub(crate) responder_nonce: Vec<u8>,
    /// g^xi.
    pub(crate) initiator_public: Vec<u8>,
    /// g^xr.
    pub(crate) responder_public: Vec<u8>,
}

/// The keys of an ISAKMP SA.
pub(crate) struct IsakmpKeys {
    pub(crate) suite: IkeSuite,
    skeyid: Secret,
    skeyid_d: Secret,
    skeyid_a: Secret,
    encryption_key: Secret,
    cipher: Box<dyn IkeCipher>,
}

impl IsakmpKeys {
    /// Derives the keys for authentication with a pre-shared key, or without one by signatures.
    ///
    /// # Errors
    /// When the cipher refuses the key that came out (weak 3DES keys).
    pub(crate) fn derive(
        suite: IkeSuite,
        preshared: Option<&Secret>,
        shared: &Secret,
        said: &Said,
    ) -> Result<Self, Error> {
        let hash = suite.hash;
        let (ci, cr) = (&said.cookies.initiator.0[..], &said.cookies.responder.0[..]);
        let g = shared.expose();
        let (ni, nr) = (&said.initiator_nonce[..], &said.responder_nonce[..]);
        // RFC 2409 5: SKEYID = prf(pre-shared-key, Ni_b | Nr_b) or prf(Ni_b | Nr_b, g^xy), and so on.
        let skeyid = match preshared {
            Some(preshared) => hash.prf(preshared.expose(), &[ni, nr]),
            None => hash.prf(&[ni, nr].concat(), &[g]),
        };
        let skeyid_d = hash.prf(skeyid.expose(), &[g, ci, cr, &[0]]);
        let skeyid_a = hash.prf(skeyid.expose(), &[skeyid_d.expose(), g, ci, cr, &[1]]);
        let skeyid_e = hash.prf(skeyid.expose(), &[skeyid_a.expose(), g, ci, cr, &[2]]);
        let encryption_key = lengthen(&suite, &skeyid_e);
        let cipher = suite.encryption.ike_cipher(encryption_key.expose())?;
        Ok(Self { suite, skeyid, skeyid_d, skeyid_a, encryption_key, cipher })
    }

    /// The cipher of the messages.
    pub(crate) fn cipher(&self) -> &dyn IkeCipher {
        &*self.cipher
    }

    /// The key of that cipher, for decryption by an observer.
    pub(crate) fn encryption_key(&self) -> &Secret {
        &self.encryption_key
    }

    /// IV of the first encrypted message of phase 1: hash(g^xi | g^xr) (RFC 2409 appendix B).
    pub(crate) fn phase1_iv(&self, said: &Said) -> Vec<u8> {
        self.iv(&[&said.initiator_public, &said.responder_public])
    }

    /// IV of the first message of a phase 2 exchange: hash(last block of phase 1 | M-ID).
    pub(crate) fn phase2_iv(&self, last_block: &[u8], message_id: u32) -> Vec<u8> {
        self.iv(&[last_block, &message_id.to_be_bytes()])
    }

    fn iv(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut iv = self.suite.hash.digest(parts);
        iv.truncate(self.cipher.block_len());
        iv
    }

    /// The hash whose HMAC makes HASH_I and HASH_R: the signature's own if it is tied to one (RFC 2409 5.1).
    pub(crate) fn authentication_hash(&self, method: AuthMethod) -> &'static Hash {
        let own = match method {
            // RSA signs whatever hash was negotiated.
            AuthMethod::PreSharedKey | AuthMethod::Hybrid => None,
            AuthMethod::Signature(row) => row.hash.and_then(Hash::from_keyword),
        };
        own.unwrap_or(self.suite.hash)
    }

    /// HASH_I (RFC 2409 5): `sa` is SAi_b, `id` is IDii_b.
    pub(crate) fn hash_i(&self, method: AuthMethod, said: &Said, sa: &[u8], id: &[u8]) -> Secret {
        let c = said.cookies;
        self.authentication_hash(method).prf(
            self.skeyid.expose(),
            &[&said.initiator_public, &said.responder_public, &c.initiator.0, &c.responder.0, sa, id],
        )
    }

    /// HASH_R (RFC 2409 5): `sa` is SAi_b, `id` is IDir_b.
    pub(crate) fn hash_r(&self, method: AuthMethod, said: &Said, sa: &[u8], id: &[u8]) -> Secret {
        let c = said.cookies;
        self.authentication_hash(method).prf(
            self.skeyid.expose(),
            &[&said.responder_public, &said.initiator_public, &c.responder.0, &c.initiator.0, sa, id],
        )
    }

    /// HASH(1) of quick mode and of informational exchanges: prf(SKEYID_a, M-ID | rest of the message).
    pub(crate) fn hash1(&self, message_id: u32, rest: &[u8]) -> Secret {
        self.suite.hash.prf(self.skeyid_a.expose(), &[&message_id.to_be_bytes(), rest])
    }

    /// HASH(2): prf(SKEYID_a, M-ID | Ni_b | rest of the message).
    pub(crate) fn hash2(&self, message_id: u32, initiator_nonce: &[u8], rest: &[u8]) -> Secret {
        self.suite.hash.prf(self.skeyid_a.expose(), &[&message_id.to_be_bytes(), initiator_nonce, rest])
    }

    /// HASH(3): prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b).
    pub(crate) fn hash3(&self, message_id: u32, initiator_nonce: &[u8], responder_nonce: &[u8]) -> Secret {
        self.suite
            .hash
            .prf(self.skeyid_a.expose(), &[&[0], &message_id.to_be_bytes(), initiator_nonce, responder_nonce])
    }

    /// KEYMAT of one SA (RFC 2409 5.5), `len` octets: `shared` is g(qm)^xy with
    /// perfect forward secrecy, `protocol` and `spi` are those of the SA's receiver.
    pub(crate) fn keymat(
        &self,
        shared: Option<&Secret>,
        protocol: u8,
        spi: u32,
        nonces: (&[u8], &[u8]),
        len: usize,
    ) -> Secret {
        let g = shared.map_or(&[][..], Secret::expose);
        let spi = spi.to_be_bytes();
        let mut keymat = zeroize::Zeroizing::new(Vec::with_capacity(len + self.suite.hash.len));
        let mut last = Secret::new(Vec::new());
        while keymat.len() < len {
            last =
                self.suite.hash.prf(self.skeyid_d.expose(), &[last.expose(), g, &[protocol], &spi, nonces.0, nonces.1]);
            keymat.extend_from_slice(last.expose());
        }
        keymat.truncate(len);
        Secret::copy_of(&keymat)
    }
}

/// The encryption key: SKEYID_e, or its expansion Ka where it is too short
/// (RFC 2409 appendix B).
fn lengthen(suite: &IkeSuite, skeyid_e: &Secret) -> Secret {
    let len = suite.encryption.key_len();
    if skeyid_e.len() >= len {
        return Secret::copy_of(&skeyid_e.expose()[..len]);
    }
    let mut key = zeroize::Zeroizing::new(Vec::with_capacity(len + suite.hash.len));
    let mut last = suite.hash.prf(skeyid_e.expose(), &[&[0]]);
    key.extend_from_slice(last.expose());
    while key.len() < len {
        last = suite.hash.prf(skeyid_e.expose(), &[last.expose()]);
        key.extend_from_slice(last.expose());
    }
    key.truncate(len);
    Secret::copy_of(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Expected {
        suite: &'static str,
        encryption_key: &'static str,
        iv: &'static str,
        phase2_iv: &'static str,
        hash_i: &'static str,
        hash_r: &'static str,
        hash1: &'static str,
        hash2: &'static str,
        hash3: &'static str,
        keymat: &'static str,
        keymat_pfs: &'static str,
    }

    /// The formulas of RFC 2409 computed by another implementation of HMAC
    /// (Python's `hmac` and `hashlib`) for the inputs below. The first needs
    /// the expansion Ka, the second does not.
    const EXPECTED: [Expected; 2] = [
        Expected {
            suite: "aes256-sha1-modp2048",
            encryption_key: "adcf58194577ca5785fcc739ed2a3736092a5c43cf07d4e2715e03dd07d01315",
            iv: "169ab5c8c0671f1d34f5609dcfa86e31",
            phase2_iv: "5103c65b6143bbf1a007ced71f7760d3",
            hash_i: "e80a4ec0c9a5cbbcb1cdd5a0f38b55a9f1661742",
            hash_r: "5e68aff3c7edd873b893074509ebdb24cb8e4e44",
            hash1: "9f9a0abb76b1da93dc5a11d19fbdb2e0ee092dc8",
            hash2: "04f0f3b02b3391eadb65fcd00f3189af3cabfb3f",
            hash3: "34eb558d6afadb12682f705b08f3bf3247a1fa29",
            keymat: "51e858086d1e466310984b8c0c2f2c24314c58d3eedd060610d62860c17360a94169f9694fbb5bfc3950aae13474e33714a9bd7b",
            keymat_pfs: "217c31480e8a11cd1205ec266be5b9e0bcd211abc86d7315b77490d529f86fc8182dd77890626c69d414c16fd292f4eb2a02ed55",
        },
        Expected {
            suite: "aes128-sha256-modp2048",
            encryption_key: "248973f08c550a4373b2f40b185e5fd5",
            iv: "71cdd0136a799e7ef615ddd2aaeee3d0",
            phase2_iv: "c1642c2b894ee77cfb6b5672e9d13bb4",
            hash_i: "756490dca3939d19b8c3cd34593df499b5f4c5c670056fbc0c17db5a610e439d",
            hash_r: "f2c95b05be2f8ce22ea8b72b756d474fbfeaafc64e979841b8c3593c26afe202",
            hash1: "a0bae724805dc8dd21ce62251a08beeddee278456af0ae481de915901c22fdac",
            hash2: "98efbe882dbf644031d410572904838a3e918f2bc75882870dc0eb4541595b59",
            hash3: "9718ce7980785890859c0cc7b2be5be2f70db6e7bfc198814839abbeadb0708c",
            keymat: "9faa8be88062535affdbe23010d09956ed143e89ed67355b66679f322945858e0964713b8b9289e7137f79964a6556544cccfd44",
            keymat_pfs: "319cc6536dd164dde3da783db21371bb338cc5dc6cf6ecb6a15591dfe73d7f572ba5af44c4b255dbec25ca32147ab7c7ddd7ee20",
        },
    ];

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn every_formula_of_rfc_2409() {
        let said = Said {
            cookies: Cookies {
                initiator: Cookie([0, 1, 2, 3, 4, 5, 6, 7]),
                responder: Cookie([8, 9, 10, 11, 12, 13, 14, 15]),
            },
            initiator_nonce: vec![0x11; 20],
            responder_nonce: vec![0x22; 16],
            initiator_public: vec![0x33; 32],
            responder_public: vec![0x44; 32],
        };
        let (ni, nr) = (&said.initiator_nonce[..], &said.responder_nonce[..]);
        let shared = Secret::new(vec![0x55; 32]);
        let id = 0xdead_beef;
        for e in EXPECTED {
            let suite = e.suite.parse().unwrap();
            let keys = IsakmpKeys::derive(suite, Some(&Secret::copy_of(b"a pre-shared key")), &shared, &said).unwrap();
            assert_eq!(hex(keys.encryption_key().expose()), e.encryption_key);
            assert_eq!(hex(&keys.phase1_iv(&said)), e.iv);
            assert_eq!(hex(&keys.phase2_iv(&[0x66; 16], id)), e.phase2_iv);
            assert_eq!(hex(keys.hash_i(AuthMethod::PreSharedKey, &said, b"SA", b"ID").expose()), e.hash_i);
            assert_eq!(hex(keys.hash_r(AuthMethod::PreSharedKey, &said, b"SA", b"ID").expose()), e.hash_r);
            assert_eq!(hex(keys.hash1(id, b"rest").expose()), e.hash1);
            assert_eq!(hex(keys.hash2(id, ni, b"rest").expose()), e.hash2);
            assert_eq!(hex(keys.hash3(id, ni, nr).expose()), e.hash3);
            assert_eq!(hex(keys.keymat(None, 3, 0x1234, (ni, nr), 52).expose()), e.keymat);
            let pfs = Secret::new(vec![0x77; 32]);
            assert_eq!(hex(keys.keymat(Some(&pfs), 3, 0x1234, (ni, nr), 52).expose()), e.keymat_pfs);
        }
    }
}
