//! Authentication with signatures (RFC 2409 5.1): what is asked of whoever holds
//! keys and judges certificates, and what comes of the answers.

use super::authenticated::acceptable_port;
use super::{Exchanged, Setup, Step, Stop, refuse};
use crate::failure::{Failure, Fault, Kind, Role};
use crate::ids;
use crate::protection::Iv;
use crate::wire::numbers::{NotifyKind, X509_SIGNATURE};
use crate::wire::{Identification, Payload, Payloads};
use crypto::table::Signature;
use crypto::{Entropy, Secret};
use policy::config::IdentityPattern;
use policy::trust::{Claim, Distrust, Refusal, Trusted};

/// Octets of the longest explanation that a peer is given.
const MOST_WORDS: usize = 400;

/// What a negotiation needs from outside before it goes on.
pub(crate) enum Want {
    /// The pre-shared key.
    Secret,
    /// Our signature over a hash.
    Signature { method: &'static Signature, hash: Secret },
    /// The verdict on a peer.
    Verdict(Box<Testimony>),
}

/// What a peer says to prove who it is.
pub(crate) struct Testimony {
    pub(crate) method: &'static Signature,
    pub(crate) hash: Secret,
    pub(crate) signature: Vec<u8>,
    pub(crate) claim: Claim,
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) expected: IdentityPattern,
}

/// Our signature, with the certificates that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// DER, ours first.
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) signature: Vec<u8>,
}

/// The verdict on a peer.
pub(crate) type Judgement = Result<Trusted, Refusal>;

/// Which of two sides a hash is of.
pub(super) enum Of {
    Initiator,
    Responder,
}

impl Of {
    fn role(&self) -> Role {
        match self {
            Self::Initiator => Role::Initiator,
            Self::Responder => Role::Responder,
        }
    }
}

impl Exchanged {
    /// How a side proves who it is, if by a signature.
    pub(super) fn signs(&self, of: &Of) -> Option<&'static Signature> {
        self.agreed.signs(of.role())
    }

    /// HASH_I or HASH_R for the identity in `id`.
    pub(super) fn hash(&self, of: &Of, id: &Identification) -> Secret {
        let (method, offer) = (self.agreed.method, self.offer.body());
        match of {
            Of::Initiator => self.keys.hash_i(method, &self.said, &offer, &id.body()),
            Of::Responder => self.keys.hash_r(method, &self.said, &offer, &id.body()),
        }
    }

    /// What the peer says in a message with its identity.
    ///
    /// # Errors
    /// What makes it not worth judging.
    pub(super) fn testimony(
        &self,
        setup: &Setup,
        method: &'static Signature,
        of: &Of,
        payloads: Payloads<'_>,
    ) -> Result<Testimony, Refusal> {
        self.testimony_of(setup, method, of, payloads.ids().next(), payloads)
    }

    /// What a peer says that may have told its identity before.
    ///
    /// # Errors
    /// What makes it not worth judging.
    pub(super) fn testimony_of(
        &self,
        setup: &Setup,
        method: &'static Signature,
        of: &Of,
        id: Option<&Identification>,
        payloads: Payloads<'_>,
    ) -> Result<Testimony, Refusal> {
        let malformed = |detail: String| Refusal {
            distrust: Distrust::IdentityNotCertified,
            certificate: None,
            detail,
            remedy: "look at the peer's implementation".to_owned(),
        };
        let (Some(id), Some(signature)) = (id, payloads.signature()) else {
            return Err(malformed("the peer sent no identity or no signature".to_owned()));
        };
        acceptable_port(id).map_err(malformed)?;
        let claim = ids::phase1_claim(id).map_err(malformed)?;
        Ok(Testimony {
            method,
            hash: self.hash(of, id),
            signature: signature.to_vec(),
            claim,
            certificates: payloads.certificates().map(<[u8]>::to_vec).collect(),
            expected: setup.expected_identity(),
        })
    }

    /// Refuses the peer, and tells it why.
    pub(super) fn distrust(
        &self,
        setup: &Setup,
        refusal: &Refusal,
        last_block: &Iv,
        entropy: &mut dyn Entropy,
    ) -> Box<Stop> {
        let told = (notification(refusal.distrust), words(refusal));
        refuse(setup, Failure::distrusted(refusal), told, &self.keys, last_block, entropy)
    }
}

