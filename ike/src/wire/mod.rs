//! The ISAKMP wire format (RFC 2408): octets to payloads and back, nothing
//! believed and nothing lost.
//!
//! What is accepted is encoded again as the same octets, with everything that
//! is not known here (payloads, attributes, vendor IDs), but for padding after
//! the last payload; what is not strictly well-formed is refused with the reason.

pub mod association;
pub mod attribute;
pub mod attributes;
pub mod error;
pub mod header;
pub mod numbers;
pub mod payload;
pub(crate) mod select;

pub use association::{Proposal, SecurityAssociation, Transform};
pub use attribute::{Attribute, AttributeValue};
pub use attributes::{Attributes, AttributesKind};
pub use error::DecodeError;
pub use header::{Cookie, Flags, HEADER_LEN, Header};
pub use payload::{Delete, Fragment, Identification, Notification, Payload};

pub(crate) use select::Payloads;

use error::Parsed;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16};
use numbers::PayloadKind;

/// Payloads accepted in one message.
pub const MAX_PAYLOADS: usize = 128;
const GENERIC_HEADER: u16 = 4;

/// One ISAKMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header.
    pub header: Header,
    /// What follows it.
    pub body: Body,
}

/// The part after the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Payloads. The first one's type is [`Header::first`].
    Clear(Vec<Payload>),
    /// Ciphertext.
    Encrypted(Vec<u8>),
}

impl Message {
    /// Parses a whole datagram.
    ///
    /// # Errors
    /// Says what is not well-formed; nothing of such a message may be used.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let (rest, (header, stated)) = Header::parse(datagram)?;
        if stated as usize != datagram.len() {
            return Err(DecodeError::Length { stated, actual: datagram.len() });
        }
        if header.flags.encryption {
            return Ok(Self { header, body: Body::Encrypted(rest.to_vec()) });
        }
        let (payloads, used) = decode_chain(header.first, rest)?;
        // Some pad a message in the clear to a multiple of four octets, with zeros (RFC 2408 3.5).
        let padding = rest.get(used..).unwrap_or_default();
        let aligns = datagram.len().is_multiple_of(4) && padding.len() < 4 && padding.iter().all(|&octet| octet == 0);
        if !padding.is_empty() && !aligns {
            return Err(DecodeError::Trailing(padding.len()));
        }
        Ok(Self { header, body: Body::Clear(payloads) })
    }

    /// The datagram. The first payload's type is taken from a clear body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match &self.body {
            Body::Clear(payloads) => {
                Header { first: first_kind(payloads), ..self.header }.with_body(&encode_chain(payloads))
            }
            Body::Encrypted(ciphertext) => self.header.with_body(ciphertext),
        }
    }
}

/// The type of the first of `payloads`, for the header.
#[must_use]
pub fn first_kind(payloads: &[Payload]) -> PayloadKind {
    payloads.first().map_or(PayloadKind::NONE, Payload::kind)
}

/// Parses a chain of payloads whose first is of type `first`; returns them
/// with the number of octets they take. What follows is padding, in an
/// encrypted message.
///
/// # Errors
/// Says what is not well-formed.
pub fn decode_chain(first: PayloadKind, octets: &[u8]) -> Result<(Vec<Payload>, usize), DecodeError> {
    let mut payloads = Vec::new();
    let (mut kind, mut rest) = (first, octets);
    while kind != PayloadKind::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(DecodeError::TooMany { what: "payloads", limit: MAX_PAYLOADS });
        }
        let (after, (next, body)) = generic(rest, kind)?;
        payloads.push(Payload::parse(kind, body)?);
        (kind, rest) = (next, after);
    }
    Ok((payloads, octets.len() - rest.len()))
}

/// The payloads, each with its generic header (RFC 2408 3.2).
#[must_use]
pub fn encode_chain(payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        let start = out.len();
        let next = payloads.get(index + 1).map_or(PayloadKind::NONE, Payload::kind);
        out.extend_from_slice(&[next.0, 0, 0, 0]);
        payload.write_body(&mut out);
        set_length(&mut out, start);
    }
    out
}

/// Splits off one payload: (type of the next, body).
fn generic(input: &[u8], kind: PayloadKind) -> Parsed<'_, (PayloadKind, &[u8])> {
    let (rest, next) = be_u8(input)?;
    let (rest, reserved) = be_u8(rest)?;
    if reserved != 0 {
        return error::fail(DecodeError::Reserved(kind));
    }
    let (rest, length) = be_u16(rest)?;
    if length < GENERIC_HEADER {
        return error::fail(DecodeError::PayloadLength(kind));
    }
    let (rest, body) = take(length - GENERIC_HEADER)(rest)?;
    Ok((rest, (PayloadKind(next), body)))
}

/// A length for a 16-bit field. What we encode is of our own making or was
/// decoded from such a field, so it fits.
fn length(octets: usize) -> u16 {
    u16::try_from(octets).expect("a payload has fewer than 65536 octets")
}

/// A length for an 8-bit field, as [`length`].
fn short_length(octets: usize) -> u8 {
    u8::try_from(octets).expect("an SPI or a list of transforms has fewer than 256 elements")
}

/// Writes the length of the structure that began at `start` into its third and fourth octet.
fn set_length(out: &mut [u8], start: usize) {
    let stated = length(out.len() - start).to_be_bytes();
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&stated);
    }
}
