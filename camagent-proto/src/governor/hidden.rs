//! A queue that the kernel does not see: something on the way ends TCP, takes octets at once, and keeps them until its own link carries them.
//!
//! The server tells what has arrived, and when by its own clock. What that moment lies behind the moment of sending, beyond the least that was
//! seen, is the time that octets wait on the way up; what the way back adds is in neither. Only when they wait for long, and most of what has not
//! arrived is acknowledged all the same, it is such a queue; then what has not arrived is held to what the path delivers in its delay and a
//! little more. The bound is loose: where the kernel tells the truth its own bound is the smaller one.
//!
//! What does not belong here: the queue that the kernel sees (`governor`), when the server tells (`session`).

use alloc::collections::VecDeque;

use crate::time::{Duration, Instant};

/// What may wait unseen beyond the target: the server tells ten times a second, and what it has not told counts as waiting.
const SLACK: Duration = Duration::from_millis(150);
/// Looks in a row that show the queue, before it is believed.
const EVIDENCE: u32 = 3;
/// Without a queue for so long the bound is lifted.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// The least delay of so long counts without a queue: routes change, and clocks drift apart.
const MEMORY: Duration = Duration::from_secs(60);
/// With a queue the least delay cannot be seen: after so long the queue is let run empty.
const CONFIRM_AFTER: Duration = Duration::from_secs(10);
/// That takes at least so long.
const CONFIRMING: Duration = Duration::from_millis(500);
/// A rate is measured over at least so long …
const SAMPLE_MS: u64 = 100;
/// … and the best of so long counts.
const RATE_MEMORY: Duration = Duration::from_secs(1);
/// So much may be on its way in any case: more than the server leaves untold, and a record.
const LEAST: u64 = 24 << 10;
/// Marks on the way at once.
const MAX_MARKS: usize = 128;

/// What the server told: octets of records, and its clock in milliseconds when it read the last of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) octets: u64,
    pub(super) at_ms: u64,
}

/// One look, when the server told something.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// How long the newest octets waited on their way up.
    queue: Duration,
    /// From sending to hearing of it, without that.
    way: Duration,
}

/// Octets of records: sent, arrived, and what is to be made of the difference.
#[derive(Debug)]
pub(super) struct Hidden {
    target: Duration,
    sent: u64,
    arrived: u64,
    /// Totals that were sent, and when.
    marks: VecDeque<(u64, Instant)>,
    /// The least difference between the server's clock at arrival and the own one at sending, in microseconds, and when it was last seen.
    least: Option<(i64, Instant)>,
    /// The least since then.
    next_least: Option<i64>,
    sample_from: Option<Told>,
    /// Rates in octets a second by the time of their measurement, falling.
    rates: VecDeque<(Instant, u64)>,
    look: Option<Look>,
    evidence: u32,
    /// The queue is believed, and was last seen then.
    seen_at: Option<Instant>,
    confirming_until: Option<Instant>,
}

impl Hidden {
    pub(super) fn new(target: Duration) -> Self {
        Self {
            target,
            sent: 0,
            arrived: 0,
            marks: VecDeque::new(),
            least: None,
            next_least: None,
            sample_from: None,
            rates: VecDeque::new(),
            look: None,
            evidence: 0,
            seen_at: None,
            confirming_until: None,
        }
    }

