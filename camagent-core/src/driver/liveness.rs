//! Whether the server is still there, from what the kernel and the protocol see. A value: what was acknowledged and asked goes in with its time,
//! a verdict and the next deadline come out.
//!
//! Silence alone says nothing about a connection on which nothing is owed. So time counts only while octets are not acknowledged (and none
//! of them becomes so), or while a heartbeat is not answered. Where something on the way ends TCP its kernel acknowledges what the server never gets:
//! so time counts, too, while octets that the next kernel has are not told to have arrived (ARRIVED). What does not belong here: what is done about it
//! (`watch`), how far the server is away (`round_trips`).

use std::time::Duration;

use camagent_proto::Instant;

/// Whatever the round trip is: more than a lost packet and its repeats cost, and less than people wait.
const STALL: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(10));
/// Beyond four round trips, time for repeats of lost packets.
const REPEATS: Duration = Duration::from_secs(3);
/// The kernel is asked so often while octets are on their way, no more and no less.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So many octets of records the server tells within a tenth of a second; fewer it may keep to itself.
const TOLD: u64 = 1_024;

/// How the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Nothing is owed, or not for long.
    Well,
    /// Half of the stall deadline has passed: time to prepare.
    Suspect,
    /// The stall deadline has passed: whatever else works is better.
    Stalled,
    /// Nothing is to be hoped for.
    Dead,
}

/// Watches one connection.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    acknowledged: u64,
    /// Since when octets are on their way of which none was acknowledged.
    owed_since: Option<Instant>,
    /// Since when a heartbeat waits for its answer.
    asked_at: Option<Instant>,
    /// Octets of records that the server has told.
    arrived: u64,
    /// What it should tell next: octets of the connection, and of records, that had left then.
    awaited: Option<(u64, u64)>,
    /// Since when the next kernel has that, and nothing more has arrived.
    kept_since: Option<Instant>,
    looked_at: Instant,
    /// Octets that had been handed over when the kernel was asked last.
    looked_sent: u64,
}

impl Liveness {
    /// How long a connection of this round trip may owe something: 4 round trips and 3 s, at least 4 s and at most 10 s.
    pub(super) fn stall_after(round_trip: Duration) -> Duration {
        round_trip.saturating_mul(4).saturating_add(REPEATS).clamp(STALL.0, STALL.1)
    }

    /// Whether the kernel should be asked again.
    pub(super) fn wants_a_look(&self, now: Instant) -> bool {
        now.saturating_since(self.looked_at) >= LOOK_EVERY
    }

    /// What the kernel says: `sent` octets were handed over since the beginning, `outstanding` of them are not acknowledged.
    pub(super) fn look(&mut self, now: Instant, sent: u64, outstanding: u64) {
        (self.looked_at, self.looked_sent) = (now, sent);
        let acknowledged = sent.saturating_sub(outstanding);
        if outstanding == 0 {
            self.owed_since = None;
        } else if acknowledged > self.acknowledged || self.owed_since.is_none() {
            self.owed_since = Some(now);
        }
        self.acknowledged = self.acknowledged.max(acknowledged);
    }

    /// What the server says has arrived, of octets of records; to be said before each [`Liveness::left`].
    pub(super) fn arrived(&mut self, now: Instant, arrived: u64) {
        if arrived > self.arrived {
            self.arrived = arrived;
            // It comes, however slowly.
            self.kept_since = self.kept_since.map(|_| now);
        }
        if self.awaited.is_some_and(|(_, records)| records < arrived + TOLD) {
            (self.awaited, self.kept_since) = (None, None);
        }
    }

    /// So many octets of records have left, of a server that tells what arrives; behind each [`Liveness::look`] at which nothing waited in front of the
    /// kernel.
    pub(super) fn left(&mut self, now: Instant, sent: u64, records: u64) {
        if self.awaited.is_none() && records >= self.arrived + TOLD {
            self.awaited = Some((sent, records));
        }
        if self.awaited.is_some_and(|(sent, _)| self.acknowledged >= sent) {
            self.kept_since.get_or_insert(now);
        }
    }

