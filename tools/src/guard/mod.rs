//! The guard: the policies once more, as an nf_tables table that stands outside
//! the daemon, so that clear-text which a policy protects or discards neither
//! leaves nor is accepted while the daemon starts, reloads, is stopped with
//! SIGKILL or crashes.
//!
//! [`Guard::plan`] is pure; [`Guard::install`] replaces the table in one step, so
//! there is no moment without one. The table is named `caponier`, of family
//! `inet`; `nft list table inet caponier` shows it.
//!
//! Where the packet path forwards between interfaces itself, it sees every frame
//! beside the kernel, and the guard drops what the kernel would forward of them:
//! else a packet would go on twice, once past the policies.
//!
//! Outside its reach: frames that are written to an AF_PACKET socket or bridged
//! without touching IP. AH inside IPv6 is seen through, to the protocol it carries.

mod encode;
mod plan;
mod ruleset;
mod transport;

#[cfg(test)]
mod tests;

pub use ruleset::{Base, Chain, DropName, Hook, Match, Rule, RuleSet, Side, TABLE, Verdict};

use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute,
    TableMessage,
};
use policy::config::Config;
use policy::five_tuple::Direction;
use rtnetlink::packet_core::{DefaultNla, Nla};
use std::collections::BTreeMap;
use std::io;
use transport::{BatchError, Connection, Effect};

/// What the guard must know beside the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// The TUN interface: what protected traffic may use in the clear.
    pub interface: String,
    /// Mark of our own sockets.
    pub mark: u32,
    /// UDP port of IKE.
    pub ike_port: u16,
    /// UDP port of IKE and ESP behind a NAT.
    pub natt_port: u16,
    /// Interfaces between which the packet path forwards: the kernel must not, too.
    pub gateway: Vec<String>,
}

/// Packets that one policy made the guard drop in one direction. They are
/// clear-text that came or would have gone outside the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCounter {
    /// Which policy, or which other reason.
    pub name: DropName,
    /// Which way the packets went.
    pub direction: Direction,
    /// Packets dropped since the table was installed.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
}

/// Why the guard is not in force.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The calling process may not change the packet filter.
    #[error(
        "the packet filter cannot be changed: {0}; fail-closed operation needs CAP_NET_ADMIN: \
         run as root, or give the service that capability"
    )]
    Forbidden(#[source] io::Error),
    /// The kernel has no nf_tables, or no `inet` family in it.
    #[error(
        "this kernel does not offer nf_tables ({0}), without which protected traffic would leave in the clear \
         when the daemon is not there; load the module nf_tables, or use a kernel with CONFIG_NF_TABLES_INET"
    )]
    Unsupported(#[source] io::Error),
    /// The kernel does not accept a rule.
    #[error("the kernel refused {what}: {source}; this is an error in Caponier, please report it with this line")]
    Refused {
        /// The message in words.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Talking to the kernel failed.
    #[error("talking to the packet filter failed: {0}")]
    Io(#[source] io::Error),
}

/// The installed table, in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Guard;

impl Guard {
    /// The rules for a configuration. Pure: nothing is installed.
    #[must_use]
    pub fn plan(config: &Config, options: &GuardOptions) -> RuleSet {
        plan::rules(config, options)
    }

    /// Whether this process and this kernel can have a guard at all.
    ///
    /// # Errors
    /// Says why not and what to do.
    pub fn is_supported() -> Result<(), GuardError> {
        let sample = RuleSet {
            chains: vec![Chain {
                name: plan::INBOUND,
                base: Some(Base { hook: Hook::Prerouting, priority: 0 }),
                rules: vec![Rule {
                    matches: vec![Match::LaterFragment { ipv4: false }],
                    counter: Some(DropName::Default),
                    verdict: Verdict::Drop,
                }],
            }],
        };
        match Self::check(&sample) {
            Err(GuardError::Refused { source, .. }) => Err(GuardError::Unsupported(source)),
            other => other,
        }
    }

    /// Has the kernel check rules without installing them.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn check(rules: &RuleSet) -> Result<(), GuardError> {
        send(rules, Effect::CheckOnly)
    }

    /// Puts `rules` in force in place of those that were, in one step. The
    /// counters start at 0.
    ///
    /// # Errors
    /// When the kernel refuses; then the former rules stay in force.
    pub fn install(rules: &RuleSet) -> Result<(), GuardError> {
        send(rules, Effect::Commit)
    }

    /// Takes the table away. Not an error if there is none.
    ///
    /// # Errors
    /// When the kernel refuses; then it is still in force.
    pub fn remove() -> Result<(), GuardError> {
        let describe = |_| "to remove the table".to_owned();
        batch(encode::remove_table(), Effect::Commit, describe)
    }

    /// Whether a table of ours is there: an administrator's `nft flush ruleset` takes it away.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn is_installed() -> Result<bool, GuardError> {
        let all = TableMessage { attributes: Vec::new() };
        let tables = open()?.dump(NfTablesMessage::GetTable(all)).map_err(kernel_error)?;
        Ok(tables.iter().any(|t| match t {
            NfTablesMessage::NewTable(t) => t.attributes.contains(&TableAttribute::Name(TABLE.to_owned())),
            _ => false,
        }))
    }

    /// What was dropped, by name and direction; rules of one policy are summed.
    ///
    /// # Errors
    /// When the kernel cannot be asked. No table is no counters.
    pub fn counters() -> Result<Vec<NamedCounter>, GuardError> {
        let ours = RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.to_owned())] };
        let rules = open()?.dump(NfTablesMessage::GetRule(ours)).map_err(kernel_error)?;
        let mut sums = BTreeMap::new();
        for rule in rules {
            let NfTablesMessage::NewRule(rule) = rule else { continue };
            let Some((name, direction, packets, bytes)) = counter_of(&rule) else { continue };
            let sum: &mut (u64, u64) = sums.entry((name, direction)).or_default();
            sum.0 = sum.0.saturating_add(packets);
            sum.1 = sum.1.saturating_add(bytes);
        }
        Ok(sums
            .into_iter()
            .map(|((name, direction), (packets, bytes))| NamedCounter { name, direction, packets, bytes })
            .collect())
    }
}

