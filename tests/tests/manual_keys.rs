//! Tunnels with manual keys: two Caponiers without IKE, and what goes wrong (HP-UX "Manual keys").

use tests::caponier::{Caponier, Configuration, Tunnel};
use tests::capture::{self, Capture};
use tests::cases::PLAIN;
use tests::lab::{Host, Lab};
use tests::need::Need;
use tests::traffic::{self, Transfer};
use tests::wait;

const A_TO_B: Key = Key {
    spi: 2_500_001,
    authentication: "00112233445566778899aabbccddeeff01234567",
    encryption: "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
};
const B_TO_A: Key = Key {
    spi: 0x103,
    authentication: "89abcdef0123456789abcdef0123456789abcdef",
    encryption: "a0b1c2d3e4f5061728394a5b6c7d8e9f",
};

#[derive(Clone, Copy)]
struct Key {
    spi: u32,
    authentication: &'static str,
    encryption: &'static str,
}

impl Key {
    fn text(self) -> String {
        format!("ESP/{:#x}/{}/{}", self.spi, self.authentication, self.encryption)
    }
}

/// One tunnel with manual keys, and neither IKE policy nor authentication record.
fn manual(me: &Host, peer: &Host, inbound: Key, outbound: Key) -> Configuration {
    let (source, destination) = (me.network(), peer.network());
    let more = format!(
        "
[[host]]
name = \"manual\"
source = \"{source}\"
destination = \"{destination}\"
tunnel = \"manual\"

[[tunnel]]
name = \"manual\"
tsource = \"{}\"
tdestination = \"{}\"
source = \"{source}\"
destination = \"{destination}\"
action = \"ESP_AES128_HMAC_SHA1\"
in = \"{}\"
out = \"{}\"
",
        me.outer(),
        peer.outer(),
        inbound.text(),
        outbound.text()
    );
    Configuration { more, ..Configuration::default() }
}

