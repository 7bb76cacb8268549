//! Records of every section, for the tests of reports and commands.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use tools::report::*;

fn address(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

pub(crate) fn transform(lifetimes: bool) -> TransformNames {
    TransformNames {
        hpux: "ESP_AES128_HMAC_SHA1".into(),
        keyword: "aes128-sha1".into(),
        encryption: "AES128".into(),
        authentication: Some("HMAC_SHA1".into()),
        lifetime_seconds: lifetimes.then_some(28_800),
        lifetime_kbytes: lifetimes.then_some(0),
    }
}

fn aead() -> TransformNames {
    TransformNames {
        hpux: "ESP_AES256_GCM16".into(),
        keyword: "aes256gcm16".into(),
        encryption: "AES256_GCM16".into(),
        authentication: None,
        lifetime_seconds: Some(3600),
        lifetime_kbytes: Some(1_000_000),
    }
}

fn proposal() -> IkeProposal {
    IkeProposal { keyword: "aes128-sha1-modp2048".into(), encryption: "AES128".into(), hash: "SHA1".into(), group: 14 }
}

fn selector() -> SelectorReport {
    SelectorReport {
        local: "10.78.1.0/24".into(),
        remote: "10.78.2.0/24".into(),
        protocol: None,
        local_ports: None,
        remote_ports: None,
        icmp_types: None,
        icmp_codes: None,
    }
}

fn web() -> SelectorReport {
    SelectorReport {
        local: "10.1.1.1-10.1.1.3".into(),
        remote: "fd00::1".into(),
        protocol: Some(6),
        local_ports: Some((1024, 65535)),
        remote_ports: Some((80, 80)),
        ..selector()
    }
}

fn pair() -> SaPair {
    SaPair {
        sa_type: "ESP".into(),
        transform: transform(false),
        outbound_spi: Some(0x1f3),
        inbound_spi: Some(0x2d_c6bf),
    }
}

pub(crate) fn status() -> Record {
    Record::Status(Box::new(Status {
        daemon_version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 86_461,
        config: "/etc/caponier/caponier.toml".into(),
        config_loaded: Some("2026-11-21T02:54:19Z".into()),
        audit_level: ::policy::audit::Level::Error,
        audit_dir: None,
        audit_lost: 0,
        cache_entries: 12,
        spd_soft: 900,
        spd_hard: 1000,
        isakmp_sas: 1,
        ipsec_sas: 2,
        tunnels_up: 1,
        tunnels_configured: 2,
        cleartext_leaks: 0,
        counters: BTreeMap::from([("sent".into(), 1000), ("policy_discard".into(), 7)]),
    }))
}

fn ip() -> Vec<Record> {
    vec![
        Record::Ip(InterfaceReport {
            name: "caponier0".into(),
            index: Some(3),
            up: true,
            ipsec: true,
            tun: true,
            mtu: Some(1422),
            addresses: vec![],
            bypassed: vec![],
            features: vec!["vnet_hdr".into(), "multi_queue".into()],
            workers: Some(2),
            tun_queues: Some(2),
            cleartext_leaks: Some(0),
            counters: BTreeMap::from([("received".into(), 990), ("replayed".into(), 3)]),
        }),
        Record::Ip(InterfaceReport {
            name: "eth0".into(),
            index: Some(2),
            up: false,
            ipsec: false,
            tun: false,
            mtu: None,
            addresses: vec![address("10.77.0.1"), address("fe80::1")],
            bypassed: vec![address("10.77.0.1")],
            features: vec![],
            workers: None,
            tun_queues: None,
            cleartext_leaks: None,
            counters: BTreeMap::new(),
        }),
    ]
}

fn cache_table() -> Vec<Record> {
    vec![Record::CacheTable(Box::new(CacheTable {
        entries: 12,
        soft_limit: 900_000,
        hard_limit: 1_000_000,
        octets: 1_302_528,
        octets_at_hard_limit_ipv4: 100_000_000,
        octets_at_hard_limit_ipv6: 200_000_000,
        pages: PageKind::Huge,
        octets_in_huge_pages: Some(0),
    }))]
}

fn bypass() -> Vec<Record> {
    vec![
        Record::Bypass(BypassEntry { address: "10.77.0.1".into(), interfaces: Some(vec!["eth0".into()]) }),
        Record::Bypass(BypassEntry { address: "192.0.2.0/24".into(), interfaces: Some(vec![]) }),
        Record::Bypass(BypassEntry { address: "198.51.100.1".into(), interfaces: None }),
    ]
}

fn host() -> Vec<Record> {
    let outbound = HostPolicyReport {
        name: "to_b".into(),
        id: 1,
        priority: 10,
        cookie: 2,
        direction: Direction::Outbound,
        active: Some(true),
        selectors: vec![selector(), web()],
        interface: Some("caponier0".into()),
        action: PolicyAction::DynamicKeySa,
        flags: vec!["EXCLUSIVE".into()],
        tunnel: Some("b".into()),
        sa_pairs_needed: Some(1),
        state: Some(PolicyState::SpisBeingEstablished),
        kernel_requests_queued: Some(2),
        active_sessions: Some(4),
        proposals: vec![transform(true), aead()],
        sa_pairs: vec![pair()],
        cache_share: Some(25),
        cache_entries_allowed: Some(250_000),
        cache_entries: Some(9),
        line: Some(17),
    };
    let inbound = HostPolicyReport {
        direction: Direction::Inbound,
        selectors: vec![web()],
        sa_pairs_needed: None,
        state: None,
        kernel_requests_queued: None,
        active_sessions: None,
        proposals: vec![],
        sa_pairs: vec![],
        flags: vec![],
        ..outbound.clone()
    };
    let default = HostPolicyReport {
        name: "default".into(),
        id: 2,
        priority: 0,
        cookie: 1,
        active: None,
        interface: None,
        selectors: vec![SelectorReport { local: "0.0.0.0/0".into(), remote: "0.0.0.0/0".into(), ..selector() }],
        action: PolicyAction::Pass,
        tunnel: None,
        cache_share: None,
        cache_entries_allowed: None,
        cache_entries: None,
        line: None,
        ..inbound.clone()
    };
    [outbound, inbound, default].map(Box::new).map(Record::Host).into()
}

fn tunnel() -> Vec<Record> {
    let up = TunnelReport {
        name: "b".into(),
        tsource: address("10.77.0.1"),
        tdestination: address("10.77.0.2"),
        selector: selector(),
        proposals: vec![transform(true)],
        lifetime_packets: Some(5_000_000),
        pfs: Some("modp2048".into()),
        start: "boot".into(),
        state: Some(TunnelState::Up),
        state_seconds: Some(60),
        last_error: None,
        packets_held: Some(0),
        rekeys: Some(3),
        sa_pairs: vec![pair()],
        ike_policy: Some("peers".into()),
        auth_record: Some("b".into()),
        line: Some(9),
    };
    let down = TunnelReport {
        name: "c".into(),
        tdestination: address("10.77.0.3"),
        lifetime_packets: None,
        pfs: None,
        start: "traffic".into(),
        state: Some(TunnelState::Down),
        state_seconds: Some(7),
        last_error: Some(TunnelError {
            text: "MM negotiation timeout, src 10.77.0.3: no answer to 6 messages in 31 seconds".into(),
            date: "2026-11-21T02:54:19Z".into(),
            age_seconds: 7,
        }),
        packets_held: Some(0),
        rekeys: None,
        sa_pairs: vec![],
        line: None,
        ..up.clone()
    };
    [up, down].map(Box::new).map(Record::Tunnel).into()
}

fn ike() -> Vec<Record> {
    vec![Record::Ike(Box::new(IkePolicyReport {
        name: "peers".into(),
        priority: 10,
        remote: "10.77.0.0/24".into(),
        authentication_method: "PSK".into(),
        proposals: vec![proposal()],
        lifetime_seconds: 28_800,
        max_quick_modes: 0,
        nat_traversal: "auto".into(),
        keepalive_seconds: 20,
        fragment_size: 1280,
        dpd_seconds: 30,
        dpd_mode: "demand".into(),
        dpd_action: "hold".into(),
        quick_mode_failure: "keep".into(),
        line: Some(30),
    }))]
}

fn auth() -> Vec<Record> {
    let keyed = AuthReport {
        name: "b".into(),
        remote: "10.77.0.2".into(),
        authentication_method: "PSK".into(),
        preshared: true,
        local_id: None,
        remote_id: None,
        certificate: None,
        authorities: vec![],
        crl_policy: None,
        xauth: Some("client, user alice".into()),
        fetched_crls: Vec::new(),
        line: 40,
    };
    let certified = AuthReport {
        name: "peers".into(),
        remote: "10.77.0.0/24".into(),
        authentication_method: "ECDSA256, PSK".into(),
        local_id: Some("gw.example.com".into()),
        remote_id: Some("C=DE, O=Lab, *".into()),
        certificate: Some(OwnCertificate {
            name: CertificateReport {
                subject: "C=DE, O=Lab, CN=gw".into(),
                serial: "0af3".into(),
                issuer: "C=DE, CN=CA".into(),
            },
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: "2027-01-01T00:00:00Z".into(),
            file: "/etc/caponier/gw.pem".into(),
        }),
        authorities: vec!["C=DE, CN=CA".into(), "C=DE, CN=Other CA".into()],
        crl_policy: Some("strict".into()),
        fetched_crls: vec![FetchedCrl {
            url: "http://crl.example.com/ca.crl".into(),
            issuer: Some("C=DE, CN=CA".into()),
            next_update: Some("2026-02-01T00:00:00Z".into()),
            error: Some("io: Connection refused".into()),
        }],
        line: 45,
        ..keyed.clone()
    };
    [keyed, certified].map(Box::new).map(Record::Auth).into()
}

fn mad() -> Vec<Record> {
    let established = IsakmpSa {
        sequence_number: 1,
        state: IsakmpState::Established,
        role: Role::Responder,
        ike_version: 1,
        exchange: "Main Mode".into(),
        local: Endpoint { address: address("10.77.0.1"), port: 4500 },
        remote: Endpoint { address: address("10.77.0.2"), port: 31_337 },
        initiator_cookie: "0123456789abcdef".into(),
        responder_cookie: Some("fedcba9876543210".into()),
        authentication_method: Some("PSK".into()),
        proposal: Some(proposal()),
        local_id: Some("10.77.0.1".into()),
        // A peer may call itself what it likes.
        remote_id: Some("evil\u{1b}[2J".into()),
        remote_certificate: Some(CertificateReport {
            subject: "C=DE, CN=evil\u{1b}[2J".into(),
            serial: "0af3".into(),
            issuer: "C=DE, CN=CA".into(),
        }),
        remote_user: Some("evil\u{1b}[2J".into()),
        remote_inner_address: Some(address("10.3.0.1")),
        local_inner_address: Some(address("10.3.0.2")),
        dns: vec![address("10.1.0.53")],
        fragmentation: true,
        vendor_ids: vec!["strongSwan".into(), "DPD".into(), "FRAGMENTATION".into()],
        nat: Some("remote".into()),
        lifetime: SaLife {
            packets: None,
            seconds: Some(28_800),
            kbytes: None,
            age_seconds: Some(100),
            remaining_seconds: Some(28_700),
            rekey_in_seconds: Some(25_820),
        },
        quick_modes: Some(2),
        max_quick_modes: Some(100),
        ike_policy: Some("peers".into()),
        auth_record: Some("b".into()),
    };
    let negotiating = IsakmpSa {
        sequence_number: 2,
        state: IsakmpState::Negotiating,
        role: Role::Initiator,
        responder_cookie: None,
        authentication_method: None,
        proposal: None,
        local_id: None,
        remote_id: None,
        remote_certificate: None,
        remote_user: None,
        remote_inner_address: None,
        local_inner_address: None,
        dns: vec![],
        nat: None,
        lifetime: SaLife::default(),
        quick_modes: None,
        max_quick_modes: None,
        ..established.clone()
    };
    [established, negotiating].map(Box::new).map(Record::Mad).into()
}

fn sad() -> Vec<Record> {
    let inbound = IpsecSa {
        sequence_number: 1,
        spi: 0x2d_c6bf,
        state: SaState::Mature,
        sa_type: "ESP".into(),
        direction: Direction::Inbound,
        mode: "Tunnel".into(),
        src: address("10.77.0.2"),
        dst: address("10.77.0.1"),
        udp_encapsulation: Some((31_337, 4500)),
        transform: transform(false),
        pfs: Some("modp2048".into()),
        selector: Some(SelectorReport { protocol: Some(6), remote_ports: Some((80, 90)), ..selector() }),
        tunnel: Some("b".into()),
        pair: Some(1),
        esn: false,
        replay_window: Some(1024),
        last_sequence: Some(77),
        lifetime: SaLife {
            packets: Some(5_000_000),
            seconds: Some(28_800),
            kbytes: Some(1_000_000),
            age_seconds: Some(61),
            remaining_seconds: Some(28_739),
            rekey_in_seconds: Some(25_859),
        },
        packets: Some(70),
        bytes: Some(65_536),
        idle_seconds: Some(0),
        drops: BTreeMap::from([("replayed".into(), 3), ("not_authentic".into(), 1)]),
    };
    let outbound = IpsecSa {
        sequence_number: 2,
        spi: 0x1f3,
        state: SaState::Dying,
        direction: Direction::Outbound,
        src: address("fd00::1"),
        dst: address("fd00::2"),
        udp_encapsulation: None,
        transform: TransformNames { lifetime_seconds: None, lifetime_kbytes: None, ..aead() },
        pfs: None,
        selector: None,
        esn: true,
        replay_window: None,
        lifetime: SaLife::default(),
        idle_seconds: None,
        drops: BTreeMap::new(),
        ..inbound.clone()
    };
    [inbound, outbound].map(Box::new).map(Record::Sad).into()
}

pub(crate) fn cache_record(number: u64) -> CacheRecord {
    CacheRecord {
        record: number,
        cookie: 2,
        policy: Some("to_b".into()),
        src: address("10.78.1.1"),
        src_port: Some(49_152),
        dst: address("10.78.2.1"),
        dst_port: Some(80),
        icmp_type: None,
        icmp_code: None,
        fragment: false,
        protocol: 6,
        direction: Direction::Outbound,
        interface: Some("caponier0".into()),
        action: CacheAction::Secure,
        reason: None,
        tunnel: Some("b".into()),
        sas: vec![CacheSa {
            state: CacheSaState::Created,
            sa_type: "ESP".into(),
            tunnel: true,
            spi: Some(0x1f3),
            src: address("10.77.0.1"),
            dst: address("10.77.0.2"),
        }],
        packets: Some(70),
        idle_seconds: Some(1),
    }
}

fn cache() -> Vec<Record> {
    let secure = cache_record(1);
    let ping = CacheRecord {
        record: 2,
        src_port: None,
        dst_port: None,
        icmp_type: Some(8),
        icmp_code: Some(0),
        protocol: 1,
        sas: vec![CacheSa { state: CacheSaState::Requested, spi: None, ..secure.sas[0].clone() }],
        ..secure.clone()
    };
    let fragment = CacheRecord {
        record: 3,
        cookie: 1,
        policy: None,
        src_port: None,
        dst_port: None,
        fragment: true,
        protocol: 17,
        direction: Direction::Inbound,
        action: CacheAction::Discard,
        reason: Some("fragment_ports_hidden".into()),
        tunnel: None,
        sas: vec![],
        packets: None,
        idle_seconds: None,
        ..secure.clone()
    };
    [secure, ping, fragment].map(Box::new).map(Record::Cache).into()
}

fn pool() -> Vec<Record> {
    let present = LeaseReport {
        pool: "clients".into(),
        address: address("10.79.0.1"),
        owner: "alice".into(),
        present: true,
        since: Some("2026-11-01T08:00:00Z".into()),
        ends: "2026-11-22T02:54:26Z".into(),
    };
    let absent = LeaseReport {
        address: address("10.79.0.2"),
        owner: "bob".into(),
        present: false,
        since: None,
        ..present.clone()
    };
    [present, absent].map(Box::new).map(Record::Pool).into()
}

/// Records of one section that between them have every field.
pub(crate) fn of(section: Section) -> Vec<Record> {
    match section {
        Section::Status => vec![status()],
        Section::Ip => ip(),
        Section::Bypass => bypass(),
        Section::Host => host(),
        Section::Tunnel => tunnel(),
        Section::Ike => ike(),
        Section::Auth => auth(),
        Section::Pool => pool(),
        Section::Mad => mad(),
        Section::Sad => sad(),
        Section::CacheTable => cache_table(),
        Section::Cache => cache(),
    }
}
