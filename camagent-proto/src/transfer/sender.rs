//! The agent's half: reads the journal and fills records, live audio first, then video by turns of its sources.
//!
//! A track's epochs follow each other: all frames of one are sent before the next is announced. Frames that the journal no longer has become a SKIP,
//! and so do frames that are too late to be live (`late`). Pieces of frames of different tracks mix freely: a large picture holds up no other track.
//! Which source goes first when the uplink is short is decided in `flow`.

use alloc::{collections::VecDeque, format, string::String, vec::Vec};

use super::{
    Entry, Journal,
    backfill::{Backfill, Backlog, Look},
    bitrate::Advice,
    flow::Flows,
    lanes::EpochKey,
    late::{self, Verdict, Waiting},
    live::{self, Begin, LIVE},
};
use crate::{
    error::Error,
    frame::{
        Body, FIRST_LANE, Frame, FrameAbort, FrameMore, FrameStart, Mack, RecordWriter, Skip, SkipReason, TrackInfo,
    },
    message::{BootId, Limits, ResumePoint, Retention},
    scheduler::Class,
    time::{Duration, Instant},
    varint,
};

/// Where audio is left out beyond a latency budget, so much of it goes in front of video all the same: after a pause of the path it catches up,
/// and what waits for video would make it late again and again.
const CATCHES_UP: Duration = Duration::from_secs(5);

/// Tracks are looked at so often to find out whether their encoders bring too much.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a sender has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// Frames sent to their end, repeats included.
    pub frames_sent: u64,
    /// Frames that were told to the server as lost.
    pub frames_skipped: u64,
    /// Those among them that were over their latency budget.
    pub frames_late: u64,
    /// Those of the sent ones that came from the backlog.
    pub frames_backfilled: u64,
}

#[derive(Debug)]
struct Partial {
    entry: Entry,
    offset: u64,
}

#[derive(Debug)]
struct Epoch {
    info: TrackInfo,
    announced: bool,
    /// The next number to send.
    next: u64,
    /// All below are received.
    received: u64,
    /// All below are stored.
    persisted: u64,
    /// What is below comes from the backlog, in this session.
    begun: u64,
    /// A session has begun, what goes next may be old, and memory is the backlog.
    catches_up: bool,
    /// The encoder was asked for the key frame at which it would go on.
    has_asked: bool,
    /// All below that were lost are counted: a repeat of the same SKIP after a reconnect counts once.
    counted: u64,
    partial: Option<Partial>,
    breaks: VecDeque<Broken>,
    /// What was left out and counted, as long as the server need not have heard of it: first and end, oldest first.
    unheard: VecDeque<(u64, u64)>,
}

/// Frames were left out that later ones refer to.
#[derive(Clone, Copy, Debug)]
struct Broken {
    /// The first of them.
    first: u64,
    /// Where decoding goes on, once that was sent.
    key: Option<u64>,
}

/// Gaps, and breaks, that are remembered until the server has heard of them.
const MAX_UNHEARD: usize = 64;

impl Epoch {
    /// All below `received` is received.
    fn hear(&mut self, received: u64) {
        self.received = self.received.max(received);
        self.unheard.retain(|(_, end)| *end > self.received);
        self.breaks.retain(|broken| broken.key.is_none_or(|key| key > received));
    }

    /// Whether it goes on behind frames that the backlog brings, and with none that can be decoded without them.
    fn goes_on_without_key(&self, track: u32, journal: &mut dyn Journal) -> bool {
        let mut begins_with_key = || {
            let entry = journal.find(track, self.info.epoch, self.next);
            entry.is_some_and(|entry| entry.sequence == self.next && entry.head.key)
        };
        self.begun > 0 && self.begun == self.next && !begins_with_key()
    }

    /// What was left out and not heard of is sent after all: how many frames these are.
    fn take_back(&mut self) -> u64 {
        let first = self.unheard.front().map_or(self.counted, |(first, _)| *first);
        self.counted = self.counted.min(first.max(self.received));
        self.unheard.drain(..).map(|(first, end)| end - first.max(self.received)).sum()
    }

