//! Certificates over a link of 1280 octets behind a firewall that drops IP fragments: with IKE fragmentation phase 1
//! comes to its end, against strongSwan in both roles, and without it does not.

use std::net::Ipv6Addr;
use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::{Case, PLAIN};
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::pki::{self, Authority, Kind};
use tests::strongswan::{Connection, Esp, StrongSwan};
use tests::traffic;

const NEEDS: [Need; 3] = [Need::StrongSwan, Need::Capture, Need::Nft];
const CASE: Case = Case { ike: "aes128-sha256-ecp256", ..PLAIN };
/// Next payload of a piece of a message.
const FRAGMENT: u8 = 132;

/// No fragment comes in, and packets are short.
fn narrow(host: &Host) {
    host.run(10, "ip", &["link", "set", "outer", "mtu", "1280"]).ok("ip link");
    // Before anything puts fragments together: more fragments, or an offset.
    let rules = "table netdev narrow { chain in { type filter hook ingress device outer priority 0; \
                 ip frag-off & 0x3fff != 0 counter drop; }; }";
    host.run(10, "nft", &[rules]).ok("nft");
}

/// A certificate of some kilobytes below an authority below the root.
fn chain(root: &Authority, name: &str, serial: u64) -> (String, String, String) {
    let below = root.authority(&format!("{name}'s CA"), serial, |_| ());
    let addresses = (0..120).map(|n| pki::address(Ipv6Addr::from_bits(n).into()));
    let issued = below.issue(Kind::Rsa, name, serial + 100, |params| params.subject_alt_names.extend(addresses));
    (issued.certificate, issued.key, below.certificate())
}

struct Sides {
    lab: Lab,
    ours: Tunnel,
    theirs: Connection,
}

fn sides(test: &str) -> Option<Sides> {
    let lab = Lab::open(test, 2, &NEEDS)?;
    lab.hosts().iter().for_each(narrow);
    let root = Authority::root("Lab CA", |_| ());
    let (certificate, key, below) = chain(&root, "a.lab", 10);
    let at = lab.a().directory.join("pki");
    let certificate = pki::write(&at, "a.pem", &(certificate + &below));
    let (key, ca) = (pki::write(&at, "a.key", &key), pki::write(&at, "ca.pem", &root.certificate()));
    let mut ours = Tunnel::new(lab.a(), lab.b(), CASE);
    ours.preshared = String::new();
    ours.more_auth = format!(
        "method = \"RSASIG\"\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\ncrl_policy = \"relaxed\"\n\
         ltype = \"FQDN\"\nlid = \"a.lab\"\nrtype = \"FQDN\"\nrid = \"b.lab\""
    );
    let (certificate, key, below) = chain(&root, "b.lab", 11);
    let run = lab.b().directory.join("run");
    pki::write(&run.join("x509"), "b.crt", &certificate);
    pki::write(&run.join("private"), "b.key", &key);
    for (name, ca) in [("root.crt", root.certificate()), ("below.crt", below)] {
        pki::write(&run.join("x509ca"), name, &ca);
    }
    let mut theirs = Connection::new(lab.b(), lab.a(), CASE);
    (theirs.local_auth, theirs.remote_auth) = ("auth = pubkey\n    certs = b.crt".into(), "auth = pubkey".into());
    (theirs.local_id, theirs.remote_id) = ("b.lab".into(), "a.lab".into());
    theirs.more.push_str("fragmentation = yes\n");
    Some(Sides { lab, ours, theirs })
}

/// It came up, in pieces both ways, and both sides say so.
fn assert_in_pieces(caponier: &Caponier, swan: &StrongSwan, wire: Capture, lab: &Lab) {
    let mirrored: Vec<_> = swan.pairs().into_iter().map(|(i, o)| (o, i)).collect();
    assert_eq!(caponier.pairs("to_b"), mirrored, "SPIs mirror");
    let mad = caponier.report("mad");
    let sa = mad.iter().find(|sa| sa["state"] == "established").expect("an ISAKMP SA");
    assert_eq!(sa["fragmentation"], true, "{sa}");
    for name in ["DPD", "XAUTH", "FRAGMENTATION", "NAT-T (RFC 3947)"] {
        assert!(sa["vendor_ids"].as_array().is_some_and(|ids| ids.iter().any(|id| id == name)), "{name}: {sa}");
    }
    assert_eq!((caponier.counter("ike_fragmented"), caponier.counter("ike_reassembled")), (1, 1));
    assert_eq!(caponier.counter("ike_discarded_fragment_inconsistent"), 0);
    let log = swan.log();
    assert!(log.contains("splitting IKE message") && log.contains("reassembled fragmented IKE message"), "{log}");
    let frames = wire.stop();
    let pieces = capture::isakmp(&frames).iter().filter(|m| m[16] == FRAGMENT).count();
    assert!(pieces >= 6, "{pieces}");
    assert!(frames.iter().all(|frame| frame.len() <= 1280 + 14), "no packet is longer than the link takes");
    capture::assert_protected(&frames, lab.a(), lab.b(), b"");
    assert_eq!(caponier.events("ERROR"), Vec::<String>::new());
}

#[test]
fn as_initiator() {
    let Some(Sides { lab, ours, theirs }) = sides("pieces-initiator") else { return };
    let swan = StrongSwan::start(lab.b(), &theirs, &Esp::UserSpace);
    let caponier = Caponier::start(lab.a(), &Configuration::new(ours));
    let wire = Capture::start(lab.a(), "outer");
    traffic::ping_all(lab.a(), lab.b(), 3);
    assert_in_pieces(&caponier, &swan, wire, &lab);
}

/// First with fragmentation switched off on our side, so that message 5 is lost.
#[test]
fn as_responder() {
    let Some(Sides { lab, ours, theirs }) = sides("pieces-responder") else { return };
    let off = Tunnel { more_ike: "fragmentation = \"off\"".into(), ..ours.clone() };
    let caponier = Caponier::start(lab.a(), &Configuration::new(off));
    let swan = StrongSwan::start(lab.b(), &theirs, &Esp::UserSpace);
    let _ = swan.initiate_in_vain(6);
    caponier.assert_no_pairs();
    let dropped = lab.a().run(10, "nft", &["list", "table", "netdev", "narrow"]).ok("nft");
    assert!(!dropped.contains("counter packets 0 "), "its message 5 came in IP fragments: {dropped}");
    swan.swanctl(15, &["--terminate", "--ike", "lab", "--force"]).ok("swanctl --terminate --force");
    caponier.reload(&Configuration::new(ours));
    let wire = Capture::start(lab.a(), "outer");
    swan.initiate();
    traffic::ping_all(lab.b(), lab.a(), 3);
    assert_in_pieces(&caponier, &swan, wire, &lab);
}
