//! A peer that knows the protocol and has real keys, and whose messages are disturbed on their way
//! out: before they are hashed and encrypted, so that the engine gets to see what is in them.

use super::keys::{Keys, Said};
use super::payloads::{damage, disturb, payload};
use super::{ENGINE, PEER, PSK};
use arbitrary::{Result, Unstructured};
use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use crypto::table::{Group, Hash, KeyExchange};
use ike::wire::numbers::{
    DOI_IPSEC, ExchangeType, IdKind, KEY_IKE, NotifyKind, PayloadKind, ProtocolId, X509_SIGNATURE, encapsulation_mode,
    phase1_attribute, phase2_attribute,
};
use ike::wire::{
    Attribute, Body, Cookie, Delete, Flags, Header, Identification, Message, Notification, Payload, Proposal,
    SecurityAssociation, Transform, decode_chain, encode_chain, first_kind,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// How the peer authenticates itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// With the right key.
    Key,
    /// With another key.
    WrongKey,
    /// With a signature.
    Signature,
}

/// An exchange of phase 2.
struct Exchange {
    iv: Vec<u8>,
    nonces: [Vec<u8>; 2],
    /// Our part of it is done: what comes now is a retransmission.
    done: bool,
}

/// The peer.
pub(super) struct Speaker {
    initiator: bool,
    aggressive: bool,
    proof: Proof,
    hash: &'static Hash,
    nat: bool,
    entropy: SeededEntropy,
    /// Initiator's and responder's.
    cookies: [Vec<u8>; 2],
    nonces: [Vec<u8>; 2],
    publics: [Vec<u8>; 2],
    /// SAi_b.
    offer: Vec<u8>,
    /// IDii_b or IDir_b, whichever is ours.
    identity: Vec<u8>,
    dh: Option<Box<dyn KeyExchange>>,
    keys: Option<Keys>,
    /// IV of the next message of phase 1; then its last block.
    iv: Vec<u8>,
    established: bool,
    exchanges: BTreeMap<u32, Exchange>,
    /// SPIs of ours that were offered or accepted, and the engine's.
    pub(super) spis: Vec<Vec<u8>>,
    /// From, to.
    path: (SocketAddr, SocketAddr),
}

const NAT_T: [u8; 16] =
    [0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f];
const DPD: [u8; 16] = [0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00];

/// Who we are.
fn address() -> Identification {
    let address: Ipv4Addr = PEER.parse().expect("an address");
    Identification { kind: IdKind::IPV4_ADDR, protocol: 0, port: 0, data: address.octets().to_vec() }
}

/// A datagram on its way to the engine.
pub(super) struct Sent {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: Vec<u8>,
}

