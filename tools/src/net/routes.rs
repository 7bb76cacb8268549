//! Routes of our own table, and the rule that leads there.

use super::{MARK, Net, NetError, PlannedRoute, ROUTE_PROTOCOL, RULE_PRIORITY, RoutePlan, TABLE, Target, failed, is};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metrics: the lower is preferred.
const METRIC_TUN: u32 = 100;
const METRIC_UNREACHABLE: u32 = 4000;

/// Which table is ours, and who is led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Number of the table.
    pub table: u32,
    /// Priority of the rule.
    pub priority: u32,
    /// Sockets with this mark do not see the table.
    pub mark: u32,
}

impl Default for Routing {
    fn default() -> Self {
        Self { table: TABLE, priority: RULE_PRIORITY, mark: MARK }
    }
}

/// How the kernel would send to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface.
    pub interface: u32,
    /// Source address it would choose.
    pub source: Option<IpAddr>,
    /// Largest packet on the path as far as known, in octets; `None`: that of the interface.
    pub mtu: Option<u32>,
}

impl Net {
    /// Makes our table hold exactly the routes of the plan: what is missing is
    /// added, what differs replaced, what is left from before removed. Without
    /// `tun`, the index of the TUN interface, only those that do not need it.
    ///
    /// # Errors
    /// At the first route that cannot be made; those before it are.
    pub async fn set_routes(&self, routing: &Routing, plan: &RoutePlan, tun: Option<u32>) -> Result<(), NetError> {
        let mut wanted: Vec<_> =
            plan.routes.iter().filter_map(|r| message(routing, r, tun)).map(|m| (Key::of(&m), m)).collect();
        // What refuses first: then there is no moment without.
        wanted.sort_by_key(|(key, _)| std::cmp::Reverse(key.metric));
        for (key, message) in &wanted {
            let request = self.handle.route().add(message.clone()).replace();
            request.execute().await.map_err(failed(|| format!("cannot make the route {key}")))?;
        }
        for (key, left) in self.our_routes(routing).await? {
            if !wanted.iter().any(|(k, m)| *k == key && same_source(m, &left)) {
                self.delete_route(&key, left).await?;
            }
        }
        Ok(())
    }

    /// Removes all our routes.
    ///
    /// # Errors
    /// At the first that cannot be removed.
    pub async fn clear_routes(&self, routing: &Routing) -> Result<(), NetError> {
        self.set_routes(routing, &RoutePlan::default(), None).await
    }

    /// Leads everything without our mark to our table, IPv4 and IPv6. Not an
    /// error if that is so already.
    ///
    /// # Errors
    /// When the kernel refuses, or has no policy routing.
    pub async fn add_rules(&self, routing: &Routing) -> Result<(), NetError> {
        for version in [IpVersion::V4, IpVersion::V6] {
            let (present, stale) = self.our_rules(routing, version.clone()).await?;
            for rule in stale {
                self.delete_rule(rule).await?;
            }
            if present {
                continue;
            }
            let mut request = self
                .handle
                .rule()
                .add()
                .priority(routing.priority)
                .fw_mark(routing.mark)
                .table_id(routing.table)
                .action(RuleAction::ToTable);
            let message = request.message_mut();
            message.header.flags = RuleFlags::Invert;
            message.header.family = if version == IpVersion::V4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
            message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
            match request.execute().await {
                // A kernel with IPv6 switched off has nothing to lead astray.
                Err(e) if version == IpVersion::V6 && is(&e, Errno::AFNOSUPPORT) => {}
                other => other.map_err(failed(|| {
                    format!("cannot add the rule: not fwmark {:#x} lookup {}", routing.mark, routing.table)
                }))?,
            }
        }
        Ok(())
    }

