//! Waiting for conditions, never for time: a deadline is there only to make a test fail instead of hang.

use std::future::Future;
use std::time::{Duration, Instant};

/// What everything that should happen soon may take, on a busy machine with unoptimised code.
pub const SOON: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `holds`; panics with `what` when that takes longer than `longest`.
pub async fn until(what: &str, longest: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < longest, "{what}: not within {longest:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until `holds`, but no longer than `longest`: for who can say better what is wrong then.
pub async fn at_most(longest: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() && begun.elapsed() < longest {
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until `look` finds something; panics with `what` when that takes longer than `longest`.
pub async fn found<T>(what: &str, longest: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < longest, "{what}: not within {longest:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Awaits `future`; panics with `what` when that takes longer than `longest`.
pub async fn within<T>(what: &str, longest: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(longest, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {longest:?}"),
    }
}