impl Speaker {
    pub(super) fn new(initiator: bool, aggressive: bool, proof: Proof, sha256: bool, nat: bool, seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let mut cookies = [vec![0; 8], vec![0; 8]];
        entropy.fill(&mut cookies[usize::from(!initiator)]);
        let address = |host: &str| SocketAddr::new(host.parse().expect("an address"), 500);
        Self {
            initiator,
            aggressive,
            proof,
            hash: Hash::from_keyword(if sha256 { "sha256" } else { "sha1" }).expect("a row"),
            nat,
            entropy,
            cookies,
            nonces: [vec![], vec![]],
            publics: [vec![], vec![]],
            offer: vec![],
            identity: vec![],
            dh: None,
            keys: None,
            iv: vec![],
            established: false,
            exchanges: BTreeMap::new(),
            spis: vec![vec![0, 0, 0x10, 0]],
            path: (address(PEER), address(ENGINE)),
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    pub(super) fn is_aggressive(&self) -> bool {
        self.aggressive
    }

    fn mine(&self) -> usize {
        usize::from(!self.initiator)
    }

    fn header(&self, exchange: ExchangeType, message_id: u32) -> Header {
        let cookie = |octets: &[u8]| Cookie(octets.try_into().expect("eight octets"));
        Header {
            initiator: cookie(&self.cookies[0]),
            responder: cookie(&self.cookies[1]),
            first: PayloadKind::NONE,
            exchange,
            flags: Flags::default(),
            message_id,
        }
    }

    fn datagram(&self, message: &[u8]) -> Sent {
        let (from, to) = self.path;
        let marker: &[u8] = if to.port() == 4500 { &[0; 4] } else { &[] };
        Sent { from, to, payload: [marker, message].concat() }
    }

    /// A message in the clear.
    fn clear(&mut self, u: &mut Unstructured<'_>, exchange: ExchangeType, mut payloads: Vec<Payload>) -> Result<Sent> {
        disturb(u, &mut payloads)?;
        // What goes into hashes is what was sent.
        for p in &payloads {
            match p {
                Payload::SecurityAssociation(sa) if self.initiator => self.offer = sa.body(),
                Payload::Nonce(nonce) => self.nonces[self.mine()] = nonce.clone(),
                Payload::KeyExchange(public) => self.publics[self.mine()] = public.clone(),
                Payload::Identification(id) => self.identity = id.body(),
                _ => {}
            }
        }
        let mut octets = Message { header: self.header(exchange, 0), body: Body::Clear(payloads) }.encode();
        damage(u, &mut octets)?;
        Ok(self.datagram(&octets))
    }

    /// An encrypted message: `chain` begins with a payload of type `first`.
    fn encrypted(&mut self, header: Header, first: PayloadKind, mut chain: Vec<u8>) -> Option<Sent> {
        let keys = self.keys.as_ref()?;
        let iv = match header.message_id {
            0 => &mut self.iv,
            id => &mut self.exchanges.get_mut(&id)?.iv,
        };
        *iv = keys.encrypt(iv, &mut chain);
        let header = Header { first, flags: Flags { encryption: true, ..header.flags }, ..header };
        Some(self.datagram(&header.with_body(&chain)))
    }

    /// Message 1 of main or aggressive mode.
    pub(super) fn hello(&mut self, u: &mut Unstructured<'_>) -> Result<Sent> {
        let offer = self.phase1_offer();
        let mut payloads = vec![Payload::SecurityAssociation(offer), Payload::VendorId(DPD.to_vec())];
        if self.nat {
            payloads.push(Payload::VendorId(NAT_T.to_vec()));
        }
        if self.aggressive {
            let exchange = self.key_exchange();
            payloads.splice(1..1, exchange.into_iter().take(2).chain([Payload::Identification(address())]));
            return self.clear(u, ExchangeType::AGGRESSIVE, payloads);
        }
        self.clear(u, ExchangeType::MAIN_MODE, payloads)
    }

    /// Message 2 of aggressive mode as initiator; message 1 as responder.
    fn aggressive_mode(
        &mut self,
        u: &mut Unstructured<'_>,
        header: &Header,
        payloads: &[Payload],
    ) -> Result<Option<Sent>> {
        if self.established || !self.aggressive {
            return Ok(None);
        }
        let theirs = 1 - self.mine();
        self.cookies[theirs] = if theirs == 0 { header.initiator.0.to_vec() } else { header.responder.0.to_vec() };
        let mut answer = Vec::new();
        for p in payloads {
            match p {
                Payload::SecurityAssociation(sa) if !self.initiator => {
                    self.offer = sa.body();
                    answer.push(Payload::SecurityAssociation(self.choose(u, sa)?));
                }
                Payload::KeyExchange(public) => self.publics[theirs] = public.clone(),
                Payload::Nonce(nonce) => self.nonces[theirs] = nonce.clone(),
                _ => {}
            }
        }
        if self.initiator {
            if !self.derive() {
                return Ok(None);
            }
            let proof = self.evidence();
            let sent = self.proof(u, ExchangeType::AGGRESSIVE, proof)?;
            self.established = true;
            return Ok(sent);
        }
        let mut more = self.key_exchange();
        more.truncate(2);
        if let [Payload::KeyExchange(public), Payload::Nonce(nonce)] = &more[..] {
            (self.publics[1], self.nonces[1]) = (public.clone(), nonce.clone());
        }
        self.identity = address().body();
        if !self.derive() {
            return Ok(None);
        }
        answer.extend(more);
        answer.push(Payload::Identification(address()));
        answer.extend(self.evidence());
        answer.push(Payload::VendorId(DPD.to_vec()));
        self.clear(u, ExchangeType::AGGRESSIVE, answer).map(Some)
    }

    /// HASH, or CERT and SIG.
    fn evidence(&self) -> Vec<Payload> {
        if self.proof == Proof::Signature {
            let certificate = Payload::Certificate { encoding: X509_SIGNATURE, data: b"a certificate".to_vec() };
            return vec![certificate, Payload::Signature(vec![0x5a; 64])];
        }
        let Some(keys) = &self.keys else { return Vec::new() };
        vec![Payload::Hash(keys.identity_hash(self.mine(), &self.said(), &self.offer, &self.identity))]
    }

    fn phase1_offer(&self) -> SecurityAssociation {
        use phase1_attribute as class;
        // ECDSA with SHA-256 on P-256 is 9 (RFC 4754 6).
        let method = if self.proof == Proof::Signature { 9 } else { 1 };
        let attributes = [(class::ENCRYPTION, 7), (class::KEY_LENGTH, 128), (class::HASH, self.hash.ikev1)]
            .into_iter()
            .chain([(class::AUTHENTICATION, method), (class::GROUP, 31), (class::LIFE_TYPE, 1)])
            .chain([(class::LIFE_DURATION, 3600)])
            .map(|(kind, value)| Attribute::basic(kind, value));
        let transform = Transform { number: 1, id: KEY_IKE, attributes: attributes.collect() };
        let proposal =
            Proposal { number: 1, protocol: ProtocolId::ISAKMP, spi: Vec::new(), transforms: vec![transform] };
        SecurityAssociation { proposals: vec![proposal] }
    }

    /// What the engine sent, answered as it should be, or nearly so.
    pub(super) fn hear(
        &mut self,
        u: &mut Unstructured<'_>,
        from: SocketAddr,
        to: SocketAddr,
        udp: &[u8],
    ) -> Result<Option<Sent>> {
        let octets = if to.port() == 4500 { udp.strip_prefix(&[0; 4]).unwrap_or_default() } else { udp };
        let Ok(message) = Message::decode(octets) else { return Ok(None) };
        self.path = (to, from);
        match (message.header.exchange, message.body) {
            (ExchangeType::MAIN_MODE, Body::Clear(payloads)) => self.main_mode(u, &message.header, &payloads),
            (ExchangeType::AGGRESSIVE, Body::Clear(payloads)) => self.aggressive_mode(u, &message.header, &payloads),
            (ExchangeType::MAIN_MODE | ExchangeType::AGGRESSIVE, Body::Encrypted(body)) => {
                self.main_mode_end(u, &message.header, &body)
            }
            (exchange, Body::Encrypted(body)) => self.phase2(u, exchange, &message.header, &body),
            _ => Ok(None),
        }
    }

    fn main_mode(&mut self, u: &mut Unstructured<'_>, header: &Header, payloads: &[Payload]) -> Result<Option<Sent>> {
        if self.established {
            return Ok(None);
        }
        let theirs = 1 - self.mine();
        self.cookies[theirs] = if theirs == 0 { header.initiator.0.to_vec() } else { header.responder.0.to_vec() };
        for p in payloads {
            match p {
                Payload::SecurityAssociation(sa) => return self.association(u, sa).map(Some),
                Payload::KeyExchange(public) => self.publics[theirs] = public.clone(),
                Payload::Nonce(nonce) => self.nonces[theirs] = nonce.clone(),
                _ => {}
            }
        }
        if self.initiator {
            if self.derive() { self.prove(u) } else { Ok(None) }
        } else {
            let payloads = self.key_exchange();
            let sent = self.clear(u, ExchangeType::MAIN_MODE, payloads)?;
            self.derive();
            Ok(Some(sent))
        }
    }

    /// Message 2 as initiator; message 1 as responder.
    fn association(&mut self, u: &mut Unstructured<'_>, sa: &SecurityAssociation) -> Result<Sent> {
        if self.initiator {
            let payloads = self.key_exchange();
            let sent = self.clear(u, ExchangeType::MAIN_MODE, payloads);
            if self.nat {
                // From message 5 on (RFC 3947 4).
                self.path.0.set_port(4500);
                self.path.1.set_port(4500);
            }
            return sent;
        }
        self.offer = sa.body();
        let answer = self.choose(u, sa)?;
        let mut payloads = vec![Payload::SecurityAssociation(answer), Payload::VendorId(DPD.to_vec())];
        if self.nat {
            payloads.push(Payload::VendorId(NAT_T.to_vec()));
        }
        self.clear(u, ExchangeType::MAIN_MODE, payloads)
    }

    /// One transform of those offered: the first with our hash and method.
    fn choose(&self, u: &mut Unstructured<'_>, sa: &SecurityAssociation) -> Result<SecurityAssociation> {
        let wanted = self.phase1_offer().proposals[0].transforms[0].attributes.clone();
        let ours = |t: &&Transform| wanted.iter().take(5).all(|attribute| t.attributes.contains(attribute));
        let proposal = &sa.proposals[u.choose_index(sa.proposals.len())?];
        let transform = proposal.transforms.iter().find(ours).or(proposal.transforms.first());
        let proposal = Proposal { transforms: transform.cloned().into_iter().collect(), ..proposal.clone() };
        Ok(SecurityAssociation { proposals: vec![proposal] })
    }

    /// Messages 3 and 4.
    fn key_exchange(&mut self) -> Vec<Payload> {
        let mut nonce = vec![0; 20];
        self.entropy.fill(&mut nonce);
        let mut payloads = vec![Payload::KeyExchange(self.draw()), Payload::Nonce(nonce)];
        if self.nat {
            // Nobody's addresses: there is a NAT.
            payloads.extend([1, 2].map(|n| Payload::NatDiscovery { draft: false, hash: vec![n; self.hash.len] }));
        }
        payloads
    }

    fn draw(&mut self) -> Vec<u8> {
        let group = Group::from_keyword("x25519").expect("a row");
        let dh = group.generate(&mut self.entropy).expect("a private value");
        let public = dh.public().to_vec();
        self.dh = Some(dh);
        public
    }

    fn said(&self) -> Said<'_> {
        Said {
            cookies: [&self.cookies[0], &self.cookies[1]],
            nonces: [&self.nonces[0], &self.nonces[1]],
            publics: [&self.publics[0], &self.publics[1]],
        }
    }

    fn derive(&mut self) -> bool {
        let Some(Ok(shared)) = self.dh.take().map(|dh| dh.agree(&self.publics[1 - self.mine()])) else { return false };
        let preshared = match self.proof {
            Proof::Key => Some(PSK),
            Proof::WrongKey => Some(&b"not-the-key-of-this-host"[..]),
            Proof::Signature => None,
        };
        let keys = Keys::derive(self.hash, preshared, &shared, &self.said());
        self.iv = keys.phase1_iv(&self.said());
        self.keys = Some(keys);
        true
    }

    /// Messages 5 and 6 of ours.
    fn prove(&mut self, u: &mut Unstructured<'_>) -> Result<Option<Sent>> {
        let mut payloads = vec![Payload::Identification(address())];
        disturb(u, &mut payloads)?;
        let said = payloads.iter().find_map(|p| match p {
            Payload::Identification(id) => Some(id.body()),
            _ => None,
        });
        self.identity = said.unwrap_or_default();
        payloads.extend(self.evidence());
        self.proof(u, ExchangeType::MAIN_MODE, payloads)
    }

    /// Sends what proves who we are, encrypted.
    fn proof(
        &mut self,
        u: &mut Unstructured<'_>,
        exchange: ExchangeType,
        mut payloads: Vec<Payload>,
    ) -> Result<Option<Sent>> {
        if u.ratio(1, 4)? {
            let contact = Notification {
                doi: DOI_IPSEC,
                protocol: ProtocolId::ISAKMP,
                spi: self.cookies.concat(),
                kind: NotifyKind::INITIAL_CONTACT,
                data: Vec::new(),
            };
            payloads.push(Payload::Notification(contact));
        }
        let mut chain = encode_chain(&payloads);
        damage(u, &mut chain)?;
        Ok(self.encrypted(self.header(exchange, 0), first_kind(&payloads), chain))
    }

    /// The engine's message 5 or 6, or 3 of aggressive mode.
    fn main_mode_end(&mut self, u: &mut Unstructured<'_>, header: &Header, body: &[u8]) -> Result<Option<Sent>> {
        let Some(keys) = self.keys.as_ref().filter(|_| !self.established) else { return Ok(None) };
        let Some(clear) = keys.decrypt(&self.iv, body) else { return Ok(None) };
        if decode_chain(header.first, &clear).is_err() {
            return Ok(None);
        }
        self.iv = body[body.len() - super::keys::BLOCK..].to_vec();
        self.established = true;
        if self.initiator || self.aggressive { Ok(None) } else { self.prove(u) }
    }

    /// An exchange under the ISAKMP SA.
    fn phase2(
        &mut self,
        u: &mut Unstructured<'_>,
        kind: ExchangeType,
        header: &Header,
        body: &[u8],
    ) -> Result<Option<Sent>> {
        let Some(keys) = self.keys.as_ref().filter(|_| self.established) else { return Ok(None) };
        let id = header.message_id;
        let ours = self.exchanges.contains_key(&id);
        let exchange = self.exchanges.entry(id).or_insert_with(|| Exchange {
            iv: keys.phase2_iv(&self.iv, id),
            nonces: [vec![], vec![]],
            done: false,
        });
        let Some(clear) = keys.decrypt(&exchange.iv, body).filter(|_| !exchange.done) else { return Ok(None) };
        let Ok((payloads, _)) = decode_chain(header.first, &clear) else { return Ok(None) };
        exchange.iv = body[body.len() - super::keys::BLOCK..].to_vec();
        if kind == ExchangeType::QUICK_MODE {
            return if ours { self.confirm(u, id, &payloads) } else { self.accept(u, id, &payloads) };
        }
        exchange.done = true;
        let asked = payloads.iter().find_map(|p| match p {
            Payload::Notification(n) if n.kind == NotifyKind::R_U_THERE => Some(n.clone()),
            _ => None,
        });
        match asked {
            Some(asked) => {
                let answer = Notification { kind: NotifyKind::R_U_THERE_ACK, ..asked };
                self.inform(u, ExchangeType::INFORMATIONAL, vec![Payload::Notification(answer)])
            }
            None => Ok(None),
        }
    }

    /// Sends `payloads` behind their hash, whose input begins with `before`.
    fn hashed(
        &mut self,
        u: &mut Unstructured<'_>,
        header: Header,
        before: &[&[u8]],
        payloads: &[Payload],
    ) -> Result<Option<Sent>> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let mut rest = encode_chain(payloads);
        damage(u, &mut rest)?;
        let hash = keys.message_hash(&[before, &[&rest[..]]].concat());
        let len = u16::try_from(hash.len() + 4).expect("a short hash").to_be_bytes();
        let chain = [&[first_kind(payloads).0, 0, len[0], len[1]][..], &hash, &rest].concat();
        Ok(self.encrypted(header, PayloadKind::HASH, chain))
    }

