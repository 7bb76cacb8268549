//! What the demo does, step by step.

use super::configs::{self, TUNNEL};
use super::daemon::{self, Daemon, Files};
use super::host::{Host, two_hosts};
use super::privilege::Privilege;
use super::show::Show;
use super::traffic::{self, Transfer};
use super::wire::{Seen, Wiretap};
use super::{Namespace, Options, Outcome, Stop, failed, interrupted, stop_if_interrupted};
use crate::control::Request;
use crate::guard::Guard;
use crate::report::{CacheAction, Record, SaState, Section};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Octets of each bulk transfer.
const BULK: u64 = 16 << 20;
/// How long a first packet may wait for a negotiation.
const NEGOTIATION: Duration = Duration::from_secs(10);

/// The stage: two hosts and where their files are.
struct Stage {
    a: Host,
    b: Host,
    files: (Files, Files),
    directory: PathBuf,
    names: Vec<String>,
    /// Held while the names are ours.
    _lock: Option<File>,
}

/// The daemons of both hosts.
struct Daemons {
    a: Daemon,
    b: Daemon,
}

pub(super) fn play(show: &mut Show, options: &Options, privilege: Privilege) -> Outcome<()> {
    let stage = set_the_stage(show, options, privilege)?;
    let tap = Wiretap::start(&stage.a, inside(&stage), &stage.directory.join("wire.pcap"))?;
    let played = negotiate_and_talk(show, &stage, &tap);
    let (mut daemons, mut outcome) = match played {
        Ok(daemons) => (Some(daemons), Ok(())),
        Err(stop) => (None, Err(stop)),
    };
    if let (Ok(()), true, Some(daemons)) = (&outcome, options.keep, &daemons) {
        outcome = keep(show, &stage, daemons);
    }
    if let (Ok(()), Some(daemons)) = (&outcome, &mut daemons) {
        outcome = stop(show, &stage, daemons);
    }
    drop(daemons);
    match (tap.finish(), &outcome) {
        (Ok(seen), Ok(())) => on_the_wire(show, &stage, &seen),
        (Err(e), Ok(())) => outcome = Err(e),
        // What was seen of half a play says nothing.
        (_, Err(_)) => {}
    }
    if let Err(Stop::Failed(what)) = &outcome {
        show.failure(what);
        show.print(&format!("\nLogs and configuration files are in {}.", stage.directory.display()));
        outcome = Ok(());
    }
    strike(show, stage)?;
    outcome
}

fn set_the_stage(show: &mut Show, options: &Options, privilege: Privilege) -> Outcome<Stage> {
    let directory = directory(options)?;
    let (names, lock) = names(privilege)?;
    let mut next = names.iter();
    let (a, b) = two_hosts(|_| match next.next() {
        Some(name) => Namespace::named(name),
        None => Namespace::unnamed(),
    })?;
    let files = daemon::write_configs(&directory, (&a, &b))?;
    show.step("Two hosts, joined by a cable");
    for host in [&a, &b] {
        show.fact(&format!("host {}", host.name), &format!("{}   protects {}", host.outside, configs::network(host)));
    }
    show.fact(
        "privilege",
        match privilege {
            Privilege::Root => "root",
            Privilege::UserNamespace => "none needed: a user namespace of their own",
        },
    );
    show.fact("files", &format!("{}/{{a,b}}.toml, {{a,b}}.log, wire.pcap", directory.display()));
    Ok(Stage { a, b, files, directory, names, _lock: lock })
}

/// All steps with both daemons running.
fn negotiate_and_talk(show: &mut Show, stage: &Stage, tap: &Wiretap) -> Outcome<Daemons> {
    policies(show, stage)?;
    show.step("A daemon on each host");
    let a = Daemon::start(&stage.a, &stage.files.0)?;
    let b = Daemon::start(&stage.b, &stage.files.1)?;
    for (host, daemon) in [(&stage.a, &a), (&stage.b, &b)] {
        show.fact(&format!("host {}", host.name), &format!("ipsecd, process {}", daemon.pid()));
        let guarded = host.run(Guard::is_installed)?.map_err(|e| failed("cannot look at the guard", &e))?;
        show.check(&format!("host {} lets nothing protected out in the clear", host.name), guarded, "guard in place");
    }
    let mut daemons = Daemons { a, b };
    first_packet(show, stage, &daemons)?;
    bulk(show, stage, tap)?;
    reports(show, &daemons)?;
    rekey(show, stage, &daemons, tap)?;
    daemons.a = crash(show, stage, daemons.a)?;
    for (host, daemon) in [(&stage.a, &daemons.a), (&stage.b, &daemons.b)] {
        let leaks = daemon.ask(&Request::Status)?.into_iter().find_map(|answer| match answer {
            crate::control::Answer::Record(Record::Status(status)) => Some(status.cleartext_leaks),
            _ => None,
        });
        let found = leaks.map_or("not reported".to_owned(), |n| n.to_string());
        show.check(&format!("clear-text leaks counted by host {}", host.name), leaks == Some(0), &found);
    }
    Ok(daemons)
}

