//! The server's half: puts frames together in order, drops what it has already, and acknowledges.

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
    vec::Vec,
};

use bytes::{Bytes, BytesMut};

use super::lanes::{EpochKey, Lanes, Past};
use crate::{
    error::Error,
    frame::{FIRST_LANE, Frame, FrameHead, FrameStart, Mack, RecordWriter, Skip, TrackInfo},
    message::{Limits, ResumePoint, check_name},
    time::{Duration, Instant},
};

/// An acknowledgement goes out at the latest after this time …
const ACK_DELAY: Duration = Duration::from_millis(100);
/// … or after so many octets.
const ACK_BYTES: u64 = 64 << 10;
/// What is set aside at once for a frame whose rest is still to come; more is taken as octets arrive, so that a claim costs nothing.
const FIRST_RESERVE: usize = 64 << 10;
/// Acknowledgements of epochs that tracks have left, waiting to be sent. One that has no room is told by the resume points.
const MOST_LEFT: usize = 128;
/// Epochs of a track of which it is remembered how far they came, beside the present one.
const MOST_EPOCHS: usize = 8;

/// A frame that arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFrame {
    /// Its track.
    pub track: u32,
    /// The epoch that its number counts in.
    pub epoch: u64,
    /// Its number.
    pub sequence: u64,
    /// Times and flags.
    pub head: FrameHead,
    /// Its octets, as the host pushed them.
    pub payload: Bytes,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A track was announced, or announced again after a reconnect.
    Track(TrackInfo),
    /// A frame; each one comes once and in order.
    Frame(MediaFrame),
    /// Frames that will never come.
    Skip {
        /// The epoch that the numbers count in.
        epoch: u64,
        /// Which, and why.
        skip: Skip,
    },
    /// Something of the past: no viewer waits for it.
    Past(Past),
}

/// A frame whose rest is still to come.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) start: FrameStart,
    pub(super) octets: BytesMut,
    /// Known already: its octets are counted but not kept.
    pub(super) duplicate: bool,
    received: u64,
}

impl Assembly {
    pub(super) fn new(start: FrameStart, duplicate: bool) -> Self {
        let received = start.payload.len() as u64;
        let mut assembly = Self { octets: BytesMut::new(), duplicate, received, start };
        if received < assembly.start.total {
            if !duplicate {
                let total = usize::try_from(assembly.start.total).unwrap_or(FIRST_RESERVE);
                assembly.octets.reserve(total.min(FIRST_RESERVE));
                assembly.octets.extend_from_slice(&assembly.start.payload);
            }
            // It would hold its whole record.
            assembly.start.payload = Bytes::new();
        }
        assembly
    }

    pub(super) fn add(&mut self, payload: &[u8]) -> Result<(), Error> {
        let received = self.received + payload.len() as u64;
        if received > self.start.total {
            let got = format!("{received} of {}", self.start.total);
            return violation("FRAME_MORE payload", "no more than the frame's total length", got);
        }
        self.received = received;
        if !self.duplicate {
            self.octets.extend_from_slice(payload);
        }
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.received == self.start.total
    }

    pub(super) fn into_frame(self, track: u32, epoch: u64) -> MediaFrame {
        let payload = if self.octets.is_empty() { self.start.payload } else { self.octets.freeze() };
        MediaFrame { track, epoch, sequence: self.start.sequence, head: self.start.head, payload }
    }
}

#[derive(Debug)]
struct Track {
    epoch: u64,
    next: u64,
    /// The first number that is not stored.
    persisted: u64,
    /// Announced in this session.
    announced: bool,
    assembly: Option<Assembly>,
    unacknowledged: bool,
}

/// Takes an agent's media frames of one session.
#[derive(Debug, Default)]
pub struct Receiver {
    /// Those that were announced in this session.
    tracks: BTreeMap<u32, Track>,
    /// Where epochs stand that are not the present ones of their tracks, of earlier sessions too.
    points: Vec<ResumePoint>,
    /// What became stored of epochs that their tracks have left.
    left: VecDeque<Mack>,
    lanes: Lanes,
    limits: Limits,
    unacknowledged_bytes: u64,
    ack_at: Option<Instant>,
    duplicates: u64,
}

