//! When a viewer's silence becomes the end, as a value: time is an argument.
//!
//! Media that drains is a sign of life of its own (many players never say a word again), so there is no deadline while
//! it plays; a connection that takes no data is the writer's business.

use std::time::Duration;

use tokio::time::Instant;

/// How long the first request, and any request once begun, may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What a session may be late beyond the announced time-out: some clients send exactly then.
const GRACE: Duration = Duration::from_secs(5);

/// What was heard, and when.
#[derive(Debug)]
pub struct Liveness {
    session_timeout: Duration,
    accepted: Instant,
    last_heard: Instant,
    partial_since: Option<Instant>,
    spoke: bool,
}

impl Liveness {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(session_timeout: Duration, now: Instant) -> Self {
        Self { session_timeout, accepted: now, last_heard: now, partial_since: None, spoke: false }
    }

    /// Bytes came: a request, RTCP, anything.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// A whole message was taken out.
    pub fn understood(&mut self) {
        self.spoke = true;
        self.partial_since = None;
    }

    /// Everything that came was taken out, but for the begin of a message.
    pub fn waits_for_rest(&mut self, partial: bool, now: Instant) {
        self.partial_since = if partial { self.partial_since.or(Some(now)) } else { None };
    }

    /// When to close, unless something happens before.
    #[must_use]
    pub fn deadline(&self, playing: bool) -> Option<Instant> {
        let request = self.partial_since.map(|since| since + REQUEST_TIMEOUT);
        let session = match (self.spoke, playing) {
            // Whatever drips in without ever being a request does not count.
            (false, _) => Some(self.accepted + REQUEST_TIMEOUT),
            (true, true) => None,
            (true, false) => Some(self.last_heard + self.session_timeout + GRACE),
        };
        match (request, session) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_loris_has_ten_seconds_for_a_request() {
        let now = Instant::now();
        let mut liveness = Liveness::new(60 * SECOND, now);
        assert_eq!(liveness.deadline(false), Some(now + 10 * SECOND));
        for second in 1..9 {
            liveness.heard(now + second * SECOND);
            liveness.waits_for_rest(true, now + second * SECOND);
        }
        assert_eq!(liveness.deadline(false), Some(now + 10 * SECOND), "dripping bytes gain nothing");
        liveness.understood();
        liveness.waits_for_rest(true, now + 20 * SECOND);
        assert_eq!(liveness.deadline(true), Some(now + 30 * SECOND), "later requests neither");
    }

    #[test]
    fn a_session_has_its_time_and_some_grace_and_a_playing_one_all_time() {
        let now = Instant::now();
        let mut liveness = Liveness::new(60 * SECOND, now);
        liveness.heard(now + SECOND);
        liveness.understood();
        liveness.waits_for_rest(false, now + SECOND);
        assert_eq!(liveness.deadline(false), Some(now + 66 * SECOND));
        assert_eq!(liveness.deadline(true), None);
        liveness.heard(now + 50 * SECOND);
        assert_eq!(liveness.deadline(false), Some(now + 115 * SECOND), "any bytes are a sign of life");
    }
}
