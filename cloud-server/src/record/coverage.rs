//! Which times of a source are recorded, and why others are not: the frames around a hole say which numbers are missing, and the ledger of the ingest
//! says why. Where no number is missing there was no frame, or nobody who could have brought it.

use std::collections::{BTreeMap, BTreeSet};

use camagent_proto::frame::EndReason;

use super::archive::{Archive, Found};
use crate::error::Result;
use crate::ingest::ledger::{Absence, Ledger, Missing, Scope};
use crate::ingest::ranges::Ranges;
use crate::ingest::{GapReason, Run, TrackKey};

/// A pause that is none: frames are never nearer to each other than some time.
const PAUSE_US: i64 = 1_000_000;
/// What came within so much time may be on its way to the disk.
const UNDER_WAY_US: i64 = 3_000_000;

/// A time: from, to; UTC in microseconds since 1970.
pub type Span = (i64, i64);

/// One reason of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    /// Why.
    pub reason: GapReason,
    /// How many frames are missing for it, where their numbers are known.
    pub frames: Option<u64>,
}

/// A time without frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The time.
    pub span: Span,
    /// Why, the nearest reason first; never empty.
    pub whys: Vec<Why>,
}

impl Hole {
    /// Frames of the source's pictures (or sound, where it has no pictures) that are known to be missing.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.whys.iter().filter_map(|why| why.frames).sum()
    }
}

/// What is known of a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Times with frames.
    pub spans: Vec<Span>,
    /// Times without.
    pub gaps: Vec<Hole>,
    /// Frames of all tracks of the source that are missing, by reason.
    pub lost: BTreeMap<&'static str, u64>,
}

/// Looks a time up. Pictures count where there are any, else sound.
pub async fn coverage(archive: &Archive, camera: &str, source: &str, from_us: i64, to_us: i64) -> Result<Coverage> {
    let found = archive.find(camera, source, from_us, to_us).await?;
    let (mut before, mut after) = archive.around(camera, source, true, from_us, to_us).await?;
    let has_video = match found.is_empty() {
        true => before.is_some() || after.is_some(),
        false => found.iter().any(is_video),
    };
    if !has_video {
        (before, after) = archive.around(camera, source, false, from_us, to_us).await?;
    }
    let rows = || found.iter().chain(&before).chain(&after);
    let agents: BTreeSet<&str> = rows().map(|row| row.key.agent.as_str()).collect();
    let known = archive.ledger(|ledger| {
        let mut known =
            Known { absences: ledger.absences(&agents, camera, source, from_us, to_us), ..Known::default() };
        rows().for_each(|row| known.add(ledger, &row.key));
        ledger.tracks_of(camera, source).for_each(|key| known.add(ledger, key));
        for row in rows() {
            let recorded = known.recorded.entry(row.key.clone()).or_default();
            row.runs.iter().for_each(|run| recorded.insert(run.first, run.next));
        }
        known
    });
    let wanted = Wanted { from_us, to_us, now_us: archive.utc_us(), is_stalled: archive.takes_nothing(), has_video };
    Ok(compute(&found, before.as_ref(), after.as_ref(), &known, &wanted))
}

/// Whether a file holds pictures.
#[must_use]
pub fn is_video(row: &Found) -> bool {
    matches!(row.codec.as_str(), "H.264" | "H.265")
}

struct Wanted {
    from_us: i64,
    to_us: i64,
    now_us: i64,
    is_stalled: bool,
    has_video: bool,
}

/// What of the ledger is about the source.
#[derive(Default)]
struct Known {
    /// What is missing of each track, and how its epoch ended.
    tracks: BTreeMap<TrackKey, (Vec<Missing>, Option<EndReason>)>,
    absences: Vec<Absence>,
    /// Numbers that are there, wherever their times put them: what came over another session may be some hundred milliseconds off.
    recorded: BTreeMap<TrackKey, Ranges>,
}

impl Known {
    fn add(&mut self, ledger: &Ledger, key: &TrackKey) {
        if !self.tracks.contains_key(key) {
            self.tracks.insert(key.clone(), (ledger.of_track(key), ledger.ended(key).map(|(_, cause)| cause)));
        }
    }