fn send(rules: &RuleSet, effect: Effect) -> Result<(), GuardError> {
    let mut messages = encode::replace_table();
    let before = messages.len();
    messages.extend(encode::contents(rules));
    batch(messages, effect, |index| describe(rules, index.checked_sub(before)))
}

fn batch(
    messages: Vec<NfTablesMessage>,
    effect: Effect,
    describe: impl FnOnce(usize) -> String,
) -> Result<(), GuardError> {
    open()?.batch(messages, effect).map_err(|e| match e {
        BatchError::Io(e) => kernel_error(e),
        BatchError::Refused(_, e) if e.kind() == io::ErrorKind::PermissionDenied => GuardError::Forbidden(e),
        BatchError::Refused(Some(index), source) => GuardError::Refused { what: describe(index), source },
        BatchError::Refused(None, source) => GuardError::Refused { what: "the batch as a whole".to_owned(), source },
    })
}

fn open() -> Result<Connection, GuardError> {
    Connection::open().map_err(|e| match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::PROTONOSUPPORT | rustix::io::Errno::AFNOSUPPORT) => GuardError::Unsupported(e),
        _ => GuardError::Io(e),
    })
}

fn kernel_error(e: io::Error) -> GuardError {
    if e.kind() == io::ErrorKind::PermissionDenied { GuardError::Forbidden(e) } else { GuardError::Io(e) }
}

/// The message of a batch that a rule set became, in words: see [`encode::contents`].
fn describe(rules: &RuleSet, index: Option<usize>) -> String {
    let Some(index) = index else { return format!("the table {TABLE}") };
    if let Some(chain) = rules.chains.get(index) {
        return format!("the chain {}", chain.name);
    }
    let mut all = rules.chains.iter().flat_map(|c| c.rules.iter().map(|r| (c.name, r)));
    match all.nth(index - rules.chains.len()) {
        Some((chain, rule)) => format!("a rule in the chain {chain}: {rule}"),
        None => "a message beyond the rules".to_owned(),
    }
}

fn counter_of(rule: &RuleMessage) -> Option<(DropName, Direction, u64, u64)> {
    let (mut name, mut direction, mut counts) = (None, Direction::Inbound, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Chain(chain) if [plan::OUTBOUND, plan::READABLE_OUT].contains(&chain.as_str()) => {
                direction = Direction::Outbound;
            }
            RuleAttribute::UserData(data) => name = encode::comment_of(data).and_then(DropName::parse),
            RuleAttribute::Expressions(list) => counts = counts_of(list),
            _ => {}
        }
    }
    let (packets, bytes) = counts?;
    Some((name?, direction, packets, bytes))
}

fn counts_of(list: &[ListAttribute<ExpressionAttribute>]) -> Option<(u64, u64)> {
    const NFTA_COUNTER_BYTES: u16 = 1;
    const NFTA_COUNTER_PACKETS: u16 = 2;
    let parts = list.iter().filter_map(|e| if let ListAttribute::Element(parts) = e { Some(parts) } else { None });
    parts.flatten().find_map(|part| match part {
        ExpressionAttribute::Data(Expressions::Other { expression_type, attributes })
            if expression_type == "counter" =>
        {
            Some((number(attributes, NFTA_COUNTER_PACKETS)?, number(attributes, NFTA_COUNTER_BYTES)?))
        }
        _ => None,
    })
}

fn number(attributes: &[DefaultNla], kind: u16) -> Option<u64> {
    let attribute = attributes.iter().find(|a| a.kind() == kind)?;
    let mut octets = [0; 8];
    (attribute.value_len() == octets.len()).then(|| attribute.emit_value(&mut octets))?;
    Some(u64::from_be_bytes(octets))
}
