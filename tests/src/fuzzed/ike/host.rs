//! A host with an engine, and what must hold whatever comes in.

use super::super::Reached;
use arbitrary::{Result, Unstructured};
use crypto::Secret;
use crypto::entropy::testing::SeededEntropy;
use ike::{Command, Datagram, Engine, IsakmpState, Output, Role};
use policy::audit::Level;
use policy::config::Config;
use policy::sa::SaSpec;
use policy::time::Timestamp;
use policy::trust::{CertificateName, Claim, Distrust, Refusal, Trusted};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The address of the engine that is tried.
pub(super) const ENGINE: &str = "10.77.0.1";
/// The address of whoever tries it.
pub(super) const PEER: &str = "10.77.0.2";
/// The right key.
pub(super) const PSK: &[u8] = b"correct-horse-battery-staple";

/// Outputs that one input may cause.
const MOST_OUTPUTS: usize = 300;
/// ISAKMP SAs that one peer may have us keep.
const MOST_ISAKMP_SAS: usize = 64;
/// Lines of the audit that are kept.
const STORY: usize = 40;
/// Pairs of a peer that is one itself: as many quick modes as it had time for.
const MOST_PAIRS: usize = 256;

/// The configuration of the host `me` with the peer `peer`: three tunnels and every way to authenticate.
pub(super) fn text(me: &str, peer: &str, more_ike: &str, aggressive: bool) -> String {
    let net = |host: &str, n: u8| format!("10.{}.{n}.0/24", 100 + u32::from(host == ENGINE));
    let psk = core::str::from_utf8(PSK).expect("ASCII");
    let mut text = String::from("[startup]\nallow_short_lifetimes = true\n");
    let tunnels = [
        ("net", 1, r#"["aes128-sha1", "aes128gcm16", "ah-sha256"]"#, ""),
        ("pfs", 2, r#""aes256-sha256-x25519""#, ""),
        ("own", 3, r#""aes128-sha1""#, "flags = \"EXCLUSIVE\""),
    ];
    for (name, n, action, host) in tunnels {
        let (source, destination) = (net(me, n), net(peer, n));
        text += &format!(
            "[[tunnel]]\nname = \"{name}\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\naction = {action}\n\
             [[host]]\nname = \"{name}\"\nsource = \"{source}\"\ndestination = \"{destination}\"\n\
             tunnel = \"{name}\"\n{host}\n"
        );
    }
    let exchange = if aggressive { "exchange = \"AM\"\naggressive_psk = \"accept\"\n" } else { "" };
    text + &format!(
        "[[ike]]\nname = \"peer\"\nremote = \"{peer}\"\nproposals = [\"aes128-sha1-x25519\", \"aes128-sha256-x25519\"]\n\
         {more_ike}\n\
         [[auth]]\nname = \"peer\"\nremote = \"{peer}\"\npreshared = \"{psk}\"\nmethod = [\"PSK\", \"ECDSA256\"]\n\
         certificate = \"/none\"\nca = \"/none\"\ncrl_policy = \"relaxed\"\n{exchange}"
    )
}

/// Parses a configuration that must be without errors.
fn config(text: &str) -> Arc<Config> {
    match Config::parse(text, "fuzz.toml") {
        Ok(checked) => Arc::new(checked.config),
        Err(found) => panic!("{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// A question of the engine that waits for its answer.
enum Question {
    Secret(u64),
    Sign(u64),
    Judge(u64, Claim),
    Activity(u64),
}

/// The engine, and what the daemon would hold.
pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) address: IpAddr,
    pub(super) now: Timestamp,
    pub(super) entropy: SeededEntropy,
    pub(super) reached: Reached,
    /// Datagrams to be sent: from, to, payload.
    pub(super) sent: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub(super) pairs: BTreeMap<u64, (SaSpec, SaSpec, bool)>,
    /// Whether peers that show a certificate are believed.
    pub(super) believes: bool,
    /// Whether questions wait for [`Host::answer`].
    pub(super) slow: bool,
    questions: VecDeque<Question>,
    /// The last lines of the audit, for a failing run.
    story: VecDeque<String>,
    /// Its own address and the peer's.
    ends: [&'static str; 2],
    aggressive: bool,
}

impl Host {
    pub(super) fn new(me: &'static str, peer: &'static str, more_ike: &str, seed: u64, now: Timestamp) -> Self {
        Self::with(me, peer, more_ike, false, seed, now)
    }

    /// The same, perhaps in aggressive mode.
    pub(super) fn with(
        me: &'static str,
        peer: &'static str,
        more_ike: &str,
        aggressive: bool,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            engine: Engine::new(config(&text(me, peer, more_ike, aggressive)), now),
            aggressive,
            address: me.parse().expect("an address"),
            now,
            entropy: SeededEntropy::new(seed),
            reached: Reached::default(),
            sent: VecDeque::new(),
            pairs: BTreeMap::new(),
            believes: true,
            slow: false,
            questions: VecDeque::new(),
            story: VecDeque::new(),
            ends: [me, peer],
        }
    }

    /// A datagram comes in, as its UDP payload.
    pub(super) fn receive(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let message = match to.port() {
            4500 => payload.strip_prefix(&[0; 4]),
            _ => Some(payload),
        };
        // ESP, or a keepalive: not for the engine.
        let Some(payload) = message else { return };
        self.engine.handle_datagram(self.now, Datagram { local: to, remote: from, payload }, &mut self.entropy);
        self.settle();
    }

    pub(super) fn command(&mut self, command: Command) {
        self.engine.handle_command(self.now, command, &mut self.entropy);
        self.settle();
    }

    /// The configuration is read again, with other lines for `[[ike]]`.
    pub(super) fn reload(&mut self, more_ike: &str) {
        let text = text(self.ends[0], self.ends[1], more_ike, self.aggressive);
        self.command(Command::Reload { config: config(&text) });
    }

    /// Lets time pass until `until`.
    pub(super) fn wait(&mut self, until: Timestamp) {
        let mut steps = 0;
        while let Some(due) = self.engine.next_timeout().filter(|due| *due <= until) {
            steps += 1;
            assert!(steps < 100_000, "the engine never comes to rest");
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now, &mut self.entropy);
            assert!(self.engine.next_timeout().is_none_or(|next| next > self.now), "a timer must move on");
            self.settle();
        }
        self.now = self.now.max(until);
    }

    /// Does what the engine wants, and looks whether it is sound.
    fn settle(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.engine.poll_output() {
            outputs += 1;
            assert!(outputs < MOST_OUTPUTS, "one input, and no end of outputs");
            self.output(output);
        }
        assert_eq!(self.engine.pairs().len(), self.pairs.len(), "the engine and the packet path hold other pairs");
        assert!(self.pairs.len() <= MOST_PAIRS);
        let sas = self.engine.isakmp_sas();
        assert!(sas.len() <= MOST_ISAKMP_SAS, "{} ISAKMP SAs", sas.len());
        for sa in sas.iter().filter(|sa| sa.state == IsakmpState::Mature) {
            self.reached.note(match sa.role {
                Role::Initiator => "ISAKMP SA as initiator",
                Role::Responder => "ISAKMP SA as responder",
            });
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Transmit { local, remote, payload } => {
                assert_eq!(local.ip(), self.address, "a host speaks only for itself");
                assert!(!payload.is_empty());
                self.sent.push_back((local, remote, payload));
            }
            Output::NeedSecret { token, .. } => self.ask(Question::Secret(token)),
            Output::Sign { token, .. } => self.ask(Question::Sign(token)),
            Output::Judge { token, claim, .. } => self.ask(Question::Judge(token, claim)),
            Output::NeedActivity { token, .. } => self.ask(Question::Activity(token)),
            Output::InstallPair { inbound, outbound } => {
                assert_eq!(inbound.pair, outbound.pair);
                assert_eq!(
                    (inbound.keymat.len(), outbound.keymat.len()),
                    (inbound.suite.keymat_len(), outbound.suite.keymat_len())
                );
                assert_ne!(inbound.keymat, outbound.keymat);
                assert!(inbound.spi > 255 && outbound.spi > 255);
                assert!(self.pairs.values().all(|(i, ..)| i.spi != inbound.spi), "an SPI is used twice");
                self.reached.note("pair");
                assert!(self.pairs.insert(inbound.pair, (inbound, outbound, false)).is_none());
            }
            Output::ActivateOutbound { pair } => {
                self.reached.note("pair in use");
                self.pairs.get_mut(&pair).expect("activated pairs exist").2 = true;
            }
            Output::PeerMoved { pair, .. } => assert!(self.pairs.contains_key(&pair), "moved pairs exist"),
            Output::RemovePair { pair, inbound_spi, outbound_spi, .. } => {
                let (inbound, outbound, _) = self.pairs.remove(&pair).expect("removed pairs exist");
                assert_eq!((inbound.spi, outbound.spi), (inbound_spi, outbound_spi));
                self.reached.note("pair removed");
            }
            Output::Audit(event) => {
                assert!(!event.text.contains("horse-battery"), "a key is shown");
                assert!(event.text.chars().all(|c| !c.is_control()), "{:?}", event.text);
                if self.story.len() == STORY {
                    self.story.pop_front();
                }
                self.story.push_back(format!("{:>9.2} {}", self.now.as_micros() as f64 / 1e6, event.text));
                if event.level == Level::Error {
                    self.reached.note("failure told");
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, question: Question) {
        self.questions.push_back(question);
        if !self.slow {
            self.answer();
        }
    }

    /// Answers the oldest question.
    pub(super) fn answer(&mut self) {
        let Some(question) = self.questions.pop_front() else { return };
        let command = match question {
            Question::Secret(token) => Command::Secret { token, secret: Some(Secret::copy_of(PSK)) },
            Question::Sign(token) => {
                self.reached.note("signed");
                Command::Signed { token, signed: Ok((vec![b"a certificate".to_vec()], vec![0x5a; 64])) }
            }
            Question::Judge(token, claim) => {
                self.reached.note("judged");
                Command::Judged { token, verdict: self.verdict(claim) }
            }
            Question::Activity(token) => Command::Activity { token, received: None, sent: Some(self.now) },
        };
        // The outputs of an answer are read by whoever reads those of the question.
        self.engine.handle_command(self.now, command, &mut self.entropy);
    }

    /// Answers everything that waits, and from now on everything at once.
    pub(super) fn answer_all(&mut self) {
        self.slow = false;
        while !self.questions.is_empty() {
            self.answer();
            self.settle();
        }
    }

    /// Answers a question that waits, rightly or not.
    pub(super) fn answer_late(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.arbitrary::<u8>()? % 4 {
            0 if !self.questions.is_empty() => {
                let command = match self.questions.pop_front() {
                    Some(Question::Secret(token)) => Command::Secret { token, secret: None },
                    Some(Question::Sign(token)) => Command::Signed { token, signed: Err("there is no key".into()) },
                    Some(Question::Judge(token, _)) => Command::Judged { token, verdict: Err(refusal()) },
                    Some(Question::Activity(token)) => Command::Activity { token, received: None, sent: None },
                    None => return Ok(()),
                };
                self.command(command);
            }
            // To what nobody asked.
            1 => self.command(Command::Secret { token: u.arbitrary::<u64>()? % 64, secret: None }),
            _ => {
                self.answer();
                self.settle();
            }
        }
        Ok(())
    }

    fn verdict(&self, claim: Claim) -> core::result::Result<Trusted, Refusal> {
        match claim {
            Claim::Identity(identity) if self.believes => Ok(Trusted {
                identity,
                certificate: CertificateName { subject: "CN=a".into(), serial: "01".into(), issuer: "CN=ca".into() },
                remarks: vec!["no CRL".into()],
            }),
            _ => Err(refusal()),
        }
    }

    /// What it recorded last.
    pub(super) fn story(&self) -> String {
        let lines: Vec<_> = self.story.iter().map(String::as_str).collect();
        format!("{}:\n{}", self.address, lines.join("\n"))
    }

    /// Ends the engine: nothing may be left.
    pub(super) fn end(&mut self) {
        self.command(Command::Shutdown);
        assert!(self.pairs.is_empty() && self.engine.pairs().is_empty(), "pairs are left");
        let end = self.now + Duration::from_secs(3600);
        self.wait(end);
        assert!(self.engine.isakmp_sas().is_empty(), "{:?}", self.engine.isakmp_sas());
    }
}

fn refusal() -> Refusal {
    Refusal {
        distrust: Distrust::UnknownAuthority,
        certificate: None,
        detail: "its issuer is unknown".into(),
        remedy: "see to it".into(),
    }
}
