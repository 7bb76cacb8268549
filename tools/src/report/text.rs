//! Records as text, in the words of HP-UX IPSec: one banner per record, then its fields.

use super::form::{banner, counters, heading, is, list, may, may_in, row, yes_no};
use super::{
    AuthReport, BypassEntry, CacheAction, CacheRecord, CacheSaState, CacheTable, Direction, HostPolicyReport,
    IkePolicyReport, IkeProposal, InterfaceReport, IpsecSa, IsakmpSa, IsakmpState, LeaseReport, PolicyAction,
    PolicyState, Record, Role, SaLife, SaPair, SaState, Section, SelectorReport, Status, TransformNames, TunnelReport,
    TunnelState,
};
use ::policy::config::names;
use std::io::{self, Write};

/// One record.
pub fn record(out: &mut dyn Write, record: &Record) -> io::Result<()> {
    match record {
        Record::Status(r) => status(out, r),
        Record::Ip(r) => interface(out, r),
        Record::Bypass(r) => bypass(out, r),
        Record::Host(r) => host(out, r),
        Record::Tunnel(r) => tunnel(out, r),
        Record::Ike(r) => ike(out, r),
        Record::Auth(r) => auth(out, r),
        Record::Pool(r) => lease(out, r),
        Record::Mad(r) => isakmp_sa(out, r),
        Record::Sad(r) => ipsec_sa(out, r),
        Record::CacheTable(r) => cache_table(out, r),
        Record::Cache(r) => cache(out, r),
    }
}

/// What a section without records shows.
pub fn empty(out: &mut dyn Write, section: Section) -> io::Result<()> {
    let (title, nothing) = match section {
        Section::Status => ("IPSec Status", "No status."),
        Section::Ip => ("IP Interface", "No interfaces."),
        Section::Bypass => ("Bypass List", "The bypass list is empty."),
        Section::Host => ("Host Policy Rule", "No host policies."),
        Section::Tunnel => ("Tunnel Policy Rule", "No tunnel policies."),
        Section::Ike => ("IKE Policy Rule", "No IKE policies."),
        Section::Auth => ("Auth Record", "No authentication records."),
        Section::Pool => ("Lease", "No leases."),
        Section::Mad => ("ISAKMP/MM SA", "No ISAKMP/MM SAs."),
        Section::Sad => ("IPSec SA", "No IPSec SAs."),
        Section::CacheTable => ("Cache", "Nothing is known of it."),
        Section::Cache => ("Cache Policy Rule", "No cached decisions."),
    };
    banner(out, title)?;
    writeln!(out, "{nothing}")
}

fn protocol_name(protocol: Option<u8>) -> String {
    protocol.map_or_else(|| "ALL".to_owned(), names::protocol_name)
}

fn spi(value: u32) -> String {
    format!("0x{value:X}")
}

fn status(out: &mut dyn Write, r: &Status) -> io::Result<()> {
    banner(out, "IPSec Status")?;
    row(out, &[("ipsecd", is("running")), ("Version", is(&r.daemon_version))])?;
    row(out, &[("Process", is(r.pid)), ("Up", is(format!("{} seconds", r.uptime_seconds)))])?;
    row(out, &[("Configuration", is(&r.config))])?;
    row(out, &[("Loaded", may(&r.config_loaded))])?;
    row(out, &[("Audit level", is(r.audit_level)), ("Audit events lost", is(r.audit_lost))])?;
    row(out, &[("Audit directory", is(r.audit_dir.as_deref().unwrap_or("none (standard error only)")))])?;
    row(out, &[("Tunnels configured", is(r.tunnels_configured)), ("Tunnels up", is(r.tunnels_up))])?;
    row(out, &[("ISAKMP/MM SAs", is(r.isakmp_sas)), ("IPSec SAs", is(r.ipsec_sas))])?;
    let thousand = |limit: u32| is(format!("{limit} (thousand entries)"));
    row(out, &[("spd_soft", thousand(r.spd_soft)), ("spd_hard", thousand(r.spd_hard))])?;
    row(out, &[("Cache entries", is(r.cache_entries)), ("Cleartext leaks", is(r.cleartext_leaks))])?;
    counters(out, "Packets", &r.counters)
}