    /// An informational exchange, or any other of one message.
    pub(super) fn inform(
        &mut self,
        u: &mut Unstructured<'_>,
        kind: ExchangeType,
        mut payloads: Vec<Payload>,
    ) -> Result<Option<Sent>> {
        disturb(u, &mut payloads)?;
        let Some(id) = self.begin(u)? else { return Ok(None) };
        self.hashed(u, self.header(kind, id), &[&id.to_be_bytes()], &payloads)
    }

    /// A new exchange of ours.
    fn begin(&mut self, u: &mut Unstructured<'_>) -> Result<Option<u32>> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let id = if u.ratio(1, 16)? { u.arbitrary()? } else { self.entropy.next_u64() as u32 | 1 };
        let iv = keys.phase2_iv(&self.iv, id);
        self.exchanges.insert(id, Exchange { iv, nonces: [vec![], vec![]], done: false });
        Ok(Some(id))
    }

    /// Message 1 of a quick mode.
    pub(super) fn quick_mode(&mut self, u: &mut Unstructured<'_>) -> Result<Option<Sent>> {
        let Some(id) = self.begin(u)? else { return Ok(None) };
        let tunnel = u.arbitrary::<u8>()? % 3;
        let mut payloads = self.phase2_offer(tunnel);
        if tunnel == 1 {
            payloads.push(Payload::KeyExchange(self.draw()));
        }
        let subnet = |b: u8| Identification {
            kind: IdKind::IPV4_ADDR_SUBNET,
            protocol: 0,
            port: 0,
            data: vec![10, b, tunnel + 1, 0, 255, 255, 255, 0],
        };
        let host = |b: u8, port| Identification { kind: IdKind::IPV4_ADDR, protocol: 6, port, data: vec![10, b, 3, 1] };
        let ids = if tunnel == 2 { [host(100, 1024), host(101, 80)] } else { [subnet(100), subnet(101)] };
        payloads.extend(ids.map(Payload::Identification));
        disturb(u, &mut payloads)?;
        self.remember(id, 0, &payloads);
        let header = self.header(ExchangeType::QUICK_MODE, id);
        let header = Header { flags: Flags { commit: u.ratio(1, 16)?, ..header.flags }, ..header };
        self.hashed(u, header, &[&id.to_be_bytes()], &payloads)
    }

