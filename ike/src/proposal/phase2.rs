//! Proposals of quick mode: one for each run of transforms of one protocol, ESP or
//! AH, and two of one number for a bundle of both (RFC 2408 4.2), all with one SPI (RFC 2407 4.4.1, 4.5).

use super::{
    Field, Mismatch, OfferedLifetime, attribute, contradiction, described, narrow, shorter_lifetime, write_lifetime,
};
use crate::wire::numbers::{DOI_IPSEC, NotifyKind, ProtocolId, encapsulation_mode, phase2_attribute as class};
use crate::wire::{Attribute, Notification, Proposal, SecurityAssociation, Transform};
use crypto::EspSuite;
use crypto::table::{Encryption, Group, Integrity};
use policy::config::TunnelPolicy;
use policy::sa::{Lifetime, SaProtocol};
use policy::transform::EspTransform;
use std::net::IpAddr;

/// The field that follows from NAT detection.
pub(super) const ENCAPSULATION: &str = "encapsulation mode";

/// The one value of the attribute "Extended (64-bit) Sequence Number" (RFC 4304).
const EXTENDED: u16 = 1;

/// Ways to combine the transforms of a peer's proposals that are looked at.
const MOST_COMBINATIONS: usize = 4096;

/// What a tunnel asks for under the circumstances of one ISAKMP SA.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) tunnel: &'a TunnelPolicy,
    /// Encapsulation mode, by what is known of NATs.
    pub(crate) mode: u16,
    /// Our address and the peer's, as we see them.
    pub(crate) ends: (IpAddr, IpAddr),
    /// Group of the ISAKMP SA if it may protect one quick mode only: then
    /// that mode must bring its own secrecy.
    pub(crate) group: Option<&'static Group>,
    /// Lifetimes of less than a minute are accepted.
    pub(crate) short: bool,
}

impl<'a> Wanted<'a> {
    /// Our transforms, as far as the circumstances allow: AH covers addresses, which a NAT
    /// changes, and has no encapsulation in UDP (RFC 3715 2.1 a).
    pub(crate) fn transforms(&self) -> impl Iterator<Item = &'a EspTransform> + use<'a> {
        let udp = encapsulation_mode::is_udp(self.mode);
        self.tunnel.transforms.iter().filter(move |t| !udp || !t.protocols().any(|protocol| protocol == SaProtocol::Ah))
    }

    /// The group of perfect forward secrecy, for a transform.
    fn pfs(&self, transform: &EspTransform) -> Option<&'static Group> {
        transform.pfs.or(self.group)
    }

    /// The group of our key exchange payload; the same for all transforms of a tunnel.
    pub(crate) fn offered_group(&self) -> Option<&'static Group> {
        self.transforms().next().and_then(|t| self.pfs(t))
    }

    /// Our suites, for reports.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.transforms().map(|t| describe(t, self.pfs(t))).collect()
    }
}

fn describe(transform: &EspTransform, pfs: Option<&'static Group>) -> String {
    EspTransform { pfs, ..*transform }.keyword()
}

/// What both sides agree on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) protocol: SaProtocol,
    pub(crate) suite: EspSuite,
    pub(crate) pfs: Option<&'static Group>,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
    pub(crate) lifetime: Lifetime,
    /// The peer's SPI.
    pub(crate) spi: u32,
    /// Of a bundle: the algorithm of the AH, and the peer's SPI of it.
    pub(crate) ah: Option<(&'static Integrity, u32)>,
    /// The responder's answer, still with the initiator's SPIs.
    answer: Vec<Proposal>,
    /// Our lifetime is shorter than the one that was offered.
    shortened: bool,
}

impl Agreed {
    /// The SA payload of message 2, with our SPI.
    pub(crate) fn answer(&self, spi: u32) -> SecurityAssociation {
        let ours = |p: &Proposal| Proposal { spi: spi.to_be_bytes().to_vec(), ..p.clone() };
        SecurityAssociation { proposals: self.answer.iter().map(ours).collect() }
    }

