//! How long to wait before the next attempt: full jitter, and patience that depends on why the last one ended.

use std::time::Duration;

use camagent_proto::{CloseCode, Error as ProtocolError, Instant};

use crate::error::Error;

/// While an outage is younger than this, the configured pause holds; afterwards [`LONG_PAUSE`].
const YOUNG: Duration = Duration::from_secs(300);
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// The first pause of an outage is at most this.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lived this long ends the outage.
const STABLE: Duration = Duration::from_secs(60);
/// The longest pause after a refusal that only a person can lift.
const REFUSED_PAUSE: Duration = Duration::from_secs(3_600);
/// Who was replaced by a newer connection stays away at least this long.
const REPLACED_PAUSE: Duration = Duration::from_secs(30);

/// Why the last attempt ended, as far as it matters for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The network, the server, or who knows.
    Trouble,
    /// Wrong token, unknown agent, wrong version: trying often does not help.
    Refused,
    /// A newer connection of the same agent took over.
    Replaced,
    /// The server goes away, for all its agents.
    Goaway {
        /// Come back at a random moment within this time.
        spread: Duration,
    },
    /// The server, or a proxy, said when to come back.
    RetryAfter {
        /// Not before.
        after: Duration,
    },
    /// The agent itself wants a new session at once.
    Restart,
}

impl Ending {
    /// A server said when to come back: no more than an hour counts.
    pub(crate) fn retry_after(after: Duration) -> Self {
        Ending::RetryAfter { after: after.min(REFUSED_PAUSE) }
    }

    /// What an error means for the next attempt.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Http { retry_after_s: Some(seconds), .. } | Error::Proxy { retry_after_s: Some(seconds), .. } => {
                Ending::retry_after(Duration::from_secs(*seconds))
            }
            Error::Http { status: 401 | 403 | 404 | 410 | 426, .. } | Error::Proxy { status: 401 | 403 | 407, .. } => {
                Ending::Refused
            }
            Error::Session(error) => match (error, error.close_code()) {
                (_, CloseCode::Replaced) => Ending::Replaced,
                (
                    _,
                    CloseCode::AuthFailed
                    | CloseCode::AuthExpired
                    | CloseCode::Forbidden
                    | CloseCode::AgentRemoved
                    | CloseCode::VersionUnsupported,
                ) => Ending::Refused,
                (ProtocolError::Incompatible { .. }, _) => Ending::Refused,
                _ => Ending::Trouble,
            },
            _ => Ending::Trouble,
        }
    }
}

/// A random time of at most so much.
pub(super) fn within(longest: Duration, random: u64) -> Duration {
    longest.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

/// One owner of the pauses between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    attempts: u32,
    /// Refusals in a row: other trouble does not make them graver.
    refusals: u32,
    outage_since: Option<Instant>,
}

impl Backoff {
    /// `pause` is the longest pause of a young outage.
    pub(crate) fn new(pause: Duration) -> Self {
        Self { pause, attempts: 0, refusals: 0, outage_since: None }
    }

