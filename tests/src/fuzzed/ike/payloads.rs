//! Payloads as a peer could send them: those that belong into a message, disturbed, and any others.

use arbitrary::{Result, Unstructured};
use ike::wire::numbers::{DOI_IPSEC, IdKind, NotifyKind, PayloadKind, ProtocolId};
use ike::wire::{
    Attribute, AttributeValue, Delete, Identification, Notification, Payload, Proposal, SecurityAssociation, Transform,
};

/// Payloads in one message, at most.
const MOST: usize = 12;

/// Changes a list of payloads, or does not: with nothing left to draw from, it stays as it is.
pub(super) fn disturb(u: &mut Unstructured<'_>, payloads: &mut Vec<Payload>) -> Result<()> {
    for _ in 0..u.arbitrary::<u8>()? % 4 {
        let at = u.choose_index(payloads.len() + 1)?;
        let is_there = at < payloads.len();
        match u.arbitrary::<u8>()? % 8 {
            0 if is_there => drop(payloads.remove(at)),
            1 if is_there && payloads.len() < MOST => {
                let again = payloads[at].clone();
                payloads.push(again);
            }
            2 if is_there => payloads.swap(0, at),
            3 if is_there => payloads[at] = payload(u)?,
            4..=6 if is_there => bend(u, &mut payloads[at])?,
            _ if payloads.len() < MOST => {
                let more = payload(u)?;
                payloads.insert(at, more);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Flips or cuts octets of an encoded message.
pub(super) fn damage(u: &mut Unstructured<'_>, octets: &mut Vec<u8>) -> Result<()> {
    let how = u.arbitrary::<u8>()?;
    if how < 0xe0 || octets.is_empty() {
        return Ok(());
    }
    for _ in 0..1 + how % 3 {
        let at = u.choose_index(octets.len())?;
        octets[at] = u.arbitrary()?;
    }
    if how % 8 == 7 {
        octets.truncate(u.int_in_range(1..=octets.len())?);
    }
    Ok(())
}

/// Changes something inside a payload.
fn bend(u: &mut Unstructured<'_>, payload: &mut Payload) -> Result<()> {
    match payload {
        Payload::SecurityAssociation(sa) => bend_association(u, sa),
        Payload::Identification(id) => {
            match u.arbitrary::<u8>()? % 4 {
                0 => id.kind = id_kind(u)?,
                1 => id.protocol = u.arbitrary()?,
                2 => id.port = u.arbitrary()?,
                _ => damage_octets(u, &mut id.data)?,
            }
            Ok(())
        }
        Payload::Notification(n) => {
            match u.arbitrary::<u8>()? % 5 {
                0 => n.kind = notify_kind(u)?,
                1 => n.protocol = ProtocolId(u.arbitrary::<u8>()? % 6),
                2 => damage_octets(u, &mut n.spi)?,
                3 => n.doi = u.arbitrary()?,
                _ => damage_octets(u, &mut n.data)?,
            }
            Ok(())
        }
        Payload::KeyExchange(octets)
        | Payload::Hash(octets)
        | Payload::Signature(octets)
        | Payload::Nonce(octets)
        | Payload::VendorId(octets)
        | Payload::NatDiscovery { hash: octets, .. }
        | Payload::NatOriginalAddress { address: octets, .. }
        | Payload::Certificate { data: octets, .. }
        | Payload::CertificateRequest { authority: octets, .. } => damage_octets(u, octets),
        other => {
            *other = self::payload(u)?;
            Ok(())
        }
    }
}

/// Octets that one field may have: 255 where its length is one octet.
const LONGEST_FIELD: usize = 255;

fn damage_octets(u: &mut Unstructured<'_>, octets: &mut Vec<u8>) -> Result<()> {
    match u.arbitrary::<u8>()? % 5 {
        0 => octets.clear(),
        1 => octets.fill(u.arbitrary()?),
        2 if octets.len() < LONGEST_FIELD => octets.push(u.arbitrary()?),
        3 => drop(octets.pop()),
        _ if !octets.is_empty() => {
            let at = u.choose_index(octets.len())?;
            octets[at] ^= u.arbitrary::<u8>()?;
        }
        _ => {}
    }
    Ok(())
}

fn bend_association(u: &mut Unstructured<'_>, sa: &mut SecurityAssociation) -> Result<()> {
    let (nth, many) = (u.choose_index(sa.proposals.len())?, sa.proposals.len() >= 8);
    let Some(proposal) = sa.proposals.get_mut(nth) else { return Ok(()) };
    match u.arbitrary::<u8>()? % 8 {
        0 => proposal.number = u.arbitrary()?,
        1 => proposal.protocol = ProtocolId(u.arbitrary::<u8>()? % 6),
        2 => damage_octets(u, &mut proposal.spi)?,
        3 if !many => {
            let more = self::proposal(u)?;
            sa.proposals.push(more);
        }
        what => {
            let at = u.choose_index(proposal.transforms.len())?;
            let transform = &mut proposal.transforms[at];
            match what {
                4 => transform.id = u.arbitrary()?,
                5 => {
                    let more = self::transform(u)?;
                    proposal.transforms.push(more);
                }
                _ if !transform.attributes.is_empty() => {
                    let at = u.choose_index(transform.attributes.len())?;
                    transform.attributes[at] = attribute(u)?;
                }
                _ => transform.attributes.push(attribute(u)?),
            }
        }
    }
    Ok(())
}

fn octets(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    let len = usize::from(u.arbitrary::<u8>()?) % (most + 1);
    (0..len).map(|_| u.arbitrary()).collect()
}

fn attribute(u: &mut Unstructured<'_>) -> Result<Attribute> {
    // Most classes in use are below 16 in either phase.
    let kind = u.arbitrary::<u16>()? & 0x7fff;
    let kind = if kind >= 0x4000 { kind } else { kind % 20 };
    Ok(match u.arbitrary::<u8>()? % 4 {
        0 => Attribute { kind, value: AttributeValue::Variable(octets(u, 9)?) },
        1 => Attribute::basic(kind, u.arbitrary()?),
        _ => Attribute::basic(kind, u16::from(u.arbitrary::<u8>()? % 40)),
    })
}

fn transform(u: &mut Unstructured<'_>) -> Result<Transform> {
    let attributes = (0..u.arbitrary::<u8>()? % 8).map(|_| attribute(u)).collect::<Result<_>>()?;
    Ok(Transform { number: u.arbitrary()?, id: u.arbitrary::<u8>()? % 30, attributes })
}

fn proposal(u: &mut Unstructured<'_>) -> Result<Proposal> {
    let transforms = (0..1 + u.arbitrary::<u8>()? % 4).map(|_| transform(u)).collect::<Result<_>>()?;
    let protocol = ProtocolId(u.arbitrary::<u8>()? % 6);
    Ok(Proposal { number: u.arbitrary::<u8>()? % 4, protocol, spi: octets(u, 16)?, transforms })
}

fn id_kind(u: &mut Unstructured<'_>) -> Result<IdKind> {
    Ok(IdKind(u.arbitrary::<u8>()? % 14))
}

fn notify_kind(u: &mut Unstructured<'_>) -> Result<NotifyKind> {
    Ok(match u.arbitrary::<u8>()? {
        n @ 0..40 => NotifyKind(n.into()),
        40..60 => NotifyKind::CONNECTED,
        60..80 => NotifyKind::RESPONDER_LIFETIME,
        80..100 => NotifyKind::REPLAY_STATUS,
        100..140 => NotifyKind::INITIAL_CONTACT,
        140..180 => NotifyKind::R_U_THERE,
        180..220 => NotifyKind::R_U_THERE_ACK,
        _ => NotifyKind(u.arbitrary()?),
    })
}

/// Any payload.
pub(super) fn payload(u: &mut Unstructured<'_>) -> Result<Payload> {
    Ok(match u.arbitrary::<u8>()? % 16 {
        0 => {
            let proposals = (0..1 + u.arbitrary::<u8>()? % 3).map(|_| proposal(u)).collect::<Result<_>>()?;
            Payload::SecurityAssociation(SecurityAssociation { proposals })
        }
        1 => Payload::KeyExchange(octets(u, 70)?),
        2 => {
            let (kind, protocol, port) = (id_kind(u)?, u.arbitrary()?, u.arbitrary()?);
            Payload::Identification(Identification { kind, protocol, port, data: octets(u, 40)? })
        }
        3 => Payload::Certificate { encoding: u.arbitrary::<u8>()? % 12, data: octets(u, 40)? },
        4 => Payload::CertificateRequest { encoding: u.arbitrary::<u8>()? % 12, authority: octets(u, 40)? },
        5 => Payload::Hash(octets(u, 40)?),
        6 => Payload::Signature(octets(u, 70)?),
        7 => Payload::Nonce(octets(u, 255)?),
        8 | 9 => {
            let doi = if u.arbitrary()? { DOI_IPSEC } else { u.arbitrary::<u32>()? % 3 };
            let (protocol, kind) = (ProtocolId(u.arbitrary::<u8>()? % 6), notify_kind(u)?);
            Payload::Notification(Notification { doi, protocol, spi: octets(u, 16)?, kind, data: octets(u, 16)? })
        }
        10 => {
            let spi_len = [4, 16, u.arbitrary::<u8>()? % 20][usize::from(u.arbitrary::<u8>()? % 3)];
            let spi = |u: &mut Unstructured<'_>| (0..spi_len).map(|_| u.arbitrary()).collect::<Result<Vec<u8>>>();
            let spis = (0..u.arbitrary::<u8>()? % 4).map(|_| spi(u)).collect::<Result<_>>()?;
            Payload::Delete(Delete { doi: DOI_IPSEC, protocol: ProtocolId(u.arbitrary::<u8>()? % 6), spi_len, spis })
        }
        11 => Payload::VendorId(octets(u, 24)?),
        12 => Payload::NatDiscovery { draft: u.arbitrary()?, hash: octets(u, 32)? },
        13 => Payload::NatOriginalAddress { draft: u.arbitrary()?, kind: id_kind(u)?, address: octets(u, 16)? },
        // 14 is the attribute payload of transaction exchanges, 132 a fragment of the vendor extension.
        _ => {
            let kind = [14, 132, 133 + u.arbitrary::<u8>()? % 100][usize::from(u.arbitrary::<u8>()? % 3)];
            Payload::Unknown { kind: PayloadKind(kind), body: octets(u, 60)? }
        }
    })
}
