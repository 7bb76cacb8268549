//! The threads of the packet path: some for each direction, and one for what is
//! done now and then. [`Datapath`](super::Datapath) starts and stops them.
//!
//! A worker owns its pipeline and whatever it writes often: counters, buffers, TUN queue; with the worker of the other
//! direction that has its number it shares the sockets. All share [`Shared`](crate::Shared). Commands go to all
//! outbound workers.

#![deny(unsafe_code)]

pub(super) mod gateway;
pub(super) mod housekeeping;
pub(super) mod inbound;
pub(super) mod outbound;
mod paths;
mod wire;

use super::{Port, PortKind, Share};
use crate::event::Event;
use core::array::from_fn;
use crossbeam::channel::Sender;
use policy::time::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// Time as the pipelines want it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) origin: Instant,
}

impl Clock {
    pub(super) fn now(self) -> Timestamp {
        Timestamp::default() + self.origin.elapsed()
    }
}

/// Wakes a worker out of its poll.
#[derive(Clone, Debug)]
pub(super) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    pub(super) fn wake(&self) {
        // Fails only when 2^64 - 2 calls were not yet answered: awake enough.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes the next poll wait again.
    fn answer(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Events that may wait for the daemon before IKE messages are refused: they
/// are what strangers can send many of. All other events are few by nature.
const IKE_QUEUE: usize = 4096;

/// The way to the daemon.
#[derive(Clone, Debug)]
pub(super) struct Events(pub(super) Sender<Event>);

impl Events {
    /// Hands events over and empties the list; `refused` hears of each IKE
    /// message that found no room, `handed_over` of the others.
    fn send_all(&self, events: &mut Vec<Event>, mut ike: impl FnMut(Handed)) {
        for event in events.drain(..) {
            let is_ike = matches!(event, Event::Ike(_));
            if is_ike && self.0.len() >= IKE_QUEUE {
                ike(Handed::Refused);
                continue;
            }
            if is_ike {
                ike(Handed::Over);
            }
            self.send(event);
        }
    }

    pub(super) fn send(&self, event: Event) {
        // Nobody listens any more only while the daemon ends.
        let _ = self.0.send(event);
    }
}

/// What became of an IKE message.
enum Handed {
    Over,
    Refused,
}

/// The sockets, by family; a family that the kernel does not have is missing.
#[derive(Debug)]
pub(super) struct Ports {
    ipv4: Family,
    ipv6: Option<Family>,
}

/// The sockets of one family.
#[derive(Debug)]
struct Family {
    udp: Port,
    esp: Port,
    ah: Port,
    clear: Port,
}

impl Ports {
    /// Opens all sockets of a worker. The error names the one that failed.
    pub(super) fn open(natt_port: u16, mark: u32, offload: bool, share: Share) -> Result<Self, (PortKind, io::Error)> {
        let family = |ipv4| {
            let open = |kind| Port::open_share(kind, ipv4, mark, offload, share).map_err(|e| (kind, e));
            Ok(Family {
                udp: open(PortKind::Udp(natt_port))?,
                esp: open(PortKind::RawEsp)?,
                ah: open(PortKind::RawAh)?,
                clear: open(PortKind::Clear)?,
            })
        };
        let ipv4 = family(true)?;
        let ipv6 = match family(false) {
            Ok(family) => Some(family),
            // A kernel booted without IPv6 has none to protect.
            Err((_, e)) if e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => None,
            Err(e) => return Err(e),
        };
        Ok(Self { ipv4, ipv6 })
    }

    /// Whether datagrams go to the kernel by the dozen, and come from it so.
    pub(super) fn offload(&self) -> (bool, bool) {
        self.ipv4.udp.offload()
    }

    fn family(&self, ipv4: bool) -> Option<&Family> {
        if ipv4 { Some(&self.ipv4) } else { self.ipv6.as_ref() }
    }
}

/// Starts a worker. However it ends, other than by being told to, the daemon hears of it.
pub(super) fn spawn(
    name: &'static str,
    events: Events,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(move || {
        let error = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.to_string(),
            Err(panic) => format!("a defect: {}", message_of(&*panic)),
        };
        events.send(Event::WorkerStopped { worker: name, error });
    })
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

/// Waits until one of `fds` can be read, or has an error to tell of; says what
/// of each, by their places.
fn wait_readable<const N: usize>(fds: [Option<BorrowedFd<'_>>; N]) -> io::Result<[PollFlags; N]> {
    // Those that are missing stand for the first, of which then nothing is asked.
    let Some(any) = fds.iter().flatten().next() else { return Ok([PollFlags::empty(); N]) };
    let mut polled = fds.map(|fd| match fd {
        Some(fd) => PollFd::from_borrowed_fd(fd, PollFlags::IN),
        None => PollFd::from_borrowed_fd(*any, PollFlags::empty()),
    });
    match poll(&mut polled, None) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok([PollFlags::empty(); N]),
        Err(e) => return Err(e.into()),
    }
    Ok(from_fn(|at| if fds[at].is_some() { polled[at].revents() } else { PollFlags::empty() }))
}

/// Waits until `fd` can be written, up to `millis` milliseconds; whether it can.
fn wait_writable(fd: BorrowedFd<'_>, millis: u16) -> bool {
    let timeout = Timespec { tv_sec: i64::from(millis / 1000), tv_nsec: i64::from(millis % 1000) * 1_000_000 };
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    matches!(poll(&mut polled, Some(&timeout)), Ok(n) if n > 0)
}
