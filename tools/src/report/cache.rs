//! The SPD cache: `-cache`.

use super::Direction;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

/// The SPD cache as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheTable {
    /// Entries, those of policies that were replaced included until they are cleared away.
    pub entries: u64,
    /// An alert at this many entries, and at each further thousand.
    pub soft_limit: u64,
    /// Never more entries than this.
    pub hard_limit: u64,
    /// Octets of memory that its tables take.
    pub octets: u64,
    /// Octets they take at the hard limit, if all entries are of IPv4.
    pub octets_at_hard_limit_ipv4: u64,
    /// Octets they take at the hard limit, if all entries are of IPv6.
    pub octets_at_hard_limit_ipv6: u64,
    /// Which pages the system is set to give to large tables.
    pub pages: PageKind,
    /// Octets that are in pages of 2 MB; absent if the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets_in_huge_pages: Option<u64>,
}

/// Which pages tables of 2 MB and more are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageKind {
    /// Of 2 MB, as far as there are any.
    Huge,
    /// Of 4 kB.
    Ordinary,
}

impl core::fmt::Display for PageKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Huge => "2 MB",
            Self::Ordinary => "ordinary",
        })
    }
}

/// What was decided for a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheAction {
    /// Protected by IPsec.
    Secure,
    /// In the clear.
    Pass,
    /// Dropped.
    Discard,
}

/// Whether an SA that a cache entry needs is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSaState {
    /// It is.
    Created,
    /// It is being negotiated.
    Requested,
}

/// An SA that outbound packets of a cache entry go through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSa {
    /// Whether it is there.
    pub state: CacheSaState,
    /// `ESP` or `AH`.
    pub sa_type: String,
    /// Whether it is in tunnel mode.
    pub tunnel: bool,
    /// SPI, once created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spi: Option<u32>,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address.
    pub dst: IpAddr,
}

/// A cached decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Counts the records of this report, from 1.
    pub record: u64,
    /// The host policy that decided: the same number in `-host`; 0 for the bypass list.
    pub cookie: u32,
    /// That policy's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Source address of the packets.
    pub src: IpAddr,
    /// Source port; absent if the protocol has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination address of the packets.
    pub dst: IpAddr,
    /// Destination port; absent if the protocol has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// ICMP type, for ICMP and ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code, for ICMP and ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// The entry is for fragments without ports.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub fragment: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// Which way the packets go.
    pub direction: Direction,
    /// The interface of the packet path that they enter or leave by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What was decided.
    pub action: CacheAction,
    /// Why, where the decision is to drop and the reason is not the policy itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name of the tunnel policy, for `Secure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// SAs, for `Secure` and outbound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sas: Vec<CacheSa>,
    /// Packets that hit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Seconds since the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
}

/// Which cache entries a report shows: those that pass every test given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheFilter {
    /// With this address at either end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Made by the host policy of this name or cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Only so many, those with the most packets first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<u32>,
}

impl CacheFilter {
    /// Whether `record` passes the tests on a single record (all but `top`).
    #[must_use]
    pub fn accepts(&self, record: &CacheRecord) -> bool {
        self.address.is_none_or(|a| record.src == a || record.dst == a)
            && self
                .policy
                .as_deref()
                .is_none_or(|wanted| record.policy.as_deref() == Some(wanted) || wanted.parse() == Ok(record.cookie))
    }
}

/// Applies a [`CacheFilter`] to a walk of the cache, in memory for at most `top` records, and
/// numbers what is left.
#[derive(Debug)]
pub struct CacheSelection {
    filter: CacheFilter,
    numbered: u64,
    top: BinaryHeap<Reverse<Ranked>>,
}

/// Records that [`CacheFilter::top`] may ask for: they are kept until the end of the walk.
pub const MOST_TOP: u32 = 10_000;

/// Ordered by packets, then by age in the walk: the earlier wins.
#[derive(Debug)]
struct Ranked {
    packets: u64,
    seen: Reverse<u64>,
    record: CacheRecord,
}

impl CacheSelection {
    /// A selection that has seen nothing.
    #[must_use]
    pub fn new(filter: CacheFilter) -> Self {
        Self { filter, numbered: 0, top: BinaryHeap::new() }
    }