    /// RESPONDER-LIFETIME, if the initiator must be told that ours is shorter (RFC 2407 4.6.3.1).
    pub(crate) fn responder_lifetime(&self, spi: u32) -> Option<Notification> {
        self.shortened.then(|| {
            let mut attributes = Vec::new();
            write_lifetime(&mut attributes, self.lifetime, class::LIFE_TYPE, class::LIFE_DURATION);
            Notification {
                doi: DOI_IPSEC,
                protocol: self.protocol.into(),
                spi: spi.to_be_bytes().to_vec(),
                kind: NotifyKind::RESPONDER_LIFETIME,
                data: Attribute::encode_list(&attributes),
            }
        })
    }
}

/// The SA payload of message 1.
pub(crate) fn offer(wanted: &Wanted<'_>, spi: u32) -> Option<SecurityAssociation> {
    let spi = spi.to_be_bytes().to_vec();
    let ours: Vec<_> = wanted.transforms().filter_map(|t| Some((t, transform_id(t)?))).collect();
    let proposal = |number: u8, run: &[(&EspTransform, u8)]| {
        let transforms = run.iter().zip(1..=u8::MAX);
        let transforms =
            transforms.map(|((t, id), number)| Transform { number, id: *id, attributes: attributes(wanted, t) });
        let protocol = run.first()?.0.protocol.into();
        Some(Proposal { number, protocol, spi: spi.clone(), transforms: transforms.collect() })
    };
    let proposals: Vec<_> = ours
        .chunk_by(|(a, _), (b, _)| a.protocol == b.protocol && a.ah.is_none() && b.ah.is_none())
        .zip(1..=u8::MAX)
        .flat_map(|(run, number)| {
            // RFC 2408 4.2: what has one number is to be used together.
            let outside = run.first().and_then(|(bundle, _)| bundle.outside());
            let ah = outside.and_then(|ah| proposal(number, &[(&ah, transform_id(&ah)?)]));
            ah.into_iter().chain(proposal(number, run))
        })
        .collect();
    (!proposals.is_empty()).then_some(SecurityAssociation { proposals })
}

fn transform_id(transform: &EspTransform) -> Option<u8> {
    match transform.protocol {
        SaProtocol::Esp => transform.suite.encryption.ikev1_esp,
        SaProtocol::Ah => transform.suite.integrity.map(|i| i.ikev1_ah),
    }
}

fn attributes(wanted: &Wanted<'_>, transform: &EspTransform) -> Vec<Attribute> {
    let encryption = transform.suite.encryption;
    let mut out = Vec::new();
    if encryption.key_length_attribute {
        out.push(Attribute::basic(class::KEY_LENGTH, encryption.key_bits));
    }
    if let Some(integrity) = transform.suite.integrity {
        out.push(Attribute::basic(class::AUTHENTICATION, integrity.ikev1_auth));
    }
    out.push(Attribute::basic(class::ENCAPSULATION, wanted.mode));
    if let Some(group) = wanted.pfs(transform) {
        out.push(Attribute::basic(class::GROUP, group.number));
    }
    if transform.esn {
        out.push(Attribute::basic(class::EXTENDED_SEQUENCE, EXTENDED));
    }
    write_lifetime(&mut out, transform.lifetime, class::LIFE_TYPE, class::LIFE_DURATION);
    out
}

