//! Proposals of main mode: one proposal with a transform per suite (RFC 2409 5).

use super::{Field, Mismatch, OfferedLifetime, attribute, contradiction, described, narrow, write_lifetime};
use crate::failure::Role;
use crate::wire::numbers::{KEY_IKE, ProtocolId, authentication_method, phase1_attribute as class};
use crate::wire::{Attribute, Proposal, SecurityAssociation, Transform};
use crypto::IkeSuite;
use crypto::table::{Encryption, Group, Hash, Signature};
use policy::config::{AuthMethod, IkePolicy};
use policy::sa::Lifetime;

/// What both sides agree on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) suite: IkeSuite,
    pub(crate) method: AuthMethod,
    /// Whose user is asked after phase 1.
    pub(crate) asked: Asked,
    pub(crate) lifetime: Lifetime,
    /// The responder's answer: the one transform it chose, as it was offered.
    pub(crate) answer: SecurityAssociation,
    /// Our lifetime is shorter than the one that was offered: the initiator is to be told.
    pub(crate) shortened: bool,
}

impl Agreed {
    /// How this side proves who it is, if by a signature.
    pub(crate) fn signs(&self, side: Role) -> Option<&'static Signature> {
        match (self.method, self.asked, side) {
            // Whose user is asked sends a hash that everybody can compute (hybrid-auth-05 3.2).
            (AuthMethod::Hybrid, Asked::Initiator, Role::Initiator) => None,
            (AuthMethod::Hybrid, Asked::Responder, Role::Responder) => None,
            (method, ..) => method.signature(),
        }
    }
}

/// RESPONDER-LIFETIME for an ISAKMP SA (RFC 2407 4.6.3.1): what it is to hold in its data.
pub(crate) fn responder_lifetime(lifetime: Lifetime) -> Vec<u8> {
    let mut attributes = Vec::new();
    write_lifetime(&mut attributes, lifetime, class::LIFE_TYPE, class::LIFE_DURATION);
    Attribute::encode_list(&attributes)
}

/// What we may agree to: the suites of a policy, each with any of these methods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptable<'a> {
    pub(crate) policy: &'a IkePolicy,
    pub(crate) methods: &'a [AuthMethod],
    /// Lifetimes of less than a minute too.
    pub(crate) short_lifetimes: bool,
    /// Whose user is asked who he is, which the method's number says.
    pub(crate) asked: Asked,
}

/// Whose user XAUTH asks (draft-ietf-ipsec-isakmp-xauth-06 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nobody's.
    Nobody,
    /// The phase 1 initiator's.
    Initiator,
    /// The phase 1 responder's.
    Responder,
}

/// The value of the Authentication Method attribute.
fn number(method: AuthMethod, asked: Asked) -> u16 {
    match (method, asked) {
        (AuthMethod::PreSharedKey, Asked::Initiator) => authentication_method::XAUTH_INIT_PRE_SHARED_KEY,
        (AuthMethod::PreSharedKey, Asked::Responder) => authentication_method::XAUTH_RESP_PRE_SHARED_KEY,
        // The configuration takes no other signatures with it.
        (AuthMethod::Signature(_), Asked::Initiator) => authentication_method::XAUTH_INIT_RSA,
        (AuthMethod::Signature(_), Asked::Responder) => authentication_method::XAUTH_RESP_RSA,
        (AuthMethod::Hybrid, Asked::Initiator) => authentication_method::HYBRID_INIT_RSA,
        (AuthMethod::Hybrid, Asked::Responder) => authentication_method::HYBRID_RESP_RSA,
        (method, Asked::Nobody) => method.ikev1(),
    }
}

/// The SA payload of message 1, the methods in order and with each the suites; `None` if no suite of the
/// policy exists in IKEv1.
pub(crate) fn offer(policy: &IkePolicy, methods: &[AuthMethod], asked: Asked) -> Option<SecurityAssociation> {
    let transforms: Vec<_> = methods
        .iter()
        .flat_map(|method| {
            policy.proposals.iter().filter_map(|suite| attributes(suite, number(*method, asked), policy))
        })
        .zip(1..=u8::MAX)
        .map(|(attributes, number)| Transform { number, id: KEY_IKE, attributes })
        .collect();
    (!transforms.is_empty()).then(|| SecurityAssociation {
        proposals: vec![Proposal { number: 1, protocol: ProtocolId::ISAKMP, spi: Vec::new(), transforms }],
    })
}