    fn phase2_offer(&mut self, tunnel: u8) -> Vec<Payload> {
        use phase2_attribute as class;
        let mode = if self.nat { encapsulation_mode::UDP_TUNNEL } else { encapsulation_mode::TUNNEL };
        let (bits, integrity) = if tunnel == 1 { (256, 5) } else { (128, 2) };
        let mut attributes = vec![
            Attribute::basic(class::KEY_LENGTH, bits),
            Attribute::basic(class::AUTHENTICATION, integrity),
            Attribute::basic(class::ENCAPSULATION, mode),
            Attribute::basic(class::LIFE_TYPE, 1),
            Attribute::basic(class::LIFE_DURATION, 3600),
        ];
        if tunnel == 1 {
            attributes.push(Attribute::basic(class::GROUP, 31));
        }
        let mut nonce = vec![0; 24];
        self.entropy.fill(&mut nonce);
        let spi = vec![0x10, nonce.pop().unwrap_or(0), 0x10, nonce.pop().unwrap_or(0)];
        self.spis.push(spi.clone());
        // ESP_AES is 12 (RFC 3602 5.3).
        let transforms = vec![Transform { number: 1, id: 12, attributes }];
        let proposal = Proposal { number: 1, protocol: ProtocolId::ESP, spi, transforms };
        let sa = SecurityAssociation { proposals: vec![proposal] };
        vec![Payload::SecurityAssociation(sa), Payload::Nonce(nonce)]
    }

