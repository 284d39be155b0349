//! The segments of a folder: appends frames, seals and begins segments, and lets go of what the server has.
//!
//! It is called by one thread, which may wait for the card. After a write that failed nothing is known of the open segment's end: the
//! caller opens the journal again ([`Flash::open`], in `open`), which cuts it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use camagent_proto::{
    frame::{FrameHead, FrameStart, SkipReason, TrackInfo},
    message::BootId,
};

use super::{
    disk::Disk,
    segment::{self, Clock, End, EndReason, Lost, Record, Run, Summary},
    thin::Thinning,
};
use crate::journal::Hole;

/// Written to the file at once.
pub(super) const WRITE: usize = 64 << 10;
/// Runs of a segment; one with more is sealed.
const MAX_RUNS: usize = 4_096;
/// Epochs that are remembered; beyond, the oldest segments go.
pub(super) const MAX_LANES: usize = 4_096;
/// Segments that are kept; beyond, the oldest go.
pub(super) const MAX_SEGMENTS: usize = 4_096;

/// What a journal on flash is told beforehand.
#[derive(Clone, Debug)]
pub(crate) struct FlashConfig {
    /// Whose frames these are: segments of others are set aside.
    pub(crate) agent_id: String,
    /// This run.
    pub(crate) boot: BootId,
    /// Octets that all segments may take.
    pub(crate) max_bytes: u64,
}

impl FlashConfig {
    /// Octets of a segment. Each costs the card some pages of the file system's own, and opening reads a place of each; but the one that an unplanned end
    /// leaves open is read whole. A full folder has no more than a quarter of [`MAX_SEGMENTS`]: thinned ones are smaller.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let usual = (self.max_bytes / 256).clamp(256 << 10, 32 << 20).min(self.max_bytes / 4);
        usual.max(self.max_bytes / (MAX_SEGMENTS as u64 / 4))
    }
}

/// Names an epoch of a track in any run of this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneKey {
    pub(crate) boot: BootId,
    pub(crate) track: u32,
    pub(crate) epoch: u64,
}

/// What the folder has of one epoch.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) info: TrackInfo,
    /// The first number that the folder ever had of it.
    pub(crate) oldest: u64,
    /// The number behind the last one.
    pub(crate) end: u64,
    /// The server has all below.
    pub(crate) freed: u64,
    /// The server had all below when the newest segment was begun, of those that are here.
    pub(super) was_freed: u64,
    /// Numbers that had to go, ascending: first, last, why.
    pub(crate) lost: Vec<(u64, u64, SkipReason)>,
    /// Why there is nothing behind `end`; `None` while the epoch goes on.
    pub(crate) ended: Option<EndReason>,
    /// The key frame of the group that an epoch of pictures is in, while it goes on.
    pub(super) newest_key: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) boot: BootId,
    /// Octets of the file.
    pub(super) bytes: u64,
    /// Behind the last record that can be read.
    pub(super) data_end: u64,
    pub(super) runs: Vec<Run>,
    pub(super) lost: Vec<Lost>,
    pub(super) ends: Vec<End>,
    /// Octets in the middle are wrong: it is set aside instead of removed.
    pub(super) is_corrupt: bool,
    /// It was thinned: its file has another name.
    pub(super) is_thin: bool,
    /// Octets that go when it is thinned; 0 when it cannot be.
    pub(super) gain: u64,
}

/// A segment that is being written.
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) summary: Summary,
    /// Octets in the file.
    pub(super) written: u64,
    /// Octets that are safely on the card.
    pub(super) synced: u64,
    pub(super) pending: Vec<u8>,
}

/// What was counted since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlashCounts {
    /// Frames that were appended.
    pub(crate) frames: u64,
    /// Their octets.
    pub(crate) frame_octets: u64,
    /// Octets that were given to the folder for them.
    pub(crate) octets_written: u64,
    /// Frames that went because of the cap before the server had them, be it to keep their key frame.
    pub(crate) frames_evicted: u64,
}

/// The journal's flash tier.
pub(crate) struct Flash {
    pub(super) config: FlashConfig,
    /// Sealed segments, oldest first.
    pub(super) segments: VecDeque<Segment>,
    pub(super) open: Option<Open>,
    /// One that is being thinned.
    pub(super) thinning: Option<Thinning>,
    pub(super) next_number: u64,
    pub(super) lanes: BTreeMap<LaneKey, Lane>,
    /// The runs whose segments are here, oldest first, and what their clocks showed.
    pub(super) boots: Vec<(BootId, Option<Clock>)>,
    /// What is to be written into the open segment beside frames.
    pub(super) notes: Vec<Record>,
    pub(super) counts: FlashCounts,
    damages: Vec<String>,
}

