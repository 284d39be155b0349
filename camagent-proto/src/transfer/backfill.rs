//! The agent's half of backfill: reads the backlog, oldest first, and fills what the live classes leave of a record.
//!
//! Each epoch of each run that the backlog has something of gets a lane (JOURNAL). The server answers with what it has of it already; then the frames
//! follow, each number once or within a SKIP, and EPOCH_END behind the last. What the server has stored is let go. What the server does not record
//! stays where it is.
//!
//! What does not belong here: where the backlog lies and how it is read ahead (the trait's owner), live frames (`sender`).

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{Entry, TransferCounts, lanes::EpochKey};
use crate::{
    frame::{
        Body, EndReason, EpochEnd, FIRST_LANE, Frame, FrameAbort, FrameMore, FrameStart, Journal, Mack, RecordWriter,
        Skip, SkipReason, TrackInfo,
    },
    message::{BootId, Limits},
    time::{Duration, Instant},
    varint,
};

/// Lanes that are opened at once: more tracks than an agent has, so that those of one run always fit.
const OPEN: usize = 192;
/// What a cap lets pass at once, at least.
const RECORD: i64 = 16 << 10;
/// Frames that the server has already, passed over in one look.
const PASSED: usize = 1_024;

/// What a backlog has of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The run.
    pub boot: BootId,
    /// Track and epoch; `next` is the first number that the backlog has or had.
    pub info: TrackInfo,
    /// The number behind the last one.
    pub end: u64,
    /// The run's boot-time clock in microseconds when UTC was known, and UTC then in microseconds since 1970; zeros when it never was.
    pub clock: (u64, u64),
    /// Why nothing comes behind `end`; `None` while the epoch goes on.
    pub ended: Option<EndReason>,
}

impl Waiting {
    /// The epoch's name.
    pub fn key(&self) -> EpochKey {
        EpochKey { boot: self.boot, track: self.info.track, epoch: self.info.epoch }
    }
}

/// What comes next of a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// This frame. All of one run come before those of the next.
    Frame(EpochKey, Entry),
    /// Something that is being read.
    Later,
    /// Nothing more.
    Nothing,
}

/// Frames that were not received in time, as the sender reads them: those of all runs, oldest first. It may be on a slow card: what is not in memory
/// yet is told as [`Look::Later`].
pub trait Backlog {
    /// Grows whenever [`Backlog::waiting`] tells something else than before.
    fn generation(&mut self) -> u64;
    /// The epochs that it has something of, oldest run first.
    fn waiting(&mut self) -> Vec<Waiting>;
    /// The oldest frame that was not passed in this session.
    fn look(&mut self) -> Look;
    /// Copies octets of a frame that [`Backlog::look`] gave, from `offset` on, into all of `into`. `false` when it is not there any more: whoever
    /// reads ahead may have begun anew.
    fn copy(&mut self, key: &EpochKey, sequence: u64, offset: u64, into: &mut [u8]) -> bool;
    /// Passes a frame that [`Backlog::look`] gave, and no other one.
    fn pass(&mut self, key: &EpochKey, sequence: u64);
    /// No frame of this epoch is wanted in this session.
    fn decline(&mut self, key: &EpochKey);
    /// Why `number` will not come, and up to which one that holds. `None`: it still comes. What was told to be there may have gone with a write that
    /// failed, and has to be written again.
    fn hole(&mut self, key: &EpochKey, number: u64) -> Option<(SkipReason, u64)>;
    /// The server has stored all of this epoch below `next`.
    fn stored(&mut self, key: &EpochKey, next: u64);
    /// A session begins, or the server wants what was declined: all that is there is read again. `lost` when the server has lost what it had stored: it
    /// names the epochs of this run, each with its track, that the live reader goes on with; the others are the backlog's, whoever brought them.
    fn rewind(&mut self, lost: Option<&[(u32, u64)]>);
}

#[derive(Debug)]
struct Lane {
    number: u32,
    /// The order of its run.
    rank: u64,
    waiting: Waiting,
    next: u64,
    /// The server has said what it has.
    is_answered: bool,
    /// EPOCH_END was sent, or nothing more comes in this session.
    is_over: bool,
    /// The server has stored all of it.
    is_stored: bool,
}

#[derive(Debug)]
struct Partial {
    lane: u32,
    key: EpochKey,
    entry: Entry,
    offset: u64,
}

/// The lanes of a session.
#[derive(Debug, Default)]
pub(super) struct Backfill {
    generation: Option<u64>,
    ranks: BTreeMap<BootId, u64>,
    queue: VecDeque<Waiting>,
    lanes: Vec<Lane>,
    last: u32,
    partial: Option<Partial>,
    head: Vec<u8>,
    /// The server stores other sources than when they were looked at.
    is_stale: bool,
    is_paused: bool,
    cap: Cap,
    pub(super) told: Told,
}

