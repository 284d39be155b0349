//! Why frames are missing: the one place that the API, the events, the metrics and the check ask. A missing frame stands here by its number, with what
//! the agent said of it (SKIP, EPOCH_END) or what the server did; a missing time by who was away.
//!
//! The ledger is a value. It is kept in the log of what is persisted (`log`), filled by the `recorder`, and read through `Ingest::ledger`. Which
//! times a gap spans follows from the frames around it (`record::coverage`); the times here are what was known when it was entered.

use std::collections::{BTreeMap, BTreeSet};

use camagent_proto::frame::{EndReason, SkipReason};

use super::TrackKey;
use super::ranges::Ranges;

/// Gaps that are remembered; the oldest go first.
const MOST_GAPS: usize = 100_000;
/// The same of absences.
const MOST_ABSENCES: usize = 20_000;
/// An absence that has not ended.
pub const OPEN_END: i64 = i64::MAX;
/// The server's own reasons begin behind all that a SKIP can have from an agent of today.
const OWN: u64 = 1 << 32;

/// Why frames are missing: the number of a SKIP's reason, or one of the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GapReason(u64);

impl GapReason {
    /// The frame could not be read as its codec.
    pub const UNREADABLE: Self = Self(OWN);
    /// The server's disk was full or too slow; an agent with a journal sends the frames again.
    pub const STORAGE: Self = Self(OWN + 1);
    /// They were recorded, and have gone as `retention_days` and `max_bytes_per_camera` say.
    pub const REMOVED: Self = Self(OWN + 2);
    /// They were recorded, and their file is gone or damaged.
    pub const FILE_LOST: Self = Self(OWN + 3);
    /// EPOCH_END: the agent was stopped, or left the epoch.
    pub const STOPPED: Self = Self(OWN + 4);
    /// EPOCH_END: the agent ended without a word; what was not on its card yet is gone.
    pub const POWER_CUT: Self = Self(OWN + 5);
    /// The agent had no session.
    pub const AGENT_OFFLINE: Self = Self(OWN + 6);
    /// Another run of the agent goes on, and nothing came of what the former one may have had in memory.
    pub const AGENT_RESTARTED: Self = Self(OWN + 7);
    /// The server did not run.
    pub const SERVER_DOWN: Self = Self(OWN + 8);
    /// The configuration did not have the source recorded, or nothing of it had ever come.
    pub const NOT_RECORDED: Self = Self(OWN + 9);
    /// There was none to record: the numbers go on without a hole.
    pub const NO_FRAMES: Self = Self(OWN + 10);
    /// They have not come, and nobody has said that they never will.
    pub const NOT_RECEIVED: Self = Self(OWN + 11);

    /// What an agent said of frames.
    #[must_use]
    pub const fn skipped(reason: SkipReason) -> Self {
        Self(reason.number())
    }

    /// What an agent said of the end of an epoch.
    #[must_use]
    pub const fn ended(cause: EndReason) -> Self {
        match cause {
            EndReason::PowerCut => Self::POWER_CUT,
            EndReason::Stopped | EndReason::Other(_) => Self::STOPPED,
        }
    }

    /// The number in files.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The reason of such a number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The name in the API, events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UNREADABLE => "unreadable",
            Self::STORAGE => "storage",
            Self::REMOVED => "removed",
            Self::FILE_LOST => "file_lost",
            Self::STOPPED => "stopped",
            Self::POWER_CUT => "power_cut",
            Self::AGENT_OFFLINE => "agent_offline",
            Self::AGENT_RESTARTED => "agent_restarted",
            Self::SERVER_DOWN => "server_down",
            Self::NOT_RECORDED => "not_recorded",
            Self::NO_FRAMES => "no_frames",
            Self::NOT_RECEIVED => "not_received",
            Self(number) => SkipReason::from_number(number).name(),
        }
    }
}

