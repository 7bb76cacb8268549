//! The keys of an ISAKMP SA as the peer derives them: RFC 2409 5 and appendix B, written a second
//! time, and only for AES-128 and SHA-1 or SHA-256, whose keys need no lengthening.

use crypto::Secret;
use crypto::table::{Encryption, Hash, IkeCipher};

/// What one side derives.
pub(super) struct Keys {
    hash: &'static Hash,
    skeyid: Secret,
    skeyid_a: Secret,
    cipher: Box<dyn IkeCipher>,
}

/// Octets of a block of AES.
pub(super) const BLOCK: usize = 16;

/// What was said in the clear, the initiator's first.
pub(super) struct Said<'a> {
    pub(super) cookies: [&'a [u8]; 2],
    pub(super) nonces: [&'a [u8]; 2],
    pub(super) publics: [&'a [u8]; 2],
}

impl Keys {
    /// With a pre-shared key, or for signatures without.
    pub(super) fn derive(hash: &'static Hash, preshared: Option<&[u8]>, shared: &Secret, said: &Said<'_>) -> Self {
        let [ci, cr] = said.cookies;
        let g = shared.expose();
        let nonces = said.nonces.concat();
        let skeyid = match preshared {
            Some(key) => hash.prf(key, &[&nonces]),
            None => hash.prf(&nonces, &[g]),
        };
        let d = hash.prf(skeyid.expose(), &[g, ci, cr, &[0]]);
        let skeyid_a = hash.prf(skeyid.expose(), &[d.expose(), g, ci, cr, &[1]]);
        let e = hash.prf(skeyid.expose(), &[skeyid_a.expose(), g, ci, cr, &[2]]);
        let aes = Encryption::from_keyword("aes128").expect("a row");
        let cipher = aes.ike_cipher(&e.expose()[..aes.key_len()]).expect("a key of its length");
        Self { hash, skeyid, skeyid_a, cipher }
    }

    /// IV of message 5.
    pub(super) fn phase1_iv(&self, said: &Said<'_>) -> Vec<u8> {
        self.hash.digest(&said.publics)[..BLOCK].to_vec()
    }

    /// IV of the first message of another exchange.
    pub(super) fn phase2_iv(&self, last_block: &[u8], message_id: u32) -> Vec<u8> {
        self.hash.digest(&[last_block, &message_id.to_be_bytes()])[..BLOCK].to_vec()
    }

    /// HASH_I, or with everything the other way round HASH_R.
    pub(super) fn identity_hash(&self, mine: usize, said: &Said<'_>, sa: &[u8], id: &[u8]) -> Vec<u8> {
        let (p, c) = (said.publics, said.cookies);
        let parts = [p[mine], p[1 - mine], c[mine], c[1 - mine], sa, id];
        self.hash.prf(self.skeyid.expose(), &parts).expose().to_vec()
    }

    /// HASH(1), HASH(2) and HASH(3): `parts` follow the key.
    pub(super) fn message_hash(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.hash.prf(self.skeyid_a.expose(), parts).expose().to_vec()
    }

    /// Pads and encrypts; returns the last block, the IV of the next message.
    pub(super) fn encrypt(&self, iv: &[u8], body: &mut Vec<u8>) -> Vec<u8> {
        body.resize(body.len().next_multiple_of(BLOCK), 0);
        self.cipher.encrypt(iv, body).expect("whole blocks");
        body.last_chunk::<BLOCK>().map_or(iv.to_vec(), |block| block.to_vec())
    }

    /// Decrypts; `None` if these are no whole blocks.
    pub(super) fn decrypt(&self, iv: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut clear = ciphertext.to_vec();
        self.cipher.decrypt(iv, &mut clear).ok().map(|()| clear)
    }
}
