//! The one place that says who a peer is.

use super::Setup;
use crate::failure::{Failure, Fault, Kind};
use crate::ids;
use crate::wire::Identification;
use crypto::Secret;
use policy::config::Identity;

/// A peer whose hash was right under the pre-shared key and whose identity is
/// the one that our authentication record asks for. Only [`authenticate`] makes it.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    identity: Identity,
}

impl Authenticated {
    /// Who the peer is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
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
    expected: &Secret,
    hash: &[u8],
    id: &Identification,
) -> Result<Authenticated, Refused> {
    let record = &setup.auth;
    if !crypto::secret::equal(expected.expose(), hash) {
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
    let wanted = record.remote_id.clone().unwrap_or(Identity::Address(setup.remote.ip()));
    let refused = |given: &str| {
        Refused::Identity(Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("identity: we expect {wanted}; the peer is {given}"),
            format!("set `rid` of auth record `{}` (line {}), or the peer's own identity", record.name, record.line),
        ))
    };
    if !matches!((id.protocol, id.port), (0, 0) | (17, 0 | 500 | 4500)) {
        return Err(refused(&format!("an identity for protocol {} port {} (RFC 2407 4.6.2)", id.protocol, id.port)));
    }
    match ids::phase1_identity(id) {
        Ok(identity) if ids::same(&identity, &wanted) => Ok(Authenticated { identity }),
        Ok(identity) => Err(refused(&identity.to_string())),
        Err(what) => Err(refused(&what)),
    }
}
