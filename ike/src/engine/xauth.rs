//! Extended authentication in the engine (draft-ietf-ipsec-isakmp-xauth-06): after phase 1
//! one side asks for the other's user; nothing else begins before he is believed.

use super::mode_config::Lease;
use super::transaction::{About, Question};
use super::{Engine, IsakmpSa, Output, Timer};
use crate::failure::{Exchange, Failure, Fault, Kind, Place};
use crate::retransmit::GIVE_UP;
use crate::wire::attributes::xauth as class;
use crate::wire::{Attribute, AttributeValue, Attributes, AttributesKind};
use crypto::{Entropy, Secret};
use policy::audit::Level;
use policy::config::Xauth;
use policy::time::Timestamp;

/// Octets of the longest name or password that is looked at.
const LONGEST: usize = 255;

/// How far a peer's or our admission is, between phase 1 and the first quick mode.
#[derive(Default)]
pub(super) enum Admission {
    /// Phase 1 is not done.
    #[default]
    NotBegun,
    /// We wait for the peer to ask for our user.
    AwaitingQuestion,
    /// We wait for our user's password.
    AwaitingPassword(Box<Question>),
    /// Name and password are sent.
    AwaitingStatus,
    /// The peer is asked for its user, for the nth time.
    Asking { nth: u8 },
    /// His password is being checked.
    Checking { nth: u8, user: String },
    /// The peer is told that he is refused.
    Refusing { nth: u8 },
    /// The peer is told that he is believed: it may begin quick modes, and we wait until it knows.
    Believing,
    /// We wait for an address from the peer (mode-config).
    Configuring,
    /// Quick modes may begin.
    Complete,
}

impl Admission {
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }

    /// Whether the peer may begin quick modes.
    pub(super) fn lets_in(&self) -> bool {
        matches!(self, Self::Believing | Self::Complete)
    }

    /// Whether our user is not believed yet.
    fn is_of_client(&self) -> bool {
        matches!(self, Self::AwaitingQuestion | Self::AwaitingPassword(_) | Self::AwaitingStatus)
    }
}

impl Engine {
    /// Phase 1 is done: what comes before quick mode.
    pub(super) fn begin_admission(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        match &sa.setup.auth.xauth {
            None => {
                // The peer may ask for an address at once.
                sa.admission = Admission::Believing;
                self.begin_configuration(now, id, entropy);
            }
            Some(Xauth::Client { .. }) => {
                sa.admission = Admission::AwaitingQuestion;
                self.timers.set(Timer::Admission(id), now + GIVE_UP * 2);
            }
            Some(Xauth::Server { .. }) => self.ask_user(now, id, 1, entropy),
        }
        self.early_question(now, id, entropy);
    }

    /// Nothing stands before quick mode any more.
    pub(super) fn admitted(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        self.timers.cancel(&Timer::Admission(id));
        if let Some(sa) = self.isakmp.get_mut(&id) {
            sa.admission = Admission::Complete;
            self.isakmp_ready(now, id, entropy);
        }
    }

    /// Why a quick mode of the peer may not begin yet.
    pub(super) fn not_admitted(&self, id: u64) -> Option<Failure> {
        let sa = self.isakmp.get(&id).filter(|sa| !sa.admission.lets_in())?;
        let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
        Some(Failure::new(
            Kind::Other,
            Fault::Peer,
            "the peer begins quick mode before extended authentication (XAUTH) is done",
            format!("look at the peer's implementation; auth record `{name}` (line {line}) asks for it"),
        ))
    }

    /// Asks for the peer's user.
    fn ask_user(&mut self, now: Timestamp, id: u64, nth: u8, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        sa.admission = Admission::Asking { nth };
        let blank = |kind| Attribute { kind, value: AttributeValue::Variable(Vec::new()) };
        let attributes = vec![blank(class::USER_NAME), blank(class::USER_PASSWORD)];
        self.ask_peer(now, id, AttributesKind::REQUEST, attributes, About::User, entropy);
    }

    /// The peer says who its user is.
    pub(super) fn user_answer(&mut self, now: Timestamp, id: u64, answer: &Attributes, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Admission::Asking { nth } = sa.admission else { return };
        let auth_record = sa.setup.auth.name.clone();
        if answer.get(class::STATUS).is_some() {
            let failure = Failure::new(
                Kind::Other,
                Fault::Peer,
                "the peer cannot say who its user is: it answered with a failure of its own",
                "give the peer a user and a password, or look at its log",
            );
            self.admission_failed(now, id, &failure, entropy);
            return;
        }
        let name = answer.get(class::USER_NAME).and_then(text);
        let password = answer.get(class::USER_PASSWORD).and_then(octets);
        // Without a name or a password it is checked all the same, so that nothing is learnt from the time it takes.
        let user = name.unwrap_or_default();
        let password = Secret::copy_of(password.unwrap_or_default());
        sa.admission = Admission::Checking { nth, user: user.clone() };
        self.timers.set(Timer::Admission(id), now + GIVE_UP);
        self.output.push_back(Output::CheckUser { token: id, auth_record, user, password });
    }

