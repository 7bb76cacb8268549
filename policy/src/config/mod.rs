//! The configuration: one TOML file, checked whole before anything starts.
//!
//! [`Config::parse`] reads the text, reports everything that is wrong with it
//! at once, each with its line and what to do ([`Diagnostic`]), and gives the
//! model the rest of the system works with ([`model`]). `examples/reference.toml`
//! lists every key.
//!
//! | step | where |
//! |---|---|
//! | TOML to tables, syntax errors | here |
//! | one object each | `startup`, `host`, `tunnel` with `manual` keys, `ike`, `auth` with `identity` and `xauth`, `pool` |
//! | tunnels of clients, as these come and go | `expand` |
//! | values | `address`, `names`, `selectors`, `priority` |
//! | names between objects, the sorted model | `resolve` |
//! | what is legal but probably not meant | `advice`; `order`: policies that others take the packets of |

mod address;
mod advice;
mod assembled;
mod auth;
mod cube;
mod diagnostic;
mod expand;
mod gateway;
mod host;
mod identity;
mod ike;
mod keys;
mod manual;
pub mod model;
pub mod names;
mod nearest;
mod object;
mod order;
mod pool;
mod priority;
mod report;
mod resolve;
mod selectors;
mod source;
mod startup;
mod tunnel;
mod xauth;

pub use crate::identity::{Identity, IdentityPattern};
pub use diagnostic::{Diagnostic, Severity};
pub use expand::Client;
pub use model::*;

use keys::Section;
use object::Object;
use report::Report;
use source::{Located, Source, Span};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration that may be used, and what is odd in it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Warnings in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// Reads and checks a whole configuration. `file_name` is only for the diagnostics.
    ///
    /// # Errors
    /// Everything found, errors and warnings, in the order of the file, if
    /// there is at least one error.
    pub fn parse(text: &str, file_name: &str) -> Result<Checked, Vec<Diagnostic>> {
        let mut report = Report::new(Source::new(file_name, text));
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(Span { start: 0, end: 0 }, Span::from);
            report.syntax(at, error.message());
        }
        let entries = Entries::read(document.get_ref(), &mut report);
        // With lines missing, what they defined would only seem to be missing too.
        let config = if errors.is_empty() { resolve::resolve(entries, &mut report) } else { None };
        match config {
            Some(config) if !report.has_errors() => Ok(Checked { config, warnings: report.into_diagnostics() }),
            _ => Err(report.into_diagnostics()),
        }
    }
}

/// Everything of the file, each object by itself.
struct Entries {
    startup: Startup,
    default_action: DefaultAction,
    default_cache_share: Option<u8>,
    hosts: Vec<host::HostEntry>,
    tunnels: Vec<tunnel::TunnelEntry>,
    ikes: Vec<ike::IkeEntry>,
    auths: Vec<auth::AuthEntry>,
    bypass: Vec<Located<crate::selector::AddressRange>>,
    pools: Vec<pool::PoolEntry>,
    gateway: Option<Gateway>,
}

impl Entries {
    fn read(root: &DeTable<'_>, report: &mut Report<'_>) -> Self {
        unknown_sections(root, report);
        let startup = one(root, &keys::STARTUP, report, |mut o| startup::startup(&mut o)).unwrap_or_default();
        let (default_action, default_cache_share) =
            one(root, &keys::DEFAULT, report, |mut o| startup::default_policy(&mut o))
                .unwrap_or((DefaultAction::Pass, None));
        let mut hosts = each(root, &keys::HOST, report, |o| host::read(o, &startup));
        let mut tunnels = each(root, &keys::TUNNEL, report, |o| tunnel::read(o, &startup));
        tunnels.extend(hosts.iter_mut().filter_map(|h| h.transport.take()));
        Self {
            hosts,
            tunnels,
            ikes: each(root, &keys::IKE, report, |o| ike::read(o, &startup)),
            auths: each(root, &keys::AUTH, report, auth::read),
            bypass: each(root, &keys::BYPASS, report, auth::bypass).into_iter().flatten().collect(),
            pools: each(root, &keys::POOL, report, pool::read),
            gateway: one(root, &keys::GATEWAY, report, |o| gateway::read(o, &startup)).flatten(),
            startup,
            default_action,
            default_cache_share,
        }
    }
}

fn unknown_sections(root: &DeTable<'_>, report: &mut Report<'_>) {
    for key in root.keys() {
        let name: &str = key.get_ref();
        if keys::SECTIONS.iter().all(|s| s.name != name) {
            let known = keys::SECTIONS.map(|s| s.name);
            report
                .error(
                    key.span().into(),
                    "",
                    format!("unknown section or key {}; expected one of {}", object::quoted(name), known.join(", ")),
                )
                .suggest_if(nearest::did_you_mean(name, known).or_else(|| keys::belongs(name)));
        }
    }
}

/// The section that there is at most once.
fn one<'t, T>(
    root: &'t DeTable<'t>,
    section: &Section,
    report: &mut Report<'_>,
    read: impl FnOnce(Object<'t, '_, '_>) -> T,
) -> Option<T> {
    let value = root.get(section.name)?;
    match value.get_ref() {
        DeValue::Table(table) => {
            let object = Object::open(section, 1, table, value.span().into(), report);
            Some(read(object))
        }
        _ => {
            wrong_form(section, value, report);
            None
        }
    }
}

/// The objects of a section that there may be several of, in the order of the file.
fn each<'t, T>(
    root: &'t DeTable<'t>,
    section: &Section,
    report: &mut Report<'_>,
    mut read: impl FnMut(Object<'t, '_, '_>) -> T,
) -> Vec<T> {
    let Some(value) = root.get(section.name) else { return Vec::new() };
    let DeValue::Array(items) = value.get_ref() else {
        wrong_form(section, value, report);
        return Vec::new();
    };
    let mut objects = Vec::new();
    for (nth, item) in (1..).zip(items.iter()) {
        match item.get_ref() {
            DeValue::Table(table) => {
                objects.push(read(Object::open(section, nth, table, item.span().into(), report)));
            }
            _ => wrong_form(section, item, report),
        }
    }
    objects
}

fn wrong_form(section: &Section, value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) {
    let each = if section.repeated { ", once for each" } else { "" };
    let message =
        format!("`{}` is {}; expected {}{each}", section.name, object::kind(value.get_ref()), keys::header(section));
    report.error(value.span().into(), "", message);
}