/// Numbers that were told as lost and counted, in any session: a repeat of the same SKIP counts once.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<EpochKey, Vec<(u64, u64)>>);

/// Epochs of which that is remembered, and ranges of one.
const MAX_TOLD: usize = 1_024;

impl Told {
    /// Takes note of `first..end`: how many of these are news.
    pub(super) fn note(&mut self, key: EpochKey, first: u64, end: u64) -> u64 {
        let ranges = self.0.entry(key).or_default();
        let (mut news, mut whole) = (end - first, (first, end));
        ranges.retain(|&(from, to)| {
            let is_apart = to < whole.0 || whole.1 < from;
            if !is_apart {
                news -= to.min(end).saturating_sub(from.max(first));
                whole = (whole.0.min(from), whole.1.max(to));
            }
            is_apart
        });
        if ranges.len() == MAX_TOLD {
            ranges.remove(0);
        }
        ranges.push(whole);
        if self.0.len() > MAX_TOLD {
            // Not the one that is told now.
            let other = self.0.keys().find(|other| **other != key).copied();
            other.map(|other| self.0.remove(&other));
        }
        news
    }

    /// The server has stored all below `next`: nothing of that is told again.
    pub(super) fn stored(&mut self, key: &EpochKey, next: u64) {
        if let Some(ranges) = self.0.get_mut(key) {
            ranges.retain(|(_, end)| *end > next);
            if ranges.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

/// A cap on octets a second, with a second's worth of burst.
#[derive(Clone, Copy, Debug, Default)]
struct Cap {
    rate: Option<u64>,
    left: i64,
    counted_at: Instant,
    /// When there is something left again, once there is not.
    look_at: Option<Instant>,
}

impl Cap {
    /// Whether something may be sent.
    fn allows(&mut self, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        if rate == 0 {
            self.look_at = None;
            return false;
        }
        let most = i64::try_from(rate).unwrap_or(i64::MAX).max(RECORD);
        let micros = now.saturating_since(self.counted_at).as_micros();
        let more = i64::try_from(u128::from(rate) * micros / 1_000_000).unwrap_or(i64::MAX);
        if more > 0 {
            (self.left, self.counted_at) = (self.left.saturating_add(more).min(most), now);
        }
        self.look_at = None;
        if self.left <= 0 {
            let wait = u64::try_from(RECORD - self.left).unwrap_or(0).saturating_mul(1_000_000) / rate.max(1);
            self.look_at = Some(now + Duration::from_micros(wait));
        }
        self.left > 0
    }
}

impl Backfill {
    /// A session begins.
    pub(super) fn rewind(&mut self) {
        let Self { head, cap, is_paused, told, .. } = core::mem::take(self);
        *self = Self { head, cap, is_paused, told, ..Self::default() };
    }

    /// The most octets a second; `None`: what the live classes leave.
    pub(super) fn set_rate(&mut self, rate: Option<u64>) {
        self.cap.rate = rate;
    }

    /// Nothing is sent while this is so.
    pub(super) fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Whether nothing of it may be sent, until somebody says otherwise.
    pub(super) fn is_held(&self) -> bool {
        self.is_paused || self.cap.rate == Some(0)
    }

    /// Whether it is neither paused nor capped now.
    pub(super) fn is_open(&self) -> bool {
        !self.is_held() && self.cap.look_at.is_none()
    }

    /// When the cap lets something pass again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.cap.look_at
    }

    /// The time of [`Backfill::look_at`] has come.
    pub(super) fn looked(&mut self, now: Instant) {
        self.cap.look_at.take_if(|at| *at <= now);
    }

    /// Whether the server has stored all of the backlog that it wants; or nothing may be sent of it.
    pub(super) fn is_settled(&self, backlog: &mut dyn Backlog) -> bool {
        if self.is_held() {
            return true;
        }
        let is_known = self.generation == Some(backlog.generation()) && !self.is_stale || backlog.waiting().is_empty();
        let is_done = |lane: &Lane| lane.is_over && lane.is_stored;
        is_known && self.queue.is_empty() && self.lanes.iter().all(is_done) && backlog.look() == Look::Nothing
    }

    /// The server stores other sources now.
    pub(super) fn look_again(&mut self) {
        self.is_stale = true;
    }

    /// Takes an acknowledgement of a lane; one of a lane that is gone means nothing any more.
    pub(super) fn acknowledged(&mut self, mack: &Mack, backlog: &mut dyn Backlog) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.number == mack.track) else { return };
        lane.is_answered = true;
        let is_open = self.partial.as_ref().is_some_and(|partial| partial.lane == lane.number);
        if !is_open {
            lane.next = lane.next.max(mack.received.min(lane.waiting.end));
        }
        if mack.persisted > 0 {
            backlog.stored(&lane.waiting.key(), mack.persisted.min(lane.waiting.end));
            self.told.stored(&lane.waiting.key(), mack.persisted);
        }
        lane.is_stored = mack.persisted >= lane.waiting.end;
        // The server forgets a lane only with its epoch: one that goes on has the same number when there is more of it.
        if lane.is_over && lane.is_stored && lane.waiting.ended.is_some() {
            let number = lane.number;
            self.lanes.retain(|lane| lane.number != number);
        }
    }

