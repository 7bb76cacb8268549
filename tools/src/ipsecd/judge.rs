//! Signatures and verdicts, on a thread of their own: what takes milliseconds must
//! not hold up the negotiations of others. Nor must a verdict that waits for a CRL to
//! be fetched: it is put aside until that has come, or has taken too long.

use crate::revocation::{CrlStatuses, Crls, Fetched, Issuers, Want};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, select};
use crypto::Secret;
use crypto::table::Signature;
use ike::Command;
use keys::Credentials;
use keys::credentials::Statement;
use policy::audit::AuditEvent;
use policy::config::{CertificateFiles, IdentityPattern};
use policy::trust::{Claim, Distrust, Refusal};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Questions that wait; more are answered with a refusal at once.
const QUESTIONS: usize = 256;
/// Verdicts that wait for CRLs; more are given without.
const MOST_ASIDE: usize = 256;
/// How long a verdict waits for CRLs: less than the peer repeats its message.
const CRL_PATIENCE: Duration = Duration::from_secs(12);
/// Far enough away for a time that is not set.
const LONG: Duration = Duration::from_secs(3600);

/// One question of the engine.
pub(super) struct Question {
    pub(super) token: u64,
    /// None: the record has no certificates any more.
    pub(super) credentials: Option<Arc<Credentials>>,
    /// Where its CRLs are fetched from; none: from nowhere.
    pub(super) sources: Option<Sources>,
    pub(super) task: Task,
}

/// Where a record has CRLs fetched from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    urls: Vec<String>,
    /// And from where certificates say.
    of_certificates: bool,
}

impl Sources {
    /// Those of a record, if any.
    pub(super) fn of(files: &CertificateFiles) -> Option<Self> {
        files.fetches().then(|| Self { urls: files.crl_urls.clone(), of_certificates: files.crl_fetch })
    }
}

/// What is asked.
pub(super) enum Task {
    Sign {
        method: &'static Signature,
        hash: Secret,
    },
    Judge {
        method: &'static Signature,
        hash: Secret,
        signature: Vec<u8>,
        claim: Claim,
        certificates: Vec<Vec<u8>>,
        expected: IdentityPattern,
    },
}

/// What the thread has to say.
#[derive(Debug)]
pub(super) enum Answer {
    /// To the engine.
    Command(Command),
    /// To the audit log.
    Audit(AuditEvent),
}

enum Order {
    Answer(Box<Question>),
    /// Keep the CRLs of these URLs up to date; with each, who may have made it.
    Keep(BTreeMap<String, Issuers>),
}

/// The thread's end of the daemon.
pub(super) struct Judge {
    orders: Sender<Order>,
    crls: CrlStatuses,
}

impl Judge {
    /// Starts the thread; answers come out of the receiver. Fetched CRLs are kept in `directory`.
    pub(super) fn start(directory: PathBuf) -> std::io::Result<(Self, mpsc::Receiver<Answer>)> {
        let (ask, orders) = bounded(QUESTIONS);
        let (answer, answers) = mpsc::channel(QUESTIONS);
        let crls = Crls::new(directory);
        let statuses = crls.statuses();
        let work = move || Bench { crls, aside: Vec::new(), answers: answer }.work(&orders);
        std::thread::Builder::new().name("judge".into()).spawn(work)?;
        Ok((Self { orders: ask, crls: statuses }, answers))
    }

    /// Hands a question over. The answer comes later, or now if there are too many questions.
    pub(super) fn ask(&self, question: Question) -> Option<Command> {
        let (reason, remedy, order) = match self.orders.try_send(Order::Answer(Box::new(question))) {
            Ok(()) => return None,
            Err(TrySendError::Full(order)) => ("too many negotiations ask at once", "try again", order),
            Err(TrySendError::Disconnected(order)) => {
                ("the thread that signs and judges is gone", "restart ipsecd, and report it", order)
            }
        };
        match order {
            Order::Answer(question) => Some(refuse(&question, reason, remedy)),
            Order::Keep(_) => None,
        }
    }

    /// Keeps the CRLs of these URLs up to date, and no others; with each, who may have made it.
    pub(super) fn keep_crls(&self, urls: BTreeMap<String, Issuers>) {
        if self.orders.try_send(Order::Keep(urls)).is_err() {
            tracing::error!("too many negotiations ask at once: CRLs are fetched as before the reload; reload again");
        }
    }

