//! Peers that begin in aggressive mode.
//!
//! Its message 2 needs a shared secret, and shows a hash of a pre-shared key, before anything has shown that
//! message 1 came from where it says. So there is none of it for whom no authentication record allows it, and of
//! the rest so little, in all and per source, that neither computing nor answering is worth anybody's while. What
//! is left to an attacker is to use up the share of a peer whose address he can forge.

use super::anti_clogging::Path;
use super::isakmp::IsakmpSa;
use super::source::Source;
use super::{Datagram, Discarded, Engine, Output, Timer};
use crate::failure::{Failure, Fault, Kind, Place, Role};
use crate::informational;
use crate::keys::Cookies;
use crate::main_mode::aggressive::{self, named_identity};
use crate::main_mode::table::StateName;
use crate::main_mode::{Context, Setup, Stop};
use crate::retransmit::{Answer, GIVE_UP};
use crate::wire::numbers::{NotifyKind, PayloadKind};
use crate::wire::{Cookie, Message};
use core::time::Duration;
use crypto::Entropy;
use policy::config::{AuthMethod, AuthRecord, Identity, IdentityPattern, IkePolicy, Phase1Exchange};
use policy::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// First messages answered for one source: so many at once, then one in each time.
const PER_SOURCE: Allowance = Allowance { burst: 8, each: Duration::from_secs(1) };
/// First messages answered in all. With half a minute until one is given up, under 320 wait for message 3.
const IN_ALL: Allowance = Allowance { burst: 64, each: Duration::from_millis(125) };
/// Lines in the audit log about them.
const TOLD: Allowance = Allowance { burst: 16, each: Duration::from_secs(5) };

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    each: Duration,
}

impl Allowance {
    /// When `used` will be as if nothing had happened, after one more; `None` if that must not be now.
    fn one_more(self, now: Timestamp, used: Option<Timestamp>) -> Option<Timestamp> {
        let from = used.map_or(now, |until| until.max(now));
        let until = from + self.each;
        (until.since(now) <= self.each * self.burst).then_some(until)
    }
}

/// What was spent on first messages of aggressive mode.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    all: Option<Timestamp>,
    /// As many as `IN_ALL` allows within what `PER_SOURCE` remembers.
    by_source: BTreeMap<Source, Timestamp>,
    told: Option<Timestamp>,
}

impl Strangers {
    /// Whether one more first message of a source may be answered; counts it.
    fn admit(&mut self, now: Timestamp, source: Source) -> bool {
        self.by_source.retain(|_, until| *until > now);
        let own = PER_SOURCE.one_more(now, self.by_source.get(&source).copied());
        let (Some(own), Some(all)) = (own, IN_ALL.one_more(now, self.all)) else { return false };
        self.by_source.insert(source, own);
        self.all = Some(all);
        true
    }

    /// Whether one more line may be written about them; counts it.
    fn tell(&mut self, now: Timestamp) -> bool {
        let told = TOLD.one_more(now, self.told);
        self.told = told.or(self.told);
        told.is_some()
    }
}

impl Engine {
    /// A message of aggressive mode with no responder's cookie: the first, or the same again.
    pub(super) fn first_aggressive_message(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        message: &Message,
        entropy: &mut dyn Entropy,
    ) {
        let (header, peer) = (&message.header, datagram.remote.ip());
        let allowed = self.config.aggressive_records(peer).next().is_some();
        let Some(policy) = self.config.ike_policy(peer).filter(|_| allowed).cloned() else {
            self.unsupported_exchange(now, datagram, message, entropy);
            return;
        };
        // RFC 2409 5: SA precedes all other payloads.
        let acceptable = header.initiator != Cookie::ZERO
            && header.message_id == 0
            && header.first == PayloadKind::SECURITY_ASSOCIATION
            && aggressive::preview(message).is_ok();
        if !acceptable {
            self.discard(Discarded::Unexpected);
            return;
        }
        if self.aggressive_duplicate(now, datagram, header.initiator)
            || self.refused_before(now, datagram, header.initiator)
        {
            self.discard(Discarded::Duplicate);
            return;
        }
        if self.stopping {
            self.discard(Discarded::Stopping);
            return;
        }
        if !self.strangers.admit(now, Source::of(peer)) {
            self.discard(Discarded::AggressiveLimit);
            return;
        }
        let path = Path { local: datagram.local, remote: datagram.remote, initiator: header.initiator };
        let told = self.strangers.tell(now);
        if told {
            self.record_newcomer(&path, Some(&policy));
        }
        let (failure, reply) = match self.answer_aggressive(now, &path, policy, datagram, message, told, entropy) {
            Ok(()) => return,
            Err(refused) => *refused,
        };
        if self.refusals.keep(now, path.remote, path.initiator, reply.clone()) {
            if told {
                let (exchange, role) = (Phase1Exchange::Aggressive.into(), Role::Responder);
                let place = Place { exchange, role, local: path.local, remote: path.remote };
                self.output.push_back(Output::Audit(failure.event(&place)));
            }
            if let Some(reply) = reply {
                self.answer_stranger(datagram, &reply);
            }
        }
        self.discard(Discarded::Refused);
    }

