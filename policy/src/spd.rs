//! The SPD: ordered policies, and what they say of a packet (RFC 4301 4.4.1).
//!
//! [`Spd`] is an immutable snapshot of a configuration; [`SharedSpd`] holds the
//! current one and replaces it under its readers.
//!
//! In this order:
//! 1. The bypass list, by local address.
//! 2. Neighbour discovery and multicast listener discovery of IPv6 (see
//!    [`is_link_control`]): passed, unless a host policy names the ICMPv6 type.
//! 3. Host policies by priority, the first match decides.
//! 4. The default policy.
//!
//! # Interfaces
//! A host policy may be for one interface alone ([`HostPolicy::interface`]): in
//! the terms of RFC 4301 4.4.1 each interface has an SPD of its own, chosen by
//! where a packet enters or leaves. Policies that name none are in all of them.
//!
//! # Fragments
//! A fragment that is not the first shows no ports (RFC 4301 OPAQUE), and
//! neither skipping a policy that looks at ports nor guessing is safe. The
//! first policy that covers the fragment *without* looking at ports decides,
//! unless an earlier one could have covered its packet and says something that
//! the decision would undo: discard, or protect in a tunnel that is not the one
//! decided on. Then the fragment is dropped as
//! [`DropReason::FragmentPortsHidden`]. An earlier *pass* never stands in the way,
//! since every decision is at least as strict. That is for whoever sees one
//! fragment alone; the packet path brings those of a packet together first,
//! where [`Spd::looks_at_ports`] says so, and asks with the ports of the first.
//!
//! # Protect, but not in this tunnel
//! A packet that a host policy sends through a tunnel whose own selector does
//! not cover it can neither be protected (the peer would refuse it, RFC 4301
//! 5.2) nor go in the clear: dropped as [`DropReason::OutsideTunnelSelector`].

use crate::bypass::BypassList;
use crate::classifier::{Classifier, Coverage, HiddenPorts, coverage};
use crate::config::names::has_ports;
use crate::config::{Config, DefaultAction, HostAction, HostPolicy, TunnelPolicy};
use crate::counters::DropReason;
use crate::five_tuple::{Attachment, Direction, FiveTuple, Ports};
use crate::sa::Mode;
use crate::selector::{PortSelector, Selector};
use crate::session::Session;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Cookie of decisions that no policy made: the bypass list, and link control.
pub const COOKIE_NONE: u32 = 0;
/// Cookie of the default policy.
pub const COOKIE_DEFAULT: u32 = 1;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// In the clear: its local address is on the bypass list.
    Bypass,
    /// In the clear: a policy says so.
    Pass,
    /// Drop.
    Discard,
    /// Outbound: through this tunnel, by its index. Inbound: it must have come
    /// through this tunnel, so one that arrived in the clear is dropped.
    Protect {
        /// See [`Spd::tunnel`].
        tunnel: u32,
    },
    /// As [`Decision::Protect`], but each [session](Session) through an SA pair of its
    /// own, whose selectors are populated from the packet (RFC 4301 4.4.1.2, PFP).
    /// The packet has a session.
    ProtectExclusive {
        /// See [`Spd::tunnel`].
        tunnel: u32,
    },
}

impl Decision {
    /// The tunnel that it leads into or out of.
    #[must_use]
    pub fn tunnel(self) -> Option<u32> {
        match self {
            Self::Protect { tunnel } | Self::ProtectExclusive { tunnel } => Some(tunnel),
            Self::Bypass | Self::Pass | Self::Discard => None,
        }
    }
}

/// A decision and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// What to do.
    pub decision: Decision,
    /// The host policy that decided; [`COOKIE_DEFAULT`], [`COOKIE_NONE`].
    pub cookie: u32,
    /// Why it is dropped: present exactly with [`Decision::Discard`].
    pub reason: Option<DropReason>,
}

impl Verdict {
    fn of(decision: Decision, cookie: u32) -> Self {
        let reason = (decision == Decision::Discard).then_some(DropReason::PolicyDiscard);
        Self { decision, cookie, reason }
    }

