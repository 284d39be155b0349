//! Time as the protocol sees it: microseconds of a clock that the driver reads.
//!
//! The agent's driver gives its boot-time clock, which counts through suspend and never steps; the server's gives a
//! monotonic clock. What does not belong here: reading a clock.

pub use core::time::Duration;

/// A point on the driver's clock, in microseconds from that clock's own zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's zero.
    pub const ZERO: Self = Self(0);

    /// The point `micros` microseconds after the clock's zero.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long `earlier` is ago; zero when it is not in the past.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock, 584 000 years from its zero.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Instant::from_micros(5), Instant::from_micros(9));
        assert_eq!(late.saturating_since(early), Duration::from_micros(4));
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert_eq!(Instant::from_micros(u64::MAX) + Duration::from_secs(1), Instant::from_micros(u64::MAX));
    }
}