#[test]
fn pings_and_tcp_without_ike() {
    let Some(lab) = Lab::open("manual", 2, &[Need::Capture]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let wire = Capture::start(a, "outer");
    let at_a = Caponier::start(a, &manual(a, b, B_TO_A, A_TO_B));
    let at_b = Caponier::start(b, &manual(b, a, A_TO_B, B_TO_A));
    assert_eq!(at_a.pairs("manual"), [(B_TO_A.spi, A_TO_B.spi)]);
    assert_eq!(at_b.pairs("manual"), [(A_TO_B.spi, B_TO_A.spi)]);
    traffic::ping_all(a, b, 3);
    traffic::ping_all(b, a, 3);
    let transfer = Transfer::start(a, a.inner(), b, b.inner(), 2_000_000);
    transfer.advance(500_000);
    // What a reload does not change goes on as it was.
    at_a.reload(&manual(a, b, B_TO_A, A_TO_B));
    transfer.finish();

    let sad = at_a.report("sad");
    assert_eq!(sad.len(), 2);
    for sa in &sad {
        assert_eq!((&sa["state"], &sa["tunnel"]), (&"mature".into(), &"manual".into()), "{sa}");
        assert!(sa["packets"].as_u64() > Some(100), "{sa}");
        for absent in ["replay_window", "pfs"] {
            assert!(sa[absent].is_null(), "{absent} of {sa}");
        }
        for absent in ["seconds", "kbytes", "remaining_seconds"] {
            assert!(sa["lifetime"][absent].is_null(), "{absent} of {sa}");
        }
    }
    assert_eq!(at_a.report("mad"), Vec::<serde_json::Value>::new());
    let tunnel = &at_a.report("tunnel")[0];
    assert_eq!((&tunnel["state"], &tunnel["start"]), (&"up".into(), &"manual".into()), "{tunnel}");
    let host = &at_a.report("host")[0];
    assert_eq!((&host["action"], &host["state"]), (&"manual_key_sa".into(), &"ready".into()), "{host}");
    let text = at_a.command(20, "ipsec_report", &["-all"]).ok("ipsec_report -all");
    assert!(text.contains("Manual key SA"), "{text}");
    let refused = at_a.command(20, "ipsec_admin", &["-rekey_sa", "manual"]);
    assert!(!refused.status.success() && refused.stderr.contains("manual keys"), "{refused:?}");

    // A sender that starts again begins with sequence number 1 again, and is heard.
    at_b.kill();
    let at_b = Caponier::start(b, &manual(b, a, A_TO_B, B_TO_A));
    traffic::ping_all(b, a, 3);

    // Nothing shows the keys, nor anything in the clear.
    for key in [A_TO_B.authentication, A_TO_B.encryption, B_TO_A.authentication, B_TO_A.encryption] {
        assert!(![&text, &at_a.log(), &at_b.log()].iter().any(|shown| shown.contains(key)), "a key is shown");
    }
    capture::assert_protected(&wire.stop(), a, b, b"");
}

#[test]
fn spi_mismatch() {
    let Some(lab) = Lab::open("manual-spi", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let other = Key { spi: 2_500_009, ..A_TO_B };
    let _at_a = Caponier::start(a, &manual(a, b, B_TO_A, other));
    let at_b = Caponier::start(b, &manual(b, a, A_TO_B, B_TO_A));
    assert_eq!(traffic::ping(a, a.inner(), b.inner(), 2, 1), 0);
    let (from, to) = (a.outer(), b.outer());
    let said = at_b.wait_event(20, "WARNING", &["No SPI for received packet"]);
    assert!(said.contains(&format!("{:x}", other.spi)), "{said}");
    assert!(said.contains(&from.to_string()) && said.contains(&to.to_string()), "{said}");
    assert!(at_b.log().contains("Msg: 67 "), "{}", at_b.log());
    assert!(at_b.counter("unknown_spi") >= 1);
    // Mended by a reload, without a restart.
    at_b.reload(&manual(b, a, other, B_TO_A));
    traffic::ping_all(a, b, 2);
}

#[test]
fn key_mismatch() {
    let Some(lab) = Lab::open("manual-key", 2, &[]) else { return };
    let (a, b) = (lab.a(), lab.b());
    let other = Key { authentication: "ffffffffffffffffffffffffffffffffffffffff", ..A_TO_B };
    let at_a = Caponier::start(a, &manual(a, b, B_TO_A, other));
    let at_b = Caponier::start(b, &manual(b, a, A_TO_B, B_TO_A));
    assert_eq!(traffic::ping(a, a.inner(), b.inner(), 2, 1), 0);
    wait::until_true("packets that do not authenticate", 10, || at_b.counter("authentication_failed") >= 2);
    assert_eq!(at_b.counter("unknown_spi"), 0);
    at_a.reload(&manual(a, b, B_TO_A, A_TO_B));
    traffic::ping_all(a, b, 2);
}

/// A manual SPI that a negotiated SA has, since the range of those was another when it was made.
#[test]
fn duplicate_spi() {
    let Some(lab) = Lab::open("manual-twice", 3, &[]) else { return };
    let (a, b, c) = (lab.a(), lab.b(), &lab.hosts()[2]);
    let with_range = |low: u32, more: String| Configuration {
        startup: format!("spi_min = {low}\nspi_max = {}", low + 1),
        tunnels: vec![Tunnel::new(a, b, PLAIN)],
        more,
    };
    let at_a = Caponier::start(a, &with_range(513, String::new()));
    let _at_b = Caponier::start(b, &Configuration::new(Tunnel::new(b, a, PLAIN)));
    traffic::ping_all(a, b, 1);
    let taken = at_a.pairs("to_b")[0].0;
    assert!((513..=514).contains(&taken));
    at_a.reload(&with_range(600, manual(a, c, Key { spi: taken, ..B_TO_A }, A_TO_B).more));
    let said = at_a.wait_event(10, "ERROR", &["SADB_ADD"]);
    assert!(said.starts_with(&format!("PF_KEY: SADB_ADD for SPI {taken:#x} returns EEXIST")), "{said}");
    assert!(at_a.log().contains("Msg: 178 "), "{}", at_a.log());
    // Not added; what has the SPI goes on.
    assert_eq!(at_a.pairs("manual"), []);
    assert_eq!(at_a.pairs("to_b")[0].0, taken);
    traffic::ping_all(a, b, 1);
    at_a.reload(&with_range(600, manual(a, c, B_TO_A, A_TO_B).more));
    assert_eq!(at_a.pairs("manual"), [(B_TO_A.spi, A_TO_B.spi)]);
}
