//! CRLs that are fetched: which there are, which are under way, and when to ask again.
//!
//! [`Crls`] belongs to the thread that judges certificates and never waits: a fetch is a thread of its
//! own, a few of them at a time, and its end is a message. What was fetched is kept in a directory, so
//! that a daemon that starts again needs no network to know it.

mod http;
mod store;

use crossbeam::channel::{Receiver, Sender, unbounded};
use keys::Crl;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Store;

/// URLs that are known at a time. More come from certificates that our authorities issued, or not at all.
const MOST_URLS: usize = 64;
/// Fetches at a time.
const MOST_FETCHES: usize = 4;
/// After a fetch that failed the next waits for so long, twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// And at most so long.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is known of one URL, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlStatus {
    /// Where it is fetched from.
    pub url: String,
    /// Its issuer, and when the next is due, in seconds since 1970; none if there never was one.
    pub crl: Option<(String, i64)>,
    /// Why the last fetch failed.
    pub error: Option<String>,
}

/// [`CrlStatus`] of every URL, as others see it.
pub type CrlStatuses = Arc<Mutex<Vec<CrlStatus>>>;

/// The end of a fetch.
#[derive(Debug)]
pub struct Fetched {
    url: String,
    result: Result<Vec<u8>, String>,
}

/// Whether a CRL is to be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// It is in force.
    There,
    /// It is being fetched.
    Pending,
    /// It cannot be had, and why.
    Failed(String),
}

#[derive(Debug, Default)]
struct Entry {
    crl: Option<Arc<Crl>>,
    error: Option<String>,
    failures: u32,
    /// Not to be asked again before.
    not_before: Option<Instant>,
    /// When to ask again, if it is kept.
    refresh: Option<Instant>,
    fetching: bool,
    /// Fetched again before it is out of date; else only when somebody asks.
    kept: bool,
}

/// The fetched CRLs.
#[derive(Debug)]
pub struct Crls {
    entries: BTreeMap<String, Entry>,
    store: Store,
    waiting: VecDeque<String>,
    active: usize,
    done: Sender<Fetched>,
    ended: Receiver<Fetched>,
    statuses: CrlStatuses,
}

