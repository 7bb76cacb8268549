//! One engine, and a peer that negotiates with it and says things no peer should, with time and
//! commands in between.

use super::super::Reached;
use super::host::Host;
use super::payloads::payload;
use super::speaker::{Proof, Sent, Speaker};
use super::{ENGINE, PEER};
use arbitrary::{Result, Unstructured};
use ike::Command;
use ike::wire::numbers::ExchangeType;
use policy::time::Timestamp;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

pub(in super::super) const PLACES: &[&str] = &[
    "ISAKMP SA as initiator",
    "ISAKMP SA as responder",
    "pair",
    "pair in use",
    "pair removed",
    "failure told",
    "judged",
    "signed",
    "nothing without proof",
    "aggressive mode",
];

/// Steps of one run.
const STEPS: usize = 40;

/// Runs one input.
pub(in super::super) fn run(input: &[u8]) -> Reached {
    let mut u = Unstructured::new(input);
    // An input that is used up leaves the rest as it should be, and is no error.
    let Ok(mut scene) = Scene::new(&mut u) else { return Reached::default() };
    for _ in 0..STEPS {
        if u.is_empty() || scene.step(&mut u).is_err() {
            break;
        }
    }
    scene.end()
}

struct Scene {
    host: Host,
    peer: Speaker,
    proof: Proof,
    /// What the peer sent, for replays.
    history: VecDeque<Sent>,
}

/// Datagrams that are kept for replays.
const HISTORY: usize = 16;

impl Scene {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let how = u.arbitrary::<u8>()?;
        let proof = [Proof::Key, Proof::Signature, Proof::Key, Proof::WrongKey][usize::from(how >> 2 & 3)];
        let more_ike = ["dpd = 30", "nat_traversal = \"force\"", "quick_mode_failure = \"delete\"", "maxqm = 1"];
        let more = u.arbitrary::<u8>()?;
        let (more_ike, aggressive) = (more_ike[usize::from(more % 4)], more & 0x80 != 0);
        let mut host = Host::with(ENGINE, PEER, more_ike, aggressive, 1, Timestamp::from_micros(0));
        host.believes = how & 0x80 == 0;
        let peer = Speaker::new(how & 1 == 0, aggressive, proof, how & 2 != 0, how & 0x10 != 0, 2);
        let mut scene = Self { host, peer, proof, history: VecDeque::new() };
        if how & 1 == 0 {
            let hello = scene.peer.hello(u)?;
            scene.deliver(hello);
        } else {
            scene.host.command(Command::Initiate { tunnel: "net".into() });
        }
        // Most inputs are about what comes afterwards.
        for _ in 0..how >> 5 & 3 {
            scene.talk(u)?;
        }
        Ok(scene)
    }

    fn deliver(&mut self, sent: Sent) {
        self.host.receive(sent.from, sent.to, &sent.payload);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(sent);
    }

    /// The peer hears everything there is, and answers.
    fn talk(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..self.host.sent.len() {
            let Some((from, to, payload)) = self.host.sent.pop_front() else { break };
            if let Some(answer) = self.peer.hear(u, from, to, &payload)? {
                self.deliver(answer);
            }
        }
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let peer: IpAddr = PEER.parse().expect("an address");
        let pair = |host: &Host, n: u8| {
            let nth = usize::from(n) % host.pairs.len().max(1);
            host.pairs.keys().nth(nth).copied().unwrap_or(7)
        };
        let sent = match u.arbitrary::<u8>()? % 24 {
            0..=5 => return self.talk(u),
            6 | 7 => self.peer.quick_mode(u)?,
            8 => {
                let payloads = (0..1 + u.arbitrary::<u8>()? % 3).map(|_| payload(u)).collect::<Result<_>>()?;
                self.peer.inform(u, ExchangeType::INFORMATIONAL, payloads)?
            }
            9 => self.peer.delete(u)?,
            10 => {
                let kind = ExchangeType([6, 33, 32, u.arbitrary()?][usize::from(u.arbitrary::<u8>()? % 4)]);
                let payloads = vec![payload(u)?];
                self.peer.inform(u, kind, payloads)?
            }
            11 => Some(self.peer.stray(u)?),
            12 => {
                let nth = u.choose_index(self.history.len().max(1))?;
                self.history.get(nth).map(|s| Sent { from: s.from, to: s.to, payload: s.payload.clone() })
            }
            13 => {
                // From elsewhere: another port, as behind a NAT, or another host.
                let nth = u.choose_index(self.history.len().max(1))?;
                let mut from = self.history.get(nth).map(|s| s.from);
                if let Some(from) = &mut from {
                    from.set_port(u.arbitrary::<u16>()?.max(1));
                    if u.ratio(1, 4)? {
                        from.set_ip([10, 77, 0, 3].into());
                    }
                }
                let again = self.history.get(nth).zip(from);
                again.map(|(s, from)| Sent { from, to: s.to, payload: s.payload.clone() })
            }
            14..=16 => {
                let range = [1_000, 20_000, 120_000, 8_000_000][usize::from(u.arbitrary::<u8>()? % 4)];
                let until = self.host.now + Duration::from_millis(u64::from(u.arbitrary::<u16>()?) * range / 65_536);
                self.host.wait(until);
                None
            }
            17 => {
                let tunnel = ["net", "pfs", "own", "none"][usize::from(u.arbitrary::<u8>()? % 4)];
                self.host.command(Command::Initiate { tunnel: tunnel.into() });
                None
            }
            18 => {
                let pair = pair(&self.host, u.arbitrary()?);
                self.host.command(if u.arbitrary()? { Command::Rekey { pair } } else { Command::Expired { pair } });
                None
            }
            19 => {
                self.host.command(match u.arbitrary::<u8>()? % 4 {
                    0 => Command::RekeyPeer { peer },
                    1 => Command::DeletePeer { peer },
                    2 => Command::UnknownSpi { peer: (peer, 4500).into(), spi: u.arbitrary()? },
                    _ => Command::Idle { pair: pair(&self.host, u.arbitrary()?) },
                });
                None
            }
            20 => {
                if self.host.slow {
                    self.host.answer_all()
                } else {
                    self.host.slow = true
                }
                None
            }
            21 => {
                self.host.answer_late(u)?;
                None
            }
            22 => {
                self.host.reload(["", "life = 60", "maxqm = 1"][usize::from(u.arbitrary::<u8>()? % 3)]);
                None
            }
            _ => {
                self.host.sent.clear();
                None
            }
        };
        if let Some(sent) = sent {
            self.deliver(sent);
        }
        // Without proof of who it is a peer gets nothing, whatever it says.
        let proved = self.proof == Proof::Key || self.proof == Proof::Signature && self.host.believes;
        if self.peer.is_aggressive() && !self.host.pairs.is_empty() {
            self.host.reached.note("aggressive mode");
        }
        if !proved {
            assert!(self.host.pairs.is_empty(), "an SA with a peer that has not proved who it is");
            if self.peer.is_established() {
                self.host.reached.note("nothing without proof");
            }
        }
        Ok(())
    }

    fn end(mut self) -> Reached {
        self.host.end();
        self.host.reached
    }
}
