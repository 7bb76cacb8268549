//! What can be wrong with a message before anything in it is believed.

use super::numbers::PayloadKind;
use nom::error::{ErrorKind, ParseError};

/// Why octets are not an ISAKMP message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer octets than the structure says or needs.
    #[error("the message ends within a field")]
    Truncated,
    /// The length of the header is not that of the datagram (RFC 2408 5.2).
    #[error("the header says {stated} octets, the datagram has {actual}")]
    Length {
        /// Length field of the header.
        stated: u32,
        /// Octets received.
        actual: usize,
    },
    /// Not version 1.0.
    #[error("version 0x{0:02x} is not 1.0 (0x10)")]
    Version(u8),
    /// Flags beyond encryption, commit and authentication only.
    #[error("flags 0x{0:02x} are not defined")]
    Flags(u8),
    /// A reserved field that is not zero (RFC 2408 5.3).
    #[error("a reserved field of payload {0} is not zero")]
    Reserved(PayloadKind),
    /// A payload length shorter than its own header.
    #[error("payload {0} is shorter than its header")]
    PayloadLength(PayloadKind),
    /// Next payload names a type that cannot stand there.
    #[error("payload {0} cannot stand here")]
    Misplaced(PayloadKind),
    /// Octets after the last payload, in a message that is not encrypted.
    #[error("{0} octets follow the last payload")]
    Trailing(usize),
    /// More of something than anybody needs.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// An SA of a domain of interpretation other than IPsec.
    #[error("domain of interpretation {0} is not IPsec")]
    Doi(u32),
    /// A situation other than identity only.
    #[error("situation 0x{0:x} is not SIT_IDENTITY_ONLY")]
    Situation(u32),
    /// A count that disagrees with what follows.
    #[error("a count in payload {0} disagrees with its content")]
    Count(PayloadKind),
}

impl ParseError<&[u8]> for DecodeError {
    fn from_error_kind(_: &[u8], _: ErrorKind) -> Self {
        Self::Truncated
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Result of a parser on octets.
pub(super) type Parsed<'a, T> = nom::IResult<&'a [u8], T, DecodeError>;

/// Ends parsing with `error`.
pub(super) fn fail<T>(error: DecodeError) -> Result<T, nom::Err<DecodeError>> {
    Err(nom::Err::Failure(error))
}

impl From<nom::Err<DecodeError>> for DecodeError {
    fn from(error: nom::Err<DecodeError>) -> Self {
        match error {
            nom::Err::Error(e) | nom::Err::Failure(e) => e,
            nom::Err::Incomplete(_) => Self::Truncated,
        }
    }
}
