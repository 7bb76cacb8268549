//! Rules as netlink messages of nf_tables.
//!
//! An expression loads something into register 1, or compares what is there; an
//! expression that cannot load ends the rule without a match.

use super::ruleset::{Base, Chain, Hook, Match, Rule, RuleSet, Side, TABLE, Verdict};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook as HookAttribute,
    HookNumber, Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict as VerdictCode, VerdictAttribute,
};
use rtnetlink::packet_core::DefaultNla;
use std::net::IpAddr;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// A destination of this host (rtnetlink.h).
const RTN_LOCAL: u8 = 2;
/// Bases of payload offsets (enum nft_payload_bases).
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Interface names are compared with their terminating zero, as fixed strings of this length.
const IFNAMSIZ: usize = 16;
/// Type of a comment in a rule's user data, as `nft` reads it.
const UDATA_COMMENT: u8 = 0;

/// An empty table in place of whatever is there: made first, lest deleting it fails.
pub(super) fn replace_table() -> Vec<NfTablesMessage> {
    vec![NfTablesMessage::NewTable(table()), NfTablesMessage::DeleteTable(table()), NfTablesMessage::NewTable(table())]
}

/// What removes the table, whether or not it is there.
pub(super) fn remove_table() -> Vec<NfTablesMessage> {
    vec![NfTablesMessage::NewTable(table()), NfTablesMessage::DeleteTable(table())]
}

/// Everything in the table: all chains, then all rules.
pub(super) fn contents(rules: &RuleSet) -> Vec<NfTablesMessage> {
    let chains = rules.chains.iter().map(|c| NfTablesMessage::NewChain(chain(c)));
    let rules = rules.chains.iter().flat_map(|c| c.rules.iter().map(|r| NfTablesMessage::NewRule(rule(c.name, r))));
    chains.chain(rules).collect()
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] }
}

fn chain(chain: &Chain) -> ChainMessage {
    let mut attributes = vec![ChainAttribute::Table(TABLE.to_owned()), ChainAttribute::Name(chain.name.to_owned())];
    if let Some(Base { hook, priority }) = chain.base {
        let number = match hook {
            Hook::Prerouting => InetHookNumber::PreRouting,
            Hook::Postrouting => InetHookNumber::PostRouting,
        };
        attributes.extend([
            ChainAttribute::Hook(vec![
                HookAttribute::Number(HookNumber::Inet(number)),
                HookAttribute::Priority(priority.cast_unsigned()),
            ]),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type("filter".to_owned()),
        ]);
    }
    ChainMessage { attributes }
}

fn rule(chain: &str, rule: &Rule) -> RuleMessage {
    let mut expressions = Vec::new();
    let mut family = None;
    for m in &rule.matches {
        condition(m, &mut family, &mut expressions);
    }
    if rule.counter.is_some() {
        expressions.push(Expressions::Other { expression_type: "counter".to_owned(), attributes: Vec::new() });
    }
    expressions.push(verdict(rule.verdict));
    let mut attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::<ExpressionAttribute>::from).collect()),
    ];
    if let Some(name) = &rule.counter {
        attributes.push(RuleAttribute::UserData(comment(&name.to_string())));
    }
    RuleMessage { attributes }
}

fn condition(m: &Match, family: &mut Option<bool>, out: &mut Vec<Expressions>) {
    match m {
        Match::Ipv4(v4) => require_family(*v4, family, out),
        Match::InInterface(name) => out.extend([meta(MetaKey::Iifname), equal(interface(name))]),
        Match::OutInterface(name) => out.extend([meta(MetaKey::Oifname), equal(interface(name))]),
        Match::Mark(mark) => out.extend([meta(MetaKey::Mark), equal(mark.to_ne_bytes().to_vec())]),
        Match::Protocol(p) => out.extend([meta(MetaKey::L4Proto), equal(vec![*p])]),
        Match::NotProtocol(p) => out.extend([meta(MetaKey::L4Proto), compare(Operator::NotEqual, vec![*p])]),
        Match::Address(side, range) => {
            let (first, last) = (range.first(), range.last());
            require_family(range.is_ipv4(), family, out);
            out.push(load(NETWORK_HEADER, side.address_offset(first), octets(first).len()));
            match range.prefix_len() {
                Some(len) if first != last => {
                    let mask = prefix_mask(len, octets(first).len());
                    out.extend([masked(mask), equal(octets(first))]);
                }
                _ => out.extend(within(octets(first), octets(last))),
            }
        }
        Match::Port(side, (low, high)) => {
            let offset = if *side == Side::Source { 0 } else { 2 };
            out.push(load(TRANSPORT_HEADER, offset, 2));
            out.extend(within(low.to_be_bytes().to_vec(), high.to_be_bytes().to_vec()));
        }
        Match::IcmpType((low, high)) => {
            out.push(load(TRANSPORT_HEADER, 0, 1));
            out.extend(within(vec![*low], vec![*high]));
        }
        Match::IcmpCode((low, high)) => {
            out.push(load(TRANSPORT_HEADER, 1, 1));
            out.extend(within(vec![*low], vec![*high]));
        }
        Match::HopLimit(n) => {
            require_family(false, family, out);
            out.extend([load(NETWORK_HEADER, 7, 1), equal(vec![*n])]);
        }
        Match::LaterFragment { ipv4: true } => {
            require_family(true, family, out);
            out.extend([load(NETWORK_HEADER, 6, 2), masked(vec![0x1f, 0xff]), compare(Operator::NotEqual, vec![0, 0])]);
        }
        Match::LaterFragment { ipv4: false } => {
            require_family(false, family, out);
            out.extend([fragment_header(2, 2), masked(vec![0xff, 0xf8]), compare(Operator::NotEqual, vec![0, 0])]);
        }
        Match::FragmentOf(next) => {
            require_family(false, family, out);
            out.extend([fragment_header(0, 1), equal(vec![*next])]);
        }
        // The comparison always holds: what counts is that there was something to load.
        Match::UpperHeader => {
            out.extend([load(TRANSPORT_HEADER, 0, 4), compare(Operator::GreatherThanEqual, vec![0; 4])]);
        }
        Match::LocalDestination => {
            out.extend([destination_type(), equal(u32::from(RTN_LOCAL).to_ne_bytes().to_vec())]);
        }
    }
}

