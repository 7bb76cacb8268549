//! The ISAKMP codec: whatever is accepted is encoded again as it was.

use super::Reached;
use ike::wire::numbers::PayloadKind;
use ike::wire::{Attribute, Body, Message, decode_chain, encode_chain, first_kind};

pub(super) const PLACES: &[&str] = &["clear", "encrypted", "padded", "refused", "chain", "attributes", "proposals"];

/// The first octet says what the others are taken for.
pub(super) fn run(input: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let Some((&what, octets)) = input.split_first() else { return reached };
    match what % 3 {
        0 => message(octets, &mut reached),
        1 => chain(octets, &mut reached),
        _ => {
            if let Ok(list) = Attribute::decode_list(octets) {
                assert_eq!(Attribute::encode_list(&list), octets);
                let _ = list.iter().map(Attribute::as_number).count();
                reached.note("attributes");
            }
        }
    }
    reached
}

fn message(octets: &[u8], reached: &mut Reached) {
    let Ok(message) = Message::decode(octets) else { return reached.note("refused") };
    let mut again = message.encode();
    match &message.body {
        Body::Encrypted(_) => reached.note("encrypted"),
        Body::Clear(payloads) => {
            reached.note("clear");
            assert_eq!(first_kind(payloads), message.header.first);
            if payloads.iter().any(|p| p.kind() == PayloadKind::SECURITY_ASSOCIATION) {
                reached.note("proposals");
            }
        }
    }
    if again.len() < octets.len() {
        // Zeros up to a multiple of four (RFC 2408 3.5), which the length counts.
        reached.note("padded");
        assert!(octets.len() - again.len() < 4 && octets.len().is_multiple_of(4));
        again.resize(octets.len(), 0);
        again[24..28].copy_from_slice(&octets[24..28]);
    }
    assert_eq!(again, octets);
    assert_eq!(Message::decode(&again), Ok(message));
}

/// As inside an encrypted message: the type of the first payload stands elsewhere, and padding follows.
fn chain(octets: &[u8], reached: &mut Reached) {
    let Some((&first, octets)) = octets.split_first() else { return };
    if let Ok((payloads, used)) = decode_chain(PayloadKind(first), octets) {
        assert_eq!(encode_chain(&payloads), octets[..used]);
        reached.note("chain");
    }
}