    /// So many octets of records were handed over in all.
    pub(super) fn sent(&mut self, now: Instant, total: u64) {
        if total <= self.sent {
            return;
        }
        if self.sent == self.arrived {
            // A rate would count the pause.
            self.sample_from = None;
        }
        self.sent = total;
        let spacing = (self.sent - self.arrived) / (MAX_MARKS as u64 / 2);
        if self.marks.back().is_none_or(|(until, _)| total - until >= spacing) {
            if self.marks.len() >= MAX_MARKS {
                let mut keep = false;
                self.marks.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            self.marks.push_back((total, now));
        }
    }

    /// The server has told what arrived; `outstanding` octets are not acknowledged.
    pub(super) fn arrived(&mut self, now: Instant, told: Told, outstanding: u64) {
        if told.octets <= self.arrived || told.octets > self.sent {
            return;
        }
        self.arrived = told.octets;
        let mut newest = None;
        while let Some(mark) = self.marks.pop_front_if(|(until, _)| *until <= told.octets) {
            newest = Some(mark);
        }
        let Some((_, sent_at)) = newest else { return };
        let signed = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
        let difference = signed(told.at_ms).saturating_mul(1_000).saturating_sub(signed(sent_at.as_micros()));
        let least = self.least(now, difference);
        let waited = u64::try_from(difference.saturating_sub(least)).unwrap_or(0);
        let queue = Duration::from_micros(waited);
        let whole = now.saturating_since(sent_at);
        let look = Look { queue, way: whole.saturating_sub(queue) };
        self.measure(now, told, queue);
        self.judge(now, look, outstanding);
        self.confirm(now, whole, difference);
        self.look = Some(look);
    }

    /// How many octets may be handed over now; all, unless such a queue is believed.
    pub(super) fn room(&self) -> u64 {
        self.bound().map_or(u64::MAX, |bound| bound.saturating_sub(self.sent - self.arrived))
    }

    /// What was handed over beyond the bound.
    pub(super) fn beyond(&self) -> u64 {
        self.bound().map_or(0, |bound| (self.sent - self.arrived).saturating_sub(bound))
    }

    /// What arrives, in octets a second, and how long it waits; `None` unless such a queue is believed.
    pub(super) fn queue(&self) -> Option<(u64, Duration)> {
        self.seen_at?;
        Some((self.rate()?, self.look?.queue))
    }

    fn bound(&self) -> Option<u64> {
        self.seen_at?;
        let standing = if self.confirming_until.is_some() { self.target / 2 } else { self.margin() };
        Some(within(self.rate()?, self.look?.way + standing).max(LEAST))
    }

    /// What may wait.
    fn margin(&self) -> Duration {
        self.target + SLACK
    }

    fn rate(&self) -> Option<u64> {
        self.rates.front().map(|(_, rate)| *rate)
    }

    /// The least difference, this one counted.
    fn least(&mut self, now: Instant, difference: i64) -> i64 {
        let Some((least, at)) = self.least else {
            self.least = Some((difference, now));
            return difference;
        };
        let next = self.next_least.map_or(difference, |next| next.min(difference));
        let is_old = self.seen_at.is_none() && now.saturating_since(at) > MEMORY;
        if difference <= least {
            (self.least, self.next_least) = (Some((difference, now)), None);
            difference
        } else if is_old {
            (self.least, self.next_least) = (Some((next, now)), None);
            next
        } else {
            self.next_least = Some(next);
            least
        }
    }

    fn measure(&mut self, now: Instant, told: Told, queue: Duration) {
        let Some(from) = self.sample_from else {
            self.sample_from = Some(told);
            return;
        };
        let elapsed = told.at_ms.saturating_sub(from.at_ms);
        if elapsed < SAMPLE_MS {
            return;
        }
        self.sample_from = Some(told);
        let octets = u128::from(told.octets - from.octets) * 1_000;
        let rate = u64::try_from(octets / u128::from(elapsed)).unwrap_or(u64::MAX);
        // Who had nothing to send learns only that the path is at least that fast.
        if queue < self.target / 2 && self.rate().is_some_and(|known| rate <= known) {
            return;
        }
        while self.rates.pop_back_if(|(_, other)| *other <= rate).is_some() {}
        self.rates.push_back((now, rate));
        while self.rates.len() > 1 && now.saturating_since(self.rates[0].0) > RATE_MEMORY {
            self.rates.pop_front();
        }
    }

    fn judge(&mut self, now: Instant, look: Look, outstanding: u64) {
        let margin = self.margin();
        let hidden = (self.sent - self.arrived).saturating_sub(outstanding);
        let unseen = self.rate().is_some_and(|rate| hidden > within(rate, look.way + margin / 2));
        self.evidence = if look.queue > margin && unseen { self.evidence + 1 } else { 0 };
        if let Some(at) = self.seen_at {
            if look.queue > margin / 3 {
                self.seen_at = Some(now);
            } else if now.saturating_since(at) > GONE_AFTER {
                (self.seen_at, self.confirming_until) = (None, None);
            }
        } else if self.evidence >= EVIDENCE {
            self.seen_at = Some(now);
        }
    }

    /// Lets the queue run empty now and then, to see whether the least delay still holds.
    fn confirm(&mut self, now: Instant, whole: Duration, difference: i64) {
        let Some((least, at)) = self.least.filter(|_| self.seen_at.is_some()) else { return };
        let target = i64::try_from(self.target.as_micros()).unwrap_or(i64::MAX);
        if difference <= least.saturating_add(target) {
            (self.least, self.next_least, self.confirming_until) = (Some((least, now)), None, None);
            return;
        }
        match self.confirming_until {
            None if now.saturating_since(at) > CONFIRM_AFTER => {
                self.next_least = None;
                self.confirming_until = Some(now + (whole * 2).max(CONFIRMING));
            }
            Some(until) if until <= now => {
                // As empty as this, it is the path and no queue.
                let least = self.next_least.take().unwrap_or(difference);
                (self.least, self.confirming_until) = (Some((least, now)), None);
            }
            _ => {}
        }
    }
}

/// What a rate delivers in that time.
fn within(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::Governor, *};

