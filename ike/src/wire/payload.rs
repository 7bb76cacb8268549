//! The payloads other than SA (RFC 2408 3.7 to 3.16, RFC 3947).

use super::association::SecurityAssociation;
use super::attributes::Attributes;
use super::error::DecodeError;
use super::numbers::{IdKind, NotifyKind, PayloadKind, ProtocolId};
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};

/// SPIs accepted in one Delete payload.
pub const MAX_DELETED_SPIS: usize = 1024;
/// Flag of the last piece of a message.
const LAST_FRAGMENT: u8 = 0x01;

/// One payload without its generic header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Security association.
    SecurityAssociation(SecurityAssociation),
    /// A public Diffie-Hellman value.
    KeyExchange(Vec<u8>),
    /// An identity.
    Identification(Identification),
    /// Certificate: encoding and data.
    Certificate {
        /// Certificate encoding (RFC 2408 3.9).
        encoding: u8,
        /// The certificate.
        data: Vec<u8>,
    },
    /// Certificate request: type and authority.
    CertificateRequest {
        /// Certificate type (RFC 2408 3.10).
        encoding: u8,
        /// The acceptable authority.
        authority: Vec<u8>,
    },
    /// A hash.
    Hash(Vec<u8>),
    /// A signature.
    Signature(Vec<u8>),
    /// A nonce.
    Nonce(Vec<u8>),
    /// A notification.
    Notification(Notification),
    /// SAs that are gone.
    Delete(Delete),
    /// A vendor ID.
    VendorId(Vec<u8>),
    /// Attributes that are asked for, told, set or taken note of.
    Attributes(Attributes),
    /// A hash of an address and port (RFC 3947 3.2).
    NatDiscovery {
        /// With the payload type of the drafts.
        draft: bool,
        /// HASH(CKY-I | CKY-R | IP | Port).
        hash: Vec<u8>,
    },
    /// An original address (RFC 3947 5.2): ID type and address.
    NatOriginalAddress {
        /// With the payload type of the drafts.
        draft: bool,
        /// ID_IPV4_ADDR or ID_IPV6_ADDR.
        kind: IdKind,
        /// The address.
        address: Vec<u8>,
    },
    /// A piece of a message.
    Fragment(Fragment),
    /// A type that is not known here, kept as it is.
    Unknown {
        /// Its type.
        kind: PayloadKind,
        /// Its body.
        body: Vec<u8>,
    },
}

/// A Fragment payload: a piece of a whole message, of which no RFC tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The same in all pieces of a message.
    pub id: u16,
    /// The piece's place, from 1.
    pub number: u8,
    /// It is the last.
    pub last: bool,
    /// Its octets of the message.
    pub data: Vec<u8>,
}

/// An Identification payload (RFC 2407 4.6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    /// ID type.
    pub kind: IdKind,
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Port, 0 for any.
    pub port: u16,
    /// Identification data.
    pub data: Vec<u8>,
}

/// A Notification payload (RFC 2408 3.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Domain of interpretation: 0 for ISAKMP, 1 for IPsec.
    pub doi: u32,
    /// Protocol of the SA in question.
    pub protocol: ProtocolId,
    /// SPI of the SA in question; may be empty.
    pub spi: Vec<u8>,
    /// Notify message type.
    pub kind: NotifyKind,
    /// Notification data.
    pub data: Vec<u8>,
}

/// A Delete payload (RFC 2408 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Domain of interpretation.
    pub doi: u32,
    /// Protocol of the SAs.
    pub protocol: ProtocolId,
    /// Octets of each SPI: 16 for ISAKMP, 4 for ESP.
    pub spi_len: u8,
    /// The SPIs, each of `spi_len` octets.
    pub spis: Vec<Vec<u8>>,
}

impl Identification {
    /// The payload's body, as it goes into HASH_I and HASH_R (`IDii_b`, RFC 2409 5).
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = vec![self.kind.0, self.protocol];
        out.extend_from_slice(&self.port.to_be_bytes());
        out.extend_from_slice(&self.data);
        out
    }
}