pub(super) fn name(number: u64) -> String {
    format!("{number:016x}.camj")
}

/// The name of a thinned one, and of its copy that is made of the whole one.
pub(super) fn thin_name(number: u64) -> String {
    format!("{number:016x}.thin.camj")
}

impl Segment {
    /// One that is sealed, by its summary.
    pub(super) fn sealed(number: u64, boot: BootId, summary: Summary, bytes: u64, data_end: u64) -> Self {
        let octets = summary.runs.iter().fold(0_u64, |octets, run| octets.saturating_add(run.octets));
        Self {
            number,
            boot,
            bytes,
            data_end,
            gain: octets.saturating_sub(summary.kept_octets).min(bytes),
            runs: summary.runs,
            lost: summary.lost,
            ends: summary.ends,
            is_corrupt: false,
            is_thin: false,
        }
    }

    pub(super) fn name(&self) -> String {
        if self.is_thin { thin_name(self.number) } else { name(self.number) }
    }
}

impl Flash {
    pub(super) fn empty(config: FlashConfig) -> Self {
        Self {
            boots: Vec::new(),
            config,
            segments: VecDeque::new(),
            open: None,
            thinning: None,
            next_number: 1,
            lanes: BTreeMap::new(),
            notes: Vec::new(),
            counts: FlashCounts::default(),
            damages: Vec::new(),
        }
    }

    /// Octets that all segments may take from now on.
    pub(crate) fn set_max_bytes(&mut self, max_bytes: u64) {
        self.config.max_bytes = max_bytes;
    }

    /// Octets of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        let copy = self.thinning.as_ref().map(|thinning| &thinning.copy);
        let open: u64 = self.open.iter().chain(copy).map(Open::place).sum();
        open + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Counters since it was opened.
    pub(crate) fn counts(&self) -> FlashCounts {
        self.counts
    }