    /// What the journal may let go.
    fn freed(&self, is_recorded: bool) -> u64 {
        if is_recorded { self.persisted } else { self.received }
    }

    /// Whether a frame refers to one that was left out. It need not when the server was not told of that before the connection broke.
    fn is_cut_off(&self, sequence: u64) -> bool {
        self.breaks.iter().any(|broken| broken.first < sequence && broken.key.is_none_or(|key| sequence < key))
    }
}

#[derive(Debug)]
struct Track {
    number: u32,
    flow: u32,
    is_audio: bool,
    /// The server stores it: only what is stored is let go.
    is_recorded: bool,
    /// The longest that a frame may wait.
    budget: Option<Duration>,
    advice: Advice,
    /// Oldest first; the last one is the current one.
    epochs: VecDeque<Epoch>,
}

impl Track {
    fn epochs_named(&self) -> impl Iterator<Item = (u32, u64)> {
        self.epochs.iter().map(|epoch| (self.number, epoch.info.epoch))
    }
}

/// The frame that a track would send next.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    at: usize,
    index: usize,
    flow: u32,
    entry: Entry,
}

/// Fills records from the journal, and takes the server's acknowledgements.
#[derive(Debug, Default)]
pub struct Sender {
    tracks: Vec<Track>,
    flows: Flows,
    limits: Limits,
    counts: TransferCounts,
    /// Since when there is a session: what waited for one is not late.
    since: Instant,
    key_requests: Vec<u32>,
    /// What encoders should produce, by track, in bits a second.
    bitrates: Vec<(u32, u64)>,
    looked_at: Instant,
    head: Vec<u8>,
    candidates: Vec<Candidate>,
    /// Camera and source of what the server stores.
    recorded: Vec<(String, String)>,
    backfill: Backfill,
    /// The run that it sends live frames of, so that a hole of its own counts once, whichever way it is told.
    run: Option<BootId>,
}

impl Sender {
    /// A sender without tracks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, of a run of which the backlog may have frames too.
    pub fn of_run(boot: BootId) -> Self {
        Self { run: Some(boot), ..Self::default() }
    }

    /// A track begins, or begins a new epoch. The current epoch again changes its description; an older one is passed over. `budget` is the longest
    /// that one of its frames may wait while there is a session.
    pub fn announce(&mut self, info: TrackInfo, budget: Option<Duration>) {
        let number = info.track;
        let (flow, is_audio) = (self.flows.of(&info), info.sample_rate > 0);
        let is_recorded = self.recorded.iter().any(|(camera, source)| is_of(&info, camera, source));
        let at = match self.tracks.iter().position(|track| track.number == number) {
            Some(at) => at,
            None => {
                let (advice, epochs) = (Advice::default(), VecDeque::new());
                self.tracks.push(Track { number, flow, is_audio, is_recorded, budget, advice, epochs });
                self.tracks.len() - 1
            }
        };
        let track = &mut self.tracks[at];
        match track.epochs.back_mut() {
            Some(current) if info.epoch < current.info.epoch => {}
            Some(current) if info.epoch == current.info.epoch => {
                current.info = info;
                current.announced = false;
            }
            _ => {
                let next = info.next;
                let (received, counted) = (next, next);
                let epoch = Epoch {
                    info,
                    announced: false,
                    next,
                    received,
                    persisted: 0,
                    begun: 0,
                    catches_up: false,
                    has_asked: false,
                    counted,
                    partial: None,
                    breaks: VecDeque::new(),
                    unheard: VecDeque::new(),
                };
                (track.flow, track.is_audio, track.is_recorded, track.budget) = (flow, is_audio, is_recorded, budget);
                track.epochs.push_back(epoch);
            }
        }
        let Self { flows, tracks, .. } = self;
        let is_member = |flow, number| tracks.iter().any(|track| (track.flow, track.number) == (flow, number));
        flows.keep(is_member, |flow| tracks.iter().any(|track| track.flow == flow));
    }