    /// Keeps the nonce of a quick mode's message.
    fn remember(&mut self, id: u32, whose: usize, payloads: &[Payload]) {
        for p in payloads {
            match (p, self.exchanges.get_mut(&id)) {
                (Payload::Nonce(nonce), Some(exchange)) => exchange.nonces[whose] = nonce.clone(),
                (Payload::SecurityAssociation(sa), _) => self.spis.extend(sa.proposals.iter().map(|p| p.spi.clone())),
                _ => {}
            }
        }
    }

    /// Message 2 has come: message 3.
    fn confirm(&mut self, u: &mut Unstructured<'_>, id: u32, payloads: &[Payload]) -> Result<Option<Sent>> {
        self.remember(id, 1, payloads);
        let mut more = Vec::new();
        disturb(u, &mut more)?;
        let Some((exchange, keys)) = self.exchanges.get_mut(&id).zip(self.keys.as_ref()) else { return Ok(None) };
        exchange.done = true;
        let [ni, nr] = &exchange.nonces;
        let hash = Payload::Hash(keys.message_hash(&[&[0], &id.to_be_bytes(), ni, nr]));
        more.insert(0, hash);
        let mut chain = encode_chain(&more);
        damage(u, &mut chain)?;
        Ok(self.encrypted(self.header(ExchangeType::QUICK_MODE, id), first_kind(&more), chain))
    }