    /// How many of `first..next` are not recorded.
    fn lacks(&self, key: &TrackKey, first: u64, next: u64) -> u64 {
        let missing = self.recorded.get(key).map(|recorded| recorded.missing(first, next));
        missing.map_or(next - first, |missing| missing.into_iter().map(|(first, next)| next - first).sum())
    }

    /// What is missing among `first..next`, cut to that range.
    fn missing(&self, key: &TrackKey, first: u64, next: u64) -> impl Iterator<Item = Missing> + '_ {
        let own = self.tracks.get(key).map_or(&[][..], |(own, _)| own.as_slice());
        let at = own.partition_point(|gap| gap.next <= first);
        let own = own[at..].iter().take_while(move |gap| gap.first < next);
        own.map(move |gap| Missing { first: gap.first.max(first), next: gap.next.min(next), ..*gap })
    }
}

/// A run of one track.
#[derive(Clone, Copy)]
struct Placed<'a> {
    key: &'a TrackKey,
    run: Run,
}

fn compute(found: &[Found], before: Option<&Found>, after: Option<&Found>, known: &Known, wanted: &Wanted) -> Coverage {
    let own = found.iter().filter(|row| is_video(row) == wanted.has_video);
    let mut runs: Vec<_> = own.flat_map(|row| row.runs.iter().map(|run| Placed { key: &row.key, run: *run })).collect();
    runs.sort_by_key(|placed| (placed.run.start_us, placed.run.first));
    let before = before.and_then(|row| {
        let last = row.runs.iter().max_by_key(|run| run.end_us)?;
        Some(Placed { key: &row.key, run: *last })
    });
    let after = after.and_then(|row| {
        let first = row.runs.iter().min_by_key(|run| run.start_us)?;
        Some(Placed { key: &row.key, run: *first })
    });
    let mut coverage = Coverage { lost: lost(found, known, wanted), ..Coverage::default() };
    let mut last = before;
    for placed in runs.iter().copied().map(Some).chain([after, None]) {
        let hole = hole(last, placed, known, wanted);
        let is_apart = hole.is_some();
        coverage.gaps.extend(hole);
        let Some(placed) = placed else { break };
        let (start, end) = (placed.run.start_us.max(wanted.from_us), placed.run.end_us.min(wanted.to_us));
        if start < end {
            match coverage.spans.last_mut() {
                Some(span) if !is_apart || start <= span.1 => span.1 = span.1.max(end),
                _ => coverage.spans.push((start, end)),
            }
        }
        // The longest, so that what lies within it ends no time.
        if last.is_none_or(|last| placed.run.end_us >= last.run.end_us) {
            last = Some(placed);
        }
        if placed.run.start_us >= wanted.to_us {
            break;
        }
    }
    coverage
}

/// The time between two runs, if it is one without frames.
fn hole(last: Option<Placed<'_>>, next: Option<Placed<'_>>, known: &Known, wanted: &Wanted) -> Option<Hole> {
    let begins = last.map_or(wanted.from_us, |last| last.run.end_us);
    // What is to come is no gap.
    let ends = next.map_or(wanted.to_us.min(wanted.now_us), |next| next.run.start_us);
    let is_same = matches!((&last, &next), (Some(last), Some(next)) if last.key == next.key);
    let lacks = matches!((&last, &next), (Some(last), Some(next)) if is_same && next.run.first > last.run.next
        && known.lacks(last.key, last.run.next, next.run.first) > 0);
    let is_under_way = next.is_none() && begins.saturating_add(UNDER_WAY_US) >= wanted.now_us;
    if is_under_way || !(lacks || last.is_none() || next.is_none() || ends.saturating_sub(begins) > PAUSE_US) {
        return None;
    }
    let span = (begins.max(wanted.from_us), ends.min(wanted.to_us));
    (span.0 < span.1).then(|| Hole { span, whys: whys(last, next, (begins, ends), known, wanted) })
}

