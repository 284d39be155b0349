//! How often something is told that a peer can bring about at will: so many in a second, and of the others only how many they were.
//! What does not belong here: what is told, and to whom (`host`).

use std::time::Duration;

use camagent_proto::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Lets the first few of each second through.
pub(crate) struct Rarely {
    allowed: u32,
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Rarely {
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, since: Instant::ZERO, told: 0, left_out: 0 }
    }

    /// Whether one more is told now, and how many were left out before it.
    pub(super) fn take(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_since(self.since) >= SECOND {
            (self.since, self.told) = (now, 0);
        }
        if self.told == self.allowed {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// How many were left out, once none came behind them that told it.
    pub(super) fn rest(&mut self, now: Instant) -> Option<u64> {
        self.deadline().filter(|at| *at <= now)?;
        self.take(now)
    }

    /// When [`Rarely::rest`] has something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.left_out > 0).then(|| self.since + SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_second_are_told_and_the_others_counted() {
        let mut rarely = Rarely::new(2);
        let now = Instant::from_micros(5_000_000);
        let told: Vec<_> = (0..5).map(|_| rarely.take(now)).collect();
        assert_eq!(told, [Some(0), Some(0), None, None, None]);
        assert_eq!((rarely.rest(now), rarely.deadline()), (None, Some(now + SECOND)));
        assert_eq!(rarely.take(now + SECOND), Some(3));
        assert_eq!((rarely.take(now + SECOND), rarely.take(now + SECOND)), (Some(0), None));
        assert_eq!(rarely.rest(now + SECOND * 2), Some(1));
        assert_eq!((rarely.rest(now + SECOND * 9), rarely.deadline()), (None, None));
    }
}