    /// Whether the peer's user is believed: the answer to [`Output::CheckUser`].
    pub(super) fn user_checked(
        &mut self,
        now: Timestamp,
        id: u64,
        verdict: Result<bool, String>,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let Admission::Checking { nth, user } = &sa.admission else { return };
        let (nth, user, peer) = (*nth, user.clone(), sa.setup.remote.ip());
        let most = sa.tries();
        self.timers.cancel(&Timer::Admission(id));
        let believed = match verdict {
            Ok(believed) => believed,
            Err(reason) => {
                let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
                let failure = Failure::new(
                    Kind::Other,
                    Fault::Ours,
                    format!("user {} cannot be checked: {reason}", shown(&user)),
                    format!("look at `users` of auth record `{name}` (line {line})"),
                );
                self.admission_failed(now, id, &failure, entropy);
                return;
            }
        };
        let status = vec![Attribute::basic(class::STATUS, if believed { class::OK } else { class::FAIL })];
        if believed {
            sa.user = Some(user.clone());
            sa.admission = Admission::Believing;
            let first_contact = std::mem::take(&mut sa.first_contact);
            self.audit(Level::Informative, 0, format!("XAUTH: user {} at the peer {peer} is believed", shown(&user)));
            self.proved(id, peer);
            if first_contact {
                self.initial_contact(now, id, entropy);
            }
        } else {
            sa.admission = Admission::Refusing { nth };
            let text = format!(
                "XAUTH: user {} at the peer {peer} is refused, try {nth} of {most}: there is no such user, or the \
                 password is wrong",
                shown(&user)
            );
            self.audit(Level::Warning, 0, text);
        }
        self.ask_peer(now, id, AttributesKind::SET, status, About::Status { user, believed }, entropy);
    }

