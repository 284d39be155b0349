//! How long to wait before a camera is asked again: doubling pauses with jitter, and a slow pace while it refuses the password.

use std::time::Duration;

use crate::config::PullPace;

/// The pauses of one source.
#[derive(Debug)]
pub(super) struct Patience {
    pace: PullPace,
    failures: u32,
}

impl Patience {
    pub(super) fn new(pace: PullPace) -> Self {
        Self { pace, failures: 0 }
    }

    /// A failure in a row of its own, the first of an outage?
    pub(super) fn is_calm(&self) -> bool {
        self.failures == 0
    }

    /// The camera sends pictures for a while: the outage is over.
    pub(super) fn calm_down(&mut self) {
        self.failures = 0;
    }

    /// The pause after another failure: `random` spreads it over the half below the whole.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        jittered(self.pace.first.saturating_mul(1 << doublings).min(self.pace.longest), random)
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
    fn a_refusal_waits_the_whole_pause_at_least() {
        let mut patience = Patience::new(PullPace::default());
        for random in [0, 250, 500, u64::MAX] {
            let pause = patience.refused(random);
            assert!(pause >= Duration::from_secs(60) && pause < Duration::from_secs(67), "{pause:?}");
        }
    }
}
