//! The SA payload with its proposals and transforms (RFC 2408 3.4 to 3.6).

use super::attribute::Attribute;
use super::error::{DecodeError, Parsed, fail};
use super::numbers::{DOI_IPSEC, PayloadKind, ProtocolId, SIT_IDENTITY_ONLY};
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};

/// Proposals accepted in one SA payload.
pub const MAX_PROPOSALS: usize = 64;
/// Attributes accepted in one transform.
pub const MAX_ATTRIBUTES: usize = 64;
const PROPOSAL_HEADER: usize = 8;
const TRANSFORM_HEADER: usize = 8;

/// An SA payload of the IPsec DOI with SIT_IDENTITY_ONLY, the only situation
/// without labels; others are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityAssociation {
    /// Alternatives and, where numbers repeat, conjunctions; at least one.
    pub proposals: Vec<Proposal>,
}

/// One protocol of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Proposal number; equal numbers are to be used together.
    pub number: u8,
    /// Protocol.
    pub protocol: ProtocolId,
    /// SPI of the sender; may be empty or the cookies in phase 1.
    pub spi: Vec<u8>,
    /// Alternatives, most preferred first; at least one, at most 255.
    pub transforms: Vec<Transform>,
}

/// One transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Transform number.
    pub number: u8,
    /// Transform identifier, by protocol.
    pub id: u8,
    /// Attributes in their order.
    pub attributes: Vec<Attribute>,
}

impl SecurityAssociation {
    /// The payload's body, as it goes into HASH_I and HASH_R (`SAi_b`, RFC 2409 5).
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&DOI_IPSEC.to_be_bytes());
        out.extend_from_slice(&SIT_IDENTITY_ONLY.to_be_bytes());
        for (index, proposal) in self.proposals.iter().enumerate() {
            proposal.write(index + 1 == self.proposals.len(), &mut out);
        }
        out
    }

    pub(super) fn parse(input: &[u8]) -> Result<Self, DecodeError> {
        let (rest, doi) = be_u32(input)?;
        if doi != DOI_IPSEC {
            return Err(DecodeError::Doi(doi));
        }
        let (mut rest, situation) = be_u32::<_, DecodeError>(rest)?;
        if situation != SIT_IDENTITY_ONLY {
            return Err(DecodeError::Situation(situation));
        }
        let mut proposals = Vec::new();
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(DecodeError::TooMany { what: "proposals", limit: MAX_PROPOSALS });
            }
            let (after, (proposal, last)) = Proposal::parse(rest)?;
            proposals.push(proposal);
            rest = after;
            if last {
                break;
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(rest.len()));
        }
        Ok(Self { proposals })
    }
}

impl Proposal {
    fn parse(input: &[u8]) -> Parsed<'_, (Self, bool)> {
        let (rest, (content, last)) = substructure(input, PayloadKind::PROPOSAL, PROPOSAL_HEADER)?;
        let (content, number) = be_u8(content)?;
        let (content, protocol) = be_u8(content)?;
        let (content, spi_len) = be_u8(content)?;
        let (content, count) = be_u8(content)?;
        let (mut content, spi) = take(spi_len)(content)?;
        let mut transforms = Vec::with_capacity(usize::from(count));
        loop {
            let (after, (transform, last)) = Transform::parse(content)?;
            transforms.push(transform);
            content = after;
            if last || transforms.len() == usize::from(count) {
                if !last || !content.is_empty() || transforms.len() != usize::from(count) {
                    return fail(DecodeError::Count(PayloadKind::PROPOSAL));
                }
                break;
            }
        }
        let proposal = Self { number, protocol: ProtocolId(protocol), spi: spi.to_vec(), transforms };
        Ok((rest, (proposal, last)))
    }

    fn write(&self, last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[next(PayloadKind::PROPOSAL, last), 0, 0, 0]);
        out.extend_from_slice(&[
            self.number,
            self.protocol.0,
            super::short_length(self.spi.len()),
            super::short_length(self.transforms.len()),
        ]);
        out.extend_from_slice(&self.spi);
        for (index, transform) in self.transforms.iter().enumerate() {
            transform.write(index + 1 == self.transforms.len(), out);
        }
        super::set_length(out, start);
    }
}

impl Transform {
    fn parse(input: &[u8]) -> Parsed<'_, (Self, bool)> {
        let (rest, (content, last)) = substructure(input, PayloadKind::TRANSFORM, TRANSFORM_HEADER)?;
        let (content, number) = be_u8(content)?;
        let (content, id) = be_u8(content)?;
        let (mut content, reserved) = be_u16(content)?;
        if reserved != 0 {
            return fail(DecodeError::Reserved(PayloadKind::TRANSFORM));
        }
        let mut attributes = Vec::new();
        while !content.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return fail(DecodeError::TooMany { what: "attributes", limit: MAX_ATTRIBUTES });
            }
            let (after, attribute) = Attribute::parse(content)?;
            attributes.push(attribute);
            content = after;
        }
        Ok((rest, (Self { number, id, attributes }, last)))
    }

    fn write(&self, last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[next(PayloadKind::TRANSFORM, last), 0, 0, 0, self.number, self.id, 0, 0]);
        for attribute in &self.attributes {
            attribute.write(out);
        }
        super::set_length(out, start);
    }
}

fn next(kind: PayloadKind, last: bool) -> u8 {
    if last { PayloadKind::NONE.0 } else { kind.0 }
}

/// Splits off one proposal or transform: (its content after the generic
/// header, whether it is the last).
fn substructure(input: &[u8], kind: PayloadKind, header: usize) -> Parsed<'_, (&[u8], bool)> {
    let (rest, next) = be_u8(input)?;
    let (rest, reserved) = be_u8(rest)?;
    let (rest, length) = be_u16(rest)?;
    if reserved != 0 {
        return fail(DecodeError::Reserved(kind));
    }
    if next != PayloadKind::NONE.0 && next != kind.0 {
        return fail(DecodeError::Misplaced(PayloadKind(next)));
    }
    if usize::from(length) < header {
        return fail(DecodeError::PayloadLength(kind));
    }
    let (rest, content) = take(length - 4)(rest)?;
    Ok((rest, (content, next == PayloadKind::NONE.0)))
}