    /// Fills a record. `is_recorded` says whether the server stores a source.
    pub(super) fn fill(
        &mut self,
        now: Instant,
        record: &mut RecordWriter,
        backlog: &mut dyn Backlog,
        limits: &Limits,
        is_recorded: impl Fn(&TrackInfo) -> bool,
        counts: &mut TransferCounts,
    ) {
        if self.is_paused {
            return;
        }
        if self.is_stale && self.partial.is_none() {
            // What was passed over is read again; what was sent is known by its lane.
            self.is_stale = false;
            backlog.rewind(None);
        }
        let generation = backlog.generation();
        if self.generation != Some(generation) {
            self.generation = Some(generation);
            self.refresh(backlog, &is_recorded);
        }
        while record.room() > 64 && self.cap.allows(now) {
            let before = record.octets();
            if !self.step(record, backlog, limits, counts) {
                break;
            }
            self.cap.left = self.cap.left.saturating_sub(i64::try_from(record.octets() - before).unwrap_or(i64::MAX));
        }
    }

    fn refresh(&mut self, backlog: &mut dyn Backlog, is_recorded: &impl Fn(&TrackInfo) -> bool) {
        for waiting in backlog.waiting() {
            let key = waiting.key();
            let rank = self.ranks.len() as u64;
            self.ranks.entry(waiting.boot).or_insert(rank);
            if !is_recorded(&waiting.info) {
                backlog.decline(&key);
            } else if let Some(lane) = self.lanes.iter().find(|lane| lane.waiting.key() == key) {
                let grown = waiting.end > lane.waiting.end || waiting.ended != lane.waiting.ended;
                if grown {
                    self.queue.push_back(waiting);
                }
            } else if let Some(queued) = self.queue.iter_mut().find(|queued| queued.key() == key) {
                *queued = waiting;
            } else {
                self.queue.push_back(waiting);
            }
        }
    }

    /// Writes one frame, or a part of one; `false` when there is nothing to write or no room.
    fn step(
        &mut self,
        record: &mut RecordWriter,
        backlog: &mut dyn Backlog,
        limits: &Limits,
        counts: &mut TransferCounts,
    ) -> bool {
        if self.partial.is_some() {
            return self.send(record, backlog, counts);
        }
        if let Some(announced) = self.announce(record) {
            return announced;
        }
        for _ in 0..PASSED {
            let (key, entry) = match backlog.look() {
                Look::Frame(key, entry) => (key, entry),
                Look::Later => return false,
                Look::Nothing => return self.finish(|_| true, record, backlog, counts).unwrap_or(false),
            };
            let rank = self.ranks.get(&key.boot).copied().unwrap_or(u64::MAX);
            let is_past = |lane: &Lane| {
                let older = lane.waiting.key();
                lane.rank < rank || (older.boot, older.track) == (key.boot, key.track) && older.epoch < key.epoch
            };
            if let Some(written) = self.finish(is_past, record, backlog, counts) {
                return written;
            }
            let Some(lane) = self.lanes.iter_mut().find(|lane| lane.waiting.key() == key) else {
                // What is told of it may have come a moment ago: declined, its frames would count as brought.
                if self.queue.iter().any(|queued| queued.key() == key) || self.generation != Some(backlog.generation())
                {
                    return false;
                }
                backlog.decline(&key);
                continue;
            };
            if !lane.is_answered {
                return false;
            }
            if entry.sequence < lane.next {
                backlog.pass(&key, entry.sequence);
                continue;
            }
            if entry.sequence >= lane.waiting.end {
                // The lane's end is news that is on its way.
                return false;
            }
            if entry.sequence > lane.next {
                let Some((reason, last)) = backlog.hole(&key, lane.next) else { return false };
                let last = last.clamp(lane.next, entry.sequence - 1);
                return skip(lane, last, reason, record, &mut self.told, counts);
            }
            if entry.length > limits.frame_bytes {
                let last = lane.next;
                backlog.pass(&key, entry.sequence);
                return skip(lane, last, SkipReason::TooLarge, record, &mut self.told, counts);
            }
            self.partial = Some(Partial { lane: lane.number, key, entry, offset: 0 });
            return self.send(record, backlog, counts);
        }
        false
    }