    /// Whether a record with so many packets could be shown: if not, it need not be offered.
    #[must_use]
    pub fn could_show(&self, packets: u64) -> bool {
        let full = self.filter.top.is_some_and(|top| self.top.len() >= top as usize);
        // Of equals the earlier is shown.
        !full || self.top.peek().is_some_and(|Reverse(least)| packets > least.packets)
    }

    /// Takes a record, whose number is ignored; returns what can be shown already.
    pub fn offer(&mut self, mut record: CacheRecord) -> Option<CacheRecord> {
        if !self.filter.accepts(&record) {
            return None;
        }
        self.numbered += 1;
        let Some(top) = self.filter.top else {
            record.record = self.numbered;
            return Some(record);
        };
        let packets = record.packets.unwrap_or(0);
        self.top.push(Reverse(Ranked { packets, seen: Reverse(self.numbered), record }));
        if self.top.len() > top as usize {
            self.top.pop();
        }
        None
    }

    /// What had to be held until the end of the walk: the busiest first.
    #[must_use]
    pub fn finish(self) -> Vec<CacheRecord> {
        let mut busiest = self.top.into_sorted_vec();
        busiest
            .drain(..)
            .zip(1..)
            .map(|(Reverse(ranked), number)| CacheRecord { record: number, ..ranked.record })
            .collect()
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.packets, self.seen).cmp(&(other.packets, other.seen))
    }
}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(last_octet: u8, cookie: u32, packets: u64) -> CacheRecord {
        CacheRecord {
            record: 0,
            cookie,
            policy: Some(format!("policy{cookie}")),
            src: IpAddr::from([10, 0, 0, last_octet]),
            src_port: Some(1024),
            dst: IpAddr::from([10, 0, 1, 1]),
            dst_port: Some(80),
            icmp_type: None,
            icmp_code: None,
            fragment: false,
            protocol: 6,
            direction: Direction::Outbound,
            interface: None,
            action: CacheAction::Pass,
            reason: None,
            tunnel: None,
            sas: Vec::new(),
            packets: Some(packets),
            idle_seconds: None,
        }
    }

    fn select(filter: CacheFilter, records: Vec<CacheRecord>) -> Vec<(u64, IpAddr)> {
        let mut selection = CacheSelection::new(filter);
        let mut out = Vec::new();
        for r in records {
            if selection.could_show(r.packets.unwrap_or(0)) {
                out.extend(selection.offer(r));
            }
        }
        out.extend(selection.finish());
        out.into_iter().map(|r| (r.record, r.src)).collect()
    }

    fn src(last_octet: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last_octet])
    }

    #[test]
    fn without_a_filter_everything_is_numbered_as_it_comes() {
        let records = vec![record(1, 2, 5), record(2, 3, 9)];
        assert_eq!(select(CacheFilter::default(), records), [(1, src(1)), (2, src(2))]);
    }

    #[test]
    fn by_address_at_either_end() {
        let records = vec![record(1, 2, 5), record(2, 3, 9)];
        let either = CacheFilter { address: Some(IpAddr::from([10, 0, 1, 1])), ..Default::default() };
        assert_eq!(select(either, records.clone()).len(), 2);
        let one = CacheFilter { address: Some(src(2)), ..Default::default() };
        assert_eq!(select(one, records), [(1, src(2))]);
    }

    #[test]
    fn by_policy_name_or_cookie() {
        let records = vec![record(1, 2, 5), record(2, 3, 9)];
        for wanted in ["policy3", "3"] {
            let filter = CacheFilter { policy: Some(wanted.into()), ..Default::default() };
            assert_eq!(select(filter, records.clone()), [(1, src(2))], "{wanted}");
        }
        let nobody = CacheFilter { policy: Some("policy".into()), ..Default::default() };
        assert_eq!(select(nobody, records), []);
    }

    #[test]
    fn top_keeps_the_busiest_in_order_and_the_earlier_of_equals() {
        let records = (1..=9).map(|i| record(i, 2, u64::from(i % 4))).collect();
        let filter = CacheFilter { top: Some(3), ..Default::default() };
        assert_eq!(select(filter, records), [(1, src(3)), (2, src(7)), (3, src(2))]);
        let none = CacheFilter { top: Some(0), ..Default::default() };
        assert_eq!(select(none, vec![record(1, 2, 5)]), []);
    }
}
