//! First match over ordered rules.
//!
//! | step | where |
//! |---|---|
//! | rules and packets as numbers, for each family | `row` |
//! | which bits are looked at | `build` |
//! | the search | `tree` |

mod build;
mod row;
mod tree;

pub(crate) use row::words;

use crate::five_tuple::{Direction, FiveTuple, Ports};
use crate::selector::{PortSelector, Selector};
use build::{Entry, build};
use row::{Family, V4, V6};
use tree::{Place, Tree};

/// Rules compiled into an immutable snapshot; the first that matches decides.
///
/// One rule is one selector; a policy with several has several rules.
#[derive(Debug)]
pub struct Classifier {
    rules: Box<[Rule]>,
    trees: Trees,
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
        let rules: Box<[Rule]> = rules.collect();
        let trees = Trees::compile(|| rules.iter().map(|r| (r.policy, &r.selector)));
        Self { rules, trees }
    }

    /// The policy of the first rule that covers a packet.
    ///
    /// Where ports are hidden ([`Coverage::PortsHidden`]) that is not the whole
    /// answer: see [`HiddenPorts`].
    #[must_use]
    pub fn first_match(&self, tuple: &FiveTuple, direction: Direction) -> Option<u32> {
        let verify = |place| self.rules[place as usize].selector.matches(tuple, direction);
        match self.trees.first_match(tuple, direction, verify) {
            Ok(policy) => policy,
            Err(TwoFamilies) => self.first_match_linear(tuple, direction),
        }
    }

    /// The same by trying one rule after the other: right by construction, and
    /// what [`Self::first_match`] is compared with.
    #[must_use]
    pub fn first_match_linear(&self, tuple: &FiveTuple, direction: Direction) -> Option<u32> {
        self.rules.iter().find(|r| r.selector.matches(tuple, direction)).map(|r| r.policy)
    }

    /// The rules in search order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Octets it takes on the heap.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of_val(&*self.rules) + self.trees.v4.size() + self.trees.v6.size()
    }
}

/// Which policies could cover a packet that does not show its ports, because
/// they look at ports and all else fits.
#[derive(Debug)]
pub struct HiddenPorts {
    trees: Trees,
}

impl HiddenPorts {
    /// Compiles the selectors of policies, given with their numbers, in search order.
    pub fn compile<'a, S>(policies: impl IntoIterator<Item = (u32, S)>) -> Self
    where
        S: IntoIterator<Item = &'a Selector>,
    {
        let with_ports = policies.into_iter().flat_map(|(policy, selectors)| {
            let with_ports = selectors.into_iter().filter(|s| s.ports != PortSelector::Any);
            with_ports.map(move |s| (policy, Selector { ports: PortSelector::Any, ..s.clone() }))
        });
        let with_ports: Vec<(u32, Selector)> = with_ports.collect();
        Self { trees: Trees::compile(|| with_ports.iter().map(|(policy, selector)| (*policy, selector))) }
    }

    /// The first policy that could cover a packet.
    #[must_use]
    pub fn first_match(&self, tuple: &FiveTuple, direction: Direction) -> Option<u32> {
        // Nothing needs to be verified: rows of selectors without ports say all of them.
        self.trees.first_match(tuple, direction, |_| true).unwrap_or(None)
    }
}

/// Selectors of both families, compiled.
#[derive(Debug)]
struct Trees {
    v4: Tree<V4>,
    v6: Tree<V6>,
}

/// The addresses of a five-tuple are of two families. No packet is like that.
struct TwoFamilies;

impl Trees {
    /// `selectors` gives them with their policies, in search order.
    fn compile<'a, I: Iterator<Item = (u32, &'a Selector)>>(selectors: impl Fn() -> I) -> Self {
        Self { v4: tree(selectors()), v6: tree(selectors()) }
    }

    /// The policy of the first selector that covers a packet. `verify` tells
    /// whether the one at a place does, where the tree does not know all of it.
    #[inline]
    fn first_match(
        &self,
        tuple: &FiveTuple,
        direction: Direction,
        verify: impl Fn(u32) -> bool,
    ) -> Result<Option<u32>, TwoFamilies> {
        if let Some(point) = row::packet::<V4>(tuple, direction) {
            Ok(self.v4.first_match(point, &verify))
        } else if let Some(point) = row::packet::<V6>(tuple, direction) {
            Ok(self.v6.first_match(point, &verify))
        } else {
            Err(TwoFamilies)
        }
    }
}

fn tree<'a, F: Family>(selectors: impl Iterator<Item = (u32, &'a Selector)>) -> Tree<F> {
    let entry = |(number, (policy, selector))| {
        let (low, high, exact) = row::points::<F>(selector)?;
        Some(Entry::new(low, high, Place::new(number, policy, exact)))
    };
    build(&(0..).zip(selectors).filter_map(entry).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::five_tuple::Attachment;
    use crate::selector::AddressRange;

    fn selector(protocol: Option<u8>, ports: PortSelector) -> Selector {
        Selector { protocol, ports, ..Selector::between(AddressRange::ANY_V4, AddressRange::ANY_V4) }
    }

    fn tcp(ports: Ports) -> FiveTuple {
        let (source, destination) = ("10.1.1.1".parse().unwrap(), "10.2.2.2".parse().unwrap());
        FiveTuple { source, destination, protocol: 6, ports, interface: Attachment::TUN }
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
        assert_eq!(Classifier::compile([[]; 0]).first_match(&to(80), Direction::Outbound), None);
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
