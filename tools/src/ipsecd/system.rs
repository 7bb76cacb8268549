//! The system's clock and randomness, and what keeps secrets out of core dumps.

use crypto::Entropy;
use policy::time::Timestamp;
use std::time::{Duration, Instant};

/// Monotonic time since the daemon started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        // One second in hand, so that nothing measures from zero.
        Self(Instant::now() - Duration::from_secs(1))
    }

    /// The instant that timestamps count from.
    pub(super) fn origin(&self) -> Instant {
        self.0
    }

    pub(super) fn started(&self) -> Timestamp {
        Timestamp::from_micros(1_000_000)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The tokio instant of `t`.
    pub(super) fn instant(&self, t: Timestamp) -> tokio::time::Instant {
        (self.0 + Duration::from_micros(t.as_micros())).into()
    }
}

/// The kernel's random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            match rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => out = &mut out[n..],
                Err(rustix::io::Errno::INTR) => {}
                // No key may ever be made of less than was asked for.
                Err(e) => {
                    tracing::error!("getrandom: {e}; cannot go on without random numbers");
                    std::process::abort();
                }
            }
        }
    }
}

/// Keeps the process's memory, and the keys in it, out of core dumps and away
/// from debuggers of other users.
pub(super) fn forbid_core_dumps() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Tells systemd, if it started us, about our state (sd_notify(3)).
pub(super) fn notify_service_manager(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return };
    let bytes = path.as_encoded_bytes();
    // A missing service manager is no reason to stop: the result is of no use.
    let _ = match bytes.strip_prefix(b"@") {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)
            .and_then(|a| socket.send_to_addr(state.as_bytes(), &a)),
        None => socket.send_to(state.as_bytes(), path),
    };
}
