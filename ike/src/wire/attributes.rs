//! The Attributes payload (draft-ietf-ipsec-isakmp-mode-cfg-05 3.2) and the
//! classes of attributes that travel in it.

use super::association::MAX_ATTRIBUTES;
use super::attribute::{Attribute, AttributeValue};
use super::error::{DecodeError, Parsed};
use super::numbers::PayloadKind;
use core::fmt;
use nom::number::complete::{be_u8, be_u16};
use zeroize::Zeroize;

/// What a payload of attributes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributesKind(pub u8);

impl AttributesKind {
    /// Tell me these.
    pub const REQUEST: Self = Self(1);
    /// The answer to [`Self::REQUEST`].
    pub const REPLY: Self = Self(2);
    /// Use these.
    pub const SET: Self = Self(3);
    /// The answer to [`Self::SET`].
    pub const ACK: Self = Self(4);
}

/// As the draft writes it: `REQUEST`.
impl fmt::Display for AttributesKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::REQUEST => f.write_str("REQUEST"),
            Self::REPLY => f.write_str("REPLY"),
            Self::SET => f.write_str("SET"),
            Self::ACK => f.write_str("ACK"),
            Self(other) => write!(f, "attributes of type {other}"),
        }
    }
}

/// An Attributes payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What for.
    pub kind: AttributesKind,
    /// Names the question; the answer repeats it.
    pub identifier: u16,
    /// In their order; without a value where it is asked for.
    pub attributes: Vec<Attribute>,
}

impl Attributes {
    /// The value of the first attribute of a class.
    #[must_use]
    pub fn get(&self, class: u16) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.kind == class)
    }

    /// The attributes of a class.
    pub fn all(&self, class: u16) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(move |a| a.kind == class)
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let (rest, kind) = be_u8(body)?;
        let (rest, reserved) = be_u8(rest)?;
        let (mut rest, identifier): (_, u16) = be_u16(rest)?;
        if reserved != 0 {
            return Err(DecodeError::Reserved(PayloadKind::ATTRIBUTES));
        }
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(DecodeError::TooMany { what: "attributes", limit: MAX_ATTRIBUTES });
            }
            let parsed: Parsed<'_, Attribute> = Attribute::parse(rest);
            let (after, attribute) = parsed?;
            attributes.push(attribute);
            rest = after;
        }
        Ok(Self { kind: AttributesKind(kind), identifier, attributes })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind.0, 0]);
        out.extend_from_slice(&self.identifier.to_be_bytes());
        self.attributes.iter().for_each(|a| a.write(out));
    }
}

/// There may be a password among them.
impl Drop for Attributes {
    fn drop(&mut self) {
        for attribute in &mut self.attributes {
            if let AttributeValue::Variable(octets) = &mut attribute.value {
                octets.zeroize();
            }
        }
    }
}

/// Classes of extended authentication (draft-ietf-ipsec-isakmp-xauth-06 6.2).
pub mod xauth {
    /// How the user is asked; basic, with [`GENERIC`] unless told.
    pub const TYPE: u16 = 16520;
    /// The user's name.
    pub const USER_NAME: u16 = 16521;
    /// The user's password.
    pub const USER_PASSWORD: u16 = 16522;
    /// What a token shows.
    pub const PASSCODE: u16 = 16523;
    /// Words for the user.
    pub const MESSAGE: u16 = 16524;
    /// A challenge.
    pub const CHALLENGE: u16 = 16525;
    /// A domain.
    pub const DOMAIN: u16 = 16526;
    /// Whether the user is believed: [`OK`] or [`FAIL`].
    pub const STATUS: u16 = 16527;
    /// A new PIN for a token.
    pub const NEXT_PIN: u16 = 16528;
    /// The answer to a question in [`MESSAGE`].
    pub const ANSWER: u16 = 16529;

    /// [`TYPE`]: name and password, or passcode.
    pub const GENERIC: u16 = 0;
    /// [`STATUS`]: refused.
    pub const FAIL: u16 = 0;
    /// [`STATUS`]: believed.
    pub const OK: u16 = 1;