fn attributes(suite: &IkeSuite, method: u16, policy: &IkePolicy) -> Option<Vec<Attribute>> {
    let encryption = suite.encryption;
    let mut out = vec![Attribute::basic(class::ENCRYPTION, encryption.ikev1_phase1?)];
    if encryption.key_length_attribute {
        out.push(Attribute::basic(class::KEY_LENGTH, encryption.key_bits));
    }
    out.push(Attribute::basic(class::HASH, suite.hash.ikev1));
    out.push(Attribute::basic(class::AUTHENTICATION, method));
    out.push(Attribute::basic(class::GROUP, suite.group.number));
    write_lifetime(&mut out, policy.lifetime, class::LIFE_TYPE, class::LIFE_DURATION);
    Some(out)
}

/// Transforms of a peer that are looked at: more than anybody offers, and few
/// enough that a message 1 cannot keep us busy.
const MOST_TRANSFORMS: usize = 128;

/// The groups that a peer offers, each once.
pub(crate) fn groups(offered: &SecurityAssociation) -> Vec<String> {
    let isakmp = offered.proposals.iter().filter(|p| p.protocol == ProtocolId::ISAKMP);
    let mut groups = Vec::new();
    for transform in isakmp.flat_map(|p| &p.transforms).take(MOST_TRANSFORMS) {
        let name = Offered::read(transform).group_name();
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    groups
}

/// Chooses among a peer's proposals: its order, the first that is acceptable.
pub(crate) fn choose(ours: Acceptable<'_>, offered: &SecurityAssociation) -> Result<Agreed, Mismatch> {
    let proposals = offered.proposals.iter().filter(|p| p.protocol == ProtocolId::ISAKMP);
    let transforms = proposals.flat_map(|p| p.transforms.iter().map(move |t| (p, t)));
    for (proposal, transform) in transforms.take(MOST_TRANSFORMS) {
        let read = Offered::read(transform);
        let accepted = ours.each().find(|(suite, method)| read.differences(suite, *method, ours).is_empty());
        let lifetime = read.lifetime.agree(ours.policy.lifetime, ours.short_lifetimes);
        if let (Some((&suite, method)), Ok(lifetime)) = (accepted, lifetime) {
            let answer = SecurityAssociation {
                proposals: vec![Proposal {
                    number: proposal.number,
                    protocol: proposal.protocol,
                    spi: Vec::new(),
                    transforms: vec![transform.clone()],
                }],
            };
            let shortened = read.lifetime.stated() != lifetime;
            return Ok(Agreed { suite, method, asked: ours.asked, lifetime, answer, shortened });
        }
    }
    Err(mismatch(ours, offered, "offered"))
}

/// Checks the peer's answer: one transform, of those that we offer.
pub(crate) fn verify(ours: Acceptable<'_>, answer: &SecurityAssociation) -> Result<Agreed, Mismatch> {
    let single = matches!(answer.proposals.as_slice(), [p] if p.transforms.len() == 1);
    if !single {
        return Err(mismatch(ours, answer, "answered with more than one:"));
    }
    choose(ours, answer).map_err(|m| Mismatch { verb: "answered", ..m })
}

impl<'a> Acceptable<'a> {
    /// Every suite with every method, as they are offered.
    fn each(self) -> impl Iterator<Item = (&'a IkeSuite, AuthMethod)> {
        self.methods.iter().flat_map(move |method| self.policy.proposals.iter().map(|suite| (suite, *method)))
    }
}

/// The suites of a policy that exist in IKEv1, for reports.
pub(crate) fn suites(policy: &IkePolicy) -> Vec<String> {
    policy.proposals.iter().map(IkeSuite::to_string).collect()
}

fn mismatch(ours: Acceptable<'_>, offered: &SecurityAssociation, verb: &'static str) -> Mismatch {
    let read: Vec<_> = offered
        .proposals
        .iter()
        .filter(|p| p.protocol == ProtocolId::ISAKMP)
        .flat_map(|p| p.transforms.iter().map(Offered::read))
        .take(MOST_TRANSFORMS)
        .collect();
    let closest = read
        .iter()
        .flat_map(|o| ours.each().map(|(suite, method)| o.differences(suite, method, ours)))
        .min_by_key(Vec::len)
        .unwrap_or_default();
    let mut theirs: Vec<_> = read.iter().map(|o| o.describe(ours)).collect();
    theirs.dedup();
    Mismatch { ours: suites(ours.policy), theirs, fields: closest, verb }
}

/// A transform as a peer offers it, whether known here or not.
struct Offered {
    encryption: Option<u16>,
    key_length: Option<u16>,
    hash: Option<u16>,
    authentication: Option<u16>,
    group: Option<u16>,
    lifetime: OfferedLifetime,
    /// The first attribute that is not known here: the transform must be refused (RFC 2409 appendix A).
    unknown: Option<u16>,
    /// The first attribute that is there twice with different values: refused too (RFC 2407 4.5.2).
    twice: Option<u16>,
    id: u8,
}

impl Offered {
    fn read(transform: &Transform) -> Self {
        let a = &transform.attributes;
        let known = [
            class::ENCRYPTION,
            class::HASH,
            class::AUTHENTICATION,
            class::GROUP,
            class::LIFE_TYPE,
            class::LIFE_DURATION,
            class::KEY_LENGTH,
        ];
        Self {
            encryption: narrow(attribute(a, class::ENCRYPTION)),
            key_length: narrow(attribute(a, class::KEY_LENGTH)),
            hash: narrow(attribute(a, class::HASH)),
            authentication: narrow(attribute(a, class::AUTHENTICATION)),
            // RFC 2409 4: group 1 where none is named.
            group: narrow(attribute(a, class::GROUP).or(Some(1))),
            lifetime: OfferedLifetime::read(a, class::LIFE_TYPE, class::LIFE_DURATION),
            unknown: a.iter().map(|a| a.kind).find(|kind| !known.contains(kind)),
            twice: contradiction(a, [class::LIFE_TYPE, class::LIFE_DURATION]),
            id: transform.id,
        }
    }

    /// Fields in which it differs from a suite of ours; none if it is acceptable.
    fn differences(&self, suite: &IkeSuite, method: AuthMethod, ours: Acceptable<'_>) -> Vec<Field> {
        let mut out = Vec::new();
        let bits = suite.encryption.key_length_attribute.then_some(suite.encryption.key_bits);
        if suite.encryption.ikev1_phase1.is_none()
            || self.encryption != suite.encryption.ikev1_phase1
            || self.key_length != bits
        {
            out.push(Field::new("encryption", suite.encryption, self.encryption_name()));
        }
        if self.hash != Some(suite.hash.ikev1) {
            out.push(Field::new("hash", suite.hash, self.hash_name()));
        }
        let method = number(method, ours.asked);
        if self.authentication != Some(method) {
            let theirs = self.authentication.map_or("none".into(), authentication_method::name);
            out.push(Field::new("authentication method", authentication_method::name(method), theirs));
        }
        if self.group != Some(suite.group.number) {
            out.push(Field::new("group", suite.group, self.group_name()));
        }
        if let Err(theirs) = self.lifetime.agree(ours.policy.lifetime, ours.short_lifetimes) {
            out.push(Field::new("lifetime", described(ours.policy.lifetime), theirs));
        }
        if let Some(kind) = self.unknown {
            out.push(Field::new("attribute", "none such", kind));
        }
        if let Some(kind) = self.twice {
            out.push(Field::new("attribute", "one value", format!("two of class {kind}")));
        }
        if self.id != KEY_IKE {
            out.push(Field::new("transform", "KEY_IKE", self.id));
        }
        out
    }

    /// `aes256-sha256-modp2048`, with whatever else matters.
    fn describe(&self, ours: Acceptable<'_>) -> String {
        let mut out = format!("{}-{}-{}", self.encryption_name(), self.hash_name(), self.group_name());
        if !ours.methods.iter().any(|method| self.authentication == Some(number(*method, ours.asked))) {
            out.push_str(" with ");
            out.push_str(&self.authentication.map_or("no authentication".into(), authentication_method::name));
        }
        if let Err(theirs) = self.lifetime.agree(ours.policy.lifetime, ours.short_lifetimes) {
            out.push_str(&format!(" for {theirs}"));
        }
        out
    }

    fn encryption_name(&self) -> String {
        match (self.encryption, self.key_length) {
            (None, _) => "none".into(),
            (Some(id), bits) => match (Encryption::from_ikev1_phase1(id, bits), bits) {
                (Some(row), _) => row.keyword.into(),
                (None, Some(bits)) => format!("encryption {id} of {bits} bits"),
                (None, None) => format!("encryption {id} without key length"),
            },
        }
    }

    fn hash_name(&self) -> String {
        self.hash.map_or("none".into(), |id| {
            Hash::from_ikev1(id).map_or_else(|| format!("hash {id}"), |row| row.keyword.into())
        })
    }

    fn group_name(&self) -> String {
        self.group.map_or("none".into(), |id| {
            Group::from_number(id).map_or_else(|| format!("group {id}"), |row| row.keyword.into())
        })
    }
}
