//! Rules as values: made by [`super::plan`], sent by [`super::encode`], printed
//! in the syntax of `nft`, which can load the text as it is.

use policy::selector::AddressRange;
use std::fmt;
use std::net::IpAddr;

/// The table all of it lives in, of family `inet`.
pub const TABLE: &str = "caponier";

/// A whole table. Chains that are jumped to come before those that jump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// The chains.
    pub chains: Vec<Chain>,
}

/// A list of rules; the first that matches and has a final verdict decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Unique in the table.
    pub name: &'static str,
    /// Where the kernel calls it; `None`: only other chains do. Falling off the end of a base chain accepts.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// On the way in or out.
    pub hook: Hook,
    /// Lower is earlier; destination NAT is at -100, source NAT at 100.
    pub priority: i32,
}

/// A place in the kernel's path of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Everything that arrives, before it is routed.
    Prerouting,
    /// Everything that leaves, after it was routed; also what is forwarded.
    Postrouting,
}

/// One rule: all of `matches` must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, in the order in which they are looked at.
    pub matches: Vec<Match>,
    /// Counted, under this name.
    pub counter: Option<DropName>,
    /// What then happens.
    pub verdict: Verdict,
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Accept,
    /// Is gone.
    Drop,
    /// Is looked at by another chain, and comes back if that does not decide.
    Jump(&'static str),
    /// Back to the chain that jumped here.
    Return,
}

/// Why the guard drops: the name of a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropName {
    /// Clear-text that the named host policy sends through a tunnel.
    Protect(String),
    /// What the named host policy discards.
    Discard(String),
    /// What no policy covers, when the default policy discards.
    Default,
    /// Headers that end too early to tell which policy covers the packet.
    Malformed,
}

/// One condition. A header that is not there, or not in this packet of a
/// fragmented datagram, matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// IPv4 (true) or IPv6.
    Ipv4(bool),
    /// The interface it came in by; nothing for what this host sends.
    InInterface(String),
    /// The interface it leaves by.
    OutInterface(String),
    /// The socket mark.
    Mark(u32),
    /// The upper protocol, after IPv6 extension headers.
    Protocol(u8),
    /// Any upper protocol but this.
    NotProtocol(u8),
    /// An address; implies its family.
    Address(Side, AddressRange),
    /// A port, inclusive.
    Port(Side, (u16, u16)),
    /// ICMP or ICMPv6 type, inclusive.
    IcmpType((u8, u8)),
    /// ICMP or ICMPv6 code, inclusive.
    IcmpCode((u8, u8)),
    /// IPv6 hop limit.
    HopLimit(u8),
    /// A fragment that is not the first, of IPv4 (true) or IPv6.
    LaterFragment {
        /// Family.
        ipv4: bool,
    },
    /// A fragment of IPv6 whose fragment header names this next. Of AH, which counts as an extension header, a
    /// later one has no [`Match::Protocol`].
    FragmentOf(u8),
    /// The first four octets of the upper header are there: ports, or ICMP type and code.
    UpperHeader,
    /// The receiver is an address of this host; on the way in only.
    LocalDestination,
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sender.
    Source,
    /// Receiver.
    Destination,
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(base) = chain.base {
                let hook = match base.hook {
                    Hook::Prerouting => "prerouting",
                    Hook::Postrouting => "postrouting",
                };
                writeln!(f, "\t\ttype filter hook {hook} priority {}; policy accept;", base.priority)?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for m in &self.matches {
            write!(f, "{m} ")?;
        }
        if self.counter.is_some() {
            f.write_str("counter ")?;
        }
        match self.verdict {
            Verdict::Accept => f.write_str("accept")?,
            Verdict::Drop => f.write_str("drop")?,
            Verdict::Jump(chain) => write!(f, "jump {chain}")?,
            Verdict::Return => f.write_str("return")?,
        }
        match &self.counter {
            Some(name) => write!(f, " comment \"{name}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn span<T: fmt::Display + PartialEq>(f: &mut fmt::Formatter<'_>, what: &str, r: (T, T)) -> fmt::Result {
            if r.0 == r.1 { write!(f, "{what} {}", r.0) } else { write!(f, "{what} {}-{}", r.0, r.1) }
        }
        match self {
            Self::Ipv4(true) => f.write_str("meta nfproto ipv4"),
            Self::Ipv4(false) => f.write_str("meta nfproto ipv6"),
            Self::InInterface(name) => write!(f, "iifname \"{name}\""),
            Self::OutInterface(name) => write!(f, "oifname \"{name}\""),
            Self::Mark(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::Protocol(p) => write!(f, "meta l4proto {p}"),
            Self::NotProtocol(p) => write!(f, "meta l4proto != {p}"),
            Self::Address(side, range) => {
                let family = if range.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "{family} {} {range}", if *side == Side::Source { "saddr" } else { "daddr" })
            }
            Self::Port(Side::Source, range) => span(f, "th sport", *range),
            Self::Port(Side::Destination, range) => span(f, "th dport", *range),
            Self::IcmpType(range) => span(f, "@th,0,8", *range),
            Self::IcmpCode(range) => span(f, "@th,8,8", *range),
            Self::HopLimit(n) => write!(f, "ip6 hoplimit {n}"),
            Self::LaterFragment { ipv4: true } => f.write_str("ip frag-off & 0x1fff != 0"),
            Self::LaterFragment { ipv4: false } => f.write_str("frag frag-off != 0"),
            Self::FragmentOf(next) => write!(f, "frag nexthdr {next}"),
            Self::UpperHeader => f.write_str("@th,0,32 >= 0"),
            Self::LocalDestination => f.write_str("fib daddr type local"),
        }
    }
}

impl DropName {
    /// The policy it is about, if it is about one.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::Protect(name) | Self::Discard(name) => Some(name),
            Self::Default | Self::Malformed => None,
        }
    }

    /// The reverse of `Display`: how the counters of an installed table get their names back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once(' ') {
            Some(("protect", name)) => Self::Protect(name.to_owned()),
            Some(("discard", name)) => Self::Discard(name.to_owned()),
            None if text == "default" => Self::Default,
            None if text == "malformed" => Self::Malformed,
            _ => return None,
        })
    }
}

/// `protect web`, `discard old`, `default`, `malformed`.
impl fmt::Display for DropName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protect(name) => write!(f, "protect {name}"),
            Self::Discard(name) => write!(f, "discard {name}"),
            Self::Default => f.write_str("default"),
            Self::Malformed => f.write_str("malformed"),
        }
    }
}

impl Side {
    /// Offset of the address in the IP header, in octets.
    pub(super) fn address_offset(self, address: IpAddr) -> u32 {
        match (self, address) {
            (Self::Source, IpAddr::V4(_)) => 12,
            (Self::Destination, IpAddr::V4(_)) => 16,
            (Self::Source, IpAddr::V6(_)) => 8,
            (Self::Destination, IpAddr::V6(_)) => 24,
        }
    }
}
