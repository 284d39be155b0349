//! How far away the server is, of the last few answers: a single slow one, behind a key frame or a hole in the radio, says nothing about that. Answers
//! are rare; that another device fills the uplink meanwhile is seen in what the kernel measures of every packet.
//!
//! A value: measured round trips go in, the one to reckon with comes out. What does not belong here: what follows from it (`liveness`).

use std::time::Duration;

/// The last ones of a connection.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    /// The newest first; zero: none.
    last: [Duration; 3],
    /// The kernel's, smoothed (RFC 6298); to the proxy, where there is one.
    smoothed: Duration,
}

impl RoundTrips {
    /// What the kernel measured while it connected; zero when it does not tell.
    pub(super) fn of_handshake(round_trip: Duration) -> Self {
        Self { last: [round_trip, Duration::ZERO, Duration::ZERO], smoothed: Duration::ZERO }
    }

    /// What the kernel measures now.
    pub(super) fn smoothed(&mut self, round_trip: Duration) {
        self.smoothed = round_trip;
    }

    /// The answer to a heartbeat took so long.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        self.last = [round_trip, self.last[0], self.last[1]];
    }

    /// The middle one of three answers, the shorter one of two, or what the kernel measures when that is longer; zero before the first.
    pub(super) fn usual(&self) -> Duration {
        let mut known: Vec<Duration> = self.last.into_iter().filter(|round_trip| !round_trip.is_zero()).collect();
        known.sort();
        known.get(known.len().saturating_sub(1) / 2).copied().unwrap_or_default().max(self.smoothed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_slow_answer_changes_nothing_and_two_do() {
        let mut round_trips = RoundTrips::of_handshake(ms(60));
        assert_eq!(round_trips.usual(), ms(60));
        for (measured, usual) in [(1_500, 60), (65, 65), (70, 70), (3_000, 70), (66, 70), (900, 900), (900, 900)] {
            round_trips.measured(ms(measured));
            assert_eq!(round_trips.usual(), ms(usual), "after {measured}");
        }
    }

    #[test]
    fn an_uplink_that_somebody_fills_is_known_before_the_next_answer() {
        let mut round_trips = RoundTrips::of_handshake(ms(20));
        round_trips.measured(ms(22));
        round_trips.smoothed(ms(1_100));
        assert_eq!(round_trips.usual(), ms(1_100));
        round_trips.smoothed(ms(25));
        round_trips.measured(ms(400));
        round_trips.measured(ms(400));
        assert_eq!(round_trips.usual(), ms(400), "to a proxy it is not far");
    }

    #[test]
    fn a_kernel_that_tells_nothing_is_no_round_trip_of_zero() {
        let mut round_trips = RoundTrips::of_handshake(Duration::ZERO);
        assert_eq!(round_trips.usual(), Duration::ZERO);
        round_trips.measured(ms(500));
        assert_eq!(round_trips.usual(), ms(500));
    }
}
