//! NULL encryption (RFC 2410): the payload stays as it is, and there is no IV.

use super::{Decryptor, Encryptor, EspCipher, Layout, SealJob};

pub(crate) const NULL: EspCipher =
    EspCipher::Separate { encryptor: |_, _| Ok(Box::new(Null)), decryptor: |_| Ok(Box::new(Null)) };

struct Null;

impl Encryptor for Null {
    fn encrypt(&self, _: &mut [SealJob<'_>], _: Layout) {}
}

impl Decryptor for Null {
    fn decrypt(&self, _: &[u8], _: &mut [u8]) {}
}