    /// The name of a class, or its number.
    #[must_use]
    pub fn name(class: u16) -> String {
        match class {
            TYPE => "XAUTH_TYPE".into(),
            USER_NAME => "XAUTH_USER_NAME".into(),
            USER_PASSWORD => "XAUTH_USER_PASSWORD".into(),
            PASSCODE => "XAUTH_PASSCODE".into(),
            MESSAGE => "XAUTH_MESSAGE".into(),
            CHALLENGE => "XAUTH_CHALLENGE".into(),
            DOMAIN => "XAUTH_DOMAIN".into(),
            STATUS => "XAUTH_STATUS".into(),
            NEXT_PIN => "XAUTH_NEXT_PIN".into(),
            ANSWER => "XAUTH_ANSWER".into(),
            other => format!("attribute {other}"),
        }
    }
}

/// Classes of mode configuration (draft-ietf-ipsec-isakmp-mode-cfg-05 3.3, draft-dukes-ike-mode-cfg-02,
/// and those of Cisco Unity clients).
pub mod configuration {
    /// An IPv4 address inside.
    pub const IP4_ADDRESS: u16 = 1;
    /// Its mask.
    pub const IP4_NETMASK: u16 = 2;
    /// The address of a DNS server.
    pub const IP4_DNS: u16 = 3;
    /// Seconds for which the address may be used.
    pub const ADDRESS_EXPIRY: u16 = 5;
    /// What the sender is.
    pub const APPLICATION_VERSION: u16 = 7;
    /// An IPv6 address inside; some append the length of its prefix.
    pub const IP6_ADDRESS: u16 = 8;
    /// The IPv6 address of a DNS server.
    pub const IP6_DNS: u16 = 10;
    /// A network behind the sender: address and mask.
    pub const IP4_SUBNET: u16 = 13;
    /// A network behind the sender: address and length of its prefix.
    pub const IP6_SUBNET: u16 = 15;
    /// Words for the user.
    pub const UNITY_BANNER: u16 = 28672;
    /// Networks to be reached through the tunnel: address, mask, and six octets that are zero, each.
    pub const UNITY_SPLIT_INCLUDE: u16 = 28676;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Payload, decode_chain, encode_chain};

    /// A request for name and password, as strongSwan 5.9 sends it.
    const REQUEST: [u8; 20] = [0, 0, 0, 20, 1, 0, 0xbe, 0xef, 0x40, 0x89, 0, 0, 0x40, 0x8a, 0, 0, 0xc0, 0x88, 0, 0];

    #[test]
    fn octets_and_back() {
        let (payloads, used) = decode_chain(PayloadKind::ATTRIBUTES, &REQUEST).unwrap();
        assert_eq!(used, REQUEST.len());
        let [Payload::Attributes(attributes)] = payloads.as_slice() else { panic!("{payloads:?}") };
        assert_eq!((attributes.kind, attributes.identifier), (AttributesKind::REQUEST, 0xbeef));
        let kinds: Vec<_> = attributes.attributes.iter().map(|a| xauth::name(a.kind)).collect();
        assert_eq!(kinds, ["XAUTH_USER_NAME", "XAUTH_USER_PASSWORD", "XAUTH_TYPE"]);
        assert_eq!(attributes.get(xauth::TYPE).and_then(Attribute::as_number), Some(0));
        assert_eq!(encode_chain(&payloads), REQUEST);
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let decode = |octets: &[u8]| {
            let length = (octets.len() + 4) as u8;
            decode_chain(PayloadKind::ATTRIBUTES, &[&[0, 0, 0, length], octets].concat()).map(|_| ())
        };
        assert_eq!(decode(&[1, 0, 0, 0]), Ok(()));
        assert_eq!(decode(&[1, 1, 0, 0]), Err(DecodeError::Reserved(PayloadKind::ATTRIBUTES)));
        assert_eq!(decode(&[1, 0, 0]), Err(DecodeError::Truncated));
        assert_eq!(decode(&[1, 0, 0, 0, 0x40, 0x89, 0]), Err(DecodeError::Truncated));
        assert_eq!(decode(&[1, 0, 0, 0, 0x40, 0x89, 0, 5, b'a']), Err(DecodeError::Truncated));
        let many = [&[1, 0, 0, 0][..], &[0xc0, 0x88, 0, 0].repeat(62)].concat();
        assert_eq!(decode(&many[..many.len().min(250)]), Err(DecodeError::Truncated), "cut within one");
        let body = [&[1, 0, 0, 0][..], &[0xc0, 0x88, 0, 0].repeat(MAX_ATTRIBUTES + 1)].concat();
        assert!(matches!(Attributes::parse(&body), Err(DecodeError::TooMany { .. })));
    }
}
