//! Picking payloads out of a message.

use super::SecurityAssociation;
use super::attributes::Attributes;
use super::numbers::{PayloadKind, X509_SIGNATURE};
use super::payload::{Delete, Fragment, Identification, Notification, Payload};
use crate::nat::Seen;

/// The payloads of one message, by type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payloads<'a>(pub(crate) &'a [Payload]);

impl<'a> Payloads<'a> {
    pub(crate) fn sa(self) -> Option<&'a SecurityAssociation> {
        self.0.iter().find_map(|p| if let Payload::SecurityAssociation(sa) = p { Some(sa) } else { None })
    }

    pub(crate) fn key_exchange(self) -> Option<&'a [u8]> {
        self.0.iter().find_map(|p| if let Payload::KeyExchange(v) = p { Some(v.as_slice()) } else { None })
    }

    /// The nonce, if it has an allowed size: 8 to 256 octets (RFC 2409 5).
    pub(crate) fn nonce(self) -> Option<&'a [u8]> {
        self.0.iter().find_map(|p| match p {
            Payload::Nonce(v) if (8..=256).contains(&v.len()) => Some(v.as_slice()),
            _ => None,
        })
    }

    pub(crate) fn hash(self) -> Option<&'a [u8]> {
        self.0.iter().find_map(|p| if let Payload::Hash(v) = p { Some(v.as_slice()) } else { None })
    }

    pub(crate) fn signature(self) -> Option<&'a [u8]> {
        self.0.iter().find_map(|p| if let Payload::Signature(v) = p { Some(v.as_slice()) } else { None })
    }

    /// The certificates that can be used, in order (RFC 2408 3.9).
    pub(crate) fn certificates(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(|p| match p {
            Payload::Certificate { encoding: X509_SIGNATURE, data } => Some(data.as_slice()),
            _ => None,
        })
    }

    pub(crate) fn ids(self) -> impl Iterator<Item = &'a Identification> {
        self.0.iter().filter_map(|p| if let Payload::Identification(id) = p { Some(id) } else { None })
    }

    pub(crate) fn notifications(self) -> impl Iterator<Item = &'a Notification> {
        self.0.iter().filter_map(|p| if let Payload::Notification(n) = p { Some(n) } else { None })
    }

    pub(crate) fn deletes(self) -> impl Iterator<Item = &'a Delete> {
        self.0.iter().filter_map(|p| if let Payload::Delete(d) = p { Some(d) } else { None })
    }

    pub(crate) fn attributes(self) -> Option<&'a Attributes> {
        self.0.iter().find_map(|p| if let Payload::Attributes(a) = p { Some(a) } else { None })
    }

    pub(crate) fn fragment(self) -> Option<&'a Fragment> {
        self.0.iter().find_map(|p| if let Payload::Fragment(fragment) = p { Some(fragment) } else { None })
    }

    /// NAT-OAi and NAT-OAr.
    pub(crate) fn original_addresses(self) -> Option<Seen> {
        Seen::read(self.0)
    }

    fn count(self, kind: PayloadKind) -> usize {
        self.0.iter().filter(|p| p.kind() == kind).count()
    }
}

/// Payload types from here on are for private use (RFC 2408 3.1).
const PRIVATE_TYPES: u8 = 128;

/// Payloads of which a message carries as many as its table says, no more and no fewer.
const COUNTED: [PayloadKind; 7] = [
    PayloadKind::SECURITY_ASSOCIATION,
    PayloadKind::KEY_EXCHANGE,
    PayloadKind::IDENTIFICATION,
    PayloadKind::HASH,
    PayloadKind::SIGNATURE,
    PayloadKind::NONCE,
    PayloadKind::ATTRIBUTES,
];

/// Whether a message has exactly the payloads it must have, and of those it
/// may have all or none (`optional` lists a payload as often as it comes).
///
/// # Errors
/// What is missing, or there too often.
pub(crate) fn check(payloads: &[Payload], required: &[PayloadKind], optional: &[PayloadKind]) -> Result<(), String> {
    let payloads = Payloads(payloads);
    // RFC 2408 5.3: a message with a payload of an unknown type is discarded; who uses one of the
    // private types (128 and above) has announced it with a vendor ID, and can do without.
    let unknown = |p: &&Payload| matches!(p, Payload::Unknown { kind, .. } if kind.0 < PRIVATE_TYPES);
    if let Some(payload) = payloads.0.iter().find(unknown) {
        return Err(format!("payload {} is of no known type", payload.kind()));
    }
    // SA comes before everything else in phase 1, and before everything but HASH in quick mode (RFC 2409 5, 5.5).
    let sa = PayloadKind::SECURITY_ASSOCIATION;
    let first = payloads.0.iter().map(Payload::kind).find(|&kind| kind != PayloadKind::HASH);
    if required.contains(&sa) && payloads.count(sa) > 0 && first != Some(sa) {
        return Err(format!("payload {sa} is not the first"));
    }
    for kind in COUNTED {
        let must = required.iter().filter(|&&k| k == kind).count();
        let may = optional.iter().filter(|&&k| k == kind).count();
        let has = payloads.count(kind);
        if has < must {
            return Err(format!("payload {kind} is missing"));
        }
        if has != must && has != must + may {
            return Err(format!("{has} payloads {kind} where {must} belong"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_are_refused_and_private_ones_passed_over() {
        let with = |kind| [Payload::Nonce(vec![1; 16]), Payload::Unknown { kind: PayloadKind(kind), body: vec![] }];
        let check = |kind| check(&with(kind), &[PayloadKind::NONCE], &[]);
        assert_eq!((check(128), check(255)), (Ok(()), Ok(())));
        for kind in [22, 99, 127] {
            assert!(check(kind).unwrap_err().contains("no known type"));
        }
    }

    #[test]
    fn sa_comes_before_all_but_hash() {
        let sa = Payload::SecurityAssociation(SecurityAssociation { proposals: Vec::new() });
        let (nonce, hash) = (Payload::Nonce(vec![1; 16]), Payload::Hash(vec![1; 20]));
        let required = [PayloadKind::HASH, PayloadKind::SECURITY_ASSOCIATION, PayloadKind::NONCE];
        let check = |order: [&Payload; 3]| check(&order.map(Clone::clone), &required, &[]);
        assert_eq!(check([&hash, &sa, &nonce]), Ok(()));
        for order in [[&hash, &nonce, &sa], [&nonce, &hash, &sa], [&nonce, &sa, &hash]] {
            assert!(check(order).unwrap_err().contains("SA is not the first"));
        }
    }
}