/// Chooses among a peer's proposals: its order, the first that the tunnel
/// accepts. Proposals that belong together otherwise than AH with ESP (compression) are
/// passed over.
pub(crate) fn choose(wanted: &Wanted<'_>, offered: &SecurityAssociation) -> Result<Agreed, Mismatch> {
    for combined in candidates(offered) {
        let Some(spi) = spi_of(combined.main.proposal) else { continue };
        let outer_spi = combined.ah.map(|ah| spi_of(ah.proposal));
        let Some(accepted) = wanted.transforms().find(|t| combined.differences(wanted, t).is_empty()) else {
            continue;
        };
        let ah = match (accepted.ah, outer_spi) {
            (Some(_), Some(None)) => continue,
            (Some(integrity), Some(Some(spi))) => Some((integrity, spi)),
            _ => None,
        };
        let agree = |offer: Offer<'_>| offer.read().lifetime.agree(accepted.lifetime, wanted.short);
        let (Ok(lifetime), Ok(outer)) = (agree(combined.main), combined.ah.map(agree).transpose()) else { continue };
        let lifetime = outer.map_or(lifetime, |outer| shorter_lifetime(lifetime, outer));
        return Ok(Agreed {
            protocol: accepted.protocol,
            suite: accepted.suite,
            pfs: wanted.pfs(accepted),
            esn: accepted.esn,
            lifetime,
            spi,
            ah,
            shortened: combined.main.read().lifetime.stated() != lifetime,
            answer: combined.answer(),
        });
    }
    Err(mismatch(wanted, offered, "offered"))
}

/// Checks the peer's answer: one transform, of those that we offered; of a bundle one each.
pub(crate) fn verify(wanted: &Wanted<'_>, answer: &SecurityAssociation) -> Result<Agreed, Mismatch> {
    let number = answer.proposals.first().map(|p| p.number);
    if answer.proposals.iter().any(|p| p.transforms.len() != 1 || Some(p.number) != number) {
        return Err(mismatch(wanted, answer, "answered with more than one:"));
    }
    choose(wanted, answer).map_err(|m| Mismatch { verb: "answered", ..m })
}

/// The lifetime in the data of a RESPONDER-LIFETIME notification.
pub(crate) fn notified_lifetime(notification: &Notification) -> OfferedLifetime {
    let attributes = Attribute::decode_list(&notification.data).unwrap_or_default();
    OfferedLifetime::read(&attributes, class::LIFE_TYPE, class::LIFE_DURATION)
}

/// One transform of a proposal.
#[derive(Clone, Copy)]
struct Offer<'a> {
    proposal: &'a Proposal,
    transform: &'a Transform,
}

impl<'a> Offer<'a> {
    fn all(proposal: &'a Proposal) -> impl Iterator<Item = Self> + Clone {
        proposal.transforms.iter().map(move |transform| Self { proposal, transform })
    }

    fn read(self) -> Offered {
        Offered::read(self.proposal.protocol, self.transform)
    }
}

/// A transform that a peer offers, and the AH around it if both are to be used together.
#[derive(Clone, Copy)]
struct Combined<'a> {
    ah: Option<Offer<'a>>,
    main: Offer<'a>,
}

impl Combined<'_> {
    /// Fields in which it differs from a transform of ours; none if it is acceptable.
    fn differences(&self, wanted: &Wanted<'_>, ours: &EspTransform) -> Vec<Field> {
        let mut out = match (self.ah, ours.outside()) {
            (None, None) => Vec::new(),
            (Some(ah), Some(outside)) => ah.read().differences(wanted, &outside),
            (ah, outside) => {
                let name = |bundle| if bundle { "AH with ESP inside" } else { "one protocol" };
                vec![Field::new("bundle", name(outside.is_some()), name(ah.is_some()))]
            }
        };
        out.extend(self.main.read().differences(wanted, &ours.inside()));
        out
    }

    /// `ah-sha1+aes128-sha1`.
    fn describe(&self) -> String {
        let main = self.main.read().describe();
        self.ah.map_or(main.clone(), |ah| format!("{}+{main}", ah.read().encryption_name()))
    }

    /// What of the peer's proposals it is, in their order: AH is offered first.
    fn answer(&self) -> Vec<Proposal> {
        let only = |offer: Offer<'_>| Proposal { transforms: vec![offer.transform.clone()], ..offer.proposal.clone() };
        self.ah.into_iter().chain([self.main]).map(only).collect()
    }
}