    /// What is known of fetched CRLs.
    pub(super) fn crls(&self) -> &CrlStatuses {
        &self.crls
    }
}

/// A question whose verdict waits for CRLs.
struct Aside {
    question: Question,
    urls: Vec<String>,
    until: Instant,
}

/// Where the thread works.
struct Bench {
    crls: Crls,
    aside: Vec<Aside>,
    answers: mpsc::Sender<Answer>,
}

/// CRLs that a verdict needs.
#[derive(Default)]
struct Wanted {
    urls: Vec<String>,
    /// Who should have made them.
    issuers: Issuers,
}

impl Bench {
    fn work(mut self, orders: &Receiver<Order>) {
        let fetched = self.crls.events();
        loop {
            let now = Instant::now();
            let until = self.aside.iter().map(|aside| aside.until).chain(self.crls.next_refresh()).min();
            let wait = until.map_or(LONG, |time| time.saturating_duration_since(now));
            let going = select! {
                recv(orders) -> order => match order {
                    Ok(Order::Answer(question)) => self.question(*question),
                    Ok(Order::Keep(urls)) => {
                        self.crls.keep(&urls, Instant::now(), crate::credentials::now());
                        true
                    }
                    Err(_) => return,
                },
                recv(fetched) -> fetched => fetched.is_ok_and(|fetched| self.fetched(fetched)),
                default(wait) => true,
            };
            if !going || !self.overdue() || !self.tell_of_refusals() {
                return;
            }
            self.crls.refresh(Instant::now());
        }
    }

    /// Answers, or puts aside. `false`: nobody wants answers any more.
    fn question(&mut self, question: Question) -> bool {
        let Wanted { urls, issuers } = match guarded(&question, || self.wanted(&question)) {
            Ok(wanted) => wanted,
            Err(refusal) => return self.send(Answer::Command(*refusal)),
        };
        let now = Instant::now();
        let unix = crate::credentials::now();
        let mut pending: Vec<_> =
            urls.into_iter().filter(|url| self.crls.want(url, &issuers, now, unix) == Want::Pending).collect();
        if pending.is_empty() || self.aside.len() >= MOST_ASIDE {
            return self.answer(&question);
        }
        pending.dedup();
        self.aside.push(Aside { question, urls: pending, until: now + CRL_PATIENCE });
        true
    }

    /// Where CRLs may be that a verdict needs and that there are not.
    fn wanted(&self, question: &Question) -> Wanted {
        let (Some(credentials), Some(sources)) = (&question.credentials, &question.sources) else {
            return Wanted::default();
        };
        let Some(statement) = question.task.statement() else { return Wanted::default() };
        let missing = credentials.missing_crls(&statement, crate::credentials::now(), &self.crls.all());
        if missing.is_empty() {
            return Wanted::default();
        }
        let issuers = missing.iter().map(|crl| Arc::clone(&crl.issuer)).collect();
        let named = missing.into_iter().flat_map(|crl| crl.uris).filter(|_| sources.of_certificates);
        Wanted { urls: sources.urls.iter().cloned().chain(named).collect(), issuers }
    }

    /// `false`: nobody wants answers any more.
    fn send(&self, answer: Answer) -> bool {
        self.answers.blocking_send(answer).is_ok()
    }

    fn tell_of_refusals(&mut self) -> bool {
        self.crls.refusals().into_iter().all(|event| self.send(Answer::Audit(event)))
    }

    fn fetched(&mut self, fetched: Fetched) -> bool {
        let url = self.crls.ended(fetched, Instant::now(), crate::credentials::now());
        self.aside.iter_mut().for_each(|aside| aside.urls.retain(|waits| *waits != url));
        // Before the verdict that it explains.
        self.tell_of_refusals() && self.release(|aside| aside.urls.is_empty())
    }

    fn overdue(&mut self) -> bool {
        let now = Instant::now();
        self.release(|aside| aside.until <= now)
    }

    /// Answers what need not wait any longer.
    fn release(&mut self, ready: impl Fn(&Aside) -> bool) -> bool {
        let (ready, waiting) = std::mem::take(&mut self.aside).into_iter().partition(|aside| ready(aside));
        self.aside = waiting;
        let ready: Vec<Aside> = ready;
        ready.iter().all(|aside| self.answer(&aside.question))
    }

