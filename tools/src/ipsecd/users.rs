//! Passwords of users, checked on a thread of their own: a check is slow on purpose, and must hold
//! up neither the negotiations nor the signatures of others.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crypto::Secret;
use ike::Command;
use keys::Users;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Questions that wait; more are answered at once with why they cannot be.
const QUESTIONS: usize = 64;

/// One question of the engine.
pub(super) struct Question {
    pub(super) token: u64,
    /// None: the record asks for no user any more.
    pub(super) users: Option<Arc<Users>>,
    pub(super) user: String,
    pub(super) password: Secret,
}

/// The thread's end of the daemon.
pub(super) struct UserChecker(Sender<Question>);

impl UserChecker {
    /// Starts the thread; answers come out of the receiver, as commands to the engine.
    pub(super) fn start() -> std::io::Result<(Self, mpsc::Receiver<Command>)> {
        let (ask, questions) = bounded(QUESTIONS);
        let (answer, answers) = mpsc::channel(QUESTIONS);
        std::thread::Builder::new().name("users".into()).spawn(move || work(&questions, &answer))?;
        Ok((Self(ask), answers))
    }

    /// Hands a question over. The answer comes later, or now if there are too many questions.
    pub(super) fn ask(&self, question: Question) -> Option<Command> {
        let token = question.token;
        let refuse = |reason: &str| Some(Command::UserChecked { token, verdict: Err(reason.to_owned()) });
        match self.0.try_send(question) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => refuse("too many users come in at once"),
            Err(TrySendError::Disconnected(_)) => refuse("the thread that checks passwords is gone"),
        }
    }
}

fn work(questions: &Receiver<Question>, answers: &mpsc::Sender<Command>) {
    for Question { token, users, user, password } in questions {
        let verdict = users.map(|users| users.check(&user, &password));
        let verdict = verdict.ok_or_else(|| "its auth record asks for no user any more".to_owned());
        if answers.blocking_send(Command::UserChecked { token, verdict }).is_err() {
            return;
        }
    }
}
