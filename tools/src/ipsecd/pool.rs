//! Addresses for clients, each kept for its owner after he is gone, in a file that outlives the daemon.
//!
//! A line for each lease: `address begin end owner`, in seconds since 1970; the begin is `-` where it is not known, as
//! version 1 of the file had none. The file is written anew and put in the place of the old one whenever a lease is made or renewed.

use crate::report::LeaseReport;
use crate::wall_clock::Date;
use policy::config::Pool as PoolPolicy;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The first line of the file.
const HEADER: &str = "# Leases of Caponier, version 2: address, begin, end (seconds since 1970), owner";
/// That of a file that an older version wrote.
const HEADER_1: &str = "# Leases of Caponier, version 1: address, end (seconds since 1970), owner";
/// Octets of the longest file that is read.
const LONGEST: u64 = 64 << 20;

/// Why there are no leases to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum PoolError {
    /// The file cannot be read or written.
    #[error("cannot {action} the leases of pool `{pool}` in {}: {reason}", path.display())]
    File { action: &'static str, pool: String, path: PathBuf, reason: io::Error },
    /// The file is not one of leases.
    #[error(
        "the leases of pool `{pool}` in {} are damaged: line {line} {what}; mend it, or move the file away, and clients \
         get other addresses",
        path.display()
    )]
    Damaged { pool: String, path: PathBuf, line: usize, what: String },
    /// Every address has an owner.
    #[error("all {total} addresses of pool `{pool}` are taken; the first is free in {free_in} s")]
    Exhausted { pool: String, total: u128, free_in: u64 },
}

/// The addresses of a pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    policy: Arc<PoolPolicy>,
    leases: BTreeMap<IpAddr, Lease>,
    /// By owner.
    owned: BTreeMap<String, IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    owner: String,
    /// Since when it is his, in seconds since 1970; none: that is not known.
    since: Option<u64>,
    /// Seconds since 1970.
    ends: u64,
}

impl Pool {
    /// A pool with the leases of its file, if there is one.
    pub(super) fn open(policy: Arc<PoolPolicy>) -> Result<Self, PoolError> {
        let mut pool = Self { policy, leases: BTreeMap::new(), owned: BTreeMap::new() };
        let path = pool.policy.file.clone();
        let text = match read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(pool),
            Err(reason) => return Err(pool.failed("read", reason)),
        };
        let first_version = text.lines().next() == Some(HEADER_1);
        for (line, text) in (1..).zip(text.lines()) {
            pool.read_line(line, text, first_version).map_err(|what| {
                let name = pool.policy.name.clone();
                PoolError::Damaged { pool: name, path: path.clone(), line, what }
            })?;
        }
        Ok(pool)
    }

    fn read_line(&mut self, line: usize, text: &str, first_version: bool) -> Result<(), String> {
        if line == 1 {
            return if text == HEADER || first_version {
                Ok(())
            } else {
                Err("is not that of a file of leases".to_owned())
            };
        }
        let mut parts = text.splitn(if first_version { 3 } else { 4 }, ' ');
        let address: IpAddr = parts.next().and_then(|a| a.parse().ok()).ok_or("has no address")?;
        let since = match if first_version { Some("-") } else { parts.next() } {
            Some("-") => None,
            begin => Some(begin.and_then(|n| n.parse().ok()).ok_or("has no time")?),
        };
        let (ends, owner) = (parts.next(), parts.next());
        let ends = ends.and_then(|n| n.parse().ok()).ok_or("has no time")?;
        let owner = owner.filter(|o| !o.is_empty()).ok_or("has no owner")?.to_owned();
        // The pool may have been made smaller since.
        if !self.policy.addresses.contains(address) {
            return Ok(());
        }
        if self.owned.insert(owner.clone(), address).is_some() {
            return Err("has an owner of a line before it".to_owned());
        }
        if self.leases.insert(address, Lease { owner, since, ends }).is_some() {
            return Err("has the address of a line before it".to_owned());
        }
        Ok(())
    }

    pub(super) fn policy(&self) -> &Arc<PoolPolicy> {
        &self.policy
    }

    /// The address of an owner: the one that he had, else one that nobody had, else the one whose lease ended
    /// first. Kept from `now` (seconds since 1970) on.
    pub(super) fn lease(&mut self, owner: &str, now: u64) -> Result<IpAddr, PoolError> {
        let owner = one_line(owner);
        let address = match self.owned.get(&owner) {
            Some(address) => *address,
            None => self.free(now)?,
        };
        let ends = now + u64::from(self.policy.lease_seconds);
        let same = self.leases.get(&address).filter(|lease| lease.owner == owner);
        let since = same.map_or(Some(now), |lease| lease.since);
        let before = self.leases.insert(address, Lease { owner: owner.clone(), since, ends });
        if let Some(before) = before.filter(|before| before.owner != owner) {
            self.owned.remove(&before.owner);
        }
        self.owned.insert(owner, address);
        self.save()?;
        Ok(address)
    }

    /// Leases that are in use go on: those that are half over are renewed.
    pub(super) fn renew(&mut self, used: impl Fn(IpAddr) -> bool, now: u64) -> Result<(), PoolError> {
        let whole = u64::from(self.policy.lease_seconds);
        let mut changed = false;
        for (_, lease) in self.leases.iter_mut().filter(|(address, _)| used(**address)) {
            if lease.ends < now + whole / 2 {
                lease.ends = now + whole;
                changed = true;
            }
        }
        if changed { self.save() } else { Ok(()) }
    }

    fn free(&self, now: u64) -> Result<IpAddr, PoolError> {
        if let Some(never) = addresses(&self.policy).find(|address| !self.leases.contains_key(address)) {
            return Ok(never);
        }
        let first = self.leases.iter().min_by_key(|(_, lease)| lease.ends);
        match first {
            Some((address, lease)) if lease.ends <= now => Ok(*address),
            _ => Err(PoolError::Exhausted {
                pool: self.policy.name.clone(),
                total: addresses(&self.policy).count() as u128,
                free_in: first.map_or(0, |(_, lease)| lease.ends - now),
            }),
        }
    }

    /// Writes the file: whole or not at all.
    fn save(&self) -> Result<(), PoolError> {
        let mut text = format!("{HEADER}\n");
        for (address, lease) in &self.leases {
            let since = lease.since.map_or_else(|| "-".to_owned(), |since| since.to_string());
            let _ = writeln!(text, "{address} {since} {} {}", lease.ends, lease.owner);
        }
        replace(&self.policy.file, text.as_bytes()).map_err(|reason| self.failed("write", reason))
    }

    /// Its leases, by address.
    pub(super) fn report(&self, there: impl Fn(IpAddr) -> bool) -> Vec<LeaseReport> {
        let report = |(address, lease): (&IpAddr, &Lease)| LeaseReport {
            pool: self.policy.name.clone(),
            address: *address,
            owner: lease.owner.clone(),
            present: there(*address),
            since: lease.since.map(date),
            ends: date(lease.ends),
        };
        self.leases.iter().map(report).collect()
    }

    fn failed(&self, action: &'static str, reason: io::Error) -> PoolError {
        PoolError::File { action, pool: self.policy.name.clone(), path: self.policy.file.clone(), reason }
    }
}

