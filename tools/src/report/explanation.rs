//! The answer of `ipsec_policy` as text.

use super::form::{banner, heading, is, list, may, row};
use crate::control::Packet;
use ::policy::config::names::protocol_name;
use ::policy::explain::{Action, DecidedBy, Explanation, Outcome, Step, TunnelStep};
use std::io::{self, Write};

/// The packet in question.
pub fn packet(out: &mut dyn Write, packet: &Packet) -> io::Result<()> {
    banner(out, "Packet")?;
    let ports = packet.ports.unzip();
    let icmp = packet.icmp.unzip();
    row(out, &[("Src IP Address", is(packet.source)), ("Src Port number", may(&ports.0))])?;
    row(out, &[("Dst IP Address", is(packet.destination)), ("Dst Port number", may(&ports.1))])?;
    row(out, &[("ICMP Type", may(&icmp.0)), ("ICMP Code", may(&icmp.1))])?;
    row(out, &[("Network Protocol", is(protocol_name(packet.protocol))), ("Direction", is(packet.direction))])?;
    row(out, &[("Interface", may(&packet.interface))])
}

/// Every rule that was tried, in order, and what came of it.
pub fn trace(out: &mut dyn Write, explanation: &Explanation) -> io::Result<()> {
    banner(out, "Rules tried")?;
    if let DecidedBy::Bypass { range } = &explanation.decided_by {
        return writeln!(out, "bypass list: {range} covers the local address");
    }
    writeln!(out, "bypass list: does not cover the local address")?;
    for (step, n) in explanation.tried.iter().zip(1..) {
        let Step { name, priority, cookie, line, selectors, interface, outcome: found } = step;
        let found = outcome(found);
        writeln!(out, "{n}. {name} (priority {priority}, cookie {cookie}, line {line}): {found}")?;
        selectors.iter().try_for_each(|s| writeln!(out, "     {s}"))?;
        interface.iter().try_for_each(|name| writeln!(out, "     interface {name}"))?;
    }
    if explanation.decided_by == DecidedBy::Default {
        writeln!(out, "{}. default (searched last): match", explanation.tried.len() + 1)?;
    }
    Ok(())
}

/// Who decides, and what happens.
pub fn verdict(out: &mut dyn Write, explanation: &Explanation) -> io::Result<()> {
    banner(out, "Host Policy Rule")?;
    let rule = match &explanation.decided_by {
        DecidedBy::Host { name } => name.clone(),
        DecidedBy::Default => "default".into(),
        DecidedBy::Bypass { range } => format!("none: {range} is on the bypass list"),
        DecidedBy::LinkControl => "none: IPv6 link control".into(),
    };
    let step = explanation.tried.iter().find(|s| DecidedBy::Host { name: s.name.clone() } == explanation.decided_by);
    row(out, &[("Rule Name", is(rule)), ("Cookie", is(explanation.cookie))])?;
    row(
        out,
        &[("Priority", step.map(|s| s.priority.to_string())), ("Configuration line", step.map(|s| s.line.to_string()))],
    )?;
    let action = match explanation.action {
        Action::Pass => "Pass",
        Action::Discard => "Discard",
        Action::Secure => "Secure",
    };
    row(out, &[("Action", is(action)), ("Reason", may(&explanation.drop_reason))])?;
    row(out, &[("Also matching, but later", list(&explanation.overridden))])?;
    if let Some(step) = &explanation.tunnel {
        tunnel(out, step)?;
    }
    heading(out, "Summary")?;
    explanation.summary.iter().try_for_each(|sentence| writeln!(out, "{sentence}"))?;
    if !explanation.warnings.is_empty() {
        heading(out, "Warnings")?;
    }
    explanation.warnings.iter().try_for_each(|warning| writeln!(out, "{warning}"))
}

fn tunnel(out: &mut dyn Write, step: &TunnelStep) -> io::Result<()> {
    banner(out, "Tunnel Policy Rule")?;
    row(out, &[("Rule Name", is(&step.name)), ("Covers the packet", is(outcome(&step.outcome)))])?;
    row(out, &[("Tunnel Source IP Addr", is(step.tsource))])?;
    row(out, &[("Tunnel Destination IP Addr", is(step.tdestination))])?;
    row(out, &[("Selector", is(&step.selector))])?;
    row(out, &[("Transforms", list(&step.transforms))])?;
    if step.manual_keys {
        return row(out, &[("Keys", is("manual: nothing is negotiated"))]);
    }
    banner(out, "IKE Policy Rule")?;
    match &step.ike_policy {
        Some(ike) => {
            row(out, &[("Rule Name", is(&ike.name)), ("Priority", is(ike.priority))])?;
            row(out, &[("Remote IP Addr", is(&ike.remote)), ("Lifetime Seconds", is(ike.lifetime_seconds))])?;
            row(out, &[("Proposals", list(&ike.proposals))])?;
        }
        None => writeln!(out, "None for {}: negotiations fail.", step.tdestination)?,
    }
    banner(out, "Auth Record")?;
    match &step.auth_record {
        Some(auth) => {
            let key = if auth.preshared { "yes" } else { "no" };
            let methods = Some(auth.methods.join(", ")).filter(|m| !m.is_empty());
            row(out, &[("Record Name", is(&auth.name)), ("Remote IP Addr", is(&auth.remote))])?;
            row(out, &[("Local ID", is(&auth.local_id)), ("Remote ID", is(&auth.remote_id))])?;
            row(out, &[("Pre-shared key", is(key)), ("Authentication Method", methods)])
        }
        None => writeln!(out, "None for {}: negotiations fail.", step.tdestination),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Match => "match".into(),
        Outcome::Differs { field } => format!("no: {field} differs"),
        Outcome::PortsHidden => "perhaps: it looks at ports, and the packet shows none".into(),
        Outcome::TypeNotNamed => "no: it does not name this ICMPv6 type".into(),
    }
}
