//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Asks `condition` again and again until it gives a value.
///
/// # Panics
/// If it gave none within `limit`; `what` says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {} s in vain for {what}", limit.as_secs_f32());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`until`], for something that is true or not; `seconds` long.
#[track_caller]
pub fn until_true(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    until(what, Duration::from_secs(seconds), || condition().then_some(()));
}