    /// The peer knows whether its user is believed.
    pub(super) fn status_known(
        &mut self,
        now: Timestamp,
        id: u64,
        user: &str,
        believed: bool,
        entropy: &mut dyn Entropy,
    ) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let nth = match sa.admission {
            Admission::Believing if believed => {
                self.begin_configuration(now, id, entropy);
                return;
            }
            Admission::Refusing { nth } if !believed => nth,
            _ => return,
        };
        if nth < sa.tries() {
            self.ask_user(now, id, nth + 1, entropy);
            return;
        }
        let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
        let failure = Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!(
                "user {} was refused {nth} times, the most there may be (`tries`): name or password is wrong",
                shown(user)
            ),
            format!("compare the peer's user with `users` of auth record `{name}` (line {line}), or stop the peer"),
        );
        self.admission_failed(now, id, &failure, entropy);
    }

    /// The peer does not say who its user is.
    pub(super) fn user_unanswered(&mut self, now: Timestamp, id: u64, sent: usize, entropy: &mut dyn Entropy) {
        let failure = Failure::new(
            Kind::Other,
            Fault::Peer,
            format!(
                "the peer does not say who its user is, asked {sent} times: retransmission count exceeded the limit"
            ),
            "see that the peer knows XAUTH and has a user and a password",
        );
        self.admission_failed(now, id, &failure, entropy);
    }

    /// The peer asks for our user, or says whether it believes him.
    pub(super) fn user_question(&mut self, now: Timestamp, id: u64, question: Question, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let peer = sa.setup.remote.ip();
        let (name, line) = (sa.setup.auth.name.clone(), sa.setup.auth.line);
        if !matches!(sa.setup.auth.xauth, Some(Xauth::Client { .. })) {
            let text = format!(
                "{peer} asks for a user (XAUTH), and auth record `{name}` (line {line}) is not for that: refused; write \
                 xauth = \"client\" with a user and a password there, or have the peer not ask"
            );
            self.audit(Level::Warning, 0, text);
            self.answer_question(now, id, question, vec![Attribute::basic(class::STATUS, class::FAIL)]);
            return;
        }
        if question.attributes.kind == AttributesKind::SET {
            self.status_told(now, id, question, entropy);
            return;
        }
        if let Some(words) = question.attributes.get(class::MESSAGE).and_then(text) {
            self.audit(Level::Informative, 0, format!("XAUTH: {peer} says {}", shown(&words)));
        }
        let Some(sa) = self.isakmp.get(&id) else { return };
        let asked = |class| question.attributes.get(class).is_some();
        let answerable =
            |class| matches!(class, class::TYPE | class::USER_NAME | class::USER_PASSWORD | class::MESSAGE);
        let kind = question.attributes.get(class::TYPE).and_then(Attribute::as_number);
        let strange = question.attributes.attributes.iter().map(|a| a.kind).find(|kind| !answerable(*kind));
        let failure = match (&sa.admission, strange, kind) {
            (_, Some(strange), _) => Some(unanswerable(&class::name(strange))),
            (_, _, Some(kind)) if kind != u64::from(class::GENERIC) => {
                Some(unanswerable(&format!("an answer of type {kind}")))
            }
            // Asked once more without a word about the first answer (draft 5): our user is not believed.
            (Admission::AwaitingStatus, ..) if asked(class::USER_PASSWORD) => Some(refused_by_peer(sa)),
            _ => None,
        };
        if let Some(failure) = failure {
            self.answer_question(now, id, question, vec![Attribute::basic(class::STATUS, class::FAIL)]);
            self.admission_failed(now, id, &failure, entropy);
            return;
        }
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        match sa.admission {
            Admission::AwaitingQuestion | Admission::AwaitingStatus => {
                sa.admission = Admission::AwaitingPassword(Box::new(question));
                self.output.push_back(Output::NeedPassword { token: id, auth_record: name, peer });
            }
            // A peer may ask again later in the life of an SA; we answer once.
            _ => self.answer_question(now, id, question, vec![Attribute::basic(class::STATUS, class::FAIL)]),
        }
    }

    /// Our user's password: the answer to [`Output::NeedPassword`].
    pub(super) fn password(&mut self, now: Timestamp, id: u64, password: Option<Secret>, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        let question = match std::mem::replace(&mut sa.admission, Admission::AwaitingStatus) {
            Admission::AwaitingPassword(question) => *question,
            other => {
                sa.admission = other;
                return;
            }
        };
        let (Some(Xauth::Client { user, .. }), Some(password)) = (&sa.setup.auth.xauth, password) else {
            let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
            let failure = Failure::new(
                Kind::Other,
                Fault::Ours,
                format!("auth record `{name}` (line {line}) has no password for its user"),
                "give it one with `password_file`",
            );
            self.answer_question(now, id, question, vec![Attribute::basic(class::STATUS, class::FAIL)]);
            self.admission_failed(now, id, &failure, entropy);
            return;
        };
        let value = |kind| match kind {
            class::USER_NAME => Some(user.as_bytes()),
            class::USER_PASSWORD => Some(password.expose()),
            _ => None,
        };
        let told = |kind| Some(Attribute { kind, value: AttributeValue::Variable(value(kind)?.to_vec()) });
        let attributes = question.attributes.attributes.iter().filter_map(|a| told(a.kind)).collect();
        self.timers.set(Timer::Admission(id), now + GIVE_UP * 2);
        self.answer_question(now, id, question, attributes);
    }

    /// The peer says whether it believes our user.
    fn status_told(&mut self, now: Timestamp, id: u64, question: Question, entropy: &mut dyn Entropy) {
        let status = question.attributes.get(class::STATUS).cloned();
        let number = status.as_ref().and_then(Attribute::as_number);
        let words = question.attributes.get(class::MESSAGE).and_then(text);
        // What is taken note of comes back.
        self.answer_question(now, id, question, status.into_iter().collect());
        let awaiting = |sa: &&IsakmpSa| matches!(sa.admission, Admission::AwaitingStatus);
        let Some(peer) = self.isakmp.get(&id).filter(awaiting).map(|sa| sa.setup.remote.ip()) else { return };
        if let Some(words) = words {
            self.audit(Level::Informative, 0, format!("XAUTH: {peer} says {}", shown(&words)));
        }
        let Some(sa) = self.isakmp.get(&id) else { return };
        if number == Some(class::OK.into()) {
            let user = sa.our_user().map(shown).unwrap_or_default();
            self.audit(Level::Informative, 0, format!("XAUTH: the peer {peer} believes our user {user}"));
            self.begin_configuration(now, id, entropy);
        } else {
            let failure = refused_by_peer(sa);
            self.admission_failed(now, id, &failure, entropy);
        }
    }

    /// What was awaited did not come in time.
    pub(super) fn admission_due(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
        let (fault, detail, remedy) = match sa.admission {
            Admission::AwaitingQuestion => (
                Fault::Mismatch,
                "the peer does not ask for our user",
                format!("have the peer ask, or take `xauth` out of auth record `{name}` (line {line})"),
            ),
            Admission::AwaitingStatus => {
                (Fault::Peer, "the peer does not say whether it believes our user", "look at the peer's log".to_owned())
            }
            Admission::AwaitingPassword(_) => {
                (Fault::Ours, "the password of our user did not come in time", "look at where it is kept".to_owned())
            }
            Admission::Configuring => (
                Fault::Mismatch,
                "the peer does not tell us an address (mode-config), which we wait for as `virtual` is push",
                "write virtual = \"pull\" in the tunnel, or have the peer push".to_owned(),
            ),
            _ if matches!(sa.lease, Lease::Wanted(_)) => {
                (Fault::Ours, "an address for the peer did not come in time", "see how busy this host is".to_owned())
            }
            Admission::Checking { .. } => (
                Fault::Ours,
                "the verdict on the peer's user did not come in time",
                "see how busy this host is, and how many users come in at once".to_owned(),
            ),
            _ => return,
        };
        let failure = Failure::new(Kind::Other, fault, detail, remedy);
        self.admission_failed(now, id, &failure, entropy);
    }

    /// The peer deletes an ISAKMP SA before it has said that it believes our user: it does not, most likely, and
    /// asking again at once would lock him out where the peer counts. False if that is not so.
    pub(super) fn deleted_before_admission(&mut self, now: Timestamp, id: u64, entropy: &mut dyn Entropy) -> bool {
        let Some(sa) = self.isakmp.get(&id).filter(|sa| sa.admission.is_of_client()) else { return false };
        let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
        let user = sa.our_user().map(shown).unwrap_or_default();
        let failure = Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("the peer deleted the ISAKMP SA before it said whether it believes our user {user}"),
            format!("look at the peer's log, and at `user` and the password of auth record `{name}` (line {line})"),
        );
        let place = Place { exchange: Exchange::Transaction, ..sa.place() };
        self.main_mode_failed(now, id, &failure, &place, false, entropy);
        self.isakmp_gone(now, id, "deleted by the peer", entropy);
        true
    }

    /// A user is not believed, or cannot be: reported once, and the ISAKMP SA is deleted.
    pub(super) fn admission_failed(&mut self, now: Timestamp, id: u64, failure: &Failure, entropy: &mut dyn Entropy) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let place = Place { exchange: Exchange::Transaction, ..sa.place() };
        // The tunnels that wait for it fail with it, rather than try at once what was just refused.
        self.main_mode_failed(now, id, failure, &place, false, entropy);
        self.delete_isakmp(now, id, "its peer or ours is not admitted", true, entropy);
    }
}

