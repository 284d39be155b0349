//! The agent's clock: boot time, which counts through suspend and never steps. The only place that reads it. And how a time of day is written.

use std::time::Duration;

use camagent_proto::Instant;

/// Now, on the boot-time clock.
pub(crate) fn now() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if result != 0 {
        // Kernels before 2.6.39 have no boot-time clock; the monotonic one differs by suspend only.
        // SAFETY: as above.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    }
    let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1_000;
    Instant::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A time since 1970 as RFC 3339 writes it, in UTC with milliseconds: `2026-05-04T10:11:12.345Z`.
pub fn rfc3339(since_1970: Duration) -> String {
    let (seconds, millis) = (since_1970.as_secs(), since_1970.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their leap day last: 400 of them have 146 097 days, and the months behind March a pattern of 153 in five.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        let written = |seconds, millis| rfc3339(Duration::from_secs(seconds) + Duration::from_millis(millis));
        assert_eq!(written(0, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(written(951_782_399, 0), "2000-02-28T23:59:59.000Z");
        assert_eq!(written(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(written(1_709_251_200, 0), "2024-03-01T00:00:00.000Z");
        assert_eq!(written(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(written(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn it_goes_forward() {
        let first = now();
        assert!(first > Instant::ZERO && now() >= first);
    }
}