    /// Begins a negotiation for whom message 1 says that it is from.
    #[expect(clippy::too_many_arguments, reason = "the whole of what is known of one message")]
    #[expect(clippy::type_complexity, reason = "a failure, and what the peer is told")]
    fn answer_aggressive(
        &mut self,
        now: Timestamp,
        path: &Path,
        policy: Arc<IkePolicy>,
        datagram: &Datagram<'_>,
        message: &Message,
        told: bool,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Box<(Failure, Option<Vec<u8>>)>> {
        let cookies = Cookies { initiator: path.initiator, responder: self.cookie(entropy) };
        let auth = self.aggressive_record(path, &named_identity(message)).map_err(|failure| {
            let id = informational::message_id(entropy);
            let kind = NotifyKind::AUTHENTICATION_FAILED;
            Box::new((failure, Some(informational::clear_notification(cookies, id, kind))))
        })?;
        let setup = self.setup_of(path, cookies, (policy, auth));
        let setup = Setup { exchange: Phase1Exchange::Aggressive, ..setup };
        let between = (path.local, path.remote);
        let mut context = Context { entropy: &mut *entropy, initial_contact: false, between };
        match aggressive::first_message(&setup, message, &mut context).map_err(|stop| *stop) {
            Ok(step) => {
                let id = self.id();
                let mut sa = IsakmpSa::new(id, Role::Responder, setup, step.next, now);
                sa.last_received = datagram.payload.to_vec();
                sa.vendors.note(message);
                // A flood of them is not recorded one by one.
                sa.reported = !told;
                self.insert_isakmp(sa);
                if let Some(reply) = &step.reply {
                    self.keep_message_2(now, id, reply);
                }
                self.advanced(now, id, step.reply, step.wants, false, entropy);
                Ok(())
            }
            Err(Stop::Failed { failure, reply }) => Err(Box::new((failure, reply))),
            Err(Stop::Ignored { failure, .. }) => Err(Box::new((failure, None))),
            Err(Stop::Held { .. }) => Ok(()),
        }
    }

    /// The record for who message 1 says that it is from: the most specific for its address that expects that
    /// identity. Whose distinguished name is right, the certificate tells.
    fn aggressive_record(&self, path: &Path, named: &Result<Identity, String>) -> Result<Arc<AuthRecord>, Failure> {
        let peer = path.remote.ip();
        let fits = |auth: &&Arc<AuthRecord>| match named {
            Ok(identity) => match &auth.remote_id {
                Some(pattern) => pattern.matches(identity),
                None => *identity == Identity::Address(peer),
            },
            Err(_) => {
                let names = matches!(
                    auth.remote_id,
                    Some(IdentityPattern::Exactly(Identity::Name(_)) | IdentityPattern::Name(_))
                );
                names && auth.methods.iter().any(|m| matches!(m, AuthMethod::Signature(_)))
            }
        };
        if let Some(found) = self.config.aggressive_records(peer).find(fits) {
            return Ok(Arc::clone(found));
        }
        let given = match named {
            Ok(identity) => identity.to_string(),
            Err(what) => what.clone(),
        };
        let shown: String = given.chars().take(256).collect();
        Err(Failure::new(
            Kind::Other,
            Fault::Mismatch,
            format!("identity: no auth record for aggressive mode with {peer} expects {shown:?}"),
            "set `rid` of one, or the peer's own identity",
        ))
    }

    /// Whether this is a first message that we have; then it is answered again, if it was answered.
    fn aggressive_duplicate(&mut self, now: Timestamp, datagram: &Datagram<'_>, initiator: Cookie) -> bool {
        let ids = self.by_cookie.get(&initiator).into_iter().flatten().copied();
        let known = ids.into_iter().find(|id| {
            self.isakmp
                .get(id)
                .is_some_and(|sa| sa.role == Role::Responder && sa.setup.remote.ip() == datagram.remote.ip())
        });
        let Some(id) = known else { return false };
        if self.isakmp.get(&id).is_some_and(|sa| sa.last_received == datagram.payload) {
            self.answer_again(now, id, |sa| sa.reply.as_mut());
        }
        true
    }

    /// An initiator goes on as if aggressive mode were done, so it has our message 2, and its message 3 is late
    /// or lost: at message 2 it sends it again. It names our cookie, so its address is real.
    pub(super) fn await_message_3(&mut self, now: Timestamp, id: u64) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        if sa.state.name() == StateName::AggressiveResponderAuthSent {
            self.answer_again(now, id, |sa| sa.reply.as_mut());
        }
    }