impl Receiver {
    /// A receiver that goes on where an earlier session of the same boot ended.
    pub fn new(limits: Limits, points: &[ResumePoint]) -> Self {
        Self { points: points.to_vec(), limits, ..Self::default() }
    }

    /// Where each track stands, for the next session of the same boot: its newest epochs.
    pub fn points(&self) -> Vec<ResumePoint> {
        let point = |(&track, state): (&u32, &Track)| ResumePoint { track, epoch: state.epoch, next: state.next };
        let now = self.tracks.iter().map(point);
        let is_other =
            |point: &&ResumePoint| self.tracks.get(&point.track).is_none_or(|state| state.epoch != point.epoch);
        now.chain(self.points.iter().filter(is_other).copied()).collect()
    }

    /// Takes note of where an epoch stands that its track leaves.
    fn note_left(&mut self, track: u32, epoch: u64, next: u64) {
        let of_epoch = |point: &&mut ResumePoint| (point.track, point.epoch) == (track, epoch);
        match self.points.iter_mut().find(of_epoch) {
            Some(point) => point.next = next,
            None => self.points.push(ResumePoint { track, epoch, next }),
        }
        let of_track = || self.points.iter().filter(|point| point.track == track).map(|point| point.epoch);
        if of_track().count() > MOST_EPOCHS
            && let Some(oldest) = of_track().min()
        {
            self.points.retain(|point| (point.track, point.epoch) != (track, oldest));
        }
    }

    /// Frames that came a second time and were dropped.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Tracks that were announced in this session.
    pub fn announced(&self) -> usize {
        self.tracks.values().filter(|track| track.announced).count()
    }

    /// Octets that are held for frames whose rest is still to come.
    pub fn held_octets(&self) -> u64 {
        let open = self.tracks.values().filter_map(|track| track.assembly.as_ref());
        open.map(|assembly| assembly.octets.capacity() as u64).sum::<u64>() + self.lanes.held_octets()
    }

    /// Takes one frame of a record.
    pub fn handle(&mut self, now: Instant, frame: Frame) -> Result<Option<Delivery>, Error> {
        let (lanes, duplicates) = (&mut self.lanes, &mut self.duplicates);
        let (past, octets) = match frame {
            Frame::Journal(journal) => (Some(lanes.open(journal)?), 0),
            Frame::EpochEnd(end) => (Some(lanes.end(&end)?), 0),
            Frame::Frame(start) if start.track >= FIRST_LANE => {
                let octets = start.payload.len();
                (lanes.start(start, &self.limits, duplicates)?, octets)
            }
            Frame::FrameMore(more) if more.track >= FIRST_LANE => {
                (lanes.more(more.track, &more.payload, duplicates)?, more.payload.len())
            }
            Frame::FrameAbort(abort) if abort.track >= FIRST_LANE => {
                lanes.abort(abort.track, abort.sequence)?;
                (None, 0)
            }
            Frame::Skip(skip) if skip.track >= FIRST_LANE => (lanes.skip(skip)?, 0),
            other => return self.live(now, other),
        };
        self.count(now, octets);
        Ok(past.map(Delivery::Past))
    }

    fn live(&mut self, now: Instant, frame: Frame) -> Result<Option<Delivery>, Error> {
        match frame {
            Frame::Track(info) => self.track(now, info).map(Some),
            Frame::Frame(start) => self.frame(now, start),
            Frame::FrameMore(more) => {
                let track = announced(&mut self.tracks, more.track, "FRAME_MORE track")?;
                let Some(assembly) = &mut track.assembly else {
                    return violation("FRAME_MORE", "an open frame on this track", format!("track {}", more.track));
                };
                assembly.add(&more.payload)?;
                track.unacknowledged = true;
                let number = more.track;
                self.count(now, more.payload.len());
                self.finish(number)
            }
            Frame::FrameAbort(abort) => {
                let track = announced(&mut self.tracks, abort.track, "FRAME_ABORT track")?;
                match track.assembly.take() {
                    Some(open) if open.start.sequence == abort.sequence => Ok(None),
                    _ => violation("FRAME_ABORT", "the open frame of this track", format!("{}", abort.sequence)),
                }
            }
            Frame::Skip(skip) => self.skip(now, skip),
            Frame::Mack(_) => violation("MACK", "frames of an agent", "an acknowledgement".into()),
            other => violation("record of an agent", "media", format!("frame {:#x}", other.number())),
        }
    }

