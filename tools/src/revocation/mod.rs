//! CRLs that are fetched: which there are, which are under way, and when to ask again.
//!
//! [`Crls`] belongs to the thread that judges certificates and never waits: a fetch is a thread of its
//! own, a few of them at a time, and its end is a message. What was fetched is kept in a directory, so
//! that a daemon that starts again needs no network to know it.
//!
//! What comes from a network counts for nothing, and neither takes the place of anything nor goes to the directory,
//! before the signature of an authority that is believed has been seen on it ([`ProvenCrl`]).

mod http;
mod store;

use crossbeam::channel::{Receiver, Sender, unbounded};
use keys::{Certificate, ProvenCrl, Unproven};
use policy::audit::{AuditEvent, Entity, Level, number};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Store;

/// URLs that are known at a time. More come from certificates that our authorities issued, or not at all.
const MOST_URLS: usize = 64;
/// Lists of one URL: an authority that has changed its key has two, and a namesake of it, which another record
/// believes, does not take their place.
const MOST_LISTS: usize = 4;
/// Certificates of issuers that one URL is known by from peers.
const MOST_ISSUERS: usize = 32;
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

/// Whose list is at a URL: certificates of authorities that are believed for reasons other than the list.
pub type Issuers = Vec<Arc<Certificate>>;

#[derive(Debug, Default)]
struct Entry {
    /// The oldest fetch first; at most one that the same key signed.
    lists: Vec<Arc<ProvenCrl>>,
    /// Issuers that the configuration knows.
    configured: Issuers,
    /// Issuers of verified chains of peers.
    learnt: VecDeque<Arc<Certificate>>,
    /// Whether the last fetch brought a list of somebody who was not known then.
    unknown_issuer: bool,
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

impl Entry {
    /// Gets to know issuers. Whether any is new.
    fn learn(&mut self, issuers: &[Arc<Certificate>]) -> bool {
        let mut new = false;
        for issuer in issuers {
            if self.issuers().any(|known| known.der() == issuer.der()) {
                continue;
            }
            new = true;
            self.learnt.push_back(Arc::clone(issuer));
            if self.learnt.len() > MOST_ISSUERS {
                self.learnt.pop_front();
            }
        }
        new
    }

    /// Issuers are known that were not: what could not be judged before can be now.
    fn recall(&mut self, url: &str, store: &Store) {
        if self.lists.is_empty()
            && let Some(list) = store.read(url).and_then(|der| prove(&der, self.issuers()).ok())
        {
            self.put(Arc::new(list));
        }
        if std::mem::take(&mut self.unknown_issuer) {
            self.not_before = None;
        }
    }

    fn issuers(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.configured.iter().chain(&self.learnt)
    }

    /// Whether a list is in force that these issuers may have made: one of somebody else, but none of a namesake.
    fn serves(&self, issuers: &[Arc<Certificate>], unix: i64) -> bool {
        let namesake = |list: &ProvenCrl| issuers.iter().any(|issuer| list.is_by_namesake(issuer));
        let own = |list: &ProvenCrl| issuers.iter().any(|issuer| list.is_by(issuer));
        self.lists.iter().any(|list| list.next() > unix && (own(list) || !namesake(list)))
    }

    /// The place of the list that the same key signed.
    fn place(&self, list: &ProvenCrl) -> Option<usize> {
        self.lists.iter().position(|there| there.is_by_the_same(list))
    }

    /// The list takes the place of the one that the same key signed.
    fn put(&mut self, list: Arc<ProvenCrl>) {
        if let Some(place) = self.place(&list) {
            self.lists.remove(place);
        }
        self.lists.push(list);
        if self.lists.len() > MOST_LISTS {
            self.lists.remove(0);
        }
    }
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
    refusals: Vec<AuditEvent>,
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
            refusals: Vec::new(),
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
    pub fn all(&self) -> Vec<Arc<ProvenCrl>> {
        self.entries.values().flat_map(|entry| entry.lists.iter().cloned()).collect()
    }

    /// What the audit log is to say of lists that were refused since this was last asked.
    pub fn refusals(&mut self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.refusals)
    }

