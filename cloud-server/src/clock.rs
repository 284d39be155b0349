//! The server's two clocks, read in one place. What computes with time takes it as an argument, so that its tests
//! need no waiting; only drivers read a [`Clock`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads monotonic time since its creation and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic zero is one hour ago, so that subtracting a time-out from "now" never passes zero.
    #[must_use]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(3600)).unwrap_or(now) }
    }

    /// Microseconds of monotonic time.
    #[must_use]
    pub fn monotonic_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds since 1970-01-01 UTC. A machine that stands before 1970 reads zero.
    #[must_use]
    pub fn utc_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// A moment in microseconds since 1970 as RFC 3339 text, the form of all times in the HTTP API.
#[must_use]
pub fn rfc3339(utc_us: i64) -> String {
    jiff::Timestamp::from_microsecond(utc_us).map_or_else(|_| utc_us.to_string(), |time| time.to_string())
}

/// The calendar month (UTC) of a moment in microseconds since 1970, as `2026-11`.
#[must_use]
pub fn month(utc_us: i64) -> String {
    rfc3339(utc_us).chars().take(7).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_and_utc_is_this_century() {
        let clock = Clock::new();
        let before = clock.monotonic_us();
        assert!(clock.monotonic_us() >= before);
        assert!(rfc3339(clock.utc_us()).starts_with("20"));
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(month(1_793_491_199_999_999), "2026-10");
        assert_eq!(month(1_793_491_200_000_000), "2026-11");
    }
}