    /// The most octets a second that frames of the past may take, 0 for none of them; `None`: what the live classes leave.
    pub fn set_backfill_rate(&mut self, rate: Option<u64>) {
        self.backfill.set_rate(rate);
    }

    /// Whether frames of the past wait.
    pub fn set_backfill_paused(&mut self, is_paused: bool) {
        self.backfill.set_paused(is_paused);
    }

    /// When frames of the past may be sent again that a cap holds back.
    pub fn backfill_at(&self) -> Option<Instant> {
        self.backfill.look_at()
    }

    /// The time of [`Sender::backfill_at`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.backfill.looked(now);
    }

    /// What lets go of a source's frames: that the server has received them, or that it has stored them.
    pub fn set_retention(&mut self, camera: &str, source: &str, retention: Retention) {
        let is_recorded = retention == Retention::Record;
        let was_recorded = self.recorded.iter().any(|(of, name)| (of.as_str(), name.as_str()) == (camera, source));
        if is_recorded != was_recorded {
            self.backfill.look_again();
        }
        self.recorded.retain(|(of, name)| (of.as_str(), name.as_str()) != (camera, source));
        if is_recorded {
            self.recorded.push((camera.into(), source.into()));
        }
        let is_member =
            |track: &&mut Track| track.epochs.back().is_some_and(|epoch| is_of(&epoch.info, camera, source));
        self.tracks.iter_mut().filter(is_member).for_each(|track| track.is_recorded = is_recorded);
    }

    /// A session begins: everything that was not received is sent again, from where the server stands; what was not stored too, when the server
    /// does not know it any more. `lost` when the server has lost what it had stored.
    pub fn rewind(
        &mut self,
        now: Instant,
        points: &[ResumePoint],
        limits: &Limits,
        journal: &mut dyn Journal,
        lost: bool,
    ) {
        self.limits = *limits;
        self.since = now;
        for track in &mut self.tracks {
            track.advice.restart();
            let of_track = || points.iter().filter(|point| point.track == track.number);
            let newest = of_track().map(|point| point.epoch).max();
            for epoch in &mut track.epochs {
                let id = epoch.info.epoch;
                let point = of_track().find(|point| point.epoch == id);
                epoch.announced = false;
                epoch.partial = None;
                // What the journal has forgotten was sent to its end.
                let end = journal.end(track.number, id).max(epoch.next);
                if lost {
                    // What went before it was stored is told still; what was stored and let go of is gone with the store.
                    let kept = journal.find(track.number, id, 0).map_or(end, |entry| entry.sequence);
                    epoch.persisted = epoch.persisted.min(kept);
                }
                let known = match point {
                    Some(point) => point.next.min(end),
                    // A newer epoch was begun only after all of this one had been sent, on a transport that keeps the order.
                    None if !track.is_recorded && newest > Some(id) => end,
                    // Who was restarted has what it stored. What the journal had to drop since is told by a SKIP.
                    _ if track.is_recorded => epoch.persisted.min(end),
                    _ => epoch.received,
                };
                if track.is_recorded {
                    epoch.received = epoch.received.min(known);
                }
                // What is stored is not wanted again, whatever the backlog has still to bring below it.
                let known = if track.is_recorded { known.max(epoch.persisted.min(end)) } else { known };
                epoch.hear(known);
                let sent_after_all = epoch.take_back();
                self.counts.frames_skipped = self.counts.frames_skipped.saturating_sub(sent_after_all);
                self.counts.frames_late = self.counts.frames_late.saturating_sub(sent_after_all);
                epoch.next = journal.live_from(track.number, id, epoch.received).max(epoch.received);
                epoch.begun = if epoch.next > epoch.received { epoch.next } else { 0 };
                // With a card it has gone on by `live_from` already.
                (epoch.catches_up, epoch.has_asked) =
                    (journal.leave(&epoch.info, epoch.next, epoch.next, false), false);
                let freed = epoch.freed(track.is_recorded);
                journal.received(track.number, id, freed);
                // What was let go counts as stored, should the server begin to record.
                epoch.persisted = epoch.persisted.max(freed);
            }
            retire(track, journal);
            // What a decoder must know, and what pictures refer to, may have been in the frames that are gone.
            let begins_without_key =
                track.epochs.back().is_some_and(|epoch| epoch.goes_on_without_key(track.number, journal));
            if !track.is_audio && (lost && track.is_recorded || begins_without_key) {
                ask(&mut self.key_requests, track.number);
            }
        }
        self.backfill.rewind();
        let live: Vec<_> = self.tracks.iter().flat_map(Track::epochs_named).filter(|_| lost).collect();
        if let Some(backlog) = journal.backlog() {
            backlog.rewind(lost.then_some(&live));
        }
    }

    /// Takes an acknowledgement and frees the journal.
    pub fn acknowledged(&mut self, mack: &Mack, journal: &mut dyn Journal) -> Result<(), Error> {
        if mack.track >= FIRST_LANE {
            if let Some(backlog) = journal.backlog() {
                self.backfill.acknowledged(mack, backlog);
            }
            return Ok(());
        }
        let wrong = |place, expected, got| Err(Error::Violation { place, expected, got });
        let Some(track) = self.tracks.iter_mut().find(|track| track.number == mack.track) else {
            return wrong("MACK track", "a track that was announced", format!("{}", mack.track));
        };
        let is_recorded = track.is_recorded;
        let Some(epoch) = track.epochs.iter_mut().find(|epoch| epoch.info.epoch == mack.epoch) else {
            // An acknowledgement may cross with the end of its epoch.
            return Ok(());
        };
        if mack.received > epoch.next {
            return wrong("MACK received", "at most the next number to send", format!("{}", mack.received));
        }
        if let Some(boot) = self.run.filter(|_| mack.persisted > 0) {
            self.backfill.told.stored(&EpochKey { boot, track: mack.track, epoch: mack.epoch }, mack.persisted);
        }
        let before = epoch.freed(is_recorded);
        epoch.hear(mack.received);
        epoch.persisted = epoch.persisted.max(mack.persisted.min(epoch.next));
        let freed = epoch.freed(is_recorded);
        epoch.persisted = epoch.persisted.max(freed);
        if freed > before {
            journal.received(mack.track, mack.epoch, freed);
        }
        // An epoch was begun only after all of the ones before it had been sent, on a transport that keeps the order: who has
        // heard of it has received those, and will not name them any more.
        for older in track.epochs.iter_mut().take_while(|older| older.info.epoch < mack.epoch) {
            older.hear(older.next);
            if !is_recorded {
                journal.received(mack.track, older.info.epoch, older.next);
                older.persisted = older.persisted.max(older.next);
            }
        }
        retire(track, journal);
        Ok(())
    }

    /// Writes as much of a class, [`Class::Audio`], [`Class::Video`] or [`Class::Backfill`], as fits into `record`.
    pub fn fill(&mut self, class: Class, now: Instant, record: &mut RecordWriter, journal: &mut dyn Journal) {
        if class == Class::Video && now.saturating_since(self.looked_at) >= LOOK_EVERY {
            self.looked_at = now;
            self.advise(now, journal);
        }
        if class == Class::Backfill {
            let Self { backfill, recorded, limits, counts, .. } = self;
            let is_recorded = |info: &TrackInfo| recorded.iter().any(|(camera, source)| is_of(info, camera, source));
            if let Some(backlog) = journal.backlog() {
                backfill.fill(now, record, backlog, limits, is_recorded, counts);
            }
            return;
        }
        while record.room() > 64 && self.step(class, now, record, journal) {}
    }

    /// Whether frames of the past could be sent if there were room.
    pub fn has_past(&self, journal: &mut dyn Journal) -> bool {
        let has_frame = |backlog: &mut dyn Backlog| matches!(backlog.look(), Look::Frame(..));
        self.backfill.is_open() && journal.backlog().is_some_and(has_frame)
    }

    /// A change of what a track's encoder should produce, in bits a second; 0: what it likes.
    pub fn take_bitrate(&mut self) -> Option<(u32, u64)> {
        self.bitrates.pop()
    }

    fn advise(&mut self, now: Instant, journal: &mut dyn Journal) {
        for track in self.tracks.iter_mut().filter(|track| !track.is_audio) {
            let Some(epoch) = track.epochs.back() else { continue };
            let oldest = match &epoch.partial {
                Some(partial) => Some(partial.entry),
                None => journal.find(track.number, epoch.info.epoch, epoch.next),
            };
            let arrived = oldest.map(|entry| Instant::from_micros(entry.head.arrival_us).max(self.since));
            let waited = arrived.map_or(Duration::ZERO, |arrived| now.saturating_since(arrived));
            let produced = self.flows.rate_of_track(track.flow, track.number);
            if let Some(bits) = track.advice.look(now, waited, produced) {
                self.bitrates.retain(|(number, _)| *number != track.number);
                self.bitrates.push((track.number, bits));
            }
        }
    }

    /// A track whose encoder should begin a new GOP now: its next frames cannot be decoded.
    pub fn take_key_request(&mut self) -> Option<u32> {
        self.key_requests.pop()
    }

    /// Counters since the sender was made.
    pub fn counts(&self) -> TransferCounts {
        self.counts
    }

    /// Whether every frame of the journal was sent and acknowledged, and what of the past may be sent now was stored.
    pub fn is_settled(&self, journal: &mut dyn Journal) -> bool {
        let mut epochs =
            self.tracks.iter().flat_map(|track| track.epochs.iter().map(move |epoch| (track.number, epoch)));
        epochs.all(|(number, epoch)| epoch.received >= journal.end(number, epoch.info.epoch))
            && journal.backlog().is_none_or(|backlog| self.backfill.is_settled(backlog))
    }

    /// Writes one frame or a part of one; `false` when there is nothing to write or no room.
    fn step(&mut self, class: Class, now: Instant, record: &mut RecordWriter, journal: &mut dyn Journal) -> bool {
        let mut candidates = core::mem::take(&mut self.candidates);
        candidates.clear();
        let written = self.collect(class, now, &mut candidates, record, journal);
        let chosen = match class {
            Class::Audio => candidates.iter().copied().min_by_key(|candidate| candidate.entry.head.arrival_us),
            _ => {
                let flow = self.flows.next(candidates.iter().map(|candidate| candidate.flow));
                let of_flow = candidates.iter().copied().filter(|candidate| Some(candidate.flow) == flow);
                of_flow.min_by_key(|candidate| candidate.entry.head.arrival_us)
            }
        };
        self.candidates = candidates;
        match (written, chosen) {
            (Some(written), _) => written,
            (None, Some(candidate)) => self.send(candidate, record, journal),
            (None, None) => false,
        }
    }

    /// Finds the next frame of each track of a class. What has to be told before frames is written instead: then the answer is whether there was room.
    fn collect(
        &mut self,
        class: Class,
        now: Instant,
        candidates: &mut Vec<Candidate>,
        record: &mut RecordWriter,
        journal: &mut dyn Journal,
    ) -> Option<bool> {
        for at in 0..self.tracks.len() {
            let track = &mut self.tracks[at];
            let (number, flow, is_audio) = (track.number, track.flow, track.is_audio);
            if number >= self.limits.tracks {
                continue;
            }
            // The epoch that is being sent: the first that has something left, else the newest.
            let Some(index) = (0..track.epochs.len()).find(|&index| {
                let epoch = &track.epochs[index];
                // Of one that is not stored yet the server has to know that it is asked.
                let is_unheard = track.is_recorded && !epoch.announced && epoch.persisted < epoch.next;
                index + 1 == track.epochs.len() || is_unheard || epoch.next < journal.end(number, epoch.info.epoch)
            }) else {
                continue;
            };
            if self.catch_up(at, index, now, journal) {
                return Some(true);
            }
            let track = &mut self.tracks[at];
            let is_newest = index + 1 == track.epochs.len();
            let epoch = &mut track.epochs[index];
            // In the order of the numbers, whatever their class is: receivers list them as they come.
            if !epoch.announced {
                epoch.info.next = epoch.next;
                epoch.announced = record.push(&Frame::Track(epoch.info.clone()));
                return Some(epoch.announced);
            }
            if class == Class::Audio && !is_audio {
                continue;
            }
            let live = match track.budget {
                Some(budget) if !track.is_recorded => budget.clamp(LIVE, CATCHES_UP),
                _ => LIVE,
            };
            let is_of_class = |entry: &Entry| {
                let arrived = Instant::from_micros(entry.head.arrival_us);
                class == if is_audio && now.saturating_since(arrived) <= live { Class::Audio } else { Class::Video }
            };
            if let Some(partial) = &epoch.partial {
                let entry = partial.entry;
                if is_of_class(&entry) {
                    candidates.push(Candidate { at, index, flow, entry });
                }
                continue;
            }
            // Asked first: a frame that comes between the two questions is not lost for having been found by neither.
            let end = journal.end(number, epoch.info.epoch);
            let found = journal.find(number, epoch.info.epoch, epoch.next);
            let first_kept = found.map_or(end, |entry| entry.sequence);
            if first_kept > epoch.next {
                // What went to the backlog is brought from there, and is no hole.
                let goes_on = journal.live_from(number, epoch.info.epoch, epoch.next);
                if goes_on > epoch.next {
                    (epoch.next, epoch.begun, epoch.announced) = (goes_on, goes_on, false);
                    if !is_audio && is_newest && epoch.goes_on_without_key(number, journal) {
                        ask(&mut self.key_requests, number);
                    }
                    return Some(true);
                }
                let (reason, last) = journal.missing(number, epoch.info.epoch, epoch.next);
                let end = last.saturating_add(1).clamp(epoch.next + 1, first_kept);
                return Some(self.tell_hole(at, index, end, reason, record));
            }
            let Some(entry) = found else { continue };
            if entry.length > self.limits.frame_bytes {
                let end = entry.sequence + 1;
                return Some(self.tell_hole(at, index, end, SkipReason::TooLarge, record));
            }
            if let Some(written) = self.leave_out_late(at, index, entry, end, now, record, journal) {
                return Some(written);
            }
            if is_of_class(&entry) {
                candidates.push(Candidate { at, index, flow, entry });
            }
        }
        None
    }

    /// Goes on where it is live, once the backlog brings what lies before: whether it did. What is not recorded has nobody who would want that.
    fn catch_up(&mut self, at: usize, index: usize, now: Instant, journal: &mut dyn Journal) -> bool {
        let track = &mut self.tracks[at];
        let is_over = index + 1 < track.epochs.len();
        let epoch = &mut track.epochs[index];
        if !epoch.catches_up || epoch.partial.is_some() {
            return false;
        }
        let place = live::Place { track: track.number, epoch: epoch.info.epoch, next: epoch.next };
        let to = match live::begin(place, track.is_audio, is_over, now, journal) {
            Begin::Later => return false,
            Begin::Here => epoch.next,
            // Where the past has to wait memory cannot: it goes first, in its order.
            _ if !track.is_recorded || self.backfill.is_held() => return false,
            Begin::At(to) => to,
            Begin::AtNextKey => {
                if !epoch.has_asked {
                    ask(&mut self.key_requests, track.number);
                }
                epoch.has_asked = true;
                return false;
            }
        };
        epoch.catches_up = false;
        // What was received and is not stored yet is the lane's as well: its acknowledgements say nothing of what lies before it.
        let from = epoch.persisted.min(epoch.next);
        if to == epoch.next || !journal.leave(&epoch.info, from, to, is_over) {
            return false;
        }
        (epoch.next, epoch.begun, epoch.announced) = (to, to, false);
        retire(track, journal);
        true
    }

    /// Writes a SKIP over frames that are not there up to `end`. What a lane told of them, or will tell again, counts once.
    fn tell_hole(&mut self, at: usize, index: usize, end: u64, reason: SkipReason, record: &mut RecordWriter) -> bool {
        let track = &mut self.tracks[at];
        let number = track.number;
        let epoch = &mut track.epochs[index];
        let from = epoch.counted.max(epoch.next);
        let is_told = skip(number, epoch, end, reason, record, &mut self.counts);
        if let Some(boot) = self.run.filter(|_| is_told && track.is_recorded && from < end) {
            let key = EpochKey { boot, track: number, epoch: epoch.info.epoch };
            let known = (end - from) - self.backfill.told.note(key, from, end);
            self.counts.frames_skipped = self.counts.frames_skipped.saturating_sub(known);
        }
        is_told
    }

    /// Writes a SKIP over what is too late to be live, if anything is. `known` is where the epoch ended before anything else was asked.
    #[allow(clippy::too_many_arguments, reason = "the state of one step")]
    fn leave_out_late(
        &mut self,
        at: usize,
        index: usize,
        entry: Entry,
        known: u64,
        now: Instant,
        record: &mut RecordWriter,
        journal: &mut dyn Journal,
    ) -> Option<bool> {
        let since = self.since;
        let waited = |entry: &Entry| now.saturating_since(Instant::from_micros(entry.head.arrival_us).max(since));
        let track = &mut self.tracks[at];
        // What is recorded is late rather than lost.
        let budget = track.budget.map(|budget| if track.is_recorded { Duration::MAX } else { budget })?;
        let number = track.number;
        let epoch = &mut track.epochs[index];
        let id = epoch.info.epoch;
        let waiting = |entry: &Entry| Waiting {
            sequence: entry.sequence,
            is_key: entry.head.key,
            is_disposable: entry.head.disposable,
            waited: waited(entry),
            needs_key: epoch.is_cut_off(entry.sequence),
        };
        let is_cut_off = epoch.is_cut_off(entry.sequence);
        let verdict = match track.is_audio {
            true => late::audio(waiting(&entry), budget),
            false => late::video(waiting(&entry), budget, || {
                let key = journal.newest_key(number, id).and_then(|key| journal.find(number, id, key))?;
                Some((key.sequence, waited(&key)))
            }),
        };
        if verdict == Verdict::Send || verdict.is_disposable() {
            // The server had not heard of it: what was left out is sent after all, or nothing refers to it, and nothing is broken.
            epoch.breaks.retain(|broken| broken.first != entry.sequence);
        }
        let (end, reason) = match verdict {
            Verdict::Send => {
                if entry.head.key {
                    for broken in epoch.breaks.iter_mut().filter(|broken| broken.first < entry.sequence) {
                        broken.key = Some(broken.key.map_or(entry.sequence, |key| key.min(entry.sequence)));
                    }
                }
                return None;
            }
            Verdict::LeaveOut { end, reason } => (end, reason),
            Verdict::LeaveAll => (known.max(entry.sequence + 1), SkipReason::Late),
        };
        // What never reaches the wire was brought all the same.
        let mut next = Some(entry);
        while let Some(left_out) = next.filter(|entry| entry.sequence < end) {
            self.flows.arrived(track.flow, number, Instant::from_micros(left_out.head.arrival_us), left_out.length);
            next = journal.find(number, id, left_out.sequence + 1);
        }
        let before = epoch.counted.max(epoch.next);
        if !skip(number, epoch, end, reason, record, &mut self.counts) {
            return Some(false);
        }
        if end > before {
            // What only refers to it says nothing new.
            if reason == SkipReason::Late && !is_cut_off {
                track.advice.left_out();
            }
            self.counts.frames_late += end - before;
            if epoch.unheard.len() == MAX_UNHEARD {
                epoch.unheard.pop_front();
            }
            epoch.unheard.push_back((before, end));
        }
        if verdict == Verdict::LeaveAll {
            let is_first = epoch.breaks.back().is_none_or(|broken| broken.key.is_some());
            if is_first {
                ask(&mut self.key_requests, number);
            }
            let has_room = epoch.breaks.len() < MAX_UNHEARD;
            match epoch.breaks.back_mut() {
                // One that is open goes on, and so does the last one when there are too many.
                Some(broken) if !is_first || !has_room => {
                    (broken.first, broken.key) = (broken.first.min(entry.sequence), None);
                }
                _ => epoch.breaks.push_back(Broken { first: entry.sequence, key: None }),
            }
        }
        Some(true)
    }

    fn send(&mut self, candidate: Candidate, record: &mut RecordWriter, journal: &mut dyn Journal) -> bool {
        let Candidate { at, index, flow, entry } = candidate;
        let track = &mut self.tracks[at];
        let number = track.number;
        let epoch = &mut track.epochs[index];
        let offset = epoch.partial.as_ref().map_or(0, |partial| partial.offset);
        let left = usize::try_from(entry.length - offset).unwrap_or(usize::MAX);
        self.head.clear();
        let kind = if offset == 0 {
            let start = FrameStart {
                track: number,
                sequence: entry.sequence,
                head: entry.head,
                total: entry.length,
                payload: Default::default(),
            };
            start.write(&mut self.head);
            FrameStart::NUMBER
        } else {
            varint::put(u64::from(number), &mut self.head);
            FrameMore::NUMBER
        };
        let mut gone = false;
        let id = epoch.info.epoch;
        let written = record.push_payload(kind, &self.head, left, |into| {
            gone = !journal.copy(number, id, entry.sequence, offset, into);
            !gone
        });
        if let Some(octets) = written {
            self.flows.sent(flow, octets);
            track.advice.sent(octets as u64);
            if offset == 0 {
                self.flows.arrived(flow, number, Instant::from_micros(entry.head.arrival_us), entry.length);
            }
        }
        match written {
            Some(octets) if offset + octets as u64 == entry.length => {
                epoch.partial = None;
                epoch.next = entry.sequence + 1;
                self.counts.frames_sent += 1;
                true
            }
            Some(octets) => {
                epoch.partial = Some(Partial { entry, offset: offset + octets as u64 });
                true
            }
            None if gone && offset > 0 => {
                // Evicted in the middle of its sending; the SKIP follows by itself.
                let written = record.push(&Frame::FrameAbort(FrameAbort { track: number, sequence: entry.sequence }));
                if written {
                    epoch.partial = None;
                }
                written
            }
            // No room, or evicted before its first octet: then the next look at the journal finds the hole. Not at once: a journal that
            // finds what it cannot copy must not keep us here.
            None => false,
        }
    }
}