    const MS: Duration = Duration::from_millis(1);
    /// What the server's clock is ahead.
    const AHEAD_MS: u64 = 7_654_321;

    /// A sender, a first link that its kernel sees, a middlebox with a buffer without end, and a second link to a server that tells what arrives.
    /// Without a middlebox what it takes is acknowledged when the server has it.
    struct Way {
        now: Instant,
        first: u64,
        second: u64,
        has_middlebox: bool,
        one_way: Duration,
        /// What the way back takes, for what the server tells.
        back: Duration,
        in_first: u64,
        in_second: u64,
        on_way: VecDeque<(Instant, u64)>,
        acks: VecDeque<(Instant, u64)>,
        outstanding: u64,
        sent: u64,
        at_server: u64,
        told: u64,
        told_at: Instant,
        telling: VecDeque<(Instant, Told)>,
        longest: Duration,
        /// Looks at which this bound was the smaller one.
        limited: u64,
    }

    impl Way {
        fn new(first: u64, second: u64, has_middlebox: bool, one_way: Duration) -> Self {
            Self {
                now: Instant::from_micros(1),
                first,
                second,
                has_middlebox,
                one_way,
                back: one_way,
                in_first: 0,
                in_second: 0,
                on_way: VecDeque::new(),
                acks: VecDeque::new(),
                outstanding: 0,
                sent: 0,
                at_server: 0,
                told: 0,
                told_at: Instant::ZERO,
                telling: VecDeque::new(),
                longest: Duration::ZERO,
                limited: 0,
            }
        }

        /// A sender that has `most` octets a second, in records of `record`.
        fn run(&mut self, governor: &mut Governor, duration: Duration, record: u64, most: u64) {
            let until = self.now + duration;
            let (start, before) = (self.now, self.sent);
            while self.now < until {
                self.now = self.now + MS;
                let passed = self.in_first.min(self.first / 1_000);
                self.in_first -= passed;
                self.in_second += passed;
                if self.has_middlebox && passed > 0 {
                    self.acks.push_back((self.now + MS, passed));
                }
                let carried = self.in_second.min(self.second / 1_000);
                self.in_second -= carried;
                if carried > 0 {
                    self.on_way.push_back((self.now + self.one_way, carried));
                }
                let now = self.now;
                while let Some((_, octets)) = self.on_way.pop_front_if(|(at, _)| *at <= now) {
                    self.at_server += octets;
                    if !self.has_middlebox {
                        self.acks.push_back((now + self.one_way, octets));
                    }
                }
                self.tell();
                while let Some((_, octets)) = self.acks.pop_front_if(|(at, _)| *at <= now) {
                    self.outstanding -= octets;
                }
                governor.outstanding(now, self.outstanding);
                while let Some((_, told)) = self.telling.pop_front_if(|(at, _)| *at <= now) {
                    governor.arrived(now, told.octets, told.at_ms);
                }
                let offered = before + most * now.saturating_since(start).as_millis() as u64 / 1_000;
                while governor.room() > 0 && self.sent + record <= offered {
                    governor.sent(now, record);
                    self.sent += record;
                    governor.handed_over(now, self.sent);
                    self.outstanding += record;
                    self.in_first += record;
                }
                self.limited += u64::from(governor.hidden.room() == 0);
                self.longest = self.longest.max(MS * u32::try_from(self.in_second * 1_000 / self.second).unwrap());
            }
        }