    /// Every epoch that it has something of.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&LaneKey, &Lane)> {
        self.lanes.iter()
    }

    /// Those of one run: others may be hundreds.
    pub(crate) fn lanes_of(&self, boot: BootId) -> impl Iterator<Item = (&LaneKey, &Lane)> {
        let first = LaneKey { boot, track: 0, epoch: 0 };
        self.lanes.range(first..=LaneKey { track: u32::MAX, epoch: u64::MAX, ..first })
    }

    pub(crate) fn lane(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.get(key)
    }

    /// The runs that it has something of, oldest first.
    pub(crate) fn boots(&self) -> &[(BootId, Option<Clock>)] {
        &self.boots
    }

    /// Appends a frame of this run; `payload` is its octets, those of `frame` are empty. It is safe after the next [`Flash::sync`].
    pub(crate) fn append(
        &mut self,
        disk: &mut dyn Disk,
        info: &TrackInfo,
        frame: &FrameStart,
        payload: &[u8],
    ) -> io::Result<()> {
        let needed = (payload.len() + 256) as u64;
        self.make_room(disk, needed)?;
        let is_full = self.open.as_ref().is_some_and(|open| {
            let taken = open.written + open.pending.len() as u64 + needed;
            let limit = self.config.segment_bytes();
            // A new segment begins with a key frame if one comes in time: so the oldest one that is left does too.
            taken > limit
                || (taken > limit / 8 * 7 && frame.head.key && info.sample_rate == 0)
                || open.summary.runs.len() >= MAX_RUNS
        });
        if is_full {
            self.seal(disk)?;
        }
        self.begin(disk)?;
        let key = LaneKey { boot: self.config.boot, track: info.track, epoch: info.epoch };
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(info, frame.sequence));
        // What was lost between two appends was told by `lost`; numbers only grow.
        lane.end = lane.end.max(frame.sequence + 1);
        lane.regain(frame.sequence);
        if frame.head.key && info.sample_rate == 0 {
            lane.newest_key = Some(frame.sequence);
        }
        let open = self.open.as_mut().expect("a segment was just begun");
        if !open.summary.tracks.contains_key(&(info.track, info.epoch)) {
            open.put(&Record::Track(lane.described()));
        }
        for note in self.notes.drain(..) {
            open.put_note(note);
        }
        open.put_frame(info.epoch, frame, payload);
        open.summary.note_frame(info.epoch, info.track, frame.sequence, &frame.head, frame.total);
        self.counts.frames += 1;
        self.counts.frame_octets += payload.len() as u64;
        if open.pending.len() >= WRITE { self.write(disk) } else { Ok(()) }
    }

    /// The time of day is known now.
    pub(crate) fn note_clock(&mut self, clock: Clock) {
        self.note_boot(self.config.boot, Some(clock));
        self.notes.push(Record::Clock(clock));
    }

    /// Numbers `written..next` of an epoch of this run will not be appended: below `freed` the live reader has brought them, the others went, for the
    /// reasons that `known` has or for want of room. Every number between two frames of the folder has its reason this way.
    pub(crate) fn note_hole(&mut self, info: &TrackInfo, written: u64, freed: u64, known: &[Hole], next: u64) {
        let key = LaneKey { boot: self.config.boot, track: info.track, epoch: info.epoch };
        let brought = freed.clamp(written, next.max(written));
        // What the folder has nothing before needs no word.
        if brought > written && self.lanes.contains_key(&key) {
            self.lose(key, written, brought - 1, SkipReason::Live);
        }
        for &(first, end, reason) in known.iter().chain(&[(brought, next, SkipReason::OverBudget)]) {
            let (first, end) = (first.max(brought), end.min(next));
            if first >= end {
                continue;
            }
            let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(info, first));
            // After a write that failed it is told a second time, from further back: what was said then was closer to it, and what was written is there.
            for (first, end) in lane.not_lost(first, end) {
                let absent = self.absent(&key, first, end).into_iter();
                absent.for_each(|(first, end)| self.lose(key, first, end - 1, reason));
            }
        }
    }

    /// Numbers of `first..end` of which no segment has a frame: from, to.
    pub(super) fn absent(&self, key: &LaneKey, first: u64, end: u64) -> Vec<(u64, u64)> {
        let sealed = self.segments.iter().filter(|segment| segment.boot == key.boot).map(|segment| &segment.runs);
        let open = self.open.as_ref().filter(|_| key.boot == self.config.boot).map(|open| &open.summary.runs);
        let mut absent = vec![(first, end)];
        for run in sealed.chain(open).flatten().filter(|run| (run.track, run.epoch) == (key.track, key.epoch)) {
            let left = absent.into_iter().flat_map(|(first, end)| segment::without((first, end), (run.first, run.end)));
            absent = left.collect();
        }
        absent
    }

    /// An epoch of this run has ended before `end`, of which numbers below `written` were appended. One that the folder has nothing of needs no word,
    /// unless something is missing.
    pub(crate) fn note_end(&mut self, info: &TrackInfo, written: u64, freed: u64, known: &[Hole], end: u64) {
        let key = LaneKey { boot: self.config.boot, track: info.track, epoch: info.epoch };
        let needs_none = |lane: &Lane| lane.ended.is_some();
        if self.lanes.get(&key).map_or(freed.max(written) >= end, needs_none) {
            return;
        }
        self.note_hole(info, written, freed, known, end);
        if let Some(lane) = self.lanes.get_mut(&key) {
            (lane.ended, lane.end) = (Some(EndReason::Stopped), lane.end.max(end));
            self.notes.push(Record::End(End { boot: None, track: info.track, epoch: info.epoch, next: end }));
        }
    }

    /// Whether something was appended or noted that is not safe yet.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.notes.is_empty() || self.open.as_ref().is_some_and(|open| open.synced < open.place())
    }

    /// Waits until everything that was appended is on the card.
    pub(crate) fn sync(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        if !self.notes.is_empty() {
            self.begin(disk)?;
            let open = self.open.as_mut().expect("a segment was just begun");
            self.notes.drain(..).for_each(|note| open.put_note(note));
        }
        self.write(disk)?;
        let Some(open) = self.open.as_mut().filter(|open| open.synced < open.written) else { return Ok(()) };
        disk.sync(&name(open.number))?;
        open.synced = open.written;
        Ok(())
    }

    /// Ends the open segment: what it holds is summed up at its end.
    pub(crate) fn seal(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        if self.open.is_none() {
            return Ok(());
        }
        // A segment with a summary is believed without being read: what it sums up is safe before.
        self.sync(disk)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let data_end = open.put_end();
        let name = name(open.number);
        self.write(disk)?;
        disk.release(&name);
        self.sync(disk)?;
        let Some(open) = self.open.take() else { return Ok(()) };
        self.segments.push_back(Segment::sealed(open.number, self.config.boot, open.summary, open.written, data_end));
        self.clean(disk)
    }

    /// The server has all frames of this epoch below `next`: segments of which nothing is left to send go.
    pub(crate) fn free(&mut self, disk: &mut dyn Disk, key: &LaneKey, next: u64) -> io::Result<()> {
        let Some(lane) = self.lanes.get_mut(key) else { return Ok(()) };
        if next <= lane.freed {
            return Ok(());
        }
        lane.freed = next;
        lane.lost.retain(|(_, last, _)| *last >= next);
        self.clean(disk)
    }

    /// Octets of a sealed segment cannot be read back: of its frames those from `next` on are lost, and the file will be set aside.
    pub(super) fn damaged(&mut self, number: u64, why: &str, next: impl Fn(&LaneKey) -> u64) -> Vec<(LaneKey, u64)> {
        let segment = self.segments.iter_mut().find(|segment| segment.number == number);
        let Some(segment) = segment else { return Vec::new() };
        if !std::mem::replace(&mut segment.is_corrupt, true) {
            let name = segment.name();
            self.damages.push(format!("{name} is damaged: {why}"));
        }
        let (boot, runs) = (segment.boot, segment.runs.clone());
        if let Some(thinning) = self.thinning.as_mut().filter(|thinning| thinning.number == number) {
            thinning.is_stale = true;
        }
        let mut passed = Vec::new();
        for run in runs {
            let key = LaneKey { boot, track: run.track, epoch: run.epoch };
            let Some(lane) = self.lanes.get(&key) else { continue };
            let first = run.first.max(lane.freed).max(next(&key));
            if first < run.end {
                self.lose(key, first, run.end - 1, SkipReason::Corrupt);
                passed.push((key, run.end));
            }
        }
        passed
    }

    /// Takes note of frames that are lost, for now and for the time after a power cut.
    pub(super) fn lose(&mut self, key: LaneKey, first: u64, last: u64, reason: SkipReason) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        lane.lose(first, last, reason);
        self.note_lost(key, first, last, reason);
    }

    /// Writes down what is lost from one number to another, with what is lost beside it for the same reason: so a segment needs few words, however long an
    /// outage is.
    pub(super) fn note_lost(&mut self, key: LaneKey, first: u64, last: u64, reason: SkipReason) {
        let Some(lane) = self.lanes.get(&key) else { return };
        let is_around = |lost: &&(u64, u64, SkipReason)| lost.2 == reason && lost.0 <= first && last <= lost.1;
        let (first, last, _) = lane.lost.iter().find(is_around).copied().unwrap_or((first, last, reason));
        let LaneKey { boot, track, epoch } = key;
        let info = Some(lane.described());
        self.notes.push(Record::Lost(Lost { boot, track, epoch, first, last, reason, info }));
    }

    /// Whether damages were found since the last call of [`Flash::take_damages`].
    pub(crate) fn has_damages(&self) -> bool {
        !self.damages.is_empty()
    }

    /// Damages that were found since the last call, in words.
    pub(crate) fn take_damages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.damages)
    }

    /// The server has lost what it had: nothing counts as freed any more, and what was told as lost is told again.
    pub(crate) fn rewind(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.freed = 0;
        }
        if let Some(thinning) = &mut self.thinning {
            thinning.is_stale = true;
        }
        let sealed = self.segments.iter().map(|segment| &segment.lost);
        let lists = sealed.chain(self.open.iter().map(|open| &open.summary.lost));
        for &Lost { boot, track, epoch, first, last, reason, .. } in lists.flatten() {
            if let Some(lane) = self.lanes.get_mut(&LaneKey { boot, track, epoch }) {
                lane.lose(first, last, reason);
            }
        }
    }

    fn clean(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        let mut at = 0;
        while at < self.segments.len() {
            if self.is_done(&self.segments[at]) {
                self.drop_segment(disk, at)?;
            } else {
                at += 1;
            }
        }
        self.forget_lanes();
        Ok(())
    }

    fn is_done(&self, segment: &Segment) -> bool {
        let freed =
            |boot, track, epoch| self.lanes.get(&LaneKey { boot, track, epoch }).map_or(u64::MAX, |lane| lane.freed);
        segment.runs.iter().all(|run| freed(segment.boot, run.track, run.epoch) >= run.end)
            && segment.lost.iter().all(|lost| freed(lost.boot, lost.track, lost.epoch) > lost.last)
            && segment.ends.iter().all(|end| {
                // Its last frames may lie in segments before this one.
                freed(end.boot.unwrap_or(segment.boot), end.track, end.epoch) >= end.next
            })
    }

    /// Drops lanes and boots that no segment has anything of.
    pub(super) fn forget_lanes(&mut self) {
        let own = self.config.boot;
        let segments = &self.segments;
        let used = |key: &LaneKey| {
            segments.iter().any(|segment| {
                let lost = |lost: &Lost| (lost.boot, lost.track, lost.epoch) == (key.boot, key.track, key.epoch);
                segment.boot == key.boot
                    && segment.runs.iter().any(|run| (run.track, run.epoch) == (key.track, key.epoch))
                    || segment.lost.iter().any(lost)
            })
        };
        // Those that are done: only they are looked for, so this stays cheap with many.
        let goes_on = |key: &LaneKey, lane: &Lane| key.boot == own && lane.ended.is_none();
        self.lanes.retain(|key, lane| lane.freed < lane.end || goes_on(key, lane) || used(key));
        let mut boots = std::mem::take(&mut self.boots);
        boots.retain(|(boot, _)| *boot == own || self.lanes_of(*boot).next().is_some());
        self.boots = boots;
    }

    /// Whether the open segment has something of an epoch that was dropped: the server has all of it.
    pub(super) fn has_forgotten(&self, key: &LaneKey) -> bool {
        let is_of_run = |run: &Run| (self.config.boot, run.track, run.epoch) == (key.boot, key.track, key.epoch);
        let is_lost = |lost: &Lost| (lost.boot, lost.track, lost.epoch) == (key.boot, key.track, key.epoch);
        let has = |open: &Open| open.summary.runs.iter().any(is_of_run) || open.summary.lost.iter().any(is_lost);
        !self.lanes.contains_key(key) && self.open.as_ref().is_some_and(has)
    }

    pub(super) fn drop_segment(&mut self, disk: &mut dyn Disk, at: usize) -> io::Result<()> {
        self.stop_thinning(disk, self.segments[at].number)?;
        let segment = &self.segments[at];
        let name = segment.name();
        if segment.is_corrupt {
            disk.set_aside(&name)?
        } else {
            disk.remove(&name)?
        }
        self.segments.remove(at);
        Ok(())
    }

    /// Goes on in a new segment.
    pub(super) fn renew(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        self.seal(disk)?;
        self.begin(disk)
    }

    /// Begins a segment when none is open.
    pub(crate) fn begin(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let number = self.next_number;
        let name = name(number);
        disk.create(&name)?;
        disk.reserve(&name, self.config.segment_bytes().min(self.room()));
        // From here on the number is taken, whatever fails.
        self.next_number += 1;
        let mut open = Open::new(number, self.config.boot, &self.config.agent_id);
        self.note_boot(self.config.boot, None);
        if let Some((_, Some(clock))) = self.boots.iter().find(|(boot, _)| *boot == self.config.boot) {
            open.put(&Record::Clock(*clock));
        }
        self.open = Some(open);
        self.write(disk)?;
        disk.sync(&name)?;
        disk.sync_folder()?;
        if let Some(open) = &mut self.open {
            open.synced = open.written;
        }
        Ok(())
    }

    fn write(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        self.counts.octets_written += open.write(disk, &name(open.number))?;
        Ok(())
    }

    pub(super) fn note_boot(&mut self, boot: BootId, clock: Option<Clock>) {
        match self.boots.iter_mut().find(|(other, _)| *other == boot) {
            Some((_, known)) => *known = clock.or(*known),
            None => self.boots.push((boot, clock)),
        }
    }
}