    /// Since when a heartbeat waits for its answer, if one does.
    pub(super) fn asked(&mut self, at: Option<Instant>) {
        self.asked_at = at;
    }

    /// For how long the connection owes something.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.since().map_or(Duration::ZERO, |since| now.saturating_since(since))
    }

    /// How it is.
    pub(super) fn verdict(&self, now: Instant, round_trip: Duration) -> Verdict {
        let silence = self.silence(now);
        let reached = Self::thresholds(round_trip).into_iter().rev().find(|(after, _)| silence >= *after);
        reached.map_or(Verdict::Well, |(_, verdict)| verdict)
    }

    /// When the verdict may be another, or the kernel is to be asked; `sent` octets were handed over by now. What was written behind the last look is
    /// looked after also when nothing else happens.
    pub(super) fn deadline(&self, now: Instant, round_trip: Duration, sent: u64) -> Option<Instant> {
        let thresholds = |since| Self::thresholds(round_trip).into_iter().map(move |(after, _)| since + after);
        let next = self.since().and_then(|since| thresholds(since).find(|at| *at > now));
        let unseen = (sent > self.looked_sent).then(|| (self.looked_at + LOOK_EVERY).max(now + LOOK_EVERY));
        let look = self.owed_since.map(|_| self.looked_at + LOOK_EVERY).filter(|at| *at > now);
        [next, look, unseen].into_iter().flatten().min()
    }

    fn since(&self) -> Option<Instant> {
        [self.owed_since, self.asked_at, self.kept_since].into_iter().flatten().min()
    }

    fn thresholds(round_trip: Duration) -> [(Duration, Verdict); 3] {
        let stall = Self::stall_after(round_trip);
        [(stall / 2, Verdict::Suspect), (stall, Verdict::Stalled), (STALL.1, Verdict::Dead)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NEAR: Duration = Duration::from_millis(60);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(1_000_000_000 + ms * 1_000)
    }

    /// The milliseconds at which the verdict changes, looked at when the value itself wants it.
    fn changes(
        liveness: &mut Liveness,
        round_trip: Duration,
        mut outstanding: impl FnMut(Instant) -> u64,
    ) -> Vec<(u64, Verdict)> {
        let (mut now, mut verdict, mut changes) = (at(0), Verdict::Well, Vec::new());
        while now < at(60_000) {
            if liveness.wants_a_look(now) {
                liveness.look(now, 1_000_000, outstanding(now));
            }
            let next = liveness.verdict(now, round_trip);
            if next != verdict {
                changes.push((now.saturating_since(at(0)).as_millis() as u64, next));
                verdict = next;
            }
            match liveness.deadline(now, round_trip, 1_000_000) {
                Some(next) => {
                    assert!(next > now, "a deadline in the past turns for ever");
                    now = next;
                }
                None => break,
            }
        }
        changes
    }

    #[test]
    fn the_stall_deadline_grows_with_the_round_trip_within_bounds() {
        for (round_trip, deadline) in
            [(0, 4_000), (60, 4_000), (500, 5_000), (1_000, 7_000), (1_750, 10_000), (9_000, 10_000)]
        {
            assert_eq!(Liveness::stall_after(MS * round_trip), MS * deadline);
        }
    }

    #[test]
    fn octets_that_nobody_acknowledges_are_suspected_then_stalled_then_dead() {
        let mut liveness = Liveness::default();
        let changes = changes(&mut liveness, NEAR, |_| 5_000);
        assert_eq!(changes, [(2_000, Verdict::Suspect), (4_000, Verdict::Stalled), (10_000, Verdict::Dead)]);
    }

    #[test]
    fn as_long_as_something_is_acknowledged_it_is_well() {
        let mut liveness = Liveness::default();
        // An octet a second, of a queue that would take weeks.
        let changes = changes(&mut liveness, NEAR, |now| 900_000 - now.saturating_since(at(0)).as_secs());
        assert_eq!(changes, []);
    }

    #[test]
    fn what_comes_alive_is_well_again_at_once_and_counts_anew() {
        let mut liveness = Liveness::default();
        let changes = changes(&mut liveness, NEAR, |now| if now < at(3_000) { 5_000 } else { 1_000 });
        assert_eq!(changes[..2], [(2_000, Verdict::Suspect), (3_000, Verdict::Well)]);
        assert_eq!(changes[2], (5_000, Verdict::Suspect));
    }

    #[test]
    fn what_is_written_after_a_long_silence_is_looked_after() {
        let mut liveness = Liveness::default();
        liveness.look(at(0), 1_000, 0);
        let next = liveness.deadline(at(20_000), NEAR, 1_400).expect("an event has left, and nothing else will happen");
        assert!(next <= at(20_500), "{next:?}");
        liveness.look(next, 1_400, 400);
        assert_eq!(liveness.verdict(next + Liveness::stall_after(NEAR), NEAR), Verdict::Stalled);
        liveness.look(next + MS * 250, 1_400, 0);
        assert_eq!(liveness.deadline(next + MS * 250, NEAR, 1_400), None);
    }

    #[test]
    fn silence_counts_only_while_something_is_owed() {
        let mut liveness = Liveness::default();
        liveness.look(at(0), 1_000, 0);
        assert_eq!((liveness.verdict(at(999_999), NEAR), liveness.deadline(at(0), NEAR, 1_000)), (Verdict::Well, None));
        // A proxy acknowledges what it cannot deliver: on an idle connection only the heartbeat tells.
        liveness.asked(Some(at(1_000)));
        assert_eq!(liveness.deadline(at(1_000), NEAR, 1_000), Some(at(3_000)));
        assert_eq!(liveness.verdict(at(3_000), NEAR), Verdict::Suspect);
        assert_eq!(liveness.verdict(at(5_000), MS * 500), Verdict::Suspect, "farther away");
        assert_eq!(liveness.verdict(at(5_000), NEAR), Verdict::Stalled);
        liveness.asked(None);
        assert_eq!(liveness.verdict(at(5_001), NEAR), Verdict::Well);
    }

    /// A proxy takes everything at once, and lets so many octets of records through until each time: the first change of the verdict.
    fn behind_a_proxy(through: impl Fn(u64) -> u64) -> Option<(u64, Verdict)> {
        let mut liveness = Liveness::default();
        // 100 octets of records every 10 ms.
        (0..30_000).step_by(10).find_map(|ms| {
            let sent = 2_000 + ms * 10;
            liveness.arrived(at(ms), through(ms * 10).min(ms * 10));
            if liveness.wants_a_look(at(ms)) {
                liveness.look(at(ms), sent, 0);
                liveness.left(at(ms), sent, ms * 10);
            }
            let verdict = liveness.verdict(at(ms), NEAR);
            (verdict != Verdict::Well).then_some((ms, verdict))
        })
    }

    #[test]
    fn what_a_proxy_took_and_nobody_got_is_owed() {
        let (after, verdict) = behind_a_proxy(|octets| octets.min(50_000)).expect("noticed");
        assert!((7_000..7_500).contains(&after), "2 s after the last octets: {after}");
        assert_eq!(verdict, Verdict::Suspect);
    }

    #[test]
    fn what_comes_late_or_slowly_through_a_proxy_comes() {
        assert_eq!(behind_a_proxy(|octets| octets), None);
        assert_eq!(behind_a_proxy(|octets| octets.saturating_sub(9_000)), None, "nearly a second behind");
        assert_eq!(behind_a_proxy(|octets| octets / 50), None, "ever farther behind");
        assert_eq!(behind_a_proxy(|octets| octets.saturating_sub(TOLD - 1)), None, "the rest need not be told");
    }

    #[test]
    fn what_has_not_left_the_own_kernel_is_not_the_proxys() {
        let mut liveness = Liveness::default();
        liveness.look(at(0), 10_000, 9_000);
        liveness.left(at(0), 10_000, 9_000);
        assert_eq!(liveness.kept_since, None);
        liveness.look(at(900), 10_000, 0);
        liveness.left(at(900), 10_000, 9_000);
        assert_eq!(liveness.silence(at(1_000)), MS * 100);
        liveness.arrived(at(1_000), 8_500);
        assert_eq!(liveness.silence(at(9_000)), Duration::ZERO);
    }
}
