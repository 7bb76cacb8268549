//! `[startup]` and `[default]`.

use super::host;
use super::model::{DefaultAction, DfPolicy, Startup};
use super::object::{Object, quoted};
use crate::audit::Level;
use crate::spi;
use std::path::PathBuf;

/// Fewer dynamic SPIs than this are soon used up, since an SA that dies keeps its SPI for a while.
const FEW_SPIS: u32 = 1000;

/// HP-UX's values where it has the option. The cache limits are ours (HP-UX's
/// are not published): 900,000 entries bring the first alert and 1,000,000 are the most.
impl Default for Startup {
    fn default() -> Self {
        Self {
            audit_level: Level::Error,
            audit_dir: None,
            audit_max_kbytes: 100,
            spd_soft: 900,
            spd_hard: 1000,
            spi_min: 300,
            spi_max: 2_500_000,
            interface: "caponier0".to_owned(),
            mtu: None,
            replay_window: 1024,
            offload: true,
            workers: None,
            df: DfPolicy::Copy,
            ike_port: 500,
            natt_port: 4500,
            hold_queue: 64,
            exclusive_sessions: 1000,
            cache_idle_seconds: 300,
            export_keys: None,
            allow_short_lifetimes: false,
        }
    }
}

/// Reads `[startup]`; what is absent or wrong keeps its default.
pub(super) fn startup(object: &mut Object<'_, '_, '_>) -> Startup {
    let mut s = Startup::default();
    let levels = [Level::Alert, Level::Error, Level::Warning, Level::Informative, Level::Debug];
    let names = levels.map(|l| l.to_string().to_lowercase());
    let words: Vec<_> = names.iter().map(String::as_str).zip(levels).collect();
    set(&mut s.audit_level, object.one_of("auditlvl", &words).map(|l| l.value));
    s.audit_dir = directory(object, "auditdir");
    set(&mut s.audit_max_kbytes, object.integer("maxsize", 1..=4_194_304).map(|n| n.value));
    set(&mut s.interface, interface(object));
    s.mtu = object.integer_u16("mtu", 576..=u16::MAX);
    set(&mut s.replay_window, object.integer("replay_window", 32..=65536).map(|n| n.value));
    let df = [("copy", DfPolicy::Copy), ("set", DfPolicy::Set), ("clear", DfPolicy::Clear)];
    set(&mut s.df, object.one_of("df", &df).map(|d| d.value));
    set(&mut s.offload, object.one_of("offload", &[("auto", true), ("off", false)]).map(|o| o.value));
    s.workers = workers(object);
    set(&mut s.hold_queue, object.integer("hold_queue", 1..=4096).map(|n| n.value));
    set(&mut s.exclusive_sessions, object.integer("exclusive_sessions", 1..=65_536).map(|n| n.value));
    set(&mut s.cache_idle_seconds, object.integer("cache_idle", 1..=604_800).map(|n| n.value));
    s.export_keys = directory(object, "export_keys");
    s.allow_short_lifetimes = object.boolean("allow_short_lifetimes");
    cache_limits(object, &mut s);
    spis(object, &mut s);
    ports(object, &mut s);
    if s.export_keys.is_some() {
        let at = object.key_span("export_keys");
        object.warning(at, "the keys of every SA are written to files: whoever reads them can decrypt the traffic");
    }
    if s.allow_short_lifetimes {
        let at = object.key_span("allow_short_lifetimes");
        object.warning(at, "lifetimes shorter than HP-UX allows are accepted; this is meant for tests");
    }
    s
}

/// Reads `[default]`: what it does, and its part of the SPD cache.
pub(super) fn default_policy(object: &mut Object<'_, '_, '_>) -> (DefaultAction, Option<u8>) {
    let words = [("PASS", DefaultAction::Pass), ("DISCARD", DefaultAction::Discard)];
    let action = object.one_of("action", &words).map_or(DefaultAction::Pass, |a| a.value);
    (action, host::cache_share(object))
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(v) = value {
        *field = v;
    }
}

/// The most workers in each direction.
const MOST_WORKERS: u8 = 7;