    /// The pause after an attempt or session that ended at `now`; `lived` is how long the session was established, zero without one.
    /// `random` is a fresh random number.
    pub(crate) fn next(&mut self, now: Instant, ending: Ending, lived: Duration, random: u64) -> Duration {
        if lived >= STABLE {
            (self.attempts, self.outage_since) = (0, None);
        }
        let since = *self.outage_since.get_or_insert(now);
        let exponent = self.attempts.min(20);
        self.attempts += 1;
        let within = |longest| within(longest, random);
        let refusals = if ending == Ending::Refused { self.refusals } else { 0 };
        self.refusals = if ending == Ending::Refused { refusals + 1 } else { 0 };
        let is_young = now.saturating_since(since) < YOUNG;
        let cap = if is_young { self.pause } else { self.pause.max(LONG_PAUSE) };
        let trouble = within((FIRST_PAUSE * 2_u32.pow(exponent)).min(cap));
        // A server that sends away again and again does not get a busy loop for it.
        let least = if exponent > 0 { trouble } else { Duration::ZERO };
        match ending {
            Ending::Restart => least,
            Ending::Goaway { spread } => within(spread).max(least),
            Ending::RetryAfter { after } => (after + within(after / 4 + FIRST_PAUSE)).max(least),
            Ending::Replaced => REPLACED_PAUSE + within(REPLACED_PAUSE),
            Ending::Refused => {
                let longest = (LONG_PAUSE * 2_u32.pow(refusals.min(10))).min(REFUSED_PAUSE);
                longest / 2 + within(longest / 2)
            }
            Ending::Trouble => trouble,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = u64::MAX;

    fn seconds(at: u64) -> Instant {
        Instant::from_micros(at * 1_000_000)
    }

    #[test]
    fn pauses_grow_to_the_configured_one_and_later_to_a_minute() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let pauses: Vec<u64> = (0..6)
            .map(|_| backoff.next(seconds(1), Ending::Trouble, Duration::ZERO, MOST).as_secs_f64().round() as u64)
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        let late = backoff.next(seconds(400), Ending::Trouble, Duration::ZERO, MOST);
        assert_eq!(late.as_secs_f64().round(), 60.0);
        assert_eq!(backoff.next(seconds(400), Ending::Trouble, Duration::ZERO, 0), Duration::ZERO, "full jitter");
        let after_a_good_session = backoff.next(seconds(900), Ending::Trouble, Duration::from_secs(61), MOST);
        assert_eq!(after_a_good_session.as_secs_f64().round(), 1.0);
    }

    #[test]
    fn refusals_slow_down_to_hours_and_the_replaced_stay_away() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        assert!(backoff.next(seconds(1), Ending::Refused, Duration::ZERO, 0) >= Duration::from_secs(30));
        for _ in 0..10 {
            backoff.next(seconds(1), Ending::Refused, Duration::ZERO, 0);
        }
        assert!(backoff.next(seconds(1), Ending::Refused, Duration::ZERO, 0) >= Duration::from_secs(1_800));
        assert!(backoff.next(seconds(1), Ending::Replaced, Duration::ZERO, 0) >= REPLACED_PAUSE);
    }

    #[test]
    fn one_refusal_after_long_trouble_is_not_graver_than_the_first() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        for _ in 0..10 {
            backoff.next(seconds(1), Ending::Trouble, Duration::ZERO, MOST);
        }
        assert!(backoff.next(seconds(1), Ending::Refused, Duration::ZERO, MOST) <= LONG_PAUSE);
    }

    #[test]
    fn a_server_that_sends_away_again_and_again_makes_no_busy_loop() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let later = Ending::RetryAfter { after: Duration::from_secs(3) };
        assert_eq!(backoff.next(seconds(1), later, Duration::ZERO, 0), Duration::from_secs(3));
        let at_once = Ending::Goaway { spread: Duration::ZERO };
        for _ in 0..3 {
            assert!(backoff.next(seconds(1), at_once, Duration::ZERO, MOST) > Duration::from_secs(1));
            assert!(backoff.next(seconds(1), Ending::Restart, Duration::ZERO, MOST) > Duration::from_secs(1));
        }
        assert_eq!(backoff.next(seconds(99), Ending::Restart, STABLE, MOST), Duration::ZERO);
    }

    #[test]
    fn errors_are_sorted() {
        let http = |status, retry_after_s| Error::Http { status, detail: String::new(), retry_after_s };
        assert_eq!(Ending::of(&http(401, None)), Ending::Refused);
        assert_eq!(Ending::of(&http(500, None)), Ending::Trouble);
        assert_eq!(Ending::of(&http(503, Some(7))), Ending::RetryAfter { after: Duration::from_secs(7) });
        let proxy = |status| Error::Proxy { proxy: String::new(), server: String::new(), status, retry_after_s: None };
        assert_eq!((Ending::of(&proxy(407)), Ending::of(&proxy(502))), (Ending::Refused, Ending::Trouble));
        let closed = |code| Error::Session(ProtocolError::ClosedByPeer { code, detail: String::new() });
        assert_eq!(Ending::of(&closed(4009)), Ending::Replaced);
        assert_eq!(Ending::of(&closed(4001)), Ending::Refused);
        assert_eq!(Ending::of(&closed(1006)), Ending::Trouble);
    }
}
