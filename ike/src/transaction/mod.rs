//! The transaction exchange (draft-ietf-ipsec-isakmp-mode-cfg-05 3): one question and one
//! answer under the keys of an ISAKMP SA. Extended authentication and mode configuration
//! are made of such exchanges; who begins depends on what it is about.

pub(crate) mod table;

use crate::keys::{Cookies, IsakmpKeys};
use crate::protection::{self, Iv, OpenError};
use crate::wire::numbers::{ExchangeType, PayloadKind};
use crate::wire::{Attributes, AttributesKind, Body, Flags, Header, Message, Payload, Payloads, encode_chain, select};
use zeroize::Zeroizing;

/// A message whose HASH(1) was right. Only [`open`] makes it.
pub(crate) struct Authentic {
    /// What it carries.
    pub(crate) attributes: Attributes,
    /// IV for the next message of the exchange.
    pub(crate) next_iv: Iv,
}

/// Seals a message under `iv`, which is phase 2's for the first of an exchange and the last
/// ciphertext block for its answer; returns the datagram and the next IV.
///
/// # Errors
/// When the cipher fails.
pub(crate) fn seal(
    keys: &IsakmpKeys,
    iv: &Iv,
    cookies: Cookies,
    message_id: u32,
    attributes: Attributes,
) -> Result<(Vec<u8>, Iv), crypto::table::Error> {
    let content = [Payload::Attributes(attributes)];
    // There may be a password in it.
    let octets = Zeroizing::new(encode_chain(&content));
    let hash = keys.hash1(message_id, &octets);
    let [attributes] = content;
    let payloads = [Payload::Hash(hash.expose().to_vec()), attributes];
    let header = Header {
        initiator: cookies.initiator,
        responder: cookies.responder,
        first: PayloadKind::NONE,
        exchange: ExchangeType::TRANSACTION,
        flags: Flags::default(),
        message_id,
    };
    protection::seal(keys, iv, header, &payloads)
}

/// Decrypts a message, checks its HASH(1) and that it may come at this point: the answer to
/// `question`, or without one a question.
///
/// # Errors
/// Why it is to be ignored.
pub(crate) fn open(
    keys: &IsakmpKeys,
    iv: &Iv,
    message: &Message,
    question: Option<AttributesKind>,
) -> Result<Authentic, String> {
    let Body::Encrypted(ciphertext) = &message.body else {
        return Err("it is not encrypted".into());
    };
    let opened = protection::open(keys, iv, message.header.first, ciphertext).map_err(|e: OpenError| e.to_string())?;
    let (hash, rest) = opened.hash_and_rest().ok_or("it does not begin with a hash")?;
    let expected = keys.hash1(message.header.message_id, rest);
    if !crypto::secret::equal(expected.expose(), hash) {
        return Err("its HASH(1) is wrong".into());
    }
    select::check(&opened.payloads, &table::REQUIRED, &[])?;
    let attributes = Payloads(&opened.payloads).attributes().ok_or("it carries no attributes")?;
    if !table::allows(question, attributes.kind) {
        return Err(format!("it is a {}, which nobody waits for", attributes.kind));
    }
    Ok(Authentic { attributes: attributes.clone(), next_iv: opened.next_iv.clone() })
}