/// A number of workers; `None` is `"auto"`.
fn workers(object: &mut Object<'_, '_, '_>) -> Option<u8> {
    let expected = format!("\"auto\" or an integer, 1 to {MOST_WORKERS}");
    let given = object.string_or_integer("workers", &expected)?;
    if given.value.eq_ignore_ascii_case("auto") {
        return None;
    }
    let number = given.value.parse().ok().filter(|n| (1..=MOST_WORKERS).contains(n));
    if number.is_none() {
        object.error(given.at, format!("`workers` is {}; expected {expected}", quoted(&given.value)));
    }
    number
}

fn cache_limits(object: &mut Object<'_, '_, '_>, s: &mut Startup) {
    let range = 1..=100_000;
    let (soft, hard) = (object.integer("spd_soft", range.clone()), object.integer("spd_hard", range));
    // One of them alone takes the other with it rather than contradict a default nobody wrote.
    match (&soft, &hard) {
        (Some(soft), None) if soft.value > s.spd_hard => s.spd_hard = soft.value,
        (None, Some(hard)) if hard.value < s.spd_soft => s.spd_soft = hard.value,
        _ => {}
    }
    set(&mut s.spd_soft, soft.as_ref().map(|n| n.value));
    set(&mut s.spd_hard, hard.as_ref().map(|n| n.value));
    if let (Some(soft), Some(hard)) = (soft, hard)
        && soft.value > hard.value
    {
        object.error(
            soft.at,
            format!("`spd_soft` {} is above `spd_hard` {}; expected at most as much", soft.value, hard.value),
        );
    }
}

fn spis(object: &mut Object<'_, '_, '_>, s: &mut Startup) {
    let range = spi::RESERVED + 1..=u32::MAX;
    let (low, high) = (object.integer("spi_min", range.clone()), object.integer("spi_max", range));
    set(&mut s.spi_min, low.as_ref().map(|n| n.value));
    set(&mut s.spi_max, high.as_ref().map(|n| n.value));
    let Some(at) = high.or(low).map(|n| n.at) else { return };
    if s.spi_min > s.spi_max {
        object.error(at, format!("`spi_min` {} is above `spi_max` {}; expected a range of SPIs", s.spi_min, s.spi_max));
    } else if s.spi_max - s.spi_min < FEW_SPIS - 1 {
        object.warning(
            at,
            format!(
                "only {} SPIs from `spi_min` {} to `spi_max` {}: new SAs may find none free",
                s.spi_max - s.spi_min + 1,
                s.spi_min,
                s.spi_max
            ),
        );
    }
}

fn ports(object: &mut Object<'_, '_, '_>, s: &mut Startup) {
    set(&mut s.ike_port, object.integer_u16("ike_port", 1..=u16::MAX));
    set(&mut s.natt_port, object.integer_u16("natt_port", 1..=u16::MAX));
    if s.ike_port == s.natt_port {
        let key = if object.has("natt_port") { "natt_port" } else { "ike_port" };
        let at = object.key_span(key);
        object.error(at, format!("`ike_port` and `natt_port` are both {}; expected two ports", s.ike_port));
    }
}

/// Whether the kernel accepts a name for an interface: at most 15 octets.
pub(super) fn is_interface(name: &str) -> bool {
    let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_dots = name.chars().all(|c| c == '.');
    !is_dots && name.len() <= 15 && name.chars().all(proper)
}

fn interface(object: &mut Object<'_, '_, '_>) -> Option<String> {
    let name = object.string("interface", "the name of an interface")?;
    if !is_interface(name.value) {
        object.error(
            name.at,
            format!("`interface` is {}; expected 1 to 15 ASCII letters, digits, `-`, `_` and `.`", quoted(name.value)),
        );
        return None;
    }
    Some(name.value.to_owned())
}

fn directory(object: &mut Object<'_, '_, '_>, key: &str) -> Option<PathBuf> {
    let path = object.string(key, "a directory")?;
    if path.value.is_empty() || path.value.contains('\0') {
        object.error(path.at, format!("`{key}` is not a path; expected a directory"));
        return None;
    }
    let directory = PathBuf::from(path.value);
    if !directory.is_absolute() {
        object
            .warning(path.at, format!("`{key}` {} depends on where the daemon is started", quoted(path.value)))
            .suggest("write it from the root: /…");
    }
    Some(directory)
}
