//! What the daemon knows, as the records of `ipsec_report`.

use super::daemon::Daemon;
use super::huge_pages;
use super::manual::Pair;
use super::network::Network;
use crate::control::server::{RecordStream, Responder};
use crate::control::{Refusal, RefusalKind};
use crate::net::Interface;
use crate::report::cache::MOST_TOP;
use crate::report::from_model;
use crate::report::{
    AuthReport, BypassEntry, CacheAction, CacheRecord, CacheSa, CacheSaState, CacheSelection, CacheTable, CounterMap,
    Direction, Filters, HostPolicyReport, HostScope, InterfaceReport, IpsecSa, IsakmpSa, IsakmpState, PolicyState,
    Record, Role, SaLife, SaPair, SaState, Section, SelectorReport, Status, TransformNames, TunnelError, TunnelReport,
    TunnelState,
};
use crate::wall_clock::Date;
use crypto::EspSuite;
use datapath::sessions::Lane;
use datapath::{InboundSa, OutboundSa};
use ike::report::IsakmpReport;
use policy::cache::{CacheEntry, CacheRecord as Cached, SpdCache};
use policy::config::{AuthRecord, HostAction};
use policy::counters::Counter;
use policy::five_tuple::Ports;
use policy::sa::{Lifetime, Mode, SaProtocol};
use policy::session::Session;
use policy::spd::{Decision, Spd};
use policy::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// Sends the records of some sections. The cache, which may be long, is walked
/// by a thread of its own at the client's pace.
pub(super) async fn answer(
    daemon: &Daemon,
    network: &Network,
    sections: &[Section],
    filters: Filters,
    responder: Responder,
) {
    // They are held until the walk is over: not as many as somebody likes.
    if let Some(top) = filters.cache.top.filter(|top| *top > MOST_TOP) {
        let text = format!("the {top} busiest entries are more than can be told apart; at most {MOST_TOP}");
        return responder.refuse(Refusal::new(RefusalKind::Invalid, text).next("Ask for fewer, or for all of them."));
    }
    let interfaces = match network.interfaces().await {
        Ok(interfaces) => interfaces,
        Err(e) => return responder.refuse(Refusal::new(RefusalKind::Failed, e.to_string())),
    };
    let mut before = Vec::new();
    let mut after = Vec::new();
    let mut cache = false;
    for section in sections {
        let records = match section {
            Section::Status => vec![Record::Status(Box::new(status(daemon)))],
            Section::Ip => interface_reports(daemon, network, &interfaces),
            Section::Bypass => bypass(daemon, &interfaces),
            Section::Host => hosts(daemon, &interfaces, filters.host),
            Section::Tunnel => tunnels(daemon).map(|t| Record::Tunnel(Box::new(t))).collect(),
            Section::Ike => {
                from_model::ike_policies(&daemon.config).into_iter().map(|p| Record::Ike(Box::new(p))).collect()
            }
            Section::Auth => auths(daemon),
            Section::Pool => daemon.clients.leases().into_iter().map(|l| Record::Pool(Box::new(l))).collect(),
            Section::Mad => isakmp_sas(daemon),
            Section::Sad => ipsec_sas(daemon),
            Section::CacheTable => vec![Record::CacheTable(Box::new(cache_table(&daemon.shared.cache)))],
            Section::Cache => {
                cache = true;
                continue;
            }
        };
        if cache { after.extend(records) } else { before.extend(records) }
    }
    if !cache {
        return responder.answer(before.into_iter().map(Into::into).collect());
    }
    let walk = CacheWalk {
        policies: daemon.shared.spd.load_full(),
        shared: Arc::clone(&daemon.shared),
        now: daemon.clock.now(),
        current: current_pairs(daemon),
        names: daemon.config.hosts.iter().map(|h| (h.cookie, h.name.clone())).collect(),
    };
    tokio::task::spawn_blocking(move || {
        let mut stream = responder.stream();
        // A client that hangs up ends the walk; nobody is left to be told.
        let _ = send(&mut stream, before)
            .and_then(|()| walk.send(&mut stream, filters.cache))
            .and_then(|()| send(&mut stream, after))
            .and_then(|()| stream.blocking_finish());
    });
}

