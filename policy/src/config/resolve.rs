//! From objects by themselves to one configuration: names are looked up,
//! priorities and cookies given, lists sorted; errors between objects.

use super::Entries;
use super::advice;
use super::auth::AuthEntry;
use super::host::{Action, HostEntry};
use super::ike::IkeEntry;
use super::manual;
use super::model::{
    AuthMethod, AuthRecord, Config, HostAction, HostPolicy, IkePolicy, Phase1Exchange, RemoteAccess, StartMode,
    TunnelPolicy,
};
use super::nearest::did_you_mean;
use super::object::quoted;
use super::priority;
use super::report::Report;
use super::source::{Located, Span};
use super::tunnel::TunnelEntry;
use crate::selector::{AddressRange, Selector};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Cookie of the default policy, as HP-UX; the others follow in search order.
const DEFAULT_COOKIE: u32 = 1;

/// Joins the objects. `None` if one of them, or how they fit, is wrong; that was reported.
pub(super) fn resolve(entries: Entries, report: &mut Report<'_>) -> Option<Config> {
    unique(entries.hosts.iter().map(|e| (&*e.label, e.name.as_ref())), report);
    unique(entries.tunnels.iter().map(|e| (&*e.label, e.name.as_ref())), report);
    unique(entries.ikes.iter().map(|e| (&*e.label, e.name.as_ref())), report);
    unique(entries.auths.iter().map(|e| (&*e.label, e.name.as_ref())), report);
    unique(entries.pools.iter().map(|e| (&*e.label, e.name.as_ref())), report);
    unknown_tunnels(&entries, report);
    let mut entries = entries;
    pools(&mut entries, report);
    let entries = entries;
    let host_priorities = priority::assign(entries.hosts.iter().map(|e| (&*e.label, e.header, &e.priority)), report);
    let ike_priorities = priority::assign(entries.ikes.iter().map(|e| (&*e.label, e.header, &e.priority)), report);
    let ikes = ikes(&entries.ikes, &ike_priorities);
    let auths = auths(&entries.auths);
    let ike_peers = Peers::new(entries.ikes.iter().map(|e| e.remote.as_ref().map(|r| r.value)));
    let auth_peers = Peers::new(entries.auths.iter().map(|e| e.remote.as_ref().map(|r| r.value)));
    // The first by priority of those for a peer.
    let ike_of = |peer| {
        let first = ike_peers.of(peer).min_by_key(|place| ike_priorities.get(*place))?;
        entries.ikes.get(first)?.policy.as_ref()
    };
    for tunnel in &entries.tunnels {
        negotiable(tunnel, &ike_peers, ike_of, &auth_peers, &entries.auths, report);
    }
    same_proxy_ids(&entries.tunnels, report);
    nothing_to_begin(&entries, report);
    not_exclusive(&entries, report);
    manual::unique(entries.tunnels.iter().filter_map(|t| Some((&*t.label, t.manual_spi.as_ref()?))), report);
    // Advice compares objects with each other: of wrong ones it would only say nonsense.
    if report.has_errors() {
        return None;
    }
    let tunnels: Vec<Arc<TunnelPolicy>> = entries.tunnels.iter().filter_map(|t| t.policy.clone()).collect();
    let hosts = hosts(&entries.hosts, &host_priorities, &tunnels);
    let places = advice::Places {
        hosts: entries.hosts.iter().map(|e| (e.line, place(e))).collect(),
        tunnels: entries.tunnels.iter().map(|e| (report.line(e.header), e.header)).collect(),
        ikes: entries.ikes.iter().filter_map(|e| Some((report.line(e.header), e.remote.as_ref()?.at))).collect(),
        auths: entries.auths.iter().filter_map(|e| Some((report.line(e.header), e.remote.as_ref()?.at))).collect(),
        bypass: entries.bypass.iter().map(|b| b.at).collect(),
    };
    let config = Config {
        startup: entries.startup,
        hosts,
        default_action: entries.default_action,
        default_cache_share: entries.default_cache_share,
        tunnels,
        ikes,
        auths,
        bypass: entries.bypass.iter().map(|b| b.value).collect(),
        pools: entries.pools.iter().filter_map(|p| p.pool.clone()).collect(),
        gateway: entries.gateway,
    };
    advice::advise(&config, &places, report);
    Some(config)
}

/// Where messages about a host policy point: the tunnel it names, or its header.
fn place(entry: &HostEntry) -> Span {
    match &entry.action {
        Action::Tunnel(name) => name.at,
        Action::Pass | Action::Discard => entry.header,
    }
}