impl IsakmpSa {
    /// How often the peer's user may be refused.
    fn tries(&self) -> u8 {
        match self.setup.auth.xauth {
            Some(Xauth::Server { tries, .. }) => tries,
            _ => 1,
        }
    }

    /// Our user's name.
    fn our_user(&self) -> Option<&str> {
        match &self.setup.auth.xauth {
            Some(Xauth::Client { user, .. }) => Some(user),
            _ => None,
        }
    }
}

fn refused_by_peer(sa: &IsakmpSa) -> Failure {
    let (name, line) = (&sa.setup.auth.name, sa.setup.auth.line);
    let user = sa.our_user().map(shown).unwrap_or_default();
    Failure::new(
        Kind::Other,
        Fault::Mismatch,
        format!("the peer refuses our user {user}: it has no such user, or the password is wrong"),
        format!("compare `user` and the password of auth record `{name}` (line {line}) with the peer's"),
    )
}

fn unanswerable(what: &str) -> Failure {
    Failure::new(
        Kind::Other,
        Fault::Mismatch,
        format!("the peer asks for {what}, which we cannot give: we answer with a name and a password"),
        "have the peer ask for these (generic XAUTH)",
    )
}

/// The octets of an attribute that is not too long.
fn octets(attribute: &Attribute) -> Option<&[u8]> {
    match &attribute.value {
        AttributeValue::Variable(octets) if octets.len() <= LONGEST => Some(octets),
        _ => None,
    }
}

/// The words in an attribute.
fn text(attribute: &Attribute) -> Option<String> {
    octets(attribute).and_then(|octets| core::str::from_utf8(octets).ok()).map(str::to_owned)
}

/// What a peer wrote, as it may stand in a line of the audit log.
fn shown(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}