fn send(stream: &mut RecordStream, records: Vec<Record>) -> Result<(), crate::control::server::Gone> {
    records.into_iter().try_for_each(|r| stream.blocking_send(r))
}

/// `ipsec_admin -status`.
pub(super) fn status(daemon: &Daemon) -> Status {
    let limits = daemon.shared.cache.limits();
    let thousands = |entries: u64| u32::try_from(entries / 1000).unwrap_or(u32::MAX);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let counters = daemon.datapath.counters();
    Status {
        daemon_version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_seconds: daemon.clock.now().since(daemon.clock.started()).as_secs(),
        config: daemon.config_file.display().to_string(),
        config_loaded: Some(daemon.config_loaded.rfc3339()),
        audit_level: daemon.audit.level(),
        audit_dir: daemon.config.startup.audit_dir.as_ref().map(|d| d.display().to_string()),
        audit_lost: daemon.audit.lost(),
        cache_entries: daemon.shared.cache.len(),
        spd_soft: thousands(limits.soft),
        spd_hard: thousands(limits.hard),
        isakmp_sas: count(daemon.engine.isakmp_sas().iter().filter(|s| s.established.is_some()).count()),
        ipsec_sas: count(daemon.pairs().iter().map(|pair| if pair.ah.is_some() { 4 } else { 2 }).sum()),
        tunnels_up: count(
            daemon.engine.tunnels().iter().filter(|t| t.state == ike::report::TunnelState::Up).count()
                + daemon.manual.pairs(&daemon.shared).len(),
        ),
        tunnels_configured: count(daemon.config.tunnels.len()),
        cleartext_leaks: counters.counter(Counter::ClearTextLeaks),
        counters: counters
            .iter()
            .map(|(name, n)| (name.to_string(), n))
            .chain(ike_counters(daemon))
            .filter(|(_, n)| *n > 0)
            .collect(),
    }
}

/// Messages of IKE by what became of them.
fn ike_counters(daemon: &Daemon) -> impl Iterator<Item = (String, u64)> {
    let pieces = daemon.engine.fragment_counts();
    let counts = [("ike_fragmented", pieces.sent), ("ike_reassembled", pieces.reassembled)];
    let discarded = daemon.engine.discarded().iter().map(|(reason, n)| (format!("ike_discarded_{reason}"), *n));
    counts.into_iter().map(|(name, n)| (name.to_owned(), n)).chain(discarded)
}

/// The SPD cache as a whole.
pub(super) fn cache_table(cache: &SpdCache) -> CacheTable {
    let limits = cache.limits();
    let (ipv4, ipv6) = cache.memory_with(limits.hard);
    CacheTable {
        entries: cache.len(),
        soft_limit: limits.soft,
        hard_limit: limits.hard,
        octets: cache.memory(),
        octets_at_hard_limit_ipv4: ipv4,
        octets_at_hard_limit_ipv6: ipv6,
        pages: huge_pages::setting(),
        octets_in_huge_pages: huge_pages::octets(),
    }
}