    fn drop(reason: DropReason, cookie: u32) -> Self {
        Self { decision: Decision::Discard, cookie, reason: Some(reason) }
    }
}

/// A snapshot of the policies, compiled.
#[derive(Debug)]
pub struct Spd {
    epoch: u32,
    config: Config,
    bypass: BypassList,
    /// The first is for interfaces that no host policy names.
    views: Box<[View]>,
    /// Place in `views`, by interface.
    view_of: [u8; Attachment::MOST],
    /// Index of the tunnel of each host policy that has one, by place in `config.hosts`.
    host_tunnels: Box<[Option<u32>]>,
    /// By index, ascending. Indices of tunnels that are gone are missing.
    tunnels: BTreeMap<u32, Arc<TunnelPolicy>>,
    /// The lowest index never given to a tunnel.
    next_tunnel: u32,
    /// Of policies that have one, by cookie.
    cache_shares: HashMap<u32, u8>,
}

/// The host policies that are for one interface, by their places in `config.hosts`.
#[derive(Debug)]
struct View {
    classifier: Classifier,
    /// Selectors that [name a type](names_a_type).
    link_control: Classifier,
    /// Policies that discard or protect, as far as they look at ports.
    hidden_ports: HiddenPorts,
    /// The others, as far as they look at ports.
    passed_ports: HiddenPorts,
}

impl View {
    /// `None`: an interface that no policy names.
    fn compile(hosts: &[Arc<HostPolicy>], interface: Option<Attachment>) -> Self {
        let applies = |host: &HostPolicy| match (host.interface, interface) {
            (None, _) => true,
            (Some(own), Some(interface)) => own == interface,
            (Some(_), None) => false,
        };
        // One that is not for the interface keeps its place, with nothing in it.
        let selectors = |host| if applies(host) { host.selectors.as_slice() } else { &[] };
        let by_port = |passed| {
            let chosen = (0..).zip(hosts).filter(move |(_, h)| matches!(h.action, HostAction::Pass) == passed);
            HiddenPorts::compile(chosen.map(|(policy, h)| (policy, selectors(h))))
        };
        Self {
            classifier: Classifier::compile(hosts.iter().map(|h| selectors(h))),
            link_control: Classifier::compile(hosts.iter().map(|h| selectors(h).iter().filter(|s| names_a_type(s)))),
            hidden_ports: by_port(false),
            passed_ports: by_port(true),
        }
    }
}

impl Spd {
    /// Compiles a configuration. `epoch` tells its decisions from those of
    /// other snapshots in the [cache](crate::cache::SpdCache).
    #[must_use]
    pub fn compile(config: &Config, epoch: u32) -> Self {
        Self::build(config, epoch, &BTreeMap::new(), 0)
    }

    /// Compiles the configuration that follows this one, with the next epoch.
    ///
    /// A tunnel keeps its index if it was here with the same name and
    /// [the same SAs](TunnelPolicy::has_same_sas). SAs belong to an index, so
    /// those of a tunnel that is gone, or is another under its old name, are out
    /// of use with the snapshot itself. An index is never given to another
    /// tunnel: a worker that still has the older snapshot sends by the older
    /// policies alone.
    #[must_use]
    pub fn successor(&self, config: &Config) -> Self {
        Self::build(config, self.epoch.wrapping_add(1), &self.tunnels, self.next_tunnel)
    }

