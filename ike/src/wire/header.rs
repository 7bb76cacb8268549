//! The ISAKMP header (RFC 2408 3.1).

use super::error::{DecodeError, Parsed, fail};
use super::numbers::{ExchangeType, PayloadKind};
use core::fmt;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u32};

/// Octets of the header.
pub const HEADER_LEN: usize = 28;

/// Version 1.0.
const VERSION: u8 = 0x10;

/// One side's cookie: half of the name of an ISAKMP SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub [u8; 8]);

impl Cookie {
    /// The responder's cookie in the first message.
    pub const ZERO: Self = Self([0; 8]);
}

/// `0123456789abcdef`.
impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Flags of the header (RFC 2408 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Everything after the header is encrypted.
    pub encryption: bool,
    /// The sender wants to be told when the SA is in use.
    pub commit: bool,
    /// Authenticated but not encrypted.
    pub authentication_only: bool,
}

/// The header, but for the length, which follows from the rest, and the
/// version, which is always 1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Initiator's cookie.
    pub initiator: Cookie,
    /// Responder's cookie; zero in the first message.
    pub responder: Cookie,
    /// Type of the first payload.
    pub first: PayloadKind,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// Flags.
    pub flags: Flags,
    /// Message ID: zero in phase 1.
    pub message_id: u32,
}

impl Header {
    /// Parses a header; returns it with the length it states.
    pub(super) fn parse(input: &[u8]) -> Parsed<'_, (Self, u32)> {
        let (rest, initiator) = cookie(input)?;
        let (rest, responder) = cookie(rest)?;
        let (rest, first) = be_u8(rest)?;
        let (rest, version) = be_u8(rest)?;
        if version != VERSION {
            return fail(DecodeError::Version(version));
        }
        let (rest, exchange) = be_u8(rest)?;
        let (rest, flags) = be_u8(rest)?;
        if flags & !0x07 != 0 {
            return fail(DecodeError::Flags(flags));
        }
        let (rest, message_id) = be_u32(rest)?;
        let (rest, length) = be_u32(rest)?;
        let header = Self {
            initiator,
            responder,
            first: PayloadKind(first),
            exchange: ExchangeType(exchange),
            flags: Flags {
                encryption: flags & 0x01 != 0,
                commit: flags & 0x02 != 0,
                authentication_only: flags & 0x04 != 0,
            },
            message_id,
        };
        Ok((rest, (header, length)))
    }

    /// The whole message: this header, then `body`.
    #[must_use]
    pub fn with_body(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        out.extend_from_slice(&self.initiator.0);
        out.extend_from_slice(&self.responder.0);
        out.push(self.first.0);
        out.push(VERSION);
        out.push(self.exchange.0);
        out.push(
            u8::from(self.flags.encryption)
                | u8::from(self.flags.commit) << 1
                | u8::from(self.flags.authentication_only) << 2,
        );
        out.extend_from_slice(&self.message_id.to_be_bytes());
        let length = u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(body);
        out
    }
}

fn cookie(input: &[u8]) -> Parsed<'_, Cookie> {
    let (rest, octets) = take(8usize)(input)?;
    let mut cookie = [0; 8];
    cookie.copy_from_slice(octets);
    Ok((rest, Cookie(cookie)))
}