/// The question for our signature, where we sign.
pub(super) fn want_signature(exchanged: &Exchanged, of: &Of, id: &Identification) -> Option<Want> {
    exchanged.signs(of).map(|method| Want::Signature { method, hash: exchanged.hash(of, id) })
}

/// ID and HASH (RFC 2409 5.4, hybrid-auth-05 3.2.1).
pub(super) fn hash_payloads(exchanged: &Exchanged, of: &Of, id: Identification) -> Vec<Payload> {
    let hash = exchanged.hash(of, &id);
    vec![Payload::Identification(id), Payload::Hash(hash.expose().to_vec())]
}

/// ID, CERT and SIG (RFC 2409 5.1).
pub(super) fn payloads(id: Identification, signed: Signed) -> Vec<Payload> {
    [vec![Payload::Identification(id)], without_identity(signed)].concat()
}

/// CERT and SIG.
pub(super) fn without_identity(signed: Signed) -> Vec<Payload> {
    let certificate = |data| Payload::Certificate { encoding: X509_SIGNATURE, data };
    let certificates = signed.certificates.into_iter().map(certificate);
    certificates.chain([Payload::Signature(signed.signature)]).collect()
}

/// A step that waits for the verdict.
pub(super) fn judge(next: super::MainMode, testimony: Testimony) -> Step {
    Step { wants: Some(Want::Verdict(Box::new(testimony))), ..Step::silent(next) }
}

/// The failure of a negotiation for which we have no signature.
pub(super) fn cannot_sign(setup: &Setup, reason: &str) -> Failure {
    let auth = &setup.auth;
    Failure::new(
        Kind::Other,
        Fault::Ours,
        format!("unable to sign for auth record `{}` (line {}): {reason}", auth.name, auth.line),
        "look at its `certificate`, `key` and `method` with ipsec_config check",
    )
}

/// The notification that says what is wrong (RFC 2408 3.14.1).
fn notification(distrust: Distrust) -> NotifyKind {
    match distrust {
        Distrust::NoCertificate => NotifyKind::CERTIFICATE_UNAVAILABLE,
        Distrust::Malformed => NotifyKind::INVALID_CERT_ENCODING,
        Distrust::Expired
        | Distrust::NotYetValid
        | Distrust::Revoked
        | Distrust::RevocationUnknown
        | Distrust::WrongUsage
        | Distrust::BrokenChain => NotifyKind::INVALID_CERTIFICATE,
        Distrust::UnknownAuthority => NotifyKind::INVALID_CERT_AUTHORITY,
        Distrust::WrongAlgorithm => NotifyKind::CERT_TYPE_UNSUPPORTED,
        Distrust::BadSignature => NotifyKind::INVALID_SIGNATURE,
        Distrust::IdentityNotCertified | Distrust::WrongIdentity => NotifyKind::INVALID_ID_INFORMATION,
        Distrust::NotJudged => NotifyKind::AUTHENTICATION_FAILED,
    }
}

/// The same in words, for the peer's log: what it could know itself, and not what we expect.
fn words(refusal: &Refusal) -> String {
    let mut words = refusal.distrust.to_string();
    match refusal.distrust {
        Distrust::WrongIdentity | Distrust::NotJudged | Distrust::UnknownAuthority => {
            if let Some(certificate) = &refusal.certificate {
                words.push_str(&format!(": {certificate}"));
            }
        }
        _ => words.push_str(&format!(": {}", refusal.explanation())),
    }
    while words.len() > MOST_WORDS {
        words.pop();
    }
    words
}