fn interface_reports(daemon: &Daemon, network: &Network, interfaces: &[Interface]) -> Vec<Record> {
    let guard = network.guard_counters().unwrap_or_else(|e| {
        tracing::error!("{e}");
        Vec::new()
    });
    interfaces
        .iter()
        .map(|i| {
            let tun = i.name == daemon.config.startup.interface;
            let addresses: Vec<_> = i.addresses.iter().map(|a| a.address).collect();
            let bypassed: Vec<_> =
                addresses.iter().copied().filter(|a| daemon.config.bypass.iter().any(|b| b.contains(*a))).collect();
            let mut counters = CounterMap::new();
            let mut leaks = None;
            if tun {
                let totals = daemon.datapath.counters();
                counters.extend(totals.iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_string(), n)));
                for c in guard.iter().filter(|c| c.packets > 0) {
                    let direction = Direction::from(c.direction);
                    *counters.entry(format!("guard_{direction}_{}", c.name)).or_default() += c.packets;
                }
                leaks = Some(totals.counter(Counter::ClearTextLeaks));
            }
            Record::Ip(InterfaceReport {
                name: i.name.clone(),
                index: Some(i.index),
                up: i.up,
                ipsec: !i.loopback && (addresses.is_empty() || bypassed.len() < addresses.len()),
                tun,
                mtu: Some(i.mtu),
                addresses,
                bypassed,
                features: if tun { features(daemon) } else { Vec::new() },
                workers: tun.then(|| daemon.datapath.workers()),
                tun_queues: tun.then(|| daemon.datapath.tun_queues()),
                cleartext_leaks: leaks,
                counters,
            })
        })
        .collect()
}

fn features(daemon: &Daemon) -> Vec<String> {
    let of_datapath = daemon.datapath.features();
    ["guard"].into_iter().chain(of_datapath).map(String::from).collect()
}

fn bypass(daemon: &Daemon, interfaces: &[Interface]) -> Vec<Record> {
    let ranges = &daemon.config.bypass;
    let has = |i: &Interface, at: usize| i.addresses.iter().any(|a| ranges[at].contains(a.address));
    from_model::bypass(&daemon.config)
        .into_iter()
        .enumerate()
        .map(|(at, entry)| {
            let names = interfaces.iter().filter(|i| has(i, at)).map(|i| i.name.clone()).collect();
            Record::Bypass(BypassEntry { interfaces: Some(names), ..entry })
        })
        .collect()
}

fn hosts(daemon: &Daemon, interfaces: &[Interface], scope: HostScope) -> Vec<Record> {
    let by_name: HashMap<&str, _> = daemon.config.hosts.iter().map(|h| (h.name.as_str(), h)).collect();
    let tunnels: HashMap<String, TunnelReport> = tunnels(daemon).map(|t| (t.name.clone(), t)).collect();
    let mut of_sessions = sessions_by_policy(daemon);
    let addresses: Vec<_> = interfaces.iter().filter(|i| i.up).flat_map(|i| &i.addresses).collect();
    let (cache, epoch) = (&daemon.shared.cache, daemon.shared.spd.load().epoch());
    let shares: HashMap<u32, _> = cache.shares(epoch).into_iter().map(|share| (share.cookie, share)).collect();
    let hard = cache.limits().hard;
    from_model::host_policies(&daemon.config)
        .into_iter()
        .map(|mut report| {
            if let Some(percent) = report.cache_share {
                let share = shares.get(&report.cookie);
                report.cache_entries_allowed =
                    Some(share.map_or_else(|| policy::limits::share_of(hard, percent), |s| s.limit));
                report.cache_entries = Some(share.map_or(0, |s| s.entries));
            }
            let Some(policy) = by_name.get(report.name.as_str()) else { return report };
            let active = policy.selectors.iter().any(|s| addresses.iter().any(|a| s.local.contains(a.address)));
            let mut report = HostPolicyReport { active: Some(active), ..report };
            if let (HostAction::Tunnel(t), Direction::Outbound) = (&policy.action, report.direction)
                && let Some(tunnel) = tunnels.get(&*t.name)
            {
                report.state = Some(match tunnel.state {
                    Some(TunnelState::Up) => PolicyState::Ready,
                    Some(TunnelState::Negotiating) => PolicyState::SpisBeingEstablished,
                    _ => PolicyState::SpisNotEstablished,
                });
                report.kernel_requests_queued = tunnel.packets_held;
                report.sa_pairs.clone_from(&tunnel.sa_pairs);
                if policy.exclusive {
                    let (sessions, pairs) = of_sessions.remove(policy.name.as_str()).unwrap_or_default();
                    report.state = Some(match sessions.len() {
                        0 => PolicyState::SpisNotEstablished,
                        _ => PolicyState::Ready,
                    });
                    report.active_sessions = Some(sessions.len() as u64);
                    report.sa_pairs = pairs;
                }
            }
            report
        })
        .filter(|report| scope == HostScope::Configured || report.active != Some(false))
        .map(|report| Record::Host(Box::new(report)))
        .collect()
}

