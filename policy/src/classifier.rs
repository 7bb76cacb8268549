//! First match over ordered rules.

use crate::five_tuple::{Direction, FiveTuple, Ports};
use crate::selector::{PortSelector, Selector};

/// Rules compiled into an immutable snapshot; the first that matches decides.
///
/// One rule is one selector; a policy with several has several rules. The
/// search is linear: right by construction, and what a faster one is compared
/// with.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rules: Box<[Rule]>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it covers.
    pub selector: Selector,
    /// The policy it belongs to, by its place in the list that was compiled.
    pub policy: u32,
}

/// What a rule says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// It covers it.
    Covers,
    /// It covers its addresses and protocol, and looks at ports (or ICMP type
    /// and code) that cannot be seen: it could cover it.
    PortsHidden,
    /// It does not cover it.
    Differs,
}

impl Rule {
    /// What it says of a packet.
    #[must_use]
    pub fn coverage(&self, tuple: &FiveTuple, direction: Direction) -> Coverage {
        coverage(&self.selector, tuple, direction)
    }
}

/// What a selector says of a packet.
///
/// Ports are hidden in a fragment that is not the first. A packet without any
/// ports ([`Ports::None`]) whose protocol a selector wants ports of is treated
/// alike: nothing in it proves that the selector does not cover it.
#[must_use]
pub fn coverage(selector: &Selector, tuple: &FiveTuple, direction: Direction) -> Coverage {
    if selector.matches(tuple, direction) {
        return Coverage::Covers;
    }
    let hidden = matches!(tuple.ports, Ports::Opaque | Ports::None)
        && selector.ports != PortSelector::Any
        && selector.local.contains(tuple.local(direction))
        && selector.remote.contains(tuple.remote(direction))
        && selector.protocol.is_none_or(|p| p == tuple.protocol);
    if hidden { Coverage::PortsHidden } else { Coverage::Differs }
}

impl Classifier {
    /// Compiles the selectors of each policy, in search order.
    pub fn compile<'a, P, S>(policies: P) -> Self
    where
        P: IntoIterator<Item = S>,
        S: IntoIterator<Item = &'a Selector>,
    {
        let rules = (0u32..).zip(policies).flat_map(|(policy, selectors)| {
            selectors.into_iter().map(move |selector| Rule { selector: selector.clone(), policy })
        });
        Self { rules: rules.collect() }
    }

    /// The policy of the first rule that covers a packet whose ports can be seen.
    ///
    /// Where they are hidden ([`Coverage::PortsHidden`]) the first match is not
    /// the whole answer; walk [`Self::rules`].
    #[must_use]
    pub fn first_match(&self, tuple: &FiveTuple, direction: Direction) -> Option<u32> {
        self.rules.iter().find(|r| r.selector.matches(tuple, direction)).map(|r| r.policy)
    }

    /// The rules in search order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::AddressRange;

    fn selector(protocol: Option<u8>, ports: PortSelector) -> Selector {
        Selector { protocol, ports, ..Selector::between(AddressRange::ANY_V4, AddressRange::ANY_V4) }
    }

    fn tcp(ports: Ports) -> FiveTuple {
        FiveTuple { source: "10.1.1.1".parse().unwrap(), destination: "10.2.2.2".parse().unwrap(), protocol: 6, ports }
    }

    const HTTP: PortSelector = PortSelector::Ports { local: (0, u16::MAX), remote: (80, 80) };

    #[test]
    fn the_first_match_decides_whatever_follows() {
        let (http, any) = (selector(Some(6), HTTP), selector(None, PortSelector::Any));
        let compiled = Classifier::compile([vec![&http], vec![&any], vec![&http]]);
        let to = |destination| tcp(Ports::Pair { source: 1024, destination });
        assert_eq!(compiled.first_match(&to(80), Direction::Outbound), Some(0));
        assert_eq!(compiled.first_match(&to(81), Direction::Outbound), Some(1));
        // Inbound, the remote port is the source.
        assert_eq!(compiled.first_match(&to(80), Direction::Inbound), Some(1));
        assert_eq!(Classifier::default().first_match(&to(80), Direction::Outbound), None);
    }

    #[test]
    fn every_selector_of_a_policy_leads_to_it() {
        let (http, icmp) = (selector(Some(6), HTTP), selector(Some(1), PortSelector::Any));
        let compiled = Classifier::compile([vec![], vec![&icmp, &http]]);
        let packet = tcp(Ports::Pair { source: 1, destination: 80 });
        assert_eq!(compiled.first_match(&packet, Direction::Outbound), Some(1));
    }

    #[test]
    fn hidden_ports_could_match_only_where_all_else_does() {
        let could = |s: Selector, p| Rule { selector: s, policy: 0 }.coverage(&tcp(p), Direction::Outbound);
        assert_eq!(could(selector(Some(6), HTTP), Ports::Opaque), Coverage::PortsHidden);
        assert_eq!(could(selector(Some(6), HTTP), Ports::None), Coverage::PortsHidden);
        assert_eq!(could(selector(Some(17), HTTP), Ports::Opaque), Coverage::Differs);
        assert_eq!(could(selector(Some(6), PortSelector::Any), Ports::Opaque), Coverage::Covers);
        assert_eq!(could(selector(Some(6), HTTP), Ports::Pair { source: 1, destination: 81 }), Coverage::Differs);
        let elsewhere = Selector { local: AddressRange::ANY_V6, ..selector(Some(6), HTTP) };
        assert_eq!(could(elsewhere, Ports::Opaque), Coverage::Differs);
    }
}
