//! Another sender's queue in front of the same link: it makes octets wait however few of them are on their way.
//!
//! Who then goes on holding back ends with nothing, because a sender that fills queues until they overflow takes whatever is left to it. The signs
//! are experiments: a queue of one's own shrinks with what is on its way, another's does not; and where more on its way brings more
//! acknowledgements in return, there was more to be had. So this value sets a floor under the allowance while a rival is there, raises it as long as
//! that pays, up to a half of what the link carried before, and takes it away when the queue turns out to be its own.

use crate::time::{Duration, Instant};

/// Octets wait for too long, in spite of a small allowance, at least for this time.
const EVIDENCE: Duration = Duration::from_millis(800);
/// The part of what the link carried before that is taken beside a rival, and no more: each of the rival's losses is one of live audio too, the
/// oftener the more is on its way.
const SHARE: u64 = 2;
/// Between experiments that brought nothing.
const REST: Duration = Duration::from_secs(4);
/// The best of so long ago is what the link usually carries.
const CALM_MEMORY: Duration = Duration::from_secs(10);
/// After a queue turned out to be one's own.
const LONG_REST: Duration = Duration::from_secs(20);

/// What was measured from one time to another.
#[derive(Clone, Copy, Debug)]
struct Period {
    since: Instant,
    acknowledged: u64,
}

#[derive(Clone, Copy, Debug)]
enum Experiment {
    /// What the present floor brings.
    Watch,
    /// More: whether that brings more, in octets a second.
    Raised { rate_before: u64 },
    /// Less: whether octets wait for less time.
    Lowered { waited_before: Duration },
}

/// What a governor sees when octets come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) now: Instant,
    /// How long the newest octets waited in queues.
    pub(super) waited: Duration,
    pub(super) round_trip: Duration,
    /// All that was ever acknowledged.
    pub(super) acknowledged: u64,
    /// What the governor would allow without a floor.
    pub(super) allowance: u64,
    /// What is on its way. What must not wait goes beyond the allowance, and a floor below that would change nothing.
    pub(super) in_flight: u64,
    pub(super) rate: u64,
}

/// What the link carried lately when no queue stood in front of it.
#[derive(Clone, Copy, Debug)]
struct Calm {
    at: Instant,
    allowance: u64,
    rate: u64,
}

/// A rival at the bottleneck, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Rival {
    calm: Option<Calm>,
    /// Since when octets wait although few are on their way.
    crowded_since: Option<Instant>,
    floor: u64,
    experiment: Option<(Experiment, Period)>,
    waited: Duration,
    rest_until: Instant,
}

impl Rival {
    /// So much may be on its way in any case.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Octets came back. `limit` is the longest wait that a queue of one's own explains.
    pub(super) fn look(&mut self, sight: Sight, limit: Duration) {
        let Sight { now, allowance, rate, .. } = sight;
        if sight.waited < limit {
            self.end();
            let is_old = |calm: Calm| rate >= calm.rate || now.saturating_since(calm.at) > CALM_MEMORY;
            if self.calm.is_none_or(is_old) {
                self.calm = Some(Calm { at: now, allowance, rate });
            }
            return;
        }
        let Some(calm) = self.calm else { return };
        let since = *self.crowded_since.get_or_insert(now);
        if self.floor > 0 {
            self.experiment(sight, calm);
            return;
        }
        let shrank = allowance <= calm.allowance / 2;
        let long_enough = now.saturating_since(since) >= EVIDENCE.max(2 * sight.round_trip);
        if shrank && long_enough && now >= self.rest_until {
            self.floor = calm.allowance.max(sight.in_flight);
            self.begin(Experiment::Watch, sight);
        }
    }

    fn end(&mut self) {
        (self.crowded_since, self.floor, self.experiment) = (None, 0, None);
    }

    fn begin(&mut self, experiment: Experiment, sight: Sight) {
        self.waited = sight.waited;
        self.experiment = Some((experiment, Period { since: sight.now, acknowledged: sight.acknowledged }));
    }

    fn experiment(&mut self, sight: Sight, calm: Calm) {
        let Some((experiment, period)) = self.experiment else { return };
        if sight.waited < self.waited / 2 {
            // Somebody has gone: what is left may be one's own.
            self.end();
            return;
        }
        let elapsed = sight.now.saturating_since(period.since);
        // What is acknowledged in the first round trip was on its way before.
        let is_watching = matches!(experiment, Experiment::Watch);
        if elapsed < sight.round_trip * 2 || (is_watching && sight.now < self.rest_until) {
            return;
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let octets = u128::from(sight.acknowledged - period.acknowledged) * 1_000_000;
        let rate = u64::try_from(octets / u128::from(micros)).unwrap_or(u64::MAX);
        match experiment {
            Experiment::Watch => self.raise(sight, rate, calm),
            // Twice as much for half of the time.
            Experiment::Raised { rate_before } if rate > rate_before + rate_before / 5 => self.raise(sight, rate, calm),
            Experiment::Raised { .. } => {
                let waited_before = sight.waited;
                self.floor = (self.floor.min(sight.in_flight) / 3).max(1);
                self.begin(Experiment::Lowered { waited_before }, sight);
            }
            // A third on its way is a third of the queue, if that is all one's own, and most of the queue otherwise.
            Experiment::Lowered { waited_before } if sight.waited < waited_before / 2 => {
                self.end();
                self.rest_until = sight.now + LONG_REST;
            }
            Experiment::Lowered { .. } => {
                self.floor = self.floor * 3 / 2;
                self.rest_until = sight.now + REST;
                self.begin(Experiment::Watch, sight);
            }
        }
    }

    fn raise(&mut self, sight: Sight, rate: u64, calm: Calm) {
        let micros = u64::try_from(sight.round_trip.as_micros()).unwrap_or(u64::MAX);
        let most = u128::from(calm.rate / SHARE) * u128::from(micros) / 1_000_000;
        let most = u64::try_from(most).unwrap_or(u64::MAX).max(calm.allowance);
        if self.floor >= most {
            self.floor = most;
            self.rest_until = sight.now + REST;
            self.begin(Experiment::Watch, sight);
            return;
        }
        self.floor = (self.floor.max(sight.in_flight) * 2).min(most);
        self.begin(Experiment::Raised { rate_before: rate }, sight);
    }
}