/// The sessions with SA pairs of their own, and these, by host policy.
fn sessions_by_policy(daemon: &Daemon) -> HashMap<&str, (HashSet<Session>, Vec<SaPair>)> {
    let mut by_policy: HashMap<&str, (HashSet<Session>, Vec<SaPair>)> = HashMap::new();
    for pair in daemon.pairs() {
        let Some(session) = pair.session else { continue };
        let Some((policy, _)) = session.policy(&daemon.config) else { continue };
        let (sessions, pairs) = by_policy.entry(&policy.name).or_default();
        sessions.insert(session);
        pairs.extend(sa_pairs(&pair));
    }
    by_policy
}

/// The SAs of a pair; of a bundle the AH comes first.
fn sa_pairs(pair: &Pair) -> impl Iterator<Item = SaPair> {
    let inbound_spi = Some(pair.inbound_spi);
    let of = move |protocol, suite, outbound_spi| SaPair {
        sa_type: from_model::protocol_name(protocol).into(),
        transform: TransformNames::of(protocol, suite),
        outbound_spi: Some(outbound_spi),
        inbound_spi,
    };
    let ah = pair.ah.map(|(ah, spi)| of(SaProtocol::Ah, EspSuite::of_ah(ah), spi));
    ah.into_iter().chain([of(pair.protocol, pair.suite, pair.outbound_spi)])
}

fn tunnels(daemon: &Daemon) -> impl Iterator<Item = TunnelReport> {
    let now = daemon.clock.now();
    let spd = daemon.shared.spd.load_full();
    let mut known: HashMap<String, _> = daemon.engine.tunnels().into_iter().map(|t| (t.name.to_string(), t)).collect();
    let mut pairs = daemon.pairs();
    pairs.sort_by_key(|p| std::cmp::Reverse(p.created));
    from_model::tunnels(&daemon.config).into_iter().map(move |mut report| {
        let of_tunnel = || pairs.iter().filter(|p| *p.tunnel == *report.name && p.session.is_none());
        // One with manual keys is not the engine's.
        let state = known.remove(&report.name);
        report.state = Some(match &state {
            Some(state) => match state.state {
                ike::report::TunnelState::Down => TunnelState::Down,
                ike::report::TunnelState::Negotiating => TunnelState::Negotiating,
                ike::report::TunnelState::Up => TunnelState::Up,
            },
            None if of_tunnel().next().is_some() => TunnelState::Up,
            None => TunnelState::Down,
        });
        report.last_error = state.and_then(|state| state.last_error).map(|(at, text)| {
            let age = now.since(at);
            let date = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            TunnelError { text, date: Date::of(date).rfc3339(), age_seconds: age.as_secs() }
        });
        let index = spd.tunnel_index(&report.name);
        report.packets_held = index.map(|i| daemon.datapath.held(i));
        report.sa_pairs = of_tunnel().flat_map(sa_pairs).collect();
        report
    })
}

fn life(
    agreed: Lifetime,
    now: Timestamp,
    begun: Option<Timestamp>,
    rekey: Option<Timestamp>,
    ends: Option<Timestamp>,
) -> SaLife {
    SaLife {
        seconds: Some(agreed.seconds).filter(|n| *n > 0),
        kbytes: Some(agreed.kbytes).filter(|n| *n > 0),
        packets: None,
        age_seconds: begun.map(|t| now.since(t).as_secs()),
        remaining_seconds: ends.map(|t| t.since(now).as_secs()),
        rekey_in_seconds: rekey.filter(|t| *t > now).map(|t| t.since(now).as_secs()),
    }
}

fn role(role: ike::Role) -> Role {
    match role {
        ike::Role::Initiator => Role::Initiator,
        ike::Role::Responder => Role::Responder,
    }
}