    /// Message 1 has come: message 2.
    fn accept(&mut self, u: &mut Unstructured<'_>, id: u32, payloads: &[Payload]) -> Result<Option<Sent>> {
        self.remember(id, 0, payloads);
        let ni = self.exchanges.get(&id).map(|exchange| exchange.nonces[0].clone()).unwrap_or_default();
        let mut answer = Vec::new();
        for p in payloads {
            match p {
                Payload::SecurityAssociation(sa) => {
                    let proposal = &sa.proposals[u.choose_index(sa.proposals.len())?];
                    let transform = proposal.transforms[u.choose_index(proposal.transforms.len())?].clone();
                    let spi = vec![0x20, 0, 0, self.entropy.next_u64() as u8];
                    let proposal = Proposal { spi, transforms: vec![transform], ..proposal.clone() };
                    answer.push(Payload::SecurityAssociation(SecurityAssociation { proposals: vec![proposal] }));
                }
                Payload::Nonce(_) => {
                    let mut nonce = vec![0; 20];
                    self.entropy.fill(&mut nonce);
                    answer.push(Payload::Nonce(nonce));
                }
                Payload::KeyExchange(_) => answer.push(Payload::KeyExchange(self.draw())),
                Payload::Identification(_) => answer.push(p.clone()),
                _ => {}
            }
        }
        disturb(u, &mut answer)?;
        self.remember(id, 1, &answer);
        self.hashed(u, self.header(ExchangeType::QUICK_MODE, id), &[&id.to_be_bytes(), &ni], &answer)
    }

