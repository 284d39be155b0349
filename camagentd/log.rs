//! Log lines on standard error: time in UTC, level, text. One line is one write, so lines of threads do not mix.

use std::{
    fmt,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Writes to standard error what is not more detailed than its level.
#[derive(Debug)]
pub(crate) struct StandardError {
    most: LevelFilter,
}

impl StandardError {
    pub(crate) fn new(most: LevelFilter) -> Self {
        Self { most }
    }

    /// A line of the daemon itself.
    pub(crate) fn info(&self, text: fmt::Arguments<'_>) {
        self.log(&Record::builder().level(Level::Info).args(text).build());
    }
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.most
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = utc(since_1970.as_secs(), since_1970.subsec_millis());
            // Line ends in what a server says must not look like lines of our own.
            let text = record.args().to_string().replace(['\n', '\r'], " ");
            // With standard error closed there is nobody to tell.
            let _ = std::io::stderr().write_all(format!("{time} {:<5} {text}\n", record.level()).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// RFC 3339 with milliseconds.
fn utc(seconds: u64, millis: u32) -> String {
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
        assert_eq!(utc(0, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(utc(951_782_399, 0), "2000-02-28T23:59:59.000Z");
        assert_eq!(utc(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(utc(1_709_251_200, 0), "2024-03-01T00:00:00.000Z");
        assert_eq!(utc(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(utc(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