fn interface(out: &mut dyn Write, r: &InterfaceReport) -> io::Result<()> {
    banner(out, "IP Interface")?;
    row(out, &[("Interface Name", is(&r.name)), ("Index", may(&r.index))])?;
    row(out, &[("State", is(if r.up { "Up" } else { "Down" })), ("MTU", may(&r.mtu))])?;
    row(out, &[("IPSec", yes_no(r.ipsec)), ("IPSec TUN interface", yes_no(r.tun))])?;
    for address in &r.addresses {
        let bypassed = r.bypassed.contains(address).then(|| "Yes".to_string());
        row(out, &[("IP Address", is(address)), ("Bypass", bypassed)])?;
    }
    row(out, &[("Features", list(&r.features))])?;
    row(out, &[("Workers", may(&r.workers)), ("TUN queues", may(&r.tun_queues))])?;
    row(out, &[("Cleartext leaks", may(&r.cleartext_leaks))])?;
    counters(out, "Packets", &r.counters)
}

fn bypass(out: &mut dyn Write, r: &BypassEntry) -> io::Result<()> {
    banner(out, "Bypass List")?;
    let interfaces = r.interfaces.as_ref().map(|names| list(names).unwrap_or_else(|| "none has it".into()));
    row(out, &[("IP Address", is(&r.address)), ("Interface", interfaces)])
}

fn host(out: &mut dyn Write, r: &HostPolicyReport) -> io::Result<()> {
    banner(out, if r.active == Some(true) { "Active Host Policy Rule" } else { "Configured Host Policy Rule" })?;
    row(out, &[("Rule Name", is(&r.name)), ("ID", is(r.id))])?;
    row(out, &[("Priority", is(r.priority)), ("Cookie", is(r.cookie))])?;
    for selector in &r.selectors {
        addresses(out, selector, r.direction)?;
    }
    row(out, &[("Direction", is(r.direction)), ("Configuration line", may(&r.line))])?;
    row(out, &[("Interface", may(&r.interface))])?;
    let action = match r.action {
        PolicyAction::DynamicKeySa => "Dynamic key SA",
        PolicyAction::ManualKeySa => "Manual key SA",
        PolicyAction::Pass => "Pass",
        PolicyAction::Discard => "Discard",
    };
    row(out, &[("Action", is(action)), ("Tunnel Name", may(&r.tunnel))])?;
    row(out, &[("FLAGS", list(&r.flags))])?;
    let allowed = r.cache_entries_allowed.map_or_else(String::new, |n| format!(" ({n} entries)"));
    let share = r.cache_share.map(|percent| format!("{percent} %{allowed}"));
    row(out, &[("Cache Share", share), ("Cache entries", may(&r.cache_entries))])?;
    row(out, &[("Number of SA(s) Needed", r.sa_pairs_needed.map(|n| format!("{n} Pair(s)")))])?;
    let state = r.state.map(|s| match s {
        PolicyState::Ready => "Ready".to_string(),
        PolicyState::SpisNotEstablished => "SPI(s) Not Established".to_string(),
        PolicyState::SpisBeingEstablished => "SPI(s) Being Established".to_string(),
    });
    row(out, &[("State", state), ("Kernel Requests Queued", may(&r.kernel_requests_queued))])?;
    row(out, &[("Active Sessions Created", may(&r.active_sessions))])?;
    proposals(out, &r.proposals)?;
    sa_pairs(out, &r.sa_pairs)
}

/// Source and destination of packets in one direction: the roles of a selector's sides.
fn addresses(out: &mut dyn Write, r: &SelectorReport, direction: Direction) -> io::Result<()> {
    let local = (&r.local, r.local_ports);
    let remote = (&r.remote, r.remote_ports);
    let (source, destination) = match direction {
        Direction::Outbound => (local, remote),
        Direction::Inbound => (remote, local),
    };
    let (address, prefix) = split_prefix(source.0);
    row(out, &[("Src IP Addr", is(address)), ("Prefix", prefix)])?;
    row(out, &[("Src Port number", source.1.map(span))])?;
    let (address, prefix) = split_prefix(destination.0);
    row(out, &[("Dst IP Addr", is(address)), ("Prefix", prefix)])?;
    row(out, &[("Dst Port number", destination.1.map(span))])?;
    row(out, &[("Network Protocol", is(protocol_name(r.protocol)))])?;
    row(out, &[("ICMP Type", r.icmp_types.map(span)), ("ICMP Code", r.icmp_codes.map(span))])
}

