//! `[[pool]]`: addresses for clients, and what they are told with them.

use super::address::{self, NETWORK};
use super::auth::one_path;
use super::model::Pool;
use super::object::Object;
use super::source::{Located, Span};
use crate::selector::AddressRange;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where leases are kept unless the pool says it.
const LEASES: &str = "/var/lib/caponier";
/// Seconds of a lease unless the pool says it: a day.
const LEASE: u32 = 86_400;
/// Most addresses of a pool, less one: each may have a tunnel.
const MOST: u32 = 65_535;
/// Most DNS servers, and most split networks: what fits a message, and anybody's need.
const MOST_TOLD: usize = 16;

/// A pool as read.
pub(super) struct PoolEntry {
    pub(super) label: String,
    pub(super) name: Option<Located<String>>,
    pub(super) header: Span,
    /// `None`: wrong, and reported.
    pub(super) pool: Option<Arc<Pool>>,
}

/// Reads one pool.
pub(super) fn read(mut object: Object<'_, '_, '_>) -> PoolEntry {
    let name = object.name();
    if !object.has("addresses") {
        object.missing("`addresses` is missing; expected the network of the clients' addresses");
    }
    let addresses = object.string("addresses", NETWORK).and_then(|text| network(&mut object, "addresses", text));
    let addresses = addresses.filter(|range| {
        let few = match (range.first(), range.last()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => b.to_bits() - a.to_bits() <= MOST,
            (IpAddr::V6(a), IpAddr::V6(b)) => b.to_bits() - a.to_bits() <= MOST.into(),
            _ => false,
        };
        if !few {
            let at = object.key_span("addresses");
            object
                .error(at, format!("`addresses` has more than {} addresses", MOST + 1))
                .suggest("take a smaller network");
        }
        few
    });
    let dns = list(&mut object, "dns", "addresses of DNS servers", |object, text| match address::single(text.value) {
        Ok(address) => Some(address),
        Err(refused) => {
            object.error(text.at, format!("`dns`: {}", refused.message)).suggest_if(refused.suggestion);
            None
        }
    });
    let split = list(&mut object, "split", NETWORK, |object, text| {
        let at = text.at;
        let range = network(object, "split", text)?;
        if range.prefix_len().is_none() {
            object.error(at, "`split`: a range cannot be told; expected networks").suggest("write its prefixes");
            return None;
        }
        Some(range)
    });
    let banner = match object.has("banner") {
        true => object.string("banner", "text").map(|text| Some(text.value.to_owned())),
        false => Some(None),
    };
    let lease = match object.has("lease") {
        true => object.integer("lease", 60..=31_536_000).map(|n| n.value),
        false => Some(LEASE),
    };
    let file = match (object.has("file"), &name) {
        (true, _) => one_path(&mut object, "file").ok(),
        (false, name) => name.as_ref().map(|name| PathBuf::from(format!("{LEASES}/{}.leases", name.value))),
    };
    let push = match object.one_of("mode", &[("pull", false), ("push", true)]) {
        Some(mode) => Some(mode.value),
        None if object.has("mode") => None,
        None => Some(false),
    };
    let line = object.line();
    let pool = (|| {
        Some(Arc::new(Pool {
            name: name.as_ref()?.value.clone(),
            addresses: addresses?,
            dns: dns?,
            split: split?,
            banner: banner?,
            lease_seconds: lease?,
            file: file?,
            push: push?,
            line,
        }))
    })();
    PoolEntry { label: object.label, name, header: object.header, pool }
}

fn network(object: &mut Object<'_, '_, '_>, key: &str, text: Located<&str>) -> Option<AddressRange> {
    match address::network(text.value) {
        Ok(network) => Some(network.range),
        Err(refused) => {
            object.error(text.at, format!("`{key}`: {}", refused.message)).suggest_if(refused.suggestion);
            None
        }
    }
}

/// One or several of something; none if the key is not there; `None`: wrong, and reported.
fn list<T>(
    object: &mut Object<'_, '_, '_>,
    key: &str,
    expected: &str,
    mut read: impl FnMut(&mut Object<'_, '_, '_>, Located<&str>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(texts) = object.strings(key, expected) else { return (!object.has(key)).then(Vec::new) };
    let wanted = texts.value.len();
    if wanted > MOST_TOLD {
        object.error(texts.at, format!("`{key}` has {wanted}; expected at most {MOST_TOLD}"));
        return None;
    }
    let values: Vec<_> = texts.value.into_iter().filter_map(|text| read(object, text)).collect();
    (values.len() == wanted && wanted > 0).then_some(values)
}