    /// The record of acknowledgements that is due, if one is; other frames may follow in it.
    pub fn poll_ack(&mut self, now: Instant) -> Option<RecordWriter> {
        let due = self.ack_at.is_some_and(|at| at <= now) || self.unacknowledged_bytes >= ACK_BYTES;
        if !due {
            return None;
        }
        self.acknowledge_all()
    }

    /// All outstanding acknowledgements at once, for example before a planned close.
    pub fn acknowledge_all(&mut self) -> Option<RecordWriter> {
        self.ack_at = None;
        self.unacknowledged_bytes = 0;
        let mut record = RecordWriter::new(crate::frame::MAX_RECORD);
        for mack in self.left.drain(..) {
            // They and those below are at most 256 of at most 38 octets: they fit.
            record.push(&Frame::Mack(mack));
        }
        for (&number, track) in self.tracks.iter_mut().filter(|(_, track)| track.unacknowledged) {
            track.unacknowledged = false;
            let (epoch, received, persisted) = (track.epoch, track.next, track.persisted);
            record.push(&Frame::Mack(Mack { track: number, epoch, received, persisted }));
        }
        // Those without room go with the next record.
        self.lanes.acknowledge(|mack| record.push(&Frame::Mack(mack)));
        (!record.is_empty()).then_some(record)
    }

    /// What is known of an epoch of the past: below `received` nothing need be sent, below `persisted` all is stored.
    pub fn known(&mut self, now: Instant, key: &EpochKey, received: u64, persisted: u64) {
        if self.lanes.known(key, received, persisted) {
            self.count(now, 0);
        }
    }

    /// All frames of an epoch of a track below `next` are stored. Told within the time that acknowledgements have.
    pub fn persisted(&mut self, now: Instant, track: u32, epoch: u64, next: u64) {
        match self.tracks.get_mut(&track) {
            Some(state) if state.epoch == epoch => {
                if next <= state.persisted {
                    return;
                }
                state.persisted = next;
                state.unacknowledged = state.announced;
            }
            Some(state) if state.epoch > epoch => {
                self.left.retain(|mack| (mack.track, mack.epoch) != (track, epoch));
                if self.left.len() < MOST_LEFT {
                    self.left.push_back(Mack { track, epoch, received: next, persisted: next });
                }
            }
            _ => return,
        }
        self.count(now, 0);
    }