fn policies(show: &mut Show, stage: &Stage) -> Outcome<()> {
    show.step("What the policies say, before anything runs");
    let (from, to) = (stage.a.inside.to_string(), stage.b.inside.to_string());
    let packet = ["-sa", &from, "-sp", "40000", "-da", &to, "-dp", "80", "-p", "TCP", "-dir", "out"];
    let config = stage.files.0.config.to_string_lossy();
    let mut arguments = packet.to_vec();
    arguments.extend(["--config", &config]);
    let text = daemon::command("ipsec_policy", &arguments)?;
    show.output(&format!("ipsec_policy {} --config a.toml", packet.join(" ")), &text, 30);
    show.check("traffic between the inside networks goes through the tunnel", text.contains(TUNNEL), TUNNEL);
    Ok(())
}

fn first_packet(show: &mut Show, stage: &Stage, daemons: &Daemons) -> Outcome<()> {
    show.step("The first packet brings up the tunnel");
    let echoes = traffic::ping(&stage.a, &stage.b, 4, NEGOTIATION)?;
    for (host, daemon) in [(&stage.a, &daemons.a), (&stage.b, &daemons.b)] {
        for line in daemon.audit_lines("IKMPD", 0) {
            show.fact(&format!("host {}", host.name), &line);
        }
    }
    let times: Vec<_> = echoes.answered.iter().map(|t| milliseconds(*t)).collect();
    let all = echoes.answered.len() == usize::from(echoes.sent);
    let found = format!("{} of {} answered, {}", times.len(), echoes.sent, times.join(", "));
    show.check(&format!("ping {} -> {}, the first included", stage.a.inside, stage.b.inside), all, &found);
    if times.is_empty() {
        return Err(Stop::Failed("no tunnel: nothing can be shown without one".to_owned()));
    }
    let (at_a, at_b) = (associations(&daemons.a)?, associations(&daemons.b)?);
    let found = format!("{} at a, {} at b", at_a.len(), at_b.len());
    show.check("both hosts have the same two SAs", at_a.len() == 2 && at_a == at_b, &found);
    Ok(())
}

fn bulk(show: &mut Show, stage: &Stage, tap: &Wiretap) -> Outcome<()> {
    show.step("TCP through the tunnel");
    for (from, to) in [(&stage.a, &stage.b), (&stage.b, &stage.a)] {
        let done = traffic::transfer(from, to, BULK, tap.gauge())?;
        let what = format!("{} -> {}, equal checksums", from.inside, to.inside);
        show.check(&what, done.equal && done.octets == BULK, &rate(&done));
    }
    Ok(())
}

fn reports(show: &mut Show, daemons: &Daemons) -> Outcome<()> {
    show.step("What the hosts report");
    for (name, daemon) in [("a", &daemons.a), ("b", &daemons.b)] {
        for (option, lines) in [("-sad", 17), ("-cache", 13)] {
            let text = daemon.command("ipsec_report", &[option])?;
            show.output(&format!("ipsec_report {option}    (host {name})"), &text, if name == "a" { lines } else { 8 });
        }
        let cached = daemon.report(Section::Cache)?;
        let secure = |r: &&Record| matches!(r, Record::Cache(c) if c.action == CacheAction::Secure);
        let secure = cached.iter().filter(secure).count();
        show.check(
            &format!("host {name} remembers its decisions"),
            secure > 0,
            &format!("{secure} conversations secure"),
        );
    }
    Ok(())
}