fn whys(
    last: Option<Placed<'_>>,
    next: Option<Placed<'_>>,
    (begins, ends): Span,
    known: &Known,
    wanted: &Wanted,
) -> Vec<Why> {
    let mut frames: BTreeMap<GapReason, u64> = BTreeMap::new();
    let mut others: Vec<GapReason> = Vec::new();
    let mut count = |missing: Missing| *frames.entry(missing.reason).or_default() += missing.next - missing.first;
    let is_near = |gap: &Missing| gap.to_us >= begins.saturating_sub(PAUSE_US) && gap.from_us <= ends;
    match (last, next) {
        (Some(last), Some(next)) if last.key == next.key => {
            let (first, end) = (last.run.next, next.run.first);
            let mut explained = 0;
            known.missing(last.key, first, end).for_each(|gap| {
                explained += gap.next - gap.first;
                count(gap);
            });
            let lacking = if end > first { known.lacks(last.key, first, end) } else { 0 };
            if lacking > explained {
                *frames.entry(GapReason::NOT_RECEIVED).or_default() += lacking - explained;
            }
            if lacking == 0 {
                others.push(GapReason::NO_FRAMES);
            }
        }
        _ => {
            if let Some(last) = last {
                known.missing(last.key, last.run.next, u64::MAX).filter(is_near).for_each(&mut count);
                if let Some((_, Some(cause))) = known.tracks.get(last.key) {
                    others.push(GapReason::ended(*cause));
                }
            }
            if let Some(next) = next {
                known.missing(next.key, 0, next.run.first).filter(is_near).for_each(&mut count);
            }
            if last.is_none() {
                let mut all = known.tracks.values().flat_map(|(gaps, _)| gaps);
                let went = |gap: &Missing| gap.reason == GapReason::REMOVED && gap.from_us < ends && gap.to_us > begins;
                others.extend(all.any(went).then_some(GapReason::REMOVED));
            }
            match (last, next) {
                (Some(last), Some(next)) if last.key.boot != next.key.boot => others.push(GapReason::AGENT_RESTARTED),
                (None, _) if frames.is_empty() && others.is_empty() => others.push(GapReason::NOT_RECORDED),
                (Some(_), None) if wanted.is_stalled => others.push(GapReason::STORAGE),
                _ => {}
            }
        }
    }
    // A camera may have moved to another agent: each explains its own side.
    let is_concerned = |absence: &&Absence| match &absence.scope {
        Scope::Agent(agent) => [last, next].iter().flatten().any(|placed| placed.key.agent == *agent),
        Scope::Server | Scope::Source(..) => true,
    };
    let away = known.absences.iter().filter(|absence| absence.from_us < ends && absence.to_us > begins);
    let away = away.filter(is_concerned);
    others.extend(away.map(|absence| absence.reason));
    let mut whys: Vec<_> = frames.into_iter().map(|(reason, frames)| Why { reason, frames: Some(frames) }).collect();
    whys.sort_by_key(|why| std::cmp::Reverse(why.frames));
    for reason in others {
        if whys.iter().all(|why| why.reason != reason) {
            whys.push(Why { reason, frames: None });
        }
    }
    if whys.is_empty() {
        // Nobody was away, and no number is missing.
        whys.push(Why { reason: GapReason::NO_FRAMES, frames: None });
    }
    whys
}

/// Frames of all tracks that are missing: those of which it was said, when the gap ended within the time, and those between two files.
fn lost(found: &[Found], known: &Known, wanted: &Wanted) -> BTreeMap<&'static str, u64> {
    let mut stored: BTreeMap<&TrackKey, Ranges> = BTreeMap::new();
    for row in found {
        let own = stored.entry(&row.key).or_default();
        row.runs.iter().for_each(|run| own.insert(run.first, run.next));
    }
    let mut lost: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut count = |reason: GapReason, frames: u64| {
        if frames > 0 && reason != GapReason::REMOVED {
            *lost.entry(reason.name()).or_default() += frames;
        }
    };
    for (key, (gaps, _)) in &known.tracks {
        let own = stored.get(key).cloned().unwrap_or_default();
        for gap in gaps.iter().filter(|gap| (wanted.from_us..wanted.to_us).contains(&gap.to_us)) {
            // What came after all is not missing.
            count(gap.reason, own.missing(gap.first, gap.next).iter().map(|(first, next)| next - first).sum());
        }
    }
    for (key, mut own) in stored {
        let (Some(first), Some((_, end))) = (own.first(), own.iter().last()) else { continue };
        known.missing(key, first, end).for_each(|gap| own.insert(gap.first, gap.next));
        count(GapReason::NOT_RECEIVED, own.missing(first, end).iter().map(|(first, next)| next - first).sum());
    }
    lost
}

#[cfg(test)]
mod tests {
    use camagent_proto::frame::SkipReason;

    use super::*;
    use crate::ingest::Gap;
    use crate::ingest::ledger::OPEN_END;