fn nat(state: ike::NatState) -> &'static str {
    match (state.forced, state.local, state.remote) {
        (true, ..) => "forced",
        (_, true, true) => "both",
        (_, true, false) => "local",
        (_, false, true) => "remote",
        (_, false, false) => "none",
    }
}

fn auths(daemon: &Daemon) -> Vec<Record> {
    let credentials = |name: &str| daemon.credentials.of(name).map(|c| &**c);
    let crls = daemon.crls();
    let report = |auth: &Arc<AuthRecord>| AuthReport::new(auth, credentials(&auth.name), &crls);
    daemon.config.auths.iter().map(|auth| Record::Auth(Box::new(report(auth)))).collect()
}

fn isakmp_sas(daemon: &Daemon) -> Vec<Record> {
    let now = daemon.clock.now();
    let record = |(sequence_number, sa): (u32, IsakmpReport)| {
        let hexadecimal = |cookie: [u8; 8]| format!("{:016x}", u64::from_be_bytes(cookie));
        let max = daemon.config.ikes.iter().find(|p| p.name == sa.policy).map(|p| p.max_quick_modes);
        Record::Mad(Box::new(IsakmpSa {
            sequence_number,
            state: match (sa.established.filter(|_| sa.admitted), sa.retiring) {
                (_, true) => IsakmpState::Dying,
                (Some(_), false) => IsakmpState::Established,
                (None, false) => IsakmpState::Negotiating,
            },
            role: role(sa.role),
            ike_version: 1,
            exchange: sa.exchange.to_string(),
            local: sa.local.into(),
            remote: sa.remote.into(),
            initiator_cookie: hexadecimal(sa.initiator_cookie),
            responder_cookie: Some(sa.responder_cookie).filter(|c| *c != [0; 8]).map(hexadecimal),
            authentication_method: sa.method.map(|m| m.to_string()),
            proposal: sa.suite.as_ref().map(Into::into),
            local_id: Some(sa.local_identity.to_string()),
            remote_id: sa.peer_identity.as_ref().map(ToString::to_string),
            remote_certificate: sa.peer_certificate.as_ref().map(Into::into),
            remote_user: sa.user,
            remote_inner_address: sa.leased,
            local_inner_address: sa.assigned.as_ref().map(|a| a.address),
            dns: sa.assigned.map(|a| a.dns).unwrap_or_default(),
            fragmentation: sa.fragmentation,
            vendor_ids: sa.vendors,
            nat: sa.established.map(|_| nat(sa.nat).into()),
            lifetime: sa.lifetime.map(|l| life(l, now, sa.established, None, sa.expires)).unwrap_or_default(),
            quick_modes: Some(sa.quick_modes),
            max_quick_modes: max.filter(|n| *n > 0),
            ike_policy: Some(sa.policy),
            auth_record: Some(sa.auth_record),
        }))
    };
    (1..).zip(daemon.engine.isakmp_sas()).map(record).collect()
}

fn ipsec_sas(daemon: &Daemon) -> Vec<Record> {
    let mut records = Vec::new();
    for pair in daemon.pairs() {
        let Some(sas) = daemon.shared.pair(pair.id) else { continue };
        // Of a bundle the AH comes first, as on the wire.
        if let (Some((ah, spi)), Some(inbound), Some(outbound)) =
            (pair.ah, sas.inbound.outside(), sas.outbound.outside())
        {
            let pair = Pair { protocol: SaProtocol::Ah, suite: EspSuite::of_ah(ah), outbound_spi: spi, ..pair.clone() };
            records.extend(sas_of_pair(daemon, pair, inbound, outbound));
        }
        records.extend(sas_of_pair(daemon, pair, &sas.inbound, &sas.outbound));
    }
    for (number, sa) in (1..).zip(&mut records) {
        sa.sequence_number = number;
    }
    records.into_iter().map(|sa| Record::Sad(Box::new(sa))).collect()
}

