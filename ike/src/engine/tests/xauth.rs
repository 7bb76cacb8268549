//! Extended authentication with a peer that does not keep to it.

use super::super::transaction::About;
use super::super::xauth::Admission;
use super::*;
use crate::wire::attributes::xauth as class;
use crate::wire::{Attribute, AttributeValue, Attributes, AttributesKind};

fn record(host: usize, more: &str) -> String {
    let peer = address(1 - host).ip();
    // The first of two records for a peer counts.
    format!("[[auth]]\nname = \"x\"\nremote = \"{peer}\"\npreshared = \"a-key-that-is-long-enough\"\n{more}\n")
}

/// Phase 1 is done: host 1 asks host 0 for its user, and nothing more has happened.
fn asked() -> Two {
    let client = record(0, "xauth = \"client\"\nuser = \"alice\"\npassword = \"wonderland\"");
    let server = record(1, "xauth = \"server\"\nusers = \"/users\"");
    let mut two = Two::new([&client, &server], ["", ""]);
    two.command(0, Command::Initiate { tunnel: "t".into() });
    assert!(matches!(two.sa(0).admission, Admission::AwaitingPassword(_)));
    assert!(matches!(two.sa(1).admission, Admission::Asking { nth: 1 }));
    two
}

impl Two {
    fn sa(&self, host: usize) -> &super::super::IsakmpSa {
        self.hosts[host].engine.isakmp.last_key_value().unwrap().1
    }

    fn says(&self, host: usize, words: &str) {
        let audit = &self.hosts[host].audit;
        assert!(audit.iter().any(|e| e.text.contains(words)), "{words}: {audit:#?}");
    }
}

fn name_and_password(name: &[u8], password: &[u8]) -> Attributes {
    let value = |kind, octets: &[u8]| Attribute { kind, value: AttributeValue::Variable(octets.to_vec()) };
    let attributes = vec![value(class::USER_NAME, name), value(class::USER_PASSWORD, password)];
    Attributes { kind: AttributesKind::REPLY, identifier: 0, attributes }
}

#[test]
fn a_user_may_be_refused_so_often_and_no_more() {
    let mut two = asked();
    two.wire = |_| None;
    let (now, id) = (two.now, two.isakmp(1));
    let h = &mut two.hosts[1];
    for nth in 1..=3 {
        let answer = name_and_password(b"al\nice", b"guess");
        h.engine.user_answer(now, id, &answer, &mut h.entropy);
        h.engine.user_checked(now, id, Ok(false), &mut h.entropy);
        let again = h.engine.isakmp.get(&id).unwrap();
        assert!(matches!(again.admission, Admission::Refusing { nth: n } if n == nth));
        h.engine.status_known(now, id, "al\nice", false, &mut h.entropy);
    }
    assert!(h.engine.isakmp.is_empty(), "three tries unless the record says otherwise");
    assert_eq!(h.engine.next_timeout().map(|_| ()), Some(()), "only the delete is repeated");
    two.drain();
    two.says(1, "user `al\\nice` was refused 3 times, the most there may be (`tries`)");
    two.says(1, "try 3 of 3");
    assert!(two.hosts[1].audit.iter().all(|e| !e.text.contains("guess") && !e.text.contains('\n')));
}

#[test]
fn answers_that_nobody_waits_for_are_nothing() {
    let mut two = asked();
    let (now, id) = (two.now, two.isakmp(1));
    let h = &mut two.hosts[1];
    // No verdict before there is a user, no status before there is a verdict.
    h.engine.user_checked(now, id, Ok(true), &mut h.entropy);
    h.engine.status_known(now, id, "alice", true, &mut h.entropy);
    assert!(matches!(h.engine.isakmp.get(&id).unwrap().admission, Admission::Asking { nth: 1 }));
    // Too long a name or password, or none, is checked like any other, as nothing.
    for answer in [name_and_password(&[b'a'; 256], &[b'b'; 256]), name_and_password(&[0xff, 0xfe], b"x")] {
        h.engine.user_answer(now, id, &answer, &mut h.entropy);
        let sa = h.engine.isakmp.get_mut(&id).unwrap();
        assert!(matches!(&sa.admission, Admission::Checking { nth: 1, user } if user.is_empty()));
        sa.admission = Admission::Asking { nth: 1 };
    }
    let client = two.isakmp(0);
    let h = &mut two.hosts[0];
    h.engine.user_checked(now, client, Ok(true), &mut h.entropy);
    assert!(!two.sa(0).admission.lets_in() && !two.sa(1).admission.lets_in());
}

