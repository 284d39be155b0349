//! How often a peer may do what costs it nothing: counted in windows of ten seconds.

use crate::{
    error::Error,
    time::{Duration, Instant},
};

/// The length of a window.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// Counts one kind of thing.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    since: Instant,
    count: u64,
    /// What was counted in the window before.
    before: u64,
}

impl Pace {
    /// One more; an error when it is one too many.
    pub(crate) fn count(&mut self, now: Instant, limit: &'static str, allowed: u64) -> Result<(), Error> {
        self.turn(now);
        self.count += 1;
        if self.count > allowed {
            return Err(Error::Limit { limit, allowed, got: self.count });
        }
        Ok(())
    }

    /// Until when nothing more may be done, when `allowed` are done already; otherwise counts one more.
    pub(super) fn take(&mut self, now: Instant, allowed: u64) -> Option<Instant> {
        self.turn(now);
        if self.count >= allowed {
            return Some(self.since + WINDOW);
        }
        self.count += 1;
        None
    }

    /// What was counted in this window and the one before.
    pub(super) fn lately(&mut self, now: Instant) -> u64 {
        self.turn(now);
        self.before + self.count
    }

    fn turn(&mut self, now: Instant) {
        let since = now.saturating_since(self.since);
        if since >= WINDOW {
            self.before = if since >= WINDOW * 2 { 0 } else { self.count };
            self.since = now;
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lets_so_many_through_and_then_waits() {
        let mut pace = Pace::default();
        let now = Instant::ZERO + WINDOW;
        assert_eq!((pace.take(now, 2), pace.take(now, 2)), (None, None));
        assert_eq!(pace.take(now, 2), Some(now + WINDOW));
        assert_eq!(pace.lately(now), 2);
        assert_eq!(pace.take(now + WINDOW, 2), None);
        assert_eq!(pace.lately(now + WINDOW), 3);
        assert!(pace.count(now + WINDOW, "test", 2).is_ok());
        assert!(matches!(pace.count(now + WINDOW, "test", 2), Err(Error::Limit { allowed: 2, got: 3, .. })));
        assert_eq!(pace.lately(now + WINDOW * 3), 0);
    }
}
