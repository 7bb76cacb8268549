//! What is done now and then, apart from the packets: idle cache entries age
//! out, SAs that are gone are given back, and paths are asked for their MTU.

use super::{Clock, paths};
use crate::shared::Shared;
use core::time::Duration;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;

/// Time between two rounds. A path that becomes narrower is noticed at once, by
/// the packet that no longer fits; this is for one that becomes wider.
const INTERVAL: Duration = Duration::from_secs(10);

/// Runs until the sender of `stop` is gone.
pub(in crate::io) fn run(shared: &Arc<Shared>, stop: &Receiver<()>, clock: Clock, mark: u32) {
    while stop.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let idle = shared.spd.load().config().startup.cache_idle_seconds;
        shared.cache.age(clock.now(), Duration::from_secs(u64::from(idle)));
        shared.inbound.tidy();
        shared.outbound.tidy();
        paths::refresh(shared, mark, |_| true);
    }
}
