//! The names of the format: which sections there are, and which keys each has.

/// One kind of object of the file.
pub(super) struct Section {
    /// As in `[startup]` or `[[host]]`.
    pub(super) name: &'static str,
    /// Whether there may be several, `[[host]]`.
    pub(super) repeated: bool,
    /// Keys it has.
    pub(super) keys: &'static [&'static str],
    /// Options HP-UX has and this format has not, and what to do about it.
    pub(super) elsewhere: &'static [(&'static str, &'static str)],
}

pub(super) const STARTUP: Section = Section {
    name: "startup",
    repeated: false,
    keys: &[
        "auditlvl",
        "auditdir",
        "maxsize",
        "spd_soft",
        "spd_hard",
        "spi_min",
        "spi_max",
        "interface",
        "mtu",
        "replay_window",
        "offload",
        "workers",
        "df",
        "ike_port",
        "natt_port",
        "hold_queue",
        "exclusive_sessions",
        "cache_idle",
        "export_keys",
        "allow_short_lifetimes",
    ],
    elsewhere: &[("autoboot", "enable the daemon in the system's service manager instead")],
};

pub(super) const DEFAULT: Section =
    Section { name: "default", repeated: false, keys: &["action", "cache_share"], elsewhere: &[] };

pub(super) const HOST: Section = Section {
    name: "host",
    repeated: true,
    keys: &[
        "name",
        "source",
        "destination",
        "protocol",
        "icmp_type",
        "icmp_code",
        "interface",
        "priority",
        "action",
        "tunnel",
        "flags",
        "cache_share",
    ],
    elsewhere: &[("in", KEYS_OF_TUNNEL), ("out", KEYS_OF_TUNNEL)],
};

pub(super) const TUNNEL: Section = Section {
    name: "tunnel",
    repeated: true,
    keys: &[
        "name",
        "tsource",
        "tdestination",
        "source",
        "destination",
        "protocol",
        "mode",
        "action",
        "lifetime_packets",
        "start",
        "in",
        "out",
        "anti_replay",
        "pool",
        "virtual",
    ],
    elsewhere: &[("icmp_type", NO_ICMP_IN_TUNNEL), ("icmp_code", NO_ICMP_IN_TUNNEL)],
};

pub(super) const IKE: Section = Section {
    name: "ike",
    repeated: true,
    keys: &[
        "name",
        "remote",
        "priority",
        "auth",
        "proposals",
        "hash",
        "encryption",
        "group",
        "life",
        "maxqm",
        "nat_traversal",
        "keepalive",
        "fragmentation",
        "fragment_size",
        "dpd",
        "dpd_mode",
        "dpd_action",
        "quick_mode_failure",
    ],
    elsewhere: &[],
};

pub(super) const AUTH: Section = Section {
    name: "auth",
    repeated: true,
    keys: &[
        "name",
        "remote",
        "method",
        "preshared",
        "certificate",
        "key",
        "passphrase",
        "ca",
        "crl",
        "crl_fetch",
        "crl_policy",
        "ltype",
        "lid",
        "rtype",
        "rid",
        "exchange",
        "aggressive_psk",
        "xauth",
        "user",
        "password",
        "password_file",
        "users",
        "tries",
    ],
    elsewhere: &[
        ("preshared_file", "write the key itself as `preshared`, and let only root read this file"),
        ("kmp", "every record is for IKEv1 in this version"),
        ("priority", "the most specific `remote` is used, whatever the order"),
        ("flags", NO_FLAGS),
        ("local_method", "in IKEv1 both sides use the same: write `method`"),
        ("remote_method", "in IKEv1 both sides use the same: write `method`"),
    ],
};

pub(super) const BYPASS: Section = Section { name: "bypass", repeated: true, keys: &["address"], elsewhere: &[] };

pub(super) const POOL: Section = Section {
    name: "pool",
    repeated: true,
    keys: &["name", "addresses", "dns", "split", "banner", "lease", "file", "mode"],
    elsewhere: &[],
};

/// The section's header as the file writes it.
pub(super) fn header(section: &Section) -> String {
    if section.repeated { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) }
}

/// Where a key that is in the wrong place belongs.
pub(super) fn belongs(key: &str) -> Option<String> {
    let section = SECTIONS.iter().find(|s| s.keys.contains(&key))?;
    Some(format!("`{key}` goes under {}", header(section)))
}

pub(super) const GATEWAY: Section = Section {
    name: "gateway",
    repeated: false,
    keys: &["inside", "outside", "workers"],
    elsewhere: &[("mode", "remove it: a gateway routes; it is no bridge yet")],
};

pub(super) const SECTIONS: [&Section; 9] = [&STARTUP, &DEFAULT, &HOST, &TUNNEL, &IKE, &AUTH, &BYPASS, &POOL, &GATEWAY];

const NO_FLAGS: &str = "remove it: there are no flags in this version";
const KEYS_OF_TUNNEL: &str =
    "write the manual keys in a [[tunnel]], with mode = \"transport\" where that is meant, and name that here";
const NO_ICMP_IN_TUNNEL: &str =
    "the proxy IDs of IKEv1 cannot carry it (RFC 2407 4.6.2); select by type and code in the [[host]] policy";

/// The key of a pre-shared key, and that of what opens the file of a private one.
pub(super) const PRESHARED: &str = "preshared";
pub(super) const PASSPHRASE: &str = "passphrase";
/// The key of a user's password.
pub(super) const PASSWORD: &str = "password";

/// The keys whose values are secrets, or have them inside.
const SECRET: [&str; 5] = [PRESHARED, PASSPHRASE, PASSWORD, "in", "out"];

/// Whether the value of a key may be shown: only when the key is known, and not a secret one.
pub(super) fn is_public(key: &str) -> bool {
    let known = |k: &str| !SECRET.contains(&k) && SECTIONS.iter().any(|s| s.name == k || s.keys.contains(&k));
    key.split('.').all(|part| known(part.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_explains_every_key() {
        let reference = include_str!("../../../examples/reference.toml");
        for section in SECTIONS {
            // From the section's header, which may be an example only, to the next banner.
            let header = header(section);
            let given = reference.find(&format!("\n{header}\n"));
            let start = given.or_else(|| reference.find(&format!("\n# {header}\n")));
            let start = start.unwrap_or_else(|| panic!("no {header}"));
            let part = reference[start..].split("\n# ---").next().unwrap_or("");
            for key in section.keys {
                assert!(part.contains(&format!("{key} = ")), "{header} does not explain `{key}`");
            }
        }
    }

    #[test]
    fn only_known_keys_are_public() {
        assert!(is_public("source") && is_public("startup.mtu"));
        assert!(!is_public(PASSPHRASE) && !is_public("auth.passphrase") && is_public("auth.certificate"));
        assert!(!is_public(PRESHARED) && !is_public("auth.preshared") && !is_public("preshraed") && !is_public(""));
        assert!(!is_public(PASSWORD) && is_public("auth.password_file"));
        assert!(!is_public("in") && !is_public("tunnel.out"));
    }
}
