//! Key material of IKEv1 (RFC 2409 5, 5.5 and appendix B) and the hashes that
//! authenticate its messages.

use crate::wire::Cookie;
use crypto::table::{Error, IkeCipher};
use crypto::{IkeSuite, Secret};

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
    /// Derives the keys for authentication with a pre-shared key.
    ///
    /// # Errors
    /// When the cipher refuses the key that came out (weak 3DES keys).
    pub(crate) fn derive(suite: IkeSuite, preshared: &Secret, shared: &Secret, said: &Said) -> Result<Self, Error> {
        let hash = suite.hash;
        let (ci, cr) = (&said.cookies.initiator.0[..], &said.cookies.responder.0[..]);
        let g = shared.expose();
        // RFC 2409 5: SKEYID = prf(pre-shared-key, Ni_b | Nr_b), and so on.
        let skeyid = hash.prf(preshared.expose(), &[&said.initiator_nonce, &said.responder_nonce]);
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

    /// HASH_I (RFC 2409 5): `sa` is SAi_b, `id` is IDii_b.
    pub(crate) fn hash_i(&self, said: &Said, sa: &[u8], id: &[u8]) -> Secret {
        let c = said.cookies;
        self.suite.hash.prf(
            self.skeyid.expose(),
            &[&said.initiator_public, &said.responder_public, &c.initiator.0, &c.responder.0, sa, id],
        )
    }

    /// HASH_R (RFC 2409 5): `sa` is SAi_b, `id` is IDir_b.
    pub(crate) fn hash_r(&self, said: &Said, sa: &[u8], id: &[u8]) -> Secret {
        let c = said.cookies;
        self.suite.hash.prf(
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
