//! Spreads what may be on its way over a round trip: handed over at once it would need a queue that holds it all.
//!
//! A bucket that fills with time and holds a few packets. What the kernel does not have yet can still be overtaken by what is more urgent: that is why
//! the kernel's own pace, which only spreads what its window lets go at once, is a little faster.
//!
//! A value: octets and time in, room out.

use crate::time::{Duration, Instant};

/// Octets that may leave, filling with time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    at: Option<Instant>,
    /// In octets; what could not wait goes below.
    room: i64,
}

impl Pace {
    /// Time passes: `octets` may leave in a `round_trip`, at most `burst` at once.
    pub(super) fn pass(&mut self, now: Instant, octets: u64, round_trip: Duration, burst: u64) {
        let signed = |octets: u128| i64::try_from(octets).unwrap_or(i64::MAX);
        let elapsed = self.at.map_or(round_trip, |at| now.saturating_since(at));
        let more = u128::from(octets) * elapsed.as_micros() / round_trip.as_micros().max(1);
        if more > 0 {
            self.at = Some(now);
            let burst = signed(u128::from(burst));
            self.room = self.room.max(-burst).saturating_add(signed(more)).min(burst);
        }
    }

    /// `octets` have left.
    pub(super) fn sent(&mut self, octets: u64) {
        self.room = self.room.saturating_sub(i64::try_from(octets).unwrap_or(i64::MAX));
    }

    /// So many may leave now.
    pub(super) fn room(&self) -> u64 {
        u64::try_from(self.room).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_leave_evenly_and_a_pause_saves_up_little() {
        let (mut pace, mut now, mut sent) = (Pace::default(), Instant::from_micros(1), 0);
        for _ in 0..10_000 {
            now = now + Duration::from_micros(100);
            pace.pass(now, 60_000, Duration::from_millis(600), 3_000);
            let room = pace.room();
            if room >= 1_500 {
                pace.sent(1_500);
                sent += 1_500;
            }
        }
        assert!((100_000..=104_500).contains(&sent), "{sent} in a second");
        now = now + Duration::from_secs(60);
        pace.pass(now, 60_000, Duration::from_millis(600), 3_000);
        assert_eq!(pace.room(), 3_000);
        pace.sent(5_000);
        assert_eq!(pace.room(), 0);
    }
}
