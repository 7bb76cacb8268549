//! The one place that says who a peer is.

use super::Setup;
use crate::failure::{Failure, Fault, Kind};
use crate::ids;
use crate::wire::Identification;
use crypto::Secret;
use policy::config::{AuthMethod, Identity};
use policy::trust::{CertificateName, Trusted};

/// A peer whose hash was right under the pre-shared key and whose identity is
/// the one that our authentication record asks for, or whose certificate and
/// signature were found good; or the client of hybrid authentication, of which no more is known than that
/// it is there: everything but its user waits (`IsakmpSa::awaits_proof`). Only [`authenticate`] and [`Authenticated::trusted`] make it.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    identity: Identity,
    certificate: Option<CertificateName>,
}

impl Authenticated {
    /// Who the peer is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate that it proved that with.
    pub(crate) fn certificate(&self) -> Option<&CertificateName> {
        self.certificate.as_ref()
    }

    /// A peer that the judge of certificates believes.
    pub(super) fn trusted(trusted: &Trusted) -> Self {
        Self { identity: trusted.identity.clone(), certificate: Some(trusted.certificate.clone()) }
    }
}

/// Why a peer is not authenticated.
pub(crate) enum Refused {
    /// The hash is wrong: anybody could have sent it.
    Hash(Failure),
    /// The hash is right, but the peer is not who it must be.
    Identity(Failure),
}

/// Checks the peer's hash (HASH_I or HASH_R, RFC 2409 5) and its identity.
pub(crate) fn authenticate(
    setup: &Setup,
    method: AuthMethod,
    expected: &Secret,
    hash: &[u8],
    id: &Identification,
) -> Result<Authenticated, Refused> {
    let record = &setup.auth;
    if !crypto::secret::equal(expected.expose(), hash) {
        if method != AuthMethod::PreSharedKey {
            return Err(Refused::Hash(Failure::new(
                Kind::Other,
                Fault::Peer,
                "the peer's hash is wrong: it saw other messages than we",
                "look at the peer's implementation, or for somebody in between",
            )));
        }
        return Err(Refused::Hash(Failure::new(
            Kind::Other,
            Fault::Mismatch,
            "the peer's hash is wrong: it does not hold our pre-shared key, or saw other messages than we",
            format!(
                "compare the pre-shared key of auth record `{}` (line {}) with the peer's",
                record.name, record.line
            ),
        )));
    }
    let wanted = setup.expected_identity();
    let refused = |given: &str| {
        Refused::Identity(Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("identity: we expect {wanted}; the peer is {given}"),
            format!("set `rid` of auth record `{}` (line {}), or the peer's own identity", record.name, record.line),
        ))
    };
    if let Err(what) = acceptable_port(id) {
        return Err(refused(&what));
    }
    match ids::phase1_identity(id) {
        Ok(identity) if wanted.matches(&identity) => Ok(Authenticated { identity, certificate: None }),
        Ok(identity) => Err(refused(&identity.to_string())),
        Err(what) => Err(refused(&what)),
    }
}

/// Which protocol and port an ID payload of phase 1 may name (RFC 2407 4.6.2).
///
/// # Errors
/// What it names instead.
pub(super) fn acceptable_port(id: &Identification) -> Result<(), String> {
    match (id.protocol, id.port) {
        (0, 0) | (17, 0 | 500 | 4500) => Ok(()),
        (protocol, port) => Err(format!("an identity for protocol {protocol} port {port} (RFC 2407 4.6.2)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::numbers::IdKind;

    #[test]
    fn an_identity_is_of_no_port_or_of_ikes() {
        let acceptable = |protocol, port| {
            acceptable_port(&Identification { kind: IdKind::FQDN, protocol, port, data: b"a.example".to_vec() }).is_ok()
        };
        for (protocol, port) in [(0, 0), (17, 500), (17, 0), (17, 4500)] {
            assert!(acceptable(protocol, port), "{protocol} {port}");
        }
        for (protocol, port) in [(0, 500), (6, 500), (6, 0), (17, 501), (17, 1), (1, 0), (255, 65535)] {
            assert!(!acceptable(protocol, port), "{protocol} {port}");
        }
    }
}
