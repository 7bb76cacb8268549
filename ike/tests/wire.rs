//! The codec: what is encoded is decoded again, what is accepted is encoded
//! again as the same octets, and nothing panics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ike::wire::numbers::{ExchangeType, IdKind, NotifyKind, PayloadKind, ProtocolId};
use ike::wire::{
    Attribute, AttributeValue, Body, Cookie, DecodeError, Delete, Flags, Header, Identification, Message, Notification,
    Payload, Proposal, SecurityAssociation, Transform, decode_chain, encode_chain, first_kind,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn octets(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let value =
        prop_oneof![any::<u16>().prop_map(AttributeValue::Basic), octets(12).prop_map(AttributeValue::Variable)];
    (0..0x8000u16, value).prop_map(|(kind, value)| Attribute { kind, value })
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u8>(), vec(attribute(), 0..8)).prop_map(|(number, id, attributes)| Transform {
        number,
        id,
        attributes,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), octets(17), vec(transform(), 1..6)).prop_map(|(number, protocol, spi, transforms)| {
        Proposal { number, protocol: ProtocolId(protocol), spi, transforms }
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    let delete = (any::<u32>(), any::<u8>(), 0..17u8).prop_flat_map(|(doi, protocol, spi_len)| {
        vec(vec(any::<u8>(), usize::from(spi_len)), 0..5)
            .prop_map(move |spis| Payload::Delete(Delete { doi, protocol: ProtocolId(protocol), spi_len, spis }))
    });
    let notification = (any::<u32>(), any::<u8>(), octets(17), any::<u16>(), octets(20)).prop_map(
        |(doi, protocol, spi, kind, data)| {
            let (protocol, kind) = (ProtocolId(protocol), NotifyKind(kind));
            Payload::Notification(Notification { doi, protocol, spi, kind, data })
        },
    );
    let identification =
        (any::<u8>(), any::<u8>(), any::<u16>(), octets(33)).prop_map(|(kind, protocol, port, data)| {
            Payload::Identification(Identification { kind: IdKind(kind), protocol, port, data })
        });
    prop_oneof![
        vec(proposal(), 1..4).prop_map(|proposals| Payload::SecurityAssociation(SecurityAssociation { proposals })),
        octets(40).prop_map(Payload::KeyExchange),
        identification,
        (any::<u8>(), octets(40)).prop_map(|(encoding, data)| Payload::Certificate { encoding, data }),
        (any::<u8>(), octets(40)).prop_map(|(encoding, authority)| Payload::CertificateRequest { encoding, authority }),
        octets(40).prop_map(Payload::Hash),
        octets(40).prop_map(Payload::Signature),
        octets(40).prop_map(Payload::Nonce),
        notification,
        delete,
        octets(40).prop_map(Payload::VendorId),
        (any::<bool>(), octets(40)).prop_map(|(draft, hash)| Payload::NatDiscovery { draft, hash }),
        (any::<bool>(), any::<u8>(), octets(17)).prop_map(|(draft, kind, address)| Payload::NatOriginalAddress {
            draft,
            kind: IdKind(kind),
            address
        }),
        (22..128u8, octets(40)).prop_map(|(kind, body)| Payload::Unknown { kind: PayloadKind(kind), body }),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (any::<[u8; 8]>(), any::<[u8; 8]>(), any::<u8>(), any::<u8>(), any::<(bool, bool)>(), any::<u32>()).prop_map(
        |(initiator, responder, first, exchange, (commit, authentication_only), message_id)| Header {
            initiator: Cookie(initiator),
            responder: Cookie(responder),
            first: PayloadKind(first),
            exchange: ExchangeType(exchange),
            flags: Flags { encryption: false, commit, authentication_only },
            message_id,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let clear = (header(), vec(payload(), 0..6)).prop_map(|(header, payloads)| Message {
        header: Header { first: first_kind(&payloads), ..header },
        body: Body::Clear(payloads),
    });
    let encrypted = (header(), octets(64)).prop_map(|(header, ciphertext)| Message {
        header: Header { flags: Flags { encryption: true, ..header.flags }, ..header },
        body: Body::Encrypted(ciphertext),
    });
    prop_oneof![clear, encrypted]
}

/// The message encoded again, with up to three octets of padding to a multiple of four.
fn padded(message: &Message, len: usize) -> Vec<u8> {
    let mut octets = message.encode();
    if octets.len() < len {
        assert!(len - octets.len() < 4 && len.is_multiple_of(4));
        octets.resize(len, 0);
        octets[24..28].copy_from_slice(&(len as u32).to_be_bytes());
    }
    octets
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_again(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn arbitrary_octets_are_decoded_or_refused(octets in octets(200)) {
        if let Ok(message) = Message::decode(&octets) {
            prop_assert_eq!(padded(&message, octets.len()), octets);
        }
    }

    #[test]
    fn damaged_messages_are_refused_or_kept_as_they_are(message in message(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut octets = message.encode();
        let at = at.index(octets.len());
        octets[at] ^= 1 << bit;
        if let Ok(message) = Message::decode(&octets) {
            prop_assert_eq!(padded(&message, octets.len()), octets);
        }
    }

    #[test]
    fn a_cut_message_is_refused(message in message(), at in any::<prop::sample::Index>()) {
        let octets = message.encode();
        let cut = &octets[..at.index(octets.len())];
        prop_assert!(Message::decode(cut).is_err());
    }

    #[test]
    fn padding_after_the_last_payload_is_left_alone(payloads in vec(payload(), 1..5), padding in 0..16usize) {
        let mut octets = encode_chain(&payloads);
        let len = octets.len();
        octets.resize(len + padding, 0);
        prop_assert_eq!(decode_chain(first_kind(&payloads), &octets), Ok((payloads, len)));
    }
}

fn message_1() -> Vec<u8> {
    // A first message as strongSwan sends one: SA, then XAUTH, DPD and NAT-T vendor IDs.
    let text = "a1b2c3d4e5f60718 0000000000000000 01 10 02 00 00000000 0000008c \
                0d00003c00000001 00000001 00000030 00010001 00000028 0001 0000 80010007 800e0080 80020002 8004000e 80030001 \
                800b0001 000c000400003840 0d00000c 09002689dfd6b712 0d000014 afcad71368a1f1c96b8696fc77570100 00000018 \
                4a131c81070358455c5728f20e95452f00000000";
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

#[test]
fn a_message_of_another_implementation_survives() {
    let mut octets = message_1();
    // Transform length and all lengths above it follow from the content.
    let length = (octets.len() as u32).to_be_bytes();
    octets[24..28].copy_from_slice(&length);
    let message = Message::decode(&octets).unwrap();
    assert_eq!(message.encode(), octets);
    let Body::Clear(payloads) = &message.body else { panic!("it is in the clear") };
    assert_eq!(payloads.len(), 4);
    let Payload::SecurityAssociation(sa) = &payloads[0] else { panic!("SA comes first") };
    let life = sa.proposals[0].transforms[0].attributes.last().unwrap();
    assert_eq!(life.value, AttributeValue::Variable(vec![0, 0, 0x38, 0x40]));
    assert_eq!(life.as_number(), Some(14400));
}

/// libreswan pads so.
#[test]
fn zeros_up_to_a_multiple_of_four_may_follow_the_last_payload() {
    let vendor = |len| encode_chain(&[Payload::VendorId(vec![7; len])]);
    let header = Header {
        initiator: Cookie([1; 8]),
        responder: Cookie::ZERO,
        first: PayloadKind::VENDOR_ID,
        exchange: ExchangeType::MAIN_MODE,
        flags: Flags::default(),
        message_id: 0,
    };
    let decode =
        |len: usize, padding: &[u8]| Message::decode(&header.with_body(&[vendor(len), padding.to_vec()].concat()));
    for (len, padding) in [(8, 0), (7, 1), (6, 2), (5, 3)] {
        let message = decode(len, &vec![0; padding]).unwrap();
        assert_eq!(message.body, Body::Clear(vec![Payload::VendorId(vec![7; len])]));
    }
    assert_eq!(decode(8, &[0; 4]), Err(DecodeError::Trailing(4)));
    assert_eq!(decode(7, &[1]), Err(DecodeError::Trailing(1)));
    assert_eq!(decode(7, &[0, 0]), Err(DecodeError::Trailing(2)));
    assert_eq!(decode(6, &[0, 1]), Err(DecodeError::Trailing(2)));
}

#[test]
fn numbers_in_attributes() {
    let variable = |v: &[u8]| Attribute { kind: 1, value: AttributeValue::Variable(v.to_vec()) };
    assert_eq!(variable(&[]).as_number(), None);
    assert_eq!(variable(&[0; 40]).as_number(), Some(0));
    assert_eq!(variable(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]).as_number(), Some(256));
    assert_eq!(variable(&[1; 9]).as_number(), None);
    assert_eq!(Attribute::number(1, 65_535).value, AttributeValue::Basic(65_535));
    assert_eq!(Attribute::number(1, 65_536).as_number(), Some(65_536));
}

/// A message with one payload of type `kind` and this body.
fn with(kind: u8, body: &[u8]) -> Result<Message, DecodeError> {
    let mut chain = vec![0, 0];
    chain.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    chain.extend_from_slice(body);
    let header = Header {
        initiator: Cookie([1; 8]),
        responder: Cookie::ZERO,
        first: PayloadKind(kind),
        exchange: ExchangeType::MAIN_MODE,
        flags: Flags::default(),
        message_id: 0,
    };
    Message::decode(&header.with_body(&chain))
}

#[test]
fn what_is_not_well_formed_is_named() {
    let sa = |doi: u8, situation: u8, rest: &[u8]| with(1, &[&[0, 0, 0, doi, 0, 0, 0, situation], rest].concat());
    assert_eq!(sa(2, 1, &[]), Err(DecodeError::Doi(2)));
    assert_eq!(sa(1, 4, &[]), Err(DecodeError::Situation(4)));
    assert_eq!(sa(1, 1, &[]), Err(DecodeError::Truncated));
    // A proposal that counts two transforms and has one; one that has none.
    let transform = [0, 0, 0, 8, 1, 1, 0, 0];
    let proposal = |count| [&[0, 0, 0, 16, 1, 1, 0, count], &transform[..]].concat();
    assert!(sa(1, 1, &proposal(1)).is_ok());
    assert_eq!(sa(1, 1, &proposal(2)), Err(DecodeError::Count(PayloadKind::PROPOSAL)));
    assert_eq!(sa(1, 1, &proposal(0)), Err(DecodeError::Count(PayloadKind::PROPOSAL)));
    assert_eq!(with(2, &[]), Err(DecodeError::Misplaced(PayloadKind::PROPOSAL)));
    assert_eq!(with(12, &[0, 0, 0, 1, 3, 4, 0, 2, 1, 2, 3, 4]), Err(DecodeError::Truncated));
    assert_eq!(with(12, &[0, 0, 0, 1, 3, 4, 0, 1, 1, 2, 3, 4, 5]), Err(DecodeError::Count(PayloadKind::DELETE)));
    let mut octets = message_1();
    octets[17] = 0x20;
    assert_eq!(Message::decode(&octets), Err(DecodeError::Version(0x20)));
}

#[test]
fn too_much_of_anything_is_refused() {
    let many = |n| encode_chain(&vec![Payload::Nonce(Vec::new()); n]);
    assert!(decode_chain(PayloadKind::NONCE, &many(128)).is_ok());
    assert_eq!(
        decode_chain(PayloadKind::NONCE, &many(129)),
        Err(DecodeError::TooMany { what: "payloads", limit: 128 })
    );
    let transform = |attributes| Transform { number: 1, id: 1, attributes: vec![Attribute::basic(1, 1); attributes] };
    let sa = |proposals, attributes| {
        let proposal =
            Proposal { number: 1, protocol: ProtocolId::ESP, spi: Vec::new(), transforms: vec![transform(attributes)] };
        encode_chain(&[Payload::SecurityAssociation(SecurityAssociation { proposals: vec![proposal; proposals] })])
    };
    let decode = |octets: &[u8]| decode_chain(PayloadKind::SECURITY_ASSOCIATION, octets).map(|_| ());
    assert_eq!(decode(&sa(64, 64)), Ok(()));
    assert_eq!(decode(&sa(65, 1)), Err(DecodeError::TooMany { what: "proposals", limit: 64 }));
    assert_eq!(decode(&sa(1, 65)), Err(DecodeError::TooMany { what: "attributes", limit: 64 }));
}