/// The addresses that hosts can have: of an IPv4 network not the first and the last, of an IPv6 network not
/// the first, which is that of its routers (RFC 4291 2.6.1).
fn addresses(pool: &PoolPolicy) -> impl Iterator<Item = IpAddr> {
    let (first, last) = (number(pool.addresses.first()), number(pool.addresses.last()));
    let ipv4 = pool.addresses.is_ipv4();
    let longest = if ipv4 { 30 } else { 126 };
    let network = u128::from(pool.addresses.prefix_len().is_some_and(|prefix| prefix <= longest));
    let broadcast = if ipv4 { network } else { 0 };
    (first + network..=last - broadcast).map(move |n| match ipv4 {
        // It is between two addresses of 32 bits.
        true => IpAddr::from((n as u32).to_be_bytes()),
        false => IpAddr::from(n.to_be_bytes()),
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// Seconds since 1970 as reports write them; what no clock can show, as the beginning.
fn date(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    Date::of(time.unwrap_or(SystemTime::UNIX_EPOCH)).rfc3339()
}

/// An owner as it may stand in a line: what could end one, or is no character of a name, is escaped.
fn one_line(owner: &str) -> String {
    owner.escape_debug().to_string()
}

fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long to be one of leases"));
    }
    io::read_to_string(file)
}

/// Puts a file in the place of another, which is there whole until then.
fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::selector::AddressRange;

    fn policy(directory: &Path, prefix: u8) -> Arc<PoolPolicy> {
        Arc::new(PoolPolicy {
            name: "p".into(),
            addresses: AddressRange::prefix([10, 3, 0, 0].into(), prefix).unwrap(),
            dns: Vec::new(),
            split: Vec::new(),
            banner: None,
            lease_seconds: 100,
            file: directory.join("leases").join("p.leases"),
            push: false,
            line: 1,
        })
    }

    fn ip(last: u8) -> IpAddr {
        [10, 3, 0, last].into()
    }

    #[test]
    fn an_owner_keeps_his_address_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy(directory.path(), 29);
        let mut pool = Pool::open(Arc::clone(&policy)).unwrap();
        assert_eq!(pool.lease("alice", 1000).unwrap(), ip(1));
        assert_eq!(pool.lease("C=DE, CN=bob\nx", 1000).unwrap(), ip(2));
        assert_eq!(pool.lease("alice", 1050).unwrap(), ip(1));
        let mut again = Pool::open(policy).unwrap();
        assert_eq!((again.leases.clone(), again.owned.clone()), (pool.leases.clone(), pool.owned.clone()));
        assert_eq!(again.lease("C=DE, CN=bob\nx", 5000).unwrap(), ip(2), "also when his lease is over");
        assert_eq!(again.lease("carol", 5000).unwrap(), ip(3));
    }

    #[test]
    fn exhaustion_is_said_and_ends_with_the_oldest_lease() {
        let directory = tempfile::tempdir().unwrap();
        let mut pool = Pool::open(policy(directory.path(), 30)).unwrap();
        assert_eq!((pool.lease("a", 10).unwrap(), pool.lease("b", 20).unwrap()), (ip(1), ip(2)));
        let said = pool.lease("c", 30).unwrap_err().to_string();
        assert_eq!(said, "all 2 addresses of pool `p` are taken; the first is free in 80 s");
        // In use it does not end.
        pool.renew(|address| address == ip(1), 105).unwrap();
        assert_eq!(pool.lease("c", 120).unwrap(), ip(2));
        assert!(pool.lease("b", 121).is_err(), "its address is somebody else's now");
    }

    #[test]
    fn a_damaged_file_is_an_error_by_line() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy(directory.path(), 24);
        let mut pool = Pool::open(Arc::clone(&policy)).unwrap();
        pool.lease("alice", 1).unwrap();
        let good = fs::read_to_string(&policy.file).unwrap();
        assert_eq!(good, format!("{HEADER}\n10.3.0.1 1 101 alice\n"));
        for (text, words) in [
            ("", ""),
            ("hello\n", "line 1 is not that of a file of leases"),
            ("%\n10.3.0.1", "line 3 has no time"),
            ("%\nfoo 1 alice", "line 3 has no address"),
            ("%\n10.3.0.2 1", "line 3 has no time"),
            ("%\n10.3.0.2 x 1 bob", "line 3 has no time"),
            ("%\n10.3.0.2 1 1 ", "line 3 has no owner"),
            ("%\n10.3.0.2 - 1 alice", "line 3 has an owner of a line before it"),
            ("%\n10.3.0.1 1 1 bob", "line 3 has the address of a line before it"),
        ] {
            fs::write(&policy.file, text.replace('%', good.trim_end())).unwrap();
            match Pool::open(Arc::clone(&policy)) {
                Ok(_) => assert_eq!(words, ""),
                Err(e) => {
                    let said = e.to_string();
                    assert!(!words.is_empty() && said.contains(words) && said.contains("p.leases"), "{said}");
                }
            }
        }
        // What is outside of the pool today is no lease of it.
        fs::write(&policy.file, good.replace("10.3.0.1", "10.4.0.1")).unwrap();
        assert!(Pool::open(policy).unwrap().leases.is_empty());
    }

    #[test]
    fn leases_are_reported_whether_their_owners_are_there_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy(directory.path(), 29);
        fs::create_dir_all(policy.file.parent().unwrap()).unwrap();
        fs::write(&policy.file, format!("{HEADER_1}\n10.3.0.1 101 alice\n")).unwrap();
        let mut pool = Pool::open(Arc::clone(&policy)).unwrap();
        assert_eq!((pool.lease("bob", 1000).unwrap(), pool.lease("alice", 1001).unwrap()), (ip(2), ip(1)));
        pool.lease("bob", 1010).unwrap();
        let again = Pool::open(policy).unwrap();
        assert_eq!(again.leases, pool.leases, "also that it is not known since when alice has hers");
        let lease = |address, owner: &str, present, since: Option<&str>, ends: &str| LeaseReport {
            pool: "p".into(),
            address,
            owner: owner.into(),
            present,
            since: since.map(str::to_owned),
            ends: ends.into(),
        };
        let alice = lease(ip(1), "alice", false, None, "1970-01-01T00:18:21Z");
        let bob = lease(ip(2), "bob", true, Some("1970-01-01T00:16:40Z"), "1970-01-01T00:18:30Z");
        assert_eq!(again.report(|address| address == ip(2)), [alice, bob]);
    }

    #[test]
    fn a_file_that_cannot_be_written_gives_no_address() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("leases"), "").unwrap();
        let mut pool = Pool { policy: policy(directory.path(), 24), leases: BTreeMap::new(), owned: BTreeMap::new() };
        let said = pool.lease("alice", 1).unwrap_err().to_string();
        assert!(said.starts_with("cannot write the leases of pool `p` in"), "{said}");
    }

    #[test]
    fn pools_of_ipv6() {
        let directory = tempfile::tempdir().unwrap();
        let mut six = PoolPolicy::clone(&policy(directory.path(), 24));
        six.addresses = AddressRange::prefix("fd00:3::".parse().unwrap(), 120).unwrap();
        let mut pool = Pool::open(Arc::new(six)).unwrap();
        assert_eq!(pool.lease("alice", 1).unwrap(), "fd00:3::1".parse::<IpAddr>().unwrap());
        assert_eq!(pool.lease("bob", 1).unwrap(), "fd00:3::2".parse::<IpAddr>().unwrap());
    }
}