/// The two SAs of a pair, or of one protocol of a bundle: outbound, inbound.
fn sas_of_pair(daemon: &Daemon, pair: Pair, inbound_sa: &InboundSa, outbound_sa: &OutboundSa) -> [IpsecSa; 2] {
    let now = daemon.clock.now();
    let (here, there) = (pair.local, pair.remote);
    let udp = outbound_sa.spec().encapsulation.map(|e| (e.local_port, outbound_sa.remote().port()));
    let common = IpsecSa {
        sequence_number: 0,
        spi: 0,
        state: pair.state,
        sa_type: from_model::protocol_name(pair.protocol).into(),
        direction: Direction::Outbound,
        mode: from_model::mode_name(inbound_sa.spec().mode).into(),
        src: here,
        dst: there,
        udp_encapsulation: None,
        transform: TransformNames::of(pair.protocol, pair.suite),
        pfs: pair.pfs.map(|g| g.keyword.into()),
        selector: Some(SelectorReport::from(&pair.selector)),
        tunnel: Some(pair.tunnel.to_string()),
        pair: Some(pair.id),
        esn: inbound_sa.spec().esn,
        replay_window: None,
        last_sequence: None,
        lifetime: SaLife {
            packets: Some(outbound_sa.spec().own.packets).filter(|n| *n > 0),
            ..life(pair.lifetime, now, Some(pair.created), pair.rekey, pair.expires)
        },
        packets: None,
        bytes: None,
        idle_seconds: None,
        drops: CounterMap::new(),
    };
    let idle = |packets: u64, last: Timestamp| (packets > 0).then(|| now.since(last).as_secs());
    let dead = |expired| if expired { SaState::Dead } else { common.state };
    let outbound = IpsecSa {
        sequence_number: 0,
        spi: pair.outbound_spi,
        state: dead(outbound_sa.is_expired()),
        udp_encapsulation: udp,
        last_sequence: Some(outbound_sa.sequence()),
        packets: Some(outbound_sa.packets()),
        bytes: Some(outbound_sa.octets()),
        idle_seconds: idle(outbound_sa.packets(), outbound_sa.last_use()),
        ..common.clone()
    };
    let inbound = IpsecSa {
        sequence_number: 0,
        spi: pair.inbound_spi,
        state: dead(inbound_sa.is_expired()),
        direction: Direction::Inbound,
        src: there,
        dst: here,
        udp_encapsulation: udp.map(|(local, remote)| (remote, local)),
        replay_window: Some(inbound_sa.window().size()).filter(|size| *size > 0),
        last_sequence: Some(inbound_sa.window().top()),
        packets: Some(inbound_sa.packets()),
        bytes: Some(inbound_sa.octets()),
        idle_seconds: idle(inbound_sa.packets(), inbound_sa.last_use()),
        ..common
    };
    [outbound, inbound]
}

/// The pair in use of each tunnel that is up, by name, and of each session.
fn current_pairs(daemon: &Daemon) -> HashMap<Lane, Pair> {
    let spd = daemon.shared.spd.load();
    let current = daemon.pairs().into_iter().filter(|p| p.state == SaState::Mature);
    let lane = |p: &Pair| Some(Lane { tunnel: spd.tunnel_index(&p.tunnel)?, session: p.session });
    current.filter_map(|p| Some((lane(&p)?, p))).collect()
}

/// What a walk of the cache needs, apart from the daemon that goes on.
struct CacheWalk {
    policies: Arc<Spd>,
    shared: Arc<datapath::Shared>,
    now: Timestamp,
    current: HashMap<Lane, Pair>,
    /// Of host policies, by cookie.
    names: HashMap<u32, String>,
}

fn has_address(cached: &Cached, address: IpAddr) -> bool {
    let tuple = cached.key.tuple();
    tuple.source == address || tuple.destination == address
}