/// HP-UX shows address and prefix apart; a range has no prefix.
fn split_prefix(address: &str) -> (&str, Option<String>) {
    match address.split_once('/') {
        Some((network, prefix)) => (network, is(prefix)),
        None if address.contains('-') => (address, None),
        None => (address, is(if address.contains(':') { 128 } else { 32 })),
    }
}

fn span<T: core::fmt::Display + PartialEq>((first, last): (T, T)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn proposals(out: &mut dyn Write, proposals: &[TransformNames]) -> io::Result<()> {
    for (transform, n) in proposals.iter().zip(1..) {
        heading(out, &format!("Proposal {n}"))?;
        row(out, &[("Transform", is(&transform.hpux)), ("Keyword", is(&transform.keyword))])?;
        lifetimes(out, transform.lifetime_seconds, transform.lifetime_kbytes)?;
    }
    Ok(())
}

fn lifetimes(out: &mut dyn Write, seconds: Option<u32>, kbytes: Option<u32>) -> io::Result<()> {
    row(out, &[("Lifetime Seconds", may(&seconds)), ("Lifetime Kbytes", may(&kbytes))])
}

fn sa_pairs(out: &mut dyn Write, pairs: &[SaPair]) -> io::Result<()> {
    for (pair, n) in pairs.iter().zip(1..) {
        heading(out, &format!("SA Pair Number {n}"))?;
        row(out, &[("SA Type", is(&pair.sa_type))])?;
        algorithms(out, &pair.transform)?;
        let spis = [("Outbound SPI", pair.outbound_spi.map(spi)), ("Inbound SPI", pair.inbound_spi.map(spi))];
        row(out, &spis)?;
    }
    Ok(())
}

fn algorithms(out: &mut dyn Write, r: &TransformNames) -> io::Result<()> {
    row(out, &[("Encryption Algorithm", is(&r.encryption))])?;
    row(out, &[("Authentication Algorithm", may(&r.authentication))])
}

fn tunnel(out: &mut dyn Write, r: &TunnelReport) -> io::Result<()> {
    banner(out, "Tunnel Policy Rule")?;
    row(out, &[("Rule Name", is(&r.name)), ("Configuration line", may(&r.line))])?;
    row(out, &[("Tunnel Source IP Addr", is(r.tsource))])?;
    row(out, &[("Tunnel Destination IP Addr", is(r.tdestination))])?;
    addresses(out, &r.selector, Direction::Outbound)?;
    let state = r.state.map(|s| match s {
        TunnelState::Down => "Down".to_string(),
        TunnelState::Negotiating => "Negotiating".to_string(),
        TunnelState::Up => "Up".to_string(),
    });
    row(out, &[("State", state), ("Since", may_in(&r.state_seconds, "seconds"))])?;
    if let Some(error) = &r.last_error {
        row(out, &[("Last Error", is(&error.text))])?;
        row(out, &[("Last Error Date", is(format!("{} ({} seconds ago)", error.date, error.age_seconds)))])?;
    }
    row(out, &[("Start", is(&r.start)), ("PFS", is(r.pfs.as_deref().unwrap_or("OFF")))])?;
    row(out, &[("IKE Policy", may(&r.ike_policy)), ("Auth Record", may(&r.auth_record))])?;
    row(out, &[("Packets Held", may(&r.packets_held)), ("Rekeys", may(&r.rekeys))])?;
    row(out, &[("Lifetime Packets", may(&r.lifetime_packets))])?;
    proposals(out, &r.proposals)?;
    sa_pairs(out, &r.sa_pairs)
}

fn ike(out: &mut dyn Write, r: &IkePolicyReport) -> io::Result<()> {
    banner(out, "IKE Policy Rule")?;
    row(out, &[("Rule Name", is(&r.name)), ("Priority", is(r.priority))])?;
    let (address, prefix) = split_prefix(&r.remote);
    row(out, &[("Remote IP Addr", is(address)), ("Prefix", prefix)])?;
    row(out, &[("Authentication Method", is(&r.authentication_method)), ("Configuration line", may(&r.line))])?;
    let max = if r.max_quick_modes == 0 { "no limit".into() } else { r.max_quick_modes.to_string() };
    row(out, &[("Lifetime Seconds", is(r.lifetime_seconds)), ("Maximum Quick Modes", Some(max))])?;
    row(out, &[("NAT Traversal", is(&r.nat_traversal)), ("Keepalive Seconds", is(r.keepalive_seconds))])?;
    let dpd = if r.dpd_seconds == 0 { "off".into() } else { format!("{} after {} s", r.dpd_mode, r.dpd_seconds) };
    row(out, &[("Dead Peer Detection", Some(dpd)), ("Action", is(&r.dpd_action))])?;
    let pieces = if r.fragment_size == 0 { "off".into() } else { format!("packets of {} octets", r.fragment_size) };
    let failed = format!("ISAKMP SA: {}", r.quick_mode_failure);
    row(out, &[("Fragmentation", Some(pieces)), ("Failed Quick Mode", Some(failed))])?;
    for (proposal, n) in r.proposals.iter().zip(1..) {
        heading(out, &format!("Proposal {n}"))?;
        ike_proposal(out, proposal)?;
    }
    Ok(())
}

fn auth(out: &mut dyn Write, r: &AuthReport) -> io::Result<()> {
    banner(out, "Auth Record")?;
    row(out, &[("Record Name", is(&r.name)), ("Configuration line", is(r.line))])?;
    let (address, prefix) = split_prefix(&r.remote);
    row(out, &[("Remote IP Addr", is(address)), ("Prefix", prefix)])?;
    let key = if r.preshared { "yes" } else { "no" };
    row(out, &[("Authentication Method", is(&r.authentication_method)), ("Pre-shared key", is(key))])?;
    let address = "the IP address";
    let (local, remote) = (r.local_id.as_deref().unwrap_or(address), r.remote_id.as_deref().unwrap_or(address));
    row(out, &[("Local ID", is(local)), ("Remote ID", is(remote))])?;
    if let Some(certificate) = &r.certificate {
        row(out, &[("Certificate", is(&certificate.name.subject)), ("Serial", is(&certificate.name.serial))])?;
        row(out, &[("Issuer", is(&certificate.name.issuer))])?;
        row(out, &[("Not Before", is(&certificate.not_before)), ("Not After", is(&certificate.not_after))])?;
        row(out, &[("File", is(&certificate.file))])?;
    }
    if let Some(xauth) = &r.xauth {
        row(out, &[("XAUTH", is(xauth))])?;
    }
    for authority in &r.authorities {
        row(out, &[("Authority", is(authority))])?;
    }
    for crl in &r.fetched_crls {
        let next = crl.next_update.as_deref().unwrap_or("never fetched");
        row(out, &[("CRL fetched from", is(&crl.url)), ("Next update", is(next))])?;
        row(out, &[("CRL Issuer", may(&crl.issuer))])?;
        row(out, &[("Last attempt", may(&crl.error))])?;
    }
    row(out, &[("CRL Policy", may(&r.crl_policy))])
}

fn lease(out: &mut dyn Write, r: &LeaseReport) -> io::Result<()> {
    banner(out, "Lease")?;
    row(out, &[("Pool", is(&r.pool)), ("Address", is(r.address))])?;
    row(out, &[("Owner", is(&r.owner)), ("Present", is(if r.present { "yes" } else { "no" }))])?;
    row(out, &[("Since", is(r.since.as_deref().unwrap_or("not known"))), ("Kept until", is(&r.ends))])
}

fn ike_proposal(out: &mut dyn Write, r: &IkeProposal) -> io::Result<()> {
    row(out, &[("Encryption Algorithm", is(&r.encryption)), ("Hash Algorithm", is(&r.hash))])?;
    row(out, &[("Oakley Group", is(r.group)), ("Keyword", is(&r.keyword))])
}

fn isakmp_sa(out: &mut dyn Write, r: &IsakmpSa) -> io::Result<()> {
    banner(out, "ISAKMP/MM SA")?;
    let state = match r.state {
        IsakmpState::Negotiating => "Negotiating",
        IsakmpState::Established => "Established",
        IsakmpState::Dying => "Dying",
    };
    row(out, &[("Sequence Number", is(r.sequence_number)), ("State", is(state))])?;
    let role = match r.role {
        Role::Initiator => "Initiator",
        Role::Responder => "Responder",
    };
    row(out, &[("Role", is(role)), ("Exchange", is(format!("{} (IKEv{})", r.exchange, r.ike_version)))])?;
    row(out, &[("Local IP Address", is(r.local.address)), ("Local Port", is(r.local.port))])?;
    row(out, &[("Remote IP Address", is(r.remote.address)), ("Remote Port", is(r.remote.port))])?;
    row(out, &[("Initiator Cookie", is(&r.initiator_cookie)), ("Responder Cookie", may(&r.responder_cookie))])?;
    row(out, &[("Local ID", may(&r.local_id)), ("Remote ID", may(&r.remote_id))])?;
    row(out, &[("Authentication Method", may(&r.authentication_method)), ("NAT", may(&r.nat))])?;
    if let Some(certificate) = &r.remote_certificate {
        row(out, &[("Remote Certificate", is(&certificate.subject)), ("Serial", is(&certificate.serial))])?;
        row(out, &[("Issuer", is(&certificate.issuer))])?;
    }
    if !r.vendor_ids.is_empty() {
        let fragmentation = if r.fragmentation { "yes" } else { "no" };
        row(out, &[("Fragmentation", is(fragmentation)), ("Peer Vendor IDs", is(r.vendor_ids.join(", ")))])?;
    }
    if let Some(user) = &r.remote_user {
        row(out, &[("Remote User", is(user))])?;
    }
    if let Some(address) = r.remote_inner_address {
        row(out, &[("Remote Inner Address", is(address))])?;
    }
    if let Some(address) = r.local_inner_address {
        let dns: Vec<_> = r.dns.iter().map(ToString::to_string).collect();
        row(out, &[("Local Inner Address", is(address)), ("DNS", is(dns.join(", ")))])?;
    }
    if let Some(proposal) = &r.proposal {
        ike_proposal(out, proposal)?;
    }
    life(out, &r.lifetime)?;
    let max = r.quick_modes.map(|_| r.max_quick_modes.map_or_else(|| "no limit".to_string(), |m| m.to_string()));
    row(out, &[("Quick Modes", may(&r.quick_modes)), ("Maximum Quick Modes", max)])?;
    row(out, &[("IKE Policy", may(&r.ike_policy)), ("Auth Record", may(&r.auth_record))])
}

fn ipsec_sa(out: &mut dyn Write, r: &IpsecSa) -> io::Result<()> {
    banner(out, "IPSec SA")?;
    row(out, &[("Sequence Number", is(r.sequence_number)), ("SPI", is(spi(r.spi)))])?;
    let state = match r.state {
        SaState::Larval => "Larval",
        SaState::Mature => "Mature",
        SaState::Dying => "Dying",
        SaState::Dead => "Dead",
    };
    row(out, &[("State", is(state)), ("Direction", is(r.direction))])?;
    row(out, &[("Security Association Type", is(&r.sa_type)), ("Mode", is(&r.mode))])?;
    row(out, &[("Src IP Addr", is(r.src)), ("Dst IP Addr", is(r.dst))])?;
    let ports = r.udp_encapsulation.map(|(source, destination)| format!("UDP {source} > {destination}"));
    row(out, &[("Encapsulation", ports)])?;
    row(out, &[("Transform", is(&r.transform.hpux)), ("Keyword", is(&r.transform.keyword))])?;
    algorithms(out, &r.transform)?;
    row(out, &[("PFS", may(&r.pfs)), ("Extended Sequence Numbers", r.esn.then(|| "Yes".to_string()))])?;
    row(out, &[("Tunnel Name", may(&r.tunnel)), ("Pair", may(&r.pair))])?;
    if let Some(selector) = &r.selector {
        row(out, &[("Local Selector", is(side(selector, &selector.local, selector.local_ports)))])?;
        row(out, &[("Remote Selector", is(side(selector, &selector.remote, selector.remote_ports)))])?;
    }
    life(out, &r.lifetime)?;
    row(out, &[("Packets", may(&r.packets)), ("Bytes", may(&r.bytes))])?;
    row(out, &[("Last Sequence Number", may(&r.last_sequence)), ("Replay Window", may(&r.replay_window))])?;
    row(out, &[("Idle", may_in(&r.idle_seconds, "seconds"))])?;
    counters(out, "Dropped", &r.drops)
}

/// One side of an SA's selector on a line: `10.1.0.0/16 TCP port 80`.
fn side(selector: &SelectorReport, address: &str, ports: Option<(u16, u16)>) -> String {
    let mut text = format!("{address} {}", protocol_name(selector.protocol));
    if let Some(ports) = ports {
        text.push_str(&format!(" port {}", span(ports)));
    }
    if let Some(types) = selector.icmp_types {
        text.push_str(&format!(" type {}", span(types)));
    }
    if let Some(codes) = selector.icmp_codes {
        text.push_str(&format!(" code {}", span(codes)));
    }
    text
}

fn life(out: &mut dyn Write, r: &SaLife) -> io::Result<()> {
    lifetimes(out, r.seconds, r.kbytes)?;
    row(out, &[("Lifetime Packets", may(&r.packets))])?;
    row(out, &[("Age", may_in(&r.age_seconds, "seconds")), ("Expires in", may_in(&r.remaining_seconds, "seconds"))])?;
    row(out, &[("Rekey in", may_in(&r.rekey_in_seconds, "seconds"))])
}

fn cache_table(out: &mut dyn Write, r: &CacheTable) -> io::Result<()> {
    banner(out, "Cache")?;
    row(out, &[("Entries", is(r.entries))])?;
    row(out, &[("Soft limit", is(r.soft_limit)), ("Hard limit", is(r.hard_limit))])?;
    let huge = r.octets_in_huge_pages.map_or_else(String::new, |octets| format!(" ({octets} octets)"));
    row(out, &[("Octets", is(r.octets)), ("Pages", is(format!("{}{huge}", r.pages)))])?;
    let (ipv4, ipv6) = (r.octets_at_hard_limit_ipv4, r.octets_at_hard_limit_ipv6);
    row(out, &[("Octets at the hard limit", is(format!("{ipv4} if all are of IPv4, {ipv6} if all are of IPv6")))])
}

fn cache(out: &mut dyn Write, r: &CacheRecord) -> io::Result<()> {
    banner(out, "Cache Policy Rule")?;
    row(out, &[("Cache Policy Record", is(r.record)), ("Cookie", is(r.cookie))])?;
    row(out, &[("Rule Name", may(&r.policy))])?;
    row(out, &[("Src IP Address", is(r.src)), ("Src Port number", may(&r.src_port))])?;
    row(out, &[("Dst IP Address", is(r.dst)), ("Dst Port number", may(&r.dst_port))])?;
    row(out, &[("ICMP Type", may(&r.icmp_type)), ("ICMP Code", may(&r.icmp_code))])?;
    row(out, &[("Network Protocol", is(protocol_name(Some(r.protocol)))), ("Direction", is(r.direction))])?;
    row(out, &[("Interface", may(&r.interface))])?;
    row(out, &[("Fragments without ports", r.fragment.then(|| "Yes".to_string()))])?;
    let action = match r.action {
        CacheAction::Secure => "Secure",
        CacheAction::Pass => "Pass",
        CacheAction::Discard => "Discard",
    };
    row(out, &[("Action", is(action)), ("Tunnel Name", may(&r.tunnel))])?;
    row(out, &[("Reason", may(&r.reason))])?;
    row(out, &[("Packets", may(&r.packets)), ("Idle", may_in(&r.idle_seconds, "seconds"))])?;
    for (sa, n) in r.sas.iter().zip(1..) {
        heading(out, &format!("SA Number {n}"))?;
        let state = match sa.state {
            CacheSaState::Created => "SA Created",
            CacheSaState::Requested => "SA Requested",
        };
        row(out, &[("State", is(state)), ("SA Type", is(&sa.sa_type))])?;
        row(out, &[("Tunnel SA", yes_no(sa.tunnel)), ("SPI", sa.spi.map(spi))])?;
        row(out, &[("Src IP Address", is(sa.src)), ("Dst IP Address", is(sa.dst))])?;
    }
    Ok(())
}
