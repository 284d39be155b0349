//! How long to wait before a camera is asked again: doubling pauses with jitter, and a slow pace while it refuses the password.

use std::time::Duration;

use crate::config::PullPace;

/// The pauses of one source.
#[derive(Debug)]
pub(super) struct Patience {
    pace: PullPace,
    failures: u32,
    /// Sessions in a row that ended soon because nobody wanted them any more.
    short: u32,
}

impl Patience {
    pub(super) fn new(pace: PullPace) -> Self {
        Self { pace, failures: 0, short: 0 }
    }

    /// A failure in a row of its own, the first of an outage?
    pub(super) fn is_calm(&self) -> bool {
        self.failures == 0
    }

    /// The camera sends pictures for a while: the outage is over.
    pub(super) fn calm_down(&mut self) {
        (self.failures, self.short) = (0, 0);
    }

    /// The pause after another failure: `random` spreads it over the half below the whole.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let pause = self.doubled(self.failures);
        self.failures = self.failures.saturating_add(1);
        jittered(pause, random)
    }

    /// The pause after a session that nobody wanted for long: a server that changes its mind all the time wears no camera out. It is no
    /// failure.
    pub(super) fn left_soon(&mut self, random: u64) -> Duration {
        let pause = self.doubled(self.short);
        self.short = self.short.saturating_add(1);
        jittered(pause, random)
    }

    fn doubled(&self, times: u32) -> Duration {
        self.pace.first.saturating_mul(1 << times.min(16)).min(self.pace.longest)
    }

    /// The pause after a refusal.
    pub(super) fn refused(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        // Never sooner, so that an account is not locked because of the jitter.
        self.pace.refused + jittered(self.pace.refused / 10, random)
    }
}

/// Half of it to all of it.
fn jittered(whole: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(random % 501).unwrap_or(0);
    whole / 2 + whole / 1_000 * thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut patience = Patience::new(PullPace::default());
        assert!(patience.is_calm());
        let pauses: Vec<u64> = (0..7).map(|_| patience.next(500).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(!patience.is_calm());
        patience.calm_down();
        assert_eq!(patience.next(0), Duration::from_millis(500));
        (0..100).for_each(|_| assert!(patience.next(u64::MAX) <= Duration::from_secs(30)));
    }

    #[test]
    fn short_sessions_pause_longer_and_longer_and_are_no_outage() {
        let mut patience = Patience::new(PullPace::default());
        let pauses: Vec<u64> = (0..3).map(|_| patience.left_soon(500).as_secs()).collect();
        assert_eq!((pauses, patience.is_calm()), (vec![1, 2, 4], true));
        assert_eq!(patience.next(500), Duration::from_secs(1));
        patience.calm_down();
        assert_eq!(patience.left_soon(500), Duration::from_secs(1));
    }

    #[test]
    fn a_refusal_waits_the_whole_pause_at_least() {
        let mut patience = Patience::new(PullPace::default());
        for random in [0, 250, 500, u64::MAX] {
            let pause = patience.refused(random);
            assert!(pause >= Duration::from_secs(60) && pause < Duration::from_secs(67), "{pause:?}");
        }
    }
}
