//! Frames of a run that never knew UTC: a camera without a battery behind its clock, which was cut off before it reached anybody. Nobody knows when that
//! was. It was before the agent's present run, and what was recorded of a run keeps its own pace: so a whole run is put at one place, such that it ends
//! before the machine of the present one was switched on, and before the later runs of which the same is true.
//!
//! How long a run lasted is told by nobody either. It follows from how many numbers are to come and how fast they follow each other, so the first
//! frames wait until that shows.
//!
//! What does not belong here: runs that knew UTC, or whose clock is the present one (the gateway dates them).

use std::collections::BTreeMap;

use camagent_proto::transfer::{EpochKey, MediaFrame};

/// Frames wait until those of a track last so long …
const HOLD_US: i64 = 2_000_000;
/// … or there are so many, or so many octets.
const MOST_HELD: usize = 256;
const MOST_OCTETS: usize = 4 << 20;
/// From frame to frame, where that does not show.
const PACE_US: i64 = 40_000;
const SLOWEST_PACE_US: i64 = 60_000_000;
/// What is estimated is made longer by a sixteenth and by this.
const MARGIN_US: i64 = 10_000_000;
/// No run lasts longer.
const LONGEST_US: i64 = 366 * 86_400 * 1_000_000;
/// Runs whose places are kept.
const MOST_PLACES: usize = 1_024;

/// Where runs were put, for all sessions: agent, boot, and UTC minus the run's clock, with the place's own number.
#[derive(Debug, Default)]
pub(super) struct Places {
    offsets: BTreeMap<(String, [u8; 16]), (u64, i64)>,
    numbers: u64,
}

impl Places {
    pub(super) fn get(&self, agent: &str, boot: [u8; 16]) -> Option<i64> {
        self.offsets.get(&(agent.to_owned(), boot)).map(|(_, offset_us)| *offset_us)
    }

    pub(super) fn put(&mut self, agent: &str, boot: [u8; 16], offset_us: i64) {
        let key = (agent.to_owned(), boot);
        if self.offsets.len() >= MOST_PLACES && !self.offsets.contains_key(&key) {
            // The one that was put longest ago: whatever is called first in the alphabet may be on its way.
            let oldest = self.offsets.iter().min_by_key(|(_, (number, _))| *number).map(|(key, _)| key.clone());
            oldest.map(|key| self.offsets.remove(&key));
        }
        self.numbers += 1;
        self.offsets.insert(key, (self.numbers, offset_us));
    }
}

/// A frame with UTC.
pub type Dated = (EpochKey, MediaFrame, i64);

/// The runs of one session, oldest first.
#[derive(Debug, Default)]
pub struct Undated {
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    boot: [u8; 16],
    offset_us: Option<i64>,
    lanes: Vec<Lane>,
    held: Vec<(EpochKey, MediaFrame)>,
    octets: usize,
}

#[derive(Debug)]
struct Lane {
    key: EpochKey,
    next: u64,
    end: u64,
    /// Number and time of the first frame that came, and of the last.
    seen: Option<[(u64, i64); 2]>,
}

impl Undated {
    /// Frames `next..end` of an epoch are to come. `offset_us` is where an earlier session put its run.
    pub fn opened(&mut self, key: EpochKey, next: u64, end: u64, offset_us: Option<i64>) {
        let index = self.runs.iter().position(|run| run.boot == key.boot.0).unwrap_or_else(|| {
            self.runs.push(Run { boot: key.boot.0, offset_us, lanes: Vec::new(), held: Vec::new(), octets: 0 });
            self.runs.len() - 1
        });
        let lanes = &mut self.runs[index].lanes;
        match lanes.iter_mut().find(|lane| lane.key == key) {
            Some(lane) => lane.end = end,
            None => lanes.push(Lane { key, next, end, seen: None }),
        }
    }

    /// Where a run was put.
    #[must_use]
    pub fn place(&self, boot: [u8; 16]) -> Option<i64> {
        self.runs.iter().find(|run| run.boot == boot).and_then(|run| run.offset_us)
    }

