//! Questions that main mode with signatures has for whoever holds keys and judges
//! certificates, and what follows from the answers.

use super::{Engine, Output};
use crate::main_mode::{MainMode, Signed, Step, Stop, Want};
use crate::retransmit::Answer;
use crypto::Entropy;
use policy::audit::{Level, number};
use policy::time::Timestamp;
use policy::trust::{Refusal, Trusted};

impl Engine {
    /// Asks for what a main mode needs.
    pub(super) fn ask(&mut self, id: u64, want: Want) {
        let Some(sa) = self.isakmp.get(&id) else { return };
        let auth_record = sa.setup.auth.name.clone();
        self.output.push_back(match want {
            Want::Secret => Output::NeedSecret { token: id, auth_record, peer: sa.setup.remote.ip() },
            Want::Signature { method, hash } => Output::Sign { token: id, auth_record, method, hash },
            Want::Verdict(testimony) => {
                let t = *testimony;
                Output::Judge {
                    token: id,
                    auth_record,
                    method: t.method,
                    hash: t.hash,
                    signature: t.signature,
                    claim: t.claim,
                    certificates: t.certificates,
                    expected: t.expected,
                }
            }
        });
    }

    /// The answer to a question for our signature.
    pub(super) fn signed(
        &mut self,
        now: Timestamp,
        id: u64,
        signed: Result<(Vec<Vec<u8>>, Vec<u8>), String>,
        entropy: &mut dyn Entropy,
    ) {
        let signed = signed.map(|(certificates, signature)| Signed { certificates, signature });
        self.answered(now, id, entropy, |state, setup, entropy| state.signed(setup, signed, entropy));
    }

    /// The verdict on a peer.
    pub(super) fn judged(
        &mut self,
        now: Timestamp,
        id: u64,
        verdict: Result<Trusted, Refusal>,
        entropy: &mut dyn Entropy,
    ) {
        if let (Ok(trusted), Some(sa)) = (&verdict, self.isakmp.get(&id)) {
            let (peer, certificate) = (sa.setup.remote.ip(), trusted.certificate.clone());
            let remarks: Vec<_> = trusted
                .remarks
                .iter()
                .map(|remark| format!("{certificate} of the peer {peer} is accepted, although there is {remark}"))
                .collect();
            for text in remarks {
                self.audit(Level::Warning, number::NONE, text);
            }
        }
        self.answered(now, id, entropy, |state, setup, entropy| state.judged(setup, verdict, entropy));
    }

    /// Goes on with a main mode that waited for an answer. One that waits for another, or for
    /// none, stays as it is.
    fn answered(
        &mut self,
        now: Timestamp,
        id: u64,
        entropy: &mut dyn Entropy,
        act: impl FnOnce(MainMode, &crate::main_mode::Setup, &mut dyn Entropy) -> Result<Step, Box<Stop>>,
    ) {
        let Some(mut sa) = self.isakmp.remove(&id) else { return };
        let (before, place) = (sa.state.name(), sa.place());
        match act(sa.state, &sa.setup, entropy).map_err(|stop| *stop) {
            Ok(step) => {
                sa.state = step.next;
                if sa.state.name() == before {
                    self.isakmp.insert(id, sa);
                    return;
                }
                if let Some(reply) = &step.reply {
                    sa.reply = Some(Answer::new(reply.clone(), now));
                }
                if sa.state.established().is_some()
                    && let Some((local, remote)) = sa.arrived.take()
                {
                    // Authenticated: this is where the peer is.
                    (sa.setup.local, sa.setup.remote) = (local, remote);
                }
                self.isakmp.insert(id, sa);
                if let Some(reply) = &step.reply {
                    self.keep_message_2(now, id, reply);
                }
                self.advanced(now, id, step.reply, step.wants, step.initial_contact, entropy);
            }
            Err(Stop::Ignored { state, .. } | Stop::Held { state }) => {
                sa.state = state;
                self.isakmp.insert(id, sa);
            }
            Err(Stop::Failed { failure, reply }) => {
                let (local, remote) = sa.arrived.unwrap_or((sa.setup.local, sa.setup.remote));
                self.forget_isakmp(&sa.setup, id, &sa.exchanges);
                if let Some(reply) = reply {
                    self.transmit(local, remote, &reply);
                }
                self.main_mode_failed(now, id, &failure, &place, sa.reported, entropy);
            }
        }
    }
}