impl Open {
    /// One that begins with whose it is.
    pub(super) fn new(number: u64, boot: BootId, agent_id: &str) -> Self {
        let mut pending = Vec::with_capacity(WRITE + WRITE / 4);
        pending.extend_from_slice(&segment::head());
        let mut open = Self { number, summary: Summary::default(), written: 0, synced: 0, pending };
        open.put(&Record::Start { boot, agent_id: agent_id.into() });
        open
    }

    /// Writes what is pending: how many octets that were.
    pub(super) fn write(&mut self, disk: &mut dyn Disk, name: &str) -> io::Result<u64> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        disk.append(name, &self.pending)?;
        let octets = self.pending.len() as u64;
        self.written += octets;
        self.pending.clear();
        // A frame of megabytes is rare; its room is given back.
        self.pending.shrink_to(WRITE + WRITE / 4);
        Ok(octets)
    }

    /// Appends a summary of all that was written, and the end of the file: where the summary begins.
    pub(super) fn put_end(&mut self) -> u64 {
        let data_end = self.place();
        segment::put(self.number, data_end, &Record::Summary(self.summary.clone()), &mut self.pending);
        self.pending.extend_from_slice(&segment::tail(data_end));
        data_end
    }

    /// Where the next octet will stand in the file.
    pub(super) fn place(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    pub(super) fn put(&mut self, record: &Record) {
        segment::put(self.number, self.place(), record, &mut self.pending);
        self.summary.note(record);
    }

    /// A frame, whose octets are `payload`.
    pub(super) fn put_frame(&mut self, epoch: u64, frame: &FrameStart, payload: &[u8]) {
        segment::put_frame(self.number, self.place(), epoch, frame, payload, &mut self.pending);
    }

    /// What is lost names its track where the segment does not: those that have its frames may be gone when this one is read.
    pub(super) fn put_note(&mut self, mut note: Record) {
        if let Record::Lost(lost) = &mut note {
            let is_named = self.summary.tracks.contains_key(&(lost.track, lost.epoch));
            lost.info.take_if(|_| self.summary.boot == Some(lost.boot) && is_named);
        }
        self.put(&note);
    }
}

