//! AH and ESP negotiated as one (RFC 2408 4.2): two proposals of one number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ike::Command;
use policy::sa::{SaProtocol, SaSpec};
use support::{Side, World, a, b};

const BUNDLE: &str = "AH_SHA2_256+ESP_AES128_HMAC_SHA1";

fn world(first: &str, second: &str, more: fn(&mut Side)) -> World {
    let (mut a, mut b) = (Side { esp: first.into(), ..a() }, Side { esp: second.into(), ..b() });
    more(&mut a);
    more(&mut b);
    let mut w = World::new(&a, &b);
    w.initiate(0);
    w.seconds(2);
    w
}

/// The AH that both ends have in one direction: the same key, and another than that of the ESP.
fn check_ah(out: &SaSpec, into: &SaSpec) {
    let (o, i) = (out.ah.as_ref().unwrap(), into.ah.as_ref().unwrap());
    assert_eq!((o.spi, &o.keymat, o.suite), (i.spi, &i.keymat, i.suite));
    assert_eq!((o.keymat.len(), o.suite.integrity.map(|row| row.keyword)), (32, Some("sha256")));
    // RFC 2409 5.5: KEYMAT is of the protocol too, and ours have one SPI.
    assert_eq!(into.spi, i.spi);
    assert_ne!(o.keymat.expose()[..20], out.keymat.expose()[16..36]);
    assert_ne!(o.keymat.expose()[..16], out.keymat.expose()[..16]);
}

fn check(w: &World) {
    w.assert_one_pair();
    let (x, y) = (w.a().current().unwrap(), w.b().current().unwrap());
    check_ah(&x.outbound, &y.inbound);
    check_ah(&y.outbound, &x.inbound);
    assert_eq!((x.outbound.protocol, x.outbound.suite.to_string().as_str()), (SaProtocol::Esp, "aes128-sha1"));
    assert_ne!(x.outbound.ah.as_ref().unwrap().keymat, x.inbound.ah.as_ref().unwrap().keymat);
}

#[test]
fn one_quick_mode_makes_both() {
    for more in [
        |_: &mut Side| {},
        |s: &mut Side| s.esp.push_str("-modp2048-esn"),
        |s: &mut Side| {
            s.tunnel_extra = "mode = \"transport\"".into();
            (s.source, s.destination) = (s.me, s.peer);
        },
    ] {
        let mut w = world(BUNDLE, BUNDLE, more);
        check(&w);
        assert!(w.hosts.iter().all(|h| h.errors().is_empty()), "{}", w.story());
        let said = w.a().lines(policy::audit::Level::Informative);
        assert!(said.iter().any(|line| line.contains("ah-sha256+aes128-sha1")), "{said:?}");
        // Replaced as one.
        let old = w.a().current().unwrap().inbound.pair;
        w.command(0, Command::Rekey { pair: old });
        w.seconds(60);
        check(&w);
        assert_ne!(w.a().current().unwrap().inbound.pair, old);
        // And deleted as one: the peer is told of both, and has them as one.
        let pair = w.a().current().unwrap().inbound.pair;
        w.command(0, Command::Expired { pair });
        w.seconds(2);
        assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty(), "{}", w.story());
    }
}

/// Among other transforms, in the offered order; the peer takes what it has.
#[test]
fn beside_other_transforms() {
    let all = format!("aes256-sha256,{BUNDLE},ah-sha1");
    let agreed = |second: &str| {
        let w = world(&all, second, |_| {});
        w.assert_one_pair();
        let pair = &w.b().engine.pairs()[0];
        policy::transform::name(pair.protocol, pair.suite, pair.ah.map(|(ah, _)| ah))
    };
    assert_eq!(agreed(BUNDLE), "ah-sha256+aes128-sha1");
    assert_eq!(agreed(&all), "aes256-sha256");
    assert_eq!(agreed(&format!("ah-sha1,{BUNDLE}")), "ah-sha256+aes128-sha1");
    assert_eq!(agreed("ah-sha1,aes192-sha1"), "ah-sha1");
}

#[test]
fn half_of_it_is_refused_and_named() {
    for (second, why) in [
        ("aes128-sha1", "bundle differs (rejected bundle: ours:peer = one protocol:AH with ESP inside)"),
        ("ah-sha256", "bundle, protocol and authentication differ (rejected bundle: ours:peer = one protocol:AH with"),
        ("ah-sha1+aes128-sha1", "ours:peer = ah-sha1:ah-sha256"),
        ("ah-sha256+aes256-sha1", "encryption differs (rejected encryption: ours:peer = aes256:aes128)"),
    ] {
        let w = world(BUNDLE, second, |_| {});
        assert!(w.a().pairs.is_empty() && w.b().pairs.is_empty(), "{second}");
        let errors = w.b().errors();
        assert!(
            errors.iter().any(|e| e.contains(why) && e.contains("peer offered ah-sha256+aes128-sha1")),
            "{errors:?}"
        );
    }
    // And the reverse: what is wanted is both.
    let w = world("aes128-sha1,ah-sha256", BUNDLE, |_| {});
    assert!(w.b().pairs.is_empty());
    let errors = w.b().errors();
    assert!(errors.iter().any(|e| e.contains("we accept ah-sha256+aes128-sha1")), "{errors:?}");
}

#[test]
fn it_does_not_go_through_a_nat() {
    let force = |s: &mut Side| s.ike_extra = "nat_traversal = \"force\"".into();
    let w = world(BUNDLE, BUNDLE, force);
    assert!(w.a().pairs.is_empty());
    assert!(w.a().errors().iter().any(|e| e.contains("AH cannot pass the NAT")), "{:?}", w.a().errors());
    let esp = format!("{BUNDLE},aes128-sha1");
    let w = world(&esp, &esp, force);
    assert!(w.a().current().unwrap().outbound.ah.is_none(), "what can pass, passes");
}