    /// Keeps the CRLs of these URLs up to date from now on, and no others; with each, who may have made it. `unix` is in
    /// seconds since 1970.
    pub fn keep(&mut self, urls: &BTreeMap<String, Issuers>, now: Instant, unix: i64) {
        for (url, entry) in &mut self.entries {
            entry.kept = false;
            entry.configured = urls.get(url).cloned().unwrap_or_default();
        }
        for (url, issuers) in urls {
            if self.make_room(url)
                && let Some(entry) = self.entries.get_mut(url)
            {
                entry.kept = true;
                entry.configured.clone_from(issuers);
                entry.learnt.retain(|learnt| issuers.iter().all(|issuer| issuer.der() != learnt.der()));
                entry.recall(url, &self.store);
            }
            self.want(url, issuers, now, unix);
        }
        self.report();
    }

    /// Somebody needs the CRL of a URL, which one of `issuers` should have made: fetches it, unless it is in force or could
    /// not be had just now.
    pub fn want(&mut self, url: &str, issuers: &[Arc<Certificate>], now: Instant, unix: i64) -> Want {
        if !http::is_http(url) {
            return Want::Failed(format!("{}: only http:// is fetched", shown(url)));
        }
        if !self.make_room(url) {
            return Want::Failed(format!("{}: {MOST_URLS} others are known already", shown(url)));
        }
        let Some(entry) = self.entries.get_mut(url) else { return Want::Pending };
        if entry.learn(issuers) {
            entry.recall(url, &self.store);
        }
        if entry.serves(issuers, unix) {
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

    /// There is an entry for a URL now; `false`: there are too many.
    fn make_room(&mut self, url: &str) -> bool {
        if !self.entries.contains_key(url) {
            if self.entries.len() >= MOST_URLS && !self.forget_one() {
                return false;
            }
            self.entries.insert(url.to_owned(), Entry::default());
        }
        true
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
        entry.unknown_issuer = false;
        let proven = result.and_then(|octets| {
            let list = prove(&octets, entry.issuers()).map_err(|unproven| {
                entry.unknown_issuer = matches!(unproven, Unproven::UnknownIssuer { .. });
                self.refusals.extend(refused(&url, &unproven));
                unproven.to_string()
            })?;
            // Somebody in between may show an old one again.
            match entry.place(&list).and_then(|place| entry.lists.get(place)) {
                Some(old) if old.issued() > list.issued() => Err("what came is older than what there is".to_owned()),
                _ => Ok((octets, Arc::new(list))),
            }
        });
        match proven {
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
                entry.put(crl);
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
            crl: entry.lists.last().map(|crl| (crl.issuer_name(), crl.next())),
            error: entry.error.clone(),
        };
        let all = self.entries.iter().map(status).collect();
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Reads what anybody may have sent: a parser's panic is an error like others.
fn prove<'a>(der: &[u8], issuers: impl Iterator<Item = &'a Arc<Certificate>>) -> Result<ProvenCrl, Unproven> {
    let panicked = |_| {
        Err(Unproven::Malformed("it makes ipsecd fail, which is a fault of ipsecd: report it with its log".to_owned()))
    };
    catch_unwind(AssertUnwindSafe(|| ProvenCrl::prove(der, issuers))).unwrap_or_else(panicked)
}

/// What the audit log says of a list that nobody who is believed has signed.
fn refused(url: &str, unproven: &Unproven) -> Option<AuditEvent> {
    let url = shown(url);
    let (level, text) = match unproven {
        // No more than a page of a web server: the verdict that needs the list says so.
        Unproven::Malformed(_) => return None,
        Unproven::UnknownIssuer { issuer } => (
            Level::Warning,
            format!(
                "CRL refused: the list at {url} is of the CA \"{issuer}\", of which no certificate is known: it is \
                 fetched again when a peer shows one that is believed, and what was fetched before stays in force. Or \
                 add the certificate to `ca`."
            ),
        ),
        Unproven::Forged { issuer, reason } => (
            Level::Error,
            format!(
                "CRL refused: the list at {url} is not of the CA \"{issuer}\", as which it came: {reason}. It is not \
                 used, and what was fetched before stays in force. See what the server has, and who is in between."
            ),
        ),
    };
    Some(AuditEvent { number: number::NONE, entity: Entity::Ikmpd, level, text })
}

/// How long until a CRL is to be fetched again: before it is out of date, by a tenth of its time.
fn refresh(crl: &ProvenCrl, unix: i64) -> Duration {
    let margin = (crl.next() - crl.issued()).max(0) / 10;
    Duration::from_secs(u64::try_from(crl.next() - margin - unix).unwrap_or(0))
}

/// A URL for a line of a log: those of certificates are other people's.
fn shown(url: &str) -> String {
    url.chars().take(200).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