    /// When the next acknowledgement is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ack_at
    }

    fn track(&mut self, now: Instant, info: TrackInfo) -> Result<Delivery, Error> {
        check_name(&info.camera, "TRACK camera")?;
        check_name(&info.source, "TRACK source")?;
        if info.track >= self.limits.tracks {
            let (allowed, got) = (u64::from(self.limits.tracks) - 1, u64::from(info.track));
            return Err(Error::Limit { limit: "TRACK track", allowed, got });
        }
        let left = self.tracks.get(&info.track).filter(|track| track.epoch < info.epoch);
        if let Some((epoch, next, persisted)) = left.map(|track| (track.epoch, track.next, track.persisted)) {
            self.note_left(info.track, epoch, next);
            // What became stored just before is told still.
            if persisted > 0 && self.left.len() < MOST_LEFT {
                self.left.push_back(Mack { track: info.track, epoch, received: persisted, persisted });
            }
            self.tracks.remove(&info.track);
        }
        let known = self.points.iter().find(|point| (point.track, point.epoch) == (info.track, info.epoch));
        let next = known.map_or(info.next, |point| point.next);
        let track = self.tracks.entry(info.track).or_insert(Track::new(info.epoch, next));
        if info.epoch < track.epoch {
            return violation(
                "TRACK epoch",
                "not older than the last one",
                format!("{} < {}", info.epoch, track.epoch),
            );
        }
        // Frames that only an earlier server received are no hole of this one's making: the count goes on where the agent is.
        track.next = track.next.max(info.next);
        track.announced = true;
        track.assembly = None;
        track.unacknowledged = true;
        self.count(now, 0);
        Ok(Delivery::Track(info))
    }

    fn frame(&mut self, now: Instant, start: FrameStart) -> Result<Option<Delivery>, Error> {
        let frame_bytes = self.limits.frame_bytes;
        let track = announced(&mut self.tracks, start.track, "FRAME track")?;
        if start.total > frame_bytes {
            return Err(Error::Limit { limit: "FRAME total length", allowed: frame_bytes, got: start.total });
        }
        if let Some(open) = &track.assembly {
            let got = format!("{} while {} is open", start.sequence, open.start.sequence);
            return violation("FRAME", "the end of the open frame first", got);
        }
        if start.sequence > track.next {
            let got = format!("{} instead of {}", start.sequence, track.next);
            return violation("FRAME sequence", "the next number, or a SKIP before it", got);
        }
        let number = start.track;
        let octets = start.payload.len();
        let duplicate = start.sequence < track.next;
        track.assembly = Some(Assembly::new(start, duplicate));
        track.unacknowledged = true;
        self.count(now, octets);
        self.finish(number)
    }

    fn finish(&mut self, number: u32) -> Result<Option<Delivery>, Error> {
        let track = announced(&mut self.tracks, number, "FRAME track")?;
        let Some(open) = track.assembly.take_if(|open| open.is_whole()) else { return Ok(None) };
        track.unacknowledged = true;
        if open.duplicate {
            self.duplicates += 1;
            return Ok(None);
        }
        track.next = open.start.sequence + 1;
        Ok(Some(Delivery::Frame(open.into_frame(number, track.epoch))))
    }

    fn skip(&mut self, now: Instant, skip: Skip) -> Result<Option<Delivery>, Error> {
        let track = announced(&mut self.tracks, skip.track, "SKIP track")?;
        if track.assembly.is_some() {
            return violation("SKIP", "no open frame on this track", format!("track {}", skip.track));
        }
        if skip.first > track.next {
            let got = format!("{} instead of {}", skip.first, track.next);
            return violation("SKIP first", "the next number", got);
        }
        let epoch = track.epoch;
        let first = skip.first.max(track.next);
        track.unacknowledged = true;
        if skip.last < first {
            self.count(now, 0);
            return Ok(None);
        }
        track.next = skip.last + 1;
        self.count(now, 0);
        Ok(Some(Delivery::Skip { epoch, skip: Skip { first, ..skip } }))
    }

    fn count(&mut self, now: Instant, octets: usize) {
        self.unacknowledged_bytes += octets as u64;
        self.ack_at.get_or_insert(now + ACK_DELAY);
    }
}

impl Track {
    fn new(epoch: u64, next: u64) -> Self {
        Self { epoch, next, persisted: 0, announced: false, assembly: None, unacknowledged: false }
    }
}

fn announced<'a>(
    tracks: &'a mut BTreeMap<u32, Track>,
    number: u32,
    place: &'static str,
) -> Result<&'a mut Track, Error> {
    match tracks.get_mut(&number) {
        Some(track) if track.announced => Ok(track),
        _ => violation(place, "a track that was announced in this session", format!("{number}")),
    }
}