/// What a peer's proposals of ESP, of AH and of both together say, in their order.
fn candidates(offered: &SecurityAssociation) -> impl Iterator<Item = Combined<'_>> {
    let proposals = &offered.proposals;
    let first = |at: usize| proposals[..at].iter().all(|p| p.number != proposals[at].number);
    (0..proposals.len())
        .filter(move |at| first(*at))
        .flat_map(|at| {
            let together: Vec<_> = proposals.iter().filter(|p| p.number == proposals[at].number).collect();
            let of = |protocol| together.iter().copied().find(|p| p.protocol == protocol);
            let (ah, esp) = (of(ProtocolId::AH), of(ProtocolId::ESP));
            let (ah, main) = match together.len() {
                1 => (None, esp.or(ah)),
                2 if ah.is_some() => (ah, esp),
                _ => (None, None),
            };
            let outside: Vec<_> = match ah {
                None => vec![None],
                Some(ah) => Offer::all(ah).map(Some).collect(),
            };
            let inside = main.into_iter().flat_map(Offer::all);
            outside.into_iter().flat_map(move |ah| inside.clone().map(move |main| Combined { ah, main }))
        })
        .take(MOST_COMBINATIONS)
}

/// The SPI of a proposal; 1 to 255 are reserved (RFC 4303 2.1, RFC 4302 2.4).
fn spi_of(proposal: &Proposal) -> Option<u32> {
    let spi = u32::from_be_bytes(proposal.spi.as_slice().try_into().ok()?);
    (spi > 255).then_some(spi)
}

fn mismatch(wanted: &Wanted<'_>, offered: &SecurityAssociation, verb: &'static str) -> Mismatch {
    let closest = candidates(offered)
        .flat_map(|o| wanted.transforms().map(move |t| o.differences(wanted, t)))
        .min_by_key(Vec::len)
        .unwrap_or_default();
    let mut theirs: Vec<_> = candidates(offered).map(|o| o.describe()).collect();
    if theirs.is_empty() {
        theirs = offered
            .proposals
            .iter()
            .map(|p| format!("{} of {} octets of SPI (proposal {})", p.protocol, p.spi.len(), p.number))
            .collect();
    }
    theirs.dedup();
    Mismatch { ours: wanted.describe(), theirs, fields: closest, verb }
}

/// A transform as a peer offers it, whether known here or not.
struct Offered {
    protocol: ProtocolId,
    id: u8,
    key_length: Option<u16>,
    authentication: Option<u16>,
    mode: Option<u16>,
    group: Option<u16>,
    /// The attribute of RFC 4304; without it sequence numbers have 32 bits.
    extended_sequence: Option<u16>,
    lifetime: OfferedLifetime,
    /// The first attribute that is not known here: the transform must be refused (RFC 2407 4.5).
    unknown: Option<u16>,
    /// The first attribute that is there twice with different values: refused too (RFC 2407 4.5.2).
    twice: Option<u16>,
}

impl Offered {
    fn read(protocol: ProtocolId, transform: &Transform) -> Self {
        let a = &transform.attributes;
        let known = [
            class::LIFE_TYPE,
            class::LIFE_DURATION,
            class::GROUP,
            class::ENCAPSULATION,
            class::AUTHENTICATION,
            class::KEY_LENGTH,
            class::EXTENDED_SEQUENCE,
        ];
        Self {
            protocol,
            id: transform.id,
            key_length: narrow(attribute(a, class::KEY_LENGTH)),
            authentication: narrow(attribute(a, class::AUTHENTICATION)),
            mode: narrow(attribute(a, class::ENCAPSULATION)),
            group: narrow(attribute(a, class::GROUP)),
            extended_sequence: attribute(a, class::EXTENDED_SEQUENCE).map(|v| u16::try_from(v).unwrap_or(u16::MAX)),
            lifetime: OfferedLifetime::read(a, class::LIFE_TYPE, class::LIFE_DURATION),
            unknown: a.iter().map(|a| a.kind).find(|kind| !known.contains(kind)),
            twice: contradiction(a, [class::LIFE_TYPE, class::LIFE_DURATION]),
        }
    }

