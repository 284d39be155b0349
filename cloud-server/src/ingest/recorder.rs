//! The recorder, as a value: put frames and time in, do what [`Recorder::poll_timeout`] asks for, take [`Told`] out. The disk is a
//! trait, so all of it runs on one that loses its power, in a test that takes milliseconds.
//!
//! The order of a commit, which everything else rests on: parts are appended to their files and each file is synced; then the
//! numbers that they hold are appended to the log, which is synced; only then are they persisted. At a start what is whole in
//! an open file counts, also when the log does not have it yet: a frame that comes again is known.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camagent_media::{Parameters, TrackReader, annexb};
use camagent_proto::frame::{EndReason, FrameHead};

use super::clock::SourceClock;
use super::cursors::{Cursors, Lost};
use super::disk::Disk;
use super::ledger::{Absence, Gap, GapReason, Ledger, OPEN_END, Scope};
use super::log::{self, Contents, Entry, Known, Log, Opened};
use super::ranges::Ranges;
use super::segment::{self, Run, SegmentInfo, Unusable};
use super::writer::{ReadFrame, Writer};
use super::{Flow, Input, TrackKey};

/// The folder of segments that are being written.
pub const OPEN: &str = "open";
/// The folder of complete files.
pub const KEPT: &str = "recordings";
/// The folder of what is not ours, or cannot be read.
pub const SET_ASIDE: &str = "set-aside";
/// Says which store this is.
const STORE: &str = "store";
const STORE_FIRST_LINE: &str = "camagent recordings 1";
/// Frames are safe this long after they came, or sooner.
const COMMIT_AFTER_US: u64 = 400_000;
/// A disk that failed is asked again after this time.
const RETRY_AFTER_US: u64 = 1_000_000;
/// A file of a track that is silent for so long ends.
const IDLE_US: u64 = 30_000_000;
/// Open files of one track: live, and what is sent again.
const MOST_WRITERS: usize = 2;
/// A file that has no key frame to end at ends when it is this much longer or larger than it should be.
const OVERTIME: i64 = 2;
const MOST_SEGMENT_BYTES: u64 = 256 << 20;
/// So often it is written down that the recorder is at work.
const ALIVE_EVERY_US: u64 = 30_000_000;
/// A frame is not later than the machine's clock by more than this.
const MOST_AHEAD_US: i64 = 60_000_000;
/// Sources whose clocks are kept.
const MOST_CLOCKS: usize = 4_096;

/// How to record.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A file ends with the first key frame after so much time.
    pub segment: Duration,
    /// Names a store that is made new: random.
    pub new_epoch: [u8; 16],
    /// What is persisted, and why something is missing, is remembered for so long. An agent that comes back with the same boot later is
    /// not expected.
    pub remember: Duration,
}