fn rekey(show: &mut Show, stage: &Stage, daemons: &Daemons, tap: &Wiretap) -> Outcome<()> {
    show.step("New keys while traffic flows");
    let (before, log) = (associations(&daemons.a)?, daemons.a.log_len());
    let stream = traffic::stream(&stage.a, &stage.b, tap.gauge())?;
    pause(Duration::from_millis(300))?;
    let text = daemons.a.command("ipsec_admin", &["-rekey_sa", TUNNEL])?;
    show.output(&format!("ipsec_admin -rekey_sa {TUNNEL}    (host a, during a TCP transfer)"), &text, 4);
    let start = Instant::now();
    let mut renewed = false;
    while !renewed && start.elapsed() < NEGOTIATION && !stream.is_over() {
        pause(Duration::from_millis(20))?;
        let (at_a, at_b) = (associations(&daemons.a)?, associations(&daemons.b)?);
        renewed = at_a.difference(&before).count() == 2 && at_b.difference(&before).count() == 2;
    }
    for line in daemons.a.audit_lines("IKMPD", log) {
        show.fact("host a", &line);
    }
    show.check("both hosts have new SAs", renewed, &milliseconds(start.elapsed()));
    pause(Duration::from_millis(300))?;
    show.check("the connection was not lost", !stream.is_over(), "");
    let done = stream.finish()?;
    let found = format!("{}, longest pause {}", rate(&done), milliseconds(done.pause));
    show.check("everything sent arrived unchanged", done.equal, &found);
    Ok(())
}

/// Kills a daemon, looks for what leaves, and starts it again.
fn crash(show: &mut Show, stage: &Stage, daemon: Daemon) -> Outcome<Daemon> {
    show.step("A daemon is killed (SIGKILL), and starts again");
    daemon.kill()?;
    let echoes = traffic::ping(&stage.a, &stage.b, 3, Duration::from_millis(200))?;
    let reason = echoes.refused.as_ref().map_or("not answered".to_owned(), ToString::to_string);
    let closed = echoes.answered.is_empty();
    show.check("without it, nothing to the other side's inside is sent", closed, &reason);
    let guarded = stage.a.run(Guard::is_installed)?.map_err(|e| failed("cannot look at the guard", &e))?;
    show.check("the guard outlives the daemon", guarded, "");
    let start = Instant::now();
    let daemon = Daemon::start(&stage.a, &stage.files.0)?;
    let echoes = traffic::ping(&stage.a, &stage.b, 2, NEGOTIATION)?;
    let found = format!(
        "{} of {} answered, {} after the start",
        echoes.answered.len(),
        echoes.sent,
        milliseconds(start.elapsed())
    );
    show.check("a new daemon takes over", echoes.answered.len() == 2, &found);
    Ok(daemon)
}

