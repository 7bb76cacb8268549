//! The configuration: any text is read, or refused with places in it; keys are never shown.

use super::Reached;
use policy::config::{Checked, Config, Severity};
use policy::spd::SharedSpd;

pub(super) const PLACES: &[&str] = &["accepted", "warned", "refused", "negotiated", "manual", "certificates"];

/// Octets of the longest text: nobody writes more by hand, and time grows with it.
const LONGEST: usize = 16 * 1024;

pub(super) fn run(input: &[u8]) -> Reached {
    let mut reached = Reached::default();
    let Ok(text) = core::str::from_utf8(&input[..input.len().min(LONGEST)]) else { return reached };
    let found = match Config::parse(text, "file") {
        Ok(Checked { config, warnings }) => {
            reached.note("accepted");
            assert!(warnings.iter().all(|d| d.severity == Severity::Warning));
            assert_sound(&config, &mut reached);
            warnings
        }
        Err(found) => {
            reached.note("refused");
            assert!(found.iter().any(|d| d.severity == Severity::Error));
            found
        }
    };
    let lines = text.split('\n').count();
    for d in &found {
        reached.note("warned");
        assert!((1..=lines).contains(&d.line) && d.column >= 1 && d.width >= 1, "{d:?}");
        let shown = d.to_string();
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
    reached
}

/// What the rest of the system relies on.
fn assert_sound(config: &Config, reached: &mut Reached) {
    assert!(config.hosts.iter().all(|h| !h.selectors.is_empty()));
    assert!(config.hosts.is_sorted_by(|a, b| a.priority < b.priority && a.cookie < b.cookie));
    assert!(config.startup.spd_soft <= config.startup.spd_hard && config.startup.spi_min <= config.startup.spi_max);
    for tunnel in &config.tunnels {
        assert!(!tunnel.transforms.is_empty());
        assert_eq!(tunnel.tsource.is_ipv4(), tunnel.tdestination.is_ipv4());
        if tunnel.manual.is_some() {
            reached.note("manual");
            continue;
        }
        reached.note("negotiated");
        assert!(config.ike_policy(tunnel.tdestination).is_some_and(|p| !p.proposals.is_empty()));
        let auth = config.auth_record(tunnel.tdestination).expect("a record for the peer");
        if auth.certificates.is_some() {
            reached.note("certificates");
        }
    }
    // What was accepted can be compiled.
    let _ = SharedSpd::new(config);
}
