//! Configurations that are accepted, and what they mean.

use policy::audit::Level;
use policy::config::{
    Checked, Config, DefaultAction, DfPolicy, Dpd, DpdAction, HostAction, Identity, NatTraversal, QuickModeFailure,
    RevocationPolicy, StartMode, Startup,
};
use policy::sa::Mode;
use policy::selector::{AddressRange, PortSelector};

/// The smallest configuration with a tunnel, without its host policy.
const TUNNEL: &str = r#"
[[tunnel]]
name = "t"
tsource = "10.77.0.1"
tdestination = "10.77.0.2"
source = "10.78.1.0/24"
destination = "10.78.2.0/24"
[[ike]]
name = "i"
remote = "10.77.0.2"
[[auth]]
name = "a"
remote = "10.77.0.2"
preshared = "0123456789abcdef"
"#;

fn checked(text: &str) -> Checked {
    match Config::parse(text, "test.toml") {
        Ok(checked) => checked,
        Err(found) => panic!("{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// A configuration that must not even warn.
fn clean(text: &str) -> Config {
    let Checked { config, warnings } = checked(text);
    assert!(warnings.is_empty(), "{}", warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    config
}

const A: &str = include_str!("../../examples/two-hosts/a.toml");
const B: &str = include_str!("../../examples/two-hosts/b.toml");
const REFERENCE: &str = include_str!("../../examples/reference.toml");

/// Selectors of a host policy with these lines in it, as text.
fn selectors(lines: &str) -> Vec<String> {
    let config = checked(&format!("[[host]]\nname = \"h\"\n{lines}\naction = \"PASS\"\n")).config;
    config.hosts[0].selectors.iter().map(ToString::to_string).collect()
}

#[test]
fn two_hosts_mirror_each_other() {
    let (a, b) = (clean(A), clean(B));
    let (t, u) = (&a.tunnels[0], &b.tunnels[0]);
    assert_eq!((t.tsource, t.tdestination), (u.tdestination, u.tsource));
    assert_eq!((t.selector.local, t.selector.remote), (u.selector.remote, u.selector.local));
    assert_eq!(t.transforms, u.transforms);
    assert_eq!(a.ikes[0].proposals, b.ikes[0].proposals);
    assert_eq!(a.auths[0].preshared, b.auths[0].preshared);
    assert_eq!(t.tsource.to_string(), "10.77.0.1");
    assert_eq!(t.selector.to_string(), "10.78.1.0/24 <=> 10.78.2.0/24");
    assert!(matches!(&a.hosts[0].action, HostAction::Tunnel(named) if named.name == t.name));
}

#[test]
fn the_reference_has_every_key_and_its_stated_default() {
    let reference = clean(REFERENCE);
    let (given, default) = (&reference.startup, Startup::default());
    assert_eq!(given.audit_level, default.audit_level);
    assert_eq!(given.audit_max_kbytes, default.audit_max_kbytes);
    assert_eq!((given.spd_soft, given.spd_hard), (default.spd_soft, default.spd_hard));
    assert_eq!((given.spi_min, given.spi_max), (default.spi_min, default.spi_max));
    assert_eq!(given.interface, default.interface);
    assert_eq!(given.replay_window, default.replay_window);
    assert_eq!(given.df, default.df);
    assert_eq!(given.workers, default.workers);
    assert_eq!((given.ike_port, given.natt_port), (default.ike_port, default.natt_port));
    assert_eq!(given.hold_queue, default.hold_queue);
    assert_eq!(given.cache_idle_seconds, default.cache_idle_seconds);
    assert_eq!(reference.default_cache_share, Some(100));
    assert_eq!(reference.hosts[0].cache_share, Some(25));
    assert_eq!(reference.hosts[0].selectors.len(), 2);
    assert_eq!(reference.hosts[1].selectors[0].ports, PortSelector::Icmp { kind: (8, 8), code: (0, 0) });
    let transforms: Vec<_> = reference.tunnels[0].transforms.iter().map(|t| (t.to_string(), t.keyword())).collect();
    assert_eq!(
        transforms,
        [
            ("ESP_AES256_GCM16/3600/0".to_owned(), "aes256gcm16-modp2048".to_owned()),
            ("ESP_AES128_HMAC_SHA1/28800/0".to_owned(), "aes128-sha1-modp2048".to_owned()),
        ]
    );
    assert_eq!(reference.auths[0].local_id, Some(Identity::Fqdn("hq.example.com".into())));
    assert_eq!(reference.auths[0].remote_id, Some(Identity::UserFqdn("gateway@branch.example.com".into()).into()));
    assert_eq!(reference.auths[0].preshared.as_ref().map(|k| k.len()), Some(16));
}

#[test]
fn startup_defaults_are_those_of_hpux() {
    let s = Startup::default();
    assert_eq!(s.audit_level, Level::Error);
    assert_eq!(s.audit_max_kbytes, 100);
    assert_eq!((s.spi_min, s.spi_max), (300, 2_500_000));
    assert_eq!((s.replay_window, s.df, s.hold_queue, s.cache_idle_seconds), (1024, DfPolicy::Copy, 64, 300));
    assert!(!s.allow_short_lifetimes && s.mtu.is_none() && s.export_keys.is_none() && s.audit_dir.is_none());
}

#[test]
fn workers_are_a_number_or_left_to_the_daemon() {
    let workers = |text: &str| checked(&format!("[startup]\n{text}\n")).config.startup.workers;
    assert_eq!((workers(""), workers("workers = \"Auto\""), workers("workers = 7")), (None, None, Some(7)));
}

#[test]
fn one_cache_limit_takes_the_other_with_it() {
    let limits = |text: &str| {
        let s = checked(&format!("[startup]\n{text}\n")).config.startup;
        (s.spd_soft, s.spd_hard)
    };
    assert_eq!(limits("spd_hard = 5"), (5, 5));
    assert_eq!(limits("spd_soft = 2000"), (2000, 2000));
    assert_eq!(limits("spd_soft = 1\nspd_hard = 2"), (1, 2));
}

#[test]
fn a_policy_may_have_a_share_of_the_cache() {
    let text = "[default]\ncache_share = 50\n[[host]]\nname = \"a\"\ncache_share = 1\n[[host]]\nname = \"b\"\n";
    let config = checked(text).config;
    assert_eq!((config.default_cache_share, config.default_action), (Some(50), DefaultAction::Pass));
    assert_eq!([&config.hosts[0], &config.hosts[1]].map(|h| h.cache_share), [Some(1), None]);
    let spd = policy::spd::Spd::compile(&config, 1);
    assert_eq!([0, 1, 2, 3].map(|cookie| spd.cache_share(cookie)), [None, Some(50), Some(1), None]);
}

#[test]
fn an_omitted_action_drops_and_no_match_passes() {
    let config = checked("[[host]]\nname = \"h\"\nsource = \"10.0.0.1\"\n").config;
    assert!(matches!(config.hosts[0].action, HostAction::Discard));
    assert_eq!(config.default_action, DefaultAction::Pass);
    assert_eq!(checked("[default]\naction = \"discard\"\n").config.default_action, DefaultAction::Discard);
}

#[test]
fn a_tunnel_needs_no_action() {
    for action in ["", "action = \"PASS\"\n"] {
        let text = format!(
            "[[host]]\nname=\"h\"\nsource=\"10.78.1.0/24\"\ndestination=\"10.78.2.0/24\"\n{action}tunnel=\"t\"\n{TUNNEL}"
        );
        assert!(matches!(clean(&text).hosts[0].action, HostAction::Tunnel(_)));
    }
}

#[test]
fn dead_peer_detection_and_failed_quick_modes() {
    let text = |ike: &str| {
        format!(
            "[[host]]\nname=\"h\"\nsource=\"10.78.1.0/24\"\ndestination=\"10.78.2.0/24\"\ntunnel=\"t\"\n{}",
            TUNNEL.replace("[[ike]]\n", &format!("[[ike]]\n{ike}\n"))
        )
    };
    let ike = |lines: &str| clean(&text(lines)).ikes[0].clone();
    let all = ike("dpd = 0\ndpd_mode = \"periodic\"\ndpd_action = \"restart\"\nquick_mode_failure = \"delete\"");
    assert_eq!(all.dpd, Dpd { seconds: 0, periodic: true, action: DpdAction::Restart });
    assert_eq!(all.quick_mode_failure, QuickModeFailure::Delete);
    assert_eq!(ike("dpd_action = \"clear\"").dpd, Dpd { action: DpdAction::Clear, ..Dpd::DEFAULT });
    for bad in ["dpd = 3601", "dpd_mode = \"never\"", "dpd_action = \"trap\"", "quick_mode_failure = 1"] {
        let key = bad.split(' ').next().unwrap();
        let errors = Config::parse(&text(bad), "test.toml").unwrap_err();
        assert!(errors.iter().any(|e| e.to_string().contains(&format!("`{key}`"))), "{bad}: {errors:?}");
    }
}

#[test]
fn tunnel_defaults() {
    let text =
        format!("[[host]]\nname=\"h\"\nsource=\"10.78.1.0/24\"\ndestination=\"10.78.2.0/24\"\ntunnel=\"t\"\n{TUNNEL}");
    let config = clean(&text);
    let t = &config.tunnels[0];
    assert_eq!(t.transforms.len(), 1);
    assert_eq!(t.transforms[0].to_string(), "ESP_AES128_HMAC_SHA1/28800/0");
    assert_eq!(t.start, StartMode::Traffic);
    let i = &config.ikes[0];
    assert_eq!(i.proposals.iter().map(ToString::to_string).collect::<Vec<_>>(), ["aes128-sha1-modp2048"]);
    assert_eq!((i.lifetime.seconds, i.lifetime.kbytes), (28800, 0));
    assert_eq!((i.max_quick_modes, i.nat_traversal, i.keepalive_seconds), (100, NatTraversal::Auto, 20));
    assert_eq!((i.dpd, i.quick_mode_failure), (Dpd::DEFAULT, QuickModeFailure::Keep));
    assert_eq!(config.auths[0].preshared.as_ref().map(|k| k.expose().to_vec()), Some(b"0123456789abcdef".to_vec()));
}

#[test]
fn a_lifetime_in_packets() {
    let text = |startup: &str, line: &str| {
        format!(
            "[startup]\n{startup}\n[[host]]\nname=\"h\"\nsource=\"10.78.1.0/24\"\ndestination=\"10.78.2.0/24\"\ntunnel=\"t\"\n{}",
            TUNNEL.replace("[[tunnel]]\n", &format!("[[tunnel]]\n{line}\n"))
        )
    };
    let packets = |startup: &str, line: &str| {
        let parsed = Config::parse(&text(startup, line), "test.toml");
        parsed.map(|checked| checked.config.tunnels[0].packets).map_err(|errors| errors[0].to_string())
    };
    assert_eq!(packets("", ""), Ok(0));
    assert_eq!(packets("", "lifetime_packets = 0"), Ok(0));
    assert_eq!(packets("", "lifetime_packets = 100000000"), Ok(100_000_000));
    assert_eq!(packets("allow_short_lifetimes = true", "lifetime_packets = 10"), Ok(10));
    for bad in ["9999", "-1", "\"10000\"", "4294967296"] {
        let error = packets("", &format!("lifetime_packets = {bad}")).unwrap_err();
        assert!(error.contains("`lifetime_packets`"), "{bad}: {error}");
    }
}

#[test]
fn transport_mode_is_between_the_end_points_alone() {
    let ends = "tsource = \"10.77.0.1\"\ntdestination = \"10.77.0.2\"\nmode = \"TRANSPORT\"\n";
    let sides = "source = \"10.77.0.1\"\ndestination = \"10.77.0.2\"\n";
    let peer = &TUNNEL[TUNNEL.find("[[ike]]").expect("an IKE policy")..];
    for inside in ["", sides, "source = \"10.77.0.1\"\n"] {
        let text = format!("[[host]]\nname=\"h\"\n{sides}tunnel=\"t\"\n[[tunnel]]\nname=\"t\"\n{ends}{inside}{peer}");
        let config = clean(&text);
        assert_eq!(config.tunnels[0].mode, Mode::Transport);
        assert_eq!(config.tunnels[0].selector.to_string(), "10.77.0.1 <=> 10.77.0.2", "{inside}");
    }
    let text =
        format!("[[host]]\nname=\"h\"\nsource=\"10.78.1.0/24\"\ndestination=\"10.78.2.0/24\"\ntunnel=\"t\"\n{TUNNEL}");
    assert_eq!(clean(&text).tunnels[0].mode, Mode::Tunnel);
}

#[test]
fn transforms_as_the_action_of_a_host_policy_mean_transport_mode() {
    let peer = &TUNNEL[TUNNEL.find("[[ike]]").expect("an IKE policy")..];
    let text = format!(
        "[[host]]\nname=\"h\"\nsource=\"10.77.0.1\"\ndestination=\"10.77.0.2/32/80\"\nprotocol=\"TCP\"\n\
         action=[\"ESP_AES256_HMAC_SHA1/3600\", \"aes128-sha1\"]\n{peer}"
    );
    let config = clean(&text);
    let t = &config.tunnels[0];
    assert!(matches!(&config.hosts[0].action, HostAction::Tunnel(of_host) if of_host.name == t.name));
    assert_eq!((&*t.name, t.mode, t.line), ("h", Mode::Transport, 1));
    assert_eq!((t.tsource.to_string(), t.tdestination.to_string()), ("10.77.0.1".into(), "10.77.0.2".into()));
    assert_eq!(vec![t.selector.clone()], config.hosts[0].selectors);
    assert_eq!(t.transforms.iter().map(|t| t.lifetime.seconds).collect::<Vec<_>>(), [3600, 28800]);
}

#[test]
fn a_tunnel_without_addresses_is_for_everything_of_the_family_of_its_ends() {
    let open = |from: &str, to: &str| {
        let text = format!(
            "[[tunnel]]\nname=\"t\"\ntsource=\"{from}\"\ntdestination=\"{to}\"\n\
             [[ike]]\nname=\"i\"\nremote=\"{to}\"\n[[auth]]\nname=\"a\"\nremote=\"{to}\"\npreshared=\"0123456789abcdef\"\n"
        );
        checked(&text).config.tunnels[0].selector.clone()
    };
    assert_eq!(open("10.0.0.1", "10.0.0.2").local, AddressRange::ANY_V4);
    assert_eq!(open("fd00::1", "fd00::2").remote, AddressRange::ANY_V6);
}

#[test]
fn either_family_may_be_inside_either() {
    let text = format!(
        "[[host]]\nname=\"h\"\nsource=\"fd01::/64\"\ndestination=\"fd02::/64\"\ntunnel=\"t\"\n{}",
        TUNNEL.replace("10.78.1.0/24", "fd01::/64").replace("10.78.2.0/24", "fd02::/64")
    );
    assert_eq!(clean(&text).tunnels[0].selector.to_string(), "fd01::/64 <=> fd02::/64");
}

#[test]
fn what_is_left_out_is_everything() {
    assert_eq!(selectors(""), ["0.0.0.0/0 <=> 0.0.0.0/0", "::/0 <=> ::/0"]);
    assert_eq!(selectors("source = \"10.0.0.0/8\""), ["10.0.0.0/8 <=> 0.0.0.0/0"]);
    assert_eq!(selectors("destination = \"fd00::1\""), ["::/0 <=> fd00::1"]);
    assert_eq!(selectors("protocol = \"ICMP\""), ["0.0.0.0/0 <=> 0.0.0.0/0 protocol 1"]);
    assert_eq!(selectors("protocol = \"icmpv6\""), ["::/0 <=> ::/0 protocol 58"]);
}

#[test]
fn addresses_multiply_and_ports_stay_with_theirs() {
    assert_eq!(
        selectors("source = [\"10.0.0.1\", \"10.0.0.2/32/22\"]\ndestination = [\"10.1.0.0/16\"]\nprotocol = \"TCP\""),
        ["10.0.0.1 <=> 10.1.0.0/16 protocol 6", "10.0.0.2 <=> 10.1.0.0/16 protocol 6 local port 22"]
    );
    assert_eq!(
        selectors("destination = \"10.1.1.1/32/8000-8080\"\nprotocol = 17"),
        ["0.0.0.0/0 <=> 10.1.1.1 protocol 17 remote port 8000-8080"]
    );
    // Port 0 is any port, and protocol 0 any protocol.
    assert_eq!(selectors("destination = \"10.1.1.1/32/0\"\nprotocol = 0"), ["0.0.0.0/0 <=> 10.1.1.1"]);
}

#[test]
fn icmp_types_and_codes() {
    let only = |lines: &str| selectors(lines).pop();
    assert_eq!(
        only("protocol = \"ICMP\"\nicmp_type = \"echo-request\"").as_deref(),
        Some("0.0.0.0/0 <=> 0.0.0.0/0 protocol 1 type 8")
    );
    assert_eq!(
        only("protocol = \"ICMPV6\"\nicmp_type = \"1\"\nicmp_code = \"address-unreachable\"").as_deref(),
        Some("::/0 <=> ::/0 protocol 58 type 1 code 3")
    );
    assert_eq!(
        only("protocol = \"ICMP\"\nicmp_code = \"0-3\"").as_deref(),
        Some("0.0.0.0/0 <=> 0.0.0.0/0 protocol 1 type 0-255 code 0-3")
    );
}

#[test]
fn priorities_and_cookies() {
    let config = checked(
        "[[host]]\nname=\"a\"\nsource=\"10.0.0.1\"\n\
         [[host]]\nname=\"b\"\nsource=\"10.0.0.2\"\npriority=35\n\
         [[host]]\nname=\"c\"\nsource=\"10.0.0.3\"\n\
         [[host]]\nname=\"d\"\nsource=\"10.0.0.4\"\npriority=1\n\
         [[host]]\nname=\"e\"\nsource=\"10.0.0.5\"\n",
    )
    .config;
    let order: Vec<_> = config.hosts.iter().map(|h| (&*h.name, h.priority, h.cookie, h.line)).collect();
    assert_eq!(order, [("d", 1, 2, 11), ("a", 10, 3, 1), ("b", 35, 4, 4), ("c", 45, 5, 8), ("e", 55, 6, 15)]);
}

#[test]
fn the_most_specific_record_comes_first() {
    let config = checked(&format!(
        "{TUNNEL}[[auth]]\nname=\"wide\"\nremote=\"10.0.0.0/8\"\npreshared=\"0123456789abcdefgh\"\n\
         [[auth]]\nname=\"one\"\nremote=\"10.9.9.9\"\npreshared=\"0123456789abcdefgh\"\n\
         [[auth]]\nname=\"net\"\nremote=\"10.9.0.0/16\"\npreshared=\"0123456789abcdefgh\"\n"
    ))
    .config;
    let order: Vec<_> = config.auths.iter().map(|a| &*a.name).collect();
    assert_eq!(order, ["a", "one", "net", "wide"]);
    assert_eq!(config.auth_record("10.9.9.9".parse().unwrap()).map(|a| &*a.name), Some("one"));
    assert_eq!(config.auth_record("10.9.9.8".parse().unwrap()).map(|a| &*a.name), Some("net"));
}

#[test]
fn keys_hexadecimal_or_as_they_stand() {
    let key = |written: &str| {
        let text = TUNNEL.replace("\"0123456789abcdef\"", written);
        checked(&text).config.auths[0].preshared.as_ref().map(|k| k.expose().to_vec())
    };
    assert_eq!(key("\"0x00ffA1\""), Some(vec![0, 0xff, 0xa1]));
    // As HP-UX: quotes inside the value belong to the key.
    assert_eq!(key(r#"'"quoted"'"#), Some(b"\"quoted\"".to_vec()));
    assert_eq!(key("\"x0ff\""), Some(b"x0ff".to_vec()));
}

#[test]
fn identities() {
    let ids = |lines: &str| {
        let config = checked(&format!("{TUNNEL}{lines}\n")).config;
        (config.auths[0].local_id.clone(), config.auths[0].remote_id.clone())
    };
    assert_eq!(ids(""), (None, None));
    assert_eq!(
        ids("ltype=\"ipv4\"\nlid=\"192.0.2.1\"\nrtype=\"IPV6\"\nrid=\"2001:db8::1\""),
        (
            Some(Identity::Address("192.0.2.1".parse().unwrap())),
            Some(Identity::Address("2001:db8::1".parse().unwrap()).into())
        )
    );
    assert_eq!(
        ids("ltype=\"KEY-ID\"\nlid=\"0x0a0b\"\nrtype=\"KEY-ID\"\nrid=\"site7\""),
        (Some(Identity::KeyId(vec![10, 11])), Some(Identity::KeyId(b"site7".to_vec()).into()))
    );
    let pattern = |kind: &str, id: &str| {
        let (_, remote) = ids(&format!("rtype=\"{kind}\"\nrid=\"{id}\""));
        remote.expect("a pattern").to_string()
    };
    assert_eq!(pattern("FQDN", ".foo.example.com"), ".foo.example.com");
    assert_eq!(pattern("FQDN", "*.example.com"), "*.example.com");
    assert_eq!(pattern("USER-FQDN", "@example.com"), "@example.com");
    assert_eq!(pattern("user-fqdn", "*@.example.com"), "@.example.com");
    assert_eq!(pattern("IPV4", "10.1.0.0/16"), "10.1.0.0/16");
    assert_eq!(pattern("IPV6", "fd00::1-fd00::9"), "fd00::1-fd00::9");
    assert_eq!(pattern("DN", "c=DE,O=Example, CN=*"), "C=DE, O=Example, CN=*");
    assert_eq!(pattern("X500-DN", "C=DE, *"), "C=DE, *");
}

#[test]
fn certificates() {
    let record = |lines: &str| {
        let text = TUNNEL.replace("preshared = \"0123456789abcdef\"", lines);
        let Checked { config, warnings } = checked(&text);
        let of_record = warnings.iter().filter(|w| w.object.starts_with("auth"));
        let all: Vec<_> = of_record.map(|w| w.message.clone()).collect();
        ((*config.auths[0]).clone(), all)
    };
    let methods = |lines: &str| record(lines).0.methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    const FILES: &str = "certificate = \"/c.pem\"\nca = \"/ca.pem\"\ncrl = \"/crl.pem\"\n";
    const KEY: &str = "preshared = \"0123456789abcdef\"\n";

    let (auth, warnings) = record(FILES);
    assert_eq!(warnings, [""; 0]);
    let files = auth.certificates.expect("files");
    assert_eq!((files.certificate, files.key), (Some("/c.pem".into()), None));
    assert_eq!(files.authorities, [std::path::Path::new("/ca.pem")]);
    assert_eq!(files.crl_policy, RevocationPolicy::Strict, "where there is a CRL it counts");
    assert_eq!(methods(FILES), "RSASIG", "as HP-UX takes it without a key");
    assert_eq!(methods(&format!("{FILES}{KEY}")), "PSK", "and with one");
    assert_eq!(methods(&format!("{FILES}{KEY}method = [\"ecdsa256\", \"psk\"]")), "ECDSA256 PSK", "in order");
    assert_eq!(methods(&format!("{FILES}method = \"ECDSA384\"")), "ECDSA384");

    let (auth, warnings) = record(
        "certificate = \"/c.p12\"\nkey = \"/k.pem\"\npassphrase = \"a b\"\nca = [\"/a\", \"/b\"]\nltype = \"DN\"",
    );
    assert!(warnings[0].contains("a certificate that was revoked is accepted"), "{warnings:?}");
    assert!(auth.local_subject && auth.local_id.is_none());
    let files = auth.certificates.expect("files");
    assert_eq!(files.crl_policy, RevocationPolicy::Relaxed);
    assert_eq!(files.passphrase.as_ref().map(|p| p.expose().to_vec()), Some(b"a b".to_vec()));
    assert_eq!(files.authorities.len(), 2);
    let (_, warnings) = record("certificate = \"/c\"\nca = \"/a\"\ncrl_policy = \"relaxed\"");
    assert_eq!(warnings, [""; 0], "said aloud, it is meant");

    // In hybrid authentication one side signs and the other believes.
    let user = "method = \"hybrid\"\nxauth = \"client\"\nuser = \"alice\"\npassword_file = \"/p\"\n";
    let (auth, warnings) = record(&format!("{user}ca = \"/a\"\ncrl = \"/r\""));
    let files = auth.certificates.expect("files");
    assert_eq!((files.certificate, files.authorities.len(), &warnings[..]), (None, 1, &[][..]));
    let users = "method = \"HYBRID\"\nxauth = \"server\"\nusers = \"/u\"\n";
    let (auth, warnings) = record(&format!("{users}certificate = \"/c\""));
    let files = auth.certificates.expect("files");
    assert_eq!((files.certificate.is_some(), files.authorities.len(), &warnings[..]), (true, 0, &[][..]));
    assert_eq!(auth.methods[0].to_string(), "HYBRID");
    let (_, warnings) = record(&format!("{users}certificate = \"/c\"\nca = \"/a\""));
    assert!(warnings[0].contains("`ca` is not used"), "{warnings:?}");
    let (_, warnings) = record(&format!("{user}certificate = \"/c\"\nca = \"/a\"\ncrl = \"/r\""));
    assert!(warnings[0].contains("`certificate` is not used"), "{warnings:?}");
}

/// `auth` of an IKE policy narrows what the record allows.
#[test]
fn methods_of_policy_and_record() {
    let text = TUNNEL.replace(
        "preshared",
        "method = [\"RSASIG\", \"PSK\"]\ncertificate = \"/c\"\nca = \"/a\"\ncrl = \"/r\"\npreshared",
    );
    let under = |auth: &str| {
        let config = checked(&text.replace("name = \"i\"", &format!("name = \"i\"\n{auth}"))).config;
        let (policy, record) = (&config.ikes[0], &config.auths[0]);
        record.methods_under(policy).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(under(""), "RSASIG PSK");
    assert_eq!(under("auth = \"PSK\""), "PSK");
    assert_eq!(under("auth = [\"PSK\", \"RSASIG\"]"), "RSASIG PSK", "the order is the record's");
}

#[test]
fn transforms_in_both_spellings_and_both_forms() {
    let transforms = |action: &str| {
        let text = TUNNEL.replace("tsource", &format!("action = {action}\ntsource"));
        let config = checked(&text).config;
        config.tunnels[0].transforms.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = ["ESP_AES128_HMAC_SHA1/3600/5120", "ESP_AES256_GCM16/0/0"];
    assert_eq!(transforms("\"ESP_AES128_HMAC_SHA1/3600/5120, aes256gcm16/0\""), expected);
    assert_eq!(transforms("[\"aes128-sha1/3600/5120\", \"ESP_AES256_GCM16/0/0\"]"), expected);
}

#[test]
fn hpux_ike_options() {
    let proposal = |lines: &str| {
        let config = checked(&TUNNEL.replace("[[auth]]", &format!("{lines}\n[[auth]]"))).config;
        config.ikes[0].proposals.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(proposal("hash=\"SHA2_256\"\nencryption=\"AES256\"\ngroup=19"), ["aes256-sha256-ecp256"]);
    assert_eq!(proposal("hash=\"MD5\"\nencryption=\"3DES\"\ngroup=2"), ["3des-md5-modp1024"]);
    assert_eq!(proposal("group=\"14\""), ["aes128-sha1-modp2048"]);
}

#[test]
fn short_lifetimes_only_when_allowed() {
    let text =
        TUNNEL.replace("tsource", "action = \"aes128-sha1/10/1\"\ntsource").replace("[[auth]]", "life = 15\n[[auth]]");
    assert!(Config::parse(&text, "test.toml").is_err());
    let config = checked(&format!("[startup]\nallow_short_lifetimes = true\n{text}")).config;
    assert_eq!(config.tunnels[0].transforms[0].lifetime.seconds, 10);
    assert_eq!(config.ikes[0].lifetime.seconds, 15);
    assert!(config.startup.allow_short_lifetimes);
}

#[test]
fn inline_tables_are_as_good() {
    let config =
        checked("host = [{ name = \"h\", source = \"10.0.0.1\", action = \"PASS\" }]\nstartup.mtu = 1300\n").config;
    assert_eq!(config.hosts[0].name, "h");
    assert_eq!(config.startup.mtu, Some(1300));
}

#[test]
fn nothing_at_all_is_a_configuration_but_odd() {
    let Checked { config, warnings } = checked("");
    assert!(config.hosts.is_empty() && config.tunnels.is_empty());
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("everything goes in the clear"), "{}", warnings[0]);
}

#[test]
fn the_model_never_prints_a_key() {
    let config = checked(TUNNEL).config;
    let printed = format!("{config:?}");
    assert!(!printed.contains("0123456789abcdef") && !printed.contains("30313233"), "{printed}");
}

/// The keys in the order of the key material, nothing negotiated, and nothing shown.
#[test]
fn manual_keys_need_no_ike_policy_and_are_not_shown() {
    let text = |encryption: &str| {
        format!(
            "[[host]]\nname = \"m\"\nsource = \"10.78.1.0/24\"\ndestination = \"10.78.2.0/24\"\ntunnel = \"m\"\n\
             [[tunnel]]\nname = \"m\"\ntsource = \"10.77.0.1\"\ntdestination = \"10.77.0.2\"\n\
             source = \"10.78.1.0/24\"\ndestination = \"10.78.2.0/24\"\n\
             in = \"ESP/0x103/{}/{encryption}\"\nout = \"esp/2500001/0x{}/0x{}\"\n",
            "a1".repeat(20),
            "b1".repeat(20),
            "b0".repeat(16)
        )
    };
    let read = |text: &str| Config::parse(text, "c").map_err(|e| e.iter().map(ToString::to_string).collect::<String>());
    let checked = read(&text(&"a0".repeat(16))).unwrap();
    assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
    let tunnel = &checked.config.tunnels[0];
    let keys = tunnel.manual.as_ref().unwrap();
    assert_eq!((keys.inbound.spi, keys.outbound.spi, keys.anti_replay), (0x103, 2_500_001, false));
    assert_eq!(keys.inbound.keymat.expose(), [[0xa0; 16].as_slice(), &[0xa1; 20]].concat());
    assert_eq!(keys.outbound.keymat.expose(), [[0xb0; 16].as_slice(), &[0xb1; 20]].concat());
    assert_eq!(checked.config.negotiated().count(), 0);
    assert_eq!(checked.config.tunnels_to(tunnel.tdestination).count(), 0);
    let shown = format!("{:?}", checked.config).to_lowercase();
    for secret in ["a0a0", "a1a1", "b0b0", "b1b1", "160, 160", "161, 161"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    // Another key is another SA.
    let other = read(&text(&"c0".repeat(16))).unwrap();
    assert!(tunnel.has_same_sas(tunnel) && !tunnel.has_same_sas(&other.config.tunnels[0]));
}