/// No two objects of a kind have one name.
fn unique<'e>(objects: impl Iterator<Item = (&'e str, Option<&'e Located<String>>)>, report: &mut Report<'_>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (label, name) in objects {
        let Some(name) = name else { continue };
        match seen.get(&*name.value) {
            Some(line) => {
                report.error(
                    name.at,
                    label,
                    format!("the name {} is already taken on line {line}; expected a unique one", quoted(&name.value)),
                );
            }
            None => {
                seen.insert(&name.value, report.line(name.at));
            }
        }
    }
}

fn unknown_tunnels(entries: &Entries, report: &mut Report<'_>) {
    let names: Vec<&str> = entries.tunnels.iter().filter_map(|t| t.name.as_ref()).map(|n| &*n.value).collect();
    // The name of a wrong tunnel may be what is wrong with it.
    if names.len() < entries.tunnels.len() {
        return;
    }
    let known: HashSet<&str> = names.iter().copied().collect();
    for host in &entries.hosts {
        if let Action::Tunnel(named) = &host.action
            && !known.contains(&*named.value)
        {
            let message = match names.as_slice() {
                [] => format!("`tunnel` is {}, but there is no [[tunnel]] at all", quoted(&named.value)),
                _ => format!(
                    "`tunnel` is {}, but there is no [[tunnel]] of this name; expected one of {}",
                    quoted(&named.value),
                    names.join(", ")
                ),
            };
            report.error(named.at, &host.label, message).suggest_if(did_you_mean(&named.value, names.iter().copied()));
        }
    }
}

/// Clients' tunnels get the addresses of their pools, of which each has one tunnel's end point.
fn pools(entries: &mut Entries, report: &mut Report<'_>) {
    let known: Vec<_> = entries.pools.iter().filter_map(|e| e.name.as_ref().map(|n| n.value.as_str())).collect();
    for entry in &mut entries.tunnels {
        let Some(policy) = &mut entry.policy else { continue };
        let RemoteAccess::Pool(named) = &policy.remote_access else { continue };
        let found = entries.pools.iter().find(|e| e.name.as_ref().is_some_and(|n| n.value == *named));
        let Some(found) = found else {
            let message = format!("`pool` is {}, but there is no [[pool]] of this name", quoted(named));
            report.error(entry.header, &entry.label, message).suggest_if(did_you_mean(named, known.iter().copied()));
            continue;
        };
        let Some(pool) = &found.pool else { continue };
        if pool.addresses.is_ipv4() != policy.selector.local.is_ipv4() {
            let message = format!(
                "its `source` and the addresses of pool `{}` (line {}) are of different families",
                pool.name, pool.line
            );
            report.error(entry.header, &entry.label, message).suggest("write a pool and a tunnel for each family");
            continue;
        }
        Arc::make_mut(policy).selector.remote = pool.addresses;
    }
    for entry in &entries.hosts {
        let template = |t: &&TunnelEntry| t.policy.as_ref().is_some_and(|p| p.is_template());
        let named =
            |t: &TunnelEntry| matches!((&entry.action, &t.name), (Action::Tunnel(n), Some(t)) if n.value == t.value);
        if entry.exclusive && entries.tunnels.iter().filter(template).any(named) {
            report
                .error(
                    entry.header,
                    &entry.label,
                    "the policy is EXCLUSIVE, but its tunnel is for clients (`pool` or `virtual`)",
                )
                .suggest("remove the flag");
        }
    }
    let used = |e: &super::pool::PoolEntry| {
        let uses = |t: &TunnelEntry| {
            let named = t.policy.as_ref().map(|p| &p.remote_access);
            matches!((named, &e.name), (Some(RemoteAccess::Pool(pool)), Some(name)) if *pool == name.value)
        };
        entries.tunnels.iter().any(uses)
    };
    for entry in entries.pools.iter().filter(|e| e.pool.is_some() && !used(e)) {
        report.warning(entry.header, &entry.label, "no [[tunnel]] names it: nobody gets an address of it");
    }
}

/// HP-UX: no session has manual keys of its own.
fn not_exclusive(entries: &Entries, report: &mut Report<'_>) {
    let manual = entries.tunnels.iter().filter_map(|t| t.policy.as_deref()).filter(|t| t.manual.is_some());
    let manual: HashSet<&str> = manual.map(|t| &*t.name).collect();
    for host in entries.hosts.iter().filter(|h| h.exclusive) {
        if let Action::Tunnel(named) = &host.action
            && manual.contains(&*named.value)
        {
            report
                .error(
                    named.at,
                    &host.label,
                    format!(
                        "the policy is EXCLUSIVE, but tunnel {} has manual keys, one SA pair for all sessions",
                        quoted(&named.value)
                    ),
                )
                .suggest("remove the flag, or let the tunnel negotiate its keys");
        }
    }
}