    fn build(config: &Config, epoch: u32, before: &BTreeMap<u32, Arc<TunnelPolicy>>, mut next_tunnel: u32) -> Self {
        let before: BTreeMap<&str, (u32, &TunnelPolicy)> =
            before.iter().map(|(index, t)| (&*t.name, (*index, &**t))).collect();
        let mut by_name = BTreeMap::new();
        let mut tunnels = BTreeMap::new();
        // A host policy's tunnel is one of `config.tunnels`; a configuration
        // made by hand that forgot to list it is still decided rightly.
        let of_hosts = config.hosts.iter().filter_map(|h| match &h.action {
            HostAction::Tunnel(tunnel) => Some(tunnel),
            HostAction::Pass | HostAction::Discard => None,
        });
        for tunnel in config.tunnels.iter().chain(of_hosts) {
            if by_name.contains_key(&*tunnel.name) {
                continue;
            }
            let index = match before.get(&*tunnel.name) {
                Some((index, same)) if tunnel.has_same_sas(same) => *index,
                _ => {
                    next_tunnel += 1;
                    next_tunnel - 1
                }
            };
            by_name.insert(&*tunnel.name, index);
            tunnels.insert(index, Arc::clone(tunnel));
        }
        let host_tunnels = config.hosts.iter().map(|h| match &h.action {
            HostAction::Tunnel(tunnel) => by_name.get(&*tunnel.name).copied(),
            HostAction::Pass | HostAction::Discard => None,
        });
        let mut views = vec![View::compile(&config.hosts, None)];
        let mut view_of = [0; Attachment::MOST];
        for interface in config.hosts.iter().filter_map(|h| h.interface).collect::<BTreeSet<_>>() {
            view_of[interface.place()] = views.len() as u8;
            views.push(View::compile(&config.hosts, Some(interface)));
        }
        Self {
            epoch,
            bypass: BypassList::new(&config.bypass),
            views: views.into(),
            view_of,
            host_tunnels: host_tunnels.collect(),
            tunnels,
            next_tunnel,
            cache_shares: cache_shares(config),
            config: config.clone(),
        }
    }

    /// What to do with a packet.
    ///
    /// Inbound, [`Decision::Protect`] names the one tunnel that the packet may come
    /// through, within the selector of the SA besides (RFC 4301 5.2), and the
    /// others are for what arrives in the clear. Packets of IKE and ESP itself
    /// are not asked about: their sockets are exempt.
    #[must_use]
    pub fn decide(&self, tuple: &FiveTuple, direction: Direction) -> Verdict {
        if self.bypass.find(tuple.local(direction)).is_some() {
            return Verdict::of(Decision::Bypass, COOKIE_NONE);
        }
        if is_link_control(tuple) {
            return self.decide_link_control(tuple, direction);
        }
        let first = self.view(tuple).classifier.first_match(tuple, direction);
        let verdict = match first {
            Some(policy) => self.apply(policy, tuple, direction),
            None => self.default_verdict(),
        };
        match tuple.ports {
            Ports::Pair { .. } | Ports::Icmp { .. } => verdict,
            Ports::Opaque | Ports::None => match self.undone_by(verdict, first, tuple, direction) {
                Some(policy) => Verdict::drop(DropReason::FragmentPortsHidden, self.cookie(policy)),
                None => verdict,
            },
        }
    }

    /// The policies for a packet's interface.
    #[inline]
    fn view(&self, tuple: &FiveTuple) -> &View {
        &self.views[usize::from(self.view_of[tuple.interface.place()])]
    }

    /// Only policies that name the type decide.
    fn decide_link_control(&self, tuple: &FiveTuple, direction: Direction) -> Verdict {
        match self.view(tuple).link_control.first_match(tuple, direction) {
            Some(policy) => self.apply(policy, tuple, direction),
            None => Verdict::of(Decision::Pass, COOKIE_NONE),
        }
    }

    /// The first policy before `decider` that could cover a packet whose ports
    /// are hidden, and whose word the verdict would undo: see the module's
    /// documentation, "Fragments".
    fn undone_by(
        &self,
        verdict: Verdict,
        decider: Option<u32>,
        tuple: &FiveTuple,
        direction: Direction,
    ) -> Option<u32> {
        if verdict.decision == Decision::Discard {
            return None;
        }
        let undone = |policy: &u32| match self.action(*policy) {
            Decision::Bypass | Decision::Pass => false,
            Decision::Discard => true,
            protect @ (Decision::Protect { .. } | Decision::ProtectExclusive { .. }) => protect != verdict.decision,
        };
        let could_cover = |policy: &u32| {
            let host = &self.config.hosts[*policy as usize];
            let hidden = |s| coverage(s, tuple, direction) == Coverage::PortsHidden;
            host.is_for(tuple.interface) && host.selectors.iter().any(hidden)
        };
        let end = decider.unwrap_or(self.config.hosts.len() as u32);
        let first = self.view(tuple).hidden_ports.first_match(tuple, direction)?;
        // Most often that is the one: others count only where it leads into the tunnel of the verdict.
        (first..end).find(|policy| undone(policy) && could_cover(policy))
    }

