//! Keeps the folder below its cap: the oldest segments go, and why is on the card before they do.
//!
//! What does not belong here: what the server has and goes for that (`store`).

use std::io;

use camagent_proto::frame::SkipReason;

use super::{
    disk::Disk,
    store::{Flash, LaneKey, MAX_LANES, MAX_SEGMENTS, Segment, name},
};

impl Flash {
    /// Lets the oldest segments go until `needed` octets fit below the cap.
    pub(super) fn make_room(&mut self, disk: &mut dyn Disk, needed: u64) -> io::Result<()> {
        while (self.bytes() + needed > self.config.max_bytes
            || self.segments.len() >= MAX_SEGMENTS
            || self.lanes.len() >= MAX_LANES)
            && self.evict_oldest(disk)?
        {}
        Ok(())
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
        let Segment { boot, runs, lost, .. } = self.segments[0].clone();
        for run in runs {
            let key = LaneKey { boot, track: run.track, epoch: run.epoch };
            let Some(lane) = self.lanes.get(&key) else { continue };
            let first = run.first.max(lane.freed);
            if first < run.end {
                self.counts.frames_evicted += run.end - first;
                self.lose(key, first, run.end - 1, SkipReason::OverBudget);
            }
        }
        // What it said of others that are lost has to be said again.
        for lost in lost {
            let key = LaneKey { boot: lost.boot, track: lost.track, epoch: lost.epoch };
            if self.lanes.get(&key).is_some_and(|lane| lane.freed <= lost.last) {
                self.note_lost(key, lost.first, lost.last, lost.reason);
            }
        }
        // Why they are missing is on the card before they are, or as soon as there is room for it.
        let is_said = self.notes.is_empty() || self.write_notes(disk)?;
        self.drop_segment(disk, 0)?;
        self.forget_lanes();
        if !is_said {
            self.write_notes(disk)?;
        }
        Ok(true)
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