/// Where only EXCLUSIVE policies use a tunnel, there is no SA before there is a packet.
fn nothing_to_begin(entries: &Entries, report: &mut Report<'_>) {
    for tunnel in &entries.tunnels {
        let Some(policy) = tunnel.policy.as_deref().filter(|t| t.start == StartMode::Boot) else { continue };
        let uses = |h: &&HostEntry| matches!(&h.action, Action::Tunnel(named) if *named.value == *policy.name);
        let mut users = entries.hosts.iter().filter(uses).peekable();
        if users.peek().is_some() && users.all(|h| h.exclusive) {
            report
                .error(
                    tunnel.header,
                    &tunnel.label,
                    "`start` is boot, but only EXCLUSIVE policies name it: which SAs it needs, packets tell",
                )
                .suggest("leave out `start`, or name it in a policy without that flag");
        }
    }
}

fn hosts(entries: &[HostEntry], priorities: &[u32], tunnels: &[Arc<TunnelPolicy>]) -> Vec<Arc<HostPolicy>> {
    let by_name: HashMap<&str, &Arc<TunnelPolicy>> = tunnels.iter().map(|t| (&*t.name, t)).collect();
    let mut hosts: Vec<HostPolicy> = entries
        .iter()
        .zip(priorities)
        .filter_map(|(entry, priority)| {
            let action = match &entry.action {
                Action::Pass => HostAction::Pass,
                Action::Discard => HostAction::Discard,
                Action::Tunnel(named) => HostAction::Tunnel(Arc::clone(by_name.get(&*named.value)?)),
            };
            Some(HostPolicy {
                name: entry.name.as_ref()?.value.clone(),
                priority: *priority,
                cookie: 0,
                selectors: entry.selectors.clone()?,
                interface: entry.interface?,
                action,
                exclusive: entry.exclusive,
                cache_share: entry.cache_share,
                line: entry.line,
            })
        })
        .collect();
    hosts.sort_by_key(|h| h.priority);
    let with_cookies = (DEFAULT_COOKIE + 1..).zip(hosts);
    with_cookies.map(|(cookie, host)| Arc::new(HostPolicy { cookie, ..host })).collect()
}

fn ikes(entries: &[IkeEntry], priorities: &[u32]) -> Vec<Arc<IkePolicy>> {
    let mut ikes: Vec<IkePolicy> = entries
        .iter()
        .zip(priorities)
        .filter_map(|(entry, priority)| Some(IkePolicy { priority: *priority, ..entry.policy.clone()? }))
        .collect();
    ikes.sort_by_key(|p| p.priority);
    ikes.into_iter().map(Arc::new).collect()
}

fn auths(entries: &[AuthEntry]) -> Vec<Arc<AuthRecord>> {
    let mut auths: Vec<AuthRecord> = entries.iter().filter_map(|e| e.record.clone()).collect();
    // Stable: records of one size stay in the order of the file.
    auths.sort_by_key(|a| size(&a.remote));
    auths.into_iter().map(Arc::new).collect()
}

/// Addresses in a range, less one.
fn size(range: &AddressRange) -> u128 {
    match (range.first(), range.last()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(b.to_bits() - a.to_bits()),
        (IpAddr::V6(a), IpAddr::V6(b)) => b.to_bits() - a.to_bits(),
        _ => u128::MAX,
    }
}

/// Which objects are for a peer, by their places.
struct Peers {
    /// Of one peer each: the most there are.
    single: HashMap<IpAddr, Vec<usize>>,
    /// Of several; `None`: `remote` is wrong, so that it might be for any.
    several: Vec<(Option<AddressRange>, usize)>,
}

impl Peers {
    fn new(remotes: impl Iterator<Item = Option<AddressRange>>) -> Self {
        let mut peers = Self { single: HashMap::new(), several: Vec::new() };
        for (place, remote) in remotes.enumerate() {
            match remote {
                Some(r) if r.first() == r.last() => peers.single.entry(r.first()).or_default().push(place),
                _ => peers.several.push((remote, place)),
            }
        }
        peers
    }

    fn of(&self, peer: IpAddr) -> impl Iterator<Item = usize> {
        let single = self.single.get(&peer).into_iter().flatten().copied();
        let several = self.several.iter().filter(move |(remote, _)| remote.is_none_or(|r| r.contains(peer)));
        single.chain(several.map(|(_, place)| *place))
    }
}