    /// What a host policy says of a packet that it covers.
    fn apply(&self, policy: u32, tuple: &FiveTuple, direction: Direction) -> Verdict {
        let (action, cookie) = (self.action(policy), self.cookie(policy));
        let Some(tunnel) = action.tunnel() else { return Verdict::of(action, cookie) };
        let fits = self.tunnel(tunnel).map_or(Coverage::Differs, |t| coverage(&t.selector, tuple, direction));
        match fits {
            Coverage::Covers if matches!(action, Decision::ProtectExclusive { .. }) => {
                match Session::of(tuple, direction) {
                    Ok(_) => Verdict::of(action, cookie),
                    Err(reason) => Verdict::drop(reason, cookie),
                }
            }
            Coverage::Covers => Verdict::of(action, cookie),
            Coverage::PortsHidden => Verdict::drop(DropReason::FragmentPortsHidden, cookie),
            Coverage::Differs => Verdict::drop(DropReason::OutsideTunnelSelector, cookie),
        }
    }

    /// What a host policy does, by its place.
    fn action(&self, policy: u32) -> Decision {
        let policy = policy as usize;
        match &self.config.hosts[policy].action {
            HostAction::Pass => Decision::Pass,
            HostAction::Discard => Decision::Discard,
            HostAction::Tunnel(_) => match self.host_tunnels[policy] {
                Some(tunnel) if self.config.hosts[policy].exclusive => Decision::ProtectExclusive { tunnel },
                Some(tunnel) => Decision::Protect { tunnel },
                None => Decision::Discard,
            },
        }
    }

    fn cookie(&self, policy: u32) -> u32 {
        self.config.hosts[policy as usize].cookie
    }

    fn default_verdict(&self) -> Verdict {
        match self.config.default_action {
            DefaultAction::Pass => Verdict::of(Decision::Pass, COOKIE_DEFAULT),
            DefaultAction::Discard => Verdict::of(Decision::Discard, COOKIE_DEFAULT),
        }
    }

    /// Whether what becomes of a packet with these addresses and this protocol
    /// depends on its ports, whatever they are, or on its being whole: then a
    /// fragment is to be decided on with the others of its packet.
    #[must_use]
    pub fn looks_at_ports(&self, tuple: &FiveTuple, direction: Direction) -> bool {
        if self.bypass.find(tuple.local(direction)).is_some() {
            return false;
        }
        let hidden = FiveTuple { ports: Ports::Opaque, ..*tuple };
        let view = self.view(tuple);
        let by_port = |policies: &HiddenPorts| policies.first_match(&hidden, direction);
        let could_cover = by_port(&view.hidden_ports).into_iter().chain(by_port(&view.passed_ports)).min();
        let Some(policy) = view.classifier.first_match(&hidden, direction) else { return could_cover.is_some() };
        if could_cover.is_some_and(|earlier| earlier < policy) {
            return true;
        }
        let action = self.action(policy);
        let Some(tunnel) = action.tunnel().and_then(|tunnel| self.tunnel(tunnel)) else { return false };
        match coverage(&tunnel.selector, &hidden, direction) {
            Coverage::PortsHidden => true,
            // Transport mode takes whole packets alone (RFC 4303 3.3.4).
            _ if tunnel.mode == Mode::Transport => true,
            Coverage::Covers => matches!(action, Decision::ProtectExclusive { .. }) && has_ports(tuple.protocol),
            Coverage::Differs => false,
        }
    }

    /// The percentage of the cache's hard limit that decisions of a policy may take, if it has one.
    #[must_use]
    pub fn cache_share(&self, cookie: u32) -> Option<u8> {
        self.cache_shares.get(&cookie).copied()
    }