impl Lane {
    pub(super) fn new(info: &TrackInfo, oldest: u64) -> Self {
        Self {
            info: info.clone(),
            oldest,
            end: oldest,
            freed: 0,
            was_freed: 0,
            lost: Vec::new(),
            ended: None,
            newest_key: None,
        }
    }

    /// The track as segments describe it: `next` is the first number that the server may lack. Who finds nothing of it in the folder later knows that
    /// something is missing in front.
    pub(super) fn described(&self) -> TrackInfo {
        TrackInfo { next: self.oldest.max(self.freed), ..self.info.clone() }
    }

    /// Whether a frame that is there went for want of room: with its segment, or as a picture that refers to one that did.
    pub(super) fn has_given_up(&self, sequence: u64, head: &FrameHead) -> bool {
        let at = self.lost.partition_point(|lost| lost.1 < sequence);
        match self.lost.get(at).filter(|lost| lost.0 <= sequence) {
            Some((.., SkipReason::OverBudget)) => true,
            Some((.., SkipReason::Thinned)) => self.info.sample_rate == 0 && !head.key,
            _ => false,
        }
    }

    /// A frame of which was said that it had to go is there: a write failed in between, and it came again.
    fn regain(&mut self, sequence: u64) {
        let at = self.lost.partition_point(|lost| lost.1 < sequence);
        let Some(&(first, last, reason)) = self.lost.get(at).filter(|lost| lost.0 <= sequence) else { return };
        let left = segment::without((first, last + 1), (sequence, sequence + 1));
        self.lost.splice(at..=at, left.map(|(from, to)| (from, to - 1, reason)));
    }