/// Once, however many reasons there are.
fn ask(key_requests: &mut Vec<u32>, track: u32) {
    if !key_requests.contains(&track) {
        key_requests.push(track);
    }
}

fn is_of(info: &TrackInfo, camera: &str, source: &str) -> bool {
    info.camera == camera && info.source == source
}

/// Writes a SKIP over `epoch.next..end`.
fn skip(
    track: u32,
    epoch: &mut Epoch,
    end: u64,
    reason: SkipReason,
    record: &mut RecordWriter,
    counts: &mut TransferCounts,
) -> bool {
    let written = record.push(&Frame::Skip(Skip { track, first: epoch.next, last: end - 1, reason }));
    if written {
        counts.frames_skipped += end.saturating_sub(epoch.counted.max(epoch.next));
        epoch.counted = epoch.counted.max(end);
        epoch.next = end;
    }
    written
}

/// Forgets epochs that are over: a newer one exists and everything of them was received, or comes from the backlog.
fn retire(track: &mut Track, journal: &mut dyn Journal) {
    while track.epochs.len() > 1 {
        let oldest = &track.epochs[0];
        if oldest.freed(track.is_recorded).max(oldest.begun) < journal.end(track.number, oldest.info.epoch) {
            break;
        }
        track.epochs.pop_front();
    }
}
