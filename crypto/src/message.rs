//! CBC over whole IKEv1 messages (RFC 2409 5, appendix B).

use crate::packet::cbc::{keyed, keyed_triple_des};
use crate::table::{Error, IkeCipher};
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser};
use aes::cipher::{InnerIvInit, KeyInit};
use cbc::{Decryptor, Encryptor};

/// CBC of the block cipher `C` under `key`; `algorithm` is the row's keyword.
pub(crate) fn cbc<C>(algorithm: &'static str, key: &[u8]) -> Result<Box<dyn IkeCipher>, Error>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static,
{
    Ok(Box::new(MessageCbc { cipher: keyed::<C>(algorithm, key)?, algorithm }))
}

/// 3DES-CBC under `key`, 24 octets, which must not be weak.
pub(crate) fn triple_des_cbc(key: &[u8]) -> Result<Box<dyn IkeCipher>, Error> {
    Ok(Box::new(MessageCbc { cipher: keyed_triple_des(key)?, algorithm: "3des" }))
}

struct MessageCbc<C> {
    cipher: C,
    algorithm: &'static str,
}

impl<C: BlockSizeUser> MessageCbc<C> {
    fn wrong_length(&self, given: usize) -> Error {
        Error::DataLength { algorithm: self.algorithm, given }
    }

    /// `data` as blocks, if it is a whole number of them.
    fn blocks<'d>(&self, data: &'d mut [u8]) -> Result<&'d mut [Array<u8, C::BlockSize>], Error> {
        let given = data.len();
        match Array::slice_as_chunks_mut(data) {
            (blocks, []) => Ok(blocks),
            _ => Err(self.wrong_length(given)),
        }
    }
}

impl<C> IkeCipher for MessageCbc<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync,
{
    fn block_len(&self) -> usize {
        C::block_size()
    }

    fn encrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), Error> {
        let mut cbc = Encryptor::inner_iv_slice_init(&self.cipher, iv).map_err(|_| self.wrong_length(iv.len()))?;
        cbc.encrypt_blocks(self.blocks(data)?);
        Ok(())
    }

    fn decrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), Error> {
        let mut cbc = Decryptor::inner_iv_slice_init(&self.cipher, iv).map_err(|_| self.wrong_length(iv.len()))?;
        cbc.decrypt_blocks(self.blocks(data)?);
        Ok(())
    }
}