fn keep(show: &mut Show, stage: &Stage, daemons: &Daemons) -> Outcome<()> {
    show.step("The hosts stay up, until Ctrl-C");
    let mut holders = Vec::new();
    for (host, name) in [(&stage.a, stage.names.first()), (&stage.b, stage.names.get(1))] {
        let enter = match name {
            Some(name) => format!("ip netns exec {name} bash      or: nsenter --net=/run/netns/{name}"),
            None => {
                let holder = Holder::start(host)?;
                let enter = format!("nsenter --target {} --user --net --preserve-credentials", holder.0.id());
                holders.push(holder);
                enter
            }
        };
        show.fact(&format!("enter host {}", host.name), &enter);
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "ipsec_demo".into());
    show.print("\n    Try, from anywhere:");
    for command in ["ipsec_report -sad", "ipsec_report -cache", "ipsec_report -ip --json", "ipsec_admin -status"] {
        let run_dir = daemons.a.files.run_dir.display();
        show.print(&format!("      {} {command} --run-dir {run_dir}", program.display()));
    }
    show.print("    and on host a:");
    show.print(&format!("      ping -I {} {}", stage.a.inside, stage.b.inside));
    show.print("      nft list table inet caponier; ip route show table 220; ip rule");
    while !interrupted() {
        thread::sleep(Duration::from_millis(100));
    }
    super::INTERRUPTED.store(false, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

fn stop(show: &mut Show, stage: &Stage, daemons: &mut Daemons) -> Outcome<()> {
    show.step("Both daemons stop");
    for (host, daemon) in [(&stage.a, &mut daemons.a), (&stage.b, &mut daemons.b)] {
        let well = daemon.stop()?;
        let guarded = host.run(Guard::is_installed)?.map_err(|e| failed("cannot look at the guard", &e))?;
        show.check(&format!("host {}: ipsec_admin -stop, and nothing is left of it", host.name), well && !guarded, "");
    }
    Ok(())
}

fn on_the_wire(show: &mut Show, stage: &Stage, seen: &Seen) {
    show.step("What was on the wire, all the time");
    for (kind, (frames, octets)) in &seen.kinds {
        show.print(&format!("    {frames:>8} frames {octets:>12} octets   {kind}"));
    }
    let strangers = seen.strangers();
    show.check("only IKE, ESP and neighbour discovery", strangers.is_empty(), &strangers.join(", "));
    show.check("no inside address in any header", seen.inside == 0, &format!("{} frames", seen.inside));
    show.check("no clear-text of the data in any frame", seen.clear_text == 0, &format!("{} frames", seen.clear_text));
    let found = format!("{} missed, see {}", seen.missed, stage.directory.join("wire.pcap").display());
    show.check("the capture is complete", seen.missed == 0 && !seen.kinds.is_empty(), &found);
}

/// Takes everything down and looks whether it is gone.
fn strike(show: &mut Show, stage: Stage) -> Outcome<()> {
    let names = stage.names.clone();
    drop(stage);
    if interrupted() {
        return Err(Stop::Interrupted);
    }
    show.step("Cleaned up");
    let left: Vec<_> = names.iter().filter(|n| Path::new("/run/netns").join(n).exists()).cloned().collect();
    let found = if left.is_empty() { "processes, namespaces and interfaces".to_owned() } else { left.join(", ") };
    show.check("nothing is left behind", left.is_empty(), &found);
    Ok(())
}

/// SPI, source and destination of the mature SAs of a host.
fn associations(daemon: &Daemon) -> Outcome<BTreeSet<(u32, IpAddr, IpAddr)>> {
    let records = daemon.report(Section::Sad)?;
    let mature = records.into_iter().filter_map(|record| match record {
        Record::Sad(sa) if sa.state == SaState::Mature => Some((sa.spi, sa.src, sa.dst)),
        _ => None,
    });
    Ok(mature.collect())
}

/// What no outer header may show.
fn inside(stage: &Stage) -> Vec<(IpAddr, IpAddr)> {
    let network = |host: &Host| {
        let [a, b, c, _] = host.inside.octets();
        (IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), IpAddr::V4(Ipv4Addr::new(a, b, c, 255)))
    };
    vec![network(&stage.a), network(&stage.b)]
}

fn directory(options: &Options) -> Outcome<PathBuf> {
    let target = Path::new("target");
    let default = || if target.is_dir() { target.join("demo") } else { PathBuf::from("caponier-demo") };
    let directory = options.dir.clone().unwrap_or_else(default);
    std::fs::create_dir_all(&directory)
        .and_then(|()| directory.canonicalize())
        .map_err(|e| failed(&format!("cannot make the directory {} (choose one with --dir)", directory.display()), &e))
}

/// Names for the namespaces, if they can have any: those of a demo that was
/// killed are taken over, those of one that runs are not touched.
fn names(privilege: Privilege) -> Outcome<(Vec<String>, Option<File>)> {
    if privilege == Privilege::UserNamespace {
        return Ok((Vec::new(), None));
    }
    remove_orphans();
    let path = "/run/caponier-demo.lock";
    let lock = File::options().create(true).truncate(false).write(true).open(path);
    let lock = lock.map_err(|e| failed(&format!("cannot open {path}"), &e))?;
    if lock.try_lock().is_err() {
        let pid = std::process::id();
        return Ok((vec![format!("caponier-a-{pid}"), format!("caponier-b-{pid}")], None));
    }
    let names = vec!["caponier-a".to_owned(), "caponier-b".to_owned()];
    for name in &names {
        Namespace::remove_name(name).map_err(|e| failed("what an earlier demo left", &e))?;
    }
    Ok((names, Some(lock)))
}

/// Removes names of demos that ran beside another and were killed.
fn remove_orphans() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix("caponier-a-").or_else(|| name.strip_prefix("caponier-b-"));
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Somebody else's if it fails, and not in our way.
            let _ = Namespace::remove_name(&name);
        }
    }
}

/// A process that does nothing in a namespace, so that others can follow it there.
struct Holder(Child);

impl Holder {
    fn start(host: &Host) -> Outcome<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["ipsec_demo", super::HOLD]).stdin(Stdio::null());
        let child = host.run(move || command.spawn())?.map_err(|e| failed("cannot start a process", &e))?;
        Ok(Self(child))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pause(time: Duration) -> Outcome<()> {
    thread::sleep(time);
    stop_if_interrupted()
}

fn rate(done: &Transfer) -> String {
    let seconds = done.time.as_secs_f64().max(1e-6);
    let megabytes = done.octets as f64 / f64::from(1 << 20);
    format!("{megabytes:.0} MiB in {seconds:.2} s, {:.0} Mbit/s", done.octets as f64 * 8e-6 / seconds)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
