//! The month's octets against the data plan, as a value: totals and times go in, what stops now comes out.
//!
//! The first of `stops_first` stops at 80 % of the month's octets, the last at 100 %, those between at even steps. With the next month
//! everything goes on. How much was used before this boot only the server knows, and so does an agent without a clock which month it is.

use camagent_proto::{Duration, Instant};

use crate::config::DataPlan;

/// The shares, in percent, that are told.
const TOLD: [u8; 2] = [80, 100];
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The share of the month's octets that was passed last: 0, 80 or 100.
    pub(super) percent: u8,
    /// How many of `stops_first` are stopped.
    pub(super) stopped: usize,
    /// What was used.
    pub(super) used: u64,
}

#[derive(Debug)]
pub(super) struct Plan {
    config: DataPlan,
    /// Used in this month when the agent's total was `base_at`.
    base: u64,
    base_at: u64,
    /// The server's time, and when it was told.
    clock: Option<(u64, Instant)>,
    month: Option<u64>,
    last: Change,
}

impl Plan {
    pub(super) fn new(config: DataPlan) -> Self {
        let last = Change { percent: 0, stopped: 0, used: 0 };
        Self { config, base: 0, base_at: 0, clock: None, month: None, last }
    }

    pub(super) fn config(&self) -> &DataPlan {
        &self.config
    }

    /// The server has told what was used in the month, and its time in milliseconds since 1970 (0 when not). `total` are the agent's octets since
    /// its start.
    pub(super) fn told(&mut self, now: Instant, used: u64, time_ms: u64, total: u64) {
        let mut own = self.used(total);
        if time_ms > 0 {
            let month = month(time_ms);
            if self.month.is_some_and(|before| before != month) {
                own = 0;
            }
            (self.clock, self.month) = (Some((time_ms, now)), Some(month));
        }
        // The server knows what statistics told: of this boot the agent itself knows more.
        (self.base, self.base_at) = (used.max(own), total);
    }

    /// What changes by `total` octets since the start.
    pub(super) fn look(&mut self, now: Instant, total: u64) -> Option<Change> {
        if let Some((told_ms, at)) = self.clock {
            let passed = Duration::as_millis(&now.saturating_since(at));
            let month = month(told_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)));
            if self.month.replace(month).is_some_and(|before| before != month) {
                (self.base, self.base_at) = (0, total);
            }
        }
        let used = self.used(total);
        let is_past =
            |percent: u64| u128::from(used) * 100 >= u128::from(self.config.monthly_bytes) * u128::from(percent);
        let percent = TOLD.into_iter().rfind(|percent| is_past(u64::from(*percent))).unwrap_or(0);
        let stops = self.config.stops_first.len();
        let stopped = (0..stops).take_while(|at| self.is_past_step(used, *at as u64, stops as u64)).count();
        let change = Change { percent, stopped, used };
        let has_changed = (self.last.percent, self.last.stopped) != (percent, stopped);
        self.last = change.clone();
        has_changed.then_some(change)
    }

    fn used(&self, total: u64) -> u64 {
        self.base.saturating_add(total.saturating_sub(self.base_at))
    }

    /// Whether the `at`th of `stops` has to stop: from 80 % to 100 % in even steps, a single one at 100 %.
    fn is_past_step(&self, used: u64, at: u64, stops: u64) -> bool {
        let steps = u128::from(stops.saturating_sub(1).max(1));
        let at = if stops == 1 { 1 } else { u128::from(at) };
        // 80 % and 20 % of them times at of steps, without fractions.
        u128::from(used) * 10 * steps >= u128::from(self.config.monthly_bytes) * (8 * steps + 2 * at)
    }
}

/// Months since year 0 (UTC), of milliseconds since 1970: the civil calendar by H. Hinnant's `civil_from_days`.
fn month(time_ms: u64) -> u64 {
    let days = time_ms / DAY_MS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    // Years begin in March here; so does the count of months.
    (era * 400 + year_of_era) * 12 + from_march
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(stops: &[&str]) -> Plan {
        let stops_first = stops.iter().map(|name| (*name).to_owned()).collect();
        Plan::new(DataPlan { monthly_bytes: 1_000_000, stops_first })
    }

    fn seen(change: Option<Change>) -> Option<(u8, usize)> {
        change.map(|change| (change.percent, change.stopped))
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let months = |a: u64, b: u64| month(b * 1_000) - month(a * 1_000);
        // 2024-02-29T23:59:59Z and a second later; 2026-12-31T23:59:59Z and a second later; 1970 and 2026-11.
        assert_eq!(months(1_709_251_199, 1_709_251_200), 1);
        assert_eq!(months(1_798_761_599, 1_798_761_600), 1);
        assert_eq!(months(0, 1_793_491_200), 56 * 12 + 10);
        assert_eq!(months(1_709_251_200, 1_711_929_599), 0);
    }

    #[test]
    fn each_stops_at_its_share_and_both_shares_are_told() {
        let (mut plan, now) = (plan(&["tunnels", "main", "sub"]), Instant::from_micros(1));
        assert_eq!(seen(plan.look(now, 799_999)), None);
        assert_eq!(seen(plan.look(now, 800_000)), Some((80, 1)));
        assert_eq!(seen(plan.look(now, 899_999)), None);
        assert_eq!(seen(plan.look(now, 900_000)), Some((80, 2)));
        assert_eq!(seen(plan.look(now, 1_000_000)), Some((100, 3)));
        assert_eq!(seen(plan.look(now, 2_000_000)), None);
        let mut one = self::plan(&["main"]);
        assert_eq!(seen(one.look(now, 900_000)), Some((80, 0)));
        assert_eq!(seen(one.look(now, 1_000_000)), Some((100, 1)));
        let mut none = self::plan(&[]);
        assert_eq!(seen(none.look(now, 1_000_000)), Some((100, 0)), "told, and nothing stops");
    }

    #[test]
    fn the_server_tells_what_was_used_before_and_when_a_month_begins() {
        let mut plan = plan(&["main"]);
        let mut now = Instant::from_micros(1);
        let last_second = 1_798_761_599_000;
        plan.told(now, 990_000, last_second, 5_000);
        assert_eq!(seen(plan.look(now, 5_000)), Some((80, 0)));
        assert_eq!(seen(plan.look(now, 15_000)), Some((100, 1)));
        // A server that has not heard of everything yet takes nothing back.
        plan.told(now, 991_000, last_second, 16_000);
        assert_eq!(seen(plan.look(now, 16_000)), None);
        now = now + Duration::from_secs(2);
        assert_eq!(seen(plan.look(now, 17_000)), Some((0, 0)), "a new month");
        plan.told(now, 3_000, last_second + 3_000, 18_000);
        assert_eq!(plan.used(18_000), 3_000);
    }
}