/// Every tunnel without manual keys can be negotiated: there is an IKE policy and a key for its peer.
fn negotiable<'e>(
    tunnel: &TunnelEntry,
    ikes: &Peers,
    ike_of: impl Fn(IpAddr) -> Option<&'e IkePolicy>,
    auths: &Peers,
    entries: &[AuthEntry],
    report: &mut Report<'_>,
) {
    let Some(policy) = tunnel.policy.as_ref().filter(|p| p.manual.is_none()) else { return };
    if matches!(policy.remote_access, RemoteAccess::Pool(_)) {
        return;
    }
    let peer = policy.tdestination;
    if ikes.of(peer).next().is_none() {
        report
            .missing(tunnel.peer_at, &tunnel.label, format!("no [[ike]] policy is for the peer {peer}"))
            .suggest(format!("add [[ike]] with a name and remote = \"{peer}\""));
    }
    let records = || auths.of(peer).map(|place| &entries[place]);
    if records().next().is_none() {
        report
            .missing(tunnel.peer_at, &tunnel.label, format!("no [[auth]] record is for the peer {peer}"))
            .suggest(format!("add [[auth]] with a name, remote = \"{peer}\" and preshared = \"…\""));
        return;
    }
    let (mut best, mut best_size) = (None, u128::MAX);
    for entry in records() {
        let (Some(record), Some(remote)) = (&entry.record, &entry.remote) else { return };
        if best.is_none() || size(&remote.value) < best_size {
            (best, best_size) = (Some((entry, record)), size(&remote.value));
        }
    }
    if let Some(best) = best {
        agreed_method(tunnel, peer, ike_of(peer), best, report);
    }
}

/// The IKE policy and the authentication record of a peer have a method in common.
fn agreed_method(
    tunnel: &TunnelEntry,
    peer: IpAddr,
    ike: Option<&IkePolicy>,
    (entry, record): (&AuthEntry, &AuthRecord),
    report: &mut Report<'_>,
) {
    let who = format!("{} (line {}) is for the peer {peer}", entry.label, record.line);
    if record.methods.is_empty() {
        report
            .missing(
                tunnel.peer_at,
                &tunnel.label,
                format!("{who} but has no `preshared` key, and no `certificate` either"),
            )
            .suggest("add preshared = \"…\" to it");
    } else if let Some(ike) = ike
        && record.methods_under(ike).is_empty()
    {
        let listed = |methods: &[AuthMethod]| methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        report
            .error(
                tunnel.peer_at,
                &tunnel.label,
                format!(
                    "{who} and has {}, but `auth` of ike `{}` (line {}) is {}",
                    listed(&record.methods),
                    ike.name,
                    ike.line,
                    listed(&ike.methods)
                ),
            )
            .suggest("name the same method in both, or leave `auth` out");
    }
    if let Some(ike) = ike.filter(|_| record.exchange == Phase1Exchange::Aggressive) {
        one_group(tunnel, &who, ike, report);
    }
}

/// The first message of aggressive mode has a public value of one group (RFC 2409 5).
fn one_group(tunnel: &TunnelEntry, who: &str, ike: &IkePolicy, report: &mut Report<'_>) {
    let mut groups: Vec<_> = ike.proposals.iter().map(|suite| suite.group.keyword).collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > 1 {
        report
            .error(
                tunnel.peer_at,
                &tunnel.label,
                format!(
                    "{who} and begins in aggressive mode, which cannot negotiate the group, but `proposals` of ike \
                     `{}` (line {}) has {}; expected one",
                    ike.name,
                    ike.line,
                    groups.join(" and ")
                ),
            )
            .suggest("leave the group that both sides prefer, or use main mode");
    }
}

/// Quick mode names a tunnel by its proxy IDs alone, so two to one peer must differ in them.
fn same_proxy_ids(tunnels: &[TunnelEntry], report: &mut Report<'_>) {
    let mut seen: HashMap<(IpAddr, &Selector), (&TunnelEntry, &TunnelPolicy)> = HashMap::new();
    for entry in tunnels {
        let Some(tunnel) = entry.policy.as_deref() else { continue };
        let (twin, earlier) = *seen.entry((tunnel.tdestination, &tunnel.selector)).or_insert((entry, tunnel));
        if !core::ptr::eq(twin, entry) {
            report
                .error(
                    entry.header,
                    &entry.label,
                    format!(
                        "has the peer {} and the addresses {} of {} (line {}); expected different addresses",
                        tunnel.tdestination, tunnel.selector, twin.label, earlier.line
                    ),
                )
                .suggest("one tunnel may list several transforms in `action`");
        }
    }
}
