//! When frames of the past may be sent, by the time of day: `storage.backfill_window`.
//!
//! The time is the server's, because cameras' clocks are wrong; before a server has told it, the machine's own. The time zone is the
//! machine's. While the time is not known everything may be sent.

use std::time::{Duration, SystemTime};

use camagent_proto::Instant;

use super::Driver;
use crate::config::Window;

/// It is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A clock that shows less, 2025, was never set.
const PLAUSIBLE: Duration = Duration::from_secs(1_735_689_600);

/// The window, and what is known of the time.
#[derive(Debug)]
pub(crate) struct Hours {
    window: Option<Window>,
    /// The server's time in milliseconds since 1970, and when it was told.
    told: Option<(u64, Instant)>,
    looked_at: Option<Instant>,
}

impl Hours {
    pub(crate) fn new(window: Option<Window>) -> Self {
        Self { window, told: None, looked_at: None }
    }

    /// The server has told the time, in milliseconds since 1970; 0 when it has not.
    pub(super) fn told(&mut self, now: Instant, time_ms: u64) {
        if time_ms > 0 {
            (self.told, self.looked_at) = (Some((time_ms, now)), None);
        }
    }

    /// When it is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.window?;
        Some(self.looked_at.map_or(Instant::ZERO, |at| at + LOOK_EVERY))
    }

    /// Whether frames of the past may be sent; `None` when it is too early to look again.
    fn look(&mut self, now: Instant, minute_of: impl Fn(u64) -> Option<u16>) -> Option<bool> {
        let window = self.window?;
        if self.deadline().is_some_and(|at| at > now) {
            return None;
        }
        self.looked_at = Some(now);
        let since = |at: Instant| u64::try_from(now.saturating_since(at).as_millis()).unwrap_or(u64::MAX);
        let utc_ms = self.told.map_or_else(own_time_ms, |(time_ms, at)| Some(time_ms.saturating_add(since(at))));
        Some(utc_ms.and_then(minute_of).is_none_or(|minute| window.contains(minute)))
    }
}

fn own_time_ms() -> Option<u64> {
    let utc = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().filter(|utc| *utc >= PLAUSIBLE)?;
    u64::try_from(utc.as_millis()).ok()
}

/// The minute of the day in the machine's time zone.
fn local_minute(utc_ms: u64) -> Option<u16> {
    let seconds = libc::time_t::try_from(utc_ms / 1_000).ok()?;
    // SAFETY: all-zero octets are a valid `tm`; the call reads the one and fills the other, which both live through it.
    let (done, local) = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        let done = libc::localtime_r(&raw const seconds, &raw mut local);
        (!done.is_null(), local)
    };
    let minute = u16::try_from(local.tm_hour * 60 + local.tm_min).ok()?;
    done.then_some(minute)
}

impl Driver {
    /// Lets frames of the past wait, or go on, as the time of day says.
    pub(super) fn keep_hours(&mut self, now: Instant) {
        if let Some(is_open) = self.hours.look(now, local_minute) {
            self.session.set_backfill_paused(!is_open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_opens_and_closes_the_window() {
        let mut hours = Hours::new(Window::parse("22:00-06:00"));
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let minute_of = |utc_ms: u64| u16::try_from(utc_ms / 60_000 % 1_440).ok();
        assert_eq!(hours.deadline(), Some(Instant::ZERO));
        hours.told(at(100), (21 * 3_600 + 59 * 60 + 55) * 1_000);
        assert_eq!(hours.look(at(100), minute_of), Some(false));
        assert_eq!(hours.look(at(105), minute_of), None, "too early");
        assert_eq!(hours.deadline(), Some(at(110)));
        assert_eq!(hours.look(at(110), minute_of), Some(true));
        assert_eq!(hours.look(at(110 + 8 * 3_600), minute_of), Some(false));
        hours.told(at(130 + 8 * 3_600), 0);
        assert_eq!(hours.look(at(131 + 8 * 3_600), |_| None), Some(true), "the time is not known");
        assert_eq!(Hours::new(None).look(at(1), minute_of), None);
        assert_eq!(Hours::new(None).deadline(), None);
    }

    #[test]
    fn the_machine_knows_its_time_of_day() {
        assert!(local_minute(1_700_000_000_000).is_some_and(|minute| minute < 1_440));
        assert!(own_time_ms().is_some());
    }
}