impl Payload {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        match self {
            Self::SecurityAssociation(_) => PayloadKind::SECURITY_ASSOCIATION,
            Self::KeyExchange(_) => PayloadKind::KEY_EXCHANGE,
            Self::Identification(_) => PayloadKind::IDENTIFICATION,
            Self::Certificate { .. } => PayloadKind::CERTIFICATE,
            Self::CertificateRequest { .. } => PayloadKind::CERTIFICATE_REQUEST,
            Self::Hash(_) => PayloadKind::HASH,
            Self::Signature(_) => PayloadKind::SIGNATURE,
            Self::Nonce(_) => PayloadKind::NONCE,
            Self::Notification(_) => PayloadKind::NOTIFICATION,
            Self::Delete(_) => PayloadKind::DELETE,
            Self::VendorId(_) => PayloadKind::VENDOR_ID,
            Self::Attributes(_) => PayloadKind::ATTRIBUTES,
            Self::NatDiscovery { draft: false, .. } => PayloadKind::NAT_D,
            Self::NatDiscovery { draft: true, .. } => PayloadKind::NAT_D_DRAFT,
            Self::NatOriginalAddress { draft: false, .. } => PayloadKind::NAT_OA,
            Self::NatOriginalAddress { draft: true, .. } => PayloadKind::NAT_OA_DRAFT,
            Self::Fragment(_) => PayloadKind::FRAGMENT,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    pub(super) fn parse(kind: PayloadKind, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            PayloadKind::NONE | PayloadKind::PROPOSAL | PayloadKind::TRANSFORM => {
                return Err(DecodeError::Misplaced(kind));
            }
            PayloadKind::SECURITY_ASSOCIATION => Self::SecurityAssociation(SecurityAssociation::parse(body)?),
            PayloadKind::KEY_EXCHANGE => Self::KeyExchange(body.to_vec()),
            PayloadKind::IDENTIFICATION => Self::Identification(Identification::parse(body)?),
            PayloadKind::CERTIFICATE => {
                let (data, encoding) = be_u8::<_, DecodeError>(body)?;
                Self::Certificate { encoding, data: data.to_vec() }
            }
            PayloadKind::CERTIFICATE_REQUEST => {
                let (authority, encoding) = be_u8::<_, DecodeError>(body)?;
                Self::CertificateRequest { encoding, authority: authority.to_vec() }
            }
            PayloadKind::HASH => Self::Hash(body.to_vec()),
            PayloadKind::SIGNATURE => Self::Signature(body.to_vec()),
            PayloadKind::NONCE => Self::Nonce(body.to_vec()),
            PayloadKind::NOTIFICATION => Self::Notification(Notification::parse(body)?),
            PayloadKind::DELETE => Self::Delete(Delete::parse(body)?),
            PayloadKind::VENDOR_ID => Self::VendorId(body.to_vec()),
            PayloadKind::ATTRIBUTES => Self::Attributes(Attributes::parse(body)?),
            PayloadKind::NAT_D => Self::NatDiscovery { draft: false, hash: body.to_vec() },
            PayloadKind::NAT_D_DRAFT => Self::NatDiscovery { draft: true, hash: body.to_vec() },
            PayloadKind::NAT_OA | PayloadKind::NAT_OA_DRAFT => {
                let (rest, id) = be_u8(body)?;
                let (address, reserved) = take::<_, _, DecodeError>(3usize)(rest)?;
                if reserved != [0; 3] {
                    return Err(DecodeError::Reserved(kind));
                }
                let draft = kind == PayloadKind::NAT_OA_DRAFT;
                Self::NatOriginalAddress { draft, kind: IdKind(id), address: address.to_vec() }
            }
            PayloadKind::FRAGMENT => match *body {
                // Other flags mean nothing that is known.
                [high, low, number, flags @ (0 | LAST_FRAGMENT), ref data @ ..] => Self::Fragment(Fragment {
                    id: u16::from_be_bytes([high, low]),
                    number,
                    last: flags == LAST_FRAGMENT,
                    data: data.to_vec(),
                }),
                _ => Self::Unknown { kind, body: body.to_vec() },
            },
            _ => Self::Unknown { kind, body: body.to_vec() },
        })
    }

    pub(super) fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::SecurityAssociation(sa) => out.extend_from_slice(&sa.body()),
            Self::Identification(id) => out.extend_from_slice(&id.body()),
            Self::Attributes(attributes) => attributes.write(out),
            Self::KeyExchange(body)
            | Self::Hash(body)
            | Self::Signature(body)
            | Self::Nonce(body)
            | Self::VendorId(body)
            | Self::NatDiscovery { hash: body, .. }
            | Self::Unknown { body, .. } => out.extend_from_slice(body),
            Self::Certificate { encoding, data } | Self::CertificateRequest { encoding, authority: data } => {
                out.push(*encoding);
                out.extend_from_slice(data);
            }
            Self::Fragment(Fragment { id, number, last, data }) => {
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&[*number, if *last { LAST_FRAGMENT } else { 0 }]);
                out.extend_from_slice(data);
            }
            Self::Notification(n) => n.write(out),
            Self::Delete(d) => d.write(out),
            Self::NatOriginalAddress { kind, address, .. } => {
                out.extend_from_slice(&[kind.0, 0, 0, 0]);
                out.extend_from_slice(address);
            }
        }
    }
}

impl Identification {
    fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let (rest, kind) = be_u8(body)?;
        let (rest, protocol) = be_u8(rest)?;
        let (data, port) = be_u16::<_, DecodeError>(rest)?;
        Ok(Self { kind: IdKind(kind), protocol, port, data: data.to_vec() })
    }
}

impl Notification {
    fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let (rest, doi) = be_u32(body)?;
        let (rest, protocol) = be_u8(rest)?;
        let (rest, spi_len) = be_u8(rest)?;
        let (rest, kind) = be_u16(rest)?;
        let (data, spi) = take::<_, _, DecodeError>(spi_len)(rest)?;
        Ok(Self { doi, protocol: ProtocolId(protocol), spi: spi.to_vec(), kind: NotifyKind(kind), data: data.to_vec() })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.doi.to_be_bytes());
        out.extend_from_slice(&[self.protocol.0, super::short_length(self.spi.len())]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
    }
}

impl Delete {
    fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let (rest, doi) = be_u32(body)?;
        let (rest, protocol) = be_u8(rest)?;
        let (rest, spi_len) = be_u8(rest)?;
        let (mut rest, count) = be_u16::<_, DecodeError>(rest)?;
        if usize::from(count) > MAX_DELETED_SPIS {
            return Err(DecodeError::TooMany { what: "SPIs", limit: MAX_DELETED_SPIS });
        }
        let mut spis = Vec::new();
        for _ in 0..count {
            let (after, spi) = take::<_, _, DecodeError>(spi_len)(rest)?;
            spis.push(spi.to_vec());
            rest = after;
        }
        if !rest.is_empty() {
            return Err(DecodeError::Count(PayloadKind::DELETE));
        }
        Ok(Self { doi, protocol: ProtocolId(protocol), spi_len, spis })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.doi.to_be_bytes());
        out.extend_from_slice(&[self.protocol.0, self.spi_len]);
        out.extend_from_slice(&super::length(self.spis.len()).to_be_bytes());
        for spi in &self.spis {
            out.extend_from_slice(spi);
        }
    }
}