#[test]
fn a_quick_mode_before_xauth_is_refused_by_name() {
    let mut two = asked();
    let (now, id) = (two.now, two.isakmp(0));
    let policy = Arc::clone(two.hosts[0].config.tunnel("t").unwrap());
    let h = &mut two.hosts[0];
    h.engine.start_quick_mode(now, id, &policy, &mut h.entropy);
    two.drain();
    two.seconds(1);
    assert_eq!(two.pairs(), [0, 0]);
    two.says(1, "the peer begins quick mode before extended authentication (XAUTH) is done");
    assert!(matches!(two.sa(1).admission, Admission::Asking { nth: 1 }), "and goes on asking");
    // The user comes after all.
    two.command(0, Command::Password { token: id, password: Some(crypto::Secret::copy_of(b"wonderland")) });
    let token = two.isakmp(1);
    two.command(1, Command::UserChecked { token, verdict: Ok(true) });
    assert!(two.sa(0).admission.is_complete() && two.sa(1).admission.is_complete());
}

/// A question with this among its attributes, as host 1 could send it.
fn question(two: &mut Two, kind: AttributesKind, attributes: Vec<Attribute>) {
    let (now, id) = (two.now, two.isakmp(1));
    let h = &mut two.hosts[1];
    let about = match kind {
        AttributesKind::REQUEST => About::User,
        _ => About::Status { user: "alice".into(), believed: true },
    };
    h.engine.ask_peer(now, id, kind, attributes, about, &mut h.entropy);
    two.drain();
}

#[test]
fn what_our_user_cannot_answer_is_said_by_name() {
    let blank = |kind| Attribute { kind, value: AttributeValue::Variable(Vec::new()) };
    for (attributes, words) in [
        (vec![blank(class::PASSCODE)], "the peer asks for XAUTH_PASSCODE, which we cannot give"),
        (vec![Attribute::basic(class::TYPE, 1), blank(class::USER_NAME)], "an answer of type 1"),
    ] {
        let mut two = asked();
        two.hosts[0].engine.isakmp.last_entry().unwrap().get_mut().admission = Admission::AwaitingQuestion;
        question(&mut two, AttributesKind::REQUEST, attributes);
        two.says(0, words);
        two.says(1, "the peer cannot say who its user is");
        assert!(two.hosts.iter().all(|h| h.engine.isakmp.is_empty()));
    }
    // Asked for the password once more: the first one was wrong, whatever else the peer says.
    let mut two = asked();
    two.hosts[0].engine.isakmp.last_entry().unwrap().get_mut().admission = Admission::AwaitingStatus;
    question(&mut two, AttributesKind::REQUEST, vec![blank(class::USER_NAME), blank(class::USER_PASSWORD)]);
    two.says(0, "the peer refuses our user `alice`");
}

#[test]
fn a_user_that_was_not_asked_for_is_not_believed() {
    let mut two = asked();
    two.hosts[0].engine.isakmp.last_entry().unwrap().get_mut().admission = Admission::AwaitingQuestion;
    question(&mut two, AttributesKind::SET, vec![Attribute::basic(class::STATUS, class::OK)]);
    assert!(matches!(two.sa(0).admission, Admission::AwaitingQuestion), "who did not ask cannot believe");
}

#[test]
fn who_has_no_user_says_so_and_goes_on() {
    let mut two = Two::up();
    let blank = |kind| Attribute { kind, value: AttributeValue::Variable(Vec::new()) };
    question(&mut two, AttributesKind::REQUEST, vec![blank(class::USER_NAME), blank(class::USER_PASSWORD)]);
    two.says(0, "asks for a user (XAUTH), and auth record `a`");
    assert_eq!(two.pairs(), [1, 1]);
    assert_eq!(two.hosts[0].engine.isakmp.len(), 1);
}