impl Crls {
    /// None, with what was fetched before in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        let (done, ended) = unbounded();
        Self {
            entries: BTreeMap::new(),
            store: Store::new(directory),
            waiting: VecDeque::new(),
            active: 0,
            done,
            ended,
            statuses: CrlStatuses::default(),
        }
    }

    /// What is known, for reports.
    #[must_use]
    pub fn statuses(&self) -> CrlStatuses {
        Arc::clone(&self.statuses)
    }

    /// Ends of fetches, each to be handed to [`Self::ended`].
    #[must_use]
    pub fn events(&self) -> Receiver<Fetched> {
        self.ended.clone()
    }

    /// All that there are.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Crl>> {
        self.entries.values().filter_map(|entry| entry.crl.clone()).collect()
    }

    /// Keeps the CRLs of these URLs up to date from now on, and no others. `unix` is in seconds since 1970.
    pub fn keep(&mut self, urls: &[String], now: Instant, unix: i64) {
        for (url, entry) in &mut self.entries {
            entry.kept = urls.contains(url);
        }
        for url in urls {
            self.want(url, now, unix);
            if let Some(entry) = self.entries.get_mut(url) {
                entry.kept = true;
            }
        }
        self.report();
    }

    /// Somebody needs the CRL of a URL: fetches it, unless it is in force or could not be had just now.
    pub fn want(&mut self, url: &str, now: Instant, unix: i64) -> Want {
        if !http::is_http(url) {
            return Want::Failed(format!("{}: only http:// is fetched", shown(url)));
        }
        if !self.entries.contains_key(url) {
            if self.entries.len() >= MOST_URLS && !self.forget_one() {
                return Want::Failed(format!("{}: {MOST_URLS} others are known already", shown(url)));
            }
            let crl = self.store.read(url).and_then(|der| parse(&der).ok());
            self.entries.insert(url.to_owned(), Entry { crl, ..Entry::default() });
        }
        let Some(entry) = self.entries.get_mut(url) else { return Want::Pending };
        if entry.crl.as_ref().is_some_and(|crl| crl.next() > unix) {
            return Want::There;
        }
        if entry.fetching {
            return Want::Pending;
        }
        if entry.not_before.is_some_and(|time| time > now) {
            let why = entry.error.clone().unwrap_or_else(|| "what there is is out of date".to_owned());
            return Want::Failed(format!("{}: {why}", shown(url)));
        }
        self.fetch(url);
        Want::Pending
    }

    /// Room for another URL: the first that nobody keeps and nothing is under way for.
    fn forget_one(&mut self) -> bool {
        let idle = |entry: &Entry| !entry.kept && !entry.fetching;
        let Some(url) = self.entries.iter().find(|(_, entry)| idle(entry)).map(|(url, _)| url.clone()) else {
            return false;
        };
        self.entries.remove(&url).is_some()
    }

    fn fetch(&mut self, url: &str) {
        if let Some(entry) = self.entries.get_mut(url) {
            entry.fetching = true;
        }
        self.waiting.push_back(url.to_owned());
        self.begin();
    }

    fn begin(&mut self) {
        while self.active < MOST_FETCHES {
            let Some(url) = self.waiting.pop_front() else { return };
            let done = self.done.clone();
            let fetch = move || {
                let get = catch_unwind(AssertUnwindSafe(|| http::get(&url)));
                let result = get.unwrap_or_else(|_| Err("ipsecd failed to read what came: report it".to_owned()));
                // Whoever asked may be gone.
                let _ = done.send(Fetched { url, result });
            };
            match std::thread::Builder::new().name("crl".into()).spawn(fetch) {
                Ok(_) => self.active += 1,
                Err(e) => {
                    tracing::error!("cannot start a thread to fetch a CRL: {e}");
                    return;
                }
            }
        }
    }

    /// A fetch has ended. Returns the URL.
    pub fn ended(&mut self, fetched: Fetched, now: Instant, unix: i64) -> String {
        self.active = self.active.saturating_sub(1);
        let Fetched { url, result } = fetched;
        let entry = self.entries.entry(url.clone()).or_default();
        entry.fetching = false;
        let parsed = result.and_then(|octets| {
            let crl = parse(&octets).map_err(|what| format!("of what came, {what}"))?;
            // Somebody in between may show an old one again.
            match &entry.crl {
                Some(old) if old.issued() > crl.issued() => Err("what came is older than what there is".to_owned()),
                _ => Ok((octets, crl)),
            }
        });
        match parsed {
            Ok((octets, crl)) => {
                if let Err(e) = self.store.write(&url, &octets) {
                    tracing::warn!("CRL of {}: it is in use, but cannot be kept for the next start: {e}", shown(&url));
                }
                tracing::info!("fetched the CRL of \"{}\" from {}", crl.issuer_name(), shown(&url));
                entry.failures = 0;
                entry.error = None;
                // One that comes out of date would be fetched without end.
                let pause = if crl.next() > unix { Duration::ZERO } else { FIRST_PAUSE };
                entry.not_before = Some(now + pause);
                entry.refresh = Some(now + refresh(&crl, unix).max(FIRST_PAUSE));
                entry.crl = Some(crl);
            }
            Err(why) => {
                tracing::warn!("cannot fetch the CRL at {}: {why}", shown(&url));
                let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(6)).min(LONGEST_PAUSE);
                entry.failures += 1;
                entry.error = Some(why);
                entry.not_before = Some(now + pause);
                entry.refresh = entry.not_before;
            }
        }
        self.begin();
        self.report();
        url
    }

    /// When [`Self::refresh`] has something to do.
    #[must_use]
    pub fn next_refresh(&self) -> Option<Instant> {
        let kept = self.entries.values().filter(|entry| entry.kept && !entry.fetching);
        kept.filter_map(|entry| entry.refresh).min()
    }

    /// Fetches again what is kept and due.
    pub fn refresh(&mut self, now: Instant) {
        let due = |entry: &Entry| entry.kept && !entry.fetching && entry.refresh.is_some_and(|time| time <= now);
        let urls: Vec<_> = self.entries.iter().filter(|(_, entry)| due(entry)).map(|(url, _)| url.clone()).collect();
        urls.iter().for_each(|url| self.fetch(url));
    }

    fn report(&self) {
        let status = |(url, entry): (&String, &Entry)| CrlStatus {
            url: shown(url),
            crl: entry.crl.as_ref().map(|crl| (crl.issuer_name(), crl.next())),
            error: entry.error.clone(),
        };
        let all = self.entries.iter().map(status).collect();
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Reads what anybody may have sent: a parser's panic is an error like others.
fn parse(der: &[u8]) -> Result<Arc<Crl>, String> {
    let panicked = |_| Err("it makes ipsecd fail, which is a fault of ipsecd: report it with its log".to_owned());
    catch_unwind(AssertUnwindSafe(|| Crl::parse(der))).unwrap_or_else(panicked).map(Arc::new)
}

/// How long until a CRL is to be fetched again: before it is out of date, by a tenth of its time.
fn refresh(crl: &Crl, unix: i64) -> Duration {
    let margin = (crl.next() - crl.issued()).max(0) / 10;
    Duration::from_secs(u64::try_from(crl.next() - margin - unix).unwrap_or(0))
}

/// A URL for a line of a log: those of certificates are other people's.
fn shown(url: &str) -> String {
    url.chars().take(200).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
