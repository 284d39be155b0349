//! How much is handed to the socket at once: as much as leaves it within a few milliseconds.
//!
//! What is handed over can no longer be overtaken. On a slow uplink that is one record; on a fast one several records share a system call.

use std::time::Duration;

use camagent_proto::{Instant, frame::MAX_RECORD};

/// The most that is handed over at once: eight records and what TLS and WebSocket add fit into two packets as large as the kernel makes them.
pub(crate) const MAX_BURST: usize = 130_600;
/// What has been handed over is to leave within this time.
const WITHIN: Duration = Duration::from_millis(4);
/// The rate is measured anew so often.
const WINDOW: Duration = Duration::from_millis(50);

/// Measures what leaves.
#[derive(Debug)]
pub(crate) struct Burst {
    since: Instant,
    sent: usize,
    size: usize,
}

impl Burst {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, sent: 0, size: MAX_RECORD }
    }

    /// So many octets may be handed over before the next look at the socket.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// `octets` have left.
    pub(crate) fn sent(&mut self, now: Instant, octets: usize) {
        self.sent += octets;
        let elapsed = now.saturating_since(self.since);
        if elapsed >= WINDOW {
            let of_window = WITHIN.as_secs_f64() / elapsed.as_secs_f64() * self.sent as f64;
            self.size = (of_window as usize).clamp(MAX_RECORD, MAX_BURST);
            self.since = now;
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_uplink_gets_one_record_and_a_fast_one_several() {
        let mut now = Instant::from_micros(1);
        let mut burst = Burst::new(now);
        for (rate, expected) in [(250_000, MAX_RECORD), (100_000_000, MAX_BURST), (8_000_000, 32_000)] {
            for _ in 0..100 {
                now = now + Duration::from_millis(1);
                burst.sent(now, rate / 1_000);
            }
            let size = burst.size();
            assert!(size.abs_diff(expected) <= expected / 10, "{rate} octets a second: {size}");
        }
    }
}