    /// Takes a frame; gives those that can be dated now. `before_us` is UTC of the moment before which all of this was.
    pub fn frame(&mut self, key: EpochKey, frame: MediaFrame, before_us: i64) -> Vec<Dated> {
        let Some(run) = self.runs.iter_mut().find(|run| run.boot == key.boot.0) else { return Vec::new() };
        if let Some(offset_us) = run.offset_us {
            let utc_us = arrival_us(&frame).saturating_add(offset_us);
            return vec![(key, frame, utc_us)];
        }
        let is_enough = run.hold(key, frame);
        if is_enough { self.release(key.boot.0, before_us) } else { Vec::new() }
    }

    /// Puts a run at its place and gives all that waits: no more is to be waited for.
    pub fn release(&mut self, boot: [u8; 16], before_us: i64) -> Vec<Dated> {
        let Some(index) = self.runs.iter().position(|run| run.boot == boot) else { return Vec::new() };
        let paces = self.runs[index].paces();
        let Some(first_us) = self.runs[index].held.iter().map(|(_, frame)| arrival_us(frame)).min() else {
            return Vec::new();
        };
        // Later runs get their places between this one and the present one.
        let later = self.runs[index..].iter().filter(|run| run.offset_us.is_none());
        let lasts_us = later.map(|run| run.lasts_us(&paces)).fold(0, i64::saturating_add);
        let run = &mut self.runs[index];
        let offset_us = before_us.saturating_sub(lasts_us).saturating_sub(first_us);
        run.offset_us = Some(offset_us);
        run.octets = 0;
        let held = std::mem::take(&mut run.held).into_iter();
        held.map(|(key, frame)| {
            let utc_us = arrival_us(&frame).saturating_add(offset_us);
            (key, frame, utc_us)
        })
        .collect()
    }
}

impl Run {
    /// Keeps a frame; true when no more is to be waited for.
    fn hold(&mut self, key: EpochKey, frame: MediaFrame) -> bool {
        let (sequence, at_us) = (frame.sequence, arrival_us(&frame));
        self.octets = self.octets.saturating_add(frame.payload.len());
        self.held.push((key, frame));
        let is_full = self.held.len() >= MOST_HELD || self.octets >= MOST_OCTETS;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.key == key) else { return true };
        let seen = lane.seen.get_or_insert([(sequence, at_us); 2]);
        seen[1] = (sequence, at_us);
        is_full || at_us.saturating_sub(seen[0].1) >= HOLD_US || sequence.saturating_add(1) >= lane.end
    }

    /// The time from frame to frame of each track.
    fn paces(&self) -> BTreeMap<u32, i64> {
        let pace = |lane: &Lane| {
            let [(first, first_us), (last, last_us)] = lane.seen?;
            let frames = i64::try_from(last.checked_sub(first)?).ok().filter(|frames| *frames > 0)?;
            Some((lane.key.track, (last_us.saturating_sub(first_us) / frames).clamp(1, SLOWEST_PACE_US)))
        };
        self.lanes.iter().filter_map(pace).collect()
    }

    /// For how long what is to come of it lasts, with room to spare.
    fn lasts_us(&self, paces: &BTreeMap<u32, i64>) -> i64 {
        let mut tracks: BTreeMap<u32, u64> = BTreeMap::new();
        for lane in &self.lanes {
            let first = lane.seen.map_or(lane.next, |[(first, _), _]| first);
            let frames = tracks.entry(lane.key.track).or_default();
            *frames = frames.saturating_add(lane.end.saturating_sub(first));
        }
        let is_known = tracks.keys().any(|track| paces.contains_key(track));
        let lasts = tracks.iter().map(|(track, frames)| {
            let pace_us = paces.get(track).copied().unwrap_or(if is_known { 0 } else { PACE_US });
            i64::try_from(*frames).unwrap_or(i64::MAX).saturating_mul(pace_us)
        });
        let lasts_us = lasts.max().unwrap_or(0).min(LONGEST_US);
        lasts_us + lasts_us / 16 + MARGIN_US
    }
}