    /// How many of `first..end` were not known to be lost.
    pub(super) fn not_lost_yet(&self, first: u64, end: u64) -> u64 {
        self.not_lost(first, end).into_iter().map(|(from, to)| to - from).sum()
    }

    /// Numbers of `first..end` of which is not known yet that they had to go: from, to.
    fn not_lost(&self, first: u64, end: u64) -> Vec<(u64, u64)> {
        let (mut next, mut ranges) = (first, Vec::new());
        for &(from, last, _) in self.lost.iter().filter(|lost| lost.0 < end) {
            if next < from {
                ranges.push((next, from));
            }
            next = next.max(last.saturating_add(1));
        }
        if next < end {
            ranges.push((next, end));
        }
        ranges
    }

    /// Numbers `first..=last` had to go. What was said of them before was of the time before: a thinned group may go whole.
    pub(super) fn lose(&mut self, first: u64, last: u64, reason: SkipReason) {
        self.oldest = self.oldest.min(first);
        self.end = self.end.max(last + 1);
        let before = std::mem::take(&mut self.lost);
        for (from, to, why) in before {
            let left = segment::without((from, to + 1), (first, last + 1));
            self.lost.extend(left.map(|(from, to)| (from, to - 1, why)));
        }
        self.lost.push((first, last, reason));
        self.lost.sort_unstable_by_key(|lost| lost.0);
        self.lost.dedup_by(|next, before| {
            let is_one = next.2 == before.2 && next.0 <= before.1.saturating_add(1);
            if is_one {
                before.1 = before.1.max(next.1);
            }
            is_one
        });
    }
}