    const SECOND: i64 = 1_000_000;

    fn key(boot: u8) -> TrackKey {
        TrackKey { agent: "a".into(), boot: [boot; 16], track: 0, epoch: 1 }
    }

    /// A file: whose, and runs of numbers and seconds.
    fn row(codec: &str, boot: u8, runs: &[(u64, u64, i64, i64)]) -> Found {
        let run = |(first, next, start, end): &(u64, u64, i64, i64)| Run {
            first: *first,
            next: *next,
            start_us: *start * SECOND,
            end_us: *end * SECOND,
        };
        Found {
            name: String::new(),
            camera: "cam".into(),
            source: "main".into(),
            key: key(boot),
            codec: codec.into(),
            bytes: 0,
            runs: runs.iter().map(run).collect(),
        }
    }

    fn gap(boot: u8, first: u64, next: u64, reason: GapReason, at: (i64, i64)) -> Gap {
        let (from_us, to_us) = (at.0 * SECOND, at.1 * SECOND);
        Gap { key: key(boot), camera: "cam".into(), source: "main".into(), first, next, reason, from_us, to_us }
    }

    fn known(ledger: &Ledger) -> Known {
        let absences = ledger.absences(&["a", "b"].into(), "cam", "main", i64::MIN, i64::MAX);
        let mut known = Known { absences, ..Known::default() };
        (0..9).for_each(|boot| known.add(ledger, &key(boot)));
        known
    }

    fn wanted(from: i64, to: i64) -> Wanted {
        let (from_us, to_us) = (from * SECOND, to * SECOND);
        Wanted { from_us, to_us, now_us: 1_000_000 * SECOND, is_stalled: false, has_video: true }
    }

