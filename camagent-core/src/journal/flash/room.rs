//! Keeps the folder below its cap: the oldest segments are thinned (`thin`), then they go, and why is on the card before they do.
//!
//! What does not belong here: what the server has and goes for that (`store`).

use std::io;

use camagent_proto::frame::SkipReason;

use super::{
    disk::Disk,
    segment::{End, Record, Run},
    store::{Flash, LaneKey, MAX_LANES, MAX_SEGMENTS, Segment, name},
};

impl Flash {
    /// Lets go of the oldest until `needed` octets fit below the cap: first of what stands between key frames, then of whole segments.
    pub(super) fn make_room(&mut self, disk: &mut dyn Disk, needed: u64) -> io::Result<()> {
        loop {
            let is_crowded = self.segments.len() >= MAX_SEGMENTS || self.lanes.len() >= MAX_LANES;
            if !is_crowded && self.room() >= needed {
                return Ok(());
            }
            if (is_crowded || !self.thin(disk)?) && !self.evict_oldest(disk)? {
                return Ok(());
            }
        }
    }

    /// Whether a step of [`Flash::thin`] is due, ahead of need.
    pub(crate) fn wants_thinning(&self) -> bool {
        self.thinning.is_some() || self.room() < self.config.segment_bytes() / 2 && self.can_thin()
    }

    /// Octets that fit below the cap, without those of a copy that a segment is thinned by.
    pub(super) fn room(&self) -> u64 {
        self.config.max_bytes.saturating_sub(self.bytes() + self.config.segment_bytes() / 2)
    }

    /// The oldest segment goes, whatever the server has of it; `false` when there is none.
    pub(crate) fn evict_oldest(&mut self, disk: &mut dyn Disk) -> io::Result<bool> {
        if self.segments.is_empty() {
            // The open one is all there is.
            if self.open.as_ref().is_none_or(|open| open.summary.runs.is_empty()) {
                return Ok(false);
            }
            self.seal(disk)?;
            if self.segments.is_empty() {
                return Ok(true);
            }
        }
        self.evict(disk, 0, SkipReason::OverBudget)?;
        Ok(true)
    }

    /// A segment goes. Why is on the card before that, or as soon as there is room for it.
    pub(super) fn evict(&mut self, disk: &mut dyn Disk, at: usize, reason: SkipReason) -> io::Result<()> {
        let Segment { number, boot, mut runs, lost, ends, is_thin, .. } = self.segments[at].clone();
        for run in &runs {
            let key = LaneKey { boot, track: run.track, epoch: run.epoch };
            let Some(lane) = self.lanes.get(&key) else { continue };
            let first = run.first.max(lane.freed);
            if first < run.end {
                let end = self.end_of_group(number, key, run.end);
                // What was thinned was counted then.
                let own = if is_thin { run.frames.min(run.end - first) } else { lane.not_lost_yet(first, run.end) };
                let more = own.saturating_add(lane.not_lost_yet(run.end, end));
                self.counts.frames_evicted = self.counts.frames_evicted.saturating_add(more);
                self.lose(key, first, end - 1, reason);
            }
        }
        runs.retain(|run| {
            let lane = self.lanes.get(&LaneKey { boot, track: run.track, epoch: run.epoch });
            lane.is_some_and(|lane| lane.freed < run.end)
        });
        // What it said of others that are lost has to be said again, and where epochs ended.
        for lost in lost {
            let key = LaneKey { boot: lost.boot, track: lost.track, epoch: lost.epoch };
            let of_run = |run: &Run| (boot, run.track, run.epoch) == lost.lane() && run.contains(lost.first);
            if self.lanes.get(&key).is_some_and(|lane| lane.freed <= lost.last) && !runs.iter().any(of_run) {
                self.note_lost(key, lost.first, lost.last, lost.reason);
            }
        }
        for end in ends {
            let of = end.boot.unwrap_or(boot);
            let lane = self.lanes.get(&LaneKey { boot: of, track: end.track, epoch: end.epoch });
            if lane.is_some_and(|lane| lane.freed < lane.end) {
                let boot = Some(of).filter(|of| *of != self.config.boot);
                self.notes.push(Record::End(End { boot, ..end }));
            }
        }
        let is_said = self.notes.is_empty() || self.write_notes(disk)?;
        // The open one may have been sealed meanwhile.
        let at = self.segments.iter().position(|segment| segment.number == number);
        at.map_or(Ok(()), |at| self.drop_segment(disk, at))?;
        self.forget_lanes();
        if !is_said {
            self.write_notes(disk)?;
        }
        Ok(())
    }

    /// Where the pictures end that refer to one before `next`, which goes from this segment: at the next key frame, in whatever segment that is. They go
    /// with it, and are not read any more ([`Lane::has_given_up`](super::store::Lane)).
    pub(super) fn end_of_group(&self, number: u64, key: LaneKey, next: u64) -> u64 {
        let Some(lane) = self.lane(&key).filter(|lane| lane.info.sample_rate == 0) else { return next };
        let sealed = self.segments.iter().filter(|segment| segment.number > number && segment.boot == key.boot);
        let open = self.open.as_ref().filter(|_| key.boot == self.config.boot);
        let lists = sealed.map(|segment| &segment.runs).chain(open.map(|open| &open.summary.runs));
        let mut end = next;
        // After a write that failed two segments may have the same numbers.
        let behind = |run: &&Run, end: u64| (run.track, run.epoch) == (key.track, key.epoch) && run.end > end;
        for run in lists.flatten() {
            if !behind(&run, end) {
                continue;
            }
            match run.first_key {
                // What is missing there has its own reason.
                _ if run.first > end => return end,
                Some(key) if key >= end => return key,
                // The first key frame is among those that two segments have: where the next one is was not written down.
                Some(_) => return end,
                None => end = run.end,
            }
        }
        // The group that the track is in goes on.
        if lane.ended.is_some() { end } else { next }
    }

    /// Makes what was noted safe; `false` when a full card has no room for that.
    fn write_notes(&mut self, disk: &mut dyn Disk) -> io::Result<bool> {
        let Err(error) = self.sync(disk) else { return Ok(true) };
        match &self.open {
            _ if error.kind() != io::ErrorKind::StorageFull => return Err(error),
            None => {}
            Some(open) if open.synced == 0 => {
                // It was not begun to its end: that is done anew when there is room.
                disk.remove(&name(open.number))?;
                self.open = None;
            }
            // A part of what is pending may have been written: it is written again there.
            Some(open) if !open.pending.is_empty() => disk.truncate(&name(open.number), open.written)?,
            Some(_) => return Err(error),
        }
        Ok(false)
    }
}