/// How far a track is persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The track.
    pub key: TrackKey,
    /// Everything below is persisted.
    pub next: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// More of a track is persisted, in one piece from where it begins.
    Progress(Progress),
    /// These numbers are persisted: from, and behind the last.
    Persisted(Vec<(TrackKey, u64, u64)>),
    /// An open file has this much now.
    Open(String, SegmentInfo),
    /// A file is complete: its name, and what it holds.
    Closed(String, SegmentInfo),
    /// Frames came that were not taken: of a track, from, behind the last. They are wanted again.
    Refused {
        /// The track.
        key: TrackKey,
        /// The first.
        first: u64,
        /// Behind the last.
        next: u64,
        /// They could be read; otherwise they are wanted when [`Recorder::is_readable`] says so.
        is_readable: bool,
    },
    /// Frames are missing, as far as that is known now: a gap that began at the same number for the same reason is replaced. And how
    /// many of them are news.
    Gap(Gap, u64),
    /// An epoch is over: numbers from here on never come.
    Ended(Arc<Flow>, u64, EndReason),
    /// Somebody was away, or is; one of the same beginning is replaced.
    Absence(Absence),
    /// The disk takes nothing; frames wait in memory.
    Stalled(String),
    /// It takes data again.
    Resumed,
    /// Something in the folder could not be used.
    SetAside {
        /// Where it is now.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Default)]
struct Track {
    /// Persisted, or on the way there.
    taken: Ranges,
    /// Where the epoch begins for this store.
    floor: Option<u64>,
    /// The agent told this process that the epoch is over, and so before that of all that it has of it.
    is_over: bool,
    /// To be written down with the next commit: numbers that have no bytes in a file.
    covered: Vec<(u64, u64)>,
    cursors: Cursors,
    told: u64,
}

/// The recorder.
pub struct Recorder<D: Disk> {
    disk: D,
    settings: Settings,
    storage_epoch: [u8; 16],
    log: Option<Log<D>>,
    contents: Contents,
    tracks: BTreeMap<TrackKey, Track>,
    writers: Vec<(Arc<Flow>, Writer<D>)>,
    clocks: HashMap<(String, [u8; 16], String, String), SourceClock>,
    entries: Vec<Entry>,
    /// Safe, and perhaps not written down yet.
    written: Vec<(TrackKey, u64, u64)>,
    told: VecDeque<Told>,
    /// Complete files that hold what is not written down yet. Nobody hears of one before: a frame that is in a file and not in the log comes
    /// again after a power cut.
    complete: Vec<(String, SegmentInfo)>,
    commit_at: Option<u64>,
    retry_at: Option<u64>,
    files: u64,
    now_us: u64,
    /// The newest UTC of frames.
    now_utc_us: i64,
    /// What the machine's clock says, and when that was last written down.
    utc_us: i64,
    alive_at: u64,
}

impl<D: Disk> Recorder<D> {
    /// Opens the folder and brings it in order: torn ends are cut, what is not ours is moved aside and told. An error is a folder
    /// that a later version wrote, or a disk that does not work.
    pub fn open(disk: D, settings: Settings, now_utc_us: i64) -> io::Result<Self> {
        let mut recorder = Self {
            disk,
            storage_epoch: settings.new_epoch,
            settings,
            log: None,
            contents: Contents::default(),
            tracks: BTreeMap::new(),
            writers: Vec::new(),
            clocks: HashMap::new(),
            entries: Vec::new(),
            written: Vec::new(),
            told: VecDeque::new(),
            complete: Vec::new(),
            commit_at: None,
            retry_at: None,
            files: 0,
            now_us: 0,
            now_utc_us,
            utc_us: 0,
            alive_at: 0,
        };
        recorder.open_store()?;
        let is_whole = recorder.open_log()?;
        recorder.open_segments(is_whole)?;
        let remember_us = i64::try_from(recorder.settings.remember.as_micros()).unwrap_or(i64::MAX);
        recorder.contents.forget_before(now_utc_us.saturating_sub(remember_us));
        recorder.note_down_time(now_utc_us);
        recorder.log = Some(Log::begin(&mut recorder.disk, &recorder.contents)?);
        for (key, known) in &recorder.contents.tracks {
            let floor = known.persisted.first();
            let told = floor.map_or(0, |first| known.persisted.gap_from(first));
            let track = Track { taken: known.persisted.clone(), floor, told, ..Track::default() };
            recorder.tracks.insert(key.clone(), track);
        }
        Ok(recorder)
    }

    /// Nobody wrote here since the last time; agents have no session yet.
    fn note_down_time(&mut self, now_utc_us: i64) {
        let from_us = std::mem::replace(&mut self.contents.alive_us, now_utc_us);
        if from_us == 0 || from_us >= now_utc_us {
            return;
        }
        let down = Absence { scope: Scope::Server, reason: GapReason::SERVER_DOWN, from_us, to_us: now_utc_us };
        self.contents.ledger.put_absence(down);
        let agents: BTreeSet<_> = self.contents.tracks.keys().map(|key| key.agent.clone()).collect();
        for agent in agents {
            let (scope, reason) = (Scope::Agent(agent), GapReason::AGENT_OFFLINE);
            if !self.contents.ledger.is_absent(&scope, reason) {
                self.contents.ledger.put_absence(Absence { scope, reason, from_us, to_us: OPEN_END });
            }
        }
    }

    /// Names the store.
    pub fn storage_epoch(&self) -> [u8; 16] {
        self.storage_epoch
    }

    /// Why something is missing.
    pub fn ledger(&self) -> &Ledger {
        &self.contents.ledger
    }

    /// Cameras and sources of which something was recorded.
    pub fn sources(&self) -> BTreeSet<(String, String)> {
        self.contents.tracks.values().map(|known| (known.camera.clone(), known.source.clone())).collect()
    }

    /// What the machine's clock says, UTC in microseconds since 1970: so that it is known later when nobody recorded.
    pub fn set_utc(&mut self, utc_us: i64) {
        self.utc_us = utc_us;
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// How far each track of a boot is persisted, newest epoch last.
    pub fn progress(&self, agent: &str, boot: [u8; 16]) -> Vec<Progress> {
        let own = self.tracks.iter().filter(|(key, _)| key.agent == agent && key.boot == boot);
        own.map(|(key, _)| Progress { key: key.clone(), next: self.persisted(key) }).collect()
    }

    /// Everything that is persisted of a track.
    pub fn ranges(&self, key: &TrackKey) -> Ranges {
        self.contents.tracks.get(key).map(|known| known.persisted.clone()).unwrap_or_default()
    }

    /// Everything that is persisted, of all tracks.
    pub fn all_ranges(&self) -> BTreeMap<TrackKey, Ranges> {
        self.contents.tracks.iter().map(|(key, known)| (key.clone(), known.persisted.clone())).collect()
    }

    /// What waits for [`Recorder::poll_told`].
    pub fn told(&self) -> impl Iterator<Item = &Told> + '_ {
        self.told.iter()
    }

    /// What happened, oldest first.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// Whether the disk takes nothing now: who has more should keep it.
    pub fn is_stalled(&self) -> bool {
        self.retry_at.is_some()
    }

    /// When [`Recorder::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<u64> {
        let idle_at = self.writers.iter().filter(|(_, writer)| !writer.closing).map(|(_, writer)| writer.pushed_at);
        let idle_at = idle_at.min().map(|at| at.saturating_add(IDLE_US));
        self.retry_at.or(self.commit_at).or_else(|| idle_at.into_iter().chain(self.alive_due()).min())
    }

    /// Takes what came. `now_us` is monotonic.
    pub fn handle(&mut self, now_us: u64, input: Input) {
        match input {
            Input::Track { flow, next } => {
                let track = self.track(&flow);
                track.floor = Some(track.floor.map_or(next, |floor| floor.min(next)));
                self.tell_progress(&flow.key);
            }
            Input::Frame { flow, sequence, head, utc_us, payload } => {
                // Nothing was seen that is yet to come: a clock that runs ahead must not move what is kept of others.
                let utc_us = match self.utc_us {
                    0 => utc_us,
                    now_us => utc_us.min(now_us.saturating_add(MOST_AHEAD_US)),
                };
                self.now_utc_us = self.now_utc_us.max(utc_us);
                self.now_us = now_us;
                if !self.track(&flow).taken.contains(sequence) {
                    self.frame(&flow, sequence, head, utc_us, &payload);
                    self.commit_at.get_or_insert(now_us + COMMIT_AFTER_US);
                }
            }
            Input::Skip { flow, first, last, reason } => {
                self.skip(&flow, first, last.saturating_add(1), reason);
                self.commit_at.get_or_insert(now_us + COMMIT_AFTER_US);
            }
            Input::Ended { flow, next, cause } => {
                self.track(&flow).is_over = true;
                if self.contents.ledger.end(&flow.key, &flow.camera, &flow.source, next, cause) {
                    self.entries.push(Entry::Ended { key: flow.key.clone(), next, cause });
                    self.told.push_back(Told::Ended(flow, next, cause));
                    self.commit_at.get_or_insert(now_us + COMMIT_AFTER_US);
                }
            }
        }
    }

    /// Somebody is away from `utc_us` on, or is there again.
    pub fn handle_absence(&mut self, now_us: u64, scope: Scope, reason: GapReason, utc_us: i64, is_away: bool) {
        let is_absent = self.contents.ledger.is_absent(&scope, reason);
        let news = match (is_away, is_absent) {
            (true, false) => vec![Absence { scope, reason, from_us: utc_us, to_us: OPEN_END }],
            (false, true) => self.contents.ledger.end_absence(&scope, reason, utc_us),
            _ => return,
        };
        for absence in news {
            self.contents.ledger.put_absence(absence.clone());
            self.entries.push(Entry::Absence(absence.clone()));
            self.told.push_back(Told::Absence(absence));
        }
        self.commit_at.get_or_insert(now_us + COMMIT_AFTER_US);
    }

    /// Recorded frames are let go of.
    pub fn handle_removed(&mut self, now_us: u64, key: &TrackKey, (camera, source): (&str, &str), runs: &[Run]) {
        for run in runs {
            // Neighbours are one gap, so that what is gone takes no room.
            let own = self.contents.ledger.missing(key, run.first.saturating_sub(1), run.first);
            let before = own.iter().find(|gap| gap.reason == GapReason::REMOVED && gap.next == run.first);
            let begun = before.map(|_| self.contents.ledger.begin_of(key, run.first - 1, GapReason::REMOVED));
            let (first, from_us) = begun.flatten().unwrap_or((run.first, run.start_us));
            let gap = Gap {
                key: key.clone(),
                camera: camera.to_owned(),
                source: source.to_owned(),
                first,
                next: run.next,
                reason: GapReason::REMOVED,
                from_us: from_us.min(run.start_us),
                to_us: run.end_us,
            };
            self.enter(gap);
        }
        self.commit_at.get_or_insert(now_us + COMMIT_AFTER_US);
    }

    /// Frames `first..next` came and could not be taken. They are not persisted, so an agent with a journal sends them again.
    pub fn handle_lost(&mut self, flow: &Arc<Flow>, first: u64, next: u64) {
        self.note_gap(flow, first, next, GapReason::STORAGE);
        self.told.push_back(Told::Refused { key: flow.key.clone(), first, next, is_readable: true });
    }

    /// Whether what a decoder must know of a track is here; or it is known that it never comes, for frames from `first` on.
    pub fn is_readable(&self, key: &TrackKey, first: u64) -> bool {
        self.contents.tracks.get(key).is_some_and(|known| !known.config.is_empty())
            || self.writers.iter().any(|(own, _)| own.key == *key)
            || self.is_hopeless(key, first)
    }

    /// Whether all before a frame that cannot be read came, or never will: also what another store had and its agent let go of then, once the epoch is
    /// over. Before, a lane may still bring what is in front, or a key frame may follow.
    fn is_hopeless(&self, key: &TrackKey, sequence: u64) -> bool {
        let Some(track) = self.tracks.get(key) else { return false };
        let has_all_from = |floor: u64| track.taken.gap_from(floor) >= sequence;
        has_all_from(0) || track.is_over && track.floor.is_some_and(has_all_from)
    }

    /// The time of [`Recorder::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now_us: u64) {
        if self.alive_due().is_some_and(|at| at <= now_us) {
            self.commit_at.get_or_insert(now_us);
        }
        if self.poll_timeout().is_some_and(|at| at <= now_us) {
            let is_idle = |writer: &Writer<D>| writer.pushed_at.saturating_add(IDLE_US) <= now_us;
            self.writers.iter_mut().filter(|(_, writer)| is_idle(writer)).for_each(|(_, writer)| writer.closing = true);
            self.commit(now_us);
        }
    }

    /// A file could not be written: what is safe in it stays, and it goes on in a new one.
    fn give_up(&mut self, index: usize, error: io::Error) -> io::Error {
        self.files += 1;
        let name = file_name(self.now_utc_us, self.files);
        self.complete.extend(self.writers[index].1.give_up(&mut self.disk, name));
        error
    }

    /// Makes everything safe that came, at once. False when the disk did not take it.
    pub fn commit(&mut self, now_us: u64) -> bool {
        self.commit_at = None;
        let mut failure = None;
        let mut synced = Vec::new();
        let mut written = Vec::new();
        for index in 0..self.writers.len() {
            let writer = &mut self.writers[index].1;
            if writer.is_dirty() {
                match writer.write(&mut self.disk) {
                    Ok(()) => written.push(index),
                    Err(error) => failure = Some(self.give_up(index, error)),
                }
            }
        }
        for index in written {
            let (flow, writer) = &mut self.writers[index];
            match writer.sync(&mut self.disk) {
                Ok(runs) => {
                    synced.extend(runs.into_iter().map(|run| (flow.key.clone(), run)));
                    self.told.push_back(Told::Open(writer.name.clone(), writer.info()));
                }
                Err(error) => failure = Some(self.give_up(index, error)),
            }
        }
        let mut keys: Vec<TrackKey> = Vec::new();
        for (key, run) in synced {
            self.write_down(&key, run.first, run.next);
            keys.push(key);
        }
        let covered: Vec<_> = self
            .tracks
            .iter_mut()
            .filter(|(_, track)| !track.covered.is_empty())
            .map(|(key, track)| (key.clone(), std::mem::take(&mut track.covered)))
            .collect();
        for (key, ranges) in covered {
            for (first, next) in ranges {
                self.write_down(&key, first, next);
            }
            keys.push(key);
        }
        self.enter_pending();
        let is_due = !self.entries.is_empty() || self.alive_due().is_some_and(|at| at <= now_us);
        if is_due && self.utc_us > 0 {
            // Once, however long a disk takes nothing.
            self.entries.retain(|entry| !matches!(entry, Entry::Alive(_)));
            self.entries.push(Entry::Alive(self.utc_us));
            (self.contents.alive_us, self.alive_at) = (self.utc_us, now_us);
        }
        if !self.entries.is_empty() {
            let Self { log: Some(log), disk, entries, contents, .. } = self else { return false };
            match log.append(disk, entries, contents) {
                Ok(()) => self.entries.clear(),
                Err(error) => failure = Some(error),
            }
        }
        if self.entries.is_empty() && !self.written.is_empty() {
            self.told.push_back(Told::Persisted(std::mem::take(&mut self.written)));
            // What an earlier attempt could not write down is safe now as well.
            let known: Vec<_> = self.contents.tracks.keys().cloned().collect();
            let keys = if self.retry_at.is_some() { known } else { keys };
            keys.iter().for_each(|key| self.tell_progress(key));
        }
        if failure.as_ref().is_some_and(is_without_descriptors) {
            // Files that wait for frames hold what the others lack.
            let idle = self.writers.iter_mut().filter(|(_, writer)| !writer.is_dirty());
            idle.for_each(|(_, writer)| writer.closing = true);
        }
        if self.entries.is_empty() {
            self.take_closed();
        }
        match failure {
            None => {
                if self.retry_at.take().is_some() {
                    self.told.push_back(Told::Resumed);
                }
                true
            }
            Some(error) => {
                if self.retry_at.is_none() {
                    self.told.push_back(Told::Stalled(error.to_string()));
                }
                self.retry_at = Some(now_us + RETRY_AFTER_US);
                false
            }
        }
    }

    /// When it is to be written down that somebody is at work here, though nothing happens.
    fn alive_due(&self) -> Option<u64> {
        (self.utc_us > 0).then(|| self.alive_at.saturating_add(ALIVE_EVERY_US))
    }

    /// Closes everything; for a planned stop.
    pub fn finish(&mut self, now_us: u64) {
        self.writers.iter_mut().for_each(|(_, writer)| writer.closing = true);
        self.alive_at = 0;
        self.commit(now_us);
    }

    fn take_closed(&mut self) {
        self.told.extend(self.complete.drain(..).map(|(name, info)| Told::Closed(name, info)));
        let mut index = 0;
        while index < self.writers.len() {
            let writer = &self.writers[index].1;
            if writer.closing && !writer.is_dirty() {
                let (_, writer) = self.writers.swap_remove(index);
                if !writer.runs.is_empty() {
                    self.told.push_back(Told::Closed(writer.name.clone(), writer.info()));
                }
            } else {
                index += 1;
            }
        }
    }

    fn track(&mut self, flow: &Arc<Flow>) -> &mut Track {
        if !self.contents.tracks.contains_key(&flow.key) {
            let known = Known {
                camera: flow.camera.clone(),
                source: flow.source.clone(),
                seen_us: self.now_utc_us,
                ..Known::default()
            };
            self.contents.tracks.insert(flow.key.clone(), known);
        }
        self.tracks.entry(flow.key.clone()).or_default()
    }

    fn frame(&mut self, flow: &Arc<Flow>, sequence: u64, head: FrameHead, utc_us: i64, payload: &Bytes) {
        let (offset_us, steps) = self.clock(flow).sample(head.pts_us, utc_us);
        let at_us = offset_us.saturating_add(head.dts_us);
        let found = self
            .writers
            .iter()
            .position(|(own, writer)| own.key == flow.key && writer.next == sequence && writer.takes(&head, steps));
        let mut reader = None;
        let (found, unit) = match found {
            Some(index) => (Some(index), self.writers[index].1.read(payload)),
            None => match self.begin_reading(flow) {
                Ok(mut new) => {
                    let unit = new.read(payload);
                    reader = Some(new);
                    (None, unit)
                }
                Err(error) => (None, Err(error)),
            },
        };
        let unit = match unit {
            Ok(unit) => unit,
            Err(_) => return self.skip(flow, sequence, sequence + 1, GapReason::UNREADABLE),
        };
        let frame = ReadFrame { sequence, head, unit, offset_us };
        let found = found.filter(|index| !self.ends_before(*index, &frame));
        let index = match found {
            Some(index) => index,
            None => {
                let ended = self
                    .writers
                    .iter()
                    .position(|(own, writer)| own.key == flow.key && writer.next == sequence && !writer.closing);
                if let Some(index) = ended {
                    let writer = &mut self.writers[index].1;
                    reader = reader.or_else(|| Some(writer.reader()));
                    writer.closing = true;
                }
                let Some((reader, parameters)) =
                    reader.and_then(|reader| reader.parameters().cloned().map(|parameters| (reader, parameters)))
                else {
                    if self.is_hopeless(&flow.key, sequence) {
                        // What came before it is no key frame, or it never will: that one is lost.
                        return self.skip(flow, sequence, sequence + 1, GapReason::UNREADABLE);
                    }
                    // What a decoder must know comes with the past. Until then this is not stored, and the agent keeps it.
                    let (key, next) = (flow.key.clone(), sequence + 1);
                    self.told.push_back(Told::Refused { key, first: sequence, next, is_readable: false });
                    return;
                };
                self.close_oldest(flow);
                self.remember(&flow.key, config_of(&parameters));
                self.files += 1;
                let name = file_name(self.now_utc_us, self.files);
                let epoch = self.storage_epoch;
                let writer = Writer::new(name, Arc::clone(flow), epoch, reader, parameters, &frame, steps);
                self.writers.push((Arc::clone(flow), writer));
                self.writers.len() - 1
            }
        };
        self.writers[index].1.push(&frame);
        self.writers[index].1.pushed_at = self.now_us;
        let track = self.track(flow);
        let lost = track.cursors.frame(&track.taken, sequence, at_us);
        track.taken.insert(sequence, sequence + 1);
        for lost in lost {
            self.enter_lost(&flow.key, &lost);
        }
    }

    /// Whether a frame must begin another file than the one that it continues.
    fn ends_before(&self, index: usize, frame: &ReadFrame) -> bool {
        let writer = &self.writers[index].1;
        let long_us = i64::try_from(self.settings.segment.as_micros()).unwrap_or(i64::MAX);
        let (lasts_us, bytes) = (writer.until_us(frame.head.dts_us), writer.bytes());
        frame.unit.parameters_changed
            || (frame.unit.key && lasts_us >= long_us)
            || lasts_us >= long_us.saturating_mul(OVERTIME)
            || bytes >= MOST_SEGMENT_BYTES
    }

    fn begin_reading(&self, flow: &Flow) -> Result<TrackReader, camagent_media::MediaError> {
        // What another file of the track knows of it is newer than what was announced.
        match self.writers.iter().rev().find(|(own, _)| own.key == flow.key) {
            Some((_, writer)) => Ok(writer.reader()),
            None => {
                let known =
                    self.contents.tracks.get(&flow.key).map(|known| known.config.as_slice()).unwrap_or_default();
                let config = if known.is_empty() { &flow.config[..] } else { known };
                TrackReader::new(flow.codec, flow.framing, config, flow.sample_rate, flow.channels)
            }
        }
    }

    fn remember(&mut self, key: &TrackKey, config: Vec<u8>) {
        if let Some(known) = self.contents.tracks.get_mut(key).filter(|known| known.config != config) {
            known.config = config;
            self.entries.push(Entry::Track(key.clone()));
        }
    }

    fn close_oldest(&mut self, flow: &Flow) {
        let open = || self.writers.iter().filter(|(own, writer)| own.key == flow.key && !writer.closing);
        if open().count() >= MOST_WRITERS {
            let oldest = self.writers.iter().position(|(own, writer)| own.key == flow.key && !writer.closing);
            if let Some(index) = oldest {
                self.writers[index].1.closing = true;
            }
        }
        // An epoch that was left has few frames left to come.
        let left = |key: &TrackKey| {
            (key.agent.as_str(), key.boot, key.track) == (flow.key.agent.as_str(), flow.key.boot, flow.key.track)
                && key.epoch < flow.key.epoch
        };
        self.writers.iter_mut().filter(|(own, _)| left(&own.key)).for_each(|(_, writer)| writer.closing = true);
    }

    fn skip(&mut self, flow: &Arc<Flow>, first: u64, next: u64, reason: GapReason) {
        for (own, writer) in &mut self.writers {
            if own.key == flow.key && (first..next).contains(&writer.next) {
                writer.skip_to(next);
            }
        }
        // A run of the past may skip what had come live: that is no gap.
        for (first, next) in self.track(flow).taken.missing(first, next) {
            self.note_gap(flow, first, next, reason);
            let track = self.track(flow);
            track.taken.insert(first, next);
            track.covered.push((first, next));
        }
    }

    fn note_gap(&mut self, flow: &Arc<Flow>, first: u64, next: u64, reason: GapReason) {
        let track = self.track(flow);
        track.cursors.gap(&track.taken, first, next, reason);
    }

    /// Gaps that no frame has followed yet: the numbers are to be explained when they are written down.
    fn enter_pending(&mut self) {
        let mut news = Vec::new();
        for (key, track) in &mut self.tracks {
            news.extend(track.cursors.take_news().into_iter().map(|lost| (key.clone(), lost)));
        }
        for (key, lost) in news {
            self.enter_lost(&key, &lost);
        }
    }

    fn enter_lost(&mut self, key: &TrackKey, lost: &Lost) {
        let Some(known) = self.contents.tracks.get(key) else { return };
        let from_us = lost.from_us.or(lost.to_us).unwrap_or(self.now_utc_us);
        let gap = Gap {
            key: key.clone(),
            camera: known.camera.clone(),
            source: known.source.clone(),
            first: lost.first,
            next: lost.next,
            reason: lost.reason,
            from_us,
            to_us: lost.to_us.unwrap_or(from_us).max(from_us),
        };
        self.enter(gap);
    }

    fn enter(&mut self, gap: Gap) {
        let news = self.contents.ledger.put(&gap);
        self.entries.push(Entry::Gap(gap.clone()));
        self.told.push_back(Told::Gap(gap, news));
    }

    fn clock(&mut self, flow: &Flow) -> &mut SourceClock {
        let key = (flow.key.agent.clone(), flow.key.boot, flow.camera.clone(), flow.source.clone());
        if self.clocks.len() >= MOST_CLOCKS && !self.clocks.contains_key(&key) {
            self.clocks.clear();
        }
        self.clocks.entry(key).or_default()
    }

    fn write_down(&mut self, key: &TrackKey, first: u64, next: u64) {
        if let Some(known) = self.contents.tracks.get_mut(key) {
            known.persisted.insert(first, next);
            known.seen_us = known.seen_us.max(self.now_utc_us);
        }
        self.written.push((key.clone(), first, next));
        match self.entries.last_mut() {
            Some(Entry::Persisted { key: own, next: end, .. }) if own == key && *end == first => *end = next,
            _ => self.entries.push(Entry::Persisted { key: key.clone(), first, next }),
        }
    }

    fn persisted(&self, key: &TrackKey) -> u64 {
        let Some(known) = self.contents.tracks.get(key) else { return 0 };
        let floor = self.tracks.get(key).and_then(|track| track.floor).or(known.persisted.first());
        floor.map_or(0, |floor| known.persisted.gap_from(floor))
    }

    fn tell_progress(&mut self, key: &TrackKey) {
        if !self.entries.is_empty() {
            // Not written down yet.
            return;
        }
        let next = self.persisted(key);
        let Some(track) = self.tracks.get_mut(key) else { return };
        if next > track.told {
            track.told = next;
            self.told.push_back(Told::Progress(Progress { key: key.clone(), next }));
        }
    }

    fn open_store(&mut self) -> io::Result<()> {
        let (text, is_there) = match self.disk.read(STORE) {
            Ok(bytes) => (String::from_utf8_lossy(&bytes).into_owned(), true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), false),
            Err(error) => return Err(error),
        };
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if first == STORE_FIRST_LINE
            && let Some(epoch) = lines.next().and_then(hexadecimal)
        {
            self.storage_epoch = epoch;
            return Ok(());
        }
        if first.starts_with("camagent recordings ") && first != STORE_FIRST_LINE {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("a later version wrote this folder ({first:?}, known is {STORE_FIRST_LINE:?})"),
            ));
        }
        if !text.trim_matches(['\0', '\n']).is_empty() {
            self.set_aside(STORE, "it does not say which store this is")?;
        } else if is_there {
            // The power went, or the disk was full, before anything of it was written.
            self.disk.remove(STORE)?;
        }
        let digits: String = self.storage_epoch.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut file = self.disk.create(STORE)?;
        self.disk.append(&mut file, format!("{STORE_FIRST_LINE}\n{digits}\n").as_bytes())?;
        self.disk.sync(&mut file)?;
        self.disk.sync_folder("")
    }

    /// True when the log was there.
    fn open_log(&mut self) -> io::Result<bool> {
        match log::read(&mut self.disk)? {
            Opened::Read(contents) => {
                self.contents = contents;
                Ok(true)
            }
            Opened::Damaged(contents) => {
                self.contents = contents;
                self.set_log_aside(
                    "it is damaged; what can be read is used, the rest is made from the recorded files",
                )?;
                Ok(false)
            }
            Opened::Missing => Ok(false),
            Opened::Newer(version) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("a later version wrote persisted.log (layout {version})"),
            )),
            Opened::Foreign => {
                self.set_log_aside("it is no log of what is persisted; a new one is made from the recorded files")?;
                Ok(false)
            }
        }
    }

    fn set_log_aside(&mut self, reason: &str) -> io::Result<()> {
        let name = self.aside_name("persisted.log");
        log::set_aside(&mut self.disk, &name)?;
        self.told.push_back(Told::SetAside { name, reason: reason.to_owned() });
        Ok(())
    }

    /// Looks through open files, and without a log through all.
    fn open_segments(&mut self, has_log: bool) -> io::Result<()> {
        // Nothing else of the folder is looked at: of a file system of its own it has a `lost+found`, which only root may read.
        let mut names = self.disk.list(OPEN)?;
        if !has_log {
            names.extend(self.disk.list(KEPT)?);
        }
        let is_open = |name: &str| name.starts_with("open/");
        for name in &names {
            let data = match self.disk.read(name) {
                Ok(data) => data,
                Err(error) if is_unreadable(&error) => {
                    if is_open(name) {
                        self.set_aside(name, &format!("it cannot be read: {error}"))?;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            match segment::scan(&data, |_, _, _| {}) {
                Ok(info) => {
                    if is_open(name) && info.bytes < data.len() as u64 {
                        self.disk.truncate(name, info.bytes)?;
                    }
                    let head = &info.head;
                    let known = self.contents.tracks.entry(head.key.clone()).or_insert_with(|| Known {
                        camera: head.camera.clone(),
                        source: head.source.clone(),
                        seen_us: info.end_us(),
                        ..Known::default()
                    });
                    known.config = config_of(&info.parameters);
                    info.runs.iter().for_each(|run: &Run| known.persisted.insert(run.first, run.next));
                    if is_open(name) {
                        // What is whole may be so only in the machine's memory: before it counts it must be safe.
                        let mut file = self.disk.open(name)?;
                        self.disk.sync(&mut file)?;
                        self.told.push_back(Told::Closed(name.clone(), info));
                    }
                }
                Err(Unusable::Empty) if is_open(name) => self.disk.remove(name)?,
                Err(reason) if is_open(name) => self.set_aside(name, &reason.to_string())?,
                // What is kept elsewhere is for `camagent-cloud recordings check`.
                Err(_) => {}
            }
        }
        if !names.is_empty() && !self.disk.list(OPEN)?.is_empty() {
            self.disk.sync_folder(OPEN)?;
        }
        Ok(())
    }

    fn set_aside(&mut self, name: &str, reason: &str) -> io::Result<()> {
        let to = self.aside_name(name);
        self.disk.rename(name, &to)?;
        let reason = reason.to_owned();
        self.told.push_back(Told::SetAside { name: to, reason });
        Ok(())
    }

    fn aside_name(&mut self, name: &str) -> String {
        self.files += 1;
        let last = name.rsplit('/').next().unwrap_or(name);
        format!("{SET_ASIDE}/{}-{}-{last}", self.now_utc_us, self.files)
    }
}

/// The process, or the machine, has no more open files to give.
fn is_without_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// One file cannot be read; others can.
fn is_unreadable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || error.raw_os_error() == Some(libc::EIO)
}

fn file_name(now_utc_us: i64, number: u64) -> String {
    format!("{OPEN}/{now_utc_us:016}-{number}.mp4")
}

/// What a track can be announced with that these are the parameters of.
fn config_of(parameters: &Parameters) -> Vec<u8> {
    match parameters {
        Parameters::H264 { sps, pps, .. } => {
            annexb::join(&std::iter::once(sps).chain(pps).cloned().collect::<Vec<_>>())
        }
        Parameters::H265 { vps, sps, pps, .. } => {
            let sets = [vps, sps].into_iter().chain(pps).filter(|set| !set.is_empty());
            annexb::join(&sets.cloned().collect::<Vec<_>>())
        }
        Parameters::Aac { config, .. } => config.to_vec(),
        _ => Vec::new(),
    }
}

fn hexadecimal(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