    /// Fields in which it differs from a transform of ours; none if it is acceptable.
    fn differences(&self, wanted: &Wanted<'_>, transform: &EspTransform) -> Vec<Field> {
        let mut out = Vec::new();
        let (encryption, integrity) = (transform.suite.encryption, transform.suite.integrity);
        let ours = ProtocolId::from(transform.protocol);
        if self.protocol != ours {
            out.push(Field::new("protocol", ours, self.protocol));
        } else {
            let bits = match transform.protocol {
                SaProtocol::Esp => encryption.key_length_attribute.then_some(encryption.key_bits),
                SaProtocol::Ah => None,
            };
            if transform_id(transform) != Some(self.id) || self.key_length != bits {
                let ours = policy::transform::name(transform.protocol, transform.suite, None);
                let ours = if transform.protocol == SaProtocol::Esp { encryption.keyword } else { &ours };
                out.push(Field::new("encryption", ours, self.encryption_name()));
            }
        }
        if self.authentication != integrity.map(|i| i.ikev1_auth) {
            let ours = integrity.map_or("none", |i| i.keyword);
            out.push(Field::new("authentication", ours, self.authentication_name()));
        }
        let pfs = wanted.pfs(transform);
        if self.group != pfs.map(|g| g.number) {
            out.push(Field::new("PFS group", pfs.map_or("none", |g| g.keyword), self.group_name()));
        }
        if self.mode != Some(wanted.mode) {
            let theirs = self.mode.map_or("none".into(), encapsulation_mode::name);
            out.push(Field::new(ENCAPSULATION, encapsulation_mode::name(wanted.mode), theirs));
        }
        if let Err(theirs) = self.lifetime.agree(transform.lifetime, wanted.short) {
            out.push(Field::new("lifetime", described(transform.lifetime), theirs));
        }
        if self.extended_sequence != transform.esn.then_some(EXTENDED) {
            let ours = if transform.esn { "64 bits" } else { "32 bits" };
            let theirs = match self.extended_sequence {
                None => "32 bits".into(),
                Some(EXTENDED) => "64 bits".into(),
                Some(other) => format!("value {other}"),
            };
            out.push(Field::new("sequence numbers", ours, theirs));
        }
        if let Some(kind) = self.unknown {
            out.push(Field::new("attribute", "none such", kind));
        }
        if let Some(kind) = self.twice {
            out.push(Field::new("attribute", "one value", format!("two of class {kind}")));
        }
        out
    }

    /// `aes128-sha1-modp2048`.
    fn describe(&self) -> String {
        let mut out = self.encryption_name();
        if self.authentication.is_some() && self.protocol != ProtocolId::AH {
            out = format!("{out}-{}", self.authentication_name());
        }
        if self.group.is_some() {
            out = format!("{out}-{}", self.group_name());
        }
        if self.extended_sequence == Some(EXTENDED) {
            out.push_str("-esn");
        }
        out
    }

    fn encryption_name(&self) -> String {
        if self.protocol == ProtocolId::AH {
            return match Integrity::from_ikev1_ah(self.id) {
                Some(row) => format!("ah-{row}"),
                None => format!("AH transform {}", self.id),
            };
        }
        match (Encryption::from_ikev1_esp(self.id, self.key_length), self.key_length) {
            (Some(row), _) => row.keyword.into(),
            (None, Some(bits)) => format!("ESP transform {} of {bits} bits", self.id),
            (None, None) => format!("ESP transform {} without key length", self.id),
        }
    }

    fn authentication_name(&self) -> String {
        self.authentication.map_or("none".into(), |id| {
            Integrity::from_ikev1_auth(id).map_or_else(|| format!("authentication {id}"), |row| row.keyword.into())
        })
    }

    fn group_name(&self) -> String {
        self.group.map_or("none".into(), |id| {
            Group::from_number(id).map_or_else(|| format!("group {id}"), |row| row.keyword.into())
        })
    }
}