fn violation<T>(place: &'static str, expected: &'static str, got: alloc::string::String) -> Result<T, Error> {
    Err(Error::Violation { place, expected, got })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver() -> Receiver {
        let mut receiver = Receiver::new(Limits::default(), &[]);
        assert!(matches!(receiver.handle(Instant::ZERO, track(1, 0)), Ok(Some(Delivery::Track(_)))));
        receiver
    }

    fn track(epoch: u64, next: u64) -> Frame {
        Frame::Track(TrackInfo {
            track: 0,
            epoch,
            next,
            camera: "a".into(),
            source: "main".into(),
            codec: 1,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Bytes::new(),
        })
    }

    fn frame(sequence: u64, total: u64, payload: &'static [u8]) -> Frame {
        let payload = Bytes::from_static(payload);
        Frame::Frame(FrameStart { track: 0, sequence, head: FrameHead::default(), total, payload })
    }

    #[test]
    fn a_number_out_of_order_is_a_violation_and_a_known_one_is_dropped() {
        let mut receiver = receiver();
        assert!(matches!(receiver.handle(Instant::ZERO, frame(0, 1, b"a")), Ok(Some(Delivery::Frame(_)))));
        assert_eq!(receiver.handle(Instant::ZERO, frame(0, 1, b"a")), Ok(None));
        assert_eq!(receiver.duplicates(), 1);
        assert!(matches!(receiver.handle(Instant::ZERO, frame(2, 1, b"a")), Err(Error::Violation { .. })));
    }

    #[test]
    fn a_skip_moves_the_count_on() {
        let mut receiver = receiver();
        let skip = Skip { track: 0, first: 0, last: 4, reason: crate::frame::SkipReason::OverBudget };
        assert!(matches!(receiver.handle(Instant::ZERO, Frame::Skip(skip)), Ok(Some(Delivery::Skip { .. }))));
        assert!(matches!(receiver.handle(Instant::ZERO, frame(5, 1, b"a")), Ok(Some(Delivery::Frame(_)))));
    }

    #[test]
    fn acknowledgements_wait_for_time_or_octets() {
        let mut receiver = receiver();
        receiver.acknowledge_all();
        receiver.handle(Instant::ZERO, frame(0, 1, b"a")).unwrap();
        assert!(receiver.poll_ack(Instant::from_micros(99_999)).is_none());
        let record = receiver.poll_ack(Instant::from_micros(100_000)).unwrap().finish();
        let mut reader = crate::frame::RecordReader::new(record).unwrap();
        assert_eq!(reader.next_frame().unwrap(), Some(mack(1, 1, 0)));
        assert_eq!(receiver.poll_timeout(), None);
    }

    fn mack(epoch: u64, received: u64, persisted: u64) -> Frame {
        Frame::Mack(Mack { track: 0, epoch, received, persisted })
    }

    fn acknowledged(receiver: &mut Receiver) -> Vec<Frame> {
        let mut reader = crate::frame::RecordReader::new(receiver.acknowledge_all().unwrap().finish()).unwrap();
        core::iter::from_fn(|| reader.next_frame().unwrap()).collect()
    }

    #[test]
    fn what_is_stored_is_told_also_of_an_epoch_that_is_over() {
        let mut receiver = receiver();
        for sequence in 0..3 {
            receiver.handle(Instant::ZERO, frame(sequence, 1, b"a")).unwrap();
        }
        assert_eq!(acknowledged(&mut receiver), [mack(1, 3, 0)]);
        receiver.persisted(Instant::ZERO, 0, 1, 2);
        assert_eq!(receiver.poll_timeout(), Some(Instant::ZERO + ACK_DELAY));
        assert_eq!(acknowledged(&mut receiver), [mack(1, 3, 2)]);
        receiver.persisted(Instant::ZERO, 0, 1, 2);
        receiver.persisted(Instant::ZERO, 7, 1, 2);
        assert_eq!(receiver.poll_timeout(), None, "nothing is new");
        receiver.handle(Instant::ZERO, track(2, 0)).unwrap();
        receiver.persisted(Instant::ZERO, 0, 1, 3);
        assert_eq!(acknowledged(&mut receiver), [mack(1, 3, 3), mack(2, 0, 0)]);
        receiver.handle(Instant::ZERO, frame(0, 1, b"a")).unwrap();
        receiver.persisted(Instant::ZERO, 0, 2, 1);
        receiver.handle(Instant::ZERO, track(3, 0)).unwrap();
        assert_eq!(
            acknowledged(&mut receiver),
            [mack(2, 1, 1), mack(3, 0, 0)],
            "the epoch was left before it was told"
        );
    }

    #[test]
    fn a_session_goes_on_in_every_epoch_that_is_not_done() {
        let points = [2, 1].map(|epoch| ResumePoint { track: 0, epoch, next: epoch * 10 });
        let mut receiver = Receiver::new(Limits::default(), &points);
        receiver.handle(Instant::ZERO, track(1, 10)).unwrap();
        assert!(matches!(receiver.handle(Instant::ZERO, frame(10, 1, b"a")), Ok(Some(Delivery::Frame(_)))));
        receiver.handle(Instant::ZERO, track(2, 0)).unwrap();
        assert_eq!(receiver.handle(Instant::ZERO, frame(19, 1, b"a")), Ok(None), "it has this one");
        assert_eq!(
            receiver.points().iter().map(|point| (point.epoch, point.next)).collect::<Vec<_>>(),
            [(2, 20), (1, 11)]
        );
        assert!(receiver.handle(Instant::ZERO, track(1, 10)).is_err(), "epochs do not go back in a session");
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused() {
        let error = receiver().handle(Instant::ZERO, frame(0, 5 << 20, b"a")).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: "FRAME total length", .. }), "{error}");
    }
}