    /// An initiator has sent message 3, and heard nothing since: it is sent again, after pauses that double,
    /// for as long as any message is. Whether that is where we are.
    pub(super) fn repeat_message_3(&mut self, now: Timestamp, id: u64) -> bool {
        let Some(sa) = self.isakmp.get(&id) else { return false };
        let aggressive = sa.setup.exchange == Phase1Exchange::Aggressive && sa.role == Role::Initiator;
        let Some(since) = sa.established.filter(|_| aggressive && !sa.confirmed) else { return false };
        let gone = now.since(since);
        if gone < GIVE_UP {
            self.answer_again(now, id, |sa| sa.reply.as_mut());
            self.timers.set(Timer::Confirmation(id), now + gone);
        }
        true
    }

    /// Message 2 is sent: repeated to who repeats message 1, but seldom, since it may be longer.
    pub(super) fn keep_message_2(&mut self, now: Timestamp, id: u64, reply: &[u8]) {
        let Some(sa) = self.isakmp.get_mut(&id) else { return };
        if sa.state.name() == StateName::AggressiveResponderAuthSent {
            sa.reply = Some(Answer::seldom(reply.to_vec(), now));
        }
    }

    /// The peer asks for aggressive mode, and no record allows it.
    pub(super) fn aggressive_not_allowed(&self, path: &Path) -> String {
        let peer = path.remote.ip();
        match self.config.auth_record(peer) {
            Some(auth) => format!(
                "which auth record `{}` (line {}) does not allow; configure main mode on the peer, or `exchange` here",
                auth.name, auth.line
            ),
            None => format!("and no auth record covers {peer}; add one with that `remote`, or stop the peer"),
        }
    }
}

/// Words for what was negotiated, as HP-UX abbreviates it.
pub(super) fn abbreviation(exchange: Phase1Exchange) -> &'static str {
    match exchange {
        Phase1Exchange::Main => "MM",
        Phase1Exchange::Aggressive => "AM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn source(n: u32) -> Source {
        Source::of(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(n)))
    }

    #[test]
    fn strangers_are_bounded_per_source_and_in_all_and_forgotten() {
        let mut strangers = Strangers::default();
        let admitted = |strangers: &mut Strangers, ms, n| strangers.admit(at(ms), source(n));
        assert_eq!((0..100).filter(|_| admitted(&mut strangers, 0, 1)).count(), 8);
        assert!(admitted(&mut strangers, 0, 2), "others are not concerned");
        assert!(!admitted(&mut strangers, 999, 1));
        assert!(admitted(&mut strangers, 1000, 1), "one each second");
        assert!(!admitted(&mut strangers, 1000, 1));
        // Ten minutes of a flood of spoofed sources: eight each second, and no more memory than that.
        let mut all = 0;
        for ms in 1001..600_000 {
            all += usize::from(admitted(&mut strangers, ms, 1000 + ms as u32));
        }
        assert!((4700..4900).contains(&all), "{all}");
        assert!(strangers.by_source.len() < 80, "{}", strangers.by_source.len());
        assert!(admitted(&mut strangers, 700_000, 1) && strangers.by_source.len() == 1);
    }

    #[test]
    fn the_log_is_bounded_too() {
        let mut strangers = Strangers::default();
        assert_eq!((0..60_000).filter(|ms| strangers.tell(at(*ms))).count(), 16 + 11);
    }
}