    /// A delete of something that there may be.
    pub(super) fn delete(&mut self, u: &mut Unstructured<'_>) -> Result<Option<Sent>> {
        let (protocol, spi) = if u.ratio(1, 4)? {
            (ProtocolId::ISAKMP, self.cookies.concat())
        } else {
            (ProtocolId::ESP, self.spis[u.choose_index(self.spis.len())?].clone())
        };
        let spi_len = u8::try_from(spi.len()).unwrap_or(u8::MAX);
        let delete = Delete { doi: DOI_IPSEC, protocol, spi_len, spis: vec![spi] };
        self.inform(u, ExchangeType::INFORMATIONAL, vec![Payload::Delete(delete)])
    }

    /// A message of any kind, in the clear, under cookies that may be right.
    pub(super) fn stray(&mut self, u: &mut Unstructured<'_>) -> Result<Sent> {
        let kinds = [2, 4, 5, 6, 32, 33, u.arbitrary()?];
        let exchange = ExchangeType(kinds[u.choose_index(kinds.len())?]);
        let mut header = self.header(exchange, u.arbitrary::<u8>()?.into());
        if u.arbitrary()? {
            header.responder = Cookie::ZERO;
            header.initiator = Cookie([u.arbitrary()?; 8]);
        }
        let payloads: Vec<_> = (0..1 + u.arbitrary::<u8>()? % 4).map(|_| payload(u)).collect::<Result<_>>()?;
        let mut octets = Message { header, body: Body::Clear(payloads) }.encode();
        damage(u, &mut octets)?;
        Ok(self.datagram(&octets))
    }
}