fn arrival_us(frame: &MediaFrame) -> i64 {
    i64::try_from(frame.head.arrival_us).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use camagent_proto::frame::FrameHead;
    use camagent_proto::message::BootId;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const NOW: i64 = 1_760_000_000 * SECOND;

    fn key(boot: u8, track: u32) -> EpochKey {
        EpochKey { boot: BootId([boot; 16]), track, epoch: 1 }
    }

    fn frame(track: u32, sequence: u64, at_us: i64) -> MediaFrame {
        let head = FrameHead { arrival_us: u64::try_from(at_us).expect("positive"), ..FrameHead::default() };
        MediaFrame { track, epoch: 1, sequence, head, payload: Bytes::from_static(&[0; 100]) }
    }

    /// Sends frames 40 ms apart, and sound 20 ms apart; gives the times at which they were put.
    fn send(undated: &mut Undated, boot: u8, pictures: std::ops::Range<u64>) -> Vec<(u32, u64, i64)> {
        let mut all = Vec::new();
        for sequence in pictures {
            let at_us = 7 * SECOND + sequence as i64 * 40_000;
            for (track, sequence, at_us) in
                [(0, sequence, at_us), (1, sequence * 2, at_us), (1, sequence * 2 + 1, at_us + 20_000)]
            {
                let dated = undated.frame(key(boot, track), frame(track, sequence, at_us), NOW);
                all.extend(dated.into_iter().map(|(_, frame, utc_us)| (frame.track, frame.sequence, utc_us)));
            }
        }
        all
    }

    fn open(undated: &mut Undated, boot: u8, pictures: u64) {
        undated.opened(key(boot, 0), 0, pictures, None);
        undated.opened(key(boot, 1), 0, pictures * 2, None);
    }

    #[test]
    fn runs_keep_their_pace_and_end_one_after_the_other_before_the_present_one() {
        let mut undated = Undated::default();
        open(&mut undated, 1, 3 * 3_600 * 25);
        open(&mut undated, 2, 600 * 25);
        let first = send(&mut undated, 1, 0..3 * 3_600 * 25);
        let second = send(&mut undated, 2, 0..600 * 25);
        assert_eq!((first.len(), second.len()), (3 * 3_600 * 25 * 3, 600 * 25 * 3), "none is left");
        for all in [&first, &second] {
            for (track, sequence, utc_us) in all {
                let pace = if *track == 0 { 40_000 } else { 20_000 };
                assert_eq!(utc_us - all[0].2, *sequence as i64 * pace, "one place for all of it");
            }
        }
        let (begins, ends) = (first[0].2, first.last().expect("some").2);
        assert!(ends < second[0].2 && second.last().expect("some").2 < NOW);
        assert!(NOW - begins < 4 * 3_600 * SECOND, "and not long before");
        // Another session, which knows the place.
        let mut again = Undated::default();
        again.opened(key(1, 0), 500, 1_000, undated.place([1; 16]));
        let dated = again.frame(key(1, 0), frame(0, 500, 27 * SECOND), NOW + SECOND);
        assert_eq!(dated[0].2, begins + 20 * SECOND);
    }

    #[test]
    fn short_runs_and_wild_numbers_wait_for_nothing_and_overflow_nothing() {
        let mut undated = Undated::default();
        undated.opened(key(1, 0), 0, 2, None);
        assert!(undated.frame(key(1, 0), frame(0, 0, 5), NOW).is_empty());
        assert_eq!(undated.frame(key(1, 0), frame(0, 1, 40_005), NOW).len(), 2, "the last");
        undated.opened(key(2, 0), 0, u64::MAX, None);
        assert!(undated.frame(key(2, 0), frame(0, 0, i64::MAX), NOW).is_empty());
        assert_eq!(undated.release([2; 16], NOW).len(), 1);
        assert!(undated.release([2; 16], NOW).is_empty() && undated.release([9; 16], NOW).is_empty());
        undated.opened(key(3, 0), 0, 10_000, None);
        let held = (0..MOST_HELD as u64).map(|sequence| undated.frame(key(3, 0), frame(0, sequence, 7), NOW).len());
        assert_eq!(held.sum::<usize>(), MOST_HELD, "a bound");
        let mut places = Places::default();
        (0..2_000_i64).for_each(|agent| places.put(&agent.to_string(), [1; 16], agent));
        let known = |agent: i64| places.get(&agent.to_string(), [1; 16]) == Some(agent);
        assert_eq!(places.offsets.len(), MOST_PLACES);
        assert!((2_000 - MOST_PLACES as i64..2_000).all(known) && !known(0), "the oldest go first");
        places.put("1999", [1; 16], 7);
        assert_eq!((places.offsets.len(), places.get("1999", [1; 16])), (MOST_PLACES, Some(7)));
    }
}