/// Frames that are missing, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The track.
    pub key: TrackKey,
    /// The camera.
    pub camera: String,
    /// The source.
    pub source: String,
    /// The first number that is missing.
    pub first: u64,
    /// The number behind the last.
    pub next: u64,
    /// Why.
    pub reason: GapReason,
    /// UTC, microseconds since 1970: the last frame before it, as far as it is known.
    pub from_us: i64,
    /// The first frame behind it; the same as `from_us` until one came.
    pub to_us: i64,
}

/// Who was away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This server.
    Server,
    /// An agent.
    Agent(String),
    /// A source of a camera.
    Source(String, String),
}

/// A time in which nothing can have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Who was away.
    pub scope: Scope,
    /// Why.
    pub reason: GapReason,
    /// The beginning, UTC in microseconds since 1970.
    pub from_us: i64,
    /// The end; [`OPEN_END`] while it lasts.
    pub to_us: i64,
}

/// Numbers that are missing for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first.
    pub first: u64,
    /// The number behind the last.
    pub next: u64,
    /// Why.
    pub reason: GapReason,
    /// As in [`Gap`].
    pub from_us: i64,
    /// As in [`Gap`].
    pub to_us: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TrackLedger {
    camera: String,
    source: String,
    /// By the first number and the reason: behind the last, and the times.
    gaps: BTreeMap<(u64, GapReason), (u64, i64, i64)>,
    /// All their numbers, but those that were recorded and have gone.
    lost: Ranges,
    ended: Option<(u64, EndReason)>,
}

impl TrackLedger {
    /// Gaps have been forgotten.
    fn sum_up(&mut self) {
        self.lost = Ranges::default();
        let own = self.gaps.iter().filter(|((_, reason), _)| *reason != GapReason::REMOVED);
        own.for_each(|((first, _), (next, ..))| self.lost.insert(*first, *next));
    }
}

/// Everything that explains why something is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    tracks: BTreeMap<TrackKey, TrackLedger>,
    gaps: usize,
    absences: BTreeMap<(Scope, GapReason, i64), i64>,
}

impl Ledger {
    /// Enters a gap. One that begins at the same number for the same reason is replaced: it has grown, or its times are known. Gives how many
    /// frames are news: those of which it was not known yet that they are missing, for whatever reason.
    pub fn put(&mut self, gap: &Gap) -> u64 {
        let track = self.track(&gap.key, &gap.camera, &gap.source);
        let before = track.gaps.insert((gap.first, gap.reason), (gap.next, gap.from_us, gap.to_us));
        let news = match gap.reason {
            GapReason::REMOVED => gap.next.saturating_sub(before.map_or(gap.first, |(next, ..)| next)),
            _ => {
                let news = track.lost.missing(gap.first, gap.next).iter().map(|(first, next)| next - first).sum();
                track.lost.insert(gap.first, gap.next);
                news
            }
        };
        self.gaps += usize::from(before.is_none());
        if self.gaps > MOST_GAPS {
            self.forget_oldest_gaps();
        }
        news
    }

    /// The agent has said that an epoch is over; whether that is news.
    pub fn end(&mut self, key: &TrackKey, camera: &str, source: &str, next: u64, cause: EndReason) -> bool {
        self.track(key, camera, source).ended.replace((next, cause)) != Some((next, cause))
    }

    fn track(&mut self, key: &TrackKey, camera: &str, source: &str) -> &mut TrackLedger {
        if !self.tracks.contains_key(key) {
            let new = TrackLedger { camera: camera.to_owned(), source: source.to_owned(), ..TrackLedger::default() };
            self.tracks.insert(key.clone(), new);
        }
        self.tracks.entry(key.clone()).or_default()
    }