    /// Removes our rules. Not an error if there are none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete_rules(&self, routing: &Routing) -> Result<(), NetError> {
        let nothing = Routing { priority: u32::MAX, ..*routing };
        for version in [IpVersion::V4, IpVersion::V6] {
            for rule in self.our_rules(&nothing, version).await?.1 {
                self.delete_rule(rule).await?;
            }
        }
        Ok(())
    }

    /// How a packet with this mark would be sent to `destination`.
    ///
    /// # Errors
    /// When it would not: no route.
    pub async fn way_to(&self, destination: IpAddr, mark: u32) -> Result<Way, NetError> {
        let host = if destination.is_ipv4() { 32 } else { 128 };
        let action = || format!("cannot find the route to {destination}");
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, host)
            .map_err(|e| NetError { action: action(), source: std::io::Error::other(e) })?
            .mark(mark)
            .build();
        let mut answers = Box::pin(self.handle.route().get(message).execute());
        let route = answers.try_next().await.map_err(failed(action))?;
        let no_route = || NetError { action: action(), source: Errno::NETUNREACH.into() };
        let route = route.ok_or_else(no_route)?;
        let (mut interface, mut source, mut mtu) = (None, None, None);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::PrefSource(a) => source = address(a),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(n) = m { Some(*n) } else { None });
                }
                _ => {}
            }
        }
        Ok(Way { interface: interface.ok_or_else(no_route)?, source, mtu })
    }

    async fn our_routes(&self, routing: &Routing) -> Result<Vec<(Key, RouteMessage)>, NetError> {
        let mut found = Vec::new();
        let all = [
            RouteMessageBuilder::<Ipv4Addr>::new().table_id(routing.table).build(),
            RouteMessageBuilder::<Ipv6Addr>::new().table_id(routing.table).build(),
        ];
        for family in all {
            let mut routes = Box::pin(self.handle.route().get(family).execute());
            while let Some(route) = routes
                .try_next()
                .await
                .map_err(failed(|| format!("cannot list the routes of table {}", routing.table)))?
            {
                let ours = route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
                if ours && table_of(&route) == routing.table {
                    found.push((Key::of(&route), route));
                }
            }
        }
        Ok(found)
    }

    async fn delete_route(&self, key: &Key, route: RouteMessage) -> Result<(), NetError> {
        match self.handle.route().del(route).execute().await {
            // Gone with its interface in the meantime.
            Err(e) if is(&e, Errno::SRCH) || is(&e, Errno::NODEV) => Ok(()),
            other => other.map_err(failed(|| format!("cannot remove the route {key}"))),
        }
    }

    /// Whether the rule is there exactly as it should be, and the other rules of ours.
    async fn our_rules(&self, routing: &Routing, version: IpVersion) -> Result<(bool, Vec<RuleMessage>), NetError> {
        let (mut present, mut stale) = (false, Vec::new());
        let mut rules = Box::pin(self.handle.rule().get(version).execute());
        while let Some(rule) = rules.try_next().await.map_err(failed(|| "cannot list routing rules".to_owned()))? {
            if !rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL))) {
                continue;
            }
            if !present && is_rule(&rule, routing) {
                present = true;
            } else {
                stale.push(rule);
            }
        }
        Ok((present, stale))
    }

    async fn delete_rule(&self, rule: RuleMessage) -> Result<(), NetError> {
        match self.handle.rule().del(rule).execute().await {
            Err(e) if is(&e, Errno::NOENT) => Ok(()),
            other => other.map_err(failed(|| "cannot remove a routing rule of ours".to_owned())),
        }
    }
}

/// What tells two routes of a table apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    destination: Option<IpAddr>,
    prefix: u8,
    ipv4: bool,
    metric: u32,
    kind: RouteType,
}

impl Key {
    fn of(route: &RouteMessage) -> Self {
        let (mut destination, mut metric) = (None, 0);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(a) => destination = address(a),
                RouteAttribute::Priority(n) => metric = *n,
                _ => {}
            }
        }
        let ipv4 = route.header.address_family == AddressFamily::Inet;
        Self { destination, prefix: route.header.destination_prefix_length, ipv4, metric, kind: route.header.kind }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            RouteType::Unreachable => "unreachable ",
            RouteType::Throw => "throw ",
            _ => "",
        };
        match self.destination {
            Some(destination) => write!(f, "{kind}{destination}/{}", self.prefix),
            None => write!(f, "{kind}default"),
        }
    }
}

/// The request for a route; `None` if it leads to the TUN interface and there is none.
fn message(routing: &Routing, route: &PlannedRoute, tun: Option<u32>) -> Option<RouteMessage> {
    let mut message = RouteMessage::default();
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.destination_prefix_length = route.prefix;
    let of_host = |a: IpAddr| match a {
        IpAddr::V4(a) => RouteAddress::Inet(a),
        IpAddr::V6(a) => RouteAddress::Inet6(a),
    };
    message.header.address_family =
        if route.destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(RouteAttribute::Table(routing.table));
    if route.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(of_host(route.destination)));
    }
    let (metric, kind) = match route.target {
        Target::Tun { source } => {
            message.attributes.push(RouteAttribute::Oif(tun?));
            message.attributes.extend(source.map(|a| RouteAttribute::PrefSource(of_host(a))));
            // No neighbours on a TUN interface: everything is on it.
            message.header.scope = RouteScope::Link;
            (METRIC_TUN, RouteType::Unicast)
        }
        Target::Unreachable => (METRIC_UNREACHABLE, RouteType::Unreachable),
        Target::Elsewhere => (METRIC_TUN, RouteType::Throw),
    };
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Priority(metric));
    Some(message)
}

fn same_source(a: &RouteMessage, b: &RouteMessage) -> bool {
    let source = |m: &RouteMessage| {
        m.attributes.iter().find_map(|a| if let RouteAttribute::PrefSource(s) = a { Some(s.clone()) } else { None })
    };
    source(a) == source(b)
}

fn table_of(route: &RouteMessage) -> u32 {
    let large = route.attributes.iter().find_map(|a| if let RouteAttribute::Table(t) = a { Some(*t) } else { None });
    large.unwrap_or_else(|| u32::from(route.header.table))
}

fn is_rule(rule: &RuleMessage, routing: &Routing) -> bool {
    let has = |a: RuleAttribute| rule.attributes.contains(&a);
    rule.header.flags.contains(RuleFlags::Invert)
        && rule.header.action == RuleAction::ToTable
        && has(RuleAttribute::FwMark(routing.mark))
        && has(RuleAttribute::Priority(routing.priority))
        && (has(RuleAttribute::Table(routing.table)) || u32::from(rule.header.table) == routing.table)
}

fn address(a: &RouteAddress) -> Option<IpAddr> {
    match a {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}
