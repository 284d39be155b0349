//! Packets that were lost on a long path: the queue in front of the link is shorter than the one that was to stand there.
//!
//! A packet is lost because the queue was full, or by chance. It need not be known which: after a loss a governor lets less stand, and only as long
//! as no queue is seen at all it grows as it would without. So an overrun is not repeated, and random losses cost the queue, never what
//! keeps the link busy. On a short path a recovery is cheap, and with few packets on the way it would be the slower; there nothing changes.
//!
//! A value: the kernel's count of retransmissions, delay and time in, a target out.

use crate::time::{Duration, Instant};

/// However much is lost, so much may stand.
const LEAST: Duration = Duration::from_millis(16);
/// Without losses for so long, a little more is tried.
const CALM: Duration = Duration::from_secs(10);
/// So much more.
const STEP: Duration = Duration::from_millis(2);
/// Two losses within so long, neither behind a queue, are chance.
const CHANCE: Duration = Duration::from_secs(20);

/// What a governor knows when the kernel tells its count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) now: Instant,
    /// Packets that were ever retransmitted.
    pub(super) packets: u64,
    /// The shortest.
    pub(super) round_trip: Duration,
    /// What the newest octets took longer.
    pub(super) delay: Duration,
    /// They all have, for a while.
    pub(super) is_queued: bool,
    /// About as much is on its way as may be.
    pub(super) is_full: bool,
}

/// What the losses of one connection say.
#[derive(Debug, Default)]
pub(super) struct Losses {
    retransmitted: Option<u64>,
    /// What may stand, where that is less than the target.
    limit: Option<Duration>,
    changed_at: Instant,
    recovers_until: Option<Instant>,
    overran: bool,
    /// Since when no queue is seen, and for how many round trips.
    empty_since: Option<Instant>,
    empty_for: u32,
    /// When a queue was seen last.
    queued_at: Option<Instant>,
    /// Packets may be missing until then, and delays say little.
    missing_until: Option<Instant>,
    /// When packets were lost last, and before, without a queue.
    by_chance: [Option<Instant>; 2],
    is_chance: bool,
}

impl Losses {
    /// The kernel has told its count. `target` is what may stand without losses. Whether what was on its way was too much.
    pub(super) fn heard(&mut self, heard: Heard, target: Duration) -> bool {
        let Heard { now, packets, round_trip, delay, is_queued, is_full } = heard;
        let before = self.retransmitted.replace(packets);
        let limit = self.limit.unwrap_or(target);
        let is_lost = before.is_some_and(|before| packets > before);
        let is_missing = self.missing_until.is_some_and(|until| now < until);
        if is_lost {
            let was_queued = self.queued_at.is_some_and(|at| now.saturating_since(at) <= round_trip * 2);
            if !is_missing && !was_queued {
                self.by_chance = [Some(now), self.by_chance[0]];
            }
            self.missing_until = Some(now + round_trip * 2);
            // The losses of one overrun are retransmitted over a round trip or two, and say one thing.
            if is_full && !self.recovers(now) {
                self.limit = Some((limit / 2).max(LEAST).min(target));
                self.recovers_until = Some(now + round_trip * 2);
            }
            self.changed_at = now;
        } else if self.limit.is_some() && now.saturating_since(self.changed_at) >= CALM {
            self.limit = Some(limit + STEP).filter(|limit| *limit < target);
            self.changed_at = now;
        }
        if !is_missing && is_queued {
            self.queued_at = Some(now);
        }
        self.is_chance = self.by_chance.iter().all(|at| at.is_some_and(|at| now.saturating_since(at) <= CHANCE));
        self.overran = self.recovers(now);
        if !is_full || delay >= limit / 2 {
            (self.empty_since, self.empty_for) = (None, 0);
        } else {
            let since = *self.empty_since.get_or_insert(now);
            let rounds = now.saturating_since(since).as_micros() / round_trip.as_micros().max(1);
            self.empty_for = u32::try_from(rounds).unwrap_or(u32::MAX);
        }
        is_lost && is_full
    }

