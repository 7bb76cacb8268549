//! Signatures and verdicts, on a thread of their own: what takes milliseconds must
//! not hold up the negotiations of others.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crypto::Secret;
use crypto::table::Signature;
use ike::Command;
use keys::Credentials;
use keys::credentials::Statement;
use policy::config::IdentityPattern;
use policy::trust::{Claim, Distrust, Refusal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Questions that wait; more are answered with a refusal at once.
const QUESTIONS: usize = 256;

/// One question of the engine.
pub(super) struct Question {
    pub(super) token: u64,
    /// None: the record has no certificates any more.
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) task: Task,
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

/// The thread's end of the daemon.
pub(super) struct Judge(Sender<Question>);

impl Judge {
    /// Starts the thread; answers come out of the receiver, as commands to the engine.
    pub(super) fn start() -> std::io::Result<(Self, mpsc::Receiver<Command>)> {
        let (ask, questions) = bounded(QUESTIONS);
        let (commands, answers) = mpsc::channel(QUESTIONS);
        std::thread::Builder::new().name("judge".into()).spawn(move || work(&questions, &commands, answer))?;
        Ok((Self(ask), answers))
    }

    /// Hands a question over. The answer comes later, or now if there are too many questions.
    pub(super) fn ask(&self, question: Question) -> Option<Command> {
        match self.0.try_send(question) {
            Ok(()) => None,
            Err(TrySendError::Full(question)) => {
                Some(refuse(&question, "too many negotiations ask at once", "try again"))
            }
            Err(TrySendError::Disconnected(question)) => {
                Some(refuse(&question, "the thread that signs and judges is gone", "restart ipsecd, and report it"))
            }
        }
    }
}

/// A question that makes a parser panic is answered with a refusal: what a stranger sends must not end the thread.
fn work(questions: &Receiver<Question>, answers: &mpsc::Sender<Command>, answer: impl Fn(&Question) -> Command) {
    for question in questions {
        let answered = catch_unwind(AssertUnwindSafe(|| answer(&question)));
        let command = answered.unwrap_or_else(|_| {
            refuse(&question, "ipsecd failed to read what it was to judge", "a fault of ipsecd: report it with its log")
        });
        if answers.blocking_send(command).is_err() {
            return;
        }
    }
}

fn answer(question: &Question) -> Command {
    let token = question.token;
    let Some(credentials) = &question.credentials else {
        return refuse(
            question,
            "the auth record has no certificates any more",
            "look at what was changed before the reload",
        );
    };
    match &question.task {
        Task::Sign { method, hash } => {
            let signed = credentials.sign(method, hash.expose());
            Command::Signed { token, signed: signed.map(|s| (s.certificates, s.signature)) }
        }
        Task::Judge { method, hash, signature, claim, certificates, expected } => {
            let hash = hash.expose();
            let statement = Statement { method, hash, signature, claim, certificates, expected };
            Command::Judged { token, verdict: credentials.judge(&statement, crate::credentials::now()) }
        }
    }
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
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[test]
    fn a_question_that_panics_is_refused_and_the_next_is_answered() {
        let (ask, questions) = bounded(QUESTIONS);
        let (commands, mut answers) = mpsc::channel(QUESTIONS);
        let method = Signature::from_keyword("rsasig").unwrap();
        for token in [1, 2] {
            let task = Task::Sign { method, hash: Secret::new(vec![0; 20]) };
            ask.send(Question { token, credentials: None, task }).unwrap();
        }
        drop(ask);
        let first = AtomicBool::new(true);
        work(&questions, &commands, |question| {
            assert!(!first.swap(false, Relaxed), "as a parser might");
            answer(question)
        });
        let mut refused = || match answers.try_recv() {
            Ok(Command::Signed { token, signed: Err(reason) }) => (token, reason),
            other => panic!("{other:?}"),
        };
        let (token, reason) = refused();
        assert!(token == 1 && reason.contains("failed to read"), "{token} {reason}");
        let (token, reason) = refused();
        assert!(token == 2 && reason.contains("no certificates any more"), "{token} {reason}");
    }
}