/// Offsets in the IP header mean something for one family only.
fn require_family(ipv4: bool, known: &mut Option<bool>, out: &mut Vec<Expressions>) {
    if known.replace(ipv4) != Some(ipv4) {
        let family = if ipv4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        out.extend([meta(MetaKey::Nfproto), equal(vec![family])]);
    }
}

fn verdict(verdict: Verdict) -> Expressions {
    let mut attributes = vec![VerdictAttribute::Code(match verdict {
        Verdict::Accept => VerdictCode::Other(NF_ACCEPT),
        Verdict::Drop => VerdictCode::Other(NF_DROP),
        Verdict::Jump(_) => VerdictCode::Jump,
        Verdict::Return => VerdictCode::Return,
    })];
    if let Verdict::Jump(chain) = verdict {
        attributes.push(VerdictAttribute::Chain(chain.to_owned()));
    }
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn load(base: u32, offset: u32, len: usize) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len as u32),
    ])
}

/// Loads from the IPv6 fragment header (RFC 8200 4.5), wherever it is in the chain.
fn fragment_header(offset: u32, len: u32) -> Expressions {
    const FRAGMENT: u8 = 44;
    let [dreg, kind, at, length] = [1, 2, 3, 4];
    Expressions::Other {
        expression_type: "exthdr".to_owned(),
        attributes: vec![
            DefaultNla::new(dreg, u32::from(Register::Reg1).to_be_bytes().to_vec()),
            DefaultNla::new(kind, vec![FRAGMENT]),
            DefaultNla::new(at, offset.to_be_bytes().to_vec()),
            DefaultNla::new(length, len.to_be_bytes().to_vec()),
        ],
    }
}

/// Loads what kind of address the destination is, by the routing tables.
fn destination_type() -> Expressions {
    const RESULT_ADDRTYPE: u32 = 3;
    const BY_DESTINATION: u32 = 1 << 1;
    let [dreg, result, flags] = [1, 2, 3];
    let attribute = |kind: u16, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: "fib".to_owned(),
        attributes: vec![
            attribute(dreg, Register::Reg1.into()),
            attribute(result, RESULT_ADDRTYPE),
            attribute(flags, BY_DESTINATION),
        ],
    }
}

fn masked(mask: Vec<u8>) -> Expressions {
    let len = mask.len();
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(len as u32),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(vec![0; len])),
    ])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn equal(value: Vec<u8>) -> Expressions {
    compare(Operator::Equal, value)
}

/// Big-endian octets compare like the numbers they are.
fn within(low: Vec<u8>, high: Vec<u8>) -> Vec<Expressions> {
    if low == high {
        return vec![equal(low)];
    }
    vec![compare(Operator::GreatherThanEqual, low), compare(Operator::LessThanEqual, high)]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn prefix_mask(len: u8, octets: usize) -> Vec<u8> {
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    mask.to_be_bytes().into_iter().take(octets).collect()
}

fn interface(name: &str) -> Vec<u8> {
    let mut out: Vec<u8> = name.bytes().take(IFNAMSIZ - 1).collect();
    out.resize(IFNAMSIZ, 0);
    out
}

/// A comment where `nft list ruleset` looks for it; at most 127 octets.
fn comment(text: &str) -> Vec<u8> {
    let text = text.as_bytes().get(..127).unwrap_or(text.as_bytes());
    let mut out = vec![UDATA_COMMENT, text.len() as u8 + 1];
    out.extend_from_slice(text);
    out.push(0);
    out
}

/// The reverse of [`comment`].
pub(super) fn comment_of(user_data: &[u8]) -> Option<&str> {
    let mut rest = user_data;
    while let [kind, len, tail @ ..] = rest {
        let (value, next) = tail.split_at_checked(usize::from(*len))?;
        if *kind == UDATA_COMMENT {
            return str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        rest = next;
    }
    None
}