    /// Calls the cameras and sources of tracks as they are called now.
    pub fn name<'a>(&mut self, names: impl Fn(&TrackKey) -> Option<(&'a str, &'a str)>) {
        for (key, track) in &mut self.tracks {
            if let Some((camera, source)) = names(key) {
                (track.camera, track.source) = (camera.to_owned(), source.to_owned());
            }
        }
    }

    /// Enters an absence; one of the same beginning is replaced.
    pub fn put_absence(&mut self, absence: Absence) {
        self.absences.insert((absence.scope, absence.reason, absence.from_us), absence.to_us);
        if self.absences.len() > MOST_ABSENCES {
            let mut ends: Vec<i64> = self.absences.values().copied().collect();
            let (_, &mut limit, _) = ends.select_nth_unstable(MOST_ABSENCES / 10);
            self.absences.retain(|_, to_us| *to_us > limit);
        }
    }

    /// Those that are open end; gives them as they are now.
    pub fn end_absence(&mut self, scope: &Scope, reason: GapReason, to_us: i64) -> Vec<Absence> {
        let own = (scope.clone(), reason, i64::MIN)..=(scope.clone(), reason, i64::MAX);
        let mut ended = Vec::new();
        for ((_, _, from_us), end) in self.absences.range_mut(own).filter(|(_, end)| **end == OPEN_END) {
            *end = to_us.max(*from_us);
            ended.push(Absence { scope: scope.clone(), reason, from_us: *from_us, to_us: *end });
        }
        ended
    }

    /// Whether an absence lasts.
    #[must_use]
    pub fn is_absent(&self, scope: &Scope, reason: GapReason) -> bool {
        let own = (scope.clone(), reason, i64::MIN)..=(scope.clone(), reason, i64::MAX);
        self.absences.range(own).any(|(_, end)| *end == OPEN_END)
    }

    /// Reasons why nothing came in a time of a source that these agents brought, each with its own time.
    #[must_use]
    pub fn absences(
        &self,
        agents: &BTreeSet<&str>,
        camera: &str,
        source: &str,
        from_us: i64,
        to_us: i64,
    ) -> Vec<Absence> {
        let is_own = |scope: &Scope| match scope {
            Scope::Server => true,
            Scope::Agent(own) => agents.contains(own.as_str()),
            Scope::Source(own_camera, own_source) => own_camera == camera && own_source == source,
        };
        let all = self
            .absences
            .iter()
            .filter(|((scope, _, begun), ended)| is_own(scope) && *begun < to_us && **ended > from_us);
        all.map(|((scope, reason, from_us), to_us)| Absence {
            scope: scope.clone(),
            reason: *reason,
            from_us: *from_us,
            to_us: *to_us,
        })
        .collect()
    }

    /// Numbers of a track that are missing among `first..next`, lowest first, cut to that range.
    #[must_use]
    pub fn missing(&self, key: &TrackKey, first: u64, next: u64) -> Vec<Missing> {
        let Some(track) = self.tracks.get(key) else { return Vec::new() };
        let own = track.gaps.range(..(next, GapReason(0))).filter(|(_, (end, ..))| *end > first);
        own.map(|((own, reason), (end, from_us, to_us))| Missing {
            first: (*own).max(first),
            next: (*end).min(next),
            reason: *reason,
            from_us: *from_us,
            to_us: *to_us,
        })
        .collect()
    }

    /// What of a track is missing, each number once, lowest first. What went after it was recorded comes last: other reasons are nearer to the
    /// cause.
    #[must_use]
    pub fn of_track(&self, key: &TrackKey) -> Vec<Missing> {
        let all = self.missing(key, 0, u64::MAX);
        let (mut known, mut list) = (Ranges::default(), Vec::new());
        let (removed, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|gap| gap.reason == GapReason::REMOVED);
        for gap in others.into_iter().chain(removed) {
            let parts = known.missing(gap.first, gap.next);
            list.extend(parts.into_iter().map(|(first, next)| Missing { first, next, ..gap }));
            known.insert(gap.first, gap.next);
        }
        list.sort_by_key(|gap| gap.first);
        list
    }

    /// Where the gap begins that a number is in: its first number, and its `from_us`.
    #[must_use]
    pub fn begin_of(&self, key: &TrackKey, number: u64, reason: GapReason) -> Option<(u64, i64)> {
        let own = self.tracks.get(key)?.gaps.range(..=(number, reason)).rev();
        let mut own = own.filter(|((_, own), (next, ..))| *own == reason && *next > number);
        own.next().map(|((first, _), (_, from_us, _))| (*first, *from_us))
    }

    /// How an epoch ended: the number behind its last frame, and why.
    #[must_use]
    pub fn ended(&self, key: &TrackKey) -> Option<(u64, EndReason)> {
        self.tracks.get(key)?.ended
    }

    /// The tracks of a source of which something is missing or that have ended.
    pub fn tracks_of<'a>(&'a self, camera: &'a str, source: &'a str) -> impl Iterator<Item = &'a TrackKey> + 'a {
        let own = self.tracks.iter().filter(move |(_, track)| track.camera == camera && track.source == source);
        own.map(|(key, _)| key)
    }

    /// Whether so much is missing that the oldest of it may have been forgotten.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.gaps >= MOST_GAPS / 10 * 8
    }

    /// All gaps.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + '_ {
        self.tracks.iter().flat_map(|(key, track)| {
            track.gaps.iter().map(|((first, reason), (next, from_us, to_us))| Gap {
                key: key.clone(),
                camera: track.camera.clone(),
                source: track.source.clone(),
                first: *first,
                next: *next,
                reason: *reason,
                from_us: *from_us,
                to_us: *to_us,
            })
        })
    }

    /// All ends of epochs.
    pub fn ends(&self) -> impl Iterator<Item = (&TrackKey, u64, EndReason)> + '_ {
        self.tracks.iter().filter_map(|(key, track)| track.ended.map(|(next, cause)| (key, next, cause)))
    }

    /// All absences.
    pub fn all_absences(&self) -> impl Iterator<Item = Absence> + '_ {
        self.absences.iter().map(|((scope, reason, from_us), to_us)| Absence {
            scope: scope.clone(),
            reason: *reason,
            from_us: *from_us,
            to_us: *to_us,
        })
    }

    /// Forgets what was over before a time, and tracks that nobody knows any more.
    pub fn forget(&mut self, utc_us: i64, is_known: impl Fn(&TrackKey) -> bool) {
        self.tracks.retain(|key, track| {
            track.gaps.retain(|_, (_, _, to_us)| *to_us >= utc_us);
            track.sum_up();
            is_known(key)
        });
        self.count();
        self.absences.retain(|_, to_us| *to_us >= utc_us);
    }

    fn forget_oldest_gaps(&mut self) {
        let all = self.tracks.values().flat_map(|track| track.gaps.values());
        let mut ends: Vec<i64> = all.map(|(_, _, to_us)| *to_us).collect();
        let (_, &mut limit, _) = ends.select_nth_unstable(MOST_GAPS / 10);
        for track in self.tracks.values_mut() {
            track.gaps.retain(|_, (_, _, to_us)| *to_us > limit);
            track.sum_up();
        }
        self.count();
    }

    fn count(&mut self) {
        self.gaps = self.tracks.values().map(|track| track.gaps.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(track: u32) -> TrackKey {
        TrackKey { agent: "a".into(), boot: [1; 16], track, epoch: 1 }
    }

    fn gap(first: u64, next: u64, reason: GapReason, to_us: i64) -> Gap {
        Gap { key: key(0), camera: "cam".into(), source: "main".into(), first, next, reason, from_us: 0, to_us }
    }

    #[test]
    fn a_gap_that_grows_is_one_and_says_how_much_is_news() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.put(&gap(10, 20, GapReason::STORAGE, 1)), 10);
        assert_eq!(ledger.put(&gap(10, 25, GapReason::STORAGE, 2)), 5);
        assert_eq!(ledger.put(&gap(10, 25, GapReason::STORAGE, 9)), 0);
        assert_eq!(ledger.put(&gap(30, 31, GapReason::UNREADABLE, 9)), 1);
        let again = gap(12, 28, GapReason::skipped(SkipReason::OverBudget), 9);
        assert_eq!(ledger.clone().put(&again), 3, "what was missing for another reason is no news");
        assert_eq!(ledger.clone().put(&gap(12, 31, GapReason::STORAGE, 9)), 5, "nor what begins elsewhere");
        let found: Vec<_> = ledger.missing(&key(0), 12, 31).iter().map(|gap| (gap.first, gap.next)).collect();
        assert_eq!(found, [(12, 25), (30, 31)]);
        assert!(ledger.missing(&key(0), 25, 30).is_empty() && ledger.missing(&key(1), 0, 99).is_empty());
        assert_eq!(ledger.put(&gap(0, 40, GapReason::REMOVED, 9)), 40);
        let all: Vec<_> = ledger.of_track(&key(0)).iter().map(|gap| (gap.first, gap.next)).collect();
        assert_eq!(all, [(0, 10), (10, 25), (25, 30), (30, 31), (31, 40)], "each number once");
        assert_eq!(ledger.begin_of(&key(0), 39, GapReason::REMOVED), Some((0, 0)));
        assert_eq!(ledger.gaps().count(), 3);
        ledger.forget(5, |_| true);
        assert_eq!(ledger.gaps().count(), 3);
        ledger.forget(5, |_| false);
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn absences_begin_end_and_are_of_their_own() {
        let mut ledger = Ledger::default();
        let agent = Scope::Agent("a".into());
        let reason = GapReason::AGENT_OFFLINE;
        ledger.put_absence(Absence { scope: agent.clone(), reason, from_us: 10, to_us: OPEN_END });
        ledger.put_absence(Absence { scope: Scope::Server, reason: GapReason::SERVER_DOWN, from_us: 30, to_us: 40 });
        assert!(ledger.is_absent(&agent, reason));
        let of = |ledger: &Ledger, agent: &str, from, to| {
            let found = ledger.absences(&[agent].into(), "cam", "main", from, to);
            found.iter().map(|absence| absence.reason.name()).collect::<Vec<_>>()
        };
        assert_eq!(of(&ledger, "a", 35, 36), ["server_down", "agent_offline"]);
        assert_eq!(of(&ledger, "b", 35, 36), ["server_down"]);
        assert_eq!(ledger.end_absence(&agent, reason, 20).len(), 1);
        assert!(!ledger.is_absent(&agent, reason) && ledger.end_absence(&agent, reason, 25).is_empty());
        assert_eq!(of(&ledger, "a", 20, 30), [""; 0]);
        assert_eq!(of(&ledger, "a", 19, 30), ["agent_offline"]);
    }

    #[test]
    fn it_has_a_bound_and_the_oldest_go() {
        let mut ledger = Ledger::default();
        for number in 0..MOST_GAPS as u64 + 1 {
            ledger.put(&gap(number * 2, number * 2 + 1, GapReason::STORAGE, number as i64));
        }
        assert!(ledger.gaps().count() <= MOST_GAPS);
        assert!(ledger.missing(&key(0), 0, 10).is_empty(), "the oldest are forgotten");
        assert_eq!(ledger.missing(&key(0), MOST_GAPS as u64 * 2, u64::MAX).len(), 1);
        for number in 0..MOST_ABSENCES as i64 + 1 {
            let scope = Scope::Source("cam".into(), "main".into());
            ledger.put_absence(Absence { scope, reason: GapReason::NOT_RECORDED, from_us: number, to_us: number + 1 });
        }
        assert!(ledger.all_absences().count() <= MOST_ABSENCES);
    }
}
