//! The events of the policy engine and the packet path.

use super::number::{self, secpolicyd as numbers};
use super::{AuditEvent, Entity, Level};
use crate::config::Config;
use crate::limits::LimitEvent;
use crate::sad::DuplicateSpi;
use crate::spd::COOKIE_DEFAULT;
use std::net::IpAddr;

/// What SECPOLICYD has to say. Where HP-UX has words for it, the text begins with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyEvent {
    /// The SPD cache reached its soft limit, or a multiple of 1000 above it.
    CacheSoftLimit {
        /// Entries then.
        entries: u64,
    },
    /// The SPD cache refused an entry.
    CacheHardLimit {
        /// The hard limit, in entries.
        entries: u64,
    },
    /// The SPD cache refused an entry: its policy has all that it may have.
    CacheShareLimit {
        /// Name of the policy.
        policy: String,
        /// Entries it may have.
        entries: u64,
    },
    /// What the SPD cache takes of the machine's memory when it is full.
    CacheMemory {
        /// The soft limit, in entries.
        soft: u64,
        /// The hard limit, in entries.
        hard: u64,
        /// Octets of its tables at the hard limit, if all entries are of IPv4.
        octets_ipv4: u64,
        /// Octets of its tables at the hard limit, if all entries are of IPv6.
        octets_ipv6: u64,
        /// Which pages the system gives.
        pages: String,
    },
    /// A protected packet arrived whose SPI is not in the SAD.
    NoSpi {
        /// Its SPI.
        spi: u32,
        /// Its outer source.
        source: IpAddr,
        /// Its outer destination.
        destination: IpAddr,
        /// Its IP protocol: 50, or 51 for AH.
        protocol: u8,
    },
    /// An SA was not added: its SPI is there already.
    DuplicateSpi {
        /// The SPI.
        spi: u32,
    },
    /// An SA was not added: something in it is not valid.
    InvalidSa {
        /// Its SPI.
        spi: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration could not be used; what was in force before, if anything, still is.
    ConfigurationInvalid {
        /// The first thing that is wrong, with file and line.
        reason: String,
    },
    /// New policies are in force.
    PoliciesInForce {
        /// Epoch of the new policies.
        epoch: u32,
        /// Number of host policies.
        hosts: usize,
        /// Number of tunnel policies.
        tunnels: usize,
    },
}

impl PolicyEvent {
    /// What an alert of the SPD cache says, under the policies of `config`.
    #[must_use]
    pub fn of_limit(event: LimitEvent, config: &Config) -> Self {
        match event {
            LimitEvent::SoftLimit { entries } => Self::CacheSoftLimit { entries },
            LimitEvent::HardLimit { entries } => Self::CacheHardLimit { entries },
            LimitEvent::ShareLimit { cookie, entries } => {
                let named = config.hosts.iter().find(|h| h.cookie == cookie).map(|h| h.name.clone());
                let policy = match named {
                    None if cookie == COOKIE_DEFAULT => "default".to_owned(),
                    // The policies were replaced since.
                    None => cookie.to_string(),
                    Some(name) => name,
                };
                Self::CacheShareLimit { policy, entries }
            }
        }
    }
}

impl From<DuplicateSpi> for PolicyEvent {
    fn from(DuplicateSpi { spi }: DuplicateSpi) -> Self {
        Self::DuplicateSpi { spi }
    }
}