    type Told = (i64, i64, Vec<(&'static str, u64)>);

    /// Gaps in seconds, with reasons and frames.
    fn told(coverage: &Coverage) -> Vec<Told> {
        let whys = |hole: &Hole| hole.whys.iter().map(|c| (c.reason.name(), c.frames.unwrap_or(0))).collect();
        coverage.gaps.iter().map(|hole| (hole.span.0 / SECOND, hole.span.1 / SECOND, whys(hole))).collect()
    }

    #[test]
    fn numbers_tell_holes_from_pauses_and_each_has_its_reasons() {
        let rows = [
            row("H.264", 1, &[(0, 100, 0, 10), (100, 200, 10, 20), (210, 300, 20, 30)]),
            row("H.264", 1, &[(300, 400, 60, 70), (450, 500, 75, 80)]),
            row("AAC", 2, &[(0, 1000, 0, 100)]),
        ];
        let mut ledger = Ledger::default();
        let over_budget = GapReason::skipped(SkipReason::OverBudget);
        ledger.put(&gap(1, 400, 430, over_budget, (70, 75)));
        ledger.put(&gap(1, 430, 440, GapReason::UNREADABLE, (70, 75)));
        let coverage = compute(&rows, None, None, &known(&ledger), &wanted(-1, 90));
        let spans: Vec<_> = coverage.spans.iter().map(|(from, to)| (from / SECOND, to / SECOND)).collect();
        assert_eq!(spans, [(0, 30), (60, 70), (75, 80)]);
        let expected = [
            (-1, 0, vec![("not_recorded", 0)]),
            (30, 60, vec![("no_frames", 0)]),
            (70, 75, vec![("over_budget", 30), ("unreadable", 10), ("not_received", 10)]),
            (80, 90, vec![("no_frames", 0)]),
        ];
        assert_eq!(told(&coverage), expected);
        assert_eq!(coverage.gaps[2].frames(), 50);
        assert_eq!(coverage.lost, [("over_budget", 30), ("unreadable", 10), ("not_received", 20)].into());
        let sound = Wanted { has_video: false, ..wanted(0, 100) };
        assert_eq!(
            compute(&rows[2..], None, None, &known(&ledger), &sound).spans,
            [(0, 100 * SECOND)],
            "sound alone counts"
        );
        assert_eq!(
            told(&compute(&[], None, None, &known(&ledger), &wanted(0, 1))),
            [(0, 1, vec![("not_recorded", 0)])]
        );
    }

    #[test]
    fn a_run_that_ended_and_who_was_away_are_reasons() {
        let rows = [row("H.264", 1, &[(0, 100, 0, 10)]), row("H.264", 2, &[(25, 100, 40, 50)])];
        let mut ledger = Ledger::default();
        ledger.end(&key(1), "cam", "main", 100, EndReason::PowerCut);
        ledger.put(&gap(2, 0, 25, GapReason::skipped(SkipReason::OverBudget), (40, 40)));
        let agent = Scope::Agent("a".into());
        let absence = |scope: Scope, reason: GapReason, from: i64, to: i64| Absence {
            scope,
            reason,
            from_us: from * SECOND,
            to_us: to,
        };
        ledger.put_absence(absence(agent.clone(), GapReason::AGENT_OFFLINE, 11, 39 * SECOND));
        ledger.put_absence(absence(Scope::Server, GapReason::SERVER_DOWN, 20, 30 * SECOND));
        ledger.put_absence(absence(agent, GapReason::AGENT_OFFLINE, 52, OPEN_END));
        let coverage = compute(&rows, None, None, &known(&ledger), &wanted(5, 60));
        let reasons = vec![
            ("over_budget", 25),
            ("power_cut", 0),
            ("agent_restarted", 0),
            ("server_down", 0),
            ("agent_offline", 0),
        ];
        assert_eq!(told(&coverage), [(10, 40, reasons), (50, 60, vec![("agent_offline", 0)])]);
        assert_eq!(coverage.lost, [("over_budget", 25)].into());
    }

    #[test]
    fn a_camera_that_moved_to_another_agent_has_the_absences_of_both() {
        let mut rows = [row("H.264", 1, &[(0, 100, 0, 10), (100, 200, 30, 40)]), row("H.264", 2, &[(0, 100, 80, 90)])];
        rows[1].key.agent = "b".into();
        let mut ledger = Ledger::default();
        for (agent, from, to) in [("a", 10, 30 * SECOND), ("a", 41, OPEN_END), ("b", 92, OPEN_END)] {
            let (scope, reason) = (Scope::Agent(agent.into()), GapReason::AGENT_OFFLINE);
            ledger.put_absence(Absence { scope, reason, from_us: from * SECOND, to_us: to });
        }
        let coverage = compute(&rows, None, None, &known(&ledger), &wanted(0, 91));
        let expected = [
            (10, 30, vec![("no_frames", 0), ("agent_offline", 0)]),
            (40, 80, vec![("agent_restarted", 0), ("agent_offline", 0)]),
            (90, 91, vec![("no_frames", 0)]),
        ];
        assert_eq!(told(&coverage), expected, "who left the camera long ago explains nothing of today");
    }

    #[test]
    fn what_is_outside_explains_the_edges_and_what_came_after_all_is_not_lost() {
        let rows = [row("H.264", 1, &[(100, 200, 50, 60)])];
        let (before, after) = (row("H.264", 1, &[(0, 40, 0, 4)]), row("H.264", 1, &[(200, 300, 100, 110)]));
        let mut ledger = Ledger::default();
        ledger.put(&gap(1, 40, 100, GapReason::STORAGE, (4, 50)));
        ledger.put(&gap(1, 150, 160, GapReason::STORAGE, (55, 56)));
        let coverage = compute(&rows, Some(&before), Some(&after), &known(&ledger), &wanted(10, 90));
        assert_eq!(told(&coverage), [(10, 50, vec![("storage", 60)]), (60, 90, vec![("no_frames", 0)])]);
        assert_eq!(coverage.lost, [("storage", 60)].into());
        // The first files went because they were old.
        ledger.put(&gap(1, 0, 100, GapReason::REMOVED, (0, 50)));
        let coverage = compute(&rows, None, Some(&after), &known(&ledger), &wanted(10, 90));
        assert_eq!(told(&coverage)[0], (10, 50, vec![("storage", 60), ("removed", 40)]));
        assert_eq!(coverage.lost, [("storage", 60)].into());
        let stalled = Wanted { is_stalled: true, ..wanted(10, 90) };
        assert_eq!(told(&compute(&rows, None, None, &known(&ledger), &stalled))[1], (60, 90, vec![("storage", 0)]));
        let now = Wanted { now_us: 62 * SECOND, ..wanted(50, 90) };
        assert!(compute(&rows, None, None, &known(&ledger), &now).gaps.is_empty(), "it is on its way");
    }
}
