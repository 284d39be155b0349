//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
//!
//! A date is compared with the answer's own `Date` where there is one: a camera's clock may be years off.

use std::time::{Duration, SystemTime};

/// The seconds that `value` asks for; `None` when it is neither a number nor a date.
pub(crate) fn seconds(value: &str, date: Option<&str>) -> Option<u64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(seconds);
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or(Duration::ZERO).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_the_servers_clock_counts() {
        let (noon, later) = ("Sun, 06 Nov 1994 12:00:00 GMT", "Sun, 06 Nov 1994 12:02:05 GMT");
        assert_eq!(seconds(" 120 ", None), Some(120));
        assert_eq!(seconds(later, Some(noon)), Some(125));
        assert_eq!(seconds(noon, Some(later)), Some(0), "past");
        assert_eq!(seconds(noon, None), Some(0), "long past by the own clock");
        for wrong in ["", "-1", "1.5", "soon"] {
            assert_eq!(seconds(wrong, Some(noon)), None, "{wrong}");
        }
    }
}
