//! Credit (RFC 9000 section 4): limits are absolute, counted from the beginning, and never go down.
//!
//! A window is what its owner takes on top of what was consumed. It grows while its user empties it faster than credit travels, and falls
//! back after a pause, so that memory is promised only to streams that use it.

use crate::{
    error::Error,
    time::{Duration, Instant},
};

/// A window that was not renewed for so long falls back to its initial size.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Counts as the round trip until one was measured.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(100);

/// What a peer may still send.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    limit: u64,
    used: u64,
}

impl Allowance {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn spend(&mut self, amount: u64) {
        self.used = self.used.saturating_add(amount);
    }

    /// Takes a new limit; `false` when it is none.
    pub(super) fn raise(&mut self, limit: u64) -> bool {
        let higher = limit > self.limit;
        self.limit = self.limit.max(limit);
        higher
    }
}

/// What this end takes.
#[derive(Debug)]
pub(super) struct Window {
    initial: u64,
    size: u64,
    limit: u64,
    received: u64,
    consumed: u64,
    renewed_at: Instant,
}

impl Window {
    pub(super) fn new(size: u64, now: Instant) -> Self {
        Self { initial: size, size, limit: size, received: 0, consumed: 0, renewed_at: now }
    }

    /// The peer sent `amount`.
    pub(super) fn receive(&mut self, credit: &'static str, amount: u64) -> Result<(), Error> {
        let received = self.received.saturating_add(amount);
        if received > self.limit {
            return Err(Error::Credit { credit, allowed: self.limit, got: received });
        }
        self.received = received;
        Ok(())
    }

    /// The peer gives back `amount` of what it may still send: the window is as small as at first.
    pub(super) fn give_back(&mut self, amount: u64) -> Result<(), Error> {
        self.receive("RETURN_STREAM_DATA", amount)?;
        self.consume(amount);
        self.size = self.initial;
        Ok(())
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn consume(&mut self, amount: u64) {
        self.consumed = self.consumed.saturating_add(amount).min(self.received);
    }

    /// What the peer may make this end hold: octets that wait, and credit that is out.
    pub(super) fn promised(&self) -> u64 {
        self.limit - self.consumed
    }

    /// Whether half of the window was consumed since the last credit.
    pub(super) fn is_due(&self) -> bool {
        self.limit < self.consumed.saturating_add(self.size / 2 + self.size % 2)
    }

    /// How much the window would like to grow when it is renewed now: its own size when its user empties it within two round trips.
    pub(super) fn wish(&self, now: Instant, round_trip: Duration, largest: u64) -> u64 {
        let round_trip = if round_trip.is_zero() { UNKNOWN_ROUND_TRIP } else { round_trip };
        let fast = now.saturating_since(self.renewed_at) < round_trip * 2;
        if fast { (largest.saturating_sub(self.size)).min(self.size) } else { 0 }
    }

    /// Gives new credit, with a window that is larger by `growth`. The new limit, when there is one: after a pause the old one may be enough.
    pub(super) fn renew(&mut self, now: Instant, growth: u64) -> Option<u64> {
        if now.saturating_since(self.renewed_at) > IDLE {
            self.size = self.initial;
        }
        self.size += growth;
        self.renewed_at = now;
        let limit = self.consumed.saturating_add(self.size);
        (limit > self.limit).then(|| {
            self.limit = limit;
            limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_grows_while_it_is_emptied_fast_and_falls_back_after_a_pause() {
        let mut now = Instant::from_micros(1);
        let mut window = Window::new(100, now);
        for expected in [200, 400, 400] {
            window.receive("test", window.promised()).unwrap();
            window.consume(u64::MAX);
            assert!(window.is_due());
            now = now + 10 * MS;
            let growth = window.wish(now, 10 * MS, 400);
            window.renew(now, growth);
            assert_eq!(window.promised(), expected);
        }
        now = now + IDLE + MS;
        window.receive("test", 399).unwrap();
        window.consume(399);
        assert_eq!(window.wish(now, 10 * MS, 400), 0);
        assert_eq!(window.renew(now, 0), Some(1_199));
        assert_eq!(window.promised(), 100, "the promise of a pause is small again");
    }

    #[test]
    fn credit_is_absolute_and_overdrawing_is_told() {
        let mut allowance = Allowance::new(10);
        allowance.spend(10);
        assert!(!allowance.raise(10) && allowance.raise(12));
        assert_eq!(allowance.left(), 2);
        let mut window = Window::new(10, Instant::ZERO);
        window.receive("MAX_DATA", 10).unwrap();
        let error = window.receive("MAX_DATA", 1).unwrap_err();
        assert_eq!(error, Error::Credit { credit: "MAX_DATA", allowed: 10, got: 11 });
        assert_eq!(error.close_code().number(), 4014);
    }
}
