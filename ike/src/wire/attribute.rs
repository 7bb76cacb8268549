//! Data attributes (RFC 2408 3.3).

use super::error::{DecodeError, Parsed};
use nom::bytes::complete::take;
use nom::number::complete::be_u16;

/// Set in the type field of an attribute whose value is in its length field.
const BASIC: u16 = 0x8000;

/// One attribute, in the form in which it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Class, 15 bits.
    pub kind: u16,
    /// Value.
    pub value: AttributeValue,
}

/// The two forms of attribute values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// Two octets, type/value form.
    Basic(u16),
    /// Any number of octets, type/length/value form.
    Variable(Vec<u8>),
}

impl Attribute {
    /// An attribute in basic form.
    #[must_use]
    pub fn basic(kind: u16, value: u16) -> Self {
        Self { kind, value: AttributeValue::Basic(value) }
    }

    /// A number in basic form if it fits, else as four octets (RFC 2407 4.5: lifetimes).
    #[must_use]
    pub fn number(kind: u16, value: u32) -> Self {
        let value = match u16::try_from(value) {
            Ok(v) => AttributeValue::Basic(v),
            Err(_) => AttributeValue::Variable(value.to_be_bytes().to_vec()),
        };
        Self { kind, value }
    }

    /// The value as a number, whichever the form; a number beyond 64 bits is `None`.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        match &self.value {
            AttributeValue::Basic(v) => Some(u64::from(*v)),
            AttributeValue::Variable(octets) => {
                let first = octets.iter().position(|&b| b != 0).unwrap_or(octets.len());
                let significant = octets.get(first..)?;
                (significant.len() <= 8 && !octets.is_empty())
                    .then(|| significant.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
            }
        }
    }

    /// Parses attributes to the end of `octets`, as in the data of some notifications.
    ///
    /// # Errors
    /// When the last one is cut short.
    pub fn decode_list(octets: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let (mut rest, mut out) = (octets, Vec::new());
        while !rest.is_empty() {
            let (after, attribute) = Self::parse(rest)?;
            out.push(attribute);
            rest = after;
        }
        Ok(out)
    }

    /// The octets of `attributes`.
    #[must_use]
    pub fn encode_list(attributes: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        attributes.iter().for_each(|a| a.write(&mut out));
        out
    }

    pub(super) fn parse(input: &[u8]) -> Parsed<'_, Self> {
        let (rest, kind) = be_u16(input)?;
        let (rest, second) = be_u16(rest)?;
        if kind & BASIC != 0 {
            return Ok((rest, Self::basic(kind & !BASIC, second)));
        }
        let (rest, octets) = take(second)(rest)?;
        Ok((rest, Self { kind, value: AttributeValue::Variable(octets.to_vec()) }))
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match &self.value {
            AttributeValue::Basic(v) => {
                out.extend_from_slice(&(self.kind | BASIC).to_be_bytes());
                out.extend_from_slice(&v.to_be_bytes());
            }
            AttributeValue::Variable(octets) => {
                out.extend_from_slice(&(self.kind & !BASIC).to_be_bytes());
                out.extend_from_slice(&super::length(octets.len()).to_be_bytes());
                out.extend_from_slice(octets);
            }
        }
    }
}
