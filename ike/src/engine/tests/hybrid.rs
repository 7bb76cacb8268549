//! A client of hybrid authentication (draft-ietf-ipsec-isakmp-hybrid-auth-05) that does not keep to it: before its
//! user is believed anybody could be it, and nothing but itself may be touched by what it says.

use super::*;
use crate::wire::attributes::configuration as inner;
use crate::wire::{Attribute, AttributeValue, AttributesKind};
use crypto::table::Signature;
use policy::config::IdentityPattern;
use policy::trust::{CertificateName, Claim, Distrust, Refusal, Trusted};

const PRIVATE: &[u8] = include_bytes!("../../../tests/support/rsa_private.der");
const PUBLIC: &[u8] = include_bytes!("../../../tests/support/rsa_public.der");

/// What stands for the daemon's key.
pub(super) fn sign(method: &Signature, hash: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<u8>), String> {
    let signature = method.signing_key(PRIVATE).and_then(|key| key.sign(hash)).map_err(|e| e.to_string())?;
    Ok((vec![b"certificate".to_vec()], signature))
}

/// What stands for the daemon's judge of certificates.
pub(super) fn judge(
    method: &Signature,
    hash: &[u8],
    signature: &[u8],
    claim: &Claim,
    expected: &IdentityPattern,
) -> Result<Trusted, Refusal> {
    match claim {
        Claim::Identity(identity) if expected.matches(identity) && method.verify(PUBLIC, hash, signature).is_ok() => {
            let certificate = CertificateName { subject: "CN=b".into(), serial: "01".into(), issuer: "CN=ca".into() };
            Ok(Trusted { identity: identity.clone(), certificate, remarks: Vec::new() })
        }
        _ => {
            let (detail, remedy) = ("it does not verify".to_owned(), "see to it".to_owned());
            Err(Refusal { distrust: Distrust::BadSignature, certificate: None, detail, remedy })
        }
    }
}

fn record(host: usize, more: &str) -> String {
    let peer = address(1 - host).ip();
    format!("[[auth]]\nname = \"x\"\nremote = \"{peer}\"\nmethod = \"HYBRID\"\n{more}\n")
}

/// Phase 1 is done: host 1, the gateway, asks host 0 for its user.
fn asked() -> Two {
    let client = record(
        0,
        "ca = \"/ca\"\ncrl_policy = \"relaxed\"\nxauth = \"client\"\nuser = \"alice\"\npassword = \"wonderland\"",
    );
    let gateway = record(1, "certificate = \"/c\"\nxauth = \"server\"\nusers = \"/users\"");
    let mut two = Two::new([&client, &gateway], ["", ""]);
    two.command(0, Command::Initiate { tunnel: "t".into() });
    assert!(newest(&two, 1).awaits_proof() && !newest(&two, 0).awaits_proof());
    two
}

fn newest(two: &Two, host: usize) -> &super::super::IsakmpSa {
    two.hosts[host].engine.isakmp.last_key_value().unwrap().1
}

fn believe(two: &mut Two) {
    let (ours, theirs) = (two.isakmp(0), two.isakmp(1));
    let password = Some(crypto::Secret::copy_of(b"wonderland"));
    two.command(0, Command::Password { token: ours, password });
    two.command(1, Command::UserChecked { token: theirs, verdict: Ok(true) });
}

fn says(two: &Two, host: usize, words: &str) {
    let audit = &two.hosts[host].audit;
    assert!(audit.iter().any(|e| e.text.contains(words)), "{words}: {audit:#?}");
}

#[test]
fn neither_quick_mode_nor_an_address_before_the_user_is_believed() {
    let mut two = asked();
    says(&two, 1, "HYBRID: not proved before its user is believed");
    let (now, id) = (two.now, two.isakmp(0));
    let policy = Arc::clone(two.hosts[0].config.tunnel("t").unwrap());
    let h = &mut two.hosts[0];
    h.engine.start_quick_mode(now, id, &policy, &mut h.entropy);
    two.drain();
    says(&two, 1, "the peer begins quick mode before extended authentication (XAUTH) is done");
    let h = &mut two.hosts[0];
    let address = Attribute { kind: inner::IP4_ADDRESS, value: AttributeValue::Variable(Vec::new()) };
    let about = super::super::transaction::About::Configuration;
    h.engine.ask_peer(now, id, AttributesKind::REQUEST, vec![address], about, &mut h.entropy);
    two.drain();
    says(&two, 1, "asks for an address (mode-config) too early");
    two.seconds(1);
    assert_eq!(two.pairs(), [0, 0]);
    assert!(newest(&two, 1).awaits_proof());
}

#[test]
fn what_an_unproved_client_says_concerns_itself_alone() {
    let mut two = asked();
    believe(&mut two);
    two.seconds(1);
    assert_eq!(two.pairs(), [1, 1]);
    let first = two.isakmp(1);
    let outbound = two.hosts[1].engine.pairs()[0].outbound_spi;
    // Another negotiation under the same name, whose user is not known.
    two.command(0, Command::RekeyPeer { peer: address(1).ip() });
    let second = two.isakmp(1);
    assert!(second != first && newest(&two, 1).awaits_proof());
    let cookies = two.hosts[1].engine.isakmp[&first].setup.cookies;
    let spi = outbound.to_be_bytes().to_vec();
    let isakmp = Delete { doi: DOI_IPSEC, protocol: ProtocolId::ISAKMP, spi_len: 16, spis: vec![cookies.spi()] };
    let contents = [
        vec![informational::delete(SaProtocol::Esp, &[outbound])],
        vec![Payload::Delete(isakmp)],
        notification(NotifyKind::INVALID_SPI, spi),
        vec![Payload::Notification(informational::isakmp_notification(
            cookies,
            NotifyKind::INITIAL_CONTACT,
            Vec::new(),
        ))],
    ];
    for (message_id, content) in (1..).zip(contents) {
        let sealed = two.sealed(0, message_id, ExchangeType::INFORMATIONAL, content);
        two.deliver(1, &sealed);
        assert_eq!(two.hosts[1].engine.pairs().len(), 1, "message {message_id}");
        assert!(two.hosts[1].engine.isakmp.contains_key(&first), "message {message_id}");
    }
    // It is counted among the half-open ones, and not taken for the peer's best SA.
    assert_eq!(two.hosts[1].engine.isakmp_at(address(1).ip(), address(0)), Some(first));
    // Once the user is believed, it is the peer who said so.
    believe(&mut two);
    assert!(!newest(&two, 1).awaits_proof());
    assert!(two.hosts[1].engine.pairs().iter().all(|pair| pair.outbound_spi != outbound), "INITIAL-CONTACT");
    says(&two, 1, "the peer has restarted (INITIAL-CONTACT)");
}

#[test]
fn an_unproved_client_may_take_its_leave() {
    let mut two = asked();
    let cookies = newest(&two, 0).setup.cookies;
    let sealed = two.sealed(0, 1, ExchangeType::INFORMATIONAL, vec![informational::isakmp_delete(cookies)]);
    two.deliver(1, &sealed);
    assert!(two.hosts[1].engine.isakmp.is_empty());
}