    /// Opens the next lane, or tells that one has more; `None` when there is none to open.
    fn announce(&mut self, record: &mut RecordWriter) -> Option<bool> {
        let waiting = self.queue.front()?;
        let known = self.lanes.iter().position(|lane| lane.waiting.key() == waiting.key());
        if known.is_none() && self.lanes.len() >= OPEN {
            // Those that go on and of which nothing waits give way.
            let at = self.lanes.iter().position(|lane| lane.is_over && lane.is_stored)?;
            self.lanes.remove(at);
        }
        let lane = known.map_or(FIRST_LANE.max(self.last + 1), |at| self.lanes[at].number);
        let (clock_us, utc_us) = waiting.clock;
        let frame =
            Journal { lane, boot: waiting.boot.0, end: waiting.end, clock_us, utc_us, info: waiting.info.clone() };
        if !record.push(&Frame::Journal(frame)) {
            return Some(false);
        }
        let waiting = self.queue.pop_front()?;
        match known {
            Some(at) => {
                let lane = &mut self.lanes[at];
                (lane.waiting, lane.is_over, lane.is_stored) = (waiting, false, false);
            }
            None => {
                self.last = lane;
                let rank = self.ranks.get(&waiting.boot).copied().unwrap_or(0);
                let next = waiting.info.next;
                let (is_answered, is_over, is_stored) = (false, false, false);
                self.lanes.push(Lane { number: lane, rank, waiting, next, is_answered, is_over, is_stored });
            }
        }
        Some(true)
    }

    /// Tells of lanes of which no frame comes any more; `None` when there is nothing to tell.
    fn finish(
        &mut self,
        is_past: impl Fn(&Lane) -> bool,
        record: &mut RecordWriter,
        backlog: &mut dyn Backlog,
        counts: &mut TransferCounts,
    ) -> Option<bool> {
        for lane in self.lanes.iter_mut().filter(|lane| !lane.is_over && is_past(lane)) {
            if !lane.is_answered {
                return Some(false);
            }
            if lane.next < lane.waiting.end {
                // What still comes holds up no other lane.
                let Some((reason, last)) = backlog.hole(&lane.waiting.key(), lane.next) else { continue };
                let last = last.clamp(lane.next, lane.waiting.end - 1);
                return Some(skip(lane, last, reason, record, &mut self.told, counts));
            }
            lane.is_over = match lane.waiting.ended {
                Some(cause) => {
                    record.push(&Frame::EpochEnd(EpochEnd { lane: lane.number, next: lane.waiting.end, cause }))
                }
                None => true,
            };
            return Some(lane.is_over);
        }
        None
    }

    fn send(&mut self, record: &mut RecordWriter, backlog: &mut dyn Backlog, counts: &mut TransferCounts) -> bool {
        let Some(Partial { lane: number, key, entry, offset }) = &mut self.partial else { return false };
        self.head.clear();
        let kind = if *offset == 0 {
            let start = FrameStart {
                track: *number,
                sequence: entry.sequence,
                head: entry.head,
                total: entry.length,
                payload: Default::default(),
            };
            start.write(&mut self.head);
            FrameStart::NUMBER
        } else {
            varint::put(u64::from(*number), &mut self.head);
            FrameMore::NUMBER
        };
        let left = usize::try_from(entry.length - *offset).unwrap_or(usize::MAX);
        let mut gone = false;
        let written = record.push_payload(kind, &self.head, left, |into| {
            gone = !backlog.copy(key, entry.sequence, *offset, into);
            !gone
        });
        let Some(octets) = written else {
            if *offset == 0 {
                self.partial = None;
                return false;
            }
            // It has to be read again, and is sent again then.
            let abort = Frame::FrameAbort(FrameAbort { track: *number, sequence: entry.sequence });
            let aborted = gone && record.push(&abort);
            if aborted {
                self.partial = None;
            }
            return aborted;
        };
        *offset += octets as u64;
        if *offset == entry.length {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.number == *number) {
                lane.next = entry.sequence + 1;
            }
            counts.frames_sent += 1;
            counts.frames_backfilled += 1;
            backlog.pass(key, entry.sequence);
            self.partial = None;
        }
        true
    }
}

/// Writes a SKIP up to `last`.
fn skip(
    lane: &mut Lane,
    last: u64,
    reason: SkipReason,
    record: &mut RecordWriter,
    told: &mut Told,
    counts: &mut TransferCounts,
) -> bool {
    let written = record.push(&Frame::Skip(Skip { track: lane.number, first: lane.next, last, reason }));
    if written {
        if reason != SkipReason::Live {
            counts.frames_skipped += told.note(lane.waiting.key(), lane.next, last + 1);
        }
        lane.next = last + 1;
    }
    written
}
