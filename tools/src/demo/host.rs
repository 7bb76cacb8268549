//! A host of the demo: a network namespace with a thread that lives in it.

use super::{Namespace, Net, NetError, Outcome, failed};
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// The thread is there for two reasons: sockets and processes that it makes are
/// in the namespace, and the kernel ends those processes with it
/// (PR_SET_PDEATHSIG counts from the thread that was the parent).
pub(super) struct Host {
    /// `a` or `b`.
    pub(super) name: &'static str,
    /// On the cable: where the tunnel ends.
    pub(super) outside: Ipv4Addr,
    /// What the tunnel protects.
    pub(super) inside: Ipv4Addr,
    pub(super) namespace: Namespace,
    jobs: mpsc::Sender<Job>,
}

/// Length of the prefix of the protected networks.
pub(super) const INSIDE_PREFIX: u8 = 24;
/// Name of each host's end of the cable.
pub(super) const CABLE: &str = "wire0";

impl Host {
    pub(super) fn new(name: &'static str, n: u8, namespace: Namespace) -> Outcome<Self> {
        let (jobs, work) = mpsc::channel::<Job>();
        let entered = namespace.try_clone().map_err(|e| failed("cannot enter a network namespace", &e))?;
        let (ready, is_ready) = mpsc::channel();
        thread::Builder::new()
            .name(format!("host-{name}"))
            .spawn(move || {
                let entering = entered.enter();
                let stay = entering.is_ok();
                let _ = ready.send(entering);
                if stay {
                    work.into_iter().for_each(|job| job());
                }
            })
            .map_err(|e| failed("cannot start a thread", &e))?;
        let entering = is_ready.recv().map_err(|e| failed("a host's thread ended", &e))?;
        entering.map_err(|e| failed("cannot enter a network namespace", &e))?;
        let (outside, inside) = (Ipv4Addr::new(10, 77, 0, n), Ipv4Addr::new(10, 78, n, 1));
        Ok(Self { name, outside, inside, namespace, jobs })
    }

    /// Does something in the namespace and waits for it.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
        let (answer, answered) = mpsc::channel();
        let job = move || {
            let _ = answer.send(work());
        };
        self.jobs.send(Box::new(job)).map_err(|e| failed("a host's thread is gone", &e))?;
        answered.recv().map_err(|e| failed("a host's thread ended", &e))
    }

    /// Does something over rtnetlink in the namespace.
    pub(super) fn net<T, F>(&self, work: impl FnOnce(Net) -> F + Send + 'static) -> Outcome<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, NetError>>,
    {
        let done = self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(async { work(Net::open()?).await }))
        })?;
        let done: Result<_, NetError> = done.map_err(|e: std::io::Error| failed("cannot start a tokio runtime", &e))?;
        done.map_err(|e| failed(&format!("host {}", self.name), &e))
    }
}

/// The hosts and the cable between them, with all addresses.
pub(super) fn two_hosts(mut namespace: impl FnMut(&str) -> Result<Namespace, NetError>) -> Outcome<(Host, Host)> {
    let mut make = |name, n| {
        let namespace = namespace(name).map_err(|e| failed("the demo's network", &e))?;
        Host::new(name, n, namespace)
    };
    let (a, b) = (make("a", 1)?, make("b", 2)?);
    let over_there = b.namespace.try_clone().map_err(|e| failed("cannot share a namespace", &e))?;
    a.net(async move |net| {
        net.add_veth(CABLE, "far").await?;
        net.move_interface("far", &over_there).await
    })?;
    b.net(async |net| net.rename_interface("far", CABLE).await)?;
    for host in [&a, &b] {
        let (outside, inside) = (host.outside.into(), host.inside.into());
        host.net(async move |net| {
            net.set_up("lo").await?;
            net.add_address("lo", inside, 32).await?;
            net.add_address(CABLE, outside, 24).await?;
            net.set_up(CABLE).await
        })?;
    }
    Ok((a, b))
}