impl CacheWalk {
    fn send(
        &self,
        stream: &mut RecordStream,
        filter: crate::report::CacheFilter,
    ) -> Result<(), crate::control::server::Gone> {
        let cookies = filter.policy.as_ref().map(|wanted| self.cookies(wanted));
        let address = filter.address;
        let mut selection = CacheSelection::new(filter);
        let mut outcome = Ok(());
        self.shared.cache.for_each(self.now, |cached| {
            // Stale entries decide nothing any more.
            if outcome.is_ok()
                && cached.epoch == self.policies.epoch()
                && let Some(entry) = cached.entry
                // Most are left out of a report of some: without making a record of each.
                && address.is_none_or(|a| has_address(&cached, a))
                && cookies.as_ref().is_none_or(|wanted| wanted.contains(&entry.cookie))
                && selection.could_show(cached.packets)
                && let Some(record) = selection.offer(self.record(&cached, entry))
            {
                outcome = stream.blocking_send(Record::Cache(Box::new(record)));
            }
        });
        outcome?;
        selection.finish().into_iter().try_for_each(|r| stream.blocking_send(Record::Cache(Box::new(r))))
    }

    fn record(&self, cached: &Cached, entry: CacheEntry) -> CacheRecord {
        let tuple = cached.key.tuple();
        let direction = Direction::from(cached.key.direction());
        let (src_port, dst_port) = match tuple.ports {
            Ports::Pair { source, destination } => (Some(source), Some(destination)),
            Ports::None | Ports::Opaque | Ports::Icmp { .. } => (None, None),
        };
        let (icmp_type, icmp_code) = match tuple.ports {
            Ports::Icmp { kind, code } => (Some(kind), Some(code)),
            _ => (None, None),
        };
        let tunnel = entry.decision.tunnel().and_then(|index| Some((index, self.policies.tunnel(index)?)));
        let session = match entry.decision {
            Decision::ProtectExclusive { .. } => Session::of(&tuple, cached.key.direction()).ok(),
            _ => None,
        };
        CacheRecord {
            record: 0,
            cookie: entry.cookie,
            policy: self.policy_name(entry.cookie),
            src: tuple.source,
            src_port,
            dst: tuple.destination,
            dst_port,
            icmp_type,
            icmp_code,
            fragment: tuple.ports == Ports::Opaque,
            protocol: tuple.protocol,
            direction,
            interface: self.policies.config().startup.attachment_name(tuple.interface).map(str::to_owned),
            action: match entry.decision {
                Decision::Bypass | Decision::Pass => CacheAction::Pass,
                Decision::Discard => CacheAction::Discard,
                Decision::Protect { .. } | Decision::ProtectExclusive { .. } => CacheAction::Secure,
            },
            reason: entry.reason.map(|r| r.name().to_string()),
            tunnel: tunnel.map(|(_, t)| t.name.to_string()),
            sas: match tunnel {
                Some((tunnel, t)) if direction == Direction::Outbound => {
                    let pair = self.current.get(&Lane { tunnel, session });
                    vec![CacheSa {
                        state: if pair.is_some() { CacheSaState::Created } else { CacheSaState::Requested },
                        sa_type: from_model::protocol_name(pair.map_or(SaProtocol::Esp, |p| p.protocol)).into(),
                        tunnel: t.mode == Mode::Tunnel,
                        spi: pair.map(|p| p.outbound_spi),
                        src: t.tsource,
                        dst: t.tdestination,
                    }]
                }
                _ => Vec::new(),
            },
            packets: Some(cached.packets),
            idle_seconds: Some(self.now.since(cached.last_use).as_secs()),
        }
    }

    fn policy_name(&self, cookie: u32) -> Option<String> {
        match cookie {
            policy::spd::COOKIE_NONE => None,
            policy::spd::COOKIE_DEFAULT => Some("default".into()),
            _ => self.names.get(&cookie).cloned(),
        }
    }

    /// Cookies of the policies that somebody means by a name or a cookie.
    fn cookies(&self, wanted: &str) -> Vec<u32> {
        let named = self.names.iter().filter(|(_, name)| *name == wanted).map(|(cookie, _)| *cookie);
        let default = (wanted == "default").then_some(policy::spd::COOKIE_DEFAULT);
        named.chain(default).chain(wanted.parse()).collect()
    }
}