        /// As the server does it: every 100 ms, or every 64 KiB and 20 ms.
        fn tell(&mut self) {
            let (untold, ago) = (self.at_server - self.told, self.now.saturating_since(self.told_at));
            if untold >= 1_024 && (ago >= 100 * MS || (untold >= 64 << 10 && ago >= 20 * MS)) {
                (self.told, self.told_at) = (self.at_server, self.now);
                let at_ms = AHEAD_MS + self.now.as_micros() / 1_000;
                self.telling.push_back((self.now + self.back, Told { octets: self.at_server, at_ms }));
            }
        }
    }

    #[test]
    fn a_middlebox_with_a_buffer_without_end_keeps_little() {
        for (second, one_way) in [(250_000, 20), (250_000, 150), (1_250_000, 30), (64_000, 40)] {
            let mut way = Way::new(12_500_000, second, true, MS * one_way);
            let mut governor = Governor::new(40 * MS, 1_448);
            way.run(&mut governor, Duration::from_secs(60), 2_500, 2_500_000);
            // What came in before anybody could know has left.
            way.longest = Duration::ZERO;
            let before = way.at_server;
            way.run(&mut governor, Duration::from_secs(60), 2_500, 2_500_000);
            let used = (way.at_server - before) as f64 / (second * 60) as f64;
            let bound = 240 * MS + MS * u32::try_from((LEAST + 2_500) * 1_000 / second).unwrap();
            let (longest, rate) = (way.longest, governor.rate().unwrap_or(0));
            assert!(longest < bound && used > 0.93, "{second} B/s, {one_way} ms: {longest:?}, {used:.3} used");
            assert!(rate < second * 11 / 10 + 10_000, "what is told is what arrives: {rate} of {second}");
        }
    }

    #[test]
    fn a_rate_behind_it_that_changes_is_followed() {
        let mut way = Way::new(12_500_000, 500_000, true, 30 * MS);
        let mut governor = Governor::new(40 * MS, 1_448);
        way.run(&mut governor, Duration::from_secs(60), 2_500, 2_500_000);
        way.second = 125_000;
        way.run(&mut governor, Duration::from_secs(10), 2_500, 2_500_000);
        way.longest = Duration::ZERO;
        way.run(&mut governor, Duration::from_secs(30), 2_500, 2_500_000);
        assert!(way.longest < 440 * MS, "{:?}", way.longest);
        way.second = 1_250_000;
        way.run(&mut governor, Duration::from_secs(5), 2_500, 2_500_000);
        let before = way.at_server;
        way.run(&mut governor, Duration::from_secs(10), 2_500, 2_500_000);
        let used = (way.at_server - before) as f64 / 12_500_000.0;
        assert!(used > 0.93, "{used:.3} of the faster link is used");
    }

    #[test]
    fn a_kernel_that_tells_the_truth_is_never_overruled() {
        for (rate, one_way) in [(31_250, 30), (250_000, 5), (250_000, 300), (12_500_000, 20)] {
            let mut way = Way::new(rate, rate, false, MS * one_way);
            let mut governor = Governor::new(40 * MS, 1_448);
            for back in [0, 300, 2_000, 50] {
                // What the server tells is late, because the way back is full.
                way.back = MS * (one_way + back);
                way.run(&mut governor, Duration::from_secs(20), 2_500, u64::MAX >> 20);
                assert!(governor.hidden.seen_at.is_none(), "{rate} B/s, {one_way} ms, back {back} ms");
            }
            // The link becomes slow under what is on its way.
            (way.first, way.second) = (rate / 8, rate / 8);
            way.run(&mut governor, Duration::from_secs(20), 1_200, u64::MAX >> 20);
            assert_eq!(way.limited, 0, "{rate} B/s, {one_way} ms");
        }
    }

    #[test]
    fn loopback_is_never_held_back() {
        for has_middlebox in [false, true] {
            let mut way = Way::new(1_000_000_000, 1_000_000_000, has_middlebox, Duration::ZERO);
            let mut governor = Governor::new(40 * MS, 65_483);
            way.run(&mut governor, Duration::from_secs(10), 16_376, u64::MAX >> 20);
            assert_eq!((way.limited, governor.hidden.queue()), (0, None));
        }
    }
}
