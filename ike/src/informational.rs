//! Messages of the informational exchange (RFC 2408 4.8, RFC 2409 5.7).

use crate::keys::{Cookies, IsakmpKeys};
use crate::protection::{self, Iv, OpenError};
use crate::wire::numbers::{DOI_IPSEC, ExchangeType, NotifyKind, PayloadKind, ProtocolId};
use crate::wire::{Body, Delete, Flags, Header, Message, Notification, Payload, encode_chain};
use crypto::Entropy;
use policy::sa::SaProtocol;

/// A notification in the clear: before there are keys. The receiver must not trust it.
pub(crate) fn clear_notification(cookies: Cookies, message_id: u32, kind: NotifyKind) -> Vec<u8> {
    let notification = isakmp_notification(cookies, kind, Vec::new());
    Message { header: header(cookies, message_id), body: Body::Clear(vec![Payload::Notification(notification)]) }
        .encode()
}

/// An informational message under the keys of `cookies`, authenticated by HASH(1).
///
/// # Errors
/// When the cipher fails.
pub(crate) fn sealed(
    keys: &IsakmpKeys,
    last_block: &Iv,
    cookies: Cookies,
    message_id: u32,
    content: Vec<Payload>,
) -> Result<Vec<u8>, crypto::table::Error> {
    let hash = keys.hash1(message_id, &encode_chain(&content));
    let mut payloads = vec![Payload::Hash(hash.expose().to_vec())];
    payloads.extend(content);
    let iv = Iv(keys.phase2_iv(&last_block.0, message_id));
    protection::seal(keys, &iv, header(cookies, message_id), &payloads).map(|(datagram, _)| datagram)
}

/// The content of an informational message whose HASH(1) was right.
pub(crate) struct Authentic {
    payloads: Vec<Payload>,
}

impl Authentic {
    pub(crate) fn payloads(&self) -> &[Payload] {
        &self.payloads
    }
}

/// Decrypts an informational message and checks HASH(1).
///
/// # Errors
/// Why it is not authentic.
pub(crate) fn open(keys: &IsakmpKeys, last_block: &Iv, message: &Message) -> Result<Authentic, String> {
    let Body::Encrypted(ciphertext) = &message.body else {
        return Err("it is not encrypted".into());
    };
    let iv = Iv(keys.phase2_iv(&last_block.0, message.header.message_id));
    let opened = protection::open(keys, &iv, message.header.first, ciphertext).map_err(|e: OpenError| e.to_string())?;
    let (hash, rest) = opened.hash_and_rest().ok_or("it does not begin with a hash")?;
    let expected = keys.hash1(message.header.message_id, rest);
    if !crypto::secret::equal(expected.expose(), hash) {
        return Err("its HASH(1) is wrong".into());
    }
    Ok(Authentic { payloads: opened.payloads })
}

/// Whether notifications and deletes of a domain of interpretation are for us (RFC 2408 5.14): those of ISAKMP (0)
/// and of IPsec.
pub(crate) fn concerns_us(doi: u32) -> bool {
    matches!(doi, 0 | DOI_IPSEC)
}

/// A notification about the ISAKMP SA itself.
pub(crate) fn isakmp_notification(cookies: Cookies, kind: NotifyKind, data: Vec<u8>) -> Notification {
    Notification { doi: DOI_IPSEC, protocol: ProtocolId::ISAKMP, spi: cookies.spi(), kind, data }
}

/// A notification about an SA that the peer has offered or made.
pub(crate) fn sa_notification(protocol: ProtocolId, spi: u32, kind: NotifyKind) -> Notification {
    Notification { doi: DOI_IPSEC, protocol, spi: spi.to_be_bytes().to_vec(), kind, data: Vec::new() }
}

/// SAs of ours that are gone: our inbound SPIs.
pub(crate) fn delete(protocol: SaProtocol, spis: &[u32]) -> Payload {
    Payload::Delete(Delete {
        doi: DOI_IPSEC,
        protocol: protocol.into(),
        spi_len: 4,
        spis: spis.iter().map(|spi| spi.to_be_bytes().to_vec()).collect(),
    })
}

/// The ISAKMP SA itself is gone.
pub(crate) fn isakmp_delete(cookies: Cookies) -> Payload {
    Payload::Delete(Delete { doi: DOI_IPSEC, protocol: ProtocolId::ISAKMP, spi_len: 16, spis: vec![cookies.spi()] })
}

/// A random message ID: not zero, which is phase 1's.
pub(crate) fn message_id(entropy: &mut dyn Entropy) -> u32 {
    loop {
        let id = (entropy.next_u64() >> 32) as u32;
        if id != 0 {
            return id;
        }
    }
}

fn header(cookies: Cookies, message_id: u32) -> Header {
    Header {
        initiator: cookies.initiator,
        responder: cookies.responder,
        first: PayloadKind::NONE,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::default(),
        message_id,
    }
}