    /// What entries made from this snapshot carry.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The configuration it was compiled from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bypass list.
    #[must_use]
    pub fn bypass(&self) -> &BypassList {
        &self.bypass
    }

    /// A tunnel policy by its index.
    #[must_use]
    pub fn tunnel(&self, index: u32) -> Option<&Arc<TunnelPolicy>> {
        self.tunnels.get(&index)
    }

    /// The index of a tunnel policy.
    #[must_use]
    pub fn tunnel_index(&self, name: &str) -> Option<u32> {
        self.tunnels.iter().find(|(_, t)| &*t.name == name).map(|(index, _)| *index)
    }

    /// The tunnel policies with their indices, ascending.
    pub fn tunnels(&self) -> impl Iterator<Item = (u32, &Arc<TunnelPolicy>)> {
        self.tunnels.iter().map(|(index, t)| (*index, t))
    }
}

fn cache_shares(config: &Config) -> HashMap<u32, u8> {
    let hosts = config.hosts.iter().filter_map(|h| Some((h.cookie, h.cache_share?)));
    hosts.chain(config.default_cache_share.map(|share| (COOKIE_DEFAULT, share))).collect()
}

/// Whether a packet keeps an IPv6 link working: neighbour discovery (RFC 4861,
/// types 133 to 137) and multicast listener discovery (RFC 2710, RFC 3810,
/// types 130 to 132 and 143). None of them is ever forwarded, and they come
/// before any SA can exist.
///
/// HP-UX goes further: there a policy for all of ICMPv6 covers only echo and
/// mobile prefix messages, and error messages pass in the clear. Here they are
/// covered like any other packet.
#[must_use]
pub fn is_link_control(tuple: &FiveTuple) -> bool {
    const ICMPV6: u8 = 58;
    tuple.source.is_ipv6()
        && tuple.protocol == ICMPV6
        && matches!(tuple.ports, Ports::Icmp { kind, .. } if is_link_control_type(kind))
}

fn is_link_control_type(kind: u8) -> bool {
    matches!(kind, 130..=137 | 143)
}

/// Whether a selector covers packets of link control at all.
pub(crate) fn names_a_type(selector: &Selector) -> bool {
    matches!(selector.ports, PortSelector::Icmp { kind, .. } if kind != (0, u8::MAX))
}

/// Whether a selector covers some packets of link control.
pub(crate) fn names_link_control(selector: &Selector) -> bool {
    names_a_type(selector)
        && !selector.local.is_ipv4()
        && matches!(selector.ports, PortSelector::Icmp { kind: (low, high), .. } if (low..=high).any(is_link_control_type))
}

/// Whether a host policy covers a packet, or could if the packet showed its ports.
pub(crate) fn could_cover(host: &HostPolicy, tuple: &FiveTuple, direction: Direction) -> bool {
    let could = |s| coverage(s, tuple, direction) != Coverage::Differs;
    host.is_for(tuple.interface) && host.selectors.iter().any(could)
}

/// The current snapshot, replaced under its readers.
#[derive(Debug)]
pub struct SharedSpd(ArcSwap<Spd>);

impl SharedSpd {
    /// Begins with the policies of `config`, at epoch 1.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(ArcSwap::from_pointee(Spd::compile(config, 1)))
    }

    /// The current snapshot. Use one for a whole batch: look up, decide and
    /// insert with the epoch of the same snapshot.
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<Spd>> {
        self.0.load()
    }

    /// The current snapshot, to keep.
    #[must_use]
    pub fn load_full(&self) -> Arc<Spd> {
        self.0.load_full()
    }

    /// Replaces the policies, raises the epoch, and returns the new snapshot.
    /// Cached decisions of the old one are missed from now on by whoever loads
    /// the new one.
    pub fn replace(&self, config: &Config) -> Arc<Spd> {
        loop {
            let before = self.0.load_full();
            let after = Arc::new(before.successor(config));
            let found = self.0.compare_and_swap(&before, Arc::clone(&after));
            if Arc::ptr_eq(&found, &before) {
                return after;
            }
        }
    }
}