impl From<&PolicyEvent> for AuditEvent {
    fn from(event: &PolicyEvent) -> Self {
        let (number, level, text) = match event {
            PolicyEvent::CacheSoftLimit { entries } => (
                numbers::CACHE_SOFT_LIMIT,
                Level::Alert,
                format!(
                    "Kernel Policy Cache Threshold reached {entries} records. \
                     Traffic goes on; see ipsec_report -cache, and raise the limit with ipsec_admin -spd_soft."
                ),
            ),
            PolicyEvent::CacheHardLimit { entries } => (
                numbers::CACHE_HARD_LIMIT,
                Level::Alert,
                format!(
                    "Kernel Policy Cache Threshold exceeded {entries} records. \
                     Conversations in the cache go on, packets of others are dropped until entries age out; \
                     see ipsec_report -cache, and raise the limit with ipsec_admin -spd_hard."
                ),
            ),
            PolicyEvent::CacheShareLimit { policy, entries } => (
                number::NONE,
                Level::Alert,
                format!(
                    "Host policy {policy} has {entries} records in the Kernel Policy Cache, its share. \
                     Its conversations in the cache go on, packets of its others are dropped until entries age out; \
                     see ipsec_report -cache --policy {policy}, and raise the policy's cache_share."
                ),
            ),
            PolicyEvent::CacheMemory { soft, hard, octets_ipv4, octets_ipv6, pages } => {
                let megabytes = |octets: &u64| octets.div_ceil(1 << 20);
                let text = format!(
                    "SPD cache: soft limit {soft}, hard limit {hard} entries. At the hard limit its tables take {} MB \
                     if all are of IPv4, {} MB if all are of IPv6; pages: {pages}.",
                    megabytes(octets_ipv4),
                    megabytes(octets_ipv6)
                );
                (number::NONE, Level::Informative, text)
            }
            PolicyEvent::NoSpi { spi, source, destination, protocol } => (
                numbers::NO_SPI,
                Level::Warning,
                format!(
                    "No SPI for received packet - SPI: {spi:#x} IP addr: {source}-{destination} proto: {protocol}. \
                     The peer uses an SA that this side does not have."
                ),
            ),
            PolicyEvent::DuplicateSpi { spi } => (
                numbers::DUPLICATE_SPI,
                Level::Error,
                format!("PF_KEY: SADB_ADD for SPI {spi:#x} returns EEXIST. The SA was not added; the older one stays."),
            ),
            PolicyEvent::InvalidSa { spi, reason } => (
                number::NONE,
                Level::Error,
                format!("PF_KEY: Invalid SADB_ADD, SPI {spi:#x}, errno 22. The SA was not added: {reason}"),
            ),
            PolicyEvent::ConfigurationInvalid { reason } => (
                numbers::CONFIGURATION_INVALID,
                Level::Error,
                format!(
                    "The configuration is not valid: {reason}. ipsec_config check FILE shows everything that is wrong."
                ),
            ),
            PolicyEvent::PoliciesInForce { epoch, hosts, tunnels } => (
                number::NONE,
                Level::Informative,
                format!("Policies in force: {hosts} host, {tunnels} tunnel (epoch {epoch})."),
            ),
        };
        Self { number, entity: Entity::Secpolicyd, level, text }
    }
}

impl From<PolicyEvent> for AuditEvent {
    fn from(event: PolicyEvent) -> Self {
        Self::from(&event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_levels_and_words_of_hpux() {
        let spi = 0x201;
        let (source, destination) = ("15.1.1.1".parse().unwrap(), "15.2.2.2".parse().unwrap());
        let config = Config::parse("[[host]]\nname = \"web\"\n", "f").unwrap().config;
        let share = |cookie| PolicyEvent::of_limit(LimitEvent::ShareLimit { cookie, entries: 250 }, &config);
        let cases: [(PolicyEvent, u32, Level, &str); 9] = [
            (share(2), 0, Level::Alert, "Host policy web has 250 records in the Kernel Policy Cache, its share."),
            (share(1), 0, Level::Alert, "Host policy default has 250 records"),
            (share(9), 0, Level::Alert, "Host policy 9 has 250 records"),
            (
                PolicyEvent::of_limit(LimitEvent::SoftLimit { entries: 5000 }, &config),
                20,
                Level::Alert,
                "Kernel Policy Cache Threshold reached 5000 records.",
            ),
            (
                PolicyEvent::of_limit(LimitEvent::HardLimit { entries: 9000 }, &config),
                55,
                Level::Alert,
                "Kernel Policy Cache Threshold exceeded 9000 records.",
            ),
            (
                PolicyEvent::NoSpi { spi, source, destination, protocol: 50 },
                67,
                Level::Warning,
                "No SPI for received packet - SPI: 0x201 IP addr: 15.1.1.1-15.2.2.2 proto: 50",
            ),
            (DuplicateSpi { spi }.into(), 178, Level::Error, "PF_KEY: SADB_ADD for SPI 0x201 returns EEXIST"),
            (
                PolicyEvent::InvalidSa { spi, reason: "weak key".into() },
                0,
                Level::Error,
                "PF_KEY: Invalid SADB_ADD, SPI 0x201, errno 22",
            ),
            (
                PolicyEvent::ConfigurationInvalid { reason: "x".into() },
                413,
                Level::Error,
                "The configuration is not valid",
            ),
        ];
        for (event, number, level, words) in cases {
            let event = AuditEvent::from(event);
            assert_eq!((event.number, event.level, event.entity), (number, level, Entity::Secpolicyd));
            assert!(event.text.starts_with(words), "{}", event.text);
        }
    }
}