    /// Whether the packets that were lost last may still be missing.
    pub(super) fn recovers(&self, now: Instant) -> bool {
        self.recovers_until.is_some_and(|until| now < until)
    }

    /// Whether they were lost by an overrun, lately.
    pub(super) fn overran(&self) -> bool {
        self.overran
    }

    /// Whether packets are lost by chance, whatever is on its way. Then the kernel's window is what holds back, and it counts packets.
    pub(super) fn are_chance(&self) -> bool {
        self.is_chance
    }

    /// What may stand, when `packet` is how long the link takes for one: with less, a rate that was thought too low would stay so. More from round trip to
    /// round trip as long as it does not even stand.
    pub(super) fn standing(&self, target: Duration, packet: Duration, round_trip: Duration) -> Duration {
        let (limit, most) = match self.limit {
            Some(limit) => (limit, target * 2),
            None => (target, round_trip / 4),
        };
        match self.empty_for {
            0 => limit.max(packet),
            rounds => (target * rounds.min(64)).min(most).max(target).max(packet),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;

    use super::*;
    use crate::governor::Governor;

    const MS: Duration = Duration::from_millis(1);
    /// An equal part of a segment, as governors want it on a slow link.
    const PACKET: u64 = 482;
    const SEGMENT: u64 = 1_448;

    /// A queue that overflows, and a receiver that acknowledges in order, in steps of a millisecond.
    struct Link {
        now: Instant,
        rate: u64,
        one_way: Duration,
        queue_limit: usize,
        /// Each packet by itself is lost so often, one in so many.
        lost_one_in: u64,
        next: u64,
        link_carry: u64,
        queue: VecDeque<u64>,
        back: VecDeque<(Instant, u64)>,
        missing: VecDeque<(Instant, u64)>,
        holes: alloc::collections::BTreeSet<u64>,
        highest: u64,
        retransmitted: u64,
        passed: u64,
        chance: u64,
        has_sack: bool,
        /// Nobody tells the governor what was retransmitted.
        is_deaf: bool,
    }

    impl Link {
        fn new(rate: u64, one_way: Duration, queue: Duration) -> Self {
            let queue_limit = (u128::from(rate) * queue.as_micros() / 1_000_000).max(3_000) as usize / PACKET as usize;
            Self {
                now: Instant::from_micros(1),
                rate,
                one_way,
                queue_limit,
                lost_one_in: u64::MAX,
                next: 0,
                link_carry: 0,
                queue: VecDeque::new(),
                back: VecDeque::new(),
                missing: VecDeque::new(),
                holes: alloc::collections::BTreeSet::new(),
                highest: 0,
                retransmitted: 0,
                passed: 0,
                chance: 1,
                has_sack: true,
                is_deaf: false,
            }
        }

        fn governor(&self) -> Governor {
            let mut governor = Governor::new(40 * MS, SEGMENT);
            governor.connected(self.now, self.one_way * 2);
            governor
        }

        fn put(&mut self, packet: u64) {
            self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let is_lost = (self.chance >> 33).is_multiple_of(self.lost_one_in);
            if self.queue.len() >= self.queue_limit || is_lost {
                self.holes.insert(packet);
                self.missing.push_back((self.now + self.one_way * 2, packet));
            } else {
                self.queue.push_back(packet);
            }
        }

        fn run(&mut self, governor: &mut Governor, duration: Duration) -> f64 {
            let (until, before) = (self.now + duration, self.passed);
            while self.now < until {
                self.now = self.now + MS;
                let now = self.now;
                self.link_carry += self.rate;
                while self.link_carry >= PACKET * 1_000 {
                    let Some(packet) = self.queue.pop_front() else { break };
                    self.link_carry -= PACKET * 1_000;
                    self.passed += PACKET;
                    self.back.push_back((now + self.one_way * 2, packet));
                }
                if self.queue.is_empty() {
                    self.link_carry = self.link_carry.min(PACKET * 1_000);
                }
                while let Some((_, packet)) = self.back.pop_front_if(|(at, _)| *at <= now) {
                    self.holes.remove(&packet);
                    self.highest = self.highest.max(packet + 1);
                }
                while let Some((_, packet)) = self.missing.pop_front_if(|(at, _)| *at <= now) {
                    self.retransmitted += 1;
                    self.put(packet);
                }
                let acknowledged = self.holes.first().map_or(self.highest, |hole| self.highest.min(*hole));
                let missing = self.holes.range(..self.highest).count() as u64;
                let arrived_behind = match governor.wants_receipts() && self.has_sack {
                    true => self.highest - acknowledged - missing,
                    false => 0,
                };
                governor.sacked(arrived_behind * PACKET);
                governor.outstanding(now, (self.next - acknowledged) * PACKET);
                if governor.wants_receipts() && !self.is_deaf {
                    governor.retransmitted(now, self.retransmitted);
                }
                while governor.room() >= PACKET / 2 {
                    governor.sent(now, PACKET);
                    let packet = self.next;
                    self.next += 1;
                    self.put(packet);
                }
            }
            (self.passed - before) as f64 / (self.rate as f64 * duration.as_secs_f64())
        }
    }

    #[test]
    fn a_shallow_queue_is_overrun_rarely_and_the_link_stays_busy() {
        for (rate, one_way) in [(62_500, 300), (125_000, 300), (250_000, 300), (250_000, 75), (625_000, 75)] {
            let mut link = Link::new(rate, MS * one_way, 50 * MS);
            let mut governor = link.governor();
            link.run(&mut governor, Duration::from_secs(20));
            let before = link.retransmitted;
            let used = link.run(&mut governor, Duration::from_secs(40));
            let lost = link.retransmitted - before;
            assert!(used > 0.9 && lost < 10, "{rate} B/s, {one_way} ms: {used:.3} used, {lost} retransmitted");
        }
    }

    #[test]
    fn random_losses_leave_the_link_busy() {
        for one_in in [100, 33] {
            let run = |aware: bool| {
                let mut link = Link::new(125_000, 75 * MS, 1_000 * MS);
                let mut governor = Governor::new(40 * MS, SEGMENT);
                link.lost_one_in = one_in;
                (link.has_sack, link.is_deaf) = (aware, !aware);
                link.run(&mut governor, Duration::from_secs(10));
                link.run(&mut governor, Duration::from_secs(30))
            };
            let (aware, deaf) = (run(true), run(false));
            assert!(aware > deaf * 0.9, "one in {one_in}: {aware:.3} used, {deaf:.3} when deaf to losses");
        }
    }

    #[test]
    fn what_may_stand_is_halved_once_an_overrun_and_slowly_found_again() {
        let (mut losses, mut now) = (Losses::default(), Instant::from_micros(1));
        let (target, round_trip) = (40 * MS, 200 * MS);
        let hear = |losses: &mut Losses, now, packets, delay, is_full| {
            losses.heard(Heard { now, packets, round_trip, delay, is_queued: delay > target, is_full }, target);
            losses.standing(target, MS, round_trip)
        };
        assert_eq!(hear(&mut losses, now, 0, 40 * MS, true), target);
        for count in 1..9 {
            now = now + 20 * MS;
            assert_eq!(hear(&mut losses, now, count, 40 * MS, true), 20 * MS);
        }
        assert!(losses.recovers(now));
        assert_eq!(losses.standing(target, 30 * MS, round_trip), 30 * MS, "at least a packet");
        now = now + round_trip * 2;
        assert_eq!(hear(&mut losses, now, 8, MS, true), 20 * MS);
        assert_eq!(hear(&mut losses, now + round_trip, 8, MS, true), target, "no queue at all for a round trip");
        assert_eq!(hear(&mut losses, now + round_trip * 3, 8, MS, true), target * 2);
        assert_eq!(hear(&mut losses, now + round_trip * 3, 8, MS, false), 20 * MS, "who sends little sees no queue");
        now = now + CALM;
        assert_eq!(hear(&mut losses, now, 8, 15 * MS, true), 22 * MS);
        assert_eq!(
            hear(&mut losses, now, 20, 15 * MS, false),
            22 * MS,
            "who did not fill the queue did not overrun it"
        );
    }
}