    fn answer(&mut self, question: &Question) -> bool {
        let command = guarded(question, || self.verdict(question)).unwrap_or_else(|refusal| *refusal);
        self.send(Answer::Command(command))
    }

    fn verdict(&mut self, question: &Question) -> Command {
        let token = question.token;
        let Some(credentials) = &question.credentials else {
            return refuse(
                question,
                "the auth record has no certificates any more",
                "look at what was changed before the reload",
            );
        };
        if let Task::Sign { method, hash } = &question.task {
            let signed = credentials.sign(method, hash.expose());
            return Command::Signed { token, signed: signed.map(|s| (s.certificates, s.signature)) };
        }
        let Some(statement) = question.task.statement() else {
            return refuse(question, "there is nothing to be judged", "report it");
        };
        let mut verdict = credentials.judge(&statement, crate::credentials::now(), &self.crls.all());
        let unknown = match &verdict {
            Ok(trusted) => !trusted.remarks.is_empty(),
            Err(refusal) => refusal.distrust == Distrust::RevocationUnknown,
        };
        if unknown {
            for why in self.failures(question) {
                match &mut verdict {
                    Ok(trusted) => trusted.remarks.push(why),
                    Err(refusal) => refusal.detail = format!("{}; {why}", refusal.detail),
                }
            }
        }
        Command::Judged { token, verdict }
    }

    /// Why CRLs that were wanted are not there.
    fn failures(&mut self, question: &Question) -> Vec<String> {
        let (now, unix) = (Instant::now(), crate::credentials::now());
        let Wanted { urls, issuers } = self.wanted(question);
        let mut failures: Vec<_> = urls
            .into_iter()
            .filter_map(|url| match self.crls.want(&url, &issuers, now, unix) {
                Want::Failed(why) => Some(format!("no CRL from {why}")),
                Want::Pending => Some(format!("no CRL from {url} within {} s", CRL_PATIENCE.as_secs())),
                Want::There => None,
            })
            .collect();
        failures.dedup();
        failures.truncate(4);
        failures
    }
}

impl Task {
    /// What is to be judged, if this is about that.
    fn statement(&self) -> Option<Statement<'_>> {
        match self {
            Self::Judge { method, hash, signature, claim, certificates, expected } => {
                Some(Statement { method, hash: hash.expose(), signature, claim, certificates, expected })
            }
            Self::Sign { .. } => None,
        }
    }
}

/// A question that makes a parser panic is answered with a refusal: what a stranger sends must not end the thread.
fn guarded<T>(question: &Question, work: impl FnOnce() -> T) -> Result<T, Box<Command>> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        let remedy = "a fault of ipsecd: report it with its log";
        Box::new(refuse(question, "ipsecd failed to read what it was to judge", remedy))
    })
}

fn refuse(question: &Question, reason: &str, remedy: &str) -> Command {
    let token = question.token;
    match question.task {
        Task::Sign { .. } => Command::Signed { token, signed: Err(reason.to_owned()) },
        Task::Judge { .. } => Command::Judged {
            token,
            verdict: Err(Refusal {
                distrust: Distrust::NotJudged,
                certificate: None,
                detail: reason.to_owned(),
                remedy: remedy.to_owned(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(token: u64) -> Question {
        let method = Signature::from_keyword("rsasig").unwrap();
        let task = Task::Sign { method, hash: Secret::new(vec![0; 20]) };
        Question { token, credentials: None, sources: None, task }
    }

    #[test]
    fn a_question_that_panics_is_refused() {
        let refused = guarded(&question(7), || -> Command { panic!("as a parser might") }).unwrap_err();
        let Command::Signed { token, signed: Err(reason) } = *refused else { panic!("{refused:?}") };
        assert_eq!((token, reason.as_str()), (7, "ipsecd failed to read what it was to judge"));
        assert_eq!(guarded(&question(7), || 3).unwrap(), 3);
    }

    #[test]
    fn each_question_has_its_answer() {
        let directory = tempfile::tempdir().unwrap();
        let (judge, mut answers) = Judge::start(directory.path().join("crl")).unwrap();
        for token in [1, 2] {
            assert!(judge.ask(question(token)).is_none());
        }
        for token in [1, 2] {
            let Some(Answer::Command(Command::Signed { token: of, signed: Err(reason) })) = answers.blocking_recv()
            else {
                panic!()
            };
            assert_eq!((of, reason.as_str()), (token, "the auth record has no certificates any more"));
        }
    }
}
